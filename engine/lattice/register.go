package lattice

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// A Register is the causal dot store of one register: its live entries, and a context that says which candidates it
// has seen. What is covered by the context and not live was removed, so nothing needs a tombstone. It knows no rule:
// that is a projection of the live entries. A Register is immutable; nil is one that nobody wrote.
type Register struct {
	Context QStateVector
	Fields  []Field // those with live entries, by name
}

// A Field is one field's live entries, by dot.
type Field struct {
	Name    string // "" for the value of a register without fields; Existence says that the register exists
	Entries []Entry
}

// An Entry is a value that no writer who saw it has replaced yet.
type Entry struct {
	Dot   Dot
	Time  Stamp
	Value Value // absent under Existence
}

// Apply gives the register after the ops that one candidate has for it. Those must be in field order. A candidate it
// has already seen changes nothing. Delivery is causal: all that the ops have seen was applied before.
func (g *Register) Apply(dot Dot, at Stamp, ops []Op) *Register {
	if g == nil {
		g = &Register{}
	}
	if g.Context.Covers(dot) {
		return g
	}
	out := &Register{Context: g.Context.With(dot), Fields: make([]Field, 0, len(g.Fields)+len(ops))}
	old := g.Fields
	for i := range ops {
		op := &ops[i]
		for len(old) > 0 && old[0].Name < op.Field {
			out.Fields, old = append(out.Fields, old[0]), old[1:]
		}
		var entries []Entry
		if len(old) > 0 && old[0].Name == op.Field {
			entries, old = old[0].Entries, old[1:]
		}
		if entries = op.applyTo(entries, dot, at); len(entries) > 0 {
			out.Fields = append(out.Fields, Field{op.Field, entries})
		}
	}
	out.Fields = append(out.Fields, old...)
	return out
}

func (op *Op) applyTo(entries []Entry, dot Dot, at Stamp) []Entry {
	room := len(entries) - len(op.Seen) // most often all of them are replaced
	if op.Kind == Put {
		room++
	}
	out := make([]Entry, 0, max(room, 0))
	for _, e := range entries {
		if _, seen := slices.BinarySearchFunc(op.Seen, e.Dot, Dot.Compare); !seen {
			out = append(out, e)
		}
	}
	if op.Kind != Put {
		return out
	}
	i := len(out)
	for i > 0 && out[i-1].Dot.Compare(dot) > 0 {
		i--
	}
	return slices.Insert(out, i, Entry{dot, at, op.Value})
}

// Join gives what has seen all that either has seen. It is commutative, associative and idempotent.
func (g *Register) Join(h *Register) *Register {
	if g == nil {
		return h
	}
	if h == nil {
		return g
	}
	out := &Register{Context: g.Context.Join(h.Context)}
	a, b := g.Fields, h.Fields
	for len(a) > 0 || len(b) > 0 {
		var name string
		var ea, eb []Entry
		if len(b) == 0 || len(a) > 0 && a[0].Name <= b[0].Name {
			name = a[0].Name
		} else {
			name = b[0].Name
		}
		if len(a) > 0 && a[0].Name == name {
			ea, a = a[0].Entries, a[1:]
		}
		if len(b) > 0 && b[0].Name == name {
			eb, b = b[0].Entries, b[1:]
		}
		if entries := joinEntries(ea, eb, g.Context, h.Context); len(entries) > 0 {
			out.Fields = append(out.Fields, Field{name, entries})
		}
	}
	return out
}

func joinEntries(a, b []Entry, seenA, seenB QStateVector) []Entry {
	var out []Entry
	for len(a) > 0 || len(b) > 0 {
		c := 0
		switch {
		case len(b) == 0:
			c = -1
		case len(a) == 0:
			c = 1
		default:
			c = a[0].Dot.Compare(b[0].Dot)
		}
		switch {
		case c == 0:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		case c < 0:
			if !seenB.Covers(a[0].Dot) {
				out = append(out, a[0])
			}
			a = a[1:]
		default:
			if !seenA.Covers(b[0].Dot) {
				out = append(out, b[0])
			}
			b = b[1:]
		}
	}
	return out
}

// Entries are the live entries of a field, by dot.
func (g *Register) Entries(field string) []Entry {
	if g == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(g.Fields, field, func(f Field, name string) int { return strings.Compare(f.Name, name) })
	if !ok {
		return nil
	}
	return g.Fields[i].Entries
}

// Exists says whether a live entry says so. The fields of a register that doesn't exist are hidden, not gone: a writer
// who did not know of the delete brings the whole back.
func (g *Register) Exists() bool { return len(g.Entries(Existence)) > 0 }

// Latest is the entry that the rule of that name shows: the one with the highest stamp, and of equal ones the highest dot.
func (f *Field) Latest() *Entry {
	best := &f.Entries[0]
	for i := range f.Entries {
		if e := &f.Entries[i]; e.Time > best.Time || e.Time == best.Time && e.Dot.Compare(best.Dot) > 0 {
			best = e
		}
	}
	return best
}

