package gateway

import (
	"context"
	"sync"
	"time"

	"github.com/spooksystems/gateway/mapping"
)

// place names an address of one wrapper: the key of its baseline, its owner, its write-back.
type place struct {
	server, address string
}

// String is the key under which records about the place are stored.
func (p place) String() string { return p.server + "\x00" + p.address }

// at is the place an address means: a query that no bind names, or in another order, is no other
// place.
func (l *link) at(set *mapping.Set, server, address string) place {
	if t, ok := set.At(l.name, server, address); ok {
		return place{server, t.Address}
	}
	return place{server, address}
}

// owners says who may write to an address of a real server now: one connection that has a write
// in flight, or the write-back. So register and server see the writes in one order.
type owners struct {
	mu    sync.Mutex
	held  map[place]*owned
	freed func(place) // called without the lock when an address becomes free
}

type owned struct {
	waiting []chan struct{}
}

// take waits until the address is free and takes it.
func (o *owners) take(ctx context.Context, p place) error {
	o.mu.Lock()
	h := o.held[p]
	if h == nil {
		o.held[p] = &owned{}
		o.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	h.waiting = append(h.waiting, turn)
	o.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	o.mu.Lock()
	for i, w := range h.waiting {
		if w == turn {
			h.waiting = append(h.waiting[:i], h.waiting[i+1:]...)
			o.mu.Unlock()
			return ctx.Err()
		}
	}
	o.mu.Unlock()
	o.release(p) // our turn came at the same moment: pass it on
	return ctx.Err()
}

// try takes the address if it is free.
func (o *owners) try(p place) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.held[p] != nil {
		return false
	}
	o.held[p] = &owned{}
	return true
}

// release gives the address to whoever has waited longest, or makes it free and says so.
func (o *owners) release(p place) {
	if o.pass(p) && o.freed != nil {
		o.freed(p)
	}
}

// pass is release without a word: for the write-back, which else would wake itself for ever over
// a spot whose turn has not come.
func (o *owners) pass(p place) (free bool) {
	o.mu.Lock()
	h := o.held[p]
	if h != nil && len(h.waiting) > 0 {
		turn := h.waiting[0]
		h.waiting = h.waiting[1:]
		o.mu.Unlock()
		close(turn)
		return false
	}
	delete(o.held, p)
	o.mu.Unlock()
	return true
}

// backoff is how long to wait before the nth try again: from 100 ms, doubling, to a minute.
func backoff(tries int) time.Duration {
	const least, most = 100 * time.Millisecond, time.Minute
	if tries > 10 {
		return most
	}
	return min(least<<max(tries-1, 0), most)
}
