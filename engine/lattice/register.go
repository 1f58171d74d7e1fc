package lattice

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
)

// A Register is the causal dot store of one register: its live entries, and the candidates that wait. It knows no rule:
// that is a projection of the live entries. What the node's Context covers and is not live here was removed, so nothing
// needs a tombstone. A Register is immutable; nil is one that nobody wrote.
type Register struct {
	Fields  []Field   // those with live entries, by name
	Waiting []Waiting // by dot
}

// A Field is one field's live entries, by dot.
type Field struct {
	Name    string // a field's, or one of the names below
	Entries []Entry
}

// Names beside those of fields, which are UTF-8 and so never equal to them.
const (
	// Existence has the entries that say that a register exists. Every write puts it, a delete removes what it saw of it.
	Existence = "\xff"
	// Deletion has the marks of deletes that win over writes which did not know of them.
	Deletion = "\xfe"
	// Marker is no field: a Collapse stands there in a candidate.
	Marker = "\xfd"

	// A union's item stands under the field's name, this byte and the item's encoding.
	itemMark = '\xff'
)

// ItemField is the name under which an item of a union lives.
func ItemField(field string, item Value) string {
	return string(item.AppendCBOR(append(append(make([]byte, 0, len(field)+32), field...), itemMark)))
}

// BaseField is the field that a name belongs to, and whether it is that of an item in it.
func BaseField(name string) (field string, item bool) {
	i := strings.IndexByte(name, itemMark)
	if i < 0 || name == Existence {
		return name, false
	}
	return name[:i], true
}

// An Entry is a value that no writer who saw it has replaced yet.
type Entry struct {
	Dot   Dot
	Time  Stamp
	By    By
	Value Value // absent under Existence and Deletion
}

// A Waiting is what one candidate says of a register, until a marker covers it.
type Waiting struct {
	Dot    Dot
	Time   Stamp
	By     By
	Opaque bool // it waits for a program that knows its operations, or stands behind one that does
	Held   bool // it waits for a marker
	Ops    []Op // Register is not set
}

// An Arrival is one candidate's part for one register.
type Arrival struct {
	Dot  Dot
	Time Stamp
	By   By
	Held bool // it waits for a marker
	Ops  []Op // in field order
}

// Opaque says that there are operations which this program does not know.
func (g *Register) Opaque() bool {
	return g != nil && slices.ContainsFunc(g.Waiting, func(w Waiting) bool { return w.Opaque })
}

// Pending counts the candidates that wait for a marker.
func (g *Register) Pending() int {
	n := 0
	if g != nil {
		for i := range g.Waiting {
			if g.Waiting[i].Held && !g.Waiting[i].Opaque {
				n++
			}
		}
	}
	return n
}

// Cover is what a marker names to fold all that waits for one. Origins that have left all vectors are among it.
func (g *Register) Cover() (v QStateVector) {
	if g == nil {
		return nil
	}
	for i := range g.Waiting {
		if g.Waiting[i].Held && !g.Waiting[i].Opaque {
			v = v.With(g.Waiting[i].Dot)
		}
	}
	return v
}

// Empty says that nothing is left of it.
func (g *Register) Empty() bool { return g == nil || len(g.Fields) == 0 && len(g.Waiting) == 0 }

// unknown says whether there are operations that this program does not know.
func unknown(ops []Op) bool {
	return slices.ContainsFunc(ops, func(op Op) bool { return op.Kind < Put || op.Kind > Collapse })
}

// Apply gives the register after what one candidate says of it. Delivery is causal, and each candidate comes once: the
// node's Context sees to both.
func (g *Register) Apply(a Arrival) *Register {
	if g == nil {
		g = &Register{}
	}
	switch {
	case unknown(a.Ops) || g.Opaque():
		// What stands behind an operation that can't be understood may refer to its effect.
		return g.wait(Waiting{a.Dot, a.Time, a.By, true, a.Held, a.Ops})
	case a.Held:
		return g.wait(Waiting{a.Dot, a.Time, a.By, false, true, a.Ops})
	}
	if n := len(a.Ops); n > 0 {
		if i := slices.IndexFunc(a.Ops, func(op Op) bool { return op.Kind == Collapse }); i >= 0 {
			g = g.collapse(a.Ops[i].Seen)
		}
	}
	return &Register{g.put(a), g.Waiting}
}

