package http

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

// forbidden are the characters that stand for themselves nowhere in a captured value: they
// structure a URL, or can't be seen in a log.
const forbidden = "?#&=+\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f" +
	"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\x7f"

var syntax = wrappers.Syntax{
	Separator: "/",
	Forbidden: forbidden,
	Absolute:  true,
	Query:     true,
	Canonical: canonical,
}

var forbiddenByte = func() (t [256]bool) {
	for i := range len(forbidden) {
		t[forbidden[i]] = true
	}
	return t
}()

// plain bytes need no thought in a path. What follows a '.' must be looked at (dot segments).
var plain = func() (t [256]bool) {
	for c := range 256 {
		t[c] = c > ' ' && c < 0x7f && !forbiddenByte[c] && c != '%' && c != '.'
	}
	return t
}()

// canonical brings a path, with its query if it has one, into the form Operations carry:
// everything that can be is decoded; '/', '%' and what is forbidden in a value stay percent-escaped, with upper-case digits; dot
// segments are resolved (RFC 3986, section 6.2.2). A text that is canonical comes back as it is.
func canonical(s string) (string, error) {
	if s == "" || s[0] != '/' {
		return "", fmt.Errorf("an address of http begins with a slash: %q", s)
	}
	i := 0
	for i < len(s) && plain[s[i]] {
		i++
	}
	if i == len(s) {
		return s, nil
	}
	path, query, found := strings.Cut(s, "?")
	b := appendDecoded(make([]byte, 0, len(s)+8), path, false)
	b = resolveDots(b)
	if found {
		b = append(b, '?')
		b = appendDecoded(b, query, true)
	}
	return string(b), nil
}

// appendDecoded decodes escapes, except of what would then mean something else.
func appendDecoded(b []byte, s string, query bool) []byte {
	raw := make([]byte, 0, len(s))
	escaped := make([]bool, 0, len(s))
	for i := 0; i < len(s); i++ {
		c, e := s[i], false
		switch {
		case c == '%' && i+2 < len(s) && ishex(s[i+1]) && ishex(s[i+2]):
			c, e = unhex(s[i+1])<<4|unhex(s[i+2]), true
			i += 2
		case query && c == '+':
			c, e = ' ', true
		}
		raw, escaped = append(raw, c), append(escaped, e)
	}
	for i := 0; i < len(raw); {
		c := raw[i]
		switch {
		case c == '%' && i+2 < len(raw) && ishex(raw[i+1]) && ishex(raw[i+2]):
			b = append(b, "%25"...) // only a '%' that could be read as an escape is written as one
		case c >= utf8.RuneSelf:
			r, size := utf8.DecodeRune(raw[i:])
			if r == utf8.RuneError && size == 1 {
				b = appendEscape(b, c)
				break
			}
			b = append(b, raw[i:i+size]...)
			i += size
			continue
		case escaped[i] && c == '/', forbiddenByte[c] && (escaped[i] || !query || c != '&' && c != '=' && c != '?'):
			b = appendEscape(b, c)
		default:
			b = append(b, c)
		}
		i++
	}
	return b
}

// resolveDots removes "." and ".." segments (RFC 3986, section 5.2.4). Empty segments stay.
func resolveDots(p []byte) []byte {
	if !strings.Contains(string(p), "/.") {
		return p
	}
	segs := strings.Split(string(p[1:]), "/")
	out := segs[:0]
	for i, seg := range segs {
		switch seg {
		case ".", "..":
			if seg == ".." && len(out) > 0 {
				out = out[:len(out)-1]
			}
			if i == len(segs)-1 {
				out = append(out, "")
			}
		default:
			out = append(out, seg)
		}
	}
	return append(p[:1], strings.Join(out, "/")...)
}

const upperhex = "0123456789ABCDEF"

func appendEscape(b []byte, c byte) []byte {
	return append(b, '%', upperhex[c>>4], upperhex[c&15])
}

func ishex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c >= 'a':
		return c - 'a' + 10
	}
	return c - 'A' + 10
}

// target gives a canonical address the form it has in a request line.
func target(address string) string {
	clean := true
	for i := 0; i < len(address) && clean; i++ {
		c := address[i]
		clean = onWire(c) || c == '?' && strings.IndexByte(address, '?') == i
	}
	if clean {
		return address
	}
	b := make([]byte, 0, len(address)+16)
	query := false
	for i := 0; i < len(address); i++ {
		c := address[i]
		switch {
		case c == '%' && i+2 < len(address) && ishex(address[i+1]) && ishex(address[i+2]),
			onWire(c), query && (c == '?' || c == '/'):
			b = append(b, c)
		case c == '?':
			query = true
			b = append(b, c)
		default:
			b = appendEscape(b, c)
		}
	}
	return string(b)
}

// onWire tells whether a byte may stand in a path or query (RFC 3986, pchar and '/').
func onWire(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~!$&'()*+,;=:@/", c) >= 0
}

// below gives the prefix of a list: the path without its query.
func below(address string) string {
	path, _, _ := strings.Cut(address, "?")
	return path
}

// addressing turns request targets into addresses, as far as the binds tell queries apart.
type addressing struct {
	link    wrappers.Link
	queries bool // some bind's template has a query
}

// resolve gives the address a request target means. Without a bind that looks at queries, the
// query is none of the address. It allocates nothing for a plain path.
func (a addressing) resolve(verb wrappers.Verb, server, target string) (address string, mapped bool, err error) {
	path, _, query := strings.Cut(target, "?")
	if query && a.queries {
		full, err := canonical(target)
		if err != nil {
			return "", false, err
		}
		if a.link.Maps(verb, server, full) {
			return full, true, nil
		}
	}
	if address, err = canonical(path); err != nil {
		return "", false, err
	}
	return address, a.link.Maps(verb, server, address), nil
}

// hasQueries tells whether a template among the patterns looks at queries.
func hasQueries(ps []wrappers.Pattern) bool {
	for i := range ps {
		if ps[i].Suffix != "" {
			return true
		}
	}
	return false
}

// fits tells whether a pattern could have an address. It may say yes too often: a segment with a
// capture in it fits any text.
func fits(p *wrappers.Pattern, server, address string) bool {
	if p.Server != "" && p.Server != server {
		return false
	}
	path, _, query := strings.Cut(address, "?")
	if query != (p.Suffix != "") {
		return false
	}
	rest, more := strings.TrimPrefix(path, "/"), true
	for i, seg := range p.Segments {
		if seg.Kind == wrappers.RestSegments {
			return more && tailFits(p.Segments[i+1:], rest)
		}
		if !more {
			return false
		}
		var s string
		s, rest, more = strings.Cut(rest, "/")
		if seg.Kind == wrappers.LiteralSegment && s != seg.Literal || s == "" {
			return false
		}
	}
	return !more
}

// tailFits matches the segments behind {rest...} from the end.
func tailFits(segs []wrappers.Segment, rest string) bool {
	for i := len(segs) - 1; i >= 0; i-- {
		at := strings.LastIndexByte(rest, '/')
		if at < 0 {
			return false
		}
		if segs[i].Kind == wrappers.LiteralSegment && rest[at+1:] != segs[i].Literal {
			return false
		}
		rest = rest[:at]
	}
	return rest != ""
}

// methodsAt gives the methods that binds name for an address; nil: no bind names any.
func methodsAt(ps []wrappers.Pattern, server, address string) []string {
	for i := range ps {
		if m := ps[i].Options.Strings("methods"); len(m) > 0 && fits(&ps[i], server, address) {
			return m
		}
	}
	return nil
}
