package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// compile builds the tests of a package of ours once, so that rounds can take turns.
func (l *lab) compile(pkg string) (binary string, err error) {
	binary = filepath.Join(l.dir, filepath.Base(pkg)+".test")
	out, err := exec.CommandContext(l.ctx, "go", "test", "-c", "-o", binary, pkg).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go test -c %s: %w: %s", pkg, err, out)
	}
	return binary, nil
}

// goBench runs Go benchmarks that match a pattern and gives their figures: by benchmark (without
// "Benchmark" and the number of CPUs), then by unit.
func (l *lab) goBench(binary, pkg, pattern, length string, args ...string) (map[string]map[string]float64, error) {
	args = append([]string{"-test.run=^$", "-test.bench=" + pattern, "-test.benchtime=" + length, "-test.benchmem"}, args...)
	cmd := exec.CommandContext(l.ctx, binary, args...)
	cmd.Dir = pkg
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w: %s", pkg, err, out)
	}
	return parseGoBench(string(out)), nil
}

// oneBench runs a single benchmark, in a process of its own, and gives its figures by unit.
func (l *lab) oneBench(binary, pkg, name, length string, args ...string) (map[string]float64, error) {
	all, err := l.goBench(binary, pkg, "^Benchmark"+strings.ReplaceAll(name, "/", "$/^")+"$", length, args...)
	if err != nil {
		return nil, err
	}
	if all[name] == nil {
		return nil, fmt.Errorf("%s has no Benchmark%s", pkg, name)
	}
	return all[name], nil
}

// parseGoBench reads lines of the Go benchmark format (golang.org/design/14313-benchmark-format).
func parseGoBench(out string) map[string]map[string]float64 {
	all := map[string]map[string]float64{}
	in := bufio.NewScanner(strings.NewReader(out))
	for in.Scan() {
		fields := strings.Fields(in.Text())
		if len(fields) < 4 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		if _, err := strconv.Atoi(fields[1]); err != nil {
			continue
		}
		name := strings.TrimPrefix(fields[0], "Benchmark")
		if at := strings.LastIndexByte(name, '-'); at > 0 {
			if _, err := strconv.Atoi(name[at+1:]); err == nil {
				name = name[:at]
			}
		}
		units := map[string]float64{}
		for i := 2; i+1 < len(fields); i += 2 {
			if v, err := strconv.ParseFloat(fields[i], 64); err == nil {
				units[fields[i+1]] = v
			}
		}
		all[name] = units
	}
	return all
}
