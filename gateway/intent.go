package gateway

import (
	"context"
	"encoding/json"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
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
}

// intent is a write that a relay has forwarded.
type intent struct {
	l   *link
	gen *Generation // it ends under the one it began with
	op  openIntent
	key string
	at  place
}

// Begin implements wrappers.Link.
func (l *link) Begin(ctx context.Context, op wrappers.Operation) (wrappers.Intent, error) {
	gen := l.gen.Load()
	if !gen.Set.Maps(l.name, op.Verb, op.Server, op.Address) {
		return nil, wrappers.ErrUnmapped
	}
	return l.begin(ctx, &op, gen)
}

// begin is apart from Begin so that an operation that passes stays on the stack.
func (l *link) begin(ctx context.Context, from *wrappers.Operation, gen *Generation) (wrappers.Intent, error) {
	in := &intent{
		l: l, gen: gen, at: l.at(gen.Set, from.Server, strings.Clone(from.Address)), key: l.name + "\x00" + l.intents.next(),
		op: openIntent{Verb: from.Verb, Server: strings.Clone(from.Server), Address: strings.Clone(from.Address), Generation: gen.Number, Who: from.Who, Since: time.Now()},
	}
	if err := l.owners.take(ctx, in.at); err != nil {
		return nil, wrappers.Refuse(wrappers.ErrUnavailable, "another write to this address has not ended")
	}
	raw, err := json.Marshal(in.op)
	if err == nil {
		err = l.store.KeepRecords(ctx, true, engine.Record{Table: tableIntent, Key: in.key, Value: raw})
	}
	if err != nil {
		l.owners.release(in.at)
		return nil, kind(err)
	}
	return in, nil
}

// Commit implements wrappers.Intent.
func (in *intent) Commit(ctx context.Context, as wrappers.Operation) (wrappers.Result, error) {
	l, started := in.l, time.Now()
	effects, err := in.gen.Set.In(l.name, &as, l.env(ctx))
	if err != nil {
		// The server took what the mapping can't read: it is shown, and the peer gets its success.
		l.event(In, &as, started, sourceOf(effects), nil, err)
		if err := l.park(ctx, &as, "in", "", err, false); err != nil {
			in.Unknown()
			return wrappers.Result{}, err
		}
		l.keepQuietly(engine.Record{Table: tableIntent, Key: in.key})
		l.owners.release(in.at)
		return wrappers.Result{}, nil
	}
	wait, err := in.submit(ctx, &as, effects)
	var r engine.Receipt
	if err == nil && wait != nil {
		r, err = wait()
	}
	l.event(In, &as, started, sourceOf(effects), &r, err)
	if err != nil {
		l.base.forget(in.at)
		in.Unknown()
		return wrappers.Result{}, err
	}
	l.owners.release(in.at)
	return result(r), nil
}

// submit sequences what the write means, and with it the end of the intent. A nil wait: nothing.
func (in *intent) submit(ctx context.Context, as *wrappers.Operation, effects []mapping.Effect) (func() (engine.Receipt, error), error) {
	l := in.l
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	var w engine.Write
	var then []func(engine.Dot) engine.Record
	var spots []spot
	for _, e := range effects {
		s := spot{in.at, e.Register}
		spots = append(spots, s)
		ops, baseline, err := l.reconcile(ctx, s, e, engine.Shown{Wire: true, Version: string(as.Version)})
		if err != nil {
			return nil, err
		}
		w.Ops = append(w.Ops, ops...)
		then = append(then, baseline)
	}
	done := engine.Record{Table: tableIntent, Key: in.key}
	if len(w.Ops) == 0 {
		l.keepQuietly(append(bind(then)(engine.Dot{}), done)...)
		return nil, nil
	}
	w.By, w.Tag = l.cause(as, sourceOf(effects)), as.Tag
	w.Keep = []engine.Record{done}
	w.KeepWith = bind(then)
	return l.submit(ctx, w, spots)
}

// Abort implements wrappers.Intent. That it is gone need not be synced: read back after a crash,
// the server shows its baseline.
func (in *intent) Abort() {
	in.l.keepQuietly(engine.Record{Table: tableIntent, Key: in.key})
	in.l.owners.release(in.at)
}

// Unknown implements wrappers.Intent: the address stays ours until it is read back.
func (in *intent) Unknown() { in.l.back.readBack(in.key, in.op) }
