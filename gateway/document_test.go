package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const recipes = `
register "recipe/{recipe}/{param}" {
  fields = { value = number, unit = string }
  bind "docs" "/recipes/{recipe}" {
    each = payload.rows
    key  = { param = row.name }
    map  = { value = row.v, unit = row.unit }
  }
  bind "talk" "recipe/{recipe}/{param}" {}
}
`

func (w *world) do(name string, op wrappers.Operation) (wrappers.Result, error) {
	if l := w.named(name); l != nil { // opened already, and perhaps in use
		return l.Do(w.t.Context(), op)
	}
	return w.door(name).Do(w.t.Context(), op)
}

func (w *world) must(name string, op wrappers.Operation) wrappers.Result {
	w.t.Helper()
	r, err := w.do(name, op)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) wantRows(recipe string, want map[string]string) {
	w.t.Helper()
	got := map[string]string{}
	for st, err := range w.store.List(w.t.Context(), "recipe/"+recipe+"/", "", 0) {
		if err != nil {
			w.t.Fatal(err)
		}
		got[strings.TrimPrefix(st.Register, "recipe/"+recipe+"/")] = string(st.Value.AppendJSON(nil))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		w.t.Fatalf("got  %v\nwant %v", got, want)
	}
}

// A whole document is one batch of as many registers as it has rows; only what it changes is written.
func TestDocumentOfAVirtualWrapper(t *testing.T) {
	w := newWorld(t, recipes, virtualDocs(), virtualTalk())
	const first = `{"title":"Bread","rows":[{"name":"time","v":40,"note":"min"},{"name":"temp","v":180,"unit":"C"},{"name":"rest","v":5}]}`
	r := w.must("docs", doc(wrappers.Put, "/recipes/bread", first))
	if !r.Created || r.Version == "" {
		t.Fatalf("%+v", r)
	}
	w.wantRows("bread", map[string]string{"time": `{"value":40}`, "temp": `{"unit":"C","value":180}`, "rest": `{"value":5}`})
	h := w.history("recipe/bread/temp")
	if h[0].Of != 3 || h[0].Cause.Address != "/recipes/bread" {
		t.Fatalf("%+v", h[0])
	}
	// It comes back as it was written, also what no bind maps.
	got := w.must("docs", doc(wrappers.Read, "/recipes/bread", ""))
	if string(got.Payload.Raw) != `{"rows":[{"name":"time","note":"min","v":40},{"name":"temp","unit":"C","v":180},{"name":"rest","v":5}],"title":"Bread"}` || got.Version != r.Version {
		t.Fatalf("%s %s %s", got.Payload.Raw, got.Version, r.Version)
	}
	// One row from elsewhere, one new: the order stays, and the new one comes last.
	w.put("recipe/bread/time", "value", "45")
	w.put("recipe/bread/fat", "value", "1")
	got = w.must("docs", doc(wrappers.Read, "/recipes/bread", ""))
	if string(got.Payload.Raw) != `{"rows":[{"name":"time","note":"min","v":45},{"name":"temp","unit":"C","v":180},{"name":"rest","v":5},{"name":"fat","v":1}],"title":"Bread"}` || got.Version == r.Version {
		t.Fatalf("%s", got.Payload.Raw)
	}
	// A whole document without a row deletes it, and writes nothing that is as it was.
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"temp","v":180,"unit":"C"},{"name":"time","v":50},{"name":"fat","v":1}]}`))
	w.wantRows("bread", map[string]string{"time": `{"value":50}`, "temp": `{"unit":"C","value":180}`, "fat": `{"value":1}`})
	if n := len(w.history("recipe/bread/temp")); n != 1 {
		t.Errorf("%d writes of a row that never changed", n)
	}
	if h := w.history("recipe/bread/rest"); !h[0].Deleted || h[0].Dot != w.history("recipe/bread/time")[0].Dot {
		t.Errorf("%+v", h[0])
	}
	// What a merge doesn't mention is not touched.
	w.must("docs", doc(wrappers.Merge, "/recipes/bread", `{"rows":[{"name":"fat","unit":"kg"},{"name":"time","v":null},{"name":"salt","v":2}]}`))
	w.wantRows("bread", map[string]string{"temp": `{"unit":"C","value":180}`, "fat": `{"unit":"kg","value":1}`, "salt": `{"value":2}`, "time": `{}`})
	if items := w.must("docs", doc(wrappers.List, "/recipes/", "")).Items; len(items) != 1 || items[0].Address != "/recipes/bread" {
		t.Errorf("%+v", items)
	}
}

// What can't be applied whole is not applied at all.
func TestDocumentRefused(t *testing.T) {
	w := newWorld(t, recipes, virtualDocs(), virtualTalk())
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"a","v":1},{"name":"b","v":2},{"name":"c","v":3},{"name":"d","v":4}]}`))
	before, err := w.store.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		verb       wrappers.Verb
		body, want string
	}{
		{wrappers.Put, `{"rows":[{"name":"a","v":9},{"name":"b","v":9},{"name":"a","v":8},{"name":"c"}]}`, `rows 1 and 3 are both param "a"`},
		{wrappers.Put, `{"rows":[{"name":"a","v":9},{"name":"b","v":"x"},{"name":"c"},{"name":"d"}]}`, `row 2 (param "b"): value: "x" is a string, not a number`},
		{wrappers.Put, `{"rows":[{"name":"a","v":9},{"v":9}]}`, "row 2: the payload lacks what the key param is made of"},
		{wrappers.Put, `{"rows":[{"name":"a","v":9}]}`, "3 of 4 rows would be deleted, and max_change allows 50%"},
		{wrappers.Put, `{"rows":[]}`, "4 of 4 rows would be deleted"},
		{wrappers.Delete, ``, "4 of 4 rows would be deleted"},
		{wrappers.Put, ``, "the payload is empty"},
		{wrappers.Put, `{"rows":[{"name":"a","v":9}`, "JSON"},
		{wrappers.Put, `{"rows":[{"name":"a","v":9},` + strings.Repeat(`{"x":`, 100) + `1` + strings.Repeat(`}`, 100) + `]}`, "64"},
		{wrappers.Put, `{"rows":7}`, "rows is a number; a list of rows is wanted"},
		{wrappers.Put, `{}`, "rows is not there; a list of rows is wanted"},
		{wrappers.Message, `{"rows":[{"name":"a","v":9},null]}`, "row 2 is null, an object is wanted"},
	} {
		_, err := w.do("docs", doc(c.verb, "/recipes/bread", c.body))
		if err == nil || !strings.Contains(wrappers.Reason(err), c.want) {
			t.Errorf("%s %.60s: %v, want %s", c.verb, c.body, err, c.want)
		}
	}
	if after, err := w.store.Cursor(t.Context()); err != nil || after != before {
		t.Fatalf("something was written: %v %v", after, err)
	}
	if _, err := w.do("docs", doc(wrappers.Delete, "/recipes/none", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Error(err)
	}
	if _, err := w.do("docs", doc(wrappers.Read, "/recipes/none", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Error(err)
	}
}

// Who says how much may go is obeyed, and a document of no rows is one.
func TestDocumentDeleted(t *testing.T) {
	w := newWorld(t, strings.Replace(recipes, "each =", "max_change = 100\n each =", 1), virtualDocs(), virtualTalk())
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"a","v":1},{"name":"b","v":2}]}`))
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[]}`))
	w.wantRows("bread", map[string]string{})
	if r := w.must("docs", doc(wrappers.Read, "/recipes/bread", "")); string(r.Payload.Raw) != `{"rows":[]}` {
		t.Errorf("%s", r.Payload.Raw)
	}
	w.must("docs", doc(wrappers.Delete, "/recipes/bread", ""))
	if _, err := w.do("docs", doc(wrappers.Read, "/recipes/bread", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Error(err)
	}
}

