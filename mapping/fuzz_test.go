package mapping

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// FuzzTemplate: a value has one text and a text at most one value.
func FuzzTemplate(f *testing.F) {
	for _, t := range []string{"a/{x}", "{x}-{y}.json", "p{x}::{y}é{z}", "{x...}", "a/{x...}/b/{y}", "/q?a={x}&b=v{y}-{z}", "{x}.tmp", ".{x}"} {
		for _, v := range []string{"berlin", "a/b", "50%2F", "%252F", ".x", "x~", "a.tmp", "%2E", "%257E", "a-b%2D", "%25", "é", "+#", "::"} {
			f.Add(t, v, "b")
		}
	}
	f.Fuzz(func(t *testing.T, text, v1, v2 string) {
		for _, syntax := range []wrappers.Syntax{topics.Syntax, {Separator: "/", Absolute: true, Query: true}, names.Syntax, registerSyntax} {
			tp, err := parseTemplate(text, &syntax, syntax.Separator != "/" || syntax.Absolute)
			if err != nil {
				continue
			}
			tr := &tree{separator: syntax.Separator, absolute: syntax.Absolute, query: syntax.Query, fold: syntax.Fold}
			tr.insert(&leaf{template: tp})
			value := func(i int) string { return []string{v1, v2}[i%2] }
			out, ok := tp.appendTo(nil, value)
			if ok && utf8.ValidString(v1+v2) && len(out) < maxAddress {
				var found finding
				if !tr.find(string(out), &found) {
					t.Fatalf("%q with %q, %q gives %q, which it does not match", text, v1, v2, out)
				}
				for i := range tp.names {
					if found.raw[i] != value(i) {
						t.Fatalf("%q with %q, %q gives %q, which is read as %q", text, v1, v2, out, found.raw[:len(tp.names)])
					}
				}
			}
			// The other way: what matches is rendered as it came, but for the order and spelling
			// of a query and the case where that does not count.
			var found finding
			if tr.find(v1, &found) {
				back, ok := tp.appendTo(nil, func(i int) string { return found.raw[i] })
				path, _, _ := strings.Cut(v1, "?")
				got, _, _ := strings.Cut(string(back), "?")
				if !syntax.Query {
					path, got = v1, string(back)
				}
				if !ok || got != path && !(syntax.Fold && strings.EqualFold(got, path)) {
					t.Fatalf("%q matches %q as %q, which is rendered as %q", text, v1, found.raw[:len(tp.names)], back)
				}
			}
		}
	})
}

// FuzzRelate: templates that are disjoint have no address in common, and of one that is narrower
// each address is the other's.
func FuzzRelate(f *testing.F) {
	f.Add("a/{x}", "a/b", "a/b", "b")
	f.Add("{x}-{y}", "{x}", "q", "r")
	f.Add("{x...}/b", "a/{x}", "a", "b")
	f.Add("a{x}b", "a{x}", "cb", "r")
	f.Fuzz(func(t *testing.T, ta, tb, v1, v2 string) {
		a, err1 := parseTemplate(ta, &topics.Syntax, true)
		b, err2 := parseTemplate(tb, &topics.Syntax, true)
		if err1 != nil || err2 != nil || !utf8.ValidString(v1+v2) {
			return
		}
		la, lb := &leaf{template: a}, &leaf{template: b}
		r := relate(la, lb)
		if relate(lb, la) != r.flip() {
			t.Fatalf("%q, %q: %d one way, %d the other", ta, tb, r, relate(lb, la))
		}
		out, ok := a.appendTo(nil, func(i int) string { return []string{v1, v2}[i%2] })
		if !ok {
			return
		}
		tr := &tree{separator: "/"}
		tr.insert(lb)
		var found finding
		matches := tr.find(string(out), &found)
		if matches && r == disjoint {
			t.Fatalf("%q and %q are disjoint, and both match %q", ta, tb, out)
		}
		if !matches && (r == equal || r == narrower) {
			t.Fatalf("%q is no wider than %q, which does not match %q", ta, tb, out)
		}
		// The tree must offer what relate does not call disjoint.
		offered := false
		tr.eachOverlapping(la, func(*leaf) { offered = true })
		if r != disjoint && !offered {
			t.Fatalf("%q is not compared with %q", ta, tb)
		}
	})
}

