package http

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func TestContract(t *testing.T) {
	wrappertest.Run(t, wrappertest.Suite{
		Templates: []string{"/v1/{site}/{sensor}"},
		Address:   func(n int) string { return fmt.Sprintf("/v1/berlin/oven-%d", n) },
		Unmapped:  "/v2/berlin/oven-0",
		Virtual:   startVirtual,
		Relay: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			link.ReadBackFirst()
			return startRelay(t, link, tune)
		},
		Attached: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			link.ReadBackFirst()
			return startAttached(t, link, tune)
		},
		RelayHolds: wrappertest.CallCommit,
		Garbage:    []byte("\x16\x03\x01 this is no request\r\n\r\n"),
		Deletes:    true,
	})
}

// options are the wrapper's settings with their defaults.
func options() wrappers.Options {
	o := wrappers.Options{}
	for _, s := range Protocol.Settings {
		o[s.Name] = s.Default
	}
	return o
}

func testLog() *slog.Logger {
	if os.Getenv("SPOOKGW_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// start runs a wrapper and returns a function that stops it, once.
func start(t testing.TB, cfg wrappers.Config, link wrappers.Link) (stop func() error) {
	t.Helper()
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return wrappertest.Serve(t, w, link)
}

func config(l net.Listener, tune func(*wrappers.Config)) wrappers.Config {
	cfg := wrappers.Config{Protocol: "http", Name: "test", Listener: l, Anonymous: wrappers.WriteAccess,
		Options: options(), Drain: 2 * time.Second, Endpoint: "spookgw/test/0000", Log: testLog()}
	if tune != nil {
		tune(&cfg)
	}
	return cfg
}

func startVirtual(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	l := listen(t)
	stop := start(t, config(l, tune), link)
	addr := l.Addr().String()
	return wrappertest.Rig{Addr: addr, Stop: stop, Dial: func(t *testing.T) wrappertest.Client { return newClient(t, addr) }}
}

// client is a peer with one connection of its own.
type client struct {
	base string
	http *http.Client
	ctx  context.Context
}

func newClient(t testing.TB, addr string) *client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	return &client{base: "http://" + addr, http: &http.Client{Transport: tr}, ctx: ctx}
}

func (c *client) do(method, address, body string, headers ...string) (*http.Response, string, error) {
	var rd io.Reader
	if body != "" {
		rd = strings.NewReader(body)
	}
	r, err := http.NewRequestWithContext(c.ctx, method, c.base+address, rd)
	if err != nil {
		return nil, "", err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func (c *client) Write(address string, payload []byte) error {
	resp, body, err := c.do("PUT", address, string(payload), "Content-Type", "application/json")
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", resp.Status, body)
	}
	return nil
}

func (c *client) Read(address string) ([]byte, error) {
	resp, body, err := c.do("GET", address, "")
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		return nil, wrappertest.ErrAbsent
	case resp.StatusCode != http.StatusOK:
		return nil, errors.New(resp.Status)
	}
	return []byte(body), nil
}

func (c *client) Delete(address string) error {
	resp, body, err := c.do("DELETE", address, "")
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return err
}

// An event as a client of a stream sees it.
type event struct{ id, name, data string }

// stream opens a stream of events; header lines alternate names and values.
func (c *client) stream(address string, headers ...string) (<-chan event, error) {
	r, err := http.NewRequestWithContext(c.ctx, "GET", c.base+address, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", "text/event-stream")
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, errors.New(resp.Status)
	}
	out := make(chan event, 100)
	go func() {
		defer close(out)
		defer resp.Body.Close()
		var e event
		var data []string
		for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
			k, v, _ := strings.Cut(sc.Text(), ":")
			v = strings.TrimPrefix(v, " ")
			switch {
			case sc.Text() == "" && data != nil:
				e.data = strings.Join(data, "\n")
				out <- e
				e, data = event{}, nil
			case k == "id":
				e.id = v
			case k == "event":
				e.name = v
			case k == "data":
				data = append(data, v)
			case k == "":
				out <- event{name: "comment", data: v}
			}
		}
	}()
	return out, nil
}

func (c *client) Subscribe(address string) (<-chan []byte, error) {
	events, err := c.stream(address)
	if err != nil {
		return nil, err
	}
	out := make(chan []byte, 100)
	go func() {
		defer close(out)
		for e := range events {
			switch e.name {
			case "":
				out <- []byte(e.data)
			case "gone":
				out <- nil
			}
		}
	}()
	return out, nil
}

func (c *client) Close() { c.http.CloseIdleConnections() }

