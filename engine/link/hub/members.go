package hub

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
)

// A member is another node of the domain, as far as it was heard.
type member struct {
	endpoint engine.EndpointID
	name     string
	made     time.Time     // heard of for the first time
	absent   time.Duration // not heard for so long, while this node was on the hub
	kept     time.Duration // absent, as it is stored

	origin engine.OriginID
	former engine.OriginID     // its run before that, if it was heard
	base   engine.QStateVector // as it stands in the bucket
	baseOf lattice.Hash        // its digest
	vector engine.QStateVector // as it last said
	known  bool                // vector is of this run: it was told, not kept
	digest lattice.Hash
	root   lattice.Hash
	last   *pulse
	at     time.Time // when it was last heard
	tick   time.Time // likewise, by this process's own clock
	skew   time.Duration

	state   link.State
	since   time.Time
	figures link.Figures
	tried   time.Time // a session was begun, by this process's own clock
	failure string
	failed  time.Time
}

const (
	memberTable   = "hubmember"
	memberVersion = 1
)

func (m *member) key() string { return hex.EncodeToString(m.endpoint[:]) }

func (m *member) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 4), memberVersion)
	dst = lattice.AppendInt(lattice.AppendText(dst, m.name), m.made.UnixMilli())
	return lattice.AppendInt(dst, int64(m.absent/time.Second))
}

func parseMember(key string, raw []byte) (*member, error) {
	r := lattice.NewReader(raw)
	r.Array(4)
	if v := r.Uint(); v != memberVersion {
		r.Fail("a member of version %d", v)
	}
	m := &member{state: link.Decohered}
	m.name, m.made = readName(r), time.UnixMilli(r.Int()).UTC()
	m.absent = time.Duration(r.Int()) * time.Second
	m.kept = m.absent
	id, err := hex.DecodeString(key)
	if err != nil || len(id) != len(m.endpoint) {
		r.Fail("a member %.40q", key)
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a kept member: %w", err)
	}
	copy(m.endpoint[:], id)
	return m, nil
}

// Known gives the members that an engine was told of on its hub: for link.Options.Others, before Open.
func Known(e *engine.Engine) (list []engine.EndpointID, err error) {
	for kept, err := range e.EachKept(memberTable, "") {
		if err != nil {
			return nil, err
		}
		m, err := parseMember(kept.Key, kept.Value)
		if err != nil {
			return nil, err
		}
		list = append(list, m.endpoint)
	}
	return list, nil
}

func (h *Hub) loadMembers() error {
	for kept, err := range h.e.EachKept(memberTable, "") {
		if err != nil {
			return err
		}
		m, err := parseMember(kept.Key, kept.Value)
		if err != nil {
			return err
		}
		m.since = h.o.Now()
		h.members[m.endpoint] = m
	}
	return nil
}

// tellSite says who is waited for.
func (h *Hub) tellSite(ctx context.Context) error {
	h.mu.Lock()
	list := make([]engine.EndpointID, 0, len(h.members))
	for id := range h.members {
		list = append(list, id)
	}
	h.mu.Unlock()
	return h.o.Site.SetOthers(ctx, list...)
}

// moveMember changes a member's state. The caller holds h.mu.
func (h *Hub) moveMember(m *member, to link.State) {
	if m.state == to {
		return
	}
	h.o.Log.Info("hub: "+string(to), "site", m.name, "endpoint", m.endpoint.String(), "was", string(m.state))
	m.state, m.since = to, h.o.Now()
}

// maxMembers bounds the members of one domain.
const maxMembers = 5000

