package virtual

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

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
