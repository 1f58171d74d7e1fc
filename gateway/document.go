package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A document is an address that many registers share (`each`). In a virtual wrapper the registers are the truth; of the
// document that a peer wrote there last only what they don't hold is kept: the order of its rows, and what no bind maps.

// rowsOf lists the registers of a document that have anything to show there, by name.
func (l *link) rowsOf(ctx context.Context, d *mapping.Document) ([]engine.StateBlock, error) {
	var out []engine.StateBlock
	for st, err := range l.store.List(ctx, d.Prefix(), "", 0) {
		if err != nil {
			return nil, kind(err)
		}
		if d.Has(st.Register) && isRow(d.Bind(), st) {
			out = append(out, st)
		}
	}
	return out, nil
}

// isRow tells whether a register makes a row: it has a field that the bind shows, or none at all.
func isRow(b *mapping.Bind, st engine.StateBlock) bool {
	return st.Exists && (carried(b, st) || len(fieldsOf(st)) == 0)
}

// documentVersion names what a document's registers have.
func documentVersion(rows []engine.StateBlock) wrappers.Version {
	h := sha256.New()
	var line []byte
	for i := range rows {
		line = append(strconv.AppendInt(line[:0], int64(len(rows[i].Register)), 10), ':')
		line = append(append(line, rows[i].Register...), rows[i].ID.String()...)
		h.Write(line)
	}
	return wrappers.Version("d" + hex.EncodeToString(h.Sum(nil)[:16]))
}

func (l *link) documentKey(p place) string { return l.name + "\x00" + p.String() }

// lastDocument is what a peer wrote at an address of a virtual wrapper last, nil if that was never a whole document.
func (l *link) lastDocument(p place) (*wrappers.Payload, error) {
	raw, err := l.store.Kept(tableDocument, l.documentKey(p))
	if err != nil || raw == nil {
		return nil, kind(err)
	}
	return &wrappers.Payload{Raw: raw}, nil
}

// shownAt gives the registers that an address shows, and what it shows of them: there is false where that is nothing, and
// a document has never been written. Where several binds share the address, each has its part of the document.
func (l *link) shownAt(ctx context.Context, server, address string) (pay wrappers.Payload, v wrappers.Version, there bool, err error) {
	env := l.env(ctx)
	var all []engine.StateBlock
	var prev *wrappers.Payload
	for _, t := range l.set().AllAt(l.name, server, address) {
		p := mapping.Place{Bind: t.Bind, Wrapper: l.name, Server: server, Address: t.Address}
		states, last, err := l.statesAt(ctx, server, t)
		if err != nil {
			return pay, "", false, err
		}
		if len(states) == 0 && last == nil || t.Document == nil && len(states) == 0 {
			continue
		}
		all = append(all, states...)
		send := true
		if t.Document == nil {
			pay, send, err = t.Bind.Out(p, states[0], prev, env)
		} else {
			if prev == nil {
				prev = last
			}
			if pay, err = t.Bind.OutRows(p, states, true, prev, env); err != nil && last != nil {
				// It was written under another meaning of the bind.
				pay, err = t.Bind.OutRows(p, states, true, nil, env)
			}
		}
		if err != nil {
			return pay, "", false, err
		}
		if send {
			shown := pay
			prev, there = &shown, true
		}
	}
	if prev != nil {
		pay = *prev
	}
	return pay, documentVersion(all), there, nil
}

// statesAt gives the registers that an address shows by one bind, by name, and the document that was written there last.
func (l *link) statesAt(ctx context.Context, server string, t mapping.Target) (states []engine.StateBlock, last *wrappers.Payload, err error) {
	if t.Document != nil {
		if states, err = l.rowsOf(ctx, t.Document); err == nil {
			last, err = l.lastDocument(place{server, t.Address})
		}
		return states, last, err
	}
	st, err := l.store.ReadState(ctx, t.Register)
	if err != nil {
		return nil, nil, kind(err)
	}
	if st.Exists && carried(t.Bind, st) {
		states = append(states, st)
	}
	return states, nil, nil
}

// versionAt names what an address shows.
func (l *link) versionAt(ctx context.Context, server, address string) (all []engine.StateBlock, there bool, err error) {
	for _, t := range l.set().AllAt(l.name, server, address) {
		states, last, err := l.statesAt(ctx, server, t)
		if err != nil {
			return nil, false, err
		}
		all = append(all, states...)
		there = there || len(states) > 0 || last != nil
	}
	return all, there, nil
}

