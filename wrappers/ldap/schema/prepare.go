package schema

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// String preparation, RFC 4518: transcode, map, normalize, prohibit, check bidi (nothing to do), insignificant characters.
// Tables of Unicode are those of the Go release instead of 3.2: letters assigned since then are letters.

// piece says which part of a value is prepared: blanks at its ends mean different things (RFC 4518, section 2.6.1).
type piece uint8

const (
	whole piece = iota
	initial
	middle
	final
)

// mapped is what RFC 4518, sections 2.1 to 2.5 make of a value; fold maps case as well. False: not UTF-8, or of characters
// that are prohibited.
func mapped(v []byte, fold bool) (string, bool) {
	ascii := true
	for _, c := range v {
		if c >= utf8.RuneSelf || c < ' ' || c == 0x7f {
			ascii = false
			break
		}
	}
	if ascii {
		if fold {
			return lower(string(v)), true
		}
		return string(v), true
	}
	if !utf8.Valid(v) {
		return "", false
	}
	var b strings.Builder
	for _, r := range string(v) {
		switch {
		case toSpace(r):
			b.WriteByte(' ')
		case toNothing(r):
		default:
			b.WriteRune(r)
		}
	}
	s := b.String()
	if fold {
		s = folder.String(norm.NFKC.String(s)) // as table B.2 of RFC 3454, which folds for NFKC
	}
	s = norm.NFKC.String(s)
	for _, r := range s {
		if prohibited(r) {
			return "", false
		}
	}
	return s, true
}

var folder = cases.Fold()

// toSpace: RFC 4518, section 2.2, what is mapped to SPACE.
func toSpace(r rune) bool {
	return r >= 0x09 && r <= 0x0d || r == 0x85 || unicode.In(r, unicode.Zs, unicode.Zl, unicode.Zp)
}

// toNothing: RFC 4518, section 2.2, what is mapped to nothing.
func toNothing(r rune) bool {
	switch {
	case r == 0xad, r == 0x1806, r == 0x034f, r >= 0x180b && r <= 0x180d, r >= 0xfe00 && r <= 0xfe0f, r == 0xfffc, r == 0x200b:
		return true
	}
	return r < 0x20 || r >= 0x7f && r <= 0x9f || unicode.Is(unicode.Cf, r)
}

// prohibited: RFC 4518, section 2.4.
func prohibited(r rune) bool {
	switch {
	case r == utf8.RuneError, r >= 0xfdd0 && r <= 0xfdef, r&0xfffe == 0xfffe:
		return true
	case unicode.Is(unicode.Co, r), unicode.Is(unicode.Cs, r):
		return true
	}
	return false
}

// spaced applies section 2.6.1: one blank at each end of a value, two between its words.
func spaced(s string, p piece) string {
	words := strings.FieldsFunc(s, func(r rune) bool { return r == ' ' })
	if len(words) == 0 {
		if p == whole {
			return "  "
		}
		if s == "" {
			return ""
		}
		return " "
	}
	var b strings.Builder
	b.Grow(len(s) + len(words) + 2)
	if p == whole || p == initial || s[0] == ' ' {
		b.WriteByte(' ')
	}
	for i, w := range words {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(w)
	}
	if p == whole || p == final || s[len(s)-1] == ' ' {
		b.WriteByte(' ')
	}
	return b.String()
}

// without drops characters: blanks of numeric strings (section 2.6.2), blanks and hyphens of telephone numbers (2.6.3).
func without(s string, drop func(r rune) bool) string {
	return strings.Map(func(r rune) rune {
		if drop(r) {
			return -1
		}
		return r
	}, s)
}

// hyphen is what section 2.6.3 has for one.
func hyphen(r rune) bool {
	switch r {
	case '-', 0x058a, 0x2010, 0x2011, 0x2212, 0xfe63, 0xff0d:
		return true
	}
	return false
}

func blank(r rune) bool { return r == ' ' }
