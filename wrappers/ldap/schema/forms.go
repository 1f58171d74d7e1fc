package schema

import (
	"crypto/x509"
	"encoding/hex"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// Normal forms of values, one function for each family of matching rules (RFC 4517, section 4.2).

func octets(_ *Schema, v []byte, _ piece) (string, bool) { return string(v), true }

func text(fold bool) func(*Schema, []byte, piece) (string, bool) {
	return func(_ *Schema, v []byte, p piece) (string, bool) {
		s, ok := mapped(v, fold)
		if !ok {
			return "", false
		}
		return spaced(s, p), true
	}
}

func ia5(fold bool) func(*Schema, []byte, piece) (string, bool) {
	inner := text(fold)
	return func(s *Schema, v []byte, p piece) (string, bool) {
		if !isASCII(v) {
			return "", false
		}
		return inner(s, v, p)
	}
}

func isASCII(v []byte) bool {
	for _, c := range v {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func numericForm(_ *Schema, v []byte, _ piece) (string, bool) {
	for _, c := range v {
		if (c < '0' || c > '9') && c != ' ' {
			return "", false
		}
	}
	return without(string(v), blank), true
}

func telephoneForm(_ *Schema, v []byte, _ piece) (string, bool) {
	s, ok := mapped(v, true)
	if !ok {
		return "", false
	}
	return without(s, func(r rune) bool { return blank(r) || hyphen(r) }), true
}

func booleanForm(_ *Schema, v []byte, _ piece) (string, bool) {
	switch strings.ToUpper(string(v)) {
	case "TRUE":
		return "TRUE", true
	case "FALSE":
		return "FALSE", true
	}
	return "", false
}

// integerForm orders as numbers do: a sign, the number of digits, the digits; those of negative numbers count down.
func integerForm(_ *Schema, v []byte, _ piece) (string, bool) {
	digits := strings.TrimSpace(string(v))
	negative := strings.HasPrefix(digits, "-")
	if negative {
		digits = digits[1:]
	}
	if digits == "" || len(digits) > maxDigits {
		return "", false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return "", false
		}
	}
	digits = strings.TrimLeft(digits, "0")
	n := len(digits)
	if n == 0 {
		return "1\x00\x00", true
	}
	if !negative {
		return "1" + string([]byte{byte(n >> 8), byte(n)}) + digits, true
	}
	b := make([]byte, 3, n+3)
	b[0], b[1], b[2] = '0', ^byte(n>>8), ^byte(n)
	for i := range n {
		b = append(b, '9'-digits[i]+'0')
	}
	return string(b), true
}

// maxDigits bounds integers; syntax and rule have none.
const maxDigits = 4096

// Integer gives a value's number.
func Integer(v []byte) (*big.Int, bool) {
	s := strings.TrimSpace(string(v))
	if len(s) > maxDigits {
		return nil, false
	}
	n, ok := new(big.Int).SetString(s, 10)
	return n, ok && !strings.HasPrefix(s, "+")
}

// Bits holds the bits of a stored integer against those of an assertion, as the rules of Microsoft do: all of them, or any.
func (r *MatchingRule) Bits(stored, assertion []byte) (match, ok bool) {
	a, err1 := strconv.ParseInt(strings.TrimSpace(string(stored)), 10, 64)
	b, err2 := strconv.ParseInt(strings.TrimSpace(string(assertion)), 10, 64)
	if err1 != nil || err2 != nil {
		return false, false
	}
	if r.Kind == BitAnd {
		return a&b == b, true
	}
	return a&b != 0, true
}

// bitStringForm is the bits; trailing zeros count, since no attribute here has named bits (RFC 4517, section 4.2.1).
func bitStringForm(_ *Schema, v []byte, _ piece) (string, bool) {
	s := string(v)
	if len(s) < 3 || s[0] != '\'' || !strings.HasSuffix(s, "'B") || strings.Trim(s[1:len(s)-2], "01") != "" {
		return "", false
	}
	return s[1 : len(s)-2], true
}

// timeForm is the moment in UTC, without trailing zeros of the fraction, so that the text orders as time does.
func timeForm(_ *Schema, v []byte, _ piece) (string, bool) {
	t, ok := GeneralizedTime(v)
	if !ok {
		return "", false
	}
	return strings.TrimSuffix(strings.TrimRight(t.UTC().Format("20060102150405.000000000"), "0"), "."), true
}

// GeneralizedTime reads a value of that syntax (RFC 4517, section 3.3.13): minutes, seconds and a fraction of the last one
// given may be there; a time zone must.
func GeneralizedTime(v []byte) (time.Time, bool) {
	s := string(v)
	if len(s) > 64 {
		return time.Time{}, false
	}
	zone := time.UTC
	switch i := strings.IndexAny(s, "+-"); {
	case strings.HasSuffix(s, "Z"):
		s = s[:len(s)-1]
	case i > 0:
		sign := 1
		if s[i] == '-' {
			sign = -1
		}
		off := s[i+1:]
		if len(off) != 2 && len(off) != 4 {
			return time.Time{}, false
		}
		h, ok1 := digits(off[:2])
		m, ok2 := digits(off[2:])
		if !ok1 || !ok2 || h > 23 || m > 59 {
			return time.Time{}, false
		}
		zone = time.FixedZone("", sign*(h*3600+m*60))
		s = s[:i]
	default:
		return time.Time{}, false
	}
	var fraction float64
	if i := strings.IndexAny(s, ".,"); i >= 0 {
		f := s[i+1:]
		if _, ok := digits(f); !ok || f == "" || len(f) > 18 {
			return time.Time{}, false
		}
		fraction, _ = strconv.ParseFloat("0."+f, 64)
		s = s[:i]
	}
	unit := time.Second
	switch len(s) {
	case 10:
		unit = time.Hour
		s += "0000"
	case 12:
		unit = time.Minute
		s += "00"
	case 14:
	default:
		return time.Time{}, false
	}
	if _, ok := digits(s); !ok {
		return time.Time{}, false
	}
	leap := strings.HasSuffix(s, "60")
	if leap { // a leap second
		s = s[:12] + "59"
	}
	t, err := time.ParseInLocation("20060102150405", s, zone)
	if err != nil {
		return time.Time{}, false
	}
	if leap {
		t = t.Add(time.Second)
	}
	return t.Add(time.Duration(fraction * float64(unit)).Round(time.Nanosecond)), true
}

// digits reads a number of nothing but digits; "" is 0.
func digits(s string) (int, bool) {
	n := 0
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

// oidForm is the numeric OID of what the schema knows, else the name in lower case.
func oidForm(s *Schema, v []byte, _ piece) (string, bool) {
	name := strings.TrimSpace(string(v))
	if !isOID(name) {
		return "", false
	}
	if s != nil {
		if c := s.Class(name); c != nil {
			return lower(c.OID), true
		}
		if a := s.Attribute(name); a != nil {
			return lower(a.OID), true
		}
	}
	if r := Rule(name); r != nil {
		return r.OID, true
	}
	return lower(name), true
}

// isOID: numericoid or descr (RFC 4512, section 1.4). Underscores pass: Active Directory has them.
func isOID(s string) bool {
	if s == "" {
		return false
	}
	if s[0] >= '0' && s[0] <= '9' {
		for arc := range strings.SplitSeq(s, ".") {
			if _, ok := digits(arc); !ok || arc == "" || len(arc) > 1 && arc[0] == '0' {
				return false
			}
		}
		return true
	}
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || (c < '0' || c > '9') && c != '-' && c != '_') {
			return false
		}
	}
	return true
}

func firstOf(v []byte) (string, bool) {
	t := &tokens{text: string(v)}
	if p, _ := t.next(); p != "(" {
		return "", false
	}
	w, _ := t.next()
	return w, w != "" && t.err == nil
}

func firstOID(s *Schema, v []byte) (string, bool) {
	w, ok := firstOf(v)
	if !ok {
		return "", false
	}
	return oidForm(s, []byte(w), whole)
}

func firstInteger(s *Schema, v []byte) (string, bool) {
	w, ok := firstOf(v)
	if !ok {
		return "", false
	}
	return integerForm(s, []byte(w), whole)
}

func firstWord(s *Schema, v []byte) (string, bool) {
	w, ok := firstOf(v)
	if !ok {
		return "", false
	}
	return text(true)(s, []byte(w), whole)
}

func uuidForm(_ *Schema, v []byte, _ piece) (string, bool) {
	if len(v) == 16 { // some clients assert the octets
		return string(v), true
	}
	s := string(v)
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return "", false
	}
	raw, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	return string(raw), err == nil
}

