package sql

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/spooksystems/gateway/wrappers"
)

// mostWrites is how many rows are written in one transaction.
const mostWrites = 256

// writeBack writes what changed elsewhere into the server until ctx ends.
func (d *database) writeBack(ctx context.Context) error {
	changes := make(chan wrappers.Change, mostWrites)
	var bg sync.WaitGroup
	defer bg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	bg.Go(func() {
		w := &writer{d: d, tables: map[tableName]*table{}, accepted: map[uint64]string{}}
		defer w.close()
		for {
			select {
			case c := <-changes:
				batch := []wrappers.Change{c}
				for more := true; more && len(batch) < mostWrites; {
					select {
					case c := <-changes:
						batch = append(batch, c)
					default:
						more = false
					}
				}
				w.take(ctx, batch)
			case <-ctx.Done():
				return
			}
		}
	})
	for c, err := range d.link.Follow(ctx, wrappers.WriteBack, "") {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("following the log: %w", err)
		}
		if c.ReadBack {
			bg.Go(func() { d.readBack(ctx, c) })
			continue
		}
		select {
		case changes <- c:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (d *database) settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) {
	if ctx.Err() != nil && e.Outcome != wrappers.Done {
		return // unsettled changes come again
	}
	if err := d.link.Settle(context.WithoutCancel(ctx), c, e); err != nil {
		d.log.Warn("settle", "address", c.Address, "err", err)
	}
}

// readBack waits until the feed has said all there is to say of a row. To ask the server instead
// would overtake the feed: it would then show an older state after a newer one.
func (d *database) readBack(ctx context.Context, c wrappers.Change) {
	if d.notice != nil { // there is no feed to overtake
		d.ask(ctx, c)
		return
	}
	if d.marks.await(ctx, readBackWithin) {
		d.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done, Version: c.Previous})
		return
	}
	d.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Retry, Err: errors.New("the feed, which says what the row has now, does not stand")})
}

const readBackWithin = 10 * time.Second

// A writer is the session that writes rows. It belongs to one goroutine.
type writer struct {
	d      *database
	conn   *pgconn.PgConn
	cat    *catalog
	binds  binds
	read   bool // binds were read
	tables map[tableName]*table
	// accepted are states of rows that the feed did not name, and that were heard of all the same:
	// those we left, and those of which a write gave way to the feed.
	accepted map[uint64]string
	origin   bool // it was tried to mark the session
}

const mostAccepted = 100_000

func (w *writer) close() {
	if w.conn != nil {
		closeConn(w.conn)
		w.conn = nil
	}
}

func (w *writer) accept(address, state string) {
	if len(w.accepted) >= mostAccepted {
		clear(w.accepted) // it costs a second look
	}
	w.accepted[sum(address)] = state
}

// session opens the session, and refreshes what is known of mappings and tables.
func (w *writer) session(ctx context.Context) error {
	if w.conn != nil && w.conn.IsClosed() {
		w.conn = nil
	}
	if w.conn == nil {
		conn, err := w.d.w.connect(ctx, "write-back", map[string]string{"lock_timeout": "5s", "idle_in_transaction_session_timeout": "60s"})
		if err != nil {
			return err
		}
		w.conn, w.cat = conn, newCatalog(conn)
		clear(w.tables)
		if w.d.notice == nil {
			w.mark(ctx)
		}
	}
	for _, t := range w.d.takeStale() {
		delete(w.tables, t)
	}
	changed := false
	if w.read {
		select {
		case <-w.binds.changed:
			changed = true
		default:
		}
	}
	if !w.read || changed {
		w.binds, w.read = readBinds(w.d.link), true
	}
	return nil
}

// mark has the session's commits bear a replication origin of our own. They bear a message as well,
// which needs no right; the origin is for other subscribers of the server (origin = none).
func (w *writer) mark(ctx context.Context) {
	name := quoteLiteral(w.d.w.slot)
	_, err := query(ctx, w.conn, "SELECT pg_replication_origin_create("+name+") WHERE pg_replication_origin_oid("+name+") IS NULL")
	if err == nil {
		_, err = query(ctx, w.conn, "SELECT pg_replication_origin_session_setup("+name+")")
	}
	if err == nil || w.origin {
		return
	}
	w.origin = true
	text := ""
	if sqlState(err) == "42501" {
		role := quoteIdent(w.d.w.cfg.Upstreams[0].User)
		text = "GRANT EXECUTE ON FUNCTION pg_replication_origin_oid(text), pg_replication_origin_create(text), pg_replication_origin_session_setup(text) TO " + role
	}
	w.d.log.Info("the gateway's writes bear no replication origin, which other subscribers of the server could pass over; the gateway knows them all the same", "err", err, "run", text)
}

