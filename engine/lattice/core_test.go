package lattice

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func one(register string) []Op {
	return []Op{{Register: register, Kind: Put, Field: "x", Value: Int(1)}, {Register: register, Kind: Put, Field: Existence}}
}

// Whoever applies a candidate has all that its writer had: what deps name is enough, however it came there.
func TestDepsAreSufficient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := newNodes(4)
		saw := map[Dot]Context{}
		var all []*sent
		hear := func(n *node, s *sent) {
			before := n.core.Context()
			v, missing := n.receive(t, s)
			covered := !slices.ContainsFunc(s.q.Deps, func(d Dot) bool { return !before.Covers(d) })
			prev := Dot{s.q.Dot.Origin, s.q.Dot.Seq - 1}
			if covered = covered && (prev.IsZero() || before.Covers(prev)); before.Covers(s.q.Dot) {
				if v != Known {
					t.Fatalf("got verdict %d, want Known", v)
				}
			} else if covered != (v == Applied) || covered == (v == Early) {
				t.Fatalf("got verdict %d, and all it depends on is here: %v", v, covered)
			}
			for _, d := range missing {
				if before.Covers(d) || d != prev && !slices.Contains(s.q.Deps, d) {
					t.Fatalf("%s is not missing", d)
				}
			}
			if v == Early && len(missing) == 0 {
				t.Fatal("nothing is missing")
			}
			if writer := saw[s.q.Dot]; v == Applied {
				for _, d := range slices.Concat(writer.Vector, writer.Retired) {
					if !before.Covers(d) {
						t.Fatalf("%s was applied without %s, which its writer had seen", s.q.Dot, d)
					}
				}
			}
		}
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			n := pick(t, nodes, "who")
			switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
			case k < 4:
				before := n.core.Context()
				s := n.write(t, one("a"), nil, Cause{}, noon)
				saw[s.q.Dot], all = before, append(all, s)
			case k < 8:
				if len(all) > 0 {
					hear(n, pick(t, all, "what"))
				}
			case k < 9:
				n.join(pick(t, nodes, "whom"), nil)
			default:
				n.restart()
			}
		}
	})
}

func alarmsOf(n *node, kind AlarmKind) (out []Alarm) {
	for _, a := range n.alarms {
		if a.Kind == kind {
			out = append(out, a)
		}
	}
	return out
}

func TestReceiveRefusesForks(t *testing.T) {
	writer := newNode(0)
	first := writer.write(t, one("a"), nil, Cause{}, noon)
	twin := writer.copied()
	second := writer.write(t, one("a"), nil, Cause{}, noon)
	third := writer.write(t, one("a"), nil, Cause{}, noon)
	otherSecond := twin.write(t, one("b"), nil, Cause{}, noon)
	otherThird := twin.write(t, one("b"), nil, Cause{}, noon)

	n := newNode(1)
	steps := []struct {
		what    string
		s       *sent
		want    Verdict
		missing []Dot
		alarms  int
	}{
		{"a gap", third, Early, []Dot{second.q.Dot}, 0},
		{"the first", first, Applied, nil, 0},
		{"the first again", first, Known, nil, 0},
		{"the second", second, Applied, nil, 0},
		{"the same dot with other content", otherSecond, Refused, nil, 1},
		{"what continues another chain", otherThird, Refused, nil, 2},
		{"the third", third, Applied, nil, 2},
	}
	for _, step := range steps {
		before := n.core.Vector()
		got, missing := n.receive(t, step.s)
		if got != step.want || !slices.Equal(missing, step.missing) || len(alarmsOf(n, ForkAlarm)) != step.alarms {
			t.Errorf("%s: got verdict %d, missing %v, alarms %+v", step.what, got, missing, n.alarms)
		}
		if step.want != Applied && !n.core.Vector().Equal(before) {
			t.Errorf("%s: the vector moved", step.what)
		}
	}
	// Both sides of a fork say the same.
	m := newNode(2)
	m.hear(t, first)
	m.hear(t, otherSecond)
	m.receive(t, second)
	if a, b := alarmsOf(n, ForkAlarm)[0], alarmsOf(m, ForkAlarm)[0]; a != b {
		t.Errorf("got %q and %q, want the same", a.Text, b.Text)
	}
	// One's own name.
	if got, _ := twin.receive(t, third); got != Refused && got != Known {
		t.Errorf("its own name: got verdict %d", got)
	}
	fresh := writer.copied()
	fresh.core.seq, fresh.core.head = 1, n.hashes[first.q.Dot]
	if got, _ := fresh.receive(t, third); got != Refused {
		t.Errorf("its own name, further on: got verdict %d", got)
	}
}

