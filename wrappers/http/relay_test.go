package http

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

const oven = "/v1/berlin/oven-3"

func newLink() *wrappertest.Link { return wrappertest.NewLink("/v1/{site}/{sensor}") }

// relayTo runs a relay in front of an address and returns its own.
func relayTo(t *testing.T, upstream string, link *wrappertest.Link, tune func(*wrappers.Config)) string {
	t.Helper()
	l := listen(t)
	cfg := config(l, nil)
	cfg.Upstreams = []wrappers.Upstream{{Scheme: "http", Addr: upstream}}
	if tune != nil {
		tune(&cfg)
	}
	start(t, cfg, link)
	return l.Addr().String()
}

// rawServer answers each connection with a script of its own.
func rawServer(t *testing.T, serve func(c net.Conn, r *bufio.Reader)) string {
	t.Helper()
	l := listen(t)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c, bufio.NewReader(c))
			}()
		}
	}()
	return l.Addr().String()
}

func dialRaw(t *testing.T, addr string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c, bufio.NewReader(c)
}

func send(t *testing.T, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(r, b)
	if err != nil || string(b) != want {
		t.Fatalf("got %q, %v; want %q", b[:n], err, want)
	}
}

// answer reads one response.
func readAnswer(t *testing.T, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("answer %s: %v", resp.Status, err)
	}
	return resp, string(b)
}

func TestRelayPassesBytesUnchanged(t *testing.T) {
	requests := "GET /x?a=1;b=2&bad=%zz HTTP/1.1\r\nhost: h\r\nSOAPAction: \"x\"\r\nx-b: 1\r\nX-A:2\r\n\r\n" +
		"POST //y/%2F HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n3;ext=1\r\nabc\r\n0\r\nT: v\r\n\r\n" +
		"DELETE http://other/z HTTP/1.1\r\nHost: h\r\n\r\n"
	answers := "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 Fine  enough\r\nx-Lower: 1\r\nContent-Length: 3\r\n\r\nabc" +
		"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nTrail: x\r\n\r\n" +
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n"
	got := make(chan string, 1)
	up := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		b := make([]byte, len(requests))
		n, _ := io.ReadFull(r, b)
		got <- string(b[:n])
		_, _ = io.WriteString(c, answers)
		_, _ = io.Copy(io.Discard, r)
	})
	link := newLink()
	c, r := dialRaw(t, relayTo(t, up, link, nil))
	for i := 0; i < len(requests); i += 7 {
		send(t, c, requests[i:min(i+7, len(requests))])
	}
	if g := <-got; g != requests {
		t.Errorf("the server got\n%q\nwant\n%q", g, requests)
	}
	expect(t, r, answers)
	if n := len(link.Intents()); n != 0 {
		t.Errorf("got %d intents, want none", n)
	}
}

func TestRelayRefusesAmbiguousFraming(t *testing.T) {
	reached := make(chan string, 100)
	up := rawServer(t, func(_ net.Conn, r *bufio.Reader) {
		b, _ := io.ReadAll(r)
		if len(b) > 0 {
			reached <- string(b)
		}
	})
	addr := relayTo(t, up, newLink(), nil)
	for name, in := range map[string]string{
		"length and chunked":    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two lengths":           "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd",
		"folded":                "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
		"bare LF":               "GET /a HTTP/1.1\nHost: x\n\n",
		"space before colon":    "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length : 4\r\n\r\nabcd",
		"unknown coding":        "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"HTTP/2 without notice": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"huge head":             "GET /a HTTP/1.1\r\nA: " + strings.Repeat("x", 2*maxHead) + "\r\n\r\n",
	} {
		c, r := dialRaw(t, addr)
		go func() { _, _ = io.WriteString(c, in) }()
		resp, body := readAnswer(t, r, "POST")
		if resp.StatusCode < 400 || resp.StatusCode == 404 || !strings.Contains(body, `"detail"`) {
			t.Errorf("%s: got %s %s, want a refusal", name, resp.Status, body)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Errorf("%s: the session goes on", name)
		}
		c.Close()
	}
	select {
	case got := <-reached:
		t.Errorf("the server got %.100q", got)
	default:
	}
}

