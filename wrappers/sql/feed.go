package sql

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers"
)

// A feed is one replication session: what the server commits becomes observations in the order of
// the commits. The server keeps its log for us until we have confirmed that they are durable.
type feed struct {
	d       *database
	conn    *pgconn.PgConn // in replication mode
	catalog *catalog       // over a session of its own
	binds   binds
	since   map[tableName]lsn // tables were copied as of there: earlier commits are in the copy
	rels    map[uint32]*relation
	armed   time.Time
	flushed time.Time // when a batch was reported last
	holding bool      // the next one waits for more until batchPace is over

	at        position // what was reported last; durable with each observation
	ended     lsn      // of the last commit that was read
	confirmed lsn      // all commits before it are durable, or concern nobody
	told      lsn      // the server knows that
	toldAt    time.Time

	tx    transaction
	open  bool // inside of a transaction
	batch []wrappers.Observation
	bytes int
	marks uint64 // newest mark in the batch
}

// A position is a place in the feed: an event of a transaction, by the place of its commit.
type position struct {
	commit lsn
	events int
}

func (p position) String() string { return fmt.Sprintf("%s %d", p.commit, p.events) }

func parsePosition(s string) (position, error) {
	at, n, _ := strings.Cut(s, " ")
	commit, err := parseLSN(at)
	if err != nil {
		return position{}, err
	}
	events, err := strconv.Atoi(n)
	return position{commit, events}, err
}

// A transaction is the one that is being read.
type transaction struct {
	final   lsn
	version wrappers.Version
	events  int             // so far
	own     map[string]bool // addresses that we wrote in it, until they have come
	tables  uint64          // that it changed, as the relay's sessions note them
	from    int             // its first observation in the batch
	bytes   int             // of what is in the batch
	said    *saying         // whose the events are that come now, where the transaction says so
	named   int             // its first observation in the batch that is nobody's yet
}

// A relation is a table as the feed describes it.
type relation struct {
	name    tableName
	columns []outColumn
	types   []colType
	shapes  []keyShape
	in      bool
	lacks   bool // a column that a bind speaks of is not there
	full    bool
	bit     uint64
}

// A keyShape is a key of a relation's rows.
type keyShape struct {
	names []string
	at    []int // columns
}

// What is reported at once: transactions, as long as more of them are here. A transaction is reported as one, up to
// wholeRows or wholeBytes of the server's messages; a larger one in pieces.
const (
	batchRows  = 512
	batchBytes = 1 << 20
	batchPace  = 3 * time.Millisecond // between two batches, unless somebody waits: each costs the disk a sync
	wholeRows  = 100_000
	wholeBytes = 16 << 20
	feedTick   = 2 * time.Second
	statusTick = 5 * time.Second
)

// keys of the wrapper's own records
const (
	atKey    = "feed/at"
	tableKey = "feed/table/"
	rowKey   = "row/"
	asKey    = "as/"
)

// run reads until the connection ends or ctx does.
func (f *feed) run(ctx context.Context, from lsn) error {
	start := fmt.Sprintf(`START_REPLICATION SLOT %s LOGICAL %s (proto_version '1', publication_names '"%s"', messages 'true')`,
		quoteIdent(f.d.w.slot), from, f.d.w.slot)
	front := f.conn.Frontend()
	front.Send(&pgproto3.Query{String: start})
	if err := front.Flush(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = f.conn.Conn().SetDeadline(time.Unix(1, 0)) })
	defer stop()
	late := false // the last read has ended by its deadline: without another one all others would
	for {
		full := !f.open && (len(f.batch) >= batchRows || f.bytes >= batchBytes)
		if full || late || front.ReadBufferLen() == 0 {
			late = false
			if err := f.pause(ctx, full); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		msg, err := front.Receive()
		if err != nil {
			var timeout net.Error
			if errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
				f.armed, late = time.Time{}, true // perhaps in the middle of a message
				if err := f.status(false); err != nil {
					return err
				}
				continue
			}
			return err
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			if err := f.data(ctx, msg.Data); err != nil {
				return err
			}
		case *pgproto3.CopyBothResponse:
			f.d.stands(f)
		case *pgproto3.ErrorResponse:
			return pgconn.ErrorResponseToPgError(msg)
		case *pgproto3.CopyDone, *pgproto3.ReadyForQuery:
			return errors.New("the server ended the feed")
		}
	}
}

