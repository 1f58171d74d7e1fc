package lattice

import (
	"bytes"
	"testing"
)

// seeds are candidates and registers with something of everything.
func seeds(t failer) (candidates []*sent, registers []*Register) {
	nodes := newNodes(3)
	decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"tags": {Kind: Union}, "n": {Kind: Sum}}, DeleteWins: true}}
	edit := func(n *node, d *Decl, edits ...Edit) {
		for i := range edits {
			edits[i].Register = "a"
		}
		s, err := n.edit(t, d, hr, noon, edits...)
		if err != nil {
			t.Fatal(err)
		}
		if s != nil {
			candidates = append(candidates, s)
		}
		for name := range n.regs {
			registers = append(registers, n.regs[name])
		}
	}
	edit(nodes[0], decl, Edit{Kind: EditPut, Field: "tags", Value: Set(Int(1), String("b"))}, Edit{Kind: EditAdd, Field: "n", Value: Int(3)}, Edit{Kind: EditPut, Field: "x", Value: Object(Member{"k", List(Null(), Bytes([]byte{1}))})})
	edit(nodes[1], decl, Edit{Kind: EditPut, Field: "tags", Value: Set(Bool(true))})
	nodes[1].join(nodes[0], nil)
	edit(nodes[1], decl, Edit{Kind: EditPut, Field: "tags", Value: Set(Int(1))}, Edit{Kind: EditRemove, Field: "x"})
	edit(nodes[1], decl, Edit{Kind: EditDelete})
	edit(nodes[2], nil, Edit{Kind: EditPut, Value: String("one")})
	unit := &Decl{Unit: UnitPrefix + "g"}
	edit(nodes[2], unit, Edit{Kind: EditPut, Field: "x", Value: Int(1)})
	write := func(n *node, held []string, ops ...Op) {
		for i := range ops {
			ops[i].Register = "a"
		}
		candidates = append(candidates, n.write(t, ops, held, Cause{Principal: "ann", Verified: true, Source: "a.hcl:1"}, noon))
		registers = append(registers, n.regs["a"])
	}
	write(nodes[2], []string{"a"}, Op{Kind: Put, Field: "x", Value: Int(1)}, Op{Kind: Put, Field: Existence})
	write(nodes[2], nil, Op{Kind: Collapse, Field: Marker, Seen: nodes[2].core.Vector()})
	write(nodes[2], []string{"a"}, Op{Kind: 77, Field: "x", Value: Int(1)})
	write(nodes[2], nil, Op{Kind: Put, Field: "y", Value: Int(1)})
	nodes[2].join(nodes[1], nil)
	return candidates, append(registers, nodes[2].regs["a"], nil)
}

func FuzzParseCandidate(f *testing.F) {
	candidates, registers := seeds(f)
	for _, s := range candidates {
		f.Add(s.raw)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCandidate(data)
		if err != nil {
			return
		}
		if got := c.AppendCBOR(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		// Whatever it says, what comes of it can be read, stored and settled.
		for _, g := range registers {
			for name, a := range c.Each {
				after := g.Apply(a)
				for _, rule := range everyRule() {
					look(after, rule, &Eye{})
				}
				stored(t, after)
				stored(t, after.Settle())
				RetiredOrigin(name, a)
			}
		}
	})
}

// stored checks that a register is read as it was written.
func stored(t *testing.T, g *Register) {
	t.Helper()
	data := g.AppendCBOR(nil)
	again, err := ParseRegister(data)
	if err != nil {
		t.Fatalf("%v: of %x", err, data)
	}
	if got := again.AppendCBOR(nil); !bytes.Equal(got, data) {
		t.Fatalf("%x became %x", data, got)
	}
}

func FuzzParseRegister(f *testing.F) {
	candidates, registers := seeds(f)
	for _, g := range registers {
		f.Add(g.AppendCBOR(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseRegister(data)
		if err != nil {
			return
		}
		if got := g.AppendCBOR(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		for _, rule := range everyRule() {
			look(g, rule, &Eye{})
			look(g, rule, &Eye{Missing: func(v Value) bool { return v.Kind() == IntKind }})
			decl := &Decl{Declaration: Declaration{Value: rule, Fields: map[string]Rule{"x": rule}}}
			for _, kind := range []EditKind{EditPut, EditRemove, EditOnly, EditDelete, EditAdd, EditRestore} {
				var d Draft
				var room []Dot
				edits := []Edit{{Register: "a", Kind: kind, Field: "x", Value: Int(1)}}
				d.Begin("a", g, decl, &Writer{}, edits, &room)
				if d.Apply(&edits[0]) == nil && d.Finish() {
					g.Apply(Arrival{Dot: Dot{OriginID{9}, 9}, Ops: d.Ops})
				}
			}
		}
		for _, name := range g.Members() {
			look(g.Member(name), Rule{}, &Eye{})
		}
		for _, s := range candidates {
			for _, a := range s.q.Each {
				stored(t, g.Apply(a))
			}
		}
		stored(t, g.Settle())
		var ctx Context
		for _, field := range g.Fields {
			for _, e := range field.Entries {
				ctx.Vector = ctx.Vector.With(e.Dot)
			}
		}
		for _, w := range g.Waiting {
			ctx.Vector = ctx.Vector.With(w.Dot)
		}
		if got, want := dump(g.Join(g, &ctx, &ctx).Settle()), dump(g.Settle()); got != want {
			t.Fatalf("joined with itself: got\n%swant\n%s", got, want)
		}
		for _, h := range registers {
			stored(t, g.Join(h, &ctx, &Context{}))
		}
	})
}

// The names of items and of members of groups are made of text, bytes and marks: each stands for itself alone.
func FuzzFieldNames(f *testing.F) {
	f.Add("x", "y", int64(252), []byte{0xfc, 0xff})
	f.Add("", "", int64(0), []byte(nil))
	f.Add("a/b", "\xff", int64(-1), []byte("\xfb"))
	f.Fuzz(func(t *testing.T, field, member string, n int64, b []byte) {
		if String(field).Validate() != nil || String(member).Validate() != nil {
			return
		}
		names := []string{field, Existence, memberField(member, field), memberField(member, memberExists)}
		for _, item := range []Value{Int(n), Bytes(b), String(member), Bool(true)} {
			name := ItemField(field, item)
			if base, is := BaseField(name); !is || base != field {
				t.Fatalf("an item of %q is of %q", field, base)
			}
			names = append(names, name)
		}
		if base, item := BaseField(field); item || base != field {
			t.Fatalf("field %q is an item of %q", field, base)
		}
		for _, name := range names {
			data := appendFieldName(nil, name)
			r := NewReader(data)
			if got := readFieldName(r); r.End() != nil || got != name {
				t.Fatalf("%q became %q: %v", name, got, r.End())
			}
		}
		for _, mark := range []string{Existence, Deletion, Marker} {
			if field == mark {
				t.Fatalf("a field is named %q", mark)
			}
		}
	})
}
