package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

const meters = `
register "stock/{part}" {
  fields = { total = sum(number), name = string }

  bind "docs" "/stock/{part}" {}
  bind "docs" "/stock/{part}/add" {
    in = { total = by(payload.add) }
  }
  bind "talk" "scale/{part}" {
    direction = "in"
    codec     = number
    map       = { total = payload }
  }
  bind "docs" "/scale/{part}" {
    direction = "in"
    map       = { total = payload.total }
  }
}
`

// A notary is a store that writes down what is submitted, and commits of it what needs no rules.
type notary struct {
	*engine.Engine
	mu     sync.Mutex
	said   []string
	refuse error // the next write
}

func (n *notary) Submit(ctx context.Context, w engine.Write) (engine.Dot, func() (engine.Receipt, error), error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.refuse; err != nil {
		n.refuse = nil
		return engine.Dot{}, nil, err
	}
	var words []string
	ops := slices.Clone(w.Ops)
	for i := range ops {
		o := &ops[i]
		word := map[engine.OpKind]string{engine.OpPut: "put", engine.OpAdd: "add", engine.OpRemove: "remove", engine.OpDelete: "delete", engine.OpOnly: "only"}[o.Kind]
		if word = fmt.Sprintf("%s %s", word, o.Value); o.Meter {
			word += fmt.Sprintf(" meter after %s", o.Last)
		} else if !o.Last.IsAbsent() {
			word += fmt.Sprintf(" after %s", o.Last)
		}
		words = append(words, strings.TrimSpace(word))
		if o.Kind == engine.OpAdd {
			o.Kind = engine.OpPut
		}
		o.Last, o.Meter = engine.Value{}, false
	}
	n.said = append(n.said, strings.Join(words, ", "))
	w.Ops = ops
	return n.Engine.Submit(ctx, w)
}

func (n *notary) took() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	said := n.said
	n.said = nil
	return said
}

// TestReadings: who reports a sum without being shown it is compared with its own last reading, which survives.
func TestReadings(t *testing.T) {
	w := newWorld(t, meters, virtualDocs(), virtualTalk())
	var book *notary
	var talk, docs wrappers.Link
	open := func() {
		gen := w.gen.Load()
		book = &notary{Engine: w.store}
		links := NewLinks(LinksOptions{Store: book})
		links.Use(gen)
		talk, docs = links.Open(virtualTalk()), links.Open(virtualDocs())
	}
	open()
	do := func(link wrappers.Link, verb wrappers.Verb, address, body, want string) {
		t.Helper()
		if _, err := link.Do(t.Context(), doc(verb, address, body)); err != nil {
			t.Fatal(err)
		}
		if got := book.took(); !slices.Equal(got, []string{want}) {
			t.Errorf("%s %s: got %q, want %q", address, body, got, want)
		}
	}
	do(talk, wrappers.Message, "scale/a", "100", "put 100 meter after 0")
	do(talk, wrappers.Message, "scale/a", "105", "put 105 meter after 100")
	do(talk, wrappers.Message, "scale/b", "7", "put 7 meter after 0")
	do(docs, wrappers.Put, "/scale/a", `{"total":3}`, "put 3 meter after 0")
	do(docs, wrappers.Put, "/stock/a", `{"total":90}`, "only, put 90")
	do(docs, wrappers.Message, "/stock/a/add", `{"add":-2}`, "add -2")

	// Refused, it is as if it had not been said.
	book.refuse = engine.ErrFull
	if _, err := talk.Do(t.Context(), doc(wrappers.Message, "scale/a", "110")); !errors.Is(err, wrappers.ErrUnavailable) {
		t.Fatal(err)
	}
	do(talk, wrappers.Message, "scale/a", "111", "put 111 meter after 105")

	// Parts of one operation follow each other.
	batch := wrappers.Operation{Parts: []wrappers.Operation{doc(wrappers.Message, "scale/a", "112"), doc(wrappers.Message, "scale/a", "115")}}
	if _, err := talk.Do(t.Context(), batch); err != nil {
		t.Fatal(err)
	}
	if got, want := book.took(), []string{"put 112 meter after 111, put 115 meter after 112"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}

	w.restart(meters)
	open()
	do(talk, wrappers.Message, "scale/a", "120", "put 120 meter after 115")
	do(docs, wrappers.Put, "/scale/a", `{"total":4}`, "put 4 meter after 3")
	do(docs, wrappers.Put, "/scale/a", `{}`, "remove")
	do(docs, wrappers.Put, "/scale/a", `{"total":5}`, "put 5 meter after 0")
}

