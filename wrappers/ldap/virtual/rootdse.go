package virtual

import (
	"runtime/debug"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/filter"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// subschemaName is where clients find the schema.
const subschemaName = "cn=Subschema"

var subschemaDN = dn.DN{{{Type: "cn", Value: "Subschema"}}}

// supportedExtensions and supportedFeatures are those of the root DSE.
var (
	supportedExtensions = []string{ldapwire.OIDPasswordModify, ldapwire.OIDWhoAmI, ldapwire.OIDCancel}
	supportedFeatures   = []string{
		ldapwire.OIDFeatureIncrement, ldapwire.OIDFeatureAllOpAttrs, ldapwire.OIDFeatureAbsoluteBool,
		"1.3.6.1.4.1.4203.1.5.2", // RFC 4529: all attributes of an object class
		"1.3.6.1.4.1.4203.1.5.4", // RFC 3866: language tags
		"1.3.6.1.4.1.4203.1.5.5", // RFC 3866: ranges of languages
	}
)

// rootDSE is the entry about the server (RFC 4512, section 5.1).
func (se *session) rootDSE() *record {
	s := se.s
	extensions := supportedExtensions
	if s.cfg.TLS != nil && se.secure == nil {
		extensions = append([]string{ldapwire.OIDStartTLS}, extensions...)
	}
	r := &record{node: &node{}, modified: s.started, created: s.started}
	r.node.kids.Store(1)
	put := func(name string, values ...string) {
		if len(values) == 0 {
			return
		}
		a := attribute{typ: schema.Default().Attribute(name), name: name}
		for _, v := range values {
			a.values = append(a.values, []byte(v))
		}
		r.attrs = append(r.attrs, a)
	}
	put("objectClass", "top", "extensibleObject")
	put("structuralObjectClass", "top")
	put("namingContexts", s.base.String())
	put("supportedControl", supportedControls...)
	put("supportedExtension", extensions...)
	put("supportedFeatures", supportedFeatures...)
	put("supportedLDAPVersion", "3")
	put("supportedSASLMechanisms", se.mechanisms()...)
	put("subschemaSubentry", subschemaName)
	put("vendorName", "Spook Systems")
	put("vendorVersion", version())
	return r
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return "spookgw " + info.Main.Version
	}
	return "spookgw"
}

// subschemaEntry is the entry that holds the schema (RFC 4512, section 4.2).
func (s *server) subschemaEntry() *record {
	if r := s.subschema.Load(); r != nil {
		return r
	}
	now := s.types()
	r := &record{name: subschemaDN, text: subschemaName, key: now.NormalDN(subschemaDN), node: &node{}, modified: s.started, created: s.started}
	r.uuid = uuidOf(r.key)
	put := func(name string, n int, value func(i int) string) {
		a := attribute{typ: now.Attribute(name), name: name}
		for i := range n {
			a.values = append(a.values, []byte(value(i)))
		}
		r.attrs = append(r.attrs, a)
	}
	classes := []string{"top", "subentry", "subschema", "extensibleObject"}
	put("objectClass", len(classes), func(i int) string { return classes[i] })
	put("cn", 1, func(int) string { return "Subschema" })
	syntaxes, rules := schema.Syntaxes(), schema.MatchingRules()
	put("ldapSyntaxes", len(syntaxes), func(i int) string { return syntaxes[i].String() })
	put("matchingRules", len(rules), func(i int) string { return rules[i].String() })
	types, kinds := now.AttributeTypes(), now.ObjectClasses()
	put("attributeTypes", len(types), func(i int) string { return types[i].String() })
	put("objectClasses", len(kinds), func(i int) string { return kinds[i].String() })
	s.subschema.Store(r)
	return r
}

// special finds the entries outside of the naming context, which everybody may read: nil if it is none of them.
func (se *session) special(name dn.DN) *record {
	switch {
	case len(name) == 0:
		return se.rootDSE()
	case len(name) == 1 && strings.EqualFold(name.String(), subschemaName):
		return se.s.subschemaEntry()
	}
	return nil
}

// specialView shows such an entry to a filter: of operational attributes it has those that it has.
type specialView struct{ view }

// Each implements filter.Entry.
func (v specialView) Each(t *schema.AttributeType, options []string, yield func(*schema.AttributeType, [][]byte) bool) {
	for i := range v.attrs {
		a := &v.attrs[i]
		if t != nil && !a.typ.Is(t) || options != nil {
			continue
		}
		if !yield(a.typ, a.values) {
			return
		}
	}
}

var _ filter.Entry = specialView{}
