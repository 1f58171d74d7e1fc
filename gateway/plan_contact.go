package gateway

import (
	"errors"
	"fmt"
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
}

// A meeting is the first contact of a wrapper's new and changed binds with its servers, as it will go.
type meeting struct {
	info  LinkInfo
	unmet map[string]bool          // binds, by id
	next  map[spot]engine.Baseline // what is heard
	known map[place]bool           // what was heard before
}

// hear plans what servers say to new and changed binds: what contacts.go will do, by the same functions.
func (p *planning) hear(info LinkInfo) (*meeting, error) {
	m := &meeting{info: info, unmet: map[string]bool{}, next: map[spot]engine.Baseline{}, known: map[place]bool{}}
	for _, b := range p.new.Binds() {
		if !slices.Contains(b.Wrappers(), info.Name) {
			continue
		}
		met, err := p.store.Kept(tableContact, info.Name+"\x00"+b.ID())
		if err != nil {
			return nil, kind(err)
		}
		if string(met) == b.Hash() {
			continue
		}
		m.unmet[b.ID()] = true
		if b.Inward() && !b.Outward() {
			p.plan.Unsure = append(p.plan.Unsure, fmt.Sprintf("wrapper %s: what its server shows at %s is heard after the reload", info.Name, b.Address()))
		}
	}
	if len(m.unmet) == 0 {
		return m, nil
	}
	docs, err := p.documents(info)
	if err != nil {
		return nil, err
	}
	for i := range docs {
		if err := p.shows(m, &docs[i]); err != nil {
			return nil, err
		}
		m.known[docs[i].place] = true
	}
	return m, nil
}

