package store

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// A group is batches that go to the disk as one. While few writers are on their way each batch is a group of its own and is
// applied at once, so that applying overlaps with the sync of others. Among many, whoever waits first takes a whole group
// there, and the others go on submitting to the next one: that costs a fraction of what as many small batches do.
type group struct {
	parts []*pebble.Batch
	room  [1]*pebble.Batch // for parts
	bytes int
	mark  uint64 // the highest of its batches'
	last  uint64 // how many batches had been submitted with its last one

	led  atomic.Bool   // somebody waits for the disk on behalf of all
	done chan struct{} // closed when err is known

	applied atomic.Bool
	whole   *pebble.Batch // once it is applied
	err     error
}

const (
	fewBatches = 16      // on their way: up to here each goes alone
	groupBytes = 1 << 20 // bound of what is gathered before it is applied, if nobody waits
)

// A queue is the groups that are not applied yet: the open one, and at most one that is being applied.
type queue struct {
	turn      sync.Mutex // held while a group of many is on its way, so that the next one is of many too; taken first
	carry     sync.Mutex // held while a group is applied, so that groups go in their order
	mu        sync.Mutex // guards open; taken inside carry
	open      *group
	submitted atomic.Uint64 // batches
	applied   atomic.Uint64
	durable   atomic.Uint64 // at least; somebody has to wait for it to rise
	failed    atomic.Pointer[error]
	rows      []row // room for compose; guarded by carry
}

// A Flight is a batch on its way to the disk.
type Flight struct {
	s *Store
	g *group
}

// Submit gives a batch its place: batches become durable in the order of their Submits, and reads by anything but
// GetApplied see it at once. It is durable when Wait returns. The batch is the store's from here on. Mark says what Wait may
// tell to be durable; marks only rise.
func (s *Store) Submit(b Batch, mark uint64) (Flight, error) {
	q := &s.queue
	if failed := q.failed.Load(); failed != nil {
		return Flight{}, *failed
	}
	q.mu.Lock()
	g := q.open
	if g == nil {
		g = &group{done: make(chan struct{})}
		g.parts = g.room[:0]
		q.open = g
	}
	g.parts = append(g.parts, b.b)
	g.bytes += b.b.Len()
	g.mark, g.last = mark, q.submitted.Add(1)
	now := g.bytes > groupBytes || g.last-q.durable.Load() <= fewBatches
	q.mu.Unlock()
	if now {
		return Flight{s, g}, s.flush()
	}
	return Flight{s, g}, nil
}

// Wait waits for the disk, and says up to which mark everything is durable. After an error nothing is known of what the disk
// has.
func (f Flight) Wait() (mark uint64, err error) {
	g, q := f.g, &f.s.queue
	if !g.led.CompareAndSwap(false, true) {
		<-g.done
		return g.mark, g.err
	}
	err = errEnded
	defer func() { // also where pebble ends the goroutine
		g.err = err
		close(g.done)
	}()
	if !g.applied.Load() {
		q.turn.Lock()
		defer q.turn.Unlock()
		if err := f.s.flush(); err != nil { // it is the open one, unless somebody was here first
			return g.mark, err
		}
	}
	if err = errors.Join(g.whole.SyncWait(), g.whole.Close()); err == nil {
		q.landed(g.last)
	}
	return g.mark, err
}

// errEnded is what others learn whose batch was with one that came upon a fatal error.
var errEnded = errors.New("the storage has failed")

// landed notes that batches are durable, up to the one that was submitted as the last.
func (q *queue) landed(last uint64) {
	for {
		d := q.durable.Load()
		if d >= last || q.durable.CompareAndSwap(d, last) {
			return
		}
	}
}

// flush applies what was submitted.
func (s *Store) flush() error {
	q := &s.queue
	q.carry.Lock()
	defer q.carry.Unlock()
	q.mu.Lock()
	g := q.open
	q.open = nil
	q.mu.Unlock()
	if failed := q.failed.Load(); failed != nil {
		return *failed
	}
	if g == nil {
		return nil
	}
	err := q.compose(s.db, g)
	if err == nil {
		err = s.apply(g.whole)
	}
	if err != nil {
		q.failed.CompareAndSwap(nil, &err)
		return err
	}
	g.parts = nil
	g.applied.Store(true)
	q.applied.Store(g.last)
	return nil
}

// broken stops everything: the disk has refused the log, and what it has of it is not known.
func (s *Store) broken(err error) {
	err = fmt.Errorf("write of the log: %w", err)
	s.queue.failed.CompareAndSwap(nil, &err)
}

// apply hands a batch to pebble, which panics where the log has failed before.
func (s *Store) apply(b *pebble.Batch) (err error) {
	err = errEnded
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("write of the log: %v", p)
			s.fatal(err)
		}
		if err != nil { // also where the goroutine ends here
			s.queue.failed.CompareAndSwap(nil, &err)
		}
	}()
	err = s.db.ApplyNoSyncWait(b, pebble.Sync)
	return err
}

// Settle applies what was submitted, if anything is not: GetApplied sees it then.
func (s *Store) Settle() error {
	if failed := s.queue.failed.Load(); failed != nil {
		return *failed
	}
	if s.queue.applied.Load() == s.queue.submitted.Load() {
		return nil
	}
	return s.flush()
}

// A row is one operation of a batch, in its place.
type row struct {
	kind       pebble.InternalKeyKind
	key, value []byte
	place      int
}

// compose makes one batch of a group: of what is written to one key the last counts, and in the order of their keys, each is
// found from the one before.
func (q *queue) compose(db *pebble.DB, g *group) error {
	if len(g.parts) == 1 {
		g.whole = g.parts[0]
		return nil
	}
	rows, sorted := q.rows[:0], true
	for _, b := range g.parts {
		for r := b.Reader(); ; {
			kind, key, value, ok, err := r.Next()
			if err != nil {
				return err
			}
			if !ok {
				break
			}
			sorted = sorted && (kind == pebble.InternalKeyKindSet || kind == pebble.InternalKeyKindDelete)
			rows = append(rows, row{kind, key, value, len(rows)})
		}
	}
	g.whole = db.NewBatchWithSize(g.bytes)
	var err error
	if sorted {
		slices.SortFunc(rows, func(a, b row) int {
			if c := bytes.Compare(a.key, b.key); c != 0 {
				return c
			}
			return cmp.Compare(a.place, b.place)
		})
		for i := range rows {
			switch r := &rows[i]; {
			case i+1 < len(rows) && bytes.Equal(r.key, rows[i+1].key):
			case r.kind == pebble.InternalKeyKindSet:
				err = errors.Join(err, g.whole.Set(r.key, r.value, nil))
			default:
				err = errors.Join(err, g.whole.Delete(r.key, nil))
			}
		}
	} else {
		for _, b := range g.parts { // a range that goes has its place among the others
			err = errors.Join(err, g.whole.Apply(b, nil))
		}
	}
	for _, b := range g.parts {
		err = errors.Join(err, b.Close())
	}
	clear(rows)
	if q.rows = rows[:0]; cap(rows) > 1<<14 {
		q.rows = nil
	}
	return err
}
