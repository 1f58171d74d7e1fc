package pgsql

import (
	"strings"
)

// copyStmt reads COPY … FROM STDIN and COPY … TO STDOUT.
func (p *parser) copyStmt() {
	start := p.tok()
	p.st.Kind, p.st.Tag = Copy, "COPY"
	p.need("copy")
	if p.take("(") {
		p.out = nil
		p.in(&scope{}, func() { p.st.Columns = p.subquery() })
		p.need(")")
		p.st.SQL = string(p.out)
	} else {
		at := p.tok()
		schema, name := "", p.ident()
		if p.take(".") {
			schema, name = name, p.label()
		}
		t := p.opt.Catalog.Find(schema, name)
		if t == nil {
			p.fail(at, Errorf(UndefinedTable, "relation \"%s\" does not exist", name))
		}
		p.st.Table = t
		if p.take("(") {
			for {
				p.st.Targets = append(p.st.Targets, p.columnOf(t))
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
	}
	switch {
	case p.take("to"):
		p.st.CopyTo = true
		if !p.take("stdout") {
			p.unsupported(start, "COPY to a file or program")
		}
	case p.st.Table != nil && p.take("from"):
		if !p.take("stdin") {
			p.unsupported(start, "COPY from a file or program")
		}
		if p.st.Table.Catalogue {
			p.fail(start, Errorf("42501", "permission denied for table %s", p.st.Table.Name))
		}
	default:
		p.syntax()
	}
	p.copyOptions()
	if p.is("where") {
		p.unsupported(p.tok(), "COPY … WHERE")
	}
	if t := p.st.Table; t != nil && p.st.CopyTo {
		var b strings.Builder
		b.WriteString("SELECT ")
		for i, c := range p.st.Targets {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(quoteIdent(t.Columns[c].Name))
			p.st.Columns = append(p.st.Columns, Result{Name: t.Columns[c].Name, Type: t.Columns[c].Type})
		}
		b.WriteString(" FROM " + t.SQLName())
		p.st.SQL = b.String()
	}
}

func (p *parser) copyOptions() {
	f := &p.st.CopyForm
	var delim, null, quote, escape *string
	text := func() *string {
		p.take("as")
		t := p.tok()
		if t.kind != stringToken {
			p.syntax()
		}
		p.i++
		return &t.text
	}
	option := func() {
		t := p.tok()
		switch {
		case p.take("format"):
			form := p.tok().text
			p.i++
			switch form {
			case "csv":
				f.CSV = true
			case "text":
			case "binary":
				p.unsupported(t, "COPY in binary format")
			default:
				p.fail(t, Errorf("22023", "COPY format \"%s\" not recognized", form))
			}
		case p.take("csv"):
			f.CSV = true
		case p.take("binary"):
			p.unsupported(t, "COPY in binary format")
		case p.take("header"):
			f.Header = true
			if p.isOne("true", "on") || p.tok().text == "1" {
				p.i++
			} else if p.isOne("false", "off") {
				p.i++
				f.Header = false
			} else if p.is("match") {
				p.unsupported(t, "HEADER MATCH")
			}
		case p.take("delimiter"), p.take("delimiters"):
			delim = text()
		case p.take("null"):
			null = text()
		case p.take("quote"):
			quote = text()
		case p.take("escape"):
			escape = text()
		case p.take("encoding"):
			if e := text(); !strings.EqualFold(strings.ReplaceAll(*e, "-", ""), "utf8") {
				p.unsupported(t, "an encoding other than UTF8")
			}
		case p.take("freeze"):
			if p.isOne("true", "false", "on", "off") {
				p.i++
			}
		default:
			p.unsupported(t, "COPY option "+t.text)
		}
	}
	p.take("with")
	if p.take("(") {
		for {
			option()
			if !p.take(",") {
				break
			}
		}
		p.need(")")
	} else {
		for p.tok().kind == identToken && !p.is("where") {
			option()
		}
	}
	f.Delimiter, f.Null, f.Quote, f.Escape = '\t', `\N`, '"', '"'
	if f.CSV {
		f.Delimiter, f.Null = ',', ""
	}
	one := func(s *string, what string, to *byte) {
		if s == nil {
			return
		}
		if len(*s) != 1 || *s == "\n" || *s == "\r" {
			p.fail(p.tok(), Errorf(FeatureNotSupported, "COPY %s must be a single one-byte character", what))
		}
		*to = (*s)[0]
	}
	one(delim, "delimiter", &f.Delimiter)
	one(quote, "quote", &f.Quote)
	f.Escape = f.Quote
	one(escape, "escape", &f.Escape)
	if null != nil {
		f.Null = *null
	}
}
