package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// Hash names everything the Set means.
func (s *Set) Hash() string { return s.hash }

// Binds gives all binds, in the order of the files.
func (s *Set) Binds() []*Bind { return s.binds }

// Places lists where a register appears in a wrapper: the addresses of the binds that go out and
// whose address its name tells, one for each server. It looks binds up by the register's name in a
// tree.
func (s *Set) Places(wrapper, register string) []Place {
	w := s.wrappers[wrapper]
	if w == nil {
		return nil
	}
	f := finding{all: true}
	w.reverse.find(register, &f)
	var out []Place
	for i := range f.hits {
		out = f.hits[i].leaf.entry.places(out, &f.hits[i].raw)
	}
	return out
}

func (e *entry) places(out []Place, raw *captures) []Place {
	b, w := e.bind, e.wrapper
	var caps captures
	server := ""
	for i, slot := range b.regSlots {
		caps[slot] = raw[i]
		switch b.register.names[i] {
		case "wrapper":
			if raw[i] != w.info.Name {
				return out
			}
		case "server":
			if !slices.Contains(w.info.Servers, raw[i]) {
				return out
			}
			server = raw[i]
		}
	}
	if !b.inverted(&caps) {
		return out
	}
	var address string
	ok := true
	if b.filled {
		// Which one it is depends on the state: the place is that of the command.
		for _, c := range b.fields {
			caps[c.slot] = "{" + c.field + "}"
		}
		raw, fits := e.template.appendTo(nil, func(i int) string { return caps[e.slots[i]] })
		address, ok = string(raw), fits
	} else {
		address, ok = e.render(&caps)
	}
	if !ok {
		return out
	}
	servers := []string{server}
	if server == "" && len(w.info.Servers) > 0 {
		servers = w.info.Servers
	}
	for _, sv := range servers {
		out = append(out, Place{Bind: b, Wrapper: w.info.Name, Server: sv, Address: address})
	}
	return out
}

// canonical gives a rendered address the form that operations carry. Only a query can differ.
func (e *entry) canonical(address []byte) ([]byte, bool) {
	s := e.template.syntax
	if len(e.template.params) == 0 || s.Canonical == nil {
		return address, true
	}
	c, err := s.Canonical(string(address))
	return []byte(c), err == nil
}

// Patterns lists the address templates of a wrapper's binds, for wrappers that must announce them.
func (s *Set) Patterns(wrapper string) []wrappers.Pattern {
	w := s.wrappers[wrapper]
	if w == nil {
		return nil
	}
	var out []wrappers.Pattern
	for _, e := range w.entries {
		p := wrappers.Pattern{Bind: e.bind.id, Suffix: e.template.suffix(), In: e.bind.Inward(), Out: e.bind.Outward(), Options: e.bind.options, Hash: e.bind.hash}
		if s := &w.info.Protocol.Syntax; s.Keys || s.Entries {
			p.Members, p.Open = e.bind.rowMembers(e.template)
		}
		for _, seg := range e.template.segments {
			switch {
			case seg.rest:
				p.Segments = append(p.Segments, wrappers.Segment{Kind: wrappers.RestSegments})
			case seg.shape != nil:
				p.Segments = append(p.Segments, wrappers.Segment{Kind: wrappers.OneSegment, Literal: seg.shape.literals[0]})
			default:
				p.Segments = append(p.Segments, wrappers.Segment{Kind: wrappers.LiteralSegment, Literal: seg.literal})
			}
		}
		out = append(out, p)
	}
	return out
}

// Under tells which registers may have addresses below a prefix, as far as their names tell. A
// prefix ends with the separator; "" stands for everything.
func (s *Set) Under(wrapper, server, prefix string) []Under {
	w := s.wrappers[wrapper]
	if w == nil {
		return nil
	}
	segs, ok := w.tree.prefix(prefix)
	if !ok {
		return nil
	}
	var out []Under
	for _, e := range w.entries {
		if !e.bind.readable || !e.bind.Outward() || len(e.template.params) > 0 && !w.rows(prefix) {
			continue
		}
		if p, ok := e.under(segs, server, nil); ok {
			out = append(out, Under{Bind: e.bind, RegisterPrefix: p})
		}
	}
	return out
}

