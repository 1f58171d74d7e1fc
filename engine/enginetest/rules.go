package enginetest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// RunRules holds what open gives to what declarations mean, and to the calls that look behind a value or into the past.
// Each call of open must give an empty state, whoever declares its rules, and clean up after itself.
func RunRules(t *testing.T, open func(t *testing.T) (engine.State, engine.Declarer)) {
	tests := []struct {
		name string
		run  func(*rulesSuite)
	}{
		{"max and min keep the extreme", extremes},
		{"sum is a total to set and to add to", sum},
		{"union is a set to set and to add to", union},
		{"first keeps the first", firstWins},
		{"priority goes by who writes", priority},
		{"ask is like latest for writers who see each other", askInTurn},
		{"ops of a write follow each other by the rules, too", rulesInOrder},
		{"rules don't take what they can't hold", misfits},
		{"a declaration counts where its pattern matches", patterns},
		{"declarations can change and go", redeclare},
		{"a bad declaration refuses all", declareRefused},
		{"manual waits for a collapse", manual},
		{"what waits is listed by register, in part", pendingList},
		{"what waited together can be siblings", waitingSiblings},
		{"observers and history see what waits", pendingDeltas},
		{"a deleted register comes back where deletes win", deleteWinsAndReturns},
		{"a group is one unit", group},
		{"who may not write is denied", denied},
		{"the past is there by commit, id and time", stateAt},
		{"a former state is put back", revert},
		{"a former state is put back whatever the rules", revertByRules},
		{"deletes are put back, too", revertDeleted},
		{"explain says what is behind a value", explain},
		{"explain says what waits", explainPending},
		{"a backup says what is in it", backup},
		{"bad input of these calls is refused by kind", rulesRefused},
		{"an ended context ends these calls", rulesEnded},
		{"closed is closed for these calls", rulesClosed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			state, declarer := open(t)
			test.run(&rulesSuite{suite{T: t, ctx: ctx, State: state}, declarer})
		})
	}
}

// RunRulesHost holds what open gives to what only the process that hosts an engine may ask of rules.
func RunRulesHost(t *testing.T, open func(t *testing.T) (Host, engine.Declarer)) {
	tests := []struct {
		name string
		run  func(*rulesHost)
	}{
		{"restore sets what the rule would keep", restoreOp},
		{"a total counts from what its address last had", sumLast},
		{"a meter that falls is a new one", sumMeter},
		{"ask shows who did not see each other", askSiblings},
		{"max forgets only what its writer saw", maxSiblings},
		{"a delete wins over who did not know of it, if declared", deleteWinsOverUnseen},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			host, declarer := open(t)
			test.run(&rulesHost{hostSuite{suite{T: t, ctx: ctx, State: host}, host, host}, declarer})
		})
	}
}

type rulesSuite struct {
	suite
	engine.Declarer
}

type rulesHost struct {
	hostSuite
	engine.Declarer
}

// Add is an op that adds to a sum or a union.
func Add(register, field string, v engine.Value) engine.Op {
	return engine.Op{Register: register, Kind: engine.OpAdd, Field: field, Value: v}
}

// Rules declares the registers below a prefix, with rules for fields.
func Rules(prefix string, fields map[string]engine.CollapseRule) engine.Declaration {
	return engine.Declaration{
		Template: prefix + "/{name}", Pattern: prefix + "/(?P<name>[^/]+)", Prefix: prefix + "/", Fields: fields, Source: "test.hcl:1",
	}
}

func rule(kind lattice.RuleKind) engine.CollapseRule { return engine.CollapseRule{Kind: kind} }

func (s *rulesSuite) declare(d ...engine.Declaration) { s.Helper(); declare(&s.suite, s, d...) }
func (s *rulesHost) declare(d ...engine.Declaration)  { s.Helper(); declare(&s.suite, s, d...) }

func declare(s *suite, d engine.Declarer, declarations ...engine.Declaration) {
	s.Helper()
	if err := d.Declare(s.ctx, declarations); err != nil {
		s.Fatalf("declare: %v", err)
	}
}

// writeAs writes as somebody.
func (s *suite) writeAs(by engine.Cause, ops ...engine.Op) engine.Receipt {
	s.Helper()
	r, err := s.WriteState(s.ctx, engine.Write{Ops: ops, By: by})
	if err != nil {
		s.Fatalf("write by %s: %v", by.By(), err)
	}
	return r
}

// field gives one field of a register; absent if it has none.
func (s *suite) field(register, field string) engine.Value {
	s.Helper()
	v := s.read(register).Value
	if field == "" {
		return v
	}
	m, _ := v.Member(field)
	return m
}

func (s *suite) wantField(register, field string, want engine.Value) {
	s.Helper()
	if got := s.field(register, field); !got.Equal(want) {
		s.Errorf("%s, field %q: got %s, want %s", register, field, got, want)
	}
}

func (s *suite) collapse(register string, by engine.Cause) engine.Receipt {
	s.Helper()
	r, err := s.Collapse(s.ctx, register, by)
	if err != nil {
		s.Fatalf("collapse of %s: %v", register, err)
	}
	return r
}

func number(text string) engine.Value {
	v, err := lattice.ParseNumber(text)
	if err != nil {
		panic(err)
	}
	return v
}

func setOf(items ...string) engine.Value {
	var values []engine.Value
	for _, item := range items {
		values = append(values, lattice.String(item))
	}
	return lattice.Set(values...)
}

func listOf(items ...string) engine.Value {
	var values []engine.Value
	for _, item := range items {
		values = append(values, lattice.String(item))
	}
	return lattice.List(values...)
}

// The writers of these tests.
var (
	api   = engine.Cause{Protocol: "http", Wrapper: "api", Verb: "put", Source: "test.hcl:9"}
	floor = engine.Cause{Protocol: "mqtt", Wrapper: "floor", Verb: "put"}
	ann   = engine.Cause{Protocol: "mqtt", Wrapper: "floor", Verb: "put", Principal: "ann", Verified: true}
	liar  = engine.Cause{Protocol: "mqtt", Wrapper: "floor", Verb: "put", Principal: "ann"}
)

