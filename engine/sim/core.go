package sim

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
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

// A coreDisk is what a coreNode keeps.
type coreDisk struct {
	endpoint engine.EndpointID
	log      uint64
	clock    lattice.Stamp
	ordinal  uint64
	self     engine.OriginID // that wrote last
	selfHead lattice.Head
	cells    map[string]cell
	entries  []logEntry // from floor on
	floor    uint64     // ordinal before the first of entries
	trimmed  engine.QStateVector
	heads    map[engine.OriginID]lattice.Head
	retired  map[engine.OriginID]uint64
	owners   map[engine.OriginID]lattice.Intro
	records  map[string][]byte
	members  map[engine.EndpointID]engine.Member
	held     map[engine.Dot][]byte
	hidden   map[string]engine.QStateVector // what every member has to have before it goes; nil: all there is
	fromCopy bool                           // it is a backup
	past     map[string][]pastState
}

type cell struct {
	hash lattice.Hash // of reg; zero: not known
	reg  *lattice.Register
	rank uint64
	id   engine.StateID
}

type logEntry struct {
	dot   engine.Dot
	raw   []byte
	clock lattice.Stamp
}

type pastState struct {
	id  engine.StateID
	reg *lattice.Register
}

// A hiding says that a delete hides what a register has, or does not.
type hiding struct {
	name string
	is   bool
	by   engine.Dot // zero: by a state that was joined
}

// A step is what is stored together.
type step struct {
	clock   lattice.Stamp
	self    engine.OriginID // set where it is an own candidate
	head    lattice.Head
	entry   *logEntry
	changes []lattice.Change
	intro   *lattice.Intro
	retires []engine.Dot
	records map[string][]byte
	hold    map[engine.Dot][]byte // nil value: let go
	hidden  []hiding
	join    *lattice.Snapshot
}

func newCoreDisk(r *source) *coreDisk {
	d := &coreDisk{
		cells: map[string]cell{}, heads: map[engine.OriginID]lattice.Head{}, retired: map[engine.OriginID]uint64{}, owners: map[engine.OriginID]lattice.Intro{},
		records: map[string][]byte{}, members: map[engine.EndpointID]engine.Member{}, held: map[engine.Dot][]byte{}, hidden: map[string]engine.QStateVector{}, past: map[string][]pastState{},
	}
	r.fill(d.endpoint[:])
	d.log = r.Uint64()
	return d
}

func (d *coreDisk) clone() *coreDisk {
	out := *d
	out.cells, out.heads, out.retired, out.owners = maps.Clone(d.cells), maps.Clone(d.heads), maps.Clone(d.retired), maps.Clone(d.owners)
	out.records, out.members, out.held, out.hidden = maps.Clone(d.records), maps.Clone(d.members), maps.Clone(d.held), maps.Clone(d.hidden)
	out.past = maps.Clone(d.past)
	out.entries = slices.Clip(d.entries)
	return &out
}

