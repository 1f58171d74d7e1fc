package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const plates = `
register "plate/{menu}/{dish}" {
  bind "docs" "/menu/{menu}" {
    each = payload
    key  = { dish = row.dish }
  }
  bind "talk" "plate/{menu}/{dish}" {}
}
register "note/{menu}" {
  bind "docs" "/board/{menu}" {
    map = { note = payload.note }
  }
}
register "cost/{menu}" {
  bind "docs" "/board/{menu}" {
    map = { cost = payload.cost }
  }
}
`

var plateAccess = []AccessBlock{
	{Register: "plate/{menu}/{dish}", Read: []string{"ann"}, Write: []string{"dora"}},
	{Register: "plate/{menu}/caviar", Read: []string{"boss"}, Write: []string{"boss"}},
	{Register: "plate/staff/{dish}", Write: []string{"boss"}},
	{Register: "cost/{menu}", Read: []string{"boss"}, Write: []string{"boss"}},
}

// A document of many registers is read and written whole: who may not do that with one of them may not do it at all.
func TestAccessOfDocuments(t *testing.T) {
	w := newWorld(t, plates, virtualDocs(), virtualTalk())
	w.guard(plates, nil, AccessBlock{Register: "plate/{menu}/{dish}", Write: []string{"*"}})
	w.must("docs", doc(wrappers.Put, "/menu/plain", `[{"dish":"soup","price":3},{"dish":"bread","price":1},{"dish":"tea","price":1}]`))
	w.must("docs", doc(wrappers.Put, "/menu/rich", `[{"dish":"soup","price":3},{"dish":"caviar","price":99}]`))
	w.must("docs", doc(wrappers.Put, "/board/1", `{"note":"n","cost":1}`))
	w.guard(plates, nil, plateAccess...)
	link := w.door("docs")
	do := func(who string, verb wrappers.Verb, address, body string) error {
		op := doc(verb, address, body)
		if verb == wrappers.Rename {
			op.To, op.Payload = body, wrappers.Payload{}
		}
		_, err := link.Do(t.Context(), by(who, op))
		return err
	}
	for _, c := range []struct {
		who           string
		verb          wrappers.Verb
		address, body string
		may           bool
	}{
		{"ann", wrappers.Read, "/menu/plain", "", true},
		{"bob", wrappers.Read, "/menu/plain", "", false},
		{"ann", wrappers.Read, "/menu/rich", "", false}, // it has a row that she may not read
		{"boss", wrappers.Read, "/menu/rich", "", false},
		{"ann", wrappers.Merge, "/menu/plain", `[{"dish":"soup","price":4}]`, false},
		{"dora", wrappers.Merge, "/menu/plain", `[{"dish":"soup","price":4}]`, true},
		{"dora", wrappers.Merge, "/menu/rich", `[{"dish":"soup","price":4}]`, true}, // the row it names
		{"dora", wrappers.Merge, "/menu/plain", `[{"dish":"soup","price":5},{"dish":"caviar","price":1}]`, false},
		{"dora", wrappers.Put, "/menu/rich", `[{"dish":"soup","price":4}]`, false}, // the row that it lacks goes
		{"dora", wrappers.Delete, "/menu/rich", "", false},
		{"dora", wrappers.Put, "/menu/plain", `[{"dish":"soup","price":6},{"dish":"bread","price":1}]`, true},
		{"dora", wrappers.Put, "/menu/new", `[{"dish":"soup","price":1}]`, true},
		{"dora", wrappers.Put, "/menu/staff", `[{"dish":"soup","price":1}]`, false},
		{"dora", wrappers.Rename, "/menu/rich", "/menu/poor", false},  // with a row that she may not write
		{"dora", wrappers.Rename, "/menu/new", "/menu/staff", false},  // to where she may not
		{"dora", wrappers.Rename, "/menu/plain", "/menu/rich", false}, // over a row that would go
		{"dora", wrappers.Rename, "/menu/new", "/menu/newer", true},
		{"ann", wrappers.Read, "/board/1", "", false}, // one part of it
		{"boss", wrappers.Read, "/board/1", "", true},
		{"ann", wrappers.Put, "/board/1", `{"note":"x","cost":1}`, false},
	} {
		before := w.registerValues()
		err := do(c.who, c.verb, c.address, c.body)
		if c.may && err != nil || !c.may && !errors.Is(err, wrappers.ErrDenied) {
			t.Errorf("%s of %q at %s %s: got %v, want may %v", c.verb, c.who, c.address, c.body, err, c.may)
		}
		if after := w.registerValues(); !c.may && len(after) != len(before) {
			t.Errorf("%s of %q at %s: half of it was done: %v", c.verb, c.who, c.address, after)
		}
		if c.verb == wrappers.Read {
			if may := link.May(wrappers.Read, "", c.address, by(c.who, wrappers.Operation{}).Who); (may == nil) != c.may {
				t.Errorf("may %q read %s: %v", c.who, c.address, may)
			}
		}
	}
	if got := w.value("plate/plain/soup"); got != `{"price":6}` {
		t.Errorf("a refused merge left something: %s", got)
	}
	// Of a document without rows nobody knows which it will have.
	if err := link.May(wrappers.Read, "", "/menu/empty", by("ann", wrappers.Operation{}).Who); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("a document that is not there: %v", err)
	}
}