// take writes a batch, and settles all of it.
func (w *writer) take(ctx context.Context, batch []wrappers.Change) {
	err := w.session(ctx)
	if err == nil {
		err = w.write(ctx, batch)
	}
	if err == nil {
		return
	}
	if !isServers(err) { // nothing was heard of what became of it
		w.close()
		for _, c := range batch {
			w.d.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Retry, Err: err})
		}
		return
	}
	if len(batch) == 1 {
		w.d.settle(ctx, batch[0], w.refused(ctx, batch[0], err))
		return
	}
	// One of them is refused: each on its own tells which.
	w.d.link.Count("batches_split", 1)
	for i := range batch {
		if ctx.Err() != nil {
			return
		}
		w.take(ctx, batch[i:i+1])
	}
}

// isServers tells an error that the server said from a broken connection.
func isServers(err error) bool {
	var pe *pgconn.PgError
	var own *refusal
	return errors.As(err, &own) || errors.As(err, &pe) && !strings.HasPrefix(pe.Code, "57P") && !strings.HasPrefix(pe.Code, "08")
}

// A refusal is an error of a change that is found before the server is asked.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// refused judges an error of the server about one row.
func (w *writer) refused(ctx context.Context, c wrappers.Change, err error) wrappers.Effect {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
	}
	why := serverText(pe)
	switch class := pe.Code[:min(2, len(pe.Code))]; {
	case pe.Code == "23503": // the row that it refers to has not come yet, or what refers to it has not gone
		w.d.link.Count("references_awaited", 1)
		return wrappers.Effect{Outcome: wrappers.Retry, Err: why}
	case pe.Code == "23505" && c.Create && w.there(ctx, c.Address):
		return wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, "somebody else made the row meanwhile")}
	case class == "40", class == "53", class == "55", class == "57", class == "58", class == "25":
		return wrappers.Effect{Outcome: wrappers.Retry, Err: why}
	case pe.Code == "42703", pe.Code == "42P01":
		t, _, perr := parseAddress(c.Address)
		if perr == nil {
			delete(w.tables, t)
		}
	}
	return wrappers.Effect{Outcome: wrappers.Parked, Err: why}
}

// serverText is what the server said, in its own words.
func serverText(pe *pgconn.PgError) error {
	text := fmt.Sprintf("%s (SQLSTATE %s)", pe.Message, pe.Code)
	if pe.Detail != "" {
		text += ": " + pe.Detail
	}
	return errors.New(text)
}

func (w *writer) there(ctx context.Context, address string) bool {
	name, key, err := parseAddress(address)
	if err != nil || w.conn == nil || w.conn.IsClosed() {
		return false
	}
	sql, args := "SELECT 1 FROM "+name.quoted(), [][]byte(nil)
	sql += where(key, &args)
	r := w.conn.ExecParams(ctx, sql, args, nil, nil, nil).Read()
	return r.Err == nil && len(r.Rows) > 0
}

func where(key []keyColumn, args *[][]byte) string {
	var b strings.Builder
	for i, k := range key {
		if i == 0 {
			b.WriteString(" WHERE ")
		} else {
			b.WriteString(" AND ")
		}
		*args = append(*args, []byte(k.value))
		fmt.Fprintf(&b, "%s = $%d", quoteIdent(k.name), len(*args))
	}
	return b.String()
}

// A plan is what is to be done to one row.
type plan struct {
	change wrappers.Change
	table  *table
	key    []keyColumn
	shown  []string // columns that are read
	rank   int      // parents have lower ones than their children

	// As the row was found, locked.
	there  bool
	state  string // its xmin, or absent
	doc    row
	effect *wrappers.Effect // decided

	sql     string
	args    [][]byte
	meant   row
	version string
	stored  map[string][]byte
	as      *wrappers.Payload
}

const absentState = "none"