// pause reports what there is, and has the next read end in time. Under load a batch waits a little for what is about to come.
func (f *feed) pause(ctx context.Context, full bool) error {
	now := time.Now()
	if left := batchPace - now.Sub(f.flushed); left > 0 && !full && f.marks == 0 && len(f.batch) > 0 {
		if f.holding {
			return nil
		}
		f.holding, f.armed = true, time.Time{}
		return f.deadline(ctx, now.Add(left))
	}
	f.holding = false
	if len(f.batch) > 0 {
		f.flushed = now
	}
	if err := f.flush(ctx, false); err != nil {
		return err
	}
	if now = time.Now(); now.Sub(f.armed) <= feedTick/2 {
		return nil
	}
	f.armed = now
	return f.deadline(ctx, now.Add(feedTick))
}

// deadline has reads end at a time, unless all of it is to end.
func (f *feed) deadline(ctx context.Context, at time.Time) error {
	if ctx.Err() != nil {
		return nil
	}
	return f.conn.Conn().SetReadDeadline(at)
}

// data reads one message of the replication protocol (PostgreSQL, section 55.4).
func (f *feed) data(ctx context.Context, b []byte) error {
	if len(b) == 0 {
		return errOutput
	}
	switch b[0] {
	case 'k':
		if len(b) < 18 {
			return errOutput
		}
		if !f.open {
			if err := f.flush(ctx, false); err != nil {
				return err
			}
			// There is nothing before it that concerns us: so the server need not keep it for us, also
			// where only other databases are written.
			f.confirmed = max(f.confirmed, lsn(binary.BigEndian.Uint64(b[1:])))
		}
		return f.status(b[17] == 1)
	case 'w':
		if len(b) < 25 {
			return errOutput
		}
		m, err := parseOutput(b[25:])
		if err != nil {
			return err
		}
		f.bytes, f.tx.bytes = f.bytes+len(b), f.tx.bytes+len(b)
		if err := f.event(ctx, m); err != nil {
			return err
		}
		return f.relieve(ctx)
	}
	return nil
}

// status confirms what is durable, now or if it is time.
func (f *feed) status(now bool) error {
	if !now && (f.told == f.confirmed && time.Since(f.toldAt) < statusTick || time.Since(f.toldAt) < statusTick/20) {
		return nil
	}
	if err := sendStatus(f.conn, f.confirmed); err != nil {
		return err
	}
	f.told, f.toldAt = f.confirmed, time.Now()
	return nil
}

// sendStatus tells the server up to where it need not keep its log for us.
func sendStatus(conn *pgconn.PgConn, confirmed lsn) error {
	b := append(make([]byte, 0, 34), 'r')
	for range 3 {
		b = binary.BigEndian.AppendUint64(b, uint64(confirmed)) // written, flushed, applied
	}
	b = binary.BigEndian.AppendUint64(b, uint64(time.Since(serverEpoch).Microseconds()))
	b = append(b, 0)
	front := conn.Frontend()
	front.Send(&pgproto3.CopyData{Data: b})
	return front.Flush()
}

// event takes one message of the plugin.
func (f *feed) event(ctx context.Context, m any) error {
	switch m := m.(type) {
	case outBegin:
		f.open = true
		f.tx = transaction{final: m.final, version: wrappers.Version(strconv.FormatUint(uint64(m.xid), 10)), from: len(f.batch), named: len(f.batch)}
	case outCommit:
		f.whole()
		f.open = false
		f.ended = m.end
	case outMessage:
		if m.prefix == markPrefix {
			if s := unseal(f.d.seal, m.content); s != nil {
				f.said(s)
			} else {
				f.message(string(m.content))
			}
		}
	case outRelation:
		rel, err := f.relation(ctx, &m)
		if err != nil {
			return err
		}
		f.rels[m.oid] = rel
	case outInsert:
		return f.change(m.oid, nil, false, m.row, true)
	case outUpdate:
		return f.change(m.oid, m.old, m.full, m.row, false)
	case outDelete:
		return f.change(m.oid, m.old, m.full, nil, false)
	case outTruncate:
		for _, oid := range m.oids {
			if err := f.truncated(ctx, oid); err != nil {
				return err
			}
		}
	}
	return nil
}

