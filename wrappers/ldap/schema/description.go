package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Descriptions as RFC 4512, section 4.1 has them: "( 2.5.4.3 NAME ( 'cn' 'commonName' ) SUP name )". Read leniently, as
// servers write them: quoted OIDs (Active Directory), unquoted names, no blanks around parentheses.

// maxDescription bounds one description.
const maxDescription = 64 << 10

var (
	errTooLong  = errors.New("a description of more than 64 KiB")
	errNoParen  = errors.New("a description stands in parentheses")
	errNoOID    = errors.New("a description begins with an OID")
	errUnquoted = errors.New("a quoted string has no end")
)

type tokens struct {
	text string
	err  error
}

// next gives the next token: "(", ")", "$", a word, or a quoted string with its quotes taken off; "" at the end.
func (t *tokens) next() (token string, quoted bool) {
	t.text = strings.TrimLeft(t.text, " \t\r\n")
	if t.text == "" || t.err != nil {
		return "", false
	}
	switch t.text[0] {
	case '(', ')', '$':
		token, t.text = t.text[:1], t.text[1:]
		return token, false
	case '\'':
		end := strings.IndexByte(t.text[1:], '\'')
		if end < 0 {
			t.err = errUnquoted
			return "", false
		}
		token, t.text = t.text[1:1+end], t.text[2+end:]
		return unescapeQuoted(token), true
	}
	end := strings.IndexAny(t.text, " \t\r\n()$'")
	if end < 0 {
		end = len(t.text)
	}
	token, t.text = t.text[:end], t.text[end:]
	return token, false
}

// peek tells whether the next token is this one.
func (t *tokens) peek(token string) bool {
	return strings.HasPrefix(strings.TrimLeft(t.text, " \t\r\n"), token)
}

