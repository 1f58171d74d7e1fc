package virtual

import (
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// extended answers an extended operation (RFC 4511, section 4.12).
func (se *session) extended(m *ldapwire.Message, q *ldapwire.ExtendedRequest) error {
	response := &ldapwire.ExtendedResponse{}
	done := func(r ldapwire.LDAPResult) error {
		response.LDAPResult = r
		return se.send(&ldapwire.Message{MessageID: m.MessageID, Body: response})
	}
	switch q.Name {
	case ldapwire.OIDStartTLS:
		return se.startTLSRequest(done, response)
	case ldapwire.OIDWhoAmI: // RFC 4532
		if q.Value != nil {
			return done(failed(ldapwire.ProtocolError, "Who am I? has no value"))
		}
		response.Value = []byte(se.whoAmI())
		return done(ldapwire.LDAPResult{})
	case ldapwire.OIDPasswordModify:
		made, err := se.passwordModify(context.WithoutCancel(se.ctx), q)
		if err != nil {
			return done(se.s.refused(err))
		}
		if made != "" {
			response.Value = ldapwire.EncodePasswordGenerated(made)
		}
		return done(ldapwire.LDAPResult{})
	case ldapwire.OIDCancel: // RFC 3909
		id, err := ldapwire.DecodeCancel(q.Value)
		if err != nil {
			return done(failed(ldapwire.ProtocolError, "%v", err))
		}
		return done(se.cancelOperation(id))
	}
	return done(failed(ldapwire.ProtocolError, "the extended operation %s is not known", q.Name))
}

func (se *session) startTLSRequest(done func(ldapwire.LDAPResult) error, response *ldapwire.ExtendedResponse) error {
	response.Name = ldapwire.OIDStartTLS
	se.mu.Lock()
	busy := len(se.running) > 0
	se.mu.Unlock()
	switch {
	case se.secure != nil:
		return done(failed(ldapwire.OperationsError, "TLS is there already"))
	case se.s.cfg.TLS == nil:
		return done(failed(ldapwire.Unavailable, "this listener has no certificate"))
	case busy:
		return done(failed(ldapwire.OperationsError, "other operations are not finished"))
	case se.more(): // nothing said in clear may count as said under TLS
		return &ending{ldapwire.ProtocolError, "something was sent behind StartTLS before its answer"}
	}
	if err := done(ldapwire.LDAPResult{}); err != nil {
		return err
	}
	if err := se.startTLS(); err != nil {
		se.s.link.Count("tls_failed", 1)
		return err
	}
	return nil
}

// whoAmI is the authorization identity (RFC 4513, section 5.2.1.8).
func (se *session) whoAmI() string {
	switch {
	case !se.who.Verified:
		return ""
	case se.name != "" && strings.Contains(se.name, "="):
		return "dn:" + se.name
	}
	return "u:" + se.who.Principal
}

// cancelOperation ends an operation, which is answered with canceled before the Cancel is.
func (se *session) cancelOperation(id int32) ldapwire.LDAPResult {
	se.mu.Lock()
	o := se.running[id]
	if o != nil {
		select {
		case <-o.canceled:
		default:
			close(o.canceled)
		}
		o.cancel()
	}
	se.mu.Unlock()
	if o == nil {
		return failed(ldapwire.NoSuchOperation, "no operation with the message ID %d is at work", id)
	}
	<-o.done
	return ldapwire.LDAPResult{}
}

// passwordModify sets an entry's userPassword (RFC 3062) where a bind takes it. It gives the password that it made, where the
// client said none.
func (se *session) passwordModify(ctx context.Context, q *ldapwire.ExtendedRequest) (made string, err error) {
	p, err := ldapwire.DecodePasswordModify(q.Value)
	if err != nil {
		return "", fail(ldapwire.ProtocolError, "%v", err)
	}
	if !se.who.Verified {
		return "", fail(ldapwire.StrongerAuthRequired, "only who is logged on sets passwords")
	}
	name := string(p.UserIdentity)
	if name == "" {
		if name = se.name; name == "" {
			return "", fail(ldapwire.UnwillingToPerform, "whose password? The logon was made without a DN")
		}
	}
	name = strings.TrimPrefix(name, "dn:")
	t, err := se.target(name)
	if err != nil {
		return "", err
	}
	if !t.takes(se, "userPassword") {
		return "", fail(ldapwire.UnwillingToPerform, "no bind of %s takes userPassword", t.address)
	}
	next := string(p.NewPasswd)
	if p.NewPasswd == nil {
		made = rand.Text()
		next = made
	} else if next == "" {
		return "", fail(ldapwire.ConstraintViolation, "an empty password")
	}
	m := &ldapwire.Message{Body: &ldapwire.ModifyRequest{}}
	_, err = se.guarded(ctx, m, t, func(r *record) (wrappers.Operation, error) {
		had := r.attribute(se.s.types().Attribute("userPassword"))
		if p.OldPasswd != nil && !slices.ContainsFunc(had, func(v []byte) bool { return passwordFits(string(v), string(p.OldPasswd)) }) {
			se.s.link.Count("refused_auth", 1)
			return wrappers.Operation{}, fail(ldapwire.UnwillingToPerform, "the old password is not that")
		}
		a, _ := se.s.attributeOf("userPassword", [][]byte{[]byte(hashPassword(next))})
		payload, err := t.payload(se, []attribute{a})
		return wrappers.Operation{Verb: wrappers.Merge, Address: t.address, Payload: payload, If: asRead(r)}, err
	})
	return made, err
}

// hashPassword is a value of userPassword as directory servers have understood it for longest: {SSHA} (RFC 2307, section
// 5.3, with salt).
func hashPassword(password string) string {
	var salt [8]byte
	_, _ = rand.Read(salt[:]) // never fails
	return "{SSHA}" + base64.StdEncoding.EncodeToString(append(ssha(password, salt[:]), salt[:]...))
}

func ssha(password string, salt []byte) []byte {
	h := sha1.New()
	h.Write([]byte(password))
	h.Write(salt)
	return h.Sum(nil)
}

// passwordFits holds a password against a value of userPassword: in clear, {SHA} or {SSHA}.
func passwordFits(value, password string) bool {
	scheme, rest, ok := strings.Cut(value, "}")
	if !ok || !strings.HasPrefix(value, "{") {
		return value == password
	}
	switch strings.ToUpper(scheme[1:]) {
	case "SSHA", "SHA":
		raw, err := base64.StdEncoding.DecodeString(rest)
		if err != nil || len(raw) < sha1.Size {
			return false
		}
		return slices.Equal(ssha(password, raw[sha1.Size:]), raw[:sha1.Size])
	}
	return false
}