// In front of a server the same holds before the server hears of it, and it is not told rows that its peers may not read.
func TestAccessOfDocumentsRelay(t *testing.T) {
	w := newWorld(t, plates, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	put := func(who string, verb wrappers.Verb, address, body string) error {
		op := doc(verb, address, body)
		if verb == wrappers.Rename {
			op.To, op.Payload = body, wrappers.Payload{}
		}
		op.Who.Principal = who
		in, err := s.link.Begin(t.Context(), op)
		if err != nil {
			return err
		}
		s.mu.Lock()
		if verb == wrappers.Rename {
			s.docs[op.To] = s.docs[address]
			delete(s.docs, address)
		} else if verb == wrappers.Put {
			s.docs[address] = body
		}
		s.mu.Unlock()
		_, err = in.Commit(t.Context(), op)
		return err
	}
	if err := put("boss", wrappers.Put, "/menu/rich", `[{"dish":"soup","price":3},{"dish":"caviar","price":99}]`); err != nil {
		t.Fatal(err)
	}
	if err := put("boss", wrappers.Put, "/menu/plain", `[{"dish":"soup","price":3}]`); err != nil {
		t.Fatal(err)
	}
	w.rests()
	w.guard(plates, nil,
		AccessBlock{Register: "plate/{menu}/{dish}", Read: []string{"docs/docs"}, Write: []string{"docs/docs:dora"}},
		AccessBlock{Register: "plate/{menu}/caviar", Read: []string{"docs/docs:dora"}, Write: []string{"docs/docs:boss"}},
		AccessBlock{Register: "plate/staff/{dish}", Write: []string{"docs/docs:boss"}},
	)
	w.rests()
	for _, c := range []struct {
		verb          wrappers.Verb
		address, body string
		may           bool
	}{
		{wrappers.Put, "/menu/plain", `[{"dish":"soup","price":4},{"dish":"caviar","price":1}]`, false},
		{wrappers.Put, "/menu/rich", `[{"dish":"soup","price":4}]`, false}, // the row that it lacks goes
		{wrappers.Delete, "/menu/rich", "", false},
		{wrappers.Rename, "/menu/rich", "/menu/other", false},
		{wrappers.Rename, "/menu/plain", "/menu/rich", false},
		{wrappers.Put, "/menu/plain", `[{"dish":"soup","price":4}]`, true},
		{wrappers.Put, "/menu/new", `[{"dish":"soup","price":4}]`, true},
		{wrappers.Rename, "/menu/new", "/menu/staff", false},
		{wrappers.Rename, "/menu/plain", "/menu/moved", true},
	} {
		err := put("docs/docs:dora", c.verb, c.address, c.body)
		if c.may && err != nil || !c.may && !errors.Is(err, wrappers.ErrDenied) {
			t.Errorf("%s at %s %s: got %v, want may %v", c.verb, c.address, c.body, err, c.may)
		}
	}
	w.rests()
	if a, b := w.value("plate/rich/caviar"), w.value("plate/moved/soup"); a != `{"price":99}` || b != `{"price":4}` {
		t.Errorf("%s %s", a, b)
	}
	// A row that the server's peers may not read is not written there, the others are.
	if _, err := w.store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{
		{Register: "plate/late/caviar", Kind: engine.OpPut, Field: "price", Value: number(1)},
		{Register: "plate/late/soup", Kind: engine.OpPut, Field: "price", Value: number(2)},
	}}); err != nil {
		t.Fatal(err)
	}
	w.until("the other row is told", func() bool { return strings.Contains(s.doc("/menu/late"), "soup") })
	w.rests()
	if got := s.doc("/menu/late"); got != `[{"dish":"soup","price":2}]` {
		t.Errorf("told what its peers may not read: %s", got)
	}
}
