package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A node is an engine on a disk in memory, with a clock that stands still until it is moved.
type node struct {
	t      testing.TB
	fs     *vfs.MemFS
	e      *engine.Engine
	random io.Reader
	now    *time.Time
	joins  sync.Mutex
	open   engine.Options
}

func newNode(t testing.TB, now *time.Time, seed uint64, change func(*engine.Options)) *node {
	t.Helper()
	n := &node{t: t, fs: vfs.NewCrashableMem(), random: rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16), 1}), now: now}
	n.open = engine.Options{Dir: "data", FS: n.fs, Now: func() time.Time { return *n.now }, Random: n.random, Passive: true, MinFree: 1, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	if change != nil {
		change(&n.open)
	}
	n.start()
	t.Cleanup(func() { _ = n.e.Close() })
	return n
}

func (n *node) start() {
	n.t.Helper()
	e, err := engine.Open(n.open)
	if err != nil {
		n.t.Fatal(err)
	}
	n.e = e
}

func (n *node) put(register string, value int64) {
	n.t.Helper()
	if _, err := n.e.WriteState(n.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Value: lattice.Int(value)}}}); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) endpoint() engine.EndpointID {
	s, err := n.e.Status(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return s.Endpoint
}

func (n *node) dump() string {
	raw, err := n.e.Dump(n.t.Context())
	if err != nil {
		n.t.Fatal(err)
	}
	return string(raw)
}

func (n *node) session(caller bool, peer engine.EndpointID) *Session {
	n.t.Helper()
	s, err := newSession(n.t.Context(), sessionOptions{
		engine: n.e, caller: caller, peer: peer, now: func() time.Time { return *n.now }, random: n.random, joins: &n.joins,
		admit: func(_ context.Context, h *hello) (*Record, error) { return &Record{Endpoint: h.Endpoint}, nil },
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// A wire joins two sessions: what one says the other hears, at once.
type wire struct {
	t     testing.TB
	ends  [2]*Session
	bytes [2]int // said by each
	kinds [2]map[kind]int
}

func meet(a, b *node) *wire {
	w := &wire{t: a.t, kinds: [2]map[kind]int{{}, {}}}
	w.ends = [2]*Session{a.session(true, b.endpoint()), b.session(false, engine.EndpointID{})}
	return w
}

func (w *wire) close() {
	for _, s := range w.ends {
		if err := s.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// run carries frames until nobody says anything.
func (w *wire) run() error {
	ctx := context.Background()
	for quiet := 0; quiet < 2; {
		for i, s := range w.ends {
			raw, err := s.Next(ctx)
			if err != nil {
				return err
			}
			if raw == nil {
				quiet++
				continue
			}
			quiet = 0
			w.bytes[i] += len(raw)
			if f, err := parseFrame(raw); err == nil {
				w.kinds[i][f.kind]++
			}
			if err := w.ends[1-i].Handle(ctx, raw); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *wire) mustRun() {
	w.t.Helper()
	if err := w.run(); err != nil {
		w.t.Fatal(err)
	}
}

func pairUp(t testing.TB, nodes ...*node) {
	t.Helper()
	var all []engine.EndpointID
	for _, n := range nodes {
		all = append(all, n.endpoint())
	}
	for _, n := range nodes {
		if err := n.e.SetMembers(t.Context(), all...); err != nil {
			t.Fatal(err)
		}
	}
}

func wantEqual(t testing.TB, nodes ...*node) {
	t.Helper()
	for _, n := range nodes[1:] {
		if got, want := n.dump(), nodes[0].dump(); got != want {
			t.Fatalf("two nodes differ:\n%s\nand\n%s", got, want)
		}
	}
}

func start() *time.Time {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	return &now
}

func TestTwoNodesBecomeEqual(t *testing.T) {
	now := start()
	a, b := newNode(t, now, 1, nil), newNode(t, now, 2, nil)
	pairUp(t, a, b)
	for i := range 50 {
		a.put(fmt.Sprint("a/", i), int64(i))
		b.put(fmt.Sprint("b/", i), int64(i))
		a.put("same", int64(i))
		b.put("same", int64(-i))
	}
	w := meet(a, b)
	w.mustRun()
	wantEqual(t, a, b)
	for i, s := range w.ends {
		if !s.Level() {
			t.Errorf("end %d is not level", i)
		}
	}
	a.put("later", 1)
	b.put("later", 2)
	w.mustRun()
	wantEqual(t, a, b)
	w.close()
	w = meet(a, b)
	w.mustRun()
	if n := w.bytes[0] + w.bytes[1]; n > 1000 {
		t.Errorf("with nothing to say, they say %d bytes", n)
	}
	t.Logf("with nothing to say: %d and %d bytes, %v", w.bytes[0], w.bytes[1], w.kinds)
	if w.kinds[0][kindVector] > 0 || w.kinds[0][kindBatch] > 0 {
		t.Errorf("equal nodes say %v", w.kinds)
	}
}

func TestTrimmedLogGivesState(t *testing.T) {
	now := start()
	trim := func(o *engine.Options) { o.HistoryAge = time.Hour }
	a, b := newNode(t, now, 1, trim), newNode(t, now, 2, trim)
	for i := range 3000 {
		a.put(fmt.Sprint("r/", i), int64(i))
	}
	w := meet(a, b)
	w.mustRun()
	w.close()
	wantEqual(t, a, b)
	for i := range 5 {
		a.put(fmt.Sprint("r/", i*7), int64(-i))
		b.put(fmt.Sprint("r/", 1000+i*7), int64(-i))
	}
	if _, err := a.e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "r/2000", Kind: engine.OpDelete}}}); err != nil {
		t.Fatal(err)
	}
	*now = now.Add(48 * time.Hour)
	for range 3 {
		if err := errors.Join(a.e.Tend(t.Context()), b.e.Tend(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
	w = meet(a, b)
	w.mustRun()
	wantEqual(t, a, b)
	if w.kinds[0][kindOffer] == 0 {
		t.Fatalf("no state was offered: %v", w.kinds)
	}
	t.Logf("%d and %d bytes, %v", w.bytes[0], w.bytes[1], w.kinds)
	if got := w.ends[1].count.RegistersIn + w.ends[0].count.RegistersIn; got > 30 {
		t.Errorf("%d registers travelled", got)
	}
	a.put("r/1", 77)
	w.mustRun()
	wantEqual(t, a, b)
}

func TestLargeValuesCome(t *testing.T) {
	now := start()
	a, b := newNode(t, now, 1, nil), newNode(t, now, 2, nil)
	data := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
	v, err := a.e.PutBlob(t.Context(), bytes.NewReader(data), "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "file", Kind: engine.OpPut, Field: "content", Value: v}}}); err != nil {
		t.Fatal(err)
	}
	w := meet(a, b)
	w.mustRun()
	if err := b.e.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := b.e.ReadState(t.Context(), "file")
	if err != nil || s.Incoming {
		t.Fatalf("it is %+v, %v", s, err)
	}
	content, _ := s.Value.Member("content")
	r, err := b.e.OpenBlob(t.Context(), content)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

func TestCompare(t *testing.T) {
	now := start()
	a, b := newNode(t, now, 1, nil), newNode(t, now, 2, nil)
	for i := range 200 {
		a.put(fmt.Sprint("r/", i), int64(i))
	}
	w := meet(a, b)
	w.mustRun()
	var got *Comparison
	compare := func() {
		t.Helper()
		got = nil
		if err := w.ends[1].Compare(func(c *Comparison, err error) {
			if err != nil {
				t.Error(err)
			}
			got = c
		}); err != nil {
			t.Fatal(err)
		}
		w.mustRun()
		if got == nil {
			t.Fatal("nothing was told")
		}
	}
	compare()
	if !got.Equal() || got.Root != got.Peer || !got.Level {
		t.Errorf("equal nodes compare as %+v", got)
	}
}
