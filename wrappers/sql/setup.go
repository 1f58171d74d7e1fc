package sql

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
)

// A copied is the record of a table that was copied.
type copied struct {
	Since string // place in the log as of which the copy is
	Binds string // what they meant
}

// feedOnce sets the feed up and runs it until something ends it.
func (d *database) feedOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := d.w.connect(ctx, "feed", map[string]string{"replication": "database"})
	if err != nil {
		if code := sqlState(err); code == "42501" || code == "28000" {
			err = fmt.Errorf("%w. Run: ALTER ROLE %s REPLICATION", err, quoteIdent(d.w.cfg.Upstreams[0].User))
		}
		return err
	}
	defer closeConn(conn)
	side, err := d.w.connect(ctx, "catalogue", nil)
	if err != nil {
		return err
	}
	defer closeConn(side)
	f := &feed{d: d, conn: conn, catalog: newCatalog(side), binds: readBinds(d.link), since: map[tableName]lsn{}, rels: map[uint32]*relation{}}
	d.watch.Store(f.binds.watch())
	if err := d.able(ctx, side); err != nil {
		return err
	}
	if d.w.sync && d.w.cfg.Relay() {
		pure, err := readHarmless(ctx, side)
		if err != nil {
			return err
		}
		d.pure.Store(&pure)
	}
	if err := d.mayAll(ctx, side); err != nil {
		return err
	}
	tables, awaited, err := d.followed(ctx, f)
	if err != nil {
		return err
	}
	if err := d.publication(ctx, side, tables); err != nil {
		return err
	}
	fresh, err := d.ensureSlot(ctx, conn, side)
	if err != nil {
		return err
	}
	if f.at, err = d.lastPosition(ctx, fresh); err != nil {
		return err
	}
	if err := d.copyTables(ctx, f, tables, fresh); err != nil {
		return err
	}
	// The side session is the feed's; what looks for changes has one of its own.
	go d.lookOut(ctx, cancel, f.binds, awaited)
	err = f.run(ctx, f.at.commit)
	if cause := context.Cause(ctx); cause != nil && ctx.Err() != nil {
		return cause
	}
	return err
}

// able says what the server or the role lacks, and the statement that helps.
func (d *database) able(ctx context.Context, c *pgconn.PgConn) error {
	r, err := one(ctx, c, `SELECT current_setting('server_version_num'), current_setting('wal_level'), r.rolreplication OR r.rolsuper,
		current_setting('max_slot_wal_keep_size'), pg_catalog.pg_is_in_recovery() FROM pg_catalog.pg_roles r WHERE r.rolname = current_user`)
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(r[0].text)
	switch {
	case err != nil:
		return err
	case version < 140000:
		return fmt.Errorf("the server is of version %d: logical replication with messages begins with PostgreSQL 14", version/10000)
	case r[4].text == "t":
		return fmt.Errorf("the server is a standby: the feed and what is written back need the primary")
	case r[1].text != "logical":
		return fmt.Errorf("the server's log does not hold rows (wal_level = %s). Run: ALTER SYSTEM SET wal_level = logical; and restart the server", r[1].text)
	case r[2].text != "t":
		return fmt.Errorf("the role may not replicate. Run: ALTER ROLE %s REPLICATION", quoteIdent(d.w.cfg.Upstreams[0].User))
	}
	text := ""
	if r[3].text == "-1" {
		text = "while the gateway is away the server keeps its log for it without a bound, and may fill its disk. Run: ALTER SYSTEM SET max_slot_wal_keep_size = '10GB'; SELECT pg_reload_conf()"
		d.mu.Lock()
		said := d.troubles[aboutKept] != ""
		d.troubles[aboutKept] = text
		d.mu.Unlock()
		if !said {
			d.log.Warn(text)
		}
	}
	d.link.Trouble(aboutKept, text)
	return nil
}

// followed are the mapped tables that can be followed; awaited: those that can't as they are.
func (d *database) followed(ctx context.Context, f *feed) (tables []*table, awaited []tableName, err error) {
	names, err := f.binds.tables(ctx, f.catalog)
	if err != nil {
		return nil, nil, err
	}
	d.unmapped(names)
	for _, name := range names {
		t, err := f.catalog.table(ctx, name)
		if err != nil {
			return nil, nil, err
		}
		why := ""
		if t == nil {
			why = "there is no such table"
		} else {
			for _, s := range f.binds.shapesOf(name) {
				if why == "" {
					why = d.fits(t, s.key)
				}
			}
		}
		if why != "" {
			d.trouble(name, why)
			awaited = append(awaited, name)
			continue
		}
		d.well(name)
		tables = append(tables, t)
	}
	return tables, awaited, nil
}

