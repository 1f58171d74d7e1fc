package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

func steps(p *Plan) []string {
	var out []string
	for _, s := range p.Steps {
		line := fmt.Sprintf("%s %s %s %s (%s)", s.Where, s.What, s.Wrapper, s.Address, s.Register)
		if s.Before != "" {
			line += " - " + s.Before
		}
		if s.After != "" {
			line += " + " + s.After
		}
		out = append(out, line)
	}
	return out
}

func (w *world) plan(old, new string) *Plan {
	w.t.Helper()
	p, err := makePlan(w.t.Context(), []planDomain{{w.store, w.store.Preview, w.set(old), w.set(new)}}, w.infos, w.infos, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// What virtual wrappers answer is compared address by address.
func TestPlanOfPeers(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	w.put("oven/1", "value", "1")
	w.put("oven/2", "value", "2")
	w.put("oven/2", "unit", "3")
	if p := w.plan(ovens, ovens); len(p.Steps)+len(p.Binds)+len(p.Rules) > 0 || p.Deletes() {
		t.Errorf("the same again: %+v", p)
	}
	p := w.plan(ovens, `
register "oven/{o}" {
  bind "docs" "/oven/{o}" {
    map = { value = payload.v }
  }
  bind "docs" "/unit/{o}" {
    map = { unit = payload.unit }
  }
}
`)
	want := []string{
		`peers change docs /oven/1 (oven/1) - {"value":1} + {"v":1}`,
		`peers change docs /oven/2 (oven/2) - {"unit":3,"value":2} + {"v":2}`,
		`peers create docs /unit/2 (oven/2) + {"unit":3}`,
		`peers delete talk oven/1 (oven/1) - {"value":1}`,
		`peers delete talk oven/2 (oven/2) - {"unit":3,"value":2}`,
	}
	if got := steps(p); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var binds []string
	for _, b := range p.Binds {
		binds = append(binds, b.What+" "+b.Protocol+" "+b.Address)
	}
	if want := []string{"changed docs /oven/{o}", "new docs /unit/{o}", "removed talk oven/{o}"}; !slices.Equal(binds, want) {
		t.Errorf("binds: %q, want %q", binds, want)
	}
	if !p.Deletes() || len(p.Over) > 0 {
		t.Errorf("deletes %v, over %q", p.Deletes(), p.Over)
	}
	// The same plan of the same state, another one when the state has moved.
	again := w.plan(ovens, "\n\n"+strings.Replace(ovens, `bind "talk" "oven/{o}" {}`, "", 1))
	moved := w.plan(ovens, strings.Replace(ovens, `bind "talk" "oven/{o}" {}`, "", 1))
	if again.Hash != moved.Hash {
		t.Errorf("in other lines it is another plan: %s, %s", again.Hash, moved.Hash)
	}
	w.put("oven/3", "value", "3")
	if now := w.plan(ovens, strings.Replace(ovens, `bind "talk" "oven/{o}" {}`, "", 1)); now.Hash == moved.Hash {
		t.Error("the plan is the same although it does more")
	}
}

// What the plan says of registers and servers is what then happens.
func TestPlanHappens(t *testing.T) {
	const before = `
register "oven/{o}" {
  bind "docs" "/oven/{o}" {
    map = { value = payload.value }
    max_change = 1
  }
  bind "talk" "oven/{o}" {}
}
`
	for name, c := range map[string]struct {
		after string
		want  []string
		over  bool
	}{
		"another meaning": {
			strings.Replace(before, "value = payload.value }\n", "value = scale(payload.value, 10, 0) }\n", 1),
			[]string{
				`register change docs /oven/1 (oven/1) - {"value":1} + {"value":10}`,
				`register change docs /oven/2 (oven/2) - {"unit":7,"value":2} + {"unit":7,"value":20}`,
				`peers change talk oven/1 (oven/1) - {"value":1} + {"value":10}`,
				`peers change talk oven/2 (oven/2) - {"unit":7,"value":2} + {"unit":7,"value":20}`,
			}, true,
		},
		"another name of the field": {
			strings.Replace(before, "map = { value = payload.value }\n", "map = { heat = payload.value }\n  first = \"register\"\n", 1),
			[]string{
				`register change docs /oven/1 (oven/1) - {"value":1} + {"heat":1,"value":1}`,
				`register change docs /oven/2 (oven/2) - {"unit":7,"value":2} + {"heat":2,"unit":7,"value":2}`,
				`peers change talk oven/1 (oven/1) - {"value":1} + {"heat":1,"value":1}`,
				`peers change talk oven/2 (oven/2) - {"unit":7,"value":2} + {"heat":2,"unit":7,"value":2}`,
			}, true,
		},
		"more of it": {
			strings.Replace(before, "map = { value = payload.value }\n", "map = { value = payload.value, unit = payload.unit }\n", 1),
			[]string{
				`server change docs /oven/2 (oven/2) - {"value":2} + {"unit":7,"value":2}`,
			}, false,
		},
		"one way": {
			strings.Replace(before, "map = { value = payload.value }\n", "map = { value = payload.value }\n  out = { made = self.unit }\n", 1),
			[]string{
				`server change docs /oven/2 (oven/2) - {"value":2} + {"made":7,"value":2}`,
			}, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, before, relayDocs(), virtualTalk())
			d := newDocServer(t, w.door("docs"), nil)
			w.put("oven/2", "unit", "7")
			for _, n := range []string{"1", "2"} {
				if err := d.client(t.Context(), wrappers.Put, "/oven/"+n, `{"value":`+n+`}`); err != nil {
					t.Fatal(err)
				}
			}
			w.until("it rests", func() bool { r, err := w.Resting(t.Context()); return r && err == nil })
			wrote := len(d.written())
			p := w.plan(before, c.after)
			if got := steps(p); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if (len(p.Over) > 0) != c.over {
				t.Errorf("over: %q", p.Over)
			}
			if again := w.plan(before, c.after); again.Hash != p.Hash {
				t.Errorf("planned twice: %s, %s", again.Hash, p.Hash)
			}
			w.Use(&Generation{Number: 2, Set: w.set(c.after)})
			w.until("it rests again", func() bool { r, err := w.Resting(t.Context()); return r && err == nil })
			registers, servers := map[string]string{"oven/1": `{"value":1}`, "oven/2": `{"unit":7,"value":2}`}, map[string]string{}
			for _, s := range p.Steps {
				switch s.Where {
				case "register":
					registers[s.Register] = s.After
				case "server":
					servers[s.Address] = s.After
				}
			}
			for r, want := range registers {
				if got := w.value(r); got != want {
					t.Errorf("%s: %s, planned %s", r, got, want)
				}
			}
			happened := map[string]string{}
			for _, line := range d.written()[wrote:] {
				address, doc, _ := strings.Cut(line, " ")
				happened[address] = doc
			}
			if !maps.Equal(happened, servers) {
				t.Errorf("written %q, planned %q", happened, servers)
			}
		})
	}
}

