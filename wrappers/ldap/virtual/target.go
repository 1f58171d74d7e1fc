package virtual

import (
	"errors"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// target is the entry that a request is about, as a name below the base.
type target struct {
	name    dn.DN
	key     string
	address string
	members map[string]wrappers.Member
	pattern *wrappers.Pattern
	open    bool
}

// target finds out what may be written at a name.
func (se *session) target(text string) (*target, error) {
	name, err := dn.Parse(text)
	if err != nil {
		return nil, fail(ldapwire.InvalidDNSyntax, "%v", err)
	}
	t := &target{name: name, key: se.s.types().NormalDN(name)}
	if _, inside := name.Below(se.s.base); !inside {
		if se.special(name) != nil {
			return nil, fail(ldapwire.UnwillingToPerform, "this entry is the server's own")
		}
		return nil, se.s.noSuch(name)
	}
	var ok bool
	if t.address, ok = name.Address(se.s.base); !ok {
		return nil, fail(ldapwire.UnwillingToPerform, "%s is the naming context, and no register", text)
	}
	if r := se.s.tree.get(t.key); r != nil && r.address != "" {
		t.address = r.address
	}
	if !se.s.link.Maps(wrappers.Put, "", t.address) {
		return nil, fail(ldapwire.UnwillingToPerform, "no bind maps %s", t.address)
	}
	types := se.s.entryTypes()
	t.members, t.pattern, t.open, ok = se.s.bound.Load().members(t.address, func(n string) string { return strings.ToLower(types.Name(n)) })
	if !ok {
		return nil, fail(ldapwire.UnwillingToPerform, "no bind maps %s", t.address)
	}
	return t, nil
}

// takes tells whether a bind takes what is written to an attribute.
func (t *target) takes(se *session, description string) bool {
	if m, ok := t.members[strings.ToLower(se.s.entryTypes().Name(description))]; ok {
		return m.In
	}
	_, ok := se.s.entryTypes().MembersOf(t.pattern).Name(description)
	return ok && t.open
}

// speaks tells whether a bind speaks of an attribute, in either direction.
func (t *target) speaks(se *session, description string) bool {
	_, ok := t.members[strings.ToLower(se.s.entryTypes().Name(description))]
	return ok
}

// payload makes the payload of attributes that a bind takes.
func (t *target) payload(se *session, attrs []attribute) (wrappers.Payload, error) {
	list := make([]ldapwire.PartialAttribute, 0, len(attrs))
	for _, a := range attrs {
		if t.takes(se, a.name) {
			list = append(list, ldapwire.PartialAttribute{Type: a.name, Vals: a.values})
		}
	}
	return se.s.entryTypes().MembersOf(t.pattern).Payload(list)
}

// typed finds the type of an attribute that a client writes. One that no standard has is taken where a bind speaks of it.
func (t *target) typed(se *session, description string, values [][]byte) (attribute, error) {
	base, _ := schema.SplitOptions(description)
	if se.s.types().Attribute(base) == nil && !t.takes(se, description) {
		return attribute{}, fail(ldapwire.UndefinedAttributeType, "%s: attribute type undefined", description)
	}
	a, ok := se.s.attributeOf(description, values)
	if !ok {
		return a, fail(ldapwire.UndefinedAttributeType, "%s: not the name of an attribute", description)
	}
	if a.typ.NoUserModification {
		return a, fail(ldapwire.ConstraintViolation, "%s: no user modification allowed", a.name)
	}
	return a, nil
}

// violation gives the result for what the schema does not allow.
func violation(err error) error {
	var v *schema.Violation
	if !errors.As(err, &v) {
		return err
	}
	code := map[schema.Broken]ldapwire.ResultCode{
		schema.ClassViolation: ldapwire.ObjectClassViolation, schema.UndefinedAttribute: ldapwire.UndefinedAttributeType,
		schema.TooManyValues: ldapwire.ConstraintViolation, schema.BadSyntax: ldapwire.InvalidAttributeSyntax,
		schema.NotModifiable: ldapwire.ConstraintViolation, schema.DuplicateValue: ldapwire.AttributeOrValueExists,
	}[v.Kind]
	return fail(code, "%s", v.Text)
}

// checkEntry holds a whole entry against the schema: what its classes require is there, and nothing else but what a bind speaks
// of by name.
func (t *target) checkEntry(se *session, attrs []attribute) error {
	var classes []string
	var types []*schema.AttributeType
	names := map[*schema.AttributeType]string{}
	for i := range attrs {
		a := &attrs[i]
		types = append(types, a.typ)
		names[a.typ] = a.name
		if a.typ.OID == oidObjectClass {
			classes = texts(a.values)
		}
	}
	return violation(se.s.types().CheckClasses(classes, types, func(at *schema.AttributeType) bool {
		return t.speaks(se, names[at]) || len(at.Extensions) > 0 && strings.HasSuffix(at.OID, "-oid")
	}))
}

// checkTaken refuses what would be lost: attributes that no bind speaks of. Those of the entry's name are in its address. It gives
// those that a bind shows and does not take, object classes among them: their values are the mapping's.
func (t *target) checkTaken(se *session, attrs []attribute) (shown []attribute, err error) {
	for i := range attrs {
		a := &attrs[i]
		switch {
		case t.takes(se, a.name) || se.s.inName(t.name, a):
		case t.speaks(se, a.name):
			shown = append(shown, *a)
		case a.typ.OID == oidObjectClass: // nobody gives any
		default:
			return nil, fail(ldapwire.ObjectClassViolation, "attribute '%s' not allowed: no bind of %s takes it", a.name, t.address)
		}
	}
	return shown, nil
}

// checkShown holds an entry that was made against what the client said of attributes that are the mapping's.
func (se *session) checkShown(r *record, said []attribute) error {
	for i := range said {
		a := &said[i]
		has := r.attribute(a.typ)
		if a.typ.OID == oidObjectClass {
			all, _, err := se.s.types().Classes(r.objectClasses())
			if err != nil {
				return nil // the mapping's own matter
			}
			for _, c := range all {
				has = append(slices.Clip(has), []byte(c.Name()))
			}
		}
		for _, v := range a.values {
			if se.s.indexOf(a.typ, has, v) < 0 {
				return fail(ldapwire.ConstraintViolation, "%s: the mapping gives it %q here, and takes no %q", a.name, has, v)
			}
		}
	}
	return nil
}

// inName tells whether an attribute has no values but those that the entry's own name has.
func (s *server) inName(name dn.DN, a *attribute) bool {
	if len(a.options) > 0 {
		return false
	}
	for _, v := range a.values {
		found := false
		for _, ava := range name[0] {
			if t := s.types().Attribute(ava.Type); t == a.typ && s.indexOf(t, [][]byte{[]byte(ava.Value)}, v) == 0 {
				found = true
			}
		}
		if !found {
			return false
		}
	}
	return true
}
