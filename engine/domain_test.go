package engine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A clock stands still until it is moved.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 11, 25, 4, 0, 0, 0, time.UTC)} }

func (c *clock) Now() time.Time        { return c.now }
func (c *clock) after(d time.Duration) { c.now = c.now.Add(d) }
func passive(fs vfs.FS, c *clock) engine.Options {
	return engine.Options{Dir: "data", FS: fs, Now: c.Now, Passive: true}
}

// give sends all that one engine has and the other lacks.
func give(t *testing.T, from, to *engine.Engine) (n int) {
	t.Helper()
	s, err := to.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for c, err := range from.Candidates(t.Context(), s.Vector, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		if r, err := to.Receive(t.Context(), c.Raw); err != nil || r.Full {
			t.Fatal(r, err)
		}
		n++
	}
	return n
}

func value(t *testing.T, e *engine.Engine, register string) string {
	t.Helper()
	b, err := e.ReadState(t.Context(), register)
	if err != nil {
		t.Fatal(err)
	}
	return b.Value.String()
}

func same(t *testing.T, a, b *engine.Engine) {
	t.Helper()
	da, err1 := a.Dump(t.Context())
	db, err2 := b.Dump(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(da, db) {
		t.Errorf("the registers differ:\n%s\n%s", da, db)
	}
	sa, err1 := a.Summary(t.Context())
	sb, err2 := b.Summary(t.Context())
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if sa.Root != sb.Root || sa.Shards != sb.Shards {
		t.Errorf("the hashes over the registers differ: %x and %x", sa.Root, sb.Root)
	}
}

func findings(t *testing.T, e *engine.Engine) (codes []string) {
	t.Helper()
	for _, f := range status(t, e).Findings {
		codes = append(codes, f.Code)
	}
	return codes
}

// join gives one engine the other's state.
func join(t *testing.T, from, to *engine.Engine) {
	t.Helper()
	x, err := from.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	mine, err := to.Export(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	j, err := to.BeginJoin(t.Context(), x.Snapshot())
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, e := range []*engine.Export{x, mine} {
		for h, err := range e.Hashes(t.Context(), func(byte) bool { return true }) {
			if err != nil {
				t.Fatal(err)
			}
			names[h.Name] = true
		}
	}
	for name := range names {
		raw, err := x.Register(name)
		if err == nil {
			err = j.Add(name, raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestNodesExchange(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	declare := []engine.Declaration{
		{Template: "sum/{x}", Pattern: `sum/(?P<x>[^/]+)`, Prefix: "sum/", Fields: map[string]engine.CollapseRule{"n": {Kind: lattice.Sum, Of: "number"}}},
		{Template: "peak/{x}", Pattern: `peak/(?P<x>[^/]+)`, Prefix: "peak/", Value: engine.CollapseRule{Kind: lattice.Max, Of: "number"}},
		{Template: "line/{x}/{y}", Pattern: `line/(?P<x>[^/]+)/(?P<y>[^/]+)`, Prefix: "line/", Group: "line/${x}"},
		{Template: "doc/{x}", Pattern: `doc/(?P<x>[^/]+)`, Prefix: "doc/", Commit: engine.CommitMode{Manual: true}, Fields: map[string]engine.CollapseRule{"title": {Kind: lattice.Ask}}},
	}
	if err := a.Declare(t.Context(), declare); err != nil {
		t.Fatal(err)
	}
	give(t, a, b)
	for i, e := range []*engine.Engine{a, b} {
		c.after(time.Millisecond)
		n := int64(i + 1)
		write(t, e, enginetest.Put("sum/a", "n", lattice.Int(10*n)))
		write(t, e, enginetest.Put("sum/a", "n", lattice.Int(10*n+n)))
		write(t, e, enginetest.Put("peak/a", "", lattice.Int(n)))
		write(t, e, enginetest.Put("line/a/1", "v", lattice.Int(n)), enginetest.Put("line/a/2", "v", lattice.Int(n)))
		write(t, e, enginetest.Put("doc/a", "title", lattice.Int(n)))
	}
	give(t, a, b)
	give(t, b, a)
	same(t, a, b)
	for register, want := range map[string]string{"sum/a": `{"n":33}`, "peak/a": "2", "line/a/1": `{"v":2}`, "line/a/2": `{"v":2}`, "doc/a": ""} {
		if got := value(t, a, register); got != want {
			t.Errorf("%s: got %s, want %s", register, got, want)
		}
	}
	if _, err := b.Collapse(t.Context(), "doc/a", engine.Cause{}); err != nil {
		t.Fatal(err)
	}
	give(t, b, a)
	same(t, a, b)
	if got, want := value(t, a, "doc/a"), `{"title":[1,2]}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := give(t, a, b); got != 0 {
		t.Errorf("%d candidates travelled though nothing differs", got)
	}
	if f := findings(t, a); len(f) != 0 {
		t.Errorf("findings: %v", f)
	}
}

// Two engines that hear the same in any order, with duplicates, restarts and trims between, end up equal to the byte.
func TestAnyOrder(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newClock()
		var raws [][]byte
		sources := []*engine.Engine{open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))}
		for range 60 {
			e := sources[rng.IntN(3)]
			register := string(rune('a' + rng.IntN(4)))
			switch rng.IntN(6) {
			case 0:
				write(t, e, enginetest.Delete(register))
			case 1:
				write(t, e, enginetest.Only(register, "x"))
			case 2:
				give(t, sources[rng.IntN(3)], e)
			default:
				write(t, e, enginetest.Put(register, string(rune('x'+rng.IntN(3))), lattice.Int(int64(rng.IntN(100)))), enginetest.Put("all", register, lattice.Int(1)))
			}
			c.after(time.Millisecond)
		}
		for _, e := range sources {
			for c, err := range e.Candidates(t.Context(), nil, engine.Cursor{}) {
				if err != nil {
					t.Fatal(err)
				}
				raws = append(raws, c.Raw)
			}
		}
		raws = append(raws, raws...)
		nodes := make([]*engine.Engine, 2)
		for i := range nodes {
			fs := vfs.NewCrashableMem()
			// A purge is a candidate of one's own; here both are to hear the same.
			o := passive(fs, c)
			o.PurgeAfter = 1 << 62
			nodes[i] = open(t, o)
			rng.Shuffle(len(raws), func(i, j int) { raws[i], raws[j] = raws[j], raws[i] })
			for n, raw := range raws {
				if _, err := nodes[i].Receive(t.Context(), raw); err != nil {
					t.Fatal(err)
				}
				switch {
				case n%40 == 20:
					fs = fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng})
					o.FS = fs
					nodes[i] = open(t, o)
				case n%40 == 30:
					c.after(40 * 24 * time.Hour)
					if err := nodes[i].Tend(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if s := status(t, nodes[i]); s.Held != 0 {
				t.Errorf("seed %d: %d are held", seed, s.Held)
			}
		}
		same(t, nodes[0], nodes[1])
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func TestTrimmedAwayAndBack(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	for i := range 300 {
		write(t, a, enginetest.Put("r", "x", lattice.Int(int64(i))), enginetest.Put("other/"+string(rune('a'+i%26)), "x", lattice.Int(int64(i))))
	}
	give(t, a, b)
	write(t, a, enginetest.Delete("other/b"))
	write(t, b, enginetest.Put("r", "y", lattice.Int(7)))
	c.after(100 * 24 * time.Hour)
	if err := a.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	st := status(t, a)
	if st.Floor < 300 || st.Candidates > 10 {
		t.Errorf("after trimming: got floor %d, %d candidates", st.Floor, st.Candidates)
	}
	if n := len(slices.Collect(func(yield func(int) bool) {
		for range a.History(t.Context(), engine.HistoryQuery{Register: "r", Limit: 1000}) {
			if !yield(1) {
				return
			}
		}
	})); n != 1 {
		t.Errorf("history: got %d entries, want the newest", n)
	}
	s, _ := b.Summary(t.Context())
	for _, err := range a.Candidates(t.Context(), s.Vector, engine.Cursor{}) {
		if !errors.Is(err, engine.ErrTrimmed) {
			t.Fatalf("got %v, want ErrTrimmed", err)
		}
	}
	join(t, a, b)
	give(t, b, a)
	give(t, a, b)
	same(t, a, b)
	if got, want := value(t, b, "r"), `{"x":299,"y":7}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := value(t, b, "other/b"); got != "" {
		t.Errorf("what was deleted is back: %s", got)
	}
}

func TestIncarnationsRetire(t *testing.T) {
	c := newClock()
	fs := vfs.NewMem()
	other := open(t, passive(vfs.NewMem(), c))
	otherStatus := status(t, other)
	var e *engine.Engine
	for i := range 20 {
		e = open(t, passive(fs, c))
		if i == 0 {
			if err := e.Declare(t.Context(), []engine.Declaration{{Template: "n/{x}", Pattern: "n/(?P<x>[^/]+)", Prefix: "n/", Value: engine.CollapseRule{Kind: lattice.Sum, Of: "number"}}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.SetMembers(t.Context(), otherStatus.Endpoint); err != nil {
			t.Fatal(err)
		}
		add := enginetest.Put("n/a", "", lattice.Int(5))
		add.Kind = engine.OpAdd
		write(t, e, add)
		give(t, e, other)
		give(t, other, e)
		s, _ := other.Summary(t.Context())
		if err := e.Heard(t.Context(), engine.Member{Endpoint: s.Endpoint, Vector: s.Vector, Heard: s.Heard}); err != nil {
			t.Fatal(err)
		}
		if err := e.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i < 19 {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	give(t, e, other)
	s, _ := e.Summary(t.Context())
	if len(s.Vector) > 3 {
		t.Errorf("after 20 starts the vector has %d entries", len(s.Vector))
	}
	same(t, e, other)
	x, err := e.Explain(t.Context(), "n/a")
	if err != nil || len(x.Fields) != 1 || len(x.Fields[0].Entries) > 3 || x.Fields[0].Value.Int() != 100 {
		t.Errorf("the sum is %+v, %v", x.Fields, err)
	}
}

func TestPurge(t *testing.T) {
	c := newClock()
	e := open(t, passive(vfs.NewMem(), c))
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)))
	first := status(t, e).Root
	write(t, e, enginetest.Delete("a"))
	x, err := e.Explain(t.Context(), "a")
	if err != nil || !x.Hidden || len(x.Fields) != 1 {
		t.Errorf("deleted: got %+v, %v", x, err)
	}
	c.after(2 * time.Hour)
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if x, err = e.Explain(t.Context(), "a"); err != nil || x.Hidden || len(x.Fields) != 0 {
		t.Errorf("purged: got %+v, %v", x, err)
	}
	if root := status(t, e).Root; root == first || strings.Trim(root, "0") != "" {
		t.Errorf("the hash over nothing is %s", root)
	}
}

func TestClones(t *testing.T) {
	c := newClock()
	fs := vfs.NewCrashableMem()
	e := open(t, passive(fs, c))
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)))
	copied := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	clone := open(t, passive(copied, c))
	write(t, e, enginetest.Put("a", "x", lattice.Int(2)))
	write(t, clone, enginetest.Put("a", "x", lattice.Int(3)))
	give(t, e, clone)
	give(t, clone, e)
	se, _ := e.Summary(t.Context())
	sc, _ := clone.Summary(t.Context())
	if err := errors.Join(e.Meet(t.Context(), sc), clone.Meet(t.Context(), se)); err != nil {
		t.Fatal(err)
	}
	same(t, e, clone)
	of := func(e *engine.Engine) (f engine.Finding) {
		for _, f := range status(t, e).Findings {
			if f.Code == "clone" {
				f.Since = time.Time{}
				return f
			}
		}
		return f
	}
	if a, b := of(e), of(clone); a != b || a.Code == "" {
		t.Errorf("findings: got %+v and %+v", a, b)
	}
	if b, _ := e.ReadState(t.Context(), "a"); len(b.Dots) == 0 || len(b.Dots[0].Dots) != 2 {
		t.Errorf("both writes should live: got %+v", b)
	}
}

func TestBackup(t *testing.T) {
	c := newClock()
	fs := vfs.NewMem()
	peer := open(t, passive(vfs.NewMem(), c))
	e := open(t, passive(fs, c))
	blob, err := e.PutBlob(t.Context(), strings.NewReader(strings.Repeat("0123456789", 60_000)), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)), enginetest.Put("a", "file", blob))
	info, err := e.Backup(t.Context(), "backup")
	if err != nil || info.Bytes == 0 || info.Cursor.Ordinal != 1 {
		t.Fatal(info, err)
	}
	if _, err := e.Backup(t.Context(), "backup"); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("over another: got %v, want ErrInvalid", err)
	}
	write(t, e, enginetest.Put("a", "x", lattice.Int(2)))
	before := status(t, e)
	give(t, e, peer)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	o := passive(fs, c)
	o.Dir = "backup"
	old := open(t, o)
	after := status(t, old)
	if after.Endpoint != before.Endpoint || after.Incarnation == before.Incarnation || after.Cursor.Log == before.Cursor.Log {
		t.Errorf("got %+v after %+v", after, before)
	}
	if got := findings(t, old); !slices.Contains(got, "backup") {
		t.Errorf("findings: got %v", got)
	}
	if b, err := old.ReadState(t.Context(), "a"); err != nil || b.Incoming {
		t.Errorf("got %+v, %v", b, err)
	}
	s, _ := peer.Summary(t.Context())
	if err := old.Meet(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := findings(t, old); !slices.Contains(got, "restored") {
		t.Errorf("findings: got %v", got)
	}
	give(t, peer, old)
	if v, _ := old.ReadState(t.Context(), "a"); !strings.Contains(v.Value.String(), `"x":2`) {
		t.Errorf("its own lost write is not back: %s", v.Value)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	if got := findings(t, open(t, o)); !slices.Contains(got, "backup") {
		t.Errorf("after another start: got %v", got)
	}
}

func TestLargeValuesComeIn(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	content := strings.Repeat("0123456789abcdef", 40_000)
	blob, err := a.PutBlob(t.Context(), strings.NewReader(content), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	write(t, a, enginetest.Put("f", "content", lattice.String("short")))
	give(t, a, b)
	write(t, a, enginetest.Put("f", "content", blob))
	if _, err := b.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("g", "content", blob)}}); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("a value that is not here: got %v, want ErrInvalid", err)
	}
	give(t, a, b)
	st, err := b.ReadState(t.Context(), "f")
	if err != nil || !st.Incoming || st.Value.String() != `{"content":"short"}` {
		t.Errorf("incoming: got %s, %v", st.Value, err)
	}
	for {
		missing, err := b.MissingChunks(blob)
		if err != nil {
			t.Fatal(err)
		}
		if len(missing) == 0 {
			break
		}
		for _, h := range missing {
			chunk, err := a.Chunk(h)
			if err == nil {
				err = b.PutChunk(t.Context(), h, chunk)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	at, _ := b.Cursor(t.Context())
	if err := b.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	for d, err := range b.Observe(t.Context(), engine.Filter{}, at) {
		if err != nil || d.After.Register != "f" || d.After.Incoming || len(d.Changed) != 1 {
			t.Errorf("told: got %+v, %v", d, err)
		}
		break
	}
	r, err := b.OpenBlob(context.Background(), blob)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != content {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	same(t, a, b)
	// Nothing refers to it any more, and in time it goes.
	write(t, b, enginetest.Put("f", "content", lattice.String("short again")))
	for range 4 {
		c.after(40 * 24 * time.Hour)
		write(t, b, enginetest.Put("tick", "x", lattice.Int(1)))
		if err := b.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if missing, _ := b.MissingChunks(blob); len(missing) == 0 {
		t.Error("its chunks are kept for ever")
	}
}

func TestWindow(t *testing.T) {
	c := newClock()
	e := open(t, passive(vfs.NewMem(), c))
	d := engine.Declaration{Template: "w/{x}", Pattern: "w/(?P<x>[^/]+)", Prefix: "w/", Commit: engine.CommitMode{Window: 500 * time.Millisecond}}
	if err := e.Declare(t.Context(), []engine.Declaration{d}); err != nil {
		t.Fatal(err)
	}
	write(t, e, enginetest.Put("w/a", "x", lattice.Int(1)))
	c.after(400 * time.Millisecond)
	write(t, e, enginetest.Put("w/a", "x", lattice.Int(2)))
	tend := func() string {
		t.Helper()
		if err := e.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
		return value(t, e, "w/a")
	}
	if got := tend(); got != "" {
		t.Errorf("before it closes: got %s", got)
	}
	c.after(200 * time.Millisecond)
	if got, want := tend(), `{"x":2}`; got != want {
		t.Errorf("after: got %s, want %s", got, want)
	}
	if s := status(t, e); s.Pending != 0 {
		t.Errorf("%d registers wait", s.Pending)
	}
}

func TestRuleChangeIsTold(t *testing.T) {
	c := newClock()
	e := open(t, passive(vfs.NewMem(), c))
	other := open(t, passive(vfs.NewMem(), c))
	write(t, other, enginetest.Put("p/a", "x", lattice.Int(9)))
	c.after(time.Second)
	write(t, e, enginetest.Put("p/a", "x", lattice.Int(1)))
	give(t, other, e)
	if got, want := value(t, e, "p/a"), `{"x":1}`; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	at, _ := e.Cursor(t.Context())
	d := engine.Declaration{Template: "p/{x}", Pattern: "p/(?P<x>[^/]+)", Prefix: "p/", Fields: map[string]engine.CollapseRule{"x": {Kind: lattice.Max, Of: "number"}}}
	if err := e.Declare(t.Context(), []engine.Declaration{d}); err != nil {
		t.Fatal(err)
	}
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	for d, err := range e.Observe(t.Context(), engine.Filter{Prefix: "p/"}, at) {
		if err != nil || d.After.Value.String() != `{"x":9}` || d.Cause.Verb != "rule" {
			t.Errorf("told: got %+v, %v", d, err)
		}
		break
	}
	if err := e.Declare(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if got, want := value(t, e, "p/a"), `{"x":1}`; got != want {
		t.Errorf("without the rule: got %s, want %s", got, want)
	}
}

// A restored node that took its own lost candidates as state knows of them after a restart, too.
func TestOwnPastAsState(t *testing.T) {
	c := newClock()
	fs := vfs.NewCrashableMem()
	e := open(t, passive(fs, c))
	peer := open(t, passive(vfs.NewMem(), c))
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)))
	older := fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
	write(t, e, enginetest.Put("a", "x", lattice.Int(2)))
	write(t, e, enginetest.Put("a", "x", lattice.Int(3)))
	give(t, e, peer)
	restored := open(t, passive(older, c))
	join(t, peer, restored)
	before, _ := restored.Summary(t.Context())
	if err := restored.Close(); err != nil {
		t.Fatal(err)
	}
	restored = open(t, passive(older, c))
	after, _ := restored.Summary(t.Context())
	if !after.Vector.Equal(before.Vector) || value(t, restored, "a") != `{"x":3}` {
		t.Errorf("after a restart: got %v, want %v", after.Vector, before.Vector)
	}
	write(t, restored, enginetest.Put("a", "x", lattice.Int(4)))
	give(t, restored, peer)
	same(t, restored, peer)
}

// A history entry that was the newest when its commit was trimmed goes when it is not the newest any more.
func TestSeldomWrittenHistoryIsTrimmed(t *testing.T) {
	c := newClock()
	e := open(t, passive(vfs.NewMem(), c))
	for i := range 4 {
		write(t, e, enginetest.Put("seldom", "x", lattice.Int(int64(i))))
		write(t, e, enginetest.Put("tick", "x", lattice.Int(int64(i))))
		for range 2 {
			c.after(31 * 24 * time.Hour)
			if err := e.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.after(31 * 24 * time.Hour)
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for d, err := range e.History(t.Context(), engine.HistoryQuery{Register: "seldom"}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.After.Value.String())
	}
	if len(got) != 1 || got[0] != `{"x":3}` {
		t.Errorf("got %v, want the newest", got)
	}
}

// What a member that is away holds up does not hold up the rest.
func TestPurgeGoesRound(t *testing.T) {
	c := newClock()
	e, other := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	for i := range 300 {
		name := fmt.Sprintf("r/%03d", i)
		write(t, e, enginetest.Put(name, "x", lattice.Int(1)))
		write(t, e, enginetest.Delete(name))
	}
	give(t, e, other)
	confirmed, _ := other.Summary(t.Context())
	if err := e.SetMembers(t.Context(), confirmed.Endpoint); err != nil {
		t.Fatal(err)
	}
	hidden := func() (n int) {
		for i := range 300 {
			if x, err := e.Explain(t.Context(), fmt.Sprintf("r/%03d", i)); err != nil {
				t.Fatal(err)
			} else if x.Hidden {
				n++
			}
		}
		return n
	}
	c.after(2 * time.Hour)
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hidden(); got != 300 {
		t.Fatalf("%d are hidden before the member has confirmed anything, want 300", got)
	}
	if err := e.Heard(t.Context(), engine.Member{Endpoint: confirmed.Endpoint, Vector: confirmed.Vector, Heard: confirmed.Heard}); err != nil {
		t.Fatal(err)
	}
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hidden(); got != 256 {
		t.Errorf("%d are hidden, want those of the first turn: the second has the others", got)
	}
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := hidden(); got != 0 {
		t.Errorf("%d are hidden after all turns", got)
	}
}

// What waits is counted, also after a restart, and collapses when its rule no longer has it wait.
func TestWaitsUnderAnotherRule(t *testing.T) {
	c := newClock()
	fs := vfs.NewMem()
	e := open(t, passive(fs, c))
	d := engine.Declaration{Template: "m/{x}", Pattern: "m/(?P<x>[^/]+)", Prefix: "m/", Commit: engine.CommitMode{Manual: true}}
	declare := func() {
		t.Helper()
		if err := e.Declare(t.Context(), []engine.Declaration{d}); err != nil {
			t.Fatal(err)
		}
		c.after(time.Hour)
		if err := e.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	waits := func(want uint64) {
		t.Helper()
		if got := status(t, e).Pending; got != want {
			t.Errorf("%d registers wait, want %d", got, want)
		}
	}
	declare()
	for _, name := range []string{"m/a", "m/a", "m/b"} {
		write(t, e, enginetest.Put(name, "x", lattice.Int(1)))
	}
	declare()
	waits(2)
	if _, err := e.Collapse(t.Context(), "m/a", engine.Cause{}); err != nil {
		t.Fatal(err)
	}
	waits(1)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, passive(fs, c))
	waits(1)
	d.Commit = engine.CommitMode{Window: time.Minute}
	declare()
	waits(0)
	if got, want := value(t, e, "m/b"), `{"x":1}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
