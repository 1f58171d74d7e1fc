package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

// pointFS takes a copy of the disk, as a power cut leaves it, at each operation that changes it.
type pointFS struct {
	mem   *vfs.MemFS
	every int
	mu    sync.Mutex
	on    bool
	n     int
	rng   *rand.Rand
	acked func() []string
	cuts  []pointCut
}

// A pointCut is the disk at one moment, and what had been acknowledged before.
type pointCut struct {
	fs    *vfs.MemFS
	acked []string
	what  string
}

func (p *pointFS) inject(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.n++; p.on && p.n%p.every == 0 {
		// First what was acknowledged, then the disk: what is acknowledged in between may be there or not.
		acked := p.acked()
		unsynced := []int{0, 50, 100}[p.n/p.every%3]
		p.cuts = append(p.cuts, pointCut{p.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: unsynced, RNG: p.rng}), acked, fmt.Sprintf("%v of %s, %d %% of the unsynced", op.Kind, op.Path, unsynced)})
	}
	return nil
}

// At every point at which the disk changes, a power cut, with none, half or all of what was not synced: what was
// acknowledged is there, batches are whole, the hashes are those of the registers, and writing goes on.
func TestEveryWritePoint(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 7))
	c := newClock()
	mem := vfs.NewCrashableMem()
	var mu sync.Mutex
	var acked []string // registers that were acknowledged, in order
	p := &pointFS{mem: mem, every: 1, rng: rng, acked: func() []string {
		mu.Lock()
		defer mu.Unlock()
		return acked[:len(acked):len(acked)]
	}}
	if testing.Short() {
		p.every = 7
	}
	ack := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		acked = append(acked, name)
	}
	o := passive(errorfs.Wrap(mem, errorfs.InjectorFunc(p.inject)), c)
	o.MemTableBytes = 256 << 10
	other := open(t, passive(vfs.NewMem(), c))
	e := open(t, o) // before there is a directory at all, nothing can be lost
	p.mu.Lock()
	p.on = true
	p.mu.Unlock()
	pair := func(e *engine.Engine, name string) {
		write(t, e, enginetest.Put(name+"/1", "x", lattice.String(name)), enginetest.Put(name+"/2", "x", lattice.String(name)))
	}
	manual := engine.Declaration{Template: "m/{x}", Pattern: "m/(?P<x>[^/]+)", Prefix: "m/", Commit: engine.CommitMode{Manual: true}}
	if err := e.Declare(t.Context(), []engine.Declaration{manual}); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		name := fmt.Sprintf("w/%d", i)
		pair(e, name)
		ack(name)
		write(t, e, enginetest.Put("m/a", "x", lattice.Int(int64(i))))
		write(t, e, enginetest.Put(fmt.Sprintf("gone-%d", i), "x", lattice.Int(1)))
		write(t, e, enginetest.Delete(fmt.Sprintf("gone-%d", i)))
		pair(other, fmt.Sprintf("o/%d", i))
		c.after(time.Minute)
	}
	// From elsewhere, the last first, so that all but it wait on the disk.
	var raws [][]byte
	for c, err := range other.Candidates(t.Context(), nil, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		raws = append(raws, c.Raw)
	}
	for i := len(raws) - 1; i >= 0; i-- {
		if _, err := e.Receive(t.Context(), raws[i]); err != nil {
			t.Fatal(err)
		}
	}
	for i := range raws {
		ack(fmt.Sprintf("o/%d", i))
	}
	if _, err := e.Collapse(t.Context(), "m/a", engine.Cause{}); err != nil {
		t.Fatal(err)
	}
	// A state to join, purges, trims.
	for i := range 100 {
		pair(other, fmt.Sprintf("j/%d", i))
	}
	join(t, other, e)
	for i := range 100 {
		ack(fmt.Sprintf("j/%d", i))
	}
	c.after(40 * 24 * time.Hour)
	if err := e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	pair(e, "last")
	ack("last")
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d points", len(p.cuts))
	if len(p.cuts)*p.every < 50 {
		t.Errorf("only %d points", len(p.cuts))
	}
	for i, cut := range p.cuts {
		o := passive(cut.fs, c)
		e, err := engine.Open(o)
		if err != nil {
			t.Fatalf("point %d, %s: %v", i, cut.what, err)
		}
		checkPoint(t, e, cut.acked)
		if t.Failed() {
			t.Fatalf("point %d, %s", i, cut.what)
		}
		pair(e, "again")
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func checkPoint(t *testing.T, e *engine.Engine, acked []string) {
	t.Helper()
	ctx := context.Background()
	for _, name := range acked {
		if got := value(t, e, name+"/1"); got != fmt.Sprintf(`{"x":%q}`, name) {
			t.Errorf("%s was acknowledged and is %q", name, got)
		}
	}
	var sum lattice.Tally
	x, err := e.Export(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	for h, err := range x.Hashes(ctx, func(byte) bool { return true }) {
		if err != nil {
			t.Fatal(err)
		}
		sum.Add(h.Hash)
	}
	s, err := e.Summary(ctx)
	if err != nil || s.Root != sum.Hash() {
		t.Errorf("the hash over the registers is kept as %x and is %x, %v", s.Root, sum.Hash(), err)
	}
	for b, err := range e.List(ctx, "", "", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if n := len(b.Register); n > 2 && b.Register[n-2:] == "/1" {
			if twin := value(t, e, b.Register[:n-1]+"2"); twin != b.Value.String() {
				t.Errorf("%s is %s, and %s2 is %s: half a batch", b.Register, b.Value, b.Register[:n-1], twin)
			}
		}
		for d, err := range e.History(ctx, engine.HistoryQuery{Register: b.Register, Limit: 1}) {
			if err != nil || !d.After.Value.Equal(b.Value) || d.After.ID != b.ID {
				t.Errorf("%s is %s, and history says %s, %v", b.Register, b.Value, d.After.Value, err)
			}
		}
	}
}
