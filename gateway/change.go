package gateway

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// prepare decides what, if anything, is to be written at a spot whose address is ours.
func (b *writeBack) prepare(ctx context.Context, d *due) (wrappers.Change, bool, error) {
	l := b.l
	if d.kept != nil {
		return wrappers.Change{}, false, d.kept
	}
	if d.register == "" {
		if t := l.documentAt(l.set(), d.server, d.address); t != nil {
			return b.prepareRows(ctx, d, t)
		}
	}
	var p mapping.Place
	for _, q := range l.set().Places(l.name, d.register) {
		if q.Server == d.server && q.Address == d.address {
			p = q
		}
	}
	if p.Bind == nil || !p.Bind.Outward() {
		if len(d.intents)+len(d.looks) == 0 {
			return wrappers.Change{}, false, nil // the bind has gone
		}
		at, ok := l.set().At(l.name, d.server, d.address)
		if !ok {
			l.keepQuietly(intentsGone(slices.Concat(d.intents, d.looks))...)
			return wrappers.Change{}, false, nil
		}
		p = mapping.Place{Bind: at.Bind, Wrapper: l.name, Server: d.server, Address: d.address}
	}
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	if l.base.leads(d.spot) {
		return wrappers.Change{}, false, errWaits // what the server showed is on its way to the disk
	}
	st, err := l.store.ReadState(ctx, d.register)
	if err != nil {
		return wrappers.Change{}, false, err
	}
	if d.from != nil && !st.Exists && b.observedBefore(st.Ordinal) {
		return wrappers.Change{}, false, errWaits // it may have been renamed again
	}
	if mine, err := l.mayWrite(ctx, p, st); err != nil || !mine {
		return wrappers.Change{}, false, err
	}
	base, known, err := l.base.get(d.spot)
	if err != nil {
		return wrappers.Change{}, false, err
	}
	c := wrappers.Change{
		Server: d.server, Address: d.address, Version: version(st), Previous: wrappers.Version(base.Version),
		Cursor: wrappers.Cursor(engine.Cursor{Log: b.logID.Load(), Ordinal: st.Ordinal}.String()), Options: p.Bind.Options(),
	}
	if d.read || !l.info.Protocol.Feed && askFirst(p.Bind, &base, known) && !b.compared(d.spot, p.Bind) {
		c.ReadBack, d.read = true, true
		return b.fly(d, p.Bind, c), true, nil
	}
	if !p.Bind.Outward() || b.inConflict(d.spot) || !l.tells(d.register, p.Bind) {
		return wrappers.Change{}, false, nil
	}
	if b.waits(p.Bind) {
		return wrappers.Change{}, false, errWaits
	}
	if st.Waiting > 0 {
		// What the server took from its own peers is not written over while it waits; the commit that collapses it
		// makes the spot due again.
		if theirs, err := b.undecided(ctx, d.register, &base); err != nil || theirs {
			return wrappers.Change{}, false, err
		}
	}
	if len(base.Sent) >= engine.MaxSent && l.info.Protocol.Feed && !b.lost(d) {
		return wrappers.Change{}, false, errWaits
	}
	d.told, d.more = 0, false
	if p.Bind.Events() {
		var found bool
		if st, found, err = b.event(ctx, d, p, base.Told, &c); err != nil || !found {
			return wrappers.Change{}, false, err
		}
	}
	if p.Bind.Filled() && !p.Bind.Events() {
		if here, err := b.commanded(ctx, d, p.Bind); err != nil || !here {
			return wrappers.Change{}, false, err
		}
	}
	fields, gone, owed := owes(p.Bind, &base, st)
	if leaves(p.Bind, st, gone) || !owed && !d.force && d.told == 0 {
		if !gone && !owed && known && learns(p.Bind, &base, fields, st) {
			l.keepQuietly(l.base.sending(d.spot, base))
		}
		return wrappers.Change{}, false, nil
	}
	if every := p.Bind.Every(); every > 0 && l.paced && !d.force && b.tooSoon(d, every) {
		return wrappers.Change{}, false, errWaits // what has come until then is written then
	}
	d.sent = engine.Stored(fields, st)
	d.sent.Gone = gone
	d.version = st
	c.Gone = gone || !p.Bind.There(st) // the address goes, and that says something of the register
	c.Create = !known || base.Holds(nil, true, p.Bind.Carries)
	if gone && p.Bind.Marks() {
		if c.Create {
			return wrappers.Change{}, false, nil // there is nothing to mark
		}
		if c.Payload, err = p.Bind.OutGone(p, st, nil, l.env(ctx)); err != nil {
			return wrappers.Change{}, false, err
		}
		c.Gone = false
		c.Onto = func(doc wrappers.Payload) (wrappers.Payload, error) { return p.Bind.OutGone(p, st, &doc, l.env(ctx)) }
	} else if gone && p.Bind.Shared() { // a part goes, and what the others have stays
		_, there, err := l.versionAt(ctx, d.server, d.address)
		if err != nil {
			return wrappers.Change{}, false, err
		}
		c.Gone = !there
	}
	if p.Bind.Filled() {
		if c.Gone {
			return wrappers.Change{}, false, nil // a command is not taken back
		}
		var ok bool
		if c.Address, ok = l.set().AddressOf(p, st); !ok {
			return wrappers.Change{}, false, nil
		}
	}
	if !c.Gone && c.Onto == nil {
		pay, send, err := p.Bind.Out(p, st, nil, l.env(ctx))
		if err != nil {
			return wrappers.Change{}, false, err
		}
		if !send {
			if d.told > 0 {
				b.mu.Lock()
				d.again = d.again || d.more
				b.mu.Unlock()
				base.Told = d.told
				l.keepQuietly(l.base.record(d.spot, base))
			}
			return wrappers.Change{}, false, nil
		}
		if c.Create && p.Bind.HasCreate() {
			if pay, err = p.Bind.CreatePayload(p, st, pay, l.env(ctx)); err != nil {
				return wrappers.Change{}, false, err
			}
		}
		c.Payload = pay
		if !p.Bind.Whole() && !p.Bind.Filled() {
			c.Onto = func(doc wrappers.Payload) (wrappers.Payload, error) {
				pay, send, err := p.Bind.Out(p, st, &doc, l.env(ctx))
				if err == nil && !send {
					return doc, nil
				}
				return pay, err
			}
		}
	}
	if !b.movesHere(d, p, &c) {
		return wrappers.Change{}, false, errWaits
	}
	d.echoes = false
	if p.Bind.Inward() {
		d.stuck = time.Time{}
		d.echoes = gone
		if !gone {
			d.sent, d.echoes = l.shownAs(ctx, d.spot, d.sent, c.Payload)
		}
		d.echoes = d.echoes && l.info.Protocol.Feed
	}
	if d.echoes || p.Bind.Inward() && !l.info.Protocol.Feed {
		// The server may show it before its answer comes, or after a crash that swallowed the answer.
		base.AddSent(d.sent)
		base.Bind = p.Bind.Hash()
		l.keepQuietly(l.base.sending(d.spot, base))
	}
	return b.fly(d, p.Bind, c), true, nil
}

