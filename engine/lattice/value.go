package lattice

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// The kinds of refusal. Package engine promises them to its callers under the same names.
var (
	ErrInvalid  = errors.New("invalid")
	ErrTooLarge = errors.New("too large")
)

// MaxDepth is how deep lists, objects and sets may nest.
const MaxDepth = 64

// Kind says what a Value holds.
type Kind uint8

// The kinds. A number is IntKind whenever it is integral and fits int64, else DecimalKind, so that equal numbers
// are equal values.
const (
	AbsentKind Kind = iota // the zero Value: nothing is there
	NullKind
	BoolKind
	IntKind
	DecimalKind
	StringKind
	BytesKind
	ListKind
	ObjectKind
	SetKind
)

var kindNames = [...]string{"absent", "null", "bool", "int", "decimal", "string", "bytes", "list", "object", "set"}

// String gives the kind's name as users read it in an error.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// A Value is one immutable piece of shared state. The zero Value is absent. Values are compared by Equal, never by ==.
// They are safe for concurrent use.
type Value struct {
	_    [0]func() // == would compare pointers
	kind Kind
	exp  int32          // of a decimal
	num  int64          // bool, int, a decimal's coefficient if big is nil, else a length
	ptr  unsafe.Pointer // first byte, item or member; *big.Int of a decimal whose coefficient is beyond int64
}

// A Member is one named part of an object.
type Member struct {
	Name  string
	Value Value
}

// Null is JSON's null. It may stand inside lists and objects; a register's field is never null.
func Null() Value { return Value{kind: NullKind} }

// Bool is true or false.
func Bool(b bool) Value {
	if b {
		return Value{kind: BoolKind, num: 1}
	}
	return Value{kind: BoolKind}
}

// Int is a whole number.
func Int(n int64) Value { return Value{kind: IntKind, num: n} }

// String is text. That it is UTF-8 is checked by Validate.
func String(s string) Value {
	return Value{kind: StringKind, num: int64(len(s)), ptr: unsafe.Pointer(unsafe.StringData(s))}
}

// Bytes is data that is not text. It keeps a copy.
func Bytes(b []byte) Value {
	v := String(string(b))
	v.kind = BytesKind
	return v
}

// List keeps its items in their order; it takes the slice over. An absent item is stored as null.
func List(items ...Value) Value {
	for i := range items {
		if items[i].kind == AbsentKind {
			items[i] = Null()
		}
	}
	return sequence(ListKind, items)
}

// Set holds each item once, in the order of Compare; it takes the slice over. Absent items are left out.
func Set(items ...Value) Value {
	items = slices.DeleteFunc(items, Value.IsAbsent)
	for i := 1; i < len(items); i++ {
		if Compare(items[i-1], items[i]) >= 0 {
			slices.SortFunc(items, Compare)
			items = slices.CompactFunc(items, Value.Equal)
			break
		}
	}
	return sequence(SetKind, items)
}

func sequence(kind Kind, items []Value) Value {
	return Value{kind: kind, num: int64(len(items)), ptr: unsafe.Pointer(unsafe.SliceData(items))}
}

