package gateway

import (
	"github.com/hashicorp/hcl/v2/hclsyntax"

	pairlink "github.com/spooksystems/gateway/engine/link"
	"github.com/spooksystems/gateway/mapping/diag"
)

// A SitesBlock says how other gateways of its domains reach this one.
type SitesBlock struct {
	Name    string // what this gateway is called among those of its domains; "": nothing names it
	Listen  string // host:port, or unix:/path; "": this gateway calls, and nobody calls it
	Address string // what invitations name; "": Listen, where that is one address
}

var siteName = domainName

var sitesSchema = diag.Schema{What: "sites", Attrs: []string{"name", "listen", "address"}}

func (l *loader) sites(b *hclsyntax.Block) {
	content := l.Decode(b.Body, b.DefRange(), sitesSchema)
	s := &l.config.Sites
	if a := content.Attrs["name"]; l.text(a, &s.Name) && !siteName.MatchString(s.Name) {
		l.errorAt("GW004", a.Expr.Range(), "bad site name", "%q: a gateway's name among the sites is 1 to 63 letters, digits, dots, dashes and underscores, and begins with a letter or digit.", s.Name)
	}
	if a := content.Attrs["listen"]; l.text(a, &s.Listen) {
		switch network, at, err := pairlink.SplitAddress(s.Listen); {
		case err != nil:
			l.errorAt("GW011", a.Expr.Range(), "bad address", "%q is neither host:port, as \"0.0.0.0:8610\", nor unix:/path.", s.Listen)
		case network == "unix":
			s.Listen = "unix:" + relativeTo(l.dir, at)
		case l.address(a, at):
			l.listen = append(l.listen, listenAt{s.Listen, "sites", a.Expr.Range()})
		}
	}
	if a := content.Attrs["address"]; l.text(a, &s.Address) {
		if _, _, err := pairlink.SplitAddress(s.Address); err != nil {
			l.errorAt("GW011", a.Expr.Range(), "bad address", "%q is neither host:port, as \"gw-a.example.org:8610\", nor unix:/path.", s.Address)
		}
		if s.Listen == "" {
			l.errorAt("GW011", a.Expr.Range(), "nobody listens there", "\"address\" is where other sites reach \"listen\": give that too.")
		}
	}
}