// askFirst tells whether a server without a feed has to say what it has before anything is written to an address.
func askFirst(b *mapping.Bind, base *engine.Baseline, known bool) bool {
	return b.Inward() && !b.Events() && (!known || base.Bind != b.Hash())
}

// owes tells what an address has to have of a register, or that it has to go, and whether its server lacks that.
func owes(b *mapping.Bind, base *engine.Baseline, st engine.StateBlock) (fields []engine.ShownField, gone, owed bool) {
	fields = shownFields(b.Mapped(st.Register, st))
	gone = !st.Exists || len(fields) == 0 && !b.Open()
	if leaves(b, st, gone) {
		return nil, gone, false
	}
	return fields, gone, !base.Holds(fields, gone, b.Carries)
}

// leaves tells whether an address stays as it is since its register, or what is there of it, is gone.
func leaves(b *mapping.Bind, st engine.StateBlock, gone bool) bool {
	return b.OnDelete() == "ignore" && (gone || !b.There(st))
}

// undecided tells whether the server shows something that waits to be collapsed.
func (b *writeBack) undecided(ctx context.Context, register string, base *engine.Baseline) (bool, error) {
	for p, err := range b.l.store.Pending(ctx, engine.PendingQuery{Prefix: register, Limit: math.MaxInt32}) {
		if err != nil {
			return false, err
		}
		if p.Register == register && base.Bears(p.Dot) {
			return true, nil
		}
	}
	return false, nil
}

