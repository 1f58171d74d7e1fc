package gateway

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// Seen implements wrappers.Link: what a server now says becomes candidates where it is news.
func (l *link) Seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	l.seen.Lock()
	defer l.seen.Unlock()
	b := sightings{link: l, ctx: ctx}
	for i := range what {
		if err := b.observe(at, &what[i]); err != nil {
			return errors.Join(err, b.flush())
		}
	}
	if err := errors.Join(b.end(), b.flush()); err != nil {
		return err
	}
	if len(at.Keep) > 0 {
		if err := l.store.KeepRecords(ctx, true, l.own(at.Keep)...); err != nil {
			return kind(err)
		}
	}
	if at.Snapshot == wrappers.SnapshotEnd {
		l.back.listed()
	}
	return nil
}

// sightings are the observations of one Seen: sequenced in the server's order, synced together.
type sightings struct {
	*link
	ctx     context.Context
	waiting []func() error
	touched map[string]bool // registers with a commit that is not visible yet
	whole   *whole          // what the server committed as one, until all of it is here
}

func (b *sightings) flush() error {
	var err error
	for _, wait := range b.waiting {
		err = errors.Join(err, wait())
	}
	b.waiting, b.touched = nil, nil
	return err
}

// end writes what the server committed as one.
func (b *sightings) end() error {
	if b.whole == nil {
		return nil
	}
	w := b.whole
	b.whole = nil
	return w.commit()
}

func (b *sightings) observe(at wrappers.Position, o *wrappers.Observation) error {
	l := b.link
	if l.info.Protocol.Syntax.Fold {
		op := wrappers.Operation{Verb: o.Verb, Server: o.Server, Address: o.Address, To: o.To}
		if err := l.spelled(b.ctx, &op); err != nil {
			return err
		}
		spelled := *o
		spelled.Address, spelled.To = op.Address, op.To
		o = &spelled
	}
	p := l.at(l.set(), o.Server, o.Address)
	polled := (!at.Feed || at.Asked && !o.Began.IsZero()) && !l.back.reading(p)
	if polled && !at.Feed {
		// An answer that a write may have overtaken says nothing.
		if !l.owners.try(p) {
			l.Count("stale_polls", 1)
			return nil
		}
		defer l.owners.release(p)
	}
	op := wrappers.Operation{Verb: o.Verb, Server: o.Server, Address: o.Address, To: o.To, Payload: o.Payload, Who: o.Who, Tag: o.Tag}
	started := time.Now()
	record := l.take(recording.Seen, &op)
	if o.More || b.whole != nil || o.Verb == wrappers.Rename {
		return b.part(at, p, o, &op, started, record)
	}
	effects, err := l.set().In(l.name, &op, l.env(b.ctx))
	if errors.Is(err, wrappers.ErrUnmapped) {
		l.took(record, reason(err), "", nil)
		return b.keep(o.Keep)
	}
	if err != nil {
		l.event(In, &op, started, sourceOf(effects), nil, err)
		l.took(record, reason(err), sourceOf(effects), nil)
		return errors.Join(l.park(b.ctx, &op, "in", "", err, false), b.keep(o.Keep))
	}
	return b.alone(at, p, o, &op, effects, started, record, polled)
}

// part takes an observation of what the server committed as one with others. It may be alone in it.
func (b *sightings) part(at wrappers.Position, p place, o *wrappers.Observation, op *wrappers.Operation, started time.Time, record *recording.Operation) error {
	if b.whole == nil {
		b.whole = &whole{sightings: b, at: at}
		b.whole.reset()
	}
	if o.Verb == wrappers.Rename && len(o.Payload.Raw) == 0 && b.whole.shows(p) {
		// What moves is what was last shown there.
		if err := b.whole.commit(); err != nil {
			return err
		}
	}
	s := &sighting{o: o, op: *op, started: started, record: record, keep: b.own(o.Keep)}
	says, from, err := b.sayings(b.ctx, b.set(), op)
	if o.Verb == wrappers.Rename && wrappers.Kind(err) == wrappers.ErrNotFound && len(says) > 0 {
		err = nil // nobody knows what moves: what is known is where it is no more
	}
	var effects []mapping.Effect
	for _, say := range says {
		effects = append(effects, say.effects...)
	}
	s.source, s.from = sourceOf(effects), from
	switch {
	case errors.Is(err, wrappers.ErrUnmapped) || err == nil && len(effects) == 0:
		b.took(record, reason(err), "", nil)
		says, s.record = nil, nil
	case err != nil:
		if err := b.whole.parkSighting(s, err); err != nil {
			return err
		}
		if says = slices.DeleteFunc(says, func(say saying) bool { return say.at != p }); o.Verb != wrappers.Rename {
			says = nil
		}
	case !joins(at, says):
		if o.Verb == wrappers.Rename {
			return b.parted(at, o, op, says, started)
		}
		if err := b.end(); err != nil {
			return err
		}
		return b.alone(at, p, o, op, effects, started, record, false)
	}
	if err := b.whole.take(s, says); err != nil {
		return err
	}
	if !o.More {
		return b.end()
	}
	return nil
}