// thereAt tells whether an address shows anything.
func (l *link) thereAt(ctx context.Context, server, address string) (bool, error) {
	for _, t := range l.set().AllAt(l.name, server, address) {
		if t.Document == nil {
			if states, _, err := l.statesAt(ctx, server, t); err != nil || len(states) > 0 {
				return len(states) > 0, err
			}
			continue
		}
		if last, err := l.lastDocument(place{server, t.Address}); err != nil || last != nil {
			return last != nil, err
		}
		for st, err := range l.store.List(ctx, t.Document.Prefix(), "", 0) {
			if err != nil {
				return false, kind(err)
			}
			if t.Document.Has(st.Register) && isRow(t.Bind, st) {
				return true, nil
			}
		}
	}
	return false, nil
}

// together tells whether an effect is of an address that shows more than one register.
func together(e mapping.Effect) bool { return e.Bind.Rows() || e.Bind.Shared() }

func hasRows(effects []mapping.Effect) bool {
	return slices.ContainsFunc(effects, func(e mapping.Effect) bool { return e.Bind.Rows() })
}

// documentAt gives the document at an operation's address, nil if there is none.
func (l *link) documentAt(set *mapping.Set, server, address string) *mapping.Target {
	if t, ok := set.DocumentAt(l.name, server, address); ok {
		return &t
	}
	return nil
}

// addRow appends what a row says that its register has not. A whole document is written for the sake of one row: the
// others are no writes, and revert nothing that somebody else does to them meanwhile.
func (l *link) addRow(ctx context.Context, op *wrappers.Operation, e mapping.Effect, w *draft) error {
	if w.By.Source == "" {
		w.By.Source = e.Bind.Source()
	}
	w.Bulk = true
	if len(e.Bind.Meters()) > 0 {
		return l.add(ctx, op, e, w)
	}
	cur, err := l.store.ReadState(ctx, e.Register)
	if err != nil {
		return kind(err)
	}
	if e.Dropped > 0 {
		l.Count("dropped_members", e.Dropped)
	}
	if e.Delete {
		w.Ops = append(w.Ops, deleteOps(e.Bind, e.Register, cur)...)
		return nil
	}
	n := len(w.Ops)
	puts := false
	for _, f := range e.Fields {
		o := engine.Op{Register: e.Register, Kind: engine.OpPut, Field: f.Field, Value: f.Value}
		switch {
		case f.Add:
			o.Kind = engine.OpAdd
		case f.Value.Equal(fieldOf(cur, f.Field)):
			continue
		case f.Value.IsAbsent():
			o.Kind = engine.OpRemove
		}
		puts = puts || o.Kind != engine.OpRemove
		w.Ops = append(w.Ops, o)
	}
	if e.Whole && cur.Exists {
		for _, f := range e.Bind.Clears(cur) {
			if !fieldOf(cur, f).IsAbsent() && !slices.ContainsFunc(e.Fields, func(v mapping.FieldValue) bool { return v.Field == f }) {
				w.Ops = append(w.Ops, engine.Op{Register: e.Register, Kind: engine.OpRemove, Field: f})
			}
		}
	}
	if e.Whole && !cur.Exists && !puts { // a row of keys alone
		w.Ops = append(w.Ops[:n], engine.Op{Register: e.Register, Kind: engine.OpOnly})
	}
	return nil
}

func fieldOf(st engine.StateBlock, field string) engine.Value {
	if !st.Exists {
		return engine.Value{}
	}
	if field == "" {
		if isFields(st.Value) {
			return engine.Value{}
		}
		return st.Value
	}
	v, _ := st.Value.Member(field)
	return v
}

// addDocument appends what a whole document, or its end, does to the registers that it doesn't name.
func (l *link) addDocument(ctx context.Context, op *wrappers.Operation, e mapping.Effect, effects []mapping.Effect, w *draft) error {
	if w.By.Source == "" {
		w.By.Source = e.Bind.Source()
	}
	w.Bulk = true
	p := place{op.Server, l.at(l.set(), op.Server, op.Address).address}
	rows, err := l.rowsOf(ctx, e.Document)
	if err != nil {
		return err
	}
	if e.Delete && w.created {
		return wrappers.Refuse(wrappers.ErrNotFound, "there is no document here")
	}
	named := namedBy(effects, e)
	n := 0
	for i := range rows {
		if _, ok := named[rows[i].Register]; ok {
			continue
		}
		ops := deleteOps(e.Bind, rows[i].Register, rows[i])
		if len(ops) == 0 {
			continue
		}
		if err := l.permitted(&op.Who, []mapping.Effect{{Bind: e.Bind, Register: rows[i].Register}}); err != nil {
			return err
		}
		n++
		w.Ops = append(w.Ops, ops...)
		if !e.Bind.Open() {
			w.If = append(w.If, engine.Precondition{Register: rows[i].Register, Match: []engine.StateID{rows[i].ID}})
		}
	}
	if err := tooMany(e.Bind, n, len(rows)); err != nil {
		return err
	}
	rec := engine.Record{Table: tableDocument, Key: l.documentKey(p)}
	if !e.Delete {
		rec.Value = append([]byte{}, op.Payload.Raw...)
	}
	w.Keep = append(w.Keep, rec)
	return nil
}

