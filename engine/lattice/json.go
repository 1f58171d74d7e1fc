package lattice

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// shareJSON is the size up to which strings share one copy of their document. Beyond it a short string would keep a
// long document in memory.
const shareJSON = 1024

// ParseJSON reads one whole JSON document (RFC 8259). It is strict: names are unique within their object, text is
// UTF-8 without unpaired surrogates, nesting ends at MaxDepth, numbers are as ParseNumber takes them. Errors are
// ErrInvalid or ErrTooLarge and name the byte.
func ParseJSON(b []byte) (Value, error) { return parseJSON(b, false) }

func parseJSON(b []byte, tagged bool) (Value, error) {
	if !utf8.Valid(b) {
		return Value{}, fmt.Errorf("%w: JSON that is not UTF-8", ErrInvalid)
	}
	p := jsonParser{s: string(b), tagged: tagged}
	p.space()
	v, err := p.value(0)
	if err != nil {
		return Value{}, err
	}
	if p.space(); p.i != len(p.s) {
		return Value{}, p.fail("something behind the end of the document")
	}
	return v, nil
}

type jsonParser struct {
	s       string
	i       int
	tagged  bool
	members []Member // open objects' members, innermost last
	items   []Value
}

func (p *jsonParser) fail(format string, args ...any) error {
	return fmt.Errorf("%w: JSON, byte %d: %s", ErrInvalid, p.i, fmt.Sprintf(format, args...))
}

func (p *jsonParser) space() {
	for p.i < len(p.s) {
		switch p.s[p.i] {
		case ' ', '\t', '\n', '\r':
			p.i++
		default:
			return
		}
	}
}

func (p *jsonParser) unexpected() error {
	if p.i >= len(p.s) {
		return p.fail("the document ends too early")
	}
	r, _ := utf8.DecodeRuneInString(p.s[p.i:])
	return p.fail("unexpected %q", r)
}

func (p *jsonParser) word(word string, v Value) (Value, error) {
	if !strings.HasPrefix(p.s[p.i:], word) {
		return Value{}, p.unexpected()
	}
	p.i += len(word)
	return v, nil
}

func (p *jsonParser) value(depth int) (Value, error) {
	if p.i >= len(p.s) {
		return Value{}, p.unexpected()
	}
	switch c := p.s[p.i]; {
	case c == '{':
		if depth == MaxDepth {
			return Value{}, errDepth
		}
		return p.object(depth + 1)
	case c == '[':
		if depth == MaxDepth {
			return Value{}, errDepth
		}
		return p.list(depth + 1)
	case c == '"':
		s, err := p.text()
		return String(s), err
	case c == 't':
		return p.word("true", Bool(true))
	case c == 'f':
		return p.word("false", Bool(false))
	case c == 'n':
		return p.word("null", Null())
	case c == '-' || c-'0' <= 9:
		v, n, err := scanNumber(p.s[p.i:])
		if err != nil {
			return Value{}, fmt.Errorf("JSON, byte %d: %w", p.i, err)
		}
		p.i += n
		return v, nil
	}
	return Value{}, p.unexpected()
}

func (p *jsonParser) list(depth int) (Value, error) {
	p.i++
	base := len(p.items)
	p.space()
	if p.i < len(p.s) && p.s[p.i] == ']' {
		p.i++
		return sequence(ListKind, nil), nil
	}
	for {
		p.space()
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.items = append(p.items, v)
		p.space()
		if p.i >= len(p.s) {
			return Value{}, p.unexpected()
		}
		switch p.s[p.i] {
		case ',':
			p.i++
		case ']':
			p.i++
			items := append([]Value(nil), p.items[base:]...)
			p.items = p.items[:base]
			return sequence(ListKind, items), nil
		default:
			return Value{}, p.unexpected()
		}
	}
}

