package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	pairlink "github.com/spooksystems/gateway/engine/link"
)

// putAt writes by HTTP; it must be acknowledged.
func (g *spookgw) putAt(name string, value int) {
	g.t.Helper()
	if status, _, body := request(g.t, oneShot, "PUT", g.httpURL()+"/v1/"+name, fmt.Sprintf(`{"value":%d}`, value)); status/100 != 2 {
		g.t.Fatalf("PUT %s: %d %s", name, status, body)
	}
}

// finds waits until the gateway has a finding of a code, and gives its text.
func (g *spookgw) finds(code string) (text string) {
	g.t.Helper()
	eventually(g.t, "a finding "+code, func() bool {
		s := g.state()
		defer s.Close()
		st, err := s.Status(g.t.Context())
		if err != nil {
			return false
		}
		for _, f := range st.Findings {
			if f.Code == code {
				text = f.Text
			}
		}
		return text != ""
	})
	return text
}

// TestSitesRestored: one side is put back to a backup. It gets back from the other what it had told it since, nothing that
// the other has is lost, and what it writes afterwards is taken for new.
func TestSitesRestored(t *testing.T) {
	a, b, line := newSites(t, [2]string{virtualWrappers, virtualWrappers}, sensorMapping)
	agree(t, a, b)
	b.putAt("old/1", 1)
	b.putAt("old/2", 2)
	backup := filepath.Join(t.TempDir(), "backup")
	b.cli("backup", backup)
	// After the backup: told, deleted, and overwritten by the other.
	for i := range 20 {
		b.putAt(fmt.Sprintf("since/%d", i), 100+i)
	}
	if status, _, _ := request(t, oneShot, "DELETE", b.httpURL()+"/v1/old/1", ""); status/100 != 2 {
		t.Fatalf("DELETE: %d", status)
	}
	agree(t, a, b)
	a.putAt("old/2", 3)
	agree(t, a, b)
	line.set(true)
	b.kill()
	a.putAt("since/0", 200)
	a.putAt("away/1", 201)
	b.data = filepath.Join(t.TempDir(), "restored")
	must(t, plainProgram(t), "restore", backup, "--data", b.data)
	b.configure(b.wrappers)
	b.start()
	b.putAt("after/1", 300) // under numbers that nobody has used
	b.putAt("since/5", 301) // which it does not know it had
	line.set(false)
	agree(t, a, b)
	for name, want := range map[string]string{
		"old/1": "", "old/2": `{"value":3}`, "since/0": `{"value":200}`, "since/7": `{"value":107}`, "since/19": `{"value":119}`, "away/1": `{"value":201}`,
		"after/1": `{"value":300}`, "since/5": `{"value":301}`,
	} {
		for i, g := range []*spookgw{a, b} {
			if got := g.read("site/" + name); got != want {
				t.Errorf("site %d has %s as %q, want %q", i, name, got, want)
			}
		}
	}
	b.putAt("after/2", 302)
	agree(t, a, b)
	if got := a.read("site/after/2"); got != `{"value":302}` {
		t.Errorf("what the restored side writes comes as %q", got)
	}
}

// TestSitesClone: a copy of a data directory is started beside the original. It is sent away, all three say so, and the
// original goes on.
func TestSitesClone(t *testing.T) {
	a, b, _ := newSites(t, [2]string{virtualWrappers, virtualWrappers}, sensorMapping)
	agree(t, a, b)
	b.putAt("x/1", 1)
	agree(t, a, b)
	b.kill()
	clone := newGateway(t, virtualWrappers, sensorMapping)
	if err := os.CopyFS(clone.data, os.DirFS(b.data)); err != nil {
		t.Fatal(err)
	}
	b.start()
	agree(t, a, b)
	clone.start()
	clone.putAt("clone/1", 7)
	for i, g := range []*spookgw{a, b, clone} {
		if text := g.finds("clone"); !strings.Contains(text, "runs twice") {
			t.Errorf("gateway %d says %q", i, text)
		}
	}
	if out := a.cli("status"); !strings.Contains(out, "clone") {
		t.Errorf("status says nothing of it:\n%s", out)
	}
	b.putAt("x/2", 2)
	agree(t, a, b)
	if got := a.read("site/clone/1"); got != "" {
		t.Errorf("what the clone wrote has come: %s", got)
	}
	clone.stop(t)
	b.putAt("x/3", 3)
	agree(t, a, b)
}

