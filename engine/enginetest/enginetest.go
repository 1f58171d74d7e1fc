// Package enginetest is the contract that everything which offers shared state keeps: the engine in this process and
// a client of one in another.
package enginetest

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// patience bounds what would otherwise wait for ever when it is broken.
const patience = time.Minute

// Run holds what open gives to the contract of engine.State. Each call of open must give an empty one, and clean up
// after itself.
func Run(t *testing.T, open func(t *testing.T) engine.State) {
	tests := []struct {
		name string
		run  func(*suite)
	}{
		{"what was never written does not exist", neverWritten},
		{"a write is there when it returns", writeThenRead},
		{"values of every kind are kept as they are", everyKind},
		{"what a write does not mention stays", fieldsStay},
		{"only says which fields stay", only},
		{"removing what is not there is not a write", removeNothing},
		{"an equal value is a write", equalValue},
		{"a deleted register comes back empty", deleteAndReturn},
		{"a register is one value or has fields", oneValueOrFields},
		{"a batch is one commit", batch},
		{"the ops of a write follow each other", opsInOrder},
		{"preconditions hold with the commit", preconditions},
		{"no update is lost between two writers", compareAndSet},
		{"a list is in order and in part", list},
		{"history tells what, when and who", history},
		{"observing from now shows what comes", observeLive},
		{"an observer goes on where it was", observeResume},
		{"an observer without a place gets a snapshot", observeSnapshot},
		{"an observer sees what it asked for", observeFilter},
		{"observers see every commit in one order", observeConcurrent},
		{"bad input is refused by kind", refused},
		{"limits are errors", limits},
		{"an ended context ends a call", ended},
		{"status counts", status},
		{"closed is closed", closed},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			test.run(&suite{T: t, ctx: ctx, State: open(t)})
		})
	}
}

type suite struct {
	*testing.T
	engine.State
	ctx context.Context
}

// Put is an op that puts one field.
func Put(register, field string, v engine.Value) engine.Op {
	return engine.Op{Register: register, Kind: engine.OpPut, Field: field, Value: v}
}

// Remove is an op that removes one field.
func Remove(register, field string) engine.Op {
	return engine.Op{Register: register, Kind: engine.OpRemove, Field: field}
}

// Delete is an op that deletes a register.
func Delete(register string) engine.Op { return engine.Op{Register: register, Kind: engine.OpDelete} }

// Only is an op that removes all fields but some.
func Only(register string, fields ...string) engine.Op {
	return engine.Op{Register: register, Kind: engine.OpOnly, Fields: fields}
}

func (s *suite) write(ops ...engine.Op) engine.Receipt {
	s.Helper()
	r, err := s.WriteState(s.ctx, engine.Write{Ops: ops})
	if err != nil {
		s.Fatalf("write: %v", err)
	}
	return r
}

func (s *suite) read(register string) engine.StateBlock {
	s.Helper()
	b, err := s.ReadState(s.ctx, register)
	if err != nil {
		s.Fatalf("read of %s: %v", register, err)
	}
	return b
}

func (s *suite) cursor() engine.Cursor {
	s.Helper()
	c, err := s.Cursor(s.ctx)
	if err != nil {
		s.Fatalf("cursor: %v", err)
	}
	return c
}

// want checks what a register has, written as JSON; "" if it does not exist.
func (s *suite) want(register, want string) {
	s.Helper()
	if got := s.read(register); got.Value.String() != want || got.Exists != (want != "") {
		s.Errorf("%s: got %s (exists: %v), want %s", register, got.Value, got.Exists, want)
	}
}

// first gives the first n items of a sequence.
func first[T any](s *suite, n int, seq iter.Seq2[T, error]) []T {
	s.Helper()
	var out []T
	if n == 0 {
		return nil
	}
	for item, err := range seq {
		if err != nil {
			s.Fatalf("after %d of %d items: %v", len(out), n, err)
		}
		if out = append(out, item); len(out) == n {
			return out
		}
	}
	s.Fatalf("got %d items, want %d", len(out), n)
	return nil
}

