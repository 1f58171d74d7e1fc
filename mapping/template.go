package mapping

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

// Limits of templates.
const (
	maxCaptures = 16
	maxTemplate = 1000 // bytes
	maxAddress  = 64 << 10
)

// registerSyntax is the form of register names.
var registerSyntax = wrappers.Syntax{Separator: "/"}

// captures are the values of a bind's captures, by slot.
type captures [maxCaptures]string

// A template is the parsed form of "sensors/{site}/{sensor}".
type template struct {
	text     string // as written, base included
	syntax   *wrappers.Syntax
	segments []segment
	params   []param // of the query, in the order written
	names    []string
	temp     bool // temporary names match no capture
}

// A segment is what stands between two separators.
type segment struct {
	literal string
	shape   *shape // nil: a literal or a rest
	rest    bool   // captures whole segments
	first   int    // index of its first capture in names
}

// A shape is a segment with captures: literals around n captures.
type shape struct {
	literals []string // n+1; the inner ones are not empty
	escapes  []escaper
}

// A param is one parameter of a query.
type param struct {
	key   string
	shape *shape // nil: a literal
	value string
	first int
}

// parseTemplate reads a template under a syntax; the error is a text for the user.
func parseTemplate(text string, syntax *wrappers.Syntax, temp bool) (*template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("it has %d bytes, a template may have %d", len(text), maxTemplate)
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("it is not UTF-8")
	}
	t := &template{text: text, syntax: syntax, temp: temp}
	path, query, hasQuery := text, "", false
	if syntax.Query {
		path, query, hasQuery = cutQuery(text)
	}
	path, captured, err := t.canonical(path)
	if err != nil {
		return nil, err
	}
	if syntax.Absolute {
		var ok bool
		if path, ok = strings.CutPrefix(path, syntax.Separator); !ok {
			return nil, fmt.Errorf("it must begin with %q", syntax.Separator)
		}
	} else if path == "" {
		return nil, fmt.Errorf("it is empty")
	}
	rests := 0
	for _, piece := range strings.Split(path, syntax.Separator) {
		s := segment{first: len(t.names)}
		lits, names := splitMarks(piece, captured)
		switch {
		case len(names) == 0:
			s.literal = piece
		case strings.HasSuffix(names[0], "..."):
			if len(names) > 1 || lits[0] != "" || lits[1] != "" {
				return nil, fmt.Errorf("{%s} captures whole segments and must stand alone between separators", names[0])
			}
			if rests++; rests > 1 {
				return nil, fmt.Errorf("two captures of the kind {name...}: there can be one")
			}
			names[0] = strings.TrimSuffix(names[0], "...")
			s.rest = true
		default:
			if s.shape, err = newShape(lits, names, syntax.Separator+syntax.Forbidden, temp); err != nil {
				return nil, err
			}
		}
		t.names = append(t.names, names...)
		t.segments = append(t.segments, s)
	}
	if hasQuery {
		if err := t.parseQuery(query); err != nil {
			return nil, err
		}
	}
	if len(t.names) > maxCaptures-2 {
		return nil, fmt.Errorf("%d captures; a template may have %d", len(t.names), maxCaptures-2)
	}
	for i, n := range t.names {
		if slices.Contains(t.names[:i], n) {
			return nil, fmt.Errorf("{%s} stands there twice; each capture needs a name of its own", n)
		}
	}
	return t, nil
}

// cutQuery cuts at the first '?' outside of a capture.
func cutQuery(text string) (path, query string, found bool) { return strings.Cut(text, "?") }

func (t *template) parseQuery(query string) error {
	_, captured, err := marks(query)
	if err != nil {
		return err
	}
	marked, _, _ := marks(query)
	for _, piece := range strings.Split(marked, "&") {
		key, value, ok := strings.Cut(piece, "=")
		if !ok || key == "" || strings.Contains(key, markBegin) {
			return fmt.Errorf("the query is written as ?name={capture}&name=text")
		}
		key, err := url.QueryUnescape(key)
		if err != nil {
			return fmt.Errorf("in the query: %w", err)
		}
		p := param{key: key, first: len(t.names)}
		lits, names := splitMarks(value, captured)
		for i := range lits {
			if lits[i], err = url.QueryUnescape(lits[i]); err != nil {
				return fmt.Errorf("in the query: %w", err)
			}
		}
		if len(names) == 0 {
			p.value = lits[0]
		} else if p.shape, err = newShape(lits, names, "", false); err != nil {
			return err
		}
		for _, n := range names {
			if strings.HasSuffix(n, "...") {
				return fmt.Errorf("{%s} captures whole segments; a query has none", n)
			}
		}
		for _, q := range t.params {
			if q.key == key {
				return fmt.Errorf("the parameter %q stands there twice", key)
			}
		}
		t.names = append(t.names, names...)
		t.params = append(t.params, p)
	}
	return nil
}

