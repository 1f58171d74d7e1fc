package sim

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// Reverts is that what a server's feed shows late reverted what somebody wrote who had seen it.
const Reverts = "an older event reverts nothing"

// RunFeed runs one history of a register and a server with a change feed, which a gateway keeps equal by its baseline. With
// early, the baseline moves when the server takes a write, and not when the feed shows it.
func RunFeed(seed uint64, early bool) (v *Violation) {
	const register = "plain/0"
	fields := []string{"x", "y"}
	rng := rand.New(rand.NewPCG(seed, 0xfeed))
	now := time.Duration(0)
	n, err := startCore(nil, settings{clock: &clock{world: &now}, random: &source{Rand: rng}})
	if err != nil {
		return &Violation{Invariant: NoError, Text: err.Error()}
	}
	var baseline engine.Baseline
	server := map[string]int64{}
	var events []map[string]int64 // what the feed has not shown yet
	count := int64(0)
	beaten := map[int64]bool{} // values that somebody saw and replaced
	state := func() engine.StateBlock { b, _ := n.read(register); return b }
	has := func(field string) int64 { m, _ := state().Value.Member(field); return m.Int() }
	event := func() {
		e := map[string]int64{}
		for _, f := range fields {
			e[f] = server[f]
		}
		events = append(events, e)
	}
	submit := func(ops []engine.Op) engine.Dot {
		dot, wait, err := n.submit(engine.Write{Ops: ops})
		if err == nil {
			_, err = wait()
		}
		if err != nil {
			panic(&Violation{NoError, 0, err.Error()})
		}
		return dot
	}
	show := func() {
		if len(events) == 0 {
			return
		}
		shown := engine.Shown{Clears: fields, Whole: true, Feed: true}
		for _, f := range fields {
			shown.Fields = append(shown.Fields, engine.ShownField{Field: f, Value: lattice.Int(events[0][f])})
		}
		events = events[1:]
		verdict := baseline.Reconcile(register, shown, state(), engine.SourceFirst)
		baseline = verdict.Next
		if len(verdict.Ops) > 0 {
			baseline.Became(submit(verdict.Ops))
		}
	}
	writeBack := func() bool {
		b := state()
		if !b.Exists || len(baseline.Sent) >= engine.MaxSent {
			return false
		}
		var whole []engine.ShownField
		for _, m := range b.Value.Members() {
			whole = append(whole, engine.ShownField{Field: m.Name, Value: m.Value})
		}
		if baseline.Holds(whole, false, nil) {
			return false
		}
		write := map[string]int64{}
		for _, f := range whole {
			have, _ := baseline.Get(f.Field)
			if k := len(baseline.Sent); k > 0 { // what was sent last is on its way
				i := slices.IndexFunc(baseline.Sent[k-1].Fields, func(s engine.BaselineField) bool { return s.Field == f.Field })
				have = baseline.Sent[k-1].Fields[max(i, 0)]
			}
			if server[f.Field] != have.Value.Int() {
				return false // the server takes it only from who knows what it has
			}
			if !have.Value.Equal(f.Value) {
				write[f.Field] = f.Value.Int()
			}
		}
		maps.Copy(server, write)
		event()
		sent := engine.Stored(whole, b)
		if early {
			baseline.Took(sent, nil)
		} else {
			baseline.AddSent(sent)
			baseline.Taken(sent)
		}
		return true
	}
	defer func() {
		if p, ok := recover().(*Violation); ok {
			v = p
		}
	}()
	server["x"], server["y"] = -1, -2
	event()
	show()
	for range 4 + rng.IntN(20) {
		now += time.Second
		f := fields[rng.IntN(2)]
		switch rng.IntN(6) {
		case 0, 1: // another site writes the register
			beaten[has(f)] = true
			count++
			submit([]engine.Op{{Register: register, Kind: engine.OpPut, Field: f, Value: lattice.Int(count)}})
		case 2: // a client of the server
			beaten[server[f]] = true
			count++
			server[f] = count
			event()
		case 3, 4:
			writeBack()
		default:
			show()
		}
	}
	for range 100 {
		for len(events) > 0 {
			show()
		}
		if !writeBack() {
			break
		}
	}
	for _, f := range fields {
		if has(f) != server[f] || beaten[has(f)] {
			return &Violation{Reverts, int(count), fmt.Sprintf("%s is %d in the register and %d at the server; replaced by who saw it: %v", f, has(f), server[f], beaten[has(f)])}
		}
	}
	return nil
}
