package mapping

import (
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// functions are the one-way functions of expressions. What could make much out of little (range,
// setproduct, pow) is not among them: arguments come from peers.
var functions = map[string]function.Function{
	"abs": stdlib.AbsoluteFunc, "ceil": stdlib.CeilFunc, "chomp": stdlib.ChompFunc, "coalescelist": stdlib.CoalesceListFunc,
	"compact": stdlib.CompactFunc, "concat": stdlib.ConcatFunc, "contains": stdlib.ContainsFunc, "distinct": stdlib.DistinctFunc,
	"element": stdlib.ElementFunc, "flatten": stdlib.FlattenFunc, "floor": stdlib.FloorFunc, "format": stdlib.FormatFunc,
	"formatdate": stdlib.FormatDateFunc, "int": stdlib.IntFunc, "join": joinFunc, "jsondecode": stdlib.JSONDecodeFunc,
	"jsonencode": stdlib.JSONEncodeFunc, "keys": stdlib.KeysFunc, "length": lengthFunc, "lookup": stdlib.LookupFunc,
	"lower": stdlib.LowerFunc, "max": stdlib.MaxFunc, "merge": stdlib.MergeFunc, "min": stdlib.MinFunc, "parseint": stdlib.ParseIntFunc,
	"regex": stdlib.RegexFunc, "regexall": stdlib.RegexAllFunc, "replace": replaceFunc, "reverse": stdlib.ReverseListFunc,
	"signum": stdlib.SignumFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc, "strlen": stdlib.StrlenFunc,
	"strrev": stdlib.ReverseFunc, "substr": stdlib.SubstrFunc, "timeadd": stdlib.TimeAddFunc, "title": stdlib.TitleFunc,
	"tobool": stdlib.MakeToFunc(cty.Bool), "tonumber": stdlib.MakeToFunc(cty.Number), "tostring": stdlib.MakeToFunc(cty.String),
	"trim": stdlib.TrimFunc, "trimprefix": stdlib.TrimPrefixFunc, "trimspace": stdlib.TrimSpaceFunc, "trimsuffix": stdlib.TrimSuffixFunc,
	"upper": stdlib.UpperFunc, "values": stdlib.ValuesFunc,
}

// lengthFunc takes texts too.
var lengthFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "value", Type: cty.DynamicPseudoType, AllowDynamicType: true}},
	Type:   function.StaticReturnType(cty.Number),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if args[0].Type() == cty.String {
			return stdlib.Strlen(args[0])
		}
		return stdlib.Length(args[0])
	},
})

// replaceFunc and joinFunc bound what they make: both could be given texts that multiply.
var replaceFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "str", Type: cty.String}, {Name: "substr", Type: cty.String}, {Name: "replace", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		if strings.Count(args[0].AsString(), args[1].AsString())*len(args[2].AsString()) > maxText {
			return cty.NilVal, fmt.Errorf("the result is too large")
		}
		return stdlib.Replace(args[0], args[1], args[2])
	},
})

var joinFunc = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "separator", Type: cty.String}},
	VarParam: &function.Parameter{Name: "lists", Type: cty.List(cty.String)},
	Type:     function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		items := 0
		for _, list := range args[1:] {
			items += list.LengthInt()
		}
		if items*len(args[0].AsString()) > maxText {
			return cty.NilVal, fmt.Errorf("the result is too large")
		}
		return stdlib.Join(args[0], args[1:]...)
	},
})

// evalFunctions are all functions for HCL's own evaluation: of unknown values at load, and of what
// has no closure.
var evalFunctions = func() map[string]function.Function {
	out := map[string]function.Function{"try": tryfunc.TryFunc, "can": tryfunc.CanFunc, "coalesce": coalesceFunc}
	for name, f := range functions {
		out[name] = f
	}
	for name := range twoWays {
		out[name] = twoWayFunc(name)
	}
	out["date"] = dateFunc
	out["new"] = function.New(&function.Spec{
		Type: function.StaticReturnType(cty.String),
		// Known only to a message, as reg() is.
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) { return cty.UnknownVal(cty.String), nil },
	})
	out["reg"] = function.New(&function.Spec{
		Params: []function.Parameter{{Name: "name", Type: cty.String}},
		Type:   function.StaticReturnType(cty.DynamicPseudoType),
		// Known only to a message; inside of what has no closure, check refuses it.
		Impl: func([]cty.Value, cty.Type) (cty.Value, error) { return cty.DynamicVal, nil },
	})
	return out
}()

// coalesceFunc mixes types, as the compiled form does.
var coalesceFunc = function.New(&function.Spec{
	VarParam: &function.Parameter{Name: "values", Type: cty.DynamicPseudoType, AllowNull: true, AllowUnknown: true, AllowDynamicType: true},
	Type:     function.StaticReturnType(cty.DynamicPseudoType),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		for _, a := range args {
			if !a.IsKnown() {
				return cty.DynamicVal, nil
			}
			if !a.IsNull() {
				return a, nil
			}
		}
		return cty.NullVal(cty.DynamicPseudoType), nil
	},
})

