package mapping

import (
	"fmt"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping/diag"
)

// domain reads which QDomain the registers of a block are of: the first, where it says nothing.
func (l *loader) domain(a *hclsyntax.Attribute) string {
	first := l.in.Domains[0]
	name, ok := l.String(a, first, nil)
	if !ok {
		return first
	}
	if l.decls[name] != nil {
		return name
	}
	d := &diag.Diagnostic{Code: "MAP058", Severity: diag.Error, Summary: fmt.Sprintf("no domain %q here", name), Subject: a.Expr.Range(),
		Detail: fmt.Sprintf("`domains` in gateway.hcl has %s. A gateway serves the registers of its own domains only.", quotedList(l.in.Domains))}
	d.Suggestion = diag.Suggest(name, l.in.Domains)
	l.Add(d)
	return first
}

func quotedList(names []string) string {
	s := ""
	for i, n := range names {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%q", n)
	}
	return s
}

// Of is the Set as one domain has it: addresses of other domains' registers have no bind in it, and their names are not
// known to it. Which bind is the more specific one at an address is decided among all of them.
func (s *Set) Of(domain string) *Set {
	if view := s.domains[domain]; view != nil {
		return view
	}
	return s
}

// views makes the Set of each domain.
func (l *loader) views() {
	s := l.set
	s.domains = map[string]*Set{}
	for _, name := range l.in.Domains {
		v := &Set{wrappers: map[string]*wrapperMaps{}, decls: l.decls[name], hash: s.hash}
		for _, b := range s.binds {
			if b.domain == name {
				v.binds = append(v.binds, b)
			}
		}
		for _, d := range s.declared {
			if d.domain == name {
				v.declared = append(v.declared, d)
			}
		}
		for wrapper, w := range s.wrappers {
			m := *w
			m.domain, m.entries, m.reverse = name, nil, tree{separator: w.reverse.separator}
			for _, e := range w.entries {
				if e.bind.domain != name {
					continue
				}
				m.entries = append(m.entries, e)
				if e.reversible() {
					m.reverse.insert(&leaf{template: e.bind.register, entry: e})
				}
			}
			v.wrappers[wrapper] = &m
		}
		s.domains[name] = v
	}
}
