package integration

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// rulesGateway serves the shipped mappings/rules.hcl over HTTP and MQTT.
func rulesGateway(t *testing.T) *spookgw {
	t.Helper()
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	mapping, err := os.ReadFile(filepath.Join("..", "mappings.d", "rules.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	return newGateway(t, `
wrapper "http" "http" {
  listen    = "127.0.0.1:$http"
  anonymous = "write"
}
wrapper "mqtt" "mqtt" {
  listen    = "127.0.0.1:$mqtt"
  anonymous = "write"
}`, string(mapping)).start()
}

// TestRulesThroughRealClients has two curl writers and mosquitto_pub write to a register of each rule, reads what became,
// and holds `spookgw explain` to its story.
func TestRulesThroughRealClients(t *testing.T) {
	g := rulesGateway(t)
	put := func(path, body string, want int) {
		t.Helper()
		out := must(t, "curl", "-s", "-o", os.DevNull, "-w", "%{http_code}", "-X", "PUT", g.httpURL()+path, "-d", body)
		if out != strconv.Itoa(want) {
			t.Errorf("PUT %s %s: got %s, want %d", path, body, out, want)
		}
	}
	post := func(path, body string) {
		t.Helper()
		if out := must(t, "curl", "-s", "-o", os.DevNull, "-w", "%{http_code}", "-X", "POST", g.httpURL()+path, "-d", body); out[0] != '2' {
			t.Errorf("POST %s %s: got %s", path, body, out)
		}
	}
	pub := func(topic, body string) {
		t.Helper()
		must(t, "mosquitto_pub", "-p", strconv.Itoa(g.mqtt), "-q", "1", "-t", topic, "-m", body)
	}
	get := func(path, want string) {
		t.Helper()
		if got := must(t, "curl", "-s", g.httpURL()+path); got != want {
			t.Errorf("GET %s: got %s, want %s", path, got, want)
		}
	}
	explain := func(register string, want ...string) {
		t.Helper()
		story := g.cli("explain", register)
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(story) {
				t.Errorf("explain %s does not say %q:\n%s", register, w, story)
			}
		}
	}

	put("/v1/peak/m1", `{"value":7}`, 201)
	put("/v1/peak/m1", `{"value":6}`, 204)
	pub("peak/m1", `{"value":9}`)
	pub("peak/m1", `{"value":3}`)
	get("/v1/peak/m1", `{"value":9}`)
	explain("peak/m1", `max\(number\)`, `highest`, `mqtt/mqtt .*plant.hcl:\d+`)

	put("/v1/stock/bolts", `{"value":10}`, 201)
	put("/v1/stock/bolts", `{"value":12}`, 204)
	post("/v1/stock/bolts/add", `{"add":5}`)
	pub("stock/bolts/add", `{"add":-2}`)
	get("/v1/stock/bolts", `{"value":15}`)
	pub("scale/bolts", "100") // a scale that only reports: its first reading counts
	pub("scale/bolts", "103")
	pub("scale/bolts", "2") // a new one
	get("/v1/stock/bolts", `{"value":120}`)
	explain("stock/bolts", `120 by sum\(number\)`, `total`)

	put("/v1/tags/d1", `{"value":["red","big"]}`, 201)
	pub("tags/d1/add", "round")
	put("/v1/tags/d1", `{"value":["red","round"]}`, 204)
	get("/v1/tags/d1", `{"value":["red","round"]}`)
	explain("tags/d1", `by union`, `"round" .*mqtt/mqtt`, `"red" .*http/http`)

	put("/v1/title/d1", `{"value":"Ovens"}`, 202)
	put("/v1/title/d1", `{"value":"Stoves"}`, 202)
	pub("title/d1", `{"value":"Kilns"}`)
	explain("title/d1", `does not exist`, `waiting:(?s).*"Ovens".*"Stoves".*"Kilns"`)
	if got := g.cli("pending"); strings.Count(got, "value:") != 3 {
		t.Errorf("pending: got %s", got)
	}
	g.cli("collapse", "title/d1")
	get("/v1/title/d1", `{"value":["Kilns","Ovens","Stoves"]}`)
	explain("title/d1", `by ask: 3 writers did not know of each other`, `somebody has to choose`)
	put("/v1/title/d1", `{"value":["Kilns","Ovens"]}`, 422) // one has to be chosen
	put("/v1/title/d1", `{"value":"Ovens"}`, 202)
	g.cli("collapse", "title/d1")
	get("/v1/title/d1", `{"value":"Ovens"}`)

	pub("owner/pump", `{"value":"joe"}`)
	put("/v1/owner/pump", `{"value":"ann"}`, 204)
	pub("owner/pump", `{"value":"eve"}`)
	get("/v1/owner/pump", `{"value":"ann"}`)
	explain("owner/pump", `"http/\*", number 1 in the order`, `▸ "ann"`, `  "eve"`)

	put("/v1/review/d1", `{"value":"a draft"}`, 202)
	pub("review/d1", `{"value":"another"}`)
	g.cli("collapse", "review/d1")
	get("/v1/review/d1", `{"value":"another"}`)
	put("/v1/review/d1", `{"value":"a third"}`, 202)
	get("/v1/review/d1", `{"value":"another"}`)
	explain("review/d1", `waiting:(?s).*"another" -> "a third"`)

	put("/v1/claim/4a", `{"value":"ann"}`, 201)
	pub("claim/4a", `{"value":"joe"}`)
	get("/v1/claim/4a", `{"value":"ann"}`)
	explain("claim/4a", `by first: it was written first`)

	// The past, and back to it through every protocol.
	ordinal := regexp.MustCompile(`(?m)^\S+ \S+  [0-9a-f]+\.(\d+) .*value: 7 -> 9`).FindStringSubmatch(g.cli("history", "peak/m1"))
	if ordinal == nil {
		t.Fatalf("history: got %s", g.cli("history", "peak/m1"))
	}
	n, _ := strconv.Atoi(ordinal[1])
	if got := g.cli("history", "peak/m1", "--at", strconv.Itoa(n-1)); !strings.Contains(got, `{"value":7}`) {
		t.Errorf("history --at: got %s", got)
	}
	g.cli("revert", "peak/m1", "--to", strconv.Itoa(n-1))
	get("/v1/peak/m1", `{"value":7}`)
	if got := must(t, "mosquitto_sub", "-p", strconv.Itoa(g.mqtt), "-C", "1", "-W", "10", "-t", "peak/m1"); strings.TrimSpace(got) != `{"value":7}` {
		t.Errorf("reverted, over MQTT: got %s", got)
	}

	// All of it outlives a kill.
	g.kill()
	g.start()
	get("/v1/stock/bolts", `{"value":120}`)
	explain("review/d1", `waiting:(?s).*"another" -> "a third"`)
	put("/v1/peak/m1", `{"value":5}`, 204)
	get("/v1/peak/m1", `{"value":7}`)
}

// TestBackupAndRestore makes a backup of a gateway at work, goes on, and starts another from the backup.
func TestBackupAndRestore(t *testing.T) {
	g := rulesGateway(t)
	must(t, "curl", "-s", "-X", "PUT", g.httpURL()+"/v1/peak/m1", "-d", `{"value":7}`)
	backup := filepath.Join(g.dir, "backup")
	if out := g.cli("backup", backup); !strings.Contains(out, backup) {
		t.Errorf("backup says %s", out)
	}
	must(t, "curl", "-s", "-X", "PUT", g.httpURL()+"/v1/peak/m1", "-d", `{"value":8}`)
	g.stop(t)
	if _, errs, code := g.try("restore", filepath.Join(g.dir, "mappings.d"), "--data", filepath.Join(g.dir, "new")); code == 0 || !strings.Contains(errs, "no backup") {
		t.Errorf("restore of what is no backup: exit %d, %s", code, errs)
	}
	if _, errs, code := g.try("restore", backup, "--data", g.data); code == 0 || !strings.Contains(errs, "not empty") {
		t.Errorf("restore over data: exit %d, %s", code, errs)
	}
	g.data = filepath.Join(g.dir, "restored")
	g.cli("restore", backup, "--data", g.data)
	g.configure(g.wrappers)
	g.start()
	if got := g.read("peak/m1"); got != `{"value":7}` {
		t.Errorf("restored: got %s", got)
	}
	if got := g.cli("status"); !strings.Contains(got, "backup") || !strings.Contains(got, "new incarnation") {
		t.Errorf("status does not say that it is one:\n%s", got)
	}
}

// TestCopiedDataDirectory starts a copy of a data directory beside its original.
func TestCopiedDataDirectory(t *testing.T) {
	g := rulesGateway(t)
	must(t, "curl", "-s", "-X", "PUT", g.httpURL()+"/v1/peak/m1", "-d", `{"value":7}`)
	clone := newGateway(t, g.wrappers, "")
	mapping, err := os.ReadFile(filepath.Join(g.dir, "mappings.d", "plant.hcl"))
	if err != nil {
		t.Fatal(err)
	}
	clone.mapping(string(mapping))
	must(t, "cp", "-r", g.data, clone.data)
	if err := os.Remove(filepath.Join(clone.data, "LOCK")); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	clone.start()
	finding := func(g *spookgw) string {
		for _, line := range strings.Split(g.cli("status"), "\n") {
			if strings.Contains(line, "runs twice") {
				return line[strings.Index(line, "the endpoint"):]
			}
		}
		return ""
	}
	eventually(t, "both say that the endpoint runs twice", func() bool { return finding(g) != "" && finding(clone) != "" })
	if a, b := finding(g), finding(clone); a != b {
		t.Errorf("they don't say the same:\n%s\n%s", a, b)
	}
	// Each goes on as an origin of its own.
	must(t, "curl", "-s", "-X", "PUT", g.httpURL()+"/v1/peak/m1", "-d", `{"value":8}`)
	must(t, "curl", "-s", "-X", "PUT", clone.httpURL()+"/v1/peak/m1", "-d", `{"value":9}`)
	for g, want := range map[*spookgw]string{g: `{"value":8}`, clone: `{"value":9}`} {
		if got := g.read("peak/m1"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
