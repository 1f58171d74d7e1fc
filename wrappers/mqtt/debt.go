package mqtt

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A ledger says what the broker owes the gateway: which topics its session there is subscribed to,
// so that a message which the broker has taken reaches the feed sooner or later. A relay lets
// publishes to mapped topics by only where that is so.
type ledger struct {
	mu  sync.Mutex // of changes
	now atomic.Pointer[debt]
}

// A debt is one state of the ledger; it does not change.
type debt struct {
	filters []string      // that the broker has granted
	sure    bool          // the feed stands, or was waited for in vain; else the session may be lost
	changed chan struct{} // closed when there is a newer state
}

func newLedger() *ledger {
	l := &ledger{}
	l.now.Store(&debt{sure: true, changed: make(chan struct{})})
	return l
}

// set replaces the state. With filters nil they stay.
func (l *ledger) set(filters []string, sure bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.now.Load()
	if filters == nil {
		filters = old.filters
	}
	l.now.Store(&debt{filters: filters, sure: sure, changed: make(chan struct{})})
	close(old.changed)
}

// covers tells whether a message to this topic would be owed.
func (d *debt) covers(topic string) bool {
	return slices.ContainsFunc(d.filters, func(f string) bool { return filterMatches(f, topic) })
}

// holds tells whether a message to this topic is owed, for sure.
func (l *ledger) holds(topic string) bool {
	d := l.now.Load()
	return d.sure && d.covers(topic)
}

// await waits until holds, at most so long. owed tells whether the topic is covered at the end;
// when it is and the feed is still away, nobody else waits for it in vain.
func (l *ledger) await(ctx context.Context, topic string, atMost time.Duration) (owed, waited bool) {
	late := time.NewTimer(atMost)
	defer late.Stop()
	for {
		d := l.now.Load()
		if d.sure && d.covers(topic) {
			return true, true
		}
		select {
		case <-d.changed:
			continue
		case <-ctx.Done():
		case <-late.C:
			if d = l.now.Load(); d.covers(topic) && !d.sure {
				l.set(nil, true)
			}
		}
		return l.now.Load().covers(topic), false
	}
}
