package sqlrow

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// TestVectors: items as RFC 8949, appendix A, has them. What AppendAny writes is the form that stands second.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		in   string
		want any
		out  string // "": as it came
	}{
		{"00", int64(0), ""}, {"17", int64(23), ""}, {"1818", int64(24), ""}, {"1903e8", int64(1000), ""}, {"1a000f4240", int64(1000000), ""},
		{"1b000000e8d4a51000", int64(1000000000000), ""}, {"1bffffffffffffffff", Number("18446744073709551615"), "c248ffffffffffffffff"},
		{"c249010000000000000000", Number("18446744073709551616"), ""}, {"3bffffffffffffffff", Number("-18446744073709551616"), "c348ffffffffffffffff"},
		{"c349010000000000000000", Number("-18446744073709551617"), ""}, {"20", int64(-1), ""}, {"3903e7", int64(-1000), ""},
		{"f90000", int64(0), "00"}, {"f93c00", int64(1), "01"}, {"fb3ff199999999999a", Number("1.1"), "c482200b"}, {"f97bff", int64(65504), "19ffe0"},
		{"fa47c35000", int64(100000), "1a000186a0"}, {"f90400", Number("6.103515625e-05"), "c4822d1b000000016bcc41e9"}, {"f9c400", int64(-4), "23"},
		{"c48221196ab3", Number("27315e-2"), ""},
		{"f4", false, ""}, {"f5", true, ""}, {"f6", nil, ""}, {"f7", nil, "f6"}, {"c074323031332d30332d32315432303a30343a30305a", "2013-03-21T20:04:00Z", "74323031332d30332d32315432303a30343a30305a"},
		{"4401020304", []byte{1, 2, 3, 4}, ""}, {"62c3bc", "ü", ""}, {"80", []any{}, ""}, {"8301820203820405", []any{int64(1), []any{int64(2), int64(3)}, []any{int64(4), int64(5)}}, ""},
		{"a26161016162820203", map[string]any{"a": int64(1), "b": []any{int64(2), int64(3)}}, ""}, {"826161a161626163", []any{"a", map[string]any{"b": "c"}}, ""},
	} {
		raw, _ := hex.DecodeString(c.in)
		r := Reader{b: raw}
		it, err := r.Item()
		if err != nil || r.More() {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		got, err := it.Any()
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %#v, %v, want %#v", c.in, got, err, c.want)
		}
		if c.out == "" {
			c.out = c.in
		}
		if out, err := AppendAny(nil, got); err != nil || hex.EncodeToString(out) != c.out {
			t.Errorf("%s: written as %x, %v, want %s", c.in, out, err, c.out)
		}
	}
	for _, bad := range []string{"", "18", "1a0000", "1c", "1f", "5f", "9f", "bf", "44", "61", "81", "a1", "a10101", "a161", "c2", "c201", "c4", "c481", "c48261610a", "f8", "fc", "ff", strings.Repeat("81", 300) + "00"} {
		raw, _ := hex.DecodeString(bad)
		r := Reader{b: raw}
		if it, err := r.Item(); err == nil {
			t.Errorf("%s: got %#v", bad, it)
		}
	}
	for _, bad := range []string{"00", "80", "a1616101a0", "a261610161610200", "a2616101616102"} {
		raw, _ := hex.DecodeString(bad)
		if row, err := Decode(raw); err == nil {
			t.Errorf("%s as a row: got %#v", bad, row)
		}
	}
}

// TestAddresses: names and keys come back from an address as they went into it.
func TestAddresses(t *testing.T) {
	for _, name := range []string{"sensors", "a.b", "100%", "%2E", "%zz", "q?\x00", "Zoë"} {
		if got := UnescapeName(EscapeName(name)); got != name || strings.ContainsAny(EscapeName(name), ".?\x00") {
			t.Errorf("%q: %q, %q", name, EscapeName(name), got)
		}
	}
	key := [][2]string{{"a&b", "x y"}, {"k", ""}, {"z", "1%=&+ü"}, {"plain", "oven-3"}}
	var b []byte
	for i, c := range key {
		b = AppendKey(b, i == 0, c[0], c[1])
	}
	if want := "a%26b=x+y&k=&z=1%25%3D%26%2B%C3%BC&plain=oven-3"; string(b) != want {
		t.Errorf("got %s, want %s", b, want)
	}
	rest := string(b)
	for _, c := range key {
		var name, value string
		var found bool
		name, value, rest, found = CutKey(rest)
		n, err1 := Unescape(name)
		v, err2 := Unescape(value)
		if !found || err1 != nil || err2 != nil || n != c[0] || v != c[1] {
			t.Errorf("%q: %q=%q, %v, %v", c, n, v, err1, err2)
		}
	}
	if _, _, rest, found := CutKey("lone"); found || rest != "" {
		t.Error("a key without a value has one")
	}
}

// FuzzDecode: a payload that is read can be written, and is then read as the same.
func FuzzDecode(f *testing.F) {
	raw, err := Encode(map[string]any{"a": Number("-1.50"), "b": []byte{0}, "c": []any{nil, true, int64(-7)}, "d": map[string]any{"x": "y"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, b []byte) {
		row, err := Decode(b)
		if err != nil {
			return
		}
		out, err := Encode(row)
		if err != nil {
			return // of a number that is infinite, or beyond all bounds
		}
		again, err := Decode(out)
		if err != nil {
			t.Fatalf("%x became %x: %v", b, out, err)
		}
		if twice, err := Encode(again); err != nil || string(twice) != string(out) {
			t.Fatalf("%x became %x and then %x, %v", b, out, twice, err)
		}
	})
}
