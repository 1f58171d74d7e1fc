package main

import (
	"fmt"
	"maps"
	"math"
	"slices"
)

// mappingMarks by benchmark: an operation with a template and a JSON field, the look-up of an address that no bind has,
// which a relay does for every frame, and that of one among 10,000 binds; a CSV of 10,000 rows to its registers and back;
// all checks of 1,000 binds.
var mappingMarks = map[string]struct{ ns, allocs float64 }{
	"InTemplateJSON": {1000, 2},
	"MapsUnmapped":   {1000, 0},
	"FindAmong10000": {500, 0},
	"EachIn":         {100e6, math.Inf(1)},
	"EachOut":        {100e6, math.Inf(1)},
	"LoadAllKinds":   {1e9, math.Inf(1)},
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
		all, err := l.goBench(binary, pkg, "^Benchmark(In|Out|Maps|Places|Each|FindAmong|LoadAll)", "200ms")
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
			r.mark, r.verdict, r.gates = fmt.Sprintf("at most %.0f ns", mark.ns), atMost(ns, mark.ns), true
			if !math.IsInf(mark.allocs, 1) {
				r.mark += fmt.Sprintf(", %g allocations", mark.allocs)
			}
			if allocs > mark.allocs {
				r.verdict = miss
			}
		}
		t.add(r)
	}
	return t, nil
}
