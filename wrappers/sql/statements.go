package sql

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
)

// Where a server gives no feed (capture = "statements"), what it has is read: whenever a statement
// that mentions a mapped table was committed through the relay, and every poll_ms. A row's xmin tells
// what is new since the last look, also what no statement mentioned; what is gone is missed in the
// number of rows, and then looked for by the keys. In between two looks a row may have been
// something else: that is not seen, and neither is the order in which rows changed.

const (
	captureStatements = "statements"
	aboutCapture      = "capture"
)

// A notice is what the relay has to tell the reader.
type notice struct {
	wake chan struct{}

	mu   sync.Mutex
	acts []*act
}

func newNotice() *notice { return &notice{wake: make(chan struct{}, 1)} }

// mostNotices bounds what is remembered until the next look.
const mostNotices = 1000

// committed tells that a transaction is over that mentioned mapped tables.
func (d *database) committed(x *act) {
	if d.notice == nil {
		return
	}
	n := d.notice
	n.mu.Lock()
	if len(n.acts) < mostNotices {
		n.acts = append(n.acts, x)
	} else {
		n.acts[0].tables |= x.tables // who it was is nobody's knowledge by then
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

func (n *notice) take() []*act {
	n.mu.Lock()
	defer n.mu.Unlock()
	acts := n.acts
	n.acts = nil
	return acts
}

// A looker is one session that looks at the mapped tables.
type looker struct {
	d      *database
	conn   *pgconn.PgConn
	binds  binds
	tables []*tableLook
}

// A tableLook is a table and what was seen of it.
type tableLook struct {
	table *table
	rel   *relation
	known map[uint64]struct{} // addresses
	total int                 // rows, with and without address
	// since are the oldest transactions that were not over when it was looked at last, and the time
	// before. What is told during a write of our own may be passed over, so everything is told twice.
	since [2]string
	doubt bool // more were gone than was believed: the keys are compared again
	took  time.Duration
	again time.Time // not before
}

// keepReading looks at the tables until ctx ends.
func (d *database) keepReading(ctx context.Context) {
	const label = `statements are captured, not rows: of what triggers and functions do, and of what does not pass through this gateway, registers learn when the tables are looked at again (poll_ms), and not of each state in between`
	d.link.Trouble(aboutCapture, label)
	d.log.Warn(label)
	pause, said := time.Duration(0), ""
	for ctx.Err() == nil {
		began := time.Now()
		err := d.readTables(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, errLookAgain) {
			pause, said = 0, ""
			continue
		}
		d.link.Count("reader_down", 1)
		if time.Since(began) > pause {
			pause = 0
		}
		pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
		if text := err.Error(); text != said {
			said = text
			d.link.Trouble(aboutFeed, text)
			d.log.Error("the tables can't be looked at: what changes in them is not heard of until this is mended", "err", err, "again_in", pause)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// readTables looks at the tables as long as the session and the mappings last.
func (d *database) readTables(ctx context.Context) error {
	conn, err := d.w.connect(ctx, "reader", nil)
	if err != nil {
		return err
	}
	defer closeConn(conn)
	r := &looker{d: d, conn: conn, binds: readBinds(d.link)}
	d.watch.Store(r.binds.watch())
	f := &feed{d: d, catalog: newCatalog(conn), binds: r.binds}
	tables, awaited, err := d.followed(ctx, f)
	if err != nil {
		return err
	}
	for _, t := range tables {
		rel, err := f.relation(ctx, describe(t))
		if err != nil {
			return err
		}
		l := &tableLook{table: t, rel: rel, known: map[uint64]struct{}{}}
		for rec, err := range d.link.Kept(ctx, rowKey+t.name.part()+"?") {
			if err != nil {
				return err
			}
			l.known[sum(strings.TrimPrefix(rec.Key, rowKey))] = struct{}{}
		}
		r.tables = append(r.tables, l)
		if _, err := r.look(ctx, l, nil); err != nil {
			return fmt.Errorf("reading %s: %w", t.name, err)
		}
	}
	if err := d.seen(ctx, wrappers.Position{Snapshot: wrappers.SnapshotEnd}, nil); err != nil {
		return err
	}
	d.link.Trouble(aboutFeed, "")
	d.link.Count("reader_up", 1)
	d.log.Info("tables are looked at", "tables", len(tables), "poll", d.w.poll)
	return r.run(ctx, awaited)
}

// describe is a table as the feed would describe it.
func describe(t *table) *outRelation {
	m := &outRelation{table: t.name, identity: t.identity}
	for _, c := range t.columns {
		m.columns = append(m.columns, outColumn{name: c.name, oid: c.oid})
	}
	return m
}

func (r *looker) run(ctx context.Context, awaited []tableName) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go r.d.lookOut(ctx, cancel, r.binds, awaited)
	poll := time.NewTicker(r.d.w.poll)
	defer poll.Stop()
	due := map[*tableLook]*reason{}
	want := func(l *tableLook) *reason {
		if due[l] == nil {
			due[l] = &reason{}
		}
		return due[l]
	}
	for {
		var soon <-chan time.Time
		if len(due) > 0 {
			at := time.Time{}
			for l := range due {
				if at.IsZero() || l.again.Before(at) {
					at = l.again
				}
			}
			soon = time.After(max(0, time.Until(at)))
		}
		select {
		case <-r.d.notice.wake:
			for _, x := range r.d.notice.take() {
				for _, l := range r.tables {
					if l.rel.bit&x.tables != 0 {
						w := want(l)
						w.acts, w.once = append(w.acts, x), true
					}
				}
			}
		case <-poll.C:
			for _, l := range r.tables {
				want(l).once = true
			}
		case <-soon:
			for l, why := range due {
				if time.Now().Before(l.again) {
					continue
				}
				delete(due, l)
				told, err := r.look(ctx, l, why.acts)
				if err != nil {
					if cause := context.Cause(ctx); cause != nil {
						return cause
					}
					return fmt.Errorf("reading %s: %w", l.table.name, err)
				}
				if why.once && told > 0 { // it is told twice
					want(l)
				}
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A reason is why a table is to be looked at.
type reason struct {
	acts []*act // of the transactions that mentioned it
	once bool   // not only to tell again what was told
}

// look reports what is new in a table, and what is gone; told: how many rows that were.
func (r *looker) look(ctx context.Context, l *tableLook, acts []*act) (told int, err error) {
	began := time.Now()
	if _, err := query(ctx, r.conn, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return 0, err
	}
	defer func() {
		if _, e := query(context.WithoutCancel(ctx), r.conn, "COMMIT"); err == nil {
			err = e
		}
		// Looking must not be all that the server does.
		l.took = time.Since(began)
		l.again = time.Now().Add(2 * l.took)
	}()
	now, err := one(ctx, r.conn, "SELECT (txid_snapshot_xmin(txid_current_snapshot()) & 4294967295)::text, count(*)::text FROM "+l.table.name.quoted())
	if err != nil {
		return 0, err
	}
	total, err := strconv.Atoi(now[1].text)
	if err != nil {
		return 0, err
	}
	first := l.since[1] == ""
	filter := ""
	if !first {
		filter = " WHERE age(xmin) <= age('" + l.since[1] + "'::xid)"
	}
	t := &telling{looker: r, l: l, began: began, first: first, by: authors(acts)}
	fresh, err := t.rows(ctx, filter)
	if err != nil {
		return t.told, err
	}
	if first || l.doubt || total != l.total+fresh {
		if err := t.gone(ctx, len(acts) > 0); err != nil {
			return t.told, err
		}
	}
	l.total = total
	l.since[0], l.since[1] = now[0].text, l.since[0]
	if l.since[1] == "" {
		l.since[1] = now[0].text
	}
	return t.told, nil
}

// authors is who did what is new, if it was one: a saying of the only transaction, or of the only user.
func authors(acts []*act) *saying {
	if len(acts) == 0 {
		return nil
	}
	x := acts[0]
	s := &saying{Principal: x.who.Principal, Peer: x.who.Peer, Statement: x.text, Application: x.app}
	for _, o := range acts[1:] {
		if o.who.Principal != x.who.Principal {
			return nil
		}
		s.Peer, s.Statement, s.Application = "", "", ""
	}
	return s
}

// A telling is one look's report.
type telling struct {
	*looker
	l     *tableLook
	began time.Time
	first bool
	by    *saying
	batch []wrappers.Observation
	bytes int
	told  int
}

func (t *telling) add(o wrappers.Observation) {
	o.Began = t.began
	meta := map[string]string{"capture": captureStatements}
	if t.by != nil {
		o.Who = t.by.who()
		meta["statement"], meta["application"] = t.by.Statement, t.by.Application
	}
	o.Payload.Meta = meta
	t.told++
	t.batch = append(t.batch, o)
}

func (t *telling) flush(ctx context.Context) error {
	if len(t.batch) == 0 {
		return nil
	}
	at := wrappers.Position{}
	if t.first {
		at.Snapshot = wrappers.SnapshotPart
	}
	err := t.d.seen(ctx, at, t.batch)
	clear(t.batch)
	t.batch, t.bytes = t.batch[:0], 0
	return err
}

// rows reports rows; fresh: how many of them were not known.
func (t *telling) rows(ctx context.Context, filter string) (fresh int, err error) {
	list := ""
	for _, c := range t.l.table.columns {
		list += ", " + quoteIdent(c.name)
	}
	result := t.conn.ExecParams(ctx, "SELECT xmin::text"+list+" FROM "+t.l.table.name.quoted()+filter, nil, nil, nil, nil)
	c := &feed{d: t.d, binds: t.binds}
	for result.NextRow() {
		values := result.Values()
		row := make(tuple, len(values)-1)
		for i, v := range values[1:] {
			row[i] = cell{kind: cellText, text: v}
			if v == nil {
				row[i] = cell{kind: cellNull}
			}
			t.bytes += len(v)
		}
		c.tx.version = wrappers.Version(values[0])
		isNew := len(t.l.rel.shapes) == 0
		for _, s := range t.l.rel.shapes {
			address := t.l.rel.address(s, row)
			if address == "" {
				isNew = true
				continue
			}
			_, known := t.l.known[sum(address)]
			if !known {
				isNew = true
				t.l.known[sum(address)] = struct{}{}
			}
			if err := c.show(t.l.rel, "", address, row, !known); err != nil {
				return fresh, err
			}
		}
		for _, o := range c.batch {
			t.add(o)
		}
		c.batch = c.batch[:0]
		if isNew {
			fresh++
		}
		if len(t.batch) >= batchRows || t.bytes >= batchBytes {
			if err := t.flush(ctx); err != nil {
				return fresh, err
			}
		}
	}
	if _, err := result.Close(); err != nil {
		return fresh, err
	}
	return fresh, t.flush(ctx)
}

// gone reports which of the known rows are not there any more. meant: a statement was seen that may have
// deleted them; else too many are not believed.
func (t *telling) gone(ctx context.Context, meant bool) error {
	here := map[uint64]struct{}{}
	for _, s := range t.l.rel.shapes {
		names := make([]string, len(s.names))
		for i, name := range s.names {
			names[i] = quoteIdent(name)
		}
		result := t.conn.ExecParams(ctx, "SELECT "+strings.Join(names, ", ")+" FROM "+t.l.table.name.quoted(), nil, nil, nil, nil)
		row := make(tuple, len(t.l.rel.columns))
		for result.NextRow() {
			for i, v := range result.Values() {
				row[s.at[i]] = cell{kind: cellText, text: v}
				if v == nil {
					row[s.at[i]] = cell{kind: cellNull}
				}
			}
			if address := t.l.rel.address(s, row); address != "" {
				here[sum(address)] = struct{}{}
			}
		}
		if _, err := result.Close(); err != nil {
			return err
		}
	}
	var gone []string
	had := 0
	for rec, err := range t.d.link.Kept(ctx, rowKey+t.l.table.name.part()+"?") {
		if err != nil {
			return err
		}
		address := strings.TrimPrefix(rec.Key, rowKey)
		had++
		if _, there := here[sum(address)]; !there {
			gone = append(gone, address)
		}
	}
	t.l.doubt = !meant && int64(len(gone))*100 > int64(had)*t.d.w.maxLost
	if t.l.doubt {
		t.d.link.Count("mass_deletes_refused", 1)
		t.d.trouble(t.l.table.name, fmt.Sprintf("%d of %d rows are gone, and no statement was seen that deleted them: more than max_lost (%d %%) allows. Their registers stay. Delete them by hand, or raise max_lost", len(gone), had, t.d.w.maxLost))
		return nil
	}
	t.d.well(t.l.table.name)
	t.l.known = here
	for _, address := range gone {
		if !t.d.link.Maps(wrappers.Delete, "", address) {
			if err := t.d.link.Keep(ctx, wrappers.Record{Key: rowKey + address}); err != nil {
				return err
			}
			continue
		}
		t.add(wrappers.Observation{Verb: wrappers.Delete, Address: address,
			Keep: append([]wrappers.Record{{Key: rowKey + address}}, t.d.renders.drop(address)...)})
		if len(t.batch) >= batchRows {
			if err := t.flush(ctx); err != nil {
				return err
			}
		}
	}
	return t.flush(ctx)
}
