package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// comesBack holds a form against what is read from it.
func comesBack[T any](t *testing.T, form any, parse func([]byte) (T, error), want T) {
	t.Helper()
	raw, err := JSON(form)
	if err != nil {
		t.Fatal(err)
	}
	if err := Check(raw, MaxDepth); err != nil {
		t.Error(err)
	}
	got, err := parse(raw)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%T: %v (-want +got)\n%s", want, err, diff)
	}
}

func somePending(mode engine.CommitMode) engine.Pending {
	return engine.Pending{
		Register: "limit/oven", Dot: engine.Dot{Origin: engine.OriginID{1}, Seq: 1<<63 + 1}, Time: 1<<63 + 5, Mode: mode,
		Cause: engine.Cause{Principal: "ann", Verified: true, Protocol: "http", Wrapper: "api"},
		Would: []engine.FieldChange{{Field: "", Before: lattice.Int(1), After: everyValue()}, {Field: "b", Before: lattice.Int(2)}}, Deletes: true,
	}
}

func TestPendingComesBack(t *testing.T) {
	for _, mode := range []engine.CommitMode{{}, {Manual: true}, {Window: 1500 * time.Millisecond}, {Window: 1}, {Window: 1 << 62}} {
		p := somePending(mode)
		comesBack(t, FromPending(p), ParsePending, p)
	}
	raw, _ := JSON(FromPending(somePending(engine.CommitMode{})).WithoutValues())
	if p, err := ParsePending(raw); !errors.Is(err, engine.ErrTooLarge) || p.Register != "limit/oven" || p.Dot.IsZero() {
		t.Errorf("without values: got %+v, %v", p, err)
	}
	if p, err := ParsePending([]byte(`{"register":"a","mode":"soon"}`)); err == nil {
		t.Errorf("an unknown mode: got %+v", p)
	}
}

func someExplanation() engine.Explanation {
	entry := engine.LiveEntry{
		Dot: engine.Dot{Origin: engine.OriginID{7}, Seq: 3}, Time: 1 << 60, By: "ann through http/api",
		Cause: engine.Cause{Principal: "ann", Verified: true, Protocol: "http", Wrapper: "api", Source: "rules.hcl:9"},
		Node:  engine.EndpointID{1, 2, 3}, Value: everyValue(), Wins: true,
	}
	bare := engine.LiveEntry{Dot: engine.Dot{Origin: engine.OriginID{8}, Seq: 1}, By: "mqtt/floor", Value: lattice.Int(1<<53 + 1)}
	return engine.Explanation{
		State:       engine.StateBlock{Register: "peak/boiler", Exists: true, Value: everyValue(), ID: engine.StateID{Rank: 3}, Waiting: 1},
		Declaration: "peak/{meter}", Source: "rules.hcl:7", Mode: engine.CommitMode{Window: time.Second}, DeleteWins: true, Group: "peaks",
		Fields: []engine.FieldExplanation{
			{Field: "", Rule: engine.CollapseRule{Kind: lattice.Max, Of: "number"}, Value: lattice.Int(5), Entries: []engine.LiveEntry{entry, bare}, Why: "because"},
			{Field: "b", Rule: engine.CollapseRule{Kind: lattice.Priority, Ranks: []string{"sql/hr", "user:ann"}}},
			{Field: "c"},
		},
		Existence: []engine.LiveEntry{bare}, Deleted: []engine.LiveEntry{entry},
		Pending: []engine.Pending{somePending(engine.CommitMode{Manual: true})}, Hidden: true,
	}
}

func TestExplanationComesBack(t *testing.T) {
	x := someExplanation()
	comesBack(t, FromExplanation(x), ParseExplanation, x)
	comesBack(t, FromExplanation(engine.Explanation{}), ParseExplanation, engine.Explanation{})
	for kind := lattice.Latest; kind <= lattice.Ask; kind++ {
		x := engine.Explanation{Fields: []engine.FieldExplanation{{Rule: engine.CollapseRule{Kind: kind}}}}
		comesBack(t, FromExplanation(x), ParseExplanation, x)
	}

	small := FromExplanation(x).WithoutValues()
	raw, _ := JSON(small)
	got, err := ParseExplanation(raw)
	if !errors.Is(err, engine.ErrTooLarge) || got.Declaration != x.Declaration || len(got.Fields) != 3 || len(got.Fields[0].Entries) != 1 || strings.Contains(string(raw), "$bytes") {
		t.Errorf("without values: got %+v, %v", got, err)
	}
	if full := FromExplanation(x); len(full.Fields[0].Entries) != 2 || len(full.Fields[0].Value) == 0 {
		t.Error("leaving out changed the whole one")
	}
	for _, bad := range []string{`{"fields":[{"rule":{"kind":"best"}}]}`, `{"fields":[{"entries":[{"dot":"x"}]}]}`, `{"existence":[{"node":"0102"}]}`, `{"mode":"-1s"}`} {
		if x, err := ParseExplanation([]byte(bad)); err == nil {
			t.Errorf("%s: got %+v", bad, x)
		}
	}
}

func TestMoments(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 40, 1, 123456789, time.UTC)
	for _, m := range []engine.Moment{{Time: at}, {ID: engine.StateID{Rank: 1<<60 + 1, Digest: [16]byte{9}}}, {Ordinal: 1<<53 + 1}} {
		comesBack(t, FromMoment(m), ParseMoment, m)
	}
	for _, bad := range []string{`{}`, `null`, `{"ordinal":1,"id":"1.00000000000000000000000000000000"}`, `{"ordinal":-1}`, `{"id":"x"}`, `{"time":"yesterday"}`, `{"time":"2026-11-25T00:00:00Z","ordinal":2}`} {
		if m, err := ParseMoment([]byte(bad)); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%s: got %+v, %v; want ErrInvalid", bad, m, err)
		}
	}
}

func TestBackupAndStatusComeBack(t *testing.T) {
	at := time.Date(2026, 11, 25, 3, 40, 1, 5, time.UTC)
	b := engine.BackupInfo{Dir: "/b/1", Cursor: engine.Cursor{Log: 1<<63 + 1, Ordinal: 9}, Time: at, Bytes: 1 << 40}
	comesBack(t, FromBackup(b), ParseBackup, b)
	s := engine.Status{
		Endpoint: engine.EndpointID{1}, Cursor: engine.Cursor{Log: 5, Ordinal: 6}, Started: at, Root: "abcd", Pending: 1, Held: 2, Floor: 3,
		Findings: []engine.Finding{{Code: "clone", Subject: "31a1", Text: "Two of one. Stop one.", Since: at}},
	}
	comesBack(t, FromStatus(s), func(b []byte) (engine.Status, error) {
		var w EngineStatus
		if err := json.Unmarshal(b, &w); err != nil {
			return engine.Status{}, err
		}
		return ToStatus(w)
	}, s)
}