// all gives all items of a sequence that ends.
func all[T any](s *suite, seq iter.Seq2[T, error]) []T {
	s.Helper()
	var out []T
	for item, err := range seq {
		if err != nil {
			s.Fatalf("after %d items: %v", len(out), err)
		}
		out = append(out, item)
	}
	return out
}

// failure gives the error that a sequence ends with.
func failure[T any](seq iter.Seq2[T, error]) error {
	for _, err := range seq {
		if err != nil {
			return err
		}
	}
	return nil
}

func neverWritten(s *suite) {
	b := s.read("site/berlin/oven-3")
	if b.Exists || !b.Value.IsAbsent() || !b.ID.IsZero() || b.Register != "site/berlin/oven-3" {
		s.Errorf("got %+v", b)
	}
	if got := all(s, s.List(s.ctx, "", "", 0)); len(got) != 0 {
		s.Errorf("list: got %v", got)
	}
	if got := all(s, s.History(s.ctx, engine.HistoryQuery{Register: "site/berlin/oven-3"})); len(got) != 0 {
		s.Errorf("history: got %v", got)
	}
}

func writeThenRead(s *suite) {
	before := s.cursor()
	r := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.String("two")))
	if r.Dot.IsZero() || r.Time == 0 || len(r.States) != 1 {
		s.Errorf("receipt: got %+v", r)
	}
	if r.Cursor.Log != before.Log || r.Cursor.Ordinal <= before.Ordinal || s.cursor() != r.Cursor {
		s.Errorf("cursors: got %v before, %v of the receipt, %v after", before, r.Cursor, s.cursor())
	}
	b := s.read("a")
	if b.Value.String() != `{"x":1,"y":"two"}` || !b.Exists || b.Ordinal != r.Cursor.Ordinal || b.Time != r.Time {
		s.Errorf("got %+v", b)
	}
	if len(r.States) == 1 && (r.States[0].ID != b.ID || !r.States[0].Value.Equal(b.Value)) {
		s.Errorf("receipt: got %+v, want %+v", r.States[0], b)
	}
	again := s.write(Put("a", "x", lattice.Int(2)))
	if again.States[0].ID == b.ID || again.States[0].ID.Rank <= b.ID.Rank {
		s.Errorf("state ids: got %s after %s", again.States[0].ID, b.ID)
	}
	if again.Time <= r.Time || again.Dot == r.Dot {
		s.Errorf("second write: got %v %v after %v %v", again.Time, again.Dot, r.Time, r.Dot)
	}
	s.want("a", `{"x":2,"y":"two"}`)
}

// Values are some of every kind, with edges.
func Values() []engine.Value {
	numbers := []string{"0", "-1", "9007199254740993", "-9223372036854775808", "9223372036854775807", "21.5", "0.1", "-0.30000000000000004", "1e-20",
		"12345678901234567890.123456789", "1e400", "9223372036854775808"}
	values := []engine.Value{
		lattice.Bool(true), lattice.Bool(false),
		lattice.String(""), lattice.String("é\u2028\x00\"\\\n😀"), lattice.String(strings.Repeat("x", 60000)),
		lattice.Bytes(nil), lattice.Bytes([]byte{0, 1, 0xff, '\n'}), lattice.Bytes([]byte(strings.Repeat("\xff", 30000))),
		lattice.List(), lattice.List(lattice.Null(), lattice.Int(1), lattice.List(lattice.String("a"))),
		lattice.Object(), lattice.Object(lattice.Member{Name: "$set", Value: lattice.Int(1)}, lattice.Member{Name: "", Value: lattice.Bytes([]byte("b"))}),
		lattice.Object(lattice.Member{Name: "$$bytes", Value: lattice.Set(lattice.Int(1))}),
		lattice.Set(), lattice.Set(lattice.String("b"), lattice.Int(3), lattice.Bytes([]byte{0})),
	}
	for _, text := range numbers {
		v, err := lattice.ParseNumber(text)
		if err != nil {
			panic(err)
		}
		values = append(values, v)
	}
	return values
}

