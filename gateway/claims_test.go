package gateway

import (
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// share is a protocol that can't tell case apart.
var share = wrappers.Protocol{Name: "docs", Syntax: wrappers.Syntax{Separator: "/", Absolute: true, Fold: true}}

const files = `
register "file/{name}" {
  fields = { v = number }
  bind "docs" "/files/{name}" {}
  bind "talk" "file/{name}" {}
}
`

// Names that differ in case are one address: the first register keeps it, and the other's write-back is parked.
func TestNamesThatDifferInCase(t *testing.T) {
	w := newWorld(t, files, LinkInfo{Protocol: share, Name: "docs", Relay: true}, virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	w.put("file/Readme", "v", "1")
	w.until("it is there", func() bool { return s.doc("/files/Readme") == `{"v":1}` })
	w.put("file/README", "v", "2")
	var items []ParkedItem
	w.until("the other is parked", func() bool { items, _ = w.Parked(t.Context()); return len(items) == 1 })
	if r := items[0].Reason; !strings.Contains(r, "file/Readme and file/README") || items[0].Register != "file/README" {
		t.Fatal(r)
	}
	// A peer that spells it in a third way means the first.
	if err := s.client(t.Context(), wrappers.Put, "/files/readme", `{"v":7}`); err != nil {
		t.Fatal(err)
	}
	if w.value("file/Readme") != `{"v":7}` || w.value("file/readme") != "gone" || w.value("file/README") != `{"v":2}` {
		t.Fatal(w.value("file/Readme"), w.value("file/readme"), w.value("file/README"))
	}
	for _, line := range s.written() {
		if strings.HasPrefix(line, "/files/README") {
			t.Errorf("it wrote %s", line)
		}
	}
}

// With fold they are one register, whatever the protocol.
func TestFold(t *testing.T) {
	w := newWorld(t, strings.Replace(files, "fields", "fold = true\n  fields", 1), LinkInfo{Protocol: share, Name: "docs", Anonymous: wrappers.WriteAccess}, virtualTalk())
	w.must("docs", doc(wrappers.Put, "/files/Readme", `{"v":1}`))
	w.must("talk", doc(wrappers.Message, "file/README", `{"v":2}`))
	if w.value("file/readme") != `{"v":2}` || w.value("file/Readme") != "gone" {
		t.Fatal(w.value("file/readme"), w.value("file/Readme"))
	}
	for _, name := range []string{"/files/README", "/files/readme"} {
		if r := w.must("docs", doc(wrappers.Read, name, "")); string(r.Payload.Raw) != `{"v":2}` {
			t.Errorf("%s: %s", name, r.Payload.Raw)
		}
	}
}
