package mapping

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// overlap reports a template that shares addresses with an earlier one without being more specific
// or less.
func (l *loader) overlap(b *Bind, a, o *leaf) {
	other := o.entry.bind
	switch relate(a, o) {
	case disjoint, narrower, wider:
		return
	case equal:
		l.share(b, a, o)
	default:
		l.Error("MAP101", b.rng, "binds overlap", fmt.Sprintf("Some addresses match this one and %q at %s, and neither is the more specific. Narrow one of them with a literal or with `match`.", other.address, other.source))
	}
}

func (l *loader) checkOverlaps() {
	for _, w := range l.set.wrappers {
		for _, e := range w.entries {
			if e.reversible() {
				w.reverse.insert(&leaf{template: e.bind.register, entry: e})
			}
		}
	}
}

// reversible tells whether a register's name leads to an address of the bind.
func (e *entry) reversible() bool { return e.bind.Outward() && (e.bind.readable || e.bind.filled) }

// checkRoundTrip sends generated values of each field that flows both ways out and back in.
func (l *loader) checkRoundTrip(b *Bind) {
	if !b.Inward() || !b.Outward() || b.broken {
		return
	}
	defer l.Within(fmt.Sprintf("bind %q %q", b.protocol, b.address))()
	for i := range b.mapped {
		p := &b.mapped[i]
		for _, v := range p.values() {
			l.tryField(b, p, v)
		}
	}
	if !b.identity {
		return
	}
	// Without a map, only codecs without the types of values can lose any.
	same := func(field string, path ...string) {
		if t := b.typeOf(field); t != nil {
			p := &mapped{field: field, typ: t, path: path, rng: b.rng}
			for _, v := range p.values() {
				l.tryField(b, p, v)
			}
		}
	}
	switch {
	case b.form != nil:
		for i, name := range b.form.names {
			if b.formSlots[i] < 0 {
				same(name, name)
			}
		}
	case b.each != nil:
		if b.decl != nil && b.decl.closed && b.codec.traits().flavour.document() {
			for _, name := range b.decl.names() {
				same(name, name)
			}
		}
	case b.codec.traits().holds != members:
		same("")
	case b.codec.traits().flavour.document() && b.decl != nil && b.decl.closed:
		for _, name := range b.decl.names() {
			same(name, name)
		}
	}
}

// values are generated for a mapped field: of its type, or of what its steps give.
func (p *mapped) values() []engine.Value {
	t := p.typ
	if len(p.steps) == 0 {
		if t.kind == anyType {
			return nil
		}
		return t.samples()
	}
	last := p.steps[len(p.steps)-1]
	if t.kind == enumType || t.kind == boolType {
		return t.samples() // each word of it can be in the register
	}
	for i := len(p.steps) - 1; i >= 0; i-- {
		if s := p.steps[i].samples; s != nil {
			// Only these have a way back; lead them to the field's side.
			out := slices.Clone(s)
			for k := range out {
				for _, later := range p.steps[i+1:] {
					if v, err := later.get(out[k]); err == nil {
						out[k] = v
					}
				}
			}
			return out
		}
	}
	if t.kind == anyType || t.kind == stringType && last.gives.kind == numberType {
		t = last.gives
	}
	return t.samples()
}

// tried is when generated values are.
var tried = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func (l *loader) tryField(b *Bind, p *mapped, v engine.Value) {
	fail := func(detail string) {
		name := quoted(p.field)
		l.Error("MAP088", p.rng, fmt.Sprintf("%s does not survive the way out and back", name),
			detail+" Put what is read into `in` and what is written into `out`, or change the type.")
	}
	want := v
	dropped := 0
	if c, err := p.typ.convert(v, textual, &dropped); err == nil {
		want = c
	}
	out := want
	for j := len(p.steps) - 1; j >= 0; j-- {
		var err error
		if out, err = p.steps[j].put(out); err != nil {
			fail(fmt.Sprintf("The value %s can't be written: %s.", brief(want), peerText(err)))
			return
		}
	}
	if p.exists {
		l.tryExists(b, p, want, out, fail)
		return
	}
	doc := setPath(absent, p.path, out)
	if b.each != nil {
		doc = setPath(absent, b.each.path, lattice.List(doc))
	}
	k := b.codec
	if b.form != nil {
		found := false
		if doc, found = soloForm(b.form, p, out); !found || out.Kind() == lattice.StringKind && out.Text() == "" {
			return // no form has an empty part: such a write is refused by name, and nothing comes back changed
		}
	}
	if k == autoCodec {
		k = jsonCodec
	}
	tr := k.traits()
	if tr.flavour.document() && (tr.holds == members || b.each != nil) && len(p.path) > 0 && (out.Kind() == lattice.ListKind || out.Kind() == lattice.SetKind) && out.Len() == 0 {
		return // an empty list is nothing there
	}
	if k == senmlCodec {
		return // a generated record would have values of each kind at once
	}
	pay, err := k.encode(doc, nil)
	if lacks := (*lacking)(nil); errors.As(err, &lacks) {
		return // such a write is refused by name
	}
	if err != nil {
		fail(fmt.Sprintf("The value %s can't be written: %s.", brief(want), peerText(err)))
		return
	}
	back, err := k.decode(&pay, tried)
	if err != nil {
		fail(fmt.Sprintf("The value %s goes out as %q, which can't be read back: %s.", brief(want), pay.Raw, wrappers.Reason(err)))
		return
	}
	if b.each != nil {
		if list, err := b.each.list(back, tr.flavour); err == nil && len(list) == 1 {
			back = list[0]
		}
	}
	back = at(back, p.path)
	for _, s := range p.steps {
		if back, err = s.get(back); err != nil {
			fail(fmt.Sprintf("The value %s goes out as %s, which can't be read back: %s.", brief(want), brief(out), peerText(err)))
			return
		}
	}
	got, err := p.typ.convert(back, tr.flavour, &dropped)
	if err != nil {
		fail(fmt.Sprintf("The value %s goes out as %s, which can't be read back: %s.", brief(want), brief(out), peerText(err)))
		return
	}
	if !got.Equal(want) {
		fail(fmt.Sprintf("The value %s goes out as %s and comes back as %s.", brief(want), brief(out), brief(got)))
	}
}

// tryExists sends a value out as whether an address is there, and back.
func (l *loader) tryExists(b *Bind, p *mapped, want, out engine.Value, fail func(string)) {
	there, err := asBool(out)
	if err != nil {
		fail(fmt.Sprintf("The value %s does not tell whether the address is there: %s.", brief(want), peerText(err)))
		return
	}
	back := lattice.Bool(there)
	for _, s := range p.steps {
		if back, err = s.get(back); err != nil {
			fail(fmt.Sprintf("The value %s can't be read back: %s.", brief(want), peerText(err)))
			return
		}
	}
	if !back.Equal(want) {
		fail(fmt.Sprintf("The value %s comes back as %s.", brief(want), brief(back)))
	}
}

// soloForm fills the other captures of a text("…") with something.
func soloForm(form *template, p *mapped, v engine.Value) (doc engine.Value, found bool) {
	var members []lattice.Member
	for _, n := range form.names {
		x := lattice.String("x")
		if len(p.path) == 1 && p.path[0] == n {
			x, found = v, true
		}
		members = append(members, lattice.Member{Name: n, Value: x})
	}
	return lattice.Object(members...), found
}
