package wrappertest

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// Baseline says what the server last showed at an address, as after a first contact.
func (l *Link) Baseline(server, address, payload string, version wrappers.Version) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cell(server, address).base = baseline{known: true, raw: []byte(payload), version: version}
}

// Begin implements wrappers.Link.
func (l *Link) Begin(ctx context.Context, op wrappers.Operation) (wrappers.Intent, error) {
	if !l.Maps(op.Verb, op.Server, op.Address) {
		return nil, wrappers.ErrUnmapped
	}
	if err := l.May(op.Verb, op.Server, op.Address, op.Who); err != nil {
		return nil, err
	}
	if err := l.enter(ctx, CallBegin); err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		c := l.cell(op.Server, op.Address)
		if !c.held {
			c.held = true
			break
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
			l.mu.Lock()
		case <-ctx.Done():
			l.mu.Lock()
			return nil, ctx.Err()
		}
	}
	rec := &IntentRecord{Op: cloneOp(op), End: "open"}
	l.intents = append(l.intents, rec)
	l.wake()
	return &intent{link: l, rec: rec}, nil
}

type intent struct {
	link *Link
	rec  *IntentRecord
}

// end records how the intent ended; only the first end counts.
func (i *intent) end(how string) bool {
	l := i.link
	if i.rec.End != "open" {
		panic("intent ended twice: " + i.rec.End + ", then " + how)
	}
	i.rec.End = how
	l.cell(i.rec.Op.Server, i.rec.Op.Address).held = false
	l.wake()
	return true
}

func (i *intent) Commit(ctx context.Context, as wrappers.Operation) (wrappers.Result, error) {
	l := i.link
	if err := l.enter(ctx, CallCommit); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		i.end("unknown")
		return wrappers.Result{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	i.rec.As = cloneOp(as)
	res := l.apply(cloneOp(as), ViaWire)
	c := l.cell(as.Server, as.Address)
	c.base = baseline{known: true, gone: !c.exists, raw: c.payload.Raw, version: as.Version}
	// A former change still owed is older than what the server now has.
	c.due = 0
	i.end("commit")
	return res, nil
}

func (i *intent) Abort() {
	i.link.mu.Lock()
	defer i.link.mu.Unlock()
	i.end("abort")
}

func (i *intent) Unknown() {
	i.link.mu.Lock()
	defer i.link.mu.Unlock()
	if i.link.asksFirst {
		i.link.cell(i.rec.Op.Server, i.rec.Op.Address).ask = true
	}
	i.end("unknown")
}

// Seen implements wrappers.Link.
func (l *Link) Seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	if err := l.enter(ctx, CallSeen); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.positions = append(l.positions, at)
	if at.Snapshot != wrappers.NoSnapshot && l.listed == nil {
		l.listed = map[place]bool{}
	}
	for _, o := range what {
		o.Payload = clonePayload(o.Payload)
		o.Address = strings.Clone(o.Address)
		l.seen = append(l.seen, o)
		for _, r := range o.Keep {
			l.keep(r)
		}
		for _, o := range l.moved(o) {
			if !l.maps(o.Verb, o.Server, o.Address) {
				continue
			}
			if l.listed != nil {
				l.listed[place{o.Server, o.Address}] = true
			}
			l.observe(o, at.Snapshot != wrappers.NoSnapshot || !at.Feed)
		}
	}
	if at.Snapshot == wrappers.SnapshotEnd {
		for p, c := range l.cells { // what the server lacks is filled
			if c.exists && !l.listed[p] && !c.base.known {
				l.due++
				c.due, c.base = l.due, baseline{known: true, gone: true}
			}
		}
		l.listed = nil
	}
	for _, r := range at.Keep {
		l.keep(r)
	}
	l.wake()
	return nil
}

// moved says of a rename what it means at each of its addresses.
func (l *Link) moved(o wrappers.Observation) []wrappers.Observation {
	if o.Verb != wrappers.Rename {
		return []wrappers.Observation{o}
	}
	from, to := o, o
	from.Verb, from.To, from.Payload = wrappers.Delete, "", wrappers.Payload{}
	to.Verb, to.Address, to.To = wrappers.Put, strings.Clone(o.To), ""
	if len(o.Payload.Raw) == 0 {
		to.Payload.Raw = l.cell(o.Server, o.Address).base.raw
	}
	return []wrappers.Observation{from, to}
}

// observe takes one observation; state: of what is there rather than of what happened.
func (l *Link) observe(o wrappers.Observation, state bool) {
	c := l.cell(o.Server, o.Address)
	if state && !o.Began.IsZero() && c.held {
		l.counts["stale_polls"]++ // a write may have overtaken the answer
		return
	}
	gone := o.Verb == wrappers.Delete
	raw := o.Payload.Raw
	if o.Verb == wrappers.Merge || o.Verb == wrappers.Message {
		raw = l.merge(c.base.raw, raw)
	}
	first := state && !o.Wire && !c.base.known && (gone || c.exists)
	same := c.base.known && c.base.gone == gone && (gone || sameBody(c.base.raw, raw))
	c.base = baseline{known: true, gone: gone, raw: raw, version: o.Version}
	if first {
		// What the server has is compared with the register, which wins and fills the server.
		if c.due == 0 && c.exists && !(o.Ours || sameBody(raw, c.payload.Raw)) {
			l.due++
			c.due = l.due
		}
		return
	}
	if o.Ours || same && !o.Wire || gone && !c.exists {
		return
	}
	l.apply(wrappers.Operation{Verb: o.Verb, Server: o.Server, Address: o.Address, Payload: o.Payload, Who: o.Who, Tag: o.Tag}, ViaSeen)
}

// sameBody: equal bytes, or JSON that says the same.
func sameBody(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	var x, y any
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	p, err1 := json.Marshal(x)
	q, err2 := json.Marshal(y)
	return err1 == nil && err2 == nil && bytes.Equal(p, q)
}
