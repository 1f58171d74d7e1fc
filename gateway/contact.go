package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// contacts guards the first contact of a new or changed bind with a server that may be full.
//
// Nothing is written to an address before its server has said what it has there: a feed is listed
// first, other servers are read back address by address. Missing sides are filled; where both have
// a value and they differ, the bind's `first` decides, and without it the address is listed as a
// conflict and left alone, traffic passing, until one is set.
type contacts struct {
	binds     map[string]*contact // by bind id; those that are not settled
	conflicts map[spot][]string   // fields that differ
	differed  map[spot]string     // by the meaning of which bind they were found; a conflict is not asked about twice
	scans     chan struct{}
}

// contact is one bind that has not been held against its server yet.
type contact struct {
	bind    *mapping.Bind
	waiting bool // for the feed's listing
	scanned bool // all its registers are due
	left    int  // of those
	guard   *guard
}

func (c *contacts) init() {
	c.binds, c.conflicts, c.scans = map[string]*contact{}, map[spot][]string{}, make(chan struct{}, 1)
	c.differed = map[spot]string{}
}

// meet compares the binds of a new configuration with those that were met before.
func (b *writeBack) meet(set *mapping.Set) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	binds := map[string]*contact{}
	for _, bind := range set.Binds() {
		if !slices.Contains(bind.Wrappers(), b.l.name) {
			continue
		}
		met, err := b.l.store.Kept(tableContact, b.l.name+"\x00"+bind.ID())
		if err != nil {
			return kind(err)
		}
		as, shown, _ := strings.Cut(string(met), " ")
		if as == bind.Hash() && shown == b.shown() {
			continue
		}
		if c := b.binds[bind.ID()]; c != nil && c.bind.Hash() == bind.Hash() {
			binds[bind.ID()] = c
			continue
		}
		if as == bind.Hash() {
			// It means what it meant, and its server may know other registers.
			binds[bind.ID()] = &contact{bind: bind, scanned: !bind.Outward() || bind.Events()}
			continue
		}
		c := &contact{bind: bind, waiting: b.l.info.Protocol.Feed && bind.Inward(), scanned: !bind.Outward() || bind.Events()}
		if bind.First() != "" && bind.Inward() {
			if c.guard, err = b.newGuard(bind); err != nil {
				return kind(err)
			}
			c.scanned = false
			c.waiting = c.waiting || !bind.Outward() && b.l.info.Attached // for the first round of polling
		}
		binds[bind.ID()] = c
	}
	b.binds = binds
	for _, c := range binds {
		b.settledLocked(c)
	}
	for r, err := range b.l.store.EachKept(tableConflict, b.l.name+"\x00") {
		if err != nil {
			return kind(err)
		}
		var fields []string
		parts := strings.SplitN(r.Key, "\x00", 4)
		if len(parts) == 4 && json.Unmarshal(r.Value, &fields) == nil {
			b.conflicts[spot{place{parts[1], parts[2]}, parts[3]}] = fields
		}
	}
	select {
	case b.scans <- struct{}{}:
	default:
	}
	b.nudge()
	return nil
}

// waits tells whether a bind's server has to be listed first.
func (b *writeBack) waits(bind *mapping.Bind) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.binds[bind.ID()]
	return c != nil && c.waiting
}

// listed: the feed has shown everything that its server has.
func (b *writeBack) listed() {
	b.mu.Lock()
	for _, c := range b.binds {
		c.waiting = false
		b.settledLocked(c)
	}
	b.mu.Unlock()
	b.nudge()
}

// scan makes every register of a new bind due, so that what its server lacks is filled.
func (b *writeBack) scan(ctx context.Context) {
	for {
		select {
		case <-b.scans:
		case <-ctx.Done():
			return
		}
		var todo, told []*contact
		b.mu.Lock()
		for _, c := range b.binds {
			if !c.scanned {
				todo = append(todo, c)
			}
			if c.guard != nil && c.guard.replay {
				told = append(told, c)
			}
		}
		b.mu.Unlock()
		for _, c := range told {
			b.replay(ctx, c)
		}
		for _, c := range todo {
			if err := b.scanBind(ctx, c); err != nil {
				if ctx.Err() == nil {
					b.l.log.Error("first contact", "wrapper", b.l.name, "bind", c.bind.Source(), "err", err)
				}
				return
			}
		}
	}
}

