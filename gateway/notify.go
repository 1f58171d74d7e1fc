package gateway

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// notify is Follow with Notify: every committed change, in commit order, for whoever subscribes
// to what this gateway itself serves.
func (l *link) notify(ctx context.Context, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	if !l.paced {
		_, changes := l.changes(ctx, from)
		return changes
	}
	ctx, end := context.WithCancel(ctx)
	start, changes := l.changes(ctx, from)
	return pace(ctx, end, wrappers.Cursor(start.String()), l.paces, l.every, changes)
}

// changes is notify without what `every` holds back. It begins now, not when the caller begins to range.
func (l *link) changes(ctx context.Context, from wrappers.Cursor) (start engine.Cursor, all iter.Seq2[wrappers.Change, error]) {
	start, err := l.start(ctx, resumeFrom(from))
	return start, func(yield func(wrappers.Change, error) bool) {
		if err != nil {
			yield(wrappers.Change{}, err)
			return
		}
		var shared touched
		for d, err := range l.store.Observe(ctx, engine.Filter{}, start) {
			if err != nil {
				yield(wrappers.Change{}, kind(err))
				return
			}
			if !l.tell(ctx, &d, &shared, yield) || d.Part == d.Of-1 && d.Cursor != (engine.Cursor{}) && !l.tellDocuments(ctx, &d, &shared, yield) {
				return
			}
		}
	}
}

// paces and every say which addresses are told at most so often.
func (l *link) paces() bool { return l.set().Paced(l.name) }

func (l *link) every(address string) time.Duration {
	if b := l.set().Bind(l.name, address); b != nil {
		return b.Every()
	}
	return 0
}

func (l *link) start(ctx context.Context, from wrappers.Cursor) (engine.Cursor, error) {
	if from == "" {
		c, err := l.store.Cursor(ctx)
		return c, kind(err)
	}
	// Of several domains the first is still here.
	first, _, _ := strings.Cut(string(from), "+")
	c, err := engine.ParseCursor(first)
	return c, kind(err)
}

// tell yields the changes that one delta means for this wrapper's addresses. An operation that
// touched several registers is an echo once.
func (l *link) tell(ctx context.Context, d *engine.QDelta, shared *touched, yield func(wrappers.Change, error) bool) bool {
	if d.Pending {
		return true // what readers see is as it was
	}
	own := d.Cause.Wrapper == l.name && !d.Snapshot
	told := false
	for _, p := range l.set().Places(l.name, d.After.Register) {
		if p.Bind.Filled() {
			var ok bool
			if p.Address, ok = l.set().AddressOf(p, d.After); !ok {
				continue
			}
		}
		echo := own && d.Cause.Address == p.Address && d.Cause.Server == p.Server
		if !echo && (!concerns(p.Bind, d) || !d.Snapshot && !d.Created && !d.Deleted && len(d.Changed) == 0) {
			continue
		}
		if p.Bind.Rows() || p.Bind.Shared() {
			shared.add(p, echo)
			told = told || echo
			continue
		}
		c := l.change(d, p.Server, p.Address)
		c.Options = p.Bind.Options()
		if echo {
			if d.Part > 0 {
				continue
			}
			c.Echo, c.Tag, told = true, d.Tag, true
		}
		if c.Gone = !d.After.Exists || !carried(p.Bind, d.After); !c.Gone {
			pay, send, err := l.shows(p, d.After, l.env(ctx))
			if err != nil {
				l.log.Warn("can't be shown", "wrapper", l.name, "address", p.Address, "register", p.Bind.Source(), "err", err)
				l.Count("unshowable", 1)
			}
			if err == nil && !send && l.info.Protocol.Syntax.Entries {
				c.Gone = true // who keeps a copy of all entries has to hear that one is hidden
			} else if (err != nil || !send) && !echo {
				continue
			}
			c.Payload = pay
		}
		if !echo {
			l.toldEvent(d, p)
		}
		if !yield(c, nil) {
			return false
		}
	}
	if own && !told && d.Part == 0 && d.Tag != 0 {
		// Said at an address from which nothing flows out: its subscribers still hear it.
		c := l.change(d, d.Cause.Server, d.Cause.Address)
		c.Echo, c.Tag = true, d.Tag
		if t, ok := l.set().At(l.name, c.Server, c.Address); ok {
			c.Options = t.Bind.Options()
		}
		return yield(c, nil)
	}
	return true
}

// touched are the documents that the registers of one commit stand in: each is told of once, however many of its rows
// have changed.
type touched struct {
	places []mapping.Place
	echo   map[place]bool
}

func (t *touched) add(p mapping.Place, echo bool) {
	at := place{p.Server, p.Address}
	if _, known := t.echo[at]; !known {
		t.places = append(t.places, p)
	}
	if t.echo == nil {
		t.echo = map[place]bool{}
	}
	t.echo[at] = t.echo[at] || echo
}

// tellDocuments yields the documents that a commit has touched, with its last delta.
func (l *link) tellDocuments(ctx context.Context, d *engine.QDelta, shared *touched, yield func(wrappers.Change, error) bool) bool {
	for _, p := range shared.places {
		pay, v, there, err := l.shownAt(ctx, p.Server, p.Address)
		echo := shared.echo[place{p.Server, p.Address}]
		if err != nil {
			l.log.Warn("can't be shown", "wrapper", l.name, "address", p.Address, "register", p.Bind.Source(), "err", err)
			l.Count("unshowable", 1)
			if !echo {
				continue
			}
		}
		c := l.change(d, p.Server, p.Address)
		c.Payload, c.Version, c.Gone, c.Options = pay, v, !there && err == nil, p.Bind.Options()
		if echo {
			c.Echo, c.Tag = true, d.Tag
		} else {
			l.toldEvent(d, p)
		}
		if !yield(c, nil) {
			return false
		}
	}
	*shared = touched{}
	return true
}

func (l *link) change(d *engine.QDelta, server, address string) wrappers.Change {
	c := wrappers.Change{Server: server, Address: address, Version: version(d.After), Snapshot: d.Snapshot, Modified: modified(d.After)}
	if d.Cursor != (engine.Cursor{}) {
		c.Key = d.Cursor.String()
		c.Cursor = wrappers.Cursor(c.Key)
	}
	return c
}

func (l *link) toldEvent(d *engine.QDelta, p mapping.Place) {
	if d.Snapshot {
		return
	}
	l.emit(Event{
		Time: time.Now(), Kind: Out, Protocol: l.info.Protocol.Name, Wrapper: l.name, Server: p.Server, Address: p.Address,
		Registers: []string{d.After.Register}, Source: p.Bind.Source(), Cursor: d.Cursor,
		Took: since(d.After), Text: text(d.After),
	})
}
