package relay

import (
	"net"
	"syscall"
)

// A Window gives what a peer sends in pieces of the size that is asked for, for a server that reads messages. It holds a
// buffer only while there are bytes in it, so an idle session has none.
type Window struct {
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool
	buf  []byte
	r, w int
	n    int // of one read
	err  error
	one  [1]byte
}

// NewWindow makes a window on a connection, or a Peer, that nobody else reads from.
func NewWindow(c net.Conn) *Window {
	v := &Window{conn: c}
	if p, ok := c.(*Peer); ok {
		c = p.Conn
	}
	if v.raw = rawOf(c); v.raw != nil {
		v.try = func(fd uintptr) bool {
			v.buf = getBuffer(tinyBuffer)
			var wait bool
			if v.n, wait, v.err = tryRead(fd, v.buf); v.n <= 0 {
				v.Close()
			}
			return !wait
		}
	}
	return v
}

// Next waits for n bytes and gives them; they are valid until the next call. The buffer grows as the bytes come, not as
// they are announced. An error is the connection's: io.EOF also in the middle.
func (v *Window) Next(n int) ([]byte, error) {
	for v.w-v.r < n {
		if err := v.read(n); err != nil {
			return nil, err
		}
	}
	b := v.buf[v.r : v.r+n : v.r+n]
	v.r += n
	return b, nil
}

func (v *Window) read(n int) error {
	if v.r == v.w {
		v.Close()
	}
	switch {
	case v.buf == nil && v.raw != nil:
		v.n, v.err = 0, nil
		if err := v.raw.Read(v.try); err != nil {
			return err
		}
	case v.buf == nil:
		// Of a TLS connection: the rest of the record is there at once.
		if v.n, v.err = v.conn.Read(v.one[:]); v.n > 0 {
			v.buf = getBuffer(tinyBuffer)
			v.buf[0] = v.one[0]
		}
	default:
		v.room(n)
		v.n, v.err = v.conn.Read(v.buf[v.w:])
	}
	v.w += v.n
	if v.n > 0 {
		return nil // an error comes again
	}
	return v.err
}

// room makes place for more of a piece of n bytes.
func (v *Window) room(n int) {
	if v.r > 0 {
		v.w = copy(v.buf, v.buf[v.r:v.w])
		v.r = 0
	}
	if v.w < len(v.buf) {
		return
	}
	old := v.buf
	v.buf = getBuffer(min(4*len(old), max(n, 2*len(old))))
	copy(v.buf, old)
	putBuffer(old)
}

// Close gives the buffer back, with whatever is in it.
func (v *Window) Close() {
	if v.buf != nil {
		putBuffer(v.buf)
	}
	v.buf, v.r, v.w = nil, 0, 0
}
