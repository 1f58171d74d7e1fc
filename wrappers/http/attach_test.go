package http

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// attachedTo runs an attached wrapper and returns a function that stops it.
func attachedTo(t *testing.T, b *backend, link *wrappertest.Link, tune func(*wrappers.Config)) func() error {
	t.Helper()
	cfg := config(nil, nil)
	cfg.Upstreams = b.upstream()
	cfg.Options["poll_ms"] = int64(5)
	if tune != nil {
		tune(&cfg)
	}
	return start(t, cfg, link)
}

// requests gives what the backend was asked, as "METHOD path".
func (b *backend) requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, r := range b.seen {
		out = append(out, r.Method+" "+r.URL.Path)
	}
	return out
}

// rounds waits until the backend was asked for an address so many times more.
func (b *backend) rounds(t *testing.T, address string, n int) {
	t.Helper()
	count := func() (k int) {
		for _, r := range b.requests() {
			if r == "GET "+address {
				k++
			}
		}
		return k
	}
	for want, deadline := count()+n, time.Now().Add(10*time.Second); count() < want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s was not asked for", address)
		}
	}
}

func seenOf(link *wrappertest.Link, address string) (out []string) {
	for _, c := range link.Candidates(wrappertest.ViaSeen) {
		if c.Address == address {
			out = append(out, c.Verb.String()+" "+string(c.Payload))
		}
	}
	return out
}

func TestPollHearsOfChangesAndDeletes(t *testing.T) {
	b := newBackend(t)
	link := wrappertest.NewLink("/state", "/v1/{site}/{sensor}")
	link.ReadBackFirst()
	b.Set("/state", []byte(`{"on":true}`))
	for n := range 4 {
		b.Set(fmt.Sprintf("/v1/berlin/oven-%d", n), []byte(`{"value":0}`))
		link.PushPut(fmt.Sprintf("/v1/berlin/oven-%d", n), `{"value":0}`)
	}
	attachedTo(t, b, link, nil)
	link.Await(t, "the literal address", func() bool { return len(seenOf(link, "/state")) == 1 })
	b.rounds(t, oven, 3)
	b.Set(oven, []byte(`{"value":1}`))
	link.Await(t, "a change", func() bool { return slices.Contains(seenOf(link, oven), `put {"value":1}`) })
	b.Remove(oven)
	link.Await(t, "a delete", func() bool { return slices.Contains(seenOf(link, oven), "delete ") })
	conditional := 0
	b.mu.Lock()
	for _, r := range b.seen {
		if r.Header.Get("If-None-Match") != "" {
			conditional++
		}
		if r.Header.Get(originHeader) != "spookgw/test/0000" {
			t.Errorf("%s %s bears the mark %q", r.Method, r.URL, r.Header.Get(originHeader))
		}
	}
	b.mu.Unlock()
	if conditional == 0 {
		t.Error("no poll was conditional")
	}
	ends := 0
	for _, p := range link.Positions() {
		if p.Snapshot == wrappers.SnapshotEnd {
			ends++
		}
	}
	if ends != 1 {
		t.Errorf("got %d whole listings, want 1: later rounds leave out what has not changed", ends)
	}
}

// A bind says by itself how often its addresses are asked for.
func TestPollOfABind(t *testing.T) {
	b := newBackend(t)
	link := wrappertest.NewLink("/fast", "/slow", "/never")
	ps, _ := link.Patterns()
	ps = slices.Clone(ps)
	ps[0].Options = wrappers.Options{"poll_ms": int64(5)}
	ps[1].Options = wrappers.Options{"poll_ms": int64(3600_000)}
	link.SetPatterns(ps...)
	b.Set("/fast", []byte(`{"v":1}`))
	b.Set("/slow", []byte(`{"v":1}`))
	b.Set("/never", []byte(`{"v":1}`))
	attachedTo(t, b, link, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(0) })
	b.rounds(t, "/fast", 5)
	asked := map[string]int{}
	for _, r := range b.requests() {
		asked[r]++
	}
	if asked["GET /slow"] != 1 || asked["GET /never"] != 0 {
		t.Errorf("asked: %v", asked)
	}
}

