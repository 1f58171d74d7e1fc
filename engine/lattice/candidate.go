package lattice

import (
	"crypto/sha256"
	"fmt"
	"slices"
)

// Existence is the field whose entries say that a register exists. Every write puts it, a delete removes what it saw of
// it. No field that carries a value can have this name: those are UTF-8.
const Existence = "\xff"

// A QCandidate is one write, not yet resolved. Nothing changes it once it has a dot.
type QCandidate struct {
	Dot  Dot
	Prev Hash  // of the origin's candidate before it; zero for seq 1
	Deps []Dot // the writer's vector where it changed since its candidate before; by origin, never its own
	Time Stamp
	// Ops are grouped by register. Within one they are in field order, one for each field at most.
	Ops   []Op
	Cause Cause
}

// A Hash is SHA-256 over a candidate's encoding. Each candidate carries its predecessor's: equal dots with unequal
// hashes prove that somebody cloned an origin.
type Hash [sha256.Size]byte

// An Op is one operation of a candidate on one field.
type Op struct {
	Register string
	Kind     OpKind
	Field    string // "" for the value of a register without fields, or Existence
	Value    Value  // of a Put; absent where Field is Existence
	Seen     []Dot  // the entries of the field that the writer had seen, in order: the op removes them
}

// OpKind is what an Op does besides removing what its writer had seen.
type OpKind uint8

// The kinds of Op.
const (
	Put    OpKind = 1 // adds an entry
	Remove OpKind = 2 // adds nothing
)

// A Cause says who did it, and through what. All but Verified may be empty.
type Cause struct {
	Principal string // the user's name, or wrapper/name
	Verified  bool   // somebody checked that it was them
	Protocol  string
	Wrapper   string
	Peer      string // its network address
	Verb      string
	Server    string // key of the upstream, where a wrapper has several
	Address   string // in the protocol's own form
	Source    string // file:line of the mapping
}

const candidateVersion = 1

// AppendCBOR appends c's canonical encoding. Equal candidates have equal bytes.
func (c *QCandidate) AppendCBOR(dst []byte) []byte {
	var room [8]OriginID
	origins := append(room[:0], c.Dot.Origin)
	for _, d := range c.Deps {
		origins = append(origins, d.Origin)
	}
	for i := range c.Ops {
		for _, d := range c.Ops[i].Seen {
			if d.Origin != c.Dot.Origin && d.Origin != origins[len(origins)-1] {
				origins = append(origins, d.Origin)
			}
		}
	}
	// Its own comes first, then the others in order.
	if others := origins[1:]; len(others) > 1 {
		slices.SortFunc(others, OriginID.Compare)
		origins = origins[:1+len(slices.Compact(others))]
	}

	dst = AppendArray(dst, 8)
	dst = AppendUint(dst, candidateVersion)
	dst = appendOrigins(dst, origins)
	dst = AppendUint(dst, c.Dot.Seq)
	dst = AppendBytes(dst, c.Prev[:])
	dst = appendDots(dst, origins, c.Deps)
	dst = AppendUint(dst, uint64(c.Time))
	groups := 0
	for i := range c.Ops {
		if i == 0 || c.Ops[i].Register != c.Ops[i-1].Register {
			groups++
		}
	}
	dst = AppendArray(dst, 2*groups)
	for i := 0; i < len(c.Ops); {
		n := 1
		for i+n < len(c.Ops) && c.Ops[i+n].Register == c.Ops[i].Register {
			n++
		}
		dst = AppendText(dst, c.Ops[i].Register)
		dst = AppendArray(dst, 4*n)
		for _, op := range c.Ops[i : i+n] {
			dst = AppendUint(dst, uint64(op.Kind))
			dst = appendFieldName(dst, op.Field)
			dst = appendDots(dst, origins, op.Seen)
			dst = op.Value.AppendCBOR(dst)
		}
		i += n
	}
	return c.Cause.AppendCBOR(dst)
}

