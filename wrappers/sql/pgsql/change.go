package pgsql

import (
	"slices"
	"strconv"
	"strings"
)

// RowVersion is the hidden column of every table that holds the version of a row.
const RowVersion = "spookgw version"

// target reads the table that a statement changes, and its alias.
func (p *parser) target() (*Table, string) {
	p.take("only")
	at := p.tok()
	schema, name := "", p.ident()
	if p.take(".") {
		schema, name = name, p.label()
	}
	t := p.opt.Catalog.Find(schema, name)
	if t == nil {
		full := name
		if schema != "" {
			full = schema + "." + name
		}
		p.fail(at, Errorf(UndefinedTable, "relation \"%s\" does not exist", full))
	}
	if t.Catalogue {
		p.fail(at, Errorf("42501", "permission denied for table %s", t.Name))
	}
	p.take("*")
	alias := name
	if p.take("as") {
		alias = p.label()
	} else if p.isName() && !p.isOne("set", "values", "default", "overriding") {
		alias = p.ident()
	}
	return t, alias
}

func (p *parser) columnOf(t *Table) int {
	at := p.tok()
	name := p.label()
	if p.is(".") || p.is("[") {
		p.unsupported(at, "a part of a column")
	}
	i := t.Column(name)
	if i < 0 {
		p.fail(at, Errorf(UndefinedColumn, "column \"%s\" of relation \"%s\" does not exist", name, t.Name))
	}
	return i
}

// insertStmt reads INSERT. Its rows are what a query gives; keys that are there already are found when they are put.
func (p *parser) insertStmt(with *string) {
	p.st.Kind, p.st.Tag = Insert, "INSERT 0"
	p.need("insert", "into")
	t, alias := p.target()
	p.st.Table = t
	if p.is("(") && !p.peek(1).is("select") && !p.peek(1).is("with") && !p.peek(1).is("values") && !p.peek(1).is("(") {
		p.need("(")
		for {
			at := p.tok()
			c := p.columnOf(t)
			if slices.Contains(p.st.Targets, c) {
				p.fail(at, Errorf("42701", "column \"%s\" specified more than once", t.Columns[c].Name))
			}
			p.st.Targets = append(p.st.Targets, c)
			if !p.take(",") {
				break
			}
		}
		p.need(")")
	} else {
		for i := range t.Columns {
			p.st.Targets = append(p.st.Targets, i)
		}
	}
	if p.take("overriding") {
		p.i++
		p.need("value")
	}
	p.out = nil
	if with != nil {
		p.emit(*with)
	}
	switch {
	case p.take("default", "values"):
		p.fail(p.tok(), Errorf("23502", "null value in column \"%s\" of relation \"%s\" violates not-null constraint", t.Columns[t.Key[0]].Name, t.Name))
	case p.is("values"):
		p.insertValues(t)
	default:
		outs := p.queryFor(t)
		if len(outs) > len(p.st.Targets) {
			p.fail(p.tok(), Errorf(SyntaxError, "INSERT has more expressions than target columns"))
		}
		p.st.Targets = p.st.Targets[:len(outs)]
		for _, o := range outs {
			p.st.Types = append(p.st.Types, o.Type)
		}
	}
	p.st.SQL = string(p.out)
	if p.take("on", "conflict") {
		p.onConflict(t, alias)
	}
	p.returning(t, alias)
}

// queryFor reads the query of an INSERT.
func (p *parser) queryFor(*Table) []Result {
	var outs []Result
	p.in(&scope{}, func() {
		if p.is("with") {
			p.with(p.scope)
		}
		outs = p.selectBody(false)
	})
	return outs
}

// insertValues reads VALUES, whose literals and parameters have the types of the columns, and which may say DEFAULT.
func (p *parser) insertValues(t *Table) {
	p.need("values")
	p.emit("VALUES ")
	n := 0
	for first := true; ; first = false {
		at := p.tok()
		p.need("(")
		p.emit("(")
		i := 0
		for {
			if i >= len(p.st.Targets) {
				p.fail(at, Errorf(SyntaxError, "INSERT has more expressions than target columns"))
			}
			typ := p.valueFor(t.Columns[p.st.Targets[i]].Type)
			if first {
				p.st.Types = append(p.st.Types, typ)
			} else if i < len(p.st.Types) && p.st.Types[i] != typ {
				// Rows of different types are cast where they stand.
				p.st.Types[i] = unify(p.st.Types[i], typ)
			}
			i++
			if !p.take(",") {
				break
			}
			p.emit(", ")
		}
		p.need(")")
		p.emit(")")
		if first {
			n = i
			p.st.Targets = p.st.Targets[:n]
		}
		if i != n {
			p.fail(at, Errorf(SyntaxError, "VALUES lists must all be the same length"))
		}
		if !p.take(",") {
			return
		}
		p.emit(", ")
	}
}

