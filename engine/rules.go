package engine

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// A Declarer takes the declarations of this node's mapping files.
type Declarer interface {
	// Declare publishes those that are new or have changed since this node last published them, and takes back those of
	// its own that are gone. It is refused whole: ErrInvalid names the declaration.
	Declare(ctx context.Context, declarations []Declaration) error
}

// rulesPrefix begins the names of the registers that hold declarations: rules are state of the domain, so that two
// files can't make two truths.
const rulesPrefix = "_rules/"

// ruleTable is what the registers of rulesPrefix say. It is immutable.
type ruleTable struct {
	declarations map[string]*lattice.Decl  // by register of rulesPrefix
	segments     map[string][]*ruleMatcher // by the first segment of their names, where that is a constant
	others       []*ruleMatcher
	shortest     time.Duration     // of the ages that history is kept; 0: none is declared
	local        map[string]string // template to file and line of this node's own files
}

type ruleMatcher struct {
	decl *lattice.Decl
	re   *regexp.Regexp
}

// decl finds the declaration of a register, nil if it has none. Where patterns of different files overlap, the first by
// the name of its template counts, on every node.
func (t *ruleTable) decl(name string) *lattice.Decl {
	if len(t.declarations) == 0 || name[0] == '_' {
		return nil
	}
	segment, _, _ := strings.Cut(name, "/")
	var best *ruleMatcher
	for _, list := range [...][]*ruleMatcher{t.segments[segment], t.others} {
		for _, m := range list {
			if strings.HasPrefix(name, m.decl.Prefix) && (best == nil || m.decl.Template < best.decl.Template) && m.re.MatchString(name) {
				best = m
			}
		}
	}
	if best == nil {
		return nil
	}
	if best.decl.Group == "" {
		return best.decl
	}
	d := *best.decl
	d.Unit = lattice.UnitPrefix + string(best.re.ExpandString(nil, d.Group, name, best.re.FindStringSubmatchIndex(name)))
	return &d
}

// with gives the table after one register of rulesPrefix has changed.
func (t *ruleTable) with(register string, block StateBlock) (*ruleTable, error) {
	out := &ruleTable{declarations: maps.Clone(t.declarations), local: t.local}
	if out.declarations == nil {
		out.declarations = map[string]*lattice.Decl{}
	}
	delete(out.declarations, register)
	var err error
	if block.Exists {
		var d Declaration
		if d, err = parseDeclaration(block.Value); err == nil {
			out.declarations[register] = &lattice.Decl{Declaration: d}
		}
	}
	out.index()
	return out, err
}

func (t *ruleTable) index() {
	t.segments = map[string][]*ruleMatcher{}
	for _, name := range slices.Sorted(maps.Keys(t.declarations)) {
		d := t.declarations[name]
		re, err := regexp.Compile("^(?:" + d.Pattern + ")$")
		if err != nil {
			continue // it was checked where it was written
		}
		m := &ruleMatcher{d, re}
		if first, _, ok := strings.Cut(d.Prefix, "/"); ok {
			t.segments[first] = append(t.segments[first], m)
		} else {
			t.others = append(t.others, m)
		}
		if age := d.Retention.Age; age > 0 && (t.shortest == 0 || age < t.shortest) {
			t.shortest = age
		}
	}
}

// source is where this node's own files have a declaration.
func (t *ruleTable) source(template string) string { return t.local[template] }

// The form of a declaration as a register's value.

