package pgsql

import (
	"strconv"
	"strings"
)

// An ex is an expression that was read, and where it stands in the output.
type ex struct {
	typ        OID
	start, end int
	lit        bool    // a literal or parameter whose type its neighbours tell
	text       *string // of a literal text
	param      int
	name       string // what a column made of it is called
	table      OID
	attr       int
	row        bool // (a, b)
}

// Binding strengths (PostgreSQL, table 4.2).
const (
	orLevel = 1 + iota
	andLevel
	notLevel
	isLevel
	compareLevel
	likeLevel
	otherLevel
	addLevel
	mulLevel
	powLevel
	atLevel
	collateLevel
	signLevel
)

// expr reads an expression whose operators bind tighter than min.
func (p *parser) expr(min int) ex {
	defer p.deeper()()
	l := p.prefixExpr()
	for {
		var ok bool
		if l, ok = p.infix(l, min); !ok {
			l.end = len(p.out)
			return l
		}
	}
}

// literal writes a value as SQLite does.
func (v Value) literal() string {
	switch v.Kind {
	case Null:
		return "NULL"
	case Int:
		return strconv.FormatInt(v.Int, 10)
	case Float:
		s := strconv.FormatFloat(v.Flt, 'g', -1, 64)
		switch {
		case s == "+Inf":
			return "9e999"
		case s == "-Inf":
			return "-9e999"
		case s == "NaN":
			return "NULL"
		case !strings.ContainsAny(s, ".e"):
			s += ".0"
		}
		return s
	case Blob:
		return "x'" + hexText(v.Str) + "'"
	}
	return quoteText(v.Str)
}

func hexText(s string) string {
	const d = "0123456789abcdef"
	b := make([]byte, 0, 2*len(s))
	for i := range len(s) {
		b = append(b, d[s[i]>>4], d[s[i]&15])
	}
	return string(b)
}

// wrap puts text around a part of the output.
func (p *parser) wrap(e *ex, before, behind string) int {
	s := before + string(p.out[e.start:e.end]) + behind
	d := p.replace(e.start, e.end, s)
	e.end += d
	return d
}

func castArgs(from, to OID) string {
	return ", " + strconv.Itoa(int(from)) + ", " + strconv.Itoa(int(to)) + ")"
}

// binary writes (l op r); r was read behind op, which the output does not have yet.
func (p *parser) binary(l, r *ex, op string) ex {
	ltext, rtext := string(p.out[l.start:l.end]), string(p.out[r.start:r.end])
	p.out = append(p.out[:l.start], "("+ltext+" "+op+" "+rtext+")"...)
	return ex{start: l.start, end: len(p.out)}
}

// call writes f(l, r).
func (p *parser) call(l, r *ex, f string) ex {
	ltext, rtext := string(p.out[l.start:l.end]), string(p.out[r.start:r.end])
	p.out = append(p.out[:l.start], f+"("+ltext+", "+rtext+")"...)
	return ex{start: l.start, end: len(p.out)}
}

func (p *parser) right(min int) ex {
	return p.expr(min)
}

// apart is an expression that was written aside.
type apart struct {
	ex
	s string
}

// aside2 reads an expression without writing it.
func (p *parser) aside2(min int) apart {
	var a apart
	saved := p.out
	p.out = nil
	a.ex = p.expr(min)
	a.s = string(p.out)
	p.out = saved
	return a
}

// settle gives it a type, and its text.
func (a *apart) settle(p *parser, to OID) string {
	if !a.lit {
		if to != a.typ && isTime(to) && isTime(a.typ) {
			return "pg_cast(" + a.s + castArgs(a.typ, to)
		}
		return a.s
	}
	saved := p.out
	p.out = []byte(a.s)
	p.coerce(&a.ex, to)
	a.s = string(p.out)
	p.out = saved
	return a.s
}

