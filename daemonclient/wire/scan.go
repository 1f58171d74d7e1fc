package wire

import (
	"fmt"
	"unicode/utf8"
)

// Check tells whether b is one JSON text (RFC 8259) in the strict profile: valid UTF-8, at most
// depth levels of arrays and objects, no object with two equal keys, nothing behind the value.
// encoding/json alone is laxer in each of these, and a peer that two readers understand
// differently is a hole.
func Check(b []byte, depth int) error {
	if !utf8.Valid(b) {
		return fmt.Errorf("%w: not UTF-8", ErrSyntax)
	}
	s := scanner{b: b, max: depth}
	s.space()
	if err := s.value(0); err != nil {
		return err
	}
	s.space()
	if s.i != len(s.b) {
		return s.fail("something behind the value")
	}
	return nil
}

type scanner struct {
	b   []byte
	i   int
	max int
}

func (s *scanner) fail(what string) error {
	return fmt.Errorf("%w: %s at byte %d", ErrSyntax, what, s.i)
}

func (s *scanner) space() {
	for s.i < len(s.b) {
		switch s.b[s.i] {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return
		}
	}
}

func (s *scanner) value(depth int) error {
	if s.i >= len(s.b) {
		return s.fail("ends too early")
	}
	switch c := s.b[s.i]; c {
	case '{', '[':
		if depth == s.max {
			return s.fail(fmt.Sprintf("more than %d levels", s.max))
		}
		s.i++
		if c == '{' {
			return s.object(depth + 1)
		}
		return s.array(depth + 1)
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.word("true")
	case 'f':
		return s.word("false")
	case 'n':
		return s.word("null")
	default:
		return s.number()
	}
}

func (s *scanner) word(w string) error {
	if len(s.b)-s.i < len(w) || string(s.b[s.i:s.i+len(w)]) != w {
		return s.fail("unknown word")
	}
	s.i += len(w)
	return nil
}

// number follows RFC 8259, section 6: no leading zero, no bare point or exponent.
func (s *scanner) number() error {
	if s.at('-') {
		s.i++
	}
	switch {
	case s.at('0'):
		s.i++
	case s.digits() == 0:
		return s.fail("not a value")
	}
	if s.at('.') {
		s.i++
		if s.digits() == 0 {
			return s.fail("no digit behind the point")
		}
	}
	if s.at('e') || s.at('E') {
		s.i++
		if s.at('+') || s.at('-') {
			s.i++
		}
		if s.digits() == 0 {
			return s.fail("no digit in the exponent")
		}
	}
	return nil
}

func (s *scanner) at(c byte) bool { return s.i < len(s.b) && s.b[s.i] == c }

func (s *scanner) digits() (n int) {
	for s.i < len(s.b) && s.b[s.i] >= '0' && s.b[s.i] <= '9' {
		s.i++
		n++
	}
	return n
}

func (s *scanner) array(depth int) error {
	s.space()
	if s.at(']') {
		s.i++
		return nil
	}
	for {
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		switch {
		case s.at(','):
			s.i++
		case s.at(']'):
			s.i++
			return nil
		default:
			return s.fail("neither , nor ]")
		}
	}
}

// Objects of the protocol are small: up to this many keys are compared one by one.
const fewKeys = 12

func (s *scanner) object(depth int) error {
	s.space()
	if s.at('}') {
		s.i++
		return nil
	}
	var few [fewKeys]string
	var many map[string]bool
	for n := 0; ; n++ {
		s.space()
		if !s.at('"') {
			return s.fail("not a key")
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		switch {
		case n < fewKeys:
			for _, k := range few[:n] {
				if k == key {
					return s.fail("key " + quote(key) + " twice")
				}
			}
			few[n] = key
		default:
			if many == nil {
				many = make(map[string]bool, 4*fewKeys)
				for _, k := range few {
					many[k] = true
				}
			}
			if many[key] {
				return s.fail("key " + quote(key) + " twice")
			}
			many[key] = true
		}
		s.space()
		if !s.at(':') {
			return s.fail("no : behind a key")
		}
		s.i++
		s.space()
		if err := s.value(depth); err != nil {
			return err
		}
		s.space()
		switch {
		case s.at(','):
			s.i++
		case s.at('}'):
			s.i++
			return nil
		default:
			return s.fail("neither , nor }")
		}
	}
}

func quote(s string) string {
	if len(s) > 40 {
		s = s[:40]
	}
	return fmt.Sprintf("%q", s)
}

// str passes over a string and gives what it says. A lone surrogate escape is refused: Go would
// read it as U+FFFD, so that two different keys or texts became one.
func (s *scanner) str() (string, error) {
	s.i++
	start := s.i
	var out []byte // nil until the first escape
	for s.i < len(s.b) {
		c := s.b[s.i]
		switch {
		case c == '"':
			raw := s.b[start:s.i]
			s.i++
			if out == nil {
				return string(raw), nil
			}
			return string(append(out, raw...)), nil
		case c < 0x20:
			return "", s.fail("control character in a string")
		case c != '\\':
			s.i++
		default:
			out = append(out, s.b[start:s.i]...)
			r, err := s.escape()
			if err != nil {
				return "", err
			}
			out = utf8.AppendRune(out, r)
			start = s.i
		}
	}
	return "", s.fail("string without end")
}

func (s *scanner) escape() (rune, error) {
	s.i++ // the backslash
	if s.i >= len(s.b) {
		return 0, s.fail("string without end")
	}
	c := s.b[s.i]
	s.i++
	switch c {
	case '"', '\\', '/':
		return rune(c), nil
	case 'b':
		return '\b', nil
	case 'f':
		return '\f', nil
	case 'n':
		return '\n', nil
	case 'r':
		return '\r', nil
	case 't':
		return '\t', nil
	case 'u':
		hi, err := s.hex4()
		if err != nil {
			return 0, err
		}
		switch {
		case hi < 0xd800 || hi > 0xdfff:
			return hi, nil
		case hi < 0xdc00 && s.at('\\') && s.i+1 < len(s.b) && s.b[s.i+1] == 'u':
			s.i += 2
			lo, err := s.hex4()
			if err != nil {
				return 0, err
			}
			if lo >= 0xdc00 && lo <= 0xdfff {
				return 0x10000 + (hi-0xd800)<<10 + (lo - 0xdc00), nil
			}
		}
		return 0, s.fail("half a surrogate pair")
	}
	return 0, s.fail("unknown escape")
}

func (s *scanner) hex4() (rune, error) {
	if len(s.b)-s.i < 4 {
		return 0, s.fail("short \\u escape")
	}
	var r rune
	for range 4 {
		c := s.b[s.i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, s.fail("bad \\u escape")
		}
		r = r<<4 | rune(c)
		s.i++
	}
	return r, nil
}
