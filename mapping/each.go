package mapping

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// each says that the payload, or a member of it, is a list of rows, and each row a register.
type each struct {
	path  []string // in the payload
	known []int    // slots of the register's name that the address tells
	keyed []string // members of a row that keys are made of, which are no fields
	told  bool     // an address tells which document it is
}

// Rows tells whether an address of the bind is a document of many registers: one for each row.
func (b *Bind) Rows() bool { return b.each != nil }

// A Document is the place of many registers: all that share what its address tells of their names.
type Document struct {
	bind   *Bind
	caps   captures // of each.known
	prefix string
}

// Bind is the one whose address it is.
func (d *Document) Bind() *Bind { return d.bind }

// Prefix is what the names of its registers begin with.
func (d *Document) Prefix() string { return d.prefix }

// Has tells whether a register is one of the document's.
func (d *Document) Has(register string) bool {
	if !strings.HasPrefix(register, d.prefix) {
		return false
	}
	var f finding
	_, ok := d.captures(register, &f)
	return ok
}

func (d *Document) captures(register string, f *finding) (caps captures, ok bool) {
	if !d.bind.named(register, &caps, f) {
		return caps, false
	}
	for _, slot := range d.bind.each.known {
		if caps[slot] != d.caps[slot] {
			return caps, false
		}
	}
	return caps, true
}

// Renamed gives the register that one of d becomes where the document moves to another address of its bind.
func (d *Document) Renamed(register string, to *Document) (string, bool) {
	var f finding
	caps, ok := d.captures(register, &f)
	if !ok || to.bind != d.bind {
		return "", false
	}
	for _, slot := range d.bind.each.known {
		caps[slot] = to.caps[slot]
	}
	name, ok := d.bind.register.appendTo(nil, func(i int) string { return caps[d.bind.regSlots[i]] })
	return string(name), ok
}

// documentOf gives the document at the address of the message. Nil: a key can't be made of the address.
func (m *message) documentOf(e *entry) *Document {
	b := m.bind
	d := &Document{bind: b}
	for i := range b.keys {
		if k := &b.keys[i]; k.from >= 0 {
			if m.oneKey(k) != nil {
				return nil
			}
		}
	}
	var known [maxCaptures]bool
	for _, slot := range b.each.known {
		d.caps[slot], known[slot] = b.folded(m.caps[slot]), true
	}
	d.prefix = b.registerPrefix(&d.caps, &known, -1)
	return d
}

// at follows a path of members.
func at(v engine.Value, path []string) engine.Value {
	for _, name := range path {
		v = memberOf(v, name)
	}
	return v
}

// list gives the rows of a document's value. Where there is none it says what is. In a document that is all text one row
// looks like no list.
func (e *each) list(doc engine.Value, from flavour) ([]engine.Value, error) {
	v := at(doc, e.path)
	if from.document() && isObject(v) {
		return []engine.Value{v}, nil
	}
	if v.Kind() == lattice.ListKind {
		return v.Items(), nil
	}
	where := "the payload"
	if len(e.path) > 0 {
		where = strings.Join(e.path, ".")
	}
	if v.IsAbsent() || v.Kind() == lattice.NullKind {
		return nil, refuse("%s is not there; a list of rows is wanted", where)
	}
	return nil, refuse("%s is %s; a list of rows is wanted", where, kindName(v))
}

// eachRow translates a document into what it means for each of its registers: all of it or, with a mistake in any row,
// nothing.
func (m *message) eachRow(dst []Effect, e *entry) ([]Effect, error) {
	b, n := m.bind, len(dst)
	if m.verb != wrappers.Put && len(b.each.path) > 0 && isObject(m.value()) && at(m.value(), b.each.path).IsAbsent() {
		return dst, nil // not mentioned
	}
	list, err := b.each.list(m.value(), m.from)
	if err != nil {
		return dst, err
	}
	var doc *Document
	if m.verb == wrappers.Put && b.each.told {
		if doc = m.documentOf(e); doc == nil {
			return dst, refuse("the address does not tell which document is meant")
		}
	}
	if n+len(list)+1 > cap(dst) {
		dst = slices.Grow(dst, len(list)+1)
	}
	first := make(map[string]int, len(list))
	var passed []string
	for i, row := range list {
		if !isObject(row) {
			return dst[:n], refuse("row %d is %s, an object is wanted", i+1, kindName(row))
		}
		m.row = row
		passes := true
		if b.when != nil {
			if passes, err = m.passes(); err != nil {
				return dst[:n], m.inRow(i, err)
			}
		}
		name := ""
		if err = m.keys(); err == nil {
			name, err = m.register()
		}
		if !passes {
			if err == nil && doc != nil {
				passed = append(passed, name)
			}
			continue
		}
		if err != nil {
			return dst[:n], m.inRow(i, err)
		}
		if was, twice := first[name]; twice {
			return dst[:n], refuse("rows %d and %d are both %s", was+1, i+1, m.rowKey())
		}
		first[name] = i
		if b.marked(row) {
			dst = append(dst, Effect{Bind: b, Register: name, Delete: true, Marked: true})
			continue
		}
		var f *Effect
		dst, f = another(dst)
		f.Bind, f.Register, f.Whole = b, name, m.verb == wrappers.Put
		if err := m.effect(f); err != nil {
			return dst[:n], m.inRow(i, err)
		}
	}
	if doc != nil {
		dst = append(dst, Effect{Bind: b, Whole: true, Document: doc, Passed: passed})
	}
	return dst, nil
}

