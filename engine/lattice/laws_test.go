package lattice

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A node is one that writes and hears of others' writes, as the laws below need it.
type node struct {
	origin    OriginID
	registers map[string]*Register
	vector    QStateVector
	sent      QStateVector // at its last candidate
	prev      Hash
	held      []*QCandidate // not applicable yet
}

var registerNames = []string{"a", "b"}

func newNodes(n int) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = &node{origin: Origin{Endpoint: EndpointID{byte(i)}, Incarnation: [16]byte{7}}.ID(), registers: map[string]*Register{}}
	}
	return nodes
}

func (n *node) apply(c *QCandidate) {
	for i := 0; i < len(c.Ops); {
		j := i
		for j < len(c.Ops) && c.Ops[j].Register == c.Ops[i].Register {
			j++
		}
		name := c.Ops[i].Register
		n.registers[name] = n.registers[name].Apply(c.Dot, c.Time, c.Ops[i:j])
		i = j
	}
	n.vector = n.vector.With(c.Dot)
}

// hear takes a candidate in any order, any number of times, and applies what is due.
func (n *node) hear(c *QCandidate) {
	n.held = append(n.held, c)
	for progress := true; progress; {
		progress = false
		n.held = slices.DeleteFunc(n.held, func(c *QCandidate) bool {
			if n.vector.Covers(c.Dot) {
				return true
			}
			if c.Dot.Seq != n.vector.Seq(c.Dot.Origin)+1 || slices.ContainsFunc(c.Deps, func(d Dot) bool { return !n.vector.Covers(d) }) {
				return false
			}
			n.apply(c)
			progress = true
			return true
		})
	}
}

func (n *node) join(m *node) {
	for _, name := range registerNames {
		if g := n.registers[name].Join(m.registers[name]); g != nil {
			n.registers[name] = g
		}
	}
	n.vector = n.vector.Join(m.vector)
}

// write makes a candidate with what the node has seen, or some of it.
func (n *node) write(t *rapid.T) *QCandidate {
	c := &QCandidate{Dot: Dot{n.origin, n.vector.Seq(n.origin) + 1}, Prev: n.prev, Time: Stamp(rapid.Uint64Range(0, 3).Draw(t, "time"))}
	for _, d := range n.vector {
		if d.Origin != n.origin && !n.sent.Covers(d) {
			c.Deps = append(c.Deps, d)
		}
	}
	fields := []string{"", "x", "y", Existence}
	for _, name := range registerNames {
		for _, field := range fields {
			var seen []Dot
			for _, e := range n.registers[name].Entries(field) {
				if rapid.IntRange(0, 3).Draw(t, "sees") > 0 {
					seen = append(seen, e.Dot)
				}
			}
			switch rapid.IntRange(0, 3).Draw(t, "does") {
			case 0:
				op := Op{Register: name, Kind: Put, Field: field, Seen: seen, Value: Int(int64(c.Dot.Seq))}
				if field == Existence {
					op.Value = Value{}
				}
				c.Ops = append(c.Ops, op)
			case 1:
				if len(seen) > 0 {
					c.Ops = append(c.Ops, Op{Register: name, Kind: Remove, Field: field, Seen: seen})
				}
			}
		}
	}
	if len(c.Ops) == 0 {
		return nil
	}
	n.apply(c)
	n.sent = n.vector
	n.prev = sha256.Sum256(c.AppendCBOR(nil))
	return c
}

// oracle folds a set of candidates without any order: an entry lives unless some candidate has seen it.
func oracle(candidates []*QCandidate) map[string]*Register {
	out := map[string]*Register{}
	for _, name := range registerNames {
		var g *Register
		for _, c := range candidates {
			for _, op := range c.Ops {
				if op.Register != name {
					continue
				}
				if g == nil {
					g = &Register{}
				}
				g.Context = g.Context.With(c.Dot)
				killed := slices.ContainsFunc(candidates, func(other *QCandidate) bool {
					return slices.ContainsFunc(other.Ops, func(o Op) bool {
						return o.Register == name && o.Field == op.Field && slices.Contains(o.Seen, c.Dot)
					})
				})
				if op.Kind != Put || killed {
					continue
				}
				i := slices.IndexFunc(g.Fields, func(f Field) bool { return f.Name >= op.Field })
				if i < 0 {
					i = len(g.Fields)
				}
				if i == len(g.Fields) || g.Fields[i].Name != op.Field {
					g.Fields = slices.Insert(g.Fields, i, Field{Name: op.Field})
				}
				entries := append(slices.Clone(g.Fields[i].Entries), Entry{c.Dot, c.Time, op.Value})
				slices.SortFunc(entries, func(a, b Entry) int { return a.Dot.Compare(b.Dot) })
				g.Fields[i].Entries = entries
			}
		}
		if g != nil {
			out[name] = g
		}
	}
	return out
}