// here tells whether what can't be done twice is this gateway's to do for a change: of those that share the register it
// is the one through which the change was made, unless the bind names another, or the wrapper the one that alone is attached to
// its server. What a state brought, as a whole, was made
// elsewhere.
func (b *writeBack) here(bind *mapping.Bind, q *engine.QDelta) bool {
	switch site := cmp.Or(bind.Site(), b.l.info.Feed); {
	case site != "":
		return site == b.l.site
	case q.Dot.IsZero():
		return q.Cause.Verb != "join"
	}
	return b.l.store.Own(q.Dot.Origin)
}

// commanded tells whether the newest change that a command is made of is this gateway's to give.
func (b *writeBack) commanded(ctx context.Context, d *due, bind *mapping.Bind) (bool, error) {
	for q, err := range b.l.store.History(ctx, engine.HistoryQuery{Register: d.register, Limit: math.MaxInt32}) {
		if err != nil {
			return false, err
		}
		if concerns(bind, &q) {
			return b.here(bind, &q), nil
		}
	}
	return true, nil
}

// event finds the oldest change that a bind with events has not told yet.
func (b *writeBack) event(ctx context.Context, d *due, p mapping.Place, told uint64, c *wrappers.Change) (engine.StateBlock, bool, error) {
	if told == 0 {
		told = max(d.since, 1) - 1 // changes from before the bind existed are not events
	}
	var st engine.StateBlock
	found := false
	for q, err := range b.l.store.History(ctx, engine.HistoryQuery{Register: d.register, After: told, Oldest: true, Limit: math.MaxInt32}) {
		if err != nil {
			return st, false, err
		}
		own := q.Cause.Wrapper == b.l.name && q.Cause.Address == d.address
		if own || !concerns(p.Bind, &q) || !b.here(p.Bind, &q) {
			continue
		}
		if found {
			d.more = true
			break
		}
		st, found = q.After, true
		d.told = q.Cursor.Ordinal
		c.Key = q.Cursor.String()
		c.Cursor = wrappers.Cursor(c.Key)
		c.Version = version(st)
	}
	return st, found, nil
}

// done stores the baseline that follows from a write the server took.
func (b *writeBack) done(ctx context.Context, d *due, c wrappers.Change, e wrappers.Effect) error {
	l := b.l
	if c.ReadBack {
		b.mu.Lock()
		over := slices.Concat(d.intents, d.looks)
		b.mu.Unlock()
		l.keepQuietly(intentsGone(over)...)
		return nil
	}
	if d.sentRows != nil {
		if err := b.doneRows(d, e); err != nil {
			return err
		}
		l.parking.cleared(l, d)
		l.outEvent(d, c, slices.Sorted(maps.Keys(d.sentRows)))
		return nil
	}
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	base, _, err := l.base.get(d.spot)
	if err != nil {
		return err
	}
	base.Bind = d.bind.Hash()
	if d.told > 0 {
		base.Told = d.told
	}
	if d.echoes {
		base.Taken(d.sent)
	} else {
		sent := d.sent
		if e.AsStored != nil && d.bind.Inward() {
			sent, _ = l.shownAs(ctx, d.spot, sent, *e.AsStored)
		}
		base.Took(sent, d.bind.Carries)
		base.Version = string(e.Version)
		if len(d.sent.Fields) == 0 && d.sent.Gone {
			base.Exists = nil
		}
	}
	l.keepQuietly(l.base.record(d.spot, base), toldRecord(l, d))
	l.parking.cleared(l, d)
	l.outEvent(d, c, []string{d.register})
	return nil
}

