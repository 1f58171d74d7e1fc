package mapping

import (
	"slices"

	"github.com/spooksystems/gateway/engine"
)

// fills tells whether what the register's name doesn't tell of a bind's address are fields, which a state does.
func (l *loader) fills(bind *Bind, address *template) bool {
	if bind.each != nil || slices.ContainsFunc(bind.keys, func(k key) bool { return k.from < 0 }) {
		return false
	}
	for i, n := range address.names {
		if slices.Contains(bind.register.names, n) || slices.ContainsFunc(bind.keys, func(k key) bool { return k.from == i }) {
			continue
		}
		if !slices.ContainsFunc(bind.fields, func(f capField) bool { return f.slot == i }) {
			return false // an expression uses it
		}
	}
	// A command says what its address says, and is not sent again because another field of the register has changed.
	bind.identity, bind.hasOut = false, true
	for _, f := range bind.fields {
		bind.carried = append(bind.carried, f.field)
	}
	slices.Sort(bind.carried)
	bind.carried = slices.Compact(bind.carried)
	return true
}

// Filled tells whether the address itself carries fields: a command, of which each value is another address. Its Place
// then has the address with {name} where those stand, and Address gives the one of a state.
func (b *Bind) Filled() bool { return b.filled }

// inAddress tells whether a field stands in the address, and so not in the payload.
func (b *Bind) inAddress(field string) bool {
	return b.filled && slices.ContainsFunc(b.fields, func(f capField) bool { return f.field == field })
}

// AddressOf gives the address of a register's state at a place. False: a field that stands in it is not there.
func (s *Set) AddressOf(p Place, st engine.StateBlock) (string, bool) {
	b := p.Bind
	if !b.filled {
		return p.Address, true
	}
	w := s.wrappers[p.Wrapper]
	if w == nil || !st.Exists {
		return "", false
	}
	i := slices.IndexFunc(w.entries, func(e *entry) bool { return e.bind == b })
	if i < 0 {
		return "", false
	}
	e := w.entries[i]
	var caps captures
	var f finding
	if !b.named(st.Register, &caps, &f) {
		return "", false
	}
	for _, c := range b.fields {
		v, _ := st.Value.Member(c.field)
		text, err := captureText(v)
		if err != nil || text == "" {
			return "", false
		}
		caps[c.slot] = text
	}
	return e.render(&caps)
}

// render makes the address of captures. False: they don't fit, or another bind or a hole has it.
func (e *entry) render(caps *captures) (string, bool) {
	for _, c := range e.checks {
		if !c.matches(caps[e.slots[c.index]]) {
			return "", false
		}
	}
	address, ok := e.template.appendTo(nil, func(i int) string { return caps[e.slots[i]] })
	if !ok || len(address) > maxAddress {
		return "", false
	}
	if address, ok = e.canonical(address); !ok {
		return "", false
	}
	var f finding
	if e.wrapper.lookup(string(address), &f) != e.head {
		return "", false
	}
	return string(address), true
}
