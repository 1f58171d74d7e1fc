package pgsql

import (
	"strconv"
	"strings"
)

// utility reads what is neither a query nor a change.
func (p *parser) utility() {
	t := p.tok()
	st := p.st
	word := t.text
	if t.kind != identToken {
		p.syntax()
	}
	p.i++
	switch word {
	case "begin":
		st.Kind, st.Tag = Begin, "BEGIN"
		p.transactionWord()
		p.modes()
	case "start":
		p.need("transaction")
		st.Kind, st.Tag = Begin, "START TRANSACTION"
		p.modes()
	case "commit", "end":
		st.Kind, st.Tag = Commit, "COMMIT"
		if p.is("prepared") {
			p.unsupported(t, "COMMIT PREPARED")
		}
		p.transactionWord()
		p.chain()
	case "rollback", "abort":
		st.Kind, st.Tag = Rollback, "ROLLBACK"
		if p.is("prepared") {
			p.unsupported(t, "ROLLBACK PREPARED")
		}
		p.transactionWord()
		if p.take("to") {
			p.take("savepoint")
			st.Kind, st.Name = RollbackTo, p.ident()
			return
		}
		p.chain()
	case "savepoint":
		st.Kind, st.Tag, st.Name = Savepoint, "SAVEPOINT", p.ident()
	case "release":
		p.take("savepoint")
		st.Kind, st.Tag, st.Name = Release, "RELEASE", p.ident()
	case "prepare":
		if p.is("transaction") {
			p.unsupported(t, "PREPARE TRANSACTION")
		}
		st.Kind, st.Tag, st.Name = Prepare, "PREPARE", p.ident()
		if p.take("(") {
			for {
				st.Params = append(st.Params, p.typeName().oid)
				if !p.take(",") {
					break
				}
			}
			p.need(")")
			p.params = st.Params
		}
		p.need("as")
		st.Text = p.rest()
	case "execute":
		st.Kind, st.Tag, st.Name = Execute, "EXECUTE", p.ident()
		if p.take("(") {
			for {
				text := p.aside(func() {
					p.in(&scope{}, func() {
						e := p.expr(0)
						if e.lit && e.text == nil && e.param == 0 {
							return
						}
						if e.lit {
							e.typ = Text
						}
						start := 0
						p.insert(start, "pg_cast(")
						p.emit(castArgs(e.typ, Text))
					})
				})
				st.Args = append(st.Args, text)
				if !p.take(",") {
					break
				}
			}
			p.need(")")
		}
	case "deallocate":
		p.take("prepare")
		st.Kind, st.Tag = Deallocate, "DEALLOCATE"
		if p.take("all") {
			st.Tag = "DEALLOCATE ALL"
		} else {
			st.Name = p.ident()
		}
	case "set":
		p.set()
	case "reset":
		st.Kind, st.Tag = Reset, "RESET"
		if p.take("all") {
			st.Name = "all"
			return
		}
		switch {
		case p.take("session", "authorization"):
			st.Name = "session_authorization"
		case p.take("time", "zone"):
			st.Name = "timezone"
		default:
			st.Name = p.settingName()
		}
	case "show":
		st.Kind, st.Tag = Show, "SHOW"
		switch {
		case p.take("all"):
			st.Name = "all"
			st.Columns = []Result{{Name: "name", Type: Text}, {Name: "setting", Type: Text}, {Name: "description", Type: Text}}
			return
		case p.take("transaction", "isolation", "level"):
			st.Name = "transaction_isolation"
		case p.take("time", "zone"):
			st.Name = "timezone"
		case p.take("session", "authorization"):
			st.Name = "session_authorization"
		default:
			st.Name = p.settingName()
		}
		st.Columns = []Result{{Name: settingTitle(st.Name), Type: Text}}
	case "listen":
		st.Kind, st.Tag, st.Name = Listen, "LISTEN", p.ident()
	case "unlisten":
		st.Kind, st.Tag = Unlisten, "UNLISTEN"
		if !p.take("*") {
			st.Name = p.ident()
		}
	case "notify":
		st.Kind, st.Tag, st.Name = Notify, "NOTIFY", p.ident()
		if p.take(",") {
			if p.tok().kind != stringToken {
				p.syntax()
			}
			st.Text = p.tok().text
			p.i++
		}
	case "discard":
		st.Kind, st.Tag = Discard, "DISCARD"
		if !p.isOne("all", "plans", "sequences", "temp", "temporary") {
			p.syntax()
		}
		st.Name = p.tok().text
		st.Tag += " " + strings.ToUpper(p.tok().text)
		p.i++
	case "declare":
		p.declare()
	case "fetch", "move":
		p.fetch(word)
	case "close":
		st.Kind, st.Tag = CloseCursor, "CLOSE CURSOR"
		if p.take("all") {
			st.Tag = "CLOSE CURSOR ALL"
		} else {
			st.Name = p.ident()
		}
	case "explain":
		p.explain()
	case "checkpoint":
		st.Kind, st.Tag = Nothing, "CHECKPOINT"
	case "vacuum", "analyze", "analyse", "reindex", "cluster":
		st.Kind, st.Tag = Nothing, strings.ToUpper(word)
		if word == "analyse" {
			st.Tag = "ANALYZE"
		}
		p.rest()
	case "lock":
		// Rows are checked at commit whatever is locked.
		st.Kind, st.Tag = Nothing, "LOCK TABLE"
		p.rest()
	case "create", "alter", "drop", "comment", "grant", "revoke", "import", "security", "refresh", "reassign":
		e := Errorf(FeatureNotSupported, "%s is not supported here: tables are made by the gateway's mappings", strings.ToUpper(word))
		e.Hint = "A table is what a bind block makes of registers; see mappings.d."
		p.fail(t, e)
	case "do", "call", "load", "merge":
		p.unsupported(t, strings.ToUpper(word))
	default:
		p.i--
		p.syntax()
	}
}

