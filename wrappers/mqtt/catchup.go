package mqtt

import (
	"context"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// A group is a shared subscription (MQTT 5.0, section 4.8.2): each message goes to one member. It
// has a place in the stream of its own, so that a message waits when all members are busy.
// broker.mu guards it.
type group struct {
	key     string // "$share/name/filter"
	topics  string
	members []*subscription
	turn    int
	live    bool
	pos     position
	feeding bool
	back    []delivery    // taken back from a member that left before it got them
	room    chan struct{} // wakes the feeder: a member has room, or came
}

// hand gives e to the next member that may hear it and has room; false when none has. What no member may hear is handed.
func (g *group) hand(e *entry) bool {
	secret := true
	for range g.members {
		g.turn = (g.turn + 1) % len(g.members)
		sub := g.members[g.turn]
		if !sub.session.mayHear(e) {
			continue
		}
		secret = false
		d := delivery{entry: e, share: g}
		d.merge(sub)
		if sub.session.offer(d) {
			return true
		}
	}
	return secret && len(g.members) > 0
}

// join adds a member. b.mu is held.
func (b *broker) join(sub *subscription) {
	g := b.groups[sub.filter]
	if g == nil {
		g = &group{key: sub.filter, topics: sub.topics, live: true, room: make(chan struct{}, 1)}
		b.groups[sub.filter] = g
		b.tree.addGroup(g)
	}
	sub.group = g
	g.members = append(g.members, sub)
	s := sub.session
	s.mu.Lock()
	s.rooms = append(s.rooms, g.room)
	s.mu.Unlock()
	b.feedGroup(g)
}

// part removes a member; what it had not got yet goes to others. b.mu is held.
func (b *broker) part(sub *subscription) {
	g, s := sub.group, sub.session
	g.members = slices.DeleteFunc(g.members, func(o *subscription) bool { return o == sub })
	s.mu.Lock()
	s.rooms = slices.DeleteFunc(s.rooms, func(r chan struct{}) bool { return r == g.room })
	s.mu.Unlock()
	b.takeBack(s, g)
	if len(g.members) == 0 {
		b.tree.removeGroup(g)
		delete(b.groups, g.key)
		signal(g.room)
	}
}

// takeBack returns what s has queued from g, or with g nil from any group, to the groups. b.mu is
// held.
func (b *broker) takeBack(s *session, g *group) {
	s.mu.Lock()
	var touched []*group
	s.queue = slices.DeleteFunc(s.queue, func(d delivery) bool {
		if d.share == nil || g != nil && d.share != g {
			return false
		}
		s.queued -= d.entry.size()
		d.share.back = append(d.share.back, d)
		if !slices.Contains(touched, d.share) {
			touched = append(touched, d.share)
		}
		return true
	})
	s.mu.Unlock()
	for _, g := range touched {
		if len(g.members) > 0 {
			b.feedGroup(g)
		}
	}
}

// feedGroup starts the goroutine that brings a group back to the head of the stream, if it is not
// there and not under way. b.mu is held.
func (b *broker) feedGroup(g *group) {
	if g.feeding || g.live && len(g.back) == 0 {
		signal(g.room)
		return
	}
	g.feeding = true
	if g.live {
		g.live, g.pos = false, b.ring.position(b.ring.head)
	}
	b.bg.Go(func() {
		r := reader{
			b: b, pos: &g.pos,
			take: func(e *entry) bool { return b.handOn(g, e) },
			idle: func() bool { // b.mu is held
				if len(g.members) == 0 {
					g.feeding = false
					return true
				}
				if len(g.back) > 0 {
					return false
				}
				g.feeding, g.live = false, true
				return true
			},
			before: func() bool { return b.handBack(g) },
		}
		r.run(b.ctx)
		b.mu.Lock()
		g.feeding = false
		b.mu.Unlock()
	})
}

// handOn waits until a member has room for e; false when there is no member any more.
func (b *broker) handOn(g *group, e *entry) bool {
	for {
		b.mu.Lock()
		gone := len(g.members) == 0
		handed := !gone && (!filterMatches(g.topics, e.address) || g.hand(e))
		b.mu.Unlock()
		if gone || handed {
			return handed
		}
		select {
		case <-g.room:
		case <-b.ctx.Done():
			return false
		}
	}
}

// handBack hands on what members gave back.
func (b *broker) handBack(g *group) bool {
	for {
		b.mu.Lock()
		if len(g.back) == 0 {
			b.mu.Unlock()
			return true
		}
		e := g.back[0].entry
		b.mu.Unlock()
		if !b.handOn(g, e) {
			return false
		}
		b.mu.Lock()
		g.back = g.back[1:]
		b.mu.Unlock()
	}
}

// feed starts the goroutine that brings a session to the head of the stream. b.mu is held.
func (b *broker) feed(s *session) {
	c := s.conn
	if s.fed != nil || c == nil || c.left() {
		return
	}
	fed := make(chan struct{})
	s.fed = fed
	b.bg.Go(func() {
		defer close(fed)
		defer b.door.Recover(c.peer)
		ctx, cancel := context.WithCancel(b.ctx)
		defer cancel()
		b.bg.Go(func() {
			select {
			case <-c.gone:
				cancel()
			case <-ctx.Done():
			}
		})
		r := reader{
			b: b, pos: &s.pos,
			take: func(e *entry) bool {
				b.mu.Lock()
				d, ok := s.match(e)
				b.mu.Unlock()
				return !ok || d.qos == 0 && c.resumed && !c.caughtUp || s.push(c, d)
			},
			idle: func() bool {
				if len(s.owed) > 0 {
					return false
				}
				c.caughtUp, s.live = true, true
				s.fed = nil
				return true
			},
			before: func() bool { return b.sendOwed(ctx, s, c) },
		}
		r.run(ctx)
		b.mu.Lock()
		if s.fed == fed {
			s.fed = nil
		}
		b.mu.Unlock()
	})
}

// A reader walks the stream from a position to its head: through the ring where that reaches
// back, through the log where it does not.
type reader struct {
	b      *broker
	pos    *position         // b.mu guards it
	take   func(*entry) bool // false: give up
	before func() bool       // work to do first, also again; false: give up
	idle   func() bool       // at the head, with b.mu held: true ends the walk
}

func (r *reader) run(ctx context.Context) {
	for ctx.Err() == nil {
		if !r.before() {
			return
		}
		b := r.b
		b.mu.Lock()
		if r.pos.counted && r.pos.seq >= b.ring.head {
			if r.idle() {
				b.mu.Unlock()
				return
			}
			b.mu.Unlock()
			continue
		}
		var batch []*entry
		reaches := false
		if r.pos.counted {
			batch, reaches = b.ring.after(r.pos.seq, 64)
		}
		from := r.pos.from
		if !reaches && from == "" { // nothing says where it was: go on from here
			b.link.Count("gaps", 1)
			*r.pos = b.ring.position(b.ring.head)
			b.mu.Unlock()
			continue
		}
		b.mu.Unlock()
		if reaches {
			if !r.deliver(batch...) {
				return
			}
			continue
		}
		if !r.replay(ctx, from) {
			return
		}
	}
}

func (r *reader) deliver(batch ...*entry) bool {
	for _, e := range batch {
		r.b.mu.Lock()
		done := e.cursor != "" && r.pos.done[e.at()]
		r.b.mu.Unlock()
		if !done && !r.take(e) {
			return false
		}
		r.b.mu.Lock()
		r.pos.advance(e)
		r.b.mu.Unlock()
	}
	return true
}

// replay reads the log until it meets the ring.
func (r *reader) replay(ctx context.Context, from wrappers.Cursor) bool {
	last := from
	before := from
	for c, err := range r.b.link.Follow(ctx, wrappers.Notify, from) {
		if err != nil {
			return false
		}
		if c.Cursor != last {
			before, last = last, c.Cursor
		}
		r.b.mu.Lock()
		seq, met := r.b.ring.find(place{c.Cursor, c.Address})
		if met && !c.Snapshot {
			r.pos.seq, r.pos.counted = seq-1, true
			r.b.mu.Unlock()
			return true
		}
		skip := r.pos.done[place{c.Cursor, c.Address}]
		r.b.mu.Unlock()
		e, ok := changeEntry(&c)
		if !ok {
			continue
		}
		e.before = before
		if !skip && !r.take(e) {
			return false
		}
		r.b.mu.Lock()
		r.pos.advance(e)
		r.b.mu.Unlock()
		if !r.before() {
			return false
		}
	}
	return false
}

// sendOwed sends the registers behind new subscriptions (MQTT 5.0, section 3.3.1.3).
func (b *broker) sendOwed(ctx context.Context, s *session, c *conn) bool {
	for {
		b.mu.Lock()
		if len(s.owed) == 0 {
			b.mu.Unlock()
			return true
		}
		sub := s.owed[0]
		b.mu.Unlock()
		if !b.sendRegisters(ctx, s, c, sub) {
			return false
		}
		b.mu.Lock()
		if i := slices.Index(s.owed, sub); i >= 0 {
			s.owed = slices.Delete(s.owed, i, i+1)
		}
		b.mu.Unlock()
	}
}

// sendRegisters sends what the registers selected by sub hold, as retained messages: first those
// that were read before the SUBACK.
func (b *broker) sendRegisters(ctx context.Context, s *session, c *conn, sub *subscription) bool {
	for _, d := range sub.first {
		if !s.push(c, d) {
			return false
		}
	}
	if sub.whole {
		return true
	}
	sent := make(map[string]bool, len(sub.first))
	for _, d := range sub.first {
		sent[d.entry.address] = true
	}
	return b.readRegisters(ctx, c, sub, func(d delivery) bool { return sent[d.entry.address] || s.push(c, d) })
}

// readFirst reads what sub selects, up to so many bytes, so that what a subscriber has been told
// with its SUBACK is never older than what it gets then.
func (b *broker) readFirst(ctx context.Context, c *conn, sub *subscription, budget int) (used int) {
	sub.whole = b.readRegisters(ctx, c, sub, func(d delivery) bool {
		if used += d.entry.size(); used > budget {
			return false
		}
		sub.first = append(sub.first, d)
		return true
	})
	return used
}

// readRegisters hands the registers that sub selects to take, until it says false.
func (b *broker) readRegisters(ctx context.Context, c *conn, sub *subscription, take func(delivery) bool) bool {
	patterns, _ := b.link.Patterns()
	patterns = slices.DeleteFunc(slices.Clone(patterns), func(p wrappers.Pattern) bool {
		return !p.Out || !retained(p.Options) || !filterMeets(sub.topics, p.Segments)
	})
	if len(patterns) == 0 {
		return true
	}
	send := func(address string) bool {
		i := slices.IndexFunc(patterns, func(p wrappers.Pattern) bool { return patternMatches(p.Segments, address) })
		if i < 0 {
			return true
		}
		res, err := b.link.Do(ctx, wrappers.Operation{Verb: wrappers.Read, Address: address, Who: c.who})
		if err != nil {
			return ctx.Err() == nil // gone meanwhile, or not for this client
		}
		b.mu.Lock()
		newer := b.ring.newest[address] > sub.asked
		b.mu.Unlock()
		if newer || len(res.Payload.Raw) == 0 {
			return true // the stream brings it, in its turn
		}
		e := &entry{address: address, patch: -1, filter: sub}
		e.msg = publish{topic: []byte(address), qos: qosOf(patterns[i].Options), retain: true, payload: slices.Clone(res.Payload.Raw)}
		d := delivery{entry: e}
		d.merge(sub)
		return take(d)
	}
	if !strings.ContainsAny(sub.topics, "+#") {
		return send(sub.topics)
	}
	levels := strings.Split(sub.topics, "/")
	return b.walk(ctx, c, levels, 0, "", send)
}

// walk lists below prefix, which is the text of the first n levels, and goes only where the
// filter can select something.
func (b *broker) walk(ctx context.Context, c *conn, levels []string, n int, prefix string, send func(string) bool) bool {
	// Literal levels need no listing: they are the way to the first wildcard.
	literal := false
	for n < len(levels)-1 && levels[n] != "+" && levels[n] != "#" {
		prefix += levels[n] + "/"
		literal = true
		n++
	}
	switch {
	case n >= maxLevels:
		return true
	case levels[n] != "+" && levels[n] != "#":
		return send(prefix + levels[n])
	case levels[n] == "#" && literal: // "a/#" selects "a" too, and no listing has shown it
		if !send(strings.TrimSuffix(prefix, "/")) {
			return false
		}
	}
	op := wrappers.Operation{Verb: wrappers.List, Address: prefix, Who: c.who, Limit: 512}
	filter := strings.Join(levels, "/")
	for {
		res, err := b.link.Do(ctx, op)
		if err != nil {
			return ctx.Err() == nil // nothing is below it
		}
		for _, item := range res.Items {
			address, isPrefix := strings.CutSuffix(item.Address, "/")
			if !item.Prefix && !isPrefix {
				if filterMatches(filter, item.Address) && !send(item.Address) {
					return false
				}
				continue
			}
			if !item.Prefix {
				continue
			}
			if n == 0 && strings.HasPrefix(address, "$") {
				continue
			}
			deeper := levels
			if levels[n] == "#" { // anything below
				deeper = append(slices.Clone(levels[:n]), "+", "#")
			} else if n == len(levels)-1 {
				continue
			}
			if !b.walk(ctx, c, deeper, n+1, address+"/", send) {
				return false
			}
		}
		if !res.More || len(res.Items) == 0 {
			return true
		}
		op.After = res.Items[len(res.Items)-1].Address
	}
}
