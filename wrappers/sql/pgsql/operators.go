package pgsql

import (
	"strconv"
	"strings"
)

// infix reads one operator that binds tighter than min and its right side.
func (p *parser) infix(l ex, min int) (ex, bool) {
	l.end = len(p.out)
	t := p.tok()
	switch t.kind {
	case opToken:
	case identToken:
		return p.infixWord(l, min)
	default:
		return l, false
	}
	switch op := t.text; op {
	case ")", "]", ",", ";", "(", ".", ":", ":=":
		return l, false
	case "::":
		p.i++
		return p.cast(l, p.typeName()), true
	case "[":
		return p.subscript(l), true
	case "<", ">", "=", "<=", ">=", "<>", "!=":
		if min >= compareLevel {
			return l, false
		}
		p.i++
		return p.compare(l, op), true
	case "+", "-":
		if min >= addLevel {
			return l, false
		}
		p.i++
		r := p.right(addLevel)
		return p.arithmetic(l, r, op), true
	case "*", "/", "%":
		if min >= mulLevel {
			return l, false
		}
		p.i++
		r := p.right(mulLevel)
		return p.arithmetic(l, r, op), true
	case "^":
		if min >= powLevel {
			return l, false
		}
		p.i++
		r := p.right(powLevel)
		p.bothTo(&l, &r, Float8)
		e := p.call(&l, &r, "pow")
		e.typ = Float8
		return e, true
	default:
		if min >= otherLevel {
			return l, false
		}
		p.i++
		return p.operator(l, t, op), true
	}
}

// compare reads what stands behind a comparison.
func (p *parser) compare(l ex, op string) ex {
	if op == "!=" {
		op = "<>"
	}
	if p.isOne("any", "some", "all") && p.peek(1).is("(") {
		return p.quantified(l, op)
	}
	r := p.right(compareLevel)
	p.both(&l, &r)
	e := p.binary(&l, &r, op)
	e.typ = Bool
	return e
}

// quantified reads = ANY (…), <> ALL (…) of a query or an array.
func (p *parser) quantified(l ex, op string) ex {
	t := p.tok()
	all := t.text == "all"
	p.i++
	in := ""
	switch {
	case op == "=" && !all:
		in = " IN "
	case op == "<>" && all:
		in = " NOT IN "
	default:
		p.unsupported(t, "an operator other than = ANY and <> ALL")
	}
	p.need("(")
	if p.is("select") || p.is("with") || p.is("values") {
		p.emit(in, "(")
		p.subquery()
		p.emit(")")
	} else {
		typ := l.typ
		text := p.aside(func() {
			a := p.expr(0)
			if l.lit && elemOf(a.typ) != 0 {
				typ = elemOf(a.typ)
			}
			if a.lit {
				p.coerce(&a, arrayOf(typ))
			}
		})
		if l.lit {
			p.coerce(&l, typ)
		}
		p.emit(in, "(SELECT value FROM json_each(pg_array_json(", text, ", ", strconv.Itoa(int(typ)), ")))")
	}
	p.need(")")
	p.insert(l.start, "(")
	p.emit(")")
	return ex{start: l.start, typ: Bool}
}

