package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// Out encodes what the bind maps of a register's state, as the payload for a place. prev is the
// document that is there now, if that is known: its members that the bind doesn't map are kept.
// send is false where `when` says so. An error says why the state can't be written there.
func (b *Bind) Out(p Place, st engine.StateBlock, prev *wrappers.Payload, env Env) (pay wrappers.Payload, send bool, err error) {
	m := messages.Get().(*message)
	defer m.release()
	m.outward(b, p, st, env)
	m.there = prev != nil
	k := b.outCodec(prev)
	if pay, ok := b.bare(prev, k); ok {
		return pay, true, nil
	}
	doc, err := m.document(st, prev, k)
	if err != nil {
		return pay, false, b.unsettled(st, err)
	}
	if b.codec == autoCodec {
		k = autoFor(k, doc)
	}
	if b.when != nil {
		m.setPayload(doc)
		ok, err := m.passes()
		if err != nil || !ok {
			return pay, false, err
		}
	}
	pay, err = k.encode(doc, prev)
	return pay, err == nil, b.unsettled(st, err)
}

// outCodec is what a document is written by; auto goes by the one that is there.
func (b *Bind) outCodec(prev *wrappers.Payload) codec {
	switch {
	case b.codec != autoCodec:
		return b.codec
	case prev != nil && len(prev.Raw) > 0:
		return detect(prev)
	}
	return jsonCodec
}

// unsettled gives the reason behind an error where it is that a field has several values.
func (b *Bind) unsettled(st engine.StateBlock, err error) error {
	if err == nil {
		return nil
	}
	for _, f := range b.Mapped(st.Register, st) {
		if t := b.typeOf(f.Field); t == nil || t.rule.Kind != lattice.Ask || f.Value.Kind() != lattice.SetKind {
			continue
		}
		name := f.Field
		if name == "" {
			name = st.Register
		}
		words := make([]string, f.Value.Len())
		for i, v := range f.Value.Items() {
			words[i] = brief(v)
		}
		return wrappers.Refuse(wrappers.ErrConflict, fmt.Sprintf("%s has several values, of writers who did not know of each other: %s. Choose one of them", name, strings.Join(words, ", ")))
	}
	return err
}

// outward fills in what is known on the way out.
func (m *message) outward(b *Bind, p Place, st engine.StateBlock, env Env) {
	m.bind, m.server, m.wrapper, m.env = b, p.Server, p.Wrapper, env
	if m.wrapper == "" && len(b.wrapperNames) == 1 {
		m.wrapper = b.wrapperNames[0]
	}
	if st.Exists {
		m.self = st.Value
	}
	b.named(st.Register, &m.caps, &m.find)
}

// named takes the captures from a register's name.
func (b *Bind) named(register string, caps *captures, f *finding) bool {
	if !b.regTree.find(register, f) {
		return false
	}
	for i, slot := range b.regSlots {
		caps[slot] = f.raw[i]
	}
	return b.inverted(caps)
}

// inverted fills in captures of the address from which keys are made.
func (b *Bind) inverted(caps *captures) bool {
	for i := range b.keys {
		k := &b.keys[i]
		if k.from < 0 {
			continue
		}
		v := lattice.String(caps[k.slot])
		for j := len(k.steps) - 1; j >= 0; j-- {
			var err error
			if v, err = k.steps[j].put(v); err != nil {
				return false
			}
		}
		text, err := captureText(v)
		if err != nil {
			return false
		}
		caps[k.from] = text
	}
	return true
}

