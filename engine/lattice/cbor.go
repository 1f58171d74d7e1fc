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

func appendInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendHead(dst, cborNint, uint64(^n))
	}
	return appendHead(dst, cborUint, uint64(n))
}

func appendText(dst []byte, s string) []byte {
	return append(appendHead(dst, cborText, uint64(len(s))), s...)
}

func appendBytes(dst, b []byte) []byte {
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
	return appendBytes(appendHead(dst, cborTag, tag), m.Bytes())
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
		return appendInt(dst, v.num)
	case DecimalKind:
		dst = appendHead(dst, cborTag, tagDecimal)
		dst = appendHead(dst, cborArray, 2)
		dst = appendInt(dst, int64(v.exp))
		return appendCoefficient(dst, v)
	case StringKind:
		return appendText(dst, v.raw())
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
			dst = members[i].Value.AppendCBOR(appendText(dst, members[i].Name))
		}
		return dst
	}
	return append(dst, cborOther<<5|cborUndefined)
}

func appendLargeMap(dst []byte, members []Member) []byte {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int { return compareKeys(a.Name, b.Name) })
	for _, m := range members {
		dst = m.Value.AppendCBOR(appendText(dst, m.Name))
	}
	return dst
}

func compareKeys(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// ParseCBOR reads one whole value that AppendCBOR wrote. It refuses every other encoding, also of the same value.
func ParseCBOR(b []byte) (Value, error) {
	r := reader{b: b}
	v := r.value()
	if err := r.end(); err != nil {
		return Value{}, err
	}
	return v, nil
}

// A reader reads deterministic CBOR. The first mistake sticks: what is read after it is zero, and end reports it.
type reader struct {
	b     []byte
	i     int
	err   error
	depth int
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: CBOR, byte %d: %s", ErrInvalid, r.i, fmt.Sprintf(format, args...))
		r.i = len(r.b)
	}
}

// end reports the first mistake, or that something is left over.
func (r *reader) end() error {
	if r.err == nil && r.i != len(r.b) {
		r.fail("something behind the end")
	}
	return r.err
}

func (r *reader) more() bool { return r.err == nil && r.i < len(r.b) }

func (r *reader) head() (major byte, arg uint64) {
	if r.i >= len(r.b) {
		r.fail("the data ends too early")
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
		r.fail("a malformed head")
		return cborOther, cborUndefined
	}
	for _, c := range r.b[r.i : r.i+size] {
		arg = arg<<8 | uint64(c)
	}
	r.i += size
	if size == 1 && arg < 24 || size > 1 && arg>>(size*4) == 0 {
		r.fail("a head that is longer than needed")
		return cborOther, cborUndefined
	}
	return major, arg
}

func (r *reader) want(major byte) uint64 {
	got, arg := r.head()
	if got != major {
		r.fail("major type %d instead of %d", got, major)
		return 0
	}
	return arg
}

func (r *reader) uint() uint64 { return r.want(cborUint) }

// count reads the head of an array or map. Each item takes at least size bytes, so that a short message can't announce
// a long one.
func (r *reader) count(major byte, size int) int {
	n := r.want(major)
	if n > uint64((len(r.b)-r.i)/size) {
		r.fail("it announces %d items and has no room for them", n)
		return 0
	}
	return int(n)
}

func (r *reader) array(n int) {
	if got := r.count(cborArray, 1); got != n {
		r.fail("an array of %d instead of %d", got, n)
	}
}

func (r *reader) int() int64 {
	major, arg := r.head()
	switch {
	case arg <= math.MaxInt64 && major == cborUint:
		return int64(arg)
	case arg <= math.MaxInt64 && major == cborNint:
		return ^int64(arg)
	}
	r.fail("not a 64-bit integer")
	return 0
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)-r.i) {
		r.fail("the data ends too early")
		return nil
	}
	b := r.b[r.i : r.i+int(n)]
	r.i += int(n)
	return b
}

// bytes shares the message's memory.
func (r *reader) bytes() []byte { return r.take(r.want(cborBytes)) }

func (r *reader) text() string { return r.textOf(r.want(cborText)) }

func (r *reader) textOf(n uint64) string {
	b := r.take(n)
	if !utf8.Valid(b) {
		r.fail("text that is not UTF-8")
		return ""
	}
	return string(b)
}

// value reads a value; undefined, at the top, is the absent one.
func (r *reader) value() Value {
	major, arg := r.head()
	if r.err != nil {
		return Value{}
	}
	return r.valueOf(major, arg)
}

func (r *reader) valueOf(major byte, arg uint64) Value {
	switch major {
	case cborUint, cborNint:
		if arg > math.MaxInt64 {
			r.fail("an integer beyond 64 bits")
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
					r.fail("a set out of order")
				}
			}
			return sequence(SetKind, items)
		}
		r.fail("unknown tag %d", arg)
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
	r.fail("a simple value or float")
	return Value{}
}

func (r *reader) enter(n uint64, size int) bool {
	if r.depth == MaxDepth {
		if r.err == nil {
			r.err = errDepth
		}
		return false
	}
	if n > uint64((len(r.b)-r.i)/size) {
		r.fail("it announces %d items and has no room for them", n)
		return false
	}
	r.depth++
	return true
}

func (r *reader) items(n uint64) []Value {
	if !r.enter(n, 1) {
		return nil
	}
	defer func() { r.depth-- }()
	// Room grows with what is really there: a Value is larger than the byte that announces it.
	items := make([]Value, 0, min(n, 64))
	for range n {
		items = append(items, r.value())
		if r.err != nil {
			return nil
		}
	}
	return items
}

func (r *reader) object(n uint64) Value {
	if !r.enter(n, 2) {
		return Value{}
	}
	defer func() { r.depth-- }()
	members := make([]Member, 0, min(n, 64))
	for i := range n {
		name := r.text()
		if i > 0 && r.err == nil && compareKeys(members[i-1].Name, name) >= 0 {
			r.fail("a map's keys out of order")
		}
		v := r.value()
		if r.err != nil {
			return Value{}
		}
		members = append(members, Member{Name: name, Value: v})
	}
	return Object(members...)
}

func (r *reader) decimal() Value {
	r.array(2)
	exp := r.int()
	start := r.i
	major, arg := r.head()
	if r.err != nil {
		return Value{}
	}
	if exp < -maxExponent || exp > maxExponent {
		r.fail("a decimal with an exponent out of range")
		return Value{}
	}
	coef := new(big.Int)
	switch {
	case major == cborUint || major == cborNint:
		coef.SetUint64(arg)
	case major == cborTag && (arg == tagPosBig || arg == tagNegBig):
		n := r.want(cborBytes)
		if n > 64 { // 100 digits take 42 bytes
			r.fail("a decimal with too many digits")
			return Value{}
		}
		coef.SetBytes(r.take(n))
	default:
		r.fail("a decimal without a coefficient")
		return Value{}
	}
	if major == cborNint || major == cborTag && arg == tagNegBig {
		coef.Not(coef)
	}
	read := r.b[start:r.i]
	v, err := normal(coef, int(exp))
	if err != nil || r.err != nil {
		r.fail("%v", err)
		return Value{}
	}
	var room [64]byte
	if v.kind != DecimalKind || int64(v.exp) != exp || string(appendCoefficient(room[:0], v)) != string(read) {
		r.fail("a decimal that is not normalised")
		return Value{}
	}
	return v
}

func appendCoefficient(dst []byte, v Value) []byte {
	if v.ptr == nil {
		return appendInt(dst, v.num)
	}
	return appendBig(dst, v.big())
}
