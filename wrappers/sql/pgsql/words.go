package pgsql

import (
	"slices"
	"strconv"
	"strings"
)

// word reads an expression that begins with a name: a column, a function, a keyword.
func (p *parser) word() ex {
	t := p.tok()
	start := len(p.out)
	simple := func(text string, typ OID, name string) ex {
		p.i++
		p.emit(text)
		return ex{start: start, typ: typ, name: name}
	}
	if t.kind == identToken {
		switch t.text {
		case "null":
			e := simple("NULL", Untyped, "")
			e.lit, e.end = true, len(p.out)
			return e
		case "true":
			return simple("1", Bool, "bool")
		case "false":
			return simple("0", Bool, "bool")
		case "default":
			p.fail(t, Errorf(SyntaxError, "DEFAULT is not allowed in this context"))
		case "not":
			p.i++
			p.emit("(NOT ")
			e := p.expr(notLevel)
			p.coerce(&e, Bool)
			p.emit(")")
			return ex{start: start, typ: Bool}
		case "exists":
			if p.peek(1).is("(") {
				p.i += 2
				p.emit("EXISTS(")
				p.subquery()
				p.need(")")
				p.emit(")")
				return ex{start: start, typ: Bool, name: "exists"}
			}
		case "case":
			return p.caseExpr()
		case "cast":
			p.i++
			p.need("(")
			e := p.expr(0)
			p.need("as")
			to := p.typeName()
			p.need(")")
			return p.cast(e, to)
		case "array":
			return p.array()
		case "row":
			if p.peek(1).is("(") {
				p.i++
				return p.parens()
			}
		case "current_timestamp":
			p.precision()
			return simple("pg_now()", Timestamptz, "current_timestamp")
		case "localtimestamp":
			p.precision()
			return simple("pg_cast(pg_now()"+castArgs(Timestamptz, Timestamp), Timestamp, "localtimestamp")
		case "current_date":
			return simple("pg_cast(pg_now()"+castArgs(Timestamptz, Date), Date, "current_date")
		case "current_time", "localtime":
			p.precision()
			return simple("pg_cast(pg_now()"+castArgs(Timestamptz, Time), Time, t.text)
		case "current_user", "session_user", "user", "current_role":
			return simple("pg_user()", Name, t.text)
		case "current_catalog":
			return simple("pg_database()", Name, t.text)
		case "current_schema":
			if !p.peek(1).is("(") {
				return simple("pg_schema()", Name, t.text)
			}
		case "interval":
			if p.peek(1).kind == stringToken {
				p.i++
				s := p.tok().text
				p.i++
				if p.isOne("year", "month", "day", "hour", "minute", "second") {
					s += " " + p.tok().text
					p.i++
				}
				iv, ok := parseInterval(s)
				if !ok {
					p.fail(t, Errorf(InvalidDatetime, "invalid input syntax for type interval: \"%s\"", clipText(s)))
				}
				p.emit(quoteText(iv.String()))
				return ex{start: start, typ: Interval, name: "interval"}
			}
		}
		// date '2026-01-31', timestamp with time zone '…'
		if p.typedLiteral() {
			to := p.typeName()
			e := p.prefixExpr()
			return p.cast(e, to)
		}
	}
	if p.functionHere() {
		return p.function()
	}
	if t.kind == identToken && reserved[t.text] {
		p.syntax()
	}
	return p.columnRef()
}

// precision skips the (n) of current_timestamp(n), which stands behind the word that the caller reads.
func (p *parser) precision() {
	if p.peek(1).is("(") && p.peek(2).kind == numberToken && p.peek(3).is(")") {
		// The word takes the place of the closing parenthesis.
		p.i += 3
	}
}

// typedLiteral tells whether a type stands here with a literal behind it.
func (p *parser) typedLiteral() bool {
	t := p.tok()
	if _, ok := TypeNamed(t.text); !ok && t.text != "double" {
		return false
	}
	n := 1
	if p.peek(1).is("precision") {
		n = 2
	}
	if p.peek(1).is("with") && p.peek(2).is("time") || p.peek(1).is("without") && p.peek(2).is("time") {
		n = 4
	}
	return p.peek(n).kind == stringToken
}

