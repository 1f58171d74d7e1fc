// Package dn reads and writes distinguished names (RFC 4514), and gives the entries below a base
// their addresses in the mapping.
package dn

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A DN is a distinguished name, the most specific RDN first. The root of all has none.
type DN []RDN

// An RDN is a relative distinguished name: nearly always one, sometimes several attributes with a
// value each, in no order.
type RDN []AVA

// An AVA is an attribute and its value, as it is (without escapes).
type AVA struct{ Type, Value string }

// ErrSyntax is wrapped by every error of this package.
var ErrSyntax = errors.New("not a distinguished name")

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrSyntax, fmt.Sprintf(format, args...))
}

// Parse reads the string form (RFC 4514, section 3), and what older writers made of it: spaces around
// separators, ';' for ',', values in quotes, "OID." before numbers (RFC 2253, section 4). Servers take these as well.
func Parse(s string) (DN, error) {
	if strings.TrimSpace(s) == "" {
		return DN{}, nil
	}
	var d DN
	var rdn RDN
	for {
		typ, value, end, err := parseAVA(s)
		if err != nil {
			return nil, err
		}
		rdn = append(rdn, AVA{typ, value})
		if end == len(s) {
			return append(d, rdn), nil
		}
		sep := s[end]
		s = s[end+1:]
		if sep != '+' {
			d = append(d, rdn)
			rdn = nil
		}
	}
}

// parseAVA reads one attribute=value; end is where the separator behind it stands, or the end of s.
func parseAVA(s string) (typ, value string, end int, err error) {
	eq := strings.IndexByte(s, '=')
	if eq < 0 {
		return "", "", 0, wrong("%q is not attribute=value", short(s))
	}
	if typ = strings.TrimSpace(s[:eq]); len(typ) > 4 && strings.EqualFold(typ[:4], "oid.") {
		typ = typ[4:] // RFC 2253, section 4
	}
	if !validType(typ) {
		return "", "", 0, wrong("%q is not the name of an attribute", short(typ))
	}
	i := eq + 1
	for i < len(s) && s[i] == ' ' {
		i++
	}
	if i < len(s) && s[i] == '#' {
		end = i + 1
		for end < len(s) && strings.IndexByte(",+; ", s[end]) < 0 {
			end++
		}
		if value, err = hexValue(s[i+1 : end]); err != nil {
			return "", "", 0, err
		}
		for end < len(s) && s[end] == ' ' {
			end++
		}
		if end < len(s) && strings.IndexByte(",+;", s[end]) < 0 {
			return "", "", 0, wrong("text behind a value in hexadecimal digits")
		}
		return typ, value, end, nil
	}
	if i < len(s) && s[i] == '"' {
		value, end, err = quoted(s, i+1)
		return typ, value, end, err
	}
	out := make([]byte, 0, 32)
	kept := 0 // bytes of out that trailing spaces don't take away
	for ; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', '+', ';':
			return typ, string(out[:kept]), i, nil
		case '"':
			return "", "", 0, wrong("a quote in a value without a backslash before it")
		case '\\':
			b, n, err := escape(s[i:])
			if err != nil {
				return "", "", 0, err
			}
			out = append(out, b)
			i += n - 1
			kept = len(out)
		case ' ':
			out = append(out, c)
		default:
			out = append(out, c)
			kept = len(out)
		}
	}
	return typ, string(out[:kept]), len(s), nil
}

