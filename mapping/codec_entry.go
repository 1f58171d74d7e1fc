package mapping

import (
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// entryForm is an entry of a protocol whose Syntax has Entries: an object of members with one value or a
// list of several each, as CBOR. One value and a list of one are the same there.
type entryForm struct{}

func (entryForm) traits() traits { return traits{holds: members, flavour: valued} }

func (entryForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	if len(p.Raw) == 0 {
		return lattice.Object(), nil
	}
	return decodeCBOR(p.Raw)
}

func (entryForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	return cborForm{}.encode(v, prev)
}

// only gives the value of a list of one.
func only(v engine.Value) engine.Value {
	if k := v.Kind(); (k == lattice.ListKind || k == lattice.SetKind) && v.Len() == 1 {
		return v.Items()[0]
	}
	return v
}

// listed notes the members of an entry that an expression takes for lists: what it loops over, and what it gives
// to a function of lists.
func (b *Bind) listedIn(expr hclsyntax.Expression) {
	note := func(e hclsyntax.Expression) {
		t, ok := e.(*hclsyntax.ScopeTraversalExpr)
		if !ok || t.Traversal.RootName() != "payload" {
			return
		}
		if path, ok := traversalPath(t.Traversal[1:]); ok && len(path) == 1 && path[0].Type() == cty.String {
			if name := path[0].AsString(); !slices.Contains(b.listed, name) {
				b.listed = append(b.listed, name)
			}
		}
	}
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch e := n.(type) {
		case *hclsyntax.ForExpr:
			note(e.CollExpr)
		case *hclsyntax.SplatExpr:
			note(e.Source)
		case *hclsyntax.IndexExpr:
			note(e.Collection)
		case *hclsyntax.ScopeTraversalExpr:
			if path, ok := traversalPath(e.Traversal[1:]); ok && len(path) == 2 && path[1].Type() == cty.Number && e.Traversal.RootName() == "payload" {
				note(&hclsyntax.ScopeTraversalExpr{Traversal: e.Traversal[:2]})
			}
		case *hclsyntax.FunctionCallExpr:
			for i, a := range e.Args {
				if takesList(e.Name, i) {
					note(a)
				}
			}
		}
		return nil
	})
}

// takesList tells whether an argument of a function is a list.
func takesList(function string, arg int) bool {
	switch function {
	case "coalescelist", "compact", "concat", "distinct", "flatten", "length", "reverse", "sort":
		return true
	case "contains", "element", "slice":
		return arg == 0
	case "join":
		return arg > 0
	}
	return false
}

// asLists makes lists of the members that the bind's expressions take for some.
func (b *Bind) asLists(v engine.Value) engine.Value {
	if !isObject(v) {
		return v
	}
	for _, name := range b.listed {
		m, ok := v.Member(name)
		switch {
		case !ok:
		case m.Kind() == lattice.NullKind:
			v = setPath(v, []string{name}, lattice.List())
		case m.Kind() != lattice.ListKind && m.Kind() != lattice.SetKind:
			v = setPath(v, []string{name}, lattice.List(m))
		}
	}
	return v
}
