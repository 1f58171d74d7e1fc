package main

import (
	"fmt"
	"maps"
	"slices"
)

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
	if len(all) == 0 {
		return nil, fmt.Errorf("%s has no benchmarks", pkg)
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		ns, allocs := all[name]["ns/op"], all[name]["allocs/op"]
		t.add(row{name: name, cells: []string{fmt.Sprintf("%.0f", ns), fmt.Sprintf("%.0f", allocs)}})
	}
	return t, nil
}
