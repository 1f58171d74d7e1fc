package mapping

import (
	"fmt"
	"slices"
	"strings"
)

// Shared tells whether other binds have the same addresses, each its own part of the document there.
func (b *Bind) Shared() bool { return b.shared }

// share lets a bind have the addresses of an earlier one, where they are of different registers and no part of the
// document is written by both.
func (l *loader) share(b *Bind, a, o *leaf) {
	fail := func(why string) {
		first := o.entry.bind
		l.Error("MAP100", b.rng, "one address, two binds", fmt.Sprintf("%q at %s has the same addresses, and %s. Give one of them `match`, or make them one bind.", first.address, first.source, why))
	}
	for i := range a.template.params {
		if a.template.params[i].key != o.template.params[i].key {
			fail("the parameters of its query stand in another order")
			return
		}
	}
	head := o.entry.head
	for e := range head.each {
		other := e.bind
		if other.broken || b.broken {
			continue
		}
		oneWay := b.direction == "in" && other.direction == "out" || b.direction == "out" && other.direction == "in"
		if !oneWay && relate(&leaf{template: b.register}, &leaf{template: other.register}) != disjoint {
			fail(fmt.Sprintf("some of the same registers, %q", other.register.text))
			return
		}
		if b.each != nil && other.each != nil {
			fail("both have each")
			return
		}
		if !b.Outward() || !other.Outward() {
			continue
		}
		if b.codec != other.codec || b.codec.traits().holds == oneValue || b.form != nil {
			fail("the payload is not made of members that both can have a part of")
			return
		}
		if part, both := overlappingPart(b.parts(), other.parts()); both {
			what := "the whole document"
			if len(part) > 0 {
				what = strings.Join(part, ".")
			}
			fail(fmt.Sprintf("both write %s", what))
			return
		}
	}
	head.sharers = append(head.sharers, a.entry)
	a.entry.head = head
	b.shared, head.bind.shared = true, true
}

// parts are the places in a document that a bind writes; an empty one is all of it.
func (b *Bind) parts() [][]string {
	var out [][]string
	if b.each != nil {
		return [][]string{b.each.path}
	}
	if b.identity {
		if b.decl == nil || !b.decl.closed {
			return [][]string{nil}
		}
		for _, n := range b.decl.names() {
			out = append(out, []string{n})
		}
	}
	for i := range b.mapped {
		if b.mapped[i].exists {
			return [][]string{nil} // whether it is there is of the whole document
		}
		out = append(out, b.mapped[i].path)
	}
	for i := range b.marks {
		out = append(out, []string{b.marks[i].name})
	}
	for _, list := range [][]oneWay{b.outs, b.create} {
		for i := range list {
			if list[i].name == "" {
				return [][]string{nil}
			}
			out = append(out, []string{list[i].name})
		}
	}
	return out
}

func overlappingPart(a, b [][]string) ([]string, bool) {
	for _, x := range a {
		for _, y := range b {
			if n := min(len(x), len(y)); slices.Equal(x[:n], y[:n]) {
				return x, true
			}
		}
	}
	return nil, false
}
