package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// errStartOver: the server can't go on from the cookie.
var errStartOver = errors.New("the server can't go on from the cookie it gave")

// errNoSyncrepl: the server has no content synchronization where we search.
var errNoSyncrepl = errors.New("the server has no content synchronization there")

// A syncFeed hears what changes by refreshAndPersist (RFC 4533, section 3.4): first what has changed since the cookie, or
// everything, then each change as it is made.
type syncFeed struct {
	f       *feed
	s       *session
	cookie  []byte          // where it began
	whole   bool            // everything is listed
	present map[string]bool // those that are there, as far as the refresh has come
	persist bool            // the refresh is over
}

// runSyncrepl works until the connection ends or ctx does.
func (f *feed) runSyncrepl(ctx context.Context, s *session) error {
	cookie, err := f.resume(ctx, "syncrepl "+f.a.opts.base.Key())
	if err != nil {
		return err
	}
	for {
		y := &syncFeed{f: f, s: s, cookie: cookie, whole: cookie == nil, present: map[string]bool{}}
		err := y.run(ctx)
		if !errors.Is(err, errStartOver) || y.cookie == nil {
			return err
		}
		f.a.link.Count("cookie_lost", 1)
		f.a.log().Error("the server can't go on where the gateway stopped: everything is listed again", "err", err)
		if err := f.forget(ctx); err != nil {
			return err
		}
		cookie = nil
	}
}

func (y *syncFeed) run(ctx context.Context) error {
	f := y.f
	q := &ldapwire.SearchRequest{BaseObject: f.a.opts.base.String(), Scope: ldapwire.ScopeWholeSubtree, Filter: anything, Attributes: f.attributes()}
	// A server that can't go on from the cookie is to say so, since a listing of everything is held against the records.
	value := (&ldapwire.SyncRequest{Mode: ldapwire.RefreshAndPersist, Cookie: y.cookie}).Encode()
	x, err := y.s.ask(q, ldapwire.Control{Type: ldapwire.OIDSyncRequest, Criticality: true, Value: value})
	if err != nil {
		return err
	}
	defer y.s.leave(x)
	for {
		var m *ldapwire.Message
		select {
		case m = <-x.answers:
		default:
			// Nothing more has come: what did becomes durable.
			if err := f.flush(ctx); err != nil {
				return err
			}
			y.reached()
			if m, err = y.s.answer(ctx, x); err != nil {
				return err
			}
		}
		if err := y.take(ctx, m); err != nil {
			return err
		}
		if len(f.batch) == 0 {
			y.reached()
		}
	}
}

// reached tells how far the feed has come: what came is durable.
func (y *syncFeed) reached() {
	if y.persist {
		y.f.a.pass(y.f.reached)
	}
}

// take reads one answer.
func (y *syncFeed) take(ctx context.Context, m *ldapwire.Message) error {
	switch b := m.Body.(type) {
	case *ldapwire.SearchResultEntry:
		c := ldapwire.FindControl(m.Controls, ldapwire.OIDSyncState)
		if c == nil {
			return errors.New("an entry came without its state: the server is no provider of RFC 4533")
		}
		s, err := ldapwire.DecodeSyncState(c.Value)
		if err != nil {
			return err
		}
		return y.entry(ctx, &s, b)
	case *ldapwire.IntermediateResponse:
		if b.Name != ldapwire.OIDSyncInfo {
			return nil
		}
		i, err := ldapwire.DecodeSyncInfo(b.Value)
		if err != nil {
			return err
		}
		return y.info(ctx, &i)
	case *ldapwire.SearchResultDone:
		return y.done(ctx, m)
	}
	return nil // a reference: a part of the tree that another server has
}

func (y *syncFeed) entry(ctx context.Context, s *ldapwire.SyncState, e *ldapwire.SearchResultEntry) error {
	uuid := string(s.EntryUUID[:])
	ev := event{uuid: uuid, cookie: y.news(s.Cookie)}
	switch s.State {
	case ldapwire.SyncPresent:
		y.present[uuid] = true
		return nil
	case ldapwire.SyncDelete:
		ev.gone = true
	default:
		if !y.persist {
			y.present[uuid] = true
		}
		ev.entry, ev.csn, ev.listed = e, y.f.version(e), y.whole
	}
	return y.f.add(ctx, ev)
}

