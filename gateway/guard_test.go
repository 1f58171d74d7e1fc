package gateway

import (
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

func guarded(first, more string) string {
	return fmt.Sprintf(`
register "oven/{o}" {
  bind "docs" "/oven/{o}" {
    first = %q
    %s
  }
  bind "talk" "oven/{o}" {
    first = %q
    %s
  }
}
`, first, more, first, more)
}

const manyOvens = 24

// differing gives every register a value, and a server that has another one at half and one of them.
func (w *world) differing(form string) map[string]string {
	have := map[string]string{}
	for i := range manyOvens {
		w.put(fmt.Sprintf("oven/%d", i), "value", "1")
		if i < manyOvens/2+1 {
			have[fmt.Sprintf(form, i)] = `{"value":2}`
		}
	}
	return have
}

func (w *world) stopped() *ContactStatus {
	for _, c := range w.Contacts() {
		if c.State == "stopped" {
			return &c
		}
	}
	return nil
}

// all tells whether all registers that the server had have this value.
func (w *world) all(value string) bool {
	for i := range manyOvens/2 + 1 {
		if w.value(fmt.Sprintf("oven/%d", i)) != value {
			return false
		}
	}
	return true
}

func TestGuardOfAFeed(t *testing.T) {
	hcl := guarded("source", "")
	w := newWorld(t, hcl, relayTalk(), virtualDocs())
	s := newTalkServer(t, w.door("talk"), w.differing("oven/%d"))
	w.until("it stops", func() bool { return w.stopped() != nil })
	c := w.stopped()
	if !strings.Contains(c.Detail, "13 of 24") || !strings.Contains(c.Detail, "50%") || !strings.Contains(c.Detail, "spookgw approve "+c.Bind) || len(c.Conflicts) != 13 {
		t.Errorf("status: %+v", c)
	}
	// Traffic passes meanwhile, and a peer who writes decides for its address.
	s.publish("oven/3", `{"value":7}`, true)
	w.until("a peer's write", func() bool { return w.value("oven/3") == `{"value":7}` })
	if n := len(s.written()); n > 11 {
		t.Errorf("published over what is held: %q", s.written())
	}
	if names, err := w.Approve(t.Context(), "other.hcl:1"); err != nil || names != nil {
		t.Errorf("approved another bind: %v, %v", names, err)
	}
	if names, err := w.Approve(t.Context(), c.Bind); err != nil || len(names) != 1 || names[0] != "talk" {
		t.Fatalf("approve: %v, %v", names, err)
	}
	w.put("oven/3", "value", "2")
	w.until("the source has won", func() bool { return w.all(`{"value":2}`) })
	w.until("it is settled", func() bool { return len(w.Contacts()) == 0 })
}

func TestGuardOfAServer(t *testing.T) {
	hcl := guarded("register", "")
	w := newWorld(t, hcl, relayDocs(), virtualTalk())
	have := w.differing("/oven/%d")
	server := newDocServer(t, w.door("docs"), have)
	w.until("it stops", func() bool { return w.stopped() != nil })
	if got := server.doc("/oven/1"); got != `{"value":2}` {
		t.Errorf("written before it was approved: %s", got)
	}
	if server.doc("/oven/20") != `{"value":1}` {
		w.until("what the server lacks is filled", func() bool { return server.doc("/oven/20") == `{"value":1}` })
	}
	line := w.stopped().Bind
	if _, err := w.Approve(t.Context(), line); err != nil {
		t.Fatal(err)
	}
	w.until("the registers have won", func() bool {
		for i := range manyOvens {
			if server.doc(fmt.Sprintf("/oven/%d", i)) != `{"value":1}` {
				return false
			}
		}
		return true
	})
	w.until("it is settled", func() bool { return len(w.Contacts()) == 0 })
}

// Within the limit nothing stops; a limit that is a number counts from one.
func TestGuardLimits(t *testing.T) {
	for _, c := range []struct {
		more string
		stop bool
	}{{`max_change = "100%"`, false}, {`max_change = 13`, false}, {`max_change = 12`, true}, {`max_change = 0`, true}, {`max_change = "54%"`, true}, {`max_change = "55%"`, false}} {
		t.Run(c.more, func(t *testing.T) {
			w := newWorld(t, guarded("source", c.more), relayTalk(), virtualDocs())
			newTalkServer(t, w.door("talk"), w.differing("oven/%d"))
			w.until("it stops or goes through", func() bool { return w.stopped() != nil || w.all(`{"value":2}`) })
			if got := w.stopped() != nil; got != c.stop {
				t.Errorf("stopped: %v, want %v", got, c.stop)
			}
		})
	}
}

// What was approved holds over a restart, until it is done; without it everything is compared anew.
func TestGuardAfterARestart(t *testing.T) {
	hcl := guarded("source", "max_change = 5")
	w := newWorld(t, hcl, relayTalk(), virtualDocs())
	have := w.differing("oven/%d")
	link := w.door("talk")
	show := func(link wrappers.Link) {
		var seen []wrappers.Observation
		for a, p := range have {
			seen = append(seen, wrappers.Observation{Address: a, Verb: wrappers.Message, Payload: wrappers.Payload{Raw: []byte(p)}})
		}
		if err := link.Seen(t.Context(), wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, seen); err != nil {
			t.Fatal(err)
		}
	}
	show(link)
	if w.all(`{"value":2}`) {
		t.Fatal("decided before anything was compared")
	}
	w.restart(hcl)
	newTalkServer(t, w.door("talk"), have)
	w.until("it stops again", func() bool { return w.stopped() != nil })
	if _, err := w.Approve(t.Context(), w.stopped().Bind); err != nil {
		t.Fatal(err)
	}
	w.until("the source has won", func() bool { return w.all(`{"value":2}`) })
}
