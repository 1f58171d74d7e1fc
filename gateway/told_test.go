package gateway

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

// The newest state that a server took is kept, by register.
func TestToldOfWriteBack(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	d := newDocServer(t, w.door("docs"), nil)
	w.put("oven/1", "value", "1")
	w.put("oven/2", "value", "2")
	w.put("oven/1", "value", "3")
	w.until("both are written", func() bool { return d.doc("/oven/1") == `{"value":3}` && d.doc("/oven/2") != "" })
	st, err := w.store.ReadState(t.Context(), "oven/1")
	if err != nil {
		t.Fatal(err)
	}
	check := func() bool {
		told, err := w.Told("oven/1")
		return err == nil && len(told) == 1 && told[0].Wrapper == "docs" && told[0].Protocol == "docs" && told[0].Address == "/oven/1" &&
			told[0].Ordinal == st.Ordinal && told[0].ID == st.ID.String() && time.Since(told[0].Time) < time.Minute
	}
	w.until("its newest state is noted", check)
	g := &domain{links: w.Links}
	g.book.note(Event{Kind: Out, Protocol: "talk", Wrapper: "talk", Address: "oven/1", Registers: []string{"oven/1"}, Cursor: engine.Cursor{Log: 1, Ordinal: 2}})
	g.book.note(Event{Kind: Out, Protocol: "docs", Wrapper: "docs", Address: "/oven/1", Registers: []string{"oven/1"}, Cursor: engine.Cursor{Log: 1, Ordinal: st.Ordinal}})
	told, err := g.told("oven/1")
	if err != nil || len(told) != 2 || told[0].Wrapper != "docs" || told[0].ID != st.ID.String() || told[1].Wrapper != "talk" {
		t.Errorf("server and subscribers: got %+v, %v", told, err)
	}
	if told, err := w.Told("oven/"); err != nil || len(told) != 0 {
		t.Errorf("of another register: got %+v, %v", told, err)
	}
}

func TestToldBook(t *testing.T) {
	var b toldBook
	now := time.Now().UTC()
	tell := func(register, wrapper, address string, ordinal uint64, took time.Duration) {
		b.note(Event{
			Kind: Out, Time: now, Protocol: "mqtt", Wrapper: wrapper, Address: address, Registers: []string{register},
			Cursor: engine.Cursor{Log: 1, Ordinal: ordinal}, Took: took,
		})
	}
	tell("a", "one", "x", 5, time.Millisecond)
	tell("a", "one", "x", 7, 2*time.Millisecond)
	tell("a", "one", "x", 6, time.Second)
	tell("a", "one", "x", 7, time.Millisecond)
	tell("a", "two", "y", 7, time.Millisecond)
	b.note(Event{Kind: Out, Wrapper: "one", Registers: []string{"a"}, Outcome: "refused", Cursor: engine.Cursor{Ordinal: 9}})
	b.note(Event{Kind: In, Wrapper: "one", Registers: []string{"a"}, Cursor: engine.Cursor{Ordinal: 9}})
	want := []wire.Told{
		{Protocol: "mqtt", Wrapper: "one", Address: "x", Ordinal: 7, Time: now, TookMS: 2, Followers: 2},
		{Protocol: "mqtt", Wrapper: "two", Address: "y", Ordinal: 7, Time: now, TookMS: 1, Followers: 1},
	}
	if diff := cmp.Diff(want, b.of("a")); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	for i := range 3 * toldGeneration {
		tell(fmt.Sprint("r/", i), "one", "x", 8, 0)
		if i%1000 == 0 {
			tell("a", "two", "y", uint64(i+8), 0) // what is told of again stays
		}
	}
	if got := len(b.young) + len(b.old); got > 2*toldGeneration {
		t.Errorf("got %d registers, want at most %d", got, 2*toldGeneration)
	}
	if len(b.of("a")) != 2 || b.of("r/0") != nil || b.of(fmt.Sprint("r/", 3*toldGeneration-1)) == nil {
		t.Errorf("got %v and %v", b.of("a"), b.of("r/0"))
	}
	for i := range 3 * toldAddresses {
		tell("many", "one", fmt.Sprint(i), 8, 0)
	}
	if got := b.of("many"); len(got) != toldAddresses || got[len(got)-1].Address != fmt.Sprint(3*toldAddresses-1) {
		t.Errorf("got %+v", got)
	}
}
