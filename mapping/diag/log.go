package diag

import (
	"bytes"
	"fmt"
	"sort"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Limits of a source file. HCL's parser recurses, so what nests too deep is refused before it.
const (
	MaxFile  = 1 << 20
	maxDepth = 100
	maxChain = 300
)

// A Log parses files and collects what is wrong with them. It is for one goroutine.
type Log struct {
	files map[string][]byte
	order []string
	list  Diagnostics
	seen  map[string]bool
	in    []string
	// Hints says what to write instead of an unknown name of a kind ("type", "attribute of bind"), where that is not a
	// question of spelling; "" if it isn't known. Nil: nothing is.
	Hints func(what, name string) string
}

// NewLog makes a Log over the files that findings may point into.
func NewLog(files []File) *Log {
	l := &Log{files: map[string][]byte{}, seen: map[string]bool{}}
	for _, f := range files {
		l.files[f.Name] = f.Bytes
		l.order = append(l.order, f.Name)
	}
	return l
}

// A Source is a file that could be parsed.
type Source struct {
	Name string
	Body *hclsyntax.Body
}

// Parse gives the bodies of all files without syntax errors; the others' errors are in the Log.
func (l *Log) Parse() []Source {
	var out []Source
	for _, name := range l.order {
		src := l.files[name]
		if len(src) > MaxFile {
			l.Error("HCL005", hcl.Range{Filename: name, Start: hcl.InitialPos, End: hcl.InitialPos}, "file too large",
				fmt.Sprintf("It has %d bytes; a file may have %d. Split it.", len(src), MaxFile))
			continue
		}
		if at, deep := nesting(src, name); deep {
			l.Error("HCL006", at, "nested too deep", fmt.Sprintf("Brackets may nest %d levels, and one expression may have %d operators.", maxDepth, maxChain))
			continue
		}
		file, diags := hclsyntax.ParseConfig(src, name, hcl.InitialPos)
		l.HCL("HCL001", diags)
		if diags.HasErrors() {
			continue
		}
		out = append(out, Source{Name: name, Body: file.Body.(*hclsyntax.Body)})
	}
	return out
}

// nesting bounds the recursion of parser and evaluation: brackets, and the operators, conditionals
// and indexes of one expression, which nest without them.
func nesting(src []byte, name string) (hcl.Range, bool) {
	tokens, _ := hclsyntax.LexConfig(src, name, hcl.InitialPos)
	depth, open, chain := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace:
			depth++
		case hclsyntax.TokenCBrace:
			depth = max(0, depth-1)
		case hclsyntax.TokenOBrack, hclsyntax.TokenOParen, hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl,
			hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth, open, chain = depth+1, open+1, chain+1
		case hclsyntax.TokenCBrack, hclsyntax.TokenCParen, hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			depth, open = max(0, depth-1), max(0, open-1)
		case hclsyntax.TokenComma, hclsyntax.TokenStringLit, hclsyntax.TokenQuotedLit:
			chain = 0
		case hclsyntax.TokenNewline:
			if open == 0 {
				chain = 0
			}
		case hclsyntax.TokenIdent, hclsyntax.TokenNumberLit, hclsyntax.TokenEqual, hclsyntax.TokenDot, hclsyntax.TokenComment:
		default: // operators
			chain++
		}
		if depth > maxDepth || chain > maxChain {
			return t.Range, true
		}
	}
	return hcl.Range{}, false
}

// Within says in which block the findings that follow stand, until the returned func is called.
func (l *Log) Within(block string) func() {
	l.in = append(l.in, block)
	n := len(l.in) - 1
	return func() { l.in = l.in[:n] }
}

// Add takes a finding over, and fills in its source line and surroundings.
func (l *Log) Add(d *Diagnostic) {
	if d.In == "" {
		d.In = strings.Join(l.in, ", ")
	}
	if d.Line == "" && d.Subject.Filename != "" {
		d.Line = l.line(d.Subject)
	}
	key := fmt.Sprint(d.Severity, d.Subject.Filename, d.Subject.Start.Byte, d.Summary, d.Suggestion)
	if !l.seen[key] {
		l.seen[key] = true
		l.list = append(l.list, d)
	}
}

