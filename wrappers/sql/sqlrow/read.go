// Package sqlrow is the form of rows, between the ways in which the SQL wrapper has them and the link: an address for the
// row, and a payload for its columns. A payload is CBOR (RFC 8949), a map of column to value: NULL, bool, number (of any
// size, exact), text, bytes, list or map. Times are texts by RFC 3339. A column that is not there is not spoken of.
package sqlrow

import (
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"strconv"
)

// Type is the media type of a payload.
const Type = "application/cbor"

// ErrForm says that bytes are no payload.
var ErrForm = errors.New("the row can't be read")

// mostNesting is how deep lists and maps may stand in each other.
const mostNesting = 256

// A Reader reads items one behind the other, each where it stands.
type Reader struct {
	b     []byte
	depth int
}

// Open begins to read a payload of so many columns: for each there are its name and its value. No bytes at all are a row
// without columns.
func Open(raw []byte) (r Reader, columns int, err error) {
	if len(raw) == 0 {
		return r, 0, nil
	}
	r.b = raw
	major, n, info, err := r.head()
	if err != nil || major != 5 || info == 31 || n > uint64(len(r.b)) {
		return r, 0, ErrForm
	}
	return r, int(n), nil
}

// More tells whether anything follows.
func (r *Reader) More() bool { return len(r.b) > 0 }

