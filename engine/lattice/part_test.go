package lattice

import (
	"slices"
	"testing"
	"time"
)

// A write that need not wait takes what waits on its register along, also where it is a group.
func TestPart(t *testing.T) {
	for name, unit := range map[string]string{"register": "", "group": UnitPrefix + "g"} {
		t.Run(name, func(t *testing.T) {
			a, b := newNode(0), newNode(1)
			register := "a"
			if unit != "" {
				register = unit
			}
			waiting, plain := &Decl{Unit: unit}, &Decl{Unit: unit}
			waiting.Commit.Window = time.Second
			for i, decl := range []*Decl{waiting, waiting, plain, plain} {
				// The members of a group sort in front of a marker, and its existence behind it.
				s, err := a.edit(t, decl, nobody, noon, put(Int(int64(i))))
				if err != nil || s == nil {
					t.Fatalf("write %d: got %v, %v", i, s, err)
				}
				if !slices.IsSortedFunc(s.q.Ops, func(x, y Op) int { return slices.Compare([]byte(x.Field), []byte(y.Field)) }) {
					t.Errorf("write %d: its operations are not in order: %+v", i, s.q.Ops)
				}
				markers := 0
				for _, op := range s.q.Ops {
					if op.Kind == Collapse {
						markers++
					}
				}
				if want := map[int]int{2: 1}[i]; markers != want {
					t.Errorf("write %d: got %d markers, want %d", i, markers, want)
				}
				b.hear(t, s)
				for j, n := range []*node{a, b} {
					if got, want := n.regs[register].Pending(), []int{1, 2, 0, 0}[i]; got != want {
						t.Errorf("write %d, node %d: %d wait, want %d", i, j, got, want)
					}
				}
			}
			g := b.regs[register]
			if unit != "" {
				g = g.Member("a")
			}
			if v, _ := g.View(nil, &Eye{}).Value.Member("x"); !v.Equal(Int(3)) {
				t.Errorf("got %s, want the last", v)
			}
		})
	}
	p := Part{Draft: new(Draft)}
	var room []Dot
	edits := []Edit{{Register: "a", Kind: EditDelete}}
	p.Draft.Begin("a", nil, nil, &Writer{}, edits, &room)
	if err := p.Apply(&edits[0]); err != nil {
		t.Fatal(err)
	}
	if ops, waits := p.Finish(); len(ops) != 0 || waits {
		t.Errorf("a delete of nothing: got %+v, %v", ops, waits)
	}
}
