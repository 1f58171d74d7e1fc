package lattice

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A RuleKind names a CollapseRule.
type RuleKind uint8

// The rules. Each is a pure function of the live entries of a field, so that nodes with different rules still hold
// equal registers, and a rule can be changed at any time.
const (
	Latest   RuleKind = iota // the entry with the highest (time, dot)
	First                    // the entry with the lowest; provisional until every member has been heard
	Max                      // the extreme of all entries
	Min                      //
	Sum                      // the total over origins, each of which keeps its own
	Union                    // a set; a concurrent add wins over a remove
	Priority                 // the entry whose writer ranks highest, then the latest
	Ask                      // all entries, until somebody writes who has seen them
)

var ruleNames = [...]string{"latest", "first", "max", "min", "sum", "union", "priority", "ask"}

// String is the rule's name in HCL.
func (k RuleKind) String() string {
	if int(k) < len(ruleNames) {
		return ruleNames[k]
	}
	return fmt.Sprintf("rule %d", uint8(k))
}

// RuleNames are the names of all rules, in the order of the constants.
func RuleNames() []string { return slices.Clone(ruleNames[:]) }

// A Rule says how the entries of one field become its value. The zero Rule is latest.
type Rule struct {
	Kind RuleKind
	// Of is the declared type, where the rule compares by it: "number" or "time" of max, min and sum; else "".
	Of string
	// Ranks of priority, best first: "sql/hr" (protocol and wrapper), "ldap/*", "user:ann" (checked by somebody). Who
	// matches none ranks last.
	Ranks []string
}

// String is the rule as HCL has it, without types that don't matter: "max(number)", `priority("sql/hr")`.
func (r Rule) String() string {
	switch {
	case r.Kind == Priority:
		return fmt.Sprintf("priority(%s)", strings.Join(quoted(r.Ranks), ", "))
	case r.Of != "":
		return fmt.Sprintf("%s(%s)", r.Kind, r.Of)
	}
	return r.Kind.String()
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = fmt.Sprintf("%q", w)
	}
	return out
}

// Equal says that both rules make the same value of the same entries.
func (r Rule) Equal(o Rule) bool {
	return r.Kind == o.Kind && r.Of == o.Of && slices.Equal(r.Ranks, o.Ranks)
}

// A By says who wrote an entry, as far as rules may ask: "protocol/wrapper", and behind a zero byte the principal where
// somebody checked that it was them.
type By string

// By is the cause's part that stays with an entry.
func (c *Cause) By() By {
	switch {
	case c.Verified && c.Principal != "":
		return By(c.Protocol + "/" + c.Wrapper + "\x00" + c.Principal)
	case c.Protocol == "" && c.Wrapper == "":
		return ""
	}
	return By(c.Protocol + "/" + c.Wrapper)
}

// Wrapper is "protocol/wrapper".
func (b By) Wrapper() string { w, _, _ := strings.Cut(string(b), "\x00"); return w }

// User is the principal, "" where nobody checked.
func (b By) User() string { _, u, _ := strings.Cut(string(b), "\x00"); return u }

// String is the writer as users read it.
func (b By) String() string {
	if u := b.User(); u != "" {
		return u + " through " + b.Wrapper()
	}
	return b.Wrapper()
}

// Matches tells whether a pattern of Rule.Ranks or Declaration.Writers means this writer.
func (b By) Matches(pattern string) bool {
	if user, ok := strings.CutPrefix(pattern, "user:"); ok {
		return user != "" && b.User() == user
	}
	w := b.Wrapper()
	if protocol, ok := strings.CutSuffix(pattern, "/*"); ok {
		return strings.HasPrefix(w, protocol+"/")
	}
	return w == pattern
}

// Rank is the place of a writer in the rule's order, from 0; who is not in it comes behind all who are.
func (r *Rule) Rank(by By) int {
	for i, p := range r.Ranks {
		if by.Matches(p) {
			return i
		}
	}
	return len(r.Ranks)
}

// A CommitMode says when candidates collapse. The zero CommitMode is auto: as they arrive.
type CommitMode struct {
	Manual bool          // when somebody says so
	Window time.Duration // so long after the first one that waits
}

// Waits tells whether candidates wait for a marker.
func (m CommitMode) Waits() bool { return m.Manual || m.Window > 0 }

// String is the mode as HCL has it.
func (m CommitMode) String() string {
	switch {
	case m.Manual:
		return "manual"
	case m.Window > 0:
		return m.Window.String()
	}
	return "auto"
}

// A Retention says how long history is kept. At least the newest entry of a register always is.
type Retention struct {
	Age   time.Duration // 0: as long as the engine's own default; negative: without end
	Count int           // 0: any number
}

// A Declaration says how the registers of one template collapse: state of the domain, the same on every node.
type Declaration struct {
	// Template names the declaration, as the user wrote it: "site/{site}/{sensor}".
	Template string
	// Pattern is the RE2 expression that matches exactly the names of its registers, without anchors. Its named groups
	// are the template's captures.
	Pattern string
	// Prefix is the text that all those names begin with.
	Prefix string
	Value  Rule            // of a register that is one value
	Fields map[string]Rule // of the fields that have another rule than latest
	Commit CommitMode
	// DeleteWins: a delete wins over a write that did not know of it.
	DeleteWins bool
	// Group names the QGroup of a register by Pattern's captures, as regexp.Expand does: "recipe/${recipe}". "": none.
	Group string
	// Writers may write, all others are refused: patterns as in Rule.Ranks, and "site:" with the first digits of an
	// EndpointID. Empty: everybody.
	Writers   []string
	Retention Retention
	Source    string // file and line here; no part of the domain's state
}
