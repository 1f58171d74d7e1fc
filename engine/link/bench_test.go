package link

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// BenchmarkCatchUp: candidates per second that a node takes from its peer over TLS on loopback, when it was away; both
// disks are real.
func BenchmarkCatchUp(b *testing.B) {
	a, c := newStation(b), newStation(b)
	join(b, a, c, a.addr)
	until(b, "equal roots", func() bool { return a.root() == c.root() })
	c.stop()
	value := lattice.String("a value of some length, as a sensor's document has: 21.5")
	var waits []func() (engine.Receipt, error)
	settle := func() {
		for _, wait := range waits {
			if _, err := wait(); err != nil {
				b.Fatal(err)
			}
		}
		waits = waits[:0]
	}
	for i := range b.N {
		_, wait, err := a.e.Submit(b.Context(), engine.Write{Ops: []engine.Op{{Register: fmt.Sprint("site/berlin/oven-", i%10_000), Kind: engine.OpPut, Field: "value", Value: value}}})
		if err != nil {
			b.Fatal(err)
		}
		if waits = append(waits, wait); len(waits) == 1000 {
			settle()
		}
	}
	settle()
	b.ResetTimer()
	c.start()
	until(b, "equal roots", func() bool { return a.root() == c.root() })
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "candidates/s")
	b.ReportMetric(float64(a.status().Figures.BytesOut)/float64(b.N), "wire-B/candidate")
}

// BenchmarkWriteSeenThere: from the return of a durable write here until an observer there has it; the fsync here is not
// in it, the one there is.
func BenchmarkWriteSeenThere(b *testing.B) {
	a, c := newStation(b), newStation(b)
	join(b, a, c, a.addr)
	until(b, "equal roots", func() bool { return a.root() == c.root() })
	seen := make(chan int64, 1)
	go func() {
		for d, err := range c.e.Observe(b.Context(), engine.Filter{Prefix: "bench/"}, engine.Cursor{}) {
			if err != nil {
				return
			}
			if !d.Snapshot {
				v, _ := d.After.Value.Member("v")
				seen <- v.Int()
			}
		}
	}()
	times := make([]time.Duration, 0, b.N)
	b.ResetTimer()
	for i := range b.N {
		if _, err := a.e.WriteState(b.Context(), engine.Write{Ops: []engine.Op{{Register: fmt.Sprint("bench/", i%100), Kind: engine.OpPut, Field: "v", Value: lattice.Int(int64(i))}}}); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for got := int64(-1); got != int64(i); {
			select {
			case got = <-seen:
			case <-time.After(10 * time.Second):
				b.Fatal("it does not come")
			}
		}
		times = append(times, time.Since(began))
	}
	b.StopTimer()
	report(b, times)
}

func report(b *testing.B, times []time.Duration) {
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkState: bytes on the wire where 10 of 100,000 registers differ and the log is trimmed, and for a full copy.
func BenchmarkState(b *testing.B) {
	for _, full := range []bool{false, true} {
		b.Run(fmt.Sprintf("full=%v", full), func(b *testing.B) {
			const registers = 100_000
			now := start()
			trim := func(o *engine.Options) { o.HistoryAge = time.Hour }
			x, y := newNode(b, now, 1, trim), newNode(b, now, 2, trim)
			for i := 0; i < registers; {
				var ops []engine.Op
				for range 500 {
					ops = append(ops, engine.Op{Register: fmt.Sprintf("site/berlin/oven-%d", i), Kind: engine.OpPut, Field: "value", Value: lattice.Int(int64(i))})
					i++
				}
				if _, err := x.e.WriteState(b.Context(), engine.Write{Ops: ops}); err != nil {
					b.Fatal(err)
				}
			}
			if !full {
				w := meet(x, y)
				w.mustRun()
				w.close()
				for i := range 10 {
					x.put2(fmt.Sprintf("site/berlin/oven-%d", i*9973), int64(-i))
				}
			}
			*now = now.Add(48 * time.Hour)
			for range 400 {
				if s, err := x.e.Status(b.Context()); err != nil || s.Candidates == 0 {
					break
				}
				if err := x.e.Tend(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			w := meet(x, y) // once, whatever b.N: there is one difference to settle
			w.mustRun()
			b.StopTimer()
			if w.kinds[0][kindOffer] == 0 {
				b.Fatalf("no state was offered: %v", w.kinds)
			}
			b.ReportMetric(float64(w.bytes[0]+w.bytes[1]), "wire-B")
			w.close()
			wantEqual(b, x, y)
		})
	}
}

func (n *node) put2(register string, value int64) {
	n.t.Helper()
	if _, err := n.e.WriteState(n.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Field: "value", Value: lattice.Int(value)}}}); err != nil {
		n.t.Fatal(err)
	}
}

// TestVectorsOfManyRestarts: 200 members that have been restarted 20 times each: what two of them say of their vectors.
func TestVectorsOfManyRestarts(t *testing.T) {
	var before, after engine.QStateVector
	for m := range 200 {
		for r := range 20 {
			d := engine.Dot{Origin: engine.Origin{Endpoint: engine.EndpointID{byte(m), byte(m >> 8)}, Incarnation: [16]byte{byte(r)}}.ID(), Seq: uint64(100 + r)}
			before = append(before, d)
			if r == 19 {
				d.Seq++
			}
			after = append(after, d)
		}
	}
	before, after = engine.QStateVector(lattice.SortDots(before)), engine.QStateVector(lattice.SortDots(after))
	s := between(before, after)
	f := frame{kind: kindVector, vector: &vectorFrame{Base: digest(before), Step: s, Digest: digest(after)}}
	if got := s.from(before); !got.Equal(after) {
		t.Fatal("the step leads elsewhere")
	}
	whole := between(nil, after)
	all := frame{kind: kindVector, vector: &vectorFrame{Step: whole, Digest: digest(after)}}
	n, full := len(f.appendTo(nil)), len(all.appendTo(nil))
	t.Logf("the step that every member's writing makes: %d bytes; the whole vector: %d", n, full)
	if n >= 10_000 {
		t.Errorf("a step of %d bytes", n)
	}
}
