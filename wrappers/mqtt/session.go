package mqtt

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A session is what the broker knows of one client, present or absent (MQTT 5.0, section 4.1).
type session struct {
	id     string
	broker *broker

	// broker.mu guards where the session stands in the stream.
	subs   map[string]*subscription // by filter as written
	live   bool                     // takes from the stream as it comes
	pos    position                 // else: what it has taken
	owed   []*subscription          // subscriptions whose registers have still to be sent
	fed    chan struct{}            // closed when the goroutine that feeds it ends; nil: there is none
	hitAt  uint64                   // scratch of route
	hit    delivery
	conn   *conn
	will   *publication // of an absent client, delayed
	willAt time.Time
	stored atomic.Bool // there is a record of it

	mu       sync.Mutex
	out      *conn // who writes; nil while the client is absent
	queue    []delivery
	queued   int // bytes
	flights  []*flight
	byID     map[uint16]*flight
	lastID   uint16
	unacked  int
	airborne int             // bytes of unacked flights
	received map[uint16]bool // inbound QoS 2: true once committed, until released
	expiry   uint32          // seconds the session outlives its connection; neverExpires
	until    time.Time       // absent: when it ends
	progress bool            // acknowledged since it was last stored
	room     chan struct{}   // wakes who waits for space in queue
	rooms    []chan struct{} // of the share groups it is in
}

const neverExpires = 0xffffffff

func newSession(b *broker, id string) *session {
	return &session{id: id, broker: b, subs: make(map[string]*subscription), byID: make(map[uint16]*flight),
		received: make(map[uint16]bool), room: make(chan struct{}, 1)}
}

// A delivery is one message for one client.
type delivery struct {
	entry  *entry
	qos    byte
	retain bool
	ids    []int  // subscription identifiers
	share  *group // whose turn this was, nil for none
}

// takes tells whether a subscription wants an entry it selects.
func (sub *subscription) takes(e *entry) bool {
	if e.seq != 0 && e.seq <= sub.since {
		return false // from before it was made
	}
	return !sub.options.noLocal() || e.from == "" || e.from != sub.session.id
}

// merge adds what one more overlapping subscription asks for (MQTT 5.0, section 3.3.4).
func (d *delivery) merge(sub *subscription) {
	d.qos = max(d.qos, min(sub.options.qos(), d.entry.msg.qos))
	if d.entry.filter != nil || sub.options.retainPublished() && d.entry.msg.retain {
		d.retain = true
	}
	if sub.id != 0 {
		d.ids = append(d.ids, sub.id)
	}
}

// lasts tells whether the session outlives its connection.
func (s *session) lasts() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.expiry > 0
}

// match gives what the session's own subscriptions make of e. broker.mu is held.
func (s *session) match(e *entry) (d delivery, ok bool) {
	d.entry = e
	for _, sub := range s.subs {
		if sub.group == nil && sub.takes(e) && filterMatches(sub.topics, e.address) {
			d.merge(sub)
			ok = true
		}
	}
	return d, ok && s.mayHear(e)
}

// mayHear tells whether the client may read what an entry tells. broker.mu is held.
func (s *session) mayHear(e *entry) bool {
	return s.conn == nil || s.broker.link.May(wrappers.Read, "", e.address, s.conn.who) == nil
}

// A flight is a QoS 1 or 2 message that the client has not acknowledged in full.
type flight struct {
	delivery
	id       uint16
	size     int
	released bool // PUBREC came, PUBREL was sent
	done     bool
}

// offer queues d if there is room. Without room a QoS 0 message is dropped and counted, and for
// any other the answer is false. An absent client takes nothing.
func (s *session) offer(d delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return false
	}
	size := d.entry.size()
	if s.queued > 0 && s.queued+size > s.broker.cfg.Limits.Queue {
		if d.qos > 0 {
			return false
		}
		s.broker.link.Count("dropped_qos0", 1)
		return true
	}
	s.enqueue(d, size)
	return true
}

func (s *session) enqueue(d delivery, size int) {
	s.queue = append(s.queue, d)
	s.queued += size
	s.out.nudge()
}

// push is offer for who may wait: false when the client has gone.
func (s *session) push(c *conn, d delivery) bool {
	size := d.entry.size()
	for {
		s.mu.Lock()
		if s.out != c {
			s.mu.Unlock()
			return false
		}
		if s.queued == 0 || s.queued+size <= s.broker.cfg.Limits.Queue {
			s.enqueue(d, size)
			s.mu.Unlock()
			return true
		}
		s.mu.Unlock()
		select {
		case <-s.room:
		case <-c.gone:
			return false
		}
	}
}

