package link

import (
	"context"
	"errors"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// What each side tells the other of what it knows, and what both keep of that beyond a connection.

// knowing is what both sides of a session know of each other's vectors.
type knowing struct {
	place  place
	told   engine.QStateVector // the own one, as the peer was last told
	number uint64              // of that telling: 1 is the hello's
	seen   uint64              // the last telling that the peer is known to have
	digest lattice.Hash        // of the vector in the own hello
	at     engine.Cursor       // the own log as the hello was made
	theirs engine.QStateVector // as the peer last told
	taken  uint64              // the number of that telling
	root   lattice.Hash        // the peer's, when it last said
	heard  engine.Stamp        // likewise
	has    engine.QStateVector // theirs, and what it has sent or acknowledged since
	dirty  bool                // place has changed since it was kept
}

// A place is what is kept of a peer from one connection to the next.
type place struct {
	theirs engine.QStateVector    // its vector
	mine   [2]engine.QStateVector // the own vector, as the peer surely has it, and as it was last told
	cursor engine.Cursor          // of the own log: what is before it the peer has
	had    engine.QStateVector    // what the peer had confirmed at that place
}

const (
	placeTable   = "pairplace"
	placeVersion = 1
)

func (p *place) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 7), placeVersion)
	dst = appendDots(appendDots(appendDots(dst, p.theirs), p.mine[0]), p.mine[1])
	return appendDots(lattice.AppendUint(lattice.AppendUint(dst, p.cursor.Log), p.cursor.Ordinal), p.had)
}

func parsePlace(raw []byte) (p place, err error) {
	r := lattice.NewReader(raw)
	r.Array(7)
	if v := r.Uint(); v != placeVersion {
		r.Fail("a place of version %d", v)
	}
	p.theirs, p.mine[0], p.mine[1] = readDots(r), readDots(r), readDots(r)
	p.cursor = engine.Cursor{Log: r.Uint(), Ordinal: r.Uint()}
	p.had = readDots(r)
	return p, r.End()
}

// loadPlace reads what is kept of a peer. Nothing rests on it but how much is sent again.
func loadPlace(e *engine.Engine, peer engine.EndpointID) (place, error) {
	raw, err := e.Kept(placeTable, keyOf(peer))
	if err != nil || raw == nil {
		return place{}, err
	}
	p, err := parsePlace(raw)
	if err != nil {
		return place{}, nil // of a newer program: begin anew
	}
	return p, nil
}

// keepPlace stores it, if it has changed.
func (s *Session) keepPlace(ctx context.Context) error {
	s.mu.Lock()
	dirty, p := s.knows.dirty, s.knows.place
	var peer engine.EndpointID
	if s.greeting != nil {
		peer = s.greeting.Endpoint
	}
	s.knows.dirty = false
	s.mu.Unlock()
	if !dirty {
		return nil
	}
	err := s.e.KeepRecords(ctx, false, engine.Record{Table: placeTable, Key: keyOf(peer), Value: p.encode()})
	if errors.Is(err, engine.ErrFull) {
		return nil // then more is sent again
	}
	return err
}

// compareVectors holds both hellos against each other. If the vectors are equal nothing more need be said.
func (s *Session) compareVectors(ctx context.Context, h *hello) error {
	s.mu.Lock()
	if h.Digest == s.knows.digest {
		s.knows.theirs = s.knows.told
		s.mu.Unlock()
		return s.meet(ctx)
	}
	v := &vectorFrame{Digest: s.knows.digest}
	var base engine.QStateVector
	for _, known := range s.knows.place.mine {
		if len(known) > 0 && h.Base != (lattice.Hash{}) && digest(known) == h.Base {
			base, v.Base = known, h.Base
		}
	}
	v.Step = between(base, s.knows.told)
	s.queue = append(s.queue, &frame{kind: kindVector, vector: v})
	s.phase = meetingPhase
	s.mu.Unlock()
	return nil
}

// learn takes the peer's vector.
func (s *Session) learn(ctx context.Context, v *vectorFrame) error {
	s.mu.Lock()
	var base engine.QStateVector
	if v.Base != (lattice.Hash{}) {
		base = s.knows.place.theirs
	}
	switch {
	case s.phase != meetingPhase:
		s.mu.Unlock()
		return invalid("a second vector")
	case v.Base != (lattice.Hash{}) && digest(base) != v.Base:
		s.mu.Unlock()
		return invalid("a vector against another than this node has")
	}
	theirs := v.Step.from(base)
	if d := digest(theirs); d != v.Digest || d != s.greeting.Digest {
		s.mu.Unlock()
		return invalid("a vector that is not the one in the hello")
	}
	s.knows.theirs = theirs
	s.mu.Unlock()
	return s.meet(ctx)
}

