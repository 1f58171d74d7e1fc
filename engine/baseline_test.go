package engine

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/spooksystems/gateway/engine/lattice"
)

func dot(n uint64) Dot {
	var d Dot
	d.Origin[0] = 7
	d.Seq = n
	return d
}

// block is a committed register whose fields' entries have the dot of their number.
func block(fields map[string]int64) StateBlock {
	st := StateBlock{Register: "r", Exists: len(fields) > 0}
	var members []lattice.Member
	for f, n := range fields {
		members = append(members, lattice.Member{Name: f, Value: lattice.Int(n)})
		st.Dots = append(st.Dots, FieldDots{Field: f, Dots: []Dot{dot(uint64(n))}})
	}
	if st.Exists {
		st.Value = lattice.Object(members...)
		st.Dots = append(st.Dots, FieldDots{Field: Existence, Dots: []Dot{dot(99)}})
	}
	return st
}

func baseline(fields map[string]int64) Baseline {
	var b Baseline
	for f, n := range fields {
		b.set(BaselineField{Field: f, Value: lattice.Int(n), Dots: []Dot{dot(uint64(n))}})
	}
	if len(fields) > 0 {
		b.Exists = []Dot{dot(99)}
	}
	return b
}

func show(fields map[string]int64) []ShownField {
	var out []ShownField
	for f, n := range fields {
		out = append(out, ShownField{Field: f, Value: lattice.Int(n)})
	}
	slices.SortFunc(out, func(a, b ShownField) int { return bytes.Compare([]byte(a.Field), []byte(b.Field)) })
	return out
}

type m = map[string]int64

func sent(fields m) Sent { return Stored(show(fields), block(fields)) }

func withSent(b Baseline, w ...Sent) Baseline { b.Sent = w; return b }

