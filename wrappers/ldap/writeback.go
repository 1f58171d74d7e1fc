package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// mostOut is how many writes are on their way at once. OpenLDAP holds back a session with more than a thousand.
const mostOut = 32

// A writer writes what changed elsewhere. Its writes share one session, on which they overtake each other: the link gives
// no address twice before it is settled.
type writer struct {
	a *attached

	mu       sync.Mutex
	s        *session
	binds    *binds
	accepted map[string]string    // by path: versions that we left there, newer than what the feed has shown
	out      map[string]*flight   // by path
	leaves   map[string]time.Time // by path: since when a delete waits for what is below it
	whole    map[string]bool      // attributes whose values can't be compared, by name in small letters
}

// A flight is a write that is out.
type flight struct {
	gone bool
	over chan struct{}
}

const mostAccepted = 100_000

// writeBack writes until ctx ends.
func (a *attached) writeBack(ctx context.Context) error {
	w := &writer{a: a, accepted: map[string]string{}, out: map[string]*flight{}, leaves: map[string]time.Time{}, whole: map[string]bool{}}
	a.mu.Lock()
	a.writer = w
	a.mu.Unlock()
	var out sync.WaitGroup
	defer func() {
		out.Wait()
		if w.s != nil {
			w.s.close()
		}
	}()
	most := make(chan struct{}, mostOut)
	for c, err := range a.link.Follow(ctx, wrappers.WriteBack, "") {
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("following the log: %w", err)
		}
		select {
		case most <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		p := path(c.Address)
		mine, before := w.begin(p, c)
		out.Go(func() {
			defer func() { <-most }()
			defer w.end(p, mine)
			var e wrappers.Effect
			var read *ldapwire.SearchResultEntry
			for _, f := range before { // parents come before children, children go before parents
				select {
				case <-f.over:
				case <-ctx.Done():
				}
			}
			if c.ReadBack {
				e = w.readBack(ctx, c)
			} else {
				e = w.bring(ctx, p, c)
			}
			looks := w.polled() && e.Outcome == wrappers.Done && !c.Gone && !c.ReadBack
			if looks {
				var err error
				if read, err = w.look(ctx, c.Address); err != nil {
					e = w.judge(c, err)
					looks = false
				}
			}
			if ctx.Err() != nil && e.Outcome != wrappers.Done {
				return // unsettled changes come again
			}
			// What was done is settled even if we are being stopped.
			if err := a.link.Settle(context.WithoutCancel(ctx), c, e); err != nil {
				a.log().Warn("settle", "address", c.Address, "err", err)
			}
			if f := a.current(); looks && f != nil {
				if err := f.show(ctx, c.Address, read); err != nil && ctx.Err() == nil {
					a.log().Warn("what was written", "address", c.Address, "err", err)
				}
			}
		})
	}
	return nil
}

// begin enters a write, and gives those on their way that have to be over first.
func (w *writer) begin(p string, c wrappers.Change) (mine *flight, before []*flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for other, f := range w.out {
		above, below := strings.HasPrefix(p, other+","), strings.HasPrefix(other, p+",")
		if other == p || above && !f.gone && !c.Gone || below && f.gone && c.Gone {
			before = append(before, f)
		}
	}
	mine = &flight{gone: c.Gone, over: make(chan struct{})}
	w.out[p] = mine
	return mine, before
}

func (w *writer) end(p string, mine *flight) {
	w.mu.Lock()
	defer w.mu.Unlock()
	close(mine.over)
	if w.out[p] == mine {
		delete(w.out, p)
	}
}

// session gives the session that writes, opened anew when it has ended, and the binds as they are.
func (w *writer) session(ctx context.Context) (*session, *binds, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.binds != nil {
		select {
		case <-w.binds.changed:
			w.binds = nil
		default:
		}
	}
	if w.s != nil && w.s.ended() != nil {
		w.s = nil
	}
	if w.s == nil {
		s, err := w.a.connect(ctx)
		if err != nil {
			return nil, nil, err
		}
		if _, err := w.a.look(ctx, s); err != nil {
			s.close()
			return nil, nil, err
		}
		w.s, w.binds = s, nil
		clear(w.whole)
	}
	if w.binds == nil {
		w.binds = readBinds(w.a.link, w.a.types.Load())
	}
	return w.s, w.binds, nil
}

// expected is the version that the entry should have now.
func (w *writer) expected(p string, c wrappers.Change) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if v := w.accepted[p]; v > string(c.Previous) {
		return v
	}
	return string(c.Previous)
}

func (w *writer) accept(p, csn string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if csn == "" {
		delete(w.accepted, p)
		return
	}
	if len(w.accepted) >= mostAccepted {
		clear(w.accepted) // it costs a second look
	}
	w.accepted[p] = csn
}

// readBack reports what the server has at an address.
func (w *writer) readBack(ctx context.Context, c wrappers.Change) wrappers.Effect {
	if err := w.hear(ctx, c.Address); err != nil {
		return w.judge(c, err)
	}
	return wrappers.Effect{Outcome: wrappers.Done, Version: c.Previous}
}

// hear has the feed report what the server has at an address now.
func (w *writer) hear(ctx context.Context, address string) error {
	e, f, err := w.readFor(ctx, address)
	if err != nil {
		return err
	}
	return f.show(ctx, address, e)
}