func TestRelayKeepsAnswersInOrder(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	c, r := dialRaw(t, relayTo(t, b.addr, link, nil))
	var in strings.Builder
	for n := range 40 {
		fmt.Fprintf(&in, "PUT /free/%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d", n, n%10)
		if n%5 == 0 {
			fmt.Fprintf(&in, "PUT %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n%2d", oven, n)
		}
		fmt.Fprintf(&in, "GET /free/%d HTTP/1.1\r\nHost: x\r\n\r\n", n)
	}
	go func() { _, _ = io.WriteString(c, in.String()) }()
	for n := range 40 {
		if resp, _ := readAnswer(t, r, "PUT"); resp.StatusCode != 201 {
			t.Fatalf("put %d: %s", n, resp.Status)
		}
		if n%5 == 0 {
			if resp, _ := readAnswer(t, r, "PUT"); resp.StatusCode/100 != 2 {
				t.Fatalf("mapped put %d: %s", n, resp.Status)
			}
		}
		if _, body := readAnswer(t, r, "GET"); body != fmt.Sprint(n%10) {
			t.Fatalf("get %d: got %s", n, body)
		}
	}
	if n := len(link.Candidates(wrappertest.ViaWire)); n != 8 {
		t.Errorf("got %d candidates, want 8", n)
	}
}