// Another rule gives registers other values without a write: those are in the plan, and what follows from them.
func TestPlanOfRules(t *testing.T) {
	before := strings.Replace(ovens, "register \"oven/{o}\" {\n", "register \"oven/{o}\" {\n  fields = { value = first(number) }\n  commit = \"manual\"\n", 1)
	after := strings.Replace(before, "first(number)", "min(number)", 1)
	w := newWorld(t, before, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	w.put("oven/1", "value", "7")
	w.put("oven/1", "value", "5")
	w.put("oven/2", "value", "1")
	for _, r := range []string{"oven/1", "oven/2"} {
		if _, err := w.store.Collapse(t.Context(), r, engine.Cause{}); err != nil {
			t.Fatal(err)
		}
	}
	rests := func() bool { r, err := w.Resting(t.Context()); return r && err == nil }
	w.until("it rests", rests)
	p, err := makePlan(t.Context(), []planDomain{{w.store, w.store.Preview, w.set(before), w.set(after)}}, w.infos, w.infos, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		`register change   (oven/1) - {"value":7} + {"value":5}`,
		`server change docs /oven/1 (oven/1) - {"value":7} + {"value":5}`,
		`peers change talk oven/1 (oven/1) - {"value":7} + {"value":5}`,
	}
	if got := steps(p); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := w.value("oven/1"); got != `{"value":7}` {
		t.Errorf("a plan changed it: %s", got)
	}
	set := w.set(after)
	if err := w.store.Declare(t.Context(), set.Rules()); err != nil {
		t.Fatal(err)
	}
	w.Use(&Generation{Number: 2, Set: set})
	w.until("the register follows", func() bool { return w.value("oven/1") == `{"value":5}` })
	w.until("the server follows", func() bool { return s.doc("/oven/1") == `{"value":5}` })
}

func BenchmarkPlan(b *testing.B) {
	store, err := engine.Open(engine.Options{Dir: "data", FS: vfs.NewMem(), MinFree: 1})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	const registers = 10_000
	for i := 0; i < registers; i += 1000 {
		var w engine.Write
		for n := i; n < i+1000; n++ {
			w.Ops = append(w.Ops, engine.Op{Register: fmt.Sprintf("oven/%d", n), Kind: engine.OpPut, Field: "value", Value: lattice.Int(int64(n))})
		}
		if _, err := store.WriteState(b.Context(), w); err != nil {
			b.Fatal(err)
		}
	}
	infos := []LinkInfo{virtualDocs(), virtualTalk()}
	load := func(hcl string) *mapping.Set {
		in := mapping.Input{Files: []diag.File{{Name: "t.hcl", Bytes: []byte(hcl)}}, Domains: []string{"local"}}
		for _, i := range infos {
			in.Wrappers = append(in.Wrappers, mapping.WrapperInfo{Protocol: i.Protocol, Name: i.Name, Listens: true})
		}
		set, found := mapping.Load(in)
		if set == nil {
			b.Fatal(found.Err())
		}
		return set
	}
	old, set := load(ovens), load(strings.Replace(ovens, `"/oven/{o}" {}`, `"/oven/{o}" { direction = "out" }`, 1))
	for b.Loop() {
		if _, err := makePlan(b.Context(), []planDomain{{store, store.Preview, old, set}}, infos, infos, nil); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/registers, "ns/register")
}
