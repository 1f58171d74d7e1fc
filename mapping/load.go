package mapping

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// maxBinds bounds one configuration.
const maxBinds = 10_000

// Input is what Load works on.
type Input struct {
	Files    []diag.File
	Wrappers []WrapperInfo
	Domains  []string // of this gateway; binds of registers of all of them are read alike
	People   *People  // whom lists of who may can name; nil: not known
	// Later names protocols that a later version brings: their binds are read and not served,
	// with a warning, instead of being an error.
	Later []string
}

// A Set is one configuration's mappings, checked. It is immutable.
type Set struct {
	binds    []*Bind
	wrappers map[string]*wrapperMaps
	decls    *tree // of one domain: of the first, in a Set of several
	declared []*decl
	domains  map[string]*Set // the views, where there are several
	tests    []*Test
	hash     string
}

// wrapperMaps are the binds of one wrapper.
type wrapperMaps struct {
	info    WrapperInfo
	tree    tree
	ignores tree
	holes   int
	entries []*entry
	reverse tree   // register templates of the binds that readers can address
	domain  string // a view: others' binds are none; "": all
	paced   bool   // some bind has `every`
}

// An entry is one bind in one wrapper.
type entry struct {
	bind     *Bind
	wrapper  *wrapperMaps
	template *template
	slots    []int // the bind's slot of each capture in the template
	checks   []check
	head     *entry   // the one that lookups find: itself, but where it shares its addresses
	sharers  []*entry // of a head: the others that have the same addresses
}

// each yields the entries of an address.
func (e *entry) each(yield func(*entry) bool) {
	if !yield(e) {
		return
	}
	for _, s := range e.sharers {
		if !yield(s) {
			return
		}
	}
}

// A decl is what a register block says of its registers.
type decl struct {
	leaf   leaf
	domain string
	source string
	rng    hcl.Range
	closed bool
	fields map[string]*typ
	places map[string]hcl.Range // of fields
	value  *typ                 // of a register that is one value
	fold   bool                 // names that differ in case are one: what is captured stands in them in lower case

	pattern    string // matches exactly its registers' names
	commit     engine.CommitMode
	deleteWins bool
	group      string // for regexp.Expand by pattern's groups
	writers    []string
	retention  engine.Retention
	unserved   bool // while loading: not all of its binds are known
}

