package engine_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

func all(t *testing.T, e *engine.Engine) (raw [][]byte) {
	t.Helper()
	for c, err := range e.Candidates(t.Context(), nil, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, c.Raw)
	}
	return raw
}

func receive(t *testing.T, e *engine.Engine, raw ...[]byte) engine.Reception {
	t.Helper()
	r, err := e.Receive(t.Context(), raw...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// What waits for others goes on when those come as a state.
func TestHeldGoesOnAfterJoin(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	for i := range 3 {
		write(t, a, enginetest.Put("x", "n", lattice.Int(int64(i))))
	}
	raw := all(t, a)
	if r := receive(t, b, raw[2]); r.Held != 1 {
		t.Fatalf("got %+v, want one held", r)
	}
	write(t, a, enginetest.Put("x", "n", lattice.Int(3)))
	write(t, a, enginetest.Put("x", "n", lattice.Int(4)))
	raw = all(t, a)
	d := open(t, passive(vfs.NewMem(), c))
	receive(t, d, raw[:4]...)
	receive(t, b, raw[4])
	join(t, d, b) // has the first four
	if s := status(t, b); s.Held != 0 {
		t.Errorf("%d candidates wait, want none", s.Held)
	}
	same(t, a, b)
}

// What an incarnation wrote that has been retired is not sent to who has it, and is to who has not.
func TestRetiredIsNotSentAgain(t *testing.T) {
	c := newClock()
	fs := vfs.NewMem()
	a, b := open(t, passive(fs, c)), open(t, passive(vfs.NewMem(), c))
	write(t, a, enginetest.Put("x", "n", lattice.Int(1)))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, passive(fs, c))
	write(t, a, enginetest.Put("x", "n", lattice.Int(2)))
	sb, err := b.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.SetMembers(t.Context(), sb.Endpoint); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	if sb, err = b.Summary(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := a.Heard(t.Context(), engine.Member{Endpoint: sb.Endpoint, Vector: sb.Vector, Heard: sb.Heard}); err != nil {
		t.Fatal(err)
	}
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	if sb, err = b.Summary(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(sb.Vector) != 1 {
		t.Fatalf("the vector is %v, want one origin", sb.Vector)
	}
	if n := give(t, a, b); n != 0 {
		t.Errorf("%d candidates were sent to who has all", n)
	}
	late := open(t, passive(vfs.NewMem(), c))
	if n := give(t, a, late); n != 3 {
		t.Errorf("%d candidates were sent to who has nothing, want 3", n)
	}
	same(t, a, late)
	// Where they are in no log any more, who lacks them needs the state.
	c.after(100 * 24 * time.Hour)
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, err := range a.Candidates(t.Context(), sb.Vector, engine.Cursor{}) {
		if err != nil {
			t.Errorf("to who has all: %v", err)
		}
	}
}