func TestReconcile(t *testing.T) {
	whole := func(b Baseline) Baseline { b.Whole = true; return b }
	type want struct {
		ops       []string // kind field value seen-dot
		conflict  []string
		writeBack bool
		next      m // values of the next baseline
		sent      int
	}
	tests := []struct {
		name  string
		base  Baseline
		shown Shown
		cur   StateBlock
		first FirstContact
		want  want
	}{
		{"a peer's write replaces what the server showed",
			baseline(m{"v": 1}), Shown{Wire: true, Fields: show(m{"v": 2})}, block(m{"v": 1}), AskFirst,
			want{ops: []string{"put v 2 seen 1"}, writeBack: true, next: m{"v": 2}}},
		{"what the server shows again is no news",
			baseline(m{"v": 1}), Shown{Feed: true, Fields: show(m{"v": 1})}, block(m{"v": 1}), AskFirst, want{next: m{"v": 1}}},
		{"a message repeated on the wire is a write",
			baseline(m{"v": 1}), Shown{Feed: true, Wire: true, Fields: show(m{"v": 1})}, block(m{"v": 1}), AskFirst,
			want{ops: []string{"put v 1 seen 1"}, writeBack: true, next: m{"v": 1}}},
		{"a whole document rewritten unchanged is a write, but reverts nobody",
			whole(baseline(m{"v": 1})), Shown{Wire: true, Whole: true, Clears: []string{"v"}, Fields: show(m{"v": 1})}, block(m{"v": 1}), AskFirst,
			want{ops: []string{"put v 1 seen 1"}, writeBack: true, next: m{"v": 1}}},
		{"the same while another site's edit waits is none",
			whole(baseline(m{"v": 1})), Shown{Wire: true, Whole: true, Clears: []string{"v"}, Fields: show(m{"v": 1})}, block(m{"v": 5}), AskFirst,
			want{next: m{"v": 1}}},
		{"only the field that differs is written",
			whole(baseline(m{"v": 1, "w": 2})), Shown{Wire: true, Whole: true, Clears: []string{"v", "w"}, Fields: show(m{"v": 1, "w": 3})}, block(m{"v": 5, "w": 2}), AskFirst,
			want{ops: []string{"put w 3 seen 2"}, writeBack: true, next: m{"v": 1, "w": 3}}},
		{"a field that a whole document lacks is cleared",
			whole(baseline(m{"v": 1, "w": 2})), Shown{Wire: true, Whole: true, Clears: []string{"v", "w"}, Fields: show(m{"v": 1})}, block(m{"v": 1, "w": 2}), AskFirst,
			want{ops: []string{"remove w seen 2"}, writeBack: true, next: m{"v": 1}}},
		{"a field that a message does not mention is not touched",
			baseline(m{"v": 1, "w": 2}), Shown{Wire: true, Feed: true, Fields: show(m{"v": 3})}, block(m{"v": 1, "w": 2}), AskFirst,
			want{ops: []string{"put v 3 seen 1"}, writeBack: true, next: m{"v": 3, "w": 2}}},
		{"our own write coming back moves the baseline only",
			withSent(baseline(m{"v": 1}), sent(m{"v": 2})), Shown{Feed: true, Fields: show(m{"v": 2})}, block(m{"v": 3}), AskFirst,
			want{writeBack: true, next: m{"v": 2}}},
		{"the older of two on their way comes first",
			withSent(baseline(m{"v": 1}), sent(m{"v": 2}), sent(m{"v": 3})), Shown{Feed: true, Fields: show(m{"v": 2})}, block(m{"v": 3}), AskFirst,
			want{writeBack: true, next: m{"v": 2}, sent: 1}},
		{"a peer may say the same as we did",
			withSent(baseline(m{"v": 1}), sent(m{"v": 2})), Shown{Feed: true, Wire: true, Fields: show(m{"v": 2})}, block(m{"v": 2}), AskFirst,
			want{ops: []string{"put v 2 seen 1"}, writeBack: true, next: m{"v": 2}, sent: 1}},
		{"ours after a restart that lost the trace",
			baseline(m{"v": 1}), Shown{Feed: true, Fields: show(m{"v": 2})}, block(m{"v": 2}), AskFirst, want{next: m{"v": 2}}},
		{"ours by its mark, and the register has moved on",
			baseline(m{"v": 1}), Shown{Feed: true, Ours: true, Fields: show(m{"v": 2})}, block(m{"v": 3}), AskFirst,
			want{writeBack: true, next: m{"v": 2}}},
		{"read back: our own write, which the server took unnoticed, and the register has moved on",
			withSent(whole(baseline(m{"v": 1})), sent(m{"v": 2})), Shown{State: true, Whole: true, Clears: []string{"v"}, Fields: show(m{"v": 2})}, block(m{"v": 3}), AskFirst,
			want{writeBack: true, next: m{"v": 2}}},
		{"read back: somebody else's, whatever we sent",
			withSent(whole(baseline(m{"v": 1})), sent(m{"v": 2})), Shown{State: true, Whole: true, Clears: []string{"v"}, Fields: show(m{"v": 7})}, block(m{"v": 3}), AskFirst,
			want{ops: []string{"put v 7 seen 1"}, writeBack: true, next: m{"v": 7}}},
		{"first contact: the register lacks it",
			Baseline{}, Shown{State: true, Fields: show(m{"v": 2})}, block(nil), AskFirst,
			want{ops: []string{"put v 2"}, writeBack: true, next: m{"v": 2}}},
		{"first contact: both agree",
			Baseline{}, Shown{State: true, Fields: show(m{"v": 2})}, block(m{"v": 2}), AskFirst, want{writeBack: true, next: m{"v": 2}}},
		{"first contact: the server lacks the address",
			Baseline{}, Shown{State: true, Gone: true, Clears: []string{"v"}}, block(m{"v": 2}), AskFirst, want{writeBack: true, next: m{}}},
		{"first contact: they differ and nobody said who wins",
			Baseline{}, Shown{State: true, Fields: show(m{"v": 1, "w": 1})}, block(m{"v": 2}), AskFirst, want{conflict: []string{"v"}, next: m{}}},
		{"first contact: the source wins",
			Baseline{}, Shown{State: true, Fields: show(m{"v": 1})}, block(m{"v": 2}), SourceFirst,
			want{ops: []string{"put v 1"}, writeBack: true, next: m{"v": 1}}},
		{"first contact: the register wins",
			Baseline{}, Shown{State: true, Fields: show(m{"v": 1})}, block(m{"v": 2}), RegisterFirst, want{writeBack: true, next: m{"v": 1}}},
		{"a live message at an address never seen is a write",
			Baseline{}, Shown{Feed: true, Fields: show(m{"v": 1})}, block(m{"v": 2}), AskFirst,
			want{ops: []string{"put v 1"}, writeBack: true, next: m{"v": 1}}},
		{"a peer deletes the whole register",
			whole(baseline(m{"v": 1, "w": 2})), Shown{Wire: true, Gone: true, Delete: true, Clears: []string{"v", "w"}}, block(m{"v": 1, "w": 2}), AskFirst,
			want{ops: []string{"delete seen 99"}, writeBack: true, next: m{}}},
		{"a peer deletes what its bind maps of it",
			whole(baseline(m{"v": 1})), Shown{Wire: true, Gone: true, Clears: []string{"v"}}, block(m{"v": 1, "w": 2}), AskFirst,
			want{ops: []string{"remove v seen 1"}, writeBack: true, next: m{}}},
		{"an address that was never there is still not there",
			whole(Baseline{}), Shown{State: true, Gone: true, Delete: true, Clears: []string{"v"}}, block(m{"v": 1}), AskFirst,
			want{writeBack: true, next: m{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before, err := tt.base.AppendTo(nil)
			if err != nil {
				t.Fatal(err)
			}
			v := tt.base.Reconcile("r", tt.shown, tt.cur, tt.first)
			var ops []string
			for _, o := range v.Ops {
				s := map[OpKind]string{OpPut: "put", OpRemove: "remove", OpDelete: "delete"}[o.Kind]
				if o.Field != "" {
					s += " " + o.Field
				}
				if o.Kind == OpPut {
					s += " " + o.Value.String()
				}
				if !o.Base || o.Register != "r" {
					t.Errorf("op %v does not say what its writer had seen", o)
				}
				for _, d := range o.Seen {
					s += " seen " + lattice.Int(int64(d.Seq)).String()
				}
				ops = append(ops, s)
			}
			if !slices.Equal(ops, tt.want.ops) {
				t.Errorf("ops: got %q, want %q", ops, tt.want.ops)
			}
			if !slices.Equal(v.Conflict, tt.want.conflict) {
				t.Errorf("conflict: got %q, want %q", v.Conflict, tt.want.conflict)
			}
			if v.WriteBack != tt.want.writeBack {
				t.Errorf("write back: got %v, want %v", v.WriteBack, tt.want.writeBack)
			}
			v.Next.Became(dot(500))
			got := m{}
			for _, f := range v.Next.Fields {
				if !f.Value.IsAbsent() {
					got[f.Field] = f.Value.Int()
				}
			}
			if len(got) != len(tt.want.next) {
				t.Errorf("next: got %v, want %v", got, tt.want.next)
			}
			for f, n := range tt.want.next {
				if got[f] != n {
					t.Errorf("next: got %v, want %v", got, tt.want.next)
				}
			}
			for _, o := range v.Ops {
				if f, _ := v.Next.Get(o.Field); o.Kind == OpPut && !slices.Equal(f.Dots, []Dot{dot(500)}) {
					t.Errorf("the baseline of %s is not behind the candidate: %v", o.Field, f.Dots)
				}
			}
			if len(v.Next.Sent) != tt.want.sent {
				t.Errorf("on their way: got %d, want %d", len(v.Next.Sent), tt.want.sent)
			}
			after, err := tt.base.AppendTo(nil)
			if err != nil || !bytes.Equal(before, after) {
				t.Errorf("Reconcile changed its receiver")
			}
		})
	}
}

// TestReconcileMeter: an address that is never told anything shows its own readings, whatever the register has.
func TestReconcileMeter(t *testing.T) {
	reading := func(n int64) []ShownField { return []ShownField{{Field: "v", Value: lattice.Int(n), Meter: true}} }
	for _, tt := range []struct {
		name  string
		base  Baseline
		shown Shown
		want  int64 // Last; -1: no news
	}{
		{"the first reading counts whole", Baseline{}, Shown{Feed: true, Fields: reading(5)}, 0},
		{"also at first contact with a register that has a total", Baseline{}, Shown{State: true, Fields: reading(5)}, 0},
		{"and where it happens to equal the total", Baseline{}, Shown{State: true, Fields: reading(40)}, 0},
		{"the next is compared with the last one", baseline(m{"v": 5}), Shown{Feed: true, Fields: reading(40)}, 5},
		{"the same reading is no news", baseline(m{"v": 5}), Shown{State: true, Fields: reading(5)}, -1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := tt.base.Reconcile("r", tt.shown, block(m{"v": 40}), AskFirst)
			if tt.want < 0 {
				if len(v.Ops) > 0 || len(v.Conflict) > 0 {
					t.Fatalf("got %+v, want nothing", v)
				}
				return
			}
			if len(v.Ops) != 1 || v.Ops[0].Kind != OpPut || !v.Ops[0].Meter || !v.Ops[0].Last.Equal(lattice.Int(tt.want)) {
				t.Fatalf("got %+v, want a put by a meter that showed %d", v, tt.want)
			}
		})
	}
}

