package link

import (
	"bytes"
	"context"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// Range-based set reconciliation. The set of a node is its registers, each by a hash over name and content; a range is what
// begins with the same hexadecimal digits, and its fingerprint the sum of the hashes in it. Ranges with equal fingerprints
// are equal; others are cut into sixteen, down to short lists. Who takes asks, who gives answers: it keeps nothing but
// the index of one moment.

// An item is one register in short: the first 16 bytes of its hash.
type item [16]byte

func (i item) compare(o item) int { return bytes.Compare(i[:], o[:]) }

// A sum is the fingerprint of items: their sum modulo 2^128.
type sum struct{ hi, lo uint64 }

func (s *sum) add(i item) {
	s.join(sum{binary.BigEndian.Uint64(i[:8]), binary.BigEndian.Uint64(i[8:])})
}

func (s *sum) join(o sum) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, o.lo, 0)
	s.hi, _ = bits.Add64(s.hi, o.hi, carry)
}

// An index is the set of one moment, sorted.
type index []item

// indexOf reads the set from an export: 16 bytes of memory per register.
func indexOf(ctx context.Context, x *engine.Export) (index, error) {
	var set index
	for h, err := range x.Hashes(ctx, func(byte) bool { return true }) {
		if err != nil {
			return nil, err
		}
		set = append(set, item(h.Hash[:16]))
	}
	slices.SortFunc(set, item.compare)
	return set, nil
}

// A prefix is a range: hexadecimal digits, one per byte of the string.
type prefix string

const digits = "0123456789abcdef"

// maxDepth is as deep as ranges go: 2^64 ranges are more than registers.
const maxDepth = 16