// meet begins the exchange: both vectors are known.
func (s *Session) meet(ctx context.Context) error {
	s.mu.Lock()
	k, h := &s.knows, s.greeting
	k.taken, k.root, k.heard, k.has = 1, h.Root, h.Heard, k.theirs
	theirs := k.theirs
	s.mu.Unlock()
	if err := s.e.Meet(ctx, engine.Summary{Endpoint: h.Endpoint, Origin: h.Origin, Head: h.Head, Vector: theirs, Root: h.Root, Heard: h.Heard}); err != nil {
		return err
	}
	if err := s.confirm(ctx, theirs, h.Heard); err != nil {
		return err
	}
	lost, err := s.e.Lost(theirs)
	if err != nil {
		return err
	}
	had, err := s.e.CoveredBy(theirs, k.place.had) // only this goroutine changes it before the exchange has begun
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out.lost = lost
	switch {
	case theirs.CoversAll(k.told):
		s.out.sent = k.at // it has all of that, wherever it came from
	case had:
		s.out.sent = k.place.cursor
	default:
		// It was set back, or it has retired an origin that is none here yet. Which of the two can't be told, and need not be.
		s.out.sent, k.place.cursor, k.place.had = engine.Cursor{}, engine.Cursor{}, nil
	}
	k.place.theirs, k.place.mine[1], k.dirty = theirs, k.told, true
	s.phase = catchingPhase
	return nil
}

// confirm tells the engine what the peer has on its disk.
func (s *Session) confirm(ctx context.Context, v engine.QStateVector, heard engine.Stamp) error {
	err := s.e.Heard(ctx, engine.Member{Endpoint: s.greeting.Endpoint, Vector: v, Heard: heard})
	if errors.Is(err, engine.ErrNotFound) {
		return nil // the pair has just been dissolved
	}
	return err
}

// news says what was taken, and what is known since.
func (s *Session) news(ctx context.Context) (*frame, error) {
	s.mu.Lock()
	n := &news{Ack: s.in.taken, Flags: s.in.flags, Seen: s.knows.taken}
	force := n.Flags&(flagGap|flagJoined) != 0
	s.in.due = false
	s.in.flags &= flagDone
	waits := s.in.waits
	s.in.waits = nil
	s.mu.Unlock()
	for _, wait := range waits {
		if err := wait(); err != nil {
			return nil, err
		}
	}
	own, err := s.e.Summary(ctx) // behind the acknowledgement: it covers what is acknowledged
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n.Heard, n.Wall, n.Root = own.Heard, s.o.now().UnixMilli(), own.Root
	k := &s.knows
	if step := between(k.told, own.Vector); !step.empty() && (force || k.seen == k.number) || force {
		k.number++
		n.Number, n.Step = k.number, step
		k.told = own.Vector
		k.place.mine[1], k.dirty = k.told, true
	}
	n.Digest = digest(own.Vector)
	return &frame{kind: kindNews, news: n}, nil
}

// heard takes the peer's news.
func (s *Session) heard(ctx context.Context, n *news) error {
	s.mu.Lock()
	k := &s.knows
	s.skew = time.UnixMilli(n.Wall).Sub(s.o.now())
	if n.Seen > k.number {
		s.mu.Unlock()
		return invalid("it has seen telling %d of %d", n.Seen, k.number)
	}
	if n.Seen == k.number && k.seen != n.Seen {
		k.place.mine[0], k.dirty = k.told, true
	}
	k.seen = max(k.seen, n.Seen)
	if n.Number != 0 {
		if n.Number != k.taken+1 {
			s.mu.Unlock()
			return invalid("telling %d behind %d", n.Number, k.taken)
		}
		k.taken = n.Number
		k.theirs = n.Step.from(k.theirs)
		for _, o := range n.Step.Gone {
			k.has = k.has.Without(o)
		}
		k.has = k.has.Join(k.theirs)
		k.place.theirs, k.dirty = k.theirs, true
	}
	k.root, k.heard = n.Root, n.Heard
	theirs := k.theirs
	if err := s.acknowledged(n); err != nil {
		s.mu.Unlock()
		return err
	}
	s.mu.Unlock()
	if n.Number != 0 {
		if err := s.confirm(ctx, theirs, n.Heard); err != nil {
			return err
		}
	}
	if n.Ack == 0 || n.Number != 0 || n.Flags&flagDone != 0 {
		return s.hold(ctx, n)
	}
	return nil
}

// hold holds the peer's root hash against the own one, if both know the same.
func (s *Session) hold(ctx context.Context, n *news) error {
	own, err := s.e.Summary(ctx)
	if err != nil || digest(own.Vector) != n.Digest {
		return err
	}
	h := s.greeting
	return s.e.Meet(ctx, engine.Summary{Endpoint: h.Endpoint, Origin: h.Origin, Vector: own.Vector, Root: n.Root, Heard: n.Heard})
}
