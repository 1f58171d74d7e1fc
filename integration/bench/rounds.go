package main

import (
	"fmt"
	"slices"
	"time"
)

// A sample is one contender's figures in one round.
type sample struct {
	rate float64       // operations a second
	cpu  time.Duration // of the contender's own process, for each operation
}

// A contender is one way to reach the server.
type contender struct {
	name string
	proc *process // nil: directly
	addr string
}

// compare takes turns: in each round every contender once, so that what disturbs the machine
// disturbs all.
func compare(rounds int, contenders []contender, measure func(contender) (sample, error)) (*figures, error) {
	f := &figures{contenders: contenders, samples: map[string][]sample{}}
	for range rounds {
		for _, c := range contenders {
			s, err := measure(c)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			f.samples[c.name] = append(f.samples[c.name], s)
		}
	}
	return f, nil
}

// figures are the samples of a comparison, by contender and round.
type figures struct {
	contenders []contender
	samples    map[string][]sample
}

// rate is the median of a contender's rates.
func (f *figures) rate(of string) float64 {
	var rates []float64
	for _, s := range f.samples[of] {
		rates = append(rates, s.rate)
	}
	return median(rates)
}

// ratio is the median of the rounds' ratios of one contender's rate to another's.
func (f *figures) ratio(of, to string) float64 {
	var ratios []float64
	for n, s := range f.samples[of] {
		ratios = append(ratios, ratio(s.rate, f.samples[to][n].rate))
	}
	return median(ratios)
}

// micros is the median of a contender's CPU time for each operation, in µs.
func (f *figures) micros(of string) float64 {
	var micros []float64
	for _, s := range f.samples[of] {
		micros = append(micros, float64(s.cpu)/float64(time.Microsecond))
	}
	return median(micros)
}

// rows adds a row of throughput (the first contender's rate, the others' ratio to it) and one of
// CPU time, without marks, and gives both. Columns are found by the contenders' names.
func (f *figures) rows(t *table, name, unit string) (rate, cpu *row) {
	cells := make([]string, len(t.columns))
	micros := make([]string, len(t.columns))
	first := f.contenders[0].name
	for n, c := range f.contenders {
		at := slices.Index(t.columns, c.name)
		if n == 0 {
			cells[at] = fmt.Sprintf("%.0f %s", f.rate(first), unit)
		} else {
			cells[at] = fmt.Sprintf("%.2f", f.ratio(c.name, first))
		}
		if c.proc != nil {
			micros[at] = fmt.Sprintf("%.1f", f.micros(c.name))
		}
	}
	t.add(row{name: name, cells: cells})
	t.add(row{name: "  CPU µs each", cells: micros})
	return t.rows[len(t.rows)-2], t.rows[len(t.rows)-1]
}
