package mapping

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/spooksystems/gateway/mapping/diag"
)

// TestMistakes loads each file of the lists of what people bring from other tools by itself: every one is one mistake, and
// gets a finding with a code that has a page, a place in that file, and a remedy.
func TestMistakes(t *testing.T) {
	seen := map[string]string{}
	for _, list := range []string{"terraform", "bloblang", "nodered", "loops"} {
		ar, err := txtar.ParseFile(filepath.Join("testdata", "mistakes", list+".txtar"))
		if err != nil {
			t.Fatal(err)
		}
		in := Input{Wrappers: scriptWrappers(t, string(ar.Comment))}
		for _, f := range ar.Files {
			if !strings.HasSuffix(f.Name, ".hcl") {
				continue
			}
			if seen[f.Name] != "" {
				t.Errorf("%s stands in %s and in %s", f.Name, seen[f.Name], list)
			}
			seen[f.Name] = list
			in.Files = []diag.File{{Name: f.Name, Bytes: f.Data}}
			_, found := Load(in)
			if len(found) == 0 {
				t.Errorf("%s/%s: nothing was found", list, f.Name)
			}
			for _, d := range found {
				switch {
				case !slices.Contains(diag.Codes(), d.Code):
					t.Errorf("%s/%s: %q has no page: %v", list, f.Name, d.Code, d)
				case d.Subject.Filename != f.Name || d.Subject.Start.Line < 1 || d.Line == "":
					t.Errorf("%s/%s: no place: %v", list, f.Name, d)
				case d.Detail == "" && d.Suggestion == "":
					t.Errorf("%s/%s: no remedy: %v", list, f.Name, d)
				}
			}
		}
	}
	if len(seen) < 60 {
		t.Errorf("%d mistakes; there are at least 60", len(seen))
	}
}
