package store

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// countedFS counts how often files are synced.
type countedFS struct {
	vfs.FS
	n *atomic.Uint64
}

func (f countedFS) Unwrap() vfs.FS { return f.FS }

func (f countedFS) wrap(file vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return countedFile{file, f.n}, nil
}

func (f countedFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(f.FS.Create(name, c))
}

func (f countedFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return f.wrap(f.FS.OpenReadWrite(name, c, o...))
}

func (f countedFS) OpenDir(name string) (vfs.File, error) { return f.wrap(f.FS.OpenDir(name)) }

func (f countedFS) ReuseForWrite(oldname, newname string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return f.wrap(f.FS.ReuseForWrite(oldname, newname, c))
}

type countedFile struct {
	vfs.File
	n *atomic.Uint64
}

func (f countedFile) Sync() error {
	f.n.Add(1)
	return f.File.Sync()
}

func (f countedFile) SyncData() error {
	f.n.Add(1)
	return f.File.SyncData()
}

func (f countedFile) SyncTo(length int64) (bool, error) {
	full, err := f.File.SyncTo(length)
	if full {
		f.n.Add(1)
	}
	return full, err
}
