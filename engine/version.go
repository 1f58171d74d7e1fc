package engine

import (
	"sync"
	"sync/atomic"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A version is what one commit made of a register. It is immutable but for prev and seen.
type version struct {
	name    string
	ordinal uint64 // of the commit; 0: never written
	rank    uint64
	at      Stamp // of the last candidate that readers see
	reg     *lattice.Register
	hash    lattice.Hash // what it adds to the hash over all registers; zero: not known, or empty
	id      StateID
	unit    string // of a stub: the register that holds the group which this one belongs to
	// seen is what readers see, under the rules of a moment.
	seen atomic.Pointer[sight]
	// prev is the version before, as long as this one is not published: readers see that one until then.
	prev atomic.Pointer[version]
	size int // bytes in memory, roughly
}

// A sight is a version under the rules of a moment.
type sight struct {
	rules *ruleTable
	heard Stamp
	decl  *lattice.Decl
	block StateBlock
}

func newVersion(name string, ordinal, rank uint64, at Stamp, reg *lattice.Register, size int) *version {
	v := &version{name: name, ordinal: ordinal, rank: rank, at: at, reg: reg, size: 3*size + 512}
	if rank != 0 { // else nothing but candidates that wait
		v.id = StateID{Rank: rank, Digest: reg.Digest()}
	}
	return v
}

// sight gives a version under the rules in force. Those of a stub are the unit's to give.
func (e *Engine) sight(v *version) *sight {
	rules := e.rules.Load()
	s := v.seen.Load()
	if s != nil && s.rules == rules && (len(s.block.Provisional) == 0 || s.heard == e.heard()) && !s.block.Incoming {
		return s
	}
	decl := (*lattice.Decl)(nil)
	if s != nil && s.rules == rules {
		decl = s.decl
	} else {
		decl = rules.decl(v.name)
	}
	return e.look(v, rules, decl)
}

// look projects a version.
func (e *Engine) look(v *version, rules *ruleTable, decl *lattice.Decl) *sight {
	heard := e.heard()
	s := &sight{rules: rules, heard: heard, decl: decl, block: e.project(v.name, v, v.reg, decl, heard)}
	v.seen.Store(s)
	return s
}

// project is what readers see of reg: a version's register, or a member in it.
func (e *Engine) project(name string, v *version, reg *lattice.Register, decl *lattice.Decl, heard Stamp) StateBlock {
	b := StateBlock{Register: name}
	if v.ordinal == 0 {
		return b
	}
	b.ID, b.Ordinal, b.Time = v.id, v.ordinal, v.at
	b.Waiting, b.Opaque = v.reg.Pending(), v.reg.Opaque()
	eye := lattice.Eye{Heard: heard, Missing: e.missing}
	view := reg.View(decl, &eye)
	if view.Value.IsAbsent() {
		return b
	}
	b.Exists, b.Value, b.Dots = true, view.Value, view.Dots
	b.Siblings, b.Provisional, b.Incoming = view.Siblings, view.Provisional, view.Incoming
	if b.Incoming { // until all of it is here, it has what was last told of it
		told, _, err := e.blockAt(name, v.ordinal)
		if err != nil {
			e.options.Log.Error("history", "register", name, "error", err)
		}
		b.Exists, b.Value = told.Exists, told.Value
	}
	return b
}

// member is what readers see of one register of a group.
func (e *Engine) member(name string, unit *version) StateBlock {
	b := e.project(name, unit, unit.reg.Member(name), nil, e.heard())
	if !b.Exists && b.ID != (StateID{}) {
		return StateBlock{Register: name, ID: b.ID, Ordinal: b.Ordinal, Time: b.Time}
	}
	return b
}

// A cell is a register's newest version, published or not.
type cell struct{ latest atomic.Pointer[version] }

// recent are the registers written lately, within a bound of memory. A register with an unpublished version is always
// here, whatever the bound: only here do readers find what was before it. The sequencer alone changes it.
type recent struct {
	mu       sync.RWMutex // for readers; the sequencer reads without it
	cur, old map[string]*cell
	bytes    int // of cur
	limit    int
	full     int    // bytes at which the next generation begins, above limit, until stays is published
	stays    uint64 // the newest ordinal that was unpublished when this one began
	// flips counts the generations. What is put here can be found until it has risen by two.
	flips atomic.Uint64
}

func (r *recent) init(limit int) {
	r.cur, r.old, r.limit = make(map[string]*cell), make(map[string]*cell), limit
}

// passBy notes that a register's state on the disk has changed without a version here. It is called when that can be read.
func (r *recent) passBy() { r.flips.Add(2) }

// newest gives the sequencer a register's newest version, nil if it is not here.
func (r *recent) newest(name string) *version {
	c := r.cur[name]
	if c == nil {
		c = r.old[name]
	}
	if c == nil {
		return nil
	}
	return c.latest.Load()
}

// find gives a reader a register's cell.
func (r *recent) find(name string) *cell {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c := r.cur[name]; c != nil {
		return c
	}
	return r.old[name]
}

// put makes v the newest version. Two generations stand in for an order of use: what the newer one did not meet again
// by the time it is full is forgotten.
func (r *recent) put(name string, v *version, published uint64) {
	r.bytes += v.size
	if c := r.cur[name]; c != nil {
		r.bytes -= c.latest.Load().size
		c.latest.Store(v)
		return
	}
	c := r.old[name]
	if c == nil {
		c = new(cell)
	}
	c.latest.Store(v)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cur[name] = c
	if r.bytes < r.limit || r.bytes < r.full && published < r.stays {
		return
	}
	next := make(map[string]*cell, len(r.cur)/2)
	was := r.bytes
	r.bytes, r.stays = 0, 0
	for _, m := range []map[string]*cell{r.old, r.cur} {
		for name, c := range m {
			if v := c.latest.Load(); v.ordinal > published {
				next[name] = c
				r.bytes += v.size
				r.stays = max(r.stays, v.ordinal)
			}
		}
	}
	r.cur, r.old = next, r.cur
	r.flips.Add(1)
	if was > 2*r.limit {
		r.old = next // a large write has gone through: it is not kept in memory whole
		r.flips.Add(1)
	}
	r.full = 2 * r.bytes // what has to stay is not gone through again with each register of one large write
}
