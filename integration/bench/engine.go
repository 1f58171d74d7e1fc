package main

import "fmt"

// engine compares durable one-field commits with raw pebble batches of the same keys and bytes.
func engine(l *lab, o options) (*table, error) {
	t := &table{title: "Engine, durable one-field commits", columns: []string{"raw pebble", "spookgw", "fsyncs/commit"}}
	const pkg = "./engine"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	for _, at := range []struct {
		writers int
		mark    float64
	}{{1, 0.9}, {16, 0.7}, {128, 0.5}} {
		var ratios, raw, own, fsyncs []float64
		for range 2*o.rounds - 1 { // short turns: a disk is moodier than a CPU
			writers := fmt.Sprintf("/writers=%d", at.writers)
			got, err := l.goBench(binary, pkg, fmt.Sprintf("^Benchmark(Commit|RawPebble)$/^writers=%d$", at.writers), "500ms")
			if err != nil {
				return t, err
			}
			commit, pebble := got["Commit"+writers], got["RawPebble"+writers]
			if commit["ns/op"] == 0 || pebble["ns/op"] == 0 {
				return t, fmt.Errorf("%s has no BenchmarkCommit%s beside BenchmarkRawPebble%s", pkg, writers, writers)
			}
			raw, own = append(raw, 1e9/pebble["ns/op"]), append(own, 1e9/commit["ns/op"])
			ratios = append(ratios, pebble["ns/op"]/commit["ns/op"])
			fsyncs = append(fsyncs, commit["fsyncs/op"])
		}
		got := median(ratios)
		t.add(row{
			name: fmt.Sprintf("%d writers", at.writers),
			cells: []string{
				fmt.Sprintf("%.0f /s", median(raw)), fmt.Sprintf("%.0f /s, %.2f", median(own), got), fmt.Sprintf("%.2f", median(fsyncs)),
			},
			mark: fmt.Sprintf("at least %g", at.mark), verdict: atLeast(got, at.mark), gates: true,
		})
	}
	return t, nil
}
