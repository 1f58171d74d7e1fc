package mapping

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
)

// Bounds of what a register block says beside its types.
const (
	minWindow  = time.Millisecond
	maxWindow  = 24 * time.Hour
	minHistory = time.Minute
	maxHistory = 36_500 * 24 * time.Hour
)

// ruled reads the type of a field or of a register that is one value, with the rule around it.
func (l *loader) ruled(expr hclsyntax.Expression) *typ {
	call, ok := isRule(expr)
	if !ok {
		return l.typeOf(expr)
	}
	kind := lattice.RuleKind(slices.Index(lattice.RuleNames(), call.Name))
	if len(call.Args) == 0 || len(call.Args) > 1 && kind != lattice.Priority {
		l.Error("MAP014", call.Range(), call.Name+"() takes one type", fmt.Sprintf("As in `%s`.", ruleUsage[kind]))
		return anything
	}
	before := l.Count()
	of := *l.typeOf(call.Args[0])
	broken := l.Count() > before
	of.rule.Kind = kind
	refuse := func(what string) *typ {
		if !broken {
			l.Error("MAP032", call.Args[0].Range(), fmt.Sprintf("%s() of %s", call.Name, article(of.String())), fmt.Sprintf("It is of %s, as in `%s`.", what, ruleUsage[kind]))
		}
		return anything
	}
	switch kind {
	case lattice.Max, lattice.Min:
		switch of.kind {
		case numberType, timeType:
			of.rule.Of = of.kind.name()
		case stringType:
		default:
			return refuse("a number, a time or a string")
		}
	case lattice.Sum:
		if of.kind != numberType {
			return refuse("a number")
		}
		of.rule.Of = of.kind.name()
	case lattice.Union:
		if of.kind == listType || of.kind == objectType {
			return refuse("the items, which are no lists and no objects")
		}
		item := of
		item.rule = engine.CollapseRule{}
		return &typ{kind: setType, item: &item, rule: of.rule}
	case lattice.Ask:
		// Siblings go out as a list of values, which must not read as one value.
		if of.kind == anyType || of.kind == listType && (of.item.kind == anyType || of.item.kind == listType) {
			return refuse("a type of which a list of values is no value")
		}
	case lattice.Priority:
		if len(call.Args) == 1 {
			l.Error("MAP033", call.Range(), "priority() without an order", fmt.Sprintf("Behind the type it names who goes first, as in `%s`.", ruleUsage[kind]))
			return anything
		}
		for _, a := range call.Args[1:] {
			if p, ok := l.pattern(a, false); ok && slices.Contains(of.rule.Ranks, p) {
				l.Error("MAP011", a.Range(), fmt.Sprintf("%q stands there twice", p), "Its first place is the one that counts.")
			} else if ok {
				of.rule.Ranks = append(of.rule.Ranks, p)
			}
		}
	}
	return &of
}

func (k typeKind) name() string { return (&typ{kind: k}).String() }

var ruleUsage = [...]string{
	lattice.Latest: "latest(string)", lattice.First: "first(string)", lattice.Max: "max(number)", lattice.Min: "min(time)", lattice.Sum: "sum(number)",
	lattice.Union: "union(string)", lattice.Priority: `priority(string, "http/*", "user:ann")`, lattice.Ask: "ask(string)",
}

