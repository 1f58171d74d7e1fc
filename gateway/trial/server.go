package trial

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A server is the real server behind one wrapper, in memory: it keeps a document per address, takes whatever it is
// told, and shows it in its feed if the protocol has one.
type server struct {
	t    *Trial
	info gateway.LinkInfo
	link wrappers.Link

	mu    sync.Mutex
	docs  map[spot]wrappers.Payload
	shown []wrappers.Observation // of the feed, not heard yet
	told  []Told
	err   error
}

type spot struct{ server, address string }

// follow takes what the gateway writes back.
func (s *server) follow(ctx context.Context) {
	for c, err := range s.link.Follow(ctx, wrappers.WriteBack, "") {
		if err == nil {
			err = s.link.Settle(ctx, c, s.take(ctx, &c))
		}
		if err != nil {
			if ctx.Err() == nil {
				s.fail(err)
			}
			return
		}
	}
}

func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = fmt.Errorf("wrapper %s: %w", s.info.Name, err)
	}
}

// take does what a change asks for.
func (s *server) take(ctx context.Context, c *wrappers.Change) wrappers.Effect {
	at := spot{c.Server, c.Address}
	s.mu.Lock()
	have, ok := s.docs[at]
	s.mu.Unlock()
	if c.ReadBack {
		o := wrappers.Observation{Server: c.Server, Address: c.Address, Verb: wrappers.Delete}
		if ok {
			o.Verb, o.Payload = wrappers.Put, have
		}
		if err := s.link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{o}); err != nil {
			s.fail(err)
			return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
		}
		return wrappers.Effect{Outcome: wrappers.Done}
	}
	pay := c.Payload
	if ok && !c.Gone && c.Onto != nil {
		var err error
		if pay, err = c.Onto(have); err != nil {
			return wrappers.Effect{Outcome: wrappers.Parked, Err: err}
		}
	}
	told := s.t.told(s.info, c)
	told.Payload, told.Create = pay, c.Create && !c.Gone
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.told = append(s.told, told); len(s.told) > mostTold {
		return wrappers.Effect{Outcome: wrappers.Parked, Err: errNoRest}
	}
	verb := wrappers.Put
	if c.Gone {
		verb = wrappers.Delete
	}
	s.keep(at, verb, pay)
	return wrappers.Effect{Outcome: wrappers.Done}
}

// keep changes a document and lets the feed show it. s.mu is held.
func (s *server) keep(at spot, verb wrappers.Verb, pay wrappers.Payload) {
	if verb == wrappers.Delete {
		delete(s.docs, at)
		pay = wrappers.Payload{}
	} else {
		pay.Raw = slices.Clone(pay.Raw)
		s.docs[at] = pay
	}
	if s.info.Protocol.Feed {
		o := wrappers.Observation{Server: at.server, Address: at.address, Verb: wrappers.Message, Payload: pay}
		if verb == wrappers.Delete {
			o.Verb = wrappers.Delete
		}
		s.shown = append(s.shown, o)
	}
}

// hear reports what the feed has shown since the last call.
func (s *server) hear(ctx context.Context) (any bool, err error) {
	s.mu.Lock()
	shown, err := s.shown, s.err
	s.shown = nil
	s.mu.Unlock()
	if err != nil || len(shown) == 0 {
		return false, err
	}
	return true, s.link.Seen(ctx, wrappers.Position{Feed: true}, shown)
}

// list is what a feed begins with: everything that the server has.
func (s *server) list(ctx context.Context) error {
	if !s.info.Protocol.Feed {
		return nil
	}
	var all []wrappers.Observation
	s.mu.Lock()
	for at, pay := range s.docs {
		all = append(all, wrappers.Observation{Server: at.server, Address: at.address, Verb: wrappers.Message, Payload: pay})
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b wrappers.Observation) int { return order(a.Server, a.Address, b.Server, b.Address) })
	return s.link.Seen(ctx, wrappers.Position{Feed: true, Snapshot: wrappers.SnapshotEnd}, all)
}

// operate does what a peer does at the server: through the relay, or behind the gateway's back.
func (s *server) operate(ctx context.Context, op wrappers.Operation) (r wrappers.Result, passed bool, err error) {
	at := spot{op.Server, op.Address}
	switch {
	case op.Verb == wrappers.Read:
		s.mu.Lock()
		defer s.mu.Unlock()
		have, ok := s.docs[at]
		if !ok {
			return r, false, wrappers.Refuse(wrappers.ErrNotFound, "the server has nothing there")
		}
		return wrappers.Result{Payload: have}, !s.link.Maps(op.Verb, op.Server, op.Address), nil
	case op.Verb == wrappers.List || op.Verb == wrappers.Rename || len(op.Parts) > 0:
		return r, false, wrappers.Refuse(wrappers.ErrInvalid, "a server's own "+op.Verb.String()+" can't be tried")
	case s.info.Relay && !s.info.Protocol.Feed:
		in, err := s.link.Begin(ctx, op)
		if wrappers.Kind(err) == wrappers.ErrUnmapped {
			return r, true, nil
		}
		if err != nil {
			return r, false, err
		}
		s.becomes(at, op)
		r, err = in.Commit(ctx, op)
		return r, false, err
	}
	if !s.link.Maps(op.Verb, op.Server, op.Address) {
		return r, true, nil
	}
	s.becomes(at, op)
	o := wrappers.Observation{
		Server: op.Server, Address: op.Address, Verb: op.Verb, Payload: op.Payload, Who: op.Who, Wire: s.info.Relay,
	}
	if !s.info.Protocol.Feed && op.Verb != wrappers.Delete {
		// Asked, the server shows the whole document.
		s.mu.Lock()
		o.Verb, o.Payload = wrappers.Put, s.docs[at]
		s.mu.Unlock()
	}
	return r, false, s.link.Seen(ctx, wrappers.Position{Feed: s.info.Protocol.Feed}, []wrappers.Observation{o})
}

// becomes is what a peer's own write makes of the document.
func (s *server) becomes(at spot, op wrappers.Operation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch op.Verb {
	case wrappers.Delete:
		delete(s.docs, at)
		return
	case wrappers.Merge:
		if target, ok := s.t.set().At(s.info.Name, at.server, at.address); ok {
			op.Payload = merged(target.Bind, s.docs[at], op.Payload)
		}
	case wrappers.Message:
		if !s.info.Protocol.Feed {
			return // a message is no document
		}
	}
	op.Payload.Raw = slices.Clone(op.Payload.Raw)
	s.docs[at] = op.Payload
}

// merged lays the members of patch over those of doc; null takes a member out. What is no document of members is
// replaced.
func merged(b *mapping.Bind, doc, patch wrappers.Payload) wrappers.Payload {
	old, err := b.Decode(doc)
	over, err2 := b.Decode(patch)
	if err != nil || err2 != nil || old.Kind() != lattice.ObjectKind || over.Kind() != lattice.ObjectKind {
		return patch
	}
	var members []lattice.Member
	for _, m := range old.Members() {
		if _, ok := over.Member(m.Name); !ok {
			members = append(members, m)
		}
	}
	for _, m := range over.Members() {
		if m.Value.Kind() != lattice.NullKind {
			members = append(members, m)
		}
	}
	pay, err := b.Encode(lattice.Object(members...))
	if err != nil {
		return patch
	}
	return pay
}