// prefixExpr reads what an expression begins with.
func (p *parser) prefixExpr() ex {
	t := p.tok()
	start := len(p.out)
	switch t.kind {
	case numberToken:
		p.i++
		return p.number(t, "")
	case stringToken:
		p.i++
		text := t.text
		for p.tok().kind == stringToken && strings.Contains(p.sql[p.toks[p.i-1].end:p.tok().pos], "\n") {
			text += p.tok().text // strings on several lines are one
			p.i++
		}
		p.emit(quoteText(text))
		return ex{start: start, end: len(p.out), lit: true, typ: Untyped, text: &text}
	case paramToken:
		p.i++
		for len(p.params) < t.n {
			p.params = append(p.params, 0)
		}
		typ := p.params[t.n-1]
		p.emit("?", strconv.Itoa(t.n))
		lit := typ == 0 || typ == Untyped
		if lit {
			typ = Untyped
		}
		return ex{start: start, end: len(p.out), lit: lit, typ: typ, param: t.n}
	case bitToken:
		p.unsupported(t, "a bit string")
	case opToken:
		switch t.text {
		case "(":
			return p.parens()
		case "-", "+":
			p.i++
			if n := p.tok(); n.kind == numberToken && !p.peek(1).is("::") {
				p.i++
				sign := ""
				if t.text == "-" {
					sign = "-"
				}
				return p.number(n, sign)
			}
			p.emit("(", t.text)
			e := p.expr(signLevel)
			p.coerce(&e, Float8)
			p.emit(")")
			return ex{start: start, typ: e.typ}
		case "~":
			p.i++
			p.emit("(~")
			e := p.expr(otherLevel)
			p.emit(")")
			return ex{start: start, typ: e.typ}
		case "@":
			p.i++
			p.emit("abs(")
			e := p.expr(otherLevel)
			p.emit(")")
			return ex{start: start, typ: e.typ}
		}
		p.syntax()
	case quotedToken, identToken:
		return p.word()
	}
	p.syntax()
	return ex{}
}

// number writes a numeric literal: whole numbers are int4 or int8, all others numeric.
func (p *parser) number(t *token, sign string) ex {
	start := len(p.out)
	text := sign + t.text
	v, ok := Number(text)
	if !ok {
		p.fail(t, Errorf(OutOfRange, "value overflows numeric format"))
	}
	typ := Numeric
	if v.Kind == Int && !strings.ContainsAny(text, ".eE") {
		typ = Int8
		if v.Int == int64(int32(v.Int)) {
			typ = Int4
		}
	}
	if sign != "" {
		p.emit("(", v.literal(), ")")
	} else {
		p.emit(v.literal())
	}
	return ex{start: start, typ: typ}
}

// parens reads a query, a row or an expression in parentheses.
func (p *parser) parens() ex {
	start := len(p.out)
	if q := p.peek(1); q.is("select") || q.is("with") || q.is("values") || q.is("(") && p.parenQuery2() {
		p.i++
		p.emit("(")
		outs := p.subquery()
		p.need(")")
		p.emit(")")
		if len(outs) != 1 {
			if p.isOne("in", "=", "<>", "not") {
				return ex{start: start, typ: Untyped}
			}
			p.fail(p.tok(), Errorf(SyntaxError, "subquery must return only one column"))
		}
		return ex{start: start, typ: outs[0].Type, name: outs[0].Name}
	}
	p.i++
	p.emit("(")
	e := p.expr(0)
	n := 1
	for p.take(",") {
		p.emit(", ")
		p.expr(0)
		n++
	}
	p.need(")")
	p.emit(")")
	if n > 1 {
		return ex{start: start, typ: Untyped, row: true}
	}
	if e.lit { // without its parentheses, so that its type can still be told
		copy(p.out[start:], p.out[start+1:len(p.out)-1])
		p.out = p.out[:len(p.out)-2]
		e.start, e.end = start, len(p.out)
		return e
	}
	e.start, e.end = start, len(p.out)
	if e.typ == Record && p.is(".") {
		return p.member(e)
	}
	return e
}

// parenQuery2 tells whether the parentheses here, one deeper than parenQuery looks, hold a query and nothing behind it.
func (p *parser) parenQuery2() bool {
	p.i++
	defer func() { p.i-- }()
	return p.parenQuery()
}

// columnRef writes a reference to a column.
func (p *parser) columnRef() ex {
	t := p.tok()
	start := len(p.out)
	first := p.label()
	if !p.is(".") {
		src, f, merged, err := p.scope.column(first)
		if err != nil {
			p.fail(t, err.(*Error))
		}
		if f == nil {
			if s := p.scope.qualified(first); s != nil {
				p.unsupported(t, "a whole row as a value")
			}
			p.fail(t, Errorf(UndefinedColumn, "column \"%s\" does not exist", first))
		}
		if merged || src.alias == "" {
			p.emit(quoteIdent(first))
		} else {
			p.emit(quoteIdent(src.alias), ".", quoteIdent(first))
		}
		return ex{start: start, typ: f.typ, name: first, table: f.table, attr: f.attr}
	}
	p.i++
	if p.is("*") {
		p.unsupported(t, "a whole row as a value")
	}
	second := p.label()
	if p.is(".") && p.peek(1).kind != endToken {
		p.i++
		first, second = second, p.label()
	}
	src := p.scope.qualified(first)
	if src == nil {
		p.fail(t, Errorf(UndefinedTable, "missing FROM-clause entry for table \"%s\"", first))
	}
	f := src.find(second)
	if f == nil {
		p.fail(t, Errorf(UndefinedColumn, "column %s.%s does not exist", first, second))
	}
	p.emit(quoteIdent(src.alias), ".", quoteIdent(second))
	return ex{start: start, typ: f.typ, name: second, table: f.table, attr: f.attr}
}
