package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Handler looks at the frames of one session. FromClient and FromServer run on a goroutine
// each, so a Handler may simply block in one of them: what it has not passed on, and everything
// behind it, waits in order in the kernel's buffers, and the sender slows down by itself. Before
// it blocks over a frame it returns what precedes it.
type Handler interface {
	// FromClient and FromServer are shown everything read and not yet passed on. b is theirs
	// for the duration of the call. An error ends the session; to say something first, use
	// Session.ToClient.
	FromClient(b []byte) (Step, error)
	FromServer(b []byte) (Step, error)
	// Busy tells whether something is in flight that a drain should wait for. It is called from
	// any goroutine.
	Busy() bool
	// End is called once, when both directions have ended and before the connections close for
	// good. err is why; nil after an orderly end of both.
	End(err error)
}

// A Server relays what comes in at its Door.
type Server struct {
	Door
	TLS *tls.Config // of the listener; nil: plain
	// Dial opens the upstream connection of one session, TLS included.
	Dial func(ctx context.Context) (net.Conn, error)
	// Handle makes a session's Handler. The upstream connection stands already.
	Handle func(*Session) Handler
	// Greet, if not nil, speaks with a client before an upstream is dialled, and may make a TLS
	// connection of it, in protocols that ask for that in their own words. An error ends the session.
	Greet func(ctx context.Context, conn net.Conn) (net.Conn, error)
	// Claim, if not nil, may take over a client connection before an upstream is dialled (after
	// the TLS handshake: another protocol was negotiated). Closing conn closes the Peer.
	Claim func(conn net.Conn, p *Peer) bool
	// Down gives what a client is told when the upstream can't be reached; nil: nothing.
	Down func(err error) []byte
	// Hold is the most a Handler may leave unpassed in one direction; 0: 2 MiB.
	Hold int
	// Queue bounds what Handlers say to a side that is in the middle of a frame; 0: 1 MiB.
	Queue int
	// WriteTimeout is how long a side may take to accept a buffer; 0: 30 s.
	WriteTimeout time.Duration
	// Idle ends a session that says nothing from the client for so long; 0: never.
	Idle time.Duration
	// Linger ends a session so long after one side has finished and the other says nothing; 0: 60 s.
	Linger time.Duration
	Drain  time.Duration

	mu       sync.Mutex
	sessions map[*Session]struct{}
	draining bool
}

// A Session is one client connection and its upstream connection.
type Session struct {
	server   *Server
	peer     *Peer
	client   net.Conn // the peer's connection, or TLS over it
	upstream net.Conn
	toClient *end
	toServer *end
	handler  Handler
	in       *pump // of the client, for ToTLS
	draining atomic.Bool
	half     atomic.Bool   // one side has finished
	broken   atomic.Bool   // both are to end
	over     atomic.Int32  // directions that have ended
	gone     chan struct{} // closed when the server has finished
	ctx      context.Context
	cancel   context.CancelCauseFunc
}

var (
	errDrained = errors.New("draining")
	errClosed  = errors.New("session closed")
)

// Serve relays until ctx ends, then lets busy sessions finish within Drain and returns nil.
func (s *Server) Serve(ctx context.Context) error {
	s.init()
	stop := context.AfterFunc(ctx, s.startDrain)
	defer stop()
	return s.Door.Serve(ctx, s.Drain, func(p *Peer) { s.open(ctx, p) })
}

// ServeConn relays one connection that was accepted elsewhere (a WebSocket). It returns when the
// session has been set up or refused.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	s.init()
	s.Enter(conn, func(p *Peer) { s.open(ctx, p) })
}

func (s *Server) init() {
	s.Door.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions != nil {
		return
	}
	s.sessions = map[*Session]struct{}{}
	if s.Hold <= 0 {
		s.Hold = 2 << 20
	}
	if s.Queue <= 0 {
		s.Queue = 1 << 20
	}
	if s.WriteTimeout <= 0 {
		s.WriteTimeout = 30 * time.Second
	}
	if s.Linger <= 0 {
		s.Linger = 60 * time.Second
	}
}

