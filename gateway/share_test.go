package gateway

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const sharing = `
register "dev/{id}/state" {
  fields = { temp = number }
  bind "docs" "/dev/{id}" {}
  bind "talk" "dev/{id}/state" {}
}
register "dev/{id}/name" {
  fields = { first = string }
  bind "docs" "/dev/{dev}" {
    key = { id = dev }
    map = { first = payload.name.first }
  }
  bind "talk" "dev/{id}/name" {}
}
register "dev/{id}/step/{n}" {
  fields = { what = string }
  bind "docs" "/dev/{id}" {
    each = payload.steps
    key  = { n = row.n }
  }
}
`

// Binds that share an address are one document there: one write, one version, one thing to be told of.
func TestSharedAddress(t *testing.T) {
	w := newWorld(t, sharing, virtualDocs(), virtualTalk())
	const whole = `{"name":{"first":"Ann"},"steps":[{"n":"1","what":"mix"}],"temp":21}`
	r := w.must("docs", doc(wrappers.Put, "/dev/7", whole))
	if w.value("dev/7/state") != `{"temp":21}` || w.value("dev/7/name") != `{"first":"Ann"}` || w.value("dev/7/step/1") != `{"what":"mix"}` || !r.Created {
		t.Fatal(w.value("dev/7/state"), w.value("dev/7/name"), w.value("dev/7/step/1"))
	}
	if h := w.history("dev/7/name"); h[0].Of != 3 {
		t.Fatalf("%d parts", h[0].Of)
	}
	got := w.must("docs", doc(wrappers.Read, "/dev/7", ""))
	if string(got.Payload.Raw) != whole || got.Version != r.Version {
		t.Fatalf("%s", got.Payload.Raw)
	}
	w.must("talk", doc(wrappers.Message, "dev/7/name", `{"first":"Bo"}`))
	op := doc(wrappers.Merge, "/dev/7", `{"temp":22}`)
	op.If.Match = []wrappers.Version{r.Version}
	if _, err := w.do("docs", op); !errors.Is(err, wrappers.ErrConflict) {
		t.Fatal(err)
	}
	op.If.Match = []wrappers.Version{w.must("docs", doc(wrappers.Read, "/dev/7", "")).Version}
	w.must("docs", op)
	if got := w.must("docs", doc(wrappers.Read, "/dev/7", "")); string(got.Payload.Raw) != `{"name":{"first":"Bo"},"steps":[{"n":"1","what":"mix"}],"temp":22}` {
		t.Fatalf("%s", got.Payload.Raw)
	}
	if n := len(w.history("dev/7/name")); n != 2 {
		t.Errorf("%d writes of the other's part", n)
	}
	if _, err := w.do("docs", doc(wrappers.Delete, "/dev/7", "")); err == nil || !strings.Contains(err.Error(), "1 of 1 rows") {
		t.Fatal(err)
	}
	if w.value("dev/7/name") == "gone" {
		t.Fatal("a part of a refused delete was applied")
	}
}

// At a server each writes its part, and the document goes when the last of them has.
func TestSharedWriteBack(t *testing.T) {
	w := newWorld(t, sharing[:strings.Index(sharing, `register "dev/{id}/step`)], relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/dev/7": `{"temp":1,"name":{"first":"Ann","last":"Li"},"x":0}`})
	w.put("dev/7/state", "temp", "1")
	w.until("both parts were read", func() bool { return w.value("dev/7/name") == `{"first":"Ann"}` })
	w.put("dev/7/name", "first", `"Bo"`)
	w.put("dev/7/state", "temp", "2")
	w.until("both parts are there", func() bool {
		return s.doc("/dev/7") == `{"name":{"first":"Bo","last":"Li"},"temp":2,"x":0}`
	})
	gone := func(register string) {
		if _, err := w.store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: register, Kind: engine.OpDelete}}}); err != nil {
			t.Fatal(err)
		}
	}
	gone("dev/7/name")
	w.until("one part is gone", func() bool { return s.doc("/dev/7") == `{"name":{"last":"Li"},"temp":2,"x":0}` })
	gone("dev/7/state")
	w.until("the document is gone", func() bool { return s.doc("/dev/7") == "" })
	if err := s.client(t.Context(), wrappers.Put, "/dev/8", `{"temp":5,"name":{"first":"Cy"}}`); err != nil {
		t.Fatal(err)
	}
	if w.value("dev/8/state") != `{"temp":5}` || w.value("dev/8/name") != `{"first":"Cy"}` {
		t.Fatal(w.value("dev/8/state"), w.value("dev/8/name"))
	}
}
