package mqtt

import (
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// onSubscribe adds subscriptions. Each is granted if a bind may have topics that it selects; its
// registers follow the SUBACK as retained messages, then the stream from where it stood.
func (c *conn) onSubscribe(p *subscribe) error {
	b, s := c.broker, c.session
	patterns, _ := b.link.Patterns()
	codes := make([]byte, len(p.requests))
	id := 0
	if v, ok := property(p.props, propSubscriptionID); ok {
		id = varintValue(v)
	}
	b.mu.Lock()
	behind := len(s.owed)
	for i, r := range p.requests {
		code, err := b.subscribe(s, r, id, patterns)
		if err != nil {
			b.mu.Unlock()
			return err
		}
		if code >= 0x80 {
			b.link.Count("refused_subscriptions", 1)
			b.cfg.Log.Info("subscription refused", "filter", r.filter, "peer", c.who.Peer, "principal", c.who.Principal, "reason", reasonNames[code])
			if !c.v5 {
				code = 0x80
			}
		}
		codes[i] = code
	}
	if len(s.owed) > 0 && s.live {
		s.live, s.pos = false, b.ring.position(b.ring.head)
	}
	var fresh []*subscription
	if behind == 0 { // else the client has enough to read
		fresh = slices.Clone(s.owed)
	}
	b.mu.Unlock()
	budget := b.cfg.Limits.Queue
	for _, sub := range fresh {
		if budget > 0 {
			budget -= b.readFirst(b.ctx, c, sub, budget)
		}
	}
	if s.lasts() {
		if err := b.storeSession(s); err != nil {
			return &goodbye{codeImplementation, err}
		}
	}
	if err := c.answer(func(buf []byte) []byte { return appendSuback(buf, c.v5, typeSuback, p.id, codes) }); err != nil {
		return err
	}
	b.mu.Lock()
	if !s.live {
		b.feed(s)
	}
	b.mu.Unlock()
	return nil
}

// subscribe makes one subscription and gives its reason code. b.mu is held.
func (b *broker) subscribe(s *session, r request, id int, patterns []wrappers.Pattern) (byte, error) {
	share, topics, err := splitFilter(r.filter)
	if err != nil {
		return codeBadFilter, nil
	}
	if share != "" && r.noLocal() {
		return 0, breach("No Local on a shared subscription")
	}
	if !slices.ContainsFunc(patterns, func(p wrappers.Pattern) bool { return filterMeets(topics, p.Segments) }) {
		return codeBadFilter, nil
	}
	if !strings.ContainsAny(topics, "+#") && b.link.May(wrappers.Read, "", topics, s.conn.who) != nil {
		return codeNotAuthorized, nil // of a filter with wildcards the client hears what it may
	}
	former := s.subs[r.filter]
	if former == nil && len(s.subs) >= b.opt.maxSubs {
		return codeQuotaExceeded, nil
	}
	sub := &subscription{session: s, filter: r.filter, topics: topics, options: r, id: id, since: b.ring.head, asked: b.ring.head}
	if former != nil {
		sub.since = former.since
		b.unsubscribe(s, former)
	}
	b.enter(sub, share)
	if share == "" && (r.retainHandling() == 0 || r.retainHandling() == 1 && former == nil) {
		s.owed = append(s.owed, sub)
	}
	return r.qos(), nil
}

// enter puts a subscription where messages find it. b.mu is held.
func (b *broker) enter(sub *subscription, share string) {
	sub.session.subs[sub.filter] = sub
	if share != "" {
		b.join(sub)
		return
	}
	b.tree.add(sub)
}

// unsubscribe takes a subscription out. b.mu is held.
func (b *broker) unsubscribe(s *session, sub *subscription) {
	delete(s.subs, sub.filter)
	if i := slices.Index(s.owed, sub); i >= 0 {
		s.owed = slices.Delete(s.owed, i, i+1)
	}
	if sub.group != nil {
		b.part(sub)
		return
	}
	b.tree.remove(sub)
}

func (c *conn) onUnsubscribe(p *subscribe) error {
	b, s := c.broker, c.session
	codes := make([]byte, len(p.requests))
	b.mu.Lock()
	for i, r := range p.requests {
		if sub := s.subs[r.filter]; sub != nil {
			b.unsubscribe(s, sub)
		} else {
			codes[i] = codeNoSubscription
		}
	}
	b.mu.Unlock()
	if s.lasts() {
		if err := b.storeSession(s); err != nil {
			return &goodbye{codeImplementation, err}
		}
	}
	return c.answer(func(buf []byte) []byte { return appendSuback(buf, c.v5, typeUnsuback, p.id, codes) })
}

// putAway ends a connection's part in its session: the session waits for the client, or ends.
func (c *conn) putAway() {
	b, s := c.broker, c.session
	c.mu.Lock()
	for c.busy > 0 {
		c.idle.Wait()
	}
	c.mu.Unlock()
	b.mu.Lock()
	for s.fed != nil { // it writes the position
		fed := s.fed
		b.mu.Unlock()
		<-fed
		b.mu.Lock()
	}
	b.takeBack(s, nil)
	s.pos = s.resume(false)
	s.mu.Lock()
	for _, d := range s.queue {
		if sub := d.entry.filter; sub != nil && s.subs[sub.filter] == sub && !slices.Contains(s.owed, sub) {
			s.owed = append(s.owed, sub)
		}
	}
	for _, sub := range s.owed {
		sub.first, sub.whole = nil, false
	}
	s.queue, s.queued, s.out = nil, 0, nil
	lasts, expiry := s.expiry > 0, s.expiry
	s.until = time.Now().Add(time.Duration(expiry) * time.Second)
	s.mu.Unlock()
	s.live, s.conn = false, nil
	w, delay := c.will, min(c.willDelay, expiry)
	if b.draining {
		w = nil // the gateway goes, not the client
	}
	if w != nil && delay > 0 {
		s.will, s.willAt = w, time.Now().Add(time.Duration(delay)*time.Second)
		w = nil
	}
	crowded := b.absent() > b.cfg.Limits.Sessions
	b.mu.Unlock()
	if w != nil {
		b.publishWill(w)
	}
	if lasts {
		if err := b.storeSession(s); err != nil {
			b.cfg.Log.Error("session not stored: after a restart its client gets some messages again", "client", s.id, "err", err)
		}
		if crowded {
			b.forget(s) // its record stays
		}
	} else {
		b.endSession(s, true)
	}
	b.mu.Lock()
	delete(b.claims, s.id)
	delete(b.conns, c)
	b.mu.Unlock()
	close(c.done)
}

// absent counts the sessions in memory without a client. b.mu is held.
func (b *broker) absent() int { return len(b.sessions) - len(b.claims) }

// publishWill sends a will in the background.
func (b *broker) publishWill(w *publication) {
	w.arrived = time.Now()
	b.bg.Go(func() {
		if err := b.commit(w); err != nil {
			b.link.Count("refused_wills", 1)
			b.cfg.Log.Warn("will not taken", "address", w.address, "peer", w.who.Peer, "err", err)
		}
	})
}

// forget drops a session from memory. What its share groups gave it goes to others.
func (b *broker) forget(s *session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sub := range s.subs {
		b.unsubscribe(s, sub)
	}
	s.mu.Lock()
	flights := s.flights
	s.flights = nil
	s.mu.Unlock()
	for _, f := range flights {
		if !f.done && f.share != nil && f.qos == 1 && len(f.share.members) > 0 {
			f.share.back = append(f.share.back, f.delivery)
			b.feedGroup(f.share)
		}
	}
	if b.sessions[s.id] == s {
		delete(b.sessions, s.id)
	}
}

// endSession ends a session for good; nil is no session. erase: also its record.
func (b *broker) endSession(s *session, erase bool) {
	if s == nil {
		return
	}
	b.forget(s)
	b.mu.Lock()
	w := s.will
	s.will = nil
	b.mu.Unlock()
	if w != nil {
		b.publishWill(w)
	}
	if erase && s.stored.Load() {
		if err := b.eraseSession(s.id); err != nil {
			b.cfg.Log.Error("record of an ended session not removed", "client", s.id, "err", err)
		}
	}
}

// expire ends the sessions whose time has come and sends the wills that are due.
func (b *broker) expire(now time.Time) {
	var ended []*session
	var wills []*publication
	b.mu.Lock()
	for id, s := range b.sessions {
		if s.conn != nil || b.claims[id] != nil {
			continue
		}
		if s.will != nil && now.After(s.willAt) {
			wills = append(wills, s.will)
			s.will = nil
		}
		s.mu.Lock()
		if s.expiry != neverExpires && now.After(s.until) {
			ended = append(ended, s)
		}
		s.mu.Unlock()
	}
	b.mu.Unlock()
	for _, w := range wills {
		b.publishWill(w)
	}
	for _, s := range ended {
		b.mu.Lock()
		back := s.conn != nil || b.claims[s.id] != nil
		b.mu.Unlock()
		if !back {
			b.endSession(s, true)
		}
	}
}
