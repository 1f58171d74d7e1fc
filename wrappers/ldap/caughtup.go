package ldap

import (
	"context"
	"errors"
	"time"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

var (
	errNoFeed    = errors.New("no feed stands")
	errNoContext = errors.New("the server doesn't tell how far it has come (contextCSN)")
)

// pass tells that all up to these versions is durable.
func (a *attached) pass(reached map[string]string) {
	grown := false
	a.mu.Lock()
	for id, csn := range reached {
		if a.passed[id] < csn {
			a.passed[id], grown = csn, true
		}
	}
	a.mu.Unlock()
	if grown {
		a.wake()
	}
}

// CaughtUp implements source. With content synchronization the server tells the newest version that it has (contextCSN), and
// its cookies tell how far the feed is; otherwise it is asked for what has changed.
func (a *attached) CaughtUp(ctx context.Context) error {
	a.mu.Lock()
	f, up := a.feed, a.standing
	a.mu.Unlock()
	switch {
	case !up || f == nil:
		return errNoFeed
	case f.polls:
		return a.polledSince(ctx)
	}
	goal, err := a.newest(ctx)
	if err != nil {
		return err
	}
	for asked := false; ; {
		a.mu.Lock()
		caught, there := a.caught, a.standing && a.feed == f
		left := 0
		for id, csn := range goal {
			if a.passed[id] < csn {
				left++
			}
		}
		a.mu.Unlock()
		switch {
		case !there:
			return errNoFeed
		case left == 0:
			return nil
		}
		var late <-chan time.Time
		if !asked {
			late = time.After(lateAfter)
		}
		select {
		case <-caught:
		case <-late:
			// It may be that nothing of it is below base.
			asked = true
			if outside, err := a.outside(ctx, f, goal); err == nil && outside {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const lateAfter = 200 * time.Millisecond

// newest asks for the newest versions that the server has, by the server that made them.
func (a *attached) newest(ctx context.Context) (map[string]string, error) {
	at := a.dse().suffix(a.opts.base)
	if at == nil {
		return nil, errNoContext
	}
	s, err := a.reader(ctx)
	if err != nil {
		return nil, err
	}
	e, err := s.one(ctx, at.String(), "contextCSN")
	if err != nil {
		return nil, err
	}
	goal := map[string]string{}
	if e != nil {
		for _, v := range values(e, "contextCSN") {
			if id, ok := serverOf(string(v)); ok {
				goal[id] = string(v)
			}
		}
	}
	if len(goal) == 0 {
		return nil, errNoContext
	}
	return goal, nil
}

// outside tells whether what is newer than the feed stands outside of base, so that the feed never says so.
func (a *attached) outside(ctx context.Context, f *feed, goal map[string]string) (bool, error) {
	if at := a.dse().suffix(a.opts.base); at.Equal(a.opts.base) {
		return false, nil
	}
	s, err := a.reader(ctx)
	if err != nil {
		return false, err
	}
	a.mu.Lock()
	passed := map[string]string{}
	for id := range goal {
		passed[id] = a.passed[id]
	}
	a.mu.Unlock()
	outside := true
	for id, csn := range goal {
		if passed[id] >= csn {
			continue
		}
		q := &ldapwire.SearchRequest{BaseObject: a.opts.base.String(), Scope: ldapwire.ScopeWholeSubtree, Filter: atLeast("entryCSN", passed[id]), Attributes: []string{"entryCSN"}, SizeLimit: 100}
		last, err := s.each(ctx, func(m *ldapwire.Message) error {
			if e, ok := m.Body.(*ldapwire.SearchResultEntry); ok {
				v := value(e, "entryCSN")
				from, _ := serverOf(v)
				outside = outside && (from != id || v <= passed[id])
			}
			return nil
		}, q)
		if err != nil {
			return false, err
		}
		if err := resultError(last); err != nil {
			return false, err
		}
	}
	return outside, nil
}

// polledSince has the server asked now, and waits until what it says is durable.
func (a *attached) polledSince(ctx context.Context) error {
	a.mu.Lock()
	f, goal := a.feed, a.rounds+1
	if a.asking { // the one that is on its way may have begun too early
		goal++
	}
	a.mu.Unlock()
	select {
	case a.hurry <- struct{}{}:
	default:
	}
	for {
		a.mu.Lock()
		caught, there, done := a.caught, a.standing && a.feed == f, a.rounds >= goal
		a.mu.Unlock()
		switch {
		case !there:
			return errNoFeed
		case done:
			return nil
		}
		select {
		case <-caught:
			if goal > 0 { // another may have to be asked for
				select {
				case a.hurry <- struct{}{}:
				default:
				}
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