func (d *decl) names() []string {
	names := make([]string, 0, len(d.fields))
	for n := range d.fields {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

var (
	registerLater = []string{}
	bindLater     = []string{"methods", "mode", "echo", "retain", "qos"}
	bindAttrs     = []string{"codec", "create", "delete", "direction", "each", "events", "every", "first", "in", "key", "map", "match", "max_change", "out", "poll", "read", "reply", "when", "wrapper", "write"}
	topLater      = []string{"link", "pair"}
	gatewayBlocks = []string{"wrapper", "daemon", "data", "domains", "mappings", "log", "user", "group", "access"}
)

// Load reads mapping files. With an error among the diagnostics the Set is nil; all mistakes are
// reported at once. Without any file the Set maps nothing.
func Load(in Input) (*Set, diag.Diagnostics) {
	l := &loader{
		Log: diag.NewLog(in.Files), in: in, sources: map[string][]byte{}, classes: map[escaper]string{},
		set: &Set{wrappers: map[string]*wrapperMaps{}}, decls: map[string]*tree{},
	}
	if len(l.in.Domains) == 0 {
		l.in.Domains = []string{"local"}
	}
	for _, d := range l.in.Domains {
		l.decls[d] = &tree{separator: "/"}
	}
	l.set.decls = l.decls[l.in.Domains[0]]
	l.Hints = foreignHint
	for _, f := range in.Files {
		l.sources[f.Name] = f.Bytes
	}
	for _, w := range in.Wrappers {
		s := &w.Protocol.Syntax
		t := tree{separator: s.Separator, absolute: s.Absolute, query: s.Query, fold: s.Fold}
		m := &wrapperMaps{info: w, tree: t, ignores: t, reverse: tree{separator: "/"}}
		m.ignores.query = false
		if s.Separator == "" {
			m.tree.separator, m.ignores.separator = "\x00\x00", "\x00\x00"
		}
		l.set.wrappers[w.Name] = m
	}
	sources := l.Parse()
	for _, s := range sources {
		l.declare(s)
	}
	for _, s := range sources {
		l.file(s)
	}
	l.checkLater()
	l.checkOverlaps()
	for _, b := range l.set.binds {
		l.checkRoundTrip(b)
	}
	l.checkReach()
	l.checkFields()
	l.checkCommands()
	l.checkReads()
	if !l.HasErrors() {
		l.checkSettles()
	}
	// A test of binds with mistakes would only repeat them.
	if !l.HasErrors() {
		for _, b := range l.tests {
			l.test(b)
		}
	}
	diags := l.Diagnostics()
	if diags.HasErrors() {
		return nil, diags
	}
	l.set.finish()
	if len(l.in.Domains) > 1 {
		l.views()
	}
	return l.set, diags
}

type loader struct {
	*diag.Log
	in       Input
	set      *Set
	sources  map[string][]byte
	decls    map[string]*tree // by domain
	byBlock  map[*hclsyntax.Block]*decl
	overBind bool
	tests    []*hclsyntax.Block // read when all binds are
	later    []*hclsyntax.Block // of protocols to come
	classes  map[escaper]string // of captures in names of registers
}

func source(r hcl.Range) string { return fmt.Sprintf("%s:%d", r.Filename, r.Start.Line) }

var registerSchema = diag.Schema{
	What: "register", Attrs: []string{"commit", "domain", "fields", "fold", "group", "history", "match", "on_conflict", "type", "writers"},
	Blocks: []diag.Block{{Type: "bind", Labels: []string{"protocol", "address"}}},
	Later:  registerLater,
}

var fileSchema = diag.Schema{
	What: "a mapping file",
	Blocks: []diag.Block{
		{Type: "register", Labels: []string{"name"}}, {Type: "bind", Labels: []string{"protocol", "address"}},
		{Type: "ignore", Labels: []string{"protocol", "address"}}, {Type: "test", Labels: []string{"what happens"}},
	},
	Later: topLater,
}

var ignoreSchema = diag.Schema{What: "ignore", Attrs: []string{"wrapper", "match"}}

// bindSchema is that of a bind in a register block; one outside of it names its register, too.
func bindSchema(p *wrappers.Protocol) diag.Schema {
	schema := diag.Schema{What: "bind", Attrs: slices.Clone(bindAttrs)}
	for _, s := range p.Bind {
		schema.Attrs = append(schema.Attrs, s.Name)
	}
	return schema
}

// declare reads what the register blocks of a file say of types, before any bind is read.
func (l *loader) declare(s diag.Source) {
	if l.byBlock == nil {
		l.byBlock = map[*hclsyntax.Block]*decl{}
	}
	for _, b := range s.Body.Blocks {
		if b.Type != "register" || len(b.Labels) != 1 {
			continue
		}
		done := l.Within(fmt.Sprintf("register %q", b.Labels[0]))
		c := l.Decode(b.Body, b.DefRange(), registerSchema)
		t, err := parseTemplate(b.Labels[0], &registerSyntax, false)
		if err != nil {
			l.Error("MAP002", b.LabelRanges[0], "not the template of a register", sentence(err))
			done()
			continue
		}
		d := &decl{source: source(b.DefRange()), rng: b.DefRange(), leaf: leaf{template: t}, domain: l.domain(c.Attrs["domain"])}
		d.leaf.decl = d
		d.leaf.checks = l.matches(c.Attrs["match"], t.names, t)
		l.pin(d, c.Attrs["match"])
		if a := c.Attrs["fields"]; a != nil {
			d.closed = true
			d.fields = l.fields(a, l.ruled)
			d.places = fieldPlaces(a)
		}
		if a := c.Attrs["type"]; a != nil {
			if d.closed {
				l.Error("MAP015", a.NameRange, `"type" beside "fields"`, "A register is one value and has a type, or it has fields.")
			}
			if d.value = l.ruled(a.Expr); d.value.kind == objectType {
				l.Error("MAP016", a.Expr.Range(), "a register that is one value is no object", "Write its members as `fields = { … }`.")
			}
		}
		d.fold, _ = l.Bool(c.Attrs["fold"], false)
		l.policy(d, c)
		l.decls[d.domain].eachOverlapping(&d.leaf, func(o *leaf) {
			if relate(&d.leaf, o) != disjoint {
				l.Error("MAP017", b.DefRange(), "registers declared twice", fmt.Sprintf("%q at %s has registers in common with it. Declare each register once; a bind outside of the block names it with `register = \"…\"`.", o.template.text, o.decl.source))
			}
		})
		l.decls[d.domain].insert(&d.leaf)
		l.set.declared = append(l.set.declared, d)
		l.byBlock[b] = d
		done()
	}
}

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

// matches reads `match = { name = "regexp" }`.
func (l *loader) matches(a *hclsyntax.Attribute, names []string, t *template) []check {
	if a == nil {
		return nil
	}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		l.Error("MAP019", a.Expr.Range(), `match is written as { name = "regexp" }`, "As in `match = { kind = \"kiln|oven\" }`.")
		return nil
	}
	var out []check
	for _, item := range obj.Items {
		name, _ := memberName(item.KeyExpr)
		if !slices.Contains(names, name) {
			l.Unknown("MAP021", item.KeyExpr.Range(), "capture", name, names)
			continue
		}
		v, ok := l.Constant(item.ValueExpr, nil)
		if !ok {
			continue
		}
		s, err := fromCty(v)
		re, err2 := regexp.Compile(s.Text())
		if err2 == nil {
			re, err2 = regexp.Compile("^(?:" + s.Text() + ")$")
		}
		if err != nil || err2 != nil || s.Text() == "" || len(s.Text()) > maxTemplate {
			detail := "It is a text in the syntax of RE2, and matches the whole capture."
			if err2 != nil {
				detail = sentence(fmt.Errorf("%s", strings.TrimPrefix(err2.Error(), "error parsing regexp: "))) + " " + detail
				if strings.Contains(s.Text(), "(?!") || strings.Contains(s.Text(), "(?=") || strings.Contains(s.Text(), "(?<") {
					detail += " RE2 does not look ahead or behind: what is not meant is cut out by an `ignore` block or a more specific bind."
				}
			}
			l.Error("MAP019", item.ValueExpr.Range(), fmt.Sprintf("match: %s is not a regular expression", name), detail)
			continue
		}
		if i := slices.Index(t.names, name); i >= 0 {
			out = append(out, check{index: i, re: re})
		}
	}
	return out
}

// file reads the binds of a file.
func (l *loader) file(s diag.Source) {
	schema := fileSchema
	schema.Blocks = slices.Clone(schema.Blocks)
	for _, b := range s.Body.Blocks {
		if slices.Contains(gatewayBlocks, b.Type) {
			l.Error("MAP001", b.DefRange(), fmt.Sprintf("%q belongs in gateway.hcl", b.Type), "Move it there: mapping files hold register, bind, ignore and test blocks.")
			schema.Blocks = append(schema.Blocks, diag.Block{Type: b.Type, Labels: b.Labels})
		}
	}
	c := l.Decode(s.Body, s.Body.MissingItemRange(), schema)
	for _, b := range c.Blocks {
		switch b.Type {
		case "register":
			d := l.byBlock[b]
			if d == nil {
				continue
			}
			done := l.Within(fmt.Sprintf("register %q", b.Labels[0]))
			for _, inner := range b.Body.Blocks {
				if inner.Type == "bind" && len(inner.Labels) == 2 {
					l.bind(inner, d)
				}
			}
			done()
		case "bind":
			l.bind(b, nil)
		case "ignore":
			l.ignore(b)
		case "test":
			l.tests = append(l.tests, b)
		}
	}
}

// serving gives the wrappers that a block of this protocol concerns. Nothing: it was reported.
func (l *loader) serving(b *hclsyntax.Block, choice *hclsyntax.Attribute, all bool) []*wrapperMaps {
	protocol := b.Labels[0]
	var out []*wrapperMaps
	var names, protocols []string
	for _, w := range l.in.Wrappers {
		protocols = append(protocols, w.Protocol.Name)
		if w.Protocol.Name == protocol {
			out = append(out, l.set.wrappers[w.Name])
			names = append(names, w.Name)
		}
	}
	if len(out) == 0 {
		if slices.Contains(l.in.Later, protocol) {
			l.later = append(l.later, b)
			l.Warn("MAP051", b.LabelRanges[0], fmt.Sprintf("protocol %q is not in this version", protocol), "The block was checked and is not served.")
			if _, _, err := marks(b.Labels[1]); err != nil {
				l.Error("MAP002", b.LabelRanges[1], "not the template of an address", sentence(err))
			}
			return nil
		}
		d := &diag.Diagnostic{Code: "MAP050", Severity: diag.Error, Summary: fmt.Sprintf("no wrapper of protocol %q is configured", protocol), Subject: b.LabelRanges[0],
			Detail: fmt.Sprintf("Add a block `wrapper %q \"name\" { … }` to gateway.hcl, or take the bind out.", protocol)}
		d.Suggestion = diag.Suggest(protocol, append(protocols, l.in.Later...))
		l.Add(d)
		return nil
	}
	if choice == nil {
		if len(out) > 1 && !all {
			l.Error("MAP052", b.DefRange(), fmt.Sprintf("which of the wrappers %s?", strings.Join(quoteAll(names), " and ")),
				fmt.Sprintf("Without a choice the bind would bridge them. Add `wrapper = [%q]`, or name all of them.", names[0]))
			return out[:1] // so that its other mistakes are found too
		}
		return out
	}
	chosen, ok := l.Strings(choice, nil)
	if !ok {
		return out[:1]
	}
	var picked []*wrapperMaps
	for _, name := range chosen {
		if i := slices.Index(names, name); i < 0 {
			l.Unknown("MAP053", choice.Expr.Range(), fmt.Sprintf("wrapper of protocol %q", protocol), name, names)
		} else if !slices.Contains(picked, out[i]) {
			picked = append(picked, out[i])
		}
	}
	if len(picked) == 0 {
		if len(chosen) == 0 {
			l.Error("MAP053", choice.Expr.Range(), "an empty list of wrappers", "Name one, or leave `wrapper` out.")
		}
		return out[:1]
	}
	return picked
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}

// address reads a block's template as it stands in a wrapper.
func (l *loader) address(b *hclsyntax.Block, w *wrapperMaps) *template {
	text := b.Labels[1]
	s := &w.info.Protocol.Syntax
	if base := w.info.Base; base != "" {
		text = strings.TrimSuffix(base, s.Separator) + s.Separator + strings.TrimPrefix(text, s.Separator)
	}
	if s.Separator == "" {
		one := *s
		one.Separator = "\x00\x00"
		s = &one
	}
	t, err := parseTemplate(text, s, true)
	if err != nil {
		l.Error("MAP002", b.LabelRanges[1], "not the template of an address", sentence(err))
		return nil
	}
	for _, n := range t.names {
		if n == "wrapper" || n == "server" {
			l.Error("MAP003", b.LabelRanges[1], fmt.Sprintf("{%s} in an address", n), "It is known without a place in the address; use it in the register's name.")
			return nil
		}
	}
	return t
}

func (l *loader) ignore(b *hclsyntax.Block) {
	defer l.Within(fmt.Sprintf("ignore %q %q", b.Labels[0], b.Labels[1]))()
	c := l.Decode(b.Body, b.DefRange(), ignoreSchema)
	for _, w := range l.serving(b, c.Attrs["wrapper"], true) {
		t := l.address(b, w)
		if t == nil {
			return
		}
		if len(t.params) > 0 {
			l.Error("MAP004", b.LabelRanges[1], "a query in an ignore block", "It ignores a path, whatever its query.")
			return
		}
		w.ignores.insert(&leaf{template: t, ignore: true, checks: l.matches(c.Attrs["match"], t.names, t)})
		w.holes++
	}
}

// digest names the meaning of parts for ever.
func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// meaning is a block's source without layout and comments.
func (l *loader) meaning(r hcl.Range) string {
	src := l.sources[r.Filename]
	if r.End.Byte > len(src) {
		return ""
	}
	tokens, _ := hclsyntax.LexConfig(src[r.Start.Byte:r.End.Byte], r.Filename, hcl.InitialPos)
	var b strings.Builder
	for _, t := range tokens {
		if t.Type == hclsyntax.TokenNewline || t.Type == hclsyntax.TokenComment {
			continue
		}
		b.Write(t.Bytes)
		b.WriteByte(0)
	}
	return b.String()
}

func (s *Set) finish() {
	parts := []string{}
	for _, b := range s.binds {
		parts = append(parts, b.hash+" "+b.domain)
	}
	for _, w := range s.wrappers {
		w.ignores.root.all(func(l *leaf) { parts = append(parts, "ignore "+w.info.Name+" "+l.template.text) })
	}
	for _, d := range s.declared {
		parts = append(parts, d.meaning()+d.policies()+" "+d.domain)
	}
	sort.Strings(parts)
	s.hash = digest(parts...)
}

// policies are what a declaration says beside its types; "" where that is nothing.
func (d *decl) policies() string {
	var b strings.Builder
	if d.commit.Waits() || d.deleteWins || d.group != "" || len(d.writers) > 0 || d.retention != (engine.Retention{}) {
		fmt.Fprintf(&b, " %s %v %q %q %d %d", d.commit, d.deleteWins, d.group, d.writers, d.retention.Age, d.retention.Count)
	}
	return b.String()
}

// meaning is what the declaration says of its registers' values, in one text.
func (d *decl) meaning() string {
	var b strings.Builder
	b.WriteString(d.leaf.template.text)
	if d.fold {
		b.WriteString(" fold")
	}
	if d.value != nil {
		b.WriteString(" type " + d.value.declared())
	}
	if d.closed {
		for _, n := range d.names() {
			fmt.Fprintf(&b, " %q=%s", n, d.fields[n].declared())
		}
	}
	return b.String()
}

// A protocol's own attribute of binds.
func (l *loader) options(c diag.Content, settings []wrappers.Setting, direction string) wrappers.Options {
	o := wrappers.Options{"direction": direction}
	for _, s := range settings {
		a := c.Attrs[s.Name]
		if a == nil {
			if s.Default != nil {
				o[s.Name] = s.Default
			}
			continue
		}
		ok := false
		var v any
		switch s.Kind {
		case wrappers.BoolSetting:
			v, ok = l.Bool(a, false)
		case wrappers.IntSetting:
			v, ok = l.Int(a, 0, s.Min, s.Max)
		case wrappers.StringsSetting:
			list, good := l.Strings(a, nil)
			for _, one := range list {
				if len(s.Enum) > 0 && !slices.Contains(s.Enum, one) {
					l.Unknown("HCL015", a.Expr.Range(), s.Name, one, s.Enum)
					good = false
				}
			}
			v, ok = list, good
		default:
			if len(s.Enum) > 0 {
				v, ok = l.Enum(a, "", s.Enum)
			} else {
				v, ok = l.String(a, "", nil)
			}
		}
		if ok {
			o[s.Name] = v
		}
	}
	return o
}
