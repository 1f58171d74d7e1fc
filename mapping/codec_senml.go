package mapping

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A senmlForm is a SenML pack (RFC 8428) in JSON or CBOR: a list of resolved records, with the members
// n u v vs vb vd s t ut. vd is bytes, t in seconds since 1970.
type senmlForm struct{}

var senmlCodec codec = senmlForm{}

func (senmlForm) traits() traits { return traits{holds: rows, flavour: exact} }

// Labels of CBOR (RFC 8428, section 6).
var senmlLabels = map[int64]string{
	-6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver",
	0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}

var senmlNumbers = func() map[string]int64 {
	out := map[string]int64{}
	for k, v := range senmlLabels {
		out[v] = k
	}
	return out
}()

const (
	senmlVersion  = 10
	senmlRelative = 1 << 28 // times below are relative to now (section 4.5.3)
)

// senmlCBOR tells whether a pack is in CBOR: by its media type, else by its first byte.
func senmlCBOR(p *wrappers.Payload) bool {
	kind, _ := mediaType(p)
	switch {
	case strings.HasSuffix(kind, "cbor"):
		return true
	case strings.HasSuffix(kind, "json"):
		return false
	}
	return len(p.Raw) > 0 && p.Raw[0] >= 0x80 && p.Raw[0] != 0xef // an array, or a tag; not a byte order mark
}

func (senmlForm) decode(p *wrappers.Payload, now time.Time) (engine.Value, error) {
	if err := checkSize(p.Raw); err != nil {
		return engine.Value{}, err
	}
	records, err := senmlRecords(p)
	if err != nil {
		return engine.Value{}, err
	}
	r := senmlResolver{now: decimalSeconds(now)}
	items := make([]engine.Value, 0, len(records))
	for i, rec := range records {
		v, err := r.resolve(rec)
		if err != nil {
			return engine.Value{}, refuse("SenML record %d: %s", i+1, peerText(err))
		}
		if !v.IsAbsent() {
			items = append(items, v)
		}
	}
	return lattice.List(items...), nil
}

func decimalSeconds(at time.Time) engine.Value {
	n, _, _ := lattice.QuoNumbers(lattice.Int(at.UnixMicro()), lattice.Int(1_000_000))
	return n
}

// senmlRecords reads the records as they came, by the labels of JSON.
func senmlRecords(p *wrappers.Payload) ([]engine.Value, error) {
	var pack engine.Value
	if senmlCBOR(p) {
		var x any
		if err := cborRead.Unmarshal(p.Raw, &x); err != nil {
			return nil, refuse("the payload is not CBOR: %s", err)
		}
		list, ok := x.([]any)
		if !ok {
			return nil, refuse("a SenML pack is an array of records")
		}
		items := make([]engine.Value, len(list))
		for i := range list {
			m, ok := list[i].(map[any]any)
			if !ok {
				return nil, refuse("SenML record %d is not a map", i+1)
			}
			members := make([]lattice.Member, 0, len(m))
			seen := make(map[string]bool, len(m))
			for k, v := range m {
				name := ""
				switch k := k.(type) {
				case string:
					name = k
				case int64:
					name = senmlLabels[k]
				case uint64:
					if k <= 8 {
						name = senmlLabels[int64(k)]
					}
				default:
					return nil, refuse("SenML record %d has a label that is neither a number nor a text", i+1)
				}
				if name == "" {
					continue // a label that isn't known is passed over (section 4.4)
				}
				if seen[name] {
					return nil, refuse("SenML record %d has %q twice", i+1, name)
				}
				seen[name] = true
				val, err := fromCBOR(v, 2)
				if err != nil {
					return nil, err
				}
				members = append(members, lattice.Member{Name: name, Value: val})
			}
			items[i] = lattice.Object(members...)
		}
		pack = lattice.List(items...)
	} else {
		var err error
		if pack, err = lattice.ParseJSON(bytes.TrimPrefix(p.Raw, []byte(byteOrderMark))); err != nil {
			return nil, refuse("%s", peerText(err))
		}
	}
	if pack.Kind() != lattice.ListKind {
		return nil, refuse("a SenML pack is an array of records, not %s", kindName(pack))
	}
	if pack.Len() > maxRows {
		return nil, tooLarge("the SenML pack has more than %d records", maxRows)
	}
	return pack.Items(), nil
}

