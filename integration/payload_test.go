package integration

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const payloadMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
}
register "recipe/{recipe}/{param}" {
  fields = { value = number, unit = string }
  bind "http" "/recipes/{recipe}" {
    codec = csv(";")
    each  = payload
    key   = { param = row.name }
    map   = { value = number(row.value), unit = row.unit }
  }
  bind "mqtt" "recipes/{recipe}" {
    codec     = csv(";")
    direction = "in"
    each      = payload
    key       = { param = row.name }
    map       = { value = number(row.value), unit = row.unit }
  }
}
`

// A payloadCase is a payload that is not what the mapping asks for, or only in part.
type payloadCase struct {
	name, path, topic string
	file              []byte
	header            string
	status            int    // at a virtual wrapper
	said              string // in its answer
	// becomes is what registers have then that they had not before; all others stay.
	becomes map[string]string
	parked  string // what a relay parks it for, once its server has taken it; "": it does not
	tooBig  bool   // no relay lets it pass
}

// mqtt is the version to publish with: one of MQTT 5 is told on connecting how large a packet may be, and mosquitto_pub
// then sends nothing and says nothing.
func (c *payloadCase) mqtt() string {
	if c.file != nil && len(c.file) > 16<<20 {
		return "311"
	}
	return "5"
}

func payloadCases() []payloadCase {
	deep := strings.Repeat(`{"a":`, 100) + "1" + strings.Repeat("}", 100)
	var big strings.Builder
	big.WriteString("name;value;unit\n")
	for i := 0; big.Len() < 50<<20; i++ {
		fmt.Fprintf(&big, "param-%09d;%d;a unit that makes rows long enough\n", i, i)
	}
	return []payloadCase{
		{name: "an unknown member is passed over", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(`{"value":2,"colour":"red"}`), status: 204, becomes: map[string]string{"site/a/x": `{"value":2}`}},
		{name: "null clears", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(`{"value":3,"unit":null}`), status: 204, becomes: map[string]string{"site/a/x": `{"value":3}`}},
		{name: "a wrong type", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(`{"value":"hot","unit":"F"}`), status: 422, said: `\"hot\" is a string, not a number`, parked: `"hot" is a string`},
		{name: "not an object", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(`[1,2]`), status: 422, said: "object", parked: "object"},
		{name: "cut off", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(`{"value":4,"unit":"`), status: 422, said: "JSON", parked: "JSON"},
		{name: "no UTF-8", path: "/v1/a/x", topic: "sensors/a/x", file: []byte("{\"value\":4,\"unit\":\"\xb0C\"}"), status: 422, said: "UTF-8", parked: "UTF-8"},
		{name: "100 deep", path: "/v1/a/x", topic: "sensors/a/x", file: []byte(deep), status: 422, said: "deep", parked: "deep"},
		{name: "a charset nobody knows", path: "/recipes/bread", file: []byte("name;value;unit\na;9;kg\nb;9;g\n"), header: "Content-Type: text/csv; charset=ebcdic", status: 422, said: "ebcdic", parked: "ebcdic"},
		{name: "the charset of another encoding", path: "/recipes/bread", topic: "recipes/bread", file: []byte("name;value;unit\na;9;\xb0C\nb;9;g\n"), header: "Content-Type: text/csv", status: 422, said: "UTF-8", parked: "UTF-8"},
		{name: "one row of a wrong type", path: "/recipes/bread", topic: "recipes/bread", file: []byte("name;value;unit\na;9;kg\nb;much;g\n"), header: "Content-Type: text/csv", status: 422, said: "row 2", parked: "row 2"},
		{name: "one row cut off", path: "/recipes/bread", topic: "recipes/bread", file: []byte("name;value;unit\na;9;kg\nb;7;\"g\n"), header: "Content-Type: text/csv", status: 422, said: "quote", parked: "quote"},
		{name: "50 MB", path: "/recipes/bread", topic: "recipes/bread", file: []byte(big.String()), header: "Content-Type: text/csv", status: 413, said: "body may have", tooBig: true},
		{name: "part of the rows, merged", path: "/recipes/bread", topic: "recipes/bread", file: []byte("name;value;unit\na;9;kg\nb;2;g\n"), header: "Content-Type: text/csv", status: 204, becomes: map[string]string{"recipe/bread/a": `{"unit":"kg","value":9}`}},
	}
}

// registers gives all of them as JSON, by name.
func (g *spookgw) registers() map[string]string {
	g.t.Helper()
	s := g.state()
	defer s.Close()
	out := map[string]string{}
	for st, err := range s.List(context.Background(), "", "", 0) {
		if err != nil {
			g.t.Fatal(err)
		}
		out[st.Register] = string(st.Value.AppendJSON(nil))
	}
	return out
}

func with(before, changes map[string]string) map[string]string {
	after := maps.Clone(before)
	maps.Copy(after, changes)
	return after
}

