package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

func number(n int) engine.Value   { return lattice.Int(int64(n)) }
func longText(n int) engine.Value { return lattice.String(strings.Repeat("\x01", n)) }
func isTooLarge(err error) bool   { return errors.Is(err, engine.ErrTooLarge) }

// socketDir gives a directory with a path short enough for a socket.
func socketDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// bareDoor is a door to an engine without a gateway around it; the caller says who writes.
func bareDoor(t testing.TB) (path string, e *engine.Engine) {
	t.Helper()
	e, err := engine.Open(engine.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return doorTo(t, e, e), e
}

// doorTo is a door to a state that e is behind of, and is closed with.
func doorTo(t testing.TB, state engine.State, e *engine.Engine) (path string) {
	t.Helper()
	path = filepath.Join(socketDir(t), "s")
	l, err := openSocketPath(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	calls := stateCalls(func(*session) engine.State { return state }, noRules{})
	calls["hello"] = func(_ context.Context, _ *session, params json.RawMessage) (any, error) {
		_, err := helloVersion(params)
		return map[string]any{"version": wire.Version}, err
	}
	calls["status"] = func(ctx context.Context, _ *session, _ json.RawMessage) (any, error) {
		s, err := e.Status(ctx)
		return map[string]any{"engine": wire.FromStatus(s)}, err
	}
	d := newDoor(l, path, calls, slog.New(slog.DiscardHandler), func(string, string) {})
	t.Cleanup(func() {
		d.close()
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return path
}

// Over the socket everything is as it is on the engine itself.
func TestStateOverSocket(t *testing.T) {
	enginetest.Run(t, func(t *testing.T) engine.State {
		path, _ := bareDoor(t)
		c, err := daemonclient.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	})
}

// What declarations mean, too.
func TestDeclaredOverSocket(t *testing.T) {
	enginetest.RunRules(t, func(t *testing.T) (engine.State, engine.Declarer) {
		path, e := bareDoor(t)
		c, err := daemonclient.Dial(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, e
	})
}

// raw is a peer that speaks as it likes.
type raw struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func dialRaw(t *testing.T, path string) *raw {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t, c, bufio.NewReader(c)}
}

func (r *raw) say(line string) {
	r.t.Helper()
	if _, err := io.WriteString(r.conn, line+"\n"); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) hears(want string) {
	r.t.Helper()
	line, err := r.in.ReadString('\n')
	if err != nil || !strings.Contains(line, want) {
		r.t.Errorf("got %q, %v; want %q in it", line, err, want)
	}
}

// What can't be read is answered with the fixed codes, and the next line is a new message.
func TestHostilePeer(t *testing.T) {
	path, _ := bareDoor(t)
	r := dialRaw(t, path)
	r.say(`{"jsonrpc":"2.0","id":1,"method":"cursor"}`)
	r.hears(`"id":1,"error":{"code":-32600,"message":"the first call is hello"`)
	r.say(`{"jsonrpc":"2.0","id":2,"method":"hello","params":{"version":1}}`)
	r.hears(`"id":2,"result":{"version":1}`)
	for line, want := range map[string]string{
		`what?`:   `"id":null,"error":{"code":-32700`,
		"{\"\xff": `"id":null,"error":{"code":-32700`,
		`[]`:      `"id":null,"error":{"code":-32600`,
		`{"jsonrpc":"2.0","id":"x","method":"cursor"}`:                                                                            `"id":null,"error":{"code":-32600`,
		`{"jsonrpc":"2.0","id":3,"method":"cursor","method":"close"}`:                                                             `twice`,
		`{"jsonrpc":"2.0","id":3,"method":"` + strings.Repeat("x", 2<<20) + `"}`:                                                  `longer than`,
		`{"jsonrpc":"2.0","id":3,"method":"nothing"}`:                                                                             `"id":3,"error":{"code":-32601`,
		`{"jsonrpc":"2.0","id":3,"result":1}`:                                                                                     `"error":{"code":-32600`,
		`{"jsonrpc":"2.0","id":3,"method":"readState","params":[1]}`:                                                              `"error":{"code":-32600`,
		`{"jsonrpc":"2.0","id":3,"method":"readState","params":{"register":7}}`:                                                   `"id":3,"error":{"code":-32602`,
		`{"jsonrpc":"2.0","id":3,"method":"readState","params":{"register":"a//b"}}`:                                              `"code":-32001,"message":"invalid","data":{"kind":"invalid","register":"a//b"`,
		`{"jsonrpc":"2.0","id":3,"method":"readState","params":{"Register":"a"}}`:                                                 `"code":-32001`,
		`{"jsonrpc":"2.0","id":3,"method":"writeState","params":{"ops":[{"register":"a","kind":"eat"}]}}`:                         `"code":-32001`,
		`{"jsonrpc":"2.0","id":3,"method":"unobserve","params":{"sub":9}}`:                                                        `"code":-32002`,
		`{"jsonrpc":"2.0","id":3,"method":"observe","params":{"from":"x"}}`:                                                       `"code":-32602`,
		`{"jsonrpc":"2.0","id":3,"method":"observe","params":{"credit":100000}}`:                                                  `"code":-32602`,
		`{"jsonrpc":"2.0","id":3,"method":"cursor","params":` + strings.Repeat(`{"a":`, 40) + `1` + strings.Repeat("}", 40) + `}`: `more than 32 levels`,
	} {
		r.say(line)
		r.hears(want)
	}
	r.say(`{"jsonrpc":"2.0","id":4,"method":"cursor","unknown":[1,2,{"x":3}]}`)
	r.hears(`"id":4,"result":{"cursor":"`)
	r.say(`{"jsonrpc":"2.0","id":5,"method":"close"}`)
	r.hears(`"id":5,"result":{}`)
	if _, err := r.in.ReadByte(); err != io.EOF {
		t.Errorf("after close: got %v, want the end", err)
	}
}

// A subscriber gets as many events as it gave credit for, and the rest when it gives more: what
// waits for it waits in the log.
func TestCredit(t *testing.T) {
	path, e := bareDoor(t)
	r := dialRaw(t, path)
	r.say(`{"jsonrpc":"2.0","id":1,"method":"hello"}`)
	r.hears(`"result"`)
	at, err := e.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r.say(fmt.Sprintf(`{"jsonrpc":"2.0","id":2,"method":"observe","params":{"credit":2,"from":%q}}`, at))
	r.hears(`"result":{"sub":1}`)
	for i := range 5 {
		if _, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("a", "x", number(i))}}); err != nil {
			t.Fatal(err)
		}
	}
	r.hears(`"value":{"x":0}`)
	r.hears(`"value":{"x":1}`)
	r.say(`{"jsonrpc":"2.0","id":3,"method":"cursor"}`)
	r.hears(`"id":3`) // and no third event before it
	r.say(`{"jsonrpc":"2.0","method":"credit","params":{"sub":1,"n":3}}`)
	for i := 2; i < 5; i++ {
		r.hears(fmt.Sprintf(`"value":{"x":%d}`, i))
	}
	r.say(`{"jsonrpc":"2.0","id":4,"method":"unobserve","params":{"sub":1}}`)
	r.hears(`"id":4,"result"`)
}

// A register that does not fit into a message is refused by name, and does not stop what goes on.
func TestTooLargeForAMessage(t *testing.T) {
	path, e := bareDoor(t)
	for i := range 4 {
		w := engine.Write{Ops: []engine.Op{enginetest.Put("large", fmt.Sprint(i), longText(60000))}}
		if _, err := e.WriteState(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("small", "x", number(1))}}); err != nil {
		t.Fatal(err)
	}
	c, err := daemonclient.Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.ReadState(t.Context(), "large"); !isTooLarge(err) {
		t.Errorf("read: got %v, want ErrTooLarge", err)
	}
	if r, err := c.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("large", "y", number(1))}}); err != nil || len(r.States) != 1 {
		t.Errorf("write: got %+v, %v; want done", r, err)
	}
	var names []string
	for b, err := range c.List(t.Context(), "", "", 0) {
		names = append(names, fmt.Sprint(b.Register, " ", isTooLarge(err)))
	}
	if got := strings.Join(names, ", "); got != "large true, small false" {
		t.Errorf("list: got %s", got)
	}
	n := 0
	for d, err := range c.Observe(t.Context(), engine.Filter{}, engine.Cursor{}) {
		if err != nil && !isTooLarge(err) {
			t.Fatal(err)
		}
		if n++; d.After.Register == "small" {
			break
		}
	}
}

