package lattice

import (
	"fmt"
	"slices"
	"strings"
)

// A Draft turns the edits of one write on one register into what its candidate says: per field at most one operation.
type Draft struct {
	Register string // that the candidate will name
	Base     *Register
	Ops      []Op

	decl   *Decl
	writer *Writer
	room   *[]Dot // for what is seen; shared by the drafts of a write
	alive  bool   // whether it exists, after the edits so far
	absent bool   // its writer saw it absent before the first of them
}

// Begin begins with what the writer had seen: one with a base of its own (if any of the edits have one) saw the register
// absent if it had seen nothing of it; any other saw base. Edits are all of the write's, of this register and others.
func (d *Draft) Begin(register string, base *Register, decl *Decl, writer *Writer, edits []Edit, room *[]Dot) {
	*d = Draft{Register: register, Base: base, decl: decl, writer: writer, alive: base.Exists(decl), Ops: d.Ops[:0], room: room}
	d.absent = !d.alive
	if d.absent && base != nil {
		for i := range edits {
			if e := &edits[i]; e.Register == register && e.Base && (len(e.Seen) > 0 || len(e.SeenFields) > 0) {
				d.absent = false
			}
		}
	}
}

func (d *Draft) find(field string) (int, bool) {
	return slices.BinarySearchFunc(d.Ops, field, func(op Op, field string) int { return strings.Compare(op.Field, field) })
}

// set notes an operation on a field. What an earlier one removes, it removes as well.
func (d *Draft) set(kind OpKind, field string, v Value, seen []Dot) {
	i, ok := d.find(field)
	if ok {
		d.Ops[i].Kind, d.Ops[i].Value, d.Ops[i].Seen = kind, v, union(d.Ops[i].Seen, seen)
		return
	}
	d.Ops = slices.Insert(d.Ops, i, Op{Register: d.Register, Kind: kind, Field: field, Value: v, Seen: seen})
}

func union(a, b []Dot) []Dot {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	return SortDots(append(slices.Clone(a), b...))
}

// seen are the live entries under a name that the writer had seen of a field. What it had seen and is not live any more
// was removed by something this candidate depends on, so no node misses it.
func (d *Draft) seen(e *Edit, field, name string) []Dot {
	return d.seenIf(e, field, d.Base.Entries(name), nil)
}

func (d *Draft) seenIf(e *Edit, field string, entries []Entry, want func(*Entry) bool) []Dot {
	if len(entries) == 0 {
		return nil
	}
	dots, start := *d.room, len(*d.room)
	for i := range entries {
		if x := &entries[i]; (!e.Base || e.saw(field, x.Dot)) && (want == nil || want(x)) {
			dots = append(dots, x.Dot)
		}
	}
	*d.room = dots
	return dots[start:len(dots):len(dots)]
}

func (e *Edit) saw(field string, dot Dot) bool {
	switch {
	case e.Kind == EditDelete && field == Existence, e.Kind != EditOnly && field == e.Field && field != Existence:
		if slices.Contains(e.Seen, dot) {
			return true
		}
	case (field == Existence || field == Deletion) && slices.Contains(e.Seen, dot):
		// Who saw an entry of a field saw the register exist by the same candidate.
		return true
	}
	for i := range e.SeenFields {
		f := &e.SeenFields[i]
		if (f.Field == field || field == Existence) && slices.Contains(f.Dots, dot) {
			return true
		}
	}
	return false
}

// maxEntries bounds the entries that a writer leaves who saw them and changes nothing: those that say that a register
// exists, which pile up where writers with bases of their own had not seen each other, and those of a claim, a peak or an
// item that many wrote at once. Below it all stay, since a remove that knew of some must not take the others.
const maxEntries = 64

var everything = &Edit{} // an edit without a base has seen all there is

