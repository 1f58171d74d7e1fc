package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A document of more rows than a write may have operations is one commit when it is said to be one: all of it or nothing,
// and observers see it as one batch. More of it than the memory for recent registers holds stays readable meanwhile.
func TestBulk(t *testing.T) {
	e, err := Open(Options{Dir: t.TempDir(), RecentBytes: 64 << 10, FeedBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const rows = 20_000
	w := Write{By: Cause{Protocol: "http", Wrapper: "web"}}
	for i := range rows {
		w.Ops = append(w.Ops, Op{Register: fmt.Sprintf("recipe/%05d", i), Kind: OpPut, Field: "value", Value: lattice.Int(int64(i))})
	}
	if _, err := e.WriteState(t.Context(), w); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("without Bulk: %v", err)
	}
	w.Bulk = true
	r, err := e.WriteState(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.States) != rows || len(r.Created) != rows {
		t.Fatalf("%d states, %d created", len(r.States), len(r.Created))
	}
	n := 0
	for d, err := range e.Observe(t.Context(), Filter{}, Cursor{Log: r.Cursor.Log, Ordinal: r.Cursor.Ordinal - 1}) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Cursor != r.Cursor || d.Part != n || d.Of != rows {
			t.Fatalf("delta %d: part %d of %d at %v", n, d.Part, d.Of, d.Cursor)
		}
		if n++; n == rows {
			break
		}
	}
	w.Ops[rows-1].Value = lattice.Null()
	if _, err := e.WriteState(t.Context(), w); !errors.Is(err, ErrInvalid) {
		t.Fatalf("with a mistake in its last row: %v", err)
	}
	at, err := e.Cursor(t.Context())
	if err != nil || at != r.Cursor {
		t.Fatalf("a part of a refused document is there: %v, %v", at, err)
	}
	w.Ops = append(w.Ops[:0:0], Op{Register: "another", Kind: OpPut, Field: "value", Value: lattice.Int(1)})
	if _, err := e.WriteState(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	if n := len(e.recent.cur) + len(e.recent.old); n > 10 {
		t.Errorf("%d recent registers stay in memory", n)
	}
}
