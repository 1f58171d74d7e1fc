package virtual

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// rows is where the rows of a result come from.
type rows interface {
	// next gives a row, valid until the next call; nil: there are no more.
	next() ([]pgsql.Value, error)
	close()
}

// madeRows are rows that are all there.
type madeRows [][]pgsql.Value

func (m *madeRows) next() ([]pgsql.Value, error) {
	if len(*m) == 0 {
		return nil, nil
	}
	r := (*m)[0]
	*m = (*m)[1:]
	return r, nil
}

func (m *madeRows) close() { *m = nil }

// queryRows are rows that are evaluated as they are asked for.
type queryRows struct {
	se     *session
	pool   *pool
	c      *conn
	s      *sqlite3.Stmt
	sql    string
	run    *run
	cancel context.CancelCauseFunc
	stop   func()
	row    []pgsql.Value
}

// context makes the context of a statement, which a cancel request or its time ends.
func (se *session) context() (context.Context, context.CancelCauseFunc, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := func() {}
	if t := se.settings.timeout; t > 0 {
		timer := time.AfterFunc(t, func() { cancel(errTimeout) })
		stop = func() { timer.Stop() }
	}
	se.mu.Lock()
	se.cancel = cancel
	se.mu.Unlock()
	return ctx, cancel, stop
}

func (se *session) now() time.Time {
	if se.block {
		return se.txNow
	}
	return time.Now()
}

// open begins the evaluation of a query.
func (se *session) open(sql string, columns int, params []pgsql.Value, x *tx) (*queryRows, error) {
	p := se.server.pools.Load()
	ctx, cancel, stop := se.context()
	q := &queryRows{se: se, pool: p, sql: sql, cancel: cancel, stop: stop, run: &run{ctx: ctx, session: se, tx: x, now: se.now()}}
	c, err := p.get(ctx)
	if err != nil {
		q.end()
		return nil, err
	}
	q.c = c
	c.begin(q.run)
	if q.s, err = c.prepare(sql); err != nil {
		err = c.trouble(q.run, err)
		q.close()
		return nil, err
	}
	if n := q.s.ColumnCount(); n != columns && columns > 0 {
		q.close()
		return nil, fmt.Errorf("%d columns came of %d", n, columns)
	}
	if err := bindAll(q.s, params, 0, nil); err != nil {
		err = c.trouble(q.run, err)
		q.close()
		return nil, err
	}
	q.row = make([]pgsql.Value, columns)
	return q, nil
}

func (q *queryRows) next() ([]pgsql.Value, error) {
	if q.s == nil {
		return nil, nil
	}
	q.c.run, q.c.err = q.run, nil
	if q.s.Step() {
		for i := range q.row {
			q.row[i] = columnValue(q.s, i)
		}
		return q.row, nil
	}
	err := q.c.trouble(q.run, q.s.Err())
	q.close()
	return nil, err
}

func (q *queryRows) close() {
	if q.s != nil {
		q.c.done(q.sql, q.s)
		q.s = nil
	}
	if q.c != nil {
		q.pool.put(q.c)
		q.c = nil
	}
	q.end()
}

func (q *queryRows) end() {
	q.stop()
	q.cancel(nil)
}

// A result is what a statement has come to.
type result struct {
	tag  string
	rows rows // nil: it gives none
	n    int64
}

// redo is a change that can be done again when somebody came between: the only one since the last Sync, none of whose
// answer has left.
type redo struct {
	again func() error
	at    int64 // of its answer
	more  bool  // it is not alone
}

// mostTries is how often a change outside of a block is done again.
const mostTries = 20

var errReadOnly = &pgsql.Error{Code: "25006", Message: "cannot execute this statement in a read-only transaction"}

// perform does one statement but COPY and EXECUTE. Rows that come of it are to be closed.
func (se *session) perform(st *pgsql.Statement, params []pgsql.Value) (*result, error) {
	if se.block && se.failed && st.Kind != pgsql.Commit && st.Kind != pgsql.Rollback && st.Kind != pgsql.RollbackTo {
		return nil, errAborted
	}
	switch st.Kind {
	case pgsql.Select, pgsql.Declare:
		x := se.tx
		if x == nil {
			x = newTx(se.server.link, se.who)
		}
		if st.Kind == pgsql.Declare {
			return se.declare(st, params)
		}
		if st.Lock && se.block {
			x.strict = true
		}
		if n := len(st.Columns); n == 0 {
			return &result{tag: "SELECT", rows: &madeRows{}}, nil
		}
		q, err := se.open(st.SQL, len(st.Columns), params, x)
		if err != nil {
			return nil, err
		}
		return &result{tag: "SELECT", rows: q}, nil
	case pgsql.Insert, pgsql.Update, pgsql.Delete, pgsql.Truncate:
		return se.change(st, params)
	case pgsql.Explain:
		return se.explain(st, params)
	}
	return se.control(st)
}

