package http

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// front is the wrapper in front of a real server.
type front struct {
	*wrapper
	link   wrappers.Link
	up     *wrappers.Upstream
	server *server // the gateway's own client of it
}

func (w *wrapper) serveRelay(ctx context.Context, link wrappers.Link) error {
	up := &w.cfg.Upstreams[0]
	f := &front{wrapper: w, link: link, up: up, server: w.client(up)}
	rs := &relay.Server{
		Door: relay.Door{
			Listener: w.cfg.Listener, Sessions: w.cfg.Limits.Sessions, PerHost: w.cfg.Limits.PerHost,
			Handshake: w.cfg.Limits.Handshake, Count: link.Count, Log: w.cfg.Log,
		},
		Dial:   func(ctx context.Context) (net.Conn, error) { return dial(ctx, up, []string{"http/1.1"}) },
		Handle: f.handle,
		Down: func(error) []byte {
			return rawProblem(http.StatusBadGateway, "the server behind this gateway can't be reached", true, false)
		},
		Hold:  w.cfg.Limits.Frame + 2*maxHead,
		Queue: w.cfg.Limits.Queue,
		Idle:  w.cfg.Limits.Idle,
		Drain: w.cfg.Drain,
	}
	if w.cfg.TLS == nil {
		rs.Full = full
	} else {
		rs.TLS = offering(w.cfg.TLS)
		srv, accept := w.netServer(f.h2())
		rs.Claim = func(conn net.Conn, _ *relay.Peer) bool {
			tc, ok := conn.(*tls.Conn)
			if !ok || tc.ConnectionState().NegotiatedProtocol != "h2" {
				return false
			}
			accept.give(conn)
			return true
		}
		served := make(chan error, 1)
		go func() { served <- srv.Serve(accept) }()
		stop := context.AfterFunc(ctx, func() {
			stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Drain)
			defer cancel()
			_ = srv.Shutdown(stopping) // what is left is closed by the door
		})
		defer func() {
			stop()
			accept.Close()
			srv.Close()
			<-served
		}()
	}
	own := f.server.serveOwn(ctx, link)
	defer own()
	return rs.Serve(ctx)
}

// dial opens a connection to an upstream.
func dial(ctx context.Context, up *wrappers.Upstream, protos []string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, up.Network(), up.Addr)
	if err != nil || up.TLS == nil {
		return conn, err
	}
	cfg := up.TLS.Clone()
	cfg.NextProtos = protos
	if host, _, err := net.SplitHostPort(up.Addr); err == nil && cfg.ServerName == "" {
		cfg.ServerName = host
	}
	tc := tls.Client(conn, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return tc, nil
}

// pipeline bounds the requests of one client that are unanswered.
const pipeline = 16

// An exchange is a request that was forwarded and is not yet answered.
type exchange struct {
	method kept   // what of the method matters for the answer's border
	write  *write // not nil: the answer decides what becomes of an intent
	turns  bool   // the connection may become something else (Upgrade, CONNECT)
}

type kept uint8

const (
	anyMethod kept = iota
	headMethod
	connectMethod
)

func (k kept) String() string { return [...]string{"GET", "HEAD", "CONNECT"}[k] }

// A write is a mapped write on its way to the server.
type write struct {
	op       wrappers.Operation
	intent   wrappers.Intent
	readBack bool  // what the server made of it is known only by asking
	told     bool  // the client had its 100 Continue from us
	ended    bool  // the intent has ended (HTTP/2)
	taken    int64 // of the budget
}

// session looks at one client connection. Requests are read by one goroutine and answers by another.
type session struct {
	f    *front
	s    *relay.Session
	peer string

	// Of the reader of requests.
	failed  error   // nothing after this can be understood
	seen    int     // bytes of a head without an end that were looked at
	body    *chunks // of a body that is passed piece by piece
	held    *holding
	passing *passing
	late    bool // a deadline for the client is armed
	welcome bool

	mu        sync.Mutex
	ring      [pipeline]exchange
	first, n  int // of ring
	unsaid    int // answers looked at whose bytes are still to be written
	fresh     int // answers that the present step completes
	piped     bool
	partial   bool // a request is incomplete
	answered  chan struct{}
	inAnswer  *chunks // of an answer that is passed piece by piece
	toEnd     bool    // an answer lasts until the server closes
	lost      bool    // the server spoke unasked: which answer is whose is not known any more
	published func()
}

// holding is a mapped write whose body is not whole yet.
type holding struct {
	head    head
	scanned int // of the chunked body
	chunks  chunks
	data    []byte
	told    bool
	taken   int64 // of the budget
}

func (f *front) handle(s *relay.Session) relay.Handler {
	h := &session{f: f, s: s, peer: s.Client().String(), answered: make(chan struct{}, 1)}
	h.published = h.publish
	return h
}

