package pgsql

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
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

// AppendText writes a value that is not null in the text form of a type, times in zone.
func AppendText(dst []byte, v Value, o OID, zone *time.Location) []byte {
	switch o {
	case Bool:
		if v.Kind == Int {
			if v.Int != 0 {
				return append(dst, 't')
			}
			return append(dst, 'f')
		}
		if v.Kind == Float {
			return AppendText(dst, BoolValue(v.Flt != 0), o, zone)
		}
	case Bytea:
		if v.Kind == Blob || v.Kind == Str {
			dst = append(dst, '\\', 'x')
			return hex.AppendEncode(dst, []byte(v.Str))
		}
	case Float4, Float8:
		bits := 64
		if o == Float4 {
			bits = 32
		}
		if v.Kind == Float {
			return appendFloat(dst, v.Flt, bits)
		}
		if v.Kind == Int {
			return appendFloat(dst, float64(v.Int), bits)
		}
	case Int2, Int4, Int8, Oid:
		if v.Kind == Float {
			return strconv.AppendInt(dst, int64(math.RoundToEven(v.Flt)), 10)
		}
	case Timestamptz:
		if t, ok := ParseTimeText(v.Str); ok {
			return appendTime(dst, t.In(zone), true)
		}
	case Timestamp:
		if t, ok := ParseTimeText(v.Str); ok {
			return appendTime(dst, t, false)
		}
	}
	switch v.Kind {
	case Int, Float:
		return v.appendNumber(dst)
	}
	return append(dst, v.Str...)
}

func appendTime(dst []byte, t time.Time, zone bool) []byte {
	dst = t.AppendFormat(dst, "2006-01-02 15:04:05.999999")
	if !zone {
		return dst
	}
	_, off := t.Zone()
	sign := byte('+')
	if off < 0 {
		sign, off = '-', -off
	}
	dst = append(dst, sign, byte('0'+off/36000), byte('0'+off/3600%10))
	if m := off / 60 % 60; m != 0 {
		dst = append(dst, ':', byte('0'+m/10), byte('0'+m%10))
	}
	return dst
}

// epoch is 2000-01-01, from which binary times count.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// AppendBinary writes a value that is not null in the binary form of a type.
func AppendBinary(dst []byte, v Value, o OID) ([]byte, error) {
	bad := func() ([]byte, error) {
		return dst, Errorf(InvalidText, "%s is no value of type %s", v.brief(), TypeOf(o).SQL)
	}
	switch o {
	case Bool:
		n, ok := v.asInt()
		if !ok {
			return bad()
		}
		if n != 0 {
			n = 1
		}
		return append(dst, byte(n)), nil
	case Int2, Int4, Int8, Oid, Xid, Regproc, Regclass, Regtype:
		n, ok := v.asInt()
		if !ok {
			return bad()
		}
		switch {
		case o == Int8:
			return binary.BigEndian.AppendUint64(dst, uint64(n)), nil
		case o == Int2:
			if n != int64(int16(n)) {
				return dst, Errorf(OutOfRange, "smallint out of range")
			}
			return binary.BigEndian.AppendUint16(dst, uint16(n)), nil
		case o == Int4 && n != int64(int32(n)):
			return dst, Errorf(OutOfRange, "integer out of range")
		}
		return binary.BigEndian.AppendUint32(dst, uint32(n)), nil
	case Float4, Float8:
		f, ok := v.asFloat()
		if !ok {
			return bad()
		}
		if o == Float4 {
			return binary.BigEndian.AppendUint32(dst, math.Float32bits(float32(f))), nil
		}
		return binary.BigEndian.AppendUint64(dst, math.Float64bits(f)), nil
	case Numeric:
		return appendNumeric(dst, v.NumberText())
	case Timestamptz, Timestamp:
		t, ok := ParseTimeText(v.Str)
		if !ok {
			return bad()
		}
		return binary.BigEndian.AppendUint64(dst, uint64(t.UnixMicro()-epoch.UnixMicro())), nil
	case Date:
		t, err := time.Parse(dateForm, v.Str)
		if err != nil {
			return bad()
		}
		return binary.BigEndian.AppendUint32(dst, uint32(int32((t.Unix()-epoch.Unix())/86400))), nil
	case Time:
		t, err := time.Parse("15:04:05.999999", v.Str)
		if err != nil {
			return bad()
		}
		day := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute + time.Duration(t.Second())*time.Second + time.Duration(t.Nanosecond())
		return binary.BigEndian.AppendUint64(dst, uint64(day/time.Microsecond)), nil
	case Interval:
		iv, ok := parseInterval(v.Str)
		if !ok {
			return bad()
		}
		dst = binary.BigEndian.AppendUint64(dst, uint64(iv.micros))
		dst = binary.BigEndian.AppendUint32(dst, uint32(iv.days))
		return binary.BigEndian.AppendUint32(dst, uint32(iv.months)), nil
	case UUID:
		b, err := hex.DecodeString(strings.ReplaceAll(v.Str, "-", ""))
		if err != nil || len(b) != 16 {
			return bad()
		}
		return append(dst, b...), nil
	case JSONB:
		return append(append(dst, 1), AppendText(nil, v, o, time.UTC)...), nil
	}
	if isArray(o) {
		return appendBinaryArray(dst, v, o)
	}
	if v.Kind == Int || v.Kind == Float {
		return v.appendNumber(dst), nil
	}
	return append(dst, v.Str...), nil
}

