package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// A register that is renamed is to be moved at a server that can, from where the server has it, and what was there stays where
// that is refused.
func TestRenamedIsMoved(t *testing.T) {
	moving := rows
	moving.Renames = true
	w := newWorld(t, strings.Replace(ovens, `bind "talk"`, `bind "rows"`, 1), virtualDocs(), LinkInfo{Protocol: moving, Name: "rows", Attached: true})
	l := w.door("rows")
	see := func(at wrappers.Position, what ...wrappers.Observation) {
		t.Helper()
		if err := l.Seen(t.Context(), at, what); err != nil {
			t.Fatal(err)
		}
	}
	feed := wrappers.Position{Feed: true}
	see(wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd})
	put := func(address, body string) wrappers.Observation {
		return wrappers.Observation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(body)}}
	}
	see(feed, put("oven/1", `{"value":1}`), put("oven/a", `{"value":2}`), put("oven/b", `{"value":3}`))
	changes := make(chan wrappers.Change)
	go func() {
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
	settle := func(c wrappers.Change, e wrappers.Effect) {
		t.Helper()
		if err := l.Settle(t.Context(), c, e); err != nil {
			t.Fatal(err)
		}
	}
	done := wrappers.Effect{Outcome: wrappers.Done}
	observed := func() bool {
		at, err := w.store.Cursor(t.Context())
		behind, _ := l.(*link).back.lag()
		return err == nil && behind == at.Ordinal
	}
	w.until("first contact is over", func() bool {
		at, err := w.store.Cursor(t.Context())
		return err == nil && l.(*link).back.resting(at.Ordinal)
	})
	// Renamed twice before the server hears of it.
	w.put("oven/x", "value", "9")
	w.until("a write is out", func() bool {
		l.(*link).back.mu.Lock()
		defer l.(*link).back.mu.Unlock()
		return len(l.(*link).back.flying) == 1
	})
	w.must("docs", renamed("/oven/1", "/oven/2"))
	w.must("docs", renamed("/oven/2", "/oven/3"))
	w.until("both are seen", observed)
	c := <-changes
	settle(c, done)
	c = <-changes
	if c.Address != "oven/3" || c.From != "oven/1" || !c.Create || string(c.Payload.Raw) != `{"value":1}` {
		t.Fatalf("got %+v", c)
	}
	settle(c, done)
	c = <-changes
	if c.Address != "oven/1" || !c.Gone {
		t.Fatalf("got %+v", c)
	}
	settle(c, done)
	see(feed, wrappers.Observation{Verb: wrappers.Delete, Address: "oven/1"}, put("oven/3", `{"value":1}`))
	// Refused, it stays.
	w.must("docs", renamed("/oven/3", "/oven/4"))
	if c = <-changes; c.Address != "oven/4" || c.From != "oven/3" {
		t.Fatalf("got %+v", c)
	}
	settle(c, wrappers.Effect{Outcome: wrappers.Parked, Err: errors.New("no such name here")})
	w.until("both are parked", func() bool {
		items, err := w.Parked(t.Context())
		return err == nil && len(items) == 2
	})
	// Two at once are not told apart.
	w.must("docs", wrappers.Operation{Parts: []wrappers.Operation{renamed("/oven/a", "/oven/c"), renamed("/oven/b", "/oven/d")}})
	gone := 0
	for range 4 {
		c := <-changes
		if c.From != "" || !strings.HasPrefix(c.Address, "oven/") || strings.Contains("1234", c.Address[5:]) {
			t.Errorf("got %+v", c)
		}
		if c.Gone {
			gone++
		}
		settle(c, done)
	}
	if gone != 2 {
		t.Errorf("%d are gone, want 2", gone)
	}
}
