package gateway

import (
	"slices"
	"sort"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// peers compares what virtual wrappers answer: each register at each of its addresses. Of an address that several
// registers share it is what that register has there.
func (p *planning) peers() error {
	var names []string
	later := map[string]LinkInfo{}
	for _, i := range p.after {
		names, later[i.Name] = append(names, i.Name), i
	}
	for n := range p.before {
		if _, ok := later[n]; !ok {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	virtual := func(of map[string]LinkInfo, name string) bool {
		info, ok := of[name]
		return ok && !info.Relay && !info.Attached
	}
	err := p.registers(func(st engine.StateBlock) error {
		was, err := p.store.ReadState(p.ctx, st.Register)
		if err != nil {
			return kind(err)
		}
		for _, name := range names {
			var had, has map[place]PlanStep
			if virtual(p.before, name) {
				had = p.answers(p.old, name, was)
			}
			if virtual(later, name) {
				has = p.answers(p.new, name, st)
			}
			p.answered(name, st.Register, had, has)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := p.emptyDocuments(name, virtual(p.before, name), virtual(later, name)); err != nil {
			return err
		}
	}
	return nil
}

// answered notes what a wrapper answers otherwise of a register.
func (p *planning) answered(wrapper, register string, had, has map[place]PlanStep) {
	for at, now := range has {
		s := PlanStep{Where: "peers", What: "create", Wrapper: wrapper, Server: at.server, Address: at.address, Register: register, After: now.After, Note: now.Note, bind: now.bind}
		if old, ok := had[at]; ok {
			if s.What, s.Before = "change", old.After; s.Before == s.After {
				continue
			}
		}
		p.add(s)
	}
	for at, old := range had {
		if _, ok := has[at]; !ok {
			p.add(PlanStep{Where: "peers", What: "delete", Wrapper: wrapper, Server: at.server, Address: at.address, Register: register, Before: old.After, Note: old.Note, bind: old.bind})
		}
	}
}

// answers is what a virtual wrapper answers of a register, by address.
func (p *planning) answers(set *mapping.Set, wrapper string, st engine.StateBlock) map[place]PlanStep {
	out := map[place]PlanStep{}
	if !st.Exists {
		return out
	}
	for _, q := range set.Places(wrapper, st.Register) {
		var s PlanStep
		var err error
		switch {
		case q.Bind.Rows():
			none, noneErr := p.row(q, nil)
			if !isRow(q.Bind, st) {
				continue
			}
			s.Note = itsRow
			if s.After, err = p.row(q, &st); err == nil && noneErr == nil && s.After == none {
				continue // `when` hides it
			}
		case !carried(q.Bind, st):
			continue
		default:
			if q.Bind.Filled() {
				var ok bool
				if q.Address, ok = set.AddressOf(q, st); !ok {
					continue
				}
			}
			var prev *wrappers.Payload // of another part of the same register
			if other, ok := out[place{q.Server, q.Address}]; ok {
				prev = &wrappers.Payload{Raw: []byte(other.After)}
			}
			var pay wrappers.Payload
			var send bool
			if pay, send, err = q.Bind.Out(q, st, prev, p.env(&st)); err == nil && !send {
				continue
			}
			if s.After = string(pay.Raw); q.Bind.Shared() {
				s.Note = "its part"
			}
		}
		if err != nil {
			s.After = "can't be shown: " + wrappers.Reason(err)
		}
		s.bind = q.Bind
		out[place{q.Server, q.Address}] = s
	}
	return out
}

// emptyDocuments plans what becomes of documents that a peer wrote and that have no rows: they are there all the same.
func (p *planning) emptyDocuments(wrapper string, before, after bool) error {
	for r, err := range p.store.EachKept(tableDocument, wrapper+"\x00") {
		if err != nil {
			return kind(err)
		}
		server, address, ok := strings.Cut(r.Key[len(wrapper)+1:], "\x00")
		if !ok || r.Value == nil {
			continue
		}
		at := place{server, address}
		bind := func(set *mapping.Set, shows bool) (*mapping.Bind, error) {
			all := set.AllAt(wrapper, at.server, at.address)
			i := slices.IndexFunc(all, func(t mapping.Target) bool { return t.Document != nil })
			if !shows || i < 0 {
				return nil, nil
			}
			for st, err := range p.store.List(p.ctx, all[i].Document.Prefix(), "", 0) {
				if err != nil {
					return nil, kind(err)
				}
				if all[i].Document.Has(st.Register) && isRow(all[i].Bind, st) {
					return nil, nil
				}
			}
			return all[i].Bind, nil
		}
		was, err := bind(p.old, before)
		if err != nil {
			return err
		}
		is, err := bind(p.new, after)
		if err != nil {
			return err
		}
		step := PlanStep{Where: "peers", Wrapper: wrapper, Server: at.server, Address: at.address, Note: "a document without rows"}
		switch {
		case was != nil && is == nil && len(p.new.AllAt(wrapper, at.server, at.address)) == 0:
			step.What, step.Before, step.bind = "delete", string(r.Value), was
		case is != nil && was == nil && len(p.old.AllAt(wrapper, at.server, at.address)) == 0:
			step.What, step.After, step.bind = "create", string(r.Value), is
		default:
			continue
		}
		p.add(step)
	}
	return nil
}