// documentGone translates the end of a document.
func (m *message) documentGone(dst []Effect, e *entry) ([]Effect, error) {
	if b := m.bind; b.each.told {
		if d := m.documentOf(e); d != nil {
			return append(dst, Effect{Bind: b, Delete: true, Document: d}), nil
		}
	}
	return dst, refuse("the address does not tell which document is meant")
}

// inRow says in which row a mistake is.
func (m *message) inRow(i int, err error) error {
	var r *wrappers.Refusal
	if !errors.As(err, &r) {
		return err
	}
	where := fmt.Sprintf("row %d", i+1)
	if key := m.rowKey(); key != "" {
		where += " (" + key + ")"
	}
	return wrappers.Refuse(r.Kind, where+": "+r.Reason)
}

// rowKey names the row that is looked at by its keys.
func (m *message) rowKey() string {
	var words []string
	for i := range m.bind.keys {
		k := &m.bind.keys[i]
		if k.from >= 0 {
			continue
		}
		if v, err := k.eval(m); err == nil && !v.IsAbsent() {
			words = append(words, fmt.Sprintf("%s %s", m.bind.slots[k.slot], brief(v)))
		}
	}
	return strings.Join(words, ", ")
}

// sameInRow gives members of a row and fields the same names. What a key is made of is no field.
func (m *message) sameInRow(f *Effect) error {
	for _, x := range m.row.Members() {
		t := m.bind.typeOf(x.Name)
		switch {
		case slices.Contains(m.bind.each.keyed, x.Name), m.bind.isMark(x.Name):
			continue
		case t == nil:
			f.Dropped++
			continue
		case x.Name == "":
			return refuse("a member without a name")
		}
		if err := m.put(f, x.Name, t, x.Value); err != nil {
			return err
		}
	}
	return nil
}

// OutRows encodes the document at a place of a bind with each. rows are registers of the document, in the order of
// their names: of one that exists the row is written, of one that doesn't it is taken out. With only, prev has no other
// rows; else those stay as they are. prev is the document that is there now, if that is known: the order of its rows,
// and whatever in it the bind doesn't map, stay. New rows come last.
func (b *Bind) OutRows(p Place, rows []engine.StateBlock, only bool, prev *wrappers.Payload, env Env) (wrappers.Payload, error) {
	m := messages.Get().(*message)
	defer m.release()
	m.bind, m.server, m.wrapper, m.env = b, p.Server, p.Wrapper, env
	if m.wrapper == "" && len(b.wrapperNames) == 1 {
		m.wrapper = b.wrapperNames[0]
	}
	k := b.outCodec(prev)
	m.from = k.traits().flavour
	doc := lattice.List()
	if len(b.each.path) > 0 {
		doc = lattice.Object()
	}
	var old []engine.Value
	if prev != nil && len(prev.Raw) > 0 {
		v, err := k.decode(prev, m.instant())
		if err != nil {
			return wrappers.Payload{}, fmt.Errorf("the document that is there can't be read: %s", wrappers.Reason(err))
		}
		if len(b.each.path) == 0 || isObject(v) {
			doc = v
		}
		if there := at(doc, b.each.path); !there.IsAbsent() && there.Kind() != lattice.NullKind {
			if old, err = b.each.list(doc, m.from); err != nil {
				return wrappers.Payload{}, fmt.Errorf("in the document that is there, %s", wrappers.Reason(err))
			}
		}
	}
	m.setPayload(doc)
	given := make(map[string]int, len(rows))
	for i := range rows {
		given[rows[i].Register] = i
	}
	out := make([]engine.Value, 0, len(old)+len(rows))
	met := make([]bool, len(rows))
	for _, row := range old {
		name, mine := m.rowIn(p, row, rows)
		if !mine {
			out = append(out, row)
			continue
		}
		i, ok := given[name]
		if !ok || met[i] {
			if !only || b.marked(row) {
				out = append(out, row)
			}
			continue
		}
		met[i] = true
		next, err := m.rowOut(row, &rows[i], false)
		if err != nil {
			return wrappers.Payload{}, err
		}
		if !next.IsAbsent() {
			out = append(out, next)
		}
	}
	for i := range rows {
		if met[i] || !rows[i].Exists {
			continue
		}
		next, err := m.rowOut(absent, &rows[i], true)
		if err != nil {
			return wrappers.Payload{}, err
		}
		if !next.IsAbsent() {
			out = append(out, next)
		}
	}
	return k.encode(setPath(doc, b.each.path, lattice.List(out...)), prev)
}

