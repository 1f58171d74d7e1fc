package mapping

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// In a protocol whose payloads are rows (Syntax.Keys) a bind's key stands in its addresses: it
// becomes parameters of the template, one for each column, as if the user had written
// "public.sensors?name={sensor}&site={site}". So an address tells the register, and a register its
// address, without a payload.

// hidden is the capture that holds a key column's text where two-way functions lie between it and
// the capture of the register's name. No user can write it.
func hidden(capture string) string { return capture + " column" }

// keyed tells whether a capture comes of a key column.
func (b *Bind) keyed(capture string) bool {
	return len(b.columns) > 0 && slices.Contains(b.slots, hidden(capture))
}

// rowKey makes parameters of the key, and notes which columns are in it.
func (l *loader) rowKey(bind *Bind, c diag.Content, entries []*entry) bool {
	type column struct{ name, capture string }
	var columns []column
	ok := true
	a := c.Attrs["key"]
	if a != nil {
		obj, isObject := a.Expr.(*hclsyntax.ObjectConsExpr)
		if !isObject {
			return true // said where keys are read
		}
		for _, item := range obj.Items {
			capture, _ := memberName(item.KeyExpr)
			if !slices.Contains(bind.register.names, capture) {
				continue
			}
			ln, err := l.lens(item.ValueExpr)
			if err == nil && (ln.root != "payload" || len(ln.path) != 1) {
				err = fmt.Errorf("a row's key is made of its columns: payload.column")
			}
			if err != nil {
				l.Error("MAP151", item.ValueExpr.Range(), fmt.Sprintf("the key %q is no column", capture), sentence(err))
				ok = false
				continue
			}
			if slices.ContainsFunc(columns, func(k column) bool { return k.name == ln.path[0] || k.capture == capture }) {
				l.Error("MAP011", item.ValueExpr.Range(), fmt.Sprintf("the column %q stands in the key twice", ln.path[0]), "Keep one of the two.")
				ok = false
				continue
			}
			columns = append(columns, column{ln.path[0], capture})
		}
	}
	if each := c.Attrs["each"]; each != nil {
		l.Error("MAP152", each.NameRange, "each in a row", "It makes registers of a document; a row is one register.")
		ok = false
	}
	for i, e := range entries {
		for _, k := range columns {
			sh, err := newShape([]string{"", ""}, []string{hidden(k.capture)}, "", false)
			if err == nil && slices.ContainsFunc(e.template.params, func(p param) bool { return p.key == k.name }) {
				err = fmt.Errorf("the column %q stands in the address already", k.name)
			}
			if err != nil {
				l.Error("MAP151", a.Expr.Range(), "the key can't be read", sentence(err))
				return false
			}
			e.template.params = append(e.template.params, param{key: k.name, shape: sh, first: len(e.template.names)})
			e.template.names = append(e.template.names, hidden(k.capture))
		}
		slices.SortStableFunc(e.template.params, func(p, q param) int { return strings.Compare(p.key, q.key) })
		if i == 0 {
			for _, p := range e.template.params {
				bind.columns = append(bind.columns, p.key)
			}
		}
	}
	if len(bind.columns) == 0 && ok {
		l.Error("MAP153", bind.rng, "which row?", "Say which columns tell the register: `key = { capture = payload.column }`.")
		return false
	}
	return ok
}

// columnKey leads from a key column's text to the capture, and back.
func (l *loader) columnKey(bind *Bind, capture string, expr hclsyntax.Expression) (key, bool) {
	ln, err := l.lens(expr)
	if err != nil {
		return key{}, false // said by rowKey
	}
	for _, s := range ln.steps {
		if s.name != "part" && s.name != "table" {
			l.Error("MAP151", expr.Range(), fmt.Sprintf("%s() in a key", s.name), "A key column is text in its address: part() and table() can read it.")
			return key{}, false
		}
	}
	k := key{slot: slices.Index(bind.slots, capture), from: slices.Index(bind.slots, hidden(capture)), steps: ln.steps}
	k.eval = func(m *message) (engine.Value, error) {
		v := lattice.String(m.caps[k.from])
		for _, s := range k.steps {
			var err error
			if v, err = s.get(v); err != nil {
				return absent, refuse("key %s: %s", capture, peerText(err))
			}
		}
		return v, nil
	}
	return k, true
}

