package sql

import (
	"errors"
	"fmt"
	"strings"
)

// What test_decoding writes, the output plugin that comes with PostgreSQL: a line for each event, in which a row's columns
// stand as name[type]:value. It needs no publication, so it shows also what no bind maps.

// A decodedKind is what a line tells of.
type decodedKind uint8

const (
	decodedOther  decodedKind = iota // a message, a truncated table
	decodedCommit                    // the transaction is over
	decodedInsert
	decodedUpdate
	decodedDelete
)

// A decodedEvent is one line.
type decodedEvent struct {
	kind  decodedKind
	table tableName
	old   []decodedColumn // Update: the old key, where it has changed. Delete: what tells the row; nil: nothing does
	row   []decodedColumn
}

type decodedColumn struct {
	name string
	cell cell
}

var errDecoding = errors.New("not what test_decoding writes")

// parseDecoded reads a line.
func parseDecoded(line string) (decodedEvent, error) {
	switch {
	case strings.HasPrefix(line, "COMMIT"):
		return decodedEvent{kind: decodedCommit}, nil
	case !strings.HasPrefix(line, "table "):
		return decodedEvent{}, nil
	}
	p := decodedParser{rest: line[len("table "):]}
	e := decodedEvent{table: tableName{schema: p.name()}}
	p.want(".")
	e.table.name = p.name()
	if p.skip(", ") { // several tables that are truncated
		return decodedEvent{}, nil
	}
	p.want(": ")
	switch {
	case p.skip("INSERT:"):
		e.kind, e.row = decodedInsert, p.columns()
	case p.skip("UPDATE:"):
		e.kind = decodedUpdate
		if p.skip(" old-key:") {
			e.old = p.columns()
			p.want(" new-tuple:")
		}
		e.row = p.columns()
	case p.skip("DELETE:"):
		e.kind, e.old = decodedDelete, p.columns()
	case strings.HasPrefix(p.rest, "TRUNCATE:"):
		return decodedEvent{}, nil
	default:
		p.bad = true
	}
	if p.bad || p.rest != "" {
		return decodedEvent{}, fmt.Errorf("%w: %.40q", errDecoding, line)
	}
	return e, nil
}

type decodedParser struct {
	rest string
	bad  bool
}

func (p *decodedParser) skip(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *decodedParser) want(s string) {
	if !p.skip(s) {
		p.bad = true
	}
}

// quoted reads up to the quote that ends it; a quote within it stands there twice.
func (p *decodedParser) quoted(quote string) string {
	var b strings.Builder
	for {
		part, rest, ok := strings.Cut(p.rest, quote)
		if !ok {
			p.bad = true
			return ""
		}
		b.WriteString(part)
		if p.rest = rest; !p.skip(quote) {
			return b.String()
		}
		b.WriteString(quote)
	}
}

// name reads an identifier.
func (p *decodedParser) name() string {
	if p.skip(`"`) {
		return p.quoted(`"`)
	}
	n := strings.IndexAny(p.rest, ".:[, ")
	if n <= 0 {
		p.bad = true
		return ""
	}
	name := p.rest[:n]
	p.rest = p.rest[n:]
	return name
}

// columns reads a row, up to its end.
func (p *decodedParser) columns() []decodedColumn {
	var out []decodedColumn
	for !p.bad && p.rest != "" && !strings.HasPrefix(p.rest, " new-tuple:") {
		p.want(" ")
		if p.skip("(no-tuple-data)") || p.bad {
			break
		}
		c := decodedColumn{name: p.name()}
		p.want("[")
		p.typeName()
		p.want(":")
		switch {
		case p.skip("null"):
			c.cell.kind = cellNull
		case p.skip("unchanged-toast-datum"):
			c.cell.kind = cellUnchanged
		case p.skip("B'"), p.skip("'"):
			c.cell = cell{kind: cellText, text: []byte(p.quoted("'"))}
		default:
			n := strings.IndexByte(p.rest, ' ')
			if n < 0 {
				n = len(p.rest)
			}
			c.cell = cell{kind: cellText, text: []byte(p.rest[:n])}
			p.bad = p.bad || n == 0
			p.rest = p.rest[n:]
		}
		out = append(out, c)
	}
	return out
}

// typeName passes over a type, which has brackets of its own if it is an array, up to the bracket that closes it.
func (p *decodedParser) typeName() {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '"':
			p.rest = p.rest[1:]
			p.quoted(`"`)
		case strings.HasPrefix(p.rest, "[]"):
			p.rest = p.rest[2:]
		case c == ']':
			p.rest = p.rest[1:]
			return
		default:
			p.rest = p.rest[1:]
		}
	}
	p.bad = true
}
