package integration_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func itoa(n int) string { return strconv.Itoa(n) }

var (
	secretFile = regexp.MustCompile(`file\("([^"]+)"\)`)
	pemFile    = regexp.MustCompile(`(?m)\b(cert|key|ca|client_ca)\s*=\s*"([^"]+)"`)
	stateDir   = regexp.MustCompile(`"/(var/lib|run)/`)
)

// placeFiles gives the files that a gateway.hcl names a place in dir, with fitting content, and
// the text with these places.
func placeFiles(t *testing.T, dir, text string) string {
	t.Helper()
	place := func(name, content string) string {
		path := filepath.Join(dir, "named", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, path, content)
		return filepath.ToSlash(path)
	}
	text = secretFile.ReplaceAllStringFunc(text, func(s string) string {
		return `file("` + place(secretFile.FindStringSubmatch(s)[1], "hunter2\n") + `")`
	})
	text = pemFile.ReplaceAllStringFunc(text, func(s string) string {
		m := pemFile.FindStringSubmatch(s)
		cert, key := certificate(t)
		if m[1] == "key" {
			cert = key
		}
		return m[1] + ` = "` + place(m[2], cert) + `"`
	})
	return stateDir.ReplaceAllStringFunc(text, func(s string) string {
		return `"` + filepath.ToSlash(dir) + strings.TrimPrefix(s, `"`)
	})
}

var makeCertificate = sync.OnceValues(func() ([2]string, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return [2]string{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return [2]string{}, err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return [2]string{}, err
	}
	return [2]string{
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
	}, nil
})

// certificate makes a certificate with its key, in PEM, once.
func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	pair, err := makeCertificate()
	if err != nil {
		t.Fatal(err)
	}
	return pair[0], pair[1]
}
