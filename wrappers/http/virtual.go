package http

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// virtual is the server itself: one resource for each register.
type virtual struct {
	*wrapper
	link  wrappers.Link
	drain <-chan struct{} // closed when streams should end
}

// slowest is the pace below which a body's sender loses its session, in bytes a second.
const slowest = 10 << 10

// writeTimeout is how long a peer may take to accept an answer or an event.
const writeTimeout = 30 * time.Second

func (w *wrapper) serveVirtual(ctx context.Context, link wrappers.Link) error {
	v := &virtual{wrapper: w, link: link, drain: ctx.Done()}
	door := &relay.Door{
		Listener: w.cfg.Listener, Sessions: w.cfg.Limits.Sessions, PerHost: w.cfg.Limits.PerHost,
		Handshake: w.cfg.Limits.Handshake, Full: full, Count: link.Count, Log: w.cfg.Log,
	}
	if w.cfg.TLS != nil {
		door.Full = nil
	}
	srv, accept := w.netServer(v)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(accept.tls(w.cfg.TLS)) }()
	defer context.AfterFunc(ctx, func() {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.cfg.Drain)
		defer cancel()
		_ = srv.Shutdown(stop) // what is left is closed by the door
	})()
	err := door.Serve(ctx, w.cfg.Drain, func(p *relay.Peer) { accept.give(p) })
	accept.Close()
	srv.Close()
	<-served
	return err
}

// tls puts TLS over the listener where there is a configuration, with HTTP/2 on offer.
func (l *listener) tls(cfg *tls.Config) net.Listener {
	if cfg == nil {
		return l
	}
	return tls.NewListener(l, offering(cfg))
}

// offering adds HTTP/2 and HTTP/1.1 to what a TLS configuration negotiates.
func offering(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	for _, p := range []string{"h2", "http/1.1"} {
		if !slices.Contains(cfg.NextProtos, p) {
			cfg.NextProtos = append(cfg.NextProtos, p)
		}
	}
	return cfg
}

// netServer makes a net/http server with the limits of the wrapper, and the listener that feeds it.
func (w *wrapper) netServer(h http.Handler) (*http.Server, *listener) {
	idle := w.cfg.Limits.Idle
	if idle <= 0 {
		idle = 2 * time.Minute
	}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: w.cfg.Limits.Handshake,
		IdleTimeout:       idle,
		MaxHeaderBytes:    maxHead,
		ErrorLog:          slog.NewLogLogger(w.log().Handler(), slog.LevelDebug),
		Protocols:         &http.Protocols{},
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReceiveBufferPerConnection: 1 << 20, MaxReceiveBufferPerStream: 256 << 10,
			WriteByteTimeout: writeTimeout, SendPingTimeout: 30 * time.Second,
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateActive {
				if t, ok := c.(*tls.Conn); ok {
					c = t.NetConn()
				}
				if p, ok := c.(*relay.Peer); ok {
					p.Known()
				}
			}
		},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	var addr net.Addr
	if w.cfg.Listener != nil {
		addr = w.cfg.Listener.Addr()
	}
	return srv, newListener(addr)
}

func (w *wrapper) log() *slog.Logger {
	if w.cfg.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return w.cfg.Log
}

var methodVerbs = map[string]wrappers.Verb{
	http.MethodGet: wrappers.Read, http.MethodHead: wrappers.Read, http.MethodPut: wrappers.Put,
	http.MethodPatch: wrappers.Merge, http.MethodDelete: wrappers.Delete, http.MethodPost: wrappers.Message,
}

// ServeHTTP answers one request.
func (v *virtual) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.RequestURI == "*" || r.URL.Path == "*" {
		v.options(w, []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions})
		return
	}
	verb := methodVerbs[r.Method]
	who, ok := v.admit(w, r, verb)
	if !ok {
		return
	}
	ps, queries := v.patterns(v.link)
	target := r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		target += "?" + r.URL.RawQuery
	}
	asked := verb
	if asked == 0 || asked == wrappers.Message {
		asked = wrappers.Read // which methods an address has shows in the answer
	}
	address, mapped, err := addressing{v.link, queries}.resolve(asked, "", target)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	op := wrappers.Operation{Verb: verb, Address: address, Who: who}
	if !mapped && strings.HasSuffix(below(address), "/") {
		v.prefix(w, r, op)
		return
	}
	if !mapped && !v.link.Maps(wrappers.Read, "", address) && !v.link.Maps(wrappers.Put, "", address) {
		if v.link.Recording() {
			if op.Payload, ok = v.unwanted(w, r, op); !ok {
				return
			}
			op.Address = wholeAddress(target)
		}
		v.link.Tap(op, "refused: no bind maps it")
		fail(w, http.StatusNotFound, "no bind maps "+address)
		return
	}
	allowed := v.allowed(ps, address)
	switch {
	case r.Method == http.MethodOptions:
		v.options(w, allowed)
	case !slices.Contains(allowed, r.Method):
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		if v.link.Recording() {
			if op.Payload, ok = v.unwanted(w, r, op); !ok {
				return
			}
		}
		v.link.Tap(op, "refused: method")
		fail(w, http.StatusMethodNotAllowed, r.Method+" is not for "+address)
	case verb == wrappers.Read && wantsEvents(r):
		v.events(w, r, op, false)
	case verb == wrappers.Read:
		v.read(w, r, op)
	default:
		v.write(w, r, op)
	}
}

