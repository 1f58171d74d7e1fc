package http

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// virtualAt runs a virtual wrapper and gives a client of it.
func virtualAt(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) *client {
	t.Helper()
	return startVirtual(t, link, tune).Dial(t).(*client)
}

// ask makes a request and checks the status.
func ask(t *testing.T, c *client, want int, method, address, body string, headers ...string) (*http.Response, string) {
	t.Helper()
	resp, got, err := c.do(method, address, body, headers...)
	if err != nil {
		t.Fatalf("%s %s: %v", method, address, err)
	}
	if resp.StatusCode != want {
		t.Errorf("%s %s %v: got %s %s, want %d", method, address, headers, resp.Status, got, want)
	}
	if resp.StatusCode >= 400 && method != "HEAD" {
		var p problem
		if json.Unmarshal([]byte(got), &p) != nil || p.Status != resp.StatusCode || p.Detail == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: got %s %q, want a problem with a detail", method, address, resp.Header.Get("Content-Type"), got)
		}
	}
	return resp, got
}

// waiting is a link to registers whose writes wait to be collapsed.
type waiting struct{ wrappers.Link }

func (w waiting) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	if op.Verb.Writes() {
		return wrappers.Result{Cursor: "1.1", Version: "3.abc", Waiting: true}, nil
	}
	return w.Link.Do(ctx, op)
}

func TestVirtualWriteThatWaits(t *testing.T) {
	l := listen(t)
	start(t, config(l, nil), waiting{newLink()})
	c := newClient(t, l.Addr().String())
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		resp, body := ask(t, c, 202, method, oven, `{"value":1}`)
		if body != "" || resp.Header.Get("ETag") != "" || resp.Header.Get("Location") != "" {
			t.Errorf("%s: got %q %v, want neither a body nor a tag", method, body, resp.Header)
		}
	}
	ask(t, c, 404, "GET", oven, "")
}

func TestVirtualResource(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, nil)
	_, body := ask(t, c, 404, "GET", oven, "")
	if !strings.Contains(body, oven) {
		t.Errorf("got %s, want a detail that names the address", body)
	}
	resp, _ := ask(t, c, 201, "PUT", oven, `{"value":21.5}`, "Content-Type", "application/json")
	if got := resp.Header.Get("Location"); got != oven {
		t.Errorf("Location: got %q, want %s", got, oven)
	}
	tag := resp.Header.Get("ETag")
	resp, body = ask(t, c, 200, "GET", oven, "")
	if body != `{"value":21.5}` || resp.Header.Get("ETag") != tag || resp.Header.Get("Content-Type") != "application/json" {
		t.Errorf("got %s %v, want what was put, with tag %s", body, resp.Header, tag)
	}
	resp, body = ask(t, c, 200, "HEAD", oven, "")
	if body != "" || resp.Header.Get("Content-Length") != "14" || resp.Header.Get("ETag") != tag {
		t.Errorf("HEAD: got %q %v", body, resp.Header)
	}
	ask(t, c, 304, "GET", oven, "", "If-None-Match", `"x", W/`+tag)
	ask(t, c, 412, "GET", oven, "", "If-Match", `"x"`)
	ask(t, c, 412, "PUT", oven, `{}`, "If-Match", `"x"`)
	ask(t, c, 412, "PUT", oven, `{}`, "If-Match", `W/`+tag)
	ask(t, c, 412, "PUT", oven, `{}`, "If-None-Match", `*`)
	ask(t, c, 412, "PUT", "/v1/berlin/none", `{}`, "If-Match", `*`)
	ask(t, c, 412, "DELETE", "/v1/berlin/none", ``, "If-Match", `"x"`)
	ask(t, c, 400, "PUT", oven, `{}`, "If-Match", `x`)
	resp, _ = ask(t, c, 204, "PATCH", oven, `{"unit":"C","value":null}`, "If-Match", tag, "Content-Type", "application/merge-patch+json")
	if got, _ := link.Register("", oven); string(got) != `{"unit":"C"}` || resp.Header.Get("ETag") == tag {
		t.Errorf("after the patch: got %s, tag %s", got, resp.Header.Get("ETag"))
	}
	resp, _ = ask(t, c, 415, "PATCH", oven, `[]`, "Content-Type", "application/json-patch+json")
	if resp.Header.Get("Accept-Patch") == "" {
		t.Error("a refused patch doesn't say what would be accepted")
	}
	ask(t, c, 415, "PUT", oven, `x`, "Content-Encoding", "gzip")
	ask(t, c, 400, "PUT", oven, `x`, "Content-Range", "bytes 0-0/2")
	ask(t, c, 404, "PUT", "/v2/x", `{}`)
	ask(t, c, 204, "DELETE", oven, "")
	ask(t, c, 404, "DELETE", oven, "")
	if n := len(link.Candidates()); n != 3 {
		t.Errorf("got %d candidates, want 3:\n%s", n, link)
	}
}

