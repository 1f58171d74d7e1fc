package mqtt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
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

// A listing is the broker's retained messages coming in after SUBSCRIBE.
type listing struct {
	on     bool
	topics map[uint64]struct{} // that came, by digest
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
		var large *largePacket
		if errors.As(err, &large) {
			if err = f.skip(large); err == nil {
				continue
			}
		}
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

// skip passes over a packet that is larger than we take. A message is acknowledged all the same,
// or the broker would send it again for ever.
func (f *feed) skip(p *largePacket) error {
	if p.first>>4 != typePublish {
		return errTooBig
	}
	rest := p.remaining
	read := func(n int) ([]byte, error) {
		if n > rest {
			return nil, errShortPacket
		}
		rest -= n
		b := make([]byte, n)
		_, err := io.ReadFull(f.c.in, b)
		return b, err
	}
	size, err := read(2)
	if err != nil {
		return err
	}
	topic, err := read(int(binary.BigEndian.Uint16(size)))
	if err != nil {
		return err
	}
	qos := p.first >> 1 & 3
	var id uint16
	if qos > 0 {
		b, err := read(2)
		if err != nil {
			return err
		}
		id = binary.BigEndian.Uint16(b)
	}
	if _, err := f.c.in.Discard(rest); err != nil {
		return err
	}
	f.side.link.Count("oversized", 1)
	f.side.log.Error("a message of the broker is larger than limits allow, and is passed over", "topic", string(topic), "bytes", p.remaining)
	switch qos {
	case 1:
		f.acks = appendAck(f.acks, typePuback, f.c.v5, id, 0, "")
	case 2:
		f.acks = appendAck(f.acks, typePubrec, f.c.v5, id, 0, "")
	}
	return nil
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

// ofListing tells whether a message with RETAIN is one of the listing in progress: the first of its
// topic. The flag alone does not tell, for news keep it too (retain as published).
func (f *feed) ofListing(topic []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.list.on {
		return false
	}
	sum := f.side.wire.sum(topic, nil)
	if _, seen := f.list.topics[sum]; seen {
		return false
	}
	f.list.topics[sum] = struct{}{}
	return true
}

// take adds a message to the batch.
func (f *feed) take(ctx context.Context, p *publish) error {
	s := f.side
	marked := f.marks && userProperty(p.props, markProperty, s.cfg.Endpoint)
	n := s.wire.match(p.topic, p.payload, marked, f.marks)
	listing := n == nil && p.retain && f.ofListing(p.topic)
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
	if n != nil {
		f.waiting = append(f.waiting, n)
	}
	o := wrappers.Observation{Verb: wrappers.Message, Address: string(p.topic), Ours: marked, Retained: p.retain || n != nil && n.kept}
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

// ready: the broker owes us all that is mapped and has shown what it had, and write-back may begin.
func (s *clientSide) ready(f *feed) {
	s.mu.Lock()
	first := s.feed == nil
	s.mu.Unlock()
	s.owed.set(nil, true)
	if first {
		s.set(f)
		s.link.Count("feed_up", 1)
		s.log.Info("feed stands", "mqtt5", f.c.v5, "session_present", f.c.present)
	}
}
