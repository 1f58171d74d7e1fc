package sql

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
)

// A row is what Payload.Raw holds, as CBOR: an object of column → value. A value is nil (NULL),
// bool, int64, a number (of any size), string, []byte, []any or map[string]any. Times are texts by
// RFC 3339. A column that is not there is not spoken of.
type row map[string]any

// A number is an exact decimal number, as text: "-12.50", "1e300".
type number string

// rowType is the media type of a row.
const rowType = "application/cbor"

var rowRead = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxArrayElements: 1 << 20, MaxMapPairs: 1 << 17, MaxNestedLevels: 256,
		IntDec: cbor.IntDecConvertNone, BigIntDec: cbor.BigIntDecodePointer, TimeTag: cbor.DecTagIgnored,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

var rowWrite = func() cbor.EncMode {
	mode, err := cbor.EncOptions{Sort: cbor.SortBytewiseLexical, ShortestFloat: cbor.ShortestFloat16, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// encode writes a row as a payload.
func (r row) encode() ([]byte, error) {
	out := make(map[string]any, len(r))
	for name, v := range r {
		x, err := toCBOR(v)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", name, err)
		}
		out[name] = x
	}
	return rowWrite.Marshal(out)
}

// decodeRow reads a payload. No bytes at all are a row without columns.
func decodeRow(raw []byte) (row, error) {
	if len(raw) == 0 {
		return row{}, nil
	}
	var m map[string]any
	if err := rowRead.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("a row: %w", err)
	}
	out := make(row, len(m))
	for name, v := range m {
		x, err := fromCBOR(v)
		if err != nil {
			return nil, fmt.Errorf("column %q: %w", name, err)
		}
		out[name] = x
	}
	return out, nil
}

func toCBOR(v any) (any, error) {
	switch v := v.(type) {
	case number:
		coef, exp, ok := v.parts()
		if !ok {
			return nil, fmt.Errorf("%q is not a number", string(v))
		}
		if exp == 0 && coef.IsInt64() {
			return coef.Int64(), nil
		}
		return cbor.Tag{Number: 4, Content: []any{int64(exp), coef}}, nil
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = toCBOR(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			var err error
			if out[k], err = toCBOR(v[k]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case []byte:
		return append([]byte{}, v...), nil // nil would be null
	}
	return v, nil
}

func fromCBOR(x any) (any, error) {
	switch x := x.(type) {
	case nil, bool, int64, string, []byte:
		return x, nil
	case uint64:
		if x <= math.MaxInt64 {
			return int64(x), nil
		}
		return number(strconv.FormatUint(x, 10)), nil
	case *big.Int:
		return number(x.String()), nil
	case float64:
		return number(strconv.FormatFloat(x, 'g', -1, 64)), nil
	case []any:
		out := make([]any, len(x))
		for i := range x {
			var err error
			if out[i], err = fromCBOR(x[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	case map[any]any:
		out := make(map[string]any, len(x))
		for k, v := range x {
			name, ok := k.(string)
			if !ok {
				return nil, errors.New("a map with a key that is not text")
			}
			var err error
			if out[name], err = fromCBOR(v); err != nil {
				return nil, err
			}
		}
		return out, nil
	case cbor.Tag:
		if pair, ok := x.Content.([]any); ok && x.Number == 4 && len(pair) == 2 {
			exp, ok1 := integer(pair[0])
			coef, ok2 := integer(pair[1])
			if ok1 && ok2 {
				return number(coef + "e" + exp), nil
			}
		}
		return fromCBOR(x.Content)
	}
	return nil, fmt.Errorf("a %T", x)
}

func integer(x any) (string, bool) {
	switch c := x.(type) {
	case int64:
		return strconv.FormatInt(c, 10), true
	case uint64:
		return strconv.FormatUint(c, 10), true
	case *big.Int:
		return c.String(), true
	}
	return "", false
}

// mostExponent bounds what a number's text may stand for: numeric has 131,072 digits before the
// point and 16,383 behind it.
const mostExponent = 200_000

// parts gives n as coef * 10^exp, without zeros at the end of coef. False: it is no number.
func (n number) parts() (coef *big.Int, exp int, ok bool) {
	s := string(n)
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		e, err := strconv.Atoi(s[i+1:])
		if err != nil || e > mostExponent || e < -mostExponent {
			return nil, 0, false
		}
		exp, s = e, s[:i]
	}
	whole, frac, _ := strings.Cut(s, ".")
	digits := strings.TrimLeft(whole, "+-") + frac
	if digits == "" || strings.Trim(digits, "0123456789") != "" || len(digits) > mostExponent {
		return nil, 0, false
	}
	exp -= len(frac)
	short := strings.TrimRight(digits, "0")
	if short == "" {
		return new(big.Int), 0, true
	}
	if short != digits {
		exp += len(digits) - len(short)
	}
	if exp > 0 && exp <= 18 { // an integer as such
		short, exp = short+strings.Repeat("0", exp), 0
	}
	coef, ok = new(big.Int).SetString(short, 10)
	if ok && strings.HasPrefix(whole, "-") {
		coef.Neg(coef)
	}
	return coef, exp, ok
}

// equal tells whether two numbers are the same, however they are written.
func (n number) equal(o number) bool {
	if n == o {
		return true
	}
	c1, e1, ok1 := n.parts()
	c2, e2, ok2 := o.parts()
	return ok1 && ok2 && e1 == e2 && c1.Cmp(c2) == 0
}

// text writes n without an exponent where that is short.
func (n number) text() string {
	coef, exp, ok := n.parts()
	if !ok || exp > 40 || exp < -40 {
		return string(n)
	}
	s := coef.String()
	if exp >= 0 {
		return s + strings.Repeat("0", exp)
	}
	sign := ""
	if strings.HasPrefix(s, "-") {
		sign, s = "-", s[1:]
	}
	if len(s) <= -exp {
		s = strings.Repeat("0", -exp-len(s)+1) + s
	}
	return sign + s[:len(s)+exp] + "." + s[len(s)+exp:]
}