func appendBinaryArray(dst []byte, v Value, o OID) ([]byte, error) {
	items, err := ArrayItems(v.Str)
	if err != nil {
		return dst, err
	}
	elem := elemOf(o)
	nulls, dims := uint32(0), uint32(1)
	for i := range items {
		if items[i].IsNull() {
			nulls = 1
		}
	}
	if len(items) == 0 {
		dims = 0
	}
	dst = binary.BigEndian.AppendUint32(dst, dims)
	dst = binary.BigEndian.AppendUint32(dst, nulls)
	dst = binary.BigEndian.AppendUint32(dst, uint32(elem))
	if dims == 0 {
		return dst, nil
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(items)))
	dst = binary.BigEndian.AppendUint32(dst, 1)
	for _, item := range items {
		if item.IsNull() {
			dst = binary.BigEndian.AppendUint32(dst, math.MaxUint32)
			continue
		}
		val, err := ParseText(item.Str, elem, time.UTC)
		if err != nil {
			return dst, err
		}
		at := len(dst)
		dst = binary.BigEndian.AppendUint32(dst, 0)
		if dst, err = AppendBinary(dst, val, elem); err != nil {
			return dst, err
		}
		binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-4))
	}
	return dst, nil
}

// ArrayItems reads {a,"b c",NULL}, of one dimension, and the form of vectors, which is "1 2".
func ArrayItems(s string) ([]Value, error) {
	s = strings.TrimSpace(s)
	bad := Errorf(InvalidText, "malformed array literal: \"%s\"", clip(s))
	if !strings.HasPrefix(s, "{") {
		var out []Value
		for _, f := range strings.Fields(s) {
			out = append(out, StrValue(f))
		}
		return out, nil
	}
	if !strings.HasSuffix(s, "}") || len(s) < 2 {
		return nil, bad
	}
	s = s[1 : len(s)-1]
	var out []Value
	if strings.TrimSpace(s) == "" {
		return out, nil
	}
	for i := 0; ; {
		for i < len(s) && s[i] == ' ' {
			i++
		}
		var b strings.Builder
		quoted := i < len(s) && s[i] == '"'
		if quoted {
			for i++; ; i++ {
				if i >= len(s) {
					return nil, bad
				}
				if s[i] == '"' {
					i++
					break
				}
				if s[i] == '\\' {
					if i++; i >= len(s) {
						return nil, bad
					}
				}
				b.WriteByte(s[i])
			}
			for i < len(s) && s[i] == ' ' {
				i++
			}
		} else {
			for i < len(s) && s[i] != ',' {
				if s[i] == '{' || s[i] == '}' || s[i] == '"' {
					return nil, bad
				}
				if s[i] == '\\' {
					if i++; i >= len(s) {
						return nil, bad
					}
				}
				b.WriteByte(s[i])
				i++
			}
		}
		text := b.String()
		switch {
		case quoted:
			out = append(out, StrValue(text))
		case strings.TrimSpace(text) == "":
			return nil, bad
		case strings.EqualFold(strings.TrimSpace(text), "null"):
			out = append(out, Value{})
		default:
			out = append(out, StrValue(strings.TrimSpace(text)))
		}
		if i >= len(s) {
			return out, nil
		}
		if s[i] != ',' {
			return nil, bad
		}
		i++
	}
}

