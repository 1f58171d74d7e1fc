package gateway

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
	pairlink "github.com/spooksystems/gateway/engine/link"
)

// A SiteStatus is this gateway's half of one pair.
type SiteStatus struct {
	Name        string    `json:"name"`
	Endpoint    string    `json:"endpoint"` // all of it
	State       string    `json:"state"`    // accepted, reentangling, entangled, decohered, dissolved
	Since       time.Time `json:"since"`    // of the state
	Made        time.Time `json:"made"`
	Address     string    `json:"address,omitempty"` // where it is called; none: it calls
	Remote      string    `json:"remote,omitempty"`  // where it is connected; none: it is not
	LacksThere  uint64    `json:"lacks_there"`       // candidates that it lacks, as far as is known here
	LacksHere   uint64    `json:"lacks_here"`        // candidates that it has and this gateway lacks
	Flying      uint64    `json:"unacknowledged_bytes"`
	BytesIn     uint64    `json:"bytes_in"` // of frames, since the start
	BytesOut    uint64    `json:"bytes_out"`
	In          uint64    `json:"candidates_in"`
	Out         uint64    `json:"candidates_out"`
	Registers   uint64    `json:"registers_in"` // of states
	States      uint64    `json:"states_in"`    // taken whole, since its log did not reach back far enough
	Connections uint64    `json:"connections"`
	Root        string    `json:"root,omitempty"` // over its registers, as it last said
	Level       bool      `json:"level"`          // it knows the same candidates as this gateway
	Heard       time.Time `json:"heard,omitzero"`
	Via         string    `json:"via"`           // pair, hub
	SkewMS      int64     `json:"clock_skew_ms"` // how far its clock is ahead of this one
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// An OpenOffer is an invitation that nobody has used yet.
type OpenOffer struct {
	ID      string    `json:"id"`
	Name    string    `json:"name,omitempty"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
}

// Sites are the pairs of one domain.
type Sites struct {
	Domain   string       `json:"domain"`
	Endpoint string       `json:"endpoint"` // this gateway's
	Root     string       `json:"root"`
	Listen   string       `json:"listen,omitempty"` // where other sites call
	Hub      *HubStatus   `json:"hub,omitempty"`    // none: the domain is on none
	Sites    []SiteStatus `json:"sites"`
	Offers   []OpenOffer  `json:"offers"`
}

func siteStatus(s *pairlink.Status) SiteStatus {
	out := SiteStatus{
		Via: "pair", Name: s.Name, Endpoint: hex.EncodeToString(s.Endpoint[:]), State: string(s.State), Since: s.Since, Made: s.Made, Address: s.Address, Remote: s.Remote,
		LacksThere: s.LacksThere, LacksHere: s.LacksHere, Flying: s.Unacknowledged, BytesIn: s.Figures.BytesIn, BytesOut: s.Figures.BytesOut,
		In: s.Figures.CandidatesIn, Out: s.Figures.CandidatesOut, Registers: s.Figures.RegistersIn, States: s.Figures.States, Connections: s.Sessions,
		Level: s.Level, Heard: s.Heard, SkewMS: s.Skew.Milliseconds(), LastError: s.Failure, LastErrorAt: s.Failed,
	}
	if s.Root != ([32]byte{}) {
		out.Root = hex.EncodeToString(s.Root[:])
	}
	return out
}

// sitesOf gives the pairs of a domain.
func (g *Gateway) sitesOf(ctx context.Context, d *domain) (*Sites, error) {
	own, err := d.store.Summary(ctx) // of what is durable, and so of what readers are shown
	if err != nil {
		return nil, err
	}
	list, err := d.site.Status(ctx)
	if err != nil {
		return nil, err
	}
	out := &Sites{Domain: d.name, Endpoint: hex.EncodeToString(own.Endpoint[:]), Root: hex.EncodeToString(own.Root[:]), Sites: []SiteStatus{}, Offers: []OpenOffer{}}
	if g.siteDoor != nil {
		out.Listen = g.siteDoor.Addr().String()
	}
	for i := range list {
		out.Sites = append(out.Sites, siteStatus(&list[i]))
	}
	if err := addHub(ctx, d, out); err != nil {
		return nil, err
	}
	for _, o := range d.site.Offers() {
		out.Offers = append(out.Offers, OpenOffer{o.ID, o.Name, o.Made, o.Expires})
	}
	return out, nil
}

var errNoSites = errors.New("the gateway is still starting")

// siteOf gives the site of the domain that a session is about.
func siteOf(s *session) (*pairlink.Site, error) {
	if s.domain.site == nil {
		return nil, errNoSites
	}
	return s.domain.site, nil
}

func (g *Gateway) callSites(ctx context.Context, s *session, _ json.RawMessage) (any, error) {
	if _, err := siteOf(s); err != nil {
		return nil, err
	}
	return g.sitesOf(ctx, s.domain)
}

// A PairOffer is an invitation for one other site.
type PairOffer struct {
	Invitation string    `json:"invitation"`
	ID         string    `json:"id"`
	Address    string    `json:"address"`
	Expires    time.Time `json:"expires"`
}

// defaultOfferAge is how long an invitation may be used.
const defaultOfferAge = 24 * time.Hour

func (g *Gateway) callPairOffer(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var name, address, valid string
	if err := wire.Members(params, wire.Member{Name: "name", Into: &name}, wire.Member{Name: "address", Into: &address}, wire.Member{Name: "valid", Into: &valid}); err != nil {
		return nil, paramError(err)
	}
	site, err := siteOf(s)
	if err != nil {
		return nil, err
	}
	age := defaultOfferAge
	if valid != "" {
		if age, err = time.ParseDuration(valid); err != nil {
			return nil, paramError(fmt.Errorf("valid: %w", err))
		}
	}
	at, err := g.siteAddress()
	if err != nil && (address == "" || g.siteDoor == nil) {
		return nil, err
	}
	if address == "" {
		address = at
	}
	i, err := site.Offer(ctx, name, address, age)
	if err != nil {
		return nil, err
	}
	return PairOffer{Invitation: i.String(), ID: i.ID(), Address: address, Expires: i.Expires}, nil
}

func (g *Gateway) callPairAccept(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var text, name string
	if err := wire.Members(params, wire.Member{Name: "invitation", Into: &text}, wire.Member{Name: "name", Into: &name}); err != nil {
		return nil, paramError(err)
	}
	site, err := siteOf(s)
	if err != nil {
		return nil, err
	}
	i, err := pairlink.ParseInvitation(text)
	if err != nil {
		return nil, err
	}
	r, err := site.Accept(ctx, i, name)
	if err != nil {
		return nil, err
	}
	return map[string]any{"name": r.Name, "endpoint": hex.EncodeToString(r.Endpoint[:]), "address": r.Address}, nil
}

func (g *Gateway) callPairWithdraw(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	return g.callPair(s, params, "id", func(site *pairlink.Site, id string) error { return site.Withdraw(ctx, id) })
}

func (g *Gateway) callPairDissolve(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	return g.callPair(s, params, "site", func(site *pairlink.Site, name string) error {
		err := site.Dissolve(ctx, name)
		if errors.Is(err, engine.ErrNotFound) && s.domain.hub != nil {
			return s.domain.hub.Forget(ctx, name)
		}
		return err
	})
}

func (g *Gateway) callPair(s *session, params json.RawMessage, member string, do func(*pairlink.Site, string) error) (any, error) {
	var name string
	if err := wire.Members(params, wire.Member{Name: member, Into: &name}); err != nil {
		return nil, paramError(err)
	}
	site, err := siteOf(s)
	if err != nil {
		return nil, err
	}
	return nil, do(site, name)
}

// A Verification says which registers another site holds otherwise than this gateway.
type Verification struct {
	Site  string   `json:"site"`
	Equal bool     `json:"equal"`
	Level bool     `json:"level"` // both know the same candidates: what differs then is damage or a bug
	Root  string   `json:"root"`
	Peer  string   `json:"peer_root"`
	Both  []string `json:"differ"` // registers that both hold, differently
	Here  []string `json:"here"`   // that this gateway holds alone
	There []string `json:"there"`  // that the other holds alone
}

// shrunk is for more names than a message holds: the first ones are enough to begin with.
func (v Verification) shrunk() any {
	const most = 1000
	v.Both, v.Here, v.There = v.Both[:min(most, len(v.Both))], v.Here[:min(most, len(v.Here))], v.There[:min(most, len(v.There))]
	return v
}

func (g *Gateway) callVerify(ctx context.Context, s *session, params json.RawMessage) (any, error) {
	var name string
	if err := wire.Members(params, wire.Member{Name: "site", Into: &name}); err != nil {
		return nil, paramError(err)
	}
	site, err := siteOf(s)
	if err != nil {
		return nil, err
	}
	c, err := site.Compare(ctx, name)
	if errors.Is(err, engine.ErrNotFound) && s.domain.hub != nil {
		c, err = s.domain.hub.Compare(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	return Verification{
		Site: name, Equal: c.Equal(), Level: c.Level, Root: hex.EncodeToString(c.Root[:]), Peer: hex.EncodeToString(c.Peer[:]),
		Both: orEmpty(c.Both), Here: orEmpty(c.Here), There: orEmpty(c.There),
	}, nil
}

func orEmpty(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