// namedBy are the registers that a document's other effects, and the rows that `when` passed by, speak of.
func namedBy(effects []mapping.Effect, doc mapping.Effect) map[string]struct{} {
	named := make(map[string]struct{}, len(effects)+len(doc.Passed))
	for i := range effects {
		if effects[i].Bind == doc.Bind {
			named[effects[i].Register] = struct{}{}
		}
	}
	for _, r := range doc.Passed {
		named[r] = struct{}{}
	}
	return named
}

// tooMany refuses a document that lacks more of its registers than the bind allows: a file that was emptied or cut off
// by accident is no wish to delete.
func tooMany(b *mapping.Bind, gone, of int) error {
	if gone == 0 || !b.MaxChange().Exceeded(0, gone, of) {
		return nil
	}
	return wrappers.Refuse(wrappers.ErrConflict, fmt.Sprintf(
		"%d of %d rows would be deleted, and max_change allows %s; nothing of it was applied. Delete fewer at once, or set max_change on the bind at %s",
		gone, of, b.MaxChange(), b.Source()))
}

// begun looks at an address with several registers before it is written. What is asked of its version is asked there.
func (l *link) begun(ctx context.Context, op *wrappers.Operation, effects []mapping.Effect, w *draft) (*wrappers.Operation, error) {
	w.together = true
	if len(op.If.Match)+len(op.If.Differ) > 0 {
		if err := l.conditions(ctx, op, effects, w); err != nil {
			return op, err
		}
	}
	plain := *op
	plain.If = wrappers.Precondition{}
	there, err := l.thereAt(ctx, op.Server, op.Address)
	w.created = !there
	return &plain, err
}

// conditions turns the versions that a peer names of an address with several registers into checks of all of them.
func (l *link) conditions(ctx context.Context, op *wrappers.Operation, effects []mapping.Effect, w *draft) error {
	states, here, err := l.versionAt(ctx, op.Server, op.Address)
	if err != nil {
		return err
	}
	now := documentVersion(states)
	is := func(v wrappers.Version) bool { return here && (v == wrappers.Any || v == now) }
	switch {
	case len(op.If.Match) > 0 && !slices.ContainsFunc(op.If.Match, is):
		if !here {
			return wrappers.Refuse(wrappers.ErrConflict, "there is nothing here")
		}
		return wrappers.Refuse(wrappers.ErrConflict, "the version is not the current one")
	case slices.ContainsFunc(op.If.Differ, is):
		if slices.Contains(op.If.Differ, wrappers.Any) {
			return wrappers.Refuse(wrappers.ErrConflict, "it exists already")
		}
		return wrappers.Refuse(wrappers.ErrConflict, "the version is not the current one")
	}
	there := make(map[string]struct{}, len(states))
	for i := range states {
		there[states[i].Register] = struct{}{}
		w.If = append(w.If, engine.Precondition{Register: states[i].Register, Match: []engine.StateID{states[i].ID}})
	}
	no := false
	for i := range effects {
		r := effects[i].Register
		if _, ok := there[r]; ok || r == "" {
			continue
		}
		st, err := l.store.ReadState(ctx, r)
		if err != nil {
			return kind(err)
		}
		if st.Exists {
			w.If = append(w.If, engine.Precondition{Register: r, Match: []engine.StateID{st.ID}})
		} else {
			w.If = append(w.If, engine.Precondition{Register: r, Exists: &no})
		}
	}
	return nil
}

// readTogether answers with what an address shows of all its registers.
func (l *link) readTogether(ctx context.Context, op *wrappers.Operation) (wrappers.Result, error) {
	here, err := l.store.Cursor(ctx)
	if err != nil {
		return wrappers.Result{}, kind(err)
	}
	pay, v, there, err := l.shownAt(ctx, op.Server, op.Address)
	if err != nil {
		return wrappers.Result{}, err
	}
	if !there {
		return wrappers.Result{}, wrappers.Refuse(wrappers.ErrNotFound, "no register has a value here")
	}
	return wrappers.Result{Payload: pay, Version: v, Cursor: wrappers.Cursor(here.String())}, nil
}
