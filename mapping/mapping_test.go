package mapping

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// Protocols that resemble the ones of the program; the mapping knows none by name.
var (
	topics = wrappers.Protocol{
		Name:   "mqtt",
		Syntax: wrappers.Syntax{Separator: "/", Forbidden: "+#\x00"},
		Bind: []wrappers.Setting{
			{Name: "retain", Kind: wrappers.BoolSetting},
			{Name: "qos", Kind: wrappers.IntSetting, Default: int64(1), Min: 0, Max: 2},
		},
		Messages: true,
	}
	paths = wrappers.Protocol{
		Name:    "http",
		Replies: true,
		Syntax: wrappers.Syntax{Separator: "/", Absolute: true, Query: true, Forbidden: "?#", Canonical: func(s string) (string, error) {
			if !strings.HasPrefix(s, "/") {
				return "", errors.New(`a path begins with "/"`)
			}
			return s, nil
		}},
		Bind: []wrappers.Setting{{Name: "methods", Kind: wrappers.StringsSetting, Enum: []string{"GET", "PUT", "POST"}}},
	}
	names = wrappers.Protocol{Name: "dir", Syntax: wrappers.Syntax{Separator: ",", Forbidden: "=+\"\\<>;", Fold: true}}
)

func standard() []WrapperInfo {
	return []WrapperInfo{
		{Protocol: topics, Name: "floor", Listens: true},
		{Protocol: paths, Name: "web", Listens: true},
	}
}

func load(t testing.TB, src string, infos ...WrapperInfo) *Set {
	t.Helper()
	if infos == nil {
		infos = standard()
	}
	s, diags := Load(Input{Files: []diag.File{{Name: "m.hcl", Bytes: []byte(src)}}, Wrappers: infos, Later: []string{"ssh", "smb", "coap"}})
	if s == nil {
		var b strings.Builder
		diags.WriteText(&b, false, 100)
		t.Fatalf("%s", b.String())
	}
	return s
}

func in(t testing.TB, s *Set, wrapper string, verb wrappers.Verb, address, payload string) string {
	t.Helper()
	effects, err := s.In(wrapper, &wrappers.Operation{Verb: verb, Address: address, Payload: wrappers.Payload{Raw: []byte(payload)}}, Env{})
	return show(effects, err)
}

func show(effects []Effect, err error) string {
	if err != nil {
		return wrappers.Kind(err).Error() + ": " + wrappers.Reason(err)
	}
	var lines []string
	for _, e := range effects {
		line := e.Register
		if e.Document != nil {
			line = fmt.Sprintf("%q…", e.Document.Prefix())
			if len(e.Passed) > 0 {
				line += fmt.Sprintf(" passed=%q", e.Passed)
			}
		}
		if e.Whole {
			line += " whole"
		}
		if e.Delete {
			line += " delete"
		}
		if e.Marked {
			line += " marked"
		}
		for _, f := range e.Fields {
			v := f.Value.String()
			if f.Value.IsAbsent() {
				v = "cleared"
			}
			sign := "="
			if f.Add {
				sign = "+="
			}
			line += fmt.Sprintf(" %s%s%s", f.Field, sign, v)
		}
		if e.Dropped > 0 {
			line += fmt.Sprintf(" dropped=%d", e.Dropped)
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func state(t testing.TB, register, js string) engine.StateBlock {
	t.Helper()
	v, err := lattice.ParseTagged([]byte(js))
	if err != nil {
		t.Fatal(err)
	}
	return engine.StateBlock{Register: register, Exists: true, Value: v}
}

const sensors = `
register "site/{site}/{sensor}" {
  fields = { value = number, unit = string }
  bind "mqtt" "sensors/{site}/{sensor}" {}
  bind "http" "/v1/{site}/{sensor}" {}
}
`

func TestBothWays(t *testing.T) {
	s := load(t, sensors)
	if got, want := in(t, s, "floor", wrappers.Message, "sensors/berlin/oven-3", `{"value":21.50,"x":1}`), `site/berlin/oven-3 value=21.5 dropped=1`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := in(t, s, "web", wrappers.Put, "/v1/berlin/a%2Fb", `{"value":null}`), `site/berlin/a%2Fb whole value=cleared`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	places := s.Places("web", "site/berlin/a%2Fb")
	if len(places) != 1 || places[0].Address != "/v1/berlin/a%2Fb" {
		t.Fatalf("got %+v", places)
	}
	pay, send, err := places[0].Bind.Out(places[0], state(t, "site/berlin/a%2Fb", `{"value":22,"other":1}`), &wrappers.Payload{Raw: []byte(`{"note":"kept","unit":"C"}`)}, Env{})
	if err != nil || !send || string(pay.Raw) != `{"note":"kept","value":22}` {
		t.Errorf("got %s %v %v", pay.Raw, send, err)
	}
}

func BenchmarkInTemplateJSON(b *testing.B) {
	s := load(b, sensors)
	payload := []byte(`{"value": 21.5, "unit": "C", "at": "2026-11-23T05:21:17Z", "battery": 80, "q":1}`)
	op := &wrappers.Operation{Verb: wrappers.Message, Address: "sensors/berlin/oven-3", Payload: wrappers.Payload{Raw: payload}}
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	var dst []Effect
	for b.Loop() {
		var err error
		if dst, err = s.AppendIn(dst[:0], "floor", op, Env{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInAlloc(b *testing.B) {
	s := load(b, sensors)
	op := &wrappers.Operation{Verb: wrappers.Message, Address: "sensors/berlin/oven-3", Payload: wrappers.Payload{Raw: []byte(`{"value": 21.5}`)}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.In("floor", op, Env{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMapsUnmapped(b *testing.B) {
	var src strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&src, "bind \"mqtt\" \"plant/line-%d/{x}/state\" {\n register = \"r/%d/{x}\"\n}\n", i, i)
	}
	s := load(b, src.String())
	b.ReportAllocs()
	for b.Loop() {
		if s.Maps("floor", wrappers.Message, "", "plant/line-777/oven/unknown") {
			b.Fatal("mapped")
		}
	}
}