// functionHere tells whether a call stands here, with or without a schema.
func (p *parser) functionHere() bool {
	if p.peek(1).is("(") {
		return true
	}
	return p.peek(1).is(".") && p.peek(3).is("(") && (p.peek(2).kind == identToken || p.peek(2).kind == quotedToken)
}

func (p *parser) caseExpr() ex {
	start := len(p.out)
	p.need("case")
	var operand apart
	simple := !p.is("when")
	if simple {
		operand = p.aside2(0)
	}
	type branch struct{ when, then apart }
	var branches []branch
	typ, whenTyp := OID(0), operand.typ
	if operand.lit {
		whenTyp = 0
	}
	note := func(a apart) {
		if !a.lit {
			typ = unify(typ, a.typ)
		}
	}
	for p.take("when") {
		var b branch
		b.when = p.aside2(0)
		if simple && !b.when.lit && whenTyp == 0 {
			whenTyp = b.when.typ
		}
		p.need("then")
		b.then = p.aside2(0)
		note(b.then)
		branches = append(branches, b)
	}
	if len(branches) == 0 {
		p.syntax()
	}
	var other apart
	hasElse := p.take("else")
	if hasElse {
		other = p.aside2(0)
		note(other)
	}
	p.need("end")
	if typ == 0 {
		typ = Text
	}
	if whenTyp == 0 {
		whenTyp = Text
	}
	p.emit("CASE")
	if simple {
		p.emit(" ", operand.settle(p, whenTyp))
	} else {
		whenTyp = Bool
	}
	for i := range branches {
		p.emit(" WHEN ", branches[i].when.settle(p, whenTyp), " THEN ", branches[i].then.settle(p, typ))
	}
	if hasElse {
		p.emit(" ELSE ", other.settle(p, typ))
	}
	p.emit(" END")
	name := "case"
	if hasElse && other.name != "" {
		name = other.name
	}
	return ex{start: start, typ: typ, name: name}
}

// array reads ARRAY[…] and ARRAY(SELECT …).
func (p *parser) array() ex {
	start := len(p.out)
	p.need("array")
	if p.take("(") {
		var outs []Result
		text := p.aside(func() { outs = p.subquery() })
		p.need(")")
		if len(outs) != 1 {
			p.fail(p.tok(), Errorf(SyntaxError, "subquery must return only one column"))
		}
		p.emit("(SELECT coalesce(pg_array_agg(", quoteIdent(outs[0].Name), ", ", strconv.Itoa(int(outs[0].Type)), "), '{}') FROM (", text, "))")
		return ex{start: start, typ: arrayOf(outs[0].Type), name: "array"}
	}
	p.need("[")
	var items []apart
	typ := OID(0)
	for !p.is("]") {
		a := p.aside2(0)
		if !a.lit {
			typ = unify(typ, a.typ)
		}
		items = append(items, a)
		if !p.take(",") {
			break
		}
	}
	p.need("]")
	if typ == 0 {
		typ = Text
	}
	p.emit("pg_array(", strconv.Itoa(int(typ)))
	for i := range items {
		p.emit(", ", items[i].settle(p, typ))
	}
	p.emit(")")
	return ex{start: start, typ: arrayOf(typ), name: "array"}
}