// open sets a session up and starts its two goroutines. It runs on a goroutine that ends with it,
// because a dial leaves a deep stack behind and an idle session should not keep one.
func (s *Server) open(ctx context.Context, p *Peer) {
	client := p.Conn // not p, whose descriptor can't be waited for
	if s.TLS != nil {
		tc, err := handshake(context.WithoutCancel(ctx), p, s.TLS, s.Handshake)
		if err != nil {
			s.Count("tls_refused", 1)
			s.Log.Debug("tls handshake", "peer", p.RemoteAddr(), "err", err)
			p.Close()
			return
		}
		client = tc
	}
	if s.Greet != nil {
		greetCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Handshake)
		c, err := s.Greet(greetCtx, client)
		cancel()
		if err != nil {
			s.Count("greeting_refused", 1)
			s.Log.Debug("greeting", "peer", p.RemoteAddr(), "err", err)
			p.Close()
			return
		}
		client = c
	}
	if s.Claim != nil && s.Claim(client, p) {
		return
	}
	dialCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Handshake)
	up, err := s.Dial(dialCtx)
	cancel()
	if err != nil {
		s.Count("upstream_down", 1)
		s.Log.Warn("upstream", "peer", p.RemoteAddr(), "err", err)
		if s.Down != nil && s.speaks(client) {
			_ = client.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := client.Write(s.Down(err)); err == nil && closeWrite(client) == nil {
				lingerRead(client)
			}
		}
		p.Close()
		return
	}
	ses := &Session{server: s, peer: p, client: client, upstream: up, gone: make(chan struct{})}
	ses.ctx, ses.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	ses.toClient = newEnd(client, s.WriteTimeout, s.Queue)
	ses.toServer = newEnd(up, s.WriteTimeout, s.Queue)
	ses.handler = s.Handle(ses)
	in := newPump(ses, client, ses.toServer, ses.handler.FromClient)
	in.idle = s.Idle
	ses.in = in
	out := newPump(ses, up, ses.toClient, ses.handler.FromServer)
	s.mu.Lock()
	s.sessions[ses] = struct{}{}
	draining := s.draining
	s.mu.Unlock()
	if draining {
		ses.drain()
	}
	go ses.pump(in, ses.toServer)
	go ses.pump(out, ses.toClient)
}

// speaks waits for the client's first word. An answer before any question is not one: HTTP clients
// throw the connection away without reading it.
func (s *Server) speaks(client net.Conn) bool {
	if client.SetReadDeadline(time.Now().Add(s.Handshake)) != nil {
		return false
	}
	_, err := client.Read(make([]byte, 1))
	return err == nil
}

// pump runs one direction. The one that ends last closes the session.
func (ses *Session) pump(p *pump, dst *end) {
	defer func() {
		if dst == ses.toClient {
			close(ses.gone)
		}
		if ses.over.Add(1) == 2 {
			ses.close()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			ses.cancel(errClosed)
			ses.breakOff()
			ses.server.panicked(ses.peer, r)
		}
	}()
	err := p.run()
	var far *farSide
	var refused *Refused
	switch {
	case err == nil:
		// The source has finished: so does this direction, and the other may take a while yet.
		ses.finish(p, dst)
		return
	case dst == ses.toServer && errors.As(err, &far) && !errors.Is(err, errSlow):
		// The server stopped listening; what it says about that is still to be passed.
		ses.note(err)
		ses.half.Store(true)
		_ = ses.upstream.SetReadDeadline(time.Now().Add(ses.server.Linger))
		ses.discard()
		return
	}
	ses.cancel(err)
	ses.note(err)
	if errors.As(err, &refused) {
		if refused.Say != nil {
			_ = ses.toClient.say(refused.Say)
		}
		if ses.toClient.closeWrite() == nil {
			lingerRead(ses.client)
		}
	}
	ses.breakOff()
}

// finish half-closes what one side has finished saying.
func (ses *Session) finish(p *pump, dst *end) {
	if dst.closeWrite() != nil {
		ses.breakOff()
		return
	}
	if ses.half.Swap(true) {
		return
	}
	other := ses.upstream
	if p.src == ses.upstream {
		other = ses.client
	}
	_ = other.SetReadDeadline(time.Now().Add(ses.server.Linger))
}

