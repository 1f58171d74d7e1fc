package dn

import "testing"

func TestParseAndString(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"UID=jsmith,DC=example,DC=net", "UID=jsmith,DC=example,DC=net"},
		{"OU=Sales+CN=J.  Smith,DC=example,DC=net", "OU=Sales+CN=J.  Smith,DC=example,DC=net"},
		{`CN=James \"Jim\" Smith\, III,DC=example`, `CN=James \"Jim\" Smith\, III,DC=example`},
		{`CN=Before\0dAfter,DC=example`, "CN=Before\rAfter,DC=example"},
		{"1.3.6.1.4.1.1466.0=#04024869", "1.3.6.1.4.1.1466.0=Hi"},
		{`CN=Lu\C4\8Di\C4\87`, "CN=Lučić"},
		{" cn = a b , dc = x ; dc = y ", "cn=a b,dc=x,dc=y"},
		{`cn=\ a\ ,dc=x`, `cn=\ a\ ,dc=x`},
		{`cn=\#1`, `cn=\#1`},
		{"cn=", "cn="},
		{`cn=a=b`, `cn=a=b`},
		{`cn=\ff`, `cn=\FF`},
		{`cn="a, \"b\" + c" , dc=x`, `cn=a\, \"b\" \+ c,dc=x`},
		{`cn=" a "+ou=""`, `cn=\ a\ +ou=`},
		{`OID.2.5.4.3=a`, `2.5.4.3=a`},
	} {
		d, err := Parse(c.in)
		if err != nil || d.String() != c.want {
			t.Errorf("Parse(%q): got %q, %v; want %q", c.in, d.String(), err, c.want)
		}
	}
	for _, in := range []string{"ann", "=x", "cn=a,", "cn=a,,dc=x", `cn=a\`, `cn=a\zz`, "cn=#0", "cn=#040", "cn=#0405ab", `cn="a`, `cn="a"b`, `cn=a"b`, "c n=a", "cn=a+", "cn=#04024869x"} {
		if d, err := Parse(in); err == nil {
			t.Errorf("Parse(%q): got %q, want an error", in, d)
		}
	}
}

func TestEqual(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"uid=ann,dc=x", "UID=Ann, DC=X", true},
		{"cn=a  b", "cn=A b", true},
		{"cn=a+ou=b", "ou=B+CN=a", true},
		{"0.9.2342.19200300.100.1.1=ann", "uid=ann", true},
		{"cn=STRASSE", "cn=strasse", true},
		{"cn=ſ", "cn=S", true},
		{"cn=a", "cn=b", false},
		{"cn=a", "cn=a,dc=x", false},
		{"cn=a+ou=b", "cn=a", false},
	} {
		a, err1 := Parse(c.a)
		b, err2 := Parse(c.b)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		if a.Equal(b) != c.want || (a.Key() == b.Key()) != c.want {
			t.Errorf("%q and %q: Equal %v, keys %q and %q; want %v", c.a, c.b, a.Equal(b), a.Key(), b.Key(), c.want)
		}
	}
}

func TestAddress(t *testing.T) {
	base, _ := Parse("dc=acme,dc=org")
	for _, c := range []struct{ in, want string }{
		{"uid=ann,ou=people,dc=acme,dc=org", "uid=ann,ou=people"},
		{"UID=Ann,OU=People,DC=Acme,DC=org", "uid=Ann,ou=People"},
		{`cn=Lee\, Ann,dc=acme,dc=org`, "cn=Lee%2C Ann"},
		{`cn=a\+b+ou=x,dc=acme,dc=org`, "cn=a%2Bb+ou=x"},
		{"ou=x+cn=a,dc=acme,dc=org", "cn=a+ou=x"},
		{"cn=50%,dc=acme,dc=org", "cn=50%25"},
		{"cn=a=b,dc=acme,dc=org", "cn=a=b"},
		{"cn=note~,dc=acme,dc=org", "cn=note%7E"},
		{"cn=a.tmp,dc=acme,dc=org", "cn=a%2Etmp"},
		{`cn=\ a   b,dc=acme,dc=org`, "cn=a b"},
		{"commonName=x,dc=acme,dc=org", "cn=x"},
	} {
		d, err := Parse(c.in)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := d.Address(base)
		if !ok || got != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.in, got, ok, c.want)
		}
		back, err := ParseAddress(got)
		if err != nil || !back.Join(base).Equal(d) {
			t.Errorf("%q: back comes %q, %v; want %q", got, back.Join(base), err, d)
		}
		if again, err := Canonical(got); err != nil || again != got {
			t.Errorf("Canonical(%q): got %q, %v", got, again, err)
		}
	}
	for _, in := range []string{"dc=acme,dc=org", "dc=org", "uid=ann,dc=other,dc=org"} {
		d, _ := Parse(in)
		if got, ok := d.Address(base); ok {
			t.Errorf("%q: got %q, want no address", in, got)
		}
	}
	for _, in := range []string{"", "ann", "uid= ann", "uid=a  b", "UID=ann", "cn=%41", "cn=a%2fb", "userid=a", "ou=x+cn=a", "cn=a~"} {
		if d, err := ParseAddress(in); err == nil {
			t.Errorf("ParseAddress(%q): got %q, want an error", in, d)
		}
	}
}

func TestCanonicalOfTemplates(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"uid=qzc00czq,ou=people", "uid=qzc00czq,ou=people"},
		{"UID = qzc00czq , OU = People", "uid=qzc00czq,ou=People"},
		{"cn=qzc00czq,qzc01czq", "cn=qzc00czq,qzc01czq"},
		{"qzc00czq,ou=x", "qzc00czq,ou=x"},
		{"ou=qzc00czq + cn=qzc01czq", "cn=qzc01czq+ou=qzc00czq"},
		{`cn=Lee\, qzc00czq`, "cn=Lee%2C qzc00czq"},
		{"cn=100%", "cn=100%25"},
		{"cn=100%25", "cn=100%25"},
		{"cn=%41", "cn=%2541"},
		{"cn=%2541", "cn=%2541"},
	} {
		if got, err := Canonical(c.in); err != nil || got != c.want {
			t.Errorf("Canonical(%q): got %q, %v; want %q", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{"people", "uid=a,people", "uid=a,", ""} {
		if got, err := Canonical(in); err == nil {
			t.Errorf("Canonical(%q): got %q, want an error", in, got)
		}
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"uid=ann,ou=people", `cn=Lee\, Ann+ou=x`, "cn=%25~", "cn=#04024869", `cn=\00\ff`, "cn=  a  "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := Parse(s)
		if err != nil {
			return
		}
		again, err := Parse(d.String())
		if err != nil || !again.Equal(d) || again.Key() != d.Key() {
			t.Fatalf("%q is written %q, and read as %q (%v)", s, d, again, err)
		}
		address, ok := d.Address(nil)
		if !ok {
			return
		}
		back, err := ParseAddress(address)
		if err != nil || !back.Equal(d) {
			t.Fatalf("%q has the address %q, which is read as %q (%v)", s, address, back, err)
		}
		if c, err := Canonical(address); err != nil || c != address {
			t.Fatalf("%q has the address %q, whose canonical form is %q (%v)", s, address, c, err)
		}
	})
}