// allowed are the methods of an address, in the order of an Allow header.
func (v *virtual) allowed(ps []wrappers.Pattern, address string) []string {
	out := []string{}
	named := methodsAt(ps, "", address)
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodPost} {
		verb := methodVerbs[m]
		yes := v.link.Maps(verb, "", address)
		switch {
		case m == http.MethodPost:
			yes = slices.Contains(named, m) && v.link.Maps(wrappers.Message, "", address)
		case verb.Writes() && named != nil:
			yes = yes && slices.Contains(named, m)
		}
		if yes {
			out = append(out, m)
		}
	}
	return append(out, http.MethodOptions)
}

func (v *virtual) options(w http.ResponseWriter, allowed []string) {
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	if slices.Contains(allowed, http.MethodPatch) {
		w.Header().Set("Accept-Patch", "application/merge-patch+json, application/json")
	}
	w.WriteHeader(http.StatusNoContent)
}

// admit finds out who asks, and refuses who may not ask this.
func (v *virtual) admit(w http.ResponseWriter, r *http.Request, verb wrappers.Verb) (wrappers.Who, bool) {
	who := wrappers.Who{Peer: r.RemoteAddr}
	users := v.cfg.Logon != nil && v.cfg.Logon.Any()
	if user, password, given := r.BasicAuth(); given && users {
		principal, err := v.cfg.Logon.Password(r.Context(), user, password)
		if err == nil {
			who.Principal, who.Verified = principal, true
			return who, true
		}
		if !errors.Is(err, wrappers.ErrDenied) {
			fail(w, status(err), wrappers.Reason(err))
			return who, false
		}
	} else if r.Header.Get("Authorization") == "" || !users {
		need := wrappers.ReadAccess
		if verb.Writes() {
			need = wrappers.WriteAccess
		}
		if v.cfg.Anonymous >= need {
			return who, true
		}
		if !users {
			fail(w, http.StatusForbidden, "anonymous peers may not do this here")
			return who, false
		}
	}
	v.link.Count("refused_auth", 1)
	w.Header().Set("WWW-Authenticate", `Basic realm="spookgw", charset="UTF-8"`)
	fail(w, http.StatusUnauthorized, "a user name and password are needed")
	return who, false
}

// read answers GET and HEAD.
func (v *virtual) read(w http.ResponseWriter, r *http.Request, op wrappers.Operation) {
	res, err := v.link.Do(r.Context(), op)
	if err != nil {
		v.refuse(w, r, op, err)
		return
	}
	h := w.Header()
	tag := etag(res.Version)
	if tag != "" {
		h.Set("ETag", tag)
	}
	h.Set("Cache-Control", "no-cache") // it may be kept, but is asked about each time
	h.Add("Vary", "Accept")
	if cond := r.Header.Values("If-Match"); len(cond) > 0 && !anyMatches(cond, tag, true) {
		fail(w, http.StatusPreconditionFailed, op.Address+" is at "+tag)
		return
	}
	if cond := r.Header.Values("If-None-Match"); len(cond) > 0 && anyMatches(cond, tag, false) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", mediaType(res.Payload))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(res.Payload.Raw)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(res.Payload.Raw)
	}
}

// mediaType is the payload's own, or what it looks like.
func mediaType(p wrappers.Payload) string {
	switch {
	case p.Type != "":
		return p.Type
	case json.Valid(p.Raw):
		return "application/json"
	case utf8.Valid(p.Raw):
		return "text/plain; charset=utf-8"
	}
	return "application/octet-stream"
}

