package main

import "fmt"

// sites shows what two paired gateways need for each other, over TLS on loopback. Bytes are those of frames, without what
// TLS and WebSocket add.
func sites(l *lab, o options) (*table, error) {
	t := &table{title: "Sites, a pair", columns: []string{"", "of"}}
	const pkg = "./engine/link"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	rounds := func(name, length, unit string) (float64, error) {
		var got []float64
		for range o.rounds {
			units, err := l.oneBench(binary, pkg, name, length)
			if err != nil {
				return 0, err
			}
			if units[unit] == 0 {
				return 0, fmt.Errorf("%s: no benchmark %s that gives %s", pkg, name, unit)
			}
			got = append(got, units[unit])
		}
		return median(got), nil
	}
	seen, err := rounds("WriteSeenThere", "300x", "p50-µs")
	if err != nil {
		return t, err
	}
	t.add(row{
		name: "durable here → seen there, its sync included, p50", cells: []string{fmt.Sprintf("%.2f ms", seen/1000), ""},
		mark: "at most 5 ms", verdict: atMost(seen/1000, 5), gates: true,
	})
	rate, err := rounds("CatchUp", "100000x", "candidates/s")
	if err != nil {
		return t, err
	}
	t.add(row{
		name: "catching up", cells: []string{fmt.Sprintf("%.0f/s", rate), "100,000 candidates"},
		mark: "at least 50,000/s", verdict: atLeast(rate, 50_000),
	})
	again, err := rounds("Reconnect", "20x", "wire-B")
	if err != nil {
		return t, err
	}
	t.add(row{
		name: "connecting again, nothing to say", cells: []string{fmt.Sprintf("%.0f B", again), "1,000 registers"},
		mark: "less than 2,000 B", verdict: atMost(again, 2000), gates: true,
	})
	// Bytes are the same in every round, and 100,000 registers take a while.
	whole, err := l.oneBench(binary, pkg, "State/full=true", "1x")
	if err != nil {
		return t, err
	}
	part, err := l.oneBench(binary, pkg, "State/full=false", "1x")
	if err != nil {
		return t, err
	}
	t.add(row{
		name: "10 registers differ, the log is trimmed", cells: []string{fmt.Sprintf("%.0f B", part["wire-B"]), "100,000 registers"},
		mark: "less than 50,000 B", verdict: atMost(part["wire-B"], 50_000), gates: true,
	})
	t.add(row{name: "a full copy of them", cells: []string{fmt.Sprintf("%.0f B", whole["wire-B"]), "100,000 registers"}})
	return t, nil
}