func TestPollSuddenlyEmptySourceIsNoMassDelete(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	link.ReadBackFirst()
	for n := range 10 {
		a := fmt.Sprintf("/v1/berlin/oven-%d", n)
		b.Set(a, []byte(`{"value":0}`))
		link.PushPut(a, `{"value":0}`)
	}
	stop := attachedTo(t, b, link, nil)
	b.rounds(t, oven, 3)
	b.mu.Lock()
	clear(b.docs) // at once: two or three in one round would be deletes
	b.mu.Unlock()
	link.Await(t, "the alarm", func() bool { return link.Counted("suddenly_empty") == 1 })
	b.rounds(t, oven, 3)
	for n := range 10 {
		if _, there := link.Register("", fmt.Sprintf("/v1/berlin/oven-%d", n)); !there {
			t.Errorf("oven-%d was deleted", n)
		}
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	// What went while nobody looked is missed after a restart, too.
	for n := range 9 {
		b.Set(fmt.Sprintf("/v1/berlin/oven-%d", n), []byte(`{"value":0}`))
	}
	attachedTo(t, b, link, nil)
	link.Await(t, "the one that is gone", func() bool { return slices.Contains(seenOf(link, "/v1/berlin/oven-9"), "delete ") })
	if n := len(link.Candidates(wrappertest.ViaSeen)); n != 1 {
		t.Errorf("got %d candidates, want 1:\n%s", n, link)
	}
}

// Of a bind that is asked for by itself, too, what is missing is held against the rest.
func TestPollOfABindIsNoMassDelete(t *testing.T) {
	b := newBackend(t)
	link := wrappertest.NewLink("/fast", "/a", "/b", "/c")
	link.ReadBackFirst()
	ps, _ := link.Patterns()
	ps = slices.Clone(ps)
	ps[0].Options = wrappers.Options{"poll_ms": int64(5)}
	link.SetPatterns(ps...)
	all := []string{"/fast", "/a", "/b", "/c"}
	for _, a := range all {
		b.Set(a, []byte(`{"v":1}`))
		link.PushPut(a, `{"v":1}`)
	}
	attachedTo(t, b, link, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(3600_000) })
	b.rounds(t, "/fast", 5)
	b.mu.Lock()
	clear(b.docs)
	b.mu.Unlock()
	link.Await(t, "the alarm", func() bool { return link.Counted("suddenly_empty") == 1 })
	b.rounds(t, "/fast", 3*freshRound)
	if _, there := link.Register("", "/fast"); !there {
		t.Error("/fast was deleted")
	}
	for _, a := range all[1:] {
		b.Set(a, []byte(`{"v":1}`))
	}
	link.Await(t, "the one that is gone", func() bool { return slices.Contains(seenOf(link, "/fast"), "delete ") })
}

func TestPollServerDownIsNoDelete(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	link.ReadBackFirst()
	b.Set(oven, []byte(`{"value":0}`))
	link.PushPut(oven, `{"value":0}`)
	attachedTo(t, b, link, nil)
	b.rounds(t, oven, 3)
	for _, code := range []int{500, 503, 403, 302} {
		b.mu.Lock()
		b.handle = func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(code); return true }
		b.mu.Unlock()
		b.rounds(t, oven, 2)
	}
	if got := link.Candidates(wrappertest.ViaSeen); len(got) != 0 {
		t.Errorf("an ailing server made candidates: %+v", got)
	}
	if link.Counted("poll_errors") == 0 {
		t.Error("nobody counted the errors")
	}
}

