package pgsql

import (
	"time"
	"unicode/utf8"
)

// Options are what a translation depends on beside the statement.
type Options struct {
	Catalog Catalog
	Zone    *time.Location // of literals
	Params  []OID          // types that the client has given, 0 where it has not
}

// A Result is one column of a result.
type Result struct {
	Name  string
	Type  OID
	Table OID // of a plain column of a table
	Attr  int
}

// Kind says what a statement does.
type Kind uint8

// The kinds.
const (
	Empty Kind = iota
	Select
	Insert
	Update
	Delete
	Truncate
	Begin
	Commit
	Rollback
	Savepoint
	Release
	RollbackTo
	Set
	SetTransaction
	Reset
	Show
	Copy
	Listen
	Unlisten
	Notify
	Deallocate
	Discard
	Prepare
	Execute
	Declare
	Fetch
	CloseCursor
	Explain
	Nothing // accepted, and means nothing here
)

// A Statement is one statement, translated.
type Statement struct {
	Kind    Kind
	Tag     string   // of CommandComplete, without counts
	SQL     string   // for SQLite: what Select gives, and the rows that Insert, Update and Delete work on
	Columns []Result // of the result, also of RETURNING
	Params  []OID    // by number; Text where nothing told
	Lock    bool     // FOR UPDATE and its like

	Table      *Table
	Targets    []int    // Insert: columns of SQL's results. Update: those of its last results
	Types      []OID    // of SQL's results that are put into Targets
	Conflict   Conflict // Insert
	Returning  string   // SQLite, over one row bound behind ReturnBase; "" without RETURNING
	ReturnBase int

	Name  string // savepoint, setting, channel, prepared statement, cursor
	Text  string // value of SET, payload of NOTIFY, inner statement
	Local bool   // SET LOCAL
	Flags Flags  // Begin, SetTransaction

	CopyTo   bool
	CopyForm CopyForm
	Count    int64 // FETCH: rows; -1: all
	Args     []string
}

// Flags are the modes of a transaction; nil where the statement says nothing.
type Flags struct {
	ReadOnly  *bool
	Isolation string
	Chain     bool // AND CHAIN
}

// A Conflict is what ON CONFLICT says.
type Conflict struct {
	Do      ConflictAction
	SQL     string // SQLite: the new values of Targets and, last, whether WHERE holds, over the row there and the one meant
	Base    int    // how many parameters are the client's; behind them come the columns of the row there, then those of the one meant
	Targets []int
	Types   []OID
	Direct  []int // columns of the row meant, where the new values of Targets are no more than these; else nil
	Same    bool  // the row meant is put in all columns that it gives beside the key, so what is there makes no difference
}

// ConflictAction is what becomes of a row whose key is there already.
type ConflictAction uint8

// The actions.
const (
	ConflictError ConflictAction = iota
	ConflictNothing
	ConflictUpdate
)

// parser reads a statement from left to right and writes SQLite's as it goes.
type parser struct {
	sql    string
	toks   []token
	i      int
	out    []byte
	opt    Options
	params []OID
	scope  *scope
	depth  int
	st     *Statement
	ctes   int
	direct []int // of SET: columns of excluded, -1 for what is anything else
}

// maxDepth bounds how deep a statement may nest.
const maxDepth = 100

// Translate reads one statement.
func Translate(sql string, opt Options) (st *Statement, err error) {
	toks, err := lex(sql)
	if err != nil {
		return nil, err
	}
	if opt.Zone == nil {
		opt.Zone = time.UTC
	}
	p := &parser{sql: sql, toks: toks, opt: opt, st: &Statement{}}
	p.params = append(p.params, opt.Params...)
	defer func() {
		if r := recover(); r != nil {
			e, ok := r.(*Error)
			if !ok {
				panic(r)
			}
			st, err = nil, e
		}
	}()
	p.statement()
	for p.take(";") {
	}
	if p.tok().kind != endToken {
		p.syntax()
	}
	for i, o := range p.params {
		if o == 0 || o == Untyped {
			p.params[i] = Text
		}
	}
	p.st.Params = p.params
	base := len(p.params)
	p.st.Conflict.Base, p.st.ReturnBase = base, base
	p.st.Conflict.SQL, p.st.Returning = numbered(p.st.Conflict.SQL, base), numbered(p.st.Returning, base)
	return p.st, nil
}

