package pgsql

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Now is what now() gives; a statement sees one moment.
type Clock func() time.Time

var timeForms = []struct {
	form string
	zone bool
}{
	{"2006-01-02T15:04:05.999999999Z07:00", true},
	{"2006-01-02 15:04:05.999999999Z07:00", true},
	{"2006-01-02 15:04:05.999999999Z07", true},
	{"2006-01-02T15:04:05.999999999Z0700", true},
	{"2006-01-02 15:04:05.999999999 Z07:00", true},
	{"2006-01-02 15:04:05.999999999 Z07", true},
	{"2006-01-02 15:04:05.999999999 MST", true},
	{"2006-01-02 15:04Z07:00", true},
	{"2006-01-02 15:04Z07", true},
	{"2006-01-02T15:04:05.999999999", false},
	{"2006-01-02 15:04:05.999999999", false},
	{"2006-01-02T15:04", false},
	{"2006-01-02 15:04", false},
	{"2006-01-02", false},
	{"20060102", false},
}

// parseTime reads a timestamptz, timestamp or date in the forms that ISO 8601 and PostgreSQL write, and the words that
// PostgreSQL knows.
func parseTime(s string, o OID, zone *time.Location) (Value, error) {
	text := strings.TrimSpace(s)
	if zone == nil {
		zone = time.UTC
	}
	give := func(t time.Time, zoned bool) (Value, error) {
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return Value{}, Errorf("22008", "date/time field value out of range: \"%s\"", clipText(s))
		}
		switch o {
		case Date:
			return StrValue(t.Format(dateForm)), nil
		case Timestamp:
			return StrValue(t.Round(time.Microsecond).Format(tsForm)), nil
		}
		return StrValue(TimeText(t.Round(time.Microsecond))), nil
	}
	now := time.Now().In(zone)
	midnight := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, zone)
	switch strings.ToLower(text) {
	case "now":
		return give(now, true)
	case "today":
		return give(midnight, true)
	case "yesterday":
		return give(midnight.AddDate(0, 0, -1), true)
	case "tomorrow":
		return give(midnight.AddDate(0, 0, 1), true)
	case "epoch":
		return give(time.Unix(0, 0).In(zone), true)
	case "infinity", "-infinity":
		return Value{}, Errorf(FeatureNotSupported, "infinite times are not supported here")
	}
	if strings.HasSuffix(text, " UTC") || strings.HasSuffix(text, " GMT") {
		text = text[:len(text)-4] + "Z"
	}
	for _, f := range timeForms {
		t, err := time.ParseInLocation(f.form, text, zone)
		if err != nil {
			continue
		}
		if f.zone && o == Timestamp {
			// PostgreSQL ignores the zone of what is no timestamptz.
			t = time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), time.UTC)
		}
		return give(t, f.zone)
	}
	return Value{}, Errorf(InvalidDatetime, "invalid input syntax for type %s: \"%s\"", TypeOf(o).SQL, clipText(s))
}

// An interval is months, days and microseconds, which can't be turned into each other.
type interval struct {
	months, days int32
	micros       int64
}

// parseInterval reads "1 day 02:00:00", "3 hours ago", "1 mon".
func parseInterval(s string) (interval, bool) {
	var iv interval
	fields := strings.Fields(strings.ToLower(s))
	if len(fields) == 0 {
		return iv, false
	}
	ago := fields[len(fields)-1] == "ago"
	if ago {
		fields = fields[:len(fields)-1]
	}
	if fields[0] == "@" {
		fields = fields[1:]
	}
	for i := 0; i < len(fields); i++ {
		f := fields[i]
		if strings.Contains(f, ":") {
			m, ok := clockMicros(f)
			if !ok {
				return iv, false
			}
			iv.micros += m
			continue
		}
		end := 0
		for end < len(f) && (digit(f[end]) || f[end] == '.' || f[end] == '-' || f[end] == '+') {
			end++
		}
		n, err := strconv.ParseFloat(f[:end], 64)
		if err != nil || math.Abs(n) > 1e9 {
			return iv, false
		}
		unit := f[end:]
		if unit == "" {
			if i+1 < len(fields) && !strings.Contains(fields[i+1], ":") {
				i++
				unit = fields[i]
			} else if i+1 < len(fields) {
				unit = "day"
			} else {
				unit = "second"
			}
		}
		if !iv.add(n, unit) {
			return iv, false
		}
	}
	if ago {
		iv.months, iv.days, iv.micros = -iv.months, -iv.days, -iv.micros
	}
	return iv, true
}