// function reads a call.
func (p *parser) function() ex {
	t, at := p.tok(), p.i
	start := len(p.out)
	name := p.label()
	if p.take(".") {
		schema := name
		name = p.label()
		if schema != "pg_catalog" && schema != "information_schema" && schema != "public" {
			p.fail(t, Errorf("3F000", "schema \"%s\" does not exist", schema))
		}
	}
	p.need("(")
	switch name {
	case "extract":
		return p.extract(start)
	case "position":
		sub := p.aside2(likeLevel)
		p.need("in")
		in := p.aside2(0)
		p.need(")")
		p.emit("instr(", in.settle(p, Text), ", ", sub.settle(p, Text), ")")
		return ex{start: start, typ: Int4, name: name}
	case "substring":
		return p.substring(start)
	case "trim":
		return p.trim(start)
	case "overlay":
		p.unsupported(t, "overlay()")
	case "coalesce", "greatest", "least", "nullif":
		return p.alternatives(name, start)
	}
	if slices.Contains(setFunctions, name) {
		return p.setFunction(at, name, start)
	}
	f, known := functions[name]
	if !known {
		p.fail(t, Errorf(UndefinedFunction, "function %s does not exist", name))
	}
	var args []apart
	distinct, order := "", ""
	star := false
	if p.take("*") {
		star = true
	} else if !p.is(")") {
		if p.take("distinct") {
			distinct = "DISTINCT "
		} else {
			p.take("all")
		}
		for {
			p.take("variadic")
			if p.tok().kind == identToken && (p.peek(1).is("=>") || p.peek(1).is(":=")) {
				p.unsupported(p.tok(), "named arguments")
			}
			args = append(args, p.aside2(0))
			if !p.take(",") {
				break
			}
		}
		if p.take("order", "by") {
			order = p.aside(func() {
				p.emit(" ORDER BY ")
				p.sortList(nil)
			})
		}
	}
	p.need(")")
	if len(args) < f.min || f.max >= 0 && len(args) > f.max || star && name != "count" {
		p.fail(t, Errorf(UndefinedFunction, "function %s with %d arguments does not exist", name, len(args)))
	}
	for i := range args {
		if args[i].lit {
			to := Text
			if len(f.args) > 0 {
				to = f.args[min(i, len(f.args)-1)]
			} else if i > 0 && !args[0].lit && f.agg {
				to = Text
			}
			args[i].settle(p, to)
		}
	}
	typ := f.ret(args)
	if f.write != nil {
		f.write(p, name, args, distinct, order)
	} else {
		to := f.to
		if to == "" {
			to = name
		}
		p.emit(to, "(", distinct)
		if star {
			p.emit("*")
		}
		for i := range args {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(args[i].s)
		}
		p.emit(order, ")")
	}
	if p.is("within", "group") {
		p.unsupported(t, "WITHIN GROUP")
	}
	if p.is("filter", "(") {
		p.i += 2
		p.need("where")
		p.emit(" FILTER (WHERE ")
		p.condition()
		p.need(")")
		p.emit(")")
	}
	if p.take("over") {
		p.emit(" OVER ")
		if p.is("(") {
			p.windowSpec()
		} else {
			p.emit(quoteIdent(p.ident()))
		}
	} else if f.window {
		p.fail(t, Errorf("42P20", "window function %s requires an OVER clause", name))
	}
	return ex{start: start, typ: typ, name: name}
}

// windowSpec reads (PARTITION BY … ORDER BY … frame).
func (p *parser) windowSpec() {
	p.need("(")
	p.emit("(")
	if p.isName() && !p.isOne("partition", "rows", "range", "groups") {
		p.emit(quoteIdent(p.ident()), " ")
	}
	if p.take("partition", "by") {
		p.emit("PARTITION BY ")
		for {
			p.expr(0)
			if !p.take(",") {
				break
			}
			p.emit(", ")
		}
	}
	if p.take("order", "by") {
		p.emit(" ORDER BY ")
		p.sortList(nil)
	}
	if p.isOne("rows", "range", "groups") {
		p.emit(" ", strings.ToUpper(p.tok().text), " ")
		p.i++
		bound := func() {
			switch {
			case p.take("unbounded", "preceding"):
				p.emit("UNBOUNDED PRECEDING")
			case p.take("unbounded", "following"):
				p.emit("UNBOUNDED FOLLOWING")
			case p.take("current", "row"):
				p.emit("CURRENT ROW")
			default:
				p.expr(0)
				if p.take("preceding") {
					p.emit(" PRECEDING")
				} else {
					p.need("following")
					p.emit(" FOLLOWING")
				}
			}
		}
		if p.take("between") {
			p.emit("BETWEEN ")
			bound()
			p.need("and")
			p.emit(" AND ")
			bound()
		} else {
			bound()
		}
		if p.take("exclude") {
			p.emit(" EXCLUDE ")
			for !p.is(")") && p.tok().kind == identToken {
				p.emit(strings.ToUpper(p.tok().text), " ")
				p.i++
			}
		}
	}
	p.need(")")
	p.emit(")")
}

