package gateway

import (
	"context"
	"fmt"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// bulkParts is how many writes in one are few enough to go beside others.
const bulkParts = 200

// candidate turns what a peer asked of a virtual wrapper into one write. The writer has seen what
// is committed here.
func (l *link) candidate(ctx context.Context, op *wrappers.Operation) (*draft, error) {
	w := &draft{link: l}
	parts := op.Parts
	if len(parts) == 0 {
		parts = []wrappers.Operation{*op}
	}
	w.Bulk = len(parts) > bulkParts
	for i := range parts {
		part := &parts[i]
		if part.Verb == wrappers.Rename {
			if err := l.rename(ctx, part, w); err != nil {
				return w, err
			}
			continue
		}
		if part.Verb == wrappers.Read {
			if err := l.unchanged(ctx, &op.Who, part, w); err != nil {
				return w, err
			}
			continue
		}
		effects, err := l.set().In(l.name, part, l.env(ctx))
		if err == nil {
			err = l.permitted(&op.Who, effects)
		}
		if err != nil {
			return w, err
		}
		if slices.ContainsFunc(effects, together) {
			if part, err = l.begun(ctx, part, effects, w); err != nil {
				return w, err
			}
		}
		if err := l.addAll(ctx, part, effects, w); err != nil {
			return w, err
		}
	}
	from := w.By.RenamedFrom
	w.By = l.cause(op, w.By.Source)
	w.By.RenamedFrom = from
	w.Tag = op.Tag
	w.keep()
	return w, nil
}

// addAll appends what the effects of an operation do to their registers.
func (l *link) addAll(ctx context.Context, op *wrappers.Operation, effects []mapping.Effect, w *draft) error {
	for _, e := range effects {
		var err error
		switch {
		case e.Document != nil:
			err = l.addDocument(ctx, op, e, effects, w)
		case e.Bind.Rows():
			err = l.addRow(ctx, op, e, w)
		default:
			err = l.add(ctx, op, e, w)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unchanged has the precondition of a part that writes nothing checked with the commit.
func (l *link) unchanged(ctx context.Context, who *wrappers.Who, op *wrappers.Operation, w *draft) error {
	at, ok := l.set().At(l.name, op.Server, op.Address)
	if !ok {
		return wrappers.ErrUnmapped
	}
	if at.Document != nil || at.Bind.Shared() {
		return l.conditions(ctx, op, nil, w)
	}
	if err := l.gen.Load().Access.may(l.peer(who), at.Register, at.Bind, wrappers.ReadAccess); err != nil {
		return err
	}
	cur, err := l.store.ReadState(ctx, at.Register)
	if err != nil {
		return kind(err)
	}
	return l.precondition(op.If, mapping.Effect{Bind: at.Bind, Register: at.Register}, cur, w)
}

// add appends what one effect does to its register.
func (l *link) add(ctx context.Context, op *wrappers.Operation, e mapping.Effect, w *draft) error {
	if w.By.Source == "" {
		w.By.Source = e.Bind.Source()
	}
	if e.Dropped > 0 {
		l.Count("dropped_members", e.Dropped)
	}
	// The current state is needed only where the effect depends on it.
	var cur engine.StateBlock
	if e.Delete || e.Whole && !e.Bind.Open() || len(op.If.Match)+len(op.If.Differ) > 0 {
		var err error
		if cur, err = l.store.ReadState(ctx, e.Register); err != nil {
			return kind(err)
		}
	}
	if err := l.precondition(op.If, e, cur, w); err != nil {
		return err
	}
	switch {
	case e.Delete:
		ops := deleteOps(e.Bind, e.Register, cur)
		if ops == nil && e.Bind.OnDelete() != "ignore" && !e.Marked && (!e.Bind.Shared() || w.created) {
			return wrappers.Refuse(wrappers.ErrNotFound, fmt.Sprintf("register %s has no value here", e.Register))
		}
		w.Ops = append(w.Ops, ops...)
		if len(ops) > 0 && !e.Bind.Open() {
			// Which fields remain was decided from cur: nobody may have come between.
			w.If = append(w.If, engine.Precondition{Register: e.Register, Match: []engine.StateID{cur.ID}})
		}
		return w.report(op, e, nil, len(ops) > 0)
	case e.Whole && e.Bind.Open():
		only := engine.Op{Register: e.Register, Kind: engine.OpOnly}
		for _, f := range e.Fields {
			if !f.Value.IsAbsent() {
				only.Fields = append(only.Fields, f.Field)
			}
		}
		w.Ops = append(w.Ops, only)
	case e.Whole:
		for _, f := range e.Bind.Clears(cur) {
			if !slices.ContainsFunc(e.Fields, func(v mapping.FieldValue) bool { return v.Field == f }) {
				w.Ops = append(w.Ops, engine.Op{Register: e.Register, Kind: engine.OpRemove, Field: f})
			}
		}
	}
	for _, f := range e.Fields {
		o := engine.Op{Register: e.Register, Kind: engine.OpPut, Field: f.Field, Value: f.Value}
		switch {
		case f.Value.IsAbsent():
			o.Kind = engine.OpRemove
		case f.Add:
			o.Kind = engine.OpAdd
		}
		w.Ops = append(w.Ops, o)
	}
	return w.report(op, e, w.Ops[len(w.Ops)-len(e.Fields):], e.Whole)
}

// deleteOps clears what the bind maps; the register goes with its last field. Nil: there is
// nothing to clear, or the bind ignores deletes.
func deleteOps(b *mapping.Bind, register string, cur engine.StateBlock) []engine.Op {
	if !cur.Exists || b.OnDelete() == "ignore" {
		return nil
	}
	if b.Open() {
		return []engine.Op{{Register: register, Kind: engine.OpDelete}}
	}
	var ops []engine.Op
	clears := b.Clears(cur)
	left := 0
	for _, f := range fieldsOf(cur) {
		if slices.Contains(clears, f) {
			ops = append(ops, engine.Op{Register: register, Kind: engine.OpRemove, Field: f})
		} else {
			left++
		}
	}
	if len(ops) > 0 && left == 0 {
		// The fields stay, hidden: should a concurrent write keep the register, it returns whole.
		return []engine.Op{{Register: register, Kind: engine.OpDelete}}
	}
	return ops
}

// fieldsOf lists the fields a register has; "" for one that is one value.
func fieldsOf(st engine.StateBlock) []string {
	if !st.Exists {
		return nil
	}
	if !isFields(st.Value) {
		if st.Value.IsAbsent() {
			return nil
		}
		return []string{""}
	}
	var out []string
	for _, m := range st.Value.Members() {
		out = append(out, m.Name)
	}
	return out
}

func isFields(v engine.Value) bool { return v.Kind() == lattice.ObjectKind }

// precondition turns a peer's versions into a check that the sequencer makes with the commit.
func (l *link) precondition(p wrappers.Precondition, e mapping.Effect, cur engine.StateBlock, w *draft) error {
	if len(p.Match)+len(p.Differ) == 0 {
		return nil
	}
	here := cur.Exists && carried(e.Bind, cur)
	check := engine.Precondition{Register: e.Register}
	stale := wrappers.Refuse(wrappers.ErrConflict, "the version is not the current one")
	for _, v := range p.Match {
		if v == wrappers.Any {
			if !here {
				return wrappers.Refuse(wrappers.ErrConflict, "there is nothing here")
			}
			check.Match = []engine.StateID{cur.ID}
			break
		}
		if id, err := lattice.ParseStateID(string(v)); err == nil {
			check.Match = append(check.Match, id)
		}
	}
	if len(p.Match) > 0 && !slices.Contains(check.Match, cur.ID) {
		return stale
	}
	for _, v := range p.Differ {
		if v == wrappers.Any {
			if here {
				return wrappers.Refuse(wrappers.ErrConflict, "it exists already")
			}
			check.Match = []engine.StateID{cur.ID}
			break
		}
		if id, err := lattice.ParseStateID(string(v)); err == nil {
			check.Differ = append(check.Differ, id)
		}
	}
	if here && slices.Contains(check.Differ, cur.ID) {
		return stale
	}
	w.If = append(w.If, check)
	return nil
}

// sequence gives the candidate of an operation its place. A precondition may be the gateway's own:
// if somebody came between the look and the commit, it looks again.
func (l *link) sequence(ctx context.Context, op *wrappers.Operation) (w *draft, wait func() (engine.Receipt, error), err error) {
	const looks = 16
	for try := 1; ; try++ {
		d, err := l.candidate(ctx, op)
		w = d
		if err != nil || len(w.Ops) == 0 {
			d.sequenced(false)
			if err == nil && w.Bulk && len(w.Keep) > 0 { // the rows are as they were, and their order is another
				err = kind(l.store.KeepRecords(ctx, true, w.Keep...))
			}
			return w, func() (engine.Receipt, error) { return engine.Receipt{}, nil }, err
		}
		_, wait, err = l.store.Submit(ctx, w.Write)
		d.sequenced(err == nil)
		if err == nil {
			return w, wait, nil
		}
		err = kind(err)
		if wrappers.Kind(err) != wrappers.ErrConflict || try == looks || len(w.If) == 0 {
			return w, nil, err
		}
	}
}

// sourceOf is the mapping line behind an operation's effects, "" if it has none.
func sourceOf(effects []mapping.Effect) string {
	if len(effects) == 0 {
		return ""
	}
	return effects[0].Bind.Source()
}
