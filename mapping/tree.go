package mapping

import (
	"regexp"
	"slices"
	"sort"
	"strings"
)

// A tree finds the templates that an address matches. A level holds the literal segments, then
// the shapes with captures by their literal prefix, longest first, then what takes whole
// segments: so the first leaf found is the most specific one, given that overlapping templates
// which are not more specific than each other were refused.
type tree struct {
	root      node
	separator string
	absolute  bool
	query     bool
	fold      bool
	keys      bool
}

type node struct {
	literals map[string]*node
	prefixes []prefixes // by length of the prefix, descending
	rests    []restEdge // by number of segments behind it, descending
	leaves   []*leaf    // with more parameters and narrower captures first
}

type prefixes struct {
	length int
	edges  map[string][]*shapeEdge // most literal text first
}

type shapeEdge struct {
	shape *shape
	node  *node
}

type restEdge struct {
	behind int
	node   *node
}

// A leaf is one template in a tree, and what it belongs to.
type leaf struct {
	template *template
	checks   []check
	entry    *entry // forward trees
	decl     *decl  // declarations
	ignore   bool
}

// A check narrows a capture.
type check struct {
	index int // in template.names
	re    *regexp.Regexp
	// as, of a register block, makes of the capture the text that stands in the register's name, which is what the
	// engine sees. Nil: it is the same.
	as *escaper
}

func (c *check) matches(value string) bool {
	if c.as != nil && !c.as.clean(value) {
		return c.re.Match(c.as.append(nil, value))
	}
	return c.re.MatchString(value)
}

func (t *tree) insert(l *leaf) {
	n := &t.root
	segs := l.template.segments
	for i := range segs {
		s := &segs[i]
		switch {
		case s.rest:
			n = n.restTo(len(segs) - i - 1)
		case s.shape != nil:
			n = n.shapeTo(s.shape, t.fold)
		default:
			if n.literals == nil {
				n.literals = map[string]*node{}
			}
			lit := s.literal
			if t.fold {
				lit = foldASCII(lit)
			}
			next := n.literals[lit]
			if next == nil {
				next = &node{}
				n.literals[lit] = next
			}
			n = next
		}
	}
	n.leaves = append(n.leaves, l)
	sort.SliceStable(n.leaves, func(i, j int) bool {
		a, b := n.leaves[i], n.leaves[j]
		if len(a.template.params) != len(b.template.params) {
			return len(a.template.params) > len(b.template.params)
		}
		return len(a.checks) > len(b.checks)
	})
}

func (n *node) restTo(behind int) *node {
	for _, r := range n.rests {
		if r.behind == behind {
			return r.node
		}
	}
	next := &node{}
	n.rests = append(n.rests, restEdge{behind, next})
	slices.SortFunc(n.rests, func(a, b restEdge) int { return b.behind - a.behind })
	return next
}

func (n *node) shapeTo(s *shape, fold bool) *node {
	if fold {
		s = s.folded()
	}
	pre := s.literals[0]
	i := slices.IndexFunc(n.prefixes, func(p prefixes) bool { return p.length == len(pre) })
	if i < 0 {
		n.prefixes = append(n.prefixes, prefixes{len(pre), map[string][]*shapeEdge{}})
		slices.SortFunc(n.prefixes, func(a, b prefixes) int { return b.length - a.length })
		i = slices.IndexFunc(n.prefixes, func(p prefixes) bool { return p.length == len(pre) })
	}
	edges := n.prefixes[i].edges
	for _, e := range edges[pre] {
		if slices.Equal(e.shape.literals, s.literals) {
			return e.node
		}
	}
	e := &shapeEdge{s, &node{}}
	edges[pre] = append(edges[pre], e)
	sort.SliceStable(edges[pre], func(i, j int) bool { return edges[pre][i].shape.weight() > edges[pre][j].shape.weight() })
	return e.node
}

// folded is the shape with its literal text in small letters.
func (s *shape) folded() *shape {
	out := *s
	out.literals = make([]string, len(s.literals))
	for i, lit := range s.literals {
		out.literals[i] = foldASCII(lit)
	}
	return &out
}

// weight orders shapes of one prefix: a suffix first, then more captures.
func (s *shape) weight() int {
	n := len(s.literals) - 1
	return len(s.literals[n])*maxCaptures + n
}

// A finding is one walk through a tree.
type finding struct {
	raw   captures // by index in the leaf's names
	query string
	leaf  *leaf
	// all visits every leaf that matches and notes its captures, instead of taking the first.
	all  bool
	hits []hit
}

type hit struct {
	leaf *leaf
	raw  captures
}

// find walks the tree; f.leaf and f.raw are set when it returns true. It allocates only where an
// address holds escapes.
func (t *tree) find(address string, f *finding) bool {
	if len(address) > maxAddress {
		return false
	}
	if t.query {
		address, f.query, _ = cutQuery(address)
	}
	if t.absolute {
		rest, ok := strings.CutPrefix(address, t.separator)
		if !ok {
			return false
		}
		address = rest
	}
	return t.walk(&t.root, address, true, 0, f)
}

