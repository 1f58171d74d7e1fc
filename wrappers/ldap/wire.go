package ldap

import (
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// wire knows which peers of the relay are writing to which entries, so that what the feed shows gets its
// author. It is safe for concurrent use.
type wire struct {
	mu     sync.Mutex
	writes map[string][]*write // by dn.DN.Key
	now    func() time.Time
}

// A write is one request that changes an entry, on its way through the relay.
type write struct {
	who  wrappers.Who
	name string    // DN under which the server knows the author, "" where that isn't known
	done time.Time // when the server accepted it; zero: it has not answered
}

// wireMemory is how long a write that the server accepted is remembered for the feed to come.
const wireMemory = time.Minute

// mostWrites bounds what is remembered of one entry.
const mostWrites = 64

func newWire() *wire { return &wire{writes: map[string][]*write{}, now: time.Now} }

// begin notes a write to an entry before it is forwarded.
func (w *wire) begin(key string, who wrappers.Who, name string) *write {
	x := &write{who: who, name: name}
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.fresh(key)
	if len(list) >= mostWrites {
		list = list[1:]
	}
	w.writes[key] = append(list, x)
	return x
}

// end notes what became of it.
func (w *wire) end(key string, x *write, accepted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if accepted {
		x.done = w.now()
		return
	}
	list := w.writes[key]
	for i := range list {
		if list[i] == x {
			list = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	w.set(key, list)
}

// who gives the peer whose write an event of the feed at this entry shows, where one alone can be meant: the
// only one, or the only one of that name. name is what the server itself says of the author (modifiersName),
// "" where it says nothing.
func (w *wire) who(key, name string, same func(a, b string) bool) (wrappers.Who, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found *write
	for _, x := range w.fresh(key) {
		if name != "" && x.name != "" && !same(x.name, name) {
			continue
		}
		if found != nil && found.who != x.who {
			return wrappers.Who{}, false
		}
		found = x
	}
	if found == nil {
		return wrappers.Who{}, false
	}
	return found.who, true
}

// fresh forgets what is too old, of one entry. mu is held.
func (w *wire) fresh(key string) []*write {
	list := w.writes[key]
	if len(list) == 0 {
		return nil
	}
	old := w.now().Add(-wireMemory)
	kept := list[:0:0]
	for _, x := range list {
		if x.done.IsZero() || x.done.After(old) {
			kept = append(kept, x)
		}
	}
	w.set(key, kept)
	return kept
}

func (w *wire) set(key string, list []*write) {
	if len(list) == 0 {
		delete(w.writes, key)
		return
	}
	w.writes[key] = list
}
