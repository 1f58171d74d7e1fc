package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// A sequencer gives each write its place. Its state is guarded by Engine.mu, and what is under that lock is what limits
// a busy engine: it computes, it reads registers that were not written lately, it never waits for the disk to sync.
//
//  1. The newest version of each register is looked up, published or not; preconditions are checked against it.
//  2. Ops become operations that name every entry they remove. A write that would do nothing ends here.
//  3. The candidate gets its dot, its stamp and its predecessor's hash.
//  4. The registers' next versions go where readers will find them once they are published, and all records go to
//     the storage as one batch, whose order in the log is the order of this lock.
//
// Outside the lock the writer waits for the sync, so that syncs overlap, and publishes every commit up to its own.
type sequencer struct {
	seq        uint64
	prev       lattice.Hash
	deps       []Dot // what the next candidate depends on beside its predecessor
	clock      lattice.Clock
	ordinal    uint64
	registers  uint64 // that exist
	candidates uint64
	begun      bool // the storage knows this incarnation

	// Room that is used again: nothing in it outlives the lock.
	out    [2][]byte
	drafts []*draft
	dots   []Dot
}

// A commit is one write on its way to the disk, and for a while after.
type commit struct {
	ordinal  uint64
	dot      Dot
	at       Stamp
	batch    store.Batch
	states   []StateBlock // of all registers that the write named
	deltas   []QDelta     // of those that it changed
	versions []*version   // likewise
	size     int          // bytes in memory, roughly

	one struct { // room for a write of one register
		states   [1]StateBlock
		deltas   [1]QDelta
		versions [1]*version
	}
}

// WriteState commits one candidate. It is durable and visible when WriteState returns. A write that would change
// nothing at all (removing what is not there) makes no candidate: its Receipt has the zero Dot and the state as it is.
func (e *Engine) WriteState(ctx context.Context, w Write) (Receipt, error) {
	_, wait, err := e.Submit(ctx, w)
	if err != nil {
		return Receipt{}, err
	}
	return wait()
}

// Submit sequences a write; see Submitter. Writes submitted one after the other commit in that order.
func (e *Engine) Submit(ctx context.Context, w Write) (Dot, func() (Receipt, error), error) {
	if err := ctx.Err(); err != nil {
		return Dot{}, nil, err
	}
	if err := w.check(); err != nil {
		return Dot{}, nil, err
	}
	clip(&w.By)
	if err := e.enter(); err != nil {
		return Dot{}, nil, err
	}
	defer e.leave()
	if e.store.Full() {
		return Dot{}, nil, ErrFull
	}
	c, behind, err := e.sequence(&w)
	if err != nil {
		// Why it was refused may not be on disk yet, and nobody may see it before.
		if err2 := e.settleHere(behind); err2 != nil {
			err = err2
		}
		return Dot{}, nil, err
	}
	return c.dot, func() (Receipt, error) { return e.finish(c, behind) }, nil
}

// finish waits for the disk and publishes.
func (e *Engine) finish(c *commit, behind uint64) (Receipt, error) {
	if c.ordinal == 0 { // nothing was committed, but perhaps records
		if c.batch != (store.Batch{}) {
			if err := e.synced(c.batch); err != nil {
				return Receipt{}, err
			}
			e.feed.publish(behind)
		} else if err := e.settle(behind); err != nil {
			return Receipt{}, err
		}
		return Receipt{Cursor: Cursor{e.log, behind}, States: c.states}, nil
	}
	if err := e.synced(c.batch); err != nil {
		return Receipt{}, err
	}
	c.batch = store.Batch{} // the feed keeps the commit for a while, and not what is on disk
	e.feed.publish(c.ordinal)
	r := Receipt{Dot: c.dot, Cursor: Cursor{e.log, c.ordinal}, Time: c.at, States: c.states}
	for i := range c.deltas {
		if c.deltas[i].Created {
			r.Created = append(r.Created, c.deltas[i].After.Register)
		}
	}
	return r, nil
}

func (e *Engine) synced(b store.Batch) error {
	if err := b.Wait(); err != nil {
		return e.fail(fmt.Errorf("sync of the log: %w", err))
	}
	if e.failed.Load() != nil {
		return e.failure()
	}
	return b.Close()
}

