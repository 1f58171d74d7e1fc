package lattice

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"unicode/utf8"
)

// Major types and tags of RFC 8949, section 3, that are used here.
const (
	cborUint  = 0
	cborNint  = 1
	cborBytes = 2
	cborText  = 3
	cborArray = 4
	cborMap   = 5
	cborTag   = 6
	cborOther = 7

	tagPosBig  = 2   // section 3.4.3
	tagNegBig  = 3   // section 3.4.3
	tagDecimal = 4   // section 3.4.4
	tagSet     = 258 // IANA registry of CBOR tags

	cborFalse     = 20
	cborTrue      = 21
	cborNull      = 22
	cborUndefined = 23
)

func appendHead(dst []byte, major byte, arg uint64) []byte {
	major <<= 5
	switch {
	case arg < 24:
		return append(dst, major|byte(arg))
	case arg <= math.MaxUint8:
		return append(dst, major|24, byte(arg))
	case arg <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(arg))
	case arg <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(arg))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), arg)
}

// AppendUint appends an unsigned integer as CBOR.
func AppendUint(dst []byte, n uint64) []byte { return appendHead(dst, cborUint, n) }

// AppendArray appends the head of an array of n items as CBOR.
func AppendArray(dst []byte, n int) []byte { return appendHead(dst, cborArray, uint64(n)) }

// AppendInt appends an integer as CBOR.
func AppendInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendHead(dst, cborNint, uint64(^n))
	}
	return appendHead(dst, cborUint, uint64(n))
}

// AppendText appends UTF-8 text as CBOR.
func AppendText(dst []byte, s string) []byte {
	return append(appendHead(dst, cborText, uint64(len(s))), s...)
}

// AppendBytes appends bytes as CBOR.
func AppendBytes(dst, b []byte) []byte {
	return append(appendHead(dst, cborBytes, uint64(len(b))), b...)
}

// appendBig follows the preferred serialization of bignums: what fits a plain integer is one.
func appendBig(dst []byte, n *big.Int) []byte {
	major, tag, m := byte(cborUint), uint64(tagPosBig), n
	if n.Sign() < 0 {
		major, tag, m = cborNint, tagNegBig, new(big.Int).Not(n)
	}
	if m.IsUint64() {
		return appendHead(dst, major, m.Uint64())
	}
	return AppendBytes(appendHead(dst, cborTag, tag), m.Bytes())
}

// AppendCBOR appends v in deterministic CBOR (RFC 8949, section 4.2.1), so that equal values have equal bytes. Decimals
// are decimal fractions (tag 4), sets are arrays of tag 258 in the order of Compare. An absent value is undefined.
func (v Value) AppendCBOR(dst []byte) []byte {
	switch v.kind {
	case NullKind:
		return append(dst, cborOther<<5|cborNull)
	case BoolKind:
		return append(dst, cborOther<<5|cborFalse+byte(v.num))
	case IntKind:
		return AppendInt(dst, v.num)
	case DecimalKind:
		dst = appendHead(dst, cborTag, tagDecimal)
		dst = appendHead(dst, cborArray, 2)
		dst = AppendInt(dst, int64(v.exp))
		return appendCoefficient(dst, v)
	case StringKind:
		return AppendText(dst, v.raw())
	case BytesKind:
		return append(appendHead(dst, cborBytes, uint64(v.num)), v.raw()...)
	case ListKind, SetKind:
		if v.kind == SetKind {
			dst = appendHead(dst, cborTag, tagSet)
		}
		dst = appendHead(dst, cborArray, uint64(v.num))
		for _, item := range v.Items() {
			dst = item.AppendCBOR(dst)
		}
		return dst
	case ObjectKind:
		members := v.Members()
		dst = appendHead(dst, cborMap, uint64(len(members)))
		// Keys are in the order of their encoding, which puts shorter ones first.
		var room [16]uint16
		order := room[:0]
		if len(members) > math.MaxUint16 {
			return appendLargeMap(dst, members)
		}
		for i := range members {
			order = append(order, uint16(i))
		}
		slices.SortFunc(order, func(a, b uint16) int { return compareKeys(members[a].Name, members[b].Name) })
		for _, i := range order {
			dst = members[i].Value.AppendCBOR(AppendText(dst, members[i].Name))
		}
		return dst
	}
	return append(dst, cborOther<<5|cborUndefined)
}

