package mapping

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping/diag"
)

// bind reads one bind block; d is the register block around it, nil for one of its own.
func (l *loader) bind(b *hclsyntax.Block, d *decl) {
	defer l.Within(fmt.Sprintf("bind %q %q", b.Labels[0], b.Labels[1]))()
	if len(l.set.binds) >= maxBinds {
		if !l.overBind {
			l.Error("MAP005", b.DefRange(), "too many binds", fmt.Sprintf("A configuration may have %d.", maxBinds))
		}
		l.overBind = true
		return
	}
	served := l.serving(b, b.Body.Attributes["wrapper"], false)
	if len(served) == 0 {
		if d != nil {
			d.unserved = true
		}
		return
	}
	before := l.Count()
	protocol := &served[0].info.Protocol
	schema := bindSchema(protocol)
	if d == nil {
		schema.Attrs = append(schema.Attrs, "register", "domain")
		schema.Need = append(schema.Need, "register")
	}
	for name, a := range b.Body.Attributes {
		if other := l.anotherProtocols(name, b.Labels[0]); other != "" && !slices.Contains(schema.Attrs, name) {
			l.Error("MAP054", a.NameRange, fmt.Sprintf("%q is an attribute of %s binds", name, other), fmt.Sprintf("It means nothing for %s: take it out.", b.Labels[0]))
			schema.Attrs = append(schema.Attrs, name)
		}
	}
	if a := b.Body.Attributes["register"]; d != nil && a != nil {
		l.Error("MAP056", a.NameRange, `"register" inside of a register block`, "The block around it names the register. Take this out, or move the bind out of the block.")
		schema.Attrs = append(schema.Attrs, "register")
	}
	for _, n := range bindLater {
		if !slices.Contains(schema.Attrs, n) {
			schema.Later = append(schema.Later, n)
		}
	}
	c := l.Decode(b.Body, b.DefRange(), schema)

	bind := &Bind{codec: jsonCodec, protocol: b.Labels[0], address: b.Labels[1], rng: b.DefRange(), source: source(b.DefRange()), decl: d}
	for _, w := range served {
		bind.wrapperNames = append(bind.wrapperNames, w.info.Name)
	}
	if !l.bindRegister(bind, c) {
		return
	}
	bind.regTree.separator = registerSyntax.Separator
	bind.regTree.insert(&leaf{template: bind.register})
	entries := make([]*entry, len(served))
	for i, w := range served {
		t := l.address(b, w)
		if t == nil {
			return
		}
		entries[i] = &entry{bind: bind, wrapper: w, template: t}
	}
	first := entries[0].template
	bind.slots = slices.Clone(first.names)
	for _, n := range bind.register.names {
		if !slices.Contains(bind.slots, n) {
			bind.slots = append(bind.slots, n)
		}
	}
	if len(bind.slots) > maxCaptures {
		l.Error("MAP006", b.DefRange(), "too many captures", fmt.Sprintf("Address and register together may have %d.", maxCaptures))
		return
	}
	for _, n := range bind.register.names {
		bind.regSlots = append(bind.regSlots, slices.Index(bind.slots, n))
	}
	for _, e := range entries {
		for _, n := range e.template.names {
			e.slots = append(e.slots, slices.Index(bind.slots, n))
		}
	}
	l.checkNames(bind, b.LabelRanges[1], first)
	l.bindFlow(bind, c)
	l.bindLimits(bind, c)
	l.bindAccess(bind, c)
	l.bindCodec(bind, c)
	l.bindEach(bind, c)
	known := l.bindKeys(bind, c, first)
	l.bindMarks(bind, c)
	l.bindMaps(bind, c)
	l.bindReply(bind, c)
	l.bindCaptures(bind, first, known, c)
	l.checkEach(bind, first, c)
	l.checkMarks(bind)
	bind.meters = bind.metered()
	bind.options = l.options(c, protocol.Bind, bind.direction)
	if bind.poll > 0 {
		bind.options["poll_ms"] = bind.poll.Milliseconds()
	}
	bind.broken = l.Count() > before
	if bind.broken {
		// What follows from a mistake is not worth a second one.
	} else if bind.direction == "both" && !bind.readable && bind.Outward() {
		l.Error("MAP062", b.DefRange(), "the way back is open", fmt.Sprintf("The address does not tell which register is meant: %s. Add `direction = \"in\"`, or `\"out\"` where its captures are fields; both are two binds.", bind.unreadable(first)))
	} else if bind.direction == "out" && !bind.readable {
		if bind.filled = l.fills(bind, first); !bind.filled {
			l.Error("MAP062", b.DefRange(), "the way out is open", fmt.Sprintf("The address can't be made of the register: %s. Such a bind can only have `direction = \"in\"`.", bind.unreadable(first)))
		}
	}
	l.bindIdentity(bind, b, served)
	for i, w := range served {
		e := entries[i]
		w.paced = w.paced || bind.every > 0
		l.set.wrappers[w.info.Name].entries = append(l.set.wrappers[w.info.Name].entries, e)
		checks := l.matches(c.Attrs["match"], e.template.names, e.template)
		if bind.decl != nil {
			for _, ck := range bind.decl.leaf.checks {
				name := bind.decl.leaf.template.names[ck.index]
				at := slices.Index(e.template.names, name)
				if at >= 0 && !slices.ContainsFunc(checks, func(c check) bool { return c.index == at }) {
					checks = append(checks, check{index: at, re: ck.re, as: ck.as})
				}
			}
		}
		if len(w.info.Servers) == 0 && slices.Contains(bind.register.names, "server") {
			l.Error("MAP055", b.DefRange(), "{server} without servers", fmt.Sprintf("The wrapper %q has no upstream with named servers; write `upstream = { name = \"url\" }`.", w.info.Name))
		}
		e.checks = checks
		lf := &leaf{template: e.template, entry: e, checks: checks}
		e.head = e
		w.tree.eachOverlapping(lf, func(o *leaf) { l.overlap(bind, lf, o) })
		if e.head == e {
			w.tree.insert(lf)
		}
	}
	l.set.binds = append(l.set.binds, bind)
}

