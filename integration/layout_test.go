package integration_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/spooksystems/gateway"

// mayImport is who may import whom, by path below the module. The most exact key counts. A
// pattern ending in /... covers the folder and everything below it; $own is the package's own
// folder with everything below it.
//
// What stands here is the architecture: a wrapper never sees the engine, HCL or another wrapper;
// the engine never sees a protocol. To add an arrow is to change that, and belongs into a commit
// of its own that says why.
var mayImport = map[string][]string{
	"engine/lattice": {},
	"engine/...":     {"engine/..."},

	"wrappers":             {},
	"wrappers/relay":       {},
	"wrappers/wrappertest": {"wrappers"},
	"wrappers/http/...":    {"wrappers", "wrappers/relay", "$own"},
	"wrappers/ldap/...":    {"wrappers", "wrappers/relay", "$own", "wrappers/ldap/ldapwire", "wrappers/ldap/dn", "wrappers/ldap/entry", "wrappers/ldap/schema", "wrappers/ldap/filter"},
	"wrappers/mqtt/...":    {"wrappers", "wrappers/relay", "$own"},
	"wrappers/sql/...":     {"wrappers", "wrappers/relay", "wrappers/sql/pgsql", "wrappers/sql/sqlrow", "$own"},

	"daemonclient/...": {"engine/...", "$own", "daemonclient/wire"},
	"mappings.d":       {}, // the shipped files, embedded
	"mapping/...":      {"engine/...", "wrappers", "mapping/..."},

	"gateway":         {"engine/...", "daemonclient/...", "mapping/...", "wrappers", "$own"},
	"gateway/trial":   {"gateway", "engine/...", "mapping/...", "wrappers"},
	"gateway/spookgw": {"gateway/...", "daemonclient/...", "engine/...", "mapping/...", "mappings.d", "wrappers", "wrappers/http", "wrappers/ldap", "wrappers/mqtt", "wrappers/sql"},

	"integration/...": {"..."},
}

// testsMayImport is what the tests of a package may import beyond what the package itself may:
// always the package, and the test packages that state a contract.
var testsMayImport = map[string][]string{
	"...":             {"wrappers/wrappertest", "engine/enginetest"},
	"mapping":         {"mappings.d", "wrappers/http", "wrappers/ldap", "wrappers/mqtt", "wrappers/sql"}, // shipped mappings are tried with the real protocols
	"mapping/propose": {"wrappers/http", "wrappers/mqtt", "wrappers/sql"},
	"gateway":         {"mappings.d", "wrappers/http", "wrappers/ldap", "wrappers/mqtt", "wrappers/sql", "mapping/..."},

	"gateway/trial": {"mappings.d", "wrappers/http", "wrappers/ldap", "wrappers/mqtt", "wrappers/sql"},
}

// hclIn are the packages that may import HCL, and cty, its values.
var hclIn = []string{"mapping/...", "gateway"}

type goPackage struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

func TestWhoImportsWhom(t *testing.T) {
	packages := listPackages(t)
	if len(packages) < 10 {
		t.Fatalf("go list gave %d packages; this test sees nothing", len(packages))
	}
	for _, mistake := range layoutMistakes(packages) {
		t.Error(mistake)
	}
}

