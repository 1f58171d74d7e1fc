package integration

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
)

// force gives what tells one configuration from another in `spookgw status`.
func (g *spookgw) force() string {
	g.t.Helper()
	st := g.status()
	if st["generation"] == nil || st["hash"] == nil {
		g.t.Fatalf("status --json has no generation and hash: %v", st)
	}
	return fmt.Sprintf("%v %v", st["generation"], st["hash"])
}

// TestReloadRefused: a reload with a mistake changes nothing and says so.
func TestReloadRefused(t *testing.T) {
	standing(t, func(t *testing.T, g *spookgw) {
		g.start()
		by := startBystanders(t, g)
		was := g.force()
		good := g.wrappers
		taken, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()

		refused := func(name string, want ...string) {
			t.Helper()
			out, errs, code := g.try("reload")
			if code == 0 {
				t.Errorf("%s: reload exits 0; it said %s%s", name, out, errs)
			}
			for _, w := range want {
				if !strings.Contains(out+errs, w) {
					t.Errorf("%s: reload said\n%s%s\nwant %q in it", name, out, errs, w)
				}
			}
			if now := g.force(); now != was {
				t.Errorf("%s: in force is %s, want still %s", name, now, was)
			}
			by.goOn(3)
		}
		g.mapping(strings.Replace(sensorMapping, "number", "nubmer", 1))
		refused("misspelt type", "plant.hcl:3", `Did you mean "number"`)
		g.mapping("register {")
		refused("broken syntax", "plant.hcl:1")
		g.mapping(sensorMapping)

		g.configure(strings.Replace(good, `wrapper "mqtt"`, `wrapper "mqqt"`, 1))
		refused("misspelt protocol", "gateway.hcl:", `Did you mean "mqtt"`)
		g.configure(good + fmt.Sprintf("wrapper \"http\" \"second\" {\n  listen    = %q\n  anonymous = \"read\"\n}\n", taken.Addr()))
		g.mapping(strings.Replace(sensorMapping, `"/v1/{site}/{sensor}" {}`, `"/v1/{site}/{sensor}" { wrapper = ["second"] }`, 1))
		refused("a port that is taken", taken.Addr().String())
		g.configure(good)
		g.mapping(sensorMapping)

		// SIGHUP has nobody to answer to but the log.
		g.mapping(strings.Replace(sensorMapping, "number", "nubmer", 1))
		g.cmd.Process.Signal(syscall.SIGHUP)
		g.saysText(t, "nubmer")
		if now := g.force(); now != was {
			t.Errorf("SIGHUP: in force is %s, want still %s", now, was)
		}
		by.end()
	})
}

// TestReloadUnderLoad: good reloads drop no connection and lose no operation.
func TestReloadUnderLoad(t *testing.T) {
	standing(t, func(t *testing.T, g *spookgw) {
		g.start()
		by := startBystanders(t, g)
		c := keepAlive(t)
		was := g.force()
		relay := strings.Contains(g.wrappers, "upstream")
		for n := range 10 {
			g.mapping(sensorMapping + fmt.Sprintf(`
register "extra/%[1]d/{name}" {
  fields = { value = number }
  bind "http" "/extra%[1]d/{name}" {}
  bind "mqtt" "extra%[1]d/{name}" {}
}
`, n))
			if n%2 == 0 {
				g.cli("reload")
			} else {
				g.cmd.Process.Signal(syscall.SIGHUP)
			}
			eventually(t, "the new configuration is in force", func() bool { return g.force() != was })
			was = g.force()
			// What it says is true at once.
			status, _, body := request(t, c, "PUT", fmt.Sprintf("%s/extra%d/new", g.httpURL(), n), `{"value":1}`)
			if status/100 != 2 {
				t.Errorf("PUT to an address of generation %s: got %d %s", was, status, body)
			}
			g.becomes(fmt.Sprintf("extra/%d/new", n), `{"value":1}`)
			if n > 0 && !relay {
				status, _, _ := request(t, c, "PUT", fmt.Sprintf("%s/extra%d/new", g.httpURL(), n-1), `{"value":2}`)
				if status != http.StatusNotFound {
					t.Errorf("PUT to an address of the generation before: got %d, want 404", status)
				}
			}
			by.goOn(10)
		}
		by.end()
	})
}

// TestReloadWrappers: a reload starts, moves and ends wrappers, and leaves alone those whose
// blocks are as they were.
func TestReloadWrappers(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping).start()
	by := startBystanders(t, g)
	port := freePort(t)
	second := fmt.Sprintf("wrapper \"http\" \"second\" {\n  listen    = \"127.0.0.1:%d\"\n  anonymous = \"read\"\n}\n", port)
	both := strings.Replace(sensorMapping, `"/v1/{site}/{sensor}" {}`, "\"/v1/{site}/{sensor}\" {\n  wrapper = [\"api\", \"second\"]\n}", 1)
	g.configure(virtualWrappers + second)
	g.mapping(both)
	g.cli("reload")
	url := fmt.Sprintf("http://127.0.0.1:%d/v1/by/http", port)
	if status, _, body := request(t, oneShot, "GET", url, ""); status != http.StatusOK {
		t.Errorf("GET at the new wrapper: got %d %s", status, body)
	}
	if status, _, body := request(t, oneShot, "PUT", url, `{"value":0}`); status != http.StatusUnauthorized && status != http.StatusForbidden {
		t.Errorf("PUT at a wrapper for reading: got %d %s", status, body)
	}
	g.configure(virtualWrappers)
	g.mapping(sensorMapping)
	g.cli("reload")
	eventually(t, "the port is closed", func() bool {
		c, err := net.Dial("tcp", loopback(port))
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	by.end()
}

// TestRestartUnderLoad: SIGTERM finishes what is in flight; what was acknowledged is there after
// the next start, and no client sees a cut answer.
func TestRestartUnderLoad(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping).start()
	for round := range 3 {
		l := &ledger{register: fmt.Sprintf("site/restart/h%d", round)}
		stopped := make(chan struct{})
		failed := make(chan error, 1)
		go func() {
			defer close(stopped)
			c := keepAlive(t)
			for {
				v := l.next()
				status, _, body, err := tryRequest(t.Context(), c, "PUT", fmt.Sprintf("%s/v1/restart/h%d", g.httpURL(), round), fmt.Sprintf(`{"value":%d}`, v))
				switch {
				case err != nil:
					return // refused, or the idle connection was closed between two requests
				case status/100 == 2:
					l.acked[v-1] = true
				case status == http.StatusServiceUnavailable:
					return
				default:
					failed <- fmt.Errorf("PUT %d: %d %s", v, status, body)
					return
				}
				if v == 50 {
					g.cmd.Process.Signal(syscall.SIGTERM)
				}
			}
		}()
		if !arrives(stopped) {
			t.Fatal("the client did not end")
		}
		g.wait(t)
		if g.err != nil {
			t.Fatalf("SIGTERM: spookgw ended with %v", g.err)
		}
		select {
		case err := <-failed:
			t.Error(err)
		default:
		}
		g.start()
		acked := 0
		for _, ok := range l.acked {
			if ok {
				acked++
			}
		}
		// The last request may have been done although its answer did not arrive.
		if got := len(g.history(l.register)); got != acked && got != acked+1 || acked < 50 {
			t.Errorf("round %d: %d history entries for %d acknowledged writes", round, got, acked)
		}
	}
}