// A document's version is that of all its rows, and a condition on it holds for all of them.
func TestDocumentConditional(t *testing.T) {
	w := newWorld(t, recipes, virtualDocs(), virtualTalk())
	conditional := func(body string, p wrappers.Precondition) error {
		op := doc(wrappers.Put, "/recipes/bread", body)
		op.If = p
		_, err := w.do("docs", op)
		return err
	}
	none := wrappers.Precondition{Differ: []wrappers.Version{wrappers.Any}}
	if err := conditional(`{"rows":[{"name":"a","v":1}]}`, none); err != nil {
		t.Fatal(err)
	}
	if err := conditional(`{"rows":[{"name":"a","v":2}]}`, none); !errors.Is(err, wrappers.ErrConflict) {
		t.Fatal(err)
	}
	v := w.must("docs", doc(wrappers.Read, "/recipes/bread", "")).Version
	w.put("recipe/bread/b", "value", "7")
	if err := conditional(`{"rows":[{"name":"a","v":2}]}`, wrappers.Precondition{Match: []wrappers.Version{v}}); !errors.Is(err, wrappers.ErrConflict) {
		t.Fatal(err)
	}
	v = w.must("docs", doc(wrappers.Read, "/recipes/bread", "")).Version
	if err := conditional(`{"rows":[{"name":"a","v":2},{"name":"b","v":7}]}`, wrappers.Precondition{Match: []wrappers.Version{v}}); err != nil {
		t.Fatal(err)
	}
	w.wantRows("bread", map[string]string{"a": `{"value":2}`, "b": `{"value":7}`})
}

