package ldap

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
)

// binds are those of the wrapper as they are now, and what of entries they speak of.
type binds struct {
	patterns []wrappers.Pattern
	changed  <-chan struct{}
	types    *entry.Types
	all      *entry.Members  // of all of them together
	depth    int             // RDNs of the deepest address; -1: any number
	hash     string          // names what those that read mean
	named    map[string]bool // members that binds name, in small letters
}

func readBinds(link wrappers.Link, types *entry.Types) *binds {
	b := &binds{types: types}
	b.patterns, b.changed = link.Patterns()
	var in []string
	for i := range b.patterns {
		p := &b.patterns[i]
		if p.In {
			in = append(in, p.Bind+" "+p.Hash)
		}
		if slices.ContainsFunc(p.Segments, func(s wrappers.Segment) bool { return s.Kind == wrappers.RestSegments }) {
			b.depth = -1
		} else if b.depth >= 0 {
			b.depth = max(b.depth, len(p.Segments))
		}
	}
	slices.Sort(in)
	sum := sha256.Sum256([]byte(strings.Join(in, "\n")))
	b.hash = hex.EncodeToString(sum[:8])
	b.all = b.union(func(*wrappers.Pattern) bool { return true })
	b.named = map[string]bool{}
	names, _ := b.all.Names()
	for _, n := range names {
		b.named[strings.ToLower(n)] = true
	}
	return b
}

// union gives the members that some of the binds speak of.
func (b *binds) union(of func(*wrappers.Pattern) bool) *entry.Members {
	var sum wrappers.Pattern
	for i := range b.patterns {
		if p := &b.patterns[i]; of(p) {
			sum.Members = append(sum.Members, p.Members...)
			sum.Open = sum.Open || p.Open
		}
	}
	return b.types.MembersOf(&sum)
}

// members are those that the binds of one address speak of.
func (b *binds) members(address string) *entry.Members {
	if len(b.patterns) == 1 {
		return b.all
	}
	return b.union(func(p *wrappers.Pattern) bool { return fits(p, address) })
}

// fits tells whether a pattern may have an address. It may say so where a capture does not take the value.
func fits(p *wrappers.Pattern, address string) bool {
	left := strings.Split(address, dn.Separator)
	for i, s := range p.Segments {
		switch {
		case s.Kind == wrappers.RestSegments:
			behind := len(p.Segments) - i - 1
			if len(left) <= behind {
				return false
			}
			left = left[len(left)-behind:]
		case len(left) == 0 || s.Kind == wrappers.LiteralSegment && !strings.EqualFold(s.Literal, left[0]):
			return false
		default:
			left = left[1:]
		}
	}
	return len(left) == 0
}

// above tells whether entries that are mapped may stand below a name: it has to be known when it is moved.
func (b *binds) above(name, base dn.DN) bool { return b.depth < 0 || len(name)-len(base) < b.depth }

// attributes are those to ask the server for: the mapped ones, or all user attributes (RFC 4511, section 4.5.1.8) where a bind
// takes any. The order is always the same.
func (b *binds) attributes() []string {
	names, open := b.all.Names()
	switch {
	case open:
		return append([]string{"*"}, names...) // an operational one is sent only where it is named
	case len(names) == 0:
		return []string{"1.1"}
	}
	return names
}

// beside are attributes that the feed asks for, of its own accord.
var beside = []string{"entryUUID", "nsUniqueId", objectGUID, "entryCSN", usnChanged, "modifiersName", "modifyTimestamp"}

// without leaves out what no bind has asked for, which one that takes any attribute would take for the entry's.
func (b *binds) without(attributes []ldapwire.PartialAttribute) []ldapwire.PartialAttribute {
	return slices.DeleteFunc(slices.Clone(attributes), func(a ldapwire.PartialAttribute) bool {
		return !b.named[strings.ToLower(a.Type)] && slices.ContainsFunc(beside, func(n string) bool { return strings.EqualFold(n, a.Type) })
	})
}
