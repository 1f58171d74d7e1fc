package engine_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

var crashes = flag.Int("crashes", 30, "power cuts that TestPowerCut simulates")

// witness notes what an engine has told anybody.
type witness struct {
	mu    sync.Mutex
	told  map[uint64]string // by ordinal: the dot
	kept  map[string]int    // newest acknowledged record per writer
	acked int
}

func (w *witness) tell(ordinal uint64, dot engine.Dot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told[ordinal] = dot.String()
}

func (w *witness) ack(r engine.Receipt, writer string, n int) {
	w.tell(r.Cursor.Ordinal, r.Dot)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept[writer] = n
	w.acked++
}

// sofar gives a copy, so that a crash behind it must lose nothing of it.
func (w *witness) sofar() *witness {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := &witness{told: map[uint64]string{}, kept: map[string]int{}, acked: w.acked}
	for k, v := range w.told {
		out.told[k] = v
	}
	for k, v := range w.kept {
		out.kept[k] = v
	}
	return out
}

// Few writers go to the disk alone, many share their way there.
const few, many = 8, 64

// load lets writers, observers and readers loose on an engine until ctx ends or it fails.
func load(ctx context.Context, e *engine.Engine, w *witness, writers int) (wait func()) {
	var wg sync.WaitGroup
	for n := range writers {
		writer := fmt.Sprint(n)
		wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				value := lattice.Int(int64(i))
				r, err := e.WriteState(ctx, engine.Write{
					Ops: []engine.Op{
						enginetest.Put("own/"+writer, "n", value),
						enginetest.Put(fmt.Sprintf("shared/%d", i%5), writer, value),
						enginetest.Put(fmt.Sprintf("new/%s/%d", writer, i), "", lattice.String(strings.Repeat("x", i%300))),
					},
					Keep: []engine.Record{{Table: "last", Key: writer, Value: []byte(strconv.Itoa(i))}},
				})
				if err != nil {
					return
				}
				w.ack(r, writer, i)
			}
		})
	}
	wg.Go(func() {
		for d, err := range e.Observe(ctx, engine.Filter{}, engine.Cursor{}) {
			if err != nil {
				return
			}
			if !d.Snapshot {
				w.tell(d.Cursor.Ordinal, d.Dot)
			}
		}
	})
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			name := fmt.Sprintf("shared/%d", i%5)
			b, err := e.ReadState(ctx, name)
			if err != nil {
				return
			}
			blocks := []engine.StateBlock{b}
			for b, err := range e.List(ctx, "shared/", "", 0) {
				if err != nil {
					return
				}
				blocks = append(blocks, b)
			}
			for _, b := range blocks {
				for _, f := range b.Dots {
					if f.Field == engine.Existence { // put by the write that made the block
						w.tell(b.Ordinal, f.Dots[0])
					}
				}
			}
			for d, err := range e.History(ctx, engine.HistoryQuery{Register: name, Limit: 3}) {
				if err != nil {
					return
				}
				w.tell(d.Cursor.Ordinal, d.Dot)
			}
		}
	})
	return wg.Wait
}

