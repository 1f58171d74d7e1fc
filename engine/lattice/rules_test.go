package lattice

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var hr, crm, nobody = Cause{Protocol: "sql", Wrapper: "hr"}, Cause{Protocol: "ldap", Wrapper: "crm"}, Cause{Protocol: "http", Wrapper: "web"}

var writers = []Cause{hr, crm, nobody}

// edit writes what edits mean to somebody who sees what this node has. Nil: there is nothing to write.
func (n *node) edit(t failer, decl *Decl, by Cause, wall time.Time, edits ...Edit) (*sent, error) {
	t.Helper()
	writer := &Writer{Self: n.core.ID(), By: by.By(), Mine: n.core.Mine}
	var room []Dot
	p := Part{Decl: decl}
	if decl != nil && decl.Unit != "" {
		p.Base = n.regs[decl.Unit]
		p.Group = BeginGroup(decl.Unit, p.Base)
	} else {
		p.Base, p.Draft = n.regs[edits[0].Register], new(Draft)
		p.Draft.Begin(edits[0].Register, p.Base, decl, writer, edits, &room)
	}
	for i := range edits {
		if err := p.Apply(&edits[i]); err != nil {
			return nil, err
		}
	}
	ops, waits := p.Finish()
	if len(ops) == 0 {
		return nil, nil
	}
	var held []string
	if waits {
		held = []string{ops[0].Register}
	}
	return n.write(t, ops, held, by, wall), nil
}

func put(v Value) Edit { return Edit{Register: "a", Kind: EditPut, Field: "x", Value: v} }

// x is what readers see of field x.
func (n *node) x(d *Decl) Value {
	v, _ := n.regs["a"].View(d, &Eye{}).Value.Member("x")
	return v
}

// An event is a write on field x as its writer meant it, and what it had seen.
type event struct {
	kind   EditKind
	value  Value
	dot    Dot
	time   Stamp
	by     By
	saw    Context
	rank   int
	counts bool // a put that its rule did not pass over
}

// A law says what a rule makes of events, without any order of theirs.
type law struct {
	rule   Rule
	values *rapid.Generator[Value]
	// passes says whether a put adds nothing, by what its writer saw live.
	passes func(c *event, live []*event) bool
	// kills says whether c, which saw p, ends it.
	kills func(p, c *event) bool
	value func(live []*event) Value
	most  int // entries after a put by one who saw all; 0: any number
}

func laterEvent(a, b *event) int {
	return cmp.Or(cmp.Compare(a.time, b.time), a.dot.Compare(b.dot))
}

func smallInts() *rapid.Generator[Value] {
	return rapid.Map(rapid.Int64Range(0, 5), Int)
}

func extreme(kind RuleKind, of string, values *rapid.Generator[Value]) law {
	r := Rule{Kind: kind, Of: of}
	compare := Compare
	if of == "time" {
		compare = func(a, b Value) int {
			x, _ := time.Parse(time.RFC3339Nano, a.Text())
			y, _ := time.Parse(time.RFC3339Nano, b.Text())
			return x.Compare(y)
		}
	}
	better := func(a, b Value) bool {
		if kind == Max {
			return compare(a, b) > 0
		}
		return compare(a, b) < 0
	}
	best := func(live []*event) *event {
		return slices.MinFunc(live, func(a, b *event) int {
			switch {
			case better(a.value, b.value):
				return -1
			case better(b.value, a.value):
				return 1
			}
			return laterEvent(a, b)
		})
	}
	return law{
		rule: r, values: values,
		passes: func(c *event, live []*event) bool {
			return len(live) > 0 && !better(c.value, best(live).value)
		},
		kills: func(p, c *event) bool { return better(c.value, p.value) },
		value: func(live []*event) Value { return best(live).value },
	}
}

