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

// coerce gives a literal or a parameter the type of what stands beside it. The text of a literal is then what that type
// has inside of SQLite.
func (p *parser) coerce(e *ex, to OID) (delta int) {
	if !e.lit || to == 0 || to == Untyped {
		return 0
	}
	switch {
	case e.param > 0:
		if o := p.params[e.param-1]; o == 0 || o == Untyped {
			p.params[e.param-1] = to
			e.typ, e.lit = to, false
		}
	case e.text != nil:
		if isText(to) || isArray(to) {
			break
		}
		v, err := ParseText(*e.text, to, p.opt.Zone)
		if err != nil {
			pe, ok := err.(*Error)
			if !ok {
				pe = Errorf(InvalidText, "%v", err)
			}
			panic(pe)
		}
		s := v.literal()
		delta = p.replace(e.start, e.end, s)
		e.end += delta
	}
	e.typ, e.lit = to, false
	return delta
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

// both gives the two sides of an operation a common type, which it returns.
func (p *parser) both(l, r *ex) OID {
	switch {
	case l.lit && r.lit:
		if l.typ == r.typ && l.typ == Untyped && (l.param > 0 || r.param > 0) {
			return p.bothTo(l, r, Text)
		}
		return Text
	case l.lit:
		d := p.coerce(l, r.typ)
		r.start, r.end = r.start+d, r.end+d
		return r.typ
	case r.lit:
		p.coerce(r, l.typ)
		return l.typ
	}
	if l.typ != r.typ && isTime(l.typ) && isTime(r.typ) {
		p.wrap(r, "pg_cast(", castArgs(r.typ, Timestamptz))
		d := p.wrap(l, "pg_cast(", castArgs(l.typ, Timestamptz))
		r.start, r.end = r.start+d, r.end+d
		return Timestamptz
	}
	return unify(l.typ, r.typ)
}

func (p *parser) bothTo(l, r *ex, to OID) OID {
	d := p.coerce(l, to)
	r.start, r.end = r.start+d, r.end+d
	p.coerce(r, to)
	return to
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

// A typeSpec is a type with its modifiers.
type typeSpec struct {
	oid  OID
	mods []int
	name string
}

// typeName reads a type.
func (p *parser) typeName() typeSpec {
	t := p.tok()
	p.take("setof")
	if p.tok().kind != identToken && p.tok().kind != quotedToken {
		p.syntax()
	}
	name := p.tok().text
	p.i++
	if p.take(".") {
		name = p.label()
	}
	switch {
	case name == "double" && p.take("precision"):
		name = "float8"
	case name == "character" && p.take("varying"):
		name = "varchar"
	case name == "bit":
		p.unsupported(t, "type bit")
	}
	spec := typeSpec{name: name}
	if p.take("(") {
		for {
			n, err := strconv.Atoi(p.tok().text)
			if p.tok().kind != numberToken || err != nil {
				p.syntax()
			}
			p.i++
			spec.mods = append(spec.mods, n)
			if !p.take(",") {
				break
			}
		}
		p.need(")")
	}
	switch {
	case name == "timestamp" && p.take("with", "time", "zone"):
		name = "timestamptz"
	case name == "timestamp" && p.take("without", "time", "zone"), name == "time" && p.take("without", "time", "zone"):
	case name == "time" && p.is("with", "time", "zone"):
		p.unsupported(t, "type time with time zone")
	case name == "interval" && p.isOne("year", "month", "day", "hour", "minute", "second"):
		p.i++
		if p.take("to") {
			p.i++
		}
	}
	o, ok := TypeNamed(name)
	if t.kind == quotedToken && name == "char" {
		o, ok = Char, true
	} else if name == "char" {
		o, ok = BPChar, true
		if spec.mods == nil {
			spec.mods = []int{1}
		}
	}
	if !ok {
		p.fail(t, Errorf(UndefinedObject, "type \"%s\" does not exist", name))
	}
	spec.name = TypeOf(o).Name
	for p.is("[") {
		p.i++
		if p.tok().kind == numberToken {
			p.i++
		}
		p.need("]")
		o = arrayOf(o)
	}
	if p.take("array") {
		o = arrayOf(o)
	}
	spec.oid = o
	return spec
}

// cast gives an expression a type.
func (p *parser) cast(e ex, to typeSpec) ex {
	out := ex{start: e.start, typ: to.oid, name: e.name}
	if out.name == "" || out.name == "bool" && e.table == 0 { // true is a cast itself
		out.name = to.name
	}
	special := to.oid == Regclass || to.oid == Regtype || to.oid == Regproc
	switch {
	case e.lit && e.param > 0 && !special:
		p.coerce(&e, to.oid)
	case e.lit && !special:
		p.coerce(&e, to.oid)
	case e.typ == to.oid && !special:
	case isText(to.oid) && isText(e.typ):
	case to.oid == Numeric && (isInt(e.typ) || e.typ == Float8), isInt(e.typ) && to.oid == Int8:
	case (to.oid == JSON || to.oid == JSONB) && (e.typ == JSON || e.typ == JSONB):
	case to.oid == Oid && isInt(e.typ), isInt(to.oid) && (e.typ == Oid || e.typ == Regclass), e.typ == Regclass && to.oid == Oid, to.oid == Xid, isArray(to.oid) && (isArray(e.typ) || isText(e.typ)):
	default:
		if e.lit {
			e.typ = Text
		}
		e.end = len(p.out)
		p.wrap(&e, "pg_cast(", castArgs(e.typ, to.oid))
	}
	e.end = len(p.out)
	if len(to.mods) > 0 {
		switch {
		case to.oid == Varchar || to.oid == BPChar:
			p.wrap(&e, "substr(", ", 1, "+strconv.Itoa(to.mods[0])+")")
		case to.oid == Numeric:
			scale := 0
			if len(to.mods) > 1 {
				scale = to.mods[1]
			}
			p.wrap(&e, "pg_round(", ", "+strconv.Itoa(scale)+")")
		}
	}
	return out
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
