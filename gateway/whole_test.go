package gateway

import (
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// shows is what a feed says of one address, joined to what comes next.
func shows(verb wrappers.Verb, address, body string) wrappers.Observation {
	return wrappers.Observation{Verb: verb, Address: address, Payload: wrappers.Payload{Raw: []byte(body)}, More: true}
}

// wholeWorld is a world with a feed, whose server is played by the test; nothing may be written to it.
func wholeWorld(t *testing.T) (*world, wrappers.Link, func(...wrappers.Observation)) {
	w := newWorld(t, ovens, relayDocs(), relayTalk())
	newDocServer(t, w.door("docs"), nil)
	l := w.door("talk")
	go func() {
		for c, err := range l.Follow(t.Context(), wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			t.Errorf("got %s %q to write to the server, want nothing", c.Address, c.Payload.Raw)
			return
		}
	}()
	if err := l.Seen(t.Context(), wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, nil); err != nil {
		t.Fatal(err)
	}
	return w, l, func(what ...wrappers.Observation) {
		t.Helper()
		what[len(what)-1].More = false
		if err := l.Seen(t.Context(), wrappers.Position{Feed: true}, what); err != nil {
			t.Fatal(err)
		}
		w.until("nothing is left to do", func() bool {
			at, err := w.store.Cursor(t.Context())
			return err == nil && l.(*link).back.resting(at.Ordinal)
		})
	}
}

// newest is the newest entry of a register's history.
func (w *world) newest(register string) engine.QDelta {
	w.t.Helper()
	h := w.history(register)
	if len(h) == 0 {
		w.t.Fatalf("%s has no history", register)
	}
	return h[0]
}

func TestWholeIsOneWrite(t *testing.T) {
	w, _, seen := wholeWorld(t)
	seen(shows(wrappers.Put, "oven/1", `{"value":1}`), shows(wrappers.Put, "oven/2", `{"value":2,"unit":"C"}`), shows(wrappers.Put, "oven/1", `{"value":3}`),
		shows(wrappers.Merge, "oven/2", `{"value":4}`), shows(wrappers.Put, "oven/never", `{"value":5}`), shows(wrappers.Delete, "oven/never", ""))
	for register, want := range map[string]string{"oven/1": `{"value":3}`, "oven/2": `{"unit":"C","value":4}`} {
		if got := w.value(register); got != want {
			t.Errorf("%s is %s, want %s", register, got, want)
		}
		if n := len(w.history(register)); n != 1 {
			t.Errorf("%s has %d history entries, want 1", register, n)
		}
	}
	if a, b := w.newest("oven/1"), w.newest("oven/2"); a.Cursor != b.Cursor || a.Of != 2 {
		t.Errorf("got commits %v and %v, want one of two registers", a.Cursor, b.Cursor)
	}
	if n := len(w.history("oven/never")); n != 0 {
		t.Errorf("what was never there has %d history entries", n)
	}
	seen(shows(wrappers.Delete, "oven/1", ""), shows(wrappers.Put, "oven/1", `{"unit":"F"}`))
	if got := w.value("oven/1"); got != `{"unit":"F"}` {
		t.Errorf("after a delete and a put it is %s", got)
	}
	if n := len(w.history("oven/1")); n != 2 {
		t.Errorf("got %d history entries, want 2", n)
	}
}

// What can't be applied is parked, whoever refuses it, and all else is one write.
func TestWholeWithPoison(t *testing.T) {
	w, l, seen := wholeWorld(t)
	long := strings.Repeat("x", engine.MaxValue+1)
	kept := shows(wrappers.Put, "oven/long", `{"value":"`+long+`"}`)
	kept.Keep = []wrappers.Record{{Key: "place", Value: []byte("7")}}
	seen(shows(wrappers.Put, "oven/1", `{"value":1}`), shows(wrappers.Put, "oven/bad", `{"value":`), kept, shows(wrappers.Put, "oven/2", `{"value":2}`))
	if a, b := w.newest("oven/1"), w.newest("oven/2"); a.Cursor != b.Cursor || a.Of != 2 {
		t.Errorf("got commits %v and %v, want one of two registers", a.Cursor, b.Cursor)
	}
	parked, err := w.Parked(t.Context())
	if err != nil || len(parked) != 2 {
		t.Fatalf("got %+v (%v) parked, want two", parked, err)
	}
	for r, err := range l.Kept(t.Context(), "place") {
		if err != nil || string(r.Value) != "7" {
			t.Errorf("kept: got %q, %v", r.Value, err)
		}
	}
	// Once it is what it should be, it lands by itself.
	seen(shows(wrappers.Put, "oven/long", `{"value":7}`))
	if got := w.value("oven/long"); got != `{"value":7}` {
		t.Errorf("got %s", got)
	}
}

// Too much for one write is several.
func TestWholeTooLarge(t *testing.T) {
	w, _, seen := wholeWorld(t)
	var what []wrappers.Observation
	for _, a := range []string{"oven/1", "oven/2", "oven/3"} {
		o := shows(wrappers.Put, a, `{"value":1}`)
		o.Keep = []wrappers.Record{{Key: a, Value: make([]byte, engine.MaxKept/2-1000)}}
		what = append(what, o)
	}
	seen(what...)
	commits := map[engine.Cursor]bool{}
	for _, r := range []string{"oven/1", "oven/2", "oven/3"} {
		if got := w.value(r); got != `{"value":1}` {
			t.Errorf("%s is %s", r, got)
		}
		commits[w.newest(r).Cursor] = true
	}
	if len(commits) != 2 {
		t.Errorf("got %d commits, want 2", len(commits))
	}
}

func TestSeenRename(t *testing.T) {
	renamed := func(from, to, body string) wrappers.Observation {
		o := shows(wrappers.Rename, from, body)
		o.To = to
		return o
	}
	for _, c := range []struct {
		name string
		what []wrappers.Observation
		want string
	}{
		{"with what is there", []wrappers.Observation{renamed("oven/1", "oven/2", `{"value":2}`)}, `{"value":2}`},
		{"as it was", []wrappers.Observation{renamed("oven/1", "oven/2", "")}, `{"unit":"C","value":1}`},
		{"as it was but for a field", []wrappers.Observation{renamed("oven/1", "oven/2", ""), shows(wrappers.Merge, "oven/2", `{"value":3}`)}, `{"unit":"C","value":3}`},
		{"after it was changed", []wrappers.Observation{shows(wrappers.Put, "oven/1", `{"value":8}`), renamed("oven/1", "oven/2", `{"value":9}`)}, `{"value":9}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, _, seen := wholeWorld(t)
			seen(shows(wrappers.Put, "oven/1", `{"value":1,"unit":"C"}`))
			seen(c.what...)
			if got := w.value("oven/2"); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
			gone, came := w.newest("oven/1"), w.newest("oven/2")
			if !gone.Deleted || !came.Created || gone.Cursor != came.Cursor || came.Cause.RenamedFrom != "oven/1" || came.Cause.Verb != "rename" {
				t.Errorf("got %+v and %+v, want one rename", gone, came)
			}
			if a, b := len(w.history("oven/1")), len(w.history("oven/2")); a != 2 || b != 1 {
				t.Errorf("got %d and %d history entries, want 2 and 1", a, b)
			}
		})
	}
	t.Run("two change places", func(t *testing.T) {
		w, _, seen := wholeWorld(t)
		seen(shows(wrappers.Put, "oven/1", `{"value":1}`), shows(wrappers.Put, "oven/2", `{"value":2}`))
		seen(renamed("oven/1", "oven/3", `{"value":1}`), renamed("oven/2", "oven/1", `{"value":2}`), renamed("oven/3", "oven/2", `{"value":1}`))
		if a, b, c := w.value("oven/1"), w.value("oven/2"), len(w.history("oven/3")); a != `{"value":2}` || b != `{"value":1}` || c != 0 {
			t.Errorf("got %s, %s and %d entries of what was in between", a, b, c)
		}
		if a, b := w.newest("oven/1"), w.newest("oven/2"); a.Cursor != b.Cursor {
			t.Errorf("got %v and %v, want one commit", a.Cursor, b.Cursor)
		}
	})
	t.Run("what comes can't be read", func(t *testing.T) {
		w, _, seen := wholeWorld(t)
		seen(shows(wrappers.Put, "oven/1", `{"value":1}`))
		seen(renamed("oven/1", "oven/2", `{"value":`))
		if w.value("oven/1") != "gone" {
			t.Errorf("oven/1 is %s, and the server has none", w.value("oven/1"))
		}
		parked, err := w.Parked(t.Context())
		if err != nil || len(parked) != 1 || parked[0].Address != "oven/2" {
			t.Errorf("got %+v (%v) parked, want what came", parked, err)
		}
	})
	t.Run("what comes is refused", func(t *testing.T) {
		w, _, seen := wholeWorld(t)
		seen(shows(wrappers.Put, "oven/1", `{"value":1}`))
		seen(renamed("oven/1", "oven/2", `{"value":"`+strings.Repeat("x", engine.MaxValue+1)+`"}`), shows(wrappers.Put, "oven/4", `{"value":4}`))
		if w.value("oven/1") != "gone" || w.value("oven/4") != `{"value":4}` {
			t.Errorf("oven/1 is %s and oven/4 %s", w.value("oven/1"), w.value("oven/4"))
		}
		parked, err := w.Parked(t.Context())
		if err != nil || len(parked) != 1 || parked[0].Address != "oven/2" {
			t.Errorf("got %+v (%v) parked, want what came", parked, err)
		}
	})
}

// A value that lost against the register's is told back, though the write that it came of changed nothing.
func TestHeardAndLost(t *testing.T) {
	w := newWorld(t, `
register "oven/{o}" {
  fields = { value = max(number) }
  bind "docs" "/oven/{o}" {}
  bind "talk" "oven/{o}" {}
}
`, relayDocs(), relayTalk())
	newDocServer(t, w.door("docs"), nil)
	s := newTalkServer(t, w.door("talk"), nil)
	w.put("oven/1", "value", "9")
	w.until("the server is told", func() bool { return s.retained("oven/1") == `{"value":9}` })
	s.publish("oven/1", `{"value":3}`, false)
	w.until("the server is told again", func() bool { return s.retained("oven/1") == `{"value":9}` && len(s.written()) == 2 })
}

// All that can't be applied is found at once: else each row of a large transaction were decided again for each that is parked.
func TestWholeOfPoison(t *testing.T) {
	_, door, _ := wholeWorld(t)
	b := &sightings{link: door.(*link), ctx: t.Context()}
	long := strings.Repeat("x", engine.MaxValue+1)
	for _, o := range []wrappers.Observation{
		shows(wrappers.Put, "oven/1", `{"value":"`+long+`"}`),
		shows(wrappers.Put, "oven/2", `{"value":2}`),
		shows(wrappers.Put, "oven/3", `{"value":"`+long+`"}`),
	} {
		if err := b.observe(wrappers.Position{Feed: true}, &o); err != nil {
			t.Fatal(err)
		}
	}
	_, rejected, err := b.whole.submit(b.whole.seen)
	if err == nil || len(rejected) != 2 || rejected[0].of.op.Address != "oven/1" || rejected[1].of.op.Address != "oven/3" {
		t.Errorf("got %d rejected, %v; want oven/1 and oven/3", len(rejected), err)
	}
}
