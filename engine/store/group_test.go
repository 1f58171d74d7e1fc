package store

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// put submits a batch of keys and values; without a value the key goes.
func put(t *testing.T, s *Store, mark uint64, pairs ...string) Flight {
	t.Helper()
	b := s.NewBatch()
	for i := 0; i < len(pairs); i += 2 {
		err := b.Set([]byte(pairs[i]), []byte(pairs[i+1]))
		if pairs[i+1] == "" {
			err = b.Delete([]byte(pairs[i]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := s.Submit(b, mark)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func all(t *testing.T, s *Store) (pairs []string) {
	t.Helper()
	for row, err := range s.Scan(nil, nil, false) {
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, string(row.Key)+"="+string(row.Value))
	}
	return pairs
}

// crowd submits so many batches that those which follow wait for each other.
func crowd(t *testing.T, s *Store) []Flight {
	t.Helper()
	var flights []Flight
	for i := range fewBatches {
		flights = append(flights, put(t, s, uint64(i+1), "crowd", fmt.Sprint(i)))
	}
	return flights
}

func TestGroupKeepsOrder(t *testing.T) {
	disk := vfs.NewCrashableMem()
	s, err := Open(Options{Dir: "d", FS: disk, Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	flights := crowd(t, s)
	flights = append(flights,
		put(t, s, 100, "b", "1", "a", "1", "c", "1"),
		put(t, s, 101, "a", "2", "b", ""),
		put(t, s, 102, "a", "3", "d", "1"),
		put(t, s, 103, "d", "", "b", "4"))
	for _, k := range []string{"a", "b", "c", "d"} {
		if found, err := s.GetApplied([]byte(k), func([]byte) error { return nil }); found || err != nil {
			t.Fatalf("%s was applied before anybody waited: %v", k, err)
		}
	}
	if mark, err := flights[fewBatches+1].Wait(); mark != 103 || err != nil {
		t.Fatalf("durable up to %d, want 103: %v", mark, err)
	}
	crashed, err := Open(Options{Dir: "d", FS: disk.CrashClone(vfs.CrashCloneCfg{}), Log: slog.New(slog.DiscardHandler), Fatal: func(err error) { panic(err) }})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a=3", "b=4", "c=1", fmt.Sprintf("crowd=%d", fewBatches-1)}
	if got := all(t, crashed); !slices.Equal(got, want) {
		t.Errorf("after a crash: got %q, want %q", got, want)
	}
	if err := crashed.Close(End{}); err != nil {
		t.Error(err)
	}
	for _, f := range flights {
		if _, err := f.Wait(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(End{}); err != nil {
		t.Error(err)
	}
}

func TestGroupIsSeenByReads(t *testing.T) {
	s := openInMemory(t)
	crowd(t, s)
	reads := map[string]func() error{
		"Get": func() error {
			found, err := s.Get([]byte("k"), func([]byte) error { return nil })
			if !found {
				err = errors.Join(err, errors.New("not found"))
			}
			return err
		},
		"Settle": s.Settle,
		"Sync":   s.Sync,
		"Apply":  func() error { return s.Apply(s.NewBatch(), false) },
		"Snapshot": func() error {
			snap, err := s.Snapshot()
			if err != nil {
				return err
			}
			found, err := snap.Get([]byte("k"), func([]byte) error { return nil })
			if !found {
				err = errors.Join(err, errors.New("not found"))
			}
			return errors.Join(err, snap.Close())
		},
	}
	for name, read := range reads {
		f := put(t, s, 1, "k", name)
		if err := read(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got string
		if _, err := s.GetApplied([]byte("k"), func(v []byte) error { got = string(v); return nil }); got != name || err != nil {
			t.Errorf("%s: then there is %q: %v", name, got, err)
		}
		if _, err := f.Wait(); err != nil {
			t.Error(err)
		}
		crowd(t, s)
	}
}

func TestGroupWithRange(t *testing.T) {
	s := openInMemory(t)
	crowd(t, s)
	put(t, s, 20, "x1", "old", "x2", "old", "y", "old")
	b := s.NewBatch()
	if err := errors.Join(b.Set([]byte("x1"), []byte("older")), b.DeleteRange([]byte("x"), []byte("y")), b.Set([]byte("x2"), []byte("new"))); err != nil {
		t.Fatal(err)
	}
	f, err := s.Submit(b, 21)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Wait(); err != nil {
		t.Fatal(err)
	}
	if got, want := all(t, s), []string{fmt.Sprintf("crowd=%d", fewBatches-1), "x2=new", "y=old"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every writer finds what it wrote, and the last of each key stays, whoever takes whose batch to the disk.
func TestGroupOfMany(t *testing.T) {
	s := openInMemory(t)
	var order sync.Mutex
	mark, last := uint64(0), map[string]string{}
	var wg sync.WaitGroup
	for w := range 4 * fewBatches {
		wg.Go(func() {
			for i := range 50 {
				key, value := fmt.Sprintf("k%d", (w+i)%7), fmt.Sprintf("%d/%d", w, i)
				order.Lock()
				mark++
				mine := mark
				last[key] = value
				f := put(t, s, mark, key, value, "own "+value, "x")
				order.Unlock()
				got, err := f.Wait()
				if err != nil || got < mine {
					t.Errorf("durable up to %d, want %d: %v", got, mine, err)
				}
				if found, err := s.GetApplied([]byte("own "+value), func([]byte) error { return nil }); !found || err != nil {
					t.Errorf("%s is not there: %v", value, err)
				}
			}
		})
	}
	wg.Wait()
	for key, want := range last {
		if _, err := s.Get([]byte(key), func(v []byte) error {
			if string(v) != want {
				t.Errorf("%s: got %s, want %s", key, v, want)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
}

func TestGroupFails(t *testing.T) {
	s := openInMemory(t)
	flights := crowd(t, s)
	flights = append(flights, put(t, s, 20, "a", "1"), put(t, s, 21, "b", "1"))
	if err := s.Settle(); err != nil {
		t.Fatal(err)
	}
	why := errors.New("no more")
	s.queue.failed.Store(&why)
	if _, err := s.Submit(s.NewBatch(), 22); !errors.Is(err, why) {
		t.Errorf("Submit: %v", err)
	}
	if err := s.Settle(); !errors.Is(err, why) {
		t.Errorf("Settle: %v", err)
	}
	s.queue.failed.Store(nil) // so that it closes
	for _, f := range flights {
		if _, err := f.Wait(); err != nil {
			t.Errorf("what was applied before the failure: %v", err)
		}
	}
}