func laws() map[string]law {
	newest := func(live []*event) Value { return slices.MaxFunc(live, laterEvent).value }
	anything := rapid.SampledFrom([]Value{Int(1), Int(2), String("a"), Bool(true), Set(Int(1)), List(Null())})
	ranks := Rule{Kind: Priority, Ranks: []string{"sql/hr", "ldap/*"}}
	return map[string]law{
		"latest": {rule: Rule{}, values: anything, value: newest, most: 1},
		"ask": {rule: Rule{Kind: Ask}, values: anything, most: 1, value: func(live []*event) Value {
			var values []Value
			for _, e := range live {
				values = append(values, e.value)
			}
			if s := Set(values...); s.Len() > 1 {
				return s
			}
			return live[0].value
		}},
		"first": {
			rule: Rule{Kind: First}, values: anything,
			passes: func(c *event, live []*event) bool { return len(live) > 0 },
			kills:  func(p, c *event) bool { return false },
			value:  func(live []*event) Value { return slices.MinFunc(live, laterEvent).value },
		},
		"max":      extreme(Max, "", smallInts()),
		"max time": extreme(Max, "time", rapid.SampledFrom([]Value{String("2026-01-01T00:00:00Z"), String("2026-01-01T00:00:00.5Z"), String("2027-01-01T00:00:00Z")})),
		"min":      extreme(Min, "number", rapid.OneOf(smallInts(), rapid.Just(num(new(testing.T), "1.5")))),
		"priority": {
			rule: ranks, values: anything,
			kills: func(p, c *event) bool { return p.rank >= c.rank },
			value: func(live []*event) Value {
				top := slices.MinFunc(live, func(a, b *event) int { return a.rank - b.rank }).rank
				return newest(slices.DeleteFunc(slices.Clone(live), func(e *event) bool { return e.rank != top }))
			},
		},
	}
}

// live are the puts among events that nobody ended who is known to a node.
func (l *law) live(events []*event, known *Context) (out []*event) {
	for _, p := range events {
		if !p.counts || !known.Covers(p.dot) {
			continue
		}
		killed := slices.ContainsFunc(events, func(c *event) bool {
			return known.Covers(c.dot) && c.saw.Covers(p.dot) && (c.kind != EditPut || l.kills == nil || l.kills(p, c))
		})
		if !killed {
			out = append(out, p)
		}
	}
	return out
}