// fits says what keeps a table from being followed, the way that it is.
func (d *database) fits(t *table, key []string) string {
	if d.notice != nil {
		return t.apart(key)
	}
	return t.fits(key)
}

// unmapped takes back what was said of tables that are not mapped any more.
func (d *database) unmapped(names []tableName) {
	d.mu.Lock()
	var gone []string
	for about := range d.troubles {
		if strings.Contains(about, ".") && !slices.ContainsFunc(names, func(t tableName) bool { return t.String() == about }) {
			gone = append(gone, about)
			delete(d.troubles, about)
		}
	}
	d.mu.Unlock()
	for _, about := range gone {
		d.link.Trouble(about, "")
	}
}

// publication has the server publish exactly these tables.
func (d *database) publication(ctx context.Context, c *pgconn.PgConn, tables []*table) error {
	name := d.w.slot
	rows, err := query(ctx, c, `SELECT n.nspname, c.relname FROM pg_catalog.pg_publication p JOIN pg_catalog.pg_publication_rel r ON r.prpubid = p.oid
		JOIN pg_catalog.pg_class c ON c.oid = r.prrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = `+quoteLiteral(name))
	if err != nil {
		return err
	}
	var have, want []string
	for _, r := range rows {
		have = append(have, tableName{r[0].text, r[1].text}.quoted())
	}
	for _, t := range tables {
		want = append(want, t.name.quoted())
	}
	slices.Sort(have)
	slices.Sort(want)
	there, err := query(ctx, c, "SELECT 1 FROM pg_catalog.pg_publication WHERE pubname = "+quoteLiteral(name))
	if err != nil {
		return err
	}
	var statements []string
	switch list := strings.Join(want, ", "); {
	case len(there) == 0:
		s := "CREATE PUBLICATION " + quoteIdent(name)
		if list != "" {
			s += " FOR TABLE " + list
		}
		statements = []string{s + " WITH (publish_via_partition_root = true)"}
	case slices.Equal(have, want):
		return nil
	case list != "":
		statements = []string{"ALTER PUBLICATION " + quoteIdent(name) + " SET TABLE " + list}
	default:
		statements = []string{"ALTER PUBLICATION " + quoteIdent(name) + " DROP TABLE " + strings.Join(have, ", ")}
	}
	for _, s := range statements {
		if _, err := query(ctx, c, s); err != nil {
			if sqlState(err) == "42501" {
				return fmt.Errorf("%w: the role neither owns the tables nor may say what is published. Have their owner run: %s", err, s)
			}
			return err
		}
	}
	return nil
}

// ensureSlot makes the slot where there is none; fresh: what was committed before is not in it.
func (d *database) ensureSlot(ctx context.Context, conn, side *pgconn.PgConn) (fresh bool, err error) {
	rows, err := query(ctx, side, "SELECT plugin, coalesce(wal_status, ''), active, database FROM pg_catalog.pg_replication_slots WHERE slot_name = "+quoteLiteral(d.w.slot))
	if err != nil {
		return false, err
	}
	if len(rows) == 1 {
		r := rows[0]
		d.mu.Lock()
		unread := d.unread
		d.mu.Unlock()
		switch {
		case r[0].text != "pgoutput" || r[3].text != d.w.database:
			return false, fmt.Errorf("the slot %s is somebody else's: plugin %s, database %s. Set slot on the wrapper", d.w.slot, r[0].text, r[3].text)
		case r[1].text == "lost":
			d.link.Count("slot_lost", 1)
			d.log.Error("the server has thrown away what it kept for the gateway (max_slot_wal_keep_size): the tables are copied again", "slot", d.w.slot)
			if _, err := query(ctx, side, "SELECT pg_drop_replication_slot("+quoteLiteral(d.w.slot)+")"); err != nil {
				return false, err
			}
		case unread:
			d.link.Count("slot_lost", 1)
			d.log.Error("the publication was gone for a while, and what was changed meanwhile can't be read any more: the tables are copied again", "slot", d.w.slot)
			// The session that read it may be a moment from its end.
			if _, err := query(ctx, side, "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_catalog.pg_replication_slots WHERE slot_name = "+quoteLiteral(d.w.slot)+
				" AND active; SELECT pg_drop_replication_slot("+quoteLiteral(d.w.slot)+")"); err != nil {
				return false, err
			}
		default:
			return false, nil
		}
	}
	_, err = query(ctx, conn, "CREATE_REPLICATION_SLOT "+quoteIdent(d.w.slot)+" LOGICAL pgoutput NOEXPORT_SNAPSHOT")
	switch sqlState(err) {
	case "53400":
		err = fmt.Errorf("%w. Run: ALTER SYSTEM SET max_replication_slots = 20; and restart the server", err)
	case "42501":
		err = fmt.Errorf("%w. Run: ALTER ROLE %s REPLICATION", err, quoteIdent(d.w.cfg.Upstreams[0].User))
	case "":
		if err == nil {
			d.mu.Lock()
			d.unread = false
			d.mu.Unlock()
		}
	}
	return true, err
}