// FuzzFlat: the quick reader takes nothing that the whole one refuses, and gives the same.
func FuzzFlat(f *testing.F) {
	for _, s := range []string{`{"a":1}`, `{ "a" : -1.5e3 , "b":"x","c":null,"d":true}`, `{"a":1,"a":2}`, `{"a":{}}`, `{"a":"\n"}`, `{"a":tru}`, `{"a":01}`, `{}`, `{"a":1}}`, `{"a":truex}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var m message
		if !m.flat(raw) {
			return
		}
		want, err := lattice.ParseJSON(raw)
		if err != nil {
			t.Fatalf("%q was taken, and is: %v", raw, err)
		}
		m.object = true
		if got := m.value(); !got.Equal(want) {
			t.Fatalf("%q: got %s, want %s", raw, got, want)
		}
	})
}

// fuzzed are the codecs that FuzzCodecs tries, in a fixed order.
func fuzzed(t testing.TB) []codec {
	form, err := parseForm("{oven}: {actual} {unit}")
	if err != nil {
		t.Fatal(err)
	}
	return []codec{
		jsonCodec, textCodec, numberCodec, bytesCodec, cborCodec, autoCodec, &textForm{form},
		csvCodec,
		&csvForm{sep: ';', names: []string{"a", "b"}, comma: true, charset: findCharset("windows-1252")},
		&csvForm{sep: '\t', header: true, charset: findCharset("utf-16")},
		urlCodec, &xmlForm{"r"}, senmlCodec,
	}
}

// FuzzCodecs: no panic, and what was read and written reads the same, also where it is written over what was read.
func FuzzCodecs(f *testing.F) {
	all := fuzzed(f)
	for i := range all {
		for _, s := range []string{`{"a":[1,2.5,"x"]}`, "a,b\r\n1,\"x\ny\"\r\n\r\n,\"\"\r\n", "a;b;\n1,5;\"q\"\"\";\n", "\ufeffa\n\"1\"", "a,b\n1", "\xff\xfea\x00\n\x001\x00",
			"a=1&b=%41+x&a=&=&&c", `<?xml version="1.0" encoding="iso-8859-1"?><r a="1"><b>x&amp;y</b> <b/><!-- c --><c d="&#10;">q</c></r>`,
			`[{"bn":"a:","bt":1.7e9,"bu":"A","n":"b","v":1},{"n":"c","t":-5,"vd":"YQ","u":"V"},{"n":"d","bs":1,"vs":"x"}]`,
			"\x82\xa3\x21\x61a\x00\x61b\x02\x01\xa2\x00\x61c\x08\x41a"} {
			f.Add(byte(i), []byte(s))
		}
	}
	f.Add(byte(4), []byte{0xa1, 0x61, 'x', 0xfb, 0x40, 0x35, 0x80, 0, 0, 0, 0, 0})
	f.Add(byte(4), []byte{0xc4, 0x82, 0x21, 0x19, 0x6a, 0xb3})
	f.Add(byte(4), []byte{0xc2, 0x49, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(byte(6), []byte("7: 21.5 C"))
	f.Fuzz(func(t *testing.T, which byte, raw []byte) {
		c := all[int(which)%len(all)]
		p := &wrappers.Payload{Raw: raw}
		v, err := c.decode(p, scriptEnv.Now)
		if err != nil {
			if k := wrappers.Kind(err); k != wrappers.ErrInvalid && k != wrappers.ErrTooLarge {
				t.Fatalf("%v", err)
			}
			return
		}
		if err := v.Validate(); err != nil {
			t.Fatal(err)
		}
		if c == autoCodec {
			return
		}
		for _, prev := range []*wrappers.Payload{nil, p} {
			out, err := c.encode(v, prev)
			if err != nil {
				t.Fatalf("codec %d read %s and can't write it: %v", which, v, err)
			}
			if prev != nil && c.traits().flavour.document() && string(out.Raw) != string(raw) {
				t.Fatalf("codec %d: nothing changed, and %q became %q", which, raw, out.Raw)
			}
			back, err := c.decode(&out, scriptEnv.Now)
			if err != nil || !back.Equal(v) {
				t.Fatalf("codec %d: %s became %s by %q, %v", which, v, back, out.Raw, err)
			}
		}
	})
}

// FuzzRewrite: whatever stood there before, what is written reads as what was to be written.
func FuzzRewrite(f *testing.F) {
	all := fuzzed(f)[7:]
	docs := []string{
		"a,b\r\n1,\"x\ny\"\r\n\r\n,\"\"\r\n", "b,a,c\n1,2,3\n2,3,4\n3,4,5", "a;b;\n1,5;\"q\"\"\";\n2;3\n4,0;5", "a\n\"1\"\n2\n3\n",
		"a=1&b=%41+x&a=&=&&c", "c=1&a=2&a=3&a=4&b", `<r a="1"><b>x&amp;y</b> <b/><!-- c --><c d="&#10;">q</c></r>`,
		"<r>\n\t<b>x</b>\n\t<c><d>1.0</d><d>2</d></c>\n\t<e/>\n</r>", "<r b='2'>text</r>",
	}
	for i := range all {
		for k := range docs {
			f.Add(byte(i), []byte(docs[k]), []byte(docs[(k+1)%len(docs)]))
			f.Add(byte(i), []byte(docs[k]), []byte(docs[(k+len(docs)-1)%len(docs)]))
		}
	}
	f.Fuzz(func(t *testing.T, which byte, raw, before []byte) {
		c := all[int(which)%len(all)]
		v, err := c.decode(&wrappers.Payload{Raw: raw}, scriptEnv.Now)
		if err != nil {
			return
		}
		prev := &wrappers.Payload{Raw: before}
		if _, err := c.decode(prev, scriptEnv.Now); err != nil {
			return
		}
		out, err := c.encode(v, prev)
		if err != nil {
			if strings.Contains(err.Error(), "can't be written in") || wrappers.Kind(err) == wrappers.ErrTooLarge || strings.Contains(err.Error(), "beside") {
				return
			}
			t.Fatalf("%s over %q: %v", v, before, err)
		}
		back, err := c.decode(&out, scriptEnv.Now)
		if err != nil {
			t.Fatalf("%s over %q gives %q: %v", v, before, out.Raw, err)
		}
		if c.traits().holds == rows && c.traits().flavour.document() {
			v, back = filled(v), filled(back)
		}
		if !back.Equal(v) {
			t.Fatalf("%s over %q gives %q, which is %s", v, before, out.Raw, back)
		}
	})
}

// filled leaves out empty cells: the columns of the file before stay, and in a file of one column no cell is null.
func filled(v engine.Value) engine.Value {
	items := append([]engine.Value(nil), v.Items()...)
	for i := range items {
		var members []lattice.Member
		for _, m := range items[i].Members() {
			if m.Value.Kind() != lattice.NullKind && m.Value.Len() > 0 {
				members = append(members, m)
			}
		}
		items[i] = lattice.Object(members...)
	}
	return lattice.List(items...)
}

// everything is a set with each construct, to be fed with anything.
func everything(t testing.TB, name string) *Set {
	ar, err := txtar.ParseFile("testdata/" + name + ".txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range ar.Files {
		if f.Name == "m.hcl" {
			return load(t, string(f.Data))
		}
	}
	t.Fatalf("testdata/%s.txtar has no m.hcl", name)
	return nil
}

// FuzzIn: any payload at any address is an effect or a refusal, and what went in can come out.
func FuzzIn(f *testing.F) {
	f.Add("floor", byte(wrappers.Message), "plc/p1/state", []byte(`{"kind":"state","env":{"raw":615},"s":"ON"}`))
	f.Add("web", byte(wrappers.Put), "/limit", []byte(`{"value":150,"values":[1,2,3],"z":5}`))
	f.Add("web", byte(wrappers.Merge), "/count/a", []byte(`7`))
	f.Add("floor", byte(wrappers.Message), "rtl_433/events", []byte(`{"model":"A","id":1}`))
	f.Add("web", byte(wrappers.Delete), "/code/B", []byte(``))
	f.Add("web", byte(wrappers.Put), "/site/a/b", []byte(`{"peak":3,"tags":["b","a"],"title":["x"],"path":[["x"]],"since":"2026-01-31T13:00:00+01:00"}`))
	f.Add("web", byte(wrappers.Message), "/site/a/b/add", []byte(`{"add":-2.5,"tag":"x"}`))
	f.Add("web", byte(wrappers.Message), "/total/a/add", []byte(`1`))
	f.Add("floor", byte(wrappers.Message), "tags/a/b", []byte(`x,y`))
	f.Add("floor", byte(wrappers.Message), "recipe/a", []byte("name;amount;note\nx;1,50;z\n"))
	f.Add("web", byte(wrappers.Put), "/recipe/a", []byte(`<recipe title="x"><temp unit="C">1.0</temp><steps><step><name>q</name></step></steps></recipe>`))
	f.Add("web", byte(wrappers.Merge), "/order/a", []byte("name=x&amount=1.50&tags=a"))
	f.Add("floor", byte(wrappers.Message), "pack/a", []byte(`[{"bn":"a","v":1}]`))
	sets := []*Set{everything(f, "maps"), everything(f, "rules"), everything(f, "csv"), everything(f, "form"), everything(f, "xml"), everything(f, "senml"), everything(f, "functions")}
	f.Fuzz(func(t *testing.T, wrapper string, verb byte, address string, raw []byte) {
		for _, s := range sets {
			feed(t, s, wrapper, verb, address, raw)
		}
	})
}

// feed holds one set to it.
func feed(t *testing.T, s *Set, wrapper string, verb byte, address string, raw []byte) {
	op := &wrappers.Operation{Verb: wrappers.Verb(verb % 9), Address: address, Payload: wrappers.Payload{Raw: raw}}
	effects, err := s.In(wrapper, op, scriptEnv)
	if err != nil {
		if k := wrappers.Kind(err); k != wrappers.ErrInvalid && k != wrappers.ErrUnmapped && k != wrappers.ErrTooLarge {
			t.Fatal(err)
		}
		return
	}
	s.Maps(wrapper, op.Verb, "", address)
	s.Under(wrapper, "", address)
	for _, e := range effects {
		if !utf8.ValidString(e.Register) {
			t.Fatalf("%q", e.Register)
		}
		var members []lattice.Member
		last := ""
		for i, x := range e.Fields {
			if i > 0 && x.Field <= last {
				t.Fatalf("fields out of order: %s", show(effects, nil))
			}
			last = x.Field
			if err := x.Value.Validate(); err != nil {
				t.Fatal(err)
			}
			members = append(members, lattice.Member{Name: x.Field, Value: x.Value})
		}
		st := engine.StateBlock{Register: e.Register, Exists: true, Value: lattice.Object(members...)}
		for _, w := range []string{"floor", "web"} {
			for _, p := range s.Places(w, e.Register) {
				if tg, ok := s.At(w, p.Server, p.Address); !ok || tg.Register != e.Register {
					t.Fatalf("%s appears at %s, which is %s", e.Register, p.Address, tg.Register)
				}
				p.Bind.Out(p, st, &op.Payload, scriptEnv)
			}
		}
	}
}

// FuzzLoad: any file gives a set or findings.
func FuzzLoad(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txtar")
	more, _ := filepath.Glob("testdata/mistakes/*.txtar")
	for _, name := range append(files, more...) {
		ar, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			if strings.HasSuffix(file.Name, ".hcl") {
				f.Add(file.Data)
			}
		}
	}
	shipped, _ := filepath.Glob("../mappings.d/*.hcl")
	for _, name := range shipped {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b)
		}
	}
	codes := diag.Codes()
	f.Fuzz(func(t *testing.T, src []byte) {
		s, diags := Load(Input{Files: []diag.File{{Name: "f.hcl", Bytes: src}}, Wrappers: standard()})
		if (s == nil) != diags.HasErrors() {
			t.Fatalf("set %v with %v", s != nil, diags.Err())
		}
		var b bytes.Buffer
		diags.WriteText(&b, false, 80)
		for _, d := range diags {
			if !slices.Contains(codes, d.Code) {
				t.Fatalf("a finding without a page: %v", d)
			}
			if d.Severity == diag.Error && d.Subject.Filename == "" {
				t.Fatalf("a finding without a place: %v", d)
			}
		}
		if _, diags := Format(diag.File{Name: "f.hcl", Bytes: src}); diags.HasErrors() != syntaxErrors(src) {
			t.Fatal(diags)
		}
	})
}

func syntaxErrors(src []byte) bool {
	l := diag.NewLog([]diag.File{{Name: "f.hcl", Bytes: src}})
	l.Parse()
	return l.HasErrors()
}

// FuzzExpression holds compiled expressions equal to HCL's own evaluation.
func FuzzExpression(f *testing.F) {
	for _, e := range []string{
		`payload.a + payload.b * 2`, `"${payload.s}-${x}"`, `payload.a > 3 && payload.b == 4`, `payload.s == "q" ? payload.a : payload.b`,
		`upper(payload.s)`, `[payload.a, payload.s]`, `{ a = payload.a, b = [payload.s] }`, `payload["s"]`, `payload.list[1]`, `!payload.yes`,
		`-payload.a`, `payload.a % 2`, `min(payload.a, payload.b)`, `[for v in payload.list : v + 1]`, `payload.o.x`, `format("%d", payload.a)`,
		`scale(payload.a, 0.1, -40)`, `table(payload.s, { q = 1, r = 2 })`, `try(payload.zz, payload.a)`, `length(payload.list)`, `join(",", split(payload.s, ","))`,
		`payload.a == null`, `payload.a != payload.b || payload.yes`, `substr(payload.s, 0, 1)`, `payload.d / 4`, `jsonencode(payload.o)`, `coalesce(payload.n, payload.a)`,
	} {
		f.Add(e, int64(5), int64(4), "q")
	}
	f.Fuzz(func(t *testing.T, src string, a, b int64, s string) {
		if len(src) > 200 || !utf8.ValidString(s) || strings.ContainsAny(src, "\n") || !ascii(s) || !ascii(src) {
			return
		}
		l := diag.NewLog([]diag.File{{Name: "e", Bytes: []byte("e = " + src + "\n")}})
		parsed := l.Parse()
		if len(parsed) == 0 || parsed[0].Body.Attributes["e"] == nil {
			return
		}
		expr := parsed[0].Body.Attributes["e"].Expr
		bind := &Bind{slots: []string{"x"}}
		sc := &scope{bind: bind, way: inward, log: l}
		if _, ok := sc.check(expr); !ok || usesUnshared(expr) {
			return
		}
		m := &message{bind: bind, wrapper: "w", body: &wrappers.Payload{}, env: scriptEnv}
		m.caps[0] = "cap"
		num, _ := lattice.ParseNumber("21.5")
		m.setPayload(lattice.Object(
			lattice.Member{Name: "a", Value: lattice.Int(a)}, lattice.Member{Name: "b", Value: lattice.Int(b)}, lattice.Member{Name: "d", Value: num},
			lattice.Member{Name: "s", Value: lattice.String(s)}, lattice.Member{Name: "yes", Value: lattice.Bool(a > b)}, lattice.Member{Name: "n", Value: lattice.Null()},
			lattice.Member{Name: "list", Value: lattice.List(lattice.Int(a), lattice.Int(b))},
			lattice.Member{Name: "o", Value: lattice.Object(lattice.Member{Name: "x", Value: lattice.Int(a)})},
		))
		quick, err1 := sc.compile(expr)(m)
		slow, err2 := sc.fallback(expr)(m)
		// Where HCL fails, the compiled form may know better (it keeps the types of a conditional,
		// and what is missing is absent); where it succeeds, both agree.
		if err2 != nil || slow.IsAbsent() {
			return
		}
		if err1 != nil {
			if strings.Contains(err1.Error(), "digits") || strings.Contains(err1.Error(), "exponent") {
				return // limits of numbers, which HCL's own may pass within an expression
			}
			t.Fatalf("%s: compiled: %v; HCL gives %s", src, err1, slow)
		}
		if rounded(quick) != rounded(slow) {
			t.Fatalf("%s: compiled %s, HCL %s", src, quick, slow)
		}
	})
}

// ascii keeps to what HCL does not normalise.
func ascii(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// usesUnshared tells whether an expression has what is different on purpose: conditionals unify
// types in HCL, try and can know of missing members there what is absent here, and null compares
// and indexes by types there.
func usesUnshared(expr hclsyntax.Expression) bool {
	found := false
	hclsyntax.VisitAll(expr, func(n hclsyntax.Node) hcl.Diagnostics {
		switch e := n.(type) {
		case *hclsyntax.ConditionalExpr:
			_, lit1 := e.TrueResult.(*hclsyntax.ScopeTraversalExpr)
			_, lit2 := e.FalseResult.(*hclsyntax.ScopeTraversalExpr)
			found = found || !lit1 || !lit2
			found = found || fmt.Sprint(e.TrueResult.Variables()) != fmt.Sprint(e.FalseResult.Variables())
		case *hclsyntax.FunctionCallExpr:
			found = found || e.Name == "try" || e.Name == "can" || e.Name == "coalesce" || e.Name == "time"
		}
		return nil
	})
	return found
}

// rounded shows a value with its numbers to 30 digits: quotients are cut at different places.
func rounded(v engine.Value) string {
	switch v.Kind() {
	case lattice.DecimalKind:
		one := lattice.Int(1)
		q, _, err := lattice.QuoNumbers(v, one)
		if err != nil {
			return v.String()
		}
		c, exp := q.Decimal()
		s := c.String()
		if len(s) > 30 {
			exp += len(s) - 30
			s = s[:30]
		}
		for strings.HasSuffix(s, "9") || strings.HasSuffix(s, "0") {
			s = s[:len(s)-1]
			exp++
		}
		return fmt.Sprintf("%se%d", s[:min(len(s), 25)], exp+max(0, len(s)-25))
	case lattice.ListKind, lattice.SetKind:
		var parts []string
		for _, i := range v.Items() {
			parts = append(parts, rounded(i))
		}
		return "[" + strings.Join(parts, ",") + "]"
	case lattice.ObjectKind:
		var parts []string
		for _, m := range v.Members() {
			parts = append(parts, m.Name+":"+rounded(m.Value))
		}
		return "{" + strings.Join(parts, ",") + "}"
	}
	return v.String()
}
