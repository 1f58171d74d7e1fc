package engine

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var (
	registers = flag.Int("registers", 0, "registers of BenchmarkMany; it is skipped without")
	versions  = flag.Int("versions", 3, "of each register of BenchmarkMany")
)

// BenchmarkMany writes a great many registers several times each, as fast as it can, and in an order that has little to
// do with their names; then opens them anew, and reads any of them.
func BenchmarkMany(b *testing.B) {
	if *registers == 0 {
		b.Skip("set -registers")
	}
	dir := b.TempDir()
	e, err := Open(Options{Dir: dir})
	if err != nil {
		b.Fatal(err)
	}
	forgetPeak()
	began := time.Now()
	for round := range *versions {
		// A prime that is no factor of their number meets each of them once.
		fill(b, e, 0, *registers, func(i int) string { return manyName((i*primes[round%len(primes)] + round) % *registers) })
	}
	if err := e.settle(e.seqr.ordinal); err != nil {
		b.Fatal(err)
	}
	load := time.Since(began)
	peak := peakMB()
	if got, want := e.seqr.registers, uint64(*registers); got != want {
		b.Fatalf("got %d registers, want %d", got, want)
	}
	if err := e.Close(); err != nil {
		b.Fatal(err)
	}
	began = time.Now()
	if e, err = Open(Options{Dir: dir}); err != nil {
		b.Fatal(err)
	}
	defer e.Close()
	opened := time.Since(began)
	n := 0
	for b.Loop() {
		n++
		if s, err := e.ReadState(b.Context(), manyName(n*7919%*registers)); err != nil || !s.Exists {
			b.Fatal(s, err)
		}
	}
	b.ReportMetric(peak, "peak-MB")
	b.ReportMetric(float64(*registers**versions)/load.Seconds(), "writes/s")
	b.ReportMetric(opened.Seconds(), "open-s")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(n), "read-us")
}

var primes = [...]int{1, 7919, 104729}

func manyName(i int) string {
	return fmt.Sprintf("site/%03d/machine-%04d/sensor-%d", i%500, i/500%1000, i)
}

// forgetPeak begins the peak of the process's resident memory anew, where the system can (Linux, proc_pid_clear_refs(5)).
func forgetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) }

// peakMB is the most that the process had in memory, in MB; 0 where the system does not tell.
func peakMB() float64 {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		var kB float64
		if _, err := fmt.Sscanf(line, "VmHWM: %g kB", &kB); err == nil {
			return kB * 1024 / 1e6
		}
	}
	return 0
}
