// Package http is the HTTP wrapper: a resource for each register (virtual), a byte-transparent
// relay in front of a real server, and a client of one (attached).
package http

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// Protocol is what the gateway knows of HTTP.
var Protocol = wrappers.Protocol{
	Name:     "http",
	Syntax:   syntax,
	Messages: true,
	Replies:  true,
	Schemes:  []wrappers.Scheme{{Name: "http", Port: 80}, {Name: "https", Port: 443, TLS: true}},
	Settings: []wrappers.Setting{
		{Name: "poll_ms", Kind: wrappers.IntSetting, Default: int64(-1), Min: -1, Max: 24 * 3600 * 1000,
			Doc: "how often the server is asked for its state; 0: never; -1: every 5 s where attached, never in a relay"},
		{Name: "events", Kind: wrappers.StringSetting, Default: "",
			Doc: "path of a stream of Server-Sent Events that says which addresses changed, instead of polling"},
		{Name: "timeout_ms", Kind: wrappers.IntSetting, Default: int64(30_000), Min: 1, Max: 3600 * 1000,
			Doc: "how long the server may take to answer a request of the gateway's own"},
		{Name: "concurrency", Kind: wrappers.IntSetting, Default: int64(8), Min: 1, Max: 256,
			Doc: "requests of the gateway's own in flight to one server"},
		{Name: "heartbeat_ms", Kind: wrappers.IntSetting, Default: int64(15_000), Min: 1, Max: 3600 * 1000,
			Doc: "pause after which an event stream says that it is alive"},
	},
	Bind: []wrappers.Setting{
		{Name: "methods", Kind: wrappers.StringsSetting,
			Doc: "methods that may be used at this address; POST counts as a message where it is named. The first of PUT, PATCH and POST is used to write into a server"},
	},
	New: New,
	Demo: wrappers.Demo{
		Listen: "127.0.0.1:10080",
		Lines: []string{
			`curl -X PUT http://127.0.0.1:10080/v1/berlin/oven-3 -d '{"value":21.5}'`,
			`curl http://127.0.0.1:10080/v1/berlin/oven-3`,
			`curl -N -H 'Accept: text/event-stream' http://127.0.0.1:10080/v1/berlin/oven-3`,
		},
	},
}

// originHeader marks the gateway's own requests to a server, so that any gateway of the domain
// knows them when they pass.
const originHeader = "Spookgw-Origin"

// wrapper is what the three ways share.
type wrapper struct {
	cfg       wrappers.Config
	heartbeat time.Duration
	bodies    budget // of mapped writes that are held whole

	mu       sync.Mutex
	binds    []wrappers.Pattern
	queries  bool
	reloaded <-chan struct{}
}

// New makes the wrapper that a Config describes.
func New(cfg wrappers.Config) (wrappers.Wrapper, error) {
	if cfg.Packet != nil {
		return nil, errors.New("http listens on TCP only")
	}
	if cfg.Relay() && len(cfg.Upstreams) > 1 {
		return nil, fmt.Errorf("a relay has one upstream, not %d: use one wrapper for each server", len(cfg.Upstreams))
	}
	if p := cfg.Options.String("events"); p != "" && !strings.HasPrefix(p, "/") {
		return nil, fmt.Errorf("events: a path begins with a slash: %q", p)
	}
	for i := range cfg.Upstreams {
		if cfg.Relay() && strings.Trim(cfg.Upstreams[i].Path, "/") != "" {
			return nil, fmt.Errorf("a relay forwards paths as they are: leave %s out of the upstream", cfg.Upstreams[i].Path)
		}
	}
	w := &wrapper{cfg: cfg, heartbeat: time.Duration(cfg.Options.Int("heartbeat_ms")) * time.Millisecond}
	if w.heartbeat <= 0 {
		w.heartbeat = 15 * time.Second
	}
	w.cfg.Limits = w.cfg.Limits.OrDefault()
	w.bodies.left.Store(budgetFrames * int64(w.cfg.Limits.Frame))
	return w, nil
}

// Serve implements wrappers.Wrapper.
func (w *wrapper) Serve(ctx context.Context, link wrappers.Link) error {
	switch {
	case w.cfg.Relay():
		return w.serveRelay(ctx, link)
	case w.cfg.Virtual():
		return w.serveVirtual(ctx, link)
	}
	return w.serveAttached(ctx, link)
}

// A budget bounds what all peers together can make the wrapper hold. Small bodies are free.
type budget struct{ left atomic.Int64 }

const (
	budgetFrames = 64       // so many bodies of the largest size at once
	budgetFree   = 64 << 10 // bytes that cost nothing
)

var errBusy = wrappers.Refuse(wrappers.ErrUnavailable, "too many large bodies are on their way; try again")

// take reserves n bytes and tells what give gets back, or that there is no room.
func (b *budget) take(n int64) (taken int64, ok bool) {
	if n <= budgetFree {
		return 0, true
	}
	if b.left.Add(-n) < 0 {
		b.left.Add(n)
		return 0, false
	}
	return n, true
}

func (b *budget) give(n int64) { b.left.Add(n) }

// bodySize is what a body of a declared length may come to; without one, the limit.
func (w *wrapper) bodySize(length int64) int64 {
	if length < 0 {
		return int64(w.cfg.Limits.Frame)
	}
	return length
}

// patterns gives the binds in force, asking the link again after a reload.
func (w *wrapper) patterns(link wrappers.Link) (ps []wrappers.Pattern, queries bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	stale := w.reloaded == nil
	if !stale {
		select {
		case <-w.reloaded:
			stale = true
		default:
		}
	}
	if stale {
		w.binds, w.reloaded = link.Patterns()
		w.queries = hasQueries(w.binds)
	}
	return w.binds, w.queries
}

// listener hands connections that were let in elsewhere to a net/http server.
type listener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	addr  net.Addr
}

func newListener(addr net.Addr) *listener {
	return &listener{conns: make(chan net.Conn), done: make(chan struct{}), addr: addr}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, http.ErrServerClosed
	}
}

// give hands a connection over, or closes it when nobody takes it any more.
func (l *listener) give(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.done:
		c.Close()
	}
}

func (l *listener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *listener) Addr() net.Addr { return l.addr }

// full is said to a peer over the limit of sessions.
var full = rawProblem(http.StatusServiceUnavailable, "too many connections", true, false)
