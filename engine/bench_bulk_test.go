package engine

import (
	"fmt"
	"testing"

	"github.com/spooksystems/gateway/engine/lattice"
)

// BenchmarkBulk is the cost of one document of 20,000 rows with three fields each, as one durable batch.
func BenchmarkBulk(b *testing.B) {
	const rows = 20_000
	e, err := Open(Options{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	names := make([]string, rows)
	for i := range names {
		names[i] = fmt.Sprintf("recipe/bread/parameter-%05d", i)
	}
	b.ReportAllocs()
	for i := range b.N {
		w := Write{Bulk: true, By: benchWrite(0).By}
		for k, n := range names {
			w.Ops = append(w.Ops,
				Op{Register: n, Kind: OpPut, Field: "value", Value: lattice.Int(int64(i + k))},
				Op{Register: n, Kind: OpPut, Field: "unit", Value: lattice.String("kg")},
				Op{Register: n, Kind: OpPut, Field: "label", Value: lattice.String(n)})
		}
		if _, err := e.WriteState(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*rows), "µs/row")
}
