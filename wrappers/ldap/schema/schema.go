// Package schema knows what a directory's attributes and object classes are, and how values of each are compared: the
// attribute types, object classes, syntaxes and matching rules of RFC 4512, 4517, 4519, 4523, 4524, 2798, 2307 and 2307bis,
// and whatever else a subschema subentry describes.
package schema

import (
	"embed"
	"fmt"
	"strings"
	"sync"
)

//go:embed definitions/*.schema
var definitions embed.FS

// files are the definitions in the order in which they build upon each other.
var files = []string{"core", "cosine", "inetorgperson", "nis"}

// A Schema is a set of definitions. It does not change once it is in use, and is then safe for concurrent use.
type Schema struct {
	attributes map[string]*AttributeType // by OID and by name in lower case
	classes    map[string]*ObjectClass
	types      []*AttributeType // in the order of definition
	kinds      []*ObjectClass
}

// Default is the schema of the standards. It must not be changed; Extend makes a larger one.
func Default() *Schema { return standard() }

var standard = sync.OnceValue(func() *Schema {
	s := &Schema{attributes: map[string]*AttributeType{}, classes: map[string]*ObjectClass{}}
	for _, name := range files {
		text, err := definitions.ReadFile("definitions/" + name + ".schema")
		if err == nil {
			err = s.load(string(text))
		}
		if err != nil {
			panic(fmt.Sprintf("ldap schema %s: %v", name, err)) // our own text: tests load it
		}
	}
	return s
})

// load takes lines of "attributetype (…)" and "objectclass (…)"; a line that begins with '#' is a comment.
func (s *Schema) load(text string) error {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		kind, description, _ := strings.Cut(line, " ")
		if err := s.define(kind, description); err != nil {
			return err
		}
	}
	return nil
}

func (s *Schema) define(kind, description string) error {
	switch kind {
	case "attributetype":
		a, err := ParseAttributeType(description)
		if err != nil {
			return err
		}
		s.addAttribute(a)
	case "objectclass":
		c, err := ParseObjectClass(description)
		if err != nil {
			return err
		}
		s.addClass(c)
	default:
		return fmt.Errorf("%q is neither attributetype nor objectclass", kind)
	}
	return nil
}

func (s *Schema) addAttribute(a *AttributeType) {
	s.types = append(s.types, a)
	s.attributes[strings.ToLower(a.OID)] = a
	for _, n := range a.Names {
		s.attributes[strings.ToLower(n)] = a
	}
	s.inherit(a, 0)
}

func (s *Schema) addClass(c *ObjectClass) {
	s.kinds = append(s.kinds, c)
	s.classes[strings.ToLower(c.OID)] = c
	for _, n := range c.Names {
		s.classes[strings.ToLower(n)] = c
	}
}

// inherit gives a type what its supertypes say and itself does not (RFC 4512, section 2.5.1).
func (s *Schema) inherit(a *AttributeType, depth int) {
	a.syntax, a.equality, a.ordering, a.substrings = a.Syntax, Rule(a.Equality), Rule(a.Ordering), Rule(a.Substrings)
	if a.Sup == "" || depth > maxDepth {
		return
	}
	sup := s.Attribute(a.Sup)
	if sup == nil || sup == a {
		return
	}
	a.sup = sup
	if a.syntax == "" {
		a.syntax = sup.syntax
	}
	if a.Equality == "" {
		a.equality = sup.equality
	}
	if a.Ordering == "" {
		a.ordering = sup.ordering
	}
	if a.Substrings == "" {
		a.substrings = sup.substrings
	}
}

// maxDepth bounds chains of supertypes and superclasses: a foreign subschema may have a circle.
const maxDepth = 32

// Extend makes a schema with these attribute types beside those of s; what s has under one of the names stays.
func (s *Schema) Extend(types ...*AttributeType) *Schema {
	out := &Schema{attributes: make(map[string]*AttributeType, len(s.attributes)+len(types)), classes: s.classes, kinds: s.kinds}
	for k, a := range s.attributes {
		out.attributes[k] = a
	}
	out.types = append(out.types, s.types...)
	for _, a := range types {
		known := false
		for _, n := range append([]string{a.OID}, a.Names...) {
			known = known || out.attributes[strings.ToLower(n)] != nil
		}
		if !known {
			out.addAttribute(a)
		}
	}
	return out
}

