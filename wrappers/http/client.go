package http

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

// A server is the gateway's own client of one upstream.
type server struct {
	w     *wrapper
	up    *wrappers.Upstream
	base  string // "https://10.0.0.5:8443/api"
	http  *http.Client
	slots chan struct{} // requests in flight
	docs  documents
}

// client makes the gateway's own client of an upstream.
func (w *wrapper) client(up *wrappers.Upstream) *server {
	timeout := time.Duration(w.cfg.Options.Int("timeout_ms")) * time.Millisecond
	if timeout <= 0 {
		timeout = 30 * time.Second
	}
	slots := int(w.cfg.Options.Int("concurrency"))
	if slots <= 0 {
		slots = 8
	}
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			plain := *up
			plain.TLS = nil
			return dial(ctx, &plain, nil)
		},
		MaxIdleConnsPerHost: slots, IdleConnTimeout: 60 * time.Second, DisableCompression: true,
		TLSHandshakeTimeout: timeout, ExpectContinueTimeout: time.Second, MaxResponseHeaderBytes: maxHead,
		ForceAttemptHTTP2: true,
	}
	scheme, host := "http", up.Addr
	if up.TLS != nil {
		scheme, tr.TLSClientConfig = "https", up.TLS.Clone()
	}
	if strings.HasPrefix(host, "/") {
		host = "localhost"
	}
	return &server{
		w: w, up: up, base: scheme + "://" + host + strings.TrimSuffix(up.Path, "/"),
		http: &http.Client{Transport: tr, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse // a redirected write is not this write
		}},
		slots: make(chan struct{}, slots),
	}
}

// An answer is what the server said to a request of the gateway's own.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// A statusError is an answer that is no success, in the server's words.
type statusError struct {
	method, address string
	answer          *answer
}

func (e *statusError) Error() string {
	s := fmt.Sprintf("%s %s: %d %s", e.method, e.address, e.answer.status, http.StatusText(e.answer.status))
	if after := e.answer.header.Get("Retry-After"); after != "" {
		s += ", retry after " + after
	}
	if to := e.answer.header.Get("Location"); to != "" && e.answer.status/100 == 3 {
		s += " to " + to
	}
	if x := excerpt(e.answer.body); x != "" {
		s += ": " + x
	}
	return s
}

// excerpt is the beginning of a body, as far as it is text.
func excerpt(b []byte) string {
	const most = 200
	s := strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, string(b[:min(len(b), most)]))
	return strings.TrimSpace(s)
}

var errBodySize = errors.New("the server's document is larger than the limit")

// do sends one request and reads the whole answer, one slot of the server's at a time.
func (s *server) do(ctx context.Context, method, address string, body []byte, header http.Header) (*answer, error) {
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.slots }()
	r, err := s.request(ctx, method, address, body, header)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	limit := int64(s.w.cfg.Limits.Frame)
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errBodySize
	}
	return &answer{status: resp.StatusCode, header: resp.Header, body: b}, nil
}

func (s *server) request(ctx context.Context, method, address string, body []byte, header http.Header) (*http.Request, error) {
	var rd io.Reader
	if body != nil {
		rd = bytes.NewReader(body)
	}
	r, err := http.NewRequestWithContext(ctx, method, s.base+target(address), rd)
	if err != nil {
		return nil, err
	}
	if header != nil {
		r.Header = header
	}
	r.Header.Set("User-Agent", "spookgw")
	if s.w.cfg.Endpoint != "" {
		r.Header.Set(originHeader, s.w.cfg.Endpoint)
	}
	if s.up.User != "" {
		password := ""
		if s.up.Password != nil {
			password = s.up.Password()
		}
		r.SetBasicAuth(s.up.User, password)
	}
	return r, nil
}

// ask reads an address. With a tag that is still current the observation is nil.
func (s *server) ask(ctx context.Context, address, tag string) (*wrappers.Observation, error) {
	h := http.Header{}
	if tag != "" {
		h.Set("If-None-Match", tag)
	}
	a, err := s.do(ctx, http.MethodGet, address, nil, h)
	if err != nil {
		return nil, err
	}
	o := &wrappers.Observation{Server: s.up.Server, Address: address, Verb: wrappers.Put, Version: wrappers.Version(a.header.Get("ETag"))}
	switch a.status {
	case http.StatusOK, http.StatusNonAuthoritativeInfo:
		body, ok := decoded(a.body, a.header.Get("Content-Encoding"), s.w.cfg.Limits.Frame)
		if !ok {
			return nil, fmt.Errorf("GET %s: content coding %q can't be undone", address, a.header.Get("Content-Encoding"))
		}
		o.Payload = wrappers.Payload{Raw: body, Type: a.header.Get("Content-Type"), Meta: metaOf(a.header)}
		s.docs.keep(address, string(o.Version), o.Payload)
		return o, nil
	case http.StatusNoContent:
		return o, nil
	case http.StatusNotModified:
		if tag != "" {
			return nil, nil
		}
	case http.StatusNotFound, http.StatusGone:
		o.Verb, o.Version = wrappers.Delete, ""
		s.docs.forget(address)
		return o, nil
	}
	return nil, &statusError{http.MethodGet, address, a}
}

// transient tells whether a request that failed so may succeed later.
func transient(err error) bool {
	var se *statusError
	if !errors.As(err, &se) {
		return !errors.Is(err, errBodySize)
	}
	switch c := se.answer.status; c {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests, http.StatusLocked:
		return true
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return false
	default:
		return c >= 500
	}
}
