package gateway

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// writeBack carries changes into the real server of one wrapper.
//
// It is level-triggered. A delta only marks the spots it concerns as due; what is written is
// decided when the spot's turn comes, from the register's newest state and from what the server
// last showed. So a burst becomes one write, our own captures become none, and doing it twice
// does no harm. The stored cursor never passes a commit with an unsettled spot; after a restart
// everything behind it is looked at again.
type writeBack struct {
	l *link

	mu       sync.Mutex
	due      map[spot]*due
	ready    []*due // in the order in which they became due
	flying   map[uint64]*due
	reads    map[place]int // read-backs that are out
	tickets  uint64
	observed uint64 // ordinal up to which deltas have been marked
	logID    atomic.Uint64
	stored   uint64
	saved    time.Time
	wake     chan struct{}
	written  map[spot]time.Time   // binds with every: when their server was written to
	room     chan struct{}        // closed when due has shrunk below mostDue; nil if nobody waits
	renames  map[string]*renaming // of the batch that is observed, by the register that was renamed
	contacts
}

// mostDue bounds the spots held in memory; beyond it the log is read no further until some settle.
const mostDue = 10_000

// due is one spot that may differ from its server.
type due struct {
	spot
	since   uint64    // the first commit not settled
	tries   int       // in a row that failed
	after   time.Time // not before
	stuck   time.Time // since when it waits for the feed to show earlier writes
	queued  bool      // stands in ready
	again   bool      // became due again while it was out
	force   bool      // write even if the server is believed to have it: an earlier try may have failed
	read    bool      // ask the server first
	locked  bool      // the address is ours already (an intent whose outcome is unknown)
	ask     bool      // ask the server when it becomes due again
	intents []string  // resolved once the server has been asked
	from    *spot     // its register was renamed: what was there, which waits for this one
	behind  *spot     // the other way round
	kept    error     // what was renamed was refused: so what was there stays
	moves   bool      // while it is out: the address of from is ours, too
	looks   []string  // as intents, of what the server showed too early
	contact *contact
	all     bool                // of a document: all of its registers are to be looked at
	rows    map[string]struct{} // else these

	// While it is out:
	sent    engine.Sent
	echoes  bool // the feed will show it
	version engine.StateBlock
	bind    *mapping.Bind
	told    uint64 // events: the ordinal told
	more    bool   // events: there are more behind it
	// sentRows, of a document: by register
	sentRows map[string]engine.Sent
}

func newWriteBack(l *link) *writeBack {
	b := &writeBack{l: l, due: map[spot]*due{}, flying: map[uint64]*due{}, reads: map[place]int{}, written: map[spot]time.Time{}, wake: make(chan struct{}, 1)}
	b.contacts.init()
	return b
}

func (b *writeBack) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// mark makes a spot due for a commit.
func (b *writeBack) mark(s spot, ordinal uint64) {
	b.mu.Lock()
	b.markLocked(s, ordinal)
	b.mu.Unlock()
	b.nudge()
}

func (b *writeBack) markLocked(s spot, ordinal uint64) *due {
	d := b.touchLocked(s, ordinal)
	if s.register == "" {
		d.all, d.rows = true, nil
	}
	return d
}

func (b *writeBack) touchLocked(s spot, ordinal uint64) *due {
	d := b.due[s]
	if d == nil {
		d = &due{spot: s, since: ordinal}
		b.due[s] = d
	} else if d.outLocked() || d.locked {
		// Locked, its turn has come: it may have been read already, and stands in ready no more.
		d.again = true
		return d
	}
	b.queueLocked(d)
	return d
}

func (d *due) outLocked() bool { return d.bind != nil }

func (b *writeBack) queueLocked(d *due) {
	if !d.queued {
		d.queued = true
		b.ready = append(b.ready, d)
	}
}

