package lattice

import (
	"slices"
	"strings"
)

// The registers of a QGroup live in one, the unit, in which each field of a member stands under the member's name. Every
// write of a member writes the whole group anew, and the unit's existence has one entry for each such write that nobody
// who saw it has replaced. The latest of them is the group, whole: nothing of another is shown beside it.

const memberMark = "\xfc"

// UnitPrefix begins the names of units.
const UnitPrefix = "_group/"

func memberField(member, field string) string { return member + memberMark + field }

// winner is the write of the group that stands.
func (g *Register) winner() *Entry {
	b := bundle{plain: g.Entries(Existence)}
	e, _ := b.pick(later)
	return e
}

// Members are the names of a unit's registers that exist, in order.
func (g *Register) Members() []string {
	if g == nil {
		return nil
	}
	w := g.winner()
	var out []string
	for i := range g.Fields {
		member, _, ok := strings.Cut(g.Fields[i].Name, memberMark)
		if !ok || len(out) > 0 && out[len(out)-1] == member {
			continue
		}
		if w != nil && slices.ContainsFunc(g.Fields[i].Entries, func(e Entry) bool { return e.Dot == w.Dot }) {
			out = append(out, member)
		}
	}
	return out
}

// Member is one register of a unit, as a register of its own: of the write that stands, and of no other.
func (g *Register) Member(name string) *Register {
	out := &Register{}
	if g == nil {
		return out
	}
	w := g.winner()
	if w == nil {
		return out
	}
	prefix := memberField(name, "")
	low, _ := g.find(prefix)
	for i := low; i < len(g.Fields); i++ {
		field, ok := strings.CutPrefix(g.Fields[i].Name, prefix)
		if !ok {
			break
		}
		for _, e := range g.Fields[i].Entries {
			if e.Dot == w.Dot {
				if field == memberExists {
					field, e.Value = Existence, Value{}
				}
				out.Fields = append(out.Fields, Field{field, []Entry{e}})
			}
		}
	}
	return out
}

// A member's existence can't stand under its own name, which items have.
const memberExists = "\xfb"

func insideUnit(field string, v Value) (string, Value) {
	if field == Existence {
		return memberExists, Bool(true)
	}
	return field, v
}
