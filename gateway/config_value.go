package gateway

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A reading turns attributes into values and notes every mistake it meets. Any of them may use
// env() and file().
type reading struct {
	*diag.Log
	ctx *hcl.EvalContext
}

func newReading(dir string, files Sources, log *diag.Log) *reading {
	return &reading{log, &hcl.EvalContext{Functions: map[string]function.Function{
		"env":  envFunction,
		"file": fileFunction(dir, files),
	}}}
}

func (r *reading) errorAt(code diag.Code, at hcl.Range, summary, format string, args ...any) {
	r.Error(code, at, summary, fmt.Sprintf(format, args...))
}

func (r *reading) warnAt(code diag.Code, at hcl.Range, summary, format string, args ...any) {
	r.Warn(code, at, summary, fmt.Sprintf(format, args...))
}

// constant evaluates an attribute that is there.
func (r *reading) constant(attr *hclsyntax.Attribute) (cty.Value, bool) {
	if len(attr.Expr.Variables()) > 0 {
		return r.Constant(attr.Expr, nil) // which says what a bare word is
	}
	return r.Constant(attr.Expr, r.ctx)
}

// envFunction is env("NAME") and env("NAME", "default").
var envFunction = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "name", Type: cty.String}},
	VarParam: &function.Parameter{Name: "default", Type: cty.String},
	Type: func(args []cty.Value) (cty.Type, error) {
		if len(args) > 2 {
			return cty.NilType, function.NewArgErrorf(2, "env takes a name and a default, no more")
		}
		return cty.String, nil
	},
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		name := args[0].AsString()
		if v, ok := os.LookupEnv(name); ok {
			return cty.StringVal(v), nil
		}
		if len(args) == 2 {
			return args[1], nil
		}
		return cty.NilVal, function.NewArgErrorf(0, "the environment has no %s, and no default is given: env(%q, \"default\")", name, name)
	},
})

// fileFunction is file("path"): the file's text without the line ends behind it.
func fileFunction(dir string, files Sources) function.Function {
	return function.New(&function.Spec{
		Params: []function.Parameter{{Name: "path", Type: cty.String}},
		Type:   function.StaticReturnType(cty.String),
		Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
			b, err := files.ReadFile(relativeTo(dir, args[0].AsString()))
			if err != nil {
				return cty.NilVal, function.NewArgError(0, err)
			}
			if len(b) > maxSecretFile {
				return cty.NilVal, function.NewArgErrorf(0, "the file is larger than %d bytes", maxSecretFile)
			}
			return cty.StringVal(strings.TrimRight(string(b), "\r\n")), nil
		},
	})
}

func relativeTo(dir, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// value evaluates an attribute of the wanted type. A nil attribute, one that can't be evaluated
// and one of another type give false; the last two are noted.
func (r *reading) value(attr *hclsyntax.Attribute, want cty.Type, form string) (cty.Value, bool) {
	if attr == nil {
		return cty.NilVal, false
	}
	v, ok := r.constant(attr)
	if ok && (v.IsNull() || !v.Type().Equals(want)) {
		r.wrongType(attr, form)
		return cty.NilVal, false
	}
	return v, ok
}

func (r *reading) wrongType(attr *hclsyntax.Attribute, form string) {
	r.errorAt("HCL014", attr.Expr.Range(), attr.Name+" has a value of the wrong form", "It is written as %s.", form)
}

func (r *reading) text(attr *hclsyntax.Attribute, into *string) bool {
	v, ok := r.value(attr, cty.String, "text in quotes")
	if ok {
		*into = v.AsString()
	}
	return ok
}

func (r *reading) boolean(attr *hclsyntax.Attribute, into *bool) bool {
	v, ok := r.value(attr, cty.Bool, "true or false")
	if ok {
		*into = v.True()
	}
	return ok
}

func (r *reading) whole(attr *hclsyntax.Attribute, low, high int64, into *int64) bool {
	v, ok := r.value(attr, cty.Number, "a whole number")
	if !ok {
		return false
	}
	n, exact := v.AsBigFloat().Int64()
	switch {
	case exact != big.Exact:
		r.wrongType(attr, "a whole number")
		return false
	case n < low || high > 0 && n > high:
		bounds := fmt.Sprintf("at least %d", low)
		if high > 0 {
			bounds = fmt.Sprintf("between %d and %d", low, high)
		}
		r.errorAt("HCL016", attr.Expr.Range(), attr.Name+" is out of range", "It is %s.", bounds)
		return false
	}
	*into = n
	return true
}

// choice is text that must be one of words.
func (r *reading) choice(attr *hclsyntax.Attribute, words []string, into *string) bool {
	var s string
	if !r.text(attr, &s) {
		return false
	}
	for _, w := range words {
		if s == w {
			*into = s
			return true
		}
	}
	r.unknown(attr.Expr.Range(), attr.Name, s, words)
	return false
}

// unknown names a word that is none of those there are.
func (r *reading) unknown(at hcl.Range, what, word string, words []string) {
	r.Add(&diag.Diagnostic{
		Code:     "HCL015",
		Severity: diag.Error, Subject: at, Summary: fmt.Sprintf("%s can't be %q", what, word),
		Detail: "It is one of " + quoted(words) + ".", Suggestion: diag.Suggest(word, words),
	})
}

// texts is one text or a list of them.
func (r *reading) texts(attr *hclsyntax.Attribute, into *[]string) bool {
	if attr == nil {
		return false
	}
	v, ok := r.constant(attr)
	if !ok {
		return false
	}
	const form = `text in quotes, or a list of texts: ["a", "b"]`
	if !v.IsNull() && v.Type() == cty.String {
		*into = []string{v.AsString()}
		return true
	}
	if v.IsNull() || !v.Type().IsTupleType() {
		r.wrongType(attr, form)
		return false
	}
	var out []string
	for it := v.ElementIterator(); it.Next(); {
		_, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			r.wrongType(attr, form)
			return false
		}
		out = append(out, e.AsString())
	}
	*into = out
	return true
}