// look reads what was written to a server that is polled, and has it known who is there: what is deleted before the next round
// would never have been seen, and not be missed. It is shown when the write is settled.
func (w *writer) look(ctx context.Context, address string) (*ldapwire.SearchResultEntry, error) {
	e, f, err := w.readFor(ctx, address)
	if err != nil || e == nil {
		return nil, err
	}
	f.turn.Lock()
	defer f.turn.Unlock()
	defer clear(f.noted)
	defer clear(f.holder)
	return e, w.a.link.Keep(ctx, f.note(f.identity(e), known{address: address})...) // without its version: it is still to be shown
}

func (w *writer) readFor(ctx context.Context, address string) (*ldapwire.SearchResultEntry, *feed, error) {
	f := w.a.current()
	if f == nil {
		return nil, nil, errNoFeed
	}
	name, err := w.a.nameOf(address)
	if err != nil {
		return nil, nil, parked{err}
	}
	s, _, err := w.session(ctx)
	if err != nil {
		return nil, nil, err
	}
	e, err := s.one(ctx, name.String(), f.attributes()...)
	return e, f, err
}

// nameOf is the whole name of the entry at an address.
func (a *attached) nameOf(address string) (dn.DN, error) {
	d, err := dn.ParseAddress(address)
	if err != nil {
		return nil, err
	}
	return d.Join(a.opts.base), nil
}

// parked is an error that trying again does not mend.
type parked struct{ error }

func (p parked) Unwrap() error { return p.error }

// errMet: somebody has changed the entry, and that is heard before anything is written over it.
var errMet = wrappers.Refuse(wrappers.ErrConflict, "the entry has been changed meanwhile")

// bring makes the server show the newest state of an address.
func (w *writer) bring(ctx context.Context, p string, c wrappers.Change) wrappers.Effect {
	csn, err := w.write(ctx, p, c)
	if errors.Is(err, wrappers.ErrConflict) {
		w.accept(p, "") // what it has now is heard first
	}
	if err != nil {
		return w.judge(c, err)
	}
	return wrappers.Effect{Outcome: wrappers.Done, Version: wrappers.Version(csn)}
}

// judge says what is to become of a change that could not be written.
func (w *writer) judge(c wrappers.Change, err error) wrappers.Effect {
	retry, park := wrappers.Effect{Outcome: wrappers.Retry, Err: err}, wrappers.Effect{Outcome: wrappers.Parked, Err: err}
	var never parked
	if errors.As(err, &never) {
		return park
	}
	var r *refusal
	if !errors.As(err, &r) {
		if errors.Is(err, wrappers.ErrConflict) {
			w.a.link.Count("conflicts", 1)
		}
		return retry // nothing was heard of what became of it
	}
	switch r.code {
	case ldapwire.Busy, ldapwire.Unavailable, ldapwire.TimeLimitExceeded, ldapwire.AdminLimitExceeded, ldapwire.Canceled, ldapwire.Other:
		return retry
	case ldapwire.NoSuchObject: // the entry above has not come yet
		w.a.link.Count("references_awaited", 1)
		return retry
	case ldapwire.NotAllowedOnNonLeaf:
		if w.awaitsLeaves(path(c.Address)) {
			w.a.link.Count("references_awaited", 1)
			return retry
		}
	}
	return park
}

// leavesWithin is how long a delete waits for what stands below the entry to go as well.
const leavesWithin = time.Minute

func (w *writer) awaitsLeaves(p string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	since, ok := w.leaves[p]
	if !ok || time.Since(since) > 2*leavesWithin { // a new one
		w.leaves[p] = time.Now()
		return true
	}
	if time.Since(since) > leavesWithin {
		delete(w.leaves, p)
		return false
	}
	return true
}

// write does what a change asks for, and gives the version that the entry then has, "" where it is not known.
func (w *writer) write(ctx context.Context, p string, c wrappers.Change) (string, error) {
	name, err := w.a.nameOf(c.Address)
	if err != nil {
		return "", parked{err}
	}
	s, b, err := w.session(ctx)
	if err != nil {
		return "", err
	}
	if w.a.current() == nil {
		return "", errNoFeed // it tells what is to be compared, and hears of what is met
	}
	job := &job{w: w, s: s, binds: b, path: p, change: c, name: name, expected: w.expected(p, c)}
	switch {
	case c.Gone:
		return "", job.remove(ctx)
	case c.Create && c.From != "":
		return job.move(ctx)
	case c.Create:
		return job.create(ctx)
	}
	return job.modify(ctx)
}

func (w *writer) polled() bool {
	f := w.a.current()
	return f != nil && f.polls
}

// flight gives what is closed when the write to an entry that is on its way is settled; nil: there is none.
func (a *attached) flight(p string) chan struct{} {
	a.mu.Lock()
	w := a.writer
	a.mu.Unlock()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if f := w.out[p]; f != nil {
		return f.over
	}
	return nil
}

// assertsVersions tells whether each write is conditional on the version that the entry has.
func (a *attached) assertsVersions(f *feed) bool {
	return f.csn != "" && f.csn != usnChanged && a.dse().offers(ldapwire.OIDAssertion)
}
