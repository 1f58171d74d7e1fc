package mapping

import (
	"fmt"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// pin makes the expression by which the engine knows the registers of a declaration. It sees their names as text and
// can't decode escapes, so that `match` of a register block is of the text, too.
func (l *loader) pin(d *decl, match *hclsyntax.Attribute) {
	t := d.leaf.template
	inner := make([]string, len(t.names))
	for i := range d.leaf.checks {
		c := &d.leaf.checks[i]
		s, k := t.at(c.index)
		alone := s.rest
		if !s.rest {
			c.as = &s.shape.escapes[k]
			alone = len(s.shape.escapes) == 1 && s.shape.literals[0]+s.shape.literals[1] == ""
		}
		re, err := narrowed(strings.TrimSuffix(strings.TrimPrefix(c.re.String(), "^(?:"), ")$"), c.as, alone)
		if err != nil {
			l.Error("MAP020", match.Expr.Range(), fmt.Sprintf("match of {%s} can't tell the domain which registers are meant", t.names[c.index]), sentence(err))
			return
		}
		inner[c.index] = re
	}
	d.pattern = t.pattern(inner, l.class)
}

// at finds a capture's segment, and its place in it.
func (t *template) at(index int) (*segment, int) {
	for i := range t.segments {
		s := &t.segments[i]
		if n := len(s.names(t)); index >= s.first && index < s.first+n {
			return s, index - s.first
		}
	}
	panic("a capture without a segment")
}

// pattern is the RE2 expression, without anchors, that matches exactly the names of registers of the template. inner
// narrows captures.
//
// A capture's text is any that holds no byte which is escaped there: rendering makes each of them of exactly one value.
// Since the first such byte behind a capture belongs to the text that follows it, there is one way to cut a name.
func (t *template) pattern(inner []string, class func(*escaper) string) string {
	var b strings.Builder
	capture := func(i int, any string) {
		if inner[i] != "" {
			any = inner[i]
		}
		fmt.Fprintf(&b, "(?P<%s>%s)", t.names[i], any)
	}
	for i := range t.segments {
		s := &t.segments[i]
		if i > 0 {
			b.WriteByte('/')
		}
		switch {
		case s.rest:
			capture(s.first, "[^/]+(?:/[^/]+)*")
		case s.shape != nil:
			for k := range s.shape.escapes {
				b.WriteString(quoteMeta(s.shape.literals[k]))
				capture(s.first+k, class(&s.shape.escapes[k])+"+")
			}
			b.WriteString(quoteMeta(s.shape.literals[len(s.shape.escapes)]))
		default:
			b.WriteString(quoteMeta(s.literal))
		}
	}
	return b.String()
}

func quoteMeta(s string) string {
	return (&syntax.Regexp{Op: syntax.OpLiteral, Rune: []rune(s)}).String()
}

// prefix is the text that all names of the template begin with.
func (t *template) prefix() string {
	var b strings.Builder
	for i := range t.segments {
		s := &t.segments[i]
		if i > 0 {
			b.WriteByte('/')
		}
		switch {
		case s.rest:
			return b.String()
		case s.shape != nil:
			return b.String() + s.shape.literals[0]
		}
		b.WriteString(s.literal)
	}
	return b.String()
}

// expansion is the template in the form of regexp.Expand.
func (t *template) expansion() string {
	var b strings.Builder
	text := func(s string) { b.WriteString(strings.ReplaceAll(s, "$", "$$")) }
	for i := range t.segments {
		s := &t.segments[i]
		if i > 0 {
			b.WriteByte('/')
		}
		names := s.names(t)
		if len(names) == 0 {
			text(s.literal)
		}
		for k, n := range names {
			if !s.rest {
				text(s.shape.literals[k])
			}
			b.WriteString("${" + n + "}")
		}
		if s.shape != nil {
			text(s.shape.literals[len(names)])
		}
	}
	return b.String()
}

// stops tells whether a rune can't stand in the text of a capture. All bytes of a rune beyond ASCII are escaped, or none.
func (e *escaper) stops(r rune) bool {
	if r < utf8.RuneSelf {
		return e.has(byte(r))
	}
	return e.has(utf8.RuneSelf)
}

// without gives the ranges of runes that may stand in the text of a capture.
func (e *escaper) without(ranges []rune) []rune {
	if e == nil {
		return ranges
	}
	var out []rune
	for i := 0; i < len(ranges); i += 2 {
		lo, hi := ranges[i], ranges[i+1]
		for r := lo; r <= hi && r < utf8.RuneSelf; r++ {
			if e.stops(r) {
				if lo < r {
					out = append(out, lo, r-1)
				}
				lo = r + 1
			}
		}
		if hi >= utf8.RuneSelf && e.stops(utf8.RuneSelf) {
			hi = utf8.RuneSelf - 1
		}
		if lo <= hi {
			out = append(out, lo, hi)
		}
	}
	return out
}

func class(ranges []rune) *syntax.Regexp {
	if len(ranges) == 0 {
		return &syntax.Regexp{Op: syntax.OpNoMatch}
	}
	return &syntax.Regexp{Op: syntax.OpCharClass, Rune: ranges}
}

// class matches one rune of a capture's text. Writing a class of all of Unicode takes milliseconds, and there are few
// different ones.
func (l *loader) class(e *escaper) string {
	text, ok := l.classes[*e]
	if !ok {
		text = class(e.without([]rune{0, unicode.MaxRune})).String()
		l.classes[*e] = text
	}
	return text
}

// narrowed takes out of an expression what can't stand in the text of a capture. alone: the capture is its segment, so
// that it is never empty. The error is for the user.
func narrowed(expr string, e *escaper, alone bool) (string, error) {
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return "", err
	}
	re = unanchored(re)
	if !alone && matchesEmpty(re) {
		return "", fmt.Errorf("it matches the empty text, which the capture never is; its segment has other text beside it. Write + for *")
	}
	if re, err = e.narrow(re); err != nil {
		return "", err
	}
	return re.String(), nil
}

