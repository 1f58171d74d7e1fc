package sim

import "testing"

// caught says that the simulator notices a mutant, by an invariant's name, within so many seeds. The world is otherwise as
// in TestSim: a violation of the code as it is would be found there.
func caught(t *testing.T, kind Kind, m Mutant, seeds uint64, by ...string) {
	t.Helper()
	missing := map[string]bool{}
	for _, invariant := range by {
		missing[invariant] = true
	}
	for seed := range seeds {
		if v := Run(Options{Seed: seed, Kind: kind, Mutant: m}).Violation; v != nil && missing[v.Invariant] {
			t.Logf("seed %d: %.200s", seed, v)
			if delete(missing, v.Invariant); len(missing) == 0 {
				return
			}
		}
	}
	for invariant := range missing {
		t.Errorf("%d histories, and none violates: %s", seeds, invariant)
	}
}

func TestMutantReuseIncarnation(t *testing.T) {
	caught(t, Core, ReuseIncarnation, 2000, NoRefusal, AsOracle)
}

func TestMutantJoinWithoutContext(t *testing.T) {
	caught(t, Core, JoinWithoutContext, 500, Resurrection)
}

func TestMutantMarkerWithoutVector(t *testing.T) {
	caught(t, Core, MarkerWithoutVector, 500, NoDivergence, AsOracle)
}

func TestMutantIgnoreDeps(t *testing.T) {
	caught(t, Core, IgnoreDeps, 500, NoDivergence)
}

func TestMutantAckBeforeSync(t *testing.T) {
	caught(t, Core, AckBeforeSync, 200, Durable)
	caught(t, Full, AckBeforeSync, 100, Durable)
}

func TestMutantCursorBeforeEffect(t *testing.T) {
	caught(t, Core, CursorBeforeEffect, 1000, VectorsEqual)
	caught(t, Full, CursorBeforeEffect, 300, Live)
}

func TestMutantDeleteWithoutHiddenFields(t *testing.T) {
	caught(t, Core, DeleteWhole, 500, WholeRecord)
	caught(t, Full, DeleteWhole, 200, WholeRecord)
}

func TestMutantFoldBeforeRetirement(t *testing.T) {
	caught(t, Core, FoldBeforeRetirement, 2000, Sums)
}

func TestMutantTrimWithoutFloor(t *testing.T) {
	caught(t, Core, TrimUnchecked, 500, Live, VectorsEqual)
}

// A baseline moves in the feed's order, when the feed shows the effect.
func TestMutantBaselineMovedByWrite(t *testing.T) {
	for seed := range uint64(5000) {
		if v := RunFeed(seed, false); v != nil {
			t.Fatalf("seed %d: %v", seed, v)
		}
	}
	for seed := range uint64(500) {
		if v := RunFeed(seed, true); v != nil && v.Invariant == Reverts {
			t.Logf("seed %d: %v", seed, v)
			return
		}
	}
	t.Errorf("500 histories, and none violates: %s", Reverts)
}