// Rows is Under for the rows of a table, of which some columns of the key may be known: "public.sensors?site=berlin".
func (s *Set) Rows(wrapper, server, address string) []Under {
	table, query, _ := cutQuery(address)
	known := map[string]string{}
	for piece := range strings.SplitSeq(query, "&") {
		if name, value, ok := strings.Cut(piece, "="); ok {
			known[queryText(name)] = queryText(value)
		}
	}
	w := s.wrappers[wrapper]
	if w == nil || !w.tree.keys {
		return nil
	}
	segs, ok := w.tree.prefix(table + "?")
	if !ok {
		return nil
	}
	var out []Under
	for _, e := range w.entries {
		if e.bind.readable && e.bind.Outward() {
			if p, ok := e.under(segs, server, known); ok {
				out = append(out, Under{Bind: e.bind, RegisterPrefix: p})
			}
		}
	}
	return out
}

// narrow takes captures from columns of the key that are known. False: no row of the template has these.
func (e *entry) narrow(columns map[string]string, caps *captures, known *[maxCaptures]bool) bool {
	var raw captures
	for i := range e.template.params {
		p := &e.template.params[i]
		text, ok := columns[p.key]
		if !ok {
			continue
		}
		if p.shape == nil {
			if p.value != text {
				return false
			}
			continue
		}
		n := len(p.shape.escapes)
		if !p.shape.match(text, raw[:]) || !p.shape.values(raw[:n]) {
			return false
		}
		for k := range n {
			slot := e.slots[p.first+k]
			caps[slot], known[slot] = raw[k], true
		}
	}
	m := messages.Get().(*message)
	defer m.release()
	m.caps = *caps
	for i := range e.bind.keys {
		k := &e.bind.keys[i]
		if k.from < 0 || !known[k.from] {
			continue
		}
		v, err := k.eval(m)
		if err != nil {
			return false
		}
		if text, err := captureText(v); err == nil && text != "" {
			caps[k.slot], known[k.slot] = text, true
		}
	}
	return true
}

// rows tells whether the addresses below a prefix are rows: all there are, or those of one table ("public.sensors?").
func (w *wrapperMaps) rows(prefix string) bool {
	return w.info.Protocol.Syntax.Keys && (prefix == "" || strings.HasSuffix(prefix, "?"))
}

// prefix splits a prefix into its segments.
func (t *tree) prefix(prefix string) ([]string, bool) {
	if table, ok := strings.CutSuffix(prefix, "?"); ok && t.keys {
		return strings.Split(table, t.separator), true
	}
	if t.query {
		prefix, _, _ = cutQuery(prefix)
	}
	if t.absolute {
		prefix = strings.TrimPrefix(prefix, t.separator)
	}
	if prefix == "" {
		return nil, true
	}
	p, ok := strings.CutSuffix(prefix, t.separator)
	return strings.Split(p, t.separator), ok
}

// below tells whether a template could have addresses below a prefix.
func (t *tree) below(prefix string) bool {
	if table, ok := strings.CutSuffix(prefix, "?"); ok && t.keys {
		return t.stands(&t.root, table, true)
	}
	if t.query {
		prefix, _, _ = cutQuery(prefix)
	}
	if t.absolute {
		prefix = strings.TrimPrefix(prefix, t.separator)
	}
	if prefix != "" && !strings.HasSuffix(prefix, t.separator) {
		return false
	}
	return t.descend(&t.root, prefix)
}

// stands tells whether a template has the path before the '?'.
func (t *tree) stands(n *node, rest string, more bool) bool {
	if !more {
		return len(n.leaves) > 0
	}
	seg, tail, more := strings.Cut(rest, t.separator)
	if next := n.literals[seg]; next != nil && t.stands(next, tail, more) {
		return true
	}
	for i := range n.prefixes {
		p := &n.prefixes[i]
		if len(seg) <= p.length {
			continue
		}
		for _, e := range p.edges[seg[:p.length]] {
			var raw captures
			if e.shape.match(seg, raw[:]) && t.stands(e.node, tail, more) {
				return true
			}
		}
	}
	return false
}

