package lattice

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// A QCandidate is one write, not yet resolved. Nothing changes it once it has a dot.
type QCandidate struct {
	Dot  Dot
	Prev Hash  // of the origin's candidate before it; zero for seq 1
	Deps []Dot // the writer's vector where it changed since its candidate before; by origin, never its own
	Time Stamp
	// Intro says whose origin this is; in the first candidate of one, else nil.
	Intro *Intro
	// Ops are grouped by register. Within one they are in field order, one for each field at most.
	Ops   []Op
	Held  []string // registers, in the order of Ops, for which it waits until a marker covers it
	Cause Cause
	by    By // of Cause, once it is known
}

// An Intro names the origin behind a dot.
type Intro struct {
	Origin Origin
	// Before is the last candidate of the endpoint's incarnation before this one, zero for its first. Nothing of that one
	// comes behind it, unless somebody has cloned it.
	Before Dot
}

// A Hash is SHA-256 over a candidate's encoding. Each candidate carries its predecessor's: equal dots with unequal
// hashes prove that somebody cloned an origin.
type Hash [sha256.Size]byte

// An Op is one operation of a candidate on one field.
type Op struct {
	Register string
	Kind     OpKind
	Field    string // "" for the value of a register without fields; Existence, Deletion, an ItemField; Marker of a Collapse
	Value    Value  // of a Put; absent where Field is Existence or Deletion
	Seen     []Dot  // the entries of the field that the writer had seen, in order: the op removes them. Of a Collapse: its cover
}

// OpKind is what an Op does besides removing what its writer had seen.
type OpKind uint8

// The kinds of Op. One of another kind is kept as it is, passed on, and not understood.
const (
	Put      OpKind = 1 // adds an entry
	Remove   OpKind = 2 // adds nothing
	Collapse OpKind = 3 // folds what waits and is covered by the vector in Seen
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
	// RenamedFrom is the register, or the address of many, whose values moved here; "" where nothing was renamed.
	RenamedFrom string
}

const candidateVersion = 2

// Each yields each register that c names, and what it says of it. Nothing of that outlives c.
func (c *QCandidate) Each(yield func(register string, a Arrival) bool) {
	by := c.by
	if by == "" {
		by = c.Cause.By()
	}
	held := c.Held
	for i := 0; i < len(c.Ops); {
		j := i + 1
		for j < len(c.Ops) && c.Ops[j].Register == c.Ops[i].Register {
			j++
		}
		a := Arrival{Dot: c.Dot, Time: c.Time, By: by, Ops: c.Ops[i:j]}
		if len(held) > 0 && held[0] == c.Ops[i].Register {
			a.Held, held = true, held[1:]
		}
		if !yield(c.Ops[i].Register, a) {
			return
		}
		i = j
	}
}

