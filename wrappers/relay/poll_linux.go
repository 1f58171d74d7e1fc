package relay

import (
	"syscall"
	"unsafe"
)

// A read or write of a descriptor that does not block is a few microseconds of the kernel's work. The scheduler is not told
// of it: with syscall.Read and syscall.Write it takes the processor away from a goroutine that the kernel has put behind
// the peer it has just woken, which costs two switches of threads and keeps the scheduler's own watch busy.

func readNow(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func writeNow(fd uintptr, b []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