// TestReadingsInOrder: of readings that come at once, each is compared with the one sequenced before it.
func TestReadingsInOrder(t *testing.T) {
	w := newWorld(t, meters, virtualDocs(), virtualTalk())
	book := &notary{Engine: w.store}
	links := NewLinks(LinksOptions{Store: book})
	links.Use(w.gen.Load())
	talk := links.Open(virtualTalk())
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := talk.Do(t.Context(), doc(wrappers.Message, "scale/a", fmt.Sprint(i+1))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	last := "0"
	for _, s := range book.took() {
		var now, before string
		if _, err := fmt.Sscanf(s, "put %s meter after %s", &now, &before); err != nil || before != last {
			t.Fatalf("got %q behind %s", s, last)
		}
		last = now
	}
}

// TestMeterInFrontOfAServer: there the baseline is the last reading, and an increment is an event.
func TestMeterInFrontOfAServer(t *testing.T) {
	w := newWorld(t, `
register "stock/{part}" {
  fields = { total = sum(number) }
  bind "talk" "scale/{part}" {
    direction = "in"
    delete    = "ignore"
    map       = { total = payload.total }
  }
  bind "talk" "add/{part}" {
    in = { total = by(payload.add) }
  }
}
`, relayTalk())
	book := &notary{Engine: w.store}
	links := NewLinks(LinksOptions{Store: book})
	links.Use(w.gen.Load())
	talk := links.Open(relayTalk())
	see := func(at wrappers.Position, verb wrappers.Verb, address, body string, want ...string) {
		t.Helper()
		o := wrappers.Observation{Address: address, Verb: verb, Payload: wrappers.Payload{Raw: []byte(body)}}
		if err := talk.Seen(t.Context(), at, []wrappers.Observation{o}); err != nil {
			t.Fatal(err)
		}
		if got := book.took(); !slices.Equal(got, want) {
			t.Errorf("%s %s: got %q, want %q", address, body, got, want)
		}
	}
	feed, listing := wrappers.Position{Feed: true}, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotPart}
	see(listing, wrappers.Message, "scale/a", `{"total":100}`, "put 100 meter after 0")
	see(listing, wrappers.Message, "scale/a", `{"total":100}`)
	see(feed, wrappers.Message, "scale/a", `{"total":105}`, "put 105 meter after 100")
	see(feed, wrappers.Delete, "scale/a", ``)
	see(feed, wrappers.Message, "scale/a", `{"total":107}`, "put 107 meter after 105")
	see(listing, wrappers.Message, "add/a", `{"add":2}`)
	see(feed, wrappers.Message, "add/a", `{"add":2}`, "add 2")
	see(feed, wrappers.Message, "add/a", `{"add":2}`, "add 2")
}

// A hesitant store shows a delta of what waits before each that is committed.
type hesitant struct{ *engine.Engine }

func (h hesitant) Observe(ctx context.Context, f engine.Filter, from engine.Cursor) iter.Seq2[engine.QDelta, error] {
	return func(yield func(engine.QDelta, error) bool) {
		for d, err := range h.Engine.Observe(ctx, f, from) {
			waits := d
			waits.Pending, waits.Changed, waits.Created = true, nil, false
			if err == nil && !d.Snapshot && !yield(waits, nil) || !yield(d, err) {
				return
			}
		}
	}
}

