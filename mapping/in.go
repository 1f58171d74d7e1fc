package mapping

import (
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// maxParts bounds the writes that one operation may consist of.
const maxParts = 1000

func isObject(v engine.Value) bool { return v.Kind() == lattice.ObjectKind }

// In translates an operation into what it means for registers. Errors are refusals whose reason
// may be shown to the peer, or ErrUnmapped, which costs no allocation. Where `when` is false there
// are no effects and no error.
func (s *Set) In(wrapper string, op *wrappers.Operation, env Env) ([]Effect, error) {
	return s.AppendIn(nil, wrapper, op, env)
}

// AppendIn is In that appends to dst and uses the capacity of dst and of the Fields in it.
func (s *Set) AppendIn(dst []Effect, wrapper string, op *wrappers.Operation, env Env) ([]Effect, error) {
	w := s.wrappers[wrapper]
	if w == nil {
		return dst, wrappers.ErrUnmapped
	}
	if len(op.Parts) == 0 {
		return w.in(dst, op, env)
	}
	if len(op.Parts) > maxParts {
		return dst, wrappers.Refuse(wrappers.ErrTooLarge, "too many writes in one")
	}
	mapped := false
	var err error
	for i := range op.Parts {
		if len(op.Parts[i].Parts) > 0 {
			return dst, refuse("writes nested in writes")
		}
		n := len(dst)
		dst, err = w.in(dst, &op.Parts[i], env)
		switch {
		case errors.Is(err, wrappers.ErrUnmapped):
			dst = dst[:n]
		case err != nil:
			return dst, err
		default:
			mapped = true
		}
	}
	if !mapped {
		return dst, wrappers.ErrUnmapped
	}
	return dst, nil
}

func (w *wrapperMaps) in(dst []Effect, op *wrappers.Operation, env Env) ([]Effect, error) {
	m := messages.Get().(*message)
	defer m.release()
	e := w.lookup(op.Address, &m.find)
	if e == nil || !e.inward() {
		return dst, wrappers.ErrUnmapped
	}
	m.wrapper, m.server, m.verb, m.who, m.body, m.env = w.info.Name, op.Server, op.Verb, &op.Who, &op.Payload, env
	if len(e.sharers) == 0 {
		return m.effects(dst, e, op)
	}
	n := len(dst)
	for s := range e.each {
		if !s.bind.Inward() {
			continue
		}
		m.caps, m.payload, m.whole, m.members, m.object, m.row = captures{}, absent, false, nil, false, absent
		from := len(dst)
		var err error
		if dst, err = m.effects(dst, s, op); err != nil {
			return dst[:n], err
		}
		for i := range dst[from:] {
			dst[from+i].Dropped = 0 // they are the other's
		}
	}
	return dst, nil
}

// effects are what an operation means by one bind.
func (m *message) effects(dst []Effect, e *entry, op *wrappers.Operation) ([]Effect, error) {
	b := e.bind
	m.at(e)
	m.there = op.Verb != wrappers.Delete
	switch op.Verb {
	case wrappers.Put, wrappers.Merge, wrappers.Message:
	case wrappers.Delete:
		if b.each != nil {
			return m.documentGone(dst, e)
		}
		if b.present {
			return m.absence(dst)
		}
		return m.gone(dst)
	case wrappers.Rename:
		return dst, refuse("a rename is a delete and a write")
	default:
		return dst, refuse("%s writes nothing", op.Verb)
	}
	if b.needsPayload() || len(op.Payload.Raw) > 0 && !b.only() {
		if err := m.decode(); err != nil {
			return dst, err
		}
	}
	if b.each != nil {
		return m.eachRow(dst, e)
	}
	if b.when != nil {
		ok, err := m.passes()
		if err != nil || !ok {
			return dst, err
		}
	}
	if err := m.forms(); err != nil {
		return dst, err
	}
	if err := m.keys(); err != nil {
		return dst, err
	}
	name, err := m.register()
	if err != nil {
		return dst, err
	}
	if len(b.marks) > 0 && b.marked(m.value()) {
		return append(dst, Effect{Bind: b, Register: name, Delete: true, Marked: true}), nil
	}
	dst, f := another(dst)
	f.Bind, f.Register, f.Whole = b, name, op.Verb == wrappers.Put
	if err := m.effect(f); err != nil {
		return dst[:len(dst)-1], err
	}
	return dst, nil
}

// another appends an effect, with the room for fields of one that was there before.
func another(dst []Effect) ([]Effect, *Effect) {
	n := len(dst)
	if n < cap(dst) {
		dst = dst[:n+1]
		dst[n] = Effect{Fields: dst[n].Fields[:0]}
	} else {
		dst = append(dst, Effect{})
	}
	return dst, &dst[n]
}

// needsPayload tells whether an operation without a body is a mistake.
func (b *Bind) needsPayload() bool {
	return b.identity && len(b.fields) == 0 || slices.ContainsFunc(b.mapped, func(p mapped) bool { return !p.exists }) || b.form != nil || b.each != nil
}

// at fills in what the address tells.
func (m *message) at(e *entry) {
	m.bind, m.from = e.bind, e.bind.codec.traits().flavour
	for i, slot := range e.slots {
		m.caps[slot] = m.find.raw[i]
	}
	for i, name := range e.bind.slots {
		switch name {
		case "wrapper":
			m.caps[i] = m.wrapper
		case "server":
			m.caps[i] = m.server
		}
	}
}

// gone translates a Delete. What `when` asks of a payload that is not there can't be answered, and
// is not asked.
func (m *message) gone(dst []Effect) ([]Effect, error) {
	b := m.bind
	if b.when != nil && !b.whenNeeds {
		ok, err := m.passes()
		if err != nil || !ok {
			return dst, err
		}
	}
	if !b.readable && b.onDelete == "ignore" {
		return dst, nil // whichever it is, nothing happens to it
	}
	name, err := m.told()
	if err != nil {
		return dst, err
	}
	return append(dst, Effect{Bind: b, Register: name, Delete: true}), nil
}

// told is the register that the address alone tells.
func (m *message) told() (string, error) {
	if !m.bind.readable {
		return "", refuse("the address does not tell which register is meant")
	}
	if err := m.keys(); err != nil {
		return "", err
	}
	return m.register()
}

func (m *message) passes() (bool, error) {
	v, err := m.bind.when(m)
	if err != nil || v.IsAbsent() || v.Kind() == lattice.NullKind {
		return false, err
	}
	return asBool(v)
}

// forms takes captures of the register's name from a payload of the form text("…").
func (m *message) forms() error {
	for i, slot := range m.bind.formSlots {
		if slot < 0 {
			continue
		}
		name := m.bind.form.names[i]
		v := m.member(name).Text()
		if m.caps[slot] != "" && m.caps[slot] != v {
			return refuse("the payload says %s %q, the address %q", name, v, m.caps[slot])
		}
		m.caps[slot] = v
	}
	return nil
}

// keys evaluates what `key` gives.
func (m *message) keys() error {
	for i := range m.bind.keys {
		if err := m.oneKey(&m.bind.keys[i]); err != nil {
			return err
		}
	}
	return nil
}

func (m *message) oneKey(k *key) error {
	v, err := k.eval(m)
	if err != nil {
		return err
	}
	text := ""
	if !v.IsAbsent() && v.Kind() != lattice.NullKind {
		if text, err = captureText(v); err != nil {
			return refuse("key %s: %v", m.bind.slots[k.slot], err)
		}
	}
	if text == "" {
		return refuse("the payload lacks what the key %s is made of", m.bind.slots[k.slot])
	}
	m.caps[k.slot] = text
	return nil
}

// register renders the register's name.
func (m *message) register() (string, error) {
	b := m.bind
	name, ok := b.register.appendTo(m.name[:0], func(i int) string { return b.folded(m.caps[b.regSlots[i]]) })
	m.name = name
	if !ok {
		return "", refuse("a part of the register's name is empty")
	}
	if !utf8.Valid(name) {
		return "", refuse("the address is not UTF-8")
	}
	return string(name), nil
}

// effect fills in the fields.
func (m *message) effect(f *Effect) error {
	b := m.bind
	for i := range b.fields {
		c := &b.fields[i]
		v, err := c.typ.convert(lattice.String(m.caps[c.slot]), textual, &f.Dropped)
		if err != nil {
			return refuse("%s: %s", c.field, peerText(err))
		}
		f.Fields = append(f.Fields, FieldValue{Field: c.field, Value: v})
	}
	fixed := len(f.Fields)
	if b.identity && b.each != nil {
		if err := m.sameInRow(f); err != nil {
			return err
		}
	} else if b.identity && (m.whole || m.members != nil || m.object) {
		if err := m.same(f); err != nil {
			return err
		}
	}
	for i := range b.mapped {
		p := &b.mapped[i]
		v, err := m.through(p)
		if err == nil {
			err = m.put(f, p.field, p.typ, v)
		}
		if err != nil {
			return err
		}
	}
	for i := range b.ins {
		o := &b.ins[i]
		v, err := o.eval(m)
		if err == nil && o.add && v.Kind() == lattice.NullKind {
			err = refuse("null can't be added")
		}
		n := len(f.Fields)
		if err == nil {
			err = m.put(f, o.name, o.typ, v)
		}
		if len(f.Fields) > n {
			f.Fields[n].Add = o.add
		}
		if err != nil {
			return inField(o.name, err)
		}
	}
	sorted := true
	for i := 1; i < len(f.Fields) && sorted; i++ {
		sorted = f.Fields[i-1].Field < f.Fields[i].Field
	}
	if !sorted {
		slices.SortStableFunc(f.Fields, func(a, b FieldValue) int { return strings.Compare(a.Field, b.Field) })
		if fixed > 0 {
			// A capture of the address stands against a member of the same name.
			f.Fields = slices.CompactFunc(f.Fields, func(a, b FieldValue) bool { return a.Field == b.Field })
		}
	}
	return nil
}

func inField(field string, err error) error {
	var r *wrappers.Refusal
	if field != "" && errors.As(err, &r) && !strings.HasPrefix(r.Reason, field+": ") {
		return wrappers.Refuse(r.Kind, field+": "+r.Reason)
	}
	return err
}

// same gives members and fields the same names.
func (m *message) same(f *Effect) error {
	b, d := m.bind, m.bind.decl
	if !m.object {
		if d != nil && d.closed {
			return refuse("an object with the members %s is wanted, not %s", strings.Join(d.names(), ", "), kindName(m.payload))
		}
		return m.put(f, "", b.typeOf(""), m.payload)
	}
	if d != nil && d.value != nil {
		return refuse("%s is wanted, not an object", article(d.value.String()))
	}
	for i := range m.members {
		name := m.members[i].Name
		if slices.Contains(b.columns, name) {
			continue // it is in the address
		}
		if b.form != nil && b.formSlots[slices.Index(b.form.names, name)] >= 0 {
			continue
		}
		t := b.typeOf(name)
		switch {
		case b.isMark(name):
			continue
		case t == nil:
			f.Dropped++
			continue
		case name == "":
			return refuse("a member without a name")
		}
		if err := m.put(f, name, t, m.members[i].Value); err != nil {
			return err
		}
	}
	return nil
}

// memberOf is a member of an object. The text of an XML element without attributes is its own #text.
func memberOf(v engine.Value, name string) engine.Value {
	if name == xmlTextMember && v.Kind() == lattice.StringKind {
		return v
	}
	m, _ := v.Member(name)
	return m
}

// through leads from the payload to a mapped field.
func (m *message) through(p *mapped) (engine.Value, error) {
	var v engine.Value
	if p.exists {
		v = lattice.Bool(m.there)
	} else if !m.there {
		return absent, nil
	} else if m.bind.each != nil {
		v = at(m.row, p.path)
	} else if len(p.path) == 0 {
		v = m.value()
	} else {
		if !m.object {
			return absent, refuse("an object is wanted, not %s", kindName(m.payload))
		}
		v = m.member(p.path[0])
		row := len(m.bind.columns) > 0 && !v.IsAbsent()
		for _, name := range p.path[1:] {
			v = memberOf(v, name)
		}
		if row && v.IsAbsent() {
			v = lattice.Null() // the column was written, and has it no more
		}
	}
	if v.IsAbsent() || v.Kind() == lattice.NullKind {
		return v, nil
	}
	if len(p.steps) > 0 && m.from.document() {
		v = bareText(v)
	}
	for _, s := range p.steps {
		var err error
		if v, err = s.get(v); err != nil {
			if p.field == "" {
				return absent, refuse("%s", peerText(err))
			}
			return absent, refuse("%s: %s", p.field, peerText(err))
		}
	}
	return v, nil
}

// put adds a field: absent is not mentioned, null clears.
func (m *message) put(f *Effect, field string, t *typ, v engine.Value) error {
	switch v.Kind() {
	case lattice.AbsentKind:
		return nil
	case lattice.NullKind:
		f.Fields = append(f.Fields, FieldValue{Field: field})
		return nil
	}
	if m.verb == wrappers.Merge && isObject(v) && len(m.bind.columns) == 0 {
		var err error
		if v, err = m.patch(f.Register, field, t, v); err != nil {
			return err
		}
	}
	if field == "" && isObject(v) {
		return refuse("one value is wanted, not an object")
	}
	if m.from.document() && t.empties() && bareText(v).Kind() == lattice.StringKind && bareText(v).Len() == 0 {
		f.Fields = append(f.Fields, FieldValue{Field: field})
		return nil
	}
	if m.from == valued && v.Kind() == lattice.ListKind && v.Len() == 0 && t.text() {
		f.Fields = append(f.Fields, FieldValue{Field: field})
		return nil
	}
	c, err := t.convert(v, m.from, &f.Dropped)
	if err != nil {
		if field == "" {
			return refuse("%s", peerText(err))
		}
		return refuse("%s: %s", field, peerText(err))
	}
	f.Fields = append(f.Fields, FieldValue{Field: field, Value: c})
	return nil
}

// patch merges an object into the one that the field has (RFC 7386, section 2).
func (m *message) patch(register, field string, t *typ, v engine.Value) (engine.Value, error) {
	var cur engine.Value
	if m.env.Register != nil {
		if st, ok := m.env.Register(register); ok && st.Exists {
			cur, _ = st.Value.Member(field)
		}
	}
	if t.rule.Kind == lattice.Ask && cur.Kind() == lattice.SetKind {
		return absent, refuse("%s: %v", field, errSeveral)
	}
	return mergePatch(cur, v), nil
}

func mergePatch(target, patch engine.Value) engine.Value {
	if !isObject(patch) {
		return patch
	}
	var out []lattice.Member
	for _, t := range target.Members() {
		if _, ok := patch.Member(t.Name); !ok {
			out = append(out, t)
		}
	}
	for _, p := range patch.Members() {
		if p.Value.Kind() == lattice.NullKind {
			continue
		}
		old, _ := target.Member(p.Name)
		out = append(out, lattice.Member{Name: p.Name, Value: mergePatch(old, p.Value)})
	}
	return lattice.Object(out...)
}