// lines splits a postal address (RFC 4517, section 3.3.28).
func lines(v []byte) []string {
	parts := strings.Split(string(v), "$")
	for i, p := range parts {
		if strings.Contains(p, `\`) {
			parts[i] = strings.NewReplacer(`\24`, "$", `\5C`, `\`, `\5c`, `\`).Replace(p)
		}
	}
	return parts
}

// lineEnd stands between the lines of a list's normal form: no prepared string has it.
const lineEnd = "\x00"

func listForm(s *Schema, v []byte, _ piece) (string, bool) {
	parts := lines(v)
	for i, p := range parts {
		k, ok := text(true)(s, []byte(p), whole)
		if !ok {
			return "", false
		}
		parts[i] = k
	}
	return strings.Join(parts, lineEnd), true
}

func listKey(s *Schema, v []byte) (string, bool) { return listForm(s, v, whole) }

// listPartForm: no part of an assertion spans lines (RFC 4517, section 4.2.18).
func listPartForm(s *Schema, v []byte, p piece) (string, bool) { return text(true)(s, v, p) }

// uidForm is a DN and what may stand behind it, a bit string (RFC 4517, section 3.3.21).
func uidForm(s *Schema, v []byte, _ piece) (string, bool) {
	name, bits := string(v), ""
	if i := strings.LastIndexByte(name, '#'); i >= 0 {
		if b, ok := bitStringForm(s, []byte(name[i+1:]), whole); ok {
			name, bits = name[:i], "#"+b
		}
	}
	k, ok := dnForm(s, []byte(name), whole)
	return k + bits, ok
}

// certificateForm is serial number and issuer: of a certificate itself, or as RFC 4523, section 2.5 asserts them, in the form
// `{ serialNumber 1, issuer rdnSequence:"cn=ca" }`.
func certificateForm(s *Schema, v []byte, _ piece) (string, bool) {
	if cert, err := x509.ParseCertificate(v); err == nil {
		issuer, ok := dnForm(s, []byte(cert.Issuer.String()), whole)
		return cert.SerialNumber.String() + "$" + issuer, ok
	}
	t := string(v)
	if !strings.HasPrefix(t, "{") || !strings.HasSuffix(t, "}") {
		return "", false
	}
	_, rest, ok := strings.Cut(t, "serialNumber")
	if !ok {
		return "", false
	}
	number, _, _ := strings.Cut(strings.TrimSpace(rest), ",")
	n, ok := Integer([]byte(strings.TrimSpace(strings.TrimSuffix(number, "}"))))
	if !ok {
		return "", false
	}
	_, name, ok := strings.Cut(t, `rdnSequence:"`)
	if !ok {
		return "", false
	}
	end := strings.LastIndexByte(name, '"')
	if end < 0 {
		return "", false
	}
	issuer, ok := dnForm(s, []byte(strings.ReplaceAll(name[:end], `""`, `"`)), whole)
	return n.String() + "$" + issuer, ok
}
