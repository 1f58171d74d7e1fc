package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// One operation's whole path:
//
//	a peer writes    wrappers/<protocol> makes an Operation
//	                 link.Do, link.Begin … Commit, or link.Seen         (this file, intent.go, seen.go)
//	                 mapping.Set.In: what it means for registers        (Effects)
//	                 candidate.go: Effects to one engine.Write
//	                 engine: collapse, store, number, sync
//	it is durable    the peer gets its success
//	others are told  link.Follow: observers wake with a QDelta          (notify.go, writeback.go)
//	                 mapping.Bind.Out: the payload at their address     (Change)
//	                 wrappers/<protocol> tells its peers or its server
//	                 link.Settle: cursor and baseline, in one batch

// link is one wrapper's door to shared state.
type link struct {
	*Links
	info   LinkInfo
	name   string
	owners owners
	seen   sync.Mutex // one Seen at a time: the server's order is the order of the call
	base   baselines
	back   *writeBack
	turns  *turns // Patterns' change channel

	readings readings
	troubles troubles
}

func (l *link) set() *mapping.Set { return l.gen.Load().Set }

// Maps implements wrappers.Link.
func (l *link) Maps(verb wrappers.Verb, server, address string) bool {
	return l.set().Maps(l.name, verb, server, address)
}

// Do implements wrappers.Link: a virtual wrapper's operation, from the peer's words to the disk.
func (l *link) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	answer := l.read
	switch op.Verb {
	case wrappers.Read:
	case wrappers.List:
		answer = l.list
	default:
		wait, err := l.Start(ctx, op)
		if err != nil {
			return wrappers.Result{}, err
		}
		return wait()
	}
	started := time.Now()
	var record *recording.Operation
	if op.Verb == wrappers.Read || op.Who.Peer != "" { // not a wrapper's own look
		record = l.take(recording.Read, &op)
	}
	var r wrappers.Result
	err := l.allowed(&op)
	if err == nil {
		err = l.spelled(ctx, &op)
	}
	if err == nil {
		r, err = answer(ctx, &op)
	}
	l.event(Asked, &op, started, "", nil, err)
	l.took(record, reason(err), "", nil)
	return r, err
}

// Start implements wrappers.Link: everything but the wait for the disk.
func (l *link) Start(ctx context.Context, op wrappers.Operation) (func() (wrappers.Result, error), error) {
	started := time.Now()
	record := l.take(recording.Write, &op)
	err := l.allowed(&op)
	w := &draft{}
	var wait func() (engine.Receipt, error)
	reply := l.replier(&op)
	if err == nil {
		err = l.spelled(ctx, &op)
	}
	if err == nil {
		w, wait, err = l.sequence(ctx, &op)
	}
	if err != nil {
		l.event(In, &op, started, w.By.Source, nil, err)
		l.took(record, reason(err), w.By.Source, nil)
		return nil, err
	}
	return func() (wrappers.Result, error) {
		receipt, err := wait()
		err = kind(err)
		l.event(In, &op, started, w.By.Source, &receipt, err)
		l.took(record, reason(err), w.By.Source, registersOf(&receipt))
		if err != nil {
			return wrappers.Result{}, err
		}
		r := result(receipt)
		if w.together {
			states, _, err := l.versionAt(ctx, op.Server, op.Address)
			if err != nil {
				return wrappers.Result{}, err
			}
			r.Version, r.Created = documentVersion(states), w.created
		}
		if reply != nil {
			r.Payload = reply(ctx, receipt)
		}
		return r, nil
	}, nil
}

// replier gives what makes the answer's body to a write whose bind has `reply`; nil where it has none. It keeps what it
// needs of the operation, whose payload is the caller's again before the answer is made.
func (l *link) replier(op *wrappers.Operation) func(context.Context, engine.Receipt) wrappers.Payload {
	if !l.info.Protocol.Replies {
		return nil
	}
	set := l.set()
	b := set.Bind(l.name, op.Address)
	if b == nil || !b.Replies() {
		return nil
	}
	kept := *op
	kept.Payload.Raw = slices.Clone(op.Payload.Raw)
	return func(ctx context.Context, receipt engine.Receipt) wrappers.Payload {
		// The write is durable: what can't be said about it does not undo it.
		p, err := l.reply(ctx, set, b, &kept, receipt)
		if err != nil {
			l.Count("reply_failed", 1)
			l.log.Warn("no reply", "wrapper", l.name, "address", kept.Address, "bind", b.Source(), "err", err)
		}
		return p
	}
}

func (l *link) reply(ctx context.Context, set *mapping.Set, b *mapping.Bind, op *wrappers.Operation, receipt engine.Receipt) (wrappers.Payload, error) {
	var st engine.StateBlock
	if i := slices.IndexFunc(receipt.States, func(st engine.StateBlock) bool { return b.Has(st.Register) }); i >= 0 {
		st = receipt.States[i]
	} else if at, ok := set.At(l.name, op.Server, op.Address); ok { // nothing came of it
		var err error
		if st, err = l.store.ReadState(ctx, at.Register); err != nil {
			return wrappers.Payload{}, err
		}
	}
	return set.Reply(l.name, op, st, l.env(ctx))
}

