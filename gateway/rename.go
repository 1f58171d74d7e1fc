package gateway

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A rename is one candidate: what the old address means goes, and the new one gets it. From an address that no bind has
// it is a put, to such an address a delete.

// rename is that of a virtual wrapper: what moves is what is committed.
func (l *link) rename(ctx context.Context, op *wrappers.Operation, w *draft) error {
	set := l.set()
	from, to := set.AllAt(l.name, op.Server, op.Address), set.AllAt(l.name, op.Server, op.To)
	switch {
	case len(to) == 0:
		return wrappers.Refuse(wrappers.ErrUnmapped, fmt.Sprintf("no bind maps %s", op.To))
	case len(from) == 0 && len(op.Payload.Raw) == 0:
		return wrappers.ErrUnmapped
	case len(from) == 0:
		put := *op
		put.Verb, put.Address, put.To = wrappers.Put, op.To, ""
		effects, err := set.In(l.name, &put, l.env(ctx))
		if err != nil {
			return err
		}
		if err := l.permitted(&op.Who, effects); err != nil {
			return err
		}
		return l.addAll(ctx, &put, effects, w)
	}
	moved := false
	for _, f := range from {
		t, err := counterpart(f, to)
		if err != nil {
			return err
		}
		if f.Address == t.Address {
			return nil
		}
		states, last, err := l.statesAt(ctx, op.Server, f)
		if err != nil {
			return err
		}
		if w.By.Source == "" {
			w.By.Source = f.Bind.Source()
		}
		moved = moved || len(states) > 0 || last != nil
		if f.Document != nil {
			if err := l.moveRows(ctx, op, f, *t, states, last, w); err != nil {
				return err
			}
			continue
		}
		for _, st := range states {
			w.By.RenamedFrom = st.Register
			if err := l.move(ctx, op, f.Bind, st, t.Bind, t.Register, w); err != nil {
				return err
			}
		}
	}
	if !moved {
		return wrappers.Refuse(wrappers.ErrNotFound, fmt.Sprintf("nothing has a value at %s", op.Address))
	}
	return nil
}

// counterpart finds what takes at the new address what stood at the old one: the same bind, or the only one there.
func counterpart(from mapping.Target, to []mapping.Target) (*mapping.Target, error) {
	i := slices.IndexFunc(to, func(t mapping.Target) bool { return t.Bind == from.Bind })
	if i < 0 && len(to) == 1 && from.Document == nil && to[0].Document == nil {
		i = 0
	}
	if i < 0 {
		return nil, wrappers.Refuse(wrappers.ErrInvalid, "the two addresses are of different binds; write the new one and delete the old")
	}
	return &to[i], nil
}

// move has one register take what another one's bind shows of it, which goes.
func (l *link) move(ctx context.Context, op *wrappers.Operation, from *mapping.Bind, st engine.StateBlock, to *mapping.Bind, register string, w *draft) error {
	if register == st.Register {
		return nil
	}
	if err := l.permitted(&op.Who, []mapping.Effect{{Bind: from, Register: st.Register}, {Bind: to, Register: register}}); err != nil {
		return err
	}
	target, err := l.store.ReadState(ctx, register)
	if err != nil {
		return kind(err)
	}
	w.If = append(w.If, engine.Precondition{Register: st.Register, Match: []engine.StateID{st.ID}})
	w.Ops = append(w.Ops, deleteOps(from, st.Register, st)...)
	n := len(w.Ops)
	fields := from.Mapped(st.Register, st)
	has := func(name string) bool {
		return slices.ContainsFunc(fields, func(f mapping.FieldValue) bool { return f.Field == name })
	}
	if to.Open() {
		only := engine.Op{Register: register, Kind: engine.OpOnly}
		for _, f := range fields {
			only.Fields = append(only.Fields, f.Field)
		}
		w.Ops = append(w.Ops, only)
	} else {
		for _, name := range to.Clears(target) { // what was there is replaced
			if !has(name) && !fieldOf(target, name).IsAbsent() {
				w.Ops = append(w.Ops, engine.Op{Register: register, Kind: engine.OpRemove, Field: name})
			}
		}
	}
	for _, f := range fields {
		w.Ops = append(w.Ops, engine.Op{Register: register, Kind: engine.OpPut, Field: f.Field, Value: f.Value})
	}
	// The other register may have other rules: siblings, say, are no value of its own.
	return kind(l.set().Check(register, w.Ops[n:]))
}

