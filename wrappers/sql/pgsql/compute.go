package pgsql

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Cast gives a value another type, as value::type does.
func Cast(v Value, from, to OID, zone *time.Location) (Value, error) {
	if v.IsNull() || from == to {
		return v, nil
	}
	switch {
	case isText(to):
		if v.Kind == Str && !isTime(from) {
			return v, nil
		}
		if from == Bool {
			if v.Int != 0 {
				return StrValue("true"), nil
			}
			return StrValue("false"), nil
		}
		return StrValue(string(AppendText(nil, v, from, zone))), nil
	case to == Bool:
		if v.Kind == Int {
			return BoolValue(v.Int != 0), nil
		}
	case isTime(to) && isTime(from):
		if from == Timestamptz && to != Timestamptz {
			t, ok := ParseTimeText(v.Str)
			if !ok {
				break
			}
			if to == Date {
				return StrValue(t.In(zone).Format(dateForm)), nil
			}
			return StrValue(t.In(zone).Format(tsForm)), nil
		}
		return parseTime(v.Str, to, zone)
	case to == Time && isTime(from):
		if t, ok := ParseTimeText(v.Str); ok {
			if from == Timestamptz {
				t = t.In(zone)
			}
			return StrValue(t.Format("15:04:05.999999")), nil
		}
	case from == Bool && isInt(to):
		return v, nil
	case isInt(to) || to == Oid:
		if v.Kind == Str && (isText(from) || from == JSONB || from == JSON || from == Numeric) {
			if from == Numeric {
				f, ok := v.asFloat()
				if !ok || math.Abs(f) >= 1<<63 {
					return Value{}, Errorf(OutOfRange, "%s out of range", TypeOf(to).SQL)
				}
				return inRange(int64(math.Round(f)), to)
			}
			return ParseText(v.Str, to, zone)
		}
		if v.Kind == Float {
			f := math.RoundToEven(v.Flt)
			if from == Numeric {
				f = math.Round(v.Flt)
			}
			if !(f >= -1<<63 && f < 1<<63) {
				return Value{}, Errorf(OutOfRange, "%s out of range", TypeOf(to).SQL)
			}
			return inRange(int64(f), to)
		}
		if v.Kind == Int {
			return inRange(v.Int, to)
		}
	case to == Float8 || to == Float4:
		if f, ok := v.asFloat(); ok {
			return FloatValue(f), nil
		}
	case to == Numeric && v.Kind != Str:
		if v.Kind == Float && (math.IsNaN(v.Flt) || math.IsInf(v.Flt, 0)) {
			return Value{}, Errorf(OutOfRange, "the value is out of range for type numeric")
		}
		return v, nil
	case to == JSON || to == JSONB:
		if v.Kind == Str && isText(from) {
			return ParseText(v.Str, to, zone)
		}
		return StrValue(string(AppendJSON(nil, v, from))), nil
	case to == Bytea && v.Kind == Blob:
		return v, nil
	case isArray(to), to == Regtype, to == Interval && v.Kind != Str:
		return v, nil
	}
	if v.Kind == Str {
		return ParseText(v.Str, to, zone)
	}
	return Value{}, Errorf("42846", "cannot cast type %s to %s", TypeOf(from).SQL, TypeOf(to).SQL)
}

func moment(v Value) (time.Time, error) {
	if t, ok := ParseTimeText(v.Str); ok {
		return t, nil
	}
	if t, err := time.Parse(dateForm, v.Str); err == nil {
		return t, nil
	}
	return time.Time{}, Errorf(InvalidDatetime, "invalid input syntax for type timestamp: \"%s\"", clipText(v.Str))
}

// AddTime moves a time by an interval.
func AddTime(t, iv Value, sign int) (Value, error) {
	at, err := moment(t)
	if err != nil {
		return Value{}, err
	}
	i, ok := parseInterval(iv.Str)
	if !ok {
		return Value{}, Errorf(InvalidDatetime, "invalid input syntax for type interval: \"%s\"", clipText(iv.Str))
	}
	at = i.addTo(at, sign)
	if y := at.Year(); y < 1 || y > 9999 {
		return Value{}, Errorf("22008", "timestamp out of range")
	}
	s := at.Format(tsForm)
	if strings.HasSuffix(t.Str, "Z") {
		s += "Z"
	}
	return StrValue(s), nil
}

// Between is the interval from b to a, in days and less.
func Between(a, b Value) (Value, error) {
	x, err := moment(a)
	if err != nil {
		return Value{}, err
	}
	y, err := moment(b)
	if err != nil {
		return Value{}, err
	}
	us := x.UnixMicro() - y.UnixMicro()
	const day = 24 * 3600 * 1e6
	return StrValue(interval{days: int32(us / day), micros: us % day}.String()), nil
}

