package relay

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// lines is a Handler for a protocol of lines: "hold…" from the client waits for gate, "drop…" is
// not forwarded, "no…" is refused, "panic" panics, "skip N" is followed by N unseen bytes, and
// "blind" makes the direction a pipe.
type lines struct {
	s     *Session
	gate  chan struct{}
	held  chan struct{}
	busy  atomic.Bool
	ended chan error
}

func (h *lines) FromClient(b []byte) (Step, error) {
	n := 0
	for {
		i := bytes.IndexByte(b[n:], '\n')
		if i < 0 {
			return Step{Pass: n}, nil
		}
		line := string(b[n : n+i])
		special := func(prefix string) bool { return strings.HasPrefix(line, prefix) }
		if n > 0 && (special("hold") || special("drop") || special("no") || special("panic") || special("skip") || special("blind")) {
			return Step{Pass: n}, nil
		}
		n += i + 1
		switch {
		case special("hold"):
			h.held <- struct{}{}
			<-h.gate
		case special("drop"):
			return Step{Drop: n}, h.s.ToClient([]byte("dropped\n"))
		case special("no"):
			return Step{}, &Refused{Say: []byte("refused\n"), Err: errors.New("no")}
		case special("panic"):
			panic("as asked")
		case special("skip"):
			return Step{Pass: n, Skip: 1 << 20}, nil
		case special("blind"):
			return Step{Pass: n, Blind: true}, nil
		case special("last"):
			h.busy.Store(false)
		}
		h.s.Welcome()
	}
}

func (h *lines) FromServer(b []byte) (Step, error) {
	i := bytes.LastIndexByte(b, '\n') + 1
	return Step{Pass: i}, nil
}
func (h *lines) Busy() bool { return h.busy.Load() }
func (h *lines) End(err error) {
	if h.ended != nil {
		h.ended <- err
	}
}

type counts struct {
	mu sync.Mutex
	m  map[string]int
	ch chan struct{}
}

func (c *counts) count(e string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[e] += n
	select {
	case c.ch <- struct{}{}:
	default:
	}
}

func (c *counts) await(t *testing.T, e string, n int) {
	t.Helper()
	for deadline := time.After(10 * time.Second); ; {
		c.mu.Lock()
		got := c.m[e]
		c.mu.Unlock()
		if got >= n {
			return
		}
		select {
		case <-c.ch:
		case <-deadline:
			t.Fatalf("counter %s: got %d, want %d", e, got, n)
		}
	}
}

// start runs a relay in front of serve and returns its address.
func start(t *testing.T, srv *Server, serve func(net.Conn)) (string, *counts, context.CancelFunc) {
	t.Helper()
	up, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { up.Close() })
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	c := &counts{m: map[string]int{}, ch: make(chan struct{}, 1)}
	srv.Count = c.count
	if srv.Listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	if srv.Dial == nil {
		srv.Dial = func(ctx context.Context) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", up.Addr().String())
		}
	}
	if srv.Handle == nil {
		srv.Handle = func(s *Session) Handler { return &lines{s: s} }
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return srv.Listener.Addr().String(), c, cancel
}

func echo(c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, c)
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(r, b)
	if err != nil || string(b) != want {
		t.Fatalf("got %.200q, %v; want %.200q", b[:n], err, want)
	}
}

func TestBytesPassUnchanged(t *testing.T) {
	addr, _, _ := start(t, &Server{}, echo)
	c := dial(t, addr)
	var sent bytes.Buffer
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		for range rng.IntN(300) {
			sent.WriteByte(byte('A' + rng.IntN(26)))
		}
		sent.WriteByte('\n')
	}
	go func() {
		b := sent.Bytes()
		for len(b) > 0 {
			n := min(1+rng.IntN(5000), len(b))
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
			b = b[n:]
		}
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent.Bytes()) {
		t.Errorf("got %d bytes (%v), want the %d that were sent, then the end", len(got), err, sent.Len())
	}
}

func TestHeldFrameHoldsWhatFollows(t *testing.T) {
	h := &lines{gate: make(chan struct{}), held: make(chan struct{}, 1)}
	addr, _, _ := start(t, &Server{Handle: func(s *Session) Handler { h.s = s; return h }}, echo)
	c := dial(t, addr)
	say(t, c, "one\nhold\nthree\n")
	hear(t, c, "one\n")
	<-h.held
	close(h.gate)
	hear(t, c, "hold\nthree\n")
}

func TestDropSkipBlind(t *testing.T) {
	addr, _, _ := start(t, &Server{}, echo)
	c := dial(t, addr)
	say(t, c, "drop me\n")
	hear(t, c, "dropped\n")
	body := strings.Repeat("no\n\n", 1<<18) // 1 MiB that would be refused if it were looked at
	go func() { _, _ = io.WriteString(c, "skip\n"+body+"after\nblind\nno\n") }()
	hear(t, c, "skip\n"+body+"after\nblind\nno\n")
}

