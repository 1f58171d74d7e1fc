package lattice

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var registerNames = []string{"a", "b"}

// A world is some nodes and all that they have written so far.
type world struct {
	nodes []*node
	sent  []*sent
	novel bool // some of the nodes run a newer program, and write operations that the others don't know
}

// fieldNames are those that random candidates write, in order.
var fieldNames = []string{"", "x", ItemField("x", Int(1)), "y", Marker, Deletion, Existence}

var walls = []time.Time{noon, noon.Add(time.Millisecond), noon.Add(-5 * time.Minute), noon.Add(5 * time.Minute)}

// write makes a candidate of random operations with what the node has seen, or some of it.
func (w *world) write(t *rapid.T, n *node) {
	var ops []Op
	var held []string
	for _, name := range registerNames {
		if n.regs[name].Opaque() {
			continue // nobody writes what he can't read
		}
		waits := rapid.IntRange(0, 2).Draw(t, "held") == 0
		begin := len(ops)
		for _, field := range fieldNames {
			op := Op{Register: name, Field: field}
			if field == Marker {
				if waits || rapid.IntRange(0, 3).Draw(t, "collapse") > 0 {
					continue
				}
				op.Kind, op.Seen = Collapse, someOf(t, n.core.Vector())
			} else {
				for _, e := range n.regs[name].Entries(field) {
					if rapid.IntRange(0, 3).Draw(t, "sees") > 0 {
						op.Seen = append(op.Seen, e.Dot)
					}
				}
				switch rapid.IntRange(0, 4).Draw(t, "does") {
				case 0, 1:
					op.Kind = Put
					if field == "x" || field == "y" || field == "" {
						op.Value = Int(int64(n.core.Seq()))
					} else if _, item := BaseField(field); item {
						op.Value = Int(1)
					}
				case 2:
					if op.Kind = Remove; len(op.Seen) == 0 {
						continue
					}
				default:
					continue
				}
			}
			if w.novel && n.knows && rapid.IntRange(0, 3).Draw(t, "novel") == 0 {
				op.Kind += novel
			}
			ops = append(ops, op)
		}
		if waits && len(ops) > begin {
			held = append(held, name)
		}
	}
	if len(ops) == 0 {
		return
	}
	cause := Cause{Protocol: "sql", Wrapper: rapid.SampledFrom([]string{"", "hr"}).Draw(t, "wrapper")}
	w.sent = append(w.sent, n.write(t, ops, held, cause, rapid.SampledFrom(walls).Draw(t, "wall")))
}

// someOf is what a marker covers of what its writer has: some of it.
func someOf(t *rapid.T, v QStateVector) (out QStateVector) {
	for _, d := range v {
		if seq := rapid.Uint64Range(0, d.Seq).Draw(t, "cover"); seq > 0 {
			out = append(out, Dot{d.Origin, seq})
		}
	}
	return out
}

// as gives another node's register as a node's program reads it: what of the operations that wait it doesn't know.
func (w *world) as(n *node) func(string, *Register) *Register {
	return func(name string, g *Register) *Register {
		if g == nil {
			return nil
		}
		out := &Register{Fields: g.Fields, Waiting: slices.Clone(g.Waiting)}
		for i := range out.Waiting {
			s := w.sent[slices.IndexFunc(w.sent, func(s *sent) bool { return s.q.Dot == out.Waiting[i].Dot })]
			q := s.q
			if n.knows {
				q = known(q)
			}
			out.Waiting[i].Ops = nil
			for _, op := range q.Ops {
				if op.Register == name {
					op.Register = ""
					out.Waiting[i].Ops = append(out.Waiting[i].Ops, op)
				}
			}
		}
		return out
	}
}

func (w *world) join(n, m *node) {
	n.join(m, w.as(n))
	if n.knows {
		n.settle()
	}
}

// settle is what a start with a newer program does.
func (n *node) settle() {
	n.knows = true
	for name, g := range n.regs {
		out := &Register{Fields: g.Fields, Waiting: slices.Clone(g.Waiting)}
		for i := range out.Waiting {
			out.Waiting[i].Ops = knownOps(out.Waiting[i].Ops)
		}
		n.regs[name] = out.Settle()
	}
}

