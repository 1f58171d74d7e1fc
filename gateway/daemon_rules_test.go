package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// ruled is an engine that says of rules what a test wants, whatever is in it.
type ruled struct {
	engine.State
	waits    []engine.Pending
	explains engine.Explanation
	was      engine.StateBlock
	asked    []string
	fails    error
}

func (r *ruled) Pending(_ context.Context, q engine.PendingQuery) iter.Seq2[engine.Pending, error] {
	return func(yield func(engine.Pending, error) bool) {
		for i, p := range r.waits {
			if i >= q.Limit || strings.HasPrefix(p.Register, q.Prefix) && !yield(p, nil) {
				return
			}
		}
		if r.fails != nil {
			yield(engine.Pending{}, r.fails)
		}
	}
}

func (r *ruled) Collapse(_ context.Context, register string, by engine.Cause) (engine.Receipt, error) {
	r.asked = append(r.asked, fmt.Sprint("collapse ", register, " by ", by.Principal, " ", by.Verb))
	return engine.Receipt{Dot: engine.Dot{Seq: 1}, States: []engine.StateBlock{r.was}}, r.fails
}

func (r *ruled) StateAt(_ context.Context, register string, at engine.Moment) (engine.StateBlock, error) {
	r.asked = append(r.asked, fmt.Sprint("at ", register, " ", at))
	return r.was, r.fails
}

func (r *ruled) Revert(_ context.Context, register string, to engine.Moment, by engine.Cause) (engine.Receipt, error) {
	r.asked = append(r.asked, fmt.Sprint("revert ", register, " ", to, " by ", by.Principal))
	return engine.Receipt{States: []engine.StateBlock{r.was}}, r.fails
}

func (r *ruled) Explain(context.Context, string) (engine.Explanation, error) {
	return r.explains, r.fails
}

func (r *ruled) Backup(_ context.Context, dir string) (engine.BackupInfo, error) {
	return engine.BackupInfo{Dir: dir, Cursor: engine.Cursor{Log: 1, Ordinal: 2}, Time: time.Unix(5, 0).UTC(), Bytes: 7}, r.fails
}

func dialRuled(t *testing.T, r *ruled) *daemonclient.Client {
	t.Helper()
	e, err := engine.Open(engine.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r.State = e
	c, err := daemonclient.Dial(t.Context(), doorTo(t, r, e))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func waiting(register string, seq uint64, would engine.Value) engine.Pending {
	return engine.Pending{
		Register: register, Dot: engine.Dot{Origin: engine.OriginID{1}, Seq: seq}, Time: engine.Stamp(seq), Mode: engine.CommitMode{Manual: true},
		Would: []engine.FieldChange{{Field: "x", After: would}},
	}
}

func TestPendingInPages(t *testing.T) {
	r := &ruled{}
	for i := range 2500 {
		r.waits = append(r.waits, waiting(fmt.Sprintf("r/%04d", i/7), uint64(i+1), number(i)))
	}
	c := dialRuled(t, r)
	var got []engine.Pending
	for p, err := range c.Pending(t.Context(), engine.PendingQuery{Limit: 1 << 30}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p)
	}
	if diff := cmp.Diff(r.waits, got); diff != "" {
		t.Errorf("(-want +got)\n%.2000s", diff)
	}
	for q, want := range map[engine.PendingQuery]int{{}: 100, {Limit: 1001}: 1001, {Prefix: "r/0001"}: 7, {Prefix: "none"}: 0} {
		n := 0
		for _, err := range c.Pending(t.Context(), q) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != want {
			t.Errorf("%+v: got %d, want %d", q, n, want)
		}
	}
	// What the last page ended with is settled before the next one is asked for.
	n := 0
	for p, err := range c.Pending(t.Context(), engine.PendingQuery{Limit: 1 << 30}) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == 1000 {
			r.waits = append([]engine.Pending{waiting(p.Register, 9000, number(1))}, r.waits[1001:]...)
		}
		if n == 1001 && p.Dot.Seq != 9000 {
			t.Errorf("after the page: got %v, want what is new on the register", p.Dot)
		}
	}
	r.fails = engine.ErrFull
	last := error(nil)
	for _, err := range c.Pending(t.Context(), engine.PendingQuery{Prefix: "none"}) {
		last = err
	}
	if !errors.Is(last, engine.ErrFull) {
		t.Errorf("got %v, want ErrFull", last)
	}
}