// lastPosition is where the feed goes on. Of another slot nothing is known.
func (d *database) lastPosition(ctx context.Context, fresh bool) (position, error) {
	for rec, err := range d.link.Kept(ctx, atKey) {
		if err != nil {
			return position{}, err
		}
		if rec.Key != atKey || fresh {
			continue
		}
		return parsePosition(string(rec.Value))
	}
	if !fresh {
		return position{}, nil
	}
	return position{}, d.link.Keep(ctx, wrappers.Record{Key: atKey})
}

// copyTables reports what the tables have, where the feed does not say it: those that are new, that
// are mapped in another way than when they were copied, or all if the slot is new.
func (d *database) copyTables(ctx context.Context, f *feed, tables []*table, fresh bool) error {
	known := map[string]copied{}
	for rec, err := range d.link.Kept(ctx, tableKey) {
		if err != nil {
			return err
		}
		var c copied
		if json.Unmarshal(rec.Value, &c) == nil {
			known[strings.TrimPrefix(rec.Key, tableKey)] = c
		}
	}
	var todo []*table
	for _, t := range tables {
		c, ok := known[t.name.part()]
		if !ok || fresh || c.Binds != f.binds.hashOf(t.name, true) {
			todo = append(todo, t)
			continue
		}
		since, err := parseLSN(c.Since)
		if err != nil {
			return err
		}
		f.since[t.name] = since
	}
	// A table that is mapped no more is copied anew when it comes back.
	var forget []wrappers.Record
	for name := range known {
		if !slices.ContainsFunc(tables, func(t *table) bool { return t.name.part() == name }) {
			forget = append(forget, wrappers.Record{Key: tableKey + name})
		}
	}
	if len(forget) > 0 {
		if err := d.link.Keep(ctx, forget...); err != nil {
			return err
		}
	}
	if len(todo) > 0 {
		if err := d.copySnapshot(ctx, f, todo); err != nil {
			return err
		}
	}
	return d.seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, nil)
}

