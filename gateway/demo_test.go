package gateway

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// lines is a writer that can be waited for.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
	return l.buf.Write(b)
}

// until waits until the text holds want, and gives it.
func (l *lines) until(t *testing.T, want string) string {
	t.Helper()
	for {
		l.mu.Lock()
		text := l.buf.String()
		l.mu.Unlock()
		if strings.Contains(text, want) {
			return text
		}
		select {
		case <-l.more:
		case <-time.After(20 * time.Second):
			t.Fatalf("got:\n%s\nwant %q in it", text, want)
		}
	}
}

func TestDemo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := fakeProtocol(nil)
	free.Demo.Listen = "127.0.0.1:0"
	free.Demo.Lines = []string{"ask it"}
	busy := fakeProtocol(nil)
	busy.Name = "busy"
	busy.Demo.Listen = taken.Addr().String()
	out, errs := &lines{more: make(chan struct{}, 1)}, &lines{more: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	socket := filepath.Join(socketDir(t), "s")
	ended := make(chan error)
	go func() {
		ended <- Demo(ctx, DemoOptions{
			Protocols: []wrappers.Protocol{free, busy}, Version: "test", Socket: socket, Out: out, Errors: errs,
			Mappings: fstest.MapFS{"m.hcl": {Data: []byte(strings.ReplaceAll(stageMapping("line"), "s/{site}", "d/{site}"))}},
		})
	}()
	text := out.until(t, "Ctrl-C")
	if !strings.Contains(text, "busy  not started: "+taken.Addr().String()+" is taken") || !strings.Contains(text, "line  ask it\n") {
		t.Errorf("got:\n%s", text)
	}
	c, err := daemonclient.Dial(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "site/a/b", Kind: engine.OpPut, Field: "value", Value: number(5)}}}); err != nil {
		t.Fatal(err)
	}
	out.until(t, `daemon wrote site/a/b = {"value":5}  durable in `)
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("the demo ended with %v", err)
	}
}

// One line for one write: who wrote, and who was told, whichever was heard of first.
func TestDemoShow(t *testing.T) {
	var got []DemoDelta
	s := newDemoShow(DemoOptions{Event: func(d DemoDelta) error { got = append(got, d); return nil }})
	at := func(n uint64) engine.Cursor { return engine.Cursor{Log: 1, Ordinal: n} }
	s.event(Event{Kind: Out, Protocol: "http", Wrapper: "http", Cursor: at(1), Took: time.Millisecond})
	s.event(Event{Kind: In, Protocol: "mqtt", Cursor: at(1), Registers: []string{"a"}, Text: "1", Took: 2 * time.Millisecond})
	s.event(Event{Kind: Out, Protocol: "http", Wrapper: "http", Cursor: at(1), Took: 3 * time.Millisecond})
	s.event(Event{Kind: Asked, Protocol: "http", Registers: []string{"a"}})
	s.event(Event{Kind: In, Protocol: "mqtt", Registers: []string{"b"}, Outcome: "refused"})
	s.event(Event{Kind: Out, Protocol: "http", Cursor: at(2)}) // of a commit from before
	go s.run()
	s.end()
	if len(got) != 1 || got[0].Protocol != "mqtt" || got[0].Became != "1" || len(got[0].Told) != 1 || got[0].Told[0].MS != 3 {
		t.Errorf("got %+v", got)
	}
}
