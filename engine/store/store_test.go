package store

import (
	"bytes"
	"log/slog"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine/lattice"
)

func openInMemory(t *testing.T) *Store {
	t.Helper()
	s, err := Open(Options{Dir: "data", FS: vfs.NewMem(), Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(End{}); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestKeysAreInOrder(t *testing.T) {
	keys := [][]byte{
		Candidate(lattice.Dot{Seq: 1}), Candidate(lattice.Dot{Seq: 256}), Candidate(lattice.Dot{Origin: lattice.OriginID{1}, Seq: 1}),
		History("a", 1), History("a", 300), History("a/b", 1), History("aa", 0),
		Kept("t", ""), Kept("t", "a\x00b"), Kept("tt", ""),
		Commit(0), Commit(255), Commit(256), Meta("x"), Origin(lattice.OriginID{9}), Register("a"), Register("a/b"), Register("b"),
	}
	for i := 1; i < len(keys); i++ {
		if bytes.Compare(keys[i-1], keys[i]) >= 0 {
			t.Errorf("%q is not below %q", keys[i-1], keys[i])
		}
	}
	if n, ok := CommitOrdinal(Commit(1 << 40)); !ok || n != 1<<40 {
		t.Errorf("ordinal: got %d, %v", n, ok)
	}
	if got := RegisterName(Register("a/b")); got != "a/b" {
		t.Errorf("register: got %q", got)
	}
	if got := KeptKey(Kept("t", "a\x00b"), "t"); got != "a\x00b" {
		t.Errorf("record: got %q", got)
	}
}

func TestBehind(t *testing.T) {
	for prefix, want := range map[string]string{"a": "b", "a\xff": "b", "a\x00": "a\x01", "\xff\xff": "", "": ""} {
		if got := Behind([]byte(prefix)); string(got) != want || (got == nil) != (want == "") {
			t.Errorf("%q: got %q, want %q", prefix, got, want)
		}
	}
}

func TestScan(t *testing.T) {
	s := openInMemory(t)
	b := s.NewBatch()
	for _, k := range []string{"a", "b", "ba", "c"} {
		if err := b.Set([]byte(k), []byte("of "+k)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Submit(b, 7)
	if err != nil {
		t.Fatal(err)
	}
	if mark, err := f.Wait(); mark != 7 || err != nil {
		t.Fatal(mark, err)
	}
	scan := func(lower, upper string, reverse bool) (keys []string) {
		var end []byte
		if upper != "" {
			end = []byte(upper)
		}
		for row, err := range s.Scan([]byte(lower), end, reverse) {
			if err != nil {
				t.Fatal(err)
			}
			if string(row.Value) != "of "+string(row.Key) {
				t.Errorf("%s: got %s", row.Key, row.Value)
			}
			keys = append(keys, string(row.Key))
		}
		return keys
	}
	if got, want := scan("b", "c", false), []string{"b", "ba"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := scan("", "", true), []string{"c", "ba", "b", "a"}; !slices.Equal(got, want) {
		t.Errorf("in reverse: got %v, want %v", got, want)
	}
	if found, err := s.Get([]byte("none"), nil); found || err != nil {
		t.Errorf("what is not there: got %v, %v", found, err)
	}
	before := s.Usage().Fsyncs
	if err := s.Sync(); err != nil {
		t.Fatal(err)
	}
	if got := s.Usage().Fsyncs; got <= before {
		t.Errorf("syncs: got %d after %d", got, before)
	}
}
