package virtual

import (
	"context"
	"strconv"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// covers tells whether a record is what the search is for: its scope, its filter, and what its client may see.
func (x *query) covers(r *record) bool {
	if r == nil {
		return false
	}
	base := x.key
	in := false
	switch x.q.Scope {
	case ldapwire.ScopeBaseObject:
		in = r.key == base
	case ldapwire.ScopeSingleLevel:
		in = schema.Below(r.key, base) == 1
	case ldapwire.ScopeWholeSubtree:
		in = schema.Below(r.key, base) >= 0
	case ldapwire.ScopeSubordinate:
		in = schema.Below(r.key, base) > 0
	}
	return in && x.matcher.Match(view{r, x.se.s}) == filter.True && x.se.s.may(r, &x.who)
}

// listed is everything that the search finds now.
func (x *query) listed(ctx context.Context) (list []*record, r ldapwire.LDAPResult) {
	if x.q.Scope == ldapwire.ScopeBaseObject {
		if x.covers(x.base) {
			list = append(list, x.base)
		}
		return list, r
	}
	r = x.each(ctx, func(one *record) bool { list = append(list, one); return true })
	return list, r
}

// Cookies name the run of the server and a change in it.
func (s *server) cookie(seq uint64) []byte { return []byte(s.boot + "," + strconv.FormatUint(seq, 10)) }

func (s *server) cookieSeq(cookie []byte) (uint64, bool) {
	boot, n, ok := strings.Cut(string(cookie), ",")
	seq, err := strconv.ParseUint(n, 10, 64)
	return seq, ok && err == nil && boot == s.boot
}

// synchronize is the provider of content synchronization (RFC 4533). With a cookie of this run it tells what changed since,
// with any other one, and without, everything that there is (the present phase).
func (se *session) synchronize(ctx context.Context, m *ldapwire.Message, q *ldapwire.SearchRequest, c *ldapwire.Control, who wrappers.Who) *ldapwire.Message {
	s := se.s
	req, err := ldapwire.DecodeSyncRequest(c.Value)
	if err != nil || req.Mode != ldapwire.RefreshOnly && req.Mode != ldapwire.RefreshAndPersist {
		return end(m, failed(ldapwire.ProtocolError, "the sync request control can't be read"))
	}
	sub, seq := s.tree.subscribe()
	defer s.tree.unsubscribe(sub)
	x, err := se.prepare(ctx, m, q, who)
	if err != nil {
		return end(m, s.refused(err))
	}
	if x.special || x.base.node == nil || len(x.name) == 0 {
		return end(m, failed(ldapwire.UnwillingToPerform, "content synchronization is of entries below %s", s.base))
	}
	since, incremental := s.cookieSeq(req.Cookie)
	var changed [][16]byte
	if incremental {
		s.tree.mu.RLock()
		changed, incremental = s.tree.log.since(since)
		s.tree.mu.RUnlock()
	}
	if incremental {
		err = x.syncSince(changed)
	} else {
		var list []*record
		var r ldapwire.LDAPResult
		if list, r = x.listed(ctx); r.ResultCode != ldapwire.Success {
			return end(m, r)
		}
		for _, one := range list {
			if err = x.syncEntry(one, ldapwire.SyncAdd, nil); err != nil {
				break
			}
		}
	}
	if err != nil {
		return nil
	}
	if req.Mode == ldapwire.RefreshOnly {
		done := ldapwire.SyncDone{Cookie: s.cookie(seq), RefreshDeletes: incremental}
		return end(m, ldapwire.LDAPResult{}, ldapwire.Control{Type: ldapwire.OIDSyncDone, Value: done.Encode()})
	}
	info := ldapwire.SyncInfo{Kind: ldapwire.SyncRefreshPresent, Cookie: s.cookie(seq), RefreshDone: true}
	if incremental {
		info.Kind = ldapwire.SyncRefreshDelete
	}
	if se.syncInfo(m.MessageID, &info) != nil {
		return nil
	}
	return x.follow(ctx, m, sub, seq, func(e event) error {
		was, is := x.covers(e.old), x.covers(e.now)
		switch {
		case is && was:
			return x.syncEntry(e.now, ldapwire.SyncModify, s.cookie(e.seq))
		case is:
			return x.syncEntry(e.now, ldapwire.SyncAdd, s.cookie(e.seq))
		case was:
			return x.syncEntry(e.old, ldapwire.SyncDelete, s.cookie(e.seq))
		}
		return nil
	})
}

// syncSince tells what became of the entries that changed.
func (x *query) syncSince(changed [][16]byte) error {
	s := x.se.s
	var gone [][16]byte
	for _, u := range changed {
		s.tree.mu.RLock()
		n := s.tree.index.uuids[string(u[:])]
		s.tree.mu.RUnlock()
		if n != nil {
			if r := n.rec.Load(); x.covers(r) {
				if err := x.syncEntry(r, ldapwire.SyncModify, nil); err != nil {
					return err
				}
				continue
			}
		}
		gone = append(gone, u)
	}
	const most = 1000 // in one message
	for len(gone) > 0 {
		n := min(len(gone), most)
		if err := x.se.syncInfo(x.id, &ldapwire.SyncInfo{Kind: ldapwire.SyncIDSet, RefreshDeletes: true, SyncUUIDs: gone[:n]}); err != nil {
			return err
		}
		gone = gone[n:]
	}
	return nil
}

func (x *query) syncEntry(r *record, state ldapwire.SyncStateKind, cookie []byte) error {
	e := &ldapwire.SearchResultEntry{ObjectName: r.text}
	if state != ldapwire.SyncDelete {
		e = x.sel.entry(x.se.s, r, false)
	}
	control := ldapwire.SyncState{State: state, EntryUUID: r.uuid, Cookie: cookie}
	m := ldapwire.Message{MessageID: x.id, Body: e, Controls: []ldapwire.Control{{Type: ldapwire.OIDSyncState, Value: control.Encode()}}}
	return x.se.write(m.Encode(), cookie != nil)
}

func (se *session) syncInfo(id int32, info *ldapwire.SyncInfo) error {
	return se.send(&ldapwire.Message{MessageID: id, Body: &ldapwire.IntermediateResponse{Name: ldapwire.OIDSyncInfo, Value: info.Encode()}})
}

// follow tells of every event behind seq until the search ends.
func (x *query) follow(ctx context.Context, m *ldapwire.Message, sub *subscription, seq uint64, tell func(event) error) *ldapwire.Message {
	for {
		select {
		case <-sub.signal:
		case <-ctx.Done():
			return end(m, failed(ldapwire.Unavailable, "the server is being stopped"))
		}
		events, lost := sub.take()
		for _, e := range events {
			if e.seq <= seq {
				continue
			}
			if err := tell(e); err != nil {
				return nil
			}
		}
		if lost {
			x.se.s.link.Count("slow_listeners", 1)
			return end(m, failed(ldapwire.ESyncRefreshRequired, "changes were lost: this client is too slow"))
		}
	}
}

// persist is a persistent search (draft-ietf-ldapext-psearch-03).
func (se *session) persist(ctx context.Context, m *ldapwire.Message, q *ldapwire.SearchRequest, c *ldapwire.Control, who wrappers.Who) *ldapwire.Message {
	s := se.s
	p, err := ldapwire.DecodePersistentSearch(c.Value)
	if err != nil {
		return end(m, failed(ldapwire.ProtocolError, "the persistent search control can't be read"))
	}
	sub, seq := s.tree.subscribe()
	defer s.tree.unsubscribe(sub)
	x, err := se.prepare(ctx, m, q, who)
	if err != nil {
		return end(m, s.refused(err))
	}
	if x.special || len(x.name) == 0 {
		return end(m, failed(ldapwire.UnwillingToPerform, "a persistent search is of entries below %s", s.base))
	}
	if !p.ChangesOnly {
		list, r := x.listed(ctx)
		if r.ResultCode != ldapwire.Success {
			return end(m, r)
		}
		for _, one := range list {
			if x.show(one) != nil {
				return nil
			}
		}
		if se.write(nil, true) != nil {
			return nil
		}
	}
	return x.follow(ctx, m, sub, seq, func(e event) error {
		was, is := x.covers(e.old), x.covers(e.now)
		kind, r := int64(0), e.now
		switch {
		case is && was:
			kind = ldapwire.ChangeModify
		case is:
			kind = ldapwire.ChangeAdd
		case was:
			kind, r = ldapwire.ChangeDelete, e.old
		}
		if kind == 0 || p.ChangeTypes&kind == 0 {
			return nil
		}
		out := ldapwire.Message{MessageID: x.id, Body: x.sel.entry(s, r, false)}
		if p.ReturnECs {
			out.Controls = []ldapwire.Control{{Type: ldapwire.OIDEntryChange, Value: ldapwire.EncodeEntryChange(kind, "")}}
		}
		return se.write(out.Encode(), true)
	})
}
