package mqtt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// markProperty is the user property that says which gateway wrote a message.
const markProperty = "spookgw"

// A feed is one connection of the gateway's session at the broker: what comes in becomes
// observations in the broker's order, acknowledged once they are durable; what goes out is
// settled when the broker has acknowledged it.
type feed struct {
	side   *clientSide
	c      *client
	gone   chan struct{}
	marks  bool              // the protocol carries our mark
	known  map[uint16]uint64 // packet id: digest of the message that was committed under it
	listed bool

	// The reading goroutine owns these.
	batch   []wrappers.Observation
	waiting []*noted // of the batch
	acks    []byte   // of the batch
	bytes   int
	listing bool // the batch is of the broker's retained messages

	mu     sync.Mutex
	list   listing
	want   []string // filters we subscribe to
	flying map[uint16]*outgoing
	lastID uint16
	free   chan struct{} // a place for one more publish
	idle   chan struct{} // somebody waits until nothing flies
	subID  uint16        // of the SUBSCRIBE in progress
	codes  chan []byte
	pongs  chan struct{}
	failed error
}

type outgoing struct {
	change   wrappers.Change
	note     *noted
	released bool
}

// A listing is the broker's retained messages coming in after SUBSCRIBE.
type listing struct {
	on       bool
	retained int // that came
}

// Packet identifiers up to here are for publishes, those above for subscriptions.
const maxPublishID = 60_000

const (
	batchMessages = 512
	batchBytes    = 1 << 20
)

func newFeed(s *clientSide, c *client, known map[uint16]uint64) *feed {
	f := &feed{side: s, c: c, marks: c.v5, known: known, gone: make(chan struct{}), flying: make(map[uint16]*outgoing),
		free: make(chan struct{}, c.window), codes: make(chan []byte, 1), pongs: make(chan struct{}, 1)}
	for range c.window {
		f.free <- struct{}{}
	}
	return f
}

// run works until the connection ends. list: the retained messages are wanted even if the broker
// still has the session.
func (f *feed) run(ctx context.Context, list bool) error {
	ctx, cancel := context.WithCancel(ctx)
	var bg sync.WaitGroup
	bg.Go(func() { // subscriptions, then the keep-alive
		if err := f.subscribe(ctx, list || !f.c.present); err != nil {
			f.fail(err)
		}
	})
	stop := context.AfterFunc(ctx, f.c.close)
	err := f.read(ctx)
	cancel()
	if stop() {
		f.c.close()
	}
	f.side.set(nil)
	close(f.gone)
	bg.Wait()
	f.mu.Lock()
	if f.failed != nil {
		err = f.failed
	}
	flying := f.flying
	f.flying = nil
	f.mu.Unlock()
	for _, o := range flying {
		if o.note != nil {
			f.side.wire.forget(o.note)
		}
		f.side.settle(ctx, o.change, wrappers.Effect{Outcome: wrappers.Retry, Err: fmt.Errorf("the connection to the broker ended before its answer: %w", err)})
	}
	return err
}

// fail ends the connection for a reason of ours.
func (f *feed) fail(err error) {
	f.mu.Lock()
	if f.failed == nil {
		f.failed = err
	}
	f.mu.Unlock()
	f.c.nc.Close()
}

// read takes packets in. Whatever is there already is one batch, so the link syncs once for many.
func (f *feed) read(ctx context.Context) error {
	for {
		if f.c.in.Buffered() == 0 || len(f.batch) >= batchMessages || f.bytes >= batchBytes {
			if err := f.flush(ctx); err != nil {
				return err
			}
		}
		if f.c.in.Buffered() == 0 {
			if err := f.c.nc.SetReadDeadline(time.Now().Add(f.c.keep + f.c.keep/2)); err != nil {
				return err
			}
		}
		first, body, err := readPacket(f.c.in, f.c.frame)
		if err != nil {
			// What came whole is not thrown away with the connection; it just isn't acknowledged.
			_ = f.flush(ctx)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("the broker does not answer PINGREQ")
			}
			return err
		}
		if err := f.packet(ctx, first, body); err != nil {
			return err
		}
	}
}

