package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A way tells what an expression may know.
type way uint8

const (
	inward    way = iota + 1 // in, key: of the message
	outward                  // out, create: of the register
	answering                // reply: of the message, and of the register behind it
	both                     // map, when: of the payload, whichever way it goes
)

// A scope is where an expression of a bind stands.
type scope struct {
	bind *Bind
	way  way
	log  *diag.Log
	made bool // evaluated once, where a candidate or an address is made: new() may stand here
}

var inwardRoots = []string{"raw", "meta", "verb", "peer", "who"}

func (sc *scope) names() []string {
	names := append([]string{"payload", "exists", "wrapper", "now"}, sc.bind.slots...)
	if sc.bind.each != nil {
		names = append(names, "row")
	}
	switch sc.way {
	case inward:
		names = append(names, inwardRoots...)
	case outward:
		names = append(names, "self")
	case answering:
		names = append(append(names, inwardRoots...), "self")
	}
	return names
}

// check finds what is wrong with an expression before any message: names, functions, attributes,
// and by HCL's evaluation of unknown values, types. It gives the type of the result.
func (sc *scope) check(expr hclsyntax.Expression) (cty.Type, bool) {
	names := sc.names()
	ok := true
	bad := func(f func()) { ok = false; f() }
	local := localNames(expr)
	for _, t := range expr.Variables() {
		name, at := t.RootName(), t.SourceRange()
		switch {
		case slices.Contains(local, name):
		case slices.Contains(names, name):
			if name == "self" {
				sc.checkSelf(t, bad)
			}
		case name == "row":
			bad(func() {
				sc.log.Error("MAP065", at, `"row" without each`, "A row is known where one document is many registers: add `each = payload`, or `each = payload.member`.")
			})
		case name == "self":
			bad(func() {
				sc.log.Error("MAP092", at, `"self" is known only on the way out`, "Use it in `out`, `create` or `reply`.")
			})
		case slices.Contains(inwardRoots, name):
			bad(func() {
				sc.log.Error("MAP092", at, fmt.Sprintf("%q is known only on the way in", name), "Use it in `in` or `key`; what flows both ways depends on the payload.")
			})
		default:
			bad(func() {
				root := t[:1].SourceRange()
				d := &diag.Diagnostic{Code: "MAP090", Severity: diag.Error, Summary: fmt.Sprintf("unknown name %q", name), Subject: root}
				if d.Detail = hint(name, append(names, "payload")); d.Detail != "" {
					d.Code = "MAP091"
				} else if d.Detail = foreignNames[name]; d.Detail != "" {
				} else if d.Suggestion = diag.Suggest(name, names); d.Suggestion == "" {
					d.Detail = fmt.Sprintf("There is: %s. A member of the payload is payload.%s; a text stands in quotes.", strings.Join(names, ", "), name)
				}
				sc.log.Add(d)
			})
		}
	}
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch loop := n.(type) {
		case *hclsyntax.ForExpr:
			sc.noReg(loop, bad)
		case *hclsyntax.SplatExpr:
			sc.noReg(loop, bad)
		}
		c, isCall := n.(*hclsyntax.FunctionCallExpr)
		if !isCall {
			return nil
		}
		_, known := evalFunctions[c.Name]
		switch {
		case c.Name == "by":
			bad(func() {
				sc.log.Error("MAP095", c.NameRange, "by() stands around a whole entry of `in`, and nowhere else", "As in `in = { litres = by(payload.add) }`. An increment has no way back.")
			})
		case !known:
			bad(func() { sc.log.Unknown("MAP093", c.NameRange, "function", c.Name, functionNames()) })
		case c.Name == "reg" && sc.way != inward:
			bad(func() {
				sc.log.Error("MAP092", c.NameRange, "reg() is known only on the way in", "Use it in `in`: a bind is told of changes of its own register only.")
			})
		case c.Name == "new" && !sc.made:
			bad(func() {
				sc.log.Error("MAP099", c.NameRange, "new() stands in `in`, `key` and `create`", "Anywhere else it would be another one each time the payload is looked at or written.")
			})
		case c.Name == "date":
			if _, err := dateZone(c); err != nil {
				bad(func() {
					sc.log.Error("MAP094", hcl.RangeBetween(c.NameRange, c.CloseParenRange), "date() can't be read", sentence(err))
				})
			}
		case c.Name == "number" && len(c.Args) == 1 && sc.bind.commas():
			bad(func() {
				sc.log.Error("MAP094", c.NameRange, "number() reads a decimal point, and this codec has decimal commas", `Leave number() out, since a cell converts to the field's type by itself, or write number(…, ",").`)
			})
		case twoWays[c.Name] != nil:
			if _, err := makeStep(c); err != nil {
				bad(func() {
					sc.log.Error("MAP094", hcl.RangeBetween(c.NameRange, c.CloseParenRange), c.Name+"() can't be read", sentence(err))
				})
			}
		case c.Name == "format" && len(c.Args) > 0 && len(c.Args[0].Variables()) > 0:
			bad(func() {
				sc.log.Error("MAP098", c.Args[0].Range(), "format() takes a constant format", "A peer's text could ask for any width.")
			})
		case c.Name == "can" && len(c.Args) != 1:
			bad(func() {
				sc.log.Error("MAP098", c.NameRange, "can() takes one argument", "can(payload.x) is true when payload.x is there.")
			})
		}
		return nil
	})
	if !ok {
		return cty.DynamicPseudoType, false
	}
	v, diags := expr.Value(&hcl.EvalContext{Variables: sc.unknowns(), Functions: evalFunctions})
	sc.log.HCL("HCL018", diags)
	if diags.HasErrors() {
		return cty.DynamicPseudoType, false
	}
	sc.examine(expr, v)
	return v.Type(), true
}

