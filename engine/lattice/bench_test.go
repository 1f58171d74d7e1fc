package lattice

import (
	"fmt"
	"slices"
	"testing"
)

// manyWriters is a register that so many origins wrote without knowing of each other, and what they all have applied.
func manyWriters(n int, item bool) (*Register, Context) {
	var dots []Dot
	for i := range n {
		dots = append(dots, Dot{Origin{Incarnation: [16]byte{byte(i), byte(i >> 8), byte(i >> 16)}}.ID(), 1})
	}
	SortDots(dots)
	x, exists := Field{Name: "x"}, Field{Name: Existence}
	if item {
		x.Name = ItemField("x", Int(7))
	}
	for i, d := range dots {
		v := Int(int64(i))
		if item {
			v = Int(7)
		}
		x.Entries = append(x.Entries, Entry{d, Stamp(i), "sql/hr", v})
		exists.Entries = append(exists.Entries, Entry{Dot: d, Time: Stamp(i), By: "sql/hr"})
	}
	return &Register{Fields: []Field{x, exists}}, Context{Vector: dots}
}

// The step of most writes: one field replaced, its register's new encoding and digest.
func BenchmarkWriteOneField(b *testing.B) {
	n := newNode(0)
	if _, err := n.edit(b, nil, hr, noon, put(Int(1)), Edit{Register: "a", Kind: EditPut, Field: "y", Value: String("text")}); err != nil {
		b.Fatal(err)
	}
	g, writer := n.regs["a"], &Writer{Self: n.core.ID(), By: hr.By()}
	edits := []Edit{put(Int(2))}
	var d Draft
	var room []Dot
	var raw []byte
	b.ReportAllocs()
	for b.Loop() {
		room = room[:0]
		d.Begin("a", g, nil, writer, edits, &room)
		if err := d.Apply(&edits[0]); err != nil || !d.Finish() {
			b.Fatal(err)
		}
		after := g.Apply(Arrival{Dot: Dot{writer.Self, 2}, Time: 2, By: writer.By, Ops: d.Ops})
		raw = after.AppendCBOR(raw[:0])
		after.Digest()
	}
}

// What a write costs that saw all of 1,000 writers.
func BenchmarkWriteAfterMany(b *testing.B) {
	for _, rule := range []RuleKind{Latest, Max, Sum, Union} {
		b.Run(rule.String(), func(b *testing.B) {
			g, _ := manyWriters(1000, rule == Union)
			decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": {Kind: rule}}}}
			writer := &Writer{Self: OriginID{9}}
			edits := []Edit{put(Int(7))}
			var d Draft
			var room []Dot
			b.ReportAllocs()
			for b.Loop() {
				room = room[:0]
				d.Begin("a", g, decl, writer, edits, &room)
				if err := d.Apply(&edits[0]); err != nil || !d.Finish() {
					b.Fatal(err)
				}
				g.Apply(Arrival{Dot: Dot{OriginID{9}, 1}, Time: 1, Ops: d.Ops}).Digest()
			}
		})
	}
}

// A join is linear in the entries: ns/entry stays the same.
func BenchmarkJoin(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			g, all := manyWriters(n, false)
			// Each side lacks a third: some came to one only, some were removed on the other.
			part := func(skip int, knows bool) (*Register, Context) {
				h, ctx := &Register{}, Context{}
				for _, f := range g.Fields {
					entries := slices.Clone(f.Entries)
					i := -1
					h.Fields = append(h.Fields, Field{f.Name, slices.DeleteFunc(entries, func(Entry) bool { i++; return i%3 == skip })})
				}
				if knows {
					return h, all
				}
				for i, d := range all.Vector {
					if i%3 != skip {
						ctx.Vector = append(ctx.Vector, d)
					}
				}
				return h, ctx
			}
			x, cx := part(0, true)
			y, cy := part(1, false)
			b.ReportAllocs()
			for b.Loop() {
				x.Join(y, &cx, &cy)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(2*n), "ns/entry")
		})
	}
}
