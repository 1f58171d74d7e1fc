package pgsql

import (
	"strconv"
	"strings"
)

// findFrom finds the FROM of the SELECT whose list begins here, -1 if it has none.
func (p *parser) findFrom() int {
	depth := 0
	for i := p.i; i < len(p.toks); i++ {
		t := &p.toks[i]
		switch {
		case t.kind == endToken:
			return -1
		case t.kind != identToken && t.kind != opToken:
		case t.text == "(" || t.text == "[":
			depth++
		case t.text == ")" || t.text == "]":
			if depth--; depth < 0 {
				return -1
			}
		case depth > 0:
		case t.text == ";":
			return -1
		case t.kind == identToken && t.text == "from":
			if i >= 2 && p.toks[i-1].is("distinct") && (p.toks[i-2].is("is") || p.toks[i-2].is("not")) {
				continue
			}
			if i >= 1 && p.toks[i-1].is(".") || i >= 1 && p.toks[i-1].is("as") {
				continue
			}
			return i
		case t.kind == identToken && (t.text == "where" || t.text == "union" || t.text == "intersect" || t.text == "except" || t.text == "order" || t.text == "limit"):
			if i >= 1 && (p.toks[i-1].is(".") || p.toks[i-1].is("as")) {
				continue
			}
			return -1
		}
	}
	return -1
}

// fromList reads the items of FROM.
func (p *parser) fromList(sc *scope) {
	for {
		p.joined(sc)
		if !p.take(",") {
			return
		}
		p.emit(", ")
	}
}

// joined reads one item with all that is joined to it.
func (p *parser) joined(sc *scope) {
	defer p.deeper()()
	p.fromItem(sc)
	for {
		natural := p.take("natural")
		kind := ""
		switch {
		case p.take("cross", "join"):
			kind = "CROSS"
		case p.take("inner", "join"), p.take("join"):
			kind = "INNER"
		case p.isOne("left", "right", "full"):
			kind = strings.ToUpper(p.tok().text)
			p.i++
			p.take("outer")
			p.need("join")
		default:
			if natural {
				p.syntax()
			}
			return
		}
		if natural {
			p.emit(" NATURAL")
		}
		if kind == "CROSS" { // SQLite takes CROSS JOIN for an order to keep the order
			p.emit(" INNER JOIN ")
		} else {
			p.emit(" ", kind, " JOIN ")
		}
		before := len(sc.sources)
		p.fromItem(sc)
		switch {
		case natural:
			for _, right := range sc.sources[before:] {
				for _, f := range right.cols {
					for _, left := range sc.sources[:before] {
						if left.find(f.name) != nil {
							sc.merge(f.name)
						}
					}
				}
			}
		case kind == "CROSS":
		case p.take("on"):
			p.emit(" ON ")
			p.condition()
		case p.take("using"):
			p.need("(")
			p.emit(" USING (")
			for {
				name := p.ident()
				sc.merge(name)
				p.emit(quoteIdent(name))
				if !p.take(",") {
					break
				}
				p.emit(", ")
			}
			p.need(")")
			p.emit(")")
		default:
			p.syntax()
		}
	}
}

func (s *scope) merge(name string) {
	if s.using == nil {
		s.using = map[string]bool{}
	}
	s.using[name] = true
}

// fromItem reads a table, a query, a function or a join in parentheses.
func (p *parser) fromItem(sc *scope) {
	defer p.deeper()()
	at := p.tok()
	if p.is("lateral") {
		p.unsupported(at, "LATERAL")
	}
	p.take("only")
	if p.is("(") {
		if q := p.peek(1); q.is("select") || q.is("with") || q.is("values") || q.is("(") && p.parenQuery() {
			p.i++
			p.emit("(")
			var outs []Result
			// A query in FROM sees what is around the SELECT, not its neighbours.
			here := p.scope
			p.scope = sc.up
			outs = p.subquery()
			p.scope = here
			p.need(")")
			p.emit(")")
			alias, cols := p.alias(false)
			if alias == "" {
				p.ctes++
				alias = "unnamed " + strconv.Itoa(p.ctes)
			}
			fields := named(outs, cols)
			p.renamed(alias, outs, fields)
			p.addSource(at, sc, &source{alias: alias, cols: fields})
			return
		}
		p.i++
		p.emit("(")
		p.joined(sc)
		p.need(")")
		p.emit(")")
		if p.is("as") || p.isName() {
			p.unsupported(p.tok(), "an alias of a join")
		}
		return
	}
	if p.fromFunction(sc) {
		return
	}
	src, text := p.tableName()
	p.take("*")
	alias, cols := p.alias(false)
	if alias == "" {
		alias = src.alias
	}
	if p.is("tablesample") {
		p.unsupported(p.tok(), "TABLESAMPLE")
	}
	if len(cols) > 0 {
		outs := make([]Result, len(src.cols))
		for i, f := range src.cols {
			outs[i] = Result{f.name, f.typ, f.table, f.attr}
		}
		p.emit("(SELECT * FROM ", text, ")")
		src.cols = named(outs, cols)
		p.renamed(alias, outs, src.cols)
	} else {
		p.emit(text, " AS ", quoteIdent(alias))
	}
	src.alias = alias
	p.addSource(at, sc, src)
}

