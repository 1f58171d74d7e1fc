package mapping

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// A deadMark is one member by which a document says that its register is gone, and stays itself.
type deadMark struct {
	name string
	eval eval
	// is is the value that says so; absent: any that is there does, as with a time.
	is engine.Value
}

// bindMarks reads delete = { member = value }.
func (l *loader) bindMarks(bind *Bind, c diag.Content) {
	a := c.Attrs["delete"]
	if a == nil {
		return
	}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return
	}
	if bind.codec.traits().holds == oneValue || bind.form != nil {
		l.Error("MAP071", a.Expr.Range(), "this payload has no members", "What marks a document as deleted is written into it.")
		return
	}
	if len(obj.Items) == 0 {
		l.Error("MAP067", a.Expr.Range(), "nothing marks what is deleted", "Write `delete = { deleted = true }` or `delete = { deleted_at = now }`.")
	}
	sc := &scope{bind: bind, way: outward, log: l.Log}
	for _, item := range obj.Items {
		name, ok := memberName(item.KeyExpr)
		if !ok || name == "" || slices.ContainsFunc(bind.marks, func(k deadMark) bool { return k.name == name }) {
			l.Error("MAP067", item.KeyExpr.Range(), "not the name of a member", "It is a constant, and stands there once.")
			continue
		}
		if _, ok := sc.check(item.ValueExpr); !ok {
			continue
		}
		k := deadMark{name: name, eval: sc.compile(item.ValueExpr)}
		if len(item.ValueExpr.Variables()) == 0 {
			v, err := k.eval(&message{bind: bind})
			if err != nil || v.IsAbsent() || v.Kind() == lattice.NullKind {
				l.Error("MAP067", item.ValueExpr.Range(), "this marks nothing", "A member that is null or missing is so in documents that are not deleted, too.")
				continue
			}
			k.is = v
		}
		bind.marks = append(bind.marks, k)
	}
}

// checkMarks finds what else would write the members that mark a document.
func (l *loader) checkMarks(bind *Bind) {
	for _, k := range bind.marks {
		for _, m := range bind.mapped {
			if !m.exists && (len(m.path) == 0 || m.path[0] == k.name) {
				l.Error("MAP067", m.rng, fmt.Sprintf("map and delete write the same member %q", k.name), "What marks a document as deleted is no field.")
			}
		}
		for _, o := range bind.outs {
			if o.name == "" || o.name == k.name {
				l.Error("MAP067", o.rng, fmt.Sprintf("out and delete write the same member %q", k.name), "What marks a document as deleted is written when its register goes.")
			}
		}
	}
	if len(bind.marks) > 0 && bind.Says() {
		l.Error("MAP066", bind.rng, "exists in map beside delete = { … }", "Either a document that is deleted is gone, or it stays and says so.")
	}
}

// Marks tells whether the end of a register is written into its document, which stays.
func (b *Bind) Marks() bool { return len(b.marks) > 0 }

// marked tells whether a document, or a row of one, says that its register is gone.
func (b *Bind) marked(doc engine.Value) bool {
	if len(b.marks) == 0 || !isObject(doc) {
		return false
	}
	return !slices.ContainsFunc(b.marks, func(k deadMark) bool { return !k.in(doc) })
}

func (k *deadMark) in(doc engine.Value) bool {
	v, _ := doc.Member(k.name)
	if v.IsAbsent() || v.Kind() == lattice.NullKind {
		return false
	}
	if k.is.IsAbsent() {
		return v.Kind() != lattice.StringKind || v.Text() != ""
	}
	if v.Equal(k.is) {
		return true
	}
	a, err1 := captureText(v) // in a document that is all text
	b, err2 := captureText(k.is)
	return err1 == nil && err2 == nil && v.Kind() == lattice.StringKind && a == b
}

// isMark tells whether a member is one of those.
func (b *Bind) isMark(name string) bool {
	return slices.ContainsFunc(b.marks, func(k deadMark) bool { return k.name == name })
}

// mark writes that the register is gone into a document that doesn't say so yet.
func (m *message) mark(doc engine.Value) (engine.Value, error) {
	if m.bind.marked(doc) {
		return doc, nil
	}
	for i := range m.bind.marks {
		k := &m.bind.marks[i]
		v, err := k.eval(m)
		if err != nil {
			return absent, fmt.Errorf("delete: %s: %s", k.name, wrappers.Reason(err))
		}
		doc = setPath(doc, []string{k.name}, v)
	}
	return doc, nil
}

// unmark takes back that it is: the register is there again.
func (b *Bind) unmark(doc engine.Value) engine.Value {
	if !b.marked(doc) {
		return doc
	}
	for i := range b.marks {
		doc = setPath(doc, []string{b.marks[i].name}, lattice.Null())
	}
	return doc
}

// OutGone encodes the document of a register that is gone, for a bind that Marks: prev, if that is known, with what says so.
func (b *Bind) OutGone(p Place, st engine.StateBlock, prev *wrappers.Payload, env Env) (wrappers.Payload, error) {
	m := messages.Get().(*message)
	defer m.release()
	m.outward(b, p, st, env)
	m.there = prev != nil
	k := b.outCodec(prev)
	doc := lattice.Object()
	if prev != nil && len(prev.Raw) > 0 {
		v, err := k.decode(prev, m.instant())
		if err != nil || !isObject(v) {
			return wrappers.Payload{}, fmt.Errorf("the document that is there has no members to mark")
		}
		doc = v
	}
	doc, err := m.mark(doc)
	if err != nil {
		return wrappers.Payload{}, err
	}
	return k.encode(doc, prev)
}