// escape reads what stands behind a backslash; n is the length of it all.
func escape(s string) (b byte, n int, err error) {
	if len(s) == 1 {
		return 0, 0, wrong("it ends with a backslash")
	}
	if strings.IndexByte(` "#+,;<=>\`, s[1]) >= 0 {
		return s[1], 2, nil
	}
	var out [1]byte
	if len(s) < 3 {
		return 0, 0, wrong("an escape that ends too early")
	}
	if _, err := hex.Decode(out[:], []byte(s[1:3])); err != nil {
		return 0, 0, wrong("the escape %q", s[:3])
	}
	return out[0], 3, nil
}

// quoted reads a value in quotes, from behind the first one; end is where the separator behind it stands, or the end of s.
func quoted(s string, i int) (value string, end int, err error) {
	var out []byte
	for ; i < len(s) && s[i] != '"'; i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		b, n, err := escape(s[i:])
		if err != nil {
			return "", 0, err
		}
		out = append(out, b)
		i += n - 1
	}
	if i == len(s) {
		return "", 0, wrong("a quote without its end")
	}
	for i++; i < len(s) && s[i] == ' '; i++ {
	}
	if i < len(s) && strings.IndexByte(",+;", s[i]) < 0 {
		return "", 0, wrong("text behind a value in quotes")
	}
	return string(out), i, nil
}

// hexValue reads a value given as the hexadecimal digits of its BER (RFC 4514, section 2.4).
func hexValue(digits string) (string, error) {
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) < 2 {
		return "", wrong("a value in hexadecimal digits that can't be read: #%s", short(digits))
	}
	n, at := int(b[1]), 2
	if n >= 0x80 {
		k := n & 0x7f
		if n = 0; k == 0 || k > 4 || len(b) < 2+k {
			return "", wrong("a value in hexadecimal digits that is no BER: #%s", short(digits))
		}
		for _, c := range b[2 : 2+k] {
			n = n<<8 | int(c)
		}
		at += k
	}
	if n != len(b)-at {
		return "", wrong("a value in hexadecimal digits that is no BER: #%s", short(digits))
	}
	return string(b[at:]), nil
}

// validType: a short name or a dotted-decimal OID (RFC 4512, section 1.4).
func validType(s string) bool {
	if s == "" {
		return false
	}
	digits := s[0] >= '0' && s[0] <= '9'
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
		case digits && c == '.':
		case !digits && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' && i > 0):
		default:
			return false
		}
	}
	return true
}

func short(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// String writes the DN (RFC 4514, section 2).
func (d DN) String() string {
	var b []byte
	for i, r := range d {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.append(b)
	}
	return string(b)
}

// String writes the RDN (RFC 4514, section 2.2).
func (r RDN) String() string { return string(r.append(nil)) }

func (r RDN) append(b []byte) []byte {
	for i, a := range r {
		if i > 0 {
			b = append(b, '+')
		}
		b = append(append(b, a.Type...), '=')
		b = appendEscaped(b, a.Value)
	}
	return b
}

func appendEscaped(b []byte, v string) []byte {
	valid := utf8.ValidString(v)
	for i := range len(v) {
		c := v[i]
		switch {
		case c == 0 || c >= utf8.RuneSelf && !valid:
			b = append(b, '\\', hexDigits[c>>4], hexDigits[c&15])
		case strings.IndexByte(`"+,;<>\`, c) >= 0, c == ' ' && (i == 0 || i == len(v)-1), c == '#' && i == 0:
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return b
}

const hexDigits = "0123456789ABCDEF"

// Equal tells whether two names are of one entry, as servers compare names whose values are texts:
// case and superfluous spaces make no difference (RFC 4517, section 4.2.11).
func (d DN) Equal(o DN) bool { return slices.EqualFunc(d, o, RDN.Equal) }

// Equal compares as DN.Equal does.
func (r RDN) Equal(o RDN) bool {
	if len(r) == 1 && len(o) == 1 {
		return r[0].equal(o[0])
	}
	return len(r) == len(o) && slices.EqualFunc(r.sorted(), o.sorted(), AVA.equal)
}

func (a AVA) equal(o AVA) bool {
	if canonicalType(a.Type) != canonicalType(o.Type) {
		return false
	}
	return strings.EqualFold(a.Value, o.Value) || strings.EqualFold(squash(a.Value), squash(o.Value))
}

// sorted gives the RDN in the order of its attributes.
func (r RDN) sorted() RDN {
	if len(r) < 2 {
		return r
	}
	out := slices.Clone(r)
	slices.SortFunc(out, func(a, b AVA) int {
		if c := strings.Compare(canonicalType(a.Type), canonicalType(b.Type)); c != 0 {
			return c
		}
		return strings.Compare(a.Value, b.Value)
	})
	return out
}

// Key is the same for names that are Equal, and differs for others.
func (d DN) Key() string {
	var b strings.Builder
	for i, r := range d {
		if i > 0 {
			b.WriteByte(',')
		}
		for k, a := range r.sorted() {
			if k > 0 {
				b.WriteByte('+')
			}
			b.WriteString(canonicalType(a.Type))
			b.WriteByte('=')
			b.Write(appendEscaped(nil, fold(squash(a.Value))))
		}
	}
	return b.String()
}

// Below gives the part of d that is relative to base; false: d is not base, nor below it.
func (d DN) Below(base DN) (DN, bool) {
	n := len(d) - len(base)
	if n < 0 || !d[n:].Equal(base) {
		return nil, false
	}
	return d[:n:n], true
}

// Renamed gives the same name with other names of its attributes; same: they are those that it has.
func (d DN) Renamed(name func(typ string) string) (out DN, same bool) {
	same = true
	out = make(DN, len(d))
	for i, r := range d {
		out[i] = make(RDN, len(r))
		for k, a := range r {
			out[i][k] = AVA{name(a.Type), a.Value}
			same = same && strings.EqualFold(out[i][k].Type, a.Type)
		}
	}
	return out, same
}

// Parent is the entry above; the root is its own.
func (d DN) Parent() DN {
	if len(d) == 0 {
		return d
	}
	return d[1:]
}

// Join gives the name of the entry called d relative to base.
func (d DN) Join(base DN) DN { return append(slices.Clone(d), base...) }