func extremes(s *rulesSuite) {
	highest, lowest := engine.CollapseRule{Kind: lattice.Max, Of: "number"}, engine.CollapseRule{Kind: lattice.Min, Of: "number"}
	d := Rules("peak", map[string]engine.CollapseRule{"high": highest, "low": lowest})
	one := Rules("one", nil)
	one.Value = highest
	s.declare(d, one)
	s.write(Put("peak/a", "high", number("5")), Put("peak/a", "low", number("5")), Put("peak/a", "last", number("5")))
	s.want("peak/a", `{"high":5,"last":5,"low":5}`)
	s.write(Put("peak/a", "high", number("3.5")), Put("peak/a", "low", number("3.5")), Put("peak/a", "last", number("3.5")))
	s.want("peak/a", `{"high":5,"last":3.5,"low":3.5}`)
	s.write(Put("peak/a", "high", number("10")), Put("peak/a", "low", number("10")))
	s.want("peak/a", `{"high":10,"last":3.5,"low":3.5}`)
	s.write(Remove("peak/a", "high"))
	s.write(Put("peak/a", "high", number("-1"))) // a removed peak does not count any more
	s.want("peak/a", `{"high":-1,"last":3.5,"low":3.5}`)
	s.write(Put("one/a", "", number("2")))
	s.write(Put("one/a", "", number("1")))
	s.want("one/a", "2")
}

func sum(s *rulesSuite) {
	one := Rules("one", nil)
	one.Value = rule(lattice.Sum)
	s.declare(Rules("stock", map[string]engine.CollapseRule{"count": rule(lattice.Sum)}), one)
	s.write(Put("stock/a", "count", number("10")), Put("stock/a", "unit", lattice.String("kg")))
	s.write(Put("stock/a", "count", number("7")))
	s.want("stock/a", `{"count":7,"unit":"kg"}`)
	s.write(Add("stock/a", "count", number("5")))
	s.want("stock/a", `{"count":12,"unit":"kg"}`)
	r := s.write(Add("stock/a", "count", number("-2.5")))
	s.want("stock/a", `{"count":9.5,"unit":"kg"}`)
	if len(r.States) != 1 || r.States[0].Value.String() != `{"count":9.5,"unit":"kg"}` {
		s.Errorf("receipt: got %+v", r)
	}
	s.write(Add("stock/new", "count", number("3")))
	s.want("stock/new", `{"count":3}`)
	s.write(Delete("stock/new"))
	s.write(Add("stock/new", "count", number("4")))
	s.want("stock/new", `{"count":4}`)
	s.write(Add("one/a", "", number("1")))
	s.write(Add("one/a", "", number("1")))
	s.want("one/a", "2")
}

func union(s *rulesSuite) {
	one := Rules("one", nil)
	one.Value = rule(lattice.Union)
	s.declare(Rules("site", map[string]engine.CollapseRule{"tags": rule(lattice.Union)}), one)
	s.write(Put("site/a", "tags", listOf("b", "a")), Put("site/a", "x", lattice.Int(1)))
	s.wantField("site/a", "tags", setOf("a", "b"))
	if got := s.field("site/a", "tags").Kind(); got != lattice.SetKind {
		s.Errorf("got a %s, want a set", got)
	}
	s.write(Add("site/a", "tags", listOf("c", "a")))
	s.wantField("site/a", "tags", setOf("a", "b", "c"))
	s.write(Put("site/a", "tags", setOf("c", "d"))) // a set as well as a list
	s.wantField("site/a", "tags", setOf("c", "d"))
	s.wantField("site/a", "x", lattice.Int(1))
	s.write(Add("site/new", "tags", listOf("a")))
	s.wantField("site/new", "tags", setOf("a"))
	s.write(Remove("site/a", "tags"))
	s.want("site/a", `{"x":1}`)
	s.write(Put("one/a", "", listOf("a")))
	s.write(Add("one/a", "", listOf("b")))
	s.wantField("one/a", "", setOf("a", "b"))
}

func firstWins(s *rulesSuite) {
	s.declare(Rules("claim", map[string]engine.CollapseRule{"by": rule(lattice.First)}))
	first := s.write(Put("claim/a", "by", lattice.String("ann")))
	second := s.write(Put("claim/a", "by", lattice.String("bob")))
	s.want("claim/a", `{"by":"ann"}`)
	if second.Dot.IsZero() || second.Cursor.Ordinal <= first.Cursor.Ordinal || len(second.States) != 1 || second.States[0].Value.String() != `{"by":"ann"}` {
		s.Errorf("the second is a commit that changes nothing: got %+v", second)
	}
	if h := all(&s.suite, s.History(s.ctx, engine.HistoryQuery{Register: "claim/a"})); len(h) != 2 || len(h[0].Changed) != 0 {
		s.Errorf("history: got %+v", h)
	}
	s.write(Remove("claim/a", "by"))
	s.write(Put("claim/a", "by", lattice.String("bob")))
	s.want("claim/a", `{"by":"bob"}`)
}

func priority(s *rulesSuite) {
	s.declare(Rules("person", map[string]engine.CollapseRule{"title": {Kind: lattice.Priority, Ranks: []string{"http/api", "user:ann"}}}))
	put := func(by engine.Cause, title, want string) {
		s.Helper()
		s.writeAs(by, Put("person/1", "title", lattice.String(title)), Put("person/1", "other", lattice.String(title)))
		s.wantField("person/1", "title", lattice.String(want))
		s.wantField("person/1", "other", lattice.String(title))
	}
	put(floor, "one", "one")   // nobody of rank has written yet
	put(floor, "two", "two")   // equals replace each other
	put(ann, "three", "three") // a better one
	put(floor, "four", "three")
	put(liar, "five", "three") // who only says that it is ann is nobody
	put(api, "six", "six")
	put(ann, "seven", "six")
	put(api, "eight", "eight")
}

func askInTurn(s *rulesSuite) {
	s.declare(Rules("order", map[string]engine.CollapseRule{"state": rule(lattice.Ask)}))
	for _, by := range []engine.Cause{api, floor, ann} {
		r := s.writeAs(by, Put("order/1", "state", lattice.String(string(by.By()))))
		if b := r.States[0]; len(b.Siblings) != 0 {
			s.Errorf("got siblings %q", b.Siblings)
		}
		s.wantField("order/1", "state", lattice.String(string(by.By())))
	}
}

