package mapping

import (
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// partial tells whether a document may hold more than what the type names.
func (t *typ) partial() bool {
	return t != nil && (t.kind == objectType || t.kind == listType && t.item.partial())
}

// keep adds to a value that is about to be written what the document has there beside what the type names: members of
// typed objects, and of the objects in typed lists. Of a list, items belong together that say the same, and in lists of
// one length those in one place.
func (t *typ) keep(v, old engine.Value, from flavour) engine.Value {
	switch {
	case t.kind == objectType && isObject(v) && isObject(old):
		out := make([]lattice.Member, 0, v.Len()+old.Len())
		for _, m := range old.Members() {
			if t.members[m.Name] == nil {
				out = append(out, m)
			}
		}
		for _, m := range v.Members() {
			if mt := t.members[m.Name]; mt != nil {
				before, _ := old.Member(m.Name)
				if m.Value = mt.keep(m.Value, before, from); from.document() {
					m.Value = withText(before, m.Value)
				}
			}
			out = append(out, m)
		}
		return lattice.Object(out...)
	case t.kind == listType && t.item.partial() && v.Kind() == lattice.ListKind:
		return t.keepItems(v, old, from)
	}
	return v
}

func (t *typ) keepItems(v, old engine.Value, from flavour) engine.Value {
	before := old.Items()
	if isObject(old) && from.document() {
		before = []engine.Value{old} // one element of what may be several
	}
	if len(before) == 0 {
		return v
	}
	said := make([]engine.Value, len(before)) // as the type reads it
	places := map[string][]int{}
	for i, b := range before {
		dropped := 0
		c, err := t.item.convert(b, from, &dropped)
		if err != nil {
			continue
		}
		said[i] = c
		if dropped > 0 {
			key := c.String()
			places[key] = append(places[key], i)
		}
	}
	if len(places) == 0 && v.Len() != len(before) {
		return v
	}
	items := v.Items()
	out := make([]engine.Value, len(items))
	taken := make([]bool, len(before))
	for i, item := range items {
		if i < len(before) && said[i].Equal(item) {
			out[i], taken[i] = t.item.keep(item, before[i], from), true
		}
	}
	for i, item := range items {
		if !out[i].IsAbsent() {
			continue
		}
		key := item.String()
		for q := places[key]; len(q) > 0 && out[i].IsAbsent(); q = q[1:] {
			places[key] = q[1:]
			if !taken[q[0]] {
				out[i], taken[q[0]] = t.item.keep(item, before[q[0]], from), true
			}
		}
	}
	for i, item := range items {
		if !out[i].IsAbsent() {
			continue
		}
		if out[i] = item; len(items) == len(before) && !taken[i] {
			out[i] = t.item.keep(item, before[i], from)
		}
	}
	return lattice.List(out...)
}

// over is keep for a member that stands in a document under the field's own name: there a text that says the same keeps its
// spelling, too.
func (t *typ) over(was, v engine.Value, from flavour) engine.Value {
	v = t.keep(v, was, from)
	if from.document() {
		v = withText(was, v)
	}
	return v
}
