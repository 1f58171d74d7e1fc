package filter

import (
	"errors"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// an entry of a test: attribute descriptions with values, the first of them its RDN.
type entry []attr

type attr struct {
	name   string
	values []string
}

func (e entry) Each(t *schema.AttributeType, options []string, yield func(*schema.AttributeType, [][]byte) bool) {
	for _, a := range e {
		name, have := schema.SplitOptions(a.name)
		at := schema.Default().Attribute(name)
		if at == nil || t != nil && !at.Is(t) || !schema.HasOptions(have, options) {
			continue
		}
		var raw [][]byte
		for _, v := range a.values {
			raw = append(raw, []byte(v))
		}
		if !yield(at, raw) {
			return
		}
	}
}

func (e entry) EachRDN(yield func(*schema.AttributeType, []byte) bool) {
	for _, a := range []attr{e[0], {"ou", []string{"People"}}, {"dc", []string{"example"}}} {
		if !yield(schema.Default().Attribute(a.name), []byte(a.values[0])) {
			return
		}
	}
}

var ann = entry{
	{"uid", []string{"ann"}},
	{"objectClass", []string{"inetOrgPerson", "posixAccount"}},
	{"cn", []string{"Ann Lee", "Annie"}},
	{"sn", []string{"Lee"}},
	{"cn;lang-de", []string{"Anna"}},
	{"uidNumber", []string{"1001"}},
	{"gidNumber", []string{"514"}},
	{"telephoneNumber", []string{"+1 555-0100"}},
	{"member", []string{"cn=Bob, ou=People,dc=example"}},
	{"createTimestamp", []string{"20240101120000Z"}},
	{"description", []string{"a (b) * c\\d"}},
}

func TestMatch(t *testing.T) {
	tests := []struct {
		filter string
		want   Truth
	}{
		{"(objectClass=*)", True},
		{"(objectClass=inetorgperson)", True},
		{"(objectClass=2.16.840.1.113730.3.2.2)", True},
		{"(objectClass=nothing)", Undefined},
		{"(!(objectClass=nothing))", Undefined},
		{"(cn=ANNIE)", True},
		{"(commonName=annie)", True},
		{"(2.5.4.3=annie)", True},
		{"(name=lee)", True}, // by a subtype
		{"(cn=bob)", False},
		{"(cn;lang-de=anna)", True},
		{"(cn;lang-=anna)", True},
		{"(cn;lang-fr=anna)", False},
		{"(cn=anna)", True}, // cn;lang-de is a subtype of cn
		{"(mail=*)", False},
		{"(!(mail=*))", True},
		{"(unknown=*)", Undefined},
		{"(!(unknown=*))", Undefined},
		{"(&(cn=annie)(unknown=x))", Undefined},
		{"(&(cn=bob)(unknown=x))", False},
		{"(|(cn=annie)(unknown=x))", True},
		{"(|(cn=bob)(unknown=x))", Undefined},
		{"(&)", True},
		{"(|)", False},
		{"(uidNumber=1001)", True},
		{"(uidNumber=01001)", True},
		{"(uidNumber>=1000)", True},
		{"(uidNumber<=999)", False},
		{"(uidNumber>=abc)", Undefined},
		{"(cn>=a)", Undefined}, // cn has no ordering rule
		{"(createTimestamp>=20230101000000Z)", True},
		{"(createTimestamp<=20230101000000Z)", False},
		{"(cn=an*)", True},
		{"(cn=*lee)", True},
		{"(cn=*n*l*)", True},
		{"(cn=x*)", False},
		{"(uidNumber=10*)", Undefined},
		{"(cn~=annie)", True},
		{"(telephoneNumber=+15550100)", True},
		{"(telephoneNumber=*0100)", True},
		{"(member=CN=bob,OU=people,DC=Example)", True},
		{"(member=*)", True},
		{`(description=a \28b\29 \2a c\5cd)`, True},
		{"(cn:caseExactMatch:=annie)", False},
		{"(cn:caseExactMatch:=Annie)", True},
		{"(cn:2.5.13.5:=Annie)", True},
		{"(cn:noSuchMatch:=Annie)", Undefined},
		{"(ou:dn:=people)", True},
		{"(ou:=people)", False},
		{"(:dn:caseIgnoreMatch:=people)", True},
		{"(:caseIgnoreMatch:=lee)", True},
		{"(gidNumber:1.2.840.113556.1.4.803:=2)", True},
		{"(gidNumber:1.2.840.113556.1.4.803:=3)", False},
		{"(gidNumber:1.2.840.113556.1.4.804:=3)", True},
		{"(cn:integerMatch:=3)", Undefined},
	}
	for _, test := range tests {
		f, err := Parse(test.filter)
		if err != nil {
			t.Errorf("%s: %v", test.filter, err)
			continue
		}
		m := Compile(schema.Default(), f)
		if got := m.Match(ann); got != test.want {
			t.Errorf("%s: got %s, want %s", test.filter, got, test.want)
		}
		if got := String(f); got != test.filter {
			t.Errorf("%s became %s", test.filter, got)
		}
		again, err := overWire(f)
		if err != nil || String(again) != test.filter {
			t.Errorf("%s through BER: %v, %v", test.filter, again, err)
		}
		if sets, nothing := m.Needs(); nothing && test.want == True || test.want == True && !met(sets, ann) {
			t.Errorf("%s: needs %v, %v leave it out", test.filter, sets, nothing)
		}
	}
}

func met(sets [][]Need, e entry) bool {
	for _, set := range sets {
		found := false
		for _, n := range set {
			e.Each(n.Type, nil, func(_ *schema.AttributeType, values [][]byte) bool {
				for _, v := range values {
					k, _ := n.Type.EqualityRule().Key(schema.Default(), v)
					found = found || n.Present || k == n.Key
				}
				return true
			})
		}
		if !found {
			return false
		}
	}
	return true
}

func TestNeeds(t *testing.T) {
	for text, want := range map[string]int{ // sets
		"(uid=ann)": 1, "(&(objectClass=person)(uid=ann))": 2, "(|(uid=ann)(uid=bob))": 1, "(!(uid=ann))": 0,
		"(|(uid=ann)(!(uid=bob)))": 0, "(&(uid=ann)(!(cn=x)))": 1, "(ou:dn:=x)": 0,
	} {
		f, _ := Parse(text)
		if sets, nothing := Compile(schema.Default(), f).Needs(); len(sets) != want || nothing {
			t.Errorf("%s: %v", text, sets)
		}
	}
	for _, text := range []string{"(unknown=x)", "(&(uid=a)(unknown=x))", "(|)", "(|(unknown=x)(uidNumber=abc))"} {
		f, _ := Parse(text)
		if _, nothing := Compile(schema.Default(), f).Needs(); !nothing {
			t.Errorf("%s finds something", text)
		}
	}
}

func TestMalformed(t *testing.T) {
	for _, text := range []string{"", "(", "()", "(cn)", "(=x)", "(cn=a", "(cn=a))", "(!(cn=a)(cn=b))", "(!)", `(cn=\zz)`, `(cn=\2)`, "(&(cn=a)", "(:=x)", "(cn=a(b)", "(:dn:=x)"} {
		if f, err := Parse(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%q: %v, %v", text, f, err)
		}
	}
	deep := strings.Repeat("(!", MaxDepth) + "(cn=a)" + strings.Repeat(")", MaxDepth)
	if _, err := Parse(deep); !errors.Is(err, ErrTooDeep) {
		t.Errorf("deep: %v", err)
	}
	wide := "(&" + strings.Repeat("(a=*)", MaxNodes) + ")"
	if _, err := Parse(wide); !errors.Is(err, ErrTooLarge) {
		t.Errorf("wide: %v", err)
	}
}

// overWire is what a server gets of a filter.
func overWire(f *ldapwire.Filter) (*ldapwire.Filter, error) {
	m, err := ldapwire.Decode((&ldapwire.Message{MessageID: 1, Body: &ldapwire.SearchRequest{Filter: f}}).Encode())
	if err != nil {
		return nil, err
	}
	return m.Body.(*ldapwire.SearchRequest).Filter, nil
}

func FuzzMatch(f *testing.F) {
	f.Add("(&(cn=a*b*c)(!(x>=1))(|(a~=b)(c=*)(ou:dn:=f)))")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(String(p)); err != nil || String(again) != String(p) {
			t.Errorf("%q: %s became %v: %v", text, String(p), again, err)
		}
		if again, err := overWire(p); err != nil || String(again) != String(p) {
			t.Errorf("%q: %s became %v: %v", text, String(p), again, err)
		}
		m := Compile(schema.Default(), p)
		if m.Match(ann) == True {
			if sets, nothing := m.Needs(); nothing || !met(sets, ann) {
				t.Errorf("%s: its needs leave out what it finds", String(p))
			}
		}
	})
}