func (l *Log) line(r hcl.Range) string {
	src := l.files[r.Filename]
	at := r.Start.Byte
	if at < 0 || at > len(src) {
		return ""
	}
	from := bytes.LastIndexByte(src[:at], '\n') + 1
	to := bytes.IndexByte(src[at:], '\n')
	if to < 0 {
		to = len(src)
	} else {
		to += at
	}
	return strings.TrimRight(strings.ToValidUTF8(string(src[from:to]), "\ufffd"), "\r")
}

// Error adds an error.
func (l *Log) Error(code Code, r hcl.Range, summary, detail string) {
	l.Add(&Diagnostic{Code: code, Severity: Error, Summary: summary, Detail: detail, Subject: r})
}

// Warn adds a warning.
func (l *Log) Warn(code Code, r hcl.Range, summary, detail string) {
	l.Add(&Diagnostic{Code: code, Severity: Warning, Summary: summary, Detail: detail, Subject: r})
}

// Unknown says that what ("attribute", "codec") of this name does not exist, and which one was
// probably meant. Without a likely one the detail lists what there is.
func (l *Log) Unknown(code Code, r hcl.Range, what, name string, candidates []string) {
	d := &Diagnostic{Code: code, Severity: Error, Summary: fmt.Sprintf("unknown %s %q", what, name), Subject: r}
	if l.Hints != nil {
		d.Detail = l.Hints(what, name)
	}
	if d.Detail != "" {
		l.Add(d)
		return
	}
	if d.Suggestion = Suggest(name, candidates); d.Suggestion == "" && len(candidates) > 0 {
		sorted := append([]string(nil), candidates...)
		sort.Strings(sorted)
		if len(sorted) > 24 {
			sorted = append(sorted[:24], "…")
		}
		d.Detail = "There is: " + strings.Join(sorted, ", ") + "."
	}
	l.Add(d)
}

// Later says that the language has this, and this version has not.
func (l *Log) Later(r hcl.Range, what string) {
	l.Error("HCL017", r, what+" is not in this version", "Leave it out until the version that has it; nothing here would obey it.")
}

// HCL adds what the HCL library found, with hints for what people get wrong in HCL. Slips that have
// a code of their own get it, the others code.
func (l *Log) HCL(code Code, diags hcl.Diagnostics) {
	for i, h := range diags {
		if i > 0 && h.Subject != nil && diags[i-1].Subject != nil && *h.Subject == *diags[i-1].Subject {
			continue // the scanner has said it, and now the parser says what follows from it
		}
		d := &Diagnostic{Code: code, Severity: Error, Summary: lower(h.Summary), Detail: h.Detail}
		if h.Severity == hcl.DiagWarning {
			d.Severity = Warning
		}
		if h.Subject != nil {
			d.Subject = *h.Subject
		}
		if line := l.line(d.Subject); strings.Contains(line, "%{") && !strings.Contains(line, "%%{") {
			d.Code = "HCL002"
			d.Detail += ` In a quoted text "%{" begins a directive of HCL: write "%%{" for the characters themselves, "${x}" to insert a value.`
		} else if strings.Contains(h.Detail, "Template sequences are not allowed") {
			d.Code = "HCL003"
			d.Detail = "A label is plain text. A capture is written {name}, without a dollar sign; a dollar sign itself as $$."
		} else if strings.Contains(h.Summary, "single-argument block") || strings.Contains(h.Detail, "single-line block") {
			d.Code = "HCL004"
			d.Detail = "A block on one line holds at most one argument. Put each argument on a line of its own, between { and }."
		} else if more := l.remedy(d.Subject); code == "HCL001" && more != "" {
			d.Detail = more + " " + d.Detail
		} else {
			d.Detail += evaluated(d.Detail)
		}
		l.Add(d)
	}
}

func lower(s string) string {
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}

// Count tells how many findings there are, to see whether something added one.
func (l *Log) Count() int { return len(l.list) }

// HasErrors tells whether an error was added.
func (l *Log) HasErrors() bool { return l.list.HasErrors() }

// Diagnostics gives the findings so far, by file in the order given, then by place.
func (l *Log) Diagnostics() Diagnostics {
	rank := map[string]int{}
	for i, name := range l.order {
		rank[name] = i
	}
	out := append(Diagnostics(nil), l.list...)
	sort.SliceStable(out, func(i, j int) bool {
		a, b := out[i].Subject, out[j].Subject
		if a.Filename != b.Filename {
			return rank[a.Filename] < rank[b.Filename]
		}
		return a.Start.Byte < b.Start.Byte
	})
	return out
}
