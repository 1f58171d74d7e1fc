package lattice

import "slices"

// A Part is what one write says of one register, or of one group: it has a Draft or a Group.
type Part struct {
	Base  *Register // of the register, or the unit
	Decl  *Decl
	Draft *Draft
	Group *GroupDraft
}

// Apply notes one edit.
func (p *Part) Apply(e *Edit) error {
	if p.Group != nil {
		return p.Group.Apply(e)
	}
	return p.Draft.Apply(e)
}

// Finish gives the operations, none where the edits do nothing, and whether they wait for a marker. Where they don't, and
// others wait on the register, those collapse first: they no longer have to wait.
func (p *Part) Finish() (ops []Op, waits bool) {
	if p.Group != nil {
		ops = p.Group.Finish()
	} else if p.Draft.Finish() {
		ops = p.Draft.Ops
	}
	switch {
	case len(ops) == 0:
		return nil, false
	case p.Decl.Mode().Waits():
		return ops, true
	case p.Base.Pending() > 0:
		ops = withMarker(ops, p.Base.Cover())
	}
	return ops, false
}

// withMarker has what waits on the ops' register collapse.
func withMarker(ops []Op, cover QStateVector) []Op {
	i := slices.IndexFunc(ops, func(op Op) bool { return op.Field > Marker })
	if i < 0 {
		i = len(ops)
	}
	return slices.Insert(slices.Clone(ops), i, Op{Register: ops[0].Register, Kind: Collapse, Field: Marker, Seen: cover})
}
