package gateway

import (
	"sync"
	"sync/atomic"
)

// An eventHub hands events to whoever watches. It never blocks the operation that an event tells
// of: a watcher that does not keep up loses events, and is told how many.
type eventHub struct {
	mu       sync.Mutex
	watchers atomic.Pointer[[]*watcher] // replaced whole: emit takes no lock
}

// watcherQueue is how many events wait for one watcher.
const watcherQueue = 1024

type watcher struct {
	events chan Event
	lost   atomic.Uint64
}

// watch adds a watcher; stop ends it. Its channel is not closed.
func (h *eventHub) watch() (w *watcher, stop func()) {
	w = &watcher{events: make(chan Event, watcherQueue)}
	h.change(func(list []*watcher) []*watcher { return append(list, w) })
	return w, func() {
		h.change(func(list []*watcher) []*watcher {
			kept := list[:0]
			for _, x := range list {
				if x != w {
					kept = append(kept, x)
				}
			}
			return kept
		})
	}
}

func (h *eventHub) change(f func([]*watcher) []*watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*watcher
	if old := h.watchers.Load(); old != nil {
		list = append(list, *old...)
	}
	list = f(list)
	h.watchers.Store(&list)
}

func (h *eventHub) emit(e Event) {
	list := h.watchers.Load()
	if list == nil {
		return
	}
	for _, w := range *list {
		select {
		case w.events <- e:
		default:
			w.lost.Add(1)
		}
	}
}
