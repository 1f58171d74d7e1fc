package engine

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// get and scan are the storage's, with what can't be read as an ErrUnavailable.

func (e *Engine) get(key []byte, read func(value []byte) error) (found bool, err error) {
	found, err = e.store.Get(key, read)
	return found, unreadable(err)
}

func (e *Engine) scan(lower, upper []byte, reverse bool) iter.Seq2[store.Row, error] {
	return func(yield func(store.Row, error) bool) {
		for row, err := range e.store.Scan(lower, upper, reverse) {
			if !yield(row, unreadable(err)) {
				return
			}
		}
	}
}

func unreadable(err error) error {
	if err == nil || errors.Is(err, ErrUnavailable) {
		return err
	}
	return damaged("%w", err)
}

// load reads a register's newest state from disk, nil if there is none. It may not be published yet. What is not applied yet
// is among the recent ones.
func (e *Engine) load(name string) (*version, error) {
	var v *version
	_, err := e.store.GetApplied(store.Register(name), func(value []byte) (err error) {
		v, err = e.parse(strings.Clone(name), value)
		return err
	})
	return v, unreadable(err)
}

// committed gives a register's newest published version, nil if there is none.
func (e *Engine) committed(name string) (*version, error) {
	for {
		published, flips := e.feed.published.Load(), e.recent.flips.Load()
		if c := e.recent.find(name); c != nil {
			// The chain reaches down to published, unless that has risen meanwhile.
			for v := c.latest.Load(); v != nil; v = v.prev.Load() {
				if v.ordinal <= published {
					return v, nil
				}
			}
			continue
		}
		v, err := e.load(name)
		if err != nil {
			return nil, err
		}
		if v == nil || v.ordinal <= e.feed.published.Load() {
			e.lately.note(name, v, flips)
			return v, nil
		}
		// It was written since it was looked for among the recent ones, and is there now.
	}
}

// shown is what readers see of a register.
func (e *Engine) shown(name string) (StateBlock, error) {
	v, err := e.committed(name)
	if err != nil || v == nil {
		return StateBlock{Register: name}, err
	}
	name = v.name
	if unit := e.unitOf(v); unit != "" {
		unit, err := e.committed(unit)
		if err != nil || unit == nil {
			return StateBlock{Register: name}, err
		}
		return e.member(name, unit), nil
	}
	return e.sight(v).block, nil
}

// unitOf is the register that holds the group of another; "" where that is in none.
func (e *Engine) unitOf(v *version) string {
	if v.unit != "" {
		return v.unit
	}
	if d := e.sight(v).decl; d != nil {
		return d.Unit
	}
	return ""
}

// ReadState gives the committed state. A register that does not exist has Exists false and no error.
func (e *Engine) ReadState(ctx context.Context, register string) (StateBlock, error) {
	if err := ctx.Err(); err != nil {
		return StateBlock{}, err
	}
	if err := CheckName(register); err != nil {
		return StateBlock{}, err
	}
	if err := e.enter(); err != nil {
		return StateBlock{}, err
	}
	defer e.leave()
	return e.shown(register)
}

// chunk is how many registers or history entries are read before they are handed on: nothing of the storage is held
// while somebody else looks at them.
const chunk = 256

// List yields existing registers in name order, behind after, at most limit (0: all). Each is as committed when the
// listing comes to it. The domain's own ("_rules/…") show only where the prefix begins with "_".
func (e *Engine) List(ctx context.Context, prefix, after string, limit int) iter.Seq2[StateBlock, error] {
	return func(yield func(StateBlock, error) bool) {
		for n := 0; ; {
			blocks, last, err := e.listChunk(ctx, prefix, after)
			for _, b := range blocks {
				if !yield(b, nil) {
					return
				}
				if n++; n == limit {
					return
				}
			}
			if err != nil {
				yield(StateBlock{}, err)
				return
			}
			if last == "" {
				return
			}
			after = last
		}
	}
}

