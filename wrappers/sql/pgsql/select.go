package pgsql

import (
	"strconv"
	"strings"
)

// query reads SELECT, VALUES, TABLE, WITH and, behind WITH, a change.
func (p *parser) query() {
	p.st.Kind, p.st.Tag = Select, "SELECT"
	s := &scope{}
	p.in(s, func() {
		if p.is("with") {
			p.with(s)
			switch {
			case p.is("insert"):
				p.insertStmt(p.prefix())
				return
			case p.is("update"):
				p.updateStmt(p.prefix())
				return
			case p.is("delete"):
				p.deleteStmt(p.prefix())
				return
			}
		}
		p.st.Columns = p.selectBody(false)
		p.st.SQL = string(p.out)
	})
}

// prefix takes what WITH has written from the output.
func (p *parser) prefix() *string {
	s := string(p.out)
	p.out = nil
	return &s
}

// with reads the common table expressions.
func (p *parser) with(s *scope) {
	p.need("with")
	p.emit("WITH ")
	recursive := p.take("recursive")
	if recursive {
		p.emit("RECURSIVE ")
	}
	s.ctes = map[string][]field{}
	for {
		at := p.tok()
		name := p.ident()
		if _, twice := s.ctes[name]; twice {
			p.fail(at, Errorf(DuplicateAlias, "WITH query name \"%s\" specified more than once", name))
		}
		var cols []string
		if p.take("(") {
			for {
				cols = append(cols, p.ident())
				if !p.take(",") {
					break
				}
			}
			p.need(")")
		}
		p.need("as")
		p.emit(quoteIdent(name))
		hint := ""
		switch {
		case p.take("materialized"):
			hint = "MATERIALIZED "
		case p.take("not", "materialized"):
			hint = "NOT MATERIALIZED "
		}
		if p.is("(", "insert") || p.is("(", "update") || p.is("(", "delete") {
			p.unsupported(p.peek(1), "a statement that changes rows inside of WITH")
		}
		p.need("(")
		var outs []Result
		text := p.aside(func() {
			p.in(&scope{}, func() {
				outs = p.selectRecursive(func(first []Result) {
					if recursive {
						s.ctes[name] = named(first, cols)
					}
				})
			})
		})
		p.need(")")
		s.ctes[name] = named(outs, cols)
		if len(cols) > len(outs) {
			p.fail(at, Errorf(InvalidColumnRef, "WITH query \"%s\" has %d columns available but %d columns specified", name, len(outs), len(cols)))
		}
		p.emit("(")
		for i, f := range s.ctes[name] {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(quoteIdent(f.name))
		}
		p.emit(") AS ", hint, "(", text, ")")
		if !p.take(",") {
			break
		}
		p.emit(", ")
	}
	if p.isOne("search", "cycle") {
		p.unsupported(p.tok(), "SEARCH and CYCLE of WITH")
	}
	p.emit(" ")
}

// named gives the columns of a derived table, renamed from the left.
func named(outs []Result, names []string) []field {
	fs := make([]field, len(outs))
	for i, o := range outs {
		fs[i] = field{o.Name, o.Type, o.Table, o.Attr}
		if i < len(names) {
			fs[i].name = names[i]
		}
	}
	return fs
}

func (p *parser) selectRecursive(first func([]Result)) []Result {
	return p.selectWith(first, true)
}

// selectBody reads a query without the WITH that p.scope has already.
func (p *parser) selectBody(inner bool) []Result {
	return p.selectWith(func([]Result) {}, inner)
}

// subquery reads a whole query inside of parentheses that the caller reads.
func (p *parser) subquery() []Result {
	var outs []Result
	s := &scope{}
	p.in(s, func() {
		if p.is("with") {
			p.with(s)
			if p.isOne("insert", "update", "delete") {
				p.unsupported(p.tok(), "a statement that changes rows inside of a query")
			}
		}
		outs = p.selectBody(true)
	})
	return outs
}

// selectWith reads a query; first is told the columns of its first arm before the others are read.
func (p *parser) selectWith(first func([]Result), inner bool) []Result {
	defer p.deeper()()
	if inner && p.is("with") {
		s := p.scope
		p.with(s)
	}
	outs, sc := p.setOps(first)
	p.orderLimit(outs, sc)
	return outs
}