// backend is a real server: net/http with documents in memory, ETags and conditions.
type backend struct {
	mu      sync.Mutex
	addr    string
	docs    map[string]doc
	rank    int
	writes  map[string]int
	fail    wrappertest.Failure
	handle  func(w http.ResponseWriter, r *http.Request) bool // true: answered
	seen    []*http.Request
	noETags bool
}

type doc struct {
	body []byte
	kind string
	tag  string
}

func newBackend(t testing.TB) *backend {
	b := &backend{docs: map[string]doc{}, writes: map[string]int{}}
	l := listen(t)
	b.addr = l.Addr().String()
	srv := &http.Server{Handler: b, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(body))
	b.seen = append(b.seen, r)
	if b.handle != nil && b.handle(w, r) {
		return
	}
	path := r.URL.Path
	d, there := b.docs[path]
	if d.tag != "" {
		w.Header().Set("ETag", d.tag)
	}
	if r.Method == "GET" || r.Method == "HEAD" {
		switch {
		case !there:
			http.Error(w, "no such document", http.StatusNotFound)
		case d.tag != "" && r.Header.Get("If-None-Match") == d.tag:
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Type", d.kind)
			_, _ = w.Write(d.body)
		}
		return
	}
	b.writes[path]++
	switch fail := b.fail; fail {
	case wrappertest.RefuseForGood:
		b.fail = 0
		http.Error(w, "not this one", http.StatusForbidden)
		return
	case wrappertest.RefuseForNow:
		b.fail = 0
		w.Header().Set("Retry-After", "1")
		http.Error(w, "later", http.StatusServiceUnavailable)
		return
	case wrappertest.BreakConnection:
		b.fail = 0
		panic(http.ErrAbortHandler)
	}
	if m := r.Header.Get("If-Match"); m != "" && m != d.tag && !(m == "*" && there) {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	if r.Header.Get("If-None-Match") == "*" && there {
		w.WriteHeader(http.StatusPreconditionFailed)
		return
	}
	switch r.Method {
	case "PUT", "POST":
		b.set(path, body, r.Header.Get("Content-Type"))
		w.Header().Set("ETag", b.docs[path].tag)
		if there {
			w.WriteHeader(http.StatusNoContent)
		} else {
			w.WriteHeader(http.StatusCreated)
		}
	case "PATCH":
		var dst, patch map[string]json.RawMessage
		_ = json.Unmarshal(d.body, &dst)
		if err := json.Unmarshal(body, &patch); err != nil || !there {
			http.Error(w, "no patch", http.StatusBadRequest)
			return
		}
		for k, v := range patch {
			if dst[k] = v; string(v) == "null" {
				delete(dst, k)
			}
		}
		body, _ = json.Marshal(dst)
		b.set(path, body, d.kind)
		w.Header().Set("ETag", b.docs[path].tag)
		w.WriteHeader(http.StatusNoContent)
	case "DELETE":
		if !there {
			http.Error(w, "no such document", http.StatusNotFound)
			return
		}
		delete(b.docs, path)
		w.Header().Del("ETag")
		w.WriteHeader(http.StatusNoContent)
	default:
		http.Error(w, "not that", http.StatusMethodNotAllowed)
	}
}

func (b *backend) set(path string, body []byte, kind string) {
	b.rank++
	d := doc{body: bytes.Clone(body), kind: kind}
	if !b.noETags {
		d.tag = fmt.Sprintf(`"r%d"`, b.rank)
	}
	b.docs[path] = d
}

func (b *backend) Value(address string) ([]byte, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	d, there := b.docs[address]
	return d.body, there
}

func (b *backend) Set(address string, payload []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.set(address, payload, "application/json")
}

func (b *backend) Remove(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.docs, address)
}

func (b *backend) Writes(address string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes[address]
}

func (b *backend) Fail(how wrappertest.Failure) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = how
	return true
}

func (b *backend) upstream() []wrappers.Upstream {
	return []wrappers.Upstream{{Scheme: "http", Addr: b.addr, Password: func() string { return "" }}}
}

func startRelay(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	b := newBackend(t)
	l := listen(t)
	cfg := config(l, nil)
	cfg.Upstreams = b.upstream()
	if tune != nil {
		tune(&cfg)
	}
	stop := start(t, cfg, link)
	addr := l.Addr().String()
	return wrappertest.Rig{Addr: addr, Stop: stop, Server: b, Dial: func(t *testing.T) wrappertest.Client { return newClient(t, addr) }}
}

func startAttached(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	b := newBackend(t)
	cfg := config(nil, nil)
	cfg.Upstreams = b.upstream()
	cfg.Options["poll_ms"] = int64(5)
	if tune != nil {
		tune(&cfg)
	}
	return wrappertest.Rig{Stop: start(t, cfg, link), Server: b}
}
