package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// The state of another node as it travels, and how it is taken in.

func appendSnapshot(dst []byte, s *lattice.Snapshot) []byte {
	dst = appendVector(appendVector(dst, s.Context.Vector), s.Context.Retired)
	origins := make([]OriginID, 0, len(s.Owners))
	for o := range s.Owners {
		origins = append(origins, o)
	}
	slices.SortFunc(origins, OriginID.Compare)
	dst = lattice.AppendArray(dst, len(origins))
	for _, o := range origins {
		dst = lattice.AppendBytes(dst, appendIntro(nil, s.Owners[o]))
	}
	for _, d := range s.Context.Vector {
		h := s.Heads[d.Origin].Hash
		dst = lattice.AppendBytes(dst, h[:])
	}
	return dst
}

func parseSnapshot(raw []byte) (s lattice.Snapshot, err error) {
	r := lattice.NewReader(raw)
	s = lattice.Snapshot{Context: lattice.Context{Vector: readVector(r), Retired: readVector(r)}, Heads: map[OriginID]lattice.Head{}, Owners: map[OriginID]lattice.Intro{}}
	for range r.Count(1) {
		intro, err := parseIntro(r.Bytes())
		if err != nil {
			return s, err
		}
		s.Owners[intro.Origin.ID()] = intro
	}
	for _, d := range s.Context.Vector {
		h := lattice.Head{Seq: d.Seq}
		copy(h.Hash[:], r.Bytes())
		s.Heads[d.Origin] = h
	}
	return s, r.End()
}

// A Join takes the state of another node: registers one by one, then all of them at once, as far as anybody can tell who
// did not look in between. It is begun by BeginJoin.
type Join struct {
	e   *Engine
	raw []byte
	b   store.Batch
	n   int
	end bool
}

