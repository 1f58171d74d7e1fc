package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A broker is the virtual wrapper: it is the server. A publish goes to the link and is
// acknowledged when it is durable; subscribers hear of it only from the link's stream of commits,
// so all of them hear everything in commit order, whoever wrote it.
//
// Lock order: broker.mu, conn.mu, session.mu, broker.pendingMu.
type broker struct {
	cfg  wrappers.Config
	opt  options
	link wrappers.Link
	door *relay.Door
	ctx  context.Context // of work in progress: it ends after the drain, not before
	bg   sync.WaitGroup

	mu       sync.Mutex // the stream and who listens to it
	tree     tree
	ring     ring
	sessions map[string]*session
	groups   map[string]*group
	conns    map[*conn]struct{}
	claims   map[string]*conn // the one connection of each client id
	draining bool
	hits     []*session // scratch of route

	tags      atomic.Uint64
	pendingMu sync.Mutex
	pending   map[uint64]*publication // by tag: on their way to the log and back
	awaiting  []awaited               // committed, and the stream has still to show them
}

// A publication is a message of a client on its way to the registers and the subscribers.
type publication struct {
	tag     uint64
	address string
	msg     publish // as it goes on to subscribers
	who     wrappers.Who
	client  string
	arrived time.Time
}

type awaited struct {
	tag  uint64
	when time.Time
}

// echoWait is how long a committed publish waits for its place in the stream before subscribers
// are told out of turn. A sound link never needs it.
const echoWait = 5 * time.Second

func newBroker(cfg wrappers.Config, opt options) *broker {
	return &broker{
		cfg: cfg, opt: opt,
		sessions: make(map[string]*session), groups: make(map[string]*group), conns: make(map[*conn]struct{}), claims: make(map[string]*conn),
		pending: make(map[uint64]*publication),
	}
}

// Serve implements wrappers.Wrapper.
func (b *broker) Serve(ctx context.Context, link wrappers.Link) error {
	b.link = link
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	b.ctx = work
	if err := b.forgetExpired(); err != nil {
		return fmt.Errorf("stored sessions: %w", err)
	}
	b.door = &relay.Door{
		Listener: b.cfg.Listener, Sessions: b.cfg.Limits.Sessions, PerHost: b.cfg.Limits.PerHost,
		Handshake: b.cfg.Limits.Handshake, Count: link.Count, Log: b.cfg.Log,
	}
	changes := link.Follow(work, wrappers.Notify, "")
	failed := make(chan error, 1)
	b.bg.Go(func() {
		for c, err := range changes {
			if err != nil {
				if work.Err() == nil {
					failed <- fmt.Errorf("following the log: %w", err)
				}
				return
			}
			b.hear(&c)
		}
	})
	b.bg.Go(func() { b.tick(work) })

	serve, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(serve, b.drain)
	var broken error
	b.bg.Go(func() {
		select {
		case broken = <-failed:
			stop()
		case <-work.Done():
		}
	})
	err := b.door.Serve(serve, b.cfg.Drain, func(p *relay.Peer) { b.admit(p) })
	b.closeAll(b.cfg.Drain)
	cancel()
	b.bg.Wait()
	if broken != nil && ctx.Err() == nil {
		return broken
	}
	return err
}

// drain asks every client to go, each after its publishes in flight have been acknowledged.
func (b *broker) drain() {
	b.mu.Lock()
	b.draining = true
	conns := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	b.mu.Unlock()
	for _, c := range conns {
		go c.finish()
	}
}

// closeAll waits until every connection has put its session away.
func (b *broker) closeAll(atMost time.Duration) {
	late := time.NewTimer(atMost + time.Second)
	defer late.Stop()
	for {
		b.mu.Lock()
		var c *conn
		for c = range b.conns {
			break
		}
		b.mu.Unlock()
		if c == nil {
			return
		}
		select {
		case <-c.done:
		case <-late.C:
			return
		}
	}
}

// findPlace learns where the log stands, unless a commit has shown it: a session that lasts must
// know its place before the first message.
func (b *broker) findPlace() {
	b.mu.Lock()
	known := b.ring.cursor != ""
	b.mu.Unlock()
	if known {
		return
	}
	res, err := b.link.Do(b.ctx, wrappers.Operation{Verb: wrappers.List, Limit: 1, Who: wrappers.Who{Verified: true}})
	b.mu.Lock()
	if err == nil && b.ring.cursor == "" {
		b.ring.cursor = res.Cursor
	}
	b.mu.Unlock()
}

// commit makes a publish durable. It returns when it is, or with what forbids it.
func (b *broker) commit(p *publication) error { return b.start(p)() }