func (f *feed) packet(ctx context.Context, first byte, body []byte) error {
	switch kind := first >> 4; kind {
	case typePublish:
		p, err := parsePublish(first, body, f.c.v5)
		if err != nil {
			return err
		}
		return f.take(ctx, &p)
	case typePuback, typePubrec, typePubcomp, typePubrel:
		a, err := parseAck(body, f.c.v5)
		if err != nil {
			return err
		}
		return f.acked(ctx, kind, a)
	case typeSuback:
		id, codes, err := parseSuback(body, f.c.v5)
		if err != nil {
			return err
		}
		// What follows was sent after it: the listing begins here.
		if err := f.flush(ctx); err != nil {
			return err
		}
		f.mu.Lock()
		wanted := id == f.subID
		f.mu.Unlock()
		if wanted {
			f.codes <- slices.Clone(codes)
		}
	case typePingresp:
		if err := f.flush(ctx); err != nil {
			return err
		}
		signal(f.pongs)
	case typeDisconnect:
		d, err := parseDisconnect(body, f.c.v5)
		if err != nil {
			return err
		}
		text, _ := property(d.props, propReason)
		return fmt.Errorf("the broker ends the session: %s (0x%02x) %s", reasonNames[d.code], d.code, text)
	}
	return nil
}

// digest identifies a message under a packet identifier.
func digest(p *publish) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(p.topic) // never fails
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(p.payload)
	return h.Sum64()
}

const seenPrefix = "feed/seen/"

// loadSeen reads which message was committed last under each packet identifier.
func (s *clientSide) loadSeen(ctx context.Context) map[uint16]uint64 {
	known := make(map[uint16]uint64)
	for r, err := range s.link.Kept(ctx, seenPrefix) {
		if err != nil {
			s.log.Warn("feed: notes of the last run", "err", err)
			break
		}
		id, err := strconv.ParseUint(strings.TrimPrefix(r.Key, seenPrefix), 10, 16)
		if err == nil && len(r.Value) == 8 {
			known[uint16(id)] = binary.BigEndian.Uint64(r.Value)
		}
	}
	return known
}

// take adds a message to the batch.
func (f *feed) take(ctx context.Context, p *publish) error {
	s := f.side
	f.mu.Lock()
	listing := f.list.on && p.retain
	if listing {
		f.list.retained++
	}
	f.mu.Unlock()
	if listing != f.listing {
		if err := f.flush(ctx); err != nil {
			return err
		}
		f.listing = listing
	}
	switch p.qos {
	case 1:
		f.acks = appendAck(f.acks, typePuback, f.c.v5, p.id, 0, "")
	case 2:
		f.acks = appendAck(f.acks, typePubrec, f.c.v5, p.id, 0, "")
	}
	f.bytes += len(p.payload) + len(p.topic) + 128
	marked := f.marks && userProperty(p.props, markProperty, s.cfg.Endpoint)
	var n *noted
	if !listing {
		if n = s.wire.match(p.topic, p.payload, marked, f.marks); n != nil {
			f.waiting = append(f.waiting, n)
		}
	}
	o := wrappers.Observation{Verb: wrappers.Message, Address: string(p.topic), Ours: marked}
	if len(p.payload) == 0 && (p.retain || !f.marks) {
		o.Verb = wrappers.Delete // MQTT 3 does not pass RETAIN on: there every empty message is taken as a clear
	}
	if !s.link.Maps(o.Verb, "", o.Address) {
		return nil
	}
	if p.qos > 0 {
		sum := digest(p)
		if known, ok := f.known[p.id]; ok && p.dup && known == sum {
			s.link.Count("feed_duplicates", 1)
			return nil // committed before the connection broke; only its acknowledgement was lost
		}
		f.known[p.id] = sum
		o.Keep = []wrappers.Record{{Key: seenPrefix + strconv.Itoa(int(p.id)), Value: binary.BigEndian.AppendUint64(nil, sum)}}
	}
	if n != nil {
		if n.ours {
			o.Ours = true
		} else {
			o.Wire, o.Who = true, n.who
		}
	}
	if o.Verb != wrappers.Delete {
		o.Payload.Raw = p.payload
		o.Payload.Type, o.Payload.Meta = meta(p.props)
	}
	f.batch = append(f.batch, o)
	return nil
}

