package virtual

import (
	"bytes"
	"crypto/md5" // of md5(), which is no protection of anything
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/ncruces/go-sqlite3"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A builtin is a function that translated statements call.
type builtin struct {
	name string
	args int // -1: any number
	// strict: null as soon as an argument is
	strict bool
	call   func(r *run, a []pgsql.Value) (pgsql.Value, error)
}

func text(s string) (pgsql.Value, error)   { return pgsql.StrValue(s), nil }
func number(n int64) (pgsql.Value, error)  { return pgsql.IntValue(n), nil }
func float(f float64) (pgsql.Value, error) { return pgsql.FloatValue(f), nil }
func yes(b bool) (pgsql.Value, error)      { return pgsql.BoolValue(b), nil }

func str(v pgsql.Value) string {
	if v.Kind == pgsql.Int || v.Kind == pgsql.Float {
		return v.NumberText()
	}
	return v.Str
}

func flt(v pgsql.Value) float64 {
	switch v.Kind {
	case pgsql.Int:
		return float64(v.Int)
	case pgsql.Float:
		return v.Flt
	}
	f, err := strconv.ParseFloat(v.Str, 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

func oid(v pgsql.Value) pgsql.OID { return pgsql.OID(v.Int) }

var errDivision = &pgsql.Error{Code: pgsql.DivisionByZero, Message: "division by zero"}

// mostText bounds what repeat() and its like make.
const mostText = 16 << 20

// errFailed stands for an error that the connection keeps.
var errFailed = errors.New("the evaluation failed")

var errTooLong = &pgsql.Error{Code: "54000", Message: "requested length too large"}

// functions registers all of them.
func (c *conn) functions() error {
	for i := range builtins {
		b := &builtins[i]
		flags := sqlite3.INNOCUOUS
		if pure[b.name] {
			flags |= sqlite3.DETERMINISTIC
		}
		f := func(ctx sqlite3.Context, arg ...sqlite3.Value) {
			var few [6]pgsql.Value
			a := few[:0]
			for _, v := range arg {
				x := argValue(v)
				if b.strict && x.IsNull() {
					ctx.ResultNull()
					return
				}
				a = append(a, x)
			}
			v, err := b.call(c.run, a)
			if err != nil {
				c.failed(err)
				ctx.ResultError(errFailed)
				return
			}
			giveValue(ctx, v)
		}
		if err := c.db.CreateFunction(b.name, b.args, flags, f); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return c.db.CreateWindowFunction("pg_array_agg", 2, sqlite3.INNOCUOUS, func() sqlite3.AggregateFunction { return &arrayAgg{c: c} })
}

// arrayAgg is array_agg().
type arrayAgg struct {
	c     *conn
	items []pgsql.Value
	size  int
}

// Step implements sqlite3.AggregateFunction.
func (g *arrayAgg) Step(ctx sqlite3.Context, arg ...sqlite3.Value) {
	v := argValue(arg[0])
	if !v.IsNull() {
		v = pgsql.StrValue(string(pgsql.AppendText(nil, v, pgsql.OID(arg[1].Int64()), g.c.run.zone())))
	}
	if g.size += len(v.Str) + 8; g.size > mostText {
		g.c.failed(errTooLong)
		ctx.ResultError(errFailed)
		return
	}
	g.items = append(g.items, v)
}

// Value implements sqlite3.AggregateFunction.
func (g *arrayAgg) Value(ctx sqlite3.Context) {
	if len(g.items) == 0 {
		ctx.ResultNull()
		return
	}
	ctx.ResultText(pgsql.ArrayText(g.items))
}

func (r *run) zone() *time.Location {
	if r == nil || r.session == nil {
		return time.UTC
	}
	return r.session.settings.zone
}

// pure are those whose value depends on nothing but their arguments.
var pure = map[string]bool{
	"lower": true, "upper": true, "pg_div": true, "pg_mod": true, "pg_fdiv": true, "pg_idiv": true, "pg_round": true, "pg_trunc": true,
	"pg_limit": true, "pg_array_json": true,
}

var builtins = []builtin{
	{"pg_cast", 3, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		from, to := oid(a[1]), oid(a[2])
		switch to {
		case pgsql.Regclass:
			return r.regclass(a[0], true)
		case pgsql.Regtype:
			if a[0].Kind == pgsql.Int {
				return a[0], nil
			}
			o, ok := pgsql.TypeNamed(a[0].Str)
			if !ok {
				return a[0], pgsql.Errorf(pgsql.UndefinedObject, "type \"%s\" does not exist", a[0].Str)
			}
			return number(int64(o))
		case pgsql.Regproc:
			return text(strings.TrimPrefix(str(a[0]), "pg_catalog."))
		}
		if from == pgsql.Regclass && (to == pgsql.Text || to == pgsql.Varchar || to == pgsql.Name) {
			return text(r.className(oid(a[0])))
		}
		if from == pgsql.Regtype && to == pgsql.Text {
			return text(pgsql.TypeOf(oid(a[0])).SQL)
		}
		return pgsql.Cast(a[0], from, to, r.zone())
	}},
	{"pg_limit", 1, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].IsNull() {
			return number(-1)
		}
		v, err := pgsql.Cast(a[0], pgsql.Numeric, pgsql.Int8, time.UTC)
		if err == nil && v.Int < 0 {
			err = pgsql.Errorf("2201W", "LIMIT must not be negative")
		}
		return v, err
	}},

	// Numbers.
	{"pg_div", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].Kind == pgsql.Int && a[1].Kind == pgsql.Int {
			switch a[1].Int {
			case 0:
				return a[0], errDivision
			case -1:
				if a[0].Int == math.MinInt64 {
					return a[0], pgsql.Errorf(pgsql.OutOfRange, "bigint out of range")
				}
			}
			return number(a[0].Int / a[1].Int)
		}
		return divide(a)
	}},
	{"pg_fdiv", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return divide(a) }},
	{"pg_idiv", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		v, err := divide(a)
		if err == nil {
			v.Flt = math.Trunc(flt(v))
			v.Kind = pgsql.Float
		}
		return v, err
	}},
	{"pg_mod", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].Kind == pgsql.Int && a[1].Kind == pgsql.Int {
			switch a[1].Int {
			case 0:
				return a[0], errDivision
			case -1:
				return number(0)
			}
			return number(a[0].Int % a[1].Int)
		}
		if flt(a[1]) == 0 {
			return a[0], errDivision
		}
		return float(math.Mod(flt(a[0]), flt(a[1])))
	}},
	{"pg_xor", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return number(a[0].Int ^ a[1].Int) }},
	{"pg_round", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return rounded(a, math.Round) }},
	{"pg_trunc", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return rounded(a, math.Trunc) }},
	{"pg_greatest", -1, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return extreme(a, 1), nil }},
	{"pg_least", -1, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return extreme(a, -1), nil }},
	{"pg_random", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) { return float(mathrand.Float64()) }},
	{"pg_to_hex", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		return text(strconv.FormatUint(uint64(a[0].Int), 16))
	}},

	// Text.
	{"lower", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(strings.ToLower(str(a[0]))) }},
	{"upper", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(strings.ToUpper(str(a[0]))) }},
	{"pg_initcap", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		inside := false
		return text(strings.Map(func(r rune) rune {
			letter := unicode.IsLetter(r) || unicode.IsDigit(r)
			if !letter {
				inside = false
				return r
			}
			if inside {
				return unicode.ToLower(r)
			}
			inside = true
			return unicode.ToUpper(r)
		}, str(a[0])))
	}},
	{"pg_substr", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		from, n := a[1].Int, int64(math.MaxInt32)
		if len(a) > 2 {
			if n = a[2].Int; n < 0 {
				return a[0], pgsql.Errorf("22011", "negative substring length not allowed")
			}
		}
		to := min(from, math.MaxInt32) + n
		if a[0].Kind == pgsql.Blob {
			lo, hi := clamp(from-1, len(a[0].Str)), clamp(to-1, len(a[0].Str))
			return pgsql.BlobValue([]byte(a[0].Str[lo:max(lo, hi)])), nil
		}
		rs := []rune(str(a[0]))
		lo, hi := clamp(from-1, len(rs)), clamp(to-1, len(rs))
		return text(string(rs[lo:max(lo, hi)]))
	}},
	{"pg_left", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		n := a[1].Int
		if n < 0 {
			n += int64(len(rs))
		}
		return text(string(rs[:clamp(n, len(rs))]))
	}},
	{"pg_right", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		n := a[1].Int
		if n < 0 {
			n += int64(len(rs))
		}
		return text(string(rs[len(rs)-clamp(n, len(rs)):]))
	}},
	{"pg_lpad", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pad(a, true) }},
	{"pg_rpad", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return pad(a, false) }},
	{"pg_repeat", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		s, n := str(a[0]), max(a[1].Int, 0)
		if len(s) > 0 && n > int64(mostText/len(s)) {
			return a[0], errTooLong
		}
		return text(strings.Repeat(s, int(n)))
	}},
	{"pg_reverse", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		rs := []rune(str(a[0]))
		for i, j := 0, len(rs)-1; i < j; i, j = i+1, j-1 {
			rs[i], rs[j] = rs[j], rs[i]
		}
		return text(string(rs))
	}},
	{"pg_split_part", 3, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		parts := []string{str(a[0])}
		if sep := str(a[1]); sep != "" {
			parts = strings.Split(parts[0], sep)
		}
		n := a[2].Int
		if n == 0 {
			return a[0], pgsql.Errorf("22023", "field position must not be zero")
		}
		if n < 0 {
			n += int64(len(parts)) + 1
		}
		if n < 1 || n > int64(len(parts)) {
			return text("")
		}
		return text(parts[n-1])
	}},
	{"pg_starts_with", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(strings.HasPrefix(str(a[0]), str(a[1])))
	}},
	{"pg_concat", -1, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		var b []byte
		for i := 0; i+1 < len(a); i += 2 {
			if !a[i].IsNull() {
				b = pgsql.AppendText(b, a[i], oid(a[i+1]), r.zone())
			}
		}
		return text(string(b))
	}},
	{"pg_concat_ws", -1, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].IsNull() {
			return pgsql.Value{}, nil
		}
		var parts []string
		for i := 2; i+1 < len(a); i += 2 {
			if !a[i].IsNull() {
				parts = append(parts, string(pgsql.AppendText(nil, a[i], oid(a[i+1]), r.zone())))
			}
		}
		return text(strings.Join(parts, str(a[0])))
	}},
	{"pg_translate", 3, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		from, to := []rune(str(a[1])), []rune(str(a[2]))
		return text(strings.Map(func(r rune) rune {
			for i, f := range from {
				if f == r {
					if i < len(to) {
						return to[i]
					}
					return -1
				}
			}
			return r
		}, str(a[0])))
	}},
	{"pg_md5", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		sum := md5.Sum([]byte(str(a[0])))
		return text(hex.EncodeToString(sum[:]))
	}},
	{"pg_encode", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		switch strings.ToLower(a[1].Str) {
		case "hex":
			return text(hex.EncodeToString([]byte(a[0].Str)))
		case "base64":
			return text(base64.StdEncoding.EncodeToString([]byte(a[0].Str)))
		}
		return a[0], pgsql.Errorf("22023", "unrecognized encoding: \"%s\"", a[1].Str)
	}},
	{"pg_decode", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var b []byte
		var err error
		switch strings.ToLower(a[1].Str) {
		case "hex":
			b, err = hex.DecodeString(a[0].Str)
		case "base64":
			b, err = base64.StdEncoding.DecodeString(a[0].Str)
		default:
			return a[0], pgsql.Errorf("22023", "unrecognized encoding: \"%s\"", a[1].Str)
		}
		if err != nil {
			return a[0], pgsql.Errorf("22023", "invalid %s data", a[1].Str)
		}
		return pgsql.BlobValue(b), nil
	}},
	{"pg_quote_ident", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(pgsql.QuoteIdent(str(a[0]))) }},
	{"pg_quote_literal", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(pgsql.QuoteLiteral(str(a[0]))) }},
	{"pg_regexp", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "", false) }},
	{"pg_regexp_i", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "(?i)", false) }},
	{"pg_regexp_not", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "", true) }},
	{"pg_regexp_not_i", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return matches(r, a, "(?i)", true) }},
	{"pg_substring", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		re, err := r.regexp(str(a[1]))
		if err != nil {
			return a[0], err
		}
		m := re.FindStringSubmatch(str(a[0]))
		switch {
		case m == nil:
			return pgsql.Value{}, nil
		case len(m) > 1:
			return text(m[1])
		}
		return text(m[0])
	}},
	{"pg_regexp_replace", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		flags := ""
		if len(a) > 3 {
			flags = str(a[3])
		}
		pattern := str(a[1])
		if strings.Contains(flags, "i") {
			pattern = "(?i)" + pattern
		}
		re, err := r.regexp(pattern)
		if err != nil {
			return a[0], err
		}
		with := regexp.MustCompile(`\\([0-9&])`).ReplaceAllStringFunc(strings.ReplaceAll(str(a[2]), "$", "$$"), func(m string) string {
			if m[1] == '&' {
				return "${0}"
			}
			return "${" + m[1:] + "}"
		})
		if strings.Contains(flags, "g") {
			return text(re.ReplaceAllString(str(a[0]), with))
		}
		s := str(a[0])
		at := re.FindStringSubmatchIndex(s)
		if at == nil {
			return text(s)
		}
		return text(s[:at[0]] + string(re.ExpandString(nil, with, s, at)) + s[at[1]:])
	}},

	// Times.
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
	{"pg_json", 2, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		return text(string(pgsql.AppendJSON(nil, a[0], oid(a[1]))))
	}},
	{"pg_jsonb", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(pgsql.Compact(str(a[0]))) }},
	{"pg_json_concat", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var x, y map[string]json.RawMessage
		if json.Unmarshal([]byte(a[0].Str), &x) == nil && json.Unmarshal([]byte(a[1].Str), &y) == nil && x != nil && y != nil {
			for k, v := range y {
				x[k] = v
			}
			b, err := json.Marshal(x)
			return pgsql.StrValue(pgsql.Compact(string(b))), err
		}
		var l []json.RawMessage
		for _, s := range []string{a[0].Str, a[1].Str} {
			var items []json.RawMessage
			if json.Unmarshal([]byte(s), &items) != nil {
				items = []json.RawMessage{json.RawMessage(s)}
			}
			l = append(l, items...)
		}
		b, err := json.Marshal(l)
		return pgsql.StrValue(pgsql.Compact(string(b))), err
	}},
	{"pg_json_remove", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var x map[string]json.RawMessage
		if json.Unmarshal([]byte(a[0].Str), &x) != nil {
			return a[0], pgsql.Errorf("22023", "cannot delete from scalar")
		}
		delete(x, str(a[1]))
		b, err := json.Marshal(x)
		return pgsql.StrValue(pgsql.Compact(string(b))), err
	}},
	{"pg_json_typeof", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		switch s := strings.TrimSpace(str(a[0])); {
		case s == "":
			return pgsql.Value{}, nil
		case s[0] == '{':
			return text("object")
		case s[0] == '[':
			return text("array")
		case s[0] == '"':
			return text("string")
		case s[0] == 't' || s[0] == 'f':
			return text("boolean")
		case s[0] == 'n':
			return text("null")
		}
		return text("number")
	}},
	{"pg_json_path_text", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		cur := json.RawMessage(a[0].Str)
		for _, p := range a[1:] {
			var m map[string]json.RawMessage
			var l []json.RawMessage
			n, err := strconv.Atoi(str(p))
			switch {
			case json.Unmarshal(cur, &m) == nil && m != nil:
				v, ok := m[str(p)]
				if !ok {
					return pgsql.Value{}, nil
				}
				cur = v
			case err == nil && json.Unmarshal(cur, &l) == nil && n >= 0 && n < len(l):
				cur = l[n]
			default:
				return pgsql.Value{}, nil
			}
		}
		var s string
		if json.Unmarshal(cur, &s) == nil {
			if string(cur) == "null" {
				return pgsql.Value{}, nil
			}
			return text(s)
		}
		return text(string(cur))
	}},
	{"pg_json_strip_nulls", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var x any
		d := json.NewDecoder(strings.NewReader(a[0].Str))
		d.UseNumber()
		if err := d.Decode(&x); err != nil {
			return a[0], pgsql.Errorf(pgsql.InvalidText, "invalid input syntax for type json")
		}
		b, err := json.Marshal(withoutNulls(x))
		return pgsql.StrValue(pgsql.Compact(string(b))), err
	}},
	{"pg_json_pretty", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var b bytes.Buffer
		if json.Indent(&b, []byte(a[0].Str), "", "    ") != nil {
			return a[0], pgsql.Errorf(pgsql.InvalidText, "invalid input syntax for type json")
		}
		return text(b.String())
	}},
	{"pg_array", -1, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		items := make([]pgsql.Value, len(a)-1)
		for i, v := range a[1:] {
			if !v.IsNull() {
				items[i] = pgsql.StrValue(string(pgsql.AppendText(nil, v, oid(a[0]), r.zone())))
			}
		}
		return text(pgsql.ArrayText(items))
	}},
	{"pg_array_json", 2, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		s, err := pgsql.ArrayJSON(str(a[0]), oid(a[1]), time.UTC)
		return pgsql.StrValue(s), err
	}},
	{"pg_array_get", 3, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		n := a[1].Int
		if !strings.HasPrefix(str(a[0]), "{") {
			n++ // vectors count from 0
		}
		if err != nil || n < 1 || n > int64(len(items)) || items[n-1].IsNull() {
			return pgsql.Value{}, err
		}
		return pgsql.ParseText(items[n-1].Str, oid(a[2]), r.zone())
	}},
	{"pg_array_to_string", -1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		var parts []string
		for _, v := range items {
			switch {
			case !v.IsNull():
				parts = append(parts, v.Str)
			case len(a) > 2:
				parts = append(parts, str(a[2]))
			}
		}
		return pgsql.StrValue(strings.Join(parts, str(a[1]))), err
	}},
	{"pg_string_to_array", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		var items []pgsql.Value
		if str(a[0]) != "" {
			for p := range strings.SplitSeq(str(a[0]), str(a[1])) {
				items = append(items, pgsql.StrValue(p))
			}
		}
		return text(pgsql.ArrayText(items))
	}},
	{"pg_array_length", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		if err != nil || len(items) == 0 || a[1].Int != 1 {
			return pgsql.Value{}, err
		}
		return number(int64(len(items)))
	}},
	{"pg_array_lower", 2, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		if err != nil || len(items) == 0 || a[1].Int != 1 {
			return pgsql.Value{}, err
		}
		return number(1)
	}},
	{"pg_cardinality", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		return pgsql.IntValue(int64(len(items))), err
	}},
	{"pg_array_position", 2, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		items, err := pgsql.ArrayItems(str(a[0]))
		for i, v := range items {
			if v.Str == str(a[1]) && !v.IsNull() {
				return number(int64(i + 1))
			}
		}
		return pgsql.Value{}, err
	}},

	// The session and the server.
	{"pg_version", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) { return text(versionText) }},
	{"pg_database", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.database) }},
	{"pg_user", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.user) }},
	{"pg_schema", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) {
		for _, s := range r.session.path() {
			if r.session.schemaExists(s) {
				return text(s)
			}
		}
		return pgsql.Value{}, nil
	}},
	{"pg_schemas", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		var items []pgsql.Value
		if a[0].Int != 0 {
			items = append(items, pgsql.StrValue("pg_catalog"))
		}
		for _, s := range r.session.path() {
			if r.session.schemaExists(s) {
				items = append(items, pgsql.StrValue(s))
			}
		}
		return text(pgsql.ArrayText(items))
	}},
	{"pg_setting", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		v, ok := r.session.settings.show(str(a[0]))
		if !ok && len(a) > 1 && a[1].Int != 0 {
			return pgsql.Value{}, nil
		}
		if !ok {
			return a[0], noSetting(str(a[0]))
		}
		return text(v)
	}},
	{"pg_set_config", 3, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		err := r.session.setSetting(str(a[0]), str(a[1]), a[2].Int != 0)
		return a[1], err
	}},
	{"pg_pid", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return number(int64(r.session.pid)) }},
	{"pg_txid", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return number(r.session.txid) }},
	{"pg_start_time", 0, false, func(r *run, _ []pgsql.Value) (pgsql.Value, error) {
		return text(pgsql.TimeText(r.session.server.started))
	}},
	{"pg_notify", 2, false, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return pgsql.StrValue(""), r.session.notifyIn(r.tx, str(a[0]), str(a[1]))
	}},
	{"pg_cancel", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(r.session.server.cancelPID(uint32(a[0].Int), r.session))
	}},
	{"pg_uuid", 0, false, func(*run, []pgsql.Value) (pgsql.Value, error) {
		var b [16]byte
		_, _ = rand.Read(b[:]) // never fails
		b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
		return pgsql.ParseText(hex.EncodeToString(b[:]), pgsql.UUID, time.UTC)
	}},
	{"pg_to_regclass", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.regclass(a[0], false) }},
	{"pg_userbyid", 1, true, func(r *run, _ []pgsql.Value) (pgsql.Value, error) { return text(r.session.user) }},
	{"pg_table_visible", 1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) {
		return yes(r.session.visible(oid(a[0])))
	}},
	{"pg_format_type", 2, false, func(_ *run, a []pgsql.Value) (pgsql.Value, error) {
		if a[0].IsNull() {
			return pgsql.Value{}, nil
		}
		return text(pgsql.TypeOf(oid(a[0])).SQL)
	}},
	{"pg_indexdef", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.indexDef(a) }},
	{"pg_constraintdef", -1, true, func(r *run, a []pgsql.Value) (pgsql.Value, error) { return r.constraintDef(a) }},
	{"pg_size_pretty", 1, true, func(_ *run, a []pgsql.Value) (pgsql.Value, error) { return text(str(a[0]) + " bytes") }},
}

