package engine

import (
	"context"
	"errors"
	"slices"

	"github.com/spooksystems/gateway/engine/lattice"
)

// What a link waits for.

// Place is the newest commit of this node's log that is durable, of the domain's own registers too.
func (e *Engine) Place() Cursor { return Cursor{e.log, e.feed.published.Load()} }

// Await waits until there is a commit behind a place of this node's log.
func (e *Engine) Await(ctx context.Context, behind Cursor) error {
	after := behind.Ordinal
	if behind.Log != e.log {
		after = 0
	}
	if news := e.feed.next(after); news != nil {
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := e.enter(); err != nil {
		return err
	}
	e.leave()
	return nil
}

// Incoming lists chunks of large values that registers wait for, at most limit: those that skip does not name. Of a value
// whose list of chunks is missing, that comes first.
func (e *Engine) Incoming(ctx context.Context, limit int, skip func(lattice.Hash) bool) (missing []lattice.Hash, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	for r, err := range e.eachInternal(incomingTable) {
		if err = errors.Join(err, ctx.Err()); err != nil {
			return nil, err
		}
		v, err := e.load(r.Key)
		if err != nil {
			return nil, err
		}
		if v == nil {
			continue
		}
		v.reg.Values(func(value Value) {
			if _, ok := lattice.BlobOf(value); !ok || len(missing) >= limit {
				return
			}
			list, failed := e.MissingChunks(value)
			err = errors.Join(err, failed)
			for _, h := range list {
				if len(missing) < limit && !skip(h) && !slices.Contains(missing, h) {
					missing = append(missing, h)
				}
			}
		})
		if err != nil || len(missing) >= limit {
			return missing, err
		}
	}
	return missing, nil
}

// Lost is what a peer's vector has of earlier runs of this node, and this node has not: it was restored from an older
// state, and takes them back before it goes on telling the peer. Of runs that it does not know at all it can't tell.
func (e *Engine) Lost(theirs QStateVector) (lost []Dot, err error) {
	if err := e.enter(); err != nil {
		return nil, err
	}
	defer e.leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	core := e.seqr.core
	for _, d := range theirs {
		if owner, ok := core.Owner(d.Origin); ok && owner.Origin.Endpoint == e.origin.Endpoint && d.Origin != e.self && !core.Covers(d) {
			lost = append(lost, d)
		}
	}
	return lost, nil
}

// Lacking counts what this node lacks of a peer's vector.
func (e *Engine) Lacking(theirs QStateVector) (n uint64, err error) {
	if err := e.enter(); err != nil {
		return 0, err
	}
	defer e.leave()
	e.mu.Lock()
	defer e.mu.Unlock()
	core := e.seqr.core
	for _, d := range theirs {
		if !core.Covers(d) {
			n += d.Seq - core.Head(d.Origin).Seq
		}
	}
	return n, nil
}

// CoveredBy says whether a peer has all of some candidates, by its vector: of an origin that has been retired, too, if it has
// the candidate that retired it.
func (e *Engine) CoveredBy(theirs, dots QStateVector) (bool, error) {
	p := &peerHas{e: e, vector: theirs, knows: map[OriginID]bool{}}
	for _, d := range dots {
		if has, err := p.covers(d); err != nil || !has {
			return false, err
		}
	}
	return true, nil
}

// Full says that the disk is almost full: what comes from elsewhere has to wait, too.
func (e *Engine) Full() bool { return e.store.Full() }

// Own tells whether an origin is this node's, of this run or an earlier one.
func (e *Engine) Own(o OriginID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	owner, ok := e.seqr.core.Owner(o)
	return ok && owner.Origin.Endpoint == e.origin.Endpoint
}