// AppendCBOR appends c's canonical encoding: [version, origins, seq, hash before, deps, time, intro, [register, held,
// [kind, field, seen, value]…]…, cause]. Equal candidates have equal bytes.
func (c *QCandidate) AppendCBOR(dst []byte) []byte {
	var room [8]OriginID
	origins := append(room[:0], c.Dot.Origin)
	for _, d := range c.Deps {
		origins = append(origins, d.Origin)
	}
	if c.Intro != nil && !c.Intro.Before.IsZero() {
		origins = append(origins, c.Intro.Before.Origin)
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
	index := func(o OriginID) int { return originIndex(origins, o) }

	dst = AppendArray(dst, 9)
	dst = AppendUint(dst, candidateVersion)
	dst = appendOrigins(dst, origins)
	dst = AppendUint(dst, c.Dot.Seq)
	dst = AppendBytes(dst, c.Prev[:])
	dst = appendDots(dst, index, c.Deps)
	dst = AppendUint(dst, uint64(c.Time))
	if c.Intro == nil {
		dst = AppendArray(dst, 0)
	} else {
		dst = AppendArray(dst, 3)
		dst = AppendBytes(dst, c.Intro.Origin.Endpoint[:])
		dst = AppendBytes(dst, c.Intro.Origin.Incarnation[:])
		if c.Intro.Before.IsZero() {
			dst = AppendArray(dst, 0)
		} else {
			dst = appendDots(dst, index, []Dot{c.Intro.Before})
		}
	}
	groups := 0
	for i := range c.Ops {
		if i == 0 || c.Ops[i].Register != c.Ops[i-1].Register {
			groups++
		}
	}
	dst = AppendArray(dst, 3*groups)
	held := c.Held
	for i := 0; i < len(c.Ops); {
		n := 1
		for i+n < len(c.Ops) && c.Ops[i+n].Register == c.Ops[i].Register {
			n++
		}
		dst = AppendText(dst, c.Ops[i].Register)
		waits := len(held) > 0 && held[0] == c.Ops[i].Register
		if waits {
			held = held[1:]
		}
		dst = AppendUint(dst, flagBits(waits))
		dst = appendOps(dst, index, c.Ops[i:i+n])
		i += n
	}
	return c.Cause.AppendCBOR(dst)
}

func appendOps(dst []byte, index func(OriginID) int, ops []Op) []byte {
	dst = AppendArray(dst, 4*len(ops))
	for i := range ops {
		op := &ops[i]
		dst = AppendUint(dst, uint64(op.Kind))
		dst = appendFieldName(dst, op.Field)
		dst = appendDots(dst, index, op.Seen)
		dst = op.Value.AppendCBOR(dst)
	}
	return dst
}

func readOps(r *Reader, register string, origins []OriginID, used []bool) []Op {
	n := r.Count(1)
	if n == 0 || n%4 != 0 {
		r.Fail("operations that are not in fours")
		return nil
	}
	ops := make([]Op, 0, min(n/4, 64))
	for i := 0; i < n && r.err == nil; i += 4 {
		kind := r.Uint()
		if kind == 0 || kind > 255 {
			r.Fail("an operation of kind %d", kind)
		}
		op := Op{Register: register, Kind: OpKind(kind), Field: readFieldName(r), Seen: readDots(r, origins, used), Value: r.Value()}
		if len(ops) > 0 && ops[len(ops)-1].Field >= op.Field {
			r.Fail("a register's fields out of order")
		}
		if err := op.check(); err != nil && r.err == nil {
			r.Fail("%v", err)
		}
		ops = append(ops, op)
	}
	return ops
}

// ParseCandidate reads what AppendCBOR wrote, and nothing else.
func ParseCandidate(b []byte) (*QCandidate, error) {
	r := NewReader(b)
	c := new(QCandidate)
	r.Array(9)
	if v := r.Uint(); v != candidateVersion {
		r.Fail("a candidate of version %d; this program knows %d", v, candidateVersion)
	}
	origins := readOrigins(r)
	if r.err == nil && (len(origins) == 0 || !ascending(origins[1:]) || slices.Contains(origins[1:], origins[0])) {
		r.Fail("a candidate's origins out of order")
	}
	used := make([]bool, len(origins))
	c.Dot.Seq = r.Uint()
	readHash(r, c.Prev[:])
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
	c.readIntro(r, origins, used)
	groups := r.Count(1)
	if groups == 0 || groups%3 != 0 {
		r.Fail("operations that are not in threes")
	}
	var registers map[string]bool // only of a batch
	for g := 0; g < groups && r.err == nil; g += 3 {
		register := r.Text()
		if groups > 3 {
			if registers == nil {
				registers = make(map[string]bool)
			}
			if registers[register] {
				r.Fail("a register named twice")
			}
			registers[register] = true
		}
		switch r.Uint() {
		case 0:
		case 1:
			c.Held = append(c.Held, register)
		default:
			r.Fail("neither held nor not")
		}
		ops := readOps(r, register, origins, used)
		for i := range ops {
			if slices.ContainsFunc(ops[i].Seen, func(d Dot) bool { return d.Origin == c.Dot.Origin && d.Seq >= c.Dot.Seq }) {
				r.Fail("an operation that has seen its own future")
			}
		}
		c.Ops = append(c.Ops, ops...)
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

func (c *QCandidate) readIntro(r *Reader, origins []OriginID, used []bool) {
	n := r.Count(1)
	if r.err == nil && (n == 3) != (c.Dot.Seq == 1) || n != 0 && n != 3 {
		r.Fail("only the first candidate of an origin says whose it is")
	}
	if n == 0 {
		return
	}
	c.Intro = new(Intro)
	readHash(r, c.Intro.Origin.Endpoint[:])
	readHash(r, c.Intro.Origin.Incarnation[:])
	if before := readDots(r, origins, used); len(before) > 1 {
		r.Fail("more than one predecessor")
	} else if len(before) == 1 {
		c.Intro.Before = before[0]
	}
	if r.err == nil && (c.Intro.Origin.ID() != c.Dot.Origin || c.Intro.Before.Origin == c.Dot.Origin) {
		r.Fail("an origin that is not the candidate's own")
	}
}

func readHash(r *Reader, into []byte) {
	if b := r.Bytes(); r.err == nil {
		if len(b) != len(into) {
			r.Fail("%d bytes instead of %d", len(b), len(into))
		}
		copy(into, b)
	}
}

func (op *Op) check() error {
	bare := op.Field == Existence || op.Field == Deletion
	switch op.Kind {
	case Put, Remove:
		if op.Field == Marker || op.Value.IsAbsent() != (op.Kind == Remove || bare) || op.Value.Kind() == NullKind {
			return fmt.Errorf("operation of kind %d with a value that is %s", op.Kind, op.Value.Kind())
		}
	case Collapse:
		if op.Field != Marker || !op.Value.IsAbsent() {
			return fmt.Errorf("a marker that is %s", op.Value.Kind())
		}
		for i := 1; i < len(op.Seen); i++ {
			if op.Seen[i-1].Origin == op.Seen[i].Origin {
				return fmt.Errorf("a marker that covers one origin twice")
			}
		}
	}
	return nil
}

// AppendCBOR appends the cause as CBOR.
func (c *Cause) AppendCBOR(dst []byte) []byte {
	n := 9
	if c.RenamedFrom != "" { // few are
		n = 10
	}
	dst = AppendArray(dst, n)
	verified := uint64(0)
	if c.Verified {
		verified = 1
	}
	dst = AppendUint(dst, verified)
	for _, s := range [...]string{c.Principal, c.Protocol, c.Wrapper, c.Peer, c.Verb, c.Server, c.Address, c.Source} {
		dst = AppendText(dst, s)
	}
	if n == 10 {
		dst = AppendText(dst, c.RenamedFrom)
	}
	return dst
}

// ReadCause reads what Cause.AppendCBOR wrote.
func ReadCause(r *Reader) Cause { return readCause(r) }

func readCause(r *Reader) Cause {
	var c Cause
	n := r.Count(1)
	if n != 9 && n != 10 {
		r.Fail("a cause of %d parts", n)
	}
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
	if n == 10 {
		if c.RenamedFrom = r.Text(); c.RenamedFrom == "" {
			r.Fail("an empty part")
		}
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
	// All but the first are in order.
	i, _ := slices.BinarySearchFunc(origins[1:], o, OriginID.Compare)
	return i + 1
}

func appendDots(dst []byte, index func(OriginID) int, dots []Dot) []byte {
	dst = AppendArray(dst, 2*len(dots))
	for _, d := range dots {
		dst = AppendUint(dst, uint64(index(d.Origin)))
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

// A field's name is text, Existence is null, and the other names that are none are bytes.

func appendFieldName(dst []byte, name string) []byte {
	switch {
	case name == Existence:
		return append(dst, cborOther<<5|cborNull)
	case name == Deletion || name == Marker || strings.IndexByte(name, itemMark) >= 0 || strings.Contains(name, memberMark):
		return AppendBytes(dst, []byte(name))
	}
	return AppendText(dst, name)
}

func readFieldName(r *Reader) string {
	if r.i >= len(r.b) {
		r.Fail("the data ends too early")
		return ""
	}
	switch c := r.b[r.i]; {
	case c == cborOther<<5|cborNull:
		r.i++
		return Existence
	case c>>5 != cborBytes:
		return r.Text()
	}
	name := string(r.Bytes())
	if name == Deletion || name == Marker {
		return name
	}
	if member, field, ok := strings.Cut(name, memberMark); ok && utf8.ValidString(member) && (field == memberExists || utf8.ValidString(field)) {
		return name
	}
	field, item := BaseField(name)
	if item && utf8.ValidString(field) {
		if v, err := ParseCBOR([]byte(name[len(field)+1:])); err == nil && !v.IsAbsent() && v.Kind() != NullKind {
			return name
		}
	}
	r.Fail("not the name of a field")
	return ""
}