// ArrayText writes an array of texts.
func ArrayText(items []Value) string {
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range items {
		if i > 0 {
			b.WriteByte(',')
		}
		if v.IsNull() {
			b.WriteString("NULL")
			continue
		}
		s := v.Str
		if v.Kind == Int || v.Kind == Float {
			s = v.NumberText()
		}
		if s == "" || strings.EqualFold(s, "null") || strings.ContainsAny(s, "{},\"\\ \t\n\r") {
			b.WriteByte('"')
			for j := range len(s) {
				if s[j] == '"' || s[j] == '\\' {
					b.WriteByte('\\')
				}
				b.WriteByte(s[j])
			}
			b.WriteByte('"')
		} else {
			b.WriteString(s)
		}
	}
	b.WriteByte('}')
	return b.String()
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

// appendNumeric writes the binary form of numeric: digits of base 10000, weight, sign, scale.
func appendNumeric(dst []byte, s string) ([]byte, error) {
	if s == "NaN" {
		return append(dst, 0, 0, 0, 0, 0xc0, 0, 0, 0), nil
	}
	if s == "Infinity" || s == "-Infinity" {
		return dst, Errorf(OutOfRange, "numeric out of range")
	}
	text, ok := exactly(s)
	if !decimal(s) || !ok {
		return dst, Errorf(InvalidText, "invalid input syntax for type numeric: %q", clip(s))
	}
	sign := uint16(0)
	if strings.HasPrefix(text, "-") {
		sign, text = 0x4000, text[1:]
	}
	whole, frac, _ := strings.Cut(text, ".")
	scale := len(frac)
	for len(whole)%4 != 0 {
		whole = "0" + whole
	}
	for len(frac)%4 != 0 {
		frac += "0"
	}
	weight := len(whole)/4 - 1
	all := whole + frac
	var groups []uint16
	for i := 0; i < len(all); i += 4 {
		n := uint16(0)
		for _, c := range []byte(all[i : i+4]) {
			n = n*10 + uint16(c-'0')
		}
		groups = append(groups, n)
	}
	for len(groups) > 0 && groups[0] == 0 {
		groups, weight = groups[1:], weight-1
	}
	for len(groups) > 0 && groups[len(groups)-1] == 0 {
		groups = groups[:len(groups)-1]
	}
	if len(groups) == 0 {
		weight = 0
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(groups)))
	dst = binary.BigEndian.AppendUint16(dst, uint16(int16(weight)))
	dst = binary.BigEndian.AppendUint16(dst, sign)
	dst = binary.BigEndian.AppendUint16(dst, uint16(scale))
	for _, g := range groups {
		dst = binary.BigEndian.AppendUint16(dst, g)
	}
	return dst, nil
}

// parseNumeric reads it.
func parseNumeric(b []byte) (string, bool) {
	if len(b) < 8 {
		return "", false
	}
	n := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	if len(b) != 8+2*n || n > 1000 || weight > 200 || weight < -1000 || scale > 16383 {
		return "", false
	}
	switch sign {
	case 0xc000:
		return "NaN", true
	case 0, 0x4000:
	default:
		return "", false
	}
	var whole, frac strings.Builder
	for i := 0; i < n; i++ {
		g := binary.BigEndian.Uint16(b[8+2*i:])
		if g > 9999 {
			return "", false
		}
		s := strconv.Itoa(10000 + int(g))[1:]
		if i <= weight {
			whole.WriteString(s)
		} else {
			if i == 0 {
				for range -weight - 1 {
					frac.WriteString("0000")
				}
			}
			frac.WriteString(s)
		}
	}
	for i := n; i <= weight; i++ {
		whole.WriteString("0000")
	}
	f := frac.String()
	for len(f) < scale {
		f += "0"
	}
	s := whole.String() + "." + f[:scale]
	if sign != 0 {
		s = "-" + s
	}
	return exactly(strings.TrimSuffix(s, "."))
}

