package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine/lattice"
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
