//go:build !unix

package relay

import (
	"errors"
	"net"
	"syscall"
)

// rawOf: elsewhere reads hold a small buffer while they wait.
func rawOf(net.Conn) syscall.RawConn { return nil }

var errNoRaw = errors.New("no raw access to sockets on this system")

func tryRead(uintptr, []byte) (int, bool, error) { return 0, false, errNoRaw }
func tryWrite(uintptr, []byte) (int, error)      { return 0, errNoRaw }
