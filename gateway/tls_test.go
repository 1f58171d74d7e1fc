package gateway

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"testing"
	"time"
)

// makeCertificate gives a certificate for 127.0.0.1 that signs itself, and its key.
func makeCertificate(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// serial asks a wrapper's listener for its certificate, through its TLS configuration.
func (s *stage) serial(name string) int64 {
	s.t.Helper()
	s.g.mu.Lock()
	r := s.g.running[name]
	s.g.mu.Unlock()
	c := r.cert.config(r.block.TLS)
	pair, err := c.GetCertificate(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	return pair.Leaf.SerialNumber.Int64()
}

// A renewed certificate is taken up by a reload that ends no session, and by a wrapper that is
// started again.
func TestReloadCertificate(t *testing.T) {
	s := newStage(t, oneWrapper, nil)
	s.stop()
	put := func(serial int64) {
		cert, key := makeCertificate(t, serial)
		s.write("cert.pem", cert)
		s.write("key.pem", key)
	}
	put(1)
	s.configure("wrapper \"line\" \"a\" {\n  listen = \"127.0.0.1:0\"\n  tls {\n    cert = \"cert.pem\"\n    key  = \"key.pem\"\n  }\n}\n")
	s.start()
	p := s.dial("a") // the fake protocol speaks in the clear, whatever its TLS configuration says
	p.ask("who", "a calm")
	if got := s.serial("a"); got != 1 {
		t.Errorf("got certificate %d, want 1", got)
	}
	put(2)
	if r := s.reload(); len(r.Kept) != 1 {
		t.Errorf("got %+v, want the wrapper kept", r)
	}
	if got := s.serial("a"); got != 2 {
		t.Errorf("after the reload: got certificate %d, want 2", got)
	}
	p.ask("who", "a calm")
	s.write("key.pem", "nonsense")
	s.refused()
	if got := s.serial("a"); got != 2 {
		t.Errorf("after a bad reload: got certificate %d, want 2", got)
	}
}

func TestDialTLS(t *testing.T) {
	cert, key := makeCertificate(t, 7)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("hello\n"))
			c.Close()
		}
	}()
	for name, test := range map[string]struct {
		block DialTLS
		ok    bool
	}{
		"its authority":      {DialTLS{CA: []byte(cert)}, true},
		"the system's":       {DialTLS{}, false},
		"another name":       {DialTLS{CA: []byte(cert), ServerName: "broker.example"}, false},
		"the name by itself": {DialTLS{CA: []byte(cert), ServerName: "127.0.0.1"}, true},
	} {
		c, err := tls.Dial("tcp", l.Addr().String(), test.block.config(l.Addr().String()))
		if (err == nil) != test.ok {
			t.Errorf("%s: got %v, want success %v", name, err, test.ok)
		}
		if err == nil {
			if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || line != "hello\n" {
				t.Errorf("%s: got %q, %v", name, line, err)
			}
			c.Close()
		}
	}
}
