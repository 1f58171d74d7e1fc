package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// A sequencer gives each write, and each candidate from elsewhere, its place. Its state is guarded by Engine.mu, and what
// is under that lock is what limits a busy engine: it computes, it reads registers that were not written lately, it never
// waits for the disk to sync.
//
//  1. The newest version of each register is looked up, published or not; preconditions are checked against it.
//  2. Ops become operations that name every entry they remove. A write that would do nothing ends here.
//  3. The core makes the candidate, or takes the one that came, and folds it into the registers that it names.
//  4. The registers' next versions go where readers will find them once they are published, and all records go to
//     the storage as one batch, whose order in the log is the order of this lock.
//
// Outside the lock the writer waits for the sync, so that syncs overlap, and publishes every commit up to its own.
type sequencer struct {
	core       *lattice.Core
	ordinal    uint64
	registers  uint64 // that exist
	candidates uint64 // that are stored
	shards     [256]lattice.Tally

	// Room that is used again: nothing in it outlives the lock.
	eff      lattice.Effects
	expand   expansion
	delivery delivery
	out      []byte
	dots     []Dot
	cause    Cause // the last one that was asked for its By, and what that is
	by       lattice.By
	read     map[string]*version // what the step that is under way has read from the disk; nil between steps
	room     map[string]*version // for read
}

// beginStep remembers what is read from the disk until endStep: a step looks at a register several times.
func (s *sequencer) beginStep() {
	if s.room == nil {
		s.room = make(map[string]*version)
	}
	s.read = s.room
}

func (s *sequencer) endStep() {
	if len(s.read) > 64 {
		s.room = nil
	} else if len(s.read) > 0 {
		clear(s.read)
	}
	s.read = nil
}

// shrink gives up room that only a large write needed.
func (s *sequencer) shrink() {
	if cap(s.eff.Raw) > 2*MaxCandidate {
		s.eff = lattice.Effects{}
	}
	if cap(s.out) > 2*MaxRegister {
		s.out = nil
	}
}

// byOf is cause.By(), which is the same as the last time most often.
func (s *sequencer) byOf(cause *Cause) lattice.By {
	if c := &s.cause; c.Protocol != cause.Protocol || c.Wrapper != cause.Wrapper || c.Principal != cause.Principal || c.Verified != cause.Verified {
		s.cause = Cause{Protocol: cause.Protocol, Wrapper: cause.Wrapper, Principal: cause.Principal, Verified: cause.Verified}
		s.by = s.cause.By()
	}
	return s.by
}

// A commit is one candidate on its way to the disk, and for a while after.
type commit struct {
	ordinal  uint64
	dot      Dot
	at       Stamp
	batch    store.Batch  // while it is composed
	flight   store.Flight // from then on, for whoever waits
	states   []StateBlock // of all registers that a write named
	deltas   []QDelta     // of those that it changed
	versions []*version   // likewise; a group's is that of its unit
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
	if err := w.check(false); err != nil {
		return Dot{}, nil, err
	}
	clip(&w.By)
	if err := e.enter(); err != nil {
		return Dot{}, nil, err
	}
	defer e.leave()
	for i := range w.Ops {
		if op := &w.Ops[i]; op.Value.Kind() == lattice.ObjectKind && e.missing(op.Value) {
			return Dot{}, nil, invalid("register %q, field %q: a part of the value is not here; keep it with PutBlob first", op.Register, op.Field)
		}
	}
	if e.store.Full() {
		return Dot{}, nil, ErrFull
	}
	c, behind, err := e.sequenceHere(&w, false)
	if err != nil {
		return Dot{}, nil, err
	}
	return c.dot, func() (Receipt, error) { return e.finish(c, behind) }, nil
}

// sequenceHere is sequence for whoever has entered, with a refusal that may be shown: why it was refused may not be on disk
// yet, and nobody may see it before.
func (e *Engine) sequenceHere(w *Write, internal bool) (c *commit, behind uint64, err error) {
	if c, behind, err = e.sequence(w, internal); err != nil {
		if failed := e.settleHere(behind); failed != nil {
			err = failed
		}
	}
	return c, behind, err
}

