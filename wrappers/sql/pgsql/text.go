package pgsql

import (
	"encoding/hex"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

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