func dump(registers map[string]*Register) string {
	var b []byte
	for _, name := range registerNames {
		b = fmt.Appendf(b, "%s: %x\n", name, registers[name].AppendCBOR(nil))
	}
	return string(b)
}

// history lets some nodes write and hear of each other for a while, by candidates and by states.
func history(t *rapid.T) ([]*node, []*QCandidate) {
	nodes := newNodes(rapid.IntRange(2, 4).Draw(t, "nodes"))
	var candidates []*QCandidate
	for range rapid.IntRange(1, 25).Draw(t, "steps") {
		n := nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "who")]
		switch k := rapid.IntRange(0, 9).Draw(t, "step"); {
		case k < 5:
			if c := n.write(t); c != nil {
				candidates = append(candidates, c)
			}
		case k < 8:
			if len(candidates) > 0 {
				n.hear(candidates[rapid.IntRange(0, len(candidates)-1).Draw(t, "what")])
			}
		default:
			n.join(nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, "whom")])
		}
	}
	return nodes, candidates
}

func TestNodesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, candidates := history(t)
		want := dump(oracle(candidates))
		for i, n := range nodes {
			order := rapid.Permutation(candidates).Draw(t, "order")
			for _, c := range append(order, order...) {
				n.hear(c)
			}
			if got := dump(n.registers); got != want {
				t.Fatalf("node %d has\n%swant\n%s", i, got, want)
			}
		}
		// One that was away all the time needs the state alone.
		late := newNodes(5)[4]
		late.join(nodes[0])
		if got := dump(late.registers); got != want {
			t.Fatalf("joined state is\n%swant\n%s", got, want)
		}
	})
}

func TestJoinLaws(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, _ := history(t)
		pick := func(label string) *Register {
			return nodes[rapid.IntRange(0, len(nodes)-1).Draw(t, label)].registers["a"]
		}
		a, b, c := pick("a"), pick("b"), pick("c")
		same := func(law string, x, y *Register) {
			if !bytes.Equal(x.AppendCBOR(nil), y.AppendCBOR(nil)) {
				t.Fatalf("%s: %x and %x", law, x.AppendCBOR(nil), y.AppendCBOR(nil))
			}
		}
		same("commutative", a.Join(b), b.Join(a))
		same("associative", a.Join(b).Join(c), a.Join(b.Join(c)))
		same("idempotent", a.Join(a), a)
		same("absorbing", a.Join(b).Join(b), a.Join(b))
	})
}

func TestDigestTellsStatesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, _ := history(t)
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
		for _, n := range nodes {
			for _, m := range nodes {
				a, b := n.registers["a"], m.registers["a"]
				if (live(a) == live(b)) != (a.Digest() == b.Digest()) {
					t.Fatalf("digests %x and %x of %s and %s", a.Digest(), b.Digest(), live(a), live(b))
				}
			}
		}
	})
}

func TestEncodingIsCanonical(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, candidates := history(t)
		for _, c := range candidates {
			data := c.AppendCBOR(nil)
			got, err := ParseCandidate(data)
			if err != nil {
				t.Fatal(err)
			}
			if again := got.AppendCBOR(nil); !bytes.Equal(again, data) || got.Dot != c.Dot || len(got.Ops) != len(c.Ops) {
				t.Fatalf("%x became %x", data, again)
			}
		}
		for _, n := range nodes {
			data := n.registers["a"].AppendCBOR(nil)
			got, err := ParseRegister(data)
			if err != nil {
				t.Fatal(err)
			}
			if again := got.AppendCBOR(nil); !bytes.Equal(again, data) {
				t.Fatalf("%x became %x", data, again)
			}
		}
	})
}