// oracle folds the candidates that a node has, without any order: what is not held, or covered by a marker, counts, and
// of that an entry lives unless some operation has seen it.
func (w *world) oracle(n *node, name string) *Register {
	type part struct {
		a     Arrival
		folds bool
	}
	var parts []part
	var covers []QStateVector
	for _, s := range w.sent {
		if !n.core.Covers(s.q.Dot) {
			continue
		}
		for register, a := range known(s.q).Each {
			if register != name {
				continue
			}
			parts = append(parts, part{a, !a.Held})
			for _, op := range a.Ops {
				if op.Kind == Collapse {
					covers = append(covers, op.Seen)
				}
			}
		}
	}
	out := &Register{}
	entries := map[string][]Entry{}
	seen := map[string][]Dot{}
	for i := range parts {
		p := &parts[i]
		p.folds = p.folds || slices.ContainsFunc(covers, func(v QStateVector) bool { return v.Covers(p.a.Dot) })
		if !p.folds {
			ops := slices.Clone(p.a.Ops)
			for j := range ops {
				ops[j].Register = ""
			}
			out.Waiting = append(out.Waiting, Waiting{p.a.Dot, p.a.Time, p.a.By, false, true, ops})
			continue
		}
		for _, op := range p.a.Ops {
			if op.Kind != Collapse {
				seen[op.Field] = append(seen[op.Field], op.Seen...)
			}
			if op.Kind == Put {
				entries[op.Field] = append(entries[op.Field], Entry{p.a.Dot, p.a.Time, p.a.By, op.Value})
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(entries)) {
		live := slices.DeleteFunc(entries[field], func(e Entry) bool { return slices.Contains(seen[field], e.Dot) })
		if len(live) > 0 {
			slices.SortFunc(live, func(a, b Entry) int { return a.Dot.Compare(b.Dot) })
			out.Fields = append(out.Fields, Field{field, live})
		}
	}
	slices.SortFunc(out.Waiting, func(a, b Waiting) int { return a.Dot.Compare(b.Dot) })
	return out
}

func (w *world) check(t failer, n *node) {
	t.Helper()
	for _, name := range registerNames {
		if got, want := dump(n.regs[name]), dump(w.oracle(n, name)); got != want {
			t.Fatalf("register %s: got\n%swant\n%s", name, got, want)
		}
	}
}

func dump(g *Register) string {
	var b strings.Builder
	if g == nil {
		return ""
	}
	short := func(d Dot) string { return fmt.Sprintf("%x.%d", d.Origin[:2], d.Seq) }
	for _, f := range g.Fields {
		for _, e := range f.Entries {
			fmt.Fprintf(&b, "%q %s at %d by %q: %s\n", f.Name, short(e.Dot), e.Time, e.By, e.Value)
		}
	}
	for _, w := range g.Waiting {
		fmt.Fprintf(&b, "waits: %s at %d by %q, held %v, opaque %v:", short(w.Dot), w.Time, w.By, w.Held, w.Opaque)
		for _, op := range w.Ops {
			fmt.Fprintf(&b, " %d %q=%s", op.Kind, op.Field, op.Value)
			for _, d := range op.Seen {
				fmt.Fprintf(&b, " -%s", short(d))
			}
		}
		b.WriteString("\n")
	}
	return b.String()
}

// history lets some nodes write and hear of each other for a while, by candidates and by states.
func history(t *rapid.T, novel bool) *world {
	w := &world{nodes: newNodes(rapid.IntRange(2, 4).Draw(t, "nodes")), novel: novel}
	if novel {
		w.nodes[0].knows = true
		if len(w.nodes) > 2 {
			w.nodes[1].knows = true
		}
	}
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		n := pick(t, w.nodes, "who")
		switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
		case k < 5:
			w.write(t, n)
		case k < 8:
			if len(w.sent) > 0 {
				n.hear(t, pick(t, w.sent, "what"))
			}
		default:
			w.join(n, pick(t, w.nodes, "whom"))
		}
		if n.knows || !novel {
			w.check(t, n)
		}
	}
	return w
}

// deliver lets a node hear all there is, each twice, in any order.
func (w *world) deliver(t *rapid.T, n *node) {
	order := rapid.Permutation(w.sent).Draw(t, "order")
	for _, s := range append(order, order...) {
		n.hear(t, s)
	}
	if len(n.early) > 0 {
		t.Fatalf("%d candidates still wait for others", len(n.early))
	}
}

func TestNodesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := history(t, false)
		for _, n := range w.nodes {
			w.deliver(t, n)
			w.check(t, n)
		}
		// One that was away all the time needs the candidates, or the state alone.
		byOps, byState := newNode(100), newNode(101)
		w.deliver(t, byOps)
		byState.join(w.nodes[0], nil)
		for _, name := range registerNames {
			if a, b := byOps.regs[name].AppendCBOR(nil), byState.regs[name].AppendCBOR(nil); !bytes.Equal(a, b) {
				t.Fatalf("by candidates\n%sby state\n%s", dump(byOps.regs[name]), dump(byState.regs[name]))
			}
			if a, b := byOps.regs[name].Digest(), byState.regs[name].Digest(); a != b {
				t.Fatalf("digests %x and %x", a, b)
			}
		}
		w.check(t, byState)
	})
}

