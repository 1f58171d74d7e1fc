package sql

import (
	"context"
	"fmt"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
)

// An asker reads single rows, for write-back.
type asker struct {
	mu   sync.Mutex
	conn *pgconn.PgConn
	cat  *catalog
}

// ask tells what the server has at a change's address, and settles it.
func (d *database) ask(ctx context.Context, c wrappers.Change) {
	version, err := d.askOne(ctx, c.Address)
	if err != nil {
		d.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Retry, Err: err})
		return
	}
	d.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done, Version: version})
}

func (d *database) askOne(ctx context.Context, address string) (version wrappers.Version, err error) {
	a := &d.asker
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn == nil || a.conn.IsClosed() {
		conn, err := d.w.connect(ctx, "read-back", nil)
		if err != nil {
			return "", err
		}
		a.conn, a.cat = conn, newCatalog(conn)
	}
	name, key, err := parseAddress(address)
	if err != nil {
		return "", err
	}
	table, err := a.cat.table(ctx, name)
	if err != nil {
		return "", err
	}
	if table == nil {
		return "", fmt.Errorf("there is no table %s in the database", name)
	}
	f := &feed{d: d, catalog: a.cat, binds: readBinds(d.link)}
	rel, err := f.relation(ctx, describe(table))
	if err != nil {
		return "", err
	}
	list := "xmin::text"
	for _, col := range table.columns {
		list += ", " + quoteIdent(col.name)
	}
	sql, args := "SELECT "+list+" FROM "+name.quoted(), [][]byte(nil)
	sql += where(key, &args)
	result := a.conn.ExecParams(ctx, sql, args, nil, nil, nil).Read()
	if result.Err != nil {
		return "", result.Err
	}
	if len(result.Rows) == 0 {
		return absentState, d.seen(ctx, wrappers.Position{}, []wrappers.Observation{{Verb: wrappers.Delete, Address: address, Keep: []wrappers.Record{{Key: rowKey + address}}}})
	}
	values := result.Rows[0]
	row := make(tuple, len(values)-1)
	for i, v := range values[1:] {
		row[i] = cell{kind: cellText, text: v}
		if v == nil {
			row[i] = cell{kind: cellNull}
		}
	}
	f.tx.version = wrappers.Version(values[0])
	if err := f.show(rel, "", address, row, true); err != nil {
		return "", err
	}
	return f.tx.version, d.seen(ctx, wrappers.Position{}, f.batch)
}

func (a *asker) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.conn != nil {
		closeConn(a.conn)
	}
}
