package virtual

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

// SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.

var errSCRAM = errors.New("the client's authentication message is malformed")

const scramName = "SCRAM-SHA-256"

type scram struct {
	keys        wrappers.ScramKeys
	clientBare  string
	serverFirst string
	nonce       string
	gs2         string
}

// first answers the client's first message.
func (s *scram) first(msg []byte) ([]byte, error) {
	m := string(msg)
	flag, rest, ok := strings.Cut(m, ",")
	if !ok || flag != "n" && flag != "y" {
		return nil, errSCRAM
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok || authzid != "" && !strings.HasPrefix(authzid, "a=") {
		return nil, errSCRAM
	}
	s.gs2 = flag + "," + authzid + ","
	s.clientBare = bare
	nonce := ""
	for _, f := range strings.Split(bare, ",") {
		if strings.HasPrefix(f, "m=") {
			return nil, errSCRAM
		}
		if v, ok := strings.CutPrefix(f, "r="); ok {
			nonce = v
		}
	}
	if nonce == "" || len(nonce) > 256 {
		return nil, errSCRAM
	}
	var raw [18]byte
	_, _ = rand.Read(raw[:]) // never fails
	s.nonce = nonce + base64.StdEncoding.EncodeToString(raw[:])
	s.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(s.keys.Salt), s.keys.Iterations)
	return []byte(s.serverFirst), nil
}

// final checks the client's proof, and gives the server's. False: the password is wrong.
func (s *scram) final(msg []byte) ([]byte, bool, error) {
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
	signature := mac(s.keys.StoredKey, auth)
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, proof, signature)
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
