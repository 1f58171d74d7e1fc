package propose

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/mqtt"
	"github.com/spooksystems/gateway/wrappers/sql"
)

var protocols = []wrappers.Protocol{http.Protocol, mqtt.Protocol, sql.Protocol}

// traffic reads operations in short: a line is "protocol verb address [payload]", a payload in quotes is a JSON text.
func traffic(t testing.TB, lines string) []recording.Operation {
	t.Helper()
	var out []recording.Operation
	for line := range strings.Lines(lines) {
		f := strings.SplitN(strings.TrimSpace(line), " ", 4)
		if len(f) < 3 {
			continue
		}
		var raw []byte
		if len(f) == 4 {
			raw = []byte(f[3])
			if strings.HasPrefix(f[3], `"`) {
				var s string
				if err := json.Unmarshal(raw, &s); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				raw = []byte(s)
			}
		}
		kind := ""
		if f[0] == "sql" && raw != nil { // a row travels as CBOR
			var row map[string]any
			err := json.Unmarshal(raw, &row)
			if err == nil {
				raw, err = cbor.Marshal(row)
			}
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			kind = "application/cbor"
		}
		o := recording.Of(&wrappers.Operation{Address: f[2], Payload: wrappers.Payload{Raw: raw, Type: kind}})
		o.Verb, o.Kind, o.Protocol, o.Wrapper = f[1], recording.Passed, f[0], f[0]
		if name, wrapper, ok := strings.Cut(f[0], "/"); ok {
			o.Protocol, o.Wrapper = name, wrapper
		}
		out = append(out, o)
	}
	return out
}

// TestFixtures makes a proposal from each testdata/*.traffic and holds it against the .hcl beside it (UPDATE=1 writes it). Each must load,
// and map as many operations as it says.
func TestFixtures(t *testing.T) {
	files, err := filepath.Glob("testdata/*.traffic")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d fixtures, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".traffic"), func(t *testing.T) {
			src, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			ops := traffic(t, string(src))
			p := Make(Request{Operations: ops, Protocols: protocols, Name: "traffic.jsonl"})
			holds(t, p, ops)
			if strings.HasSuffix(file, "uploads.traffic") {
				return // TestDocuments
			}
			golden := strings.TrimSuffix(file, ".traffic") + ".hcl"
			if os.Getenv("UPDATE") != "" {
				if err := os.WriteFile(golden, []byte(p.HCL), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if p.HCL != string(want) {
				t.Errorf("got\n%s\nwant\n%s", p.HCL, want)
			}
		})
	}
}

// TestDocuments: documents that are all text are read by their codec where the language has it, else as one text.
func TestDocuments(t *testing.T) {
	src, err := os.ReadFile("testdata/uploads.traffic")
	if err != nil {
		t.Fatal(err)
	}
	ops := traffic(t, string(src))
	p := Make(Request{Operations: ops, Protocols: protocols})
	if p.Mapped != len(ops) || p.Registers != 4 {
		t.Errorf("%d of %d mapped by %d registers", p.Mapped, len(ops), p.Registers)
	}
	q := &proposer{req: Request{Protocols: protocols}, protocols: map[string]*wrappers.Protocol{"http": &protocols[0], "mqtt": &protocols[1]}}
	q.wrappersOf()
	q.probe()
	for _, doc := range []struct{ needs, address, with, without string }{
		{"each", "/upload/recipes/{recipe}.csv", "key = { parameter = row.parameter }", "map = { content = payload }"},
		{"form", "/form/door/{door}", "codec = form", "map = { content = payload }"},
		{"form", "/forms/contact", "age = number(payload.age)", "map = { content = payload }"},
		{"xml", "/soap/pump/{pump}", `codec = xml("pump")`, "map = { content = payload }"},
	} {
		_, block, _ := strings.Cut(p.HCL, `bind "http" "`+doc.address+`" {`)
		block, _, _ = strings.Cut(block, "\n  }\n")
		want := doc.without
		if q.can[doc.needs] {
			want = doc.with
		}
		if !strings.Contains(strings.Join(strings.Fields(block), " "), want) {
			t.Errorf("%s: got %s, want %s", doc.address, block, want)
		}
	}
}

