package lattice

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A plain register is what one person would write down who does one edit after another.
type plain struct {
	exists bool
	fields map[string]cell
}

type cell struct {
	value Value
	rank  int
}

func (p *plain) apply(e *Edit, decl *Decl, by By) {
	rule := decl.Rule(e.Field)
	switch e.Kind {
	case EditDelete:
		p.exists, p.fields = false, map[string]cell{}
		return
	case EditRemove:
		delete(p.fields, e.Field)
		return
	case EditOnly:
		p.exists = true
		maps.DeleteFunc(p.fields, func(f string, _ cell) bool { return !slices.Contains(e.Fields, f) })
		return
	}
	p.exists = true
	old, there := p.fields[e.Field]
	rank := rule.Rank(by)
	set := func(v Value) { p.fields[e.Field] = cell{v, rank} }
	switch {
	case rule.Kind == Sum:
		total := Int(0)
		if there {
			total = old.value
		}
		add := func(a, b Value) Value { v, _ := AddNumbers(a, b); return v }
		neg := func(a Value) Value { v, _ := MulNumbers(a, Int(-1)); return v }
		switch {
		case e.Kind == EditAdd:
			set(add(total, e.Value))
		case e.Kind == EditPut && !e.Last.IsAbsent():
			set(add(total, add(e.Value, neg(e.Last))))
		default:
			set(e.Value)
		}
	case rule.Kind == Union:
		items := itemsOf(e.Value)
		if e.Kind == EditAdd && there {
			items = append(items, itemsOf(old.value)...)
		}
		if s := Set(items...); s.Len() > 0 {
			set(s)
		} else {
			delete(p.fields, e.Field)
		}
	case e.Kind == EditRestore || !there:
		set(e.Value)
	case rule.Kind == First:
	case rule.Kind == Max:
		if Compare(e.Value, old.value) > 0 {
			set(e.Value)
		}
	case rule.Kind == Min:
		if Compare(e.Value, old.value) < 0 {
			set(e.Value)
		}
	case rule.Kind == Priority:
		if rank <= old.rank {
			set(e.Value)
		}
	default:
		set(e.Value)
	}
}

// plainOf is a register as its readers see it.
func plainOf(g *Register, decl *Decl) *plain {
	p := &plain{exists: g.Exists(decl), fields: map[string]cell{}}
	if !p.exists {
		return p
	}
	for b := range g.bundles {
		rule := decl.Rule(b.field)
		v := rule.resolve(&b, &Eye{})
		c := cell{value: v.value}
		if v.winner != nil {
			c.rank = rule.Rank(v.winner.By)
		}
		p.fields[b.field] = c
	}
	return p
}

func (p *plain) value() Value {
	if !p.exists {
		return Value{}
	}
	if c, ok := p.fields[""]; ok {
		return c.value
	}
	var members []Member
	for f, c := range p.fields {
		members = append(members, Member{f, c.value})
	}
	return Object(members...)
}

func genEdit(t *rapid.T, rule Rule, field string) Edit {
	e := Edit{Register: "a", Field: field, Value: rapid.SampledFrom([]Value{Int(0), Int(1), Int(2), Int(3)}).Draw(t, "value")}
	kinds := []EditKind{EditPut, EditPut, EditPut, EditRemove, EditDelete, EditOnly, EditRestore}
	switch rule.Kind {
	case Union:
		e.Value = Set(rapid.SliceOf(smallInts()).Draw(t, "items")...)
		kinds = append(kinds, EditAdd, EditAdd)
	case Sum:
		kinds = append(kinds, EditAdd, EditAdd)
		if rapid.IntRange(0, 3).Draw(t, "with last") == 0 {
			e.Last = Int(1)
		}
	}
	if e.Kind = rapid.SampledFrom(kinds).Draw(t, "kind"); e.Kind == EditOnly {
		e.Fields = rapid.SampledFrom([][]string{nil, {"x"}, {"y"}, {""}}).Draw(t, "fields")
	}
	return e
}

