package engine

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/store"
)

// MaxHeld bounds how many candidates wait for others; Options.HeldBytes bounds their bytes.
const MaxHeld = 10_000

// A Reception says what became of candidates from elsewhere.
type Reception struct {
	Applied int
	Known   int   // applied before
	Held    int   // kept on disk until what they depend on has come
	Refused int   // they contradict what was applied before: there is a Finding
	Full    bool  // no more can be held: the rest was not taken, and has to be sent again, behind what is Missing
	Missing []Dot // what those that are held wait for: the last of each origin
}

// holding are the candidates that came before what they depend on. They are on disk; here is what each waits for first.
type holding struct {
	waits map[OriginID][]earlyBird // guarded by Engine.mu
	all   map[Dot]int              // size by dot; likewise
	bytes int
	n     atomic.Int64
}

type earlyBird struct {
	needs uint64 // seq of the origin that it waits for
	dot   Dot
}

func (h *holding) count() uint64 { return uint64(h.n.Load()) }

func (h *holding) add(dot, needs Dot, size int) {
	if _, again := h.all[dot]; !again {
		h.all[dot] = size
		h.bytes += size
		h.n.Add(1)
	}
	if bird := (earlyBird{needs.Seq, dot}); !slices.Contains(h.waits[needs.Origin], bird) {
		h.waits[needs.Origin] = append(h.waits[needs.Origin], bird)
	}
}

func (h *holding) drop(dot Dot) {
	h.bytes -= h.all[dot]
	delete(h.all, dot)
	h.n.Store(int64(len(h.all)))
}

// ready gives those that waited for a candidate, or one before it.
func (h *holding) ready(d Dot) (dots []Dot) {
	h.waits[d.Origin] = slices.DeleteFunc(h.waits[d.Origin], func(b earlyBird) bool {
		if b.needs <= d.Seq {
			dots = append(dots, b.dot)
		}
		return b.needs <= d.Seq
	})
	if len(h.waits[d.Origin]) == 0 {
		delete(h.waits, d.Origin)
	}
	slices.SortFunc(dots, Dot.Compare)
	return slices.Compact(dots)
}

// missing is, for each origin, the last candidate that something waits for.
func (h *holding) missing() (dots []Dot) {
	for o, birds := range h.waits {
		d := Dot{Origin: o}
		for _, b := range birds {
			d.Seq = max(d.Seq, b.needs)
		}
		dots = append(dots, d)
	}
	slices.SortFunc(dots, Dot.Compare)
	return dots
}

func (e *Engine) loadHeld() error {
	h := &e.held
	h.waits, h.all = map[OriginID][]earlyBird{}, map[Dot]int{}
	first := store.Early(Dot{})[:1]
	for row, err := range e.scan(first, store.Behind(first), false) {
		if err != nil {
			return err
		}
		dot, ok := store.DotOf(row.Key)
		q, err := lattice.ParseCandidate(row.Value)
		if err != nil || !ok || q.Dot != dot {
			return damaged("a candidate that waits for others: %w", err)
		}
		e.hold(q, len(row.Value), e.seqr.core.Missing(q))
	}
	return nil
}

func (e *Engine) hold(q *QCandidate, size int, missing []Dot) {
	if len(missing) == 0 { // a crash came between; the next that arrives lets it go on
		missing = []Dot{{Origin: q.Dot.Origin, Seq: q.Dot.Seq - 1}}
	}
	e.held.add(q.Dot, missing[0], size)
}

// Receive takes candidates of other nodes, in any order, any number of times. Those that depend on others wait for them on
// disk. All that it says is durable when it returns. An error is about the first that can't be understood at all, and is
// ErrInvalid: those before it were taken.
func (e *Engine) Receive(ctx context.Context, raw ...[]byte) (Reception, error) {
	r, wait, err := e.receive(ctx, raw)
	return r, errors.Join(err, wait())
}

// Take is Receive for who waits for the disk later, so that syncs overlap with what comes next: all that it says is durable
// when wait returns.
func (e *Engine) Take(ctx context.Context, raw ...[]byte) (r Reception, wait func() error, err error) {
	return e.receive(ctx, raw)
}

func (e *Engine) receive(ctx context.Context, raw [][]byte) (r Reception, wait func() error, err error) {
	none := func() error { return nil }
	if err := ctx.Err(); err != nil {
		return r, none, err
	}
	if err := e.enter(); err != nil {
		return r, none, err
	}
	defer e.leave()
	behind := uint64(0)
	for _, b := range raw {
		q, failed := lattice.ParseCandidate(b)
		if failed != nil {
			err = failed
			break
		}
		if len(b) > MaxBulk+MaxCandidate {
			err = tooLarge("a candidate of %d bytes", len(b))
			break
		}
		alarms, failed := e.take(q, b, &r)
		for _, a := range alarms {
			e.alarm(a)
		}
		if failed != nil {
			err = failed
			break
		}
		if r.Full {
			break
		}
	}
	e.mu.Lock()
	behind = e.seqr.ordinal
	r.Missing = e.held.missing()
	e.mu.Unlock()
	return r, func() error {
		if r.Held > 0 { // what is held has no commit that would be waited for
			if err := e.syncAll(); err != nil {
				return err
			}
		}
		return e.settle(behind)
	}, err
}

