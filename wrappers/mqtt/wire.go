package mqtt

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A wire holds the publishes that were seen on their way to the broker, until the feed shows
// them: those of peers, which then have a name and may be waiting for it, and the gateway's own.
type wire struct {
	seed maphash.Seed
	mu   sync.Mutex
	by   map[uint64][]*noted
	age  list.List // of *noted, oldest first
}

// A noted is one publish on its way.
type noted struct {
	sum   uint64
	who   wrappers.Who
	ours  bool
	kept  bool // it has RETAIN, which a broker of MQTT 3 does not pass on
	since time.Time
	shown chan struct{} // closed when the feed has shown it and it is durable
	elem  *list.Element // nil once matched or dropped
}

const (
	maxNoted  = 65536
	noteFor   = time.Minute // a publish that the feed has not shown by then was dropped by the broker
	sweepEach = 64
)

func newWire() *wire { return &wire{seed: maphash.MakeSeed(), by: make(map[uint64][]*noted)} }

func (w *wire) sum(topic, payload []byte) uint64 {
	var h maphash.Hash
	h.SetSeed(w.seed)
	_, _ = h.Write(topic) // never fails
	_ = h.WriteByte(0)
	_, _ = h.Write(payload)
	return h.Sum64()
}

// note remembers a publish before it is forwarded.
func (w *wire) note(topic, payload []byte, who wrappers.Who, ours, kept bool) *noted {
	n := &noted{sum: w.sum(topic, payload), who: who, ours: ours, kept: kept, since: time.Now(), shown: make(chan struct{})}
	w.mu.Lock()
	defer w.mu.Unlock()
	n.elem = w.age.PushBack(n)
	w.by[n.sum] = append(w.by[n.sum], n)
	for e := w.age.Front(); e != nil; e = w.age.Front() {
		old := e.Value.(*noted)
		if w.age.Len() <= maxNoted && n.since.Sub(old.since) < noteFor {
			break
		}
		w.drop(old)
	}
	return n
}

// match takes the oldest note of this publish. marked: the message bears this gateway's mark;
// where the protocol has no marks, either kind is taken.
func (w *wire) match(topic, payload []byte, marked, marks bool) *noted {
	sum := w.sum(topic, payload)
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.by[sum] {
		if !marks || n.ours == marked {
			w.drop(n)
			return n
		}
	}
	return nil
}

// forget drops a note: the broker refused the publish, or its peer has gone.
func (w *wire) forget(n *noted) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drop(n)
}

func (w *wire) drop(n *noted) {
	if n.elem == nil {
		return
	}
	w.age.Remove(n.elem)
	n.elem = nil
	left := w.by[n.sum]
	for i, o := range left {
		if o == n {
			left = append(left[:i], left[i+1:]...)
			break
		}
	}
	if len(left) == 0 {
		delete(w.by, n.sum)
	} else {
		w.by[n.sum] = left
	}
}
