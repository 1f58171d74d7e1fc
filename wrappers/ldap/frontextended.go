package ldap

import (
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A group is a transaction (RFC 5805): its writes count when it is committed.
type group struct {
	writes []noted
	commit bool // it is being ended so
}

// mostGroups bounds the transactions that one session may have open.
const mostGroups = 100

// extended looks at an extended request.
func (h *frontSession) extended(f *ldapwire.Frame, frame, b []byte) (relay.Step, error) {
	pass := relay.Step{Pass: len(frame)}
	var q ldapwire.ExtendedRequest
	if err := f.DecodeBody(frame, &q); err != nil {
		return pass, nil // the server will say what it thinks of it
	}
	switch q.Name {
	case ldapwire.OIDStartTLS:
		return h.startTLS(f, frame, b)
	case ldapwire.OIDPasswordModify:
		return h.passwordModify(f, frame, &q)
	case ldapwire.OIDStartTransaction:
		h.track(f.MessageID, &request{op: f.Op, starts: true})
	case ldapwire.OIDEndTransaction:
		commit, id, err := ldapwire.DecodeEndTransaction(q.Value)
		if err != nil {
			break
		}
		h.mu.Lock()
		g := h.groups[id]
		delete(h.groups, id)
		h.mu.Unlock()
		if g != nil {
			g.commit = commit
			h.track(f.MessageID, &request{op: f.Op, ends: g})
		}
	}
	return pass, nil
}

// startTLS ends TLS here where the gateway has a certificate, and is the server's matter where it has none.
func (h *frontSession) startTLS(f *ldapwire.Frame, frame, b []byte) (relay.Step, error) {
	cfg := h.r.frontTLS()
	switch {
	case cfg == nil:
		if !h.r.saidTLS.Swap(true) {
			h.r.log().Warn("a client asks for TLS, and this wrapper has no tls block: the server is asked, and what it encrypts can't be read here", "peer", h.peer)
		}
		h.track(f.MessageID, &request{op: f.Op, tls: true})
		return relay.Step{Pass: len(frame)}, nil
	case h.secured:
		return h.answer(f, ldapwire.OperationsError, "TLS stands already", len(frame))
	case h.inFlight.Load() > 0 || h.held.Load() > 0:
		return h.answer(f, ldapwire.OperationsError, "other requests have not ended", len(frame)) // RFC 4511, section 4.14.1
	}
	yes := (&ldapwire.Message{MessageID: f.MessageID, Body: &ldapwire.ExtendedResponse{Name: ldapwire.OIDStartTLS}}).Encode()
	if err := h.s.ToTLS(yes, b[len(frame):], cfg); err != nil {
		return relay.Step{}, err
	}
	h.secured = true
	h.r.link.Count("starttls", 1)
	return relay.Step{Drop: len(b)}, nil
}

// passwordModify notes a new password (RFC 3062). It is nobody's to see: the feed shows what the server makes of it, where
// a bind names the attribute.
func (h *frontSession) passwordModify(f *ldapwire.Frame, frame []byte, q *ldapwire.ExtendedRequest) (relay.Step, error) {
	pass := relay.Step{Pass: len(frame)}
	user, err := ldapwire.DecodePasswordModifyUser(q.Value)
	if err != nil {
		return pass, nil
	}
	controls, _ := f.DecodeControls(frame)
	who, bound := h.author(controls)
	if user == "" {
		user = bound
	}
	name, err := dn.Parse(user)
	if err != nil || len(name) == 0 {
		return pass, nil // not known by a DN: the feed will tell
	}
	name = h.spelled(name)
	c := change{verb: wrappers.Merge, name: name}
	c.at, _ = name.Address(h.r.opts.base)
	concerned, err := h.concerns(&c, who)
	op := wrappers.Operation{Verb: wrappers.Merge, Address: h.shown(name), Who: who}
	switch {
	case err != nil:
		h.tap(op, "refused: "+wrappers.Reason(err))
		h.r.link.Count("refused_access", 1)
		return h.answer(f, resultCode(err), wrappers.Reason(err), len(frame))
	case !concerned && h.r.cfg.Refuse:
		h.tap(op, "refused: no bind maps it")
		return h.answer(f, ldapwire.UnwillingToPerform, "no bind maps this entry", len(frame))
	}
	r := &request{op: f.Op}
	if concerned {
		key := name.Key()
		r.writes = append(r.writes, noted{key, h.r.wire.begin(key, who, bound)})
	} else {
		r.taps = append(r.taps, op)
	}
	h.track(f.MessageID, r)
	return pass, nil
}

// started notes the identifier of a transaction.
func (h *frontSession) started(f *ldapwire.Frame, frame []byte, code ldapwire.ResultCode) {
	var q ldapwire.ExtendedResponse
	if code != ldapwire.Success || f.DecodeBody(frame, &q) != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.groups == nil {
		h.groups = map[string]*group{}
	}
	if len(h.groups) < mostGroups {
		h.groups[string(q.Value)] = &group{}
	}
}

// group gives the transaction of that identifier; nil: none that the server has begun.
func (h *frontSession) group(id string) *group {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.groups[id]
}
