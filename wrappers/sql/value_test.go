package sql

import (
	"reflect"
	"strings"
	"testing"
)

func TestValues(t *testing.T) {
	array := func(k kind) colType { return colType{kind: k, array: true} }
	for _, test := range []struct {
		typ  colType
		text string
		want any
		back string // "": as it was
	}{
		{colType{kind: boolKind}, "t", true, "true"},
		{colType{kind: intKind}, "-7", int64(-7), ""},
		{colType{kind: numberKind}, "21.50", number("21.50"), "21.5"},
		{colType{kind: numberKind}, "1e+300", number("1e+300"), ""},
		{colType{kind: numberKind}, "NaN", "NaN", ""},
		{colType{kind: bytesKind}, `\x0001ff`, []byte{0, 1, 255}, ""},
		{colType{kind: jsonKind}, `{"a": [1, 2.50, null], "b": "x<y"}`, map[string]any{"a": []any{int64(1), number("2.50"), nil}, "b": "x<y"}, `{"a":[1,2.5,null],"b":"x<y"}`},
		{colType{kind: timeKind}, "2026-01-31 12:00:00.5+00", "2026-01-31T12:00:00.5Z", "2026-01-31T12:00:00.5Z"},
		{colType{kind: timeKind}, "2026-01-31 12:00:00", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00Z"},
		{colType{kind: timeKind}, "infinity", "infinity", ""},
		{colType{kind: blankKind}, "ab   ", "ab", "ab"},
		{colType{}, "any", "any", ""},
		{array(intKind), "{1,NULL,3}", []any{int64(1), nil, int64(3)}, `{"1",NULL,"3"}`},
		{array(textKind), `{a,"b \"c\\",NULL,"NULL",""}`, []any{"a", `b "c\`, nil, "NULL", ""}, `{"a","b \"c\\",NULL,"NULL",""}`},
		{array(numberKind), "{{1,2},{3,4}}", []any{[]any{number("1"), number("2")}, []any{number("3"), number("4")}}, `{{"1","2"},{"3","4"}}`},
		{array(intKind), "{}", []any{}, ""},
		{array(intKind), "[0:1]={5,6}", []any{int64(5), int64(6)}, `{"5","6"}`},
	} {
		got, err := test.typ.value([]byte(test.text))
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%q: got %#v, %v; want %#v", test.text, got, err, test.want)
			continue
		}
		back, ok, err := test.typ.text(got)
		want := test.back
		if want == "" {
			want = test.text
		}
		if err != nil || !ok || back != want {
			t.Errorf("%q back: got %q, %v", test.text, back, err)
		}
		raw, err := row{"v": got}.encode()
		if err != nil {
			t.Fatal(err)
		}
		r, err := decodeRow(raw)
		if err != nil || !sameValue(r["v"], got) {
			t.Errorf("%q as a payload: got %#v, %v", test.text, r["v"], err)
		}
	}
	for _, bad := range []string{"", "1", "{", "{1", "{1,", "{,}", "{1}}", `{"a`, `{"a\`, "{{{{{{{1}}}}}}}"} {
		if v, err := array(textKind).value([]byte(bad)); err == nil {
			t.Errorf("%q: got %#v", bad, v)
		}
	}
}

func TestSame(t *testing.T) {
	at := colType{kind: timeKind}
	if !at.same("2026-01-31T12:00:00Z", "2026-01-31T14:00:00+02:00") || at.same("2026-01-31T12:00:00Z", "2026-01-31T12:00:01Z") {
		t.Error("times")
	}
	for _, pair := range [][2]number{{"1.50", "1.5"}, {"100", "1e2"}, {"0", "-0.00"}, {"1234567890123456789012345", "1234567890123456789012345.0"}} {
		if !pair[0].Equal(pair[1]) {
			t.Errorf("%s and %s", pair[0], pair[1])
		}
	}
	if number("1.5").Equal("1.51") || sameValue(int64(1), "1") || sameValue(nil, "") {
		t.Error("what differs is the same")
	}
}

func TestCanonical(t *testing.T) {
	for in, want := range map[string]string{
		"sensors": "public.sensors", "a.b": "a.b", "sensors?b=2&a=1": "public.sensors?a=1&b=2", "x.y?k=a%2Fb c": "x.y?k=a%2Fb+c", "x.y?k=": "x.y?k=",
	} {
		if got, err := canonical(in); err != nil || got != want {
			t.Errorf("%s: got %s, %v", in, got, err)
		}
		if got, err := canonical(want); err != nil || got != want {
			t.Errorf("%s again: got %s, %v", want, got, err)
		}
	}
	for _, bad := range []string{"", "a.b.c", ".a", "a.", "t?", "t?a", "t?=1", "t?a=1&a=2"} {
		if got, err := canonical(bad); err == nil {
			t.Errorf("%s: got %s", bad, got)
		}
	}
	for _, name := range []tableName{{"public", "t"}, {"a.b", "c?d%2E"}, {"100%", "ü"}} {
		address := rowAddress(name, []keyColumn{{"k", "v&=ü"}, {"a", "1"}})
		if c, err := canonical(address); err != nil || c != address {
			t.Errorf("%s is not canonical: %s, %v", address, c, err)
		}
		got, key, err := parseAddress(address)
		if err != nil || got != name || !reflect.DeepEqual(key, []keyColumn{{"a", "1"}, {"k", "v&=ü"}}) {
			t.Errorf("%s: got %+v %+v, %v", address, got, key, err)
		}
	}
}

func FuzzValues(f *testing.F) {
	f.Add([]byte(`{1,"a\"b",NULL,{x}}`))
	f.Add([]byte(`{"a": 1e400}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for k := textKind; k <= blankKind; k++ {
			for _, typ := range []colType{{kind: k}, {kind: k, array: true}} {
				v, err := typ.value(b)
				if err != nil || strings.IndexByte(string(b), 0) >= 0 {
					continue
				}
				text, ok, err := typ.text(v)
				if err != nil || !ok && v != nil {
					t.Errorf("%q of %+v: %v can't be written: %v", b, typ, v, err)
					continue
				}
				if again, err := typ.value([]byte(text)); ok && k != timeKind && (err != nil || !typ.same(v, again)) {
					t.Errorf("%q of %+v: %#v is written as %q and read as %#v, %v", b, typ, v, text, again, err)
				}
			}
		}
	})
}

func FuzzRow(f *testing.F) {
	raw, _ := row{"a": number("1.5"), "b": []byte{1}, "c": []any{nil, true}}.encode()
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRow(b)
		if err != nil {
			return
		}
		again, err := r.encode()
		if err != nil {
			return // a number larger than is written
		}
		if s, err := decodeRow(again); err != nil || !sameValue(map[string]any(r), map[string]any(s)) {
			t.Errorf("%#v comes back as %#v, %v", r, s, err)
		}
	})
}