// start gives a publish its place, behind all that were started before it; the returned function
// waits until it is durable, or says what forbids it.
func (b *broker) start(p *publication) (wait func() error) {
	op := wrappers.Operation{Verb: wrappers.Message, Address: p.address, Who: p.who, Tag: b.tags.Add(1)}
	if p.msg.retain && len(p.msg.payload) == 0 {
		op.Verb = wrappers.Delete
	} else {
		op.Payload.Raw = p.msg.payload
		if len(p.msg.props) > 0 {
			op.Payload.Type, op.Payload.Meta = meta(p.msg.props)
		}
	}
	p.tag = op.Tag
	b.pendingMu.Lock()
	b.pending[p.tag] = p
	b.pendingMu.Unlock()
	durable, err := b.link.Start(b.ctx, op)
	return func() error {
		var res wrappers.Result
		if err == nil {
			res, err = durable()
		}
		return b.committed(p, op.Verb, res, err)
	}
}

// committed takes note of what became of a publish.
func (b *broker) committed(p *publication, verb wrappers.Verb, res wrappers.Result, err error) error {
	if verb == wrappers.Delete && errors.Is(err, wrappers.ErrNotFound) {
		res, err = wrappers.Result{}, nil // clearing what is clear is a message like any other
	}
	b.pendingMu.Lock()
	direct := false
	if _, waits := b.pending[p.tag]; waits {
		switch {
		case err != nil || res.Waiting: // nobody hears of what waits before it is collapsed
			delete(b.pending, p.tag)
		case res.Cursor == "":
			// Accepted, and no register changed: the stream will not show it.
			delete(b.pending, p.tag)
			direct = true
		default:
			b.awaiting = append(b.awaiting, awaited{p.tag, time.Now()})
		}
	}
	b.pendingMu.Unlock()
	if direct {
		b.tell(newEntry(p))
	}
	return err
}

// hear takes the next committed change from the link.
func (b *broker) hear(c *wrappers.Change) {
	var e *entry
	if c.Echo && c.Tag != 0 {
		b.pendingMu.Lock()
		if p := b.pending[c.Tag]; p != nil && p.address == c.Address {
			delete(b.pending, c.Tag)
			e = newEntry(p)
			e.cursor = c.Cursor
		}
		b.pendingMu.Unlock()
	}
	if e == nil {
		var ok bool
		if e, ok = changeEntry(c); !ok {
			return
		}
	}
	b.tell(e)
}

// tell appends to the stream and hands the entry to all who keep up with it.
func (b *broker) tell(e *entry) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ring.add(e)
	b.route(e)
}

// route offers e to every live session and group that selects it. b.mu is held.
func (b *broker) route(e *entry) {
	b.hits = b.hits[:0]
	b.tree.match(e.address, func(n *node) {
		for _, sub := range n.subs {
			s := sub.session
			if !s.live || !sub.takes(e) {
				continue
			}
			if s.hitAt != e.seq {
				if !s.mayHear(e) {
					continue
				}
				s.hitAt, s.hit = e.seq, delivery{entry: e}
				b.hits = append(b.hits, s)
			}
			s.hit.merge(sub)
		}
		for _, g := range n.groups {
			if g.live && !g.hand(e) {
				g.live, g.pos = false, b.ring.position(e.seq-1)
				b.feedGroup(g)
			}
		}
	})
	for _, s := range b.hits {
		if !s.offer(s.hit) {
			// QoS 1 and 2 are not dropped: the session goes on from here at its own pace.
			s.live, s.pos = false, b.ring.position(e.seq-1)
			b.link.Count("subscribers_behind", 1)
			b.feed(s)
		}
		s.hit = delivery{}
	}
}

// tick looks after what has a time of its own: sessions of absent clients, delayed wills,
// committed publishes that the stream does not show.
func (b *broker) tick(ctx context.Context) {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			b.tellLate(now)
			b.expire(now)
			b.keepProgress()
		}
	}
}

func (b *broker) tellLate(now time.Time) {
	var late []*publication
	b.pendingMu.Lock()
	left := b.awaiting[:0]
	for _, a := range b.awaiting {
		p := b.pending[a.tag]
		switch {
		case p == nil:
		case now.Sub(a.when) < echoWait:
			left = append(left, a)
		default:
			delete(b.pending, a.tag)
			late = append(late, p)
		}
	}
	if cap(left) > 1024 && len(left) < cap(left)/4 {
		left = append([]awaited(nil), left...)
	}
	b.awaiting = left
	b.pendingMu.Unlock()
	for _, p := range late {
		b.link.Count("echo_missing", 1)
		b.tell(newEntry(p))
	}
}