// Whoever follows is told of a document once for each commit, and its writer of the echo once.
func TestDocumentTold(t *testing.T) {
	w := newWorld(t, recipes, virtualDocs(), virtualTalk())
	changes := w.follow("docs")
	op := doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"a","v":1},{"name":"b","v":2}]}`)
	op.Tag = 9
	w.must("docs", op)
	if c := <-changes; !c.Echo || c.Tag != 9 || string(c.Payload.Raw) != `{"rows":[{"name":"a","v":1},{"name":"b","v":2}]}` {
		t.Fatalf("%+v %s", c, c.Payload.Raw)
	}
	w.must("talk", doc(wrappers.Message, "recipe/bread/a", `{"value":5}`))
	if c := <-changes; c.Echo || c.Address != "/recipes/bread" || string(c.Payload.Raw) != `{"rows":[{"name":"a","v":5},{"name":"b","v":2}]}` {
		t.Fatalf("%+v %s", c, c.Payload.Raw)
	}
	if len(changes) != 0 {
		t.Errorf("%d changes more", len(changes))
	}
}

// In front of a server a peer's document becomes registers, and registers are laid over the document that is there.
func TestDocumentOfAServer(t *testing.T) {
	w := newWorld(t, recipes, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/recipes/bread": `{"title":"x","rows":[{"name":"b","v":2,"note":"n"},{"name":"a","v":1}]}`})
	w.put("recipe/bread/c", "value", "3")
	w.until("the server has the row", func() bool {
		return s.doc("/recipes/bread") == `{"rows":[{"name":"b","note":"n","v":2},{"name":"a","v":1},{"name":"c","v":3}],"title":"x"}`
	})
	w.wantRows("bread", map[string]string{"a": `{"value":1}`, "b": `{"value":2}`, "c": `{"value":3}`})
	// A peer changes one row, adds one and takes one out.
	if err := s.client(t.Context(), wrappers.Put, "/recipes/bread", `{"title":"y","rows":[{"name":"c","v":3},{"name":"a","v":10},{"name":"d","v":4}]}`); err != nil {
		t.Fatal(err)
	}
	w.wantRows("bread", map[string]string{"a": `{"value":10}`, "c": `{"value":3}`, "d": `{"value":4}`})
	if n := len(w.history("recipe/bread/c")); n != 1 {
		t.Errorf("%d writes of a row that never changed", n)
	}
	// A register goes elsewhere, and so its row here. The rest is as the peer left it.
	if _, err := w.store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "recipe/bread/a", Kind: engine.OpDelete}}}); err != nil {
		t.Fatal(err)
	}
	w.until("the row is gone", func() bool {
		return s.doc("/recipes/bread") == `{"rows":[{"name":"c","v":3},{"name":"d","v":4}],"title":"y"}`
	})
	// A document cut off is held: its peer has written it, and nothing of it is applied.
	if err := s.client(t.Context(), wrappers.Put, "/recipes/bread", `{"rows":[]}`); err != nil {
		t.Fatal(err)
	}
	w.wantRows("bread", map[string]string{"c": `{"value":3}`, "d": `{"value":4}`})
	parked, err := w.Parked(t.Context())
	if err != nil || len(parked) != 1 || !strings.Contains(parked[0].Reason, "2 of 2 rows would be deleted") {
		t.Fatalf("%+v %v", parked, err)
	}
	if err := w.Retry(t.Context(), parked[0].ID); err == nil {
		t.Error("a retry applied what max_change forbids")
	}
	w.Use(&Generation{Number: 2, Set: w.set(strings.Replace(recipes, "each =", "max_change = 100\n each =", 1))})
	if err := w.Retry(t.Context(), parked[0].ID); err != nil {
		t.Fatal(err)
	}
	w.wantRows("bread", map[string]string{})
}

// What a server has not been told of yet is not deleted by a document that lacks it.
func TestDocumentThatLacksNews(t *testing.T) {
	w := newWorld(t, recipes, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/recipes/bread": `{"rows":[{"name":"a","v":1},{"name":"b","v":2}]}`})
	w.put("recipe/bread/a", "value", "1")
	w.until("the server was asked", func() bool { return w.value("recipe/bread/b") == `{"value":2}` })
	s.refuses(func(wrappers.Change) *wrappers.Effect {
		return &wrappers.Effect{Outcome: wrappers.Retry, Err: errors.New("down")}
	})
	w.put("recipe/bread/c", "value", "3")
	w.put("recipe/bread/b", "value", "20")
	if err := s.client(t.Context(), wrappers.Put, "/recipes/bread", `{"rows":[{"name":"a","v":7},{"name":"b","v":2}]}`); err != nil {
		t.Fatal(err)
	}
	w.wantRows("bread", map[string]string{"a": `{"value":7}`, "b": `{"value":20}`, "c": `{"value":3}`})
	s.refuses(nil)
	w.until("the server has all of it", func() bool {
		return s.doc("/recipes/bread") == `{"rows":[{"name":"a","v":7},{"name":"b","v":20},{"name":"c","v":3}]}`
	})
}

// Ten thousand rows are one commit, and one changed row is one write at the server.
func TestLargeDocument(t *testing.T) {
	w := newWorld(t, recipes, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	const rows = 10_000
	var body strings.Builder
	for i := range rows {
		fmt.Fprintf(&body, `%c{"name":"p%05d","v":%d}`, ",["[min(i, 1)^1], i, i)
	}
	text := `{"rows":` + body.String() + `]}`
	if err := s.client(t.Context(), wrappers.Put, "/recipes/big", text); err != nil {
		t.Fatal(err)
	}
	h := w.history("recipe/big/p00007")
	if len(h) != 1 || h[0].Of != rows {
		t.Fatalf("%d commits, the first of %d parts", len(h), h[0].Of)
	}
	w.put("recipe/big/p00007", "value", "-1")
	w.until("the server has the row", func() bool { return strings.Contains(s.doc("/recipes/big"), `{"name":"p00007","v":-1}`) })
	w.until("all is settled", func() bool { lag := w.Lag(); return lag[0].Waiting == 0 && lag[0].Behind == 0 })
	if n := len(s.written()); n != 1 {
		t.Errorf("%d writes", n)
	}
}
