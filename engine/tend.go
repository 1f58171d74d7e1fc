package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// tend does what is due, until the engine is closed: also while nobody writes.
func (e *Engine) tend() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-e.windows.soon():
		case <-e.closing:
			return
		}
		e.store.Full()
		next, err := e.closeWindows(ctx)
		if slow := e.tended(); err == nil && slow {
			err = e.Tend(ctx)
		}
		if errors.Is(err, ErrClosed) {
			return
		}
		if err != nil && !errors.Is(err, ErrFull) {
			e.options.Log.Warn("tending the registers", "error", err)
		}
		pause := time.Second
		if !next.IsZero() {
			pause = min(pause, max(next.Sub(e.options.Now()), time.Millisecond))
		}
		timer.Reset(pause)
	}
}

// tended says whether the last Tend was a while ago.
func (e *Engine) tended() bool {
	now := time.Now()
	if now.Sub(e.lastTend) < time.Second {
		return false
	}
	e.lastTend = now
	return true
}

// Tend does what is due now: it closes windows, purges what deletes have hidden, retires earlier incarnations, trims
// history and log, looks through registers whose rule has changed, and removes chunks that nothing refers to. It happens
// by itself, unless the engine is Passive.
func (e *Engine) Tend(ctx context.Context) error {
	e.tending.Lock()
	defer e.tending.Unlock()
	e.watchClock()
	_, err := e.closeWindows(ctx)
	for _, step := range []func(context.Context) error{e.retire, e.purge, e.reproject, e.comeIn, e.trimCounts, e.trimLog, e.trimTails, e.sweepChunks} {
		err = errors.Join(err, step(ctx))
	}
	return err
}

// watchClock notices that this node's own clock has gone back, or had been far ahead: its stamps never do.
func (e *Engine) watchClock() {
	e.mu.Lock()
	last := e.seqr.core.Clock()
	e.mu.Unlock()
	if now := e.options.Now(); last > lattice.StampOf(now.Add(lattice.MaxAhead)) {
		e.find(Finding{Code: "clock", Subject: e.origin.Endpoint.String(), Text: fmt.Sprintf("this node's clock says %s, and it has stamped as late as %s: it stands still until then, and loses nothing. Set the clock.", now.UTC().Format(time.RFC3339), last.Time().Format(time.RFC3339))})
	} else {
		e.unfind("clock", e.origin.Endpoint.String())
	}
}

// some is how much of one kind of work is done before others have a turn.
const some = 256

// purge removes for good what deletes have hidden, once every member has the delete and it is old enough: a writer
// who had not heard of it can be behind a server as well as on another node.
func (e *Engine) purge(ctx context.Context) error {
	keys, err := e.dueHidden()
	for _, k := range keys {
		if err == nil {
			err = e.purgeOne(ctx, k)
		}
	}
	return err
}

type hiddenKey struct {
	key  []byte
	name string
	dots QStateVector // that every member has to have; none: all that this node has
}

// dueHidden gives some of what may be due, each time those behind the last: what a member that is away holds up must not hold
// up the rest.
func (e *Engine) dueHidden() (due []hiddenKey, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	until := store.Hidden(lattice.StampOf(e.options.Now().Add(-e.options.PurgeAfter)), "")
	lower := store.Hidden(0, "")[:1]
	if e.purged != nil {
		lower, e.purged = append(e.purged, 0), nil
	}
	for row, err := range e.scan(lower, until, false) {
		if err != nil {
			return nil, err
		}
		r := lattice.NewReader(row.Value)
		k := hiddenKey{key: slices.Clone(row.Key), dots: readVector(r)}
		if err := r.End(); err != nil {
			return nil, damaged("what is hidden: %w", err)
		}
		_, k.name = store.HiddenOf(row.Key)
		if due = append(due, k); len(due) == some {
			e.purged = slices.Clone(k.key)
			break
		}
	}
	return due, nil
}

func (e *Engine) purgeOne(ctx context.Context, k hiddenKey) error {
	dots := k.dots
	if len(dots) == 0 {
		e.mu.Lock()
		dots = e.seqr.core.Vector()
		e.mu.Unlock()
	}
	if slices.ContainsFunc(dots, func(d Dot) bool { return !e.everybodyHas(d) }) || !e.hasAllConfirmed() {
		return nil
	}
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	c, behind, err := e.purgeHere(k)
	if err != nil || c == nil {
		return err
	}
	_, err = e.finish(c, behind)
	return err
}

