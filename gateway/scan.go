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
		if err := l.allowed(&op); err != nil {
			yield(wrappers.Item{}, err)
			return
		}
		set, access, who := l.set(), l.gen.Load().Access, l.peer(&op.Who)
		if l.info.Relay || l.info.Attached {
			access = nil // the wrapper itself wants to know what is there
		}
		unders := set.Rows(l.name, op.Server, op.Address)
		if len(unders) == 0 && !set.Maps(l.name, wrappers.List, op.Server, op.Address[:strings.IndexByte(op.Address+"?", '?')]+"?") {
			yield(wrappers.Item{}, wrappers.ErrUnmapped)
			return
		}
		table := op.Address[:strings.IndexByte(op.Address+"?", '?')] + "?"
		shared := map[string]bool{} // addresses of several registers come once
		for _, u := range unders {
			may := func(register string) bool { return access.may(who, register, u.Bind, wrappers.ReadAccess) == nil }
			if !l.scan(ctx, set, &op, u, table, shared, may, yield) {
				return
			}
		}
	}
}

func (l *link) scan(ctx context.Context, set *mapping.Set, op *wrappers.Operation, u mapping.Under, table string, shared map[string]bool, may func(register string) bool, yield func(wrappers.Item, error) bool) bool {
	env := l.env(ctx)
	for st, err := range l.store.List(ctx, u.RegisterPrefix, "", 0) {
		if err != nil {
			yield(wrappers.Item{}, kind(err))
			return false
		}
		for _, p := range set.Places(l.name, st.Register) {
			if p.Bind != u.Bind || p.Server != op.Server || !strings.HasPrefix(p.Address, table) || !carried(p.Bind, st) || !may(st.Register) {
				continue
			}
			item := wrappers.Item{Address: p.Address, Version: version(st)}
			send := true
			if p.Bind.Shared() {
				if shared[p.Address] {
					continue
				}
				shared[p.Address] = true
				item.Payload, item.Version, send, err = l.shownAt(ctx, op.Server, p.Address)
			} else {
				item.Payload, send, err = p.Bind.Out(p, st, nil, env)
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