// ParseText reads a value from the text form of a type.
func ParseText(s string, o OID, zone *time.Location) (Value, error) {
	bad := func() (Value, error) {
		return Value{}, Errorf(InvalidText, "invalid input syntax for type %s: \"%s\"", TypeOf(o).SQL, clipText(s))
	}
	if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return Value{}, Errorf(CharacterNotInRange, "invalid byte sequence for encoding \"UTF8\"")
	}
	switch o {
	case Bool:
		switch t := strings.ToLower(strings.TrimSpace(s)); t {
		case "1", "on":
			return BoolValue(true), nil
		case "0", "off", "of":
			return BoolValue(false), nil
		default:
			if t != "" && strings.HasPrefix("true", t) || t != "" && strings.HasPrefix("yes", t) {
				return BoolValue(true), nil
			}
			if t != "" && strings.HasPrefix("false", t) || t != "" && strings.HasPrefix("no", t) {
				return BoolValue(false), nil
			}
		}
		return bad()
	case Int2, Int4, Int8, Oid, Xid:
		n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
		if err != nil {
			if decimal(strings.TrimSpace(s)) && !strings.ContainsAny(s, ".eE") {
				return Value{}, Errorf(OutOfRange, "value \"%s\" is out of range for type %s", clipText(s), TypeOf(o).SQL)
			}
			return bad()
		}
		return inRange(n, o)
	case Float4, Float8:
		t := strings.TrimSpace(s)
		f, err := strconv.ParseFloat(t, 64)
		if err != nil || strings.ContainsAny(t, "xX_pP") {
			return bad()
		}
		return FloatValue(f), nil
	case Numeric:
		t := strings.TrimSpace(s)
		if strings.EqualFold(t, "nan") {
			return Value{}, Errorf(OutOfRange, "NaN is not a number that is kept here")
		}
		v, ok := Number(t)
		if !ok {
			if decimal(t) {
				return Value{}, Errorf(OutOfRange, "value overflows numeric format")
			}
			return bad()
		}
		return v, nil
	case Bytea:
		return parseBytea(s)
	case Timestamptz, Timestamp, Date:
		return parseTime(s, o, zone)
	case Time:
		for _, f := range []string{"15:04:05.999999", "15:04"} {
			if t, err := time.Parse(f, strings.TrimSpace(s)); err == nil {
				return StrValue(t.Format("15:04:05.999999")), nil
			}
		}
		return Value{}, Errorf(InvalidDatetime, "invalid input syntax for type time: \"%s\"", clipText(s))
	case Interval:
		iv, ok := parseInterval(s)
		if !ok {
			return Value{}, Errorf(InvalidDatetime, "invalid input syntax for type interval: \"%s\"", clipText(s))
		}
		return StrValue(iv.String()), nil
	case UUID:
		b, err := hex.DecodeString(strings.ReplaceAll(strings.Trim(strings.TrimSpace(s), "{}"), "-", ""))
		if err != nil || len(b) != 16 {
			return bad()
		}
		h := hex.EncodeToString(b)
		return StrValue(h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]), nil
	case JSON, JSONB:
		if !json.Valid([]byte(s)) {
			return bad()
		}
		if o == JSONB {
			return StrValue(Compact(s)), nil
		}
		return StrValue(s), nil
	}
	return StrValue(s), nil
}

func clipText(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func inRange(n int64, o OID) (Value, error) {
	if o == Int2 && n != int64(int16(n)) || o == Int4 && n != int64(int32(n)) || (o == Oid || o == Xid) && n != int64(uint32(n)) {
		return Value{}, Errorf(OutOfRange, "value \"%d\" is out of range for type %s", n, TypeOf(o).SQL)
	}
	return IntValue(n), nil
}

func parseBytea(s string) (Value, error) {
	if strings.HasPrefix(s, `\x`) {
		b, err := hex.DecodeString(strings.Join(strings.Fields(s[2:]), ""))
		if err != nil {
			return Value{}, Errorf(InvalidText, "invalid hexadecimal data")
		}
		return BlobValue(b), nil
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] != '\\':
			out = append(out, s[i])
		case i+1 < len(s) && s[i+1] == '\\':
			out = append(out, '\\')
			i++
		case i+3 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+4], 8, 8)
			if err != nil {
				return Value{}, Errorf(InvalidText, "invalid input syntax for type bytea")
			}
			out = append(out, byte(n))
			i += 3
		default:
			return Value{}, Errorf(InvalidText, "invalid input syntax for type bytea")
		}
	}
	return BlobValue(out), nil
}