func (e *Engine) purgeHere(k hiddenKey) (c *commit, behind uint64, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return nil, 0, e.failure()
	}
	s := &e.seqr
	v, err := e.newest(k.name)
	if err != nil {
		return nil, 0, err
	}
	var ops []lattice.Op
	if v.ordinal != 0 && !v.reg.Opaque() && !e.sight(v).block.Exists {
		for _, f := range v.reg.Fields {
			if f.Name == lattice.Existence && len(v.reg.Entries(lattice.Deletion)) == 0 {
				continue
			}
			op := lattice.Op{Register: k.name, Kind: lattice.Remove, Field: f.Name}
			for _, entry := range f.Entries {
				op.Seen = append(op.Seen, entry.Dot)
			}
			ops = append(ops, op)
		}
	}
	if len(ops) == 0 {
		return nil, 0, e.setAlone(k.key, nil)
	}
	c = new(commit)
	cause := Cause{Protocol: "engine", Verb: "purge"}
	if err := s.core.Write(e, ops, nil, cause, s.byOf(&cause), e.options.Now(), &s.eff); err != nil {
		return nil, 0, err
	}
	err = e.compose(c, &s.eff, composing{erase: [][]byte{k.key}})
	return c, c.ordinal, err
}

// reproject looks through the registers of a declaration that has changed: where what they show is another value now,
// observers and history are told, without a candidate.
func (e *Engine) reproject(ctx context.Context) error {
	tasks, err := e.reprojections()
	if err != nil {
		return err
	}
	for _, t := range tasks {
		if err := e.reprojectOne(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) reprojections() (tasks []Record, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	for r, err := range e.eachInternal(reprojectTable) {
		if err != nil {
			return nil, err
		}
		tasks = append(tasks, r)
	}
	return tasks, nil
}

func (e *Engine) reprojectOne(ctx context.Context, t Record) error {
	r := lattice.NewReader(t.Value)
	for range 2 { // what was declared before, and what is now
		prefix, pattern := r.Text(), r.Text()
		re, err := regexp.Compile("^(?:" + pattern + ")$")
		if err != nil || pattern == "" {
			continue
		}
		after := ""
		for done := false; !done; {
			behind, last, err := e.reprojectSome(ctx, prefix, after, re)
			if err == nil {
				err = e.settle(behind)
			}
			if err != nil {
				return err
			}
			after, done = last, last == ""
		}
	}
	if err := r.End(); err != nil {
		return damaged("a changed declaration: %w", err)
	}
	return e.reprojected(t)
}

// reprojected forgets a task, unless the declaration has changed again meanwhile: that is another one under its name.
func (e *Engine) reprojected(t Record) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	key := store.Internal(reprojectTable, t.Key)
	same := false
	if _, err := e.get(key, func(value []byte) error {
		same = bytes.Equal(value, t.Value)
		return nil
	}); err != nil || !same {
		return err
	}
	return e.setAlone(key, nil)
}

func (e *Engine) reprojectSome(ctx context.Context, prefix, after string, re *regexp.Regexp) (behind uint64, last string, err error) {
	if err := ctx.Err(); err != nil {
		return 0, "", err
	}
	if err := e.enter(); err != nil {
		return 0, "", err
	}
	defer e.leave()
	var names []string
	n := 0
	for row, err := range e.names(prefix, after) {
		if err != nil {
			return 0, "", err
		}
		name := store.RegisterName(row.Key)
		if re.MatchString(name) && !reservedName(name) {
			names = append(names, name)
		}
		if n++; n == some {
			last = name
			break
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return 0, "", e.failure()
	}
	d := e.begin(new(commit), Dot{}, e.seqr.core.Clock(), Cause{Protocol: "engine", Verb: "rule"}, 0)
	for _, name := range names {
		if err := d.reproject(name); err != nil {
			return 0, "", errors.Join(err, d.c.batch.Close())
		}
	}
	if len(d.c.deltas) == 0 {
		return e.seqr.ordinal, last, d.c.batch.Close()
	}
	return d.c.ordinal, last, d.submit(nil, nil)
}

// reproject tells of a register whose value is not what was last told.
func (d *delivery) reproject(name string) error {
	e := d.e
	v, err := e.newest(name)
	if err != nil || v.ordinal == 0 || v.unit != "" {
		return err
	}
	was, err := e.newestTold(name)
	if err != nil {
		return err
	}
	now, err := e.state(name)
	if err != nil || was.Exists == now.Exists && was.Value.Equal(now.Value) {
		return err
	}
	if e.unitOf(v) != "" { // it has come into a group
		return d.tell(&was, &now, false)
	}
	next := newVersion(v.name, d.c.ordinal, v.rank+1, v.at, v.reg, v.size)
	next.hash = v.hash
	next.prev.Store(v)
	e.seqr.out, _ = appendRegister(e.seqr.out[:0], next)
	err = d.c.batch.Set(store.Register(name), e.seqr.out)
	d.c.versions = append(d.c.versions, next)
	after := e.look(next, d.rules, e.sight(v).decl)
	return errors.Join(err, d.tell(&was, &after.block, false))
}

// newestTold is what history says last of a register. The caller holds e.mu.
func (e *Engine) newestTold(name string) (StateBlock, error) {
	b, _, err := e.blockAt(name, e.seqr.ordinal)
	return b, err
}

// trimming are the registers whose history may have grown over the count that they keep.
type trimming struct {
	mu    sync.Mutex
	names map[string]struct{}
}

// trimStep is how often a register that is written is looked at for its count of history entries.
const trimStep = 64

func (t *trimming) note(name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.names == nil {
		t.names = map[string]struct{}{}
	}
	if len(t.names) < maxTimed { // the next step of those beyond notes them again
		t.names[name] = struct{}{}
	}
}

func (t *trimming) take() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	names := make([]string, 0, len(t.names))
	for n := range t.names {
		names = append(names, n)
	}
	clear(t.names)
	slices.Sort(names)
	return names
}

// trimCounts removes history entries beyond the count that a declaration keeps.
func (e *Engine) trimCounts(context.Context) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	rules := e.rules.Load()
	for _, name := range e.trimming.take() {
		d := rules.decl(name)
		if d == nil || d.Retention.Count == 0 {
			continue
		}
		left := d.Retention.Count
		for row, err := range e.scan(store.History(name, 0), store.History(name, e.feed.published.Load()+1), true) {
			if err != nil {
				return err
			}
			if left--; left > 0 {
				continue
			}
			b := e.store.NewBatch()
			if err := errors.Join(b.DeleteRange(store.History(name, 0), slices.Clone(row.Key)), e.store.Apply(b, false), b.Close()); err != nil {
				return e.fail(err)
			}
			break
		}
	}
	return nil
}

