package enginetest

import (
	"context"
	"errors"
	"path/filepath"
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

type rulesSuite struct {
	suite
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

// calls are those that RunRules is about, as failing ones are told apart by kind only.
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
