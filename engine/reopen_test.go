package engine_test

import (
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

func write(t *testing.T, e *engine.Engine, ops ...engine.Op) engine.Receipt {
	t.Helper()
	r, err := e.WriteState(t.Context(), engine.Write{Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func status(t *testing.T, e *engine.Engine) engine.Status {
	t.Helper()
	s, err := e.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// candidates reads what a closed engine has stored.
func candidates(t *testing.T, fs vfs.FS) (out []*engine.QCandidate) {
	t.Helper()
	db, err := pebble.Open("data", &pebble.Options{FS: fs, ReadOnly: true, Logger: quiet{}})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: []byte("c"), UpperBound: []byte("d")})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		c, err := lattice.ParseCandidate(it.Value())
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, c)
	}
	return out
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

func TestReopen(t *testing.T) {
	fs := vfs.NewMem()
	now := time.Date(2026, 11, 23, 5, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	e := open(t, engine.Options{FS: fs, Now: clock})
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)))
	write(t, e, enginetest.Put("gone", "x", lattice.Int(1)))
	write(t, e, enginetest.Delete("gone"))
	last := write(t, e, enginetest.Put("a", "y", lattice.Int(2)), enginetest.Put("b", "", lattice.String("s")))
	if err := e.KeepRecords(t.Context(), false, engine.Record{Table: "t", Key: "k", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	before := status(t, e)
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); !errors.Is(err, engine.ErrClosed) {
		t.Errorf("closing twice: got %v, want ErrClosed", err)
	}

	now = now.AddDate(-1, 0, 0) // the battery of its clock is empty
	e = open(t, engine.Options{FS: fs, Now: clock})
	after := status(t, e)
	if after.Endpoint != before.Endpoint || after.Incarnation == before.Incarnation || after.Cursor != before.Cursor ||
		after.Registers != 2 || after.Candidates != 4 || after.Cursor != last.Cursor {
		t.Errorf("got %+v after %+v", after, before)
	}
	if b, err := e.ReadState(t.Context(), "a"); err != nil || b.Value.String() != `{"x":1,"y":2}` || b.ID != last.States[0].ID {
		t.Errorf("got %+v, %v; want %+v", b, err, last.States[0])
	}
	if v, err := e.Kept("t", "k"); err != nil || string(v) != "v" {
		t.Errorf("record: got %q, %v", v, err)
	}
	next := write(t, e, enginetest.Put("a", "x", lattice.Int(3)))
	if next.Time <= last.Time || next.Dot.Origin == last.Dot.Origin || next.Dot.Seq != 1 || next.Cursor.Ordinal != last.Cursor.Ordinal+1 || next.States[0].ID.Rank != last.States[0].ID.Rank+1 {
		t.Errorf("got %+v after %+v", next, last)
	}
	write(t, e, enginetest.Put("a", "x", lattice.Int(4)))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}

	// A start without a write leaves no trace, and the one after it continues where the last write was.
	e = open(t, engine.Options{FS: fs, Now: clock})
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = open(t, engine.Options{FS: fs, Now: clock})
	write(t, e, enginetest.Put("c", "x", lattice.Int(5)))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	deps := map[engine.OriginID][]engine.Dot{}
	for _, c := range candidates(t, fs) {
		if c.Dot.Seq == 1 {
			deps[c.Dot.Origin] = c.Deps
		} else if len(c.Deps) != 0 {
			t.Errorf("candidate %s depends on %v beside its predecessor", c.Dot, c.Deps)
		}
	}
	if len(deps) != 3 || len(deps[last.Dot.Origin]) != 0 || len(deps[next.Dot.Origin]) != 1 || deps[next.Dot.Origin][0] != last.Dot {
		t.Errorf("incarnations depend on %v; want that of %s on %s", deps, next.Dot, last.Dot)
	}
}

func TestOneProcessPerDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "data")
	e := open(t, engine.Options{Dir: dir, FS: vfs.Default})
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: got %v, %v", info, err)
	}
	if _, err := engine.Open(engine.Options{Dir: dir}); !errors.Is(err, engine.ErrInUse) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v, want ErrInUse that names %s", err, dir)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if again, err := engine.Open(engine.Options{Dir: dir}); err != nil {
		t.Error(err)
	} else if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// tamper changes what a closed engine has stored under the last key with a prefix.
