package engine

import (
	"log/slog"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

var quiet = slog.New(slog.DiscardHandler)

func TestSmoke(t *testing.T) {
	e, err := Open(Options{Dir: "d", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	r, err := e.WriteState(t.Context(), Write{Ops: []Op{{Register: "a/b", Kind: OpPut, Field: "value", Value: lattice.Int(3)}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Log(r)
	for d, err := range e.Observe(t.Context(), Filter{}, Cursor{}) {
		t.Log(d, err)
		break
	}
	for d, err := range e.History(t.Context(), HistoryQuery{Register: "a/b"}) {
		t.Log(d, err)
	}
	for d, err := range e.List(t.Context(), "", "", 0) {
		t.Log(d, err)
	}
	st, err := e.Status(t.Context())
	t.Log(st, err)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}
