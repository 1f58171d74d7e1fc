package mapping

import "strings"

// An escaper turns a captured value into text that can stand at its place in a template, and back.
// Both directions are exact inverses: a value has one text and a text at most one value.
//
// Bytes of the set become %XX. So does a '%' that would otherwise be read as such an escape; any
// other '%' stands for itself, and an escape that rendering would not produce is literal.
type escaper struct {
	set  [4]uint64 // bytes that can't stand as they are
	head bool      // the value begins its segment: a first '.' or '~' would make a temporary name
	tail bool      // the value ends its segment: so would a last '~' or ".tmp"
}

func (e *escaper) add(chars string) {
	for i := range len(chars) {
		e.set[chars[i]>>6] |= 1 << (chars[i] & 63)
	}
}

func (e *escaper) has(c byte) bool { return e.set[c>>6]&(1<<(c&63)) != 0 }

// special tells whether c, standing at the beginning or the end of its segment, is escaped there.
func (e *escaper) special(c byte, first bool, after string) bool {
	return e.head && first && (c == '.' || c == '~') ||
		e.tail && (c == '~' && after == "" || c == '.' && after == "tmp")
}

// clean tells whether v is its own text.
func (e *escaper) clean(v string) bool {
	for i := range len(v) {
		if c := v[i]; c == '%' || e.has(c) {
			return false
		}
	}
	if v == "" {
		return true
	}
	if e.head && (v[0] == '.' || v[0] == '~') {
		return false
	}
	return !e.tail || v[len(v)-1] != '~' && !strings.HasSuffix(v, ".tmp")
}

// reads tells whether the two characters behind a '%' make it an escape. first: that '%' begins
// the segment.
func (e *escaper) reads(s string, first bool) bool {
	for len(s) >= 2 {
		c, ok := e.hex(s)
		if !ok {
			return false
		}
		if e.has(c) || e.special(c, first, s[2:]) {
			return true
		}
		if c != '%' {
			return false
		}
		s = s[2:]
	}
	return false
}

func (e *escaper) hex(s string) (byte, bool) {
	var c byte
	for _, d := range []byte(s[:2]) {
		switch {
		case e.has(d):
			return 0, false
		case d >= '0' && d <= '9':
			d -= '0'
		case d >= 'A' && d <= 'F':
			d -= 'A' - 10
		default:
			return 0, false
		}
		c = c<<4 | d
	}
	return c, true
}

const hexDigits = "0123456789ABCDEF"

// append renders v.
func (e *escaper) append(dst []byte, v string) []byte {
	for i := range len(v) {
		c := v[i]
		if e.has(c) || e.special(c, i == 0, v[i+1:]) || c == '%' && e.reads(v[i+1:], i == 0) {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// decode gives the value whose text this is; false if there is none.
func (e *escaper) decode(text string) (string, bool) {
	if e.clean(text) {
		return text, true
	}
	v := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && e.reads(text[i+1:], i == 0) {
			c, _ := e.hex(text[i+1:])
			v = append(v, c)
			i += 2
			continue
		}
		v = append(v, text[i])
	}
	value := string(v)
	if string(e.append(nil, value)) == text {
		return value, true
	}
	return text, string(e.append(nil, text)) == text
}
