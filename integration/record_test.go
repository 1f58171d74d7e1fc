package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// startRecord runs `spookgw record` into a file, and returns when it records.
func startRecord(t *testing.T, g *spookgw) (p *process, file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "traffic.jsonl")
	p = startProcess(t, "spookgw record", exec.Command(g.program, "record", "--socket", g.socket, file))
	p.saysText(t, "Recording into")
	return p, file
}

// recorded waits until a file has so many operations.
func recorded(t *testing.T, file string, n int) string {
	t.Helper()
	var text string
	eventually(t, fmt.Sprintf("%d operations in the recording", n), func() bool {
		b, err := os.ReadFile(file)
		text = string(b)
		return err == nil && strings.Count(text, "\n") >= n+1
	})
	return text
}

// TestRecordReplayAndPropose: mosquitto_pub and curl write to a gateway that is recorded; the recording says the same on the mappings
// it ran with, and on those that are proposed from it.
func TestRecordReplayAndPropose(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	g := newGateway(t, `
wrapper "http" "http" {
  listen    = "127.0.0.1:$http"
  anonymous = "write"
}
wrapper "mqtt" "mqtt" {
  listen    = "127.0.0.1:$mqtt"
  anonymous = "write"
}`, sensorMapping).start()
	p, file := startRecord(t, g)
	for i := range 3 {
		must(t, "mosquitto_pub", "-p", strconv.Itoa(g.mqtt), "-q", "1", "-t", fmt.Sprintf("sensors/berlin/oven-%d", i), "-m", fmt.Sprintf(`{"value":%d.5,"unit":"C"}`, i))
		must(t, "curl", "-s", "-X", "PUT", fmt.Sprintf("%s/v1/berlin/oven-%d", g.httpURL(), i), "-d", fmt.Sprintf(`{"value":%d.5,"unit":"C"}`, i+10))
	}
	must(t, "curl", "-s", g.httpURL()+"/v1/berlin/oven-1")
	must(t, "curl", "-s", "-X", "PUT", g.httpURL()+"/v1/berlin/oven-1", "-d", `{"value":"hot"}`)
	must(t, "curl", "-s", "-u", "ann:hunter2", "-X", "PUT", g.httpURL()+"/login", "-d", `{"user":"ann","password":"hunter2"}`)
	text := recorded(t, file, 9)
	p.cmd.Process.Signal(os.Interrupt)
	p.wait(t)
	if p.err != nil {
		t.Errorf("Ctrl-C: spookgw record ended with %v", p.err)
	}
	p.saysText(t, "9 operations recorded, 1 with something masked")
	if strings.Contains(text, "hunter2") || !strings.Contains(text, `\"***\"`) {
		t.Errorf("a secret is in the recording:\n%s", text)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the recording's mode: %v, %v; want 0600", info.Mode(), err)
	}

	// The gateway is still running: replay touches nothing of it.
	out, errs, code := run(t, "", g.program, "replay", "--config", g.config(), file)
	if code != 1 || !strings.Contains(errs, "9 operations, 6 mapped, 1 answered, 1 unmapped, 1 refused; 3 registers") {
		t.Errorf("replay: exit %d\n%s%s", code, out, errs)
	}
	for _, want := range []string{
		`site/berlin/oven-2 = {"unit":"C","value":2.5}`, `told http /v1/berlin/oven-2  {"unit":"C","value":2.5}`, `told mqtt sensors/berlin/oven-2  {"unit":"C","value":12.5}`,
		`put      /v1/berlin/oven-1  refused: value: "hot" is a string, not a number`, `put      /login  unmapped`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("replay does not say %q:\n%s", want, out)
		}
	}

	dir := t.TempDir()
	must(t, g.program, "init", "--from-traffic", file, dir)
	config := filepath.Join(dir, "gateway.hcl")
	must(t, g.program, "validate", config)
	proposal, err := os.ReadFile(filepath.Join(dir, "mappings.d", "traffic.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(proposal); !strings.Contains(s, `bind "mqtt" "sensors/berlin/{oven}"`) || !strings.Contains(s, `bind "http" "/v1/berlin/{oven}"`) || strings.Contains(s, "hunter2") || !strings.Contains(s, "value = number") {
		t.Errorf("the proposal is\n%s", s)
	}
	out, errs, code = run(t, "", g.program, "replay", "--config", config, file)
	if code != 1 || !strings.Contains(errs, "9 operations, 7 mapped, 1 answered, 1 refused;") { // the hot one is refused again
		t.Errorf("replay on the proposal: exit %d\n%s%s%s", code, out, errs, proposal)
	}
}

// TestRecordThroughRelays: in front of a broker and a server, also what no bind maps is recorded whole, and passes.
func TestRecordThroughRelays(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	p := newPlant(t, true)
	p.start()
	rec, file := startRecord(t, p.spookgw)
	must(t, "mosquitto_pub", p.pub("-p", strconv.Itoa(p.mqtt), "-t", "sensors/berlin/oven", "-m", `{"value":1}`)...)
	must(t, "mosquitto_pub", p.pub("-p", strconv.Itoa(p.mqtt), "-t", "other/pump-1", "-m", `{"speed":1200,"token":"abc"}`)...)
	must(t, "mosquitto_pub", p.pub("-p", strconv.Itoa(p.mqtt), "-t", "other/pump-2", "-m", `{"speed":1300}`)...)
	must(t, "curl", "-s", "-X", "PUT", p.httpURL()+"/free/7", "-H", "Content-Type: application/json", "-d", `{"a":1}`)
	must(t, "curl", "-s", "-X", "PUT", p.httpURL()+"/v1/berlin/oven", "-H", "Content-Type: application/json", "-d", `{"value":2}`)
	wants := []string{
		`"address":"sensors/berlin/oven"`, `"address":"other/pump-1","text":"{\"speed\":1200,\"token\":\"***\"}"`, `"address":"other/pump-2"`,
		`"address":"/free/7","text":"{\"a\":1}"`, `"address":"/v1/berlin/oven","text":"{\"value\":2}"`, `"registers":["site/berlin/oven"]`, `"outcome":"passed"`,
	}
	text := ""
	within(patience, func() bool {
		b, err := os.ReadFile(file)
		text = string(b)
		return err == nil && !slices.ContainsFunc(wants, func(want string) bool { return !strings.Contains(text, want) })
	})
	rec.cmd.Process.Signal(os.Interrupt)
	rec.wait(t)
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("the recording has no %s:\n%s", want, text)
		}
	}
	// What the mapping has not is proposed beside it.
	out := must(t, p.program, "init", "--from-traffic", file, p.dir)
	if strings.Contains(out, "gateway.hcl") {
		t.Errorf("init wrote %s", out)
	}
	proposal, err := os.ReadFile(filepath.Join(p.dir, "mappings.d", "traffic.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	if s := string(proposal); !strings.Contains(s, `bind "mqtt" "other/{pump}"`) || !strings.Contains(s, `bind "http" "/free/{free}"`) || strings.Contains(s, "sensors/") {
		t.Errorf("the proposal is\n%s", s)
	}
	p.settled(t)
	must(t, p.program, "reload", "--socket", p.socket)
}
