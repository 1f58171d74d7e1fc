package mapping

import (
	"slices"
	"sort"
	"time"

	"github.com/hashicorp/hcl/v2"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// A Bind says that the addresses of one template are registers of another, and how their payloads
// and fields translate. It is immutable.
type Bind struct {
	id, hash, source string
	rng              hcl.Range
	protocol         string
	wrapperNames     []string
	address          string
	register         *template
	regTree          tree  // of register alone, to read names by it
	regSlots         []int // slot of each capture in the register's name
	slots            []string
	domain           string // QDomain of its registers
	decl             *decl  // nil: not declared
	codec            codec
	form             *template // of text("…")
	formSlots        []int     // slot that a capture of the form names; -1: it is a member

	direction string
	events    bool
	site      string
	onDelete  string
	first     string
	every     time.Duration
	poll      time.Duration
	maxChange ChangeLimit
	readers   []string // nil: not narrowed
	writers   []string
	reply     eval // nil: none
	options   wrappers.Options

	identity  bool     // neither map, in nor out: members and fields have the same names
	mapped    []mapped // map, by field
	ins       []oneWay // in, by field
	outs      []oneWay // out, by member; one without a name is the whole payload
	hasOut    bool
	keys      []key
	when      eval
	whenNeeds bool // depends on the payload
	create    []oneWay
	fields    []capField // captures that are fields
	readable  bool       // an address tells the register
	carried   []string   // fields that out reads; nil with carriesAll
	carryAll  bool
	meters    []string   // fields that an address reports and doesn't show
	each      *each      // the payload is a document of many registers; nil: of one
	filled    bool       // its address has captures that are fields, and is made of the state
	present   bool       // map or in depend on whether the address is there
	marks     []deadMark // delete = { member = value }: what says in a document that its register is gone
	shared    bool       // other binds have the same addresses
	regs      []regCall
	columns   []string // of the row's key: members that stand in the address (Syntax.Keys)
	entries   bool     // its payload is an entry (Syntax.Entries)
	listed    []string // members of the entry that expressions take for lists
	looks     []string // members of the row or the entry that in and when look at
	looksAll  bool     // at any
	broken    bool     // while loading: it has mistakes
}

// A mapped field flows both ways through a path and steps that can be inverted.
type mapped struct {
	field string
	typ   *typ
	path  []string
	steps []*step
	// exists: it is whether the address is there, and no part of the payload.
	exists bool
	rng    hcl.Range
}

// A oneWay is a name with the expression that gives it.
type oneWay struct {
	name string
	typ  *typ
	eval eval
	add  bool // in: by(), an increment
	rng  hcl.Range
}

// A key gives a capture of the register's name.
type key struct {
	slot  int
	eval  eval
	from  int // slot of the capture that steps lead back to; -1: none
	steps []*step
	// path, of a bind with each, is the place in the row that steps lead back to; nil: none.
	path []string
}

// A capField is a capture that is a field.
type capField struct {
	slot  int
	field string
	typ   *typ
}

// ID names the bind for as long as its protocol, address and register stay, whatever the wrapper.
func (b *Bind) ID() string { return b.id }

// Hash names everything the bind means; another hash is another meaning.
func (b *Bind) Hash() string { return b.hash }

// Source is where it is written: "sensors.hcl:12".
func (b *Bind) Source() string { return b.source }

// Protocol is its first label.
func (b *Bind) Protocol() string { return b.protocol }

// Address is its second label, as written.
func (b *Bind) Address() string { return b.address }

// Domain is the QDomain of its registers.
func (b *Bind) Domain() string { return b.domain }

// Register is the template of the registers' names.
func (b *Bind) Register() string { return b.register.text }

// Inward and Outward tell which ways the bind carries anything.
func (b *Bind) Inward() bool {
	return b.direction != "out" && (b.identity || len(b.mapped) > 0 || len(b.ins) > 0 || len(b.fields) > 0)
}

func (b *Bind) Outward() bool {
	return b.direction != "in" && (b.identity || len(b.mapped) > 0 || b.hasOut)
}

// Open tells whether the bind carries the whole register, member by field, so that its address
// going is the register going.
func (b *Bind) Open() bool { return b.identity }

// Whole tells whether all there is at an address is the bind's, so that nothing of what was there
// before is kept by a write.
func (b *Bind) Whole() bool {
	switch {
	case b.each != nil, b.shared, len(b.marks) > 0:
		return false
	case b.codec.traits().whole:
		return true
	case b.codec.traits().flavour.document():
		return false // its order, layout and line ends
	case b.identity:
		return b.decl == nil || !b.decl.closed && !b.decl.value.partial()
	}
	return len(b.mapped) == 1 && len(b.mapped[0].path) == 0 && !b.mapped[0].exists && !b.mapped[0].typ.partial() || len(b.outs) == 1 && b.outs[0].name == ""
}

// Events tells whether every change is told, in order, instead of the newest state.
func (b *Bind) Events() bool { return b.events }

// Site names the gateway that tells of all changes, wherever they were made; "": each tells of those made through it. It
// is about what can't be done twice: Once.
func (b *Bind) Site() string { return b.site }

// Once tells whether what the bind does outward would be another deed if it were done twice: events, and commands.
func (b *Bind) Once() bool { return b.events || b.filled }

// OnDelete is "clear" or "ignore": what it means that an address is gone.
func (b *Bind) OnDelete() string { return b.onDelete }

// First is "source", "register" or "": who wins at first contact.
func (b *Bind) First() string { return b.first }

// Wrappers are the names of the wrappers that it is served by.
func (b *Bind) Wrappers() []string { return b.wrapperNames }

// Options are the protocol's own settings of the bind, checked, with defaults; and "direction",
// which is "both", "in" or "out", and "poll_ms" where the bind has `poll`.
func (b *Bind) Options() wrappers.Options { return b.options }

// Meters lists the fields whose total an address of the bind reports and doesn't show, so that who writes there has
// seen nothing but its own last reading.
func (b *Bind) Meters() []string { return b.meters }

// Waits tells whether what is written to the bind's registers waits to be collapsed, as far as the files here say.
func (b *Bind) Waits() bool { return b.decl != nil && b.decl.commit.Waits() }

// HasCreate tells whether CreatePayload adds anything.
func (b *Bind) HasCreate() bool { return len(b.create) > 0 }

// Carries tells whether a change of this field concerns the bind's addresses. "" is the value of a
// register without fields.
func (b *Bind) Carries(field string) bool {
	switch {
	case !b.Outward(), b.identity && slices.Contains(b.columns, field):
		return false
	case b.carryAll:
		return true
	case b.identity:
		if b.noField(field) {
			return false
		}
		if b.decl == nil {
			return true
		}
		if b.decl.closed {
			return b.decl.fields[field] != nil
		}
		return b.decl.value == nil || field == ""
	}
	return slices.Contains(b.carried, field)
}

// Mapped gives the fields of a register that the bind carries outward, with their present values,
// by field. Fields that are not there are left out.
func (b *Bind) Mapped(register string, st engine.StateBlock) []FieldValue {
	if !st.Exists || !b.Outward() {
		return nil
	}
	if !isObject(st.Value) {
		if b.Carries("") {
			return []FieldValue{{Value: st.Value}}
		}
		return nil
	}
	var out []FieldValue
	there := b.There(st)
	for _, m := range st.Value.Members() {
		if b.Carries(m.Name) && (there || b.saidBy(m.Name)) {
			out = append(out, FieldValue{Field: m.Name, Value: m.Value})
		}
	}
	return out
}

// Clears lists the fields that a whole document at an address of the bind clears where it doesn't
// carry them: what the bind maps inward.
func (b *Bind) Clears(cur engine.StateBlock) []string {
	if !b.Inward() {
		return nil
	}
	var out []string
	if b.identity {
		if !cur.Exists {
			return nil
		}
		if !isObject(cur.Value) {
			return []string{""}
		}
		for _, m := range cur.Value.Members() {
			if (b.decl == nil || !b.decl.closed || b.decl.fields[m.Name] != nil) && !b.noField(m.Name) {
				out = append(out, m.Name)
			}
		}
		return out
	}
	for _, m := range b.mapped {
		out = append(out, m.field)
	}
	for _, o := range b.ins {
		if !o.add { // an increment that is not mentioned is none
			out = append(out, o.name)
		}
	}
	sort.Strings(out)
	return slices.Compact(out)
}

// noField tells whether a member that has the name of a field is none in the bind's documents: a key of a row, or what
// marks a document as deleted.
func (b *Bind) noField(name string) bool {
	return b.isMark(name) || b.each != nil && slices.Contains(b.each.keyed, name)
}

// typeOf gives the declared type of a field, anything if there is none. Nil: the register is
// closed and has no such field.
func (b *Bind) typeOf(field string) *typ {
	switch d := b.decl; {
	case d == nil:
		return anything
	case d.closed:
		return d.fields[field]
	case d.value != nil:
		if field == "" {
			return d.value
		}
		return nil
	}
	return anything
}
