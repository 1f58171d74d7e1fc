package http

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// h2 is the relay for clients that speak HTTP/2: it can't be passed as bytes, so it ends here.
// The server is spoken to as its own TLS negotiates, else in HTTP/1.1.
func (f *front) h2() http.Handler {
	base, err := url.Parse(f.server.base)
	if err != nil {
		base = &url.URL{Scheme: "http", Host: f.up.Addr}
	}
	tr := f.server.http.Transport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost = 256
	proxy := &httputil.ReverseProxy{
		Transport:     tr,
		BufferPool:    new(copyBuffers),
		FlushInterval: -1, // a stream of events is passed as it comes
		ErrorLog:      slog.NewLogLogger(f.log().Handler(), slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = base.Scheme, base.Host
			// The default drops what it can't parse.
			r.Out.URL.RawQuery = r.In.URL.RawQuery
			r.Out.Host = r.In.Host
		},
		ModifyResponse: func(resp *http.Response) error {
			w, _ := resp.Request.Context().Value(writeKey{}).(*write)
			if w == nil {
				return nil
			}
			w.ended = true
			if err := f.settle(w, resp.StatusCode, resp.Header.Get("ETag"), resp.Header.Get("Location")); err != nil {
				return &notRecorded{err}
			}
			return nil
		},
		ErrorHandler: func(rw http.ResponseWriter, r *http.Request, err error) {
			var nr *notRecorded
			if errors.As(err, &nr) {
				fail(rw, status(nr.err), "the server took it, but it could not be recorded: "+wrappers.Reason(nr.err))
				return
			}
			f.log().Debug("relay", "peer", r.RemoteAddr, "err", err)
			fail(rw, http.StatusBadGateway, "the server behind this gateway did not answer")
		},
	}
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { f.serveH2(rw, r, proxy) })
}

type writeKey struct{}

type notRecorded struct{ err error }

func (n *notRecorded) Error() string { return n.err.Error() }

func (f *front) serveH2(rw http.ResponseWriter, r *http.Request, proxy http.Handler) {
	rw.Header()["Date"], rw.Header()["Content-Type"] = nil, nil // the server's, or none and no guess
	verb := methodVerbs[r.Method]
	path := r.URL.EscapedPath()
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	_, queries := f.patterns(f.link)
	at := addressing{f.link, queries}
	asked := verb
	if asked == 0 {
		asked = wrappers.Read
	}
	address, mapped, err := at.resolve(asked, f.up.Server, path)
	if verb == wrappers.Message && !mapped {
		_, mapped, _ = at.resolve(wrappers.Put, f.up.Server, path)
	}
	switch {
	case f.cfg.Refuse && (err != nil || !mapped):
		fail(rw, http.StatusNotFound, "no bind maps "+address)
		return
	case err != nil || !mapped || !verb.Writes() || f.ours([]byte(r.Header.Get(originHeader))):
		if err == nil && verb != 0 && f.link.Recording() && !f.ours([]byte(r.Header.Get(originHeader))) {
			f.recorded(r, verb, path)
		}
		proxy.ServeHTTP(rw, r)
		return
	}
	limit := int64(f.cfg.Limits.Frame)
	if r.ContentLength > limit {
		f.link.Count("oversized", 1)
		fail(rw, http.StatusRequestEntityTooLarge, "a body may have "+strconv.FormatInt(limit, 10)+" bytes here")
		return
	}
	size := f.bodySize(r.ContentLength)
	taken, ok := f.bodies.take(size)
	if !ok {
		f.link.Count("busy", 1)
		fail(rw, status(errBusy), wrappers.Reason(errBusy))
		return
	}
	defer f.bodies.give(taken)
	_ = http.NewResponseController(rw).SetReadDeadline(time.Now().Add(f.cfg.Limits.Handshake + time.Duration(size)*time.Second/slowest))
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, limit))
	var over *http.MaxBytesError
	switch {
	case errors.As(err, &over):
		f.link.Count("oversized", 1)
		fail(rw, http.StatusRequestEntityTooLarge, "a body may have "+strconv.FormatInt(limit, 10)+" bytes here")
		return
	case err != nil:
		fail(rw, http.StatusBadRequest, "the body is not whole")
		return
	}
	_ = http.NewResponseController(rw).SetReadDeadline(time.Time{})
	w := f.writeFrom(r.Method, path, r.RemoteAddr, userOf(r.Header.Get("Authorization")), wrappers.Payload{
		Raw: body, Type: r.Header.Get("Content-Type"), Meta: metaOf(r.Header),
	}, strings.Join(r.Header.Values("Content-Encoding"), ", "))
	w.intent, err = f.link.Begin(r.Context(), w.op)
	if err != nil && !errors.Is(err, wrappers.ErrUnmapped) {
		f.link.Count("refused", 1)
		fail(rw, status(err), detail(err, w.op.Address))
		return
	}
	// Once announced, a write is seen through even if its client goes away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), f.server.http.Timeout)
	defer cancel()
	if err == nil {
		ctx = context.WithValue(ctx, writeKey{}, w)
		defer func() {
			if !w.ended {
				w.intent.Unknown()
			}
		}()
	}
	out := r.WithContext(ctx)
	out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	proxy.ServeHTTP(rw, out)
}

// copyBuffers lends the proxy its buffers.
type copyBuffers struct{ pool sync.Pool }

const copyBuffer = 32 << 10

func (c *copyBuffers) Get() []byte {
	if b, ok := c.pool.Get().(*[copyBuffer]byte); ok {
		return b[:]
	}
	return make([]byte, copyBuffer)
}

func (c *copyBuffers) Put(b []byte) {
	if cap(b) == copyBuffer {
		c.pool.Put((*[copyBuffer]byte)(b[:copyBuffer]))
	}
}