func TestTooMuchWaits(t *testing.T) {
	r := &ruled{waits: []engine.Pending{waiting("a", 1, longText(200000)), waiting("b", 2, number(1))}}
	c := dialRuled(t, r)
	var got []string
	for p, err := range c.Pending(t.Context(), engine.PendingQuery{}) {
		got = append(got, fmt.Sprint(p.Register, " ", isTooLarge(err)))
	}
	if text := strings.Join(got, ", "); text != "a true, b false" {
		t.Errorf("got %s", text)
	}
	r.explains.Declaration = "site/{a}"
	r.explains.Fields = []engine.FieldExplanation{{Field: "x", Value: longText(200000), Entries: []engine.LiveEntry{{Dot: engine.Dot{Seq: 1}, Wins: true}}}}
	if x, err := c.Explain(t.Context(), "a"); !isTooLarge(err) || x.Declaration != "site/{a}" || len(x.Fields) != 1 || len(x.Fields[0].Entries) != 1 {
		t.Errorf("explain: got %+v, %v", x, err)
	}
}

func TestRulesOverSocket(t *testing.T) {
	r := &ruled{was: engine.StateBlock{Register: "a", Exists: true, Value: lattice.Object(lattice.Member{Name: "x", Value: number(1)})}}
	c := dialRuled(t, r)
	by := engine.Cause{Principal: "ann", Verb: "collapse"}
	if got, err := c.Collapse(t.Context(), "a", by); err != nil || got.Dot.Seq != 1 || !got.States[0].Value.Equal(r.was.Value) {
		t.Errorf("collapse: got %+v, %v", got, err)
	}
	if got, err := c.StateAt(t.Context(), "a", engine.Moment{Ordinal: 5}); err != nil || got.Register != "a" {
		t.Errorf("stateAt: got %+v, %v", got, err)
	}
	if _, err := c.Revert(t.Context(), "a", engine.Moment{ID: engine.StateID{Rank: 3}}, by); err != nil {
		t.Errorf("revert: %v", err)
	}
	if b, err := c.Backup(t.Context(), "/b/../c"); err != nil || b.Dir != "/c" || b.Bytes != 7 || b.Cursor.Ordinal != 2 {
		t.Errorf("backup: got %+v, %v", b, err)
	}
	zero := engine.Moment{}
	id := engine.Moment{ID: engine.StateID{Rank: 3}}
	want := []string{"collapse a by ann collapse", fmt.Sprint("at a ", engine.Moment{Ordinal: 5}), fmt.Sprint("at a ", id), fmt.Sprint("revert a ", id, " by ann")}
	if diff := cmp.Diff(want, r.asked); diff != "" {
		t.Errorf("asked (-want +got)\n%s", diff)
	}
	if _, err := c.StateAt(t.Context(), "a", zero); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("no moment: got %v, want ErrInvalid", err)
	}
	for _, dir := range []string{"", "b", "./b"} {
		if _, err := c.Backup(t.Context(), dir); err == nil {
			t.Errorf("backup to %q: no error", dir)
		}
	}
	for _, kind := range []error{engine.ErrDenied, engine.ErrNotFound, engine.ErrConflict} {
		r.fails = kind
		if _, err := c.Collapse(t.Context(), "a", by); !errors.Is(err, kind) {
			t.Errorf("collapse: got %v, want %v", err, kind)
		}
		if _, _, err := c.ExplainTold(t.Context(), "a"); !errors.Is(err, kind) {
			t.Errorf("explain: got %v, want %v", err, kind)
		}
	}
}

func TestShortValue(t *testing.T) {
	for want, s := range map[string]wire.State{
		"nothing, 1 waiting":           {Waiting: 1},
		"gone":                         {ID: "1.0"},
		"5":                            {Exists: true, Value: []byte("5")},
		"5, 2 waiting":                 {Exists: true, Value: []byte("5"), Waiting: 2},
		strings.Repeat("1", 200) + "…": {Exists: true, Value: []byte(strings.Repeat("1", 300))},
	} {
		if got := shortValue(s); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
