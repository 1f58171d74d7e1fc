package engine

import (
	"context"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// windows are the registers with candidates that wait for the time to pass. Those that wait for somebody to say so are on
// disk alone: there may be any number of them, for any time.
type windows struct {
	mu    sync.Mutex
	timed map[string]Stamp // since when the oldest of a register's waits
	more  bool             // than maxTimed: those beyond are found on disk when some of these have closed
	rules *ruleTable       // under which timed was filled from the disk
	n     uint64           // registers with any candidate that waits
	wake  chan struct{}    // has room for one
}

// maxTimed bounds what is held in memory of them.
const maxTimed = 100_000

// note takes what a commit has made of a register: had says whether something waited before, since is zero if nothing does
// any more.
func (w *windows) note(name string, mode CommitMode, had bool, since Stamp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case had && since == 0:
		w.n--
	case !had && since != 0:
		w.n++
	}
	if since == 0 || mode.Manual {
		delete(w.timed, name)
		return
	}
	w.add(name, since)
	w.nudge()
}

func (w *windows) add(name string, since Stamp) {
	if _, known := w.timed[name]; !known && len(w.timed) >= maxTimed {
		w.more = true
		return
	}
	w.timed[name] = since
}

// done forgets a register that need not be looked at any more, unless it began to wait anew.
func (w *windows) done(name string, since Stamp) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timed[name] == since {
		delete(w.timed, name)
	}
}

// nudge has tend look soon.
func (w *windows) nudge() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// soon is told when a candidate begins to wait for the time to pass.
func (w *windows) soon() <-chan struct{} { return w.wake }

func (w *windows) count() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

// loadPending counts what waits, at a start.
func (e *Engine) loadPending() error {
	n, err := e.fillWindows()
	e.windows.n = n
	return err
}

// fillWindows finds on disk what waits for the time to pass, under the rules of now. What is settled meanwhile may come in
// all the same: to close its window does nothing.
func (e *Engine) fillWindows() (n uint64, err error) {
	rules := e.rules.Load()
	w := &e.windows
	w.mu.Lock()
	w.more, w.rules = false, rules
	w.mu.Unlock()
	prefix := store.Pending("")
	for row, err := range e.scan(prefix, store.Behind(prefix), false) {
		if err != nil {
			return n, err
		}
		name := store.RegisterName(row.Key)
		r := lattice.NewReader(row.Value)
		since := Stamp(r.Uint())
		if err := r.End(); err != nil {
			return n, damaged("what waits on %q: %w", name, err)
		}
		if n++; rules.decl(name).Mode().Manual {
			continue
		}
		w.mu.Lock()
		w.add(name, since)
		w.mu.Unlock()
	}
	return n, nil
}

// refillWindows fills them again where the rules have changed, or where there is room for those beyond.
func (e *Engine) refillWindows() error {
	w := &e.windows
	w.mu.Lock()
	due := w.rules != e.rules.Load() || w.more && len(w.timed) < maxTimed/2
	w.mu.Unlock()
	if !due {
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	_, err := e.fillWindows()
	return err
}

// closeWindows settles the registers whose window has closed, and those that need not wait any more. It gives the time
// when the next one closes, zero if none does.
func (e *Engine) closeWindows(ctx context.Context) (next time.Time, err error) {
	if err := e.refillWindows(); err != nil {
		return next, err
	}
	now := e.options.Now()
	w := &e.windows
	w.mu.Lock()
	timed := maps.Clone(w.timed)
	w.mu.Unlock()
	rules := e.rules.Load()
	for _, name := range slices.Sorted(maps.Keys(timed)) {
		since := timed[name]
		mode := rules.decl(name).Mode()
		closes := since.Time().Add(mode.Window)
		switch {
		case mode.Manual:
			w.done(name, since)
		case now.Before(closes):
			if next.IsZero() || closes.Before(next) {
				next = closes
			}
		default:
			if _, failed := e.Collapse(ctx, name, Cause{Protocol: "engine", Verb: "window"}); failed != nil {
				err = errors.Join(err, failed)
				continue
			}
			w.done(name, since)
		}
	}
	return next, err
}

// Collapse implements State. The marker names the vector of this node: what comes later waits for another one.
func (e *Engine) Collapse(ctx context.Context, register string, by Cause) (Receipt, error) {
	if err := CheckName(register); err != nil {
		return Receipt{}, err
	}
	if err := ctx.Err(); err != nil {
		return Receipt{}, err
	}
	clip(&by)
	if by.Verb == "" {
		by.Verb = "collapse"
	}
	if err := e.enter(); err != nil {
		return Receipt{}, err
	}
	defer e.leave()
	if e.store.Full() {
		return Receipt{}, ErrFull
	}
	c, behind, err := e.collapse(register, by)
	if err != nil {
		return Receipt{}, err
	}
	return e.finish(c, behind)
}

func (e *Engine) collapse(register string, by Cause) (c *commit, behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return nil, 0, e.failure()
	}
	s := &e.seqr
	c, behind = new(commit), s.ordinal
	v, err := e.newest(register)
	if err != nil {
		return nil, behind, err
	}
	if v.reg.Pending() == 0 {
		b, err := e.state(register)
		c.states = []StateBlock{b}
		return c, behind, err
	}
	ops := []lattice.Op{{Register: register, Kind: lattice.Collapse, Field: lattice.Marker, Seen: v.reg.Cover()}}
	if err := s.core.Write(e, ops, nil, by, s.byOf(&by), e.options.Now(), &s.eff); err != nil {
		return nil, behind, err
	}
	if err := e.compose(c, &s.eff, composing{}); err != nil {
		return nil, behind, err
	}
	b, err := e.state(register)
	c.states = []StateBlock{b}
	return c, c.ordinal, err
}