// A join that ignores contexts would bring back what was removed. The laws above must be able to see that.
func TestMutantJoinWithoutContextIsCaught(t *testing.T) {
	nodes := newNodes(2)
	put := &QCandidate{Dot: Dot{nodes[0].origin, 1}, Ops: []Op{{Register: "a", Kind: Put, Field: "x", Value: Int(1)}}}
	for _, n := range nodes {
		n.hear(put)
	}
	remove := &QCandidate{Dot: Dot{nodes[0].origin, 2}, Ops: []Op{{Register: "a", Kind: Remove, Field: "x", Seen: []Dot{put.Dot}}}}
	nodes[0].hear(remove)
	forgetful := *nodes[0].registers["a"]
	forgetful.Context = nil
	if got := forgetful.Join(nodes[1].registers["a"]).Entries("x"); len(got) != 1 {
		t.Errorf("without its context: got %v, want the removed entry", got)
	}
	if got := nodes[0].registers["a"].Join(nodes[1].registers["a"]).Entries("x"); len(got) != 0 {
		t.Errorf("got %v, want nothing", got)
	}
}

func TestProject(t *testing.T) {
	o := newNodes(3)
	dot := func(n int, seq uint64) Dot { return Dot{o[n].origin, seq} }
	put := func(field string, v Value, seen ...Dot) Op {
		return Op{Register: "a", Kind: Put, Field: field, Value: v, Seen: seen}
	}
	exist := Op{Register: "a", Kind: Put, Field: Existence}
	var g *Register
	if got := g.Project(); !got.IsAbsent() {
		t.Errorf("never written: got %s", got)
	}
	g = g.Apply(dot(0, 1), 100, []Op{put("x", Int(1)), put("y", Int(2)), exist})
	// Two who did not know of each other: the later stamp shows, the other lives on.
	g = g.Apply(dot(1, 1), 50, []Op{put("x", Int(3)), exist})
	if got, want := g.Project().String(), `{"x":1,"y":2}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Who saw both replaces both, whatever the clock says.
	g = g.Apply(dot(2, 1), 1, []Op{put("x", Int(4), sorted(dot(0, 1), dot(1, 1))...)})
	if got, want := g.Project().String(), `{"x":4,"y":2}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// A delete hides the fields; a writer who did not know of it brings the whole back.
	g = g.Apply(dot(0, 2), 200, []Op{{Register: "a", Kind: Remove, Field: Existence, Seen: sorted(dot(0, 1), dot(1, 1))}})
	if got := g.Project(); !got.IsAbsent() {
		t.Errorf("deleted: got %s", got)
	}
	g = g.Apply(dot(1, 2), 60, []Op{put("y", Int(5), dot(0, 1)), exist})
	if got, want := g.Project().String(), `{"x":4,"y":5}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	// Used with and without fields: the latest write decides.
	g = g.Apply(dot(0, 3), 59, []Op{put("", String("one"))})
	if got, want := g.Project().String(), `{"x":4,"y":5}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	g = g.Apply(dot(0, 4), 61, []Op{put("", String("two"), dot(0, 3))})
	if got, want := g.Project().String(), `"two"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func sorted(dots ...Dot) []Dot {
	slices.SortFunc(dots, Dot.Compare)
	return dots
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

func seedCandidate() *QCandidate {
	o := newNodes(2)
	return &QCandidate{
		Dot: Dot{o[0].origin, 2}, Prev: Hash{1}, Deps: []Dot{{o[1].origin, 3}}, Time: 77,
		Ops: []Op{
			{Register: "a", Kind: Put, Field: "x", Value: Int(1), Seen: []Dot{{o[0].origin, 1}}},
			{Register: "a", Kind: Put, Field: Existence, Seen: []Dot{{o[1].origin, 3}}},
			{Register: "b", Kind: Remove, Field: "", Seen: []Dot{{o[1].origin, 2}}},
		},
		Cause: Cause{Principal: "ann", Verified: true, Source: "a.hcl:1"},
	}
}

func FuzzParseCandidate(f *testing.F) {
	f.Add(seedCandidate().AppendCBOR(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := ParseCandidate(data)
		if err != nil {
			return
		}
		if got := c.AppendCBOR(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
	})
}

func FuzzParseRegister(f *testing.F) {
	var g *Register
	c := seedCandidate()
	c.Ops[0].Seen, c.Ops[1].Seen = nil, nil
	f.Add(g.Apply(c.Dot, c.Time, c.Ops[:2]).AppendCBOR(nil))
	f.Add(g.AppendCBOR(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		g, err := ParseRegister(data)
		if err != nil {
			return
		}
		if got := g.AppendCBOR(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x became %x", data, got)
		}
		g.Project()
	})
}
