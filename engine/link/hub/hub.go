// Package hub lets the nodes of a domain tell each other what they lack over NATS JetStream: a relay that may lose. Read
// DESIGN.md.
package hub

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/link"
)

// Auth is what a node shows to the hub. All may be zero, for a hub that asks for nothing.
type Auth struct {
	Credentials    string // path of a file with a user's JWT and seed, as nsc writes it
	NKey           string // path of a file with a seed
	Token          string
	User, Password string
	TLS            *tls.Config // nil: as the URL says
}

// Options are what a Hub is made of. Engine, Site, Domain and URLs or Local are needed.
type Options struct {
	Engine *engine.Engine
	Site   *link.Site // of the engine: sessions begin with it, and it counts the members
	Domain string
	Name   string // what this node is called by the others; "": its endpoint
	URLs   []string
	Local  nats.InProcessConnProvider // a hub in this process, instead of URLs
	Auth   Auth
	// JetStream is the JetStream domain that the hub is in, where it is reached by a leaf node that has one of its own.
	JetStream string
	// MaxAge and MaxBytes bound what the hub keeps, and Replicas is on how many servers of a cluster, where this node is the
	// one that makes the stream; 0: 7 days, 1 GiB, 1. It may lose all of it.
	MaxAge   time.Duration
	MaxBytes int64
	Replicas int
	Log      *slog.Logger
	Now      func() time.Time

	// Forget is how long a member may be absent while this node is on the hub before it is waited for no more; 0: 30 days.
	Forget time.Duration
}

// The ways in which a node is not on the hub, beside those of NATS.
var (
	ErrTwin  = errors.New("this endpoint runs twice on the hub")
	errMoved = errors.New("another has published under this endpoint")
)

// A Hub is one node's place in its domain.
type Hub struct {
	o        Options
	e        *engine.Engine
	endpoint engine.EndpointID
	origin   engine.OriginID
	names    names
	conn     *nats.Conn
	ctx      context.Context
	cancel   context.CancelFunc
	wait     sync.WaitGroup
	lost     chan struct{} // the connection broke, or was made anew

	mu      sync.Mutex
	members map[engine.EndpointID]*member
	state   link.State
	since   time.Time
	server  string // where it is connected
	failure string
	failed  time.Time
	figures link.Figures
	stored  uint64 // bytes in the stream when it was last looked at
	rounds  uint64
	round   *round // that is up
	places  places
	dialing map[engine.EndpointID]bool // sessions that this node has begun
	serving int                        // sessions that others have begun
}

// Open begins to keep this node on its hub, whether the hub can be reached now or not. The Hub has to be closed before its
// Site.
func Open(ctx context.Context, o Options) (*Hub, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Forget == 0 {
		o.Forget = 30 * 24 * time.Hour
	}
	if o.MaxAge == 0 {
		o.MaxAge = 7 * 24 * time.Hour
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 1 << 30
	}
	o.Replicas = max(o.Replicas, 1)
	own, err := o.Engine.Summary(ctx)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = own.Endpoint.String()
	}
	h := &Hub{
		o: o, e: o.Engine, endpoint: own.Endpoint, origin: own.Origin, names: namesOf(o.Domain), lost: make(chan struct{}, 1),
		members: map[engine.EndpointID]*member{}, state: link.Decohered, since: o.Now(), dialing: map[engine.EndpointID]bool{},
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	if err := h.loadMembers(); err != nil {
		return nil, err
	}
	if h.places, err = loadPlaces(h.e); err != nil {
		return nil, err
	}
	if err := h.tellSite(ctx); err != nil {
		return nil, err
	}
	options, err := h.connectOptions()
	if err != nil {
		return nil, err
	}
	if h.conn, err = nats.Connect(strings.Join(o.URLs, ","), options...); err != nil {
		return nil, fmt.Errorf("the hub of domain %q: %w", o.Domain, err)
	}
	h.wait.Go(h.keep)
	return h, nil
}

// How a broken connection is noticed, and how it is made again.
const (
	pingEvery     = 5 * time.Second
	reconnectWait = 250 * time.Millisecond
	reconnectMost = 2 * time.Second
)

