package sim

import (
	"errors"
	"maps"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func (n *coreNode) tend() error {
	n.sync()
	return errors.Join(n.retire(), n.purge(), n.trim())
}

func (n *coreNode) retire() error {
	for f := range n.findings {
		if f[0] == "clone" {
			return nil
		}
	}
	if !n.core.Begun() {
		return nil
	}
	for _, d := range n.core.Vector() {
		owner, ok := n.core.Owner(d.Origin)
		if !ok || d.Origin == n.core.ID() || owner.Origin.Endpoint != n.self.Endpoint {
			continue
		}
		all := true
		for _, m := range n.mem.members {
			all = all && m.Vector.Seq(d.Origin) == d.Seq && n.heardAll[m.Endpoint]
		}
		if !all {
			continue
		}
		name := lattice.OriginPrefix + d.Origin.String()
		_, wait, err := n.submit(engine.Write{Ops: []engine.Op{{Register: name, Kind: engine.OpPut, Value: lattice.Int(int64(d.Seq))}}, By: engine.Cause{Protocol: "engine"}})
		if err != nil {
			return err
		}
		if _, err := wait(); err != nil {
			return err
		}
	}
	return nil
}

func (n *coreNode) purge() error {
	for _, name := range slices.Sorted(maps.Keys(n.mem.hidden)) {
		dots := n.mem.hidden[name]
		if dots == nil {
			dots = n.core.Vector()
		}
		all := true
		for _, m := range n.mem.members {
			all = all && n.covers(m.Vector)
			for _, d := range dots {
				all = all && (m.Vector.Covers(d) || n.core.Retired(d.Origin))
			}
		}
		if !all {
			continue
		}
		reg := n.mem.cells[name].reg
		gone := []hiding{{name: name}}
		var ops []lattice.Op
		if !reg.Exists(n.decl(name)) {
			ops = reg.Purge(name)
		}
		if len(ops) == 0 {
			n.commit(&step{clock: n.core.Clock(), hidden: gone})
			continue
		}
		eff, err := n.write(ops, nil, engine.Cause{Protocol: "engine"})
		if err != nil {
			return err
		}
		n.accept(eff, &step{})
	}
	n.sync()
	return nil
}

func (n *coreNode) covers(v engine.QStateVector) bool {
	return !slices.ContainsFunc(v, func(d engine.Dot) bool { return !n.core.Covers(d) })
}

func (n *coreNode) trim() error {
	d := n.mem
	now := n.o.clock.now()
	cut := 0
	for cut < len(d.entries) && !d.entries[cut].clock.Time().Add(n.o.historyAge).After(now) {
		if e := &d.entries[cut]; !e.dot.IsZero() {
			d.trimmed = d.trimmed.With(e.dot)
		}
		cut++
	}
	d.floor += uint64(cut)
	d.entries = slices.Clone(d.entries[cut:])
	n.disk.floor, n.disk.entries, n.disk.trimmed = d.floor, slices.Clip(d.entries), d.trimmed
	return nil
}