// whole is a node's state, as joins take it.
type whole struct {
	regs map[string]*Register
	ctx  Context
}

func (n *node) whole() whole { return whole{n.regs, n.core.Context()} }

func (x whole) join(y whole) whole {
	out := whole{map[string]*Register{}, x.ctx.Join(y.ctx)}
	for _, name := range registerNames {
		out.regs[name] = x.regs[name].Join(y.regs[name], &x.ctx, &y.ctx)
	}
	return out
}

func TestJoinLaws(t *testing.T) {
	for _, novel := range []bool{false, true} {
		t.Run(fmt.Sprintf("novel=%v", novel), rapid.MakeCheck(func(t *rapid.T) {
			w := history(t, novel)
			// All as one program of today has them.
			choose := func(label string) whole {
				n := pick(t, w.nodes, label).copied()
				n.knows = false
				for name, g := range n.regs {
					n.regs[name] = w.as(n)(name, g)
				}
				return n.whole()
			}
			a, b, c := choose("a"), choose("b"), choose("c")
			same := func(law string, x, y whole) {
				t.Helper()
				for _, name := range registerNames {
					if !bytes.Equal(x.regs[name].AppendCBOR(nil), y.regs[name].AppendCBOR(nil)) {
						t.Fatalf("%s: got\n%swant\n%s", law, dump(x.regs[name]), dump(y.regs[name]))
					}
				}
				if !x.ctx.Vector.Equal(y.ctx.Vector) || !x.ctx.Retired.Equal(y.ctx.Retired) {
					t.Fatalf("%s: contexts %v and %v", law, x.ctx, y.ctx)
				}
			}
			ab := a.join(b)
			same("commutative", ab, b.join(a))
			same("associative", ab.join(c), a.join(b.join(c)))
			same("inflationary", a.join(ab), ab)
			same("inflationary", ab.join(b), ab)
			if !novel { // there Join notes what its program doesn't know
				same("idempotent", a.join(a), a)
			}
			same("idempotent", ab.join(ab), ab)
		}))
	}
}

// What a program doesn't know is kept and passed on, and once it knows it, it has what one has that knew it all along.
func TestNovelOperationsWait(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := history(t, true)
		for _, n := range w.nodes {
			if rapid.Bool().Draw(t, "all") {
				w.deliver(t, n)
			}
			for _, name := range registerNames {
				g := n.regs[name]
				data := g.AppendCBOR(nil)
				again, err := ParseRegister(data)
				if err != nil || !bytes.Equal(again.AppendCBOR(nil), data) || again.Opaque() != g.Opaque() {
					t.Fatalf("%v: got\n%swant\n%s", err, dump(again), dump(g))
				}
				for _, w := range g.waiting() {
					if unknown(w.Ops) && !w.Opaque && !n.knows {
						t.Fatalf("operations that nobody here knows are not marked:\n%s", dump(g))
					}
				}
			}
			n.settle()
			w.check(t, n)
		}
	})
}

func (g *Register) waiting() []Waiting {
	if g == nil {
		return nil
	}
	return g.Waiting
}