// moveRows has each row of a document move to the document at another address, whose rows it replaces.
func (l *link) moveRows(ctx context.Context, op *wrappers.Operation, from, to mapping.Target, rows []engine.StateBlock, last *wrappers.Payload, w *draft) error {
	w.together, w.Bulk, w.By.RenamedFrom = true, true, from.Address
	there, _, err := l.statesAt(ctx, op.Server, to)
	if err != nil {
		return err
	}
	if len(rows) == 0 { // a document alone
		access, who := l.gen.Load().Access, l.peer(&op.Who)
		for _, t := range []mapping.Target{from, to} {
			if err := l.mayTogether(ctx, access, who, []mapping.Target{t}, wrappers.WriteAccess); err != nil {
				return err
			}
		}
	}
	came := map[string]struct{}{}
	for _, st := range rows {
		register, ok := from.Document.Renamed(st.Register, to.Document)
		if !ok {
			return wrappers.Refuse(wrappers.ErrInvalid, "the two addresses are of different binds; write the new one and delete the old")
		}
		came[register] = struct{}{}
		if err := l.move(ctx, op, from.Bind, st, to.Bind, register, w); err != nil {
			return err
		}
	}
	for _, st := range there {
		if _, ok := came[st.Register]; !ok {
			if err := l.permitted(&op.Who, []mapping.Effect{{Bind: to.Bind, Register: st.Register}}); err != nil {
				return err
			}
			w.Ops = append(w.Ops, deleteOps(to.Bind, st.Register, st)...)
		}
	}
	gone := engine.Record{Table: tableDocument, Key: l.documentKey(place{op.Server, from.Address})}
	now := engine.Record{Table: tableDocument, Key: l.documentKey(place{op.Server, to.Address})}
	if last != nil {
		now.Value = last.Raw
	}
	w.Keep = append(w.Keep, gone, now)
	return nil
}

// A saying is what an operation in front of a real server says of one place.
type saying struct {
	at      place
	effects []mapping.Effect
}

// sayings are what an operation that a real server took means. Of a rename the new place gets what the server is known to
// have had at the old one, unless the operation brings it.
func (l *link) sayings(ctx context.Context, set *mapping.Set, op *wrappers.Operation) (out []saying, from string, err error) {
	say := func(op *wrappers.Operation) error {
		effects, err := set.In(l.name, op, l.env(ctx))
		out = append(out, saying{l.at(set, op.Server, op.Address), effects})
		return err
	}
	if op.Verb != wrappers.Rename {
		return out, "", say(op)
	}
	was, to := set.AllAt(l.name, op.Server, op.Address), set.AllAt(l.name, op.Server, op.To)
	if len(was) > 0 {
		end := *op
		end.Verb, end.To, end.Payload = wrappers.Delete, "", wrappers.Payload{}
		if err := say(&end); err != nil {
			return nil, "", err
		}
		if from = was[0].Register; from == "" || len(was) > 1 {
			from = was[0].Address
		}
	}
	switch {
	case len(to) == 0:
		return out, "", nil
	case len(was) == 0 || len(op.Payload.Raw) > 0:
		put := *op
		put.Verb, put.Address, put.To = wrappers.Put, op.To, ""
		return out, from, say(&put)
	}
	next := saying{at: l.at(set, op.Server, op.To)}
	for _, f := range was {
		t, err := counterpart(f, to)
		if err != nil {
			return nil, "", err
		}
		if f.Document == nil {
			e, err := l.shownEffect(out[0].at, f.Register, t.Bind, t.Register)
			if err != nil {
				return nil, "", err
			}
			next.effects = append(next.effects, e)
			continue
		}
		shown, err := l.base.shownAt(out[0].at, f.Document)
		if err != nil {
			return nil, "", err
		}
		for _, r := range slices.Sorted(maps.Keys(shown)) {
			register, ok := f.Document.Renamed(r, t.Document)
			if !ok {
				return nil, "", wrappers.Refuse(wrappers.ErrInvalid, "the two addresses are of different binds")
			}
			e, err := l.shownEffect(out[0].at, r, t.Bind, register)
			if err != nil {
				return nil, "", err
			}
			next.effects = append(next.effects, e)
		}
		next.effects = append(next.effects, mapping.Effect{Bind: t.Bind, Whole: true, Document: t.Document})
		out[0].effects = slices.DeleteFunc(out[0].effects, func(e mapping.Effect) bool { return e.Document != nil })
		for _, r := range slices.Sorted(maps.Keys(shown)) { // they move: no end of a document that max_change would guard
			out[0].effects = append(out[0].effects, mapping.Effect{Bind: f.Bind, Register: r, Delete: true})
		}
	}
	return append(out, next), from, nil
}

// shownEffect has a register get what a server was last known to show of another.
func (l *link) shownEffect(at place, from string, b *mapping.Bind, register string) (mapping.Effect, error) {
	e := mapping.Effect{Bind: b, Register: register, Whole: true}
	base, known, err := l.base.get(spot{at, from})
	if err == nil && !known {
		err = wrappers.Refuse(wrappers.ErrNotFound, "nobody knows what the server has at "+at.address)
	}
	for _, f := range base.Fields {
		if !f.Value.IsAbsent() {
			e.Fields = append(e.Fields, mapping.FieldValue{Field: f.Field, Value: f.Value})
		}
	}
	return e, err
}