func everyKind(s *suite) {
	from := s.cursor()
	for i, v := range Values() {
		name := fmt.Sprintf("v/%03d", i)
		s.write(Put(name, "field", v))
		if got, _ := s.read(name).Value.Member("field"); !got.Equal(v) {
			s.Errorf("%s: read %.100s, want %.100s", v.Kind(), got, v)
		}
		if v.Kind() == lattice.ObjectKind {
			continue
		}
		s.write(Put("one/"+name, "", v))
		if got := s.read("one/" + name).Value; !got.Equal(v) {
			s.Errorf("%s as the one value: read %.100s, want %.100s", v.Kind(), got, v)
		}
	}
	deltas := s.Observe(s.ctx, engine.Filter{Prefix: "v/"}, from)
	for i, d := range first(s, len(Values()), deltas) {
		if want := Values()[i]; len(d.Changed) != 1 || !d.Changed[0].After.Equal(want) || !d.Changed[0].Before.IsAbsent() {
			s.Errorf("%s: observed %.100v, want %.100s", want.Kind(), d.Changed, want)
		}
	}
}

func fieldsStay(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	s.write(Put("a", "x", lattice.Int(3)))
	s.want("a", `{"x":3,"y":2}`)
	s.write(Remove("a", "x"))
	s.want("a", `{"y":2}`)
	s.write(Remove("a", "y"))
	s.want("a", `{}`) // it exists, with nothing in it
}

func only(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)), Put("a", "z", lattice.Int(3)))
	s.write(Only("a", "x", "new"), Put("a", "new", lattice.Int(4)))
	s.want("a", `{"new":4,"x":1}`)
	s.write(Only("a"))
	s.want("a", `{}`)
	s.write(Only("b"))
	s.want("b", `{}`)
}

func removeNothing(s *suite) {
	for _, op := range []engine.Op{Remove("a", "x"), Delete("a")} {
		if r := s.write(op); !r.Dot.IsZero() || len(r.States) != 1 || r.States[0].Exists {
			s.Errorf("on nothing: got %+v", r)
		}
	}
	before := s.write(Put("a", "x", lattice.Int(1)))
	r := s.write(Remove("a", "y"))
	if !r.Dot.IsZero() || len(r.States) != 1 || r.States[0].ID != before.States[0].ID {
		s.Errorf("of a field that is not there: got %+v", r)
	}
	if got := s.cursor(); got != before.Cursor {
		s.Errorf("cursor: got %v, want %v", got, before.Cursor)
	}
	if got := all(s, s.History(s.ctx, engine.HistoryQuery{Register: "a"})); len(got) != 1 {
		s.Errorf("history: got %d entries, want 1", len(got))
	}
}

func equalValue(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)))
	r := s.write(Put("a", "x", lattice.Int(1)))
	if r.Dot.IsZero() {
		s.Error("got no candidate")
	}
	h := all(s, s.History(s.ctx, engine.HistoryQuery{Register: "a"}))
	if len(h) != 2 || len(h[0].Changed) != 0 || h[0].Created || h[0].Before != h[1].After.ID {
		s.Errorf("history: got %+v", h)
	}
}

func deleteAndReturn(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	r := s.write(Delete("a"))
	if len(r.States) != 1 || r.States[0].Exists || r.States[0].ID.IsZero() {
		s.Errorf("receipt: got %+v", r)
	}
	s.want("a", "")
	if got := all(s, s.List(s.ctx, "", "", 0)); len(got) != 0 {
		s.Errorf("list: got %v", got)
	}
	if r := s.write(Put("a", "z", lattice.Int(3)), Put("b", "z", lattice.Int(3))); len(r.Created) != 2 || r.Created[0] != "a" {
		s.Errorf("receipt: created %q", r.Created)
	}
	s.want("a", `{"z":3}`)
	if r := s.write(Delete("a"), Put("a", "w", lattice.Int(4))); len(r.Created) != 0 {
		s.Errorf("receipt: created %q", r.Created)
	}
	s.want("a", `{"w":4}`)
	h := all(s, s.History(s.ctx, engine.HistoryQuery{Register: "a", Oldest: true}))
	if len(h) != 4 {
		s.Fatalf("history: got %d entries, want 4", len(h))
	}
	if !h[0].Created || !h[1].Deleted || !h[2].Created || h[3].Created || h[3].Deleted {
		s.Errorf("history: got %+v", h)
	}
	if len(h[1].Changed) != 2 || h[1].Changed[0].Before.Int() != 1 || !h[1].Changed[1].After.IsAbsent() {
		s.Errorf("the delete changed %+v", h[1].Changed)
	}
}

