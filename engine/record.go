package engine

import (
	"fmt"

	"github.com/spooksystems/gateway/engine/lattice"
)

// The records on disk, in deterministic CBOR. Each begins with its version, so that a later program can tell.

const recordVersion = 2

// A register's newest state: [version, ordinal, rank, time, lattice], or of a register in a group, which lives in its
// unit: [version, ordinal, unit].

func appendRegister(dst []byte, v *version) (out []byte, encoding []byte) {
	dst = lattice.AppendArray(dst, 5)
	dst = lattice.AppendUint(dst, recordVersion)
	dst = lattice.AppendUint(dst, v.ordinal)
	dst = lattice.AppendUint(dst, v.rank)
	dst = lattice.AppendUint(dst, uint64(v.at))
	start := len(dst)
	dst = v.reg.AppendCBOR(dst)
	return dst, dst[start:]
}

func appendStub(dst []byte, ordinal uint64, unit string) []byte {
	dst = lattice.AppendArray(dst, 3)
	dst = lattice.AppendUint(dst, recordVersion)
	dst = lattice.AppendUint(dst, ordinal)
	return lattice.AppendText(dst, unit)
}

func (e *Engine) parse(name string, b []byte) (*version, error) {
	r := lattice.NewReader(b)
	parts := r.Count(1)
	if v := r.Uint(); v != recordVersion {
		r.Fail("a record of version %d; this program knows %d", v, recordVersion)
	}
	v := &version{name: name, ordinal: r.Uint()}
	switch parts {
	case 3:
		v.unit = r.Text()
	case 5:
		rank, at := r.Uint(), Stamp(r.Uint())
		start := r.Pos()
		reg := lattice.ReadRegister(r)
		v = newVersion(name, v.ordinal, rank, at, reg.Settle(), len(b))
		v.hash = reg.Hash(name, b[start:])
	default:
		r.Fail("a register of %d parts", parts)
	}
	if err := r.End(); err != nil {
		return nil, damaged("register %q: %w", name, err)
	}
	return v, nil
}

func openRecord(r *lattice.Reader, n int) {
	r.Array(n)
	if v := r.Uint(); v != recordVersion {
		r.Fail("a record of version %d; this program knows %d", v, recordVersion)
	}
}

// damaged reports what the disk gave back differently from how it was written. The detail is not the caller's doing,
// so its own kind doesn't count.
func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: stored data is damaged: %s", ErrUnavailable, fmt.Errorf(format, args...))
}

// Heads, introductions and dots, as they stand behind an origin or alone.

func appendHead(dst []byte, h lattice.Head) []byte {
	return lattice.AppendBytes(lattice.AppendUint(lattice.AppendArray(dst, 2), h.Seq), h.Hash[:])
}

func parseHead(b []byte) (h lattice.Head, err error) {
	r := lattice.NewReader(b)
	r.Array(2)
	h.Seq = r.Uint()
	copy(h.Hash[:], r.Bytes())
	return h, r.End()
}

func appendIntro(dst []byte, i lattice.Intro) []byte {
	dst = lattice.AppendBytes(lattice.AppendArray(dst, 3), i.Origin.Endpoint[:])
	dst = lattice.AppendBytes(dst, i.Origin.Incarnation[:])
	return append(dst, appendDot(nil, i.Before)...)
}

func parseIntro(b []byte) (i lattice.Intro, err error) {
	r := lattice.NewReader(b)
	r.Array(3)
	copy(i.Origin.Endpoint[:], r.Bytes())
	copy(i.Origin.Incarnation[:], r.Bytes())
	i.Before = readDotPair(r)
	return i, r.End()
}

func appendDot(dst []byte, d Dot) []byte {
	return lattice.AppendUint(lattice.AppendBytes(lattice.AppendArray(dst, 2), d.Origin[:]), d.Seq)
}

func readDotPair(r *lattice.Reader) Dot {
	r.Array(2)
	return readDot(r)
}

func appendVector(dst []byte, v QStateVector) []byte {
	dst = lattice.AppendArray(dst, 2*len(v))
	for _, d := range v {
		dst = lattice.AppendUint(lattice.AppendBytes(dst, d.Origin[:]), d.Seq)
	}
	return dst
}

func readVector(r *lattice.Reader) QStateVector {
	var v QStateVector
	for range r.Count(1) / 2 {
		d := readDot(r)
		if n := len(v); n > 0 && v[n-1].Origin.Compare(d.Origin) >= 0 || d.Seq == 0 {
			r.Fail("a vector out of order")
		}
		v = append(v, d)
	}
	return v
}

