package dn

import (
	"strings"
	"unicode"
)

// An address is the name of an entry relative to the base, the most specific RDN first, in one form:
// "uid=ann,ou=people". Names of attributes are short and in small letters, several of one RDN stand
// in their order, with '+' between. A value stands as it is, superfluous spaces aside, but for the
// bytes of Forbidden and the separator, which are percent-escaped, as is what would make the end of
// an RDN look like the name of a temporary file. Case is kept and makes no difference. So an
// address has one name, and a name one address.

// Separator stands between the RDNs of an address.
const Separator = ","

// Forbidden are the characters, beyond the separator, that a value in an address can't hold as they
// are. '%' is one of them: an escape is always one.
const Forbidden = "%+\\;\"#\x00"

// Address gives the address of the entry called d below base; false: it is not below it. The base
// itself has no address.
func (d DN) Address(base DN) (string, bool) {
	rel, ok := d.Below(base)
	if !ok || len(rel) == 0 {
		return "", false
	}
	return string(rel.appendAddress(nil)), true
}

func (d DN) appendAddress(b []byte) []byte {
	for i, r := range d {
		if i > 0 {
			b = append(b, Separator...)
		}
		r = r.sorted()
		for k, a := range r {
			if k > 0 {
				b = append(b, '+')
			}
			b = append(append(b, canonicalType(a.Type)...), '=')
			b = appendValue(b, squash(a.Value), k == len(r)-1)
		}
	}
	return b
}

// appendValue writes a value; last: it ends its segment.
func appendValue(b []byte, v string, last bool) []byte {
	for i := range len(v) {
		c := v[i]
		if c == Separator[0] || strings.IndexByte(Forbidden, c) >= 0 ||
			last && (c == '~' && i == len(v)-1 || c == '.' && v[i+1:] == "tmp") {
			b = append(b, '%', hexDigits[c>>4], hexDigits[c&15])
		} else {
			b = append(b, c)
		}
	}
	return b
}

// ParseAddress gives the name that an address stands for, relative to the base. It takes no address
// but a canonical one: another would come back as a different register.
func ParseAddress(address string) (DN, error) {
	if address == "" {
		return nil, wrong("the base itself has no address")
	}
	var d DN
	for seg := range strings.SplitSeq(address, Separator) {
		var r RDN
		for part := range strings.SplitSeq(seg, "+") {
			typ, value, ok := strings.Cut(part, "=")
			if !ok || !validType(typ) {
				return nil, wrong("%q is not attribute=value", short(part))
			}
			r = append(r, AVA{typ, unescape(value)})
		}
		d = append(d, r)
	}
	if canonical := string(d.appendAddress(nil)); canonical != address {
		return nil, wrong("a directory can't tell %q from %q", short(address), short(canonical))
	}
	return d, nil
}

// unescape resolves the percent-escapes of a value.
func unescape(v string) string {
	if strings.IndexByte(v, '%') < 0 {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if c, ok := escaped(v[i:]); ok {
			out = append(out, c)
			i += 2
			continue
		}
		out = append(out, v[i])
	}
	return string(out)
}

func escaped(s string) (byte, bool) {
	if len(s) < 3 || s[0] != '%' {
		return 0, false
	}
	hi, lo := strings.IndexByte(hexDigits, s[1]), strings.IndexByte(hexDigits, s[2])
	if hi < 0 || lo < 0 {
		return 0, false
	}
	return byte(hi<<4 | lo), true
}

// Canonical brings an address, or the text of a template, into the form of addresses. It takes the
// string form of names (RFC 4514), relative to the base, and addresses themselves. A word that stands
// for captured whole segments has no attribute: such are let through.
func Canonical(address string) (string, error) {
	if strings.TrimSpace(address) == "" {
		return "", wrong("the base itself has no address")
	}
	var b []byte
	for s, more := address, true; more; {
		if word := strings.TrimSpace(untilSeparator(s)); isWord(word) {
			b = append(b, word...)
			s, more = behind(s)
			if more {
				b = append(b, Separator...)
			}
			continue
		}
		var r RDN
		for {
			typ, value, end, err := parseAVA(percentToBackslash(s))
			if err != nil {
				return "", err
			}
			r = append(r, AVA{typ, value})
			rest := percentToBackslash(s)
			if end == len(rest) {
				s, more = "", false
				break
			}
			sep := rest[end]
			s = rest[end+1:]
			if sep != '+' {
				break
			}
		}
		b = DN{r}.appendAddress(b)
		if more {
			b = append(b, Separator...)
		}
	}
	return string(b), nil
}

// percentToBackslash writes the escapes of addresses as those of names. A '%' that begins none stands
// for itself.
func percentToBackslash(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := escaped(s[i:]); ok && (c == Separator[0] || strings.IndexByte(Forbidden, c) >= 0 || c == '~' || c == '.') {
			b.WriteByte('\\')
			b.WriteString(s[i+1 : i+3])
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func untilSeparator(s string) string {
	if i := strings.IndexAny(s, ",;"); i >= 0 {
		return s[:i]
	}
	return s
}

func behind(s string) (string, bool) {
	i := strings.IndexAny(s, ",;")
	if i < 0 {
		return "", false
	}
	return s[i+1:], true
}

// isWord tells the word that stands for a capture (wrappers.Syntax, Canonical).
func isWord(s string) bool {
	return len(s) > 6 && strings.HasPrefix(s, "qzc") && strings.HasSuffix(s, "czq") && strings.IndexByte(s, '=') < 0
}

// squash takes away spaces that make no difference (RFC 4518, section 2.6.1): at both ends, and all
// but one of several.
func squash(v string) string {
	if !strings.HasPrefix(v, " ") && !strings.HasSuffix(v, " ") && !strings.Contains(v, "  ") {
		return v
	}
	out := make([]byte, 0, len(v))
	for i := range len(v) {
		if v[i] == ' ' && (len(out) == 0 || out[len(out)-1] == ' ') {
			continue
		}
		out = append(out, v[i])
	}
	return strings.TrimSuffix(string(out), " ")
}

// fold gives letters of one kind, in such a way that what strings.EqualFold calls equal is the same.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		return unicode.ToLower(least)
	}, s)
}

// shortNames are the names of RFC 4514, section 3, for the long ones and the numbers of attributes that
// name entries.
var shortNames = map[string]string{
	"commonname": "cn", "2.5.4.3": "cn",
	"surname": "sn", "2.5.4.4": "sn",
	"countryname": "c", "2.5.4.6": "c",
	"localityname": "l", "2.5.4.7": "l",
	"stateorprovincename": "st", "2.5.4.8": "st",
	"streetaddress": "street", "2.5.4.9": "street",
	"organizationname": "o", "2.5.4.10": "o",
	"organizationalunitname": "ou", "2.5.4.11": "ou",
	"gn": "givenname", "2.5.4.42": "givenname",
	"userid": "uid", "0.9.2342.19200300.100.1.1": "uid",
	"domaincomponent": "dc", "0.9.2342.19200300.100.1.25": "dc",
	"rfc822mailbox": "mail", "0.9.2342.19200300.100.1.3": "mail",
}

// canonicalType is the short name of an attribute, in small letters.
func canonicalType(t string) string {
	low := true
	for i := range len(t) {
		if c := t[i]; c >= 'A' && c <= 'Z' {
			low = false
			break
		}
	}
	if !low {
		t = strings.ToLower(t)
	}
	if s, ok := shortNames[t]; ok {
		return s
	}
	return t
}
