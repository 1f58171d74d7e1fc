package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

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
