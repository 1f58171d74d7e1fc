package gateway

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A document at a real server (`each`) has a baseline for each of its rows, and one of its own, under no register: which
// version of it was seen, and under which meaning. It is written whole, so its write-back is one spot, too: that with no
// register. Which rows are to be looked at is noted there.

// documentSpot is the place of a document itself.
func documentSpot(p place) spot { return spot{place: p} }

// spotOf is where the write-back of a register at a place is due.
func spotOf(b *mapping.Bind, s spot) spot {
	if b.Rows() {
		return documentSpot(s.place)
	}
	return s
}

// bindAt is the bind by which a register is at a place, nil if none has it there.
func (l *link) bindAt(set *mapping.Set, s spot) *mapping.Bind {
	for _, t := range set.AllAt(l.name, s.server, s.address) {
		if t.Document == nil && t.Register == s.register || t.Document != nil && t.Document.Has(s.register) {
			return t.Bind
		}
	}
	return nil
}

// shownAt lists the registers that a server shows in a document, by their baselines.
func (b *baselines) shownAt(p place, d *mapping.Document) (map[string]struct{}, error) {
	out := map[string]struct{}{}
	prefix := b.wrapper + "\x00" + p.String() + "\x00"
	for r, err := range b.store.EachKept(tableBaseline, prefix+d.Prefix()) {
		if err != nil {
			return nil, kind(err)
		}
		register := r.Key[len(prefix):]
		if register == "" || !d.Has(register) {
			continue
		}
		base, err := engine.ParseBaseline(r.Value)
		if err != nil {
			return nil, err
		}
		if !base.Holds(nil, true, nil) {
			out[register] = struct{}{}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s, r := range b.recent { // what is on its way to the disk
		if s.place != p || s.register == "" || !strings.HasPrefix(s.register, d.Prefix()) || !d.Has(s.register) {
			continue
		}
		if delete(out, s.register); r.known && !r.base.Holds(nil, true, nil) {
			out[s.register] = struct{}{}
		}
	}
	return out, nil
}

// spread has a document that a server shows, or whose end it shows, speak of the registers which it lacks: each of those
// that the server is known to have had in it is gone.
func (l *link) spread(p place, effects []mapping.Effect) ([]mapping.Effect, error) {
	i := slices.IndexFunc(effects, func(e mapping.Effect) bool { return e.Document != nil })
	if i < 0 {
		return effects, nil
	}
	shown, err := l.base.shownAt(p, effects[i].Document)
	if err != nil {
		return nil, err
	}
	return lacking(effects, i, shown)
}

// lacking puts the end of the registers that are shown, and that a document lacks, in the place of its effect, the i-th.
func lacking(effects []mapping.Effect, i int, shown map[string]struct{}) ([]mapping.Effect, error) {
	doc := effects[i]
	out := slices.Delete(slices.Clone(effects), i, i+1)
	named := namedBy(effects, doc)
	var gone []string
	for r := range shown {
		if _, ok := named[r]; !ok {
			gone = append(gone, r)
		}
	}
	if err := tooMany(doc.Bind, len(gone), len(shown)); err != nil {
		return nil, err
	}
	slices.Sort(gone)
	for _, r := range gone {
		out = append(out, mapping.Effect{Bind: doc.Bind, Register: r, Delete: true})
	}
	return out, nil
}

// documentNote gives the record that a document was seen, or that it is gone.
func (l *link) documentNote(p place, b *mapping.Bind, v wrappers.Version, gone bool) func(engine.Dot) engine.Record {
	return func(engine.Dot) engine.Record {
		base := engine.Baseline{Version: string(v), Bind: b.Hash(), Whole: true}
		if !gone {
			base.Fields = []engine.BaselineField{{Value: lattice.Bool(true)}}
		}
		return l.base.record(documentSpot(p), base)
	}
}

// rowsBind tells which bind's document an observation is of, and whether it says that it is gone.
func rowsBind(effects []mapping.Effect) (b *mapping.Bind, gone bool) {
	for i := range effects {
		if effects[i].Bind.Rows() {
			return effects[i].Bind, effects[i].Document != nil && effects[i].Delete
		}
	}
	return nil, false
}

// markRow makes a row of a document due.
func (b *writeBack) markRow(p place, register string, ordinal uint64) {
	b.mu.Lock()
	b.markRowLocked(p, register, ordinal)
	b.mu.Unlock()
	b.nudge()
}

func (b *writeBack) markRowLocked(p place, register string, ordinal uint64) {
	if d := b.touchLocked(documentSpot(p), ordinal); !d.all {
		if d.rows == nil {
			d.rows = map[string]struct{}{}
		}
		d.rows[register] = struct{}{}
	}
}

// takeRows gives the rows that a document's turn is about, nil for all.
func (b *writeBack) takeRows(d *due) map[string]struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := d.rows
	if rows == nil {
		rows = map[string]struct{}{}
	}
	if d.all || d.force || d.read {
		rows = nil
	}
	d.all, d.rows = false, nil
	return rows
}

// giveRowsBack makes them due again: their turn has not come.
func (b *writeBack) giveRowsBack(d *due, rows map[string]struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case rows == nil:
		d.all, d.rows = true, nil
	case !d.all && d.rows == nil:
		d.rows = rows
	case !d.all:
		maps.Copy(d.rows, rows)
	}
}