// anotherProtocols gives the other protocol of which an attribute is a setting.
func (l *loader) anotherProtocols(name, protocol string) string {
	for _, w := range l.in.Wrappers {
		for _, s := range w.Protocol.Bind {
			if s.Name == name && w.Protocol.Name != protocol {
				return w.Protocol.Name
			}
		}
	}
	return ""
}

// bindRegister reads which registers a bind is of.
func (l *loader) bindRegister(bind *Bind, c diag.Content) bool {
	if bind.decl != nil {
		bind.register, bind.domain = bind.decl.leaf.template, bind.decl.domain
		return true
	}
	bind.domain = l.domain(c.Attrs["domain"])
	a := c.Attrs["register"]
	if a == nil {
		return false
	}
	name, ok := l.String(a, "", nil)
	if !ok {
		return false
	}
	t, err := parseTemplate(name, &registerSyntax, false)
	if err != nil {
		l.Error("MAP002", a.Expr.Range(), "not the template of a register", sentence(err))
		return false
	}
	bind.register = t
	lf := &leaf{template: t, checks: l.matches(c.Attrs["match"], append(slices.Clone(t.names), l.allNames(bind.address)...), t)}
	l.decls[bind.domain].eachOverlapping(lf, func(o *leaf) {
		switch relate(lf, o) {
		case equal, narrower:
			bind.decl = o.decl
		case wider, overlapping:
			l.Error("MAP018", a.Expr.Range(), "registers of which only some are declared", fmt.Sprintf("%q at %s declares a part of %q. Declare all of them, or none.", o.template.text, o.decl.source, t.text))
		}
	})
	return true
}

func (l *loader) allNames(address string) []string {
	_, names, _ := marks(address)
	for i, n := range names {
		names[i] = strings.TrimSuffix(n, "...")
	}
	return names
}

// bindFlow reads the attributes that say when and which way.
func (l *loader) bindFlow(bind *Bind, c diag.Content) {
	bind.direction, _ = l.Enum(c.Attrs["direction"], "both", []string{"both", "in", "out"})
	bind.events, _ = l.Bool(c.Attrs["events"], false)
	bind.onDelete = "clear"
	if a := c.Attrs["delete"]; a != nil {
		if _, obj := a.Expr.(*hclsyntax.ObjectConsExpr); !obj {
			bind.onDelete, _ = l.Enum(a, "clear", []string{"clear", "ignore"})
		}
	}
	bind.first, _ = l.Enum(c.Attrs["first"], "", []string{"source", "register"})
}

