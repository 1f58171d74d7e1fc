package enginetest

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func (s *suite) at(register string, m engine.Moment) engine.StateBlock {
	s.Helper()
	b, err := s.StateAt(s.ctx, register, m)
	if err != nil {
		s.Fatalf("%s at %+v: %v", register, m, err)
	}
	return b
}

func stateAt(s *rulesSuite) {
	before := s.write(Put("other", "x", lattice.Int(0)))
	var receipts []engine.Receipt
	for i := range 5 {
		receipts = append(receipts, s.write(Put("a", "x", lattice.Int(int64(i)))))
		s.write(Put("other", "x", lattice.Int(int64(i))))
	}
	gone := s.write(Delete("a"))
	for i, r := range receipts {
		want := fmt.Sprintf(`{"x":%d}`, i)
		for name, m := range map[string]engine.Moment{
			"ordinal": {Ordinal: r.Cursor.Ordinal}, "a commit of another": {Ordinal: r.Cursor.Ordinal + 1}, "id": {ID: r.States[0].ID},
		} {
			if b := s.at("a", m); b.Value.String() != want || !b.Exists || b.ID != r.States[0].ID || b.Ordinal != r.Cursor.Ordinal || b.Time != r.Time {
				s.Errorf("%s %d: got %+v, want %s", name, i, b, want)
			}
		}
		// Of the commits of one millisecond, which is all that a clock on the wall tells, the newest.
		newest := r
		for _, later := range append(slices.Clone(receipts[i:]), gone) {
			if later.Time.Time().Equal(r.Time.Time()) {
				newest = later
			}
		}
		if b := s.at("a", engine.Moment{Time: r.Time.Time()}); b.ID != newest.States[0].ID {
			s.Errorf("time %d: got %+v, want %s", i, b, newest.States[0].ID)
		}
	}
	for name, m := range map[string]engine.Moment{
		"ordinal": {Ordinal: gone.Cursor.Ordinal}, "far ahead": {Ordinal: gone.Cursor.Ordinal + 1000}, "id": {ID: gone.States[0].ID}, "now": {Time: time.Now().Add(time.Hour)},
	} {
		if b := s.at("a", m); b.Exists || b.ID != gone.States[0].ID {
			s.Errorf("deleted, %s: got %+v", name, b)
		}
	}
	for name, m := range map[string]engine.Moment{"before it was": {Ordinal: before.Cursor.Ordinal}, "long ago": {Time: time.Unix(1, 0)}} {
		if b := s.at("a", m); b.Exists || !b.ID.IsZero() || b.Register != "a" {
			s.Errorf("%s: got %+v, want that of a register never written", name, b)
		}
	}
	for name, id := range map[string]engine.StateID{"another's": before.States[0].ID, "nobody's": {Rank: 99}} {
		if b, err := s.StateAt(s.ctx, "a", engine.Moment{ID: id}); !errors.Is(err, engine.ErrNotFound) {
			s.Errorf("%s id: got %+v, %v; want ErrNotFound", name, b, err)
		}
	}
}

func (s *suite) revert(register string, to engine.Moment, by engine.Cause) engine.Receipt {
	s.Helper()
	r, err := s.Revert(s.ctx, register, to, by)
	if err != nil {
		s.Fatalf("revert of %s: %v", register, err)
	}
	return r
}

