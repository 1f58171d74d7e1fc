package enginetest

import (
	"context"
	"slices"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

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

type rulesHost struct {
	hostSuite
	engine.Declarer
}

func (s *rulesHost) declare(d ...engine.Declaration) { s.Helper(); declare(&s.suite, s, d...) }

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
