package ldapwire

import (
	"bytes"
	"reflect"
	"testing"
)

func TestContentSyncAsOnTheWire(t *testing.T) {
	// As OpenLDAP 2.5 sent them.
	state := []byte("\x30\x15\x0a\x01\x01\x04\x10\x8a\xea\x42\xb8\x7d\x08\x10\x41\x86\x90\xf3\xc1\xa3\x56\x04\xbd")
	s, err := DecodeSyncState(state)
	if err != nil || s.State != SyncAdd || s.EntryUUID != [16]byte{0x8a, 0xea, 0x42, 0xb8, 0x7d, 0x08, 0x10, 0x41, 0x86, 0x90, 0xf3, 0xc1, 0xa3, 0x56, 0x04, 0xbd} || s.Cookie != nil {
		t.Errorf("got %+v, %v", s, err)
	}
	if got := s.Encode(); !bytes.Equal(got, state) {
		t.Errorf("got % x, want % x", got, state)
	}
	// A refreshDelete with refreshDone left out, which is TRUE.
	i, err := DecodeSyncInfo([]byte("\xa1\x05\x04\x03abc"))
	if want := (SyncInfo{Kind: SyncRefreshDelete, Cookie: []byte("abc"), RefreshDone: true}); err != nil || !reflect.DeepEqual(i, want) {
		t.Errorf("got %+v, %v; want %+v", i, err, want)
	}
	for _, want := range []SyncInfo{
		{Kind: SyncNewCookie, Cookie: []byte("x")},
		{Kind: SyncRefreshPresent, RefreshDone: false},
		{Kind: SyncIDSet, Cookie: []byte("x"), RefreshDeletes: true, SyncUUIDs: [][16]byte{{1}, {2}}},
	} {
		if got, err := DecodeSyncInfo(want.Encode()); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
	for _, bad := range []string{"", "\x30\x00", "\x30\x03\x0a\x01\x01", "\x30\x08\x0a\x01\x01\x04\x03abc", "\x30\x15\x0a\x01\x07\x04\x10\x8a\xea\x42\xb8\x7d\x08\x10\x41\x86\x90\xf3\xc1\xa3\x56\x04\xbd"} {
		if _, err := DecodeSyncState([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestControlsBothWays(t *testing.T) {
	q := SyncRequest{Mode: RefreshAndPersist, Cookie: []byte("rid=000"), ReloadHint: true}
	if got, err := DecodeSyncRequest(q.Encode()); err != nil || !reflect.DeepEqual(got, q) {
		t.Errorf("got %+v, %v; want %+v", got, err, q)
	}
	done := SyncDone{Cookie: []byte("c"), RefreshDeletes: true}
	if got, err := DecodeSyncDone(done.Encode()); err != nil || !reflect.DeepEqual(got, done) {
		t.Errorf("got %+v, %v; want %+v", got, err, done)
	}
	size, cookie, err := DecodePaged(EncodePaged(500, []byte("next")))
	if err != nil || size != 500 || string(cookie) != "next" {
		t.Errorf("got %d, %q, %v", size, cookie, err)
	}
	d := DirSync{Flags: DirSyncObjectSecurity | DirSyncIncrementalValues, Size: 1 << 20, Cookie: []byte{1, 2}}
	if got, err := DecodeDirSync(d.Encode()); err != nil || !reflect.DeepEqual(got, d) {
		t.Errorf("got %+v, %v; want %+v", got, err, d)
	}
	e := &SearchResultEntry{ObjectName: "cn=a", Attributes: []PartialAttribute{{Type: "entryCSN", Vals: [][]byte{[]byte("1")}}}}
	for _, tag := range []byte{byte(OpSearchResultEntry), tagSequence} {
		if got, err := DecodeReadEntry(AppendTLV(nil, tag, e.append(nil))); err != nil || !reflect.DeepEqual(got, e) {
			t.Errorf("got %+v, %v; want %+v", got, err, e)
		}
	}
	if got, want := EncodeAttributeSelection("cn"), []byte("\x30\x04\x04\x02cn"); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if got, want := EncodeFilter(&Filter{Kind: FilterPresent, Attribute: "cn"}), []byte("\x87\x02cn"); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
}

// FuzzControls: whatever comes is read or refused.
func FuzzControls(f *testing.F) {
	f.Add((&SyncState{State: SyncModify, Cookie: []byte("c")}).Encode())
	f.Add((&SyncInfo{Kind: SyncIDSet, SyncUUIDs: [][16]byte{{1}}}).Encode())
	f.Add((&SyncDone{RefreshDeletes: true}).Encode())
	f.Add((&SyncRequest{Mode: 1, Cookie: []byte("c")}).Encode())
	f.Add((&DirSync{Flags: 1, Cookie: []byte("c")}).Encode())
	f.Add(EncodePaged(1, nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSyncState(b); err == nil {
			if got, err := DecodeSyncState(s.Encode()); err != nil || !reflect.DeepEqual(got, s) {
				t.Errorf("got %+v, %v; want %+v", got, err, s)
			}
		}
		if s, err := DecodeSyncInfo(b); err == nil {
			got, err := DecodeSyncInfo(s.Encode())
			if err != nil || !bytes.Equal(got.Cookie, s.Cookie) || len(got.SyncUUIDs) != len(s.SyncUUIDs) || got.RefreshDone != s.RefreshDone || got.RefreshDeletes != s.RefreshDeletes {
				t.Errorf("got %+v, %v; want %+v", got, err, s)
			}
		}
		_, _ = DecodeSyncDone(b)
		_, _ = DecodeSyncRequest(b)
		_, _, _ = DecodePaged(b)
		_, _ = DecodeDirSync(b)
		_, _ = DecodeReadEntry(b)
	})
}