// Settle folds what waited for a program that knows its operations, if this one does.
func (g *Register) Settle() *Register {
	if !g.Opaque() {
		return g
	}
	var covers []QStateVector
	for _, w := range g.Waiting {
		if unknown(w.Ops) {
			return g
		}
		for _, op := range w.Ops {
			if op.Kind == Collapse && !w.Held {
				covers = append(covers, op.Seen)
			}
		}
	}
	// What arrived behind an unknown one may remove what that puts, or what a marker behind it folds: all of it is folded
	// at once.
	out := &Register{Fields: g.Fields}
	var now []Waiting
	for _, w := range g.Waiting {
		if w.Held && !slices.ContainsFunc(covers, func(v QStateVector) bool { return v.Covers(w.Dot) }) {
			w.Opaque = false
			out.Waiting = append(out.Waiting, w)
		} else {
			now = append(now, w)
		}
	}
	return out.fold(now)
}

func (g *Register) wait(w Waiting) *Register {
	i, found := slices.BinarySearchFunc(g.Waiting, w.Dot, func(w Waiting, d Dot) int { return w.Dot.Compare(d) })
	if found {
		return g
	}
	w.Ops = slices.Clone(w.Ops) // the caller's room is used again
	for j := range w.Ops {
		w.Ops[j].Register, w.Ops[j].Seen = "", slices.Clone(w.Ops[j].Seen)
	}
	return &Register{g.Fields, slices.Insert(slices.Clone(g.Waiting), i, w)}
}

// collapse folds what waits and is covered. A cover is a vector: it names what its writer had applied.
func (g *Register) collapse(cover QStateVector) *Register {
	var now []Waiting
	out := &Register{Fields: g.Fields}
	for _, w := range g.Waiting {
		if cover.Covers(w.Dot) {
			now = append(now, w)
		} else {
			out.Waiting = append(out.Waiting, w)
		}
	}
	if len(now) == 0 {
		return g
	}
	return out.fold(now)
}

// fold applies several at once. All is put before anything is removed, so that their order is of no concern.
func (g *Register) fold(now []Waiting) *Register {
	out := &Register{g.Fields, g.Waiting}
	var removing []Op
	for _, w := range now {
		puts := Arrival{Dot: w.Dot, Time: w.Time, By: w.By}
		for _, op := range w.Ops {
			if len(op.Seen) > 0 && op.Kind != Collapse {
				removing = append(removing, Op{Kind: Remove, Field: op.Field, Seen: op.Seen})
			}
			if op.Kind == Put {
				op.Seen = nil
				puts.Ops = append(puts.Ops, op)
			}
		}
		out.Fields = out.put(puts)
	}
	for _, op := range removing {
		out.Fields = out.put(Arrival{Ops: []Op{op}})
	}
	return out
}

// put gives the fields after the ops of one candidate.
func (g *Register) put(a Arrival) []Field {
	fields := make([]Field, 0, len(g.Fields)+len(a.Ops))
	old := g.Fields
	for i := range a.Ops {
		op := &a.Ops[i]
		if op.Kind == Collapse {
			continue
		}
		for len(old) > 0 && old[0].Name < op.Field {
			fields, old = append(fields, old[0]), old[1:]
		}
		var entries []Entry
		if len(old) > 0 && old[0].Name == op.Field {
			entries, old = old[0].Entries, old[1:]
		}
		if entries = op.applyTo(entries, &a); len(entries) > 0 {
			fields = append(fields, Field{op.Field, entries})
		}
	}
	return append(fields, old...)
}

