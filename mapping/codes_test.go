package mapping

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers/sql"
)

// TestCodes loads the example of every page of a code of mapping files: it has that mistake.
func TestCodes(t *testing.T) {
	tried := 0
	for _, code := range diag.Codes() {
		e, err := diag.Explain(string(code))
		if err != nil {
			t.Fatal(err)
		}
		if e.Example == "" || strings.Contains(e.Meaning, "In gateway.hcl:") {
			continue // gateway tries those
		}
		wrappers := append(standard(), WrapperInfo{Protocol: sql.Protocol, Name: "db", Listens: true})
		if strings.Contains(e.Meaning, "With two wrappers") {
			wrappers = append(wrappers, WrapperInfo{Protocol: topics, Name: "yard", Listens: true, Reaches: []string{"broker:1883"}})
			wrappers[0].Reaches = []string{"broker:1883"}
		}
		_, found := Load(Input{Files: []diag.File{{Name: "m.hcl", Bytes: []byte(e.Example)}}, Wrappers: wrappers, Later: []string{"ssh"}})
		tried++
		if !slices.ContainsFunc(found, func(d *diag.Diagnostic) bool { return d.Code == code }) {
			t.Errorf("%s: its example does not have it: %v", code, found)
		}
	}
	if tried < 50 {
		t.Errorf("only %d examples", tried)
	}
}

// TestCodesPage holds CODES.md against the pages; -update writes it.
func TestCodesPage(t *testing.T) {
	want, err := diag.CodesPage()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("CODES.md", []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile("CODES.md"); err != nil || string(got) != want {
		t.Errorf("CODES.md is not what the pages say; write it with `go test ./mapping -run TestCodesPage -update` (%v)", err)
	}
}
