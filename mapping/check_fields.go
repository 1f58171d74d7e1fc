package mapping

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine/lattice"
)

// fieldPlaces tells where each field of a register is declared.
func fieldPlaces(a *hclsyntax.Attribute) map[string]hcl.Range {
	out := map[string]hcl.Range{}
	if obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr); ok {
		for _, item := range obj.Items {
			if name, ok := memberName(item.KeyExpr); ok {
				out[name] = item.KeyExpr.Range()
			}
		}
	}
	return out
}

// Brings tells whether a field comes in through the bind.
func (b *Bind) brings(field string) bool {
	named := func(name string) bool { return name == field }
	switch {
	case !b.Inward():
		return false
	case b.identity && b.typeOf(field) != nil && b.form == nil:
		return true
	case b.identity && b.form != nil && slices.Contains(b.form.names, field):
		return true
	}
	return slices.ContainsFunc(b.mapped, func(m mapped) bool { return named(m.field) }) ||
		slices.ContainsFunc(b.ins, func(o oneWay) bool { return named(o.name) }) ||
		slices.ContainsFunc(b.fields, func(c capField) bool { return named(c.field) })
}

// checkFields warns of declared fields that are lost on their way: no bind carries them, or what comes in by one bind
// goes out by none though a bind with members could show it. A register with one bind, or with none, is for applications; so are binds of which all mistakes
// aren't known.
func (l *loader) checkFields() {
	binds := map[*decl][]*Bind{}
	for _, b := range l.set.binds {
		if b.decl != nil {
			binds[b.decl] = append(binds[b.decl], b)
			b.decl.unserved = b.decl.unserved || b.broken
		}
	}
	for _, d := range l.set.declared {
		if !d.closed || d.unserved || len(binds[d]) == 0 {
			continue
		}
		done := l.Within(fmt.Sprintf("register %q", d.leaf.template.text))
		for _, field := range d.names() {
			l.checkField(d, field, binds[d])
		}
		done()
	}
}

// checkCommands warns where one field goes out by one bind and comes in by another of the same wrapper: what the device
// was told before it reports again is overwritten by its report.
func (l *loader) checkCommands() {
	type place struct{ wrapper, register, field string }
	told := map[place]*Bind{}
	for _, b := range l.set.binds {
		if b.direction == "out" && !b.broken && !b.carryAll && !b.identity {
			for _, w := range b.wrapperNames {
				for _, f := range b.carried {
					told[place{w, b.register.text, f}] = b
				}
			}
		}
	}
	for _, b := range l.set.binds {
		if b.direction != "in" || b.broken {
			continue
		}
		named := func(field string, t *typ, at hcl.Range) {
			for _, w := range b.wrapperNames {
				if o := told[place{w, b.register.text, field}]; o != nil && t.rule.Kind == lattice.Latest {
					done := l.Within(fmt.Sprintf("bind %q %q", b.protocol, b.address))
					l.Warn("MAP104", at, fmt.Sprintf("%s is told by one bind and reported by another", quoted(field)),
						fmt.Sprintf("%q at %s tells it. Until the device has obeyed it reports what was before, which then counts as newer. Make it two fields, as in wanted and state.", o.address, o.source))
					done()
					return
				}
			}
		}
		for _, m := range b.mapped {
			named(m.field, m.typ, m.rng)
		}
		for _, o := range b.ins {
			named(o.name, o.typ, o.rng)
		}
	}
}

func (l *loader) checkField(d *decl, field string, binds []*Bind) {
	var in, out, others []*Bind
	for _, b := range binds {
		brings, carries := b.brings(field), b.Carries(field)
		if brings {
			in = append(in, b)
		}
		if carries {
			out = append(out, b)
		}
		if !brings && b.Outward() && !b.filled && b.codec.traits().holds == members {
			others = append(others, b) // they could show it
		}
	}
	switch {
	case len(in)+len(out) == 0:
		l.Warn("MAP130", d.places[field], fmt.Sprintf("no bind carries the field %q", field),
			"Only applications can write and read it. Map it in a bind, or take it out of `fields`.")
	case len(out) == 0 && len(others) > 0:
		l.Warn("MAP131", d.places[field], fmt.Sprintf("the field %q comes in and goes nowhere", field),
			fmt.Sprintf("It comes in by %q at %s, and neither that bind nor %q at %s shows it. Map it there, or take it out.",
				in[0].address, in[0].source, others[0].address, others[0].source))
	}
}
