package lattice

// Purge gives the operations that remove for good all that a delete has hidden, in a register that does not exist. Where
// no delete that wins has left its mark, what says that the register exists stays. None of what this program does not
// know is touched.
func (g *Register) Purge(register string) (ops []Op) {
	if g == nil || g.Opaque() {
		return nil
	}
	for i := range g.Fields {
		f := &g.Fields[i]
		if f.Name == Existence && len(g.Entries(Deletion)) == 0 {
			continue
		}
		op := Op{Register: register, Kind: Remove, Field: f.Name}
		for j := range f.Entries {
			op.Seen = append(op.Seen, f.Entries[j].Dot)
		}
		ops = append(ops, op)
	}
	return ops
}
