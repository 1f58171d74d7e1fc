package engine

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

func bigWrite(i int) Write {
	w := benchWrite(0)
	w.Ops[0].Value = lattice.String(strings.Repeat(string(rune('a'+i%26)), 32<<10))
	return w
}

// BenchmarkFanOut is one write of 32 KiB that 1,000 observers of its register get: what of it each of them costs.
func BenchmarkFanOut(b *testing.B) {
	const observers = 1000
	e := openBench(b, vfs.NewMem())
	ctx, cancel := context.WithCancel(b.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	got := make(chan struct{}, observers)
	from := Cursor{Log: e.log}
	for range observers {
		all.Go(func() {
			for d, err := range e.Observe(ctx, Filter{Name: bigWrite(0).Ops[0].Register}, from) {
				if err != nil {
					return
				}
				if v, ok := d.After.Value.Member("value"); !ok || len(v.Text()) != 32<<10 {
					b.Errorf("got %s", d.After.Value)
					return
				}
				got <- struct{}{}
			}
		})
	}
	deliver := func(i int) {
		if _, err := e.WriteState(b.Context(), bigWrite(i)); err != nil {
			b.Fatal(err)
		}
		for range observers {
			<-got
		}
	}
	deliver(0)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, n := cpuTime(), 0
	for b.Loop() {
		n++
		deliver(n)
	}
	cpu = cpuTime() - cpu
	runtime.ReadMemStats(&after)
	deliveries := float64(n * observers)
	b.ReportMetric(float64(after.TotalAlloc-before.TotalAlloc)/deliveries, "B/delivery")
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/deliveries, "allocs/delivery")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
	b.ReportMetric(float64(cpu.Nanoseconds())/deliveries, "cpu-ns/delivery")
}

// Observers are given the one value that there is, whatever its size.
func TestObserversShareValues(t *testing.T) {
	e, err := Open(Options{Dir: "shared", FS: vfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var texts [3]string
	var all sync.WaitGroup
	for i, f := range []Filter{{Name: bigWrite(0).Ops[0].Register}, {Prefix: "site/"}, {}} {
		all.Go(func() {
			for d, err := range e.Observe(ctx, f, Cursor{Log: e.log}) {
				if err != nil {
					t.Error(err)
					return
				}
				v, _ := d.After.Value.Member("value")
				texts[i] = v.Text()
				return
			}
		})
	}
	if _, err := e.WriteState(ctx, bigWrite(0)); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	for i := range texts {
		if len(texts[i]) != 32<<10 {
			t.Fatalf("observer %d got a value of %d bytes", i, len(texts[i]))
		}
		if unsafe.StringData(texts[i]) != unsafe.StringData(texts[0]) {
			t.Errorf("observer %d was given a copy", i)
		}
	}
}