// TestWhatWaitsIsNotTold: neither to subscribers nor to servers, and also not as an echo.
func TestWhatWaitsIsNotTold(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	links := NewLinks(LinksOptions{Store: hesitant{w.store}})
	links.Use(w.gen.Load())
	talk := links.Open(virtualTalk())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := talk.Follow(ctx, wrappers.Notify, "")
	for i := range 3 {
		op := doc(wrappers.Message, "oven/3", fmt.Sprintf(`{"value":%d}`, i))
		op.Tag = uint64(i + 1)
		if _, err := talk.Do(ctx, op); err != nil {
			t.Fatal(err)
		}
	}
	tags := []uint64{}
	for c, err := range changes {
		if err != nil {
			t.Fatal(err)
		}
		if tags = append(tags, c.Tag); len(tags) == 3 {
			break
		}
	}
	if want := []uint64{1, 2, 3}; !slices.Equal(tags, want) {
		t.Errorf("echoes of %v, want %v", tags, want)
	}
	set := w.gen.Load().Set
	d := engine.QDelta{After: engine.StateBlock{Register: "oven/3", Exists: true}, Created: true, Pending: true}
	for _, p := range set.Places("docs", "oven/3") {
		if concerns(p.Bind, &d) {
			t.Error("a delta of what waits concerns a server")
		}
	}
}

func TestResultOfWhatWaits(t *testing.T) {
	st := engine.StateBlock{Register: "r", Exists: true, Waiting: 1}
	var dot engine.Dot
	dot.Seq = 1
	if r := result(engine.Receipt{Dot: dot, States: []engine.StateBlock{st}}); !r.Waiting || r.Cursor == "" {
		t.Errorf("got %+v, want it to wait", r)
	}
	if r := result(engine.Receipt{States: []engine.StateBlock{st}}); r.Waiting {
		t.Errorf("a write that changed nothing waits: %+v", r)
	}
	st.Waiting = 0
	if r := result(engine.Receipt{Dot: dot, States: []engine.StateBlock{st}}); r.Waiting {
		t.Errorf("what was committed waits: %+v", r)
	}
	if err := kind(fmt.Errorf("x: %w", engine.ErrDenied)); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("got %v, want it denied", err)
	}
}

// TestRulesOfTheDemo follows the comments of mappings.d/rules.hcl.
func TestRulesOfTheDemo(t *testing.T) {
	src, err := os.ReadFile("../mappings.d/rules.hcl")
	if err != nil {
		t.Fatal(err)
	}
	hcl := strings.NewReplacer(`{ http =`, `{ docs =`, `{ mqtt =`, `{ talk =`, `bind "http"`, `bind "docs"`, `bind "mqtt"`, `bind "talk"`, `"http/*", "mqtt/*"`, `"docs/*", "talk/*"`, `    methods = ["POST"]`, ``).Replace(string(src))
	w := newWorld(t, hcl, virtualDocs(), virtualTalk())
	put := func(address, body string) wrappers.Result {
		t.Helper()
		r, err := w.door("docs").Do(t.Context(), doc(wrappers.Put, address, body))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	say := func(address, body string) {
		t.Helper()
		if _, err := w.door("talk").Do(t.Context(), doc(wrappers.Message, address, body)); err != nil {
			t.Fatal(err)
		}
	}
	reads := func(address, want string) {
		t.Helper()
		r, err := w.door("docs").Do(t.Context(), doc(wrappers.Read, address, ""))
		got := string(r.Payload.Raw)
		if errors.Is(err, wrappers.ErrNotFound) {
			got, err = "nothing", nil
		}
		if err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", address, got, err, want)
		}
	}
	collapse := func(register string) {
		t.Helper()
		if _, err := w.store.Collapse(t.Context(), register, engine.Cause{Principal: "ann"}); err != nil {
			t.Fatal(err)
		}
	}

	put("/v1/peak/m1", `{"value":7}`)
	say("peak/m1", `{"value":5}`)
	reads("/v1/peak/m1", `{"value":7}`)

	put("/v1/stock/bolts", `{"value":10}`)
	if _, err := w.door("docs").Do(t.Context(), doc(wrappers.Message, "/v1/stock/bolts/add", `{"add":5}`)); err != nil {
		t.Fatal(err)
	}
	say("stock/bolts/add", `{"add":-2}`)
	reads("/v1/stock/bolts", `{"value":13}`)
	say("scale/bolts", "3")
	say("scale/bolts", "4")
	reads("/v1/stock/bolts", `{"value":17}`)
	put("/v1/stock/bolts", `{"value":20}`)
	reads("/v1/stock/bolts", `{"value":20}`)
	say("scale/bolts", "6")
	reads("/v1/stock/bolts", `{"value":22}`)
	say("scale/bolts", "1") // a new scale
	reads("/v1/stock/bolts", `{"value":23}`)

	put("/v1/tags/d1", `{"value":["red","big"]}`)
	say("tags/d1/add", "round")
	reads("/v1/tags/d1", `{"value":["big","red","round"]}`)
	put("/v1/tags/d1", `{"value":["red"]}`)
	reads("/v1/tags/d1", `{"value":["red"]}`)

	if r := put("/v1/title/d1", `{"value":"Ovens"}`); !r.Waiting {
		t.Errorf("got %+v, want it to wait", r)
	}
	say("title/d1", `{"value":"Kilns"}`)
	reads("/v1/title/d1", "nothing")
	collapse("title/d1")
	reads("/v1/title/d1", `{"value":["Kilns","Ovens"]}`)
	put("/v1/title/d1", `{"value":"Kilns"}`)
	collapse("title/d1")
	reads("/v1/title/d1", `{"value":"Kilns"}`)

	put("/v1/owner/pump", `{"value":"ann"}`)
	say("owner/pump", `{"value":"joe"}`)
	reads("/v1/owner/pump", `{"value":"ann"}`)

	put("/v1/review/d1", `{"value":"a draft"}`)
	reads("/v1/review/d1", "nothing")
	collapse("review/d1")
	reads("/v1/review/d1", `{"value":"a draft"}`)

	put("/v1/claim/4a", `{"value":"ann"}`)
	say("claim/4a", `{"value":"joe"}`)
	reads("/v1/claim/4a", `{"value":"ann"}`)
}

