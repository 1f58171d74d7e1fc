package enginetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A Host is what the process that hosts an engine has.
type Host interface {
	engine.State
	engine.Submitter
	engine.Keeper
}

// RunHost holds what open gives to what a host may rely on beyond engine.State. Each call of open must give an empty
// one, and clean up after itself.
func RunHost(t *testing.T, open func(t *testing.T) Host) {
	tests := []struct {
		name string
		run  func(*hostSuite)
	}{
		{"writers who did not see each other both live on", siblings},
		{"a base that is behind replaces only what it saw", staleBase},
		{"an update wins over a delete that did not know of it", updateWins},
		{"a delete with a base removes what it saw", baseDelete},
		{"a writer who saw nothing finds nothing", baseOnDeleted},
		{"only with a base removes what it saw", baseOnly},
		{"writers with a base don't pile up", baseBounded},
		{"a tag comes back live", tags},
		{"records are kept with a write, or not at all", keepWithWrite},
		{"records are kept alone", keepAlone},
		{"submitted writes follow each other", submit},
		{"a refused submit does not wait for the caller", submitConflict},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			host := open(t)
			test.run(&hostSuite{suite{T: t, ctx: ctx, State: host}, host, host})
		})
	}
}

type hostSuite struct {
	suite
	engine.Submitter
	engine.Keeper
}

func (s *hostSuite) put(register, field string, v engine.Value, seen ...engine.Dot) engine.Receipt {
	s.Helper()
	op := Put(register, field, v)
	op.Base, op.Seen = true, seen
	return s.write(op)
}

func dots(b engine.StateBlock, field string) []engine.Dot {
	for _, f := range b.Dots {
		if f.Field == field {
			return f.Dots
		}
	}
	return nil
}

func siblings(s *hostSuite) {
	one := s.put("a", "x", lattice.Int(1))
	two := s.put("a", "x", lattice.Int(2))
	b := s.read("a")
	if got := dots(b, "x"); len(got) != 2 {
		s.Fatalf("got %d entries, want 2", len(got))
	}
	s.want("a", `{"x":2}`) // the later one shows
	s.put("a", "x", lattice.Int(3), two.Dot)
	if got := dots(s.read("a"), "x"); len(got) != 2 || got[0] != one.Dot {
		s.Errorf("got %v, want %v and another", got, one.Dot)
	}
	s.write(Put("a", "x", lattice.Int(4)))
	if got := dots(s.read("a"), "x"); len(got) != 1 {
		s.Errorf("after a writer who saw all: got %v", got)
	}
	s.want("a", `{"x":4}`)
}

func staleBase(s *hostSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(1)))
	second := s.write(Put("a", "x", lattice.Int(2)))
	op := Remove("a", "x")
	op.Base, op.Seen = true, []engine.Dot{first.Dot}
	if r := s.write(op); !r.Dot.IsZero() {
		s.Errorf("removing what was replaced: got %v", r)
	}
	s.want("a", `{"x":2,"y":1}`)
	op.Seen = []engine.Dot{first.Dot, second.Dot}
	s.write(op)
	s.want("a", `{"y":1}`)
	unknown := s.put("a", "y", lattice.Int(3), engine.Dot{Origin: engine.OriginID{1}, Seq: 9})
	if got := dots(unknown.States[0], "y"); len(got) != 2 {
		s.Errorf("having seen what nobody wrote: got %v", got)
	}
}

func updateWins(s *hostSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	s.write(Delete("a"))
	// It had seen the field, and not the delete.
	r := s.put("a", "x", lattice.Int(3), first.Dot)
	if !r.States[0].Exists {
		s.Error("the register is gone")
	}
	s.want("a", `{"x":3,"y":2}`)
}

func baseDelete(s *hostSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)))
	exists := dots(first.States[0], engine.Existence)
	s.put("a", "x", lattice.Int(2)) // by somebody who had seen nothing
	op := Delete("a")
	op.Base, op.Seen = true, exists
	s.write(op)
	if !s.read("a").Exists {
		s.Fatal("a write that the delete did not know of is gone")
	}
	op.Seen = dots(s.read("a"), engine.Existence)
	s.write(op)
	s.want("a", "")
	if r := s.write(op); !r.Dot.IsZero() {
		s.Errorf("deleting again: got %v", r)
	}
}

func baseOnDeleted(s *hostSuite) {
	s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	s.write(Delete("a"))
	s.put("a", "y", lattice.Int(3))
	s.want("a", `{"y":3}`)
}

func baseOnly(s *hostSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	s.write(Put("a", "z", lattice.Int(3)), Put("a", "y", lattice.Int(4)))
	op := Only("a", "other")
	op.Base, op.SeenFields = true, first.States[0].Dots
	s.write(op)
	s.want("a", `{"y":4,"z":3}`)
}

func baseBounded(s *hostSuite) {
	for i := range 300 {
		r := s.put("a", "x", lattice.Int(int64(i)))
		op := Remove("a", "x")
		op.Base, op.Seen = true, []engine.Dot{r.Dot}
		s.write(op)
	}
	if got := dots(s.read("a"), engine.Existence); len(got) > 100 {
		s.Errorf("got %d entries of existence", len(got))
	}
}

func tags(s *hostSuite) {
	ch := s.observe(engine.Filter{}, s.cursor())
	if _, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(1))}, Tag: 77}); err != nil {
		s.Fatal(err)
	}
	if d := s.next(ch); d.Tag != 77 {
		s.Errorf("live: got tag %d, want 77", d.Tag)
	}
	if h := all(&s.suite, s.History(s.ctx, engine.HistoryQuery{Register: "a"})); len(h) != 1 || h[0].Tag != 0 {
		s.Errorf("history: got %+v", h)
	}
}

