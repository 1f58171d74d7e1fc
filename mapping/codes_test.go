package mapping

import (
	"fmt"
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
	want, err := codesPage()
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

// codesPage is the document that lists all codes with their pages.
func codesPage() (string, error) {
	var list, body strings.Builder
	for _, c := range diag.Codes() {
		e, err := diag.Explain(string(c))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&list, "| [%s](#%s) | %s |\n", c, strings.ToLower(string(c)), strings.ReplaceAll(e.Title, "|", `\|`))
		fmt.Fprintf(&body, "\n## %s\n\n**%s.** %s\n", c, upperFirst(e.Title), e.Meaning)
		if e.Example != "" {
			fmt.Fprintf(&body, "\n```text\n%s```\n", e.Example)
		}
		fmt.Fprintf(&body, "\n**Remedy.** %s\n", e.Remedy)
	}
	return `# Codes of findings

Made from ` + "`diag/codes`" + `; ` + "`spookgw explain-code CODE`" + ` prints one. MAP is said of mapping files, GW of gateway.hcl, HCL of both. A code
means the same kind of mistake in every version. The blocks show the mistakes.

| code | |
|---|---|
` + list.String() + body.String(), nil
}

func upperFirst(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