// discard reads what a client still says to a server that doesn't listen, until the other
// direction has passed the server's last words.
func (ses *Session) discard() {
	b := getBuffer(smallBuffer)
	defer putBuffer(b)
	for !ses.broken.Load() && ses.over.Load() == 0 {
		if ses.client.SetReadDeadline(time.Now().Add(time.Second)) != nil {
			return
		}
		if _, err := ses.client.Read(b); err != nil && !timedOut(err) {
			return
		}
	}
}

// A Refused error from a Handler ends the session after Say has been said to the client.
type Refused struct {
	Say []byte
	Err error
}

func (r *Refused) Error() string { return r.Err.Error() }
func (r *Refused) Unwrap() error { return r.Err }

// note counts why a session broke.
func (ses *Session) note(err error) {
	s := ses.server
	switch {
	case errors.Is(err, errSlow), errors.Is(err, errQueue):
		s.Count("slow_peers", 1)
	case errors.Is(err, errTooLong):
		s.Count("oversized", 1)
	case timedOut(err):
		s.Count("timeouts", 1)
	case errors.Is(err, errDrained), errors.Is(err, net.ErrClosed):
		return
	}
	s.Log.Debug("session ended", "peer", ses.peer.RemoteAddr(), "err", err)
}

// breakOff wakes both directions; the last one to end closes.
func (ses *Session) breakOff() {
	ses.broken.Store(true)
	now := time.Unix(1, 0)
	_ = ses.client.SetDeadline(now)
	_ = ses.upstream.SetDeadline(now)
}

func (ses *Session) close() {
	err := context.Cause(ses.ctx)
	func() {
		defer ses.server.Recover(ses.peer)
		ses.handler.End(err)
	}()
	ses.cancel(errClosed)
	ses.upstream.Close()
	if ses.client != ses.peer.Conn {
		ses.client.Close()
	}
	ses.peer.Close()
	s := ses.server
	s.mu.Lock()
	delete(s.sessions, ses)
	s.mu.Unlock()
}

// lingerRead reads a little before a close, so that a reset doesn't overtake the last words.
func lingerRead(c net.Conn) {
	if c.SetReadDeadline(time.Now().Add(time.Second)) == nil {
		_, _ = io.CopyN(io.Discard, c, 1<<20)
	}
}

func (s *Server) startDrain() {
	s.mu.Lock()
	s.draining = true
	all := make([]*Session, 0, len(s.sessions))
	for ses := range s.sessions {
		all = append(all, ses)
	}
	s.mu.Unlock()
	for _, ses := range all {
		ses.drain()
	}
}

func (ses *Session) drain() {
	ses.draining.Store(true)
	if !ses.handler.Busy() {
		ses.cancel(errDrained)
		ses.breakOff()
	}
}

// ToClient says whole frames to the client, between those that are passed. It may be called from
// any goroutine; b is not kept.
func (ses *Session) ToClient(b []byte) error { return ses.toClient.say(b) }

// ToServer says whole frames to the server, between those that are passed.
func (ses *Session) ToServer(b []byte) error { return ses.toServer.say(b) }

// Context ends with the session.
func (ses *Session) Context() context.Context { return ses.ctx }

// ServerGone is closed when nothing more will come from the server: a Handler that waits for an
// answer waits for this too.
func (ses *Session) ServerGone() <-chan struct{} { return ses.gone }

// Client is the peer's address.
func (ses *Session) Client() net.Addr { return ses.peer.RemoteAddr() }

// Welcome says that the client is no stranger any more (see Peer.Welcome).
func (ses *Session) Welcome() {
	ses.peer.Welcome()
	if ses.broken.Load() {
		ses.breakOff()
	}
}

// Expect gives the client so long to say the next thing; 0: for ever.
func (ses *Session) Expect(within time.Duration) {
	var at time.Time
	if within > 0 {
		at = time.Now().Add(within)
	}
	_ = ses.client.SetReadDeadline(at) // a closed connection shows at the next read
	if ses.broken.Load() {
		ses.breakOff()
	}
}

// Close ends the session.
func (ses *Session) Close(err error) {
	if err == nil {
		err = errClosed
	}
	ses.cancel(err)
	ses.breakOff()
}
