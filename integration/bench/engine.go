package main

import "fmt"

// engine compares durable one-field commits with raw pebble batches of the same keys and bytes,
// which BenchmarkCommit writes in turns with its own.
func engine(l *lab, o options) (*table, error) {
	t := &table{title: "Engine, durable one-field commits", columns: []string{"raw pebble", "CPU µs", "spookgw", "CPU µs", "fsyncs/commit"}}
	const pkg = "./engine"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	for _, at := range []struct {
		writers int
		mark    float64
	}{{1, 0.9}, {16, 0.7}, {128, 0.5}} {
		name := fmt.Sprintf("Commit/writers=%d", at.writers)
		units := map[string][]float64{}
		for range o.rounds {
			all, err := l.goBench(binary, pkg, fmt.Sprintf("^BenchmarkCommit$/^writers=%d$", at.writers), "1s")
			if err != nil {
				return t, err
			}
			got := all[name]
			if got["ns/op"] == 0 || got["raw-ns/op"] == 0 {
				return t, fmt.Errorf("%s has no Benchmark%s that tells raw-ns/op", pkg, name)
			}
			for unit, value := range got {
				units[unit] = append(units[unit], value)
			}
			units["ratio"] = append(units["ratio"], got["raw-ns/op"]/got["ns/op"])
		}
		ratio := median(units["ratio"])
		t.add(row{
			name: fmt.Sprintf("%d writers", at.writers),
			cells: []string{
				fmt.Sprintf("%.0f /s", 1e9/median(units["raw-ns/op"])), fmt.Sprintf("%.1f", median(units["raw-cpu-ns/op"])/1e3),
				fmt.Sprintf("%.0f /s, %.2f", 1e9/median(units["ns/op"]), ratio), fmt.Sprintf("%.1f", median(units["cpu-ns/op"])/1e3),
				fmt.Sprintf("%.2f", median(units["fsyncs/op"])),
			},
			mark: fmt.Sprintf("at least %g", at.mark), verdict: atLeast(ratio, at.mark), gates: true,
		})
	}
	return t, nil
}
