package engine

import (
	"fmt"

	"github.com/spooksystems/gateway/engine/lattice"
)

// The records on disk, in deterministic CBOR. Each begins with its version, so that a later program can tell.

const recordVersion = 1

// A register's newest state: [version, ordinal, rank, time, lattice].

func appendRegister(dst []byte, v *version) []byte {
	dst = lattice.AppendArray(dst, 5)
	dst = lattice.AppendUint(dst, recordVersion)
	dst = lattice.AppendUint(dst, v.ordinal)
	dst = lattice.AppendUint(dst, v.rank)
	dst = lattice.AppendUint(dst, uint64(v.block.Time))
	return v.reg.AppendCBOR(dst)
}

func parseRegister(name string, b []byte) (*version, error) {
	r := lattice.NewReader(b)
	openRecord(r, 5)
	ordinal, rank, at := r.Uint(), r.Uint(), Stamp(r.Uint())
	reg := lattice.ReadRegister(r)
	if err := r.End(); err != nil {
		return nil, damaged("register %q: %w", name, err)
	}
	return newVersion(name, ordinal, rank, at, reg, len(b)), nil
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

// What a commit made of a register: [version, part, of, flags, origin, seq, before, after, time, value, dots, changed, cause].
// It holds the whole block, as it was read then, so that the past does not change with a rule. Before is [] or
// [rank, digest]; dots is [field, [origin, seq…]…] and changed [field, value before…].

const (
	flagCreated = 1 << iota
	flagDeleted
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
	dst = lattice.AppendArray(dst, 13)
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
	return d.Cause.AppendCBOR(dst)
}

func parseDelta(register string, at Cursor, b []byte) (QDelta, error) {
	r := lattice.NewReader(b)
	openRecord(r, 13)
	d := QDelta{Cursor: at, Part: int(r.Uint()), Of: int(r.Uint())}
	flags := r.Uint()
	if flags >= flagsEnd {
		r.Fail("unknown flags %d", flags)
	}
	d.Created, d.Deleted = flags&flagCreated != 0, flags&flagDeleted != 0
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
