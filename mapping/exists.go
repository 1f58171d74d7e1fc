package mapping

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// mapExists reads a field of map that is whether the address is there.
func (l *loader) mapExists(bind *Bind, field string, t *typ, steps []*step, expr hclsyntax.Expression) {
	if bind.each != nil {
		l.Error("MAP066", expr.Range(), "exists in a row", "A row that a document has is there; what goes with its register is the row.")
		return
	}
	if slices.ContainsFunc(bind.mapped, func(m mapped) bool { return m.exists }) {
		l.Error("MAP066", expr.Range(), "two fields are whether the address is there", "It is said by one.")
		return
	}
	gives := &typ{kind: boolType}
	if len(steps) > 0 {
		gives = steps[len(steps)-1].gives
	}
	if !fitting(t, gives) {
		l.Error("MAP082", expr.Range(), fmt.Sprintf("%s is %s", quoted(field), article(t.String())), fmt.Sprintf("This expression gives %s.", article(gives.String())))
		return
	}
	bind.mapped = append(bind.mapped, mapped{field: field, typ: t, steps: steps, exists: true, rng: expr.Range()})
	bind.present = true
}

// usesExists tells whether an attribute's expression asks whether the address is there.
func usesExists(a *hclsyntax.Attribute) bool {
	if a == nil {
		return false
	}
	for _, t := range a.Expr.Variables() {
		if t.RootName() == "exists" {
			return true
		}
	}
	return false
}

// There tells whether an address of the bind is to be there for a state: where a field of map is `exists`, that says so.
func (b *Bind) There(st engine.StateBlock) bool {
	if !st.Exists {
		return false
	}
	for i := range b.mapped {
		p := &b.mapped[i]
		if !p.exists {
			continue
		}
		v := st.Value
		if p.field != "" || isObject(v) {
			v, _ = v.Member(p.field)
		}
		if v.IsAbsent() {
			return false
		}
		v, err := p.back(v)
		if err != nil {
			return false
		}
		there, err := asBool(v)
		return err == nil && there
	}
	return true
}

// Says tells whether the bind has a field that is whether the address is there: then the address goes by that field, and
// its going says something of the register other than that it goes, too.
func (b *Bind) Says() bool {
	return slices.ContainsFunc(b.mapped, func(p mapped) bool { return p.exists })
}

// saidBy tells whether the field is whether the address is there: of one that is not, nothing else is shown.
func (b *Bind) saidBy(field string) bool {
	return slices.ContainsFunc(b.mapped, func(p mapped) bool { return p.exists && p.field == field })
}

// only tells whether nothing of the payload matters.
func (b *Bind) only() bool { return b.Says() && len(b.mapped) == 1 && len(b.ins) == 0 && b.when == nil }

// absence translates a Delete where the bind asks whether the address is there: it isn't, and what the document carried
// is cleared.
func (m *message) absence(dst []Effect) ([]Effect, error) {
	b := m.bind
	m.there = false
	name, err := m.told()
	if err != nil {
		return dst, err
	}
	dst, f := another(dst)
	f.Bind, f.Register, f.Absent, f.Whole = b, name, true, b.onDelete != "ignore"
	if err := m.effect(f); err != nil {
		return dst[:len(dst)-1], err
	}
	return dst, nil
}

// bare is the payload of an address whose being there is all that is said.
func (b *Bind) bare(prev *wrappers.Payload, k codec) (wrappers.Payload, bool) {
	if len(b.outs) > 0 || b.identity || slices.ContainsFunc(b.mapped, func(p mapped) bool { return !p.exists }) {
		return wrappers.Payload{}, false
	}
	if prev != nil {
		return *prev, true
	}
	if k.traits().holds == oneValue {
		return wrappers.Payload{Raw: []byte{}, Type: "text/plain; charset=utf-8"}, true
	}
	pay, err := k.encode(lattice.Object(), nil)
	return pay, err == nil
}
