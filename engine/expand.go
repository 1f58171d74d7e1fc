package engine

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
)

// An expansion turns the ops of one write into operations that name every entry they remove, against what is committed
// here or about to be.
type expansion struct {
	e      *Engine
	w      *Write
	rules  *ruleTable
	writer lattice.Writer
	// internal: the engine's own write, of registers that are reserved and without a look at who writes.
	internal bool
	names    []string            // of the registers in the order of their first op
	seen     map[string]struct{} // likewise, once they are many
	parts    []part
	byName   map[string]int // index of parts, by the register's name or the unit's
	drafts   []*lattice.Draft
}

// A part is what the write says of one register, or of one group.
type part struct {
	base *version
	lattice.Part
}

// begin uses the room of the write before.
func (x *expansion) begin(e *Engine, w *Write, internal bool) {
	mine := x.writer.Mine
	if mine == nil {
		mine = e.seqr.core.Mine
	}
	*x = expansion{e: e, w: w, internal: internal, rules: e.rules.Load(), names: x.names[:0], parts: x.parts[:0], drafts: x.drafts[:0]}
	x.writer = lattice.Writer{Self: e.self, By: e.seqr.byOf(&w.By), Mine: mine}
	e.seqr.dots = e.seqr.dots[:0]
}

func (x *expansion) expand() error {
	for i := range x.w.Ops {
		op := &x.w.Ops[i]
		if len(x.names) == 0 || x.names[len(x.names)-1] != op.Register && !x.named(op.Register) {
			x.names = append(x.names, op.Register)
			if x.seen != nil {
				x.seen[op.Register] = struct{}{}
			}
		}
		p, err := x.part(op, x.w.Ops[i:])
		if err != nil {
			return err
		}
		if err := p.Apply(op); err != nil {
			return err
		}
	}
	return nil
}

// named tells whether the write has named a register before.
func (x *expansion) named(register string) bool {
	const few = 16
	switch {
	case x.seen != nil:
		_, ok := x.seen[register]
		return ok
	case len(x.names) <= few:
		return slices.Contains(x.names, register)
	}
	x.seen = make(map[string]struct{}, 2*len(x.names))
	for _, n := range x.names {
		x.seen[n] = struct{}{}
	}
	return x.named(register)
}

// part finds what the write says of an op's register, or begins it.
func (x *expansion) part(op *Op, rest []Op) (*part, error) {
	e := x.e
	name := op.Register
	if i, ok := x.find(name); ok {
		return &x.parts[i], nil
	}
	base, err := e.newest(name)
	if err != nil {
		return nil, err
	}
	// The version knows its declaration, unless the rules have changed since.
	decl := e.sight(base).decl
	if err := x.permitted(name, decl); err != nil {
		return nil, err
	}
	if decl != nil && decl.Unit != "" {
		if i, ok := x.find(decl.Unit); ok {
			x.note(name, i)
			return &x.parts[i], nil
		}
		if base, err = e.newest(decl.Unit); err != nil {
			return nil, err
		}
		x.parts = append(x.parts, part{base, lattice.Part{Base: base.reg, Decl: decl, Group: lattice.BeginGroup(decl.Unit, base.reg)}})
		x.note(decl.Unit, len(x.parts)-1)
		x.note(name, len(x.parts)-1)
	} else {
		n := len(x.drafts)
		var d *lattice.Draft
		if n < cap(x.drafts) {
			d = x.drafts[:n+1][n] // one of an earlier write, if it has left any there
		}
		if d == nil {
			d = new(lattice.Draft)
		}
		d.Begin(base.name, base.reg, decl, &x.writer, rest, &e.seqr.dots)
		x.drafts = append(x.drafts, d)
		x.parts = append(x.parts, part{base, lattice.Part{Base: base.reg, Decl: decl, Draft: d}})
		x.note(name, len(x.parts)-1)
	}
	p := &x.parts[len(x.parts)-1]
	if p.base.reg.Opaque() {
		return nil, fmt.Errorf("%w: register %q holds operations of a newer program than this one; update it to write there", ErrUnavailable, name)
	}
	return p, nil
}

func (x *expansion) find(name string) (int, bool) {
	if x.byName != nil {
		i, ok := x.byName[name]
		return i, ok
	}
	for i := range x.parts {
		if x.parts[i].base.name == name {
			return i, true
		}
	}
	return 0, false
}

// note remembers where a name's part is. Few names are found without a map, members of a group are not.
func (x *expansion) note(name string, at int) {
	if x.byName == nil {
		if len(x.parts) <= 8 && x.parts[at].Group == nil {
			return
		}
		x.byName = map[string]int{}
		for i := range x.parts {
			x.byName[x.parts[i].base.name] = i
		}
	}
	x.byName[name] = at
}

// permitted checks the declaration's writers.
func (x *expansion) permitted(name string, decl *lattice.Decl) error {
	if decl == nil || len(decl.Writers) == 0 || x.internal {
		return nil
	}
	for _, p := range decl.Writers {
		if site, ok := strings.CutPrefix(p, "site:"); ok {
			if site != "" && strings.HasPrefix(x.e.origin.Endpoint.String(), site) {
				return nil
			}
		} else if x.writer.By.Matches(p) {
			return nil
		}
	}
	return fmt.Errorf("%w: register %q takes writes of %s only (%s)", ErrDenied, name, strings.Join(decl.Writers, ", "), decl.Template)
}

// finish gives the operations, and the registers for which they wait.
func (x *expansion) finish() (ops []lattice.Op, held []string) {
	single := len(x.parts) == 1
	for i := range x.parts {
		own, waits := x.parts[i].Finish()
		if len(own) == 0 {
			continue
		}
		if waits {
			held = append(held, own[0].Register)
		}
		if single {
			return own, held
		}
		ops = append(ops, own...)
	}
	return ops, held
}

// receipt gives the states of all registers that the write named.
func (x *expansion) receipt(c *commit) error {
	if len(x.names) == 1 && len(c.deltas) == 1 && c.deltas[0].After.Register == x.names[0] {
		c.states = c.one.states[:]
		c.states[0] = c.deltas[0].After
		return nil
	}
	for _, name := range x.names {
		b, err := x.e.state(name)
		if err != nil {
			return err
		}
		c.states = append(c.states, b)
	}
	return nil
}

// forget keeps the room for the next write, unless it is much, and nothing that is in it.
func (x *expansion) forget() {
	for _, d := range x.drafts {
		d.Forget()
	}
	if cap(x.e.seqr.dots) > 4096 {
		x.e.seqr.dots = nil
	}
	clear(x.names)
	clear(x.parts)
	*x = expansion{names: x.names, parts: x.parts, drafts: x.drafts, writer: lattice.Writer{Mine: x.writer.Mine}}
	if cap(x.drafts) > 64 {
		*x = expansion{}
	}
}
