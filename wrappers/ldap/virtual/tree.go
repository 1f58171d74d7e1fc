package virtual

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A tree holds every entry in memory, as the registers had them a moment ago, with an index of their values, so that a search
// is no scan of the registers. follow.go keeps it up to date.
type tree struct {
	s     *server
	mu    sync.RWMutex
	byKey map[string]*node // by the normal form of the name
	root  *node            // the naming context
	index index
	fixed map[string]bool // keys of entries that are there even with nothing below them
	ids   uint64
	log   changeLog
	subs  map[*subscription]struct{}
	moved map[string][16]byte // entryUUIDs of entries that were renamed, by key
}

// A node is an entry's place.
type node struct {
	rec      atomic.Pointer[record]
	parent   *node // nil at the naming context
	children map[string]*node
	rdn      string // its key among the parent's children
	id       uint64 // in the order in which they came, an entry behind the one above it
	kids     atomic.Int32
}

func newTree(s *server) *tree {
	t := &tree{s: s, byKey: map[string]*node{}, fixed: map[string]bool{}, subs: map[*subscription]struct{}{}, moved: map[string][16]byte{}}
	t.index.init(s)
	t.log.init()
	key := s.types().NormalDN(s.base)
	t.root = t.place(s.base, key, nil, nil)
	t.fixed[key] = true
	return t
}

// place makes a node with an entry, which is r, or one of no register. mu is held, or the tree is new.
func (t *tree) place(name dn.DN, key string, parent *node, r *record) *node {
	t.ids++
	n := &node{parent: parent, id: t.ids}
	t.byKey[key] = n
	if parent != nil {
		n.rdn = t.s.types().NormalRDN(name[0])
		if parent.children == nil {
			parent.children = map[string]*node{}
		}
		parent.children[n.rdn] = n
		parent.kids.Add(1)
	}
	if r == nil {
		r = t.glue(name, key, n)
	}
	r.node = n
	t.set(n, r)
	return n
}

// glue is an entry that is there because something is below it.
func (t *tree) glue(name dn.DN, key string, n *node) *record {
	attrs := []attribute{}
	a, _ := t.s.attributeOf("objectClass", classesFor(name, false))
	attrs = append(attrs, a)
	for _, ava := range name[0] {
		attrs = t.s.withValue(attrs, ava)
	}
	return t.s.expand(&record{name: name, text: name.String(), key: key, attrs: attrs, uuid: uuidOf(key), modified: t.s.started, created: t.s.started, node: n})
}

// set makes a record the node's, and tells who listens.
func (t *tree) set(n *node, r *record) {
	old := n.rec.Load()
	if old != nil && old.key == r.key {
		if r.address != "" && old.address != "" {
			r.created = old.created
		}
	}
	r.seq = t.log.next(r.uuid)
	n.rec.Store(r)
	t.index.replace(n, old, r)
	t.tell(event{old: old, now: r, seq: r.seq})
}

// above finds or makes the entries above a name. mu is held.
func (t *tree) above(name dn.DN) *node {
	if len(name) <= len(t.s.base) {
		return t.root
	}
	key := t.s.types().NormalDN(name)
	if n := t.byKey[key]; n != nil {
		return n
	}
	return t.place(name, key, t.above(name.Parent()), nil)
}

// nameOf gives the name of the entry at an address.
func (t *tree) nameOf(address string) (dn.DN, bool) {
	rel, err := dn.ParseAddress(address)
	if err != nil {
		return nil, false
	}
	return rel.Join(t.s.base), true
}

