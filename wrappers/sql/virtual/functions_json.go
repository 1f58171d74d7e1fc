package virtual

import (
	"bytes" // of md5(), which is no protection of anything
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// jsonFunctions are those of JSON and of arrays, which are JSON where SQLite goes through them.
var jsonFunctions = []builtin{
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