// fill plans what is written to the servers of a wrapper: what a new or changed bind finds lacking there, and what
// registers have become.
func (p *planning) fill(m *meeting) error {
	if len(m.unmet)+len(p.states) == 0 {
		return nil
	}
	return p.registers(func(st engine.StateBlock) error {
		_, moved := p.states[st.Register]
		for _, q := range p.new.Places(m.info.Name, st.Register) {
			if moved || m.unmet[q.Bind.ID()] && !q.Bind.Events() {
				if err := p.owed(m, q, st); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// documents are what the servers of a wrapper have, as far as they have shown it under the binds in force.
func (p *planning) documents(info LinkInfo) (docs []shownDoc, err error) {
	for r, err := range p.store.EachKept(tableBaseline, info.Name+"\x00") {
		if err != nil {
			return nil, kind(err)
		}
		parts := strings.SplitN(r.Key, "\x00", 4)
		base, err := engine.ParseBaseline(r.Value)
		if err != nil {
			return nil, err
		}
		if len(parts) != 4 {
			continue
		}
		at := place{parts[1], parts[2]}
		t, ok := p.old.At(info.Name, at.server, at.address)
		if !ok || t.Register != parts[3] || t.Bind.Hash() != base.Bind || !t.Bind.Outward() {
			continue
		}
		st := engine.StateBlock{Register: t.Register}
		var members []lattice.Member
		for _, f := range base.Fields {
			switch {
			case f.Value.IsAbsent():
			case f.Field == "":
				st.Exists, st.Value = true, f.Value
			default:
				members = append(members, lattice.Member{Name: f.Field, Value: f.Value})
			}
		}
		if len(members) > 0 {
			st.Exists, st.Value = true, lattice.Object(members...)
		}
		d := shownDoc{place: at, gone: !st.Exists}
		if st.Exists {
			pay, send, err := t.Bind.Out(mapping.Place{Bind: t.Bind, Wrapper: info.Name, Server: at.server, Address: at.address}, st, nil, p.env(&st))
			if err != nil || !send {
				continue
			}
			d.payload = pay
		}
		docs = append(docs, d)
	}
	return docs, nil
}

// shows plans what a server's word means for registers under a new or changed bind.
func (p *planning) shows(m *meeting, d *shownDoc) error {
	info := m.info
	if info.Protocol.Feed && d.gone {
		return nil // a listing does not show what is not there
	}
	op := wrappers.Operation{Verb: wrappers.Put, Server: d.server, Address: d.address, Payload: d.payload}
	switch {
	case d.gone:
		op.Verb = wrappers.Delete
	case info.Protocol.Feed:
		op.Verb = wrappers.Message
	}
	effects, err := p.new.In(info.Name, &op, p.env(&engine.StateBlock{}))
	if errors.Is(err, wrappers.ErrUnmapped) {
		return nil
	}
	if err != nil {
		if t, ok := p.new.At(info.Name, d.server, d.address); ok && m.unmet[t.Bind.ID()] {
			p.plan.Unsure = append(p.plan.Unsure, fmt.Sprintf("wrapper %s: what its server has at %s would be parked: %s", info.Name, d.address, wrappers.Reason(err)))
		}
		return nil
	}
	for _, e := range effects {
		if !m.unmet[e.Bind.ID()] {
			continue
		}
		s := spot{d.place, e.Register}
		if !info.Protocol.Feed && !p.asked(info, s) {
			continue
		}
		p.there[e.Bind]++
		base, _, err := p.baseline(m, s)
		if err != nil {
			return err
		}
		cur, err := p.state(e.Register)
		if err != nil {
			return err
		}
		v := base.Reconcile(e.Register, shownBy(e, cur, engine.Shown{State: true, Feed: info.Protocol.Feed, Version: base.Version}), cur, firstContact(e.Bind))
		if len(v.Conflict) > 0 {
			p.add(PlanStep{
				Where: "server", What: "conflict", Wrapper: info.Name, Server: d.server, Address: d.address, Register: e.Register, bind: e.Bind,
				Before: planValue(cur), After: string(d.payload.Raw), Note: "both sides have a value and differ in " + strings.Join(v.Conflict, ", ") + ": set `first` on the bind",
			})
			m.next[s] = base
			continue
		}
		if e.Delete && e.Bind.OnDelete() == "ignore" {
			v.Ops = nil
		}
		v.Next.Became(engine.Dot{})
		v.Next.Bind = e.Bind.Hash()
		m.next[s] = v.Next
		if len(v.Ops) == 0 {
			continue
		}
		after, note := becomes(cur, v.Ops, p.new)
		step := PlanStep{
			Where: "register", What: "change", Wrapper: info.Name, Server: d.server, Address: d.address, Register: e.Register, bind: e.Bind,
			Before: planValue(cur), After: planValue(after), Note: note,
		}
		switch {
		case step.Before == step.After:
			continue
		case !cur.Exists:
			step.What = "create"
		case !after.Exists:
			step.What = "delete"
		}
		p.states[e.Register] = after
		p.add(step)
	}
	return nil
}

// asked tells whether a server without a feed is asked for an address because a register has it.
func (p *planning) asked(info LinkInfo, s spot) bool {
	st, err := p.store.ReadState(p.ctx, s.register)
	return err == nil && st.Exists && slices.ContainsFunc(p.new.Places(info.Name, s.register), func(q mapping.Place) bool {
		return q.Server == s.server && q.Address == s.address
	})
}

func (p *planning) baseline(m *meeting, s spot) (base engine.Baseline, known bool, err error) {
	if base, ok := m.next[s]; ok {
		return base, true, nil
	}
	raw, err := p.store.Kept(tableBaseline, s.key(m.info.Name))
	if err != nil || raw == nil {
		return base, false, kind(err)
	}
	base, err = engine.ParseBaseline(raw)
	return base, true, err
}

// owed plans what is written to a server so that it has what a register has.
func (p *planning) owed(m *meeting, q mapping.Place, st engine.StateBlock) error {
	info := m.info
	at := place{q.Server, q.Address}
	s := spot{at, st.Register}
	base, had, err := p.baseline(m, s)
	if err != nil {
		return err
	}
	if !m.known[at] {
		p.there[q.Bind]++
	}
	for i := range p.plan.Steps {
		if o := &p.plan.Steps[i]; o.What == "conflict" && o.Wrapper == info.Name && o.Server == q.Server && o.Address == q.Address && o.Register == st.Register {
			return nil
		}
	}
	fields, gone, owed := owes(q.Bind, &base, st)
	step := PlanStep{Where: "server", What: "change", Wrapper: info.Name, Server: q.Server, Address: q.Address, Register: st.Register, bind: q.Bind}
	if !gone {
		pay, send, err := q.Bind.Out(q, st, nil, p.env(&st))
		switch {
		case err != nil:
			step.What, step.Note = "conflict", "it can't be written there: "+wrappers.Reason(err)
		case !send:
			return nil
		}
		step.After = string(pay.Raw)
	}
	_, heard := m.next[s]
	if m.unmet[q.Bind.ID()] && !heard && (!info.Protocol.Feed && askFirst(q.Bind, &base, had) || info.Protocol.Feed && q.Bind.Inward() && !had) {
		if step.What != "conflict" {
			step.What, step.Note = "ask", "what its server has there is heard first; this is written if it has nothing"
		}
		if gone {
			return nil
		}
		p.add(step)
		return nil
	}
	if !owed {
		return nil
	}
	for _, f := range base.Fields {
		if !f.Value.IsAbsent() {
			step.Before = shownText(base.Fields)
			break
		}
	}
	switch {
	case step.What == "conflict":
	case gone:
		step.What = "delete"
	case step.Before == "" || len(fields) > 0 && base.Holds(nil, true, q.Bind.Carries):
		step.What = "create"
	}
	p.add(step)
	return nil
}

// shownText is what a server has, by fields.
func shownText(fields []engine.BaselineField) string {
	var members []lattice.Member
	for _, f := range fields {
		switch {
		case f.Value.IsAbsent():
		case f.Field == "":
			return string(f.Value.AppendJSON(nil))
		default:
			members = append(members, lattice.Member{Name: f.Field, Value: f.Value})
		}
	}
	return string(lattice.Object(members...).AppendJSON(nil))
}
