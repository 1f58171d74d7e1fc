package gateway

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A joint is the door of a wrapper to several domains at once: a link for each. What an address means is one domain's, so
// an operation goes to that domain's link; lists and changes come from all of them.
type joint struct {
	name  string
	set   atomic.Pointer[mapping.Set] // of all domains
	links []*link
	names []string // of the domains
	turns turns
	order *order
}

func newJoint(links []*link, names []string, set *mapping.Set) (*joint, error) {
	j := &joint{name: links[0].name, links: links, names: names}
	j.set.Store(set)
	var err error
	j.order, err = watchOrder(links)
	return j, err
}

// at gives the link of an address: the first, which says so, where no bind has it.
func (j *joint) at(address string) int {
	if b := j.set.Load().Bind(j.name, address); b != nil {
		return max(slices.Index(j.names, b.Domain()), 0)
	}
	return 0
}

// of gives the link of an operation. Several writes that are one are of one domain: there is no commit across two.
func (j *joint) of(op *wrappers.Operation) (int, error) {
	addresses := []string{op.Address}
	if op.To != "" {
		addresses = append(addresses, op.To)
	}
	if len(op.Parts) > 0 {
		addresses = addresses[:0]
		for i := range op.Parts {
			addresses = append(addresses, op.Parts[i].Address)
			if op.Parts[i].To != "" {
				addresses = append(addresses, op.Parts[i].To)
			}
		}
	}
	found := -1
	for _, a := range addresses {
		if j.set.Load().Bind(j.name, a) == nil {
			continue
		}
		switch i := j.at(a); found {
		case -1:
			found = i
		case i:
		default:
			return 0, wrappers.Refuse(wrappers.ErrInvalid, "one operation can't write in two domains")
		}
	}
	return max(found, 0), nil
}

// Maps implements wrappers.Link.
func (j *joint) Maps(verb wrappers.Verb, server, address string) bool {
	return j.set.Load().Maps(j.name, verb, server, address)
}

// May implements wrappers.Link.
func (j *joint) May(verb wrappers.Verb, server, address string, who wrappers.Who) error {
	return j.links[j.at(address)].May(verb, server, address, who)
}

// Do implements wrappers.Link.
func (j *joint) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	here := j.order.now() // before the look: what comes between is told once more
	var r wrappers.Result
	var err error
	if op.Verb == wrappers.List && len(op.Parts) == 0 {
		r, err = j.list(ctx, op)
	} else {
		var i int
		if i, err = j.of(&op); err == nil {
			r, err = j.links[i].Do(ctx, op)
		}
	}
	if r.Cursor != "" {
		r.Cursor = here
	}
	return r, err
}

// Scan implements wrappers.Link. Where no domain has anything it is the first one's to say so.
func (j *joint) Scan(ctx context.Context, op wrappers.Operation) iter.Seq2[wrappers.Item, error] {
	return func(yield func(wrappers.Item, error) bool) {
		answered := false
		var unmapped error
		for _, l := range j.links {
			here := true
			for item, err := range l.Scan(ctx, op) {
				if err != nil && wrappers.Kind(err) == wrappers.ErrUnmapped {
					unmapped, here = cmp.Or(unmapped, err), false
					break
				}
				if !yield(item, err) || err != nil {
					return
				}
			}
			answered = answered || here
		}
		if !answered {
			yield(wrappers.Item{}, unmapped)
		}
	}
}

