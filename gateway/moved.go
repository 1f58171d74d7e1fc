package gateway

import (
	"fmt"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// Where a server can rename, a register that was renamed is renamed there: deleted and made anew it would lose what no bind
// maps. The write-back of the new address knows of the old one, whose own waits for it, and finds nothing left to be done.

// A renaming is what a batch of deltas says of one register's new name.
type renaming struct {
	deltas   int // written with it: two are a register and its new name, and more are not told apart
	old, new []spot
	ordinal  uint64
}

// renamesLocked takes the spots of a delta that is part of a renaming; they become due with the last delta of the batch. False:
// it is none.
func (b *writeBack) renamesLocked(d *engine.QDelta, spots []spot) bool {
	if d.Snapshot || !b.l.info.Protocol.Renames {
		return false
	}
	from := d.Cause.RenamedFrom
	takes := from != "" && len(spots) > 0
	if from != "" {
		if b.renames == nil {
			b.renames = map[string]*renaming{}
		}
		r := b.renames[from]
		if r == nil {
			r = &renaming{ordinal: d.Cursor.Ordinal}
			b.renames[from] = r
		}
		switch r.deltas++; {
		case d.After.Register == from && d.Deleted:
			r.old = spots
		case d.Created:
			r.new = append(r.new, spots...)
		default:
			takes = false
			r.deltas++ // it was not only renamed
		}
	}
	if d.Part == d.Of-1 {
		for _, r := range b.renames {
			b.renamedLocked(r)
		}
		b.renames = nil
	}
	return takes
}

// renamedLocked makes the spots of a renaming due.
func (b *writeBack) renamedLocked(r *renaming) {
	for _, s := range r.new {
		b.markLocked(s, r.ordinal)
	}
	for _, s := range r.old {
		d := b.markLocked(s, r.ordinal)
		if r.deltas != 2 || len(r.old) != 1 || len(r.new) != 1 {
			continue
		}
		// Both names are of one bind, or what is kept is not the same.
		to := r.new[0]
		n := b.due[to]
		set := b.l.set()
		if was, is := b.l.bindAt(set, s), b.l.bindAt(set, to); was == nil || was != is || was.Rows() || was.Events() || was.Shared() || s.server != to.server || n.outLocked() || n.locked {
			continue
		}
		if d.from != nil && !d.outLocked() && !d.locked {
			// It was renamed again before the server had its new name: what it has stands under the oldest.
			first := *d.from
			d.from = nil
			if old := b.due[first]; old != nil && first != to {
				n.from, old.behind = &first, &to
			}
			continue
		}
		n.from, d.behind = &s, &to
	}
	if len(r.old)+len(r.new) > 0 {
		b.nudge()
	}
}

// waitsForNewName tells whether a spot whose register was renamed waits until the server has the new name. Locked.
func (b *writeBack) waitsForNewName(d *due) bool {
	if d.behind == nil {
		return false
	}
	n := b.due[*d.behind]
	if n != nil && n.from != nil && *n.from == d.spot {
		return true
	}
	d.behind = nil
	return false
}

// staysLocked keeps what is at the old address where the server refuses the new one: it has what no bind maps.
func (b *writeBack) staysLocked(d *due, why error) {
	if d.from == nil {
		return
	}
	if old := b.due[*d.from]; old != nil {
		old.kept = fmt.Errorf("it was renamed to %s, which is refused, and stays until that is mended: %w", d.address, why)
	}
	d.from = nil
}

// movesHere tells the change of a register that was renamed where it was, if its server has it there. False: another write to
// that address has to end first.
func (b *writeBack) movesHere(d *due, p mapping.Place, c *wrappers.Change) bool {
	if d.from == nil || c.Gone || !c.Create {
		return true
	}
	base, known, err := b.l.base.get(*d.from)
	if err != nil || !known || base.Holds(nil, true, p.Bind.Carries) {
		return true
	}
	if !b.l.owners.try(d.from.place) {
		return false
	}
	d.moves = true
	c.From = d.from.address
	return true
}

// observedBefore tells whether a commit is still to be observed.
func (b *writeBack) observedBefore(ordinal uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observed < ordinal
}
