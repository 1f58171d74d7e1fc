package virtual

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A payload is a row as CBOR (RFC 8949): a map of column to value. It is read and written here without a step between,
// since every row of every scan passes.

var errCBOR = errors.New("the row can't be read")

// A cborReader reads items of a payload.
type cborReader struct {
	b     []byte
	depth int
}

func (r *cborReader) head() (major byte, arg uint64, info byte, err error) {
	if len(r.b) == 0 {
		return 0, 0, 0, errCBOR
	}
	major, info = r.b[0]>>5, r.b[0]&31
	n := 0
	switch {
	case info < 24:
		r.b = r.b[1:]
		return major, uint64(info), info, nil
	case info == 31:
		r.b = r.b[1:]
		return major, 0, info, nil
	case info > 27:
		return 0, 0, 0, errCBOR
	}
	n = 1 << (info - 24)
	if len(r.b) < 1+n {
		return 0, 0, 0, errCBOR
	}
	switch n {
	case 1:
		arg = uint64(r.b[1])
	case 2:
		arg = uint64(binary.BigEndian.Uint16(r.b[1:]))
	case 4:
		arg = uint64(binary.BigEndian.Uint32(r.b[1:]))
	default:
		arg = binary.BigEndian.Uint64(r.b[1:])
	}
	r.b = r.b[1+n:]
	return major, arg, info, nil
}

// A cell is one item: a scalar, or the JSON of something that is none.
type cell struct {
	kind cellKind
	text string // of texts and bytes, the digits of numbers, JSON
	n    int64
	yes  bool
}

type cellKind uint8

const (
	nullCell cellKind = iota
	boolCell
	intCell
	numberCell
	textCell
	bytesCell
	jsonCell
)

const maxNesting = 256

func (r *cborReader) bytes(n uint64) (string, error) {
	if n > uint64(len(r.b)) {
		return "", errCBOR
	}
	s := string(r.b[:n])
	r.b = r.b[n:]
	return s, nil
}

// item reads one item.
func (r *cborReader) item() (cell, error) {
	if r.depth++; r.depth > maxNesting {
		return cell{}, errCBOR
	}
	defer func() { r.depth-- }()
	major, arg, info, err := r.head()
	if err != nil {
		return cell{}, err
	}
	if info == 31 {
		return cell{}, errCBOR // indefinite lengths, which the gateway's own encoder never writes
	}
	switch major {
	case 0, 1:
		if arg > math.MaxInt64 {
			n := new(big.Int).SetUint64(arg)
			if major == 1 {
				n.Neg(n.Add(n, big.NewInt(1)))
			}
			return cell{kind: numberCell, text: n.String()}, nil
		}
		n := int64(arg)
		if major == 1 {
			n = -1 - n
		}
		return cell{kind: intCell, n: n}, nil
	case 2, 3:
		s, err := r.bytes(arg)
		kind := bytesCell
		if major == 3 {
			kind = textCell
		}
		return cell{kind: kind, text: s}, err
	case 4, 5:
		return r.composite(major, arg)
	case 6:
		return r.tagged(arg)
	}
	switch info {
	case 20, 21:
		return cell{kind: boolCell, yes: info == 21}, nil
	case 22, 23:
		return cell{}, nil
	case 25:
		return floatCell(half(uint16(arg))), nil
	case 26:
		return floatCell(float64(math.Float32frombits(uint32(arg)))), nil
	case 27:
		return floatCell(math.Float64frombits(arg)), nil
	}
	return cell{}, errCBOR
}

func floatCell(f float64) cell {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return cell{kind: intCell, n: int64(f)}
	}
	return cell{kind: numberCell, text: strconv.FormatFloat(f, 'g', -1, 64)}
}

func half(h uint16) float64 {
	sign, exp, frac := h>>15, int(h>>10)&31, float64(h&1023)
	f := 0.0
	switch exp {
	case 0:
		f = math.Ldexp(frac, -24)
	case 31:
		if f = math.Inf(1); frac != 0 {
			f = math.NaN()
		}
	default:
		f = math.Ldexp(1+frac/1024, exp-15)
	}
	if sign != 0 {
		f = -f
	}
	return f
}

// composite reads a list or a map as JSON.
func (r *cborReader) composite(major byte, n uint64) (cell, error) {
	if n > uint64(len(r.b)) {
		return cell{}, errCBOR
	}
	open, shut := byte('['), byte(']')
	if major == 5 {
		open, shut = '{', '}'
	}
	out := []byte{open}
	for i := range n {
		if i > 0 {
			out = append(out, ", "...)
		}
		if major == 5 {
			name, err := r.item()
			if err != nil || name.kind != textCell {
				return cell{}, errCBOR
			}
			out = append(pgsql.AppendJSONString(out, name.text), ": "...)
		}
		c, err := r.item()
		if err != nil {
			return cell{}, err
		}
		out = c.appendJSON(out)
	}
	return cell{kind: jsonCell, text: string(append(out, shut))}, nil
}

