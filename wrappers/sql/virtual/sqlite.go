package virtual

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/ext/stats"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// SQLite evaluates queries and holds nothing: every table in it is a virtual one, whose rows come from a transaction.
// So a connection belongs to whoever evaluates something, and sessions share a few.

// pool is the connections of one schema.
type pool struct {
	schema *schema
	free   chan *conn
	slots  chan struct{}
	mu     sync.Mutex
	closed bool
}

// Bounds of the connections.
const (
	mostConns    = 64
	keptConns    = 8
	connMemory   = 64 << 20 // bytes that one statement may need for sorting and grouping
	heavySteps   = 2_000_000
	keptStmts    = 128
	connPatience = 15 * time.Second
)

func newPool(s *schema) *pool {
	return &pool{schema: s, free: make(chan *conn, keptConns), slots: make(chan struct{}, mostConns)}
}

var errNoConn = &pgsql.Error{Code: "53300", Message: "too many statements are being evaluated"}

func (p *pool) get(ctx context.Context) (*conn, error) {
	select {
	case p.slots <- struct{}{}:
	default:
		ctx, cancel := context.WithTimeout(ctx, connPatience)
		defer cancel()
		select {
		case p.slots <- struct{}{}:
		case <-ctx.Done():
			return nil, errNoConn
		}
	}
	select {
	case c := <-p.free:
		return c, nil
	default:
	}
	c, err := open(p.schema)
	if err != nil {
		<-p.slots
		return nil, err
	}
	return c, nil
}

func (p *pool) put(c *conn) {
	c.run = nil
	p.mu.Lock()
	shut := p.closed || c.spent
	if !shut {
		select {
		case p.free <- c:
		default:
			shut = true
		}
	}
	p.mu.Unlock()
	if shut {
		c.close()
	}
	<-p.slots
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for {
		select {
		case c := <-p.free:
			c.close()
		default:
			return
		}
	}
}

// A conn is one connection to an empty database, with the tables declared.
type conn struct {
	db    *sqlite3.Conn
	run   *run // what is being evaluated
	stmts map[string][]*sqlite3.Stmt
	kept  int
	spent bool // it is not to be used again
	err   error
}

// A run is one evaluation: whose, and in which transaction.
type run struct {
	ctx     context.Context
	session *session
	tx      *tx
	now     time.Time
}

func open(s *schema) (*conn, error) {
	db, err := sqlite3.Open(":memory:")
	if err != nil {
		return nil, err
	}
	c := &conn{db: db, stmts: map[string][]*sqlite3.Stmt{}}
	fail := func(err error) (*conn, error) {
		db.Close()
		return nil, err
	}
	for op, on := range map[sqlite3.DBConfig]bool{sqlite3.DBCONFIG_DQS_DML: false, sqlite3.DBCONFIG_DQS_DDL: false, sqlite3.DBCONFIG_DEFENSIVE: true} {
		if _, err := db.Config(op, on); err != nil {
			return fail(err)
		}
	}
	db.HardHeapLimit(connMemory)
	if err := db.Exec("PRAGMA case_sensitive_like=ON; PRAGMA temp_store=MEMORY; PRAGMA cache_size=-256"); err != nil {
		return fail(err)
	}
	if err := stats.Register(db); err != nil {
		return fail(err)
	}
	if err := c.functions(); err != nil {
		return fail(err)
	}
	build := func(db *sqlite3.Conn, _, _, name string, _ ...string) (*rowsTable, error) {
		for _, t := range s.tables {
			if t.Schema+"."+t.Name == name {
				return &rowsTable{c: c, t: t}, db.DeclareVTab(t.declaration())
			}
		}
		return nil, fmt.Errorf("no table %q", name)
	}
	//lint:ignore SA1019 the generic method needs Go 1.27
	if err := sqlite3.CreateModule(db, "rows", build, build); err != nil {
		return fail(err)
	}
	known := func(db *sqlite3.Conn, _, _, name string, _ ...string) (*catalogueTable, error) {
		for i := range catalogue {
			if t := &catalogue[i]; t.Schema+"."+t.Name == name {
				return &catalogueTable{c: c, s: s, t: t}, db.DeclareVTab(declaration(&t.Table))
			}
		}
		return nil, fmt.Errorf("no table %q", name)
	}
	//lint:ignore SA1019 the generic method needs Go 1.27
	if err := sqlite3.CreateModule(db, "catalogue", known, known); err != nil {
		return fail(err)
	}
	var b strings.Builder
	for _, t := range s.tables {
		fmt.Fprintf(&b, "CREATE VIRTUAL TABLE %s USING rows;", t.SQLName())
	}
	for i := range catalogue {
		fmt.Fprintf(&b, "CREATE VIRTUAL TABLE %s USING catalogue;", catalogue[i].SQLName())
	}
	if err := db.Exec(b.String()); err != nil {
		return fail(err)
	}
	return c, nil
}

