package gateway

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

// registerValues are all registers, by name.
func (w *world) registerValues() map[string]string {
	w.t.Helper()
	out := map[string]string{}
	for st, err := range w.store.List(w.t.Context(), "", "", 0) {
		if err != nil {
			w.t.Fatal(err)
		}
		out[st.Register] = string(st.Value.AppendJSON(nil))
	}
	return out
}

func (w *world) rests() {
	w.t.Helper()
	w.until("it rests", func() bool { r, err := w.Resting(w.t.Context()); return r && err == nil })
}

// What the plan says of documents of many registers is what then happens, register by register and address by address.
func TestPlanOfDocumentsHappens(t *testing.T) {
	const bread = `{"rows":[{"name":"a","v":1},{"name":"b","v":2,"unit":"kg"}],"title":"Bread"}`
	replace := func(old, new string) string {
		if !strings.Contains(recipes, old) {
			t.Fatalf("%q is not in it", old)
		}
		return strings.Replace(recipes, old, new, 1)
	}
	for name, c := range map[string]struct {
		after   string
		want    []string
		servers map[string]string // documents afterwards, where they change
		over    bool
	}{
		"another meaning": {
			replace("value = row.v,", "value = scale(row.v, 10, 0),"),
			[]string{
				`register change docs /recipes/bread (recipe/bread/a) - {"value":1} + {"value":10}`,
				`register change docs /recipes/bread (recipe/bread/b) - {"unit":"kg","value":2} + {"unit":"kg","value":20}`,
				`peers change talk recipe/bread/a (recipe/bread/a) - {"value":1} + {"value":10}`,
				`peers change talk recipe/bread/b (recipe/bread/b) - {"unit":"kg","value":2} + {"unit":"kg","value":20}`,
			}, nil, false,
		},
		"a number of changes": {
			replace("value = row.v,", "value = scale(row.v, 10, 0),") + "", nil, nil, false,
		},
		"one field less": {
			replace(", unit = row.unit", ""),
			nil, nil, false,
		},
		"rows that are hidden": {
			replace("each = payload.rows", "each = payload.rows\n    when = row.name != \"b\""),
			nil, nil, false,
		},
		"the address of a document": {
			replace(`"/recipes/{recipe}"`, `"/food/{recipe}"`),
			[]string{
				`server ask docs /food/bread (recipe/bread/a) + {"rows":[{"name":"a","v":1}]}`,
				`server ask docs /food/bread (recipe/bread/b) + {"rows":[{"name":"b","unit":"kg","v":2}]}`,
			},
			map[string]string{"/food/bread": `{"rows":[{"name":"a","v":1},{"name":"b","unit":"kg","v":2}]}`}, false,
		},
		"no bind any more": {
			"register \"recipe/{recipe}/{param}\" {\n  bind \"talk\" \"recipe/{recipe}/{param}\" {}\n}\n", nil, nil, false,
		},
	} {
		if c.want == nil && name == "a number of changes" {
			c.after = strings.Replace(c.after, "each =", "max_change = 1\n    each =", 1)
			c.over = true
		}
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, recipes, relayDocs(), virtualTalk())
			s := newDocServer(t, w.door("docs"), nil)
			if err := s.client(t.Context(), wrappers.Put, "/recipes/bread", bread); err != nil {
				t.Fatal(err)
			}
			w.rests()
			wrote := len(s.written())
			p := w.plan(recipes, c.after)
			if got := steps(p); !c.over && !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			if (len(p.Over) > 0) != c.over {
				t.Errorf("over: %q", p.Over)
			}
			registers := w.registerValues()
			for _, st := range p.Steps {
				if st.Where == "register" {
					registers[st.Register] = st.After
				}
			}
			w.Use(&Generation{Number: 2, Set: w.set(c.after)})
			w.rests()
			if got := w.registerValues(); !maps.Equal(got, registers) {
				t.Errorf("registers are %v, planned %v", got, registers)
			}
			happened := map[string]string{}
			for _, line := range s.written()[wrote:] {
				address, doc, _ := strings.Cut(line, " ")
				happened[address] = doc
			}
			if !maps.Equal(happened, c.servers) {
				t.Errorf("written %q, want %q", happened, c.servers)
			}
			if again := w.plan(c.after, c.after); len(again.Steps) > 0 {
				t.Errorf("afterwards there is more to do: %q", steps(again))
			}
		})
	}
}