// A commit: [version, origin, seq, clock, registers, candidates, [register…]]. Clock is the highest stamp given so far;
// registers and candidates count those that exist and are stored, so that nobody has to.
type commitRecord struct {
	dot        Dot
	clock      Stamp
	registers  uint64
	candidates uint64
	names      []string
}

func (c *commitRecord) append(dst []byte) []byte {
	dst = lattice.AppendArray(dst, 7)
	dst = lattice.AppendUint(dst, recordVersion)
	dst = lattice.AppendBytes(dst, c.dot.Origin[:])
	dst = lattice.AppendUint(dst, c.dot.Seq)
	dst = lattice.AppendUint(dst, uint64(c.clock))
	dst = lattice.AppendUint(dst, c.registers)
	dst = lattice.AppendUint(dst, c.candidates)
	dst = lattice.AppendArray(dst, len(c.names))
	for _, name := range c.names {
		dst = lattice.AppendText(dst, name)
	}
	return dst
}

func parseCommit(ordinal uint64, b []byte) (commitRecord, error) {
	r := lattice.NewReader(b)
	openRecord(r, 7)
	c := commitRecord{dot: readDot(r), clock: Stamp(r.Uint()), registers: r.Uint(), candidates: r.Uint()}
	c.names = make([]string, r.Count(1))
	for i := range c.names {
		c.names[i] = r.Text()
	}
	if err := r.End(); err != nil {
		return c, damaged("commit %d: %w", ordinal, err)
	}
	return c, nil
}

func readDot(r *lattice.Reader) Dot {
	var d Dot
	if b := r.Bytes(); len(b) != len(d.Origin) {
		r.Fail("an origin of %d bytes", len(b))
	} else {
		copy(d.Origin[:], b)
	}
	d.Seq = r.Uint()
	return d
}

// What a commit made of a register: [version, part, of, flags, origin, seq, before, after, time, value, dots, changed,
// siblings, provisional, waiting, cause].
// It holds the whole block, as it was read then, so that the past does not change with a rule. Before is [] or
// [rank, digest]; dots is [field, [origin, seq…]…] and changed [field, value before…].

const (
	flagCreated = 1 << iota
	flagDeleted
	flagPending
	flagOpaque
	flagIncoming
	flagsEnd
)

func appendDelta(dst []byte, d *QDelta) []byte {
	flags := uint64(0)
	if d.Created {
		flags |= flagCreated
	}
	if d.Deleted {
		flags |= flagDeleted
	}
	if d.Pending {
		flags |= flagPending
	}
	if d.After.Opaque {
		flags |= flagOpaque
	}
	if d.After.Incoming {
		flags |= flagIncoming
	}
	dst = lattice.AppendArray(dst, 16)
	dst = lattice.AppendUint(dst, recordVersion)
	dst = lattice.AppendUint(dst, uint64(d.Part))
	dst = lattice.AppendUint(dst, uint64(d.Of))
	dst = lattice.AppendUint(dst, flags)
	dst = lattice.AppendBytes(dst, d.Dot.Origin[:])
	dst = lattice.AppendUint(dst, d.Dot.Seq)
	dst = appendStateID(dst, d.Before)
	dst = appendStateID(dst, d.After.ID)
	dst = lattice.AppendUint(dst, uint64(d.After.Time))
	dst = d.After.Value.AppendCBOR(dst)
	dst = lattice.AppendArray(dst, 2*len(d.After.Dots))
	for i := range d.After.Dots {
		f := &d.After.Dots[i]
		// A field's name is UTF-8 and Existence is not; as bytes both can stand here.
		dst = lattice.AppendBytes(dst, []byte(f.Field))
		dst = lattice.AppendArray(dst, 2*len(f.Dots))
		for _, dot := range f.Dots {
			if dot.Origin == d.Dot.Origin {
				dst = lattice.AppendBytes(dst, nil) // the commit's own, most often
			} else {
				dst = lattice.AppendBytes(dst, dot.Origin[:])
			}
			dst = lattice.AppendUint(dst, dot.Seq)
		}
	}
	dst = lattice.AppendArray(dst, 2*len(d.Changed))
	for i := range d.Changed {
		dst = lattice.AppendText(dst, d.Changed[i].Field)
		dst = d.Changed[i].Before.AppendCBOR(dst)
	}
	dst = appendNames(dst, d.After.Siblings)
	dst = appendNames(dst, d.After.Provisional)
	dst = lattice.AppendUint(dst, uint64(d.After.Waiting))
	return d.Cause.AppendCBOR(dst)
}

