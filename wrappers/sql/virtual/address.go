package virtual

import (
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

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
		b = sqlrow.AppendEscapedKey(b, i == 0, k.escaped, text)
	}
	return string(b), true
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
	for rest != "" {
		var name, value string
		name, value, rest, _ = sqlrow.CutKey(rest)
		i := slices.IndexFunc(t.keys, func(k keyColumn) bool { return k.escaped == name })
		if i < 0 {
			return false
		}
		text, err := sqlrow.Unescape(value)
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
