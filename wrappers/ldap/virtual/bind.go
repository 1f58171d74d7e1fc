package virtual

import (
	"bytes"
	"errors"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// SASL mechanisms (RFC 4616; RFC 4422, appendix A; RFC 7677).
const (
	mechPlain    = "PLAIN"
	mechExternal = "EXTERNAL"
	mechScram    = wrappers.ScramName
)

// mechanisms are those that a session can use now.
func (se *session) mechanisms() []string {
	var out []string
	if se.s.cfg.Logon != nil && se.s.cfg.Logon.Any() {
		out = append(out, mechScram)
		if se.s.cfg.TLS == nil || se.secure != nil {
			out = append(out, mechPlain)
		}
	}
	if se.certificateUser() != "" {
		out = append(out, mechExternal)
	}
	return out
}

// certificateUser is whom the client's certificate is of: its common name. The listener has checked it.
func (se *session) certificateUser() string {
	if se.secure == nil {
		return ""
	}
	state := se.secure.ConnectionState()
	if len(state.VerifiedChains) == 0 || len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].Subject.CommonName
}

// A saslExchange is one that goes on with the next bind.
type saslExchange struct {
	scram     wrappers.Scram
	principal string
	known     bool
}

// bind authenticates the session (RFC 4511, section 4.2). What runs is ended before.
func (se *session) bind(m *ldapwire.Message, q *ldapwire.BindRequest) error {
	se.stopAll()
	se.who = wrappers.Who{Peer: se.who.Peer}
	se.name = ""
	response := &ldapwire.BindResponse{}
	done := func(r ldapwire.LDAPResult) error {
		response.LDAPResult = r
		return se.send(&ldapwire.Message{MessageID: m.MessageID, Body: response})
	}
	if c := unknownCritical(m); c != "" {
		return done(failed(ldapwire.UnavailableCriticalExtension, "critical control %s is not known for a bind", c))
	}
	if q.Version != 3 {
		return done(failed(ldapwire.ProtocolError, "LDAP version %d is not spoken; 3 is", q.Version))
	}
	exchange := se.sasl
	se.sasl = nil
	switch {
	case q.SASL != nil:
		creds, r := se.saslBind(exchange, q)
		response.ServerSaslCreds = creds
		if r.ResultCode == ldapwire.InvalidCredentials {
			return se.wrong(done, r)
		}
		return done(r)
	case q.Name == "" && len(q.Simple) == 0: // anonymous (RFC 4513, section 5.1.1)
		if se.s.cfg.Anonymous == wrappers.NoAccess {
			return done(failed(ldapwire.InappropriateAuthentication, "anonymous binds are not taken"))
		}
		se.peer.Welcome()
		return done(ldapwire.LDAPResult{})
	case len(q.Simple) == 0: // unauthenticated (RFC 4513, section 5.1.2)
		return done(failed(ldapwire.UnwillingToPerform, "a name without a password does not log on"))
	}
	if se.s.cfg.TLS != nil && se.secure == nil {
		return done(failed(ldapwire.ConfidentialityRequired, "TLS is required: begin it with StartTLS"))
	}
	principal, err := se.password(q.Name, string(q.Simple))
	if err != nil {
		return se.wrong(done, se.credentials(err))
	}
	se.welcome(principal)
	se.name = q.Name
	return done(ldapwire.LDAPResult{})
}

// credentials is the result of a logon that failed: nothing tells whether it was the name or the password.
func (se *session) credentials(err error) ldapwire.LDAPResult {
	if !errors.Is(err, wrappers.ErrDenied) {
		return se.s.refused(err)
	}
	return ldapwire.LDAPResult{ResultCode: ldapwire.InvalidCredentials}
}

func (se *session) welcome(principal string) {
	se.who.Principal, se.who.Verified = principal, true
	se.fails = 0
	se.peer.Welcome()
}

// Wrong passwords: how long the first one of a session waits for its answer, the longest, and how many there may be.
const (
	wrongFirst   = 250 * time.Millisecond
	wrongLongest = 4 * time.Second
	wrongMost    = 6
)

// wrong answers a logon that failed, slowly, and ends a session that goes on with it.
func (se *session) wrong(done func(ldapwire.LDAPResult) error, r ldapwire.LDAPResult) error {
	se.s.link.Count("refused_auth", 1)
	wait := min(wrongFirst<<se.fails, wrongLongest)
	se.fails++
	select {
	case <-time.After(wait):
	case <-se.ctx.Done():
	}
	if err := done(r); err != nil {
		return err
	}
	if se.fails >= wrongMost {
		return &ending{ldapwire.UnwillingToPerform, "too many logons that failed"}
	}
	return nil
}