// touch makes the register exist: every write says so. One that saw it absent first removes the fields that a delete
// has hidden.
func (d *Draft) touch(e *Edit) {
	if !d.alive {
		if d.absent {
			d.clear()
		}
		d.alive = true
	}
	knows := e
	if d.absent {
		knows = everything // it saw that it was deleted
	}
	marks := d.seen(knows, Deletion, Deletion)
	if _, marked := d.find(Deletion); marked || len(marks) > 0 {
		d.set(Remove, Deletion, Value{}, marks) // also the one that an earlier edit has put
	}
	if i, ok := d.find(Existence); ok && d.Ops[i].Kind == Put && !e.Base {
		return
	}
	seen := d.seen(e, Existence, Existence)
	if live := d.Base.Entries(Existence); e.Base && len(live)-len(seen) >= maxEntries {
		seen = d.seen(everything, Existence, Existence)
	}
	d.set(Put, Existence, Value{}, seen)
}

// clear removes every field there is.
func (d *Draft) clear() {
	if d.Base == nil {
		return
	}
	for i := range d.Base.Fields {
		if name := d.Base.Fields[i].Name; name != Existence && name != Deletion {
			d.set(Remove, name, Value{}, d.seen(everything, name, name))
		}
	}
}

// has says whether a name has entries after the edits so far.
func (d *Draft) has(name string) bool {
	live := d.Base.Entries(name)
	i, ok := d.find(name)
	if !ok {
		return len(live) > 0
	}
	return d.Ops[i].Kind == Put || len(live) > len(d.Ops[i].Seen)
}

// hasOther says whether a field of the other kind is there: a named one if field is "", else "".
func (d *Draft) hasOther(field string) bool {
	other := func(name string) bool {
		base, _ := BaseField(name)
		return name != Existence && name != Deletion && (base == "") != (field == "") && d.has(name)
	}
	if d.Base != nil {
		for i := range d.Base.Fields {
			if other(d.Base.Fields[i].Name) {
				return true
			}
		}
	}
	for i := range d.Ops {
		if d.Ops[i].Kind == Put && other(d.Ops[i].Field) {
			return true
		}
	}
	return false
}