const ownKind = "own:"

// message reads one of the gateways' own.
func (f *feed) message(content string) {
	if n := f.d.marks.read(content); n != 0 {
		f.marks = n
		return
	}
	if rest, ok := strings.CutPrefix(content, ownKind+f.d.w.cfg.Endpoint+"\n"); ok {
		f.tx.own = map[string]bool{}
		for a := range strings.SplitSeq(rest, "\n") {
			f.tx.own[a] = true
		}
	}
}

// relation prepares for the events of a table.
func (f *feed) relation(ctx context.Context, m *outRelation) (*relation, error) {
	r := &relation{name: m.table, columns: m.columns, in: f.binds.in(m.table), full: m.identity == 'f', bit: f.d.watched().of(m.table)}
	if !r.in {
		return r, nil
	}
	if _, copied := f.since[m.table]; !copied && f.d.notice == nil {
		r.in = false // there is something wrong with it, and that was said
		return r, nil
	}
	f.d.forgetTable(m.table)
	for _, c := range m.columns {
		t, err := f.catalog.typeOf(ctx, c.oid)
		if err != nil {
			return nil, err
		}
		r.types = append(r.types, t)
	}
	index := func(name string) int {
		return slices.IndexFunc(m.columns, func(c outColumn) bool { return c.name == name })
	}
	for _, s := range f.binds.shapesOf(m.table) {
		k := keyShape{names: s.key}
		for _, name := range s.key {
			i := index(name)
			if i < 0 {
				f.d.trouble(m.table, fmt.Sprintf("the column %q is gone, which the key of a bind is made of: its rows are not heard of any more", name))
				k.at = nil
				break
			}
			k.at = append(k.at, i)
		}
		if k.at != nil {
			r.shapes = append(r.shapes, k)
		}
		for _, member := range s.pattern.Members {
			if member.In && index(member.Name) < 0 {
				r.lacks = true
				f.d.trouble(m.table, fmt.Sprintf("there is no column %q, which a bind maps: its field stays as it is", member.Name))
			}
		}
	}
	return r, nil
}

// change takes an event of one row: inserted, updated or deleted (no new row).
func (f *feed) change(oid uint32, old tuple, full bool, row tuple, insert bool) error {
	f.tx.events++
	r := f.rels[oid]
	if r == nil {
		return fmt.Errorf("%w: a row of relation %d, which was not described", errOutput, oid)
	}
	if !r.in || f.passed() || f.tx.final < f.since[r.name] {
		return nil
	}
	for _, t := range []tuple{old, row} {
		if t != nil && len(t) != len(r.columns) {
			return fmt.Errorf("%w: a row of %d columns in a relation of %d", errOutput, len(t), len(r.columns))
		}
	}
	if full && row != nil { // what was not sent is as it was
		for i := range row {
			if row[i].kind == cellUnchanged {
				row[i] = old[i]
			}
		}
	}
	f.tx.tables |= r.bit
	for _, s := range r.shapes {
		was, is := "", ""
		if old != nil {
			was = r.address(s, old)
		}
		if row != nil {
			if is = r.address(s, row); old == nil && !insert {
				was = is
			}
		}
		appears := was != is
		switch {
		case was == "" || was == is:
			was = ""
		case is == "" || !f.moves(was, is):
			f.gone(was)
			was = ""
		}
		if is == "" {
			continue
		}
		if err := f.show(r, was, is, row, appears); err != nil {
			return err
		}
	}
	return nil
}

// moves tells whether a row's key has changed so that its register takes another name. What our own write became of is shown
// by its addresses.
func (f *feed) moves(was, is string) bool {
	return f.tx.own == nil && f.d.link.Maps(wrappers.Delete, "", was) && f.d.link.Maps(wrappers.Put, "", is)
}

