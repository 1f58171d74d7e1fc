package gateway

import (
	"errors"
	"os/user"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const wards = `
register "ward/{ward}/{bed}" {
  bind "docs" "/ward/{ward}/{bed}" {}
  bind "docs" "/board/{ward}/{bed}" {
    read  = ["ann"]
    write = ["dora"]
  }
  bind "talk" "ward/{ward}/{bed}" {}
}
register "menu/{day}" {
  bind "docs" "/menu/{day}" {}
  bind "talk" "menu/{day}" {}
}
register "call/{bed}" {
  bind "docs" "/calls" {
    direction = "in"
    key       = { bed = payload.bed }
  }
}
`

// guard puts access blocks in force.
func (w *world) guard(hcl string, groups map[string][]string, blocks ...AccessBlock) {
	w.t.Helper()
	set := w.set(hcl)
	p, err := newPolicy(blocks, groups, set)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Use(&Generation{Number: w.gen.Load().Number + 1, Set: set, Access: p})
}

var wardAccess = []AccessBlock{
	{Register: "ward/{ward}/{bed}", Read: []string{"ann", "@nurses", "talk/talk"}, Write: []string{"@doctors"}, Source: "gateway.hcl:3"},
	{Register: "ward/closed/{bed}", Read: []string{}, Source: "gateway.hcl:7"},
	{Register: "call/{bed}", Write: []string{"nina"}, Source: "gateway.hcl:9"},
}

var wardGroups = map[string][]string{"nurses": {"nina"}, "doctors": {"dora", "talk/talk:dora"}}

func by(name string, op wrappers.Operation) wrappers.Operation {
	op.Who = wrappers.Who{Principal: name, Verified: name != "", Peer: "test"}
	return op
}

func TestAccess(t *testing.T) {
	w := newWorld(t, wards, virtualDocs(), virtualTalk())
	w.guard(wards, wardGroups, wardAccess...)
	link := w.door("docs")
	put := func(who, address string) error {
		_, err := link.Do(t.Context(), by(who, doc(wrappers.Put, address, `{"pulse":70,"bed":"1"}`)))
		return err
	}
	get := func(who, address string) error {
		_, err := link.Do(t.Context(), by(who, doc(wrappers.Read, address, "")))
		return err
	}
	for _, c := range []struct {
		do           func(who, address string) error
		who, address string
		may          bool
	}{
		{put, "dora", "/ward/a/1", true}, {put, "ann", "/ward/a/1", false}, {put, "nina", "/ward/a/1", false}, {put, "", "/ward/a/1", false},
		{get, "ann", "/ward/a/1", true}, {get, "nina", "/ward/a/1", true}, {get, "bob", "/ward/a/1", false}, {get, "", "/ward/a/1", false},
		{get, "dora", "/ward/a/1", true}, // who may write may read
		{put, "dora", "/ward/closed/1", false}, {get, "ann", "/ward/closed/1", false},
		{get, "nina", "/board/a/1", false}, {get, "ann", "/board/a/1", true}, {get, "dora", "/board/a/1", true}, // the bind narrows
		{put, "dora", "/board/a/1", true}, {put, "ann", "/board/a/1", false},
		{put, "bob", "/menu/monday", true}, {get, "", "/menu/monday", true}, // no block has it
		{put, "nina", "/calls", true}, {put, "ann", "/calls", false}, // the payload says which register
	} {
		err := c.do(c.who, c.address)
		if c.may && err != nil || !c.may && !errors.Is(err, wrappers.ErrDenied) {
			t.Errorf("%q at %s: got %v, want may %v", c.who, c.address, err, c.may)
		}
		may := link.May(wrappers.Put, "", c.address, by(c.who, wrappers.Operation{}).Who)
		if c.address == "/calls" && (may == nil) != c.may {
			t.Errorf("may %q at %s: got %v", c.who, c.address, may)
		}
	}
	// All or nothing: one part that is not allowed refuses the rest.
	both := by("bob", wrappers.Operation{Parts: []wrappers.Operation{doc(wrappers.Put, "/menu/tuesday", `{"soup":1}`), doc(wrappers.Put, "/ward/a/2", `{"pulse":1}`)}})
	if _, err := link.Do(t.Context(), both); !errors.Is(err, wrappers.ErrDenied) || w.value("menu/tuesday") != "gone" {
		t.Errorf("a batch with a part that is not allowed: %v, %s", err, w.value("menu/tuesday"))
	}
	rename := by("dora", wrappers.Operation{Verb: wrappers.Rename, Address: "/ward/a/1", To: "/ward/closed/1"})
	if _, err := link.Do(t.Context(), rename); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("a rename to where nobody may write: %v", err)
	}
}

