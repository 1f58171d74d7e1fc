package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
)

const oneWrapper = `wrapper "line" "a" {
  listen = "127.0.0.1:0"
}
`

func TestStartServeStop(t *testing.T) {
	s := newStage(t, oneWrapper, nil)
	s.dial("a").ask(`put s/berlin/oven {"value":21.5}`, "ok")
	s.stop()
	s.start()
	s.dial("a").ask(`get s/berlin/oven`, `{"value":21.5}`)
	if err := s.g.Ready(); err != nil {
		t.Errorf("ready: %v", err)
	}
	st := s.g.Status(t.Context())
	if st.Generation != 1 || len(st.Hash) != 12 || len(st.Wrappers) != 1 || st.Wrappers[0].Mode != "virtual" || !st.Ready {
		t.Errorf("status: got %+v", st)
	}
}

// What is in flight when the gateway is asked to stop is finished first.
func TestDrain(t *testing.T) {
	release := make(chan struct{})
	s := newStage(t, oneWrapper, release)
	p := s.dial("a")
	p.ask("slow", "began")
	g := s.g
	s.g = nil
	stopped := make(chan error)
	go func() { stopped <- g.Stop() }()
	for !g.draining.Load() {
	}
	if err := g.Ready(); err == nil {
		t.Error("ready while it drains")
	}
	close(release)
	p.hears("done")
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	if _, err := os.Stat(g.SocketPath()); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// A session that never ends holds up the stop no longer than drain.
func TestDrainIsBounded(t *testing.T) {
	release := make(chan struct{})
	s := newStage(t, "drain = \"50ms\"\n"+oneWrapper, release)
	p := s.dial("a")
	p.ask("slow", "began")
	s.stop()
	close(release)
}

// A wrapper that fails or panics is started again on the same port; others don't notice.
func TestRestart(t *testing.T) {
	for _, how := range []string{"die", "panic"} {
		t.Run(how, func(t *testing.T) {
			s := newStage(t, oneWrapper+strings.ReplaceAll(oneWrapper, `"a"`, `"b"`), nil, "b")
			other := s.dial("b")
			was := s.wrapper("a").Listen[0]
			p := s.dial("a")
			if _, err := io.WriteString(p.conn, how+"\n"); err != nil {
				t.Fatal(err)
			}
			s.waitState("a", func(w WrapperStatus) bool { return w.Restarts == 1 })
			s.dial("a").ask("who", "a calm") // waits in the backlog until it is up
			w := s.wrapper("a")
			if w.Listen[0] != was || !strings.Contains(w.LastError, "asked to "+how) || w.State != stateServing {
				t.Errorf("got %+v", w)
			}
			other.ask("who", "b calm")
		})
	}
}

func TestStartRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newStage(t, oneWrapper, nil)
	s.stop()
	s.configure(strings.ReplaceAll(oneWrapper, "127.0.0.1:0", taken.Addr().String()))
	if _, _, err := Start(t.Context(), s.opts); err == nil || !strings.Contains(err.Error(), `wrapper "a"`) {
		t.Errorf("a taken port: got %v", err)
	}
	lenient := s.opts
	lenient.Lenient = true
	g, _, err := Start(t.Context(), lenient)
	if err != nil {
		t.Fatal(err)
	}
	if w := g.wrapperStatus()[0]; w.State != stateNoPort || g.Ready() == nil {
		t.Errorf("lenient: got %+v", w)
	}
	if err := g.Stop(); err != nil {
		t.Error(err)
	}
	s.configure("wrapper {}")
	if _, found, err := Start(t.Context(), s.opts); !errors.Is(err, ErrConfig) || !found.HasErrors() {
		t.Errorf("a mistake: got %v, %v", err, found)
	}
	s.configure(oneWrapper)
	s.start() // nothing was left behind that keeps it from starting
}

