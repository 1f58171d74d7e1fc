package sql

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// TestVirtualContract holds the virtual server to what every wrapper keeps.
func TestVirtualContract(t *testing.T) {
	document := func(n int) []byte { // the row with v = n
		raw, err := row{"v": int64(n)}.encode()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	wrappertest.Run(t, wrappertest.Suite{
		Templates: []string{"public.things?name={name}"},
		Address:   func(n int) string { return fmt.Sprintf("public.things?name=t%d", n) },
		Unmapped:  "public.others?name=t0",
		Document:  document,
		Virtual:   startVirtual,
		Garbage:   []byte("GET / HTTP/1.1\r\n\r\n"),
		Deletes:   true,
	})
}

func startVirtual(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	things := wrappers.Pattern{Suffix: "?name={}", In: true, Out: true, Segments: []wrappers.Segment{
		{Kind: wrappers.LiteralSegment, Literal: "public"}, {Kind: wrappers.LiteralSegment, Literal: "things"},
	}, Members: []wrappers.Member{{Name: "name", Type: "string", Key: true, In: true, Out: true}, {Name: "v", Type: "number", In: true, Out: true}, {Name: "filler", Type: "string", In: true, Out: true}}}
	link.SetPatterns(things)
	link.MapIf(func(_ wrappers.Verb, _, address string) bool { return strings.HasPrefix(address, "public.things?") })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	options := wrappers.Options{}
	for _, s := range Protocol.Settings {
		options[s.Name] = s.Default
	}
	cfg := wrappers.Config{Protocol: "sql", Name: "test", Listener: l, Anonymous: wrappers.WriteAccess, Options: options, Drain: time.Second,
		Endpoint: "spookgw/test/0000", Log: slog.New(slog.DiscardHandler)}
	if tune != nil {
		tune(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := wrappertest.Serve(t, w, link)
	addr := l.Addr().String()
	return wrappertest.Rig{Addr: addr, Stop: stop, Dial: func(t *testing.T) wrappertest.Client {
		c, err := pgx.Connect(context.Background(), "postgres://tester@"+addr+"/db?sslmode=disable")
		if err != nil {
			return broken{err}
		}
		p := &peer{c: c, addr: addr}
		t.Cleanup(p.Close)
		return p
	}}
}

// broken is a client that was not let in.
type broken struct{ err error }

func (b broken) Write(string, []byte) error              { return b.err }
func (b broken) Read(string) ([]byte, error)             { return nil, b.err }
func (b broken) Delete(string) error                     { return b.err }
func (b broken) Subscribe(string) (<-chan []byte, error) { return nil, b.err }
func (b broken) Close()                                  {}

// peer is a client with one connection.
type peer struct {
	c    *pgx.Conn
	addr string
	ends []func() // of what subscribes
}

func thing(address string) (table, name string) {
	table, query, _ := strings.Cut(address, "?")
	return table, strings.TrimPrefix(query, "name=")
}

func (p *peer) Write(address string, payload []byte) error {
	ctx := context.Background()
	table, name := thing(address)
	r, err := decodeRow(payload)
	if err != nil { // a large one of the suite's
		_, err = p.c.Exec(ctx, "INSERT INTO "+table+" (name, filler) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET filler = excluded.filler", name, string(payload))
		return err
	}
	_, err = p.c.Exec(ctx, "INSERT INTO "+table+" (name, v) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET v = excluded.v", name, r["v"])
	return err
}

func (p *peer) Read(address string) ([]byte, error) {
	table, name := thing(address)
	var v int64
	err := p.c.QueryRow(context.Background(), "SELECT v::int8 FROM "+table+" WHERE name = $1", name).Scan(&v)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, wrappertest.ErrAbsent
	}
	if err != nil {
		return nil, err
	}
	return row{"v": v}.encode()
}

func (p *peer) Delete(address string) error {
	table, name := thing(address)
	_, err := p.c.Exec(context.Background(), "DELETE FROM "+table+" WHERE name = $1", name)
	return err
}

func (p *peer) Subscribe(address string) (<-chan []byte, error) {
	ctx, cancel := context.WithCancel(context.Background())
	c, err := pgx.Connect(ctx, "postgres://tester@"+p.addr+"/db?sslmode=disable")
	if err != nil {
		cancel()
		return nil, err
	}
	done := make(chan struct{})
	p.ends = append(p.ends, func() {
		cancel()
		<-done // a connection is used by one goroutine at a time
		c.Close(context.Background())
	})
	if _, err := c.Exec(ctx, "LISTEN things"); err != nil {
		close(done)
		return nil, err
	}
	_, name := thing(address)
	out := make(chan []byte, 100)
	go func() {
		defer close(done)
		defer close(out)
		for {
			n, err := c.WaitForNotification(ctx)
			if err != nil {
				return
			}
			if !strings.Contains(n.Payload, `"key": {"name": "`+name+`"}`) {
				continue
			}
			if strings.HasPrefix(n.Payload, `{"op": "delete"`) {
				out <- nil
				continue
			}
			var v int64
			i := strings.Index(n.Payload, `"v": `)
			_, _ = fmt.Sscanf(n.Payload[i+5:], "%d", &v)
			raw, _ := row{"v": v}.encode()
			out <- raw
		}
	}()
	return out, nil
}

func (p *peer) Close() {
	for _, end := range p.ends {
		end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	p.c.Close(ctx)
}