// document makes the payload's value.
func (m *message) document(st engine.StateBlock, prev *wrappers.Payload, k codec) (engine.Value, error) {
	b := m.bind
	tr := k.traits()
	var before, old engine.Value // what is there; the same where it is an object
	if prev != nil && (tr.holds == members && b.form == nil || tr.holds == rows && !b.Whole()) {
		if v, err := k.decode(prev, m.instant()); err == nil {
			if before = v; isObject(v) {
				old = v
			}
		}
	}
	if b.form != nil {
		old = m.formCaptures()
	}
	old = b.unmark(old)
	state := m.self
	if b.identity {
		if state.IsAbsent() && (b.form != nil || b.decl != nil && b.decl.closed) {
			state = lattice.Object()
		}
		if !isObject(state) {
			if t := b.typeOf(""); t != nil {
				state = t.keep(state, before, tr.flavour)
			}
			return state, nil
		}
		state = b.apart(state)
		if b.form == nil && (b.decl == nil || !b.decl.closed) && len(b.marks) == 0 && !b.filled {
			return state, nil
		}
		var out []lattice.Member
		for _, x := range old.Members() {
			if b.form != nil || b.isMark(x.Name) || b.decl != nil && b.decl.closed && b.decl.fields[x.Name] == nil {
				out = append(out, x)
			}
		}
		for _, x := range state.Members() {
			if t := b.typeOf(x.Name); t != nil && !b.isMark(x.Name) && !b.inAddress(x.Name) && !(b.form != nil && b.names(x.Name)) {
				was, _ := old.Member(x.Name)
				out = append(out, lattice.Member{Name: x.Name, Value: t.over(was, x.Value, tr.flavour)})
			}
		}
		return lattice.Object(out...), nil
	}
	doc, err := m.mapOut(old, before, tr.flavour)
	if err != nil {
		return absent, err
	}
	if doc.IsAbsent() && tr.holds == members && (len(b.mapped) == 0 || b.mapped[0].exists || len(b.mapped[0].path) > 0) {
		doc = lattice.Object()
	}
	return doc, nil
}

// mapOut writes what map and out say over a document, or a row of one. before is what is there, of a codec of this
// flavour: what says the same keeps its spelling, and what types don't name stays.
func (m *message) mapOut(doc, before engine.Value, from flavour) (engine.Value, error) {
	b, state := m.bind, m.self
	for i := range b.mapped {
		p := &b.mapped[i]
		if p.exists {
			continue
		}
		v := state
		if p.field != "" || isObject(state) {
			v, _ = state.Member(p.field)
		}
		said := v
		if !v.IsAbsent() {
			var err error
			if v, err = p.back(v); err != nil {
				return absent, fmt.Errorf("%s: %s", p.field, peerText(err))
			}
		}
		if from.document() {
			doc = openText(doc, p.path)
		}
		was := before
		for _, name := range p.path {
			was = memberOf(was, name)
		}
		switch {
		case was.IsAbsent():
		case len(p.steps) > 0 && p.reads(was, said, from):
			v = was
		default:
			if len(p.steps) == 0 {
				v = p.typ.keep(v, was, from)
			}
			if from.document() {
				v = withText(was, v)
			}
		}
		doc = setPath(doc, p.path, v)
	}
	for i := range b.outs {
		o := &b.outs[i]
		v, err := o.eval(m)
		if err != nil {
			return absent, fmt.Errorf("%s: %s", o.name, wrappers.Reason(err))
		}
		if o.name == "" {
			doc = v
		} else {
			doc = setPath(doc, []string{o.name}, v)
		}
	}
	return doc, nil
}

// reads tells whether what is there is read as v already, so that its spelling stays.
func (p *mapped) reads(was, v engine.Value, from flavour) bool {
	if from.document() {
		was = bareText(was)
	}
	var err error
	for _, s := range p.steps {
		if was, err = s.get(was); err != nil {
			return false
		}
	}
	dropped := 0
	was, err = p.typ.convert(was, from, &dropped)
	return err == nil && was.Equal(v)
}