// ParseCandidate reads what AppendCBOR wrote, and nothing else.
func ParseCandidate(b []byte) (*QCandidate, error) {
	r := NewReader(b)
	c := new(QCandidate)
	r.Array(8)
	if v := r.Uint(); v != candidateVersion {
		r.Fail("a candidate of version %d; this program knows %d", v, candidateVersion)
	}
	origins := readOrigins(r)
	if r.err == nil && (len(origins) == 0 || !ascending(origins[1:]) || slices.Contains(origins[1:], origins[0])) {
		r.Fail("a candidate's origins out of order")
	}
	used := make([]bool, len(origins))
	c.Dot.Seq = r.Uint()
	if prev := r.Bytes(); r.err == nil {
		if len(prev) != len(c.Prev) {
			r.Fail("a hash of %d bytes", len(prev))
		}
		copy(c.Prev[:], prev)
	}
	c.Deps = readDots(r, origins, used)
	c.Time = Stamp(r.Uint())
	if r.err == nil {
		c.Dot.Origin, used[0] = origins[0], true
		switch {
		case c.Dot.Seq == 0 || (c.Dot.Seq == 1) != (c.Prev == Hash{}):
			r.Fail("a candidate with seq %d and a predecessor's hash that doesn't fit it", c.Dot.Seq)
		case slices.ContainsFunc(c.Deps, func(d Dot) bool { return d.Origin == c.Dot.Origin }):
			r.Fail("a candidate that depends on its own origin")
		}
	}
	for i := 1; i < len(c.Deps); i++ {
		if c.Deps[i-1].Origin == c.Deps[i].Origin {
			r.Fail("a candidate that depends on one origin twice")
		}
	}
	groups := r.Count(1)
	if groups == 0 || groups%2 != 0 {
		r.Fail("operations that are not in pairs")
	}
	var registers map[string]bool // only of a batch
	for g := 0; g < groups && r.err == nil; g += 2 {
		register := r.Text()
		if groups > 2 {
			if registers == nil {
				registers = make(map[string]bool)
			}
			if registers[register] {
				r.Fail("a register named twice")
			}
			registers[register] = true
		}
		n := r.Count(1)
		if n == 0 || n%4 != 0 {
			r.Fail("operations that are not in fours")
		}
		for i := 0; i < n && r.err == nil; i += 4 {
			op := Op{Register: register, Kind: OpKind(r.Uint()), Field: readFieldName(r), Seen: readDots(r, origins, used), Value: r.Value()}
			if i > 0 && c.Ops[len(c.Ops)-1].Field >= op.Field {
				r.Fail("a register's fields out of order")
			}
			if err := op.check(c.Dot); err != nil && r.err == nil {
				r.Fail("%v", err)
			}
			c.Ops = append(c.Ops, op)
		}
	}
	c.Cause = readCause(r)
	if slices.Contains(used, false) {
		r.Fail("an origin that nothing refers to")
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	return c, nil
}

func (op *Op) check(dot Dot) error {
	switch {
	case op.Kind != Put && op.Kind != Remove:
		return fmt.Errorf("operation of kind %d, which this program doesn't know", op.Kind)
	case op.Value.IsAbsent() != (op.Kind == Remove || op.Field == Existence) || op.Value.Kind() == NullKind:
		return fmt.Errorf("operation of kind %d with a value that is %s", op.Kind, op.Value.Kind())
	case slices.ContainsFunc(op.Seen, func(d Dot) bool { return d.Origin == dot.Origin && d.Seq >= dot.Seq }):
		return fmt.Errorf("operation that has seen its own future")
	}
	return nil
}

// AppendCBOR appends the cause as CBOR.
func (c *Cause) AppendCBOR(dst []byte) []byte {
	dst = AppendArray(dst, 9)
	verified := uint64(0)
	if c.Verified {
		verified = 1
	}
	dst = AppendUint(dst, verified)
	for _, s := range [...]string{c.Principal, c.Protocol, c.Wrapper, c.Peer, c.Verb, c.Server, c.Address, c.Source} {
		dst = AppendText(dst, s)
	}
	return dst
}

// ReadCause reads what Cause.AppendCBOR wrote.
func ReadCause(r *Reader) Cause { return readCause(r) }

func readCause(r *Reader) Cause {
	var c Cause
	r.Array(9)
	switch r.Uint() {
	case 0:
	case 1:
		c.Verified = true
	default:
		r.Fail("neither verified nor not")
	}
	for _, s := range [...]*string{&c.Principal, &c.Protocol, &c.Wrapper, &c.Peer, &c.Verb, &c.Server, &c.Address, &c.Source} {
		*s = r.Text()
	}
	return c
}

func ascending(origins []OriginID) bool {
	for i := 1; i < len(origins); i++ {
		if origins[i-1].Compare(origins[i]) >= 0 {
			return false
		}
	}
	return true
}

// Dots are written as pairs of an index into a table of origins and a seq, since most are of very few origins.

func appendOrigins(dst []byte, origins []OriginID) []byte {
	dst = appendHead(dst, cborBytes, uint64(len(origins))*16)
	for i := range origins {
		dst = append(dst, origins[i][:]...)
	}
	return dst
}

func readOrigins(r *Reader) []OriginID {
	b := r.Bytes()
	if len(b)%16 != 0 {
		r.Fail("origins of %d bytes", len(b))
		return nil
	}
	origins := make([]OriginID, len(b)/16)
	for i := range origins {
		copy(origins[i][:], b[i*16:])
	}
	return origins
}

func originIndex(origins []OriginID, o OriginID) int {
	if origins[0] == o {
		return 0
	}
	// All but the first are in order, in a register's context the first as well.
	i, _ := slices.BinarySearchFunc(origins[1:], o, OriginID.Compare)
	return i + 1
}

func appendDots(dst []byte, origins []OriginID, dots []Dot) []byte {
	dst = AppendArray(dst, 2*len(dots))
	for _, d := range dots {
		dst = AppendUint(dst, uint64(originIndex(origins, d.Origin)))
		dst = AppendUint(dst, d.Seq)
	}
	return dst
}

// readDots reads dots in strict order and notes in used, if given, which origins occur.
func readDots(r *Reader, origins []OriginID, used []bool) []Dot {
	n := r.Count(1)
	if n%2 != 0 {
		r.Fail("dots that are not pairs")
	}
	if n < 2 {
		return nil
	}
	dots := make([]Dot, 0, n/2)
	for range n / 2 {
		i, seq := r.Uint(), r.Uint()
		if i >= uint64(len(origins)) || seq == 0 {
			r.Fail("a dot of no known origin, or without seq")
		}
		if r.err != nil {
			return nil
		}
		d := Dot{origins[i], seq}
		if len(dots) > 0 && dots[len(dots)-1].Compare(d) >= 0 {
			r.Fail("dots out of order")
		}
		if used != nil {
			used[i] = true
		}
		dots = append(dots, d)
	}
	return dots
}

func appendFieldName(dst []byte, name string) []byte {
	if name == Existence {
		return append(dst, cborOther<<5|cborNull)
	}
	return AppendText(dst, name)
}

func readFieldName(r *Reader) string {
	if r.i < len(r.b) && r.b[r.i] == cborOther<<5|cborNull {
		r.i++
		return Existence
	}
	return r.Text()
}