// Pending implements State.
func (e *Engine) Pending(ctx context.Context, q PendingQuery) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		left := q.Limit
		if left <= 0 {
			left = 100
		}
		prefix := store.Pending(q.Prefix)
		upper := store.Behind(prefix)
		for {
			names, err := e.pendingNames(ctx, prefix, upper)
			if err != nil {
				yield(Pending{}, err)
				return
			}
			for _, name := range names {
				list, err := e.pendingOn(name)
				if err != nil {
					yield(Pending{}, err)
					return
				}
				for i := range list {
					if !yield(list[i], nil) {
						return
					}
					if left--; left == 0 {
						return
					}
				}
			}
			if len(names) < chunk {
				return
			}
			prefix = append(store.Pending(names[chunk-1]), 0)
		}
	}
}

func (e *Engine) pendingNames(ctx context.Context, lower, upper []byte) (names []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	for row, err := range e.scan(lower, upper, false) {
		if err != nil {
			return nil, err
		}
		if names = append(names, store.RegisterName(row.Key)); len(names) == chunk {
			break
		}
	}
	return names, nil
}

func (e *Engine) pendingOn(name string) (list []Pending, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	v, err := e.committed(name)
	if err != nil || v == nil {
		return nil, err
	}
	s := e.sight(v)
	for i := range v.reg.Waiting {
		w := &v.reg.Waiting[i]
		if w.Opaque {
			continue
		}
		p := Pending{Register: name, Dot: w.Dot, Time: w.Time, Cause: e.causeOf(w.Dot, w.By), Mode: s.decl.Mode()}
		items := map[string][]Value{}
		for _, op := range w.Ops {
			field, item := lattice.BaseField(op.Field)
			switch {
			case op.Field == lattice.Existence:
				p.Deletes = p.Deletes || op.Kind == lattice.Remove
			case op.Field == lattice.Deletion || op.Field == lattice.Marker:
			case item:
				if op.Kind == lattice.Put {
					items[field] = append(items[field], op.Value)
				} else if _, ok := items[field]; !ok {
					items[field] = nil
				}
			default:
				p.Would = append(p.Would, FieldChange{field, fieldOf(s.block, field), op.Value})
			}
		}
		for field, put := range items {
			// Of a union, what it would be if nothing else waited.
			p.Would = append(p.Would, FieldChange{field, fieldOf(s.block, field), unionAfter(fieldOf(s.block, field), w.Ops, field, put)})
		}
		slices.SortFunc(p.Would, func(a, b FieldChange) int { return strings.Compare(a.Field, b.Field) })
		list = append(list, p)
	}
	slices.SortStableFunc(list, func(a, b Pending) int {
		switch {
		case a.Time < b.Time:
			return -1
		case a.Time > b.Time:
			return 1
		}
		return a.Dot.Compare(b.Dot)
	})
	return list, nil
}

func unionAfter(now Value, ops []lattice.Op, field string, put []Value) Value {
	var items []Value
	for _, item := range now.Items() {
		name := lattice.ItemField(field, item)
		if !slices.ContainsFunc(ops, func(op lattice.Op) bool { return op.Kind == lattice.Remove && op.Field == name }) {
			items = append(items, item)
		}
	}
	return lattice.Set(append(items, put...)...)
}

// causeOf says who is behind a dot: all of it while the candidate is in the log, else what its entries have.
func (e *Engine) causeOf(d Dot, by lattice.By) Cause {
	var cause Cause
	found, err := e.get(store.Candidate(d), func(value []byte) error {
		q, err := lattice.ParseCandidate(value)
		if err == nil {
			cause = q.Cause
		}
		return err
	})
	if found && err == nil {
		return cause
	}
	protocol, wrapper, _ := strings.Cut(by.Wrapper(), "/")
	return Cause{Protocol: protocol, Wrapper: wrapper, Principal: by.User(), Verified: by.User() != ""}
}
