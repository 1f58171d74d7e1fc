package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	good := []string{
		`{}`, `[]`, `null`, ` {"a" : [1, -0.5e+3, "x\u00e9\ud83d\ude00"]} `, `"\u0000"`, `0`, `-0`,
		strings.Repeat("[", 32) + strings.Repeat("]", 32),
		`{"a":{"b":1},"b":{"b":1}}`,
	}
	for _, s := range good {
		if err := Check([]byte(s), 32); err != nil {
			t.Errorf("%s: got %v, want nil", s, err)
		}
	}
	bad := []string{
		``, `{`, `[1,]`, `{"a":1,}`, `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `01`, `1.`, `.5`, `+1`, `1e`, `NaN`, `nul`,
		`"\ud800"`, `"\ud800\u0041"`, `"\udc00"`, "\"\x01\"", `"\x"`, `"a`, `{} {}`, `{'a':1}`, "\"\xff\"", "\xef\xbb\xbf{}",
		strings.Repeat("[", 33) + strings.Repeat("]", 33),
		`{"a":1,"b":2,"c":3,"d":4,"e":5,"f":6,"g":7,"h":8,"i":9,"j":10,"k":11,"l":12,"m":13,"n":14,"c":15}`,
	}
	for _, s := range bad {
		if err := Check([]byte(s), 32); !errors.Is(err, ErrSyntax) {
			t.Errorf("%q: got %v, want ErrSyntax", s, err)
		}
	}
}

// What Check lets pass, encoding/json reads too, and without loss.
func FuzzCheck(f *testing.F) {
	for _, s := range []string{`{"a":[1,2.5e3,"\ud83d\ude00",null,true]}`, `{"a":1,"\u0061":2}`, `"\ud800"`, `[[[[[]]]]]`, `01`, `-0`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := Check([]byte(s), 32)
		if err == nil && !json.Valid([]byte(s)) {
			t.Errorf("%q passes, and is no JSON", s)
		}
	})
}
