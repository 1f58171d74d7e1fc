package schema

import (
	"fmt"
	"strings"
)

// A RuleKind is what a matching rule can be asked.
type RuleKind uint8

// The kinds of matching rules (RFC 4517, section 4.1), and those of Microsoft on the bits of integers.
const (
	Equality RuleKind = iota
	Ordering
	Substrings
	FirstComponent // equality of a description's OID or number with the assertion
	BitAnd
	BitOr
)

// A MatchingRule (RFC 4517, section 4.2).
type MatchingRule struct {
	OID    string
	Name   string
	Syntax string // of the assertion
	Kind   RuleKind

	form func(s *Schema, v []byte, p piece) (string, bool)
	key  func(s *Schema, v []byte) (string, bool) // FirstComponent: of the stored value
	// named: assertions are OIDs or names that stand for one.
	named bool
}

// String renders the description (RFC 4512, section 4.1.3).
func (r *MatchingRule) String() string {
	return fmt.Sprintf("( %s NAME '%s' SYNTAX %s )", r.OID, r.Name, r.Syntax)
}

// Key is a stored value's normal form: under an equality rule two values match where their keys are equal; under an ordering
// rule the keys are ordered as the values are. False: the value is not of the rule's syntax and matches nothing.
func (r *MatchingRule) Key(s *Schema, value []byte) (string, bool) {
	if r.key != nil {
		return r.key(s, value)
	}
	return r.form(s, value, whole)
}

// Assertion is the normal form of an assertion value, to be held against Key. False: the assertion is not of the rule's
// syntax, and what it is part of is Undefined.
func (r *MatchingRule) Assertion(s *Schema, value []byte) (string, bool) {
	key, ok := r.form(s, value, whole)
	if r.named && ok && key[0] > '9' { // a name that nobody knows (RFC 4517, section 4.2.26)
		return "", false
	}
	return key, ok
}

// A Substring is the normal form of a substring assertion (RFC 4511, section 4.5.1.7.2).
type Substring struct {
	initial, final       string
	hasInitial, hasFinal bool
	middle               []string
}

// Substring prepares an assertion; nil stands for a part that is not there. False: a part is not of the rule's syntax.
func (r *MatchingRule) Substring(s *Schema, first []byte, inner [][]byte, last []byte) (*Substring, bool) {
	sub := &Substring{}
	ok := true
	part := func(v []byte, p piece) string {
		k, good := r.form(s, v, p)
		ok = ok && good
		return k
	}
	if first != nil {
		sub.initial, sub.hasInitial = part(first, initial), true
	}
	for _, v := range inner {
		sub.middle = append(sub.middle, part(v, middle))
	}
	if last != nil {
		sub.final, sub.hasFinal = part(last, final), true
	}
	return sub, ok
}

// Match holds the key of a stored value, made by the same rule, against the assertion.
func (sub *Substring) Match(key string) bool {
	if sub.hasInitial {
		if !strings.HasPrefix(key, sub.initial) {
			return false
		}
		key = key[len(sub.initial):]
	}
	if sub.hasFinal {
		if !strings.HasSuffix(key, sub.final) {
			return false
		}
		key = key[:len(key)-len(sub.final)]
	}
	for _, m := range sub.middle {
		i := strings.Index(key, m)
		if i < 0 {
			return false
		}
		key = key[i+len(m):]
	}
	return true
}

// syntax OIDs of RFC 4517 all begin so.
const arc = "1.3.6.1.4.1.1466.115.121.1."