// TestReconcileAdds: an increment counts each time it happens, and not when it is only there.
func TestReconcileAdds(t *testing.T) {
	add := []ShownField{{Field: "v", Value: lattice.Int(2)}}
	for _, tt := range []struct {
		name  string
		shown Shown
		want  int
	}{
		{"a feed's event", Shown{Feed: true, Adds: add}, 1},
		{"a write on the wire", Shown{Wire: true, Adds: add}, 1},
		{"a snapshot", Shown{Feed: true, State: true, Adds: add}, 0},
		{"our own", Shown{Feed: true, Ours: true, Adds: add}, 0},
	} {
		base := baseline(m{"v": 5})
		v := base.Reconcile("r", tt.shown, block(m{"v": 5}), AskFirst)
		if len(v.Ops) != tt.want || tt.want == 1 && (v.Ops[0].Kind != OpAdd || !v.Ops[0].Value.Equal(lattice.Int(2)) || v.Ops[0].Base) {
			t.Errorf("%s: got %+v", tt.name, v.Ops)
		}
	}
}

// TestReconcileSet: who adds to a set has still seen what was in it, so that it can take that out later.
func TestReconcileSet(t *testing.T) {
	set := func(words ...string) Value {
		var items []Value
		for _, w := range words {
			items = append(items, lattice.String(w))
		}
		return lattice.Set(items...)
	}
	cur := StateBlock{Register: "r", Exists: true, Value: lattice.Object(lattice.Member{Name: "v", Value: set("a")}),
		Dots: []FieldDots{{Field: "v", Dots: []Dot{dot(2)}}, {Field: Existence, Dots: []Dot{dot(99)}}}}
	b := Baseline{Exists: []Dot{dot(99)}}
	b.set(BaselineField{Field: "v", Value: set("a"), Dots: []Dot{dot(1), dot(2)}})
	v := b.Reconcile("r", Shown{Feed: true, Fields: []ShownField{{Field: "v", Value: set("a", "b")}}}, cur, AskFirst)
	if len(v.Ops) != 1 || !v.Ops[0].Last.Equal(set("a")) || !slices.Equal(v.Ops[0].Seen, []Dot{dot(1), dot(2)}) {
		t.Fatalf("got %+v", v.Ops)
	}
	v.Next.Became(dot(500))
	if f, _ := v.Next.Get("v"); !slices.Equal(f.Dots, []Dot{dot(2), dot(500)}) {
		t.Errorf("behind the baseline: got %v, want the live one from before, and the candidate's", f.Dots)
	}
}

