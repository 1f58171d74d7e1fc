package gateway

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// An openIntent is the stored form of a write on its way to a real server.
type openIntent struct {
	Verb       wrappers.Verb
	Server     string
	Address    string
	Generation uint64
	Who        wrappers.Who
	Since      time.Time
	// Register is of a look at what the server has there, which is no write; nil: it is one.
	Register *string `json:",omitempty"`
}

// intent is a write that a relay has forwarded. A rename is of two places, in the order of their names.
type intent struct {
	l      *link
	gen    *Generation // it ends under the one it began with
	places []intended
	// record is the write as the peer made it, while it is recorded and what became of it is open.
	record *recording.Operation
}

type intended struct {
	op  openIntent
	key string
	at  place
}

// Begin implements wrappers.Link.
func (l *link) Begin(ctx context.Context, op wrappers.Operation) (wrappers.Intent, error) {
	gen := l.gen.Load()
	if l.info.Protocol.Syntax.Fold {
		spelled := op
		if err := l.spelled(ctx, &spelled); err != nil {
			return nil, err
		}
		op = spelled
	}
	if op.Verb == wrappers.Rename {
		return l.beginRename(ctx, &op, gen)
	}
	if !gen.Set.Maps(l.name, op.Verb, op.Server, op.Address) {
		return nil, wrappers.ErrUnmapped
	}
	return l.begin(ctx, &op, gen)
}

// begin is apart from Begin so that an operation that passes stays on the stack.
func (l *link) begin(ctx context.Context, from *wrappers.Operation, gen *Generation) (wrappers.Intent, error) {
	if gen.Access != nil {
		op := *from // which stays where it is
		if err := l.mayForward(ctx, &op, gen); err != nil {
			return nil, err
		}
	}
	in := &intent{l: l, gen: gen}
	in.intends(from, from.Verb, from.Address)
	in.record = l.take(recording.Write, from)
	if err := in.open(ctx); err != nil {
		l.took(in.record, reason(err), "", nil)
		return nil, err
	}
	return in, nil
}

// beginRename announces that what is at one address will be at another.
func (l *link) beginRename(ctx context.Context, op *wrappers.Operation, gen *Generation) (wrappers.Intent, error) {
	if gen.Access != nil {
		op := *op // as in begin
		if err := l.mayForward(ctx, &op, gen); err != nil {
			return nil, err
		}
	}
	in := &intent{l: l, gen: gen}
	if gen.Set.Maps(l.name, wrappers.Delete, op.Server, op.Address) {
		in.intends(op, wrappers.Delete, op.Address)
	}
	if gen.Set.Maps(l.name, wrappers.Put, op.Server, op.To) {
		in.intends(op, wrappers.Put, op.To)
	}
	if len(in.places) == 0 {
		return nil, wrappers.ErrUnmapped
	}
	slices.SortFunc(in.places, func(a, b intended) int { return strings.Compare(a.at.String(), b.at.String()) })
	if len(in.places) == 2 && in.places[0].at == in.places[1].at {
		in.places = in.places[:1]
	}
	in.record = l.take(recording.Write, op)
	if err := in.open(ctx); err != nil {
		l.took(in.record, reason(err), "", nil)
		return nil, err
	}
	return in, nil
}

func (in *intent) intends(op *wrappers.Operation, verb wrappers.Verb, address string) {
	l := in.l
	in.places = append(in.places, intended{
		at: l.at(in.gen.Set, op.Server, strings.Clone(address)), key: l.name + "\x00" + l.intents.next(),
		op: openIntent{Verb: verb, Server: strings.Clone(op.Server), Address: strings.Clone(address), Generation: in.gen.Number, Who: op.Who, Since: time.Now()},
	})
}

// open takes the addresses, and makes the intent durable.
func (in *intent) open(ctx context.Context) error {
	l := in.l
	var records []engine.Record
	for i := range in.places {
		p := &in.places[i]
		if err := l.owners.take(ctx, p.at); err != nil {
			in.places = in.places[:i]
			in.release()
			return wrappers.Refuse(wrappers.ErrUnavailable, "another write to this address has not ended")
		}
		raw, err := json.Marshal(p.op)
		if err != nil {
			panic(err) // texts and numbers
		}
		records = append(records, engine.Record{Table: tableIntent, Key: p.key, Value: raw})
	}
	if err := l.store.KeepRecords(ctx, true, records...); err != nil {
		in.release()
		return kind(err)
	}
	return nil
}

func (in *intent) release() {
	for i := range in.places {
		in.l.owners.release(in.places[i].at)
	}
}

// ended gives the records that say so.
func (in *intent) ended() []engine.Record {
	var keys []string
	for i := range in.places {
		keys = append(keys, in.places[i].key)
	}
	return intentsGone(keys)
}

func (in *intent) forget() {
	for i := range in.places {
		in.l.base.forget(in.places[i].at)
	}
}

