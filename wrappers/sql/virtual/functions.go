package virtual

import (

	// of md5(), which is no protection of anything

	"errors"
	"fmt"
	"math"
	mathrand "math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

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

// builtins are all of them; those of numbers, and of every type, stand here.
var builtins = slices.Concat(generalFunctions, textFunctions, timeFunctions, jsonFunctions, systemFunctions)

var generalFunctions = []builtin{
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
