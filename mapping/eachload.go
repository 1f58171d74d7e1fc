package mapping

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping/diag"
)

// root is where the fields of map come from.
func (b *Bind) root() string {
	if b.each != nil {
		return "row"
	}
	return "payload"
}

// bindEach reads each, before the expressions that may use row.
func (l *loader) bindEach(bind *Bind, c diag.Content) {
	a := c.Attrs["each"]
	if a == nil {
		return
	}
	bind.each = new(each)
	ln, err := l.lens(a.Expr)
	if err != nil || ln.root != "payload" || len(ln.steps) > 0 {
		l.Error("MAP065", a.Expr.Range(), "each is a list in the payload", "Write `each = payload`, or `each = payload.member`.")
		return
	}
	bind.each.path = ln.path
	if bind.codec.traits().holds == oneValue || bind.form != nil {
		l.Error("MAP065", a.Expr.Range(), "this payload has no rows", "With each the codec is one that has lists of objects, as json is.")
	}
	if bind.events {
		l.Error("MAP065", c.Attrs["events"].NameRange, "events beside each", "A document shows the newest state of its rows, not each change of one.")
	}
}

// checkEach looks at the keys of the rows, and notes what of the register's name the address tells.
func (l *loader) checkEach(bind *Bind, address *template, c diag.Content) {
	if bind.each == nil {
		return
	}
	e, byRow := bind.each, false
	e.told = true
	ofRow := map[int]bool{}
	for i := range bind.keys {
		k := &bind.keys[i]
		if k.from < 0 {
			ofRow[k.slot] = true
			if l.uses(c.Attrs["key"], bind.slots[k.slot], "row") {
				byRow = true
			} else {
				e.told = false
			}
		}
		if len(k.path) == 1 && (bind.decl == nil || !bind.decl.closed || bind.decl.fields[k.path[0]] == nil) {
			e.keyed = append(e.keyed, k.path[0])
		}
		for _, m := range bind.mapped {
			if n := min(len(m.path), len(k.path)); k.path != nil && slices.Equal(m.path[:n], k.path[:n]) {
				l.Error("MAP081", m.rng, fmt.Sprintf("%q and the key %q share a part of the row", m.field, bind.slots[k.slot]), "Each part of a row has one meaning: what is in the register's name is no field.")
			}
		}
		for _, o := range bind.outs {
			if k.path != nil && o.name == k.path[0] {
				l.Error("MAP086", o.rng, fmt.Sprintf("out and the key %q write the same part of the row", bind.slots[k.slot]), "Each part has one source.")
			}
		}
	}
	if !byRow {
		l.Error("MAP065", c.Attrs["each"].NameRange, "each without a key of the row", "The rows would all be one register. Add `key = { capture = row.member }`, and the capture to the register's name.")
	}
	for i, name := range address.names {
		if !slices.Contains(bind.register.names, name) && !slices.ContainsFunc(bind.keys, func(k key) bool { return k.from == i }) {
			e.told = false
		}
	}
	for _, slot := range bind.regSlots {
		if !ofRow[slot] {
			e.known = append(e.known, slot)
		}
	}
	for _, o := range bind.outs {
		if o.name == "" {
			l.Error("MAP065", o.rng, "out writes members of a row", "Write `out = { member = expression }`.")
		}
	}
	if bind.decl != nil && bind.decl.value != nil && bind.identity {
		l.Error("MAP072", bind.rng, "which member of the row?", "The register is one value: add `map = row.member`.")
	}
}

// uses tells whether the entry of a name in an object is made of a root.
func (l *loader) uses(a *hclsyntax.Attribute, name, root string) bool {
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return false
	}
	for _, item := range obj.Items {
		if n, _ := memberName(item.KeyExpr); n != name {
			continue
		}
		for _, t := range item.ValueExpr.Variables() {
			if t.RootName() == root {
				return true
			}
		}
	}
	return false
}