// copySnapshot copies tables as of one place in the log.
func (d *database) copySnapshot(ctx context.Context, f *feed, todo []*table) error {
	// A temporary slot has a snapshot that fits exactly between two commits of the log.
	name := d.w.slot[:min(len(d.w.slot), mostSlotName-2)] + "_c"
	r, err := one(ctx, f.conn, "CREATE_REPLICATION_SLOT "+quoteIdent(name)+" TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
	if err != nil {
		return fmt.Errorf("a slot for the initial copy: %w", err)
	}
	if len(r) < 3 {
		return fmt.Errorf("the server gave no snapshot")
	}
	since, err := parseLSN(r[1].text)
	if err != nil {
		return err
	}
	conn, err := d.w.connect(ctx, "copy", nil)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	if _, err := query(ctx, conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+quoteLiteral(r[2].text)); err != nil {
		return err
	}
	for _, t := range todo {
		began := time.Now()
		n, err := d.copyTable(ctx, f, conn, t)
		if err != nil {
			return fmt.Errorf("copying %s: %w", t.name, err)
		}
		c := copied{Since: since.String(), Binds: f.binds.hashOf(t.name, true)}
		raw, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if err := d.link.Keep(ctx, wrappers.Record{Key: tableKey + t.name.part(), Value: raw}); err != nil {
			return err
		}
		f.since[t.name] = since
		d.log.Info("table copied", "table", t.name.String(), "rows", n, "took", time.Since(began).Round(time.Millisecond))
	}
	_, err = query(ctx, f.conn, "DROP_REPLICATION_SLOT "+quoteIdent(name))
	return err
}

func (d *database) copyTable(ctx context.Context, f *feed, conn *pgconn.PgConn, t *table) (rows int, err error) {
	rel := outRelation{table: t.name, identity: t.identity}
	r := &relation{name: t.name, in: true}
	list := ""
	for _, c := range t.columns {
		rel.columns = append(rel.columns, outColumn{name: c.name})
		r.types = append(r.types, c.typ)
		list += ", " + quoteIdent(c.name)
	}
	r.columns = rel.columns
	for _, s := range f.binds.shapesOf(t.name) {
		k := keyShape{names: s.key}
		for _, name := range s.key {
			k.at = append(k.at, slices.IndexFunc(t.columns, func(c column) bool { return c.name == name }))
		}
		r.shapes = append(r.shapes, k)
	}
	// Observations that are made here are no events of the feed.
	c := &feed{d: d, binds: f.binds, at: f.at}
	here := map[uint64]struct{}{}
	flush := func() error {
		if len(c.batch) == 0 {
			return nil
		}
		for i := range c.batch[1:] {
			c.batch[i].More = true
		}
		err := d.seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotPart}, c.batch)
		clear(c.batch)
		c.batch, c.bytes = c.batch[:0], 0
		return err
	}
	result := conn.ExecParams(ctx, "SELECT xmin::text"+list+" FROM "+t.name.quoted(), nil, nil, nil, nil)
	for result.NextRow() {
		values := result.Values()
		rows++
		row := make(tuple, len(values)-1)
		for i, v := range values[1:] {
			row[i] = cell{kind: cellText, text: v}
			if v == nil {
				row[i] = cell{kind: cellNull}
			}
			c.bytes += len(v)
		}
		c.tx.version = wrappers.Version(values[0])
		for _, s := range r.shapes {
			address := r.address(s, row)
			if address == "" {
				continue
			}
			here[sum(address)] = struct{}{}
			if err := c.show(r, "", address, row, true); err != nil {
				return rows, err
			}
		}
		if len(c.batch) >= batchRows || c.bytes >= batchBytes {
			if err := flush(); err != nil {
				return rows, err
			}
		}
	}
	if _, err := result.Close(); err != nil {
		return rows, err
	}
	if err := flush(); err != nil {
		return rows, err
	}
	// What was there when the table was last heard of, and is not: it was deleted meanwhile.
	var gone []string
	had := 0
	for rec, err := range d.link.Kept(ctx, rowKey+t.name.part()+"?") {
		if err != nil {
			return rows, err
		}
		address := strings.TrimPrefix(rec.Key, rowKey)
		had++
		if _, there := here[sum(address)]; !there {
			gone = append(gone, address)
		}
	}
	if int64(len(gone))*100 > int64(had)*d.w.maxLost {
		d.link.Count("mass_deletes_refused", 1)
		d.log.Error("rows have gone while the gateway did not listen, more than max_lost allows: their registers stay, and are not written back. Delete them by hand, or raise max_lost and restart",
			"table", t.name.String(), "gone", len(gone), "of", had, "max_lost", d.w.maxLost)
		return rows, nil
	}
	for _, address := range gone {
		c.gone(address)
		if len(c.batch) >= batchRows {
			if err := flush(); err != nil {
				return rows, err
			}
		}
	}
	return rows, flush()
}

// lookOut ends the feed when it has to be set up anew: the mappings have changed, or a table that
// could not be followed can be.
func (d *database) lookOut(ctx context.Context, cancel context.CancelCauseFunc, b binds, awaited []tableName) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.changed:
			cancel(errLookAgain)
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			if len(awaited) > 0 && d.mended(ctx, &b, awaited) {
				cancel(errLookAgain)
				return
			}
		}
	}
}

// lookEvery is how often tables that could not be followed are looked at. Tests are less patient.
var lookEvery = 10 * time.Second

func (d *database) mended(ctx context.Context, b *binds, awaited []tableName) bool {
	conn, err := d.w.connect(ctx, "catalogue", nil)
	if err != nil {
		return false
	}
	defer closeConn(conn)
	c := newCatalog(conn)
	for _, name := range awaited {
		t, err := c.table(ctx, name)
		if err != nil || t == nil {
			continue
		}
		ok := true
		for _, s := range b.shapesOf(name) {
			ok = ok && d.fits(t, s.key) == ""
		}
		if ok {
			return true
		}
	}
	return false
}
