package sim

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Int64("seed", -1, "replay exactly this history, with a trace")
	histories = flag.Int("histories", 0, "how many histories TestSim runs; 0: as many as are meant for the mode")
	firstSeed = flag.Uint64("first", 0, "the first seed; 0: by the time")
)

func replay(seed uint64) string {
	return "go test ./engine/sim -run 'TestSim$' -seed " + strconv.FormatUint(seed, 10)
}

func TestSim(t *testing.T) {
	if *seedFlag >= 0 {
		r := Run(Options{Seed: uint64(*seedFlag), Trace: os.Stdout})
		t.Logf("whole engine %v, %d steps, %d candidates, %d joins, hash %s", r.Full, r.Steps, r.Candidates, r.Joins, r.Hash)
		if r.Violation != nil {
			t.Fatal(r.Violation)
		}
		return
	}
	n := *histories
	switch {
	case n > 0:
	case race:
		n = 300
	default:
		n = 1000
	}
	run(t, n)
}

// As many as a change has to stand before it lands.
func TestTenThousandHistories(t *testing.T) {
	if race {
		t.Skip("10,000 histories run without the race detector; TestSim has some of them with it")
	}
	n := 10_000
	if testing.Short() {
		n = 500
	}
	run(t, n)
}

// run runs histories at once on all cores, until one violates an invariant.
func run(t *testing.T, n int) {
	t.Helper()
	first := *firstSeed
	if first == 0 {
		first = uint64(time.Now().Unix()) << 20
	}
	var next, done, full, candidates, joins atomic.Uint64
	var wg sync.WaitGroup
	var failed atomic.Bool
	began := time.Now()
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for !failed.Load() {
				i := next.Add(1) - 1
				if i >= uint64(n) {
					return
				}
				r := Run(Options{Seed: first + i})
				candidates.Add(uint64(r.Candidates))
				joins.Add(uint64(r.Joins))
				if r.Full {
					full.Add(1)
				}
				if r.Violation != nil {
					failed.Store(true)
					t.Errorf("seed %d: %v\nreplay: %s", first+i, r.Violation, replay(first+i))
				}
				if k := done.Add(1); k%10_000 == 0 && n > 10_000 {
					fmt.Fprintf(os.Stderr, "%d histories in %s\n", k, time.Since(began).Round(time.Second)) // a test's log comes at its end
				}
			}
		})
	}
	wg.Wait()
	t.Logf("seeds from %d: %d histories (%d of the whole engine), %d candidates, %d joins, in %s", first, done.Load(), full.Load(), candidates.Load(), joins.Load(), time.Since(began).Round(time.Millisecond))
}

// The same seed is the same history.
func TestSameSeedSameHistory(t *testing.T) {
	for _, kind := range []Kind{Core, Full} {
		for seed := range uint64(20) {
			var one, other bytes.Buffer
			a := Run(Options{Seed: seed, Kind: kind, Trace: &one})
			b := Run(Options{Seed: seed, Kind: kind, Trace: &other})
			if a.Hash != b.Hash || !bytes.Equal(one.Bytes(), other.Bytes()) {
				t.Errorf("kind %d, seed %d: %s and %s", kind, seed, a.Hash, b.Hash)
			}
		}
	}
}
