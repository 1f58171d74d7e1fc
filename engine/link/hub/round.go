package hub

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/link"
)

// A round is one stay on the hub: from a connection that stands, until it breaks or anything on the hub is not as it was
// found. Then the next round finds out anew what there is.
type round struct {
	h       *Hub
	ctx     context.Context
	cancel  context.CancelCauseFunc
	from    string // drawn anew, in every message
	js      jetstream.JetStream
	stream  jetstream.Stream
	bucket  jetstream.KeyValue
	control *nats.Subscription
	pulses  *nats.Subscription
	last    *batch // this node's last message on the hub
	lastSeq uint64 // its number in the stream
	lack    chan struct{}
	beat    chan struct{}

	mu     sync.Mutex
	stayed bool                // nobody else is here under this endpoint
	base   engine.QStateVector // as it stands in the bucket
	based  bool
	spoken pulse // the last heartbeat
	behind bool  // the stream has more than was taken
	full   bool  // what comes depends on what doesn't
}

var errBroken = errors.New("the connection broke")

const roundTimeout = 10 * time.Second

// run makes the stay. up says whether this node was on the hub.
func (r *round) run(ctx context.Context) (up bool, err error) {
	r.ctx, r.cancel = context.WithCancelCause(ctx)
	defer r.cancel(nil)
	r.lack, r.beat = make(chan struct{}, 1), make(chan struct{}, 1)
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		return false, err
	}
	r.from = hex.EncodeToString(id[:])
	h := r.h
	var wait sync.WaitGroup
	defer wait.Wait()
	defer r.cancel(nil)
	wait.Go(func() {
		select {
		case <-h.lost:
			r.cancel(errBroken)
		case <-r.ctx.Done():
		}
	})
	if err := r.prepare(); err != nil {
		return false, r.cause(err)
	}
	defer r.unsubscribe()
	if err := r.subscribe(&wait); err != nil {
		return false, r.cause(err)
	}
	if err := r.alone(); err != nil {
		return false, r.cause(err)
	}
	if err := r.readLast(); err != nil {
		return false, r.cause(err)
	}
	h.mu.Lock()
	h.round, h.server, h.failure = r, h.conn.ConnectedUrlRedacted(), ""
	h.rounds++
	h.move(link.Entangled)
	h.mu.Unlock()
	for _, part := range []func() error{r.watchMembers, r.beats, r.consume, r.publish, r.fill} {
		wait.Go(func() {
			if err := part(); err != nil {
				r.cancel(err)
			}
		})
	}
	<-r.ctx.Done()
	return true, r.cause(context.Cause(r.ctx))
}

// cause is why the round ended, which may have been noticed elsewhere first.
func (r *round) cause(err error) error {
	if why := context.Cause(r.ctx); why != nil && !errors.Is(why, context.Canceled) {
		return why
	}
	return err
}

// prepare finds the stream and the bucket of the domain, or makes them.
func (r *round) prepare() (err error) {
	h := r.h
	if most := h.conn.MaxPayload(); most < needBytes {
		return fmt.Errorf("the hub takes messages of at most %d bytes, and %d are needed: raise max_payload", most, needBytes)
	}
	if h.o.JetStream != "" {
		r.js, err = jetstream.NewWithDomain(h.conn, h.o.JetStream)
	} else {
		r.js, err = jetstream.New(h.conn)
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(r.ctx, roundTimeout)
	defer cancel()
	r.stream, err = r.js.Stream(ctx, h.names.stream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		r.stream, err = r.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: h.names.stream, Description: "spookgw: candidates of domain " + h.o.Domain, Subjects: []string{h.names.batches + "*"},
			Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld, Storage: jetstream.FileStorage, Replicas: h.o.Replicas,
			MaxAge: h.o.MaxAge, MaxBytes: h.o.MaxBytes, MaxMsgSize: needBytes, Duplicates: time.Minute, AllowDirect: true,
		})
		if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			r.stream, err = r.js.Stream(ctx, h.names.stream)
		}
	}
	if err != nil {
		return fmt.Errorf("the stream %s: %w", h.names.stream, err)
	}
	r.bucket, err = r.js.KeyValue(ctx, h.names.bucket)
	if errors.Is(err, jetstream.ErrBucketNotFound) {
		r.bucket, err = r.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
			Bucket: h.names.bucket, Description: "spookgw: members of domain " + h.o.Domain, History: 1, Replicas: h.o.Replicas, Storage: jetstream.FileStorage,
		})
		if errors.Is(err, jetstream.ErrBucketExists) {
			r.bucket, err = r.js.KeyValue(ctx, h.names.bucket)
		}
	}
	if err != nil {
		return fmt.Errorf("the bucket %s: %w", h.names.bucket, err)
	}
	h.mu.Lock()
	h.stored = r.stream.CachedInfo().State.Bytes
	h.mu.Unlock()
	return nil
}