// TestWriteBackLeavesWhatWaits: a server's own peers have written; what the register has is not written over it before
// that is collapsed, and then what came of it is.
func TestWriteBackLeavesWhatWaits(t *testing.T) {
	w := newWorld(t, `
register "review/{doc}" {
  commit = "manual"
  bind "docs" "/review/{doc}" {}
  bind "talk" "review/{doc}" {}
}
`, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	collapse := func() {
		t.Helper()
		if _, err := w.store.Collapse(t.Context(), "review/1", engine.Cause{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.client(t.Context(), wrappers.Put, "/review/1", `{"v":1}`); err != nil {
		t.Fatal(err)
	}
	collapse()
	if got := w.value("review/1"); got != `{"v":1}` {
		t.Fatalf("got %s", got)
	}
	if err := d.client(t.Context(), wrappers.Put, "/review/1", `{"v":2}`); err != nil {
		t.Fatal(err)
	}
	if _, err := w.door("talk").Do(t.Context(), doc(wrappers.Message, "review/1", `{"v":3}`)); err != nil {
		t.Fatal(err)
	}
	// Another address of the same server has its turn behind it.
	if _, err := w.door("talk").Do(t.Context(), doc(wrappers.Message, "review/2", `{"v":1}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.Collapse(t.Context(), "review/2", engine.Cause{}); err != nil {
		t.Fatal(err)
	}
	w.until("the other document is written", func() bool { return d.doc("/review/2") == `{"v":1}` })
	if got := d.doc("/review/1"); got != `{"v":2}` {
		t.Errorf("the server has %s, want what its own peer wrote", got)
	}
	collapse()
	w.until("the server has the later one", func() bool { return d.doc("/review/1") == `{"v":3}` })
}

// TestSiblingsAreNamed: who can be told one value only is told why there is none.
func TestSiblingsAreNamed(t *testing.T) {
	w := newWorld(t, `
register "title/{doc}" {
  type = ask(string)
  bind "docs" "/title/{doc}" {
    codec = text
  }
}
`, virtualDocs())
	p := w.gen.Load().Set.Places("docs", "title/1")[0]
	st := engine.StateBlock{Register: "title/1", Exists: true, Value: lattice.Set(lattice.String("x"), lattice.String("y")), Siblings: []string{""}}
	_, _, err := p.Bind.Out(p, st, nil, w.door("docs").(*link).env(t.Context()))
	if !errors.Is(err, wrappers.ErrConflict) || !strings.Contains(wrappers.Reason(err), `"x", "y"`) {
		t.Errorf("got %v, want a conflict that names the siblings", err)
	}
}