func TestRefusedSaysWhy(t *testing.T) {
	ended := make(chan error, 1)
	addr, _, _ := start(t, &Server{Handle: func(s *Session) Handler { return &lines{s: s, ended: ended} }}, echo)
	c := dial(t, addr)
	say(t, c, "no\n"+strings.Repeat("x", 100_000))
	got, err := io.ReadAll(c)
	if err != nil || string(got) != "refused\n" {
		t.Errorf("got %q, %v; want the refusal and an orderly end", got, err)
	}
	if err := <-ended; err == nil || err.Error() != "no" {
		t.Errorf("End: got %v, want the refusal", err)
	}
}

func TestPanicEndsOneSession(t *testing.T) {
	addr, n, _ := start(t, &Server{}, echo)
	other := dial(t, addr)
	say(t, other, "a\n")
	hear(t, other, "a\n")
	c := dial(t, addr)
	say(t, c, "panic\n")
	if b, _ := io.ReadAll(c); len(b) != 0 {
		t.Errorf("after a panic: got %q, want the end", b)
	}
	n.await(t, "panics", 1)
	say(t, other, "b\n")
	hear(t, other, "b\n")
}

func TestFrameTooLongIsRefused(t *testing.T) {
	addr, n, _ := start(t, &Server{Hold: 100_000}, echo)
	c := dial(t, addr)
	go func() { _, _ = c.Write(bytes.Repeat([]byte("x"), 1<<20)) }()
	_, _ = io.ReadAll(c)
	n.await(t, "oversized", 1)
}

func TestSessionLimitSaysSo(t *testing.T) {
	addr, n, _ := start(t, &Server{Door: Door{Sessions: 1, Full: []byte("full\n")}}, echo)
	first := dial(t, addr)
	say(t, first, "a\n")
	hear(t, first, "a\n")
	c := dial(t, addr)
	if got, _ := io.ReadAll(c); string(got) != "full\n" {
		t.Errorf("over the limit: got %q, want full", got)
	}
	n.await(t, "sessions_full", 1)
	first.Close()
	for try := 0; ; try++ { // the place is free once the session has ended
		c := dial(t, addr)
		_, _ = io.WriteString(c, "a\n")
		if line, _ := bufio.NewReader(c).ReadString('\n'); line == "a\n" {
			break
		}
		if try == 1000 {
			t.Fatal("the place of a session that ended is never free")
		}
	}
}

func TestStrangersAreDroppedEarly(t *testing.T) {
	addr, n, _ := start(t, &Server{Door: Door{PerHost: 10}}, echo)
	known := dial(t, addr)
	say(t, known, "a\n")
	hear(t, known, "a\n")
	for range 200 {
		dial(t, addr)
	}
	n.await(t, "dropped_early", 150)
	say(t, known, "b\n")
	hear(t, known, "b\n")
}

func TestSilenceEndsAtTheHandshakeDeadline(t *testing.T) {
	addr, n, _ := start(t, &Server{Door: Door{Handshake: 50 * time.Millisecond}}, echo)
	c := dial(t, addr)
	if _, err := io.ReadAll(c); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	n.await(t, "timeouts", 1)
	w := dial(t, addr)
	say(t, w, "a\n")
	hear(t, w, "a\n")
	time.Sleep(60 * time.Millisecond) // the time itself is what is tested
	say(t, w, "b\n")
	hear(t, w, "b\n")
}

func TestSlowReaderLosesItsSession(t *testing.T) {
	ended := make(chan error, 1)
	srv := &Server{WriteTimeout: 50 * time.Millisecond, Handle: func(s *Session) Handler { return &lines{s: s, ended: ended} }}
	addr, n, _ := start(t, srv, func(c net.Conn) {
		defer c.Close()
		line := bytes.Repeat([]byte("0123456789abcde\n"), 4096)
		for {
			if _, err := c.Write(line); err != nil {
				return
			}
		}
	})
	dial(t, addr)
	n.await(t, "slow_peers", 1)
	if err := <-ended; !errors.Is(err, errSlow) {
		t.Errorf("End: got %v, want that the peer does not read", err)
	}
}

func TestUpstreamDownIsSaid(t *testing.T) {
	srv := &Server{
		Dial: func(context.Context) (net.Conn, error) { return nil, errors.New("down") },
		Down: func(err error) []byte { return []byte("sorry: " + err.Error() + "\n") },
	}
	addr, n, _ := start(t, srv, echo)
	c := dial(t, addr)
	say(t, c, "hello\n")
	if got, err := io.ReadAll(c); err != nil || string(got) != "sorry: down\n" {
		t.Errorf("got %q, %v; want the words", got, err)
	}
	n.await(t, "upstream_down", 1)
}

