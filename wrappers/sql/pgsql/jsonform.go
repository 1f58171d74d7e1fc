package pgsql

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

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