func (p *parser) extract(start int) ex {
	t := p.tok()
	what := t.text
	if t.kind != identToken && t.kind != stringToken && t.kind != quotedToken {
		p.syntax()
	}
	p.i++
	p.need("from")
	from := p.aside2(0)
	p.need(")")
	text := from.settle(p, Timestamptz)
	p.emit("pg_extract(", quoteText(strings.ToLower(what)), ", ", text, ", ", strconv.Itoa(int(from.typ)), ")")
	return ex{start: start, typ: Numeric, name: "extract"}
}

func (p *parser) substring(start int) ex {
	s := p.aside2(0)
	text := s.settle(p, Text)
	from, length := "", ""
	switch {
	case p.take("similar"):
		p.unsupported(p.tok(), "substring(… SIMILAR …)")
	case p.take(","):
		a := p.aside2(0)
		from = a.settle(p, Int4)
		if p.take(",") {
			b := p.aside2(0)
			length = b.settle(p, Int4)
		}
	default:
		if p.take("from") {
			a := p.aside2(0)
			if isText(a.typ) || a.text != nil {
				pattern := a.settle(p, Text)
				p.need(")")
				p.emit("pg_substring(", text, ", ", pattern, ")")
				return ex{start: start, typ: Text, name: "substring"}
			}
			from = a.settle(p, Int4)
		}
		if p.take("for") {
			b := p.aside2(0)
			length = b.settle(p, Int4)
		}
		if from == "" {
			from = "1"
		}
	}
	p.need(")")
	p.emit("pg_substr(", text, ", ", from)
	if length != "" {
		p.emit(", ", length)
	}
	p.emit(")")
	typ := Text
	if s.typ == Bytea {
		typ = Bytea
	}
	return ex{start: start, typ: typ, name: "substring"}
}

func (p *parser) trim(start int) ex {
	f := "btrim"
	switch {
	case p.take("leading"):
		f = "ltrim"
	case p.take("trailing"):
		f = "rtrim"
	default:
		p.take("both")
	}
	var a, chars apart
	has := false
	if p.take("from") {
		a = p.aside2(0)
	} else {
		a = p.aside2(0)
		if p.take("from") {
			chars, has = a, true
			a = p.aside2(0)
		} else if p.take(",") {
			chars, has = p.aside2(0), true
		}
	}
	p.need(")")
	if f == "btrim" {
		p.emit("trim(")
	} else {
		p.emit(f, "(")
	}
	p.emit(a.settle(p, Text))
	if has {
		p.emit(", ", chars.settle(p, Text))
	}
	p.emit(")")
	return ex{start: start, typ: Text, name: f}
}

// alternatives reads the calls whose arguments have one type.
func (p *parser) alternatives(name string, start int) ex {
	var args []apart
	typ := OID(0)
	for {
		a := p.aside2(0)
		if !a.lit {
			typ = unify(typ, a.typ)
		}
		args = append(args, a)
		if !p.take(",") {
			break
		}
	}
	p.need(")")
	if typ == 0 {
		typ = Text
	}
	to := map[string]string{"coalesce": "coalesce", "nullif": "nullif", "greatest": "pg_greatest", "least": "pg_least"}[name]
	if name == "coalesce" && len(args) == 1 {
		to = ""
	}
	p.emit(to, "(")
	for i := range args {
		if i > 0 {
			p.emit(", ")
		}
		p.emit(args[i].settle(p, typ))
	}
	p.emit(")")
	return ex{start: start, typ: typ, name: name}
}
