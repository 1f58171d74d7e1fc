package mapping

import (
	"fmt"
	"regexp"
	"regexp/syntax"
)

// maxTries bounds the addresses with which it is tried whether a bind can be reached.
const maxTries = 256

// checkReach finds binds that no address leads to: an ignore block or more specific binds have all of theirs, or their
// match lets nothing through.
func (l *loader) checkReach() {
	for _, in := range l.in.Wrappers {
		w := l.set.wrappers[in.Name]
		for _, e := range w.entries {
			if !e.bind.broken {
				l.reachable(w, e)
			}
		}
	}
}

func (l *loader) reachable(w *wrapperMaps, e *entry) {
	defer l.Within(fmt.Sprintf("bind %q %q", e.bind.protocol, e.bind.address))()
	own := &leaf{template: e.template, entry: e, checks: e.checks}
	path := *e.template
	path.params = nil // a hole is of paths
	hidden := &leaf{template: &path, checks: e.checks}
	var hole *leaf
	w.ignores.eachOverlapping(hidden, func(o *leaf) {
		if r := relate(hidden, o); r == equal || r == narrower {
			hole = o
		}
	})
	if hole != nil {
		l.Error("MAP110", e.bind.rng, "an ignore block hides this bind", fmt.Sprintf("`ignore %q %q` has all of its addresses. Narrow the ignore block, or take the bind out.", e.bind.protocol, hole.template.text))
		return
	}
	addresses, finite, blocked := e.template.trials(own)
	if blocked != "" {
		l.Error("MAP111", e.bind.rng, fmt.Sprintf("match lets nothing through {%s}", blocked),
			"No capture was found that the expression matches. A capture is never empty, and `match` is of the whole capture, so that anchors and words beside it exclude each other.")
		return
	}
	if !finite {
		return
	}
	var by *entry
	for _, a := range addresses {
		var f finding
		o := w.lookup(a, &f)
		if o == e {
			return
		}
		if o != nil {
			by = o
		}
	}
	if by != nil {
		l.Error("MAP110", e.bind.rng, "more specific binds hide this one", fmt.Sprintf("All of its addresses are had by others, as %q at %s. Take this one out, or widen its `match`.", by.bind.address, by.bind.source))
	}
}

// trials renders addresses of a template. finite tells that these are all there are; blocked names a capture whose match
// lets nothing through.
func (t *template) trials(l *leaf) (addresses []string, finite bool, blocked string) {
	values := make([][]string, len(t.names))
	finite = true
	total := 1
	for i, name := range t.names {
		re := l.check(i)
		if re == nil {
			values[i], finite = []string{"x1"}, false
			continue
		}
		list, whole := words(re)
		if !whole {
			list, finite = guesses(re), false
		}
		for _, v := range list {
			if t.holds(i, v, l) {
				values[i] = append(values[i], v)
			}
		}
		if len(values[i]) == 0 {
			return nil, false, name
		}
		if total *= len(values[i]); total > maxTries {
			return nil, false, ""
		}
	}
	if !finite {
		return nil, false, ""
	}
	for n := range total {
		picked := make([]string, len(values))
		for i := range values {
			picked[i] = values[i][n%len(values[i])]
			n /= len(values[i])
		}
		if a, ok := t.appendTo(nil, func(i int) string { return picked[i] }); ok {
			addresses = append(addresses, string(a))
		}
	}
	return addresses, len(addresses) > 0, ""
}

// holds tells whether a capture can have a value, as far as match says.
func (t *template) holds(i int, v string, l *leaf) bool {
	for _, c := range l.checks {
		if c.index == i && !c.matches(v) {
			return false
		}
	}
	return v != ""
}

// guesses are texts that an expression may match: with each repetition left out and taken once, with one letter of each
// class.
func guesses(re *regexp.Regexp) []string {
	parsed, err := syntax.Parse(re.String(), syntax.Perl)
	if err != nil {
		return nil
	}
	return guess(parsed.Simplify())
}

const maxGuesses = 64

func guess(re *syntax.Regexp) []string {
	switch re.Op {
	case syntax.OpNoMatch:
		return nil
	case syntax.OpLiteral:
		return []string{string(re.Rune)}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return []string{"a", "1"}
	case syntax.OpCharClass:
		var out []string
		for _, r := range "a1A-_" {
			for i := 0; i+1 < len(re.Rune); i += 2 {
				if r >= re.Rune[i] && r <= re.Rune[i+1] {
					out = append(out, string(r))
				}
			}
		}
		if len(out) == 0 && len(re.Rune) > 0 {
			out = []string{string(re.Rune[0]), string(re.Rune[len(re.Rune)-1])}
		}
		return out
	case syntax.OpCapture, syntax.OpPlus:
		return guess(re.Sub[0])
	case syntax.OpStar, syntax.OpQuest:
		return append(guess(re.Sub[0]), "")
	case syntax.OpRepeat:
		out := guess(re.Sub[0])
		for n := 1; n < re.Min; n++ {
			out = joined(out, guess(re.Sub[0]))
		}
		return out
	case syntax.OpAlternate:
		var out []string
		for _, s := range re.Sub {
			out = append(out, guess(s)...)
		}
		return out[:min(len(out), maxGuesses)]
	case syntax.OpConcat:
		out := []string{""}
		for _, s := range re.Sub {
			out = joined(out, guess(s))
		}
		return out
	}
	return []string{""} // anchors, boundaries
}

func joined(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			if out = append(out, x+y); len(out) >= maxGuesses {
				return out
			}
		}
	}
	return out
}