func declarationValue(d Declaration) Value {
	text := lattice.String
	members := []lattice.Member{{Name: "template", Value: text(d.Template)}, {Name: "pattern", Value: text(d.Pattern)}, {Name: "prefix", Value: text(d.Prefix)}}
	add := func(name string, v Value) { members = append(members, lattice.Member{Name: name, Value: v}) }
	if !d.Value.Equal(CollapseRule{}) {
		add("value", ruleValue(d.Value))
	}
	if len(d.Fields) > 0 {
		var fields []lattice.Member
		for name, r := range d.Fields {
			if !r.Equal(CollapseRule{}) {
				fields = append(fields, lattice.Member{Name: name, Value: ruleValue(r)})
			}
		}
		add("fields", lattice.Object(fields...))
	}
	if d.Commit.Waits() {
		add("commit", text(d.Commit.String()))
	}
	if d.DeleteWins {
		add("on_conflict", text("delete"))
	}
	if d.Group != "" {
		add("group", text(d.Group))
	}
	if len(d.Writers) > 0 {
		add("writers", texts(d.Writers))
	}
	if d.Retention.Age != 0 {
		add("history_age", text(d.Retention.Age.String()))
	}
	if d.Retention.Count != 0 {
		add("history_count", lattice.Int(int64(d.Retention.Count)))
	}
	return lattice.Object(members...)
}

func texts(words []string) Value {
	out := make([]Value, len(words))
	for i, w := range words {
		out[i] = lattice.String(w)
	}
	return lattice.List(out...)
}

func ruleValue(r CollapseRule) Value {
	members := []lattice.Member{{Name: "rule", Value: lattice.String(r.Kind.String())}}
	if r.Of != "" {
		members = append(members, lattice.Member{Name: "of", Value: lattice.String(r.Of)})
	}
	if len(r.Ranks) > 0 {
		members = append(members, lattice.Member{Name: "ranks", Value: texts(r.Ranks)})
	}
	return lattice.Object(members...)
}

func parseRule(v Value) (CollapseRule, error) {
	name, _ := v.Member("rule")
	kind := slices.Index(lattice.RuleNames(), name.Text())
	if kind < 0 {
		return CollapseRule{}, invalid("a rule %q, which this program does not know", name.Text())
	}
	of, _ := v.Member("of")
	ranks, _ := v.Member("ranks")
	return CollapseRule{Kind: lattice.RuleKind(kind), Of: of.Text(), Ranks: words(ranks)}, nil
}

func words(v Value) (out []string) {
	for _, item := range v.Items() {
		out = append(out, item.Text())
	}
	return out
}

func parseDeclaration(v Value) (d Declaration, err error) {
	for _, m := range v.Members() {
		var failed error
		switch m.Name {
		case "template":
			d.Template = m.Value.Text()
		case "pattern":
			d.Pattern = m.Value.Text()
		case "prefix":
			d.Prefix = m.Value.Text()
		case "value":
			d.Value, failed = parseRule(m.Value)
		case "fields":
			d.Fields = map[string]CollapseRule{}
			for _, f := range m.Value.Members() {
				if d.Fields[f.Name], failed = parseRule(f.Value); failed != nil {
					break
				}
			}
		case "commit":
			if d.Commit.Manual = m.Value.Text() == "manual"; !d.Commit.Manual {
				d.Commit.Window, failed = time.ParseDuration(m.Value.Text())
			}
		case "on_conflict":
			d.DeleteWins = m.Value.Text() == "delete"
		case "group":
			d.Group = m.Value.Text()
		case "writers":
			d.Writers = words(m.Value)
		case "history_age":
			d.Retention.Age, failed = time.ParseDuration(m.Value.Text())
		case "history_count":
			d.Retention.Count = int(m.Value.Int())
		}
		err = cmp.Or(err, failed)
	}
	return d, cmp.Or(err, checkDeclaration(&d))
}

func checkDeclaration(d *Declaration) error {
	re, err := regexp.Compile("^(?:" + d.Pattern + ")$")
	switch {
	case d.Template == "" || len(d.Template) > MaxName:
		return invalid("a declaration without a template, or with one of more than %d bytes", MaxName)
	case err != nil:
		return invalid("declaration %q: its pattern %q is no regular expression: %v", d.Template, d.Pattern, err)
	case d.Commit.Window < 0:
		return invalid("declaration %q: a window of %s", d.Template, d.Commit.Window)
	case d.Commit.Waits() && d.Group != "":
		return invalid("declaration %q: a group's candidates don't wait", d.Template)
	case d.DeleteWins && d.Group != "":
		return invalid("declaration %q: in a group the latest write wins, a delete or not", d.Template)
	case d.Retention.Count < 0:
		return invalid("declaration %q: history of %d entries", d.Template, d.Retention.Count)
	}
	for _, m := range regexp.MustCompile(`\$\{?(\w+)\}?`).FindAllStringSubmatch(d.Group, -1) {
		if re.SubexpIndex(m[1]) < 0 {
			return invalid("declaration %q: its group names the capture %q, which is not in its pattern", d.Template, m[1])
		}
	}
	if d.Group != "" {
		for field, r := range d.Fields {
			if r.Kind != lattice.Latest {
				return invalid("declaration %q, field %q: the registers of a group collapse as one, by latest, and not by %s", d.Template, field, r)
			}
		}
	}
	return nil
}

