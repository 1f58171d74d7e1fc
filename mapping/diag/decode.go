package diag

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// A Schema says what may stand in a body.
type Schema struct {
	What   string   // how the body is called in findings: "bind", "gateway.hcl"
	Attrs  []string // known attributes
	Need   []string // those of them that must be there
	Blocks []Block  // known blocks
	Later  []string // attributes and blocks that a later version has
}

// A Block is one type of block in a Schema.
type Block struct {
	Type   string
	Labels []string // what each label is, for findings: "protocol", "address"
	Once   bool     // at most one of it
}

// A Content is a body that was compared with its Schema.
type Content struct {
	Range  hcl.Range // where a missing attribute is missed
	Attrs  map[string]*hclsyntax.Attribute
	Blocks []*hclsyntax.Block // known ones with the right number of labels, in their order
}

// Decode compares a body with a Schema. What is unknown, missing or later is in the Log and not
// in the Content.
func (l *Log) Decode(body *hclsyntax.Body, missing hcl.Range, s Schema) Content {
	c := Content{Range: missing, Attrs: map[string]*hclsyntax.Attribute{}}
	known := map[string]*Block{}
	names := append([]string(nil), s.Attrs...)
	for i := range s.Blocks {
		known[s.Blocks[i].Type] = &s.Blocks[i]
		names = append(names, s.Blocks[i].Type)
	}
	attr := func(name string) bool { return contains(s.Attrs, name) }
	sorted := make([]*hclsyntax.Attribute, 0, len(body.Attributes))
	for _, a := range body.Attributes {
		sorted = append(sorted, a)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i].NameRange.Start.Byte < sorted[j].NameRange.Start.Byte })
	for _, a := range sorted {
		switch {
		case attr(a.Name):
			c.Attrs[a.Name] = a
		case contains(s.Later, a.Name):
			l.Later(a.NameRange, strconv.Quote(a.Name))
		case known[a.Name] != nil:
			l.Error("HCL008", a.NameRange, fmt.Sprintf("%q is a block", a.Name), fmt.Sprintf("Write `%s { … }`, without the equals sign.", a.Name))
		default:
			l.Unknown("HCL007", a.NameRange, "attribute of "+s.What, a.Name, names)
		}
	}
	count := map[string]int{}
	for _, b := range body.Blocks {
		k := known[b.Type]
		switch {
		case k == nil && contains(s.Later, b.Type):
			l.Later(b.TypeRange, strconv.Quote(b.Type))
		case k == nil && attr(b.Type):
			l.Error("HCL008", b.TypeRange, fmt.Sprintf("%q is an attribute", b.Type), fmt.Sprintf("Write `%s = …`, with an equals sign.", b.Type))
		case k == nil:
			l.Unknown("HCL007", b.TypeRange, "block of "+s.What, b.Type, names)
		case len(b.Labels) != len(k.Labels):
			form := b.Type
			for _, label := range k.Labels {
				form += ` "` + strings.ToUpper(label) + `"`
			}
			l.Error("HCL009", b.DefRange(), fmt.Sprintf("%q takes %s", b.Type, plural(len(k.Labels), "label")), fmt.Sprintf("Write `%s { … }`.", form))
		case k.Once && count[b.Type] > 0:
			l.Error("HCL010", b.TypeRange, fmt.Sprintf("a second %q block", b.Type), "There can be one. Put everything into the first.")
		default:
			count[b.Type]++
			c.Blocks = append(c.Blocks, b)
		}
	}
	for _, name := range s.Need {
		if c.Attrs[name] == nil {
			l.Error("HCL011", missing, fmt.Sprintf("%s lacks the attribute %q", s.What, name), fmt.Sprintf("Add `%s = …`.", name))
		}
	}
	return c
}

func contains(list []string, name string) bool {
	for _, one := range list {
		if one == name {
			return true
		}
	}
	return false
}

