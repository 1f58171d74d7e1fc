package mapping

import "strings"

// In a protocol whose addresses begin with what is deepest (Syntax.Upward) the prefix of a listing, "ou=people,", is what
// the addresses end with.

// below tells whether a template could have addresses below a prefix.
func (w *wrapperMaps) below(prefix string) bool {
	if !w.info.Protocol.Syntax.Upward {
		return w.tree.below(prefix)
	}
	segs, ok := w.tree.prefix(prefix)
	if !ok {
		return false
	}
	for _, e := range w.entries {
		var caps captures
		var known [maxCaptures]bool
		if e.upward(segs, &caps, &known) {
			return true
		}
	}
	return false
}

// upward takes captures from the segments that an address ends with, from the right. False: no address of the
// template has these, and more before them.
func (e *entry) upward(segs []string, caps *captures, known *[maxCaptures]bool) bool {
	ts := e.template.segments
	for i := range segs {
		text, at := segs[len(segs)-1-i], len(ts)-1-i
		if at >= 0 && ts[at].rest {
			return true // where it ends within the segments can't be told
		}
		if at < 1 || !e.takeSegment(&ts[at], text, caps, known) {
			return false
		}
	}
	return true
}

// takeSegment matches one segment of the template, and notes its captures.
func (e *entry) takeSegment(s *segment, text string, caps *captures, known *[maxCaptures]bool) bool {
	fold := e.template.syntax.Fold
	if s.shape == nil {
		return s.literal == text || fold && strings.EqualFold(s.literal, text)
	}
	shape, key := s.shape, text
	if fold {
		shape, key = shape.folded(), foldASCII(text)
	}
	var raw captures
	n := len(shape.escapes)
	if !shape.match(key, raw[:]) {
		return false
	}
	if fold {
		unfold(shape, text, raw[:n])
	}
	if !shape.values(raw[:n]) {
		return false
	}
	for k := range n {
		for _, c := range e.checks {
			if c.index == s.first+k && !c.matches(raw[k]) {
				return false
			}
		}
		slot := e.slots[s.first+k]
		caps[slot], known[slot] = raw[k], true
	}
	return true
}
