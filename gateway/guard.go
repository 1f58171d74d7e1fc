package gateway

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A guard stands before the first contact of a bind that says who wins. Until all that both sides have is compared,
// nothing is decided: what differs is held like a conflict, and counted. Up to max_change `first` decides then; above it
// the bind stops, traffic passing, until somebody approves.
type guard struct {
	of       int  // registers that the bind has
	changed  int  // of them that the other side would change
	stopped  bool // above max_change
	approved bool
	open     bool // passed: `first` decides
	replay   bool // what the server showed meanwhile is to be heard again
	seen     map[spot]wrappers.Observation
}

// mostShown bounds the addresses that status lists of one bind that is held.
const mostShown = 20

// tableApproved holds wrapper and bind: a first contact that somebody approved, by what the bind meant then.
const tableApproved = "approved"

func (b *writeBack) newGuard(bind *mapping.Bind) (*guard, error) {
	as, err := b.l.store.Kept(tableApproved, b.l.name+"\x00"+bind.ID())
	return &guard{approved: string(as) == bind.Hash(), seen: map[spot]wrappers.Observation{}}, err
}

// holds tells whether nothing is decided yet.
func (g *guard) holds() bool { return g != nil && !g.open }

func (g *guard) why(bind *mapping.Bind) string {
	return fmt.Sprintf("first = %q would change %d of %d registers or addresses, and max_change is %s: look at them, then `spookgw approve %s`",
		bind.First(), g.changed, g.of, bind.MaxChange(), bind.Source())
}

// guarded tells whether a bind's first contact decides nothing yet.
func (b *writeBack) guarded(bind *mapping.Bind) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.binds[bind.ID()]
	return c != nil && c.guard.holds()
}

// count counts the registers that a guarded bind has.
func (b *writeBack) count(ctx context.Context, c *contact) error {
	if !c.guard.holds() {
		return nil
	}
	n := 0
	for st, err := range b.l.store.List(ctx, c.bind.RegisterPrefix(), "", 0) {
		if err != nil {
			return err
		}
		if c.bind.Has(st.Register) {
			n++
		}
	}
	b.mu.Lock()
	c.guard.of = n
	b.mu.Unlock()
	return nil
}

// heard tells whether a bind's sides are compared by what its server shows, and not by asking it.
func (b *writeBack) heard(bind *mapping.Bind) bool {
	return b.l.info.Protocol.Feed || !bind.Outward()
}

// holdSeen remembers what a server showed at a spot about which nothing is decided: it may not show it again.
func (b *writeBack) holdSeen(s spot, bind *mapping.Bind, o *wrappers.Observation) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.binds[bind.ID()]
	if c == nil || !c.guard.holds() {
		return
	}
	if len(b.conflicts[s]) == 0 {
		delete(c.guard.seen, s) // a peer has written there: it is decided
		return
	}
	kept := *o
	kept.Payload.Raw, kept.Payload.Meta = bytes.Clone(o.Payload.Raw), maps.Clone(o.Payload.Meta)
	kept.Keep = nil // stored already
	kept.Foreign = false
	c.guard.seen[s] = kept
}

// passesLocked tells whether a bind whose sides are compared may go on. One that may not yet comes by again.
func (b *writeBack) passesLocked(c *contact) bool {
	g := c.guard
	if !g.holds() {
		return true
	}
	spots := b.heldLocked(c)
	g.changed = len(spots)
	if !g.approved && c.bind.MaxChange().Exceeded(g.changed, 0, g.of) {
		if !g.stopped {
			b.l.log.Error("first contact stopped", "wrapper", b.l.name, "bind", c.bind.Source(), "why", g.why(c.bind))
		}
		g.stopped = true
		return false
	}
	g.open, g.stopped = true, false
	if len(spots) == 0 {
		return true
	}
	if b.heard(c.bind) {
		g.replay = true
		c.left++ // until it is heard
		b.wakeScan()
		return false
	}
	for _, s := range spots {
		d := b.markLocked(spotOf(c.bind, s), max(b.observed, 1))
		if d.contact == nil {
			d.contact = c
			c.left++
		}
		if d.outLocked() || d.locked {
			d.ask = true
		} else {
			d.read = true
		}
	}
	b.nudge()
	return false
}

