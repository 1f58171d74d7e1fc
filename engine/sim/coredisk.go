package sim

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

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

func (d *coreDisk) String() string { return fmt.Sprintf("%d commits", d.ordinal) }