// pattern reads who is meant by "mqtt/floor", "mqtt/*" or "user:ann"; among writers also by "site:3f2a".
func (l *loader) pattern(expr hclsyntax.Expression, sites bool) (string, bool) {
	v, ok := l.Constant(expr, nil)
	if !ok {
		return "", false
	}
	if v.IsNull() || v.Type() != cty.String {
		l.Error("MAP034", expr.Range(), "who is meant is a text in quotes", `As in "mqtt/floor", "mqtt/*" or "user:ann".`)
		return "", false
	}
	p := v.AsString()
	form := `It is "protocol/wrapper", "protocol/*" or "user:name".`
	if sites {
		form = `It is "protocol/wrapper", "protocol/*", "user:name" or "site:" with the first digits of a node's id, as status shows it.`
	}
	if user, ok := strings.CutPrefix(p, "user:"); ok {
		if user != "" && !strings.ContainsFunc(user, func(r rune) bool { return r < ' ' }) {
			return p, true
		}
		l.Error("MAP034", expr.Range(), fmt.Sprintf("%q names nobody", p), form)
		return "", false
	}
	if site, ok := strings.CutPrefix(p, "site:"); ok && sites {
		if len(site) >= 4 && len(site) <= 128 && strings.Trim(site, "0123456789abcdef") == "" {
			return p, true
		}
		l.Error("MAP034", expr.Range(), fmt.Sprintf("%q is not the id of a node", p), `Behind "site:" stand 4 to 128 of its digits, 0-9 and a-f.`)
		return "", false
	}
	protocol, wrapper, ok := strings.Cut(p, "/")
	if !ok || protocol == "" || wrapper == "" || strings.ContainsAny(wrapper, "/*") && wrapper != "*" || strings.ContainsAny(protocol, "*:") {
		l.Error("MAP034", expr.Range(), fmt.Sprintf("%q names no writer", p), form)
		return "", false
	}
	if protocol == "daemon" && wrapper == "*" { // the door of applications
		return p, true
	}
	var here []string
	for _, w := range l.in.Wrappers {
		if w.Protocol.Name == protocol && (wrapper == "*" || wrapper == w.Name) {
			return p, true
		}
		here = append(here, w.Protocol.Name+"/"+w.Name)
	}
	d := &diag.Diagnostic{Code: "MAP035", Severity: diag.Warning, Summary: fmt.Sprintf("no wrapper here is %q", p), Subject: expr.Range(),
		Detail: "It counts for other gateways of the domain only."}
	d.Suggestion = diag.Suggest(p, here)
	l.Add(d)
	return p, true
}

// policy reads what a register block says of when and how its registers collapse.
func (l *loader) policy(d *decl, c diag.Content) {
	l.commit(d, c.Attrs["commit"])
	if a := c.Attrs["on_conflict"]; a != nil {
		word, _ := l.Enum(a, "update", []string{"update", "delete"})
		d.deleteWins = word == "delete"
	}
	l.group(d, c.Attrs["group"])
	if a := c.Attrs["commit"]; d.group != "" && d.commit.Waits() {
		l.Error("MAP038", a.NameRange, "candidates of a group don't wait", "The winner takes the whole group as soon as it is known. Take `commit` or `group` out.")
	}
	if a := c.Attrs["on_conflict"]; d.group != "" && d.deleteWins {
		l.Error("MAP038", a.NameRange, "in a group the latest write wins, a delete or not", "The winner takes the whole group. Take `on_conflict` or `group` out.")
	}
	l.history(d, c.Attrs["history"])
	if a := c.Attrs["writers"]; a != nil {
		list, ok := a.Expr.(*hclsyntax.TupleConsExpr)
		switch {
		case !ok:
			l.Error("MAP040", a.Expr.Range(), "writers: a list is wanted", `As in ["http/api", "mqtt/*", "user:ann"].`)
		case len(list.Exprs) == 0:
			l.Error("MAP040", a.Expr.Range(), "an empty list of writers", "Nobody could write. Name one, or leave `writers` out: then everybody may.")
		default:
			for _, e := range list.Exprs {
				if p, ok := l.pattern(e, true); ok && !slices.Contains(d.writers, p) {
					d.writers = append(d.writers, p)
				}
			}
		}
	}
}

func (l *loader) commit(d *decl, a *hclsyntax.Attribute) {
	word, ok := l.String(a, "auto", nil)
	switch {
	case !ok || word == "auto":
	case word == "manual":
		d.commit.Manual = true
	default:
		window, err := time.ParseDuration(word)
		switch {
		case err != nil:
			l.Error("MAP036", a.Expr.Range(), fmt.Sprintf("commit can't be %q", word), `It can be "auto", "manual", or how long candidates are gathered, as in "500ms".`)
		case window < minWindow || window > maxWindow:
			l.Error("HCL016", a.Expr.Range(), "commit is out of range", "Candidates are gathered for 1ms to 24h.")
		}
		d.commit.Window = window
	}
}

