package mapping

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A lens is an expression that can be inverted.
type lens struct {
	root  string
	path  []string
	steps []*step // from the payload outward
}

// lens reads an expression as one; the error says why it is none.
func (l *loader) lens(expr hclsyntax.Expression) (lens, error) {
	switch e := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		return l.lens(e.Expression)
	case *hclsyntax.TemplateWrapExpr:
		return l.lens(e.Wrapped)
	case *hclsyntax.ScopeTraversalExpr:
		ln := lens{root: e.Traversal.RootName()}
		path, ok := traversalPath(e.Traversal[1:])
		for _, p := range path {
			ok = ok && p.Type() == cty.String
		}
		if !ok {
			return ln, fmt.Errorf("a place in a list has no way back")
		}
		for _, p := range path {
			ln.path = append(ln.path, p.AsString())
		}
		return ln, nil
	case *hclsyntax.FunctionCallExpr:
		if twoWays[e.Name] == nil {
			return lens{}, fmt.Errorf("%s() can't be inverted; two-way functions are %s", e.Name, strings.Join(twoWayNames(), ", "))
		}
		s, err := makeStep(e)
		if err != nil {
			return lens{}, err
		}
		ln, err := l.lens(e.Args[0])
		ln.steps = append(ln.steps, s)
		return ln, err
	}
	return lens{}, fmt.Errorf("only payload.name and two-way functions of it (%s) can be inverted", strings.Join(twoWayNames(), ", "))
}

// bindMaps reads when, map, in, out and create.
func (l *loader) bindMaps(bind *Bind, c diag.Content) {
	bind.identity = c.Attrs["map"] == nil && c.Attrs["in"] == nil && c.Attrs["out"] == nil
	bind.hasOut = c.Attrs["out"] != nil
	if a := c.Attrs["when"]; a != nil {
		sc := &scope{bind: bind, way: both, log: l.Log}
		if t, ok := sc.check(a.Expr); ok {
			if t != cty.Bool && t != cty.DynamicPseudoType {
				l.Error("MAP083", a.Expr.Range(), "when: true or false is wanted", fmt.Sprintf("This is a %s.", t.FriendlyName()))
			}
			l.constantWhen(a.Expr)
			bind.when = sc.compile(a.Expr)
			for _, t := range a.Expr.Variables() {
				bind.whenNeeds = bind.whenNeeds || t.RootName() == "payload"
			}
		}
	}
	if a := c.Attrs["map"]; a != nil {
		l.bindMap(bind, a)
	}
	if a := c.Attrs["in"]; a != nil {
		bind.ins = l.oneWays(bind, a, inward)
		for _, o := range bind.ins {
			if slices.ContainsFunc(bind.mapped, func(m mapped) bool { return m.field == o.name }) {
				l.Error("MAP084", o.rng, fmt.Sprintf("the field %q stands in map and in in", o.name), "A field comes in one way.")
			}
		}
		if bind.direction == "out" {
			l.Error("MAP085", a.NameRange, "`in` in a bind that only goes out", "Take it out, or change the direction.")
		}
	}
	if a := c.Attrs["out"]; a != nil {
		bind.outs = l.oneWays(bind, a, outward)
		for _, o := range bind.outs {
			for _, m := range bind.mapped {
				if !m.exists && (o.name == "" || len(m.path) == 0 || m.path[0] == o.name) {
					l.Error("MAP086", o.rng, "map and out write the same part of the payload", "Each part has one source.")
				}
			}
		}
		if bind.direction == "in" {
			l.Error("MAP085", a.NameRange, "`out` in a bind that only comes in", "Take it out, or change the direction.")
		}
	}
	if a := c.Attrs["create"]; a != nil {
		bind.create = l.oneWays(bind, a, outward)
		if bind.codec.traits().holds != members && bind.each == nil || bind.form != nil {
			l.Error("MAP071", a.NameRange, "create needs a payload with members", "Its codec is json, cbor, xml, form or auto.")
		}
	}
	bind.present = bind.present || usesExists(c.Attrs["in"])
	for _, name := range []string{"in", "when"} {
		if a := c.Attrs[name]; a != nil && (len(bind.columns) > 0 || bind.entries) {
			bind.looksAt(a.Expr)
		}
	}
	for _, name := range []string{"key", "in", "when"} {
		if a := c.Attrs[name]; a != nil && bind.entries {
			bind.listedIn(a.Expr)
		}
	}
	for _, m := range bind.mapped {
		bind.carried = append(bind.carried, m.field)
	}
	if a := c.Attrs["out"]; a != nil {
		l.reads(bind, a.Expr)
	}
}