func TestVirtualMethods(t *testing.T) {
	link := newLink()
	ps := wrappertest.Patterns("/v1/{site}/{sensor}", "/log/{x}")
	ps[1].Options["methods"] = []string{"GET", "POST"}
	link.SetPatterns(ps...)
	c := virtualAt(t, link, nil)
	for _, tt := range []struct{ method, path, allow string }{
		{"POST", oven, "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"},
		{"BREW", oven, "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"},
		{"PUT", "/log/a", "GET, HEAD, POST, OPTIONS"},
		{"PUT", "/v1/", "GET, HEAD, OPTIONS"},
	} {
		resp, _ := ask(t, c, 405, tt.method, tt.path, "{}")
		if got := resp.Header.Get("Allow"); got != tt.allow {
			t.Errorf("%s %s: Allow: got %q, want %q", tt.method, tt.path, got, tt.allow)
		}
		resp, _ = ask(t, c, 204, "OPTIONS", tt.path, "")
		if got := resp.Header.Get("Allow"); got != tt.allow {
			t.Errorf("OPTIONS %s: Allow: got %q, want %q", tt.path, got, tt.allow)
		}
	}
	ask(t, c, 201, "POST", "/log/a", "{}")
	if cs := link.Candidates(); len(cs) != 1 || cs[0].Verb != wrappers.Message {
		t.Errorf("a POST that a bind names: got %+v, want a message", cs)
	}
}

func TestVirtualErrorsOfTheLink(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, nil)
	for kind, want := range map[error]int{
		wrappers.ErrUnmapped: 404, wrappers.ErrInvalid: 422, wrappers.ErrNotFound: 404, wrappers.ErrDenied: 403,
		wrappers.ErrConflict: 409, wrappers.ErrTooLarge: 413, wrappers.ErrUnavailable: 503, context.Canceled: 503,
	} {
		link.Fail(wrappertest.CallDo, fmt.Errorf("secret detail: %w", kind))
		resp, body := ask(t, c, want, "PUT", oven, "{}")
		if strings.Contains(body, "secret") {
			t.Errorf("%v: the peer sees %s", kind, body)
		}
		if want == 503 && resp.Header.Get("Retry-After") == "" {
			t.Errorf("%v: no Retry-After", kind)
		}
	}
	link.Fail(wrappertest.CallDo, wrappers.Refuse(wrappers.ErrInvalid, "value must be a number"))
	if _, body := ask(t, c, 422, "PUT", oven, "{}"); !strings.Contains(body, "value must be a number") {
		t.Errorf("got %s, want the reason", body)
	}
}

func TestVirtualBodyLimit(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, func(c *wrappers.Config) { c.Limits.Frame = 10 })
	ask(t, c, 413, "PUT", oven, "0123456789a")
	r, _ := http.NewRequestWithContext(t.Context(), "PUT", c.base+oven, io.MultiReader(strings.NewReader("0123456789"), strings.NewReader("a")))
	resp, err := c.http.Do(r)
	if err != nil || resp.StatusCode != 413 {
		t.Errorf("without a length: got %v, %v; want 413", resp, err)
	}
	if n := link.Counted("oversized"); n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
	ask(t, c, 201, "PUT", oven, "0123456789")
}

