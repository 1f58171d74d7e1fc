package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// Two protocols of the test's own: docs keeps documents and has no feed, talk is a stream of
// messages with one.
var (
	docs = wrappers.Protocol{Name: "docs", Syntax: wrappers.Syntax{Separator: "/", Absolute: true, Query: true}}
	talk = wrappers.Protocol{Name: "talk", Syntax: wrappers.Syntax{Separator: "/"}, Messages: true, Feed: true}
)

const ovens = `
register "oven/{o}" {
  bind "docs" "/oven/{o}" {}
  bind "talk" "oven/{o}" {}
}
`

// world is a gateway's links over a store, and the events they emitted.
type world struct {
	*Links
	t     *testing.T
	fs    *vfs.MemFS
	store *engine.Engine
	infos []LinkInfo
	mu    sync.Mutex
	seen  []Event
	woke  chan struct{}
}

func newWorld(t *testing.T, hcl string, infos ...LinkInfo) *world {
	w := &world{t: t, fs: vfs.NewMem(), infos: infos, woke: make(chan struct{})}
	w.open(hcl)
	t.Cleanup(func() { w.store.Close() })
	return w
}

func (w *world) open(hcl string) {
	w.t.Helper()
	store, err := engine.Open(engine.Options{Dir: "data", FS: w.fs, Log: slog.New(slog.DiscardHandler), MinFree: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	w.store = store
	w.Links = NewLinks(LinksOptions{Store: store, Log: slog.New(slog.DiscardHandler), Emit: w.note})
	w.Use(&Generation{Number: 1, Set: w.set(hcl)})
}

// restart closes the store and opens it again, as after a stop.
func (w *world) restart(hcl string) {
	w.t.Helper()
	if err := w.store.Close(); err != nil {
		w.t.Fatal(err)
	}
	w.open(hcl)
}

func (w *world) set(hcl string) *mapping.Set {
	w.t.Helper()
	var in mapping.Input
	in.Files = []diag.File{{Name: "test.hcl", Bytes: []byte(hcl)}}
	in.Domains = []string{"local"}
	for _, i := range w.infos {
		in.Wrappers = append(in.Wrappers, mapping.WrapperInfo{
			Protocol: i.Protocol, Name: i.Name, Upstream: i.Relay || i.Attached, Listens: !i.Attached,
		})
	}
	set, diags := mapping.Load(in)
	if diags.HasErrors() {
		var b strings.Builder
		diags.WriteText(&b, false, 100)
		w.t.Fatal(b.String())
	}
	return set
}

func (w *world) note(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, e)
	close(w.woke)
	w.woke = make(chan struct{})
}

// until waits for a condition that events may make true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond) // some conditions are a server's, and emit nothing
	defer tick.Stop()
	for !ok() {
		w.mu.Lock()
		woke := w.woke
		w.mu.Unlock()
		select {
		case <-woke:
		case <-tick.C:
		case <-late:
			w.t.Fatalf("never happened: %s", what)
		}
	}
}

func (w *world) door(name string) wrappers.Link {
	for _, i := range w.infos {
		if i.Name == name {
			return w.Open(i)
		}
	}
	w.t.Fatalf("no wrapper %s", name)
	return nil
}

func (w *world) value(register string) string {
	w.t.Helper()
	st, err := w.store.ReadState(w.t.Context(), register)
	if err != nil {
		w.t.Fatal(err)
	}
	if !st.Exists {
		return "gone"
	}
	return string(st.Value.AppendJSON(nil))
}

func (w *world) history(register string) []engine.QDelta {
	w.t.Helper()
	var out []engine.QDelta
	for d, err := range w.store.History(w.t.Context(), engine.HistoryQuery{Register: register, Limit: 10_000}) {
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, d)
	}
	return out
}

// put writes a register as an application would.
func (w *world) put(register, field, number string) {
	w.t.Helper()
	v, err := lattice.ParseJSON([]byte(number))
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.WriteState(w.t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpPut, Field: field, Value: v}}}); err != nil {
		w.t.Fatal(err)
	}
}

func virtualDocs() LinkInfo {
	return LinkInfo{Protocol: docs, Name: "docs", Anonymous: wrappers.WriteAccess}
}
func virtualTalk() LinkInfo {
	return LinkInfo{Protocol: talk, Name: "talk", Anonymous: wrappers.WriteAccess}
}
func relayDocs() LinkInfo { return LinkInfo{Protocol: docs, Name: "docs", Relay: true} }
func relayTalk() LinkInfo { return LinkInfo{Protocol: talk, Name: "talk", Relay: true} }

func doc(verb wrappers.Verb, address, body string) wrappers.Operation {
	return wrappers.Operation{Verb: verb, Address: address, Payload: wrappers.Payload{Raw: []byte(body)}, Who: wrappers.Who{Peer: "test"}}
}