func plural(n int, noun string) string {
	switch n {
	case 0:
		return "no " + noun + "s"
	case 1:
		return "one " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// Constant evaluates an expression that may use the functions and variables of ctx, which may be
// nil, and nothing of a message.
func (l *Log) Constant(expr hclsyntax.Expression, ctx *hcl.EvalContext) (cty.Value, bool) {
	if ctx == nil {
		// A bare word in place of a text is the commonest slip.
		if word := hcl.ExprAsKeyword(expr); word != "" && word != "true" && word != "false" && word != "null" {
			l.Error("HCL012", expr.Range(), fmt.Sprintf("%s without quotes", word), fmt.Sprintf(`Write "%s".`, word))
			return cty.NilVal, false
		}
		for _, v := range expr.Variables() {
			if len(v) == 1 {
				l.Error("HCL012", v.SourceRange(), fmt.Sprintf("%s without quotes", v.RootName()), fmt.Sprintf(`Write "%s".`, v.RootName()))
			} else {
				l.Error("HCL013", v.SourceRange(), "a constant is wanted here", "It can't depend on "+v.RootName()+".")
			}
		}
		if len(expr.Variables()) > 0 {
			return cty.NilVal, false
		}
	}
	v, diags := expr.Value(ctx)
	l.HCL("HCL018", diags)
	if diags.HasErrors() {
		return cty.NilVal, false
	}
	v, _ = v.UnmarkDeep()
	return v, v.IsWhollyKnown()
}

func (l *Log) wrong(expr hclsyntax.Expression, name, want string, got cty.Value) {
	is := "null"
	if !got.IsNull() {
		is = "a " + got.Type().FriendlyName()
	}
	if !got.IsNull() && got.Type() == cty.String && (want == "true or false" || want == "a whole number") {
		is += "; take the quotes off"
	}
	l.Error("HCL014", expr.Range(), fmt.Sprintf("%s: %s is wanted", name, want), "This is "+is+".")
}

// String reads an attribute that is a text. Without the attribute: def.
func (l *Log) String(a *hclsyntax.Attribute, def string, ctx *hcl.EvalContext) (string, bool) {
	if a == nil {
		return def, true
	}
	v, ok := l.Constant(a.Expr, ctx)
	if !ok {
		return def, false
	}
	if v.IsNull() || v.Type() != cty.String {
		l.wrong(a.Expr, a.Name, "a text in quotes", v)
		return def, false
	}
	return v.AsString(), true
}

// Enum reads a text that is one of several.
func (l *Log) Enum(a *hclsyntax.Attribute, def string, values []string) (string, bool) {
	s, ok := l.String(a, def, nil)
	if !ok || a == nil {
		return s, ok
	}
	if !contains(values, s) {
		d := &Diagnostic{Code: "HCL015", Severity: Error, Summary: fmt.Sprintf("%s can't be %q", a.Name, s), Subject: a.Expr.Range(),
			Detail: `It can be "` + strings.Join(values, `" or "`) + `".`}
		d.Suggestion = Suggest(s, values)
		l.Add(d)
		return def, false
	}
	return s, true
}

// Bool reads true or false.
func (l *Log) Bool(a *hclsyntax.Attribute, def bool) (bool, bool) {
	if a == nil {
		return def, true
	}
	v, ok := l.Constant(a.Expr, nil)
	if !ok {
		return def, false
	}
	if v.IsNull() || v.Type() != cty.Bool {
		l.wrong(a.Expr, a.Name, "true or false", v)
		return def, false
	}
	return v.True(), true
}

// Int reads a whole number between low and high; high 0 means no upper limit.
func (l *Log) Int(a *hclsyntax.Attribute, def, low, high int64) (int64, bool) {
	if a == nil {
		return def, true
	}
	v, ok := l.Constant(a.Expr, nil)
	if !ok {
		return def, false
	}
	if v.IsNull() || v.Type() != cty.Number || !v.AsBigFloat().IsInt() {
		l.wrong(a.Expr, a.Name, "a whole number", v)
		return def, false
	}
	n, acc := v.AsBigFloat().Int64()
	if acc != 0 || n < low || high != 0 && n > high {
		limit := fmt.Sprintf("at least %d", low)
		if high != 0 {
			limit = fmt.Sprintf("from %d to %d", low, high)
		}
		l.Error("HCL016", a.Expr.Range(), fmt.Sprintf("%s is out of range", a.Name), "It can be "+limit+".")
		return def, false
	}
	return n, true
}

// Strings reads a list of texts; a single text is a list of one.
func (l *Log) Strings(a *hclsyntax.Attribute, def []string) ([]string, bool) {
	if a == nil {
		return def, true
	}
	v, ok := l.Constant(a.Expr, nil)
	if !ok {
		return def, false
	}
	if !v.IsNull() && v.Type() == cty.String {
		return []string{v.AsString()}, true
	}
	if v.IsNull() || !(v.Type().IsTupleType() || v.Type().IsListType() || v.Type().IsSetType()) {
		l.wrong(a.Expr, a.Name, "a list of texts", v)
		return def, false
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			l.wrong(a.Expr, a.Name, "a list of texts", e)
			return def, false
		}
		out = append(out, e.AsString())
	}
	return out, true
}

// ParseDuration is time.ParseDuration with days, and without negative lengths.
func ParseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	d, err := time.ParseDuration(s)
	if err == nil && d < 0 {
		err = fmt.Errorf("negative")
	}
	return d, err
}