// allowed checks what a peer that nobody authenticated may do. In front of a real server it is
// the server that decides.
func (l *link) allowed(op *wrappers.Operation) error {
	if l.info.Relay || l.info.Attached || op.Who.Verified {
		return nil
	}
	need := needs(op.Verb)
	if len(op.Parts) > 0 {
		need = wrappers.WriteAccess
	}
	if l.info.Anonymous >= need {
		return nil
	}
	return wrappers.Refuse(wrappers.ErrDenied, "log on first")
}

// read answers with the register's committed state, in the form of the bind.
func (l *link) read(ctx context.Context, op *wrappers.Operation) (wrappers.Result, error) {
	at, ok := l.set().At(l.name, op.Server, op.Address)
	if !ok {
		return wrappers.Result{}, wrappers.ErrUnmapped
	}
	checked := !l.info.Relay && !l.info.Attached
	access := l.gen.Load().Access
	if at.Document != nil || at.Bind.Shared() {
		if checked {
			if err := l.mayTogether(ctx, access, l.peer(&op.Who), l.set().AllAt(l.name, op.Server, op.Address), wrappers.ReadAccess); err != nil {
				return wrappers.Result{}, err
			}
		}
		return l.readTogether(ctx, op)
	}
	if checked {
		if err := access.may(l.peer(&op.Who), at.Register, at.Bind, wrappers.ReadAccess); err != nil {
			return wrappers.Result{}, err
		}
	}
	here, err := l.store.Cursor(ctx)
	if err != nil {
		return wrappers.Result{}, kind(err)
	}
	st, err := l.store.ReadState(ctx, at.Register)
	if err != nil {
		return wrappers.Result{}, kind(err)
	}
	if !st.Exists || !carried(at.Bind, st) {
		return wrappers.Result{}, wrappers.Refuse(wrappers.ErrNotFound, fmt.Sprintf("register %s has no value here", at.Register))
	}
	p := mapping.Place{Bind: at.Bind, Wrapper: l.name, Server: op.Server, Address: at.Address}
	pay, send, err := l.shows(p, st, l.env(ctx))
	if err != nil {
		return wrappers.Result{}, err
	}
	if !send {
		return wrappers.Result{}, wrappers.Refuse(wrappers.ErrNotFound, fmt.Sprintf("`when` hides register %s here", at.Register))
	}
	return wrappers.Result{Payload: pay, Version: version(st), Cursor: wrappers.Cursor(here.String()), Modified: modified(st)}, nil
}

// shows is what a bind has of a register where the gateway itself is the server. In a directory that is a whole entry, so
// what `create` gives to one that the gateway makes is part of it.
func (l *link) shows(p mapping.Place, st engine.StateBlock, env mapping.Env) (wrappers.Payload, bool, error) {
	pay, send, err := p.Bind.Out(p, st, nil, env)
	if err == nil && send && l.info.Protocol.Syntax.Entries && !l.info.Relay && !l.info.Attached {
		pay, err = p.Bind.CreatePayload(p, st, pay, env)
	}
	return pay, send, err
}

// modified is when the newest write of a register was made.
func modified(st engine.StateBlock) time.Time {
	if st.Time == 0 {
		return time.Time{}
	}
	return st.Time.Time()
}

// carried tells whether the bind has anything of the register to show.
func carried(b *mapping.Bind, st engine.StateBlock) bool {
	return b.There(st) && (b.Open() || len(b.Mapped(st.Register, st)) > 0)
}

// Follow implements wrappers.Link.
func (l *link) Follow(ctx context.Context, mode wrappers.FollowMode, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if mode == wrappers.WriteBack {
		return l.back.follow(ctx)
	}
	return l.notify(ctx, from)
}

// Settle implements wrappers.Link.
func (l *link) Settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) error {
	return l.back.settle(ctx, c, e)
}

// Patterns implements wrappers.Link.
func (l *link) Patterns() ([]wrappers.Pattern, <-chan struct{}) {
	turned := l.turns.wait()
	return l.set().Patterns(l.name), turned
}

// Keep implements wrappers.Link.
func (l *link) Keep(ctx context.Context, records ...wrappers.Record) error {
	return kind(l.store.KeepRecords(ctx, true, l.own(records)...))
}

// own puts a wrapper's records under its own name.
func (l *link) own(records []wrappers.Record) []engine.Record {
	out := make([]engine.Record, len(records))
	for i, r := range records {
		out[i] = engine.Record{Table: tableWrapper, Key: l.name + "\x00" + r.Key, Value: r.Value}
	}
	return out
}

// Kept implements wrappers.Link.
func (l *link) Kept(_ context.Context, prefix string) iter.Seq2[wrappers.Record, error] {
	return func(yield func(wrappers.Record, error) bool) {
		for r, err := range l.store.EachKept(tableWrapper, l.name+"\x00"+prefix) {
			if err != nil {
				yield(wrappers.Record{}, kind(err))
				return
			}
			if !yield(wrappers.Record{Key: r.Key[len(l.name)+1:], Value: r.Value}, nil) {
				return
			}
		}
	}
}