// join makes sure that a node is a member.
func (h *Hub) join(ctx context.Context, id engine.EndpointID, name string) (*member, error) {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		name = id.String()
	}
	h.mu.Lock()
	m := h.members[id]
	if m != nil && m.name == name {
		h.mu.Unlock()
		return m, nil
	}
	isNew := m == nil
	if isNew {
		if len(h.members) >= maxMembers {
			h.mu.Unlock()
			return nil, fmt.Errorf("more than %d members", maxMembers)
		}
		m = &member{endpoint: id, made: h.o.Now(), state: link.Decohered, since: h.o.Now()}
		h.members[id] = m
	}
	m.name = name
	record := engine.Record{Table: memberTable, Key: m.key(), Value: m.encode()}
	h.mu.Unlock()
	// Synced: what everybody is to know waits for it from now on.
	if err := h.e.KeepRecords(ctx, true, record); err != nil {
		return m, err
	}
	if isNew {
		return m, h.tellSite(ctx)
	}
	return m, nil
}

// entryCame takes what stands in the bucket of a member.
func (h *Hub) entryCame(ctx context.Context, e *entry) error {
	if e.endpoint == h.endpoint {
		return nil
	}
	m, err := h.join(ctx, e.endpoint, e.name)
	if err != nil {
		return err
	}
	h.mu.Lock()
	m.base, m.baseOf = e.vector, link.Digest(e.vector)
	last := m.last
	if !m.known {
		m.vector = e.vector
	}
	h.mu.Unlock()
	if last != nil && last.base == m.baseOf {
		return h.learn(ctx, m, last)
	}
	return nil
}

// pulseCame takes a heartbeat.
func (h *Hub) pulseCame(ctx context.Context, p *pulse) error {
	if p.endpoint == h.endpoint {
		if p.origin == h.origin {
			return nil
		}
		return errors.Join(h.e.Twin(ctx, p.origin), errMoved)
	}
	m, err := h.join(ctx, p.endpoint, p.name)
	if err != nil {
		return err
	}
	now := h.o.Now()
	h.mu.Lock()
	was, former := m.origin, m.former
	if p.origin != was {
		m.former = was
	}
	greet := (p.origin != was || m.state == link.Decohered) && !p.leaving
	twins := p.origin != was && p.origin == former && former != (engine.OriginID{})
	m.at, m.tick, m.absent, m.skew = now, time.Now(), 0, time.UnixMilli(p.wall).Sub(now)
	m.last, m.origin, m.root, m.digest = p, p.origin, p.root, p.digest
	switch {
	case p.leaving:
		h.moveMember(m, link.Decohered)
		m.tick = time.Time{}
	case m.state == link.Decohered:
		h.moveMember(m, link.Reentangling)
	}
	h.mu.Unlock()
	if greet { // it has not heard this node yet
		h.hurry()
	}
	if twins { // runs that are over do not come back
		if err := h.e.Twins(ctx, p.endpoint, was, p.origin); err != nil {
			return err
		}
	}
	return h.learn(ctx, m, p)
}

// hurry has the next heartbeat said soon.
func (h *Hub) hurry() {
	h.mu.Lock()
	r := h.round
	h.mu.Unlock()
	if r == nil {
		return
	}
	select {
	case r.beat <- struct{}{}:
	default:
	}
}

// learn takes what a heartbeat says of a member's vector.
func (h *Hub) learn(ctx context.Context, m *member, p *pulse) error {
	own, err := h.e.Summary(ctx)
	if err != nil {
		return err
	}
	var theirs engine.QStateVector
	h.mu.Lock()
	switch {
	case p.digest == link.Digest(own.Vector):
		theirs = own.Vector
	case p.digest == m.digestOf():
		theirs = m.vector
	case p.base == m.baseOf:
		if theirs = p.step.From(m.base); link.Digest(theirs) != p.digest {
			h.mu.Unlock()
			return invalid("a heartbeat whose vector is not the one that it names")
		}
	default: // what it is a step from will come from the bucket
		h.mu.Unlock()
		return nil
	}
	m.vector, m.known = theirs, true
	h.mu.Unlock()
	if err := h.e.Meet(ctx, engine.Summary{Endpoint: p.endpoint, Origin: p.origin, Vector: theirs, Root: p.root, Heard: p.heard}); err != nil {
		return err
	}
	err = h.e.Heard(ctx, engine.Member{Endpoint: p.endpoint, Vector: theirs, Heard: p.heard})
	if errors.Is(err, engine.ErrNotFound) {
		err = nil // it was forgotten just now
	}
	lacking, failed := h.e.Lacking(theirs)
	h.mu.Lock()
	defer h.mu.Unlock()
	if lacking == 0 && theirs.CoversAll(own.Vector) && m.state == link.Reentangling {
		h.moveMember(m, link.Entangled)
		m.failure = ""
	}
	return errors.Join(err, failed)
}