// setOps reads arms joined by UNION, EXCEPT and INTERSECT, which binds tighter. There is a scope if there is one arm only.
func (p *parser) setOps(first func([]Result)) ([]Result, *scope) {
	outs, sc, _ := p.arms(func() ([]Result, *scope, bool) {
		return p.arms(p.arm, func([]Result) {}, "intersect")
	}, first, "union", "except")
	return outs, sc
}

func (p *parser) arms(arm func() ([]Result, *scope, bool), first func([]Result), ops ...string) (outs []Result, sc *scope, compound bool) {
	outs, sc, compound = arm()
	first(outs)
	for p.isOne(ops...) {
		t := p.tok()
		op := strings.ToUpper(t.text)
		p.i++
		if p.take("all") {
			if op != "UNION" {
				p.unsupported(t, op+" ALL")
			}
			op += " ALL"
		} else {
			p.take("distinct")
		}
		p.emit(" ", op, " ")
		at := len(p.out)
		more, _, nested := arm()
		if nested {
			p.insert(at, "SELECT * FROM (")
			p.emit(")")
		}
		if len(more) != len(outs) {
			p.fail(t, Errorf(SyntaxError, "each %s query must have the same number of columns", strings.Fields(op)[0]))
		}
		for i := range outs {
			outs[i].Type = unify(outs[i].Type, more[i].Type)
			outs[i].Table, outs[i].Attr = 0, 0
		}
		sc, compound = nil, true
	}
	return outs, sc, compound
}

// unify gives the type of two branches.
func unify(a, b OID) OID {
	untyped := func(o OID) bool { return o == 0 || o == Untyped }
	switch {
	case untyped(a):
		return b
	case untyped(b) || a == b:
		return a
	case isNumber(a) && isNumber(b):
		return wider(a, b)
	case isTime(a) && isTime(b):
		return Timestamptz
	case isText(a) && isText(b):
		return Text
	}
	return a
}

// arm reads one SELECT, VALUES, TABLE or query in parentheses.
func (p *parser) arm() ([]Result, *scope, bool) {
	defer p.deeper()()
	switch {
	case p.take("("):
		p.emit("SELECT * FROM (")
		outs := p.subquery()
		p.need(")")
		p.emit(")")
		return outs, nil, false
	case p.is("values"):
		return p.values(), nil, false
	case p.take("table"):
		src, text := p.tableName()
		p.emit("SELECT * FROM ", text)
		outs := make([]Result, len(src.cols))
		for i, f := range src.cols {
			outs[i] = Result{f.name, f.typ, f.table, f.attr}
		}
		return outs, nil, false
	case p.is("select"):
		outs, sc := p.selectCore()
		return outs, sc, false
	}
	p.syntax()
	return nil, nil, false
}

// values reads VALUES (…), (…).
func (p *parser) values() []Result {
	p.need("values")
	p.emit("VALUES ")
	var outs []Result
	for n := 0; ; n++ {
		at := p.tok()
		p.need("(")
		p.emit("(")
		i := 0
		for {
			e := p.expr(0)
			if n == 0 {
				outs = append(outs, Result{Name: "column" + strconv.Itoa(i+1), Type: e.typ})
			} else if i < len(outs) {
				outs[i].Type = unify(outs[i].Type, e.typ)
			}
			i++
			if !p.take(",") {
				break
			}
			p.emit(", ")
		}
		p.need(")")
		p.emit(")")
		if i != len(outs) {
			p.fail(at, Errorf(SyntaxError, "VALUES lists must all be the same length"))
		}
		if !p.take(",") {
			return outs
		}
		p.emit(", ")
	}
}