// writable gives the transaction that a change belongs to.
func (se *session) writable() (*tx, error) {
	if only, _ := se.settings.show("transaction_read_only"); se.readOnly || only == "on" {
		return nil, errReadOnly
	}
	if !se.who.Verified && se.server.Config.Anonymous < wrappers.WriteAccess {
		return nil, &pgsql.Error{Code: "42501", Message: "permission denied: log on first"}
	}
	if se.tx == nil {
		se.tx = newTx(se.server.link, se.who)
		se.tx.strict = se.isolation() == "serializable" || se.isolation() == "repeatable read"
	}
	return se.tx, nil
}

func (se *session) isolation() string {
	v, _ := se.settings.show("transaction_isolation")
	return v
}

// change does INSERT, UPDATE, DELETE and TRUNCATE.
func (se *session) change(st *pgsql.Statement, params []pgsql.Value) (*result, error) {
	x, err := se.writable()
	if err != nil {
		return nil, err
	}
	t := se.schema().rows(st.Table)
	if t == nil {
		return nil, pgsql.Errorf(pgsql.UndefinedTable, "relation \"%s\" does not exist", st.Table.Name)
	}
	if !t.inAny {
		return nil, &pgsql.Error{Code: "42501", Message: "permission denied for table " + t.Name, Detail: "Its binds carry nothing inward."}
	}
	p := se.server.pools.Load()
	ctx, cancel, stop := se.context()
	defer cancel(nil)
	defer stop()
	c, err := p.get(ctx)
	if err != nil {
		return nil, err
	}
	defer p.put(c)
	e := &changing{st: st, t: t, params: params, c: c, run: &run{ctx: ctx, session: se, tx: x, now: se.now()}, zone: se.settings.zone}
	mark := x.mark()
	if st.Kind == pgsql.Insert {
		err = e.insert()
	} else {
		err = e.update()
	}
	if err != nil {
		x.back(mark)
		return nil, err
	}
	r := &result{tag: st.Tag, n: e.n}
	if st.Returning != "" {
		r.rows = &e.returned
	}
	return r, nil
}

// changing is one change at work.
type changing struct {
	st       *pgsql.Statement
	t        *table
	params   []pgsql.Value
	c        *conn
	run      *run
	zone     *time.Location
	n        int64
	returned madeRows
	size     int
}

// collect evaluates the rows that the change works on, all before the first is changed.
func (e *changing) collect(columns int) ([][]pgsql.Value, error) {
	var all [][]pgsql.Value
	size := 0
	err := e.c.query(e.run, e.st.SQL, e.params, 0, nil, columns, func(row []pgsql.Value) error {
		for i := range row {
			size += 40 + len(row[i].Str)
		}
		if len(all) >= mostChanges || size > 4*mostStaged {
			return errTooMuch
		}
		all = append(all, slices.Clone(row))
		return nil
	})
	return all, err
}

// assign puts a value into a column.
func (e *changing) assign(row []pgsql.Value, column int, v pgsql.Value, from pgsql.OID) error {
	c := &e.t.Columns[column]
	if !e.t.in[column] {
		return &pgsql.Error{Code: "428C9", Message: fmt.Sprintf("column \"%s\" can only be read here", c.Name), Detail: "Its bind carries it outward only."}
	}
	v, err := pgsql.Assign(v, from, c.Type, e.zone)
	if err != nil {
		var pe *pgsql.Error
		if errors.As(err, &pe) && pe.Code == pgsql.DatatypeMismatch {
			return &pgsql.Error{Code: pe.Code, Message: fmt.Sprintf("column \"%s\" is of type %s but expression is of type %s", c.Name, pgsql.TypeOf(c.Type).SQL, pgsql.TypeOf(from).SQL), Hint: pe.Hint}
		}
		return err
	}
	row[column] = v
	return nil
}

// address gives the address of a row that is put.
func (e *changing) address(row []pgsql.Value) (string, error) {
	a, ok := e.t.addressOf(row)
	if ok {
		return a, nil
	}
	for _, k := range e.t.keys {
		c := e.t.Columns[k.column]
		if row[k.column].IsNull() {
			return "", &pgsql.Error{Code: "23502", Message: fmt.Sprintf("null value in column \"%s\" of relation \"%s\" violates not-null constraint", c.Name, e.t.Name)}
		}
	}
	return "", &pgsql.Error{Code: "23514", Message: fmt.Sprintf("the key of relation \"%s\" can't hold an empty text", e.t.Name)}
}

