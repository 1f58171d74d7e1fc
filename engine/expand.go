package engine

import (
	"slices"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A draft turns the ops of one write on one register into what its candidate says: per field at most one operation,
// which names every entry it removes.
type draft struct {
	name   string
	base   *version // what is committed here, or about to be
	alive  bool     // whether it exists, after the ops so far
	absent bool     // its writer saw it absent before the first of them
	ops    []lattice.Op
	room   *[]Dot // for what is seen; shared by the drafts of a write
}

// begin begins with what the writer had seen. One with a base of its own (if any of the ops are based) saw the
// register absent if it had seen nothing of it; any other saw what is committed.
func (d *draft) begin(base *version, ops []Op, based bool, room *[]Dot) {
	*d = draft{name: base.block.Register, base: base, alive: base.block.Exists, ops: d.ops[:0], room: room}
	d.absent = !d.alive
	if d.absent && based {
		for i := range ops {
			if op := &ops[i]; op.Register == d.name && op.Base && (len(op.Seen) > 0 || len(op.SeenFields) > 0) {
				d.absent = false
			}
		}
	}
}

func (d *draft) find(field string) (int, bool) {
	return slices.BinarySearchFunc(d.ops, field, func(op lattice.Op, field string) int { return strings.Compare(op.Field, field) })
}

// set notes an operation on a field. What an earlier one removes, it removes as well.
func (d *draft) set(kind lattice.OpKind, field string, v Value, seen []Dot) {
	i, ok := d.find(field)
	if ok {
		d.ops[i].Kind, d.ops[i].Value, d.ops[i].Seen = kind, v, union(d.ops[i].Seen, seen)
		return
	}
	d.ops = slices.Insert(d.ops, i, lattice.Op{Register: d.name, Kind: kind, Field: field, Value: v, Seen: seen})
}

func union(a, b []Dot) []Dot {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	out := append(slices.Clone(a), b...)
	slices.SortFunc(out, Dot.Compare)
	return slices.Compact(out)
}

// seen are the live entries of a field that the writer of op had seen. What it had seen and is not live any more was
// removed by something this candidate depends on, so no node misses it.
func (d *draft) seen(op *Op, field string) []Dot {
	entries := d.base.reg.Entries(field)
	if len(entries) == 0 {
		return nil
	}
	dots, start := *d.room, len(*d.room)
	for i := range entries {
		if e := entries[i].Dot; !op.Base || op.saw(field, e) {
			dots = append(dots, e)
		}
	}
	*d.room = dots
	return dots[start:len(dots):len(dots)]
}

func (op *Op) saw(field string, dot Dot) bool {
	switch {
	case op.Kind == OpDelete && field == Existence, op.Kind != OpOnly && field == op.Field && field != Existence:
		if slices.Contains(op.Seen, dot) {
			return true
		}
	case field == Existence && slices.Contains(op.Seen, dot):
		// Who saw an entry of a field saw the register exist by the same candidate.
		return true
	}
	for i := range op.SeenFields {
		f := &op.SeenFields[i]
		if (f.Field == field || field == Existence) && slices.Contains(f.Dots, dot) {
			return true
		}
	}
	return false
}

// maxExistence bounds the entries that say a register exists. More than one lives on only where writers with bases of
// their own had not seen each other.
const maxExistence = 64

// touch makes the register exist: every write says so. One that saw it absent first removes the fields that a delete
// has hidden.
func (d *draft) touch(op *Op) {
	if !d.alive {
		if d.absent {
			d.clear()
		}
		d.alive = true
	}
	if i, ok := d.find(Existence); ok && d.ops[i].Kind == lattice.Put && !op.Base {
		return
	}
	seen := d.seen(op, Existence)
	if live := d.base.reg.Entries(Existence); op.Base && len(live)-len(seen) >= maxExistence {
		seen = d.seen(&Op{}, Existence)
	}
	d.set(lattice.Put, Existence, Value{}, seen)
}

// clear removes every field there is.
func (d *draft) clear() {
	if d.base.reg == nil {
		return
	}
	all := &Op{}
	for i := range d.base.reg.Fields {
		if name := d.base.reg.Fields[i].Name; name != Existence {
			d.set(lattice.Remove, name, Value{}, d.seen(all, name))
		}
	}
}

// has says whether a field is there after the ops so far.
func (d *draft) has(field string) bool {
	live := d.base.reg.Entries(field)
	i, ok := d.find(field)
	if !ok {
		return len(live) > 0
	}
	return d.ops[i].Kind == lattice.Put || len(live) > len(d.ops[i].Seen)
}

// hasOther says whether a field of the other kind is there: a named one if field is "", else "".
func (d *draft) hasOther(field string) bool {
	if field != "" {
		return d.has("")
	}
	if d.base.reg != nil {
		for i := range d.base.reg.Fields {
			if name := d.base.reg.Fields[i].Name; name != "" && name != Existence && d.has(name) {
				return true
			}
		}
	}
	for i := range d.ops {
		if op := &d.ops[i]; op.Kind == lattice.Put && op.Field != "" && op.Field != Existence {
			return true
		}
	}
	return false
}

func (d *draft) apply(op *Op) error {
	switch op.Kind {
	case OpPut:
		if d.alive && d.hasOther(op.Field) {
			if op.Field == "" {
				return invalid("register %q has fields; a value without a field can't stand beside them", d.name)
			}
			return invalid("register %q is one value; field %q can't stand beside it", d.name, op.Field)
		}
		d.touch(op)
		d.set(lattice.Put, op.Field, op.Value, d.seen(op, op.Field))
	case OpRemove:
		d.remove(op, op.Field)
	case OpOnly:
		if !d.alive {
			d.touch(op)
		}
		var names []string
		if d.base.reg != nil {
			for i := range d.base.reg.Fields {
				names = append(names, d.base.reg.Fields[i].Name)
			}
		}
		for i := range d.ops {
			names = append(names, d.ops[i].Field)
		}
		for _, name := range names {
			if name != Existence && !slices.Contains(op.Fields, name) {
				d.remove(op, name)
			}
		}
	case OpDelete:
		seen := d.seen(op, Existence)
		i, touched := d.find(Existence)
		if len(seen) == 0 && !touched {
			return nil
		}
		for j := range d.ops {
			d.ops[j].Kind, d.ops[j].Value = lattice.Remove, Value{}
		}
		if touched {
			d.ops[i].Seen = union(d.ops[i].Seen, seen)
		} else {
			d.set(lattice.Remove, Existence, Value{}, seen)
		}
		d.alive = len(d.base.reg.Entries(Existence)) > len(seen)
		d.absent = !d.alive
	}
	return nil
}

func (d *draft) remove(op *Op, field string) {
	if !d.alive && !op.Base {
		return
	}
	seen := d.seen(op, field)
	i, touched := d.find(field)
	if len(seen) == 0 && !(touched && d.ops[i].Kind == lattice.Put) {
		return
	}
	d.touch(op)
	d.set(lattice.Remove, field, Value{}, seen)
}

// finish drops what does nothing, and says whether anything is left.
func (d *draft) finish() bool {
	d.ops = slices.DeleteFunc(d.ops, func(op lattice.Op) bool { return op.Kind == lattice.Remove && len(op.Seen) == 0 })
	return len(d.ops) > 0
}