// writeInternal writes what is the engine's own: also while the disk is almost full, since that is little and makes room.
func (e *Engine) writeInternal(w *Write) error {
	if err := w.check(true); err != nil {
		return err
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	c, behind, err := e.sequenceHere(w, true)
	if err == nil {
		_, err = e.finish(c, behind)
	}
	return err
}

// finish waits for the disk and publishes.
func (e *Engine) finish(c *commit, behind uint64) (Receipt, error) {
	if c.ordinal == 0 { // nothing was committed, but perhaps records
		if c.flight != (store.Flight{}) {
			if _, err := e.synced(c.flight); err != nil {
				return Receipt{}, err
			}
			e.feed.publish(behind)
		} else if err := e.settle(behind); err != nil {
			return Receipt{}, err
		}
		return Receipt{Cursor: Cursor{e.log, behind}, States: c.states}, nil
	}
	durable, err := e.synced(c.flight)
	if err != nil {
		return Receipt{}, err
	}
	c.flight = store.Flight{} // the feed keeps the commit for a while, and not what is on disk
	e.feed.publish(durable)
	r := Receipt{Dot: c.dot, Cursor: Cursor{e.log, c.ordinal}, Time: c.at, States: c.states}
	for i := range c.deltas {
		if c.deltas[i].Created {
			r.Created = append(r.Created, c.deltas[i].After.Register)
		}
	}
	return r, nil
}

// synced waits for the disk, and says up to which commit everything is there.
func (e *Engine) synced(f store.Flight) (ordinal uint64, err error) {
	if ordinal, err = f.Wait(); err != nil {
		return 0, e.fail(fmt.Errorf("sync of the log: %w", err))
	}
	if e.failed.Load() != nil {
		return 0, e.failure()
	}
	return ordinal, nil
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
	if v := e.seqr.read[name]; v != nil {
		return v, nil
	}
	v := e.lately.take(name, e.recent.flips.Load())
	if v == nil {
		var err error
		if v, err = e.load(name); err != nil {
			return nil, err
		}
	}
	if v == nil {
		v = newVersion(strings.Clone(name), 0, 0, 0, nil, 0)
	}
	if e.seqr.read != nil {
		e.seqr.read[v.name] = v
	}
	return v, nil
}

// Register implements lattice.Registers, for the core's steps. The caller holds e.mu.
func (e *Engine) Register(name string) (*lattice.Register, error) {
	v, err := e.newest(name)
	if err != nil {
		return nil, err
	}
	return v.reg, nil
}

// state is the newest state of a register, published or not. The caller holds e.mu.
func (e *Engine) state(name string) (StateBlock, error) {
	v, err := e.newest(name)
	if err != nil {
		return StateBlock{}, err
	}
	s := e.sight(v)
	if s.decl == nil || s.decl.Unit == "" {
		return s.block, nil
	}
	unit, err := e.newest(s.decl.Unit)
	if err != nil {
		return StateBlock{}, err
	}
	return e.member(name, unit), nil
}

// sequence gives a write its place and hands it to the storage. A write that changes nothing comes back as a commit
// without an ordinal. What was decided, also a refusal, rests on commits up to behind.
func (e *Engine) sequence(w *Write, internal bool) (c *commit, behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil { // meanwhile
		return nil, 0, e.failure()
	}
	e.seqr.beginStep()
	defer e.seqr.endStep()
	behind = e.seqr.ordinal
	if err := e.checkPreconditions(w.If); err != nil {
		return nil, behind, err
	}
	x := &e.seqr.expand
	x.begin(e, w, internal)
	defer x.forget()
	if err := x.expand(); err != nil {
		return nil, behind, err
	}
	c = new(commit)
	ops, held := x.finish()
	if len(ops) == 0 {
		return c, behind, errors.Join(x.receipt(c), e.keepAlone(c, w))
	}
	s := &e.seqr
	if err := s.core.Write(e, ops, held, w.By, x.writer.By, e.options.Now(), &s.eff); err != nil {
		return nil, behind, err
	}
	if _, most := w.most(); len(s.eff.Raw) > most {
		return nil, behind, tooLarge("a write of %d bytes, encoded; the limit is %d", len(s.eff.Raw), most)
	}
	defer s.shrink()
	records := w.Keep
	if w.KeepWith != nil {
		records = append(slices.Clip(records), w.KeepWith(s.eff.Candidate.Dot)...)
		if err := checkRecords(records); err != nil {
			return nil, behind, err
		}
	}
	if err := e.compose(c, &s.eff, composing{tag: w.Tag, records: records, mine: true}); err != nil {
		return nil, behind, err
	}
	return c, c.ordinal, x.receipt(c)
}

// submit gives what a commit has composed its place on the way to the disk. The caller holds e.mu.
func (e *Engine) submit(c *commit) error {
	f, err := e.store.Submit(c.batch, e.seqr.ordinal)
	if err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	c.batch, c.flight = store.Batch{}, f
	return nil
}

func (e *Engine) checkPreconditions(conditions []Precondition) error {
	for i := range conditions {
		p := &conditions[i]
		b, err := e.state(p.Register)
		if err != nil {
			return err
		}
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
	return e.submit(c)
}

// composing is what goes with a candidate into its batch.
type composing struct {
	tag     uint64
	records []Record
	erase   [][]byte // keys
	mine    bool     // limits of registers are checked: what others wrote within theirs is taken
}

// compose makes the commit of a step of the core, and changes nothing of the engine until it can't be refused any more.
func (e *Engine) compose(c *commit, eff *lattice.Effects, with composing) error {
	q := eff.Candidate
	d := e.begin(c, q.Dot, q.Time, q.Cause, with.tag)
	d.clock = eff.Clock()
	d.candidates++
	err := c.batch.Set(store.Candidate(q.Dot), eff.Raw)
	for i := range eff.Changes {
		err = errors.Join(err, d.change(&eff.Changes[i], with.mine))
	}
	if err = errors.Join(err, e.identifyOrigin(c.batch, eff)); err != nil {
		return errors.Join(err, c.batch.Close())
	}
	e.seqr.core.Accept(eff)
	return d.submit(with.records, with.erase)
}

// identifyOrigin makes an origin known to the storage with its first candidate, and keeps the heads of the others.
func (e *Engine) identifyOrigin(b store.Batch, eff *lattice.Effects) error {
	q := eff.Candidate
	var err error
	if q.Intro != nil {
		err = b.Set(store.Origin(q.Dot.Origin), appendIntro(nil, *q.Intro))
	}
	if q.Dot.Origin != e.self {
		err = errors.Join(err, b.Set(store.Head(q.Dot.Origin), appendHead(nil, lattice.Head{Seq: q.Dot.Seq, Hash: eff.Hash()})))
	} else if q.Intro != nil {
		err = errors.Join(err, b.Set(store.Meta(metaSelf), e.self[:]))
		if last := q.Intro.Before; !last.IsZero() {
			// What was found at the start, since an origin that writes has its head in its candidates.
			if h := e.seqr.core.Head(last.Origin); h.Seq > 0 { // else it is retired
				err = errors.Join(err, b.Set(store.Head(last.Origin), appendHead(nil, h)))
			}
		}
	}
	for _, d := range eff.Retires {
		err = errors.Join(err, b.Delete(store.Head(d.Origin)))
	}
	return err
}
