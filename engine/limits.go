package engine

import (
	"fmt"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine/lattice"
)

// Limits of what is stored. Beyond them a write is refused.
const (
	MaxName      = 1024      // bytes of a register's name
	MaxField     = 256       // bytes of a field's name
	MaxValue     = 64 << 10  // bytes of one value, encoded
	MaxOps       = 1000      // of one write
	MaxCandidate = 256 << 10 // bytes of one write, encoded
	MaxBulkOps   = 200_000   // of one write that is Bulk
	MaxBulk      = 32 << 20  // bytes of one write that is Bulk, encoded
	MaxFields    = 4096      // of one register
	MaxRegister  = 1 << 20   // bytes of one register, encoded
	MaxKept      = 32 << 20  // bytes of records in one write
	maxCause     = 1024      // bytes of each part of a Cause; the rest is cut off
	maxTable     = 32        // bytes of a Record's table
)

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrTooLarge, fmt.Sprintf(format, args...))
}

// CheckName says whether a register can have that name: a slash path of 1 to 1,024 bytes of UTF-8, without empty
// segments and control characters. The error is an ErrInvalid or ErrTooLarge.
func CheckName(name string) error {
	switch {
	case name == "":
		return invalid("a register without a name")
	case len(name) > MaxName:
		return tooLarge("a register's name of %d bytes; the limit is %d", len(name), MaxName)
	case !utf8.ValidString(name):
		return invalid("register %q: its name is not UTF-8", name)
	case name[0] == '/' || name[len(name)-1] == '/' || strings.Contains(name, "//"):
		return invalid("register %q: its name has an empty segment", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return invalid("register %q: its name has a control character", name)
	}
	return nil
}

func checkField(op *Op, field string) error {
	switch {
	case len(field) > MaxField:
		return tooLarge("register %q: a field's name of %d bytes; the limit is %d", op.Register, len(field), MaxField)
	case !utf8.ValidString(field):
		return invalid("register %q, field %q: its name is not UTF-8", op.Register, field)
	}
	return nil
}

var encodeRoom = sync.Pool{New: func() any { b := make([]byte, 0, 4096); return &b }}

func checkValue(op *Op) error {
	v := op.Value
	switch v.Kind() {
	case lattice.AbsentKind, lattice.NullKind:
		return invalid("register %q, field %q: %s is no value; remove the field instead", op.Register, op.Field, v.Kind())
	case lattice.BoolKind, lattice.IntKind, lattice.DecimalKind:
		return nil
	case lattice.ObjectKind:
		if op.Field == "" {
			return invalid("register %q: an object has no place in a register without fields; its members are fields", op.Register)
		}
	}
	if err := v.Validate(); err != nil {
		return fmt.Errorf("register %q, field %q: %w", op.Register, op.Field, err)
	}
	size := v.Len()
	if k := v.Kind(); k != lattice.StringKind && k != lattice.BytesKind {
		room := encodeRoom.Get().(*[]byte)
		*room = v.AppendCBOR((*room)[:0])
		size = len(*room)
		encodeRoom.Put(room)
	}
	if size > MaxValue {
		return tooLarge("register %q, field %q: a value of %d bytes; the limit is %d", op.Register, op.Field, size, MaxValue)
	}
	return nil
}

// most gives the limits of the write: how many operations, and bytes.
func (w *Write) most() (ops, bytes int) {
	if w.Bulk {
		return MaxBulkOps, MaxBulk
	}
	return MaxOps, MaxCandidate
}

// Check says whether a write by a client can be tried at all: its names, fields and values, and how much it is. What depends
// on the registers' state shows when it is tried. The errors are ErrInvalid and ErrTooLarge.
func (w *Write) Check() error { return w.check(false) }

// check says whether a write can be tried at all. What depends on the registers' state is the sequencer's to check.
func (w *Write) check(internal bool) error {
	if most, _ := w.most(); len(w.Ops) > most {
		return tooLarge("a write of %d operations; the limit is %d", len(w.Ops), most)
	}
	if len(w.Ops) == 0 && len(w.Keep) == 0 && w.KeepWith == nil {
		return invalid("a write without operations")
	}
	for i := range w.Ops {
		op := &w.Ops[i]
		if err := CheckName(op.Register); err != nil {
			return err
		}
		if reservedName(op.Register) && !internal {
			return invalid("register %q: names that begin with %q are the domain's own", op.Register, op.Register[:strings.Index(op.Register, "/")+1])
		}
		var err error
		switch op.Kind {
		case OpPut, OpAdd, OpRestore:
			if err = checkField(op, op.Field); err == nil {
				err = checkValue(op)
			}
		case OpRemove:
			err = checkField(op, op.Field)
		case OpOnly, OpDelete:
		default:
			err = invalid("register %q: operation of kind %d", op.Register, op.Kind)
		}
		if err != nil {
			return err
		}
	}
	for i := range w.If {
		if err := CheckName(w.If[i].Register); err != nil {
			return err
		}
	}
	return checkRecords(w.Keep)
}

func checkRecords(records []Record) error {
	size := 0
	for _, r := range records {
		if r.Table == "" || len(r.Table) > maxTable || strings.ContainsFunc(r.Table, func(c rune) bool { return (c < 'a' || c > 'z') && c != '-' }) {
			return invalid("a record's table %q: it is a short lower-case name", r.Table)
		}
		size += len(r.Key) + len(r.Value)
	}
	if size > MaxKept {
		return tooLarge("records of %d bytes; the limit is %d", size, MaxKept)
	}
	return nil
}

// clip makes the parts of a cause fit to be stored: it says who did it, and must never be why it can't be done.
func clip(c *Cause) {
	for _, s := range [...]*string{&c.Principal, &c.Protocol, &c.Wrapper, &c.Peer, &c.Verb, &c.Server, &c.Address, &c.Source, &c.RenamedFrom} {
		if len(*s) > maxCause {
			*s = (*s)[:maxCause] + "…"
		}
		if !utf8.ValidString(*s) {
			*s = strings.ToValidUTF8(*s, "�")
		}
	}
}
