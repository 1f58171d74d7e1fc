package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"iter"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

func ordinalOf(b []byte) uint64 { return binary.BigEndian.Uint64(b) }

// Observe yields the deltas behind from in commit order, without end: it ends only with an error, that of ctx or
// ErrClosed among them. The zero Cursor, one of another log, or one older than the log, is answered by a snapshot
// first: one delta with Snapshot set per register that exists, all as of one commit. Of these only the last one carries
// that commit's Cursor, the others the zero one: who stops in between begins anew.
//
// Recent commits come from memory, older ones from disk. An observer that is slow, or waits, holds nothing of either.
func (e *Engine) Observe(ctx context.Context, f Filter, from Cursor) iter.Seq2[QDelta, error] {
	return func(yield func(QDelta, error) bool) {
		e.observers.Add(1)
		defer e.observers.Add(-1)
		o := observer{e: e, ctx: ctx, filter: f, at: from.Ordinal, yield: yield}
		if from.Log != e.log || from.Ordinal > e.feed.published.Load() {
			if !o.snapshot() {
				return
			}
		}
		for o.step() {
		}
	}
}

type observer struct {
	e      *Engine
	ctx    context.Context
	filter Filter
	at     uint64 // everything up to this ordinal was yielded
	yield  func(QDelta, error) bool
}

func (o *observer) fail(err error) bool {
	o.yield(QDelta{}, err)
	return false
}

// step yields what there is, or waits for it, and says whether to go on.
func (o *observer) step() bool {
	if err := o.ctx.Err(); err != nil {
		return o.fail(err)
	}
	if err := o.e.enter(); err != nil {
		return o.fail(err)
	}
	o.e.leave()
	commits, looked, reached := o.e.feed.take(&o.filter, o.at)
	switch {
	case !reached:
		return o.fromDisk()
	case looked == o.at:
		return o.wait()
	}
	for _, c := range commits {
		for i := range c.deltas {
			if d := &c.deltas[i]; o.filter.Matches(d.After.Register) && !o.yield(*d, nil) {
				return false
			}
		}
	}
	o.at = looked
	return true
}

func (o *observer) wait() bool {
	w := &watcher{filter: o.filter, ready: make(chan uint64, 1)}
	if !o.e.feed.watch(w, o.at) {
		return true
	}
	select {
	case ordinal := <-w.ready:
		// Nothing in between concerned this observer, so it need not be looked at.
		o.at = max(o.at, ordinal-1)
		return true
	case <-o.ctx.Done():
		o.e.feed.unwatch(w)
		return o.fail(o.ctx.Err())
	}
}

// fromDisk yields a chunk of commits that memory has forgotten.
func (o *observer) fromDisk() bool {
	deltas, looked, err := o.e.commitChunk(&o.filter, o.at)
	if err != nil {
		return o.fail(err)
	}
	if looked == o.at { // the log does not reach back that far
		return o.snapshot()
	}
	for i := range deltas {
		if !o.yield(deltas[i], nil) {
			return false
		}
	}
	o.at = looked
	return true
}

// commitChunk reads commits behind an ordinal from disk, and says how far it looked: no further than after if the next
// one is not there.
func (e *Engine) commitChunk(f *Filter, after uint64) (deltas []QDelta, looked uint64, err error) {
	if err := e.enter(); err != nil {
		return nil, after, err
	}
	defer e.leave()
	looked = after
	bytes := 0
	for row, err := range e.scan(store.Commit(after+1), store.Commit(e.feed.published.Load()+1), false) {
		if err != nil {
			return nil, after, err
		}
		if ordinal, ok := store.CommitOrdinal(row.Key); !ok || ordinal != looked+1 {
			break
		}
		c, err := parseCommit(looked+1, row.Value)
		if err != nil {
			return nil, after, err
		}
		for _, name := range c.names {
			if !f.Matches(name) {
				continue
			}
			d, size, err := e.deltaAt(name, looked+1)
			if errors.Is(err, errTrimmed) {
				return nil, after, nil // history does not reach back that far
			}
			if err != nil {
				return nil, after, err
			}
			bytes += size
			deltas = append(deltas, d)
		}
		if looked++; len(deltas) >= takeCommits || bytes > takeBytes || looked-after == lookCommits {
			break
		}
	}
	return deltas, looked, nil
}

