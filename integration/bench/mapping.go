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

// mapping shows what the mapping costs for each operation.
func mapping(l *lab, _ options) (*table, error) {
	t := &table{title: "Mapping", columns: []string{"ns", "allocations"}}
	const pkg = "./mapping"
	binary, err := l.compile(pkg)
	if err != nil {
		return nil, err
	}
	all, err := l.goBench(binary, pkg, ".", "300ms")
	if err != nil {
		return nil, err
	}
	for name := range mappingMarks {
		if all[name] == nil {
			return nil, fmt.Errorf("%s has no Benchmark%s", pkg, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		ns, allocs := all[name]["ns/op"], all[name]["allocs/op"]
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