// put makes an entry of what the link shows at an address.
func (t *tree) put(address string, payload wrappers.Payload, version wrappers.Version, modified time.Time) {
	r, ok := t.s.recordOf(address, payload, version, modified)
	if !ok {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if u, ok := t.moved[r.key]; ok {
		r.uuid = u
	}
	n := t.byKey[r.key]
	if n == nil {
		t.place(r.name, r.key, t.above(r.name.Parent()), r)
		return
	}
	if old := n.rec.Load(); old.address == address && old.version == version && version != "" && same(old.attrs, r.attrs) {
		return
	}
	r.node = n
	t.set(n, r)
}

func same(a, b []attribute) bool {
	return slices.EqualFunc(a, b, func(x, y attribute) bool {
		return x.name == y.name && slices.EqualFunc(x.values, y.values, func(v, w []byte) bool { return string(v) == string(w) })
	})
}

// recordOf makes a record, without its node.
func (s *server) recordOf(address string, payload wrappers.Payload, version wrappers.Version, modified time.Time) (*record, bool) {
	name, ok := s.tree.nameOf(address)
	if !ok {
		return nil, false
	}
	list, err := s.entryTypes().Attributes(payload.Raw)
	if err != nil {
		s.unshowable(address, err)
		return nil, false
	}
	if modified.IsZero() {
		modified = time.Now()
	}
	r := &record{name: name, text: name.String(), key: s.types().NormalDN(name), address: address, attrs: s.attributes(name, list),
		version: version, modified: modified, created: modified}
	r.uuid = uuidOf(r.key)
	return s.expand(r), true
}

// remove takes an entry away, and tells whether its entryUUID was kept for it.
func (t *tree) remove(address string) (key string, kept bool) {
	name, ok := t.nameOf(address)
	if !ok {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	key = t.s.types().NormalDN(name)
	n := t.byKey[key]
	if n == nil || n.rec.Load().address == "" {
		return "", false
	}
	_, kept = t.moved[key]
	delete(t.moved, key)
	t.clear(n, key)
	return key, kept
}

// clear makes what is left of an entry whose register went: nothing, or the place above others. mu is held.
func (t *tree) clear(n *node, key string) {
	old := n.rec.Load()
	if len(n.children) > 0 || t.fixed[key] {
		t.set(n, t.glue(old.name, key, n))
		return
	}
	t.index.replace(n, old, nil)
	t.tell(event{old: old, seq: t.log.gone(old.uuid)})
	delete(t.byKey, key)
	if p := n.parent; p != nil {
		delete(p.children, n.rdn)
		p.kids.Add(-1)
		if r := p.rec.Load(); r.address == "" && len(p.children) == 0 && !t.fixed[r.key] {
			t.clear(p, r.key)
		}
	}
}

// others lists the addresses of entries that are at none of these.
func (t *tree) others(addresses map[string]bool) (gone []string) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, n := range t.byKey {
		if r := n.rec.Load(); r.address != "" && !addresses[r.address] {
			gone = append(gone, r.address)
		}
	}
	return gone
}

// fix says which entries are there without a register: those above what the binds can make.
func (t *tree) fix(names []dn.DN) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.fixed
	t.fixed = map[string]bool{t.root.rec.Load().key: true}
	for _, name := range names {
		for len(name) > len(t.s.base) {
			n := t.above(name)
			t.fixed[n.rec.Load().key] = true
			name = name.Parent()
		}
	}
	for key := range before {
		if n := t.byKey[key]; n != nil && !t.fixed[key] && n.rec.Load().address == "" && len(n.children) == 0 {
			t.clear(n, key)
		}
	}
}

// get gives the entry with this key; nil if there is none.
func (t *tree) get(key string) *record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if n := t.byKey[key]; n != nil {
		return n.rec.Load()
	}
	return nil
}

// matched is the name of the nearest entry that there is above a name (RFC 4511, section 4.1.9); "" if that is outside.
func (t *tree) matched(name dn.DN) string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for len(name) > 0 {
		name = name.Parent()
		if n := t.byKey[t.s.types().NormalDN(name)]; n != nil {
			return n.rec.Load().text
		}
	}
	return ""
}

// below gives what a search in this scope looks at, in the order in which entries came: of the candidates if they are known,
// else everything. mu is not held.
func (t *tree) below(base *node, scope int64, candidates []*node, known bool) []*record {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var nodes []*node
	in := func(n *node) bool {
		switch scope {
		case ldapwire.ScopeBaseObject:
			return n == base
		case ldapwire.ScopeSingleLevel:
			return n.parent == base
		case ldapwire.ScopeSubordinate:
			if n == base {
				return false
			}
		}
		for ; n != nil; n = n.parent {
			if n == base {
				return true
			}
		}
		return false
	}
	switch {
	case known:
		for _, n := range candidates {
			if in(n) {
				nodes = append(nodes, n)
			}
		}
	case scope == ldapwire.ScopeBaseObject:
		nodes = append(nodes, base)
	case scope == ldapwire.ScopeSingleLevel:
		for _, n := range base.children {
			nodes = append(nodes, n)
		}
	default:
		nodes = subtree(base, nodes)
		if scope == ldapwire.ScopeSubordinate {
			nodes = nodes[1:]
		}
	}
	slices.SortFunc(nodes, byAge)
	out := make([]*record, len(nodes))
	for i, n := range nodes {
		out[i] = n.rec.Load()
	}
	return out
}

// byAge orders nodes as they came.
func byAge(a, b *node) int { return cmp.Compare(a.id, b.id) }

func subtree(n *node, to []*node) []*node {
	to = append(to, n)
	for _, c := range n.children {
		to = subtree(c, to)
	}
	return to
}

// descendants gives the entries below one that registers make, and whether there are any entries at all.
func (t *tree) descendants(key string) (list []*record, any bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := t.byKey[key]
	if n == nil {
		return nil, false
	}
	nodes := subtree(n, nil)[1:]
	slices.SortFunc(nodes, byAge)
	for _, c := range nodes {
		if r := c.rec.Load(); r.address != "" {
			list = append(list, r)
		}
	}
	return list, len(n.children) > 0
}

// memberOf gives the names of the groups that an entry is a member of.
func (t *tree) memberOf(r *record) [][]byte {
	t.mu.RLock()
	var names []string
	for _, at := range t.index.members {
		for n := range t.index.equal(at, r.key).all() {
			names = append(names, n.rec.Load().text)
		}
	}
	t.mu.RUnlock()
	slices.Sort(names)
	var out [][]byte
	for _, n := range slices.Compact(names) {
		out = append(out, []byte(n))
	}
	return out
}
