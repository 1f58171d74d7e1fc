package engine_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A node that has not heard of a group yet writes its registers one by one. Nodes agree all the same.
func TestGroupDeclaredLate(t *testing.T) {
	c := newClock()
	group := engine.Declaration{Template: "g/{n}", Pattern: "g/.*", Prefix: "g/", Group: "one"}
	for _, first := range []bool{false, true} {
		a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
		if err := b.Declare(t.Context(), []engine.Declaration{group}); err != nil {
			t.Fatal(err)
		}
		write(t, b, enginetest.Put("g/1", "x", lattice.Int(1)))
		write(t, a, enginetest.Put("g/1", "x", lattice.Int(2)))
		write(t, a, enginetest.Put("g/2", "x", lattice.Int(2)))
		if first {
			give(t, a, b)
			give(t, b, a)
		} else {
			give(t, b, a)
			give(t, a, b)
		}
		write(t, a, enginetest.Put("g/2", "x", lattice.Int(3)))
		give(t, a, b)
		for _, e := range []*engine.Engine{a, b} {
			if err := e.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		give(t, a, b)
		give(t, b, a)
		same(t, a, b)
		for _, name := range []string{"g/1", "g/2"} {
			if va, vb := value(t, a, name), value(t, b, name); va != vb {
				t.Errorf("%s is %s and %s", name, va, vb)
			}
		}
		late := open(t, passive(vfs.NewMem(), c))
		give(t, a, late)
		same(t, a, late)
	}
}
