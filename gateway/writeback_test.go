package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

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
		return len(items) == 1 && items[0].Tries >= 2 // it may be looked at more often
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

// A commit that comes while a change is made from the state before it is not lost.
func TestDueWhileItIsPrepared(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	b := w.door("docs").(*link).back
	s := spot{place{"", "/oven/1"}, "oven/1"}
	b.mark(s, 1)
	b.mu.Lock()
	d := b.due[s]
	b.ready = nil // as next takes it
	b.mu.Unlock()
	b.hold(d, true)
	b.mark(s, 2)
	b.finish(d)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.due[s] == nil || len(b.ready) != 1 {
		t.Errorf("got %+v and %d ready, want it due again", b.due[s], len(b.ready))
	}
}

// A commit that comes just when it is found that there is nothing to write is not lost.
func TestDueWhenItEnds(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	b := w.door("docs").(*link).back
	s := spot{place{"", "/oven/1"}, "oven/1"}
	b.mark(s, 1)
	b.mu.Lock()
	d := b.due[s]
	b.ready = nil // as next takes it
	b.mu.Unlock()
	if !b.l.owners.try(d.place) {
		t.Fatal("the address is taken")
	}
	b.hold(d, true)
	marked := make(chan struct{})
	freed := b.l.owners.freed
	b.l.owners.freed = func(p place) {
		go func() {
			defer close(marked)
			b.mark(s, 2)
		}()
		select { // it comes now, if it can
		case <-marked:
		case <-time.After(50 * time.Millisecond):
		}
		freed(p)
	}
	b.finish(d)
	<-marked
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.due[s] == nil || len(b.ready) != 1 {
		t.Errorf("got %+v and %d ready, want it due again", b.due[s], len(b.ready))
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

// What met a change that said the same is tried no more, and not shown as if it were.
func TestWriteBackMeetsItsOwnThought(t *testing.T) {
	w := newWorld(t, ovens, relayDocs(), virtualTalk())
	l := w.door("docs")
	d := newDocServer(t, l, nil)
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
		d.docs["/oven/3"] = `{"unit":"C","value":2}` // by somebody who wants the same, past the gateway
		d.mu.Unlock()
		return &wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, "412")}
	})
	w.put("oven/3", "value", "2")
	b := l.(*link).back
	w.until("it comes to rest", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return met && len(b.due) == 0
	})
	if items, err := w.Parked(t.Context()); err != nil || len(items) > 0 {
		t.Errorf("parked: %+v, %v", items, err)
	}
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

// What `create` has is written where the gateway makes the address, and not into a document that is there.
func TestCreate(t *testing.T) {
	w := newWorld(t, `
register "oven/{o}" {
  fields = { value = number }
  bind "docs" "/oven/{o}" {
    map    = { value = payload.v }
    create = { kind = "oven", v = 7 }
  }
}
`, relayDocs())
	d := newDocServer(t, w.door("docs"), nil)
	if err := d.client(t.Context(), wrappers.Put, "/oven/1", `{"v":1}`); err != nil {
		t.Fatal(err)
	}
	w.put("oven/1", "value", "2")
	w.put("oven/2", "value", "3")
	w.until("both are written", func() bool { return d.doc("/oven/1") != `{"v":1}` && d.doc("/oven/2") != "" })
	if got := d.doc("/oven/1"); got != `{"v":2}` {
		t.Errorf("a document that was there: got %s", got)
	}
	if got := d.doc("/oven/2"); got != `{"kind":"oven","v":3}` {
		t.Errorf("a document that the gateway made: got %s", got)
	}
	w.put("oven/2", "value", "4")
	w.until("it is written again", func() bool { return d.doc("/oven/2") == `{"kind":"oven","v":4}` })
}

// What can't be done twice is done where the change was made, or where the bind says.
func TestEventsOfOtherSites(t *testing.T) {
	bind := "bind \"docs\" \"/oven/{o}\" {\n direction = \"out\"\n events = true\n %s }"
	for _, test := range []struct {
		name, site, attr string
		want             []string
	}{
		{"each its own", "", "", []string{`/oven/1 {"value":1}`, `/oven/1 {"value":3}`}},
		{"this one", "gw-a", "site = \"gw-a\"\n", []string{`/oven/1 {"value":1}`, `/oven/1 {"value":2}`, `/oven/1 {"value":3}`}},
		{"another", "gw-b", "site = \"gw-a\"\n", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			hcl := strings.Replace(ovens, `bind "docs" "/oven/{o}" {}`, fmt.Sprintf(bind, test.attr), 1)
			w := newWorld(t, hcl, relayDocs(), virtualTalk())
			w.Links.site = test.site
			d := newDocServer(t, w.door("docs"), nil)
			other, err := engine.Open(engine.Options{Dir: "data", FS: vfs.NewMem(), MinFree: 1})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			w.put("oven/1", "value", "1")
			tell(t, w.store, other)
			if _, err := other.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "oven/1", Kind: engine.OpPut, Field: "value", Value: lattice.Int(2)}}}); err != nil {
				t.Fatal(err)
			}
			tell(t, other, w.store)
			w.put("oven/1", "value", "3")
			w.until("all is told that is to be", func() bool {
				r, err := w.Resting(t.Context())
				return r && err == nil && len(d.written()) >= len(test.want)
			})
			if got := d.written(); !slices.Equal(got, test.want) {
				t.Errorf("told: %q, want %q", got, test.want)
			}
		})
	}
}

// A write at another site that lost against what a server shows changes nothing there, but its peers know of it all the same: what they
// delete is gone, and stays so.
func TestDeleteKnowsOfWhatLost(t *testing.T) {
	for name, kind := range map[string]serverKind{
		"no feed":            {},
		"feed":               {feed: true},
		"feed with marks":    {feed: true, marks: true},
		"feed of whole rows": {feed: true, whole: true, marks: true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, ovens, relayDocs(), relayTalk())
			door, address := "docs", "/oven/1"
			if kind.feed {
				door, address = "talk", "oven/1"
			}
			s := newAnyServer(t, kind, w.door(door))
			// What the other node writes is an hour older, and neither knows of the other.
			other, err := engine.Open(engine.Options{Dir: "data", FS: vfs.NewMem(), MinFree: 1, Now: func() time.Time { return time.Now().Add(-time.Hour) }})
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			if _, err := other.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "oven/1", Kind: engine.OpPut, Field: "value", Value: lattice.Int(1)}}}); err != nil {
				t.Fatal(err)
			}
			servers := []*anyServer{s}
			if err := s.client(t.Context(), address, `{"value":2}`, true); err != nil {
				t.Fatal(err)
			}
			w.rest(servers, 0)
			tell(t, other, w.store)
			w.rest(servers, 0)
			if got := w.value("oven/1"); got != `{"value":2}` {
				t.Fatalf("the register has %s", got)
			}
			if err := s.client(t.Context(), address, "", true); err != nil {
				t.Fatal(err)
			}
			w.rest(servers, 0)
			if got, doc := w.value("oven/1"), s.doc(address); got != "gone" || doc != "" {
				t.Errorf("after the delete the register has %q, the server %q", got, doc)
			}
		})
	}
}

// tell gives a node what another has and it has not.
func tell(t *testing.T, from, to *engine.Engine) {
	t.Helper()
	has, err := to.Summary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for c, err := range from.Candidates(t.Context(), has.Vector, engine.Cursor{}) {
		if err == nil {
			_, err = to.Receive(t.Context(), c.Raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
