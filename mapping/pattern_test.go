package mapping

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping/diag"
)

// TestPatternMatchesWhatTheTemplateMatches: the engine, by the pattern alone, takes the same names as the mapping, and
// reads the same captures.
func TestPatternMatchesWhatTheTemplateMatches(t *testing.T) {
	templates := []struct{ text, match string }{
		{"site/{site}/{sensor}", ""}, {"plain", ""}, {"a.b/{x}", ""}, {"{x}-{y}", ""}, {"p{x}::{y}é{z}q", ""}, {"{x}é{y}", ""},
		{"{x}0-{y}", ""}, {"{x...}", ""}, {"a/{x...}/b/{y}", ""}, {"{y}/{x...}", ""}, {"2{x}%-{y}", ""}, {"a//{x}", ""},
		{"m/{x}", `x = "a.*"`}, {"m/{x}", `x = "(?i)aG|-+|%2F."`}, {"m/{x}", `x = "^[^a]$"`}, {"{x}-{y}", `x = ".+", y = "(?P<x>a|é)+"`},
		{"{x}é{y}", `x = "\\W+"`}, {"{x}G{y}", `x = "(?i)g+.?"`}, {"a/{x...}", `x = "a(/[ab%]+)*"`}, {"m/{x}", `x = "(?:)|.{2,3}"`},
	}
	alphabet := rapid.StringOfN(rapid.SampledFrom([]rune("ab%2F5GD-:é0/q\n")), 0, 12, -1)
	sets := make([]*Set, len(templates))
	for i, tt := range templates {
		src := fmt.Sprintf("register %q {\n  match = { %s }\n}\n", tt.text, tt.match)
		set, diags := Load(Input{Files: []diag.File{{Name: "m.hcl", Bytes: []byte(src)}}})
		if set == nil {
			t.Fatalf("%q: %v", src, diags.Err())
		}
		sets[i] = set
	}
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.IntRange(0, len(templates)-1).Draw(t, "template")
		d := sets[i].Rules()[0]
		decl := sets[i].declared[0]
		tp := decl.leaf.template
		name := ""
		if rapid.Bool().Draw(t, "rendered") {
			out, ok := tp.appendTo(nil, func(int) string { return alphabet.Draw(t, "value") })
			if !ok {
				t.Skip("an empty capture")
			}
			name = string(out)
		} else {
			name = d.Prefix + alphabet.Draw(t, "name")
		}
		if engine.CheckName(name) != nil {
			t.Skip("no register has this name")
		}
		if !strings.HasPrefix(name, d.Prefix) {
			_, declared := sets[i].Declared(name)
			if declared {
				t.Fatalf("%q is declared and doesn't begin with %q", name, d.Prefix)
			}
		}
		var f finding
		want := sets[i].decls.find(name, &f)
		re := regexp.MustCompile("^(?:" + d.Pattern + ")$")
		m := re.FindStringSubmatch(name)
		if (m != nil) != want {
			t.Fatalf("%q: %s matches %q: %v; the template: %v", tp.text, d.Pattern, name, m != nil, want)
		}
		if m == nil {
			return
		}
		back, _ := tp.appendTo(nil, func(i int) string { return f.raw[i] })
		if string(back) != name {
			t.Fatalf("%q is rendered as %q", name, back)
		}
		for i, n := range tp.names {
			want := f.raw[i]
			if s, k := tp.at(i); !s.rest {
				want = string(s.shape.escapes[k].append(nil, want))
			}
			if got := m[re.SubexpIndex(n)]; got != want {
				t.Fatalf("%q: {%s} of %q is %q, want %q", d.Pattern, n, name, got, want)
			}
		}
	})
}

func TestGroupExpands(t *testing.T) {
	set := load(t, `register "recipe/{recipe}-{step}/{part...}" {
  group = "$x/{part...}/{recipe}"
}
`)
	d := set.Rules()[0]
	re := regexp.MustCompile("^(?:" + d.Pattern + ")$")
	name := "recipe/a%2Fb-1/x/y"
	got := string(re.ExpandString(nil, d.Group, name, re.FindStringSubmatchIndex(name)))
	if want := "$x/x/y/a%2Fb"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