func (r *cborReader) tagged(tag uint64) (cell, error) {
	switch tag {
	case 2, 3:
		c, err := r.item()
		if err != nil || c.kind != bytesCell {
			return cell{}, errCBOR
		}
		n := new(big.Int).SetBytes([]byte(c.text))
		if tag == 3 {
			n.Neg(n.Add(n, big.NewInt(1)))
		}
		return cell{kind: numberCell, text: n.String()}, nil
	case 4:
		major, n, _, err := r.head()
		if err != nil || major != 4 || n != 2 {
			return cell{}, errCBOR
		}
		exp, err := r.item()
		if err != nil || exp.kind != intCell {
			return cell{}, errCBOR
		}
		m, err := r.item()
		if err != nil || m.kind != intCell && m.kind != numberCell {
			return cell{}, errCBOR
		}
		return cell{kind: numberCell, text: m.digits() + "e" + strconv.FormatInt(exp.n, 10)}, nil
	}
	return r.item()
}

func (c *cell) digits() string {
	if c.kind == intCell {
		return strconv.FormatInt(c.n, 10)
	}
	return c.text
}

func (c *cell) appendJSON(dst []byte) []byte {
	switch c.kind {
	case nullCell:
		return append(dst, "null"...)
	case boolCell:
		return strconv.AppendBool(dst, c.yes)
	case intCell:
		return strconv.AppendInt(dst, c.n, 10)
	case numberCell:
		if v, ok := pgsql.Number(c.text); ok {
			return append(dst, v.NumberText()...)
		}
		return append(dst, "null"...)
	case textCell:
		return pgsql.AppendJSONString(dst, c.text)
	case bytesCell:
		return pgsql.AppendJSONString(dst, base64.StdEncoding.EncodeToString([]byte(c.text)))
	}
	return append(dst, c.text...)
}

// value gives a cell as one of a type. False: it is none.
func (c *cell) value(o pgsql.OID) (pgsql.Value, bool) {
	if c.kind == nullCell {
		return pgsql.Value{}, true
	}
	switch o {
	case pgsql.JSONB, pgsql.JSON:
		return pgsql.StrValue(string(c.appendJSON(nil))), true
	case pgsql.Bool:
		return pgsql.BoolValue(c.yes), c.kind == boolCell
	case pgsql.Bytea:
		return pgsql.BlobValue([]byte(c.text)), c.kind == bytesCell || c.kind == textCell
	case pgsql.Numeric, pgsql.Float8, pgsql.Float4, pgsql.Int8, pgsql.Int4, pgsql.Int2:
		switch {
		case c.kind == intCell && o == pgsql.Numeric:
			return pgsql.IntValue(c.n), true
		case c.kind == intCell || c.kind == numberCell:
			return pgsql.FromJSON([]byte(c.digits()), o)
		}
		return pgsql.Value{}, false
	}
	switch c.kind {
	case textCell:
		if o == pgsql.Text {
			return pgsql.StrValue(c.text), true
		}
		v, err := pgsql.ParseText(c.text, o, time.UTC)
		return v, err == nil
	case bytesCell:
		return pgsql.StrValue(c.text), o == pgsql.Text && utf8.ValidString(c.text)
	}
	return pgsql.StrValue(string(c.appendJSON(nil))), o == pgsql.Text
}

// decodeRow puts the columns of a payload into a row, and tells how many values have no place there.
func (t *table) decodeRow(raw []byte, row []pgsql.Value) (unshowable int, err error) {
	if len(raw) == 0 {
		return 0, nil
	}
	r := cborReader{b: raw}
	major, n, info, err := r.head()
	if err != nil || major != 5 || info == 31 {
		return 0, errCBOR
	}
	for range n {
		name, err := r.item()
		if err != nil || name.kind != textCell {
			return 0, errCBOR
		}
		c, err := r.item()
		if err != nil {
			return 0, err
		}
		i := t.Column(name.text)
		if i < 0 || t.isKey(i) {
			continue
		}
		v, ok := c.value(t.Columns[i].Type)
		if !ok {
			unshowable++
			continue
		}
		row[i] = v
	}
	return unshowable, nil
}

func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

func appendTextItem(b []byte, s string) []byte { return append(appendHead(b, 3, uint64(len(s))), s...) }

func appendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, 1, uint64(-1-n))
	}
	return appendHead(b, 0, uint64(n))
}