// Busy implements relay.Handler.
func (h *session) Busy() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.piped && (h.n > 0 || h.unsaid > 0 || h.partial)
}

// End implements relay.Handler: writes without an answer have an unknown outcome.
func (h *session) End(error) {
	if h.held != nil {
		h.f.bodies.give(h.held.taken)
	}
	for h.n > 0 {
		if e := h.pop(); e.write != nil {
			h.f.bodies.give(e.write.taken)
			e.write.intent.Unknown()
		}
	}
}

func (h *session) push(e exchange) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[(h.first+h.n)%pipeline] = e
	h.n++
}

// pop takes the oldest exchange; its answer is still to be written.
func (h *session) pop() exchange {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.ring[h.first]
	h.ring[h.first] = exchange{}
	h.first = (h.first + 1) % pipeline
	h.n--
	h.unsaid++
	return e
}

// oldest shows the exchange that the next answer belongs to.
func (h *session) oldest() (exchange, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.ring[h.first], h.n > 0
}

// publish says that the answers of the last step have been written.
func (h *session) publish() {
	h.mu.Lock()
	h.unsaid -= h.fresh
	h.fresh = 0
	h.mu.Unlock()
	select {
	case h.answered <- struct{}{}:
	default:
	}
}

var errUnasked = errors.New("the server switched protocols unasked")

var errServerGone = errors.New("the server closed the connection")

// await waits until at most so many requests are without an answer.
func (h *session) await(most int) error {
	for {
		h.mu.Lock()
		open := h.n + h.unsaid
		h.mu.Unlock()
		if open <= most {
			return nil
		}
		select {
		case <-h.answered:
		case <-h.s.ServerGone():
			return errServerGone
		case <-h.s.Context().Done():
			return context.Cause(h.s.Context())
		}
	}
}

// settled tells whether the last request forwarded may be followed by another: not behind one that must be
// answered first.
func (h *session) settled() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.n == 0 {
		return true
	}
	if h.n == pipeline {
		return false
	}
	last := &h.ring[(h.first+h.n-1)%pipeline]
	return last.write == nil && !last.turns
}

// FromClient implements relay.Handler.
func (h *session) FromClient(b []byte) (relay.Step, error) {
	n := 0 // bytes to pass
	for n < len(b) {
		if h.failed != nil {
			return relay.Step{}, h.bad(h.failed)
		}
		if h.body != nil {
			k, done, err := h.body.scan(b[n:], h.passing.into())
			if err != nil {
				if h.failed = err; n > 0 { // what is sound goes first
					return relay.Step{Pass: n, Mid: true}, nil
				}
				continue
			}
			n += k
			if !done {
				return relay.Step{Pass: n, Mid: true}, nil
			}
			h.body = nil
			h.incomplete(false)
			h.passedWhole()
			continue
		}
		if h.passing != nil {
			n += h.passing.take(b[n:])
			if h.passing.left > 0 {
				return relay.Step{Pass: n, Mid: true}, nil
			}
			h.incomplete(false)
			h.passedWhole()
			continue
		}
		if h.held != nil {
			if n > 0 {
				return relay.Step{Pass: n}, nil
			}
			return h.hold(b)
		}
		if !h.settled() {
			if n > 0 {
				return relay.Step{Pass: n}, nil
			}
			if err := h.await(0); err != nil {
				return relay.Step{}, err
			}
		}
		switch piped, lost := h.turned(); {
		case piped:
			return relay.Step{Pass: len(b), Blind: true}, nil
		case lost:
			return relay.Step{}, errServerGone
		}
		st, more, err := h.request(b, &n)
		if err != nil || !more {
			return st, err
		}
	}
	return relay.Step{Pass: n}, nil
}

// passedWhole shows a request that no bind maps, now that its body has passed.
func (h *session) passedWhole() {
	if p := h.passing; p != nil {
		h.passing = nil
		p.tap(h.f.link)
	}
}