func rulesInOrder(s *rulesSuite) {
	s.declare(Rules("r", map[string]engine.CollapseRule{
		"sum": rule(lattice.Sum), "max": {Kind: lattice.Max, Of: "number"}, "union": rule(lattice.Union), "first": rule(lattice.First),
	}))
	s.write(Put("r/a", "sum", number("10")), Add("r/a", "sum", number("5")), Add("r/a", "sum", number("5")))
	s.wantField("r/a", "sum", number("20"))
	s.write(Add("r/a", "sum", number("1")), Put("r/a", "sum", number("3")))
	s.wantField("r/a", "sum", number("3"))
	s.write(Put("r/a", "max", number("3")), Put("r/a", "max", number("9")), Put("r/a", "max", number("4")))
	s.wantField("r/a", "max", number("9"))
	s.write(Put("r/a", "union", listOf("a")), Add("r/a", "union", listOf("b")), Add("r/a", "union", listOf("c")))
	s.wantField("r/a", "union", setOf("a", "b", "c"))
	s.write(Put("r/a", "first", lattice.Int(1)), Put("r/a", "first", lattice.Int(2)))
	s.wantField("r/a", "first", lattice.Int(1))
}

func misfits(s *rulesSuite) {
	s.declare(Rules("r", map[string]engine.CollapseRule{"sum": rule(lattice.Sum), "union": rule(lattice.Union)}))
	for name, op := range map[string]engine.Op{
		"text put on a sum":      Put("r/a", "sum", lattice.String("x")),
		"text added to a sum":    Add("r/a", "sum", lattice.String("x")),
		"nothing added":          Add("r/a", "sum", engine.Value{}),
		"added where no rule is": Add("r/a", "x", lattice.String("x")),
	} {
		if r, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{op}}); !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("%s: got %+v, %v; want ErrInvalid", name, r, err)
		}
	}
	s.want("r/a", "")
}

func patterns(s *rulesSuite) {
	s.declare(engine.Declaration{
		Template: "site/{site}/peak", Pattern: "site/(?P<site>[a-z]+)/peak", Prefix: "site/", Value: engine.CollapseRule{Kind: lattice.Max, Of: "number"},
	})
	for register, want := range map[string]string{"site/a/peak": "5", "site/1/peak": "3", "site/a/peak/b": "3", "xsite/a/peak": "3", "site/a/peak2": "3"} {
		s.write(Put(register, "", number("5")))
		s.write(Put(register, "", number("3")))
		s.want(register, want)
	}
}

func redeclare(s *rulesSuite) {
	d := Rules("r", map[string]engine.CollapseRule{"x": {Kind: lattice.Max, Of: "number"}})
	s.declare(d)
	s.declare(d) // again, as at each start
	s.write(Put("r/a", "x", number("5")))
	s.write(Put("r/a", "x", number("3")))
	s.want("r/a", `{"x":5}`)
	d.Fields = map[string]engine.CollapseRule{"x": {Kind: lattice.Min, Of: "number"}}
	s.declare(d)
	s.write(Put("r/a", "x", number("4")))
	s.want("r/a", `{"x":4}`)
	s.write(Put("r/a", "x", number("6")))
	s.want("r/a", `{"x":4}`)
	s.declare() // gone: what nobody declares is by latest
	s.write(Put("r/a", "x", number("6")))
	s.want("r/a", `{"x":6}`)
	if x, err := s.Explain(s.ctx, "r/a"); err != nil || x.Declaration != "" {
		s.Errorf("explain: got %+v, %v", x, err)
	}
}

