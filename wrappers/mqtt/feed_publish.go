package mqtt

import (
	"context"
	"fmt"
	"slices"

	"github.com/spooksystems/gateway/wrappers"
)

type outgoing struct {
	change wrappers.Change
	note   *noted
}

// publish sends one change; false: this connection is going down.
func (f *feed) publish(ctx context.Context, c wrappers.Change, p publish) bool {
	s := f.side
	if p.qos == 2 && f.c.noQoS2 {
		p.qos = 1
	}
	if f.c.noQoS1 {
		p.qos = 0
	}
	if f.marks {
		p.props = appendUserProperty(nil, markProperty, s.cfg.Endpoint)
	}
	if size := publishSize(f.c.v5, &p, nil); f.c.most > 0 && size > f.c.most {
		s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Parked, Err: wrappers.Refuse(wrappers.ErrTooLarge,
			fmt.Sprintf("the message has %d bytes, the broker takes %d", size, f.c.most))})
		return true
	}
	select {
	case <-f.free:
	case <-f.gone:
		return false
	case <-ctx.Done():
		return false
	}
	o := &outgoing{change: c}
	f.mu.Lock()
	if f.flying == nil {
		f.mu.Unlock()
		return false
	}
	if slices.ContainsFunc(f.want, func(w string) bool { return filterMatches(w, c.Address) }) {
		o.note = s.wire.note(p.topic, p.payload, wrappers.Who{}, true, p.retain)
	}
	if p.qos > 0 {
		for f.lastID = f.lastID%maxPublishID + 1; f.flying[f.lastID] != nil; {
			f.lastID = f.lastID%maxPublishID + 1
		}
		p.id = f.lastID
		f.flying[p.id] = o
	}
	f.mu.Unlock()
	err := f.c.write(appendPublish(nil, f.c.v5, &p, nil))
	if p.qos == 0 {
		f.free <- struct{}{}
		if err != nil {
			return false
		}
		s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done})
	}
	return true // after a failed write run settles what flies
}

// acked takes the broker's answer to a publish of ours.
func (f *feed) acked(ctx context.Context, kind byte, a ack) error {
	if kind == typePubrel { // of a QoS 2 message, which the broker may send although we asked for 1
		return f.c.write(appendAck(nil, typePubcomp, f.c.v5, a.id, 0, ""))
	}
	f.mu.Lock()
	o := f.flying[a.id]
	if o == nil {
		f.mu.Unlock()
		return nil
	}
	if kind == typePubrec && a.code < 0x80 {
		f.mu.Unlock()
		return f.c.write(appendAck(nil, typePubrel, f.c.v5, a.id, 0, ""))
	}
	delete(f.flying, a.id)
	if len(f.flying) == 0 && f.idle != nil {
		close(f.idle)
		f.idle = nil
	}
	f.mu.Unlock()
	f.free <- struct{}{}
	e := wrappers.Effect{Outcome: wrappers.Done}
	if a.code >= 0x80 {
		if o.note != nil {
			f.side.wire.forget(o.note)
		}
		sentinel, transient := kindOf(a.code)
		text, _ := property(a.props, propReason)
		why := fmt.Sprintf("the broker refuses the message: %s (0x%02x)", reasonNames[a.code], a.code)
		if len(text) > 0 {
			why += ": " + string(text)
		}
		e = wrappers.Effect{Outcome: wrappers.Parked, Err: wrappers.Refuse(sentinel, why)}
		if transient {
			e.Outcome = wrappers.Retry
		}
	}
	f.side.settle(ctx, o.change, e)
	return nil
}

// quiet gives a channel that closes when every publish of ours has been answered.
func (f *feed) quiet() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.idle == nil {
		f.idle = make(chan struct{})
		if len(f.flying) == 0 {
			closed := f.idle
			close(closed)
			f.idle = nil
			return closed
		}
	}
	return f.idle
}
