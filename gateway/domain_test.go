package gateway

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

const twoDomains = `register "site/{site}/{name}" {
  fields = { value = number }
  bind "line" "s/{site}/{name}" {}
}
register "site/{site}/{name}" {
  domain = "office"
  fields = { rent = number }
  bind "line" "rent/{site}/{name}" {}
}
`

const twoDomainsConfig = `domains = ["plant", "office"]
wrapper "line" "a" {
  listen = "127.0.0.1:0"
}
`

// Registers of two domains are kept apart, in one wrapper.
func TestDomains(t *testing.T) {
	s := newStage(t, strings.Replace(twoDomainsConfig, `"plant", "office"`, `"plant"`, 1), nil)
	s.stop()
	s.configure(twoDomainsConfig)
	s.write("mappings.d/m.hcl", twoDomains)
	s.start()
	p := s.dial("a")
	p.ask(`put s/x/1 {"value":5}`, "ok")
	p.ask(`put rent/x/1 {"rent":900}`, "ok")
	p.ask(`get s/x/1`, `{"value":5}`)
	p.ask(`get rent/x/1`, `{"rent":900}`)
	p.ask(`get s/x/2`, "error register site/x/2 has no value here")

	values := func(domain string) map[string]string {
		c, err := daemonclient.DialDomain(t.Context(), s.opts.Socket, domain)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := map[string]string{"": c.Hello().Domain}
		for st, err := range c.List(t.Context(), "", "", 0) {
			if err != nil {
				t.Fatal(err)
			}
			got[st.Register] = st.Value.String()
		}
		return got
	}
	plant, office := values(""), values("office")
	if plant[""] != "plant" || len(plant) != 2 || plant["site/x/1"] != `{"value":5}` {
		t.Errorf("plant: %v", plant)
	}
	if office[""] != "office" || len(office) != 2 || office["site/x/1"] != `{"rent":900}` {
		t.Errorf("office: %v", office)
	}
	if _, err := daemonclient.DialDomain(t.Context(), s.opts.Socket, "attic"); !errors.Is(err, engine.ErrNotFound) || !strings.Contains(err.Error(), `"plant", "office"`) {
		t.Errorf("a domain that is not there: %v", err)
	}
	// A write over the socket is held against its own domain's types.
	c, err := daemonclient.DialDomain(t.Context(), s.opts.Socket, "office")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	put := func(field string) error {
		_, err := c.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "site/x/1", Kind: engine.OpPut, Field: field, Value: number(1)}}})
		return err
	}
	if err := put("value"); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("the other domain's field: %v", err)
	}
	if err := put("rent"); err != nil {
		t.Error(err)
	}
	status := s.g.Status(t.Context())
	if len(status.Domains) != 2 || status.Domains[0].Name != "plant" || status.Domains[1].Registers != 1 || status.Domains[0].Root == status.Domains[1].Root {
		t.Errorf("status: %+v", status.Domains)
	}
	backup := filepath.Join(s.dir, "backup")
	if _, err := c.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}

	// The order of domains may change, and none goes missing unnoticed.
	s.stop()
	s.configure(strings.Replace(twoDomainsConfig, `"plant", "office"`, `"office", "plant"`, 1))
	s.write("mappings.d/m.hcl", strings.Replace(strings.Replace(twoDomains, `domain = "office"`, "", 1), "fields", "domain = \"plant\"\n  fields", 1))
	s.start()
	p = s.dial("a")
	p.ask(`get s/x/1`, `{"value":5}`)
	p.ask(`get rent/x/1`, `{"rent":1}`)
	s.stop()
	s.configure(strings.Replace(twoDomainsConfig, `"plant", "office"`, `"office"`, 1))
	s.write("mappings.d/m.hcl", stageMapping("a"))
	if _, _, err := Start(t.Context(), s.opts); err == nil || !strings.Contains(err.Error(), `the domain "plant", which`) {
		t.Errorf("without the domain of the data directory: %v", err)
	}

	// A backup is of all domains.
	if err := os.RemoveAll(filepath.Join(s.dir, "data")); err != nil {
		t.Fatal(err)
	}
	if err := engine.Restore(backup, filepath.Join(s.dir, "data")); err != nil {
		t.Fatal(err)
	}
	s.configure(twoDomainsConfig)
	s.write("mappings.d/m.hcl", twoDomains)
	s.start()
	if office := values("office"); office["site/x/1"] != `{"rent":1}` {
		t.Errorf("restored: %v", office)
	}
	for _, d := range s.g.domains.list {
		st, err := d.store.Status(t.Context())
		if err != nil || !slices.ContainsFunc(st.Findings, func(f engine.Finding) bool { return f.Code == "backup" }) {
			t.Errorf("%s does not know that it is a backup: %+v, %v", d.name, st.Findings, err)
		}
	}
}