func (p *jsonParser) object(depth int) (Value, error) {
	start := p.i
	p.i++
	if p.members == nil {
		p.members = make([]Member, 0, 4)
	}
	base := len(p.members)
	p.space()
	if p.i < len(p.s) && p.s[p.i] == '}' {
		p.i++
		return Object(), nil
	}
	for {
		p.space()
		if p.i >= len(p.s) || p.s[p.i] != '"' {
			return Value{}, p.unexpected()
		}
		name, err := p.text()
		if err != nil {
			return Value{}, err
		}
		if p.space(); p.i >= len(p.s) || p.s[p.i] != ':' {
			return Value{}, p.unexpected()
		}
		p.i++
		p.space()
		v, err := p.value(depth)
		if err != nil {
			return Value{}, err
		}
		p.members = append(p.members, Member{Name: name, Value: v})
		p.space()
		if p.i >= len(p.s) {
			return Value{}, p.unexpected()
		}
		switch p.s[p.i] {
		case ',':
			p.i++
			continue
		case '}':
		default:
			return Value{}, p.unexpected()
		}
		p.i++
		var members []Member
		if base == 0 {
			members, p.members = p.members, nil // the outermost, most often the only one, needs no copy
		} else {
			members = append(members, p.members[base:]...)
			p.members = p.members[:base]
		}
		n := len(members)
		v = Object(members...)
		if v.Len() != n {
			p.i = start
			return Value{}, p.fail("an object names a member twice")
		}
		if p.tagged {
			v, err = untag(v)
			if err != nil {
				p.i = start
				return Value{}, p.fail("%v", err)
			}
		}
		return v, nil
	}
}

// text reads a string that begins at p.i.
func (p *jsonParser) text() (string, error) {
	p.i++
	start := p.i
	for ; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; {
		case c == '"':
			s := p.s[start:p.i]
			p.i++
			if len(p.s) > shareJSON {
				s = strings.Clone(s)
			}
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < 0x20:
			return "", p.fail("a control character in a string")
		}
	}
	return "", p.unexpected()
}

// escaped goes on with a string that began at start and has an escape at p.i.
func (p *jsonParser) escaped(start int) (string, error) {
	out := append(make([]byte, 0, p.i-start+16), p.s[start:p.i]...)
	for p.i < len(p.s) {
		c := p.s[p.i]
		switch {
		case c == '"':
			p.i++
			return string(out), nil
		case c < 0x20:
			return "", p.fail("a control character in a string")
		case c != '\\':
			out = append(out, c)
			p.i++
			continue
		}
		p.i++
		if p.i >= len(p.s) {
			return "", p.unexpected()
		}
		switch c := p.s[p.i]; c {
		case '"', '\\', '/':
			out = append(out, c)
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			r, ok := p.hex4(p.i + 1)
			if !ok {
				return "", p.fail("\\u without four hexadecimal digits")
			}
			p.i += 4
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if strings.HasPrefix(p.s[p.i+1:], `\u`) {
					low, ok = p.hex4(p.i + 3)
				}
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return "", p.fail("an unpaired surrogate")
				}
				p.i += 6
			}
			out = utf8.AppendRune(out, r)
		default:
			return "", p.fail("unknown escape \\%c", c)
		}
		p.i++
	}
	return "", p.unexpected()
}