// Object holds named members, sorted by name; it takes the slice over. Of two members of one name the last stays.
// Members whose value is absent are left out.
func Object(members ...Member) Value {
	members = slices.DeleteFunc(members, func(m Member) bool { return m.Value.kind == AbsentKind })
	for i := 1; i < len(members); i++ {
		if members[i-1].Name >= members[i].Name {
			slices.SortStableFunc(members, func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
			kept := members[:0]
			for j, m := range members {
				if j+1 == len(members) || members[j+1].Name != m.Name {
					kept = append(kept, m)
				}
			}
			members = kept
			break
		}
	}
	return Value{kind: ObjectKind, num: int64(len(members)), ptr: unsafe.Pointer(unsafe.SliceData(members))}
}

// Kind says what v holds.
func (v Value) Kind() Kind { return v.kind }

// IsAbsent says that nothing is there.
func (v Value) IsAbsent() bool { return v.kind == AbsentKind }

// IsNumber says that v is an int or a decimal.
func (v Value) IsNumber() bool { return v.kind == IntKind || v.kind == DecimalKind }

// Bool is the truth value of a bool, else false.
func (v Value) Bool() bool { return v.kind == BoolKind && v.num != 0 }

// Int is the number of an int, else 0.
func (v Value) Int() int64 {
	if v.kind != IntKind {
		return 0
	}
	return v.num
}

// Text is the text of a string, else "".
func (v Value) Text() string {
	if v.kind != StringKind {
		return ""
	}
	return v.raw()
}

// Bytes is the data of bytes, else nil. It must not be modified.
func (v Value) Bytes() []byte {
	if v.kind != BytesKind {
		return nil
	}
	return unsafe.Slice((*byte)(v.ptr), int(v.num))
}

func (v Value) raw() string { return unsafe.String((*byte)(v.ptr), int(v.num)) }

// Len counts the bytes of a string or bytes, the items of a list or set, the members of an object; else 0.
func (v Value) Len() int {
	if v.kind >= StringKind {
		return int(v.num)
	}
	return 0
}

// Items are those of a list or set, else nil. They must not be modified.
func (v Value) Items() []Value {
	if v.kind != ListKind && v.kind != SetKind {
		return nil
	}
	return unsafe.Slice((*Value)(v.ptr), int(v.num))
}

// Members are those of an object, by name, else nil. They must not be modified.
func (v Value) Members() []Member {
	if v.kind != ObjectKind {
		return nil
	}
	return unsafe.Slice((*Member)(v.ptr), int(v.num))
}

// Member finds one member of an object.
func (v Value) Member(name string) (Value, bool) {
	members := v.Members()
	if len(members) <= 8 {
		for i := range members {
			if members[i].Name == name {
				return members[i].Value, true
			}
		}
		return Value{}, false
	}
	i, ok := slices.BinarySearchFunc(members, name, func(m Member, name string) int { return strings.Compare(m.Name, name) })
	if !ok {
		return Value{}, false
	}
	return members[i].Value, true
}

// Equal says that v and w are the same value: of the same kind, and equal to the last byte.
func (v Value) Equal(w Value) bool {
	if v.kind != w.kind || v.num != w.num || v.exp != w.exp {
		return false
	}
	switch v.kind {
	case DecimalKind:
		if v.ptr == nil || w.ptr == nil {
			return v.ptr == w.ptr
		}
		return v.big().Cmp(w.big()) == 0
	case StringKind, BytesKind:
		return v.raw() == w.raw()
	case ListKind, SetKind:
		return slices.EqualFunc(v.Items(), w.Items(), Value.Equal)
	case ObjectKind:
		return slices.EqualFunc(v.Members(), w.Members(), func(a, b Member) bool { return a.Name == b.Name && a.Value.Equal(b.Value) })
	}
	return true
}

// Compare is a total order of values: by kind in the order of the constants, numbers of both kinds by size, text and
// bytes bytewise, containers item by item. It is 0 exactly where Equal holds.
func Compare(a, b Value) int {
	if a.IsNumber() && b.IsNumber() {
		return CompareNumbers(a, b)
	}
	if a.kind != b.kind {
		return cmp.Compare(a.kind, b.kind)
	}
	switch a.kind {
	case BoolKind:
		return cmp.Compare(a.num, b.num)
	case StringKind, BytesKind:
		return strings.Compare(a.raw(), b.raw())
	case ListKind, SetKind:
		return slices.CompareFunc(a.Items(), b.Items(), Compare)
	case ObjectKind:
		return slices.CompareFunc(a.Members(), b.Members(), func(a, b Member) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), Compare(a.Value, b.Value))
		})
	}
	return 0
}

// Validate says whether v can be stored: text and names are UTF-8, and nothing nests deeper than MaxDepth. The error
// is an ErrInvalid or ErrTooLarge.
func (v Value) Validate() error { return v.validate(0) }

func (v Value) validate(depth int) error {
	switch v.kind {
	case StringKind:
		if !utf8.ValidString(v.raw()) {
			return fmt.Errorf("%w: a string that is not UTF-8; bytes are a kind of their own", ErrInvalid)
		}
	case ListKind, SetKind:
		if depth == MaxDepth {
			return errDepth
		}
		for _, item := range v.Items() {
			if err := item.validate(depth + 1); err != nil {
				return err
			}
		}
	case ObjectKind:
		if depth == MaxDepth {
			return errDepth
		}
		for _, m := range v.Members() {
			if !utf8.ValidString(m.Name) {
				return fmt.Errorf("%w: a member's name that is not UTF-8", ErrInvalid)
			}
			if err := m.Value.validate(depth + 1); err != nil {
				return err
			}
		}
	}
	return nil
}

var errDepth = fmt.Errorf("%w: nested deeper than %d levels", ErrTooLarge, MaxDepth)

// String is v for people: JSON, with bytes in base64 and a set as a list; "" if absent.
func (v Value) String() string { return string(v.AppendJSON(nil)) }