// group reads the template of a QGroup's name, and makes of it what regexp.Expand takes.
func (l *loader) group(d *decl, a *hclsyntax.Attribute) {
	text, ok := l.String(a, "", nil)
	if a == nil || !ok {
		return
	}
	t, err := parseTemplate(text, &registerSyntax, false)
	if err != nil {
		l.Error("MAP002", a.Expr.Range(), "not the template of a group", sentence(err))
		return
	}
	own := d.leaf.template
	for _, s := range t.segments {
		for _, n := range s.names(t) {
			i := slices.Index(own.names, n)
			if i < 0 {
				l.Error("MAP039", a.Expr.Range(), fmt.Sprintf("{%s} is not in the register's name", n), fmt.Sprintf("A group is named by captures of %q, or by none.", own.text))
				return
			}
			if rest := own.isRest(i); rest != s.rest {
				form := "{" + n + "}"
				if rest {
					form = "{" + n + "...}"
				}
				l.Error("MAP039", a.Expr.Range(), fmt.Sprintf("{%s} is another kind of capture in the register's name", n), fmt.Sprintf("Write %s, as it stands there.", form))
				return
			}
		}
	}
	d.group = t.expansion()
	refuse := func(field string, f *typ) {
		if f != nil && f.rule.Kind != lattice.Latest {
			l.Error("MAP038", a.NameRange, fmt.Sprintf("%s has the rule %s, and the register a group", quoted(field), f.rule.Kind),
				"The winner takes a group whole, so all its fields are latest. Take the rule or the group out.")
		}
	}
	refuse("", d.value)
	for _, n := range d.names() {
		refuse(n, d.fields[n])
	}
}

func (t *template) isRest(index int) bool {
	return slices.ContainsFunc(t.segments, func(s segment) bool { return s.rest && s.first == index })
}

// names are the captures of a segment.
func (s *segment) names(t *template) []string {
	switch {
	case s.rest:
		return t.names[s.first : s.first+1]
	case s.shape != nil:
		return t.names[s.first : s.first+len(s.shape.escapes)]
	}
	return nil
}

// history reads "30d", "forever", or { age = "30d", count = 1000 }.
func (l *loader) history(d *decl, a *hclsyntax.Attribute) {
	if a == nil {
		return
	}
	obj, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		d.retention.Age = l.age(a)
		return
	}
	for _, item := range obj.Items {
		name, _ := memberName(item.KeyExpr)
		part := &hclsyntax.Attribute{Name: "history." + name, Expr: item.ValueExpr, NameRange: item.KeyExpr.Range()}
		switch name {
		case "age":
			d.retention.Age = l.age(part)
		case "count":
			n, _ := l.Int(part, 0, 1, 1_000_000_000)
			d.retention.Count = int(n)
		default:
			l.Unknown("MAP037", item.KeyExpr.Range(), "part of history", name, []string{"age", "count"})
		}
	}
	if len(obj.Items) == 0 {
		l.Error("MAP037", a.Expr.Range(), "history says nothing", `As in { age = "30d", count = 1000 }.`)
	}
}

func (l *loader) age(a *hclsyntax.Attribute) time.Duration {
	text, ok := l.String(a, "", nil)
	if !ok {
		return 0
	}
	if text == "forever" {
		return -1
	}
	age, ok := parseAge(text)
	switch {
	case !ok:
		l.Error("MAP036", a.Expr.Range(), fmt.Sprintf("%s can't be %q", a.Name, text), `It is a length of days, hours or minutes, as in "30d", "36h" or "90m", or "forever".`)
	case age < minHistory || age > maxHistory:
		l.Error("HCL016", a.Expr.Range(), a.Name+" is out of range", `It can be from "1m" to "36500d", or "forever".`)
	}
	return age
}

