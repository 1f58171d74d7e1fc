package sim

import (
	"fmt"
	"regexp"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A template is a kind of register that a history may write.
type template struct {
	name  string // its registers begin with it and a slash
	count int    // of registers
	rule  lattice.Rule
	decl  engine.Declaration // but for names and rule
	free  bool               // anything may be done to its registers: nothing is claimed of them but that nodes agree
}

var templates = []template{
	{name: "plain", count: 6, free: true},
	{name: "doc", count: 2},
	{name: "sum", count: 1, rule: lattice.Rule{Kind: lattice.Sum}},
	{name: "meter", count: 1, rule: lattice.Rule{Kind: lattice.Sum, Of: "number"}, free: true},
	{name: "union", count: 1, rule: lattice.Rule{Kind: lattice.Union}, free: true},
	{name: "max", count: 1, rule: lattice.Rule{Kind: lattice.Max}, free: true},
	{name: "min", count: 1, rule: lattice.Rule{Kind: lattice.Min, Of: "number"}, free: true},
	{name: "first", count: 1, rule: lattice.Rule{Kind: lattice.First}, free: true},
	{name: "prio", count: 1, rule: lattice.Rule{Kind: lattice.Priority, Ranks: []string{"user:ann", "sql/hr", "ldap/*"}}, free: true},
	{name: "ask", count: 1, rule: lattice.Rule{Kind: lattice.Ask}, free: true},
	{name: "manual", count: 2, free: true, decl: engine.Declaration{Commit: lattice.CommitMode{Manual: true}}},
	{name: "window", count: 1, free: true, decl: engine.Declaration{Commit: lattice.CommitMode{Window: 500 * time.Millisecond}}},
	{name: "gone", count: 2, free: true, decl: engine.Declaration{DeleteWins: true}},
	{name: "group", count: 3, decl: engine.Declaration{Group: "g"}},
	{name: "batch", count: 3},
}

var otherRules = []lattice.Rule{{}, {Kind: lattice.Max}, {Kind: lattice.Sum}, {Kind: lattice.Union}, {Kind: lattice.Ask}, {Kind: lattice.First}}

// undeclared says that nothing is declared for a template's registers.
func (t *template) undeclared() bool {
	return t.rule.Kind == lattice.Latest && !t.decl.Commit.Waits() && !t.decl.DeleteWins && t.decl.Group == ""
}

func (t *template) declaration(rule lattice.Rule) engine.Declaration {
	d := t.decl
	d.Template, d.Pattern, d.Prefix = t.name+"/{n}", regexp.QuoteMeta(t.name+"/")+".*", t.name+"/"
	d.Value = rule
	if d.Group == "" {
		d.Fields = map[string]lattice.Rule{"x": rule}
	}
	return d
}

func (t *template) register(i int) string { return fmt.Sprintf("%s/%d", t.name, i) }

var writers = []engine.Cause{
	{Protocol: "sql", Wrapper: "hr"}, {Protocol: "ldap", Wrapper: "office"}, {Protocol: "mqtt", Wrapper: "plant"},
	{Protocol: "http", Wrapper: "web", Principal: "ann", Verified: true},
}

// write draws what a node's client writes.
func (w *world) write(n *node) engine.Write {
	var out engine.Write
	out.By = writers[w.rng.IntN(len(writers))]
	t := w.templates[w.rng.IntN(len(w.templates))]
	switch t.name {
	case "batch":
		w.count++
		for i := range t.count {
			out.Ops = append(out.Ops, engine.Op{Register: t.register(i), Kind: engine.OpPut, Field: "x", Value: lattice.Int(int64(w.count))})
		}
	case "doc":
		out.Ops = w.document(n, t.register(w.rng.IntN(t.count)))
	case "sum":
		by := int64(w.rng.IntN(19) - 6)
		out.Ops = []engine.Op{{Register: t.register(0), Kind: engine.OpAdd, Field: "x", Value: lattice.Int(by)}}
	default:
		for range 1 + w.rng.IntN(2) {
			out.Ops = append(out.Ops, w.anything(n, &t, t.register(w.rng.IntN(t.count))))
		}
	}
	if w.rng.IntN(8) == 0 { // over several registers
		t := w.templates[w.rng.IntN(len(w.templates))]
		if t.free {
			out.Ops = append(out.Ops, w.anything(n, &t, t.register(w.rng.IntN(t.count))))
		}
	}
	return out
}

// document keeps to a form: whoever makes it gives both fields, whoever changes it one.
func (w *world) document(n *node, register string) []engine.Op {
	b, _ := n.r.read(register)
	put := func(field string) engine.Op {
		w.count++
		return engine.Op{Register: register, Kind: engine.OpPut, Field: field, Value: lattice.Int(int64(w.count))}
	}
	switch {
	case !b.Exists:
		return []engine.Op{put("a"), put("b")}
	case w.rng.IntN(3) == 0:
		return []engine.Op{{Register: register, Kind: engine.OpDelete}}
	}
	return []engine.Op{put([]string{"a", "b"}[w.rng.IntN(2)])}
}

func (w *world) value() lattice.Value {
	switch w.rng.IntN(4) {
	case 0:
		return lattice.String([]string{"red", "green", "blue"}[w.rng.IntN(3)])
	case 1:
		w.count++
		return lattice.Int(int64(w.count))
	}
	return lattice.Int(int64(w.rng.IntN(7)))
}

func (w *world) anything(n *node, t *template, register string) engine.Op {
	op := engine.Op{Register: register, Kind: engine.OpPut, Field: "x", Value: w.value()}
	if w.rng.IntN(3) == 0 {
		op.Field = "y"
	}
	switch w.rng.IntN(12) {
	case 0:
		op.Kind, op.Value = engine.OpRemove, lattice.Value{}
	case 1:
		op = engine.Op{Register: register, Kind: engine.OpDelete}
	case 2:
		op = engine.Op{Register: register, Kind: engine.OpOnly, Fields: []string{"y"}}
	case 3:
		op.Kind = engine.OpRestore
	case 4, 5:
		if t.rule.Kind == lattice.Sum || t.rule.Kind == lattice.Union {
			op.Kind, op.Field = engine.OpAdd, "x"
		}
	case 6:
		if t.name == "meter" {
			op.Field, op.Meter, op.Value = "x", true, lattice.Int(int64(w.rng.IntN(50)))
		}
	case 7:
		if t.rule.Kind == lattice.Union {
			op.Field, op.Value = "x", lattice.Set(w.value(), w.value())
		}
	}
	if w.rng.IntN(4) == 0 && t.decl.Group == "" { // what an older read saw
		if b, ok := n.saw[register]; ok {
			op.Base = true
			field := op.Field
			if op.Kind == engine.OpDelete {
				field = engine.Existence
			}
			for _, f := range b.Dots {
				if f.Field == field {
					op.Seen = f.Dots
				}
				if op.Kind == engine.OpOnly || f.Field == engine.Existence {
					op.SeenFields = append(op.SeenFields, f)
				}
			}
		}
	}
	return op
}
