package engine

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
)

// A feed is what readers and observers may see: the commits that are durable, of which it keeps the latest within a
// bound of memory, and who waits for more.
type feed struct {
	published atomic.Uint64 // the newest ordinal that is durable: nothing above it is shown to anybody
	// shown is the newest of these that observers of everything see: the domain's own registers are not among that.
	shown atomic.Uint64

	mu       sync.RWMutex
	inflight []*commit // in order, all above published
	ring     []*commit // in order and without gaps, the last one is published
	bytes    int       // of ring
	limit    int
	closed   bool
	waiting  audience
	more     chan struct{} // closed by the next commit, of whatever; nil: nobody waits
}

// await takes a commit that is on its way to the disk. Commits come in the order of their ordinals.
func (f *feed) await(c *commit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.inflight = append(f.inflight, c)
}

// publish shows everything up to an ordinal: a log is durable as far as any of its parts is.
func (f *feed) publish(ordinal uint64) {
	if f.published.Load() >= ordinal {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for n < len(f.inflight) && f.inflight[n].ordinal <= ordinal {
		n++
	}
	if n == 0 {
		return
	}
	ready := f.inflight[:n]
	for _, c := range ready {
		f.ring = append(f.ring, c)
		f.bytes += c.size
		if (&Filter{}).matchesAny(c) {
			f.shown.Store(c.ordinal) // before it can be told of
		}
	}
	f.published.Store(ready[n-1].ordinal)
	for _, c := range ready {
		for _, v := range c.versions {
			v.prev.Store(nil)
		}
		c.versions = nil
		f.waiting.wake(c)
	}
	f.tell()
	clear(ready)
	f.inflight = f.inflight[n:]
	drop := 0
	for f.bytes > f.limit && drop < len(f.ring)-1 {
		f.bytes -= f.ring[drop].size
		drop++
	}
	clear(f.ring[:drop])
	f.ring = f.ring[drop:]
}

// Bounds of what an observer takes at once, and so of what a slow one keeps from being freed.
const (
	takeCommits = 64
	takeBytes   = 256 << 10
	lookCommits = 4096
)

// take gives commits behind an ordinal that match, oldest first, and how far it looked. Behind is false if the memory
// does not reach back to there.
func (f *feed) take(filter *Filter, after uint64) (commits []*commit, looked uint64, behind bool) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	published := f.published.Load()
	if after >= published {
		return nil, after, true
	}
	if len(f.ring) == 0 || f.ring[0].ordinal > after+1 {
		return nil, after, false
	}
	looked = after
	bytes := 0
	for _, c := range f.ring[after+1-f.ring[0].ordinal:] {
		if filter.matchesAny(c) {
			commits = append(commits, c)
			bytes += c.size
		}
		looked = c.ordinal
		if len(commits) == takeCommits || bytes > takeBytes || looked-after == lookCommits {
			break
		}
	}
	return commits, looked, true
}

// A watcher waits for the next commit that matches.
type watcher struct {
	filter Filter
	ready  chan uint64 // gets the commit's ordinal, once
}

// watch registers w, unless there is news behind an ordinal already.
func (f *feed) watch(w *watcher, after uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.published.Load() > after {
		return false
	}
	f.waiting.add(w)
	return true
}

func (f *feed) unwatch(w *watcher) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.waiting.remove(w)
}

// tell wakes those who wait for any commit at all.
func (f *feed) tell() {
	if f.more != nil {
		close(f.more)
		f.more = nil
	}
}

// next gives what is closed by the next commit; nil if there is one behind an ordinal already, or none will come.
func (f *feed) next(after uint64) <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || f.published.Load() > after {
		return nil
	}
	if f.more == nil {
		f.more = make(chan struct{})
	}
	return f.more
}

// reach waits until a commit is published.
func (f *feed) reach(ctx context.Context, ordinal uint64) error {
	for {
		at := f.published.Load()
		if at >= ordinal {
			return nil
		}
		news := f.next(at)
		if news == nil {
			if f.published.Load() == at {
				return ErrClosed
			}
			continue
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// shut wakes everybody, for good.
func (f *feed) shut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.tell()
	f.waiting.wakeAll(f.published.Load())
}

// An audience finds the watchers of a register without asking each of them, so that a commit does not cost more for
// those that it does not concern. Watchers are by the name or prefix they want; of prefixes, only as many lookups are
// made as there are different lengths.
type audience struct {
	names    map[string]map[*watcher]struct{}
	prefixes map[string]map[*watcher]struct{}
	lengths  map[int]int // of prefixes: how many are waited for
}

func (a *audience) of(w *watcher) (*map[string]map[*watcher]struct{}, string) {
	if w.filter.Name != "" {
		return &a.names, w.filter.Name
	}
	return &a.prefixes, w.filter.Prefix
}

func (a *audience) add(w *watcher) {
	table, key := a.of(w)
	if *table == nil {
		*table = make(map[string]map[*watcher]struct{})
	}
	if (*table)[key] == nil {
		(*table)[key] = make(map[*watcher]struct{})
		if w.filter.Name == "" {
			if a.lengths == nil {
				a.lengths = make(map[int]int)
			}
			a.lengths[len(key)]++
		}
	}
	(*table)[key][w] = struct{}{}
}

func (a *audience) remove(w *watcher) {
	table, key := a.of(w)
	watchers := (*table)[key]
	if _, ok := watchers[w]; !ok {
		return
	}
	if delete(watchers, w); len(watchers) > 0 {
		return
	}
	delete(*table, key)
	if w.filter.Name == "" {
		if a.lengths[len(key)]--; a.lengths[len(key)] == 0 {
			delete(a.lengths, len(key))
		}
	}
}

func (a *audience) wake(c *commit) {
	if len(a.names) == 0 && len(a.prefixes) == 0 {
		return
	}
	for i := range c.deltas {
		name := c.deltas[i].After.Register
		a.wakeThose(a.names[name], c.ordinal)
		for n := range a.lengths {
			if n <= len(name) {
				a.wakeThose(a.prefixes[name[:n]], c.ordinal)
			}
		}
	}
}

func (a *audience) wakeThose(watchers map[*watcher]struct{}, ordinal uint64) {
	for w := range watchers {
		w.ready <- ordinal // it has room for one, and is waited for once
		a.remove(w)
	}
}

func (a *audience) wakeAll(ordinal uint64) {
	for _, table := range []map[string]map[*watcher]struct{}{a.names, a.prefixes} {
		for _, watchers := range table {
			a.wakeThose(watchers, ordinal)
		}
	}
}

// Matches says whether the filter wants a register. The domain's own are wanted only by those who name one, or give a
// prefix that begins with "_".
func (f *Filter) Matches(register string) bool {
	return (f.Name == "" || f.Name == register) && strings.HasPrefix(register, f.Prefix) &&
		(f.Name != "" || f.Prefix != "" || !reservedName(register))
}

func (f *Filter) matchesAny(c *commit) bool {
	for i := range c.deltas {
		if f.Matches(c.deltas[i].After.Register) {
			return true
		}
	}
	return false
}
