package filter

import (
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// Truth is a value of the logic of RFC 4511, section 4.5.1.7.
type Truth uint8

// The three values. An entry is found where the filter is True.
const (
	False Truth = iota
	Undefined
	True
)

func (t Truth) String() string { return [...]string{"FALSE", "Undefined", "TRUE"}[t] }

func truth(b bool) Truth {
	if b {
		return True
	}
	return False
}

// An Entry is what a filter is asked of.
type Entry interface {
	// Each calls yield with the values of each attribute that is of the type, a subtype of it, or, for a nil type, of any,
	// and that has the options, until yield returns false. Operational attributes are among them.
	Each(t *schema.AttributeType, options []string, yield func(t *schema.AttributeType, values [][]byte) bool)
	// EachRDN calls yield with the parts of the entry's name.
	EachRDN(yield func(t *schema.AttributeType, value []byte) bool)
}

// A Matcher is a filter made ready for a schema: assertions are prepared once. It is safe for concurrent use.
type Matcher struct {
	kind     ldapwire.FilterKind
	subs     []*Matcher
	known    bool // the attribute, and the assertion is of its rule's syntax
	schema   *schema.Schema
	typ      *schema.AttributeType // nil in an Extensible without attribute
	options  []string
	rule     *schema.MatchingRule
	key      string
	value    []byte
	fragment *schema.Substring
	dn       bool
}

// Compile makes a filter ready.
func Compile(s *schema.Schema, f *ldapwire.Filter) *Matcher {
	m := &Matcher{kind: f.Kind, schema: s, value: f.Value}
	switch f.Kind {
	case ldapwire.FilterAnd, ldapwire.FilterOr, ldapwire.FilterNot:
		for _, sub := range f.Filters {
			m.subs = append(m.subs, Compile(s, sub))
		}
		return m
	}
	if f.Attribute != "" {
		name, options := schema.SplitOptions(f.Attribute)
		m.options = options
		if m.typ = s.Attribute(name); m.typ == nil {
			return m
		}
	} else if f.Kind != ldapwire.FilterExtensibleMatch {
		return m
	}
	switch f.Kind {
	case ldapwire.FilterPresent:
		m.known = true
	case ldapwire.FilterEqualityMatch, ldapwire.FilterApproxMatch:
		// Approximate matching is a local matter (section 4.5.1.7.6): it is equality.
		if m.rule = m.typ.EqualityRule(); m.rule != nil {
			m.key, m.known = m.rule.Assertion(s, f.Value)
		}
	case ldapwire.FilterGreaterOrEqual, ldapwire.FilterLessOrEqual:
		if m.rule = m.typ.OrderingRule(); m.rule != nil {
			m.key, m.known = m.rule.Assertion(s, f.Value)
		}
	case ldapwire.FilterSubstrings:
		if m.rule = m.typ.SubstringsRule(); m.rule != nil {
			m.fragment, m.known = m.rule.Substring(s, f.Initial, f.Any, f.Final)
		}
	case ldapwire.FilterExtensibleMatch:
		m.dn = f.DNAttributes
		m.rule = schema.Rule(f.MatchingRule)
		if f.MatchingRule == "" {
			m.rule = m.typ.EqualityRule()
		}
		if m.rule == nil || m.rule.Kind == schema.Substrings || m.typ != nil && f.MatchingRule != "" && m.typ.EqualityRule() != m.rule && !m.rule.FitsSyntax(m.typ.SyntaxOID()) {
			return m
		}
		m.key, m.known = m.rule.Assertion(s, f.Value)
	}
	return m
}

// Match evaluates the filter.
func (m *Matcher) Match(e Entry) Truth {
	switch m.kind {
	case ldapwire.FilterAnd:
		out := True
		for _, sub := range m.subs {
			if out = min(out, sub.Match(e)); out == False {
				break
			}
		}
		return out
	case ldapwire.FilterOr:
		out := False
		for _, sub := range m.subs {
			if out = max(out, sub.Match(e)); out == True {
				break
			}
		}
		return out
	case ldapwire.FilterNot:
		return True - m.subs[0].Match(e)
	}
	if !m.known {
		return Undefined
	}
	found := False
	e.Each(m.typ, m.options, func(t *schema.AttributeType, values [][]byte) bool {
		if m.kind == ldapwire.FilterPresent {
			found = True
			return false
		}
		if m.typ == nil && t.EqualityRule() != m.rule && !m.rule.FitsSyntax(t.SyntaxOID()) {
			return true
		}
		for _, v := range values {
			if found = max(found, m.one(v)); found == True {
				return false
			}
		}
		return true
	})
	if m.dn && found != True {
		e.EachRDN(func(t *schema.AttributeType, v []byte) bool {
			if m.typ != nil && !t.Is(m.typ) || m.typ == nil && t.EqualityRule() != m.rule && !m.rule.FitsSyntax(t.SyntaxOID()) {
				return true
			}
			found = max(found, m.one(v))
			return found != True
		})
	}
	return found
}

// one holds one stored value against the assertion.
func (m *Matcher) one(v []byte) Truth {
	if m.rule.Kind == schema.BitAnd || m.rule.Kind == schema.BitOr {
		match, ok := m.rule.Bits(v, m.value)
		if !ok {
			return Undefined
		}
		return truth(match)
	}
	key, ok := m.rule.Key(m.schema, v)
	if !ok {
		return Undefined
	}
	switch m.kind {
	case ldapwire.FilterGreaterOrEqual:
		return truth(key >= m.key)
	case ldapwire.FilterLessOrEqual:
		return truth(key <= m.key)
	case ldapwire.FilterSubstrings:
		return truth(m.fragment.Match(key))
	case ldapwire.FilterExtensibleMatch:
		if m.rule.Kind == schema.Ordering { // RFC 4517, section 4.2: TRUE where the stored value is less
			return truth(key < m.key)
		}
	}
	return truth(key == m.key)
}

// A Need is something that an index can look up and that every entry found by a filter has: the attribute is present, or one
// of its values has the key under the equality rule.
type Need struct {
	Type    *schema.AttributeType
	Key     string
	Present bool // any value
}

// Needs gives sets of Needs of which every entry found has at least one of each set: a search looks one set up in an index and
// holds what it finds against the filter. None: the filter needs nothing that an index has, every entry is looked at.
// nothing: no entry at all can be found.
func (m *Matcher) Needs() (sets [][]Need, nothing bool) {
	switch m.kind {
	case ldapwire.FilterAnd:
		for _, sub := range m.subs {
			s, none := sub.Needs()
			if none {
				return nil, true
			}
			sets = append(sets, s...)
		}
		return sets, false
	case ldapwire.FilterOr:
		// One set of each part together: every entry found has one of them.
		var union []Need
		live := false
		for _, sub := range m.subs {
			s, none := sub.Needs()
			if none {
				continue
			}
			live = true
			if len(s) == 0 {
				return nil, false
			}
			union = append(union, narrowest(s)...)
		}
		if !live {
			return nil, true
		}
		return [][]Need{union}, false
	case ldapwire.FilterNot:
		return nil, false
	}
	if !m.known {
		return nil, true
	}
	if m.dn || m.typ == nil {
		return nil, false
	}
	switch m.kind {
	case ldapwire.FilterEqualityMatch, ldapwire.FilterApproxMatch:
		if m.rule.Kind == schema.Equality {
			return [][]Need{{{Type: m.typ, Key: m.key}}}, false
		}
	case ldapwire.FilterExtensibleMatch:
		if m.rule == m.typ.EqualityRule() && m.rule.Kind == schema.Equality {
			return [][]Need{{{Type: m.typ, Key: m.key}}}, false
		}
	}
	return [][]Need{{{Type: m.typ, Present: true}}}, false
}

// narrowest prefers a set without presence, which is what most entries have.
func narrowest(sets [][]Need) []Need {
	best := sets[0]
	for _, s := range sets[1:] {
		if count(s) < count(best) {
			best = s
		}
	}
	return best
}

func count(s []Need) (presences int) {
	for _, n := range s {
		if n.Present {
			presences++
		}
	}
	return presences
}

// Attribute tells whether the filter asks for this attribute, directly or by a supertype; a filter without attribute does.
func (m *Matcher) Attribute(t *schema.AttributeType) bool {
	for _, sub := range m.subs {
		if sub.Attribute(t) {
			return true
		}
	}
	return m.typ == nil && m.kind == ldapwire.FilterExtensibleMatch || m.typ != nil && t.Is(m.typ)
}
