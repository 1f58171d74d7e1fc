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

// A GroupDraft turns edits of members into a write of their whole group.
type GroupDraft struct {
	Unit    string
	base    *Register
	members map[string]map[string]Value // by member and field; Existence is among them
	changed bool
}

// BeginGroup begins with the group as it stands. A writer of a member is taken to have seen the whole group as it is here.
func BeginGroup(unit string, base *Register) *GroupDraft {
	d := &GroupDraft{Unit: unit, base: base, members: map[string]map[string]Value{}}
	for _, name := range base.Members() {
		fields := map[string]Value{}
		for _, f := range base.Member(name).Fields {
			fields[f.Name] = f.Entries[0].Value
		}
		d.members[name] = fields
	}
	return d
}

// Apply notes one edit of a member.
func (d *GroupDraft) Apply(e *Edit) error {
	fields, exists := d.members[e.Register]
	touch := func() {
		if !exists {
			fields = map[string]Value{Existence: {}}
			d.members[e.Register] = fields
		}
		d.changed = true
	}
	switch e.Kind {
	case EditAdd:
		return refuse("register %q: only a sum or a union can be added to, and the registers of a group collapse as one", e.Register)
	case EditPut, EditRestore:
		for f := range fields {
			if f != Existence && (f == "") != (e.Field == "") {
				return refuse("register %q: a value without a field can't stand beside fields", e.Register)
			}
		}
		touch()
		fields[e.Field] = e.Value
	case EditRemove:
		if _, ok := fields[e.Field]; ok {
			touch()
			delete(fields, e.Field)
		}
	case EditOnly:
		touch()
		for f := range fields {
			if f != Existence && !slices.Contains(e.Fields, f) {
				delete(fields, f)
			}
		}
	case EditDelete:
		if exists {
			d.changed = true
			delete(d.members, e.Register)
		}
	}
	return nil
}

// Finish gives the operations on the unit: all that is there is written anew, and what was seen goes.
func (d *GroupDraft) Finish() []Op {
	if !d.changed {
		return nil
	}
	ops := map[string]*Op{}
	if d.base != nil {
		for i := range d.base.Fields {
			f := &d.base.Fields[i]
			op := &Op{Register: d.Unit, Kind: Remove, Field: f.Name}
			for j := range f.Entries {
				op.Seen = append(op.Seen, f.Entries[j].Dot)
			}
			ops[f.Name] = op
		}
	}
	put := func(name string, v Value) {
		if ops[name] == nil {
			ops[name] = &Op{Register: d.Unit, Field: name}
		}
		ops[name].Kind, ops[name].Value = Put, v
	}
	if len(d.members) > 0 {
		put(Existence, Value{})
	}
	for member, fields := range d.members {
		for field, v := range fields {
			field, v := insideUnit(field, v)
			put(memberField(member, field), v)
		}
	}
	out := make([]Op, 0, len(ops))
	for _, op := range ops {
		out = append(out, *op)
	}
	slices.SortFunc(out, func(a, b Op) int { return strings.Compare(a.Field, b.Field) })
	return out
}
