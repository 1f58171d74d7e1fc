package mapping

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// refuse makes the error that a peer sees for what it sent.
func refuse(format string, args ...any) error {
	return wrappers.Refuse(wrappers.ErrInvalid, fmt.Sprintf(format, args...))
}

type typeKind uint8

const (
	anyType typeKind = iota
	stringType
	numberType
	boolType
	bytesType
	timeType
	enumType
	listType
	objectType
	setType // of union
)

// A typ is a declared type, with the rule around it.
type typ struct {
	kind    typeKind
	words   []string        // enum
	item    *typ            // list, set
	members map[string]*typ // object
	rule    engine.CollapseRule
}

var anything = &typ{}

func (t *typ) String() string {
	switch t.kind {
	case stringType:
		return "string"
	case numberType:
		return "number"
	case boolType:
		return "bool"
	case bytesType:
		return "bytes"
	case timeType:
		return "time"
	case enumType:
		return `enum("` + strings.Join(t.words, `", "`) + `")`
	case listType:
		return "list(" + t.item.String() + ")"
	case objectType:
		names := t.names()
		for i, n := range names {
			names[i] = n + " = " + t.members[n].String()
		}
		return "object({" + strings.Join(names, ", ") + "})"
	case setType:
		return "union(" + t.item.String() + ")"
	}
	return "any"
}

// declared is the type with its rule, as the user writes it.
func (t *typ) declared() string {
	switch t.rule.Kind {
	case lattice.Latest, lattice.Union:
		return t.String()
	case lattice.Priority:
		return "priority(" + t.String() + ", " + strings.Join(quoteAll(t.rule.Ranks), ", ") + ")"
	}
	return t.rule.Kind.String() + "(" + t.String() + ")"
}

