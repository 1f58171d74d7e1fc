package daemonclient

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
)

// A fake daemon: it answers hello, and each further line as its script says.
type fake struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Scanner
}

func startFake(t *testing.T, script func(f *fake)) (*Client, error) {
	t.Helper()
	here, there := net.Pipe()
	f := &fake{t, there, bufio.NewScanner(there)}
	go func() {
		defer there.Close()
		id := f.next("hello")
		f.say(`{"jsonrpc":"2.0","id":%d,"result":{"version":1,"server":"fake"}}`, id)
		script(f)
	}()
	c, err := New(t.Context(), here)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// next reads a line, which must call method (or be its notification), and gives its id.
func (f *fake) next(method string) int64 {
	if !f.in.Scan() {
		return 0
	}
	var m struct {
		ID     int64
		Method string
	}
	if err := json.Unmarshal(f.in.Bytes(), &m); err != nil || m.Method != method {
		f.t.Errorf("the client sent %s (%v), want %s", f.in.Bytes(), err, method)
	}
	return m.ID
}

func (f *fake) say(format string, args ...any) {
	_, _ = io.WriteString(f.conn, fmt.Sprintf(format, args...)+"\n")
}

func TestHostileDaemon(t *testing.T) {
	tests := map[string]struct {
		line string
		want error
		text string
	}{
		"garbage":            {`what?`, engine.ErrUnavailable, "strict profile"},
		"not UTF-8":          {"{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":\"\xff\"}", engine.ErrUnavailable, "UTF-8"},
		"duplicate key":      {`{"jsonrpc":"2.0","id":2,"result":{},"result":{}}`, engine.ErrUnavailable, "twice"},
		"a call":             {`{"jsonrpc":"2.0","id":2,"method":"x"}`, engine.ErrUnavailable, "not its part"},
		"too deep":           {`{"jsonrpc":"2.0","id":2,"result":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000) + `}`, engine.ErrUnavailable, "levels"},
		"too long":           {strings.Repeat("x", 2<<20), engine.ErrUnavailable, "longer"},
		"end in mid-line":    {"", engine.ErrUnavailable, "broke"},
		"wrong result":       {`{"jsonrpc":"2.0","id":2,"result":{"state":{"register":5}}}`, engine.ErrUnavailable, "readState"},
		"no state":           {`{"jsonrpc":"2.0","id":2,"result":{"state":{"register":"r","value":{"$set":5}}}}`, engine.ErrUnavailable, "$set"},
		"a kind":             {`{"jsonrpc":"2.0","id":2,"error":{"code":-32005,"message":"full","data":{"kind":"full","detail":"no room"}}}`, engine.ErrFull, "no room"},
		"illegible to them":  {`{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}`, engine.ErrUnavailable, "could not read"},
		"unheard-of sub":     {`{"jsonrpc":"2.0","method":"event","params":{"sub":99}}` + "\n" + `{"jsonrpc":"2.0","id":2,"result":{"state":{"register":"r"}}}`, nil, ""},
		"an answer too many": {`{"jsonrpc":"2.0","id":77,"result":{}}` + "\n" + `{"jsonrpc":"2.0","id":2,"result":{"state":{"register":"r"}}}`, nil, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, err := startFake(t, func(f *fake) {
				f.next("readState")
				if test.line != "" {
					f.say("%s", test.line)
					f.in.Scan()
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.ReadState(t.Context(), "r")
			if !errors.Is(err, test.want) || err != nil && !strings.Contains(err.Error(), test.text) {
				t.Errorf("got %v, want %v with %q", err, test.want, test.text)
			}
			if test.want == engine.ErrUnavailable && test.text != "readState" && test.text != "$set" {
				if _, err := c.ReadState(t.Context(), "r"); !errors.Is(err, engine.ErrUnavailable) {
					t.Errorf("the next call: got %v, want ErrUnavailable", err)
				}
			}
		})
	}
}

func event(sub, ordinal int) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","method":"event","params":{"sub":%d,"ordinal":%d,"delta":{"cursor":"1.%d","part":0,"of":1,"after":{"register":"r","exists":true,"value":%d}}}}`, sub, ordinal, ordinal, ordinal)
}

// Events that come with the answer, or before the caller has seen it, are not lost.
func TestObserve(t *testing.T) {
	unobserved := make(chan bool)
	c, err := startFake(t, func(f *fake) {
		id := f.next("observe")
		f.say("%s\n%s\n%s", fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{"sub":4}}`, id), event(4, 1), event(4, 2))
		f.next("unobserve")
		close(unobserved)
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []uint64
	for d, err := range c.Observe(t.Context(), engine.Filter{}, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, d.Cursor.Ordinal)
		if len(got) == 2 {
			break
		}
	}
	if fmt.Sprint(got) != "[1 2]" {
		t.Errorf("got %v, want [1 2]", got)
	}
	<-unobserved
}

func TestObserveEnds(t *testing.T) {
	c, err := startFake(t, func(f *fake) {
		id := f.next("observe")
		f.say(`{"jsonrpc":"2.0","id":%d,"result":{"sub":1}}`, id)
		f.say("%s", event(1, 1))
		f.say(`{"jsonrpc":"2.0","method":"ended","params":{"sub":1,"error":{"code":-32006,"message":"closed","data":{"kind":"closed","detail":"closed"}}}}`)
		f.in.Scan()
	})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err = range c.Observe(t.Context(), engine.Filter{}, engine.Cursor{}) {
		n++
	}
	if n != 2 || !errors.Is(err, engine.ErrClosed) {
		t.Errorf("got %d items and %v at last, want 2 and ErrClosed", n, err)
	}
}

// A daemon that sends more than it has credit for is cut off instead of filling memory.
func TestObserveIsBounded(t *testing.T) {
	c, err := startFake(t, func(f *fake) {
		id := f.next("observe")
		f.say(`{"jsonrpc":"2.0","id":%d,"result":{"sub":1}}`, id)
		for i := 1; ; i++ {
			if _, err := io.WriteString(f.conn, event(1, i)+"\n"); err != nil {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, err = range c.Observe(t.Context(), engine.Filter{}, engine.Cursor{}) {
		if err != nil {
			break
		}
		<-c.done // the consumer is slow: for ever, as far as the daemon can tell
	}
	if !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(err.Error(), "credit") {
		t.Errorf("got %v, want ErrUnavailable about credit", err)
	}
}

func TestClose(t *testing.T) {
	c, err := startFake(t, func(f *fake) { f.in.Scan(); f.in.Scan() })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Cursor(t.Context()); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestCancelledCall(t *testing.T) {
	asked := make(chan bool)
	c, err := startFake(t, func(f *fake) {
		first := f.next("cursor")
		close(asked)
		second := f.next("cursor")
		f.say(`{"jsonrpc":"2.0","id":%d,"result":{"cursor":"1.1"}}`, first) // too late for anybody
		f.say(`{"jsonrpc":"2.0","id":%d,"result":{"cursor":"1.2"}}`, second)
		f.in.Scan()
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }()
	if _, err := c.Cursor(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
	if at, err := c.Cursor(t.Context()); err != nil || at.Ordinal != 2 {
		t.Errorf("got %v, %v, want the second answer", at, err)
	}
}

func TestDialNobody(t *testing.T) {
	if _, err := Dial(t.Context(), t.TempDir()+"/none"); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}
