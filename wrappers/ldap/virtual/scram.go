package virtual

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.
type scram struct {
	keys        wrappers.ScramKeys
	gs2         string
	authzid     string
	clientBare  string
	clientNonce string
	nonce       string
	serverFirst string
}

var errSCRAM = errors.New("the client's SCRAM message is malformed")

// parseFirst reads the client's first message and gives the user's name.
func (s *scram) parseFirst(msg []byte) (name string, err error) {
	flag, rest, ok := strings.Cut(string(msg), ",")
	if !ok || flag != "n" && flag != "y" {
		return "", errSCRAM
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok || authzid != "" && !strings.HasPrefix(authzid, "a=") {
		return "", errSCRAM
	}
	unescape := strings.NewReplacer("=2C", ",", "=3D", "=")
	s.gs2, s.authzid, s.clientBare = flag+","+authzid+",", unescape.Replace(strings.TrimPrefix(authzid, "a=")), bare
	for i, f := range strings.Split(bare, ",") {
		switch {
		case i == 0 && strings.HasPrefix(f, "n="):
			name = unescape.Replace(f[2:])
		case i == 1 && strings.HasPrefix(f, "r="):
			s.clientNonce = f[2:]
		case strings.HasPrefix(f, "m="):
			return "", errSCRAM // an extension that is mandatory
		}
	}
	if name == "" || s.clientNonce == "" || len(s.clientNonce) > 256 {
		return "", errSCRAM
	}
	return name, nil
}

// challenge makes the server's first message.
func (s *scram) challenge() []byte {
	var raw [18]byte
	_, _ = rand.Read(raw[:]) // never fails
	s.nonce = s.clientNonce + base64.StdEncoding.EncodeToString(raw[:])
	s.serverFirst = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(s.keys.Salt) + ",i=" + itoa(s.keys.Iterations)
	return []byte(s.serverFirst)
}

// final checks the client's proof, and gives the server's. False: the password is wrong.
func (s *scram) final(msg []byte) (reply []byte, right bool, err error) {
	without, proof64, ok := strings.Cut(string(msg), ",p=")
	if !ok || strings.Contains(proof64, ",") {
		return nil, false, errSCRAM
	}
	fields := strings.Split(without, ",")
	if len(fields) < 2 || fields[1] != "r="+s.nonce {
		return nil, false, errSCRAM
	}
	binding, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(fields[0], "c="))
	if err != nil || string(binding) != s.gs2 {
		return nil, false, errSCRAM
	}
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != sha256.Size {
		return nil, false, errSCRAM
	}
	auth := []byte(s.clientBare + "," + s.serverFirst + "," + without)
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, proof, mac(s.keys.StoredKey, auth))
	stored := sha256.Sum256(key)
	if subtle.ConstantTimeCompare(stored[:], s.keys.StoredKey) != 1 {
		return nil, false, nil
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(mac(s.keys.ServerKey, auth))), true, nil
}

func mac(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}