func declareRefused(s *rulesSuite) {
	good := Rules("r", map[string]engine.CollapseRule{"x": {Kind: lattice.Max, Of: "number"}})
	s.declare(good)
	change := func(f func(*engine.Declaration)) engine.Declaration {
		d := Rules("bad", nil)
		f(&d)
		return d
	}
	for name, bad := range map[string]engine.Declaration{
		"a pattern":         change(func(d *engine.Declaration) { d.Pattern = "bad/(" }),
		"no template":       change(func(d *engine.Declaration) { d.Template = "" }),
		"a window below 0":  change(func(d *engine.Declaration) { d.Commit.Window = -time.Second }),
		"a group's capture": change(func(d *engine.Declaration) { d.Group = "g/${other}" }),
		"there twice":       good,
	} {
		err := s.Declare(s.ctx, []engine.Declaration{good, change(func(d *engine.Declaration) { d.Template, d.Value = "other", rule(lattice.Sum) }), bad})
		if !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
	s.write(Put("r/a", "x", number("5")))
	s.write(Put("r/a", "x", number("3")))
	s.want("r/a", `{"x":5}`)
	s.write(Put("bad/a", "", number("5")))
	s.write(Put("bad/a", "", number("3")))
	s.want("bad/a", "3")
}

func manualRules(prefix string, fields map[string]engine.CollapseRule) engine.Declaration {
	d := Rules(prefix, fields)
	d.Commit.Manual = true
	return d
}

func manual(s *rulesSuite) {
	s.declare(manualRules("limit", nil))
	before, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	first := s.writeAs(api, Put("limit/a", "x", lattice.Int(1)))
	if b := first.States[0]; first.Dot.IsZero() || b.Exists || b.Waiting != 1 {
		s.Errorf("receipt: got %+v", first)
	}
	if b := s.read("limit/a"); b.Exists || !b.Value.IsAbsent() || b.Waiting != 1 {
		s.Errorf("before it is settled: got %+v", b)
	}
	settled := s.collapse("limit/a", ann)
	if settled.Dot.IsZero() || settled.Dot == first.Dot || len(settled.States) != 1 || settled.States[0].Waiting != 0 || settled.Cursor.Ordinal <= first.Cursor.Ordinal {
		s.Errorf("collapse: got %+v", settled)
	}
	s.want("limit/a", `{"x":1}`)

	second := s.writeAs(floor, Put("limit/a", "x", lattice.Int(2)), Put("limit/a", "y", lattice.Int(3)))
	s.writeAs(ann, Put("limit/a", "x", lattice.Int(4)))
	s.want("limit/a", `{"x":1}`)
	if b := s.read("limit/a"); b.Waiting != 2 {
		s.Errorf("got %d waiting, want 2", b.Waiting)
	}
	p := first2(s, s.waits("limit/a"))
	would := []engine.FieldChange{{Field: "x", Before: lattice.Int(1), After: lattice.Int(2)}, {Field: "y", After: lattice.Int(3)}}
	if p[0].Register != "limit/a" || p[0].Dot != second.Dot || p[0].Time != second.Time || p[0].Cause != floor || p[0].Deletes || !p[0].Mode.Manual {
		s.Errorf("what waits: got %+v", p[0])
	}
	if !slices.EqualFunc(p[0].Would, would, sameChange) {
		s.Errorf("it would change %v, want %v", p[0].Would, would)
	}
	now, err := s.Status(s.ctx)
	if err != nil || now.Pending != before.Pending+1 {
		s.Errorf("status: got %d registers that wait, %v", now.Pending, err)
	}
	s.collapse("limit/a", ann)
	s.want("limit/a", `{"x":4,"y":3}`) // by latest, the later
	if got := s.waits("limit/a"); len(got) != 0 {
		s.Errorf("what waits after all is settled: got %+v", got)
	}
	idle := s.collapse("limit/a", ann)
	if !idle.Dot.IsZero() || len(idle.States) != 1 || idle.States[0].Value.String() != `{"x":4,"y":3}` {
		s.Errorf("with nothing to settle: got %+v", idle)
	}

	s.write(Delete("limit/a"))
	s.want("limit/a", `{"x":4,"y":3}`)
	if got := s.waits("limit/a"); len(got) != 1 || !got[0].Deletes {
		s.Errorf("a delete that waits: got %+v", got)
	}
	s.collapse("limit/a", ann)
	s.want("limit/a", "")
	if now, err = s.Status(s.ctx); err != nil || now.Pending != before.Pending {
		s.Errorf("status: got %d registers that wait, %v", now.Pending, err)
	}
}

func sameChange(a, b engine.FieldChange) bool {
	return a.Field == b.Field && a.Before.Equal(b.Before) && a.After.Equal(b.After)
}

func (s *rulesSuite) waits(prefix string) []engine.Pending {
	s.Helper()
	return all(&s.suite, s.Pending(s.ctx, engine.PendingQuery{Prefix: prefix}))
}

func first2(s *rulesSuite, p []engine.Pending) []engine.Pending {
	s.Helper()
	if len(p) != 2 {
		s.Fatalf("got %d that wait, want 2: %+v", len(p), p)
	}
	return p
}

func pendingList(s *rulesSuite) {
	s.declare(manualRules("limit", nil))
	const registers, each = 40, 30
	for i := range each {
		var ops []engine.Op
		for n := range registers {
			ops = append(ops, Put(fmt.Sprintf("limit/%02d", n), "x", lattice.Int(int64(i))))
		}
		s.write(ops...)
	}
	s.write(Put("free", "x", lattice.Int(1)))
	list := all(&s.suite, s.Pending(s.ctx, engine.PendingQuery{Limit: 1 << 30}))
	if len(list) != registers*each {
		s.Fatalf("got %d, want %d", len(list), registers*each)
	}
	for i, p := range list {
		want := fmt.Sprintf("limit/%02d", i/each)
		if p.Register != want || len(p.Would) != 1 || !p.Would[0].After.Equal(lattice.Int(int64(i%each))) {
			s.Fatalf("%d: got %+v, want number %d of %s", i, p, i%each, want)
		}
	}
	for q, want := range map[engine.PendingQuery]int{
		{}: 100, {Limit: 7}: 7, {Prefix: "limit/07"}: each, {Prefix: "limit/1", Limit: 1000}: 10 * each, {Prefix: "free"}: 0, {Prefix: "none"}: 0,
	} {
		if got := all(&s.suite, s.Pending(s.ctx, q)); len(got) != want {
			s.Errorf("%+v: got %d, want %d", q, len(got), want)
		}
	}
}

func waitingSiblings(s *rulesSuite) {
	s.declare(manualRules("order", map[string]engine.CollapseRule{"state": rule(lattice.Ask), "sum": rule(lattice.Sum)}))
	s.writeAs(api, Put("order/1", "state", lattice.String("open")), Add("order/1", "sum", number("1")))
	s.writeAs(floor, Put("order/1", "state", lattice.String("shut")), Add("order/1", "sum", number("2")))
	r := s.collapse("order/1", ann)
	b := s.read("order/1")
	if !slices.Equal(b.Siblings, []string{"state"}) || !slices.Equal(r.States[0].Siblings, b.Siblings) {
		s.Errorf("siblings: got %q, and %q in the receipt", b.Siblings, r.States[0].Siblings)
	}
	s.wantField("order/1", "state", setOf("open", "shut"))
	s.wantField("order/1", "sum", number("3"))
	s.writeAs(ann, Put("order/1", "state", lattice.String("shut")))
	s.wantField("order/1", "state", setOf("open", "shut"))
	s.collapse("order/1", ann)
	s.wantField("order/1", "state", lattice.String("shut"))
	if b := s.read("order/1"); len(b.Siblings) != 0 {
		s.Errorf("after somebody chose: got siblings %q", b.Siblings)
	}
}

func pendingDeltas(s *rulesSuite) {
	s.declare(manualRules("limit", nil))
	s.write(Put("limit/a", "x", lattice.Int(1)))
	s.collapse("limit/a", api)
	ch := s.observe(engine.Filter{Name: "limit/a"}, s.cursor())
	wrote := s.writeAs(floor, Put("limit/a", "x", lattice.Int(2)))
	settled := s.collapse("limit/a", ann)
	h := all(&s.suite, s.History(s.ctx, engine.HistoryQuery{Register: "limit/a", Limit: 2, Oldest: true, After: wrote.Cursor.Ordinal - 1}))
	if len(h) != 2 {
		s.Fatalf("history: got %d entries, want 2", len(h))
	}
	for what, d := range map[string][2]engine.QDelta{"observed": {s.next(ch), s.next(ch)}, "history": {h[0], h[1]}} {
		waits, became := d[0], d[1]
		if !waits.Pending || waits.Dot != wrote.Dot || waits.Cause != floor || len(waits.Changed) != 0 || waits.After.Value.String() != `{"x":1}` || waits.Created {
			s.Errorf("%s, what waits: got %+v", what, waits)
		}
		if became.Pending || became.Dot != settled.Dot || became.After.Value.String() != `{"x":2}` || len(became.Changed) != 1 || became.Changed[0].Before.Int() != 1 {
			s.Errorf("%s, what it became: got %+v", what, became)
		}
		if became.Cause.Principal != "ann" {
			s.Errorf("%s, settled by %+v", what, became.Cause)
		}
	}
}

func deleteWinsAndReturns(s *rulesSuite) {
	d := Rules("r", nil)
	d.DeleteWins = true
	s.declare(d)
	s.write(Put("r/a", "x", lattice.Int(1)), Put("r/a", "y", lattice.Int(2)))
	s.write(Delete("r/a"))
	s.want("r/a", "")
	s.write(Put("r/a", "x", lattice.Int(3))) // by somebody who knows of the delete
	s.want("r/a", `{"x":3}`)
	if x, err := s.Explain(s.ctx, "r/a"); err != nil || !x.DeleteWins {
		s.Errorf("explain: got %+v, %v", x, err)
	}
}

func group(s *rulesSuite) {
	s.declare(engine.Declaration{
		Template: "recipe/{recipe}/{param}", Pattern: "recipe/(?P<recipe>[^/]+)/(?P<param>[^/]+)", Prefix: "recipe/", Group: "recipe/${recipe}",
	})
	s.write(Put("recipe/1/temp", "x", lattice.Int(180)))
	s.write(Put("recipe/1/time", "x", lattice.Int(20)), Put("recipe/2/time", "x", lattice.Int(5)))
	temp, minutes, other := s.read("recipe/1/temp"), s.read("recipe/1/time"), s.read("recipe/2/time")
	if temp.ID.IsZero() || temp.ID != minutes.ID || temp.ID == other.ID {
		s.Errorf("ids: got %s and %s of one group, %s of another", temp.ID, minutes.ID, other.ID)
	}
	s.want("recipe/1/temp", `{"x":180}`)
	// Who wants to write on what it read of one member is stopped by a write to another.
	s.write(Put("recipe/1/time", "x", lattice.Int(25)))
	_, err := s.WriteState(s.ctx, engine.Write{
		Ops: []engine.Op{Put("recipe/1/temp", "x", lattice.Int(200))}, If: []engine.Precondition{{Register: "recipe/1/temp", Match: []engine.StateID{temp.ID}}},
	})
	if !errors.Is(err, engine.ErrConflict) {
		s.Errorf("on an old state of the group: got %v, want ErrConflict", err)
	}
	x, err := s.Explain(s.ctx, "recipe/1/temp")
	if err != nil || x.Group != "recipe/1" || x.State.Value.String() != `{"x":180}` {
		s.Errorf("explain: got %+v, %v", x, err)
	}
	s.write(Delete("recipe/1/time"))
	s.want("recipe/1/time", "")
	s.want("recipe/1/temp", `{"x":180}`)
	if got := names(all(&s.suite, s.List(s.ctx, "recipe/", "", 0))); got != "recipe/1/temp recipe/2/time" {
		s.Errorf("list: got %s", got)
	}
}

func denied(s *rulesSuite) {
	d := Rules("limit", nil)
	d.Writers = []string{"http/*", "user:ann"}
	s.declare(d)
	for _, by := range []engine.Cause{api, ann} {
		s.writeAs(by, Put("limit/a", "x", lattice.Int(1)))
	}
	at := s.cursor()
	for name, w := range map[string]engine.Write{
		"another":               {By: floor, Ops: []engine.Op{Put("limit/a", "x", lattice.Int(2))}},
		"nobody":                {Ops: []engine.Op{Put("limit/a", "x", lattice.Int(2))}},
		"who is not checked":    {By: liar, Ops: []engine.Op{Put("limit/a", "x", lattice.Int(2))}},
		"a delete":              {By: floor, Ops: []engine.Op{Delete("limit/a")}},
		"a part of a batch":     {By: floor, Ops: []engine.Op{Put("free", "x", lattice.Int(2)), Put("limit/a", "x", lattice.Int(2))}},
		"what is not there yet": {By: floor, Ops: []engine.Op{Put("limit/b", "x", lattice.Int(2))}},
	} {
		if r, err := s.WriteState(s.ctx, w); !errors.Is(err, engine.ErrDenied) {
			s.Errorf("%s: got %+v, %v; want ErrDenied", name, r, err)
		}
	}
	s.want("limit/a", `{"x":1}`)
	s.want("free", "")
	if got := s.cursor(); got != at {
		s.Errorf("cursor: got %v after %v", got, at)
	}
	s.writeAs(floor, Put("free", "x", lattice.Int(3)))
	if _, err := s.Revert(s.ctx, "limit/a", engine.Moment{Ordinal: at.Ordinal}, floor); !errors.Is(err, engine.ErrDenied) {
		s.Errorf("revert: got %v, want ErrDenied", err)
	}
}

func (s *suite) at(register string, m engine.Moment) engine.StateBlock {
	s.Helper()
	b, err := s.StateAt(s.ctx, register, m)
	if err != nil {
		s.Fatalf("%s at %+v: %v", register, m, err)
	}
	return b
}

func stateAt(s *rulesSuite) {
	before := s.write(Put("other", "x", lattice.Int(0)))
	var receipts []engine.Receipt
	for i := range 5 {
		receipts = append(receipts, s.write(Put("a", "x", lattice.Int(int64(i)))))
		s.write(Put("other", "x", lattice.Int(int64(i))))
	}
	gone := s.write(Delete("a"))
	for i, r := range receipts {
		want := fmt.Sprintf(`{"x":%d}`, i)
		for name, m := range map[string]engine.Moment{
			"ordinal": {Ordinal: r.Cursor.Ordinal}, "a commit of another": {Ordinal: r.Cursor.Ordinal + 1}, "id": {ID: r.States[0].ID},
		} {
			if b := s.at("a", m); b.Value.String() != want || !b.Exists || b.ID != r.States[0].ID || b.Ordinal != r.Cursor.Ordinal || b.Time != r.Time {
				s.Errorf("%s %d: got %+v, want %s", name, i, b, want)
			}
		}
		// Of the commits of one millisecond, which is all that a clock on the wall tells, the newest.
		newest := r
		for _, later := range append(slices.Clone(receipts[i:]), gone) {
			if later.Time.Time().Equal(r.Time.Time()) {
				newest = later
			}
		}
		if b := s.at("a", engine.Moment{Time: r.Time.Time()}); b.ID != newest.States[0].ID {
			s.Errorf("time %d: got %+v, want %s", i, b, newest.States[0].ID)
		}
	}
	for name, m := range map[string]engine.Moment{
		"ordinal": {Ordinal: gone.Cursor.Ordinal}, "far ahead": {Ordinal: gone.Cursor.Ordinal + 1000}, "id": {ID: gone.States[0].ID}, "now": {Time: time.Now().Add(time.Hour)},
	} {
		if b := s.at("a", m); b.Exists || b.ID != gone.States[0].ID {
			s.Errorf("deleted, %s: got %+v", name, b)
		}
	}
	for name, m := range map[string]engine.Moment{"before it was": {Ordinal: before.Cursor.Ordinal}, "long ago": {Time: time.Unix(1, 0)}} {
		if b := s.at("a", m); b.Exists || !b.ID.IsZero() || b.Register != "a" {
			s.Errorf("%s: got %+v, want that of a register never written", name, b)
		}
	}
	for name, id := range map[string]engine.StateID{"another's": before.States[0].ID, "nobody's": {Rank: 99}} {
		if b, err := s.StateAt(s.ctx, "a", engine.Moment{ID: id}); !errors.Is(err, engine.ErrNotFound) {
			s.Errorf("%s id: got %+v, %v; want ErrNotFound", name, b, err)
		}
	}
}

func (s *suite) revert(register string, to engine.Moment, by engine.Cause) engine.Receipt {
	s.Helper()
	r, err := s.Revert(s.ctx, register, to, by)
	if err != nil {
		s.Fatalf("revert of %s: %v", register, err)
	}
	return r
}

func revert(s *rulesSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)), Put("a", "gone", lattice.Int(1)))
	second := s.write(Put("a", "x", lattice.Int(2)), Remove("a", "gone"), Put("a", "new", lattice.Int(1)))
	r := s.revert("a", engine.Moment{ID: first.States[0].ID}, ann)
	s.want("a", `{"gone":1,"x":1}`)
	if r.Dot.IsZero() || r.Cursor.Ordinal <= second.Cursor.Ordinal || len(r.States) != 1 || r.States[0].Value.String() != `{"gone":1,"x":1}` || r.States[0].ID == first.States[0].ID {
		s.Errorf("receipt: got %+v", r)
	}
	h := all(&s.suite, s.History(s.ctx, engine.HistoryQuery{Register: "a"}))
	if len(h) != 3 || h[0].Cause.Principal != "ann" || h[0].Dot != r.Dot || len(h[0].Changed) != 3 {
		s.Errorf("history: got %+v", h)
	}
	s.revert("a", engine.Moment{Ordinal: second.Cursor.Ordinal}, ann)
	s.want("a", `{"new":1,"x":2}`)
	s.write(Put("one", "", lattice.Int(1)))
	at := s.cursor()
	s.write(Put("one", "", lattice.Int(2)))
	s.revert("one", engine.Moment{Ordinal: at.Ordinal}, ann)
	s.want("one", "1")
	if _, err := s.Revert(s.ctx, "a", engine.Moment{ID: engine.StateID{Rank: 99}}, ann); !errors.Is(err, engine.ErrNotFound) {
		s.Errorf("to what never was: got %v, want ErrNotFound", err)
	}
}