// gone reports that there is no row at an address.
func (f *feed) gone(address string) {
	if f.d.link.Maps(wrappers.Delete, "", address) {
		f.forget(address)
	}
}

// forget is gone also of an address that no bind has any more.
func (f *feed) forget(address string) {
	f.observe(wrappers.Observation{Verb: wrappers.Delete, Address: address, Keep: []wrappers.Record{{Key: rowKey + address}}})
}

// passed tells whether the event was reported before the last start.
func (f *feed) passed() bool {
	return f.tx.final < f.at.commit || f.tx.final == f.at.commit && f.tx.events <= f.at.events
}

// address names a row; "": it has none, since a column of the key is NULL, empty or not sent.
func (r *relation) address(s keyShape, t tuple) string {
	key := make([]keyColumn, len(s.at))
	for i, at := range s.at {
		c := t[at]
		text := string(c.text)
		if r.types[at].kind == blankKind {
			text = strings.TrimRight(text, " ")
		}
		if c.kind != cellText || text == "" {
			return ""
		}
		key[i] = keyColumn{s.names[i], text}
	}
	return rowAddress(r.name, key)
}

// show reports a row as it is now. It stood at the address was before, "" if it did not move.
func (f *feed) show(r *relation, was, address string, t tuple, appears bool) error {
	if !f.d.link.Maps(wrappers.Put, "", address) {
		return nil
	}
	verb := wrappers.Put
	if r.lacks {
		verb = wrappers.Merge // a column that was dropped is no field that was cleared
	}
	cells := make(map[string][]byte, len(t))
	out := make(row, len(t))
	for i := range t {
		c := &t[i]
		switch c.kind {
		case cellUnchanged:
			verb = wrappers.Merge
			continue
		case cellNull:
			out[r.columns[i].name], cells[r.columns[i].name] = nil, nil
			continue
		}
		out[r.columns[i].name], cells[r.columns[i].name] = f.d.read(r.name, r.columns[i].name, r.types[i], c.text), c.text
	}
	o := wrappers.Observation{Verb: verb, Address: address, Version: f.tx.version}
	if was != "" {
		moved := wrappers.Observation{Verb: wrappers.Rename, Address: was, To: address, Version: f.tx.version, Keep: []wrappers.Record{{Key: rowKey + was}}}
		moved.Keep = append(moved.Keep, f.d.renders.drop(was)...)
		if verb == wrappers.Put {
			o.Verb, o.Address, o.To, o.Keep = moved.Verb, moved.Address, moved.To, moved.Keep
		} else {
			f.observe(moved) // and what was not sent goes with it
		}
	}
	if appears {
		o.Keep = append(o.Keep, wrappers.Record{Key: rowKey + address, Value: []byte{1}})
	}
	if f.tx.own[address] {
		o.Ours = true
		delete(f.tx.own, address) // another event of the row is a trigger's
	}
	o.Keep = append(o.Keep, f.d.renders.apply(address, out, cells)...)
	raw, err := out.encode()
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	o.Payload = wrappers.Payload{Raw: raw, Type: rowType}
	f.observe(o)
	return nil
}

// observe adds to the batch.
func (f *feed) observe(o wrappers.Observation) {
	if o.Verb == wrappers.Delete {
		o.Version = f.tx.version
		if f.tx.own[o.Address] {
			o.Ours = true
			delete(f.tx.own, o.Address)
		}
		o.Keep = append(o.Keep, f.d.renders.drop(o.Address)...)
	}
	f.at = position{f.tx.final, f.tx.events}
	f.batch = append(f.batch, o)
}

// whole has what the batch has of the transaction be one write, after which the feed goes on behind it.
func (f *feed) whole() {
	mine := f.batch[min(f.tx.from, len(f.batch)):]
	if len(mine) == 0 {
		return
	}
	if f.d.seal != nil {
		f.name()
	} else {
		f.attribute(mine)
	}
	for i := range mine[1:] {
		mine[i].More = true
	}
	last := &mine[len(mine)-1]
	last.Keep = append(last.Keep, wrappers.Record{Key: atKey, Value: []byte(f.at.String())})
	f.tx.from = len(f.batch)
}