func appendNames(dst []byte, names []string) []byte {
	dst = lattice.AppendArray(dst, len(names))
	for _, n := range names {
		dst = lattice.AppendText(dst, n)
	}
	return dst
}

func readNames(r *lattice.Reader) (names []string) {
	for range r.Count(1) {
		names = append(names, r.Text())
	}
	return names
}

func parseDelta(register string, at Cursor, b []byte) (QDelta, error) {
	r := lattice.NewReader(b)
	openRecord(r, 16)
	d := QDelta{Cursor: at, Part: int(r.Uint()), Of: int(r.Uint())}
	flags := r.Uint()
	if flags >= flagsEnd {
		r.Fail("unknown flags %d", flags)
	}
	d.Created, d.Deleted, d.Pending = flags&flagCreated != 0, flags&flagDeleted != 0, flags&flagPending != 0
	d.Dot = readDot(r)
	d.Before = readStateID(r)
	d.After = StateBlock{Register: register, ID: readStateID(r), Ordinal: at.Ordinal, Time: Stamp(r.Uint()), Value: r.Value()}
	d.After.Exists = !d.After.Value.IsAbsent()
	if n := r.Count(1) / 2; n > 0 {
		d.After.Dots = make([]FieldDots, n)
	}
	for i := range d.After.Dots {
		f := &d.After.Dots[i]
		f.Field = string(r.Bytes())
		f.Dots = make([]Dot, r.Count(1)/2)
		for j := range f.Dots {
			f.Dots[j].Origin = d.Dot.Origin
			if b := r.Bytes(); len(b) == len(f.Dots[j].Origin) {
				copy(f.Dots[j].Origin[:], b)
			} else if len(b) != 0 {
				r.Fail("an origin of %d bytes", len(b))
			}
			f.Dots[j].Seq = r.Uint()
		}
	}
	if n := r.Count(1) / 2; n > 0 {
		d.Changed = make([]FieldChange, n)
	}
	for i := range d.Changed {
		c := &d.Changed[i]
		c.Field, c.Before = r.Text(), r.Value()
		c.After = fieldOf(d.After, c.Field)
	}
	d.After.Opaque, d.After.Incoming = flags&flagOpaque != 0, flags&flagIncoming != 0
	d.After.Siblings, d.After.Provisional, d.After.Waiting = readNames(r), readNames(r), int(r.Uint())
	d.Cause = lattice.ReadCause(r)
	if err := r.End(); err != nil {
		return QDelta{}, damaged("history of register %q at %d: %w", register, at.Ordinal, err)
	}
	return d, nil
}

func appendStateID(dst []byte, id StateID) []byte {
	if id.IsZero() {
		return lattice.AppendArray(dst, 0)
	}
	dst = lattice.AppendArray(dst, 2)
	dst = lattice.AppendUint(dst, id.Rank)
	return lattice.AppendBytes(dst, id.Digest[:])
}

func readStateID(r *lattice.Reader) (id StateID) {
	switch n := r.Count(1); n {
	case 0:
	case 2:
		id.Rank = r.Uint()
		if b := r.Bytes(); len(b) == len(id.Digest) {
			copy(id.Digest[:], b)
		} else {
			r.Fail("a digest of %d bytes", len(b))
		}
	default:
		r.Fail("a state id of %d parts", n)
	}
	return id
}

// changes lists the fields in which two blocks' values differ, by name.
func changes(before, after *StateBlock) []FieldChange {
	var out []FieldChange
	if one, other := fieldOf(*before, ""), fieldOf(*after, ""); !one.Equal(other) {
		out = append(out, FieldChange{"", one, other})
	}
	a, b := before.Value.Members(), after.Value.Members()
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || len(a) > 0 && a[0].Name < b[0].Name:
			out, a = append(out, FieldChange{a[0].Name, a[0].Value, Value{}}), a[1:]
		case len(a) == 0 || b[0].Name < a[0].Name:
			out, b = append(out, FieldChange{b[0].Name, Value{}, b[0].Value}), b[1:]
		default:
			if !a[0].Value.Equal(b[0].Value) {
				out = append(out, FieldChange{a[0].Name, a[0].Value, b[0].Value})
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}
