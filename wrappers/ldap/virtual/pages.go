package virtual

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// Paged results (RFC 2696): the pages of a search are of one moment, that of the first.
type pages struct {
	mu    sync.Mutex
	next  int
	open  map[string]*rest
	order []string
}

// A rest is what a search has found and not yet sent.
type rest struct {
	list  []*record
	of    string // the search it is of
	total int
	sent  int64
}

// Bounds of searches between two pages: how many a session may have, the oldest is forgotten for one more; and how many entries
// those of all sessions may have to come.
const (
	mostPaged = 8
	mostHeld  = 4_000_000
)

// put keeps a rest; false: the server holds too many.
func (p *pages) put(s *server, r *rest) (cookie string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open = map[string]*rest{}
	}
	if len(p.order) >= mostPaged {
		p.drop(s, p.order[0])
	}
	if s.held.Add(int64(len(r.list))) > mostHeld {
		s.held.Add(-int64(len(r.list)))
		return "", false
	}
	p.next++
	cookie = itoa(p.next)
	p.open[cookie], p.order = r, append(p.order, cookie)
	return cookie, true
}

func (p *pages) take(s *server, cookie string) *rest {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drop(s, cookie)
}

func (p *pages) drop(s *server, cookie string) *rest {
	r := p.open[cookie]
	if r != nil {
		s.held.Add(-int64(len(r.list)))
		delete(p.open, cookie)
		p.order = slices.DeleteFunc(p.order, func(c string) bool { return c == cookie })
	}
	return r
}

// forget is for a session that ends.
func (p *pages) forget(s *server) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.order) > 0 {
		p.drop(s, p.order[0])
	}
}

func (x *query) page(ctx context.Context, m *ldapwire.Message, c *ldapwire.Control, order *sorting, controls []ldapwire.Control) *ldapwire.Message {
	size, cookie, err := ldapwire.DecodePaged(c.Value)
	if err != nil || size < 0 {
		return end(m, failed(ldapwire.ProtocolError, "the paged results control can't be read"))
	}
	of := strings.Join([]string{x.key, itoa(int(x.q.Scope)), filter.String(x.q.Filter), x.who.Principal}, "\x00")
	var r *rest
	if len(cookie) == 0 {
		r = &rest{of: of}
		if done := x.each(ctx, func(one *record) bool { r.list = append(r.list, one); return true }); done.ResultCode != ldapwire.Success {
			return end(m, done, controls...)
		}
		if r.total = len(r.list); order != nil {
			order.sort(x.se.s, r.list)
		}
	} else if r = x.se.pages.take(x.se.s, string(cookie)); r == nil || r.of != of {
		return end(m, failed(ldapwire.UnwillingToPerform, "the paged results cookie is of no search of this session"))
	}
	paged := func(cookie string) []ldapwire.Control {
		return append(controls, ldapwire.Control{Type: ldapwire.OIDPagedResults, Value: ldapwire.EncodePaged(int64(r.total), []byte(cookie))})
	}
	if size == 0 && len(cookie) > 0 { // given up (RFC 2696, section 3)
		return end(m, ldapwire.LDAPResult{}, paged("")...)
	}
	n := len(r.list)
	if size > 0 {
		n = int(min(int64(n), size))
	}
	x.sent = r.sent
	for _, one := range r.list[:n] {
		if stopped := x.show(one); stopped != nil {
			return end(m, *stopped, paged("")...)
		}
	}
	if r.list, r.sent = r.list[n:], x.sent; len(r.list) == 0 {
		return end(m, ldapwire.LDAPResult{}, paged("")...)
	}
	next, ok := x.se.pages.put(x.se.s, r)
	if !ok {
		return end(m, failed(ldapwire.AdminLimitExceeded, "too many searches are between two pages"), paged("")...)
	}
	return end(m, ldapwire.LDAPResult{}, paged(next)...)
}
