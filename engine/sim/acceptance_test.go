package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// engines opens engines on disks in memory for a test.
type engines struct {
	*testing.T
	now time.Time
}

func (t *engines) open(fs vfs.FS, seed uint64) *engine.Engine {
	t.Helper()
	e, err := engine.Open(engine.Options{
		Dir: dataDir, FS: fs, Now: func() time.Time { return t.now }, Random: &source{Rand: rand.New(rand.NewPCG(seed, 1))},
		Passive: true, HistoryAge: time.Minute, PurgeAfter: 1000 * time.Hour, MinFree: 1, CacheBytes: 64 << 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func (t *engines) try(err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (t *engines) put(e *engine.Engine, register string, n int64) engine.Receipt {
	t.Helper()
	r, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Field: "x", Value: lattice.Int(n)}}})
	t.try(err)
	return r
}

func (t *engines) candidates(e *engine.Engine, has engine.QStateVector) (raw [][]byte) {
	t.Helper()
	for c, err := range e.Candidates(t.Context(), has, engine.Cursor{}) {
		t.try(err)
		raw = append(raw, c.Raw)
	}
	return raw
}

// exchange has two engines tell each other what they know, and give what the other lacks.
func (t *engines) exchange(a, b *engine.Engine) {
	t.Helper()
	for range 2 {
		sa, err := a.Summary(t.Context())
		t.try(err)
		sb, err := b.Summary(t.Context())
		t.try(err)
		t.try(a.Meet(t.Context(), sb))
		t.try(b.Meet(t.Context(), sa))
		_, err = b.Receive(t.Context(), t.candidates(a, sb.Vector)...)
		t.try(err)
		_, err = a.Receive(t.Context(), t.candidates(b, sa.Vector)...)
		t.try(err)
	}
}

func (t *engines) same(a, b *engine.Engine) {
	t.Helper()
	da, err := a.Dump(t.Context())
	t.try(err)
	db, err := b.Dump(t.Context())
	t.try(err)
	if !bytes.Equal(da, db) {
		t.Errorf("the registers differ:\n%s\n%s", da, db)
	}
	sa, err := a.Summary(t.Context())
	t.try(err)
	sb, err := b.Summary(t.Context())
	t.try(err)
	if sa.Root != sb.Root || sa.Shards != sb.Shards || !sa.Vector.Equal(sb.Vector) {
		t.Errorf("%v with %x and %v with %x", sa.Vector, sa.Root, sb.Vector, sb.Root)
	}
	for one, err := range a.List(t.Context(), "", "", 0) {
		t.try(err)
		other, err := b.ReadState(t.Context(), one.Register)
		t.try(err)
		if one.ID.Digest != other.ID.Digest || !one.Value.Equal(other.Value) {
			t.Errorf("%s: %s with %s, and %s with %s", one.Register, one.Value, one.ID, other.Value, other.ID)
		}
	}
}

func (t *engines) findings(e *engine.Engine, code string) (out []engine.Finding) {
	t.Helper()
	s, err := e.Status(t.Context())
	t.try(err)
	for _, f := range s.Findings {
		if f.Code == code {
			out = append(out, f)
		}
	}
	return out
}

// Two engines that are fed the same candidates in different orders, several times, with restarts and trims between, end
// with the same bytes.
func TestSameCandidatesSameBytes(t *testing.T) {
	seeds := 40
	if testing.Short() {
		seeds = 5
	}
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			x := &engines{t, epoch}
			rng := rand.New(rand.NewPCG(seed, 7))
			w := &world{rng: rng}
			var rules []engine.Declaration
			for i := range templates {
				if d := &templates[i]; !d.undeclared() {
					rules = append(rules, d.declaration(d.rule))
				}
			}
			// Three write, and hear of each other now and then.
			var writers [3]*engine.Engine
			for i := range writers {
				writers[i] = x.open(vfs.NewMem(), seed*10+uint64(i))
				defer writers[i].Close()
				x.try(writers[i].Declare(t.Context(), rules))
			}
			for range 60 {
				x.now = x.now.Add(time.Duration(rng.IntN(1000)) * time.Millisecond)
				i := rng.IntN(3)
				if rng.IntN(6) == 0 {
					x.exchange(writers[i], writers[(i+1)%3])
					continue
				}
				d := &templates[rng.IntN(len(templates))]
				n := &node{r: &fullNode{e: writers[i]}}
				op := w.anything(n, d, d.register(rng.IntN(d.count)))
				_, _ = writers[i].WriteState(t.Context(), engine.Write{Ops: []engine.Op{op}}) // what a rule refuses is no candidate
			}
			var raw [][]byte
			var has engine.QStateVector
			for _, e := range writers {
				raw = append(raw, x.candidates(e, has)...)
				s, err := e.Summary(t.Context())
				x.try(err)
				has = has.Join(s.Vector)
			}
			var ends [2]*engine.Engine
			for i := range ends {
				fs := vfs.NewMem()
				e := x.open(fs, seed*10+uint64(5+i))
				order := slices.Concat(raw, raw)
				rng.Shuffle(len(order), func(a, b int) { order[a], order[b] = order[b], order[a] })
				for len(order) > 0 {
					n := min(1+rng.IntN(12), len(order))
					_, err := e.Receive(t.Context(), order[:n]...)
					x.try(err)
					order = order[n:]
					switch rng.IntN(6) {
					case 0:
						x.try(e.Close())
						e = x.open(fs, seed*10+uint64(5+i))
					case 1:
						x.now = x.now.Add(5 * time.Minute)
						// Without windows that close here: what they settle would be candidates of its own.
						if s, err := e.Status(t.Context()); err == nil && s.Pending == 0 {
							x.try(e.Tend(t.Context()))
						}
					}
				}
				defer func() { _ = e.Close() }()
				ends[i] = e
			}
			x.exchange(ends[0], ends[1])
			x.same(ends[0], ends[1])
		})
	}
}

