package mapping

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A csvFile is a previous document, of which what doesn't change is kept to the byte.
type csvFile struct {
	text    string
	bom     string
	eol     string // of its first line
	open    bool   // its last line has no end
	head    string // the header, and its line end
	headEnd string
	tail    string // empty lines at the end
	names   []string
	rows    []csvRow
	quoted  []bool // per column: the cells of the last row, as the style of new ones
	hasHead bool
}

// A csvRow is one row of it.
type csvRow struct {
	blank    string // empty lines before it
	raw, eol string
	cells    []csvCell
}

func (c *csvForm) read(p *wrappers.Payload, cs *charset) (*csvFile, error) {
	f := &csvFile{eol: "\r\n", bom: cs.newBOM(), names: c.names}
	if p == nil || len(p.Raw) == 0 {
		return f, nil
	}
	if err := checkSize(p.Raw); err != nil {
		return nil, err
	}
	var err error
	if f.text, f.bom, err = cs.decode(p.Raw); err != nil {
		return nil, err
	}
	s := &csvScanner{text: f.text, sep: c.sep}
	names, err := c.columns(s)
	if err != nil {
		return nil, err
	}
	if names == nil { // no header: there is no row
		f.tail = f.text[s.from:]
		return f, nil
	}
	f.names = names
	seenEnd := false
	ending := func() string {
		switch e := f.text[s.end:s.at]; {
		case e == "":
			f.open = true
			return e
		case !seenEnd:
			f.eol, seenEnd = e, true
			return e
		default:
			return e
		}
	}
	if c.header {
		f.head, f.headEnd, f.hasHead = f.text[:s.end], ending(), true
	}
	var slab []csvCell
	for {
		ok, err := s.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			f.tail = f.text[s.from:]
			break
		}
		if err := s.fits(len(f.names), len(f.rows)); err != nil {
			return nil, err
		}
		if cap(slab)-len(slab) < len(s.cells) {
			slab = make([]csvCell, 0, max(1024, len(s.cells)))
		}
		n := len(slab)
		slab = append(slab, s.cells...)
		f.rows = append(f.rows, csvRow{f.text[s.from:s.body], f.text[s.body:s.end], ending(), slab[n:len(slab):len(slab)]})
	}
	f.quoted = make([]bool, len(f.names))
	if len(f.rows) > 0 {
		for i, x := range f.rows[len(f.rows)-1].cells {
			if i < len(f.quoted) {
				f.quoted[i] = x.quoted
			}
		}
	}
	return f, nil
}

func (c *csvForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	var out wrappers.Payload
	if v.Kind() != lattice.ListKind {
		if isObject(v) {
			return out, fmt.Errorf("a CSV is a list of rows, and this is one object: map the rows with `each = payload`")
		}
		return out, notA(v, "a list of rows")
	}
	cs, err := c.coding(prev)
	if err != nil {
		return out, err
	}
	f, err := c.read(prev, cs)
	if err != nil {
		return out, fmt.Errorf("what is there now can't be read, and is not overwritten: %s", wrappers.Reason(err))
	}
	w := &csvWriter{form: c, file: f}
	if err := w.columns(v.Items()); err != nil {
		return out, err
	}
	w.header()
	bases := w.pair(v.Items())
	for i, row := range v.Items() {
		base := bases[i]
		if base != nil && base.eol == "" && i+1 < v.Len() && strings.HasSuffix(base.raw, "\r") {
			base = nil // with a line end behind it, that would be another one
		}
		if err := w.row(row, base); err != nil {
			return out, fmt.Errorf("row %d: %w", i+1, err)
		}
	}
	if f.open {
		w.out = w.out[:len(w.out)-w.eol] // as it was before
	}
	w.out = append(w.out, f.tail...)
	if len(w.out) == 0 && f.text == "" && (prev == nil || len(prev.Raw) == 0) {
		f.bom = "" // nothing at all
	}
	if out.Raw, err = cs.encode(string(w.out), f.bom); err != nil {
		return out, err
	}
	if len(out.Raw) > maxPayload {
		return out, tooLarge("the CSV would have more than %d MiB", maxPayload>>20)
	}
	out.Type = "text/csv; charset=" + cs.name
	return out, nil
}

type csvWriter struct {
	form  *csvForm
	file  *csvFile
	names []string
	grown bool // there are columns that the file didn't have
	out   []byte
	eol   int // bytes that the end of the last line has
}

