package gateway

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

func TestFigures(t *testing.T) {
	f := newFigures("test")
	e := Event{Kind: In, Protocol: "mqtt", Wrapper: "floor", Verb: wrappers.Message, Source: "a.hcl:3", Took: time.Millisecond}
	f.note(e)
	e.Outcome = errors.New("no room").Error()
	f.note(e)
	f.note(Event{Kind: Out, Wrapper: "api", Source: "a.hcl:4", Took: time.Millisecond})
	f.note(Event{Kind: Passed, Wrapper: "floor", Address: "x"})
	f.count("floor", "sessions", 2)
	f.count("floor", "sessions", -1) // no counter falls
	if got := series(t, f, "spookgw_operations_total")["floor a.hcl:3 message error"]; got != 1 {
		t.Errorf("errors: got %v, want 1", got)
	}
	if got := series(t, f, "spookgw_wrapper_events_total")["floor sessions"]; got != 2 {
		t.Errorf("sessions: got %v, want 2", got)
	}
	if got := f.wrapperTally("floor"); got.in != 1 || got.refused != 1 || got.passed != 1 || got.sessions != 2 || got.lastError != "no room" {
		t.Errorf("tally: got %+v", got)
	}
	for i := range 2 * maxBinds {
		f.note(Event{Kind: In, Wrapper: "floor", Verb: wrappers.Put, Source: fmt.Sprint("gone.hcl:", i)})
	}
	if got := len(f.bindFigures()); got > maxBinds+2 {
		t.Errorf("binds: got %d, want at most %d and one for the rest", got, maxBinds)
	}
	f.forget("floor")
	if got := len(series(t, f, "spookgw_operations_total")); got != 0 {
		t.Errorf("after a wrapper has gone: got %d series, want 0", got)
	}
}

// series gives a counter's values, by its labels' values in this order: wrapper bind verb event outcome.
func series(t *testing.T, f *figures, name string) map[string]float64 {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			values := map[string]string{}
			for _, l := range m.GetLabel() {
				values[l.GetName()] = l.GetValue()
			}
			var key []string
			for _, n := range []string{"wrapper", "bind", "verb", "event", "outcome"} {
				if v, ok := values[n]; ok {
					key = append(key, v)
				}
			}
			out[strings.Join(key, " ")] = m.GetCounter().GetValue()
		}
	}
	return out
}

func BenchmarkNote(b *testing.B) {
	f := newFigures("test")
	e := Event{Kind: In, Protocol: "mqtt", Wrapper: "floor", Verb: wrappers.Message, Source: "a.hcl:3", Took: time.Millisecond}
	b.ReportAllocs()
	for b.Loop() {
		f.note(e)
	}
}
