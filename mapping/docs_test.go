package mapping

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql"
)

// pages are the documents of the language: README.md, and docs/mapping with a page for each construct.
func pages(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("../docs/mapping/*.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) < 30 {
		t.Fatalf("only %d pages", len(names))
	}
	out := map[string]string{}
	for _, name := range append(names, "README.md") {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.ToSlash(name)] = string(b)
	}
	return out
}

// TestPages loads every block of the pages without as much as a warning, and formats it. A block for mappings.d that stands below
// a gateway.hcl is loaded with it by the tests of gateway/trial.
func TestPages(t *testing.T) {
	tested := 0
	for name, text := range pages(t) {
		hasTest := false
		for i, block := range strings.Split(text, "```hcl\n")[1:] {
			src, _, _ := strings.Cut(block, "```")
			if strings.HasPrefix(src, "# gateway.hcl\n") {
				continue
			}
			hasTest = hasTest || strings.Contains("\n"+src, "\ntest \"")
			f := diag.File{Name: fmt.Sprintf("%s, block %d", name, i+1), Bytes: []byte(src)}
			if got, _ := Format(f); string(got) != src {
				t.Errorf("%s: not in canonical layout:\n%s\nwant:\n%s", f.Name, src, got)
			}
			if strings.HasPrefix(src, "# mappings.d/") {
				continue
			}
			set, diags := Load(Input{Files: []diag.File{f}, Wrappers: []WrapperInfo{{Protocol: topics, Name: "mqtt"}, {Protocol: paths, Name: "http"}, {Protocol: sql.Protocol, Name: "sql"}}})
			if set == nil || len(diags) > 0 {
				t.Errorf("%s:\n%s\n%v", f.Name, src, diags.Err())
			}
		}
		if hasTest {
			tested++
		} else if !slices.Contains([]string{"checks.md", "limits.md", "trying.md"}, filepath.Base(name)) {
			t.Errorf("%s has no test block", name)
		}
	}
	if tested < 30 {
		t.Errorf("only %d pages have a test block", tested)
	}
}

// TestPagesNameEverything: what the language has stands on a page, as code; and README.md leads to all pages.
func TestPagesNameEverything(t *testing.T) {
	all := pages(t)
	var text strings.Builder
	for name, page := range all {
		text.WriteString(page + "\n")
		if name != "README.md" && !strings.Contains(all["README.md"], "("+name+")") {
			t.Errorf("README.md does not lead to %s", name)
		}
	}
	named, listed := code(text.String()), code(strings.Join(rowOfTable.FindAllString(text.String(), -1), "\n"))
	l := Describe([]wrappers.Protocol{topics, paths})
	want := func(kind, name string) {
		if !named[name] {
			t.Errorf("no page names the %s %s", kind, name)
		}
	}
	for _, b := range l.Blocks {
		want("block", b.Type)
		for _, blocks := range [][]BlockForm{{b}, b.Blocks} {
			for _, b := range blocks {
				for _, a := range b.Attributes {
					if !listed[a.Name] {
						t.Errorf("no table of the pages has %s's attribute %s", b.Type, a.Name)
					}
					for _, v := range a.Values {
						want("value of "+a.Name, v)
					}
				}
				for _, n := range b.Later {
					want("attribute of a later version", n)
				}
			}
		}
	}
	for _, r := range l.Rules {
		want("rule", r.Name)
	}
	for _, c := range l.Codecs {
		for _, usage := range strings.Split(c, ", ") {
			name, _, _ := strings.Cut(usage, "(")
			if name = strings.TrimSpace(name); regexp.MustCompile(`^\w+$`).MatchString(name) {
				want("codec", name)
			}
		}
	}
	for _, f := range l.Functions {
		want("function", f.Name)
	}
	for _, names := range [][]string{l.Names.Always, l.Names.Inward, l.Names.Outward, {"row"}} {
		for _, n := range names {
			want("name", n)
		}
	}
	for _, typ := range l.Types {
		name, _, _ := strings.Cut(typ, "(")
		want("type", name)
	}
}

// The test of the test: words outside of code are no names.
func TestCode(t *testing.T) {
	got := code("each `max(x)` when\n```hcl\nbind \"a\" {}\n```\nevery `a b`")
	for word, want := range map[string]bool{"max": true, "bind": true, "a": true, "b": true, "each": false, "when": false, "every": false} {
		if got[word] != want {
			t.Errorf("%s: got %t, want %t", word, got[word], want)
		}
	}
}

var (
	fenced = regexp.MustCompile("(?s)```.*?```")
	inline = regexp.MustCompile("`[^`\n]+`")
	// A rowOfTable is a line of a table.
	rowOfTable = regexp.MustCompile(`(?m)^\|.*$`)
	word       = regexp.MustCompile(`\w+`)
)

// code are the words of a document that stand in its code.
func code(text string) map[string]bool {
	words := map[string]bool{}
	take := func(s string) string {
		for _, w := range word.FindAllString(s, -1) {
			words[w] = true
		}
		return " "
	}
	inline.ReplaceAllStringFunc(fenced.ReplaceAllStringFunc(text, take), take)
	return words
}
