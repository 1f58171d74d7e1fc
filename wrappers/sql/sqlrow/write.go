package sqlrow

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

func appendHead(b []byte, major byte, n uint64) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, major|25), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, major|27), n)
}

// AppendMap begins a map, or a row, of n names and values.
func AppendMap(b []byte, n int) []byte { return appendHead(b, 5, uint64(n)) }

// AppendList begins a list of n items.
func AppendList(b []byte, n int) []byte { return appendHead(b, 4, uint64(n)) }

// AppendNull writes NULL.
func AppendNull(b []byte) []byte { return append(b, 0xf6) }

// AppendBool writes a truth value.
func AppendBool(b []byte, yes bool) []byte {
	if yes {
		return append(b, 0xf5)
	}
	return append(b, 0xf4)
}

// AppendText writes a text.
func AppendText(b []byte, s string) []byte { return append(appendHead(b, 3, uint64(len(s))), s...) }

// AppendBytes writes bytes.
func AppendBytes(b []byte, s string) []byte { return append(appendHead(b, 2, uint64(len(s))), s...) }

// AppendInt writes an integer.
func AppendInt(b []byte, n int64) []byte {
	if n < 0 {
		return appendHead(b, 1, uint64(-1-n))
	}
	return appendHead(b, 0, uint64(n))
}

// AppendNumber writes a number as what it is: an integer, or a decimal fraction (RFC 8949, section 3.4.4). The error is
// that of a text which is no number.
func AppendNumber(b []byte, n Number) ([]byte, error) {
	if v, err := strconv.ParseInt(string(n), 10, 64); err == nil {
		return AppendInt(b, v), nil
	}
	coef, exp, ok := n.Parts()
	if !ok {
		return b, fmt.Errorf("%q is not a number", string(n))
	}
	if exp != 0 {
		b = AppendInt(append(b, 0xc4, 0x82), int64(exp))
	}
	if coef.IsInt64() {
		return AppendInt(b, coef.Int64()), nil
	}
	tag := byte(0xc2)
	if coef.Sign() < 0 {
		tag = 0xc3
		coef.Neg(coef.Add(coef, big.NewInt(1)))
	}
	raw := coef.Bytes()
	return append(appendHead(append(b, tag), 2, uint64(len(raw))), raw...), nil
}

// AppendAny writes nil, bool, int64, a Number (also json's), string, []byte, []any or map[string]any; maps in the order of
// their names, shorter ones first.
func AppendAny(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return AppendNull(b), nil
	case bool:
		return AppendBool(b, v), nil
	case int64:
		return AppendInt(b, v), nil
	case Number:
		return AppendNumber(b, v)
	case json.Number:
		return AppendNumber(b, Number(v))
	case string:
		return AppendText(b, v), nil
	case []byte:
		return append(appendHead(b, 2, uint64(len(v))), v...), nil
	case []any:
		b = AppendList(b, len(v))
		for _, x := range v {
			if b, err = AppendAny(b, x); err != nil {
				return b, err
			}
		}
		return b, nil
	case map[string]any:
		b = AppendMap(b, len(v))
		names := slices.SortedFunc(maps.Keys(v), func(x, y string) int {
			return cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
		})
		for _, name := range names {
			if b, err = AppendAny(AppendText(b, name), v[name]); err != nil {
				return b, fmt.Errorf("%q: %w", name, err)
			}
		}
		return b, nil
	}
	return b, fmt.Errorf("a %T has no place in a row", v)
}