// A list holds what its peer may read, and no prefix of which it may read nothing.
func TestAccessList(t *testing.T) {
	w := newWorld(t, wards, virtualDocs(), virtualTalk())
	w.put("ward/a/1", "pulse", "70")
	w.put("ward/closed/2", "pulse", "71")
	w.guard(wards, wardGroups, wardAccess...)
	link := w.door("docs")
	list := func(who, prefix string) string {
		r, err := link.Do(t.Context(), by(who, wrappers.Operation{Verb: wrappers.List, Address: prefix}))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, i := range r.Items {
			got = append(got, i.Address)
		}
		return strings.Join(got, " ")
	}
	if got := list("ann", "/ward/"); got != "/ward/a/" {
		t.Errorf("ann: %q", got)
	}
	if got := list("ann", "/ward/a/"); got != "/ward/a/1" {
		t.Errorf("ann in a: %q", got)
	}
	if got := list("bob", "/ward/"); got != "" {
		t.Errorf("bob: %q", got)
	}
	if got := list("nina", "/board/"); got != "" {
		t.Errorf("nina, whom the bind leaves out: %q", got)
	}
}

// In front of a server a write is refused before the server hears of it, and what the server's own peers may not read is
// not told to it.
func TestAccessRelay(t *testing.T) {
	w := newWorld(t, wards, relayDocs(), virtualTalk())
	w.guard(wards, wardGroups, AccessBlock{Register: "ward/{ward}/{bed}", Write: []string{"docs/docs:dora"}})
	server := newDocServer(t, w.door("docs"), nil)
	begin := func(name string) error {
		op := doc(wrappers.Put, "/ward/a/1", `{"pulse":70}`)
		op.Who.Principal = name
		in, err := server.link.Begin(t.Context(), op)
		if err == nil {
			_, err = in.Commit(t.Context(), op)
		}
		return err
	}
	if err := begin("docs/docs:ann"); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("ann: %v", err)
	}
	if err := begin("docs/docs:dora"); err != nil {
		t.Errorf("dora: %v", err)
	}
	w.put("ward/b/2", "pulse", "80")
	w.put("menu/monday", "soup", "1")
	w.until("the menu is told", func() bool { return server.doc("/menu/monday") != "" })
	if got := server.doc("/ward/b/2"); got != "" {
		t.Errorf("told what its peers may not read: %s", got)
	}
	// Allowed by a reload, it is told what it lacks.
	w.guard(wards, wardGroups, AccessBlock{Register: "ward/{ward}/{bed}", Read: []string{"docs/docs"}})
	w.until("what it lacked is told", func() bool { return server.doc("/ward/b/2") == `{"pulse":80}` })
}

// What a server says by itself counts as its wrapper's word.
func TestAccessFeed(t *testing.T) {
	w := newWorld(t, wards, relayTalk(), virtualDocs())
	w.guard(wards, nil, AccessBlock{Register: "ward/{ward}/{bed}", Read: []string{"talk/talk"}, Write: []string{"talk/talk:dora"}})
	server := newTalkServer(t, w.door("talk"), nil)
	server.publish("menu/monday", `{"soup":1}`, false)
	server.publish("ward/a/1", `{"pulse":1}`, false)
	w.until("it is parked", func() bool {
		items, err := w.Parked(t.Context())
		return err == nil && len(items) == 1 && strings.Contains(items[0].Reason, "may not write ward/a/1")
	})
	if got := w.value("ward/a/1"); got != "gone" {
		t.Errorf("a write that was not allowed: %s", got)
	}
	// Tried again, it is as little allowed, until the block says so.
	items, err := w.Parked(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Retry(t.Context(), items[0].ID); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("retry: %v", err)
	}
	w.guard(wards, nil, AccessBlock{Register: "ward/{ward}/{bed}", Write: []string{"talk/talk"}})
	if err := w.Retry(t.Context(), items[0].ID); err != nil || w.value("ward/a/1") != `{"pulse":1}` {
		t.Errorf("retry of what is allowed now: %v, %s", err, w.value("ward/a/1"))
	}
	if got := w.value("menu/monday"); got != `{"soup":1}` {
		t.Errorf("one that was: %s", got)
	}
}

