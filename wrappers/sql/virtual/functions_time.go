package virtual

import (

	// of md5(), which is no protection of anything

	"math"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// timeFunctions are those of times and intervals.
var timeFunctions = []builtin{
	{"pg_now", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(pgsql.TimeText(r.now)) }},
	{"pg_clock", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) { return text(pgsql.TimeText(time.Now())) }},
	{"pg_time_add", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AddTime(a[0], a[1], 1) }},
	{"pg_time_sub", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AddTime(a[0], a[1], -1) }},
	{"pg_add_time", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AddTime(a[1], a[0], 1) }},
	{"pg_intervaldays", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(str(a[0]) + " days") }},
	{"pg_age", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		if len(a) == 1 {
			return pgsql.Between(pgsql.StrValue(pgsql.TimeText(r.now)), a[0])
		}
		return pgsql.Between(a[0], a[1])
	}},
	{"pg_days", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.Days(a[0], a[1]) }},
	{"pg_interval_add", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AddIntervals(a[0], a[1], 1) }},
	{"pg_interval_sub", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AddIntervals(a[0], a[1], -1) }},
	{"pg_interval_mul", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.MulInterval(a[0], a[1]) }},
	{"pg_extract", 3, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return pgsql.Extract(strings.ToLower(str(a[0])), a[1], oid(a[2]), r.zone())
	}},
	{"pg_date_trunc", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.DateTrunc(str(a[0]), a[1], r.zone()) }},
	{"pg_at_zone", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.AtZone(a[0], str(a[1])) }},
	{"pg_from_zone", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pgsql.FromZone(a[0], str(a[1])) }},
	{"pg_to_timestamp", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		f := flt(a[0])
		if !(math.Abs(f) < 2e11) {
			return a[0], pgsql.Errorf("22008", "timestamp out of range")
		}
		sec, frac := math.Modf(f)
		return text(pgsql.TimeText(time.Unix(int64(sec), int64(math.Round(frac*1e6))*1000)))
	}},
	{"pg_sleep", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		f := flt(a[0])
		if !(f >= 0 && f < 1e6) {
			return text("")
		}
		select {
		case <-time.After(time.Duration(f * float64(time.Second))):
			return text("")
		case <-r.ctx.Done():
			return a[0], r.ctx.Err()
		}
	}},

	// JSON and arrays.
}
