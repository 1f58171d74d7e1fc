package lattice

import "testing"

// What Restore writes over any other state is the state it was given.
func TestRestore(t *testing.T) {
	object := func(fields ...string) Value {
		var members []Member
		for i, f := range fields {
			members = append(members, Member{Name: f, Value: Int(int64(i))})
		}
		return Object(members...)
	}
	decl := &Decl{Declaration: Declaration{Value: Rule{Kind: Max}, Fields: map[string]Rule{"x": {Kind: Max}, "y": {Kind: Sum}}}}
	states := []Value{{}, object(), object("x"), object("y", "x"), object("x", "y", "z"), Int(3), Int(2), String("a")}
	for _, from := range states {
		for _, to := range states {
			n := newNode(0)
			for _, v := range []Value{to, from, to} {
				// One value and fields never stand beside each other: what is of the other kind goes first.
				if now := n.regs["a"].View(decl, &Eye{}).Value; (now.Kind() == ObjectKind) != (v.Kind() == ObjectKind) {
					n.edit(t, decl, nobody, noon, Restore("a", Value{})...)
				}
				if _, err := n.edit(t, decl, nobody, noon, Restore("a", v)...); err != nil {
					t.Fatalf("from %s to %s: %v", from, to, err)
				}
				if got := n.regs["a"].View(decl, &Eye{}).Value; !got.Equal(v) {
					t.Fatalf("from %s to %s: got %s, want %s", from, to, got, v)
				}
			}
		}
	}
}

// What a delete has hidden goes, and a delete's mark with it.
func TestPurge(t *testing.T) {
	for _, wins := range []bool{false, true} {
		decl := &Decl{Declaration: Declaration{DeleteWins: wins}}
		a, b := newNode(0), newNode(1)
		write := func(n, other *node, e Edit) {
			t.Helper()
			s, err := n.edit(t, decl, nobody, noon, e)
			if err != nil || s == nil {
				t.Fatalf("got %v, %v", s, err)
			}
			other.hear(t, s)
		}
		write(a, b, put(Int(1)))
		unseen := put(Int(2))
		unseen.Field = "y"
		late, err := b.edit(t, decl, nobody, noon, unseen)
		if err != nil {
			t.Fatal(err)
		}
		write(a, b, Edit{Register: "a", Kind: EditDelete})
		if wins {
			a.hear(t, late) // it did not know of the delete
		}
		g := a.regs["a"]
		if g.Exists(decl) || len(g.Entries("x")) == 0 || wins && len(g.Entries(Existence)) == 0 {
			t.Fatalf("delete wins: %v: nothing is hidden:\n%s", wins, dump(g))
		}
		a.write(t, g.Purge("a"), nil, Cause{}, noon)
		if g = a.regs["a"]; !g.Empty() {
			t.Errorf("delete wins: %v: left\n%s", wins, dump(g))
		}
	}
	if ops := (*Register)(nil).Purge("a"); ops != nil {
		t.Errorf("of what was never written: got %v", ops)
	}
}
