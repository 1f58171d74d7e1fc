package lattice

import "slices"

// A QStateVector says, per origin, the highest seq applied; everything below it was applied too. It is sorted by
// origin, has one entry per origin and none with seq 0. It is immutable: what changes it returns another.
type QStateVector []Dot

func (v QStateVector) find(o OriginID) (int, bool) {
	return slices.BinarySearchFunc(v, o, func(d Dot, o OriginID) int { return d.Origin.Compare(o) })
}

// Seq is the highest seq of o, 0 if none.
func (v QStateVector) Seq(o OriginID) uint64 {
	if i, ok := v.find(o); ok {
		return v[i].Seq
	}
	return 0
}

// Covers says whether d was applied.
func (v QStateVector) Covers(d Dot) bool { return d.Seq <= v.Seq(d.Origin) }

// CoversAll says whether all of w was applied.
func (v QStateVector) CoversAll(w QStateVector) bool {
	return !slices.ContainsFunc(w, func(d Dot) bool { return !v.Covers(d) })
}

// With is v where d was applied as well.
func (v QStateVector) With(d Dot) QStateVector {
	i, ok := v.find(d.Origin)
	if ok && v[i].Seq >= d.Seq || d.IsZero() {
		return v
	}
	out := make(QStateVector, 0, len(v)+1)
	out = append(append(out, v[:i]...), d)
	if ok {
		i++
	}
	return append(out, v[i:]...)
}

// Without is v without an origin.
func (v QStateVector) Without(o OriginID) QStateVector {
	i, ok := v.find(o)
	if !ok {
		return v
	}
	return slices.Concat(v[:i], v[i+1:])
}

// Join is the higher of both, origin by origin.
func (v QStateVector) Join(w QStateVector) QStateVector {
	if len(w) == 0 {
		return v
	}
	out := make(QStateVector, 0, max(len(v), len(w)))
	for len(v) > 0 && len(w) > 0 {
		switch c := v[0].Origin.Compare(w[0].Origin); {
		case c < 0:
			out, v = append(out, v[0]), v[1:]
		case c > 0:
			out, w = append(out, w[0]), w[1:]
		default:
			out = append(out, Dot{v[0].Origin, max(v[0].Seq, w[0].Seq)})
			v, w = v[1:], w[1:]
		}
	}
	return append(append(out, v...), w...)
}

// Equal says that both applied the same.
func (v QStateVector) Equal(w QStateVector) bool { return slices.Equal(v, w) }

// SortDots puts dots in order and each once, in place.
func SortDots(dots []Dot) []Dot {
	slices.SortFunc(dots, Dot.Compare)
	return slices.Compact(dots)
}

// A Context says which candidates a node has applied: what a register has no entry of, and the context covers, was
// removed. It belongs to the node, not to each register, so that a register costs nothing for having been written by many.
type Context struct {
	Vector QStateVector
	// Retired are the last candidates of origins that have left all vectors: every member has all of theirs.
	Retired QStateVector
}

// Covers says whether d was applied.
func (c *Context) Covers(d Dot) bool { return c.Vector.Covers(d) || c.Retired.Covers(d) }

// Join has seen what either has seen.
func (c Context) Join(o Context) Context {
	out := Context{Retired: c.Retired.Join(o.Retired)}
	for _, d := range c.Vector.Join(o.Vector) {
		if d.Seq > out.Retired.Seq(d.Origin) {
			out.Vector = append(out.Vector, d)
		}
	}
	return out
}