func revert(s *rulesSuite) {
	first := s.write(Put("a", "x", lattice.Int(1)), Put("a", "gone", lattice.Int(1)))
	second := s.write(Put("a", "x", lattice.Int(2)), Remove("a", "gone"), Put("a", "new", lattice.Int(1)))
	r := s.revert("a", engine.Moment{ID: first.States[0].ID}, ann)
	s.want("a", `{"gone":1,"x":1}`)
	if r.Dot.IsZero() || r.Cursor.Ordinal <= second.Cursor.Ordinal || len(r.States) != 1 || r.States[0].Value.String() != `{"gone":1,"x":1}` || r.States[0].ID == first.States[0].ID {
		s.Errorf("receipt: got %+v", r)
	}
	h := all(&s.suite, s.History(s.ctx, engine.HistoryQuery{Register: "a"}))
	if len(h) != 3 || h[0].Cause.Principal != "ann" || h[0].Dot != r.Dot || len(h[0].Changed) != 3 {
		s.Errorf("history: got %+v", h)
	}
	s.revert("a", engine.Moment{Ordinal: second.Cursor.Ordinal}, ann)
	s.want("a", `{"new":1,"x":2}`)
	s.write(Put("one", "", lattice.Int(1)))
	at := s.cursor()
	s.write(Put("one", "", lattice.Int(2)))
	s.revert("one", engine.Moment{Ordinal: at.Ordinal}, ann)
	s.want("one", "1")
	if _, err := s.Revert(s.ctx, "a", engine.Moment{ID: engine.StateID{Rank: 99}}, ann); !errors.Is(err, engine.ErrNotFound) {
		s.Errorf("to what never was: got %v, want ErrNotFound", err)
	}
}

func revertByRules(s *rulesSuite) {
	s.declare(Rules("r", map[string]engine.CollapseRule{
		"max": {Kind: lattice.Max, Of: "number"}, "min": {Kind: lattice.Min, Of: "number"}, "sum": rule(lattice.Sum), "union": rule(lattice.Union),
		"first": rule(lattice.First), "ask": rule(lattice.Ask), "priority": {Kind: lattice.Priority, Ranks: []string{"http/api"}},
	}))
	put := func(n int, tags ...string) engine.Receipt {
		v := lattice.Int(int64(n))
		return s.writeAs(api, Put("r/a", "max", v), Put("r/a", "min", lattice.Int(int64(-n))), Put("r/a", "sum", v), Put("r/a", "union", listOf(tags...)),
			Put("r/a", "ask", v), Put("r/a", "priority", v))
	}
	first := put(1, "a", "b")
	s.write(Put("r/a", "first", lattice.Int(7)))
	put(5, "b", "c")
	s.revert("r/a", engine.Moment{ID: first.States[0].ID}, floor)
	b := s.read("r/a")
	if !b.Value.Equal(first.States[0].Value) || len(b.Siblings) != 0 {
		s.Errorf("got %s, want %s", b.Value, first.States[0].Value)
	}
	// What was put back is the beginning of what comes.
	s.write(Put("r/a", "max", lattice.Int(3)), Add("r/a", "sum", lattice.Int(2)), Add("r/a", "union", listOf("z")), Put("r/a", "first", lattice.Int(8)))
	s.wantField("r/a", "max", lattice.Int(3))
	s.wantField("r/a", "sum", lattice.Int(3))
	s.wantField("r/a", "union", setOf("a", "b", "z"))
	s.wantField("r/a", "first", lattice.Int(8))
}

func revertDeleted(s *rulesSuite) {
	was := s.write(Put("a", "x", lattice.Int(1)), Put("a", "y", lattice.Int(2)))
	gone := s.write(Delete("a"))
	s.revert("a", engine.Moment{Ordinal: was.Cursor.Ordinal}, ann)
	s.want("a", `{"x":1,"y":2}`)
	s.revert("a", engine.Moment{Ordinal: gone.Cursor.Ordinal}, ann)
	s.want("a", "")
	s.write(Only("b"))
	empty := s.cursor()
	s.write(Put("b", "x", lattice.Int(1)))
	s.revert("b", engine.Moment{Ordinal: empty.Ordinal}, ann)
	s.want("b", `{}`)
}