func tamper(t *testing.T, fs vfs.FS, prefix []byte, change func([]byte) []byte) {
	t.Helper()
	s, err := store.Open(store.Options{Dir: "data", FS: fs, Log: silent, Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(store.End{})
	for row, err := range s.Scan(prefix, store.Behind(prefix), true) {
		if err != nil {
			t.Fatal(err)
		}
		b := s.NewBatch()
		if err := b.Set(row.Key, change(append([]byte(nil), row.Value...))); err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(b, true); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Fatalf("nothing under %q", prefix)
}

func TestDamageIsNamed(t *testing.T) {
	written := func(t *testing.T) vfs.FS {
		fs := vfs.NewMem()
		e := open(t, engine.Options{FS: fs})
		for i := range 3 {
			write(t, e, enginetest.Put("a", "x", lattice.Int(int64(i))))
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		return fs
	}
	cutShort := func(b []byte) []byte { return b[:len(b)-1] }
	for prefix, want := range map[string]string{"l": "commit 3", "c": "candidate", "mformat": "identity", "mself": "origin"} {
		fs := written(t)
		tamper(t, fs, []byte(prefix), cutShort)
		if _, err := engine.Open(engine.Options{Dir: "data", FS: fs}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that names the %s", prefix, err, want)
		}
	}
	fs := written(t)
	tamper(t, fs, []byte("mformat"), func([]byte) []byte { return []byte{99} })
	if _, err := engine.Open(engine.Options{Dir: "data", FS: fs}); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer format: got %v", err)
	}
	fs = written(t)
	tamper(t, fs, []byte("c"), func(b []byte) []byte {
		c, err := lattice.ParseCandidate(b)
		if err != nil {
			t.Fatal(err)
		}
		c.Prev[0]++
		return c.AppendCBOR(nil)
	})
	if _, err := engine.Open(engine.Options{Dir: "data", FS: fs}); err == nil || !strings.Contains(err.Error(), "does not continue") {
		t.Errorf("a broken chain: got %v", err)
	}
	// Further damage costs what is damaged, and nothing else.
	fs = written(t)
	tamper(t, fs, []byte("ra"), cutShort)
	e := open(t, engine.Options{FS: fs})
	if _, err := e.ReadState(t.Context(), "a"); !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("read of a damaged register: got %v", err)
	}
	if _, err := e.WriteState(t.Context(), engine.Write{Ops: []engine.Op{enginetest.Put("a", "x", lattice.Int(1))}}); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("write to a damaged register: got %v", err)
	}
	write(t, e, enginetest.Put("b", "x", lattice.Int(1)))
}

// Every page of every file, flipped once or cut off: what is served afterwards is right, or refused.
func TestBitFlips(t *testing.T) {
	original := vfs.NewMem()
	e := open(t, engine.Options{FS: original, MemTableBytes: 256 << 10})
	want := map[string]string{}
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		name := "r/" + string(rune('a'+i%26)) + string(rune('a'+i%7))
		r := write(t, e, enginetest.Put(name, "x", lattice.Int(int64(i))), enginetest.Put(name, "pad", lattice.String(strings.Repeat("p", rng.IntN(600)))))
		want[name] = r.States[0].Value.String()
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := original.List("data")
	if err != nil {
		t.Fatal(err)
	}
	refused, served := 0, 0
	for _, file := range names {
		info, err := original.Stat("data/" + file)
		if err != nil {
			t.Fatal(err)
		}
		for at := int64(0); at < info.Size(); at += 4096 {
			at := at + rng.Int64N(min(4096, info.Size()-at))
			fs := vfs.NewMem()
			if _, err := vfs.Clone(original, fs, "data", "data"); err != nil {
				t.Fatal(err)
			}
			flip(t, fs, "data/"+file, at)
			e, err := engine.Open(engine.Options{Dir: "data", FS: fs, Fatal: func(error) {}})
			if err != nil {
				refused++
				continue
			}
			for name, want := range want {
				b, err := e.ReadState(t.Context(), name)
				if err != nil {
					refused++
					continue
				}
				if b.Value.String() != want {
					t.Fatalf("%s, byte %d: %s is served as %s, want %s", file, at, name, b.Value, want)
				}
				served++
			}
			if err := e.Close(); err != nil {
				refused++
			}
		}
	}
	if refused == 0 || served == 0 {
		t.Errorf("%d refused, %d served: the test tries nothing", refused, served)
	}
}

func flip(t *testing.T, fs vfs.FS, file string, at int64) {
	t.Helper()
	f, err := fs.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	data[at] ^= 1 << (at % 8)
	if f, err = fs.Create(file, vfs.WriteCategoryUnspecified); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

// Room on the disk is what the file system says there is.
func TestFull(t *testing.T) {
	fs := vfs.NewMem()
	const mib = 1 << 20
	room := func(avail uint64) {
		fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: avail, TotalBytes: 1 << 30, UsedBytes: 1<<30 - avail})
	}
	room(900 * mib)
	e := open(t, engine.Options{FS: fs, MinFree: 64 * mib})
	put := engine.Write{Ops: []engine.Op{enginetest.Put("a", "x", lattice.Int(1))}}
	first := write(t, e, put.Ops...)
	if err := e.KeepRecords(t.Context(), false, engine.Record{Table: "t", Key: "k", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	room(40 * mib)
	if s := status(t, e); !s.Full || s.FreeBytes != 40*mib {
		t.Errorf("got full %v with %d bytes", s.Full, s.FreeBytes)
	}
	if _, err := e.WriteState(t.Context(), put); !errors.Is(err, engine.ErrFull) {
		t.Errorf("write: got %v, want ErrFull", err)
	}
	if err := e.KeepRecords(t.Context(), false, engine.Record{Table: "t", Key: "l", Value: []byte("v")}); !errors.Is(err, engine.ErrFull) {
		t.Errorf("record: got %v, want ErrFull", err)
	}
	if err := e.KeepRecords(t.Context(), false, engine.Record{Table: "t", Key: "k"}); err != nil {
		t.Errorf("deleting a record: %v", err)
	}
	if b, err := e.ReadState(t.Context(), "a"); err != nil || b.ID != first.States[0].ID {
		t.Errorf("read: got %+v, %v", b, err)
	}
	if _, err := fs.Stat("data/ballast"); err != nil {
		t.Errorf("the ballast: %v", err)
	}
	room(2 * mib)
	status(t, e)
	if _, err := fs.Stat("data/ballast"); err == nil {
		t.Error("the ballast is still there")
	}
	room(900 * mib)
	deadline := time.Now().Add(time.Minute)
	for {
		_, err := e.WriteState(t.Context(), put)
		if err == nil {
			break
		}
		if !errors.Is(err, engine.ErrFull) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if s := status(t, e); s.Full {
		t.Errorf("got %+v", s)
	}
	if _, err := fs.Stat("data/ballast"); err != nil {
		t.Errorf("the ballast: %v", err)
	}
}

var silent = slog.New(slog.DiscardHandler)

// A storage that shows an older state than the last clean stop left is refused, whatever made it so.
func TestOlderThanItsEnd(t *testing.T) {
	fs := vfs.NewMem()
	e := open(t, engine.Options{FS: fs})
	write(t, e, enginetest.Put("a", "x", lattice.Int(1)))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	older := vfs.NewMem()
	if _, err := vfs.Clone(fs, older, "data", "data"); err != nil {
		t.Fatal(err)
	}
	e = open(t, engine.Options{FS: fs})
	write(t, e, enginetest.Put("a", "x", lattice.Int(2)))
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	end, err := fs.Open("data/END")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(end)
	if err != nil {
		t.Fatal(err)
	}
	f, err := older.Create("data/END", vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // also the second time
		if _, err := engine.Open(engine.Options{Dir: "data", FS: older}); !errors.Is(err, engine.ErrUnavailable) || !strings.Contains(err.Error(), "ended at 2") {
			t.Errorf("got %v", err)
		}
	}
	// A crash leaves no note, and nothing to hold against.
	open(t, engine.Options{FS: fs})
}