// outEvent reports that a server took a write.
func (l *link) outEvent(d *due, c wrappers.Change, registers []string) {
	l.emit(Event{
		Time: time.Now(), Kind: Out, Protocol: l.info.Protocol.Name, Wrapper: l.name, Verb: outVerb(c), Server: d.server, Address: c.Address,
		Registers: registers, Source: d.bind.Source(), Cursor: engine.Cursor{Log: l.back.logID.Load(), Ordinal: d.version.Ordinal},
		Took: since(d.version), Size: len(c.Payload.Raw), Text: text(d.version),
	})
}

// shownAs gives a write as its address shows it with this payload: a bind may read what it writes in
// another form, in another place or not at all, and a server may keep it in a form of its own. So
// `char(5)` or a number's trailing zeros never come back as news. False: it would not be heard of.
func (l *link) shownAs(ctx context.Context, s spot, sent engine.Sent, p wrappers.Payload) (engine.Sent, bool) {
	effects, err := l.set().In(l.name, &wrappers.Operation{Verb: wrappers.Put, Server: s.server, Address: s.address, Payload: p}, l.env(ctx))
	if err != nil {
		return sent, false // it answers with something else than the document, say
	}
	for _, e := range effects {
		if e.Register != s.register {
			continue
		}
		fields := make([]engine.ShownField, 0, len(e.Fields))
		for _, f := range e.Fields {
			if !f.Add {
				fields = append(fields, engine.ShownField{Field: f.Field, Value: f.Value})
			}
		}
		return sent.ShownAs(fields), true
	}
	return sent, false
}

// refused parks what the server will not take.
func (b *writeBack) refused(ctx context.Context, d *due, why error) error {
	l := b.l
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	switch {
	case !d.read && d.sentRows != nil:
		for r := range d.sentRows {
			s := spot{d.place, r}
			if base, known, err := l.base.get(s); err == nil && known {
				base.TakeBack()
				l.keepQuietly(l.base.record(s, base))
			}
		}
	case !d.read:
		if base, known, err := l.base.get(d.spot); err == nil && known {
			base.TakeBack()
			if d.told > 0 {
				base.Told = d.told // the stream goes on behind it
				b.mu.Lock()
				d.again = d.again || d.more
				b.mu.Unlock()
			}
			l.keepQuietly(l.base.record(d.spot, base))
		}
	case len(d.intents) > 0:
		l.keepQuietly(intentsGone(d.intents)...)
	}
	l.emit(Event{
		Time: time.Now(), Kind: Out, Protocol: l.info.Protocol.Name, Wrapper: l.name, Server: d.server, Address: d.address,
		Registers: []string{d.register}, Source: d.bind.Source(), Outcome: why.Error(),
	})
	return l.parkOut(ctx, d, why)
}

func outVerb(c wrappers.Change) wrappers.Verb {
	if c.Gone {
		return wrappers.Delete
	}
	return wrappers.Put
}

func shownFields(fields []mapping.FieldValue) []engine.ShownField {
	out := make([]engine.ShownField, 0, len(fields))
	for _, f := range fields {
		if !f.Value.IsAbsent() {
			out = append(out, engine.ShownField{Field: f.Field, Value: f.Value})
		}
	}
	return out
}

// since is how long ago a state's commit was made; 0 for one that was never written.
func since(st engine.StateBlock) time.Duration {
	if st.Time == 0 {
		return 0
	}
	return max(time.Since(st.Time.Time()), 0)
}

// How long a write waits for the feed to show earlier ones, and how often it looks.
const (
	feedLost = 30 * time.Second
	feedLook = 20 * time.Millisecond
)

// lost tells whether the feed has shown none of the writes on their way to a spot for so long that
// it will not. Until then the spot looks again soon.
func (b *writeBack) lost(d *due) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if d.stuck.IsZero() {
		d.stuck = time.Now()
	}
	if time.Since(d.stuck) > feedLost {
		d.stuck = time.Time{}
		b.l.Count("writes_not_shown", 1)
		return true
	}
	d.after = time.Now().Add(feedLook)
	return false
}
