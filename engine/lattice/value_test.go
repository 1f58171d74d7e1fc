package lattice

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"pgregory.net/rapid"
)

func num(t testing.TB, text string) Value {
	t.Helper()
	v, err := ParseNumber(text)
	if err != nil {
		t.Fatalf("ParseNumber(%q): %v", text, err)
	}
	return v
}

func TestParseNumber(t *testing.T) {
	tests := []struct {
		text, want string
		kind       Kind
	}{
		{"0", "0", IntKind},
		{"-0", "0", IntKind},
		{"0e99999999999", "0", IntKind},
		{"0.000", "0", IntKind},
		{"21.0", "21", IntKind},
		{"1e2", "100", IntKind},
		{"1E+2", "100", IntKind},
		{"120e-1", "12", IntKind},
		{"21.5", "21.5", DecimalKind},
		{"21.50", "21.5", DecimalKind},
		{"-21.50", "-21.5", DecimalKind},
		{"0.05", "0.05", DecimalKind},
		{"-0.00000012", "-0.00000012", DecimalKind},
		{"0.000000001", "1e-9", DecimalKind},
		{"-0.00000000123", "-1.23e-9", DecimalKind},
		{"9223372036854775807", "9223372036854775807", IntKind},
		{"-9223372036854775808", "-9223372036854775808", IntKind},
		{"9223372036854775808", "9223372036854775808", DecimalKind},
		{"-9223372036854775809", "-9223372036854775809", DecimalKind},
		{"922337203685477580.7e1", "9223372036854775807", IntKind},
		{"9000000000000000000", "9000000000000000000", IntKind},
		{"100000000000000000000", "100000000000000000000", DecimalKind},
		{"1e21", "1e21", DecimalKind},
		{"12345678901234567890123.5", "12345678901234567890123.5", DecimalKind},
		{"1e1000", "1e1000", DecimalKind},
		{"0.1000000000000000055511151231257827021181583404541015625", "0.1000000000000000055511151231257827021181583404541015625", DecimalKind},
		{strings.Repeat("9", 100), "9." + strings.Repeat("9", 99) + "e99", DecimalKind},
		{"1" + strings.Repeat("0", 500), "1e500", DecimalKind},
	}
	for _, test := range tests {
		v, err := ParseNumber(test.text)
		if err != nil {
			t.Errorf("%q: %v", test.text, err)
			continue
		}
		if v.Kind() != test.kind || v.Number() != test.want {
			t.Errorf("%q: got %s %s, want %s %s", test.text, v.Kind(), v.Number(), test.kind, test.want)
		}
		if again := num(t, v.Number()); !again.Equal(v) {
			t.Errorf("%q: its text %q reads as %s", test.text, v.Number(), again)
		}
	}
	for _, text := range []string{"", "-", "01", "-01", "1.", ".5", "+1", "1e", "1e+", "0x10", "NaN", "Infinity", "1 ", "1_0", "１"} {
		if v, err := ParseNumber(text); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %s, %v; want ErrInvalid", text, v, err)
		}
	}
	for _, text := range []string{"1e1001", "1e-1001", strings.Repeat("9", 101), "1" + strings.Repeat("0", 99) + "1", "1e99999999999999999999"} {
		if v, err := ParseNumber(text); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%.20q: got %s, %v; want ErrTooLarge", text, v, err)
		}
	}
}

func rat(v Value) *big.Rat {
	coef, exp := v.Decimal()
	r := new(big.Rat).SetInt(coef)
	scale := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(max(exp, -exp))), nil)
	if exp < 0 {
		return r.Quo(r, new(big.Rat).SetInt(scale))
	}
	return r.Mul(r, new(big.Rat).SetInt(scale))
}