func (e *Engine) deltaAt(name string, ordinal uint64) (d QDelta, size int, err error) {
	found, err := e.get(store.History(name, ordinal), func(value []byte) (err error) {
		size = len(value)
		d, err = parseDelta(name, Cursor{e.log, ordinal}, value)
		return err
	})
	if err == nil && !found {
		err = errTrimmed
	}
	return d, size, err
}

// errTrimmed means that history does not reach back to what was asked for.
var errTrimmed = errors.New("trimmed")

// snapshot yields the registers that exist, as of one commit.
func (o *observer) snapshot() bool {
	at := Cursor{o.e.log, o.e.feed.published.Load()}
	var held QDelta // the newest one found, until it is known whether it is the last
	after := ""
	for {
		blocks, last, err := o.e.snapshotChunk(o.ctx, &o.filter, after, at.Ordinal)
		if err != nil {
			return o.fail(err)
		}
		for _, b := range blocks {
			if held.Snapshot && !o.yield(held, nil) {
				return false
			}
			held = QDelta{After: b, Of: 1, Snapshot: true}
		}
		if last == "" {
			break
		}
		after = last
	}
	if held.Snapshot {
		if held.Cursor = at; !o.yield(held, nil) {
			return false
		}
	}
	o.at = at.Ordinal
	return true
}

func (e *Engine) snapshotChunk(ctx context.Context, f *Filter, after string, at uint64) (blocks []StateBlock, last string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := e.enter(); err != nil {
		return nil, "", err
	}
	defer e.leave()
	prefix, n := f.Prefix, 0
	if len(f.Name) > len(prefix) {
		prefix = f.Name
	}
	for row, err := range e.names(prefix, after) {
		if err != nil {
			return nil, "", err
		}
		name := store.RegisterName(row.Key)
		if f.Name != "" && name != f.Name {
			if name > f.Name {
				return blocks, "", nil
			}
			continue
		}
		b, wanted := StateBlock{}, f.Matches(name) && !strings.HasPrefix(name, lattice.UnitPrefix)
		if wanted {
			if b, err = e.shown(name); err != nil {
				return nil, "", err
			}
		}
		if wanted && b.Ordinal > at {
			// History has what it was then. Where it was trimmed meanwhile, what is now comes a little early.
			was, found, err := e.blockAt(name, at)
			if err != nil {
				return nil, "", err
			}
			if found {
				b = was
			} else if first, ok, err := e.oldest(name); err != nil {
				return nil, "", err
			} else if ok && first.Before.IsZero() {
				b = StateBlock{}
			}
		}
		if b.Exists {
			blocks = append(blocks, b)
		}
		if n++; n == chunk {
			return blocks, name, nil
		}
	}
	return blocks, "", nil
}

// blockAt gives a register as the commit with that ordinal, or the last before it, left it. Found is false where history
// has nothing that old.
func (e *Engine) blockAt(name string, ordinal uint64) (b StateBlock, found bool, err error) {
	prefix := len(store.HistoryPrefix(name))
	for row, err := range e.scan(store.History(name, 0), store.History(name, ordinal+1), true) {
		if err != nil {
			return b, false, err
		}
		d, err := parseDelta(name, Cursor{e.log, ordinalOf(row.Key[prefix:])}, row.Value)
		return d.After, true, err
	}
	return StateBlock{Register: name}, false, nil
}

// oldest is the first thing that history has of a register.
func (e *Engine) oldest(name string) (d QDelta, found bool, err error) {
	prefix := store.HistoryPrefix(name)
	for row, err := range e.scan(prefix, store.Behind(prefix), false) {
		if err != nil {
			return d, false, err
		}
		d, err = parseDelta(name, Cursor{e.log, ordinalOf(row.Key[len(prefix):])}, row.Value)
		return d, true, err
	}
	return d, false, nil
}
