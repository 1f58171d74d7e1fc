package virtual

import (
	"context"
	"hash/maphash"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
	"github.com/spooksystems/gateway/wrappers/sql/sqlrow"
)

var seed = maphash.MakeSeed()

// declaration is how SQLite is told of a table; types are what compares as the values do.
func declaration(t *pgsql.Table) string {
	var b strings.Builder
	b.WriteString("CREATE TABLE x(")
	for i, c := range t.Columns {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(`"` + strings.ReplaceAll(c.Name, `"`, `""`) + `" `)
		switch c.Type {
		case pgsql.Bool, pgsql.Int2, pgsql.Int4, pgsql.Int8, pgsql.Oid:
			b.WriteString("INTEGER")
		case pgsql.Numeric:
			b.WriteString("NUMERIC")
		case pgsql.Float4, pgsql.Float8:
			b.WriteString("REAL")
		case pgsql.Bytea:
			b.WriteString("BLOB")
		default:
			b.WriteString("TEXT")
		}
	}
	return b.String() + ")"
}

func (t *table) declaration() string {
	return strings.TrimSuffix(declaration(&t.Table), ")") + `, "` + pgsql.RowVersion + `" TEXT HIDDEN)`
}

// rowsTable is a table of registers.
type rowsTable struct {
	c *conn
	t *table
}

// BestIndex asks for what is known of the key: with all of it a row is read, with a part of it the rows that have it.
func (v *rowsTable) BestIndex(x *sqlite3.IndexInfo) error {
	mask, n := 0, 0
	for _, k := range x.Constraint {
		if !k.Usable || k.Op != sqlite3.INDEX_CONSTRAINT_EQ || k.Column < 0 || k.Column >= len(v.t.keys) || k.Column > 30 || mask&(1<<k.Column) != 0 {
			continue
		}
		mask |= 1 << k.Column
	}
	for col := range len(v.t.keys) {
		for i, k := range x.Constraint {
			if mask&(1<<col) != 0 && k.Usable && k.Op == sqlite3.INDEX_CONSTRAINT_EQ && k.Column == col {
				n++
				x.ConstraintUsage[i].ArgvIndex = n
				break
			}
		}
	}
	x.IdxNum = mask
	switch {
	case n == len(v.t.keys):
		x.EstimatedCost, x.EstimatedRows, x.IdxFlags = 2, 1, sqlite3.INDEX_SCAN_UNIQUE
	case n > 0:
		x.EstimatedCost, x.EstimatedRows = 2000, 500
	default:
		x.EstimatedCost, x.EstimatedRows = 1e6, 200_000
	}
	return nil
}

// Open implements sqlite3.VTab.
func (v *rowsTable) Open() (sqlite3.VTabCursor, error) { return &rowsCursor{v: v}, nil }

// rowsCursor runs over rows: those of the registers, with what the transaction has changed laid over them.
type rowsCursor struct {
	v     *rowsTable
	row   row
	one   bool
	eof   bool
	next  func() (wrappers.Item, error, bool)
	stop  func()
	known []pgsql.Value
	has   []bool
	own   []*change // of the transaction, not yet shown
	at    int
	buf   []pgsql.Value
	id    int64
}

// Close implements io.Closer.
func (k *rowsCursor) Close() error {
	if k.stop != nil {
		k.stop()
		k.stop, k.next = nil, nil
	}
	return nil
}

// Filter implements sqlite3.VTabCursor.
func (k *rowsCursor) Filter(mask int, _ string, args ...sqlite3.Value) error {
	k.Close()
	t, r := k.v.t, k.v.c.run
	k.eof, k.one, k.own, k.at = false, false, k.own[:0], 0
	if k.known == nil {
		k.known, k.has, k.buf = make([]pgsql.Value, len(t.Columns)), make([]bool, len(t.Columns)), make([]pgsql.Value, len(t.Columns))
	}
	clear(k.known)
	clear(k.has)
	n := 0
	for col := range t.keys {
		if mask&(1<<col) == 0 {
			continue
		}
		v, ok := keyValue(argValue(args[n]), t.Columns[col].Type)
		n++
		if !ok {
			k.eof = true // nothing of that kind can be in the column
			return nil
		}
		k.known[col], k.has[col] = v, true
	}
	if n == len(t.keys) {
		k.one = true
		address, ok := t.addressOf(k.known)
		if !ok {
			k.eof = true
			return nil
		}
		got, err := r.tx.get(r.ctx, t, address)
		if err != nil {
			return k.v.c.failed(err)
		}
		if k.eof = got == nil; !k.eof {
			k.row, k.id = *got, rowID(address)
		}
		return nil
	}
	for _, c := range r.tx.order {
		if c.table == t && !c.dead && c.row != nil && k.matches(c.row) {
			if err := r.tx.look(r.ctx, c); err != nil {
				return k.v.c.failed(err)
			}
			k.own = append(k.own, c)
		}
	}
	address := t.prefix
	for _, key := range t.keys {
		if k.has[key.column] {
			address = string(sqlrow.AppendEscapedKey([]byte(address), address == t.prefix, key.escaped, keyText(k.known[key.column], t.Columns[key.column].Type)))
		}
	}
	k.next, k.stop = iter.Pull2(r.tx.link.Scan(r.ctx, wrappers.Operation{Verb: wrappers.List, Address: address, Who: r.tx.who}))
	return k.Next()
}

