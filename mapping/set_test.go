package mapping

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

func TestUnmappedAllocatesNothing(t *testing.T) {
	if racing {
		t.Skip("allocations are counted without the race detector")
	}
	s := load(t, sensors)
	op := &wrappers.Operation{Verb: wrappers.Put, Address: "/v2/berlin/oven-3"}
	if n := testing.AllocsPerRun(100, func() {
		if s.Maps("web", wrappers.Put, "", op.Address) {
			t.Fatal("mapped")
		}
		if _, err := s.In("web", op, Env{}); err != wrappers.ErrUnmapped {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("got %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() {
		if !s.Maps("web", wrappers.Put, "", "/v1/berlin/oven-3") {
			t.Fatal("not mapped")
		}
	}); n != 0 {
		t.Errorf("mapped: got %v allocations", n)
	}
}

func TestInAllocations(t *testing.T) {
	if racing {
		t.Skip("allocations are counted without the race detector")
	}
	s := load(t, sensors)
	op := &wrappers.Operation{Verb: wrappers.Message, Address: "sensors/berlin/oven-3", Payload: wrappers.Payload{Raw: []byte(`{"value": 21.5, "unit": "C"}`)}}
	var dst []Effect
	if n := testing.AllocsPerRun(100, func() {
		var err error
		if dst, err = s.AppendIn(dst[:0], "floor", op, Env{}); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("got %v allocations, want at most 2", n)
	}
	if got, want := show(dst, nil), `site/berlin/oven-3 unit="C" value=21.5`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// What a message gave must not change when its memory serves the next one.
func TestEffectsOutliveMessages(t *testing.T) {
	s := load(t, sensors)
	raw := []byte(`{"unit":"kelvin"}`)
	op := &wrappers.Operation{Verb: wrappers.Message, Address: "sensors/berlin/oven-3", Payload: wrappers.Payload{Raw: raw}}
	first, err := s.In("floor", op, Env{})
	if err != nil {
		t.Fatal(err)
	}
	copy(raw, `{"unit":"XXXXXX"}`)
	op.Address = "sensors/paris/oven-4"
	if _, err := s.In("floor", op, Env{}); err != nil {
		t.Fatal(err)
	}
	if got, want := show(first, nil), `site/berlin/oven-3 unit="kelvin"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParts(t *testing.T) {
	s := load(t, sensors)
	part := func(address, raw string) wrappers.Operation {
		return wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(raw)}}
	}
	op := &wrappers.Operation{Parts: []wrappers.Operation{part("/v1/a/b", `{"value":1}`), part("/other", `x`), part("/v1/a/c", `{"value":2}`)}}
	if got, want := show(s.In("web", op, Env{})), "site/a/b whole value=1; site/a/c whole value=2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	op.Parts[2] = part("/v1/a/c", `{"value":"x"}`)
	if _, err := s.In("web", op, Env{}); !errors.Is(err, wrappers.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	op.Parts = op.Parts[1:2]
	if _, err := s.In("web", op, Env{}); err != wrappers.ErrUnmapped {
		t.Errorf("got %v", err)
	}
}

func TestMergePatchOfObjects(t *testing.T) {
	s := load(t, "bind \"http\" \"/o/{n}\" {\n register = \"{n}\"\n}\n")
	op := &wrappers.Operation{Verb: wrappers.Merge, Address: "/o/limits", Payload: wrappers.Payload{Raw: []byte(`{"deep":{"b":null,"c":{"d":1,"e":null}}}`)}}
	if got, want := show(s.In("web", op, scriptEnv)), `limits deep={"a":1,"c":{"d":1}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	op.Verb = wrappers.Message
	if got, want := show(s.In("web", op, scriptEnv)), `limits deep={"b":null,"c":{"d":1,"e":null}}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAccessors(t *testing.T) {
	src := "register \"r/{x}\" {\n  fields = { a = number, b = string }\n  bind \"mqtt\" \"t/{x}\" {\n    map       = { a = payload.a }\n    direction = \"out\"\n    delete    = \"ignore\"\n    first     = \"source\"\n    events    = true\n    retain    = true\n  }\n}\n"
	s := load(t, src)
	b := s.Binds()[0]
	if b.Source() != "m.hcl:3" || b.Inward() || !b.Outward() || !b.Events() || b.OnDelete() != "ignore" || b.First() != "source" || b.Register() != "r/{x}" {
		t.Errorf("got %+v", b)
	}
	if o := b.Options(); !o.Bool("retain") || o.Int("qos") != 1 || o.String("direction") != "out" {
		t.Errorf("got %v", o)
	}
	if !b.Carries("a") || b.Carries("b") || b.Carries("") {
		t.Error("carries")
	}
	st := state(t, "r/1", `{"a":1,"b":"x"}`)
	if got := fmt.Sprint(b.Mapped("r/1", st)); got != "[{a 1 false}]" {
		t.Errorf("got %s", got)
	}
	if got := b.Clears(st); got != nil {
		t.Errorf("got %v", got)
	}
	if p := s.Patterns("floor"); len(p) != 1 || p[0].In || !p[0].Out || p[0].Bind != b.ID() || len(p[0].Segments) != 2 || p[0].Segments[0].Literal != "t" {
		t.Errorf("got %+v", p)
	}
	d, ok := s.Declared("r/9")
	if !ok || d.Source != "m.hcl:1" || d.Fields["a"] != "number" {
		t.Errorf("got %+v", d)
	}
	// The hash is of the meaning: layout and comments are none.
	same := load(t, "# comment\n\n"+strings.ReplaceAll(src, "    ", "\t"))
	if same.Hash() != s.Hash() || same.Binds()[0].Hash() != b.Hash() || same.Binds()[0].ID() != b.ID() {
		t.Error("another hash for another layout")
	}
	other := load(t, strings.Replace(src, "a = number", "a = any", 1))
	if other.Hash() == s.Hash() || other.Binds()[0].Hash() == b.Hash() || other.Binds()[0].ID() != b.ID() {
		t.Error("the same hash for another type, or another identity")
	}
}

func TestEmpty(t *testing.T) {
	s, diags := Load(Input{Wrappers: standard()})
	if s == nil || len(diags) > 0 {
		t.Fatal(diags.Err())
	}
	if s.Maps("web", wrappers.Put, "", "/x") || s.Places("web", "x") != nil || s.Under("web", "", "") != nil || s.Hash() == "" {
		t.Error("an empty set maps something")
	}
	if err := s.Check("x", []engine.Op{{Register: "x", Kind: engine.OpPut, Value: lattice.Int(1)}}); err != nil {
		t.Error(err)
	}
}

func TestTooManyBinds(t *testing.T) {
	var b strings.Builder
	for i := range maxBinds + 3 {
		fmt.Fprintf(&b, "bind \"http\" \"/b/%d/{x}\" {\n register = \"b/%d/{x}\"\n}\n", i, i)
	}
	files := []diag.File{{Name: "m.hcl", Bytes: []byte(b.String())}}
	_, diags := Load(Input{Files: files, Wrappers: standard()})
	if len(diags) != 1 || diags[0].Summary != "too many binds" {
		t.Errorf("got %d findings: %v", len(diags), diags.Err())
	}
}

func TestConcurrentUse(t *testing.T) {
	s := everything(t, "maps")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range 200 {
				op := &wrappers.Operation{Verb: wrappers.Put, Address: "/limit", Payload: wrappers.Payload{Raw: fmt.Appendf(nil, `{"value":%d,"values":[1,2],"z":5}`, i)}}
				if _, err := s.In("web", op, scriptEnv); err != nil {
					t.Error(err)
				}
				op = &wrappers.Operation{Verb: wrappers.Message, Address: "plc/p1/state", Payload: wrappers.Payload{Raw: []byte(`{"kind":"state","env":{"raw":615},"s":"ON","a":1,"b":2}`)}}
				e, err := s.In("floor", op, scriptEnv)
				if err != nil || len(e) != 1 || e[0].Register != "plc/p1" {
					t.Error(e, err)
				}
				for _, p := range s.Places("floor", "plc/p1") {
					if _, _, err := p.Bind.Out(p, engine.StateBlock{Register: "plc/p1", Exists: true, Value: lattice.Object(lattice.Member{Name: "temp", Value: lattice.Int(int64(i))})}, nil, scriptEnv); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkLoad1000(b *testing.B) {
	var src strings.Builder
	for i := range 500 {
		fmt.Fprintf(&src, `register "line-%d/{x}" {
  fields = { value = number, unit = string, on = bool }
  bind "mqtt" "plant/line-%d/{x}/state" {
    when = payload.kind == "state"
    map  = { value = scale(payload.env.raw, 0.1, -40), on = table(payload.s, { ON = true, OFF = false }) }
    out  = { kind = "state" }
  }
  bind "http" "/line-%d/{x}" {}
}
`, i, i, i)
	}
	for b.Loop() {
		load(b, src.String())
	}
}

func BenchmarkMapsMapped(b *testing.B) {
	s := load(b, sensors)
	b.ReportAllocs()
	for b.Loop() {
		if !s.Maps("floor", wrappers.Message, "", "sensors/berlin/oven-3") {
			b.Fatal("not mapped")
		}
	}
}

func BenchmarkOut(b *testing.B) {
	s := load(b, sensors)
	st := state(b, "site/berlin/oven-3", `{"value":21.5,"unit":"C"}`)
	p := s.Places("floor", "site/berlin/oven-3")[0]
	env := Env{Now: time.Unix(0, 0)}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := p.Bind.Out(p, st, nil, env); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlaces(b *testing.B) {
	s := load(b, sensors)
	b.ReportAllocs()
	for b.Loop() {
		if len(s.Places("floor", "site/berlin/oven-3")) != 1 {
			b.Fatal()
		}
	}
}

func TestWhole(t *testing.T) {
	s := load(t, `register "r/{x}" {
  fields = { a = number, b = any }
  bind "http" "/members/{x}" {}
  bind "http" "/one/{x}" {
    map = { a = payload.a }
  }
  bind "http" "/all/{x}" {
    map = { b = payload }
  }
  bind "http" "/text/{x}" {
    codec = text("{a}!")
  }
  bind "http" "/number/{x}" {
    codec = number
    map   = { a = payload }
  }
}
bind "http" "/open/{x}" {
  register = "open/{x}"
}
`)
	var got []string
	for _, b := range s.Binds() {
		got = append(got, fmt.Sprintf("%s %v", b.Address(), b.Whole()))
	}
	want := "/members/{x} false, /one/{x} false, /all/{x} true, /text/{x} true, /number/{x} true, /open/{x} true"
	if got := strings.Join(got, ", "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Loops and functions over what a peer sends are bounded.
func TestBoundedExpressions(t *testing.T) {
	s := load(t, `bind "http" "/x" {
  register  = "x"
  direction = "in"
  in = {
    one  = [for v in payload.list : v]
    two  = [for v in payload.square : [for w in payload.square : v]]
    long = [for v in payload.many : "${payload.text}${v}"]
    join = join(payload.sep, payload.many)
    swap = replace(payload.text, "a", payload.text)
    all  = payload.rows[*].x
  }
}
`)
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	text := strings.Repeat("a", 100_000)
	for _, c := range []struct{ payload, want string }{
		{`{"list":` + list(9000) + `}`, ""},
		{`{"list":` + list(20000) + `}`, "too many values"},
		{`{"square":` + list(300) + `}`, ""},
		{`{"square":` + list(2000) + `}`, "too many values"},
		{`{"many":` + list(5000) + `,"text":"` + text + `"}`, "too large"},
		{`{"many":` + list(5000) + `,"sep":"` + text + `"}`, "too large"},
		{`{"text":"` + text + `"}`, "too large"},
		{`{"rows":[{"x":1},{"x":2}]}`, ""},
		{`{"rows":[{"x":1},{"y":2}]}`, "attribute"},
	} {
		op := &wrappers.Operation{Verb: wrappers.Put, Address: "/x", Payload: wrappers.Payload{Raw: []byte(c.payload)}}
		_, err := s.In("web", op, Env{})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%.40s: %.200v", c.payload, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%.40s: got %.200v, want %q in it", c.payload, err, c.want)
		}
	}
}