// write answers PUT, PATCH, DELETE and POST.
func (v *virtual) write(w http.ResponseWriter, r *http.Request, op wrappers.Operation) {
	var ok bool
	if op.If, ok = v.condition(w, r); !ok {
		return
	}
	if op.Verb == wrappers.Merge {
		switch kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind {
		case "", "application/merge-patch+json", "application/json", "application/x-www-form-urlencoded":
			// The last is what curl says of any -d.
		default:
			w.Header().Set("Accept-Patch", "application/merge-patch+json, application/json")
			fail(w, http.StatusUnsupportedMediaType, "PATCH takes a merge patch (RFC 7396), not "+kind)
			return
		}
	}
	if r.Header.Get("Content-Range") != "" {
		fail(w, http.StatusBadRequest, "parts of a resource can't be put")
		return
	}
	for _, enc := range r.Header.Values("Content-Encoding") {
		if !strings.EqualFold(strings.TrimSpace(enc), "identity") {
			w.Header().Set("Accept-Encoding", "identity")
			fail(w, http.StatusUnsupportedMediaType, "content coding "+enc+" is not understood here")
			return
		}
	}
	raw, ok := v.body(w, r, op)
	if !ok {
		return
	}
	if op.Verb != wrappers.Delete {
		op.Payload = wrappers.Payload{Raw: raw, Type: payloadType(r.Header.Get("Content-Type")), Meta: metaOf(r.Header)}
	}
	res, err := v.link.Do(r.Context(), op)
	if err != nil {
		v.refuse(w, r, op, err)
		return
	}
	h := w.Header()
	if res.Waiting {
		// A tag would be of what is there now, and not of what was sent (RFC 9110, section 8.8.3).
		conclude(w, http.StatusAccepted, res.Payload)
		return
	}
	if tag := etag(res.Version); tag != "" && op.Verb != wrappers.Delete {
		h.Set("ETag", tag)
	}
	if res.Created {
		h.Set("Location", target(op.Address))
		conclude(w, http.StatusCreated, res.Payload)
		return
	}
	if res.Payload.Raw == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	conclude(w, http.StatusOK, res.Payload)
}

// conclude ends a write with the body that its bind makes, if it makes one.
func conclude(w http.ResponseWriter, code int, p wrappers.Payload) {
	h := w.Header()
	if p.Raw != nil {
		h.Set("Content-Type", mediaType(p))
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
	}
	h.Set("Content-Length", strconv.Itoa(len(p.Raw)))
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(code)
	_, _ = w.Write(p.Raw) // the peer may be gone; the write is done
}

// payloadType is the media type a body was given on purpose: a form is what curl calls any -d.
func payloadType(s string) string {
	if kind, _, _ := mime.ParseMediaType(s); kind == "application/x-www-form-urlencoded" {
		return ""
	}
	return s
}

// unwanted reads the body of a request that will be refused, for who records.
func (v *virtual) unwanted(w http.ResponseWriter, r *http.Request, op wrappers.Operation) (wrappers.Payload, bool) {
	p := wrappers.Payload{Type: payloadType(r.Header.Get("Content-Type")), Meta: metaOf(r.Header)}
	if !op.Verb.Writes() || op.Verb == wrappers.Delete {
		return p, true
	}
	raw, ok := v.body(w, r, op)
	p.Raw = raw
	return p, ok
}

// body reads what a write carries, within the limits of size and pace.
func (v *virtual) body(w http.ResponseWriter, r *http.Request, op wrappers.Operation) ([]byte, bool) {
	limit := int64(v.cfg.Limits.Frame)
	tooLarge := func() {
		v.link.Count("oversized", 1)
		v.link.Tap(op, "refused: too large")
		w.Header().Set("Connection", "close")
		fail(w, http.StatusRequestEntityTooLarge, "a body may have "+strconv.FormatInt(limit, 10)+" bytes")
	}
	if r.ContentLength > limit {
		tooLarge()
		return nil, false
	}
	size := v.bodySize(r.ContentLength)
	taken, ok := v.bodies.take(size)
	if !ok {
		v.link.Count("busy", 1)
		v.refuse(w, r, op, errBusy)
		return nil, false
	}
	defer v.bodies.give(taken) // the link has its own bounds
	pace := v.cfg.Limits.Handshake + time.Duration(size)*time.Second/slowest
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(pace))
	raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		tooLarge()
		return nil, false
	case err != nil:
		fail(w, http.StatusBadRequest, "the body is not whole")
		return nil, false
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	return raw, true
}

// condition reads the precondition of a write (RFC 9110, section 13.1).
func (v *virtual) condition(w http.ResponseWriter, r *http.Request) (c wrappers.Precondition, ok bool) {
	var bad bool
	if h := r.Header.Values("If-Match"); len(h) > 0 {
		if c.Match, bad = versions(h, true); len(c.Match) == 0 && !bad {
			fail(w, http.StatusPreconditionFailed, "a weak tag never matches for a write")
			return c, false
		}
	}
	if h := r.Header.Values("If-None-Match"); len(h) > 0 && !bad {
		c.Differ, bad = versions(h, false)
	}
	if bad {
		fail(w, http.StatusBadRequest, "an entity tag stands in double quotes")
	}
	return c, !bad
}