// parted has a rename that can't be one write, of documents say, be two: what was there goes, and what is there comes.
func (b *sightings) parted(at wrappers.Position, o *wrappers.Observation, op *wrappers.Operation, says []saying, started time.Time) error {
	if err := b.end(); err != nil {
		return err
	}
	for i, say := range says {
		part, of := *op, *o
		part.Verb, part.To, part.Payload = wrappers.Delete, "", wrappers.Payload{}
		if say.at == b.at(b.set(), op.Server, op.To) {
			part.Verb, part.Address, part.Payload = wrappers.Put, op.To, op.Payload
		}
		if of.Verb, of.Address, of.To = part.Verb, part.Address, ""; i < len(says)-1 {
			of.Keep = nil
		}
		if err := b.alone(at, say.at, &of, &part, say.effects, started, b.take(recording.Seen, &part), false); err != nil {
			return err
		}
	}
	return nil
}

// alone has an observation be a write of its own.
func (b *sightings) alone(at wrappers.Position, p place, o *wrappers.Observation, op *wrappers.Operation, effects []mapping.Effect, started time.Time, record *recording.Operation, polled bool) error {
	l := b.link
	if hasRows(effects) {
		if polled && !o.Began.IsZero() && l.base.touchedSince(documentSpot(p), o.Began) {
			l.Count("stale_polls", 1)
			if at.Asked {
				l.back.lookAgain(documentSpot(p))
				return b.keep(o.Keep)
			}
			return nil
		}
		if b.touched != nil { // which rows are gone is decided from what the server showed before
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	for _, e := range effects {
		if b.touched[e.Register] {
			// What follows is decided from the register's state, so that has to be visible.
			if err := b.flush(); err != nil {
				return err
			}
		}
	}
	wait, registers, err := b.submit(at, p, o, op, effects, polled)
	if err != nil {
		l.event(In, op, started, sourceOf(effects), nil, err)
		l.took(record, reason(err), sourceOf(effects), nil)
		if wrappers.Kind(err) == wrappers.ErrUnavailable {
			return err // the server owes it to us still
		}
		l.base.forget(p)
		return errors.Join(l.park(b.ctx, op, "in", "", err, false), b.keep(o.Keep))
	}
	if wait == nil {
		l.took(record, recording.NoNews, sourceOf(effects), nil)
		return nil
	}
	if b.touched == nil {
		b.touched = map[string]bool{}
	}
	for _, r := range registers {
		b.touched[r] = true
	}
	// The caller owns the payload again when Seen returns, not before: op stays whole until then.
	b.waiting = append(b.waiting, func() error {
		r, err := wait()
		l.event(In, op, started, sourceOf(effects), &r, err)
		l.took(record, reason(err), sourceOf(effects), registersOf(&r))
		return err
	})
	return nil
}

// submit sequences what an observation means. A nil wait: it was no news.
func (b *sightings) submit(at wrappers.Position, p place, o *wrappers.Observation, op *wrappers.Operation, effects []mapping.Effect, polled bool) (wait func() (engine.Receipt, error), registers []string, err error) {
	l := b.link
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	var w engine.Write
	var then []func(engine.Dot) engine.Record
	var spots []spot
	if doc, gone := rowsBind(effects); doc != nil {
		if effects, err = l.spread(p, effects); err != nil {
			return nil, nil, err
		}
		w.Bulk = true
		then = append(then, l.documentNote(p, doc, o.Version, gone))
	}
	for _, e := range effects {
		s := spot{p, e.Register}
		if polled && !o.Began.IsZero() && l.base.touchedSince(s, o.Began) {
			l.Count("stale_polls", 1)
			if at.Asked {
				l.back.lookAgain(spotOf(e.Bind, s))
			}
			continue
		}
		spots = append(spots, s)
		ops, baseline, err := b.decide(at, s, e, o)
		if err != nil {
			return nil, nil, err
		}
		w.Ops = append(w.Ops, ops...)
		then = append(then, baseline)
	}
	if len(w.Ops) == 0 {
		return nil, nil, kind(l.store.KeepRecords(b.ctx, false, append(l.own(o.Keep), bind(then)(engine.Dot{})...)...))
	}
	w.By, w.Tag, w.Keep = l.causeAt(op, p, sourceOf(effects)), o.Tag, l.own(o.Keep)
	w.KeepWith = bind(then)
	for _, op := range w.Ops {
		registers = append(registers, op.Register)
	}
	wait, err = l.submit(b.ctx, w, spots)
	return wait, registers, err
}

// decide says what one effect of an observation means: the operations, and the baseline to be stored with them.
func (b *sightings) decide(at wrappers.Position, s spot, e mapping.Effect, o *wrappers.Observation) ([]engine.Op, func(engine.Dot) engine.Record, error) {
	l := b.link
	ops, baseline, err := l.reconcile(b.ctx, s, e, engine.Shown{
		Wire: o.Wire, State: at.Snapshot != wrappers.NoSnapshot || !at.Feed, Ours: o.Ours, Feed: at.Feed, Asked: at.Asked || o.Foreign, Version: string(o.Version),
		Alone: o.Retained,
	})
	if err == nil && e.Bind.First() != "" && l.back.heard(e.Bind) {
		l.back.holdSeen(s, e.Bind, o)
	}
	if err == nil && len(ops) > 0 && !l.back.asked(s) { // what is asked after was permitted when it began
		err = l.permitted(&o.Who, []mapping.Effect{e})
	}
	return ops, baseline, err
}

// submit sequences a write whose baselines go with it; they may be compared with the registers
// again when wait returns.
func (l *link) submit(ctx context.Context, w engine.Write, spots []spot) (wait func() (engine.Receipt, error), err error) {
	over := l.base.lead(spots)
	dot, durable, err := l.store.Submit(ctx, w)
	if err != nil {
		over()
		return nil, kind(err)
	}
	if dot == (engine.Dot{}) {
		if err := l.back.unchanged(ctx, spots); err != nil {
			over()
			_, failed := durable()
			return nil, kind(errors.Join(err, failed))
		}
	}
	return func() (engine.Receipt, error) {
		r, err := durable()
		over()
		l.back.nudge()
		return r, kind(err)
	}, nil
}

func (b *sightings) keep(records []wrappers.Record) error {
	if len(records) == 0 {
		return nil
	}
	return kind(b.store.KeepRecords(b.ctx, false, b.own(records)...))
}

// bind makes the records that need the candidate's dot.
func bind(then []func(engine.Dot) engine.Record) func(engine.Dot) []engine.Record {
	return func(d engine.Dot) []engine.Record {
		out := make([]engine.Record, 0, len(then))
		for _, f := range then {
			if f != nil {
				out = append(out, f(d))
			}
		}
		return out
	}
}

// reconcile decides what one effect of a write in front of or inside a real server means: the
// operations, and the baseline to be stored with them (nil: it stays).
func (l *link) reconcile(ctx context.Context, s spot, e mapping.Effect, shown engine.Shown) ([]engine.Op, func(engine.Dot) engine.Record, error) {
	base, known, err := l.base.get(s)
	if err != nil {
		return nil, nil, err
	}
	cur, err := l.store.ReadState(ctx, s.register)
	if err != nil {
		return nil, nil, kind(err)
	}
	if e.Dropped > 0 {
		l.Count("dropped_members", e.Dropped)
	}
	if e.Absent && !known && shown.State && cur.Exists {
		// At first contact that a server lacks an address is no word against the register's.
		e.Delete, e.Whole, e.Fields = true, false, nil
	}
	if e.Bind.Rows() && e.Whole {
		shown.Wire = false // who wrote the document for the sake of one row has not written the others
	}
	shown = shownBy(e, cur, shown)
	if shown.State && !shown.Feed {
		if sent, ok, err := l.couldBeOurs(ctx, s, e.Bind, base, shown); err != nil {
			return nil, nil, err
		} else if ok {
			base.AddSent(sent)
		}
	}
	v := base.Reconcile(s.register, shown, cur, l.firstContact(e.Bind))
	if err := l.back.conflict(ctx, s, e.Bind, v.Conflict); err != nil || len(v.Conflict) > 0 {
		return nil, nil, err
	}
	if e.Delete && e.Bind.OnDelete() == "ignore" {
		v.Ops = nil
		if !e.Bind.Outward() && len(e.Bind.Meters()) > 0 {
			return nil, nil, nil // a meter that is back goes on from its last reading
		}
	}
	if v.WriteBack && (len(v.Ops) == 0 || !l.back.hears(e.Bind)) {
		if e.Bind.Rows() {
			l.back.markRow(s.place, s.register, cur.Ordinal)
		} else {
			l.back.mark(s, cur.Ordinal)
		}
	}
	v.Next.Bind = e.Bind.Hash()
	return v.Ops, func(d engine.Dot) engine.Record {
		v.Next.Became(d)
		return l.base.record(s, v.Next)
	}, nil
}

// shownBy puts what an effect says of a register into the words of Reconcile.
func shownBy(e mapping.Effect, cur engine.StateBlock, shown engine.Shown) engine.Shown {
	shown.Tells = e.Bind.Carries
	shown.Gone = e.Delete
	shown.Whole = e.Whole
	if e.Delete || e.Whole {
		shown.Clears = e.Bind.Clears(cur)
	}
	if e.Delete {
		left := slices.ContainsFunc(fieldsOf(cur), func(f string) bool { return !slices.Contains(shown.Clears, f) })
		shown.Delete = e.Bind.Open() || !left
	}
	for _, f := range e.Fields {
		shows := engine.ShownField{Field: f.Field, Value: f.Value}
		if f.Add {
			shown.Adds = append(shown.Adds, shows)
			continue
		}
		shows.Meter = slices.Contains(e.Bind.Meters(), f.Field)
		shown.Fields = append(shown.Fields, shows)
	}
	return shown
}

// couldBeOurs looks for what a server shows among the states that the gateway has had to tell it
// since the baseline: a crash may have swallowed the note that one was sent. Only a baseline of an
// earlier run can lack it.
func (l *link) couldBeOurs(ctx context.Context, s spot, b *mapping.Bind, base engine.Baseline, shown engine.Shown) (engine.Sent, bool, error) {
	if !b.Outward() || !l.base.inherited(s) || l.back.asked(spotOf(b, s)) {
		return engine.Sent{}, false, nil
	}
	const most = 1000 // states; a server that is further behind is told the newest all the same
	at := mapping.Place{Bind: b, Wrapper: l.name, Server: s.server, Address: s.address}
	for d, err := range l.store.History(ctx, engine.HistoryQuery{Register: s.register, Limit: most}) {
		if err != nil {
			return engine.Sent{}, false, kind(err)
		}
		sent := engine.Stored(shownFields(b.Mapped(s.register, d.After)), d.After)
		if !sent.Gone {
			if pay, ok, err := b.Out(at, d.After, nil, l.env(ctx)); ok && err == nil {
				sent, _ = l.shownAs(ctx, s, sent, pay)
			}
		}
		if base.Behind(sent) {
			break
		}
		if sent.Shows(shown) {
			return sent, true, nil
		}
	}
	return engine.Sent{}, false, nil
}

// keepQuietly stores records whose loss in a crash costs nothing but a look at the server.
func (l *link) keepQuietly(records ...engine.Record) {
	if err := l.store.KeepRecords(context.Background(), false, records...); err != nil {
		l.log.Warn("notebook", "wrapper", l.name, "err", err)
	}
}