func (c *conn) close() {
	for _, ss := range c.stmts {
		for _, s := range ss {
			s.Close()
		}
	}
	c.db.Close()
}

// prepare gives a statement, prepared before or now; it is given back with done.
func (c *conn) prepare(sql string) (*sqlite3.Stmt, error) {
	if ss := c.stmts[sql]; len(ss) > 0 {
		s := ss[len(ss)-1]
		c.stmts[sql] = ss[:len(ss)-1]
		c.kept--
		return s, nil
	}
	s, tail, err := c.db.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
	if err != nil {
		return nil, err
	}
	if s == nil || strings.TrimSpace(tail) != "" {
		s.Close()
		return nil, errors.New("not one statement")
	}
	return s, nil
}

func (c *conn) done(sql string, s *sqlite3.Stmt) {
	if s.Status(sqlite3.STMTSTATUS_VM_STEP, true) > heavySteps {
		c.spent = true // memory of an evaluation is not given back to the system
	}
	_ = s.Reset()
	_ = s.ClearBindings()
	if c.kept >= keptStmts {
		s.Close()
		return
	}
	c.stmts[sql] = append(c.stmts[sql], s)
	c.kept++
}

// begin binds the connection to a run.
func (c *conn) begin(r *run) {
	c.run, c.err = r, nil
	c.db.SetInterrupt(r.ctx)
}

func bind(s *sqlite3.Stmt, n int, v pgsql.Value) error {
	switch v.Kind {
	case pgsql.Int:
		return s.BindInt64(n, v.Int)
	case pgsql.Float:
		return s.BindFloat(n, v.Flt)
	case pgsql.Str:
		return s.BindText(n, v.Str)
	case pgsql.Blob:
		return s.BindBlob(n, []byte(v.Str))
	}
	return s.BindNull(n)
}

func columnValue(s *sqlite3.Stmt, i int) pgsql.Value {
	switch s.ColumnType(i) {
	case sqlite3.INTEGER:
		return pgsql.IntValue(s.ColumnInt64(i))
	case sqlite3.FLOAT:
		return pgsql.FloatValue(s.ColumnFloat(i))
	case sqlite3.TEXT:
		return pgsql.StrValue(s.ColumnText(i))
	case sqlite3.BLOB:
		return pgsql.BlobValue(s.ColumnRawBlob(i))
	}
	return pgsql.Value{}
}

func argValue(v sqlite3.Value) pgsql.Value {
	switch v.Type() {
	case sqlite3.INTEGER:
		return pgsql.IntValue(v.Int64())
	case sqlite3.FLOAT:
		return pgsql.FloatValue(v.Float())
	case sqlite3.TEXT:
		return pgsql.StrValue(v.Text())
	case sqlite3.BLOB:
		return pgsql.BlobValue(v.RawBlob())
	}
	return pgsql.Value{}
}

func giveValue(ctx sqlite3.Context, v pgsql.Value) {
	switch v.Kind {
	case pgsql.Int:
		ctx.ResultInt64(v.Int)
	case pgsql.Float:
		ctx.ResultFloat(v.Flt)
	case pgsql.Str:
		ctx.ResultText(v.Str)
	case pgsql.Blob:
		ctx.ResultBlob([]byte(v.Str))
	default:
		ctx.ResultNull()
	}
}

