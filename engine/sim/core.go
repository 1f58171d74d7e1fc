package sim

import (
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A coreNode is lattice.Core with registers in maps, and a disk that is what was synced of them. It is what is around
// the core in the engine, in its simplest form, and a thousand times as quick.
type coreNode struct {
	o        settings
	self     lattice.Origin
	core     *lattice.Core
	mem      *coreDisk
	disk     *coreDisk
	unsynced []*step
	moved    []*step                    // since the world has looked
	heardAll map[engine.EndpointID]bool // heard since the start
	findings map[[2]string]string
	rules    []*lattice.Decl
}

// startCore begins an incarnation.
func startCore(from disk, o settings) (*coreNode, error) {
	n := &coreNode{o: o, heardAll: map[engine.EndpointID]bool{}, findings: map[[2]string]string{}}
	if from == nil {
		from = newCoreDisk(o.random)
	}
	n.disk = from.(*coreDisk)
	if n.disk.fromCopy {
		n.disk.fromCopy = false
		n.disk.log = o.random.Uint64()
		n.findings[[2]string{"backup", ""}] = "backup"
	}
	n.mem = n.disk.clone()
	n.self.Endpoint = n.mem.endpoint
	o.random.incarnation(n.self.Incarnation[:])
	k := lattice.Knowledge{Self: n.self, Clock: n.mem.clock, Heads: maps.Clone(n.mem.heads), Retired: maps.Clone(n.mem.retired), Owners: maps.Clone(n.mem.owners)}
	if n.mem.self != (engine.OriginID{}) {
		head := n.mem.selfHead
		if h := n.mem.heads[n.mem.self]; h.Seq > head.Seq {
			head = h // from elsewhere: the data were those of a backup or a copy
		}
		k.Before = engine.Dot{Origin: n.mem.self, Seq: head.Seq}
		k.Heads[n.mem.self] = head
	}
	n.core = lattice.NewCore(k)
	return n, nil
}

// Register implements lattice.Registers.
func (n *coreNode) Register(name string) (*lattice.Register, error) {
	return n.mem.cells[name].reg, nil
}

func (n *coreNode) decl(name string) *lattice.Decl {
	for _, d := range n.rules {
		if strings.HasPrefix(name, d.Prefix) {
			if d.Group == "" {
				return d
			}
			out := *d
			out.Unit = lattice.UnitPrefix + d.Group
			return &out
		}
	}
	return nil
}

func (n *coreNode) commit(s *step) {
	n.mem.apply(s)
	n.unsynced = append(n.unsynced, s)
	n.moved = append(n.moved, s)
}

func (n *coreNode) sync() {
	for _, s := range n.unsynced {
		n.disk.apply(s)
	}
	n.unsynced = n.unsynced[:0]
}

// accept takes the effects of a step of the core over.
func (n *coreNode) accept(eff *lattice.Effects, s *step) {
	q := eff.Candidate
	s.clock, s.entry, s.changes, s.retires, s.intro = eff.Clock(), &logEntry{q.Dot, eff.Raw, eff.Clock()}, eff.Changes, eff.Retires, q.Intro
	s.head = lattice.Head{Seq: q.Dot.Seq, Hash: eff.Hash()}
	if q.Dot.Origin == n.core.ID() {
		s.self = q.Dot.Origin
	}
	n.core.Accept(eff)
	n.hide(s, q.Dot)
	n.commit(s)
}

func (n *coreNode) hide(s *step, by engine.Dot) {
	for i := range s.changes {
		if ch := &s.changes[i]; !ch.Held && !strings.HasPrefix(ch.Name, "_") {
			s.hidden = append(s.hidden, hiding{ch.Name, !ch.After.Exists(n.decl(ch.Name)) && len(ch.After.Fields) > 0, by})
		}
	}
}

func (n *coreNode) endpoint() engine.EndpointID { return n.self.Endpoint }

func (n *coreNode) declare(list []engine.Declaration) error {
	n.rules = nil
	for _, d := range list {
		n.rules = append(n.rules, &lattice.Decl{Declaration: d})
	}
	return nil
}

func (n *coreNode) eye() *lattice.Eye { return &lattice.Eye{} }

func (n *coreNode) read(register string) (engine.StateBlock, error) {
	decl := n.decl(register)
	c := n.mem.cells[register]
	reg := c.reg
	if decl != nil && decl.Unit != "" {
		c = n.mem.cells[decl.Unit]
		reg, decl = c.reg.Member(register), nil
	}
	b := engine.StateBlock{Register: register, ID: c.id}
	v := reg.View(decl, n.eye())
	b.Exists, b.Value, b.Dots, b.Waiting = !v.Value.IsAbsent(), v.Value, v.Dots, c.reg.Pending()
	return b, nil
}

func (n *coreNode) told(string) (engine.StateBlock, bool, error) {
	return engine.StateBlock{}, false, nil
}

func (n *coreNode) find(code, subject, text string) { n.findings[[2]string{code, subject}] = text }

func (n *coreNode) alarm(alarms []lattice.Alarm) {
	for _, a := range alarms {
		switch a.Kind {
		case lattice.ForkAlarm:
			n.find("fork", a.Dot.String(), a.Text)
		case lattice.CloneAlarm:
			n.find("clone", a.Dot.Origin.String()+" "+a.Other.Origin.String(), a.Text)
		case lattice.ClockAlarm:
			n.find("clock", a.Dot.Origin.String(), a.Text)
		case lattice.TailAlarm:
			n.find("restored", a.Dot.Origin.String(), a.Text)
		}
	}
}

func (n *coreNode) keep(key string, value []byte) error {
	n.commit(&step{clock: n.core.Clock(), records: map[string][]byte{key: value}})
	n.sync()
	return nil
}

func (n *coreNode) kept(key string) ([]byte, error) { return n.mem.records[key], nil }

func (n *coreNode) status() (engine.Status, error) {
	s := engine.Status{Held: uint64(len(n.mem.held))}
	for k, text := range n.findings {
		s.Findings = append(s.Findings, engine.Finding{Code: k[0], Subject: k[1], Text: text})
	}
	slices.SortFunc(s.Findings, func(a, b engine.Finding) int { return strings.Compare(a.Code+a.Subject, b.Code+b.Subject) })
	return s, nil
}

func (n *coreNode) backup() (disk, error) {
	n.sync()
	d := n.disk.clone()
	d.fromCopy = true
	return d, nil
}

func (n *coreNode) image() disk { return n.disk.clone() }

func (n *coreNode) crash(c cut) disk {
	for _, s := range n.unsynced[:min(c.whole, len(n.unsynced))] {
		n.disk.apply(s)
	}
	n.unsynced = nil
	return n.disk
}

func (n *coreNode) stop() (disk, error) {
	n.sync()
	return n.disk, nil
}

var _ replica = (*coreNode)(nil)
var _ lattice.Registers = (*coreNode)(nil)
