package filter

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// Bounds of what Parse takes: depth of nesting, and nodes with the parts of substrings.
const (
	MaxDepth = 100
	MaxNodes = 10_000
)

// Errors of Parse.
var (
	ErrMalformed = errors.New("a filter that is not well formed")
	ErrTooDeep   = fmt.Errorf("a filter nested more than %d deep", MaxDepth)
	ErrTooLarge  = fmt.Errorf("a filter of more than %d items", MaxNodes)
)

// Parse reads a filter as text (RFC 4515); parentheses around the whole may be missing.
func Parse(text string) (*ldapwire.Filter, error) {
	if !strings.HasPrefix(text, "(") {
		text = "(" + text + ")"
	}
	p := parser{left: MaxNodes}
	f, rest, err := p.filter(text, 0)
	if err == nil && rest != "" {
		err = fmt.Errorf("%w: %q stands behind it", ErrMalformed, rest)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

type parser struct{ left int }

func (p *parser) filter(s string, depth int) (f *ldapwire.Filter, rest string, err error) {
	if depth >= MaxDepth {
		return nil, "", ErrTooDeep
	}
	if p.left--; p.left < 0 {
		return nil, "", ErrTooLarge
	}
	if len(s) < 2 || s[0] != '(' {
		return nil, "", fmt.Errorf("%w: '(' is wanted at %q", ErrMalformed, s)
	}
	s = s[1:]
	if i := strings.IndexByte("&|!", s[0]); i >= 0 {
		f = &ldapwire.Filter{Kind: [...]ldapwire.FilterKind{ldapwire.FilterAnd, ldapwire.FilterOr, ldapwire.FilterNot}[i]}
		s = s[1:]
		for strings.HasPrefix(s, "(") {
			var sub *ldapwire.Filter
			if sub, s, err = p.filter(s, depth+1); err != nil {
				return nil, "", err
			}
			f.Filters = append(f.Filters, sub)
		}
		if f.Kind == ldapwire.FilterNot && len(f.Filters) != 1 {
			return nil, "", fmt.Errorf("%w: '!' takes one filter", ErrMalformed)
		}
		if !strings.HasPrefix(s, ")") {
			return nil, "", fmt.Errorf("%w: ')' is wanted at %q", ErrMalformed, s)
		}
		return f, s[1:], nil
	}
	end := strings.IndexAny(s, "()")
	if end < 0 || s[end] == '(' {
		return nil, "", fmt.Errorf("%w: ')' is wanted in %q", ErrMalformed, s)
	}
	f, err = p.item(s[:end])
	return f, s[end+1:], err
}

func (p *parser) item(s string) (*ldapwire.Filter, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" {
		return nil, fmt.Errorf("%w: %q is no assertion", ErrMalformed, s)
	}
	f := &ldapwire.Filter{Kind: ldapwire.FilterEqualityMatch}
	switch name[len(name)-1] {
	case '>':
		f.Kind = ldapwire.FilterGreaterOrEqual
	case '<':
		f.Kind = ldapwire.FilterLessOrEqual
	case '~':
		f.Kind = ldapwire.FilterApproxMatch
	case ':':
		f.Kind = ldapwire.FilterExtensibleMatch
	}
	if f.Kind != ldapwire.FilterEqualityMatch {
		name = name[:len(name)-1]
	}
	var err error
	switch {
	case f.Kind == ldapwire.FilterExtensibleMatch:
		parts := strings.Split(name, ":")
		f.Attribute, parts = parts[0], parts[1:]
		if len(parts) > 0 && strings.EqualFold(parts[0], "dn") {
			f.DNAttributes, parts = true, parts[1:]
		}
		if len(parts) > 0 {
			f.MatchingRule, parts = parts[0], parts[1:]
		}
		if len(parts) > 0 || f.MatchingRule == "" && f.Attribute == "" {
			return nil, fmt.Errorf("%w: %q", ErrMalformed, s)
		}
		f.Value, err = unescape(value)
	case name == "":
		return nil, fmt.Errorf("%w: %q has no attribute", ErrMalformed, s)
	case f.Kind == ldapwire.FilterEqualityMatch && value == "*":
		f.Kind, f.Attribute = ldapwire.FilterPresent, name
	case f.Kind == ldapwire.FilterEqualityMatch && strings.Contains(value, "*"):
		f.Kind, f.Attribute = ldapwire.FilterSubstrings, name
		parts := strings.Split(value, "*")
		if p.left -= len(parts); p.left < 0 {
			return nil, ErrTooLarge
		}
		for i, part := range parts {
			v, e := unescape(part)
			if e != nil {
				return nil, e
			}
			switch {
			case part == "":
			case i == 0:
				f.Initial = v
			case i == len(parts)-1:
				f.Final = v
			default:
				f.Any = append(f.Any, v)
			}
		}
		if f.Initial == nil && f.Final == nil && f.Any == nil {
			f.Kind = ldapwire.FilterPresent
		}
	default:
		f.Attribute = name
		f.Value, err = unescape(value)
	}
	return f, err
}

func unescape(s string) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+2 < len(s):
			raw, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return nil, fmt.Errorf("%w: %q", ErrMalformed, s[i:i+3])
			}
			out, i = append(out, raw[0]), i+2
		case c == '\\' || c == '*':
			return nil, fmt.Errorf("%w: %q in a value", ErrMalformed, s[i:])
		default:
			out = append(out, c)
		}
	}
	return out, nil
}