// reads notes which fields the expressions of out depend on.
func (l *loader) reads(bind *Bind, expr hclsyntax.Expression) {
	for _, t := range expr.Variables() {
		if t.RootName() != "self" {
			continue
		}
		path, ok := traversalPath(t[1:])
		switch {
		case bind.decl != nil && bind.decl.value != nil:
			bind.carried = append(bind.carried, "")
		case ok && len(path) > 0 && path[0].Type() == cty.String:
			bind.carried = append(bind.carried, path[0].AsString())
		default:
			bind.carryAll = true
		}
	}
	sort.Strings(bind.carried)
	bind.carried = slices.Compact(bind.carried)
}

// bindMap reads `map`: an object of fields, or one expression for a register that is one value.
func (l *loader) bindMap(bind *Bind, a *hclsyntax.Attribute) {
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.mapField(bind, "", a.Expr, a.Expr.Range())
		return
	}
	for _, item := range obj.Items {
		name, ok := memberName(item.KeyExpr)
		if !ok || name == "" {
			l.Error("MAP010", item.KeyExpr.Range(), "not the name of a field", "It is a constant.")
			continue
		}
		if slices.ContainsFunc(bind.mapped, func(m mapped) bool { return m.field == name }) {
			l.Error("MAP011", item.KeyExpr.Range(), fmt.Sprintf("the field %q stands there twice", name), "Keep one of the two.")
			continue
		}
		l.mapField(bind, name, item.ValueExpr, item.KeyExpr.Range())
	}
	sort.Slice(bind.mapped, func(i, j int) bool { return bind.mapped[i].field < bind.mapped[j].field })
}