// A server that is new to a bind with each is asked for its documents, and gets the rows it lacks.
func TestFirstContactOfDocuments(t *testing.T) {
	before := "register \"recipe/{recipe}/{param}\" {\n  bind \"talk\" \"recipe/{recipe}/{param}\" {}\n}\n"
	w := newWorld(t, before, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), map[string]string{"/recipes/bread": `{"rows":[{"name":"a","v":1}],"title":"Bread"}`})
	w.put("recipe/bread/b", "value", "2")
	w.rests()
	p := w.plan(before, recipes)
	if got, want := steps(p), []string{`server ask docs /recipes/bread (recipe/bread/b) + {"rows":[{"name":"b","v":2}]}`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.Use(&Generation{Number: 2, Set: w.set(recipes)})
	w.until("the server has the row", func() bool {
		return s.doc("/recipes/bread") == `{"rows":[{"name":"a","v":1},{"name":"b","v":2}],"title":"Bread"}`
	})
	w.rests()
	if got := fmt.Sprint(w.registerValues()); got != `map[recipe/bread/a:{"value":1} recipe/bread/b:{"value":2}]` {
		t.Error(got)
	}
}

// What virtual wrappers answer at an address of many registers is compared by rows, and by parts.
func TestPlanOfPeersOfDocuments(t *testing.T) {
	w := newWorld(t, recipes, virtualDocs(), virtualTalk())
	w.must("docs", doc(wrappers.Put, "/recipes/bread", `{"rows":[{"name":"a","v":1},{"name":"b","v":2}],"title":"Bread"}`))
	w.must("docs", doc(wrappers.Put, "/recipes/none", `{"rows":[]}`))
	for name, c := range map[string]struct {
		old, new string
		want     []string
	}{
		"nothing": {recipes, recipes, nil},
		"a member's name": {recipes, strings.Replace(recipes, "row.v,", "row.value,", 1), []string{
			`peers change docs /recipes/bread (recipe/bread/a) - {"rows":[{"name":"a","v":1}]} + {"rows":[{"name":"a","value":1}]}`,
			`peers change docs /recipes/bread (recipe/bread/b) - {"rows":[{"name":"b","v":2}]} + {"rows":[{"name":"b","value":2}]}`,
		}},
		"when": {recipes, strings.Replace(recipes, "each =", "when = row.name != \"b\"\n    each =", 1), []string{
			`peers delete docs /recipes/bread (recipe/bread/b) - {"rows":[{"name":"b","v":2}]}`,
		}},
		"no documents": {recipes, strings.Replace(recipes, `"docs"`, `"talk"`, 1), nil},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "no documents" {
				c.new = "register \"recipe/{recipe}/{param}\" {\n  bind \"talk\" \"recipe/{recipe}/{param}\" {}\n}\n"
				c.want = []string{
					`peers delete docs /recipes/none () - {"rows":[]}`,
					`peers delete docs /recipes/bread (recipe/bread/a) - {"rows":[{"name":"a","v":1}]}`,
					`peers delete docs /recipes/bread (recipe/bread/b) - {"rows":[{"name":"b","v":2}]}`,
				}
			}
			if got := steps(w.plan(c.old, c.new)); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

const forms = `
register "form/{form}" {
  bind "docs" "/form/{form}" { map = { title = payload.title } }
  bind "talk" "form/{form}" {}
}
register "price/{form}" {
  bind "docs" "/form/{form}" { map = { price = payload.price } }
  bind "talk" "price/{form}" {}
}
`

// Of an address that two binds share each has its part in the plan, and the server's document is read by both.
func TestPlanOfSharedAddresses(t *testing.T) {
	after := strings.Replace(forms, "price = payload.price", "price = scale(payload.price, 100, 0)", 1)
	w := newWorld(t, forms, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	if err := s.client(t.Context(), wrappers.Put, "/form/1", `{"title":"A","price":5}`); err != nil {
		t.Fatal(err)
	}
	w.rests()
	p := w.plan(forms, after)
	want := []string{
		`register change docs /form/1 (price/1) - {"price":5} + {"price":500}`,
		`peers change talk price/1 (price/1) - {"price":5} + {"price":500}`,
	}
	if got := steps(p); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	w.Use(&Generation{Number: 2, Set: w.set(after)})
	w.rests()
	if a, b := w.value("form/1"), w.value("price/1"); a != `{"title":"A"}` || b != `{"price":500}` {
		t.Errorf("%s %s", a, b)
	}
}

// exists, delete = {…} and every in the plan.
func TestPlanOfBindsThatSayMore(t *testing.T) {
	const before = `
register "line/{n}" {
  bind "docs" "/line/{n}" { map = { v = payload.v } }
  bind "talk" "line/{n}" {}
}
`
	for name, c := range map[string]struct {
		after string
		want  []string
		wrote []string
	}{
		"exists": {
			strings.Replace(before, "{ v = payload.v }", "{ v = payload.v, on = exists }", 1),
			[]string{
				`register change docs /line/1 (line/1) - {"v":1} + {"on":true,"v":1}`,
				`peers change talk line/1 (line/1) - {"v":1} + {"on":true,"v":1}`,
			}, nil,
		},
		"a mark": {
			strings.Replace(before, "map = { v", "delete = { dead = true }\n map = { v", 1), nil, nil,
		},
		"every": {
			strings.Replace(before, "map = { v", "every = \"1s\"\n map = { v", 1), nil, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			after := c.after
			after = strings.ReplaceAll(after, `"/line/{n}" { `, "\"/line/{n}\" {\n")
			after = strings.ReplaceAll(after, "} }\n", "}\n  }\n")
			w := newWorld(t, before, relayDocs(), virtualTalk())
			s := newDocServer(t, w.door("docs"), nil)
			if err := s.client(t.Context(), wrappers.Put, "/line/1", `{"v":1}`); err != nil {
				t.Fatal(err)
			}
			w.rests()
			wrote := len(s.written())
			if got := steps(w.plan(before, after)); !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			w.Use(&Generation{Number: 2, Set: w.set(after)})
			w.rests()
			if got := s.written()[wrote:]; !slices.Equal(got, c.wrote) {
				t.Errorf("written %q", got)
			}
			if name == "exists" && w.value("line/1") != `{"on":true,"v":1}` {
				t.Error(w.value("line/1"))
			}
		})
	}
}

// Registers of one name in two domains are planned for apart, each in the storage of its own.
func TestPlanOfDomains(t *testing.T) {
	ds, link, w := jointWorld(t, virtualDocs())
	for _, address := range []string{"/a/1", "/b/1"} {
		if _, err := link.Do(t.Context(), doc(wrappers.Put, address, `{"v":"`+address+`"}`)); err != nil {
			t.Fatal(err)
		}
	}
	old, set := link.set.Load(), w.set(`
register "a/{x}" {
  bind "docs" "/a/{x}" {}
}
register "a/{x}" {
  domain = "second"
  bind "docs" "/b/{x}" {
    map = { v = payload.value }
  }
}
`)
	var of []planDomain
	for _, d := range ds.list {
		of = append(of, planDomain{d.store, d.store.Preview, old.Of(d.name), set.Of(d.name)})
	}
	p, err := makePlan(t.Context(), of, w.infos, w.infos, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := steps(p), []string{`peers change docs /b/1 (a/1) - {"v":"/b/1"} + {"value":"/b/1"}`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What a server may know from now on is written there, and what it may not is no part of the plan.
func TestPlanOfAccess(t *testing.T) {
	w := newWorld(t, plates, relayDocs(), virtualTalk())
	s := newDocServer(t, w.door("docs"), nil)
	blocks := []AccessBlock{{Register: "plate/{menu}/{dish}", Write: []string{"boss"}}}
	w.guard(plates, nil, blocks...)
	w.put("plate/late/caviar", "price", "1")
	w.put("plate/late/soup", "price", "2")
	w.rests()
	if got := s.doc("/menu/late"); got != "" {
		t.Fatalf("told %s", got)
	}
	blocks = []AccessBlock{{Register: "plate/{menu}/{dish}", Write: []string{"boss", "docs/docs"}}, {Register: "plate/{menu}/caviar", Write: []string{"boss"}}}
	set := w.set(plates)
	access, err := newPolicy(blocks, nil, set)
	if err != nil {
		t.Fatal(err)
	}
	p, err := makePlan(t.Context(), []planDomain{{w.store, w.store.Preview, w.set(plates), set}}, w.infos, w.infos, access)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := steps(p), []string{`server create docs /menu/late (plate/late/soup) + [{"dish":"soup","price":2}]`}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	w.guard(plates, nil, blocks...)
	w.until("the row is told", func() bool { return s.doc("/menu/late") != "" })
	w.rests()
	if got := s.doc("/menu/late"); got != `[{"dish":"soup","price":2}]` {
		t.Errorf("told %s", got)
	}
}