// Apply notes one edit.
func (d *Draft) Apply(e *Edit) error {
	switch e.Kind {
	case EditPut, EditAdd, EditRestore:
		if d.alive && d.hasOther(e.Field) {
			if e.Field == "" {
				return refuse("register %q has fields; a value without a field can't stand beside them", d.Register)
			}
			return refuse("register %q is one value; field %q can't stand beside it", d.Register, e.Field)
		}
		d.touch(e)
		return d.put(e)
	case EditRemove:
		d.remove(e, e.Field)
	case EditOnly:
		if !d.alive {
			d.touch(e)
		}
		for _, field := range d.fields() {
			if !slices.Contains(e.Fields, field) {
				d.remove(e, field)
			}
		}
	case EditDelete:
		d.delete(e)
	}
	return nil
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// fields are those with entries before or after the edits so far.
func (d *Draft) fields() []string {
	var names []string
	note := func(name string) {
		if base, _ := BaseField(name); name != Existence && name != Deletion {
			names = append(names, base)
		}
	}
	if d.Base != nil {
		for i := range d.Base.Fields {
			note(d.Base.Fields[i].Name)
		}
	}
	for i := range d.Ops {
		note(d.Ops[i].Field)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (d *Draft) delete(e *Edit) {
	seen := d.seen(e, Existence, Existence)
	i, touched := d.find(Existence)
	if len(seen) == 0 && !touched {
		return
	}
	for j := range d.Ops {
		d.Ops[j].Kind, d.Ops[j].Value = Remove, Value{}
	}
	if touched {
		d.Ops[i].Seen = union(d.Ops[i].Seen, seen)
	} else {
		d.set(Remove, Existence, Value{}, seen)
	}
	if d.decl.deleteWins() {
		d.set(Put, Deletion, Value{}, d.seen(everything, Deletion, Deletion))
	}
	d.alive = len(d.Base.Entries(Existence)) > len(seen) && !d.decl.deleteWins()
	d.absent = !d.alive
}

// names are those under which a field has entries or operations, items included.
func (d *Draft) names(field string) []string {
	names := []string{field}
	for _, f := range d.Base.Items(field) {
		names = append(names, f.Name)
	}
	for i := range d.Ops {
		if base, item := BaseField(d.Ops[i].Field); item && base == field && !slices.Contains(names, d.Ops[i].Field) {
			names = append(names, d.Ops[i].Field)
		}
	}
	return names
}

func (d *Draft) remove(e *Edit, field string) {
	if !d.alive && !e.Base {
		return
	}
	for _, name := range d.names(field) {
		seen := d.seen(e, field, name)
		i, touched := d.find(name)
		if len(seen) == 0 && !(touched && d.Ops[i].Kind == Put) {
			continue
		}
		d.touch(e)
		d.set(Remove, name, Value{}, seen)
	}
}

// put is what a field's rule makes of a value.
func (d *Draft) put(e *Edit) error {
	rule := d.decl.Rule(e.Field)
	if e.Kind == EditAdd && rule.Kind != Sum && rule.Kind != Union {
		return refuse("register %q, field %q: only a sum or a union can be added to, and it collapses by %s", d.Register, e.Field, rule)
	}
	if !rule.of(e.Value) && (rule.Kind == Max || rule.Kind == Min || rule.Kind == Sum) {
		return refuse("register %q, field %q: %s takes no %s", d.Register, e.Field, rule, e.Value.Kind())
	}
	switch rule.Kind {
	case Sum:
		return d.sum(e)
	case Union:
		return d.unite(e)
	case First, Max, Min, Priority:
		if e.Kind != EditRestore {
			d.compete(e, &rule)
			return nil
		}
	}
	d.replace(e, e.Value, nil)
	return nil
}

// replace removes what the writer saw of a field, or what of it it wants, and adds its own.
func (d *Draft) replace(e *Edit, v Value, want func(*Entry) bool) {
	for _, f := range d.Base.Items(e.Field) {
		if seen := d.seenIf(e, e.Field, f.Entries, want); len(seen) > 0 {
			d.set(Remove, f.Name, Value{}, seen)
		}
	}
	seen := d.seenIf(e, e.Field, d.Base.Entries(e.Field), want)
	if !v.IsAbsent() {
		d.set(Put, e.Field, v, seen)
	} else if len(seen) > 0 {
		d.set(Remove, e.Field, Value{}, seen)
	}
}

// compete is a put of a rule that may keep what is there.
func (d *Draft) compete(e *Edit, rule *Rule) {
	rank := rule.Rank(d.writer.By)
	beaten := func(x *Entry) bool {
		switch rule.Kind {
		case First:
			return false
		case Priority:
			return rule.Rank(x.By) >= rank
		}
		return rule.compare(e.Value, x.Value) > 0
	}
	if rule.Kind == Priority {
		d.replace(e, e.Value, beaten)
		return
	}
	i, edited := d.find(e.Field)
	if edited && d.Ops[i].Kind == Put && !beaten(&Entry{Value: d.Ops[i].Value}) {
		return // an earlier edit of the same write is one that this one has seen
	}
	var best *Entry // of what the writer saw, if its own does not beat it
	better := 0
	b := d.Base.bundle(e.Field)
	b.all(func(x *Entry, _ bool) {
		removed := edited && slices.Contains(d.Ops[i].Seen, x.Dot)
		if removed || e.Base && !e.saw(e.Field, x.Dot) || beaten(x) {
			return
		}
		if better++; best == nil || rule.prefers(x, best) {
			best = x
		}
	})
	switch {
	case best == nil:
		d.replace(e, e.Value, beaten)
	case !edited:
		d.replace(e, Value{}, func(x *Entry) bool { return beaten(x) || better > maxEntries && x != best })
	}
}

// sum gives this origin's own total a new value. Those of others stay.
func (d *Draft) sum(e *Edit) error {
	mine := func(x *Entry) bool {
		return x.Value.IsNumber() && (x.Dot.Origin == d.writer.Self || d.writer.Mine != nil && d.writer.Mine(x.Dot.Origin))
	}
	plain := d.Base.Entries(e.Field)
	i, edited := d.find(e.Field)
	own, all := Int(0), Int(0)
	var err error
	if edited && d.Ops[i].Kind == Put {
		own = d.Ops[i].Value
		all = own
	}
	for j := range plain {
		x := &plain[j]
		if !x.Value.IsNumber() || edited && slices.Contains(d.Ops[i].Seen, x.Dot) {
			continue
		}
		if all, err = AddNumbers(all, x.Value); err != nil {
			return err
		}
		if mine(x) {
			if own, err = AddNumbers(own, x.Value); err != nil {
				return err
			}
		}
	}
	grow := e.Value
	if e.Kind != EditAdd {
		last := all
		if e.Kind == EditPut && (!e.Last.IsAbsent() || e.Meter) {
			if last = e.Last; !last.IsNumber() {
				last = Int(0)
			}
		}
		if e.Meter && e.Kind == EditPut && CompareNumbers(e.Value, last) < 0 {
			last = Int(0) // a new meter
		}
		minus, err := MulNumbers(last, Int(-1))
		if err != nil {
			return err
		}
		if grow, err = AddNumbers(e.Value, minus); err != nil {
			return err
		}
	}
	if own, err = AddNumbers(own, grow); err != nil {
		return err
	}
	// Also without a base only its own entries are removed: all that it adds to is its own total.
	d.set(Put, e.Field, own, d.seenIf(everything, e.Field, plain, mine))
	return nil
}

// unite adds the items that the writer had not seen, and removes those that it saw and doesn't have.
func (d *Draft) unite(e *Edit) error {
	want := map[string]Value{}
	for _, item := range itemsOf(e.Value) {
		if k := item.Kind(); k == ObjectKind || k == ListKind || k == SetKind {
			return refuse("register %q, field %q: an item of a union is one value, not %s", d.Register, e.Field, k)
		}
		want[ItemField(e.Field, item)] = item
	}
	there := map[string]bool{}
	for _, name := range d.names(e.Field) {
		seen := d.seen(e, e.Field, name)
		i, edited := d.find(name)
		if name == e.Field {
			// Written as one value, under another rule: it is taken apart.
			for _, x := range d.Base.Entries(name) {
				for _, item := range itemsOf(x.Value) {
					if key := ItemField(e.Field, item); e.Kind == EditAdd && slices.Contains(seen, x.Dot) {
						want[key] = item
					}
				}
			}
			if len(seen) > 0 {
				d.set(Remove, name, Value{}, seen)
			}
			continue
		}
		there[name] = len(seen) > 0 && !(edited && d.Ops[i].Kind == Remove) || edited && d.Ops[i].Kind == Put
		switch item, stays := want[name]; {
		case there[name] && !stays && e.Kind != EditAdd:
			d.set(Remove, name, Value{}, seen)
		case there[name] && stays && len(seen) > maxEntries:
			d.set(Put, name, item, seen)
		}
	}
	had := map[string]bool{}
	if e.Kind == EditPut {
		for _, item := range itemsOf(e.Last) {
			had[ItemField(e.Field, item)] = true
		}
	}
	for name, item := range want {
		if _, edited := d.find(name); !there[name] && (edited || !had[name]) {
			d.set(Put, name, item, nil)
		}
	}
	return nil
}

// Finish drops what does nothing, and says whether anything is left.
func (d *Draft) Finish() bool {
	d.Ops = slices.DeleteFunc(d.Ops, func(op Op) bool { return op.Kind == Remove && len(op.Seen) == 0 })
	return len(d.Ops) > 0
}

// Forget keeps the draft's room, unless it is much, and nothing that is in it.
func (d *Draft) Forget() {
	clear(d.Ops)
	if cap(d.Ops) > 64 {
		*d = Draft{}
		return
	}
	*d = Draft{Ops: d.Ops[:0]}
}
