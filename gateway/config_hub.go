package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"slices"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/engine/link/hub/embedded"
	"github.com/spooksystems/gateway/mapping/diag"
)

// A HubBlock says on which NATS a domain rides.
type HubBlock struct {
	Domain      string
	URLs        []string
	Embedded    bool
	Listen      string // of an embedded hub, host:port; "": reached from this process alone
	Leaf        string // where it takes in leaf nodes, host:port
	Credentials string // path
	NKey        string // path
	Token       Secret
	User        string
	Password    Secret
	JetStream   string
	MaxAge      time.Duration
	MaxBytes    uint64
	Replicas    int64
	Forget      time.Duration

	ca         []byte // PEM
	pair       *tls.Certificate
	pem        []byte // of the certificate
	serverName string
}

var (
	hubSchema = diag.Schema{
		What: "domain",
		Attrs: []string{
			"nats", "embedded", "listen", "leaf", "credentials", "nkey", "token", "user", "password", "jetstream", "max_age", "max_bytes", "replicas", "forget",
		},
		Blocks: []diag.Block{{Type: "tls", Once: true}},
	}
	hubTLSSchema = diag.Schema{What: "tls of a domain", Attrs: []string{"ca", "cert", "key", "server_name"}}
)

var natsSchemes = []string{"nats", "tls", "ws", "wss"}

// The bounds of what a hub keeps.
const (
	maxHubAge   = 10 * 365 * 24 * time.Hour
	minHubBytes = 16 << 20
)

// hub reads a domain block.
func (l *loader) hub(b *hclsyntax.Block) {
	content := l.Decode(b.Body, b.DefRange(), hubSchema)
	at := content.Attrs
	h := HubBlock{Domain: b.Labels[0], MaxAge: 7 * 24 * time.Hour, MaxBytes: 1 << 30, Replicas: 1, Forget: 30 * 24 * time.Hour}
	if !slices.Contains(l.config.Domains, h.Domain) {
		l.errorAt("GW070", b.LabelRanges[0], "no such domain", "\"domains\" names %s.", quoted(l.config.Domains))
	}
	if slices.ContainsFunc(l.config.Hubs, func(o HubBlock) bool { return o.Domain == h.Domain }) {
		l.errorAt("GW070", b.LabelRanges[0], "a domain twice", "There is a block domain %q already.", h.Domain)
	}
	l.boolean(at["embedded"], &h.Embedded)
	if l.texts(at["nats"], &h.URLs) {
		for _, s := range h.URLs {
			if u, err := url.Parse(s); err != nil || !slices.Contains(natsSchemes, u.Scheme) || u.Host == "" || u.User != nil {
				l.errorAt("GW011", at["nats"].Expr.Range(), "bad address", "%q is no URL of a NATS server, as \"nats://hub.example.org:4222\", without a password in it.", s)
			}
		}
	}
	switch {
	case h.Embedded && len(h.URLs) > 0:
		l.errorAt("GW070", at["nats"].Expr.Range(), "two hubs", "\"nats\" names servers elsewhere, \"embedded\" runs one here: say one of both.")
	case !h.Embedded && len(h.URLs) == 0:
		l.errorAt("GW070", b.DefRange(), "no hub", "Say where it is, nats = [\"nats://…\"], or embedded = true.")
	}
	for name, into := range map[string]*string{"listen": &h.Listen, "leaf": &h.Leaf} {
		a := at[name]
		if !l.text(a, into) {
			continue
		}
		if !h.Embedded {
			l.errorAt("GW070", a.NameRange, "nobody listens there", "%q is of a hub that this process runs: embedded = true.", name)
		} else if l.address(a, *into) {
			l.listen = append(l.listen, listenAt{*into, "domain " + h.Domain, a.Expr.Range()})
		}
	}
	for name, into := range map[string]*string{"credentials": &h.Credentials, "nkey": &h.NKey} {
		a := at[name]
		if !l.text(a, into) {
			continue
		}
		*into = relativeTo(l.dir, *into)
		if h.Embedded {
			l.errorAt("GW070", a.NameRange, "not of an embedded hub", "An embedded hub knows a token, or a user and a password.")
		} else if _, err := l.req.Sources.ReadFile(*into); err != nil {
			l.errorAt("GW042", a.Expr.Range(), "can't read the "+name, "%v.", err)
		}
	}
	l.secret(at["token"], &h.Token)
	l.text(at["user"], &h.User)
	l.secret(at["password"], &h.Password)
	if (at["user"] == nil) != (at["password"] == nil) {
		l.errorAt("GW070", b.DefRange(), "half a user", "\"user\" and \"password\" come together.")
	}
	l.text(at["jetstream"], &h.JetStream)
	l.duration(at["max_age"], time.Minute, maxHubAge, &h.MaxAge)
	l.size(at["max_bytes"], minHubBytes, 1<<50, &h.MaxBytes)
	l.whole(at["replicas"], 1, 5, &h.Replicas)
	l.duration(at["forget"], time.Hour, maxHubAge, &h.Forget)
	for _, inner := range content.Blocks {
		l.hubTLS(inner, &h)
	}
	if h.Embedded {
		o := h.server("")
		if err := o.Check(); err != nil {
			l.errorAt("GW070", b.DefRange(), "who may come in", "%v.", err)
		}
	}
	l.config.Hubs = append(l.config.Hubs, h)
}

