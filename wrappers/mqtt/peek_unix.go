//go:build unix

package mqtt

import (
	"net"
	"syscall"
)

// peekByte waits for the first byte of a plain connection and leaves it there; false for
// connections whose descriptor is not the stream itself (TLS), or when none comes.
func peekByte(nc net.Conn) (byte, bool) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return 0, false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0, false
	}
	var b [1]byte
	n := 0
	err = raw.Read(func(fd uintptr) bool {
		for {
			var err error
			n, _, err = syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				return false
			}
			return true
		}
	})
	return b[0], err == nil && n == 1
}