// valueFor reads a value that is put into a column of a type.
func (p *parser) valueFor(typ OID) OID {
	if p.is("default") {
		p.i++
		p.emit("NULL")
		return typ
	}
	e := p.expr(0)
	if e.lit {
		p.coerce(&e, typ)
	}
	return e.typ
}

// onConflict reads what becomes of keys that are there already.
func (p *parser) onConflict(t *Table, alias string) {
	at := p.tok()
	key := false
	switch {
	case p.take("("):
		var cols []int
		for {
			cols = append(cols, p.columnOf(t))
			if !p.take(",") {
				break
			}
		}
		p.need(")")
		slices.Sort(cols)
		want := slices.Clone(t.Key)
		slices.Sort(want)
		if !slices.Equal(cols, want) {
			p.fail(at, Errorf(InvalidColumnRef, "there is no unique or exclusion constraint matching the ON CONFLICT specification"))
		}
		key = true
	case p.take("on", "constraint"):
		name := p.label()
		if name != t.Name+"_pkey" {
			p.fail(at, Errorf(UndefinedObject, "constraint \"%s\" for table \"%s\" does not exist", name, t.Name))
		}
		key = true
	}
	p.need("do")
	if p.take("nothing") {
		p.st.Conflict.Do = ConflictNothing
		return
	}
	p.need("update", "set")
	if !key {
		p.fail(at, Errorf(SyntaxError, "ON CONFLICT DO UPDATE requires inference specification or constraint name"))
	}
	c := &p.st.Conflict
	c.Do = ConflictUpdate
	there := &source{alias: alias, cols: tableFields(t), table: t}
	meant := &source{alias: "excluded", cols: tableFields(t), table: t}
	p.in(&scope{sources: []*source{there, meant}}, func() {
		c.SQL = p.aside(func() {
			p.emit("SELECT ")
			p.direct = nil
			c.Targets, c.Types = p.sets(t)
			p.emit(", ")
			if !slices.Contains(p.direct, -1) {
				c.Direct = p.direct
			}
			if p.take("where") {
				c.Direct = nil
				p.condition()
			} else {
				p.emit("1")
			}
			p.emit(" FROM ")
			p.boundRow(t, alias, 0)
			p.emit(", ")
			p.boundRow(t, "excluded", len(t.Columns))
		})
	})
	for _, col := range c.Targets {
		if slices.Contains(t.Key, col) {
			p.unsupported(at, "a change of the key in ON CONFLICT DO UPDATE")
		}
	}
	c.Same = c.Direct != nil && slices.Equal(c.Direct, c.Targets)
	for _, col := range p.st.Targets {
		c.Same = c.Same && (slices.Contains(t.Key, col) || slices.Contains(c.Targets, col))
	}
	for _, col := range c.Targets { // one that is not given is cleared only where a row is
		c.Same = c.Same && slices.Contains(p.st.Targets, col)
	}
}

// rowParam begins a parameter that is numbered from behind the client's own, of which there may still come more. No text
// of a statement holds it.
const rowParam = "?\x00"

// numbered gives the parameters of bound rows their numbers.
func numbered(sql string, base int) string {
	if !strings.Contains(sql, rowParam) {
		return sql
	}
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(sql, rowParam)
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n := 0
		for n < len(rest) && digit(rest[n]) {
			n++
		}
		k, err := strconv.Atoi(rest[:n])
		if err != nil {
			return "" // it was written here
		}
		b.WriteString("?" + strconv.Itoa(base+k))
		sql = rest[n:]
	}
}

// boundRow writes a row whose columns are parameters.
func (p *parser) boundRow(t *Table, alias string, base int) {
	p.emit("(SELECT ")
	for i, c := range t.Columns {
		if i > 0 {
			p.emit(", ")
		}
		p.emit(rowParam, strconv.Itoa(base+1+i), " AS ", quoteIdent(c.Name))
	}
	p.emit(") AS ", quoteIdent(alias))
}

// meant gives the column of the row that was meant if that is all the value is: excluded.column.
func (p *parser) meant(t *Table) int {
	if !p.is("excluded", ".") || p.peek(2).kind != identToken && p.peek(2).kind != quotedToken {
		return -1
	}
	if n := p.peek(3); n.kind != endToken && !n.is(",") && !n.is(";") && !n.is("returning") {
		return -1
	}
	return t.Column(p.peek(2).text)
}

