package mapping

import (
	"encoding/base64"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A step is one two-way function with its constant arguments: get leads from the payload to the
// field, put back.
type step struct {
	name    string
	get     func(engine.Value) (engine.Value, error)
	put     func(engine.Value) (engine.Value, error)
	takes   *typ           // what the payload side must be, anything if it varies
	gives   *typ           // what the field side is
	samples []engine.Value // where only certain values have an inverse
}

// A twoWay is a function that can be inverted.
type twoWay struct {
	usage string
	min   int // constant arguments behind the first
	max   int
	make  func(args []engine.Value) (*step, error) // the error is for the user
}

var twoWays = map[string]*twoWay{
	"scale":  {"scale(payload.x, factor, offset)", 1, 2, makeScale},
	"table":  {"table(payload.x, { ON = true, OFF = false })", 1, 1, nil}, // makeTable, from the syntax tree
	"part":   {`part(payload.x, "before{}behind")`, 1, 1, makePart},
	"number": {`number(payload.x) or number(payload.x, ",")`, 0, 1, makeNumber},
	"split":  {`split(payload.x, ",")`, 1, 1, makeSplit},
	"time":   {`time(payload.x, "YYYY-MM-DD hh:mm:ss")`, 1, 2, makeTime},
	"base64": {"base64(payload.x)", 0, 0, makeBase64},
}

func makeScale(args []engine.Value) (*step, error) {
	factor, offset := args[0], lattice.Int(0)
	if len(args) > 1 {
		offset = args[1]
	}
	if !factor.IsNumber() || !offset.IsNumber() {
		return nil, fmt.Errorf("factor and offset are numbers")
	}
	if factor.Equal(lattice.Int(0)) {
		return nil, fmt.Errorf("the factor can't be 0")
	}
	minus, err := lattice.MulNumbers(offset, lattice.Int(-1))
	if err != nil {
		return nil, err
	}
	return &step{
		takes: &typ{kind: numberType}, gives: &typ{kind: numberType},
		get: func(v engine.Value) (engine.Value, error) {
			if !v.IsNumber() {
				return v, notA(v, "a number to scale")
			}
			p, err := lattice.MulNumbers(v, factor)
			if err != nil {
				return v, err
			}
			return lattice.AddNumbers(p, offset)
		},
		put: func(v engine.Value) (engine.Value, error) {
			if !v.IsNumber() {
				return v, notA(v, "a number to scale")
			}
			d, err := lattice.AddNumbers(v, minus)
			if err != nil {
				return v, err
			}
			q, ok, err := lattice.QuoNumbers(d, factor)
			if err == nil && !ok {
				err = fmt.Errorf("%s can't be divided by %s exactly", d.Number(), factor.Number())
			}
			return q, err
		},
	}, nil
}

func notA(v engine.Value, want string) error {
	return fmt.Errorf("%s is %s, not %s", brief(v), kindName(v), want)
}

// A tableRow is one pair of table().
type tableRow struct{ from, to engine.Value }

func makeTable(rows []tableRow) (*step, error) {
	for i, r := range rows {
		for _, q := range rows[:i] {
			if q.from.Equal(r.from) {
				return nil, fmt.Errorf("%s stands there twice", brief(r.from))
			}
			if q.to.Equal(r.to) {
				return nil, fmt.Errorf("%s and %s both give %s, so the way back is open; a table is one to one", brief(q.from), brief(r.from), brief(r.to))
			}
		}
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("the table is empty")
	}
	s := &step{takes: anything, gives: anything}
	kinds := map[typeKind]bool{}
	var keys, values []string
	for _, r := range rows {
		s.samples = append(s.samples, r.to)
		keys, values = append(keys, brief(r.from)), append(values, brief(r.to))
		switch {
		case r.to.IsNumber():
			kinds[numberType] = true
		case r.to.Kind() == lattice.BoolKind:
			kinds[boolType] = true
		case r.to.Kind() == lattice.StringKind:
			kinds[stringType] = true
		default:
			kinds[anyType] = true
		}
	}
	if len(kinds) == 1 {
		for k := range kinds {
			s.gives = &typ{kind: k}
		}
	}
	s.get = func(v engine.Value) (engine.Value, error) {
		for i := range rows {
			if rows[i].from.Equal(v) {
				return rows[i].to, nil
			}
		}
		return v, fmt.Errorf("%s is not in the table: %s", brief(v), strings.Join(keys, ", "))
	}
	s.put = func(v engine.Value) (engine.Value, error) {
		for i := range rows {
			if rows[i].to.Equal(v) {
				return rows[i].from, nil
			}
		}
		return v, fmt.Errorf("%s is not in the table: %s", brief(v), strings.Join(values, ", "))
	}
	return s, nil
}

func makePart(args []engine.Value) (*step, error) {
	pattern := args[0].Text()
	pre, suf, ok := strings.Cut(pattern, "{}")
	if !ok || strings.Contains(suf, "{}") {
		return nil, fmt.Errorf("the pattern needs {} once, where the part stands")
	}
	return &step{
		takes: &typ{kind: stringType}, gives: &typ{kind: stringType},
		get: func(v engine.Value) (engine.Value, error) {
			s := v.Text()
			if v.Kind() != lattice.StringKind || len(s) < len(pre)+len(suf) || !strings.HasPrefix(s, pre) || !strings.HasSuffix(s, suf) {
				return v, fmt.Errorf("%s is not of the form %q", brief(v), pattern)
			}
			return lattice.String(s[len(pre) : len(s)-len(suf)]), nil
		},
		put: func(v engine.Value) (engine.Value, error) {
			if v.Kind() != lattice.StringKind {
				return v, notA(v, "a string")
			}
			return lattice.String(pre + v.Text() + suf), nil
		},
	}, nil
}

func makeNumber(args []engine.Value) (*step, error) {
	point := "."
	if len(args) > 0 {
		if point = args[0].Text(); point != "," && point != "." {
			return nil, fmt.Errorf(`the decimal sign is "," or "."`)
		}
	}
	return &step{
		takes: anything, gives: &typ{kind: numberType},
		get: func(v engine.Value) (engine.Value, error) {
			if v.IsNumber() {
				return v, nil
			}
			s := strings.TrimSpace(v.Text())
			if point == "," {
				if strings.Contains(s, ".") {
					return v, fmt.Errorf("%s is not a number with a decimal comma", brief(v))
				}
				s = strings.Replace(s, ",", ".", 1)
			}
			n, err := lattice.ParseNumber(strings.TrimPrefix(s, "+"))
			if err != nil {
				return v, fmt.Errorf("%s is not a number", brief(v))
			}
			return n, nil
		},
		put: func(v engine.Value) (engine.Value, error) {
			if !v.IsNumber() {
				return v, notA(v, "a number")
			}
			s := v.Number()
			if point == "," {
				s = strings.Replace(s, ".", ",", 1)
			}
			return lattice.String(s), nil
		},
	}, nil
}

func makeSplit(args []engine.Value) (*step, error) {
	sep := args[0].Text()
	if sep == "" {
		return nil, fmt.Errorf("the separator is a text of at least one character")
	}
	return &step{
		takes: &typ{kind: stringType}, gives: &typ{kind: listType, item: &typ{kind: stringType}},
		samples: []engine.Value{lattice.List(), lattice.List(lattice.String("a")), lattice.List(lattice.String("a"), lattice.String("b c"))},
		get: func(v engine.Value) (engine.Value, error) {
			if v.Kind() != lattice.StringKind {
				return v, notA(v, "a string to split")
			}
			if v.Text() == "" {
				return lattice.List(), nil
			}
			parts := strings.Split(v.Text(), sep)
			items := make([]engine.Value, len(parts))
			for i, p := range parts {
				items[i] = lattice.String(p)
			}
			return lattice.List(items...), nil
		},
		put: func(v engine.Value) (engine.Value, error) {
			if v.Kind() != lattice.ListKind && v.Kind() != lattice.SetKind {
				return v, notA(v, "a list")
			}
			var b strings.Builder
			for i, item := range v.Items() {
				if item.Kind() != lattice.StringKind || strings.Contains(item.Text(), sep) || item.Text() == "" && v.Len() == 1 {
					return v, fmt.Errorf("%s can't be an item between %q", brief(item), sep)
				}
				if i > 0 {
					b.WriteString(sep)
				}
				b.WriteString(item.Text())
			}
			return lattice.String(b.String()), nil
		},
	}, nil
}

// The layouts of time() are HCL's own (formatdate), so that one set is to be learnt.
var timeTokens = []struct{ hcl, layout string }{
	{"YYYY", "2006"}, {"YY", "06"}, {"MMMM", "January"}, {"MMM", "Jan"}, {"MM", "01"}, {"DD", "02"},
	{"EEEE", "Monday"}, {"EEE", "Mon"}, {"hh", "15"}, {"HH", "03"}, {"AA", "PM"}, {"mm", "04"}, {"ss", "05"},
	{"SSS", "000"}, {"ZZZZZ", "-07:00"}, {"ZZZZ", "-0700"}, {"Z", "Z07:00"},
}

func timeLayout(s string) (string, error) {
	if strings.Contains(s, "HH") && !strings.Contains(s, "AA") {
		return "", fmt.Errorf("HH is the hour of twelve and needs AA, AM or PM; hh is the hour of the day")
	}
	var b strings.Builder
next:
	for s != "" {
		for _, t := range timeTokens {
			if rest, ok := strings.CutPrefix(s, t.hcl); ok {
				b.WriteString(t.layout)
				s = rest
				continue next
			}
		}
		if s[0] == '\'' {
			lit, rest, ok := strings.Cut(s[1:], "'")
			if !ok {
				return "", fmt.Errorf("a ' without its other '")
			}
			b.WriteString(lit)
			s = rest
			continue
		}
		if c := s[0]; c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' && c != 'T' {
			return "", fmt.Errorf("%q is no part of a time: YYYY MM DD hh mm ss SSS Z; other letters stand between ' and '", s[:1])
		}
		b.WriteByte(s[0])
		s = s[1:]
	}
	return b.String(), nil
}