func genNumber() *rapid.Generator[Value] {
	return rapid.OneOf(
		rapid.Map(rapid.Int64(), Int),
		rapid.Map(rapid.Int64Range(-20, 20), Int),
		rapid.Map(rapid.StringMatching(`-?(0|[1-9][0-9]{0,30})\.[0-9]{1,30}(e-?[0-9]{1,2})?`), func(s string) Value {
			v, _ := ParseNumber(s)
			return v
		}),
		rapid.Map(rapid.StringMatching(`-?[1-9][0-9]{15,40}`), func(s string) Value {
			v, _ := ParseNumber(s)
			return v
		}),
	)
}

func TestArithmeticIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := genNumber().Draw(t, "a"), genNumber().Draw(t, "b")
		if got, want := CompareNumbers(a, b), rat(a).Cmp(rat(b)); got != want {
			t.Fatalf("compare %s with %s: got %d, want %d", a, b, got, want)
		}
		if got, want := a.Equal(b), rat(a).Cmp(rat(b)) == 0; got != want {
			t.Fatalf("%s equal %s: got %v, want %v", a, b, got, want)
		}
		if sum, err := AddNumbers(a, b); err != nil {
			if !errors.Is(err, ErrTooLarge) {
				t.Fatal(err)
			}
		} else if want := new(big.Rat).Add(rat(a), rat(b)); rat(sum).Cmp(want) != 0 {
			t.Fatalf("%s + %s: got %s, want %s", a, b, sum, want)
		}
		if product, err := MulNumbers(a, b); err != nil {
			t.Fatal(err)
		} else if want := new(big.Rat).Mul(rat(a), rat(b)); rat(product).Cmp(want) != 0 {
			t.Fatalf("%s × %s: got %s, want %s", a, b, product, want)
		}
		q, exact, err := QuoNumbers(a, b)
		if CompareNumbers(b, Int(0)) == 0 {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("division by zero: got %s, %v", q, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		want := new(big.Rat).Quo(rat(a), rat(b))
		if (rat(q).Cmp(want) == 0) != exact {
			t.Fatalf("%s ÷ %s: got %s, exact %v; want %s", a, b, q, exact, want)
		}
		off := new(big.Rat).Sub(rat(q), want)
		if off.Sign() != 0 {
			off.Quo(off, want).Abs(off)
			if limit, _ := new(big.Rat).SetString("5e-40"); off.Cmp(limit) > 0 {
				t.Fatalf("%s ÷ %s: got %s, off by %s", a, b, q, off.FloatString(50))
			}
		}
	})
}

func TestArithmeticAtTheEdges(t *testing.T) {
	tests := []struct{ a, b, sum, product string }{
		{"9223372036854775807", "1", "9223372036854775808", "9223372036854775807"},
		{"-9223372036854775808", "-1", "-9223372036854775809", "9223372036854775808"},
		{"0.1", "0.2", "0.3", "0.02"},
		{"-9223372036854775808", "1", "-9223372036854775807", "-9223372036854775808"},
		{"1e19", "-1e19", "0", "-1e38"},
		{"2.5", "4", "6.5", "10"},
	}
	for _, test := range tests {
		a, b := num(t, test.a), num(t, test.b)
		if got, err := AddNumbers(a, b); err != nil || !got.Equal(num(t, test.sum)) {
			t.Errorf("%s + %s: got %s, %v; want %s", a, b, got, err, test.sum)
		}
		if got, err := MulNumbers(a, b); err != nil || !got.Equal(num(t, test.product)) {
			t.Errorf("%s × %s: got %s, %v; want %s", a, b, got, err, test.product)
		}
	}
	if _, err := AddNumbers(String("1"), Int(1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("adding a string: got %v, want ErrInvalid", err)
	}
	if _, err := AddNumbers(num(t, "1e1000"), Int(1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a sum of 1001 digits: got %v, want ErrTooLarge", err)
	}
	if q, exact, err := QuoNumbers(Int(2), Int(3)); err != nil || exact || q.Number() != "0."+strings.Repeat("6", 39)+"7" {
		t.Errorf("2 ÷ 3: got %s, %v, %v", q, exact, err)
	}
}

// genValue draws values of every kind; in JSON only those that plain JSON keeps.
func genValue(depth int, jsonOnly bool) *rapid.Generator[Value] {
	gens := []*rapid.Generator[Value]{
		rapid.Just(Null()),
		rapid.Map(rapid.Bool(), Bool),
		genNumber(),
		rapid.Map(rapid.String(), String),
	}
	if !jsonOnly {
		gens = append(gens, rapid.Map(rapid.SliceOf(rapid.Byte()), Bytes))
	}
	if depth > 0 {
		inner := rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[Value] { return genValue(depth-1, jsonOnly) }), 0, 5)
		name := rapid.OneOf(rapid.StringN(0, 8, -1), rapid.StringMatching(`\${1,2}(bytes|set|int|decimal|x)`))
		gens = append(gens,
			rapid.Map(inner, func(items []Value) Value { return List(items...) }),
			rapid.Custom(func(t *rapid.T) Value {
				var members []Member
				for _, v := range inner.Draw(t, "values") {
					members = append(members, Member{name.Draw(t, "name"), v})
				}
				return Object(members...)
			}))
		if !jsonOnly {
			gens = append(gens, rapid.Map(inner, func(items []Value) Value { return Set(items...) }))
		}
	}
	return rapid.OneOf(gens...)
}

func TestEncodingsLoseNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genValue(4, false).Draw(t, "v")
		if err := v.Validate(); err != nil {
			t.Fatal(err)
		}
		data := v.AppendCBOR(nil)
		if got, err := ParseCBOR(data); err != nil || !got.Equal(v) {
			t.Fatalf("CBOR of %s: got %s, %v", v, got, err)
		}
		if err := cbor.Wellformed(data); err != nil {
			t.Fatalf("CBOR of %s is not well-formed: %v", v, err)
		}
		tagged := v.AppendTagged(nil)
		if got, err := ParseTagged(tagged); err != nil || !got.Equal(v) {
			t.Fatalf("tagged JSON of %s, %s: got %s, %v", v, tagged, got, err)
		}
		if !json.Valid(tagged) {
			t.Fatalf("tagged JSON %s is not JSON", tagged)
		}
		if plain := v.AppendJSON(nil); !json.Valid(plain) {
			t.Fatalf("JSON %s is not JSON", plain)
		}
	})
	rapid.Check(t, func(t *rapid.T) {
		v := genValue(4, true).Draw(t, "v")
		if got, err := ParseJSON(v.AppendJSON(nil)); err != nil || !got.Equal(v) {
			t.Fatalf("JSON of %s: got %s, %v", v, got, err)
		}
	})
}

func TestEqualComparesWithBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		gen := rapid.OneOf(genValue(1, false), rapid.Map(rapid.SliceOfN(rapid.Map(rapid.Int64Range(0, 2), Int), 0, 3), func(v []Value) Value { return List(v...) }))
		a, b, c := gen.Draw(t, "a"), gen.Draw(t, "b"), gen.Draw(t, "c")
		equal := bytes.Equal(a.AppendCBOR(nil), b.AppendCBOR(nil))
		if a.Equal(b) != equal || (Compare(a, b) == 0) != equal {
			t.Fatalf("%s and %s: Equal %v, Compare %d, equal bytes %v", a, b, a.Equal(b), Compare(a, b), equal)
		}
		if Compare(a, b) != -Compare(b, a) {
			t.Fatalf("%s and %s: Compare is not antisymmetric", a, b)
		}
		if Compare(a, b) <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 {
			t.Fatalf("%s, %s, %s: Compare is not transitive", a, b, c)
		}
	})
}

