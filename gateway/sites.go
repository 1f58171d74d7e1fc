package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	pairlink "github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/engine/link/hub"
)

// openSites begins to keep up the pairs of every domain, and opens the door for those who call.
func (g *Gateway) openSites(ctx context.Context, block SitesBlock) error {
	var sites []*pairlink.Site
	for _, d := range g.domains.list {
		others, err := hub.Known(d.store)
		if err != nil {
			return fmt.Errorf("the members of domain %q: %w", d.name, err)
		}
		s, err := pairlink.Open(pairlink.Options{Engine: d.store, Domain: d.name, Log: g.log.With("domain", d.name), Others: others})
		if err != nil {
			return fmt.Errorf("the pairs of domain %q: %w", d.name, err)
		}
		d.site = s
		sites = append(sites, s)
	}
	if err := g.openHubs(ctx); err != nil {
		return err
	}
	if block.Listen == "" {
		return nil
	}
	network, at, err := pairlink.SplitAddress(block.Listen)
	if err != nil {
		return err
	}
	var socket net.Listener
	if network == "unix" {
		socket, err = openSocketPath(ctx, at)
	} else {
		var lc net.ListenConfig
		socket, err = lc.Listen(ctx, network, at)
	}
	if err != nil {
		return fmt.Errorf("sites.listen: %w", err)
	}
	g.siteDoor = pairlink.Listen(socket, g.log, sites...)
	return nil
}

// closeSites ends all connections to other sites.
func (g *Gateway) closeSites() error {
	var err error
	if g.siteDoor != nil {
		err = g.siteDoor.Close()
		if a := g.siteDoor.Addr(); a.Network() == "unix" {
			_ = os.Remove(a.String())
		}
	}
	err = errors.Join(err, g.closeHubs())
	for _, d := range g.domains.list {
		if d.site != nil {
			err = errors.Join(err, d.site.Close())
		}
	}
	return err
}

// siteAddress is what an invitation names: where this gateway is reached by others.
func (g *Gateway) siteAddress() (string, error) {
	block := g.generation.Load().config.Sites
	switch {
	case g.siteDoor == nil:
		return "", errors.New("this gateway can't be called by other sites: give it a block `sites { listen = \"0.0.0.0:8610\" }` and start it anew, or invite from the other site")
	case block.Address != "":
		return block.Address, nil
	}
	at := g.siteDoor.Addr()
	if at.Network() == "unix" {
		return block.Listen, nil
	}
	host, _, err := net.SplitHostPort(at.String())
	if err != nil {
		return "", err
	}
	if anyHost(host) {
		return "", fmt.Errorf("sites.listen is %s, which is no address that another site could call: say where it is reached with `address` in the sites block, or with --address", at)
	}
	return at.String(), nil
}