func TestAccessAtSocket(t *testing.T) {
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := newStage(t, `
wrapper "line" "a" {
  listen = "127.0.0.1:0"
}
user "ann" {
  password = env("HOME")
}
access "site/berlin/{name}" {
  read = ["ann", "line/a", "`+me.Username+`"]
}
access "site/paris/{name}" {
  read = ["line/*"]
}
access "site/oslo/{name}" {
  write = ["*"]
}
`, nil)
	c, err := daemonclient.Dial(t.Context(), s.opts.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	write := func(name string) error {
		_, err := c.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "site/" + name, Kind: engine.OpPut, Field: "value", Value: number(1)}}})
		return err
	}
	for _, name := range []string{"berlin/x", "paris/x"} {
		if err := write(name); !errors.Is(err, engine.ErrDenied) {
			t.Errorf("write of %s: %v", name, err)
		}
	}
	if err := write("oslo/x"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"berlin/x", "paris/x"} {
		if _, err := s.g.domains.first().store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "site/" + name, Kind: engine.OpPut, Field: "value", Value: number(1)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.ReadState(t.Context(), "site/berlin/x"); err != nil {
		t.Error(err)
	}
	denied := map[string]func() error{
		"readState": func() error { _, err := c.ReadState(t.Context(), "site/paris/x"); return err },
		"stateAt": func() error {
			_, err := c.StateAt(t.Context(), "site/paris/x", engine.Moment{Ordinal: 1})
			return err
		},
		"explain":  func() error { _, err := c.Explain(t.Context(), "site/paris/x"); return err },
		"collapse": func() error { _, err := c.Collapse(t.Context(), "site/paris/x", engine.Cause{}); return err },
		"revert": func() error {
			_, err := c.Revert(t.Context(), "site/berlin/x", engine.Moment{Ordinal: 1}, engine.Cause{})
			return err
		},
		"history": func() error {
			for _, err := range c.History(t.Context(), engine.HistoryQuery{Register: "site/paris/x"}) {
				return err
			}
			return nil
		},
	}
	for name, do := range denied {
		if err := do(); !errors.Is(err, engine.ErrDenied) {
			t.Errorf("%s: got %v, want it denied", name, err)
		}
	}
	var names []string
	for st, err := range c.List(t.Context(), "site/", "", 0) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, st.Register)
	}
	if want := []string{"site/berlin/x", "site/oslo/x"}; !slices.Equal(names, want) {
		t.Errorf("list: %q, want %q", names, want)
	}
	var seen []string
	for d, err := range c.Observe(t.Context(), engine.Filter{Prefix: "site/"}, engine.Cursor{}) {
		if err != nil {
			t.Fatal(err)
		}
		if seen = append(seen, d.After.Register); len(seen) == 2 {
			break
		}
	}
	if slices.Contains(seen, "site/paris/x") {
		t.Errorf("observed: %q", seen)
	}
	ask := func(who, register string) (a AccessAnswer) {
		if err := c.Call(t.Context(), "access", map[string]any{"who": who, "register": register}, &a); err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask("ann", "site/berlin/x"); !a.Read.May || a.Write.May || !strings.HasSuffix(a.Read.Source, "gateway.hcl:9") || a.Read.Why != `access "site/berlin/{name}" lets "ann" read` {
		t.Errorf("ann in berlin: %+v", a)
	}
	if a := ask("ann", "site/paris/x"); !a.Read.May || !strings.Contains(a.Read.Why, "only through it") {
		t.Errorf("ann in paris: %+v", a)
	}
	if a := ask("line/a", "site/berlin/x"); a.Read.May || !strings.HasSuffix(a.Read.Source, "gateway.hcl:3") {
		t.Errorf("without logging on: %+v", a)
	}
	if a := ask("ann", "elsewhere"); !a.Read.May || !a.Write.May || a.Write.Source != "" {
		t.Errorf("ann elsewhere: %+v", a)
	}
	if err := c.Call(t.Context(), "access", map[string]any{"who": "line/b", "register": "x"}, nil); !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), "did you mean line/a") {
		t.Errorf("a wrapper that is not there: %v", err)
	}
}

// Lists name people in every way they can be named.
func TestPrincipals(t *testing.T) {
	groups := map[string][]string{"g": {"ann", "mqtt/floor:joe", "http/*"}}
	ann := principal{protocol: "mqtt", wrapper: "floor", name: "ann", user: true}
	joe := principal{protocol: "mqtt", wrapper: "floor", name: "joe"}
	nobody := principal{protocol: "mqtt", wrapper: "floor"}
	web := principal{protocol: "http", wrapper: "web"}
	for _, c := range []struct {
		who   principal
		entry string
		want  bool
	}{
		{ann, "ann", true}, {joe, "joe", false}, {joe, "mqtt/floor:joe", true}, {ann, "mqtt/floor:ann", false},
		{nobody, "mqtt/floor", true}, {ann, "mqtt/floor", true}, {nobody, "mqtt/*", true}, {nobody, "mqtt/roof", false}, {web, "mqtt/*", false},
		{ann, "@g", true}, {joe, "@g", true}, {web, "@g", true}, {nobody, "@g", false}, {ann, "@h", false}, {nobody, "*", true},
		{joe, "mqtt/*:joe", true},
	} {
		if got := c.who.is(c.entry, groups); got != c.want {
			t.Errorf("%s is %q: got %v", c.who, c.entry, got)
		}
	}
}
