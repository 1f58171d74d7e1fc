package virtual

import (
	"context"
	"errors"
	"fmt"
	"strconv"
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
