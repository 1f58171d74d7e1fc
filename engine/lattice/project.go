package lattice

import (
	"slices"
	"strings"
)

// A Decl is a Declaration made ready for the registers of its pattern. The nil Decl is that of registers nobody declared.
type Decl struct {
	Declaration
	Unit string // the register that holds all of the group; "" without one
}

// Rule is that of a field; "" is the value of a register without fields.
func (d *Decl) Rule(field string) Rule {
	switch {
	case d == nil:
		return Rule{}
	case field == "":
		return d.Value
	}
	return d.Fields[field]
}

// Mode says when candidates collapse.
func (d *Decl) Mode() CommitMode {
	if d == nil {
		return CommitMode{}
	}
	return d.Commit
}

func (d *Decl) deleteWins() bool { return d != nil && d.DeleteWins }

// FieldDots are the live entries behind one field: what somebody who reads it has seen.
type FieldDots struct {
	Field string // "" for the value of a register without fields; Existence for the register itself
	Dots  []Dot
}

// A View is what readers see of a register.
type View struct {
	Value       Value // absent: it does not exist
	Dots        []FieldDots
	Siblings    []string // fields that somebody has to choose for
	Provisional []string // fields that may still change without anybody writing again
	Incoming    bool
}

// An Eye is what a reader's node knows beside the register.
type Eye struct {
	// Heard is the stamp up to which every member of the domain has been heard: none of them can write an earlier one
	// any more.
	Heard Stamp
	// Missing says that a part of a value is not on this node yet.
	Missing func(Value) bool
}

// A bundle is what lives under one field's name.
type bundle struct {
	field string
	plain []Entry // written as one value
	items []Field // of a union
}

// bundles gives those of g, by field, without Existence and Deletion.
func (g *Register) bundles(yield func(bundle) bool) {
	for i := range g.Fields {
		f := &g.Fields[i]
		if f.Name == Existence || f.Name == Deletion {
			continue
		}
		base, item := BaseField(f.Name)
		b := bundle{field: base}
		if item {
			if i > 0 {
				if before, other := BaseField(g.Fields[i-1].Name); other && before == base {
					continue // the bundle of its first item had it
				}
			}
			if _, found := g.find(base); found {
				continue // the bundle of the value has it
			}
		} else {
			b.plain = f.Entries
		}
		if g.hasItems() {
			b.items = g.Items(base)
		}
		if !yield(b) {
			return
		}
	}
}

// hasItems says whether any field may be a union: most registers have none, and are spared the search.
func (g *Register) hasItems() bool {
	for i := range g.Fields {
		if n := g.Fields[i].Name; len(n) > 1 && strings.IndexByte(n, itemMark) >= 0 {
			return true
		}
	}
	return false
}

// Bundle gives what lives under one field's name.
func (g *Register) bundle(field string) bundle {
	return bundle{field, g.Entries(field), g.Items(field)}
}

// all calls f with each live entry, an item's also.
func (b *bundle) all(f func(e *Entry, item bool)) {
	for i := range b.plain {
		f(&b.plain[i], false)
	}
	for i := range b.items {
		for j := range b.items[i].Entries {
			f(&b.items[i].Entries[j], true)
		}
	}
}

func later(a, b *Entry) bool { return a.Time > b.Time || a.Time == b.Time && a.Dot.Compare(b.Dot) > 0 }

// pick gives the entry that no other beats, nil if there is none.
func (b *bundle) pick(beats func(a, b *Entry) bool) (best *Entry, item bool) {
	b.all(func(e *Entry, isItem bool) {
		if best == nil || beats(e, best) {
			best, item = e, isItem
		}
	})
	return best, item
}

// shown is the value of an entry: an item stands for all there are.
func (b *bundle) shown(e *Entry, item bool) Value {
	if !item {
		return e.Value
	}
	items := make([]Value, len(b.items))
	for i := range b.items {
		items[i] = b.items[i].Entries[0].Value
	}
	return Set(items...)
}

// A verdict is a rule's word on a bundle.
type verdict struct {
	value       Value
	winner      *Entry // that the value comes from; nil where it comes from several
	siblings    bool
	provisional bool
}

// resolve is the rule. It depends on nothing but the entries, whatever rule they were written under.
func (r *Rule) resolve(b *bundle, eye *Eye) verdict {
	switch r.Kind {
	case First:
		e, item := b.pick(r.prefers)
		return verdict{value: b.shown(e, item), winner: e, provisional: e.Time > eye.Heard}
	case Max, Min:
		e, item := b.pick(r.prefers)
		if item && !r.of(e.Value) {
			return verdict{value: b.shown(e, item), winner: e}
		}
		return verdict{value: e.Value, winner: e}
	case Sum:
		if v, ok := b.total(); ok {
			return verdict{value: v}
		}
	case Union:
		return verdict{value: b.set()}
	case Priority:
		e, item := b.pick(func(x, y *Entry) bool {
			rx, ry := r.Rank(x.By), r.Rank(y.By)
			return rx < ry || rx == ry && later(x, y)
		})
		return verdict{value: b.shown(e, item), winner: e}
	case Ask:
		var values []Value
		for i := range b.plain {
			values = append(values, b.plain[i].Value)
		}
		if len(b.items) > 0 {
			values = append(values, b.shown(&b.items[0].Entries[0], true))
		}
		if s := Set(values...); s.Len() > 1 {
			return verdict{value: s, siblings: true}
		}
	}
	e, item := b.pick(later)
	return verdict{value: b.shown(e, item), winner: e}
}