func (t *tree) descend(n *node, rest string) bool {
	if rest == "" {
		return len(n.literals) > 0 || len(n.prefixes) > 0 || len(n.rests) > 0
	}
	if len(n.rests) > 0 {
		return true
	}
	seg, tail, _ := strings.Cut(rest, t.separator)
	if t.fold {
		seg = foldASCII(seg)
	}
	if next := n.literals[seg]; next != nil && t.descend(next, tail) {
		return true
	}
	for i := range n.prefixes {
		p := &n.prefixes[i]
		if len(seg) <= p.length {
			continue
		}
		for _, e := range p.edges[seg[:p.length]] {
			var raw captures
			if e.shape.match(seg, raw[:]) && t.descend(e.node, tail) {
				return true
			}
		}
	}
	return false
}

// under narrows the register's name by the captures in the prefix, from the left.
func (e *entry) under(segs []string, server string, columns map[string]string) (string, bool) {
	b := e.bind
	var caps captures
	var known [maxCaptures]bool
	partial := -1
	if e.template.syntax.Upward {
		if !e.upward(segs, &caps, &known) {
			return "", false
		}
		segs = nil
	}
	var raw captures
	ts := e.template.segments
	if len(e.template.params) > 0 && len(segs) > 0 && len(segs) != len(ts) {
		return "", false // rows of a table
	}
	for i, text := range segs {
		if i >= len(ts) || !ts[i].rest && i >= len(ts)-1 && !(i == len(segs)-1 && len(e.template.params) > 0) {
			return "", false
		}
		s := &ts[i]
		if s.rest {
			v, ok := e.template.decodeRest(strings.Join(segs[i:], e.template.syntax.Separator))
			if !ok {
				return "", false
			}
			partial = e.slots[s.first]
			if i+1 < len(ts) {
				// Where the rest ends within the prefix can't be told.
				v = ""
			}
			caps[partial] = v
			break
		}
		if s.shape == nil {
			if s.literal != text && !(e.template.syntax.Fold && strings.EqualFold(s.literal, text)) {
				return "", false
			}
			continue
		}
		n := len(s.shape.escapes)
		if !s.shape.match(text, raw[:]) || !s.shape.values(raw[:n]) {
			return "", false
		}
		for k := range n {
			for _, c := range e.checks {
				if c.index == s.first+k && !c.matches(raw[k]) {
					return "", false
				}
			}
			slot := e.slots[s.first+k]
			caps[slot], known[slot] = raw[k], true
		}
	}
	if len(columns) > 0 && !e.narrow(columns, &caps, &known) {
		return "", false
	}
	for i, name := range b.register.names {
		switch name {
		case "wrapper":
			caps[b.regSlots[i]], known[b.regSlots[i]] = e.wrapper.info.Name, true
		case "server":
			if server != "" {
				caps[b.regSlots[i]], known[b.regSlots[i]] = server, true
			}
		}
	}
	return b.registerPrefix(&caps, &known, partial), true
}

// registerPrefix renders the register's name up to the first capture that is not known.
func (b *Bind) registerPrefix(caps *captures, known *[maxCaptures]bool, partial int) string {
	var out []byte
	at := 0
	for i := range b.register.segments {
		s := &b.register.segments[i]
		if i > 0 {
			out = append(out, '/')
		}
		switch {
		case s.rest:
			slot := b.regSlots[at]
			at++
			if !known[slot] {
				if slot == partial && caps[slot] != "" {
					out = append(append(out, caps[slot]...), '/')
				}
				return string(out)
			}
			out = append(out, caps[slot]...)
		case s.shape != nil:
			for k := range s.shape.escapes {
				out = append(out, s.shape.literals[k]...)
				slot := b.regSlots[at]
				at++
				if !known[slot] {
					return string(out)
				}
				out = s.shape.escapes[k].append(out, caps[slot])
			}
			out = append(out, s.shape.literals[len(s.shape.escapes)]...)
		default:
			out = append(out, s.literal...)
		}
	}
	return string(out)
}