// attribute says who did what of the transaction is in the batch.
func (f *feed) attribute(mine []wrappers.Observation) {
	who, statement, app := wrappers.Who{}, "", ""
	if f.tx.own == nil {
		who, statement, app = f.d.acts.match(f.tx.tables)
	}
	f.tx.tables = 0
	if who == (wrappers.Who{}) {
		return
	}
	meta := map[string]string{"statement": statement, "application": app}
	for i := range mine {
		if !mine[i].Ours {
			mine[i].Who, mine[i].Payload.Meta = who, meta
		}
	}
}

// truncated reports that a table is empty.
func (f *feed) truncated(ctx context.Context, oid uint32) error {
	f.tx.events++
	r := f.rels[oid]
	if r == nil || !r.in || f.passed() || f.tx.final < f.since[r.name] {
		return nil
	}
	f.tx.tables |= r.bit
	// What came before it has to be in the list.
	if err := f.flush(ctx, false); err != nil {
		return err
	}
	prefix := rowKey + r.name.part() + "?"
	there := map[string]bool{}
	for rec, err := range f.d.link.Kept(ctx, prefix) {
		if err != nil {
			return err
		}
		there[rec.Key] = true
	}
	for i := range f.batch {
		for _, rec := range f.batch[i].Keep {
			if strings.HasPrefix(rec.Key, prefix) {
				there[rec.Key] = rec.Value != nil
			}
		}
	}
	before := f.at
	for _, key := range slices.Sorted(maps.Keys(there)) {
		if !there[key] {
			continue
		}
		f.forget(strings.TrimPrefix(key, rowKey))
		after := f.at
		f.at = before // they are one event: it is over with the last of them
		if err := f.relieve(ctx); err != nil {
			return err
		}
		f.at = after
	}
	return nil
}

// relieve reports what there is of a transaction that is too large to be reported as one.
func (f *feed) relieve(ctx context.Context) error {
	if !f.open || len(f.batch) < wholeRows && f.bytes < wholeBytes {
		return nil
	}
	if err := f.flush(ctx, false); err != nil || len(f.batch) < wholeRows && f.bytes < wholeBytes {
		return err
	}
	f.d.link.Count("transactions_split", 1)
	return f.flush(ctx, true)
}

// flush makes the batch durable, lets go who waited for it, and confirms it. What there is of an open transaction stays,
// unless all is to go.
func (f *feed) flush(ctx context.Context, all bool) error {
	if f.open && all {
		f.whole()
	}
	n := len(f.batch)
	if f.open {
		n = min(n, f.tx.from)
	}
	if n > 0 {
		if err := f.d.seen(ctx, wrappers.Position{Feed: true}, f.batch[:n]); err != nil {
			return err
		}
		rest := copy(f.batch, f.batch[n:])
		clear(f.batch[rest:])
		f.batch = f.batch[:rest]
		f.tx.from, f.tx.named = 0, max(0, f.tx.named-n)
	}
	if f.bytes = 0; len(f.batch) > 0 {
		f.bytes = f.tx.bytes
	} else {
		f.tx.bytes = 0
	}
	f.confirmed = max(f.confirmed, f.ended)
	if f.marks > 0 && len(f.batch) == 0 {
		f.d.marks.pass(f.marks)
		f.marks = 0
	}
	if f.open {
		return nil
	}
	return f.status(false)
}

// seen reports until the link has taken it: what it can't store now the server keeps for us.
func (d *database) seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	pause := 50 * time.Millisecond
	for {
		err := d.link.Seen(ctx, at, what)
		if err == nil || ctx.Err() != nil {
			return err
		}
		d.link.Count("feed_paused", 1)
		d.log.Error("feed paused: what the server shows can't be stored", "err", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// read gives a column's value. What can't be read as its type is shown as text.
func (d *database) read(t tableName, column string, typ colType, text []byte) any {
	v, err := typ.value(text)
	if err != nil {
		d.link.Count("unreadable_columns", 1)
		d.log.Debug("column", "table", t.String(), "column", column, "err", err)
		return string(text)
	}
	return v
}

var seed = maphash.MakeSeed()

func sum(s string) uint64 { return maphash.String(seed, s) }