// selectCore reads one SELECT up to its HAVING or WINDOW.
func (p *parser) selectCore() (outs []Result, sc *scope) {
	p.need("select")
	p.emit("SELECT ")
	switch {
	case p.is("distinct", "on"):
		p.unsupported(p.peek(1), "DISTINCT ON")
	case p.take("distinct"):
		p.emit("DISTINCT ")
	default:
		p.take("all")
	}
	sc = &scope{}
	p.in(sc, func() {
		from, behind := p.findFrom(), 0
		fromText := ""
		if from >= 0 {
			here := p.i
			p.i = from
			fromText = p.aside(func() {
				p.need("from")
				p.emit(" FROM ")
				p.fromList(sc)
			})
			behind = p.i
			p.i = here
		}
		if !p.isOne("from", "where", "order", "limit", "union", ")", ";", "into") && p.tok().kind != endToken {
			outs = p.selectList(sc)
		} else {
			p.emit("NULL WHERE 0") // SELECT without columns
			outs = nil
		}
		if p.is("into") {
			p.unsupported(p.tok(), "SELECT INTO")
		}
		sc.outs = outs
		if from >= 0 {
			if p.i != from {
				p.syntax()
			}
			p.i = behind
			p.emit(fromText)
		}
		if len(sc.sets) > 0 {
			p.countSets(sc.sets, from < 0)
		}
		if p.take("where") {
			p.emit(" WHERE ")
			p.condition()
		}
		if p.is("group", "by") && len(sc.sets) > 0 {
			p.unsupported(p.tok(), "a set-returning function beside GROUP BY")
		}
		if p.take("group", "by") {
			p.groupBy(sc)
		}
		if p.take("having") {
			p.emit(" HAVING ")
			p.condition()
		}
		if p.take("window") {
			p.emit(" WINDOW ")
			for {
				p.emit(quoteIdent(p.ident()), " AS ")
				p.need("as")
				p.windowSpec()
				if !p.take(",") {
					break
				}
				p.emit(", ")
			}
		}
	})
	return outs, sc
}

// condition reads an expression that is a truth value.
func (p *parser) condition() {
	e := p.expr(0)
	p.coerce(&e, Bool)
}

// selectList reads what stands between SELECT and FROM, also behind RETURNING.
func (p *parser) selectList(sc *scope) []Result {
	var outs []Result
	add := func(r Result) {
		if len(outs) >= 1600 {
			p.fail(p.tok(), Errorf("54011", "target lists can have at most 1600 entries"))
		}
		outs = append(outs, r)
	}
	sep := func() {
		if len(outs) > 0 {
			p.emit(", ")
		}
	}
	star := func(src *source, skip map[string]bool) {
		for _, f := range src.cols {
			if skip[f.name] {
				continue
			}
			sep()
			p.emit(quoteIdent(src.alias), ".", quoteIdent(f.name), " AS ", quoteIdent(f.name))
			add(Result{f.name, f.typ, f.table, f.attr})
		}
	}
	for {
		t := p.tok()
		switch {
		case p.take("*"):
			if len(sc.sources) == 0 {
				p.fail(t, Errorf(SyntaxError, "SELECT * with no tables specified is not valid"))
			}
			seen := map[string]bool{}
			for _, src := range sc.sources { // merged columns first, once
				for _, f := range src.cols {
					if sc.using[f.name] && !seen[f.name] {
						seen[f.name] = true
						sep()
						p.emit(quoteIdent(f.name), " AS ", quoteIdent(f.name))
						add(Result{f.name, f.typ, f.table, f.attr})
					}
				}
			}
			for _, src := range sc.sources {
				star(src, sc.using)
			}
		case p.starOf() >= 0:
			n := p.starOf()
			alias := p.peek(n).text
			p.i += n + 3
			src := sc.qualified(alias)
			if src == nil {
				p.fail(t, Errorf(UndefinedTable, "missing FROM-clause entry for table \"%s\"", alias))
			}
			star(src, nil)
		default:
			sep()
			from := p.i
			sc.listed, sc.item = true, from
			e := p.expr(0)
			sc.listed = false
			if e.row {
				p.unsupported(t, "a row as a value")
			}
			name := e.name
			if p.take("as") {
				name = p.label()
			} else if p.isName() {
				name = p.ident()
			} else if t := p.tok(); t.kind == identToken && p.i > from && !reserved[t.text] {
				name = p.label()
			}
			if name == "" {
				name = "?column?"
			}
			if e.typ == 0 || e.typ == Untyped {
				e.typ = Text
				if e.param > 0 {
					p.coerce(&e, Text)
				}
			}
			p.emit(" AS ", quoteIdent(name))
			add(Result{name, e.typ, e.table, e.attr})
		}
		if !p.take(",") {
			return outs
		}
	}
}

// starOf tells how many names and dots stand before `name.*`, -1 if that is not what stands here.
func (p *parser) starOf() int {
	name := func(n int) bool { k := p.peek(n).kind; return k == identToken || k == quotedToken }
	if name(0) && p.peek(1).is(".") && p.peek(2).is("*") {
		return 0
	}
	if name(0) && p.peek(1).is(".") && name(2) && p.peek(3).is(".") && p.peek(4).is("*") {
		return 2
	}
	return -1
}
