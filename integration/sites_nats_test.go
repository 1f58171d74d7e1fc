package integration

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A natsHub is a NATS server of its own process, at one address for as long as the test lasts.
type natsHub struct {
	t    testing.TB
	dir  string
	port int
	run  func(h *natsHub) *exec.Cmd
	*process
}

func (h *natsHub) start() {
	h.t.Helper()
	if h.process != nil {
		h.past = true
	}
	h.process = startProcess(h.t, "hub", h.run(h))
	waitForPort(h.t, loopback(h.port), h.process)
}

// wipe takes its disk away.
func (h *natsHub) wipe() {
	h.t.Helper()
	h.kill()
	if err := os.RemoveAll(h.dir); err != nil {
		h.t.Fatal(err)
	}
	h.start()
}

func waitForPort(t testing.TB, addr string, p *process) {
	t.Helper()
	if !within(patience, func() bool {
		select {
		case <-p.done:
			t.Fatalf("%s ended: %v", p.name, p.err)
		default:
		}
		c, err := net.Dial("tcp", addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}) {
		t.Fatalf("%s does not listen at %s", p.name, addr)
	}
}

// spookgwNATS is `spookgw nats`, natsServer the distribution's nats-server.
func spookgwNATS(t testing.TB) func(h *natsHub) *exec.Cmd {
	bin := program(t)
	return func(h *natsHub) *exec.Cmd {
		return exec.Command(bin, "nats", "--data", h.dir, "--listen", loopback(h.port))
	}
}

func natsServer(t testing.TB) func(h *natsHub) *exec.Cmd {
	t.Helper()
	bin := peer(t, "nats-server", "nats-server")
	return func(h *natsHub) *exec.Cmd {
		return exec.Command(bin, "-a", "127.0.0.1", "-p", fmt.Sprint(h.port), "-js", "-sd", h.dir)
	}
}

func newHub(t testing.TB, run func(h *natsHub) *exec.Cmd) *natsHub {
	t.Helper()
	h := &natsHub{t: t, dir: filepath.Join(t.TempDir(), "hub"), port: freePort(t), run: run}
	h.start()
	return h
}

// newMembers makes gateways of one domain on a hub.
func newMembers(t testing.TB, h *natsHub, n int) (list []*spookgw) {
	t.Helper()
	for i := range n {
		g := newGateway(t, virtualWrappers+fmt.Sprintf("\nsites {\n  name = \"gw-%c\"\n}\ndomain \"local\" {\n  nats = [\"nats://127.0.0.1:%d\"]\n}\n", 'a'+i, h.port), sensorMapping)
		g.start()
		list = append(list, g)
	}
	return list
}

// meet waits until all hold the same, and know of each other that they do.
func meet(t testing.TB, what string, list ...*spookgw) {
	t.Helper()
	var all []sitesOf
	if !within(patience, func() bool {
		all = nil
		for _, g := range list {
			s := g.sites()
			all = append(all, s)
			if s.Root != all[0].Root {
				return false
			}
			level := 0
			for _, m := range s.Sites {
				if m.State == "entangled" && m.Root == s.Root && m.LacksHere == 0 && m.LacksThere == 0 {
					level++
				}
			}
			if level < len(list)-1 {
				return false
			}
		}
		return true
	}) {
		t.Fatalf("%s: they don't agree:\n%+v", what, all)
	}
}

func (g *spookgw) putSensor(name string, value int) {
	g.t.Helper()
	if status, _, body := request(g.t, oneShot, "PUT", g.httpURL()+"/v1/"+name, fmt.Sprintf(`{"value":%d}`, value)); status/100 != 2 {
		g.t.Fatalf("PUT %s: %d %s", name, status, body)
	}
}

// TestSitesNATS: five gateways on a hub, of which any is killed at any time, and the hub too, which then loses its disk.
// Nothing that was acknowledged is lost, and no command is needed.
func TestSitesNATS(t *testing.T) {
	dice := diceOf(t)
	h := newHub(t, spookgwNATS(t))
	list := newMembers(t, h, 5)
	meet(t, "at first", list...)
	owed := map[string]string{}
	n := 0
	for round := range rounds(t, 4) {
		for range 25 {
			n++
			g := list[dice.IntN(len(list))]
			name := fmt.Sprintf("own/%d", n)
			g.putSensor(name, n)
			owed[name] = fmt.Sprintf(`{"value":%d}`, n)
			g.putSensor(fmt.Sprintf("shared/%d", dice.IntN(5)), n)
			switch dice.IntN(25) {
			case 0:
				g.kill()
				g.start()
			case 1:
				h.kill()
				h.start()
			}
		}
		list[round%len(list)].kill()
		switch round % 3 {
		case 0:
			h.kill()
			h.start()
		case 1:
			h.wipe()
		}
		list[round%len(list)].start()
		meet(t, fmt.Sprintf("round %d", round), list...)
		for name, want := range owed {
			for i, g := range list {
				if got := g.read("site/" + name); got != want {
					t.Fatalf("round %d: gateway %d has %q as %q, want %q", round, i, name, got, want)
				}
			}
		}
		clear(owed)
	}
	if out, errs, code := list[0].try("verify", "gw-b", "gw-e"); code != 0 || strings.Count(out, "equal") != 2 {
		t.Fatalf("verify: exit %d\n%s%s", code, out, errs)
	}
	if out := list[0].cli("sites"); !strings.Contains(out, "hub\t") && !strings.Contains(out, "hub ") || !strings.Contains(out, "gw-e") {
		t.Errorf("sites says:\n%s", out)
	}
}

// TestSitesNATSClone: a copy of a data directory is refused, and both are told.
func TestSitesNATSClone(t *testing.T) {
	h := newHub(t, spookgwNATS(t))
	list := newMembers(t, h, 2)
	list[0].putSensor("own/a", 1)
	meet(t, "at first", list...)
	list[0].stop(t)
	clone := newGateway(t, list[0].wrappers, sensorMapping)
	if err := os.CopyFS(clone.data, os.DirFS(list[0].data)); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(filepath.Join(clone.data, "LOCK"))
	list[0].start()
	meet(t, "started again", list...)
	clone.start()
	told := func(g *spookgw) bool { return strings.Contains(g.cli("status", "--json"), `"clone"`) }
	eventually(t, "both are told", func() bool { return told(clone) && told(list[0]) })
	list[0].putSensor("own/a", 2)
	eventually(t, "the first goes on", func() bool { return list[1].read("site/own/a") == `{"value":2}` })
	var s struct {
		Hub struct {
			State     string `json:"state"`
			LastError string `json:"last_error"`
		} `json:"hub"`
	}
	eventually(t, "the clone says why it is not at the hub", func() bool {
		err := json.Unmarshal([]byte(clone.cli("sites", "--json")), &s)
		return err == nil && s.Hub.State == "decohered" && strings.Contains(s.Hub.LastError, "twice")
	})
}

// TestSitesNATSServer: the distribution's nats-server is a hub as well.
func TestSitesNATSServer(t *testing.T) {
	h := newHub(t, natsServer(t))
	list := newMembers(t, h, 2)
	list[0].putSensor("own/a", 1)
	meet(t, "at first", list...)
	h.kill()
	list[0].putSensor("own/a", 2)
	list[1].putSensor("own/b", 3)
	h.start()
	meet(t, "after a restart", list...)
	h.wipe()
	list[1].putSensor("own/c", 4)
	meet(t, "after its disk was lost", list...)
	if got := list[0].read("site/own/c"); got != `{"value":4}` {
		t.Errorf("c is %q", got)
	}
}
