//go:build unix

package relay

import (
	"io"
	"net"
	"os"
	"syscall"
)

// rawOf gives access to the descriptor of a plain connection, so that a read can wait without a
// buffer and a write can be tried without a deadline. Nil for others (TLS).
func rawOf(c net.Conn) syscall.RawConn {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tryRead reads once from a descriptor that does not block; wait: there is nothing yet.
func tryRead(fd uintptr, b []byte) (n int, wait bool, err error) {
	for {
		n, err = readNow(fd, b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, true, nil
		case err != nil:
			return 0, false, os.NewSyscallError("read", err)
		case n == 0:
			return 0, false, io.EOF
		}
		return n, false, nil
	}
}

// tryWrite writes what the socket takes at once.
func tryWrite(fd uintptr, b []byte) (n int, err error) {
	for {
		n, err = writeNow(fd, b)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("write", err)
		}
		return n, nil
	}
}