func (e *changing) duplicate(row []pgsql.Value) error {
	var names, values []string
	for _, k := range e.t.keys {
		c := e.t.Columns[k.column]
		names = append(names, c.Name)
		values = append(values, string(pgsql.AppendText(nil, row[k.column], c.Type, e.zone)))
	}
	return &pgsql.Error{Code: "23505", Message: fmt.Sprintf("duplicate key value violates unique constraint \"%s_pkey\"", e.t.Name),
		Detail: fmt.Sprintf("Key (%s)=(%s) already exists.", strings.Join(names, ", "), strings.Join(values, ", "))}
}

func (e *changing) holds(row []pgsql.Value) bool {
	for i := range row {
		if !e.t.isKey(i) && e.t.in[i] && !row[i].IsNull() {
			return true
		}
	}
	return false
}

func (e *changing) insert() error {
	all, err := e.collect(len(e.st.Targets))
	if err != nil {
		return err
	}
	done := map[string]bool{}
	for _, given := range all {
		row := make([]pgsql.Value, len(e.t.Columns))
		for i, column := range e.st.Targets {
			if err := e.assign(row, column, given[i], e.st.Types[i]); err != nil {
				return err
			}
		}
		if err := e.put(row, done); err != nil {
			return err
		}
	}
	return nil
}

// put inserts one row, or does what ON CONFLICT says.
func (e *changing) put(row []pgsql.Value, done map[string]bool) error {
	address, err := e.address(row)
	if err != nil {
		return err
	}
	if e.st.Conflict.Same && e.st.Returning == "" && !done[address] && e.holds(row) {
		touched := make([]bool, len(row))
		for _, column := range e.st.Conflict.Targets {
			touched[column] = true
		}
		if is, err := e.run.tx.over(e.t, address, row, touched); is {
			done[address] = true
			e.n++
			return err
		}
	}
	there, err := e.run.tx.get(e.run.ctx, e.t, address)
	if err != nil {
		return err
	}
	if there == nil {
		if !e.holds(row) {
			return &pgsql.Error{Code: "23514", Message: fmt.Sprintf("a row of relation \"%s\" needs a value beside its key", e.t.Name),
				Detail: "It is a register, which is there by what it holds."}
		}
		if done != nil {
			done[address] = true
		}
		if err := e.run.tx.stage(e.t, address, "", row, nil); err != nil {
			return err
		}
		e.n++
		return e.tell(row)
	}
	switch e.st.Conflict.Do {
	case pgsql.ConflictNothing:
		return nil
	case pgsql.ConflictError:
		return e.duplicate(row)
	}
	if done[address] {
		return &pgsql.Error{Code: "21000", Message: "ON CONFLICT DO UPDATE command cannot affect row a second time"}
	}
	done[address] = true
	c := &e.st.Conflict
	fresh := slices.Clone(there.values)
	touched := make([]bool, len(fresh))
	if c.Direct != nil {
		for i, column := range c.Targets {
			if err := e.assign(fresh, column, row[c.Direct[i]], c.Types[i]); err != nil {
				return err
			}
			touched[column] = true
		}
		return e.replace(address, there, fresh, touched)
	}
	hold := false
	bound := append(slices.Clone(there.values), row...)
	err = e.c.query(e.run, c.SQL, e.params, c.Base, bound, len(c.Targets)+1, func(v []pgsql.Value) error {
		if hold = v[len(v)-1].Kind == pgsql.Int && v[len(v)-1].Int != 0; !hold {
			return nil
		}
		for i, column := range c.Targets {
			if err := e.assign(fresh, column, v[i], c.Types[i]); err != nil {
				return err
			}
			touched[column] = true
		}
		return nil
	})
	if err != nil || !hold {
		return err
	}
	return e.replace(address, there, fresh, touched)
}

func (e *changing) replace(address string, there *row, fresh []pgsql.Value, touched []bool) error {
	if err := e.run.tx.stage(e.t, address, there.version, fresh, touched); err != nil {
		return err
	}
	e.n++
	return e.tell(fresh)
}