// appendNumberItem writes a number as what it is: an integer, or a decimal fraction.
func appendNumberItem(b []byte, text string) ([]byte, error) {
	exp := 0
	if i := strings.IndexAny(text, "eE"); i >= 0 {
		n, err := strconv.Atoi(text[i+1:])
		if err != nil || n > 100_000 || n < -100_000 {
			return b, errCBOR
		}
		exp, text = n, text[:i]
	}
	whole, frac, _ := strings.Cut(text, ".")
	digits := whole + frac
	exp -= len(frac)
	for exp < 0 && strings.HasSuffix(digits, "0") && len(digits) > 1 {
		digits, exp = digits[:len(digits)-1], exp+1
	}
	if exp > 0 && exp <= 40 {
		digits, exp = digits+strings.Repeat("0", exp), 0
	}
	m, ok := new(big.Int).SetString(digits, 10)
	if !ok {
		return b, errCBOR
	}
	if m.Sign() == 0 {
		exp = 0
	}
	if exp != 0 {
		b = append(b, 0xc4, 0x82)
		b = appendInt(b, int64(exp))
	}
	if m.IsInt64() {
		return appendInt(b, m.Int64()), nil
	}
	tag := byte(0xc2)
	if m.Sign() < 0 {
		tag = 0xc3
		m.Neg(m.Add(m, big.NewInt(1)))
	}
	raw := m.Bytes()
	return append(appendHead(append(b, tag), 2, uint64(len(raw))), raw...), nil
}

// appendValue writes a value of a column.
func appendValue(b []byte, v pgsql.Value, o pgsql.OID) ([]byte, error) {
	if v.IsNull() {
		return append(b, 0xf6), nil
	}
	switch o {
	case pgsql.Bool:
		if v.Int != 0 {
			return append(b, 0xf5), nil
		}
		return append(b, 0xf4), nil
	case pgsql.Int2, pgsql.Int4, pgsql.Int8, pgsql.Numeric, pgsql.Float4, pgsql.Float8:
		if v.Kind == pgsql.Int {
			return appendInt(b, v.Int), nil
		}
		if o != pgsql.Numeric && v.Kind == pgsql.Float {
			if math.IsNaN(v.Flt) || math.IsInf(v.Flt, 0) {
				return b, &pgsql.Error{Code: pgsql.OutOfRange, Message: "a register holds no infinite number"}
			}
			return appendNumberItem(b, strconv.FormatFloat(v.Flt, 'g', -1, 64))
		}
		return appendNumberItem(b, v.NumberText())
	case pgsql.Bytea:
		return append(appendHead(b, 2, uint64(len(v.Str))), v.Str...), nil
	case pgsql.JSON, pgsql.JSONB:
		d := json.NewDecoder(bytes.NewReader([]byte(v.Str)))
		d.UseNumber()
		var x any
		if err := d.Decode(&x); err != nil {
			return b, &pgsql.Error{Code: pgsql.InvalidText, Message: "invalid input syntax for type json"}
		}
		return appendJSONItem(b, x)
	case pgsql.Timestamptz:
		if t, ok := pgsql.ParseTimeText(v.Str); ok {
			return appendTextItem(b, t.Format(time.RFC3339Nano)), nil
		}
	}
	return appendTextItem(b, string(pgsql.AppendText(nil, v, o, time.UTC))), nil
}

func appendJSONItem(b []byte, x any) ([]byte, error) {
	var err error
	switch x := x.(type) {
	case nil:
		return append(b, 0xf6), nil
	case bool:
		if x {
			return append(b, 0xf5), nil
		}
		return append(b, 0xf4), nil
	case json.Number:
		return appendNumberItem(b, x.String())
	case string:
		return appendTextItem(b, x), nil
	case []any:
		b = appendHead(b, 4, uint64(len(x)))
		for _, v := range x {
			if b, err = appendJSONItem(b, v); err != nil {
				return b, err
			}
		}
		return b, nil
	case map[string]any:
		b = appendHead(b, 5, uint64(len(x)))
		for k, v := range x {
			if b, err = appendJSONItem(appendTextItem(b, k), v); err != nil {
				return b, err
			}
		}
		return b, nil
	}
	return b, errCBOR
}

// encodeRow writes the columns of a row for which with holds; nulls too where they are to be cleared.
func (t *table) encodeRow(row []pgsql.Value, with func(column int) bool) ([]byte, error) {
	n := 0
	for i := range row {
		if !t.isKey(i) && with(i) {
			n++
		}
	}
	b := appendHead(make([]byte, 0, 64), 5, uint64(n))
	for i := range row {
		if t.isKey(i) || !with(i) {
			continue
		}
		var err error
		if b, err = appendValue(appendTextItem(b, t.Columns[i].Name), row[i], t.Columns[i].Type); err != nil {
			return nil, err
		}
	}
	return b, nil
}
