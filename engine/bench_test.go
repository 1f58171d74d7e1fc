package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

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

// spread runs b.N pieces of work over some goroutines.
func spread(b *testing.B, writers int, work func(i int) error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= b.N {
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
}

// BenchmarkCommit is the cost of a durable write of one field. Compare it with BenchmarkRawPebble of the same run.
func BenchmarkCommit(b *testing.B) {
	for _, writers := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			e, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			defer e.Close()
			for i := range benchRegisters {
				e.Submit(b.Context(), benchWrite(i))
			}
			if err := e.settle(benchRegisters); err != nil {
				b.Fatal(err)
			}
			before := e.store.Usage().Fsyncs
			b.ReportAllocs()
			b.ResetTimer()
			spread(b, writers, func(i int) error {
				_, err := e.WriteState(context.Background(), benchWrite(i))
				return err
			})
			b.StopTimer()
			b.ReportMetric(float64(e.store.Usage().Fsyncs-before)/float64(b.N), "fsyncs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// BenchmarkRawPebble writes batches with the keys and sizes of BenchmarkCommit's, from as many goroutines, with
// nothing else done.
func BenchmarkRawPebble(b *testing.B) {
	for _, writers := range benchWriters {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			var fsyncs atomic.Uint64
			shape := batchShape(b)
			s, err := store.Open(store.Options{Dir: b.TempDir(), Log: quiet, Fatal: func(err error) { panic(err) }})
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			before := s.Usage().Fsyncs
			b.ReportAllocs()
			b.ResetTimer()
			spread(b, writers, func(i int) error {
				name := fmt.Sprintf("site/berlin/oven-%03d", i%benchRegisters)
				batch := s.NewBatch()
				for k, size := range shape {
					var key []byte
					switch k {
					case 0:
						key = store.Candidate(Dot{Seq: uint64(i)})
					case 1:
						key = store.Register(name)
					case 2:
						key = store.History(name, uint64(i))
					case 3:
						key = store.Commit(uint64(i))
					}
					value := make([]byte, size)
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
			})
			b.StopTimer()
			fsyncs.Store(s.Usage().Fsyncs - before)
			b.ReportMetric(float64(fsyncs.Load())/float64(b.N), "fsyncs/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "commits/s")
		})
	}
}

// batchShape gives the sizes of the values that a write of benchWrite stores: candidate, register, history, commit.
func batchShape(tb testing.TB) [4]int {
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
	var sizes [4]int
	name := last.States[0].Register
	for i, key := range [][]byte{store.Candidate(last.Dot), store.Register(name), store.History(name, last.Cursor.Ordinal), store.Commit(last.Cursor.Ordinal)} {
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
