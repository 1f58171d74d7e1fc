package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

var benchWriters = []int{1, 16, 128}

const benchRegisters = 1000

func benchWrite(i int) Write {
	return Write{
		Ops: []Op{{Register: fmt.Sprintf("site/berlin/oven-%03d", i%benchRegisters), Kind: OpPut, Field: "value", Value: lattice.Int(int64(i))}},
		By: Cause{Principal: "floor/anonymous", Protocol: "mqtt", Wrapper: "floor", Peer: "10.0.0.17:51234", Verb: "put",
			Address: "sensors/berlin/oven-003", Source: "mappings.d/sensors.hcl:12"},
	}
}

// BenchmarkCommit is the cost of a durable write of one field. In turns with it, as many goroutines write batches with
// the same keys and as many bytes to pebble alone: of-raw is the engine's speed as a part of that, in the same run and
// so under the same other load.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			e, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			raw, err := store.Open(store.Options{Dir: b.TempDir(), Log: quiet, Fatal: func(err error) { panic(err) }})
			if err != nil {
				b.Fatal(err)
			}
			defer raw.Close(store.End{})
			for i := range benchRegisters {
				if _, _, err := e.Submit(b.Context(), benchWrite(i)); err != nil {
					b.Fatal(err)
				}
			}
			if err := e.settle(benchRegisters); err != nil {
				b.Fatal(err)
			}
			shape := batchShape(b)
			bytes := 0
			for k, key := range batchKeys(0) {
				bytes += len(key) + shape[k]
			}
			before := e.store.Usage().Fsyncs
			var engine, alone, engineCPU, aloneCPU time.Duration
			for from := 0; from < b.N; {
				to := min(b.N, from+64*writers)
				cpu := cpuTime()
				engine += spread(b, writers, from, to, func(i int) error {
					_, err := e.WriteState(context.Background(), benchWrite(i))
					return err
				})
				engineCPU, cpu = engineCPU+cpuTime()-cpu, cpuTime()
				alone += spread(b, writers, from, to, func(i int) error { return rawWrite(raw, shape, i) })
				aloneCPU += cpuTime() - cpu
				from = to
			}
			b.ReportMetric(float64(engine.Nanoseconds())/float64(b.N), "ns/op")
			b.ReportMetric(float64(alone.Nanoseconds())/float64(b.N), "raw-ns/op")
			b.ReportMetric(float64(alone)/float64(engine), "of-raw")
			b.ReportMetric(float64(engineCPU.Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(aloneCPU.Nanoseconds())/float64(b.N), "raw-cpu-ns/op")
			b.ReportMetric(float64(e.store.Usage().Fsyncs-before)/float64(b.N), "fsyncs/op")
			b.ReportMetric(float64(bytes), "bytes/commit")
		})
	}
}

// spread runs pieces of work over some goroutines, and says how long that took.
func spread(b *testing.B, writers, from, to int, work func(i int) error) time.Duration {
	b.Helper()
	next := atomic.Int64{}
	next.Store(int64(from))
	var wg sync.WaitGroup
	began := time.Now()
	for range writers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= to {
					return
				}
				if err := work(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

// batchKeys are those of a commit of benchWrite: candidate, register, history, commit, hash.
func batchKeys(i int) [5][]byte {
	name := benchWrite(i).Ops[0].Register
	return [...][]byte{store.Candidate(Dot{Seq: uint64(i)}), store.Register(name), store.History(name, uint64(i)), store.Commit(uint64(i)), store.Shard(shardOf(name))}
}

func rawWrite(s *store.Store, shape [5]int, i int) error {
	batch := s.NewBatch()
	for k, key := range batchKeys(i) {
		value := make([]byte, shape[k])
		for j := range value {
			value[j] = byte(i + j*7)
		}
		if err := batch.Set(key, value); err != nil {
			return err
		}
	}
	if err := s.Apply(batch, true); err != nil {
		return err
	}
	return batch.Close()
}

// batchShape gives the sizes of the values behind batchKeys.
func batchShape(tb testing.TB) [5]int {
	fs := vfs.NewMem()
	e, err := Open(Options{Dir: "shape", FS: fs})
	if err != nil {
		tb.Fatal(err)
	}
	defer e.Close()
	var last Receipt
	for i := range 300 {
		w := benchWrite(i)
		w.Ops[0].Register = benchWrite(0).Ops[0].Register
		if last, err = e.WriteState(tb.Context(), w); err != nil {
			tb.Fatal(err)
		}
	}
	var sizes [5]int
	name := last.States[0].Register
	for i, key := range [][]byte{store.Candidate(last.Dot), store.Register(name), store.History(name, last.Cursor.Ordinal), store.Commit(last.Cursor.Ordinal), store.Shard(shardOf(name))} {
		if _, err := e.store.Get(key, func(value []byte) error { sizes[i] = len(value); return nil }); err != nil {
			tb.Fatal(err)
		}
	}
	return sizes
}

// BenchmarkSequencer is the part of a commit that is done one at a time: everything but the wait for the disk.
func BenchmarkSequencer(b *testing.B) {
	e, err := Open(Options{Dir: "bench", FS: vfs.NewMem()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	b.ReportAllocs()
	var waits []func() (Receipt, error)
	i := 0
	for b.Loop() {
		_, wait, err := e.Submit(context.Background(), benchWrite(i))
		if err != nil {
			b.Fatal(err)
		}
		i++
		if waits = append(waits, wait); len(waits) == 256 {
			b.StopTimer()
			for _, wait := range waits {
				if _, err := wait(); err != nil {
					b.Fatal(err)
				}
			}
			waits = waits[:0]
			b.StartTimer()
		}
	}
}

var quiet = slog.New(slog.DiscardHandler)