// ParseBinary reads a value from the binary form of a type.
func ParseBinary(b []byte, o OID) (Value, error) {
	bad := func() (Value, error) {
		return Value{}, Errorf("22P03", "incorrect binary data format for type %s", TypeOf(o).SQL)
	}
	switch o {
	case Bool:
		if len(b) != 1 {
			return bad()
		}
		return BoolValue(b[0] != 0), nil
	case Int2:
		if len(b) != 2 {
			return bad()
		}
		return IntValue(int64(int16(binary.BigEndian.Uint16(b)))), nil
	case Int4:
		if len(b) != 4 {
			return bad()
		}
		return IntValue(int64(int32(binary.BigEndian.Uint32(b)))), nil
	case Oid, Xid:
		if len(b) != 4 {
			return bad()
		}
		return IntValue(int64(binary.BigEndian.Uint32(b))), nil
	case Int8:
		if len(b) != 8 {
			return bad()
		}
		return IntValue(int64(binary.BigEndian.Uint64(b))), nil
	case Float4:
		if len(b) != 4 {
			return bad()
		}
		// The shortest text that means the same float4, as PostgreSQL shows it.
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 'g', -1, 32), 64)
		if err != nil {
			return bad()
		}
		return FloatValue(f), nil
	case Float8:
		if len(b) != 8 {
			return bad()
		}
		return FloatValue(math.Float64frombits(binary.BigEndian.Uint64(b))), nil
	case Numeric:
		s, ok := parseNumeric(b)
		if !ok {
			return bad()
		}
		return ParseText(s, Numeric, time.UTC)
	case Bytea:
		return BlobValue(b), nil
	case Timestamptz, Timestamp:
		if len(b) != 8 {
			return bad()
		}
		n := int64(binary.BigEndian.Uint64(b))
		if n > maxMicros || n < -maxMicros {
			return Value{}, Errorf("22008", "timestamp out of range")
		}
		t := time.UnixMicro(epoch.UnixMicro() + n).UTC()
		if y := t.Year(); y < 1 || y > 9999 {
			return Value{}, Errorf("22008", "timestamp out of range")
		}
		s := t.Format(tsForm)
		if o == Timestamptz {
			s += "Z"
		}
		return StrValue(s), nil
	case Date:
		if len(b) != 4 {
			return bad()
		}
		n := int32(binary.BigEndian.Uint32(b))
		if n > 2900000 || n < -730000 {
			return Value{}, Errorf("22008", "date out of range")
		}
		return StrValue(epoch.AddDate(0, 0, int(n)).Format(dateForm)), nil
	case Time:
		if len(b) != 8 {
			return bad()
		}
		n := int64(binary.BigEndian.Uint64(b))
		if n < 0 || n > 24*3600*1e6 {
			return bad()
		}
		return StrValue(epoch.Add(time.Duration(n) * time.Microsecond).Format("15:04:05.999999")), nil
	case Interval:
		if len(b) != 16 {
			return bad()
		}
		iv := interval{micros: int64(binary.BigEndian.Uint64(b)), days: int32(binary.BigEndian.Uint32(b[8:])), months: int32(binary.BigEndian.Uint32(b[12:]))}
		return StrValue(iv.String()), nil
	case UUID:
		return ParseText(hex.EncodeToString(b), UUID, time.UTC)
	case JSONB:
		if len(b) < 1 || b[0] != 1 {
			return bad()
		}
		return ParseText(string(b[1:]), JSONB, time.UTC)
	}
	if isArray(o) {
		return parseBinaryArray(b, o)
	}
	return ParseText(string(b), o, time.UTC)
}

const maxMicros = 1 << 60 // of binary times