func (t *tree) walk(n *node, rest string, more bool, k int, f *finding) bool {
	if !more {
		for _, l := range n.leaves {
			if t.take(l, f) {
				return true
			}
		}
		return false
	}
	seg, tail := rest, ""
	if i := strings.Index(rest, t.separator); i >= 0 {
		seg, tail = rest[:i], rest[i+len(t.separator):]
	} else {
		more = false
	}
	key := seg
	if t.fold {
		key = foldASCII(seg)
	}
	if next := n.literals[key]; next != nil && t.walk(next, tail, more, k, f) {
		return true
	}
	for i := range n.prefixes {
		p := &n.prefixes[i]
		if len(key) <= p.length {
			continue
		}
		for _, e := range p.edges[key[:p.length]] {
			m := len(e.shape.escapes)
			if k+m > maxCaptures || !e.shape.match(key, f.raw[k:]) {
				continue
			}
			if t.fold {
				unfold(e.shape, seg, f.raw[k:k+m])
			}
			// What is deeper may overwrite raw while it fails; so may the next edge.
			if e.shape.values(f.raw[k:k+m]) && t.walk(e.node, tail, more, k+m, f) {
				return true
			}
		}
	}
	if len(n.rests) == 0 || k == maxCaptures {
		return false
	}
	total := strings.Count(rest, t.separator) + 1
	for _, r := range n.rests {
		take := total - r.behind
		if take < 1 {
			continue
		}
		end, at := 0, 0
		for i := range take {
			j := strings.Index(rest[at:], t.separator)
			if j < 0 {
				end = len(rest)
				break
			}
			end = at + j
			if at = end + len(t.separator); i == take-1 {
				break
			}
		}
		f.raw[k] = rest[:end]
		behind := ""
		if r.behind > 0 {
			behind = rest[end+len(t.separator):]
		}
		if t.walk(r.node, behind, r.behind > 0, k+1, f) {
			return true
		}
	}
	return false
}

// take finishes a match: the rest capture, parameters and checks, which may differ between the
// leaves of one node.
func (t *tree) take(l *leaf, f *finding) bool {
	saved := ""
	slot := -1
	for i := range l.template.segments {
		if s := &l.template.segments[i]; s.rest {
			slot, saved = s.first, f.raw[s.first]
			v, ok := l.template.decodeRest(saved)
			if !ok {
				return false
			}
			f.raw[slot] = v
		}
	}
	ok := len(l.template.params) == 0 || l.template.matchParams(f.query, f.raw[:])
	for _, c := range l.checks {
		if !ok {
			break
		}
		ok = c.matches(f.raw[c.index])
	}
	if ok && f.all {
		f.hits = append(f.hits, hit{l, f.raw})
		ok = false
	}
	if ok {
		f.leaf = l
	} else if slot >= 0 {
		f.raw[slot] = saved
	}
	return ok
}

// unfold takes captures that were cut from the folded segment from the segment as it came.
func unfold(s *shape, seg string, raw []string) {
	at := len(s.literals[0])
	for i := range raw {
		raw[i] = seg[at : at+len(raw[i])]
		at += len(raw[i]) + len(s.literals[i+1])
	}
}

// foldASCII keeps the length, so that captures can be cut from the original.
func foldASCII(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= 'A' && c <= 'Z' {
			b := []byte(s)
			for ; i < len(b); i++ {
				if b[i] >= 'A' && b[i] <= 'Z' {
					b[i] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}

// eachOverlapping yields the leaves whose templates could match an address that t matches too;
// relate decides.
func (t *tree) eachOverlapping(l *leaf, yield func(*leaf)) {
	t.overlapping(&t.root, l.template.segments, yield)
}

func (t *tree) overlapping(n *node, segs []segment, yield func(*leaf)) {
	if len(segs) == 0 {
		for _, l := range n.leaves {
			yield(l)
		}
		return
	}
	s := &segs[0]
	if s.rest {
		n.all(yield)
		return
	}
	if s.shape == nil {
		lit := s.literal
		if t.fold {
			lit = foldASCII(lit)
		}
		if next := n.literals[lit]; next != nil {
			t.overlapping(next, segs[1:], yield)
		}
	} else {
		for _, next := range n.literals {
			t.overlapping(next, segs[1:], yield)
		}
	}
	for _, p := range n.prefixes {
		for pre, edges := range p.edges {
			if s.shape == nil && !strings.HasPrefix(s.literal, pre) && !t.fold {
				continue
			}
			for _, e := range edges {
				t.overlapping(e.node, segs[1:], yield)
			}
		}
	}
	for _, r := range n.rests {
		r.node.all(yield)
	}
}

func (n *node) all(yield func(*leaf)) {
	for _, l := range n.leaves {
		yield(l)
	}
	for _, next := range n.literals {
		next.all(yield)
	}
	for _, p := range n.prefixes {
		for _, edges := range p.edges {
			for _, e := range edges {
				e.node.all(yield)
			}
		}
	}
	for _, r := range n.rests {
		r.node.all(yield)
	}
}
