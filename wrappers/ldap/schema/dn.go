package schema

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
)

// dnForm is a DN's normal form: types by their OID, values by their equality rules, the parts of an RDN sorted.
func dnForm(s *Schema, v []byte, _ piece) (string, bool) {
	d, err := dn.Parse(string(v))
	if err != nil {
		return "", false
	}
	return s.NormalDN(d), true
}

// rdnEnd and avaEnd separate the parts of a DN's normal form.
const (
	rdnEnd = "\x00"
	avaEnd = "\x01"
)

// NormalDN is the form under which equal names are equal texts (RFC 4517, section 4.2.15). It is no DN.
func (s *Schema) NormalDN(d dn.DN) string {
	var b strings.Builder
	for i, rdn := range d {
		if i > 0 {
			b.WriteString(rdnEnd)
		}
		b.WriteString(s.NormalRDN(rdn))
	}
	return b.String()
}

// NormalRDN is NormalDN of one relative name.
func (s *Schema) NormalRDN(rdn dn.RDN) string {
	if len(rdn) == 1 {
		return s.normalAVA(rdn[0])
	}
	parts := make([]string, len(rdn))
	for i, a := range rdn {
		parts[i] = s.normalAVA(a)
	}
	slices.Sort(parts)
	return strings.Join(parts, avaEnd)
}

func (s *Schema) normalAVA(a dn.AVA) string {
	var t *AttributeType
	if s != nil {
		t = s.Attribute(a.Type)
	}
	name, key, ok := localOID(a.Type), "", false
	switch {
	case t == nil: // nobody knows how its values compare: as names usually do
		key, ok = text(true)(s, []byte(a.Value), whole)
	case t.equality != nil:
		name = lower(t.OID)
		key, ok = t.equality.Key(s, []byte(a.Value))
	default:
		name = lower(t.OID)
	}
	if !ok || strings.ContainsAny(key, rdnEnd+avaEnd) {
		key = "#" + hex.EncodeToString([]byte(a.Value)) // octets could hold the separators
	}
	return name + "=" + key
}

// Below tells how many names the normal form of one DN is below that of another; -1: it is not below it.
func Below(form, base string) int {
	switch {
	case form == base:
		return 0
	case base == "":
		return strings.Count(form, rdnEnd) + 1
	case strings.HasSuffix(form, base) && strings.HasSuffix(form[:len(form)-len(base)], rdnEnd):
		return strings.Count(form[:len(form)-len(base)], rdnEnd)
	}
	return -1
}
