package sql

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A kind is what a column's type means for a row's values. Texts are those of sessions with the
// settings of settings: ISO dates, UTC, hexadecimal bytes.
type kind uint8

const (
	textKind kind = iota // everything without a kind of its own: enum, uuid, date, interval, inet …
	boolKind
	intKind
	numberKind
	bytesKind
	jsonKind
	timeKind  // with a zone, and without one: the same as in UTC
	blankKind // char(n), padded with blanks that mean nothing
)

// A colType is a column's type: its kind, and of an array that of its elements.
type colType struct {
	kind  kind
	array bool
	delim byte // between an array's elements
}

// builtin are the types with fixed numbers (pg_type.dat) that have a kind of their own.
var builtin = map[uint32]colType{
	16: {kind: boolKind}, 17: {kind: bytesKind}, 20: {kind: intKind}, 21: {kind: intKind}, 23: {kind: intKind}, 26: {kind: intKind},
	700: {kind: numberKind}, 701: {kind: numberKind}, 1700: {kind: numberKind}, 114: {kind: jsonKind}, 3802: {kind: jsonKind},
	1114: {kind: timeKind}, 1184: {kind: timeKind}, 1042: {kind: blankKind},
	25: {}, 1043: {}, 18: {}, 19: {}, 1082: {}, 1083: {}, 1266: {}, 1186: {}, 2950: {}, 869: {}, 650: {}, 790: {},

	1000: {kind: boolKind, array: true}, 1001: {kind: bytesKind, array: true}, 1016: {kind: intKind, array: true}, 1005: {kind: intKind, array: true},
	1007: {kind: intKind, array: true}, 1028: {kind: intKind, array: true}, 1021: {kind: numberKind, array: true}, 1022: {kind: numberKind, array: true},
	1231: {kind: numberKind, array: true}, 199: {kind: jsonKind, array: true}, 3807: {kind: jsonKind, array: true}, 1115: {kind: timeKind, array: true},
	1185: {kind: timeKind, array: true}, 1014: {kind: blankKind, array: true}, 1009: {array: true}, 1015: {array: true}, 1182: {array: true}, 2951: {array: true},
}

// value reads a column's text.
func (t colType) value(text []byte) (any, error) {
	if t.array {
		return t.list(string(text))
	}
	return t.kind.value(string(text))
}

func (k kind) value(s string) (any, error) {
	switch k {
	case boolKind:
		return s == "t" || s == "true", nil
	case intKind:
		return strconv.ParseInt(s, 10, 64)
	case numberKind:
		switch strings.TrimPrefix(s, "-") {
		case "NaN", "Infinity":
			return s, nil // no number that can be stored
		}
		n := number(s)
		if _, _, ok := n.Parts(); !ok {
			return nil, fmt.Errorf("%q is not a number", s)
		}
		return n, nil
	case bytesKind:
		h, ok := strings.CutPrefix(s, `\x`)
		if !ok {
			return nil, errors.New("bytes that are not in hexadecimal form")
		}
		return hex.DecodeString(h)
	case jsonKind:
		return parseJSON(s)
	case timeKind:
		if at, ok := parseTime(s); ok {
			return at.UTC().Format(time.RFC3339Nano), nil
		}
		return s, nil // infinity, or before Christ
	case blankKind:
		return strings.TrimRight(s, " "), nil
	}
	return s, nil
}

// parseTime reads a time as a session with our settings writes it.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range []string{"2006-01-02 15:04:05.999999999Z07", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// parseJSON keeps numbers as they are written.
func parseJSON(s string) (any, error) {
	d := json.NewDecoder(strings.NewReader(s))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("JSON with something behind it")
	}
	return fromJSON(v), nil
}

func fromJSON(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
			return n
		}
		return number(v.String())
	case []any:
		for i := range v {
			v[i] = fromJSON(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = fromJSON(v[k])
		}
	}
	return v
}

// toJSON gives what encoding/json writes as the same value; bytes are base64.
func toJSON(v any) any {
	switch v := v.(type) {
	case number:
		return json.Number(v.Text())
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = toJSON(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = toJSON(v[k])
		}
		return out
	}
	return v
}

func jsonText(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(toJSON(v))
	return strings.TrimSuffix(b.String(), "\n"), err
}

// text writes a value as input of the column's type; false: NULL.
func (t colType) text(v any) (string, bool, error) {
	if v == nil {
		return "", false, nil
	}
	if list, ok := v.([]any); ok && t.array {
		s, err := t.literal(list)
		return s, true, err
	}
	s, err := t.kind.text(v)
	return s, true, err
}

func (k kind) text(v any) (string, error) {
	if k == jsonKind {
		return jsonText(v)
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case bool:
		return strconv.FormatBool(v), nil
	case int64:
		return strconv.FormatInt(v, 10), nil
	case number:
		return v.Text(), nil
	case []byte:
		if k == bytesKind {
			return `\x` + hex.EncodeToString(v), nil
		}
		return string(v), nil
	}
	return jsonText(v)
}