// heldLocked lists the spots of a bind at which both sides differ.
func (b *writeBack) heldLocked(c *contact) (spots []spot) {
	set := b.l.set()
	for s := range b.conflicts {
		if at := b.l.bindAt(set, s); at != nil && at.ID() == c.bind.ID() {
			spots = append(spots, s)
		}
	}
	return spots
}

// replay hears again what the server showed while nothing was decided.
func (b *writeBack) replay(ctx context.Context, c *contact) {
	b.mu.Lock()
	var seen []wrappers.Observation
	for _, s := range b.heldLocked(c) {
		if o, ok := c.guard.seen[s]; ok {
			seen = append(seen, o)
		}
	}
	b.mu.Unlock()
	if err := b.l.Seen(ctx, wrappers.Position{Feed: b.l.info.Protocol.Feed, Snapshot: wrappers.SnapshotPart}, seen); err != nil {
		if ctx.Err() == nil {
			b.l.log.Error("first contact", "wrapper", b.l.name, "bind", c.bind.Source(), "err", err)
			time.AfterFunc(time.Second, b.wakeScan)
		}
		return
	}
	b.mu.Lock()
	c.guard.replay, c.guard.seen = false, nil
	c.left--
	b.settledLocked(c)
	b.mu.Unlock()
}

func (b *writeBack) wakeScan() {
	select {
	case b.scans <- struct{}{}:
	default:
	}
}

// approve lets a bind that stopped go on. False: there is none at that line.
func (b *writeBack) approve(ctx context.Context, source string) (bool, error) {
	b.mu.Lock()
	var found *contact
	for _, c := range b.binds {
		if c.bind.Source() == source && c.guard.holds() && c.guard.stopped {
			found = c
		}
	}
	b.mu.Unlock()
	if found == nil {
		return false, nil
	}
	r := engine.Record{Table: tableApproved, Key: b.l.name + "\x00" + found.bind.ID(), Value: []byte(found.bind.Hash())}
	if err := b.l.store.KeepRecords(ctx, true, r); err != nil {
		return false, kind(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	found.guard.approved = true
	b.settledLocked(found)
	return true, nil
}

// Approve lets first contacts go on that stopped above max_change: those of the bind at a line, as status names it.
func (l *Links) Approve(ctx context.Context, source string) (wrappers []string, err error) {
	for _, on := range l.each() {
		ok, err := on.back.approve(ctx, source)
		if err != nil {
			return wrappers, err
		}
		if ok {
			wrappers = append(wrappers, on.name)
			l.log.Info("first contact approved", "wrapper", on.name, "bind", source)
		}
	}
	return wrappers, nil
}

// approvePlanned lets the first contacts of binds that somebody has approved by their plan run without stopping.
func (l *Links) approvePlanned(ctx context.Context, binds []*mapping.Bind) error {
	var records []engine.Record
	for _, b := range binds {
		for _, wrapper := range b.Wrappers() {
			records = append(records, engine.Record{Table: tableApproved, Key: wrapper + "\x00" + b.ID(), Value: []byte(b.Hash())})
		}
	}
	return kind(l.store.KeepRecords(ctx, true, records...))
}

// firstContact says who wins where both sides have a value for the first time.
func (l *link) firstContact(b *mapping.Bind) engine.FirstContact {
	if l.back.guarded(b) {
		return engine.AskFirst
	}
	return firstContact(b)
}

// firstContact is what the bind itself says of that.
func firstContact(b *mapping.Bind) engine.FirstContact {
	switch b.First() {
	case "source":
		return engine.SourceFirst
	case "register":
		return engine.RegisterFirst
	}
	return engine.AskFirst
}
