package gateway

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// linkSet is what all links of a gateway share beyond the store.
type linkSet struct {
	mu      sync.Mutex
	byName  map[string]*link
	parking parking
	intents numbers
	broken  error // what kept a link from its records
}

// numbers names intents: never one that an earlier run may have left behind.
type numbers struct {
	run string
	n   atomic.Uint64
}

func (n *numbers) next() string { return n.run + "-" + strconv.FormatUint(n.n.Add(1), 36) }

// turns wakes whoever waits for the next configuration.
type turns struct {
	mu sync.Mutex
	ch chan struct{}
}

func (t *turns) wait() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ch == nil {
		t.ch = make(chan struct{})
	}
	return t.ch
}

func (t *turns) turn() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ch != nil {
		close(t.ch)
		t.ch = nil
	}
}

// NewLinks makes the doors to a store. Use must be called before Open.
func NewLinks(o LinksOptions) *Links {
	l := &Links{store: o.Store, log: o.Log, emit: o.Emit, count: o.Count, now: o.Now, recorders: o.recorders, site: o.Site, paced: !o.Unpaced}
	l.byName = map[string]*link{}
	l.intents.run = strconv.FormatInt(time.Now().UnixNano(), 36)
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	if l.emit == nil {
		l.emit = func(Event) {}
	}
	if l.now == nil {
		l.now = time.Now
	}
	if l.count == nil {
		l.count = func(string, string, int) {}
	}
	return l
}

// Use puts a configuration in force. Operations that have begun end under the one before; what
// was parked stays; a new or changed bind makes first contact.
func (l *Links) Use(g *Generation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gen.Store(g)
	for _, on := range l.byName {
		if on.info.Relay || on.info.Attached {
			l.brokenBy(on, on.back.meet(g.Set))
		}
		on.turns.turn()
	}
}

// brokenBy notes that the notebook could not be read: Err says so.
func (l *Links) brokenBy(on *link, err error) {
	if err != nil {
		l.log.Error("notebook", "wrapper", on.name, "error", err)
		l.broken = errors.Join(l.broken, fmt.Errorf("wrapper %s: %w", on.name, err))
	}
}

// Err says whether every link found its records: first contacts, and the writes of the last run
// whose outcome nobody knows, which Open takes up.
func (l *Links) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.broken
}

// Open gives the door of one wrapper. The same name gives the same door again, so that a wrapper
// that is restarted finds its addresses as it left them.
func (l *Links) Open(info LinkInfo) wrappers.Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	if on := l.byName[info.Name]; on != nil && on.info.Relay == info.Relay && on.info.Attached == info.Attached {
		on.info = info
		return on
	}
	on := &link{Links: l, info: info, name: info.Name, turns: &turns{}}
	on.owners.held = map[place]*owned{}
	on.base = baselines{store: l.store, wrapper: info.Name, recent: map[spot]*recent{}}
	on.readings = readings{store: l.store, wrapper: info.Name}
	on.back = newWriteBack(on)
	on.owners.freed = func(place) { on.back.nudge() }
	l.byName[info.Name] = on
	if info.Relay || info.Attached {
		l.brokenBy(on, on.back.begin(context.Background()))
		l.brokenBy(on, on.back.meet(l.gen.Load().Set))
		l.brokenBy(on, on.back.reopen())
	}
	return on
}

// Shut forgets a wrapper that a reload has removed. Its baselines and its cursor stay stored.
func (l *Links) Shut(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.byName, name)
}

func (l *Links) named(name string) *link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.byName[name]
}

func (l *Links) each() []*link {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []*link
	for _, on := range l.byName {
		if on.info.Relay || on.info.Attached {
			out = append(out, on)
		}
	}
	return out
}

// Contacts lists the binds whose first contact is not over.
func (l *Links) Contacts() []ContactStatus {
	var out []ContactStatus
	for _, on := range l.each() {
		out = append(out, on.back.status(on.set())...)
	}
	return out
}

// Lag tells how far each server is behind.
func (l *Links) Lag() []LagStatus {
	newest, err := l.store.Cursor(context.Background())
	if err != nil {
		return nil
	}
	var out []LagStatus
	for _, on := range l.each() {
		observed, waiting := on.back.lag()
		out = append(out, LagStatus{Wrapper: on.name, Behind: newest.Ordinal - min(observed, newest.Ordinal), Waiting: waiting})
	}
	return out
}

// Resting tells whether nothing is under way between registers and servers: every commit was looked at, every server
// told, every first contact made. What is parked or in conflict rests.
func (l *Links) Resting(ctx context.Context) (bool, error) {
	newest, err := l.store.Cursor(ctx)
	if err != nil {
		return false, kind(err)
	}
	for _, on := range l.each() {
		if !on.back.resting(newest.Ordinal) {
			return false, nil
		}
	}
	return true, nil
}
