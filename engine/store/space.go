package store

import (
	"errors"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// space watches the room on the disk. A quarter of the wanted room is a ballast file: should others use up the rest
// as well, giving it back lets the storage finish what it has begun.
type space struct {
	fs      vfs.FS
	dir     string
	minFree uint64
	log     *slog.Logger

	looked atomic.Int64 // when, in nanoseconds
	isFull atomic.Bool
	free   atomic.Uint64

	mu      sync.Mutex
	ballast uint64 // its size on disk now
}

func newSpace(fs vfs.FS, dir string, minFree uint64, log *slog.Logger) *space {
	s := &space{fs: fs, dir: dir, minFree: minFree, log: log}
	s.drop() // of an earlier run, perhaps of another size
	return s
}

func (s *space) path() string { return s.fs.PathJoin(s.dir, "ballast") }

func (s *space) full(now time.Time) bool {
	looked := s.looked.Load()
	if n := now.UnixNano(); (n-looked > int64(time.Second) || n < looked) && s.looked.CompareAndSwap(looked, n) {
		s.check()
	}
	return s.isFull.Load()
}

// check looks at the disk. Where that can't be asked, there is room.
func (s *space) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	usage, err := s.fs.GetDiskUsage(s.dir)
	if err != nil {
		s.isFull.Store(false)
		return
	}
	want := s.minFree / 4
	switch avail := usage.AvailBytes; {
	case s.ballast > 0 && avail < s.minFree/8:
		if s.drop() {
			s.log.Warn("disk is almost full: the ballast was given back", "free", avail, "ballast", want)
		}
	case s.ballast != want && avail+s.ballast >= s.minFree+want:
		s.take(want)
	}
	free := usage.AvailBytes // it may have changed just now
	if again, err := s.fs.GetDiskUsage(s.dir); err == nil {
		free = again.AvailBytes
	}
	s.free.Store(free)
	full := free+s.ballast < s.minFree
	if was := s.isFull.Swap(full); was != full {
		if full {
			s.log.Error("disk is almost full: writes are refused until there is room", "free", free, "min_free", s.minFree)
		} else {
			s.log.Info("there is room on the disk again: writes are accepted", "free", free, "min_free", s.minFree)
		}
	}
}

func (s *space) drop() bool {
	if err := s.fs.Remove(s.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.log.Error("the ballast can't be given back", "error", err)
		return false
	}
	s.ballast = 0
	return true
}

// take reserves room without writing it. Where the system can't, the file is empty and the reserve only a number.
func (s *space) take(size uint64) {
	f, err := s.fs.Create(s.path(), vfs.WriteCategoryUnspecified)
	if err == nil {
		err = errors.Join(f.Preallocate(0, int64(size)), f.Close())
	}
	if err != nil {
		s.log.Warn("no ballast on the disk", "error", err)
		s.drop()
		return
	}
	s.ballast = size
}