func (iv *interval) add(n float64, unit string) bool {
	whole, frac := math.Modf(n)
	switch strings.TrimSuffix(unit, "s") {
	case "microsecond", "u", "usec":
		iv.micros += int64(n)
	case "millisecond", "m", "msec":
		if unit == "m" {
			iv.micros += int64(n * 60e6)
			break
		}
		iv.micros += int64(n * 1e3)
	case "second", "sec", "":
		iv.micros += int64(math.Round(n * 1e6))
	case "minute", "min":
		iv.micros += int64(n * 60e6)
	case "hour", "hr", "h":
		iv.micros += int64(n * 3600e6)
	case "day", "d":
		iv.days += int32(whole)
		iv.micros += int64(frac * 24 * 3600e6)
	case "week", "w":
		iv.days += int32(n * 7)
	case "month", "mon":
		iv.months += int32(whole)
		iv.days += int32(frac * 30)
	case "year", "yr", "y":
		iv.months += int32(n * 12)
	case "decade":
		iv.months += int32(n * 120)
	case "century", "centurie":
		iv.months += int32(n * 1200)
	default:
		return false
	}
	return true
}

func clockMicros(s string) (int64, bool) {
	neg := strings.HasPrefix(s, "-")
	parts := strings.Split(strings.TrimLeft(s, "+-"), ":")
	if len(parts) < 2 || len(parts) > 3 {
		return 0, false
	}
	h, err1 := strconv.ParseUint(parts[0], 10, 31)
	m, err2 := strconv.ParseUint(parts[1], 10, 31)
	sec := 0.0
	var err3 error
	if len(parts) == 3 {
		sec, err3 = strconv.ParseFloat(parts[2], 64)
	}
	if err1 != nil || err2 != nil || err3 != nil || h > 1e6 || m > 59 || !(sec >= 0 && sec <= 60) {
		return 0, false
	}
	n := int64(h)*3600e6 + int64(m)*60e6 + int64(math.Round(sec*1e6))
	if neg {
		n = -n
	}
	return n, true
}

// String writes as PostgreSQL does.
func (iv interval) String() string {
	var parts []string
	count := func(n int32, one, many string) {
		if n == 0 {
			return
		}
		if n == 1 {
			parts = append(parts, "1 "+one)
			return
		}
		parts = append(parts, strconv.Itoa(int(n))+" "+many)
	}
	count(iv.months/12, "year", "years")
	count(iv.months%12, "mon", "mons")
	count(iv.days, "day", "days")
	if iv.micros != 0 || len(parts) == 0 {
		sign, m := "", iv.micros
		if m < 0 {
			sign, m = "-", -m
		}
		s := fmt.Sprintf("%s%02d:%02d:%02d", sign, m/3600e6, m/60e6%60, m/1e6%60)
		if us := m % 1e6; us != 0 {
			s += strings.TrimRight(fmt.Sprintf(".%06d", us), "0")
		}
		parts = append(parts, s)
	}
	return strings.Join(parts, " ")
}

// seconds is the interval as extract(epoch) counts it.
func (iv interval) seconds() float64 {
	return float64(iv.months/12)*365.25*86400 + float64(iv.months%12)*30*86400 + float64(iv.days)*86400 + float64(iv.micros)/1e6
}

// addTo moves a time by the interval.
func (iv interval) addTo(t time.Time, sign int) time.Time {
	// A month's end stays one: 31 January and a month is 28 February.
	if m := int(iv.months) * sign; m != 0 {
		day := t.Day()
		t = t.AddDate(0, 0, 1-day).AddDate(0, m, 0)
		last := t.AddDate(0, 1, -1).Day()
		t = t.AddDate(0, 0, min(day, last)-1)
	}
	return t.AddDate(0, 0, int(iv.days)*sign).Add(time.Duration(iv.micros*int64(sign)) * time.Microsecond)
}
