package ldapwire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

func sup(s string) *string { return &s }

// messages are one of each operation, with all that can stand in it.
var messages = []Message{
	{MessageID: 1, Body: &BindRequest{Version: 3, Name: "cn=a,dc=b", Simple: []byte("secret")}},
	{MessageID: 2, Body: &BindRequest{Version: 3, SASL: &SaslCredentials{Mechanism: "PLAIN", Credentials: []byte("\x00a\x00b")}}},
	{MessageID: 2, Body: &BindRequest{Version: 3, SASL: &SaslCredentials{Mechanism: "EXTERNAL"}}},
	{MessageID: 3, Body: &BindResponse{LDAPResult: LDAPResult{ResultCode: SaslBindInProgress}, ServerSaslCreds: []byte("r=1")}},
	{MessageID: 4, Body: &UnbindRequest{}},
	{MessageID: 5, Body: &SearchRequest{BaseObject: "dc=b", Scope: ScopeWholeSubtree, DerefAliases: DerefAlways, SizeLimit: 1000, TimeLimit: 300, TypesOnly: true,
		Filter: &Filter{Kind: FilterAnd, Filters: []*Filter{
			{Kind: FilterEqualityMatch, Attribute: "cn", Value: []byte("a")},
			{Kind: FilterNot, Filters: []*Filter{{Kind: FilterPresent, Attribute: "mail"}}},
			{Kind: FilterOr, Filters: []*Filter{
				{Kind: FilterSubstrings, Attribute: "cn", Initial: []byte("a"), Any: [][]byte{[]byte("b"), []byte("c")}, Final: []byte("d")},
				{Kind: FilterSubstrings, Attribute: "cn", Any: [][]byte{[]byte("b")}},
				{Kind: FilterGreaterOrEqual, Attribute: "n", Value: []byte("1")},
				{Kind: FilterLessOrEqual, Attribute: "n", Value: []byte("9")},
				{Kind: FilterApproxMatch, Attribute: "n", Value: []byte("9")},
				{Kind: FilterExtensibleMatch, MatchingRule: "2.5.13.5", Attribute: "cn", Value: []byte("A"), DNAttributes: true},
				{Kind: FilterExtensibleMatch, MatchingRule: "2.5.13.5", Value: []byte("A")},
			}},
			{Kind: FilterAnd},
		}}, Attributes: []string{"cn", "+"}},
		Controls: []Control{{Type: OIDPagedResults, Criticality: true, Value: []byte{0x30, 5, 2, 1, 100, 4, 0}}, {Type: OIDManageDsaIT}}},
	{MessageID: 6, Body: &SearchResultEntry{ObjectName: "cn=a", Attributes: []PartialAttribute{{"cn", [][]byte{[]byte("a"), []byte("b")}}, {"mail", nil}}}},
	{MessageID: 7, Body: &SearchResultReference{URIs: []string{"ldap://x/", "ldap://y/"}}},
	{MessageID: 8, Body: &SearchResultDone{LDAPResult{ResultCode: Referral, MatchedDN: "dc=b", DiagnosticMessage: "not here", Referral: []string{"ldap://z/"}}}},
	{MessageID: 9, Body: &ModifyRequest{Object: "cn=a", Changes: []Change{{ModifyAdd, PartialAttribute{"cn", [][]byte{[]byte("x")}}}, {ModifyDelete, PartialAttribute{Type: "mail"}},
		{ModifyReplace, PartialAttribute{"jpegPhoto;binary", [][]byte{bytes.Repeat([]byte{0xff}, 300)}}}, {ModifyIncrement, PartialAttribute{"n", [][]byte{[]byte("1")}}}}}},
	{MessageID: 10, Body: &ModifyResponse{LDAPResult{ResultCode: ESyncRefreshRequired}}},
	{MessageID: 11, Body: &AddRequest{Entry: "cn=a", Attributes: []PartialAttribute{{"objectClass", [][]byte{[]byte("top")}}}}},
	{MessageID: 12, Body: &AddResponse{}},
	{MessageID: 13, Body: &DelRequest{Entry: "cn=a,dc=b"}},
	{MessageID: 14, Body: &DelResponse{}},
	{MessageID: 15, Body: &ModifyDNRequest{Entry: "cn=a", NewRDN: "cn=b", DeleteOldRDN: true, NewSuperior: sup("dc=c")}},
	{MessageID: 15, Body: &ModifyDNRequest{Entry: "cn=a", NewRDN: "cn=b", NewSuperior: sup("")}},
	{MessageID: 16, Body: &ModifyDNResponse{}},
	{MessageID: 17, Body: &CompareRequest{Entry: "cn=a", Attribute: "cn", Assertion: []byte("a")}},
	{MessageID: 18, Body: &CompareResponse{LDAPResult{ResultCode: CompareTrue}}},
	{MessageID: 19, Body: &AbandonRequest{MessageID: 300}},
	{MessageID: 20, Body: &ExtendedRequest{Name: OIDWhoAmI}},
	{MessageID: 20, Body: &ExtendedRequest{Name: OIDPasswordModify, Value: []byte{0x30, 0}}},
	{MessageID: 0, Body: &ExtendedResponse{LDAPResult: LDAPResult{ResultCode: Unavailable}, Name: OIDNoticeOfDisconnection}},
	{MessageID: MaxMessageID, Body: &ExtendedResponse{Value: []byte("dn:cn=a")}},
	{MessageID: 22, Body: &IntermediateResponse{Name: OIDSyncInfo, Value: []byte{0x80, 0}}},
}