// TestPayloads: what is not what the mapping asks for is read as the documentation has it, or refused in clear words by HTTP
// and by MQTT, and nothing of it is applied.
func TestPayloads(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	g := newGateway(t, virtualWrappers, payloadMapping).start()
	begin := func() map[string]string {
		must(t, "curl", "-sf", "-X", "PUT", g.httpURL()+"/v1/a/x", "-d", `{"value":1,"unit":"C"}`)
		must(t, "curl", "-sf", "-X", "PUT", g.httpURL()+"/recipes/bread", "-H", "Content-Type: text/csv", "--data-binary", "name;value;unit\na;1;kg\nb;2;g\n")
		return g.registers()
	}
	begin()
	for _, c := range payloadCases() {
		file := filepath.Join(t.TempDir(), "payload")
		if err := os.WriteFile(file, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		before := begin()
		args := []string{"-s", "-w", " %{http_code}", "-X", "PUT", g.httpURL() + c.path, "--data-binary", "@" + file}
		if c.header != "" {
			args = append(args, "-H", c.header)
		}
		out, _, _ := run(t, "", "curl", args...)
		if !strings.HasSuffix(out, " "+strconv.Itoa(c.status)) || !strings.Contains(out, c.said) {
			t.Errorf("%s: HTTP said %q, want %d and %q", c.name, out, c.status, c.said)
		}
		if got, want := g.registers(), with(before, c.becomes); !maps.Equal(got, want) {
			t.Errorf("%s over HTTP: %v, want %v", c.name, got, want)
		}
		if c.topic == "" {
			continue
		}
		before = begin()
		_, errs, code := run(t, "", "mosquitto_pub", "-V", c.mqtt(), "-h", "127.0.0.1", "-p", strconv.Itoa(g.mqtt), "-q", "1", "-t", c.topic, "-f", file)
		if refused := code != 0 || strings.Contains(errs, "Warning"); refused != (c.status >= 400) {
			t.Errorf("%s: mosquitto_pub exit %d, said %q", c.name, code, errs)
		}
		want := with(before, c.becomes)
		if c.name == "null clears" || c.name == "an unknown member is passed over" {
			// a message is partial: what it does not mention stays
			want = with(before, map[string]string{"site/a/x": map[string]string{"null clears": `{"value":3}`, "an unknown member is passed over": `{"unit":"C","value":2}`}[c.name]})
		}
		if got := g.registers(); !maps.Equal(got, want) {
			t.Errorf("%s over MQTT: %v, want %v", c.name, got, want)
		}
	}
	// A partial payload is what it says and no more.
	before := begin()
	must(t, "curl", "-sf", "-X", "PATCH", g.httpURL()+"/v1/a/x", "-H", "Content-Type: application/merge-patch+json", "-d", `{"value":7}`)
	if got, want := g.registers(), with(before, map[string]string{"site/a/x": `{"unit":"C","value":7}`}); !maps.Equal(got, want) {
		t.Errorf("a merge: %v, want %v", got, want)
	}
}

// TestPayloadsThroughRelays: the server takes what it likes. What the mapping can't read of it is parked with the reason,
// no register is touched, and what is too large does not reach the server.
func TestPayloadsThroughRelays(t *testing.T) {
	peer(t, "mosquitto_pub", "mosquitto")
	peer(t, "curl", "curl")
	p := newPlant(t, true)
	p.mapping(payloadMapping)
	p.start()
	must(t, "curl", "-sf", "-X", "PUT", p.httpURL()+"/v1/a/x", "-d", `{"value":1,"unit":"C"}`)
	must(t, "curl", "-sf", "-X", "PUT", p.httpURL()+"/recipes/bread", "-H", "Content-Type: text/csv", "--data-binary", "name;value;unit\na;1;kg\nb;2;g\n")
	p.settled(t)
	parked := func(reason string) func() bool {
		return func() bool {
			return strings.Contains(p.cli("parked", "--json"), strings.ReplaceAll(reason, `"`, `\"`))
		}
	}
	for _, c := range payloadCases() {
		if c.parked == "" && !c.tooBig {
			continue
		}
		file := filepath.Join(t.TempDir(), "payload")
		if err := os.WriteFile(file, c.file, 0o600); err != nil {
			t.Fatal(err)
		}
		before, wrote := p.registers(), len(p.http.wrote(c.path))
		args := []string{"-s", "-w", " %{http_code}", "-X", "PUT", p.httpURL() + c.path, "--data-binary", "@" + file}
		if c.header != "" {
			args = append(args, "-H", c.header)
		}
		out, _, _ := run(t, "", "curl", args...)
		took := len(p.http.wrote(c.path)) - wrote
		if c.tooBig {
			if !strings.Contains(out, "413") || took != 0 {
				t.Errorf("%s: the relay said %q, and the server took %d", c.name, out, took)
			}
		} else {
			if took != 1 || !strings.Contains(out, " 20") {
				t.Errorf("%s: the relay said %q, and the server took %d", c.name, out, took)
			}
			eventually(t, c.name+": parked for "+c.parked, parked(c.parked))
		}
		if got := p.registers(); !maps.Equal(got, before) {
			t.Errorf("%s: %v, want %v", c.name, got, before)
		}
		if c.topic == "" {
			continue
		}
		_, errs, code := run(t, "", "mosquitto_pub", "-V", c.mqtt(), "-h", "127.0.0.1", "-p", strconv.Itoa(p.mqtt), "-q", "1", "-t", c.topic, "-f", file)
		if refused := code != 0 || strings.Contains(errs, "Warning"); refused != c.tooBig {
			t.Errorf("%s: mosquitto_pub through the relay: exit %d, %q", c.name, code, errs)
		}
		p.settled(t)
		if got := p.registers(); !maps.Equal(got, before) {
			t.Errorf("%s over MQTT: %v, want %v", c.name, got, before)
		}
	}
}
