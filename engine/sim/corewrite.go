package sim

import (
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func (n *coreNode) write(ops []lattice.Op, held []string, cause engine.Cause) (*lattice.Effects, error) {
	eff := new(lattice.Effects)
	return eff, n.core.Write(n, ops, held, cause, cause.By(), n.o.clock.now(), eff)
}

func (n *coreNode) submit(w engine.Write) (engine.Dot, func() (engine.Receipt, error), error) {
	writer := lattice.Writer{Self: n.core.ID(), By: w.By.By(), Mine: n.core.Mine}
	if n.o.mutant == FoldBeforeRetirement {
		writer.Mine = func(o engine.OriginID) bool {
			owner, ok := n.core.Owner(o)
			return ok && owner.Origin.Endpoint == n.self.Endpoint
		}
	}
	if n.o.mutant == DeleteWhole {
		w.Ops = removeAll(n, w.Ops)
	}
	parts := map[string]*lattice.Part{}
	var names []string // of the parts, in the order of their first op
	var room []engine.Dot
	for i := range w.Ops {
		op := &w.Ops[i]
		decl := n.decl(op.Register)
		name := op.Register
		if decl != nil && decl.Unit != "" {
			name = decl.Unit
		}
		p := parts[name]
		if p == nil {
			p = &lattice.Part{Base: n.mem.cells[name].reg, Decl: decl}
			if decl != nil && decl.Unit != "" {
				p.Group = lattice.BeginGroup(name, p.Base)
			} else {
				p.Draft = new(lattice.Draft)
				p.Draft.Begin(name, p.Base, decl, &writer, w.Ops[i:], &room)
			}
			parts[name] = p
			names = append(names, name)
		}
		if err := p.Apply(op); err != nil {
			return engine.Dot{}, nil, err
		}
	}
	var ops []lattice.Op
	var held []string
	for _, name := range names {
		own, waits := parts[name].Finish()
		if waits {
			held = append(held, name)
		}
		ops = append(ops, own...)
	}
	if len(ops) == 0 {
		return engine.Dot{}, func() (engine.Receipt, error) { return engine.Receipt{}, nil }, nil
	}
	eff, err := n.write(ops, held, w.By)
	if err != nil {
		return engine.Dot{}, nil, err
	}
	s := &step{}
	for _, r := range w.Keep {
		if s.records == nil {
			s.records = map[string][]byte{}
		}
		s.records[r.Key] = r.Value
	}
	dot := eff.Candidate.Dot
	n.accept(eff, s)
	return dot, func() (engine.Receipt, error) { n.sync(); return engine.Receipt{Dot: dot}, nil }, nil
}

func (n *coreNode) collapse(register string) error {
	if n.mem.cells[register].reg.Pending() == 0 {
		return nil
	}
	ops := []lattice.Op{{Register: register, Kind: lattice.Collapse, Field: lattice.Marker, Seen: n.mem.cells[register].reg.Cover()}}
	eff, err := n.write(ops, nil, engine.Cause{})
	if err != nil {
		return err
	}
	n.accept(eff, &step{})
	n.sync()
	return nil
}

func (n *coreNode) revert(register string, to engine.StateID) error {
	decl := n.decl(register)
	if decl != nil && decl.Unit != "" {
		return nil
	}
	for _, p := range n.mem.past[register] {
		if p.id != to {
			continue
		}
		v := p.reg.View(decl, &lattice.Eye{})
		_, wait, err := n.submit(engine.Write{Ops: lattice.Restore(register, v.Value)})
		if err == nil {
			_, err = wait()
		}
		return err
	}
	return engine.ErrNotFound
}
