package gateway

import (
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// Tables of the engine's notebook that belong to the links.
const (
	tableBaseline = "baseline" // wrapper, server, address, register: what the server last showed
	tableContact  = "contact"  // wrapper, bind: first contact is over
	tableClaim    = "claim"    // wrapper, server, address in lower case: the address as it was first, where case tells none apart
	tableConflict = "conflict" // wrapper, server, address, register: sides that differ at first contact
	tableCursor   = "cursor"   // wrapper: write-back has settled everything up to here
	tableDocument = "document" // wrapper, server, address: the whole document that a peer of a virtual wrapper wrote last
	tableIntent   = "intent"   // wrapper, number: a write on its way to a real server
	tableReading  = "reading"  // wrapper, server, address, register, field: what an address of a virtual wrapper last reported of a sum
	tableParked   = "parked"   // id: an operation that could not be applied
	tableTold     = "told"     // register, wrapper, server, address: the state that the server took last, and when
	tableWrapper  = "wrapper"  // wrapper, key: the wrapper's own records
)

// spot is a register at a place: two binds may share an address.
type spot struct {
	place
	register string
}

func (s spot) key(wrapper string) string {
	return wrapper + "\x00" + s.place.String() + "\x00" + s.register
}

// baselines keeps what the servers of one wrapper last showed: on disk, with the recent ones in
// memory. Only this link writes them.
type baselines struct {
	store   Store
	wrapper string

	// turn is held from looking at a baseline until what follows from it is stored or submitted:
	// a feed and the write-back move the same one.
	turn sync.Mutex

	mu     sync.Mutex
	recent map[spot]*recent
	sweep  int          // so many in recent are looked through next
	ahead  map[spot]int // candidates behind the baseline that nobody can see yet
}

type recent struct {
	known   bool
	base    engine.Baseline
	touched time.Time // when the server's state was last changed or shown through this link
	moved   bool      // it was, in this run: else an earlier run may have died before it noted what it sent
}

// most bounds the baselines held in memory; young are kept whatever the number, since a poll may
// still be on its way that began before them.
const (
	mostRecent  = 4096
	youngRecent = time.Minute
)

func (b *baselines) at(s spot) (*recent, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r := b.recent[s]; r != nil {
		return r, nil
	}
	raw, err := b.store.Kept(tableBaseline, s.key(b.wrapper))
	if err != nil {
		return nil, kind(err)
	}
	r := &recent{}
	if raw != nil {
		if r.base, err = engine.ParseBaseline(raw); err != nil {
			return nil, err
		}
		r.known = true
	}
	if len(b.recent) >= max(mostRecent, b.sweep) {
		now := time.Now()
		for k, old := range b.recent {
			if now.Sub(old.touched) > youngRecent {
				delete(b.recent, k)
			}
			if len(b.recent) < mostRecent*3/4 {
				break
			}
		}
		b.sweep = len(b.recent) * 5 / 4 // a look at all that are young is not made for each new one
	}
	b.recent[s] = r
	return r, nil
}

// get gives the baseline and whether there is one.
func (b *baselines) get(s spot) (engine.Baseline, bool, error) {
	r, err := b.at(s)
	if err != nil {
		return engine.Baseline{}, false, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return r.base, r.known, nil
}

// heard gives the baseline of a spot of which this link has heard lately, unless it is ahead of what readers see.
func (b *baselines) heard(s spot) (engine.Baseline, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.recent[s]
	if r == nil || !r.known || !r.moved || b.ahead[s] > 0 {
		return engine.Baseline{}, false
	}
	return r.base, true
}

// record gives the stored form, and from now on get gives base.
func (b *baselines) record(s spot, base engine.Baseline) engine.Record {
	b.mu.Lock()
	b.recent[s] = &recent{known: true, base: base, touched: time.Now(), moved: true}
	b.mu.Unlock()
	return b.stored(s, base)
}

// sending gives the stored form of a baseline to which only a write on its way was added.
func (b *baselines) sending(s spot, base engine.Baseline) engine.Record {
	b.mu.Lock()
	r := &recent{known: true, base: base, touched: time.Now()}
	if old := b.recent[s]; old != nil {
		r.moved = old.moved
	}
	b.recent[s] = r
	b.mu.Unlock()
	return b.stored(s, base)
}

func (b *baselines) stored(s spot, base engine.Baseline) engine.Record {
	raw, err := base.AppendTo(nil)
	if err != nil {
		panic(err) // values that came out of the codec go into it
	}
	return engine.Record{Table: tableBaseline, Key: s.key(b.wrapper), Value: raw}
}

// inherited tells whether the baseline is as an earlier run left it.
func (b *baselines) inherited(s spot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.recent[s]
	return r != nil && r.known && !r.moved
}

// touchedSince tells whether the server's state at the spot was changed through this link after t.
func (b *baselines) touchedSince(s spot, t time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	r := b.recent[s]
	return r != nil && r.touched.After(t)
}

// lead notes that a spot's baseline is ahead of what readers see, until the returned function is
// called: the two can't be compared meanwhile.
func (b *baselines) lead(spots []spot) (over func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ahead == nil {
		b.ahead = map[spot]int{}
	}
	for _, s := range spots {
		b.ahead[s]++
	}
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, s := range spots {
			if b.ahead[s]--; b.ahead[s] == 0 {
				delete(b.ahead, s)
			}
		}
	}
}

// leads tells whether the baseline is ahead of what readers see.
func (b *baselines) leads(s spot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ahead[s] > 0
}

// forget makes the next look go to the disk: what was to be stored was not.
func (b *baselines) forget(p place) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.recent {
		if s.place == p {
			delete(b.recent, s)
		}
	}
}
