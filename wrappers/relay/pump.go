package relay

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// A Step is what a Handler makes of the bytes it was shown: first Pass bytes to forward as they
// are, then Drop bytes not to forward. Neither: it must see more.
type Step struct {
	Pass int
	Drop int
	// Mid: the passed bytes end inside a frame, so nothing may be said to that side now.
	Mid bool
	// Skip: so many bytes that follow Pass and Drop, shown or not, are passed unseen (a large
	// body that concerns nobody). Their last byte ends a frame unless Mid is set.
	Skip int64
	// Need: don't ask again before so many bytes (behind Pass and Drop) are there. 0: any more.
	Need int
	// Blind: from here on this direction is passed unseen for ever.
	Blind bool
	// Then, if not nil, is called once Pass and Skip have been written.
	Then func()
}

// A pump moves one direction of a session. It belongs to one goroutine.
type pump struct {
	s       *Session
	src     net.Conn
	raw     syscall.RawConn
	dst     *end
	look    func([]byte) (Step, error)
	idle    time.Duration
	armed   time.Time // when the idle deadline was last set
	buf     []byte    // nil while there is nothing to hold
	r, w    int       // buf[r:w] is read and not passed on
	need    int
	skip    int64
	skipMid bool
	then    func() // of the step whose bytes are being skipped
	blind   bool
	bulk    bool // the last read filled its buffer

	n    int // of the read in progress, for once
	err  error
	once func(fd uintptr) bool
}

var errTooLong = errors.New("frame too long to hold")

func newPump(s *Session, src net.Conn, dst *end, look func([]byte) (Step, error)) *pump {
	p := &pump{s: s, src: src, raw: rawOf(src), dst: dst, look: look}
	p.once = func(fd uintptr) bool {
		if p.buf == nil {
			p.buf = getBuffer(p.size())
		}
		var wait bool
		p.n, wait, p.err = tryRead(fd, p.buf[p.w:])
		if wait && p.w == 0 {
			putBuffer(p.buf)
			p.buf, p.bulk = nil, false
		}
		return !wait
	}
	return p
}

func (p *pump) size() int {
	switch {
	case p.bulk:
		return largeBuffer
	case p.raw == nil:
		return tinyBuffer // it is held while the session is idle
	}
	return smallBuffer
}

// run moves bytes until the source ends (nil) or something breaks.
func (p *pump) run() error {
	defer func() {
		putBuffer(p.buf)
		p.buf = nil
	}()
	for {
		if err := p.read(); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		if err := p.move(); err != nil {
			return err
		}
		if p.s.draining.Load() && !p.s.handler.Busy() {
			return errDrained
		}
	}
}

// read adds at least one byte to the buffer.
func (p *pump) read() error {
	if err := p.room(); err != nil {
		return err
	}
	idle := p.idle
	if p.s.half.Load() {
		idle = p.s.server.Linger
	}
	if idle > 0 {
		if now := time.Now(); now.Sub(p.armed) > idle/8 {
			p.armed = now
			if err := p.src.SetReadDeadline(now.Add(idle)); err != nil {
				return err
			}
		}
	}
	if p.s.broken.Load() { // it may have been told so by a deadline that was just moved
		return errClosed
	}
	if p.raw == nil {
		if p.buf == nil {
			p.buf = getBuffer(p.size())
		}
		n, err := p.src.Read(p.buf[p.w:])
		p.n, p.err = n, err
		if n > 0 {
			p.err = nil // an error comes again
		}
	} else if err := p.raw.Read(p.once); err != nil {
		return err
	}
	if p.err != nil {
		return p.err
	}
	p.w += p.n
	p.bulk = p.w == len(p.buf)
	return nil
}

// room makes place for a read: at the front, or in a larger buffer up to the limit. It grows by
// what came, never by what a frame announces.
func (p *pump) room() error {
	if p.buf == nil {
		return nil
	}
	if p.r == p.w {
		p.r, p.w = 0, 0
		if n := len(p.buf); n < p.size() && p.bulk || n > largeBuffer || n > p.size() && p.raw == nil {
			putBuffer(p.buf)
			p.buf = nil
		}
		return nil
	}
	if p.w < len(p.buf) && (p.r == 0 || len(p.buf)-p.w >= smallBuffer/4) {
		return nil
	}
	if p.r > 0 {
		p.w = copy(p.buf, p.buf[p.r:p.w])
		p.r = 0
		if p.w < len(p.buf) {
			return nil
		}
	}
	limit := p.s.server.Hold + largeBuffer
	if len(p.buf) >= limit {
		return errTooLong
	}
	bigger := getBuffer(min(4*len(p.buf), max(limit, largeBuffer)))
	copy(bigger, p.buf[:p.w])
	putBuffer(p.buf)
	p.buf = bigger
	return nil
}

// move passes on what is there, as far as the Handler lets it.
func (p *pump) move() error {
	for p.r < p.w {
		b := p.buf[p.r:p.w]
		if p.blind {
			p.r = p.w
			return p.pass(b, true)
		}
		if p.skip > 0 {
			n := int(min(p.skip, int64(len(b))))
			p.skip -= int64(n)
			p.r += n
			if err := p.pass(b[:n], p.skip > 0 || p.skipMid); err != nil {
				return err
			}
			if p.skip == 0 && p.then != nil {
				p.then()
				p.then = nil
			}
			continue
		}
		if len(b) < p.need {
			return nil
		}
		st, err := p.look(b)
		if err != nil {
			return err
		}
		if st.Pass < 0 || st.Drop < 0 || st.Pass+st.Drop > len(b) || st.Skip < 0 {
			return fmt.Errorf("handler passed %d and dropped %d of %d bytes", st.Pass, st.Drop, len(b))
		}
		p.need, p.skip, p.skipMid, p.blind = st.Need, st.Skip, st.Mid, st.Blind
		p.r += st.Pass + st.Drop
		pass := b[:st.Pass]
		if st.Drop == 0 && st.Skip > 0 { // the start of the skipped bytes rides along
			n := int(min(st.Skip, int64(len(b)-st.Pass)))
			pass = b[:st.Pass+n]
			p.skip -= int64(n)
			p.r += n
		}
		if len(pass) > 0 {
			if err := p.pass(pass, st.Mid || p.skip > 0 || st.Blind); err != nil {
				return err
			}
		}
		switch {
		case st.Then == nil:
		case p.skip > 0:
			p.then = st.Then
		default:
			st.Then()
		}
		if st.Pass+st.Drop == 0 && st.Skip == 0 && !st.Blind {
			return nil
		}
	}
	return nil
}

// A farSide error is of the side written to.
type farSide struct{ err error }

func (f *farSide) Error() string { return f.err.Error() }
func (f *farSide) Unwrap() error { return f.err }

func (p *pump) pass(b []byte, mid bool) error {
	if err := p.dst.pass(b, mid); err != nil {
		return &farSide{err}
	}
	return nil
}

// timedOut tells a deadline of the session's own from a broken connection.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