// write writes a batch in one transaction. An error: nothing was written, or nobody knows.
func (w *writer) write(ctx context.Context, batch []wrappers.Change) error {
	plans := make([]*plan, 0, len(batch))
	for _, c := range batch {
		p, err := w.plan(ctx, c)
		if err != nil {
			return err
		}
		plans = append(plans, p)
	}
	ranks(plans)
	// Rows are locked in one order by all gateways, so they don't lock each other out.
	locks := slices.Clone(plans)
	slices.SortFunc(locks, func(a, b *plan) int { return strings.Compare(a.change.Address, b.change.Address) })
	done := false
	defer func() {
		if !done && w.conn != nil && !w.conn.IsClosed() && w.conn.TxStatus() != 'I' {
			if _, err := query(context.WithoutCancel(ctx), w.conn, "ROLLBACK"); err != nil {
				w.close()
			}
		}
	}()
	if err := w.lock(ctx, locks); err != nil {
		return err
	}
	var todo []*plan
	for _, p := range plans {
		if err := w.decide(p); err != nil {
			return err
		}
		if p.effect == nil {
			todo = append(todo, p)
		}
	}
	if len(todo) > 0 {
		if err := w.apply(ctx, todo); err != nil {
			return err
		}
	}
	if _, err := query(ctx, w.conn, "COMMIT"); err != nil {
		return err
	}
	done = true
	if len(todo) > 0 {
		w.d.link.Count("rows_written", len(todo))
	}
	for _, p := range plans {
		if p.effect == nil {
			p.effect = &wrappers.Effect{Outcome: wrappers.Done, Version: wrappers.Version(p.version), AsStored: p.as}
			state := p.version
			if p.change.Gone {
				state = absentState
			}
			w.accept(p.change.Address, state)
		}
		w.d.settle(ctx, p.change, *p.effect)
	}
	return nil
}

// plan reads a change's address.
func (w *writer) plan(ctx context.Context, c wrappers.Change) (*plan, error) {
	name, key, err := parseAddress(c.Address)
	if err != nil {
		return nil, &refusal{err.Error()}
	}
	t := w.tables[name]
	if t == nil {
		if t, err = w.cat.table(ctx, name); err != nil {
			return nil, err
		}
		if t == nil {
			return nil, &refusal{fmt.Sprintf("there is no table %s in the database", name)}
		}
		w.tables[name] = t
	}
	p := &plan{change: c, table: t, key: key}
	speak, _ := w.binds.columns(t)
	for _, col := range t.columns {
		if slices.Contains(speak, col.name) || slices.ContainsFunc(key, func(k keyColumn) bool { return k.name == col.name }) {
			p.shown = append(p.shown, col.name)
		}
	}
	for _, k := range key {
		if t.column(k.name) == nil {
			return nil, &refusal{fmt.Sprintf("the table %s has no column %q", name, k.name)}
		}
	}
	return p, nil
}

// Where a row's xmin comes from: of one that is there, and of one that is inserted, of which a partitioned table doesn't say it.
const (
	rowXmin = "xmin::text"
	ourXmin = "pg_catalog.pg_current_xact_id()::xid::text"
)

func (p *plan) list(xmin string) string {
	var b strings.Builder
	b.WriteString(xmin)
	for _, c := range p.shown {
		b.WriteString(", ")
		b.WriteString(quoteIdent(c))
	}
	return b.String()
}

// lock begins the transaction and reads the rows.
func (w *writer) lock(ctx context.Context, plans []*plan) error {
	var b pgconn.Batch
	b.ExecParams("BEGIN", nil, nil, nil, nil)
	for _, p := range plans {
		sql, args := "SELECT "+p.list(rowXmin)+" FROM "+p.table.name.quoted(), [][]byte(nil)
		sql += where(p.key, &args)
		b.ExecParams(sql+" FOR UPDATE", args, nil, nil, nil)
	}
	m := w.conn.ExecBatch(ctx, &b)
	for i := -1; m.NextResult(); i++ {
		r := m.ResultReader()
		if i < 0 {
			if _, err := r.Close(); err != nil {
				return errors.Join(err, m.Close())
			}
			continue
		}
		p := plans[i]
		n := 0
		for r.NextRow() {
			n++
			p.found(w.d, r.Values())
		}
		if _, err := r.Close(); err != nil {
			return errors.Join(err, m.Close())
		}
		if n > 1 {
			_ = m.Close()
			return &refusal{fmt.Sprintf("%d rows of %s have this key", n, p.table.name)}
		}
	}
	return m.Close()
}

// found takes in the row as it is.
func (p *plan) found(d *database, values [][]byte) {
	p.there, p.state, p.doc = true, string(values[0]), row{}
	cells := map[string][]byte{}
	for i, c := range p.shown {
		text := values[i+1]
		cells[c] = text
		p.doc[c] = nil
		if text != nil {
			p.doc[c] = d.read(p.table.name, c, p.table.column(c).typ, text)
		}
	}
	for name, as := range d.renders.get(p.change.Address) {
		if text, shown := cells[name]; shown && as.is(text) {
			p.doc[name] = as.meant()
		}
	}
}