// settle makes everything up to an ordinal durable and visible, whoever wrote it.
func (e *Engine) settle(ordinal uint64) error {
	if e.feed.published.Load() >= ordinal {
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	return e.settleHere(ordinal)
}

// settleHere is settle for whoever has entered already: entering twice would wait for a Close that waits for the first.
func (e *Engine) settleHere(ordinal uint64) error {
	if e.feed.published.Load() >= ordinal {
		return nil
	}
	if err := e.store.Sync(); err != nil {
		return e.fail(fmt.Errorf("sync of the log: %w", err))
	}
	if e.failed.Load() != nil {
		return e.failure()
	}
	e.feed.publish(ordinal)
	return nil
}

// newest gives the newest version of a register, published or not. The caller holds e.mu.
func (e *Engine) newest(name string) (*version, error) {
	if v := e.recent.newest(name); v != nil {
		return v, nil
	}
	v, err := e.load(name)
	if err == nil && v == nil {
		v = newVersion(strings.Clone(name), 0, 0, 0, nil, 0)
	}
	return v, err
}

// sequence gives a write its place and hands it to the storage. A write that changes nothing comes back as a commit
// without an ordinal. What was decided, also a refusal, rests on commits up to behind.
func (e *Engine) sequence(w *Write) (c *commit, behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil { // meanwhile
		return nil, 0, e.failure()
	}
	behind = e.seqr.ordinal
	if err := e.checkPreconditions(w.If); err != nil {
		return nil, behind, err
	}
	drafts, err := e.expand(w.Ops)
	if err != nil {
		return nil, behind, err
	}
	defer e.forget(drafts)
	c = new(commit)
	if c.states = c.one.states[:]; len(drafts) != 1 {
		c.states = make([]StateBlock, len(drafts))
	}
	effective := 0
	for i, d := range drafts {
		c.states[i] = d.base.block
		if d.finish() {
			effective++
		}
	}
	if effective == 0 {
		return c, behind, e.keepAlone(c, w)
	}
	if err := e.compose(c, w, drafts, effective); err != nil {
		return nil, behind, err
	}
	return c, c.ordinal, nil
}

func (e *Engine) checkPreconditions(conditions []Precondition) error {
	for i := range conditions {
		p := &conditions[i]
		v, err := e.newest(p.Register)
		if err != nil {
			return err
		}
		b := &v.block
		switch {
		case p.Exists != nil && *p.Exists != b.Exists && b.Exists:
			return fmt.Errorf("%w: register %q exists", ErrConflict, p.Register)
		case p.Exists != nil && *p.Exists != b.Exists:
			return fmt.Errorf("%w: register %q does not exist", ErrConflict, p.Register)
		case len(p.Match) > 0 && !slices.Contains(p.Match, b.ID), slices.Contains(p.Differ, b.ID):
			return fmt.Errorf("%w: register %q is at %s", ErrConflict, p.Register, b.ID)
		}
	}
	return nil
}

// expand gives one draft per register, in the order of their first op.
func (e *Engine) expand(ops []Op) ([]*draft, error) {
	drafts := e.seqr.drafts[:0]
	e.seqr.dots = e.seqr.dots[:0]
	var byName map[string]*draft
	based := slices.ContainsFunc(ops, func(op Op) bool { return op.Base })
	for i := range ops {
		op := &ops[i]
		var d *draft
		if byName != nil {
			d = byName[op.Register]
		} else {
			for _, known := range drafts {
				if known.name == op.Register {
					d = known
				}
			}
		}
		if d == nil {
			base, err := e.newest(op.Register)
			if err != nil {
				return nil, err
			}
			if n := len(drafts); n < cap(drafts) {
				d = drafts[:n+1][n] // one of an earlier write, if it has left any there
			}
			if d == nil {
				d = new(draft)
			}
			d.begin(base, ops[i:], based, &e.seqr.dots)
			drafts = append(drafts, d)
			if byName != nil {
				byName[d.name] = d
			} else if len(drafts) > 8 {
				byName = make(map[string]*draft)
				for _, d := range drafts {
					byName[d.name] = d
				}
			}
		}
		if err := d.apply(op); err != nil {
			return nil, err
		}
	}
	return drafts, nil
}

// forget keeps the room of a write's drafts for the next one, unless it is much, and nothing that is in it.
func (e *Engine) forget(drafts []*draft) {
	for i, d := range drafts {
		if clear(d.ops); cap(d.ops) > 64 {
			drafts[i] = new(draft)
			continue
		}
		*d = draft{ops: d.ops[:0]}
	}
	if e.seqr.drafts = drafts; cap(drafts) > 64 {
		e.seqr.drafts = nil
	}
	if cap(e.seqr.dots) > 4096 {
		e.seqr.dots = nil
	}
}

// keepAlone stores the records of a write that changes no register.
func (e *Engine) keepAlone(c *commit, w *Write) error {
	records := w.Keep
	if w.KeepWith != nil {
		records = append(slices.Clip(records), w.KeepWith(Dot{})...)
		if err := checkRecords(records); err != nil {
			return err
		}
	}
	if len(records) == 0 {
		return nil
	}
	c.batch = e.store.NewBatch()
	if err := keep(c.batch, records); err != nil {
		return err
	}
	if err := e.store.Submit(c.batch); err != nil {
		return e.fail(err)
	}
	return nil
}

// compose makes the commit, and changes nothing of the engine until it can't be refused any more.
func (e *Engine) compose(c *commit, w *Write, drafts []*draft, effective int) error {
	s := &e.seqr
	clock := s.clock
	q := QCandidate{Dot: Dot{Origin: e.self, Seq: s.seq + 1}, Prev: s.prev, Deps: s.deps, Time: clock.Tick(e.options.Now()), Cause: w.By}
	if len(drafts) == 1 {
		q.Ops = drafts[0].ops
	} else {
		for _, d := range drafts {
			q.Ops = append(q.Ops, d.ops...)
		}
	}
	candidate := q.AppendCBOR(s.out[0][:0])
	s.out[0] = candidate
	if len(candidate) > MaxCandidate {
		return tooLarge("a write of %d bytes, encoded; the limit is %d", len(candidate), MaxCandidate)
	}
	records := w.Keep
	if w.KeepWith != nil {
		records = append(slices.Clip(records), w.KeepWith(q.Dot)...)
		if err := checkRecords(records); err != nil {
			return err
		}
	}

	c.ordinal, c.dot, c.at = s.ordinal+1, q.Dot, q.Time
	if c.deltas, c.versions = c.one.deltas[:0], c.one.versions[:0]; effective > 1 {
		c.deltas, c.versions = make([]QDelta, 0, effective), make([]*version, 0, effective)
	}
	var name [1]string
	commit := commitRecord{dot: q.Dot, clock: q.Time, registers: s.registers, candidates: s.candidates + 1, names: name[:0]}
	b := e.store.NewBatch()
	err := b.Set(store.Candidate(q.Dot), candidate)
	for i, d := range drafts {
		if len(d.ops) == 0 {
			continue
		}
		v := newVersion(d.name, c.ordinal, d.base.rank+1, q.Time, d.base.reg.Apply(q.Dot, q.Time, d.ops), 0)
		s.out[1] = appendRegister(s.out[1][:0], v)
		if len(v.reg.Fields) > MaxFields || len(s.out[1]) > MaxRegister {
			err = tooLarge("register %q would have %d fields and %d bytes; the limits are %d and %d", d.name, len(v.reg.Fields), len(s.out[1]), MaxFields, MaxRegister)
		}
		v.size += 3 * len(s.out[1])
		v.prev.Store(d.base)
		err = errors.Join(err, b.Set(store.Register(d.name), s.out[1]))
		before := &d.base.block
		delta := QDelta{
			Cursor: Cursor{e.log, c.ordinal}, Part: len(c.deltas), Of: effective, Before: before.ID, After: v.block,
			Changed: changes(before, &v.block), Created: !before.Exists && v.block.Exists, Deleted: before.Exists && !v.block.Exists,
			Dot: q.Dot, Cause: w.By, Tag: w.Tag,
		}
		if delta.Created {
			commit.registers++
		}
		if delta.Deleted {
			commit.registers--
		}
		s.out[1] = appendDelta(s.out[1][:0], &delta)
		err = errors.Join(err, b.Set(store.History(d.name, c.ordinal), s.out[1]))
		c.size += len(s.out[1])
		c.states[i] = v.block
		c.deltas, c.versions, commit.names = append(c.deltas, delta), append(c.versions, v), append(commit.names, d.name)
	}
	s.out[1] = commit.append(s.out[1][:0])
	err = errors.Join(err, b.Set(store.Commit(c.ordinal), s.out[1]), keep(b, records))
	if !s.begun {
		err = errors.Join(err, e.begin(b))
	}
	if err != nil {
		return errors.Join(err, b.Close())
	}

	c.batch = b
	c.size = 3*c.size + 512
	s.seq, s.ordinal, s.prev, s.deps = q.Dot.Seq, c.ordinal, sha256.Sum256(candidate), nil
	s.clock, s.registers, s.candidates, s.begun = clock, commit.registers, commit.candidates, true
	published := e.feed.published.Load()
	for i, v := range c.versions {
		e.recent.put(commit.names[i], v, published)
	}
	e.feed.await(c)
	if err := e.store.Submit(b); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	return nil
}

// begin makes this incarnation known to the storage, in the batch of its first candidate.
func (e *Engine) begin(b store.Batch) error {
	origin := append(append([]byte(nil), e.origin.Endpoint[:]...), e.origin.Incarnation[:]...)
	return errors.Join(b.Set(store.Origin(e.self), origin), b.Set(store.Meta(metaSelf), e.self[:]))
}