// A simMember is a node of the domain in this process, whose clock is the test's.
type simMember struct {
	t    *testing.T
	e    *engine.Engine
	site *pairlink.Site
}

func newSimMember(t *testing.T, now func() time.Time, invitation string) *simMember {
	t.Helper()
	m := &simMember{t: t}
	var err error
	if m.e, err = engine.Open(engine.Options{Dir: filepath.Join(t.TempDir(), "member"), Now: now}); err != nil {
		t.Fatal(err)
	}
	if m.site, err = pairlink.Open(pairlink.Options{Engine: m.e, Domain: "local", Now: now}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.site.Close(); err != nil {
			t.Error(err)
		}
		if err := m.e.Close(); err != nil {
			t.Error(err)
		}
	})
	i, err := pairlink.ParseInvitation(invitation)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.site.Accept(t.Context(), i, "a"); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *simMember) put(register string, value int64) {
	m.t.Helper()
	if _, err := m.e.WriteState(m.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Field: "value", Value: lattice.Int(value)}}}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *simMember) level(g *spookgw) {
	m.t.Helper()
	eventually(m.t, "equal hashes", func() bool {
		own, err := m.e.Summary(m.t.Context())
		if err != nil {
			m.t.Fatal(err)
		}
		return fmt.Sprintf("%x", own.Root) == g.sites().Root
	})
}

// TestSitesClock: members whose clocks are ten years ahead, ten years behind, or jump: they can't win over who saw their
// value, can't hold up the others or set their clocks wrong, and are named.
func TestSitesClock(t *testing.T) {
	for _, test := range []struct {
		name string
		off  time.Duration
	}{{"ten years ahead", 10 * 365 * 24 * time.Hour}, {"ten years behind", -10 * 365 * 24 * time.Hour}} {
		t.Run(test.name, func(t *testing.T) {
			door := freePort(t)
			g := newGateway(t, virtualWrappers+fmt.Sprintf("\nsites {\n  listen = \"127.0.0.1:%d\"\n}\n", door), sensorMapping)
			g.start()
			// An invitation is checked by the clock of who accepts it; with that of a wrong one in front of its expiry.
			var jump atomic.Int64 // nanoseconds
			out := strings.Fields(g.cli("pair", "offer", "--name", "m"))
			m := newSimMember(t, func() time.Time { return time.Now().Add(time.Duration(jump.Load())) }, out[len(out)-1])
			m.level(g)
			jump.Store(int64(test.off))
			m.put("site/x/1", 1)
			m.put("site/x/2", 1)
			m.level(g)
			if got := g.read("site/x/1"); got != `{"value":1}` {
				t.Fatalf("what it writes comes as %q", got)
			}
			// Who saw it wins, on both sides, and again.
			for n := 2; n <= 4; n++ {
				g.putAt("x/1", n)
				m.level(g)
				if b, err := m.e.ReadState(t.Context(), "site/x/1"); err != nil || string(b.Value.AppendJSON(nil)) != fmt.Sprintf(`{"value":%d}`, n) {
					t.Fatalf("the member has %s, %v", b.Value, err)
				}
				if got := g.read("site/x/1"); got != fmt.Sprintf(`{"value":%d}`, n) {
					t.Fatalf("the gateway has %s", got)
				}
			}
			// Deleted by who saw it: gone.
			if status, _, _ := request(t, oneShot, "DELETE", g.httpURL()+"/v1/x/2", ""); status/100 != 2 {
				t.Fatalf("DELETE: %d", status)
			}
			m.level(g)
			if b, err := m.e.ReadState(t.Context(), "site/x/2"); err != nil || b.Exists {
				t.Errorf("the member has %v, %v", b, err)
			}
			// Our own stamps stay at the wall, a minute ahead at most.
			g.putAt("x/3", 1)
			if d := g.history("site/x/3"); len(d) != 1 || time.Until(d[0].After.Time.Time()) > 61*time.Second || time.Since(d[0].After.Time.Time()) > time.Minute {
				t.Errorf("a write of now is stamped %v", d)
			}
			if test.off > 0 {
				if text := g.finds("clock"); text == "" {
					t.Error("nobody says that its clock is wrong")
				}
			}
			// It goes on after its clock is put right.
			jump.Store(0)
			m.put("site/x/4", 4)
			m.level(g)
			if got := g.read("site/x/4"); got != `{"value":4}` {
				t.Errorf("after its clock was put right: %q", got)
			}
		})
	}
}