// Project is what readers see, every field by the rule latest: an object, or the one value of a register without
// fields, or absent if the register does not exist. Where writers who did not know of each other used it both with
// and without fields, the latest write decides which it is.
func (g *Register) Project() Value {
	if !g.Exists() {
		return Value{}
	}
	members := make([]Member, 0, len(g.Fields))
	var one, newest *Entry
	for i := range g.Fields {
		f := &g.Fields[i]
		if f.Name == Existence {
			continue
		}
		e := f.Latest()
		if f.Name == "" {
			one = e
		} else {
			members = append(members, Member{f.Name, e.Value})
		}
		if newest == nil || e.Time > newest.Time || e.Time == newest.Time && e.Dot.Compare(newest.Dot) > 0 {
			newest = e
		}
	}
	if one != nil && one == newest {
		return one.Value
	}
	return Object(members...)
}

// Digest is the first 16 bytes of SHA-256 over the live entries' fields and dots: equal wherever the same entries live.
func (g *Register) Digest() [16]byte {
	var room [512]byte
	b := room[:0]
	if g != nil {
		for i := range g.Fields {
			f := &g.Fields[i]
			b = binary.AppendUvarint(b, uint64(len(f.Name)))
			b = append(b, f.Name...)
			b = binary.AppendUvarint(b, uint64(len(f.Entries)))
			for j := range f.Entries {
				d := &f.Entries[j].Dot
				b = append(b, d.Origin[:]...)
				b = binary.BigEndian.AppendUint64(b, d.Seq)
			}
		}
	}
	sum := sha256.Sum256(b)
	return [16]byte(sum[:16])
}

const registerVersion = 1

// AppendCBOR appends g's canonical encoding. Equal registers have equal bytes.
func (g *Register) AppendCBOR(dst []byte) []byte {
	if g == nil {
		g = &Register{}
	}
	var room [8]OriginID
	origins := room[:0]
	for i := range g.Context {
		origins = append(origins, g.Context[i].Origin)
	}
	dst = AppendArray(dst, 4)
	dst = AppendUint(dst, registerVersion)
	dst = appendOrigins(dst, origins)
	dst = AppendArray(dst, len(g.Context))
	for i := range g.Context {
		dst = AppendUint(dst, g.Context[i].Seq)
	}
	dst = AppendArray(dst, 2*len(g.Fields))
	for i := range g.Fields {
		f := &g.Fields[i]
		dst = appendFieldName(dst, f.Name)
		dst = AppendArray(dst, 4*len(f.Entries))
		for j := range f.Entries {
			e := &f.Entries[j]
			dst = AppendUint(dst, uint64(originIndex(origins, e.Dot.Origin)))
			dst = AppendUint(dst, e.Dot.Seq)
			dst = AppendUint(dst, uint64(e.Time))
			dst = e.Value.AppendCBOR(dst)
		}
	}
	return dst
}

// ParseRegister reads what AppendCBOR wrote, and nothing else.
func ParseRegister(b []byte) (*Register, error) {
	r := NewReader(b)
	g := ReadRegister(r)
	if err := r.End(); err != nil {
		return nil, err
	}
	return g, nil
}

// ReadRegister reads what Register.AppendCBOR wrote, as a part of something larger.
func ReadRegister(r *Reader) *Register {
	r.Array(4)
	if v := r.Uint(); v != registerVersion {
		r.Fail("a register of version %d; this program knows %d", v, registerVersion)
	}
	origins := readOrigins(r)
	if r.err == nil && !ascending(origins) {
		r.Fail("a context's origins out of order")
	}
	r.Array(len(origins))
	g := &Register{}
	if len(origins) > 0 {
		g.Context = make(QStateVector, len(origins))
	}
	for i := range g.Context {
		if g.Context[i] = (Dot{origins[i], r.Uint()}); g.Context[i].Seq == 0 {
			r.Fail("a context with a seq of 0")
		}
	}
	n := r.Count(1)
	if n%2 != 0 {
		r.Fail("fields that are not in pairs")
	}
	if n > 1 {
		g.Fields = make([]Field, 0, min(n/2, 64))
	}
	for i := 0; i < n && r.err == nil; i += 2 {
		f := Field{Name: readFieldName(r)}
		if i > 0 && g.Fields[len(g.Fields)-1].Name >= f.Name {
			r.Fail("fields out of order")
		}
		f.Entries = readEntries(r, g.Context, f.Name == Existence)
		g.Fields = append(g.Fields, f)
	}
	return g
}

func readEntries(r *Reader, context QStateVector, existence bool) []Entry {
	n := r.Count(1)
	if n == 0 || n%4 != 0 {
		r.Fail("entries that are not in fours")
		return nil
	}
	entries := make([]Entry, 0, min(n/4, 64))
	for range n / 4 {
		i, seq, at, v := r.Uint(), r.Uint(), r.Uint(), r.Value()
		if r.err == nil && (i >= uint64(len(context)) || seq == 0 || seq > context[i].Seq) {
			r.Fail("an entry that its context has not seen")
		}
		if r.err == nil && (v.IsAbsent() != existence || v.Kind() == NullKind) {
			r.Fail("an entry whose value is %s", v.Kind())
		}
		if r.err != nil {
			return nil
		}
		e := Entry{Dot{context[i].Origin, seq}, Stamp(at), v}
		if len(entries) > 0 && entries[len(entries)-1].Dot.Compare(e.Dot) >= 0 {
			r.Fail("entries out of order")
		}
		entries = append(entries, e)
	}
	return entries
}
