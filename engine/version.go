package engine

import (
	"sync"
	"sync/atomic"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A version is what one commit made of a register. It is immutable but for prev.
type version struct {
	ordinal uint64 // of the commit; 0: never written
	rank    uint64
	reg     *lattice.Register
	block   StateBlock
	// prev is the version before, as long as this one is not published: readers see that one until then.
	prev atomic.Pointer[version]
	size int // bytes in memory, roughly
}

func newVersion(name string, ordinal, rank uint64, at Stamp, reg *lattice.Register, size int) *version {
	v := &version{ordinal: ordinal, rank: rank, reg: reg, size: 3*size + 512}
	v.block = StateBlock{Register: name}
	if ordinal == 0 {
		return v
	}
	v.block.ID = StateID{Rank: rank, Digest: reg.Digest()}
	v.block.Ordinal, v.block.Time = ordinal, at
	if v.block.Value = reg.Project(); v.block.Value.IsAbsent() {
		return v
	}
	v.block.Exists = true
	n := 0
	for i := range reg.Fields {
		n += len(reg.Fields[i].Entries)
	}
	dots := make([]Dot, 0, n)
	v.block.Dots = make([]FieldDots, len(reg.Fields))
	for i := range reg.Fields {
		f, start := &reg.Fields[i], len(dots)
		for j := range f.Entries {
			dots = append(dots, f.Entries[j].Dot)
		}
		v.block.Dots[i] = FieldDots{f.Name, dots[start:len(dots):len(dots)]}
	}
	return v
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
}

func newRecent(limit int) recent {
	return recent{cur: make(map[string]*cell), old: make(map[string]*cell), limit: limit}
}

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
	if r.bytes < r.limit {
		return
	}
	next := make(map[string]*cell, len(r.cur)/2)
	r.bytes = 0
	for _, m := range []map[string]*cell{r.old, r.cur} {
		for name, c := range m {
			if v := c.latest.Load(); v.ordinal > published {
				next[name] = c
				r.bytes += v.size
			}
		}
	}
	r.cur, r.old = next, r.cur
}