// verify holds what a restarted engine has against what was told before, and against itself.
func verify(t *testing.T, fs vfs.FS, w *witness) {
	t.Helper()
	e := open(t, engine.Options{FS: fs})
	ctx := t.Context()
	at, err := e.Cursor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	dots := map[uint64]string{}
	newest := map[string]uint64{}
	kept := map[string]int64{}
	parts := 0
	if at.Ordinal > 0 {
		for d, err := range e.Observe(ctx, engine.Filter{}, engine.Cursor{Log: at.Log}) {
			if err != nil {
				t.Fatal(err)
			}
			if d.Snapshot {
				t.Fatal("the log does not begin at its beginning")
			}
			if d.Part != parts {
				t.Fatalf("commit %d is torn: part %d instead of %d of %d", d.Cursor.Ordinal, d.Part, parts, d.Of)
			}
			if parts++; parts == d.Of {
				parts = 0
			}
			if d.Part == 0 && d.Cursor.Ordinal != uint64(len(dots))+1 {
				t.Fatalf("commit %d behind %d", d.Cursor.Ordinal, len(dots))
			}
			dots[d.Cursor.Ordinal] = d.Dot.String()
			newest[d.After.Register] = d.Cursor.Ordinal
			if writer, ok := strings.CutPrefix(d.After.Register, "own/"); ok {
				n, _ := d.After.Value.Member("n")
				kept[writer] = n.Int()
			}
			if d.Cursor == at && d.Part == d.Of-1 {
				break
			}
		}
	}
	for ordinal, dot := range w.told {
		if dots[ordinal] != dot {
			t.Errorf("commit %d was told to be %s, and is %q", ordinal, dot, dots[ordinal])
		}
	}
	for name, ordinal := range newest {
		if b, err := e.ReadState(ctx, name); err != nil || b.Ordinal != ordinal {
			t.Errorf("%s: got the state of %d, %v; its newest commit is %d", name, b.Ordinal, err, ordinal)
		}
	}
	for writer, n := range kept {
		value, err := e.Kept("last", writer)
		if err != nil || string(value) != fmt.Sprint(n) {
			t.Errorf("writer %s: its record says %s, %v; its last commit %d", writer, value, err, n)
		}
		if int(n) < w.kept[writer] {
			t.Errorf("writer %s: got %d, acknowledged %d", writer, n, w.kept[writer])
		}
	}
	if s, err := e.Status(ctx); err != nil || s.Registers != uint64(len(newest)) || s.Candidates != uint64(len(dots)) {
		t.Errorf("status: got %+v, %v; want %d registers and %d candidates", s, err, len(newest), len(dots))
	}
	if _, err := e.WriteState(ctx, engine.Write{Ops: []engine.Op{enginetest.Put("after", "x", lattice.Int(1))}}); err != nil {
		t.Errorf("write after the crash: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestPowerCut(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	acked := 0
	for n, run := 0, 0; n < *crashes; run++ {
		fs := vfs.NewCrashableMem()
		e := open(t, engine.Options{FS: fs, MemTableBytes: 256 << 10, RecentBytes: 64 << 10, FeedBytes: 64 << 10})
		ctx, cancel := context.WithCancel(t.Context())
		w := &witness{told: map[uint64]string{}, kept: map[string]int{}}
		wait := load(ctx, e, w, []int{few, many}[run%2])
		type cut struct {
			before *witness
			fs     *vfs.MemFS
		}
		var cuts []cut
		for range 6 {
			until := w.sofar().acked + 1 + rng.IntN(400)
			for w.sofar().acked < until {
				if _, err := e.Cursor(ctx); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond) // the moment of a power cut is no event
			}
			before := w.sofar()
			cuts = append(cuts, cut{before, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[n%3], RNG: rng})})
			n++
		}
		cancel()
		wait()
		for _, c := range cuts {
			verify(t, c.fs, c.before)
			acked += c.before.acked
			if t.Failed() {
				return
			}
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d power cuts after %d acknowledged writes", *crashes, acked)
}

func TestDiskFailureEndsIt(t *testing.T) {
	for _, c := range []struct {
		kind    string
		writers int
	}{{"sync", few}, {"write", few}, {"sync", many}, {"write", many}} {
		t.Run(fmt.Sprintf("%s/%d", c.kind, c.writers), func(t *testing.T) {
			kind := c.kind
			mem := vfs.NewCrashableMem()
			var armed atomic.Bool
			broken := errors.New("input/output error")
			fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
				if !armed.Load() || !strings.HasSuffix(op.Path, ".log") {
					return nil
				}
				switch op.Kind {
				case errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo:
					if kind == "sync" {
						return broken
					}
				case errorfs.OpFileWrite:
					if kind == "write" {
						return broken
					}
				}
				return nil
			}))
			fatal := make(chan error, 8)
			e, err := engine.Open(engine.Options{Dir: "data", FS: fs, Fatal: func(err error) { fatal <- err }})
			if err != nil {
				t.Fatal(err)
			}
			w := &witness{told: map[uint64]string{}, kept: map[string]int{}}
			wait := load(t.Context(), e, w, c.writers)
			for w.sofar().acked < 200 {
				if _, err := e.Cursor(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			armed.Store(true)
			select {
			case err := <-fatal:
				if !strings.Contains(err.Error(), broken.Error()) {
					t.Errorf("got %v, want %v", err, broken)
				}
			case <-time.After(time.Minute):
				t.Fatal("nobody was told")
			}
			wait()
			after := w.sofar()
			if _, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("late", "x", lattice.Int(1))}}); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("write: got %v, want ErrUnavailable", err)
			}
			if _, err := e.ReadState(t.Context(), "shared/0"); !errors.Is(err, engine.ErrUnavailable) {
				t.Errorf("read: got %v, want ErrUnavailable", err)
			}
			// The disk comes back without what it had refused.
			verify(t, mem.CrashClone(vfs.CrashCloneCfg{}), after)
		})
	}
}
