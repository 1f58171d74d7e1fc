package mapping

import (
	"os"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/mapping/diag"
)

// TestReadme loads every block of README.md, and formats it.
func TestReadme(t *testing.T) {
	b, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```hcl\n")[1:]
	if len(blocks) < 10 {
		t.Fatalf("only %d blocks", len(blocks))
	}
	for _, block := range blocks {
		src, _, _ := strings.Cut(block, "```")
		f := diag.File{Name: "README.md", Bytes: []byte(src)}
		set, diags := Load(Input{Files: []diag.File{f}, Wrappers: []WrapperInfo{{Protocol: topics, Name: "mqtt"}, {Protocol: paths, Name: "http"}}})
		if set == nil || len(diags) > 0 {
			t.Errorf("%s\n%v", src, diags.Err())
		}
		if got, _ := Format(f); string(got) != src {
			t.Errorf("not in canonical layout:\n%s\nwant:\n%s", src, got)
		}
	}
	// The lists of functions say what there is.
	for _, name := range functionNames() {
		if !strings.Contains(string(b), name) {
			t.Errorf("README.md does not name %s()", name)
		}
	}
	for _, list := range [][]string{registerLater} {
		for _, name := range list {
			if !strings.Contains(string(b), name) {
				t.Errorf("README.md does not name %s under Limits", name)
			}
		}
	}
}
