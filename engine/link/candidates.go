package link

import (
	"context"
	"errors"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// Op mode: candidates in the sender's own apply order, from a kept place in its log.

type mode uint8

const (
	opMode    mode = iota
	stateMode      // the log was trimmed further than the peer's vector: it is given the state
)

// outgoing is what this node tells the peer.
type outgoing struct {
	mode   mode
	sent   engine.Cursor // of the own log: all up to there is under way or had
	number uint64        // of the last batch
	flight []flight      // not acknowledged yet, oldest first
	bytes  uint64        // of these
	window uint64
	done   bool                // the peer has had all that there was
	lost   engine.QStateVector // own candidates of earlier runs, which the peer has and this node not: these come first
	gaps   int                 // times in a row that the peer lacked what it was thought to have
	whole  bool                // after too many of these it is given the state
	again  time.Time           // when a state is offered once more
	offer  uint64              // number of the last offer
	waited time.Time           // since when the oldest in flight waits
}

// gapsMost is how often a gap is answered by sending anew.
const gapsMost = 3

// A flight is one batch under way.
type flight struct {
	number uint64
	bytes  uint64
	place  engine.Cursor       // of the own log: the batch brings the peer up to there; zero for one of registers
	dots   engine.QStateVector // of each origin the last
}

func (o *outgoing) begin() { o.window = batchBytes }

// incoming is what the peer tells this node.
type incoming struct {
	taken uint64         // the last batch
	waits []func() error // for batches to be durable, before they are acknowledged
	flags uint64
	due   bool // news are to be told
	done  bool // the peer has nothing left of what it had
}

// nextBatch gathers candidates that the peer lacks.
func (s *Session) nextBatch(ctx context.Context) (*frame, error) {
	s.mu.Lock()
	o := &s.out
	if o.mode != opMode || o.bytes >= o.window || !o.again.IsZero() {
		s.mu.Unlock()
		return nil, nil
	}
	lost, sent, has, whole := o.lost, o.sent, s.knows.has, o.whole
	o.whole = false
	s.mu.Unlock()
	if whole {
		return s.makeOffer(ctx)
	}
	if len(lost) > 0 {
		if still, err := s.e.Lost(lost); err != nil || len(still) > 0 {
			return nil, err
		}
		s.mu.Lock()
		o.lost = nil
		s.mu.Unlock()
	}
	end := s.e.Place() // before looking: what is looked at has at least this
	b := &batch{}
	f := flight{}
	full := false
	for c, err := range s.e.Candidates(ctx, has, sent) {
		if errors.Is(err, engine.ErrTrimmed) {
			return s.makeOffer(ctx)
		}
		if err != nil {
			return nil, err
		}
		if f.bytes+uint64(len(c.Raw)) > batchBytes && len(b.Raw) > 0 {
			full = true
			break
		}
		b.Raw = append(b.Raw, c.Raw)
		f.bytes += uint64(len(c.Raw))
		f.place = c.Place
		f.dots = raise(f.dots, c.Dot)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !full && (end.Log != f.place.Log || end.Ordinal > f.place.Ordinal) {
		f.place = end // nothing of what lies between is wanted
	}
	if o.sent != sent || o.mode != opMode { // begun anew meanwhile
		return nil, nil
	}
	o.sent = f.place
	if len(b.Raw) == 0 {
		if len(o.flight) == 0 {
			s.reach(f.place)
			if !o.done {
				o.done = true
				s.in.flags |= flagDone
				s.in.due = true
				s.level()
			}
		}
		return nil, nil
	}
	o.number++
	b.Number, f.number, b.Dots = o.number, o.number, f.dots
	if len(o.flight) == 0 {
		o.waited = s.o.now()
	}
	o.flight = append(o.flight, f)
	o.bytes += f.bytes
	s.count.CandidatesOut += uint64(len(b.Raw))
	return &frame{kind: kindBatch, batch: b}, nil
}

// raise is v with d, in place where it can be: batches are mostly of few origins.
func raise(v engine.QStateVector, d engine.Dot) engine.QStateVector {
	for i := range v {
		if v[i].Origin == d.Origin {
			v[i].Seq = max(v[i].Seq, d.Seq)
			return v
		}
	}
	return v.With(d)
}

// reach notes that the peer has all of the own log up to a place. The caller holds s.mu.
func (s *Session) reach(at engine.Cursor) {
	p := &s.knows.place
	if p.cursor.Log == at.Log && p.cursor.Ordinal >= at.Ordinal {
		return
	}
	p.cursor, p.had, s.knows.dirty = at, s.knows.has, true
}

// acknowledged takes what news say of the own batches. The caller holds s.mu.
func (s *Session) acknowledged(n *news) error {
	o := &s.out
	if n.Ack > o.number {
		return invalid("it acknowledges batch %d of %d", n.Ack, o.number)
	}
	gap := n.Flags&flagGap != 0
	if gap || n.Flags&flagJoined != 0 {
		if n.Number == 0 {
			return invalid("news of a gap without a vector")
		}
		s.anew(gap)
	}
	for len(o.flight) > 0 && o.flight[0].number <= n.Ack {
		f := o.flight[0]
		o.flight = o.flight[1:]
		o.bytes -= f.bytes
		s.knows.has = s.knows.has.Join(f.dots)
		if f.place != (engine.Cursor{}) {
			s.reach(f.place)
		}
		o.waited = s.o.now()
		o.gaps = 0
	}
	if n.Flags&flagBusy != 0 && o.mode == stateMode {
		s.dropOffer(o.offer)
		o.again = s.o.now().Add(busyPause)
	}
	if n.Flags&flagDone != 0 && !s.in.done {
		s.in.done = true
		s.level()
	}
	return nil
}

// anew begins to send again what the peer's vector doesn't cover. The caller holds s.mu.
func (s *Session) anew(gap bool) {
	o := &s.out
	if !gap {
		s.dropOffer(o.offer)
	} else if o.gaps++; o.gaps >= gapsMost {
		o.whole = true
	}
	o.mode, o.flight, o.bytes, o.sent = opMode, nil, 0, engine.Cursor{}
	s.knows.has = s.knows.theirs
	s.knows.place.cursor, s.knows.place.had, s.knows.dirty = engine.Cursor{}, nil, true
}

// level notes that both have had what they lacked. The caller holds s.mu.
func (s *Session) level() {
	if s.out.done && s.in.done && s.phase == catchingPhase {
		s.phase = levelPhase
	}
}

// room waits while the disk is almost full: what the peer has sent stays unacknowledged, and what it has not sent, there.
func (s *Session) room(ctx context.Context) error {
	for s.e.Full() {
		select {
		case <-time.After(tickPeriod):
		case <-ctx.Done():
			return engine.ErrFull
		}
	}
	return nil
}

// receive takes a batch.
func (s *Session) receive(ctx context.Context, b *batch) error {
	s.mu.Lock()
	if b.Number <= s.in.taken {
		s.mu.Unlock()
		return invalid("batch %d behind %d", b.Number, s.in.taken)
	}
	s.mu.Unlock()
	if err := s.room(ctx); err != nil {
		return err
	}
	r, wait, err := s.e.Take(ctx, b.Raw...)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.in.taken = b.Number
	s.in.waits = append(s.in.waits, wait)
	s.in.due = true
	s.count.CandidatesIn += uint64(len(b.Raw))
	if r.Held > 0 || r.Full {
		s.in.flags |= flagGap
	}
	// What it sends it has, and all that it applied before.
	s.knows.has = s.knows.has.Join(b.Dots)
	s.mu.Unlock()
	return s.askChunks(ctx, false)
}
