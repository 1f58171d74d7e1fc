package integration

import (
	"os"
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel end the process when the test binary is killed, as `go test`
// does when its timeout is over: clean-ups don't run then.
func endWithParent(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// reserve makes a file of that size without writing it, so that its room is gone from the disk.
func reserve(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return syscall.Fallocate(int(f.Fd()), 0, 0, size)
}

// freeBytes is the room left on the disk that holds dir.
func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// mountMemory puts a file system of that size, in memory, over dir.
func mountMemory(dir, size string) (unmount func() error, err error) {
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		return nil, err
	}
	return func() error { return syscall.Unmount(dir, 0) }, nil
}
