package virtual

import "sync"

// An event is what became of one entry. Of old and now one may be nil.
type event struct {
	old, now *record
	seq      uint64
}

// A changeLog remembers which entries changed lately, so that a client that was away is told of these instead of everything.
// tree.mu guards it.
type changeLog struct {
	seq   uint64 // of the newest
	ring  []logged
	first uint64 // the oldest in the ring
}

type logged struct {
	uuid [16]byte
	gone bool
}

// logLength is how many changes are remembered.
const logLength = 65_536

func (l *changeLog) init() { l.first = 1 }

func (l *changeLog) add(e logged) uint64 {
	l.seq++
	if len(l.ring) < logLength {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(l.seq-1)%logLength] = e
		l.first++
	}
	return l.seq
}

func (l *changeLog) at(seq uint64) logged { return l.ring[(seq-1)%logLength] }

func (l *changeLog) next(uuid [16]byte) uint64 { return l.add(logged{uuid: uuid}) }
func (l *changeLog) gone(uuid [16]byte) uint64 { return l.add(logged{uuid: uuid, gone: true}) }

// since gives the entries that changed behind seq, each once; false: that is not known any more.
func (l *changeLog) since(seq uint64) (uuids [][16]byte, ok bool) {
	if seq > l.seq || seq+1 < l.first {
		return nil, false
	}
	seen := map[[16]byte]bool{}
	for s := seq + 1; s <= l.seq; s++ {
		if u := l.at(s).uuid; !seen[u] {
			seen[u] = true
			uuids = append(uuids, u)
		}
	}
	return uuids, true
}

// A subscription is who listens to a tree: a persistent search, or a content synchronization that persists.
type subscription struct {
	mu     sync.Mutex
	queue  []event
	signal chan struct{}
	lost   bool // it did not keep up, and what it missed is gone
}

// queueLength bounds what waits for one listener.
const queueLength = 16_384

// subscribe begins to listen behind the change seq that is the newest now.
func (t *tree) subscribe() (sub *subscription, seq uint64) {
	sub = &subscription{signal: make(chan struct{}, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.subs[sub] = struct{}{}
	return sub, t.log.seq
}

// unsubscribe ends it.
func (t *tree) unsubscribe(sub *subscription) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.subs, sub)
}

// tell gives an event to all who listen. mu is held.
func (t *tree) tell(e event) {
	for sub := range t.subs {
		sub.mu.Lock()
		if len(sub.queue) < queueLength {
			sub.queue = append(sub.queue, e)
		} else {
			sub.lost = true
		}
		sub.mu.Unlock()
		select {
		case sub.signal <- struct{}{}:
		default:
		}
	}
}

// take gives what has happened; lost: not all of it.
func (sub *subscription) take() (events []event, lost bool) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	events, sub.queue = sub.queue, nil
	return events, sub.lost
}
