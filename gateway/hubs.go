package gateway

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	pairlink "github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/engine/link/hub"
	"github.com/spooksystems/gateway/engine/link/hub/embedded"
)

// hubDir holds what an embedded hub keeps, below the domain's directory.
const hubDir = "hub"

// openHubs takes the domains onto their hubs. One that can't be reached now is come to later.
func (g *Gateway) openHubs(ctx context.Context) error {
	config := g.generation.Load().config
	for i := range config.Hubs {
		block := &config.Hubs[i]
		d := g.domains.named(block.Domain)
		log := g.log.With("domain", d.name)
		o := hub.Options{
			Engine: d.store, Site: d.site, Domain: d.name, Name: config.Sites.Name, URLs: block.URLs, JetStream: block.JetStream, MaxAge: block.MaxAge,
			MaxBytes: int64(block.MaxBytes), Replicas: int(block.Replicas), Forget: block.Forget, Log: log,
			Auth: hub.Auth{Credentials: block.Credentials, NKey: block.NKey, Token: block.Token.Reveal(), User: block.User, Password: block.Password.Reveal(), TLS: block.tls()},
		}
		if block.Embedded {
			so := block.server(filepath.Join(d.dir, hubDir))
			so.Log = log
			s, err := embedded.Start(so)
			if err != nil {
				return fmt.Errorf("domain %q: %w", d.name, err)
			}
			d.own = s
			o.Local, o.Auth.TLS = s, nil
			g.log.Info("a hub runs in this process", "domain", d.name, "listen", block.Listen)
		}
		var err error
		if d.hub, err = hub.Open(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// closeHubs leaves the hubs, and ends those that this process runs.
func (g *Gateway) closeHubs() error {
	var err error
	for _, d := range g.domains.list {
		if d.hub != nil {
			err = errors.Join(err, d.hub.Close())
		}
		if d.own != nil {
			err = errors.Join(err, d.own.Close())
		}
	}
	return err
}

// A HubStatus is this gateway's place on the NATS that the domain rides on.
type HubStatus struct {
	State       string    `json:"state"` // entangled: on it, decohered: not
	Since       time.Time `json:"since"`
	Server      string    `json:"server,omitempty"` // where it is connected, or was
	URLs        []string  `json:"urls,omitempty"`   // none: it runs in this process
	Listen      string    `json:"listen,omitempty"` // where one that runs in this process is reached
	Stored      uint64    `json:"stored_bytes"`
	BytesIn     uint64    `json:"bytes_in"` // of the stream, since the start
	BytesOut    uint64    `json:"bytes_out"`
	In          uint64    `json:"candidates_in"`
	Out         uint64    `json:"candidates_out"`
	Connections uint64    `json:"connections"`
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// addHub adds a domain's hub, and the members that are heard on it. A name that two have is told apart.
func addHub(ctx context.Context, d *domain, out *Sites) error {
	if d.hub == nil {
		return nil
	}
	s := d.hub.State()
	out.Hub = &HubStatus{
		State: string(s.State), Since: s.Since, Server: s.Server, URLs: s.URLs, Stored: s.Stored, BytesIn: s.Figures.BytesIn, BytesOut: s.Figures.BytesOut,
		In: s.Figures.CandidatesIn, Out: s.Figures.CandidatesOut, Connections: s.Rounds, LastError: s.Failure, LastErrorAt: s.Failed,
	}
	if d.own != nil {
		if at := d.own.Addr(); at != nil {
			out.Hub.Listen = at.String()
		}
	}
	list, err := d.hub.Status(ctx)
	if err != nil {
		return err
	}
	for i := range list {
		m := siteStatus(&list[i])
		m.Via = "hub"
		named := func(o SiteStatus) bool { return o.Name == m.Name && o.State != string(pairlink.DissolvedPair) }
		if slices.ContainsFunc(out.Sites, named) {
			m.Name = hex.EncodeToString(list[i].Endpoint[:8])
		}
		for n := 2; slices.ContainsFunc(out.Sites, named); n++ {
			m.Name = fmt.Sprintf("%s-%d", hex.EncodeToString(list[i].Endpoint[:8]), n)
		}
		out.Sites = append(out.Sites, m)
	}
	return nil
}
