package engine

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

func openInMemory(t *testing.T, o Options) *Engine {
	t.Helper()
	o.Dir, o.FS = "data", vfs.NewMem()
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil && !errors.Is(err, ErrClosed) {
			t.Error(err)
		}
	})
	return e
}

func put(t *testing.T, e *Engine, register string, n int) Receipt {
	t.Helper()
	r, err := e.WriteState(t.Context(), Write{Ops: []Op{{Register: register, Kind: OpPut, Field: "x", Value: lattice.Int(int64(n))}}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// An observer that stops looking costs no memory, and still misses nothing.
func TestSlowObserver(t *testing.T) {
	e := openInMemory(t, Options{FeedBytes: 64 << 10})
	from, _ := e.Cursor(t.Context())
	const n = 3000
	put(t, e, "r/0", 0) // so that there is something to be slow about
	seen := 0
	for d, err := range e.Observe(t.Context(), Filter{}, from) {
		if err != nil {
			t.Fatal(err)
		}
		if seen == 0 {
			for i := range n - 1 {
				put(t, e, fmt.Sprintf("r/%d", i%50), i)
			}
			if e.feed.bytes > 2*64<<10 {
				t.Errorf("the feed holds %d bytes", e.feed.bytes)
			}
		}
		if seen++; d.Cursor.Ordinal != uint64(seen) {
			t.Fatalf("delta %d: got ordinal %d", seen, d.Cursor.Ordinal)
		}
		if seen == n {
			break
		}
	}
}

// A snapshot is of one commit, whatever is written while it is taken.
func TestSnapshotIsOfOneCommit(t *testing.T) {
	e := openInMemory(t, Options{RecentBytes: 1})
	const n = 3 * chunk
	for i := range n {
		put(t, e, fmt.Sprintf("r/%04d", i), 0)
	}
	at, _ := e.Cursor(t.Context())
	seen, round := 0, 0
	for d, err := range e.Observe(t.Context(), Filter{Prefix: "r/"}, Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen < n {
			if v, _ := d.After.Value.Member("x"); !d.Snapshot || v.Int() != 0 || d.After.Ordinal > at.Ordinal {
				t.Fatalf("delta %d: got %+v", seen, d)
			}
			if seen++; seen%(chunk/2) == 1 { // meanwhile, ahead of it and behind it
				round++
				for _, name := range []string{"r/0000", fmt.Sprintf("r/%04d", n-1), fmt.Sprintf("r/%04d/new", n-2)} {
					put(t, e, name, round)
				}
				if _, err := e.WriteState(t.Context(), Write{Ops: []Op{{Register: fmt.Sprintf("r/%04d", n-3), Kind: OpDelete}}}); err != nil {
					t.Fatal(err)
				}
			}
			continue
		}
		// Then everything behind it, from the first.
		if d.Snapshot || d.Cursor.Ordinal != at.Ordinal+1 {
			t.Fatalf("behind the snapshot: got %+v", d)
		}
		break
	}
}

// Who waits is found by what it waits for, and leaves nothing behind.
func TestAudience(t *testing.T) {
	var a audience
	commit := func(ordinal uint64, names ...string) *commit {
		c := &commit{ordinal: ordinal}
		for _, name := range names {
			c.deltas = append(c.deltas, QDelta{After: StateBlock{Register: name}})
		}
		return c
	}
	filters := []Filter{{}, {Prefix: "a"}, {Prefix: "a/"}, {Prefix: "a/b"}, {Name: "a/b"}, {Name: "a/b", Prefix: "a"}, {Prefix: "zz"}, {Name: "a"}}
	for _, names := range [][]string{{"a/b"}, {"a"}, {"zzz", "a/b"}, {"b"}} {
		watchers := make([]*watcher, len(filters))
		for i, f := range filters {
			watchers[i] = &watcher{filter: f, ready: make(chan uint64, 1)}
			a.add(watchers[i])
		}
		c := commit(7, names...)
		a.wake(c)
		for i, w := range watchers {
			if got, want := len(w.ready) == 1, filters[i].matchesAny(c); got != want {
				t.Errorf("%v: %+v woken: %v, want %v", names, filters[i], got, want)
			}
			a.remove(w)
		}
		if len(a.names) != 0 || len(a.prefixes) != 0 || len(a.lengths) != 0 {
			t.Fatalf("left behind: %+v", a)
		}
	}
}

// Registers written lately are forgotten within the bound, unpublished ones never.
func TestRecentIsBounded(t *testing.T) {
	var r recent
	r.init(10000)
	for i := range 1000 {
		r.put(fmt.Sprint(i), &version{ordinal: uint64(i + 1), size: 100}, 500)
	}
	for i := 500; i < 1000; i++ {
		if r.newest(fmt.Sprint(i)) == nil {
			t.Fatalf("unpublished register %d is gone", i)
		}
	}
	for i := range 1000 {
		r.put("again", &version{ordinal: uint64(1001 + i), size: 100}, 2000)
		r.put(fmt.Sprint("more", i), &version{ordinal: uint64(1001 + i), size: 100}, 2000)
	}
	if n := len(r.cur) + len(r.old); n > 250 {
		t.Errorf("got %d registers", n)
	}
	if r.newest("again") == nil {
		t.Error("the busiest register is gone")
	}
}

func TestCauseIsMadeToFit(t *testing.T) {
	e := openInMemory(t, Options{})
	long := make([]byte, 5000)
	for i := range long {
		long[i] = 'a'
	}
	_, err := e.WriteState(t.Context(), Write{
		Ops: []Op{{Register: "a", Kind: OpPut, Field: "x", Value: lattice.Int(1)}},
		By:  Cause{Principal: "caf\xe9", Address: string(long)},
	})
	if err != nil {
		t.Fatal(err)
	}
	for d, err := range e.History(t.Context(), HistoryQuery{Register: "a"}) {
		if err != nil {
			t.Fatal(err)
		}
		if d.Cause.Principal != "caf�" || len(d.Cause.Address) > maxCause+3 {
			t.Errorf("got %q and an address of %d bytes", d.Cause.Principal, len(d.Cause.Address))
		}
	}
}

func FuzzParseDelta(f *testing.F) {
	d := QDelta{Of: 1, Created: true, Dot: Dot{Origin: OriginID{1}, Seq: 3}, Changed: []FieldChange{{Field: "x", After: lattice.Int(1)}}}
	d.After = StateBlock{Exists: true, Value: lattice.Object(lattice.Member{Name: "x", Value: lattice.Int(1)}), ID: StateID{Rank: 1},
		Dots: []FieldDots{{Field: "x", Dots: []Dot{d.Dot}}, {Field: Existence, Dots: []Dot{{Origin: OriginID{2}, Seq: 4}}}}}
	f.Add(appendDelta(nil, &d))
	c := commitRecord{dot: d.Dot, clock: 7, registers: 1, candidates: 2, names: []string{"a"}}
	f.Add(c.append(nil))
	reg := (*lattice.Register)(nil).Apply(lattice.Arrival{Dot: d.Dot, Time: 7, Ops: []lattice.Op{{Register: "a", Kind: lattice.Put, Field: "x", Value: lattice.Int(1)}}})
	raw, _ := appendRegister(nil, newVersion("a", 1, 1, 7, reg, 0))
	f.Add(raw)
	f.Add(appendStub(nil, 7, "_group/a"))
	f.Add(appendSnapshot(nil, &lattice.Snapshot{Context: lattice.Context{Vector: QStateVector{d.Dot}}}))
	f.Add(appendMember(nil, &Member{Vector: QStateVector{d.Dot}, Heard: 9}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := parseDelta("a", Cursor{1, 2}, data); err == nil {
			if _, err := parseDelta("a", Cursor{1, 2}, appendDelta(nil, &d)); err != nil {
				t.Fatal(err)
			}
		}
		if c, err := parseCommit(1, data); err == nil {
			if _, err := parseCommit(1, c.append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		e := &Engine{}
		if v, err := e.parse("a", data); err == nil && v.ordinal > 0 && v.unit == "" {
			raw, _ := appendRegister(nil, v)
			if _, err := e.parse("a", raw); err != nil {
				t.Fatal(err)
			}
		}
		if s, err := parseSnapshot(data); err == nil {
			if _, err := parseSnapshot(appendSnapshot(nil, &s)); err != nil {
				t.Fatal(err)
			}
		}
	})
}
