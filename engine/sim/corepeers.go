package sim

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func (n *coreNode) hashOf(d engine.Dot) (lattice.Hash, bool) {
	for i := range n.mem.entries {
		if n.mem.entries[i].dot == d {
			return sha256.Sum256(n.mem.entries[i].raw), true
		}
	}
	return lattice.Hash{}, false
}

func (n *coreNode) receive(raw [][]byte) (r engine.Reception, err error) {
	for _, b := range raw {
		if err := n.take(b, &r); err != nil {
			return r, err
		}
	}
	n.sync()
	return r, nil
}

func (n *coreNode) take(raw []byte, r *engine.Reception) error {
	todo := [][]byte{raw}
	for first := true; len(todo) > 0; first = false {
		raw, todo = todo[0], todo[1:]
		q, err := lattice.ParseCandidate(raw)
		if err != nil {
			return err
		}
		switch n.o.mutant {
		case IgnoreDeps:
			q.Deps = nil
		case MarkerWithoutVector:
			for i := range q.Ops {
				if q.Ops[i].Kind == lattice.Collapse {
					q.Ops[i].Seen = n.core.Vector()
				}
			}
		}
		eff := new(lattice.Effects)
		verdict, _, err := n.core.Receive(n, q, raw, n.o.clock.now(), n.hashOf, eff)
		if err != nil {
			return err
		}
		n.alarm(eff.Alarms)
		_, waits := n.mem.held[q.Dot]
		s := &step{clock: n.core.Clock()}
		switch verdict {
		case lattice.Early:
			if !waits {
				s.hold = map[engine.Dot][]byte{q.Dot: raw}
				n.commit(s)
			}
			if first {
				r.Held++
			}
			continue
		case lattice.Known, lattice.Refused:
			if first && verdict == lattice.Known {
				r.Known++
			} else if verdict == lattice.Refused {
				r.Refused++
			}
			if waits {
				s.hold = map[engine.Dot][]byte{q.Dot: nil}
				n.commit(s)
			}
			continue
		}
		if waits {
			s.hold = map[engine.Dot][]byte{q.Dot: nil}
		}
		n.accept(eff, s)
		r.Applied++
		todo = append(todo, n.early()...)
	}
	return nil
}

// early gives the held candidates that need wait no longer.
func (n *coreNode) early() (out [][]byte) {
	if len(n.mem.held) == 0 {
		return nil
	}
	for _, d := range slices.SortedFunc(maps.Keys(n.mem.held), engine.Dot.Compare) {
		q, err := lattice.ParseCandidate(n.mem.held[d])
		if err == nil && len(n.core.Missing(q)) == 0 {
			out = append(out, n.mem.held[d])
		}
	}
	return out
}

func (n *coreNode) summary() (engine.Summary, error) {
	n.sync()
	s := engine.Summary{Endpoint: n.self.Endpoint, Origin: n.core.ID(), Vector: n.core.Vector(), Heard: max(n.core.Clock(), 1)}
	var all lattice.Tally
	for name, c := range n.mem.cells {
		if c.hash == (lattice.Hash{}) {
			c.hash = c.reg.Hash(name, c.reg.AppendCBOR(nil))
			n.mem.cells[name] = c
		}
		all.Add(c.hash)
		shard := lattice.TallyOf(s.Shards[engine.ShardOf(name)])
		shard.Add(c.hash)
		s.Shards[engine.ShardOf(name)] = shard.Hash()
	}
	s.Root = all.Hash()
	return s, nil
}

func (n *coreNode) vector() (engine.QStateVector, error) { n.sync(); return n.core.Vector(), nil }

func (n *coreNode) meet(peer engine.Summary) error {
	if peer.Endpoint == n.self.Endpoint && peer.Origin != n.core.ID() {
		a, b := peer.Origin, n.core.ID()
		if a.Compare(b) > 0 {
			a, b = b, a
		}
		n.find("clone", a.String()+" "+b.String(), "")
	}
	if peer.Vector.Equal(n.core.Vector()) {
		if s, _ := n.summary(); s.Root != peer.Root {
			n.find("divergence", peer.Endpoint.String(), "")
		}
	}
	return nil
}

func (n *coreNode) setMembers(ids []engine.EndpointID) error {
	next := map[engine.EndpointID]engine.Member{}
	for _, id := range ids {
		if id != n.self.Endpoint {
			m := n.mem.members[id]
			m.Endpoint = id
			next[id] = m
		}
	}
	n.mem.members = next
	n.disk.members = maps.Clone(next)
	return nil
}

