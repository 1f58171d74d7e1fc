package mapping

import (
	"fmt"
	"math/big"
	"reflect"

	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// bytesCty carries bytes through HCL untouched: cty normalises strings.
var bytesCty = cty.Capsule("bytes", reflect.TypeFor[engine.Value]())

// Limits of what one expression may make HCL's own evaluation work on.
const (
	maxNodes = 10_000
	maxWork  = 1 << 26 // bytes, times the values that a loop may repeat them for
	maxText  = 1 << 22 // bytes that one function may make
)

// A budget is what is left of maxNodes, and the bytes that were converted.
type budget struct{ nodes, bytes int }

// toCty converts a value for HCL's own evaluation. An absent value has no counterpart; callers
// leave it out.
func toCty(v engine.Value, left *budget) (cty.Value, error) {
	if left.nodes--; left.nodes < 0 {
		return cty.NilVal, refuse("these are too many values for an expression")
	}
	switch v.Kind() {
	case lattice.BoolKind:
		return cty.BoolVal(v.Bool()), nil
	case lattice.IntKind:
		// Of the precision that HCL gives its literals, or else quotients have 19 digits.
		return cty.NumberVal(new(big.Float).SetPrec(512).SetInt64(v.Int())), nil
	case lattice.DecimalKind:
		return cty.ParseNumberVal(v.Number())
	case lattice.StringKind:
		left.bytes += v.Len()
		return cty.StringVal(v.Text()), nil
	case lattice.BytesKind:
		return cty.CapsuleVal(bytesCty, &v), nil
	case lattice.ListKind, lattice.SetKind:
		items := make([]cty.Value, v.Len())
		for i, item := range v.Items() {
			c, err := toCty(item, left)
			if err != nil {
				return cty.NilVal, err
			}
			items[i] = c
		}
		return cty.TupleVal(items), nil
	case lattice.ObjectKind:
		members := make(map[string]cty.Value, v.Len())
		for _, m := range v.Members() {
			c, err := toCty(m.Value, left)
			if err != nil {
				return cty.NilVal, err
			}
			members[m.Name] = c
		}
		return cty.ObjectVal(members), nil
	}
	return cty.NullVal(cty.DynamicPseudoType), nil
}

// fromCty converts a result of HCL's own evaluation.
func fromCty(c cty.Value) (engine.Value, error) { return fromCtyDeep(c, 0) }

func fromCtyDeep(c cty.Value, depth int) (engine.Value, error) {
	c, _ = c.Unmark()
	t := c.Type()
	switch {
	case depth > lattice.MaxDepth:
		return engine.Value{}, refuse("nested deeper than %d", lattice.MaxDepth)
	case !c.IsKnown():
		return engine.Value{}, refuse("an expression gave no value")
	case c.IsNull():
		return lattice.Null(), nil
	case t == cty.Bool:
		return lattice.Bool(c.True()), nil
	case t == cty.Number:
		return fromFloat(c.AsBigFloat())
	case t == cty.String:
		return lattice.String(c.AsString()), nil
	case t == bytesCty:
		return *c.EncapsulatedValue().(*engine.Value), nil
	case t.IsTupleType() || t.IsListType() || t.IsSetType():
		var items []engine.Value
		for it := c.ElementIterator(); it.Next(); {
			_, e := it.Element()
			v, err := fromCtyDeep(e, depth+1)
			if err != nil {
				return engine.Value{}, err
			}
			items = append(items, v)
		}
		return lattice.List(items...), nil
	case t.IsObjectType() || t.IsMapType():
		var members []lattice.Member
		for it := c.ElementIterator(); it.Next(); {
			k, e := it.Element()
			v, err := fromCtyDeep(e, depth+1)
			if err != nil {
				return engine.Value{}, err
			}
			members = append(members, lattice.Member{Name: k.AsString(), Value: v})
		}
		return lattice.Object(members...), nil
	}
	return engine.Value{}, fmt.Errorf("a value of type %s can't be stored", t.FriendlyName())
}

// fromFloat undoes cty's binary fractions: they have 512 bits, 154 digits, so that a hundred
// digits are what was meant.
func fromFloat(f *big.Float) (engine.Value, error) {
	if f.IsInf() {
		return engine.Value{}, refuse("a number without end")
	}
	if f.IsInt() {
		if n, acc := f.Int64(); acc == big.Exact {
			return lattice.Int(n), nil
		}
	}
	return lattice.ParseNumber(f.Text('e', 90))
}