func (b *writeBack) scanBind(ctx context.Context, c *contact) error {
	set := b.l.set()
	if err := b.count(ctx, c); err != nil {
		return err
	}
	for _, u := range set.Under(b.l.name, "", "") {
		if u.Bind.ID() != c.bind.ID() || u.Bind.Events() {
			continue
		}
		for st, err := range b.l.store.List(ctx, u.RegisterPrefix, "", 0) {
			if err != nil {
				return err
			}
			for _, p := range set.Places(b.l.name, st.Register) {
				if p.Bind.ID() != c.bind.ID() {
					continue
				}
				if err := b.makeRoom(ctx); err != nil {
					return err
				}
				b.mu.Lock()
				d := b.markLocked(spotOf(p.Bind, spot{place{p.Server, p.Address}, st.Register}), max(b.observed, 1))
				if d.contact == nil {
					d.contact = c
					c.left++
				}
				b.mu.Unlock()
				b.nudge()
			}
		}
	}
	b.mu.Lock()
	c.scanned = true
	b.settledLocked(c)
	b.mu.Unlock()
	return nil
}

// settledLocked notes that a bind's first contact is over, if it is.
func (b *writeBack) settledLocked(c *contact) {
	if c.waiting || !c.scanned || c.left > 0 || b.binds[c.bind.ID()] != c || !b.passesLocked(c) {
		return
	}
	delete(b.binds, c.bind.ID())
	b.l.keepQuietly(engine.Record{Table: tableContact, Key: b.l.name + "\x00" + c.bind.ID(), Value: []byte(strings.TrimSpace(c.bind.Hash() + " " + b.shown()))})
}

// shown names what restricts what this wrapper's server may know; "" if nothing does.
func (b *writeBack) shown() string { return b.l.gen.Load().Access.shown() }

// conflict notes, or takes back, that the sides differ at a spot.
func (b *writeBack) conflict(ctx context.Context, s spot, bind *mapping.Bind, fields []string) error {
	b.mu.Lock()
	had := b.conflicts[s]
	if len(fields) == 0 {
		delete(b.conflicts, s)
		delete(b.differed, s)
	} else {
		b.conflicts[s] = fields
		b.differed[s] = bind.Hash()
	}
	b.mu.Unlock()
	if slices.Equal(had, fields) {
		return nil
	}
	r := engine.Record{Table: tableConflict, Key: s.key(b.l.name)}
	if len(fields) > 0 {
		raw, err := json.Marshal(fields)
		if err != nil {
			return err
		}
		r.Value = raw
	}
	if len(fields) > 0 && !b.guarded(bind) {
		b.l.log.Warn("first contact: both sides have a value and they differ; set `first` on the bind",
			"wrapper", b.l.name, "bind", bind.Source(), "address", s.address, "register", s.register, "fields", fields)
	}
	return kind(b.l.store.KeepRecords(ctx, true, r))
}

// compared tells whether a spot was found to be in conflict by what the bind means now.
func (b *writeBack) compared(s spot, bind *mapping.Bind) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.differed[s] == bind.Hash()
}

func (b *writeBack) inConflict(s spot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.conflicts[s]) > 0
}

