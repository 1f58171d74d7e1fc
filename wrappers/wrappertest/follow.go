package wrappertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// LayOnto makes WriteBack's changes keep what f keeps of the document that a server has
// (Change.Onto).
func (l *Link) LayOnto(f func(doc, pay wrappers.Payload) (wrappers.Payload, error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.onto = f
}

// ReadBackFirst makes WriteBack ask the server for what it has before the first write to an
// address, as the gateway does where no feed runs.
func (l *Link) ReadBackFirst() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asksFirst = true
}

// Trim forgets the log up to now: older cursors get a snapshot.
func (l *Link) Trim() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trimmed = len(l.log)
}

var errStopped = errors.New("the wrapper is being stopped")

// Stop ends all Follows.
func (l *Link) Stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.wake()
}

// Follow implements wrappers.Link.
func (l *Link) Follow(ctx context.Context, mode wrappers.FollowMode, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if mode == wrappers.WriteBack {
		return l.writeBack(ctx)
	}
	l.mu.Lock()
	next, snapshot := len(l.log), false
	if from != "" {
		if _, err := fmt.Sscanf(string(from), "log.%d", &next); err != nil || next < l.trimmed || next > len(l.log) {
			next, snapshot = len(l.log), true
		}
	}
	var state []wrappers.Change
	if snapshot {
		for at, c := range l.cells {
			if c.exists {
				state = append(state, wrappers.Change{Server: at.server, Address: at.address, Payload: c.payload, Version: c.version, Cursor: cursorOf(next), Snapshot: true})
			}
		}
		slices.SortFunc(state, func(a, b wrappers.Change) int { return strings.Compare(a.Address, b.Address) })
	}
	l.mu.Unlock()
	return func(yield func(wrappers.Change, error) bool) {
		for _, c := range state {
			if !yield(c, nil) {
				return
			}
		}
		for {
			l.mu.Lock()
			changed, stopped := l.changed, l.stopped
			var c *wrappers.Change
			if next < len(l.log) {
				c = &l.log[next].change
				next++
			}
			l.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(wrappers.Change{}, ctx.Err())
				return
			case stopped:
				yield(wrappers.Change{}, errStopped)
				return
			case c != nil:
				if !yield(*c, nil) {
					return
				}
				continue
			}
			select {
			case <-changed:
			case <-ctx.Done():
			}
		}
	}
}

func (l *Link) writeBack(ctx context.Context) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		l.mu.Lock()
		for _, c := range l.cells { // what an earlier Follow left unsettled is owed again
			if c.ticket != 0 {
				l.due++
				c.held, c.ticket, c.due, c.ask, c.asking = false, 0, l.due, c.asking, false
			}
		}
		l.mu.Unlock()
		for {
			l.mu.Lock()
			changed, stopped := l.changed, l.stopped
			ch, wait := l.nextDue()
			l.mu.Unlock()
			switch {
			case ctx.Err() != nil:
				yield(wrappers.Change{}, ctx.Err())
				return
			case stopped:
				yield(wrappers.Change{}, errStopped)
				return
			case ch != nil:
				if !yield(*ch, nil) {
					return
				}
				continue
			}
			var after <-chan time.Time
			if wait > 0 {
				after = time.After(wait)
			}
			select {
			case <-changed:
			case <-after:
			case <-ctx.Done():
			}
		}
	}
}

// nextDue takes the oldest change owed to a server whose address is free; l.mu is held.
func (l *Link) nextDue() (*wrappers.Change, time.Duration) {
	var at place
	var best *cell
	var wait time.Duration
	for p, c := range l.cells {
		if c.due == 0 && !c.ask || c.held || best != nil && !c.ask && (best.ask || best.due < c.due) || !l.maps(wrappers.Put, p.server, p.address) {
			continue
		}
		if d := time.Until(c.notUntil); d > 0 {
			if wait == 0 || d < wait {
				wait = d
			}
			continue
		}
		if c.ask {
			at, best = p, c
			continue
		}
		if c.base.known && c.base.gone == !c.exists && (c.base.gone || sameBody(c.base.raw, c.payload.Raw)) {
			c.due = 0
			continue
		}
		at, best = p, c
	}
	if best == nil {
		return nil, wait
	}
	l.ticket++
	best.held, best.ticket = true, l.ticket
	if best.ask || l.asksFirst && !best.base.known {
		best.asking, best.ask = true, false
		return &wrappers.Change{Server: at.server, Address: at.address, Cursor: cursorOf(len(l.log)), ReadBack: true, Ticket: l.ticket}, 0
	}
	best.due = 0
	ch := &wrappers.Change{Server: at.server, Address: at.address, Payload: clonePayload(best.payload), Gone: !best.exists,
		Version: best.version, Previous: best.base.version, Cursor: cursorOf(len(l.log)), Create: !best.base.known || best.base.gone, Ticket: l.ticket}
	if p := l.pattern(at.server, at.address); p != nil {
		ch.Options = p.Options
	}
	if onto, pay := l.onto, ch.Payload; onto != nil && !ch.Gone {
		ch.Onto = func(doc wrappers.Payload) (wrappers.Payload, error) { return onto(doc, pay) }
	}
	return ch, 0
}

// Settle implements wrappers.Link.
func (l *Link) Settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) error {
	if err := l.enter(ctx, CallSettle); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Ticket == 0 {
		return errors.New("settle: the change has no ticket")
	}
	cl := l.cell(c.Server, c.Address)
	if cl.ticket != c.Ticket {
		return errors.New("settle: not an unsettled change")
	}
	asked := cl.asking
	cl.held, cl.ticket, cl.asking = false, 0, false
	if asked {
		if e.Outcome == wrappers.Done && !cl.base.known {
			return errors.New("settle: a read-back is done only when Seen has said what the server has")
		}
		cl.ask = e.Outcome == wrappers.Retry
		cl.notUntil = time.Now().Add(time.Millisecond)
		l.wake()
		return nil
	}
	l.settled = append(l.settled, Settled{c, e})
	if e.Outcome == wrappers.Retry && errors.Is(e.Err, wrappers.ErrConflict) && l.asksFirst {
		cl.ask = true
	}
	switch e.Outcome {
	case wrappers.Done:
		raw := c.Payload.Raw
		if e.AsStored != nil {
			raw = bytes.Clone(e.AsStored.Raw)
		}
		cl.base = baseline{known: true, gone: c.Gone, raw: raw, version: e.Version}
		cl.attempts = 0
	case wrappers.Retry:
		cl.attempts++
		cl.notUntil = time.Now().Add(min(time.Millisecond<<min(cl.attempts, 10), 200*time.Millisecond))
		if cl.due == 0 {
			l.due++
			cl.due = l.due
		}
	}
	l.wake()
	return nil
}
