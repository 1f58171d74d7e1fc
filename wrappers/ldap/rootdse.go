package ldap

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// A rootDSE is what a server says of itself (RFC 4512, section 5.1).
type rootDSE struct {
	controls   []string
	contexts   []dn.DN
	schema     string // name of the subschema subentry
	service    string // Active Directory: names the server; its counters are its own
	defaultNC  string // Active Directory
	extensions []string
}

func (r *rootDSE) offers(control string) bool {
	return r != nil && slices.Contains(r.controls, control)
}

// suffix is the naming context that holds an entry; nil: none is known.
func (r *rootDSE) suffix(of dn.DN) dn.DN {
	var best dn.DN
	for _, c := range r.contexts {
		if _, ok := of.Below(c); ok && len(c) > len(best) {
			best = c
		}
	}
	return best
}

// look reads what the server says of itself, and its schema.
func (a *attached) look(ctx context.Context, s *session) (*rootDSE, error) {
	e, err := s.one(ctx, "", "supportedControl", "supportedExtension", "namingContexts", "subschemaSubentry", "dsServiceName", "defaultNamingContext")
	if err != nil {
		return nil, fmt.Errorf("the root DSE: %w", err)
	}
	r := &rootDSE{}
	if e != nil {
		for _, v := range values(e, "supportedControl") {
			r.controls = append(r.controls, string(v))
		}
		for _, v := range values(e, "supportedExtension") {
			r.extensions = append(r.extensions, string(v))
		}
		for _, v := range values(e, "namingContexts") {
			if d, err := dn.Parse(string(v)); err == nil {
				r.contexts = append(r.contexts, d)
			}
		}
		r.schema, r.service, r.defaultNC = value(e, "subschemaSubentry"), value(e, "dsServiceName"), value(e, "defaultNamingContext")
	}
	a.mu.Lock()
	a.root = r
	a.mu.Unlock()
	if err := a.whoAmI(ctx, s, r); err != nil {
		return nil, err
	}
	if err := a.readSchema(ctx, s, r.schema); err != nil {
		a.log().Warn("the server's schema can't be read: the well-known types are used", "err", err)
	}
	return r, nil
}

// whoAmI asks for the name that the account has at the server (RFC 4532), which may be another than the one it logs on by.
func (a *attached) whoAmI(ctx context.Context, s *session, r *rootDSE) error {
	if !slices.Contains(r.extensions, ldapwire.OIDWhoAmI) {
		return nil
	}
	m, err := s.do(ctx, &ldapwire.ExtendedRequest{Name: ldapwire.OIDWhoAmI})
	if err != nil {
		return err
	}
	if b, ok := m.Body.(*ldapwire.ExtendedResponse); ok && resultError(m) == nil {
		if name, ok := strings.CutPrefix(string(b.Value), "dn:"); ok && name != "" {
			a.own.called(name)
		}
	}
	return nil
}

func (a *attached) dse() *rootDSE {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.root
}

// readSchema takes the attribute types from the server's subschema subentry (RFC 4512, section 4.2).
func (a *attached) readSchema(ctx context.Context, s *session, name string) error {
	if name == "" {
		return nil
	}
	e, err := s.one(ctx, name, "attributeTypes")
	if err != nil || e == nil {
		return err
	}
	types := entry.WellKnown()
	var all []typeDescription
	for _, v := range values(e, "attributeTypes") {
		if t, ok := parseTypeDescription(string(v)); ok {
			all = append(all, t)
		}
	}
	for i := range all {
		if t, ok := typeOf(all, &all[i]); ok {
			types.Add(t)
		}
	}
	a.types.Store(types)
	return nil
}