func (m *member) digestOf() lattice.Hash {
	if !m.known {
		return lattice.Hash{}
	}
	return link.Digest(m.vector)
}

// age counts how long members have been silent while this node was on the hub, and forgets those that were for too long.
// Their own clock and this one's have no say in it.
func (h *Hub) age(ctx context.Context, passed time.Duration) error {
	var records []engine.Record
	gone := false
	h.mu.Lock()
	for id, m := range h.members {
		if time.Since(m.tick) < link.Patience {
			if m.kept > 0 {
				m.kept = 0
				records = append(records, engine.Record{Table: memberTable, Key: m.key(), Value: m.encode()})
			}
			continue
		}
		h.moveMember(m, link.Decohered)
		if m.absent += passed; m.absent >= h.o.Forget {
			h.o.Log.Warn("hub: a member was absent for too long, and is waited for no more", "site", m.name, "endpoint", m.endpoint.String())
			delete(h.members, id)
			gone = true
			records = append(records, engine.Record{Table: memberTable, Key: m.key()})
			continue
		}
		if m.absent-m.kept >= time.Hour {
			m.kept = m.absent
			records = append(records, engine.Record{Table: memberTable, Key: m.key(), Value: m.encode()})
		}
	}
	h.mu.Unlock()
	if len(records) > 0 {
		if err := h.e.KeepRecords(ctx, false, records...); err != nil && !errors.Is(err, engine.ErrFull) {
			return err
		}
	}
	if gone {
		return h.tellSite(ctx)
	}
	return nil
}

// find gives a member by its name, or by the beginning of its endpoint.
func (h *Hub) find(name string) (*member, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found *member
	for _, m := range h.members {
		if m.name == name || len(name) >= 4 && strings.HasPrefix(m.key(), name) {
			if found != nil {
				return nil, invalid("%q names several members: say the beginning of the endpoint", name)
			}
			found = m
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no site %q", engine.ErrNotFound, name)
	}
	return found, nil
}

// Forget takes a member from those that are waited for. If it is heard again, it is one again.
func (h *Hub) Forget(ctx context.Context, name string) error {
	m, err := h.find(name)
	if err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.members, m.endpoint)
	h.mu.Unlock()
	if err := h.e.KeepRecords(ctx, true, engine.Record{Table: memberTable, Key: m.key()}); err != nil {
		return err
	}
	return h.tellSite(ctx)
}

// Status lists the members, by name.
func (h *Hub) Status(ctx context.Context) ([]link.Status, error) {
	own, err := h.e.Summary(ctx)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]link.Status, 0, len(h.members))
	for _, m := range h.members {
		s := link.Status{
			Name: m.name, Endpoint: m.endpoint, State: m.state, Since: m.since, Made: m.made, Figures: m.figures, Root: m.root,
			Failure: m.failure, Failed: m.failed, LacksThere: link.Lacks(m.vector, own.Vector), Level: m.vector.Equal(own.Vector), Skew: m.skew,
		}
		if m.state != link.Decohered {
			s.Heard, s.Remote = m.at, h.server
		}
		if s.LacksHere, err = h.e.Lacking(m.vector); err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b link.Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Endpoint.String(), b.Endpoint.String()))
	})
	return list, nil
}
