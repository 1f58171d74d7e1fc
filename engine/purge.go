package engine

import (
	"context"
	"slices"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// purge removes for good what deletes have hidden, once every member has the delete and it is old enough: a writer
// who had not heard of it can be behind a server as well as on another node.
func (e *Engine) purge(ctx context.Context) error {
	keys, err := e.dueHidden()
	for _, k := range keys {
		if err == nil {
			err = e.purgeOne(ctx, k)
		}
	}
	return err
}

type hiddenKey struct {
	key  []byte
	name string
	dots QStateVector // that every member has to have; none: all that this node has
}

// dueHidden gives some of what may be due, each time those behind the last: what a member that is away holds up must not hold
// up the rest.
func (e *Engine) dueHidden() (due []hiddenKey, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	until := store.Hidden(lattice.StampOf(e.options.Now().Add(-e.options.PurgeAfter)), "")
	lower := store.Hidden(0, "")[:1]
	if e.purged != nil {
		lower, e.purged = append(e.purged, 0), nil
	}
	for row, err := range e.scan(lower, until, false) {
		if err != nil {
			return nil, err
		}
		r := lattice.NewReader(row.Value)
		k := hiddenKey{key: slices.Clone(row.Key), dots: readVector(r)}
		if err := r.End(); err != nil {
			return nil, damaged("what is hidden: %w", err)
		}
		_, k.name = store.HiddenOf(row.Key)
		if due = append(due, k); len(due) == some {
			e.purged = slices.Clone(k.key)
			break
		}
	}
	return due, nil
}

func (e *Engine) purgeOne(ctx context.Context, k hiddenKey) error {
	dots := k.dots
	if len(dots) == 0 {
		e.mu.Lock()
		dots = e.seqr.core.Vector()
		e.mu.Unlock()
	}
	if slices.ContainsFunc(dots, func(d Dot) bool { return !e.everybodyHas(d) }) || !e.hasAllConfirmed() {
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	c, behind, err := e.purgeHere(k)
	if err != nil || c == nil {
		return err
	}
	_, err = e.finish(c, behind)
	return err
}

func (e *Engine) purgeHere(k hiddenKey) (c *commit, behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return nil, 0, e.failure()
	}
	s := &e.seqr
	v, err := e.newest(k.name)
	if err != nil {
		return nil, 0, err
	}
	var ops []lattice.Op
	if v.ordinal != 0 && !e.sight(v).block.Exists {
		ops = v.reg.Purge(k.name)
	}
	if len(ops) == 0 {
		return nil, 0, e.setAlone(k.key, nil)
	}
	c = new(commit)
	cause := Cause{Protocol: "engine", Verb: "purge"}
	if err := s.core.Write(e, ops, nil, cause, s.byOf(&cause), e.options.Now(), &s.eff); err != nil {
		return nil, 0, err
	}
	err = e.compose(c, &s.eff, composing{erase: [][]byte{k.key}})
	return c, c.ordinal, err
}