// Nodes write what they mean, exchange and join: each sees at any time what the rule says of what it knows.
func TestRules(t *testing.T) {
	for name, l := range laws() {
		t.Run(name, rapid.MakeCheck(func(t *rapid.T) {
			decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": l.rule}}}
			nodes := newNodes(rapid.IntRange(2, 4).Draw(t, "nodes"))
			var events []*event
			var all []*sent
			for range rapid.IntRange(1, 25).Draw(t, "steps") {
				n := pick(t, nodes, "who")
				known := n.core.Context()
				switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
				case k < 5:
					e := &event{kind: EditPut, value: l.values.Draw(t, "value"), saw: known}
					switch rapid.IntRange(0, 9).Draw(t, "kind") {
					case 0:
						e.kind = EditRemove
					case 1:
						e.kind = EditRestore
					}
					cause := rapid.SampledFrom(writers).Draw(t, "by")
					s, err := n.edit(t, decl, cause, rapid.SampledFrom(walls).Draw(t, "wall"), Edit{Register: "a", Kind: e.kind, Field: "x", Value: e.value})
					if err != nil {
						t.Fatal(err)
					}
					if s == nil {
						if before := l.live(events, &known); e.kind == EditRemove && len(before) > 0 {
							t.Fatal("a remove of what is there came to nothing")
						}
						continue
					}
					e.dot, e.time, e.by, e.rank = s.q.Dot, s.q.Time, cause.By(), l.rule.Rank(cause.By())
					passes := l.passes != nil && l.passes(e, l.live(events, &known))
					e.counts = e.kind == EditRestore || e.kind == EditPut && !passes
					events, all = append(events, e), append(all, s)
					saw := !slices.ContainsFunc(all[:len(all)-1], func(s *sent) bool { return !known.Covers(s.q.Dot) })
					if got := len(n.regs["a"].Entries("x")); saw && l.most > 0 && got > l.most {
						t.Fatalf("got %d entries after a writer who saw all, want %d at most", got, l.most)
					}
				case k < 8:
					if len(all) > 0 {
						n.hear(t, pick(t, all, "what"))
					}
				default:
					n.join(pick(t, nodes, "whom"), nil)
				}
				known = n.core.Context()
				var want Value
				if live := l.live(events, &known); len(live) > 0 {
					want = l.value(live)
				}
				if got := n.x(decl); !got.Equal(want) {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
		}))
	}
}

// Counters and meters: the total is that of all growth that a node knows of, over nodes and their runs.
func TestSum(t *testing.T) {
	number := rapid.OneOf(rapid.Map(rapid.Int64Range(-9, 9), Int), rapid.SampledFrom([]Value{num(t, "0.1"), num(t, "-2.25"), num(t, "1e20")}))
	plus := func(a, b Value) Value {
		v, err := AddNumbers(a, b)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	minus := func(a, b Value) Value {
		v, err := MulNumbers(b, Int(-1))
		if err != nil {
			t.Fatal(err)
		}
		return plus(a, v)
	}
	rapid.Check(t, func(t *rapid.T) {
		decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": {Kind: Sum}}}}
		nodes := newNodes(rapid.IntRange(2, 3).Draw(t, "nodes"))
		var all []*sent
		grown := map[Dot]Value{}
		total := func(n *node) (sum Value) {
			for d, v := range grown {
				if n.core.Covers(d) {
					if sum.IsAbsent() {
						sum = Int(0)
					}
					sum = plus(sum, v)
				}
			}
			return sum
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			n := pick(t, nodes, "who")
			switch k := rapid.IntRange(0, 11).Draw(t, "step"); {
			case k < 5:
				e := Edit{Register: "a", Kind: rapid.SampledFrom([]EditKind{EditPut, EditPut, EditAdd, EditRestore}).Draw(t, "kind"), Field: "x", Value: number.Draw(t, "value")}
				last := total(n)
				if last.IsAbsent() {
					last = Int(0)
				}
				if e.Kind == EditPut {
					e.Meter = rapid.Bool().Draw(t, "meter")
					if rapid.Bool().Draw(t, "with last") {
						e.Last = number.Draw(t, "last")
						last = e.Last
					} else if e.Meter {
						last = Int(0)
					}
					if e.Meter && Compare(e.Value, last) < 0 {
						last = Int(0)
					}
				}
				grows := e.Value
				if e.Kind != EditAdd {
					grows = minus(e.Value, last)
				}
				s, err := n.edit(t, decl, nobody, rapid.SampledFrom(walls).Draw(t, "wall"), e)
				if err != nil || s == nil {
					t.Fatal(err)
				}
				grown[s.q.Dot] = grows
				all = append(all, s)
			case k < 7:
				if len(all) > 0 {
					n.hear(t, pick(t, all, "what"))
				}
			case k < 9:
				n.join(pick(t, nodes, "whom"), nil)
			case k < 10:
				n.restart()
			default:
				// Of earlier runs that everybody has whole, their endpoint says so.
				for _, d := range n.core.Vector() {
					owner, _ := n.core.Owner(d.Origin)
					if owner.Origin.Endpoint == n.origin.Endpoint && owner.Origin != n.origin && !slices.ContainsFunc(nodes, func(m *node) bool { return m.core.Head(d.Origin).Seq != d.Seq }) {
						all = append(all, n.write(t, []Op{{Register: OriginPrefix + d.Origin.String(), Kind: Put, Value: Int(int64(d.Seq))}}, nil, Cause{}, noon))
						if !n.core.Retired(d.Origin) || !n.core.Mine(d.Origin) {
							t.Fatalf("%s did not retire", d)
						}
					}
				}
			}
			if got, want := n.x(decl), total(n); !got.Equal(want) {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
		// When all have all, one that counts keeps one entry for each endpoint, and for each of its runs that has not ended.
		for _, n := range nodes {
			for _, m := range nodes {
				n.join(m, nil)
			}
		}
		for _, n := range nodes {
			if got, want := n.x(decl), total(nodes[0]); got.IsAbsent() != want.IsAbsent() {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

// What ended runs have counted moves into their endpoint's next count.
func TestSumTakesOverEndedRuns(t *testing.T) {
	decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": {Kind: Sum}}}}
	n := newNode(0)
	for run := range 5 {
		if run > 0 {
			last := Dot{n.core.ID(), n.core.Seq()}
			n.restart()
			n.write(t, []Op{{Register: OriginPrefix + last.Origin.String(), Kind: Put, Value: Int(int64(last.Seq))}}, nil, Cause{}, noon)
		}
		for range 3 {
			if _, err := n.edit(t, decl, nobody, noon, Edit{Register: "a", Kind: EditAdd, Field: "x", Value: Int(2)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, want := n.x(decl), Int(30); !got.Equal(want) {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := n.regs["a"].Entries("x"); len(got) != 1 {
		t.Errorf("got %d entries, want 1", len(got))
	}
	if got := n.core.Vector(); len(got) != 1 {
		t.Errorf("got a vector of %d, want 1", len(got))
	}
}

// A set in which a concurrent add wins over a remove.
func TestUnion(t *testing.T) {
	type change struct {
		dot           Dot
		saw           Context
		adds, removes map[int64]bool
	}
	rapid.Check(t, func(t *rapid.T) {
		decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": {Kind: Union}}}}
		nodes := newNodes(rapid.IntRange(2, 4).Draw(t, "nodes"))
		var changes []*change
		var all []*sent
		members := func(n *node) map[int64]bool {
			out := map[int64]bool{}
			for _, a := range changes {
				if !n.core.Covers(a.dot) {
					continue
				}
				for item := range a.adds {
					if !slices.ContainsFunc(changes, func(r *change) bool {
						return n.core.Covers(r.dot) && r.saw.Covers(a.dot) && r.removes[item]
					}) {
						out[item] = true
					}
				}
			}
			return out
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			n := pick(t, nodes, "who")
			switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
			case k < 5:
				kind := rapid.SampledFrom([]EditKind{EditPut, EditPut, EditAdd, EditRemove}).Draw(t, "kind")
				wanted := rapid.SliceOfDistinct(rapid.Int64Range(0, 4), rapid.ID[int64]).Draw(t, "items")
				c := &change{saw: n.core.Context(), adds: map[int64]bool{}, removes: map[int64]bool{}}
				had := members(n)
				var items []Value
				if kind != EditRemove {
					for _, item := range wanted {
						items = append(items, Int(item))
						c.adds[item] = !had[item]
					}
					maps.DeleteFunc(c.adds, func(_ int64, adds bool) bool { return !adds })
				}
				for item := range had {
					c.removes[item] = kind == EditRemove || kind == EditPut && !slices.Contains(wanted, item)
				}
				s, err := n.edit(t, decl, nobody, rapid.SampledFrom(walls).Draw(t, "wall"), Edit{Register: "a", Kind: kind, Field: "x", Value: Set(items...)})
				if err != nil {
					t.Fatal(err)
				}
				if s != nil {
					c.dot = s.q.Dot
					changes, all = append(changes, c), append(all, s)
				}
			case k < 8:
				if len(all) > 0 {
					n.hear(t, pick(t, all, "what"))
				}
			default:
				n.join(pick(t, nodes, "whom"), nil)
			}
			var want Value
			if m := members(n); len(m) > 0 {
				var items []Value
				for item := range m {
					items = append(items, Int(item))
				}
				want = Set(items...)
			}
			if got := n.x(decl); !got.Equal(want) {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

// An update wins over a delete that did not know of it, and brings the record back whole, unless a delete wins.
func TestExistence(t *testing.T) {
	type change struct {
		dot   Dot
		time  Stamp
		saw   Context
		field string // of a put
		gone  string // of a remove
		value Value
		fresh bool // it saw the register absent
		del   bool
	}
	for _, deleteWins := range []bool{false, true} {
		t.Run(fmt.Sprintf("delete wins=%v", deleteWins), rapid.MakeCheck(func(t *rapid.T) {
			decl := &Decl{Declaration: Declaration{DeleteWins: deleteWins}}
			nodes := newNodes(rapid.IntRange(2, 4).Draw(t, "nodes"))
			var changes []*change
			var all []*sent
			seenBy := func(n *node, p *change, what func(c *change) bool) bool {
				return slices.ContainsFunc(changes, func(c *change) bool { return n.core.Covers(c.dot) && c.saw.Covers(p.dot) && what(c) })
			}
			view := func(n *node) Value {
				exists := false
				newest := map[string]*change{}
				for _, p := range changes {
					if !n.core.Covers(p.dot) {
						continue
					}
					if p.del {
						if deleteWins && !seenBy(n, p, func(*change) bool { return true }) {
							return Value{}
						}
						continue
					}
					exists = exists || !seenBy(n, p, func(c *change) bool { return c.del })
					dead := seenBy(n, p, func(c *change) bool { return !c.del && (c.fresh || c.field == p.field || c.gone == p.field) })
					if old := newest[p.field]; p.field != "" && !dead && (old == nil || p.time > old.time || p.time == old.time && p.dot.Compare(old.dot) > 0) {
						newest[p.field] = p
					}
				}
				if !exists {
					return Value{}
				}
				var members []Member
				for f, p := range newest {
					members = append(members, Member{f, p.value})
				}
				return Object(members...)
			}
			for range rapid.IntRange(1, 25).Draw(t, "steps") {
				n := pick(t, nodes, "who")
				before := view(n)
				switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
				case k < 6:
					field := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "field")
					c := &change{saw: n.core.Context(), value: Int(int64(len(all))), fresh: before.IsAbsent()}
					e := Edit{Register: "a", Kind: EditPut, Field: field, Value: c.value}
					switch rapid.IntRange(0, 5).Draw(t, "kind") {
					case 0, 1:
						e.Kind, c.del, c.fresh = EditDelete, true, false
					case 2:
						e.Kind, c.gone = EditRemove, field
					default:
						c.field = field
					}
					s, err := n.edit(t, decl, nobody, rapid.SampledFrom(walls).Draw(t, "wall"), e)
					if err != nil {
						t.Fatal(err)
					}
					if s != nil {
						c.dot, c.time = s.q.Dot, s.q.Time
						changes, all = append(changes, c), append(all, s)
					} else if e.Kind == EditDelete && !before.IsAbsent() || e.Kind == EditPut {
						t.Fatal("it came to nothing")
					}
				case k < 8:
					if len(all) > 0 {
						n.hear(t, pick(t, all, "what"))
					}
				default:
					n.join(pick(t, nodes, "whom"), nil)
				}
				if got, want := n.regs["a"].View(decl, &Eye{}).Value, view(n); !got.Equal(want) {
					t.Fatalf("got %s, want %s", got, want)
				}
			}
		}))
	}
}

// The group is the latest of the writes that nobody who saw them has replaced, whole.
func TestGroups(t *testing.T) {
	type change struct {
		dot   Dot
		time  Stamp
		saw   Context
		group Value // after it
	}
	rapid.Check(t, func(t *rapid.T) {
		decl := &Decl{Unit: UnitPrefix + "g", Declaration: Declaration{Fields: map[string]Rule{"y": {Kind: Max}}}}
		nodes := newNodes(rapid.IntRange(2, 4).Draw(t, "nodes"))
		group := func(n *node) Value {
			unit := n.regs[decl.Unit]
			var members []Member
			for _, name := range unit.Members() {
				v := unit.Member(name).View(decl, &Eye{}).Value
				if v.IsAbsent() {
					t.Fatalf("member %q does not exist", name)
				}
				members = append(members, Member{name, v})
			}
			return Object(members...)
		}
		var changes []*change
		var all []*sent
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			n := pick(t, nodes, "who")
			switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
			case k < 5:
				var edits []Edit
				model := map[string]map[string]Value{}
				for _, m := range group(n).Members() {
					model[m.Name] = map[string]Value{}
					for _, f := range m.Value.Members() {
						model[m.Name][f.Name] = f.Value
					}
				}
				for range rapid.IntRange(1, 3).Draw(t, "edits") {
					e := Edit{
						Register: rapid.SampledFrom([]string{"a", "ab", "b"}).Draw(t, "member"), Kind: rapid.SampledFrom([]EditKind{EditPut, EditPut, EditRemove, EditOnly, EditDelete}).Draw(t, "kind"),
						Field: rapid.SampledFrom([]string{"x", "y"}).Draw(t, "field"), Value: Int(int64(10*len(all) + len(edits))),
					}
					edits = append(edits, e)
					m := model[e.Register]
					switch e.Kind {
					case EditPut:
						if m == nil {
							m = map[string]Value{}
						}
						m[e.Field] = e.Value
					case EditRemove:
						delete(m, e.Field)
					case EditOnly:
						m = map[string]Value{}
					case EditDelete:
						delete(model, e.Register)
						continue
					}
					if m != nil {
						model[e.Register] = m
					}
				}
				c := &change{saw: n.core.Context()}
				s, err := n.edit(t, decl, nobody, rapid.SampledFrom(walls).Draw(t, "wall"), edits...)
				if err != nil {
					t.Fatal(err)
				}
				var members []Member
				for name, fields := range model {
					var in []Member
					for f, v := range fields {
						in = append(in, Member{f, v})
					}
					members = append(members, Member{name, Object(in...)})
				}
				c.group = Object(members...)
				if s != nil {
					c.dot, c.time = s.q.Dot, s.q.Time
					changes, all = append(changes, c), append(all, s)
				}
			case k < 8:
				if len(all) > 0 {
					n.hear(t, pick(t, all, "what"))
				}
			default:
				n.join(pick(t, nodes, "whom"), nil)
			}
			var winner *change
			for _, c := range changes {
				if !n.core.Covers(c.dot) || c.group.Len() == 0 || slices.ContainsFunc(changes, func(o *change) bool { return n.core.Covers(o.dot) && o.saw.Covers(c.dot) }) {
					continue
				}
				if winner == nil || c.time > winner.time || c.time == winner.time && c.dot.Compare(winner.dot) > 0 {
					winner = c
				}
			}
			want := Object()
			if winner != nil {
				want = winner.group
			}
			if got := group(n); !got.Equal(want) {
				t.Fatalf("got %s, want %s", got, want)
			}
		}
	})
}

func everyRule() []Rule {
	return []Rule{
		{}, {Kind: First}, {Kind: Max}, {Kind: Max, Of: "number"}, {Kind: Max, Of: "time"}, {Kind: Min}, {Kind: Min, Of: "number"},
		{Kind: Sum}, {Kind: Sum, Of: "number"}, {Kind: Union}, {Kind: Priority, Ranks: []string{"ldap/*", "sql/hr"}}, {Kind: Ask}, {Kind: 99},
	}
}

// look reads a register in every way there is.
func look(g *Register, rule Rule, eye *Eye) string {
	for _, wins := range []bool{false, true} {
		d := &Decl{Declaration: Declaration{Value: rule, Fields: map[string]Rule{"x": rule, "y": rule}, DeleteWins: wins}}
		v := g.View(d, eye)
		stories := g.Explain(d, eye)
		if !wins && !v.Value.IsAbsent() && eye.Missing == nil {
			return fmt.Sprint(v.Value, v.Dots, v.Siblings, v.Provisional, stories)
		}
	}
	return ""
}

// A rule can be changed at any time: each makes a value of any entries, the same wherever the same ones live.
func TestAnyEntriesUnderAnyRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := newNodes(3)
		values := rapid.OneOf(genNumber(), genValue(2, false), smallInts(), rapid.Map(rapid.SliceOf(smallInts()), func(v []Value) Value { return Set(v...) }))
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			n := pick(t, nodes, "who")
			if rapid.IntRange(0, 4).Draw(t, "step") == 0 {
				n.join(pick(t, nodes, "whom"), nil)
				continue
			}
			rule := rapid.SampledFrom(everyRule()).Draw(t, "rule")
			e := Edit{Register: "a", Field: rapid.SampledFrom([]string{"", "x", "x", "y"}).Draw(t, "field"), Value: values.Draw(t, "value")}
			if k := e.Value.Kind(); k == NullKind || k == AbsentKind {
				continue
			}
			e.Kind = rapid.SampledFrom([]EditKind{EditPut, EditPut, EditPut, EditRemove, EditAdd, EditRestore, EditDelete, EditOnly}).Draw(t, "kind")
			decl := &Decl{Declaration: Declaration{Value: rule, Fields: map[string]Rule{"x": rule}, DeleteWins: rapid.Bool().Draw(t, "delete wins")}}
			if _, err := n.edit(t, decl, rapid.SampledFrom(writers).Draw(t, "by"), rapid.SampledFrom(walls).Draw(t, "wall"), e); err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
		}
		for _, n := range nodes[1:] {
			nodes[0].join(n, nil)
		}
		for _, n := range nodes[1:] {
			n.join(nodes[0], nil)
			for _, rule := range everyRule() {
				if got, want := look(n.regs["a"], rule, &Eye{}), look(nodes[0].regs["a"], rule, &Eye{}); got != want {
					t.Fatalf("%s: got %s, want %s", rule, got, want)
				}
				look(n.regs["a"], rule, &Eye{Heard: 1 << 60, Missing: func(v Value) bool { return v.Kind() == IntKind }})
			}
		}
	})
}

// One who writes later and saw nothing newer replaces what stands, however wrong the clocks are.
func TestLaterWriterReplacesWhateverTheClocksSay(t *testing.T) {
	nodes := newNodes(2)
	first, err := nodes[0].edit(t, nil, nobody, noon.AddDate(50, 0, 0), put(Int(1)))
	if err != nil {
		t.Fatal(err)
	}
	nodes[1].hear(t, first)
	second, err := nodes[1].edit(t, nil, nobody, noon.AddDate(-50, 0, 0), put(Int(2)))
	if err != nil {
		t.Fatal(err)
	}
	if second.q.Time > first.q.Time {
		t.Fatal("the clock followed a wild one")
	}
	nodes[0].hear(t, second)
	for i, n := range nodes {
		if got, want := n.x(nil), Int(2); !got.Equal(want) {
			t.Errorf("node %d: got %s, want %s", i, got, want)
		}
	}
}

// Many who write at once leave many entries, and the next who saw them all leaves few.
func TestManyWriters(t *testing.T) {
	const many = 1000
	top := func(i int) Value { return Int(int64(i)) }
	equal := func(int) Value { return Int(7) }
	for _, test := range []struct {
		name  string
		rule  Rule
		each  func(i int) Value
		last  Value
		want  Value
		shows int // entries at most, afterwards
	}{
		{"latest", Rule{}, top, Int(-1), Int(-1), 1},
		{"ask", Rule{Kind: Ask}, top, Int(-1), Int(-1), 1},
		{"priority", Rule{Kind: Priority, Ranks: []string{"sql/*"}}, top, Int(-1), Int(-1), 1},
		{"first", Rule{Kind: First}, top, Int(-1), top(0), 1},
		{"max, beaten", Rule{Kind: Max}, top, Int(many), Int(many), 1},
		{"max, not beaten", Rule{Kind: Max}, top, Int(1), Int(many - 1), 1},
		{"max, equal", Rule{Kind: Max}, equal, Int(7), Int(7), 1},
		{"min, not beaten", Rule{Kind: Min}, top, Int(1), Int(0), maxEntries},
		{"union, all one", Rule{Kind: Union}, equal, Set(Int(7)), Set(Int(7)), 1},
		{"union, replaced", Rule{Kind: Union}, top, Set(Int(-1)), Set(Int(-1)), 1},
		{"sum", Rule{Kind: Sum}, equal, Int(1), Int(1), many + 1}, // each keeps its own
	} {
		t.Run(test.name, func(t *testing.T) {
			decl := &Decl{Declaration: Declaration{Fields: map[string]Rule{"x": test.rule}}}
			var g *Register
			write := func(base *Register, seq int, v Value) *Register {
				var d Draft
				var room []Dot
				o := Origin{Incarnation: [16]byte{byte(seq), byte(seq >> 8)}}.ID()
				e := put(v)
				d.Begin("a", base, decl, &Writer{Self: o}, []Edit{e}, &room)
				if err := d.Apply(&e); err != nil {
					t.Fatal(err)
				}
				d.Finish()
				return g.Apply(Arrival{Dot: Dot{o, 1}, Time: Stamp(seq + 1), Ops: d.Ops})
			}
			for i := range many {
				g = write(nil, i, test.each(i))
			}
			g = write(g, many, test.last)
			if got, _ := g.View(decl, &Eye{}).Value.Member("x"); !got.Equal(test.want) {
				t.Errorf("got %s, want %s", got, test.want)
			}
			n := len(g.Entries("x"))
			for _, f := range g.Items("x") {
				n += len(f.Entries)
			}
			if n > test.shows || len(g.Entries(Existence)) != 1 {
				t.Errorf("got %d entries, want %d at most", n, test.shows)
			}
		})
	}
}