// follow is Follow with WriteBack.
func (b *writeBack) follow(ctx context.Context) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		from, err := b.cursor()
		if err != nil {
			yield(wrappers.Change{}, err)
			return
		}
		failed := make(chan error, 1)
		go func() { failed <- b.observe(ctx, from) }()
		go b.scan(ctx)
		tick := time.NewTimer(time.Hour)
		defer tick.Stop()
		for {
			c, ok, wait, err := b.next(ctx)
			if err != nil {
				yield(wrappers.Change{}, err)
				return
			}
			if ok {
				if !yield(c, nil) {
					return
				}
				continue
			}
			tick.Reset(min(wait, b.save()))
			select {
			case <-b.wake:
			case <-tick.C:
			case err := <-failed:
				if err != nil && ctx.Err() == nil {
					yield(wrappers.Change{}, kind(err))
					return
				}
			case <-ctx.Done():
				yield(wrappers.Change{}, ctx.Err())
				return
			}
		}
	}
}

// cursor reads where the last run stood, and forgets what was out under an earlier call.
func (b *writeBack) cursor() (engine.Cursor, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t, d := range b.flying {
		delete(b.flying, t)
		b.landLocked(d)
		d.all = d.register == ""
		b.queueLocked(d)
	}
	raw, err := b.l.store.Kept(tableCursor, b.l.name)
	if err != nil || raw == nil {
		return engine.Cursor{}, kind(err)
	}
	from, err := engine.ParseCursor(string(raw))
	if err != nil {
		return from, err
	}
	newest, err := b.l.store.Cursor(context.Background())
	if err == nil && from.Log == newest.Log && from.Ordinal <= newest.Ordinal {
		// What is settled was looked at: a quiet gateway that was restarted is not behind.
		b.observed = max(b.observed, from.Ordinal)
		b.logID.Store(from.Log)
	}
	return from, kind(err)
}

// begin notes where a wrapper that was never here before begins: what is committed already is the
// business of its first contact, everything later is news.
func (b *writeBack) begin(ctx context.Context) error {
	raw, err := b.l.store.Kept(tableCursor, b.l.name)
	if err != nil || raw != nil {
		return kind(err)
	}
	at, err := b.l.store.Cursor(ctx)
	if err != nil {
		return kind(err)
	}
	return kind(b.l.store.KeepRecords(ctx, true, engine.Record{Table: tableCursor, Key: b.l.name, Value: []byte(at.String())}))
}