// status lists the binds whose first contact is not over.
func (b *writeBack) status(set *mapping.Set) []ContactStatus {
	b.mu.Lock()
	defer b.mu.Unlock()
	open := map[string]*ContactStatus{}
	at := func(bind *mapping.Bind) *ContactStatus {
		if open[bind.ID()] == nil {
			open[bind.ID()] = &ContactStatus{Wrapper: b.l.name, Bind: bind.Source(), State: "settling"}
		}
		return open[bind.ID()]
	}
	for _, c := range b.binds {
		s := at(c.bind)
		if c.waiting {
			s.State, s.Detail = "waiting", "for the server's listing"
		} else if c.guard != nil && c.guard.stopped {
			s.State, s.Detail = "stopped", c.guard.why(c.bind)
		} else if c.left > 0 {
			s.Detail = fmt.Sprintf("%d addresses to compare", c.left)
		}
	}
	for sp, fields := range b.conflicts {
		if bind := b.l.bindAt(set, sp); bind != nil {
			s := at(bind)
			if c := b.binds[bind.ID()]; c != nil && c.guard.holds() {
				if len(s.Conflicts) < mostShown {
					s.Conflicts = append(s.Conflicts, fmt.Sprintf("%s (%s): %s", sp.address, sp.register, strings.Join(fields, ", ")))
				}
				continue
			}
			s.State = "conflict"
			s.Detail = "both sides have a value and they differ: set `first` on the bind"
			s.Conflicts = append(s.Conflicts, fmt.Sprintf("%s (%s): %s", sp.address, sp.register, strings.Join(fields, ", ")))
		}
	}
	var out []ContactStatus
	for _, s := range open {
		slices.Sort(s.Conflicts)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b ContactStatus) int { return strings.Compare(a.Bind, b.Bind) })
	return out
}

// reopen takes up the writes of the last run whose outcome nobody knows.
func (b *writeBack) reopen() error {
	for r, err := range b.l.store.EachKept(tableIntent, b.l.name+"\x00") {
		if err != nil {
			return kind(err)
		}
		var in openIntent
		if err := json.Unmarshal(r.Value, &in); err != nil {
			return fmt.Errorf("intent %q: %w", r.Key, err)
		}
		if in.Register != nil {
			b.look(spot{b.l.at(b.l.set(), in.Server, in.Address), *in.Register}, r.Key)
			continue
		}
		b.l.owners.try(b.l.at(b.l.set(), in.Server, in.Address)) // ours, or an earlier intent's for the same address
		b.readBack(r.Key, in)
	}
	return nil
}

// readBack asks the server what became of a write; the address is ours meanwhile.
func (b *writeBack) readBack(key string, in openIntent) {
	p := b.l.at(b.l.set(), in.Server, in.Address)
	at, ok := b.l.set().At(b.l.name, in.Server, in.Address)
	if !ok || in.Verb == wrappers.Message || !at.Bind.Inward() {
		op := wrappers.Operation{Verb: in.Verb, Server: in.Server, Address: in.Address, Who: in.Who}
		err := b.l.park(context.Background(), &op, "in", at.Register, errUnknownOutcome, true)
		if err != nil {
			b.l.log.Error("outcome unknown", "wrapper", b.l.name, "address", in.Address, "err", err)
		} else {
			b.l.keepQuietly(engine.Record{Table: tableIntent, Key: key})
		}
		b.l.owners.release(p)
		return
	}
	b.mu.Lock()
	s := spot{p, at.Register}
	d := b.due[s]
	if d == nil {
		d = &due{spot: s, since: max(b.observed, 1)}
		b.due[s] = d
	}
	d.read, d.locked = true, true
	d.intents = append(d.intents, key)
	b.queueLocked(d)
	b.mu.Unlock()
	b.nudge()
}

// lookAgain has the server be asked what it has at a spot, whose answer a write may have overtaken: it may not say it again.
func (b *writeBack) lookAgain(s spot) {
	raw, err := json.Marshal(openIntent{Verb: wrappers.Read, Server: s.server, Address: s.address, Register: &s.register, Since: time.Now()})
	if err != nil {
		panic(err) // texts and numbers
	}
	key := b.l.name + "\x00" + b.l.intents.next()
	b.l.keepQuietly(engine.Record{Table: tableIntent, Key: key, Value: raw})
	b.look(s, key)
}

func (b *writeBack) look(s spot, key string) {
	b.mu.Lock()
	d := b.touchLocked(s, max(b.observed, 1))
	d.looks = append(d.looks, key)
	if d.outLocked() || d.locked {
		d.ask = true
	} else {
		d.read = true
	}
	b.mu.Unlock()
	b.nudge()
}

func intentsGone(keys []string) []engine.Record {
	var out []engine.Record
	for _, k := range keys {
		out = append(out, engine.Record{Table: tableIntent, Key: k})
	}
	return out
}
