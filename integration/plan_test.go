package integration

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A plan is what `spookgw plan --json` prints of it.
type plan struct {
	Hash  string
	Binds []struct{ What, Protocol, Address string }
	Steps []struct{ Where, What, Wrapper, Address, Register, Before, After string }
	Over  []string
}

func (g *spookgw) plan(wantCode int, args ...string) (p plan) {
	g.t.Helper()
	out, errs, code := g.try(append([]string{"plan", "--json"}, args...)...)
	if code != wantCode {
		g.t.Fatalf("plan: exit %d, want %d\n%s%s", code, wantCode, out, errs)
	}
	if err := json.Unmarshal([]byte(out), &p); err != nil {
		g.t.Fatalf("plan: %v\n%s", err, out)
	}
	return p
}

// TestPlanAndApprove: what plan shows of a changed mapping is what reload then does, in front of real servers, and only
// with approval where it is much.
func TestPlanAndApprove(t *testing.T) {
	for _, tool := range []string{"mosquitto_pub", "mosquitto", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	p := newPlant(t, false)
	p.start()
	put := func(sensor, doc string) {
		t.Helper()
		if out, errs, code := run(t, "", "curl", "-sf", "-X", "PUT", p.httpURL()+"/v1/berlin/"+sensor, "-d", doc); code != 0 {
			t.Fatalf("curl: %d %s%s", code, out, errs)
		}
	}
	put("oven-1", `{"value":1,"unit":"C"}`)
	put("oven-2", `{"value":2}`)
	if out, errs, code := run(t, "", "mosquitto_pub", "-h", "127.0.0.1", "-p", portOf(p.mqttAddr()), "-q", "1", "-r", "-t", "sensors/berlin/oven-3", "-m", `{"value":3}`); code != 0 {
		t.Fatalf("mosquitto_pub: %d %s%s", code, out, errs)
	}
	p.http.becomes(t, "/v1/berlin/oven-3", `{"value":3}`)
	p.settled(t)

	if now := p.plan(0); len(now.Steps)+len(now.Binds) > 0 {
		t.Errorf("nothing has changed, and the plan is %+v", now)
	}
	changed := strings.Replace(sensorMapping, `"/v1/{site}/{sensor}" {}`, `"/v1/{site}/{sensor}" {
    map = { value = scale(payload.value, 10, 0) }
  }`, 1)
	elsewhere := filepath.Join(t.TempDir(), "new.hcl")
	writeFile(t, elsewhere, changed)
	tried := p.plan(0, elsewhere)
	p.mapping(changed)
	planned := p.plan(0)
	if tried.Hash != planned.Hash {
		t.Errorf("the plan of the file elsewhere is %s, in its place %s", tried.Hash, planned.Hash)
	}
	registers := map[string]string{}
	broker := map[string]string{}
	for _, s := range planned.Steps {
		switch s.Where + " " + s.Wrapper {
		case "register erp":
			registers[s.Register] = s.After
		case "server floor":
			broker[s.Address] = s.After
		default:
			t.Errorf("not expected: %+v", s)
		}
	}
	if len(registers) != 3 || len(broker) != 3 || len(planned.Over) == 0 {
		t.Errorf("planned %+v", planned)
	}

	// Too much to be done unasked, and not by a hash of something else.
	was := p.force()
	for _, args := range [][]string{{"reload"}, {"reload", "--approve", "012345678901"}} {
		out, errs, code := p.try(args...)
		if code != 1 || !strings.Contains(errs, "spookgw plan") {
			t.Errorf("%q: exit %d\n%s%s", args, code, out, errs)
		}
	}
	put("oven-2", `{"value":7}`)
	p.settled(t)
	if _, errs, code := p.try("reload", "--approve", planned.Hash); code != 1 || !strings.Contains(errs, "no longer "+planned.Hash) {
		t.Errorf("the state has moved since the plan: exit %d, %s", code, errs)
	}
	if now := p.force(); now != was {
		t.Errorf("in force is %s, want still %s", now, was)
	}

	planned = p.plan(0)
	for _, s := range planned.Steps {
		if s.Where == "register" {
			registers[s.Register] = s.After
		} else {
			broker[s.Address] = s.After
		}
	}
	wrote := len(p.http.wrote("/v1/berlin/oven-2"))
	p.cli("reload", "--approve", planned.Hash)
	for name, want := range registers {
		p.becomes(name, want)
	}
	p.settled(t)
	if now := p.http.wrote("/v1/berlin/oven-2"); len(now) != wrote {
		t.Errorf("written without being planned: %v", now[wrote:])
	}
	for topic, want := range broker {
		out, errs, code := run(t, "", "mosquitto_sub", "-h", "127.0.0.1", "-p", portOf(p.brokerAddr()), "-C", "1", "-W", "20", "-t", topic)
		if code != 0 || strings.TrimSpace(out) != want {
			t.Errorf("the broker has %s%s at %s, planned %s", out, errs, topic, want)
		}
	}
	if now := p.plan(0); len(now.Steps) > 0 {
		t.Errorf("afterwards there is more to do: %+v", now)
	}

	// Removed binds write nothing; what goes away for peers makes the exit code 2 at a virtual wrapper.
	p.mapping(`register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "mqtt" "sensors/{site}/{sensor}" {}
}
`)
	if now := p.plan(0); len(now.Steps) > 0 || len(now.Binds) != 1 || now.Binds[0].What != "removed" {
		t.Errorf("a bind was removed: %+v", now)
	}
	p.mapping("register {")
	if out, errs, code := p.try("plan"); code != 1 || !strings.Contains(out+errs, "plant.hcl:1") {
		t.Errorf("plan of a mistake: exit %d\n%s%s", code, out, errs)
	}
}

func portOf(addr string) string { return regexp.MustCompile(`\d+$`).FindString(addr) }
