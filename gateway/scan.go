package gateway

import (
	"context"
	"iter"
	"strings"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// Scan implements wrappers.Link: the rows of a table, in the order of their registers, without those that who asks may not read.
func (l *link) Scan(ctx context.Context, op wrappers.Operation) iter.Seq2[wrappers.Item, error] {
	return func(yield func(wrappers.Item, error) bool) {
		own := op.Who == wrappers.Who{} // the wrapper itself wants to know what is there
		if err := l.allowed(&op); err != nil && !own {
			yield(wrappers.Item{}, err)
			return
		}
		set, access, who := l.set(), l.gen.Load().Access, l.peer(&op.Who)
		if own || l.info.Relay || l.info.Attached {
			access = nil
		}
		prefix := op.Address
		var unders []mapping.Under
		if l.info.Protocol.Syntax.Keys {
			prefix = op.Address[:strings.IndexByte(op.Address+"?", '?')] + "?"
			unders = set.Rows(l.name, op.Server, op.Address)
		} else {
			unders = set.Under(l.name, op.Server, op.Address)
		}
		if len(unders) == 0 && !set.Maps(l.name, wrappers.List, op.Server, prefix) {
			yield(wrappers.Item{}, wrappers.ErrUnmapped)
			return
		}
		shared := map[string]bool{} // addresses of several registers come once
		for _, u := range unders {
			may := func(register string) bool { return access.may(who, register, u.Bind, wrappers.ReadAccess) == nil }
			if !l.scan(ctx, set, &op, u, prefix, shared, may, yield) {
				return
			}
		}
	}
}

func (l *link) scan(ctx context.Context, set *mapping.Set, op *wrappers.Operation, u mapping.Under, prefix string, shared map[string]bool, may func(register string) bool, yield func(wrappers.Item, error) bool) bool {
	env := l.env(ctx)
	for st, err := range l.store.List(ctx, u.RegisterPrefix, "", 0) {
		if err != nil {
			yield(wrappers.Item{}, kind(err))
			return false
		}
		for _, p := range set.Places(l.name, st.Register) {
			if p.Bind != u.Bind || p.Server != op.Server || !below(&l.info.Protocol.Syntax, p.Address, prefix) || !carried(p.Bind, st) || !may(st.Register) {
				continue
			}
			item := wrappers.Item{Address: p.Address, Version: version(st), Modified: modified(st)}
			send := true
			if p.Bind.Shared() {
				if shared[p.Address] {
					continue
				}
				shared[p.Address] = true
				item.Payload, item.Version, send, err = l.shownAt(ctx, op.Server, p.Address)
			} else {
				item.Payload, send, err = l.shows(p, st, env)
			}
			if err != nil {
				l.Count("unshowable", 1)
				continue
			}
			if send && !yield(item, nil) {
				return false
			}
		}
	}
	return true
}