const headKind = "Q-Kind"

const (
	whoKind     = "who"     // who is here under this endpoint? Answered with the origin by one who is
	sessionKind = "session" // the first frame of a session; frames to the sender go where it says
)

// subscribe hears what is said to this node, and heartbeats.
func (r *round) subscribe(wait *sync.WaitGroup) (err error) {
	h := r.h
	control, pulses := make(chan *nats.Msg, 256), make(chan *nats.Msg, 4096)
	if r.control, err = h.conn.ChanSubscribe(h.names.control+tokenOf(h.endpoint), control); err != nil {
		return err
	}
	if r.pulses, err = h.conn.ChanSubscribe(h.names.pulse+"*", pulses); err != nil {
		return err
	}
	wait.Go(func() {
		for {
			select {
			case m := <-control:
				switch m.Header.Get(headKind) {
				case whoKind:
					if err := r.who(m); err != nil {
						r.cancel(err)
					}
				case sessionKind:
					r.called(m, wait)
				}
			case m := <-pulses:
				if err := r.pulseCame(m); err != nil {
					r.cancel(err)
				}
			case <-r.ctx.Done():
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(r.ctx, roundTimeout)
	defer cancel()
	return h.conn.FlushWithContext(ctx)
}

func (r *round) unsubscribe() {
	for _, s := range []*nats.Subscription{r.control, r.pulses} {
		if s != nil {
			_ = s.Unsubscribe() // the connection may be gone
		}
	}
}

// alone asks whether another is here under this endpoint. One that is, was here first.
func (r *round) alone() error {
	h := r.h
	m := nats.NewMsg(h.names.control + tokenOf(h.endpoint))
	m.Header.Set(headKind, whoKind)
	m.Header.Set(headFrom, r.from)
	m.Data = h.origin[:]
	ctx, cancel := context.WithTimeout(r.ctx, 2*time.Second)
	defer cancel()
	answer, err := h.conn.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded) && r.ctx.Err() == nil:
		r.mu.Lock()
		r.stayed = true
		r.mu.Unlock()
		return nil
	case err != nil:
		return err
	}
	var origin engine.OriginID
	if len(answer.Data) != len(origin) {
		return fmt.Errorf("%w: somebody answers with %d bytes", ErrTwin, len(answer.Data))
	}
	copy(origin[:], answer.Data)
	if err := h.e.Twin(r.ctx, origin); err != nil {
		return err
	}
	return fmt.Errorf("%w: the other one, run %s, was there first. One of the two data directories is a copy: stop it, and give it an empty one", ErrTwin, origin)
}

// who answers one who comes under this node's endpoint.
func (r *round) who(m *nats.Msg) error {
	r.mu.Lock()
	stayed := r.stayed
	r.mu.Unlock()
	var origin engine.OriginID
	if len(m.Data) != len(origin) || m.Header.Get(headFrom) == r.from || !stayed {
		return nil
	}
	copy(origin[:], m.Data)
	if err := r.h.e.Twin(r.ctx, origin); err != nil {
		return err
	}
	_ = m.Respond(r.h.origin[:]) // it asks again
	return nil
}

func (r *round) pulseCame(m *nats.Msg) error {
	p, err := parsePulse(m.Data)
	if err == nil {
		err = r.h.pulseCame(r.ctx, p)
	}
	if errors.Is(err, engine.ErrInvalid) {
		r.h.o.Log.Warn("hub: a heartbeat that can't be understood", "subject", m.Subject, "error", err)
		return nil
	}
	if err == nil {
		r.look()
	}
	return err
}

// look wakes who looks for what is lacking.
func (r *round) look() {
	select {
	case r.lack <- struct{}{}:
	default:
	}
}

// watchMembers follows the bucket.
func (r *round) watchMembers() error {
	w, err := r.bucket.WatchAll(r.ctx, jetstream.IgnoreDeletes())
	if err != nil {
		return fmt.Errorf("the bucket %s: %w", r.h.names.bucket, err)
	}
	defer func() { _ = w.Stop() }()
	for {
		select {
		case kv, open := <-w.Updates():
			if !open {
				return errBroken
			}
			if kv == nil {
				continue // all that there was
			}
			e, err := parseEntry(kv.Value())
			if err == nil {
				err = r.h.entryCame(r.ctx, e)
			}
			if errors.Is(err, engine.ErrInvalid) {
				r.h.o.Log.Warn("hub: a member's entry that can't be understood", "key", kv.Key(), "error", err)
			} else if err != nil {
				return err
			}
			r.look()
		case <-r.ctx.Done():
			return nil
		}
	}
}

// A step of more bytes than this, and than a quarter of what it leads from, is put into the bucket.
const stepBytes = 512

// beatPause is how long news of the own vector wait at least: each member hears each other's.
func (h *Hub) beatPause() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return min(max(250*time.Millisecond, time.Duration(len(h.members))*20*time.Millisecond), link.Heartbeat)
}

// beats says that this node is alive and what it knows, every five seconds and when that has changed.
func (r *round) beats() error {
	h := r.h
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	news := make(chan struct{}, 1)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			at := h.e.Place()
			select {
			case news <- struct{}{}:
			case <-stop:
				return
			}
			if h.e.Await(r.ctx, at) != nil {
				return
			}
		}
	}()
	var said, aged time.Time
	aged = time.Now()
	for {
		fresh := false
		select {
		case <-news:
			fresh = true
		case <-r.beat:
			fresh = true
		case <-tick.C:
			now := time.Now()
			if err := h.age(r.ctx, now.Sub(aged)); err != nil {
				return err
			}
			aged = now
			h.mu.Lock()
			err := h.keepPlaces(r.ctx)
			h.mu.Unlock()
			if err != nil {
				return err
			}
		case <-r.ctx.Done():
			return nil
		}
		if !fresh && time.Since(said) < link.Heartbeat {
			continue
		}
		if wait := h.beatPause() - time.Since(said); fresh && wait > 0 {
			select {
			case <-time.After(wait):
			case <-r.ctx.Done():
				return nil
			}
		}
		if err := r.say(); err != nil {
			return err
		}
		said = time.Now()
	}
}