// keepAge is how long the log is kept: as long as history is where nobody says otherwise, or as the shortest that is
// declared. Negative: without end.
func (e *Engine) keepAge() time.Duration {
	age := e.options.HistoryAge
	if s := e.rules.Load().shortest; s > 0 && (age < 0 || s < age) {
		age = s
	}
	return age
}

// logLimit is how many times as long the log is kept for members that do not have it.
const logLimit = 3

// trimLog removes the oldest commits: from the log, with their candidates, and from history. Trimming costs history, never
// correctness: a member that lacks a candidate is given the state.
func (e *Engine) trimLog(ctx context.Context) error {
	for {
		n, err := e.trimSome(ctx)
		if err != nil || n < some {
			return err
		}
	}
}

func (e *Engine) trimSome(ctx context.Context) (n int, err error) {
	age := e.keepAge()
	if age < 0 {
		return 0, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if err := e.enter(); err != nil {
		return 0, err
	}
	defer e.leave()
	now := e.options.Now()
	f := *e.floor.Load()
	b := e.store.NewBatch()
	rules := e.rules.Load()
	for row, err := range e.scan(store.Commit(f.ordinal), store.Commit(e.feed.published.Load()), false) {
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		ordinal, _ := store.CommitOrdinal(row.Key)
		c, err := parseCommit(ordinal, row.Value)
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		written := c.clock.Time()
		if n == some || written.Add(age).After(now) || !c.dot.IsZero() && !e.everybodyHas(c.dot) && written.Add(logLimit*age).After(now) {
			break
		}
		for _, name := range c.names {
			err = errors.Join(err, e.trimEntry(b, rules, name, ordinal, written, now))
		}
		err = errors.Join(err, b.Delete(store.Commit(ordinal)))
		if !c.dot.IsZero() {
			err = errors.Join(err, b.Delete(store.Candidate(c.dot)))
			f.candidates++
			f.vector = f.vector.With(c.dot)
			e.mu.Lock()
			if h := e.seqr.core.Head(c.dot.Origin); h.Seq == c.dot.Seq { // all of it is gone: what it was is noted
				err = errors.Join(err, b.Set(store.Head(c.dot.Origin), appendHead(nil, h)))
			}
			e.mu.Unlock()
		}
		if err != nil {
			return 0, errors.Join(err, b.Close())
		}
		f.ordinal = ordinal + 1
		n++
	}
	if n == 0 {
		return 0, b.Close()
	}
	if err := errors.Join(b.Set(store.Meta(metaFloor), f.encode()), e.store.Apply(b, false), b.Close()); err != nil {
		return 0, e.fail(fmt.Errorf("write of the log: %w", err))
	}
	e.floor.Store(&f)
	return n, nil
}

// trimEntry removes one history entry, or notes when it is to go. The newest of a register stays.
func (e *Engine) trimEntry(b store.Batch, rules *ruleTable, name string, ordinal uint64, written, now time.Time) error {
	age := e.options.HistoryAge
	if d := rules.decl(name); d != nil && d.Retention.Age != 0 {
		age = d.Retention.Age
	}
	again := func(at time.Time) error { return b.Set(store.Tail(lattice.StampOf(at), ordinal, name), nil) }
	switch {
	case age < 0:
		return nil
	case written.Add(age).After(now):
		return again(written.Add(age))
	}
	newest, gone, err := e.lastWritten(name)
	if err != nil {
		return err
	}
	if newest == ordinal {
		if !gone { // it stays until another one is the newest
			return again(now.Add(age))
		}
		// The last word on a register goes last: stamps are not in the order of the log where clocks were wrong.
		if first, found, err := e.oldest(name); err != nil || found && first.Cursor.Ordinal != ordinal {
			return errors.Join(err, again(now.Add(age)))
		}
		e.dropEmpty(name, ordinal)
	}
	return b.Delete(store.History(name, ordinal))
}

// lastWritten is the newest history entry of a register, and whether nothing is left of the register itself.
func (e *Engine) lastWritten(name string) (ordinal uint64, gone bool, err error) {
	lower := store.HistoryPrefix(name)
	for row, err := range e.scan(lower, store.Behind(lower), true) {
		if err != nil {
			return 0, false, err
		}
		ordinal = ordinalOf(row.Key[len(lower):])
		break
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	v, err := e.newest(name)
	if err != nil {
		return 0, false, err
	}
	if v.unit != "" {
		return ordinal, false, nil
	}
	// One that was written since may be anywhere between here and the disk.
	return ordinal, v.reg.Empty() && v.ordinal == ordinal && e.recent.newest(name) == nil, nil
}

// dropEmpty forgets a register of which nothing is left, unless it was written since.
func (e *Engine) dropEmpty(name string, ordinal uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if d := e.rules.Load().decl(name); e.recent.newest(name) != nil || d != nil && d.Unit != "" {
		return
	}
	if v, err := e.load(name); err == nil && v != nil && v.unit == "" && v.ordinal == ordinal && v.reg.Empty() {
		_ = e.setAlone(store.Register(name), nil) // what fails ends the engine
	}
}

// trimTails removes history entries that were kept longer than the log.
func (e *Engine) trimTails(ctx context.Context) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	now := e.options.Now()
	rules := e.rules.Load()
	b := e.store.NewBatch()
	n := 0
	lower := store.Tail(0, 0, "")
	for row, err := range e.scan(lower[:1], store.Tail(lattice.StampOf(now), 0, ""), false) {
		if err == nil {
			_, ordinal, name := store.TailOf(row.Key)
			var d QDelta
			if d, _, err = e.deltaAt(name, ordinal); errors.Is(err, errTrimmed) {
				err = nil
			} else if err == nil {
				err = e.trimEntry(b, rules, name, ordinal, d.After.Time.Time(), now)
			}
			err = errors.Join(err, b.Delete(slices.Clone(row.Key)))
		}
		if err != nil {
			return errors.Join(err, b.Close())
		}
		if n++; n == 4*some {
			break
		}
	}
	if n == 0 {
		return b.Close()
	}
	if err := errors.Join(e.store.Apply(b, false), b.Close()); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	return nil
}