// columns are those of the file, then new ones by name.
func (w *csvWriter) columns(items []engine.Value) error {
	if len(items) > maxRows {
		return tooLarge("a CSV of more than %d rows", maxRows)
	}
	known := make(map[string]bool, len(w.file.names))
	for _, n := range w.file.names {
		known[n] = true
	}
	var more []string
	for i, item := range items {
		if !isObject(item) {
			return fmt.Errorf("row %d: %w", i+1, notA(item, "an object of cells"))
		}
		for _, m := range item.Members() {
			if !known[m.Name] {
				if m.Value.Kind() == lattice.NullKind && w.file.hasHead {
					continue // nothing, in a column that isn't there
				}
				known[m.Name] = true
				more = append(more, m.Name)
			}
		}
	}
	sort.Strings(more)
	if len(more) > 0 && !w.form.header {
		return fmt.Errorf("the file has no column %q: its columns are %s", more[0], strings.Join(w.form.names, ", "))
	}
	w.names, w.grown = append(slices.Clip(w.file.names), more...), len(more) > 0
	if slices.Contains(w.names, "") {
		return fmt.Errorf("a column needs a name")
	}
	if len(w.names) > maxColumns {
		return tooLarge("a CSV of more than %d columns", maxColumns)
	}
	if len(items) > 0 && len(w.names) == 0 {
		return fmt.Errorf("the rows have no cells")
	}
	if len(items)*len(w.names) > maxCells {
		return tooLarge("a CSV of more than %d cells", maxCells)
	}
	return nil
}

func (w *csvWriter) header() {
	f := w.file
	if !w.form.header || len(w.names) == 0 {
		return
	}
	first := 0
	if f.hasHead {
		w.out = append(w.out, f.head...)
		first = len(f.names)
	}
	for i := first; i < len(w.names); i++ {
		if i > 0 {
			w.out = append(w.out, w.form.sep)
		}
		w.text(w.names[i], false)
	}
	w.end(f.headEnd)
}

// end ends a line as it was ended before.
func (w *csvWriter) end(eol string) {
	if eol == "" {
		eol = w.file.eol
	}
	w.out = append(w.out, eol...)
	w.eol = len(eol)
}

// maxSkip is how many rows are looked past for where two files go on alike, before all are compared with all.
const maxSkip = 8

// pair gives for each row the one of the file that it comes from; nil: it is new. Rows that say the same belong together
// wherever they stand; a changed one to what stood between its neighbours, or in its place.
func (w *csvWriter) pair(items []engine.Value) []*csvRow {
	old := w.file.rows
	bases := make([]*csvRow, len(items))
	used := make([]bool, len(old))
	same := func(i, j int) bool { return i < len(items) && j < len(old) && w.same(items[i], &old[j]) }
	i, j, rest := 0, 0, false
walk:
	for i < len(items) && j < len(old) {
		if same(i, j) || same(i+1, j+1) {
			bases[i], used[j] = &old[j], true
			i, j = i+1, j+1
			continue
		}
		for k := 1; k <= maxSkip; k++ {
			if same(i, j+k) {
				j += k
				continue walk
			}
			if same(i+k, j) {
				i, rest = i+k, true
				continue walk
			}
		}
		i, j, rest = i+1, j+1, true
	}
	if !rest && i == len(items) {
		return bases
	}
	free := map[string][]int{}
	var key []byte
	for j := range old {
		if used[j] {
			continue
		}
		key = key[:0]
		for k := range w.file.names {
			var x engine.Value
			if k < len(old[j].cells) {
				x = old[j].cells[k].value(w.file.text, 0)
			}
			key = w.appendKey(key, x)
		}
		free[string(key)] = append(free[string(key)], j)
	}
	for i := range items {
		if bases[i] != nil {
			continue
		}
		key = key[:0]
		for _, n := range w.file.names {
			x, _ := items[i].Member(n)
			key = w.appendKey(key, x)
		}
		if q := free[string(key)]; len(q) > 0 {
			bases[i], used[q[0]], free[string(key)] = &old[q[0]], true, q[1:]
		}
	}
	for i := range items {
		if bases[i] == nil && len(items) == len(old) && !used[i] {
			bases[i] = &old[i]
		}
	}
	return bases
}

