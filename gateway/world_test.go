package gateway

import (
	"context"
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
	keys  map[string][]string // of the servers of a wrapper that has several
	names []string            // of domains; nil: local
	mu    sync.Mutex
	seen  []Event
	woke  chan struct{}
}

func newWorld(t *testing.T, hcl string, infos ...LinkInfo) *world {
	return newWorldOf(t, hcl, nil, infos...)
}

// newWorldOf is one whose wrappers have several servers.
func newWorldOf(t *testing.T, hcl string, keys map[string][]string, infos ...LinkInfo) *world {
	w := &world{t: t, fs: vfs.NewMem(), infos: infos, keys: keys, woke: make(chan struct{})}
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
	set := w.set(hcl)
	if err := store.Declare(w.t.Context(), set.Rules()); err != nil {
		w.t.Fatal(err)
	}
	w.Use(&Generation{Number: 1, Set: set})
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
	if in.Domains = w.names; in.Domains == nil {
		in.Domains = []string{"local"}
	}
	for _, i := range w.infos {
		in.Wrappers = append(in.Wrappers, mapping.WrapperInfo{
			Protocol: i.Protocol, Name: i.Name, Upstream: i.Relay || i.Attached, Listens: !i.Attached, Servers: w.keys[i.Name],
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

// follow gives what the subscribers of a wrapper are told from now on, until the test ends.
func (w *world) follow(wrapper string) <-chan wrappers.Change {
	changes := make(chan wrappers.Change, 100)
	seq := w.door(wrapper).Follow(w.t.Context(), wrappers.Notify, "")
	go func() {
		for c, err := range seq {
			if err != nil {
				return
			}
			changes <- c
		}
	}()
	return changes
}

// until waits for a condition that events may make true.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	late := time.After(20 * time.Second)
	tick := time.NewTicker(3 * time.Millisecond) // some conditions are a server's, and emit nothing
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
