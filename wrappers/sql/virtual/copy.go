package virtual

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// copy does COPY … TO STDOUT and COPY … FROM STDIN.
func (se *session) copy(st *pgsql.Statement) error {
	if st.CopyTo {
		return se.copyOut(st)
	}
	return se.copyIn(st)
}

func (se *session) copyOut(st *pgsql.Statement) error {
	x := se.tx
	if x == nil {
		x = newTx(se.server.link, se.who)
	}
	q, err := se.open(st.SQL, len(st.Columns), nil, x)
	if err != nil {
		return err
	}
	defer q.close()
	se.send(&pgproto3.CopyOutResponse{OverallFormat: 0, ColumnFormatCodes: make([]uint16, len(st.Columns))})
	f := &st.CopyForm
	var line []byte
	if f.Header {
		for i, c := range st.Columns {
			if i > 0 {
				line = append(line, f.Delimiter)
			}
			line = appendField(line, c.Name, f)
		}
		se.send(&pgproto3.CopyData{Data: append(line, '\n')})
	}
	n := int64(0)
	for {
		row, err := q.next()
		if err != nil {
			return err
		}
		if row == nil {
			break
		}
		line = line[:0]
		for i, v := range row {
			if i > 0 {
				line = append(line, f.Delimiter)
			}
			if v.IsNull() {
				line = append(line, f.Null...)
				continue
			}
			line = appendField(line, string(pgsql.AppendText(nil, v, st.Columns[i].Type, se.settings.zone)), f)
		}
		n++
		se.send(&pgproto3.CopyData{Data: append(line, '\n')})
		if err := se.flushSome(); err != nil {
			return err
		}
	}
	se.send(&pgproto3.CopyDone{})
	se.send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "COPY %d", n)})
	return nil
}

