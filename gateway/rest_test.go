package gateway

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// rows is a stream of whole documents, own writes included, as of a database's change feed.
var rows = wrappers.Protocol{Name: "rows", Syntax: wrappers.Syntax{Separator: "/"}, Feed: true}

// A kind of server says what it shows and how.
type serverKind struct {
	feed, whole bool                // it shows what happens; as whole documents
	asked       bool                // what it has when it is asked, that is
	marks       bool                // and which of it is the gateway's
	stored      bool                // its answer to a write is the document as it keeps it
	form        func(string) string // how it keeps a document
}

// anyServer keeps documents as its kind says, and counts.
type anyServer struct {
	serverKind
	link   wrappers.Link
	stream chan wrappers.Observation

	mu                sync.Mutex
	docs              map[string]string
	shown, heard, out int // what the feed has to show, what it has shown, what the gateway wrote
}

func newAnyServer(t *testing.T, kind serverKind, link wrappers.Link) *anyServer {
	s := &anyServer{serverKind: kind, link: link, stream: make(chan wrappers.Observation, 1<<20), docs: map[string]string{}}
	if s.form == nil {
		s.form = func(doc string) string { return doc }
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	see := func(at wrappers.Position, o ...wrappers.Observation) {
		if err := link.Seen(ctx, at, o); err != nil && ctx.Err() == nil {
			t.Error(err)
		}
	}
	if s.feed {
		see(wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd})
		wg.Go(func() {
			for {
				select {
				case o := <-s.stream:
					shown := 1
					if s.asked {
						for len(s.stream) > 0 {
							<-s.stream
							shown++
						}
						began := time.Now()
						address := o.Address
						o = s.observation(address)
						o.Began = began
					}
					see(wrappers.Position{Feed: true, Asked: s.asked}, o)
					s.mu.Lock()
					s.heard += shown
					s.mu.Unlock()
				case <-ctx.Done():
					return
				}
			}
		})
	}
	wg.Go(func() {
		for c, err := range link.Follow(ctx, wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			e := wrappers.Effect{Outcome: wrappers.Done}
			if c.ReadBack {
				see(wrappers.Position{Feed: s.asked, Asked: s.asked}, s.observation(c.Address))
			} else {
				e = s.take(c)
			}
			if err := link.Settle(ctx, c, e); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

func (s *anyServer) observation(address string) wrappers.Observation {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.observed(address)
}

func (s *anyServer) observed(address string) wrappers.Observation {
	o := wrappers.Observation{Address: address, Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(s.docs[address])}}
	if s.feed && !s.whole {
		o.Verb, o.Retained = wrappers.Message, true
	}
	if len(o.Payload.Raw) == 0 {
		o.Verb = wrappers.Delete
	}
	return o
}

func (s *anyServer) take(c wrappers.Change) wrappers.Effect {
	s.mu.Lock()
	defer s.mu.Unlock()
	pay := c.Payload
	if have := s.docs[c.Address]; have != "" && c.Onto != nil && (s.whole || !s.feed) {
		var err error
		if pay, err = c.Onto(wrappers.Payload{Raw: []byte(have)}); err != nil {
			return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
		}
	}
	s.out++
	s.put(c.Address, string(pay.Raw), false, s.marks)
	e := wrappers.Effect{Outcome: wrappers.Done}
	if s.stored && !c.Gone {
		e.AsStored = &wrappers.Payload{Raw: []byte(s.docs[c.Address])}
	}
	return e
}

func (s *anyServer) put(address, doc string, wire, ours bool) {
	if s.docs[address] = s.form(doc); doc == "" {
		delete(s.docs, address)
	}
	if s.feed {
		s.shown++
		o := s.observed(address)
		o.Wire, o.Ours = wire, ours
		s.stream <- o
	}
}

// client writes, or with doc "" deletes, as a peer does through the gateway (wire) or past it.
func (s *anyServer) client(ctx context.Context, address, doc string, wire bool) error {
	if s.feed || !wire {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.put(address, doc, wire, false)
		return nil
	}
	op := wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(doc)}}
	if doc == "" {
		op.Verb = wrappers.Delete
	}
	in, err := s.link.Begin(ctx, op)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.put(address, doc, true, false)
	s.mu.Unlock()
	_, err = in.Commit(ctx, op)
	return err
}

// poll asks a server without a feed.
func (s *anyServer) poll(ctx context.Context, address string) error {
	if s.feed {
		return nil
	}
	began := time.Now()
	o := s.observation(address)
	o.Began = began
	return s.link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{o})
}

