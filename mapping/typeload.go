package mapping

import (
	"fmt"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine/lattice"
)

func (l *loader) fields(a *hclsyntax.Attribute, typeOf func(hclsyntax.Expression) *typ) map[string]*typ {
	out := map[string]*typ{}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.Error("MAP010", a.Expr.Range(), "fields are written as { name = type }", "As in `fields = { value = number, unit = string }`.")
		return out
	}
	for _, item := range obj.Items {
		name, ok := memberName(item.KeyExpr)
		switch {
		case !ok || name == "":
			l.Error("MAP010", item.KeyExpr.Range(), "not the name of a field", "It is a constant.")
			continue
		case out[name] != nil:
			l.Error("MAP011", item.KeyExpr.Range(), fmt.Sprintf("the field %q stands there twice", name), "Keep one of the two.")
		}
		out[name] = typeOf(item.ValueExpr)
	}
	return out
}

var typeNames = map[string]typeKind{"string": stringType, "number": numberType, "bool": boolType, "bytes": bytesType, "time": timeType, "any": anyType}

// typeOf reads a type without a rule; what can't be read is reported and taken for any.
func (l *loader) typeOf(expr hclsyntax.Expression) *typ {
	if t, ok := expr.(*hclsyntax.TemplateExpr); ok && t.IsStringLiteral() {
		v, _ := t.Value(nil)
		l.Error("MAP012", expr.Range(), "a type has no quotes", fmt.Sprintf("Write `%s`.", v.AsString()))
		return anything
	}
	if word := hcl.ExprAsKeyword(expr); word != "" {
		if k, ok := typeNames[word]; ok {
			return &typ{kind: k}
		}
		if i := slices.Index(lattice.RuleNames(), word); i >= 0 {
			l.Error("MAP030", expr.Range(), fmt.Sprintf("the rule %s without a type", word), fmt.Sprintf("Write it around one, as in `%s`.", ruleUsage[i]))
			return anything
		}
		names := []string{"enum", "list", "object"}
		for n := range typeNames {
			names = append(names, n)
		}
		l.Unknown("MAP013", expr.Range(), "type", word, names)
		return anything
	}
	call, ok := expr.(*hclsyntax.FunctionCallExpr)
	if !ok {
		l.Error("MAP013", expr.Range(), "a type is wanted", `string, number, bool, bytes, time, any, enum("a", "b"), list(T) or object({…}).`)
		return anything
	}
	one := func() *typ {
		if len(call.Args) != 1 {
			l.Error("MAP014", call.Range(), call.Name+"() takes one type", fmt.Sprintf("As in `%s(number)`.", call.Name))
			return anything
		}
		return l.typeOf(call.Args[0])
	}
	switch {
	case slices.Contains(lattice.RuleNames(), call.Name):
		l.Error("MAP031", call.NameRange, fmt.Sprintf("the rule %s() inside of a type or a rule", call.Name),
			"A field has one rule, around its whole type: `max(number)`, not `list(max(number))`.")
		return anything
	case call.Name == "list":
		return &typ{kind: listType, item: one()}
	case call.Name == "enum":
		t := &typ{kind: enumType}
		for _, a := range call.Args {
			v, ok := l.Constant(a, nil)
			if !ok {
				continue
			}
			if s, err := fromCty(v); err == nil && s.Text() != "" && !slices.Contains(t.words, s.Text()) {
				t.words = append(t.words, s.Text())
			} else {
				l.Error("MAP014", a.Range(), "the words of an enum are different texts in quotes", `As in enum("on", "off").`)
			}
		}
		if len(call.Args) == 0 {
			l.Error("MAP014", call.Range(), "an enum without words", `Write enum("on", "off").`)
		}
		return t
	case call.Name == "object":
		if len(call.Args) == 1 {
			if obj, ok := call.Args[0].(*hclsyntax.ObjectConsExpr); ok {
				return &typ{kind: objectType, members: l.fields(&hclsyntax.Attribute{Name: "object", Expr: obj, SrcRange: call.Range()}, l.typeOf)}
			}
		}
		l.Error("MAP014", call.Range(), "object() takes its members in braces", "As in object({ x = number, y = number }).")
	default:
		l.Unknown("MAP013", call.NameRange, "type", call.Name, append([]string{"enum", "list", "object", "string", "number", "bool", "bytes", "time", "any"}, lattice.RuleNames()...))
	}
	return anything
}
