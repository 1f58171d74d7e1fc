package mqtt

import (
	"encoding/binary"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// An entry is one message as subscribers get it: the publisher's own bytes, or a change from
// elsewhere as the mapping renders it. It does not change once it is in the ring.
type entry struct {
	seq     uint64          // place in this process's stream; 0 for state read from the registers
	cursor  wrappers.Cursor // of its commit, "" when there was none
	before  wrappers.Cursor // of the commit before it
	address string
	msg     publish // topic, payload, properties; QoS and RETAIN as published
	from    string  // client id of the publisher, for No Local
	arrived time.Time
	expiry  int64         // seconds after which it is not worth delivering; 0: none
	patch   int           // where in msg.props the expiry interval stands, -1
	filter  *subscription // state for one subscriber: the subscription it answers
}

func (e *entry) size() int { return len(e.msg.topic) + len(e.msg.props) + len(e.msg.payload) + 64 }

// at is the place in the log of one change: a commit tells an address one thing at most.
func (e *entry) at() place { return place{e.cursor, e.address} }

type place struct {
	cursor  wrappers.Cursor
	address string
}

// newEntry makes an entry of a message from a client or a will.
func newEntry(p *publication) *entry {
	e := &entry{address: p.address, msg: p.msg, from: p.client, arrived: p.arrived, patch: -1}
	if i := expiryOffset(p.msg.props); i >= 0 {
		e.patch, e.expiry = i, int64(binary.BigEndian.Uint32(p.msg.props[i:]))
		e.expiry = max(e.expiry, 1)
	}
	return e
}

// changeEntry renders a change that no live publish explains. ok is false where there is nothing
// to tell: the register went and the bind keeps nothing for late joiners to clear, or nothing flows
// out at this address.
func changeEntry(c *wrappers.Change) (e *entry, ok bool) {
	retain := retained(c.Options)
	if c.Gone && !retain || !c.Gone && len(c.Payload.Raw) == 0 {
		return nil, false
	}
	e = &entry{cursor: c.Cursor, address: c.Address, patch: -1}
	e.msg = publish{topic: []byte(c.Address), qos: qosOf(c.Options), retain: retain}
	if !c.Gone {
		e.msg.payload = append([]byte(nil), c.Payload.Raw...)
	}
	return e, true
}

// A ring holds the newest entries, so that a subscriber that fell behind for a moment catches up
// on the publishers' own bytes. It is bounded by count and bytes.
type ring struct {
	entries []*entry // oldest first, seq without gaps
	first   int      // index of the oldest
	bytes   int
	byPlace map[place]uint64
	newest  map[string]uint64 // by address
	head    uint64            // seq of the newest entry ever
	cursor  wrappers.Cursor
	before  wrappers.Cursor
}

const (
	ringEntries = 8192
	ringBytes   = 8 << 20
)

// add gives e its place in the stream.
func (r *ring) add(e *entry) {
	r.head++
	e.seq = r.head
	if e.cursor != "" && e.cursor != r.cursor {
		r.before, r.cursor = r.cursor, e.cursor
	}
	e.before = r.before
	if e.cursor == "" { // not in the log: what comes after it begins behind the newest commit
		e.before = r.cursor
	}
	r.entries = append(r.entries, e)
	r.bytes += e.size()
	if e.cursor != "" {
		if r.byPlace == nil {
			r.byPlace = make(map[place]uint64)
		}
		r.byPlace[e.at()] = e.seq
	}
	if r.newest == nil {
		r.newest = make(map[string]uint64)
	}
	r.newest[e.address] = e.seq
	for len(r.entries)-r.first > 1 && (len(r.entries)-r.first > ringEntries || r.bytes > ringBytes) {
		old := r.entries[r.first]
		r.entries[r.first] = nil
		r.first++
		r.bytes -= old.size()
		if old.cursor != "" && r.byPlace[old.at()] == old.seq {
			delete(r.byPlace, old.at())
		}
		if r.newest[old.address] == old.seq {
			delete(r.newest, old.address)
		}
	}
	if r.first > ringEntries { // move what is left to the front now and then
		n := copy(r.entries, r.entries[r.first:])
		clear(r.entries[n:])
		r.entries, r.first = r.entries[:n], 0
	}
}

// after gives up to n entries behind seq; ok is false when the ring no longer reaches back to it.
func (r *ring) after(seq uint64, n int) (es []*entry, ok bool) {
	have := r.entries[r.first:]
	if seq >= r.head {
		return nil, true
	}
	if len(have) == 0 || have[0].seq > seq+1 {
		return nil, false
	}
	i := int(seq + 1 - have[0].seq)
	return append([]*entry(nil), have[i:min(len(have), i+n)]...), true
}

// find gives the seq of the entry at this place of the log.
func (r *ring) find(at place) (uint64, bool) {
	seq, ok := r.byPlace[at]
	return seq, ok
}

// retained tells whether a bind's registers are what late joiners get.
func retained(o wrappers.Options) bool {
	if v, ok := o["retain"].(bool); ok {
		return v
	}
	return o.String("direction") != "out"
}

// qosOf is the QoS with which changes from elsewhere are published.
func qosOf(o wrappers.Options) byte {
	if _, ok := o["qos"].(int64); ok {
		return byte(min(max(o.Int("qos"), 0), 2))
	}
	return 1
}