// of says whether a value is of the kind that the rule compares.
func (r *Rule) of(v Value) bool {
	switch r.Of {
	case "number":
		return v.IsNumber()
	case "time", "string":
		return v.Kind() == StringKind
	}
	return true
}

// compare says which of two values the rule prefers: above 0, the first. What is not of the rule's kind, left from another
// rule, comes behind all that is.
func (r *Rule) compare(a, b Value) int {
	if x, y := r.of(a), r.of(b); x != y {
		if x {
			return 1
		}
		return -1
	}
	c := 0
	if r.Of == "time" {
		c = compareTimes(a.Text(), b.Text())
	} else {
		c = Compare(a, b)
	}
	if r.Kind == Min {
		return -c
	}
	return c
}

// prefers says which of two entries stands by max and min: the more extreme, of equal ones the earlier; by first: that.
func (r *Rule) prefers(a, b *Entry) bool {
	if r.Kind == First {
		return later(b, a)
	}
	c := r.compare(a.Value, b.Value)
	return c > 0 || c == 0 && later(b, a)
}

// compareTimes orders times in the form in which they are stored: RFC 3339 in UTC, without trailing zeros.
func compareTimes(a, b string) int {
	return strings.Compare(strings.TrimSuffix(a, "Z"), strings.TrimSuffix(b, "Z"))
}

// total is the sum over all plain numbers.
func (b *bundle) total() (Value, bool) {
	sum, any := Int(0), false
	for i := range b.plain {
		if v := b.plain[i].Value; v.IsNumber() {
			s, err := AddNumbers(sum, v)
			if err != nil {
				return Value{}, false
			}
			sum, any = s, true
		}
	}
	return sum, any
}

// set is all items there are; a value that was written as one is taken apart.
func (b *bundle) set() Value {
	var items []Value
	for i := range b.plain {
		items = append(items, itemsOf(b.plain[i].Value)...)
	}
	for i := range b.items {
		items = append(items, b.items[i].Entries[0].Value)
	}
	return Set(items...)
}

func itemsOf(v Value) []Value {
	switch v.Kind() {
	case ListKind, SetKind:
		var out []Value
		for _, item := range v.Items() {
			if item.Kind() != NullKind && item.Kind() != AbsentKind {
				out = append(out, item)
			}
		}
		return out
	case AbsentKind, NullKind:
		return nil
	}
	return []Value{v}
}

// dots are those of all entries of a bundle, in order and each once.
func (b *bundle) dots(room []Dot) []Dot {
	start := len(room)
	b.all(func(e *Entry, _ bool) { room = append(room, e.Dot) })
	if len(b.items) > 0 {
		return room[:start+len(SortDots(room[start:]))]
	}
	return room
}

// Exists says whether a live entry says so, and no mark of a delete stands against it. The fields of a register that
// does not exist are hidden, not gone: a writer who did not know of the delete brings the whole back.
func (g *Register) Exists(d *Decl) bool {
	return len(g.Entries(Existence)) > 0 && !(d.deleteWins() && len(g.Entries(Deletion)) > 0)
}

// View is what readers see: an object of the fields, each by its rule, or the one value of a register without fields.
// Where writers who did not know of each other used it both with and without fields, the latest write decides which.
func (g *Register) View(d *Decl, eye *Eye) View {
	var v View
	if g == nil || !g.Exists(d) {
		return v
	}
	n := 0
	for i := range g.Fields {
		n += len(g.Fields[i].Entries)
	}
	dots := make([]Dot, 0, n)
	v.Dots = make([]FieldDots, 0, len(g.Fields))
	members := make([]Member, 0, len(g.Fields))
	var one Value
	var hasOne bool
	var newestOne, newest *Entry
	for b := range g.bundles {
		start := len(dots)
		dots = b.dots(dots)
		v.Dots = append(v.Dots, FieldDots{b.field, dots[start:len(dots):len(dots)]})
		if eye.Missing != nil && b.inChunks() {
			var here bool
			if b, here = b.here(eye, &v); !here {
				continue
			}
		}
		rule := d.Rule(b.field)
		verdict := rule.resolve(&b, eye)
		if e, _ := b.pick(later); newest == nil || later(e, newest) {
			newest = e
			if b.field == "" {
				newestOne = e
			}
		}
		if b.field == "" {
			one, hasOne = verdict.value, true
		} else {
			members = append(members, Member{b.field, verdict.value})
		}
		if verdict.siblings {
			v.Siblings = append(v.Siblings, b.field)
		}
		if verdict.provisional {
			v.Provisional = append(v.Provisional, b.field)
		}
	}
	start := len(dots)
	for _, e := range g.Entries(Existence) {
		dots = append(dots, e.Dot)
	}
	v.Dots = append(v.Dots, FieldDots{Existence, dots[start:len(dots):len(dots)]})
	if hasOne && newestOne == newest {
		v.Value = one
	} else {
		v.Value = Object(members...)
	}
	return v
}

// inChunks says whether any entry may have parts that are kept elsewhere.
func (b *bundle) inChunks() bool {
	for i := range b.plain {
		if b.plain[i].Value.kind == ObjectKind {
			return true
		}
	}
	return false
}

// here leaves out the entries a part of which is not here yet, and says whether any is left.
func (b bundle) here(eye *Eye, v *View) (bundle, bool) {
	missing := func(e Entry) bool { return eye.Missing(e.Value) }
	if !slices.ContainsFunc(b.plain, missing) {
		return b, true
	}
	v.Incoming = true
	b.plain = slices.DeleteFunc(slices.Clone(b.plain), missing)
	return b, len(b.plain)+len(b.items) > 0
}