// mayForward refuses a write that its peer may not do before the server hears of it.
func (l *link) mayForward(ctx context.Context, op *wrappers.Operation, gen *Generation) error {
	if op.Verb == wrappers.Rename { // who takes something away there writes there
		if err := l.May(wrappers.Delete, op.Server, op.Address, op.Who); err != nil {
			return err
		}
		says, _, err := l.sayings(ctx, gen.Set, op)
		if err != nil { // nobody knows what it is that moves
			return l.May(wrappers.Put, op.Server, op.To, op.Who)
		}
		for _, s := range says {
			if err := l.permitted(&op.Who, s.effects); err != nil {
				return err
			}
		}
		_, err = l.mayRows(ctx, gen.Access, l.peer(&op.Who), gen.Set.AllAt(l.name, op.Server, op.To), wrappers.WriteAccess)
		return err
	}
	all := gen.Set.AllAt(l.name, op.Server, op.Address)
	document := slices.ContainsFunc(all, func(t mapping.Target) bool { return t.Document != nil })
	if len(all) == 0 || document {
		// It takes the payload to tell the registers, if that is here.
		effects, err := gen.Set.In(l.name, op, l.env(ctx))
		if err == nil {
			err = l.permitted(&op.Who, effects)
			if err == nil && document && (op.Verb == wrappers.Put || op.Verb == wrappers.Delete) { // rows that it lacks go
				_, err = l.mayRows(ctx, gen.Access, l.peer(&op.Who), all, wrappers.WriteAccess)
			}
			return err
		}
	}
	return l.May(op.Verb, op.Server, op.Address, op.Who)
}

// Commit implements wrappers.Intent.
func (in *intent) Commit(ctx context.Context, as wrappers.Operation) (wrappers.Result, error) {
	l, started := in.l, time.Now()
	record := l.take(recording.Write, &as)
	if record != nil && len(in.places) > 0 {
		record.Time = in.places[0].op.Since
	}
	in.record = nil
	if err := l.spelled(ctx, &as); err != nil {
		in.Unknown()
		return wrappers.Result{}, err
	}
	says, from, err := l.sayings(ctx, in.gen.Set, &as)
	var effects []mapping.Effect
	for _, s := range says {
		effects = append(effects, s.effects...)
	}
	if err == nil {
		err = l.permitted(&as.Who, effects) // the server may have made another address of it
	}
	if err != nil {
		if as.Verb == wrappers.Rename {
			in.Unknown() // what is there now is the server's to say
			return wrappers.Result{}, nil
		}
		l.event(In, &as, started, sourceOf(effects), nil, err)
		l.took(record, reason(err), sourceOf(effects), nil)
		return wrappers.Result{}, in.hold(ctx, &as, err)
	}
	wait, err := in.submit(ctx, &as, says, from)
	if err != nil && hasRows(effects) && wrappers.Kind(err) != wrappers.ErrUnavailable {
		in.forget()
		l.event(In, &as, started, sourceOf(effects), nil, err)
		l.took(record, reason(err), sourceOf(effects), nil)
		return wrappers.Result{}, in.hold(ctx, &as, err)
	}
	var r engine.Receipt
	if err == nil && wait != nil {
		r, err = wait()
	}
	l.event(In, &as, started, sourceOf(effects), &r, err)
	l.took(record, reason(err), sourceOf(effects), registersOf(&r))
	if err != nil {
		in.forget()
		in.Unknown()
		return wrappers.Result{}, err
	}
	in.release()
	return result(r), nil
}

// hold parks what the server took and the mapping can't read, or doesn't allow: it is shown, and the peer gets its success.
func (in *intent) hold(ctx context.Context, as *wrappers.Operation, why error) error {
	l := in.l
	if err := l.park(ctx, as, "in", "", why, false); err != nil {
		in.Unknown()
		return err
	}
	l.keepQuietly(in.ended()...)
	in.release()
	return nil
}

// submit sequences what the write means, and with it the end of the intent. A nil wait: nothing.
func (in *intent) submit(ctx context.Context, as *wrappers.Operation, says []saying, from string) (wait func() (engine.Receipt, error), err error) {
	l := in.l
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	var w engine.Write
	var then []func(engine.Dot) engine.Record
	var spots []spot
	source := ""
	for _, say := range says {
		effects := say.effects
		if doc, gone := rowsBind(effects); doc != nil {
			if effects, err = l.spread(say.at, effects); err != nil {
				return nil, err
			}
			w.Bulk = true
			then = append(then, l.documentNote(say.at, doc, as.Version, gone || as.Verb == wrappers.Rename && say.at != says[len(says)-1].at))
		}
		for _, e := range effects {
			s := spot{say.at, e.Register}
			spots = append(spots, s)
			ops, baseline, err := l.reconcile(ctx, s, e, engine.Shown{Wire: true, Version: string(as.Version)})
			if err != nil {
				return nil, err
			}
			w.Ops = append(w.Ops, ops...)
			then = append(then, baseline)
		}
		if source == "" {
			source = sourceOf(effects)
		}
	}
	if len(w.Ops) == 0 {
		l.keepQuietly(append(bind(then)(engine.Dot{}), in.ended()...)...)
		return nil, nil
	}
	w.By, w.Tag = l.cause(as, source), as.Tag
	w.By.RenamedFrom = from
	w.Keep = in.ended()
	w.KeepWith = bind(then)
	return l.submit(ctx, w, spots)
}

// Abort implements wrappers.Intent. That it is gone need not be synced: read back after a crash,
// the server shows its baseline.
func (in *intent) Abort() {
	in.l.took(in.record, recording.NotTaken, "", nil)
	in.l.keepQuietly(in.ended()...)
	in.release()
}

// Unknown implements wrappers.Intent: the addresses stay ours until they are read back.
func (in *intent) Unknown() {
	in.l.took(in.record, "outcome unknown", "", nil)
	in.record = nil
	for i := range in.places {
		in.l.back.readBack(in.places[i].key, in.places[i].op)
	}
}