func TestReload(t *testing.T) {
	two := oneWrapper + strings.ReplaceAll(oneWrapper, `"a"`, `"b"`)
	s := newStage(t, two, nil, "b")
	kept, changed := s.dial("a"), s.dial("b")
	kept.ask("who", "a calm")
	changed.ask("who", "b calm")

	// What changes only the mapping keeps all sessions, and holds from the next operation on.
	kept.ask(`put s/berlin/oven {"value":1}`, "ok")
	s.write("mappings.d/m.hcl", strings.Replace(stageMapping("a", "b"), `"s/`, `"t/`, 1))
	r := s.reload()
	if r.Generation != 2 || strings.Join(r.Kept, " ") != "a b" {
		t.Errorf("got %+v", r)
	}
	kept.ask(`get t/berlin/oven`, `{"value":1}`)
	changed.ask(`get t/berlin/oven`, `{"value":1}`)

	// What changes one block restarts that one, on its port.
	port := s.wrapper("b").Listen[0]
	s.configure(strings.Replace(two, `"b" {`, "\"b\" {\n  mood = \"wild\"", 1))
	r = s.reload()
	if strings.Join(r.Kept, " ") != "a" || strings.Join(r.Restarted, " ") != "b" || s.wrapper("b").Listen[0] != port {
		t.Errorf("got %+v, port %v after %s", r, s.wrapper("b").Listen, port)
	}
	kept.ask("who", "a calm")
	s.dial("b").ask("who", "b wild")
	if _, err := changed.in.ReadByte(); err != io.EOF {
		t.Errorf("a session of the old block: got %v, want the end", err)
	}

	// A block less, a block more.
	s.configure(oneWrapper + strings.ReplaceAll(oneWrapper, `"a"`, `"c"`))
	s.write("mappings.d/m.hcl", stageMapping("a", "c"))
	r = s.reload()
	if strings.Join(r.Stopped, " ") != "b" || strings.Join(r.Started, " ") != "c" {
		t.Errorf("got %+v", r)
	}
	kept.ask("who", "a calm")
	s.dial("c").ask("who", "c calm")
	if _, err := net.Dial("tcp", port); err == nil {
		t.Error("the port of a wrapper that is gone still answers")
	}
}

func TestReloadRefused(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newStage(t, oneWrapper, nil)
	p := s.dial("a")

	s.configure(oneWrapper + "wrapper \"lin\" \"b\" {}\n")
	s.write("mappings.d/m.hcl", "register {")
	found := s.refused()
	if text := found.Err().Error(); !strings.Contains(text, `did you mean "line"`) || !strings.Contains(text, "m.hcl:1") {
		t.Errorf("got %s", text)
	}
	s.write("mappings.d/m.hcl", stageMapping("a"))
	s.configure(oneWrapper + strings.NewReplacer(`"a"`, `"b"`, "127.0.0.1:0", taken.Addr().String()).Replace(oneWrapper))
	s.refused()
	s.configure(oneWrapper + "domains = [\"other\"]\n")
	s.refused()

	p.ask("who", "a calm")
	s.configure(oneWrapper)
	if r := s.reload(); r.Generation != 2 || len(r.Kept) != 1 {
		t.Errorf("got %+v", r)
	}
	if why := s.g.Status(t.Context()).ReloadError; why != "" {
		t.Errorf("reload error after a good one: %s", why)
	}
}

// Who may log on changes without touching a session.
func TestReloadUsers(t *testing.T) {
	user := func(password string) string {
		return "wrapper \"line\" \"a\" {\n  listen = \"127.0.0.1:0\"\n}\nuser \"ann\" {\n  password = \"" + password + "\"\n  as       = { line = \"anna\" }\n}\n"
	}
	s := newStage(t, user("one"), nil)
	p := s.dial("a")
	p.ask("logon anna one", "ann")
	p.ask("logon ann one", "error wrong user or password")
	s.configure(user("two"))
	s.reload()
	p.ask("logon anna one", "error wrong user or password")
	p.ask("logon anna two", "ann")
	p.ask("logon anna", "error wrong user or password")
}

