package virtual

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A portal is a bound statement, or a cursor.
type portal struct {
	st      *pgsql.Statement
	params  []pgsql.Value
	formats []int16
	result  *result // once begun
	done    bool
	cursor  bool
}

// simple does the statements of a Query.
func (se *session) simple(text string) {
	defer func() { se.skip = false }()
	se.closePortal("")
	statements, err := pgsql.Split(text)
	if err != nil {
		se.complain(err)
		se.abort()
		return
	}
	if len(statements) == 0 {
		se.send(&pgproto3.EmptyQueryResponse{})
		return
	}
	for i, sql := range statements {
		at := se.at()
		do := func() error { return se.simpleStatement(sql) }
		// The last one's answer goes with the commit; several outside of a block are one transaction.
		if err = do(); err == nil {
			if se.tx != nil && !se.block {
				se.note(at, do)
			}
			if i == len(statements)-1 {
				err = se.settle()
			}
		}
		if err != nil {
			se.complain(err)
			se.abort()
			return
		}
		if se.flushSome() != nil {
			return
		}
	}
}

func (se *session) simpleStatement(sql string) error {
	if se.block && se.failed {
		// Only the end of the block is looked at.
		st, err := se.translate(sql, nil)
		if err != nil || st.Kind != pgsql.Commit && st.Kind != pgsql.Rollback && st.Kind != pgsql.RollbackTo {
			return errAborted
		}
	}
	st, err := se.translate(sql, nil)
	if err != nil {
		return err
	}
	if len(st.Params) > 0 && st.Kind != pgsql.Prepare {
		return pgsql.Errorf(pgsql.UndefinedParameter, "there is no parameter $1")
	}
	var params []pgsql.Value
	if st.Kind == pgsql.Execute {
		if st, params, err = se.executed(st); err != nil {
			return err
		}
	}
	if st.Kind == pgsql.Copy {
		return se.copy(st)
	}
	r, err := se.perform(st, params)
	if err != nil {
		return err
	}
	if r.rows == nil {
		se.send(&pgproto3.CommandComplete{CommandTag: []byte(r.complete())})
		return nil
	}
	defer r.rows.close()
	columns := se.columnsOf(st)
	se.describe(columns, nil)
	for {
		row, err := r.rows.next()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		if r.tag == "SELECT" || r.tag == "FETCH" {
			r.n++
		}
		if err := se.row(row, columns, nil); err != nil {
			return err
		}
	}
	se.send(&pgproto3.CommandComplete{CommandTag: []byte(r.complete())})
	return nil
}

// executed gives the statement behind EXECUTE, with its parameters.
func (se *session) executed(st *pgsql.Statement) (*pgsql.Statement, []pgsql.Value, error) {
	p := se.prepared[st.Name]
	if p == nil {
		return nil, nil, pgsql.Errorf("26000", "prepared statement \"%s\" does not exist", st.Name)
	}
	if len(st.Args) != len(p.params) {
		return nil, nil, pgsql.Errorf("42601", "wrong number of parameters for prepared statement \"%s\"", st.Name)
	}
	var params []pgsql.Value
	if len(st.Args) > 0 {
		sql := "SELECT "
		for i, a := range st.Args {
			if i > 0 {
				sql += ", "
			}
			sql += a
		}
		q, err := se.open(sql, len(st.Args), nil, newTx(se.server.link, se.who))
		if err != nil {
			return nil, nil, err
		}
		defer q.close()
		row, err := q.next()
		if err != nil {
			return nil, nil, err
		}
		for i, v := range row {
			if !v.IsNull() {
				if v, err = pgsql.ParseText(v.Str, p.params[i], se.settings.zone); err != nil {
					return nil, nil, err
				}
			}
			params = append(params, v)
		}
	}
	inner, err := se.current(p)
	return inner, params, err
}

// current gives a prepared statement as the tables are now.
func (se *session) current(p *prepared) (*pgsql.Statement, error) {
	if se.block && se.failed {
		if p.st == nil || p.st.Kind != pgsql.Commit && p.st.Kind != pgsql.Rollback && p.st.Kind != pgsql.RollbackTo {
			return nil, errAborted
		}
		return p.st, nil
	}
	if now := se.circumstances(); p.under != now && (p.st.Table != nil || p.st.Kind == pgsql.Select || p.st.Kind == pgsql.Declare) {
		st, err := se.translate(p.sql, p.types)
		if err != nil {
			return nil, err
		}
		if len(st.Columns) != len(p.st.Columns) {
			return nil, pgsql.Errorf(pgsql.FeatureNotSupported, "cached plan must not change result type")
		}
		p.st, p.under = st, now
	}
	return p.st, nil
}

