package diag

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// A Code names a kind of mistake for ever: "MAP101" in mapping files, "GW012" in gateway.hcl,
// "HCL007" in both. A code that is out of use is not given to another mistake.
//
// Each has a page codes/CODE.md: a heading "# CODE: title", what it means, a block ```text that has the
// mistake, and behind "**Remedy.**" what to do. A test holds the pages and the calls of Log together.
type Code string

//go:embed codes/*.md
var pages embed.FS

// Codes lists all codes in order.
func Codes() []Code {
	files, err := fs.Glob(pages, "codes/*.md")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	out := make([]Code, len(files))
	for i, f := range files {
		out[i] = Code(strings.TrimSuffix(strings.TrimPrefix(f, "codes/"), ".md"))
	}
	slices.Sort(out)
	return out
}

// An Explanation is the page of a code.
type Explanation struct {
	Code    Code   `json:"code"`
	Title   string `json:"title"`
	Meaning string `json:"meaning"`
	Example string `json:"example,omitempty"` // HCL that has the mistake; "" where no file has it
	Remedy  string `json:"remedy"`
}

// Explain gives the page of a code. It doesn't mind small letters.
func Explain(code string) (Explanation, error) {
	c := strings.ToUpper(strings.TrimSpace(code))
	if !slices.Contains(Codes(), Code(c)) {
		list := make([]string, 0, 128)
		for _, known := range Codes() {
			list = append(list, string(known))
		}
		if near := Suggest(c, list); near != "" {
			return Explanation{}, fmt.Errorf("there is no code %q; did you mean %s?", code, near)
		}
		return Explanation{}, fmt.Errorf("there is no code %q", code)
	}
	b, err := pages.ReadFile("codes/" + c + ".md")
	if err != nil {
		return Explanation{}, err
	}
	head, rest, _ := strings.Cut(string(b), "\n")
	e := Explanation{Code: Code(c), Title: strings.TrimPrefix(head, "# "+c+": ")}
	rest, e.Remedy, _ = strings.Cut(rest, "**Remedy.**")
	meaning, block, has := strings.Cut(rest, "```text\n")
	if has {
		e.Example, _, _ = strings.Cut(block, "```")
	}
	e.Meaning, e.Remedy = strings.TrimSpace(meaning), strings.TrimSpace(e.Remedy)
	return e, nil
}