// password checks a name and a password: the user whose name in LDAP that is, as a DN below the base or as a word, else the one
// that the first RDN names.
func (se *session) password(name, password string) (principal string, err error) {
	if se.s.cfg.Logon == nil {
		return "", wrappers.ErrDenied
	}
	for _, n := range se.names(name) {
		if principal, err = se.s.cfg.Logon.Password(se.ctx, n, password); err == nil || !errors.Is(err, wrappers.ErrDenied) {
			return principal, err
		}
	}
	return "", wrappers.ErrDenied
}

// names are what the gateway's users may be called where a client says name.
func (se *session) names(name string) []string {
	d, err := dn.Parse(name)
	if err != nil || len(d) == 0 {
		return []string{name}
	}
	out := []string{name}
	if a, ok := d.Address(se.s.base); ok && a != name {
		out = append(out, a)
	}
	if len(d[0]) == 1 {
		out = append(out, d[0][0].Value)
	}
	return out
}

func (se *session) saslBind(exchange *saslExchange, q *ldapwire.BindRequest) (creds []byte, r ldapwire.LDAPResult) {
	switch q.SASL.Mechanism {
	case mechPlain:
		if se.s.cfg.TLS != nil && se.secure == nil {
			return nil, failed(ldapwire.ConfidentialityRequired, "TLS is required: begin it with StartTLS")
		}
		parts := bytes.Split(q.SASL.Credentials, []byte{0})
		if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
			return nil, failed(ldapwire.ProtocolError, "PLAIN is authzid, authcid and password with zero bytes between")
		}
		principal, err := se.password(string(parts[1]), string(parts[2]))
		if err != nil {
			return nil, se.credentials(err)
		}
		return nil, se.authorize(principal, string(parts[0]), string(parts[1]))
	case mechExternal:
		user := se.certificateUser()
		if user == "" {
			return nil, failed(ldapwire.InappropriateAuthentication, "EXTERNAL is for a client with a certificate that the listener has checked")
		}
		return nil, se.authorize(user, string(q.SASL.Credentials), user)
	case mechScram:
		return se.scramBind(exchange, q.SASL.Credentials)
	case "": // a client gives an exchange up (RFC 4513, section 5.2.1.2)
		return nil, failed(ldapwire.AuthMethodNotSupported, "the exchange was given up")
	}
	return nil, failed(ldapwire.AuthMethodNotSupported, "mechanisms are %s", strings.Join(se.mechanisms(), ", "))
}

// authorize lets in a user, as nobody else.
func (se *session) authorize(principal, authzid, authcid string) ldapwire.LDAPResult {
	as := authzid
	if rest, ok := strings.CutPrefix(authzid, "u:"); ok {
		as = rest
	} else if rest, ok := strings.CutPrefix(authzid, "dn:"); ok {
		as = rest
	}
	if as != "" && as != principal && as != authcid {
		return failed(ldapwire.InvalidCredentials, "nobody acts for another here")
	}
	se.welcome(principal)
	return ldapwire.LDAPResult{}
}

func (se *session) scramBind(exchange *saslExchange, creds []byte) ([]byte, ldapwire.LDAPResult) {
	if se.s.cfg.Logon == nil || !se.s.cfg.Logon.Any() {
		return nil, failed(ldapwire.AuthMethodNotSupported, "there are no users")
	}
	if exchange == nil {
		x := &saslExchange{}
		reply, err := x.first(se, creds)
		if err != nil {
			return nil, failed(ldapwire.ProtocolError, "%v", err)
		}
		se.sasl = x
		return reply, ldapwire.LDAPResult{ResultCode: ldapwire.SaslBindInProgress}
	}
	reply, right, err := exchange.scram.Final(creds)
	if err != nil {
		return nil, failed(ldapwire.ProtocolError, "%v", err)
	}
	if !right || !exchange.known {
		return nil, ldapwire.LDAPResult{ResultCode: ldapwire.InvalidCredentials}
	}
	return reply, se.authorize(exchange.principal, exchange.scram.Authzid, exchange.scram.User)
}

func (x *saslExchange) first(se *session, creds []byte) ([]byte, error) {
	if err := x.scram.First(creds); err != nil {
		return nil, err
	}
	if x.scram.User == "" {
		return nil, wrappers.ErrScram
	}
	var keys wrappers.ScramKeys
	for _, n := range se.names(x.scram.User) {
		if keys, x.principal, x.known = se.s.cfg.Logon.Scram(n); x.known {
			break
		}
	}
	return x.scram.Challenge(keys), nil
}