// A senmlResolver carries base fields from record to record (section 4.1).
type senmlResolver struct {
	now                              engine.Value
	name, unit                       string
	at, value, sum                   engine.Value
	hasAt, hasValue, hasSum, counted bool
	version                          int64
}

// resolve gives a record without base fields (section 4.6), absent for one that has nothing else.
func (r *senmlResolver) resolve(rec engine.Value) (engine.Value, error) {
	if !isObject(rec) {
		return absent, notA(rec, "an object")
	}
	var out []lattice.Member
	var name string
	var unit, value, sum, at, other engine.Value
	version := int64(senmlVersion)
	for _, m := range rec.Members() {
		v := m.Value
		var err error
		switch m.Name {
		case "bver":
			if v.Kind() != lattice.IntKind || v.Int() < 1 || v.Int() > senmlVersion {
				return absent, fmt.Errorf("its version %s is not known; versions up to %d are", brief(v), senmlVersion)
			}
			version = v.Int()
		case "bn":
			r.name, err = senmlText(m)
		case "bu":
			r.unit, err = senmlText(m)
		case "bt":
			r.at, r.hasAt, err = v, true, senmlNumber(m)
		case "bv":
			r.value, r.hasValue, err = v, true, senmlNumber(m)
		case "bs":
			r.sum, r.hasSum, err = v, true, senmlNumber(m)
		case "n":
			name, err = senmlText(m)
		case "u":
			unit = v
			_, err = senmlText(m)
		case "v":
			value, err = v, senmlNumber(m)
		case "s":
			sum, err = v, senmlNumber(m)
		case "t":
			at, err = v, senmlNumber(m)
		case "ut":
			out, err = append(out, m), senmlNumber(m)
		case "vs", "vb", "vd":
			if !other.IsAbsent() {
				return absent, fmt.Errorf("it has more than one value")
			}
			if other, err = senmlOther(m); err == nil {
				out = append(out, lattice.Member{Name: m.Name, Value: other})
			}
		default:
			if strings.HasSuffix(m.Name, "_") {
				return absent, fmt.Errorf("%q has to be understood, and is not", m.Name)
			}
			out = append(out, m) // of an extension
		}
		if err != nil {
			return absent, err
		}
	}
	if r.counted && version != r.version {
		return absent, fmt.Errorf("the versions of a pack are all the same")
	}
	r.version, r.counted = version, true
	if !value.IsAbsent() && !other.IsAbsent() {
		return absent, fmt.Errorf("it has more than one value")
	}
	if value.IsAbsent() && other.IsAbsent() && sum.IsAbsent() {
		if name == "" && at.IsAbsent() && unit.IsAbsent() {
			return absent, nil // base fields alone
		}
		if !r.hasValue && !r.hasSum {
			return absent, fmt.Errorf("it has neither a value nor a sum")
		}
	}
	if value.IsAbsent() && other.IsAbsent() && r.hasValue {
		value = lattice.Int(0) // of base and own, the missing one is zero (section 4.1)
	}
	name = r.name + name
	if err := senmlName(name); err != nil {
		return absent, err
	}
	out = append(out, lattice.Member{Name: "n", Value: lattice.String(name)})
	if unit.IsAbsent() && r.unit != "" {
		unit = lattice.String(r.unit)
	}
	out = append(out, lattice.Member{Name: "u", Value: unit})
	var err error
	if !value.IsAbsent() {
		if r.hasValue {
			if value, err = lattice.AddNumbers(value, r.value); err != nil {
				return absent, err
			}
		}
		out = append(out, lattice.Member{Name: "v", Value: value})
	}
	if sum.IsAbsent() && r.hasSum {
		sum = lattice.Int(0)
	}
	if !sum.IsAbsent() {
		if r.hasSum {
			if sum, err = lattice.AddNumbers(sum, r.sum); err != nil {
				return absent, err
			}
		}
		out = append(out, lattice.Member{Name: "s", Value: sum})
	}
	if at.IsAbsent() {
		at = lattice.Int(0)
	}
	if r.hasAt {
		if at, err = lattice.AddNumbers(at, r.at); err != nil {
			return absent, err
		}
	}
	if lattice.CompareNumbers(at, lattice.Int(senmlRelative)) < 0 {
		if at, err = lattice.AddNumbers(at, r.now); err != nil {
			return absent, err
		}
		if lattice.CompareNumbers(at, lattice.Int(senmlRelative)) < 0 {
			return absent, fmt.Errorf("its time lies before 1978")
		}
	}
	out = append(out, lattice.Member{Name: "t", Value: at})
	return lattice.Object(out...), nil
}

