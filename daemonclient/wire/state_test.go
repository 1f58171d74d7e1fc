package wire

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

func everyValue() engine.Value {
	big, err := lattice.ParseNumber("123456789012345678901234567890.5")
	if err != nil {
		panic(err)
	}
	return lattice.Object(
		lattice.Member{Name: "int", Value: lattice.Int(1<<62 + 1)},
		lattice.Member{Name: "decimal", Value: big},
		lattice.Member{Name: "text", Value: lattice.String("\x00\u2028 <&> \U0001f600")},
		lattice.Member{Name: "bytes", Value: lattice.Bytes([]byte{0, 255, 10})},
		lattice.Member{Name: "set", Value: lattice.Set(lattice.String("b"), lattice.String("a"))},
		lattice.Member{Name: "list", Value: lattice.List(lattice.Null(), lattice.Bool(true))},
		lattice.Member{Name: "$odd", Value: lattice.Int(1)},
	)
}

func TestStatesComeBack(t *testing.T) {
	dot := engine.Dot{Origin: engine.OriginID{1, 2}, Seq: 1<<63 + 1}
	state := engine.StateBlock{
		Register: "site/ü\n", Exists: true, Value: everyValue(), ID: engine.StateID{Rank: 1<<60 + 1, Digest: [16]byte{9}},
		Ordinal: 1 << 50, Time: 1<<63 + 12345, Dots: []engine.FieldDots{
			{Field: engine.Existence, Dots: []engine.Dot{dot}}, {Field: "", Dots: []engine.Dot{dot, dot}},
		},
		Siblings: []string{"a", ""}, Provisional: []string{"b"}, Waiting: 3, Opaque: true, Incoming: true,
	}
	delta := engine.QDelta{
		Cursor: engine.Cursor{Log: 1<<63 + 1, Ordinal: 1 << 60}, Part: 1, Of: 3, Before: engine.StateID{Rank: 1}, After: state,
		Changed: []engine.FieldChange{{Field: "a", Before: lattice.Int(1)}, {Field: "b", After: everyValue()}},
		Created: true, Pending: true, Dot: dot, Cause: engine.Cause{Principal: "ann", Verified: true, Protocol: "mqtt", Source: "a.hcl:3", Verb: "put"},
	}
	receipt := engine.Receipt{Dot: dot, Cursor: delta.Cursor, Time: state.Time, States: []engine.StateBlock{state, {Register: "x"}}}
	yes := true
	write := engine.Write{
		Ops: []engine.Op{
			{Register: "a", Kind: engine.OpPut, Field: "f", Value: everyValue()}, {Register: "a", Kind: engine.OpRemove, Field: "g"},
			{Register: "a", Kind: engine.OpOnly, Fields: []string{"f"}}, {Register: "b", Kind: engine.OpDelete},
			{Register: "c", Kind: engine.OpAdd, Field: "n", Value: lattice.Int(1<<53 + 1)},
		},
		If: []engine.Precondition{{Register: "a", Match: []engine.StateID{state.ID}, Differ: []engine.StateID{{Rank: 1}}, Exists: &yes}},
		By: engine.Cause{Verb: "set"},
	}

	check := func(name string, form any, parse func([]byte) (any, error), want any) {
		t.Helper()
		raw, err := JSON(form)
		if err != nil {
			t.Fatal(err)
		}
		if err := Check(raw, MaxDepth); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := parse(raw)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got)\n%s", name, err, diff)
		}
	}
	check("state", FromState(state), func(b []byte) (any, error) { return ParseState(b) }, state)
	check("never written", FromState(engine.StateBlock{Register: "x"}), func(b []byte) (any, error) { return ParseState(b) }, engine.StateBlock{Register: "x"})
	check("delta", FromDelta(delta), func(b []byte) (any, error) { return ParseDelta(b) }, delta)
	check("receipt", FromReceipt(receipt), func(b []byte) (any, error) { return ParseReceipt(b) }, receipt)
	form, err := FromWrite(write)
	if err != nil {
		t.Fatal(err)
	}
	check("write", form, func(b []byte) (any, error) { return ParseWrite(b) }, write)

	raw, _ := JSON(FromDelta(delta).WithoutValues())
	if d, err := ParseDelta(raw); !errors.Is(err, engine.ErrTooLarge) || d.Cursor != delta.Cursor || d.After.Register != state.Register {
		t.Errorf("delta without values: got %+v, %v", d, err)
	}
	for _, w := range []engine.Write{{Tag: 1}, {Keep: []engine.Record{{}}}, {Ops: []engine.Op{{Base: true}}},
		{Ops: []engine.Op{{Kind: engine.OpPut, Last: lattice.Int(1)}}}, {Ops: []engine.Op{{Kind: engine.OpPut, Meter: true}}},
		{Ops: []engine.Op{{Kind: engine.OpRestore}}},
	} {
		if _, err := FromWrite(w); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%+v: got %v, want ErrInvalid", w, err)
		}
	}
	if _, err := ParseWrite([]byte(`{"ops":[{"register":"a","kind":"restore","field":"x","value":1}]}`)); !errors.Is(err, engine.ErrInvalid) {
		t.Errorf("a restore on the wire: got %v, want ErrInvalid", err)
	}
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, k := range kinds {
		e := FromError(errors.Join(errors.New("why"), k.err), "r")
		raw, _ := json.Marshal(e)
		m, err := Parse([]byte(`{"jsonrpc":"2.0","id":1,"error":`+string(raw)+`}`), MaxDepth)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Err.ToError(); !errors.Is(got, k.err) || m.Err.Data.Register != "r" {
			t.Errorf("%s: got %v", k.name, got)
		}
	}
	if e := FromError(errors.New("odd"), ""); e.Code != CodeFailure {
		t.Errorf("got code %d, want %d", e.Code, CodeFailure)
	}
}