// Captures are hidden behind plain words while the protocol brings the text around them into its
// canonical form.
const (
	markBegin = "qzc"
	markEnd   = "czq"
)

func mark(i int) string { return fmt.Sprintf("%s%02d%s", markBegin, i, markEnd) }

var captureName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.\.\.)?$`)

// marks replaces each capture by a word, and gives the names.
func marks(text string) (string, []string, error) {
	var b strings.Builder
	var names []string
	if strings.Contains(text, markBegin) {
		return "", nil, fmt.Errorf("it can't contain the letters %q", markBegin)
	}
	for {
		i := strings.IndexAny(text, "{}")
		if i < 0 {
			b.WriteString(text)
			return b.String(), names, nil
		}
		if text[i] == '}' {
			return "", nil, fmt.Errorf("a } without its {")
		}
		b.WriteString(text[:i])
		end := strings.IndexByte(text[i:], '}')
		if end < 0 {
			return "", nil, fmt.Errorf("a { without its }")
		}
		name := text[i+1 : i+end]
		if !captureName.MatchString(name) {
			return "", nil, fmt.Errorf("{%s} is not the name of a capture: letters, digits and _, not a digit first; {name...} for whole segments", name)
		}
		b.WriteString(mark(len(names)))
		if names = append(names, name); len(names) > maxCaptures {
			return "", nil, fmt.Errorf("more than %d captures", maxCaptures-2)
		}
		text = text[i+end+1:]
	}
}

// canonical brings the path into the protocol's canonical form, with captures as marks.
func (t *template) canonical(path string) (string, []string, error) {
	marked, names, err := marks(path)
	if err != nil {
		return "", nil, err
	}
	if t.syntax.Canonical == nil {
		return marked, names, nil
	}
	got, err := t.syntax.Canonical(marked)
	if err != nil {
		return "", nil, err
	}
	for i := range names {
		if strings.Count(got, mark(i)) != 1 {
			return "", nil, fmt.Errorf("{%s} can't stand there", names[i])
		}
	}
	return got, names, nil
}

// splitMarks gives the literals around the marks of a piece, and the names behind the marks.
func splitMarks(piece string, names []string) (lits, found []string) {
	for {
		i := strings.Index(piece, markBegin)
		if i < 0 {
			return append(lits, piece), found
		}
		n := int(piece[i+len(markBegin)]-'0')*10 + int(piece[i+len(markBegin)+1]-'0')
		lits = append(lits, piece[:i])
		found = append(found, names[n])
		piece = piece[i+len(mark(n)):]
	}
}

func newShape(lits, names []string, forbidden string, temp bool) (*shape, error) {
	s := &shape{literals: lits, escapes: make([]escaper, len(names))}
	for i, name := range names {
		if strings.HasSuffix(name, "...") {
			return nil, fmt.Errorf("{%s} captures whole segments and must stand alone between separators", name)
		}
		e := &s.escapes[i]
		e.add(forbidden)
		if i+1 == len(names) {
			e.tail = temp && lits[i+1] == ""
			if temp && (strings.HasSuffix(lits[i+1], "~") || strings.HasSuffix(lits[i+1], ".tmp")) {
				e.tail = false
			}
		} else if lits[i+1] == "" {
			return nil, fmt.Errorf("{%s} and {%s} need text between them", name, names[i+1])
		} else if pivot := strings.IndexFunc(lits[i+1], func(r rune) bool { return !strings.ContainsRune("%"+hexDigits, r) }); pivot < 0 {
			return nil, fmt.Errorf("the text %q between {%s} and {%s} needs a character other than 0-9, A-F and %%", lits[i+1], name, names[i+1])
		} else if c := lits[i+1][pivot]; c < utf8.RuneSelf {
			e.add(string(rune(c)))
		} else {
			for c := utf8.RuneSelf; c < 256; c++ {
				e.set[c>>6] |= 1 << (c & 63)
			}
		}
		e.head = temp && i == 0 && lits[0] == ""
	}
	return s, nil
}

// match cuts seg into raw captures, each as short as can be, from the left.
func (s *shape) match(seg string, raw []string) bool {
	n := len(s.escapes)
	pre, suf := s.literals[0], s.literals[n]
	if len(seg) < len(pre)+len(suf)+n || !strings.HasPrefix(seg, pre) || !strings.HasSuffix(seg, suf) {
		return false
	}
	mid := seg[len(pre) : len(seg)-len(suf)]
	for k := 1; k < n; k++ {
		i := strings.Index(mid[1:], s.literals[k])
		if i < 0 {
			return false
		}
		raw[k-1] = mid[:i+1]
		if mid = mid[i+1+len(s.literals[k]):]; mid == "" {
			return false
		}
	}
	raw[n-1] = mid
	return true
}

// values decodes raw captures in place.
func (s *shape) values(raw []string) bool {
	for i := range s.escapes {
		v, ok := s.escapes[i].decode(raw[i])
		if !ok {
			return false
		}
		raw[i] = v
	}
	return true
}

// append renders; false if a value is empty.
func (s *shape) append(dst []byte, value func(i int) string) ([]byte, bool) {
	dst = append(dst, s.literals[0]...)
	for i := range s.escapes {
		v := value(i)
		if v == "" {
			return dst, false
		}
		dst = s.escapes[i].append(dst, v)
		dst = append(dst, s.literals[i+1]...)
	}
	return dst, true
}

var registerEscape = func() *escaper {
	e := &escaper{}
	e.add("/")
	return e
}()

func (t *template) segmentEscape() *escaper {
	e := &escaper{head: t.temp, tail: t.temp}
	e.add(t.syntax.Separator + t.syntax.Forbidden)
	return e
}

// decodeRest brings captured whole segments into the form of register names.
func (t *template) decodeRest(text string) (string, bool) {
	e := t.segmentEscape()
	sep := t.syntax.Separator
	if sep == "/" {
		plain := true
		for rest, more := text, true; more && plain; {
			var seg string
			seg, rest, more = strings.Cut(rest, sep)
			plain = seg != "" && e.clean(seg)
		}
		if plain {
			return text, true
		}
	}
	var out []byte
	for i, seg := range strings.Split(text, sep) {
		v, ok := e.decode(seg)
		if !ok || v == "" {
			return "", false
		}
		if i > 0 {
			out = append(out, '/')
		}
		out = registerEscape.append(out, v)
	}
	return string(out), true
}

func (t *template) appendRest(dst []byte, value string) ([]byte, bool) {
	e := t.segmentEscape()
	for i, seg := range strings.Split(value, "/") {
		v, ok := registerEscape.decode(seg)
		if !ok || v == "" {
			return dst, false
		}
		if i > 0 {
			dst = append(dst, t.syntax.Separator...)
		}
		dst = e.append(dst, v)
	}
	return dst, true
}

// appendTo renders the template; value gives captures by their index in names. False: a capture
// is empty or can't stand there.
func (t *template) appendTo(dst []byte, value func(i int) string) ([]byte, bool) {
	ok := true
	for i := range t.segments {
		s := &t.segments[i]
		if i > 0 || t.syntax.Absolute {
			dst = append(dst, t.syntax.Separator...)
		}
		switch {
		case s.rest:
			dst, ok = t.appendRest(dst, value(s.first))
		case s.shape != nil:
			dst, ok = s.shape.append(dst, func(k int) string { return value(s.first + k) })
		default:
			dst = append(dst, s.literal...)
		}
		if !ok {
			return dst, false
		}
	}
	for i := range t.params {
		p := &t.params[i]
		c := byte('&')
		if i == 0 {
			c = '?'
		}
		dst = append(append(append(dst, c), url.QueryEscape(p.key)...), '=')
		text := []byte(p.value)
		if p.shape != nil {
			if text, ok = p.shape.append(nil, func(k int) string { return value(p.first + k) }); !ok {
				return dst, false
			}
		}
		dst = append(dst, url.QueryEscape(string(text))...)
	}
	return dst, true
}

// suffix is the query as written, for wrappers that register paths.
func (t *template) suffix() string {
	if len(t.params) == 0 {
		return ""
	}
	if t.syntax.Keys {
		return t.keySuffix()
	}
	_, q, _ := cutQuery(t.text)
	return "?" + q
}

// queryText decodes a part of a query. A '%' that begins no escape stands for itself.
func queryText(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		} else if c == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(n)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}

// matchParams finds the parameters of the template in a query, in any order. A parameter that
// comes twice does not match.
func (t *template) matchParams(query string, raw []string) bool {
	for i := range t.params {
		p := &t.params[i]
		value, found := "", false
		for rest := query; rest != ""; {
			var piece string
			piece, rest, _ = strings.Cut(rest, "&")
			k, v, _ := strings.Cut(piece, "=")
			if k != p.key {
				if queryText(k) != p.key {
					continue
				}
			}
			if found {
				return false
			}
			value, found = queryText(v), true
		}
		if !found {
			return false
		}
		if p.shape == nil {
			if value != p.value {
				return false
			}
		} else if !p.shape.match(value, raw[p.first:]) || !p.shape.values(raw[p.first:]) {
			return false
		}
	}
	return true
}