// parenQuery tells whether parentheses within parentheses hold a query.
func (p *parser) parenQuery() bool {
	n := 0
	for p.peek(n).is("(") {
		n++
	}
	t := p.peek(n)
	return t.is("select") || t.is("with") || t.is("values")
}

// renamed writes the alias of a derived table, renaming its columns where they are to have other names.
func (p *parser) renamed(alias string, outs []Result, fields []field) {
	same := true
	for i := range fields {
		same = same && fields[i].name == outs[i].Name
	}
	if !same {
		// SQLite has no column aliases there.
		inner := string(p.out)
		from := p.lastItem(inner)
		item := inner[from:]
		p.out = p.out[:from]
		p.ctes++
		name := quoteIdent("renamed " + strconv.Itoa(p.ctes))
		p.emit("(WITH ", name, "(")
		for i, f := range fields {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(quoteIdent(f.name))
		}
		p.emit(") AS ", item, " SELECT * FROM ", name, ")")
	}
	p.emit(" AS ", quoteIdent(alias))
}

// lastItem finds where the parentheses that end the text begin.
func (p *parser) lastItem(s string) int {
	depth := 0
	for i := len(s) - 1; i >= 0; i-- {
		switch s[i] {
		case '"', '\'':
			q := s[i]
			for i--; i >= 0 && s[i] != q; i-- {
			}
		case ')':
			depth++
		case '(':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return 0
}

func (p *parser) addSource(at *token, sc *scope, s *source) {
	if sc.source(s.alias) != nil {
		p.fail(at, Errorf(DuplicateAlias, "table name \"%s\" specified more than once", s.alias))
	}
	sc.sources = append(sc.sources, s)
}

// alias reads [AS] name [(columns)].
func (p *parser) alias(only bool) (alias string, cols []string) {
	if p.take("as") {
		alias = p.label()
	} else if p.isName() && !p.isOne("set", "values", "default") {
		alias = p.ident()
	} else {
		return "", nil
	}
	if !only && p.take("(") {
		for {
			cols = append(cols, p.ident())
			if t := p.tok(); t.kind == identToken && !p.is(",") { // a type, of a record function
				p.unsupported(t, "a column definition list")
			}
			if !p.take(",") {
				break
			}
		}
		p.need(")")
	}
	return alias, cols
}

// tableName reads the name of a table or of a common table expression.
func (p *parser) tableName() (*source, string) {
	at := p.tok()
	schema, name := "", p.ident()
	if p.take(".") {
		schema, name = name, p.label()
	}
	if p.take(".") { // database.schema.table
		schema, name = name, p.label()
	}
	if schema == "" {
		if fields, ok := p.scope.cte(name); ok {
			return &source{alias: name, cols: fields}, quoteIdent(name)
		}
	}
	t := p.opt.Catalog.Find(schema, name)
	if t == nil {
		full := name
		if schema != "" {
			full = schema + "." + name
		}
		p.fail(at, Errorf(UndefinedTable, "relation \"%s\" does not exist", full))
	}
	return &source{alias: name, cols: tableFields(t), table: t}, t.SQLName()
}

// fromFunction reads a function in FROM.
func (p *parser) fromFunction(sc *scope) bool {
	if !p.functionHere() {
		return false
	}
	t := p.tok()
	name := p.label()
	if p.take(".") {
		name = p.label()
	}
	p.need("(")
	var args []apart
	here := p.scope
	for !p.is(")") {
		args = append(args, p.aside2(0))
		if !p.take(",") {
			break
		}
	}
	p.scope = here
	p.need(")")
	if p.is("with", "ordinality") {
		p.unsupported(t, "WITH ORDINALITY")
	}
	alias, cols := p.alias(false)
	if alias == "" {
		alias = name
	}
	col := alias
	if len(cols) > 0 {
		col = cols[0]
	}
	typ := Text
	switch {
	case name == "generate_series" && (len(args) == 2 || len(args) == 3):
		typ = Int4
		p.emit("(SELECT value AS ", quoteIdent(col), " FROM generate_series(")
		for i := range args {
			if args[i].typ == Int8 {
				typ = Int8
			}
			if isTime(args[i].typ) {
				p.unsupported(t, "generate_series of times")
			}
			if i > 0 {
				p.emit(", ")
			}
			p.emit(args[i].settle(p, Int8))
		}
		p.emit("))")
	case name == "unnest" && len(args) == 1:
		if typ = elemOf(args[0].typ); typ == 0 {
			typ = Text
		}
		p.emit("(SELECT value AS ", quoteIdent(col), " FROM json_each(pg_array_json(", args[0].settle(p, TextArray), ", ", strconv.Itoa(int(typ)), ")))")
	default:
		p.unsupported(t, "the function "+name+" in FROM")
	}
	p.emit(" AS ", quoteIdent(alias))
	p.addSource(t, sc, &source{alias: alias, cols: []field{{name: col, typ: typ}}})
	return true
}