func TestEventsInsteadOfPolling(t *testing.T) {
	// The server is a virtual wrapper: its streams are what ours listens to.
	served := newLink()
	rig := startVirtual(t, served, nil)
	served.PushPut(oven, `{"value":0}`)
	link := newLink()
	link.Baseline("", oven, `{"value":0}`, "")
	link.PushPut(oven, `{"value":0}`)
	cfg := config(nil, nil)
	cfg.Upstreams = []wrappers.Upstream{{Scheme: "http", Addr: rig.Addr}}
	cfg.Options["events"] = "/v1/berlin/"
	start(t, cfg, link)
	served.Await(t, "the stream", func() bool { return served.Counted("streams") == 1 })
	served.PushPut(oven, `{"value":1}`)
	served.PushPut("/v1/berlin/new", `{"value":2}`)
	link.Await(t, "a change", func() bool { return slices.Contains(seenOf(link, oven), `put {"value":1}`) })
	link.Await(t, "an address nobody knew", func() bool { return slices.Contains(seenOf(link, "/v1/berlin/new"), `put {"value":2}`) })
	served.Push(wrappers.Operation{Verb: wrappers.Delete, Address: oven})
	link.Await(t, "a delete", func() bool { return slices.Contains(seenOf(link, oven), "delete ") })
	link.PushPut("/v1/berlin/back", `{"value":3}`)
	served.Await(t, "a write-back", func() bool { _, there := served.Register("", "/v1/berlin/back"); return there })
}

// keeping makes the link's changes keep the members of a document that are not named.
func keeping(link *wrappertest.Link, members ...string) {
	link.LayOnto(func(doc, pay wrappers.Payload) (wrappers.Payload, error) {
		var d, p map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(doc.Raw, &d), json.Unmarshal(pay.Raw, &p)); err != nil {
			return pay, err
		}
		for _, m := range members {
			if delete(d, m); p[m] != nil {
				d[m] = p[m]
			}
		}
		raw, err := json.Marshal(d)
		return wrappers.Payload{Raw: raw, Type: "application/json"}, err
	})
}

func TestWriteBackKeepsForeignMembers(t *testing.T) {
	for _, method := range []string{"PUT", "PATCH"} {
		t.Run(method, func(t *testing.T) {
			b := newBackend(t)
			link := newLink()
			link.ReadBackFirst()
			ps := wrappertest.Patterns("/v1/{site}/{sensor}")
			ps[0].Options["methods"] = []string{method}
			link.SetPatterns(ps...)
			keeping(link, "value", "unit")
			b.Set(oven, []byte(`{"salary":7,"unit":"C","value":0}`))
			attachedTo(t, b, link, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(0) })
			link.PushPut(oven, `{"value":1}`)
			link.Await(t, "the first", func() bool { return len(link.Settlements()) == 1 })
			if got, _ := b.Value(oven); string(got) != `{"salary":7,"value":1}` {
				t.Errorf("got %s, want the foreign member kept, the mapped one that is absent gone", got)
			}
			link.PushPut(oven, `{"value":2}`)
			link.Await(t, "the second", func() bool { return len(link.Settlements()) == 2 })
			if got, _ := b.Value(oven); string(got) != `{"salary":7,"value":2}` {
				t.Errorf("got %s", got)
			}
			gets, writes := 0, 0
			for _, r := range b.requests() {
				switch r {
				case "GET " + oven:
					gets++
				case method + " " + oven:
					writes++
				}
			}
			if writes != 2 || method == "PUT" && gets != 1 {
				t.Errorf("got %d GETs and %d writes, want 2 writes and, with PUT, 1 GET (the read-back): the tag makes more needless", gets, writes)
			}
		})
	}
}

func TestWriteBackMeetsAChange(t *testing.T) {
	b := newBackend(t)
	link := newLink()
	link.ReadBackFirst()
	keeping(link, "value")
	attachedTo(t, b, link, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(0) })
	link.PushPut(oven, `{"value":1}`)
	link.Await(t, "the first", func() bool { return len(link.Settlements()) == 1 })
	b.Set(oven, []byte(`{"other":5,"value":3}`))
	link.PushPut(oven, `{"value":2}`)
	link.Await(t, "the other's change", func() bool { return len(seenOf(link, oven)) == 1 })
	ss := link.Settlements()
	if len(ss) != 2 || ss[1].Effect.Outcome != wrappers.Retry || wrappers.Kind(ss[1].Effect.Err) != wrappers.ErrConflict {
		t.Errorf("settled: got %+v, want done, then a retry because of a conflict", ss)
	}
	want := `{"other":5,"value":3}`
	if got, _ := b.Value(oven); string(got) != want || seenOf(link, oven)[0] != "put "+want {
		t.Errorf("the server has %s, seen was %q; want that the other's change is heard and not written over", got, seenOf(link, oven))
	}
	// Without a read-back the document is asked for before it is written again.
	blind := newLink()
	keeping(blind, "value")
	attachedTo(t, b, blind, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(0) })
	blind.Baseline("", oven, `{"value":0}`, `"stale"`)
	blind.PushPut(oven, `{"value":9}`)
	blind.Await(t, "retry, then done", func() bool {
		ss := blind.Settlements()
		return len(ss) == 2 && ss[0].Effect.Outcome == wrappers.Retry && ss[1].Effect.Outcome == wrappers.Done
	})
	if got, _ := b.Value(oven); string(got) != `{"other":5,"value":9}` {
		t.Errorf("got %s, want the other's member kept", got)
	}
}

