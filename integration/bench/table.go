package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// noise is how far a quiet machine's own rounds spread: within it, a miss is called near.
const noise = 0.10

// A verdict says whether a figure reaches its mark.
type verdict string

const (
	none verdict = ""
	ok   verdict = "ok"
	near verdict = "near" // misses by no more than the noise
	miss verdict = "MISS"
)

// atLeast holds a ratio against the least it should be.
func atLeast(got, mark float64) verdict {
	switch {
	case got >= mark:
		return ok
	case got >= mark*(1-noise):
		return near
	}
	return miss
}

// atMost holds a figure against the most it should be.
func atMost(got, mark float64) verdict {
	switch {
	case got <= mark:
		return ok
	case got <= mark*(1+noise):
		return near
	}
	return miss
}

// A table is a group of rows with the same columns.
type table struct {
	title   string
	columns []string
	rows    []*row
}

type row struct {
	name    string
	cells   []string
	mark    string
	verdict verdict
	gates   bool // a miss fails the run
}

func (t *table) add(r row) { t.rows = append(t.rows, &r) }

func (t *table) write(out io.Writer) {
	lines := [][]string{append([]string{t.title}, t.columns...)}
	for _, r := range t.rows {
		lines = append(lines, append([]string{"  " + r.name}, r.cells...))
	}
	widths := make([]int, 1+len(t.columns))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for n, line := range lines {
		var text strings.Builder
		for i, width := range widths {
			cell := ""
			if i < len(line) {
				cell = line[i]
			}
			pad := strings.Repeat(" ", width-utf8.RuneCountInString(cell))
			if i == 0 {
				text.WriteString(cell + pad)
			} else {
				text.WriteString("  " + pad + cell)
			}
		}
		if n > 0 {
			r := t.rows[n-1]
			fmt.Fprintf(&text, "  %-4s  %s", r.verdict, r.mark)
		}
		fmt.Fprintln(out, strings.TrimRight(text.String(), " "))
	}
	fmt.Fprintln(out)
}

// failed tells whether a row that gates misses its mark.
func (t *table) failed() bool {
	return slices.ContainsFunc(t.rows, func(r *row) bool { return r.gates && r.verdict == miss })
}

// median of an even number of figures is the mean of the middle two; of none, 0.
func median(figures []float64) float64 {
	if len(figures) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(figures))
	half := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[half]
	}
	return (sorted[half-1] + sorted[half]) / 2
}

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}