// TestBecameNothing: a write that the rule let change nothing leaves behind the baseline what was there.
func TestBecameNothing(t *testing.T) {
	b := baseline(m{"v": 5})
	v := b.Reconcile("r", Shown{Wire: true, Fields: show(m{"v": 3})}, block(m{"v": 5}), AskFirst)
	v.Next.Became(Dot{})
	f, _ := v.Next.Get("v")
	if !f.Value.Equal(lattice.Int(3)) || !slices.Equal(f.Dots, []Dot{dot(5)}) || !slices.Equal(v.Next.Exists, []Dot{dot(99)}) {
		t.Errorf("got %+v, exists by %v", f, v.Next.Exists)
	}
}

// only gives the fields that are there, as the register has them.
func only(b Baseline) m {
	out := m{}
	for _, f := range b.Fields {
		if !f.Value.IsAbsent() {
			out[f.Field] = f.Value.Int()
		}
	}
	return out
}

// TestOwnWriteReplaces: what a write of ours lacks of what its bind carries outward is gone once the server shows it, or
// took it. What the bind only reads there is as it was.
func TestOwnWriteReplaces(t *testing.T) {
	tells := func(field string) bool { return field != "meter" }
	base := baseline(m{"v": 1, "at": 7, "meter": 5})
	w := sent(m{"v": 2})
	for _, tt := range []struct {
		name  string
		shown Shown
		ops   int
		want  m
	}{
		{"a message", Shown{Feed: true, Fields: show(m{"v": 2})}, 0, m{"v": 2, "meter": 5}},
		{"a row", Shown{Feed: true, Whole: true, Clears: []string{"v", "meter"}, Fields: show(m{"v": 2, "meter": 5})}, 0, m{"v": 2, "meter": 5}},
		{"a row with news beside it", Shown{Feed: true, Whole: true, Clears: []string{"v", "meter"}, Fields: show(m{"v": 2, "meter": 6})}, 1, m{"v": 2, "meter": 6}},
		{"a snapshot", Shown{Feed: true, State: true, Fields: show(m{"v": 2})}, 0, m{"v": 2, "meter": 5}},
		{"a document read back", Shown{State: true, Whole: true, Clears: []string{"v", "meter"}, Fields: show(m{"v": 2, "meter": 5})}, 0, m{"v": 2, "meter": 5}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.shown.Tells = tells
			// The register has moved on, and has the field again.
			v := withSent(base, w).Reconcile("r", tt.shown, block(m{"v": 3, "at": 8, "meter": 5}), AskFirst)
			if got := only(v.Next); len(v.Ops) != tt.ops || !maps.Equal(got, tt.want) || len(v.Next.Sent) != 0 || !v.WriteBack {
				t.Errorf("got %v with %v, want %v with %d operations", got, v.Ops, tt.want, tt.ops)
			}
			if !v.Next.Holds(show(m{"v": 2}), false, tells) || v.Next.Holds(show(m{"at": 7, "v": 2}), false, tells) {
				t.Error("it does not hold just what it was told")
			}
		})
	}
	took := base
	took.Took(w, tells)
	if got := only(took); !maps.Equal(got, m{"v": 2, "meter": 5}) || !maps.Equal(only(base), m{"v": 1, "at": 7, "meter": 5}) {
		t.Errorf("took it: got %v; before: %v", got, only(base))
	}
}

