package pgsql

import (
	"strconv"
)

// groupBy reads what stands behind GROUP BY.
func (p *parser) groupBy(sc *scope) {
	p.take("all")
	p.take("distinct")
	p.emit(" GROUP BY ")
	for {
		if p.isOne("rollup", "cube", "grouping") && (p.peek(1).is("(") || p.peek(1).is("sets")) {
			p.unsupported(p.tok(), "GROUPING SETS")
		}
		if p.take("(", ")") {
			p.emit("''")
		} else if n := p.outputName(sc, true); n > 0 {
			p.emit(strconv.Itoa(n))
		} else {
			p.expr(0)
		}
		if !p.take(",") {
			return
		}
		p.emit(", ")
	}
}

// outputName reads a bare name that means a column of the result, and gives its place, 0 if there is none. GROUP BY
// prefers the columns of tables.
func (p *parser) outputName(sc *scope, inputFirst bool) int {
	if sc == nil || !(p.tok().kind == quotedToken || p.tok().kind == identToken) {
		return 0
	}
	next := p.peek(1)
	if next.kind != endToken && !(next.is(",") || next.is(")") || next.is(";") || next.kind == identToken && (reserved[next.text] || next.text == "nulls" || next.text == "rows")) || next.is("collate") || next.is("is") || next.is("in") || next.is("like") || next.is("and") || next.is("or") || next.is("not") || next.is("ilike") || next.is("isnull") || next.is("notnull") {
		return 0
	}
	name := p.tok().text
	if inputFirst {
		for _, src := range sc.sources {
			if src.find(name) != nil {
				return 0
			}
		}
	}
	for i, o := range sc.outs {
		if o.Name == name {
			p.i++
			return i + 1
		}
	}
	return 0
}

// orderLimit reads ORDER BY, LIMIT, OFFSET, FETCH and FOR.
func (p *parser) orderLimit(outs []Result, sc *scope) {
	order := sc
	if order == nil {
		order = &scope{outs: outs}
	}
	if p.take("order", "by") {
		p.emit(" ORDER BY ")
		up := p.scope
		if sc != nil {
			p.scope = sc
		} else {
			p.scope = &scope{up: up, sources: []*source{{cols: named(outs, nil)}}}
		}
		p.sortList(order)
		p.scope = up
	}
	limit, offset := "", ""
	for {
		switch {
		case limit == "" && p.take("limit"):
			if p.take("all") {
				limit = "-1"
				continue
			}
			limit = p.amount()
		case limit == "" && (p.is("fetch", "first") || p.is("fetch", "next")):
			t := p.tok()
			p.i += 2
			limit = "1"
			if !p.isOne("row", "rows") {
				limit = p.amount()
			}
			if !p.take("rows") {
				p.need("row")
			}
			if p.is("with", "ties") {
				p.unsupported(t, "WITH TIES")
			}
			p.need("only")
		case offset == "" && p.take("offset"):
			offset = p.amount()
			if !p.take("rows") {
				p.take("row")
			}
		case p.is("for"):
			p.lockClause()
		default:
			if limit == "" && offset != "" {
				limit = "-1"
			}
			if limit != "" {
				p.emit(" LIMIT ", limit)
			}
			if offset != "" {
				p.emit(" OFFSET ", offset)
			}
			return
		}
	}
}

// amount reads the number of LIMIT and OFFSET: null is as if it were not there, and less than 0 an error.
func (p *parser) amount() string {
	return p.aside(func() {
		e := p.expr(8)
		if e.lit && e.text != nil || e.param > 0 {
			p.coerce(&e, Int8)
		}
		p.insert(e.start, "pg_limit(")
		p.emit(")")
	})
}

// lockClause reads FOR UPDATE and its like.
func (p *parser) lockClause() {
	p.need("for")
	switch {
	case p.take("update"), p.take("no", "key", "update"), p.take("share"), p.take("key", "share"):
	default:
		p.syntax()
	}
	if p.take("of") {
		for {
			p.ident()
			if !p.take(",") {
				break
			}
		}
	}
	if !p.take("nowait") {
		p.take("skip", "locked")
	}
	p.st.Lock = true
}

// sortList reads expressions with their direction. Nulls are last, unless the order is reversed.
func (p *parser) sortList(sc *scope) {
	for {
		if n := p.outputName(sc, false); n > 0 {
			p.emit(strconv.Itoa(n))
		} else {
			p.expr(0)
		}
		desc := false
		switch {
		case p.take("desc"):
			desc = true
			p.emit(" DESC")
		case p.take("asc"):
		case p.is("using"):
			p.unsupported(p.tok(), "ORDER BY … USING")
		}
		switch {
		case p.take("nulls", "first"):
			p.emit(" NULLS FIRST")
		case p.take("nulls", "last"):
			p.emit(" NULLS LAST")
		case desc:
			p.emit(" NULLS FIRST")
		default:
			p.emit(" NULLS LAST")
		}
		if !p.take(",") {
			return
		}
		p.emit(", ")
	}
}
