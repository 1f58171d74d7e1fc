package gateway

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/mqtt"
)

var update = flag.Bool("update", false, "write what is into testdata as what is wanted")

var realProtocols = []wrappers.Protocol{http.Protocol, mqtt.Protocol}

// Each file of testdata/config is a configuration, and below "want" what is said of it.
func TestConfig(t *testing.T) {
	t.Setenv("SPOOKGW_TEST_SECRET", "from the environment")
	files, err := filepath.Glob("testdata/config/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			src := memory{}
			var want *txtar.File
			for i, f := range archive.Files {
				if f.Name == "want" {
					want = &archive.Files[i]
					continue
				}
				src[f.Name] = f.Data
			}
			config, found := LoadConfig(LoadRequest{File: "gateway.hcl", Sources: src, Protocols: realProtocols})
			var got strings.Builder
			if err := found.WriteText(&got, false, 100); err != nil {
				t.Fatal(err)
			}
			if (config == nil) != found.HasErrors() {
				t.Errorf("config %v with errors %v", config != nil, found.HasErrors())
			}
			if strings.Contains(got.String(), "hunter2") {
				t.Errorf("a secret is shown:\n%s", got.String())
			}
			if *update && want != nil {
				want.Data = []byte(got.String())
				if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if want == nil || got.String() != string(want.Data) {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want.Data)
			}
		})
	}
}

func TestConfigValues(t *testing.T) {
	t.Setenv("SPOOKGW_TEST_PORT", "1884")
	src := memory{
		"etc/gateway.hcl": []byte(`
data     = "state"
domains  = ["plant-7"]
min_free = "1GiB"
drain    = "3s"
wrapper "mqtt" "floor" {
  listen   = ["127.0.0.1:1883", "127.0.0.1:${env("SPOOKGW_TEST_PORT")}"]
  upstream = "tcp://10.0.0.5"
  user     = "gw"
  password = file("secret")
  unmapped = "refuse"
  limits {
    frame    = 4096
    sessions = 10
  }
}
wrapper "http" "api" {
  listen    = "127.0.0.1:8080"
  anonymous = "read"
}
wrapper "http" "many" {
  upstream = { a = "http://10.0.1.1/base", b = "https://10.0.1.2:8443" }
}
user "ann" {
  password = env("SPOOKGW_TEST_NONE", "default")
}
daemon {
  socket = "run/s"
}
log {
  level  = "debug"
  format = "json"
}
`),
		"etc/secret":                []byte("hunter2\r\n"),
		"etc/mappings.d/ignore.txt": nil,
	}
	c, found := LoadConfig(LoadRequest{File: "etc/gateway.hcl", Sources: src, Protocols: realProtocols})
	if c == nil {
		t.Fatal(found.Err())
	}
	floor, api, many := c.Wrappers[0], c.Wrappers[1], c.Wrappers[2]
	checks := map[string][2]any{
		"data":       {c.Data, "etc/state"},
		"domain":     {strings.Join(c.Domains, " "), "plant-7"},
		"min_free":   {c.MinFree, uint64(1 << 30)},
		"drain":      {c.Drain.String(), "3s"},
		"listen":     {strings.Join(floor.Listen, " "), "127.0.0.1:1883 127.0.0.1:1884"},
		"addr":       {floor.Upstreams[0].Addr, "10.0.0.5:1883"},
		"password":   {floor.Upstreams[0].Password.Reveal(), "hunter2"},
		"user":       {floor.Upstreams[0].User, "gw"},
		"unmapped":   {floor.Refuse, true},
		"frame":      {floor.Limits.Frame, 4096},
		"sessions":   {floor.Limits.Sessions, 10},
		"queue":      {floor.Limits.Queue, defaultLimits.Queue},
		"mode":       {floor.mode() + api.mode() + many.mode(), "relayvirtualattached"},
		"drain of":   {floor.Drain.String(), "3s"},
		"anonymous":  {api.Anonymous, wrappers.ReadAccess},
		"servers":    {many.Upstreams[0].Server + many.Upstreams[0].Addr + many.Upstreams[0].Path, "a10.0.1.1:80/base"},
		"https":      {many.Upstreams[1].TLS != nil && many.Upstreams[0].TLS == nil, true},
		"ann":        {c.Users[0].Password.Reveal(), "default"},
		"socket":     {c.Daemon.Socket, "etc/run/s"},
		"level":      {c.Log.Level.String(), "DEBUG"},
		"json":       {c.Log.JSON, true},
		"hash":       {len(c.Hash), 12},
		"no mapping": {len(c.Mappings), 0},
	}
	for name, v := range checks {
		if v[0] != v[1] {
			t.Errorf("%s: got %v, want %v", name, v[0], v[1])
		}
	}
	again, _ := LoadConfig(LoadRequest{File: "etc/gateway.hcl", Sources: src, Protocols: realProtocols})
	src["etc/secret"] = []byte("other")
	other, _ := LoadConfig(LoadRequest{File: "etc/gateway.hcl", Sources: src, Protocols: realProtocols})
	if again.Wrappers[0].digest != floor.digest || other.Wrappers[0].digest == floor.digest || other.Wrappers[1].digest != api.digest {
		t.Error("a block's digest must change with what it was made of, and with nothing else")
	}
}

// Without users and on loopback everybody may write; with users only those who log on.
func TestConfigAnonymous(t *testing.T) {
	const api = "wrapper \"http\" \"api\" {\n  listen = \"127.0.0.1:8080\"\n}\n"
	for config, want := range map[string]wrappers.Access{
		api: wrappers.WriteAccess,
		api + "user \"ann\" {\n  password = env(\"X\", \"y\")\n}\n": wrappers.NoAccess,
	} {
		c, found := LoadConfig(LoadRequest{File: "gateway.hcl", Sources: memory{"gateway.hcl": []byte(config)}, Protocols: realProtocols})
		if c == nil {
			t.Fatal(found.Err())
		}
		if got := c.Wrappers[0].Anonymous; got != want {
			t.Errorf("%s: got %v, want %v", config, got, want)
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add("wrapper \"mqtt\" \"a\" {\n  listen = [\"127.0.0.1:1\"]\n  upstream = { a = \"tcp://x\" }\n}\nuser \"u\" {\n  as = { mqtt = \"x\" }\n}\n")
	f.Add("data = env(\"HOME\")\nmin_free = \"1MiB\"\ndomains = [\"a\", \"b\"]")
	f.Add("wrapper \"http\" \"a\" {\n  tls {\n  cert = \"x\"\n  }\n  limits {\n    frame = 1e99\n  }\n}")
	f.Fuzz(func(t *testing.T, src string) {
		c, found := LoadConfig(LoadRequest{File: "gateway.hcl", Sources: memory{"gateway.hcl": []byte(src)}, Protocols: realProtocols})
		if (c == nil) != found.HasErrors() {
			t.Errorf("config %v with errors %v", c != nil, found.HasErrors())
		}
	})
}
