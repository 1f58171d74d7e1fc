package schema

import (
	"strings"
	"testing"
)

// TestStandard: every definition of ours is complete: what it names is defined.
func TestStandard(t *testing.T) {
	s := Default()
	if len(s.AttributeTypes()) < 170 || len(s.ObjectClasses()) < 60 {
		t.Errorf("%d attribute types, %d object classes", len(s.AttributeTypes()), len(s.ObjectClasses()))
	}
	noRule := map[string]bool{"protocolInformationMatch": true, "presentationAddressMatch": true} // of X.520, in no RFC's implementation
	for _, a := range s.AttributeTypes() {
		if a.Sup != "" && a.Super() == nil {
			t.Errorf("%s: no supertype %s", a.Name(), a.Sup)
		}
		if a.SyntaxOID() == "" || SyntaxOf(a.SyntaxOID()) == nil {
			t.Errorf("%s: syntax %q is unknown", a.Name(), a.SyntaxOID())
		}
		for _, r := range []string{a.Equality, a.Ordering, a.Substrings} {
			if r != "" && Rule(r) == nil && !noRule[r] {
				t.Errorf("%s: rule %s is unknown", a.Name(), r)
			}
		}
		again, err := ParseAttributeType(a.String())
		if err != nil || again.String() != a.String() {
			t.Errorf("%s: %v, %v", a, again, err)
		}
	}
	for _, c := range s.ObjectClasses() {
		for _, n := range append(append([]string{}, c.Must...), c.May...) {
			if s.Attribute(n) == nil {
				t.Errorf("%s: no attribute type %s", c.Name(), n)
			}
		}
		for _, n := range c.Sup {
			if s.Class(n) == nil {
				t.Errorf("%s: no superclass %s", c.Name(), n)
			}
		}
		again, err := ParseObjectClass(c.String())
		if err != nil || again.String() != c.String() {
			t.Errorf("%s: %v, %v", c, again, err)
		}
	}
	for _, r := range MatchingRules() {
		if !strings.Contains(r.String(), r.Name) || r.form == nil {
			t.Errorf("%s", r)
		}
	}
}

func TestInheritance(t *testing.T) {
	s := Default()
	cn := s.Attribute("COMMONNAME")
	if cn == nil || cn.Name() != "cn" || cn.EqualityRule().Name != "caseIgnoreMatch" || cn.SyntaxOID() != arc+"15" || !cn.Is(s.Attribute("name")) || s.Attribute("name").Is(cn) {
		t.Errorf("cn: %+v", cn)
	}
	if c := s.Attribute("c"); c.SyntaxOID() != arc+"11" || c.SubstringsRule() == nil {
		t.Errorf("c: %+v", c)
	}
	if !s.Attribute("entryUUID").Operational() || s.Attribute("uid").Operational() {
		t.Error("operational")
	}
}

// A server's subschema: in any order, with Active Directory's quoted OIDs, and with a line that nobody can read.
func TestParseForeign(t *testing.T) {
	s, problems := Parse([]string{
		"( 1.2.3.2 NAME 'sub' SUP mid )",
		"( 1.2.3.1 NAME 'mid' SUP base )",
		"( 1.2.3.0 NAME 'base' SYNTAX '1.3.6.1.4.1.1466.115.121.1.15' EQUALITY caseIgnoreMatch X-SCHEMA-FILE '00core.ldif' )",
		"( 2.5.4.9 NAME ( 'a' 'b') SYNTAX 1.3.6.1.4.1.1466.115.121.1.27{64} SINGLE-VALUE)",
		"( broken",
	}, []string{"( my-oid NAME 'thing' SUP ( top $ other ) AUXILIARY MUST(a$b) MAY base )"})
	if len(problems) != 1 {
		t.Errorf("problems: %v", problems)
	}
	if sub := s.Attribute("sub"); sub.SyntaxOID() != arc+"15" || sub.EqualityRule() == nil || !sub.Is(s.Attribute("base")) {
		t.Errorf("sub: %+v", sub)
	}
	if b := s.Attribute("B"); b.Bound != 64 || !b.SingleValue {
		t.Errorf("b: %+v", b)
	}
	if c := s.Class("thing"); c == nil || len(c.Must) != 2 || len(c.Sup) != 2 || c.Kind != Auxiliary {
		t.Errorf("thing: %+v", c)
	}
}