// A domain that nobody had named takes the name that it is given.
func TestDomainIsNamed(t *testing.T) {
	s := newStage(t, "wrapper \"line\" \"a\" {\n  listen = \"127.0.0.1:0\"\n}\n", nil)
	s.dial("a").ask(`put s/x/1 {"value":5}`, "ok")
	s.stop()
	s.configure("domains = [\"plant\"]\nwrapper \"line\" \"a\" {\n  listen = \"127.0.0.1:0\"\n}\n")
	s.start()
	s.dial("a").ask(`get s/x/1`, `{"value":5}`)
}

// jointWorld is a joint door over the stores of two domains.
func jointWorld(t *testing.T, info LinkInfo) (*domains, *joint, *world) {
	return jointWorldOf(t, `
register "a/{x}" {
  bind "docs" "/a/{x}" {}
}
register "a/{x}" {
  domain = "second"
  bind "docs" "/b/{x}" {}
}
`, info)
}

func jointWorldOf(t *testing.T, hcl string, info LinkInfo) (*domains, *joint, *world) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	w.infos = []LinkInfo{info}
	second := newWorld(t, ovens, virtualDocs(), virtualTalk())
	ds := &domains{list: []*domain{{name: "local", store: w.store}, {name: "second", store: second.store}}}
	ds.link("", w.log, w.note, func(string, string, int) {}, nil)
	w.names = []string{"local", "second"}
	set := w.set(hcl)
	if err := ds.declare(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	ds.use(&Generation{Number: 1, Set: set})
	l, err := ds.open(info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ds.stop)
	return ds, l.(*joint), w
}

func (w *world) addresses(link wrappers.Link, n int, from wrappers.Cursor) (got []string, at []wrappers.Cursor) {
	w.t.Helper()
	for c, err := range link.Follow(w.t.Context(), wrappers.Notify, from) {
		if err != nil {
			w.t.Fatal(err)
		}
		if got, at = append(got, c.Address+" "+string(c.Payload.Raw)), append(at, c.Cursor); len(got) == n {
			break
		}
	}
	return got, at
}

func TestJointFollow(t *testing.T) {
	_, j, w := jointWorld(t, virtualDocs())
	ctx := t.Context()
	read, err := j.Do(ctx, doc(wrappers.List, "/", ""))
	if err != nil {
		t.Fatal(err)
	}
	start := read.Cursor
	if strings.Count(string(start), "+") != 1 {
		t.Fatalf("the cursor of a list: %q", start)
	}
	var want []string
	for i, a := range []string{"/a/1", "/b/1", "/b/2", "/a/2", "/a/1"} {
		body := `{"n":` + string(rune('0'+i)) + `}`
		if _, err := j.Do(ctx, doc(wrappers.Put, a, body)); err != nil {
			t.Fatal(err)
		}
		want = append(want, a+" "+body)
	}
	got, at := w.addresses(j, 5, start)
	slices.Sort(got)
	sorted := slices.Clone(want)
	slices.Sort(sorted)
	if !slices.Equal(got, sorted) {
		t.Errorf("got %q, want %q", got, want)
	}
	// Everybody hears the same order, under the same cursors, from wherever they begin.
	first, cursors := w.addresses(j, 5, start)
	again, same := w.addresses(j, 5, start)
	if !slices.Equal(first, again) || !slices.Equal(cursors, same) || !slices.Equal(at, cursors) {
		t.Errorf("two orders: %q %q, %q %q", first, cursors, again, same)
	}
	for i := range 4 {
		rest, restAt := w.addresses(j, 4-i, cursors[i])
		if !slices.Equal(rest, first[i+1:]) || !slices.Equal(restAt, cursors[i+1:]) {
			t.Errorf("from %s: %q %q, want %q", cursors[i], rest, restAt, first[i+1:])
		}
	}
	// A cursor of the time when there was one domain leads to everything of the other.
	one, _, _ := strings.Cut(string(cursors[4]), "+")
	old, _ := w.addresses(j, 2, wrappers.Cursor(one))
	if slices.Sort(old); !slices.Equal(old, []string{`/b/1 {"n":1}`, `/b/2 {"n":2}`}) {
		t.Errorf("from before there were two: %q", old)
	}
	list, err := j.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/"})
	if err != nil || len(list.Items) != 2 || list.Items[0].Address != "/a/" || list.Items[1].Address != "/b/" {
		t.Errorf("list: %+v, %v", list.Items, err)
	}
	both := wrappers.Operation{Parts: []wrappers.Operation{doc(wrappers.Put, "/a/9", `{}`), doc(wrappers.Put, "/b/9", `{}`)}}
	if _, err := j.Do(ctx, both); !errors.Is(err, wrappers.ErrInvalid) {
		t.Errorf("a write in two domains: %v", err)
	}
}

