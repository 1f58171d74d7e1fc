package pgsql

import "strings"

// A Catalog tells which tables there are.
type Catalog interface {
	// Find gives a table; without a schema the search path decides. Nil: there is none.
	Find(schema, table string) *Table
}

// A Table is what statements know of a table.
type Table struct {
	Schema, Name string
	OID          OID
	Columns      []Column
	Key          []int // columns that make a row's key
	Catalogue    bool  // of pg_catalog or information_schema: read only
}

// A Column is one of its columns.
type Column struct {
	Name    string
	Type    OID
	NotNull bool
}

// SQLName is the table's name inside of SQLite, which is given no schemas.
func (t *Table) SQLName() string { return quoteIdent(t.Schema + "." + t.Name) }

// Column finds a column by name, -1 if there is none.
func (t *Table) Column(name string) int {
	for i := range t.Columns {
		if t.Columns[i].Name == name {
			return i
		}
	}
	return -1
}

// A source is one item of FROM, as column references see it.
type source struct {
	alias string
	cols  []field
	table *Table // nil: derived
}

// A field is one column of a source.
type field struct {
	name  string
	typ   OID
	table OID
	attr  int
}

// A scope is what names mean at a place in a statement.
type scope struct {
	up      *scope
	sources []*source
	using   map[string]bool // columns that stand for those of two sources
	ctes    map[string][]field
	outs    []Result // of the SELECT, once known: ORDER BY may name them
	listed  bool     // its list is being read
	item    int      // the token with which an item of the list began
	sets    []string // SQLite: how many rows the functions in the list give that give some
}

func (s *scope) cte(name string) ([]field, bool) {
	for ; s != nil; s = s.up {
		if f, ok := s.ctes[name]; ok {
			return f, true
		}
	}
	return nil, false
}

func (s *scope) source(alias string) *source {
	for _, src := range s.sources {
		if src.alias == alias {
			return src
		}
	}
	return nil
}

func tableFields(t *Table) []field {
	fs := make([]field, len(t.Columns))
	for i, c := range t.Columns {
		fs[i] = field{c.Name, c.Type, t.OID, i + 1}
	}
	return fs
}

func (s *source) find(col string) *field {
	for i := range s.cols {
		if s.cols[i].name == col {
			return &s.cols[i]
		}
	}
	return nil
}

// column finds what a name of one part means; merged: it stands for the columns of two sources.
func (s *scope) column(name string) (src *source, f *field, merged bool, err error) {
	for ; s != nil; s = s.up {
		if s.using[name] {
			for _, src := range s.sources {
				if f := src.find(name); f != nil {
					return src, f, true, nil
				}
			}
		}
		var hit *source
		var at *field
		for _, src := range s.sources {
			if f := src.find(name); f != nil {
				if at != nil {
					return nil, nil, false, Errorf(AmbiguousColumn, "column reference \"%s\" is ambiguous", name)
				}
				hit, at = src, f
			}
		}
		if at != nil {
			return hit, at, false, nil
		}
	}
	return nil, nil, false, nil
}

func (s *scope) qualified(alias string) *source {
	for ; s != nil; s = s.up {
		if src := s.source(alias); src != nil {
			return src
		}
	}
	return nil
}

// quoteIdent quotes a name for SQLite.
func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// quoteText quotes a text for SQLite.
func quoteText(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// QuoteIdent and QuoteLiteral quote as PostgreSQL's quote_ident and quote_literal do.
func QuoteIdent(s string) string {
	plain := s != "" && !digit(s[0])
	for i := range len(s) {
		if c := s[i]; !(c == '_' || c >= 'a' && c <= 'z' || digit(c)) {
			plain = false
		}
	}
	if plain && !reserved[s] {
		return s
	}
	return quoteIdent(s)
}

// QuoteLiteral quotes a text as a literal.
func QuoteLiteral(s string) string { return quoteText(s) }

// reserved are the words that can't be an alias without AS or a column's name without quotes (PostgreSQL, appendix C).
var reserved = words(`all analyse analyze and any array as asc asymmetric authorization binary both case cast check collate collation
	column concurrently constraint create cross current_catalog current_date current_role current_schema current_time current_timestamp
	current_user default deferrable desc distinct do else end except false fetch for foreign freeze from full grant group having ilike in
	initially inner intersect into is isnull join lateral leading left like limit localtime localtimestamp natural not notnull null offset
	on only or order outer overlaps placing primary references returning right select session_user similar some symmetric table
	tablesample then to trailing true union unique user using variadic verbose when where window with`)

func words(s string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(s) {
		m[w] = true
	}
	return m
}
