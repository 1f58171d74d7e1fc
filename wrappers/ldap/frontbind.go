package ldap

import (
	"bytes"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A bindAttempt is a logon whose result has not come.
type bindAttempt struct {
	name      string // of a simple bind
	password  bool   // there is one: not an unauthenticated bind (RFC 4513, section 5.1.2)
	mechanism string // "": simple
	user      string // of SASL, as far as its messages tell
}

// clearMechanisms agree on no security layer. What is not among them may.
var clearMechanisms = map[string]bool{
	"PLAIN": true, "LOGIN": true, "ANONYMOUS": true, "EXTERNAL": true, "CRAM-MD5": true, "OAUTHBEARER": true, "XOAUTH2": true,
	"SCRAM-SHA-1": true, "SCRAM-SHA-1-PLUS": true, "SCRAM-SHA-256": true, "SCRAM-SHA-256-PLUS": true, "SCRAM-SHA-512": true, "SCRAM-SHA-512-PLUS": true,
}

// bind notes a logon, which passes.
func (h *frontSession) bind(f *ldapwire.Frame, frame []byte) (relay.Step, error) {
	var q ldapwire.BindRequest
	if err := f.DecodeBody(frame, &q); err != nil {
		return relay.Step{Pass: len(frame)}, nil // the server will say what it thinks of it
	}
	a := &bindAttempt{name: q.Name, password: len(q.Simple) > 0}
	if q.SASL != nil {
		a.mechanism = strings.ToUpper(q.SASL.Mechanism)
		if a.mechanism == "EXTERNAL" && h.r.vouches() {
			h.r.link.Count("external_refused", 1)
			return h.answer(f, ldapwire.AuthMethodNotSupported, "EXTERNAL would be the gateway itself here, not its client", len(frame))
		}
		a.user = saslUser(a.mechanism, q.SASL.Credentials)
	}
	h.mu.Lock()
	if a.mechanism != "" && a.user == "" {
		a.user = h.saslUser // said in an earlier message of the same exchange
	}
	h.saslUser = a.user
	h.who.Principal, h.who.Verified, h.name = "", false, "" // RFC 4513, section 4
	h.mu.Unlock()
	h.track(f.MessageID, &request{op: f.Op, bind: a})
	return relay.Step{Pass: len(frame)}, nil
}

// bound notes who the client is now.
func (h *frontSession) bound(a *bindAttempt, code ldapwire.ResultCode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if code != ldapwire.SaslBindInProgress {
		h.saslUser = ""
	}
	if code != ldapwire.Success {
		return
	}
	switch {
	case a.mechanism != "":
		h.who.Principal, h.who.Verified = h.r.principal(a.user), a.mechanism != "ANONYMOUS"
		if !clearMechanisms[a.mechanism] {
			h.layered.Store(true)
		}
	case a.password:
		h.who.Principal, h.who.Verified, h.name = h.r.principal(a.name), true, a.name
	}
}

// saslUser takes the user's name from a message of a SASL exchange, "" where it has none.
func saslUser(mechanism string, credentials []byte) string {
	switch {
	case mechanism == "PLAIN": // RFC 4616, section 2
		if parts := bytes.SplitN(credentials, []byte{0}, 3); len(parts) == 3 {
			if len(parts[0]) > 0 {
				return string(parts[0]) // whom he acts for
			}
			return string(parts[1])
		}
	case strings.HasPrefix(mechanism, "SCRAM-"): // RFC 5802, section 7: gs2-header, then n=user
		parts := strings.SplitN(string(credentials), ",", 4)
		if len(parts) < 4 || strings.HasPrefix(parts[0], "c=") {
			return ""
		}
		if who, ok := strings.CutPrefix(parts[1], "a="); ok {
			return unSCRAM(who)
		}
		if who, ok := strings.CutPrefix(parts[2], "n="); ok {
			return unSCRAM(who)
		}
	case mechanism == "DIGEST-MD5": // RFC 2831, section 2.1.2
		_, rest, ok := strings.Cut(string(credentials), `username="`)
		if name, _, closed := strings.Cut(rest, `"`); ok && closed {
			return name
		}
	case mechanism == "CRAM-MD5": // RFC 2195, section 2
		if i := bytes.LastIndexByte(credentials, ' '); i > 0 {
			return string(credentials[:i])
		}
	}
	return ""
}

func unSCRAM(s string) string { return strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s) }