func (l *loader) mapField(bind *Bind, field string, expr hclsyntax.Expression, at hcl.Range) {
	t := l.fieldType(bind, field, at)
	way := both
	if bind.direction == "in" {
		way = inward
	}
	sc := &scope{bind: bind, way: way, log: l.Log}
	got, ok := sc.check(expr)
	if !ok || t == nil {
		return
	}
	ln, err := l.lens(expr)
	if err == nil && ln.root == "exists" && len(ln.path) == 0 {
		l.mapExists(bind, field, t, ln.steps, expr)
		return
	}
	if err == nil && ln.root != bind.root() {
		err = fmt.Errorf("it reads %q and not the %s", ln.root, bind.root())
	}
	if err == nil && bind.each != nil && len(ln.path) == 0 {
		err = fmt.Errorf("a row is more than one field")
	}
	if err == nil && bind.each == nil && len(ln.path) > 0 && bind.codec.traits().holds == rows {
		l.Error("MAP065", expr.Range(), "this payload is a list of rows", rowsRemedy)
		return
	}
	if err == nil && len(ln.path) > 0 && bind.codec.traits().holds == oneValue {
		l.Error("MAP071", expr.Range(), "this payload has no members", fmt.Sprintf("With this codec it is one value: write `%s`.", "payload"))
		return
	}
	if err != nil {
		if bind.direction == "in" {
			// Only one way is asked for, so that it need not be two-way.
			l.fits(bind, field, t, got, expr)
			bind.ins = append(bind.ins, oneWay{name: field, typ: t, eval: sc.compile(expr), rng: at})
			return
		}
		what := "the whole value"
		if field != "" {
			what = field
		}
		l.Error("MAP080", expr.Range(), fmt.Sprintf("%s can't be written back", what),
			fmt.Sprintf("%s Put it into `in` (and what goes the other way into `out`), or set `direction = \"in\"`.", sentence(err)))
		return
	}
	if len(bind.columns) > 0 {
		switch {
		case len(ln.path) == 0:
			l.Error("MAP154", expr.Range(), "a row is more than one field", "Write payload.column.")
			return
		case bind.direction != "in" && slices.Contains(bind.columns, ln.path[0]):
			l.Error("MAP154", expr.Range(), fmt.Sprintf("the column %q is in the row's key", ln.path[0]), "It tells which register is meant, and can't be a field that is written. Put it into `in`, or leave it out.")
			return
		}
	}
	for _, m := range bind.mapped {
		n := min(len(m.path), len(ln.path))
		if !m.exists && slices.Equal(m.path[:n], ln.path[:n]) {
			l.Error("MAP081", expr.Range(), fmt.Sprintf("%q and %q share a part of the payload", m.field, field), "Each part of the payload is one field.")
		}
	}
	if len(ln.steps) > 0 {
		gives := ln.steps[len(ln.steps)-1].gives
		if !fitting(t, gives) {
			l.Error("MAP082", expr.Range(), fmt.Sprintf("%s is %s", quoted(field), article(t.String())),
				fmt.Sprintf("%s() gives %s.", ln.steps[len(ln.steps)-1].name, article(gives.String())))
			return
		}
	} else {
		l.fits(bind, field, t, got, expr)
	}
	bind.mapped = append(bind.mapped, mapped{field: field, typ: t, path: ln.path, steps: ln.steps, rng: expr.Range()})
}

func quoted(field string) string {
	if field == "" {
		return "the register's value"
	}
	return fmt.Sprintf("the field %q", field)
}

// fieldType gives the declared type of a field; one that a closed register lacks is reported.
func (l *loader) fieldType(bind *Bind, field string, at hcl.Range) *typ {
	t := bind.typeOf(field)
	if t != nil {
		if field == "" && bind.decl != nil && bind.decl.closed {
			l.Error("MAP072", at, "which field?", "The register has fields: write `{ field = expression }`.")
			return nil
		}
		return t
	}
	switch {
	case field == "":
		l.Error("MAP072", at, "which field?", fmt.Sprintf("The register at %s has fields: write `{ field = expression }`.", bind.decl.source))
	case bind.decl.value != nil:
		l.Error("MAP073", at, fmt.Sprintf("%q: the register has no fields", field), fmt.Sprintf("It is one value (type, at %s): write the expression without { }.", bind.decl.source))
	default:
		d := &diag.Diagnostic{Code: "MAP074", Severity: diag.Error, Summary: fmt.Sprintf("unknown field %q", field), Subject: at,
			Detail: fmt.Sprintf("The fields are declared at %s; add it there, or `any` other name of them: %s.", bind.decl.source, strings.Join(bind.decl.names(), ", "))}
		d.Suggestion = diag.Suggest(field, bind.decl.names())
		if d.Suggestion != "" {
			d.Detail = fmt.Sprintf("The fields are declared at %s.", bind.decl.source)
		} else {
			d.Detail = fmt.Sprintf("The fields declared at %s are %s. Add it there if it is new.", bind.decl.source, strings.Join(bind.decl.names(), ", "))
		}
		l.Add(d)
	}
	return nil
}

