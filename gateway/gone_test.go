package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const handshake = `
register "hand/{name}" {
  fields = { present = bool, note = string }
  bind "docs" "/hand/{name}" {
    map = { present = exists, note = payload.note }
  }
  bind "talk" "hand/{name}" {}
}
`

// A file that is there says so, and one that is not; the field says whether it is to be.
func TestExistsOfAVirtualWrapper(t *testing.T) {
	w := newWorld(t, handshake, virtualDocs(), virtualTalk())
	w.must("docs", doc(wrappers.Put, "/hand/a", `{"note":"x"}`))
	if v := w.value("hand/a"); v != `{"note":"x","present":true}` {
		t.Fatal(v)
	}
	w.must("docs", doc(wrappers.Delete, "/hand/a", ""))
	if v := w.value("hand/a"); v != `{"present":false}` {
		t.Fatal(v)
	}
	if _, err := w.do("docs", doc(wrappers.Read, "/hand/a", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Fatal(err)
	}
	if items := w.must("docs", doc(wrappers.List, "/hand/", "")).Items; len(items) != 0 {
		t.Errorf("%+v", items)
	}
	w.must("talk", doc(wrappers.Message, "hand/a", `{"present":true}`))
	if r := w.must("docs", doc(wrappers.Read, "/hand/a", "")); string(r.Payload.Raw) != `{}` {
		t.Errorf("%s", r.Payload.Raw)
	}
}

func TestExistsAtAServer(t *testing.T) {
	w := newWorld(t, handshake, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/hand/a": `{"note":"x","other":1}`})
	w.put("hand/a", "note", `"x"`)
	w.until("it was read", func() bool { return w.value("hand/a") == `{"note":"x","present":true}` })
	w.put("hand/a", "present", "false")
	w.until("the file is gone", func() bool { return s.doc("/hand/a") == "" })
	w.put("hand/a", "present", "true")
	w.until("the file is there", func() bool { return s.doc("/hand/a") == `{"note":"x"}` })
	if err := s.client(t.Context(), wrappers.Delete, "/hand/a", ""); err != nil {
		t.Fatal(err)
	}
	if v := w.value("hand/a"); v != `{"present":false}` {
		t.Fatal(v)
	}
	w.put("hand/b", "note", `"y"`) // nobody says that it is to be there
	w.put("hand/c", "present", "true")
	w.until("another is there", func() bool { return s.doc("/hand/c") == `{}` })
	if got := s.doc("/hand/b"); got != "" {
		t.Errorf("%s", got)
	}
}

const softly = `
register "staff/{id}" {
  fields = { name = string }
  bind "docs" "/staff/{id}" {
    delete = { deleted_at = now }
  }
  bind "talk" "staff/{id}" {}
}
`

// A register that goes is marked in its document, and a document that is marked is a register that has gone.
func TestSoftDelete(t *testing.T) {
	w := newWorld(t, softly, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/staff/7": `{"name":"Ann","room":5}`})
	w.put("staff/7", "name", `"Ann"`)
	w.until("it was read", func() bool { lag := w.Lag(); return lag[0].Waiting == 0 && lag[0].Behind == 0 })
	if _, err := w.store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "staff/7", Kind: engine.OpDelete}}}); err != nil {
		t.Fatal(err)
	}
	w.until("it is marked", func() bool {
		return strings.HasPrefix(s.doc("/staff/7"), `{"deleted_at":"20`) && strings.HasSuffix(s.doc("/staff/7"), `Z","name":"Ann","room":5}`)
	})
	w.put("staff/7", "name", `"Bo"`)
	w.until("it is back", func() bool { return s.doc("/staff/7") == `{"deleted_at":null,"name":"Bo","room":5}` })
	if err := s.client(t.Context(), wrappers.Put, "/staff/7", `{"name":"Bo","deleted_at":"2026-01-01"}`); err != nil {
		t.Fatal(err)
	}
	if v := w.value("staff/7"); v != "gone" {
		t.Fatal(v)
	}
	n := len(s.written())
	if err := s.client(t.Context(), wrappers.Put, "/staff/9", `{"name":"Cy","deleted_at":"2026-01-01"}`); err != nil {
		t.Fatal(err)
	}
	if v := w.value("staff/9"); v != "gone" || len(s.written()) != n {
		t.Fatal(v, s.written())
	}
}
