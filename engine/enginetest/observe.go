package enginetest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// observe runs an observer and gives what it sees.
func (s *suite) observe(f engine.Filter, from engine.Cursor) <-chan engine.QDelta {
	ch := make(chan engine.QDelta)
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for d, err := range s.Observe(ctx, f, from) {
			if err != nil {
				if ctx.Err() == nil {
					s.Errorf("observe: %v", err)
				}
				return
			}
			select {
			case ch <- d:
			case <-ctx.Done():
				return
			}
		}
	}()
	s.Cleanup(func() { cancel(); <-done })
	return ch
}

func (s *suite) next(ch <-chan engine.QDelta) engine.QDelta {
	s.Helper()
	select {
	case d := <-ch:
		return d
	case <-s.ctx.Done():
		s.Fatal("nothing was observed")
		return engine.QDelta{}
	}
}

func observeLive(s *suite) {
	s.write(Put("old", "x", lattice.Int(1)))
	a, b := s.observe(engine.Filter{}, s.cursor()), s.observe(engine.Filter{}, s.cursor())
	for i := range 20 {
		r := s.write(Put("a", "x", lattice.Int(int64(i))))
		for _, ch := range []<-chan engine.QDelta{a, b} {
			if d := s.next(ch); d.Cursor != r.Cursor || d.Dot != r.Dot || d.After.Register != "a" || d.Snapshot || d.Of != 1 || d.Created != (i == 0) {
				s.Fatalf("got %+v, want that of %+v", d, r)
			}
		}
	}
}

func observeResume(s *suite) {
	start := s.cursor()
	var receipts []engine.Receipt
	for i := range 1000 {
		if i%10 != 0 {
			receipts = append(receipts, s.write(Put(fmt.Sprintf("r/%d", i%7), "x", lattice.Int(int64(i)))))
		} else {
			receipts = append(receipts, s.write(Put("other", "x", lattice.String(strings.Repeat("y", 5000)))))
		}
	}
	at := start
	for n := 0; n < 1000; {
		// Each time a new observer, as after a restart of the one who observes.
		for _, d := range first(s, min(333, 1000-n), s.Observe(s.ctx, engine.Filter{}, at)) {
			if d.Cursor != receipts[n].Cursor || d.Snapshot {
				s.Fatalf("delta %d: got %v, want %v", n, d.Cursor, receipts[n].Cursor)
			}
			at = d.Cursor
			n++
		}
	}
}

func observeSnapshot(s *suite) {
	for i := range 600 {
		s.write(Put(fmt.Sprintf("a/%04d", i), "x", lattice.Int(int64(i))))
	}
	s.write(Delete("a/0000"))
	last := s.write(Put("b", "x", lattice.Int(1)))
	for name, from := range map[string]engine.Cursor{"zero": {}, "foreign": {Log: last.Cursor.Log + 1, Ordinal: 3}} {
		deltas := first(s, 600, s.Observe(s.ctx, engine.Filter{}, from))
		for i, d := range deltas {
			if !d.Snapshot || !d.After.Exists || d.Deleted || (i == 599) != (d.Cursor == last.Cursor) || (i < 599) != (d.Cursor == engine.Cursor{}) {
				s.Fatalf("%s, delta %d: got %+v", name, i, d)
			}
		}
		if deltas[0].After.Register != "a/0001" || deltas[599].After.Register != "b" {
			s.Errorf("%s: got %s to %s", name, deltas[0].After.Register, deltas[599].After.Register)
		}
	}
	ch := s.observe(engine.Filter{Prefix: "b"}, engine.Cursor{})
	if d := s.next(ch); !d.Snapshot || d.After.Register != "b" {
		s.Errorf("filtered: got %+v", d)
	}
	r := s.write(Put("bb", "x", lattice.Int(2)))
	if d := s.next(ch); d.Snapshot || d.Cursor != r.Cursor {
		s.Errorf("live behind it: got %+v", d)
	}
}

func observeFilter(s *suite) {
	tests := []struct {
		filter engine.Filter
		want   string
		more   string // a register that matches as well
	}{
		{engine.Filter{}, "a/1 a/1/b b ab", "z"},
		{engine.Filter{Prefix: "a/"}, "a/1 a/1/b", "a/2"},
		{engine.Filter{Prefix: "a/1"}, "a/1 a/1/b", "a/12"},
		{engine.Filter{Name: "a/1"}, "a/1", "a/1"},
		{engine.Filter{Prefix: "a/1", Name: "a/1/b"}, "a/1/b", "a/1/b"},
		{engine.Filter{Prefix: "none"}, "", "none/such"},
	}
	for _, test := range tests {
		from := s.cursor()
		s.write(Put("a/1", "x", lattice.Int(1)))
		s.write(Put("a/1/b", "x", lattice.Int(1)), Put("b", "x", lattice.Int(1)))
		s.write(Put("ab", "x", lattice.Int(1)))
		ch := s.observe(test.filter, from)
		for _, want := range strings.Fields(test.want) {
			if d := s.next(ch); d.After.Register != want {
				s.Errorf("%+v: got %s, want %s", test.filter, d.After.Register, want)
			}
		}
		s.write(Put("yy", "x", lattice.Int(1)))
		r := s.write(Put(test.more, "x", lattice.Int(1)))
		d := s.next(ch)
		for test.filter == (engine.Filter{}) && d.After.Register == "yy" {
			d = s.next(ch) // which all but this filter leave out
		}
		if d.Cursor != r.Cursor {
			s.Errorf("%+v: got %s at %v, want %s at %v", test.filter, d.After.Register, d.Cursor, test.more, r.Cursor)
		}
	}
}

func observeConcurrent(s *suite) {
	const writers, each, observers = 4, 50, 3
	from := s.cursor()
	var chans []<-chan engine.QDelta
	for range observers {
		chans = append(chans, s.observe(engine.Filter{}, from))
	}
	acked := make(chan engine.Receipt, writers*each)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{Put(fmt.Sprintf("r/%d", i%3), fmt.Sprint(w), lattice.Int(int64(i)))}})
				if err != nil {
					s.Error(err)
					return
				}
				acked <- r
			}
		})
	}
	for n, ch := range chans {
		last := from.Ordinal
		for range writers * each {
			d := s.next(ch)
			if d.Cursor.Ordinal <= last {
				s.Fatalf("observer %d: %d after %d", n, d.Cursor.Ordinal, last)
			}
			last = d.Cursor.Ordinal
		}
	}
	wg.Wait()
	close(acked)
	seen := map[engine.Dot]bool{}
	for r := range acked {
		if seen[r.Dot] {
			s.Errorf("dot %s twice", r.Dot)
		}
		seen[r.Dot] = true
	}
	if len(seen) != writers*each {
		s.Errorf("got %d dots, want %d", len(seen), writers*each)
	}
}
