package virtual

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A row's address is that of package sql: schema.table?column=value&column2=value, columns in the order of their names,
// written as in a form.

// addressOf gives the address of the row with these values. False: a part of its key is null or empty, which no address
// can say.
func (t *table) addressOf(row []pgsql.Value) (string, bool) {
	b := make([]byte, 0, 64)
	b = append(b, t.prefix...)
	for i, k := range t.keys {
		text := keyText(row[k.column], t.Columns[k.column].Type)
		if text == "" {
			return "", false
		}
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, k.escaped...)
		b = append(b, '=')
		b = appendQuery(b, text)
	}
	return string(b), true
}

// appendQuery is url.QueryEscape.
func appendQuery(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '~' {
			continue
		}
		return append(b, url.QueryEscape(s)...)
	}
	return append(b, s...)
}

// keyText is a key's value as it stands in an address.
func keyText(v pgsql.Value, o pgsql.OID) string {
	switch {
	case v.IsNull():
		return ""
	case o == pgsql.Timestamptz:
		if t, ok := pgsql.ParseTimeText(v.Str); ok {
			return t.UTC().Format(time.RFC3339Nano)
		}
	case o == pgsql.Bool:
		if v.Int != 0 {
			return "true"
		}
		return "false"
	case v.Kind == pgsql.Str || v.Kind == pgsql.Blob:
		return v.Str
	}
	return v.NumberText()
}

// parseKey puts the key of an address into a row. False: it is none of the table's, or its text is not how the value of
// a column would be written.
func (t *table) parseKey(address string, row []pgsql.Value) bool {
	rest, ok := strings.CutPrefix(address, t.prefix)
	if !ok {
		return false
	}
	n := 0
	for piece := range strings.SplitSeq(rest, "&") {
		name, value, _ := strings.Cut(piece, "=")
		i := slices.IndexFunc(t.keys, func(k keyColumn) bool { return k.escaped == name })
		if i < 0 {
			return false
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			return false
		}
		c := t.keys[i].column
		o := t.Columns[c].Type
		v, err := pgsql.ParseText(text, o, time.UTC)
		if err != nil || keyText(v, o) != text {
			return false
		}
		row[c] = v
		n++
	}
	return n == len(t.keys)
}
