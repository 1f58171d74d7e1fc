package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// inUTC shows local times as UTC during a test.
func inUTC(t *testing.T) {
	old := zone
	zone = time.UTC
	t.Cleanup(func() { zone = old })
}

func TestParseMoment(t *testing.T) {
	old := zone
	zone = time.FixedZone("here", 2*3600)
	t.Cleanup(func() { zone = old })
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	id, err := lattice.ParseStateID("17.0123456789abcdef0123456789abcdef")
	if err != nil {
		t.Fatal(err)
	}
	at := func(d time.Duration) moment { return moment{Moment: engine.Moment{Time: now.Add(d)}} }
	for text, want := range map[string]moment{
		"17":                                  {Moment: engine.Moment{Ordinal: 17}},
		"1f.17":                               {Moment: engine.Moment{Ordinal: 17}, log: 31},
		"17.0123456789abcdef0123456789abcdef": {Moment: engine.Moment{ID: id}},
		"-2h":                                 at(-2 * time.Hour),
		"-1h30m":                              at(-90 * time.Minute),
		"2h ago":                              at(-2 * time.Hour),
		" 3d ago ":                            at(-72 * time.Hour),
		"-1w":                                 at(-168 * time.Hour),
		"2026-11-25T11:00:00Z":                at(-time.Hour),
		"2026-11-25T13:00:00.5+02:00":         at(-time.Hour + 500*time.Millisecond),
		"2026-11-25 13:00:00.250":             at(-time.Hour + 250*time.Millisecond),
		"2026-11-25 13:00":                    at(-time.Hour),
		"2026-11-25":                          at(-14 * time.Hour),
	} {
		got, err := parseMoment(text, now)
		if err != nil || !got.Time.Equal(want.Time) || got.ID != want.ID || got.Ordinal != want.Ordinal || got.log != want.log {
			t.Errorf("%q: got %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "0", "-", "-2", "--2h", "-2y", "yesterday", "2h", "1f.", "1f.0", "-99999d", "2026-13-01", "ago", "-1d2h"} {
		if got, err := parseMoment(text, now); err == nil {
			t.Errorf("%q: got %+v, want an error", text, got)
		}
	}
}

func stamp(clock string) engine.Stamp {
	at, err := time.Parse(timeLayout, "2026-11-25 "+clock)
	if err != nil {
		panic(err)
	}
	return lattice.StampOf(at)
}

func decimal(text string) engine.Value {
	v, err := lattice.ParseNumber(text)
	if err != nil {
		panic(err)
	}
	return v
}

func object(name string, v engine.Value) engine.Value {
	return lattice.Object(lattice.Member{Name: name, Value: v})
}

func TestStory(t *testing.T) {
	inUTC(t)
	ann := engine.Cause{
		Principal: "ann", Verified: true, Protocol: "http", Wrapper: "http", Peer: "127.0.0.1:50114", Verb: "put", Address: "/v1/peak/boiler", Source: "rules.hcl:9",
	}
	mqtt := engine.Cause{Protocol: "mqtt", Wrapper: "mqtt", Peer: "127.0.0.1:50102", Verb: "put", Address: "peak/boiler", Source: "rules.hcl:8"}
	here, there := engine.EndpointID{1}, engine.EndpointID{0x31, 0xa1}
	told := time.Date(2026, 11, 25, 3, 40, 1, 4_000_000, time.UTC)
	tests := map[string]struct {
		x    engine.Explanation
		told []daemonclient.Told
		want string
	}{
		"a peak": {
			x: engine.Explanation{
				State:       engine.StateBlock{Register: "peak/boiler", Exists: true, Value: object("value", decimal("98.5")), ID: engine.StateID{Rank: 2}, Ordinal: 7},
				Declaration: "peak/{meter}", Source: "rules.hcl:7",
				Fields: []engine.FieldExplanation{{
					Field: "value", Rule: engine.CollapseRule{Kind: lattice.Max, Of: "number"}, Value: decimal("98.5"), Why: "98.5 is the highest of 2 live candidates",
					Entries: []engine.LiveEntry{
						{Time: stamp("03:40:01.000"), Cause: ann, By: "ann through http/http", Node: here, Value: decimal("98.5"), Wins: true},
						{Time: stamp("03:39:58.000"), Cause: mqtt, By: "mqtt/mqtt", Node: there, Value: lattice.Int(97)},
					},
				}},
				Existence: []engine.LiveEntry{{Time: stamp("03:40:01.000"), By: "ann through http/http", Node: here}},
			},
			told: []daemonclient.Told{
				{Protocol: "http", Wrapper: "api", Address: "/v1/peak/boiler", Ordinal: 6, Time: told, TookMS: 12000, Followers: 2},
				{Protocol: "mqtt", Wrapper: "mqtt", Server: "north", Address: "peak/boiler", Ordinal: 7, Time: told, TookMS: 4.04, Followers: 1},
			},
			want: `peak/boiler = {"value":98.5}
declared at rules.hcl:7 as peak/{meter}, collapses as candidates arrive
exists by the write at 2026-11-25 03:40:01.000 of ann through http/http
value = 98.5 by max(number): 98.5 is the highest of 2 live candidates
  ▸ 98.5  2026-11-25 03:40:01.000  ann through http/http from 127.0.0.1:50114, put /v1/peak/boiler (rules.hcl:9)
    97    2026-11-25 03:39:58.000  mqtt/mqtt from 127.0.0.1:50102, put peak/boiler (rules.hcl:8), on node 31a1000000000000
told:
  http/api   /v1/peak/boiler    2026-11-25 03:40:01.004, 12s after the commit, on 2 streams; as of commit 6, the newest is 7
  mqtt/mqtt  north peak/boiler  2026-11-25 03:40:01.004, 4.0 ms after the commit
`,
		},
		"what waits": {
			x: engine.Explanation{
				State:       engine.StateBlock{Register: "limit/oven", Exists: true, Value: lattice.Int(80), ID: engine.StateID{Rank: 1}, Waiting: 2},
				Declaration: "limit/{o}", Mode: engine.CommitMode{Manual: true}, DeleteWins: true, Group: "limits/oven",
				Fields: []engine.FieldExplanation{{Rule: engine.CollapseRule{}, Value: lattice.Int(80), Entries: []engine.LiveEntry{{Value: lattice.Int(80), Wins: true, By: "daemon/"}}}},
				Pending: []engine.Pending{
					{Register: "limit/oven", Time: stamp("01:02:03.004"), Cause: ann, Would: []engine.FieldChange{{Before: lattice.Int(80), After: lattice.Int(95)}}},
					{Register: "limit/oven", Time: stamp("01:02:04.000"), Deletes: true},
					{Register: "limit/oven", Time: stamp("01:02:05.000")},
				},
			},
			want: `limit/oven = 80  [2 waiting]
declared as limit/{o} by no file of this node, collapses when somebody says so
one unit with the other registers of group limits/oven
a delete wins over a write that did not know of it
value = 80 by latest: 1 live candidate
  ▸ 80  1970-01-01 00:00:00.000  daemon
waiting:
  2026-11-25 01:02:03.004  ann through http/http from 127.0.0.1:50114, put /v1/peak/boiler (rules.hcl:9)
      value: 80 -> 95
  2026-11-25 01:02:04.000  somebody
      deletes it
  2026-11-25 01:02:05.000  somebody
      changes no value
told: nobody, as far as is still known
`,
		},
		"hidden, with a window": {
			x: engine.Explanation{
				State: engine.StateBlock{Register: "a", ID: engine.StateID{Rank: 1}}, Mode: engine.CommitMode{Window: 500 * time.Millisecond}, Hidden: true,
				Deleted: []engine.LiveEntry{{By: "mqtt/mqtt", Wins: true, Time: stamp("01:00:00.000")}},
			},
			want: `a is deleted; what it had is kept until every member knows
not declared, collapses 500ms after the first candidate that waits
deleted by
  ▸ -  2026-11-25 01:00:00.000  mqtt/mqtt
waiting: nothing
told: nobody, as far as is still known
`,
		},
	}
	for name, test := range tests {
		var out bytes.Buffer
		if err := writeStory(&out, test.x, test.told, here.String()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, out.String()); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
}

func TestMarks(t *testing.T) {
	for want, b := range map[string]engine.StateBlock{
		"":                                 {},
		"siblings: title, value":           {Siblings: []string{"title", ""}},
		"provisional: owner; 2 waiting":    {Provisional: []string{"owner"}, Waiting: 2},
		"opaque: made by a newer program":  {Opaque: true},
		"incoming: a part is not here yet": {Incoming: true},
		"1 waiting; opaque: made by a newer program": {Waiting: 1, Opaque: true},
	} {
		if got := marks(b); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := marked(b); (got == "") != (want == "") {
			t.Errorf("%q: marked %q", want, got)
		}
	}
}

func TestWho(t *testing.T) {
	for want, c := range map[string]engine.Cause{
		"somebody":                                  {},
		"ann through daemon, set":                   {Principal: "ann", Verified: true, Protocol: "daemon", Verb: "set"},
		"mqtt/floor as c1, which nobody checked":    {Principal: "c1", Protocol: "mqtt", Wrapper: "floor"},
		"http/api from ::1, put north /x (a.hcl:1)": {Protocol: "http", Wrapper: "api", Peer: "::1", Verb: "put", Server: "north", Address: "/x", Source: "a.hcl:1"},
	} {
		if got := who(c, ""); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestChanges(t *testing.T) {
	changed := []engine.FieldChange{{Field: "x", Before: lattice.Int(1), After: lattice.Int(2)}}
	for want, d := range map[string]engine.QDelta{
		"waits":              {Pending: true, After: engine.StateBlock{Exists: true}},
		"deleted":            {Deleted: true, Changed: changed},
		"x: 1 -> 2":          {Changed: changed},
		"created, x: 1 -> 2": {Created: true, Changed: changed},
		"no field changed":   {},
	} {
		if got := changes(d); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := when(d, timeLayout); (got == "-") != d.Pending {
			t.Errorf("%s: at %s", want, got)
		}
	}
}

func TestAdd(t *testing.T) {
	a := &app{}
	texts := lattice.List(lattice.String("red"))
	tests := map[string]struct {
		args, fields, adds []string
		replace            bool
		want               []engine.Op
	}{
		"a number": {args: []string{"r"}, adds: []string{"n=-2.5"}, want: []engine.Op{{Register: "r", Kind: engine.OpAdd, Field: "n", Value: decimal("-2.5")}}},
		"no field": {args: []string{"r"}, adds: []string{"3"}, want: []engine.Op{{Register: "r", Kind: engine.OpAdd, Value: lattice.Int(3)}}},
		"a text":   {args: []string{"r"}, adds: []string{"tags=red"}, want: []engine.Op{{Register: "r", Kind: engine.OpAdd, Field: "tags", Value: texts}}},
		"a text that has one": {args: []string{"r"}, adds: []string{"tags=a=b"}, want: []engine.Op{
			{Register: "r", Kind: engine.OpAdd, Field: "tags", Value: lattice.List(lattice.String("a=b"))},
		}},
		"with the rest": {args: []string{"r", `{"a":1}`}, fields: []string{"b=2"}, adds: []string{"c=3", `d=["x"]`}, replace: true, want: []engine.Op{
			{Register: "r", Kind: engine.OpOnly, Fields: []string{"a", "b", "c", "d"}},
			{Register: "r", Kind: engine.OpPut, Field: "a", Value: lattice.Int(1)}, {Register: "r", Kind: engine.OpPut, Field: "b", Value: lattice.Int(2)},
			{Register: "r", Kind: engine.OpAdd, Field: "c", Value: lattice.Int(3)},
			{Register: "r", Kind: engine.OpAdd, Field: "d", Value: lattice.List(lattice.String("x"))},
		}},
	}
	for name, test := range tests {
		got, err := a.setOps(test.args, test.fields, test.adds, test.replace)
		if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
	for _, bad := range [][]string{{"x"}, {"=1"}, {"x=true"}, {"x=null"}, {`x={"a":1}`}, {"5", "a=1"}, {"a=1", "5"}} {
		if got, err := a.setOps([]string{"r", `{"a":1}`}, nil, bad, false); err == nil {
			t.Errorf("%q beside a: got %+v", bad, got)
		}
	}
	if got, err := a.setOps([]string{"r", "5"}, nil, []string{"1"}, false); err == nil {
		t.Errorf("a value and an add: got %+v", got)
	}
}

func TestStatusShows(t *testing.T) {
	inUTC(t)
	var out bytes.Buffer
	a := &app{out: &out}
	s := fullStatus{Engine: wire.EngineStatus{Root: "5e1f", Pending: 1, Held: 2, Floor: 30, Findings: []wire.Finding{
		{Code: "clone", Subject: "31a1", Text: "Two nodes are one. Stop one of them.", Since: time.Date(2026, 11, 25, 3, 0, 0, 0, time.UTC)},
	}}}
	if err := a.showStatus(s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"FINDING  ABOUT  SINCE                WHAT\nclone    31a1   2026-11-25 03:00:00  Two nodes are one. Stop one of them.\n",
		"root           5e1f", "1 register to be collapsed", "2 candidates whose predecessors", "begins at commit 30",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := a.showStatus(fullStatus{}); err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"FINDING", "root", "waiting", "held", "trimmed"} {
		if strings.Contains(out.String(), not) {
			t.Errorf("%q in\n%s", not, out.String())
		}
	}
}

func TestMayRestore(t *testing.T) {
	dir := t.TempDir()
	backup, empty, full, file := filepath.Join(dir, "backup"), filepath.Join(dir, "empty"), filepath.Join(dir, "full"), filepath.Join(dir, "file")
	for _, d := range []string{backup, empty, full} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{file, filepath.Join(full, "x")} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, data := range []string{empty, filepath.Join(dir, "new"), backup + "..x"} {
		if err := mayRestore(backup, data); err != nil {
			t.Errorf("%s: %v", data, err)
		}
	}
	for _, test := range []struct{ backup, data, want string }{
		{backup, full, "not empty"}, {backup, backup, "in the backup itself"}, {backup, filepath.Join(backup, "a", "b"), "in the backup itself"},
		{file, empty, "is no directory"}, {filepath.Join(dir, "none"), empty, "not found"}, {backup, file, "file"},
	} {
		if err := mayRestore(test.backup, test.data); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s to %s: got %v, want %q", test.backup, test.data, err, test.want)
		}
	}
	if err := mayRestore(filepath.Join(dir, "none"), empty); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("got %v, want ErrNotFound", err)
	}
}

func TestPendingLines(t *testing.T) {
	inUTC(t)
	var out bytes.Buffer
	p := engine.Pending{Time: stamp("01:02:03.004"), Cause: engine.Cause{Protocol: "mqtt", Wrapper: "floor"}, Would: []engine.FieldChange{
		{Field: "a", After: lattice.Int(1)}, {Field: "b", Before: lattice.Int(2)}, {Field: "c", Before: lattice.Int(3), After: lattice.Int(4)},
	}}
	if err := writePending(&out, "", p); err != nil {
		t.Fatal(err)
	}
	want := "2026-11-25 01:02:03.004  mqtt/floor\n    a: 1, b: 2 -> cleared, c: 3 -> 4\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	for mode, want := range map[engine.CommitMode]string{
		{Manual: true}: "waits for spookgw collapse", {Window: time.Second}: "settled 1s after the first", {}: "settled with the next candidate",
	} {
		if got := settles(mode); got != want {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(mode), got, want)
		}
	}
}
