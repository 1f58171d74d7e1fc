package entry

import (
	"strings"
	"time"
)

// ParseTime reads a GeneralizedTime (RFC 4517, section 3.3.13), with parts of an hour, a minute or a second.
func ParseTime(s string) (time.Time, bool) {
	var none time.Time
	zone := strings.IndexAny(s, "Z+-")
	if zone < 0 {
		return none, false
	}
	digits, frac, hasFrac := s[:zone], "", false
	if i := strings.IndexAny(digits, ".,"); i >= 0 {
		digits, frac, hasFrac = digits[:i], digits[i+1:], true
	}
	layouts := map[int]string{10: "2006010215", 12: "200601021504", 14: "20060102150405"}
	layout, ok := layouts[len(digits)]
	if !ok || hasFrac && (frac == "" || len(frac) > 9 || strings.Trim(frac, "0123456789") != "") {
		return none, false
	}
	leap := len(digits) == 14 && strings.HasSuffix(digits, "60")
	if leap {
		digits = digits[:12] + "59"
	}
	loc := time.UTC
	switch z := s[zone:]; {
	case z == "Z":
	case (len(z) == 3 || len(z) == 5) && strings.Trim(z[1:], "0123456789") == "":
		h, m := int(z[1]-'0')*10+int(z[2]-'0'), 0
		if len(z) == 5 {
			m = int(z[3]-'0')*10 + int(z[4]-'0')
		}
		if h > 23 || m > 59 {
			return none, false
		}
		offset := h*3600 + m*60
		if z[0] == '-' {
			offset = -offset
		}
		loc = time.FixedZone("", offset)
	default:
		return none, false
	}
	at, err := time.ParseInLocation(layout, digits, loc)
	if err != nil {
		return none, false
	}
	if leap {
		at = at.Add(time.Second)
	}
	if hasFrac {
		unit := map[int]int64{10: int64(time.Hour), 12: int64(time.Minute), 14: int64(time.Second)}[len(layout)]
		var num, den int64 = 0, 1
		for i := range len(frac) {
			num, den = num*10+int64(frac[i]-'0'), den*10
		}
		whole, rest := unit/den, unit%den
		at = at.Add(time.Duration(whole*num + rest*num/den))
	}
	return at.UTC(), true
}

// FormatTime writes a GeneralizedTime in UTC, with a fraction only where there is one.
func FormatTime(at time.Time) string {
	return strings.TrimSuffix(at.UTC().Format("20060102150405.999999999"), ".") + "Z"
}

// FormatRFC3339 writes a time as the mapping has it.
func FormatRFC3339(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }

// ParseRFC3339 reads one.
func ParseRFC3339(s string) (time.Time, bool) {
	at, err := time.Parse(time.RFC3339Nano, s)
	return at, err == nil
}