func (n *coreNode) heard(m engine.Member) error {
	k, ok := n.mem.members[m.Endpoint]
	if !ok {
		return engine.ErrNotFound
	}
	k.Vector, k.Heard = k.Vector.Join(m.Vector), max(k.Heard, m.Heard)
	n.mem.members[m.Endpoint] = k
	n.disk.members[m.Endpoint] = k
	n.heardAll[m.Endpoint] = true
	return nil
}

func (n *coreNode) candidates(has engine.QStateVector, behind engine.Cursor) (out []engine.Candidate, err error) {
	n.sync()
	d := n.mem
	for _, dot := range d.trimmed {
		if !n.peerHas(has, dot) && n.o.mutant != TrimUnchecked {
			return nil, engine.ErrTrimmed
		}
	}
	after := uint64(0)
	if behind.Log == d.log {
		after = behind.Ordinal
	}
	for i := range d.entries {
		e := &d.entries[i]
		if at := d.floor + uint64(i) + 1; at > after && !e.dot.IsZero() && !n.peerHas(has, e.dot) {
			out = append(out, engine.Candidate{Dot: e.dot, Raw: e.raw, Place: engine.Cursor{Log: d.log, Ordinal: at}})
		}
	}
	return out, nil
}

// peerHas says whether a peer has applied a candidate, as far as its vector says: of an origin that is retired, it has all
// if it has the candidate that retired it.
func (n *coreNode) peerHas(has engine.QStateVector, d engine.Dot) bool {
	if has.Covers(d) {
		return true
	}
	if !n.core.Retired(d.Origin) {
		return false
	}
	for _, e := range n.mem.cells[lattice.OriginPrefix+d.Origin.String()].reg.Entries("") {
		if n.peerHas(has, e.Dot) {
			return true
		}
	}
	return false
}

func (n *coreNode) place() engine.Cursor {
	return engine.Cursor{Log: n.mem.log, Ordinal: n.mem.ordinal}
}

func (n *coreNode) export() (*export, error) {
	n.sync()
	s := n.core.Snapshot()
	x := &export{snapshot: &s, registers: map[string][]byte{}}
	for name, c := range n.mem.cells {
		if !c.reg.Empty() {
			x.registers[name] = c.reg.AppendCBOR(nil)
		}
	}
	return x, nil
}

func (n *coreNode) join(x *export) error {
	theirs := x.snapshot.(*lattice.Snapshot)
	own := n.core.Context()
	s := &step{clock: n.core.Clock(), join: theirs}
	context := theirs.Context
	if n.o.mutant == JoinWithoutContext {
		context, own = lattice.Context{}, lattice.Context{}
	}
	for _, name := range slices.Sorted(maps.Keys(x.registers)) {
		var g *lattice.Register
		if raw := x.registers[name]; raw != nil {
			var err error
			if g, err = lattice.ParseRegister(raw); err != nil {
				return err
			}
		}
		mine := n.mem.cells[name].reg
		joined := mine.Join(g, &own, &context)
		if !bytes.Equal(joined.AppendCBOR(nil), mine.AppendCBOR(nil)) {
			s.changes = append(s.changes, lattice.Change{Name: name, Before: mine, After: joined})
		}
	}
	n.core.EndJoin(*theirs)
	n.hide(s, engine.Dot{})
	n.commit(s)
	after := n.core.Snapshot()
	for _, d := range []*coreDisk{n.mem, n.disk} {
		if d == n.disk {
			n.sync()
		}
		for o, h := range after.Heads {
			if o != n.core.ID() {
				d.heads[o] = h
				delete(d.retired, o)
			}
		}
		for o, i := range after.Owners {
			if o != n.core.ID() {
				d.owners[o] = i
			}
		}
		for _, r := range theirs.Context.Retired {
			if n.core.Retired(r.Origin) {
				delete(d.heads, r.Origin)
				d.retired[r.Origin] = max(d.retired[r.Origin], r.Seq)
			}
		}
		d.trimmed = d.trimmed.Join(theirs.Context.Vector)
	}
	for _, raw := range n.early() {
		if err := n.take(raw, new(engine.Reception)); err != nil {
			return err
		}
	}
	for d := range n.mem.held {
		if n.core.Covers(d) {
			n.commit(&step{clock: n.core.Clock(), hold: map[engine.Dot][]byte{d: nil}})
		}
	}
	n.sync()
	return nil
}