// The edits of one write follow each other: what comes of them is what comes of doing one after the other.
func TestEditsOfOneWriteFollowEachOther(t *testing.T) {
	ranks := []string{"sql/hr", "ldap/*"}
	for _, rule := range []Rule{{}, {Kind: First}, {Kind: Max}, {Kind: Min}, {Kind: Sum}, {Kind: Union}, {Kind: Priority, Ranks: ranks}, {Kind: Ask}} {
		t.Run(rule.String(), rapid.MakeCheck(func(t *rapid.T) {
			decl := &Decl{Declaration: Declaration{Value: rule, Fields: map[string]Rule{"x": rule, "y": rule}, DeleteWins: rapid.Bool().Draw(t, "delete wins")}}
			fields := rapid.SampledFrom([][]string{{""}, {"x", "y"}}).Draw(t, "fields")
			nodes := newNodes(3)
			for range rapid.IntRange(0, 12).Draw(t, "steps") {
				n := pick(t, nodes, "who")
				if rapid.IntRange(0, 3).Draw(t, "step") == 0 {
					n.join(pick(t, nodes, "whom"), nil)
					continue
				}
				e := genEdit(t, rule, rapid.SampledFrom(fields).Draw(t, "field"))
				if _, err := n.edit(t, decl, rapid.SampledFrom(writers).Draw(t, "by"), noon, e); err != nil {
					t.Fatal(err)
				}
			}
			n := nodes[0]
			for _, m := range nodes[1:] {
				n.join(m, nil)
			}
			model := plainOf(n.regs["a"], decl)
			by := rapid.SampledFrom(writers).Draw(t, "by")
			var edits []Edit
			for range rapid.IntRange(1, 4).Draw(t, "edits") {
				e := genEdit(t, rule, rapid.SampledFrom(fields).Draw(t, "field"))
				edits = append(edits, e)
				model.apply(&e, decl, by.By())
			}
			if _, err := n.edit(t, decl, by, noon, edits...); err != nil {
				t.Fatal(err)
			}
			if got, want := n.regs["a"].View(decl, &Eye{}).Value, model.value(); !got.Equal(want) {
				t.Fatalf("got %s, want %s", got, want)
			}
		}))
	}
}

// A register is one value or has fields, never both by one who sees it.
func TestOneValueOrFields(t *testing.T) {
	n := newNode(0)
	for _, test := range []struct {
		edits []Edit
		want  string // "": refused
	}{
		{[]Edit{{Kind: EditPut, Field: "x", Value: Int(1)}}, `{"x":1}`},
		{[]Edit{{Kind: EditPut, Value: Int(2)}}, ""},
		{[]Edit{{Kind: EditRemove, Field: "x"}, {Kind: EditPut, Value: Int(2)}}, "2"},
		{[]Edit{{Kind: EditPut, Field: "x", Value: Int(1)}}, ""},
		{[]Edit{{Kind: EditDelete}, {Kind: EditPut, Field: "x", Value: Int(3)}}, `{"x":3}`},
		{[]Edit{{Kind: EditOnly}, {Kind: EditPut, Value: Int(4)}}, "4"},
		{[]Edit{{Kind: EditAdd, Value: Int(4)}}, ""},
	} {
		before := n.regs["a"]
		for i := range test.edits {
			test.edits[i].Register = "a"
		}
		_, err := n.edit(t, nil, nobody, noon, test.edits...)
		if test.want == "" {
			if !errors.Is(err, ErrInvalid) || n.regs["a"] != before {
				t.Errorf("%+v: got %v, want ErrInvalid and nothing written", test.edits, err)
			}
			continue
		}
		if got := n.regs["a"].View(nil, &Eye{}).Value.String(); err != nil || got != test.want {
			t.Errorf("%+v: got %s, %v, want %s", test.edits, got, err, test.want)
		}
	}
}

