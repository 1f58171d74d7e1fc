package main

import (
	"fmt"
	"maps"
	"slices"
)

// mappingMarks by benchmark: an operation with a template and a JSON field, and the look-up of an
// address that no bind has, which a relay does for every frame.
var mappingMarks = map[string]struct{ ns, allocs float64 }{
	"InTemplateJSON": {1000, 2},
	"MapsUnmapped":   {1000, 0},
}

// mapping shows what the mapping costs for each operation: the least of the rounds, which is what
// is left when nothing disturbs it.
func mapping(l *lab, o options) (*table, error) {
	t := &table{title: "Mapping", columns: []string{"ns", "allocations"}}
	const pkg = "./mapping"
	binary, err := l.compile(pkg)
	if err != nil {
		return t, err
	}
	least := map[string]map[string]float64{}
	for range o.rounds {
		all, err := l.goBench(binary, pkg, "^Benchmark(In|Out|Maps|Places)", "200ms")
		if err != nil {
			return t, err
		}
		for name, got := range all {
			if was, ok := least[name]; !ok || got["ns/op"] < was["ns/op"] {
				least[name] = got
			}
		}
	}
	for name := range mappingMarks {
		if least[name] == nil {
			return t, fmt.Errorf("%s has no Benchmark%s", pkg, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(least)) {
		ns, allocs := least[name]["ns/op"], least[name]["allocs/op"]
		r := row{name: name, cells: []string{fmt.Sprintf("%.0f", ns), fmt.Sprintf("%.0f", allocs)}}
		if mark, ok := mappingMarks[name]; ok {
			r.mark, r.verdict, r.gates = fmt.Sprintf("at most %g ns, %g allocations", mark.ns, mark.allocs), atMost(ns, mark.ns), true
			if allocs > mark.allocs {
				r.verdict = miss
			}
		}
		t.add(r)
	}
	return t, nil
}
