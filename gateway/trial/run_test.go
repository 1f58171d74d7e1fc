package trial

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	mappings "github.com/spooksystems/gateway/mappings.d"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/ldap"
	"github.com/spooksystems/gateway/wrappers/mqtt"
	"github.com/spooksystems/gateway/wrappers/sql"
)

var protocols = []wrappers.Protocol{http.Protocol, ldap.Protocol, mqtt.Protocol, sql.Protocol}

// inMemory are files for LoadConfig.
type inMemory map[string]string

func (m inMemory) ReadFile(path string) ([]byte, error) {
	text, ok := m[path]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return []byte(text), nil
}

func (inMemory) Glob(string) ([]string, error) { return nil, nil }

func verdicts(t *testing.T, name, src string) []Verdict {
	t.Helper()
	return verdictsUnder(t, "", name, src)
}

// verdictsUnder runs tests under the wrappers of a gateway.hcl; "": one of each protocol.
func verdictsUnder(t *testing.T, gatewayHCL, name, src string) []Verdict {
	t.Helper()
	req := gateway.LoadRequest{Mappings: []string{name}, Sources: inMemory{name: src}, Protocols: protocols, Implied: true}
	if gatewayHCL != "" {
		req.File, req.Sources, req.Implied = "gateway.hcl", inMemory{name: src, "gateway.hcl": gatewayHCL}, false
	}
	config, found := gateway.LoadConfig(req)
	if config == nil {
		t.Fatal(found.Err())
	}
	var out []Verdict
	for _, test := range config.Set.Tests() {
		v, err := Run(t.Context(), config.Set, config.Links(), test)
		if err != nil {
			t.Fatalf("%s: %v", test.Source, err)
		}
		out = append(out, v)
	}
	return out
}

// TestShipped runs the tests of every mapping that ships, and of every block in the documents. A block whose first line is
// `# mappings.d/…` runs under the block before it whose first line is `# gateway.hcl`.
func TestShipped(t *testing.T) {
	type source struct{ gateway, text string }
	sources := map[string]source{}
	names, err := fs.Glob(mappings.FS, "*.hcl")
	if err != nil || len(names) == 0 {
		t.Fatal(err, len(names))
	}
	for _, name := range names {
		src, err := fs.ReadFile(mappings.FS, name)
		if err != nil {
			t.Fatal(err)
		}
		sources[name] = source{text: string(src)}
	}
	under := 0
	for _, name := range documents(t) {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		gatewayHCL := ""
		for i, block := range strings.Split(string(src), "```hcl\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			if strings.HasPrefix(block, "# gateway.hcl\n") {
				gatewayHCL = block
			}
			if !strings.Contains("\n"+block, "\ntest \"") {
				continue
			}
			s := source{text: block}
			if strings.HasPrefix(block, "# mappings.d/") {
				s.gateway = gatewayHCL
				under++
			}
			sources[fmt.Sprintf("%s, block %d", name, i+1)] = s
		}
	}
	if len(sources) < len(names)+30 || under == 0 {
		t.Errorf("%d blocks of documents have tests, %d of them under a gateway.hcl: this test sees too little", len(sources)-len(names), under)
	}
	for name, src := range sources {
		t.Run(filepath.Base(name), func(t *testing.T) {
			all := verdictsUnder(t, src.gateway, name, src.text)
			if len(all) == 0 {
				t.Error("it has no tests")
			}
			for _, v := range all {
				for _, f := range v.Failed {
					t.Errorf("%q: %s: %s\nwant %s\ngot  %s", v.Test, f.Source, f.What, f.Want, f.Got)
				}
			}
		})
	}
}

// documents lists the tree's documents.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch name := d.Name(); {
		case d.IsDir() && (name == "testdata" || len(name) > 2 && name[0] == '.'):
			return filepath.SkipDir
		case !d.IsDir() && strings.HasSuffix(name, ".md"):
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

const doorAndOven = `
register "oven/{o}" {
  fields  = { value = number, at = time, tags = union(string) }
  writers = ["http/*"]
  bind "http" "/oven/{o}" {
    map = { value = payload.value, tags = payload.tags }
    in  = { at = now }
  }
  bind "mqtt" "oven/{o}" {
    map = { value = payload.value }
  }
}
`

