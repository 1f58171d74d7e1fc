package engine

import (
	"slices"
	"sort"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A Baseline is what one real server last showed at one address, and the dots behind it: what
// somebody who writes there has seen. Only what differs from it is news.
type Baseline struct {
	Version string          // the server's own, where it has one
	Bind    string          // the meaning under which the fields were read; another one asks again
	Fields  []BaselineField // by field
	Exists  []Dot           // the entries behind the register's existence
	Whole   bool            // the whole document was seen: a field that is not in Fields is not there
	Told    uint64          // newest ordinal told, where every change counts
	Sent    []Sent          // written there, and not yet shown by the feed; oldest first
	was     []Dot           // Exists of before, while that has the dot of no candidate yet
}

// A BaselineField is one field as the server showed it. An absent Value says that it showed the
// address without the field.
type BaselineField struct {
	Field string
	Value Value
	Dots  []Dot

	// Other says that the address shows As where it was told Value: it has a form of its own for it,
	// or, where As is absent, doesn't show it. A write back to where it is not read, say.
	Other bool
	As    Value

	// Lacks says that the address has come to hold a document without the field, from somebody who said nothing of it:
	// to whom it stands as it was, while the server is to be told it again.
	Lacks bool

	self bool // to get the dot of the candidate in whose batch this baseline is stored
	more bool // in addition to Dots, which are still seen
}

// Sent is one write of ours that the server has not shown yet. Of the fields that its bind carries
// outward the server has, once it took it, no others than these.
type Sent struct {
	Fields []BaselineField // an absent Value with Other: the write shows a field that it was not made of
	Exists []Dot
	Gone   bool
	Taken  bool // the server said so; else it may or may not have it
}

// MaxSent is how many writes of ours may be on their way to one address before the next has to
// wait for the feed to show one: what is forgotten would come back as somebody else's.
const MaxSent = 8

// Shown is what a server says of one address now.
type Shown struct {
	Fields  []ShownField // by field; an absent Value: the server says that it is empty
	Adds    []ShownField // increments: news whenever an event shows them, and nothing as state
	Clears  []string     // every field that the address could carry, if it was shown whole
	Whole   bool         // a field of Clears that is not in Fields is not there
	Alone   bool         // the address holds no more than this: what is not in Fields is not touched, and not there either
	Gone    bool         // the address is not there
	Delete  bool         // Gone means that the register goes, not only the fields
	Wire    bool         // a peer was seen writing it: news even where nothing differs
	State   bool         // a snapshot or a read-back: state rather than news
	Ours    bool         // bears our own mark
	Feed    bool         // a feed shows our own writes too
	Asked   bool         // what it has now, after what it has taken: states between two answers are shown to nobody
	Tells   Carries      // what our writes there are made of
	Version string
}

// Carries tells whether a bind carries a field outward, so that a write of ours which lacks it
// clears it. Nil: all of them.
type Carries func(field string) bool

func (c Carries) has(field string) bool { return c == nil || c(field) }

// A ShownField is one field of what a server shows.
type ShownField struct {
	Field string
	Value Value
	Meter bool // the address reports a sum and is never told one: the value is its own reading, whatever the register has
}

// FirstContact says who wins where both sides have a value and neither is known to have seen the other's.
type FirstContact uint8

const (
	AskFirst      FirstContact = iota // nobody: it is a Conflict
	SourceFirst                       // the server
	RegisterFirst                     // the register
)

// A Verdict is what follows from what a server shows.
type Verdict struct {
	Ops       []Op     // a candidate; none: no news
	Next      Baseline // stored with the candidate, or alone
	Conflict  []string // fields on which the sides differ at first contact: nothing is done
	WriteBack bool     // the server is to be told what the register has
}

// Became fills in the dot of the candidate that the verdict's Ops became. The zero Dot: it changed nothing and made none.
func (b *Baseline) Became(d Dot) {
	for i := range b.Fields {
		f := &b.Fields[i]
		switch {
		case !f.self || d == (Dot{}):
		case f.more:
			f.Dots = append(slices.Clone(f.Dots), d)
			slices.SortFunc(f.Dots, Dot.Compare)
		default:
			f.Dots = []Dot{d}
		}
		f.self, f.more = false, false
	}
	if len(b.Exists) == 1 && b.Exists[0] == (Dot{}) {
		if b.Exists[0] = d; d == (Dot{}) {
			b.Exists = b.was
		}
	}
	b.was = nil
}

// Bears tells whether what the server showed came of the candidate with that dot.
func (b *Baseline) Bears(d Dot) bool {
	return slices.Contains(b.Exists, d) || slices.ContainsFunc(b.Fields, func(f BaselineField) bool { return slices.Contains(f.Dots, d) })
}

// Get gives the field as the server last showed it.
func (b *Baseline) Get(field string) (BaselineField, bool) {
	i, ok := slices.BinarySearchFunc(b.Fields, field, func(f BaselineField, s string) int { return strings.Compare(f.Field, s) })
	if !ok {
		return BaselineField{}, false
	}
	return b.Fields[i], true
}

func (b *Baseline) set(f BaselineField) {
	i, ok := slices.BinarySearchFunc(b.Fields, f.Field, func(f BaselineField, s string) int { return strings.Compare(f.Field, s) })
	if ok {
		b.Fields[i] = f
		return
	}
	b.Fields = slices.Insert(b.Fields, i, f)
}

// Holds tells whether the server is known to have, once it shows all that it took, exactly these
// fields and no other of those that are told.
func (b *Baseline) Holds(fields []ShownField, gone bool, tells Carries) bool {
	have := b.Fields
	if n := len(b.Sent); n > 0 {
		if !b.Sent[n-1].Taken {
			return false
		}
		if b.Sent[n-1].Gone {
			return gone
		}
		have = b.Sent[n-1].Fields
	}
	present := 0
	for _, f := range have {
		if !f.Value.IsAbsent() && !f.Lacks && tells.has(f.Field) {
			present++
		}
	}
	if gone {
		return present == 0
	}
	if present != len(fields) {
		return false
	}
	for _, f := range fields {
		i, ok := slices.BinarySearchFunc(have, f.Field, func(f BaselineField, s string) int { return strings.Compare(f.Field, s) })
		if !ok || have[i].Lacks || !have[i].Value.Equal(f.Value) {
			return false
		}
	}
	return true
}

// Knows moves what is behind a baseline to a state that Holds says the server shows already: who writes there next has seen
// all of that state, also candidates that changed nothing of it. It tells whether that is more than before. The receiver's
// fields are not shared with its copies afterwards.
func (b *Baseline) Knows(fields []ShownField, st StateBlock) bool {
	exists, have := &b.Exists, &b.Fields
	if n := len(b.Sent); n > 0 {
		b.Sent = slices.Clone(b.Sent)
		exists, have = &b.Sent[n-1].Exists, &b.Sent[n-1].Fields
	}
	moved := false
	if now := dotsOf(st, Existence); !slices.Equal(*exists, now) {
		*exists, moved = now, true
	}
	*have = slices.Clone(*have)
	for _, f := range fields {
		i, ok := slices.BinarySearchFunc(*have, f.Field, func(f BaselineField, s string) int { return strings.Compare(f.Field, s) })
		if now := dotsOf(st, f.Field); ok && !slices.Equal((*have)[i].Dots, now) {
			(*have)[i].Dots, moved = now, true
		}
	}
	return moved
}

// Stored gives the fields of a block in a baseline's form: what whoever reads them has seen.
func Stored(fields []ShownField, st StateBlock) Sent {
	s := Sent{Gone: len(fields) == 0, Exists: dotsOf(st, Existence)}
	for _, f := range fields {
		s.Fields = append(s.Fields, BaselineField{Field: f.Field, Value: f.Value, Dots: dotsOf(st, f.Field)})
	}
	return s
}

func dotsOf(st StateBlock, field string) []Dot {
	for _, d := range st.Dots {
		if d.Field == field {
			return d.Dots
		}
	}
	return nil
}

// Took moves the baseline to what was written, for a server without a feed: nothing else can have
// come between, since the address was ours.
func (b *Baseline) Took(s Sent, tells Carries) {
	b.Sent = nil
	b.Whole = true
	b.has(s, tells)
}

// has moves the baseline to a write of ours. What the bind only reads there stays as it was last
// shown: the write did not touch it.
func (b *Baseline) has(s Sent, tells Carries) {
	b.Exists = s.Exists
	if s.Gone {
		tells = nil
	}
	b.Fields = slices.Clone(b.Fields)
	for i, f := range b.Fields {
		if tells.has(f.Field) {
			b.Fields[i] = BaselineField{Field: f.Field}
		}
	}
	for _, f := range s.Fields {
		if tells.has(f.Field) {
			b.set(f)
		}
	}
}

// shown is how the address shows the field.
func (f BaselineField) shown() Value {
	if f.Other {
		return f.As
	}
	return f.Value
}

// ShownAs gives a write with the fields that the server shows for it. A field of the write that is
// not among them is one that it doesn't show.
func (w Sent) ShownAs(fields []ShownField) Sent {
	w.Fields = slices.Clone(w.Fields)
	for i := range w.Fields {
		f := &w.Fields[i]
		f.As = fieldIn(fields, f.Field)
		if f.Other = !f.As.Equal(f.Value); !f.Other {
			f.As = Value{}
		}
	}
	for _, s := range fields {
		if !s.Value.IsAbsent() && !slices.ContainsFunc(w.Fields, func(f BaselineField) bool { return f.Field == s.Field }) {
			w.Fields = append(w.Fields, BaselineField{Field: s.Field, Other: true, As: s.Value})
		}
	}
	slices.SortFunc(w.Fields, func(a, b BaselineField) int { return strings.Compare(a.Field, b.Field) })
	return w
}

func fieldIn(fields []ShownField, field string) Value {
	for _, f := range fields {
		if f.Field == field {
			return f.Value
		}
	}
	return Value{}
}

// AddSent notes a write on its way to the server, which has yet to show it. The receiver's list is
// not shared with its copies afterwards.
func (b *Baseline) AddSent(s Sent) {
	b.Sent = slices.Clone(b.Sent)
	if n := len(b.Sent); n > 0 && b.Sent[n-1].same(s) {
		return // tried again
	}
	b.Sent = append(b.Sent, s)
	if n := len(b.Sent); n > MaxSent {
		b.Sent = slices.Delete(b.Sent, 0, n-MaxSent)
	}
}

// Reconcile compares what a server shows with the baseline and with the register's committed
// state. It is a pure function; the caller stores Next in one batch with the candidate.
//
// Per field: what equals the baseline is not news. What differs is a write by somebody who had
// seen the baseline, except where it is a write of ours coming back, or equals what the register
// has. A field without a baseline is first contact if this is state, and else a write by somebody
// who had seen nothing.
func (b Baseline) Reconcile(register string, s Shown, cur StateBlock, first FirstContact) Verdict {
	if s.Asked {
		b.passed(s.Tells)
	}
	next := b
	next.Fields = slices.Clone(b.Fields)
	next.Sent = slices.Clone(b.Sent)
	next.Version = s.Version

	if !s.Feed && s.State {
		next.Sent = nil // this is what it has, whatever we sent
	}
	shown := s.Fields
	if s.Gone {
		shown = nil
	}
	if s.Gone || s.Whole {
		shown = withAbsent(shown, s.Clears)
	}

	var v Verdict
	before, back := b, -1
	if !s.Wire && (s.Feed || s.State) {
		var w Sent
		if w, back = b.returned(s); back >= 0 {
			if s.Feed {
				next.Sent = slices.Clone(b.Sent[back+1:])
			}
			next.has(w, s.Tells)
			if w.Gone {
				return Verdict{Next: next, WriteBack: true}
			}
			// What remains is what the bind only reads, beside it.
			b.Exists, b.Sent, s.Adds, v.WriteBack = w.Exists, nil, nil, true
			shown = slices.DeleteFunc(slices.Clone(shown), func(f ShownField) bool {
				return s.Tells.has(f.Field) || s.Feed && slices.ContainsFunc(w.Fields, func(o BaselineField) bool {
					return o.Field == f.Field && o.shown().Equal(f.Value)
				})
			})
		}
	}

	news := false
	came := 0 // of what was sent, as far as the feed has come
	for _, f := range shown {
		have, known := b.Get(f.Field)
		known = known || b.Whole
		now := fieldOf(cur, f.Field)
		ours, at := b.sent(f, s.Tells)
		switch {
		case known && f.Value.Equal(have.shown()) && !(s.Wire && !s.Whole && !s.Gone):
			if have.Lacks {
				have.Lacks = false
				next.set(have)
			}
			continue
		case !s.Wire && s.Feed && !s.Gone && at > 0 && s.Tells.has(f.Field):
			// Ours, beside a field that somebody else has changed meanwhile. As news it would revert what the register
			// has had since.
			next.set(ours)
			came = max(came, at)
			continue
		case !s.Wire && !f.Meter && f.Value.Equal(now) && (known || s.State):
			// Ours, coming back without a trace of having been sent; or the same thought twice.
			next.set(BaselineField{Field: f.Field, Value: f.Value, Dots: dotsOf(cur, f.Field)})
			next.Exists = dotsOf(cur, Existence)
			continue
		case s.Ours:
			// Written by us before a restart, and the register has moved on since.
			next.set(BaselineField{Field: f.Field, Value: f.Value})
			v.WriteBack = true
			continue
		case !known && s.State && !f.Meter && !now.IsAbsent():
			// First contact: both sides may have a say.
			if f.Value.IsAbsent() {
				next.set(BaselineField{Field: f.Field})
				v.WriteBack = true
				continue
			}
			switch first {
			case AskFirst:
				v.Conflict = append(v.Conflict, f.Field)
				continue
			case RegisterFirst:
				next.set(BaselineField{Field: f.Field, Value: f.Value})
				v.WriteBack = true
				continue
			}
		}
		news = true
		next.set(wrote(f, have, cur))
		op := b.put(register, f, have)
		if f.Value.IsAbsent() {
			if len(have.Dots) == 0 {
				continue
			}
			op.Kind, op.Value = OpRemove, Value{}
		}
		v.Ops = append(v.Ops, op)
	}
	if len(v.Conflict) > 0 {
		return Verdict{Next: before, Conflict: v.Conflict}
	}
	if came > 0 {
		next.Exists, next.Sent = b.Sent[came-1].Exists, slices.Clone(b.Sent[came:])
	}
	if !s.Ours && (s.Wire || !s.State) {
		for _, f := range s.Adds {
			v.Ops = append(v.Ops, Op{Register: register, Kind: OpAdd, Field: f.Field, Value: f.Value})
		}
	}
	if s.Whole && !s.Gone && back < 0 {
		// What the register does not have any more, and the server neither.
		for _, f := range b.Fields {
			if !f.shown().IsAbsent() && !slices.ContainsFunc(shown, func(o ShownField) bool { return o.Field == f.Field }) {
				next.set(BaselineField{Field: f.Field})
			}
		}
	}
	if s.Alone && !s.Gone && back < 0 {
		for i, f := range next.Fields {
			// What is only read there, a meter's reading say, is not for us to tell.
			if !f.shown().IsAbsent() && s.Tells.has(f.Field) && !slices.ContainsFunc(s.Fields, func(o ShownField) bool { return o.Field == f.Field }) {
				next.Fields[i].Lacks = true
				v.WriteBack = true
			}
		}
	}
	next.Whole = next.Whole || s.Whole || s.Gone
	if s.Wire && !news && !s.Gone && s.sameAs(cur) {
		// A peer wrote what was there already: a write all the same, that reverts nothing.
		for _, f := range s.Fields {
			if f.Value.IsAbsent() {
				continue
			}
			have, _ := b.Get(f.Field)
			next.set(wrote(f, have, cur))
			v.Ops = append(v.Ops, b.put(register, f, have))
		}
	}
	if s.Gone {
		if s.Delete {
			// The fields stay, hidden: should a concurrent write keep the register, it returns whole.
			v.Ops = nil
			if cur.Exists && (s.Wire || news || len(b.Exists) > 0) { // it was shown, if without a field
				v.Ops = []Op{{Register: register, Kind: OpDelete, Base: true, Seen: b.Exists}}
			}
		}
		next.Exists, next.Sent = nil, nil
	} else if slices.ContainsFunc(v.Ops, func(o Op) bool { return o.Kind == OpPut || o.Kind == OpAdd || o.Kind == OpRemove }) {
		next.Exists, next.was = []Dot{{}}, b.Exists // the candidate's own
	}
	v.Next = next
	// The register may hold more than the server showed, or a concurrent value that wins.
	v.WriteBack = v.WriteBack || len(v.Ops) > 0 || s.State
	return v
}

// passed moves the baseline to the newest write that the server has taken. Who is asked shows none of those before it any
// more: what equals one of them was written by somebody else.
func (b *Baseline) passed(tells Carries) {
	for i := len(b.Sent) - 1; i >= 0; i-- {
		if w := b.Sent[i]; w.Taken {
			b.has(w, tells)
			if w.Gone {
				b.Exists = nil
			}
			b.Sent = b.Sent[i+1:]
			return
		}
	}
}

// returned finds the write on its way that the server shows; -1: none.
func (b *Baseline) returned(s Shown) (Sent, int) {
	if i := slices.IndexFunc(b.Sent, func(w Sent) bool { return w.Shows(s) }); i >= 0 {
		return b.Sent[i], i
	}
	if len(b.Sent) == 0 || !b.Sent[0].Taken || b.Sent[0].Gone || s.Gone || !s.Ours || !s.Feed || s.State {
		return Sent{}, -1
	}
	if !slices.ContainsFunc(s.Fields, func(f ShownField) bool { have, _ := b.Get(f.Field); return !f.Value.Equal(have.shown()) }) {
		return Sent{}, -1 // an earlier one, shown again
	}
	// By its mark it is ours, and the server has the oldest: it shows it in a form that could not be foreseen.
	return b.Sent[0].ShownAs(s.Fields), 0
}

// sent finds the write on its way that gives a field this value or clears it, and its place from 1; 0: none does.
func (b *Baseline) sent(f ShownField, tells Carries) (BaselineField, int) {
	for i := range b.Sent {
		w := &b.Sent[i]
		j := slices.IndexFunc(w.Fields, func(o BaselineField) bool { return o.Field == f.Field })
		switch {
		case w.Gone:
		case j >= 0 && w.Fields[j].shown().Equal(f.Value):
			return w.Fields[j], i + 1
		case j < 0 && f.Value.IsAbsent() && tells.has(f.Field):
			return BaselineField{Field: f.Field}, i + 1
		}
	}
	return BaselineField{}, 0
}

// Taken notes that the server took a write that a feed has yet to show. It may have shown it already.
func (b *Baseline) Taken(s Sent) {
	b.Sent = slices.Clone(b.Sent)
	for i := range b.Sent {
		if b.Sent[i].same(s) {
			b.Sent[i].Taken = true
		}
	}
}

// TakeBack forgets the newest write on its way: the server refused it.
func (b *Baseline) TakeBack() {
	b.Sent = slices.Clone(b.Sent)
	if n := len(b.Sent); n > 0 {
		b.Sent = b.Sent[:n-1]
	}
}

func (w Sent) same(o Sent) bool {
	return w.Gone == o.Gone && slices.EqualFunc(w.Fields, o.Fields, func(a, b BaselineField) bool {
		return a.Field == b.Field && a.Value.Equal(b.Value) && slices.Equal(a.Dots, b.Dots)
	})
}

// put is a write by somebody who had seen the field as the server had it, and that the register exists as far as the
// server knew.
func (b *Baseline) put(register string, f ShownField, have BaselineField) Op {
	op := Op{Register: register, Kind: OpPut, Field: f.Field, Value: f.Value, Last: have.shown(), Meter: f.Meter, Base: true, Seen: have.Dots}
	if f.Meter && op.Last.IsAbsent() {
		op.Last = lattice.Int(0) // of who never reported, the whole counts
	}
	if len(b.Exists) > 0 {
		op.SeenFields = []FieldDots{{Field: Existence, Dots: b.Exists}}
	}
	return op
}

// wrote is the field's part of the baseline behind a write. Of a set the writer has seen the entries from before as well:
// its own candidate has only the items that are new.
func wrote(f ShownField, have BaselineField, cur StateBlock) BaselineField {
	if f.Value.IsAbsent() {
		return BaselineField{Field: f.Field}
	}
	next := BaselineField{Field: f.Field, Value: f.Value, Dots: have.Dots, self: true}
	if f.Value.Kind() == lattice.SetKind {
		live := dotsOf(cur, f.Field)
		next.Dots, next.more = nil, true
		for _, d := range have.Dots {
			if slices.Contains(live, d) {
				next.Dots = append(next.Dots, d)
			}
		}
	}
	return next
}

// Behind tells whether the baseline is what a state has that was sent or could be: the same entries
// stand behind its fields.
func (b *Baseline) Behind(w Sent) bool {
	return len(w.Fields) > 0 && !slices.ContainsFunc(w.Fields, func(f BaselineField) bool {
		if f.Value.IsAbsent() {
			return false
		}
		have, ok := b.Get(f.Field)
		return !ok || !slices.Equal(have.Dots, f.Dots)
	})
}

// Shows tells whether what the server shows is this write of ours.
func (w Sent) Shows(s Shown) bool {
	if w.Gone || s.Gone {
		return w.Gone && s.Gone
	}
	for _, f := range s.Fields {
		known := slices.ContainsFunc(w.Fields, func(o BaselineField) bool { return o.Field == f.Field })
		if !known && !f.Value.IsAbsent() && s.Tells.has(f.Field) {
			return false
		}
	}
	for _, f := range w.Fields {
		if s.Tells.has(f.Field) && !f.shown().Equal(fieldIn(s.Fields, f.Field)) {
			return false
		}
	}
	return true
}

// sameAs tells whether the register has what is shown.
func (s Shown) sameAs(cur StateBlock) bool {
	for _, f := range s.Fields {
		if !f.Value.Equal(fieldOf(cur, f.Field)) {
			return false
		}
	}
	return len(s.Fields) > 0
}

func withAbsent(shown []ShownField, fields []string) []ShownField {
	out := slices.Clone(shown)
	for _, f := range fields {
		if !slices.ContainsFunc(shown, func(s ShownField) bool { return s.Field == f }) {
			out = append(out, ShownField{Field: f})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Field < out[j].Field })
	return out
}

func fieldOf(st StateBlock, field string) Value {
	if !st.Exists {
		return Value{}
	}
	if field == "" {
		if st.Value.Kind() == lattice.ObjectKind {
			return Value{}
		}
		return st.Value
	}
	v, _ := st.Value.Member(field)
	return v
}