// Days is the number of days from b to a.
func Days(a, b Value) (Value, error) {
	x, err := moment(a)
	if err != nil {
		return Value{}, err
	}
	y, err := moment(b)
	if err != nil {
		return Value{}, err
	}
	return IntValue((x.Unix() - y.Unix()) / 86400), nil
}

// AddIntervals adds b to a sign times; MulInterval makes an interval longer.
func AddIntervals(a, b Value, sign int) (Value, error) {
	x, ok := parseInterval(a.Str)
	y, ok2 := parseInterval(b.Str)
	if !ok || !ok2 {
		return Value{}, Errorf(InvalidDatetime, "invalid input syntax for type interval")
	}
	s := int32(sign)
	return StrValue(interval{x.months + s*y.months, x.days + s*y.days, x.micros + int64(sign)*y.micros}.String()), nil
}

// MulInterval makes an interval f times as long.
func MulInterval(a, f Value) (Value, error) {
	x, ok := parseInterval(a.Str)
	n, ok2 := f.asFloat()
	if !ok || !ok2 || math.Abs(n) > 1e9 {
		return Value{}, Errorf("22008", "interval out of range")
	}
	months, mf := math.Modf(float64(x.months) * n)
	days, df := math.Modf(float64(x.days)*n + mf*30)
	return StrValue(interval{int32(months), int32(days), int64(float64(x.micros)*n + df*24*3600e6)}.String()), nil
}

// Extract gives one field of a time or an interval.
func Extract(what string, v Value, o OID, zone *time.Location) (Value, error) {
	unknown := Errorf("22023", "unit \"%s\" not recognized for type %s", clipText(what), TypeOf(o).SQL)
	if o == Interval {
		iv, ok := parseInterval(v.Str)
		if !ok {
			return Value{}, unknown
		}
		switch what {
		case "epoch":
			return FloatValue(iv.seconds()), nil
		case "year", "years":
			return IntValue(int64(iv.months / 12)), nil
		case "month", "months":
			return IntValue(int64(iv.months % 12)), nil
		case "day", "days":
			return IntValue(int64(iv.days)), nil
		case "hour", "hours":
			return IntValue(iv.micros / 3600e6), nil
		case "minute", "minutes":
			return IntValue(iv.micros / 60e6 % 60), nil
		case "second", "seconds":
			return FloatValue(float64(iv.micros%60e6) / 1e6), nil
		}
		return Value{}, unknown
	}
	t, err := moment(v)
	if err != nil {
		return Value{}, err
	}
	if o == Timestamptz {
		t = t.In(zone)
	}
	switch what {
	case "epoch":
		return FloatValue(float64(t.UnixMicro()) / 1e6), nil
	case "year":
		return IntValue(int64(t.Year())), nil
	case "month":
		return IntValue(int64(t.Month())), nil
	case "day":
		return IntValue(int64(t.Day())), nil
	case "hour":
		return IntValue(int64(t.Hour())), nil
	case "minute":
		return IntValue(int64(t.Minute())), nil
	case "second":
		return FloatValue(float64(t.Second()) + float64(t.Nanosecond())/1e9), nil
	case "milliseconds":
		return FloatValue(float64(t.Second())*1e3 + float64(t.Nanosecond())/1e6), nil
	case "microseconds":
		return IntValue(int64(t.Second())*1e6 + int64(t.Nanosecond())/1e3), nil
	case "dow":
		return IntValue(int64(t.Weekday())), nil
	case "isodow":
		return IntValue(int64((t.Weekday()+6)%7 + 1)), nil
	case "doy":
		return IntValue(int64(t.YearDay())), nil
	case "week":
		_, w := t.ISOWeek()
		return IntValue(int64(w)), nil
	case "isoyear":
		y, _ := t.ISOWeek()
		return IntValue(int64(y)), nil
	case "quarter":
		return IntValue(int64(t.Month()-1)/3 + 1), nil
	case "timezone":
		_, off := t.Zone()
		return IntValue(int64(off)), nil
	}
	return Value{}, unknown
}

