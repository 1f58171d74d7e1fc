package virtual

import (
	"math/big"
	"slices"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// An edit is the attributes of an entry while a modify changes them.
type edit struct {
	se      *session
	t       *target
	was     *record
	attrs   []attribute
	touched []string // names, each once
}

// find gives the place of an attribute; -1: the entry has none.
func (e *edit) find(a *attribute) int {
	return slices.IndexFunc(e.attrs, func(o attribute) bool { return o.typ == a.typ && slices.Equal(o.options, a.options) })
}

func (e *edit) change(c *ldapwire.Change) error {
	a, err := e.t.typed(e.se, c.Modification.Type, c.Modification.Vals)
	if err != nil {
		return err
	}
	i := e.find(&a)
	if i >= 0 {
		a.name = e.attrs[i].name
		e.attrs[i].values = slices.Clone(e.attrs[i].values)
	}
	if !slices.Contains(e.touched, a.name) {
		e.touched = append(e.touched, a.name)
	}
	switch c.Operation {
	case ldapwire.ModifyAdd:
		if len(a.values) == 0 {
			return fail(ldapwire.ProtocolError, "%s: no values to add", a.name)
		}
		return e.add(i, a)
	case ldapwire.ModifyDelete:
		return e.delete(i, a)
	case ldapwire.ModifyReplace:
		if i >= 0 {
			e.attrs = slices.Delete(e.attrs, i, i+1)
		}
		if len(a.values) > 0 {
			return e.add(-1, a)
		}
		return nil
	case ldapwire.ModifyIncrement:
		return e.increment(i, a)
	}
	return fail(ldapwire.ProtocolError, "%s: unknown kind of change %d", a.name, c.Operation)
}

func (e *edit) add(i int, a attribute) error {
	if i < 0 {
		if err := violation(e.se.s.types().CheckValues(a.typ, a.values)); err != nil {
			return err
		}
		e.attrs = append(e.attrs, a)
		return nil
	}
	for _, v := range a.values {
		if x := schema.SyntaxOf(a.typ.SyntaxOID()); x != nil && !x.Valid(v) {
			return fail(ldapwire.InvalidAttributeSyntax, "%s: value invalid per syntax", a.name)
		}
		if e.se.s.indexOf(a.typ, e.attrs[i].values, v) >= 0 {
			return fail(ldapwire.AttributeOrValueExists, "%s: the entry has this value", a.name)
		}
		e.attrs[i].values = append(e.attrs[i].values, v)
	}
	if a.typ.SingleValue && len(e.attrs[i].values) > 1 {
		return fail(ldapwire.ConstraintViolation, "attribute '%s' cannot have multiple values", a.name)
	}
	return nil
}

func (e *edit) delete(i int, a attribute) error {
	if i < 0 {
		return fail(ldapwire.NoSuchAttribute, "%s: no such attribute", a.name)
	}
	if len(a.values) == 0 {
		e.attrs = slices.Delete(e.attrs, i, i+1)
		return nil
	}
	if a.typ.EqualityRule() == nil && schema.SyntaxOf(a.typ.SyntaxOID()) == nil {
		return fail(ldapwire.InappropriateMatching, "%s: no equality matching rule", a.name)
	}
	for _, v := range a.values {
		k := e.se.s.indexOf(a.typ, e.attrs[i].values, v)
		if k < 0 {
			return fail(ldapwire.NoSuchAttribute, "%s: no such value", a.name)
		}
		e.attrs[i].values = slices.Delete(e.attrs[i].values, k, k+1)
	}
	if len(e.attrs[i].values) == 0 {
		e.attrs = slices.Delete(e.attrs, i, i+1)
	}
	return nil
}

// increment adds to each value (RFC 4525).
func (e *edit) increment(i int, a attribute) error {
	if len(a.values) != 1 {
		return fail(ldapwire.ProtocolError, "%s: an increment has one value", a.name)
	}
	by, ok := schema.Integer(a.values[0])
	if !ok {
		return fail(ldapwire.InvalidAttributeSyntax, "%s: an increment is an integer", a.name)
	}
	if i < 0 {
		return fail(ldapwire.NoSuchAttribute, "%s: no such attribute", a.name)
	}
	for k, v := range e.attrs[i].values {
		n, ok := schema.Integer(v)
		if !ok {
			return fail(ldapwire.ConstraintViolation, "%s: its value is no integer", a.name)
		}
		e.attrs[i].values[k] = []byte(new(big.Int).Add(n, by).String())
	}
	return nil
}

// finish checks the entry as it is after all changes, and gives the attributes that differ from what they were.
func (e *edit) finish() ([]attribute, error) {
	s := e.se.s
	for _, ava := range e.t.name[0] {
		a, ok := s.attributeOf(ava.Type, [][]byte{[]byte(ava.Value)})
		if !ok {
			continue
		}
		if i := e.find(&a); i < 0 || s.indexOf(a.typ, e.attrs[i].values, a.values[0]) < 0 {
			return nil, fail(ldapwire.NotAllowedOnRDN, "%s: the value is in the entry's name", a.name)
		}
	}
	var out []attribute
	for _, name := range e.touched {
		a, ok := s.attributeOf(name, nil)
		if !ok {
			continue
		}
		a.name = name
		if i := e.find(&a); i >= 0 {
			a = e.attrs[i]
			if err := violation(s.types().CheckValues(a.typ, a.values)); err != nil {
				return nil, err
			}
		}
		before := slices.IndexFunc(e.was.attrs, func(o attribute) bool { return o.typ == a.typ && slices.Equal(o.options, a.options) })
		if before < 0 && len(a.values) == 0 || before >= 0 && same([]attribute{{values: a.values}}, []attribute{{values: e.was.attrs[before].values}}) {
			continue
		}
		if !e.t.takes(e.se, a.name) {
			if a.typ.OID == oidObjectClass {
				return nil, fail(ldapwire.ObjectClassModsProhibited, "the mapping gives %s its object classes", e.t.address)
			}
			return nil, fail(ldapwire.ObjectClassViolation, "attribute '%s' not allowed: no bind of %s takes it", a.name, e.t.address)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, nil
	}
	if err := e.checkClass(out); err != nil {
		return nil, err
	}
	if e.t.checkEntry(e.se, e.was.attrs) != nil {
		return out, nil // it is not as the schema has it already, which no change of this client's is to blame for
	}
	return out, e.t.checkEntry(e.se, e.attrs)
}

// checkClass refuses another structural object class (RFC 4511, section 4.6).
func (e *edit) checkClass(touched []attribute) error {
	for i := range touched {
		if touched[i].typ.OID != oidObjectClass {
			continue
		}
		_, before, err := e.se.s.types().Classes(e.was.objectClasses())
		if err != nil {
			return nil // what it was is not known
		}
		_, after, err := e.se.s.types().Classes(texts(touched[i].values))
		if err != nil {
			return violation(err)
		}
		if before != nil && after != nil && before != after {
			return fail(ldapwire.ObjectClassModsProhibited, "structural object class modification from '%s' to '%s' not allowed", before.Name(), after.Name())
		}
	}
	return nil
}