// rowIn tells which register a row of a document that is there is. Rows that `when` passes by, and those that have no
// key, are nobody's.
func (m *message) rowIn(p Place, row engine.Value, rows []engine.StateBlock) (name string, mine bool) {
	b := m.bind
	if !isObject(row) {
		return "", false
	}
	m.row = row
	if len(rows) > 0 {
		b.named(rows[0].Register, &m.caps, &m.find) // what the address tells
	}
	if b.when != nil {
		if ok, err := m.passes(); err != nil || !ok {
			return "", false
		}
	}
	for i := range b.keys {
		if k := &b.keys[i]; k.from < 0 && m.oneKey(k) != nil {
			return "", false
		}
	}
	name, err := m.register()
	return name, err == nil
}

// rowOut makes the row of a register of the one that is there. Absent: there is to be none, or `when` hides it.
func (m *message) rowOut(old engine.Value, st *engine.StateBlock, create bool) (engine.Value, error) {
	b := m.bind
	m.self = absent
	if st.Exists {
		m.self = st.Value
	}
	b.named(st.Register, &m.caps, &m.find)
	m.row = old
	if !st.Exists {
		switch {
		case b.onDelete == "ignore":
			return old, nil
		case len(b.marks) > 0 && !old.IsAbsent():
			return m.mark(old)
		}
		return absent, nil
	}
	row, err := m.laid(old)
	if err != nil {
		return absent, fmt.Errorf("%s: %w", st.Register, b.unsettled(*st, err))
	}
	for i := range b.keys {
		k := &b.keys[i]
		if k.path == nil {
			continue
		}
		v := lattice.String(m.caps[k.slot])
		for j := len(k.steps) - 1; j >= 0; j-- {
			if v, err = k.steps[j].put(v); err != nil {
				return absent, fmt.Errorf("%s: key %s: %s", st.Register, b.slots[k.slot], peerText(err))
			}
		}
		if now := at(old, k.path); now.IsAbsent() || !m.sameKey(now, v) {
			row = setPath(row, k.path, v)
		}
	}
	if create {
		if row, err = m.created(row); err != nil {
			return absent, err
		}
	}
	if b.when != nil {
		m.row = row
		ok, err := m.passes()
		if err != nil || !ok {
			return old, err
		}
	}
	return row, nil
}

// sameKey tells whether a key in a document says the same as the one that would be written: 7 and "7" do.
func (m *message) sameKey(now, v engine.Value) bool {
	a, err1 := captureText(now)
	b, err2 := captureText(v)
	return err1 == nil && err2 == nil && m.bind.folded(a) == m.bind.folded(b)
}

// laid lays a register over the row that is there.
func (m *message) laid(old engine.Value) (engine.Value, error) {
	b := m.bind
	row := b.unmark(old)
	if !isObject(row) {
		row = lattice.Object()
	}
	if b.identity {
		var out []lattice.Member
		for _, x := range row.Members() {
			if slices.Contains(b.each.keyed, x.Name) || b.isMark(x.Name) || b.decl != nil && b.decl.closed && b.decl.fields[x.Name] == nil {
				out = append(out, x)
			}
		}
		for _, x := range m.self.Members() {
			if t := b.typeOf(x.Name); t != nil && !slices.Contains(b.each.keyed, x.Name) && !b.isMark(x.Name) {
				was, _ := row.Member(x.Name)
				out = append(out, lattice.Member{Name: x.Name, Value: t.over(was, x.Value, m.from)})
			}
		}
		return lattice.Object(out...), nil
	}
	return m.mapOut(row, row, m.from)
}