func (d *coreDisk) apply(s *step) {
	d.clock = s.clock
	if len(s.changes) > 0 || s.entry != nil || s.join != nil {
		d.ordinal++
		e := logEntry{clock: s.clock}
		if s.entry != nil {
			e = *s.entry
		}
		d.entries = append(d.entries, e)
	}
	if s.self != (engine.OriginID{}) {
		if d.self != s.self {
			if d.self != (engine.OriginID{}) && d.selfHead.Seq > d.heads[d.self].Seq {
				d.heads[d.self] = d.selfHead
			}
			d.self = s.self
		}
		d.selfHead = s.head
	} else if s.entry != nil {
		d.heads[s.entry.dot.Origin] = s.head
		delete(d.retired, s.entry.dot.Origin)
	}
	if s.intro != nil {
		d.owners[s.intro.Origin.ID()] = *s.intro
	}
	for i := range s.changes {
		ch := &s.changes[i]
		c := d.cells[ch.Name]
		c.reg, c.hash = ch.After, lattice.Hash{}
		if !ch.Held {
			c.rank++
			c.id = engine.StateID{Rank: c.rank, Digest: ch.After.Digest()}
			d.past[ch.Name] = append(slices.Clip(d.past[ch.Name]), pastState{c.id, ch.After})
		}
		d.cells[ch.Name] = c
	}
	maps.Copy(d.records, s.records)
	for dot, raw := range s.hold {
		if raw == nil {
			delete(d.held, dot)
		} else {
			d.held[dot] = raw
		}
	}
	for _, h := range s.hidden {
		if was, ok := d.hidden[h.name]; !h.is {
			delete(d.hidden, h.name)
		} else if h.by.IsZero() || ok && was == nil {
			d.hidden[h.name] = nil
		} else {
			d.hidden[h.name] = was.With(h.by)
		}
	}
	for _, r := range s.retires {
		delete(d.heads, r.Origin)
		d.retired[r.Origin] = max(d.retired[r.Origin], r.Seq)
	}
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

func (n *coreNode) write(ops []lattice.Op, held []string, cause engine.Cause) (*lattice.Effects, error) {
	eff := new(lattice.Effects)
	return eff, n.core.Write(n, ops, held, cause, cause.By(), n.o.clock.now(), eff)
}

func (n *coreNode) submit(w engine.Write) (engine.Dot, func() (engine.Receipt, error), error) {
	writer := lattice.Writer{Self: n.core.ID(), By: w.By.By(), Mine: n.core.Mine}
	if n.o.mutant == FoldBeforeRetirement {
		writer.Mine = func(o engine.OriginID) bool {
			owner, ok := n.core.Owner(o)
			return ok && owner.Origin.Endpoint == n.self.Endpoint
		}
	}
	if n.o.mutant == DeleteWhole {
		w.Ops = removeAll(n, w.Ops)
	}
	type part struct {
		name  string
		base  *lattice.Register
		decl  *lattice.Decl
		draft *lattice.Draft
		group *lattice.GroupDraft
	}
	var parts []part
	find := func(name string) *part {
		for i := range parts {
			if parts[i].name == name {
				return &parts[i]
			}
		}
		return nil
	}
	var room []engine.Dot
	for i := range w.Ops {
		op := &w.Ops[i]
		decl := n.decl(op.Register)
		name := op.Register
		if decl != nil && decl.Unit != "" {
			name = decl.Unit
		}
		p := find(name)
		if p == nil {
			base := n.mem.cells[name].reg
			np := part{name: name, base: base, decl: decl}
			if decl != nil && decl.Unit != "" {
				np.group = lattice.BeginGroup(name, base)
			} else {
				np.draft = new(lattice.Draft)
				np.draft.Begin(name, base, decl, &writer, w.Ops[i:], &room)
			}
			parts = append(parts, np)
			p = &parts[len(parts)-1]
		}
		var err error
		if p.group != nil {
			err = p.group.Apply(op)
		} else {
			err = p.draft.Apply(op)
		}
		if err != nil {
			return engine.Dot{}, nil, err
		}
	}
	var ops []lattice.Op
	var held []string
	for i := range parts {
		p := &parts[i]
		var own []lattice.Op
		if p.group != nil {
			own = p.group.Finish()
		} else if p.draft.Finish() {
			own = p.draft.Ops
		}
		if len(own) == 0 {
			continue
		}
		switch {
		case p.decl != nil && p.decl.Commit.Waits():
			held = append(held, p.name)
		case p.base.Pending() > 0:
			own = slices.Clone(own)
			at := len(own)
			if i := slices.IndexFunc(own, func(op lattice.Op) bool { return op.Field > lattice.Marker }); i >= 0 {
				at = i
			}
			own = slices.Insert(own, at, lattice.Op{Register: p.name, Kind: lattice.Collapse, Field: lattice.Marker, Seen: n.core.Vector()})
		}
		ops = append(ops, own...)
	}
	if len(ops) == 0 {
		return engine.Dot{}, func() (engine.Receipt, error) { return engine.Receipt{}, nil }, nil
	}
	eff, err := n.write(ops, held, w.By)
	if err != nil {
		return engine.Dot{}, nil, err
	}
	s := &step{}
	for _, r := range w.Keep {
		if s.records == nil {
			s.records = map[string][]byte{}
		}
		s.records[r.Key] = r.Value
	}
	dot := eff.Candidate.Dot
	n.accept(eff, s)
	return dot, func() (engine.Receipt, error) { n.sync(); return engine.Receipt{Dot: dot}, nil }, nil
}

func (n *coreNode) collapse(register string) error {
	if n.mem.cells[register].reg.Pending() == 0 {
		return nil
	}
	ops := []lattice.Op{{Register: register, Kind: lattice.Collapse, Field: lattice.Marker, Seen: n.core.Vector()}}
	eff, err := n.write(ops, nil, engine.Cause{})
	if err != nil {
		return err
	}
	n.accept(eff, &step{})
	n.sync()
	return nil
}

func (n *coreNode) revert(register string, to engine.StateID) error {
	decl := n.decl(register)
	if decl != nil && decl.Unit != "" {
		return nil
	}
	for _, p := range n.mem.past[register] {
		if p.id != to {
			continue
		}
		v := p.reg.View(decl, &lattice.Eye{})
		if v.Value.IsAbsent() {
			_, wait, err := n.submit(engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpDelete}}})
			if err == nil {
				_, err = wait()
			}
			return err
		}
		only := engine.Op{Register: register, Kind: engine.OpOnly}
		var puts []engine.Op
		for _, m := range v.Value.Members() {
			only.Fields = append(only.Fields, m.Name)
			puts = append(puts, engine.Op{Register: register, Kind: engine.OpRestore, Field: m.Name, Value: m.Value})
		}
		if v.Value.Kind() != lattice.ObjectKind {
			only.Fields = append(only.Fields, "")
			puts = append(puts, engine.Op{Register: register, Kind: engine.OpRestore, Value: v.Value})
		}
		_, wait, err := n.submit(engine.Write{Ops: append([]engine.Op{only}, puts...)})
		if err == nil {
			_, err = wait()
		}
		return err
	}
	return engine.ErrNotFound
}

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

