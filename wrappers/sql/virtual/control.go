package virtual

import (
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// control does what is neither a query nor a change.
func (se *session) control(st *pgsql.Statement) (*result, error) {
	r := &result{tag: st.Tag}
	switch st.Kind {
	case pgsql.Begin:
		if se.block {
			se.warn("25001", "there is already a transaction in progress")
			return r, se.modes(st.Flags, true)
		}
		if err := se.settle(); err != nil {
			return nil, err
		}
		se.begin()
		return r, se.modes(st.Flags, true)
	case pgsql.Commit:
		if !se.block {
			se.warn("25P01", "there is no transaction in progress")
			return r, nil
		}
		if se.failed {
			r.tag = "ROLLBACK"
			se.rollback(st.Flags.Chain)
			return r, nil
		}
		se.closeCursors()
		if err := se.commit(); err != nil {
			se.rollback(st.Flags.Chain)
			return nil, err
		}
		for _, f := range se.listens {
			f()
		}
		for name, v := range se.local {
			_ = se.settings.set(name, v) // it was there before
			se.report(name)
		}
		se.finish(st.Flags.Chain)
		return r, nil
	case pgsql.Rollback:
		if !se.block {
			se.warn("25P01", "there is no transaction in progress")
			return r, nil
		}
		se.rollback(st.Flags.Chain)
		return r, nil
	case pgsql.Savepoint, pgsql.Release, pgsql.RollbackTo:
		return r, se.savepoint(st)
	case pgsql.SetTransaction:
		if st.Name == "session" {
			if st.Flags.Isolation != "" {
				_ = se.settings.set("default_transaction_isolation", st.Flags.Isolation)
			}
			if f := st.Flags.ReadOnly; f != nil {
				_ = se.settings.set("default_transaction_read_only", map[bool]string{true: "on", false: "off"}[*f])
				se.report("default_transaction_read_only")
			}
			return r, nil
		}
		if !se.block {
			se.warn("25P01", "SET TRANSACTION can only be used in transaction blocks")
			return r, nil
		}
		return r, se.modes(st.Flags, false)
	case pgsql.Set:
		return r, se.setSetting(st.Name, st.Text, st.Local)
	case pgsql.Reset:
		if st.Name == "all" {
			for _, name := range se.settings.names() {
				se.reset(name)
			}
			return r, nil
		}
		if _, ok := se.settings.show(st.Name); !ok {
			return nil, noSetting(st.Name)
		}
		se.reset(st.Name)
		return r, nil
	case pgsql.Show:
		var out madeRows
		if st.Name == "all" {
			for _, n := range se.settings.names() {
				v, _ := se.settings.show(n)
				out = append(out, []pgsql.Value{pgsql.StrValue(n), pgsql.StrValue(v), pgsql.StrValue("")})
			}
		} else {
			v, ok := se.settings.show(st.Name)
			if !ok {
				return nil, noSetting(st.Name)
			}
			out = append(out, []pgsql.Value{pgsql.StrValue(v)})
		}
		r.rows = &out
		return r, nil
	case pgsql.Listen:
		se.later(func() { se.server.hub.listen(se, st.Name) })
		return r, nil
	case pgsql.Unlisten:
		se.later(func() { se.server.hub.unlisten(se, st.Name) })
		return r, nil
	case pgsql.Notify:
		x := se.tx
		if x == nil {
			x = newTx(se.server.link, se.who)
			se.tx = x
		}
		return r, se.notifyIn(x, st.Name, st.Text)
	case pgsql.Deallocate:
		if st.Name == "" {
			se.prepared = nil
			return r, nil
		}
		if se.prepared[st.Name] == nil {
			return nil, pgsql.Errorf("26000", "prepared statement \"%s\" does not exist", st.Name)
		}
		delete(se.prepared, st.Name)
		return r, nil
	case pgsql.Discard:
		if st.Name == "all" {
			if se.block {
				return nil, pgsql.Errorf("25001", "DISCARD ALL cannot run inside a transaction block")
			}
			se.prepared = nil
			se.closePortals()
			se.server.hub.unlisten(se, "")
			for _, name := range se.settings.names() {
				se.reset(name)
			}
		}
		return r, nil
	case pgsql.Prepare:
		if se.prepared[st.Name] != nil {
			return nil, pgsql.Errorf("42P05", "prepared statement \"%s\" already exists", st.Name)
		}
		return r, se.prepare(st.Name, st.Text, st.Params)
	case pgsql.Fetch:
		return se.fetch(st)
	case pgsql.CloseCursor:
		if st.Name == "" {
			se.closeCursors()
			return r, nil
		}
		if se.portals[st.Name] == nil {
			return nil, pgsql.Errorf("34000", "cursor \"%s\" does not exist", st.Name)
		}
		se.closePortal(st.Name)
		return r, nil
	}
	return r, nil
}

// later does something with the end of the transaction.
func (se *session) later(f func()) {
	if se.block {
		se.listens = append(se.listens, f)
		return
	}
	f()
}

func (se *session) begin() {
	se.block, se.failed, se.txNow, se.saves, se.listens, se.local = true, false, time.Now(), nil, nil, nil
	se.before = se.settings.clone()
	se.tx = newTx(se.server.link, se.who)
	se.tx.block = true
	v, _ := se.settings.show("default_transaction_read_only")
	_ = se.settings.set("transaction_read_only", v)
	se.readOnly = v == "on"
	v, _ = se.settings.show("default_transaction_isolation")
	_ = se.settings.set("transaction_isolation", v)
	se.tx.strict = v == "serializable" || v == "repeatable read"
}

// modes sets the modes of the block that has begun.
func (se *session) modes(f pgsql.Flags, _ bool) error {
	if f.Isolation != "" {
		if se.tx.mark() > 0 {
			return pgsql.Errorf("25001", "SET TRANSACTION ISOLATION LEVEL must be called before any query")
		}
		_ = se.settings.set("transaction_isolation", f.Isolation)
		se.tx.strict = f.Isolation == "serializable" || f.Isolation == "repeatable read"
	}
	if f.ReadOnly != nil {
		se.readOnly = *f.ReadOnly
		_ = se.settings.set("transaction_read_only", map[bool]string{true: "on", false: "off"}[se.readOnly])
	}
	return nil
}

// finish ends the block; what it set for itself is as before.
func (se *session) finish(chain bool) {
	se.block, se.failed, se.readOnly, se.tx, se.saves, se.listens, se.local = false, false, false, nil, nil, nil, nil
	modes := map[string]string{}
	for _, name := range []string{"transaction_isolation", "transaction_read_only"} {
		modes[name], _ = se.settings.show(name)
		delete(se.settings.values, name)
	}
	if chain {
		se.begin()
		_ = se.settings.set("transaction_isolation", modes["transaction_isolation"])
		se.readOnly = modes["transaction_read_only"] == "on"
		se.tx.strict = modes["transaction_isolation"] == "serializable" || modes["transaction_isolation"] == "repeatable read"
	}
}

func (se *session) rollback(chain bool) {
	se.closeCursors()
	now := se.settings
	if se.before != nil {
		for name := range reported {
			a, _ := now.show(name)
			if b, _ := se.before.show(name); a != b {
				defer se.report(name)
			}
		}
		se.before.values["transaction_isolation"], _ = now.show("transaction_isolation")
		se.before.values["transaction_read_only"], _ = now.show("transaction_read_only")
		se.settings = se.before
		se.before = nil
	}
	se.finish(chain)
}

func (se *session) savepoint(st *pgsql.Statement) error {
	if !se.block {
		return pgsql.Errorf("25P01", "%s can only be used in transaction blocks", st.Tag)
	}
	if st.Kind == pgsql.Savepoint {
		if len(se.saves) >= 1000 {
			return pgsql.Errorf("54000", "too many savepoints")
		}
		se.saves = append(se.saves, savepoint{st.Name, se.tx.mark()})
		return nil
	}
	i := len(se.saves) - 1
	for i >= 0 && se.saves[i].name != st.Name {
		i--
	}
	if i < 0 {
		return pgsql.Errorf("3B001", "savepoint \"%s\" does not exist", st.Name)
	}
	if st.Kind == pgsql.Release {
		se.saves = se.saves[:i]
		return nil
	}
	se.tx.back(se.saves[i].mark)
	se.saves = se.saves[:i+1]
	se.failed = false
	return nil
}

// setSetting does SET, and tells the client what it is told of.
func (se *session) setSetting(name, value string, local bool) error {
	name = strings.ToLower(name)
	old, had := se.settings.show(name)
	if local && !se.block {
		se.warn("25P01", "SET LOCAL can only be used in transaction blocks")
		return nil
	}
	if err := se.settings.set(name, value); err != nil {
		return err
	}
	if local {
		if se.local == nil {
			se.local = map[string]string{}
		}
		if _, known := se.local[name]; !known && had {
			se.local[name] = old
		}
	} else {
		delete(se.local, name)
	}
	if name == "transaction_isolation" && se.tx != nil {
		se.tx.strict = value == "serializable" || value == "repeatable read"
	}
	if name == "transaction_read_only" && se.block {
		v, _ := se.settings.show(name)
		se.readOnly = v == "on"
	}
	se.report(name)
	return nil
}

func (se *session) reset(name string) {
	if fixed[name] || name == "session_authorization" {
		return
	}
	delete(se.settings.values, name)
	switch name {
	case "timezone":
		se.settings.zone = time.UTC
	case "statement_timeout":
		se.settings.timeout = 0
	case "idle_in_transaction_session_timeout":
		se.settings.idle = 0
	}
	se.report(name)
}

func (se *session) report(name string) {
	if title, ok := reported[name]; ok {
		v, _ := se.settings.show(name)
		se.send(&pgproto3.ParameterStatus{Name: title, Value: v})
	}
}

// declare opens a cursor.
func (se *session) declare(st *pgsql.Statement, params []pgsql.Value) (*result, error) {
	if !se.block {
		return nil, pgsql.Errorf("25P01", "DECLARE CURSOR can only be used in transaction blocks")
	}
	if se.portals[st.Name] != nil {
		return nil, pgsql.Errorf("42P03", "cursor \"%s\" already exists", st.Name)
	}
	if len(se.portals) >= mostPortals {
		return nil, pgsql.Errorf("54000", "too many cursors")
	}
	copied := *st
	copied.Kind, copied.Tag = pgsql.Select, "SELECT"
	se.keep(st.Name, &portal{st: &copied, params: slices.Clone(params), cursor: true})
	return &result{tag: st.Tag}, nil
}

// fetch reads on in a cursor.
func (se *session) fetch(st *pgsql.Statement) (*result, error) {
	p := se.portals[st.Name]
	if p == nil || !p.cursor {
		return nil, pgsql.Errorf("34000", "cursor \"%s\" does not exist", st.Name)
	}
	if st.Count < -1 {
		return nil, pgsql.Errorf(pgsql.FeatureNotSupported, "a cursor that moves other than forward is not supported here")
	}
	if p.result == nil {
		r, err := se.perform(p.st, p.params)
		if err != nil {
			return nil, err
		}
		p.result = r
	}
	f := &fetching{from: p.result.rows, left: st.Count}
	if st.Local { // MOVE
		r := &result{tag: "MOVE"}
		for {
			row, err := f.next()
			if err != nil {
				return nil, err
			}
			if row == nil {
				return r, nil
			}
			r.n++
		}
	}
	return &result{tag: "FETCH", rows: f}, nil
}

// fetching is some rows of a cursor.
type fetching struct {
	from rows
	left int64 // -1: all
}

func (f *fetching) next() ([]pgsql.Value, error) {
	if f.left == 0 {
		return nil, nil
	}
	if f.left > 0 {
		f.left--
	}
	return f.from.next()
}

func (f *fetching) close() {}

// columnsOf are the columns of a statement's result, also of a FETCH. DECLARE gives none, though its cursor does.
func (se *session) columnsOf(st *pgsql.Statement) []pgsql.Result {
	if st.Kind == pgsql.Declare {
		return nil
	}
	if st.Kind == pgsql.Fetch && !st.Local {
		if p := se.portals[st.Name]; p != nil {
			return p.st.Columns
		}
	}
	return st.Columns
}

func (se *session) closeCursors() {
	for name, p := range se.portals {
		if p.cursor || name != "" {
			se.closePortal(name)
		}
	}
}
