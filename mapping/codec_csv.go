package mapping

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A csvForm is comma-separated values (RFC 4180): a list of rows, each an object of its cells by the names of the columns.
// A cell is a text; an empty one without quotes is null.
type csvForm struct {
	sep     byte
	names   []string // of the columns where header is false; else their order in a new file
	header  bool     // the first row has the names
	comma   bool     // decimal comma
	charset *charset // nil: what the media type says, else UTF-8
}

var csvCodec codec = &csvForm{sep: ',', header: true}

const csvOptions = "names, header, decimal, charset"

// makeCSV reads csv(separator, options).
func makeCSV(args []engine.Value) (codec, error) {
	c := &csvForm{sep: ',', header: true}
	if len(args) > 0 {
		s := args[0].Text()
		if len(s) != 1 || s[0] >= 0x7f || s[0] < 0x20 && s[0] != '\t' || s[0] == '"' {
			return nil, fmt.Errorf(`the separator is one character, as ";", "," or "\t", and not a quote`)
		}
		c.sep = s[0]
	}
	if len(args) < 2 {
		return c, nil
	}
	if !isObject(args[1]) {
		return nil, fmt.Errorf("the options are written as { name = value }: %s", csvOptions)
	}
	for _, m := range args[1].Members() {
		switch m.Name {
		case "names":
			for _, item := range m.Value.Items() {
				if item.Kind() != lattice.StringKind || item.Text() == "" || slices.Contains(c.names, item.Text()) {
					return nil, fmt.Errorf("names is a list of different texts, one for each column")
				}
				c.names = append(c.names, item.Text())
			}
			if len(c.names) == 0 || len(c.names) > maxColumns {
				return nil, fmt.Errorf("names is a list of 1 to %d texts, one for each column", maxColumns)
			}
			if _, said := args[1].Member("header"); !said {
				c.header = false
			}
		case "header":
			if m.Value.Kind() != lattice.BoolKind {
				return nil, fmt.Errorf("header is true or false")
			}
			c.header = m.Value.Bool()
		case "decimal":
			if s := m.Value.Text(); s != "," && s != "." {
				return nil, fmt.Errorf(`decimal is "," or "."`)
			}
			c.comma = m.Value.Text() == ","
		case "charset":
			if c.charset = findCharset(m.Value.Text()); c.charset == nil {
				return nil, fmt.Errorf("the charset %s is none of %s", brief(m.Value), strings.Join(charsetNames(), ", "))
			}
		default:
			return nil, fmt.Errorf("unknown option %q: there is %s", m.Name, csvOptions)
		}
	}
	if !c.header && c.names == nil {
		return nil, fmt.Errorf(`without a header the columns need names: { names = ["a", "b"] }`)
	}
	return c, nil
}

func (c *csvForm) traits() traits {
	if c.comma {
		return traits{holds: rows, flavour: commaCells}
	}
	return traits{holds: rows, flavour: cells}
}

// commas tells whether numbers in the payload have a decimal comma.
func (b *Bind) commas() bool {
	c, ok := b.codec.(*csvForm)
	return ok && c.comma
}

// coding gives the charset of a payload: what the codec says, what the media type says, UTF-8.
func (c *csvForm) coding(p *wrappers.Payload) (*charset, error) {
	if c.charset != nil {
		return c.charset, nil
	}
	if _, name := mediaType(p); name != "" {
		if cs := findCharset(name); cs != nil {
			return cs, nil
		}
		return nil, refuse("the charset %q is none of %s", name, strings.Join(charsetNames(), ", "))
	}
	return charsets["utf-8"], nil
}

func (c *csvForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	if err := checkSize(p.Raw); err != nil {
		return engine.Value{}, err
	}
	cs, err := c.coding(p)
	if err != nil {
		return engine.Value{}, err
	}
	text, _, err := cs.decode(p.Raw)
	if err != nil {
		return engine.Value{}, err
	}
	s := &csvScanner{text: text, sep: c.sep}
	names, err := c.columns(s)
	if err != nil {
		return engine.Value{}, err
	}
	// Members stand in the order of their names.
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	sort.Slice(order, func(a, b int) bool { return names[order[a]] < names[order[b]] })
	items := make([]engine.Value, 0, min(strings.Count(text[s.at:], "\n")+1, maxRows))
	for {
		ok, err := s.next()
		if err != nil {
			return engine.Value{}, err
		}
		if !ok {
			return lattice.List(items...), nil
		}
		if err := s.fits(len(names), len(items)); err != nil {
			return engine.Value{}, err
		}
		// One copy of each row, so that a cell which is kept keeps no more than its row in memory.
		row := strings.Clone(text[s.body:s.end])
		m := make([]lattice.Member, len(names))
		for k, i := range order {
			m[k] = lattice.Member{Name: names[i], Value: lattice.Null()}
			if i < len(s.cells) {
				m[k].Value = s.cells[i].value(row, s.body)
			}
			if len(names) == 1 && m[k].Value.Kind() == lattice.NullKind {
				m[k].Value = lattice.String("") // as it is written: an empty line is no row
			}
		}
		items = append(items, lattice.Object(m...))
	}
}