func TestWriteBackMethodsAndOutcomes(t *testing.T) {
	tests := []struct {
		name    string
		methods []string
		status  int
		header  string
		request string
		outcome wrappers.Outcome
		err     string
	}{
		{"put", nil, 204, "", "PUT application/json", wrappers.Done, ""},
		{"patch", []string{"GET", "PATCH"}, 200, "", "PATCH application/merge-patch+json", wrappers.Done, ""},
		{"post", []string{"POST"}, 201, "", "POST application/json", wrappers.Done, ""},
		{"forbidden", nil, 403, "", "", wrappers.Parked, "403 Forbidden: these are the words"},
		{"not allowed", nil, 405, "", "", wrappers.Parked, "405"},
		{"redirect", nil, 301, "Location: /elsewhere", "", wrappers.Parked, "to /elsewhere"},
		{"not implemented", nil, 501, "", "", wrappers.Parked, "501"},
		{"busy", nil, 503, "Retry-After: 7", "", wrappers.Retry, "retry after 7"},
		{"too many", nil, 429, "Retry-After: 7", "", wrappers.Retry, "retry after 7"},
		{"timeout", nil, 408, "", "", wrappers.Retry, "408"},
		{"broken", nil, 500, "", "", wrappers.Retry, "500"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBackend(t)
			var got string
			b.handle = func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" {
					return false
				}
				got = r.Method + " " + r.Header.Get("Content-Type")
				if k, v, found := strings.Cut(tt.header, ": "); found {
					w.Header().Set(k, v)
				}
				w.WriteHeader(tt.status)
				if tt.status >= 400 {
					_, _ = w.Write([]byte("these are\nthe\x00 words"))
				}
				return true
			}
			link := newLink()
			ps := wrappertest.Patterns("/v1/{site}/{sensor}")
			ps[0].Options["methods"] = tt.methods
			link.SetPatterns(ps...)
			attachedTo(t, b, link, func(c *wrappers.Config) { c.Options["poll_ms"] = int64(0) })
			link.PushPut(oven, `{"value":1}`)
			link.Await(t, "its end", func() bool { return len(link.Settlements()) > 0 })
			e := link.Settlements()[0].Effect
			if e.Outcome != tt.outcome || tt.err != "" && (e.Err == nil || !strings.Contains(e.Err.Error(), tt.err)) {
				t.Errorf("got outcome %d, %v; want %d, %s", e.Outcome, e.Err, tt.outcome, tt.err)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if tt.request != "" && got != tt.request {
				t.Errorf("the server got %s, want %s", got, tt.request)
			}
		})
	}
}

func TestWriteBackUnreachableServerIsTriedAgain(t *testing.T) {
	l := listen(t)
	addr := l.Addr().String()
	l.Close()
	link := newLink()
	cfg := config(nil, nil)
	cfg.Upstreams = []wrappers.Upstream{{Scheme: "http", Addr: addr}}
	cfg.Options["poll_ms"] = int64(0)
	start(t, cfg, link)
	link.PushPut(oven, `{"value":1}`)
	link.Await(t, "a retry", func() bool {
		ss := link.Settlements()
		return len(ss) > 0 && ss[0].Effect.Outcome == wrappers.Retry
	})
}