// same tells whether two values are one for a column of the type.
func (t colType) same(a, b any) bool {
	if t.kind == timeKind && !t.array {
		x, ok1 := a.(string)
		y, ok2 := b.(string)
		if ok1 && ok2 && x != y {
			p, err1 := time.Parse(time.RFC3339Nano, x)
			q, err2 := time.Parse(time.RFC3339Nano, y)
			return err1 == nil && err2 == nil && p.Equal(q)
		}
	}
	return sameValue(a, b)
}

func sameValue(a, b any) bool {
	if x, ok := asNumber(a); ok {
		y, ok := asNumber(b)
		return ok && x.Equal(y)
	}
	switch x := a.(type) {
	case nil:
		return b == nil
	case bool:
		y, ok := b.(bool)
		return ok && x == y
	case string:
		y, ok := b.(string)
		return ok && x == y
	case []byte:
		y, ok := b.([]byte)
		return ok && bytes.Equal(x, y)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, sameValue)
	case map[string]any:
		y, ok := b.(map[string]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for k := range x {
			if v, there := y[k]; !there || !sameValue(x[k], v) {
				return false
			}
		}
		return true
	}
	return false
}

func asNumber(v any) (number, bool) {
	switch v := v.(type) {
	case int64:
		return number(strconv.FormatInt(v, 10)), true
	case number:
		return v, true
	}
	return "", false
}

// mostNested bounds arrays of arrays: PostgreSQL has six dimensions.
const mostNested = 6

// list reads an array's text (PostgreSQL, section 8.15.6).
func (t colType) list(s string) (any, error) {
	if i := strings.IndexByte(s, '{'); i > 0 && strings.HasPrefix(s, "[") { // bounds other than 1
		s = s[i:]
	}
	p := arrayParser{s: s, t: t, delim: t.delim}
	if p.delim == 0 {
		p.delim = ','
	}
	v, err := p.list(0)
	if err == nil && p.i != len(s) {
		err = errArray
	}
	return v, err
}

var errArray = errors.New("not the text of an array")

type arrayParser struct {
	s     string
	i     int
	t     colType
	delim byte
}

func (p *arrayParser) list(depth int) ([]any, error) {
	if depth == mostNested || p.i >= len(p.s) || p.s[p.i] != '{' {
		return nil, errArray
	}
	p.i++
	out := []any{}
	if p.i < len(p.s) && p.s[p.i] == '}' {
		p.i++
		return out, nil
	}
	for p.i < len(p.s) {
		var v any
		var err error
		switch p.s[p.i] {
		case '{':
			v, err = p.list(depth + 1)
		case '"':
			v, err = p.quoted()
		default:
			v, err = p.plain()
		}
		if err != nil {
			return nil, err
		}
		out = append(out, v)
		if p.i >= len(p.s) {
			return nil, errArray
		}
		c := p.s[p.i]
		p.i++
		switch c {
		case '}':
			return out, nil
		case p.delim:
		default:
			return nil, errArray
		}
	}
	return nil, errArray
}

func (p *arrayParser) quoted() (any, error) {
	var b strings.Builder
	for p.i++; p.i < len(p.s); p.i++ {
		switch c := p.s[p.i]; c {
		case '\\':
			if p.i++; p.i >= len(p.s) {
				return nil, errArray
			}
			b.WriteByte(p.s[p.i])
		case '"':
			p.i++
			return p.t.kind.value(b.String())
		default:
			b.WriteByte(c)
		}
	}
	return nil, errArray
}

func (p *arrayParser) plain() (any, error) {
	from := p.i
	for p.i < len(p.s) && p.s[p.i] != p.delim && p.s[p.i] != '}' && p.s[p.i] != '{' && p.s[p.i] != '"' {
		p.i++
	}
	s := p.s[from:p.i]
	switch {
	case s == "":
		return nil, errArray
	case s == "NULL":
		return nil, nil
	}
	return p.t.kind.value(s)
}

// literal writes an array's text.
func (t colType) literal(list []any) (string, error) {
	delim := t.delim
	if delim == 0 {
		delim = ','
	}
	var b strings.Builder
	b.WriteByte('{')
	for i, v := range list {
		if i > 0 {
			b.WriteByte(delim)
		}
		if inner, ok := v.([]any); ok && t.kind != jsonKind {
			s, err := t.literal(inner)
			if err != nil {
				return "", err
			}
			b.WriteString(s)
			continue
		}
		if v == nil {
			b.WriteString("NULL")
			continue
		}
		s, err := t.kind.text(v)
		if err != nil {
			return "", err
		}
		b.WriteByte('"')
		b.WriteString(strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s))
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String(), nil
}
