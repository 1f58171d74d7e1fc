package integration

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// A plan is what `spookgw plan --json` prints of it.
type plan struct {
	Hash  string
	Binds []struct{ What, Protocol, Address string }
	Steps []struct{ Where, What, Wrapper, Address, Register, Before, After, Note string }
	Over  []string

	Operations []struct{ What, Wrapper, Address, Before, After, Note string }
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
    map        = { value = scale(payload.value, 10, 0) }
    max_change = 2
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

// TestPlanOfRecordedTraffic: what clients do is recorded, a mapping is changed, and plan shows which operations would mean
// something else, and each address at which something else is answered: after the reload that is so, and nothing else.
func TestPlanOfRecordedTraffic(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	g := newGateway(t, virtualWrappers, payloadMapping).start()
	rec, file := startRecord(t, g)
	const csv = "name;value;unit\na;1;kg\nb;2;g\n"
	for i := range 3 {
		must(t, "curl", "-sf", "-X", "PUT", fmt.Sprintf("%s/v1/berlin/oven-%d", g.httpURL(), i), "-d", fmt.Sprintf(`{"value":%d,"unit":"C"}`, i))
		must(t, "mosquitto_pub", "-p", strconv.Itoa(g.mqtt), "-q", "1", "-t", fmt.Sprintf("sensors/paris/oven-%d", i), "-m", fmt.Sprintf(`{"value":%d}`, i))
	}
	must(t, "curl", "-sf", "-X", "PUT", g.httpURL()+"/recipes/bread", "-H", "Content-Type: text/csv", "--data-binary", csv)
	recorded(t, file, 7)
	rec.cmd.Process.Signal(os.Interrupt)
	rec.wait(t)

	if now := g.plan(0, "--recorded", file); len(now.Steps)+len(now.Operations) > 0 {
		t.Errorf("nothing has changed, and the plan is %+v", now)
	}
	changed := strings.Replace(payloadMapping, `  bind "http" "/v1/{site}/{sensor}" {}`, `  bind "http" "/v1/{site}/{sensor}" {
    map = { value = scale(payload.v, 0.1, 0) }
  }`, 1)
	changed = strings.Replace(changed, "map   = { value = number(row.value), unit = row.unit }", "map   = { value = number(row.amount), unit = row.unit }", 1)
	addresses := []string{"/recipes/bread", "/recipes/none", "/v1/berlin/oven-9"}
	for i := range 3 {
		addresses = append(addresses, fmt.Sprintf("/v1/berlin/oven-%d", i), fmt.Sprintf("/v1/paris/oven-%d", i))
	}
	answers := func() map[string]string {
		out := map[string]string{}
		for _, a := range addresses {
			if status, _, body := request(t, oneShot, "GET", g.httpURL()+a, ""); status == 200 {
				out[a] = body
			}
		}
		return out
	}
	before, registers := answers(), g.registers()
	g.mapping(changed)
	p := g.plan(0, "--recorded", file)
	if now := answers(); !maps.Equal(now, before) {
		t.Errorf("a plan changed answers: %v, were %v", now, before)
	}
	operations := map[string]string{}
	for _, o := range p.Operations {
		operations[o.Address] = o.After
	}
	wantOps := map[string]string{"/recipes/bread": `recipe/bread/a unit="kg"; recipe/bread/b unit="g"`}
	for i := range 3 {
		wantOps[fmt.Sprintf("/v1/berlin/oven-%d", i)] = ""
	}
	for a, want := range wantOps {
		if got, ok := operations[a]; !ok || !strings.HasPrefix(got, want) {
			t.Errorf("the operation at %s would mean %q (%v), want %q", a, got, ok, want)
		}
		delete(operations, a)
	}
	if len(operations) > 0 {
		t.Errorf("operations that mean what they meant: %v", operations)
	}
	g.cli("reload", "--approve", p.Hash)
	after := answers()
	planned := maps.Clone(before)
	rows := map[string]string{}
	for _, s := range p.Steps {
		switch {
		case s.Where != "peers" || s.Wrapper != "api":
			t.Errorf("not expected: %+v", s)
		case s.Address == "/recipes/bread":
			rows[s.Register] = s.After
		case s.What == "delete":
			delete(planned, s.Address)
		default:
			planned[s.Address] = s.After
		}
	}
	if len(rows) != 2 {
		t.Errorf("rows of the plan: %q", rows)
	}
	for name, row := range rows {
		_, last, _ := strings.Cut(strings.TrimSpace(row), "\n")
		if !strings.Contains(row, "amount") || last == "" {
			t.Errorf("%s is planned as %q, which tells no row", name, row)
		}
	}
	if got := after["/recipes/bread"]; !strings.Contains(got, "amount") || got == before["/recipes/bread"] {
		t.Errorf("/recipes/bread is %q", got)
	}
	delete(after, "/recipes/bread")
	delete(planned, "/recipes/bread")
	if !maps.Equal(after, planned) {
		t.Errorf("answered after the reload: %v\nplanned: %v", after, planned)
	}
	if now := g.registers(); !maps.Equal(now, registers) {
		t.Errorf("registers are %v, were %v, and the plan had none", now, registers)
	}
}

// TestPlanOfDemo: the demo is recorded and planned for like any gateway.
func TestPlanOfDemo(t *testing.T) {
	peer(t, "curl", "curl")
	dir, err := os.MkdirTemp("", "sg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &spookgw{t: t, program: plainProgram(t), socket: filepath.Join(dir, "s")}
	demo := startProcess(t, "spookgw demo", exec.Command(g.program, "demo", "--any-port", "--socket", g.socket))
	url := ""
	demo.says(t, "where HTTP is", func(all string) bool {
		url = regexp.MustCompile(`http://127\.0\.0\.1:\d+/v1/`).FindString(all)
		return url != ""
	})
	rec, file := startRecord(t, g)
	must(t, "curl", "-sf", "-X", "PUT", url+"berlin/oven-3", "-d", `{"value":20.5}`)
	recorded(t, file, 1)
	rec.cmd.Process.Signal(os.Interrupt)
	rec.wait(t)
	mapping := filepath.Join(dir, "new.hcl")
	writeFile(t, mapping, "register \"site/{site}/{sensor}\" {\n  bind \"http\" \"/v1/{site}/{sensor}\" {\n    map = { value = payload.v }\n  }\n}\n")
	p := g.plan(2, "--recorded", file, mapping)
	found := false
	for _, s := range p.Steps {
		found = found || s.Where == "peers" && s.What == "change" && s.Address == "/v1/berlin/oven-3" && s.Before == `{"value":20.5}` && s.After == `{"v":20.5}`
	}
	if !found || len(p.Operations) != 1 {
		t.Errorf("planned %+v", p)
	}
}

func portOf(addr string) string { return regexp.MustCompile(`\d+$`).FindString(addr) }