func TestEquality(t *testing.T) {
	s := Default()
	tests := []struct {
		rule, a, b string
		want       string // "equal", "differ", or "undefined": b is not of the syntax
	}{
		{"caseIgnoreMatch", "Straße", "STRASSE", "equal"},
		{"caseIgnoreMatch", "  foo   bar ", "Foo Bar", "equal"},
		{"caseIgnoreMatch", "foo bar", "foobar", "differ"},
		{"caseIgnoreMatch", "a\u00adb", "ab", "equal"},
		{"caseIgnoreMatch", "ﬁ", "FI", "equal"},
		{"caseIgnoreMatch", "x", "\ue000", "undefined"},
		{"caseIgnoreMatch", "x", "\xff", "undefined"},
		{"caseIgnoreMatch", "tab\there", "tab here", "equal"},
		{"caseExactMatch", "Foo", "foo", "differ"},
		{"caseExactMatch", "Foo  Bar", "Foo Bar", "equal"},
		{"caseIgnoreIA5Match", "a@B.c", "A@b.C", "equal"},
		{"caseIgnoreIA5Match", "a", "é", "undefined"},
		{"telephoneNumberMatch", "+1 555-0100", "+15550100", "equal"},
		{"numericStringMatch", "12 34", "1234", "equal"},
		{"numericStringMatch", "1", "x", "undefined"},
		{"integerMatch", "007", "7", "equal"},
		{"integerMatch", "7", "seven", "undefined"},
		{"integerMatch", "-0", "0", "equal"},
		{"booleanMatch", "TRUE", "true", "equal"},
		{"booleanMatch", "TRUE", "yes", "undefined"},
		{"generalizedTimeMatch", "20240101120000Z", "202401011300+0100", "equal"},
		{"generalizedTimeMatch", "20240101120000Z", "20240101120000.0Z", "equal"},
		{"generalizedTimeMatch", "2024010112.5Z", "20240101123000Z", "equal"},
		{"generalizedTimeMatch", "20240101120000Z", "2024", "undefined"},
		{"distinguishedNameMatch", "CN=Foo  Bar, OU=x", "2.5.4.3=foo bar,organizationalUnitName=X", "equal"},
		{"distinguishedNameMatch", "cn=a+sn=b", "SN=B+CN=A", "equal"},
		{"distinguishedNameMatch", `cn=a\2cb`, `cn=a\,b`, "equal"},
		{"distinguishedNameMatch", `cn=#0c0161`, `cn=a`, "equal"},
		{"distinguishedNameMatch", "cn=a", "a", "undefined"},
		{"uniqueMemberMatch", "cn=a#'01'B", "CN=A#'01'B", "equal"},
		{"uniqueMemberMatch", "cn=a#'01'B", "CN=A", "differ"},
		{"objectIdentifierMatch", "inetOrgPerson", "2.16.840.1.113730.3.2.2", "equal"},
		{"objectIdentifierMatch", "person", "PERSON", "equal"},
		{"objectIdentifierMatch", "person", "a b", "undefined"},
		{"objectIdentifierMatch", "person", "nothing", "undefined"},
		{"objectIdentifierMatch", "person", "1.2.3", "differ"},
		{"caseIgnoreListMatch", "1 Main$Town", "1 MAIN$ town", "equal"},
		{"caseIgnoreListMatch", "a$b", "a b", "differ"},
		{"bitStringMatch", "'0101'B", "'0101'B", "equal"},
		{"bitStringMatch", "'0101'B", "0101", "undefined"},
		{"octetStringMatch", "a ", "a", "differ"},
		{"UUIDMatch", "597AE2F6-16A6-1027-98F4-D28B5365DC14", "597ae2f6-16a6-1027-98f4-d28b5365dc14", "equal"},
		{"UUIDMatch", "597AE2F6-16A6-1027-98F4-D28B5365DC14", "x", "undefined"},
		{"objectIdentifierFirstComponentMatch", "( 2.5.4.3 NAME 'cn' )", "commonName", "equal"},
		{"integerFirstComponentMatch", "( 1 NAME 'x' )", "1", "equal"},
	}
	for _, test := range tests {
		r := Rule(test.rule)
		a, ok := r.Key(s, []byte(test.a))
		if !ok {
			t.Errorf("%s: %q has no key", test.rule, test.a)
		}
		b, ok := r.Assertion(s, []byte(test.b))
		got := "differ"
		switch {
		case !ok:
			got = "undefined"
		case a == b:
			got = "equal"
		}
		if got != test.want {
			t.Errorf("%s %q %q: got %s, want %s", test.rule, test.a, test.b, got, test.want)
		}
	}
}