// say sends one heartbeat.
func (r *round) say() error {
	h := r.h
	own, err := h.e.Summary(r.ctx)
	if err != nil {
		return err
	}
	p := pulse{endpoint: h.endpoint, origin: h.origin, name: h.o.Name, root: own.Root, digest: link.Digest(own.Vector), heard: own.Heard, wall: h.o.Now().UnixMilli()}
	r.mu.Lock()
	base, based := r.base, r.based
	r.mu.Unlock()
	if based {
		p.step = link.Between(base, own.Vector)
	}
	if n := len(p.step.AppendTo(nil)); !based || n > stepBytes && n > 5*len(base) {
		e := entry{endpoint: h.endpoint, name: h.o.Name, vector: own.Vector}
		ctx, cancel := context.WithTimeout(r.ctx, roundTimeout)
		_, err := r.bucket.Put(ctx, tokenOf(h.endpoint), e.encode())
		cancel()
		if err != nil {
			return fmt.Errorf("the bucket %s: %w", h.names.bucket, err)
		}
		base, p.step = own.Vector, link.Step{}
		r.mu.Lock()
		r.base, r.based = base, true
		r.mu.Unlock()
	}
	p.base = link.Digest(base)
	r.mu.Lock()
	r.spoken = p
	r.mu.Unlock()
	if err := h.conn.Publish(h.names.pulse+tokenOf(h.endpoint), p.encode()); err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	return nil
}

// farewell tells the others that this node leaves, so that they need not find out.
func (r *round) farewell() {
	r.mu.Lock()
	p := r.spoken
	r.mu.Unlock()
	if p.endpoint != r.h.endpoint {
		return
	}
	p.leaving = true
	_ = r.h.conn.Publish(r.h.names.pulse+tokenOf(p.endpoint), p.encode()) // else they notice
	_ = r.h.conn.FlushTimeout(time.Second)
}
