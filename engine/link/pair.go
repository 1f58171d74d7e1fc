package link

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// A State is that of one half of a pair.
type State string

// The states. Decohered is a status and no loss: reads and writes go on.
const (
	Offered       State = "offered"      // an invitation was given
	Accepted      State = "accepted"     // the pair is made, and was never connected
	Reentangling  State = "reentangling" // connected; what each lacks is on its way
	Entangled     State = "entangled"    // connected, and nothing is lacking
	Decohered     State = "decohered"    // not connected
	DissolvedPair State = "dissolved"    // final
)

// A pair is one half of a pair at work.
type pair struct {
	ctx    context.Context // ends with the pair
	cancel context.CancelFunc

	// Of Site.mu:
	record  *Record // replaced, never changed
	state   State
	since   time.Time
	session *Session // the one that is up
	stop    context.CancelCauseFunc
	remote  string
	figures Figures // of sessions that are over
	begun   uint64  // sessions
	failure string  // why the last connection ended or could not be made
	failed  time.Time
	twinAt  time.Time       // since when another incarnation wants to come in beside the one that is up
	twin    engine.OriginID // which
	knocks  chan struct{}   // call now
	calling bool
	level   bool   // it was entangled since the last call
	counted uint64 // sessions before the last call
}

// lasted says whether a connection was made since the last call, and whether both sides had what they lacked before it
// ended: the next call is made the sooner.
func (s *Site) lasted(p *pair) (level, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	level, begun = p.level, p.begun > p.counted
	p.level, p.counted = false, p.begun
	return level, begun
}

// keepCalling calls the peer whenever no session is up, until the pair ends.
func (s *Site) keepCalling(p *pair) {
	ctx := p.ctx
	const first, last = 100 * time.Millisecond, 10 * time.Second
	pause := first
	for ctx.Err() == nil {
		err := s.callOnce(ctx, p)
		if ctx.Err() != nil {
			return
		}
		if s.dissolvedBy(p, err) {
			return
		}
		switch level, begun := s.lasted(p); {
		case level:
			pause = first
		case begun:
			pause = min(pause, 4*first)
		}
		if errors.Is(err, ErrTwin) || errors.Is(err, ErrRefused) || errors.Is(err, errStranger) {
			pause = last // it will not be otherwise soon
		}
		s.noteFailure(p, err)
		select {
		case <-time.After(pause/2 + rand.N(pause)): // many that lost one site don't come back at once
		case <-p.knocks:
			pause = first
		case <-ctx.Done():
			return
		}
		pause = min(2*pause, last)
	}
}

// callOnce makes one connection and keeps it up.
func (s *Site) callOnce(ctx context.Context, p *pair) error {
	s.mu.Lock()
	record := *p.record
	s.mu.Unlock()
	conn, err := call(ctx, record.Address, s.self.calling(record.Endpoint, record.Key), s.o.Dial)
	if err != nil {
		return err
	}
	defer conn.close()
	session, err := newSession(ctx, s.options(true, record.Endpoint, record.Secret, func(context.Context, *hello) (*Record, error) {
		return &record, nil
	}))
	if err != nil {
		return err
	}
	return s.run(ctx, conn, session)
}

// dissolvedBy takes the peer's word that the pair is no more.
func (s *Site) dissolvedBy(p *pair, err error) bool {
	if !errors.Is(err, ErrDissolved) {
		return false
	}
	s.mu.Lock()
	name, known := p.record.Name, p.record.Dissolved
	s.mu.Unlock()
	if known {
		return true
	}
	if err := s.dissolve(s.ctx, p); err != nil {
		s.o.Log.Error("sites: a pair that the other dissolved could not be dissolved here", "site", name, "error", err)
	}
	return true
}

func (s *Site) noteFailure(p *pair, err error) {
	if err == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := err.Error()
	if text != p.failure {
		s.o.Log.Warn("sites: not connected", "site", p.record.Name, "address", p.record.Address, "error", err)
	}
	p.failure, p.failed = text, s.o.Now()
}

// move changes the state of a pair. The caller holds s.mu.
func (s *Site) move(p *pair, to State) {
	if p.state == to || p.state == DissolvedPair {
		return
	}
	s.o.Log.Info("sites: "+string(to), "site", p.record.Name, "endpoint", p.record.Endpoint.String(), "was", string(p.state))
	p.state, p.since = to, s.o.Now()
}

// twinWait is how long a second incarnation of a connected endpoint is asked to wait: so long may the first have been gone
// without anybody's having noticed.
const twinWait = Heartbeat + Heartbeat/2

// admit decides on a peer who has called and said who it is.
func (s *Site) admit(ctx context.Context, h *hello, key [32]byte) (*Record, error) {
	now := s.o.Now()
	s.mu.Lock()
	p := s.pairs[h.Endpoint]
	if p == nil || p.record.Dissolved || p.record.Key != key {
		s.mu.Unlock()
		if len(h.Secret) > 0 {
			return s.use(ctx, h, key)
		}
		if p != nil && p.record.Dissolved {
			return nil, &refusal{code: byeDissolved, text: "the pair was dissolved here"}
		}
		return nil, &refusal{code: byeRefused, text: "no pair with that endpoint and key here"}
	}
	old := p.session
	if old == nil {
		s.mu.Unlock()
		return p.record, nil
	}
	before, heardAt, met := old.met()
	if !met || before.Origin == h.Origin {
		s.mu.Unlock()
		return p.record, nil // the same process, by a new line: run ends the old one
	}
	if now.Sub(heardAt) >= twinWait {
		s.mu.Unlock()
		return p.record, nil // the old line was half open
	}
	if p.twin != h.Origin {
		p.twin, p.twinAt = h.Origin, now
	}
	proven := now.Sub(p.twinAt) > 0 && heardAt.Sub(p.twinAt) > Heartbeat/2
	s.mu.Unlock()
	if !proven {
		return nil, &refusal{code: byeBusy, text: "that endpoint is connected, as another incarnation: if it was that of a process that is gone, come again in a moment"}
	}
	old.tellTwin(h.Origin)
	if err := s.e.Twins(ctx, h.Endpoint, before.Origin, h.Origin); err != nil {
		return nil, err
	}
	return nil, &refusal{code: byeTwin, text: fmt.Sprintf("endpoint %s runs twice: the other one is connected", h.Endpoint), twin: before.Origin}
}