func TestCloneAlarmsAreTheSameEverywhere(t *testing.T) {
	n := newNode(0)
	for _, begun := range []bool{false, true} {
		if begun {
			n.write(t, one("a"), nil, Cause{}, noon)
		}
		a, b := n.copied(), n.copied()
		a.restart()
		b.restart()
		b.origin.Incarnation[1] = 9
		k := b.core
		b.core = NewCore(Knowledge{Self: b.origin, Before: k.before, Heads: k.heads, Owners: k.owners})
		first, second := a.write(t, one("a"), nil, Cause{}, noon), b.write(t, one("a"), nil, Cause{}, noon)
		x, y := newNode(5), newNode(6)
		x.join(n, nil)
		y.join(n, nil)
		for _, s := range []*sent{first, second} {
			x.hear(t, s)
		}
		for _, s := range []*sent{second, first} {
			y.hear(t, s)
		}
		a.hear(t, second)
		b.hear(t, first)
		for _, m := range []*node{a, b, x, y} {
			got := alarmsOf(m, CloneAlarm)
			if len(got) != 1 || got[0] != alarmsOf(a, CloneAlarm)[0] || !strings.Contains(got[0].Text, "runs twice") {
				t.Errorf("got %+v, want one, the same everywhere", m.alarms)
			}
		}
	}
}

// Of many clones the same pair is named at each step, whatever the order of a map.
func TestCloneAlarmsAreDeterministic(t *testing.T) {
	var texts []string
	for range 20 {
		x := newNode(9)
		for i := range byte(6) {
			c := newNode(0)
			c.origin.Incarnation[1] = i
			c.core = NewCore(Knowledge{Self: c.origin})
			x.hear(t, c.write(t, one("a"), nil, Cause{}, noon))
		}
		text := ""
		for _, a := range x.alarms {
			text += a.Text + "\n"
		}
		if texts = append(texts, text); text != texts[0] {
			t.Fatalf("got\n%swant\n%s", text, texts[0])
		}
	}
}

func TestTailAlarm(t *testing.T) {
	n := newNode(0)
	first := n.write(t, one("a"), nil, Cause{}, noon)
	restored := n.copied()
	second := n.write(t, one("a"), nil, Cause{}, noon)
	restored.restart()
	restored.hear(t, second)
	if got := alarmsOf(restored, TailAlarm); len(got) != 1 || got[0].Dot != second.q.Dot {
		t.Errorf("got %+v, want one of %s", restored.alarms, second.q.Dot)
	}
	if !restored.core.Covers(first.q.Dot) || !restored.core.Covers(second.q.Dot) {
		t.Error("it lost its past")
	}
}

func TestClockAlarm(t *testing.T) {
	a, b := newNode(0), newNode(1)
	wild := a.write(t, one("a"), nil, Cause{}, noon.AddDate(5, 0, 0))
	b.hear(t, wild)
	if got := alarmsOf(b, ClockAlarm); len(got) != 1 || !b.core.Covers(wild.q.Dot) || b.core.Clock() >= wild.q.Time {
		t.Errorf("got %+v and clock %d, want one alarm, the candidate applied and the clock not moved", b.alarms, b.core.Clock())
	}
}

