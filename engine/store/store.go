// Package store is the engine's disk: pebble, the keys in it, and the room that is left. It knows where things are kept,
// not what they mean.
package store

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// ErrInUse says that another process has the directory open.
var ErrInUse = errors.New("the data directory is in use by another process")

// Options says how a store is opened. All but Dir may be zero.
type Options struct {
	Dir           string
	FS            vfs.FS // nil: the disk
	CacheBytes    int64  // of blocks read; default 16 MiB
	MemTableBytes uint64 // of one memtable; default 16 MiB
	MinFree       uint64 // Full below that many bytes; default 256 MiB
	Log           *slog.Logger
	// Fatal is told that something that was to be durable may not be. It should end the process: a restart finds what
	// the disk has, going on is never safe. If it returns, the goroutine that came upon it ends.
	Fatal func(error)
}

// A Store is one open directory.
type Store struct {
	db     *pebble.DB
	space  *space
	fsyncs atomic.Uint64
	disk   vfs.FS
	dir    string
	fatal  func(error)
	queue  queue
}

// Open opens the directory, making it if need be, with mode 0700.
func Open(o Options) (*Store, error) {
	s := &Store{}
	disk := o.FS
	if disk == nil {
		disk = vfs.Default
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = 16 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 16 << 20
	}
	if o.MinFree == 0 {
		o.MinFree = 256 << 20
	}
	if err := makeDir(disk, o.Dir); err != nil {
		return nil, fmt.Errorf("data directory %s: %w", o.Dir, err)
	}
	lock, err := pebble.LockDirectory(o.Dir, disk)
	if err != nil {
		if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("data directory %s: %w", o.Dir, err)
		}
		return nil, fmt.Errorf("%w: %s (%v)", ErrInUse, o.Dir, err)
	}
	options := &pebble.Options{
		FS:                          countedFS{disk, &s.fsyncs, s.broken},
		Lock:                        lock,
		CacheSize:                   o.CacheBytes + int64(o.MemTableBytes), // pebble takes the memtables out of it
		MemTableSize:                o.MemTableBytes,
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
		Logger:                      pebbleLog{o.Log, o.Fatal},
		EventListener: &pebble.EventListener{
			// What can't be read is refused where it is asked for; all else goes on. Unless told otherwise pebble would
			// end the process, at every start anew.
			DataCorruption: func(i pebble.DataCorruptionInfo) {
				o.Log.Error("stored data is damaged", "file", i.Path, "error", i.Details)
			},
			BackgroundError: func(err error) { o.Log.Error("storage", "error", err) },
		},
	}
	for i := range options.Levels {
		options.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	options.EnsureDefaults()
	if s.db, err = pebble.Open(o.Dir, options); err != nil {
		return nil, errors.Join(fmt.Errorf("data directory %s: %w", o.Dir, err), lock.Close())
	}
	if err := lock.Close(); err != nil { // the open database keeps its own hold on it
		return nil, errors.Join(err, s.db.Close())
	}
	s.disk, s.dir, s.fatal = disk, o.Dir, o.Fatal
	s.space = newSpace(disk, o.Dir, o.MinFree, o.Log)
	s.space.check()
	return s, nil
}

// makeDir makes a directory and those above it that are missing, so that a power cut can't take them away again.
func makeDir(disk vfs.FS, dir string) error {
	var parents []string
	for at := dir; ; {
		if _, err := disk.Stat(at); err == nil || disk.PathDir(at) == at {
			break
		}
		at = disk.PathDir(at)
		parents = append(parents, at)
	}
	if err := disk.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, parent := range parents {
		d, err := disk.OpenDir(parent)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Close writes out what only the log has, whose end can't be told from one that a crash cut off: behind a clean end
// every byte is covered by a checksum. It notes where the log ended.
func (s *Store) Close(end End) error {
	if s.queue.failed.Load() != nil {
		return errors.Join(s.Settle(), s.db.Close())
	}
	err := errors.Join(s.Settle(), s.db.Flush(), s.db.Close())
	if err == nil && end != (End{}) {
		s.noteEnd(end)
	}
	return err
}

// Get gives read the value of a key, which is valid until it returns, and says whether there is one.
func (s *Store) Get(key []byte, read func(value []byte) error) (found bool, err error) {
	if err := s.Settle(); err != nil {
		return false, err
	}
	return get(s.db, key, read)
}

// GetApplied is Get that need not see what nobody has waited for yet, and so doesn't keep writers from sharing their way to
// the disk.
func (s *Store) GetApplied(key []byte, read func(value []byte) error) (found bool, err error) {
	return get(s.db, key, read)
}

func get(from pebble.Reader, key []byte, read func(value []byte) error) (found bool, err error) {
	value, closer, err := from.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = read(value)
	return true, errors.Join(err, closer.Close())
}

// A Row is a key and its value. Both are valid until the next step of the iteration.
type Row struct{ Key, Value []byte }

// Scan yields the rows from lower to below upper (nil: the end) as they stand when it begins, in the order of their
// keys, or in reverse.
func (s *Store) Scan(lower, upper []byte, reverse bool) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		if err := s.Settle(); err != nil {
			yield(Row{}, err)
			return
		}
		scan(s.db, lower, upper, reverse)(yield)
	}
}

