package engine_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// TestListIsOneMoment: a listing shows a write to several registers whole or not at all, however it falls between others.
func TestListIsOneMoment(t *testing.T) {
	e, err := engine.Open(engine.Options{Dir: t.TempDir()}) // with a real disk: what is not synced yet is what matters
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	const registers = 16
	enough := make(chan struct{})
	var wait sync.WaitGroup
	for w := range 3 {
		wait.Go(func() {
			for n := 1; ; n++ {
				select {
				case <-enough:
					return
				default:
				}
				var ops []engine.Op
				for r := range registers {
					ops = append(ops, engine.Op{Register: fmt.Sprintf("x/%02d", r), Kind: engine.OpPut, Field: "v", Value: lattice.Int(int64(n*10 + w))})
				}
				if _, err := e.WriteState(t.Context(), engine.Write{Ops: ops}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	seen := map[int64]bool{}
	for len(seen) < 60 && !t.Failed() {
		values := map[int64]int{}
		for b, err := range e.List(t.Context(), "x/", "", 0) {
			if err != nil {
				t.Fatal(err)
			}
			v, _ := b.Value.Member("v")
			values[v.Int()]++
			seen[v.Int()] = true
		}
		if len(values) > 1 {
			t.Errorf("one listing shows %v", values)
		}
	}
	close(enough)
	wait.Wait()
}