// keySuffix is the key as it stands in addresses, with {} for what is captured.
func (t *template) keySuffix() string {
	var b strings.Builder
	for i := range t.params {
		p := &t.params[i]
		c := byte('&')
		if i == 0 {
			c = '?'
		}
		b.WriteByte(c)
		b.WriteString(url.QueryEscape(p.key))
		b.WriteByte('=')
		if p.shape == nil {
			b.WriteString(url.QueryEscape(p.value))
			continue
		}
		for k, lit := range p.shape.literals {
			if k > 0 {
				b.WriteString("{}")
			}
			b.WriteString(url.QueryEscape(lit))
		}
	}
	return b.String()
}

// rowMembers are the columns a bind speaks of. open: those of any name.
func (b *Bind) rowMembers(t *template) (members []wrappers.Member, open bool) {
	in, out := b.Inward(), b.Outward()
	note := func(m wrappers.Member) {
		i := slices.IndexFunc(members, func(o wrappers.Member) bool { return o.Name == m.Name })
		if i < 0 {
			members = append(members, m)
			return
		}
		o := &members[i]
		o.In, o.Out = o.In || m.In, o.Out || m.Out
		if o.Type != m.Type && !o.Key {
			o.Type = "any"
		}
	}
	for _, p := range t.params {
		note(wrappers.Member{Name: p.key, Type: "string", Key: true, In: in, Out: out})
	}
	if b.identity {
		if b.decl == nil || !b.decl.closed {
			return members, true
		}
		for _, n := range b.decl.names() {
			if !slices.Contains(b.columns, n) {
				note(wrappers.Member{Name: n, Type: b.decl.fields[n].memberType(), In: in, Out: out})
			}
		}
	}
	for i := range b.mapped {
		m := &b.mapped[i]
		if len(m.path) == 0 {
			continue
		}
		kind := "any"
		switch {
		case len(m.path) > 1:
			kind = "object"
		case len(m.steps) == 0:
			kind = m.typ.memberType()
		}
		note(wrappers.Member{Name: m.path[0], Type: kind, In: in, Out: out})
	}
	for i := range b.outs {
		note(wrappers.Member{Name: b.outs[i].name, Type: "any", Out: out})
	}
	for i := range b.create {
		note(wrappers.Member{Name: b.create[i].name, Type: "any", Out: out})
	}
	for i := range b.marks {
		note(wrappers.Member{Name: b.marks[i].name, Type: "any", In: in, Out: out})
	}
	for _, n := range b.looks {
		note(wrappers.Member{Name: n, Type: "any", In: in})
	}
	slices.SortFunc(members, func(a, b wrappers.Member) int { return strings.Compare(a.Name, b.Name) })
	return members, b.looksAll
}

// looksAt notes which members of a row an expression reads.
func (b *Bind) looksAt(expr hclsyntax.Expression) {
	for _, t := range expr.Variables() {
		if t.RootName() != "payload" {
			continue
		}
		path, ok := traversalPath(t[1:])
		if !ok || len(path) == 0 || path[0].Type() != cty.String {
			b.looksAll = true
			continue
		}
		b.looks = append(b.looks, path[0].AsString())
	}
}

// apart leaves out the members that stand in the address.
func (b *Bind) apart(v engine.Value) engine.Value {
	if !slices.ContainsFunc(b.columns, func(c string) bool { _, has := v.Member(c); return has }) {
		return v
	}
	var out []lattice.Member
	for _, m := range v.Members() {
		if !slices.Contains(b.columns, m.Name) {
			out = append(out, m)
		}
	}
	return lattice.Object(out...)
}

// memberType names the type for a wrapper.
func (t *typ) memberType() string {
	switch t.kind {
	case stringType, enumType:
		return "string"
	case numberType:
		return "number"
	case boolType:
		return "bool"
	case bytesType:
		return "bytes"
	case timeType:
		return "time"
	case listType, setType:
		return "list"
	case objectType:
		return "object"
	}
	return "any"
}
