package main

import (
	"fmt"
	"sync/atomic"
	"time"
)

// A store is what the engine's commits are compared with. Its clients go through a socket, which
// the engine's do not.
type store struct {
	name, program string
	open          func() (*process, error)
	dial          func(addr string) (storeWriter, error)
	marks         map[int]float64 // by writers
}

var commitWriters = []int{1, 16, 128}

// engine compares durable one-field commits with raw pebble batches of the same keys and bytes,
// which BenchmarkCommit writes in turns with its own, and with stores that are there.
func engine(l *lab, o options) (*table, error) {
	t := &table{title: "Engine, durable one-field commits", columns: []string{"the other", "CPU µs", "spookgw", "CPU µs", "fsyncs/commit"}}
	const pkg, length = "./engine", time.Second
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	pebbleMarks := map[int]float64{1: 0.9, 16: 0.7, 128: 0.5}
	stores := []store{
		{"Redis", "redis-server", l.redis, dialRedis, map[int]float64{1: 1, 16: 1, 128: 3}},
		{"etcd", "etcd", l.etcd, dialEtcd(), map[int]float64{1: 1.5, 16: 4, 128: 10}},
	}
	running := map[string]*process{}
	for _, s := range stores {
		if missingOf([]string{s.program}) != "" {
			continue
		}
		if running[s.name], err = s.open(); err != nil {
			return t, err
		}
	}
	var commit atomic.Uint64
	for _, writers := range commitWriters {
		name := fmt.Sprintf("Commit/writers=%d", writers)
		units := map[string][]float64{}
		for range o.rounds {
			all, err := l.goBench(binary, pkg, fmt.Sprintf("^BenchmarkCommit$/^writers=%d$", writers), length.String())
			if err != nil {
				return t, err
			}
			got := all[name]
			if got["ns/op"] == 0 || got["raw-ns/op"] == 0 || got["bytes/commit"] == 0 {
				return t, fmt.Errorf("%s has no Benchmark%s that tells raw-ns/op and bytes/commit", pkg, name)
			}
			for unit, value := range got {
				units[unit] = append(units[unit], value)
			}
			for _, s := range stores {
				p := running[s.name]
				if p == nil {
					continue
				}
				other, err := commits(p, s.dial, writers, int(got["bytes/commit"]), length, &commit)
				if err != nil {
					return t, fmt.Errorf("%s: %w", s.name, err)
				}
				units[s.name] = append(units[s.name], other.rate)
				units[s.name+" CPU"] = append(units[s.name+" CPU"], float64(other.cpu)/float64(time.Microsecond))
				units[s.name+" ratio"] = append(units[s.name+" ratio"], 1e9/got["ns/op"]/other.rate)
			}
		}
		plural := "s"
		if writers == 1 {
			plural = ""
		}
		beside := func(other string, rate, cpu, ratio, mark float64) {
			t.add(row{
				name: fmt.Sprintf("%d writer%s, beside %s", writers, plural, other),
				cells: []string{
					fmt.Sprintf("%.0f /s", rate), fmt.Sprintf("%.1f", cpu),
					fmt.Sprintf("%.0f /s, %.2f", 1e9/median(units["ns/op"]), ratio), fmt.Sprintf("%.1f", median(units["cpu-ns/op"])/1e3),
					fmt.Sprintf("%.2f", median(units["fsyncs/op"])),
				},
				mark: fmt.Sprintf("at least %g", mark), verdict: atLeast(ratio, mark), gates: true,
			})
		}
		beside("raw pebble", 1e9/median(units["raw-ns/op"]), median(units["raw-cpu-ns/op"])/1e3, median(units["of-raw"]), pebbleMarks[writers])
		for _, s := range stores {
			if running[s.name] == nil {
				t.add(row{name: fmt.Sprintf("%d writer%s, beside %s", writers, plural, s.name), cells: []string{"not installed"}})
				continue
			}
			beside(s.name, median(units[s.name]), median(units[s.name+" CPU"]), median(units[s.name+" ratio"]), s.marks[writers])
		}
	}
	return t, nil
}