// update does UPDATE, DELETE and TRUNCATE: each row comes as it is, with its version, and the new values.
func (e *changing) update() error {
	n := len(e.t.Columns)
	all, err := e.collect(n + 1 + len(e.st.Targets))
	if err != nil {
		return err
	}
	x := e.run.tx
	seen := make(map[string]bool, len(all))
	for _, given := range all {
		old, version := given[:n:n], wrappers.Version(given[n].Str)
		address, ok := e.t.addressOf(old)
		if !ok || seen[address] {
			continue
		}
		seen[address] = true
		if e.st.Kind != pgsql.Update {
			if err := x.stage(e.t, address, version, nil, nil); err != nil {
				return err
			}
			e.n++
			if err := e.tell(old); err != nil {
				return err
			}
			continue
		}
		fresh := slices.Clone(old)
		touched := make([]bool, n)
		for i, column := range e.st.Targets {
			if err := e.assign(fresh, column, given[n+1+i], e.st.Types[i]); err != nil {
				return err
			}
			touched[column] = true
		}
		to, err := e.address(fresh)
		if err != nil {
			return err
		}
		if to != address {
			there, err := x.get(e.run.ctx, e.t, to)
			if err != nil {
				return err
			}
			if there != nil {
				return e.duplicate(fresh)
			}
			if err := x.stage(e.t, address, version, nil, nil); err != nil {
				return err
			}
			version, touched = "", nil
		}
		if err := x.stage(e.t, to, version, fresh, touched); err != nil {
			return err
		}
		e.n++
		if err := e.tell(fresh); err != nil {
			return err
		}
	}
	return nil
}

// tell evaluates RETURNING for one row.
func (e *changing) tell(row []pgsql.Value) error {
	if e.st.Returning == "" {
		return nil
	}
	return e.c.query(e.run, e.st.Returning, e.params, e.st.ReturnBase, row, len(e.st.Columns), func(v []pgsql.Value) error {
		for i := range v {
			e.size += 40 + len(v[i].Str)
		}
		if e.size > mostStaged {
			return errTooMuch
		}
		e.returned = append(e.returned, slices.Clone(v))
		return nil
	})
}

// explain shows how SQLite goes about it.
func (se *session) explain(st *pgsql.Statement, params []pgsql.Value) (*result, error) {
	x := newTx(se.server.link, se.who)
	q, err := se.open("EXPLAIN QUERY PLAN "+st.SQL, 4, params, x)
	if err != nil {
		return nil, err
	}
	defer q.close()
	var out madeRows
	for {
		r, err := q.next()
		if err != nil {
			return nil, err
		}
		if r == nil {
			return &result{tag: "EXPLAIN", rows: &out}, nil
		}
		out = append(out, []pgsql.Value{pgsql.StrValue(r[3].Str)})
	}
}

// commit writes what has been staged.
func (se *session) commit() error {
	x := se.tx
	se.tx = nil
	if x == nil {
		return nil
	}
	ctx, cancel, stop := se.context()
	defer cancel(nil)
	defer stop()
	if err := x.commit(ctx); err != nil {
		return err
	}
	se.txid++
	for _, n := range x.notify {
		se.server.hub.send(n, nil)
	}
	return nil
}

// settle commits what was done outside of a block, doing it again when somebody came between.
func (se *session) settle() error {
	if se.block || se.tx == nil {
		se.redo = nil
		return nil
	}
	r := se.redo
	se.redo = nil
	for try := 1; ; try++ {
		asks := se.tx.asks()
		err := se.commit()
		if err == nil || wrappers.Kind(err) != wrappers.ErrConflict || isSQL(err) || !asks || r == nil || r.more || try == mostTries || !se.unsend(r.at) {
			if err != nil && r != nil && !r.more {
				se.unsend(r.at)
			}
			return err
		}
		se.server.link.Count("retries", 1)
		if err := r.again(); err != nil {
			se.tx = nil
			se.unsend(r.at)
			return err
		}
		if se.tx == nil {
			return nil // there is nothing left to do
		}
	}
}

func isSQL(err error) bool {
	var e *pgsql.Error
	return errors.As(err, &e)
}

// note remembers how to do a change again.
func (se *session) note(at int64, again func() error) {
	switch {
	case se.block:
	case se.redo == nil:
		se.redo = &redo{at: at, again: again}
	default:
		se.redo.more = true
	}
}

// once says that what is done now can't be done again: its rows come from the client.
func (se *session) once() {
	if !se.block {
		se.redo = &redo{more: true}
	}
}

// abort gives up what was staged because of an error.
func (se *session) abort() {
	se.redo = nil
	if se.block {
		se.failed = true
		return
	}
	se.tx = nil
}

func (r *result) complete() string {
	switch {
	case r.tag == "SELECT", r.tag == "UPDATE", r.tag == "DELETE", r.tag == "INSERT 0", r.tag == "COPY", r.tag == "FETCH", r.tag == "MOVE":
		return r.tag + " " + strconv.FormatInt(r.n, 10)
	}
	return r.tag
}