// declarationRegister is the name of the register that holds a declaration.
func declarationRegister(template string) string {
	sum := sha256.Sum256([]byte(template))
	return rulesPrefix + hex.EncodeToString(sum[:12])
}

// Declare implements Declarer. What was published before is not published again, so that an old file can't undo a newer
// rule at a restart.
func (e *Engine) Declare(ctx context.Context, declarations []Declaration) error {
	local := map[string]string{}
	published, err := e.published()
	if err != nil {
		return err
	}
	var ops []Op
	var keep []Record
	for i := range declarations {
		d := &declarations[i]
		if err := checkDeclaration(d); err != nil {
			return err
		}
		if _, twice := local[d.Template]; twice {
			return invalid("the declaration %q stands there twice", d.Template)
		}
		local[d.Template] = d.Source
		v := declarationValue(*d)
		hash := declarationHash(v)
		register := declarationRegister(d.Template)
		if published[d.Template] == hash {
			delete(published, d.Template)
			continue
		}
		if err := e.checkRegroup(ctx, register, d); err != nil {
			return err
		}
		delete(published, d.Template)
		only := Op{Register: register, Kind: OpOnly}
		for _, m := range v.Members() {
			only.Fields = append(only.Fields, m.Name)
			ops = append(ops, Op{Register: register, Kind: OpPut, Field: m.Name, Value: m.Value})
		}
		ops = append(ops, only)
		keep = append(keep, Record{Table: publishedTable, Key: d.Template, Value: []byte(hash)})
	}
	for _, template := range slices.Sorted(maps.Keys(published)) { // those that are left are gone from the files
		ops = append(ops, Op{Register: declarationRegister(template), Kind: OpDelete})
		keep = append(keep, Record{Table: publishedTable, Key: template})
	}
	e.mu.Lock() // rules of other nodes come under it
	t := *e.rules.Load()
	t.local = local
	e.rules.Store(&t)
	e.mu.Unlock()
	for len(ops) > 0 || len(keep) > 0 {
		// A declaration is one register, and a batch holds many; where there are too many for one, several follow.
		n := min(len(ops), MaxOps)
		for n > 0 && n < len(ops) && ops[n].Register == ops[n-1].Register {
			n--
		}
		w := Write{Ops: ops[:n], By: Cause{Protocol: "engine", Verb: "declare"}}
		if ops = ops[n:]; len(ops) == 0 {
			w.Keep, keep = keep, nil
		}
		if err := e.writeInternal(&w); err != nil {
			return err
		}
	}
	e.compareRules(declarations)
	return nil
}

