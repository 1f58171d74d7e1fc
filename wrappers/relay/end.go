package relay

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// An end is the writing side of one of a session's two connections. A frame from a Handler
// (ToClient, ToServer) waits for the border of the frame that is being passed.
type end struct {
	conn    net.Conn
	raw     syscall.RawConn
	timeout time.Duration // for one write of at most a buffer
	limit   int           // bytes of extra

	mu    sync.Mutex
	mid   bool   // the bytes written so far end inside a frame
	extra []byte // frames to say at the next border
	done  bool   // half-closed

	out  []byte // of the write in progress, for once
	err  error
	once func(fd uintptr) bool // made one time: a closure a write would be an allocation a write
}

var (
	errSlow  = errors.New("the peer does not read")
	errQueue = errors.New("the queue to the peer is full")
)

func newEnd(c net.Conn, timeout time.Duration, limit int) *end {
	e := &end{conn: c, raw: rawOf(c), timeout: timeout, limit: limit}
	e.once = func(fd uintptr) bool {
		var n int
		n, e.err = tryWrite(fd, e.out)
		e.out = e.out[n:]
		return true
	}
	return e
}

// pass writes bytes of the stream; mid: they end inside a frame. Its errors are from this side.
func (e *end) pass(b []byte, mid bool) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		return net.ErrClosed
	}
	if err := e.write(b); err != nil {
		return err
	}
	e.mid = mid
	if !mid && len(e.extra) > 0 {
		err := e.write(e.extra)
		e.extra = nil
		return err
	}
	return nil
}

// say writes whole frames of the Handler's own at the next border.
func (e *end) say(b []byte) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		return net.ErrClosed
	}
	if !e.mid {
		return e.write(b)
	}
	if len(e.extra)+len(b) > e.limit {
		return errQueue
	}
	e.extra = append(e.extra, b...)
	return nil
}

// write tries at once, which is nearly always enough, and only then arms a deadline. e.mu is held.
func (e *end) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if e.raw != nil {
		e.out, e.err = b, nil
		if err := e.raw.Write(e.once); err != nil {
			return err
		}
		if e.err != nil {
			return e.err
		}
		b, e.out = e.out, nil
		if len(b) == 0 {
			return nil
		}
	}
	if err := e.conn.SetWriteDeadline(time.Now().Add(e.timeout)); err != nil {
		return err
	}
	_, err := e.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errSlow
	}
	if err != nil {
		return err
	}
	return e.conn.SetWriteDeadline(time.Time{})
}

// closeWrite ends this direction once what is owed has been said.
func (e *end) closeWrite() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.done {
		return nil
	}
	e.done = true
	return closeWrite(e.conn)
}