func clamp(n int64, most int) int { return int(max(0, min(n, int64(most)))) }

func divide(a []pgsql.Value) (pgsql.Value, error) {
	d := flt(a[1])
	if d == 0 {
		return a[0], errDivision
	}
	return float(flt(a[0]) / d)
}

func rounded(a []pgsql.Value, to func(float64) float64) (pgsql.Value, error) {
	n := int64(0)
	if len(a) > 1 {
		n = a[1].Int
	}
	if a[0].Kind == pgsql.Int && n >= 0 {
		return a[0], nil
	}
	if a[0].Kind == pgsql.Str && n >= 0 {
		whole, frac, _ := strings.Cut(a[0].Str, ".")
		if int64(len(frac)) <= n {
			return a[0], nil
		}
		_ = whole
	}
	n = max(-300, min(n, 300))
	f := flt(a[0])
	p := math.Pow(10, float64(n))
	out := to(f*p*(1+1e-16)) / p
	if math.IsInf(f*p, 0) || math.IsNaN(out) {
		out = f
	}
	return float(out)
}

func extreme(a []pgsql.Value, sign int) pgsql.Value {
	var best pgsql.Value
	for _, v := range a {
		if !v.IsNull() && (best.IsNull() || compare(v, best)*sign > 0) {
			best = v
		}
	}
	return best
}