func TestDaemonOfGateway(t *testing.T) {
	s := newStage(t, oneWrapper, nil)
	c, err := daemonclient.Dial(t.Context(), s.g.SocketPath())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	tapped := make(chan string, 10)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready := make(chan bool)
	go func() {
		defer close(tapped)
		first := true
		for raw, err := range c.Subscribe(ctx, "tap", "tap", map[string]any{"protocol": "daemon"}) {
			if err != nil {
				return
			}
			if first {
				close(ready)
				first = false
			}
			tapped <- string(raw)
		}
	}()
	write := func(n int) error {
		_, err := c.WriteState(t.Context(), engine.Write{
			Ops: []engine.Op{{Register: "site/a/b", Kind: engine.OpPut, Field: "value", Value: number(n)}},
			By:  engine.Cause{Principal: "somebody else", Verb: "set"},
		})
		return err
	}
	for n := 0; ; n++ { // the tap may begin after the first writes
		if err := write(n); err != nil {
			t.Fatal(err)
		}
		select {
		case <-ready:
		default:
			continue
		}
		break
	}
	if e := <-tapped; !strings.Contains(e, `"kind":"set"`) || !strings.Contains(e, `site/a/b`) {
		t.Errorf("tap: got %s", e)
	}
	for d, err := range c.History(t.Context(), engine.HistoryQuery{Register: "site/a/b", Limit: 1}) {
		if err != nil || d.Cause.Protocol != "daemon" || d.Cause.Principal == "somebody else" || d.Cause.Verb != "set" {
			t.Errorf("history: got %+v, %v", d.Cause, err)
		}
	}
	bad := engine.Write{Ops: []engine.Op{{Register: "site/a/b", Kind: engine.OpPut, Field: "valeu", Value: number(1)}}}
	if _, err := c.WriteState(t.Context(), bad); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("an undeclared field: got %v, want ErrInvalid", err)
	}
	s.configure("wrapper \"lin\" \"b\" {}\n")
	var r reloadAnswer
	if err := c.Call(t.Context(), "reload", nil, &struct {
		OK    *bool
		Error *string
		Text  *string
	}{&r.OK, &r.Error, &r.Text}); err != nil || r.OK || !strings.Contains(r.Text, "Did you mean") {
		t.Errorf("reload: got %+v, %v", r, err)
	}
	if err := c.Call(t.Context(), "retry", map[string]any{"id": "no such"}, nil); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("retry: got %v, want ErrNotFound", err)
	}
}

func TestWeb(t *testing.T) {
	s := newStage(t, oneWrapper, nil)
	s.dial("a").ask(`put s/berlin/oven {"value":21.5}`, "ok")
	get := func(path string) (int, string) {
		w := httptest.NewRecorder()
		s.g.web().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		return w.Code, w.Body.String()
	}
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 200, "/metrics": 200, "/ws": 501, "/": 404} {
		if code, body := get(path); code != want {
			t.Errorf("%s: got %d %s, want %d", path, code, body, want)
		}
	}
	_, body := get("/metrics")
	for _, want := range []string{
		`spookgw_wrapper_up{mode="virtual",protocol="line",wrapper="a"} 1`,
		`spookgw_operations_total{bind="` + s.dir + `/mappings.d/m.hcl:3",outcome="ok",verb="put",wrapper="a"} 1`, `spookgw_operation_seconds_bucket`, `spookgw_engine_registers 1`, `spookgw_config_generation 1`,
		`spookgw_build_info{version="test"} 1`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	if strings.Contains(body, "berlin") {
		t.Error("a register's name is a label: nothing bounds how many there are")
	}
	s.g.draining.Store(true)
	if code, body := get("/readyz"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("/readyz while draining: got %d %s", code, body)
	}
	s.g.draining.Store(false)
}

func TestLogSink(t *testing.T) {
	var out bytes.Buffer
	sink := newLogSink(&out, LogBlock{})
	log := slog.New(sink).With("wrapper", "a")
	log.Debug("one")
	log.Info("two", "secret", NewSecret("hunter2"))
	sink.use(LogBlock{Level: slog.LevelDebug, JSON: true})
	log.Debug("three")
	got := out.String()
	if strings.Contains(got, "one") || !strings.Contains(got, "msg=two wrapper=a secret=***") || !strings.Contains(got, `"msg":"three","wrapper":"a"`) {
		t.Errorf("got %s", got)
	}
}