// prepareRows is prepare for a document.
func (b *writeBack) prepareRows(ctx context.Context, d *due, t *mapping.Target) (c wrappers.Change, ok bool, err error) {
	l := b.l
	taken := b.takeRows(d)
	defer func() {
		if err != nil {
			b.giveRowsBack(d, taken)
		}
	}()
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	own, known, err := l.base.get(d.spot)
	if err != nil {
		return c, false, err
	}
	c = wrappers.Change{Server: d.server, Address: d.address, Previous: wrappers.Version(own.Version), Options: t.Bind.Options()}
	if d.read || !l.info.Protocol.Feed && t.Bind.Inward() && (!known || own.Bind != t.Bind.Hash()) {
		c.ReadBack, d.read = true, true
		return b.fly(d, t.Bind, c), true, nil
	}
	if !t.Bind.Outward() {
		return c, false, nil
	}
	if b.waits(t.Bind) {
		return c, false, errWaits
	}
	rows, err := l.rowsOf(ctx, t.Document)
	if err != nil {
		return c, false, err
	}
	rows = slices.DeleteFunc(rows, func(st engine.StateBlock) bool { return !l.tells(st.Register, t.Bind) })
	names := taken
	if names == nil {
		if names, err = l.base.shownAt(d.place, t.Document); err != nil {
			return c, false, err
		}
		for i := range rows {
			names[rows[i].Register] = struct{}{}
		}
	}
	changed, err := b.changedRows(ctx, d, t, rows, names)
	if err != nil || len(changed) == 0 {
		return c, false, err
	}
	p := mapping.Place{Bind: t.Bind, Wrapper: l.name, Server: d.server, Address: d.address}
	env := l.env(ctx)
	c.Create = known && own.Holds(nil, true, nil) || !known
	if c.Payload, err = t.Bind.OutRows(p, rows, true, nil, env); err != nil {
		return c, false, err
	}
	c.Onto = func(doc wrappers.Payload) (wrappers.Payload, error) {
		return t.Bind.OutRows(p, changed, false, &doc, env)
	}
	newest := changed[0]
	for i := range changed {
		if changed[i].Ordinal > newest.Ordinal {
			newest = changed[i]
		}
	}
	d.version = newest
	c.Version = documentVersion(rows)
	c.Cursor = wrappers.Cursor(engine.Cursor{Log: b.logID.Load(), Ordinal: newest.Ordinal}.String())
	if t.Bind.Inward() {
		d.stuck = time.Time{}
		var records []engine.Record
		for r, sent := range d.sentRows {
			s := spot{d.place, r}
			base, _, err := l.base.get(s)
			if err != nil {
				return c, false, err
			}
			base.AddSent(sent)
			base.Bind = t.Bind.Hash()
			records = append(records, l.base.sending(s, base))
		}
		l.keepQuietly(records...)
	}
	return b.fly(d, t.Bind, c), true, nil
}