// parseAge reads "30d", "1d12h", "90m".
func parseAge(s string) (age time.Duration, ok bool) {
	for _, unit := range []struct {
		letter byte
		length time.Duration
	}{{'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}} {
		i := strings.IndexByte(s, unit.letter)
		if i < 0 {
			continue
		}
		n := time.Duration(0)
		for _, c := range s[:i] {
			if c < '0' || c > '9' || n > 1_000_000 {
				return 0, false
			}
			n = n*10 + time.Duration(c-'0')
		}
		if i == 0 || n > maxHistory/unit.length+1 {
			return maxHistory + 1, i > 0
		}
		age, ok, s = age+n*unit.length, true, s[i+1:]
	}
	return age, ok && s == ""
}

// Rules are what the engine has to know of the declared registers, in the order of the files.
func (s *Set) Rules() []engine.Declaration {
	out := make([]engine.Declaration, 0, len(s.declared))
	for _, d := range s.declared {
		e := engine.Declaration{
			Template: d.leaf.template.text, Pattern: d.pattern, Prefix: d.leaf.template.prefix(), Commit: d.commit, DeleteWins: d.deleteWins,
			Group: d.group, Writers: slices.Clone(d.writers), Retention: d.retention, Source: d.source,
		}
		if d.value != nil {
			e.Value = d.value.rule
		}
		for n, t := range d.fields {
			if t.rule.Kind != lattice.Latest {
				if e.Fields == nil {
					e.Fields = map[string]engine.CollapseRule{}
				}
				e.Fields[n] = t.rule
			}
		}
		out = append(out, e)
	}
	return out
}

// isRule tells whether an expression is a rule, wherever it stands.
func isRule(expr hclsyntax.Expression) (*hclsyntax.FunctionCallExpr, bool) {
	call, ok := expr.(*hclsyntax.FunctionCallExpr)
	return call, ok && slices.Contains(lattice.RuleNames(), call.Name)
}

// byCall gives the call of by() that an entry of `in` is, nil if it is something else.
func byCall(expr hclsyntax.Expression) *hclsyntax.FunctionCallExpr {
	switch e := expr.(type) {
	case *hclsyntax.ParenthesesExpr:
		return byCall(e.Expression)
	case *hclsyntax.FunctionCallExpr:
		if e.Name == "by" {
			return e
		}
	}
	return nil
}

// increment reads by(x) around an entry of `in`, and gives x.
func (l *loader) increment(bind *Bind, t *typ, call *hclsyntax.FunctionCallExpr) (hclsyntax.Expression, bool) {
	if len(call.Args) != 1 {
		l.Error("MAP096", call.Range(), "by() takes one argument", "As in `in = { litres = by(payload.add) }`.")
		return nil, false
	}
	if t.rule.Kind != lattice.Sum && t.rule.Kind != lattice.Union {
		l.Error("MAP096", call.NameRange, fmt.Sprintf("by() on a field of the rule %s", t.rule.Kind),
			"It adds to what is there, which only sums and unions do: declare the field as `sum(number)` or `union(T)`, or take by() out.")
		return nil, false
	}
	for _, name := range bind.wrapperNames {
		if w := l.set.wrappers[name].info; w.Upstream && !w.Listens && !w.Protocol.Feed {
			l.Error("MAP096", call.NameRange, fmt.Sprintf("by() at a server that is only asked (wrapper %q)", name),
				"Asked again, it shows the same increment again. Map the total that it shows, without by().")
			return nil, false
		}
	}
	return call.Args[0], true
}

// metered lists the fields of the rule sum that an address of the bind reports and doesn't show.
func (b *Bind) metered() []string {
	d := b.decl
	if d == nil || b.direction == "out" {
		return nil
	}
	var out []string
	add := func(field string, t *typ) {
		if t != nil && t.rule.Kind == lattice.Sum && !b.Carries(field) && !slices.Contains(out, field) {
			out = append(out, field)
		}
	}
	for _, m := range b.mapped {
		add(m.field, m.typ)
	}
	for _, o := range b.ins {
		if !o.add {
			add(o.name, o.typ)
		}
	}
	for _, c := range b.fields {
		add(c.field, c.typ)
	}
	if b.identity {
		add("", d.value)
		for n, t := range d.fields {
			add(n, t)
		}
	}
	slices.Sort(out)
	return out
}

// Latest tells whether a field collapses by the rule latest, as those of registers do that nobody declares.
func (s *Set) Latest(register, field string) bool {
	var f finding
	if !s.decls.find(register, &f) {
		return true
	}
	t := f.leaf.decl.value
	if field != "" {
		t = f.leaf.decl.fields[field]
	}
	return t == nil || t.rule.Kind == lattice.Latest
}