// DateTrunc cuts a time down to a unit.
func DateTrunc(what string, v Value, zone *time.Location) (Value, error) {
	t, err := moment(v)
	if err != nil {
		return Value{}, err
	}
	zoned := strings.HasSuffix(v.Str, "Z")
	if !zoned {
		zone = time.UTC
	}
	t = t.In(zone)
	y, m, d := t.Date()
	h, mi, s := t.Clock()
	switch strings.ToLower(what) {
	case "microseconds":
	case "milliseconds":
		t = t.Truncate(time.Millisecond)
	case "second":
		t = time.Date(y, m, d, h, mi, s, 0, zone)
	case "minute":
		t = time.Date(y, m, d, h, mi, 0, 0, zone)
	case "hour":
		t = time.Date(y, m, d, h, 0, 0, 0, zone)
	case "day":
		t = time.Date(y, m, d, 0, 0, 0, 0, zone)
	case "week":
		t = time.Date(y, m, d-int(t.Weekday()+6)%7, 0, 0, 0, 0, zone)
	case "month":
		t = time.Date(y, m, 1, 0, 0, 0, 0, zone)
	case "quarter":
		t = time.Date(y, m-(m-1)%3, 1, 0, 0, 0, 0, zone)
	case "year":
		t = time.Date(y, 1, 1, 0, 0, 0, 0, zone)
	case "decade":
		t = time.Date(y-y%10, 1, 1, 0, 0, 0, 0, zone)
	case "century":
		t = time.Date((y-1)/100*100+1, 1, 1, 0, 0, 0, 0, zone)
	default:
		return Value{}, Errorf("22023", "unit \"%s\" not recognized for type timestamp with time zone", clipText(what))
	}
	if zoned {
		return StrValue(TimeText(t)), nil
	}
	return StrValue(t.Format(tsForm)), nil
}

// AtZone gives the clock of a zone at a time, FromZone the time at which a zone's clock shows something.
func AtZone(v Value, zone string) (Value, error) {
	loc, err := Zone(zone)
	if err != nil {
		return Value{}, err
	}
	t, err := moment(v)
	if err != nil {
		return Value{}, err
	}
	return StrValue(t.In(loc).Format(tsForm)), nil
}

// FromZone is the way back.
func FromZone(v Value, zone string) (Value, error) {
	loc, err := Zone(zone)
	if err != nil {
		return Value{}, err
	}
	t, err := moment(v)
	if err != nil {
		return Value{}, err
	}
	return StrValue(TimeText(time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), loc))), nil
}

// Zone finds a time zone by name or offset.
func Zone(name string) (*time.Location, error) {
	name = strings.TrimSpace(name)
	switch strings.ToUpper(name) {
	case "UTC", "GMT", "Z", "ZULU", "ETC/UTC":
		return time.UTC, nil
	case "", "LOCAL":
		return nil, Errorf("22023", "time zone \"%s\" not recognized", clipText(name))
	}
	if f, err := strconv.ParseFloat(name, 64); err == nil && math.Abs(f) <= 16 {
		return time.FixedZone(name, int(f*3600)), nil
	}
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil, Errorf("22023", "time zone \"%s\" not recognized", clipText(name))
	}
	known, _ := zones.LoadOrStore(name, loc)
	return known.(*time.Location), nil
}

// zones are those that were asked for: a zone is one Location, however many sessions have it.
var zones sync.Map

// ArrayJSON gives the items of an array as JSON, each as it is inside of SQLite.
func ArrayJSON(s string, elem OID, zone *time.Location) (string, error) {
	items, err := ArrayItems(s)
	if err != nil {
		return "", err
	}
	out := []byte{'['}
	for i, item := range items {
		if i > 0 {
			out = append(out, ',')
		}
		if item.IsNull() {
			out = append(out, "null"...)
			continue
		}
		v, err := ParseText(item.Str, elem, zone)
		if err != nil {
			return "", err
		}
		switch v.Kind {
		case Int:
			out = strconv.AppendInt(out, v.Int, 10)
		case Float:
			out = strconv.AppendFloat(out, v.Flt, 'g', -1, 64)
		default:
			out = AppendJSONString(out, v.Str)
		}
	}
	return string(append(out, ']')), nil
}

// Compact writes a JSON document as jsonb shows it.
func Compact(s string) string {
	var x any
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	if d.Decode(&x) != nil {
		return s
	}
	return string(appendCompact(nil, x))
}

func appendCompact(dst []byte, x any) []byte {
	switch x := x.(type) {
	case map[string]any:
		keys := make([]string, 0, len(x))
		for k := range x {
			keys = append(keys, k)
		}
		// jsonb sorts by length first.
		sortKeys(keys)
		dst = append(dst, '{')
		for i, k := range keys {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = appendCompact(append(AppendJSONString(dst, k), ": "...), x[k])
		}
		return append(dst, '}')
	case []any:
		dst = append(dst, '[')
		for i := range x {
			if i > 0 {
				dst = append(dst, ", "...)
			}
			dst = appendCompact(dst, x[i])
		}
		return append(dst, ']')
	case string:
		return AppendJSONString(dst, x)
	case json.Number:
		if v, ok := Number(x.String()); ok {
			return append(dst, v.NumberText()...)
		}
		return append(dst, x.String()...)
	case bool:
		return strconv.AppendBool(dst, x)
	}
	return append(dst, "null"...)
}

func sortKeys(keys []string) {
	slices.SortFunc(keys, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
	})
}
