package trial

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/http"
	"github.com/spooksystems/gateway/wrappers/mqtt"
)

const ovens = `
register "oven/{o}" {
  fields = { value = number, unit = string, at = time }
  bind "http" "/oven/{o}" {
    map = { value = payload.value, unit = payload.unit }
    in  = { at = now }
  }
  bind "mqtt" "oven/{o}" {
    map = { value = payload.value, unit = payload.unit }
  }
}
`

func begin(t *testing.T, hcl string, o Options) *Trial {
	t.Helper()
	in := mapping.Input{Files: []diag.File{{Name: "t.hcl", Bytes: []byte(hcl)}}, Domains: []string{"local"}}
	for _, i := range o.Wrappers {
		in.Wrappers = append(in.Wrappers, mapping.WrapperInfo{Protocol: i.Protocol, Name: i.Name, Upstream: i.Relay || i.Attached, Listens: !i.Attached})
	}
	set, found := mapping.Load(in)
	if set == nil {
		t.Fatal(found.Err())
	}
	o.Set = set
	w, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}

func do(t *testing.T, w *Trial, wrapper string, verb wrappers.Verb, address, payload string) string {
	t.Helper()
	out, err := w.Do(t.Context(), wrapper, wrappers.Operation{Verb: verb, Address: address, Payload: wrappers.Payload{Raw: []byte(payload)}})
	if err != nil {
		t.Fatal(err)
	}
	return show(out)
}

// show is an outcome on one line.
func show(out Outcome) string {
	var s []string
	if out.Err != nil {
		s = append(s, "refused: "+wrappers.Reason(out.Err))
	}
	if out.Passed {
		s = append(s, "passed")
	}
	for _, d := range out.Deltas {
		was := "gone"
		if d.After.Exists {
			was = string(d.After.Value.AppendJSON(nil))
		}
		s = append(s, d.After.Register+" = "+was)
	}
	for _, c := range out.Told {
		what := string(c.Payload.Raw)
		if c.Gone {
			what = "gone"
		}
		if c.Echo {
			what += " (echo)"
		}
		s = append(s, fmt.Sprintf("%s %s %s", c.Wrapper, c.Address, what))
	}
	for _, p := range out.Parked {
		s = append(s, fmt.Sprintf("parked %s %s %s: %s", p.Wrapper, p.Way, p.Address, p.Reason))
	}
	if out.Dropped > 0 {
		s = append(s, fmt.Sprintf("dropped %d", out.Dropped))
	}
	return strings.Join(s, "; ")
}

var (
	virtualHTTP  = gateway.LinkInfo{Protocol: http.Protocol, Name: "web"}
	virtualMQTT  = gateway.LinkInfo{Protocol: mqtt.Protocol, Name: "floor"}
	relayHTTP    = gateway.LinkInfo{Protocol: http.Protocol, Name: "web", Relay: true}
	relayMQTT    = gateway.LinkInfo{Protocol: mqtt.Protocol, Name: "floor", Relay: true}
	attachedHTTP = gateway.LinkInfo{Protocol: http.Protocol, Name: "web", Attached: true}
)

func TestVirtual(t *testing.T) {
	w := begin(t, ovens, Options{Wrappers: []gateway.LinkInfo{virtualHTTP, virtualMQTT}, Now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC)})
	for _, c := range []struct {
		wrapper string
		verb    wrappers.Verb
		address string
		payload string
		want    string
	}{
		{"floor", wrappers.Message, "oven/1", `{"value":1,"x":2}`, `oven/1 = {"value":1}; floor oven/1 {"value":1} (echo); web /oven/1 {"value":1}`},
		{"web", wrappers.Merge, "/oven/1", `{"unit":"C"}`, `oven/1 = {"at":"2026-05-01T08:00:00Z","unit":"C","value":1}; floor oven/1 {"unit":"C","value":1}; web /oven/1 {"unit":"C","value":1} (echo)`},
		{"web", wrappers.Put, "/kiln/1", `{"unit":"C"}`, `refused: no bind maps this address`},
		{"web", wrappers.Put, "/oven/1", `{"value":"hot"}`, `refused: value: "hot" is a string, not a number`},
		{"web", wrappers.Delete, "/oven/2", ``, `refused: register oven/2 has no value here`},
		{"web", wrappers.Delete, "/oven/1", ``, `oven/1 = gone; floor oven/1 gone; web /oven/1 gone (echo)`},
	} {
		if got := do(t, w, c.wrapper, c.verb, c.address, c.payload); got != c.want {
			t.Errorf("%s %s %s:\ngot  %s\nwant %s", c.verb, c.wrapper, c.address, got, c.want)
		}
	}
}