// back leads from a mapped field to the payload; of siblings, each.
func (p *mapped) back(v engine.Value) (engine.Value, error) {
	var err error
	if len(p.steps) > 0 && p.typ.rule.Kind == lattice.Ask && v.Kind() == lattice.SetKind {
		items := make([]engine.Value, v.Len())
		for i, item := range v.Items() {
			if items[i], err = p.back(item); err != nil {
				return v, err
			}
		}
		return lattice.Set(items...), nil
	}
	for j := len(p.steps) - 1; j >= 0; j-- {
		if v, err = p.steps[j].put(v); err != nil {
			return v, err
		}
	}
	return v, nil
}

// names tells whether a capture of text("…") is part of the register's name.
func (b *Bind) names(capture string) bool {
	i := slices.Index(b.form.names, capture)
	return i >= 0 && b.formSlots[i] >= 0
}

func (m *message) formCaptures() engine.Value {
	var out []lattice.Member
	for i, slot := range m.bind.formSlots {
		if slot >= 0 {
			out = append(out, lattice.Member{Name: m.bind.form.names[i], Value: lattice.String(m.caps[slot])})
		}
	}
	return lattice.Object(out...)
}

// setPath puts v at a path of members; absent takes it out.
func setPath(doc engine.Value, path []string, v engine.Value) engine.Value {
	if len(path) == 0 {
		return v
	}
	old, had := doc.Member(path[0])
	if v.IsAbsent() && !had {
		if isObject(doc) {
			return doc
		}
		return lattice.Object()
	}
	if len(path) > 1 {
		v = setPath(old, path[1:], v)
	}
	if had && isScalar(v) && v.Equal(old) {
		return doc // in a document of many rows most stay
	}
	members := doc.Members()
	out := make([]lattice.Member, 0, len(members)+1)
	for _, m := range members {
		if m.Name != path[0] {
			out = append(out, m)
		}
	}
	return lattice.Object(append(out, lattice.Member{Name: path[0], Value: v})...)
}

func isScalar(v engine.Value) bool {
	switch v.Kind() {
	case lattice.AbsentKind, lattice.ListKind, lattice.ObjectKind, lattice.SetKind:
		return false
	}
	return true
}

// openText makes an object of the text of an XML element, where the path leads to what stands beside it.
func openText(doc engine.Value, path []string) engine.Value {
	if len(path) == 0 {
		return doc
	}
	if doc.Kind() == lattice.StringKind && (path[0] == xmlTextMember || strings.HasPrefix(path[0], "@")) && doc.Len() > 0 {
		return lattice.Object(lattice.Member{Name: xmlTextMember, Value: doc})
	}
	old, ok := doc.Member(path[0])
	if !ok || len(path) == 1 {
		return doc
	}
	return setPath(doc, path[:1], openText(old, path[1:]))
}

// CreatePayload adds what `create` gives, where the gateway makes the address: members that pay
// doesn't have.
func (b *Bind) CreatePayload(p Place, st engine.StateBlock, pay wrappers.Payload, env Env) (wrappers.Payload, error) {
	if len(b.create) == 0 {
		return pay, nil
	}
	m := messages.Get().(*message)
	defer m.release()
	m.outward(b, p, st, env)
	k := b.codec
	if k == autoCodec {
		k = detect(&pay)
	}
	doc, err := k.decode(&pay, m.instant())
	if err != nil || !isObject(doc) {
		return pay, fmt.Errorf("create: the payload has no members")
	}
	m.setPayload(doc)
	if doc, err = m.created(doc); err != nil {
		return pay, err
	}
	whole, err := k.encode(doc, &pay)
	pay.Raw = whole.Raw
	return pay, err
}

// created adds what `create` has to a document, or a row, that doesn't have it.
func (m *message) created(doc engine.Value) (engine.Value, error) {
	for i := range m.bind.create {
		o := &m.bind.create[i]
		if _, ok := doc.Member(o.name); ok {
			continue
		}
		v, err := o.eval(m)
		if err != nil {
			return absent, fmt.Errorf("create: %s: %s", o.name, wrappers.Reason(err))
		}
		doc = setPath(doc, []string{o.name}, v)
	}
	return doc, nil
}
