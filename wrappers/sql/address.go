package sql

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

// A row's address is its table and its key, in the form of package sqlrow: schema.table?column=value&column2=value.
var syntax = wrappers.Syntax{
	Separator: ".",
	Forbidden: "?\x00",
	Query:     true,
	Keys:      true,
	Canonical: canonical,
}

// publicSchema is where a table without a schema is looked for.
const publicSchema = "public"

// canonical brings an address, or the part of one before the key, into the form Operations carry.
func canonical(s string) (string, error) {
	table, query, keyed := strings.Cut(s, "?")
	switch n := strings.Count(table, "."); {
	case table == "" || strings.HasPrefix(table, ".") || strings.HasSuffix(table, "."):
		return "", errors.New("it names no table: schema.table is wanted")
	case n == 0:
		table = publicSchema + "." + table
	case n > 1:
		return "", fmt.Errorf("%q: schema.table is wanted; a '.' in a name is written %%2E", table)
	}
	if !keyed {
		return table, nil
	}
	key, err := parseKey(query)
	if err != nil {
		return "", err
	}
	return string(appendKey(append([]byte(table), '?'), key)), nil
}

// A keyColumn is one column of a row's key, with its value as text.
type keyColumn struct{ name, value string }

// parseKey reads the part of an address behind '?', and sorts it.
func parseKey(query string) ([]keyColumn, error) {
	var key []keyColumn
	for rest, more := query, true; more; {
		more = strings.IndexByte(rest, '&') >= 0
		name, value, behind, found := sqlrow.CutKey(rest)
		rest = behind
		var err error
		if name, err = sqlrow.Unescape(name); err == nil {
			value, err = sqlrow.Unescape(value)
		}
		if err != nil || !found || name == "" {
			return nil, fmt.Errorf("a key is written column=value&column2=value: %q", query)
		}
		key = append(key, keyColumn{name, value})
	}
	sortKey(key)
	for i := 1; i < len(key); i++ {
		if key[i-1].name == key[i].name {
			return nil, fmt.Errorf("the column %q stands there twice", key[i].name)
		}
	}
	return key, nil
}

func sortKey(key []keyColumn) {
	slices.SortFunc(key, func(a, b keyColumn) int { return strings.Compare(a.name, b.name) })
}

func appendKey(b []byte, key []keyColumn) []byte {
	for i, c := range key {
		b = sqlrow.AppendKey(b, i == 0, c.name, c.value)
	}
	return b
}

// A tableName is a table in its schema, as the catalogue has it.
type tableName struct{ schema, name string }

func (t tableName) String() string { return t.schema + "." + t.name }

// quoted is the table as it stands in a statement.
func (t tableName) quoted() string { return quoteIdent(t.schema) + "." + quoteIdent(t.name) }

// part is the table as it stands in an address.
func (t tableName) part() string {
	return sqlrow.EscapeName(t.schema) + "." + sqlrow.EscapeName(t.name)
}

// rowAddress gives the address of the row with a key, which is sorted by it.
func rowAddress(t tableName, key []keyColumn) string {
	sortKey(key)
	return string(appendKey(append([]byte(t.part()), '?'), key))
}

// parseAddress takes a row's canonical address apart.
func parseAddress(address string) (tableName, []keyColumn, error) {
	path, query, keyed := strings.Cut(address, "?")
	schema, name, ok := strings.Cut(path, ".")
	if !ok || !keyed {
		return tableName{}, nil, fmt.Errorf("%q is not the address of a row", address)
	}
	key, err := parseKey(query)
	return tableName{sqlrow.UnescapeName(schema), sqlrow.UnescapeName(name)}, key, err
}

func unescapeQuery(s string) string {
	if out, err := sqlrow.Unescape(s); err == nil {
		return out
	}
	return s
}

// quoteIdent makes a name an identifier of a statement.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteLiteral makes a text a constant of a statement (standard_conforming_strings).
func quoteLiteral(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