// refuse tells a peer what the link said.
func (v *virtual) refuse(w http.ResponseWriter, r *http.Request, op wrappers.Operation, err error) {
	code := status(err)
	switch {
	case code == http.StatusConflict && (len(op.If.Match) > 0 || len(op.If.Differ) > 0):
		code = http.StatusPreconditionFailed
	case code == http.StatusNotFound && r.Header.Get("If-Match") != "":
		code = http.StatusPreconditionFailed // there is nothing the tag could match
	case code == http.StatusForbidden && !op.Who.Verified && v.cfg.Logon != nil && v.cfg.Logon.Any():
		w.Header().Set("WWW-Authenticate", `Basic realm="spookgw", charset="UTF-8"`)
		code = http.StatusUnauthorized
	}
	if code >= 500 && r.Context().Err() == nil {
		v.log().Warn("request", "verb", op.Verb.String(), "address", op.Address, "peer", op.Who.Peer, "err", err)
	}
	fail(w, code, detail(err, op.Address))
}

// A listed is one item of a list.
type listed struct {
	Href string `json:"href"`
	ETag string `json:"etag,omitempty"`
	Size int    `json:"size,omitempty"`
}

// Bounds of one page of a list.
const (
	pageSize = 1000
	pageMost = 10_000
)

// prefix answers for a path that ends with a slash.
func (v *virtual) prefix(w http.ResponseWriter, r *http.Request, op wrappers.Operation) {
	op.Verb, op.Address = wrappers.List, below(op.Address)
	allow := []string{http.MethodGet, http.MethodHead, http.MethodOptions}
	switch {
	case r.Method == http.MethodOptions:
		v.options(w, allow)
		return
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", strings.Join(allow, ", "))
		fail(w, http.StatusMethodNotAllowed, r.Method+" is not for a list")
		return
	}
	q := r.URL.Query()
	op.Limit, op.After = pageSize, q.Get("after")
	if s := q.Get("limit"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > pageMost {
			fail(w, http.StatusBadRequest, "limit is a number from 1 to "+strconv.Itoa(pageMost))
			return
		}
		op.Limit = n
	}
	if wantsEvents(r) {
		v.events(w, r, op, true)
		return
	}
	res, err := v.link.Do(r.Context(), op)
	if err != nil {
		v.refuse(w, r, op, err)
		return
	}
	items := make([]listed, len(res.Items))
	for i, it := range res.Items {
		items[i] = listed{Href: target(it.Address), ETag: etag(it.Version), Size: it.Size}
	}
	body, err := json.Marshal(items)
	if err != nil {
		fail(w, http.StatusInternalServerError, "the list can't be written")
		return
	}
	h := w.Header()
	if res.More && len(res.Items) > 0 {
		next := target(op.Address) + "?limit=" + strconv.Itoa(op.Limit) + "&after=" + url.QueryEscape(res.Items[len(res.Items)-1].Address)
		h.Set("Link", "<"+next+`>; rel="next"`)
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-cache")
	h.Add("Vary", "Accept")
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(writeTimeout))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body)
	}
}

// secretHeaders never become meta.
var secretHeaders = map[string]bool{"Authorization": true, "Proxy-Authorization": true, "Cookie": true}

// metaOf gives the headers as `meta` in HCL sees them.
func metaOf(h http.Header) map[string]string {
	m := make(map[string]string, len(h))
	for k, vs := range h {
		if !secretHeaders[k] {
			m[strings.ToLower(k)] = strings.Join(vs, ", ")
		}
	}
	return m
}

func etag(v wrappers.Version) string {
	if v == "" {
		return ""
	}
	return `"` + string(v) + `"`
}

// versions reads the tags of a condition. Weak ones never match strongly and are left out then.
func versions(values []string, strong bool) (vs []wrappers.Version, bad bool) {
	for _, line := range values {
		for tag := range strings.SplitSeq(line, ",") {
			tag = strings.TrimSpace(tag)
			weak := strings.HasPrefix(tag, "W/")
			inner := strings.TrimPrefix(tag, "W/")
			switch {
			case tag == "*":
				vs = append(vs, wrappers.Any)
			case tag == "":
			case len(inner) < 2 || inner[0] != '"' || inner[len(inner)-1] != '"':
				return nil, true
			case weak && strong:
			default:
				vs = append(vs, wrappers.Version(inner[1:len(inner)-1]))
			}
		}
	}
	return vs, false
}

// anyMatches compares a current tag ("" for none) with those of a condition.
func anyMatches(values []string, tag string, strong bool) bool {
	vs, _ := versions(values, strong)
	for _, v := range vs {
		if v == wrappers.Any || tag != "" && etag(v) == tag {
			return true
		}
	}
	return false
}
