package engine

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A farNode makes candidates as another node would, of registers that it alone has written.
type farNode struct {
	core      *lattice.Core
	registers map[string]*lattice.Register
	now       time.Time
}

func newFarNode(n int) *farNode {
	o := Origin{Incarnation: [16]byte{1}}
	binary.BigEndian.PutUint64(o.Endpoint[:], uint64(n)+1)
	return &farNode{lattice.NewCore(lattice.Knowledge{Self: o}), map[string]*lattice.Register{}, time.Now()}
}

// Register implements lattice.Registers.
func (f *farNode) Register(name string) (*lattice.Register, error) { return f.registers[name], nil }

// write puts benchWrite's value, and gives the candidate.
func (f *farNode) write(tb testing.TB, i int) []byte {
	tb.Helper()
	w := benchWrite(i)
	op := &w.Ops[0]
	ops := []lattice.Op{
		{Register: op.Register, Kind: lattice.Put, Field: op.Field, Value: op.Value},
		{Register: op.Register, Kind: lattice.Put, Field: Existence},
	}
	for i := range ops {
		for _, e := range f.registers[op.Register].Entries(ops[i].Field) {
			ops[i].Seen = append(ops[i].Seen, e.Dot)
		}
	}
	var eff lattice.Effects
	if err := f.core.Write(f, ops, nil, w.By, w.By.By(), f.now, &eff); err != nil {
		tb.Fatal(err)
	}
	f.core.Accept(&eff)
	f.registers[op.Register] = eff.Changes[0].After
	return bytes.Clone(eff.Raw)
}

// BenchmarkOrigins joins a register that many origins wrote without knowing of each other, half of them here and half
// there. Its size and the time grow with the origins, and no faster.
func BenchmarkOrigins(b *testing.B) {
	type half struct {
		register *lattice.Register
		context  lattice.Context
	}
	perOrigin := 0.0
	for _, n := range []int{10, 100, 1_000, 10_000} {
		b.Run(sizeName(n), func(b *testing.B) {
			var halves []half
			for i := range n {
				f := newFarNode(i)
				f.write(b, 0)
				halves = append(halves, half{f.registers[benchWrite(0).Ops[0].Register], f.core.Context()})
			}
			join := func(x, y half) half {
				return half{x.register.Join(y.register, &x.context, &y.context), lattice.Context{Vector: x.context.Vector.Join(y.context.Vector)}}
			}
			var whole func(halves []half) half
			whole = func(halves []half) half {
				if len(halves) == 1 {
					return halves[0]
				}
				return join(whole(halves[:len(halves)/2]), whole(halves[len(halves)/2:]))
			}
			x, y := whole(halves[:n/2]), whole(halves[n/2:])
			var all *lattice.Register
			for b.Loop() {
				all = x.register.Join(y.register, &x.context, &y.context)
			}
			if got := len(all.Entries("value")); got != n {
				b.Fatalf("got %d entries, want %d", got, n)
			}
			each := float64(b.Elapsed().Nanoseconds()) / float64(b.N) / float64(n)
			if perOrigin == 0 {
				perOrigin = each
			}
			b.ReportMetric(each, "ns/origin")
			b.ReportMetric(float64(len(all.AppendCBOR(nil)))/float64(n), "B/origin")
			b.ReportMetric(each/perOrigin, "times/origin")
		})
	}
}

// BenchmarkReceive takes candidates of other nodes in batches, as one that catches up does: of one node, or of many in
// turns.
func BenchmarkReceive(b *testing.B) {
	const batch = 256
	for _, origins := range []int{1, 100} {
		b.Run(fmt.Sprintf("origins=%d", origins), func(b *testing.B) {
			nodes := make([]*farNode, origins)
			for i := range nodes {
				nodes[i] = newFarNode(i)
			}
			candidates := make([][]byte, b.N)
			for i := range candidates {
				candidates[i] = nodes[i%origins].write(b, i)
			}
			e := openBench(b, vfs.NewMem())
			b.ReportAllocs()
			b.ResetTimer()
			cpu := cpuTime()
			for at := 0; at < b.N; at += batch {
				part := candidates[at:min(at+batch, b.N)]
				if r, err := e.Receive(b.Context(), part...); err != nil || r.Applied != len(part) {
					b.Fatalf("got %+v, %v", r, err)
				}
			}
			b.ReportMetric(float64((cpuTime()-cpu).Nanoseconds())/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "candidates/s")
		})
	}
}
