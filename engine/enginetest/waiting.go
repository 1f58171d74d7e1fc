package enginetest

import (
	"fmt"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func (s *suite) collapse(register string, by engine.Cause) engine.Receipt {
	s.Helper()
	r, err := s.Collapse(s.ctx, register, by)
	if err != nil {
		s.Fatalf("collapse of %s: %v", register, err)
	}
	return r
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