func TestRetire(t *testing.T) {
	nodes := newNodes(3)
	a, b, c := nodes[0], nodes[1], nodes[2]
	old := a.write(t, one("a"), nil, Cause{}, noon)
	stray := a.copied().write(t, one("a"), nil, Cause{}, noon)
	for _, n := range []*node{b, c} {
		n.hear(t, old)
	}
	a.restart()
	retire := func(n *node, d Dot) *sent {
		return n.write(t, []Op{{Register: OriginPrefix + d.Origin.String(), Kind: Put, Value: Int(int64(d.Seq))}}, nil, Cause{}, noon)
	}
	// One that has not exactly that stays.
	wrong := retire(a, Dot{old.q.Dot.Origin, 2})
	if a.core.Retired(old.q.Dot.Origin) {
		t.Fatal("an origin retired at a candidate that nobody has")
	}
	said := retire(a, old.q.Dot)
	for _, n := range []*node{b, c} {
		n.hear(t, wrong)
		n.hear(t, said)
	}
	for i, n := range nodes {
		if !n.core.Retired(old.q.Dot.Origin) || n.core.Vector().Seq(old.q.Dot.Origin) != 0 || !n.core.Covers(old.q.Dot) || n.core.Mine(old.q.Dot.Origin) != (i == 0) {
			t.Errorf("node %d: %v, %+v", i, n.core.Vector(), n.core.Context().Retired)
		}
		if got, _ := n.receive(t, old); got != Known {
			t.Errorf("node %d: its candidate again: got verdict %d, want Known", i, got)
		}
	}
	// Who comes later learns it with the state, and nothing that was removed comes back.
	b.write(t, []Op{{Register: "a", Kind: Remove, Field: "x", Seen: []Dot{old.q.Dot}}}, nil, Cause{}, noon)
	late := newNode(9)
	late.join(c, nil)
	late.join(b, nil)
	c.join(late, nil)
	for _, n := range []*node{late, c} {
		if !n.core.Retired(old.q.Dot.Origin) || len(n.regs["a"].Entries("x")) != 0 {
			t.Errorf("got %v and\n%s", n.core.Context(), dump(n.regs["a"]))
		}
	} // That it had ended may have been the word of a clone. It goes on, and the two are named.
	for i, n := range []*node{b, c} {
		if got, _ := n.receive(t, stray); got != Applied || len(alarmsOf(n, CloneAlarm)) != 1 || n.core.Retired(old.q.Dot.Origin) {
			t.Errorf("node %d: what goes on behind its end: got verdict %d, %+v", i, got, n.alarms)
		}
	}

}

// A marker names what waits, also of origins that have left all vectors.
func TestCoverNamesRetiredOrigins(t *testing.T) {
	a, b := newNode(0), newNode(1)
	old := a.write(t, one("a"), []string{"a"}, Cause{}, noon)
	b.hear(t, old)
	a.restart()
	b.hear(t, a.write(t, []Op{{Register: OriginPrefix + old.q.Dot.Origin.String(), Kind: Put, Value: Int(1)}}, nil, Cause{}, noon))
	if !b.core.Retired(old.q.Dot.Origin) {
		t.Fatal("the origin did not retire")
	}
	cover := b.regs["a"].Cover()
	if !slices.Equal(cover, QStateVector{old.q.Dot}) {
		t.Errorf("got %v, want what waits", cover)
	}
	marker := b.write(t, []Op{{Register: "a", Kind: Collapse, Field: Marker, Seen: cover}}, nil, Cause{}, noon)
	a.hear(t, marker)
	for i, n := range []*node{a, b} {
		if g := n.regs["a"]; g.Pending() != 0 || len(g.Entries("x")) != 1 {
			t.Errorf("node %d: got\n%swant it folded", i, dump(g))
		}
	}
}