// columns gives the names of the columns, and reads past the header. One without a name has its number: "#3".
func (c *csvForm) columns(s *csvScanner) ([]string, error) {
	if !c.header {
		return c.names, nil
	}
	ok, err := s.next()
	if err != nil || !ok {
		return nil, err
	}
	if len(s.cells) > maxColumns {
		return nil, tooLarge("the CSV has %d columns, at most %d are read", len(s.cells), maxColumns)
	}
	names := make([]string, len(s.cells))
	seen := make(map[string]bool, len(names))
	for i := range s.cells {
		n := strings.Clone(s.cells[i].text(s.text, 0))
		if n == "" {
			n = "#" + strconv.Itoa(i+1)
		}
		if seen[n] {
			return nil, refuse("two columns of the CSV have the name %q", n)
		}
		names[i], seen[n] = n, true
	}
	if c.names != nil && !slices.ContainsFunc(c.names, func(n string) bool { return seen[n] }) {
		return nil, refuse("the header of the CSV has none of the columns %s; its separator is %q", clip(strings.Join(c.names, ", ")), c.sep)
	}
	return names, nil
}

// A csvCell is where a cell stands in the text, its quotes not counted.
type csvCell struct {
	from, to int
	quoted   bool
	doubled  bool // it holds quotes, each written twice
}

func (x *csvCell) text(s string, base int) string {
	t := s[x.from-base : x.to-base]
	if x.doubled {
		t = strings.ReplaceAll(t, `""`, `"`)
	}
	return t
}

func (x *csvCell) value(s string, base int) engine.Value {
	if x.from == x.to && !x.quoted {
		return lattice.Null()
	}
	return lattice.String(x.text(s, base))
}

// raw is the cell as it is written.
func (x *csvCell) raw(s string) string {
	if x.quoted {
		return s[x.from-1 : x.to+1]
	}
	return s[x.from:x.to]
}

// A csvScanner reads row by row. An empty line is none.
type csvScanner struct {
	text  string
	sep   byte
	at    int
	line  int
	count int // cells so far
	// The row, with the empty lines before it: text[from:at]; without these and its line end: text[body:end].
	from, body, end int
	cells           []csvCell
}

// next reads one row. False: there are no more, and text[from:] is empty lines.
func (s *csvScanner) next() (bool, error) {
	t, i := s.text, s.at
	s.from = i
	for i < len(t) && (t[i] == '\n' || t[i] == '\r' && i+1 < len(t) && t[i+1] == '\n') {
		if t[i] == '\n' {
			s.line++
		}
		i++
	}
	s.cells = s.cells[:0]
	if i == len(t) {
		s.at = i
		return false, nil
	}
	s.body = i
	for {
		x := csvCell{from: i, to: i}
		if i < len(t) && t[i] == '"' {
			x.quoted = true
			x.from = i + 1
			start := s.line
			for i++; ; i++ {
				n := strings.IndexByte(t[i:], '"')
				if n < 0 {
					return false, refuse("line %d of the CSV: a quote without its other quote", start+1)
				}
				s.line += strings.Count(t[i:i+n], "\n")
				if i += n; i+1 >= len(t) || t[i+1] != '"' {
					break
				}
				x.doubled = true
				i++
			}
			x.to = i
			i++
			if i < len(t) && t[i] != s.sep && t[i] != '\n' && !strings.HasPrefix(t[i:], "\r\n") {
				return false, refuse("line %d of the CSV: text behind a closing quote; a quote within quotes is written twice", s.line+1)
			}
			if i < len(t) && t[i] == '\r' {
				i++
			}
		} else {
			for i < len(t) && t[i] != s.sep && t[i] != '\n' {
				i++
			}
			x.to = i
			if i < len(t) && t[i] == '\n' && i > x.from && t[i-1] == '\r' {
				x.to--
			}
		}
		s.cells = append(s.cells, x)
		if i >= len(t) || t[i] == '\n' {
			break
		}
		i++ // the separator; behind it stands a cell, be it an empty one
	}
	last := &s.cells[len(s.cells)-1]
	s.end = last.to
	if last.quoted {
		s.end++
	}
	if i < len(t) {
		i++
	}
	s.line++
	s.at = i
	s.count += len(s.cells)
	return true, nil
}

// fits checks the row against the header. Cells that lack are empty; empty ones too many are passed over.
func (s *csvScanner) fits(columns, before int) error {
	for i := columns; i < len(s.cells); i++ {
		if s.cells[i].from != s.cells[i].to {
			return refuse("line %d of the CSV has %d cells, and there are %d columns: the separator is %q", s.line, len(s.cells), columns, s.sep)
		}
	}
	if before >= maxRows {
		return tooLarge("the CSV has more than %d rows", maxRows)
	}
	if s.count > maxCells {
		return tooLarge("the CSV has more than %d cells", maxCells)
	}
	return nil
}