// Each test block here fails in the ways it says.
func TestFailures(t *testing.T) {
	for _, c := range []struct{ block, want string }{
		{`send = { http = "/oven/1", payload = { value = 1 } }
  want = { "oven/1" = { value = 1, at = "2026-01-01T00:00:00Z" } }
  told = { mqtt = { "oven/1" = { value = 1.0 } } }`, ``},
		{`given = { "oven/1" = { tags = ["b", "a"] } }
  send = { http = "/oven/1", verb = "merge", payload = { tags = "c" } }
  want = { "oven/1" = { tags = ["a", "b"], at = "2026-01-01T00:00:00Z" } }`, `oven/1, tags: want ["a","b"], got ["c"]`},
		{`now = "2026-02-02T00:00:00Z"
  send = { http = "/oven/1", payload = { value = 1 } }
  want = { "oven/1" = { value = 2, tags = [] }, "oven/2" = {} }`,
			`oven/1, tags: want [], got nothing; oven/1, value: want 2, got 1; oven/1, at: want nothing, got "2026-02-02T00:00:00Z"; oven/2: want {}, got nothing`},
		{`send = { mqtt = "oven/1", payload = { value = 1 } }
  want = { "oven/1" = null }`, `message mqtt oven/1: want nothing is refused but what ` + "`refused`" + ` says, got not allowed to write: register "oven/1" takes writes of http/* only (oven/{o})`},
		{`send = { mqtt = "oven/1", payload = { value = 1 } }
  refused = "takes writes of http/*"`, ``},
		{`send = { http = "/oven/1", payload = { value = 1 } }
  refused = "no"`, `refused: want no, got nothing is refused for that reason`},
		{`send = { http = "/oven/1", payload = { value = 1 } }
  told = {}`, `told: want nobody is told, got mqtt oven/1 {"value":1}`},
		{`send = { http = "/oven/1", payload = { value = 1 } }
  told = { mqtt = [] }`, `told mqtt oven/1: want nothing is told, got {"value":1}`},
		{`send = { http = "/oven/1", payload = { value = 1 } }
  told = { mqtt = ["oven/1", "oven/2"], http = "/oven/1" }`, `told mqtt oven/2: want it is told, got told there: oven/1; told http /oven/1: want it is told, got told there: nobody`},
		{`send = { http = "/oven/1", payload = { value = 1 } }
  told = { mqtt = { "oven/1" = "{\"value\": 1}" } }`, `told mqtt oven/1: want {"value": 1}, got {"value":1}`},
		{`given = { "oven/1" = { value = 1 } }
  send = { http = "/oven/1", verb = "delete" }
  want = { "oven/1" = null }
  told = { mqtt = { "oven/1" = null } }`, ``},
		{`given = { "oven/1" = { value = 1 } }
  send = { http = "/oven/1", verb = "delete" }
  told = { mqtt = { "oven/1" = { value = 1 } } }`, `told mqtt oven/1: want {"value":1}, got that it is gone`},
	} {
		all := verdicts(t, "m.hcl", doorAndOven+"test \"it\" {\n  "+c.block+"\n}\n")
		var got []string
		for _, f := range all[0].Failed {
			got = append(got, fmt.Sprintf("%s: want %s, got %s", f.What, f.Want, f.Got))
		}
		if got := strings.Join(got, "; "); got != c.want {
			t.Errorf("%s\ngot  %s\nwant %s", c.block, got, c.want)
		}
	}
}

// A test of a protocol that is still to come is skipped by name.
func TestSkipped(t *testing.T) {
	set, found := mapping.Load(mapping.Input{
		Files: []diag.File{{Name: "m.hcl", Bytes: []byte(`test "later" {
  send = { ldap = "cn=a", payload = {} }
  want = { "x" = null }
}`)}},
		Later: []string{"ldap"},
	})
	if set == nil {
		t.Fatal(found.Err())
	}
	v, err := Run(t.Context(), set, nil, set.Tests()[0])
	if err != nil || v.Skipped == "" || len(v.Failed) > 0 {
		t.Errorf("%+v %v", v, err)
	}
}

// A test runs under the wrappers of gateway.hcl: here an attached one with two servers, and a relay.
func TestUnderGateway(t *testing.T) {
	files := inMemory{
		"gateway.hcl": `
wrapper "http" "field" {
  upstream = { k1 = "http://10.0.1.21", k2 = "http://10.0.1.22" }
}
wrapper "mqtt" "floor" {
  listen   = "127.0.0.1:1883"
  upstream = "tcp://10.0.0.5:1883"
}
`,
		"m.hcl": `
register "kiln/{k}" {
  fields = { value = number, by = string, unit = string }
  bind "http" "/kiln/{k}" {
    map = { value = payload.value }
  }
  bind "mqtt" "kiln/{k}" {
    map = { value = payload.value }
    in  = { by = who, unit = meta.unit }
  }
}

test "one server's word goes to the other, and to the broker" {
  given = { "kiln/1" = { value = 1 } }
  send  = { field = "/kiln/1", server = "k1", payload = { value = 2 } }
  want  = { "kiln/1" = { value = 2 } }
  told  = { field = { "k2:/kiln/1" = { value = 2 } }, floor = { "kiln/1" = { value = 2 } } }
}

test "a peer at the relay" {
  send = { mqtt = "kiln/1", payload = { value = 3 }, who = "ann", meta = { Unit = "C" } }
  want = { "kiln/1" = { value = 3, by = "ann", unit = "C" } }
  told = { field = ["k1:/kiln/1", "k2:/kiln/1"], floor = [] }
}

test "what the broker has and nobody can read is parked" {
  send    = { mqtt = "kiln/1", payload = "hot" }
  want    = { "kiln/1" = null }
  refused = "JSON"
}
`,
	}
	config, found := gateway.LoadConfig(gateway.LoadRequest{File: "gateway.hcl", Mappings: []string{"m.hcl"}, Sources: files, Protocols: protocols})
	if config == nil {
		t.Fatal(found.Err())
	}
	if len(config.Set.Tests()) != 3 {
		t.Fatalf("%d tests", len(config.Set.Tests()))
	}
	for _, test := range config.Set.Tests() {
		v, err := Run(t.Context(), config.Set, config.Links(), test)
		if err != nil || len(v.Failed) > 0 {
			t.Errorf("%q: %v %+v", v.Test, err, v.Failed)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	config, found := gateway.LoadConfig(gateway.LoadRequest{
		Mappings: []string{"m.hcl"}, Sources: inMemory{"m.hcl": doorAndOven + `
test "it" {
  send = { http = "/oven/1", payload = { value = 1 } }
  want = { "oven/1" = { value = 1, at = "2026-01-01T00:00:00Z" } }
}
`}, Protocols: protocols, Implied: true,
	})
	if config == nil {
		b.Fatal(found.Err())
	}
	for b.Loop() {
		if v, err := Run(b.Context(), config.Set, config.Links(), config.Set.Tests()[0]); err != nil || len(v.Failed) > 0 {
			b.Fatal(err, v.Failed)
		}
	}
}