func revertByRules(s *rulesSuite) {
	s.declare(Rules("r", map[string]engine.CollapseRule{
		"max": {Kind: lattice.Max, Of: "number"}, "min": {Kind: lattice.Min, Of: "number"}, "sum": rule(lattice.Sum), "union": rule(lattice.Union),
		"first": rule(lattice.First), "ask": rule(lattice.Ask), "priority": {Kind: lattice.Priority, Ranks: []string{"http/api"}},
	}))
	put := func(n int, tags ...string) engine.Receipt {
		v := lattice.Int(int64(n))
		return s.writeAs(api, Put("r/a", "max", v), Put("r/a", "min", lattice.Int(int64(-n))), Put("r/a", "sum", v), Put("r/a", "union", listOf(tags...)),
			Put("r/a", "ask", v), Put("r/a", "priority", v))
	}
	first := put(1, "a", "b")
	s.write(Put("r/a", "first", lattice.Int(7)))
	put(5, "b", "c")
	s.revert("r/a", engine.Moment{ID: first.States[0].ID}, floor)
	b := s.read("r/a")
	if !b.Value.Equal(first.States[0].Value) || len(b.Siblings) != 0 {
		s.Errorf("got %s, want %s", b.Value, first.States[0].Value)
	}
	// What was put back is the beginning of what comes.
	s.write(Put("r/a", "max", lattice.Int(3)), Add("r/a", "sum", lattice.Int(2)), Add("r/a", "union", listOf("z")), Put("r/a", "first", lattice.Int(8)))
	s.wantField("r/a", "max", lattice.Int(3))
	s.wantField("r/a", "sum", lattice.Int(3))
	s.wantField("r/a", "union", setOf("a", "b", "z"))
	s.wantField("r/a", "first", lattice.Int(8))
}