func (se *session) prepare(name, sql string, types []pgsql.OID) error {
	if se.block && se.failed {
		st, err := se.translate(sql, types)
		if err != nil || st.Kind != pgsql.Commit && st.Kind != pgsql.Rollback && st.Kind != pgsql.RollbackTo && st.Kind != pgsql.Empty {
			return errAborted
		}
	}
	if len(se.prepared) >= mostPrepared && se.prepared[name] == nil {
		return pgsql.Errorf("54000", "too many prepared statements")
	}
	st, err := se.translate(sql, types)
	if err != nil {
		return err
	}
	if se.prepared == nil {
		se.prepared = map[string]*prepared{}
	}
	se.prepared[name] = &prepared{sql: sql, types: types, params: st.Params, st: st, under: se.circumstances()}
	return nil
}

// extended does one message of the extended protocol.
func (se *session) extended(msg pgproto3.FrontendMessage) error {
	switch m := msg.(type) {
	case *pgproto3.Parse:
		if m.Name != "" && se.prepared[m.Name] != nil {
			return pgsql.Errorf("42P05", "prepared statement \"%s\" already exists", m.Name)
		}
		var types []pgsql.OID
		for _, o := range m.ParameterOIDs {
			types = append(types, pgsql.OID(o))
		}
		if parts, err := pgsql.Split(m.Query); err == nil && len(parts) > 1 {
			return pgsql.Errorf(pgsql.SyntaxError, "cannot insert multiple commands into a prepared statement")
		}
		if err := se.prepare(m.Name, m.Query, types); err != nil {
			return err
		}
		se.send(&pgproto3.ParseComplete{})
	case *pgproto3.Bind:
		return se.bind(m)
	case *pgproto3.Describe:
		return se.describeNamed(m)
	case *pgproto3.Execute:
		return se.execute(m)
	case *pgproto3.Close:
		if m.ObjectType == 'S' {
			delete(se.prepared, m.Name)
		} else {
			se.closePortal(m.Name)
		}
		se.send(&pgproto3.CloseComplete{})
	default:
		return pgsql.Errorf("08P01", "unexpected message")
	}
	return nil
}

func (se *session) bind(m *pgproto3.Bind) error {
	p := se.prepared[m.PreparedStatement]
	if p == nil {
		return pgsql.Errorf("26000", "prepared statement \"%s\" does not exist", m.PreparedStatement)
	}
	st, err := se.current(p)
	if err != nil {
		return err
	}
	if len(m.Parameters) != len(p.params) {
		return pgsql.Errorf("08P01", "bind message supplies %d parameters, but prepared statement \"%s\" requires %d", len(m.Parameters), m.PreparedStatement, len(p.params))
	}
	if n := len(m.ParameterFormatCodes); n > 1 && n != len(m.Parameters) {
		return pgsql.Errorf("08P01", "bind message has %d parameter formats but %d parameters", n, len(m.Parameters))
	}
	if m.DestinationPortal != "" && se.portals[m.DestinationPortal] != nil {
		return pgsql.Errorf("42P03", "cursor \"%s\" already exists", m.DestinationPortal)
	}
	if len(se.portals) >= mostPortals {
		return pgsql.Errorf("54000", "too many portals")
	}
	params := make([]pgsql.Value, len(m.Parameters))
	for i, raw := range m.Parameters {
		if raw == nil {
			continue
		}
		format := int16(0)
		switch len(m.ParameterFormatCodes) {
		case 0:
		case 1:
			format = m.ParameterFormatCodes[0]
		default:
			format = m.ParameterFormatCodes[i]
		}
		if format == 1 {
			params[i], err = pgsql.ParseBinary(raw, p.params[i])
		} else {
			params[i], err = pgsql.ParseText(string(raw), p.params[i], se.settings.zone)
		}
		if err != nil {
			return err
		}
	}
	if n := len(m.ResultFormatCodes); n > 1 && n != len(se.columnsOf(st)) {
		return pgsql.Errorf("08P01", "bind message has %d result formats but query has %d columns", n, len(st.Columns))
	}
	se.closePortal(m.DestinationPortal)
	se.keep(m.DestinationPortal, &portal{st: st, params: params, formats: append([]int16{}, m.ResultFormatCodes...)})
	se.send(&pgproto3.BindComplete{})
	return nil
}

func (se *session) describeNamed(m *pgproto3.Describe) error {
	if m.ObjectType == 'S' {
		p := se.prepared[m.Name]
		if p == nil {
			return pgsql.Errorf("26000", "prepared statement \"%s\" does not exist", m.Name)
		}
		oids := make([]uint32, len(p.params))
		for i, o := range p.params {
			oids[i] = uint32(o)
		}
		se.send(&pgproto3.ParameterDescription{ParameterOIDs: oids})
		se.describeOrNot(se.columnsOf(p.st), nil)
		return nil
	}
	p := se.portals[m.Name]
	if p == nil {
		return pgsql.Errorf("34000", "portal \"%s\" does not exist", m.Name)
	}
	se.describeOrNot(se.columnsOf(p.st), p.formats)
	return nil
}

func (se *session) describeOrNot(columns []pgsql.Result, formats []int16) {
	if len(columns) == 0 {
		se.send(&pgproto3.NoData{})
		return
	}
	se.describe(columns, formats)
}