// changedRows gives those of the named rows that the server is not known to have as they are, by name, and notes in d
// what it will have.
func (b *writeBack) changedRows(ctx context.Context, d *due, t *mapping.Target, rows []engine.StateBlock, names map[string]struct{}) ([]engine.StateBlock, error) {
	l := b.l
	d.sentRows = map[string]engine.Sent{}
	sorted := make([]string, 0, len(names))
	for r := range names {
		sorted = append(sorted, r)
	}
	slices.Sort(sorted)
	var changed []engine.StateBlock
	for _, r := range sorted {
		s := spot{d.place, r}
		if l.base.leads(s) {
			return nil, errWaits
		}
		if !t.Document.Has(r) || b.inConflict(s) || !l.tells(r, t.Bind) {
			continue
		}
		st := engine.StateBlock{Register: r}
		i, here := slices.BinarySearchFunc(rows, r, func(st engine.StateBlock, r string) int { return strings.Compare(st.Register, r) })
		if here {
			st = rows[i]
		} else {
			now, err := l.store.ReadState(ctx, r)
			if err != nil {
				return nil, kind(err)
			}
			st.ID, st.Ordinal, st.Time, st.Waiting = now.ID, now.Ordinal, now.Time, now.Waiting
		}
		base, known, err := l.base.get(s)
		if err != nil {
			return nil, err
		}
		if st.Waiting > 0 {
			if theirs, err := b.undecided(ctx, r, &base); err != nil || theirs {
				if err != nil {
					return nil, err
				}
				continue
			}
		}
		fields := shownFields(t.Bind.Mapped(r, st))
		if !here && t.Bind.OnDelete() == "ignore" {
			continue
		}
		if !d.force && holdsRow(t.Bind, &base, known, fields, !here) {
			if here && known && learns(t.Bind, &base, fields, st) {
				l.keepQuietly(l.base.sending(s, base))
			}
			continue
		}
		if len(base.Sent) >= engine.MaxSent && l.info.Protocol.Feed && !b.lost(d) {
			return nil, errWaits
		}
		sent := engine.Stored(fields, st)
		sent.Gone = !here
		d.sentRows[r] = sent
		changed = append(changed, st)
	}
	return changed, nil
}

// holdsRow tells whether a server is known to have a row as it is to be.
func holdsRow(b *mapping.Bind, base *engine.Baseline, known bool, fields []engine.ShownField, gone bool) bool {
	return base.Holds(fields, gone, b.Carries) && (gone || known || len(fields) > 0) // as owes has it
}

// doneRows stores the baselines that follow from a document the server took.
func (b *writeBack) doneRows(d *due, e wrappers.Effect) error {
	l := b.l
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	var records []engine.Record
	for r, sent := range d.sentRows {
		s := spot{d.place, r}
		base, _, err := l.base.get(s)
		if err != nil {
			return err
		}
		base.Bind = d.bind.Hash()
		if l.info.Protocol.Feed && d.bind.Inward() {
			base.Taken(sent)
		} else if base.Took(sent, d.bind.Carries); sent.Gone {
			base.Exists = nil
		}
		records = append(records, l.base.record(s, base))
	}
	records = append(records, l.documentNote(d.place, d.bind, e.Version, false)(engine.Dot{}))
	for _, r := range slices.Sorted(maps.Keys(d.sentRows)) {
		told := *d
		told.register = r
		records = append(records, toldRecord(l, &told))
	}
	l.keepQuietly(records...)
	return nil
}
