package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

func renamed(from, to string) wrappers.Operation {
	op := doc(wrappers.Rename, from, "")
	op.To = to
	return op
}

// A rename is one candidate that deletes the old register and puts the new one.
func TestRename(t *testing.T) {
	w := newWorld(t, ovens+recipes, virtualDocs(), virtualTalk())
	w.must("docs", doc(wrappers.Put, "/oven/1", `{"a":1,"b":2}`))
	w.must("docs", doc(wrappers.Put, "/oven/2", `{"c":3}`))
	w.must("docs", renamed("/oven/1", "/oven/2"))
	if w.value("oven/1") != "gone" || w.value("oven/2") != `{"a":1,"b":2}` {
		t.Fatal(w.value("oven/1"), w.value("oven/2"))
	}
	h, g := w.history("oven/2")[0], w.history("oven/1")[0]
	if h.Dot != g.Dot || h.Cause.RenamedFrom != "oven/1" || h.Cause.Address != "/oven/2" || h.Cause.Verb != "rename" {
		t.Errorf("%+v", h.Cause)
	}
	if _, err := w.do("docs", renamed("/oven/1", "/oven/3")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Error(err)
	}
	if _, err := w.do("docs", renamed("/oven/2", "/elsewhere")); !errors.Is(err, wrappers.ErrUnmapped) {
		t.Error(err)
	}
	// From a name that nothing has it is a put of what comes with it.
	op := renamed("/oven/.new", "/oven/5")
	op.Payload.Raw = []byte(`{"x":1}`)
	w.must("docs", op)
	if w.value("oven/5") != `{"x":1}` {
		t.Error(w.value("oven/5"))
	}
	// A document moves with all its rows.
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"b","v":1,"note":"n"},{"name":"a","v":2}]}`))
	w.must("docs", doc(wrappers.Put, "/recipes/cake", `{"rows":[{"name":"z","v":1}]}`))
	w.must("docs", renamed("/recipes/bread", "/recipes/cake"))
	w.wantRows("bread", map[string]string{})
	w.wantRows("cake", map[string]string{"a": `{"value":2}`, "b": `{"value":1}`})
	if r := w.must("docs", doc(wrappers.Read, "/recipes/cake", "")); string(r.Payload.Raw) != `{"rows":[{"name":"b","note":"n","v":1},{"name":"a","v":2}]}` {
		t.Errorf("%s", r.Payload.Raw)
	}
	if h := w.history("recipe/cake/a")[0]; h.Of != 5 || h.Cause.RenamedFrom != "/recipes/bread" {
		t.Errorf("%+v", h)
	}
}

// rename does what a peer's rename through the relay does.
func (s *docServer) rename(t *testing.T, from, to string) {
	t.Helper()
	in, err := s.link.Begin(t.Context(), renamed(from, to))
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.docs[to] = s.docs[from]
	delete(s.docs, from)
	s.mu.Unlock()
	if _, err := in.Commit(t.Context(), renamed(from, to)); err != nil {
		t.Fatal(err)
	}
}

func TestRenameAtAServer(t *testing.T) {
	w := newWorld(t, ovens+recipes, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/tmp/new": `{"z":9}`})
	put := func(address, body string) {
		if err := s.client(t.Context(), wrappers.Put, address, body); err != nil {
			t.Fatal(err)
		}
	}
	put("/oven/1", `{"a":1,"b":2}`)
	s.rename(t, "/oven/1", "/oven/2")
	if w.value("oven/1") != "gone" || w.value("oven/2") != `{"a":1,"b":2}` {
		t.Fatal(w.value("oven/1"), w.value("oven/2"))
	}
	if h := w.history("oven/2")[0]; h.Dot != w.history("oven/1")[0].Dot || h.Cause.RenamedFrom != "oven/1" {
		t.Errorf("%+v", h.Cause)
	}
	// From an unmapped name it is a put of what the server has now, to one a delete.
	s.rename(t, "/tmp/new", "/oven/3")
	w.until("it was read back", func() bool { return w.value("oven/3") == `{"z":9}` })
	s.rename(t, "/oven/2", "/tmp/old")
	if w.value("oven/2") != "gone" {
		t.Fatal(w.value("oven/2"))
	}
	put("/recipes/bread", `{"rows":[{"name":"a","v":1},{"name":"b","v":2}]}`)
	s.rename(t, "/recipes/bread", "/recipes/cake")
	w.wantRows("bread", map[string]string{})
	w.wantRows("cake", map[string]string{"a": `{"value":1}`, "b": `{"value":2}`})
	w.put("recipe/cake/a", "value", "7")
	w.until("the row is there", func() bool {
		return s.doc("/recipes/cake") == `{"rows":[{"name":"a","v":7},{"name":"b","v":2}]}`
	})
	for _, line := range s.written() {
		if !strings.HasPrefix(line, "/recipes/cake ") {
			t.Errorf("it wrote %s", line)
		}
	}
	if _, err := s.link.Begin(t.Context(), renamed("/x", "/y")); !errors.Is(err, wrappers.ErrUnmapped) {
		t.Error(err)
	}
	if items, err := w.Parked(t.Context()); err != nil || len(items) != 0 {
		t.Errorf("%+v %v", items, err)
	}
}