var matchingRules = []*MatchingRule{
	{OID: "2.5.13.0", Name: "objectIdentifierMatch", Syntax: arc + "38", form: oidForm, named: true},
	{OID: "2.5.13.1", Name: "distinguishedNameMatch", Syntax: arc + "12", form: dnForm},
	{OID: "2.5.13.2", Name: "caseIgnoreMatch", Syntax: arc + "15", form: text(true)},
	{OID: "2.5.13.3", Name: "caseIgnoreOrderingMatch", Syntax: arc + "15", Kind: Ordering, form: text(true)},
	{OID: "2.5.13.4", Name: "caseIgnoreSubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: text(true)},
	{OID: "2.5.13.5", Name: "caseExactMatch", Syntax: arc + "15", form: text(false)},
	{OID: "2.5.13.6", Name: "caseExactOrderingMatch", Syntax: arc + "15", Kind: Ordering, form: text(false)},
	{OID: "2.5.13.7", Name: "caseExactSubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: text(false)},
	{OID: "2.5.13.8", Name: "numericStringMatch", Syntax: arc + "36", form: numericForm},
	{OID: "2.5.13.9", Name: "numericStringOrderingMatch", Syntax: arc + "36", Kind: Ordering, form: numericForm},
	{OID: "2.5.13.10", Name: "numericStringSubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: numericForm},
	{OID: "2.5.13.11", Name: "caseIgnoreListMatch", Syntax: arc + "41", form: listForm},
	{OID: "2.5.13.12", Name: "caseIgnoreListSubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: listPartForm, key: listKey},
	{OID: "2.5.13.13", Name: "booleanMatch", Syntax: arc + "7", form: booleanForm},
	{OID: "2.5.13.14", Name: "integerMatch", Syntax: arc + "27", form: integerForm},
	{OID: "2.5.13.15", Name: "integerOrderingMatch", Syntax: arc + "27", Kind: Ordering, form: integerForm},
	{OID: "2.5.13.16", Name: "bitStringMatch", Syntax: arc + "6", form: bitStringForm},
	{OID: "2.5.13.17", Name: "octetStringMatch", Syntax: arc + "40", form: octets},
	{OID: "2.5.13.18", Name: "octetStringOrderingMatch", Syntax: arc + "40", Kind: Ordering, form: octets},
	{OID: "2.5.13.19", Name: "octetStringSubstringsMatch", Syntax: arc + "40", Kind: Substrings, form: octets},
	{OID: "2.5.13.20", Name: "telephoneNumberMatch", Syntax: arc + "50", form: telephoneForm},
	{OID: "2.5.13.21", Name: "telephoneNumberSubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: telephoneForm},
	{OID: "2.5.13.23", Name: "uniqueMemberMatch", Syntax: arc + "34", form: uidForm},
	{OID: "2.5.13.27", Name: "generalizedTimeMatch", Syntax: arc + "24", form: timeForm},
	{OID: "2.5.13.28", Name: "generalizedTimeOrderingMatch", Syntax: arc + "24", Kind: Ordering, form: timeForm},
	{OID: "2.5.13.29", Name: "integerFirstComponentMatch", Syntax: arc + "27", Kind: FirstComponent, form: integerForm, key: firstInteger},
	{OID: "2.5.13.30", Name: "objectIdentifierFirstComponentMatch", Syntax: arc + "38", Kind: FirstComponent, form: oidForm, key: firstOID, named: true},
	{OID: "2.5.13.31", Name: "directoryStringFirstComponentMatch", Syntax: arc + "15", Kind: FirstComponent, form: text(true), key: firstWord},
	{OID: "2.5.13.32", Name: "wordMatch", Syntax: arc + "15", form: text(true)},
	{OID: "2.5.13.34", Name: "certificateExactMatch", Syntax: "1.3.6.1.1.15.1", form: certificateForm},
	{OID: "1.3.6.1.4.1.1466.109.114.1", Name: "caseExactIA5Match", Syntax: arc + "26", form: ia5(false)},
	{OID: "1.3.6.1.4.1.1466.109.114.2", Name: "caseIgnoreIA5Match", Syntax: arc + "26", form: ia5(true)},
	{OID: "1.3.6.1.4.1.1466.109.114.3", Name: "caseIgnoreIA5SubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: ia5(true)},
	{OID: "1.3.6.1.4.1.4203.1.2.1", Name: "caseExactIA5SubstringsMatch", Syntax: arc + "58", Kind: Substrings, form: ia5(false)},
	{OID: "1.3.6.1.1.16.2", Name: "UUIDMatch", Syntax: "1.3.6.1.1.16.1", form: uuidForm},
	{OID: "1.3.6.1.1.16.3", Name: "UUIDOrderingMatch", Syntax: "1.3.6.1.1.16.1", Kind: Ordering, form: uuidForm},
	{OID: "1.3.6.1.4.1.4203.666.11.2.2", Name: "CSNMatch", Syntax: "1.3.6.1.4.1.4203.666.11.2.1", form: octets},
	{OID: "1.3.6.1.4.1.4203.666.11.2.3", Name: "CSNOrderingMatch", Syntax: "1.3.6.1.4.1.4203.666.11.2.1", Kind: Ordering, form: octets},
	{OID: "1.2.840.113556.1.4.803", Name: "integerBitAndMatch", Syntax: arc + "27", Kind: BitAnd, form: integerForm},
	{OID: "1.2.840.113556.1.4.804", Name: "integerBitOrMatch", Syntax: arc + "27", Kind: BitOr, form: integerForm},
}

var rulesByName = map[string]*MatchingRule{}

func init() { // not in the declaration: objectIdentifierMatch is one of them and knows their names
	for _, r := range matchingRules {
		rulesByName[r.OID], rulesByName[strings.ToLower(r.Name)] = r, r
	}
}

// Rule gives the matching rule of this name or OID; nil if it is unknown.
func Rule(name string) *MatchingRule {
	if name == "" {
		return nil
	}
	return rulesByName[lower(name)]
}

// MatchingRules lists all of them.
func MatchingRules() []*MatchingRule { return matchingRules }

// FitsSyntax tells whether values of this syntax can be compared with the rule: for extensible filters without an attribute,
// which ask every attribute that the rule fits (RFC 4511, section 4.5.1.7.7).
func (r *MatchingRule) FitsSyntax(oid string) bool {
	if oid == r.Syntax {
		return true
	}
	switch r.Syntax {
	case arc + "15": // printable, IA5, telephone and country strings are directory strings of fewer characters
		return oid == arc+"44" || oid == arc+"26" || oid == arc+"50" || oid == arc+"11"
	case arc + "58":
		return oid == arc+"15" || oid == arc+"44" || oid == arc+"26"
	}
	return false
}