// keyValue gives an argument the type of a key column.
func keyValue(v pgsql.Value, o pgsql.OID) (pgsql.Value, bool) {
	switch {
	case v.IsNull():
		return v, false
	case o == pgsql.Text || o == pgsql.Varchar:
		if v.Kind != pgsql.Str {
			return pgsql.StrValue(v.NumberText()), v.Kind != pgsql.Blob
		}
		return v, true
	case o == pgsql.Int8 || o == pgsql.Int4 || o == pgsql.Int2:
		if v.Kind == pgsql.Float && v.Flt != math.Trunc(v.Flt) {
			return v, false
		}
	case v.Kind == pgsql.Str && o != pgsql.Numeric:
		return v, true
	}
	c, err := pgsql.ParseText(v.NumberText(), o, time.UTC)
	return c, err == nil
}

func (k *rowsCursor) matches(values []pgsql.Value) bool {
	for i, has := range k.has {
		if has && values[i] != k.known[i] {
			return false
		}
	}
	return true
}

func rowID(address string) int64 { return int64(maphash.String(seed, address) >> 1) }

// Next implements sqlite3.VTabCursor.
func (k *rowsCursor) Next() error {
	if k.one {
		k.eof = true
		return nil
	}
	t, r := k.v.t, k.v.c.run
	for k.next != nil {
		item, err, ok := k.next()
		if !ok {
			k.Close()
			break
		}
		if err != nil {
			return k.v.c.failed(err)
		}
		if err := r.ctx.Err(); err != nil {
			return k.v.c.failed(context.Cause(r.ctx))
		}
		if c := r.tx.changes[item.Address]; c != nil && !c.dead {
			continue // shown with the transaction's own
		}
		clear(k.buf)
		if !t.parseKey(item.Address, k.buf) {
			r.tx.link.Count("unshowable", 1)
			continue
		}
		if !k.matches(k.buf) {
			continue
		}
		bad, err := t.decodeRow(item.Payload.Raw, k.buf)
		if err != nil {
			return k.v.c.failed(err)
		}
		if bad > 0 {
			r.tx.link.Count("unshowable", bad)
		}
		r.tx.saw(item.Address, item.Version)
		k.row, k.id = row{k.buf, item.Version}, rowID(item.Address)
		return nil
	}
	if k.at < len(k.own) {
		c := k.own[k.at]
		k.at++
		k.row, k.id = row{c.row, c.base}, rowID(c.address)
		return nil
	}
	k.eof = true
	return nil
}

// EOF implements sqlite3.VTabCursor.
func (k *rowsCursor) EOF() bool { return k.eof }

// Column implements sqlite3.VTabCursor.
func (k *rowsCursor) Column(ctx sqlite3.Context, n int) error {
	if n >= len(k.row.values) {
		ctx.ResultText(string(k.row.version))
		return nil
	}
	giveValue(ctx, k.row.values[n])
	return nil
}

// RowID implements sqlite3.VTabCursor.
func (k *rowsCursor) RowID() (int64, error) { return k.id, nil }

// catalogueTable is one of pg_catalog or information_schema.
type catalogueTable struct {
	c *conn
	s *schema
	t *catalogueEntry
}

// BestIndex implements sqlite3.VTab.
func (v *catalogueTable) BestIndex(x *sqlite3.IndexInfo) error {
	x.EstimatedCost, x.EstimatedRows = 200, 100
	return nil
}

// Open implements sqlite3.VTab.
func (v *catalogueTable) Open() (sqlite3.VTabCursor, error) { return &catalogueCursor{v: v}, nil }

type catalogueCursor struct {
	v    *catalogueTable
	rows [][]pgsql.Value
	at   int
}

// Filter implements sqlite3.VTabCursor.
func (k *catalogueCursor) Filter(int, string, ...sqlite3.Value) error {
	if k.rows == nil && k.v.t.rows != nil {
		k.rows = k.v.t.rows(k.v.s, k.v.c.run.session)
	}
	k.at = 0
	return nil
}

// Next implements sqlite3.VTabCursor.
func (k *catalogueCursor) Next() error { k.at++; return nil }

// EOF implements sqlite3.VTabCursor.
func (k *catalogueCursor) EOF() bool { return k.at >= len(k.rows) }

// Column implements sqlite3.VTabCursor.
func (k *catalogueCursor) Column(ctx sqlite3.Context, n int) error {
	if r := k.rows[k.at]; n < len(r) {
		giveValue(ctx, r[n])
	}
	return nil
}

// RowID implements sqlite3.VTabCursor.
func (k *catalogueCursor) RowID() (int64, error) { return int64(k.at + 1), nil }
