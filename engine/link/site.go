// Package link lets nodes of a domain tell each other what they lack: pairs of two, over any connection. Read DESIGN.md.
package link

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// Options are what a Site is made of. All but Engine may be zero.
type Options struct {
	Engine *engine.Engine
	Domain string // that the engine is of: two nodes pair within one
	Log    *slog.Logger
	Now    func() time.Time
	// Dial connects, in the words of net.Dialer.DialContext.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Others are the members of the domain that are heard by other ways than pairs, until SetOthers says otherwise.
	Others []engine.EndpointID
}

// A Site is one node of a domain: its halves of pairs, and what keeps them up.
type Site struct {
	o      Options
	e      *engine.Engine
	self   *identity
	joins  sync.Mutex // one state at a time is taken
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	pairs  map[engine.EndpointID]*pair
	offers map[string]*Offer
	called map[frameConn]struct{} // from peers who called
	others []engine.EndpointID
}

// Open begins to keep up the pairs that the engine knows of. The engine has to be closed after the Site.
func Open(o Options) (*Site, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Site{o: o, e: o.Engine, pairs: map[engine.EndpointID]*pair{}, offers: map[string]*Offer{}, called: map[frameConn]struct{}{}, others: o.Others}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	var err error
	if s.self, err = identify(s.ctx, s.e); err != nil {
		return nil, err
	}
	records, err := loadRecords(s.e)
	if err != nil {
		return nil, err
	}
	for kept, err := range s.e.EachKept(offerTable, "") {
		if err != nil {
			return nil, err
		}
		offer, err := parseOffer(kept.Value)
		if err != nil {
			return nil, err
		}
		s.offers[offer.ID] = offer
	}
	for _, r := range records {
		s.pairs[r.Endpoint] = s.newPair(r)
	}
	if err := s.members(s.ctx); err != nil {
		return nil, err
	}
	for _, p := range s.pairs {
		s.startCalling(p)
	}
	return s, nil
}

func (s *Site) newPair(r *Record) *pair {
	p := &pair{record: r, state: Decohered, since: s.o.Now(), knocks: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(s.ctx)
	switch {
	case r.Dissolved:
		p.state = DissolvedPair
	case len(r.Secret) > 0:
		p.state = Accepted
	}
	return p
}

// startCalling keeps a pair up whose peer is called by this node.
func (s *Site) startCalling(p *pair) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || p.calling || p.record.Address == "" || p.record.Dissolved {
		return
	}
	p.calling = true
	s.wait.Go(func() { s.keepCalling(p) })
}

// members tells the engine who has to confirm what may be removed for good.
func (s *Site) members(ctx context.Context) error {
	s.mu.Lock()
	list := slices.Clone(s.others)
	for id, p := range s.pairs {
		if !p.record.Dissolved {
			list = append(list, id)
		}
	}
	s.mu.Unlock()
	return s.e.SetMembers(ctx, list...)
}

// Endpoint is this node's.
func (s *Site) Endpoint() engine.EndpointID { return s.self.endpoint }

// Close ends all connections.
func (s *Site) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.wait.Wait()
	return nil
}

func (s *Site) endCalled() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.called {
		conn.close()
	}
}

// MaxOfferAge bounds how long an invitation may be used.
const MaxOfferAge = 30 * 24 * time.Hour

const maxOffers = 100

// Offer makes an invitation for one peer, who calls this node at address. name is what the pair will be called here; "":
// the peer's endpoint.
func (s *Site) Offer(ctx context.Context, name, address string, valid time.Duration) (*Invitation, error) {
	if _, _, err := SplitAddress(address); err != nil {
		return nil, err
	}
	if valid <= 0 || valid > MaxOfferAge {
		return nil, invalid("an invitation for %s: at most %s", valid, MaxOfferAge)
	}
	if err := s.checkName(name, engine.EndpointID{}); err != nil {
		return nil, err
	}
	now := s.o.Now()
	i := &Invitation{Domain: s.o.Domain, Endpoint: s.self.endpoint, Key: s.self.key, Address: address, Expires: now.Add(valid)}
	if _, err := rand.Read(i.Secret[:]); err != nil {
		return nil, err
	}
	o := newOffer(i.Secret[:], name, now, i.Expires)
	s.mu.Lock()
	defer s.mu.Unlock()
	var records []engine.Record
	for id, old := range s.offers {
		if !now.Before(old.Expires) {
			delete(s.offers, id)
			records = append(records, engine.Record{Table: offerTable, Key: id})
		}
	}
	if len(s.offers) >= maxOffers {
		return nil, invalid("%d invitations are open: withdraw some", len(s.offers))
	}
	records = append(records, engine.Record{Table: offerTable, Key: o.ID, Value: o.encode()})
	if err := s.e.KeepRecords(ctx, true, records...); err != nil {
		return nil, err
	}
	s.offers[o.ID] = o
	return i, nil
}