// observe marks what each delta concerns.
func (b *writeBack) observe(ctx context.Context, from engine.Cursor) error {
	b.mu.Lock()
	b.renames = nil // a batch that was left midway comes again
	b.mu.Unlock()
	for d, err := range b.l.store.Observe(ctx, engine.Filter{}, from) {
		if err != nil {
			return err
		}
		if err := b.delta(ctx, &d); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (b *writeBack) delta(ctx context.Context, d *engine.QDelta) error {
	var spots []spot
	row := map[place]bool{}
	for _, p := range b.l.set().Places(b.l.name, d.After.Register) {
		// Where writes wait, one may have reached the server that came to nothing when it was collapsed.
		// What the server showed may have come to nothing, too, where the rule of a field has kept another value.
		heard := d.Cause.Wrapper == b.l.name && b.hears(p.Bind)
		if (concerns(p.Bind, d) || behind(p.Bind, d) || (p.Bind.Waits() || heard) && p.Bind.Outward() && !d.Pending) && !(d.Snapshot && p.Bind.Events()) {
			s := spot{place{p.Server, p.Address}, d.After.Register}
			if b.told(s, p.Bind, d) {
				continue
			}
			spots, row[s.place] = append(spots, s), row[s.place] || p.Bind.Rows()
		}
	}
	if err := b.makeRoom(ctx); err != nil {
		return err
	}
	b.mu.Lock()
	if b.renamesLocked(d, spots) {
		spots = nil
	}
	since := d.Cursor.Ordinal
	if d.Snapshot {
		since = max(d.After.Ordinal, 1)
	}
	for _, s := range spots {
		if row[s.place] {
			b.markRowLocked(s.place, s.register, since)
		} else {
			b.markLocked(s, since)
		}
	}
	// Of a snapshot only the last delta has a cursor: whoever stops midway begins anew.
	if d.Cursor.Log != 0 && d.Part == d.Of-1 {
		b.observed = max(b.observed, d.Cursor.Ordinal)
		b.logID.Store(d.Cursor.Log)
	}
	b.mu.Unlock()
	if len(spots) > 0 {
		b.nudge()
	}
	return nil
}

// hears tells whether a bind's spots are compared when the write is committed that came of what the server showed there, and
// not before: then nothing is to be done, most often.
func (b *writeBack) hears(bind *mapping.Bind) bool {
	return b.l.info.Protocol.Feed && !bind.Rows() && !bind.Events()
}

// unchanged has spots be compared with registers that a write of what the server showed has not changed.
func (b *writeBack) unchanged(ctx context.Context, spots []spot) error {
	for _, s := range spots {
		st, err := b.l.store.ReadState(ctx, s.register)
		if err != nil {
			return err
		}
		if bind := b.l.bindAt(b.l.set(), s); bind != nil && b.hears(bind) {
			b.mark(s, st.Ordinal)
		}
	}
	return nil
}

// told tells whether a delta is no news for a spot, which is so of every one that came of what its server showed: then what
// was heard lately is all that has to be looked at. Anything else that is to be done there stands among the spots that are
// due already.
func (b *writeBack) told(s spot, bind *mapping.Bind, d *engine.QDelta) bool {
	if !b.hears(bind) || d.Snapshot || d.After.Waiting > 0 || bind.Waits() {
		return false
	}
	base, ok := b.l.base.heard(s)
	if !ok || base.Bind != bind.Hash() || len(base.Sent) > 0 {
		return false
	}
	fields, gone, owed := owes(bind, &base, d.After)
	if owed || !gone && learns(bind, &base, fields, d.After) {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.due[s] == nil
}

// makeRoom waits until another spot may become due.
func (b *writeBack) makeRoom(ctx context.Context) error {
	for {
		b.mu.Lock()
		if len(b.due) < mostDue {
			b.mu.Unlock()
			return nil
		}
		if b.room == nil {
			b.room = make(chan struct{})
		}
		room := b.room
		b.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// concerns tells whether a delta is about anything that a bind carries outward.
func concerns(bind *mapping.Bind, d *engine.QDelta) bool {
	if !bind.Outward() || d.Pending {
		return false
	}
	if d.Snapshot || d.Created || d.Deleted {
		return true
	}
	return slices.ContainsFunc(d.Changed, func(c engine.FieldChange) bool { return bind.Carries(c.Field) })
}

// behind tells whether a delta, of which an address shows nothing, is still something that its server's peers know of when
// they write there next.
func behind(bind *mapping.Bind, d *engine.QDelta) bool {
	return bind.Outward() && bind.Inward() && !bind.Once() && !d.Pending && len(d.Changed) == 0
}

// learns moves a baseline whose server shows what the register has. Its peers see that, so what they write next knows of all
// that is in the register: also of a write elsewhere that lost against what they see. Else they could never delete it.
func learns(bind *mapping.Bind, base *engine.Baseline, fields []engine.ShownField, st engine.StateBlock) bool {
	return bind.Inward() && !bind.Once() && base.Knows(fields, st)
}

// errWaits: it is too early to compare a register with its server.
var errWaits = errors.New("not yet")

// next gives the next change to write, or how long to wait for one.
func (b *writeBack) next(ctx context.Context) (c wrappers.Change, ok bool, wait time.Duration, err error) {
	wait = time.Hour
	b.mu.Lock()
	queue := b.ready
	b.ready = nil
	b.mu.Unlock()
	var later []*due
	defer func() {
		b.mu.Lock()
		b.ready = append(append(later, queue...), b.ready...)
		b.mu.Unlock()
	}()
	for len(queue) > 0 {
		d := queue[0]
		queue = queue[1:]
		b.mu.Lock()
		left, mine, waits := time.Until(d.after), d.locked, b.waitsForNewName(d)
		b.mu.Unlock()
		if waits {
			later = append(later, d) // the other's end wakes us
			continue
		}
		if left > 0 {
			wait = min(wait, left)
			later = append(later, d)
			continue
		}
		if !mine && !b.l.owners.try(d.place) {
			later = append(later, d) // its release wakes us
			continue
		}
		b.hold(d, true)
		c, ok, err = b.prepare(ctx, d)
		if errors.Is(err, errWaits) {
			b.hold(d, false)
			b.l.owners.pass(d.place)
			later = append(later, d) // what it waits for wakes us, or its time comes
			b.mu.Lock()
			if left := time.Until(d.after); left > 0 {
				wait = min(wait, left)
			}
			b.mu.Unlock()
			continue
		}
		if err != nil {
			stopped := ctx.Err() != nil
			if !stopped {
				// Not the server's fault: the register can't be shown there.
				if perr := b.l.parkOut(ctx, d, err); perr != nil {
					err, stopped = perr, true
				}
			}
			if stopped {
				b.hold(d, false)
				b.l.owners.release(d.place)
				later = append(later, d)
				return c, false, 0, err
			}
			b.finish(d)
			continue
		}
		if ok {
			return c, true, 0, nil
		}
		b.l.parking.needless(b.l, d)
		b.finish(d)
	}
	return c, false, wait, nil
}

// hold notes whether a spot's address is ours.
func (b *writeBack) hold(d *due, ours bool) {
	b.mu.Lock()
	d.locked = ours
	b.mu.Unlock()
}

// finish ends a spot's turn, and frees its address: it is as it should be, or is due again. All of it is one step: a commit
// that came between would find the spot neither ours nor gone, take it for one that still stands in ready, and be forgotten.
func (b *writeBack) finish(d *due) {
	b.mu.Lock()
	d.locked = false
	b.l.owners.release(d.place)
	b.finishLocked(d)
	b.mu.Unlock()
}

func (b *writeBack) finishLocked(d *due) {
	d.queued = false
	if d.again {
		d.again = false
		d.read, d.ask = d.read || d.ask, false
		d.since = b.observed // whatever came while it was out stands at or below it
		b.queueLocked(d)
		b.nudge()
		return
	}
	delete(b.due, d.spot)
	if d.contact != nil {
		d.contact.left--
		b.settledLocked(d.contact)
		d.contact = nil
	}
	if b.room != nil && len(b.due) < mostDue/2 {
		close(b.room)
		b.room = nil
	}
}

func (b *writeBack) fly(d *due, bind *mapping.Bind, c wrappers.Change) wrappers.Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tickets++
	c.Ticket = b.tickets
	d.bind = bind
	d.queued = false
	b.flying[c.Ticket] = d
	if bind.Every() > 0 && !c.ReadBack {
		b.wroteLocked(d.spot, bind.Every())
	}
	if c.ReadBack {
		b.reads[d.place]++
	}
	return c
}

// tooSoon has a spot wait until its bind's `every` is over.
func (b *writeBack) tooSoon(d *due, every time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	last, ok := b.written[d.spot]
	if ok && time.Since(last) < every {
		d.after = last.Add(every)
		return true
	}
	return false
}

// wroteLocked notes when a spot was written.
func (b *writeBack) wroteLocked(s spot, every time.Duration) {
	now := time.Now()
	if b.written[s] = now; len(b.written) >= mostDue {
		for other, at := range b.written { // who is early for another bind's time is written a little too soon once
			if now.Sub(at) > every {
				delete(b.written, other)
			}
		}
	}
}

// landLocked takes a spot out of the air and frees its address.
func (b *writeBack) landLocked(d *due) {
	if d.read {
		if b.reads[d.place]--; b.reads[d.place] <= 0 {
			delete(b.reads, d.place)
		}
	}
	d.bind, d.sentRows = nil, nil
	d.locked = false
	if d.moves {
		d.moves = false
		b.l.owners.release(d.from.place)
	}
	b.l.owners.release(d.place)
}

// asked tells whether a spot is read back because a peer's write may or may not have arrived.
func (b *writeBack) asked(s spot) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	d := b.due[s]
	return d != nil && len(d.intents) > 0
}

// reading tells whether a read-back of the address is out.
func (b *writeBack) reading(p place) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.reads[p] > 0
}

// settle is Settle.
func (b *writeBack) settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) error {
	b.mu.Lock()
	d := b.flying[c.Ticket]
	delete(b.flying, c.Ticket)
	b.mu.Unlock()
	if d == nil {
		return fmt.Errorf("%w: change %d is not out", wrappers.ErrInvalid, c.Ticket)
	}
	l := b.l
	var err error
	switch e.Outcome {
	case wrappers.Done:
		err = b.done(ctx, d, c, e)
	case wrappers.Retry:
		l.parking.trying(l, d, e.Err)
	case wrappers.Parked:
		if e.Err == nil {
			e.Err = errors.New("refused")
		}
		err = b.refused(ctx, d, e.Err)
	default:
		err = fmt.Errorf("%w: outcome %d", wrappers.ErrInvalid, e.Outcome)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	wasRead, bind := d.read, d.bind
	b.landLocked(d)
	switch {
	case e.Outcome == wrappers.Done:
		d.tries, d.force = 0, false
		if !wasRead {
			d.from = nil
		}
		if wasRead {
			d.read, d.intents, d.looks, d.again, d.all = false, nil, nil, true, d.register == "" // now compare
		}
		d.again = d.again || d.more
		b.finishLocked(d)
	case e.Outcome == wrappers.Retry:
		d.all = d.register == ""
		d.tries++
		d.after = time.Now().Add(backoff(d.tries))
		d.force = !wasRead
		if errors.Is(e.Err, wrappers.ErrConflict) && bind.Inward() {
			// It met a change: that is heard before anything is written over it.
			d.read, d.force, d.after = true, false, time.Time{}
		}
		b.queueLocked(d)
	default:
		b.staysLocked(d, e.Err)
		d.tries, d.force, d.read, d.intents = 0, false, false, nil
		b.finishLocked(d)
	}
	b.nudge()
	return err
}

// saveEvery bounds how often the cursor is stored: all it saves is a second look.
const saveEvery = 100 * time.Millisecond

// save stores how far everything is settled, and tells when to do so again. It is not synced:
// what is lost is looked at again.
func (b *writeBack) save() time.Duration {
	b.mu.Lock()
	low := b.observed
	for _, d := range b.due {
		if d.since > 0 && d.since <= low {
			low = d.since - 1
		}
	}
	if low == b.stored || b.logID.Load() == 0 {
		b.mu.Unlock()
		return time.Hour
	}
	if left := saveEvery - time.Since(b.saved); left > 0 {
		b.mu.Unlock()
		return left
	}
	b.stored, b.saved = low, time.Now()
	at := engine.Cursor{Log: b.logID.Load(), Ordinal: low}
	b.mu.Unlock()
	b.l.keepQuietly(engine.Record{Table: tableCursor, Key: b.l.name, Value: []byte(at.String())})
	return time.Hour
}

// lag tells how far the server is behind.
func (b *writeBack) lag() (behind uint64, waiting int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observed, len(b.due)
}

func (b *writeBack) resting(newest uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.observed >= newest && len(b.due) == 0 && len(b.binds) == 0
}
