package gateway

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// Commits of two domains have no order by themselves, and wrappers hold two streams against each other by their cursors:
// one that follows live, and one that catches up. So one order is noted as commits come, and everybody who follows keeps
// to it. It reaches back as far as fits; what is older is told domain by domain.

// mostOrdered is how many commits the order reaches back.
const mostOrdered = 1 << 16

// order is the order in which the commits of several domains are told.
type order struct {
	mu    sync.Mutex
	base  cursors   // before the first of commits
	first uint64    // number of the first
	list  []ordered // a ring is not worth it: it is cut in half when it is full
	head  cursors   // after the last
	wake  chan struct{}
	err   error
	end   context.CancelFunc
	done  sync.WaitGroup
}

// ordered is one commit.
type ordered struct {
	domain int
	at     engine.Cursor
}

// watchOrder notes commits from now on.
func watchOrder(links []*link) (*order, error) {
	ctx, end := context.WithCancel(context.Background())
	o := &order{wake: make(chan struct{}), end: end}
	for _, l := range links {
		at, err := l.store.Cursor(ctx)
		if err != nil {
			end()
			return nil, kind(err)
		}
		o.base = append(o.base, at)
	}
	o.head = append(cursors(nil), o.base...)
	for i, l := range links {
		o.done.Go(func() {
			for d, err := range l.store.Observe(ctx, engine.Filter{}, o.base[i]) {
				if err != nil {
					o.fail(ctx, err)
					return
				}
				if d.Part == d.Of-1 && d.Cursor.Log != 0 {
					o.note(ordered{i, d.Cursor})
				}
			}
		})
	}
	return o, nil
}

func (o *order) stop() {
	o.end()
	o.done.Wait()
}

func (o *order) note(c ordered) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) >= mostOrdered {
		half := len(o.list) / 2
		base := append(cursors(nil), o.base...)
		for _, old := range o.list[:half] {
			base[old.domain] = old.at
		}
		o.base, o.first, o.list = base, o.first+uint64(half), append([]ordered(nil), o.list[half:]...)
	}
	o.list = append(o.list, c)
	o.head[c.domain] = c.at
	close(o.wake)
	o.wake = make(chan struct{})
}

func (o *order) fail(ctx context.Context, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err = err; ctx.Err() != nil {
		o.err = ctx.Err()
	}
	close(o.wake)
	o.wake = make(chan struct{})
}

// now is the place behind all that was noted.
func (o *order) now() wrappers.Cursor {
	o.mu.Lock()
	defer o.mu.Unlock()
	return wrappers.Cursor(o.head.String())
}

// begin gives the place at which the order begins, and the number of the commit behind it.
func (o *order) begin() (cursors, uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return append(cursors(nil), o.base...), o.first
}

// next waits for the commit of a number. lost: the order no longer reaches back to it.
func (o *order) next(ctx context.Context, n uint64) (c ordered, lost bool, err error) {
	for {
		o.mu.Lock()
		wake, err := o.wake, o.err
		if n < o.first {
			o.mu.Unlock()
			return c, true, nil
		}
		if i := n - o.first; i < uint64(len(o.list)) {
			c = o.list[i]
			o.mu.Unlock()
			return c, false, nil
		}
		o.mu.Unlock()
		if err != nil {
			return c, false, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return c, false, ctx.Err()
		}
	}
}

// A commitTold is what one commit means for a wrapper's addresses, or a part of a snapshot, which has no cursor.
type commitTold struct {
	at      engine.Cursor
	changes []wrappers.Change
}

