package mapping

import (
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
)

// A relation compares the sets of addresses of two templates.
type relation uint8

const (
	equal relation = iota
	narrower
	wider
	overlapping // they share addresses, and neither holds all of the other's
	disjoint
)

func (r relation) and(s relation) relation {
	switch {
	case r == disjoint || s == disjoint:
		return disjoint
	case r == equal || r == s:
		return s
	case s == equal:
		return r
	}
	return overlapping
}

// relate says how a's addresses lie to b's. Where it can't tell it says overlapping.
func relate(a, b *leaf) relation {
	r := relateSegments(a, b)
	if r == disjoint {
		return disjoint
	}
	for i := range a.template.params {
		p := &a.template.params[i]
		j := slices.IndexFunc(b.template.params, func(q param) bool { return q.key == p.key })
		if j < 0 {
			r = r.and(narrower)
			continue
		}
		q := &b.template.params[j]
		r = r.and(relatePieces(a, p.value, p.shape, p.first, b, q.value, q.shape, q.first))
	}
	for i := range b.template.params {
		if !slices.ContainsFunc(a.template.params, func(p param) bool { return p.key == b.template.params[i].key }) {
			r = r.and(wider)
		}
	}
	return r
}

func relateSegments(a, b *leaf) relation {
	as, bs := a.template.segments, b.template.segments
	ra := slices.IndexFunc(as, func(s segment) bool { return s.rest })
	rb := slices.IndexFunc(bs, func(s segment) bool { return s.rest })
	seg := func(i, j int) relation {
		s, q := &as[i], &bs[j]
		return relatePieces(a, s.literal, s.shape, s.first, b, q.literal, q.shape, q.first)
	}
	r := equal
	switch {
	case ra < 0 && rb < 0:
		if len(as) != len(bs) {
			return disjoint
		}
		for i := range as {
			r = r.and(seg(i, i))
		}
		return r
	case ra < 0:
		return relateSegments(b, a).flip()
	case rb < 0:
		// a takes whole segments, b is of fixed length.
		post := len(as) - ra - 1
		if len(bs) < len(as) {
			return disjoint
		}
		for i := range ra {
			r = r.and(seg(i, i))
		}
		for i := range post {
			r = r.and(seg(len(as)-1-i, len(bs)-1-i))
		}
		return r.and(wider)
	}
	pre := min(ra, rb)
	for i := range pre {
		r = r.and(seg(i, i))
	}
	postA, postB := len(as)-ra-1, len(bs)-rb-1
	for i := range min(postA, postB) {
		r = r.and(seg(len(as)-1-i, len(bs)-1-i))
	}
	for _, d := range []int{ra - rb, postA - postB} {
		if d > 0 {
			r = r.and(narrower)
		} else if d < 0 {
			r = r.and(wider)
		}
	}
	if r == equal {
		r = r.and(relateChecks(a.check(as[ra].first), b.check(bs[rb].first)))
	}
	return r
}

func (r relation) flip() relation {
	switch r {
	case narrower:
		return wider
	case wider:
		return narrower
	}
	return r
}

func (l *leaf) check(index int) *regexp.Regexp {
	for _, c := range l.checks {
		if c.index == index {
			return c.re
		}
	}
	return nil
}

