package wrappers

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// ScramName is the mechanism's name in SASL.
const ScramName = "SCRAM-SHA-256"

// ErrScram: a client's message is none of SCRAM, or wants what is not served: channel binding, an extension.
var ErrScram = errors.New("the client's SCRAM message is malformed")

// maxScramNonce bounds a client's nonce, in bytes.
const maxScramNonce = 256

// Scram is one exchange of SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding: First, then
// Challenge, then Final.
type Scram struct {
	// User is who the client says it is, and Authzid as whom it wants to act, "" if that is not said.
	User, Authzid string

	keys        ScramKeys
	gs2         string
	clientBare  string
	clientNonce string
	nonce       string
	serverFirst string
}

var scramUnescape = strings.NewReplacer("=2C", ",", "=3D", "=")

// First reads the client's first message. User is empty where it names nobody, as PostgreSQL's clients do.
func (s *Scram) First(msg []byte) error {
	flag, rest, ok := strings.Cut(string(msg), ",")
	if !ok || flag != "n" && flag != "y" {
		return ErrScram
	}
	authzid, bare, ok := strings.Cut(rest, ",")
	if !ok || authzid != "" && !strings.HasPrefix(authzid, "a=") {
		return ErrScram
	}
	fields := strings.Split(bare, ",")
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "n=") || !strings.HasPrefix(fields[1], "r=") {
		return ErrScram // "m=" in the front is an extension that is mandatory
	}
	nonce := fields[1][2:]
	if nonce == "" || len(nonce) > maxScramNonce {
		return ErrScram
	}
	s.User, s.Authzid = scramUnescape.Replace(fields[0][2:]), scramUnescape.Replace(strings.TrimPrefix(authzid, "a="))
	s.gs2, s.clientBare, s.clientNonce = flag+","+authzid+",", bare, nonce
	return nil
}

// Challenge makes the server's first message. Of who is no user the keys are those that fit no password.
func (s *Scram) Challenge(keys ScramKeys) []byte {
	var raw [18]byte
	_, _ = rand.Read(raw[:]) // never fails
	s.keys, s.nonce = keys, s.clientNonce+base64.StdEncoding.EncodeToString(raw[:])
	s.serverFirst = fmt.Sprintf("r=%s,s=%s,i=%d", s.nonce, base64.StdEncoding.EncodeToString(keys.Salt), keys.Iterations)
	return []byte(s.serverFirst)
}

// Final checks the client's proof, and gives the server's. False: the password is wrong.
func (s *Scram) Final(msg []byte) (reply []byte, right bool, err error) {
	without, proof64, ok := strings.Cut(string(msg), ",p=")
	if !ok || strings.Contains(proof64, ",") {
		return nil, false, ErrScram
	}
	fields := strings.Split(without, ",")
	if len(fields) < 2 || fields[1] != "r="+s.nonce {
		return nil, false, ErrScram
	}
	channel, ok := strings.CutPrefix(fields[0], "c=")
	binding, err := base64.StdEncoding.DecodeString(channel)
	if !ok || err != nil || string(binding) != s.gs2 {
		return nil, false, ErrScram
	}
	proof, err := base64.StdEncoding.DecodeString(proof64)
	if err != nil || len(proof) != sha256.Size {
		return nil, false, ErrScram
	}
	auth := []byte(s.clientBare + "," + s.serverFirst + "," + without)
	key := make([]byte, sha256.Size)
	subtle.XORBytes(key, proof, scramMAC(s.keys.StoredKey, auth))
	stored := sha256.Sum256(key)
	if subtle.ConstantTimeCompare(stored[:], s.keys.StoredKey) != 1 {
		return nil, false, nil
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(scramMAC(s.keys.ServerKey, auth))), true, nil
}

func scramMAC(key, msg []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(msg)
	return h.Sum(nil)
}