// The test of the test: each kind of forbidden arrow is found.
func TestWhoImportsWhomFindsMistakes(t *testing.T) {
	const hcl = "github.com/hashicorp/hcl/v2"
	in := func(path string) string { return module + "/" + path }
	tests := []struct {
		name string
		pkg  goPackage
		want string // in the one mistake; "" for none
	}{
		{"a wrapper that sees the engine", goPackage{ImportPath: in("wrappers/mqtt"), Imports: []string{in("engine")}}, "wrappers/mqtt imports engine"},
		{"a wrapper that sees another", goPackage{ImportPath: in("wrappers/mqtt"), Imports: []string{in("wrappers/http")}}, "wrappers/mqtt imports wrappers/http"},
		{"a wrapper's own part", goPackage{ImportPath: in("wrappers/mqtt"), Imports: []string{in("wrappers/mqtt/packet")}}, ""},
		{"an engine that sees a protocol", goPackage{ImportPath: in("engine/store"), Imports: []string{in("wrappers")}}, "engine/store imports wrappers"},
		{"a lattice that sees its engine", goPackage{ImportPath: in("engine/lattice"), Imports: []string{in("engine")}}, "engine/lattice imports engine"},
		{"HCL in a wrapper", goPackage{ImportPath: in("wrappers/http"), Imports: []string{hcl}}, "wrappers/http imports " + hcl},
		{"HCL in a wrapper's test", goPackage{ImportPath: in("wrappers/http"), XTestImports: []string{hcl + "/hclsyntax"}}, "tests of wrappers/http import"},
		{"HCL in the mapping", goPackage{ImportPath: in("mapping/diag"), Imports: []string{hcl}}, ""},
		{"a package nobody placed", goPackage{ImportPath: in("tools")}, "tools: not placed"},
		{"a new protocol nobody placed", goPackage{ImportPath: in("wrappers/gopher")}, "wrappers/gopher: not placed"},
		{"the contract in a test", goPackage{ImportPath: in("wrappers/mqtt"), TestImports: []string{in("wrappers/wrappertest")}}, ""},
		{"the contract outside of a test", goPackage{ImportPath: in("wrappers/mqtt"), Imports: []string{in("wrappers/wrappertest")}}, "wrappers/mqtt imports wrappers/wrappertest"},
		{"the engine in a wrapper's test", goPackage{ImportPath: in("wrappers/mqtt"), TestImports: []string{in("engine")}}, "tests of wrappers/mqtt import engine"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := layoutMistakes([]goPackage{test.pkg})
			switch {
			case test.want == "" && len(got) > 0:
				t.Errorf("got %q, want none", got)
			case test.want != "" && (len(got) != 1 || !strings.Contains(got[0], test.want)):
				t.Errorf("got %q, want one with %q", got, test.want)
			}
		})
	}
}

func layoutMistakes(packages []goPackage) []string {
	var mistakes []string
	for _, p := range packages {
		path := below(p.ImportPath)
		allowed, placed := ruleFor(path)
		if !placed {
			mistakes = append(mistakes, path+": not placed: add it to mayImport with what it may import")
			continue
		}
		inTests := append(slices.Clone(allowed), testsMayImport["..."]...)
		inTests = append(inTests, testsMayImport[path]...)
		inTests = append(inTests, path)

		for _, imported := range p.Imports {
			if !arrowAllowed(path, imported, allowed) {
				mistakes = append(mistakes, path+" imports "+below(imported))
			}
		}
		ofTests := slices.Concat(p.TestImports, p.XTestImports)
		slices.Sort(ofTests)
		for _, imported := range slices.Compact(ofTests) {
			if !arrowAllowed(path, imported, inTests) {
				mistakes = append(mistakes, "the tests of "+path+" import "+below(imported))
			}
		}
	}
	return mistakes
}

func arrowAllowed(from, imported string, allowed []string) bool {
	if imported != module && !strings.HasPrefix(imported, module+"/") {
		ofHCL := strings.HasPrefix(imported, "github.com/hashicorp/hcl") || strings.HasPrefix(imported, "github.com/zclconf/go-cty")
		return !ofHCL || slices.ContainsFunc(hclIn, func(pattern string) bool { return matches(pattern, from) })
	}
	return slices.ContainsFunc(allowed, func(pattern string) bool {
		if pattern == "$own" {
			pattern = from + "/..."
		}
		return matches(pattern, below(imported))
	})
}

// ruleFor gives the rule of the most exact key.
func ruleFor(path string) (allowed []string, placed bool) {
	best := -1
	for key, rule := range mayImport {
		length := 2 * len(strings.TrimSuffix(key, "/..."))
		if key == path {
			length++
		}
		if matches(key, path) && length > best {
			allowed, placed, best = rule, true, length
		}
	}
	return allowed, placed
}

func matches(pattern, path string) bool {
	if pattern == "..." {
		return true
	}
	if folder, ok := strings.CutSuffix(pattern, "/..."); ok {
		return path == folder || strings.HasPrefix(path, folder+"/")
	}
	return pattern == path
}

func below(importPath string) string { return strings.TrimPrefix(importPath, module+"/") }

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []goPackage
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}
