package mapping

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

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
	bind.entries = protocol.Syntax.Entries
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
	if protocol.Syntax.Keys && !l.rowKey(bind, c, entries) {
		return
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
	if a := c.Attrs["site"]; a != nil && !bind.broken && !bind.Once() {
		l.Error("MAP068", a.NameRange, "`site` without `events`", "It names the gateway that does what can't be done twice: tell of each change (`events`), or give a command. Writing the newest state twice does no harm, so every gateway does it. Take it out.")
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
	bind.site, _ = l.String(c.Attrs["site"], "", nil)
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
	if len(bind.columns) > 0 {
		bind.codec = rowCodec
		if a != nil {
			l.Error("MAP150", a.NameRange, "a row has no codec", "Its columns have types of their own, and they are the members of payload.")
		}
		return
	}
	if bind.entries {
		bind.codec = entryCodec
		if a != nil {
			l.Error("MAP150", a.NameRange, "an entry has no codec", "Its attributes are the members of payload, with the types that they have in the directory.")
		}
		return
	}
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
		case bind.keyed(name) && !slices.ContainsFunc(bind.keys, func(k key) bool { return bind.slots[k.slot] == name }):
			used[hidden(name)] = true
			if k, ok := l.columnKey(bind, name, item.ValueExpr); ok {
				bind.keys = append(bind.keys, k)
			}
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
