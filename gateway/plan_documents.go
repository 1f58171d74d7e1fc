package gateway

import (
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// shownDoc is what a server is known to have at an address.
type shownDoc struct {
	place
	payload wrappers.Payload
	gone    bool
	marked  bool // it may be there and say that its register is gone
}

// documents are what the servers of a wrapper have, as far as they have shown it under the binds in force.
func (p *planning) documents(info LinkInfo) (docs []shownDoc, err error) {
	bases := map[place]map[string]engine.Baseline{}
	for r, err := range p.store.EachKept(tableBaseline, info.Name+"\x00") {
		if err != nil {
			return nil, kind(err)
		}
		parts := strings.SplitN(r.Key, "\x00", 4)
		if len(parts) != 4 {
			continue
		}
		base, err := engine.ParseBaseline(r.Value)
		if err != nil {
			return nil, err
		}
		at := place{parts[1], parts[2]}
		if bases[at] == nil {
			bases[at] = map[string]engine.Baseline{}
		}
		bases[at][parts[3]] = base
	}
	for _, at := range slices.SortedFunc(maps.Keys(bases), func(a, b place) int { return strings.Compare(a.String(), b.String()) }) {
		if d, known := p.document(info, at, bases[at]); known {
			docs = append(docs, d)
		}
	}
	return docs, nil
}

// document lays what the binds at an address have seen there over each other. Not known: none of them has, or what they
// have seen can't be shown by them.
func (p *planning) document(info LinkInfo, at place, bases map[string]engine.Baseline) (d shownDoc, known bool) {
	d = shownDoc{place: at, gone: true}
	var prev *wrappers.Payload
	for _, t := range p.old.AllAt(info.Name, at.server, at.address) {
		base, ok := bases[t.Register] // of a document its own
		if !ok || base.Bind != t.Bind.Hash() || !t.Bind.Outward() {
			continue
		}
		known = true
		q := mapping.Place{Bind: t.Bind, Wrapper: info.Name, Server: at.server, Address: at.address}
		st := shownState(t.Register, &base)
		var pay wrappers.Payload
		var err error
		send := true
		switch {
		case t.Document != nil && !base.Holds(nil, true, nil):
			var rows []engine.StateBlock
			for _, r := range slices.Sorted(maps.Keys(bases)) {
				row := bases[r]
				if st := shownState(r, &row); r != "" && row.Bind == base.Bind && st.Exists && t.Document.Has(r) {
					rows = append(rows, st)
				}
			}
			pay, err = t.Bind.OutRows(q, rows, true, prev, p.env(&st))
		case t.Document != nil:
			continue
		case t.Bind.Says() && !base.Holds(nil, true, t.Bind.Carries) && t.Bind.There(st), !t.Bind.Says() && st.Exists:
			pay, send, err = t.Bind.Out(q, st, prev, p.env(&st))
		default:
			d.marked = d.marked || t.Bind.Marks()
			continue
		}
		if err != nil {
			return d, false
		}
		if send {
			d.payload, d.gone = pay, false
			prev = &d.payload
		}
	}
	return d, known
}

// shownState is what a server shows of a register, as its state.
func shownState(register string, base *engine.Baseline) engine.StateBlock {
	st := engine.StateBlock{Register: register}
	have := base.Fields
	if n := len(base.Sent); n > 0 && base.Sent[n-1].Taken {
		have = base.Sent[n-1].Fields
	}
	var members []lattice.Member
	for _, f := range have {
		switch {
		case f.Value.IsAbsent():
		case f.Field == "":
			st.Exists, st.Value = true, f.Value
		default:
			members = append(members, lattice.Member{Name: f.Field, Value: f.Value})
		}
	}
	if len(members) > 0 || !st.Exists && !base.Holds(nil, true, nil) {
		st.Exists, st.Value = true, lattice.Object(members...)
	}
	return st
}

// spread is link.spread by what the plan knows.
func (p *planning) spread(m *meeting, at place, effects []mapping.Effect) ([]mapping.Effect, error) {
	i := slices.IndexFunc(effects, func(e mapping.Effect) bool { return e.Document != nil })
	if i < 0 {
		return effects, nil
	}
	doc := effects[i]
	shown, err := p.shownAt(m, at, doc.Document)
	if err != nil {
		return nil, err
	}
	return lacking(effects, i, shown)
}

// shownAt is baselines.shownAt by what the plan knows.
func (p *planning) shownAt(m *meeting, at place, d *mapping.Document) (map[string]struct{}, error) {
	b := baselines{store: p.store, wrapper: m.info.Name, recent: map[spot]*recent{}}
	for s, base := range m.next {
		b.recent[s] = &recent{known: true, base: base}
	}
	return b.shownAt(at, d)
}

// owedRows plans what is written into a document at a server, row by row.
func (p *planning) owedRows(m *meeting, at place, registers map[string]struct{}) error {
	t, ok := p.new.DocumentAt(m.info.Name, at.server, at.address)
	if !ok {
		return nil
	}
	own, known, err := p.baseline(m, documentSpot(at))
	if err != nil {
		return err
	}
	unmet := m.unmet[t.Bind.ID()]
	asks := unmet && p.silent(m, documentSpot(at), t.Bind, &own, known)
	if unmet {
		shown, err := p.shownAt(m, at, t.Document)
		if err != nil {
			return err
		}
		maps.Copy(registers, shown)
	}
	q := mapping.Place{Bind: t.Bind, Wrapper: m.info.Name, Server: at.server, Address: at.address}
	none, _ := p.row(q, nil)
	for _, r := range slices.Sorted(maps.Keys(registers)) {
		s := spot{at, r}
		if !t.Document.Has(r) || !p.access.tells(&m.info, r, t.Bind) {
			continue
		}
		p.has(t.Bind, m.info.Name, s)
		if m.differ[s] {
			continue
		}
		st, err := p.state(r)
		if err != nil {
			return err
		}
		base, had, err := p.baseline(m, s)
		if err != nil {
			return err
		}
		gone := !isRow(t.Bind, st)
		fields := shownFields(t.Bind.Mapped(r, st))
		step := PlanStep{Where: "server", What: "change", Wrapper: m.info.Name, Server: at.server, Address: at.address, Register: r, bind: t.Bind, Note: itsRow}
		if !gone {
			if step.After, err = p.row(q, &st); err != nil {
				step.What, step.Note = "conflict", "it can't be written there: "+wrappers.Reason(err)
			} else if step.After == none {
				continue // `when` hides it
			}
		}
		switch {
		case gone && (asks || t.Bind.OnDelete() == "ignore"):
			continue
		case asks:
			if step.What != "conflict" {
				step.What, step.Note = "ask", heardFirst
			}
			p.add(step)
			continue
		case holdsRow(t.Bind, &base, had, fields, gone):
			continue
		}
		step.Before = shownText(&base)
		switch {
		case step.What == "conflict":
		case gone:
			step.What = "delete"
		case !had || base.Holds(nil, true, nil):
			step.What = "create"
		}
		p.add(step)
	}
	return nil
}

// itsRow says that a step shows a document with the one row that it is about.
const itsRow = "its row"

// row is a document with the row of one register, or with none.
func (p *planning) row(q mapping.Place, st *engine.StateBlock) (string, error) {
	var rows []engine.StateBlock
	if st != nil {
		rows = append(rows, *st)
	}
	pay, err := q.Bind.OutRows(q, rows, true, nil, p.env(&engine.StateBlock{}))
	return string(pay.Raw), err
}