func appendLargeMap(dst []byte, members []Member) []byte {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return compareKeys(a.Name, b.Name) })
	for _, m := range members {
		dst = m.Value.AppendCBOR(AppendText(dst, m.Name))
	}
	return dst
}

func compareKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// NewReader reads b, which it never changes.
func NewReader(b []byte) *Reader { return &Reader{b: b} }

// ParseCBOR reads one whole value that AppendCBOR wrote. It refuses every other encoding, also of the same value.
func ParseCBOR(b []byte) (Value, error) {
	r := Reader{b: b}
	v := r.Value()
	if err := r.End(); err != nil {
		return Value{}, err
	}
	return v, nil
}

// A Reader reads deterministic CBOR item by item. The first mistake sticks: what is read after it is zero, and End
// reports it. No count it returns is beyond what its data has room for.
type Reader struct {
	b     []byte
	i     int
	err   error
	depth int
}

// Pos is how many bytes have been read.
func (r *Reader) Pos() int { return r.i }

// Fail notes a mistake at the present place, unless there was one before.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: CBOR, byte %d: %s", ErrInvalid, r.i, fmt.Sprintf(format, args...))
		r.i = len(r.b)
	}
}

// End reports the first mistake, or that something is left over.
func (r *Reader) End() error {
	if r.err == nil && r.i != len(r.b) {
		r.Fail("something behind the end")
	}
	return r.err
}

func (r *Reader) head() (major byte, arg uint64) {
	if r.i >= len(r.b) {
		r.Fail("the data ends too early")
		return cborOther, cborUndefined
	}
	c := r.b[r.i]
	major, info := c>>5, c&31
	r.i++
	if info < 24 {
		return major, uint64(info)
	}
	size := 1 << (info - 24)
	if info > 27 || len(r.b)-r.i < size {
		r.Fail("a malformed head")
		return cborOther, cborUndefined
	}
	for _, c := range r.b[r.i : r.i+size] {
		arg = arg<<8 | uint64(c)
	}
	r.i += size
	if size == 1 && arg < 24 || size > 1 && arg>>(size*4) == 0 {
		r.Fail("a head that is longer than needed")
		return cborOther, cborUndefined
	}
	return major, arg
}

func (r *Reader) want(major byte) uint64 {
	got, arg := r.head()
	if got != major {
		r.Fail("major type %d instead of %d", got, major)
		return 0
	}
	return arg
}

// Uint reads an unsigned integer.
func (r *Reader) Uint() uint64 { return r.want(cborUint) }

// Count reads the head of an array and gives its length. Each item takes at least size bytes, so that a short message can't announce
// a long one.
func (r *Reader) Count(size int) int {
	n := r.want(cborArray)
	if n > uint64((len(r.b)-r.i)/size) {
		r.Fail("it announces %d items and has no room for them", n)
		return 0
	}
	return int(n)
}

// Array reads the head of an array that must have n items.
func (r *Reader) Array(n int) {
	if got := r.Count(1); got != n {
		r.Fail("an array of %d instead of %d", got, n)
	}
}

// Int reads an integer that fits 64 bits.
func (r *Reader) Int() int64 {
	major, arg := r.head()
	switch {
	case arg <= math.MaxInt64 && major == cborUint:
		return int64(arg)
	case arg <= math.MaxInt64 && major == cborNint:
		return ^int64(arg)
	}
	r.Fail("not a 64-bit integer")
	return 0
}

func (r *Reader) take(n uint64) []byte {
	if n > uint64(len(r.b)-r.i) {
		r.Fail("the data ends too early")
		return nil
	}
	b := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return b
}

// Bytes reads bytes. The result shares the message's memory.
func (r *Reader) Bytes() []byte { return r.take(r.want(cborBytes)) }

// Fixed reads bytes that are as many as into has.
func (r *Reader) Fixed(into []byte) {
	b := r.Bytes()
	if len(b) != len(into) {
		r.Fail("%d bytes instead of %d", len(b), len(into))
		return
	}
	copy(into, b)
}

// Text reads text, which is UTF-8.
func (r *Reader) Text() string { return r.textOf(r.want(cborText)) }

func (r *Reader) textOf(n uint64) string {
	b := r.take(n)
	if !utf8.Valid(b) {
		r.Fail("text that is not UTF-8")
		return ""
	}
	return string(b)
}

