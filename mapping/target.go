package mapping

import (
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// lookup finds the most specific bind of an address. A hole cut by ignore has none.
func (w *wrapperMaps) lookup(address string, f *finding) *entry {
	if w.holes > 0 {
		path := address
		if w.tree.query {
			path, _, _ = cutQuery(address)
		}
		if w.ignores.find(path, f) {
			return nil
		}
	}
	if !w.tree.find(address, f) || w.domain != "" && w.domain != f.leaf.entry.bind.domain {
		return nil
	}
	return f.leaf.entry
}

// Maps tells whether an operation of this verb at this address concerns a register: a write where
// a bind comes in, a read where one goes either way, a list where binds have addresses below the
// prefix. It allocates nothing, but where the address holds escapes.
func (s *Set) Maps(wrapper string, verb wrappers.Verb, server, address string) bool {
	w := s.wrappers[wrapper]
	if w == nil {
		return false
	}
	if verb == wrappers.List {
		return w.below(address)
	}
	var f finding
	e := w.lookup(address, &f)
	if e == nil {
		return false
	}
	return !verb.Writes() || e.inward()
}

// inward tells whether any bind of the address comes in.
func (e *entry) inward() bool {
	if e.bind.Inward() {
		return true
	}
	return slices.ContainsFunc(e.sharers, func(s *entry) bool { return s.bind.Inward() })
}

// At gives the register that an address means. False where no bind has the address, or where it
// takes a payload to tell the register. Of several that share the address it gives the first.
func (s *Set) At(wrapper, server, address string) (Target, bool) {
	var t Target
	found := s.eachAt(wrapper, server, address, func(at Target) bool {
		t = at
		return false
	})
	return t, found
}

// DocumentAt gives the document of many registers at an address, if there is one.
func (s *Set) DocumentAt(wrapper, server, address string) (Target, bool) {
	var t Target
	s.eachAt(wrapper, server, address, func(at Target) bool {
		if at.Document != nil {
			t = at
		}
		return t.Document == nil
	})
	return t, t.Document != nil
}

// AllAt gives everything that an address means.
func (s *Set) AllAt(wrapper, server, address string) []Target {
	var out []Target
	s.eachAt(wrapper, server, address, func(at Target) bool {
		out = append(out, at)
		return true
	})
	return out
}

func (s *Set) eachAt(wrapper, server, address string, yield func(Target) bool) (found bool) {
	w := s.wrappers[wrapper]
	if w == nil {
		return false
	}
	m := messages.Get().(*message)
	defer m.release()
	head := w.lookup(address, &m.find)
	if head == nil {
		return false
	}
	m.wrapper, m.server = wrapper, server
	for e := range head.each {
		m.caps = captures{}
		if t, ok := m.target(w, e, address); ok {
			found = true
			if !yield(t) {
				break
			}
		}
	}
	return found
}

// target is what an address means by one bind.
func (m *message) target(w *wrapperMaps, e *entry, address string) (Target, bool) {
	if !e.bind.readable {
		return Target{}, false
	}
	m.at(e)
	t := Target{Bind: e.bind, Address: address}
	if e.bind.each != nil {
		if t.Document = m.documentOf(e); t.Document == nil {
			return Target{}, false
		}
	} else {
		if m.keys() != nil {
			return Target{}, false
		}
		name, err := m.register()
		if err != nil {
			return Target{}, false
		}
		t.Register = name
	}
	if b := e.bind; b.decl != nil && b.decl.fold && (w.tree.fold || !w.info.Upstream) {
		// A server that tells case apart has the document where it is.
		for _, slot := range b.regSlots {
			m.caps[slot] = b.folded(m.caps[slot])
		}
		folded, ok := "", b.inverted(&m.caps)
		if ok {
			folded, ok = e.render(&m.caps)
		}
		if !ok {
			return Target{}, false
		}
		t.Address = folded
		return t, true
	}
	if w.tree.query && strings.Contains(address, "?") {
		// The query that the bind has, in its order; another one says nothing about the place.
		path, _, _ := cutQuery(address)
		if t.Address = path; len(e.template.params) > 0 {
			rendered, ok := e.template.appendTo(nil, func(i int) string { return m.caps[e.slots[i]] })
			if ok {
				rendered, ok = e.canonical(rendered)
			}
			if !ok {
				return Target{}, false
			}
			t.Address = string(rendered)
		}
	}
	return t, true
}