// arithmetic writes + - * / %.
func (p *parser) arithmetic(l, r ex, op string) ex {
	lt, rt := l.typ, r.typ
	switch {
	case op == "+" && isTime(lt) && rt == Interval, op == "-" && isTime(lt) && rt == Interval:
		return p.moveTime(l, r, op)
	case op == "+" && lt == Interval && isTime(rt):
		e := p.call(&l, &r, "pg_add_time")
		e.typ = rt
		return e
	case op == "-" && isTime(lt) && (isTime(rt) || r.lit && r.text != nil):
		if r.lit {
			// now() - '1 hour' is a time less an interval; now() - '2026-01-01' is none that PostgreSQL takes otherwise.
			if _, ok := parseInterval(*r.text); ok {
				p.coerce(&r, Interval)
				return p.moveTime(l, r, op)
			}
			p.coerce(&r, lt)
		}
		if lt == Date && rt == Date {
			e := p.call(&l, &r, "pg_days")
			e.typ = Int4
			return e
		}
		e := p.call(&l, &r, "pg_age")
		e.typ = Interval
		return e
	case op == "+" && isTime(lt) && r.lit && r.text != nil:
		p.coerce(&r, Interval)
		return p.moveTime(l, r, op)
	case lt == Date && isInt(rt) && (op == "+" || op == "-"):
		p.wrap(&r, "pg_intervaldays(", ")")
		e := p.moveTime(l, r, op)
		e.end = len(p.out)
		p.wrap(&e, "pg_cast(", castArgs(Timestamp, Date))
		e.typ = Date
		return e
	case lt == Interval && isNumber(rt) && (op == "*" || op == "/"):
		if op == "/" {
			p.wrap(&r, "1.0 / (", ")")
		}
		e := p.call(&l, &r, "pg_interval_mul")
		e.typ = Interval
		return e
	case lt == Interval && rt == Interval:
		f := "pg_interval_add"
		if op == "-" {
			f = "pg_interval_sub"
		}
		e := p.call(&l, &r, f)
		e.typ = Interval
		return e
	}
	typ := OID(0)
	switch {
	case l.lit && r.lit:
		typ = p.bothTo(&l, &r, Int4)
	default:
		typ = p.both(&l, &r)
	}
	if (lt == JSONB || lt == JSON) && op == "-" {
		e := p.call(&l, &r, "pg_json_remove")
		e.typ = JSONB
		return e
	}
	switch op {
	case "/", "%":
		f := "pg_div"
		if op == "%" {
			f = "pg_mod"
		}
		if op == "/" && !isInt(l.typ) || op == "/" && !isInt(r.typ) {
			f = "pg_fdiv"
		}
		e := p.call(&l, &r, f)
		e.typ = typ
		return e
	}
	e := p.binary(&l, &r, op)
	e.typ = typ
	return e
}

func (p *parser) moveTime(l, r ex, op string) ex {
	typ := l.typ
	f := "pg_time_add"
	if op == "-" {
		f = "pg_time_sub"
	}
	if typ == Date {
		typ = Timestamp
	}
	e := p.call(&l, &r, f)
	e.typ = typ
	return e
}

// operator writes the other operators.
func (p *parser) operator(l ex, t *token, op string) ex {
	switch op {
	case "||":
		r := p.right(otherLevel)
		if isArray(l.typ) || isArray(r.typ) {
			p.unsupported(t, "concatenation of arrays")
		}
		if (l.typ == JSONB || r.typ == JSONB) && l.typ != Text && r.typ != Text {
			p.both(&l, &r)
			e := p.call(&l, &r, "pg_json_concat")
			e.typ = JSONB
			return e
		}
		lt, rt := l.typ, r.typ
		if l.typ == Bytea {
			p.both(&l, &r)
			e := p.binary(&l, &r, op)
			e.typ = Bytea
			return e
		}
		if r.lit {
			p.coerce(&r, Text)
		} else if !isText(rt) {
			p.wrap(&r, "pg_cast(", castArgs(rt, Text))
		}
		if l.lit {
			d := p.coerce(&l, Text)
			r.start, r.end = r.start+d, r.end+d
		} else if !isText(lt) {
			d := p.wrap(&l, "pg_cast(", castArgs(lt, Text))
			r.start, r.end = r.start+d, r.end+d
		}
		e := p.binary(&l, &r, op)
		e.typ = Text
		return e
	case "->", "->>":
		r := p.right(otherLevel)
		if r.lit && r.param > 0 {
			p.coerce(&r, Text)
		}
		e := p.binary(&l, &r, op)
		e.typ = JSONB
		if op == "->>" {
			e.typ = Text
		}
		return e
	case "~", "~*", "!~", "!~*":
		return p.match(l, op)
	case "~~", "~~*", "!~~", "!~~*":
		return p.like(l, strings.HasSuffix(op, "*"), strings.HasPrefix(op, "!"))
	case "&", "|", "<<", ">>", "#":
		r := p.right(otherLevel)
		typ := p.both(&l, &r)
		if op == "#" {
			e := p.call(&l, &r, "pg_xor")
			e.typ = typ
			return e
		}
		e := p.binary(&l, &r, op)
		e.typ = typ
		return e
	}
	p.fail(t, Errorf(UndefinedFunction, "operator does not exist: %s", op))
	return l
}

