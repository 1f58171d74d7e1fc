package mapping

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

type cborForm struct{}

func (cborForm) traits() traits { return traits{holds: members, flavour: exact} }

func (cborForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	return decodeCBOR(p.Raw)
}

func (cborForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	raw, err := cborMode.Marshal(toCBOR(v))
	return wrappers.Payload{Raw: raw, Type: "application/cbor"}, err
}

// CBOR of peers is any valid CBOR (RFC 8949), not only the deterministic one that registers are
// stored in.
var cborRead = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: lattice.MaxDepth, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 17,
		IntDec: cbor.IntDecConvertNone, BigIntDec: cbor.BigIntDecodePointer, TimeTag: cbor.DecTagIgnored,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var cborMode = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func decodeCBOR(raw []byte) (engine.Value, error) {
	var x any
	if err := cborRead.Unmarshal(raw, &x); err != nil {
		return engine.Value{}, refuse("the payload is not CBOR: %s", err)
	}
	return fromCBOR(x, 0)
}

func fromCBOR(x any, depth int) (engine.Value, error) {
	if depth > lattice.MaxDepth {
		return engine.Value{}, refuse("nested deeper than %d levels", lattice.MaxDepth)
	}
	switch x := x.(type) {
	case nil:
		return lattice.Null(), nil
	case bool:
		return lattice.Bool(x), nil
	case int64:
		return lattice.Int(x), nil
	case uint64:
		if x <= math.MaxInt64 {
			return lattice.Int(int64(x)), nil
		}
		return fromText(strconv.FormatUint(x, 10))
	case *big.Int:
		return fromBig(x, 0)
	case float64:
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return engine.Value{}, refuse("%v is not a number that can be stored", x)
		}
		return fromText(strconv.FormatFloat(x, 'g', -1, 64))
	case string:
		return lattice.String(x), nil
	case []byte:
		return lattice.Bytes(x), nil
	case []any:
		items := make([]engine.Value, len(x))
		for i := range x {
			var err error
			if items[i], err = fromCBOR(x[i], depth+1); err != nil {
				return engine.Value{}, err
			}
		}
		return lattice.List(items...), nil
	case map[any]any:
		members := make([]lattice.Member, 0, len(x))
		for k, v := range x {
			name, ok := k.(string)
			if !ok {
				return engine.Value{}, refuse("a CBOR map has a key that is not text")
			}
			m, err := fromCBOR(v, depth+1)
			if err != nil {
				return engine.Value{}, err
			}
			members = append(members, lattice.Member{Name: name, Value: m})
		}
		return lattice.Object(members...), nil
	case cbor.Tag:
		if pair, ok := x.Content.([]any); ok && x.Number == 4 && len(pair) == 2 {
			exp, err1 := fromCBOR(pair[0], depth+1)
			coef, err2 := fromCBOR(pair[1], depth+1)
			if err1 != nil || err2 != nil || !coef.IsNumber() || exp.Kind() != lattice.IntKind || exp.Int() < -2000 || exp.Int() > 2000 {
				return engine.Value{}, refuse("a decimal fraction (CBOR tag 4) that can't be read")
			}
			c, e := coef.Decimal()
			return fromBig(c, int(exp.Int())+e)
		}
		return fromCBOR(x.Content, depth+1) // other tags say how to read what can be read without them
	}
	return engine.Value{}, refuse("a CBOR item that can't be stored")
}

func fromBig(c *big.Int, exp int) (engine.Value, error) {
	if c.BitLen() > 400 {
		return engine.Value{}, refuse("a number of more than 100 digits")
	}
	return fromText(c.String() + "e" + strconv.Itoa(exp))
}

func fromText(s string) (engine.Value, error) {
	n, err := lattice.ParseNumber(strings.Replace(s, "e+", "e", 1))
	if err != nil {
		return n, refuse("%s", peerText(err))
	}
	return n, nil
}

// toCBOR gives what most readers know: a decimal is a float where that says the same number, else
// a decimal fraction (RFC 8949, section 3.4.4).
func toCBOR(v engine.Value) any {
	switch v.Kind() {
	case lattice.BoolKind:
		return v.Bool()
	case lattice.IntKind:
		return v.Int()
	case lattice.DecimalKind:
		if f, err := strconv.ParseFloat(v.Number(), 64); err == nil {
			if back, err := fromText(strconv.FormatFloat(f, 'g', -1, 64)); err == nil && back.Equal(v) {
				return f
			}
		}
		c, exp := v.Decimal()
		return cbor.Tag{Number: 4, Content: []any{int64(exp), c}}
	case lattice.StringKind:
		return v.Text()
	case lattice.BytesKind:
		return append([]byte{}, v.Bytes()...) // nil would be written as null
	case lattice.ListKind, lattice.SetKind:
		out := make([]any, v.Len())
		for i, item := range v.Items() {
			out[i] = toCBOR(item)
		}
		return out
	case lattice.ObjectKind:
		out := make(map[string]any, v.Len())
		for _, m := range v.Members() {
			out[m.Name] = toCBOR(m.Value)
		}
		return out
	}
	return nil
}
