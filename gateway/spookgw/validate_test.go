package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func call(args ...string) (code int, out, errs string) {
	return callWith("", args...)
}

func callWith(stdin string, args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &o, errs: &e}
	code = a.run(args)
	return code, o.String(), e.String()
}

func TestValidateSaysCodes(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bad := file("bad.hcl", "register \"a/{x}\" {\n  fields = { v = float }\n}\nbind \"http\" \"/v1/:id\" {\n  register = \"v1\"\n}\n")
	fine := file("fine.hcl", "bind \"http\" \"/v1/{x}\" {\n  register = \"v1/{x}\"\n}\n")

	code, out, _ := call("validate", "--json", bad)
	var found []struct {
		Severity, Code, Summary, Detail, File string
		Range                                 struct{ Start, End struct{ Line, Column int } }
	}
	if err := json.Unmarshal([]byte(out), &found); err != nil || code != exitError || len(found) != 2 {
		t.Fatalf("exit %d, %v: %s", code, err, out)
	}
	if f := found[0]; f.Severity != "error" || f.Code != "MAP013" || f.File != bad || f.Range.Start.Line != 2 || f.Range.End.Column <= f.Range.Start.Column || f.Detail == "" {
		t.Errorf("got %+v", f)
	}
	if f := found[1]; f.Severity != "warning" || f.Code != "MAP007" || f.Range.Start.Line != 4 {
		t.Errorf("got %+v", f)
	}
	for _, f := range found {
		if code, out, _ := call("explain-code", f.Code); code != exitOK || !strings.HasPrefix(out, f.Code+": ") || !strings.Contains(out, "\nRemedy: ") {
			t.Errorf("explain-code %s: exit %d: %s", f.Code, code, out)
		}
	}

	code, _, errs := call("validate", bad)
	if code != exitError || !strings.Contains(errs, "Error MAP013: unknown type \"float\"\n  on "+bad+":2:18") || !strings.Contains(errs, "spookgw explain-code MAP013") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if code, out, _ := call("validate", "--json", fine); code != exitOK || strings.TrimSpace(out) != "[]" {
		t.Errorf("exit %d: %s", code, out)
	}
}

func TestFmt(t *testing.T) {
	const loose, tidy = "bind \"http\" \"/a\" {\nregister=\"a\"\n    direction   = \"in\" # why\n}\n", "bind \"http\" \"/a\" {\n  register  = \"a\"\n  direction = \"in\" # why\n}\n"
	path := filepath.Join(t.TempDir(), "a.hcl")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	is := func(want string) {
		t.Helper()
		if got, err := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("the file is %q (%v), want %q", got, err, want)
		}
	}
	write(loose)
	if code, out, _ := call("fmt", "--check", path); code != exitError || out != path+"\n" {
		t.Errorf("check: exit %d, %q", code, out)
	}
	is(loose)
	if code, out, _ := call("fmt", "--json", path); code != exitOK || !strings.Contains(out, path) {
		t.Errorf("fmt: exit %d, %q", code, out)
	}
	is(tidy)
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if code, out, _ := call("fmt", "--check", path); code != exitOK || out != "" {
		t.Errorf("check again: exit %d, %q", code, out)
	}
	if code, out, _ := callWith(loose, "fmt", "-"); code != exitOK || out != tidy {
		t.Errorf("stdin: exit %d, %q", code, out)
	}
	const broken = "bind \"http\" \"/a {\n"
	write(broken)
	if code, _, errs := call("fmt", path); code != exitError || !strings.Contains(errs, "HCL001") {
		t.Errorf("broken: exit %d, %q", code, errs)
	}
	is(broken)
	if code, out, errs := callWith(broken, "fmt", "-"); code != exitError || out != "" || errs == "" {
		t.Errorf("broken stdin: exit %d, %q, %q", code, out, errs)
	}
}
