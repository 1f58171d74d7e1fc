package main

import (
	"fmt"
	"strconv"
)

// flatMark is how many times the processor time of the smallest a write may take where there is a
// great deal more of something.
const flatMark = 1.25

// flat shows what a write costs where there is little of something, and how many times that where there is much.
func flat(l *lab, o options) (*table, error) {
	t := &table{title: "Engine, CPU µs of a write", columns: []string{"few", "more", "many", "allocations"}}
	const pkg = "./engine"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	for _, b := range []struct {
		name, bench string
		rungs       [3]string
		reported    bool
	}{
		{"1k, 100k, 1M registers, 1,000 of them busy", "ByRegisters/busy", [3]string{"1k", "100k", "1M"}, false},
		{"the same, any of them", "ByRegisters/any", [3]string{"1k", "100k", "1M"}, true},
		{"10, 1k, 100k entries of history", "ByHistory", [3]string{"10", "1k", "100k"}, false},
		{"0, 1k, 100k others observed by name", "ByObservers/name", [3]string{"0", "1k", "100k"}, false},
		{"0, 1k, 100k others observed by prefix", "ByObservers/prefix", [3]string{"0", "1k", "100k"}, false},
	} {
		got, err := l.oneBench(binary, pkg, b.bench, strconv.Itoa(40*o.rounds)+"x")
		if err != nil {
			return t, err
		}
		r := row{name: b.name, mark: "reported"}
		worst := 0.0
		for i, rung := range b.rungs {
			times := got["times/"+rung]
			cell := fmt.Sprintf("%.1f", got["cpu-ns/"+rung]/1e3)
			if i > 0 {
				cell = fmt.Sprintf("%.2f", times)
			}
			r.cells = append(r.cells, cell)
			worst = max(worst, times)
		}
		r.cells = append(r.cells, fmt.Sprintf("%.0f to %.0f", got["allocs/"+b.rungs[0]], got["allocs/"+b.rungs[2]]))
		if !b.reported {
			r.mark, r.verdict = fmt.Sprintf("at most %g times", flatMark), atMost(worst, flatMark)
		}
		t.add(r)
	}
	return t, nil
}

// scale shows the engine with a million registers, many observers, many origins, and catching up.
func scale(l *lab, o options) (*table, error) {
	t := &table{title: "Engine, much of it", columns: []string{""}}
	const pkg = "./engine"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	one := func(name, cell string, v verdict, mark string) {
		t.add(row{name: name, cells: []string{cell}, mark: mark, verdict: v, gates: v != none})
	}
	got, err := l.oneBench(binary, pkg, "Many", "20000x", "-registers=1000000", "-versions=2")
	if err != nil {
		return t, err
	}
	one("1M registers written twice, peak of memory", fmt.Sprintf("%.0f MB", got["peak-MB"]), atMost(got["peak-MB"], 200), "at most 200 MB")
	one("  writes, 100 in a commit", fmt.Sprintf("%.0f /s", got["writes/s"]), none, "reported")
	one("  opened", fmt.Sprintf("%.2f s", got["open-s"]), atMost(got["open-s"], 2), "at most 2 s")
	one("  any of them read", fmt.Sprintf("%.1f µs", got["read-us"]), atMost(got["read-us"], 50), "at most 50 µs")
	if got, err = l.oneBench(binary, pkg, "FanOut", "300x"); err != nil {
		return t, err
	}
	one("32 KiB to 1,000 observers, allocated for each", fmt.Sprintf("%.0f B", got["B/delivery"]), atMost(got["B/delivery"], 4096), "at most 4096 B")
	one("  CPU for each", fmt.Sprintf("%.1f µs", got["cpu-ns/delivery"]/1e3), none, "reported")
	for _, n := range []string{"10", "100", "1k", "10k"} {
		if got, err = l.oneBench(binary, pkg, "Origins/"+n, "200ms"); err != nil {
			return t, err
		}
		one("register of "+n+" origins, joined, of each", fmt.Sprintf("%.0f B, %.0f ns", got["B/origin"], got["ns/origin"]), none, "reported")
	}
	for _, n := range []string{"1", "100"} {
		if got, err = l.oneBench(binary, pkg, "Receive/origins="+n, "100000x"); err != nil {
			return t, err
		}
		one("100k candidates of "+n+" origins taken", fmt.Sprintf("%.0f /s", got["candidates/s"]), none, "reported")
	}
	return t, nil
}