func oneValueOrFields(s *suite) {
	s.write(Put("one", "", lattice.Int(1)))
	s.want("one", "1")
	s.write(Put("many", "x", lattice.Int(1)))
	for _, op := range []engine.Op{Put("one", "x", lattice.Int(1)), Put("many", "", lattice.Int(1))} {
		if _, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{op}}); !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("%s %q: got %v, want ErrInvalid", op.Register, op.Field, err)
		}
	}
	s.write(Remove("one", ""), Put("one", "x", lattice.Int(2)))
	s.want("one", `{"x":2}`)
	s.write(Delete("many"), Put("many", "", lattice.Int(3)))
	s.want("many", "3")
	s.write(Delete("many"))
	s.write(Put("many", "y", lattice.Int(4)))
	s.want("many", `{"y":4}`)
}

func batch(s *suite) {
	from := s.cursor()
	r := s.write(Put("b", "x", lattice.Int(1)), Put("a", "x", lattice.Int(2)), Put("b", "y", lattice.Int(3)), Remove("c", "x"))
	if len(r.States) != 3 || r.States[0].Register != "b" || r.States[1].Register != "a" || r.States[2].Register != "c" || r.States[2].Exists {
		s.Errorf("states: got %+v", r.States)
	}
	deltas := first(s, 2, s.Observe(s.ctx, engine.Filter{}, from))
	for i, d := range deltas {
		if d.Part != i || d.Of != 2 || d.Cursor != r.Cursor || d.Dot != r.Dot || d.After.Register != r.States[i].Register {
			s.Errorf("part %d: got %+v", i, d)
		}
	}
	bad := engine.Write{Ops: []engine.Op{Put("d", "x", lattice.Int(1)), Put("", "x", lattice.Int(1))}}
	if _, err := s.WriteState(s.ctx, bad); !errors.Is(err, engine.ErrInvalid) {
		s.Errorf("a bad part: got %v, want ErrInvalid", err)
	}
	s.want("d", "")
}

func opsInOrder(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)), Put("a", "x", lattice.Int(2)))
	s.want("a", `{"x":2}`)
	s.write(Put("a", "y", lattice.Int(3)), Remove("a", "y"), Remove("a", "x"))
	s.want("a", `{}`)
	s.write(Put("b", "x", lattice.Int(1)), Delete("b"))
	s.want("b", "")
	s.write(Put("b", "y", lattice.Int(1)), Only("b", "z"), Put("b", "z", lattice.Int(2)))
	s.want("b", `{"z":2}`)
}

func preconditions(s *suite) {
	yes, no := true, false
	r := s.write(Put("a", "x", lattice.Int(1)))
	now := r.States[0].ID
	old := engine.StateID{Rank: 77}
	put := []engine.Op{Put("b", "x", lattice.Int(1))}
	tests := []struct {
		name string
		If   engine.Precondition
		ok   bool
	}{
		{"match", engine.Precondition{Register: "a", Match: []engine.StateID{old, now}}, true},
		{"no match", engine.Precondition{Register: "a", Match: []engine.StateID{old}}, false},
		{"match on nothing", engine.Precondition{Register: "never", Match: []engine.StateID{now}}, false},
		{"never written", engine.Precondition{Register: "never", Match: []engine.StateID{{}}}, true},
		{"differ", engine.Precondition{Register: "a", Differ: []engine.StateID{old}}, true},
		{"no differ", engine.Precondition{Register: "a", Differ: []engine.StateID{now}}, false},
		{"exists", engine.Precondition{Register: "a", Exists: &yes}, true},
		{"does not exist", engine.Precondition{Register: "never", Exists: &yes}, false},
		{"must not exist", engine.Precondition{Register: "a", Exists: &no}, false},
		{"must not and does not", engine.Precondition{Register: "never", Exists: &no}, true},
	}
	for _, test := range tests {
		_, err := s.WriteState(s.ctx, engine.Write{Ops: put, If: []engine.Precondition{test.If}})
		if test.ok && err != nil || !test.ok && !errors.Is(err, engine.ErrConflict) {
			s.Errorf("%s: got %v, want success: %v", test.name, err, test.ok)
		}
	}
}

