package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A place is a node with its site and its door, on a real disk and real sockets.
type station struct {
	t    testing.TB
	dir  string
	e    *engine.Engine
	site *Site
	door *Listener
	addr string // of the door
	dial func(ctx context.Context, network, address string) (net.Conn, error)
}

func newStation(t testing.TB) *station { return newStationAt(t, "127.0.0.1:0") }

// newStationAt is one with a door of which the address is given.
func newStationAt(t testing.TB, addr string) *station {
	t.Helper()
	st := &station{t: t, dir: filepath.Join(t.TempDir(), "data"), addr: addr}
	st.start()
	t.Cleanup(st.stop)
	return st
}

func testLog(t testing.TB) *slog.Logger {
	if !testing.Verbose() {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}

func (st *station) start() {
	st.t.Helper()
	var err error
	if st.e, err = engine.Open(engine.Options{Dir: st.dir}); err != nil {
		st.t.Fatal(err)
	}
	if st.site, err = Open(Options{Engine: st.e, Domain: "plant", Dial: st.dial, Log: testLog(st.t)}); err != nil {
		st.t.Fatal(err)
	}
	network, at, err := SplitAddress(st.addr)
	if err != nil {
		st.t.Fatal(err)
	}
	socket, err := net.Listen(network, at)
	if err != nil {
		st.t.Fatal(err)
	}
	if network == "tcp" {
		st.addr = socket.Addr().String()
	}
	st.door = Listen(socket, testLog(st.t), st.site)
}

func (st *station) stop() {
	if st.e == nil {
		return
	}
	if err := errors.Join(st.door.Close(), st.site.Close(), st.e.Close()); err != nil {
		st.t.Errorf("stop: %v", err)
	}
	st.e = nil
}

func (st *station) put(register string, value int64) {
	st.t.Helper()
	if _, err := st.e.WriteState(st.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Value: lattice.Int(value)}}}); err != nil {
		st.t.Fatal(err)
	}
}

func (st *station) root() string {
	s, err := st.e.Status(st.t.Context())
	if err != nil {
		st.t.Fatal(err)
	}
	return s.Root
}

func (st *station) status() Status {
	st.t.Helper()
	list, err := st.site.Status(st.t.Context())
	if err != nil || len(list) != 1 {
		st.t.Fatalf("%d pairs, %v", len(list), err)
	}
	return list[0]
}

// until waits for what is true in the end.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func join(t testing.TB, a, b *station, address string) {
	t.Helper()
	i, err := a.site.Offer(t.Context(), "b", address, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseInvitation(i.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.site.Accept(t.Context(), parsed, "a"); err != nil {
		t.Fatal(err)
	}
}

// Pairs are made and kept over TCP and, on one machine, over a Unix socket.
func TestPairOverSockets(t *testing.T) {
	t.Run("tcp", func(t *testing.T) { pairOverSockets(t, newStation(t), newStation(t)) })
	t.Run("unix", func(t *testing.T) {
		dir, err := os.MkdirTemp("", "pair") // the path of a socket has to be short
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		pairOverSockets(t, newStationAt(t, "unix:"+filepath.Join(dir, "a")), newStationAt(t, "unix:"+filepath.Join(dir, "b")))
	})
}

func pairOverSockets(t *testing.T, a, b *station) {
	a.put("x", 1)
	b.put("y", 2)
	join(t, a, b, a.addr)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	until(t, "entangled", func() bool { return a.status().State == Entangled && b.status().State == Entangled })
	began := time.Now()
	a.put("z", 3)
	until(t, "equal roots", func() bool { return a.root() == b.root() })
	t.Logf("a write was there after %s", time.Since(began))
	// Either goes away and comes back.
	for i, st := range []*station{a, b, a, b} {
		st.stop()
		other := b
		if st == b {
			other = a
		}
		other.put(fmt.Sprint("while/", i), int64(i))
		st.start()
		st.put("after", int64(i))
		until(t, "equal roots", func() bool { return a.root() == b.root() })
		until(t, "entangled", func() bool { return a.status().State == Entangled && b.status().State == Entangled })
	}
	c, err := b.site.Compare(t.Context(), "a")
	if err != nil || !c.Equal() || c.Root != c.Peer {
		t.Fatalf("%+v, %v", c, err)
	}
	if err := a.site.Dissolve(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	until(t, "dissolved", func() bool { return b.status().State == DissolvedPair })
}

func TestInvitationWorksOnce(t *testing.T) {
	a, b, c := newStation(t), newStation(t), newStation(t)
	i, err := a.site.Offer(t.Context(), "b", a.addr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.site.Accept(t.Context(), i, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := c.site.Accept(t.Context(), i, ""); err == nil {
		t.Fatal("an invitation works twice")
	}
	if list, err := c.site.Status(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("who was refused has %d pairs, %v", len(list), err)
	}
	other, err := a.site.Offer(t.Context(), "", a.addr, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	other.Secret[0] ^= 1
	if _, err := c.site.Accept(t.Context(), other, ""); !errors.Is(err, ErrRefused) {
		t.Errorf("with a wrong secret: %v", err)
	}
	other.Secret[0] ^= 1
	other.Key[0] ^= 1
	if _, err := c.site.Accept(t.Context(), other, ""); !errors.Is(err, errStranger) {
		t.Errorf("with another key: %v", err)
	}
}

// A cutter is a proxy whose line can be cut.
type cutter struct {
	l  net.Listener
	to string

	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func newCutter(t testing.TB, to string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{l: l, to: to}
	go c.run()
	t.Cleanup(func() { c.set(true); _ = l.Close() })
	return c
}

func (c *cutter) run() {
	for {
		in, err := c.l.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		out, err := net.Dial("tcp", c.to)
		if c.cut || err != nil {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			c.mu.Unlock()
			continue
		}
		c.conns = append(c.conns, in, out)
		c.mu.Unlock()
		for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(way[0], way[1])
				_ = way[0].Close()
				_ = way[1].Close()
			}()
		}
	}
}

func (c *cutter) set(cut bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut = cut; cut {
		for _, conn := range c.conns {
			_ = conn.Close()
		}
		c.conns = nil
	}
}

func TestCutLine(t *testing.T) {
	a, b := newStation(t), newStation(t)
	line := newCutter(t, a.addr)
	join(t, a, b, line.l.Addr().String())
	for i := range 10 {
		line.set(true)
		until(t, "decohered", func() bool { return b.status().State == Decohered })
		for k := range 20 {
			a.put(fmt.Sprint("r/", k), int64(i*k))
			b.put(fmt.Sprint("r/", k), int64(-i*k))
		}
		line.set(false)
		until(t, "equal roots", func() bool { return a.root() == b.root() })
	}
}

// Incarnations don't pile up: once both have all of an earlier run, it leaves the vectors.
func TestEarlierRunsAreRetired(t *testing.T) {
	a, b := newStation(t), newStation(t)
	join(t, a, b, a.addr)
	for i := range 6 {
		b.put(fmt.Sprint("run/", i), int64(i))
		until(t, "equal roots", func() bool { return a.root() == b.root() })
		b.stop()
		b.start()
	}
	b.put("last", 1)
	until(t, "one entry for each", func() bool {
		x, err1 := a.e.Summary(t.Context())
		y, err2 := b.e.Summary(t.Context())
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		return len(x.Vector) <= 2 && x.Vector.Equal(y.Vector)
	})
	until(t, "equal roots", func() bool { return a.root() == b.root() })
}