// rest takes all that is left of the statement.
func (p *parser) rest() string {
	from := p.tok().pos
	to := from
	for p.tok().kind != endToken && !p.is(";") {
		to = p.tok().end
		p.i++
	}
	return p.sql[from:to]
}

func (p *parser) transactionWord() {
	if !p.take("work") {
		p.take("transaction")
	}
}

func (p *parser) chain() {
	if p.take("and") {
		no := p.take("no")
		p.need("chain")
		p.st.Flags.Chain = !no
	}
}

// modes reads the modes of a transaction.
func (p *parser) modes() {
	f := &p.st.Flags
	for {
		yes, no := true, false
		switch {
		case p.take("isolation", "level"):
			f.Isolation = p.level()
		case p.take("read", "only"):
			f.ReadOnly = &yes
		case p.take("read", "write"):
			f.ReadOnly = &no
		case p.take("not", "deferrable"), p.take("deferrable"):
		default:
			return
		}
		p.take(",")
	}
}

func (p *parser) level() string {
	switch {
	case p.take("serializable"):
		return "serializable"
	case p.take("repeatable", "read"):
		return "repeatable read"
	case p.take("read", "committed"):
		return "read committed"
	case p.take("read", "uncommitted"):
		return "read uncommitted"
	}
	p.syntax()
	return ""
}

func (p *parser) settingName() string {
	name := p.label()
	for p.take(".") {
		name += "." + p.label()
	}
	return strings.ToLower(name)
}

// settingTitle is the name of a setting as SHOW's column has it.
func settingTitle(name string) string {
	switch name {
	case "timezone":
		return "TimeZone"
	case "datestyle":
		return "DateStyle"
	}
	return name
}

