package ldap

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// dial opens a connection to the server for one session of the relay, with TLS where the scheme says so.
func (w *wrapper) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{KeepAlive: 15 * time.Second}
	conn, err := d.DialContext(ctx, w.up.Network(), w.up.Addr)
	if err != nil || w.up.TLS == nil {
		return conn, err
	}
	if w.up.Scheme == schemeStartTLS {
		if err := askStartTLS(ctx, conn); err != nil {
			conn.Close()
			return nil, fmt.Errorf("StartTLS: %w", err)
		}
	}
	return overTLS(ctx, conn, w.up.TLS)
}

// vouches tells whether the gateway's own connections to the server are known there as somebody without a password: by a
// client certificate, or as a process of the same machine. Then no client may bind by SASL EXTERNAL: it would be the gateway.
func (w *wrapper) vouches() bool {
	if strings.HasPrefix(w.up.Addr, "/") {
		return true
	}
	c := w.up.TLS
	return c != nil && (len(c.Certificates) > 0 || c.GetClientCertificate != nil)
}

// frontTLS is the configuration for clients; nil: there is none.
func (w *wrapper) frontTLS() *tls.Config { return w.cfg.TLS }