// An independent encoder must agree on every byte of what it can express.
func TestCBORAgreesWithReference(t *testing.T) {
	mode, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic, BigIntConvert: cbor.BigIntConvertShortest}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	var native func(v Value) any
	native = func(v Value) any {
		switch v.Kind() {
		case BoolKind:
			return v.Bool()
		case IntKind:
			return v.Int()
		case DecimalKind:
			coef, exp := v.Decimal()
			return cbor.Tag{Number: 4, Content: []any{exp, coef}}
		case StringKind:
			return v.Text()
		case BytesKind:
			return v.Bytes()
		case ListKind, SetKind:
			items := []any{}
			for _, item := range v.Items() {
				items = append(items, native(item))
			}
			if v.Kind() == SetKind {
				return cbor.Tag{Number: 258, Content: items}
			}
			return items
		case ObjectKind:
			members := map[string]any{}
			for _, m := range v.Members() {
				members[m.Name] = native(m.Value)
			}
			return members
		}
		return nil
	}
	rapid.Check(t, func(t *rapid.T) {
		v := genValue(4, false).Draw(t, "v")
		if v.Kind() == BytesKind && v.Len() == 0 {
			return // a nil slice is null there
		}
		want, err := mode.Marshal(native(v))
		if err != nil {
			t.Fatal(err)
		}
		if got := v.AppendCBOR(nil); !bytes.Equal(got, want) && !hasEmptyBytes(v) {
			t.Fatalf("%s: got %x, want %x", v, got, want)
		}
	})
}

func hasEmptyBytes(v Value) bool {
	switch v.Kind() {
	case BytesKind:
		return v.Len() == 0
	case ObjectKind:
		for _, m := range v.Members() {
			if hasEmptyBytes(m.Value) {
				return true
			}
		}
	}
	for _, item := range v.Items() {
		if hasEmptyBytes(item) {
			return true
		}
	}
	return false
}

func TestCBORRefuses(t *testing.T) {
	for name, data := range map[string]string{
		"nothing":                      "",
		"a longer head":                "\x18\x05",
		"a head of two bytes":          "\x19\x00\xff",
		"an indefinite list":           "\x9f\xff",
		"a float":                      "\xf9\x3c\x00",
		"a double":                     "\xfb\x3f\xf1\x99\x99\x99\x99\x99\x9a",
		"an unknown tag":               "\xc1\x00",
		"keys out of order":            "\xa2\x61b\x00\x61a\x00",
		"keys in alphabetical order":   "\xa2\x62aa\x00\x61b\x00",
		"a key twice":                  "\xa2\x61a\x00\x61a\x00",
		"a set out of order":           "\xd9\x01\x02\x82\x02\x01",
		"a decimal with zeros":         "\xc4\x82\x20\x18\xd2",
		"a decimal that is an integer": "\xc4\x82\x01\x01",
		"a short bignum":               "\xc4\x82\x20\xc2\x41\x01",
		"a bignum with a leading zero": "\xc4\x82\x20\xc2\x4a\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01",
		"uint64 beyond int64":          "\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
		"text that is not UTF-8":       "\x61\xff",
		"two values":                   "\x00\x00",
		"a list longer than the data":  "\x9b\x00\x00\x00\xff\xff\xff\xff\xff",
		"undefined inside":             "\x81\xf7",
	} {
		if v, err := ParseCBOR([]byte(data)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %s, %v; want ErrInvalid", name, v, err)
		}
	}
	if _, err := ParseCBOR(bytes.Repeat([]byte{0x81}, 100)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("100 nested lists: got %v, want ErrTooLarge", err)
	}
}

func TestDepth(t *testing.T) {
	nested := func(n int) (Value, string) {
		v := List()
		for range n - 1 {
			v = List(v)
		}
		return v, strings.Repeat("[", n) + strings.Repeat("]", n)
	}
	for n, want := range map[int]error{MaxDepth: nil, MaxDepth + 1: ErrTooLarge} {
		v, text := nested(n)
		if err := v.Validate(); !errors.Is(err, want) {
			t.Errorf("%d levels: Validate gives %v, want %v", n, err, want)
		}
		if _, err := ParseJSON([]byte(text)); !errors.Is(err, want) {
			t.Errorf("%d levels: ParseJSON gives %v, want %v", n, err, want)
		}
		if _, err := ParseCBOR(v.AppendCBOR(nil)); !errors.Is(err, want) {
			t.Errorf("%d levels: ParseCBOR gives %v, want %v", n, err, want)
		}
	}
}

