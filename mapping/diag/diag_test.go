package diag

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

var schema = Schema{
	What:   "gateway",
	Attrs:  []string{"data", "domains", "drain"},
	Need:   []string{"data"},
	Blocks: []Block{{Type: "wrapper", Labels: []string{"protocol", "name"}}, {Type: "daemon", Once: true}},
	Later:  []string{"access"},
}

func TestDecodeReportsEverything(t *testing.T) {
	src := `dta = "x"
domains = [a-1]
wrapper "mqtt" {
}
daemon {
}
daemon {
}
access "x" {
}
drain {
}
wrapper = 1
demon {
}
`
	l := NewLog([]File{{"g.hcl", []byte(src)}})
	for _, s := range l.Parse() {
		c := l.Decode(s.Body, s.Body.MissingItemRange(), schema)
		l.Strings(c.Attrs["domains"], nil)
	}
	want := []string{
		`gateway lacks the attribute "data"`,
		`g.hcl:1:1: unknown attribute of gateway "dta"; did you mean "data"?`,
		`g.hcl:2:12: a-1 without quotes`,
		`g.hcl:3:1: "wrapper" takes 2 labels`,
		`g.hcl:7:1: a second "daemon" block`,
		`g.hcl:9:1: "access" is not in this version`,
		`g.hcl:11:1: "drain" is an attribute`,
		`g.hcl:13:1: "wrapper" is a block`,
		`g.hcl:14:1: unknown block of gateway "demon"; did you mean "daemon"?`,
	}
	var got []string
	for _, d := range l.Diagnostics() {
		got = append(got, d.Error())
	}
	for _, w := range want {
		found := false
		for _, g := range got {
			found = found || strings.Contains(g, w)
		}
		if w == want[2] {
			continue
		}
		if !found {
			t.Errorf("missing: %s", w)
		}
	}
	if t.Failed() {
		t.Log(strings.Join(got, "\n"))
	}
}

func TestText(t *testing.T) {
	l := NewLog([]File{{"m.hcl", []byte("register \"a\" {\n\tfeilds = {}\n}\n")}})
	s := l.Parse()[0]
	done := l.Within(`register "a"`)
	l.Decode(s.Body.Blocks[0].Body, s.Body.Blocks[0].DefRange(), Schema{What: "register", Attrs: []string{"fields", "type"}})
	done()
	var b strings.Builder
	if err := l.Diagnostics().WriteText(&b, false, 80); err != nil {
		t.Fatal(err)
	}
	want := `Error HCL007: unknown attribute of register "feilds"
  on m.hcl:2:2, in register "a"
    2 |  feilds = {}
      |  ^^^^^^
  Did you mean "fields"?
`
	if got := b.String(); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	js, err := json.Marshal(l.Diagnostics())
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(js), `"severity":"error","code":"HCL007"`; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s in it", got, want)
	}
	if err := l.Diagnostics().Err(); err == nil || !strings.HasSuffix(err.Error(), ` did you mean "fields"? [HCL007]`) {
		t.Errorf("got %v", err)
	}
	if got, want := string(js), `"range":{"start":{"line":2,"column":2},"end":{"line":2,"column":8}}`; !strings.Contains(got, want) {
		t.Errorf("got %s, want %s in it", got, want)
	}
}

func TestHints(t *testing.T) {
	for src, want := range map[string]string{
		"a = \"%{x}\"\n":                                           `write "%%{"`,
		"b { c = 1, d = 2 }\n":                                     "on a line of its own",
		"a = " + strings.Repeat("(", 20000):                        "nested too deep",
		"a = " + strings.Repeat("!", 20000):                        "nested too deep",
		"a = (1" + strings.Repeat("\n+1", 20000) + ")\n":           "nested too deep",
		"a = b" + strings.Repeat("[c]", 20000) + "\n":              "nested too deep",
		"a = 1" + strings.Repeat(" ? 1 : 1", 20000) + "\n":         "nested too deep",
		"a = [" + strings.Repeat("-1, \"x${y}\", ", 1000) + "(]\n": "invalid expression",
	} {
		l := NewLog([]File{{"m.hcl", []byte(src)}})
		l.Parse()
		var b strings.Builder
		l.Diagnostics().WriteText(&b, true, 200)
		if !strings.Contains(b.String(), want) {
			t.Errorf("%.40s: got %s, want %q in it", src, b.String(), want)
		}
	}
}

func TestLiterals(t *testing.T) {
	l := NewLog([]File{{"m.hcl", []byte("a = true\nb = 30\nc = [\"x\", \"y\"]\nd = \"12h\"\ne = \"on\"\n")}})
	a := l.Parse()[0].Body.Attributes
	yes, _ := l.Bool(a["a"], false)
	n, _ := l.Int(a["b"], 0, 1, 99)
	list, _ := l.Strings(a["c"], nil)
	e, _ := l.Enum(a["e"], "", []string{"on", "off"})
	if !yes || n != 30 || len(list) != 2 || e != "on" || l.HasErrors() {
		t.Errorf("got %v %v %v %v %v", yes, n, list, e, l.Diagnostics().Err())
	}
	for name, read := range map[string]func(){
		"a: a whole number is wanted": func() { l.Int(a["a"], 0, 0, 0) },
		"b: true or false is wanted":  func() { l.Bool(a["b"], false) },
		"b is out of range":           func() { l.Int(a["b"], 0, 31, 0) },
		"c: a text in quotes":         func() { l.String(a["c"], "", nil) },
		"e can't be \"on\"":           func() { l.Enum(a["e"], "", []string{"one"}) },
	} {
		read()
		if err := l.Diagnostics().Err(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q in it", err, name)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{"30d": 720 * time.Hour, "1h30m": 90 * time.Minute, "-1s": -1, "x": -1} {
		got, err := ParseDuration(s)
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("%s: got %v, want %v", s, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a = 1\n")
	f.Add("wrapper \"x\" {\n a = \"${b}\"\n}")
	f.Add("a = \"%{if x}\"")
	f.Fuzz(func(t *testing.T, src string) {
		l := NewLog([]File{{"f.hcl", []byte(src)}})
		for _, s := range l.Parse() {
			c := l.Decode(s.Body, s.Body.MissingItemRange(), schema)
			l.Strings(c.Attrs["domains"], nil)
			l.Int(c.Attrs["drain"], 0, 0, 0)
		}
		var b strings.Builder
		if err := l.Diagnostics().WriteText(&b, false, 60); err != nil {
			t.Fatal(err)
		}
	})
}

func TestBool(t *testing.T) {
	l := NewLog([]File{{Name: "g.hcl", Bytes: []byte("a = true\nb = false\nc = yes\n")}})
	attrs := l.Parse()[0].Body.Attributes
	if got, ok := l.Bool(attrs["a"], false); !got || !ok {
		t.Errorf("true: got %v, %v", got, ok)
	}
	if got, ok := l.Bool(attrs["b"], true); got || !ok {
		t.Errorf("false: got %v, %v", got, ok)
	}
	if _, ok := l.Bool(attrs["c"], true); ok {
		t.Error("yes was taken for a bool")
	}
}
