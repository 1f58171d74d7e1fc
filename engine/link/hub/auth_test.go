package hub

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/spooksystems/gateway/engine/link"
)

// keyFile writes a seed where Auth finds it.
func keyFile(t *testing.T, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t *testing.T, make func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string, seed []byte) {
	t.Helper()
	pair, err := make()
	if err != nil {
		t.Fatal(err)
	}
	if public, err = pair.PublicKey(); err != nil {
		t.Fatal(err)
	}
	if seed, err = pair.Seed(); err != nil {
		t.Fatal(err)
	}
	return pair, public, seed
}

// accounts makes a hub's operator with one account that has JetStream, and a user's file of credentials.
func accounts(t *testing.T, o *server.Options) (credentials string) {
	t.Helper()
	operator, operatorKey, _ := newKey(t, nkeys.CreateOperator)
	account, accountKey, _ := newKey(t, nkeys.CreateAccount)
	_, systemKey, _ := newKey(t, nkeys.CreateAccount)
	_, userKey, seed := newKey(t, nkeys.CreateUser)
	sign := func(c jwt.Claims, by nkeys.KeyPair) string {
		t.Helper()
		text, err := c.Encode(by)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	system, claims := jwt.NewAccountClaims(systemKey), jwt.NewAccountClaims(accountKey)
	claims.Limits.JetStreamLimits = jwt.JetStreamLimits{MemoryStorage: -1, DiskStorage: -1, Streams: -1, Consumer: -1}
	resolver := &server.MemAccResolver{}
	for key, c := range map[string]*jwt.AccountClaims{systemKey: system, accountKey: claims} {
		if err := resolver.Store(key, sign(c, operator)); err != nil {
			t.Fatal(err)
		}
	}
	o.TrustedOperators = []*jwt.OperatorClaims{jwt.NewOperatorClaims(operatorKey)}
	o.AccountResolver, o.SystemAccount = resolver, systemKey
	text, err := jwt.FormatUserConfig(sign(jwt.NewUserClaims(userKey), account), seed)
	if err != nil {
		t.Fatal(err)
	}
	return keyFile(t, text)
}

// certificate is one for 127.0.0.1, and the pool of who trusts it.
func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// TestHubLogon: each way to log on lets two nodes meet, and without it nobody is let in.
func TestHubLogon(t *testing.T) {
	for _, test := range []struct {
		name  string
		setUp func(t *testing.T, o *server.Options) Auth
	}{
		{"token", func(_ *testing.T, o *server.Options) Auth {
			o.Authorization = "secret"
			return Auth{Token: "secret"}
		}},
		{"user and password", func(_ *testing.T, o *server.Options) Auth {
			o.Username, o.Password = "plant", "secret"
			return Auth{User: "plant", Password: "secret"}
		}},
		{"nkey", func(t *testing.T, o *server.Options) Auth {
			_, public, seed := newKey(t, nkeys.CreateUser)
			o.Nkeys = []*server.NkeyUser{{Nkey: public}}
			return Auth{NKey: keyFile(t, seed)}
		}},
		{"credentials", func(t *testing.T, o *server.Options) Auth { return Auth{Credentials: accounts(t, o)} }},
		{"client's certificate", func(t *testing.T, o *server.Options) Auth {
			cert, pool := certificate(t)
			o.TLS, o.TLSVerify = true, true
			o.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
			return Auth{TLS: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool, Certificates: []tls.Certificate{cert}}}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := &server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true}
			auth := test.setUp(t, o)
			s, err := server.NewServer(o)
			if err != nil {
				t.Fatal(err)
			}
			s.Start()
			t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
			if !s.ReadyForConnections(readyWithin) {
				t.Fatal("the hub does not start")
			}
			c := &centre{t: t, addr: strings.TrimPrefix(strings.TrimPrefix(s.ClientURL(), "nats://"), "tls://")}
			node := func(name string, auth Auth) *station {
				st := &station{t: t, name: name, centre: c, change: func(o *Options) { o.Auth = auth }}
				st.open.Dir = filepath.Join(t.TempDir(), "data")
				st.start()
				t.Cleanup(st.stop)
				return st
			}
			a, b := node("a", auth), node("b", auth)
			a.put("x", 1)
			b.put("y", 2)
			converge(t, "both have logged on", a, b)
			none := Auth{}
			if auth.TLS != nil {
				none.TLS = auth.TLS.Clone()
				none.TLS.Certificates = nil
			}
			stranger := node("c", none)
			until(t, "the hub refuses a stranger", func() bool { return stranger.hub.State().Failure != "" })
			if got := stranger.hub.State(); got.State != link.Decohered {
				t.Errorf("a stranger is %s: %s", got.State, got.Failure)
			}
			if stranger.has("x", 1) {
				t.Error("a stranger was told")
			}
		})
	}
}

// readyWithin is how long a hub may take to start.
const readyWithin = 30 * time.Second
