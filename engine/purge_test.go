package engine_test

import (
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

func confirm(t *testing.T, from, to *engine.Engine) {
	t.Helper()
	s, err := from.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := to.Heard(t.Context(), engine.Member{Endpoint: s.Endpoint, Vector: s.Vector, Heard: s.Heard}); err != nil {
		t.Fatal(err)
	}
}

func members(t *testing.T, engines ...*engine.Engine) {
	t.Helper()
	var ids []engine.EndpointID
	for _, e := range engines {
		ids = append(ids, status(t, e).Endpoint)
	}
	for _, e := range engines {
		if err := e.SetMembers(t.Context(), ids...); err != nil {
			t.Fatal(err)
		}
	}
}

// A member that confirms a delete may have written before it heard of it, and that is still on its way.
func TestPurgeWaitsForWhatIsOnItsWay(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	members(t, a, b)
	write(t, a, enginetest.Put("doc", "a", lattice.Int(1)), enginetest.Put("doc", "b", lattice.Int(1)))
	give(t, a, b)
	write(t, b, engine.Op{Register: "doc", Kind: engine.OpDelete})
	write(t, a, enginetest.Put("doc", "a", lattice.Int(2)))
	give(t, b, a)
	confirm(t, a, b)
	c.after(24 * time.Hour)
	if err := b.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	give(t, b, a)
	for _, e := range []*engine.Engine{a, b} {
		if got, want := value(t, e, "doc"), `{"a":2,"b":1}`; got != want {
			t.Errorf("got %s, want the whole record %s", got, want)
		}
	}
	same(t, a, b)
}

// What members confirmed before this start may have been said to another state of the data.
func TestRetireAsksAnew(t *testing.T) {
	c := newClock()
	fs := vfs.NewCrashableMem()
	a, b := open(t, passive(fs, c)), open(t, passive(vfs.NewMem(), c))
	members(t, a, b)
	write(t, a, enginetest.Put("x", "n", lattice.Int(1)))
	give(t, a, b)
	confirm(t, b, a)
	if err := a.KeepRecords(t.Context(), true, engine.Record{Table: "t", Key: "k", Value: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	old := fs.CrashClone(vfs.CrashCloneCfg{})
	write(t, a, enginetest.Put("x", "n", lattice.Int(2)))
	give(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, passive(old, c)) // an image of the disk, from before the second write
	write(t, a, enginetest.Put("y", "n", lattice.Int(1)))
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	give(t, b, a)
	if got := findings(t, a); !slices.Equal(got, []string{"restored"}) {
		t.Errorf("findings at the one that was set back: %v", got)
	}
	if got := findings(t, b); len(got) != 0 {
		t.Errorf("findings at the other node: %v", got)
	}
	same(t, a, b)
	if got := value(t, a, "x"); got != `{"n":2}` {
		t.Errorf("got %s back, want what the other node had", got)
	}
}

// A backup whose last run has been retired meanwhile, by one that the backup does not know of.
func TestRetiredPastStaysRetired(t *testing.T) {
	c := newClock()
	fs := vfs.NewCrashableMem()
	a, b := open(t, passive(fs, c)), open(t, passive(vfs.NewMem(), c))
	members(t, a, b)
	write(t, a, enginetest.Put("x", "n", lattice.Int(1)))
	give(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	old := fs.CrashClone(vfs.CrashCloneCfg{})
	a = open(t, passive(fs, c))
	write(t, a, enginetest.Put("x", "n", lattice.Int(2)))
	give(t, a, b)
	confirm(t, b, a)
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	a = open(t, passive(old, c))
	give(t, b, a)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		a = open(t, passive(old, c))
		sa, err := a.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sb, err := b.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !sa.Vector.Equal(sb.Vector) {
			t.Errorf("vectors %v and %v", sa.Vector, sb.Vector)
		}
		write(t, a, enginetest.Put("y", "n", lattice.Int(3)))
		give(t, a, b)
		same(t, a, b)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Of two deletes the older one has been confirmed, and the register was made anew between them.
func TestPurgeWaitsForEachDelete(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	members(t, a, b)
	whole := []engine.Op{enginetest.Put("doc", "a", lattice.Int(1)), enginetest.Put("doc", "b", lattice.Int(1))}
	write(t, a, whole...)
	write(t, a, engine.Op{Register: "doc", Kind: engine.OpDelete})
	give(t, a, b)
	write(t, a, whole...)
	give(t, a, b)
	confirm(t, b, a)
	write(t, a, engine.Op{Register: "doc", Kind: engine.OpDelete})
	c.after(24 * time.Hour)
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	write(t, b, enginetest.Put("doc", "a", lattice.Int(2)))
	give(t, a, b)
	give(t, b, a)
	for _, e := range []*engine.Engine{a, b} {
		if got, want := value(t, e, "doc"), `{"a":2,"b":1}`; got != want {
			t.Errorf("got %s, want the whole record %s", got, want)
		}
	}
	same(t, a, b)
}