// decide makes the statement for a row, or says that there is nothing to do or that somebody else
// was there.
func (w *writer) decide(p *plan) error {
	c := p.change
	if !p.there {
		p.state = absentState
	}
	want := row{}
	if !c.Gone {
		pay := c.Payload
		if c.Onto != nil && p.there {
			raw, err := p.doc.encode()
			if err == nil {
				pay, err = c.Onto(wrappers.Payload{Raw: raw, Type: rowType})
			}
			if err != nil {
				return &refusal{err.Error()}
			}
		}
		var err error
		if want, err = decodeRow(pay.Raw); err != nil {
			return &refusal{err.Error()}
		}
	}
	changed := w.differs(p, want)
	if c.Gone && !p.there || !c.Gone && p.there && len(changed) == 0 {
		p.effect = &wrappers.Effect{Outcome: wrappers.Done, Version: wrappers.Version(p.state)}
		return nil
	}
	expected := string(c.Previous)
	if c.Create {
		expected = absentState
	}
	if expected != "" && p.state != expected && w.accepted[sum(c.Address)] != p.state {
		// Somebody changed the row, and the feed has yet to say so. When it has, the next try is for
		// this state.
		w.accept(c.Address, p.state)
		w.d.link.Count("conflicts", 1)
		p.effect = &wrappers.Effect{Outcome: wrappers.Retry, Err: wrappers.Refuse(wrappers.ErrConflict, "the row has been changed meanwhile")}
		return nil
	}
	switch {
	case c.Gone:
		p.sql = "DELETE FROM " + p.table.name.quoted()
		p.sql += where(p.key, &p.args) + " RETURNING xmin::text"
		return nil
	case p.there:
		return w.update(p, want, changed)
	}
	return w.insert(p, want)
}