func unescapeQuoted(s string) string {
	if strings.IndexByte(s, '\\') < 0 {
		return s
	}
	return strings.NewReplacer(`\27`, `'`, `\5c`, `\`, `\5C`, `\`).Replace(s)
}

func escapeQuoted(s string) string {
	if !strings.ContainsAny(s, `'\`) {
		return s
	}
	return strings.NewReplacer(`'`, `\27`, `\`, `\5C`).Replace(s)
}

// list reads one value or a list of them in parentheses, separated by '$' or blanks.
func (t *tokens) list() []string {
	if !t.peek("(") {
		v, _ := t.next()
		if v == ")" || v == "$" || v == "" && t.err == nil && t.text == "" {
			t.err = errors.New("a value is missing")
			return nil
		}
		return []string{v}
	}
	t.next()
	var out []string
	for {
		v, quoted := t.next()
		switch {
		case t.err != nil:
			return nil
		case v == ")" && !quoted:
			return out
		case v == "" && !quoted:
			t.err = errors.New("a list has no end")
			return nil
		case v == "$" && !quoted:
		case v == "(" && !quoted:
			t.err = errors.New("a list within a list")
			return nil
		default:
			out = append(out, v)
		}
	}
}

// one reads exactly one value.
func (t *tokens) one() string {
	l := t.list()
	if len(l) != 1 && t.err == nil {
		t.err = errors.New("one value is wanted")
	}
	if len(l) == 0 {
		return ""
	}
	return l[0]
}

// parse reads a description: its OID, then each keyword, which take reads with what follows it.
func parse(text string, take func(keyword string, t *tokens) bool) (oid string, err error) {
	if len(text) > maxDescription {
		return "", errTooLong
	}
	t := &tokens{text: text}
	if p, q := t.next(); p != "(" || q {
		return "", errNoParen
	}
	oid, _ = t.next()
	if oid == "" || oid == ")" || oid == "(" || oid == "$" {
		return "", errNoOID
	}
	for t.err == nil {
		word, quoted := t.next()
		switch {
		case t.err != nil:
		case word == "":
			return "", fmt.Errorf("%s: %w", oid, errNoParen)
		case word == ")" && !quoted:
			if rest, _ := t.next(); rest != "" {
				return "", fmt.Errorf("%s: something stands behind the closing parenthesis", oid)
			}
			return oid, t.err
		case quoted || word == "(" || word == "$":
			return "", fmt.Errorf("%s: a keyword is wanted at %q", oid, word)
		case !take(strings.ToUpper(word), t):
			return "", fmt.Errorf("%s: unknown keyword %q", oid, word)
		}
	}
	return "", fmt.Errorf("%s: %w", oid, t.err)
}

// ParseAttributeType reads an AttributeTypeDescription (RFC 4512, section 4.1.2). Up to 64 KiB.
func ParseAttributeType(text string) (*AttributeType, error) {
	a := &AttributeType{}
	oid, err := parse(text, func(keyword string, t *tokens) bool {
		switch keyword {
		case "NAME":
			a.Names = t.list()
		case "DESC":
			a.Description = t.one()
		case "OBSOLETE":
			a.Obsolete = true
		case "SUP":
			a.Sup = t.one()
		case "EQUALITY":
			a.Equality = t.one()
		case "ORDERING":
			a.Ordering = t.one()
		case "SUBSTR":
			a.Substrings = t.one()
		case "SYNTAX":
			oid, bound, bounded := strings.Cut(t.one(), "{")
			a.Syntax = oid
			if bounded {
				if a.Bound, t.err = strconv.Atoi(strings.TrimSuffix(bound, "}")); t.err == nil && a.Bound < 0 {
					t.err = errors.New("a bound is not negative")
				}
			}
		case "SINGLE-VALUE":
			a.SingleValue = true
		case "COLLECTIVE":
			a.Collective = true
		case "NO-USER-MODIFICATION":
			a.NoUserModification = true
		case "USAGE":
			word := t.one()
			known := false
			for i, u := range usages {
				if strings.EqualFold(u, word) {
					a.Usage, known = Usage(i), true
				}
			}
			if !known && t.err == nil {
				t.err = fmt.Errorf("unknown usage %q", word)
			}
		default:
			return extension(keyword, t, &a.Extensions)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("attribute type: %w", err)
	}
	a.OID = oid
	if err := bare(oid, a.Sup, a.Equality, a.Ordering, a.Substrings, a.Syntax); err != nil {
		return nil, fmt.Errorf("attribute type: %s: %w", oid, err)
	}
	return a, nil
}

// ParseObjectClass reads an ObjectClassDescription (RFC 4512, section 4.1.1). Up to 64 KiB.
func ParseObjectClass(text string) (*ObjectClass, error) {
	c := &ObjectClass{}
	oid, err := parse(text, func(keyword string, t *tokens) bool {
		switch keyword {
		case "NAME":
			c.Names = t.list()
		case "DESC":
			c.Description = t.one()
		case "OBSOLETE":
			c.Obsolete = true
		case "SUP":
			c.Sup = t.list()
		case "STRUCTURAL":
			c.Kind = Structural
		case "ABSTRACT":
			c.Kind = Abstract
		case "AUXILIARY":
			c.Kind = Auxiliary
		case "MUST":
			c.Must = t.list()
		case "MAY":
			c.May = t.list()
		default:
			return extension(keyword, t, &c.Extensions)
		}
		return true
	})
	if err != nil {
		return nil, fmt.Errorf("object class: %w", err)
	}
	c.OID = oid
	for _, l := range [][]string{{oid}, c.Sup, c.Must, c.May} {
		err := bare(l...)
		if slices.Contains(l, "") {
			err = errors.New("an empty name")
		}
		if err != nil {
			return nil, fmt.Errorf("object class: %s: %w", oid, err)
		}
	}
	return c, nil
}

// bare refuses what can't stand without quotes: an OID or a name, which Active Directory quotes.
func bare(words ...string) error {
	for _, w := range words {
		if strings.ContainsAny(w, " \t\r\n()$'{}\\") {
			return fmt.Errorf("%q is neither an OID nor a name", w)
		}
	}
	return nil
}

func extension(keyword string, t *tokens, to *[]Extension) bool {
	if !strings.HasPrefix(keyword, "X-") {
		return false
	}
	*to = append(*to, Extension{Name: keyword, Values: t.list()})
	return true
}

// String renders the description.
func (a *AttributeType) String() string {
	b := begin(a.OID, a.Names, a.Description, a.Obsolete)
	word(b, "SUP", a.Sup)
	word(b, "EQUALITY", a.Equality)
	word(b, "ORDERING", a.Ordering)
	word(b, "SUBSTR", a.Substrings)
	if a.Syntax != "" {
		b.WriteString(" SYNTAX " + a.Syntax)
		if a.Bound > 0 {
			fmt.Fprintf(b, "{%d}", a.Bound)
		}
	}
	flag(b, "SINGLE-VALUE", a.SingleValue)
	flag(b, "COLLECTIVE", a.Collective)
	flag(b, "NO-USER-MODIFICATION", a.NoUserModification)
	if a.Usage != UserApplications {
		word(b, "USAGE", usages[a.Usage])
	}
	return end(b, a.Extensions)
}

// String renders the description.
func (c *ObjectClass) String() string {
	b := begin(c.OID, c.Names, c.Description, c.Obsolete)
	words(b, "SUP", c.Sup)
	b.WriteString(" " + classKinds[c.Kind])
	words(b, "MUST", c.Must)
	words(b, "MAY", c.May)
	return end(b, c.Extensions)
}

func begin(oid string, names []string, description string, obsolete bool) *strings.Builder {
	b := &strings.Builder{}
	b.WriteString("( " + oid)
	if len(names) > 0 {
		b.WriteString(" NAME")
		quotedList(b, names)
	}
	if description != "" {
		b.WriteString(" DESC '" + escapeQuoted(description) + "'")
	}
	flag(b, "OBSOLETE", obsolete)
	return b
}

func end(b *strings.Builder, extensions []Extension) string {
	for _, x := range extensions {
		b.WriteString(" " + x.Name)
		quotedList(b, x.Values)
	}
	b.WriteString(" )")
	return b.String()
}

func quotedList(b *strings.Builder, values []string) {
	if len(values) == 1 {
		b.WriteString(" '" + escapeQuoted(values[0]) + "'")
		return
	}
	b.WriteString(" (")
	for _, v := range values {
		b.WriteString(" '" + escapeQuoted(v) + "'")
	}
	b.WriteString(" )")
}

func word(b *strings.Builder, keyword, value string) {
	if value != "" {
		b.WriteString(" " + keyword + " " + value)
	}
}

func words(b *strings.Builder, keyword string, values []string) {
	switch len(values) {
	case 0:
	case 1:
		word(b, keyword, values[0])
	default:
		b.WriteString(" " + keyword + " ( " + strings.Join(values, " $ ") + " )")
	}
}

func flag(b *strings.Builder, keyword string, on bool) {
	if on {
		b.WriteString(" " + keyword)
	}
}