func compareAndSet(s *suite) {
	const writers, each = 4, 10
	s.write(Put("n", "", lattice.Int(0)))
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				b, err := s.ReadState(s.ctx, "n")
				if err != nil {
					s.Error(err)
					return
				}
				_, err = s.WriteState(s.ctx, engine.Write{
					Ops: []engine.Op{Put("n", "", lattice.Int(b.Value.Int()+1))},
					If:  []engine.Precondition{{Register: "n", Match: []engine.StateID{b.ID}}},
				})
				if err == nil {
					done++
				} else if !errors.Is(err, engine.ErrConflict) {
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.want("n", fmt.Sprint(writers*each))
}

func names(blocks []engine.StateBlock) string {
	var out []string
	for _, b := range blocks {
		out = append(out, b.Register)
	}
	return strings.Join(out, " ")
}

func list(s *suite) {
	for _, name := range []string{"b", "a/2", "a/1", "a", "ab", "a/10", "c/deleted"} {
		s.write(Put(name, "x", lattice.Int(1)))
	}
	s.write(Delete("c/deleted"))
	tests := []struct {
		prefix, after string
		limit         int
		want          string
	}{
		{"", "", 0, "a a/1 a/10 a/2 ab b"},
		{"a/", "", 0, "a/1 a/10 a/2"},
		{"a/", "a/1", 0, "a/10 a/2"},
		{"a/", "a/1", 1, "a/10"},
		{"", "a/2", 0, "ab b"},
		{"", "a/15", 0, "a/2 ab b"},
		{"b", "a", 0, "b"},
		{"a/", "b", 0, ""},
		{"c", "", 0, ""},
		{"", "", 2, "a a/1"},
	}
	for _, test := range tests {
		if got := names(all(s, s.List(s.ctx, test.prefix, test.after, test.limit))); got != test.want {
			s.Errorf("prefix %q after %q limit %d: got %s, want %s", test.prefix, test.after, test.limit, got, test.want)
		}
	}
	var many []engine.Op
	for i := range 700 {
		many = append(many, Put(fmt.Sprintf("many/%04d", i), "", lattice.Int(int64(i))))
	}
	s.write(many...)
	got := all(s, s.List(s.ctx, "many/", "", 0))
	if len(got) != 700 || got[699].Value.Int() != 699 {
		s.Errorf("of 700: got %d", len(got))
	}
}

func history(s *suite) {
	by := engine.Cause{Principal: "ann", Verified: true, Protocol: "http", Wrapper: "api", Peer: "127.0.0.1:1", Verb: "put", Server: "s", Address: "/v1/a?é", Source: "x.hcl:3"}
	var receipts []engine.Receipt
	for i := range 300 {
		r, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(int64(i)))}, By: by})
		if err != nil {
			s.Fatal(err)
		}
		receipts = append(receipts, r)
		if i%100 == 0 {
			s.write(Put("a/b", "x", lattice.Int(1)), Put("A", "x", lattice.Int(1)))
		}
	}
	h := all(s, s.History(s.ctx, engine.HistoryQuery{Register: "a", Limit: 1000}))
	if len(h) != 300 {
		s.Fatalf("got %d entries, want 300", len(h))
	}
	for i, d := range h {
		r := receipts[299-i]
		if d.Cursor != r.Cursor || d.Dot != r.Dot || d.Cause != by || d.After.ID != r.States[0].ID || d.After.Time != r.Time ||
			d.After.Ordinal != r.Cursor.Ordinal || d.Created != (i == 299) || !d.After.Value.Equal(r.States[0].Value) {
			s.Fatalf("entry %d: got %+v, want that of %+v", i, d, r)
		}
		if i < 299 && (d.Before != h[i+1].After.ID || len(d.Changed) != 1 || d.Changed[0].Field != "x" || d.Changed[0].Before.Int() != int64(298-i) || d.Changed[0].After.Int() != int64(299-i)) {
			s.Fatalf("entry %d: got %+v", i, d)
		}
	}
	tests := []struct {
		q           engine.HistoryQuery
		first, last int64
		n           int
	}{
		{engine.HistoryQuery{}, 299, 200, 100},
		{engine.HistoryQuery{Limit: 3}, 299, 297, 3},
		{engine.HistoryQuery{Before: receipts[10].Cursor.Ordinal}, 9, 0, 10},
		{engine.HistoryQuery{After: receipts[295].Cursor.Ordinal}, 299, 296, 4},
		{engine.HistoryQuery{After: receipts[295].Cursor.Ordinal, Oldest: true, Limit: 2}, 296, 297, 2},
		{engine.HistoryQuery{After: receipts[5].Cursor.Ordinal, Before: receipts[9].Cursor.Ordinal}, 8, 6, 3},
		{engine.HistoryQuery{Oldest: true, Limit: 290}, 0, 289, 290},
	}
	for _, test := range tests {
		test.q.Register = "a"
		h := all(s, s.History(s.ctx, test.q))
		if len(h) != test.n || h[0].Changed[0].After.Int() != test.first || h[len(h)-1].Changed[0].After.Int() != test.last {
			s.Errorf("%+v: got %d entries, want %d from %d to %d", test.q, len(h), test.n, test.first, test.last)
		}
	}
}

