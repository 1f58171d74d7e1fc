package engine

import (
	"context"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A rung is one of several engines that differ in how much of something there is.
type rung struct {
	name    string
	engine  *Engine
	prepare func() // what is not measured, before each turn; nil: nothing
	write   func(i int) Write
}

const turn = 256 // writes that wait for the disk together

// climb writes to each rung in turns, so that what disturbs the machine disturbs all of them, and reports the cost of a
// write by name: of time, of processors, of allocations, and how many times the first rung's processors it takes.
// The disk is memory, or is waited for once per turn.
func climb(b *testing.B, rungs []rung) {
	b.Helper()
	type cost struct {
		wall, cpu time.Duration
		allocs    uint64
	}
	costs := make([]cost, len(rungs))
	var waits [turn]func() (Receipt, error)
	n := 0
	run := func(r *rung) (c cost) {
		if r.prepare != nil {
			r.prepare()
		}
		var writes [turn]Write
		for i := range writes {
			writes[i] = r.write(n + i)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		began, cpu := time.Now(), cpuTime()
		for i := range waits {
			var err error
			if _, waits[i], err = r.engine.Submit(context.Background(), writes[i]); err != nil {
				b.Fatal(err)
			}
		}
		for _, wait := range waits {
			if _, err := wait(); err != nil {
				b.Fatal(err)
			}
		}
		c.wall, c.cpu = time.Since(began), cpuTime()-cpu
		runtime.ReadMemStats(&after)
		c.allocs = after.Mallocs - before.Mallocs
		return c
	}
	for i := range rungs { // the first turn finds caches cold
		run(&rungs[i])
	}
	runtime.GC()
	turns := 0
	for b.Loop() {
		n += turn
		turns++
		for i := range rungs {
			c := run(&rungs[i])
			costs[i].wall += c.wall
			costs[i].cpu += c.cpu
			costs[i].allocs += c.allocs
		}
	}
	b.ReportMetric(0, "ns/op") // that of a turn on all rungs says nothing
	writes := float64(turns * turn)
	for i, c := range costs {
		b.ReportMetric(float64(c.wall.Nanoseconds())/writes, "ns/"+rungs[i].name)
		b.ReportMetric(float64(c.cpu.Nanoseconds())/writes, "cpu-ns/"+rungs[i].name)
		b.ReportMetric(float64(c.allocs)/writes, "allocs/"+rungs[i].name)
		if i > 0 {
			b.ReportMetric(float64(c.cpu)/float64(costs[0].cpu), "times/"+rungs[i].name)
		}
	}
}

// openBench opens an engine that does nothing by itself; on disk unless fs is given.
func openBench(b *testing.B, fs vfs.FS) *Engine {
	b.Helper()
	dir := "bench"
	if fs == nil {
		dir = b.TempDir()
	}
	e, err := Open(Options{Dir: dir, FS: fs, Passive: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { e.Close() })
	return e
}

// fill writes registers, 100 at once, and waits for the disk now and then.
func fill(b *testing.B, e *Engine, from, to int, name func(i int) string) {
	b.Helper()
	var last func() (Receipt, error)
	for n := 0; from < to; n++ {
		w := benchWrite(from)
		for w.Ops = nil; len(w.Ops) < 100 && from < to; from++ {
			w.Ops = append(w.Ops, Op{Register: name(from), Kind: OpPut, Field: "value", Value: lattice.Int(int64(from))})
		}
		_, wait, err := e.Submit(b.Context(), w)
		if err != nil {
			b.Fatal(err)
		}
		if last = wait; n%16 == 0 || from >= to {
			if _, err := last(); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func sizeName(n int) string {
	switch {
	case n >= 1e6 && n%1e6 == 0:
		return fmt.Sprintf("%dM", n/1e6)
	case n >= 1e3 && n%1e3 == 0:
		return fmt.Sprintf("%dk", n/1e3)
	}
	return fmt.Sprint(n)
}

// BenchmarkByRegisters is the cost of a write against how many registers exist: of one of 1,000 that are written all the
// time, and of any, which has to be read from the disk first where there are many.
func BenchmarkByRegisters(b *testing.B) {
	for _, which := range []string{"busy", "any"} {
		b.Run(which, func(b *testing.B) {
			var rungs []rung
			for _, n := range []int{1_000, 100_000, 1_000_000} {
				e := openBench(b, nil)
				fill(b, e, 0, n, manyName)
				among := n
				if which == "busy" {
					among = benchRegisters
				}
				rungs = append(rungs, rung{name: sizeName(n), engine: e, write: func(i int) Write {
					w := benchWrite(i)
					w.Ops[0].Register = manyName(i * 7919 % among)
					return w
				}})
			}
			climb(b, rungs)
		})
	}
}

// BenchmarkByHistory is the cost of a write against how long the history of its register is, or up to twice that.
func BenchmarkByHistory(b *testing.B) {
	var rungs []rung
	for _, length := range []int{10, 1_000, 100_000} {
		e := openBench(b, vfs.NewMem())
		written := 0 // to the registers so far
		write := func() Write {
			w := benchWrite(written)
			w.Ops[0].Register = manyName(written / (2 * length))
			written++
			return w
		}
		// The first half of a register's writes is made beforehand. The next turn may reach into several.
		var ready []Write
		prepare := func() {
			for ready = ready[:0]; len(ready) < turn; {
				var wait func() (Receipt, error)
				for written%(2*length) < length {
					var err error
					if _, wait, err = e.Submit(b.Context(), write()); err != nil {
						b.Fatal(err)
					}
				}
				if wait != nil {
					if _, err := wait(); err != nil {
						b.Fatal(err)
					}
				}
				for len(ready) < turn && written%(2*length) >= length {
					ready = append(ready, write())
				}
			}
		}
		rungs = append(rungs, rung{sizeName(length), e, prepare, func(i int) Write { return ready[i%turn] }})
	}
	climb(b, rungs)
}

// BenchmarkByObservers is the cost of a write against how many observers wait for other registers.
func BenchmarkByObservers(b *testing.B) {
	for _, by := range []struct {
		name   string
		filter func(i int) Filter
	}{
		{"name", func(i int) Filter { return Filter{Name: fmt.Sprintf("site/munich/oven-%d", i)} }},
		{"prefix", func(i int) Filter { return Filter{Prefix: fmt.Sprintf("site/munich/hall-%d/", i)} }},
	} {
		b.Run(by.name, func(b *testing.B) {
			var rungs []rung
			for _, n := range []int{0, 1_000, 100_000} {
				e := openBench(b, vfs.NewMem())
				for i := range n {
					if !e.feed.watch(&watcher{filter: by.filter(i), ready: make(chan uint64, 1)}, 0) {
						b.Fatal("not waiting")
					}
				}
				rungs = append(rungs, rung{name: sizeName(n), engine: e, write: benchWrite})
			}
			climb(b, rungs)
		})
	}
}
