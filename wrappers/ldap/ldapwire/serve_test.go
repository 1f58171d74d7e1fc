package ldapwire

import (
	"bytes"
	"testing"
)

func TestServedValues(t *testing.T) {
	keys := []SortKey{{Attribute: "cn"}, {Attribute: "uidNumber", Rule: "2.5.13.15", Reverse: true}}
	got, err := DecodeSort(EncodeSort(keys...))
	if err != nil || len(got) != 2 || got[0] != keys[0] || got[1] != keys[1] {
		t.Errorf("sort keys: %+v, %v", got, err)
	}
	p := PersistentSearch{ChangeTypes: ChangeAdd | ChangeModDN, ChangesOnly: true}
	if got, err := DecodePersistentSearch(p.Encode()); err != nil || got != p {
		t.Errorf("persistent search: %+v, %v", got, err)
	}
	names, err := DecodeAttributeSelection(EncodeAttributeSelection("cn", "*"))
	if err != nil || len(names) != 2 || names[1] != "*" {
		t.Errorf("attribute selection: %v, %v", names, err)
	}
	f := &Filter{Kind: FilterEqualityMatch, Attribute: "cn", Value: []byte("a")}
	if got, err := DecodeFilter(EncodeFilter(f)); err != nil || got.Attribute != "cn" {
		t.Errorf("filter: %+v, %v", got, err)
	}
	if _, err := DecodeFilter(append(EncodeFilter(f), 0)); err == nil {
		t.Error("a byte behind a filter is taken")
	}
	e := &SearchResultEntry{ObjectName: "cn=a", Attributes: []PartialAttribute{{Type: "cn", Vals: [][]byte{[]byte("a")}}}}
	if got, err := DecodeReadEntry(EncodeReadEntry(e)); err != nil || got.ObjectName != "cn=a" || len(got.Attributes) != 1 {
		t.Errorf("read entry: %+v, %v", got, err)
	}
	// As ldappasswd sends it (RFC 3062, section 2).
	raw := []byte{0x30, 0x0d, 0x80, 0x04, 'c', 'n', '=', 'a', 0x82, 0x05, 's', 'e', 'c', 'r', 'e'}
	if m, err := DecodePasswordModify(raw); err != nil || string(m.UserIdentity) != "cn=a" || m.OldPasswd != nil || !bytes.Equal(m.NewPasswd, []byte("secre")) {
		t.Errorf("password modify: %+v, %v", m, err)
	}
	if m, err := DecodePasswordModify(nil); err != nil || m.UserIdentity != nil {
		t.Errorf("password modify without a value: %+v, %v", m, err)
	}
	if id, err := DecodeCancel([]byte{0x30, 3, 2, 1, 7}); err != nil || id != 7 {
		t.Errorf("cancel: %d, %v", id, err)
	}
	for _, bad := range [][]byte{nil, {0x30}, {0x30, 0}, {0x04, 0}, {0x30, 3, 2, 1, 0xff}} {
		if _, err := DecodeCancel(bad); err == nil {
			t.Errorf("cancel % x is taken", bad)
		}
		if _, err := DecodeSort(bad); err == nil {
			t.Errorf("sort keys % x are taken", bad)
		}
		if _, err := DecodePersistentSearch(bad); err == nil {
			t.Errorf("persistent search % x is taken", bad)
		}
	}
}

func FuzzServedValues(f *testing.F) {
	f.Add(EncodeSort(SortKey{Attribute: "cn", Rule: "x", Reverse: true}))
	f.Add((&PersistentSearch{ChangeTypes: 15}).Encode())
	f.Add(EncodeAttributeSelection("cn"))
	f.Add([]byte{0x30, 3, 2, 1, 7})
	f.Add([]byte{0x30, 0x0d, 0x80, 0x04, 'c', 'n', '=', 'a', 0x82, 0x05, 's', 'e', 'c', 'r', 'e'})
	f.Fuzz(func(t *testing.T, b []byte) {
		if keys, err := DecodeSort(b); err == nil {
			if again, err := DecodeSort(EncodeSort(keys...)); err != nil || len(again) != len(keys) {
				t.Errorf("% x: %+v became %+v, %v", b, keys, again, err)
			}
		}
		if p, err := DecodePersistentSearch(b); err == nil {
			if again, err := DecodePersistentSearch(p.Encode()); err != nil || again != p {
				t.Errorf("% x: %+v became %+v, %v", b, p, again, err)
			}
		}
		_, _ = DecodeAttributeSelection(b)
		_, _ = DecodeFilter(b)
		_, _ = DecodePasswordModify(b)
		_, _ = DecodeCancel(b)
	})
}