func refused(s *suite) {
	for name, op := range map[string]engine.Op{
		"no name":             Put("", "x", lattice.Int(1)),
		"leading slash":       Put("/a", "x", lattice.Int(1)),
		"trailing slash":      Put("a/", "x", lattice.Int(1)),
		"empty segment":       Put("a//b", "x", lattice.Int(1)),
		"control character":   Put("a\nb", "x", lattice.Int(1)),
		"zero byte":           Put("a\x00b", "x", lattice.Int(1)),
		"reserved":            Put("_rules/a", "x", lattice.Int(1)),
		"null":                Put("a", "x", lattice.Null()),
		"absent":              Put("a", "x", engine.Value{}),
		"object as value":     Put("a", "", lattice.Object()),
		"no kind":             {Register: "a", Field: "x"},
		"unknown kind":        {Register: "a", Kind: 99, Field: "x"},
		"remove without name": Remove("", "x"),
	} {
		if r, err := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{op}}); !errors.Is(err, engine.ErrInvalid) {
			s.Errorf("%s: got %+v, %v; want ErrInvalid", name, r, err)
		}
	}
	if _, err := s.WriteState(s.ctx, engine.Write{}); !errors.Is(err, engine.ErrInvalid) {
		s.Errorf("nothing: got %v, want ErrInvalid", err)
	}
	if _, err := s.ReadState(s.ctx, "a//b"); !errors.Is(err, engine.ErrInvalid) {
		s.Errorf("read of a bad name: got %v, want ErrInvalid", err)
	}
	if err := failure(s.History(s.ctx, engine.HistoryQuery{Register: ""})); !errors.Is(err, engine.ErrInvalid) {
		s.Errorf("history of a bad name: got %v, want ErrInvalid", err)
	}
	if got := all(s, s.List(s.ctx, "", "", 0)); len(got) != 0 {
		s.Errorf("list: got %v", got)
	}
}

