package wrappertest

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// A Call names a method of the Link for Fail and Block.
type Call string

// The calls that can be made to fail or to wait.
const (
	CallDo     Call = "do"
	CallBegin  Call = "begin"
	CallCommit Call = "commit"
	CallSeen   Call = "seen"
	CallSettle Call = "settle"
)

// Via says by which door a candidate came.
type Via string

// The doors.
const (
	ViaDo   Via = "do"   // Do: a virtual wrapper
	ViaWire Via = "wire" // Begin and Commit: a relay
	ViaSeen Via = "seen" // Seen: a feed or a poll
	ViaPush Via = "push" // Push: elsewhere, by the test
)

// A Candidate is one write that became durable.
type Candidate struct {
	Via     Via
	Verb    wrappers.Verb
	Server  string
	Address string
	Payload []byte // the register afterwards; nil if it is gone
	Op      wrappers.Operation
	Version wrappers.Version
}

// An IntentRecord is what became of one Begin.
type IntentRecord struct {
	Op  wrappers.Operation
	As  wrappers.Operation // when committed
	End string             // "open", "commit", "abort", "unknown"
}

// A Settled is one write-back that came to an end.
type Settled struct {
	Change wrappers.Change
	Effect wrappers.Effect
}

// A Tapped is one operation that was shown without concerning a register.
type Tapped struct {
	Op      wrappers.Operation
	Outcome string
}

// String lists what was recorded, for failure messages.
func (l *Link) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, c := range l.candidates {
		fmt.Fprintf(&b, "candidate %s %s %s%s %.120q\n", c.Via, c.Verb, c.Server, c.Address, c.Payload)
	}
	for _, i := range l.intents {
		fmt.Fprintf(&b, "intent %s %s %s\n", i.Op.Verb, i.Op.Address, i.End)
	}
	for _, s := range l.settled {
		fmt.Fprintf(&b, "settled %s %.120q outcome %d err %v\n", s.Change.Address, s.Change.Payload.Raw, s.Effect.Outcome, s.Effect.Err)
	}
	for _, o := range l.seen {
		fmt.Fprintf(&b, "seen %s %s %.120q\n", o.Verb, o.Address, o.Payload.Raw)
	}
	fmt.Fprintf(&b, "counts %v\n", l.counts)
	return b.String()
}

func (l *Link) keep(r wrappers.Record) {
	if r.Value == nil {
		delete(l.kept, r.Key)
	} else {
		l.kept[r.Key] = bytes.Clone(r.Value)
	}
}

// Keep implements wrappers.Link.
func (l *Link) Keep(_ context.Context, records ...wrappers.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range records {
		l.keep(r)
	}
	l.wake()
	return nil
}

// Kept implements wrappers.Link.
func (l *Link) Kept(_ context.Context, prefix string) iter.Seq2[wrappers.Record, error] {
	return func(yield func(wrappers.Record, error) bool) {
		l.mu.Lock()
		kept := maps.Clone(l.kept)
		l.mu.Unlock()
		for _, k := range slices.Sorted(maps.Keys(kept)) {
			if strings.HasPrefix(k, prefix) && !yield(wrappers.Record{Key: k, Value: kept[k]}, nil) {
				return
			}
		}
	}
}

// Tap implements wrappers.Link.
func (l *Link) Tap(op wrappers.Operation, outcome string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tapped = append(l.tapped, Tapped{cloneOp(op), outcome})
	l.wake()
}

// Record has Recording say from now on that somebody records.
func (l *Link) Record() { l.recording.Store(true) }

// Recording implements wrappers.Link.
func (l *Link) Recording() bool { return l.recording.Load() }

// Trouble implements wrappers.Link.
func (l *Link) Trouble(about, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.troubles == nil {
		l.troubles = map[string]string{}
	}
	if l.troubles[about] = text; text == "" {
		delete(l.troubles, about)
	}
	l.wake()
}

// Troubled gives what a wrapper has said of a subject, "" if nothing is wrong with it.
func (l *Link) Troubled(about string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.troubles[about]
}

// Count implements wrappers.Link.
func (l *Link) Count(event string, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[event] += n
	l.wake()
}

// Counted gives a counter.
func (l *Link) Counted(event string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[event]
}

// Candidates gives every write that became durable, in order; those of vias only, if named.
func (l *Link) Candidates(vias ...Via) []Candidate {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Candidate
	for _, c := range l.candidates {
		if len(vias) == 0 || slices.Contains(vias, c.Via) {
			out = append(out, c)
		}
	}
	return out
}

// Intents gives what became of every Begin that succeeded, in order.
func (l *Link) Intents() []IntentRecord {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []IntentRecord
	for _, i := range l.intents {
		out = append(out, *i)
	}
	return out
}

// Settlements gives every Settle of a write, in order; those of read-backs are left out.
func (l *Link) Settlements() []Settled {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.settled)
}

// Observations gives everything that Seen was told.
func (l *Link) Observations() []wrappers.Observation {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.seen)
}

// Positions gives the position of every call of Seen.
func (l *Link) Positions() []wrappers.Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.positions)
}

// Taps gives what Tap was shown.
func (l *Link) Taps() []Tapped {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.tapped)
}

// Register gives the state at an address; false if it doesn't exist.
func (l *Link) Register(server, address string) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.cells[place{server, address}]
	if c == nil || !c.exists {
		return nil, false
	}
	return bytes.Clone(c.payload.Raw), true
}