func TestSocketPath(t *testing.T) {
	dir := socketDir(t)
	path := filepath.Join(dir, "s")
	l, err := openSocketPath(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want mode 0600", info.Mode(), err)
	}
	if _, err := openSocketPath(t.Context(), path); err == nil || !strings.Contains(err.Error(), "another gateway") {
		t.Errorf("a second one: got %v", err)
	}
	l.Close() // and leaves the file, as a process that was killed does
	if l, err = openSocketPath(t.Context(), path); err != nil {
		t.Errorf("over a stale socket: %v", err)
	} else {
		l.Close()
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSocketPath(t.Context(), file); err == nil {
		t.Error("a file that is no socket was replaced")
	}
	if _, err := openSocketPath(t.Context(), filepath.Join(dir, strings.Repeat("x", 120))); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("a long path: got %v", err)
	}
}

func BenchmarkSocket(b *testing.B) {
	path, _ := bareDoor(b)
	c, err := daemonclient.Dial(b.Context(), path)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	write := engine.Write{Ops: []engine.Op{enginetest.Put("site/a/b", "value", number(1))}}
	if _, err := c.WriteState(b.Context(), write); err != nil {
		b.Fatal(err)
	}
	b.Run("read", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.ReadState(b.Context(), "site/a/b"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("16 readers", func(b *testing.B) {
		b.SetParallelism(8)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, err := c.ReadState(b.Context(), "site/a/b"); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
	b.Run("durable write", func(b *testing.B) {
		n := 0
		for b.Loop() {
			n++
			w := engine.Write{Ops: []engine.Op{enginetest.Put("site/a/b", "value", number(n))}}
			if _, err := c.WriteState(b.Context(), w); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// noRules let everything in.
type noRules struct{}

func (noRules) admit(*session, *engine.Write) error         { return nil }
func (noRules) may(*session, string, wrappers.Access) error { return nil }
