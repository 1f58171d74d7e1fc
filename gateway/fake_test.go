package gateway

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// fakeProtocol is a protocol of lines for tests of the host: "put ADDRESS JSON" is answered "ok",
// "get ADDRESS" with the payload, "slow" with "done" after `release` is closed, "die" fails the
// wrapper, "panic" panics in Serve, "who" names the wrapper.
func fakeProtocol(release <-chan struct{}) wrappers.Protocol {
	return wrappers.Protocol{
		Name:   "line",
		Syntax: wrappers.Syntax{Separator: "/"},
		Settings: []wrappers.Setting{
			{Name: "mood", Kind: wrappers.StringSetting, Default: "calm", Enum: []string{"calm", "wild"}},
			{Name: "depth", Kind: wrappers.IntSetting, Default: int64(3), Min: 1, Max: 9},
			{Name: "loud", Kind: wrappers.BoolSetting, Default: false},
			{Name: "words", Kind: wrappers.StringsSetting},
		},
		Schemes: []wrappers.Scheme{{Name: "line", Port: 4000}, {Name: "lines", Port: 4001, TLS: true}},
		Demo:    wrappers.Demo{Listen: "127.0.0.1:14000", Lines: []string{"echo get site/berlin/oven-3 | nc 127.0.0.1 14000"}},
		New: func(c wrappers.Config) (wrappers.Wrapper, error) {
			return &fakeWrapper{config: c, release: release, fail: make(chan string, 1)}, nil
		},
	}
}

type fakeWrapper struct {
	config  wrappers.Config
	release <-chan struct{}
	fail    chan string
	wait    sync.WaitGroup
}

func (w *fakeWrapper) Serve(ctx context.Context, link wrappers.Link) error {
	if w.config.Listener == nil {
		<-ctx.Done()
		return nil
	}
	go func() {
		for {
			c, err := w.config.Listener.Accept()
			if err != nil {
				return
			}
			w.wait.Go(func() { w.session(ctx, link, c) })
		}
	}()
	var how string
	select {
	case how = <-w.fail:
	case <-ctx.Done():
	}
	w.config.Listener.Close()
	switch how {
	case "die":
		return errors.New("asked to die")
	case "panic":
		panic("asked to panic")
	}
	w.wait.Wait()
	return nil
}

func (w *fakeWrapper) session(ctx context.Context, link wrappers.Link, c net.Conn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })
	defer stop()
	in := bufio.NewScanner(c)
	for in.Scan() {
		verb, rest, _ := strings.Cut(in.Text(), " ")
		address, body, _ := strings.Cut(rest, " ")
		answer := "ok"
		op := wrappers.Operation{Address: address, Payload: wrappers.Payload{Raw: []byte(body)}}
		var err error
		switch verb {
		case "put":
			op.Verb = wrappers.Put
			_, err = link.Do(context.WithoutCancel(ctx), op)
		case "get":
			op.Verb = wrappers.Read
			var r wrappers.Result
			if r, err = link.Do(ctx, op); err == nil {
				answer = string(r.Payload.Raw)
			}
		case "slow":
			fmt.Fprintln(c, "began")
			<-w.release
			answer = "done"
		case "who":
			answer = w.config.Name + " " + w.config.Options.String("mood")
		case "logon":
			answer, err = w.config.Logon.Password(ctx, address, body)
		case "die", "panic":
			w.fail <- verb
			return
		}
		if err != nil {
			answer = "error " + wrappers.Reason(err)
		}
		fmt.Fprintln(c, answer)
	}
}

// A stage is a gateway with files of its own.
type stage struct {
	t    *testing.T
	dir  string
	g    *Gateway
	opts Options
}

// stageMapping maps s/{site}/{name} in the wrappers of these names.
func stageMapping(names ...string) string {
	return fmt.Sprintf(`register "site/{site}/{name}" {
  fields = { value = number }
  bind "line" "s/{site}/{name}" {
    wrapper = ["%s"]
  }
}
`, strings.Join(names, `", "`))
}

// newStage starts a gateway over config, whose wrappers are "a" and those in names.
func newStage(t *testing.T, config string, release <-chan struct{}, names ...string) *stage {
	t.Helper()
	s := &stage{t: t, dir: t.TempDir()}
	s.opts = Options{
		Load: LoadRequest{File: filepath.Join(s.dir, "gateway.hcl"), Protocols: []wrappers.Protocol{fakeProtocol(release)}},
		Log:  slog.New(slog.DiscardHandler), Version: "test", Socket: filepath.Join(socketDir(t), "s"),
	}
	s.configure(config)
	s.write("mappings.d/m.hcl", stageMapping(append([]string{"a"}, names...)...))
	s.start()
	return s
}

func (s *stage) start() {
	s.t.Helper()
	g, found, err := Start(s.t.Context(), s.opts)
	if err != nil {
		s.t.Fatalf("%v\n%v", err, found.Err())
	}
	s.g = g
	s.t.Cleanup(func() {
		if s.g == g {
			s.stop()
		}
	})
}

func (s *stage) stop() {
	s.t.Helper()
	g := s.g
	s.g = nil
	if err := g.Stop(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
}

func (s *stage) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) configure(config string) { s.write("gateway.hcl", "data = \"data\"\n"+config) }

// reload must work.
func (s *stage) reload() *Reload {
	s.t.Helper()
	r, found, err := s.g.Reload(s.t.Context(), "")
	if err != nil {
		s.t.Fatalf("reload: %v\n%v", err, found.Err())
	}
	return r
}

// refused reloads must change nothing.
func (s *stage) refused() diag.Diagnostics {
	s.t.Helper()
	before := s.g.Status(s.t.Context())
	_, found, err := s.g.Reload(s.t.Context(), "")
	after := s.g.Status(s.t.Context())
	if err == nil || before.Generation != after.Generation || before.Hash != after.Hash || after.ReloadError == "" {
		s.t.Errorf("reload: got %v, generation %d (%s); want it refused", err, after.Generation, after.Hash)
	}
	return found
}

func (s *stage) wrapper(name string) WrapperStatus {
	s.t.Helper()
	for _, w := range s.g.wrapperStatus() {
		if w.Name == name {
			return w
		}
	}
	s.t.Fatalf("no wrapper %s", name)
	return WrapperStatus{}
}

// dial connects to a wrapper.
func (s *stage) dial(name string) *peer {
	s.t.Helper()
	c, err := net.Dial("tcp", s.wrapper(name).Listen[0])
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &peer{s.t, c, bufio.NewReader(c)}
}

type peer struct {
	t    *testing.T
	conn net.Conn
	in   *bufio.Reader
}

func (p *peer) ask(line, want string) {
	p.t.Helper()
	if _, err := io.WriteString(p.conn, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
	p.hears(want)
}

func (p *peer) hears(want string) {
	p.t.Helper()
	got, err := p.in.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		p.t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// waitState waits until a wrapper is in a state that ok likes, as somebody who polls status does.
func (s *stage) waitState(name string, ok func(WrapperStatus) bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if ok(s.wrapper(name)) {
			return
		}
	}
	s.t.Fatalf("wrapper %s: got %+v", name, s.wrapper(name))
}
