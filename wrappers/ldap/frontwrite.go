package ldap

import (
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A change is what a request does to one entry.
type change struct {
	verb wrappers.Verb
	name dn.DN
	at   string // address, "" outside of base
	// below: it does so to all entries below as well.
	below bool
	// to is where the entry and those below it come, of a modifyDN.
	to dn.DN
}

// request looks at one whole message of the client. The step it gives passes the frame, or drops it.
func (h *frontSession) request(f *ldapwire.Frame, frame, b []byte) (relay.Step, error) {
	h.layered.Store(false) // it is readable: no security layer was agreed
	pass := relay.Step{Pass: len(frame)}
	if !h.secured && !h.plainly(f, frame) {
		h.r.link.Count("plain_refused", 1)
		return h.answer(f, ldapwire.ConfidentialityRequired, "this gateway wants TLS first: StartTLS, or ldaps", len(frame))
	}
	switch f.Op {
	case ldapwire.OpBindRequest:
		return h.bind(f, frame)
	case ldapwire.OpExtendedRequest:
		return h.extended(f, frame, b)
	case ldapwire.OpModifyRequest, ldapwire.OpAddRequest, ldapwire.OpDelRequest, ldapwire.OpModifyDNRequest:
		return h.write(f, frame)
	case ldapwire.OpSearchRequest, ldapwire.OpCompareRequest:
		return h.read(f, frame)
	case ldapwire.OpAbandonRequest:
		var q ldapwire.AbandonRequest
		if f.DecodeBody(frame, &q) == nil {
			if gone := h.take(q.MessageID); gone != nil {
				h.forget(gone)
			}
			h.done() // it has no result now
		}
	}
	return pass, nil
}

// plainly tells whether a request may come before TLS where the gateway has TLS: what leads to it, and what tells nothing.
func (h *frontSession) plainly(f *ldapwire.Frame, frame []byte) bool {
	switch f.Op {
	case ldapwire.OpUnbindRequest, ldapwire.OpAbandonRequest:
		return true
	case ldapwire.OpExtendedRequest:
		var q ldapwire.ExtendedRequest
		return f.DecodeBody(frame, &q) == nil && q.Name == ldapwire.OIDStartTLS
	case ldapwire.OpSearchRequest:
		var q ldapwire.SearchRequest
		return f.DecodeBody(frame, &q) == nil && q.BaseObject == "" && q.Scope == ldapwire.ScopeBaseObject // the root DSE
	}
	return false
}

// write looks at a request that changes entries.
func (h *frontSession) write(f *ldapwire.Frame, frame []byte) (relay.Step, error) {
	pass := relay.Step{Pass: len(frame)}
	if h.nobodys(f, frame) {
		return pass, nil
	}
	m, err := ldapwire.Decode(frame)
	if err != nil {
		return pass, nil // the server will say what it thinks of it
	}
	c, ok := h.changeOf(m)
	if !ok {
		return pass, nil
	}
	who, name := h.author(m.Controls)
	q := &request{op: f.Op}
	concerned, err := h.concerns(&c, who)
	if err != nil {
		h.tap(h.tapped(m, &c, who), "refused: "+wrappers.Reason(err))
		h.r.link.Count("refused_access", 1)
		return h.answer(f, resultCode(err), wrappers.Reason(err), len(frame))
	}
	if !concerned {
		op := h.tapped(m, &c, who)
		if h.r.cfg.Refuse {
			h.tap(op, "refused: no bind maps it")
			return h.answer(f, ldapwire.UnwillingToPerform, "no bind maps this entry", len(frame))
		}
		if !h.r.link.Recording() {
			h.tap(op, "passed")
			return pass, nil
		}
		q.taps = append(q.taps, op)
		h.track(f.MessageID, q)
		return pass, nil
	}
	if t := ldapwire.FindControl(m.Controls, ldapwire.OIDTransaction); t != nil {
		q.part = h.group(string(t.Value))
	}
	note := func(d dn.DN) {
		key := d.Key()
		q.writes = append(q.writes, noted{key, h.r.wire.begin(key, who, name)})
	}
	note(c.name)
	if c.to != nil {
		note(c.to)
	}
	if !h.track(f.MessageID, q) {
		for _, n := range q.writes {
			h.r.wire.end(n.key, n.x, false)
		}
		return h.answer(f, ldapwire.Busy, "too many writes of this session wait for their results", len(frame))
	}
	return pass, nil
}

// nobodys lets a write pass that is of one entry which no bind has, from a look at its name alone.
func (h *frontSession) nobodys(f *ldapwire.Frame, frame []byte) bool {
	if h.r.cfg.Refuse || f.HasControls || f.Op == ldapwire.OpModifyDNRequest || h.r.link.Recording() {
		return false
	}
	raw, ok := f.Entry(frame)
	if !ok {
		return false
	}
	name, err := dn.Parse(string(raw))
	if err != nil || len(name) == 0 {
		return false
	}
	verb := verbOf[f.Op]
	at, below := h.spelled(name).Address(h.r.opts.base)
	if below && h.r.link.Maps(verb, "", at) {
		return false
	}
	if !below {
		at = string(raw)
	}
	who, _ := h.author(nil)
	h.tap(wrappers.Operation{Verb: verb, Address: at, Who: who}, "passed")
	return true
}

var verbOf = map[ldapwire.Op]wrappers.Verb{
	ldapwire.OpAddRequest: wrappers.Put, ldapwire.OpModifyRequest: wrappers.Merge, ldapwire.OpDelRequest: wrappers.Delete, ldapwire.OpModifyDNRequest: wrappers.Rename,
}

// changeOf tells what a message changes; false: nothing that could be told.
func (h *frontSession) changeOf(m *ldapwire.Message) (change, bool) {
	c := change{verb: verbOf[m.Body.Op()]}
	var err error
	switch q := m.Body.(type) {
	case *ldapwire.AddRequest:
		c.name, err = dn.Parse(q.Entry)
	case *ldapwire.ModifyRequest:
		c.name, err = dn.Parse(q.Object)
	case *ldapwire.DelRequest:
		c.name, err = dn.Parse(q.Entry)
		c.below = ldapwire.FindControl(m.Controls, ldapwire.OIDTreeDelete) != nil
	case *ldapwire.ModifyDNRequest:
		c.below = true
		var rdn, parent dn.DN
		if c.name, err = dn.Parse(q.Entry); err != nil {
			break
		}
		parent = c.name.Parent()
		if q.NewSuperior != nil {
			if parent, err = dn.Parse(*q.NewSuperior); err != nil {
				break
			}
		}
		if rdn, err = dn.Parse(q.NewRDN); err == nil {
			c.to = rdn.Join(parent)
		}
	}
	if err != nil || len(c.name) == 0 {
		return c, false
	}
	c.name = h.spelled(c.name)
	if c.to != nil {
		c.to = h.spelled(c.to)
	}
	c.at, _ = c.name.Address(h.r.opts.base)
	return c, true
}

// spelled gives an entry's name with the attributes as the server's schema calls them, where only that is mapped: a name can be
// written by any of an attribute's names.
func (h *frontSession) spelled(name dn.DN) dn.DN {
	if at, ok := name.Address(h.r.opts.base); !ok || h.r.link.Maps(wrappers.Merge, "", at) {
		return name
	}
	types := h.r.types.Load()
	other, same := name.Renamed(func(t string) string { return types.Name(t) })
	if same {
		return name
	}
	if at, ok := other.Address(h.r.opts.base); ok && h.r.link.Maps(wrappers.Merge, "", at) {
		return other
	}
	return name
}

// concerns tells whether a change is of entries that are mapped. The error, if its author may not make it.
func (h *frontSession) concerns(c *change, who wrappers.Who) (bool, error) {
	link, base := h.r.link, h.r.opts.base
	concerned := false
	check := func(verb wrappers.Verb, address string) error {
		if address == "" || !link.Maps(verb, "", address) {
			return nil
		}
		concerned = true
		return link.May(verb, "", address, who)
	}
	first := c.verb
	if first == wrappers.Rename {
		first = wrappers.Delete
	}
	if err := check(first, c.at); err != nil {
		return true, err
	}
	if c.to != nil {
		to, _ := c.to.Address(base)
		if err := check(wrappers.Put, to); err != nil {
			return true, err
		}
	}
	if !c.below {
		return concerned, nil
	}
	// What stands below goes along.
	prefix, under := "", c.at != ""
	if under {
		prefix = c.at + dn.Separator
	} else if _, above := base.Below(c.name); above {
		under = true
	}
	if c.to != nil && h.holds(c.to) {
		concerned = true
	}
	if !under || !link.Maps(wrappers.List, "", prefix) {
		return concerned, nil
	}
	concerned = true
	for item, err := range link.Scan(h.s.Context(), wrappers.Operation{Verb: wrappers.List, Address: prefix}) {
		if err != nil {
			break // nothing is known to be there
		}
		if err := check(wrappers.Delete, item.Address); err != nil {
			return true, err
		}
		if c.to == nil {
			continue
		}
		rel, err := dn.ParseAddress(item.Address)
		if err != nil {
			continue
		}
		if below, ok := rel.Join(base).Below(c.name); ok {
			to, _ := below.Join(c.to).Address(base)
			if err := check(wrappers.Put, to); err != nil {
				return true, err
			}
		}
	}
	return concerned, nil
}

// holds tells whether mapped entries may stand below a name.
func (h *frontSession) holds(name dn.DN) bool {
	at, ok := name.Address(h.r.opts.base)
	if !ok {
		return name.Equal(h.r.opts.base)
	}
	return h.r.link.Maps(wrappers.List, "", at+dn.Separator)
}

// author tells who a request is of: as whom the client is bound, or for whom it acts (RFC 4370). name is his DN, "" where
// that isn't known.
func (h *frontSession) author(controls []ldapwire.Control) (who wrappers.Who, name string) {
	h.mu.Lock()
	who, name = h.who, h.name
	h.mu.Unlock()
	if c := ldapwire.FindControl(controls, ldapwire.OIDProxiedAuthz); c != nil {
		id := string(c.Value)
		if d, ok := strings.CutPrefix(id, "dn:"); ok {
			who.Principal, name = h.r.principal(d), d
		} else {
			who.Principal, name = h.r.principal(strings.TrimPrefix(id, "u:")), ""
		}
	}
	return who, name
}

// tap shows an operation that concerns no register.
func (h *frontSession) tap(op wrappers.Operation, outcome string) { h.r.link.Tap(op, outcome) }

// tapped is a request as operators are shown it: without a payload unless somebody records, and never with passwords.
func (h *frontSession) tapped(m *ldapwire.Message, c *change, who wrappers.Who) wrappers.Operation {
	op := wrappers.Operation{Verb: c.verb, Address: h.shown(c.name), Who: who}
	if c.to != nil {
		op.To = h.shown(c.to)
	}
	if !h.r.link.Recording() {
		return op
	}
	var list []ldapwire.PartialAttribute
	switch q := m.Body.(type) {
	case *ldapwire.AddRequest:
		list = q.Attributes
	case *ldapwire.ModifyRequest:
		for _, ch := range q.Changes {
			if ch.Operation != ldapwire.ModifyIncrement && (ch.Operation != ldapwire.ModifyDelete || len(ch.Modification.Vals) == 0) {
				list = append(list, ch.Modification)
			}
		}
	}
	list = slices.Clone(list)
	for i := range list {
		if entry.Secret(list[i].Type) {
			list[i].Vals = [][]byte{[]byte("***")}
		}
	}
	if p, err := h.r.types.Load().Everything().Payload(list); err == nil {
		op.Payload = p
	}
	return op
}

// shown is an entry's address, or its name where it stands outside of base.
func (h *frontSession) shown(name dn.DN) string {
	if at, ok := name.Address(h.r.opts.base); ok {
		return at
	}
	return name.String()
}

// read looks at a search or a comparison: where what no bind maps is refused, and while somebody records.
func (h *frontSession) read(f *ldapwire.Frame, frame []byte) (relay.Step, error) {
	pass := relay.Step{Pass: len(frame)}
	var of string
	verb := wrappers.Read
	switch f.Op {
	case ldapwire.OpSearchRequest:
		var q ldapwire.SearchRequest
		if f.DecodeBody(frame, &q) != nil {
			return pass, nil
		}
		if of = q.BaseObject; q.Scope != ldapwire.ScopeBaseObject {
			verb = wrappers.List
		}
	case ldapwire.OpCompareRequest:
		var q ldapwire.CompareRequest
		if f.DecodeBody(frame, &q) != nil {
			return pass, nil
		}
		of = q.Entry
	}
	name, err := dn.Parse(of)
	if err != nil || len(name) == 0 { // the root DSE is everybody's
		return pass, nil
	}
	who, _ := h.author(nil)
	at, inside := name.Address(h.r.opts.base)
	mapped := inside && h.r.link.Maps(wrappers.Read, "", at)
	prefix := ""
	if inside {
		prefix = at + dn.Separator
	}
	if !mapped && (inside || name.Equal(h.r.opts.base)) {
		mapped = h.r.link.Maps(wrappers.List, "", prefix)
	}
	if mapped {
		return pass, nil
	}
	op := wrappers.Operation{Verb: verb, Address: h.shown(name), Who: who}
	if !h.r.cfg.Refuse || h.schema(name) {
		h.tap(op, "passed")
		return pass, nil
	}
	h.tap(op, "refused: no bind maps it")
	return h.answer(f, ldapwire.UnwillingToPerform, "no bind maps this entry", len(frame))
}

// schema tells whether a name is that of a subschema subentry, which clients read before anything else.
func (h *frontSession) schema(name dn.DN) bool {
	return len(name) == 1 && len(name[0]) == 1 && strings.EqualFold(name[0][0].Type, "cn") && strings.EqualFold(name[0][0].Value, "subschema") ||
		len(name) > 0 && len(name[0]) == 1 && (strings.EqualFold(name[0][0].Value, "aggregate") || strings.EqualFold(name[0][0].Value, "schema"))
}