// A write with a base does to a field what it would have done on a node that stood still at that base.
func TestBaseIsWhatTheWriterHadSeen(t *testing.T) {
	for _, rule := range []Rule{{}, {Kind: First}, {Kind: Max}, {Kind: Min}, {Kind: Ask}, {Kind: Union}, {Kind: Priority, Ranks: []string{"sql/hr"}}} {
		t.Run(rule.String(), rapid.MakeCheck(func(t *rapid.T) {
			decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": rule, "y": rule}}}
			nodes := newNodes(3)
			edit := func(n *node) {
				e := genEdit(t, rule, rapid.SampledFrom([]string{"x", "y"}).Draw(t, "field"))
				if e.Kind == EditDelete || e.Kind == EditOnly {
					e.Kind = EditPut
				}
				if _, err := n.edit(t, decl, rapid.SampledFrom(writers).Draw(t, "by"), noon, e); err != nil {
					t.Fatal(err)
				}
			}
			steps := func() {
				for range rapid.IntRange(0, 8).Draw(t, "steps") {
					n := pick(t, nodes, "who")
					if rapid.IntRange(0, 3).Draw(t, "step") == 0 {
						n.join(pick(t, nodes, "whom"), nil)
					} else {
						edit(n)
					}
				}
			}
			steps()
			edit(nodes[0])
			n := nodes[0]
			then := n.copied()
			if !then.regs["a"].Exists(decl) {
				return
			}
			seen := then.regs["a"].View(decl, &Eye{}).Dots
			steps()

			e := genEdit(t, rule, "x")
			if e.Kind == EditDelete {
				e.Kind = EditRemove
			}
			if rule.Kind == Union && (e.Kind == EditAdd || e.Kind == EditRestore) {
				e.Kind = EditPut // those add what was removed since
			}
			based := e
			based.Base = true
			if e.Kind == EditOnly {
				based.SeenFields = seen
			}
			if rule.Kind == Union {
				based.Last = then.x(decl)
			}
			for _, f := range seen {
				if f.Field == "x" && e.Kind != EditOnly {
					based.Seen = f.Dots
				}
			}
			before := n.regs["a"]
			// What was removed since has no value here any more that the new one could be held against.
			gone := slices.ContainsFunc(based.Seen, func(d Dot) bool {
				b := before.bundle("x")
				return !slices.Contains(b.dots(nil), d)
			})
			if gone && (rule.Kind == First || rule.Kind == Max || rule.Kind == Min) {
				return
			}
			by := rapid.SampledFrom(writers).Draw(t, "who")
			got, err := n.edit(t, decl, by, noon, based)
			if err != nil {
				t.Fatal(err)
			}
			still, err := then.edit(t, decl, by, noon, e)
			if err != nil {
				t.Fatal(err)
			}
			after := before
			if still != nil {
				a := Arrival{By: by.By(), Ops: still.q.Ops}
				if got != nil {
					a.Dot, a.Time = got.q.Dot, got.q.Time
				} else {
					a.Ops = nil
					for _, op := range still.q.Ops {
						if op.Kind == Remove {
							a.Ops = append(a.Ops, op)
						}
					}
				}
				after = before.Apply(a)
			}
			fields := func(g *Register) string {
				g = &Register{Fields: slices.DeleteFunc(slices.Clone(g.Fields), func(f Field) bool { return f.Name == Existence })}
				return dump(g)
			}
			if got, want := fields(n.regs["a"]), fields(after); got != want {
				t.Fatalf("%+v: got\n%swant\n%s", based, got, want)
			}
		}))
	}
}

// Writers with bases of their own, who never see each other, don't let a register grow for ever.
func TestExistenceIsBounded(t *testing.T) {
	n := newNode(0)
	for i := range 500 {
		e := Edit{Register: "a", Kind: EditPut, Field: fmt.Sprintf("f%d", i), Value: Int(1), Base: true}
		if _, err := n.edit(t, nil, nobody, noon, e); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(n.regs["a"].Entries(Existence)); got > maxEntries+1 {
		t.Errorf("got %d entries, want %d at most", got, maxEntries+1)
	}
}