// set reads SET.
func (p *parser) set() {
	st := p.st
	st.Kind, st.Tag = Set, "SET"
	switch {
	case p.take("session", "characteristics", "as", "transaction"):
		st.Kind = SetTransaction
		st.Name = "session"
		p.modes()
		return
	case p.is("session", "authorization"), p.is("local", "session", "authorization"):
		p.unsupported(p.tok(), "SET SESSION AUTHORIZATION")
	case p.take("session"):
	case p.take("local"):
		st.Local = true
	}
	switch {
	case p.take("transaction"):
		if p.is("snapshot") {
			p.unsupported(p.tok(), "SET TRANSACTION SNAPSHOT")
		}
		st.Kind = SetTransaction
		p.modes()
		return
	case p.take("constraints"):
		p.rest()
		st.Kind, st.Tag = Nothing, "SET CONSTRAINTS"
		return
	case p.take("time", "zone"):
		st.Name = "timezone"
	case p.take("names"):
		st.Name = "client_encoding"
	case p.is("role"):
		p.i++
		st.Name = "role"
	default:
		st.Name = p.settingName()
		if !p.take("to") && !p.take("=") {
			p.syntax()
		}
	}
	var parts []string
	for {
		t := p.tok()
		switch {
		case t.kind == stringToken || t.kind == numberToken || t.kind == quotedToken || t.kind == identToken:
			parts = append(parts, t.text)
			p.i++
		case p.isOne("-", "+") && p.peek(1).kind == numberToken:
			parts = append(parts, t.text+p.peek(1).text)
			p.i += 2
		default:
			p.syntax()
		}
		if !p.take(",") {
			break
		}
	}
	st.Text = strings.Join(parts, ", ")
	if len(parts) == 1 && (parts[0] == "default" || st.Name == "timezone" && parts[0] == "local") {
		st.Kind = Reset
	}
}

// declare reads DECLARE name CURSOR FOR query.
func (p *parser) declare() {
	st := p.st
	name := p.ident()
	for !p.is("cursor") {
		t := p.tok()
		switch {
		case p.take("binary"):
			p.unsupported(t, "BINARY cursors")
		case p.take("insensitive"), p.take("asensitive"), p.take("no", "scroll"):
		case p.take("scroll"):
			p.unsupported(t, "SCROLL cursors")
		default:
			p.syntax()
		}
	}
	p.need("cursor")
	if p.is("with", "hold") {
		p.unsupported(p.tok(), "WITH HOLD cursors")
	}
	p.take("without", "hold")
	p.need("for")
	if !p.isOne("select", "values", "with", "(", "table") {
		p.syntax()
	}
	p.query()
	if st.Kind != Select {
		p.syntax()
	}
	st.Kind, st.Tag, st.Name = Declare, "DECLARE CURSOR", name
}

// fetch reads FETCH and MOVE, forward only.
func (p *parser) fetch(word string) {
	st := p.st
	t := p.tok()
	st.Kind, st.Tag, st.Count = Fetch, strings.ToUpper(word), 1
	amount := func() bool {
		n := p.tok()
		switch {
		case n.kind == numberToken:
			c, err := strconv.ParseInt(n.text, 10, 64)
			if err != nil {
				p.syntax()
			}
			p.i++
			st.Count = c
		case p.take("all"):
			st.Count = -1
		default:
			return false
		}
		return true
	}
	switch {
	case p.take("next"):
	case p.take("forward"):
		amount()
	case p.isOne("prior", "first", "last", "absolute", "relative", "backward", "-"):
		p.unsupported(t, "a cursor that moves other than forward")
	default:
		amount()
	}
	if !p.take("from") {
		p.take("in")
	}
	st.Name = p.ident()
	if word == "move" {
		st.Local = true
	}
}

// explain reads EXPLAIN, whose plan is SQLite's.
func (p *parser) explain() {
	t := p.tok()
	if p.take("(") {
		for !p.take(")") {
			if p.is("analyze") {
				p.unsupported(p.tok(), "EXPLAIN ANALYZE")
			}
			if p.tok().kind == endToken {
				p.syntax()
			}
			p.i++
		}
	}
	if p.is("analyze") {
		p.unsupported(t, "EXPLAIN ANALYZE")
	}
	p.take("verbose")
	switch {
	case p.isOne("select", "values", "with", "(", "table"):
		p.query()
	case p.is("update"):
		p.updateStmt(nil)
	case p.is("delete"):
		p.deleteStmt(nil)
	case p.is("insert"):
		p.insertStmt(nil)
	default:
		p.syntax()
	}
	p.st.Kind, p.st.Tag = Explain, "EXPLAIN"
	p.st.Returning = ""
	p.st.Columns = []Result{{Name: "QUERY PLAN", Type: Text}}
}