// noReg keeps reg() and new() out of what HCL evaluates by itself.
func (sc *scope) noReg(loop hclsyntax.Node, bad func(func())) {
	hclsyntax.VisitAll(loop, func(n hclsyntax.Node) hcl.Diagnostics {
		if c, ok := n.(*hclsyntax.FunctionCallExpr); ok && (c.Name == "reg" || c.Name == "new") {
			bad(func() {
				sc.log.Error("MAP097", c.NameRange, c.Name+"() inside of a loop", "It is called outside of `for` and `[*]`.")
			})
		}
		return nil
	})
}

// localNames are the names that for expressions introduce.
func localNames(expr hclsyntax.Expression) []string {
	var names []string
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		if f, ok := n.(*hclsyntax.ForExpr); ok {
			names = append(names, f.KeyVar, f.ValVar)
		}
		return nil
	})
	return names
}

func (sc *scope) checkSelf(t hcl.Traversal, bad func(func())) {
	d := sc.bind.decl
	if d == nil || !d.closed || len(t) < 2 {
		return
	}
	attr, ok := t[1].(hcl.TraverseAttr)
	if !ok {
		return
	}
	if d.fields[attr.Name] == nil {
		bad(func() {
			names := d.names()
			if h := hint(attr.Name, names); h != "" {
				sc.log.Error("MAP091", attr.SrcRange, fmt.Sprintf("unknown field %q", attr.Name), h)
				return
			}
			sc.log.Unknown("MAP074", attr.SrcRange, "field", attr.Name, names)
		})
	}
}

// unknowns are the names in scope with values of the right types that are not known yet.
func (sc *scope) unknowns() map[string]cty.Value {
	vars := map[string]cty.Value{
		"payload": cty.DynamicVal, "row": cty.DynamicVal, "raw": cty.DynamicVal, "meta": cty.UnknownVal(cty.Map(cty.String)),
	}
	for _, n := range []string{"verb", "peer", "who", "wrapper", "now"} {
		vars[n] = cty.UnknownVal(cty.String)
	}
	for _, n := range sc.bind.slots {
		vars[n] = cty.UnknownVal(cty.String)
	}
	vars["self"], vars["exists"] = cty.DynamicVal, cty.UnknownVal(cty.Bool)
	if d := sc.bind.decl; d != nil && d.closed {
		fields := map[string]cty.Value{}
		for n, f := range d.fields {
			fields[n] = cty.UnknownVal(f.cty())
		}
		vars["self"] = cty.ObjectVal(fields)
	} else if d != nil && d.value != nil {
		vars["self"] = cty.UnknownVal(d.value.cty())
	}
	switch sc.bind.codec {
	case textCodec:
		vars["payload"] = cty.UnknownVal(cty.String)
	case numberCodec:
		vars["payload"] = cty.UnknownVal(cty.Number)
	case bytesCodec:
		vars["payload"] = cty.UnknownVal(bytesCty)
	}
	if sc.bind.form != nil {
		members := map[string]cty.Value{}
		for _, n := range sc.bind.form.names {
			members[n] = cty.UnknownVal(cty.String)
		}
		vars["payload"] = cty.ObjectVal(members)
	}
	return vars
}

// sentence makes an error's text one.
func sentence(err error) string {
	s := peerText(err)
	if s == "" {
		return s
	}
	if first, _, _ := strings.Cut(s, " "); strings.Contains(first, "(") {
		return s + "." // the name of a function
	}
	return strings.ToUpper(s[:1]) + s[1:] + "."
}
