package hub

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
)

// What the hub does not bring is asked for: the members' vectors say that there is something, and any member who has it
// gives it.

const (
	// patience is how long the hub may take to bring what a member is known to have.
	patience = time.Second
	// again is how long a member who could not help is left alone.
	again = 10 * time.Second
)

// fill looks for what is lacking as long as the round lasts.
func (r *round) fill() error {
	h := r.h
	var since time.Time // something is lacking, and nothing was gained
	var before uint64
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-r.lack:
		case <-t.C:
		case <-r.ctx.Done():
			return nil
		}
		lacking, err := r.lacking()
		if err != nil {
			return err
		}
		chunks, err := h.e.Incoming(r.ctx, 1, func(lattice.Hash) bool { return false })
		if err != nil {
			return err
		}
		r.mu.Lock()
		behind, full := r.behind, r.full
		if lacking == 0 {
			r.full, full = false, false
		}
		r.mu.Unlock()
		switch {
		case lacking == 0 && len(chunks) == 0:
			since = time.Time{}
			continue
		case lacking != before && behind && !full: // the hub is bringing it
			before, since = lacking, time.Now()
			continue
		case since.IsZero():
			before, since = lacking, time.Now()
		}
		if before = lacking; !full && time.Since(since) < patience {
			continue
		}
		m := r.whom(lacking > 0)
		if m == nil {
			continue
		}
		if err := r.ask(m); err != nil {
			return err
		}
		since = time.Time{}
	}
}

// lacking counts what this node is known to lack.
func (r *round) lacking() (uint64, error) {
	h := r.h
	h.mu.Lock()
	var all engine.QStateVector
	for _, m := range h.members {
		all = all.Join(m.vector)
	}
	h.mu.Unlock()
	return h.e.Lacking(all)
}

// whom chooses a member who is there and has some of what is lacking: one who has most, and of these any.
func (r *round) whom(candidates bool) *member {
	h := r.h
	h.mu.Lock()
	defer h.mu.Unlock()
	var best []*member
	most := uint64(0)
	for _, m := range h.members {
		if m.state == link.Decohered || time.Since(m.tried) < again && m.failed.After(m.since) {
			continue
		}
		n, err := h.e.Lacking(m.vector)
		if err != nil || candidates && n == 0 {
			continue
		}
		switch {
		case n > most:
			most, best = n, []*member{m}
		case n == most:
			best = append(best, m)
		}
	}
	if len(best) == 0 {
		return nil
	}
	if !candidates { // whoever was asked longest ago
		slices.SortFunc(best, func(a, b *member) int { return a.tried.Compare(b.tried) })
		return best[0]
	}
	return best[rand.N(len(best))]
}

// ask talks to a member until this node has what that one has.
func (r *round) ask(m *member) error {
	h := r.h
	quiet := 0
	h.mu.Lock()
	run := m.origin
	h.mu.Unlock()
	err := r.talk(r.ctx, m, func(s *link.Session) (bool, error) {
		h.mu.Lock()
		theirs, gone := m.vector, m.origin != run || m.state == link.Decohered
		h.mu.Unlock()
		switch {
		case gone: // the session would find out by its patience
			return false, errGone
		case !s.Level() || s.Waiting() > 0:
			quiet = 0
			return false, nil
		}
		lacking, err := h.e.Lacking(theirs)
		if err != nil || lacking > 0 {
			return false, err
		}
		missing, err := h.e.Incoming(r.ctx, 1, func(lattice.Hash) bool { return false })
		if err != nil {
			return false, err
		}
		quiet++
		return len(missing) == 0 || quiet > 2, nil // what it has not got, another may
	})
	if errors.Is(err, engine.ErrClosed) {
		return err
	}
	return nil // it is kept with the member
}