func twoWayFunc(name string) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Name: "arguments", Type: cty.DynamicPseudoType, AllowNull: true, AllowDynamicType: true},
		Type:     func(args []cty.Value) (cty.Type, error) { return twoWayType(name), nil },
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			in := make([]engine.Value, len(args))
			for i, a := range args {
				v, err := fromCty(a)
				if err != nil {
					return cty.NilVal, err
				}
				in[i] = v
			}
			if len(in) == 0 {
				return cty.NilVal, fmt.Errorf("it is used as %s", twoWays[name].usage)
			}
			s, err := stepOf(name, in[1:], nil)
			if err != nil {
				return cty.NilVal, err
			}
			v, err := s.get(in[0])
			if err != nil {
				return cty.NilVal, err
			}
			return toCty(v, &budget{nodes: maxNodes})
		},
	})
}

func twoWayType(name string) cty.Type {
	switch name {
	case "scale", "number":
		return cty.Number
	case "part", "time":
		return cty.String
	case "base64":
		return bytesCty
	}
	return cty.DynamicPseudoType
}

// makeStep reads a call of a two-way function. The error is for the user.
func makeStep(e *hclsyntax.FunctionCallExpr) (*step, error) {
	w := twoWays[e.Name]
	if n := len(e.Args) - 1; n < w.min || n > w.max {
		return nil, fmt.Errorf("it is used as %s", w.usage)
	}
	if e.Name == "table" {
		rows, err := tableRows(e.Args[1])
		if err != nil {
			return nil, err
		}
		return stepOf(e.Name, nil, rows)
	}
	args := make([]engine.Value, 0, 2)
	for _, a := range e.Args[1:] {
		c, diags := a.Value(nil)
		if diags.HasErrors() || !c.IsWhollyKnown() {
			return nil, fmt.Errorf("all its arguments but the first are constants, so that it can be inverted: %s", w.usage)
		}
		v, err := fromCty(c)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
	}
	return stepOf(e.Name, args, nil)
}

func stepOf(name string, args []engine.Value, rows []tableRow) (s *step, err error) {
	w := twoWays[name]
	if name != "table" {
		if len(args) < w.min || len(args) > w.max {
			return nil, fmt.Errorf("it is used as %s", w.usage)
		}
		s, err = w.make(args)
	} else {
		if rows == nil && len(args) == 1 {
			for _, m := range args[0].Members() {
				rows = append(rows, tableRow{lattice.String(m.Name), m.Value})
			}
		}
		s, err = makeTable(rows)
	}
	if err != nil {
		return nil, err
	}
	s.name = name
	return s, nil
}

// tableRows reads the pairs from the syntax, where `1` and `true` are still what they are.
func tableRows(expr hclsyntax.Expression) ([]tableRow, error) {
	obj, ok := expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return nil, fmt.Errorf("it is used as %s", twoWays["table"].usage)
	}
	var rows []tableRow
	for _, item := range obj.Items {
		key, diags := item.KeyExpr.Value(nil)
		if lit, ok := unwrapKey(item.KeyExpr).(*hclsyntax.LiteralValueExpr); ok {
			key = lit.Val
		} else if p, ok := unwrapKey(item.KeyExpr).(*hclsyntax.ParenthesesExpr); ok {
			key, diags = p.Value(nil)
		}
		if s, err := convert.Convert(key, cty.String); err == nil && s.IsKnown() && !s.IsNull() && (s.AsString() == "true" || s.AsString() == "false") {
			if _, quoted := unwrapKey(item.KeyExpr).(*hclsyntax.TemplateExpr); !quoted {
				key = cty.BoolVal(s.AsString() == "true")
			}
		}
		value, more := item.ValueExpr.Value(nil)
		if diags.HasErrors() || more.HasErrors() || !key.IsWhollyKnown() || !value.IsWhollyKnown() {
			return nil, fmt.Errorf("a table is made of constants: %s", twoWays["table"].usage)
		}
		from, err := fromCty(key)
		if err != nil {
			return nil, err
		}
		to, err := fromCty(value)
		if err != nil {
			return nil, err
		}
		if to.Kind() == lattice.NullKind {
			return nil, fmt.Errorf("null can't stand in a table")
		}
		rows = append(rows, tableRow{from, to})
	}
	return rows, nil
}

func functionNames() []string {
	names := append(twoWayNames(), "by", "try", "can", "coalesce", "reg", "date", "new")
	for n := range functions {
		names = append(names, n)
	}
	return names
}

// hint says what is wrong with a name that is not in scope, where people commonly slip.
func hint(name string, known []string) string {
	if left, right, ok := strings.Cut(name, "-"); ok {
		for _, k := range known {
			if k == left {
				return fmt.Sprintf("In HCL a name may hold a dash, so this is one name. Write `%s - %s`, with spaces, to subtract.", left, right)
			}
		}
	}
	return ""
}
