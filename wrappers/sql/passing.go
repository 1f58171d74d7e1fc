package sql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers"
)

// While somebody records, the rows of tables that no bind maps are shown as well: as they are committed, by whatever wrote
// them, in the form in which a bind would get them. They come from a temporary replication slot whose output plugin,
// test_decoding, needs no publication: nothing is left in the database.
type passing struct {
	wake chan struct{}

	mu      sync.Mutex
	settled chan struct{} // closed once rows are shown, or it is known that they can't be; nil while nobody records
	ready   bool          // settled is closed
}

// Bounds of a recording's beginning.
const (
	passingHolds = 2 * time.Second  // how long statements wait for it
	passingAgain = 10 * time.Second // after it failed
	passingTick  = time.Second      // how soon it is noticed that somebody records, where no client says anything
)

// mostPassing is how many rows of a transaction are held until it is known who did it.
const mostPassing = 512

func newPassing() *passing { return &passing{wake: make(chan struct{}, 1)} }

// stands tells whether a statement has nothing to wait for.
func (p *passing) stands() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ready
}

// await holds a statement until its rows will be shown.
func (p *passing) await(ctx context.Context) {
	p.mu.Lock()
	settled := p.beginLocked()
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(passingHolds)
	defer timer.Stop()
	select {
	case <-settled:
	case <-timer.C:
		p.settle() // nobody else waits once more
	case <-ctx.Done():
	}
}

func (p *passing) beginLocked() chan struct{} {
	if p.settled == nil {
		p.settled = make(chan struct{})
	}
	return p.settled
}

// settle lets go who waits.
func (p *passing) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.beginLocked(); !p.ready {
		p.ready = true
		close(c)
	}
}

// over: nobody records any more.
func (p *passing) over() {
	p.settle()
	p.mu.Lock()
	p.settled, p.ready = nil, false
	p.mu.Unlock()
}

// keepPassing shows what passes whenever somebody records.
func (d *database) keepPassing(ctx context.Context) {
	tick := time.NewTicker(passingTick)
	defer tick.Stop()
	p, said := d.passing, ""
	var again time.Time
	for {
		select {
		case <-tick.C:
		case <-p.wake:
		case <-ctx.Done():
			return
		}
		switch {
		case !d.link.Recording():
			if p.stands() {
				p.over()
			}
			said, again = "", time.Time{}
			continue
		case time.Now().Before(again):
			continue
		}
		err := d.showPassing(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			p.over()
			continue
		}
		p.settle()
		again = time.Now().Add(passingAgain)
		if text := err.Error(); text != said {
			said = text
			d.log.Warn("record: the rows of tables that no bind maps are not shown", "err", err, "again_in", passingAgain)
		}
	}
}

// showPassing shows rows until nobody records: then it returns nil.
func (d *database) showPassing(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	side, err := d.w.connect(ctx, "recording", nil)
	if err != nil {
		return err
	}
	defer closeConn(side)
	if err := d.able(ctx, side); err != nil {
		return err
	}
	conn, err := d.w.connect(ctx, "recording", map[string]string{"replication": "database"})
	if err != nil {
		return err
	}
	defer closeConn(conn)
	slot := quoteIdent("spookgw_record_" + d.marks.run)
	// It waits for transactions that are open already: they may take their time.
	_, err = query(ctx, conn, "CREATE_REPLICATION_SLOT "+slot+" TEMPORARY LOGICAL test_decoding NOEXPORT_SNAPSHOT")
	switch sqlState(err) {
	case "":
	case "58P01":
		err = fmt.Errorf("%w. The output plugin test_decoding comes with PostgreSQL, in some systems in a package of its own (postgresql-contrib)", err)
	}
	if err != nil {
		return err
	}
	front := conn.Frontend()
	front.Send(&pgproto3.Query{String: "START_REPLICATION SLOT " + slot + ` LOGICAL 0/0 ("include-xids" '0', "skip-empty-xacts" '1')`})
	if err := front.Flush(); err != nil {
		return err
	}
	s := &passer{d: d, catalog: newCatalog(side), tables: map[tableName]*passedTable{}}
	for {
		if err := conn.Conn().SetReadDeadline(time.Now().Add(passingTick)); err != nil {
			return err
		}
		msg, err := front.Receive()
		var timeout net.Error
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &timeout) && timeout.Timeout():
			if !d.link.Recording() {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyBothResponse:
			d.passing.settle()
		case *pgproto3.CopyData:
			if err := s.data(ctx, conn, msg.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone, *pgproto3.ReadyForQuery:
			return errors.New("the server ended it")
		}
		if !d.link.Recording() {
			return nil
		}
	}
}

// A passer makes operations of decoded events.
type passer struct {
	d       *database
	catalog *catalog
	tables  map[tableName]*passedTable
	rows    []wrappers.Operation // of the transaction that is being read
}

// A passedTable is what is known of a table; the table is nil where there is none any more.
type passedTable struct {
	*table
	key []string
}