func TestEveryOperationComesBack(t *testing.T) {
	ops := map[Op]bool{}
	for i := range messages {
		m := &messages[i]
		ops[m.Body.Op()] = true
		raw := m.Encode()
		got, err := Decode(raw)
		if err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%s:\ngot  %#v, %v\nwant %#v", m.Body.Op(), got, err, m)
			continue
		}
		if again := got.Encode(); !bytes.Equal(again, raw) {
			t.Errorf("%s: written %x, then %x", m.Body.Op(), raw, again)
		}
		for n := range raw {
			f, ok, err := ReadFrame(raw[:n])
			if err != nil || ok && (f.MessageID != m.MessageID || f.Op != m.Body.Op() || f.Size != int64(len(raw))) {
				t.Fatalf("%s: of %d bytes: %+v, %v, %v", m.Body.Op(), n, f, ok, err)
			}
			if n >= maxHead && !ok {
				t.Fatalf("%s: %d bytes are not enough for the head", m.Body.Op(), n)
			}
			if _, err := Decode(raw[:n]); err == nil {
				t.Fatalf("%s: %d of %d bytes are a message", m.Body.Op(), n, len(raw))
			}
		}
	}
	if len(ops) != len(opNames) {
		t.Errorf("%d operations of %d were tried", len(ops), len(opNames))
	}
}

// Frames of OpenLDAP's ldapsearch and slapd.
func TestCaptured(t *testing.T) {
	for _, c := range []struct {
		raw  string
		want Message
	}{
		{"300c020101600702010304008000", Message{MessageID: 1, Body: &BindRequest{Version: 3, Simple: []byte{}}}},
		{"300c02010161070a010004000400", Message{MessageID: 1, Body: &BindResponse{}}},
		{"30050201034200", Message{MessageID: 3, Body: &UnbindRequest{}}},
		{"3084000000050201034200", Message{MessageID: 3, Body: &UnbindRequest{}}}, // a length longer than it need be, as Active Directory writes it
	} {
		b, err := hex.DecodeString(c.raw)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, &c.want) {
			t.Errorf("%s: got %+v, %v; want %+v", c.raw, got, err, c.want)
		}
	}
}