func (n *coreNode) hashOf(d engine.Dot) (lattice.Hash, bool) {
	for i := range n.mem.entries {
		if n.mem.entries[i].dot == d {
			return sha256.Sum256(n.mem.entries[i].raw), true
		}
	}
	return lattice.Hash{}, false
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

func (n *coreNode) keep(key string, value []byte) error {
	n.commit(&step{clock: n.core.Clock(), records: map[string][]byte{key: value}})
	n.sync()
	return nil
}

func (n *coreNode) kept(key string) ([]byte, error) { return n.mem.records[key], nil }

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
		if !reg.Exists(n.decl(name)) && !reg.Opaque() {
			for _, f := range reg.Fields {
				if f.Name == lattice.Existence && len(reg.Entries(lattice.Deletion)) == 0 {
					continue
				}
				op := lattice.Op{Register: name, Kind: lattice.Remove, Field: f.Name}
				for _, e := range f.Entries {
					op.Seen = append(op.Seen, e.Dot)
				}
				ops = append(ops, op)
			}
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

// removeAll has each delete take the fields with it, as a delete must not.
func removeAll(r replica, ops []engine.Op) (out []engine.Op) {
	for _, op := range ops {
		if op.Kind == engine.OpDelete {
			b, err := r.read(op.Register)
			if err == nil && b.Exists && b.Value.Kind() == lattice.ObjectKind {
				for _, m := range b.Value.Members() {
					out = append(out, engine.Op{Register: op.Register, Kind: engine.OpRemove, Field: m.Name})
				}
			}
		}
		out = append(out, op)
	}
	return out
}

var _ replica = (*coreNode)(nil)

func (d *coreDisk) String() string { return fmt.Sprintf("%d commits", d.ordinal) }