func compare(a, b pgsql.Value) int {
	number := func(v pgsql.Value) bool { return v.Kind == pgsql.Int || v.Kind == pgsql.Float }
	if number(a) && number(b) {
		x, y := flt(a), flt(b)
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return strings.Compare(str(a), str(b))
}

func pad(a []pgsql.Value, left bool) (pgsql.Value, error) {
	rs, n, fill := []rune(str(a[0])), max(a[1].Int, 0), []rune(" ")
	if len(a) > 2 {
		fill = []rune(str(a[2]))
	}
	if n > mostText/utf8.UTFMax {
		return a[0], errTooLong
	}
	if int(n) <= len(rs) {
		return text(string(rs[:n]))
	}
	if len(fill) == 0 {
		return text(string(rs))
	}
	padding := make([]rune, int(n)-len(rs))
	for i := range padding {
		padding[i] = fill[i%len(fill)]
	}
	if left {
		return text(string(padding) + string(rs))
	}
	return text(string(rs) + string(padding))
}

func matches(r *run, a []pgsql.Value, prefix string, not bool) (pgsql.Value, error) {
	re, err := r.regexp(prefix + str(a[1]))
	if err != nil {
		return a[0], err
	}
	return yes(re.MatchString(str(a[0])) != not)
}

// regexp compiles a pattern, and keeps the last ones.
func (r *run) regexp(pattern string) (*regexp.Regexp, error) {
	if re := r.session.regexps[pattern]; re != nil {
		return re, nil
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, pgsql.Errorf("2201B", "invalid regular expression: %v", err)
	}
	if r.session.regexps == nil || len(r.session.regexps) > 32 {
		r.session.regexps = map[string]*regexp.Regexp{}
	}
	r.session.regexps[pattern] = re
	return re, nil
}

func withoutNulls(x any) any {
	switch x := x.(type) {
	case map[string]any:
		for k, v := range x {
			if v == nil {
				delete(x, k)
			} else {
				x[k] = withoutNulls(v)
			}
		}
	case []any:
		for i := range x {
			x[i] = withoutNulls(x[i])
		}
	}
	return x
}
