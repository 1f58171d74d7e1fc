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
	bindLater     = []string{"methods", "mode", "echo", "retain", "qos"}
	bindAttrs     = []string{"codec", "create", "delete", "direction", "each", "events", "every", "first", "in", "key", "map", "match", "max_change", "out", "poll", "read", "reply", "site", "when", "wrapper", "write"}
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
		t := tree{separator: s.Separator, absolute: s.Absolute, query: s.Query, fold: s.Fold, keys: s.Keys}
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