func TestParseJSON(t *testing.T) {
	tests := []struct{ text, want string }{
		{` {"b" : 1, "a":[true,false,null,"x"]} `, `{"a":[true,false,null,"x"],"b":1}`},
		{`"\u00e9\ud83d\ude00\n\"\\\/\b\f\r\t"`, `"é😀\n\"\\/\u0008\u000c\r\t"`},
		{`[[],{},""]`, `[[],{},""]`},
		{`{"value":21.50}`, `{"value":21.5}`},
		{`[{"a":{"b":[1]}},{"a":2}]`, `[{"a":{"b":[1]}},{"a":2}]`},
	}
	for _, test := range tests {
		v, err := ParseJSON([]byte(test.text))
		if err != nil || v.String() != test.want {
			t.Errorf("%s: got %s, %v; want %s", test.text, v, err, test.want)
		}
	}
	for _, text := range []string{
		"", " ", "{", "[1,]", `{"a":1,}`, `{"a":1,"a":2}`, `{a:1}`, `{"a"}`, "nul", "truex", `"`, `"\x"`, `"\ud800"`, `"\ud800\u0041"`,
		`"\udc00"`, `"\u12"`, "\"\x01\"", "\"\xff\"", "1 2", "[1 2]", "\ufeff1", "01", "-", `{"a":1}}`, `"\`, `"\u`,
	} {
		if v, err := ParseJSON([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: got %s, %v; want ErrInvalid", text, v, err)
		}
	}
}

func TestTaggedForms(t *testing.T) {
	tests := []struct {
		v    Value
		want string
	}{
		{Int(1 << 53), `9007199254740992`},
		{Int(1<<53 + 1), `{"$int":"9007199254740993"}`},
		{Int(-1<<53 - 1), `{"$int":"-9007199254740993"}`},
		{num(t, "21.5"), `21.5`},
		{num(t, "0.1234567890123456"), `{"$decimal":"0.1234567890123456"}`},
		{num(t, "1e20"), `100000000000000000000`},
		{num(t, "1e999"), `{"$decimal":"1e999"}`},
		{Bytes([]byte{0, 255}), `{"$bytes":"AP8="}`},
		{Set(Int(2), Int(1), Int(2)), `{"$set":[1,2]}`},
		{Object(Member{"$set", Int(1)}), `{"$$set":1}`},
		{Object(Member{"$$x", Int(1)}), `{"$$$x":1}`},
		{Object(Member{"!", Int(1)}, Member{"$", Int(2)}), `{"!":1,"$$":2}`},
	}
	for _, test := range tests {
		if got := string(test.v.AppendTagged(nil)); got != test.want {
			t.Errorf("%s: got %s, want %s", test.v, got, test.want)
		}
		if got, err := ParseTagged([]byte(test.want)); err != nil || !got.Equal(test.v) {
			t.Errorf("%s: got %s, %v", test.want, got, err)
		}
	}
	for _, text := range []string{`{"$x":1}`, `{"$bytes":1}`, `{"$bytes":"?"}`, `{"$set":1}`, `{"$int":"1.5"}`, `{"$int":1}`, `{"$decimal":"x"}`, `{"$set":[],"a":1}`} {
		if v, err := ParseTagged([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %s, %v; want ErrInvalid", text, v, err)
		}
	}
}

func TestConstructors(t *testing.T) {
	o := Object(Member{"b", Int(1)}, Member{"a", Int(2)}, Member{"b", Int(3)}, Member{"c", Value{}})
	if got, want := o.String(), `{"a":2,"b":3}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if v, ok := o.Member("b"); !ok || v.Int() != 3 {
		t.Errorf("member b: got %s, %v", v, ok)
	}
	if v, ok := o.Member("c"); ok {
		t.Errorf("an absent member: got %s", v)
	}
	var many []Member
	for _, c := range "zyxwvutsrqponmlkjihgfedcba" {
		many = append(many, Member{string(c), Int(int64(c))})
	}
	if v, ok := Object(many...).Member("q"); !ok || v.Int() != 'q' {
		t.Errorf("member q of many: got %s, %v", v, ok)
	}
	if got, want := List(Value{}, Int(1)).String(), `[null,1]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := Set(String("b"), Value{}, Int(7), String("a"), Int(7)).String(), `[7,"a","b"]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if err := String("\xff").Validate(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a string that is not UTF-8: got %v, want ErrInvalid", err)
	}
	if Int(1).Equal(Bool(true)) || Bytes([]byte("a")).Equal(String("a")) || List().Equal(Set()) || (Value{}).Equal(Null()) {
		t.Error("values of different kinds are equal")
	}
	if got := (Value{}).String(); got != "" {
		t.Errorf("the absent value: got %q", got)
	}
}

func TestScalarsDoNotAllocate(t *testing.T) {
	text, s, d := []byte("21.5"), "some text", num(t, "21.5")
	b := make([]byte, 0, 64)
	n := testing.AllocsPerRun(100, func() {
		v, _ := ParseNumber("21.50")
		if !v.Equal(d) || Compare(v, Int(3)) != 1 {
			t.Error("wrong")
		}
		b = v.AppendCBOR(b[:0])
		b = v.AppendJSON(b[:0])
		b = String(s).AppendCBOR(b[:0])
		v, _ = MulNumbers(v, Int(2))
		v, _ = AddNumbers(v, Int(2))
		_ = v
		_ = text
	})
	if n > 2 { // CompareNumbers of a decimal makes big integers
		t.Errorf("got %v allocations", n)
	}
}

func FuzzParseCBOR(f *testing.F) {
	for _, v := range []Value{Null(), Int(-1), num(f, "21.5"), num(f, "-123456789012345678901234567890.5"), String("é"), Bytes([]byte{1}),
		List(Int(1), Set(Int(2), String("a"))), Object(Member{"b", Int(1)}, Member{"aa", Bool(true)})} {
		f.Add(v.AppendCBOR(nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := ParseCBOR(data)
		if err != nil {
			return
		}
		if got := v.AppendCBOR(nil); !bytes.Equal(got, data) {
			t.Fatalf("%x reads as %s, which is %x", data, v, got)
		}
		if err := v.Validate(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5,-3e2,"x\u00e9\ud83d\ude00"],"b":{"c":null}}`, `{"$bytes":"AP8="}`, `{"$set":[1]}`, `"\\"`, `[0.1e-5]`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if v, err := ParseJSON(data); err == nil {
			var any any
			if json.Unmarshal(data, &any) != nil && !strings.Contains(v.String(), "e") {
				t.Fatalf("%q is not JSON to encoding/json", data)
			}
			if again, err := ParseJSON(v.AppendJSON(nil)); err != nil || !again.Equal(v) {
				t.Fatalf("%q: %s became %s, %v", data, v, again, err)
			}
		}
		if v, err := ParseTagged(data); err == nil {
			if again, err := ParseTagged(v.AppendTagged(nil)); err != nil || !again.Equal(v) {
				t.Fatalf("%q: %s became %s, %v", data, v, again, err)
			}
		}
	})
}

func BenchmarkParseJSON(b *testing.B) {
	data := []byte(`{"value":21.5}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendCBOR(b *testing.B) {
	v, _ := ParseJSON([]byte(`{"value":21.5,"unit":"C","tags":["a","b"]}`))
	dst := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		dst = v.AppendCBOR(dst[:0])
	}
}
