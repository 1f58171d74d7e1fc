package store

import (
	"strings"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countedFS counts how often files are synced, and tells of a log that the disk refuses: pebble itself learns of it only
// after it has gone on for a while.
type countedFS struct {
	vfs.FS
	n      *atomic.Uint64
	broken func(error)
}

func (f countedFS) Unwrap() vfs.FS { return f.FS }

func (f countedFS) wrap(name string, file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	c := countedFile{file, f.n, func(error) {}}
	if strings.HasSuffix(name, ".log") {
		c.broken = f.broken
	}
	return c, nil
}

func (f countedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.Create(name, c)
	return f.wrap(name, file, err)
}

func (f countedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	file, err := f.FS.OpenReadWrite(name, c, o...)
	return f.wrap(name, file, err)
}

func (f countedFS) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return f.wrap(name, file, err)
}

func (f countedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	file, err := f.FS.ReuseForWrite(oldname, newname, c)
	return f.wrap(newname, file, err)
}

type countedFile struct {
	vfs.File
	n      *atomic.Uint64
	broken func(error)
}

func (f countedFile) told(err error) error {
	if err != nil {
		f.broken(err)
	}
	return err
}

func (f countedFile) Write(p []byte) (int, error) {
	n, err := f.File.Write(p)
	return n, f.told(err)
}

func (f countedFile) Sync() error {
	f.n.Add(1)
	return f.told(f.File.Sync())
}

func (f countedFile) SyncData() error {
	f.n.Add(1)
	return f.told(f.File.SyncData())
}

func (f countedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if full {
		f.n.Add(1)
	}
	return full, f.told(err)
}
