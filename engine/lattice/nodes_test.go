package lattice

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// failer is a test or a property.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Fatal(args ...any)
}

var (
	_ failer = (*testing.T)(nil)
	_ failer = (*rapid.T)(nil)
)

// A node is one that writes and hears of others' writes, by candidates and by states, as the laws need it.
type node struct {
	origin Origin
	core   *Core
	regs   map[string]*Register
	knows  bool    // a newer program: it knows operations of novel kinds
	early  []*sent // that depend on others
	hashes map[Dot]Hash
	alarms []Alarm
}

// sent is a candidate on its way.
type sent struct {
	q   *QCandidate
	raw []byte
}

// A novel operation is one of these kinds more than it will be to a program that knows it.
const novel = 10

func newNode(i byte) *node {
	o := Origin{Endpoint: EndpointID{i + 1}, Incarnation: [16]byte{7}}
	return &node{origin: o, core: NewCore(Knowledge{Self: o}), regs: map[string]*Register{}, hashes: map[Dot]Hash{}}
}

func newNodes(n int) []*node {
	nodes := make([]*node, n)
	for i := range nodes {
		nodes[i] = newNode(byte(i))
	}
	return nodes
}

// copied is the node as a copy of its disk has it, or as it was.
func (n *node) copied() *node {
	c := *n
	core := *n.core
	core.heads, core.retired, core.owners, core.news = maps.Clone(core.heads), maps.Clone(core.retired), maps.Clone(core.owners), maps.Clone(core.news)
	c.core, c.regs, c.hashes, c.early = &core, maps.Clone(n.regs), maps.Clone(n.hashes), slices.Clone(n.early)
	return &c
}

// restart begins another incarnation.
func (n *node) restart() {
	s := n.core.Snapshot()
	k := Knowledge{Self: n.origin, Clock: n.core.Clock(), Heads: s.Heads, Retired: map[OriginID]uint64{}, Owners: s.Owners}
	for _, d := range s.Context.Retired {
		k.Retired[d.Origin] = d.Seq
	}
	if k.Before = n.core.before; n.core.Begun() {
		k.Before = Dot{n.core.ID(), n.core.Seq()}
	}
	k.Self.Incarnation[0]++
	n.origin, n.core = k.Self, NewCore(k)
}

func (n *node) Register(name string) (*Register, error) { return n.regs[name], nil }

func (n *node) write(t failer, ops []Op, held []string, cause Cause, wall time.Time) *sent {
	t.Helper()
	var eff Effects
	if err := n.core.Write(n, ops, held, cause, cause.By(), wall, &eff); err != nil {
		t.Fatal(err)
	}
	// What was written has to arrive whole.
	q, err := ParseCandidate(eff.Raw)
	if err != nil {
		t.Fatalf("%v: of %+v", err, eff.Candidate)
	}
	if n.knows {
		eff.Changes = nil
		for name, a := range known(q).Each {
			eff.Changes = append(eff.Changes, Change{name, n.regs[name], n.regs[name].Apply(a), a.Held})
		}
	}
	s := &sent{q, slices.Clone(eff.Raw)}
	n.accept(&eff)
	return s
}

func (n *node) accept(eff *Effects) {
	for _, ch := range eff.Changes {
		n.regs[ch.Name] = ch.After
	}
	n.hashes[eff.Candidate.Dot] = eff.Hash()
	n.alarms = append(n.alarms, eff.Alarms...)
	n.core.Accept(eff)
}

// known is a candidate as a program sees it that knows novel operations.
func known(q *QCandidate) *QCandidate {
	out := *q
	out.Ops = knownOps(q.Ops)
	return &out
}

func knownOps(ops []Op) []Op {
	ops = slices.Clone(ops)
	for i := range ops {
		if ops[i].Kind > novel {
			ops[i].Kind -= novel
		}
	}
	return ops
}

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func (n *node) receive(t failer, s *sent) (Verdict, []Dot) {
	t.Helper()
	q := s.q
	if n.knows {
		q = known(q)
	}
	var eff Effects
	v, missing, err := n.core.Receive(n, q, s.raw, noon, func(d Dot) (Hash, bool) { h, ok := n.hashes[d]; return h, ok }, &eff)
	if err != nil {
		t.Fatal(err)
	}
	if v == Applied {
		n.accept(&eff)
	} else {
		n.alarms = append(n.alarms, eff.Alarms...)
	}
	return v, missing
}

// hear takes a candidate in any order, any number of times, and applies what is due.
func (n *node) hear(t failer, s *sent) {
	t.Helper()
	n.early = append(n.early, s)
	for progress := true; progress; {
		progress = false
		n.early = slices.DeleteFunc(n.early, func(s *sent) bool {
			v, _ := n.receive(t, s)
			progress = progress || v == Applied
			if v == Refused {
				t.Fatalf("%s was refused: %+v", s.q.Dot, n.alarms)
			}
			return v != Early
		})
	}
}

// join takes the state of another node, whole. as gives its registers as this node's program reads them.
func (n *node) join(m *node, as func(string, *Register) *Register) {
	s, own := m.core.Snapshot(), n.core.Context()
	names := maps.Clone(n.regs)
	maps.Copy(names, m.regs)
	n.core.BeginJoin(s.Context.Vector)
	for name := range names {
		theirs := m.regs[name]
		if as != nil {
			theirs = as(name, theirs)
		}
		n.regs[name] = n.regs[name].Join(theirs, &own, &s.Context)
	}
	n.core.EndJoin(s)
}

// pick is one of several; what is printed of a failure is its place.
func pick[T any](t *rapid.T, from []T, label string) T {
	return from[rapid.IntRange(0, len(from)-1).Draw(t, label)]
}