// Parse reads the values of attributeTypes and objectClasses of a server's subschema subentry. What can't be read is left
// out and told in problems: servers have descriptions that no RFC knows.
func Parse(attributeTypes, objectClasses []string) (s *Schema, problems []error) {
	s = &Schema{attributes: map[string]*AttributeType{}, classes: map[string]*ObjectClass{}}
	for _, d := range attributeTypes {
		if err := s.define("attributetype", d); err != nil {
			problems = append(problems, err)
		}
	}
	for range maxDepth { // a server lists them in any order
		settled := true
		for _, a := range s.types {
			before := *a
			s.inherit(a, 0)
			settled = settled && before.syntax == a.syntax && before.equality == a.equality && before.ordering == a.ordering && before.substrings == a.substrings && before.sup == a.sup
		}
		if settled {
			break
		}
	}
	for _, d := range objectClasses {
		if err := s.define("objectclass", d); err != nil {
			problems = append(problems, err)
		}
	}
	return s, problems
}

// Attribute gives the type that has this name or OID, in any case and without options; nil if none has.
func (s *Schema) Attribute(name string) *AttributeType {
	if a := s.attributes[name]; a != nil {
		return a
	}
	return s.attributes[lower(name)]
}

// Class gives the object class that has this name or OID, in any case; nil if none has.
func (s *Schema) Class(name string) *ObjectClass {
	if c := s.classes[name]; c != nil {
		return c
	}
	return s.classes[lower(name)]
}

// AttributeTypes and ObjectClasses list the definitions, each in the order in which it was made.
func (s *Schema) AttributeTypes() []*AttributeType { return s.types }

// ObjectClasses lists the object classes.
func (s *Schema) ObjectClasses() []*ObjectClass { return s.kinds }

// lower is strings.ToLower of ASCII: descriptors have no other letters.
func lower(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			return strings.ToLower(s)
		}
	}
	return s
}

// An AttributeType is defined as RFC 4512, section 4.1.2 has it. Sup, Syntax and the rules are as written; the methods
// also know what is inherited.
type AttributeType struct {
	OID                string
	Names              []string
	Description        string
	Obsolete           bool
	Sup                string
	Equality           string
	Ordering           string
	Substrings         string
	Syntax             string // its OID
	Bound              int    // a suggested minimum upper bound of the length, 0 without
	SingleValue        bool
	Collective         bool
	NoUserModification bool
	Usage              Usage
	Extensions         []Extension

	sup        *AttributeType
	syntax     string
	equality   *MatchingRule
	ordering   *MatchingRule
	substrings *MatchingRule
}

// An Extension is an X- part of a description.
type Extension struct {
	Name   string // "X-ORIGIN"
	Values []string
}

// Usage tells what an attribute is for.
type Usage uint8

// The usages of RFC 4512, section 4.1.2.
const (
	UserApplications Usage = iota
	DirectoryOperation
	DistributedOperation
	DSAOperation
)

var usages = [...]string{"userApplications", "directoryOperation", "distributedOperation", "dSAOperation"}

// Name is the first of its names, or its OID without one.
func (a *AttributeType) Name() string {
	if len(a.Names) > 0 {
		return a.Names[0]
	}
	return a.OID
}

// Operational tells whether the attribute is returned only when asked for (RFC 4512, section 3.4).
func (a *AttributeType) Operational() bool { return a.Usage != UserApplications }

// SyntaxOID is the syntax, inherited or not; "" where nothing says it.
func (a *AttributeType) SyntaxOID() string { return a.syntax }

// EqualityRule, OrderingRule and SubstringsRule are the rules in force, inherited or not; nil without.
func (a *AttributeType) EqualityRule() *MatchingRule { return a.equality }

// OrderingRule is what >= and <= compare with; nil without.
func (a *AttributeType) OrderingRule() *MatchingRule { return a.ordering }

// SubstringsRule is what substring filters compare with; nil without.
func (a *AttributeType) SubstringsRule() *MatchingRule { return a.substrings }

// Is tells whether a is t or a subtype of it.
func (a *AttributeType) Is(t *AttributeType) bool {
	for i := 0; a != nil && i < maxDepth; i++ {
		if a == t {
			return true
		}
		a = a.sup
	}
	return false
}

// Super is the direct supertype; nil without.
func (a *AttributeType) Super() *AttributeType { return a.sup }

// An ObjectClass is defined as RFC 4512, section 4.1.1 has it.
type ObjectClass struct {
	OID         string
	Names       []string
	Description string
	Obsolete    bool
	Sup         []string
	Kind        ClassKind
	Must        []string
	May         []string
	Extensions  []Extension
}

// ClassKind is one of the three kinds of object classes.
type ClassKind uint8

// The kinds of RFC 4512, section 2.4.
const (
	Structural ClassKind = iota
	Abstract
	Auxiliary
)

var classKinds = [...]string{"STRUCTURAL", "ABSTRACT", "AUXILIARY"}

// Name is the first of its names, or its OID without one.
func (c *ObjectClass) Name() string {
	if len(c.Names) > 0 {
		return c.Names[0]
	}
	return c.OID
}