// syncAll makes everything durable that was stored so far.
func (e *Engine) syncAll() error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	if err := e.store.Sync(); err != nil {
		return e.fail(fmt.Errorf("sync of the log: %w", err))
	}
	return nil
}

// take takes one candidate, and those that waited for it.
func (e *Engine) take(q *QCandidate, raw []byte, r *Reception) (alarms []lattice.Alarm, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.failed.Load() != nil {
		return nil, e.failure()
	}
	type arrival struct {
		q    *QCandidate
		raw  []byte
		held bool
	}
	todo := []arrival{{q, raw, false}}
	defer e.seqr.endStep()
	for len(todo) > 0 {
		a := todo[0]
		todo = todo[1:]
		e.seqr.endStep() // of the one before
		e.seqr.beginStep()
		var eff lattice.Effects
		verdict, missing, err := e.seqr.core.Receive(e, a.q, a.raw, e.options.Now(), e.hashOf, &eff)
		if err != nil {
			return alarms, err
		}
		alarms = append(alarms, eff.Alarms...)
		switch verdict {
		case lattice.Early:
			if a.held {
				e.hold(a.q, len(a.raw), missing)
				continue
			}
			if len(e.held.all) >= MaxHeld || e.held.bytes+len(a.raw) > e.options.HeldBytes {
				r.Full = true
				return alarms, nil
			}
			if _, again := e.held.all[a.q.Dot]; !again {
				if err := e.setAlone(store.Early(a.q.Dot), a.raw); err != nil {
					return alarms, err
				}
			}
			e.hold(a.q, len(a.raw), missing)
			r.Held++
		case lattice.Known, lattice.Refused:
			if verdict == lattice.Known {
				r.Known++
			} else {
				r.Refused++
			}
			if _, waited := e.held.all[a.q.Dot]; waited {
				if err := e.setAlone(store.Early(a.q.Dot), nil); err != nil {
					return alarms, err
				}
				e.held.drop(a.q.Dot)
			}
		case lattice.Applied:
			c := new(commit)
			with := composing{}
			if _, waited := e.held.all[a.q.Dot]; waited {
				with.erase = [][]byte{store.Early(a.q.Dot)}
				e.held.drop(a.q.Dot)
			}
			if err := e.compose(c, &eff, with); err != nil {
				return alarms, err
			}
			r.Applied++
			for _, d := range e.held.ready(a.q.Dot) {
				if _, still := e.held.all[d]; !still {
					continue
				}
				waited, err := e.early(d)
				if err != nil {
					return alarms, err
				}
				q, err := lattice.ParseCandidate(waited)
				if err != nil {
					return alarms, damaged("a candidate that waits for others: %w", err)
				}
				todo = append(todo, arrival{q, waited, true})
			}
		}
	}
	return alarms, nil
}

// retryHeld looks at all that waits: what it waits for has come with a state, and nobody will name it again.
func (e *Engine) retryHeld() error {
	e.mu.Lock()
	dots := slices.SortedFunc(maps.Keys(e.held.all), Dot.Compare)
	e.mu.Unlock()
	for _, d := range dots {
		if err := e.retryOne(d); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) retryOne(d Dot) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	e.mu.Lock()
	_, still := e.held.all[d]
	e.mu.Unlock()
	if !still {
		return nil
	}
	raw, err := e.early(d)
	if err != nil {
		return err
	}
	q, err := lattice.ParseCandidate(raw)
	if err != nil {
		return damaged("a candidate that waits for others: %w", err)
	}
	alarms, err := e.take(q, raw, new(Reception))
	for _, a := range alarms {
		e.alarm(a)
	}
	return err
}

func (e *Engine) early(d Dot) (raw []byte, err error) {
	found, err := e.get(store.Early(d), func(value []byte) error {
		raw = slices.Clone(value)
		return nil
	})
	if err == nil && !found {
		err = damaged("candidate %s, which waits for others, is missing", d)
	}
	return raw, err
}

// setAlone stores one key behind all commits so far; it is durable with the next sync. Nil deletes.
func (e *Engine) setAlone(key, value []byte) error {
	b := e.store.NewBatch()
	err := b.Set(key, value)
	if value == nil {
		err = b.Delete(key)
	}
	if err = errors.Join(err, e.store.Apply(b, false)); err != nil {
		return e.fail(fmt.Errorf("write of the log: %w", err))
	}
	return b.Close()
}

// hashOf gives the hash of a candidate that is still in the log.
func (e *Engine) hashOf(d Dot) (h lattice.Hash, ok bool) {
	ok, err := e.get(store.Candidate(d), func(value []byte) error {
		h = sha256.Sum256(value)
		return nil
	})
	return h, ok && err == nil
}
