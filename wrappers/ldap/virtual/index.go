package virtual

import (
	"iter"

	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// An index finds entries by the values and by the presence of their attributes, of every attribute with an equality rule but
// octets. tree.mu guards it.
type index struct {
	s       *server
	attrs   map[*schema.AttributeType]*attrIndex
	members []*schema.AttributeType // whose values are names of members of a group
	uuid    *schema.AttributeType
	dn      *schema.AttributeType
	of      *schema.AttributeType // memberOf
	uuids   map[string]*node
}

// longestKey bounds what is indexed of a value; a search for a longer one looks at every entry that has the attribute.
const longestKey = 256

type attrIndex struct {
	byKey   map[string]posting
	present posting
}

// A posting is a set of entries; mostly of one.
type posting struct {
	one  *node
	many map[*node]struct{}
}

func (p *posting) add(n *node) {
	switch {
	case p.many != nil:
		p.many[n] = struct{}{}
	case p.one == nil || p.one == n:
		p.one = n
	default:
		p.many = map[*node]struct{}{p.one: {}, n: {}}
		p.one = nil
	}
}

func (p *posting) drop(n *node) {
	if p.many != nil {
		delete(p.many, n)
		return
	}
	if p.one == n {
		p.one = nil
	}
}

func (p posting) len() int {
	if p.many != nil {
		return len(p.many)
	}
	if p.one != nil {
		return 1
	}
	return 0
}

func (p posting) all() iter.Seq[*node] {
	return func(yield func(*node) bool) {
		if p.one != nil && !yield(p.one) {
			return
		}
		for n := range p.many {
			if !yield(n) {
				return
			}
		}
	}
}

func (x *index) init(s *server) {
	x.s, x.attrs, x.uuids = s, map[*schema.AttributeType]*attrIndex{}, map[string]*node{}
	d := schema.Default()
	x.members = []*schema.AttributeType{d.Attribute("member"), d.Attribute("uniqueMember")}
	x.uuid, x.dn, x.of = d.Attribute("entryUUID"), d.Attribute("entryDN"), d.Attribute("memberOf")
}

// indexed tells whether values of a type have a place in the index.
func indexed(t *schema.AttributeType) bool {
	r := t.EqualityRule()
	return r != nil && r.Name != "octetStringMatch" && !t.Operational()
}

// keysOf are a record's keys of one type; the options of an attribute make no difference here.
func (x *index) keysOf(r *record, visit func(t *schema.AttributeType, key string)) {
	for i := range r.attrs {
		a := &r.attrs[i]
		rule := a.typ.EqualityRule()
		if !indexed(a.typ) {
			continue
		}
		values := a.values
		if a.typ.OID == oidObjectClass && r.classes != nil {
			values = r.classes
		}
		for _, v := range values {
			if key, ok := rule.Key(x.s.types(), v); ok && len(key) <= longestKey {
				visit(a.typ, key)
			}
		}
	}
}

// replace takes one record out and another in; either may be nil.
func (x *index) replace(n *node, old, now *record) {
	type entry struct {
		t   *schema.AttributeType
		key string
	}
	stay := map[entry]bool{}
	if now != nil {
		x.keysOf(now, func(t *schema.AttributeType, key string) { stay[entry{t, key}] = true })
		for i := range now.attrs {
			x.at(now.attrs[i].typ).present.add(n)
		}
		x.uuids[string(now.uuid[:])] = n
	}
	if old != nil {
		x.keysOf(old, func(t *schema.AttributeType, key string) {
			e := entry{t, key}
			if stay[e] {
				delete(stay, e) // in and out at once
				return
			}
			if a := x.attrs[t]; a != nil {
				p := a.byKey[key]
				p.drop(n)
				if p.len() == 0 {
					delete(a.byKey, key)
				} else {
					a.byKey[key] = p
				}
			}
		})
		for i := range old.attrs {
			t := old.attrs[i].typ
			if now == nil || !now.hasType(t) {
				x.at(t).present.drop(n)
			}
		}
		if now == nil || now.uuid != old.uuid {
			delete(x.uuids, string(old.uuid[:]))
		}
	}
	for e := range stay {
		a := x.at(e.t)
		p := a.byKey[e.key]
		p.add(n)
		a.byKey[e.key] = p
	}
}

func (r *record) hasType(t *schema.AttributeType) bool {
	for i := range r.attrs {
		if r.attrs[i].typ == t {
			return true
		}
	}
	return false
}

func (x *index) at(t *schema.AttributeType) *attrIndex {
	a := x.attrs[t]
	if a == nil {
		a = &attrIndex{byKey: map[string]posting{}}
		x.attrs[t] = a
	}
	return a
}

// equal gives the entries that have a value with this key.
func (x *index) equal(t *schema.AttributeType, key string) posting {
	if a := x.attrs[t]; a != nil {
		return a.byKey[key]
	}
	return posting{}
}

// candidates gives the nodes that a filter can find; false: the index says nothing, and every entry is to be looked at. all is
// how many there are at most that are worth it.
func (t *tree) candidates(m *filter.Matcher) (nodes []*node, known bool) {
	sets, nothing := m.Needs()
	if nothing {
		return nil, true
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	best, bestSize := []posting(nil), len(t.byKey)/2
	for _, set := range sets {
		postings, size, ok := t.postings(set)
		if ok && size < bestSize {
			best, bestSize, known = postings, size, true
		}
	}
	if !known {
		return nil, false
	}
	seen := map[*node]bool{}
	for _, p := range best {
		for n := range p.all() {
			if len(best) > 1 {
				if seen[n] {
					continue
				}
				seen[n] = true
			}
			nodes = append(nodes, n)
		}
	}
	return nodes, true
}

// postings looks up what one of must be; false: the index can't tell.
func (t *tree) postings(set []filter.Need) (out []posting, size int, ok bool) {
	x := &t.index
	for _, need := range set {
		switch {
		case need.Type == x.uuid && !need.Present:
			if n := x.uuids[need.Key]; n != nil {
				out, size = append(out, posting{one: n}), size+1
			}
			continue
		case need.Type == x.dn && !need.Present:
			if n := t.byKey[need.Key]; n != nil {
				out, size = append(out, posting{one: n}), size+1
			}
			continue
		case need.Type == x.of && !need.Present:
			members := t.members(need.Key)
			out, size = append(out, members), size+members.len()
			continue
		case need.Type.Operational(), !need.Present && (!indexed(need.Type) || len(need.Key) > longestKey):
			return nil, 0, false
		}
		for typ, a := range x.attrs {
			if !typ.Is(need.Type) {
				continue
			}
			p := a.present
			if !need.Present {
				if typ.EqualityRule() != need.Type.EqualityRule() { // a subtype that compares otherwise
					p = a.present
				} else {
					p = a.byKey[need.Key]
				}
			}
			if n := p.len(); n > 0 {
				out, size = append(out, p), size+n
			}
		}
	}
	return out, size, true
}

// members are the entries that a group names.
func (t *tree) members(group string) posting {
	var p posting
	n := t.byKey[group]
	if n == nil {
		return p
	}
	r := n.rec.Load()
	for _, at := range t.index.members {
		for _, v := range r.attribute(at) {
			if key, ok := at.EqualityRule().Key(t.s.types(), v); ok {
				if m := t.byKey[key]; m != nil {
					p.add(m)
				}
			}
		}
	}
	return p
}