func revertDeleted(s *rulesSuite) {
	was := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	gone := s.write(Delete("a"))
	s.revert("a", engine.Moment{Ordinal: was.Cursor.Ordinal}, ann)
	s.want("a", `{"x":1,"y":2}`)
	s.revert("a", engine.Moment{Ordinal: gone.Cursor.Ordinal}, ann)
	s.want("a", "")
	s.write(Only("b"))
	empty := s.cursor()
	s.write(Put("b", "x", lattice.Int(1)))
	s.revert("b", engine.Moment{Ordinal: empty.Ordinal}, ann)
	s.want("b", `{}`)
}

func explain(s *rulesSuite) {
	ranks := engine.CollapseRule{Kind: lattice.Priority, Ranks: []string{"http/api"}}
	s.declare(Rules("person", map[string]engine.CollapseRule{"title": ranks}))
	status, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	best := s.writeAs(api, Put("person/1", "title", lattice.String("Dr")), Put("person/1", "room", lattice.Int(7)))
	other := s.writeAs(ann, Put("person/1", "title", lattice.String("Mx")))
	x, err := s.Explain(s.ctx, "person/1")
	if err != nil {
		s.Fatal(err)
	}
	if b := s.read("person/1"); x.State.ID != b.ID || !x.State.Value.Equal(b.Value) || x.State.Register != "person/1" {
		s.Errorf("state: got %+v, want %+v", x.State, b)
	}
	if x.Declaration != "person/{name}" || x.Source != "test.hcl:1" || x.Mode.Waits() || x.DeleteWins || x.Group != "" || x.Hidden || len(x.Pending) != 0 || len(x.Deleted) != 0 || len(x.Existence) == 0 {
		s.Errorf("got %+v", x)
	}
	if len(x.Fields) != 2 || x.Fields[0].Field != "room" || x.Fields[1].Field != "title" {
		s.Fatalf("fields: got %+v", x.Fields)
	}
	room, title := x.Fields[0], x.Fields[1]
	if !room.Rule.Equal(engine.CollapseRule{}) || !room.Value.Equal(lattice.Int(7)) || len(room.Entries) != 1 || room.Why == "" {
		s.Errorf("room: got %+v", room)
	} else if e := room.Entries[0]; !e.Wins || e.Dot != best.Dot || e.Time != best.Time || e.Cause != api || e.By != "http/api" || e.Node != status.Endpoint || !e.Value.Equal(lattice.Int(7)) {
		s.Errorf("room's entry: got %+v", e)
	}
	if !title.Rule.Equal(ranks) || !title.Value.Equal(lattice.String("Dr")) || len(title.Entries) != 2 || title.Why == "" {
		s.Fatalf("title: got %+v", title)
	}
	for _, e := range title.Entries {
		want := map[engine.Dot]engine.LiveEntry{
			best.Dot:  {By: "http/api", Cause: api, Value: lattice.String("Dr"), Wins: true},
			other.Dot: {By: "ann through mqtt/floor", Cause: ann, Value: lattice.String("Mx")},
		}[e.Dot]
		if e.By != want.By || e.Cause != want.Cause || !e.Value.Equal(want.Value) || e.Wins != want.Wins {
			s.Errorf("title's entry: got %+v, want %+v", e, want)
		}
	}

	s.write(Put("loose", "", lattice.Int(1)))
	if x, err = s.Explain(s.ctx, "loose"); err != nil || x.Declaration != "" || len(x.Fields) != 1 || x.Fields[0].Field != "" || !x.Fields[0].Entries[0].Wins {
		s.Errorf("of what nobody declares: got %+v, %v", x, err)
	}
	s.write(Delete("loose"))
	if x, err = s.Explain(s.ctx, "loose"); err != nil || x.State.Exists || len(x.Existence) != 0 {
		s.Errorf("of what was deleted: got %+v, %v", x, err)
	}
	if x, err = s.Explain(s.ctx, "never"); err != nil || x.State.Exists || !x.State.ID.IsZero() || x.State.Register != "never" || len(x.Fields) != 0 {
		s.Errorf("of what was never written: got %+v, %v", x, err)
	}
}

