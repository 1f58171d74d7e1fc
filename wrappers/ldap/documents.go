package ldap

import (
	"sync"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A document is an entry as it was last seen, as far as binds speak of it.
type document struct {
	address    string
	csn        string
	attributes []ldapwire.PartialAttribute
	binds      *binds
	size       int
	newer      *document // towards the most recently used
	older      *document
}

// documents remembers entries, so that a change of one value needs no look at the other values: within a bound, the least
// recently used goes first.
type documents struct {
	mu     sync.Mutex
	byPath map[string]*document
	ends   document // newer: the least recently used; older: the most recently
	size   int
}

const mostDocuments = 64 << 20 // bytes

func newDocuments() *documents {
	d := &documents{byPath: map[string]*document{}}
	d.ends.newer, d.ends.older = &d.ends, &d.ends
	return d
}

// put remembers an entry in a version. The attributes are not changed any more.
func (d *documents) put(address, csn string, attributes []ldapwire.PartialAttribute, b *binds) {
	if csn == "" {
		return
	}
	x := &document{address: address, csn: csn, attributes: attributes, binds: b, size: sizeOf(attributes) + 256}
	d.mu.Lock()
	defer d.mu.Unlock()
	p := path(address)
	if was := d.byPath[p]; was != nil {
		d.unlink(was)
	}
	if x.size > mostDocuments {
		return
	}
	d.link(x)
	for d.size > mostDocuments {
		d.unlink(d.ends.newer)
	}
}

// link enters one as the most recently used.
func (d *documents) link(x *document) {
	d.byPath[path(x.address)] = x
	d.size += x.size
	x.older, x.newer = d.ends.older, &d.ends
	x.older.newer, d.ends.older = x, x
}

func (d *documents) unlink(x *document) {
	x.older.newer, x.newer.older = x.newer, x.older
	delete(d.byPath, path(x.address))
	d.size -= x.size
}

// get gives an entry if it is remembered in this version, and was read for these binds.
func (d *documents) get(address, csn string, b *binds) ([]ldapwire.PartialAttribute, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.byPath[path(address)]
	if x == nil || csn == "" || x.csn != csn || x.binds.hash != b.hash || len(x.binds.patterns) != len(b.patterns) {
		return nil, false
	}
	d.unlink(x)
	d.link(x)
	return x.attributes, true
}

func (d *documents) drop(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.byPath[path(address)]; x != nil {
		d.unlink(x)
	}
}
