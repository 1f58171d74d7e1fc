package pgsql

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// A Value is one value as it travels between SQLite and the rows of tables. What each type is made of:
//
//	bool                   Int, 0 or 1
//	int2 int4 int8 oid     Int
//	float4 float8          Float
//	numeric                Int, or Float where that is exactly the number in at most 17 digits, else Str (its digits)
//	text and its like      Str
//	bytea                  Blob
//	timestamptz, timestamp Str: 2026-01-31T12:00:00.000000Z, the latter without Z, so that texts sort as times do
//	date, time, interval   Str, in PostgreSQL's own output form
//	uuid, json, jsonb      Str
//	arrays                 Str: {a,b}
type Value struct {
	Kind ValueKind
	Int  int64
	Flt  float64
	Str  string // of Str and Blob
}

// ValueKind is what a Value holds.
type ValueKind uint8

// The kinds. Null is the zero Value.
const (
	Null ValueKind = iota
	Int
	Float
	Str
	Blob
)

// IntValue, FloatValue, StrValue, BlobValue and BoolValue make values.
func IntValue(n int64) Value     { return Value{Kind: Int, Int: n} }
func FloatValue(f float64) Value { return Value{Kind: Float, Flt: f} }
func StrValue(s string) Value    { return Value{Kind: Str, Str: s} }
func BlobValue(b []byte) Value   { return Value{Kind: Blob, Str: string(b)} }

// BoolValue is 0 or 1.
func BoolValue(b bool) Value {
	if b {
		return IntValue(1)
	}
	return IntValue(0)
}

// IsNull tells whether it is NULL.
func (v Value) IsNull() bool { return v.Kind == Null }

const (
	tsForm   = "2006-01-02T15:04:05.000000"
	dateForm = "2006-01-02"
)

// TimeText gives a moment in the form of timestamptz values.
func TimeText(t time.Time) string { return t.UTC().Format(tsForm) + "Z" }

// ParseTimeText reads that form.
func ParseTimeText(s string) (time.Time, bool) {
	t, err := time.Parse(tsForm, strings.TrimSuffix(s, "Z"))
	return t, err == nil
}

// Number gives the value of a decimal number, in the cheapest form that loses nothing.
func Number(s string) (Value, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return IntValue(n), true
	}
	if !decimal(s) {
		return Value{}, false
	}
	digits := 0
	for i := 0; i < len(s) && s[i] != 'e' && s[i] != 'E'; i++ {
		if digit(s[i]) && (digits > 0 || s[i] != '0') {
			digits++
		}
	}
	f, err := strconv.ParseFloat(s, 64)
	if digits <= 15 && err == nil && (f == 0) == (digits == 0) && math.Abs(f) < 1e300 {
		if f == math.Trunc(f) && math.Abs(f) < 1e15 {
			return IntValue(int64(f)), true
		}
		return FloatValue(f), true
	}
	if r, ok := exactly(s); ok {
		return StrValue(r), true
	}
	return Value{}, false
}

// decimal tells whether s is a number as SQL and JSON write them.
func decimal(s string) bool {
	i, some := 0, false
	if i < len(s) && (s[i] == '-' || s[i] == '+') {
		i++
	}
	for ; i < len(s) && digit(s[i]); i++ {
		some = true
	}
	if i < len(s) && s[i] == '.' {
		for i++; i < len(s) && digit(s[i]); i++ {
			some = true
		}
	}
	if !some {
		return false
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		if i++; i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		from := i
		for ; i < len(s) && digit(s[i]); i++ {
		}
		if i == from {
			return false
		}
	}
	return i == len(s)
}

// maxExponent bounds the digits that a number can be made to have.
const maxExponent = 400

// exactly writes a number without exponent, and without needless zeros.
func exactly(s string) (string, bool) {
	mantissa, exp := s, 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		n, err := strconv.Atoi(s[i+1:])
		if err != nil || n > maxExponent || n < -maxExponent {
			return "", false
		}
		mantissa, exp = s[:i], n
	}
	neg := strings.HasPrefix(mantissa, "-")
	mantissa = strings.TrimLeft(mantissa, "+-")
	whole, frac, _ := strings.Cut(mantissa, ".")
	digits := whole + frac
	point := len(whole) + exp
	for point < 0 {
		digits, point = "0"+digits, point+1
	}
	for point > len(digits) {
		digits += "0"
	}
	whole, frac = strings.TrimLeft(digits[:point], "0"), strings.TrimRight(digits[point:], "0")
	if whole == "" {
		whole = "0"
	}
	out := whole
	if frac != "" {
		out += "." + frac
	}
	if neg && out != "0" {
		out = "-" + out
	}
	return out, true
}