func (p prefix) valid() bool {
	for i := range len(p) {
		if c := p[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return len(p) <= maxDepth
}

func (p prefix) child(n int) prefix { return p + prefix(digits[n]) }

// bounds are the lowest item of the range and the highest.
func (p prefix) bounds() (lo, hi item) {
	for i := range hi {
		hi[i] = 0xff
	}
	for i := range len(p) {
		n := byte(bytes.IndexByte([]byte(digits), p[i]))
		if i%2 == 0 {
			lo[i/2], hi[i/2] = n<<4, n<<4|0x0f
		} else {
			lo[i/2], hi[i/2] = lo[i/2]|n, hi[i/2]&0xf0|n
		}
	}
	return lo, hi
}

// in gives the items of a range.
func (set index) in(p prefix) index {
	lo, hi := p.bounds()
	from, _ := slices.BinarySearchFunc(set, lo, item.compare)
	to, found := slices.BinarySearchFunc(set, hi, item.compare)
	if found {
		to++
	}
	return set[from:to]
}

func (set index) has(i item) bool {
	_, found := slices.BinarySearchFunc(set, i, item.compare)
	return found
}

// A part is what there is in a range, in short.
type part struct {
	count uint64
	sum   sum
}

func (set index) part() (p part) {
	p.count = uint64(len(set))
	for _, i := range set {
		p.sum.add(i)
	}
	return p
}

// A look is what there is in a range: its items if they are few, else a part for each of the sixteen ranges within it.
type look struct {
	prefix prefix
	items  []item
	parts  []part // 16, or none
}

// leafItems is how many items are listed rather than cut further: sixteen parts cost as much.
const leafItems = 24

func (set index) look(p prefix) look {
	here := set.in(p)
	if len(here) <= leafItems || len(p) == maxDepth {
		return look{prefix: p, items: here}
	}
	l := look{prefix: p, parts: make([]part, 16)}
	for n := range l.parts {
		l.parts[n] = here.in(p.child(n)).part()
	}
	return l
}

// A difference is what reconciliation has found so far.
type difference struct {
	own  index
	ask  []prefix // to be asked next
	open int      // asked and not answered
	all  []prefix // of these ranges the other's everything is wanted: here is nothing
	want []item   // the other's alone
	mine []prefix // ranges of which the other has nothing
	lost []item   // this node's alone
}

// see holds one look of the other's against the own set.
func (d *difference) see(l *look) {
	if l.parts == nil {
		here := d.own.in(l.prefix)
		theirs := index(l.items)
		for _, i := range theirs {
			if !here.has(i) {
				d.want = append(d.want, i)
			}
		}
		for _, i := range here {
			if !theirs.has(i) {
				d.lost = append(d.lost, i)
			}
		}
		return
	}
	for n, theirs := range l.parts {
		p := l.prefix.child(n)
		switch here := d.own.in(p).part(); {
		case here == theirs:
		case here.count == 0:
			d.all = append(d.all, p)
		case theirs.count == 0:
			d.mine = append(d.mine, p)
		default:
			d.ask = append(d.ask, p)
		}
	}
}

// next takes what is to be asked now.
func (d *difference) next() (now []prefix) {
	n := min(len(d.ask), maxAsk)
	now, d.ask = d.ask[:n:n], d.ask[n:]
	d.open += n
	return now
}

func (d *difference) done() bool { return d.open == 0 && len(d.ask) == 0 }

// pick says whether an item is one of these, or in one of these ranges.
func pick(i item, ranges []prefix, items index) bool {
	return items.has(i) || slices.ContainsFunc(ranges, func(p prefix) bool {
		lo, hi := p.bounds()
		return i.compare(lo) >= 0 && i.compare(hi) <= 0
	})
}

// offer: [number, compare, snapshot, look].
type offer struct {
	Number   uint64
	Compare  bool
	Snapshot []byte
	Top      look // of everything
}

// ask: [number, [prefix…]].
type ask struct {
	Number uint64
	At     []prefix
}

// answer: [number, [look…]].
type answer struct {
	Number uint64
	Looks  []look
}

// want: [number, names, [prefix…], items].
type want struct {
	Number uint64
	Names  bool // alone
	All    []prefix
	Items  []item
}

// registersFrame: [number, batch, last, [name, raw…]].
type registersFrame struct {
	Number    uint64
	Batch     uint64 // acknowledged like a batch of candidates
	Last      bool
	Registers []register
}

type register struct {
	Name string
	Raw  []byte
}

func (l *look) appendTo(dst []byte) []byte {
	dst = appendItems(lattice.AppendText(dst, string(l.prefix)), l.items)
	var parts []byte
	for _, p := range l.parts {
		if parts = binary.AppendUvarint(parts, p.count); p.count > 0 {
			parts = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(parts, p.sum.hi), p.sum.lo)
		}
	}
	return lattice.AppendBytes(dst, parts)
}

func readLook(r *lattice.Reader) look {
	l := look{prefix: readPrefix(r), items: readItems(r)}
	parts := r.Bytes()
	if len(parts) == 0 {
		return l
	}
	l.parts = make([]part, 16)
	for n := range l.parts {
		count, size := binary.Uvarint(parts)
		if size <= 0 || count > 0 && len(parts) < size+16 {
			r.Fail("parts of a range that end too early")
			return look{}
		}
		parts = parts[size:]
		if l.parts[n].count = count; count > 0 {
			l.parts[n].sum = sum{binary.BigEndian.Uint64(parts), binary.BigEndian.Uint64(parts[8:])}
			parts = parts[16:]
		}
	}
	if len(parts) > 0 || len(l.items) > 0 || len(l.prefix) >= maxDepth {
		r.Fail("a range that is both cut and listed")
	}
	return l
}

func readPrefix(r *lattice.Reader) prefix {
	p := prefix(r.Text())
	if !p.valid() {
		r.Fail("a range that is none")
		return ""
	}
	return p
}

func readPrefixes(r *lattice.Reader) (list []prefix) {
	for range r.Count(1) {
		list = append(list, readPrefix(r))
	}
	return list
}

func appendPrefixes(dst []byte, list []prefix) []byte {
	dst = lattice.AppendArray(dst, len(list))
	for _, p := range list {
		dst = lattice.AppendText(dst, string(p))
	}
	return dst
}

func appendItems(dst []byte, items []item) []byte {
	raw := make([]byte, 0, len(items)*16)
	for _, i := range items {
		raw = append(raw, i[:]...)
	}
	return lattice.AppendBytes(dst, raw)
}

// readItems reads items, which have their order.
func readItems(r *lattice.Reader) (items []item) {
	raw := r.Bytes()
	if len(raw)%16 != 0 {
		r.Fail("items of %d bytes", len(raw))
		return nil
	}
	for ; len(raw) > 0; raw = raw[16:] {
		items = append(items, item(raw[:16]))
	}
	if !slices.IsSortedFunc(items, item.compare) {
		r.Fail("items out of order")
	}
	return items
}

func (o *offer) appendTo(dst []byte) []byte {
	return o.Top.appendTo(lattice.AppendArray(lattice.AppendBytes(appendBool(lattice.AppendUint(dst, o.Number), o.Compare), o.Snapshot), 3))
}

func readOffer(r *lattice.Reader) *offer {
	o := &offer{Number: r.Uint(), Compare: readBool(r), Snapshot: r.Bytes()}
	r.Array(3)
	o.Top = readLook(r)
	return o
}

func (a *ask) appendTo(dst []byte) []byte {
	return appendPrefixes(lattice.AppendUint(dst, a.Number), a.At)
}

func readAsk(r *lattice.Reader) *ask {
	a := &ask{Number: r.Uint(), At: readPrefixes(r)}
	if len(a.At) > maxAsk {
		r.Fail("%d questions", len(a.At))
	}
	return a
}

func (a *answer) appendTo(dst []byte) []byte {
	dst = lattice.AppendArray(lattice.AppendUint(dst, a.Number), len(a.Looks))
	for i := range a.Looks {
		dst = a.Looks[i].appendTo(lattice.AppendArray(dst, 3))
	}
	return dst
}

func readAnswer(r *lattice.Reader) *answer {
	a := &answer{Number: r.Uint()}
	for range r.Count(4) {
		r.Array(3)
		a.Looks = append(a.Looks, readLook(r))
	}
	return a
}

func (w *want) appendTo(dst []byte) []byte {
	return appendItems(appendPrefixes(appendBool(lattice.AppendUint(dst, w.Number), w.Names), w.All), w.Items)
}

func readWant(r *lattice.Reader) *want {
	return &want{Number: r.Uint(), Names: readBool(r), All: readPrefixes(r), Items: readItems(r)}
}

func (g *registersFrame) appendTo(dst []byte) []byte {
	dst = appendBool(lattice.AppendUint(lattice.AppendUint(dst, g.Number), g.Batch), g.Last)
	dst = lattice.AppendArray(dst, 2*len(g.Registers))
	for _, reg := range g.Registers {
		dst = lattice.AppendBytes(lattice.AppendText(dst, reg.Name), reg.Raw)
	}
	return dst
}

func readRegisters(r *lattice.Reader) *registersFrame {
	g := &registersFrame{Number: r.Uint(), Batch: r.Uint(), Last: readBool(r)}
	n := r.Count(1)
	if n%2 != 0 {
		r.Fail("%d parts of registers", n)
	}
	for range n / 2 {
		g.Registers = append(g.Registers, register{r.Text(), r.Bytes()})
	}
	return g
}

func sortedItems(items []item) index {
	slices.SortFunc(items, item.compare)
	return slices.Compact(items)
}

// sizeOf is what a register takes of a frame.
func sizeOf(reg *register) int { return len(reg.Name) + len(reg.Raw) + 12 }