// TestRelayTwoWritersOfOneAddress: whichever of two wins, register and server agree.
func TestRelayTwoWritersOfOneAddress(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	addr := relayTo(t, b.addr, link, nil)
	writers := []*client{newClient(t, addr), newClient(t, addr)}
	for n := range 1000 {
		var wg sync.WaitGroup
		for i, w := range writers {
			wg.Go(func() {
				if err := w.Write(oven, fmt.Appendf(nil, `{"value":"%d of %d"}`, n, i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		reg, _ := link.Register("", oven)
		srv, _ := b.Value(oven)
		if !bytes.Equal(reg, srv) {
			t.Fatalf("after round %d the register has %s and the server %s", n, reg, srv)
		}
	}
}

func TestRelayWhatAWriteMeans(t *testing.T) {
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write([]byte(`{"zip":1}`))
	_ = zw.Close()
	type answer struct {
		status int
		doc    string // what the server then has; "-": as it was sent, "": nothing
	}
	tests := []struct {
		name, method, body string
		headers            []string
		methods            []string
		answer             answer
		end                string
		verb               wrappers.Verb
		want               string // the candidate's payload
	}{
		{"put", "PUT", `{"a":1}`, nil, nil, answer{201, "-"}, "commit", wrappers.Put, `{"a":1}`},
		{"put refused", "PUT", `{"a":1}`, nil, nil, answer{409, ""}, "abort", 0, ""},
		{"put redirected", "PUT", `{"a":1}`, nil, nil, answer{307, ""}, "abort", 0, ""},
		{"delete", "DELETE", "", nil, nil, answer{204, ""}, "commit", wrappers.Delete, ""},
		{"merge patch", "PATCH", `{"a":1}`, []string{"Content-Type", "application/merge-patch+json"}, nil, answer{200, `{"a":1,"b":2}`}, "commit", wrappers.Merge, `{"a":1}`},
		{"json patch", "PATCH", `[]`, []string{"Content-Type", "application/json-patch+json"}, nil, answer{200, `{"a":1,"b":2}`}, "commit", wrappers.Put, `{"a":1,"b":2}`},
		{"post that a bind names", "POST", `{"a":1}`, nil, []string{"POST"}, answer{200, `{"n":1}`}, "commit", wrappers.Message, `{"a":1}`},
		{"post that none names", "POST", `a=1`, nil, nil, answer{200, `{"n":1}`}, "commit", wrappers.Put, `{"n":1}`},
		{"accepted and done", "PUT", `{"a":1}`, nil, nil, answer{202, `{"a":1.0}`}, "commit", wrappers.Put, `{"a":1.0}`},
		{"accepted and not yet done", "PUT", `{"a":1}`, nil, nil, answer{202, ""}, "unknown", 0, ""},
		{"gzip", "PUT", zipped.String(), []string{"Content-Encoding", "gzip"}, nil, answer{204, `{"zip":1}`}, "commit", wrappers.Put, `{"zip":1}`},
		{"odd coding", "PUT", "??", []string{"Content-Encoding", "br"}, nil, answer{204, `{"br":1}`}, "commit", wrappers.Put, `{"br":1}`},
		{"a part", "PUT", `1`, []string{"Content-Range", "bytes 0-0/7"}, nil, answer{204, `{"a":1}`}, "commit", wrappers.Put, `{"a":1}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t)
			b.handle = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" {
					return false
				}
				switch tt.answer.doc {
				case "":
				case "-":
					b.set(oven, []byte(tt.body), "application/json")
				default:
					b.set(oven, []byte(tt.answer.doc), "application/json")
				}
				w.Header().Set("ETag", b.docs[oven].tag)
				w.WriteHeader(tt.answer.status)
				return true
			}
			link := newLink()
			ps := wrappertest.Patterns("/v1/{site}/{sensor}")
			ps[0].Options["methods"] = tt.methods
			link.SetPatterns(ps...)
			c := newClient(t, relayTo(t, b.addr, link, nil))
			c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
			resp, _, err := c.do(tt.method, oven, tt.body, tt.headers...)
			if err != nil || resp.StatusCode != tt.answer.status {
				t.Fatalf("got %v, %v; want %d", resp, err, tt.answer.status)
			}
			is := link.Intents()
			if len(is) != 1 || is[0].End != tt.end {
				t.Fatalf("intents: got %+v, want one that ends with %s", is, tt.end)
			}
			cs := link.Candidates(wrappertest.ViaWire)
			if tt.end != "commit" {
				if len(cs) != 0 {
					t.Errorf("candidates: got %+v, want none", cs)
				}
				return
			}
			if len(cs) != 1 || cs[0].Verb != tt.verb || string(cs[0].Payload) != tt.want {
				t.Fatalf("candidates: got %+v, want %s %s", cs, tt.verb, tt.want)
			}
			if tag := b.docs[oven].tag; string(is[0].As.Version) != tag {
				t.Errorf("version: got %s, want %s", is[0].As.Version, tag)
			}
		})
	}
}

func TestRelayGatewaysOwnWritesAreNoNews(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	c := newClient(t, relayTo(t, b.addr, link, nil))
	for origin, want := range map[string]int{"spookgw/test/ffff": 0, "spookgw/other/0000": 1} {
		before := len(link.Intents())
		if _, _, err := c.do("PUT", oven, "{}", originHeader, origin); err != nil {
			t.Fatal(err)
		}
		if got := len(link.Intents()) - before; got != want {
			t.Errorf("marked %s: got %d intents, want %d", origin, got, want)
		}
	}
}

func TestRelayExpectContinue(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	c, r := dialRaw(t, relayTo(t, b.addr, link, nil))
	for _, path := range []string{oven, "/free"} {
		send(t, c, "PUT "+path+" HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n")
		expect(t, r, "HTTP/1.1 100 Continue\r\n\r\n")
		send(t, c, `{"a":1}`)
		if resp, _ := readAnswer(t, r, "PUT"); resp.StatusCode != 201 {
			t.Errorf("%s: got %s, want 201 without a second 100", path, resp.Status)
		}
	}
	if n := len(link.Candidates()); n != 1 {
		t.Errorf("got %d candidates, want 1", n)
	}
}

func TestRelayChunkedWriteAndItsLimit(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	addr := relayTo(t, b.addr, link, func(c *wrappers.Config) { c.Limits.Frame = 1000 })
	c, r := dialRaw(t, addr)
	send(t, c, "PUT "+oven+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{\"a\"\r\n")
	send(t, c, "3\r\n:1}\r\n0\r\n\r\nGET "+oven+" HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, _ := readAnswer(t, r, "PUT"); resp.StatusCode != 201 {
		t.Fatalf("got %s", resp.Status)
	}
	if _, body := readAnswer(t, r, "GET"); body != `{"a":1}` {
		t.Errorf("got %s", body)
	}
	if got, _ := link.Register("", oven); string(got) != `{"a":1}` {
		t.Errorf("the register has %s", got)
	}
	send(t, c, "PUT "+oven+" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
	go func() { _, _ = io.WriteString(c, "2000\r\n"+strings.Repeat("x", 0x2000)) }()
	if resp, body := readAnswer(t, r, "PUT"); resp.StatusCode != 413 {
		t.Errorf("got %s %s, want 413", resp.Status, body)
	}
	// What no bind maps has no limit.
	cl := newClient(t, addr)
	big := strings.Repeat("0123456789abcdef", 1<<18)
	if err := cl.Write("/free", []byte(big)); err != nil {
		t.Fatal(err)
	}
	if got, err := cl.Read("/free"); err != nil || string(got) != big {
		t.Errorf("a body of %d bytes came back with %d, %v", len(big), len(got), err)
	}
}

func TestRelayRefusedWriteKeepsTheConnection(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	link.Fail(wrappertest.CallBegin, wrappers.Refuse(wrappers.ErrUnavailable, "the disk is almost full"))
	c, r := dialRaw(t, relayTo(t, b.addr, link, nil))
	send(t, c, "PUT "+oven+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}GET /free HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, body := readAnswer(t, r, "PUT")
	if resp.StatusCode != 503 || !strings.Contains(body, "disk is almost full") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %s %s, want 503 with the reason and Retry-After", resp.Status, body)
	}
	if resp, _ := readAnswer(t, r, "GET"); resp.StatusCode != 404 {
		t.Errorf("the request behind it: got %s, want the server's 404", resp.Status)
	}
}

func TestRelayRefusesTheUnmappedWhereAsked(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	c := newClient(t, relayTo(t, b.addr, link, func(c *wrappers.Config) { c.Refuse = true }))
	if err := c.Write(oven, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(oven); err != nil {
		t.Error(err)
	}
	for _, method := range []string{"PUT", "GET", "OPTIONS"} {
		resp, body, err := c.do(method, "/v2/x", "")
		if err != nil || resp.StatusCode != 404 || !strings.Contains(body, "no bind maps /v2/x") {
			t.Errorf("%s: got %v %s, %v; want 404 that names the address", method, resp.Status, body, err)
		}
	}
	if n := len(b.seen); n != 2 {
		t.Errorf("the server got %d requests, want 2", n)
	}
}

func TestRelayUpgradeBecomesAPipe(t *testing.T) {
	up := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, r)
	})
	link := newLink()
	c, r := dialRaw(t, relayTo(t, up, link, nil))
	send(t, c, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	if resp, _ := readAnswer(t, r, "GET"); resp.StatusCode != 101 {
		t.Fatalf("got %s", resp.Status)
	}
	odd := "\x00\xffPUT " + oven + " HTTP/1.1\r\nContent-Length: 0\r\n\r\n"
	send(t, c, odd)
	expect(t, r, odd)
	if n := len(link.Intents()); n != 0 {
		t.Errorf("got %d intents out of a pipe, want none", n)
	}
}

func TestRelayStreamsAnswers(t *testing.T) {
	next := make(chan string)
	up := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for s := range next {
			_, _ = io.WriteString(c, s)
		}
	})
	c, r := dialRaw(t, relayTo(t, up, newLink(), nil))
	send(t, c, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"data: 1\n\n", "data: 2\n\n"} {
		next <- s
		expect(t, resp.Body, s) // each comes before the next is sent
	}
	close(next)
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) != 0 {
		t.Errorf("the end: got %q, %v", rest, err)
	}
}

func TestRelayUnaskedAnswerEndsTheSession(t *testing.T) {
	spoken := make(chan struct{})
	up := rawServer(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
		close(spoken)
		_, _ = io.Copy(io.Discard, r)
	})
	link := newLink()
	c, r := dialRaw(t, relayTo(t, up, link, nil))
	if resp, _ := readAnswer(t, r, "GET"); resp.StatusCode != 408 {
		t.Fatalf("got %s", resp.Status)
	}
	<-spoken
	send(t, c, "PUT "+oven+" HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
	if _, err := r.ReadByte(); err == nil {
		t.Error("the session goes on although nobody knows whose answer is whose")
	}
	if n := len(link.Intents()); n != 0 {
		t.Errorf("got %d intents, want none", n)
	}
}

func TestRelayServerDown(t *testing.T) {
	l := listen(t)
	addr := l.Addr().String()
	l.Close()
	c, r := dialRaw(t, relayTo(t, addr, newLink(), nil))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if resp, body := readAnswer(t, r, "GET"); resp.StatusCode != 502 || !strings.Contains(body, "can't be reached") {
		t.Errorf("got %s %s, want 502", resp.Status, body)
	}
}

func TestRelayDrainFinishesWhatIsInFlight(t *testing.T) {
	b := newBackend(t)
	l := listen(t)
	cfg := config(l, nil)
	cfg.Drain = 20 * time.Second
	cfg.Upstreams = b.upstream()
	link := newLink()
	stop := start(t, cfg, link)
	release := link.Block(wrappertest.CallCommit)
	c := newClient(t, l.Addr().String())
	done := make(chan error, 1)
	go func() { done <- c.Write(oven, []byte("{}")) }()
	link.Await(t, "the commit", func() bool { return link.Waiting(wrappertest.CallCommit) == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the listener is closed, which is how a drain begins
		x, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			break
		}
		x.Close()
	}
	release()
	if err := <-done; err != nil {
		t.Errorf("the write in flight: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestRelayOverTLSAndHTTP2(t *testing.T) {
	cert := httptest.NewTLSServer(nil)
	defer cert.Close()
	b := newBackend(t)
	link := newLink()
	addr := relayTo(t, b.addr, link, func(c *wrappers.Config) {
		c.TLS = &tls.Config{Certificates: cert.TLS.Certificates}
	})
	for _, h2 := range []bool{false, true} {
		protocols := &http.Protocols{}
		protocols.SetHTTP1(!h2)
		protocols.SetHTTP2(h2)
		c := newClient(t, addr)
		c.base = "https://" + addr
		c.http.Transport = &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		before := len(link.Candidates(wrappertest.ViaWire))
		release := link.Block(wrappertest.CallCommit)
		done := make(chan error, 1)
		go func() { done <- c.Write(oven, fmt.Appendf(nil, `{"h2":%v}`, h2)) }()
		link.Await(t, "the commit", func() bool { return link.Waiting(wrappertest.CallCommit) == 1 })
		select {
		case err := <-done:
			t.Errorf("h2 %v: answered (%v) before it was durable", h2, err)
		default:
		}
		release()
		if err := <-done; err != nil {
			t.Fatalf("h2 %v: %v", h2, err)
		}
		cs := link.Candidates(wrappertest.ViaWire)[before:]
		if len(cs) != 1 || string(cs[0].Payload) != fmt.Sprintf(`{"h2":%v}`, h2) {
			t.Errorf("h2 %v: candidates %+v", h2, cs)
		}
		resp, _, err := c.do("GET", "/free?x=1;y=2&bad=%zz", "")
		if err != nil || resp.StatusCode != 404 || (resp.ProtoMajor == 2) != h2 {
			t.Errorf("h2 %v: got %v, %v", h2, resp, err)
		}
		b.mu.Lock()
		last := b.seen[len(b.seen)-1]
		b.mu.Unlock()
		if last.URL.RawQuery != "x=1;y=2&bad=%zz" || last.Header.Get("Accept-Encoding") != map[bool]string{false: "gzip", true: "gzip"}[h2] {
			t.Errorf("h2 %v: the server got %q %v", h2, last.URL.RawQuery, last.Header)
		}
		link.Fail(wrappertest.CallBegin, wrappers.Refuse(wrappers.ErrDenied, "only HR writes this"))
		resp, body, err := c.do("PUT", oven, "{}")
		if err != nil || resp.StatusCode != 403 || !strings.Contains(body, "only HR") {
			t.Errorf("h2 %v: refused by the link: got %v %s, %v; want 403", h2, resp, body, err)
		}
		b.Fail(wrappertest.BreakConnection)
		if err := c.Write(oven, []byte("{}")); err == nil {
			t.Errorf("h2 %v: the peer saw success of a write whose answer broke off", h2)
		}
		link.Await(t, "an unknown outcome", func() bool { is := link.Intents(); return is[len(is)-1].End == "unknown" })
		b.Fail(wrappertest.RefuseForGood)
		if err := c.Write(oven, []byte("{}")); err == nil {
			t.Errorf("h2 %v: the peer saw success of a refused write", h2)
		}
		if is := link.Intents(); is[len(is)-1].End != "abort" {
			t.Errorf("h2 %v: a refused write ends with %s", h2, is[len(is)-1].End)
		}
	}
}

func TestRelayMappedByQuery(t *testing.T) {
	b := newBackend(t)
	link := wrappertest.NewLink("/update?ID={oven}&t={actual}", "/v1/{site}/{sensor}")
	c := newClient(t, relayTo(t, b.addr, link, nil))
	for _, path := range []string{"/update?ID=3&t=21.5", oven + "?trace=1"} {
		if err := c.Write(path, []byte("{}")); err != nil {
			t.Fatal(err)
		}
	}
	cs := link.Candidates(wrappertest.ViaWire)
	if len(cs) != 2 || cs[0].Address != "/update?ID=3&t=21.5" || cs[1].Address != oven {
		t.Errorf("candidates: got %+v, want the query where a bind looks at it, and the path alone where none does", cs)
	}
}
