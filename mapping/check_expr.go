package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A regCall is reg() of a constant name, in what a bind reads.
type regCall struct {
	name string
	rng  hcl.Range
}

// examine looks into an expression that could be evaluated with unknown values for what is the same whatever comes, and
// notes which registers it reads. v is what the evaluation gave.
func (sc *scope) examine(expr hclsyntax.Expression, v cty.Value) {
	ctx := &hcl.EvalContext{Variables: sc.unknowns(), Functions: evalFunctions}
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch e := n.(type) {
		case *hclsyntax.FunctionCallExpr:
			if e.Name == "reg" && len(e.Args) == 1 && len(e.Args[0].Variables()) == 0 {
				if name, diags := e.Args[0].Value(ctx); !diags.HasErrors() && name.Type() == cty.String && !name.IsNull() {
					sc.bind.regs = append(sc.bind.regs, regCall{name.AsString(), e.Range()})
				}
			}
		case *hclsyntax.BinaryOpExpr:
			sc.comparison(e, ctx)
		case *hclsyntax.ForExpr:
			for _, name := range []string{e.KeyVar, e.ValVar} {
				if name != "" && slices.Contains(sc.names(), name) {
					sc.log.Warn("MAP122", e.SrcRange, fmt.Sprintf("%q means something else inside of this loop", name),
						fmt.Sprintf("Outside of it %s is known already. Give the loop's variable another name.", name))
				}
			}
		}
		return nil
	})
}

// comparison finds == and != of types that never are equal, and conditions that contradict each other.
func (sc *scope) comparison(e *hclsyntax.BinaryOpExpr, ctx *hcl.EvalContext) {
	switch e.Op {
	case hclsyntax.OpEqual, hclsyntax.OpNotEqual:
		if len(e.LHS.Variables())+len(e.RHS.Variables()) == 0 {
			return
		}
		a, d1 := e.LHS.Value(ctx)
		b, d2 := e.RHS.Value(ctx)
		if d1.HasErrors() || d2.HasErrors() || !plainType(a.Type()) || !plainType(b.Type()) || a.Type() == b.Type() {
			return
		}
		always := "false"
		if e.Op == hclsyntax.OpNotEqual {
			always = "true"
		}
		remedy := "Compare it with a value of its own type."
		switch {
		case a.Type() == cty.String && b.Type() == cty.Number, a.Type() == cty.Number && b.Type() == cty.String:
			remedy = "A text with digits in quotes is a text; without quotes it is a number, and so is number(…) of a text."
		case a.Type() == cty.String && b.Type() == cty.Bool, a.Type() == cty.Bool && b.Type() == cty.String:
			remedy = "true and false have no quotes; a text that says so does."
		}
		sc.log.Error("MAP113", e.SrcRange, fmt.Sprintf("%s and %s are never equal", article(a.Type().FriendlyName()), article(b.Type().FriendlyName())),
			fmt.Sprintf("So this is always %s. %s", always, remedy))
	case hclsyntax.OpLogicalAnd, hclsyntax.OpLogicalOr:
		sc.contradiction(e)
	}
}

func plainType(t cty.Type) bool { return t == cty.String || t == cty.Number || t == cty.Bool }

// contradiction finds x == "a" && x == "b", and x != "a" || x != "b": the && and || of somebody who read them aloud.
func (sc *scope) contradiction(e *hclsyntax.BinaryOpExpr) {
	want, always, other := hclsyntax.OpEqual, "false", "||"
	if e.Op == hclsyntax.OpLogicalOr {
		want, always, other = hclsyntax.OpNotEqual, "true", "&&"
	}
	l, lname, lval := comparedWith(e.LHS, want)
	r, rname, rval := comparedWith(e.RHS, want)
	if l && r && lname == rname && lval.Type() == rval.Type() && !lval.RawEquals(rval) {
		sc.log.Error("MAP112", e.SrcRange, "this condition is always "+always,
			fmt.Sprintf("%s can't be two things at once. Write %s between the comparisons.", lname, other))
	}
}

// comparedWith reads name == constant.
func comparedWith(expr hclsyntax.Expression, op *hclsyntax.Operation) (bool, string, cty.Value) {
	for {
		p, ok := expr.(*hclsyntax.ParenthesesExpr)
		if !ok {
			break
		}
		expr = p.Expression
	}
	c, ok := expr.(*hclsyntax.BinaryOpExpr)
	if !ok || c.Op != op {
		return false, "", cty.NilVal
	}
	name, value := c.LHS, c.RHS
	if _, ok := name.(*hclsyntax.ScopeTraversalExpr); !ok {
		name, value = value, name
	}
	t, ok := name.(*hclsyntax.ScopeTraversalExpr)
	if !ok || len(value.Variables()) > 0 {
		return false, "", cty.NilVal
	}
	path, ok := traversalPath(t.Traversal[1:])
	v, diags := value.Value(nil)
	if !ok || diags.HasErrors() || !v.IsKnown() {
		return false, "", cty.NilVal
	}
	text := []string{t.Traversal.RootName()}
	for _, p := range path {
		if p.Type() != cty.String {
			return false, "", cty.NilVal
		}
		text = append(text, p.AsString())
	}
	return true, strings.Join(text, "."), v
}

// constantWhen says of a `when` that asks nothing that it is always the same.
func (l *loader) constantWhen(expr hclsyntax.Expression) {
	if len(expr.Variables()) > 0 {
		return
	}
	if v, diags := expr.Value(&hcl.EvalContext{Functions: evalFunctions}); !diags.HasErrors() && v.IsKnown() && !v.IsNull() && v.Type() == cty.Bool && v.False() {
		l.Error("MAP112", expr.Range(), "this condition is always false", "The bind carries nothing. Take the bind out, or the condition.")
	}
}