func (p *jsonParser) hex4(at int) (rune, bool) {
	if at+4 > len(p.s) {
		return 0, false
	}
	var r rune
	for _, c := range []byte(p.s[at : at+4]) {
		switch {
		case c-'0' <= 9:
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// AppendJSON appends v as plain JSON, for those who know no other kinds: bytes as a base64 string, a set as an array,
// numbers in full. An absent value appends nothing. AppendTagged loses nothing.
func (v Value) AppendJSON(dst []byte) []byte { return v.appendJSON(dst, false) }

// AppendTagged appends v as JSON that ParseTagged reads back as the same value. It is plain JSON wherever that is
// unambiguous for readers with binary floating point; else an object of one member: {"$bytes": base64},
// {"$set": array}, {"$int": text} beyond ±2^53, {"$decimal": text} beyond 15 digits or 1e±300. A member's name that
// begins with "$" gets another "$" in front. An absent value appends nothing.
func (v Value) AppendTagged(dst []byte) []byte { return v.appendJSON(dst, true) }

// ParseTagged reads what AppendTagged writes, under the rules of ParseJSON.
func ParseTagged(b []byte) (Value, error) { return parseJSON(b, true) }

func (v Value) appendJSON(dst []byte, tagged bool) []byte {
	switch v.kind {
	case NullKind:
		return append(dst, "null"...)
	case BoolKind:
		if v.num != 0 {
			return append(dst, "true"...)
		}
		return append(dst, "false"...)
	case IntKind, DecimalKind:
		if tag := v.numberTag(); tagged && tag != "" {
			dst = append(append(dst, tag...), '"')
			return append(v.appendNumber(dst), `"}`...)
		}
		return v.appendNumber(dst)
	case StringKind:
		return appendQuoted(dst, v.raw())
	case BytesKind:
		if tagged {
			dst = append(dst, `{"$bytes":`...)
		}
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, v.Bytes())
		dst = append(dst, '"')
		if tagged {
			dst = append(dst, '}')
		}
		return dst
	case ListKind, SetKind:
		if tagged && v.kind == SetKind {
			dst = append(dst, `{"$set":`...)
		}
		dst = append(dst, '[')
		for i, item := range v.Items() {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = item.appendJSON(dst, tagged)
		}
		dst = append(dst, ']')
		if tagged && v.kind == SetKind {
			dst = append(dst, '}')
		}
		return dst
	case ObjectKind:
		dst = append(dst, '{')
		for i, m := range v.Members() {
			if i > 0 {
				dst = append(dst, ',')
			}
			at := len(dst)
			dst = appendQuoted(dst, m.Name)
			if tagged && strings.HasPrefix(m.Name, "$") {
				dst = append(dst, 0)
				copy(dst[at+2:], dst[at+1:])
				dst[at+1] = '$'
			}
			dst = append(dst, ':')
			dst = m.Value.appendJSON(dst, tagged)
		}
		return append(dst, '}')
	}
	return dst
}

// numberTag is how AppendTagged opens a number that binary floating point would change; else "".
func (v Value) numberTag() string {
	if v.kind == IntKind {
		if v.num > 1<<53 || v.num < -1<<53 {
			return `{"$int":`
		}
		return ""
	}
	if v.ptr == nil {
		n := decimalDigits(v.big())
		if first := n + int(v.exp); n <= 15 && first > -300 && first < 300 {
			return ""
		}
	}
	return `{"$decimal":`
}

// untag gives an object of AppendTagged its meaning.
func untag(v Value) (Value, error) {
	members := v.Members()
	if !slices.ContainsFunc(members, func(m Member) bool { return strings.HasPrefix(m.Name, "$") }) {
		return v, nil
	}
	if len(members) == 1 {
		name, inner := members[0].Name, members[0].Value
		switch name {
		case "$bytes":
			data, err := base64.StdEncoding.Strict().DecodeString(inner.Text())
			if err != nil || inner.kind != StringKind {
				return Value{}, fmt.Errorf("$bytes is not base64")
			}
			return Bytes(data), nil
		case "$set":
			if inner.kind != ListKind {
				return Value{}, fmt.Errorf("$set is not an array")
			}
			return Set(append([]Value(nil), inner.Items()...)...), nil
		case "$int", "$decimal":
			if inner.kind != StringKind {
				return Value{}, fmt.Errorf("%s is not text", name)
			}
			n, err := ParseNumber(inner.Text())
			if err == nil && name == "$int" && n.kind != IntKind {
				err = fmt.Errorf("$int is not a 64-bit whole number")
			}
			return n, err
		}
	}
	out := append([]Member(nil), members...)
	for i, m := range out {
		if strings.HasPrefix(m.Name, "$$") {
			out[i].Name = m.Name[1:]
		} else if strings.HasPrefix(m.Name, "$") {
			return Value{}, fmt.Errorf("unknown tag %q", m.Name)
		}
	}
	return Object(out...), nil
}

const hexDigits = "0123456789abcdef"

// appendQuoted appends s as a JSON string. What is not UTF-8 becomes the replacement character.
func appendQuoted(dst []byte, s string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		size, escape := 1, ""
		switch {
		case c == '"':
			escape = `\"`
		case c == '\\':
			escape = `\\`
		case c == '\n':
			escape = `\n`
		case c == '\r':
			escape = `\r`
		case c == '\t':
			escape = `\t`
		case c < 0x20:
			dst = append(dst, s[from:i]...)
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
			i++
			from = i
			continue
		default:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && size == 1:
				escape = `\ufffd`
			case r == '\u2028':
				escape = `\u2028` // ends a line in old JavaScript
			case r == '\u2029':
				escape = `\u2029`
			default:
				i += size
				continue
			}
		}
		dst = append(append(dst, s[from:i]...), escape...)
		i += size
		from = i
	}
	return append(append(dst, s[from:]...), '"')
}