func (t *typ) names() []string {
	names := make([]string, 0, len(t.members))
	for n := range t.members {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// A flavour is what a codec can't tell apart, so that a type may.
type flavour uint8

const (
	exact      flavour = iota // the payload has bytes and numbers of its own (CBOR)
	jsonLike                  // bytes travel as base64
	textual                   // everything is text, of an address
	cells                     // everything is text, of a document: an empty one where a number is wanted is null
	commaCells                // the same with decimal commas
	wholeText                 // one text or number; a number in a text is not a number
	valued                    // exact, and one value is the same as a list of one
)

// document tells whether it is of a document that is all text.
func (f flavour) document() bool { return f == cells || f == commaCells }

// text tells whether a value of the type is one text of a document that is all text.
func (t *typ) text() bool {
	return t.kind != anyType && t.kind != listType && t.kind != objectType && t.kind != setType
}

// empties tells whether an empty text of a document means that there is no value of the type.
func (t *typ) empties() bool {
	return t.kind == numberType || t.kind == boolType || t.kind == timeType || t.kind == enumType && !slices.Contains(t.words, "")
}

// convert gives v the declared type where nothing is lost by it. dropped counts members that a
// typed object has no place for.
func (t *typ) convert(v engine.Value, from flavour, dropped *int) (engine.Value, error) {
	if t.rule.Kind == lattice.Ask && t.several(v) {
		return v, errSeveral
	}
	if from.document() && t.text() {
		v = bareText(v)
	}
	if from == valued && t.text() {
		if v = only(v); v.Kind() == lattice.ListKind {
			return v, fmt.Errorf("these are %d values: %s takes one. Declare union(%s), or list(%s)", v.Len(), article(t.String()), t, t)
		}
	}
	k := v.Kind()
	switch t.kind {
	case anyType:
		return v, nil
	case numberType:
		if v.IsNumber() {
			return v, nil
		}
		if k == lattice.StringKind && from == textual {
			if n, err := lattice.ParseNumber(v.Text()); err == nil {
				return n, nil
			}
		}
		if k == lattice.StringKind && from.document() {
			n, err := parseCell(v.Text(), from == commaCells)
			if err == nil {
				return n, nil
			}
			if from == commaCells {
				return v, fmt.Errorf("%s is not a number with a decimal comma", brief(v))
			}
		}
	case stringType:
		switch {
		case k == lattice.StringKind:
			return v, nil
		case v.IsNumber():
			return lattice.String(v.Number()), nil
		case k == lattice.BoolKind:
			return lattice.String(v.String()), nil
		case k == lattice.BytesKind && utf8.Valid(v.Bytes()):
			return lattice.String(string(v.Bytes())), nil
		}
	case boolType:
		if k == lattice.BoolKind {
			return v, nil
		}
		if k == lattice.StringKind && (from == textual || from.document()) {
			switch strings.TrimSpace(v.Text()) {
			case "true":
				return lattice.Bool(true), nil
			case "false":
				return lattice.Bool(false), nil
			}
		}
	case bytesType:
		switch {
		case k == lattice.BytesKind:
			return v, nil
		case k == lattice.StringKind && from == jsonLike:
			b, err := base64.StdEncoding.Strict().DecodeString(v.Text())
			if err != nil {
				return v, fmt.Errorf("bytes travel as base64 here, and %s is not", brief(v))
			}
			return lattice.Bytes(b), nil
		case k == lattice.StringKind:
			return lattice.Bytes([]byte(v.Text())), nil
		}
	case timeType:
		if k == lattice.StringKind {
			at, err := time.Parse(time.RFC3339Nano, v.Text())
			if err != nil {
				return v, fmt.Errorf("%s is not a time: RFC 3339 is wanted, as in \"2026-01-31T12:00:00Z\"", brief(v))
			}
			return timeValue(at), nil
		}
	case enumType:
		if k == lattice.StringKind && slices.Contains(t.words, v.Text()) {
			return v, nil
		}
		return v, fmt.Errorf("%s is none of %s", brief(v), strings.Join(t.words, ", "))
	case listType:
		if k != lattice.ListKind && (from.document() || from == valued) && k != lattice.SetKind {
			v, k = lattice.List(v), lattice.ListKind // of one
		}
		if k == lattice.ListKind {
			if t.item.kind == anyType {
				return v, nil
			}
			items := make([]engine.Value, v.Len())
			for i, item := range v.Items() {
				var err error
				if items[i], err = t.item.convert(item, from, dropped); err != nil {
					return v, fmt.Errorf("item %d: %w", i, err)
				}
			}
			return lattice.List(items...), nil
		}
	case objectType:
		if k == lattice.ObjectKind {
			members := make([]lattice.Member, 0, v.Len())
			for _, m := range v.Members() {
				mt := t.members[m.Name]
				switch {
				case mt == nil:
					*dropped++
				case m.Value.Kind() == lattice.NullKind:
				case from.document() && mt.empties() && m.Value.Kind() == lattice.StringKind && m.Value.Len() == 0:
				default:
					c, err := mt.convert(m.Value, from, dropped)
					if err != nil {
						return v, fmt.Errorf("%s: %w", m.Name, err)
					}
					members = append(members, lattice.Member{Name: m.Name, Value: c})
				}
			}
			return lattice.Object(members...), nil
		}
	}
	if t.kind == setType {
		return t.convertSet(v, from, dropped)
	}
	return v, fmt.Errorf("%s is %s, not %s", brief(v), kindName(v), article(t.String()))
}

// convertSet takes a list or a set of items, or one item.
func (t *typ) convertSet(v engine.Value, from flavour, dropped *int) (engine.Value, error) {
	items := []engine.Value{v}
	if k := v.Kind(); k == lattice.ListKind || k == lattice.SetKind {
		items = slices.Clone(v.Items())
	}
	for i, item := range items {
		switch item.Kind() {
		case lattice.NullKind, lattice.ListKind, lattice.SetKind, lattice.ObjectKind:
			return v, fmt.Errorf("%s is %s and can't be an item of %s", brief(item), kindName(item), article(t.String()))
		}
		var err error
		if items[i], err = t.item.convert(item, from, dropped); err != nil {
			return v, err
		}
	}
	return lattice.Set(items...), nil
}

// errSeveral: siblings came in as if they were a value.
var errSeveral = errors.New("these are several values, of writers who did not know of each other: choose one of them")

// several tells whether v is what siblings look like to who reads them: a list of values of the type.
func (t *typ) several(v engine.Value) bool {
	switch v.Kind() {
	case lattice.SetKind:
		return true
	case lattice.ListKind:
		return t.kind != listType || v.Len() > 0 && !slices.ContainsFunc(v.Items(), func(item engine.Value) bool { return item.Kind() != lattice.ListKind })
	}
	return false
}

func timeValue(at time.Time) engine.Value {
	return lattice.String(at.UTC().Format(time.RFC3339Nano))
}

func kindName(v engine.Value) string {
	switch v.Kind() {
	case lattice.AbsentKind:
		return "missing"
	case lattice.NullKind:
		return "null"
	case lattice.IntKind, lattice.DecimalKind:
		return "a number"
	case lattice.ObjectKind:
		return "an object"
	case lattice.BytesKind:
		return "bytes"
	}
	return "a " + v.Kind().String()
}

func article(s string) string {
	switch {
	case s == "bytes" || s == "any":
		return s
	case strings.HasPrefix(s, "enum") || strings.HasPrefix(s, "object"):
		return "an " + s
	}
	return "a " + s
}

// brief shows a value in an error.
func brief(v engine.Value) string {
	s := v.String()
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// samples are values with which a bind is tried at load.
func (t *typ) samples() []engine.Value {
	num := func(s string) engine.Value { n, _ := lattice.ParseNumber(s); return n }
	switch t.kind {
	case stringType:
		return []engine.Value{
			lattice.String("on"), lattice.String("Zoë, 50% {x}/#"), lattice.String("21.5"), lattice.String("UID=Ann,OU=People"), lattice.String(""),
			lattice.String(" a\t\"b\"\r\nc"), lattice.String("Zoe\u0308"), lattice.String("null"), lattice.String("007"),
		}
	case numberType:
		return []engine.Value{lattice.Int(0), lattice.Int(1), lattice.Int(-1), num("0.3"), num("21.5"), lattice.Int(9007199254740993), num("1234567.125"), num("0.30000000000000004"), num("-1e-9"), num("123456789012345678901234567890")}
	case boolType:
		return []engine.Value{lattice.Bool(true), lattice.Bool(false)}
	case bytesType:
		return []engine.Value{lattice.Bytes([]byte("abc")), lattice.Bytes([]byte{0, 0xff, 0x80, '\n'})}
	case timeType:
		return []engine.Value{lattice.String("2026-01-31T23:59:58Z"), lattice.String("1999-12-31T00:00:00Z"), lattice.String("2026-07-15T12:30:05Z"), lattice.String("2026-10-25T00:30:00Z"), lattice.String("2026-10-25T01:30:00Z")}
	case enumType:
		var out []engine.Value
		for _, w := range t.words {
			out = append(out, lattice.String(w))
		}
		return out
	case listType:
		items := slices.Clone(t.item.samples())
		out := []engine.Value{lattice.List(), lattice.List(items...)}
		for _, item := range items {
			out = append(out, lattice.List(item))
		}
		return out
	case objectType:
		var members []lattice.Member
		for n, m := range t.members {
			if s := m.samples(); len(s) > 0 {
				members = append(members, lattice.Member{Name: n, Value: s[0]})
			}
		}
		return []engine.Value{lattice.Object(members...)}
	case setType:
		items := t.item.samples()
		return []engine.Value{lattice.Set(), lattice.Set(items[0]), lattice.Set(slices.Clone(items)...)}
	}
	return []engine.Value{num("21.5"), lattice.Int(7), lattice.String("on"), lattice.Bool(true)}
}

// cty gives the type for HCL's own evaluation with unknown values.
func (t *typ) cty() cty.Type {
	if t.rule.Kind == lattice.Ask {
		return cty.DynamicPseudoType // one value, or several
	}
	switch t.kind {
	case stringType, timeType, enumType:
		return cty.String
	case numberType:
		return cty.Number
	case boolType:
		return cty.Bool
	case bytesType:
		return bytesCty
	}
	// Lists and objects come from messages as tuples and objects of any shape.
	return cty.DynamicPseudoType
}