func scan(from pebble.Reader, lower, upper []byte, reverse bool) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		it, err := from.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
		if err != nil {
			yield(Row{}, err)
			return
		}
		defer it.Close() // its error is that of Error
		first, next := it.First, it.Next
		if reverse {
			first, next = it.Last, it.Prev
		}
		for ok := first(); ok; ok = next() {
			value, err := it.ValueAndErr()
			if err != nil {
				yield(Row{}, err)
				return
			}
			if !yield(Row{it.Key(), value}, nil) {
				return
			}
		}
		if err := it.Error(); err != nil {
			yield(Row{}, err)
		}
	}
}

// A Snapshot is the store as it was. It must be closed, before the store is.
type Snapshot struct{ s *pebble.Snapshot }

// Snapshot gives the store as it is now, with all that was submitted.
func (s *Store) Snapshot() (Snapshot, error) {
	if err := s.Settle(); err != nil {
		return Snapshot{}, err
	}
	return Snapshot{s.db.NewSnapshot()}, nil
}

// Get is Store.Get.
func (s Snapshot) Get(key []byte, read func(value []byte) error) (found bool, err error) {
	return get(s.s, key, read)
}

// Scan is Store.Scan.
func (s Snapshot) Scan(lower, upper []byte, reverse bool) iter.Seq2[Row, error] {
	return scan(s.s, lower, upper, reverse)
}

// Close lets go of it.
func (s Snapshot) Close() error { return s.s.Close() }

// A Batch is what becomes durable together or not at all.
type Batch struct{ b *pebble.Batch }

// NewBatch is an empty batch. It must be closed.
func (s *Store) NewBatch() Batch { return Batch{s.db.NewBatch()} }

// Set puts a copy of value under a copy of key.
func (b Batch) Set(key, value []byte) error { return b.b.Set(key, value, nil) }

// Delete removes a key.
func (b Batch) Delete(key []byte) error { return b.b.Delete(key, nil) }

// DeleteRange removes the keys from lower to below upper.
func (b Batch) DeleteRange(lower, upper []byte) error { return b.b.DeleteRange(lower, upper, nil) }

// Len is the batch's size in bytes.
func (b Batch) Len() int { return b.b.Len() }

// Close releases the batch.
func (b Batch) Close() error { return b.b.Close() }

// Apply applies the batch, behind all that was submitted. Unless sync is set it becomes durable with the next batch that is.
func (s *Store) Apply(b Batch, sync bool) error {
	last := s.queue.submitted.Load()
	if err := s.Settle(); err != nil {
		return err
	}
	if !sync {
		return s.db.Apply(b.b, pebble.NoSync)
	}
	if err := s.db.Apply(b.b, pebble.Sync); err != nil {
		return err
	}
	s.queue.landed(last)
	return nil
}

// Sync makes durable what was submitted or applied before.
func (s *Store) Sync() error {
	last := s.queue.submitted.Load()
	if err := s.Settle(); err != nil {
		return err
	}
	if err := s.db.LogData([]byte("sync"), pebble.Sync); err != nil {
		return err
	}
	s.queue.landed(last)
	return nil
}

// Full says that there is less than the wanted room on the disk. It looks at most once per second.
func (s *Store) Full() bool { return s.space.full(time.Now()) }

// Checkpoint makes a copy of everything that was submitted or applied, synced or not, in a directory that does not exist yet.
func (s *Store) Checkpoint(dir string) error {
	if err := s.Settle(); err != nil {
		return err
	}
	return s.db.Checkpoint(dir, pebble.WithFlushedWAL())
}

// Usage is what the store has on the disk, what is free there, and how often it asked the disk to sync.
type Usage struct {
	DiskBytes, FreeBytes uint64
	Full                 bool
	Fsyncs               uint64
}

// Usage looks at the disk.
func (s *Store) Usage() Usage {
	s.space.check()
	return Usage{
		DiskBytes: s.db.Metrics().DiskSpaceUsage(),
		FreeBytes: s.space.free.Load(),
		Full:      s.space.isFull.Load(),
		Fsyncs:    s.fsyncs.Load(),
	}
}

// pebbleLog passes on what pebble has to say: little of it concerns an operator.
type pebbleLog struct {
	log   *slog.Logger
	fatal func(error)
}

func (l pebbleLog) Infof(format string, args ...any) {}

func (l pebbleLog) Errorf(format string, args ...any) {
	l.log.Error("storage", "error", strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// Fatalf must not return: pebble goes on behind it as if it could not.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.fatal(fmt.Errorf(format, args...))
	runtime.Goexit()
}
