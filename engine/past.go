package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// StateAt implements State.
func (e *Engine) StateAt(ctx context.Context, register string, at Moment) (StateBlock, error) {
	if err := ctx.Err(); err != nil {
		return StateBlock{}, err
	}
	if err := CheckName(register); err != nil {
		return StateBlock{}, err
	}
	n := 0
	for _, set := range [...]bool{!at.Time.IsZero(), !at.ID.IsZero(), at.Ordinal != 0} {
		if set {
			n++
		}
	}
	if n != 1 {
		return StateBlock{}, invalid("a moment is a time, a state id or an ordinal")
	}
	if err := e.enter(); err != nil {
		return StateBlock{}, err
	}
	defer e.leave()
	published := e.feed.published.Load()
	prefix := len(store.HistoryPrefix(register))
	var oldest *QDelta
	// From the newest back: what is asked for is most often near.
	for row, err := range e.scan(store.History(register, 0), store.History(register, published+1), true) {
		if err != nil {
			return StateBlock{}, err
		}
		d, err := parseDelta(register, Cursor{e.log, ordinalOf(row.Key[prefix:])}, row.Value)
		if err != nil {
			return StateBlock{}, err
		}
		oldest = &d
		switch {
		case !at.ID.IsZero():
			if d.After.ID == at.ID {
				return d.After, nil
			}
		case at.Ordinal != 0:
			if d.Cursor.Ordinal <= at.Ordinal {
				return d.After, nil
			}
		case d.After.Time <= lattice.StampOf(at.Time.Truncate(time.Millisecond))|0xffff:
			return d.After, nil
		}
	}
	if oldest != nil && at.ID.IsZero() && oldest.Before.IsZero() {
		return StateBlock{Register: register}, nil // it was not there yet
	}
	return StateBlock{}, fmt.Errorf("%w: register %q has no such state, or its history does not reach back to it", ErrNotFound, register)
}

// Revert implements State.
func (e *Engine) Revert(ctx context.Context, register string, to Moment, by Cause) (Receipt, error) {
	past, err := e.StateAt(ctx, register, to)
	if err != nil {
		return Receipt{}, err
	}
	now, err := e.ReadState(ctx, register)
	if err != nil {
		return Receipt{}, err
	}
	if by.Verb == "" {
		by.Verb = "revert"
	}
	w := Write{By: by, If: []Precondition{{Register: register, Match: []StateID{now.ID}}}, Ops: lattice.Restore(register, past.Value)}
	if now.ID.IsZero() {
		w.If = nil
	}
	return e.WriteState(ctx, w)
}
