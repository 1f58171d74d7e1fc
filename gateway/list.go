package gateway

import (
	"context"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// mostItems is how many items one List gives.
const mostItems = 1000

// below tells whether an address stands below a prefix.
func below(s *wrappers.Syntax, address, prefix string) bool {
	if !s.Upward || prefix == "" {
		return strings.HasPrefix(address, prefix)
	}
	rest := len(address) - len(prefix)
	if rest < 0 || !strings.HasPrefix(address[rest:], s.Separator) {
		return false
	}
	tail, parent := address[rest+len(s.Separator):], strings.TrimSuffix(prefix, s.Separator)
	return tail == parent || s.Fold && strings.EqualFold(tail, parent)
}

// list gives what stands directly below a prefix: registers, and prefixes with more below them.
func (l *link) list(ctx context.Context, op *wrappers.Operation) (wrappers.Result, error) {
	set, access, who := l.set(), l.gen.Load().Access, l.peer(&op.Who)
	if l.info.Relay || l.info.Attached {
		access = nil // the wrapper itself wants to know where to look
	}
	limit := op.Limit
	if limit <= 0 || limit > mostItems {
		limit = mostItems
	}
	syntax := &l.info.Protocol.Syntax
	separator := syntax.Separator
	unders := set.Under(l.name, op.Server, op.Address)
	if len(unders) == 0 {
		return wrappers.Result{}, wrappers.ErrUnmapped
	}
	here, err := l.store.Cursor(ctx)
	if err != nil {
		return wrappers.Result{}, kind(err)
	}
	// The order of registers is not that of addresses, so the first `limit` addresses are
	// selected from all of them; more than twice as many are never held.
	var items []wrappers.Item
	trim := func() {
		slices.SortFunc(items, func(a, b wrappers.Item) int { return strings.Compare(a.Address, b.Address) })
		items = slices.CompactFunc(items, func(a, b wrappers.Item) bool { return a.Address == b.Address })
		if len(items) > limit+1 {
			items = items[:limit+1]
		}
	}
	for _, u := range unders {
		for st, err := range l.store.List(ctx, u.RegisterPrefix, "", 0) {
			if err != nil {
				return wrappers.Result{}, kind(err)
			}
			for _, p := range set.Places(l.name, st.Register) {
				if p.Bind != u.Bind || p.Server != op.Server || !below(syntax, p.Address, op.Address) || !carried(p.Bind, st) {
					continue
				}
				item := wrappers.Item{Address: p.Address, Version: version(st)}
				if p.Bind.Rows() || p.Bind.Shared() {
					item.Version = "" // it is that of all rows together
				}
				// Behind the '?' of a table's rows a separator is a part of a value.
				if syntax.Upward {
					if i := strings.LastIndex(strings.TrimSuffix(p.Address[:len(p.Address)-max(len(op.Address)-len(separator), 0)], separator), separator); i >= 0 {
						item = wrappers.Item{Address: p.Address[i+len(separator):] + separator, Prefix: true}
					}
				} else if i := strings.Index(p.Address[len(op.Address):], separator); !strings.HasSuffix(op.Address, "?") && (i > 0 || i == 0 && op.Address != "") {
					item = wrappers.Item{Address: p.Address[:len(op.Address)+i+len(separator)], Prefix: true}
				}
				if item.Address <= op.After || access.may(who, st.Register, p.Bind, wrappers.ReadAccess) != nil {
					continue
				}
				items = append(items, item)
			}
			if len(items) > 2*limit {
				trim()
			}
		}
	}
	trim()
	r := wrappers.Result{Items: items, Cursor: wrappers.Cursor(here.String())}
	if len(items) > limit {
		r.Items, r.More = items[:limit], true
	}
	return r, nil
}