func TestSeveralServers(t *testing.T) {
	one, two := newBackend(t), newBackend(t)
	link := newLink()
	cfg := config(nil, nil)
	cfg.Upstreams = []wrappers.Upstream{{Server: "one", Scheme: "http", Addr: one.addr}, {Server: "two", Scheme: "http", Addr: two.addr}}
	cfg.Options["poll_ms"] = int64(0)
	start(t, cfg, link)
	link.Push(wrappers.Operation{Verb: wrappers.Put, Server: "two", Address: oven, Payload: wrappers.Payload{Raw: []byte(`{}`)}})
	link.Await(t, "the write", func() bool { return len(link.Settlements()) == 1 })
	if one.Writes(oven) != 0 || two.Writes(oven) != 1 {
		t.Errorf("got %d and %d writes, want 0 and 1", one.Writes(oven), two.Writes(oven))
	}
}

func TestMergePatch(t *testing.T) {
	for _, tt := range []struct{ from, to, want string }{
		{`{"a":1,"b":2}`, `{"a":3}`, `{"a":3,"b":null}`},
		{`{"a":{"x":1,"y":2}}`, `{"a":{"x":1,"y":3}}`, `{"a":{"y":3}}`},
		{`{ "a": [1, 2] }`, `{"a":[1,2]}`, `{}`},
		{`[1]`, `{"a":1}`, `{"a":1}`},
		{``, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, `21.5`, `21.5`},
	} {
		if got := string(mergePatch([]byte(tt.from), []byte(tt.to))); got != tt.want {
			t.Errorf("mergePatch(%s, %s): got %s, want %s", tt.from, tt.to, got, tt.want)
		}
	}
}

// TestNginx: a real server, with WebDAV methods, behind a relay.
func TestNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("nginx is not installed")
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "www"), 0o777); err != nil {
		t.Fatal(err)
	}
	_ = os.Chmod(dir, 0o777) // its workers may run as somebody else
	_ = os.Chmod(filepath.Join(dir, "www"), 0o777)
	_ = os.Chmod(filepath.Dir(dir), 0o777)
	l := listen(t)
	addr := l.Addr().String()
	l.Close()
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/pid; error_log %[1]s/error.log;
events { worker_connections 64; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen %[2]s; root %[1]s/www; location / { dav_methods PUT DELETE; create_full_put_path on; } }
}`, dir, addr)
	if err := os.WriteFile(conf, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(nginx, "-c", conf, "-e", filepath.Join(dir, "error.log"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for try := 0; ; try++ {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if try == 500 {
			log, _ := os.ReadFile(filepath.Join(dir, "error.log"))
			t.Fatalf("nginx does not answer: %v\n%s", err, log)
		}
		time.Sleep(10 * time.Millisecond)
	}
	link := newLink()
	link.ReadBackFirst()
	c := newClient(t, relayTo(t, addr, link, nil))
	file := func() string { b, _ := os.ReadFile(filepath.Join(dir, "www", oven)); return string(b) }
	for n := range 3 {
		want := fmt.Sprintf(`{"value":%d}`, n)
		if err := c.Write(oven, []byte(want)); err != nil {
			t.Fatal(err)
		}
		reg, _ := link.Register("", oven)
		if string(reg) != want || file() != want {
			t.Errorf("the register has %s, nginx %s; want %s", reg, file(), want)
		}
	}
	link.PushPut(oven, `{"value":9}`)
	link.Await(t, "the write-back", func() bool { return len(link.Settlements()) == 1 })
	if got, err := c.Read(oven); err != nil || string(got) != `{"value":9}` {
		t.Errorf("nginx shows %s, %v", got, err)
	}
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: oven})
	link.Await(t, "the delete", func() bool { return len(link.Settlements()) == 2 })
	if _, err := c.Read(oven); err != wrappertest.ErrAbsent {
		t.Errorf("after the delete: got %v, want absent", err)
	}
	if n := len(link.Candidates(wrappertest.ViaWire)); n != 3 {
		t.Errorf("got %d candidates, want 3: what the gateway wrote is no news", n)
	}
	if err := c.Delete(oven); err == nil {
		t.Error("a second delete succeeded")
	}
}
