package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"pgregory.net/rapid"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// A model is what registers are to somebody who saw everything: maps of fields.
type model map[string]map[string]int64

func (m model) clone() model {
	out := model{}
	for name, fields := range m {
		out[name] = map[string]int64{}
		for f, v := range fields {
			out[name][f] = v
		}
	}
	return out
}

// apply says whether the op can be done.
func (m model) apply(op Op) bool {
	fields, exists := m[op.Register]
	switch op.Kind {
	case OpPut:
		for f := range fields {
			if (f == "") != (op.Field == "") {
				return false
			}
		}
		if !exists {
			fields = map[string]int64{}
			m[op.Register] = fields
		}
		fields[op.Field] = op.Value.Int()
	case OpRemove:
		delete(fields, op.Field)
	case OpOnly:
		if !exists {
			m[op.Register] = map[string]int64{}
		}
		for f := range fields {
			if !slices.Contains(op.Fields, f) {
				delete(fields, f)
			}
		}
	case OpDelete:
		delete(m, op.Register)
	}
	return true
}

func (m model) value(name string) Value {
	fields, exists := m[name]
	if !exists {
		return Value{}
	}
	var members []lattice.Member
	for f, v := range fields {
		if f == "" {
			return lattice.Int(v)
		}
		members = append(members, lattice.Member{Name: f, Value: lattice.Int(v)})
	}
	return lattice.Object(members...)
}

// Any writes by those who see everything do what they say, and what is stored of them says the same again.
func TestWritesDoWhatTheySay(t *testing.T) {
	names := []string{"a", "b", "c"}
	fields := []string{"", "x", "y", "z"}
	rapid.Check(t, func(t *rapid.T) {
		e, err := Open(Options{Dir: "data", FS: vfs.NewMem(), RecentBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		ctx := context.Background()
		m := model{}
		value := int64(0)
		op := rapid.Custom(func(t *rapid.T) Op {
			value++
			return Op{
				Register: rapid.SampledFrom(names).Draw(t, "register"), Kind: OpKind(rapid.SampledFrom([]int{1, 1, 1, 2, 3, 4}).Draw(t, "kind")),
				Field: rapid.SampledFrom(fields).Draw(t, "field"), Value: lattice.Int(value),
				Fields: rapid.SliceOfDistinct(rapid.SampledFrom(fields), rapid.ID).Draw(t, "fields"),
			}
		})
		commits := uint64(0)
		for range rapid.IntRange(1, 12).Draw(t, "writes") {
			ops := rapid.SliceOfN(op, 1, 6).Draw(t, "ops")
			next, ok := m.clone(), true
			for _, op := range ops {
				ok = ok && next.apply(op)
			}
			r, err := e.WriteState(ctx, Write{Ops: ops})
			if !ok {
				if !errors.Is(err, ErrInvalid) {
					t.Fatalf("%+v: got %v, want ErrInvalid", ops, err)
				}
				continue
			}
			if err != nil {
				t.Fatalf("%+v: %v", ops, err)
			}
			if !r.Dot.IsZero() {
				commits++
			}
			for _, b := range r.States {
				if want := next.value(b.Register); !b.Value.Equal(want) || b.Exists == want.IsAbsent() {
					t.Fatalf("%+v: the receipt says %s of %s, want %s", ops, b.Value, b.Register, want)
				}
			}
			for _, name := range names {
				if got, _ := e.ReadState(ctx, name); !got.Value.Equal(next.value(name)) {
					t.Fatalf("%+v: %s is %s, want %s", ops, name, got.Value, next.value(name))
				}
			}
			m = next
		}
		refold(t, e, names, commits)
	})
}

// refold builds the registers anew from the stored candidates alone, and holds them against the stored ones.
func refold(t *rapid.T, e *Engine, names []string, commits uint64) {
	registers := map[string]*lattice.Register{}
	seq := uint64(0)
	first := store.Candidate(Dot{})[:1]
	for row, err := range e.store.Scan(first, store.Behind(first), false) {
		if err != nil {
			t.Fatal(err)
		}
		c, err := lattice.ParseCandidate(row.Value)
		if err != nil {
			t.Fatal(err)
		}
		if seq++; c.Dot.Seq != seq || !bytes.Equal(c.AppendCBOR(nil), row.Value) {
			t.Fatalf("candidate %d: got %s", seq, c.Dot)
		}
		for name, a := range c.Each {
			registers[name] = registers[name].Apply(a)
		}
	}
	if seq != commits {
		t.Fatalf("got %d candidates, want %d", seq, commits)
	}
	for _, name := range names {
		v, err := e.load(name)
		if err != nil {
			t.Fatal(err)
		}
		var stored *lattice.Register
		if v != nil {
			stored = v.reg
		}
		if got, want := fmt.Sprintf("%x", stored.AppendCBOR(nil)), fmt.Sprintf("%x", registers[name].AppendCBOR(nil)); got != want {
			t.Fatalf("%s is stored as\n%s, its candidates give\n%s", name, got, want)
		}
	}
}
