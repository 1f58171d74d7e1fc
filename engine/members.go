package engine

import (
	"context"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spooksystems/gateway/engine/lattice"
)

// A Member is another node of the domain, as far as it has been heard.
type Member struct {
	Endpoint EndpointID
	Vector   QStateVector // what it confirmed to have on its disk
	Heard    Stamp        // it will never stamp anything earlier any more
}

// members are the other nodes of the domain. What has to be known by everybody (what may be removed for good, what is
// final) is decided by what they have confirmed.
type members struct {
	mu    sync.RWMutex
	fresh map[EndpointID]bool // heard since the start
	known map[EndpointID]Member
	heard atomic.Uint64 // the lowest Stamp of all
}

const forever = Stamp(math.MaxUint64)

func (m *members) settle() {
	heard := forever
	for _, k := range m.known {
		heard = min(heard, k.Heard)
	}
	m.heard.Store(uint64(heard))
}

// heard is up to where every member has been heard.
func (e *Engine) heard() Stamp {
	return Stamp(e.members.heard.Load())
}

// everybodyHas says whether every member has confirmed a candidate.
func (e *Engine) everybodyHas(d Dot) bool {
	if e.retired(d.Origin) {
		return true
	}
	e.members.mu.RLock()
	defer e.members.mu.RUnlock()
	for _, k := range e.members.known {
		if !k.Vector.Covers(d) {
			return false
		}
	}
	return true
}

// hasAllConfirmed says whether this node has all that members have confirmed, so that what they wrote before they heard of
// something is not still on its way.
func (e *Engine) hasAllConfirmed() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.members.mu.RLock()
	defer e.members.mu.RUnlock()
	for _, k := range e.members.known {
		if slices.ContainsFunc(k.Vector, func(d Dot) bool { return !e.seqr.core.Covers(d) }) {
			return false
		}
	}
	return true
}

func (e *Engine) retired(o OriginID) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.seqr.core.Retired(o)
}

// SetMembers says which nodes the domain has beside this one. One that is new has confirmed nothing yet; one that left
// is waited for no longer.
func (e *Engine) SetMembers(ctx context.Context, endpoints ...EndpointID) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	m := &e.members
	m.mu.Lock()
	defer m.mu.Unlock()
	next := map[EndpointID]Member{}
	for _, id := range endpoints {
		if id == e.origin.Endpoint {
			continue
		}
		k, known := m.known[id]
		if !known {
			k = Member{Endpoint: id}
			e.keepInternal(memberTable, hex.EncodeToString(id[:]), appendMember(nil, &k))
		}
		next[id] = k
	}
	for id := range m.known {
		if _, stays := next[id]; !stays {
			e.keepInternal(memberTable, hex.EncodeToString(id[:]), nil)
		}
	}
	m.known = next
	m.settle()
	return nil
}

// Heard takes what a member says it has on its disk, and up to where it has stamped. Both only rise.
func (e *Engine) Heard(ctx context.Context, from Member) error {
	if err := e.enter(); err != nil {
		return err
	}
	defer e.leave()
	m := &e.members
	m.mu.Lock()
	defer m.mu.Unlock()
	k, known := m.known[from.Endpoint]
	if !known {
		return fmt.Errorf("%w: endpoint %s is no member", ErrNotFound, from.Endpoint)
	}
	k.Vector, k.Heard = k.Vector.Join(from.Vector), max(k.Heard, from.Heard)
	m.known[from.Endpoint] = k
	m.fresh[from.Endpoint] = true
	m.settle()
	e.keepInternal(memberTable, hex.EncodeToString(from.Endpoint[:]), appendMember(nil, &k))
	return nil
}

func appendMember(dst []byte, m *Member) []byte {
	return lattice.AppendUint(appendVector(dst, m.Vector), uint64(m.Heard))
}

func (e *Engine) loadMembers() error {
	m := &e.members
	m.known, m.fresh = map[EndpointID]Member{}, map[EndpointID]bool{}
	for r, err := range e.eachInternal(memberTable) {
		if err != nil {
			return err
		}
		var k Member
		id, err := hex.DecodeString(r.Key)
		reader := lattice.NewReader(r.Value)
		k.Vector, k.Heard = readVector(reader), Stamp(reader.Uint())
		if err != nil || len(id) != len(k.Endpoint) || reader.End() != nil {
			return damaged("member %q", r.Key)
		}
		copy(k.Endpoint[:], id)
		m.known[k.Endpoint] = k
	}
	m.settle()
	return nil
}

// retire takes this node's earlier incarnations out of all vectors, once every member has exactly what they wrote.
func (e *Engine) retire(context.Context) error {
	e.mu.Lock()
	core := e.seqr.core
	var past []Dot
	if core.Begun() {
		for _, d := range core.Vector() {
			if owner, ok := core.Owner(d.Origin); ok && d.Origin != e.self && owner.Origin.Endpoint == e.origin.Endpoint {
				past = append(past, d)
			}
		}
	}
	e.mu.Unlock()
	if len(past) > 0 && e.cloned() {
		return nil // which of two is the past of this one can't be told
	}
	for _, d := range past {
		if !e.confirmed(d) {
			continue
		}
		name := lattice.OriginPrefix + d.Origin.String()
		w := Write{Ops: []Op{{Register: name, Kind: OpPut, Value: lattice.Int(int64(d.Seq))}}, By: Cause{Protocol: "engine", Verb: "retire"}}
		if err := e.writeInternal(&w); err != nil {
			return err
		}
	}
	return nil
}

// confirmed says whether every member has all of an origin, and nothing beyond. What was said before the start was said to
// data that may have been of another state.
func (e *Engine) confirmed(d Dot) bool {
	e.members.mu.RLock()
	defer e.members.mu.RUnlock()
	for _, k := range e.members.known {
		if !e.members.fresh[k.Endpoint] || k.Vector.Seq(d.Origin) != d.Seq {
			return false
		}
	}
	return true
}

// cloned says whether this endpoint is known to run twice.
func (e *Engine) cloned() bool {
	for _, f := range e.findings.all() {
		if f.Code == "clone" {
			return true
		}
	}
	return false
}