func relatePieces(a *leaf, la string, sa *shape, fa int, b *leaf, lb string, sb *shape, fb int) relation {
	fold := a.template.syntax.Fold
	same := func(x, y string) bool { return x == y || fold && strings.EqualFold(x, y) }
	switch {
	case sa == nil && sb == nil:
		if same(la, lb) {
			return equal
		}
		return disjoint
	case sa == nil:
		return relatePieces(b, lb, sb, fb, a, la, sa, fa).flip()
	case sb == nil:
		raw := make([]string, len(sa.escapes))
		if !sa.match(lb, raw) || !sa.values(raw) {
			return disjoint
		}
		for i, v := range raw {
			if slices.ContainsFunc(a.checks, func(c check) bool { return c.index == fa+i && !c.matches(v) }) {
				return disjoint
			}
		}
		return wider
	}
	na, nb := len(sa.escapes), len(sb.escapes)
	if slices.EqualFunc(sa.literals, sb.literals, same) {
		r := equal
		for i := range sa.escapes {
			r = r.and(relateChecks(a.check(fa+i), b.check(fb+i)))
		}
		return r
	}
	pa, pb, ua, ub := sa.literals[0], sb.literals[0], sa.literals[na], sb.literals[nb]
	if !strings.HasPrefix(pa, pb) && !strings.HasPrefix(pb, pa) || !strings.HasSuffix(ua, ub) && !strings.HasSuffix(ub, ua) {
		return disjoint
	}
	checked := func(l *leaf, first, n int) bool {
		for i := range n {
			if l.check(first+i) != nil {
				return true
			}
		}
		return false
	}
	switch {
	case nb == 1 && strings.HasPrefix(pa, pb) && strings.HasSuffix(ua, ub) && !checked(b, fb, nb):
		return narrower
	case na == 1 && strings.HasPrefix(pb, pa) && strings.HasSuffix(ub, ua) && !checked(a, fa, na):
		return wider
	}
	return overlapping
}

func relateChecks(a, b *regexp.Regexp) relation {
	switch {
	case a == nil && b == nil:
		return equal
	case a == nil:
		return wider
	case b == nil:
		return narrower
	case a.String() == b.String():
		return equal
	}
	wa, fa := words(a)
	wb, fb := words(b)
	switch {
	case fa && !slices.ContainsFunc(wa, b.MatchString), fb && !slices.ContainsFunc(wb, a.MatchString):
		return disjoint
	case fa && !slices.ContainsFunc(wa, func(w string) bool { return !b.MatchString(w) }):
		if fb && !slices.ContainsFunc(wb, func(w string) bool { return !a.MatchString(w) }) {
			return equal
		}
		return narrower
	case fb && !slices.ContainsFunc(wb, func(w string) bool { return !a.MatchString(w) }):
		return wider
	}
	for _, x := range beginnings(a) {
		for _, y := range beginnings(b) {
			if strings.HasPrefix(x, y) || strings.HasPrefix(y, x) {
				return overlapping
			}
		}
	}
	return disjoint
}

// words lists what an expression matches, if that is a short list.
func words(re *regexp.Regexp) ([]string, bool) {
	parsed, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil, false
	}
	list, whole := expand(parsed.Simplify())
	return list, whole && len(list) > 0
}

// beginnings lists texts of which each match begins with one.
func beginnings(re *regexp.Regexp) []string {
	parsed, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return []string{""}
	}
	list, _ := expand(parsed.Simplify())
	if len(list) == 0 {
		return []string{""}
	}
	return list
}

const maxWords = 256

// expand gives texts with which every match begins, and whether they are the whole matches.
func expand(re *syntax.Regexp) (list []string, whole bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpEndText:
		return []string{""}, true
	case syntax.OpCapture:
		return expand(re.Sub[0])
	case syntax.OpLiteral:
		if re.Flags&syntax.FoldCase == 0 {
			return []string{string(re.Rune)}, true
		}
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if list = append(list, string(r)); len(list) > 64 {
					return []string{""}, false
				}
			}
		}
		return list, true
	case syntax.OpQuest:
		sub, w := expand(re.Sub[0])
		return append(sub, ""), w
	case syntax.OpPlus:
		sub, _ := expand(re.Sub[0])
		return sub, false
	case syntax.OpAlternate:
		whole = true
		for _, s := range re.Sub {
			sub, w := expand(s)
			list = append(list, sub...)
			whole = whole && w
		}
		if len(list) <= maxWords {
			return list, whole
		}
	case syntax.OpConcat:
		list, whole = []string{""}, true
		for _, s := range re.Sub {
			sub, w := expand(s)
			if len(list)*len(sub) > maxWords {
				return list, false
			}
			var next []string
			for _, x := range list {
				for _, y := range sub {
					next = append(next, x+y)
				}
			}
			if list, whole = next, w; !w {
				return list, false
			}
		}
		return list, true
	}
	return []string{""}, false
}
