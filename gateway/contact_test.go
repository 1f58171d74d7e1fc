package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

func TestFirstContact(t *testing.T) {
	conflicting := map[string]string{"/oven/1": `{"value":1}`, "/oven/2": `{"value":2}`, "/oven/3": `{"value":33}`}
	for _, first := range []string{"", "source", "register"} {
		t.Run(first, func(t *testing.T) {
			hcl := ovens
			if first != "" {
				hcl = strings.Replace(ovens, `"/oven/{o}" {}`, `"/oven/{o}" { first = "`+first+`" }`, 1)
			}
			w := newWorld(t, hcl, relayDocs(), virtualTalk())
			w.put("oven/2", "value", "2") // equal
			w.put("oven/3", "value", "3") // differs
			w.put("oven/4", "value", "4") // missing there
			d := newDocServer(t, w.door("docs"), maps.Clone(conflicting))
			w.until("the missing side is filled", func() bool { return d.doc("/oven/4") == `{"value":4}` })
			switch first {
			case "":
				w.until("the conflict is listed", func() bool {
					c := w.Contacts()
					return len(c) == 1 && c[0].State == "conflict" && strings.Contains(strings.Join(c[0].Conflicts, " "), "/oven/3")
				})
				if w.value("oven/3") != `{"value":3}` || d.doc("/oven/3") != `{"value":33}` {
					t.Errorf("register %s, server %s", w.value("oven/3"), d.doc("/oven/3"))
				}
				// Traffic passes, and settles it.
				if err := d.client(t.Context(), wrappers.Put, "/oven/3", `{"value":5}`); err != nil {
					t.Fatal(err)
				}
				if got := w.value("oven/3"); got != `{"value":5}` {
					t.Errorf("after a peer's write: %s", got)
				}
			case "source":
				w.until("the source wins", func() bool { return w.value("oven/3") == `{"value":33}` })
			case "register":
				w.until("the register wins", func() bool { return d.doc("/oven/3") == `{"value":3}` })
			}
			if got := d.doc("/oven/2"); got != `{"value":2}` {
				t.Errorf("equal sides: %s", got)
			}
			for _, x := range d.written() {
				if strings.HasPrefix(x, "/oven/2") || strings.HasPrefix(x, "/oven/1") {
					t.Errorf("written without need: %s", x)
				}
			}
		})
	}
}

func TestFirstContactOfAFeed(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), relayTalk())
	w.put("oven/2", "value", "2")
	w.put("oven/3", "value", "3")
	s := newTalkServer(t, w.door("talk"), map[string]string{"oven/1": `{"value":1}`, "oven/3": `{"value":33}`})
	w.until("the register is filled", func() bool { return w.value("oven/1") == `{"value":1}` })
	w.until("the broker is filled", func() bool { return s.retained("oven/2") == `{"value":2}` })
	if w.value("oven/3") != `{"value":3}` || s.retained("oven/3") != `{"value":33}` {
		t.Errorf("the conflict was not left alone: register %s, broker %s", w.value("oven/3"), s.retained("oven/3"))
	}
	if got, want := s.written(), []string{`oven/2 {"value":2}`}; !slices.Equal(got, want) {
		t.Errorf("published: %q, want %q", got, want)
	}
}

func TestReloadFirstContactOfANewBind(t *testing.T) {
	w := newWorld(t, `register "oven/{o}" {
  bind "talk" "oven/{o}" {}
}`, relayDocs(), virtualTalk())
	w.put("oven/1", "value", "1")
	d := newDocServer(t, w.door("docs"), nil)
	_, turned := d.link.Patterns()
	w.Use(&Generation{Number: 2, Set: w.set(ovens)})
	<-turned
	w.until("the new bind's server is filled", func() bool { return d.doc("/oven/1") == `{"value":1}` })
	if !d.link.Maps(wrappers.Put, "", "/oven/9") {
		t.Error("the new bind is not in force")
	}
}