func explainPending(s *rulesSuite) {
	s.declare(manualRules("limit", nil))
	r := s.writeAs(api, Put("limit/a", "x", lattice.Int(1)))
	x, err := s.Explain(s.ctx, "limit/a")
	if err != nil || !x.Mode.Manual || x.State.Exists || x.State.Waiting != 1 || len(x.Pending) != 1 {
		s.Fatalf("got %+v, %v", x, err)
	}
	if p := x.Pending[0]; p.Dot != r.Dot || p.Cause != api || len(p.Would) != 1 || !p.Would[0].After.Equal(lattice.Int(1)) {
		s.Errorf("what waits: got %+v", p)
	}
	s.collapse("limit/a", ann)
	if x, err = s.Explain(s.ctx, "limit/a"); err != nil || len(x.Pending) != 0 || len(x.Fields) != 1 || x.Fields[0].Entries[0].Dot != r.Dot || x.Fields[0].Entries[0].Cause != api {
		s.Errorf("once settled: got %+v, %v", x, err)
	}
}

func backup(s *rulesSuite) {
	r := s.write(Put("a", "x", lattice.Int(1)))
	dir := filepath.Join(s.TempDir(), "backup")
	b, err := s.Backup(s.ctx, dir)
	if err != nil {
		s.Fatal(err)
	}
	if b.Dir != dir || b.Cursor.Log != r.Cursor.Log || b.Cursor.Ordinal < r.Cursor.Ordinal || b.Bytes == 0 || time.Since(b.Time) > patience {
		s.Errorf("got %+v", b)
	}
	if again, err := s.Backup(s.ctx, dir); err == nil {
		s.Errorf("into a directory that is there: got %+v", again)
	}
	s.write(Put("a", "x", lattice.Int(2))) // it goes on
	s.want("a", `{"x":2}`)
}

// calls are the calls of this file, as failing ones are told apart by kind only.
func (s *rulesSuite) calls(ctx context.Context, register string) map[string]error {
	_, collapse := s.Collapse(ctx, register, ann)
	_, at := s.StateAt(ctx, register, engine.Moment{Ordinal: 1})
	_, revert := s.Revert(ctx, register, engine.Moment{Ordinal: 1}, ann)
	_, explain := s.Explain(ctx, register)
	return map[string]error{"collapse": collapse, "stateAt": at, "revert": revert, "explain": explain}
}