// docServer is a real server without a feed, with the wrapper that stands in front of it.
type docServer struct {
	mu     sync.Mutex
	docs   map[string]string
	writes []string
	reads  int
	link   wrappers.Link
	refuse func(wrappers.Change) *wrappers.Effect
}

func newDocServer(t *testing.T, link wrappers.Link, have map[string]string) *docServer {
	s := &docServer{docs: have, link: link}
	if s.docs == nil {
		s.docs = map[string]string{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := range link.Follow(ctx, wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			if err := link.Settle(ctx, c, s.apply(ctx, c)); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func (s *docServer) apply(ctx context.Context, c wrappers.Change) wrappers.Effect {
	if c.ReadBack {
		s.mu.Lock()
		s.reads++
		have, ok := s.docs[c.Address]
		s.mu.Unlock()
		o := wrappers.Observation{Address: c.Address, Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(have)}}
		if !ok {
			o.Verb, o.Payload = wrappers.Delete, wrappers.Payload{}
		}
		if err := s.link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{o}); err != nil {
			return wrappers.Effect{Outcome: wrappers.Retry, Err: err}
		}
		return wrappers.Effect{Outcome: wrappers.Done}
	}
	s.mu.Lock()
	refuse := s.refuse
	s.mu.Unlock()
	if refuse != nil {
		if e := refuse(c); e != nil {
			return *e
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Gone {
		delete(s.docs, c.Address)
		s.writes = append(s.writes, "delete "+c.Address)
	} else {
		pay := c.Payload
		if have, ok := s.docs[c.Address]; ok && c.Onto != nil {
			var err error
			if pay, err = c.Onto(wrappers.Payload{Raw: []byte(have)}); err != nil {
				return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
			}
		}
		s.docs[c.Address] = string(pay.Raw)
		s.writes = append(s.writes, c.Address+" "+string(pay.Raw))
	}
	return wrappers.Effect{Outcome: wrappers.Done}
}

// refuses makes the server answer writes as f says, until f is nil.
func (s *docServer) refuses(f func(wrappers.Change) *wrappers.Effect) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

func (s *docServer) doc(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.docs[address]
}

func (s *docServer) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// client does what a peer's write through the relay does.
func (s *docServer) client(ctx context.Context, verb wrappers.Verb, address, body string) error {
	op := doc(verb, address, body)
	in, err := s.link.Begin(ctx, op)
	if err != nil {
		return err
	}
	s.mu.Lock()
	if verb == wrappers.Delete {
		delete(s.docs, address)
	} else {
		s.docs[address] = body
	}
	s.mu.Unlock()
	_, err = in.Commit(ctx, op)
	return err
}

// talkServer is a broker: one ordered stream per server that shows everything, own writes included.
type talkServer struct {
	mu     sync.Mutex
	last   map[string]string
	writes []string
	link   wrappers.Link
	stream chan wrappers.Observation
}

func newTalkServer(t *testing.T, link wrappers.Link, retained map[string]string) *talkServer {
	s := &talkServer{last: maps.Clone(retained), link: link, stream: make(chan wrappers.Observation, 10_000)}
	if s.last == nil {
		s.last = map[string]string{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		var have []wrappers.Observation
		for a, p := range retained {
			have = append(have, wrappers.Observation{Address: a, Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(p)}})
		}
		if err := link.Seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, have); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		for {
			select {
			case o := <-s.stream:
				if err := link.Seen(ctx, wrappers.Position{Feed: true}, []wrappers.Observation{o}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			case <-ctx.Done():
				return
			}
		}
	})
	wg.Go(func() {
		for c, err := range link.Follow(ctx, wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			s.publish(c.Address, string(c.Payload.Raw), false)
			s.mu.Lock()
			s.writes = append(s.writes, c.Address+" "+string(c.Payload.Raw))
			s.mu.Unlock()
			if err := link.Settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func (s *talkServer) publish(address, payload string, wire bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last[address] = payload
	o := wrappers.Observation{Address: address, Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(payload)}, Wire: wire}
	if payload == "" {
		o.Verb = wrappers.Delete
	}
	s.stream <- o
}

func (s *talkServer) retained(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[address]
}

func (s *talkServer) written() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

func TestVirtual(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	ctx, link := t.Context(), w.door("docs")
	r, err := link.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":21.5,"unit":"C"}`))
	if err != nil || !r.Created || r.Cursor == "" {
		t.Fatalf("put: %+v, %v", r, err)
	}
	got, err := link.Do(ctx, doc(wrappers.Read, "/oven/3", ""))
	if err != nil || string(got.Payload.Raw) != `{"unit":"C","value":21.5}` || got.Version != r.Version {
		t.Fatalf("read: %s %+v, %v", got.Payload.Raw, got, err)
	}
	if r, err = link.Do(ctx, doc(wrappers.Merge, "/oven/3", `{"value":22,"unit":null}`)); err != nil || r.Created {
		t.Fatalf("merge: %+v, %v", r, err)
	}
	if got := w.value("oven/3"); got != `{"value":22}` {
		t.Errorf("after the merge: %s", got)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/oven/3", `{"unit":"F"}`)); err != nil {
		t.Fatal(err)
	}
	if got := w.value("oven/3"); got != `{"unit":"F"}` {
		t.Errorf("after the put: %s", got)
	}
	op := doc(wrappers.Put, "/oven/3", `{"unit":"K"}`)
	op.If.Match = []wrappers.Version{got2(t, link, "/oven/3")}
	if _, err = link.Do(ctx, op); err != nil {
		t.Errorf("put with the current version: %v", err)
	}
	if _, err = link.Do(ctx, op); !errors.Is(err, wrappers.ErrConflict) {
		t.Errorf("put with an old version: %v", err)
	}
	op.If = wrappers.Precondition{Differ: []wrappers.Version{wrappers.Any}}
	if _, err = link.Do(ctx, op); !errors.Is(err, wrappers.ErrConflict) {
		t.Errorf("create over what is there: %v", err)
	}
	for _, a := range []string{"/oven/4", "/oven/a%2Fb", "/oven/5"} {
		if _, err = link.Do(ctx, doc(wrappers.Put, a, `{"value":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/oven/", Limit: 3})
	if err != nil || !list.More || fmt.Sprint(addresses(list)) != "[/oven/3 /oven/4 /oven/5]" {
		t.Errorf("list: %v %v, %v", addresses(list), list.More, err)
	}
	list, err = link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/oven/", After: "/oven/5"})
	if err != nil || list.More || fmt.Sprint(addresses(list)) != "[/oven/a%2Fb]" {
		t.Errorf("rest of the list: %v, %v", addresses(list), err)
	}
	list, err = link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/"})
	if err != nil || fmt.Sprint(addresses(list)) != "[/oven/]" || !list.Items[0].Prefix {
		t.Errorf("top of the list: %v, %v", addresses(list), err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); err != nil {
		t.Fatal(err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Read, "/oven/3", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Errorf("read of what is gone: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Errorf("delete of what is gone: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/stove/3", "{}")); !errors.Is(err, wrappers.ErrUnmapped) {
		t.Errorf("put without a bind: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/oven/9", `{`)); !errors.Is(err, wrappers.ErrInvalid) {
		t.Errorf("put of garbage: %v", err)
	}
	if h := w.history("oven/3"); h[len(h)-1].Cause.Source != "test.hcl:3" || h[0].Cause.Protocol != "docs" || h[0].Cause.Peer != "test" {
		t.Errorf("cause: %+v", h[0].Cause)
	}
}

func got2(t *testing.T, link wrappers.Link, address string) wrappers.Version {
	t.Helper()
	r, err := link.Do(t.Context(), doc(wrappers.Read, address, ""))
	if err != nil {
		t.Fatal(err)
	}
	return r.Version
}

func addresses(r wrappers.Result) []string {
	var out []string
	for _, i := range r.Items {
		out = append(out, i.Address)
	}
	return out
}

func TestAnonymous(t *testing.T) {
	info := virtualDocs()
	info.Anonymous = wrappers.ReadAccess
	w := newWorld(t, ovens, info, virtualTalk())
	link := w.door("docs")
	op := doc(wrappers.Put, "/oven/1", "{}")
	if _, err := link.Do(t.Context(), op); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("write by nobody: %v", err)
	}
	op.Who.Verified = true
	if _, err := link.Do(t.Context(), op); err != nil {
		t.Errorf("write by somebody: %v", err)
	}
	if got := w.value("oven/1"); got != "{}" {
		t.Errorf("an empty object: %s", got)
	}
}

// One write at one door is one history entry, and one write at each other server.
func TestRelaysShareState(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), relayTalk())
	d := newDocServer(t, w.door("docs"), nil)
	s := newTalkServer(t, w.door("talk"), nil)
	if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":1}`); err != nil {
		t.Fatal(err)
	}
	w.until("the broker is told", func() bool { return s.retained("oven/3") == `{"value":1}` })
	s.publish("oven/3", `{"value":2}`, true)
	w.until("the documents are told", func() bool { return d.doc("/oven/3") == `{"value":2}` })
	s.publish("oven/3", `{"value":3}`, false) // past the gateway
	w.until("the documents are told", func() bool { return d.doc("/oven/3") == `{"value":3}` })
	if err := d.client(t.Context(), wrappers.Delete, "/oven/3", ""); err != nil {
		t.Fatal(err)
	}
	w.until("the broker's is cleared", func() bool { return s.retained("oven/3") == "" })
	if got := len(w.history("oven/3")); got != 4 {
		t.Errorf("history has %d entries, want 4", got)
	}
	if got, want := d.written(), []string{`/oven/3 {"value":2}`, `/oven/3 {"value":3}`}; !slices.Equal(got, want) {
		t.Errorf("documents written: %q, want %q", got, want)
	}
	if got, want := s.written(), []string{`oven/3 {"value":1}`, "oven/3 "}; !slices.Equal(got, want) {
		t.Errorf("published: %q, want %q", got, want)
	}
}

func TestTwoConnectionsOneAddress(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	n := 200
	var wg sync.WaitGroup
	for c := range 2 {
		wg.Go(func() {
			for i := range n {
				if err := d.client(t.Context(), wrappers.Put, "/oven/3", fmt.Sprintf(`{"value":%d}`, c*n+i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := w.value("oven/3"), d.doc("/oven/3"); got != want {
		t.Errorf("register %s, server %s", got, want)
	}
	if got := len(w.history("oven/3")); got != 2*n {
		t.Errorf("history has %d entries, want %d", got, 2*n)
	}
	if got := d.written(); len(got) != 0 {
		t.Errorf("written back: %q", got)
	}
}

// Both sides write at once, many times: when it is quiet they are equal.
func TestCrossingWrites(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), relayTalk())
	d := newDocServer(t, w.door("docs"), nil)
	s := newTalkServer(t, w.door("talk"), nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 200 {
			if err := d.client(t.Context(), wrappers.Put, "/oven/3", fmt.Sprintf(`{"value":%d}`, i)); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Go(func() {
		for i := range 200 {
			s.publish("oven/3", fmt.Sprintf(`{"value":%d}`, 1000+i), true)
		}
	})
	wg.Wait()
	w.until("all are equal", func() bool {
		v := w.value("oven/3")
		return len(w.history("oven/3")) == 400 && v == d.doc("/oven/3") && v == s.retained("oven/3")
	})
}

func TestFirstContact(t *testing.T) {
	conflicting := map[string]string{"/oven/1": `{"value":1}`, "/oven/2": `{"value":2}`, "/oven/3": `{"value":33}`}
	for _, first := range []string{"", "source", "register"} {
		t.Run(first, func(t *testing.T) {
			hcl := ovens
			if first != "" {
				hcl = strings.Replace(ovens, `"/oven/{o}" {}`, `"/oven/{o}" { first = "`+first+`" }`, 1)
			}
			w := newWorld(t, hcl, relayDocs(), virtualTalk())
			w.put("oven/2", "value", "2") // equal
			w.put("oven/3", "value", "3") // differs
			w.put("oven/4", "value", "4") // missing there
			d := newDocServer(t, w.door("docs"), maps.Clone(conflicting))
			w.until("the missing side is filled", func() bool { return d.doc("/oven/4") == `{"value":4}` })
			switch first {
			case "":
				w.until("the conflict is listed", func() bool {
					c := w.Contacts()
					return len(c) == 1 && c[0].State == "conflict" && strings.Contains(strings.Join(c[0].Conflicts, " "), "/oven/3")
				})
				if w.value("oven/3") != `{"value":3}` || d.doc("/oven/3") != `{"value":33}` {
					t.Errorf("register %s, server %s", w.value("oven/3"), d.doc("/oven/3"))
				}
				// Traffic passes, and settles it.
				if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":5}`); err != nil {
					t.Fatal(err)
				}
				if got := w.value("oven/3"); got != `{"value":5}` {
					t.Errorf("after a peer's write: %s", got)
				}
			case "source":
				w.until("the source wins", func() bool { return w.value("oven/3") == `{"value":33}` })
			case "register":
				w.until("the register wins", func() bool { return d.doc("/oven/3") == `{"value":3}` })
			}
			if got := d.doc("/oven/2"); got != `{"value":2}` {
				t.Errorf("equal sides: %s", got)
			}
			for _, x := range d.written() {
				if strings.HasPrefix(x, "/oven/2") || strings.HasPrefix(x, "/oven/1") {
					t.Errorf("written without need: %s", x)
				}
			}
		})
	}
}

func TestFirstContactOfAFeed(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	w.put("oven/2", "value", "2")
	w.put("oven/3", "value", "3")
	s := newTalkServer(t, w.door("talk"), map[string]string{"oven/1": `{"value":1}`, "oven/3": `{"value":33}`})
	w.until("the register is filled", func() bool { return w.value("oven/1") == `{"value":1}` })
	w.until("the broker is filled", func() bool { return s.retained("oven/2") == `{"value":2}` })
	if w.value("oven/3") != `{"value":3}` || s.retained("oven/3") != `{"value":33}` {
		t.Errorf("the conflict was not left alone: register %s, broker %s", w.value("oven/3"), s.retained("oven/3"))
	}
	if got, want := s.written(), []string{`oven/2 {"value":2}`}; !slices.Equal(got, want) {
		t.Errorf("published: %q, want %q", got, want)
	}
}

func TestUnknownOutcome(t *testing.T) {
	for _, arrived := range []bool{true, false} {
		t.Run(fmt.Sprint(arrived), func(t *testing.T) {
			w := newWorld(t, ovens, relayDocs(), virtualTalk())
			d := newDocServer(t, w.door("docs"), nil)
			if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":1}`); err != nil {
				t.Fatal(err)
			}
			in, err := d.link.Begin(t.Context(), doc(wrappers.Put, "/oven/3", `{"value":2}`))
			if err != nil {
				t.Fatal(err)
			}
			want := `{"value":1}`
			if arrived {
				want = `{"value":2}`
				d.mu.Lock()
				d.docs["/oven/3"] = want
				d.mu.Unlock()
			}
			in.Unknown()
			// The next writer waits until the server has been asked.
			if err := d.client(t.Context(), wrappers.Merge, "/oven/3", `{"next":true}`); err != nil {
				t.Fatal(err)
			}
			d.mu.Lock()
			reads := d.reads
			d.mu.Unlock()
			if reads == 0 {
				t.Error("the server was not asked")
			}
			if got, want := w.value("oven/3"), `{"next":true,`+want[1:]; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestUnknownMessage(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	in, err := d.link.Begin(t.Context(), doc(wrappers.Message, "/oven/3", `{"value":2}`))
	if err != nil {
		t.Fatal(err)
	}
	in.Unknown()
	items, err := w.Parked(t.Context())
	if err != nil || len(items) != 1 || !items[0].Unknown || items[0].Address != "/oven/3" {
		t.Fatalf("parked: %+v, %v", items, err)
	}
	if err := w.Retry(t.Context(), items[0].ID); err == nil {
		t.Error("a write of unknown outcome was done again")
	}
	if err := w.Drop(t.Context(), items[0].ID); err != nil {
		t.Fatal(err)
	}
	if items, _ = w.Parked(t.Context()); len(items) != 0 {
		t.Errorf("still parked: %+v", items)
	}
}

// A crash between Begin and Commit: the next run reads the address back before anybody writes there.
func TestIntentOutlivesTheProcess(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	link := w.door("docs")
	if _, err := link.Begin(t.Context(), doc(wrappers.Put, "/oven/3", `{"value":2}`)); err != nil {
		t.Fatal(err)
	}
	w.restart(ovens)
	d := newDocServer(t, w.door("docs"), map[string]string{"/oven/3": `{"value":2}`})
	w.until("the write is found", func() bool { return w.value("oven/3") == `{"value":2}` })
	w.until("the address is free", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		return d.client(ctx, wrappers.Put, "/oven/3", `{"value":3}`) == nil
	})
	for r, err := range w.store.EachKept(tableIntent, "") {
		t.Errorf("intent left: %q, %v", r.Key, err)
	}
}

func TestParked(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	d.refuses(func(c wrappers.Change) *wrappers.Effect {
		if c.Address == "/oven/1" {
			return &wrappers.Effect{Outcome: wrappers.Parked, Err: errors.New("422 too hot")}
		}
		return nil
	})
	w.put("oven/1", "value", "1")
	w.put("oven/2", "value", "2")
	w.until("the stream goes on", func() bool { return d.doc("/oven/2") != "" })
	var items []ParkedItem
	w.until("it is parked", func() bool { items, _ = w.Parked(t.Context()); return len(items) == 1 })
	if items[0].Reason != "422 too hot" || items[0].Register != "oven/1" || items[0].Way != "out" {
		t.Errorf("parked: %+v", items[0])
	}
	w.put("oven/1", "value", "11")
	w.until("its newest state is tried and parked again", func() bool {
		items, _ = w.Parked(t.Context())
		return len(items) == 1 && items[0].Tries == 2
	})
	d.refuses(nil)
	if err := w.Retry(t.Context(), items[0].ID); err != nil {
		t.Fatal(err)
	}
	w.until("it went through", func() bool { return d.doc("/oven/1") == `{"value":11}` })
	w.until("nothing is parked", func() bool { items, _ = w.Parked(t.Context()); return len(items) == 0 })

	// On its way in: the server took what the mapping can't read.
	if err := d.client(t.Context(), wrappers.Put, "/oven/7", `{"value":`); err != nil {
		t.Fatalf("the peer's success: %v", err)
	}
	items, err := w.Parked(t.Context())
	if err != nil || len(items) != 1 || items[0].Way != "in" || items[0].Address != "/oven/7" {
		t.Fatalf("parked: %+v, %v", items, err)
	}
	if err := w.Retry(t.Context(), items[0].ID); err == nil {
		t.Error("garbage was mapped")
	}
}

func TestRetriesUntilTheServerIsBack(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	tries := 0
	d.refuses(func(wrappers.Change) *wrappers.Effect {
		if tries++; tries < 3 {
			return &wrappers.Effect{Outcome: wrappers.Retry, Err: errors.New("503")}
		}
		return nil
	})
	w.put("oven/1", "value", "1")
	w.put("oven/1", "value", "2")
	w.until("written in the end", func() bool { return d.doc("/oven/1") == `{"value":2}` })
	if got := d.written(); len(got) != 1 {
		t.Errorf("written: %q", got)
	}
}

func TestNotify(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	link, other := w.door("talk"), w.door("docs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := link.Follow(ctx, wrappers.Notify, "")
	op := doc(wrappers.Message, "oven/3", `{"value":1}`)
	op.Tag = 42
	first, err := link.Do(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.Do(ctx, op); err != nil { // the same again is a message all the same
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":2}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":2}`)); err != nil { // nothing new for others
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); err != nil {
		t.Fatal(err)
	}
	type told struct {
		payload string
		echo    bool
		tag     uint64
		gone    bool
	}
	read := func(changes func(func(wrappers.Change, error) bool), n int) (out []told) {
		for c, err := range changes {
			if err != nil {
				t.Fatal(err)
			}
			if c.Address != "oven/3" {
				t.Errorf("address %s", c.Address)
			}
			if out = append(out, told{string(c.Payload.Raw), c.Echo, c.Tag, c.Gone}); len(out) == n {
				break
			}
		}
		return out
	}
	want := []told{{`{"value":1}`, true, 42, false}, {`{"value":1}`, true, 42, false}, {`{"value":2}`, false, 0, false}, {"", false, 0, true}}
	if got := read(changes, 4); !slices.Equal(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
	// A subscriber that comes back misses nothing.
	got := read(link.Follow(ctx, wrappers.Notify, first.Cursor), 3)
	if got[1] != want[2] || got[2] != want[3] || got[0].payload != `{"value":1}` {
		t.Errorf("told after coming back %+v", got)
	}
}

func TestEvents(t *testing.T) {
	hcl := strings.Replace(ovens, `bind "docs" "/oven/{o}" {}`, "bind \"docs\" \"/oven/{o}\" {\n direction = \"out\"\n events = true\n }", 1)
	w := newWorld(t, hcl, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	for i := range 50 {
		w.put("oven/1", "value", fmt.Sprint(i))
	}
	w.until("each change was told", func() bool { return len(d.written()) >= 50 })
	if c := w.Contacts(); len(c) != 0 {
		t.Errorf("first contact is not over: %+v", c)
	}
	for i, x := range d.written() {
		if want := fmt.Sprintf(`/oven/1 {"value":%d}`, i); x != want {
			t.Fatalf("event %d: %s, want %s", i, x, want)
		}
	}
}

// What a stop leaves unwritten is written by the next run; what was written is not written again.
func TestWriteBackResumes(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	w.put("oven/1", "value", "1")
	w.put("oven/2", "value", "2")
	w.restart(ovens)
	d := newDocServer(t, w.door("docs"), nil)
	w.until("both are written", func() bool { return d.doc("/oven/1") != "" && d.doc("/oven/2") != "" })
	w.put("oven/1", "value", "11")
	w.until("the change is written", func() bool { return d.doc("/oven/1") == `{"value":11}` })
	if got := d.written(); len(got) != 3 {
		t.Errorf("written: %q", got)
	}
}

func TestReloadFirstContactOfANewBind(t *testing.T) {
	w := newWorld(t, `register "oven/{o}" {
  bind "talk" "oven/{o}" {}
}`, relayDocs(), virtualTalk())
	w.put("oven/1", "value", "1")
	d := newDocServer(t, w.door("docs"), nil)
	_, turned := d.link.Patterns()
	w.Use(&Generation{Number: 2, Set: w.set(ovens)})
	<-turned
	w.until("the new bind's server is filled", func() bool { return d.doc("/oven/1") == `{"value":1}` })
	if !d.link.Maps(wrappers.Put, "", "/oven/9") {
		t.Error("the new bind is not in force")
	}
}

func TestSeenIsDurableWithItsRecords(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	link := w.door("talk")
	err := link.Seen(t.Context(), wrappers.Position{Feed: true, Keep: []wrappers.Record{{Key: "at", Value: []byte("7")}}}, []wrappers.Observation{
		{Address: "oven/1", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(`{"value":1}`)}, Wire: true, Keep: []wrappers.Record{{Key: "id/1", Value: []byte("x")}}},
		{Address: "oven/1", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(`{"value":2}`)}, Wire: true},
		{Address: "nowhere", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(`x`)}},
		{Address: "oven/2", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(`{`)}},
		{Address: "oven/3", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(`{"value":3}`)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.restart(ovens)
	if w.value("oven/1") != `{"value":2}` || w.value("oven/3") != `{"value":3}` || len(w.history("oven/1")) != 2 {
		t.Errorf("registers: %s %s", w.value("oven/1"), w.value("oven/3"))
	}
	kept := map[string]string{}
	for r, err := range w.door("talk").Kept(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		kept[r.Key] = string(r.Value)
	}
	if raw, _ := json.Marshal(kept); string(raw) != `{"at":"7","id/1":"x"}` {
		t.Errorf("kept %s", raw)
	}
	if items, _ := w.Parked(t.Context()); len(items) != 1 || items[0].Address != "oven/2" {
		t.Errorf("parked: %+v", items)
	}
}

func TestUnmappedBeginAllocatesNothing(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	link := w.door("docs")
	ctx, op := t.Context(), doc(wrappers.Put, "/stove/3", `{}`)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := link.Begin(ctx, op); err != wrappers.ErrUnmapped {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCreatedAgain(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	link := w.door("docs")
	for i, tt := range []struct {
		verb    wrappers.Verb
		created bool
	}{{wrappers.Put, true}, {wrappers.Put, false}, {wrappers.Delete, false}, {wrappers.Put, true}} {
		r, err := link.Do(t.Context(), doc(tt.verb, "/oven/1", `{"value":1}`))
		if err != nil || r.Created != tt.created {
			t.Errorf("%d: created %v, %v; want %v", i, r.Created, err, tt.created)
		}
	}
}

// slowDisk holds back the sync of what is submitted.
type slowDisk struct {
	Store
	submitted, synced chan struct{}
}

func (s *slowDisk) Submit(ctx context.Context, w engine.Write) (engine.Dot, func() (engine.Receipt, error), error) {
	d, wait, err := s.Store.Submit(ctx, w)
	close(s.submitted)
	return d, func() (engine.Receipt, error) { <-s.synced; return wait() }, err
}

// What a server has shown is ahead of the register until it is on the disk: it must not be taken
// for a difference and overwritten with the old state.
func TestNothingIsWrittenBackOverWhatIsNotYetVisible(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	disk := &slowDisk{Store: w.store, submitted: make(chan struct{}), synced: make(chan struct{})}
	link := w.door("talk")
	back := w.named("talk").back
	say := func(payload string) error {
		return link.Seen(t.Context(), wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, []wrappers.Observation{
			{Address: "oven/3", Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(payload)}, Wire: true}})
	}
	if err := say(`{"value":1}`); err != nil {
		t.Fatal(err)
	}
	w.Links.store = disk
	done := make(chan error)
	go func() { done <- say(`{"value":2}`) }()
	<-disk.submitted
	back.mark(spot{place{"", "oven/3"}, "oven/3"}, 1)
	if c, ok, _, err := back.next(t.Context()); ok || err != nil {
		t.Errorf("told to write %s, %v", c.Payload.Raw, err)
	}
	close(disk.synced)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if c, ok, _, err := back.next(t.Context()); ok || err != nil {
		t.Errorf("told to write %s, %v", c.Payload.Raw, err)
	}
	if len(back.due) != 0 {
		t.Errorf("still due: %v", back.due)
	}
}

// A query that no bind names does not make another place of an address.
func TestQueryOfNoMeaning(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":1}`); err != nil {
		t.Fatal(err)
	}
	op := doc(wrappers.Put, "/oven/3?user=ann", `{"value":2}`)
	in, err := d.link.Begin(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.link.Begin(ctx, doc(wrappers.Put, "/oven/3", `{"value":3}`)); err == nil {
		t.Error("two connections own one place")
	}
	d.mu.Lock()
	d.docs["/oven/3"] = `{"value":2}`
	d.mu.Unlock()
	if _, err := in.Commit(t.Context(), op); err != nil {
		t.Fatal(err)
	}
	w.put("oven/4", "value", "4") // a mark behind it
	w.until("what came behind is written", func() bool { return d.doc("/oven/4") != "" })
	if got, want := d.written(), []string{`/oven/4 {"value":4}`}; !slices.Equal(got, want) {
		t.Errorf("written: %q, want %q", got, want)
	}
}

// A cursor of another log, as after a restore, is answered by what there is, then live; and the
// write-back looks at everything again, once.
func TestForeignCursor(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	link := w.door("talk")
	w.put("oven/1", "value", "1")
	w.put("oven/2", "value", "2")
	if err := w.store.KeepRecords(t.Context(), true, engine.Record{Table: tableCursor, Key: "docs", Value: []byte("77.5")}); err != nil {
		t.Fatal(err)
	}
	d := newDocServer(t, w.door("docs"), nil)
	w.until("both are written", func() bool { return d.doc("/oven/1") != "" && d.doc("/oven/2") != "" })
	here, err := w.store.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.until("the cursor is of this log", func() bool {
		raw, err := w.store.Kept(tableCursor, "docs")
		return err == nil && string(raw) == here.String()
	})
	var got []string
	for c, err := range link.Follow(t.Context(), wrappers.Notify, "77.5") {
		if err != nil {
			t.Fatal(err)
		}
		if !c.Snapshot || (c.Cursor == "") != (len(got) == 0) {
			t.Errorf("%s: snapshot %v, cursor %q", c.Address, c.Snapshot, c.Cursor)
		}
		if got = append(got, c.Address+" "+string(c.Payload.Raw)); len(got) == 2 {
			break
		}
	}
	if want := []string{`oven/1 {"value":1}`, `oven/2 {"value":2}`}; !slices.Equal(got, want) {
		t.Errorf("told %q, want %q", got, want)
	}
}

// What a bind doesn't map stays in the server's document, and what it maps is cleared there.
func TestWriteBackKeepsTheRest(t *testing.T) {
	hcl := strings.Replace(ovens, `bind "docs" "/oven/{o}" {}`, `bind "docs" "/oven/{o}" { map = { value = payload.v, unit = payload.in.unit } }`, 1)
	w := newWorld(t, hcl, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), map[string]string{"/oven/3": `{"in":{"of":7,"unit":"C"},"salary":1,"v":2}`})
	if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"in":{"of":7,"unit":"C"},"salary":1,"v":3}`); err != nil {
		t.Fatal(err)
	}
	if got := w.value("oven/3"); got != `{"unit":"C","value":3}` {
		t.Errorf("register: %s", got)
	}
	if _, err := w.door("talk").Do(t.Context(), doc(wrappers.Message, "oven/3", `{"value":4,"unit":null}`)); err != nil {
		t.Fatal(err)
	}
	w.until("the document follows", func() bool { return d.doc("/oven/3") == `{"in":{"of":7},"salary":1,"v":4}` })
}

// A conditional write that meets a change is not repeated over it: the change is heard first.
func TestWriteBackMeetsAChange(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"unit":"C","value":1}`); err != nil {
		t.Fatal(err)
	}
	met := false
	d.refuses(func(wrappers.Change) *wrappers.Effect {
		if met {
			return nil
		}
		met = true
		d.mu.Lock()
		d.docs["/oven/3"] = `{"unit":"F","value":1}` // by somebody, past the gateway
		d.mu.Unlock()
		return &wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, "412")}
	})
	w.put("oven/3", "value", "2")
	w.until("both changes stand on both sides", func() bool {
		return d.doc("/oven/3") == `{"unit":"F","value":2}` && w.value("oven/3") == `{"unit":"F","value":2}`
	})
}

// A crash between the server's answer to a write-back and the note of it: what the server shows
// then is our own, not news that takes the register back.
func TestOwnWriteAfterACrash(t *testing.T) {
	for _, noted := range []bool{true, false} {
		t.Run(fmt.Sprintf("noted=%v", noted), func(t *testing.T) {
			w := newWorld(t, ovens, relayDocs(), virtualTalk())
			d := newDocServer(t, w.door("docs"), nil)
			if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":1}`); err != nil {
				t.Fatal(err)
			}
			key := spot{place{"", "/oven/3"}, "oven/3"}.key("docs")
			before, err := w.store.Kept(tableBaseline, key)
			if err != nil {
				t.Fatal(err)
			}
			taken := make(chan struct{})
			d.refuses(func(wrappers.Change) *wrappers.Effect {
				close(taken)
				<-t.Context().Done() // no answer comes any more
				return &wrappers.Effect{Outcome: wrappers.Retry}
			})
			w.put("oven/3", "value", "2")
			<-taken
			if !noted {
				if err := w.store.KeepRecords(t.Context(), true, engine.Record{Table: tableBaseline, Key: key, Value: before}); err != nil {
					t.Fatal(err)
				}
			}
			w.restart(ovens)
			w.put("oven/3", "value", "3")
			again := newDocServer(t, w.door("docs"), map[string]string{"/oven/3": `{"value":2}`})
			met := false
			again.refuses(func(wrappers.Change) *wrappers.Effect {
				if met {
					return nil
				}
				met = true
				return &wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, "412")}
			})
			w.until("the newest is written", func() bool { return again.doc("/oven/3") == `{"value":3}` })
			if got := len(w.history("oven/3")); got != 3 || w.value("oven/3") != `{"value":3}` {
				t.Errorf("history has %d entries, want 3; register %s", got, w.value("oven/3"))
			}
		})
	}
}

// A crash between the note that a write is on its way and the write: it is written by the next run.
func TestWriteThatNeverLeft(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	link := w.door("talk")
	if err := link.Seen(t.Context(), wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, nil); err != nil {
		t.Fatal(err)
	}
	w.put("oven/3", "value", "2")
	for c, err := range link.Follow(t.Context(), wrappers.WriteBack, "") {
		if err != nil || string(c.Payload.Raw) != `{"value":2}` {
			t.Fatalf("told %s, %v", c.Payload.Raw, err)
		}
		break // dies here
	}
	w.restart(ovens)
	s := newTalkServer(t, w.door("talk"), nil)
	w.until("it is written", func() bool { return s.retained("oven/3") == `{"value":2}` })
	if got := len(w.history("oven/3")); got != 1 {
		t.Errorf("history has %d entries, want 1", got)
	}
}