func explain(s *rulesSuite) {
	ranks := engine.CollapseRule{Kind: lattice.Priority, Ranks: []string{"http/api"}}
	s.declare(Rules("person", map[string]engine.CollapseRule{"title": ranks}))
	status, err := s.Status(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	best := s.writeAs(api, Put("person/1", "title", lattice.String("Dr")), Put("person/1", "room", lattice.Int(7)))
	other := s.writeAs(ann, Put("person/1", "title", lattice.String("Mx")))
	x, err := s.Explain(s.ctx, "person/1")
	if err != nil {
		s.Fatal(err)
	}
	if b := s.read("person/1"); x.State.ID != b.ID || !x.State.Value.Equal(b.Value) || x.State.Register != "person/1" {
		s.Errorf("state: got %+v, want %+v", x.State, b)
	}
	if x.Declaration != "person/{name}" || x.Source != "test.hcl:1" || x.Mode.Waits() || x.DeleteWins || x.Group != "" || x.Hidden || len(x.Pending) != 0 || len(x.Deleted) != 0 || len(x.Existence) == 0 {
		s.Errorf("got %+v", x)
	}
	if len(x.Fields) != 2 || x.Fields[0].Field != "room" || x.Fields[1].Field != "title" {
		s.Fatalf("fields: got %+v", x.Fields)
	}
	room, title := x.Fields[0], x.Fields[1]
	if !room.Rule.Equal(engine.CollapseRule{}) || !room.Value.Equal(lattice.Int(7)) || len(room.Entries) != 1 || room.Why == "" {
		s.Errorf("room: got %+v", room)
	} else if e := room.Entries[0]; !e.Wins || e.Dot != best.Dot || e.Time != best.Time || e.Cause != api || e.By != "http/api" || e.Node != status.Endpoint || !e.Value.Equal(lattice.Int(7)) {
		s.Errorf("room's entry: got %+v", e)
	}
	if !title.Rule.Equal(ranks) || !title.Value.Equal(lattice.String("Dr")) || len(title.Entries) != 2 || title.Why == "" {
		s.Fatalf("title: got %+v", title)
	}
	for _, e := range title.Entries {
		want := map[engine.Dot]engine.LiveEntry{
			best.Dot:  {By: "http/api", Cause: api, Value: lattice.String("Dr"), Wins: true},
			other.Dot: {By: "ann through mqtt/floor", Cause: ann, Value: lattice.String("Mx")},
		}[e.Dot]
		if e.By != want.By || e.Cause != want.Cause || !e.Value.Equal(want.Value) || e.Wins != want.Wins {
			s.Errorf("title's entry: got %+v, want %+v", e, want)
		}
	}

	s.write(Put("loose", "", lattice.Int(1)))
	if x, err = s.Explain(s.ctx, "loose"); err != nil || x.Declaration != "" || len(x.Fields) != 1 || x.Fields[0].Field != "" || !x.Fields[0].Entries[0].Wins {
		s.Errorf("of what nobody declares: got %+v, %v", x, err)
	}
	s.write(Delete("loose"))
	if x, err = s.Explain(s.ctx, "loose"); err != nil || x.State.Exists || len(x.Existence) != 0 {
		s.Errorf("of what was deleted: got %+v, %v", x, err)
	}
	if x, err = s.Explain(s.ctx, "never"); err != nil || x.State.Exists || !x.State.ID.IsZero() || x.State.Register != "never" || len(x.Fields) != 0 {
		s.Errorf("of what was never written: got %+v, %v", x, err)
	}
}

func backup(s *rulesSuite) {
	r := s.write(Put("a", "x", lattice.Int(1)))
	dir := filepath.Join(s.TempDir(), "backup")
	b, err := s.Backup(s.ctx, dir)
	if err != nil {
		s.Fatal(err)
	}
	if b.Dir != dir || b.Cursor.Log != r.Cursor.Log || b.Cursor.Ordinal < r.Cursor.Ordinal || b.Bytes == 0 || time.Since(b.Time) > patience {
		s.Errorf("got %+v", b)
	}
	if again, err := s.Backup(s.ctx, dir); err == nil {
		s.Errorf("into a directory that is there: got %+v", again)
	}
	s.write(Put("a", "x", lattice.Int(2))) // it goes on
	s.want("a", `{"x":2}`)
}
