// Package ldapwire is LDAP's messages as bytes (RFC 4511): a reader of frames, and what stands in
// them. It is the Basic Encoding Rules as section 5.1 of it restricts them, and no more of ASN.1.
//
// What is decoded shares the memory of the bytes it was decoded from; nothing is allocated ahead of
// what is there, and the depth of what nests is limited.
package ldapwire

import (
	"errors"
	"fmt"
	"math"
)

// Identifier octets (X.690, section 8.1.2). LDAP has no tag beyond 30, so each is one byte.
const (
	tagBoolean     = 0x01
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagNull        = 0x05
	tagEnumerated  = 0x0a
	tagSequence    = 0x30
	tagSet         = 0x31

	constructed = 0x20
	context     = 0x80
)

// ErrMalformed is wrapped by every error of this package that says that bytes are no LDAP.
var ErrMalformed = errors.New("not LDAP")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// errShort: the bytes end before what they announce.
var errShort = malformed("it ends too early")

// maxNested bounds filters in filters.
const maxNested = 100

// header reads one identifier and its length. Of b it needs two to ten bytes; n is the size of the
// header, size that of the contents. False: more bytes are wanted.
func header(b []byte) (tag byte, n int, size int64, ok bool, err error) {
	if len(b) < 2 {
		return 0, 0, 0, false, nil
	}
	tag = b[0]
	if tag&0x1f == 0x1f {
		return tag, 0, 0, false, malformed("a tag of several bytes")
	}
	l := b[1]
	if l < 0x80 {
		return tag, 2, int64(l), true, nil
	}
	if l == 0x80 {
		return tag, 0, 0, false, malformed("an indefinite length, which RFC 4511 excludes (section 5.1)")
	}
	k := int(l & 0x7f)
	if k > 8 {
		return tag, 0, 0, false, malformed("a length of %d bytes", k)
	}
	if len(b) < 2+k {
		return tag, 0, 0, false, nil
	}
	var v uint64
	for _, c := range b[2 : 2+k] {
		v = v<<8 | uint64(c)
	}
	if v > math.MaxInt64-16 {
		return tag, 0, 0, false, malformed("a length of %d bytes", v)
	}
	return tag, 2 + k, int64(v), true, nil
}

// A reader walks through the elements of one constructed value.
type reader struct{ b []byte }

func (r *reader) empty() bool { return len(r.b) == 0 }

// peek gives the tag of the next element, 0 at the end.
func (r *reader) peek() byte {
	if len(r.b) == 0 {
		return 0
	}
	return r.b[0]
}

// next takes one element, whatever it is.
func (r *reader) next() (tag byte, contents []byte, err error) {
	tag, n, size, ok, err := header(r.b)
	if err != nil {
		return 0, nil, err
	}
	if !ok || int64(len(r.b)-n) < size {
		return 0, nil, errShort
	}
	end := n + int(size)
	contents = r.b[n:end:end]
	r.b = r.b[end:]
	return tag, contents, nil
}

// take takes one element of this tag.
func (r *reader) take(want byte, what string) ([]byte, error) {
	tag, c, err := r.next()
	if err == nil && tag != want {
		return nil, malformed("%s has the tag %#x, not %#x", what, tag, want)
	}
	return c, err
}

// maybe takes an element of this tag if it is the next.
func (r *reader) maybe(want byte) (contents []byte, there bool, err error) {
	if r.peek() != want || r.empty() {
		return nil, false, nil
	}
	_, contents, err = r.next()
	return contents, err == nil, err
}

func (r *reader) bytes(what string) ([]byte, error) { return r.take(tagOctetString, what) }

func (r *reader) text(what string) (string, error) {
	b, err := r.take(tagOctetString, what)
	return string(b), err
}

func (r *reader) int(what string) (int64, error) {
	b, err := r.take(tagInteger, what)
	if err != nil {
		return 0, err
	}
	return integer(b, what)
}

func (r *reader) enum(what string) (int64, error) {
	b, err := r.take(tagEnumerated, what)
	if err != nil {
		return 0, err
	}
	return integer(b, what)
}

func (r *reader) bool(what string) (bool, error) {
	b, err := r.take(tagBoolean, what)
	if err != nil {
		return false, err
	}
	return boolean(b, what)
}

// sequence takes a SEQUENCE and gives a reader of what is in it.
func (r *reader) sequence(what string) (reader, error) {
	c, err := r.take(tagSequence, what)
	return reader{c}, err
}

func (r *reader) set(what string) (reader, error) {
	c, err := r.take(tagSet, what)
	return reader{c}, err
}

func integer(b []byte, what string) (int64, error) {
	if len(b) == 0 || len(b) > 8 {
		return 0, malformed("%s is an integer of %d bytes", what, len(b))
	}
	v := int64(int8(b[0]))
	for _, c := range b[1:] {
		v = v<<8 | int64(c)
	}
	return v, nil
}

// boolean takes any byte but 0 for TRUE, as servers do, though RFC 4511 wants 255 (section 5.1).
func boolean(b []byte, what string) (bool, error) {
	if len(b) != 1 {
		return false, malformed("%s is a boolean of %d bytes", what, len(b))
	}
	return b[0] != 0, nil
}

// AppendTLV appends one element: its identifier octet, its length in the shortest form, its contents.
func AppendTLV(b []byte, tag byte, contents []byte) []byte {
	return append(appendHeader(b, tag, len(contents)), contents...)
}

func appendHeader(b []byte, tag byte, size int) []byte {
	b = append(b, tag)
	if size < 0x80 {
		return append(b, byte(size))
	}
	n := lengthBytes(size)
	b = append(b, 0x80|byte(n))
	for i := n - 1; i >= 0; i-- {
		b = append(b, byte(size>>(8*i)))
	}
	return b
}

func lengthBytes(size int) int {
	n := 1
	for size >>= 8; size > 0; size >>= 8 {
		n++
	}
	return n
}

func appendString(b []byte, tag byte, s string) []byte {
	return append(appendHeader(b, tag, len(s)), s...)
}

func appendInt(b []byte, tag byte, v int64) []byte {
	n := 1
	for x := v; x > 127 || x < -128; x >>= 8 {
		n++
	}
	b = append(b, tag, byte(n))
	for i := n - 1; i >= 0; i-- {
		b = append(b, byte(v>>(8*i)))
	}
	return b
}

func appendBool(b []byte, tag byte, v bool) []byte {
	if v {
		return append(b, tag, 1, 0xff)
	}
	return append(b, tag, 1, 0)
}

// nest appends one constructed element, whose contents fill appends. The length is put in
// afterwards, so that nothing is encoded twice.
func nest(b []byte, tag byte, fill func([]byte) []byte) []byte {
	at := len(b)
	b = append(b, tag, 0)
	b = fill(b)
	size := len(b) - at - 2
	if size < 0x80 {
		b[at+1] = byte(size)
		return b
	}
	n := lengthBytes(size)
	var room [8]byte
	b = append(b, room[:n]...)
	copy(b[at+2+n:], b[at+2:at+2+size])
	b[at+1] = 0x80 | byte(n)
	for i := range n {
		b[at+2+i] = byte(size >> (8 * (n - 1 - i)))
	}
	return b
}