func TestVirtualLists(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, nil)
	for _, a := range []string{"/v1/berlin/a", "/v1/berlin/b b", "/v1/berlin/c", "/v1/hamburg/d"} {
		link.PushPut(a, "{}")
	}
	type item struct{ Href, ETag string }
	list := func(path string) (items []string, next string) {
		t.Helper()
		resp, body := ask(t, c, 200, "GET", path, "")
		var got []item
		if err := json.Unmarshal([]byte(body), &got); err != nil {
			t.Fatalf("%s: %v in %s", path, err, body)
		}
		for _, it := range got {
			items = append(items, it.Href)
			if strings.HasSuffix(it.Href, "/") != (it.ETag == "") {
				t.Errorf("%s: got tag %q", it.Href, it.ETag)
			}
		}
		if l := resp.Header.Get("Link"); l != "" {
			next = l[1:strings.Index(l, ">")]
			if !strings.HasSuffix(l, `>; rel="next"`) {
				t.Errorf("Link: %s", l)
			}
		}
		return items, next
	}
	if got, _ := list("/v1/"); !slices.Equal(got, []string{"/v1/berlin/", "/v1/hamburg/"}) {
		t.Errorf("/v1/: got %q", got)
	}
	if got, _ := list("/"); !slices.Equal(got, []string{"/v1/"}) {
		t.Errorf("/: got %q", got)
	}
	var all []string
	for next := "/v1/berlin/?limit=2"; next != ""; {
		var page []string
		page, next = list(next)
		all = append(all, page...)
	}
	if !slices.Equal(all, []string{"/v1/berlin/a", "/v1/berlin/b%20b", "/v1/berlin/c"}) {
		t.Errorf("pages: got %q", all)
	}
	ask(t, c, 200, "GET", "/v1/berlin/b%20b", "")
	ask(t, c, 400, "GET", "/v1/berlin/?limit=x", "")
	ask(t, c, 404, "GET", "/v2/", "")
	if got, _ := list("/v1/nowhere/"); len(got) != 0 {
		t.Errorf("an empty list: got %q", got)
	}
}

func next(t *testing.T, events <-chan event) event {
	t.Helper()
	select {
	case e, open := <-events:
		if !open {
			t.Fatal("the stream ended")
		}
		return e
	case <-time.After(10 * time.Second):
		t.Fatal("no event within 10 s")
	}
	return event{}
}

func TestVirtualEvents(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, nil)
	link.PushPut(oven, `{"value":1}`)
	events, err := c.stream(oven)
	if err != nil {
		t.Fatal(err)
	}
	state := next(t, events)
	if state.data != `{"value":1}` || state.id == "" {
		t.Errorf("at first: got %+v, want the state and its place", state)
	}
	link.PushPut("/v1/berlin/other", `{}`)
	link.PushPut(oven, "two\nlines")
	e := next(t, events)
	if e.data != "two\nlines" || e.id == "" {
		t.Errorf("a change: got %+v", e)
	}
	link.PushPut(oven, "a\rb\xff")
	if e := next(t, events); e.name != "base64" || e.data != "YQ1i/w==" {
		t.Errorf("bytes: got %+v", e)
	}
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: oven})
	if e := next(t, events); e.name != "gone" || e.data != "" {
		t.Errorf("a delete: got %+v", e)
	}
	early, err := c.stream(oven, "Last-Event-ID", state.id)
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, early); e.data != "two\nlines" {
		t.Errorf("resumed behind the state: got %+v", e)
	}
	again, err := c.stream(oven, "Last-Event-ID", e.id)
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, again); e.name != "base64" {
		t.Errorf("resumed: got %+v, want what came behind the id", e)
	}
	if e := next(t, again); e.name != "gone" {
		t.Errorf("resumed: got %+v", e)
	}
	if _, err := c.stream("/v2/x"); err == nil {
		t.Error("a stream of what no bind maps")
	}
}