func (p *parser) tok() *token { return &p.toks[p.i] }

func (p *parser) peek(n int) *token {
	if p.i+n >= len(p.toks) {
		return &p.toks[len(p.toks)-1]
	}
	return &p.toks[p.i+n]
}

func (p *parser) is(words ...string) bool {
	for n, w := range words {
		if !p.peek(n).is(w) {
			return false
		}
	}
	return true
}

func (p *parser) isOne(words ...string) bool {
	for _, w := range words {
		if p.tok().is(w) {
			return true
		}
	}
	return false
}

// take goes behind words if they stand here.
func (p *parser) take(words ...string) bool {
	if !p.is(words...) {
		return false
	}
	p.i += len(words)
	return true
}

func (p *parser) need(words ...string) {
	for _, w := range words {
		if !p.take(w) {
			p.syntax()
		}
	}
}

// fail ends the translation; the place is that of a token.
func (p *parser) fail(t *token, e *Error) {
	if e.Position == 0 {
		e.Position = utf8.RuneCountInString(p.sql[:t.pos]) + 1
	}
	panic(e)
}

func (p *parser) syntax() {
	t := p.tok()
	if t.kind == endToken {
		p.fail(t, Errorf(SyntaxError, "syntax error at end of input"))
	}
	p.fail(t, Errorf(SyntaxError, "syntax error at or near \"%s\"", p.sql[t.pos:t.end]))
}

func (p *parser) unsupported(t *token, what string) { p.fail(t, unsupported(what)) }

// deeper guards against statements that nest too deep for the stack.
func (p *parser) deeper() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.tok(), Errorf(StatementTooComplex, "stack depth limit exceeded"))
	}
	return func() { p.depth-- }
}

// ident reads a name; reserved words are none.
func (p *parser) ident() string {
	t := p.tok()
	if t.kind == quotedToken || t.kind == identToken && !reserved[t.text] {
		p.i++
		return t.text
	}
	p.syntax()
	return ""
}

// label reads a name behind AS or a dot, where any word will do.
func (p *parser) label() string {
	t := p.tok()
	if t.kind == quotedToken || t.kind == identToken {
		p.i++
		return t.text
	}
	p.syntax()
	return ""
}

func (p *parser) isName() bool {
	t := p.tok()
	return t.kind == quotedToken || t.kind == identToken && !reserved[t.text]
}

func (p *parser) emit(s ...string) {
	for _, x := range s {
		p.out = append(p.out, x...)
	}
}

// insert puts text at an earlier place of the output.
func (p *parser) insert(at int, s string) {
	p.out = append(p.out, s...)
	copy(p.out[at+len(s):], p.out[at:len(p.out)-len(s)])
	copy(p.out[at:], s)
}

// replace puts text in the place of a part of the output.
func (p *parser) replace(from, to int, s string) (delta int) {
	tail := string(p.out[to:])
	p.out = append(append(p.out[:from], s...), tail...)
	return len(s) - (to - from)
}

// aside gives what f writes, and leaves the output alone.
func (p *parser) aside(f func()) string {
	saved := p.out
	p.out = nil
	f()
	text := string(p.out)
	p.out = saved
	return text
}

// in runs f in a new scope inside of the present one.
func (p *parser) in(s *scope, f func()) {
	s.up = p.scope
	p.scope = s
	f()
	p.scope = s.up
}

// statement dispatches on the first word.
func (p *parser) statement() {
	for p.take(";") {
	}
	t := p.tok()
	switch {
	case t.kind == endToken:
		return
	case p.isOne("select", "values", "with", "(", "table"):
		p.query()
	case p.is("insert"):
		p.insertStmt(nil)
	case p.is("update"):
		p.updateStmt(nil)
	case p.is("delete"):
		p.deleteStmt(nil)
	case p.is("truncate"):
		p.truncateStmt()
	case p.is("copy"):
		p.copyStmt()
	default:
		p.utility()
	}
}