func limits(s *suite) {
	var ops []engine.Op
	for i := range engine.MaxOps + 1 {
		ops = append(ops, Put(fmt.Sprintf("n/%d", i), "x", lattice.Int(1)))
	}
	var large []engine.Op
	for i := range 5 {
		large = append(large, Put("l", fmt.Sprint(i), lattice.String(strings.Repeat("x", engine.MaxValue))))
	}
	for name, ops := range map[string][]engine.Op{
		"name":       {Put(strings.Repeat("n", engine.MaxName+1), "x", lattice.Int(1))},
		"field":      {Put("a", strings.Repeat("n", engine.MaxField+1), lattice.Int(1))},
		"string":     {Put("a", "x", lattice.String(strings.Repeat("x", engine.MaxValue+1)))},
		"operations": ops,
		"candidate":  large,
	} {
		if _, err := s.WriteState(s.ctx, engine.Write{Ops: ops}); !errors.Is(err, engine.ErrTooLarge) {
			s.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
	s.write(ops[:engine.MaxOps]...)
	s.write(Put(strings.Repeat("n", engine.MaxName), strings.Repeat("f", engine.MaxField), lattice.Int(1)))
	s.write(Put("a", "x", lattice.String(strings.Repeat("x", engine.MaxValue))))
	if got := s.read("a").Value.String(); len(got) < engine.MaxValue {
		s.Errorf("the largest value: got %d bytes", len(got))
	}
}

func ended(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)))
	ctx, cancel := context.WithCancel(s.ctx)
	at := s.cursor()
	done := make(chan error)
	go func() { done <- failure(s.Observe(ctx, engine.Filter{}, at)) }()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			s.Errorf("observe: got %v, want Canceled", err)
		}
	case <-s.ctx.Done():
		s.Fatal("observe goes on")
	}
	if _, err := s.WriteState(ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(2))}}); !errors.Is(err, context.Canceled) {
		s.Errorf("write: got %v, want Canceled", err)
	}
	if _, err := s.ReadState(ctx, "a"); !errors.Is(err, context.Canceled) {
		s.Errorf("read: got %v, want Canceled", err)
	}
	if err := failure(s.List(ctx, "", "", 0)); !errors.Is(err, context.Canceled) {
		s.Errorf("list: got %v, want Canceled", err)
	}
	if err := failure(s.History(ctx, engine.HistoryQuery{Register: "a"})); !errors.Is(err, context.Canceled) {
		s.Errorf("history: got %v, want Canceled", err)
	}
}

func status(s *suite) {
	before, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	s.write(Put("a", "x", lattice.Int(1)), Put("b", "x", lattice.Int(1)))
	s.write(Delete("a"))
	r := s.write(Put("b", "x", lattice.Int(2)))
	after, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	if after.Registers != before.Registers+1 || after.Candidates != before.Candidates+3 || after.Cursor != r.Cursor || after.Fsyncs < before.Fsyncs+3 {
		s.Errorf("got %+v after %+v", after, before)
	}
	if after.Endpoint != before.Endpoint || (after.Endpoint == engine.EndpointID{}) || after.Incarnation == "" || after.Full || after.Started.IsZero() {
		s.Errorf("got %+v", after)
	}
}

func closed(s *suite) {
	s.write(Put("a", "x", lattice.Int(1)))
	at := s.cursor()
	done := make(chan error)
	observing := make(chan struct{})
	go func() {
		close(observing)
		done <- failure(s.Observe(s.ctx, engine.Filter{}, at))
	}()
	<-observing
	if err := s.Close(); err != nil {
		s.Fatal(err)
	}
	select {
	case err := <-done:
		if !errors.Is(err, engine.ErrClosed) {
			s.Errorf("observe: got %v, want ErrClosed", err)
		}
	case <-s.ctx.Done():
		s.Fatal("observe goes on")
	}
	_, read := s.ReadState(s.ctx, "a")
	_, write := s.WriteState(s.ctx, engine.Write{Ops: []engine.Op{Put("a", "x", lattice.Int(2))}})
	_, cursor := s.Cursor(s.ctx)
	_, status := s.Status(s.ctx)
	for name, err := range map[string]error{
		"read": read, "write": write, "cursor": cursor, "status": status,
		"list":    failure(s.List(s.ctx, "", "", 0)),
		"history": failure(s.History(s.ctx, engine.HistoryQuery{Register: "a"})),
		"observe": failure(s.Observe(s.ctx, engine.Filter{}, at)),
	} {
		if !errors.Is(err, engine.ErrClosed) {
			s.Errorf("%s: got %v, want ErrClosed", name, err)
		}
	}
}