func (h *Hub) connectOptions() ([]nats.Option, error) {
	poke := func() {
		select {
		case h.lost <- struct{}{}:
		default:
		}
	}
	options := []nats.Option{
		nats.Name("spookgw " + h.o.Domain + " " + h.o.Name), nats.NoEcho(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1),
		nats.PingInterval(pingEvery), nats.MaxPingsOutstanding(2), nats.Timeout(5 * time.Second), nats.DrainTimeout(time.Second),
		nats.IgnoreAuthErrorAbort(), nats.ReconnectBufSize(-1), // what was not sent is looked up in the log, not in a buffer
		nats.CustomReconnectDelay(func(n int) time.Duration {
			pause := min(reconnectWait<<min(n, 8), reconnectMost)
			return pause/2 + rand.N(pause)
		}),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				h.note(err)
			}
			poke()
		}),
		nats.ConnectHandler(func(*nats.Conn) { poke() }),
		nats.ReconnectHandler(func(*nats.Conn) { poke() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { h.note(err) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { h.note(err) }),
	}
	if h.o.Local != nil {
		options = append(options, nats.InProcessServer(h.o.Local))
	}
	a := h.o.Auth
	if a.Credentials != "" {
		options = append(options, nats.UserCredentials(a.Credentials))
	}
	if a.NKey != "" {
		option, err := nats.NkeyOptionFromSeed(a.NKey)
		if err != nil {
			return nil, fmt.Errorf("the hub's nkey: %w", err)
		}
		options = append(options, option)
	}
	if a.Token != "" {
		options = append(options, nats.Token(a.Token))
	}
	if a.User != "" {
		options = append(options, nats.UserInfo(a.User, a.Password))
	}
	if a.TLS != nil {
		options = append(options, nats.Secure(a.TLS))
	}
	return options, nil
}

// note keeps why this node is not on the hub.
func (h *Hub) note(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if text := err.Error(); text != h.failure {
		h.failure = text
		h.o.Log.Warn("hub: not connected", "error", err)
	}
	h.failed = h.o.Now()
}

// keep makes one round after another.
func (h *Hub) keep() {
	const first, last = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for h.ctx.Err() == nil {
		err := h.once()
		if h.ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, errMoved) || errors.Is(err, errBroken) {
			pause = first
		}
		if errors.Is(err, ErrTwin) {
			pause = last // it will not be otherwise soon
		}
		if err != nil && !errors.Is(err, errBroken) { // that was noted when it broke
			h.note(err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-h.ctx.Done():
			return
		}
		pause = min(2*pause, last)
	}
}

// once waits for the connection and keeps one round up until it breaks. Nil: it was up.
func (h *Hub) once() error {
	for !h.conn.IsConnected() {
		select {
		case <-h.lost:
		case <-time.After(time.Second):
		case <-h.ctx.Done():
			return nil
		}
	}
	select {
	case <-h.lost: // of the connection that was made just now
	default:
	}
	r := &round{h: h}
	up, err := r.run(h.ctx)
	h.mu.Lock()
	h.round = nil
	h.move(link.Decohered)
	h.mu.Unlock()
	if up && !errors.Is(err, errMoved) {
		if err != nil && h.ctx.Err() == nil && !errors.Is(err, errBroken) {
			h.note(err)
		}
		return nil
	}
	return err
}

// move changes the state. The caller holds h.mu.
func (h *Hub) move(to link.State) {
	if h.state == to {
		return
	}
	h.o.Log.Info("hub: "+string(to), "was", string(h.state))
	h.state, h.since = to, h.o.Now()
	if to == link.Decohered {
		for _, m := range h.members {
			h.moveMember(m, link.Decohered)
		}
	}
}

// Close leaves the hub, and says so.
func (h *Hub) Close() error {
	h.mu.Lock()
	r := h.round
	h.mu.Unlock()
	if r != nil {
		r.farewell()
	}
	h.cancel()
	h.wait.Wait()
	h.conn.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	err := h.keepPlaces(context.Background())
	if errors.Is(err, engine.ErrClosed) {
		return nil
	}
	return err
}

// A State is this node's place on its hub, in figures.
type State struct {
	State   link.State // entangled: on the hub, decohered: not
	Since   time.Time
	Server  string // where it is connected
	URLs    []string
	Stored  uint64 // bytes that the hub keeps
	Rounds  uint64 // times it came onto the hub since the start
	Figures link.Figures
	Failure string
	Failed  time.Time
}

// State gives it.
func (h *Hub) State() State {
	h.mu.Lock()
	defer h.mu.Unlock()
	return State{State: h.state, Since: h.since, Server: h.server, URLs: slices.Clone(h.o.URLs), Stored: h.stored, Rounds: h.rounds, Figures: h.figures, Failure: h.failure, Failed: h.failed}
}