func (op *Op) applyTo(entries []Entry, a *Arrival) []Entry {
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
	for i > 0 && out[i-1].Dot.Compare(a.Dot) > 0 {
		i--
	}
	if i > 0 && out[i-1].Dot == a.Dot {
		return out // a join has brought it already
	}
	return slices.Insert(out, i, Entry{a.Dot, a.Time, a.By, op.Value})
}

// Join gives what a node has that knows what either knows: a is g's Context, b is h's. It is commutative, associative
// and idempotent.
func (g *Register) Join(h *Register, a, b *Context) *Register {
	if g == nil {
		g = &Register{}
	}
	if h == nil {
		h = &Register{}
	}
	out := &Register{}
	folded := sides{g, h, a, b}
	fa, fb := g.Fields, h.Fields
	for len(fa) > 0 || len(fb) > 0 {
		var name string
		var ea, eb []Entry
		if len(fb) == 0 || len(fa) > 0 && fa[0].Name <= fb[0].Name {
			name = fa[0].Name
		} else {
			name = fb[0].Name
		}
		if len(fa) > 0 && fa[0].Name == name {
			ea, fa = fa[0].Entries, fa[1:]
		}
		if len(fb) > 0 && fb[0].Name == name {
			eb, fb = fb[0].Entries, fb[1:]
		}
		if entries := folded.join(ea, eb); len(entries) > 0 {
			out.Fields = append(out.Fields, Field{name, entries})
		}
	}
	// To the program that sent it, it may have been no riddle.
	wait := func(w Waiting) {
		w.Opaque = w.Opaque || unknown(w.Ops)
		out.Waiting = append(out.Waiting, w)
	}
	wa, wb := g.Waiting, h.Waiting
	for len(wa) > 0 || len(wb) > 0 {
		switch c := compareFirst(wa, wb, func(w *Waiting) Dot { return w.Dot }); {
		case c == 0:
			w := wa[0]
			w.Opaque = w.Opaque && wb[0].Opaque
			wait(w)
			wa, wb = wa[1:], wb[1:]
		case c < 0:
			if !b.Covers(wa[0].Dot) {
				wait(wa[0])
			}
			wa = wa[1:]
		default:
			if !a.Covers(wb[0].Dot) {
				wait(wb[0])
			}
			wb = wb[1:]
		}
	}
	return out
}

func compareFirst[T any](a, b []T, dot func(*T) Dot) int {
	switch {
	case len(b) == 0:
		return -1
	case len(a) == 0:
		return 1
	}
	return dot(&a[0]).Compare(dot(&b[0]))
}

// sides are the two of a join.
type sides struct {
	g, h *Register
	a, b *Context
}

// gone says whether a side has applied a candidate to its entries: what of it is not among them was removed there. One
// that waits there has not been applied yet.
func gone(d Dot, g *Register, c *Context) bool {
	if !c.Covers(d) {
		return false
	}
	_, waits := slices.BinarySearchFunc(g.Waiting, d, func(w Waiting, d Dot) int { return w.Dot.Compare(d) })
	return !waits
}