// data takes one message of the replication protocol.
func (s *passer) data(ctx context.Context, conn *pgconn.PgConn, b []byte) error {
	switch {
	case len(b) >= 18 && b[0] == 'k':
		if b[17] == 1 {
			return sendStatus(conn, lsn(binary.BigEndian.Uint64(b[1:])))
		}
	case len(b) >= 25 && b[0] == 'w':
		e, err := parseDecoded(string(b[25:]))
		if err != nil {
			return err
		}
		if e.kind == decodedCommit {
			s.flush()
			return nil
		}
		return s.event(ctx, &e)
	}
	return nil
}

// event takes one row.
func (s *passer) event(ctx context.Context, e *decodedEvent) error {
	if e.kind == decodedOther {
		return nil
	}
	t, err := s.find(ctx, e)
	if err != nil || t.table == nil {
		return err
	}
	was, is := "", ""
	if e.row != nil {
		is = t.address(e.row)
	}
	if e.old != nil {
		was = t.address(e.old)
	} else if e.kind == decodedUpdate {
		was = is
	}
	if was != "" && was != is {
		s.add(wrappers.Operation{Verb: wrappers.Delete, Address: was})
	}
	if e.row == nil {
		return nil
	}
	if is == "" {
		is = t.name.part() // nothing tells this row from others
	}
	op := wrappers.Operation{Verb: wrappers.Put, Address: is, Payload: wrappers.Payload{Type: rowType}}
	out := make(row, len(e.row))
	for _, c := range e.row {
		switch c.cell.kind {
		case cellUnchanged:
			op.Verb = wrappers.Merge
		case cellNull:
			out[c.name] = nil
		default:
			out[c.name] = s.d.read(t.name, c.name, t.column(c.name).typ, c.cell.text)
		}
	}
	if op.Payload.Raw, err = out.encode(); err != nil {
		return fmt.Errorf("%s: %w", is, err)
	}
	s.add(op)
	return nil
}

// find reads a table's description, anew where it has columns that are not known. Of a partition it is that of the whole.
func (s *passer) find(ctx context.Context, e *decodedEvent) (*passedTable, error) {
	knows := func(t *passedTable) bool {
		for _, cols := range [][]decodedColumn{e.old, e.row} {
			if t.table != nil && slices.ContainsFunc(cols, func(c decodedColumn) bool { return t.column(c.name) == nil }) {
				return false
			}
		}
		return true
	}
	if t := s.tables[e.table]; t != nil && knows(t) {
		return t, nil
	}
	name := e.table
	rows, err := query(ctx, s.catalog.conn, `SELECT n.nspname, r.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace m ON m.oid = c.relnamespace
		JOIN pg_catalog.pg_class r ON r.oid = pg_catalog.pg_partition_root(c.oid) JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
		WHERE c.relispartition AND m.nspname = `+quoteLiteral(name.schema)+` AND c.relname = `+quoteLiteral(name.name))
	if err != nil {
		return nil, err
	}
	if len(rows) == 1 {
		name = tableName{rows[0][0].text, rows[0][1].text}
	}
	t := &passedTable{}
	if t.table, err = s.catalog.table(ctx, name); err != nil {
		return nil, err
	}
	if !knows(t) {
		t.table = nil // it has changed since, or is a column short: these rows are no bind's
	}
	if t.table != nil {
		t.key = t.tellingColumns()
	}
	s.tables[e.table] = t
	return t, nil
}

// tellingColumns are those that tell the table's rows apart: its primary key, or else the shortest of its unique indexes. Nil: nothing does.
func (t *table) tellingColumns() []string {
	if (t.identity == 'd' || t.identity == 'i') && len(t.old) > 0 {
		return t.old
	}
	var key []string
	for _, u := range t.unique {
		if key == nil || len(u) < len(key) {
			key = u
		}
	}
	return key
}

// address names a row; "": nothing tells it from others, or its key was not sent.
func (t *passedTable) address(cols []decodedColumn) string {
	var key []keyColumn
	for _, name := range t.key {
		i := slices.IndexFunc(cols, func(c decodedColumn) bool { return c.name == name })
		if i < 0 || cols[i].cell.kind != cellText {
			return ""
		}
		text := string(cols[i].cell.text)
		if t.column(name).typ.kind == blankKind {
			text = strings.TrimRight(text, " ")
		}
		if text == "" {
			return ""
		}
		key = append(key, keyColumn{name, text})
	}
	if len(key) == 0 {
		return ""
	}
	return rowAddress(t.name, key)
}

// add shows an operation with its transaction, unless the feed shows it.
func (s *passer) add(op wrappers.Operation) {
	if s.d.link.Maps(op.Verb, "", op.Address) {
		return
	}
	s.rows = append(s.rows, op)
	if len(s.rows) >= mostPassing {
		s.flush()
	}
}

// flush shows what there is of a transaction.
func (s *passer) flush() {
	if len(s.rows) == 0 {
		return
	}
	who := s.d.acts.passed()
	for i := range s.rows {
		op := &s.rows[i]
		op.Who = who
		s.d.link.Tap(*op, "passed")
	}
	clear(s.rows)
	s.rows = s.rows[:0]
}