// A copied data directory that is started beside its original: both say so, in the same words, and both sides' writes live.
func TestCloneAlarmsBoth(t *testing.T) {
	x := &engines{t, epoch}
	fs := vfs.NewCrashableMem()
	a := x.open(fs, 1)
	defer a.Close()
	b := x.open(vfs.NewMem(), 2)
	defer b.Close()
	x.put(a, "common", 1)
	x.exchange(a, b)
	copied := x.open(fs.CrashClone(vfs.CrashCloneCfg{}), 3)
	defer copied.Close()
	x.put(a, "original", 1)
	x.put(copied, "copy", 1)
	x.put(a, "both", 1)
	x.put(copied, "both", 2)
	for range 2 {
		x.exchange(a, b)
		x.exchange(copied, b)
		x.exchange(a, b)
		x.put(a, "original", 2)
		x.put(copied, "copy", 2)
	}
	x.exchange(a, b)
	x.exchange(copied, b)
	x.exchange(a, b)
	want := x.findings(b, "clone")
	if len(want) == 0 {
		t.Fatal("a third node sees no clone")
	}
	for _, e := range []*engine.Engine{a, copied} {
		got := x.findings(e, "clone")
		if len(got) != len(want) || got[0].Subject != want[0].Subject || got[0].Text != want[0].Text {
			t.Errorf("got %v, want %v", got, want)
		}
		if f := x.findings(e, "fork"); len(f) > 0 {
			t.Errorf("got %v, want no fork", f)
		}
	}
	x.same(a, copied)
	x.same(a, b)
	for register, want := range map[string]string{"common": `{"x":1}`, "original": `{"x":2}`, "copy": `{"x":2}`, "both": `{"x":2}`} {
		if s, err := b.ReadState(t.Context(), register); err != nil || register != "both" && s.Value.String() != want || !s.Exists {
			t.Errorf("%s: got %s, %v; want %s", register, s.Value, err, want)
		}
	}
}

// An old backup that is started knows that it is one, goes on as another incarnation, and gets back what it has lost.
func TestBackupGetsBackWhatItLost(t *testing.T) {
	x := &engines{t, epoch}
	n, err := startFull(nil, settings{clock: &clock{world: new(time.Duration)}, random: &source{Rand: rand.New(rand.NewPCG(1, 1))}})
	x.try(err)
	a := n.e
	b := x.open(vfs.NewMem(), 2)
	defer b.Close()
	x.put(a, "r", 1)
	x.exchange(a, b)
	saved, err := n.backup()
	x.try(err)
	x.put(a, "r", 2)
	lost := x.put(a, "late", 3)
	x.exchange(a, b)
	before, err := a.Status(t.Context())
	x.try(err)
	x.try(a.Close())
	a = x.open(saved.(*vfs.MemFS), 3)
	defer a.Close()
	if f := x.findings(a, "backup"); len(f) != 1 {
		t.Errorf("findings: got %v, want one of a backup", f)
	}
	after, err := a.Status(t.Context())
	x.try(err)
	if after.Endpoint != before.Endpoint || after.Incarnation == before.Incarnation || after.Cursor.Log == before.Cursor.Log {
		t.Errorf("it goes on as %s %s in log %x; it was %s %s in %x", after.Endpoint, after.Incarnation, after.Cursor.Log, before.Endpoint, before.Incarnation, before.Cursor.Log)
	}
	x.put(a, "new", 4)
	x.exchange(a, b)
	s, err := a.Summary(t.Context())
	x.try(err)
	if !s.Vector.Covers(lost.Dot) {
		t.Errorf("%s is still lost", lost.Dot)
	}
	for register, want := range map[string]string{"r": `{"x":2}`, "late": `{"x":3}`, "new": `{"x":4}`} {
		if s, err := a.ReadState(t.Context(), register); err != nil || s.Value.String() != want {
			t.Errorf("%s: got %s, %v; want %s", register, s.Value, err, want)
		}
	}
	x.same(a, b)
	if f := slices.Concat(x.findings(b, "clone"), x.findings(b, "fork"), x.findings(a, "clone"), x.findings(a, "fork")); len(f) > 0 {
		t.Errorf("taken for clones: %v", f)
	}
}