// An empty domain, seen with a cursor that means nothing to it, does not hold up the others.
func TestJointEmptyDomain(t *testing.T) {
	_, j, w := jointWorld(t, virtualDocs())
	if _, err := j.Do(t.Context(), doc(wrappers.Put, "/a/1", `{"n":1}`)); err != nil {
		t.Fatal(err)
	}
	if got, _ := w.addresses(j, 1, "77.5+78.6"); !slices.Equal(got, []string{`/a/1 {"n":1}`}) {
		t.Errorf("got %q", got)
	}
}

// A server gets what both domains have for it, and what it says goes to the domain of the address.
func TestJointServer(t *testing.T) {
	ds, j, w := jointWorld(t, relayDocs())
	server := newDocServer(t, j, nil)
	value := func(i int, register string) string {
		st, err := ds.list[i].store.ReadState(t.Context(), register)
		if err != nil {
			t.Fatal(err)
		}
		return st.Value.String()
	}
	for i, d := range ds.list {
		if _, err := d.store.WriteState(t.Context(), engine.Write{Ops: []engine.Op{{Register: "a/1", Kind: engine.OpPut, Field: "n", Value: number(i)}}}); err != nil {
			t.Fatal(err)
		}
	}
	w.until("both are written", func() bool { return server.doc("/a/1") == `{"n":0}` && server.doc("/b/1") == `{"n":1}` })
	if err := server.client(t.Context(), wrappers.Put, "/b/1", `{"n":7}`); err != nil {
		t.Fatal(err)
	}
	if got := value(1, "a/1"); got != `{"n":7}` {
		t.Errorf("second: %s", got)
	}
	if got := value(0, "a/1"); got != `{"n":0}` {
		t.Errorf("first: %s", got)
	}
	err := j.Seen(t.Context(), wrappers.Position{Keep: []wrappers.Record{{Key: "pos", Value: []byte("2")}}}, []wrappers.Observation{
		{Address: "/b/2", Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(`{"n":8}`)}, Keep: []wrappers.Record{{Key: "id/1", Value: []byte("x")}}},
		{Address: "/a/2", Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(`{"n":9}`)}, Keep: []wrappers.Record{{Key: "id/2", Value: []byte("y")}}},
	})
	if err != nil || value(1, "a/2") != `{"n":8}` || value(0, "a/2") != `{"n":9}` {
		t.Errorf("seen: %v, %s, %s", err, value(1, "a/2"), value(0, "a/2"))
	}
	var kept []string
	for r, err := range j.Kept(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, r.Key+"="+string(r.Value))
	}
	if want := []string{"id/1=x", "id/2=y", "pos=2"}; !slices.Equal(kept, want) {
		t.Errorf("kept: %q, want %q", kept, want)
	}
}

// A cursor comes back from a peer: whatever it is, it is read or refused.
func FuzzCursors(f *testing.F) {
	for _, s := range []string{"", "1.2", "1.2+a.3", "1.2+a.3~1.1+a.2", "+", "~", "x", "1.2+"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseCursors(string(resumeFrom(wrappers.Cursor(s))), 3)
		if err != nil {
			return
		}
		again, err := parseCursors(c.String(), 3)
		if err != nil || !slices.Equal(again, c) {
			t.Errorf("%q: %v, %v, %v", s, c, again, err)
		}
	})
}