// TestShownAs: what an address shows of a write in a form of its own, or not at all, is known for ours, and no news later.
func TestShownAs(t *testing.T) {
	tells := func(field string) bool { return field != "copy" }
	w := Stored(show(m{"label": 3, "v": 2}), block(m{"label": 3, "v": 2})).ShownAs(show(m{"copy": 20, "v": 20}))
	echo := Shown{Feed: true, Tells: tells, Fields: show(m{"copy": 20, "v": 20})}
	b := baseline(m{"v": 1, "copy": 1})
	b.AddSent(w)
	raw, err := b.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = ParseBaseline(raw); err != nil {
		t.Fatal(err)
	}
	v := b.Reconcile("r", echo, block(m{"label": 3, "v": 2, "copy": 1}), AskFirst)
	if len(v.Ops) != 0 || len(v.Next.Sent) != 0 || !v.Next.Holds(show(m{"label": 3, "v": 2}), false, tells) {
		t.Fatalf("its echo: got %+v", v)
	}
	if raw, err = v.Next.AppendTo(nil); err != nil {
		t.Fatal(err)
	}
	if b, err = ParseBaseline(raw); err != nil {
		t.Fatal(err)
	}
	again := Shown{State: true, Whole: true, Tells: tells, Clears: []string{"copy", "label", "v"}, Fields: show(m{"copy": 1, "v": 20})}
	if v := b.Reconcile("r", again, block(m{"label": 3, "v": 2, "copy": 1}), AskFirst); len(v.Ops) != 0 || !v.Next.Holds(show(m{"label": 3, "v": 2}), false, tells) {
		t.Errorf("asked again: got %+v", v)
	}
	again.Fields = show(m{"copy": 1, "v": 21})
	if v := b.Reconcile("r", again, block(m{"label": 3, "v": 2, "copy": 1}), AskFirst); len(v.Ops) != 1 || !v.Ops[0].Value.Equal(lattice.Int(21)) || !v.Ops[0].Last.Equal(lattice.Int(20)) {
		t.Errorf("changed there: got %+v", v.Ops)
	}
}

