package gateway

import (
	"slices"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

const commands = `
register "oven/{oven}" {
  fields = { setpoint = number, note = string }
  bind "docs" "/update?ID={oven}&t={setpoint}" {
    direction = "out"
    map       = { note = payload.note }
  }
  bind "talk" "oven/{oven}" {}
}
`

// A command whose address carries the value is sent once for each value, and nothing is asked or taken back there.
func TestFilledAddress(t *testing.T) {
	w := newWorld(t, commands, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	w.put("oven/7", "note", `"x"`)
	w.put("oven/7", "setpoint", "21.5")
	w.until("it was sent", func() bool { return slices.Contains(s.written(), `/update?ID=7&t=21.5 {"note":"x"}`) })
	w.put("oven/7", "setpoint", "22")
	w.until("it was sent again", func() bool { return slices.Contains(s.written(), `/update?ID=7&t=22 {"note":"x"}`) })
	w.must("talk", doc(wrappers.Delete, "oven/7", ""))
	w.until("it is settled", func() bool { lag := w.Lag(); return lag[0].Waiting == 0 && lag[0].Behind == 0 })
	if n := len(s.written()); n != 2 {
		t.Errorf("%q", s.written())
	}
}

func TestFilledAddressTold(t *testing.T) {
	w := newWorld(t, commands, virtualDocs(), virtualTalk())
	changes := w.follow("docs")
	w.must("talk", doc(wrappers.Message, "oven/7", `{"setpoint":5,"note":"n"}`))
	if c := <-changes; c.Address != "/update?ID=7&t=5" || string(c.Payload.Raw) != `{"note":"n"}` {
		t.Errorf("%s %s", c.Address, c.Payload.Raw)
	}
}