// fitting tells whether values of one type can be of another.
func fitting(want, got *typ) bool {
	if want.kind == setType {
		// A list of items, or one item.
		if got.kind == listType || got.kind == setType {
			return fitting(want.item, got.item)
		}
		return fitting(want.item, got)
	}
	if want.kind == anyType || got.kind == anyType || want.kind == got.kind {
		return true
	}
	switch want.kind {
	case stringType:
		return got.kind != listType && got.kind != objectType
	case enumType, timeType, bytesType:
		return got.kind == stringType || got.kind == enumType || got.kind == timeType
	}
	return false
}

// fits compares what an expression gives with the field's type, as far as both are known.
func (l *loader) fits(bind *Bind, field string, t *typ, got cty.Type, expr hclsyntax.Expression) {
	var g *typ
	switch {
	case got == cty.String:
		g = &typ{kind: stringType}
		// A capture and what text("…") captures are texts that convert to the declared type.
		if _, plain := expr.(*hclsyntax.ScopeTraversalExpr); plain && bind.form != nil {
			return
		}
	case got == cty.Number:
		g = &typ{kind: numberType}
	case got == cty.Bool:
		g = &typ{kind: boolType}
	case got == bytesCty:
		g = &typ{kind: bytesType}
	case got.IsTupleType() || got.IsListType() || got.IsSetType():
		g = &typ{kind: listType, item: anything}
	case got.IsObjectType() || got.IsMapType():
		g = &typ{kind: objectType}
	default:
		return
	}
	if !fitting(t, g) {
		remedy := ""
		if t.kind == numberType && g.kind == stringType {
			remedy = " A text becomes a number by number(…)."
		}
		is := g.String()
		if g.kind == listType {
			is = "list"
		} else if g.kind == objectType {
			is = "object"
		}
		l.Error("MAP082", expr.Range(), fmt.Sprintf("%s is %s", quoted(field), article(t.String())), fmt.Sprintf("This expression gives %s.%s", article(is), remedy))
	}
}

// oneWays reads `in`, `out` or `create`.
func (l *loader) oneWays(bind *Bind, a *hclsyntax.Attribute, w way) []oneWay {
	sc := &scope{bind: bind, way: w, log: l.Log, made: w == inward || a.Name == "create"}
	one := func(name string, expr hclsyntax.Expression, at hcl.Range) (oneWay, bool) {
		t := anything
		if w == inward {
			if t = l.fieldType(bind, name, at); t == nil {
				sc.check(expr)
				return oneWay{}, false
			}
		}
		add := false
		if call := byCall(expr); call != nil && a.Name == "in" {
			if expr, add = l.increment(bind, t, call); !add {
				return oneWay{}, false
			}
		}
		got, ok := sc.check(expr)
		if !ok {
			return oneWay{}, false
		}
		l.fits(bind, name, t, got, expr)
		return oneWay{name: name, typ: t, eval: sc.compile(expr), add: add, rng: at}, true
	}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		if a.Name == "create" {
			l.Error("MAP010", a.Expr.Range(), "create is written as { member = expression }", "As in `create = { made_by = \"gateway\" }`.")
			return nil
		}
		if o, ok := one("", a.Expr, a.Expr.Range()); ok {
			return []oneWay{o}
		}
		return nil
	}
	if w == outward && bind.codec.traits().holds == oneValue {
		l.Error("MAP071", a.Expr.Range(), "this payload has no members", fmt.Sprintf("With this codec it is one value: write `%s = expression`.", a.Name))
		return nil
	}
	var out []oneWay
	for _, item := range obj.Items {
		name, ok := memberName(item.KeyExpr)
		if !ok || name == "" {
			l.Error("MAP010", item.KeyExpr.Range(), "not a name", "It is a constant.")
			continue
		}
		if slices.ContainsFunc(out, func(o oneWay) bool { return o.name == name }) {
			l.Error("MAP011", item.KeyExpr.Range(), fmt.Sprintf("%q stands there twice", name), "Keep one of the two.")
			continue
		}
		if o, ok := one(name, item.ValueExpr, item.KeyExpr.Range()); ok {
			out = append(out, o)
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].name < out[j].name })
	return out
}