// differs lists the columns that are to get another value; nil in want where they are to be NULL.
func (w *writer) differs(p *plan, want row) []string {
	var out []string
	for name, v := range want {
		c := p.table.column(name)
		switch {
		case p.isKey(name):
		case c == nil && v == nil:
		case c == nil || !c.typ.same(p.doc[name], v):
			out = append(out, name)
		}
	}
	for name, v := range p.doc {
		if _, stays := want[name]; !stays && v != nil && !p.isKey(name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (p *plan) isKey(name string) bool {
	return slices.ContainsFunc(p.key, func(k keyColumn) bool { return k.name == name })
}

// argument adds a value as a parameter.
func (p *plan) argument(name string, v any) (string, error) {
	c := p.table.column(name)
	switch {
	case c == nil:
		return "", &refusal{fmt.Sprintf("the table %s has no column %q", p.table.name, name)}
	case c.readOnly:
		return "", &refusal{fmt.Sprintf("the column %q of %s is generated by the database", name, p.table.name)}
	}
	text, ok, err := c.typ.text(v)
	if err != nil {
		return "", &refusal{fmt.Sprintf("column %q: %v", name, err)}
	}
	if strings.IndexByte(text, 0) >= 0 {
		return "", &refusal{fmt.Sprintf("column %q: PostgreSQL has no text with a zero byte", name)}
	}
	arg := []byte(text)
	if !ok {
		arg = nil
	} else if arg == nil {
		arg = []byte{}
	}
	p.args = append(p.args, arg)
	return fmt.Sprintf("$%d", len(p.args)), nil
}

func (w *writer) update(p *plan, want row, changed []string) error {
	p.meant = row{}
	sets := make([]string, len(changed))
	for i, name := range changed {
		p.meant[name] = want[name]
		arg, err := p.argument(name, want[name])
		if err != nil {
			return err
		}
		sets[i] = quoteIdent(name) + " = " + arg
	}
	for name, v := range p.doc { // the rest means what it meant
		if _, set := p.meant[name]; !set {
			p.meant[name] = v
		}
	}
	p.sql = "UPDATE " + p.table.name.quoted() + " SET " + strings.Join(sets, ", ")
	p.sql += where(p.key, &p.args) + " RETURNING " + p.list(rowXmin)
	return nil
}

func (w *writer) insert(p *plan, want row) error {
	p.meant = row{}
	var names, values []string
	always := false
	for _, k := range p.key {
		names = append(names, quoteIdent(k.name))
		p.args = append(p.args, []byte(k.value))
		values = append(values, fmt.Sprintf("$%d", len(p.args)))
		always = always || p.table.column(k.name).always
	}
	for _, name := range sortedNames(want) {
		v := want[name]
		if p.isKey(name) || v == nil {
			continue
		}
		arg, err := p.argument(name, v)
		if err != nil {
			return err
		}
		p.meant[name] = v
		names, values = append(names, quoteIdent(name)), append(values, arg)
	}
	overriding := ""
	if always {
		overriding = " OVERRIDING SYSTEM VALUE"
	}
	p.sql = "INSERT INTO " + p.table.name.quoted() + " (" + strings.Join(names, ", ") + ")" + overriding +
		" VALUES (" + strings.Join(values, ", ") + ") RETURNING " + p.list(ourXmin)
	return nil
}

func sortedNames(r row) []string {
	names := make([]string, 0, len(r))
	for n := range r {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// ranks orders tables so that a row comes after those it refers to, as far as that is possible.
func ranks(plans []*plan) {
	rank := map[tableName]int{}
	tables := map[tableName]*table{}
	for _, p := range plans {
		tables[p.table.name] = p.table
	}
	for range len(tables) { // as often as the longest chain may be long
		for name, t := range tables {
			for _, ref := range t.refs {
				if ref != name && tables[ref] != nil && rank[name] <= rank[ref] {
					rank[name] = rank[ref] + 1
				}
			}
		}
	}
	for _, p := range plans {
		p.rank = rank[p.table.name]
	}
	// What goes, goes first, children before parents; then what comes, parents before children.
	slices.SortStableFunc(plans, func(a, b *plan) int {
		switch {
		case a.change.Gone != b.change.Gone:
			if a.change.Gone {
				return -1
			}
			return 1
		case a.change.Gone:
			return b.rank - a.rank
		}
		return a.rank - b.rank
	})
}

// apply writes the rows inside the transaction, and notes durably where the server made something
// else of them.
func (w *writer) apply(ctx context.Context, plans []*plan) error {
	var own strings.Builder
	own.WriteString(ownKind + w.d.w.cfg.Endpoint)
	for _, p := range plans {
		own.WriteString("\n" + p.change.Address)
	}
	var b pgconn.Batch
	first := 0
	if w.d.notice == nil {
		first = -1
		b.ExecParams("SELECT pg_logical_emit_message(true, $1::text, $2::text)", [][]byte{[]byte(markPrefix), []byte(own.String())}, nil, nil, nil)
	}
	for _, p := range plans {
		b.ExecParams(p.sql, p.args, nil, nil, nil)
	}
	m := w.conn.ExecBatch(ctx, &b)
	for i := first; m.NextResult(); i++ {
		r := m.ResultReader()
		n := 0
		for r.NextRow() {
			if n++; i >= 0 {
				plans[i].wrote(r.Values())
			}
		}
		if _, err := r.Close(); err != nil {
			return errors.Join(err, m.Close())
		}
		if i >= 0 && n != 1 {
			_ = m.Close()
			return &refusal{fmt.Sprintf("the server took the statement and changed %d rows: a trigger or rule of %s holds it back", n, plans[i].table.name)}
		}
	}
	if err := m.Close(); err != nil {
		return err
	}
	var notes []wrappers.Record
	for _, p := range plans {
		if p.change.Gone {
			notes = append(notes, w.d.renders.drop(p.change.Address)...)
			continue
		}
		if raw, err := p.asShown().encode(); err == nil {
			p.as = &wrappers.Payload{Raw: raw, Type: rowType}
		}
		other := renderings{}
		if m := compare(p.table, p.meant, p.others()); m != nil {
			other = m
		}
		if len(other) > 0 || w.d.renders.has(p.change.Address) {
			notes = append(notes, w.d.renders.record(p.change.Address, other))
		}
	}
	if len(notes) == 0 {
		return nil
	}
	return w.d.link.Keep(ctx, notes...)
}

// wrote takes in the row as the server has it now.
func (p *plan) wrote(values [][]byte) {
	p.version = string(values[0])
	if p.change.Gone {
		return
	}
	p.stored = map[string][]byte{}
	for i, c := range p.shown {
		text := values[i+1]
		if text != nil {
			text = append([]byte{}, text...)
		}
		p.stored[c] = text
	}
}

// asShown is the row as the feed will show it.
func (p *plan) asShown() row {
	out := row{}
	for name, text := range p.stored {
		out[name] = nil
		if v, err := p.table.column(name).typ.value(text); err == nil && text != nil {
			out[name] = v
		}
		if v, meant := p.meant[name]; meant {
			out[name] = v
		}
	}
	return out
}

// others are the stored columns that are not in the key.
func (p *plan) others() map[string][]byte {
	out := make(map[string][]byte, len(p.stored))
	for name, text := range p.stored {
		if !p.isKey(name) {
			out[name] = text
		}
	}
	return out
}
