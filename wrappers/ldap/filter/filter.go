// Package filter is LDAP's search filter (RFC 4511, section 4.5.1.7): written as text, read from it, and evaluated by the
// matching rules of a schema in three-valued logic.
package filter

import (
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

var operators = map[ldapwire.FilterKind]string{
	ldapwire.FilterEqualityMatch: "=", ldapwire.FilterGreaterOrEqual: ">=", ldapwire.FilterLessOrEqual: "<=", ldapwire.FilterApproxMatch: "~=",
}

// String is the filter as text (RFC 4515).
func String(f *ldapwire.Filter) string {
	var b strings.Builder
	write(&b, f)
	return b.String()
}

func write(b *strings.Builder, f *ldapwire.Filter) {
	b.WriteByte('(')
	switch f.Kind {
	case ldapwire.FilterAnd, ldapwire.FilterOr, ldapwire.FilterNot:
		b.WriteByte("&|!"[f.Kind&0x1f])
		for _, sub := range f.Filters {
			write(b, sub)
		}
	case ldapwire.FilterPresent:
		b.WriteString(f.Attribute + "=*")
	case ldapwire.FilterSubstrings:
		b.WriteString(f.Attribute + "=")
		escape(b, f.Initial)
		b.WriteByte('*')
		for _, a := range f.Any {
			escape(b, a)
			b.WriteByte('*')
		}
		escape(b, f.Final)
	case ldapwire.FilterExtensibleMatch:
		b.WriteString(f.Attribute)
		if f.DNAttributes {
			b.WriteString(":dn")
		}
		if f.MatchingRule != "" {
			b.WriteString(":" + f.MatchingRule)
		}
		b.WriteString(":=")
		escape(b, f.Value)
	default:
		b.WriteString(f.Attribute)
		b.WriteString(operators[f.Kind])
		escape(b, f.Value)
	}
	b.WriteByte(')')
}

func escape(b *strings.Builder, v []byte) {
	const hex = "0123456789abcdef"
	valid := utf8.Valid(v)
	for _, c := range v {
		if c == '(' || c == ')' || c == '*' || c == '\\' || c < ' ' || c == 0x7f || c >= 0x80 && !valid {
			b.WriteByte('\\')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
}
