package ldap

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func TestPath(t *testing.T) {
	for _, c := range []struct{ address, want string }{
		{"cn=a,ou=Berlin", "ou=berlin,cn=a"},
		{"CN=a", "cn=a"},
		{"cn=A%2Cb,ou=x", `ou=x,cn=a\,b`},
	} {
		if got := path(c.address); got != c.want {
			t.Errorf("%s: got %q, want %q", c.address, got, c.want)
		}
	}
	if !strings.HasPrefix(path("cn=a,ou=x"), path("ou=X")+",") {
		t.Error("an entry is not found below its parent")
	}
}

func TestDocumentsAreBounded(t *testing.T) {
	d := newDocuments()
	b := &binds{hash: "h"}
	for i := range 100 {
		d.put(fmt.Sprintf("cn=d%d", i), "1", attrs("description", strings.Repeat("x", mostDocuments/50)), b)
	}
	if d.size > mostDocuments || len(d.byPath) < 40 || len(d.byPath) > 50 {
		t.Errorf("%d documents of %d bytes are remembered", len(d.byPath), d.size)
	}
	if _, ok := d.get("cn=d0", "1", b); ok {
		t.Error("the oldest one is remembered")
	}
	if _, ok := d.get("CN=D99", "1", b); !ok {
		t.Error("the newest one is forgotten")
	}
	if _, ok := d.get("cn=d99", "2", b); ok {
		t.Error("it was found in another version")
	}
	if _, ok := d.get("cn=d99", "1", &binds{hash: "other"}); ok {
		t.Error("it was found for other binds")
	}
	d.put("cn=d99", "2", attrs("description", "1"), b)
	d.drop("cn=d98")
	if _, ok := d.get("cn=d99", "2", b); !ok {
		t.Error("a newer version is not remembered")
	}
}

func TestCSNsOfCookies(t *testing.T) {
	got := csnsOf([]byte("rid=001,sid=002,csn=20261125104140.501520Z#000000#001#000000;20261125104141.000000Z#000000#002#000000"))
	if want := map[string]string{"001": "20261125104140.501520Z#000000#001#000000", "002": "20261125104141.000000Z#000000#002#000000"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := csnsOf([]byte("\x00opaque,csn=x")); len(got) != 0 {
		t.Errorf("got %v, want none", got)
	}
}

func TestRenders(t *testing.T) {
	r := &renders{link: wrappertest.NewLink()}
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	shown := attrs("seeAlso", "cn=a,dc=x", "seeAlso", "cn=b,dc=x", "l", "Paris")
	got, records := r.apply("cn=e", shown, map[string]val{"seealso": {[]byte("CN=A, DC=x")}, "l": {[]byte("paris ")}})
	if string(got[0].Vals[0]) != "CN=A, DC=x" || string(got[0].Vals[1]) != "cn=b,dc=x" || string(got[1].Vals[0]) != "paris " || len(records) != 1 {
		t.Errorf("got %q, %d records", got, len(records))
	}
	if string(shown[0].Vals[0]) != "cn=a,dc=x" {
		t.Error("what was shown has been changed")
	}
	if err := r.link.Keep(t.Context(), records...); err != nil {
		t.Fatal(err)
	}
	// Later, and after a restart, it stands for the same, until somebody writes it anew.
	if err := r.load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, records = r.apply("cn=e", shown, nil); string(got[0].Vals[0]) != "CN=A, DC=x" || len(records) != 0 {
		t.Errorf("got %q, %d records", got, len(records))
	}
	if got, records = r.apply("cn=e", attrs("seeAlso", "cn=A,dc=x", "l", "Paris"), nil); string(got[0].Vals[0]) != "cn=A,dc=x" || len(records) != 1 {
		t.Errorf("got %q, %d records", got, len(records))
	}
	// Passwords are never noted.
	if _, records = r.apply("cn=p", attrs("userPassword", "{SSHA}x"), map[string]val{"userpassword": {[]byte("secret")}}); len(records) != 0 {
		t.Errorf("got %q, want none", records)
	}
}

func TestTypeDescriptions(t *testing.T) {
	all := make([]typeDescription, 0, 3)
	for _, s := range []string{
		`( 2.5.4.41 NAME 'name' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15{32768} )`,
		`( 2.5.4.4 NAME ( 'sn' 'surname' ) DESC 'it''s (a) name' SUP name )`,
		`( 1.2.3 NAME 'count' SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE X-ORIGIN ( 'a' 'b' ) )`,
	} {
		d, ok := parseTypeDescription(s)
		if !ok {
			t.Fatalf("%s was not read", s)
		}
		all = append(all, d)
	}
	sn, _ := typeOf(all, &all[1])
	count, _ := typeOf(all, &all[2])
	if fmt.Sprint(sn.Names) != "[sn surname]" || sn.Kind != entry.Text || count.Kind != entry.Integer || !count.Single || count.OID != "1.2.3" {
		t.Errorf("got %+v, %+v", sn, count)
	}
}

func FuzzTypeDescription(f *testing.F) {
	f.Add(`( 2.5.4.4 NAME ( 'sn' 'surname' ) SUP name SYNTAX 1.2{3} )`)
	f.Add(`( 1 NAME '`)
	f.Fuzz(func(t *testing.T, s string) {
		d, ok := parseTypeDescription(s)
		if ok {
			typeOf([]typeDescription{d}, &d)
		}
	})
}

// FuzzRenders: nothing is shown but what is there, or what was written.
func FuzzRenders(f *testing.F) {
	f.Add("cn=a,dc=x", "CN=A, DC=X", "b")
	f.Add("a", "A ", "a")
	f.Fuzz(func(t *testing.T, stored, written, other string) {
		r := &renders{link: wrappertest.NewLink(), at: map[uint64]struct{}{}}
		got, _ := r.apply("cn=e", attrs("x", stored, "x", other), map[string]val{"x": {[]byte(written)}})
		for i, v := range got[0].Vals {
			if !bytes.Equal(v, []byte([]string{stored, other}[i])) && string(v) != written {
				t.Errorf("%q is shown", v)
			}
		}
	})
}

func TestFits(t *testing.T) {
	rest := wrappers.Pattern{Segments: []wrappers.Segment{{Kind: wrappers.OneSegment}, {Kind: wrappers.RestSegments}, {Kind: wrappers.LiteralSegment, Literal: "o=x"}}}
	for address, want := range map[string]bool{"cn=a,ou=b,ou=c,o=x": true, "cn=a,ou=b,O=X": true, "cn=a,o=x": false, "cn=a,ou=b,o=y": false} {
		if got := fits(&rest, address); got != want {
			t.Errorf("%s: got %v, want %v", address, got, want)
		}
	}
}