func (l *loader) hubTLS(b *hclsyntax.Block, h *HubBlock) {
	c := l.Decode(b.Body, b.DefRange(), hubTLSSchema)
	w := wrapperReading{loader: l}
	h.ca = w.authorities(c.Attrs["ca"])
	l.text(c.Attrs["server_name"], &h.serverName)
	cert, key := c.Attrs["cert"], c.Attrs["key"]
	switch {
	case cert != nil && key != nil:
		h.pair, _, _, h.pem = w.certificate(cert, key)
	case cert != nil || key != nil || h.Embedded:
		l.errorAt("GW040", b.DefRange(), "half a certificate", "\"cert\" and \"key\" come together.")
	}
}

// tls is what a client of the hub shows and wants; nil: as the URL says.
func (h *HubBlock) tls() *tls.Config {
	if h.ca == nil && h.pair == nil && h.serverName == "" {
		return nil
	}
	t := DialTLS{CA: h.ca, pair: h.pair, ServerName: h.serverName}
	c := t.config("")
	c.ServerName = h.serverName // "": that of the URL
	return c
}

// server says how an embedded hub is run.
func (h *HubBlock) server(dir string) embedded.Options {
	o := embedded.Options{Dir: dir, Listen: h.Listen, Leaf: h.Leaf, Token: h.Token.Reveal(), User: h.User, Password: h.Password.Reveal(), MaxBytes: int64(h.MaxBytes + h.MaxBytes/2)}
	if h.pair != nil {
		o.TLS = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*h.pair}}
		if h.ca != nil {
			o.TLS.ClientCAs = x509.NewCertPool()
			o.TLS.ClientCAs.AppendCertsFromPEM(h.ca)
			o.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		}
	}
	return o
}

// equalHubs says whether nothing has changed that would take a restart.
func equalHubs(a, b []HubBlock) bool {
	return slices.EqualFunc(a, b, func(x, y HubBlock) bool {
		return x.Domain == y.Domain && slices.Equal(x.URLs, y.URLs) && x.Embedded == y.Embedded && x.Listen == y.Listen && x.Leaf == y.Leaf &&
			x.Credentials == y.Credentials && x.NKey == y.NKey && x.Token.Equal(y.Token.Reveal()) && x.User == y.User && x.Password.Equal(y.Password.Reveal()) &&
			x.JetStream == y.JetStream && x.MaxAge == y.MaxAge && x.MaxBytes == y.MaxBytes && x.Replicas == y.Replicas && x.Forget == y.Forget &&
			slices.Equal(x.ca, y.ca) && slices.Equal(x.pem, y.pem) && x.serverName == y.serverName
	})
}
