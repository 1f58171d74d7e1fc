package sql

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// A table is what the server's catalogue says of one.
type table struct {
	name     tableName
	columns  []column
	identity byte       // replica identity: d, n, f, i
	old      []string   // columns of which a delete shows the old value
	unique   [][]string // columns of unique indexes
	refs     []tableName
}

type column struct {
	name     string
	oid      uint32 // of its type
	typ      colType
	readOnly bool // generated
	always   bool // GENERATED ALWAYS AS IDENTITY
}

func (t *table) column(name string) *column {
	for i := range t.columns {
		if t.columns[i].name == name {
			return &t.columns[i]
		}
	}
	return nil
}

// A catalog reads the server's catalogue over one session.
type catalog struct {
	conn  *pgconn.PgConn
	types map[uint32]colType
}

func newCatalog(c *pgconn.PgConn) *catalog { return &catalog{conn: c, types: map[uint32]colType{}} }

// typeOf gives what a type means: of a domain, its base; of an array, its elements.
func (c *catalog) typeOf(ctx context.Context, oid uint32) (colType, error) {
	if t, ok := builtin[oid]; ok {
		return t, nil
	}
	if t, ok := c.types[oid]; ok {
		return t, nil
	}
	rows, err := query(ctx, c.conn, fmt.Sprintf(
		"SELECT typtype, typbasetype, typelem, typcategory, typdelim FROM pg_catalog.pg_type WHERE oid = %d", oid))
	if err != nil {
		return colType{}, err
	}
	t := colType{}
	if len(rows) == 1 {
		r := rows[0]
		number := func(i int) uint32 {
			n, _ := strconv.ParseUint(r[i].text, 10, 32)
			return uint32(n)
		}
		switch {
		case r[0].text == "d":
			if t, err = c.typeOf(ctx, number(1)); err != nil {
				return t, err
			}
		case r[3].text == "A" && number(2) != 0:
			if t, err = c.typeOf(ctx, number(2)); err != nil {
				return t, err
			}
			t.array, t.delim = true, r[4].text[0]
		}
	}
	c.types[oid] = t
	return t, nil
}

// table reads a table; nil: there is none of that name.
func (c *catalog) table(ctx context.Context, name tableName) (*table, error) {
	rows, err := query(ctx, c.conn, fmt.Sprintf(`SELECT c.oid, c.relreplident, c.relkind FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p')`, quoteLiteral(name.schema), quoteLiteral(name.name)))
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	oid := rows[0][0].text
	t := &table{name: name, identity: rows[0][1].text[0]}
	rows, err = query(ctx, c.conn, `SELECT attname, atttypid, attgenerated, attidentity FROM pg_catalog.pg_attribute
		WHERE attrelid = `+oid+` AND attnum > 0 AND NOT attisdropped ORDER BY attnum`)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		typ, err := strconv.ParseUint(r[1].text, 10, 32)
		if err != nil {
			return nil, err
		}
		ct, err := c.typeOf(ctx, uint32(typ))
		if err != nil {
			return nil, err
		}
		t.columns = append(t.columns, column{name: r[0].text, oid: uint32(typ), typ: ct, readOnly: r[2].text != "", always: r[3].text == "a"})
	}
	rows, err = query(ctx, c.conn, `SELECT i.indisprimary, i.indisreplident, string_agg(a.attname, E'\n' ORDER BY k.n)
		FROM pg_catalog.pg_index i CROSS JOIN LATERAL unnest(i.indkey) WITH ORDINALITY AS k(attnum, n)
		JOIN pg_catalog.pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
		WHERE i.indrelid = `+oid+` AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND k.n <= i.indnkeyatts
		GROUP BY i.indexrelid, i.indisprimary, i.indisreplident`)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		columns := strings.Split(r[2].text, "\n")
		t.unique = append(t.unique, columns)
		if t.identity == 'd' && r[0].text == "t" || t.identity == 'i' && r[1].text == "t" {
			t.old = columns
		}
	}
	if t.identity == 'f' {
		for _, c := range t.columns {
			t.old = append(t.old, c.name)
		}
	}
	rows, err = query(ctx, c.conn, `SELECT DISTINCT n.nspname, c.relname FROM pg_catalog.pg_constraint k
		JOIN pg_catalog.pg_class c ON c.oid = k.confrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE k.conrelid = `+oid+` AND k.contype = 'f'`)
	if err != nil {
		return nil, err
	}
	for _, r := range rows {
		t.refs = append(t.refs, tableName{r[0].text, r[1].text})
	}
	return t, nil
}

// names lists the tables of all schemas that are not the server's own.
func (c *catalog) names(ctx context.Context) ([]tableName, error) {
	rows, err := query(ctx, c.conn, `SELECT n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2`)
	if err != nil {
		return nil, err
	}
	var out []tableName
	for _, r := range rows {
		out = append(out, tableName{r[0].text, r[1].text})
	}
	return out, nil
}

// fits says why rows of the table can't be followed by a key; "" if they can. The answer names
// the statement that helps.
func (t *table) fits(key []string) string {
	if why := t.apart(key); why != "" {
		return why
	}
	for _, k := range key {
		if !slices.Contains(t.old, k) {
			return fmt.Sprintf("a delete in %s would not show the column %q, which the key of a bind is made of. Run: ALTER TABLE %s REPLICA IDENTITY FULL", t.name, k, t.name.quoted())
		}
	}
	return ""
}

// apart says why rows of the table can't be told apart by a key; "" if they can.
func (t *table) apart(key []string) string {
	for _, k := range key {
		if t.column(k) == nil {
			return fmt.Sprintf("%s has no column %q, which the key of a bind is made of", t.name, k)
		}
	}
	quoted := make([]string, len(key))
	for i, k := range key {
		quoted[i] = quoteIdent(k)
	}
	within := func(columns []string) bool {
		return !slices.ContainsFunc(columns, func(c string) bool { return !slices.Contains(key, c) })
	}
	if !slices.ContainsFunc(t.unique, within) {
		return fmt.Sprintf("nothing keeps two rows of %s from having one key. Run: ALTER TABLE %s ADD PRIMARY KEY (%s)", t.name, t.name.quoted(), strings.Join(quoted, ", "))
	}
	return ""
}