// TestJoined: the same values at the same places in other words are the same things, in whatever order.
func TestJoined(t *testing.T) {
	p := Make(Request{Protocols: protocols, Operations: traffic(t, `
		mqtt message rooms/101/berlin {"temp":20}
		mqtt message rooms/102/berlin {"temp":21}
		mqtt message rooms/101/munich {"temp":22}
		http put /cities/berlin/101 {"temp":20}
		http put /cities/munich/101 {"temp":21}
		http put /cities/berlin/102 {"temp":22}
		http put /other/1 {"x":20}
		http put /other/2 {"x":20}
	`)})
	if p.Registers != 2 || p.Mapped != 8 {
		t.Errorf("%d registers map %d operations\n%s", p.Registers, p.Mapped, p.HCL)
	}
}

// FuzzMake: whatever passed, the proposal loads and keeps its word.
func FuzzMake(f *testing.F) {
	f.Add("mqtt put a/b {\"x\":1}\nhttp put /c/b {\"x\":\"y\"}\n")
	f.Add("mqtt put a/1/t 2\nmqtt put a/2/t 3\nmqtt put a/2/u on\n")
	f.Add("http message /f?id=1&v=2 \nhttp put /f/x.csv a;b\n")
	f.Add("mqtt put e/v {\"id\":1,\"${x}\":[1]}\n")
	f.Fuzz(func(t *testing.T, lines string) {
		if strings.Count(lines, "\n") > 20 {
			return
		}
		var ops []recording.Operation
		for line := range strings.Lines(lines) {
			w := strings.SplitN(strings.TrimSpace(line), " ", 4)
			if len(w) < 4 || verbOf(w[1]) == 0 {
				continue
			}
			o := recording.Of(&wrappers.Operation{Verb: verbOf(w[1]), Address: w[2], Payload: wrappers.Payload{Raw: []byte(w[3])}})
			o.Kind, o.Protocol, o.Wrapper = recording.Write, w[0], w[0]
			if o.Protocol != "mqtt" {
				o.Protocol, o.Wrapper = "http", "http"
				address, err := http.Protocol.Syntax.Canonical(w[2])
				if err != nil {
					continue
				}
				o.Address = address
			}
			ops = append(ops, o)
		}
		holds(t, Make(Request{Operations: ops, Protocols: protocols}), ops)
	})
}

func verbOf(name string) wrappers.Verb {
	for v := wrappers.Put; v <= wrappers.Message; v++ {
		if v.String() == name && v != wrappers.Rename {
			return v
		}
	}
	return 0
}

// holds checks what every proposal must keep.
func holds(t testing.TB, p Proposal, ops []recording.Operation) {
	t.Helper()
	q := &proposer{req: Request{Protocols: protocols}, protocols: map[string]*wrappers.Protocol{}}
	for i := range protocols {
		q.protocols[protocols[i].Name] = &protocols[i]
	}
	for i := range ops {
		if q.protocols[ops[i].Protocol] != nil {
			q.samples = append(q.samples, &sample{op: &ops[i]})
		}
	}
	q.wrappersOf()
	set, diags := q.load(p.HCL)
	if set == nil {
		t.Fatalf("it does not load: %v\n%s", diags.Err(), p.HCL)
	}
	mapped := 0
	for i := range ops {
		if proto := q.protocols[ops[i].Protocol]; proto != nil && ops[i].Outcome != recording.NoNews && Maps(set, proto, ops[i].Wrapper, ops[i].Op()) {
			mapped++
		}
	}
	if mapped < p.Mapped {
		t.Errorf("it maps %d operations and says %d\n%s", mapped, p.Mapped, p.HCL)
	}
	if n := len(set.Binds()); n != p.Binds {
		t.Errorf("it has %d binds and says %d", n, p.Binds)
	}
	left := 0
	for _, l := range p.Left {
		left += l.Count
	}
	if p.Mapped+left != p.Operations {
		t.Errorf("of %d operations it maps %d and leaves %d", p.Operations, p.Mapped, left)
	}
}