// Whoever stands in front of servers writes to the others, and what comes back from them is no news.
func TestServers(t *testing.T) {
	for _, web := range []gateway.LinkInfo{relayHTTP, attachedHTTP} {
		w := begin(t, ovens, Options{
			Wrappers:  []gateway.LinkInfo{web, relayMQTT},
			Registers: []Register{{"oven/1", object(t, `{"value":1}`)}, {"oven/2", object(t, `{"value":2}`)}},
			Stock: []Document{
				{"web", "", "/oven/1", wrappers.Payload{Raw: []byte(`{"value":1,"note":"kept"}`)}},
				{"floor", "", "oven/2", wrappers.Payload{Raw: []byte(`{"value":22}`)}},
			},
		})
		if got, want := show(w.First), `oven/1 = {"at":"2026-01-01T00:00:00Z","value":1}; floor oven/1 {"value":1}; web /oven/2 {"value":2}`; got != want {
			t.Errorf("first contact:\ngot  %s\nwant %s", got, want)
		}
		if got, want := do(t, w, "floor", wrappers.Message, "oven/1", `{"value":3}`), `oven/1 = {"at":"2026-01-01T00:00:00Z","value":3}; web /oven/1 {"note":"kept","value":3}`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got, want := do(t, w, "web", wrappers.Merge, "/oven/1", `{"unit":"C"}`), `oven/1 = {"at":"2026-01-01T00:00:00Z","unit":"C","value":3}; floor oven/1 {"unit":"C","value":3}`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got, want := do(t, w, "web", wrappers.Put, "/kiln", `{}`), `passed`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if got := do(t, w, "floor", wrappers.Message, "oven/1", `hot`); !strings.HasPrefix(got, "parked floor in oven/1: ") {
			t.Errorf("what can't be read: %s", got)
		}
	}
}

// The same again gives the same again: dots and stamps too.
func TestDeterministic(t *testing.T) {
	run := func() (all []string) {
		w := begin(t, ovens, Options{Wrappers: []gateway.LinkInfo{relayHTTP, relayMQTT}})
		for i := range 20 {
			out, err := w.Do(t.Context(), "floor", wrappers.Operation{Verb: wrappers.Message, Address: "oven/1", Payload: wrappers.Payload{Raw: fmt.Appendf(nil, `{"value":%d}`, i)}})
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range out.Deltas {
				all = append(all, d.After.ID.String()+" "+d.Dot.String())
			}
			all = append(all, show(out))
		}
		return all
	}
	if one, two := run(), run(); !slices.Equal(one, two) {
		t.Errorf("%q\n%q", one, two)
	}
}

// Commit windows close when time passes, and what waits is told when it is collapsed.
func TestTime(t *testing.T) {
	w := begin(t, `register "a/{x}" {
  commit = "500ms"
  bind "http" "/a/{x}" {}
}
register "b/{x}" {
  commit = "manual"
  bind "http" "/b/{x}" {}
}`, Options{Wrappers: []gateway.LinkInfo{virtualHTTP}})
	do(t, w, "web", wrappers.Put, "/a/1", `{"v":1}`)
	do(t, w, "web", wrappers.Put, "/b/1", `{"v":1}`)
	for i, c := range []struct {
		do   func(context.Context) (Outcome, error)
		want string
	}{
		{func(ctx context.Context) (Outcome, error) { return w.Pass(ctx, 100*time.Millisecond) }, ``},
		{func(ctx context.Context) (Outcome, error) { return w.Pass(ctx, time.Second) }, `a/1 = {"v":1}; web /a/1 {"v":1}`},
		{func(ctx context.Context) (Outcome, error) { return w.Collapse(ctx, "b/1") }, `b/1 = {"v":1}; web /b/1 {"v":1}`},
	} {
		out, err := c.do(t.Context())
		if got := show(out); err != nil || got != c.want {
			t.Errorf("%d: got %s, %v; want %s", i, got, err, c.want)
		}
	}
}

func object(t *testing.T, js string) lattice.Value {
	t.Helper()
	v, err := lattice.ParseJSON([]byte(js))
	if err != nil {
		t.Fatal(err)
	}
	return v
}