func (s *anyServer) counts() [3]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return [3]int{s.shown, s.heard, s.out}
}

func (s *anyServer) doc(address string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.docs[address]
}

// atRest tells whether nothing happens any more unless somebody writes.
func (w *world) atRest(servers []*anyServer) bool {
	look := func() (n [][3]int, still bool) {
		at, err := w.store.Cursor(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		still = true
		for _, s := range servers {
			c := s.counts()
			observed, waiting := s.link.(*link).back.lag()
			still = still && c[0] == c[1] && waiting == 0 && observed == at.Ordinal
			n = append(n, c)
		}
		return append(n, [3]int{int(at.Ordinal)}), still
	}
	before, still := look()
	after, again := look()
	return still && again && fmt.Sprint(before) == fmt.Sprint(after)
}

// rest waits for it, and fails once the gateway has written more often than that takes.
func (w *world) rest(servers []*anyServer, most int) {
	w.t.Helper()
	bounded := func() {
		for _, s := range servers {
			if n := s.counts()[2]; n > most {
				w.t.Fatalf("%s was written to %d times, %d are enough; the register has %s", s.link.(*link).name, n, most, w.value("oven/1"))
			}
		}
	}
	w.until("everything rests", func() bool {
		bounded()
		return w.atRest(servers)
	})
	bounded()
}

// A field that a write elsewhere clears is told to a broker once.
func TestClearedFieldIsToldOnce(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), relayTalk())
	d := newAnyServer(t, serverKind{}, w.door("docs"))
	s := newAnyServer(t, serverKind{feed: true, marks: true}, w.door("talk"))
	all := []*anyServer{d, s}
	if err := s.client(t.Context(), "oven/1", `{"value":1,"at":"x"}`, true); err != nil {
		t.Fatal(err)
	}
	w.rest(all, 1)
	if err := d.client(t.Context(), "/oven/1", `{"value":2}`, true); err != nil {
		t.Fatal(err)
	}
	w.rest(all, 1)
	if got := s.doc("oven/1"); got != `{"value":2}` || d.doc("/oven/1") != got {
		t.Errorf("the broker has %s, the documents %s", got, d.doc("/oven/1"))
	}
}

// A message that a broker keeps in place of a fuller one leaves the register its other fields, and the broker comes to
// keep all of them again: told once, with one entry in the history.
func TestPartOfWhatIsRetained(t *testing.T) {
	for _, wire := range []bool{true, false} {
		for _, marks := range []bool{true, false} {
			t.Run(fmt.Sprintf("wire=%v/marks=%v", wire, marks), func(t *testing.T) {
				w := newWorld(t, ovens, relayDocs(), relayTalk())
				d := newAnyServer(t, serverKind{}, w.door("docs"))
				s := newAnyServer(t, serverKind{feed: true, marks: marks}, w.door("talk"))
				all := []*anyServer{d, s}
				if err := d.client(t.Context(), "/oven/1", `{"at":"x","value":1}`, true); err != nil {
					t.Fatal(err)
				}
				w.rest(all, 1)
				want := []string{`{"at":"x","value":2}`, `{"at":"x","value":2}`, `{"value":2}`, `{"at":"y","value":2}`}
				for i, doc := range []string{`{"value":2}`, `{"value":2}`, `{"at":null}`, `{"at":"y"}`} {
					before, told := len(w.history("oven/1")), s.counts()[2]
					if err := s.client(t.Context(), "oven/1", doc, wire); err != nil {
						t.Fatal(err)
					}
					w.rest(all, i+2)
					if w.value("oven/1") != want[i] || s.doc("oven/1") != want[i] || d.doc("/oven/1") != want[i] {
						t.Errorf("%s: the register has %s, the broker %s, the documents %s, want %s", doc, w.value("oven/1"), s.doc("oven/1"), d.doc("/oven/1"), want[i])
					}
					if n := s.counts()[2] - told; n != 1 {
						t.Errorf("%s: the broker was told %d times", doc, n)
					}
					entries := 1
					if i == 1 && !wire {
						entries = 0 // what was there already, and nobody is known to have written it
					}
					if n := len(w.history("oven/1")) - before; n != entries {
						t.Errorf("%s: %d entries in the history, want %d", doc, n, entries)
					}
				}
			})
		}
	}
}

