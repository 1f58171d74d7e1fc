// Package relay is the byte-transparent relay that TCP wrappers share: one upstream connection
// for each client connection, bytes forwarded as they were read, and a protocol's Handler that
// looks at whole frames on their way and may make them wait.
package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"time"
)

// A Door lets peers in: it bounds how many there are, drops strangers early when one host sends
// too many, backs off when the process is out of file descriptors, and keeps a panic in one
// session from being anyone else's. A virtual wrapper can use it without the rest of the package.
type Door struct {
	Listener  net.Listener
	Sessions  int           // at once; 0: 10,000
	PerHost   int           // strangers (peers not yet Welcome) from one address before random drop; 0: 100
	Handshake time.Duration // deadline for reads until a peer is Welcome; 0: 30 s
	Full      []byte        // said to a peer over the limit before it is closed; nil on a TLS listener
	// Count may be nil: "sessions", "sessions_full", "dropped_early", "accept_backoff", "panics".
	Count func(event string, n int)
	Log   *slog.Logger

	once  sync.Once
	mu    sync.Mutex
	hosts map[string]int // strangers by address
	peers map[*Peer]struct{}
	empty chan struct{} // closed when draining and the last peer has left
	drain bool
}

// A Peer is one accepted connection. It holds its place until Close.
type Peer struct {
	net.Conn
	door    *Door
	host    string
	welcome bool // door.mu
	closed  bool // door.mu
}

func (d *Door) init() {
	d.once.Do(func() {
		if d.Sessions <= 0 {
			d.Sessions = 10_000
		}
		if d.PerHost <= 0 {
			d.PerHost = 100
		}
		if d.Handshake <= 0 {
			d.Handshake = 30 * time.Second
		}
		if d.Count == nil {
			d.Count = func(string, int) {}
		}
		if d.Log == nil {
			d.Log = slog.New(slog.DiscardHandler)
		}
		d.hosts = map[string]int{}
		d.peers = map[*Peer]struct{}{}
		d.empty = make(chan struct{})
	})
}

// Serve accepts until ctx ends and calls serve for each peer on a goroutine of its own; a peer
// may outlive that call, until it is closed. When ctx ends no more are accepted, and Serve waits
// for the peers to leave, at most drain; then it closes them and returns nil. Any other return is
// a listener that broke.
func (d *Door) Serve(ctx context.Context, drain time.Duration, serve func(*Peer)) error {
	d.init()
	stop := context.AfterFunc(ctx, func() { d.Listener.Close() })
	defer stop()
	var pause time.Duration
	for {
		conn, err := d.Listener.Accept()
		if err == nil {
			pause = 0
			d.admit(conn, serve)
			continue
		}
		if ctx.Err() != nil {
			d.leave(drain)
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		// Out of descriptors or memory: those who are in go on, and the next ones wait in the
		// kernel's queue.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		d.Count("accept_backoff", 1)
		d.Log.Warn("accept", "err", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// Enter lets in a connection that somebody else accepted.
func (d *Door) Enter(conn net.Conn, serve func(*Peer)) {
	d.init()
	d.admit(conn, serve)
}

func (d *Door) admit(conn net.Conn, serve func(*Peer)) {
	p := &Peer{Conn: conn, door: d, host: hostOf(conn.RemoteAddr())}
	d.mu.Lock()
	strangers := d.hosts[p.host]
	switch {
	case d.drain || len(d.peers) >= d.Sessions:
		d.mu.Unlock()
		d.Count("sessions_full", 1)
		d.turnAway(conn)
		return
	case strangers >= d.PerHost && rand.Float64() < dropChance(strangers, d.PerHost):
		d.mu.Unlock()
		d.Count("dropped_early", 1)
		conn.Close()
		return
	}
	d.hosts[p.host] = strangers + 1
	d.peers[p] = struct{}{}
	d.mu.Unlock()
	d.Count("sessions", 1)
	if err := conn.SetReadDeadline(time.Now().Add(d.Handshake)); err != nil {
		p.Close()
		return
	}
	go func() {
		defer d.Recover(p)
		serve(p)
	}()
}

// dropChance rises from 0.3 at the limit to 1 at twice the limit.
func dropChance(strangers, limit int) float64 {
	return 0.3 + 0.7*float64(strangers-limit)/float64(limit)
}

// turnAway says Full to a peer without waiting for it.
func (d *Door) turnAway(conn net.Conn) {
	if d.Full != nil && conn.SetDeadline(time.Now().Add(100*time.Millisecond)) == nil {
		go func() {
			if _, err := conn.Write(d.Full); err == nil {
				if c, ok := conn.(interface{ CloseWrite() error }); ok && c.CloseWrite() == nil {
					var b [512]byte
					_, _ = conn.Read(b[:]) // or the reset would overtake the words
				}
			}
			conn.Close()
		}()
		return
	}
	conn.Close()
}

// Recover is deferred by every goroutine of a session: a panic ends that session only.
func (d *Door) Recover(p *Peer) {
	if r := recover(); r != nil {
		d.panicked(p, r)
		p.Close()
	}
}

func (d *Door) panicked(p *Peer, r any) {
	d.Count("panics", 1)
	d.Log.Error("panic in a session", "peer", p.RemoteAddr(), "panic", r, "stack", string(debug.Stack()))
}

// leave waits for the peers to go, at most so long.
func (d *Door) leave(atMost time.Duration) {
	d.mu.Lock()
	d.drain = true
	if len(d.peers) == 0 {
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	select {
	case <-d.empty:
		return
	case <-time.After(atMost):
	}
	for _, p := range d.inside() {
		p.Close()
	}
}

func (d *Door) inside() []*Peer {
	d.mu.Lock()
	defer d.mu.Unlock()
	ps := make([]*Peer, 0, len(d.peers))
	for p := range d.peers {
		ps = append(ps, p)
	}
	return ps
}

// Welcome says that the peer is no stranger any more: it authenticated, or sent its first sound
// request. Its handshake deadline is lifted.
func (p *Peer) Welcome() {
	if p.unstrange() {
		_ = p.Conn.SetReadDeadline(time.Time{}) // a closed connection shows at the next read
	}
}

// Known is Welcome for a server that sets its deadlines itself.
func (p *Peer) Known() { p.unstrange() }

func (p *Peer) unstrange() bool {
	d := p.door
	d.mu.Lock()
	defer d.mu.Unlock()
	if p.welcome {
		return false
	}
	p.welcome = true
	if d.hosts[p.host]--; d.hosts[p.host] <= 0 {
		delete(d.hosts, p.host)
	}
	return true
}

// Close closes the connection and gives up the place; it may be called more than once.
func (p *Peer) Close() error {
	p.unstrange()
	d := p.door
	d.mu.Lock()
	first := !p.closed
	p.closed = true
	if first {
		delete(d.peers, p)
		if d.drain && len(d.peers) == 0 {
			close(d.empty)
		}
	}
	d.mu.Unlock()
	return p.Conn.Close()
}

// CloseWrite half-closes the connection where its kind can.
func (p *Peer) CloseWrite() error { return closeWrite(p.Conn) }

func closeWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

func hostOf(a net.Addr) string {
	if a == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

// handshake makes a plain connection a TLS one within the deadline that Door set.
func handshake(ctx context.Context, conn net.Conn, cfg *tls.Config, within time.Duration) (*tls.Conn, error) {
	tc := tls.Server(conn, cfg)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return tc, nil
}
