//go:build unix

package gateway

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql"
)

// captureRows is how many rows the table has of which BenchmarkCapture changes one at a time: as many as pgbench's accounts.
const captureRows = 100_000

// A captureLab is a table in front of which a gateway stands, with the feed played by the benchmark.
type captureLab struct {
	store *engine.Engine
	links *Links
	link  wrappers.Link
	at    int
}

func newCaptureLab(b *testing.B) *captureLab {
	store, err := engine.Open(engine.Options{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler), MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	set, diags := mapping.Load(mapping.Input{
		Files: []diag.File{{Name: "b.hcl", Bytes: []byte(`register "account/{id}" {
  fields = { abalance = number }
  bind "sql" "pgbench_accounts" {
    key = { id = payload.aid }
  }
}`)}},
		Wrappers: []mapping.WrapperInfo{{Protocol: sql.Protocol, Name: "sql", Listens: true, Upstream: true}}, Domains: []string{"local"},
	})
	if diags.HasErrors() {
		b.Fatal(diags)
	}
	if err := store.Declare(b.Context(), set.Rules()); err != nil {
		b.Fatal(err)
	}
	l := &captureLab{store: store, links: NewLinks(LinksOptions{Store: store, Log: slog.New(slog.DiscardHandler)})}
	l.links.Use(&Generation{Number: 1, Set: set})
	l.link = l.links.Open(LinkInfo{Protocol: sql.Protocol, Name: "sql", Relay: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := range l.link.Follow(ctx, wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			b.Errorf("got %+v, want nothing to write back", c)
			return
		}
	}()
	b.Cleanup(func() { cancel(); <-done })
	return l
}

// row is an account as the feed shows it.
func (l *captureLab) row(b *testing.B, id, balance int) wrappers.Observation {
	raw, err := cbor.Marshal(map[string]any{"aid": id, "bid": 1, "abalance": balance, "filler": "                                                                                    "})
	if err != nil {
		b.Fatal(err)
	}
	l.at++
	return wrappers.Observation{
		Verb: wrappers.Put, Address: "public.pgbench_accounts?aid=" + strconv.Itoa(id), Version: wrappers.Version(strconv.Itoa(1000 + l.at)),
		Payload: wrappers.Payload{Raw: raw, Type: "application/cbor", Meta: map[string]string{"statement": "UPDATE", "application": "pgbench"}},
		Who:     wrappers.Who{Principal: "postgres", Peer: "127.0.0.1:1"},
		Keep:    []wrappers.Record{{Key: "feed/at", Value: fmt.Appendf(nil, "0/%X 1", l.at)}},
	}
}

// copy shows the whole table for the first time.
func (l *captureLab) copy(b *testing.B) {
	var batch []wrappers.Observation
	for id := 1; id <= captureRows; id++ {
		o := l.row(b, id, 0)
		o.Keep = append(o.Keep, wrappers.Record{Key: "row/" + o.Address, Value: []byte{1}})
		if batch = append(batch, o); len(batch) == 512 || id == captureRows {
			at := wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotPart}
			if id == captureRows {
				at.Snapshot = wrappers.SnapshotEnd
			}
			for i := range batch[1:] {
				batch[i].More = true
			}
			if err := l.link.Seen(b.Context(), at, batch); err != nil {
				b.Fatal(err)
			}
			batch = batch[:0]
		}
	}
	for {
		at, err := l.store.Cursor(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if l.link.(*link).back.resting(at.Ordinal) {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func processCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkCapture is what a row costs from the feed's observation until its register has it and its write-back knows that:
// so many transactions of one row in one call, of rows that nobody has looked at lately.
func BenchmarkCapture(b *testing.B) {
	for _, n := range []int{1, 4, 16} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			l := newCaptureLab(b)
			l.copy(b)
			random := rand.New(rand.NewPCG(1, 2))
			b.ReportAllocs()
			b.ResetTimer()
			cpu, rows := processCPU(), 0
			for range b.N {
				var batch []wrappers.Observation
				for range n {
					batch = append(batch, l.row(b, 1+random.IntN(captureRows), 1+random.IntN(10_000)))
				}
				rows += n
				if err := l.link.Seen(b.Context(), wrappers.Position{Feed: true}, batch); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64((processCPU()-cpu).Microseconds())/float64(rows), "cpu-µs/row")
		})
	}
}

// BenchmarkFirstCopy is what a row of a table's first copy costs.
func BenchmarkFirstCopy(b *testing.B) {
	for range b.N {
		l := newCaptureLab(b)
		cpu := processCPU()
		l.copy(b)
		b.ReportMetric(float64((processCPU()-cpu).Microseconds())/captureRows, "cpu-µs/row")
	}
}