// A pair is one member of an object of texts, in the order of keys.
type pair struct{ key, value string }

// pairs is an object of texts; ok is false, and nothing noted, if it is text.
func (r *reading) pairs(attr *hclsyntax.Attribute, form string) (out []pair, ok bool) {
	v, ok := r.constant(attr)
	if !ok {
		return nil, false
	}
	if v.IsNull() || !v.Type().IsObjectType() {
		r.wrongType(attr, form)
		return nil, false
	}
	for it := v.ElementIterator(); it.Next(); {
		k, e := it.Element()
		if e.IsNull() || e.Type() != cty.String {
			r.wrongType(attr, form)
			return nil, false
		}
		out = append(out, pair{k.AsString(), e.AsString()})
	}
	return out, true
}

// secret is text that must not be printed. Written out in the file it is a warning.
func (r *reading) secret(attr *hclsyntax.Attribute, into *Secret) bool {
	var s string
	if !r.text(attr, &s) {
		return false
	}
	*into = NewSecret(s)
	if isLiteral(attr.Expr) {
		// The name's range, not the value's: a message about a secret must not underline it.
		r.warnAt("GW021", attr.NameRange, "secret written out", "Whoever can read this file, or its history, has it. Use file(\"path\") or env(\"NAME\").")
	}
	return true
}

// isLiteral tells whether an expression reads nothing from outside the file.
func isLiteral(e hclsyntax.Expression) bool {
	literal := true
	_ = hclsyntax.VisitAll(e, func(n hclsyntax.Node) hcl.Diagnostics {
		if _, call := n.(*hclsyntax.FunctionCallExpr); call {
			literal = false
		}
		return nil
	})
	return literal
}

// duration is text as Go writes durations: "500ms", "10s", "2m".
func (r *reading) duration(attr *hclsyntax.Attribute, low, high time.Duration, into *time.Duration) bool {
	v, ok := r.value(attr, cty.String, `a duration as text: "500ms", "10s", "2m"`)
	if !ok {
		return false
	}
	d, err := diag.ParseDuration(v.AsString())
	if err != nil {
		r.wrongType(attr, `a duration as text: "500ms", "10s", "2m"`)
		return false
	}
	if d < low || d > high {
		r.errorAt("HCL016", attr.Expr.Range(), attr.Name+" is out of range", "It is between %s and %s.", low, high)
		return false
	}
	*into = d
	return true
}

// size is a number of bytes, or text with a unit: "2MiB".
func (r *reading) size(attr *hclsyntax.Attribute, low, high uint64, into *uint64) bool {
	const form = `a number of bytes, or a size as text: "64KiB", "2MiB"`
	if attr == nil {
		return false
	}
	v, ok := r.constant(attr)
	if !ok {
		return false
	}
	var n uint64
	switch {
	case v.IsNull():
		r.wrongType(attr, form)
		return false
	case v.Type() == cty.Number:
		u, exact := v.AsBigFloat().Uint64()
		if exact != big.Exact {
			r.wrongType(attr, form)
			return false
		}
		n = u
	case v.Type() == cty.String:
		u, err := parseSize(v.AsString())
		if err != nil {
			r.wrongType(attr, form)
			return false
		}
		n = u
	default:
		r.wrongType(attr, form)
		return false
	}
	if n < low || n > high {
		r.errorAt("HCL016", attr.Expr.Range(), attr.Name+" is out of range", "It is between %s and %s.", FormatSize(low), FormatSize(high))
		return false
	}
	*into = n
	return true
}

var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}}

func parseSize(s string) (uint64, error) {
	s = strings.TrimSpace(s)
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
			if err == nil && n > (1<<63)/u.bytes {
				err = strconv.ErrRange
			}
			return n * u.bytes, err
		}
	}
	return strconv.ParseUint(s, 10, 64)
}

// FormatSize gives a number of bytes for people: "256 MiB".
func FormatSize(n uint64) string {
	for _, u := range sizeUnits[:4] {
		if n >= u.bytes {
			if n%u.bytes == 0 {
				return fmt.Sprintf("%d %s", n/u.bytes, u.name)
			}
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.bytes), u.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

func quoted(words []string) string {
	q := make([]string, len(words))
	for i, w := range words {
		q[i] = strconv.Quote(w)
	}
	return strings.Join(q, ", ")
}
