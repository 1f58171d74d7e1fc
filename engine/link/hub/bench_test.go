package hub

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
)

// fill writes candidates of about 200 bytes, by many writers at once.
func (st *station) fill(b testing.TB, n int) {
	b.Helper()
	var wait sync.WaitGroup
	const writers = 64
	for w := range writers {
		wait.Go(func() {
			for i := w; i < n; i += writers {
				_, err := st.e.WriteState(b.Context(), engine.Write{Ops: []engine.Op{{
					Register: fmt.Sprintf("site/%s/sensor-%d", st.name, i%5000), Kind: engine.OpPut, Field: "value", Value: lattice.String(fmt.Sprintf("reading number %d of a sensor, with a unit and a place", i)),
				}}})
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// BenchmarkCatchUp: what was written while the line was down goes through the hub into another node, on disks both.
func BenchmarkCatchUp(b *testing.B) {
	const n = 50_000
	for b.Loop() {
		b.StopTimer()
		c := newCentre(b)
		list := stations(b, c, 2, nil)
		x, y := list[0], list[1]
		converge(b, "before", x, y)
		x.leave()
		x.fill(b, n)
		b.StartTimer()
		began := time.Now()
		x.join()
		until(b, "all have come", func() bool { return equal(x, y) })
		took := time.Since(began)
		b.StopTimer()
		b.ReportMetric(n/took.Seconds(), "candidates/s")
		s := x.hub.State()
		b.ReportMetric(float64(s.Figures.BytesOut)/n, "B/candidate")
		x.stop()
		y.stop()
		c.stop()
		b.StartTimer()
	}
}

// BenchmarkVisible: from the return of a write here to its being there, through the hub.
func BenchmarkVisible(b *testing.B) {
	c := newCentre(b)
	list := stations(b, c, 2, nil)
	x, y := list[0], list[1]
	converge(b, "before", x, y)
	i := int64(0)
	for b.Loop() {
		i++
		x.put("oven", i)
		for !y.has("oven", i) {
			at := y.e.Place()
			if y.has("oven", i) {
				break
			}
			if err := y.e.Await(b.Context(), at); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// What a member is told of another's vector is a few kilobytes in a domain of 200, of which each was started often: runs
// that are over leave all vectors.
func TestVectorsOfManyMembersAreSmall(t *testing.T) {
	members, restarts := 40, 20
	if testing.Short() {
		members, restarts = 20, 5
	}
	whole, beat := vectors(t, members, restarts)
	t.Logf("%d members, %d starts of each: an entry of %d bytes, a heartbeat of %d", members, restarts, whole, beat)
	if whole > 10_000*members/200 || beat > 1_000 {
		t.Errorf("an entry of %d bytes, a heartbeat of %d", whole, beat)
	}
}

// vectors runs members on disks in memory, one after another, so that each is started often and writes, and all tell each
// other, and gives the bytes of an entry and of a heartbeat of the last one.
func vectors(t testing.TB, members, restarts int) (whole, beat int) {
	t.Helper()
	now := time.Now()
	// One node whose log is real; the others are their vectors. It hears of their runs as it would of real ones: their
	// candidates are written by engines that are started anew, each on its own disk.
	open := func(fs vfs.FS) *engine.Engine {
		e, err := engine.Open(engine.Options{Dir: "data", FS: fs, Now: func() time.Time { return now }, Passive: true, MinFree: 1, MemTableBytes: 256 << 10, CacheBytes: 64 << 10})
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	disks := make([]vfs.FS, members)
	ids := make([]engine.EndpointID, members)
	have := make([]engine.QStateVector, members)
	for i := range disks {
		disks[i] = vfs.NewMem()
	}
	collector := open(vfs.NewMem())
	defer collector.Close()
	down, up := make([]engine.Cursor, members), make([]engine.Cursor, members) // what each has of the collector's log, and it of theirs
	learn := func(from, to *engine.Engine, has engine.QStateVector, at *engine.Cursor) {
		end := from.Place()
		var raw [][]byte
		for c, err := range from.Candidates(t.Context(), has, *at) {
			if err != nil {
				t.Fatal(err)
			}
			raw = append(raw, c.Raw)
		}
		*at = end
		if r, err := to.Receive(t.Context(), raw...); err != nil || r.Held > 0 {
			t.Fatalf("%+v, %v", r, err)
		}
	}
	sum := func(e *engine.Engine) engine.Summary {
		s, err := e.Summary(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for range restarts {
		for i := range disks {
			e := open(disks[i])
			ids[i] = sum(e).Endpoint
			if err := e.SetMembers(t.Context(), sum(collector).Endpoint); err != nil {
				t.Fatal(err)
			}
			learn(collector, e, sum(e).Vector, &down[i])
			if _, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: fmt.Sprintf("m/%d", i), Kind: engine.OpPut, Value: lattice.Int(1)}}}); err != nil {
				t.Fatal(err)
			}
			// The collector has all of it, and says so; then the runs before are retired.
			learn(e, collector, sum(collector).Vector, &up[i])
			if err := e.Heard(t.Context(), engine.Member{Endpoint: sum(collector).Endpoint, Vector: sum(collector).Vector, Heard: sum(collector).Heard}); err != nil {
				t.Fatal(err)
			}
			now = now.Add(time.Minute)
			if err := e.Tend(t.Context()); err != nil {
				t.Fatal(err)
			}
			learn(e, collector, sum(collector).Vector, &up[i])
			have[i] = sum(e).Vector
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s := sum(collector)
	en := entry{endpoint: ids[0], name: "gw-0", vector: s.Vector}
	p := pulse{endpoint: ids[0], origin: s.Origin, name: "gw-0", root: s.Root, digest: link.Digest(s.Vector), heard: s.Heard, base: link.Digest(s.Vector), step: link.Between(have[members-1], s.Vector)}
	return len(en.encode()), len(p.encode())
}
