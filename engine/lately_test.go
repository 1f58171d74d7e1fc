package engine

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

// What a reader has loaded is used by the next write, and not where the register may have been written and forgotten since.
func TestLately(t *testing.T) {
	e, err := Open(Options{Dir: "data", FS: vfs.NewMem(), RecentBytes: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	put := func(register, field string, n int64) {
		t.Helper()
		w := Write{Ops: []Op{{Register: register, Kind: OpPut, Field: field, Value: lattice.Int(n)}}}
		if _, err := e.WriteState(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	forget := func() {
		for i := range int64(4) {
			put(fmt.Sprintf("other/%d", i), "v", i)
		}
	}
	read := func() StateBlock {
		t.Helper()
		st, err := e.ReadState(t.Context(), "x")
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	put("x", "a", 1)
	forget()
	read()
	loaded, ok := e.lately.of["x"]
	if !ok {
		t.Fatal("what was loaded is not kept")
	}
	put("x", "b", 2)
	if _, ok := e.lately.of["x"]; ok {
		t.Error("it is kept beyond the write that it was kept for")
	}
	forget()
	e.lately.note("x", loaded.v, loaded.flips) // as a reader does that was slow
	put("x", "c", 3)
	if got, want := read().Value.String(), `{"a":1,"b":2,"c":3}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := read().ID.Rank; n != 3 {
		t.Errorf("got rank %d, want 3", n)
	}
}
