package link

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/spooksystems/gateway/engine"
)

// An identity is a node's key, and the certificate that binds its EndpointID to it.
type identity struct {
	endpoint engine.EndpointID
	cert     tls.Certificate
	key      [32]byte // SHA-256 of the public key (SubjectPublicKeyInfo)
}

const (
	keyTable     = "pairkey"
	keyName      = "self"
	endpointURN  = "spookgw:endpoint:"
	nameLabels   = 32 // hexadecimal digits of the endpoint in the name that is called
	nameSuffix   = ".endpoint.spookgw.invalid"
	protocolName = "http/1.1"
)

// identify reads the node's key, or makes it, and signs a certificate.
func identify(ctx context.Context, e *engine.Engine) (*identity, error) {
	status, err := e.Status(ctx)
	if err != nil {
		return nil, err
	}
	seed, err := e.Kept(keyTable, keyName)
	if err != nil {
		return nil, err
	}
	if seed == nil {
		seed = make([]byte, ed25519.SeedSize)
		if _, err := rand.Read(seed); err != nil {
			return nil, err
		}
		if err := e.KeepRecords(ctx, true, engine.Record{Table: keyTable, Key: keyName, Value: seed}); err != nil {
			return nil, err
		}
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("the node's key has %d bytes", len(seed))
	}
	private := ed25519.NewKeyFromSeed(seed)
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: status.Endpoint.String()},
		NotBefore:    time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, section 4.1.2.5: it has no end
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:         []*url.URL{{Scheme: "urn", Opaque: endpointURN + keyOf(status.Endpoint)}},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &identity{
		endpoint: status.Endpoint, key: sha256.Sum256(cert.RawSubjectPublicKeyInfo),
		cert: tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private, Leaf: cert},
	}, nil
}

// serverName is what a node is called by in TLS, so that a listener of several domains knows who is meant.
func serverName(e engine.EndpointID) string { return keyOf(e)[:nameLabels] + nameSuffix }

// whoIs says who shows a certificate: the endpoint that it names, by the key that it is signed with. That whoever shows it
// has the key is TLS's to prove.
func whoIs(state tls.ConnectionState) (endpoint engine.EndpointID, key [32]byte, err error) {
	if len(state.PeerCertificates) != 1 {
		return endpoint, key, fmt.Errorf("%d certificates instead of one", len(state.PeerCertificates))
	}
	cert := state.PeerCertificates[0]
	if cert.PublicKeyAlgorithm != x509.Ed25519 {
		return endpoint, key, errors.New("a certificate whose key is not Ed25519")
	}
	if err := cert.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
		return endpoint, key, fmt.Errorf("a certificate that is not signed by its own key: %w", err)
	}
	if len(cert.URIs) != 1 || cert.URIs[0].Scheme != "urn" {
		return endpoint, key, errors.New("a certificate that names no endpoint")
	}
	text := []byte(cert.URIs[0].Opaque)
	if !bytes.HasPrefix(text, []byte(endpointURN)) {
		return endpoint, key, errors.New("a certificate that names no endpoint")
	}
	raw, err := hex.DecodeString(string(text[len(endpointURN):]))
	if err != nil || len(raw) != len(endpoint) {
		return endpoint, key, errors.New("a certificate that names no endpoint")
	}
	copy(endpoint[:], raw)
	return endpoint, sha256.Sum256(cert.RawSubjectPublicKeyInfo), nil
}

// calling is the caller's part of TLS: the called must have the pinned key and endpoint.
func (i *identity) calling(peer engine.EndpointID, key [32]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert}, NextProtos: []string{protocolName},
		ServerName: serverName(peer),
		// There is no authority: VerifyConnection holds the key against the pinned one.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			got, gotKey, err := whoIs(state)
			if err != nil {
				return err
			}
			if got != peer || gotKey != key {
				return fmt.Errorf("%w: endpoint %s with the key %x answers, not %s with the key %x", errStranger, got, gotKey[:8], peer, key[:8])
			}
			return nil
		},
	}
}

// called is the other's part: admits says who may come in, as far as it can be said before anything is said.
func (i *identity) called(admits func(engine.EndpointID, [32]byte) error) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{i.cert}, NextProtos: []string{protocolName},
		ClientAuth: tls.RequireAnyClientCert,
		VerifyConnection: func(state tls.ConnectionState) error {
			endpoint, key, err := whoIs(state)
			if err != nil {
				return err
			}
			return admits(endpoint, key)
		},
	}
}

var errStranger = errors.New("another answers at the address of this site")