func TestNovelOperationIsOpaque(t *testing.T) {
	n := newNodes(1)[0]
	put := func(kind OpKind, field string, seen ...Dot) *Register {
		n.write(t, []Op{{Register: "a", Kind: kind, Field: field, Value: Int(1), Seen: seen}, {Register: "a", Kind: Put, Field: Existence}}, nil, Cause{}, noon)
		return n.regs["a"]
	}
	g := put(Put, "x")
	if g.Opaque() {
		t.Error("opaque from the beginning")
	}
	put(Put+novel, "x", Dot{n.core.ID(), 1})
	g = put(Put, "y")
	if !g.Opaque() || len(g.Waiting) != 2 || g.Pending() != 0 {
		t.Errorf("got\n%swant two that wait, and opaque", dump(g))
	}
	if got, want := g.View(nil, &Eye{}).Value.String(), `{"x":1}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := g.Settle(); dump(got) != dump(g) {
		t.Errorf("it settled:\n%s", dump(got))
	}
}

func TestDigestTellsStatesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := history(t, false)
		live := func(g *Register) string {
			var b []byte
			if g != nil {
				for _, f := range g.Fields {
					for _, e := range f.Entries {
						b = fmt.Appendf(b, "%q %s;", f.Name, e.Dot)
					}
				}
			}
			return string(b)
		}
		for _, n := range w.nodes {
			for _, m := range w.nodes {
				a, b := n.regs["a"], m.regs["a"]
				if (live(a) == live(b)) != (a.Digest() == b.Digest()) {
					t.Fatalf("digests %x and %x of %s and %s", a.Digest(), b.Digest(), live(a), live(b))
				}
			}
		}
	})
}

func TestEncodingIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := history(t, rapid.Bool().Draw(t, "novel"))
		for _, s := range w.sent {
			got, err := ParseCandidate(s.raw)
			if err != nil {
				t.Fatal(err)
			}
			if again := got.AppendCBOR(nil); !bytes.Equal(again, s.raw) || got.Dot != s.q.Dot || len(got.Ops) != len(s.q.Ops) || !slices.Equal(got.Held, s.q.Held) {
				t.Fatalf("%x became %x", s.raw, again)
			}
		}
		for _, n := range w.nodes {
			for _, name := range registerNames {
				data := n.regs[name].AppendCBOR(nil)
				got, err := ParseRegister(data)
				if err != nil {
					t.Fatal(err)
				}
				if again := got.AppendCBOR(nil); !bytes.Equal(again, data) || dump(got) != dump(n.regs[name]) {
					t.Fatalf("%x became %x", data, again)
				}
			}
		}
	})
}

// A join that ignores contexts would bring back what was removed. The laws above must be able to see that.
func TestMutantJoinWithoutContextIsCaught(t *testing.T) {
	nodes := newNodes(2)
	put := nodes[0].write(t, []Op{{Register: "a", Kind: Put, Field: "x", Value: Int(1)}}, nil, Cause{}, noon)
	nodes[1].hear(t, put)
	nodes[0].write(t, []Op{{Register: "a", Kind: Remove, Field: "x", Seen: []Dot{put.q.Dot}}}, nil, Cause{}, noon)
	with, without := nodes[0].core.Context(), Context{}
	other := nodes[1].core.Context()
	a, b := nodes[0].regs["a"], nodes[1].regs["a"]
	if got := a.Join(b, &without, &other).Entries("x"); len(got) != 1 {
		t.Errorf("without its context: got %v, want the removed entry", got)
	}
	if got := a.Join(b, &with, &other).Entries("x"); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

// A marker covers what its writer had, not what its receiver holds.
func TestMarkerNamesWhatItCovers(t *testing.T) {
	nodes := newNodes(3)
	put := func(n *node) *sent {
		return n.write(t, []Op{{Register: "a", Kind: Put, Field: "x", Value: Int(1)}}, []string{"a"}, Cause{}, noon)
	}
	first, second := put(nodes[0]), put(nodes[1])
	marker := nodes[0].write(t, []Op{{Register: "a", Kind: Collapse, Field: Marker, Seen: nodes[0].core.Vector()}}, nil, Cause{}, noon)
	for _, s := range []*sent{first, second, marker} {
		nodes[2].hear(t, s)
	}
	g := nodes[2].regs["a"]
	if got := g.Entries("x"); len(got) != 1 || got[0].Dot != first.q.Dot || g.Pending() != 1 {
		t.Errorf("got\n%swant the first as an entry and the second waiting", dump(g))
	}
}
func TestClock(t *testing.T) {
	wall := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	var c Clock
	first := c.Tick(wall)
	if !first.Time().Equal(wall) || first.Counter() != 0 {
		t.Errorf("got %v %d", first.Time(), first.Counter())
	}
	if next := c.Tick(wall); next != first+1 {
		t.Errorf("same millisecond: got %d, want %d", next, first+1)
	}
	if back := c.Tick(wall.AddDate(-10, 0, 0)); back != first+2 {
		t.Errorf("wall clock went back: got %d, want %d", back, first+2)
	}
	if restarted := NewClock(first + 2); true {
		if got := restarted.Tick(wall.AddDate(-10, 0, 0)); got != first+3 {
			t.Errorf("after a restart: got %d, want %d", got, first+3)
		}
	}
	near, wild := StampOf(wall.Add(59*time.Second)), StampOf(wall.Add(61*time.Second))
	if c.Follow(wild, wall) || c.Tick(wall) >= wild {
		t.Error("it followed a wild clock")
	}
	if !c.Follow(near, wall) || c.Tick(wall) != near+1 {
		t.Error("it did not follow a clock that is near")
	}
	if got := StampOf(time.Time{}); got != 0 {
		t.Errorf("before 1970: got %d", got)
	}
}

func TestIDsAsText(t *testing.T) {
	d := Dot{Origin{Endpoint: EndpointID{1}}.ID(), 42}
	if got, err := ParseDot(d.String()); err != nil || got != d {
		t.Errorf("dot: got %v, %v", got, err)
	}
	s := StateID{Rank: 7, Digest: [16]byte{0xab}}
	if got, want := s.String(), "7.ab000000000000000000000000000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := ParseStateID(s.String()); err != nil || got != s {
		t.Errorf("state id: got %v, %v", got, err)
	}
	if got := (EndpointID{0xde, 0xad}).String(); got != "dead000000000000" {
		t.Errorf("endpoint: got %s", got)
	}
	for _, text := range []string{".", "7", "7.", "7.ab", "07." + s.String()[2:], "+7." + s.String()[2:], s.String() + "0", "x" + s.String(), "7.zz000000000000000000000000000000"} {
		if _, err := ParseStateID(text); err == nil {
			t.Errorf("state id %q: no error", text)
		}
	}
	for _, text := range []string{".", "x", d.String() + "x", d.Origin.String() + ".0", d.Origin.String() + ".01", "00." + d.String()} {
		if _, err := ParseDot(text); err == nil {
			t.Errorf("dot %q: no error", text)
		}
	}
}

func TestVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Dot {
			return Dot{OriginID{byte(rapid.IntRange(0, 4).Draw(t, "origin"))}, rapid.Uint64Range(1, 9).Draw(t, "seq")}
		}))
		build := func(dots []Dot) (v QStateVector) {
			for _, d := range dots {
				v = v.With(d)
			}
			return v
		}
		a, b := gen.Draw(t, "a"), gen.Draw(t, "b")
		va, vb := build(a), build(b)
		both := build(append(slices.Clone(a), b...))
		if got := va.Join(vb); !got.Equal(both) {
			t.Fatalf("join of %v and %v: got %v, want %v", va, vb, got, both)
		}
		for _, d := range append(a, b...) {
			if !both.Covers(d) {
				t.Fatalf("%v does not cover %v", both, d)
			}
		}
		if both.Covers(Dot{OriginID{9}, 1}) {
			t.Fatal("it covers what it never heard of")
		}
	})
}

// A state comes from a program that knows more: what it holds back for a marker is unknown here all the same.
func TestJoinMarksWhatIsUnknownHere(t *testing.T) {
	nodes := newNodes(2)
	newer, older := nodes[0], nodes[1]
	newer.knows = true
	newer.write(t, []Op{{Register: "a", Kind: Put + novel, Field: "x", Value: Int(1)}}, []string{"a"}, Cause{}, noon)
	older.join(newer, func(_ string, g *Register) *Register {
		out := &Register{Waiting: slices.Clone(g.Waiting)}
		out.Waiting[0].Ops = []Op{{Kind: Put + novel, Field: "x", Value: Int(1)}}
		return out
	})
	marker := newer.write(t, []Op{{Register: "a", Kind: Collapse, Field: Marker, Seen: newer.core.Vector()}}, nil, Cause{}, noon)
	older.hear(t, marker)
	if g := older.regs["a"]; !g.Opaque() || len(g.Waiting) != 2 {
		t.Errorf("got\n%swant both waiting, and opaque", dump(g))
	}
	older.settle()
	if got, want := dump(older.regs["a"]), dump(newer.regs["a"]); got != want {
		t.Errorf("after an update: got\n%swant\n%s", got, want)
	}
}

// Behind an unknown operation, a marker folds what waits, and a write removes what that put.
func TestSettleRemovesWhatAMarkerFolded(t *testing.T) {
	nodes := newNodes(2)
	newer, older := nodes[0], nodes[1]
	newer.knows = true
	hear := func(ops []Op, held ...string) Dot {
		s := newer.write(t, ops, held, Cause{}, noon)
		older.hear(t, s)
		return s.q.Dot
	}
	put := hear([]Op{{Register: "a", Kind: Put, Field: "x", Value: Int(1)}}, "a")
	hear([]Op{{Register: "a", Kind: Put + novel, Field: "y", Value: Int(2)}})
	hear([]Op{{Register: "a", Kind: Collapse, Field: Marker, Seen: newer.core.Vector()}})
	hear([]Op{{Register: "a", Kind: Remove, Field: "x", Seen: []Dot{put}}})
	older.settle()
	if got, want := dump(older.regs["a"]), dump(newer.regs["a"]); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
