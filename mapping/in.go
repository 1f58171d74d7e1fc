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

// lookup finds the most specific bind of an address. A hole cut by ignore has none.
func (w *wrapperMaps) lookup(address string, f *finding) *entry {
	if w.holes > 0 {
		path := address
		if w.tree.query {
			path, _, _ = cutQuery(address)
		}
		if w.ignores.find(path, f) {
			return nil
		}
	}
	if !w.tree.find(address, f) {
		return nil
	}
	return f.leaf.entry
}

// Maps tells whether an operation of this verb at this address concerns a register: a write where
// a bind comes in, a read where one goes either way, a list where binds have addresses below the
// prefix. It allocates nothing, but where the address holds escapes.
func (s *Set) Maps(wrapper string, verb wrappers.Verb, server, address string) bool {
	w := s.wrappers[wrapper]
	if w == nil {
		return false
	}
	if verb == wrappers.List {
		return w.tree.below(address)
	}
	var f finding
	e := w.lookup(address, &f)
	if e == nil {
		return false
	}
	return !verb.Writes() || e.bind.Inward()
}

// At gives the register that an address means. False where no bind has the address, or where it
// takes a payload to tell the register.
func (s *Set) At(wrapper, server, address string) (Target, bool) {
	w := s.wrappers[wrapper]
	if w == nil {
		return Target{}, false
	}
	m := messages.Get().(*message)
	defer m.release()
	e := w.lookup(address, &m.find)
	if e == nil || !e.bind.readable {
		return Target{}, false
	}
	m.wrapper, m.server = wrapper, server
	m.at(e)
	if m.keys() != nil {
		return Target{}, false
	}
	name, err := m.register()
	if err != nil {
		return Target{}, false
	}
	t := Target{Bind: e.bind, Register: name, Address: address}
	if w.tree.query && strings.Contains(address, "?") {
		// The query that the bind has, in its order; another one says nothing about the place.
		path, _, _ := cutQuery(address)
		if t.Address = path; len(e.template.params) > 0 {
			rendered, ok := e.template.appendTo(nil, func(i int) string { return m.caps[e.slots[i]] })
			if ok {
				rendered, ok = e.canonical(rendered)
			}
			if !ok {
				return Target{}, false
			}
			t.Address = string(rendered)
		}
	}
	return t, true
}

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
	if e == nil || !e.bind.Inward() {
		return dst, wrappers.ErrUnmapped
	}
	b := e.bind
	m.wrapper, m.server, m.verb, m.who, m.body, m.env = w.info.Name, op.Server, op.Verb, &op.Who, &op.Payload, env
	m.at(e)
	switch op.Verb {
	case wrappers.Put, wrappers.Merge, wrappers.Message:
	case wrappers.Delete:
		return m.gone(dst)
	case wrappers.Rename:
		return dst, refuse("renaming is not in this version; delete and write anew")
	default:
		return dst, refuse("%s writes nothing", op.Verb)
	}
	if b.needsPayload() || len(op.Payload.Raw) > 0 {
		if err := m.decode(); err != nil {
			return dst, err
		}
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
	n := len(dst)
	if n < cap(dst) {
		dst = dst[:n+1]
		dst[n] = Effect{Fields: dst[n].Fields[:0]}
	} else {
		dst = append(dst, Effect{})
	}
	f := &dst[n]
	f.Bind, f.Register, f.Whole = b, name, op.Verb == wrappers.Put
	if err := m.effect(f); err != nil {
		return dst[:n], err
	}
	return dst, nil
}

// needsPayload tells whether an operation without a body is a mistake.
func (b *Bind) needsPayload() bool {
	return b.identity && len(b.fields) == 0 || len(b.mapped) > 0 || b.form != nil
}

// at fills in what the address tells.
func (m *message) at(e *entry) {
	m.bind = e.bind
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
	if !b.readable {
		return dst, refuse("the address does not tell which register is meant")
	}
	if err := m.keys(); err != nil {
		return dst, err
	}
	name, err := m.register()
	if err != nil {
		return dst, err
	}
	return append(dst, Effect{Bind: b, Register: name, Delete: true}), nil
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
	b := m.bind
	for i := range b.keys {
		k := &b.keys[i]
		v, err := k.eval(m)
		if err != nil {
			return err
		}
		text := ""
		if !v.IsAbsent() && v.Kind() != lattice.NullKind {
			if text, err = captureText(v); err != nil {
				return refuse("key %s: %v", b.slots[k.slot], err)
			}
		}
		if text == "" {
			return refuse("the payload lacks what the key %s is made of", b.slots[k.slot])
		}
		m.caps[k.slot] = text
	}
	return nil
}

// register renders the register's name.
func (m *message) register() (string, error) {
	b := m.bind
	name, ok := b.register.appendTo(m.name[:0], func(i int) string { return m.caps[b.regSlots[i]] })
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
	if b.identity && (m.whole || m.members != nil || m.object) {
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
		if b.form != nil && b.formSlots[slices.Index(b.form.names, name)] >= 0 {
			continue
		}
		t := b.typeOf(name)
		switch {
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

// through leads from the payload to a mapped field.
func (m *message) through(p *mapped) (engine.Value, error) {
	var v engine.Value
	if len(p.path) == 0 {
		v = m.value()
	} else {
		if !m.object {
			return absent, refuse("an object is wanted, not %s", kindName(m.payload))
		}
		v = m.member(p.path[0])
		for _, name := range p.path[1:] {
			v, _ = v.Member(name)
		}
	}
	if v.IsAbsent() || v.Kind() == lattice.NullKind {
		return v, nil
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
	if m.verb == wrappers.Merge && isObject(v) {
		var err error
		if v, err = m.patch(f.Register, field, t, v); err != nil {
			return err
		}
	}
	if field == "" && isObject(v) {
		return refuse("one value is wanted, not an object")
	}
	c, err := t.convert(v, m.bind.codec.flavour(), &f.Dropped)
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