// TestOwnWriteByItsMark: of a write that the server took, and that it shows in a form nobody could foresee, the mark is
// enough; of one that it may never have had, it is not.
func TestOwnWriteByItsMark(t *testing.T) {
	echo := Shown{Feed: true, Ours: true, Fields: show(m{"v": 9})}
	for _, taken := range []bool{true, false} {
		b := withSent(baseline(m{"v": 1}), sent(m{"v": 2}))
		b.Sent[0].Taken = taken
		v := b.Reconcile("r", echo, block(m{"v": 2}), AskFirst)
		if got := len(v.Next.Sent) == 0 && v.Next.Holds(show(m{"v": 2}), false, nil); len(v.Ops) != 0 || got != taken {
			t.Errorf("taken %v: got %+v", taken, v)
		}
	}
}

func TestBaselineStored(t *testing.T) {
	b := baseline(m{"a": 1, "b": 2})
	b.Version, b.Bind, b.Whole, b.Told = `"etag"`, "hash", true, 42
	b.set(BaselineField{Field: "gone"})
	b.AddSent(Stored(show(m{"a": 3}), block(m{"a": 3})))
	raw, err := b.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBaseline(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, err := got.AppendTo(nil)
	if err != nil || !bytes.Equal(raw, again) {
		t.Errorf("got %x, want %x", again, raw)
	}
	if got.Version != b.Version || got.Bind != b.Bind || !got.Whole || got.Told != 42 || len(got.Sent) != 1 || len(got.Fields) != 3 {
		t.Errorf("got %+v", got)
	}
	if f, ok := got.Get("gone"); !ok || !f.Value.IsAbsent() {
		t.Errorf("an absent field came back as %v, %v", f, ok)
	}
}

// What a server has come to hold without a field stands as it was last shown, and is to be told again, after a restart too.
func TestLackedField(t *testing.T) {
	cur := block(m{"a": 1, "b": 2})
	v := baseline(m{"a": 1, "b": 2}).Reconcile("r", Shown{Feed: true, Alone: true, Fields: show(m{"a": 1})}, cur, AskFirst)
	if len(v.Ops) != 0 || !v.WriteBack || v.Next.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Fatalf("a part: got %+v", v)
	}
	raw, err := v.Next.AppendTo(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBaseline(raw)
	if err != nil {
		t.Fatal(err)
	}
	if b.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Error("it is forgotten what the server lacks")
	}
	// Somebody takes the field away who said nothing of it before.
	gone := Shown{Feed: true, Alone: true, Fields: []ShownField{{Field: "b"}}}
	if v := b.Reconcile("r", gone, cur, AskFirst); len(v.Ops) != 1 || v.Ops[0].Kind != OpRemove {
		t.Errorf("cleared: got %+v", v.Ops)
	}
	// The whole is shown again.
	v = b.Reconcile("r", Shown{Feed: true, Alone: true, Fields: show(m{"a": 1, "b": 2})}, cur, AskFirst)
	if len(v.Ops) != 0 || v.WriteBack || !v.Next.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Errorf("whole: got %+v", v)
	}
	// What is only read there is not for the gateway to tell.
	only := func(f string) bool { return f == "a" }
	if v := baseline(m{"a": 1, "b": 2}).Reconcile("r", Shown{Feed: true, Alone: true, Tells: only, Fields: show(m{"a": 1})}, cur, AskFirst); v.WriteBack {
		t.Errorf("only read: got %+v", v)
	}
}

func FuzzParseBaseline(f *testing.F) {
	for _, lacks := range []bool{true, false} {
		b := baseline(m{"a": 1})
		b.Fields[0].Lacks, b.Fields[0].Other = true, lacks
		raw, err := b.AppendTo(nil)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	b := baseline(m{"a": 1})
	raw, err := b.AppendTo(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	b.AddSent(Stored(show(m{"a": 3, "b": 1}), block(m{"a": 3})).ShownAs(show(m{"b": 2, "c": 4})))
	if raw, err = b.AppendTo(nil); err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBaseline(raw)
		if err != nil {
			return
		}
		if _, err := b.AppendTo(nil); err != nil {
			t.Fatal(err)
		}
	})
}