// appendFloat writes as PostgreSQL does: the shortest that reads back.
func appendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	if a := math.Abs(f); a != 0 && (a < 1e-4 || a >= 1e15) {
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	return strconv.AppendFloat(dst, f, 'f', -1, bits)
}

// NumberText gives the digits of a number.
func (v Value) NumberText() string { return string(v.appendNumber(nil)) }

func (v Value) appendNumber(dst []byte) []byte {
	switch v.Kind {
	case Int:
		return strconv.AppendInt(dst, v.Int, 10)
	case Float:
		return append(dst, floatDigits(v.Flt)...)
	}
	return append(dst, v.Str...)
}

// floatDigits gives the digits of a number that was computed in double precision: the 15 that can be trusted, so that
// 0.1 + 0.2 is 0.3.
func floatDigits(f float64) string {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return string(appendFloat(nil, f, 64))
	}
	s := strconv.FormatFloat(f, 'g', 15, 64)
	if text, ok := exactly(s); ok {
		return text
	}
	return s
}

func (v Value) brief() string {
	s := strconv.Quote(v.NumberText())
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

func (v Value) asInt() (int64, bool) {
	switch v.Kind {
	case Int:
		return v.Int, true
	case Float:
		f := math.RoundToEven(v.Flt)
		return int64(f), f >= -1<<63 && f < 1<<63
	case Str:
		n, err := strconv.ParseInt(strings.TrimSpace(v.Str), 10, 64)
		return n, err == nil
	}
	return 0, false
}

func (v Value) asFloat() (float64, bool) {
	switch v.Kind {
	case Int:
		return float64(v.Int), true
	case Float:
		return v.Flt, true
	case Str:
		f, err := strconv.ParseFloat(strings.TrimSpace(v.Str), 64)
		return f, err == nil
	}
	return 0, false
}

// Assign gives a value the type of the column it is put into, where PostgreSQL would (an assignment cast).
func Assign(v Value, from, to OID, zone *time.Location) (Value, error) {
	if v.IsNull() {
		return v, nil
	}
	mismatch := func() (Value, error) {
		e := Errorf(DatatypeMismatch, "a value of type %s can't be put into a column of type %s", TypeOf(from).SQL, TypeOf(to).SQL)
		e.Hint = "You will need to rewrite or cast the expression."
		return Value{}, e
	}
	literal := from == Untyped || from == 0
	switch {
	case from == to:
		switch {
		case to == Numeric && v.Kind == Float && (math.IsNaN(v.Flt) || math.IsInf(v.Flt, 0)):
			return Value{}, Errorf(OutOfRange, "the result is out of range for a number")
		case isText(to) && (v.Kind == Int || v.Kind == Float):
			return StrValue(v.NumberText()), nil
		}
		return v, nil
	case isText(to):
		if v.Kind == Str && (literal || isText(from) || !isTime(from)) {
			return v, nil
		}
		return StrValue(string(AppendText(nil, v, from, zone))), nil
	case v.Kind == Str && (literal || isText(from) && from == 0):
		return ParseText(v.Str, to, zone)
	case to == JSON || to == JSONB:
		if from == JSON || from == JSONB {
			return v, nil
		}
		if literal && (v.Kind == Int || v.Kind == Float) {
			return StrValue(v.NumberText()), nil
		}
		return mismatch()
	case isNumber(to):
		if !isNumber(from) && !literal {
			return mismatch()
		}
		switch to {
		case Numeric:
			if v.Kind == Float && (math.IsNaN(v.Flt) || math.IsInf(v.Flt, 0)) {
				return Value{}, Errorf(OutOfRange, "the value is out of range for type numeric")
			}
			if v.Kind == Str {
				return ParseText(v.Str, Numeric, zone)
			}
			return v, nil
		case Float4, Float8:
			f, ok := v.asFloat()
			if !ok {
				return mismatch()
			}
			return FloatValue(f), nil
		}
		n, ok := v.asInt()
		if !ok {
			return Value{}, Errorf(OutOfRange, "%s out of range", TypeOf(to).SQL)
		}
		return inRange(n, to)
	case to == Bool:
		if literal && v.Kind == Int {
			return v, nil
		}
		return mismatch()
	case isTime(to) && isTime(from):
		return parseTime(v.Str, to, zone)
	case to == Bytea && v.Kind == Blob:
		return v, nil
	}
	return mismatch()
}