// A meter's reading is not forgotten when the gateway writes another part of its document: shown
// again, it would be counted again.
func TestMeterOutlivesAWrite(t *testing.T) {
	for _, kind := range []serverKind{{}, {feed: true, whole: true}, {feed: true, whole: true, marks: true}} {
		t.Run(fmt.Sprintf("%+v", kind), func(t *testing.T) {
			name, address, info := "docs", "/oven/1", relayDocs()
			if kind.feed {
				name, address, info = "rows", "oven/1", LinkInfo{Protocol: rows, Name: "rows", Relay: true}
			}
			w := newWorld(t, fmt.Sprintf(`
register "oven/{o}" {
  fields = { total = sum(number), unit = string }
  bind %q "%s" {
    map = { unit = payload.unit }
    in  = { total = payload.m }
  }
}`, name, strings.Replace(address, "1", "{o}", 1)), info)
			s := newAnyServer(t, kind, w.door(name))
			all := []*anyServer{s}
			if err := s.client(t.Context(), address, `{"m":5,"unit":"C"}`, true); err != nil {
				t.Fatal(err)
			}
			w.rest(all, 0)
			w.put("oven/1", "unit", `"F"`)
			w.rest(all, 1)
			if err := s.poll(t.Context(), address); err != nil {
				t.Fatal(err)
			}
			w.rest(all, 1)
			if got := w.value("oven/1"); got != `{"total":5,"unit":"F"}` || s.doc(address) != `{"m":5,"unit":"F"}` {
				t.Errorf("register %s, server %s", got, s.doc(address))
			}
		})
	}
}

// restBinds are ways to carry a register that differ in what is read, what is written and what
// either makes of it.
var restBinds = map[string]struct {
	attrs  string
	closed bool // the register declares its fields
	equal  bool // the bind carries everything both ways
	marked bool // only where the gateway's writes are told from others: what it reads is another each time
}{
	"open":     {equal: true},
	"declared": {closed: true},
	"part":     {attrs: `map = { value = payload.v }`, closed: true},
	"in and out": {attrs: `
    map = { value = payload.v }
    in  = { at = payload.at }
    out = { label = try(upper(self.unit), "none") }`, closed: true},
	"reads what it writes, twice": {attrs: `
    map = { value = payload.value }
    in  = { n = payload.value }`, closed: true},
	"written elsewhere than read": {attrs: `
    map = { unit = payload.unit }
    in  = { value = payload.actual }
    out = { desired = self.value }`, closed: true},
	"only some": {attrs: `
    when = payload.unit == "C"
    map  = { value = payload.value, unit = payload.unit }`, closed: true},
	"clock": {attrs: `
    map = { value = payload.value }
    in  = { at = now }
    out = { said = try(self.at, "") }`, closed: true, marked: true},
	"everything in one": {attrs: `
    in  = { value = payload.value }
    out = { all = jsonencode(self) }`, closed: true},
	"scaled":        {attrs: `map = { value = scale(payload.raw, 0.1, -40), unit = payload.unit }`, closed: true},
	"one value":     {attrs: "codec = text\n    map = { value = number(payload) }", closed: true},
	"never deletes": {attrs: `delete = "ignore"`},
	"only in":       {attrs: `direction = "in"`},
	"only out":      {attrs: `direction = "out"`},
	"each change":   {attrs: "direction = \"out\"\n    events = true"},
	"each, both":    {attrs: "events = true"},
}

// TestEverythingComesToRest has peers write on both sides at random. Whatever is bound how: the
// gateway writes no more than their number warrants, ends, and has nothing to say when asked again.
func TestEverythingComesToRest(t *testing.T) {
	documents := []serverKind{{}, {form: strings.ToLower}, {form: strings.ToLower, stored: true}}
	feeds := []serverKind{
		{feed: true}, {feed: true, marks: true}, {feed: true, marks: true, form: strings.ToLower},
		{feed: true, whole: true}, {feed: true, whole: true, marks: true}, {feed: true, whole: true, asked: true},
	}
	for name, bind := range restBinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, feed := range feeds {
				for side, where := range []string{"documents", "feed"} {
					if bind.marked && (side == 0 || !feed.marks) {
						continue
					}
					d := documents[(i+side)%len(documents)]
					t.Run(fmt.Sprintf("whole=%v/asked=%v/marks=%v/lower=%v/%v/stored=%v/%s", feed.whole, feed.asked, feed.marks, feed.form != nil, d.form != nil, d.stored, where), func(t *testing.T) {
						attrs := [2]string{"first = \"source\"\n    ", "first = \"source\"\n    "}
						attrs[side] += bind.attrs
						restHistory(t, uint64(i), attrs, bind.closed, bind.equal, d, feed)
					})
				}
			}
		})
	}
}