func TestServersLastWordsArePassed(t *testing.T) {
	addr, _, _ := start(t, &Server{}, func(c net.Conn) {
		_, _ = c.Read(make([]byte, 10))
		_, _ = io.WriteString(c, "too large\n")
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = io.CopyN(io.Discard, c, 1<<18)
		c.Close()
	})
	c := dial(t, addr)
	go func() {
		for {
			if _, err := io.WriteString(c, strings.Repeat("0123456789\n", 1000)); err != nil {
				return
			}
		}
	}()
	hear(t, c, "too large\n")
}

func TestDrainWaitsForTheBusy(t *testing.T) {
	var hs sync.Map
	srv := &Server{Drain: 10 * time.Second, Handle: func(s *Session) Handler {
		h := &lines{s: s}
		hs.Store(s.Client().String(), h)
		return h
	}}
	addr, _, stop := start(t, srv, echo)
	idle, busy := dial(t, addr), dial(t, addr)
	for _, c := range []net.Conn{idle, busy} {
		say(t, c, "a\n")
		hear(t, c, "a\n")
	}
	v, _ := hs.Load(busy.LocalAddr().String())
	h := v.(*lines)
	h.busy.Store(true)
	stop()
	if b, err := io.ReadAll(idle); err != nil || len(b) != 0 {
		t.Errorf("idle session: got %q, %v; want the end", b, err)
	}
	say(t, busy, "b\n")
	hear(t, busy, "b\n")
	say(t, busy, "last\n")
	if b, err := io.ReadAll(busy); err != nil {
		t.Errorf("busy session: got %q, %v; want the end once it is idle", b, err)
	}
}

// failing is a listener that is out of descriptors for a while.
type failing struct {
	net.Listener
	left atomic.Int32
}

func (f *failing) Accept() (net.Conn, error) {
	if f.left.Add(-1) >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

func TestAcceptBacksOffAndRecovers(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &failing{Listener: l}
	f.left.Store(3)
	n := &counts{m: map[string]int{}, ch: make(chan struct{}, 1)}
	d := &Door{Listener: f, Count: n.count}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	in := make(chan *Peer)
	go func() { done <- d.Serve(ctx, time.Second, func(p *Peer) { in <- p }) }()
	n.await(t, "accept_backoff", 3)
	dial(t, l.Addr().String())
	p := <-in
	cancel()
	p.Close()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

// notes is a Handler that says something to the client whenever the client says "note", while
// frames of the server (a length byte, then so many bytes) pass piece by piece.
type notes struct {
	s    *Session
	left int
	said chan struct{}
}

func (h *notes) FromClient(b []byte) (Step, error) {
	err := h.s.ToClient([]byte("\x04note"))
	h.said <- struct{}{}
	return Step{Drop: len(b)}, err
}

func (h *notes) FromServer(b []byte) (Step, error) {
	n := 0
	for n < len(b) {
		if h.left == 0 {
			h.left = int(b[n])
			n++
		}
		k := min(h.left, len(b)-n)
		h.left -= k
		n += k
	}
	return Step{Pass: n, Mid: h.left > 0}, nil
}
func (h *notes) Busy() bool { return false }
func (h *notes) End(error)  {}

func TestOwnFramesWaitForABorder(t *testing.T) {
	said := make(chan struct{}, 1)
	server := make(chan net.Conn, 1)
	srv := &Server{Handle: func(s *Session) Handler { return &notes{s: s, said: said} }}
	addr, _, _ := start(t, srv, func(c net.Conn) { server <- c })
	c := dial(t, addr)
	up := <-server
	defer up.Close()
	say(t, up, "\x06abc")
	hear(t, c, "\x06abc")
	say(t, c, "note")
	<-said
	say(t, up, "def\x01x")
	got := make([]byte, 10)
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	if s := string(got); s != "def\x04note\x01x" && s != "def\x01x\x04note" {
		t.Errorf("got %q, want the note between two frames", s)
	}
}

func TestOverTLS(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	up, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert.TLS.Certificates})
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	go func() {
		for {
			c, err := up.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	trusting := &tls.Config{InsecureSkipVerify: true}
	srv := &Server{
		TLS: &tls.Config{Certificates: cert.TLS.Certificates},
		Dial: func(ctx context.Context) (net.Conn, error) {
			return (&tls.Dialer{Config: trusting}).DialContext(ctx, "tcp", up.Addr().String())
		},
	}
	addr, n, _ := start(t, srv, nil)
	c, err := tls.Dial("tcp", addr, trusting)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := strings.Repeat("0123456789abcde\n", 1<<16)
	go func() {
		_, _ = io.WriteString(c, sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || string(got) != sent {
		t.Errorf("got %d bytes, %v; want the %d that were sent, then the end", len(got), err, len(sent))
	}
	plain := dial(t, addr)
	say(t, plain, "no TLS at all, but long enough to be a record\n")
	_, _ = io.ReadAll(plain)
	n.await(t, "tls_refused", 1)
}