func TestMalformed(t *testing.T) {
	f := &Filter{Kind: FilterPresent, Attribute: "a"}
	for range 10_000 {
		f = &Filter{Kind: FilterNot, Filters: []*Filter{f}}
	}
	nested := (&Message{MessageID: 1, Body: &SearchRequest{Filter: f}}).Encode()
	for _, raw := range []string{
		"04020000", "3080", "30890101010101010101ff", "30050401034200", "300702080000000000000001", "3005020103" + "1f00",
		"30060201ff4200", "300502010343ff", "3003020101", "30020500", "300c0201016007020103040080ff",
		"300402014200",
		hex.EncodeToString(nested),
	} {
		b, err := hex.DecodeString(raw)
		if err != nil {
			t.Fatal(raw, err)
		}
		if m, err := Decode(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40s: got %+v, %v; want that it is malformed", raw, m, err)
		}
	}
	// What announces more than there is costs no memory.
	if n := testing.AllocsPerRun(100, func() {
		f, ok, err := ReadFrame([]byte{0x30, 0x84, 0x7f, 0xff, 0xff, 0xff, 2, 1, 5, 0x63, 0x84, 0x7f, 0xff, 0xff, 0xf0})
		if !ok || err != nil || f.Size != 0x7fffffff+6 || f.MessageID != 5 || f.Op != OpSearchRequest {
			t.Fatalf("%+v %v %v", f, ok, err)
		}
	}); n != 0 {
		t.Errorf("ReadFrame allocates %v times", n)
	}
}

func TestNamesOfResults(t *testing.T) {
	if got := InsufficientAccessRights.String(); got != "insufficientAccessRights" {
		t.Error(got)
	}
	if got := ResultCode(7777).String(); !strings.Contains(got, "7777") {
		t.Error(got)
	}
}

func TestValuesOfExtendedRequests(t *testing.T) {
	for _, c := range []struct {
		value, id string
		commit    bool
	}{{"\x30\x04\x04\x02t1", "t1", true}, {"\x30\x07\x01\x01\x00\x04\x02t1", "t1", false}, {"\x30\x07\x01\x01\xff\x04\x02t1", "t1", true}} {
		commit, id, err := DecodeEndTransaction([]byte(c.value))
		if err != nil || commit != c.commit || id != c.id {
			t.Errorf("%x: got %v, %q, %v", c.value, commit, id, err)
		}
	}
	for _, c := range []struct{ value, user string }{{"\x30\x00", ""}, {"\x30\x07\x80\x02me\x82\x01x", "me"}, {"\x30\x03\x82\x01x", ""}} {
		if user, err := DecodePasswordModifyUser([]byte(c.value)); err != nil || user != c.user {
			t.Errorf("%x: got %q, %v", c.value, user, err)
		}
	}
	if user, err := DecodePasswordModifyUser(nil); err != nil || user != "" {
		t.Errorf("no value: got %q, %v", user, err)
	}
}

func TestNameOfTheEntry(t *testing.T) {
	want := map[Op]string{OpSearchRequest: "dc=b", OpModifyRequest: "cn=a", OpAddRequest: "cn=a", OpDelRequest: "cn=a,dc=b", OpModifyDNRequest: "cn=a", OpCompareRequest: "cn=a"}
	for i := range messages {
		raw := messages[i].Encode()
		f, ok, err := ReadFrame(raw)
		if !ok || err != nil {
			t.Fatal(err)
		}
		name, ok := f.Entry(raw)
		if w, has := want[f.Op]; ok != has || string(name) != w {
			t.Errorf("%s: got %q, %v; want %q", f.Op, name, ok, w)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for i := range messages {
		f.Add(messages[i].Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, ok, err := ReadFrame(b)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Fatal(err)
		}
		if ok && (fr.Size <= 0 || int64(fr.Body)+fr.BodySize > fr.Size) {
			t.Fatalf("%+v", fr)
		}
		if ok {
			_, _ = fr.Entry(b)
			_, _ = fr.ResultCodeOf(b)
			_, _ = fr.DecodeControls(b)
		}
		_, _, _ = DecodeEndTransaction(b)
		_, _ = DecodePasswordModifyUser(b)
		m, err := Decode(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		raw := m.Encode()
		again, err := Decode(raw)
		if err != nil {
			t.Fatalf("%x is written %x, which can't be read: %v", b, raw, err)
		}
		if third := again.Encode(); !bytes.Equal(third, raw) {
			t.Fatalf("%x is written %x, then %x", b, raw, third)
		}
	})
}

func BenchmarkReadFrame(b *testing.B) {
	raw := messages[5].Encode()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok, err := ReadFrame(raw); !ok || err != nil {
			b.Fatal(err)
		}
	}
}
