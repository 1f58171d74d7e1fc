//go:build !unix

package mqtt

import "net"

// peekByte is for systems where a byte can't be looked at and left in place.
func peekByte(net.Conn) (byte, bool) { return 0, false }
