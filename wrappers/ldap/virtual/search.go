package virtual

import (
	"context"
	"errors"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// A query is a search made ready.
type query struct {
	se      *session
	id      int32
	q       *ldapwire.SearchRequest
	name    dn.DN
	key     string // of the base
	base    *record
	special bool // the base is outside of the naming context
	matcher *filter.Matcher
	sel     *selection
	who     wrappers.Who
	until   time.Time // zero: no limit
	sent    int64
}

// searchRequest answers a search (RFC 4511, section 4.5), of one entry at once, of several beside the session.
func (se *session) searchRequest(m *ldapwire.Message, q *ldapwire.SearchRequest) error {
	sync, persistent := control(m, ldapwire.OIDSyncRequest), control(m, ldapwire.OIDPersistent)
	if q.Scope == ldapwire.ScopeBaseObject && sync == nil && persistent == nil {
		return se.write(se.search(se.ctx, m, q).Encode(), !se.more())
	}
	who := se.who
	return se.beside(m, ldapwire.OpSearchRequest, func(ctx context.Context, _ *operation) *ldapwire.Message {
		switch {
		case sync != nil:
			return se.synchronize(ctx, m, q, sync, who)
		case persistent != nil:
			return se.persist(ctx, m, q, persistent, who)
		}
		return se.searchAs(ctx, m, q, who)
	})
}

func (se *session) search(ctx context.Context, m *ldapwire.Message, q *ldapwire.SearchRequest) *ldapwire.Message {
	return se.searchAs(ctx, m, q, se.who)
}

// end is the SearchResultDone of a search.
func end(m *ldapwire.Message, r ldapwire.LDAPResult, controls ...ldapwire.Control) *ldapwire.Message {
	return &ldapwire.Message{MessageID: m.MessageID, Body: &ldapwire.SearchResultDone{LDAPResult: r}, Controls: controls}
}

// prepare makes a search ready: its base is there.
func (se *session) prepare(ctx context.Context, m *ldapwire.Message, q *ldapwire.SearchRequest, who wrappers.Who) (*query, error) {
	s := se.s
	x := &query{se: se, id: m.MessageID, q: q, who: who}
	if q.TimeLimit > 0 {
		x.until = time.Now().Add(time.Duration(min(q.TimeLimit, 1<<31)) * time.Second)
	}
	var err error
	if x.name, err = dn.Parse(q.BaseObject); err != nil {
		return nil, fail(ldapwire.InvalidDNSyntax, "%v", err)
	}
	if q.Scope < ldapwire.ScopeBaseObject || q.Scope > ldapwire.ScopeSubordinate || q.SizeLimit < 0 || q.TimeLimit < 0 {
		return nil, fail(ldapwire.ProtocolError, "a scope or a limit that is none")
	}
	x.matcher = filter.Compile(s.types(), q.Filter)
	x.sel = s.selection(q.Attributes, q.TypesOnly)
	if q.Scope == ldapwire.ScopeBaseObject {
		if x.base = se.special(x.name); x.base != nil {
			x.special = true
			return x, nil
		}
	} else if len(x.name) == 0 {
		x.name = s.base // what is below the root is the naming context
		if q.Scope == ldapwire.ScopeSingleLevel {
			x.name, x.base = nil, &record{node: &node{}}
		}
	}
	if !who.Verified && s.cfg.Anonymous < wrappers.ReadAccess {
		return nil, fail(ldapwire.InsufficientAccessRights, "log on first")
	}
	x.key = s.types().NormalDN(x.name)
	if x.base == nil {
		if x.base, err = se.current(ctx, x.name, x.key, &who); err != nil {
			return nil, err
		}
	}
	if c := control(m, ldapwire.OIDAssertion); c != nil {
		if err := se.assert(c, x.base); err != nil {
			return nil, err
		}
	}
	return x, nil
}

// assert holds an entry against an assertion control (RFC 4528).
func (se *session) assert(c *ldapwire.Control, r *record) error {
	f, err := ldapwire.DecodeFilter(c.Value)
	if err != nil {
		return fail(ldapwire.ProtocolError, "the assertion control: %v", err)
	}
	if filter.Compile(se.s.types(), f).Match(view{r, se.s}) != filter.True {
		return fail(ldapwire.AssertionFailed, "the entry is not as asserted: %s", filter.String(f))
	}
	return nil
}

// current gives an entry as the registers have it now.
func (se *session) current(ctx context.Context, name dn.DN, key string, who *wrappers.Who) (*record, error) {
	s := se.s
	r := s.tree.get(key)
	address, below := name.Address(s.base)
	if !below {
		if r == nil {
			return nil, s.noSuch(name)
		}
		return r, nil
	}
	if r != nil && r.address != "" {
		address = r.address
	}
	got, err := s.link.Do(ctx, wrappers.Operation{Verb: wrappers.Read, Address: address, Who: *who})
	switch {
	case errors.Is(err, wrappers.ErrNotFound), errors.Is(err, wrappers.ErrUnmapped):
		if r != nil && r.address == "" {
			return r, nil
		}
		if kids, any := s.tree.descendants(key); any && len(kids) > 0 && r != nil { // it went this moment
			return r.without(s), nil
		}
		return nil, s.noSuch(name)
	case err != nil:
		return nil, err
	case r != nil && r.address != "" && r.version == got.Version && got.Version != "":
		return r, nil
	}
	now, ok := s.recordOf(address, got.Payload, got.Version, got.Modified)
	if !ok {
		return nil, fail(ldapwire.Other, "the register can't be shown as an entry")
	}
	now.node = &node{}
	if r != nil {
		now.node, now.uuid = r.node, r.uuid
		if r.address != "" {
			now.created = r.created
		}
	}
	return now, nil
}

// without is an entry that lost its register while others stand below it.
func (r *record) without(s *server) *record {
	g := s.tree.glue(r.name, r.key, r.node)
	g.seq = r.seq
	return g
}

func (s *server) noSuch(name dn.DN) error {
	return &result{ldapwire.LDAPResult{ResultCode: ldapwire.NoSuchObject, MatchedDN: s.tree.matched(name)}}
}

// searchAs does a search and gives the message that ends its answer.
func (se *session) searchAs(ctx context.Context, m *ldapwire.Message, q *ldapwire.SearchRequest, who wrappers.Who) *ldapwire.Message {
	x, err := se.prepare(ctx, m, q, who)
	if err != nil {
		return end(m, se.s.refused(err))
	}
	if q.Scope == ldapwire.ScopeBaseObject {
		return end(m, x.one())
	}
	var order *sorting
	var controls []ldapwire.Control
	if c := control(m, ldapwire.OIDServerSort); c != nil {
		var code ldapwire.ResultCode
		var attribute string
		if order, code, attribute, err = se.s.sorting(c.Value); err != nil {
			return end(m, failed(ldapwire.ProtocolError, "the sort control: %v", err))
		}
		controls = append(controls, ldapwire.Control{Type: ldapwire.OIDSortResponse, Value: ldapwire.EncodeSortResult(code, attribute)})
		if code != ldapwire.Success && c.Criticality {
			return end(m, failed(ldapwire.UnavailableCriticalExtension, "the entries can't be sorted by %s", attribute), controls...)
		}
	}
	if c := control(m, ldapwire.OIDPagedResults); c != nil {
		return x.page(ctx, m, c, order, controls)
	}
	return end(m, x.all(ctx, order), controls...)
}

// one answers a search of the base itself.
func (x *query) one() ldapwire.LDAPResult {
	v := view{x.base, x.se.s}
	match := filter.Undefined
	if x.special {
		match = x.matcher.Match(specialView{v})
	} else {
		match = x.matcher.Match(v)
	}
	if match != filter.True {
		return ldapwire.LDAPResult{}
	}
	m := ldapwire.Message{MessageID: x.id, Body: x.sel.entry(x.se.s, x.base, x.special)}
	if err := x.se.write(m.Encode(), false); err != nil {
		return failed(ldapwire.Other, "%v", err)
	}
	return ldapwire.LDAPResult{}
}

// each calls yield with what the search finds, in the order in which entries came, until it returns false.
func (x *query) each(ctx context.Context, yield func(r *record) bool) ldapwire.LDAPResult {
	s := x.se.s
	nodes, known := s.tree.candidates(x.matcher)
	list := s.tree.below(x.base.node, x.q.Scope, nodes, known)
	if len(x.name) == 0 && x.q.Scope == ldapwire.ScopeSingleLevel {
		list = []*record{s.tree.root.rec.Load()}
	}
	if !known {
		s.link.Count("searches_without_index", 1)
	}
	for i, r := range list {
		if i&0xff == 0xff {
			if ctx.Err() != nil {
				return failed(ldapwire.Canceled, "abandoned")
			}
			if !x.until.IsZero() && time.Now().After(x.until) {
				return ldapwire.LDAPResult{ResultCode: ldapwire.TimeLimitExceeded}
			}
		}
		if x.matcher.Match(view{r, s}) == filter.True && s.may(r, &x.who) && !yield(r) {
			break
		}
	}
	return ldapwire.LDAPResult{}
}

// all answers with everything that is found.
func (x *query) all(ctx context.Context, order *sorting) ldapwire.LDAPResult {
	if order == nil {
		var stopped *ldapwire.LDAPResult
		r := x.each(ctx, func(r *record) bool {
			stopped = x.show(r)
			return stopped == nil
		})
		if stopped != nil {
			return *stopped
		}
		return r
	}
	var found []*record
	r := x.each(ctx, func(r *record) bool { found = append(found, r); return true })
	if r.ResultCode != ldapwire.Success {
		return r
	}
	order.sort(x.se.s, found)
	for _, one := range found {
		if stopped := x.show(one); stopped != nil {
			return *stopped
		}
	}
	return r
}

// show sends one entry; not nil: the search ends with that.
func (x *query) show(r *record) *ldapwire.LDAPResult {
	if x.q.SizeLimit > 0 && x.sent >= x.q.SizeLimit {
		return &ldapwire.LDAPResult{ResultCode: ldapwire.SizeLimitExceeded}
	}
	x.sent++
	m := ldapwire.Message{MessageID: x.id, Body: x.sel.entry(x.se.s, r, false)}
	if err := x.se.write(m.Encode(), false); err != nil {
		f := failed(ldapwire.Other, "%v", err)
		return &f
	}
	return nil
}

// compare answers a compare (RFC 4511, section 4.10).
func (se *session) compare(q *ldapwire.CompareRequest, controls []ldapwire.Control) (ldapwire.LDAPResult, error) {
	m := &ldapwire.Message{Body: &ldapwire.CompareRequest{}, Controls: controls}
	base := &ldapwire.SearchRequest{BaseObject: q.Entry, Filter: &ldapwire.Filter{Kind: ldapwire.FilterEqualityMatch, Attribute: q.Attribute, Value: q.Assertion}}
	x, err := se.prepare(se.ctx, m, base, se.who)
	if err != nil {
		return ldapwire.LDAPResult{}, err
	}
	name, options := schema.SplitOptions(q.Attribute)
	t := se.s.types().Attribute(name)
	if t == nil {
		return ldapwire.LDAPResult{}, fail(ldapwire.UndefinedAttributeType, "%s: attribute type undefined", q.Attribute)
	}
	var e filter.Entry = view{x.base, se.s}
	if x.special {
		e = specialView{view{x.base, se.s}}
	}
	there := false
	e.Each(t, options, func(*schema.AttributeType, [][]byte) bool { there = true; return false })
	if !there {
		return ldapwire.LDAPResult{}, fail(ldapwire.NoSuchAttribute, "the entry has no %s", q.Attribute)
	}
	switch x.matcher.Match(e) {
	case filter.True:
		return ldapwire.LDAPResult{ResultCode: ldapwire.CompareTrue}, nil
	case filter.False:
		return ldapwire.LDAPResult{ResultCode: ldapwire.CompareFalse}, nil
	}
	if t.EqualityRule() == nil {
		return ldapwire.LDAPResult{}, fail(ldapwire.InappropriateMatching, "%s has no equality rule", q.Attribute)
	}
	return ldapwire.LDAPResult{}, fail(ldapwire.InvalidAttributeSyntax, "the value is none of %s", q.Attribute)
}