func (r *Reader) head() (major byte, arg uint64, info byte, err error) {
	if len(r.b) == 0 {
		return 0, 0, 0, ErrForm
	}
	major, info = r.b[0]>>5, r.b[0]&31
	switch {
	case info < 24:
		r.b = r.b[1:]
		return major, uint64(info), info, nil
	case info == 31:
		r.b = r.b[1:]
		return major, 0, info, nil
	case info > 27:
		return 0, 0, 0, ErrForm
	}
	n := 1 << (info - 24)
	if len(r.b) < 1+n {
		return 0, 0, 0, ErrForm
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

// A Kind is what an Item is.
type Kind uint8

// The kinds.
const (
	Null Kind = iota
	Bool
	Int
	Decimal // or an integer beyond 64 bits
	Text
	Bytes
	List
	Map
)

// An Item is one value.
type Item struct {
	Kind Kind
	Yes  bool
	Int  int64
	Len  int    // of a List or Map
	Text string // of a Text, of Bytes; a Decimal's digits
	body []byte // of a List or Map, in the payload
	deep int
}

// Items gives the items of a List, or the names and values of a Map in turn.
func (it *Item) Items() Reader { return Reader{it.body, it.deep} }

// Name reads the name of a column, or of a Map's item.
func (r *Reader) Name() (string, error) {
	major, n, info, err := r.head()
	if err != nil || major != 3 || info == 31 {
		return "", ErrForm
	}
	b, err := r.bytes(n)
	return string(b), err
}

func (r *Reader) bytes(n uint64) ([]byte, error) {
	if n > uint64(len(r.b)) {
		return nil, ErrForm
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b, nil
}

// Item reads one value. Indefinite lengths, which the gateway's own encoder never writes, are none.
func (r *Reader) Item() (Item, error) {
	if r.depth++; r.depth > mostNesting {
		return Item{}, ErrForm
	}
	defer func() { r.depth-- }()
	major, arg, info, err := r.head()
	if err != nil || info == 31 {
		return Item{}, ErrForm
	}
	switch major {
	case 0, 1:
		if arg > math.MaxInt64 {
			n := new(big.Int).SetUint64(arg)
			if major == 1 {
				n.Neg(n.Add(n, big.NewInt(1)))
			}
			return Item{Kind: Decimal, Text: n.String()}, nil
		}
		n := int64(arg)
		if major == 1 {
			n = -1 - n
		}
		return Item{Kind: Int, Int: n}, nil
	case 2, 3:
		b, err := r.bytes(arg)
		if major == 3 {
			return Item{Kind: Text, Text: string(b)}, err
		}
		return Item{Kind: Bytes, Text: string(b)}, err
	case 4, 5:
		return r.composite(major, arg)
	case 6:
		return r.tagged(arg)
	}
	switch info {
	case 20, 21:
		return Item{Kind: Bool, Yes: info == 21}, nil
	case 22, 23:
		return Item{}, nil
	case 25:
		return float(half(uint16(arg))), nil
	case 26:
		return float(float64(math.Float32frombits(uint32(arg)))), nil
	case 27:
		return float(math.Float64frombits(arg)), nil
	}
	return Item{}, ErrForm
}

func float(f float64) Item {
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return Item{Kind: Int, Int: int64(f)}
	}
	return Item{Kind: Decimal, Text: strconv.FormatFloat(f, 'g', -1, 64)}
}

// half reads a float of 16 bits (RFC 8949, appendix D).
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

// composite finds where a List or Map ends.
func (r *Reader) composite(major byte, n uint64) (Item, error) {
	if n > uint64(len(r.b)) {
		return Item{}, ErrForm
	}
	it := Item{Kind: List, Len: int(n), body: r.b, deep: r.depth}
	if major == 5 {
		it.Kind = Map
	}
	for range n {
		if major == 5 {
			if _, err := r.Name(); err != nil {
				return Item{}, err
			}
		}
		if _, err := r.Item(); err != nil {
			return Item{}, err
		}
	}
	it.body = it.body[:len(it.body)-len(r.b)]
	return it, nil
}

func (r *Reader) tagged(tag uint64) (Item, error) {
	switch tag {
	case 2, 3:
		it, err := r.Item()
		if err != nil || it.Kind != Bytes {
			return Item{}, ErrForm
		}
		n := new(big.Int).SetBytes([]byte(it.Text))
		if tag == 3 {
			n.Neg(n.Add(n, big.NewInt(1)))
		}
		return Item{Kind: Decimal, Text: n.String()}, nil
	case 4:
		major, n, _, err := r.head()
		if err != nil || major != 4 || n != 2 {
			return Item{}, ErrForm
		}
		exp, err := r.Item()
		if err != nil || exp.Kind != Int {
			return Item{}, ErrForm
		}
		m, err := r.Item()
		if err != nil || m.Kind != Int && m.Kind != Decimal {
			return Item{}, ErrForm
		}
		return Item{Kind: Decimal, Text: m.Digits() + "e" + strconv.FormatInt(exp.Int, 10)}, nil
	}
	return r.Item()
}

// Digits is an Int or a Decimal as text.
func (it *Item) Digits() string {
	if it.Kind == Int {
		return strconv.FormatInt(it.Int, 10)
	}
	return it.Text
}

// Any gives an item as AppendAny takes it. A Map that has a name twice is an error.
func (it *Item) Any() (any, error) {
	switch it.Kind {
	case Bool:
		return it.Yes, nil
	case Int:
		return it.Int, nil
	case Decimal:
		return Number(it.Text), nil
	case Text:
		return it.Text, nil
	case Bytes:
		return []byte(it.Text), nil
	case List:
		r := it.Items()
		out := make([]any, it.Len)
		for i := range out {
			x, err := r.Item()
			if err == nil {
				out[i], err = x.Any()
			}
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	case Map:
		r := it.Items()
		return r.columns(it.Len)
	}
	return nil, nil
}

func (r *Reader) columns(n int) (map[string]any, error) {
	out := make(map[string]any, n)
	for range n {
		name, err := r.Name()
		if err != nil {
			return nil, err
		}
		if _, twice := out[name]; twice {
			return nil, ErrForm
		}
		it, err := r.Item()
		if err == nil {
			out[name], err = it.Any()
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Decode reads a whole payload, as Encode takes it.
func Decode(raw []byte) (map[string]any, error) {
	r, n, err := Open(raw)
	if err != nil {
		return nil, err
	}
	out, err := r.columns(n)
	if err == nil && r.More() {
		err = ErrForm
	}
	return out, err
}

// Encode writes a whole payload: see AppendAny for what a value may be.
func Encode(row map[string]any) ([]byte, error) { return AppendAny(nil, row) }
