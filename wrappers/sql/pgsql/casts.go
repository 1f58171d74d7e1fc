package pgsql

import (
	"strconv"
)

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