// sets reads what stands behind SET, and writes the new values.
func (p *parser) sets(t *Table) (targets []int, types []OID) {
	add := func(at *token, c int) {
		if slices.Contains(targets, c) {
			p.fail(at, Errorf(SyntaxError, "multiple assignments to same column \"%s\"", t.Columns[c].Name))
		}
		if len(targets) > 0 {
			p.emit(", ")
		}
		targets = append(targets, c)
	}
	for {
		at := p.tok()
		if p.take("(") {
			var cols []int
			for {
				cols = append(cols, p.columnOf(t))
				if !p.take(",") {
					break
				}
			}
			p.need(")", "=")
			row := p.take("row")
			if !row && (p.is("(", "select") || p.is("(", "with")) {
				p.unsupported(at, "SET (…) = (SELECT …)")
			}
			p.need("(")
			for i, c := range cols {
				if i > 0 {
					p.need(",")
				}
				add(at, c)
				p.direct = append(p.direct, -1)
				types = append(types, p.valueFor(t.Columns[c].Type))
			}
			p.need(")")
		} else {
			c := p.columnOf(t)
			p.need("=")
			add(at, c)
			p.direct = append(p.direct, p.meant(t))
			types = append(types, p.valueFor(t.Columns[c].Type))
		}
		if !p.take(",") {
			return targets, types
		}
	}
}

// rowOf writes the columns and the version of a row of the changed table.
func (p *parser) rowOf(t *Table, alias string) {
	for _, c := range t.Columns {
		p.emit(quoteIdent(alias), ".", quoteIdent(c.Name), ", ")
	}
	p.emit(quoteIdent(alias), ".", quoteIdent(RowVersion))
}

// updateStmt reads UPDATE. SQL gives the rows as they are, their versions, and the new values.
func (p *parser) updateStmt(with *string) {
	p.st.Kind, p.st.Tag = Update, "UPDATE"
	p.need("update")
	t, alias := p.target()
	p.st.Table = t
	p.need("set")
	p.out = nil
	sc := &scope{sources: []*source{{alias: alias, cols: tableFields(t), table: t}}}
	p.in(sc, func() {
		// FROM stands behind SET, whose expressions may name its tables.
		fromText, here := "", p.i
		behind := -1
		if from := p.findFrom(); from >= 0 {
			p.i = from
			fromText = p.aside(func() {
				p.need("from")
				p.emit(", ")
				p.fromList(sc)
			})
			behind = p.i
			p.i = here
		}
		if with != nil {
			p.emit(*with)
		}
		p.emit("SELECT ")
		p.rowOf(t, alias)
		p.emit(", ")
		p.st.Targets, p.st.Types = p.sets(t)
		if behind >= 0 {
			if !p.is("from") {
				p.syntax()
			}
			p.i = behind
		}
		p.emit(" FROM ", t.SQLName(), " AS ", quoteIdent(alias), fromText)
		p.whereOf()
	})
	p.st.SQL = string(p.out)
	p.returning(t, alias)
}

func (p *parser) whereOf() {
	if p.take("where") {
		if p.is("current", "of") {
			p.unsupported(p.tok(), "WHERE CURRENT OF")
		}
		p.emit(" WHERE ")
		p.condition()
	}
}

// deleteStmt reads DELETE.
func (p *parser) deleteStmt(with *string) {
	p.st.Kind, p.st.Tag = Delete, "DELETE"
	p.need("delete", "from")
	t, alias := p.target()
	p.st.Table = t
	p.out = nil
	sc := &scope{sources: []*source{{alias: alias, cols: tableFields(t), table: t}}}
	p.in(sc, func() {
		if with != nil {
			p.emit(*with)
		}
		p.emit("SELECT ")
		p.rowOf(t, alias)
		p.emit(" FROM ", t.SQLName(), " AS ", quoteIdent(alias))
		if p.take("using") {
			p.emit(", ")
			p.fromList(sc)
		}
		p.whereOf()
	})
	p.st.SQL = string(p.out)
	p.returning(t, alias)
}

func (p *parser) truncateStmt() {
	p.st.Kind, p.st.Tag = Truncate, "TRUNCATE TABLE"
	p.need("truncate")
	p.take("table")
	t, alias := p.target()
	if p.is(",") {
		p.unsupported(p.tok(), "TRUNCATE of several tables")
	}
	p.take("restart", "identity")
	p.take("continue", "identity")
	if !p.take("cascade") {
		p.take("restrict")
	}
	p.st.Table = t
	p.out = nil
	p.emit("SELECT ")
	p.rowOf(t, alias)
	p.emit(" FROM ", t.SQLName(), " AS ", quoteIdent(alias))
	p.st.SQL = string(p.out)
}

// returning reads RETURNING, which is asked of each row that was changed.
func (p *parser) returning(t *Table, alias string) {
	if !p.take("returning") {
		return
	}
	sc := &scope{sources: []*source{{alias: alias, cols: tableFields(t), table: t}}}
	p.in(sc, func() {
		p.st.Returning = p.aside(func() {
			p.emit("SELECT ")
			p.st.Columns = p.selectList(sc)
			p.emit(" FROM ")
			p.boundRow(t, alias, 0)
		})
	})
}

// A CopyForm is how COPY writes rows (COPY, File Formats).
type CopyForm struct {
	CSV       bool
	Delimiter byte
	Null      string
	Header    bool
	Quote     byte
	Escape    byte
	ForceNull bool
}