func TestVirtualEventsOfAPrefix(t *testing.T) {
	link := newLink()
	c := virtualAt(t, link, func(c *wrappers.Config) { c.Options["heartbeat_ms"] = int64(20) })
	events, err := c.stream("/v1/berlin/")
	if err != nil {
		t.Fatal(err)
	}
	link.PushPut("/v1/hamburg/x", `{}`)
	link.PushPut(oven, `{"value":1}`)
	link.PushPut("/v1/berlin/b b", "text")
	link.Push(wrappers.Operation{Verb: wrappers.Delete, Address: oven})
	want := []string{`{"href":"/v1/berlin/oven-3","value":{"value":1}}`, `{"href":"/v1/berlin/b%20b","text":"text"}`, `{"gone":true,"href":"/v1/berlin/oven-3"}`}
	alive := false
	for _, w := range want {
		e := next(t, events)
		for e.name == "comment" {
			alive = true
			e = next(t, events)
		}
		var got map[string]any
		if err := json.Unmarshal([]byte(e.data), &got); err != nil {
			t.Fatalf("%+v: %v", e, err)
		}
		delete(got, "etag")
		b, _ := json.Marshal(got)
		if string(b) != w || e.id == "" {
			t.Errorf("got %s with id %q, want %s", b, e.id, w)
		}
	}
	for !alive {
		alive = next(t, events).name == "comment"
	}
}

// users is a Logon with one user.
type users struct{ name, password string }

func (u users) Any() bool { return u.name != "" }

func (u users) Scram(string) (wrappers.ScramKeys, string, bool) {
	return wrappers.ScramKeys{}, "", false
}
func (u users) Password(_ context.Context, name, password string) (string, error) {
	if name == u.name && password == u.password {
		return "principal of " + name, nil
	}
	return "", wrappers.ErrDenied
}

func TestVirtualLogon(t *testing.T) {
	basic := "Basic YW5uOnNlY3JldA==" // ann:secret
	for _, tt := range []struct {
		name      string
		anonymous wrappers.Access
		logon     wrappers.Logon
		auth      string
		get, put  int
	}{
		{"nobody", wrappers.NoAccess, users{}, "", 403, 403},
		{"reader", wrappers.ReadAccess, users{}, "", 200, 403},
		{"anyone", wrappers.WriteAccess, nil, "", 200, 204},
		{"users, without", wrappers.NoAccess, users{"ann", "secret"}, "", 401, 401},
		{"users, public", wrappers.ReadAccess, users{"ann", "secret"}, "", 200, 401},
		{"ann", wrappers.NoAccess, users{"ann", "secret"}, basic, 200, 204},
		{"wrong", wrappers.WriteAccess, users{"ann", "other"}, basic, 401, 401},
		{"other scheme", wrappers.WriteAccess, users{"ann", "secret"}, "Bearer x", 401, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			link := newLink()
			link.PushPut(oven, "{}")
			c := virtualAt(t, link, func(c *wrappers.Config) { c.Anonymous, c.Logon = tt.anonymous, tt.logon })
			var headers []string
			if tt.auth != "" {
				headers = []string{"Authorization", tt.auth}
			}
			for method, want := range map[string]int{"GET": tt.get, "PUT": tt.put} {
				resp, _ := ask(t, c, want, method, oven, map[string]string{"PUT": "{}"}[method], headers...)
				if (want == 401) != (resp.Header.Get("WWW-Authenticate") != "") {
					t.Errorf("%s: WWW-Authenticate: %q", method, resp.Header.Get("WWW-Authenticate"))
				}
			}
			for _, cand := range link.Candidates(wrappertest.ViaDo) {
				who := cand.Op.Who
				if who.Verified != (tt.auth != "") || who.Verified && who.Principal != "principal of ann" {
					t.Errorf("who: got %+v", who)
				}
				for k := range cand.Op.Payload.Meta {
					if k == "authorization" {
						t.Error("the password is in meta")
					}
				}
			}
		})
	}
}

func TestVirtualHTTP2WithoutTLS(t *testing.T) {
	c := virtualAt(t, newLink(), nil)
	p := &http.Protocols{}
	p.SetUnencryptedHTTP2(true)
	c.http.Transport = &http.Transport{Protocols: p}
	resp, _ := ask(t, c, 201, "PUT", oven, "{}")
	if resp.ProtoMajor != 2 {
		t.Errorf("got %s, want HTTP/2", resp.Proto)
	}
}