const maxName = 128

func (s *Site) checkName(name string, but engine.EndpointID) error {
	if len(name) > maxName || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return invalid("%q: a site's name is at most %d characters without spaces", name, maxName)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, p := range s.pairs {
		if name != "" && p.record.Name == name && id != but && !p.record.Dissolved {
			return invalid("there is a pair %q already", name)
		}
	}
	return nil
}

// use takes the invitation that a caller shows: from now on it is the other half of a pair.
func (s *Site) use(ctx context.Context, h *hello, key [32]byte) (*Record, error) {
	hash := sha256.Sum256(h.Secret)
	id := hex.EncodeToString(hash[:6])
	now := s.o.Now()
	s.mu.Lock()
	if p := s.pairs[h.Endpoint]; p != nil && !p.record.Dissolved {
		s.mu.Unlock()
		return nil, &refusal{code: byeRefused, text: "there is a pair with that endpoint already, under another key: dissolve it first"}
	}
	o := s.offers[id]
	if o == nil || o.hash != hash || !now.Before(o.Expires) {
		s.mu.Unlock()
		return nil, &refusal{code: byeRefused, text: "that invitation was used, withdrawn, or has expired"}
	}
	r := &Record{Endpoint: h.Endpoint, Name: o.Name, Key: key, Made: now}
	if r.Name == "" {
		r.Name = h.Endpoint.String()
	}
	err := s.e.KeepRecords(ctx, true,
		engine.Record{Table: pairTable, Key: keyOf(r.Endpoint), Value: r.encode()},
		engine.Record{Table: offerTable, Key: id})
	if err == nil {
		delete(s.offers, id)
		s.pairs[r.Endpoint] = s.newPair(r)
	}
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r, s.members(ctx)
}

// Accept uses an invitation: when it returns the pair is made on both sides.
func (s *Site) Accept(ctx context.Context, i *Invitation, name string) (*Record, error) {
	now := s.o.Now()
	switch {
	case i.Domain != s.o.Domain:
		return nil, invalid("the invitation is into the domain %q, and this is %q: both sites give a domain the same name", i.Domain, s.o.Domain)
	case i.Endpoint == s.self.endpoint:
		return nil, invalid("this is the node that made the invitation, or a copy of its data directory")
	case !now.Before(i.Expires):
		return nil, invalid("the invitation has expired, at %s", i.Expires.Format(time.RFC3339))
	}
	if name == "" {
		name = i.Endpoint.String()
	}
	if err := s.checkName(name, i.Endpoint); err != nil {
		return nil, err
	}
	s.mu.Lock()
	if p := s.pairs[i.Endpoint]; p != nil && !p.record.Dissolved {
		s.mu.Unlock()
		return nil, invalid("there is a pair with that endpoint already, %q", p.record.Name)
	}
	s.mu.Unlock()
	r := &Record{Endpoint: i.Endpoint, Name: name, Key: i.Key, Address: i.Address, Secret: i.Secret[:], Made: now}
	// Kept first: should this end in the middle, the pair that the other side has made is not an orphan.
	if err := s.keepRecord(ctx, r); err != nil {
		return nil, err
	}
	p := s.newPair(r)
	s.mu.Lock()
	s.pairs[r.Endpoint] = p
	s.mu.Unlock()
	err := s.members(ctx)
	if err == nil {
		err = s.firstCall(ctx, p)
	}
	if err != nil {
		p.cancel()
		s.mu.Lock()
		delete(s.pairs, r.Endpoint)
		s.mu.Unlock()
		return nil, errors.Join(err, s.e.KeepRecords(ctx, true, engine.Record{Table: pairTable, Key: keyOf(r.Endpoint)}), s.members(ctx))
	}
	return r, nil
}

func (s *Site) keepRecord(ctx context.Context, r *Record) error {
	return s.e.KeepRecords(ctx, true, engine.Record{Table: pairTable, Key: keyOf(r.Endpoint), Value: r.encode()})
}