// Tap implements wrappers.Link.
func (l *link) Tap(op wrappers.Operation, outcome string) {
	l.emit(Event{
		Time: time.Now(), Kind: Passed, Protocol: l.info.Protocol.Name, Wrapper: l.name, Verb: op.Verb, Server: op.Server,
		Address: op.Address, Principal: op.Who.Principal, Peer: op.Who.Peer, Size: len(op.Payload.Raw), Outcome: outcome,
	})
	if l.recorders.recording() {
		l.tapped(op, outcome)
	}
}

// tapped is apart from Tap so that an operation that nobody records stays on the stack.
func (l *link) tapped(op wrappers.Operation, outcome string) {
	l.took(l.take(recording.Passed, &op), outcome, "", nil)
}

// reason is an outcome for people, "" for success.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func registersOf(r *engine.Receipt) (names []string) {
	for i := range r.States {
		names = append(names, r.States[i].Register)
	}
	return names
}

// Count implements wrappers.Link.
func (l *link) Count(event string, n int) { l.count(l.name, event, n) }

// env is what expressions may know beyond the operation.
func (l *link) env(ctx context.Context) mapping.Env {
	return mapping.Env{Now: l.now(), Register: func(name string) (engine.StateBlock, bool) {
		st, err := l.store.ReadState(ctx, name)
		return st, err == nil && st.Exists
	}}
}

// cause says who did an operation, for history.
func (l *link) cause(op *wrappers.Operation, source string) engine.Cause {
	if address := op.To; op.Verb == wrappers.Rename && address != "" {
		to := *op
		to.Verb, to.Address, to.To = wrappers.Put, address, ""
		c := l.cause(&to, source)
		c.Verb = op.Verb.String()
		return c
	}
	return l.causeAt(op, l.at(l.set(), op.Server, op.Address), source)
}

// causeAt is cause of an operation whose place is known.
func (l *link) causeAt(op *wrappers.Operation, at place, source string) engine.Cause {
	return engine.Cause{
		Principal: op.Who.Principal, Verified: op.Who.Verified, Protocol: l.info.Protocol.Name, Wrapper: l.name,
		Peer: op.Who.Peer, Verb: op.Verb.String(), Server: op.Server, Address: at.address, Source: source,
	}
}

// event reports what became of an operation.
func (l *link) event(k EventKind, op *wrappers.Operation, started time.Time, source string, r *engine.Receipt, err error) {
	e := Event{
		Time: time.Now(), Kind: k, Protocol: l.info.Protocol.Name, Wrapper: l.name, Verb: op.Verb, Server: op.Server,
		Address: op.Address, Principal: op.Who.Principal, Peer: op.Who.Peer, Size: len(op.Payload.Raw), Took: time.Since(started), Source: source,
	}
	e.Outcome = reason(err)
	if r != nil {
		e.Cursor = r.Cursor
		e.Registers = registersOf(r)
		if len(r.States) > 0 {
			e.Text = text(r.States[0])
		}
	}
	l.emit(e)
}

// text is a register's state in a few words.
func text(st engine.StateBlock) string {
	s := "gone"
	if st.Exists {
		if s = st.Value.String(); len(s) > 120 {
			s = s[:117] + "…"
		}
	}
	if st.Waiting > 0 {
		s += fmt.Sprintf(" (%d waiting)", st.Waiting)
	}
	return s
}

func version(st engine.StateBlock) wrappers.Version { return wrappers.Version(st.ID.String()) }

// result is what a writer learns of its candidate.
func result(r engine.Receipt) wrappers.Result {
	out := wrappers.Result{}
	if r.Dot != (engine.Dot{}) {
		out.Cursor = wrappers.Cursor(r.Cursor.String())
		out.Waiting = slices.ContainsFunc(r.States, func(st engine.StateBlock) bool { return st.Waiting > 0 })
	}
	if len(r.States) > 0 {
		out.Version = version(r.States[0])
		out.Created = slices.Contains(r.Created, r.States[0].Register)
	}
	return out
}

// kind turns the engine's errors into the few a wrapper knows.
func kind(err error) error {
	if err == nil {
		return nil
	}
	for _, k := range []struct{ engine, wrapper error }{
		{engine.ErrInvalid, wrappers.ErrInvalid},
		{engine.ErrNotFound, wrappers.ErrNotFound},
		{engine.ErrConflict, wrappers.ErrConflict},
		{engine.ErrDenied, wrappers.ErrDenied},
		{engine.ErrTooLarge, wrappers.ErrTooLarge},
	} {
		if errors.Is(err, k.engine) {
			return wrappers.Refuse(k.wrapper, err.Error())
		}
	}
	if errors.Is(err, engine.ErrFull) {
		return wrappers.Refuse(wrappers.ErrUnavailable, err.Error())
	}
	return fmt.Errorf("%w: %w", wrappers.ErrUnavailable, err)
}