func (se *session) describe(columns []pgsql.Result, formats []int16) {
	m := pgproto3.RowDescription{Fields: make([]pgproto3.FieldDescription, len(columns))}
	for i, c := range columns {
		t := pgsql.TypeOf(c.Type)
		m.Fields[i] = pgproto3.FieldDescription{Name: []byte(c.Name), TableOID: uint32(c.Table), TableAttributeNumber: uint16(c.Attr),
			DataTypeOID: uint32(t.OID), DataTypeSize: t.Size, TypeModifier: -1, Format: formatOf(formats, i)}
	}
	se.send(&m)
}

func formatOf(formats []int16, i int) int16 {
	switch len(formats) {
	case 0:
		return 0
	case 1:
		return formats[0]
	}
	return formats[i]
}

// execute runs a portal, at most so many rows of it.
func (se *session) execute(m *pgproto3.Execute) error {
	p := se.portals[m.Portal]
	if p == nil {
		return pgsql.Errorf("34000", "portal \"%s\" does not exist", m.Portal)
	}
	if p.st.Kind == pgsql.Empty {
		se.send(&pgproto3.EmptyQueryResponse{})
		return nil
	}
	if p.st.Kind == pgsql.Copy {
		if se.block && se.failed {
			return errAborted
		}
		return se.copy(p.st)
	}
	if p.result != nil {
		return se.deliver(p, m.MaxRows)
	}
	at := se.at()
	do := func() error {
		st, params := p.st, p.params
		if st.Kind == pgsql.Execute {
			var err error
			if st, params, err = se.executed(st); err != nil {
				return err
			}
		}
		r, err := se.perform(st, params)
		if err != nil {
			return err
		}
		p.result, p.done = r, false
		return se.deliver(p, m.MaxRows)
	}
	if err := do(); err != nil {
		return err
	}
	if se.tx != nil && !se.block {
		se.note(at, do)
	}
	return nil
}

// deliver sends rows of a portal, and what it came to at their end.
func (se *session) deliver(p *portal, most uint32) error {
	r := p.result
	columns := se.columnsOf(p.st)
	n := uint32(0)
	if r.rows != nil && !p.done {
		for {
			if most > 0 && n == most {
				se.send(&pgproto3.PortalSuspended{})
				return nil
			}
			row, err := r.rows.next()
			if err != nil {
				p.done = true
				return err
			}
			if row == nil {
				break
			}
			n++
			if r.tag == "SELECT" || r.tag == "FETCH" {
				r.n++
			}
			if err := se.row(row, columns, p.formats); err != nil {
				return err
			}
		}
		r.rows.close()
	}
	p.done = true
	c := *r
	if r.tag == "SELECT" && most > 0 {
		c.n = int64(n)
	}
	se.send(&pgproto3.CommandComplete{CommandTag: []byte(c.complete())})
	return nil
}

// sync ends what was begun since the last Sync.
func (se *session) sync() {
	se.skip = false
	if err := se.settle(); err != nil {
		se.complain(err)
		se.abort()
	}
	if !se.block {
		se.closePortals()
	}
}

func (se *session) keep(name string, p *portal) {
	if se.portals == nil {
		se.portals = map[string]*portal{}
	}
	se.portals[name] = p
}

func (se *session) closePortal(name string) {
	p := se.portals[name]
	if p == nil {
		return
	}
	delete(se.portals, name)
	if p.result != nil && p.result.rows != nil {
		p.result.rows.close()
	}
}

func (se *session) closePortals() {
	for name := range se.portals {
		se.closePortal(name)
	}
}

// row sends one row.
func (se *session) row(row []pgsql.Value, columns []pgsql.Result, formats []int16) error {
	se.mu.Lock()
	begin := len(se.out)
	b := append(se.room(), 'D', 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(row)))
	var err error
	for i, v := range row {
		if v.IsNull() {
			b = append(b, 0xff, 0xff, 0xff, 0xff)
			continue
		}
		at := len(b)
		b = append(b, 0, 0, 0, 0)
		if b, err = appendColumn(b, v, columns[i].Type, formatOf(formats, i), se.settings.zone); err != nil {
			break
		}
		binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4))
	}
	if err != nil {
		se.out = b[:begin]
		se.mu.Unlock()
		return err
	}
	binary.BigEndian.PutUint32(b[begin+1:], uint32(len(b)-begin-1))
	se.out = b
	se.mu.Unlock()
	return se.flushSome()
}

func appendColumn(b []byte, v pgsql.Value, o pgsql.OID, format int16, zone *time.Location) ([]byte, error) {
	if v.Kind == pgsql.Float && (o == pgsql.Int8 || o == pgsql.Int4 || o == pgsql.Int2) && math.Abs(v.Flt) >= 1<<63 {
		return b, pgsql.Errorf(pgsql.OutOfRange, "bigint out of range")
	}
	if format == 1 {
		return pgsql.AppendBinary(b, v, o)
	}
	return pgsql.AppendText(b, v, o, zone), nil
}
