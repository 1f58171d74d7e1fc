package gateway

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"sync"

	"golang.org/x/text/secure/precis"

	"github.com/spooksystems/gateway/wrappers"
)

// scramIterations is the least that RFC 7677 allows, which every client takes.
const scramIterations = 4096

// scramSeed makes salts: the same for a name while the process runs, also for a name that no user has.
var scramSeed = sync.OnceValue(func() []byte {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails
	return b
})

// scramKept are keys that were made before: it takes thousands of hashes.
var scramKept sync.Map // of sha256 of name and password to wrappers.ScramKeys

// Scram implements wrappers.Logon.
func (l *logon) Scram(name string) (wrappers.ScramKeys, string, bool) {
	for _, u := range l.table.users() {
		if u.nameIn(l.protocol) == name && !u.Password.Empty() {
			return scramKeys(name, u.Password), u.Name, true
		}
	}
	return scramKeys(name, NewSecret(string(scramSeed()))), "", false
}

func scramKeys(name string, password Secret) wrappers.ScramKeys {
	h := hmac.New(sha256.New, scramSeed())
	h.Write([]byte(name))
	salt := h.Sum(nil)[:16]
	h.Write([]byte("\x00" + password.Reveal()))
	id := string(h.Sum(nil))
	if k, ok := scramKept.Load(id); ok {
		return k.(wrappers.ScramKeys)
	}
	text := password.Reveal()
	if prepared, err := precis.OpaqueString.String(text); err == nil { // as clients do (RFC 5802, section 2.2)
		text = prepared
	}
	salted, err := pbkdf2.Key(sha256.New, text, salt, scramIterations, sha256.Size)
	if err != nil {
		return wrappers.ScramKeys{Salt: salt, Iterations: scramIterations, StoredKey: make([]byte, sha256.Size), ServerKey: make([]byte, sha256.Size)}
	}
	sum := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	stored := sha256.Sum256(sum(salted, "Client Key"))
	k := wrappers.ScramKeys{Salt: salt, Iterations: scramIterations, StoredKey: stored[:], ServerKey: sum(salted, "Server Key")}
	if known := password.Reveal() != string(scramSeed()); known {
		scramKept.Store(id, k)
	}
	return k
}