// appendField writes one value of a line.
func appendField(dst []byte, s string, f *pgsql.CopyForm) []byte {
	if f.CSV {
		if s != f.Null && s != `\.` && strings.IndexByte(s, f.Delimiter) < 0 && strings.IndexByte(s, f.Quote) < 0 && !strings.ContainsAny(s, "\r\n") {
			return append(dst, s...)
		}
		dst = append(dst, f.Quote)
		for i := range len(s) {
			if s[i] == f.Quote || s[i] == f.Escape {
				dst = append(dst, f.Escape)
			}
			dst = append(dst, s[i])
		}
		return append(dst, f.Quote)
	}
	for i := range len(s) {
		switch c := s[i]; c {
		case '\\':
			dst = append(dst, `\\`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\v':
			dst = append(dst, `\v`...)
		default:
			if c == f.Delimiter {
				dst = append(dst, '\\')
			}
			dst = append(dst, c)
		}
	}
	return dst
}

// copyIn reads rows from the client. All of them are one change.
func (se *session) copyIn(st *pgsql.Statement) error {
	x, err := se.writable()
	if err != nil {
		return err
	}
	t := se.schema().rows(st.Table)
	if t == nil || !t.inAny {
		return &pgsql.Error{Code: "42501", Message: "permission denied for table " + st.Table.Name}
	}
	se.once()
	se.send(&pgproto3.CopyInResponse{OverallFormat: 0, ColumnFormatCodes: make([]uint16, len(st.Targets))})
	if err := se.flush(); err != nil {
		return err
	}
	ctx, cancel, stop := se.context()
	defer cancel(nil)
	defer stop()
	p := se.server.pools.Load()
	c, err := p.get(ctx)
	if err != nil {
		return err
	}
	defer p.put(c)
	e := &changing{st: &pgsql.Statement{Kind: pgsql.Insert, Table: st.Table}, t: t, c: c, run: &run{ctx: ctx, session: se, tx: x, now: se.now()}, zone: se.settings.zone}
	r := &lineReader{form: &st.CopyForm, most: se.server.Config.Limits.Frame}
	mark := x.mark()
	header := st.CopyForm.Header
	line := 0
	take := func(fields []field) error {
		line++
		if header {
			header = false
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(fields) != len(st.Targets) {
			what := "extra data after last expected column"
			if len(fields) < len(st.Targets) {
				what = fmt.Sprintf("missing data for column \"%s\"", t.Columns[st.Targets[len(fields)]].Name)
			}
			return &pgsql.Error{Code: "22P04", Message: what, Detail: fmt.Sprintf("COPY %s, line %d", t.Name, line)}
		}
		row := make([]pgsql.Value, len(t.Columns))
		for i, f := range fields {
			column := st.Targets[i]
			v := pgsql.Value{}
			if !f.null {
				var err error
				if v, err = pgsql.ParseText(f.text, t.Columns[column].Type, se.settings.zone); err != nil {
					return err
				}
			}
			if err := e.assign(row, column, v, t.Columns[column].Type); err != nil {
				return err
			}
		}
		return e.put(row, nil)
	}
	fail := func(err error) error {
		x.back(mark)
		return err
	}
	for {
		msg, err := se.inbox.receive()
		if err != nil {
			return fail(err)
		}
		switch m := msg.(type) {
		case *pgproto3.CopyData:
			if err := r.feed(m.Data, take); err != nil {
				return fail(err)
			}
		case *pgproto3.CopyDone:
			if err := r.finish(take); err != nil {
				return fail(err)
			}
			se.send(&pgproto3.CommandComplete{CommandTag: fmt.Appendf(nil, "COPY %d", e.n)})
			return nil
		case *pgproto3.CopyFail:
			return fail(&pgsql.Error{Code: "57014", Message: "COPY from stdin failed: " + m.Message})
		case *pgproto3.Flush, *pgproto3.Sync:
		default:
			return fail(&pgsql.Error{Code: "08P01", Message: "unexpected message type during COPY from stdin"})
		}
	}
}

type field struct {
	text string
	null bool
}

// lineReader takes lines apart, whose data come in pieces of any size.
type lineReader struct {
	form   *pgsql.CopyForm
	most   int
	buf    []byte
	ended  bool
	fields []field
}

func (r *lineReader) feed(data []byte, take func([]field) error) error {
	if r.ended {
		return nil
	}
	r.buf = append(r.buf, data...)
	for {
		n, err := r.line(false, take)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		r.buf = r.buf[n:]
		if r.ended {
			r.buf = nil
			return nil
		}
	}
	if len(r.buf) > r.most {
		return &pgsql.Error{Code: "54000", Message: "a line of COPY is too long"}
	}
	r.buf = append([]byte{}, r.buf...)
	return nil
}

func (r *lineReader) finish(take func([]field) error) error {
	if r.ended || len(r.buf) == 0 {
		return nil
	}
	_, err := r.line(true, take)
	return err
}

// line reads one line, and tells how many bytes it has; 0: it is not all there.
func (r *lineReader) line(last bool, take func([]field) error) (int, error) {
	if len(r.buf) == 0 {
		return 0, nil
	}
	n := r.end()
	text := r.buf
	switch {
	case n > 0:
		text = r.buf[:n-1]
		text = bytes.TrimSuffix(text, []byte{'\r'})
	case !last:
		return 0, nil
	default:
		n = len(r.buf)
	}
	if string(text) == `\.` {
		r.ended = true
		return n, nil
	}
	r.fields = r.fields[:0]
	var err error
	if r.form.CSV {
		err = r.csv(text)
	} else {
		err = r.text(text)
	}
	if err != nil {
		return n, err
	}
	return n, take(r.fields)
}

// end finds the byte behind the line feed that ends the first line, 0 if there is none.
func (r *lineReader) end() int {
	if !r.form.CSV {
		for i := 0; ; {
			j := bytes.IndexByte(r.buf[i:], '\n')
			if j < 0 {
				return 0
			}
			i += j + 1
			back := 0
			for k := i - 2; k >= 0 && r.buf[k] == '\\'; k-- {
				back++
			}
			if back%2 == 0 {
				return i
			}
		}
	}
	quoted := false
	for i := 0; i < len(r.buf); i++ {
		switch c := r.buf[i]; {
		case quoted && c == r.form.Escape && r.form.Escape != r.form.Quote && i+1 < len(r.buf):
			i++
		case c == r.form.Quote:
			quoted = !quoted
		case c == '\n' && !quoted:
			return i + 1
		}
	}
	return 0
}

func (r *lineReader) text(line []byte) error {
	var b []byte
	raw := 0
	add := func(end int) {
		if string(line[raw:end]) == r.form.Null {
			r.fields = append(r.fields, field{null: true})
		} else {
			r.fields = append(r.fields, field{text: string(b)})
		}
		b = b[:0]
		raw = end + 1
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == r.form.Delimiter:
			add(i)
		case c == '\\' && i+1 < len(line):
			i++
			switch e := line[i]; e {
			case 'b':
				b = append(b, '\b')
			case 'f':
				b = append(b, '\f')
			case 'n':
				b = append(b, '\n')
			case 'r':
				b = append(b, '\r')
			case 't':
				b = append(b, '\t')
			case 'v':
				b = append(b, '\v')
			case '0', '1', '2', '3', '4', '5', '6', '7':
				n, k := 0, 0
				for k < 3 && i+k < len(line) && line[i+k] >= '0' && line[i+k] <= '7' {
					n = n*8 + int(line[i+k]-'0')
					k++
				}
				i += k - 1
				b = append(b, byte(n))
			case 'x':
				n, k := 0, 0
				for k < 2 && i+1+k < len(line) && isHex(line[i+1+k]) {
					d := line[i+1+k] | 0x20
					if d >= 'a' {
						n = n*16 + int(d-'a') + 10
					} else {
						n = n*16 + int(line[i+1+k]-'0')
					}
					k++
				}
				if k == 0 {
					b = append(b, 'x')
				} else {
					b = append(b, byte(n))
				}
				i += k
			default:
				b = append(b, e)
			}
		default:
			b = append(b, c)
		}
	}
	add(len(line))
	return nil
}

func (r *lineReader) csv(line []byte) error {
	var b []byte
	quoted, was := false, false
	add := func() {
		r.fields = append(r.fields, field{text: string(b), null: !was && string(b) == r.form.Null})
		b, was = b[:0], false
	}
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quoted && c == r.form.Escape && i+1 < len(line) && (line[i+1] == r.form.Quote || line[i+1] == r.form.Escape):
			i++
			b = append(b, line[i])
		case c == r.form.Quote:
			quoted, was = !quoted, true
		case c == r.form.Delimiter && !quoted:
			add()
		default:
			b = append(b, c)
		}
	}
	if quoted {
		return &pgsql.Error{Code: "22P04", Message: "unterminated CSV quoted field"}
	}
	add()
	return nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}