func rulesRefused(s *rulesSuite) {
	for _, register := range []string{"", "a//b", "a\nb"} {
		for name, err := range s.calls(s.ctx, register) {
			if !errors.Is(err, engine.ErrInvalid) {
				s.Errorf("%s of %q: got %v, want ErrInvalid", name, register, err)
			}
		}
	}
	r := s.write(Put("a", "x", lattice.Int(1)))
	for _, m := range []engine.Moment{{}, {Ordinal: 1, ID: r.States[0].ID}, {Time: time.Now(), Ordinal: 1}} {
		if b, err := s.StateAt(s.ctx, "a", m); !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("at %+v: got %+v, %v; want ErrInvalid", m, b, err)
		}
		if b, err := s.Revert(s.ctx, "a", m, ann); !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("to %+v: got %+v, %v; want ErrInvalid", m, b, err)
		}
	}
	if r, err := s.Collapse(s.ctx, "never", ann); err != nil || !r.Dot.IsZero() {
		s.Errorf("collapse of what was never written: got %+v, %v", r, err)
	}
	s.want("a", `{"x":1}`)
}

func rulesEnded(s *rulesSuite) {
	s.write(Put("a", "x", lattice.Int(1)))
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	errs := s.calls(ctx, "a")
	errs["pending"] = failure(s.Pending(ctx, engine.PendingQuery{}))
	_, errs["backup"] = s.Backup(ctx, filepath.Join(s.TempDir(), "backup"))
	for name, err := range errs {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s: got %v, want Canceled", name, err)
		}
	}
}

func rulesClosed(s *rulesSuite) {
	s.write(Put("a", "x", lattice.Int(1)))
	if err := s.Close(); err != nil {
		s.Fatal(err)
	}
	errs := s.calls(s.ctx, "a")
	errs["pending"] = failure(s.Pending(s.ctx, engine.PendingQuery{}))
	_, errs["backup"] = s.Backup(s.ctx, filepath.Join(s.TempDir(), "backup"))
	for name, err := range errs {
		if !errors.Is(err, engine.ErrClosed) {
			s.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
}

func restore(register, field string, v engine.Value) engine.Op {
	return engine.Op{Register: register, Kind: engine.OpRestore, Field: field, Value: v}
}

func restoreOp(s *rulesHost) {
	s.declare(Rules("r", map[string]engine.CollapseRule{
		"max": {Kind: lattice.Max, Of: "number"}, "sum": rule(lattice.Sum), "union": rule(lattice.Union), "first": rule(lattice.First),
	}))
	s.write(Put("r/a", "max", number("9")), Put("r/a", "sum", number("9")), Put("r/a", "union", listOf("a", "b")), Put("r/a", "first", number("9")), Put("r/a", "x", number("9")))
	s.write(restore("r/a", "max", number("2")), restore("r/a", "sum", number("2")), restore("r/a", "union", listOf("c")), restore("r/a", "first", number("2")), restore("r/a", "x", number("2")))
	for _, field := range []string{"max", "sum", "first", "x"} {
		s.wantField("r/a", field, number("2"))
	}
	s.wantField("r/a", "union", setOf("c"))
}

func (s *rulesHost) total(v string, last engine.Value, meter bool, want string) {
	s.Helper()
	op := Put("stock/a", "count", number(v))
	op.Last, op.Meter = last, meter
	s.write(op)
	s.wantField("stock/a", "count", number(want))
}

func sumLast(s *rulesHost) {
	s.declare(Rules("stock", map[string]engine.CollapseRule{"count": rule(lattice.Sum)}))
	s.total("30", engine.Value{}, false, "30")
	s.total("15", number("10"), false, "35") // five more at an address that had ten
	s.total("14.5", number("15"), false, "34.5")
	s.total("3", number("100"), false, "-62.5")
	s.total("7", number("0"), false, "-55.5")
	s.total("7", number("7"), false, "-55.5") // nothing new
}

func sumMeter(s *rulesHost) {
	s.declare(Rules("stock", map[string]engine.CollapseRule{"count": rule(lattice.Sum)}))
	s.total("100", number("0"), true, "100")
	s.total("130", number("100"), true, "130")
	s.total("4", number("130"), true, "134")
	s.total("6", number("4"), true, "136")
}

func askSiblings(s *rulesHost) {
	s.declare(Rules("order", map[string]engine.CollapseRule{"state": rule(lattice.Ask)}))
	one := s.put("order/1", "state", lattice.String("open"))
	s.put("order/1", "state", lattice.String("shut"))
	s.wantField("order/1", "state", setOf("open", "shut"))
	if b := s.read("order/1"); !slices.Equal(b.Siblings, []string{"state"}) {
		s.Errorf("siblings: got %q", b.Siblings)
	}
	s.put("order/1", "state", lattice.String("sent"), one.Dot) // it saw one of the two
	s.wantField("order/1", "state", setOf("sent", "shut"))
	s.write(Put("order/1", "state", lattice.String("done")))
	s.wantField("order/1", "state", lattice.String("done"))
	if b := s.read("order/1"); len(b.Siblings) != 0 {
		s.Errorf("siblings: got %q", b.Siblings)
	}
}

func maxSiblings(s *rulesHost) {
	s.declare(Rules("peak", map[string]engine.CollapseRule{"x": {Kind: lattice.Max, Of: "number"}}))
	s.put("peak/a", "x", number("9"))
	low := s.put("peak/a", "x", number("4"))
	s.wantField("peak/a", "x", number("9"))
	if got := dots(s.read("peak/a"), "x"); len(got) != 2 {
		s.Errorf("got %d entries, want 2: neither saw the other", len(got))
	}
	s.put("peak/a", "x", number("6"), low.Dot)
	s.wantField("peak/a", "x", number("9"))
	if got := dots(s.read("peak/a"), "x"); len(got) != 2 || slices.Contains(got, low.Dot) {
		s.Errorf("got %v, without %v", got, low.Dot)
	}
}

func deleteWinsOverUnseen(s *rulesHost) {
	d := Rules("r", nil)
	d.DeleteWins = true
	s.declare(d)
	for register, want := range map[string]bool{"r/a": false, "free": true} {
		first := s.write(Put(register, "x", lattice.Int(1)))
		s.write(Delete(register))
		op := Put(register, "x", lattice.Int(2))
		op.Base, op.Seen = true, []engine.Dot{first.Dot} // and not the delete
		s.write(op)
		if got := s.read(register).Exists; got != want {
			s.Errorf("%s: exists is %v, want %v", register, got, want)
		}
	}
}
