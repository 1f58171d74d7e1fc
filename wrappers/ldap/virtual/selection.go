package virtual

import (
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// A selection is which attributes of an entry a client wants (RFC 4511, section 4.5.1.8).
type selection struct {
	user        bool // "*", or nothing was named
	operational bool // "+" (RFC 3673)
	named       []wanted
	typesOnly   bool
}

type wanted struct {
	typ     *schema.AttributeType
	options []string
}

func (s *server) selection(names []string, typesOnly bool) *selection {
	sel := &selection{user: len(names) == 0, typesOnly: typesOnly}
	for _, n := range names {
		switch {
		case n == "*":
			sel.user = true
		case n == "+":
			sel.operational = true
		case n == "1.1": // none (RFC 4511, section 4.5.1.8)
		case strings.HasPrefix(n, "@"): // those of an object class (RFC 4529)
			sel.class(s.types(), n[1:])
		default:
			base, options := schema.SplitOptions(n)
			if t := s.types().Attribute(base); t != nil {
				sel.named = append(sel.named, wanted{t, options})
			}
		}
	}
	return sel
}

func (sel *selection) class(s *schema.Schema, name string) {
	all, _, err := s.Classes([]string{name})
	if err != nil {
		return // one that is not known stands for none
	}
	for _, c := range all {
		for _, list := range [][]string{c.Must, c.May} {
			for _, n := range list {
				if t := s.Attribute(n); t != nil {
					sel.named = append(sel.named, wanted{typ: t})
				}
			}
		}
		if strings.EqualFold(c.Name(), "extensibleObject") {
			sel.user = true
		}
	}
}

// takes tells whether an attribute is wanted; subtypes are where their supertype is.
func (sel *selection) takes(t *schema.AttributeType, options []string) bool {
	if t.Operational() {
		if sel.operational {
			return true
		}
	} else if sel.user {
		return true
	}
	for i := range sel.named {
		w := &sel.named[i]
		if t.Is(w.typ) && (w.options == nil || schema.HasOptions(options, w.options)) {
			return true
		}
	}
	return false
}

// entry is a record as the client wants it. special: what it has is all there is to it.
func (sel *selection) entry(s *server, r *record, special bool) *ldapwire.SearchResultEntry {
	e := &ldapwire.SearchResultEntry{ObjectName: r.text}
	add := func(name string, values [][]byte) {
		if sel.typesOnly {
			values = nil
		}
		e.Attributes = append(e.Attributes, ldapwire.PartialAttribute{Type: name, Vals: values})
	}
	for i := range r.attrs {
		if a := &r.attrs[i]; sel.takes(a.typ, a.options) {
			add(a.name, a.values)
		}
	}
	if special || !sel.operational && len(sel.named) == 0 {
		return e
	}
	for i := range operationals {
		if o := &operationals[i]; sel.takes(o.typ, nil) {
			if values := o.of(s, r); len(values) > 0 && !r.hasType(o.typ) {
				add(o.typ.Name(), values)
			}
		}
	}
	return e
}
