package pgsql

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
)

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