func (l *loader) bindCodec(bind *Bind, c diag.Content) {
	a := c.Attrs["codec"]
	if a == nil {
		return
	}
	var args []engine.Value
	name := hcl.ExprAsKeyword(a.Expr)
	at := a.Expr.Range()
	if call, ok := a.Expr.(*hclsyntax.FunctionCallExpr); ok {
		name = call.Name
		for _, x := range call.Args {
			v, ok := l.Constant(x, nil)
			if !ok {
				return
			}
			arg, err := fromCty(v)
			if err != nil {
				l.Error("MAP070", x.Range(), "not what a codec takes", sentence(err))
				return
			}
			args = append(args, arg)
		}
		if len(call.Args) > 0 {
			at = call.Args[len(call.Args)-1].Range()
		}
	}
	if name == "" {
		if t, ok := a.Expr.(*hclsyntax.TemplateExpr); ok && t.IsStringLiteral() {
			v, _ := t.Value(nil)
			l.Error("MAP012", a.Expr.Range(), "a codec has no quotes", fmt.Sprintf("Write `codec = %s`.", v.AsString()))
			return
		}
		l.Error("MAP070", a.Expr.Range(), "a codec is wanted", fmt.Sprintf("One of %s.", strings.Join(codecNames(), ", ")))
		return
	}
	maker, ok := codecs[name]
	if !ok {
		l.Unknown("MAP070", a.Expr.Range(), "codec", name, codecNames())
		return
	}
	if len(args) < maker.min || len(args) > maker.max {
		l.Error("MAP094", a.Expr.Range(), fmt.Sprintf("the codec %s can't be read", name), fmt.Sprintf("It is used as %s.", maker.usage))
		return
	}
	k, err := maker.make(args)
	if err != nil {
		l.Error("MAP094", at, fmt.Sprintf("the codec %s can't be read", name), sentence(err))
		return
	}
	bind.codec = k
	if form, ok := k.(*textForm); ok {
		bind.form = form.template
		for _, n := range form.names {
			bind.formSlots = append(bind.formSlots, slices.Index(bind.slots, n))
		}
	}
}

// bindKeys reads `key`, and gives the captures that expressions use, which are then no fields.
func (l *loader) bindKeys(bind *Bind, c diag.Content, address *template) map[string]bool {
	used := map[string]bool{}
	a := c.Attrs["key"]
	if a == nil {
		return used
	}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.Error("MAP063", a.Expr.Range(), "key is written as { capture = expression }", "As in `key = { site = payload.site }`.")
		return used
	}
	sc := &scope{bind: bind, way: inward, log: l.Log, made: true}
	for _, item := range obj.Items {
		name, _ := memberName(item.KeyExpr)
		switch {
		case !slices.Contains(bind.register.names, name):
			l.Unknown("MAP021", item.KeyExpr.Range(), "capture of the register's name", name, bind.register.names)
			continue
		case slices.Contains(address.names, name):
			l.Error("MAP064", item.KeyExpr.Range(), fmt.Sprintf("{%s} comes from the address already", name), "Give the capture in the address another name, or leave the key out.")
			continue
		case slices.ContainsFunc(bind.keys, func(k key) bool { return bind.slots[k.slot] == name }):
			l.Error("MAP011", item.KeyExpr.Range(), fmt.Sprintf("the key %q stands there twice", name), "Keep one of the two.")
			continue
		}
		if _, ok := sc.check(item.ValueExpr); !ok {
			continue
		}
		for _, t := range item.ValueExpr.Variables() {
			used[t.RootName()] = true
		}
		k := key{slot: slices.Index(bind.slots, name), eval: sc.compile(item.ValueExpr), from: -1}
		if ln, err := l.lens(item.ValueExpr); err == nil && len(ln.path) == 0 {
			k.from = slices.Index(address.names, ln.root)
			k.steps = ln.steps
		} else if err == nil && bind.each != nil && ln.root == "row" {
			k.path, k.steps = ln.path, ln.steps
		}
		bind.keys = append(bind.keys, k)
	}
	return used
}

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