func TestOrdering(t *testing.T) {
	for rule, ascending := range map[string][]string{
		"integerOrderingMatch":         {"-100", "-99", "-10", "-9", "-1", "0", "1", "9", "10", "99", "100", "123456789012345678901234567890"},
		"generalizedTimeOrderingMatch": {"19991231235959Z", "20000101000000Z", "20000101000000.5Z", "20000101000001Z", "20000101000000-0100"},
		"caseIgnoreOrderingMatch":      {"Alpha", "beta", "beta x", "Gamma"},
	} {
		r := Rule(rule)
		for i := 1; i < len(ascending); i++ {
			a, _ := r.Key(nil, []byte(ascending[i-1]))
			b, _ := r.Key(nil, []byte(ascending[i]))
			if a >= b {
				t.Errorf("%s: %q is not below %q", rule, ascending[i-1], ascending[i])
			}
		}
	}
}

func TestSubstrings(t *testing.T) {
	split := func(s string) (first []byte, inner [][]byte, last []byte) {
		parts := strings.Split(s, "*")
		for i, p := range parts {
			switch {
			case p == "":
			case i == 0:
				first = []byte(p)
			case i == len(parts)-1:
				last = []byte(p)
			default:
				inner = append(inner, []byte(p))
			}
		}
		return
	}
	tests := []struct {
		rule, value, pattern string
		want                 bool
	}{
		{"caseIgnoreSubstringsMatch", "Foo Bar Baz", "foo*BAZ", true},
		{"caseIgnoreSubstringsMatch", "Foo Bar Baz", "*bar*", true},
		{"caseIgnoreSubstringsMatch", "Foo  Bar", "*o b*", true},
		{"caseIgnoreSubstringsMatch", "Foo Bar", "*bar*foo*", false},
		{"caseIgnoreSubstringsMatch", "abc", "ab*bc", false},
		{"caseIgnoreSubstringsMatch", "abc", "ab*c", true},
		{"caseIgnoreSubstringsMatch", "foobar", "foo *", false},
		{"caseIgnoreSubstringsMatch", "foo bar", "foo *", true},
		{"caseExactSubstringsMatch", "Foo", "f*", false},
		{"telephoneNumberSubstringsMatch", "+1 555-0100", "*5550*", true},
		{"caseIgnoreListSubstringsMatch", "1 Main Street$Town", "*main*town*", true},
		{"octetStringSubstringsMatch", "\x00\x01\x02", "\x00*", true},
	}
	for _, test := range tests {
		r := Rule(test.rule)
		key, ok := r.Key(Default(), []byte(test.value))
		sub, ok2 := r.Substring(Default(), func() []byte { a, _, _ := split(test.pattern); return a }(), func() [][]byte { _, b, _ := split(test.pattern); return b }(), func() []byte { _, _, c := split(test.pattern); return c }())
		if !ok || !ok2 || sub.Match(key) != test.want {
			t.Errorf("%s %q %q: got %v, want %v", test.rule, test.value, test.pattern, !test.want, test.want)
		}
	}
}

func TestBits(t *testing.T) {
	and, or := Rule("1.2.840.113556.1.4.803"), Rule("1.2.840.113556.1.4.804")
	if m, ok := and.Bits([]byte("514"), []byte("2")); !m || !ok {
		t.Error("514 has bit 2")
	}
	if m, _ := and.Bits([]byte("512"), []byte("514")); m {
		t.Error("512 has not all bits of 514")
	}
	if m, _ := or.Bits([]byte("512"), []byte("514")); !m {
		t.Error("512 has some bit of 514")
	}
	if _, ok := and.Bits([]byte("512"), []byte("x")); ok {
		t.Error("x is no number")
	}
}