// names scans registers by name from behind after.
func (e *Engine) names(prefix, after string) iter.Seq2[store.Row, error] {
	lower := store.Register(prefix)
	upper := store.Behind(lower)
	if after >= prefix && after != "" {
		lower = append(store.Register(after), 0)
	}
	return e.scan(lower, upper, false)
}

// listChunk shows registers as of one commit. What the storage has and no reader may see yet is waited for: showing what was
// before it instead, register by register, would show a write to several in part, as it may be published in between.
func (e *Engine) listChunk(ctx context.Context, prefix, after string) (blocks []StateBlock, last string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := e.enter(); err != nil {
		return nil, "", err
	}
	defer e.leave()
	var newest uint64
	var versions []*version
	n := 0
	f := Filter{Prefix: prefix}
	for row, err := range e.names(prefix, after) {
		if err != nil {
			return nil, "", err
		}
		name := store.RegisterName(row.Key)
		if f.Matches(name) && !strings.HasPrefix(name, lattice.UnitPrefix) {
			v, err := e.parse(name, row.Value)
			if err != nil {
				return nil, "", err
			}
			versions = append(versions, v)
			newest = max(newest, v.ordinal)
		}
		if n++; n == chunk {
			last = name
			break
		}
	}
	if err := e.feed.reach(ctx, newest); err != nil {
		return nil, "", err
	}
	units := map[string]*version{}
	for _, v := range versions {
		b, err := e.listed(v, units)
		if err != nil {
			return blocks, "", err
		}
		if b.Exists {
			blocks = append(blocks, b)
		}
	}
	return blocks, last, nil
}

// listed is what readers see of a version, and of those of its group, all at the same state of the group.
func (e *Engine) listed(v *version, units map[string]*version) (StateBlock, error) {
	name := e.unitOf(v)
	if name == "" {
		return e.sight(v).block, nil
	}
	unit, known := units[name]
	if !known {
		var err error
		if unit, err = e.committed(name); err != nil {
			return StateBlock{Register: v.name}, err
		}
		units[name] = unit
	}
	if unit == nil {
		return StateBlock{Register: v.name}, nil
	}
	return e.member(v.name, unit), nil
}

// History yields what became of one register, newest first unless the query says otherwise.
func (e *Engine) History(ctx context.Context, q HistoryQuery) iter.Seq2[QDelta, error] {
	return func(yield func(QDelta, error) bool) {
		if err := CheckName(q.Register); err != nil {
			yield(QDelta{}, err)
			return
		}
		if q.Limit <= 0 {
			q.Limit = 100
		}
		for {
			deltas, err := e.historyChunk(ctx, q, min(q.Limit, chunk))
			for _, d := range deltas {
				if !yield(d, nil) {
					return
				}
			}
			if err != nil {
				yield(QDelta{}, err)
				return
			}
			if q.Limit -= len(deltas); q.Limit == 0 || len(deltas) < chunk {
				return
			}
			if last := deltas[len(deltas)-1].Cursor.Ordinal; q.Oldest {
				q.After = last
			} else {
				q.Before = last
			}
		}
	}
}

func (e *Engine) historyChunk(ctx context.Context, q HistoryQuery, limit int) (deltas []QDelta, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	before := e.feed.published.Load() + 1
	if q.Before != 0 {
		before = min(before, q.Before)
	}
	if q.After >= before {
		return nil, nil
	}
	prefix := len(store.HistoryPrefix(q.Register))
	for row, err := range e.scan(store.History(q.Register, q.After+1), store.History(q.Register, before), !q.Oldest) {
		if err != nil {
			return deltas, err
		}
		at := Cursor{e.log, ordinalOf(row.Key[prefix:])}
		d, err := parseDelta(q.Register, at, row.Value)
		if err != nil {
			return deltas, err
		}
		if deltas = append(deltas, d); len(deltas) == limit {
			break
		}
	}
	return deltas, nil
}
