package gateway

import (
	"net"
	"syscall"
)

// What storage and the process itself may need open, however many peers there are. A peer that
// can't be served is turned away; storage that can't open a file is the end of the process.
const (
	fewestFilesKept = 100 // pebble holds up to 64 tables whatever it is told, and its logs
	mostFilesKept   = 1280
)

// filesKept is how many file descriptors sessions must leave alone, of limit in all.
func filesKept(limit int) int { return min(max(limit/4, fewestFilesKept), mostFilesKept) }

// filesFor is the number of open files above which a wrapper takes no further session. A relay
// opens a second file for each, a moment later than the first.
func filesFor(limit int, relay bool) int {
	room := limit - filesKept(limit)
	if relay {
		room -= room / 4
	}
	return max(room, 16)
}

// openFiles is how many files are open at least, by the number of one just opened: the lowest
// number that is free (POSIX.1-2017, open). 0 where that can't be known.
func openFiles(c net.Conn) int {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return 0
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	if raw.Control(func(fd uintptr) { n = descriptors(fd) }) != nil {
		return 0
	}
	return n
}