// firstCall makes the first connection of a pair, and keeps calling once it was up.
func (s *Site) firstCall(ctx context.Context, p *pair) error {
	up, ended := make(chan struct{}), make(chan error, 1)
	conn, err := call(ctx, p.record.Address, s.self.calling(p.record.Endpoint, p.record.Key), s.o.Dial)
	if err != nil {
		return fmt.Errorf("%w: %w", engine.ErrUnavailable, err)
	}
	var once sync.Once
	record := *p.record
	session, err := newSession(ctx, s.options(true, record.Endpoint, record.Secret, func(context.Context, *hello) (*Record, error) {
		once.Do(func() { close(up) })
		return &record, nil
	}))
	if err != nil {
		conn.close()
		return err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		conn.close()
		return engine.ErrClosed
	}
	p.calling = true
	s.wait.Add(1)
	s.mu.Unlock()
	go func() {
		defer s.wait.Done()
		err := s.run(p.ctx, conn, session)
		conn.close()
		ended <- err
		select {
		case <-up:
			if !s.dissolvedBy(p, err) {
				s.keepCalling(p)
			}
		default:
		}
	}()
	select {
	case <-up:
		return nil
	case err := <-ended:
		return err
	case <-ctx.Done():
		conn.close()
		return ctx.Err()
	}
}

// Withdraw takes an invitation back.
func (s *Site) Withdraw(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.offers[id] == nil {
		return fmt.Errorf("%w: no open invitation %q", engine.ErrNotFound, id)
	}
	if err := s.e.KeepRecords(ctx, true, engine.Record{Table: offerTable, Key: id}); err != nil {
		return err
	}
	delete(s.offers, id)
	return nil
}

// Dissolve ends a pair for good, by its name or its endpoint. What both hold stays with both.
func (s *Site) Dissolve(ctx context.Context, name string) error {
	p, err := s.find(name)
	if err != nil {
		return err
	}
	return s.dissolve(ctx, p)
}

func (s *Site) dissolve(ctx context.Context, p *pair) error {
	s.mu.Lock()
	r := *p.record
	r.Dissolved, r.Secret = true, nil
	s.mu.Unlock()
	if err := s.e.KeepRecords(ctx, true,
		engine.Record{Table: pairTable, Key: keyOf(r.Endpoint), Value: r.encode()},
		engine.Record{Table: placeTable, Key: keyOf(r.Endpoint)}); err != nil {
		return err
	}
	s.mu.Lock()
	p.record = &r
	s.move(p, DissolvedPair)
	defer p.cancel()
	session, stop := p.session, p.stop
	s.mu.Unlock()
	if session != nil {
		session.bye(&refusal{code: byeDissolved, text: "the pair was dissolved"})
		stop(ErrDissolved)
	}
	return s.members(ctx)
}

// find gives a pair by its name, or by the beginning of its endpoint.
func (s *Site) find(name string) (*pair, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found *pair
	for _, p := range s.pairs {
		if p.record.Dissolved {
			continue
		}
		if p.record.Name == name {
			return p, nil
		}
		if len(name) >= 4 && strings.HasPrefix(keyOf(p.record.Endpoint), name) {
			if found != nil {
				return nil, invalid("%q begins several endpoints", name)
			}
			found = p
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: no site %q", engine.ErrNotFound, name)
	}
	return found, nil
}

// Offers lists the open invitations, oldest first.
func (s *Site) Offers() []Offer {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Offer
	for _, o := range s.offers {
		if now.Before(o.Expires) {
			list = append(list, *o)
		}
	}
	slices.SortFunc(list, func(a, b Offer) int { return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Compare tells which registers a site holds otherwise than this node, over the connection that is up.
func (s *Site) Compare(ctx context.Context, name string) (*Comparison, error) {
	p, err := s.find(name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	session := p.session
	s.mu.Unlock()
	if session == nil {
		return nil, fmt.Errorf("%w: %q is not connected", engine.ErrUnavailable, p.record.Name)
	}
	type answer struct {
		c   *Comparison
		err error
	}
	got := make(chan answer, 1)
	if err := session.Compare(func(c *Comparison, err error) { got <- answer{c, err} }); err != nil {
		return nil, err
	}
	select {
	case a := <-got:
		return a.c, a.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