func makeTime(args []engine.Value) (*step, error) {
	form, zone := args[0].Text(), time.UTC
	if len(args) > 1 {
		var err error
		if zone, err = time.LoadLocation(args[1].Text()); err != nil || args[1].Text() == "" {
			return nil, fmt.Errorf("unknown time zone %s: a name as in \"Europe/Berlin\" is wanted", brief(args[1]))
		}
	}
	var unit time.Duration
	switch form {
	case "unix":
		unit = time.Second
	case "unix_ms":
		unit = time.Millisecond
	case "":
		return nil, fmt.Errorf(`the form is a text: "unix", "unix_ms", or as in "YYYY-MM-DD hh:mm:ss"`)
	}
	if unit != 0 {
		return &step{
			takes: &typ{kind: numberType}, gives: &typ{kind: timeType},
			get: func(v engine.Value) (engine.Value, error) {
				n, err := lattice.MulNumbers(v, lattice.Int(int64(unit/time.Microsecond)))
				if err != nil || n.Kind() != lattice.IntKind || n.Int() > 1<<57 || n.Int() < -1<<55 {
					return v, fmt.Errorf("%s is not a time in %s", brief(v), form)
				}
				return timeValue(time.UnixMicro(n.Int())), nil
			},
			put: func(v engine.Value) (engine.Value, error) {
				at, err := time.Parse(time.RFC3339Nano, v.Text())
				if err != nil {
					return v, notA(v, "a time in RFC 3339")
				}
				q, _, err := lattice.QuoNumbers(lattice.Int(at.UnixMicro()), lattice.Int(int64(unit/time.Microsecond)))
				return q, err
			},
		}, nil
	}
	layout, err := timeLayout(form)
	if err != nil {
		return nil, err
	}
	return &step{
		takes: &typ{kind: stringType}, gives: &typ{kind: timeType},
		get: func(v engine.Value) (engine.Value, error) {
			at, err := time.ParseInLocation(layout, v.Text(), zone)
			if err != nil {
				return v, fmt.Errorf("%s is not a time of the form %q", brief(v), form)
			}
			return timeValue(at), nil
		},
		put: func(v engine.Value) (engine.Value, error) {
			at, err := time.Parse(time.RFC3339Nano, v.Text())
			if err != nil {
				return v, notA(v, "a time in RFC 3339")
			}
			return lattice.String(at.In(zone).Format(layout)), nil
		},
	}, nil
}

func makeBase64([]engine.Value) (*step, error) {
	return &step{
		takes: &typ{kind: stringType}, gives: &typ{kind: bytesType},
		get: func(v engine.Value) (engine.Value, error) {
			b, err := base64.StdEncoding.DecodeString(v.Text())
			if err != nil || v.Kind() != lattice.StringKind {
				return v, fmt.Errorf("%s is not base64", brief(v))
			}
			return lattice.Bytes(b), nil
		},
		put: func(v engine.Value) (engine.Value, error) {
			switch v.Kind() {
			case lattice.BytesKind:
				return lattice.String(base64.StdEncoding.EncodeToString(v.Bytes())), nil
			case lattice.StringKind:
				return lattice.String(base64.StdEncoding.EncodeToString([]byte(v.Text()))), nil
			}
			return v, notA(v, "bytes")
		},
	}, nil
}

func twoWayNames() []string {
	names := make([]string, 0, len(twoWays))
	for n := range twoWays {
		names = append(names, n)
	}
	sort.Strings(names)
	return slices.Clip(names)
}
