package entry

import (
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// MediaType is that of payloads.
const MediaType = "application/cbor"

var readMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 17, MaxNestedLevels: 16,
		IntDec: cbor.IntDecConvertNone, BigIntDec: cbor.BigIntDecodePointer, TimeTag: cbor.DecTagIgnored,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var writeMode = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// Members are the attributes that the binds of an address speak of, as its wrappers.Pattern has them.
type Members struct {
	types   *Types
	named   map[string]wrappers.Member // as a bind has them, by key
	open    bool
	secrets bool // too
}

// MembersOf notes the members of a pattern. Nil stands for any attribute.
func (t *Types) MembersOf(p *wrappers.Pattern) *Members {
	m := &Members{types: t, named: map[string]wrappers.Member{}, open: p.Open}
	for _, one := range p.Members {
		m.named[t.key(one.Name)] = one
	}
	return m
}

// Everything stands for any attribute, also one that holds passwords: what it shows is for those to mask who use it.
func (t *Types) Everything() *Members {
	return &Members{types: t, named: map[string]wrappers.Member{}, open: true, secrets: true}
}

// Name gives the member that an attribute is; false: it is none that a bind speaks of. Secrets are members
// only where a bind names them.
func (m *Members) Name(description string) (string, bool) {
	if one, ok := m.named[m.types.key(description)]; ok {
		return one.Name, true
	}
	if !m.open || Secret(description) && !m.secrets {
		return "", false
	}
	return m.types.Name(description), true
}

// Names lists the members that binds name, in order; open: and any others.
func (m *Members) Names() (names []string, open bool) {
	for _, one := range m.named {
		names = append(names, one.Name)
	}
	slices.Sort(names)
	return names, m.open
}

// Payload gives the payload of attributes, of those that are members. An attribute without values is null.
func (m *Members) Payload(attributes []ldapwire.PartialAttribute) (wrappers.Payload, error) {
	out := make(map[string]any, len(attributes))
	for i := range attributes {
		a := &attributes[i]
		name, ok := m.Name(a.Type)
		if !ok {
			continue
		}
		kind := m.kind(a.Type)
		var all []any
		switch was := out[name].(type) { // under another of its names
		case nil:
		case []any:
			all = was
		default:
			all = []any{was}
		}
		for _, v := range a.Vals {
			all = append(all, decodeValue(kind, v))
		}
		switch len(all) {
		case 0:
			out[name] = nil
		case 1:
			out[name] = all[0]
		default:
			out[name] = all
		}
	}
	raw, err := writeMode.Marshal(out)
	return wrappers.Payload{Raw: raw, Type: MediaType}, err
}

// kind is that of the attribute; of one that holds texts, what the bind takes them for.
func (m *Members) kind(description string) Kind {
	kind := m.types.kind(description)
	if kind != Text {
		return kind
	}
	switch m.named[m.types.key(description)].Type {
	case "bool":
		return Boolean
	case "number":
		return Number
	case "time":
		return Time
	}
	return Text
}

func decodeValue(kind Kind, v []byte) any {
	switch kind {
	case Boolean:
		switch string(v) {
		case "TRUE":
			return true
		case "FALSE":
			return false
		}
	case Integer:
		if n, ok := new(big.Int).SetString(string(v), 10); ok && n.String() == string(v) {
			return n
		}
	case Number:
		if n, ok := decimalOf(string(v)); ok {
			return n
		}
	case Time:
		if at, ok := ParseTime(string(v)); ok {
			return FormatRFC3339(at)
		}
	case Binary:
		return slices.Clone(v)
	}
	if utf8.Valid(v) {
		return string(v)
	}
	return slices.Clone(v)
}

// Attributes reads a payload: one attribute for each member, in the order of their names. A member that is
// null or an empty list has no values. No bytes at all are a payload without members. The error is for the
// operator: it says which member no attribute can hold.
func (t *Types) Attributes(raw []byte) ([]ldapwire.PartialAttribute, error) {
	if len(raw) == 0 {
		return nil, nil
	}
	var doc map[string]any
	if err := readMode.Unmarshal(raw, &doc); err != nil {
		return nil, fmt.Errorf("an entry: %w", err)
	}
	out := make([]ldapwire.PartialAttribute, 0, len(doc))
	for name, v := range doc {
		a := ldapwire.PartialAttribute{Type: name}
		list, several := v.([]any)
		if !several && v != nil {
			list = []any{v}
		}
		kind := t.kind(name)
		for _, one := range list {
			b, err := encodeValue(kind, one)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			a.Vals = append(a.Vals, b)
		}
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b ldapwire.PartialAttribute) int { return strings.Compare(a.Type, b.Type) })
	return out, nil
}

func encodeValue(kind Kind, v any) ([]byte, error) {
	switch v := v.(type) {
	case bool:
		if v {
			return []byte("TRUE"), nil
		}
		return []byte("FALSE"), nil
	case int64:
		return strconv.AppendInt(nil, v, 10), nil
	case uint64:
		return strconv.AppendUint(nil, v, 10), nil
	case *big.Int:
		return []byte(v.String()), nil
	case big.Int:
		return []byte(v.String()), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case []byte:
		return v, nil
	case string:
		switch {
		case kind == Boolean && v == "true":
			return []byte("TRUE"), nil
		case kind == Boolean && v == "false":
			return []byte("FALSE"), nil
		case kind == Time:
			if at, ok := ParseRFC3339(v); ok {
				return []byte(FormatTime(at)), nil
			}
		}
		return []byte(v), nil
	case cbor.Tag:
		if pair, ok := v.Content.([]any); ok && v.Number == 4 && len(pair) == 2 {
			return decimal(pair[0], pair[1])
		}
		return encodeValue(kind, v.Content)
	case nil:
		return nil, fmt.Errorf("null among the values")
	}
	return nil, fmt.Errorf("an object or a list is no value of an attribute")
}

// decimalOf reads a number with or without a fraction, as CBOR has it.
func decimalOf(s string) (any, bool) {
	digits := strings.TrimPrefix(s, "-")
	whole, frac, point := strings.Cut(digits, ".")
	if whole == "" || point && frac == "" || len(s) > maxZeros || strings.Trim(whole+frac, "0123456789") != "" {
		return nil, false
	}
	coef, ok := new(big.Int).SetString(strings.Replace(s, ".", "", 1), 10)
	if !ok {
		return nil, false
	}
	if frac == "" {
		return coef, true
	}
	return cbor.Tag{Number: 4, Content: []any{int64(-len(frac)), coef}}, true
}

// maxZeros bounds what a decimal fraction may stand for.
const maxZeros = 1000

// decimal writes coef * 10^exp (RFC 8949, section 3.4.4) without an exponent.
func decimal(exp, coef any) ([]byte, error) {
	e, ok := exp.(int64)
	if !ok || e > maxZeros || e < -maxZeros {
		return nil, fmt.Errorf("a number that can't be written")
	}
	b, err := encodeValue(Integer, coef)
	if err != nil {
		return nil, err
	}
	digits, negative := strings.CutPrefix(string(b), "-")
	switch {
	case e >= 0:
		digits += strings.Repeat("0", int(e))
	default:
		n := int(-e)
		if len(digits) <= n {
			digits = strings.Repeat("0", n-len(digits)+1) + digits
		}
		digits = digits[:len(digits)-n] + "." + digits[len(digits)-n:]
	}
	if negative {
		digits = "-" + digits
	}
	return []byte(digits), nil
}