// A Declaration is what a register block says of a register.
type Declaration struct {
	Register string            // the template of its name
	Source   string            // "sensors.hcl:3"
	Type     string            // of a register that is one value, else ""
	Fields   map[string]string // types by name; nil where any field may stand
}

// Declarations gives all of them, in the order of the files.
func (s *Set) Declarations() []Declaration {
	var out []Declaration
	for _, d := range s.declared {
		out = append(out, d.public())
	}
	return out
}

func (d *decl) public() Declaration {
	p := Declaration{Register: d.leaf.template.text, Source: d.source}
	if d.value != nil {
		p.Type = d.value.declared()
	}
	if d.closed {
		p.Fields = map[string]string{}
		for n, t := range d.fields {
			p.Fields[n] = t.declared()
		}
	}
	return p
}

// Declared gives the declaration of a register, if it has one.
func (s *Set) Declared(register string) (Declaration, bool) {
	var f finding
	if !s.decls.find(register, &f) {
		return Declaration{}, false
	}
	return f.leaf.decl.public(), true
}

// Check holds a write that comes over the daemon's door against the declared types and rules. It converts
// nothing: a value of another type is an ErrInvalid of package engine. What is put back is not checked: it was there.
func (s *Set) Check(register string, ops []engine.Op) error {
	var f finding
	if !s.decls.find(register, &f) {
		return nil
	}
	d := f.leaf.decl
	if err := d.checkFold(register, &f); err != nil {
		return err
	}
	for i := range ops {
		op := &ops[i]
		if op.Register != register || op.Kind != engine.OpPut && op.Kind != engine.OpAdd {
			continue
		}
		t := anything
		switch {
		case d.closed:
			if t = d.fields[op.Field]; t == nil {
				if op.Field == "" {
					return fmt.Errorf("%w: %s has the fields %s (%s)", engine.ErrInvalid, register, strings.Join(d.names(), ", "), d.source)
				}
				return fmt.Errorf("%w: %s has no field %q: there is %s (%s)", engine.ErrInvalid, register, op.Field, strings.Join(d.names(), ", "), d.source)
			}
		case d.value != nil:
			if t = d.value; op.Field != "" {
				return fmt.Errorf("%w: %s is one value and has no field %q (%s)", engine.ErrInvalid, register, op.Field, d.source)
			}
		case op.Kind == engine.OpPut:
			continue
		}
		var err error
		if op.Kind == engine.OpAdd && t.rule.Kind != lattice.Sum && t.rule.Kind != lattice.Union {
			err = fmt.Errorf("its rule is %s: only sums and unions are added to", t.rule.Kind)
		} else {
			err = t.stored(op.Value)
		}
		if err != nil {
			name := op.Field
			if name == "" {
				name = register
			}
			return fmt.Errorf("%w: %s: %w (%s)", engine.ErrInvalid, name, err, d.source)
		}
	}
	return nil
}

// stored says why a value is none of the type as registers keep it. Of a set, a list and a single item will do.
func (t *typ) stored(v engine.Value) error {
	dropped := 0
	c, err := t.convert(v, exact, &dropped)
	switch {
	case err != nil:
		return err
	case t.kind == setType:
		items := []engine.Value{v}
		if k := v.Kind(); k == lattice.ListKind || k == lattice.SetKind {
			items = v.Items()
		}
		for _, item := range items {
			if err := t.item.stored(item); err != nil {
				return err
			}
		}
		return nil
	case dropped == 0 && c.Equal(v):
		return nil
	case t.kind == timeType:
		return fmt.Errorf("%s is not in the form that is stored: %s", brief(v), brief(c))
	}
	return fmt.Errorf("%s is not %s as it is stored", brief(v), article(t.String()))
}
