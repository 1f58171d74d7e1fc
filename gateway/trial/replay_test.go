package trial

import (
	"testing"
	"time"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/mqtt"
)

func TestReplay(t *testing.T) {
	virtual := []gateway.LinkInfo{{Protocol: http.Protocol, Name: "api"}, {Protocol: mqtt.Protocol, Name: "mqtt"}}
	relay := []gateway.LinkInfo{{Protocol: http.Protocol, Name: "api", Relay: true}, {Protocol: mqtt.Protocol, Name: "mqtt", Relay: true}}
	for _, test := range []struct {
		name                      string
		wrappers                  []gateway.LinkInfo
		protocol, wrapper         string
		verb                      wrappers.Verb
		address, payload, outcome string
		became                    Became
		register, told            string
	}{
		{"a write", virtual, "http", "api", wrappers.Put, "/oven/7", `{"value":21.5}`, "", Mapped, "oven/7", "oven/7"},
		{"a wrapper of another name", virtual, "mqtt", "floor", wrappers.Message, "oven/7", `{"value":21.5}`, "", Mapped, "oven/7", "/oven/7"},
		{"a query that no bind looks at", virtual, "http", "api", wrappers.Put, "/oven/7?x=1", `{"value":21.5}`, "", Mapped, "oven/7", "oven/7"},
		{"a write through a relay", relay, "http", "api", wrappers.Put, "/oven/7", `{"value":21.5}`, "", Mapped, "oven/7", "oven/7"},
		{"no bind", virtual, "http", "api", wrappers.Put, "/x", `{}`, "", Unmapped, "", ""},
		{"no bind in a relay", relay, "mqtt", "mqtt", wrappers.Message, "x", `{}`, "", Unmapped, "", ""},
		{"refused", virtual, "http", "api", wrappers.Put, "/oven/7", `{"value":"hot"}`, "", Refused, "", ""},
		{"refused, and the server has it", relay, "http", "api", wrappers.Put, "/oven/7", `{"value":"hot"}`, "", Parked, "", ""},
		{"nothing in it", virtual, "mqtt", "mqtt", wrappers.Message, "oven/7", `{}`, "", Unmoved, "", ""},
		{"a read", virtual, "http", "api", wrappers.Read, "/oven/7", "", "", Answered, "", ""},
		{"a delete of what is not here", virtual, "http", "api", wrappers.Delete, "/oven/7", "", "", Answered, "", ""},
		{"no wrapper", virtual, "coap", "field", wrappers.Put, "/oven/7", `{}`, "", Skipped, "", ""},
		{"its server refused it", relay, "http", "api", wrappers.Put, "/oven/7", `{"value":1}`, recording.NotTaken, Skipped, "", ""},
		{"no news", relay, "mqtt", "mqtt", wrappers.Message, "oven/7", `{"value":1}`, recording.NoNews, Skipped, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := begin(t, ovens, Options{Wrappers: test.wrappers})
			o := recording.Of(&wrappers.Operation{Verb: test.verb, Address: test.address, Payload: wrappers.Payload{Raw: []byte(test.payload)}})
			o.Time, o.Kind, o.Protocol, o.Wrapper, o.Outcome = Start.Add(time.Hour), recording.Write, test.protocol, test.wrapper, test.outcome
			got, err := w.Replay(t.Context(), 2, &o)
			if err != nil {
				t.Fatal(err)
			}
			register, told := "", ""
			if len(got.Registers) > 0 {
				register = got.Registers[0].Register
			}
			for _, to := range got.Told {
				if to.Protocol != test.protocol {
					told = to.Address
				}
			}
			if got.Became != test.became || register != test.register || told != test.told {
				t.Errorf("got %+v, want %s, register %q, told %q", got, test.became, test.register, test.told)
			}
			if need := test.became == Refused || test.became == Parked || test.became == Skipped; need != (got.Reason != "") && test.verb != wrappers.Delete && test.verb != wrappers.Read {
				t.Errorf("reason: got %q", got.Reason)
			}
			if test.became == Mapped {
				st, err := w.State(t.Context(), "oven/7")
				if at, _ := st.Value.Member("at"); err != nil || test.protocol == "http" && at.Text() != "2026-01-01T01:00:00Z" {
					t.Errorf("`now` is %v, not the time of the recording (%v)", at, err)
				}
			}
		})
	}
}

// TestReplayGoesOnInTime: what was to happen between two operations happens between them.
func TestReplayGoesOnInTime(t *testing.T) {
	w := begin(t, `
register "oven/{o}" {
  fields = { value = number }
  commit = "500ms"
  bind "http" "/oven/{o}" {}
}
`, Options{Wrappers: []gateway.LinkInfo{{Protocol: http.Protocol, Name: "api"}}})
	put := func(at time.Duration, payload string) Replayed {
		o := recording.Of(&wrappers.Operation{Verb: wrappers.Put, Address: "/oven/7", Payload: wrappers.Payload{Raw: []byte(payload)}})
		o.Time, o.Kind, o.Protocol, o.Wrapper = Start.Add(at), recording.Write, "http", "api"
		got, err := w.Replay(t.Context(), 2, &o)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := put(time.Second, `{"value":1}`); len(got.Registers) != 1 || got.Registers[0].Waiting != 1 || got.Registers[0].Value != nil {
		t.Errorf("the first: got %+v, want it to wait", got.Registers)
	}
	got := put(time.Minute, `{"value":2}`)
	if len(got.Registers) != 2 || string(got.Registers[0].Value) != `{"value":1}` || got.Registers[1].Waiting != 1 {
		t.Errorf("the second: got %+v, want the first collapsed", got.Registers)
	}
}
