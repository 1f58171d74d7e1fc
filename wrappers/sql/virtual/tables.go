package virtual

import (
	"fmt"
	"hash/fnv"
	"net/url"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

// A table is one that binds make of registers.
type table struct {
	pgsql.Table
	prefix string // of its rows' addresses: "public.sensors?"
	keys   []keyColumn
	in     []bool // columns that may be written
	inAny  bool
}

// A keyColumn is a column of the key, in the order of addresses.
type keyColumn struct {
	column  int
	escaped string
}

func (t *table) isKey(column int) bool { return column < len(t.keys) }

// A schema is all tables as the binds in force have them. It does not change.
type schema struct {
	tables []*table
	byName map[[2]string]*pgsql.Table
	byOID  map[pgsql.OID]*table
}

// typeOfMember gives the type of a column that holds a field's type.
var typeOfMember = map[string]pgsql.OID{
	"string": pgsql.Text, "number": pgsql.Numeric, "bool": pgsql.Bool, "bytes": pgsql.Bytea, "time": pgsql.Timestamptz,
}

// ColumnsOption is the attribute of a bind that names the columns of a virtual server's table.
const ColumnsOption = "columns"

// ParseColumns reads entries like "value numeric".
func ParseColumns(entries []string) ([]pgsql.Column, error) {
	var out []pgsql.Column
	for _, e := range entries {
		name, kind, ok := strings.Cut(strings.TrimSpace(e), " ")
		kind = strings.TrimSpace(kind)
		o, known := pgsql.TypeNamed(kind)
		switch {
		case !ok || name == "":
			return nil, fmt.Errorf("%q: a column is written as name and type: \"value numeric\"", e)
		case !known || !columnTypes[o]:
			return nil, fmt.Errorf("%q: the types are text, numeric, int2, int4, int8, float4, float8, bool, bytea, timestamptz, date, uuid and jsonb", e)
		case slices.ContainsFunc(out, func(c pgsql.Column) bool { return strings.EqualFold(c.Name, name) }):
			return nil, fmt.Errorf("%q: the column stands there twice", e)
		}
		out = append(out, pgsql.Column{Name: name, Type: o})
	}
	return out, nil
}

var columnTypes = map[pgsql.OID]bool{
	pgsql.Text: true, pgsql.Varchar: true, pgsql.Numeric: true, pgsql.Int2: true, pgsql.Int4: true, pgsql.Int8: true, pgsql.Float4: true,
	pgsql.Float8: true, pgsql.Bool: true, pgsql.Bytea: true, pgsql.Timestamptz: true, pgsql.Date: true, pgsql.UUID: true, pgsql.JSONB: true,
}

// tablesOf makes tables of the binds in force. What can't be one is told to complain.
func tablesOf(patterns []wrappers.Pattern, complain func(table, why string)) *schema {
	s := &schema{byName: map[[2]string]*pgsql.Table{}, byOID: map[pgsql.OID]*table{}}
	type member struct {
		wrappers.Member
		typ pgsql.OID
	}
	type draft struct {
		schema, name string
		keys         []string
		members      []member
	}
	var drafts []*draft
	for i := range patterns {
		p := &patterns[i]
		var parts []string
		for _, seg := range p.Segments {
			if seg.Kind == wrappers.LiteralSegment {
				parts = append(parts, seg.Literal)
			}
		}
		full := strings.Join(parts, ".")
		if len(parts) != 2 || len(p.Segments) != 2 {
			complain(full+p.Suffix, "a table of a virtual server has a name without captures: schema.table")
			continue
		}
		named, err := ParseColumns(p.Options.Strings(ColumnsOption))
		if err != nil {
			complain(full, err.Error())
			continue
		}
		var keys []string
		var members []member
		for _, m := range p.Members {
			o, ok := typeOfMember[m.Type]
			if !ok {
				o = pgsql.JSONB
			}
			j := slices.IndexFunc(named, func(c pgsql.Column) bool { return c.Name == m.Name })
			if j >= 0 {
				o = named[j].Type
			} else if len(named) > 0 && !m.Key {
				continue
			}
			if m.Key {
				keys = append(keys, m.Name)
			}
			members = append(members, member{m, o})
		}
		for _, c := range named {
			if !slices.ContainsFunc(members, func(m member) bool { return m.Name == c.Name }) {
				if !p.Open {
					complain(full, fmt.Sprintf("no bind maps the column %q", c.Name))
					continue
				}
				members = append(members, member{wrappers.Member{Name: c.Name, In: p.In, Out: p.Out}, c.Type})
			}
		}
		if p.Open && len(named) == 0 {
			complain(full, "the register is open, and a table has columns: name them, as in columns = [\"value numeric\"]")
		}
		slices.Sort(keys)
		if len(named) > 0 { // in the order they were named in
			place := func(m member) int {
				return slices.IndexFunc(named, func(c pgsql.Column) bool { return c.Name == m.Name })
			}
			slices.SortStableFunc(members, func(a, b member) int { return place(a) - place(b) })
		}
		d := &draft{schema: parts[0], name: parts[1], keys: keys}
		if j := slices.IndexFunc(drafts, func(o *draft) bool { return o.schema == d.schema && o.name == d.name }); j >= 0 {
			d = drafts[j]
			if !slices.Equal(d.keys, keys) {
				complain(full, "its binds have different keys")
				continue
			}
		} else {
			drafts = append(drafts, d)
		}
		for _, m := range members {
			j := slices.IndexFunc(d.members, func(o member) bool { return strings.EqualFold(o.Name, m.Name) })
			switch {
			case j < 0:
				d.members = append(d.members, m)
			case d.members[j].Name != m.Name:
				complain(full, fmt.Sprintf("the columns %q and %q differ in case only", d.members[j].Name, m.Name))
			default:
				o := &d.members[j]
				o.In, o.Out = o.In || m.In, o.Out || m.Out
			}
		}
	}
	for _, d := range drafts {
		if d.schema == "pg_catalog" || d.schema == "information_schema" {
			complain(d.schema+"."+d.name, "the schema belongs to the catalogue")
			continue
		}
		t := &table{prefix: sqlrow.EscapeName(d.schema) + "." + sqlrow.EscapeName(d.name) + "?"}
		t.Schema, t.Name, t.OID = d.schema, d.name, oidOf(d.schema+"."+d.name)
		for s.byOID[t.OID] != nil {
			t.OID++
		}
		add := func(m member) {
			t.Columns = append(t.Columns, pgsql.Column{Name: m.Name, Type: m.typ, NotNull: m.Key})
			t.in = append(t.in, m.In || m.Key)
			t.inAny = t.inAny || m.In
		}
		for i, k := range d.keys {
			add(d.members[slices.IndexFunc(d.members, func(m member) bool { return m.Name == k })])
			t.keys = append(t.keys, keyColumn{i, url.QueryEscape(k)})
			t.Key = append(t.Key, i)
		}
		for _, m := range d.members {
			if !m.Key {
				add(m)
			}
		}
		s.tables = append(s.tables, t)
		s.byOID[t.OID] = t
		s.byName[[2]string{t.Schema, t.Name}] = &t.Table
	}
	slices.SortFunc(s.tables, func(a, b *table) int { return strings.Compare(a.Schema+"."+a.Name, b.Schema+"."+b.Name) })
	for i := range catalogue {
		c := &catalogue[i]
		s.byName[[2]string{c.Schema, c.Name}] = &c.Table
	}
	return s
}

// oidOf gives a table an OID that stays: the name's own, above those of the system.
func oidOf(name string) pgsql.OID {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return pgsql.OID(h.Sum32()&0x3fffffff | 0x4000000)
}

// finder is the schema as one session's search path sees it.
type finder struct {
	schema *schema
	path   []string
}

// Find implements pgsql.Catalog.
func (f finder) Find(schema, name string) *pgsql.Table {
	if schema != "" {
		return f.schema.byName[[2]string{schema, name}]
	}
	if t := f.schema.byName[[2]string{"pg_catalog", name}]; t != nil {
		return t
	}
	for _, s := range f.path {
		if t := f.schema.byName[[2]string{s, name}]; t != nil {
			return t
		}
	}
	return nil
}

// rows gives the table behind one that a statement names.
func (s *schema) rows(t *pgsql.Table) *table { return s.byOID[t.OID] }
