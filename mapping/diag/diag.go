// Package diag reads HCL files and reports what is wrong with them: every mistake at once, each
// with its place, the source line and a remedy. The mapping files and gateway.hcl share it.
package diag

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
)

// A File is one source as it was read.
type File struct {
	Name  string
	Bytes []byte
}

// Severity tells whether a configuration can be used in spite of a finding.
type Severity uint8

const (
	Error Severity = iota + 1
	Warning
)

// String gives "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// A Diagnostic is one finding. It implements error.
type Diagnostic struct {
	Code       Code
	Severity   Severity
	Summary    string    // what is wrong, one line, lower case, no full stop
	Detail     string    // why, and what to do about it; may be empty
	Suggestion string    // a name that was probably meant, or ""
	Subject    hcl.Range // the zero Range where no file is to blame
	In         string    // the blocks around it: `register "site/{site}", bind "mqtt"`
	Line       string    // the source line on which Subject begins, without its end
}

// Error gives "file:line:col: summary; detail [code]" on one line.
func (d *Diagnostic) Error() string {
	s := d.Summary
	if d.Suggestion != "" {
		s += `; did you mean "` + d.Suggestion + `"?`
	} else if d.Detail != "" {
		s += "; " + d.Detail
	}
	if d.Code != "" {
		s += " [" + string(d.Code) + "]"
	}
	if d.Subject.Filename == "" {
		return s
	}
	return fmt.Sprintf("%s:%d:%d: %s", d.Subject.Filename, d.Subject.Start.Line, d.Subject.Start.Column, s)
}

// MarshalJSON gives an object for scripts and editors: severity, code, summary, detail, suggestion, file,
// range (lines and columns from 1, the end exclusive), in, snippet.
func (d *Diagnostic) MarshalJSON() ([]byte, error) {
	type pos struct {
		Line   int `json:"line"`
		Column int `json:"column"`
	}
	type rng struct {
		Start pos `json:"start"`
		End   pos `json:"end"`
	}
	out := struct {
		Severity   string `json:"severity"`
		Code       Code   `json:"code"`
		Summary    string `json:"summary"`
		Detail     string `json:"detail,omitempty"`
		Suggestion string `json:"suggestion,omitempty"`
		File       string `json:"file,omitempty"`
		Range      *rng   `json:"range,omitempty"`
		In         string `json:"in,omitempty"`
		Snippet    string `json:"snippet,omitempty"`
	}{d.Severity.String(), d.Code, d.Summary, d.Detail, d.Suggestion, d.Subject.Filename, nil, d.In, d.Line}
	if d.Subject.Filename != "" {
		out.Range = &rng{pos{d.Subject.Start.Line, d.Subject.Start.Column}, pos{d.Subject.End.Line, d.Subject.End.Column}}
	}
	return json.Marshal(out)
}

// Diagnostics are findings in the order of their places.
type Diagnostics []*Diagnostic

// HasErrors tells whether any finding is an error.
func (d Diagnostics) HasErrors() bool {
	for _, one := range d {
		if one.Severity == Error {
			return true
		}
	}
	return false
}

// Err is nil without errors, else an error that lists them, one per line.
func (d Diagnostics) Err() error {
	var lines []string
	for _, one := range d {
		if one.Severity == Error {
			lines = append(lines, one.Error())
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(lines, "\n"))
}

// WriteText writes the findings for a person: place, source line underlined, remedy. Details are
// wrapped at width columns; 0 means 80.
func (d Diagnostics) WriteText(w io.Writer, color bool, width int) error {
	if width <= 0 {
		width = 80
	}
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return "\x1b[" + code + "m" + s + "\x1b[0m"
	}
	for i, one := range d {
		var b strings.Builder
		if i > 0 {
			b.WriteByte('\n')
		}
		word, code := "Error", "1;31"
		if one.Severity == Warning {
			word, code = "Warning", "1;33"
		}
		if one.Code != "" {
			word += " " + string(one.Code)
		}
		b.WriteString(paint(code, word+":") + " " + paint("1", one.Summary) + "\n")
		if r := one.Subject; r.Filename != "" {
			in := ""
			if one.In != "" {
				in = ", in " + one.In
			}
			fmt.Fprintf(&b, "  on %s:%d:%d%s\n", r.Filename, r.Start.Line, r.Start.Column, in)
			one.writeSnippet(&b, width, func(s string) string { return paint(code, s) })
		}
		text := one.Detail
		if one.Suggestion != "" {
			text = strings.TrimSpace(`Did you mean "` + one.Suggestion + `"? ` + text)
		}
		for _, line := range wrap(text, width-2) {
			b.WriteString("  " + line + "\n")
		}
		if _, err := io.WriteString(w, b.String()); err != nil {
			return err
		}
	}
	return nil
}

func (d *Diagnostic) writeSnippet(b *strings.Builder, width int, paint func(string) string) {
	if strings.TrimSpace(d.Line) == "" {
		return
	}
	r := d.Subject
	line := strings.ReplaceAll(d.Line, "\t", " ")
	// HCL counts columns in grapheme clusters; bytes place the underline in any line.
	from := r.Start.Column - 1
	n := r.End.Column - r.Start.Column
	if r.End.Line != r.Start.Line {
		n = utf8.RuneCountInString(line) - from
	}
	runes := []rune(line)
	from = max(0, min(from, len(runes)))
	n = max(1, min(n, len(runes)-from))
	if room := max(20, width-10); len(runes) > room && from+n > room {
		cut := from - min(from, room/3)
		runes, from = runes[cut:], from-cut
		if len(runes) > room {
			runes = runes[:room]
		}
		n = max(1, min(n, len(runes)-from))
	}
	fmt.Fprintf(b, "%5d | %s\n      | %s%s\n", r.Start.Line, string(runes), strings.Repeat(" ", from), paint(strings.Repeat("^", n)))
}

func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width:
			lines = append(lines, line)
			line = word
		default:
			line += " " + word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// Suggest gives the candidate that name was probably meant to be, or "".
func Suggest(name string, candidates []string) string {
	best, bestDist := "", 3
	switch {
	case len(name) < 2:
		return ""
	case len(name) <= 3:
		bestDist = 2
	}
	sorted := append([]string(nil), candidates...)
	sort.Strings(sorted)
	for _, c := range sorted {
		if d := levenshtein.Distance(strings.ToLower(name), strings.ToLower(c), nil); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}
