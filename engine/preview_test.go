package engine_test

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/enginetest"
	"github.com/spooksystems/gateway/engine/lattice"
)

// What Preview says of other declarations is what registers show once they are declared, and nothing else has changed.
func TestPreview(t *testing.T) {
	c := newClock()
	a, b := open(t, passive(vfs.NewMem(), c)), open(t, passive(vfs.NewMem(), c))
	// Two writers who did not know of each other: which of them shows is the rule's to say.
	write(t, a, enginetest.Put("peak/1", "v", lattice.Int(9)), enginetest.Put("peak/2", "v", lattice.Int(1)), enginetest.Put("low/1", "v", lattice.Int(9)))
	write(t, b, enginetest.Put("peak/1", "v", lattice.Int(3)), enginetest.Put("low/1", "v", lattice.Int(3)))
	give(t, b, a)
	rule := func(prefix string, kind lattice.RuleKind) engine.Declaration {
		return engine.Declaration{Template: prefix + "{x}", Pattern: prefix + "[^/]+", Prefix: prefix, Fields: map[string]engine.CollapseRule{"v": {Kind: kind, Of: "number"}}}
	}
	for _, next := range [][]engine.Declaration{
		{rule("peak/", lattice.Max)}, {rule("peak/", lattice.Min), rule("low/", lattice.Max)}, {rule("peak/", lattice.Min)}, nil,
	} {
		was := map[string]string{}
		for _, r := range []string{"peak/1", "peak/2", "low/1"} {
			was[r] = value(t, a, r)
		}
		planned := map[string]string{}
		for d, err := range a.Preview(t.Context(), next) {
			if err != nil {
				t.Fatal(err)
			}
			planned[d.After.Register] = string(d.After.Value.AppendJSON(nil))
		}
		for r, v := range was {
			if now := value(t, a, r); now != v {
				t.Fatalf("a preview changed %s from %s to %s", r, v, now)
			}
		}
		if err := a.Declare(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		for r, v := range was {
			now := value(t, a, r)
			if want, ok := planned[r]; ok && now != want || !ok && now != v || ok && want == v {
				t.Errorf("%s was %s and is %s, previewed %q", r, v, now, want)
			}
		}
	}
}
