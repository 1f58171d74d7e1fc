package mqtt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// clientSide is the wrapper in front of or inside a broker. Either way it has a session of its own
// there, the feed, which alone makes candidates, in the broker's order, and which writes changes
// from elsewhere. In front of a broker there is a relay as well (relay.go).
type clientSide struct {
	cfg  wrappers.Config
	opt  options
	link wrappers.Link
	log  *slog.Logger
	wire *wire
	owed *ledger

	mu   sync.Mutex
	up   chan struct{} // closed while feed stands
	feed *feed
}

func newClientSide(cfg wrappers.Config, opt options) *clientSide {
	if opt.clientID == "" {
		id := cfg.Endpoint[strings.LastIndexByte(cfg.Endpoint, '/')+1:]
		opt.clientID = "spookgw-" + id[:min(8, len(id))] + "-" + cfg.Name
	}
	return &clientSide{cfg: cfg, opt: opt, log: cfg.Log, wire: newWire(), owed: newLedger(), up: make(chan struct{})}
}

// Serve implements wrappers.Wrapper.
func (s *clientSide) Serve(ctx context.Context, link wrappers.Link) error {
	s.link = link
	// The feed outlives the relay's drain: acknowledgements may still wait for it.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var bg sync.WaitGroup
	bg.Go(func() { s.keepFeed(work) })
	serve, end := context.WithCancel(ctx)
	defer end()
	parts := []func(context.Context) error{s.writeBack}
	if s.cfg.Relay() {
		parts = append(parts, s.relay)
	}
	ended := make(chan error, len(parts))
	for _, part := range parts {
		go func() { ended <- part(serve) }()
	}
	var err error
	for range parts {
		err = errors.Join(err, <-ended)
		end() // without one of them the wrapper is not whole
	}
	s.settleInFlight(s.cfg.Drain)
	stop()
	bg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// settleInFlight gives the broker time to answer the last publishes.
func (s *clientSide) settleInFlight(atMost time.Duration) {
	s.mu.Lock()
	f := s.feed
	s.mu.Unlock()
	if f == nil {
		return
	}
	select {
	case <-f.quiet():
	case <-f.gone:
	case <-time.After(atMost):
	}
}

// keepFeed keeps the session at the broker connected.
func (s *clientSide) keepFeed(ctx context.Context) {
	v5 := true
	fresh := true
	pause := time.Duration(0)
	known := s.loadSeen(ctx)
	for ctx.Err() == nil {
		c, err := connectBroker(ctx, &s.cfg, &s.opt, s.opt.clientID, v5)
		switch {
		case err == nil:
			pause = 0
			if !c.present && !fresh {
				s.link.Count("feed_session_lost", 1)
				s.log.Warn("the broker has forgotten the gateway's session: what was published meanwhile without RETAIN is lost")
			}
			switch {
			case !c.present:
				s.owed.set([]string{}, true)
			case fresh:
				// All that was granted before the last end is owed already; to wait until the feed is through
				// with what has queued up meanwhile would shut clients out for as long.
				granted, err := s.keptFilters(ctx, grantedKey)
				if err != nil {
					s.log.Warn("feed: notes of the last run", "err", err)
				}
				s.owed.set(append([]string{}, granted...), true)
			}
			f := newFeed(s, c, known)
			err = f.run(ctx, fresh)
			s.owed.set(nil, false)
			fresh = fresh && !f.listed
		case v5 && refusesV5(err):
			s.log.Info("the broker does not speak MQTT 5: going on with 3.1.1")
			v5 = false
			continue
		}
		if ctx.Err() != nil {
			return
		}
		s.link.Count("feed_down", 1)
		pause = min(max(2*pause, 100*time.Millisecond), 10*time.Second)
		s.log.Warn("feed", "err", err, "again_in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
	}
}

// set makes f the feed, or none.
func (s *clientSide) set(f *feed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil {
		close(s.up)
	} else if s.feed != nil {
		s.up = make(chan struct{})
	}
	s.feed = f
}

// standing waits for the feed.
func (s *clientSide) standing(ctx context.Context) *feed {
	for {
		s.mu.Lock()
		f, up := s.feed, s.up
		s.mu.Unlock()
		if f != nil {
			return f
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil
		}
	}
}

// writeBack writes what changed elsewhere into the broker.
func (s *clientSide) writeBack(ctx context.Context) error {
	for c, err := range s.link.Follow(ctx, wrappers.WriteBack, "") {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("following the log: %w", err)
		}
		if c.ReadBack {
			s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Parked, Err: errors.New("a broker can't be asked what it holds")})
			continue
		}
		p, why := s.message(&c)
		if why != nil {
			s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Parked, Err: why})
			continue
		}
		if p == nil { // gone, and nothing is retained that could be cleared
			s.settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done})
			continue
		}
		for {
			f := s.standing(ctx)
			if f == nil {
				return nil
			}
			if f.publish(ctx, c, *p) {
				break
			}
			select { // it is going down: wait for the next one
			case <-f.gone:
			case <-ctx.Done():
				return nil
			}
		}
	}
	return nil
}

func (s *clientSide) settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) {
	if err := s.link.Settle(context.WithoutCancel(ctx), c, e); err != nil {
		s.log.Error("settle", "address", c.Address, "err", err)
	}
}

// message makes the PUBLISH of a change; nil when there is nothing to say.
func (s *clientSide) message(c *wrappers.Change) (*publish, error) {
	p := &publish{qos: qosOf(c.Options), retain: retained(c.Options), topic: []byte(c.Address)}
	if err := checkTopic(p.topic); err != nil {
		return nil, err
	}
	if c.Gone {
		if !p.retain {
			return nil, nil
		}
		return p, nil
	}
	p.payload = c.Payload.Raw
	return p, nil
}
