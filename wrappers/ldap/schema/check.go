package schema

import (
	"fmt"
	"strings"
)

// A Violation is why an entry is not as the schema has it.
type Violation struct {
	Kind Broken
	Text string // for the client
}

func (v *Violation) Error() string { return v.Text }

// Broken is which rule a Violation breaks; each has a result code of its own.
type Broken uint8

// What can be broken.
const (
	ClassViolation     Broken = iota + 1 // objectClassViolation
	UndefinedAttribute                   // undefinedAttributeType
	TooManyValues                        // constraintViolation
	BadSyntax                            // invalidAttributeSyntax
	NotModifiable                        // constraintViolation: NO-USER-MODIFICATION
	DuplicateValue                       // attributeOrValueExists
)

func broken(kind Broken, format string, args ...any) *Violation {
	return &Violation{Kind: kind, Text: fmt.Sprintf(format, args...)}
}

// Classes gives the object classes of these names with all their superclasses, "top" included, each once, and the most
// specific structural one: nil if there is none. Unknown names are an error.
func (s *Schema) Classes(names []string) (all []*ObjectClass, structural *ObjectClass, err error) {
	seen := map[*ObjectClass]bool{}
	var add func(c *ObjectClass, depth int)
	add = func(c *ObjectClass, depth int) {
		if seen[c] || depth > maxDepth {
			return
		}
		seen[c] = true
		all = append(all, c)
		for _, n := range c.Sup {
			if sup := s.Class(n); sup != nil {
				add(sup, depth+1)
			}
		}
	}
	for _, n := range names {
		c := s.Class(n)
		if c == nil {
			return nil, nil, broken(BadSyntax, "objectClass: %q is no object class of this schema", n)
		}
		add(c, 0)
	}
	for _, c := range all {
		if c.Kind != Structural {
			continue
		}
		switch {
		case structural == nil || s.below(c, structural, 0):
			structural = c
		case !s.below(structural, c, 0):
			return nil, nil, broken(ClassViolation, "invalid structural object class chain (%s/%s)", structural.Name(), c.Name())
		}
	}
	if structural == nil {
		// RFC 2307 has posixGroup structural, 2307bis auxiliary: an entry of nothing else is one of the former.
		if c := s.Class("posixGroup"); c != nil && seen[c] {
			structural = c
		}
	}
	return all, structural, nil
}

// below tells whether c is a subclass of sup.
func (s *Schema) below(c, sup *ObjectClass, depth int) bool {
	if depth > maxDepth {
		return false
	}
	for _, n := range c.Sup {
		if o := s.Class(n); o != nil && (o == sup || s.below(o, sup, depth+1)) {
			return true
		}
	}
	return false
}

// CheckClasses holds an entry's attributes, by their types, against its object classes: one that is structural, what they
// require, and nothing they don't allow. free tells of attributes that are allowed anywhere. Operational attributes are.
func (s *Schema) CheckClasses(classes []string, has []*AttributeType, free func(*AttributeType) bool) error {
	if len(classes) == 0 {
		return broken(ClassViolation, "no objectClass attribute")
	}
	all, structural, err := s.Classes(classes)
	if err != nil {
		return err
	}
	if structural == nil {
		return broken(ClassViolation, "no structural object class provided")
	}
	allowed := map[*AttributeType]bool{}
	anything := false
	for _, c := range all {
		anything = anything || strings.EqualFold(c.Name(), "extensibleObject")
		for _, n := range c.Must {
			t := s.Attribute(n)
			if t == nil {
				continue
			}
			allowed[t] = true
			found := false
			for _, a := range has {
				found = found || a.Is(t)
			}
			if !found {
				return broken(ClassViolation, "object class '%s' requires attribute '%s'", c.Name(), n)
			}
		}
		for _, n := range c.May {
			if t := s.Attribute(n); t != nil {
				allowed[t] = true
			}
		}
	}
	for _, a := range has {
		if anything || a.Operational() || allowed[a] || free != nil && free(a) {
			continue
		}
		fits := false
		for t := a; t != nil && !fits; t = t.sup {
			fits = allowed[t] && t != a && t.OID != "2.5.4.41" && t.OID != "2.5.4.49" // a subtype is allowed where its supertype is; nothing lists name and distinguishedName
		}
		if !fits {
			return broken(ClassViolation, "attribute '%s' not allowed", a.Name())
		}
	}
	return nil
}

// CheckValues holds one attribute's values against its type: their syntax, how many there may be, and no two that are equal.
func (s *Schema) CheckValues(t *AttributeType, values [][]byte) error {
	if t.SingleValue && len(values) > 1 {
		return broken(TooManyValues, "attribute '%s' cannot have multiple values", t.Name())
	}
	x := SyntaxOf(t.syntax)
	seen := make(map[string]bool, len(values))
	for i, v := range values {
		if x != nil && !x.Valid(v) {
			return broken(BadSyntax, "%s: value #%d invalid per syntax", t.Name(), i)
		}
		key := string(v)
		if t.equality != nil {
			if k, ok := t.equality.Key(s, v); ok {
				key = k
			}
		}
		if seen[key] {
			return broken(DuplicateValue, "%s: value #%d provided more than once", t.Name(), i)
		}
		seen[key] = true
	}
	return nil
}