// failed keeps an error of ours, which would come back through SQLite as a text.
func (c *conn) failed(err error) error {
	if c.err == nil {
		c.err = err
	}
	return errFailed
}

// query evaluates a statement and gives its rows; the values are valid until yield returns. Parameters behind base are
// those of bound.
func (c *conn) query(r *run, sql string, params []pgsql.Value, base int, bound []pgsql.Value, columns int, yield func([]pgsql.Value) error) error {
	c.begin(r)
	s, err := c.prepare(sql)
	if err != nil {
		return c.trouble(r, err)
	}
	defer c.done(sql, s)
	if err := bindAll(s, params, base, bound); err != nil {
		return c.trouble(r, err)
	}
	if columns < 0 {
		columns = s.ColumnCount()
	}
	if n := s.ColumnCount(); n != columns {
		return fmt.Errorf("%d columns came of %d", n, columns)
	}
	row := make([]pgsql.Value, columns)
	for s.Step() {
		for i := range row {
			row[i] = columnValue(s, i)
		}
		if err := yield(row); err != nil {
			return err
		}
	}
	return c.trouble(r, s.Err())
}

func bindAll(s *sqlite3.Stmt, params []pgsql.Value, base int, bound []pgsql.Value) error {
	n := s.BindCount()
	for i := 0; i < n && i < len(params); i++ {
		if err := bind(s, i+1, params[i]); err != nil {
			return err
		}
	}
	for i := 0; i < len(bound) && base+i < n; i++ {
		if err := bind(s, base+i+1, bound[i]); err != nil {
			return err
		}
	}
	return nil
}

// trouble gives the error of an evaluation in PostgreSQL's words.
func (c *conn) trouble(r *run, err error) error {
	if err == nil {
		return nil
	}
	if c.err != nil {
		return c.err
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if errors.Is(err, sqlite3.NOMEM) || errors.Is(err, sqlite3.TOOBIG) || errors.Is(err, sqlite3.FULL) {
		c.spent = true
		return &pgsql.Error{Code: "53200", Message: "out of memory", Detail: "A statement has 64 MiB for sorting and grouping."}
	}
	text := err.Error()
	if e := (*sqlite3.Error)(nil); errors.As(err, &e) {
		text = strings.TrimPrefix(text, "sqlite3: SQL logic error: ")
	}
	return translateError(text)
}

// translateError gives SQLite's words for what the translation does not find itself.
func translateError(text string) error {
	text = strings.TrimPrefix(text, "sqlite3: ")
	code := "XX000"
	switch {
	case strings.Contains(text, "misuse of aggregate"), strings.Contains(text, "misuse of window"):
		code = pgsql.GroupingError
	case strings.Contains(text, "syntax error"):
		code = pgsql.SyntaxError
	case strings.Contains(text, "no such column"):
		code = pgsql.UndefinedColumn
	case strings.Contains(text, "no such table"):
		code = pgsql.UndefinedTable
	case strings.Contains(text, "no such function"), strings.Contains(text, "wrong number of arguments"):
		code = pgsql.UndefinedFunction
	case strings.Contains(text, "ambiguous column"):
		code = pgsql.AmbiguousColumn
	case strings.Contains(text, "integer overflow"):
		code = pgsql.OutOfRange
	case strings.Contains(text, "malformed JSON"):
		code = pgsql.InvalidText
	case strings.Contains(text, "expression tree is too large"), strings.Contains(text, "too many"), strings.Contains(text, "parser stack overflow"):
		code = pgsql.StatementTooComplex
	case strings.Contains(text, "ORDER BY term"), strings.Contains(text, "GROUP BY term"), strings.Contains(text, "term out of range"):
		code = pgsql.InvalidColumnRef
	}
	return &pgsql.Error{Code: code, Message: text}
}