// match writes the regular expression operators.
func (p *parser) match(l ex, op string) ex {
	r := p.right(otherLevel)
	p.coerce(&r, Text)
	d := p.coerce(&l, Text)
	r.start, r.end = r.start+d, r.end+d
	e := p.call(&l, &r, "pg_regexp"+map[string]string{"~": "", "~*": "_i", "!~": "_not", "!~*": "_not_i"}[op])
	e.typ = Bool
	return e
}

// like reads what stands behind LIKE and ILIKE. A backslash escapes unless another character is named.
func (p *parser) like(l ex, fold, not bool) ex {
	r := p.right(likeLevel)
	p.coerce(&r, Text)
	d := p.coerce(&l, Text)
	r.start, r.end = r.start+d, r.end+d
	escape := `'\'`
	if p.take("escape") {
		escape = p.aside(func() {
			e := p.expr(likeLevel)
			p.coerce(&e, Text)
		})
	}
	if fold {
		p.wrap(&r, "lower(", ")")
		d := p.wrap(&l, "lower(", ")")
		r.start, r.end = r.start+d, r.end+d
	}
	op := "LIKE"
	if not {
		op = "NOT LIKE"
	}
	e := p.binary(&l, &r, op)
	if escape != "''" { // none at all
		p.out = p.out[:len(p.out)-1]
		p.emit(" ESCAPE ", escape, ")")
	}
	e.typ = Bool
	return e
}

// infixWord reads the operators that are words.
func (p *parser) infixWord(l ex, min int) (ex, bool) {
	not := p.is("not") && (p.peek(1).is("between") || p.peek(1).is("in") || p.peek(1).is("like") || p.peek(1).is("ilike") || p.peek(1).is("similar"))
	w := p.tok()
	if not {
		w = p.peek(1)
	}
	skip := func() {
		p.i++
		if not {
			p.i++
		}
	}
	switch w.text {
	case "or", "and":
		level := orLevel
		if w.text == "and" {
			level = andLevel
		}
		if not || min >= level {
			return l, false
		}
		p.coerce(&l, Bool)
		p.i++
		p.emit(" ", strings.ToUpper(w.text), " ")
		r := p.right(level)
		p.coerce(&r, Bool)
		if level == orLevel {
			p.insert(l.start, "(")
			p.emit(")")
		}
		return ex{start: l.start, typ: Bool}, true
	case "is":
		if min >= isLevel {
			return l, false
		}
		p.i++
		return p.isTest(l), true
	case "isnull", "notnull":
		if min >= isLevel {
			return l, false
		}
		p.i++
		p.insert(l.start, "(")
		p.emit(map[string]string{"isnull": " IS NULL)", "notnull": " IS NOT NULL)"}[w.text])
		return ex{start: l.start, typ: Bool}, true
	case "between":
		if min >= likeLevel {
			return l, false
		}
		skip()
		if p.take("symmetric") {
			p.unsupported(w, "BETWEEN SYMMETRIC")
		}
		p.take("asymmetric")
		return p.between(l, not), true
	case "in":
		if min >= likeLevel {
			return l, false
		}
		skip()
		return p.inList(l, not), true
	case "like", "ilike":
		if min >= likeLevel {
			return l, false
		}
		skip()
		return p.like(l, w.text == "ilike", not), true
	case "similar":
		p.unsupported(w, "SIMILAR TO")
	case "operator":
		if min >= otherLevel || !p.peek(1).is("(") {
			return l, false
		}
		p.i += 2
		for p.tok().kind == identToken {
			p.i++
			p.need(".")
		}
		op := p.tok()
		p.i++
		p.need(")")
		switch op.text {
		case "=", "<>", "<", ">", "<=", ">=", "!=":
			return p.compare(l, op.text), true
		case "+", "-", "*", "/", "%":
			r := p.right(otherLevel)
			return p.arithmetic(l, r, op.text), true
		}
		return p.operator(l, op, op.text), true
	case "collate":
		if min >= collateLevel {
			return l, false
		}
		p.i++
		name := p.label()
		for p.take(".") {
			name = p.label()
		}
		switch name {
		case "default", "C", "POSIX", "ucs_basic", "pg_c_utf8":
		default:
			p.fail(w, Errorf(UndefinedObject, "collation \"%s\" for encoding \"UTF8\" does not exist", name))
		}
		return l, true
	case "at":
		if min >= atLevel || !p.is("at", "time", "zone") {
			return l, false
		}
		p.i += 3
		r := p.right(atLevel)
		p.coerce(&r, Text)
		typ := l.typ
		if l.lit {
			d := p.coerce(&l, Timestamptz)
			r.start, r.end = r.start+d, r.end+d
			typ = Timestamptz
		}
		f, to := "pg_at_zone", Timestamp
		if typ == Timestamp {
			f, to = "pg_from_zone", Timestamptz
		}
		e := p.call(&l, &r, f)
		e.typ, e.name = to, "timezone"
		return e, true
	}
	return l, false
}

