package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/engine/link/hub/embedded"
	"github.com/spooksystems/gateway/gateway"
)

func natsVerb(a *app) *cobra.Command {
	var o embedded.Options
	var tokenFile, passwordFile, cert, key, clientCA string
	c := &cobra.Command{
		Use:   "nats",
		Short: "Run a hub: a NATS server with JetStream for small set-ups",
		Long: `Runs a NATS server with JetStream, until it is interrupted. Gateways whose domain blocks name it meet there. It is
a relay: what it loses, the gateways tell it again, so that its directory may be lost, and needs no backup.

A domain of many sites is better served by a NATS cluster of your own. A hub that listens beyond this machine asks for
a token, a user and a password, or client certificates.`,
		Example: `  spookgw nats --data /var/lib/spookgw-hub --listen 127.0.0.1:4222
  spookgw nats --data hub --listen 0.0.0.0:4222 --token-file hub.token --cert hub.pem --key hub.key`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var err error
			if o.Token, err = secretLine(tokenFile); err != nil {
				return err
			}
			if o.Password, err = secretLine(passwordFile); err != nil {
				return err
			}
			if (o.User == "") != (o.Password == "") {
				return usage("--user and --password-file come together")
			}
			if o.TLS, err = hubTLS(cert, key, clientCA); err != nil {
				return err
			}
			if err := o.Check(); err != nil {
				return usage("%v", err)
			}
			o.Log = slog.New(slog.NewTextHandler(a.errs, nil))
			return runHub(c.Context(), a, o)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Dir, "data", "spookgw-hub", "directory of its own")
	f.StringVar(&o.Listen, "listen", "127.0.0.1:4222", "where gateways reach it, HOST:PORT")
	f.StringVar(&o.Leaf, "leaf", "", "where leaf nodes of other sites reach it, HOST:PORT (default: none do)")
	f.StringVar(&tokenFile, "token-file", "", "a file with the token that gateways show")
	f.StringVar(&o.User, "user", "", "the user that gateways and leaf nodes show")
	f.StringVar(&passwordFile, "password-file", "", "a file with that user's password")
	f.StringVar(&cert, "cert", "", "a certificate, PEM: only TLS is spoken then")
	f.StringVar(&key, "key", "", "its key, PEM")
	f.StringVar(&clientCA, "client-ca", "", "authorities of the certificates that clients have to show, PEM")
	f.Int64Var(&o.MaxBytes, "max-bytes", 0, "bytes that it keeps at most (default 2 GiB)")
	return c
}

func runHub(ctx context.Context, a *app, o embedded.Options) error {
	s, err := embedded.Start(o)
	if err != nil {
		return err
	}
	a.say("a hub at %s, in %s", s.Addr(), o.Dir)
	<-ctx.Done()
	return s.Close()
}

func secretLine(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(raw), "\r\n")
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", fmt.Errorf("%s: one line is wanted", path)
	}
	return text, nil
}

func hubTLS(cert, key, clientCA string) (*tls.Config, error) {
	switch {
	case cert == "" && key == "" && clientCA == "":
		return nil, nil
	case cert == "" || key == "":
		return nil, usage("--cert and --key come together, and --client-ca with them")
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if clientCA != "" {
		pem, err := os.ReadFile(clientCA)
		if err != nil {
			return nil, err
		}
		c.ClientCAs = x509.NewCertPool()
		if !c.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New(clientCA + " holds no certificate in PEM form")
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return c, nil
}

// showHub says how this gateway stands with its domain's hub.
func (a *app) showHub(h *gateway.HubStatus) {
	at := strings.Join(h.URLs, " ")
	switch {
	case h.Server != "" && len(h.URLs) > 0:
		at = h.Server
	case len(h.URLs) == 0 && h.Listen != "":
		at = "in this process, at " + h.Listen
	case len(h.URLs) == 0:
		at = "in this process"
	}
	fmt.Fprintf(a.out, "hub\t%s\t%s %s\tsent %s\treceived %s\tit keeps %s\n", at, h.State, since(h.Since), gateway.FormatSize(h.BytesOut), gateway.FormatSize(h.BytesIn), gateway.FormatSize(h.Stored))
	if h.LastError != "" {
		fmt.Fprintf(a.out, "hub: %s ago: %s\n", since(h.LastErrorAt), h.LastError)
	}
}
