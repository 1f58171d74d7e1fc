//go:build unix

package gateway

import "syscall"

// filesLimit is how many files the process may have open; the Go runtime has raised it as far as
// it goes. 0: nobody can tell.
func filesLimit() int {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil {
		return 0
	}
	const enough = 1 << 20
	if uint64(l.Cur) > enough {
		return enough
	}
	return int(l.Cur)
}

func descriptors(fd uintptr) int { return int(fd) }