// Value reads a value; undefined, at the top, is the absent one.
func (r *Reader) Value() Value {
	major, arg := r.head()
	if r.err != nil {
		return Value{}
	}
	return r.valueOf(major, arg)
}

func (r *Reader) valueOf(major byte, arg uint64) Value {
	switch major {
	case cborUint, cborNint:
		if arg > math.MaxInt64 {
			r.Fail("an integer beyond 64 bits")
			return Value{}
		}
		if major == cborNint {
			return Int(^int64(arg))
		}
		return Int(int64(arg))
	case cborBytes:
		b := r.take(arg)
		if r.err != nil {
			return Value{}
		}
		return Bytes(b)
	case cborText:
		return String(r.textOf(arg))
	case cborArray:
		return sequence(ListKind, r.items(arg))
	case cborMap:
		return r.object(arg)
	case cborTag:
		switch arg {
		case tagDecimal:
			return r.decimal()
		case tagSet:
			items := r.items(r.want(cborArray))
			for i := 1; i < len(items); i++ {
				if Compare(items[i-1], items[i]) >= 0 {
					r.Fail("a set out of order")
				}
			}
			return sequence(SetKind, items)
		}
		r.Fail("unknown tag %d", arg)
		return Value{}
	}
	switch arg {
	case cborFalse, cborTrue:
		return Bool(arg == cborTrue)
	case cborNull:
		return Null()
	case cborUndefined:
		if r.depth == 0 {
			return Value{}
		}
	}
	r.Fail("a simple value or float")
	return Value{}
}

func (r *Reader) enter(n uint64, size int) bool {
	if r.depth == MaxDepth {
		if r.err == nil {
			r.err = errDepth
		}
		return false
	}
	if n > uint64((len(r.b)-r.i)/size) {
		r.Fail("it announces %d items and has no room for them", n)
		return false
	}
	r.depth++
	return true
}

func (r *Reader) items(n uint64) []Value {
	if !r.enter(n, 1) {
		return nil
	}
	defer func() { r.depth-- }()
	// Room grows with what is really there: a Value is larger than the byte that announces it.
	items := make([]Value, 0, min(n, 64))
	for range n {
		items = append(items, r.Value())
		if r.err != nil {
			return nil
		}
	}
	return items
}

func (r *Reader) object(n uint64) Value {
	if !r.enter(n, 2) {
		return Value{}
	}
	defer func() { r.depth-- }()
	members := make([]Member, 0, min(n, 64))
	for i := range n {
		name := r.Text()
		if i > 0 && r.err == nil && compareKeys(members[i-1].Name, name) >= 0 {
			r.Fail("a map's keys out of order")
		}
		v := r.Value()
		if r.err != nil {
			return Value{}
		}
		members = append(members, Member{Name: name, Value: v})
	}
	return Object(members...)
}

func (r *Reader) decimal() Value {
	r.Array(2)
	exp := r.Int()
	start := r.i
	major, arg := r.head()
	if r.err != nil {
		return Value{}
	}
	if exp < -maxExponent || exp > maxExponent {
		r.Fail("a decimal with an exponent out of range")
		return Value{}
	}
	coef := new(big.Int)
	switch {
	case major == cborUint || major == cborNint:
		coef.SetUint64(arg)
	case major == cborTag && (arg == tagPosBig || arg == tagNegBig):
		n := r.want(cborBytes)
		if n > 64 { // 100 digits take 42 bytes
			r.Fail("a decimal with too many digits")
			return Value{}
		}
		coef.SetBytes(r.take(n))
	default:
		r.Fail("a decimal without a coefficient")
		return Value{}
	}
	if major == cborNint || major == cborTag && arg == tagNegBig {
		coef.Not(coef)
	}
	read := r.b[start:r.i]
	v, err := normal(coef, int(exp))
	if err != nil || r.err != nil {
		r.Fail("%v", err)
		return Value{}
	}
	var room [64]byte
	if v.kind != DecimalKind || int64(v.exp) != exp || string(appendCoefficient(room[:0], v)) != string(read) {
		r.Fail("a decimal that is not normalised")
		return Value{}
	}
	return v
}

func appendCoefficient(dst []byte, v Value) []byte {
	if v.ptr == nil {
		return AppendInt(dst, v.num)
	}
	return appendBig(dst, v.big())
}
