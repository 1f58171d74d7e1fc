package wrappers

import (
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"strings"
	"testing"
)

// scramKeysOf are made of a password (RFC 5802, section 3), with the client's key.
func scramKeysOf(t *testing.T, password string) (ScramKeys, []byte) {
	t.Helper()
	salted, err := pbkdf2.Key(sha256.New, password, []byte("salt"), 4096, sha256.Size)
	if err != nil {
		t.Fatal(err)
	}
	client := scramMAC(salted, []byte("Client Key"))
	stored := sha256.Sum256(client)
	return ScramKeys{Salt: []byte("salt"), Iterations: 4096, StoredKey: stored[:], ServerKey: scramMAC(salted, []byte("Server Key"))}, client
}

func TestScram(t *testing.T) {
	keys, _ := scramKeysOf(t, "secret")
	for _, c := range []struct {
		password, first, user, authzid string
	}{
		{"secret", "n,,n=user,r=abc", "user", ""},
		{"secret", "n,,n=,r=abc", "", ""},
		{"secret", "y,a=a=2Cb,n=x=3Dy,r=abc", "x=y", "a,b"},
		{"wrong", "n,,n=user,r=abc", "user", ""},
	} {
		var s Scram
		if err := s.First([]byte(c.first)); err != nil || s.User != c.user || s.Authzid != c.authzid {
			t.Fatalf("%q: got %q as %q, %v", c.first, s.User, s.Authzid, err)
		}
		challenge := string(s.Challenge(keys))
		nonce, _, _ := strings.Cut(challenge, ",")
		flag, rest, _ := strings.Cut(c.first, ",")
		authzid, bare, _ := strings.Cut(rest, ",")
		without := "c=" + base64.StdEncoding.EncodeToString([]byte(flag+","+authzid+",")) + "," + nonce
		auth := []byte(bare + "," + challenge + "," + without)
		mine, client := scramKeysOf(t, c.password)
		proof := make([]byte, len(client))
		subtle.XORBytes(proof, client, scramMAC(mine.StoredKey, auth))
		reply, right, err := s.Final([]byte(without + ",p=" + base64.StdEncoding.EncodeToString(proof)))
		if err != nil || right != (c.password == "secret") {
			t.Errorf("%q, %s: got %v, %v", c.first, c.password, right, err)
		}
		if want := "v=" + base64.StdEncoding.EncodeToString(scramMAC(keys.ServerKey, auth)); right && string(reply) != want {
			t.Errorf("the server's proof is %q, want %q", reply, want)
		}
	}
}

func TestScramRefuses(t *testing.T) {
	var s Scram
	for _, bad := range []string{"", "n", "p=tls-unique,,n=,r=x", "n,,n=user", "n,,m=x,n=,r=a", "n,b,n=,r=a", "n,,r=a,n=x", "n,,n=,r=", "n,,n=,r=" + strings.Repeat("a", maxScramNonce+1)} {
		if s.First([]byte(bad)) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if err := s.First([]byte("n,,n=,r=abc")); err != nil {
		t.Fatal(err)
	}
	keys, _ := scramKeysOf(t, "secret")
	s.Challenge(keys)
	proof := ",p=" + strings.Repeat("A", 43) + "="
	for _, bad := range []string{"", "c=biws,r=abc,p=AAAA", "c=biws,r=" + s.nonce, "c=eSws,r=" + s.nonce + proof, "biws,r=" + s.nonce + proof, "c=biws,r=abc" + proof} {
		if _, right, err := s.Final([]byte(bad)); right || err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, right, err := s.Final([]byte("c=biws,r=" + s.nonce + proof)); right || err != nil {
		t.Errorf("a wrong proof: got %v, %v", right, err)
	}
}

func FuzzScram(f *testing.F) {
	f.Add([]byte("n,,n=user,r=abc"), []byte("c=biws,r=abc,p=AAAA"))
	f.Fuzz(func(t *testing.T, first, final []byte) {
		var s Scram
		if s.First(first) != nil {
			return
		}
		s.Challenge(ScramKeys{Salt: []byte("salt"), Iterations: 4096, StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)})
		if _, right, _ := s.Final(final); right {
			t.Fatal("a proof for keys that fit no password")
		}
	})
}
