package pgsql

import (
	"slices"
	"strconv"
)

// A function of a select list that gives rows repeats its row, once for each of its own; several go on together, and the
// shorter ones end in NULLs (PostgreSQL 15, section 38.5.9). In SQLite FROM gets one more item, which counts.

// setCount is the item of FROM that counts, from 0. No statement can name it.
const setCount = "rows of sets"

var setFunctions = []string{"unnest", "generate_subscripts", "generate_series", "_pg_expandarray"}

// setFunction reads the call of such a function, whose name began at a token.
func (p *parser) setFunction(at int, name string, start int) ex {
	t := &p.toks[at]
	sc := p.scope
	stands := sc.listed
	for i := sc.item; stands && i < at; i++ {
		stands = p.toks[i].is("(")
	}
	if !stands {
		p.unsupported(t, "the set-returning function "+name+" elsewhere than first in an item of a select list")
	}
	var args []apart
	for !p.is(")") {
		args = append(args, p.aside2(0))
		if !p.take(",") {
			break
		}
	}
	p.need(")")
	const n = `"` + setCount + `".value`
	e := ex{start: start, name: name, typ: Int4}
	if name == "generate_series" {
		if len(args) < 2 || len(args) > 3 || slices.ContainsFunc(args, func(a apart) bool { return isTime(a.typ) }) {
			p.unsupported(t, "generate_series of these arguments")
		}
		step := "1"
		if len(args) == 3 {
			step = args[2].settle(p, Int8)
		}
		for i := range args {
			if args[i].typ == Int8 {
				e.typ = Int8
			}
		}
		from, to := args[0].settle(p, Int8), args[1].settle(p, Int8)
		length := "max(0, (" + to + " - " + from + ") / (" + step + ") + 1)"
		sc.sets = append(sc.sets, length)
		p.emit("CASE WHEN ", n, " < ", length, " THEN ", from, " + ", n, " * (", step, ") END")
		return e
	}
	if len(args) == 0 || len(args) > 1 && name != "generate_subscripts" {
		p.fail(t, Errorf(UndefinedFunction, "function %s of %d arguments does not exist", name, len(args)))
	}
	elem := elemOf(args[0].typ)
	if elem == 0 {
		elem = Text
	}
	list := "pg_array_json(" + args[0].settle(p, TextArray) + ", " + strconv.Itoa(int(elem)) + ")"
	length := "coalesce(json_array_length(" + list + "), 0)"
	sc.sets = append(sc.sets, length)
	item := "json_extract(" + list + ", '$[' || " + n + " || ']')"
	switch name {
	case "unnest":
		e.typ = elem
		p.emit(item)
	case "generate_subscripts":
		first := " + 1"
		if args[0].typ == Int2Vector || args[0].typ == OidVector {
			first = "" // vectors count from 0
		}
		p.emit("CASE WHEN ", n, " < ", length, " THEN ", n, first, " END")
	default: // of information_schema: a record of item and place
		if !isInt(elem) && elem != Oid {
			p.unsupported(t, "_pg_expandarray of texts")
		}
		e.typ = Record
		p.emit("CASE WHEN ", n, " < ", length, " THEN '(' || coalesce(", item, ", '') || ',' || (", n, " + 1) || ')' END")
	}
	return e
}

// countSets writes the item of FROM that counts, behind the others if there are any.
func (p *parser) countSets(sets []string, first bool) {
	if first {
		p.emit(" FROM ")
	} else {
		p.emit(", ")
	}
	p.emit("generate_series(0, ")
	if len(sets) == 1 {
		p.emit(sets[0])
	} else {
		p.emit("max(")
		for i, s := range sets {
			if i > 0 {
				p.emit(", ")
			}
			p.emit(s)
		}
		p.emit(")")
	}
	p.emit(` - 1) AS "`, setCount, `"`)
}

// member reads what stands behind a record in parentheses: .x is the item, .n its place.
func (p *parser) member(e ex) ex {
	p.need(".")
	t := p.tok()
	name := p.label()
	text := string(p.out[e.start:])
	p.out = p.out[:e.start]
	switch name {
	case "x":
		p.emit("CAST(nullif(substr(", text, ", 2, instr(", text, ", ',') - 2), '') AS INTEGER)")
	case "n":
		p.emit("CAST(substr(", text, ", instr(", text, ", ',') + 1) AS INTEGER)")
	default:
		p.fail(t, Errorf(UndefinedColumn, "column \"%s\" not found in data type record", name))
	}
	return ex{start: e.start, end: len(p.out), typ: Int4, name: name}
}
