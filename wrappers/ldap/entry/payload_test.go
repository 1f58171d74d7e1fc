package entry

import (
	"reflect"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

func attr(name string, values ...string) ldapwire.PartialAttribute {
	a := ldapwire.PartialAttribute{Type: name}
	for _, v := range values {
		a.Vals = append(a.Vals, []byte(v))
	}
	return a
}

var pattern = wrappers.Pattern{Members: []wrappers.Member{
	{Name: "CN", Type: "string"}, {Name: "telephoneNumber", Type: "list"}, {Name: "mobile"}, {Name: "gone"}, {Name: "uidNumber"}, {Name: "hasSubordinates"},
	{Name: "modifyTimestamp"}, {Name: "jpegPhoto"}, {Name: "userCertificate"}, {Name: "level", Type: "number"}, {Name: "since", Type: "time"}, {Name: "on", Type: "bool"},
	{Name: "description;lang-de"}, {Name: "raw"}, {Name: "userPassword"},
}}

func TestPayloadAndBack(t *testing.T) {
	types := WellKnown()
	m := types.MembersOf(&pattern)
	p, err := m.Payload([]ldapwire.PartialAttribute{
		attr("commonName", "Ann"), attr("TELEPHONENUMBER", "1", "2"), attr("mobile", "7"), attr("gone"), attr("uidNumber", "1000"),
		attr("hasSubordinates", "TRUE"), attr("modifyTimestamp", "20260131120000Z"), attr("jpegPhoto", "abc"), attr("userCertificate;binary", "\x30\x00"),
		attr("level", "21.50"), attr("since", "2026013112Z"), attr("on", "FALSE"), attr("description;LANG-DE", "x"), attr("description", "not this"),
		attr("raw", "\xff\xfe"), attr("sn", "not this"), attr("userPassword", "secret"),
	})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := cbor.Unmarshal(p.Raw, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"CN": "Ann", "telephoneNumber": []any{"1", "2"}, "mobile": "7", "gone": nil, "uidNumber": uint64(1000), "hasSubordinates": true,
		"modifyTimestamp": "2026-01-31T12:00:00Z", "jpegPhoto": []byte("abc"), "userCertificate": []byte("\x30\x00"),
		"level": cbor.Tag{Number: 4, Content: []any{int64(-2), uint64(2150)}}, "since": "2026-01-31T12:00:00Z", "on": false, "description;lang-de": "x",
		"raw": []byte("\xff\xfe"), "userPassword": []byte("secret"),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	back, err := types.Attributes(p.Raw)
	if err != nil {
		t.Fatal(err)
	}
	expect := []ldapwire.PartialAttribute{
		attr("CN", "Ann"), attr("description;lang-de", "x"), attr("gone"), attr("hasSubordinates", "TRUE"), attr("jpegPhoto", "abc"), attr("level", "21.50"),
		attr("mobile", "7"), attr("modifyTimestamp", "20260131120000Z"), attr("on", "FALSE"), attr("raw", "\xff\xfe"), attr("since", "2026-01-31T12:00:00Z"),
		attr("telephoneNumber", "1", "2"), attr("uidNumber", "1000"), attr("userCertificate", "\x30\x00"), attr("userPassword", "secret"),
	}
	if !reflect.DeepEqual(back, expect) {
		t.Errorf("got  %q\nwant %q", back, expect)
	}
}

func TestOpenBindsGetNoSecrets(t *testing.T) {
	m := WellKnown().MembersOf(&wrappers.Pattern{Open: true})
	for _, c := range []struct {
		in, want string
		ok       bool
	}{{"commonname", "cn", true}, {"X-Own", "X-Own", true}, {"telephonenumber;lang-en", "telephoneNumber;lang-en", true}, {"userPassword", "", false}, {"2.5.4.35", "", false}, {"unicodePwd", "", false}} {
		if got, ok := m.Name(c.in); got != c.want || ok != c.ok {
			t.Errorf("%s: got %q, %v; want %q, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

func TestWhatNoAttributeCanHold(t *testing.T) {
	types := WellKnown()
	for _, doc := range []any{map[string]any{"cn": map[string]any{"a": 1}}, map[string]any{"cn": []any{[]any{"a"}}}, map[string]any{"cn": []any{nil}}, "text"} {
		raw, err := cbor.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := types.Attributes(raw); err == nil {
			t.Errorf("%v: got %q, want an error", doc, got)
		}
	}
	if got, err := types.Attributes(nil); err != nil || got != nil {
		t.Error(got, err)
	}
}

func TestTimes(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"20260131120000Z", "2026-01-31T12:00:00Z"}, {"202601311200Z", "2026-01-31T12:00:00Z"}, {"2026013112Z", "2026-01-31T12:00:00Z"},
		{"20260131120000.5Z", "2026-01-31T12:00:00.5Z"}, {"2026013112.5Z", "2026-01-31T12:30:00Z"}, {"202601311200,25Z", "2026-01-31T12:00:15Z"},
		{"20260131120000+0130", "2026-01-31T10:30:00Z"}, {"20260131120000-05", "2026-01-31T17:00:00Z"}, {"20261231235960Z", "2027-01-01T00:00:00Z"},
		{"20260131120000.000001Z", "2026-01-31T12:00:00.000001Z"}, {"20260131120000.0Z", "2026-01-31T12:00:00Z"},
	} {
		at, ok := ParseTime(c.in)
		if !ok || FormatRFC3339(at) != c.want {
			t.Errorf("%s: got %v, %v; want %s", c.in, at, ok, c.want)
			continue
		}
		if back, ok := ParseTime(FormatTime(at)); !ok || !back.Equal(at) {
			t.Errorf("%s: written %s, read %v", c.in, FormatTime(at), back)
		}
	}
	for _, in := range []string{"", "20260131120000", "2026Z", "20261301000000Z", "20260131120000.Z", "20260131120000+2500", "20260131120000Z0", "2026-01-31T12:00:00Z"} {
		if at, ok := ParseTime(in); ok {
			t.Errorf("%s: got %v", in, at)
		}
	}
	if got := FormatTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))); got != "20260102020405Z" {
		t.Error(got)
	}
}

func FuzzAttributes(f *testing.F) {
	types := WellKnown()
	m := types.MembersOf(&pattern)
	p, err := m.Payload([]ldapwire.PartialAttribute{attr("cn", "a", "b"), attr("level", "-0.5"), attr("since", "2026013112Z")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p.Raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := types.Attributes(raw)
		if err != nil {
			return
		}
		all := types.MembersOf(&wrappers.Pattern{Open: true})
		p, err := all.Payload(a)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := types.Attributes(p.Raw); err != nil {
			t.Fatal(err)
		}
	})
}