func TestHolds(t *testing.T) {
	b := baseline(m{"a": 1, "b": 2})
	b.set(BaselineField{Field: "c"})
	for _, tt := range []struct {
		fields m
		gone   bool
		want   bool
	}{
		{m{"a": 1, "b": 2}, false, true},
		{m{"a": 1}, false, false},
		{m{"a": 1, "b": 3}, false, false},
		{m{"a": 1, "b": 2, "c": 3}, false, false},
		{nil, true, false},
	} {
		if got := b.Holds(show(tt.fields), tt.gone, nil); got != tt.want {
			t.Errorf("%v gone %v: got %v, want %v", tt.fields, tt.gone, got, tt.want)
		}
	}
	b.AddSent(Sent{Gone: true})
	if b.Holds(nil, true, nil) || b.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Error("what may be on its way makes it unknown")
	}
	b.Taken(Sent{Gone: true})
	if !b.Holds(nil, true, nil) || b.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Error("what is on its way counts")
	}
	b.TakeBack()
	if !b.Holds(show(m{"a": 1, "b": 2}), false, nil) {
		t.Error("what was refused does not")
	}
}

// TestReconcileGoneWithoutFields: a register whose last field was cleared at its server goes with its row.
func TestReconcileGoneWithoutFields(t *testing.T) {
	b := baseline(m{"v": 1})
	st := block(m{"v": 1})
	cleared := b.Reconcile("r", Shown{Feed: true, Whole: true, Clears: []string{"v"}}, st, AskFirst)
	if len(cleared.Ops) != 1 || cleared.Ops[0].Kind != OpRemove {
		t.Fatalf("cleared: got %+v, want one removal", cleared.Ops)
	}
	next := cleared.Next
	next.Became(dot(5))
	if len(next.Exists) != 1 || next.Exists[0] != dot(5) {
		t.Errorf("the row is there by the newest write: got %v", next.Exists)
	}
	empty := StateBlock{Register: "r", Exists: true, Value: lattice.Object(), Dots: []FieldDots{{Field: Existence, Dots: []Dot{dot(5)}}}}
	gone := next.Reconcile("r", Shown{Feed: true, Gone: true, Delete: true, Clears: []string{"v"}}, empty, AskFirst)
	if len(gone.Ops) != 1 || gone.Ops[0].Kind != OpDelete || !slices.Equal(gone.Ops[0].Seen, []Dot{dot(5)}) {
		t.Errorf("gone: got %+v, want a delete by who has seen the newest write", gone.Ops)
	}
	if again := gone.Next.Reconcile("r", Shown{Feed: true, Gone: true, Delete: true, Clears: []string{"v"}}, empty, AskFirst); len(again.Ops) != 0 {
		t.Errorf("gone again: got %+v, want no news", again.Ops)
	}
}

// A stored baseline is as long as what it has to say, and comes back as it was.
func TestStoredBaselineIsShort(t *testing.T) {
	for want, change := range map[byte]func(*BaselineField){
		7: func(*BaselineField) {},
		8: func(f *BaselineField) { f.Other = true },
		9: func(f *BaselineField) { f.Lacks = true },
	} {
		b := baseline(m{"a": 1, "b": 2})
		change(&b.Fields[1])
		raw, err := b.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if raw[0] != 0x80|want {
			t.Errorf("it begins with %#x, want an array of %d", raw[0], want)
		}
		got, err := ParseBaseline(raw)
		if err != nil {
			t.Fatal(err)
		}
		again, err := got.AppendTo(nil)
		if err != nil || !bytes.Equal(again, raw) {
			t.Errorf("%x comes back as %x, %v", raw, again, err)
		}
		if got.Fields[1].Other != b.Fields[1].Other || got.Fields[1].Lacks != b.Fields[1].Lacks || got.Fields[0].Lacks {
			t.Errorf("got %+v, want %+v", got.Fields, b.Fields)
		}
	}
}
