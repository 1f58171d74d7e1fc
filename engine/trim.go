package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// trimming are the registers whose history may have grown over the count that they keep.
type trimming struct {
	mu    sync.Mutex
	names map[string]struct{}
}

// trimStep is how often a register that is written is looked at for its count of history entries.
const trimStep = 64

func (t *trimming) note(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = map[string]struct{}{}
	}
	if len(t.names) < maxTimed { // the next step of those beyond notes them again
		t.names[name] = struct{}{}
	}
}

func (t *trimming) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.names))
	for n := range t.names {
		names = append(names, n)
	}
	clear(t.names)
	slices.Sort(names)
	return names
}

// trimCounts removes history entries beyond the count that a declaration keeps.
func (e *Engine) trimCounts(context.Context) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	rules := e.rules.Load()
	for _, name := range e.trimming.take() {
		d := rules.decl(name)
		if d == nil || d.Retention.Count == 0 {
			continue
		}
		left := d.Retention.Count
		for row, err := range e.scan(store.History(name, 0), store.History(name, e.feed.published.Load()+1), true) {
			if err != nil {
				return err
			}
			if left--; left > 0 {
				continue
			}
			b := e.store.NewBatch()
			if err := errors.Join(b.DeleteRange(store.History(name, 0), slices.Clone(row.Key)), e.store.Apply(b, false), b.Close()); err != nil {
				return e.fail(err)
			}
			break
		}
	}
	return nil
}

// keepAge is how long the log is kept: as long as history is where nobody says otherwise, or as the shortest that is
// declared. Negative: without end.
func (e *Engine) keepAge() time.Duration {
	age := e.options.HistoryAge
	if s := e.rules.Load().shortest; s > 0 && (age < 0 || s < age) {
		age = s
	}
	return age
}

// logLimit is how many times as long the log is kept for members that do not have it.
const logLimit = 3

// trimLog removes the oldest commits: from the log, with their candidates, and from history. Trimming costs history, never
// correctness: a member that lacks a candidate is given the state.
func (e *Engine) trimLog(ctx context.Context) error {
	for {
		n, err := e.trimSome(ctx)
		if err != nil || n < some {
			return err
		}
	}
}

func (e *Engine) trimSome(ctx context.Context) (n int, err error) {
	age := e.keepAge()
	if age < 0 {
		return 0, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := e.enter(); err != nil {
		return 0, err
	}
	defer e.leave()
	now := e.options.Now()
	f := *e.floor.Load()
	b := e.store.NewBatch()
	rules := e.rules.Load()
	for row, err := range e.scan(store.Commit(f.ordinal), store.Commit(e.feed.published.Load()), false) {
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		ordinal, _ := store.CommitOrdinal(row.Key)
		c, err := parseCommit(ordinal, row.Value)
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		written := c.clock.Time()
		if n == some || written.Add(age).After(now) || !c.dot.IsZero() && !e.everybodyHas(c.dot) && written.Add(logLimit*age).After(now) {
			break
		}
		for _, name := range c.names {
			err = errors.Join(err, e.trimEntry(b, rules, name, ordinal, written, now))
		}
		err = errors.Join(err, b.Delete(store.Commit(ordinal)))
		if !c.dot.IsZero() {
			err = errors.Join(err, b.Delete(store.Candidate(c.dot)))
			f.candidates++
			f.vector = f.vector.With(c.dot)
			e.mu.Lock()
			if h := e.seqr.core.Head(c.dot.Origin); h.Seq == c.dot.Seq { // all of it is gone: what it was is noted
				err = errors.Join(err, b.Set(store.Head(c.dot.Origin), appendHead(nil, h)))
			}
			e.mu.Unlock()
		}
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		f.ordinal = ordinal + 1
		n++
	}
	if n == 0 {
		return 0, b.Close()
	}
	if err := errors.Join(b.Set(store.Meta(metaFloor), f.encode()), e.store.Apply(b, false), b.Close()); err != nil {
		return 0, e.fail(fmt.Errorf("write of the log: %w", err))
	}
	e.floor.Store(&f)
	return n, nil
}

// trimEntry removes one history entry, or notes when it is to go. The newest of a register stays.
func (e *Engine) trimEntry(b store.Batch, rules *ruleTable, name string, ordinal uint64, written, now time.Time) error {
	age := e.options.HistoryAge
	if d := rules.decl(name); d != nil && d.Retention.Age != 0 {
		age = d.Retention.Age
	}
	again := func(at time.Time) error { return b.Set(store.Tail(lattice.StampOf(at), ordinal, name), nil) }
	switch {
	case age < 0:
		return nil
	case written.Add(age).After(now):
		return again(written.Add(age))
	}
	newest, gone, err := e.lastWritten(name)
	if err != nil {
		return err
	}
	if newest == ordinal {
		if !gone { // it stays until another one is the newest
			return again(now.Add(age))
		}
		// The last word on a register goes last: stamps are not in the order of the log where clocks were wrong.
		if first, found, err := e.oldest(name); err != nil || found && first.Cursor.Ordinal != ordinal {
			return errors.Join(err, again(now.Add(age)))
		}
		e.dropEmpty(name, ordinal)
	}
	return b.Delete(store.History(name, ordinal))
}

// lastWritten is the newest history entry of a register, and whether nothing is left of the register itself.
func (e *Engine) lastWritten(name string) (ordinal uint64, gone bool, err error) {
	lower := store.HistoryPrefix(name)
	for row, err := range e.scan(lower, store.Behind(lower), true) {
		if err != nil {
			return 0, false, err
		}
		ordinal = ordinalOf(row.Key[len(lower):])
		break
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.newest(name)
	if err != nil {
		return 0, false, err
	}
	if v.unit != "" {
		return ordinal, false, nil
	}
	// One that was written since may be anywhere between here and the disk.
	return ordinal, v.reg.Empty() && v.ordinal == ordinal && e.recent.newest(name) == nil, nil
}

// dropEmpty forgets a register of which nothing is left, unless it was written since.
func (e *Engine) dropEmpty(name string, ordinal uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.rules.Load().decl(name); e.recent.newest(name) != nil || d != nil && d.Unit != "" {
		return
	}
	if v, err := e.load(name); err == nil && v != nil && v.unit == "" && v.ordinal == ordinal && v.reg.Empty() {
		_ = e.setAlone(store.Register(name), nil) // what fails ends the engine
		e.recent.passBy()
	}
}

// trimTails removes history entries that were kept longer than the log.
func (e *Engine) trimTails(ctx context.Context) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	now := e.options.Now()
	rules := e.rules.Load()
	b := e.store.NewBatch()
	n := 0
	lower := store.Tail(0, 0, "")
	for row, err := range e.scan(lower[:1], store.Tail(lattice.StampOf(now), 0, ""), false) {
		if err == nil {
			_, ordinal, name := store.TailOf(row.Key)
			var d QDelta
			if d, _, err = e.deltaAt(name, ordinal); errors.Is(err, errTrimmed) {
				err = nil
			} else if err == nil {
				err = e.trimEntry(b, rules, name, ordinal, d.After.Time.Time(), now)
			}
			err = errors.Join(err, b.Delete(slices.Clone(row.Key)))
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
		if n++; n == 4*some {
			break
		}
	}
	if n == 0 {
		return b.Close()
	}
	if err := errors.Join(e.store.Apply(b, false), b.Close()); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	return nil
}
