package lattice

// An Edit is one operation on one register as its writer means it. Expanding it against what the writer had seen gives
// the Ops of a candidate, which name every entry they remove: a fold that depended on what a receiver holds would diverge.
type Edit struct {
	Register string
	Kind     EditKind
	Field    string // Put, Remove, Add, Restore: "" is the value of a register without fields
	Value    Value  // Put, Add, Restore: not null, not absent
	// Fields, for Only: the fields that stay.
	Fields []string
	// Last, for a Put on a sum: the total that the writer last saw at its address; what counts is the difference to it.
	// Absent: the total that is committed here. Meter: the address only reports, so that a fall means a new meter,
	// whose whole reading is the difference; without Last the whole reading counts.
	// On a union: the set that the writer last saw. An item of it that was removed since is not added again.
	Last  Value
	Meter bool
	// Base: Seen is what the writer had seen of the field (Delete: of the register's existence;
	// Only: per field in SeenFields). Otherwise it had seen what is committed here.
	Base       bool
	Seen       []Dot
	SeenFields []FieldDots
}

// EditKind is what an Edit does.
type EditKind uint8

// The kinds of Edit.
const (
	EditPut     EditKind = iota + 1 // the field gets the value, as its rule has it
	EditRemove                      // the field goes; of a field that is not there: nothing
	EditOnly                        // every seen field goes that is not named in Fields; the register exists, if empty
	EditDelete                      // the register goes
	EditAdd                         // a sum grows by the value, a union by its items
	EditRestore                     // the field gets the value, also where the rule would keep a better one
)

// A Writer is who edits, as rules ask.
type Writer struct {
	Self OriginID // whose candidate it will be
	By   By
	// Mine says whether an origin was this node's before, and is retired: what it had of sums can be taken over.
	Mine func(OriginID) bool
}

// Restore gives the edits with which a register becomes what it was: whatever is not in the value goes, and of an absent
// one the register.
func Restore(register string, was Value) []Edit {
	if was.IsAbsent() {
		return []Edit{{Register: register, Kind: EditDelete}}
	}
	edits := []Edit{{Register: register, Kind: EditOnly}}
	put := func(field string, v Value) {
		edits[0].Fields = append(edits[0].Fields, field)
		edits = append(edits, Edit{Register: register, Kind: EditRestore, Field: field, Value: v})
	}
	if was.Kind() == ObjectKind {
		for _, m := range was.Members() {
			put(m.Name, m.Value)
		}
	} else {
		put("", was)
	}
	return edits
}