// next writes what may be sent now behind buf, about so many bytes at most.
func (s *session) next(c *conn, buf []byte, limit int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(c.resend) > 0 && len(buf) < limit {
		f := c.resend[0]
		c.resend = c.resend[1:]
		switch {
		case f.done:
		case f.released:
			buf = appendAck(buf, typePubrel, c.v5, f.id, 0, "")
		default:
			buf = s.write(c, buf, f.delivery, f.id, true)
		}
	}
	n := 0
	for n < len(s.queue) && len(buf) < limit {
		d := s.queue[n]
		if d.qos > 0 && s.unacked > 0 && (s.unacked >= c.window || s.airborne+d.entry.size() > s.broker.cfg.Limits.Queue) {
			break
		}
		n++
		s.queued -= d.entry.size()
		if d.entry.expired() || !c.fits(d) {
			continue
		}
		var id uint16
		if d.qos > 0 {
			id = s.freeID()
			f := &flight{delivery: d, id: id, size: d.entry.size()}
			s.flights = append(s.flights, f)
			s.byID[id] = f
			s.unacked++
			s.airborne += f.size
		}
		buf = s.write(c, buf, d, id, false)
	}
	if n > 0 {
		left := copy(s.queue, s.queue[n:])
		clear(s.queue[left:])
		s.queue = s.queue[:left]
		if left == 0 {
			s.queued = 0
			if cap(s.queue) > 64 {
				s.queue = nil
			}
		}
		s.hasRoom()
	}
	return buf
}

// hasRoom wakes who waits to add to the queue.
func (s *session) hasRoom() {
	signal(s.room)
	for _, r := range s.rooms {
		signal(r)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *session) write(c *conn, buf []byte, d delivery, id uint16, dup bool) []byte {
	p := d.entry.msg
	p.qos, p.retain, p.id, p.dup = d.qos, d.retain, id, dup
	if c.v5 {
		p.props = d.entry.properties()
	}
	return appendPublish(buf, c.v5, &p, d.ids)
}

// fits tells whether the client accepts a packet of this size; what does not fit counts as sent
// (MQTT 5.0, section 3.1.2.11.4).
func (c *conn) fits(d delivery) bool {
	if c.maxPacket == 0 || publishSize(c.v5, &publish{qos: d.qos, topic: d.entry.msg.topic, props: d.entry.msg.props, payload: d.entry.msg.payload}, d.ids) <= c.maxPacket {
		return true
	}
	c.broker.link.Count("too_large_for_subscriber", 1)
	return false
}

func (e *entry) expired() bool {
	return e.expiry != 0 && time.Since(e.arrived) >= time.Duration(e.expiry)*time.Second
}

// properties are the message's own, the expiry interval less the time it spent here.
func (e *entry) properties() []byte {
	if e.patch < 0 {
		return e.msg.props
	}
	waited := int64(time.Since(e.arrived) / time.Second)
	if waited == 0 {
		return e.msg.props
	}
	props := append([]byte(nil), e.msg.props...)
	binary.BigEndian.PutUint32(props[e.patch:], uint32(max(e.expiry-waited, 0)))
	return props
}

// freeID gives a packet identifier that no flight uses. The window keeps most of them free.
func (s *session) freeID() uint16 {
	for {
		s.lastID++
		if s.lastID == 0 {
			s.lastID = 1
		}
		if s.byID[s.lastID] == nil {
			return s.lastID
		}
	}
}

// acked takes a PUBACK or PUBCOMP, or a PUBREC that ends the exchange.
func (s *session) acked(id uint16) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byID[id]
	if f == nil {
		return false
	}
	s.land(f)
	if s.out != nil {
		s.out.nudge()
	}
	return true
}

func (s *session) land(f *flight) {
	delete(s.byID, f.id)
	f.done, s.progress = true, true
	s.unacked--
	s.airborne -= f.size
	n := 0
	for n < len(s.flights) && s.flights[n].done {
		s.flights[n] = nil
		n++
	}
	s.flights = s.flights[n:]
	if len(s.flights) == 0 {
		s.flights = nil
	}
}

// release takes a PUBREC: the client has the message, and it will not be sent again.
func (s *session) release(id uint16) (known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.byID[id]
	if f == nil || f.qos != 2 {
		return false
	}
	f.released = true
	return true
}