func (s *hostSuite) kept(table, key, want string) {
	s.Helper()
	got, err := s.Kept(table, key)
	if err != nil || string(got) != want || (got == nil) != (want == "") {
		s.Errorf("%s %q: got %q, %v; want %q", table, key, got, err, want)
	}
}

func keepWithWrite(s *hostSuite) {
	yes := true
	var dot engine.Dot
	r, err := s.WriteState(s.ctx, engine.Write{
		Ops:  []engine.Op{Put("a", "x", lattice.Int(1))},
		Keep: []engine.Record{{Table: "cursor", Key: "floor", Value: []byte("1")}},
		KeepWith: func(d engine.Dot) []engine.Record {
			dot = d
			return []engine.Record{{Table: "baseline", Key: "a\x00b", Value: []byte(d.String())}}
		},
	})
	if err != nil {
		s.Fatal(err)
	}
	if dot != r.Dot {
		s.Errorf("records were asked for with %v, the write has %v", dot, r.Dot)
	}
	s.kept("cursor", "floor", "1")
	s.kept("baseline", "a\x00b", r.Dot.String())
	_, err = s.WriteState(s.ctx, engine.Write{
		Ops:  []engine.Op{Put("a", "x", lattice.Int(1))},
		If:   []engine.Precondition{{Register: "never", Exists: &yes}},
		Keep: []engine.Record{{Table: "cursor", Key: "floor", Value: []byte("2")}},
	})
	if !errors.Is(err, engine.ErrConflict) {
		s.Errorf("got %v, want ErrConflict", err)
	}
	s.kept("cursor", "floor", "1")
	// A write that changes nothing keeps its records all the same.
	for _, ops := range [][]engine.Op{{Remove("never", "x")}, nil} {
		value := fmt.Sprint("with ", len(ops))
		r, err := s.WriteState(s.ctx, engine.Write{Ops: ops, Keep: []engine.Record{{Table: "cursor", Key: "floor", Value: []byte(value)}}})
		if err != nil || !r.Dot.IsZero() {
			s.Errorf("got %+v, %v", r, err)
		}
		s.kept("cursor", "floor", value)
	}
}

func keepAlone(s *hostSuite) {
	s.kept("t", "none", "")
	var want []string
	for i := range 600 {
		key := fmt.Sprintf("k/%04d", i)
		want = append(want, key)
		if err := s.KeepRecords(s.ctx, i%100 == 0, engine.Record{Table: "t", Key: key, Value: []byte{byte(i)}}); err != nil {
			s.Fatal(err)
		}
	}
	err := s.KeepRecords(s.ctx, true, engine.Record{Table: "t", Key: "l", Value: []byte("x")}, engine.Record{Table: "tt", Key: "k/1", Value: []byte("x")},
		engine.Record{Table: "t", Key: "k/0007"}, engine.Record{Table: "t", Key: "k/none"})
	if err != nil {
		s.Fatal(err)
	}
	want = append(want[:7], want[8:]...)
	var got []string
	for r, err := range s.EachKept("t", "k/") {
		if err != nil {
			s.Fatal(err)
		}
		got = append(got, r.Key)
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		s.Errorf("got %d keys %v", len(got), got)
	}
	if err := s.KeepRecords(s.ctx, false, engine.Record{Table: "Bad Name", Key: "k", Value: []byte("x")}); !errors.Is(err, engine.ErrInvalid) {
		s.Errorf("a bad table: got %v, want ErrInvalid", err)
	}
	if err := s.KeepRecords(s.ctx, false, engine.Record{Table: "t", Key: "k", Value: make([]byte, engine.MaxKept+1)}); !errors.Is(err, engine.ErrTooLarge) {
		s.Errorf("a large record: got %v, want ErrTooLarge", err)
	}
}

func submit(s *hostSuite) {
	from := s.cursor()
	const n = 200
	var waits []func() (engine.Receipt, error)
	for i := range n {
		_, wait, err := s.Submit(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(int64(i)))}})
		if err != nil {
			s.Fatal(err)
		}
		waits = append(waits, wait)
	}
	// Waiting in another order than that of the writes is no different.
	for i := range waits {
		r, err := waits[(i+n/2)%n]()
		if err != nil {
			s.Fatal(err)
		}
		if want := int64((i + n/2) % n); fieldX(r.States[0]) != want {
			s.Errorf("receipt: got %s, want %d", r.States[0].Value, want)
		}
		if c := s.cursor(); c.Ordinal < r.Cursor.Ordinal {
			s.Errorf("at %v after a receipt of %v", c, r.Cursor)
		}
	}
	for i, d := range first(&s.suite, n, s.Observe(s.ctx, engine.Filter{}, from)) {
		if fieldX(d.After) != int64(i) {
			s.Fatalf("delta %d: got %s", i, d.After.Value)
		}
	}
}

func fieldX(b engine.StateBlock) int64 {
	v, _ := b.Value.Member("x")
	return v.Int()
}

func submitConflict(s *hostSuite) {
	no := false
	_, wait, err := s.Submit(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(1))}})
	if err != nil {
		s.Fatal(err)
	}
	_, _, err = s.Submit(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(2))}, If: []engine.Precondition{{Register: "a", Exists: &no}}})
	if !errors.Is(err, engine.ErrConflict) {
		s.Errorf("got %v, want ErrConflict", err)
	}
	// Whoever is told of a conflict can see what it was with.
	s.want("a", `{"x":1}`)
	if _, err := wait(); err != nil {
		s.Error(err)
	}
}