// flush makes the batch durable, then acknowledges it and lets go who waited for it.
func (f *feed) flush(ctx context.Context) error {
	if len(f.batch) > 0 {
		at := wrappers.Position{Feed: true}
		if f.listing {
			at.Snapshot = wrappers.SnapshotPart
		}
		if err := f.seen(ctx, at, f.batch); err != nil {
			return err
		}
	}
	for _, n := range f.waiting {
		close(n.shown)
	}
	if len(f.acks) > 0 {
		if err := f.c.write(f.acks); err != nil {
			return err
		}
	}
	clear(f.batch)
	clear(f.waiting)
	f.batch, f.waiting, f.acks, f.bytes = f.batch[:0], f.waiting[:0], f.acks[:0], 0
	return nil
}

// seen reports until the link has taken it: what it can't store now the broker keeps for us.
func (f *feed) seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	s := f.side
	pause := 50 * time.Millisecond
	for {
		err := s.link.Seen(ctx, at, what)
		if err == nil || ctx.Err() != nil {
			return err
		}
		s.link.Count("feed_paused", 1)
		s.log.Error("feed paused: what the broker shows can't be stored", "err", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// subscribe keeps the subscriptions as the mapping has them, and the connection alive.
func (f *feed) subscribe(ctx context.Context, list bool) error {
	s := f.side
	ping := time.NewTicker(max(f.c.keep/2, time.Second))
	defer ping.Stop()
	for {
		patterns, changed := s.link.Patterns()
		if err := f.resubscribe(ctx, patterns, list); err != nil {
			return err
		}
		list = true // a changed mapping is held against what the broker has
		wait := true
		for wait {
			select {
			case <-ctx.Done():
				return nil
			case <-changed:
				wait = false
			case <-ping.C:
				if err := f.c.write([]byte{typePingreq << 4, 0}); err != nil {
					return err
				}
			}
		}
	}
}

// filtersKey holds the filters that our session at the broker has.
const filtersKey = "feed/filters"

func (f *feed) resubscribe(ctx context.Context, patterns []wrappers.Pattern, list bool) error {
	want := feedFilters(patterns)
	have, err := f.filters(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.want = want
	f.mu.Unlock()
	if list || !slices.Equal(have, want) {
		gone := slices.DeleteFunc(slices.Clone(have), func(h string) bool { return slices.Contains(want, h) })
		for chunk := range slices.Chunk(gone, 100) {
			sub := subscribe{id: f.subscriptionID()}
			for _, filter := range chunk {
				sub.requests = append(sub.requests, request{filter: filter})
			}
			if err := f.c.write(appendSubscribe(nil, f.c.v5, typeUnsubscribe, &sub)); err != nil {
				return err
			}
		}
		if err := f.side.link.Keep(ctx, wrappers.Record{Key: filtersKey, Value: []byte(strings.Join(want, "\x00"))}); err != nil {
			return err
		}
		if err := f.listRetained(ctx, want); err != nil {
			return err
		}
	}
	f.listed = true
	f.side.ready(f)
	return nil
}

// feedFilters are the topic filters that the mapping needs, none within another: a broker may
// send a message once for each.
func feedFilters(patterns []wrappers.Pattern) []string {
	var all []string
	for _, p := range patterns {
		if p.In {
			all = append(all, patternFilter(p.Segments))
		}
	}
	slices.Sort(all)
	all = slices.Compact(all)
	return slices.DeleteFunc(slices.Clone(all), func(f string) bool {
		return slices.ContainsFunc(all, func(o string) bool { return o != f && covers(o, f) })
	})
}

// listRetained subscribes and takes in what the broker holds already, as a snapshot. A broker
// doesn't say where that ends: it has ended when, everything acknowledged, two PINGREQ in a row
// are answered without a retained message before the answer.
func (f *feed) listRetained(ctx context.Context, want []string) error {
	f.mu.Lock()
	f.list = listing{on: true}
	f.mu.Unlock()
	if err := f.ask(ctx, want, 0); err != nil {
		return err
	}
	for silent, before := 0, -1; silent < 2 && len(want) > 0; {
		select {
		case <-f.pongs: // of a ping before
		default:
		}
		if err := f.c.write([]byte{typePingreq << 4, 0}); err != nil {
			return err
		}
		select {
		case <-f.pongs:
		case <-time.After(f.side.cfg.Limits.Handshake):
			return errors.New("the broker does not answer PINGREQ")
		case <-ctx.Done():
			return ctx.Err()
		}
		f.mu.Lock()
		now := f.list.retained
		f.mu.Unlock()
		if now != before {
			silent, before = 0, now
			continue
		}
		silent++
		select {
		case <-time.After(quietTime):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f.mu.Lock()
	f.list.on = false
	f.mu.Unlock()
	if f.c.v5 {
		// Now with RETAIN as published, so that an empty message and a clear can be told apart; in
		// the listing the flag has told what is state.
		if err := f.ask(ctx, want, 2); err != nil {
			return err
		}
	}
	return f.seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, nil)
}

// quietTime is between the two PINGREQ that end a listing, for brokers that send retained
// messages from another thread than answers.
const quietTime = 100 * time.Millisecond

// subscriptionID gives the next packet identifier for a SUBSCRIBE or UNSUBSCRIBE.
func (f *feed) subscriptionID() uint16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subID <= maxPublishID || f.subID == 65535 {
		f.subID = maxPublishID
	}
	f.subID++
	return f.subID
}

// filters gives what the session was subscribed to.
func (f *feed) filters(ctx context.Context) ([]string, error) {
	for r, err := range f.side.link.Kept(ctx, filtersKey) {
		if err != nil {
			return nil, err
		}
		if r.Key == filtersKey && len(r.Value) > 0 {
			return strings.Split(string(r.Value), "\x00"), nil
		}
	}
	return nil, nil
}

// ready: the broker owes us all that is mapped, and write-back may begin.
func (s *clientSide) ready(f *feed) {
	s.mu.Lock()
	first := s.feed == nil
	select {
	case <-s.owed:
	default:
		close(s.owed)
	}
	s.mu.Unlock()
	if first {
		s.set(f)
		s.link.Count("feed_up", 1)
		s.log.Info("feed stands", "mqtt5", f.c.v5, "session_present", f.c.present)
	}
}

// ask subscribes to the filters. handling is MQTT 5's retain handling; with 2 RETAIN is passed on
// as published, too.
func (f *feed) ask(ctx context.Context, filters []string, handling byte) error {
	for chunk := range slices.Chunk(filters, 100) {
		sub := subscribe{id: f.subscriptionID()}
		for _, filter := range chunk {
			r := request{filter: filter, options: 1}
			if f.c.v5 {
				r.options |= handling << 4
				if handling == 2 {
					r.options = retainAsPublished(r.options)
				}
			}
			sub.requests = append(sub.requests, r)
		}
		if err := f.c.write(appendSubscribe(nil, f.c.v5, typeSubscribe, &sub)); err != nil {
			return err
		}
		select {
		case codes := <-f.codes:
			for i, code := range codes {
				if code >= 0x80 && i < len(chunk) {
					return fmt.Errorf("the broker refuses the gateway's subscription to %q: %s (0x%02x)", chunk[i], reasonNames[code], code)
				}
				if code == 0 && i < len(chunk) {
					f.side.log.Warn("the broker grants QoS 0 only: what is published while the gateway is away is lost", "filter", chunk[i])
				}
			}
		case <-time.After(f.side.cfg.Limits.Handshake):
			return errors.New("the broker does not answer SUBSCRIBE")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// covers tells whether all topics that filter b selects are selected by a.
func covers(a, b string) bool {
	if strings.HasPrefix(b, "$") != strings.HasPrefix(a, "$") {
		return false
	}
	for {
		x, xrest, xmore := strings.Cut(a, "/")
		y, yrest, ymore := strings.Cut(b, "/")
		switch {
		case x == "#":
			return true
		case y == "#" || x != "+" && x != y:
			return false
		case !xmore || !ymore:
			return xmore == ymore || xmore && xrest == "#"
		}
		a, b = xrest, yrest
	}
}

// publish sends one change; false: this connection is going down.
func (f *feed) publish(ctx context.Context, c wrappers.Change, p publish) bool {
	s := f.side
	if p.qos == 2 && f.c.noQoS2 {
		p.qos = 1
	}
	if f.c.noQoS1 {
		p.qos = 0
	}
	if f.marks {
		p.props = appendUserProperty(nil, markProperty, s.cfg.Endpoint)
	}
	if size := publishSize(f.c.v5, &p, nil); f.c.most > 0 && size > f.c.most {
		s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Parked, Err: wrappers.Refuse(wrappers.ErrTooLarge,
			fmt.Sprintf("the message has %d bytes, the broker takes %d", size, f.c.most))})
		return true
	}
	select {
	case <-f.free:
	case <-f.gone:
		return false
	case <-ctx.Done():
		return false
	}
	o := &outgoing{change: c}
	f.mu.Lock()
	if f.flying == nil {
		f.mu.Unlock()
		return false
	}
	if slices.ContainsFunc(f.want, func(w string) bool { return filterMatches(w, c.Address) }) {
		o.note = s.wire.note(p.topic, p.payload, wrappers.Who{}, true)
	}
	if p.qos > 0 {
		for f.lastID = f.lastID%maxPublishID + 1; f.flying[f.lastID] != nil; {
			f.lastID = f.lastID%maxPublishID + 1
		}
		p.id = f.lastID
		f.flying[p.id] = o
	}
	f.mu.Unlock()
	err := f.c.write(appendPublish(nil, f.c.v5, &p, nil))
	if p.qos == 0 {
		f.free <- struct{}{}
		if err != nil {
			return false
		}
		s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done})
	}
	return true // after a failed write run settles what flies
}

// acked takes the broker's answer to a publish of ours.
func (f *feed) acked(ctx context.Context, kind byte, a ack) error {
	if kind == typePubrel { // of a QoS 2 message, which the broker may send although we asked for 1
		return f.c.write(appendAck(nil, typePubcomp, f.c.v5, a.id, 0, ""))
	}
	f.mu.Lock()
	o := f.flying[a.id]
	if o == nil {
		f.mu.Unlock()
		return nil
	}
	if kind == typePubrec && a.code < 0x80 {
		f.mu.Unlock()
		return f.c.write(appendAck(nil, typePubrel, f.c.v5, a.id, 0, ""))
	}
	delete(f.flying, a.id)
	if len(f.flying) == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
	f.mu.Unlock()
	f.free <- struct{}{}
	e := wrappers.Effect{Outcome: wrappers.Done}
	if a.code >= 0x80 {
		if o.note != nil {
			f.side.wire.forget(o.note)
		}
		sentinel, transient := kindOf(a.code)
		text, _ := property(a.props, propReason)
		why := fmt.Sprintf("the broker refuses the message: %s (0x%02x)", reasonNames[a.code], a.code)
		if len(text) > 0 {
			why += ": " + string(text)
		}
		e = wrappers.Effect{Outcome: wrappers.Parked, Err: wrappers.Refuse(sentinel, why)}
		if transient {
			e.Outcome = wrappers.Retry
		}
	}
	f.side.settle(ctx, o.change, e)
	return nil
}

// quiet gives a channel that closes when every publish of ours has been answered.
func (f *feed) quiet() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle == nil {
		f.idle = make(chan struct{})
		if len(f.flying) == 0 {
			closed := f.idle
			close(closed)
			f.idle = nil
			return closed
		}
	}
	return f.idle
}