func senmlText(m lattice.Member) (string, error) {
	if m.Value.Kind() != lattice.StringKind {
		return "", fmt.Errorf("%s: %w", m.Name, notA(m.Value, "a text"))
	}
	return m.Value.Text(), nil
}

func senmlNumber(m lattice.Member) error {
	if !m.Value.IsNumber() {
		return fmt.Errorf("%s: %w", m.Name, notA(m.Value, "a number"))
	}
	return nil
}

// senmlOther reads the values that are no numbers.
func senmlOther(m lattice.Member) (engine.Value, error) {
	v := m.Value
	switch m.Name {
	case "vs":
		_, err := senmlText(m)
		return v, err
	case "vb":
		if v.Kind() != lattice.BoolKind {
			return v, fmt.Errorf("vb: %w", notA(v, "true or false"))
		}
		return v, nil
	}
	if v.Kind() == lattice.BytesKind {
		return v, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(v.Text(), "="))
	if err != nil || v.Kind() != lattice.StringKind {
		return v, fmt.Errorf("vd: %s is not base64url", brief(v))
	}
	return lattice.Bytes(b), nil
}

// senmlName checks a resolved name (section 4.5.1).
func senmlName(n string) error {
	if n == "" {
		return fmt.Errorf("it has no name")
	}
	for i := range len(n) {
		c := n[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && strings.IndexByte("-:./_", c) >= 0 {
			continue
		}
		return fmt.Errorf("%q can't be a name: it is made of letters, digits and -:./_, and begins with a letter or digit", clip(n))
	}
	return nil
}

// encode writes a pack of resolved records, in CBOR where the previous one was, else in JSON.
func (senmlForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	out := wrappers.Payload{Type: "application/senml+json"}
	if v.Kind() != lattice.ListKind {
		return out, notA(v, "a list of records")
	}
	if v.Len() > maxRows {
		return out, tooLarge("a SenML pack of more than %d records", maxRows)
	}
	inCBOR := prev != nil && len(prev.Raw) > 0 && senmlCBOR(prev)
	packed := make([]any, 0, v.Len())
	items := make([]engine.Value, 0, v.Len())
	for i, rec := range v.Items() {
		members, err := senmlRecord(rec, inCBOR)
		if err != nil {
			return out, fmt.Errorf("record %d: %s", i+1, peerText(err))
		}
		if inCBOR {
			m := make(map[any]any, len(members))
			for _, x := range members {
				if label, ok := senmlNumbers[x.Name]; ok {
					m[label] = toCBOR(x.Value)
				} else {
					m[x.Name] = toCBOR(x.Value)
				}
			}
			packed = append(packed, m)
		} else {
			items = append(items, lattice.Object(members...))
		}
	}
	if inCBOR {
		var err error
		out.Type = "application/senml+cbor"
		out.Raw, err = cborMode.Marshal(packed)
		return out, err
	}
	out.Raw = lattice.List(items...).AppendJSON(nil)
	return out, nil
}

// senmlRecord checks what is to be written, by what is read.
func senmlRecord(rec engine.Value, inCBOR bool) ([]lattice.Member, error) {
	if !isObject(rec) {
		return nil, notA(rec, "an object")
	}
	var members []lattice.Member
	for _, m := range rec.Members() {
		if m.Value.Kind() == lattice.NullKind {
			continue
		}
		if _, base := senmlNumbers[m.Name]; base && strings.HasPrefix(m.Name, "b") {
			return nil, fmt.Errorf("%q is a base field; records are written without", m.Name)
		}
		if m.Name == "vd" && !inCBOR && m.Value.Kind() == lattice.BytesKind {
			m.Value = lattice.String(base64.RawURLEncoding.EncodeToString(m.Value.Bytes()))
		}
		members = append(members, m)
	}
	check := senmlResolver{now: decimalSeconds(tried)}
	if got, err := check.resolve(lattice.Object(append([]lattice.Member(nil), members...)...)); err != nil {
		return nil, err
	} else if got.IsAbsent() {
		return nil, fmt.Errorf("it is empty")
	}
	return members, nil
}
