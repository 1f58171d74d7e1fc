package sim

import (
	"slices"

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
	type part struct {
		name  string
		base  *lattice.Register
		decl  *lattice.Decl
		draft *lattice.Draft
		group *lattice.GroupDraft
	}
	var parts []part
	find := func(name string) *part {
		for i := range parts {
			if parts[i].name == name {
				return &parts[i]
			}
		}
		return nil
	}
	var room []engine.Dot
	for i := range w.Ops {
		op := &w.Ops[i]
		decl := n.decl(op.Register)
		name := op.Register
		if decl != nil && decl.Unit != "" {
			name = decl.Unit
		}
		p := find(name)
		if p == nil {
			base := n.mem.cells[name].reg
			np := part{name: name, base: base, decl: decl}
			if decl != nil && decl.Unit != "" {
				np.group = lattice.BeginGroup(name, base)
			} else {
				np.draft = new(lattice.Draft)
				np.draft.Begin(name, base, decl, &writer, w.Ops[i:], &room)
			}
			parts = append(parts, np)
			p = &parts[len(parts)-1]
		}
		var err error
		if p.group != nil {
			err = p.group.Apply(op)
		} else {
			err = p.draft.Apply(op)
		}
		if err != nil {
			return engine.Dot{}, nil, err
		}
	}
	var ops []lattice.Op
	var held []string
	for i := range parts {
		p := &parts[i]
		var own []lattice.Op
		if p.group != nil {
			own = p.group.Finish()
		} else if p.draft.Finish() {
			own = p.draft.Ops
		}
		if len(own) == 0 {
			continue
		}
		switch {
		case p.decl != nil && p.decl.Commit.Waits():
			held = append(held, p.name)
		case p.base.Pending() > 0:
			own = slices.Clone(own)
			at := len(own)
			if i := slices.IndexFunc(own, func(op lattice.Op) bool { return op.Field > lattice.Marker }); i >= 0 {
				at = i
			}
			own = slices.Insert(own, at, lattice.Op{Register: p.name, Kind: lattice.Collapse, Field: lattice.Marker, Seen: n.core.Vector()})
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
	ops := []lattice.Op{{Register: register, Kind: lattice.Collapse, Field: lattice.Marker, Seen: n.core.Vector()}}
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