// news is the cookie that is stored with what it came with. During the refresh there is none: entries come in no order.
func (y *syncFeed) news(cookie []byte) []byte {
	if !y.persist {
		return nil
	}
	y.f.reach(cookie)
	return cookie
}

func (y *syncFeed) info(ctx context.Context, i *ldapwire.SyncInfo) error {
	switch i.Kind {
	case ldapwire.SyncNewCookie:
		y.f.keepCookie(y.news(i.Cookie))
		return nil
	case ldapwire.SyncIDSet:
		for _, id := range i.SyncUUIDs {
			if !i.RefreshDeletes {
				y.present[string(id[:])] = true
			} else if err := y.f.add(ctx, event{uuid: string(id[:]), gone: true, listed: y.whole}); err != nil {
				return err
			}
		}
		y.f.keepCookie(y.news(i.Cookie))
		return nil
	}
	// The end of a phase. After a present phase whoever was not mentioned has gone (RFC 4533, section 3.3.1), and so it is after
	// everything was listed, which OpenLDAP ends as a delete phase.
	if y.persist {
		return nil
	}
	if i.Kind == ldapwire.SyncRefreshPresent || y.whole && i.RefreshDone {
		if err := y.f.vanished(ctx, y.present, y.whole); err != nil {
			return err
		}
	}
	if !i.RefreshDone {
		return nil
	}
	return y.refreshed(ctx, i.Cookie)
}

// refreshed ends the refresh: what comes now is news, in the server's order.
func (y *syncFeed) refreshed(ctx context.Context, cookie []byte) error {
	if err := y.f.listed(ctx, cookie); err != nil {
		return err
	}
	y.persist, y.whole, y.present = true, false, nil
	y.f.reach(cookie)
	y.f.reach(y.cookie)
	y.f.a.pass(y.f.reached)
	y.f.a.stands("syncrepl")
	return nil
}

// done: a search that persists ends only because something is wrong.
func (y *syncFeed) done(ctx context.Context, m *ldapwire.Message) error {
	if err := y.f.flush(ctx); err != nil {
		return err
	}
	err := resultError(m)
	switch code := codeOf(err); {
	case err == nil:
		return errors.New("the server ended the feed")
	case code == ldapwire.ESyncRefreshRequired:
		return fmt.Errorf("%w: %w", errStartOver, err)
	case y.persist:
		return err
	case code == ldapwire.UnwillingToPerform || code == ldapwire.ProtocolError || code == ldapwire.Other:
		return fmt.Errorf("%w: %w", errStartOver, err) // it has less than the cookie says, or did not give it
	case code == ldapwire.UnavailableCriticalExtension:
		return fmt.Errorf("%w: %w", errNoSyncrepl, err)
	case code == ldapwire.NoSuchObject:
		return fmt.Errorf("there is no entry %q, which base names: %w", y.f.a.opts.base.String(), err)
	}
	return y.f.a.limited(err)
}

// csnsOf reads the versions out of a cookie of OpenLDAP, "rid=000,csn=…;…", by the server that gave them. Other servers'
// cookies tell nothing.
func csnsOf(cookie []byte) map[string]string {
	out := map[string]string{}
	for part := range strings.SplitSeq(string(cookie), ",") {
		list, ok := strings.CutPrefix(part, "csn=")
		if !ok {
			continue
		}
		for csn := range strings.SplitSeq(list, ";") {
			if id, ok := serverOf(csn); ok {
				out[id] = max(out[id], csn)
			}
		}
	}
	return out
}

// serverOf gives the id of the server that made a version: its third part (draft-chu-ldap-csn, section 2).
func serverOf(csn string) (string, bool) {
	parts := strings.Split(csn, "#")
	if len(parts) != 4 {
		return "", false
	}
	return parts[2], true
}

// reach notes how far the feed has come.
func (f *feed) reach(cookie []byte) {
	for id, csn := range csnsOf(cookie) {
		if f.reached == nil {
			f.reached = map[string]string{}
		}
		f.reached[id] = max(f.reached[id], csn)
	}
}