func TestVirtualSlowHeadLosesItsSession(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Limits.Handshake = 100 * time.Millisecond })
	c, r := dialRaw(t, rig.Addr)
	send(t, c, "GET "+oven+" HTTP/1.1\r\nHost:")
	began := time.Now()
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("got %v, want an orderly end", err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("a peer that says half a head kept its session for %v", d)
	}
}

func TestVirtualStreamsEndWithTheWrapper(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Drain = 10 * time.Second })
	events, err := newClient(t, rig.Addr).stream("/v1/berlin/")
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := rig.Stop(); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("a stream held the drain for %v", d)
	}
	for range events {
		t.Error("an event after the end")
	}
}

func TestVirtualCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	link := newLink()
	rig := startVirtual(t, link, nil)
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sS", "--fail-with-body", "--max-time", "10"}, args...)...).CombinedOutput()
		if err != nil {
			t.Errorf("curl %q: %v %s", args, err, out)
		}
		return string(out)
	}
	url := "http://" + rig.Addr + oven
	run("-X", "PUT", url, "-d", `{"value":21.5}`)
	if got := run(url); got != `{"value":21.5}` {
		t.Errorf("got %s", got)
	}
	run("-T", "/proc/self/cmdline", url) // a body of unknown length, with Expect
	run("-X", "PATCH", url, "-d", `{"value":22}`)
	if got := run("-i", url); !strings.Contains(got, "application/json") {
		t.Errorf("curl's -d is taken for a form: %s", got)
	}
}

// What a peer may not read it is neither given nor told of, and who may not is told so.
func TestVirtualAccess(t *testing.T) {
	basic := "Basic YW5uOnNlY3JldA==" // ann:secret
	link := newLink()
	link.PushPut("/v1/berlin/a", `{"value":1}`)
	link.PushPut("/v1/berlin/secret", `{"value":2}`)
	link.RefuseIf(func(verb wrappers.Verb, address string, who wrappers.Who) bool {
		return address == "/v1/berlin/secret" || verb.Writes() && !who.Verified
	})
	c := virtualAt(t, link, func(c *wrappers.Config) { c.Logon, c.Anonymous = users{"ann", "secret"}, wrappers.WriteAccess })
	for _, tt := range []struct {
		method, path string
		auth         string
		want         int
	}{
		{"GET", "/v1/berlin/a", "", 200}, {"GET", "/v1/berlin/secret", "", 401}, {"GET", "/v1/berlin/secret", basic, 403},
		{"PUT", "/v1/berlin/a", "", 401}, {"PUT", "/v1/berlin/a", basic, 204}, {"PUT", "/v1/berlin/secret", basic, 403},
	} {
		var headers []string
		if tt.auth != "" {
			headers = []string{"Authorization", tt.auth}
		}
		resp, body := ask(t, c, tt.want, tt.method, tt.path, map[string]string{"PUT": `{"value":3}`}[tt.method], headers...)
		if tt.want >= 400 && (resp.Header.Get("Content-Type") != "application/problem+json" || tt.want == 403 && !strings.Contains(body, "may not")) {
			t.Errorf("%s %s: %s %s", tt.method, tt.path, resp.Header.Get("Content-Type"), body)
		}
		if (tt.want == 401) != (resp.Header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s %s: WWW-Authenticate: %q", tt.method, tt.path, resp.Header.Get("WWW-Authenticate"))
		}
	}
	if _, body := ask(t, c, 200, "GET", "/v1/berlin/", ""); strings.Contains(body, "secret") {
		t.Errorf("the list: %s", body)
	}
	if _, err := c.stream("/v1/berlin/secret"); err == nil {
		t.Error("a stream of what it may not read")
	}
	events, err := c.stream("/v1/berlin/")
	if err != nil {
		t.Fatal(err)
	}
	link.PushPut("/v1/berlin/secret", `{"value":4}`)
	link.PushPut("/v1/berlin/a", `{"value":5}`)
	if e := next(t, events); !strings.Contains(e.data, "/v1/berlin/a") {
		t.Errorf("the stream of the prefix: %+v", e)
	}
}