func (s *sides) join(a, b []Entry) []Entry {
	var out []Entry
	for len(a) > 0 || len(b) > 0 {
		switch c := compareFirst(a, b, func(e *Entry) Dot { return e.Dot }); {
		case c == 0:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		case c < 0:
			if !gone(a[0].Dot, s.h, s.b) {
				out = append(out, a[0])
			}
			a = a[1:]
		default:
			if !gone(b[0].Dot, s.g, s.a) {
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
	if i, ok := g.find(field); ok {
		return g.Fields[i].Entries
	}
	return nil
}

// Values calls f with each value that is in it, whoever sees it.
func (g *Register) Values(f func(Value)) {
	if g == nil {
		return
	}
	for i := range g.Fields {
		for j := range g.Fields[i].Entries {
			f(g.Fields[i].Entries[j].Value)
		}
	}
	for i := range g.Waiting {
		for j := range g.Waiting[i].Ops {
			f(g.Waiting[i].Ops[j].Value)
		}
	}
}

func (g *Register) find(field string) (int, bool) {
	return slices.BinarySearchFunc(g.Fields, field, func(f Field, name string) int { return strings.Compare(f.Name, name) })
}

// Items are the union's items that live under a field.
func (g *Register) Items(field string) []Field {
	if g == nil {
		return nil
	}
	if !g.hasItems() {
		return nil
	}
	low, _ := g.find(field + "\xff")
	if field == "" && low < len(g.Fields) && g.Fields[low].Name == Existence {
		low++
	}
	high := low
	for high < len(g.Fields) {
		if base, item := BaseField(g.Fields[high].Name); !item || base != field {
			break
		}
		high++
	}
	return g.Fields[low:high]
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

const registerVersion = 2

// AppendCBOR appends g's canonical encoding: [version, origins, writers, [field, [writer, origin, seq, time, value…]…],
// [waiting…]]. Equal registers have equal bytes.
func (g *Register) AppendCBOR(dst []byte) []byte {
	if g == nil {
		g = &Register{}
	}
	var room [8]OriginID
	var bysRoom [8]By
	origins, bys := room[:0], bysRoom[:0]
	note := func(d Dot) {
		if n := len(origins); n == 0 || origins[n-1] != d.Origin {
			origins = append(origins, d.Origin)
		}
	}
	wrote := func(by By) {
		if n := len(bys); n == 0 || bys[n-1] != by {
			bys = append(bys, by)
		}
	}
	for i := range g.Fields {
		for j := range g.Fields[i].Entries {
			note(g.Fields[i].Entries[j].Dot)
			wrote(g.Fields[i].Entries[j].By)
		}
	}
	for i := range g.Waiting {
		w := &g.Waiting[i]
		note(w.Dot)
		wrote(w.By)
		for j := range w.Ops {
			for _, d := range w.Ops[j].Seen {
				note(d)
			}
		}
	}
	if len(origins) > 1 {
		slices.SortFunc(origins, OriginID.Compare)
		origins = slices.Compact(origins)
	}
	if len(bys) > 1 {
		slices.Sort(bys)
		bys = slices.Compact(bys)
	}
	dst = AppendArray(dst, 5)
	dst = AppendUint(dst, registerVersion)
	dst = appendOrigins(dst, origins)
	dst = AppendArray(dst, len(bys))
	for _, by := range bys {
		dst = AppendText(dst, string(by))
	}
	dst = AppendArray(dst, 2*len(g.Fields))
	for i := range g.Fields {
		f := &g.Fields[i]
		dst = appendFieldName(dst, f.Name)
		dst = AppendArray(dst, 5*len(f.Entries))
		for j := range f.Entries {
			e := &f.Entries[j]
			dst = AppendUint(dst, byIndex(bys, e.By))
			dst = AppendUint(dst, uint64(sortedIndex(origins, e.Dot.Origin)))
			dst = AppendUint(dst, e.Dot.Seq)
			dst = AppendUint(dst, uint64(e.Time))
			dst = e.Value.AppendCBOR(dst)
		}
	}
	dst = AppendArray(dst, 6*len(g.Waiting))
	for i := range g.Waiting {
		w := &g.Waiting[i]
		dst = AppendUint(dst, byIndex(bys, w.By))
		dst = AppendUint(dst, uint64(sortedIndex(origins, w.Dot.Origin)))
		dst = AppendUint(dst, w.Dot.Seq)
		dst = AppendUint(dst, uint64(w.Time))
		dst = AppendUint(dst, flagBits(w.Held, w.Opaque))
		dst = appendOps(dst, func(o OriginID) int { return sortedIndex(origins, o) }, w.Ops)
	}
	return dst
}

func flagBits(b ...bool) (n uint64) {
	for i, set := range b {
		if set {
			n |= 1 << i
		}
	}
	return n
}

func byIndex(bys []By, by By) uint64 {
	i, _ := slices.BinarySearch(bys, by)
	return uint64(i)
}

func sortedIndex(origins []OriginID, o OriginID) int {
	if len(origins) == 1 {
		return 0
	}
	i, _ := slices.BinarySearchFunc(origins, o, OriginID.Compare)
	return i
}

// Hash is what a register adds to the hash over all of them: SHA-256 over its name and encoding. An empty one adds
// nothing, so that it need not be kept.
func (g *Register) Hash(name string, encoding []byte) (h Hash) {
	if g.Empty() {
		return h
	}
	sum := sha256.New()
	sum.Write([]byte(name))
	sum.Write([]byte{0})
	sum.Write(encoding)
	sum.Sum(h[:0])
	return h
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
	r.Array(5)
	if v := r.Uint(); v != registerVersion {
		r.Fail("a register of version %d; this program knows %d", v, registerVersion)
	}
	t := tables{origins: readOrigins(r)}
	if r.err == nil && !ascending(t.origins) {
		r.Fail("a register's origins out of order")
	}
	t.usedOrigins = make([]bool, len(t.origins))
	for range r.Count(1) {
		by := By(r.Text())
		if n := len(t.bys); n > 0 && t.bys[n-1] >= by {
			r.Fail("a register's writers out of order")
		}
		t.bys = append(t.bys, by)
	}
	t.usedBys = make([]bool, len(t.bys))
	g := &Register{}
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
		f.Entries = t.entries(r, f.Name == Existence || f.Name == Deletion)
		g.Fields = append(g.Fields, f)
	}
	n = r.Count(1)
	if n%6 != 0 {
		r.Fail("waiting candidates that are not in sixes")
	}
	for i := 0; i < n && r.err == nil; i += 6 {
		w := Waiting{By: t.by(r), Dot: t.dot(r), Time: Stamp(r.Uint())}
		flags := r.Uint()
		w.Held, w.Opaque = flags&1 != 0, flags&2 != 0
		if flags == 0 || flags > 3 {
			r.Fail("a candidate that waits for nothing")
		}
		w.Ops = readOps(r, "", t.origins, t.usedOrigins)
		if k := len(g.Waiting); k > 0 && g.Waiting[k-1].Dot.Compare(w.Dot) >= 0 {
			r.Fail("waiting candidates out of order")
		}
		g.Waiting = append(g.Waiting, w)
	}
	if slices.Contains(t.usedOrigins, false) || slices.Contains(t.usedBys, false) {
		r.Fail("an origin or a writer that nothing refers to")
	}
	return g
}

// tables are what a register's entries refer to.
type tables struct {
	origins     []OriginID
	bys         []By
	usedOrigins []bool
	usedBys     []bool
}

func (t *tables) by(r *Reader) By {
	i := r.Uint()
	if r.err == nil && i >= uint64(len(t.bys)) {
		r.Fail("a writer that is not in the table")
	}
	if r.err != nil {
		return ""
	}
	t.usedBys[i] = true
	return t.bys[i]
}

func (t *tables) dot(r *Reader) Dot {
	i, seq := r.Uint(), r.Uint()
	if r.err == nil && (i >= uint64(len(t.origins)) || seq == 0) {
		r.Fail("a dot of no known origin, or without seq")
	}
	if r.err != nil {
		return Dot{}
	}
	t.usedOrigins[i] = true
	return Dot{t.origins[i], seq}
}

func (t *tables) entries(r *Reader, bare bool) []Entry {
	n := r.Count(1)
	if n == 0 || n%5 != 0 {
		r.Fail("entries that are not in fives")
		return nil
	}
	entries := make([]Entry, 0, min(n/5, 64))
	for range n / 5 {
		e := Entry{By: t.by(r), Dot: t.dot(r), Time: Stamp(r.Uint()), Value: r.Value()}
		if r.err == nil && (e.Value.IsAbsent() != bare || e.Value.Kind() == NullKind) {
			r.Fail("an entry whose value is %s", e.Value.Kind())
		}
		if r.err != nil {
			return nil
		}
		if len(entries) > 0 && entries[len(entries)-1].Dot.Compare(e.Dot) >= 0 {
			r.Fail("entries out of order")
		}
		entries = append(entries, e)
	}
	return entries
}
