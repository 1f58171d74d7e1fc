package engine

import (
	"context"
	"strings"

	"github.com/spooksystems/gateway/engine/lattice"
)

// Explain implements State.
func (e *Engine) Explain(ctx context.Context, register string) (Explanation, error) {
	if err := ctx.Err(); err != nil {
		return Explanation{}, err
	}
	if err := CheckName(register); err != nil {
		return Explanation{}, err
	}
	if err := e.enter(); err != nil {
		return Explanation{}, err
	}
	defer e.leave()
	rules := e.rules.Load()
	decl := rules.decl(register)
	v, err := e.committed(register)
	if err != nil {
		return Explanation{}, err
	}
	x := Explanation{State: StateBlock{Register: register}}
	var reg *lattice.Register
	switch {
	case v == nil:
	case e.unitOf(v) != "":
		unit, err := e.committed(e.unitOf(v))
		if err != nil {
			return Explanation{}, err
		}
		if unit != nil {
			x.State, reg = e.member(register, unit), unit.reg.Member(register)
		}
	default:
		x.State, reg = e.sight(v).block, v.reg
	}
	if decl != nil {
		x.Declaration, x.Source = decl.Template, rules.source(decl.Template)
		x.Mode, x.DeleteWins = decl.Commit, decl.DeleteWins
		x.Group = strings.TrimPrefix(decl.Unit, lattice.UnitPrefix)
	}
	if reg == nil {
		return x, nil
	}
	eye := lattice.Eye{Heard: e.heard(), Missing: e.missing}
	for _, f := range reg.Explain(decl, &eye) {
		out := FieldExplanation{Field: f.Field, Rule: f.Rule, Value: f.Value, Why: f.Why}
		for _, entry := range f.Entries {
			out.Entries = append(out.Entries, e.live(entry.Entry, entry.Wins))
		}
		x.Fields = append(x.Fields, out)
	}
	for _, entry := range reg.Entries(lattice.Existence) {
		x.Existence = append(x.Existence, e.live(entry, x.State.Exists))
	}
	for _, entry := range reg.Entries(lattice.Deletion) {
		x.Deleted = append(x.Deleted, e.live(entry, !x.State.Exists))
	}
	x.Hidden = !x.State.Exists && len(x.Fields) > 0
	if e.unitOf(v) == "" {
		x.Pending, err = e.pendingOn(register)
	}
	return x, err
}

func (e *Engine) live(entry lattice.Entry, wins bool) LiveEntry {
	e.mu.Lock()
	owner, _ := e.seqr.core.Owner(entry.Dot.Origin)
	e.mu.Unlock()
	return LiveEntry{
		Dot: entry.Dot, Time: entry.Time, By: entry.By.String(), Cause: e.causeOf(entry.Dot, entry.By), Node: owner.Origin.Endpoint,
		Value: entry.Value, Wins: wins,
	}
}