// list searches in pages (RFC 2696) where the server has them, so that a limit on the size of results doesn't cut it off.
func (a *attached) list(ctx context.Context, s *session, base string, filter *ldapwire.Filter, attributes []string, each func(*ldapwire.SearchResultEntry) error) error {
	paged := a.dse().offers(ldapwire.OIDPagedResults)
	var cookie []byte
	for {
		q := &ldapwire.SearchRequest{BaseObject: base, Scope: ldapwire.ScopeWholeSubtree, Filter: filter, Attributes: attributes}
		var controls []ldapwire.Control
		if paged {
			controls = append(controls, ldapwire.Control{Type: ldapwire.OIDPagedResults, Value: ldapwire.EncodePaged(pageSize, cookie)})
		}
		last, err := s.each(ctx, func(m *ldapwire.Message) error {
			if e, ok := m.Body.(*ldapwire.SearchResultEntry); ok {
				return each(e)
			}
			return nil
		}, q, controls...)
		if err != nil {
			return err
		}
		if err := resultError(last); err != nil {
			return a.limited(err)
		}
		c := ldapwire.FindControl(last.Controls, ldapwire.OIDPagedResults)
		if c == nil {
			return nil
		}
		if _, cookie, err = ldapwire.DecodePaged(c.Value); err != nil || len(cookie) == 0 {
			return err
		}
	}
}

const pageSize = 500

// limited says what helps where the server's limits cut a listing off: OpenLDAP gives 500 entries to who has no limits of its own.
func (a *attached) limited(err error) error {
	switch codeOf(err) {
	case ldapwire.SizeLimitExceeded, ldapwire.TimeLimitExceeded, ldapwire.AdminLimitExceeded:
		return fmt.Errorf("%w. The account needs to see all there is; in OpenLDAP: limits dn.exact=%q size=unlimited time=unlimited", err, a.up.User)
	}
	return err
}

// A typeDescription is an AttributeTypeDescription, as far as it matters (RFC 4512, section 4.1.2).
type typeDescription struct {
	oid    string
	names  []string
	sup    string
	syntax string
	single bool
}

func parseTypeDescription(s string) (t typeDescription, ok bool) {
	words := schemaWords(s)
	if len(words) < 3 || words[0] != "(" {
		return t, false
	}
	t.oid = words[1]
	list := func(i int) (out []string, next int) {
		if i < len(words) && words[i] == "(" {
			for i++; i < len(words) && words[i] != ")"; i++ {
				out = append(out, strings.Trim(words[i], "'"))
			}
			return out, i
		}
		if i < len(words) {
			return []string{strings.Trim(words[i], "'")}, i
		}
		return nil, i
	}
	for i := 2; i < len(words); i++ {
		switch words[i] {
		case "NAME":
			t.names, i = list(i + 1)
		case "DESC":
			i++
		case "SUP":
			var sup []string
			if sup, i = list(i + 1); len(sup) > 0 {
				t.sup = sup[0]
			}
		case "SYNTAX":
			var syntax []string
			if syntax, i = list(i + 1); len(syntax) > 0 {
				t.syntax, _, _ = strings.Cut(syntax[0], "{")
			}
		case "SINGLE-VALUE":
			t.single = true
		}
	}
	return t, true
}

// schemaWords takes a definition apart: parentheses, quoted strings with their quotes, and words.
func schemaWords(s string) (out []string) {
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			i++
		case c == '(' || c == ')':
			out = append(out, s[i:i+1])
			i++
		case c == '\'':
			end := strings.IndexByte(s[i+1:], '\'')
			if end < 0 {
				return append(out, s[i:])
			}
			out = append(out, s[i:i+end+2])
			i += end + 2
		default:
			end := strings.IndexAny(s[i:], " \t\n\r()'")
			if end < 0 {
				end = len(s) - i
			}
			out = append(out, s[i:i+end])
			i += end
		}
	}
	return out
}

// typeOf takes from its supertypes what a type does not say itself.
func typeOf(all []typeDescription, t *typeDescription) (entry.Type, bool) {
	out := entry.Type{Names: t.names, OID: t.oid, Single: t.single}
	if len(out.Names) == 0 {
		out.Names = []string{t.oid}
	}
	syntax := t.syntax
	for up, n := t, 0; syntax == "" && up.sup != "" && n < 10; n++ {
		i := slices.IndexFunc(all, func(o typeDescription) bool {
			return o.oid == up.sup || slices.ContainsFunc(o.names, func(s string) bool { return strings.EqualFold(s, up.sup) })
		})
		if i < 0 {
			break
		}
		up = &all[i]
		syntax = up.syntax
	}
	out.Kind = entry.KindOf(syntax)
	return out, true
}