// commits yields what each commit behind from means, whole commits at a time.
func (l *link) commits(ctx context.Context, from engine.Cursor) iter.Seq2[commitTold, error] {
	return func(yield func(commitTold, error) bool) {
		var t commitTold
		var shared touched
		add := func(c wrappers.Change, _ error) bool {
			t.changes = append(t.changes, c)
			return true
		}
		for d, err := range l.store.Observe(ctx, engine.Filter{}, from) {
			if err != nil {
				yield(t, kind(err))
				return
			}
			l.tell(ctx, &d, &shared, add)
			if !d.Snapshot && d.Part != d.Of-1 {
				continue
			}
			if d.Part == d.Of-1 && d.Cursor != (engine.Cursor{}) {
				l.tellDocuments(ctx, &d, &shared, add)
			}
			t.at = d.Cursor
			if !yield(t, nil) {
				return
			}
			t = commitTold{}
		}
	}
}

// resumable gives a place from which the log or a snapshot leads on. A snapshot of nothing would show nothing, not even
// where it ends.
func (l *link) resumable(ctx context.Context, at engine.Cursor) (engine.Cursor, error) {
	here, err := l.store.Cursor(ctx)
	if err != nil {
		return at, kind(err)
	}
	s, err := l.store.Status(ctx)
	if err != nil {
		return at, kind(err)
	}
	if at.Log == here.Log && at.Ordinal >= s.Floor {
		return at, nil
	}
	for _, err := range l.store.List(ctx, "", "", 1) {
		return at, kind(err)
	}
	return here, nil
}

// notify is Follow with Notify: the changes of all domains, in the one order.
func (j *joint) notify(ctx context.Context, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if from == "" {
		from = j.order.now() // now, not when the caller begins to range
	}
	from = resumeFrom(from)
	ctx, end := context.WithCancel(ctx)
	at, err := parseCursors(string(from), len(j.links))
	changes := func(yield func(wrappers.Change, error) bool) {
		if err != nil {
			yield(wrappers.Change{}, kind(err))
			return
		}
		f := &follower{joint: j, at: at, yield: yield}
		for i, l := range j.links {
			if at[i], err = l.resumable(ctx, at[i]); err != nil {
				yield(wrappers.Change{}, err)
				return
			}
			next, stop := iter.Pull2(l.commits(ctx, at[i]))
			defer stop()
			f.next = append(f.next, next)
		}
		if err := f.run(ctx); err != nil {
			yield(wrappers.Change{}, err)
		}
	}
	whole := func(address string) time.Duration {
		if b := j.set.Load().Bind(j.name, address); b != nil {
			return b.Every()
		}
		return 0
	}
	return pace(ctx, end, from, func() bool { return j.set.Load().Paced(j.name) }, whole, changes)
}

// A follower tells one wrapper the changes of all domains.
type follower struct {
	joint *joint
	at    cursors
	next  []func() (commitTold, error, bool)
	yield func(wrappers.Change, error) bool
	left  bool // who listens has gone
}

func (f *follower) run(ctx context.Context) error {
	for {
		base, n := f.joint.order.begin()
		// What is older than the order, or of an earlier run: one domain after the other.
		for i := range base {
			if err := f.upTo(ctx, i, base[i]); err != nil || f.left {
				return err
			}
		}
		for {
			c, lost, err := f.joint.order.next(ctx, n)
			if err != nil {
				return err
			}
			if lost {
				break // it fell behind further than the order reaches
			}
			n++
			if err := f.upTo(ctx, c.domain, c.at); err != nil || f.left {
				return err
			}
		}
	}
}

// upTo tells what a domain has up to a commit.
func (f *follower) upTo(ctx context.Context, domain int, to engine.Cursor) error {
	for f.at[domain].Log != to.Log || f.at[domain].Ordinal < to.Ordinal {
		t, err, ok := f.next[domain]()
		if err != nil {
			return err
		}
		if !ok {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return wrappers.ErrUnavailable
		}
		cursor := wrappers.Cursor("")
		if t.at.Log != 0 {
			f.at[domain] = t.at
			cursor = wrappers.Cursor(f.at.String())
		}
		for _, c := range t.changes {
			c.Cursor = cursor
			if !f.yield(c, nil) {
				f.left = true
				return nil
			}
		}
	}
	return nil
}