func TestCheck(t *testing.T) {
	s := Default()
	types := func(names ...string) (out []*AttributeType) {
		for _, n := range names {
			out = append(out, s.Attribute(n))
		}
		return
	}
	tests := []struct {
		classes []string
		has     []*AttributeType
		want    Broken
	}{
		{[]string{"inetOrgPerson"}, types("objectClass", "cn", "sn", "mail"), 0},
		{[]string{"inetOrgPerson"}, types("objectClass", "cn", "mail"), ClassViolation},
		{[]string{"person"}, types("objectClass", "cn", "sn", "mail"), ClassViolation},
		{[]string{"posixAccount"}, types("objectClass", "cn", "uid", "uidNumber", "gidNumber", "homeDirectory"), ClassViolation},
		{[]string{"posixGroup"}, types("objectClass", "cn", "gidNumber", "memberUid"), 0}, // as RFC 2307 has it
		{[]string{"groupOfNames", "posixGroup"}, types("objectClass", "cn", "member", "gidNumber", "memberUid"), 0},
		{[]string{"device", "person"}, types("objectClass", "cn", "sn"), ClassViolation},
		{[]string{"device", "extensibleObject"}, types("objectClass", "cn", "mail"), 0},
		{[]string{"nothing"}, types("objectClass"), BadSyntax},
		{nil, types("cn"), ClassViolation},
		{[]string{"organization"}, types("objectClass", "o", "entryUUID"), 0},
	}
	for _, test := range tests {
		err := s.CheckClasses(test.classes, test.has, nil)
		v, _ := err.(*Violation)
		if (v == nil) != (test.want == 0) || v != nil && v.Kind != test.want {
			t.Errorf("%v: %v", test.classes, err)
		}
	}
	values := []struct {
		name   string
		values []string
		want   Broken
	}{
		{"uidNumber", []string{"1"}, 0},
		{"uidNumber", []string{"1", "2"}, TooManyValues},
		{"uidNumber", []string{"one"}, BadSyntax},
		{"cn", []string{"a", "A "}, DuplicateValue},
		{"cn", []string{""}, BadSyntax},
		{"member", []string{"nobody"}, BadSyntax},
		{"mail", []string{"ü@x"}, BadSyntax},
	}
	for _, test := range values {
		var raw [][]byte
		for _, v := range test.values {
			raw = append(raw, []byte(v))
		}
		v, _ := s.CheckValues(s.Attribute(test.name), raw).(*Violation)
		if (v == nil) != (test.want == 0) || v != nil && v.Kind != test.want {
			t.Errorf("%s %q: %v", test.name, test.values, v)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, a := range Default().AttributeTypes()[:8] {
		f.Add(a.String())
	}
	for _, c := range Default().ObjectClasses()[:8] {
		f.Add(c.String())
	}
	f.Add("( 1.2 NAME ( 'a' 'b') SYNTAX 1.3{64} X-A ( 'b\\27c' ) )")
	f.Fuzz(func(t *testing.T, text string) {
		if a, err := ParseAttributeType(text); err == nil {
			if again, err := ParseAttributeType(a.String()); err != nil || again.String() != a.String() {
				t.Errorf("%q: %q, %v", text, a, err)
			}
		}
		if c, err := ParseObjectClass(text); err == nil {
			if again, err := ParseObjectClass(c.String()); err != nil || again.String() != c.String() {
				t.Errorf("%q: %q, %v", text, c, err)
			}
		}
	})
}

func FuzzNormalForms(f *testing.F) {
	f.Add("cn=a\\,b+sn=c,dc=x")
	f.Add("20240101120000Z")
	f.Add("  Foo  Bar ")
	f.Fuzz(func(t *testing.T, text string) {
		s := Default()
		for _, r := range MatchingRules() {
			k, ok := r.Key(s, []byte(text))
			if again, ok2 := r.Key(s, []byte(text)); ok != ok2 || k != again {
				t.Errorf("%s %q: two keys", r.Name, text)
			}
			_, _ = r.Substring(s, []byte(text), [][]byte{[]byte(text)}, []byte(text))
		}
		for _, x := range Syntaxes() {
			x.Valid([]byte(text))
		}
	})
}