// request looks at the request that begins at b[*n]. more: it was counted into *n, and another
// may follow.
func (h *session) request(b []byte, n *int) (st relay.Step, more bool, err error) {
	in := b[*n:]
	var r head
	if *n > 0 || h.seen == 0 || hasLF(in[min(h.seen, len(in)):]) {
		err := parseRequest(in, &r)
		if err != nil && *n > 0 {
			return relay.Step{Pass: *n}, false, nil // what is sound goes first
		}
		if err != nil {
			return st, false, h.bad(err)
		}
	}
	if r.size == 0 {
		if len(in) > maxHead && *n == 0 {
			return st, false, h.bad(errHeadSize)
		}
		h.seen = len(in)
		h.deadline(true)
		h.incomplete(true)
		return relay.Step{Pass: *n}, false, nil
	}
	h.seen = 0
	h.deadline(false)
	if !h.welcome {
		h.welcome = true
		h.s.Welcome()
	}
	e := exchange{turns: r.upgrade}
	verb := wrappers.Read
	switch string(r.method) {
	case "HEAD":
		e.method = headMethod
	case "CONNECT":
		e.method, e.turns = connectMethod, true
	case "PUT", "PATCH", "DELETE", "POST":
		verb = methodVerbs[string(r.method)]
	}
	if verb.Writes() || h.f.cfg.Refuse || h.f.link.Recording() {
		st, taken, err := h.mapped(b, *n, verb, &r)
		if taken || err != nil {
			return st, false, err
		}
	}
	h.push(e)
	*n += r.size
	switch {
	case r.length == chunked:
		h.body = &chunks{strict: true}
		h.incomplete(true)
	case h.passing != nil && r.length > 0:
		h.passing.left = r.length
		h.incomplete(true)
	case h.passing != nil:
		h.incomplete(false)
		h.passedWhole()
	case r.length > int64(len(b)-*n):
		h.incomplete(false) // a drain need not wait for the client, but for the answer
		return relay.Step{Pass: *n, Skip: r.length}, false, nil
	default:
		*n += int(r.length)
		h.incomplete(false)
	}
	return st, true, nil
}

func hasLF(b []byte) bool {
	for _, c := range b {
		if c == '\n' {
			return true
		}
	}
	return false
}

// turned tells what the connection has become.
func (h *session) turned() (piped, lost bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.piped, h.lost
}

func (h *session) incomplete(yes bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partial = yes
}

// deadline gives the client a while for what it has begun.
func (h *session) deadline(on bool) {
	if on != h.late {
		if h.late = on; on {
			h.s.Expect(h.f.cfg.Limits.Handshake)
		} else {
			h.s.Expect(0)
		}
	}
}

// bad ends the session of a client whose bytes have no clear borders.
func (h *session) bad(why error) error {
	h.f.link.Count("malformed", 1)
	code := http.StatusBadRequest
	switch why {
	case errHeadSize:
		code = http.StatusRequestHeaderFieldsTooLarge
	case errVersion:
		code = http.StatusHTTPVersionNotSupported
	case errCoding:
		code = http.StatusNotImplemented
	}
	return h.refuse(code, why)
}

// refuse says a problem after the answers that come first, and ends the session.
func (h *session) refuse(code int, why error) error {
	if err := h.await(0); err != nil {
		return err
	}
	return &relay.Refused{Say: rawProblem(code, why.Error(), true, false), Err: why}
}

// mapped deals with a request that concerns a register, or that no bind maps where such are
// refused. taken: st is what becomes of it.
func (h *session) mapped(b []byte, n int, verb wrappers.Verb, r *head) (st relay.Step, taken bool, err error) {
	_, queries := h.f.patterns(h.f.link)
	raw := pathOf(unsafe.String(unsafe.SliceData(r.target), len(r.target)))
	if raw == "" { // "*", or an authority
		if h.f.cfg.Refuse && string(r.method) == http.MethodConnect {
			return st, true, h.refuse(http.StatusForbidden, errors.New("this gateway is no proxy"))
		}
		return st, false, nil
	}
	// The text is the buffer's: what is kept beyond this call is cloned.
	address, ok, err := addressing{h.f.link, queries}.resolve(verb, h.f.up.Server, raw)
	if err != nil {
		return st, false, nil
	}
	if verb == wrappers.Message && !ok {
		_, ok, _ = addressing{h.f.link, queries}.resolve(wrappers.Put, h.f.up.Server, raw)
	}
	switch {
	case !ok && h.f.cfg.Refuse:
		if n > 0 {
			return relay.Step{Pass: n}, true, nil
		}
		why := fmt.Errorf("no bind maps %s", address)
		h.f.link.Tap(wrappers.Operation{Verb: verb, Address: strings.Clone(address), Who: wrappers.Who{Peer: h.peer}}, "refused: no bind maps it")
		return st, true, h.refuse(http.StatusNotFound, why)
	case !ok || !verb.Writes() || h.f.ours(r.origin):
		switch {
		case h.f.link.Recording() && !h.f.ours(r.origin):
			if verb.Writes() {
				h.passing = h.passingOf(verb, raw, r)
			} else if m := string(r.method); m == http.MethodGet || m == http.MethodHead {
				h.passingOf(verb, raw, r).tap(h.f.link)
			}
		case verb.Writes():
			h.f.link.Tap(wrappers.Operation{Verb: verb, Address: strings.Clone(address), Who: wrappers.Who{Peer: h.peer}}, "passed")
		}
		return st, false, nil
	case n > 0:
		return relay.Step{Pass: n}, true, nil
	}
	if err := h.await(0); err != nil {
		return st, true, err
	}
	if _, lost := h.turned(); lost {
		return st, true, errServerGone
	}
	if r.length > int64(h.f.cfg.Limits.Frame) {
		return st, true, h.oversized()
	}
	reserved, room := h.f.bodies.take(h.f.bodySize(r.length))
	if !room {
		h.f.link.Count("busy", 1)
		return st, true, h.refuse(status(errBusy), errors.New(wrappers.Reason(errBusy)))
	}
	h.held = &holding{chunks: chunks{strict: true}, taken: reserved}
	h.incomplete(true)
	st, err = h.hold(b)
	return st, true, err
}