// BeginJoin begins to take the state of a node. One join at a time.
func (e *Engine) BeginJoin(ctx context.Context, snapshot []byte) (*Join, error) {
	if _, err := parseSnapshot(snapshot); err != nil {
		return nil, err
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	if raw, err := e.meta(metaJoin); err != nil || raw != nil {
		return nil, errors.Join(err, fmt.Errorf("%w: a join is under way", ErrUnavailable))
	}
	if err := e.clearJoin(); err != nil {
		return nil, err
	}
	return &Join{e: e, raw: bytes.Clone(snapshot), b: e.store.NewBatch()}, nil
}

// Add takes a register of the other node in its encoding; nil where it holds nothing of it.
func (j *Join) Add(name string, raw []byte) error {
	if err := checkAnyName(name); err != nil {
		return err
	}
	if raw != nil {
		if _, err := lattice.ParseRegister(raw); err != nil {
			return err
		}
	} else {
		raw = (*lattice.Register)(nil).AppendCBOR(nil)
	}
	if err := j.e.enter(); err != nil {
		return err
	}
	defer j.e.leave()
	if err := j.b.Set(store.Joining(name), raw); err != nil {
		return err
	}
	if j.n++; j.n%chunk != 0 {
		return nil
	}
	if err := errors.Join(j.e.store.Apply(j.b, false), j.b.Close()); err != nil {
		return j.e.fail(err)
	}
	j.b = j.e.store.NewBatch()
	return nil
}

func checkAnyName(name string) error {
	if strings.HasPrefix(name, lattice.UnitPrefix) {
		return CheckName(name[len(lattice.UnitPrefix):])
	}
	return CheckName(name)
}

// Commit joins them. From here on it is carried to its end, also by the next start.
func (j *Join) Commit(ctx context.Context) error {
	e := j.e
	if err := e.enter(); err != nil {
		return err
	}
	err := errors.Join(j.b.Set(store.Meta(metaJoin), j.raw), e.store.Apply(j.b, true), j.b.Close())
	e.leave()
	j.end = true
	if err != nil {
		return e.fail(err)
	}
	return e.resumeJoin()
}

// Abort forgets what was added.
func (j *Join) Abort() error {
	if j.end {
		return nil
	}
	j.end = true
	if err := j.e.enter(); err != nil {
		return err
	}
	defer j.e.leave()
	return errors.Join(j.b.Close(), j.e.clearJoin())
}

func (e *Engine) clearJoin() error {
	b := e.store.NewBatch()
	prefix := store.Joining("")
	return errors.Join(b.DeleteRange(prefix, store.Behind(prefix)), e.store.Apply(b, false), b.Close())
}

// joinChunk is how many registers are joined before others have a turn.
const joinChunk = 64

// resumeJoin carries a join to its end.
func (e *Engine) resumeJoin() error {
	raw, err := e.meta(metaJoin)
	if err != nil || raw == nil {
		return errors.Join(err, e.clearJoin())
	}
	s, err := parseSnapshot(raw)
	if err != nil {
		return damaged("the join that is under way: %w", err)
	}
	e.mu.Lock()
	e.seqr.core.BeginJoin(s.Context.Vector.Join(s.Context.Retired))
	e.mu.Unlock()
	for {
		behind, done, err := e.joinSome(&s)
		if err == nil {
			err = e.settle(behind)
		}
		if err != nil {
			return err
		}
		if done {
			return e.endHeld()
		}
	}
}

// endHeld lets go on what waited for what a join has brought.
func (e *Engine) endHeld() error {
	if err := e.retryHeld(); err != nil {
		return err
	}
	e.mu.Lock()
	behind := e.seqr.ordinal
	e.mu.Unlock()
	return e.settle(behind)
}

// joinSome joins some registers in one commit, or ends the join when all are.
func (e *Engine) joinSome(s *lattice.Snapshot) (behind uint64, done bool, err error) {
	if err := e.enter(); err != nil {
		return 0, false, err
	}
	defer e.leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return 0, false, e.failure()
	}
	core := e.seqr.core
	c := new(commit)
	d := e.begin(c, Dot{}, core.Clock(), Cause{Protocol: "engine", Verb: "join"}, 0)
	own := core.Context()
	var erased [][]byte
	prefix := store.Joining("")
	for row, err := range e.scan(prefix, store.Behind(prefix), false) {
		if err != nil {
			return 0, false, errors.Join(err, c.batch.Close())
		}
		name := store.RegisterName(row.Key)
		theirs, err := lattice.ParseRegister(row.Value)
		if err != nil {
			return 0, false, errors.Join(damaged("a register that is to be joined: %w", err), c.batch.Close())
		}
		mine, err := e.Register(name)
		if err == nil {
			joined := mine.Join(theirs, &own, &s.Context)
			if erased = append(erased, slices.Clone(row.Key)); !bytes.Equal(joined.AppendCBOR(nil), mine.AppendCBOR(nil)) {
				err = d.change(&lattice.Change{Name: strings.Clone(name), Before: mine, After: joined}, false)
			}
		}
		if err != nil {
			return 0, false, errors.Join(err, c.batch.Close())
		}
		if len(erased) == joinChunk {
			break
		}
	}
	if done = len(erased) < joinChunk; done {
		err = e.endJoin(c.batch, s)
		erased = append(erased, store.Meta(metaJoin))
	}
	if err != nil {
		return 0, false, errors.Join(err, c.batch.Close())
	}
	return c.ordinal, done, d.submit(nil, erased)
}

// endJoin moves the vector. The caller holds e.mu.
func (e *Engine) endJoin(b store.Batch, s *lattice.Snapshot) error {
	core := e.seqr.core
	for _, a := range core.EndJoin(*s) {
		e.alarm(a)
	}
	after := core.Snapshot()
	var err error
	for o, h := range after.Heads {
		if o != e.self {
			err = errors.Join(err, b.Set(store.Head(o), appendHead(nil, h)))
		}
	}
	for o, intro := range after.Owners {
		if o != e.self {
			err = errors.Join(err, b.Set(store.Origin(o), appendIntro(nil, intro)))
		}
	}
	for _, d := range s.Context.Retired {
		if core.Retired(d.Origin) {
			err = errors.Join(err, b.Delete(store.Head(d.Origin)))
		}
	}
	// The log lacks what came as state: a peer that lacks it too has to take the state as well.
	f := *e.floor.Load()
	f.vector = f.vector.Join(s.Context.Vector)
	e.floor.Store(&f)
	return errors.Join(err, b.Set(store.Meta(metaFloor), f.encode()))
}
