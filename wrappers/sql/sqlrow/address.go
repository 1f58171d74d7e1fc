package sqlrow

import (
	"fmt"
	"net/url"
	"strings"
)

// A row's address is its table and its key: schema.table?column=value&column2=value, columns in the order of their names,
// names and values as in a form (space is '+', what could be read as something else is percent-escaped).

// nameEscapes are the bytes that stand for something else in the part of an address before '?'.
const nameEscapes = ".?\x00"

// EscapeName writes the name of a schema or table as a captured segment is written: what is forbidden there is escaped,
// and so is a '%' that could be read as an escape.
func EscapeName(s string) string {
	if !strings.ContainsAny(s, nameEscapes+"%") {
		return s
	}
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if strings.IndexByte(nameEscapes, c) >= 0 || c == '%' && i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]) {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// UnescapeName reads what EscapeName wrote.
func UnescapeName(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	if out, err := url.PathUnescape(s); err == nil {
		return out
	}
	return s
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// AppendKey writes one column of a key, behind those before it. first: there are none.
func AppendKey(b []byte, first bool, name, value string) []byte {
	return AppendEscapedKey(b, first, url.QueryEscape(name), value)
}

// AppendEscapedKey is AppendKey for a name that is escaped already.
func AppendEscapedKey(b []byte, first bool, name, value string) []byte {
	if !first {
		b = append(b, '&')
	}
	b = append(b, name...)
	b = append(b, '=')
	for i := range len(value) {
		if c := value[i]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			continue
		}
		return append(b, url.QueryEscape(value)...)
	}
	return append(b, value...)
}

// CutKey takes the first column from a key. They are escaped yet. found: it had a value, though it may be empty.
func CutKey(key string) (name, value, rest string, found bool) {
	piece, rest, _ := strings.Cut(key, "&")
	name, value, found = strings.Cut(piece, "=")
	return name, value, rest, found
}

// Unescape reads a name or value of a key.
func Unescape(s string) (string, error) {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s, nil
	}
	return url.QueryUnescape(s)
}