// bindCaptures settles what each capture is: part of the register's name, used by an expression,
// or a field; and whether an address tells the register.
func (l *loader) bindCaptures(bind *Bind, address *template, used map[string]bool, c diag.Content) {
	for _, name := range []string{"map", "in", "when", "out", "reply"} {
		if a := c.Attrs[name]; a != nil {
			for _, t := range a.Expr.Variables() {
				used[t.RootName()] = true
			}
		}
	}
	bind.readable = true
	inverted := map[int]bool{}
	for _, k := range bind.keys {
		switch {
		case k.from >= 0:
			inverted[k.from] = true
		case k.path == nil:
			bind.readable = false
		}
	}
	keyed := func(slot int) bool { return slices.ContainsFunc(bind.keys, func(k key) bool { return k.slot == slot }) }
	for i, name := range bind.register.names {
		slot := bind.regSlots[i]
		switch {
		case slices.Contains(address.names, name), keyed(slot), name == "wrapper":
		case name == "server":
		case bind.form != nil && slices.Contains(bind.form.names, name):
			bind.readable = false
		default:
			l.Error("MAP060", bind.rng, fmt.Sprintf("nothing gives {%s}", name),
				fmt.Sprintf("The register %q needs it. Put {%s} into the address, or add `key = { %s = payload.… }`.", bind.register.text, name, name))
		}
	}
	for i, name := range address.names {
		if slices.Contains(bind.register.names, name) {
			continue
		}
		if !inverted[i] {
			bind.readable = false
		}
		if used[name] {
			continue
		}
		t := bind.typeOf(name)
		if t == nil {
			l.Error("MAP061", bind.rng, fmt.Sprintf("{%s} is neither in the register's name nor a field", name),
				fmt.Sprintf("The register %q is declared at %s without it. A capture that is not to be kept can be used in `when` or `key`.", bind.register.text, bind.decl.source))
			continue
		}
		bind.fields = append(bind.fields, capField{i, name, t})
	}
	sort.Slice(bind.fields, func(i, j int) bool { return bind.fields[i].field < bind.fields[j].field })
	if bind.each != nil {
		// Its members are those of its rows.
	} else if bind.identity && bind.decl != nil && bind.decl.closed && bind.codec.traits().holds == rows {
		l.Error("MAP065", bind.rng, "which row?", rowsRemedy)
	} else if bind.identity && bind.decl != nil && bind.decl.closed && bind.codec.traits().holds == oneValue {
		l.Error("MAP072", bind.rng, "which field?", fmt.Sprintf("The payload is one value, and the register at %s has fields: add `map = { field = payload }`.", bind.decl.source))
	}
	if bind.identity && bind.decl != nil && bind.decl.value != nil && bind.form != nil {
		l.Error("MAP072", bind.rng, "which capture?", "The register is one value: add `map = payload.name`.")
	}
}

const rowsRemedy = "Its rows are registers by `each = payload` and `row`, or one value of the type list(object({ … }))."

// unreadable says why an address does not tell the register.
func (b *Bind) unreadable(address *template) string {
	for _, k := range b.keys {
		if k.from < 0 && k.path == nil {
			return fmt.Sprintf("{%s} comes from the payload", b.slots[k.slot])
		}
	}
	for _, n := range address.names {
		if !slices.Contains(b.register.names, n) && !slices.ContainsFunc(b.keys, func(k key) bool { return k.from == slices.Index(b.slots, n) }) {
			return fmt.Sprintf("{%s} in the address is not part of the register's name", n)
		}
	}
	return "a part of its name comes from the payload"
}

// bindIdentity names the bind and its meaning.
func (l *loader) bindIdentity(bind *Bind, b *hclsyntax.Block, served []*wrapperMaps) {
	bind.id = digest(bind.register.text, bind.protocol, bind.address)
	parts := []string{bind.id, l.meaning(b.Range())}
	if bind.decl != nil {
		parts = append(parts, bind.decl.meaning())
	}
	for _, w := range served {
		parts = append(parts, w.info.Name, w.info.Base)
	}
	bind.hash = digest(parts...)
}