func parseBinaryArray(b []byte, o OID) (Value, error) {
	bad := Errorf("22P03", "incorrect binary data format for type %s", TypeOf(o).SQL)
	if len(b) < 12 {
		return Value{}, bad
	}
	dims := binary.BigEndian.Uint32(b)
	elem := OID(binary.BigEndian.Uint32(b[8:]))
	if dims == 0 {
		return StrValue("{}"), nil
	}
	if dims != 1 || len(b) < 20 {
		return Value{}, Errorf(FeatureNotSupported, "arrays of several dimensions are not supported here")
	}
	n := binary.BigEndian.Uint32(b[12:])
	b = b[20:]
	var items []Value
	for range n {
		if len(b) < 4 {
			return Value{}, bad
		}
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if size == -1 {
			items = append(items, Value{})
			continue
		}
		if size < 0 || int(size) > len(b) {
			return Value{}, bad
		}
		v, err := ParseBinary(b[:size], elem)
		if err != nil {
			return Value{}, err
		}
		items = append(items, StrValue(string(AppendText(nil, v, elem, time.UTC))))
		b = b[size:]
	}
	return StrValue(ArrayText(items)), nil
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

// AppendJSON writes a value as the member of a JSON document.
func AppendJSON(dst []byte, v Value, o OID) []byte {
	if v.IsNull() {
		return append(dst, "null"...)
	}
	switch o {
	case Bool:
		return strconv.AppendBool(dst, v.Int != 0)
	case Int2, Int4, Int8, Oid, Numeric, Float4, Float8:
		if v.Kind == Float && v.Flt == math.Trunc(v.Flt) && math.Abs(v.Flt) < 1e15 {
			return strconv.AppendInt(dst, int64(v.Flt), 10)
		}
		if v.Kind == Float && (o == Float4 || o == Float8) {
			return strconv.AppendFloat(dst, v.Flt, 'g', -1, 64)
		}
		return v.appendNumber(dst)
	case JSON, JSONB:
		return append(dst, v.Str...)
	case Bytea:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, []byte(v.Str))
		return append(dst, '"')
	case Timestamptz, Timestamp:
		if t, ok := ParseTimeText(v.Str); ok {
			dst = append(dst, '"')
			dst = t.AppendFormat(dst, "2006-01-02T15:04:05.999999Z")
			return append(dst, '"')
		}
	}
	return AppendJSONString(dst, string(AppendText(nil, v, o, time.UTC)))
}

// AppendJSONString quotes a text.
func AppendJSONString(dst []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			plain = false
			break
		}
	}
	if plain {
		return append(append(append(dst, '"'), s...), '"')
	}
	dst = append(dst, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			dst = append(dst, '\\', byte(r))
		case r < 0x20:
			dst = append(dst, `\u00`...)
			dst = append(dst, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
		default:
			dst = utf8.AppendRune(dst, r)
		}
	}
	return append(dst, '"')
}

// FromJSON reads a member of a JSON document as a value of a type. False: it is none.
func FromJSON(raw []byte, o OID) (Value, bool) {
	if len(raw) == 0 || string(raw) == "null" {
		return Value{}, true
	}
	switch c := raw[0]; {
	case o == JSON || o == JSONB:
		return StrValue(string(raw)), true
	case o == Bool:
		return BoolValue(c == 't'), c == 't' || c == 'f'
	case c == '"':
		s, ok := jsonString(raw)
		if !ok {
			return Value{}, false
		}
		if o == Bytea {
			b, err := base64.StdEncoding.DecodeString(s)
			return BlobValue(b), err == nil
		}
		if isNumber(o) {
			return Value{}, false
		}
		v, err := ParseText(s, o, time.UTC)
		return v, err == nil
	case c == 't' || c == 'f' || c == '{' || c == '[':
		return StrValue(string(raw)), isText(o)
	}
	v, ok := Number(string(raw))
	if !ok {
		return Value{}, false
	}
	if isText(o) {
		return StrValue(string(raw)), true
	}
	switch o {
	case Numeric:
		return v, true
	case Float4, Float8:
		f, ok := v.asFloat()
		return FloatValue(f), ok
	case Int2, Int4, Int8, Oid:
		n, ok := v.asInt()
		if !ok || v.Kind == Float && v.Flt != math.Trunc(v.Flt) {
			return Value{}, false
		}
		v, err := inRange(n, o)
		return v, err == nil
	}
	return Value{}, false
}

func jsonString(raw []byte) (string, bool) {
	if len(raw) < 2 {
		return "", false
	}
	inner := raw[1 : len(raw)-1]
	for _, c := range inner {
		if c == '\\' || c < 0x20 {
			var s string
			err := json.Unmarshal(raw, &s)
			return s, err == nil
		}
	}
	return string(inner), true
}