// isTest reads what stands behind IS.
func (p *parser) isTest(l ex) ex {
	not := ""
	if p.take("not") {
		not = "NOT "
	}
	t := p.tok()
	p.insert(l.start, "(")
	l.start++
	l.end++
	switch {
	case p.take("null"):
		p.emit(" IS ", not, "NULL)")
	case p.take("true"):
		p.emit(" IS ", not, "TRUE)")
	case p.take("false"):
		p.emit(" IS ", not, "FALSE)")
	case p.take("unknown"):
		p.emit(" IS ", not, "NULL)")
	case p.take("distinct", "from"):
		r := p.right(isLevel)
		p.both(&l, &r)
		op := "IS NOT"
		if not != "" {
			op = "IS"
		}
		p.binary(&l, &r, op)
		p.emit(")")
	default:
		p.fail(t, Errorf(SyntaxError, "syntax error at or near \"%s\"", p.sql[t.pos:t.end]))
	}
	return ex{start: l.start - 1, typ: Bool}
}

func (p *parser) between(l ex, not bool) ex {
	low := p.aside2(otherLevel)
	p.need("and")
	high := p.aside2(otherLevel)
	if l.lit {
		typ := low.typ
		if low.lit {
			typ = high.typ
		}
		p.coerce(&l, typ)
	}
	lowText, highText := low.settle(p, l.typ), high.settle(p, l.typ)
	op := " BETWEEN "
	if not {
		op = " NOT BETWEEN "
	}
	p.insert(l.start, "(")
	p.emit(op, lowText, " AND ", highText, ")")
	return ex{start: l.start, typ: Bool}
}

func (p *parser) inList(l ex, not bool) ex {
	op := " IN ("
	if not {
		op = " NOT IN ("
	}
	p.need("(")
	if p.is("select") || p.is("with") || p.is("values") || p.is("(") && p.parenQuery() {
		p.emit(op)
		outs := p.subquery()
		p.emit(")")
		if l.lit && len(outs) == 1 {
			p.coerce(&l, outs[0].Type)
		}
	} else {
		var items []apart
		typ := OID(0)
		for {
			a := p.aside2(0)
			items = append(items, a)
			if !a.lit {
				typ = a.typ
			}
			if !p.take(",") {
				break
			}
		}
		if l.lit {
			if typ == 0 {
				typ = Text
			}
			p.coerce(&l, typ)
		}
		p.emit(op)
		for i := range items {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(items[i].settle(p, l.typ))
		}
		p.emit(")")
	}
	p.need(")")
	p.insert(l.start, "(")
	p.emit(")")
	return ex{start: l.start, typ: Bool}
}

// subscript reads a[n].
func (p *parser) subscript(l ex) ex {
	t := p.tok()
	p.need("[")
	n := p.aside2(0)
	if p.is(":") {
		p.unsupported(t, "a slice of an array")
	}
	p.need("]")
	typ := elemOf(l.typ)
	if typ == 0 {
		typ = Text
	}
	text := n.settle(p, Int4)
	p.insert(l.start, "pg_array_get(")
	p.emit(", ", text, ", ", strconv.Itoa(int(typ)), ")")
	return ex{start: l.start, typ: typ, name: l.name}
}