func restHistory(t *testing.T, seed uint64, attrs [2]string, closed, equal bool, docsKind, feedKind serverKind) {
	feed := LinkInfo{Protocol: talk, Name: "feed", Relay: true}
	if feedKind.whole {
		feed.Protocol = rows
	}
	fields := ""
	if closed {
		fields = "fields = { value = number, unit = string, at = string, n = number }"
	}
	w := newWorld(t, fmt.Sprintf(`
register "oven/{o}" {
  %s
  bind "docs" "/oven/{o}" {
    %s
  }
  bind %q "oven/{o}" {
    %s
  }
}`, fields, attrs[0], feed.Protocol.Name, attrs[1]), relayDocs(), feed)
	d := newAnyServer(t, docsKind, w.door("docs"))
	s := newAnyServer(t, feedKind, w.door("feed"))
	all := []*anyServer{d, s}
	rng := rand.New(rand.NewPCG(seed, 1))
	random := func() string {
		if rng.IntN(6) == 0 {
			return ""
		}
		var out []string
		for _, m := range []string{`"value":%d`, `"unit":"C%d"`, `"unit":"C"`, `"at":"x%d"`, `"v":%d`, `"raw":%d`, `"actual":%d`, `"at":null`} {
			if rng.IntN(3) == 0 {
				m = strings.Replace(m, "%d", fmt.Sprint(rng.IntN(3)), 1)
				if name, _, _ := strings.Cut(m, ":"); !strings.Contains(strings.Join(out, ","), name) {
					out = append(out, m)
				}
			}
		}
		doc := "{" + strings.Join(out, ",") + "}"
		return doc
	}
	const writes = 12
	var said []string
	for range writes {
		if rng.IntN(2) == 0 {
			w.rest(all, 4*len(said)+4)
		}
		var err error
		doc, wire := random(), rng.IntN(2) == 0 && !strings.Contains(attrs[0], "out\"")
		text := strings.Contains(attrs[0], "codec")
		n := rng.IntN(3)
		switch rng.IntN(5) {
		case 0, 1:
			if text && doc != "" {
				doc = fmt.Sprint(n)
			}
			said = append(said, fmt.Sprintf("docs %q wire %v", doc, wire))
			err = d.client(t.Context(), "/oven/1", doc, wire)
		case 2, 3:
			if strings.Contains(attrs[1], "codec") && doc != "" {
				doc = fmt.Sprint(n)
			}
			said = append(said, fmt.Sprintf("feed %q wire %v", doc, wire))
			err = s.client(t.Context(), "oven/1", doc, wire)
		default:
			said = append(said, fmt.Sprintf("register %d", n))
			w.put("oven/1", "value", fmt.Sprint(n))
		}
		if err == nil && rng.IntN(3) == 0 {
			err = d.poll(t.Context(), "/oven/1")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if t.Failed() {
			t.Logf("%s\n%s", strings.Join(attrs[:], "\n"), strings.Join(said, "\n"))
		}
	}()
	w.rest(all, 4*writes+4)
	if err := d.poll(t.Context(), "/oven/1"); err != nil { // what was written past the gateway is found
		t.Fatal(err)
	}
	w.rest(all, 4*writes+4)
	before, history := [2]int{d.counts()[2], s.counts()[2]}, len(w.history("oven/1"))
	for range 3 {
		if err := d.poll(t.Context(), "/oven/1"); err != nil {
			t.Fatal(err)
		}
		w.rest(all, 4*writes+8)
	}
	if after := [2]int{d.counts()[2], s.counts()[2]}; after != before || len(w.history("oven/1")) != history {
		t.Errorf("asked again: written %v times, before %v; history %d, before %d; register %s, documents %s, feed %s",
			after, before, len(w.history("oven/1")), history, w.value("oven/1"), d.doc("/oven/1"), s.doc("oven/1"))
	}
	nulls := strings.NewReplacer(`,"at":null`, "", `"at":null,`, "", `"at":null`, "") // no value
	if got := nulls.Replace(d.doc("/oven/1")); equal && docsKind.form == nil && feedKind.form == nil && w.value("oven/1") != got && !(got == "" && w.value("oven/1") == "gone") {
		t.Errorf("register %s, documents %s", w.value("oven/1"), got)
	}
	if got := nulls.Replace(s.doc("oven/1")); equal && feedKind.asked && docsKind.form == nil && w.value("oven/1") != got && !(got == "" && w.value("oven/1") == "gone") {
		t.Errorf("register %s, asked server %s", w.value("oven/1"), got)
	}
}

// What a server has that is asked, and does not show each state, is never taken for an earlier write of the gateway's own.
func TestWhatIsAskedIsNoEarlierWrite(t *testing.T) {
	w := newWorld(t, strings.Replace(ovens, `bind "talk"`, `bind "rows"`, 1), virtualDocs(), LinkInfo{Protocol: rows, Name: "rows", Relay: true})
	l := w.door("rows")
	show := func(at wrappers.Position, o wrappers.Observation) {
		t.Helper()
		o.Address = "oven/1"
		if err := l.Seen(t.Context(), at, []wrappers.Observation{o}); err != nil {
			t.Fatal(err)
		}
	}
	show(wrappers.Position{Feed: true, Asked: true, Snapshot: wrappers.SnapshotEnd}, wrappers.Observation{Verb: wrappers.Delete})
	changes := make(chan wrappers.Change)
	go func() {
		defer close(changes)
		for c, err := range l.Follow(t.Context(), wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			select {
			case changes <- c:
			case <-t.Context().Done():
				return
			}
		}
	}()
	settle := func(want string) {
		t.Helper()
		c := <-changes
		if string(c.Payload.Raw) != want || c.ReadBack {
			t.Fatalf("%s (read back: %v), want %s", c.Payload.Raw, c.ReadBack, want)
		}
		if err := l.Settle(t.Context(), c, wrappers.Effect{Outcome: wrappers.Done}); err != nil {
			t.Fatal(err)
		}
	}
	asked := wrappers.Position{Feed: true, Asked: true}
	w.put("oven/1", "value", "1")
	settle(`{"value":1}`)
	early := time.Now()
	w.put("oven/1", "value", "2")
	settle(`{"value":2}`)
	// Somebody has written 1 again.
	doc := wrappers.Observation{Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(`{"value":1}`)}}
	// An answer that the write of 2 may have overtaken is asked for again.
	doc.Began = early
	show(asked, doc)
	if got := w.value("oven/1"); got != `{"value":2}` {
		t.Errorf("an answer from before the write: the register has %s", got)
	}
	c := <-changes
	if !c.ReadBack {
		t.Fatalf("want a look at the server, got %+v", c)
	}
	doc.Began = time.Time{}
	show(asked, doc)
	if err := l.Settle(t.Context(), c, wrappers.Effect{Outcome: wrappers.Done}); err != nil {
		t.Fatal(err)
	}
	w.until("what was asked is in the register", func() bool { return w.value("oven/1") == `{"value":1}` })
	for r, err := range w.store.EachKept(tableIntent, "") {
		t.Errorf("left: %s %v", r.Value, err)
	}
}

// Of a baseline that an earlier version left, which believes in a field that is gone, one write is enough.
func TestStaleBaselineIsToldOnce(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	w.put("oven/1", "value", "2")
	st, err := w.store.ReadState(t.Context(), "oven/1")
	if err != nil {
		t.Fatal(err)
	}
	var base engine.Baseline
	base.Took(engine.Stored([]engine.ShownField{{Field: "at", Value: lattice.String("x")}, {Field: "value", Value: lattice.Int(2)}}, st), nil)
	raw, err := base.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	key := spot{place{"", "oven/1"}, "oven/1"}.key("talk")
	if err := w.store.KeepRecords(t.Context(), true, engine.Record{Table: tableBaseline, Key: key, Value: raw}); err != nil {
		t.Fatal(err)
	}
	s := newAnyServer(t, serverKind{feed: true}, w.door("talk"))
	w.put("oven/1", "value", "2")
	w.rest([]*anyServer{s}, 1)
	if got := s.doc("oven/1"); got != `{"value":2}` {
		t.Errorf("the broker has %s", got)
	}
}
