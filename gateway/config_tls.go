package gateway

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A ListenTLS is a listener's tls block.
type ListenTLS struct {
	CertFile, KeyFile string
	ClientCA          []byte // PEM; nil: no client certificate is asked for
	pair              *tls.Certificate
}

// A DialTLS is an upstream's tls block, or an upstream of a TLS scheme without one.
type DialTLS struct {
	CA         []byte // PEM; nil: the system's
	Cert       []byte // PEM of our own certificate, for comparison
	ServerName string // "": the upstream's host
	pair       *tls.Certificate
}

// tls reads both blocks. Where only one side can have TLS, `tls` is that side's; in a relay `tls`
// is the listener's and `upstream_tls` the server's.
func (w *wrapperReading) tls() {
	listens, dials := w.content.Attrs["listen"] != nil, w.content.Attrs["upstream"] != nil
	var listen, dial *hclsyntax.Block
	put := func(to **hclsyntax.Block, b *hclsyntax.Block) {
		if *to != nil {
			w.errorAt("HCL010", b.DefRange(), "second "+b.Type+" block", "The first stands at %s.", fileLine((*to).DefRange()))
		}
		*to = b
	}
	for _, b := range w.content.Blocks {
		switch {
		case b.Type == "tls" && (listens || !dials):
			put(&listen, b)
		case b.Type == "tls":
			put(&dial, b)
		case b.Type == "upstream_tls" && !dials:
			w.errorAt("GW017", b.DefRange(), "no upstream", "\"upstream_tls\" is for the server behind this wrapper, and it has none. For the listener, write tls { … }.")
		case b.Type == "upstream_tls":
			put(&dial, b)
		}
	}
	if listen != nil {
		w.listenTLS(listen)
	}
	if dial != nil {
		w.dialTLS(dial)
	}
}

var (
	listenTLSSchema = diag.Schema{
		What: "tls of a listener", Attrs: []string{"cert", "key", "client_ca"}, Need: []string{"cert", "key"},
	}
	dialTLSSchema = diag.Schema{What: "tls of an upstream", Attrs: []string{"ca", "cert", "key", "server_name"}}
)

func (w *wrapperReading) listenTLS(b *hclsyntax.Block) {
	c := w.Decode(b.Body, b.DefRange(), listenTLSSchema)
	t := &ListenTLS{}
	t.pair, t.CertFile, t.KeyFile, _ = w.certificate(c.Attrs["cert"], c.Attrs["key"])
	t.ClientCA = w.authorities(c.Attrs["client_ca"])
	w.out.TLS = t
}

func (w *wrapperReading) dialTLS(b *hclsyntax.Block) {
	c := w.Decode(b.Body, b.DefRange(), dialTLSSchema)
	cert, key := c.Attrs["cert"], c.Attrs["key"]
	t := DialTLS{CA: w.authorities(c.Attrs["ca"])}
	w.text(c.Attrs["server_name"], &t.ServerName)
	switch {
	case cert != nil && key != nil:
		t.pair, _, _, t.Cert = w.certificate(cert, key)
	case cert != nil || key != nil:
		w.errorAt("GW040", b.DefRange(), "half a certificate", "\"cert\" and \"key\" come together.")
	}
	for i := range w.out.Upstreams {
		up := &w.out.Upstreams[i]
		if up.TLS == nil {
			var secure []string
			for _, s := range w.out.Protocol.Schemes {
				if s.TLS {
					secure = append(secure, s.Name)
				}
			}
			w.errorAt("GW041", b.DefRange(), "upstream without TLS", "The upstream's scheme is %q, which is plain. With TLS it is one of %s.", up.Scheme, quoted(secure))
			return
		}
		each := t
		up.TLS = &each
	}
}

// certificate reads and checks a pair. What is wrong is noted at the attribute it stands in.
func (w *wrapperReading) certificate(cert, key *hclsyntax.Attribute) (pair *tls.Certificate, certFile, keyFile string, pem []byte) {
	if !w.text(cert, &certFile) || !w.text(key, &keyFile) {
		return nil, "", "", nil
	}
	certFile, keyFile = relativeTo(w.dir, certFile), relativeTo(w.dir, keyFile)
	certPEM, err := w.req.Sources.ReadFile(certFile)
	if err != nil {
		w.errorAt("GW042", cert.Expr.Range(), "can't read the certificate", "%v.", err)
		return nil, certFile, keyFile, nil
	}
	keyPEM, err := w.req.Sources.ReadFile(keyFile)
	if err != nil {
		w.errorAt("GW042", key.Expr.Range(), "can't read the key", "%v.", err)
		return nil, certFile, keyFile, nil
	}
	p, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		w.errorAt("GW043", cert.Expr.Range(), "certificate and key don't work", "%v.", err)
		return nil, certFile, keyFile, nil
	}
	if p.Leaf != nil && time.Now().After(p.Leaf.NotAfter) {
		w.warnAt("GW044", cert.Expr.Range(), "certificate expired", "It was valid until %s.", p.Leaf.NotAfter.Format(time.RFC3339))
	}
	return &p, certFile, keyFile, certPEM
}

func (w *wrapperReading) authorities(a *hclsyntax.Attribute) []byte {
	var path string
	if !w.text(a, &path) {
		return nil
	}
	pem, err := w.req.Sources.ReadFile(relativeTo(w.dir, path))
	if err != nil {
		w.errorAt("GW042", a.Expr.Range(), "can't read the authorities", "%v.", err)
		return nil
	}
	if !x509.NewCertPool().AppendCertsFromPEM(pem) {
		w.errorAt("GW042", a.Expr.Range(), "no certificate in it", "%s holds no certificate in PEM form.", path)
	}
	return pem
}

// A certificateHolder is a listener's certificate in force: a renewed one is taken at a reload,
// for new connections, without touching the wrapper.
type certificateHolder struct {
	pair atomic.Pointer[tls.Certificate]
}

func (h *certificateHolder) renew(t *ListenTLS) { h.pair.Store(t.pair) }

func (h *certificateHolder) config(t *ListenTLS) *tls.Config {
	h.pair.CompareAndSwap(nil, t.pair) // a wrapper that is started again keeps what a reload brought
	c := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return h.pair.Load(), nil },
	}
	if t.ClientCA != nil {
		c.ClientCAs = x509.NewCertPool()
		c.ClientCAs.AppendCertsFromPEM(t.ClientCA)
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c
}

func (t *DialTLS) config(addr string) *tls.Config {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if c.ServerName == "" {
		c.ServerName, _, _ = net.SplitHostPort(addr)
	}
	if t.CA != nil {
		c.RootCAs = x509.NewCertPool()
		c.RootCAs.AppendCertsFromPEM(t.CA)
	}
	if t.pair != nil {
		c.Certificates = []tls.Certificate{*t.pair}
	}
	return c
}
