package diag

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// TestEveryFindingHasACode holds the calls that make findings and the pages of codes together: a call without a code
// does not compile, and a Diagnostic without one is found here.
func TestEveryFindingHasACode(t *testing.T) {
	form := regexp.MustCompile(`^(MAP|GW|HCL)\d{3}$`)
	used := map[Code]string{}
	for _, dir := range []string{"../../mapping", "../../gateway"} {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			set := token.NewFileSet()
			file, err := parser.ParseFile(set, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.BasicLit:
					if s, err := strconv.Unquote(n.Value); n.Kind == token.STRING && err == nil && form.MatchString(s) {
						used[Code(s)] = set.Position(n.Pos()).String()
					}
				case *ast.CompositeLit:
					name := ""
					switch x := n.Type.(type) {
					case *ast.Ident:
						name = x.Name
					case *ast.SelectorExpr:
						name = x.Sel.Name
					}
					if name == "Diagnostic" && !slices.ContainsFunc(n.Elts, func(e ast.Expr) bool {
						kv, ok := e.(*ast.KeyValueExpr)
						return ok && kv.Key.(*ast.Ident).Name == "Code"
					}) {
						t.Errorf("%s: a Diagnostic without a Code", set.Position(n.Pos()))
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	codes := Codes()
	for c, at := range used {
		if !slices.Contains(codes, c) {
			t.Errorf("%s: %s has no page: write mapping/diag/codes/%s.md", at, c, c)
		}
	}
	titles := map[string]Code{}
	for _, c := range codes {
		if used[c] == "" {
			t.Errorf("codes/%s.md: nothing reports it", c)
		}
		e, err := Explain(strings.ToLower(string(c)))
		if err != nil || e.Code != c || e.Title == "" || strings.HasPrefix(e.Title, "#") || e.Meaning == "" || e.Remedy == "" || !form.MatchString(string(c)) {
			t.Errorf("codes/%s.md: not a page of a code: %+v %v", c, e, err)
		}
		if other := titles[e.Title]; other != "" {
			t.Errorf("%s and %s have one title", c, other)
		}
		titles[e.Title] = c
	}
	if _, err := Explain("MAP1O0"); err == nil || !strings.Contains(err.Error(), "did you mean MAP100?") {
		t.Errorf("got %v", err)
	}
	if _, err := Explain("../codes"); err == nil {
		t.Error("a page that is none was explained")
	}
}