// unanchored takes off the anchors at both ends: the expression is of the whole capture as it is.
func unanchored(re *syntax.Regexp) *syntax.Regexp {
	begin := func(r *syntax.Regexp) bool { return r.Op == syntax.OpBeginText }
	end := func(r *syntax.Regexp) bool { return r.Op == syntax.OpEndText }
	if re.Op != syntax.OpConcat {
		if begin(re) || end(re) {
			return &syntax.Regexp{Op: syntax.OpEmptyMatch}
		}
		return re
	}
	subs := re.Sub
	for len(subs) > 0 && begin(subs[0]) {
		subs = subs[1:]
	}
	for len(subs) > 0 && end(subs[len(subs)-1]) {
		subs = subs[:len(subs)-1]
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: subs, Flags: re.Flags}
}

func matchesEmpty(re *syntax.Regexp) bool {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpStar, syntax.OpQuest:
		return true
	case syntax.OpLiteral:
		return len(re.Rune) == 0
	case syntax.OpCapture, syntax.OpPlus:
		return matchesEmpty(re.Sub[0])
	case syntax.OpRepeat:
		return re.Min == 0 || matchesEmpty(re.Sub[0])
	case syntax.OpConcat:
		return !slices.ContainsFunc(re.Sub, func(s *syntax.Regexp) bool { return !matchesEmpty(s) })
	case syntax.OpAlternate:
		return slices.ContainsFunc(re.Sub, matchesEmpty)
	}
	return false
}

func (e *escaper) narrow(re *syntax.Regexp) (*syntax.Regexp, error) {
	switch re.Op {
	case syntax.OpNoMatch, syntax.OpEmptyMatch:
		return re, nil
	case syntax.OpAnyChar:
		return class(e.without([]rune{0, unicode.MaxRune})), nil
	case syntax.OpAnyCharNotNL:
		return class(e.without([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune})), nil
	case syntax.OpCharClass:
		return class(e.without(re.Rune)), nil
	case syntax.OpLiteral:
		out := &syntax.Regexp{Op: syntax.OpConcat}
		for _, r := range re.Rune {
			ranges := []rune{r, r}
			if re.Flags&syntax.FoldCase != 0 {
				for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
					ranges = append(ranges, f, f)
				}
			}
			out.Sub = append(out.Sub, class(e.without(sortedRanges(ranges))))
		}
		return out, nil
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return nil, fmt.Errorf("%s stands in the middle of the expression, which is a part of a larger one. It is of the whole capture without anchors: leave it out", re)
	case syntax.OpCapture:
		sub, err := e.narrow(re.Sub[0])
		if err != nil {
			return nil, err
		}
		// Without its own name, which may be another capture's; as one piece all the same.
		return &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{sub}}, nil
	}
	out := *re
	out.Sub, out.Sub0 = make([]*syntax.Regexp, len(re.Sub)), [1]*syntax.Regexp{}
	for i, s := range re.Sub {
		var err error
		if out.Sub[i], err = e.narrow(s); err != nil {
			return nil, err
		}
	}
	return &out, nil
}

func sortedRanges(pairs []rune) []rune {
	var runes []rune
	for i := 0; i < len(pairs); i += 2 {
		runes = append(runes, pairs[i])
	}
	slices.Sort(runes)
	var out []rune
	for _, r := range runes {
		out = append(out, r, r)
	}
	return out
}