// appendKey adds a cell to what rows are compared by; a number is the same in any spelling.
func (w *csvWriter) appendKey(key []byte, v engine.Value) []byte {
	if v.IsAbsent() || v.Kind() == lattice.NullKind {
		return append(key, 0)
	}
	s, _ := cellText(v)
	if v.Kind() == lattice.StringKind {
		if n, err := parseCell(s, w.form.comma); err == nil {
			s = n.Number()
		}
	}
	return append(append(append(key, 1), s...), 0)
}

func (w *csvWriter) same(item engine.Value, r *csvRow) bool {
	for i, n := range w.names {
		v, _ := item.Member(n)
		if !w.sameCell(v, r, i) {
			return false
		}
	}
	return true
}

// sameCell tells whether a cell says v already, in whatever spelling of a number.
func (w *csvWriter) sameCell(v engine.Value, r *csvRow, i int) bool {
	null := v.IsAbsent() || v.Kind() == lattice.NullKind
	if i >= len(r.cells) || i >= len(w.file.names) {
		return null
	}
	x := &r.cells[i]
	if x.from == x.to && !x.quoted {
		return null || len(w.file.names) == 1 && v.Kind() == lattice.StringKind && v.Len() == 0
	}
	text := x.text(w.file.text, 0)
	if v.Kind() == lattice.StringKind {
		return v.Text() == text
	}
	return !null && saysText(text, v, w.form.comma)
}

// parseCell reads a number as it stands in a cell.
func parseCell(s string, comma bool) (engine.Value, error) {
	s = strings.TrimSpace(s)
	if comma {
		if strings.Contains(s, ".") {
			return engine.Value{}, fmt.Errorf("not a number with a decimal comma")
		}
		s = strings.Replace(s, ",", ".", 1)
	}
	return lattice.ParseNumber(strings.TrimPrefix(s, "+"))
}

// row writes a row; of base, where there is one, what stays.
func (w *csvWriter) row(item engine.Value, base *csvRow) error {
	f := w.file
	if base != nil {
		w.out = append(w.out, base.blank...)
		if !w.grown && w.same(item, base) {
			w.out = append(w.out, base.raw...)
			w.end(base.eol)
			return nil
		}
	}
	start := len(w.out)
	for i, n := range w.names {
		if i > 0 {
			w.out = append(w.out, w.form.sep)
		}
		v, _ := item.Member(n)
		if base != nil && i < len(base.cells) && i < len(f.names) && w.sameCell(v, base, i) {
			w.out = append(w.out, base.cells[i].raw(f.text)...)
			continue
		}
		quoted := i < len(f.quoted) && f.quoted[i]
		if base != nil && i < len(base.cells) && !(base.cells[i].from == base.cells[i].to && !base.cells[i].quoted) {
			quoted = base.cells[i].quoted
		}
		if err := w.cell(v, quoted); err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
	}
	if base != nil && !w.grown {
		for i := len(w.names); i < len(base.cells); i++ {
			w.out = append(append(w.out, w.form.sep), base.cells[i].raw(f.text)...)
		}
	}
	if len(w.out) == start {
		w.out = append(w.out, `""`...) // an empty line is no row
	}
	eol := ""
	if base != nil {
		eol = base.eol
	}
	w.end(eol)
	return nil
}

func (w *csvWriter) cell(v engine.Value, quoted bool) error {
	switch {
	case v.IsAbsent() || v.Kind() == lattice.NullKind:
		return nil
	case v.IsNumber():
		s := v.Number()
		if w.form.comma {
			s = strings.Replace(s, ".", ",", 1)
		}
		w.text(s, quoted)
		return nil
	}
	s, err := captureText(v)
	if err != nil {
		return err
	}
	w.text(s, quoted)
	return nil
}

// text writes one cell, in quotes where it must be or they are the style.
func (w *csvWriter) text(s string, quoted bool) {
	if !quoted && s != "" && !strings.HasPrefix(s, byteOrderMark) && strings.IndexByte(s, w.form.sep) < 0 && !strings.ContainsAny(s, "\"\r\n") {
		w.out = append(w.out, s...)
		return
	}
	w.out = append(w.out, '"')
	if strings.IndexByte(s, '"') >= 0 {
		s = strings.ReplaceAll(s, `"`, `""`)
	}
	w.out = append(append(w.out, s...), '"')
}