// Preview yields the registers whose value would be another one if these were Declare'd: After is what they would show,
// and Changed says in what. Nothing is changed.
func (e *Engine) Preview(ctx context.Context, declarations []Declaration) iter.Seq2[QDelta, error] {
	return func(yield func(QDelta, error) bool) {
		published, err := e.published()
		if err != nil {
			yield(QDelta{}, err)
			return
		}
		was := e.rules.Load()
		would := was
		for i := range declarations {
			d := &declarations[i]
			v := declarationValue(*d)
			if published[d.Template] != declarationHash(v) {
				if would, err = would.with(declarationRegister(d.Template), StateBlock{Exists: true, Value: v}); err != nil {
					yield(QDelta{}, err)
					return
				}
			}
			delete(published, d.Template)
		}
		for template := range published {
			if would, err = would.with(declarationRegister(template), StateBlock{}); err != nil {
				yield(QDelta{}, err)
				return
			}
		}
		if would == was {
			return
		}
		for b, err := range e.List(ctx, "", "", 0) {
			if err != nil {
				yield(QDelta{}, err)
				return
			}
			after, err := e.preview(b.Register, would)
			if err != nil {
				yield(QDelta{}, err)
				return
			}
			if d := (QDelta{Of: 1, Before: b.ID, After: after, Changed: changes(&b, &after), Deleted: !after.Exists}); len(d.Changed) > 0 || d.Deleted {
				if !yield(d, nil) {
					return
				}
			}
		}
	}
}

// preview is a register as it would show under other rules. Those of a group can't move, and all their fields are latest.
func (e *Engine) preview(name string, rules *ruleTable) (StateBlock, error) {
	if err := e.enter(); err != nil {
		return StateBlock{}, err
	}
	defer e.leave()
	v, err := e.committed(name)
	if err != nil || v == nil || e.unitOf(v) != "" {
		b, err2 := e.shown(name)
		return b, errors.Join(err, err2)
	}
	return e.project(v.name, v, v.reg, rules.decl(v.name), e.heard()), nil
}

// published is what this node has published: the hash of each declaration by its template.
func (e *Engine) published() (map[string]string, error) {
	out := map[string]string{}
	for r, err := range e.EachKept(publishedTable, "") {
		if err != nil {
			return nil, err
		}
		out[r.Key] = string(r.Value)
	}
	return out, nil
}

func declarationHash(v Value) string {
	sum := sha256.Sum256(v.AppendCBOR(nil))
	return hex.EncodeToString(sum[:])
}

// publishedTable has what this node has published, as the hash of each declaration by its template.
const publishedTable = "engine-rules"

// checkRegroup refuses to move registers that exist into or out of a group: they live in one place or the other.
func (e *Engine) checkRegroup(ctx context.Context, register string, d *Declaration) error {
	was := ""
	if old := e.rules.Load().declarations[register]; old != nil {
		was = old.Group
	}
	if was == d.Group {
		return nil
	}
	re := regexp.MustCompile("^(?:" + d.Pattern + ")$")
	for b, err := range e.List(ctx, d.Prefix, "", 0) {
		if err != nil {
			return err
		}
		if re.MatchString(b.Register) {
			return invalid("declaration %q: register %q exists, and can't be moved into another group; delete its registers first", d.Template, b.Register)
		}
	}
	return nil
}

// compareRules says where this node's files differ from what the domain has.
func (e *Engine) compareRules(declarations []Declaration) {
	t := e.rules.Load()
	for i := range declarations {
		d := &declarations[i]
		have := t.declarations[declarationRegister(d.Template)]
		if have == nil || !declarationValue(have.Declaration).Equal(declarationValue(*d)) {
			e.find(Finding{Code: "rules", Subject: d.Template, Text: fmt.Sprintf("%s declares %s otherwise than the domain has it: another node has published a newer declaration. Change the file to publish this one again.", d.Source, d.Template)})
		} else {
			e.unfind("rules", d.Template)
		}
	}
}

// learn takes up what a commit has made of a register of rulesPrefix. The caller holds e.mu.
func (e *Engine) learn(block StateBlock) {
	t, err := e.rules.Load().with(block.Register, block)
	if err != nil {
		e.find(Finding{Code: "rules", Subject: block.Register, Text: fmt.Sprintf("a declaration of the domain can't be used here, and its registers collapse by latest: %v. Update this program.", err)})
	}
	e.rules.Store(t)
}

// loadRules reads them all at a start.
func (e *Engine) loadRules() error {
	for row, err := range e.names(rulesPrefix, "") {
		if err != nil {
			return err
		}
		v, err := e.parse(store.RegisterName(row.Key), row.Value)
		if err != nil {
			return err
		}
		e.learn(e.sight(v).block)
	}
	return nil
}