// Between the registers of a join others have a turn. What they bring must not undo what came with the state.
func TestJoinWithOthersInBetween(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{nodes: newNodes(3)}
		n, m := w.nodes[0], w.nodes[1]
		random := func(steps int) {
			for range rapid.IntRange(0, steps).Draw(t, "steps") {
				switch x := pick(t, w.nodes, "who"); {
				case rapid.Bool().Draw(t, "writes"):
					w.write(t, x)
				case len(w.sent) > 0:
					x.hear(t, pick(t, w.sent, "what"))
				}
			}
		}
		random(15)
		s := m.core.Snapshot()
		theirs := m.copied().regs
		n.core.BeginJoin(s.Context.Vector.Join(s.Context.Retired))
		for _, name := range registerNames {
			random(3)
			own := n.core.Context()
			n.regs[name] = n.regs[name].Join(theirs[name], &own, &s.Context)
		}
		random(3)
		n.core.EndJoin(s)
		if !n.core.Vector().CoversAll(s.Context.Vector) {
			t.Fatal("the vector did not move")
		}
		w.check(t, n)
		for _, x := range w.nodes {
			w.deliver(t, x)
			w.check(t, x)
		}
	})
}

func TestSnapshot(t *testing.T) {
	nodes := newNodes(3)
	a, b := nodes[0], nodes[1]
	first := a.write(t, one("a"), nil, Cause{}, noon)
	b.write(t, one("b"), nil, Cause{}, noon)
	b.join(a, nil)
	if got, want := b.core.Head(a.core.ID()), a.core.Head(a.core.ID()); got != want {
		t.Errorf("got head %v, want %v", got, want)
	}
	if got, ok := b.core.Owner(a.core.ID()); !ok || got.Origin != a.origin {
		t.Errorf("got owner %v, want %v", got, a.origin)
	}
	// The chain goes on where the state ended.
	twin := newNode(0)
	twin.write(t, one("b"), nil, Cause{}, noon)
	if got, _ := b.receive(t, twin.write(t, one("b"), nil, Cause{}, noon)); got != Refused {
		t.Errorf("what continues another chain: got verdict %d, want Refused", got)
	}
	if got, _ := b.receive(t, first); got != Known {
		t.Errorf("what came with the state: got verdict %d, want Known", got)
	}
	next := a.write(t, one("a"), nil, Cause{}, noon)
	if got, _ := b.receive(t, next); got != Applied {
		t.Errorf("the next: got verdict %d, want Applied", got)
	}
	// What was written before the join's end depends on what it brings.
	c := nodes[2]
	c.core.BeginJoin(b.core.Snapshot().Context.Vector)
	if got, want := c.write(t, one("a"), nil, Cause{}, noon).q.Deps, b.core.Vector(); !slices.Equal(got, want) {
		t.Errorf("got deps %v, want %v", got, want)
	}
}

type broken struct{}

var errBroken = errors.New("broken")

func (broken) Register(string) (*Register, error) { return nil, errBroken }

// A step that is not accepted has not happened.
func TestStepsAreTakenOrNot(t *testing.T) {
	a, b := newNode(0), newNode(1)
	s := b.write(t, one("a"), nil, Cause{}, noon)
	before := *a.core
	var eff Effects
	if err := a.core.Write(broken{}, one("a"), nil, Cause{}, "", noon, &eff); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the error of the registers", err)
	}
	unknown := func(Dot) (Hash, bool) { return Hash{}, false }
	if _, _, err := a.core.Receive(broken{}, s.q, s.raw, noon, unknown, &eff); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the error of the registers", err)
	}
	for range 2 {
		if v, _, err := a.core.Receive(a, s.q, s.raw, noon.Add(time.Hour), unknown, &eff); v != Applied || err != nil {
			t.Errorf("got verdict %d, %v", v, err)
		}
	}
	if a.core.seq != before.seq || a.core.clock != before.clock || len(a.core.heads)+len(a.core.owners)+len(a.core.news) != 0 {
		t.Error("the core has changed")
	}
}