// list merges what the domains have below a prefix. Where none has anything it is the first one's to say so.
func (j *joint) list(ctx context.Context, op wrappers.Operation) (all wrappers.Result, err error) {
	answered := false
	var unmapped error
	for _, l := range j.links {
		r, err := l.Do(ctx, op)
		if err != nil && wrappers.Kind(err) == wrappers.ErrUnmapped {
			unmapped = cmp.Or(unmapped, err)
			continue
		}
		if err != nil {
			return wrappers.Result{}, err
		}
		answered = true
		all.Items = append(all.Items, r.Items...)
		all.More, all.Cursor = all.More || r.More, r.Cursor
	}
	if !answered {
		return wrappers.Result{}, unmapped
	}
	slices.SortFunc(all.Items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
	all.Items = slices.CompactFunc(all.Items, func(a, b wrappers.Item) bool { return a.Address == b.Address })
	limit := op.Limit
	if limit <= 0 || limit > mostItems {
		limit = mostItems
	}
	if len(all.Items) > limit {
		all.Items, all.More = all.Items[:limit], true
	}
	return all, nil
}

// Start implements wrappers.Link.
func (j *joint) Start(ctx context.Context, op wrappers.Operation) (func() (wrappers.Result, error), error) {
	i, err := j.of(&op)
	if err != nil {
		return nil, err
	}
	wait, err := j.links[i].Start(ctx, op)
	if err != nil {
		return nil, err
	}
	return func() (wrappers.Result, error) {
		r, err := wait()
		if r.Cursor != "" {
			r.Cursor = j.order.now()
		}
		return r, err
	}, nil
}

// Begin implements wrappers.Link.
func (j *joint) Begin(ctx context.Context, op wrappers.Operation) (wrappers.Intent, error) {
	if !j.Maps(op.Verb, op.Server, op.Address) {
		return nil, wrappers.ErrUnmapped
	}
	i, err := j.of(&op)
	if err != nil {
		return nil, err
	}
	return j.links[i].Begin(ctx, op)
}

// Seen implements wrappers.Link. The order of one address is kept, since an address is of one domain; what is to be stored
// behind all of it is stored last.
func (j *joint) Seen(ctx context.Context, at wrappers.Position, what []wrappers.Observation) error {
	parts := make([][]wrappers.Observation, len(j.links))
	moved := make([][]wrappers.Record, len(j.links)) // records that others must not have any more
	for i := range what {
		n := j.at(what[i].Address)
		parts[n] = append(parts[n], what[i])
		for _, r := range what[i].Keep {
			for other := range j.links {
				if other != n {
					moved[other] = append(moved[other], wrappers.Record{Key: r.Key})
				}
			}
		}
	}
	keep := at.Keep
	for n := len(j.links) - 1; n >= 0; n-- {
		if at.Keep = nil; n == 0 {
			at.Keep = keep
		}
		if err := j.links[n].Seen(ctx, at, parts[n]); err != nil {
			return err
		}
	}
	for n, records := range moved {
		if len(records) > 0 {
			j.links[n].keepQuietly(j.links[n].own(records)...)
		}
	}
	return nil
}

// Follow implements wrappers.Link.
func (j *joint) Follow(ctx context.Context, mode wrappers.FollowMode, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if mode == wrappers.WriteBack {
		return j.writeBack(ctx)
	}
	return j.notify(ctx, from)
}

// writeBack merges what the domains have to write. A ticket tells whose it is.
func (j *joint) writeBack(ctx context.Context) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		type due struct {
			c   wrappers.Change
			err error
		}
		next := make(chan due)
		for i, l := range j.links {
			go func() {
				for c, err := range l.Follow(ctx, wrappers.WriteBack, "") {
					c.Ticket = c.Ticket*uint64(len(j.links)) + uint64(i)
					select {
					case next <- due{c, err}:
					case <-ctx.Done():
						return // what is out is taken back when the next Follow begins
					}
				}
			}()
		}
		for {
			select {
			case d := <-next:
				if !yield(d.c, d.err) || d.err != nil {
					return
				}
			case <-ctx.Done():
				yield(wrappers.Change{}, ctx.Err())
				return
			}
		}
	}
}

// Settle implements wrappers.Link.
func (j *joint) Settle(ctx context.Context, c wrappers.Change, e wrappers.Effect) error {
	n := uint64(len(j.links))
	l := j.links[c.Ticket%n]
	c.Ticket /= n
	return l.Settle(ctx, c, e)
}

// Patterns implements wrappers.Link.
func (j *joint) Patterns() ([]wrappers.Pattern, <-chan struct{}) {
	turned := j.turns.wait()
	return j.set.Load().Patterns(j.name), turned
}

// Keep implements wrappers.Link. A wrapper's records are with the first domain, but for those that go with what an
// observation becomes.
func (j *joint) Keep(ctx context.Context, records ...wrappers.Record) error {
	if err := j.links[0].Keep(ctx, records...); err != nil {
		return err
	}
	var gone []wrappers.Record
	for _, r := range records {
		gone = append(gone, wrappers.Record{Key: r.Key})
	}
	for _, l := range j.links[1:] {
		l.keepQuietly(l.own(gone)...)
	}
	return nil
}

// Kept implements wrappers.Link. A record that two domains have was on its way from one to the other when the process
// died: which of them is the newer nobody knows, and without it the wrapper asks again.
func (j *joint) Kept(ctx context.Context, prefix string) iter.Seq2[wrappers.Record, error] {
	return func(yield func(wrappers.Record, error) bool) {
		var all []wrappers.Record
		for _, l := range j.links {
			for r, err := range l.Kept(ctx, prefix) {
				if err != nil {
					yield(wrappers.Record{}, err)
					return
				}
				all = append(all, r)
			}
		}
		slices.SortStableFunc(all, func(a, b wrappers.Record) int { return strings.Compare(a.Key, b.Key) })
		for i, r := range all {
			doubt := i > 0 && all[i-1].Key == r.Key || i+1 < len(all) && all[i+1].Key == r.Key
			if !doubt && !yield(r, nil) {
				return
			}
		}
	}
}

// Tap implements wrappers.Link.
func (j *joint) Tap(op wrappers.Operation, outcome string) { j.links[0].Tap(op, outcome) }

// Recording implements wrappers.Link.
func (j *joint) Recording() bool { return j.links[0].Recording() }

// Count implements wrappers.Link.
func (j *joint) Count(event string, n int) { j.links[0].Count(event, n) }

// cursors is a place in the logs of all domains, as wrappers carry it: "log.ordinal+log.ordinal".
type cursors []engine.Cursor

func (c cursors) String() string {
	words := make([]string, len(c))
	for i := range c {
		words[i] = c[i].String()
	}
	return strings.Join(words, "+")
}

// parseCursors reads what String wrote. A domain that has come since begins with a snapshot, one that has gone is left out.
func parseCursors(s string, n int) (cursors, error) {
	out := make(cursors, n)
	for i, word := range strings.Split(s, "+") {
		c, err := engine.ParseCursor(word)
		if err != nil {
			return nil, fmt.Errorf("%w: cursor %q", engine.ErrInvalid, s)
		}
		if i < n {
			out[i] = c
		}
	}
	return out, nil
}