// pathOf gives the path and query of a request target (RFC 9112, section 3.2); "" if it has none.
func pathOf(t string) string {
	if strings.HasPrefix(t, "/") {
		return t
	}
	_, rest, found := strings.Cut(t, "://")
	if !found {
		return ""
	}
	i := strings.IndexAny(rest, "/?")
	if i < 0 || rest[i] == '?' {
		return "/"
	}
	return rest[i:]
}

// ours tells whether a request bears the mark of a gateway of this domain.
func (w *wrapper) ours(origin []byte) bool {
	if len(origin) == 0 || w.cfg.Endpoint == "" {
		return false
	}
	domain := w.cfg.Endpoint[:strings.LastIndexByte(w.cfg.Endpoint, '/')+1]
	return strings.HasPrefix(string(origin), domain)
}

func (h *session) oversized() error {
	h.f.link.Count("oversized", 1)
	return h.refuse(http.StatusRequestEntityTooLarge, fmt.Errorf("a body may have %d bytes here", h.f.cfg.Limits.Frame))
}

// hold keeps a mapped write until its body is whole, announces it, and lets it go. b begins with it.
func (h *session) hold(b []byte) (relay.Step, error) {
	w := h.held
	if err := parseRequest(b, &w.head); err != nil { // again: the buffer may have moved
		return relay.Step{}, h.bad(err)
	}
	size := w.head.size
	rest := b[size:]
	var body []byte
	switch {
	case w.head.length == chunked:
		k, done, err := w.chunks.scan(rest[w.scanned:], &w.data)
		w.scanned += k
		if err != nil {
			return relay.Step{}, h.bad(err)
		}
		if len(w.data) > h.f.cfg.Limits.Frame || w.scanned > h.f.cfg.Limits.Frame+maxHead {
			return relay.Step{}, h.oversized()
		}
		if !done {
			return relay.Step{}, h.wait(w)
		}
		size += w.scanned
		body = w.data
	case int64(len(rest)) < w.head.length:
		return relay.Step{Need: size + int(w.head.length)}, h.wait(w)
	default:
		size += int(w.head.length)
		body = rest[:w.head.length]
	}
	h.held = nil
	h.deadline(false)
	return h.begin(w, body, size)
}

// wait arms the deadline of a body and tells a client that asks whether to go on to do so.
func (h *session) wait(w *holding) error {
	if !h.late {
		h.late = true
		size := w.head.length
		if size < 0 {
			size = int64(h.f.cfg.Limits.Frame)
		}
		h.s.Expect(h.f.cfg.Limits.Handshake + time.Duration(size)*time.Second/slowest)
	}
	if w.head.expect && !w.told {
		w.told = true
		return h.s.ToClient([]byte("HTTP/1.1 100 Continue\r\n\r\n"))
	}
	return nil
}

// begin announces a whole mapped write of so many bytes and forwards it.
func (h *session) begin(held *holding, body []byte, size int) (relay.Step, error) {
	r := &held.head
	w := h.f.writeOf(r, body, h.peer)
	w.told, w.taken = held.told, held.taken
	h.incomplete(false)
	var err error
	w.intent, err = h.f.link.Begin(h.s.Context(), w.op)
	if err != nil {
		h.f.bodies.give(w.taken)
	}
	switch {
	case errors.Is(err, wrappers.ErrUnmapped): // it was, until a reload
		h.push(exchange{})
		return relay.Step{Pass: size}, nil
	case err != nil:
		h.f.link.Tap(w.op, "refused: "+wrappers.Reason(err))
		h.f.link.Count("refused", 1)
		if r.http10 {
			return relay.Step{}, h.refuse(status(err), errors.New(detail(err, w.op.Address)))
		}
		return relay.Step{Drop: size}, h.s.ToClient(rawProblem(status(err), detail(err, w.op.Address), false, false))
	}
	h.push(exchange{write: w})
	return relay.Step{Pass: size}, nil
}
