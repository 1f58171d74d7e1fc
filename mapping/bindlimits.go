package mapping

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"

	"github.com/spooksystems/gateway/mapping/diag"
)

// A ChangeLimit bounds what one first contact, one reload or one whole document may change or delete of what is there.
type ChangeLimit struct {
	Percent int // of what is there; 100: no bound
	Count   int // where it is a number and not a share
	Counted bool
}

// DefaultMaxChange is the limit of a bind that says nothing.
var DefaultMaxChange = ChangeLimit{Percent: 50}

// fewChanges are no mass change, whatever the share: of two registers each is the half.
const fewChanges = 10

// Exceeded tells whether so many changes and deletions of so many are too many. A number is meant as it stands. A share is
// not asked of ten changes or fewer, but of each deletion: what is cut off is gone, be it little.
func (l ChangeLimit) Exceeded(changed, deleted, of int) bool {
	all := changed + deleted
	if l.Counted {
		return all > l.Count
	}
	over := func(n int) bool { return int64(n)*100 > int64(max(of, all))*int64(l.Percent) }
	return deleted > 0 && over(deleted) || all > fewChanges && over(all)
}

func (l ChangeLimit) String() string {
	if l.Counted {
		return strconv.Itoa(l.Count)
	}
	return strconv.Itoa(l.Percent) + "%"
}

// MaxChange is how much a first contact, or a whole document of many registers, may change or delete without being
// approved.
func (b *Bind) MaxChange() ChangeLimit { return b.maxChange }

// Paced tells whether a wrapper has binds with `every`.
func (s *Set) Paced(wrapper string) bool {
	w := s.wrappers[wrapper]
	return w != nil && w.paced
}

// Every is the least time between two changes told at one address; 0: each is told.
func (b *Bind) Every() time.Duration { return b.every }

// Poll is how often a server without a feed is asked for the bind's addresses; 0: as often as the wrapper says.
func (b *Bind) Poll() time.Duration { return b.poll }

// Bounds of every and poll.
const (
	minEvery = time.Millisecond
	minPoll  = 10 * time.Millisecond
	maxEvery = 24 * time.Hour
)

// bindLimits reads the attributes that say how often and how much.
func (l *loader) bindLimits(bind *Bind, c diag.Content) {
	if a := c.Attrs["every"]; a != nil {
		bind.every = l.interval(a, minEvery, maxEvery)
		switch {
		case bind.direction == "in":
			l.Error("MAP085", a.NameRange, "`every` in a bind that only comes in", "It says how often changes are told. Take it out, or change the direction.")
		case bind.events:
			l.Error("MAP068", a.NameRange, "`every` beside `events`", "With events each change is told, with every the newest state now and then. Take one of them out.")
		}
	}
	if a := c.Attrs["poll"]; a != nil {
		bind.poll = l.interval(a, minPoll, maxEvery)
		if bind.direction == "out" {
			l.Error("MAP085", a.NameRange, "`poll` in a bind that only goes out", "It says how often the server is asked. Take it out, or change the direction.")
		}
		for _, name := range bind.wrapperNames {
			switch w := l.set.wrappers[name].info; {
			case !w.Upstream:
				l.Error("MAP068", a.NameRange, fmt.Sprintf("nobody to ask: wrapper %q has no upstream", name), "`poll` says how often a server is asked. Take it out.")
			case w.Protocol.Feed:
				l.Error("MAP068", a.NameRange, fmt.Sprintf("%s servers tell of changes by themselves", w.Protocol.Name), "`poll` is for servers that have to be asked. Take it out.")
			}
		}
	}
	bind.maxChange = DefaultMaxChange
	if a := c.Attrs["max_change"]; a != nil {
		bind.maxChange = l.changeLimit(a)
	}
}

// interval reads a length of time.
func (l *loader) interval(a *hclsyntax.Attribute, low, high time.Duration) time.Duration {
	text, ok := l.String(a, "", nil)
	if !ok {
		return 0
	}
	d, err := diag.ParseDuration(text)
	switch {
	case err != nil:
		l.Error("MAP036", a.Expr.Range(), fmt.Sprintf("%s can't be %q", a.Name, text), `It is a length of time, as in "500ms", "10s" or "5m".`)
	case d < low || d > high:
		l.Error("HCL016", a.Expr.Range(), a.Name+" is out of range", fmt.Sprintf("It can be from %s to %s.", low, high))
	default:
		return d
	}
	return 0
}

// changeLimit reads "20%" or a number.
func (l *loader) changeLimit(a *hclsyntax.Attribute) ChangeLimit {
	const form = `It is a share of what is there, as in "20%", or a number of registers, as in 100.`
	v, ok := l.Constant(a.Expr, nil)
	if !ok {
		return DefaultMaxChange
	}
	if !v.IsNull() && v.Type() == cty.String {
		text, percent := strings.CutSuffix(v.AsString(), "%")
		n, err := strconv.ParseUint(text, 10, 31)
		if err == nil && percent && n <= 100 {
			return ChangeLimit{Percent: int(n)}
		}
	}
	if !v.IsNull() && v.Type() == cty.Number {
		if n, exact := v.AsBigFloat().Int64(); exact == 0 && n >= 0 && n <= 1_000_000_000 {
			return ChangeLimit{Count: int(n), Counted: true}
		}
	}
	l.Error("HCL014", a.Expr.Range(), "max_change has a value of the wrong form", form)
	return DefaultMaxChange
}

// Readers and Writers are who may read and write at the bind's addresses, of those who may anyway; nil: all of them.
func (b *Bind) Readers() []string { return b.readers }
func (b *Bind) Writers() []string { return b.writers }

// bindAccess reads `read` and `write`.
func (l *loader) bindAccess(bind *Bind, c diag.Content) {
	bind.readers = Principals(l.Log, c.Attrs["read"], l.in.People)
	bind.writers = Principals(l.Log, c.Attrs["write"], l.in.People)
	if a := c.Attrs["write"]; a != nil && bind.direction == "out" {
		l.Error("MAP085", a.NameRange, "`write` in a bind that only goes out", "Nobody writes there. Take it out, or change the direction.")
	}
}

// People are the users and the groups of a configuration, and the wrappers by "protocol/name".
type People struct{ Users, Groups, Wrappers []string }

// Principals reads a list of who may do something: "ann", a user; "@nurses", a group; "mqtt/floor" or "mqtt/*", whoever
// comes through that wrapper; "sql/erp:joe", whom the server behind it knows by that name; "*", everybody. A nil attribute
// gives nil; without People every name is taken for somebody's.
func Principals(l *diag.Log, a *hclsyntax.Attribute, p *People) []string {
	if a == nil {
		return nil
	}
	const form = `As in ["ann", "@nurses", "mqtt/floor", "http/*", "sql/erp:joe"], or ["*"] for everybody.`
	list, ok := a.Expr.(*hclsyntax.TupleConsExpr)
	if !ok {
		l.Error("MAP057", a.Expr.Range(), a.Name+": a list is wanted", form)
		return nil
	}
	if len(list.Exprs) == 0 {
		return []string{}
	}
	out := make([]string, 0, len(list.Exprs))
	for _, e := range list.Exprs {
		v, ok := l.Constant(e, nil)
		if !ok {
			continue
		}
		if v.IsNull() || v.Type() != cty.String || v.AsString() == "" {
			l.Error("MAP057", e.Range(), "who may is a text in quotes", form)
			continue
		}
		name := v.AsString()
		suspect := func(severity diag.Severity, summary, detail string, known []string) {
			d := &diag.Diagnostic{Code: "MAP057", Severity: severity, Summary: summary, Detail: detail, Subject: e.Range()}
			d.Suggestion = diag.Suggest(name, known)
			l.Add(d)
		}
		protocol, rest, isWrapper := strings.Cut(name, "/")
		switch group, isGroup := strings.CutPrefix(name, "@"); {
		case name == "*":
		case isGroup:
			if p != nil && !slices.Contains(p.Groups, group) {
				known := make([]string, len(p.Groups))
				for i, g := range p.Groups {
					known[i] = "@" + g
				}
				suspect(diag.Error, fmt.Sprintf("no group %q", group), fmt.Sprintf("Add a block `group %q { members = […] }` to gateway.hcl.", group), known)
			}
		case isWrapper:
			wrapper, user, named := strings.Cut(rest, ":")
			if protocol == "" || wrapper == "" || strings.ContainsAny(protocol, ":*@ ") || strings.ContainsAny(wrapper, "/ ") || strings.Contains(wrapper, "*") && wrapper != "*" || named && user == "" {
				l.Error("MAP034", e.Range(), fmt.Sprintf("%q names nobody", name), form)
				continue
			}
			at := protocol + "/" + wrapper
			if p != nil && protocol != "daemon" && !slices.ContainsFunc(p.Wrappers, func(w string) bool { return w == at || wrapper == "*" && strings.HasPrefix(w, protocol+"/") }) {
				suspect(diag.Warning, fmt.Sprintf("no wrapper here is %q", at), "Nobody comes that way.", p.Wrappers)
			}
		case p != nil && !slices.Contains(p.Users, name):
			suspect(diag.Warning, fmt.Sprintf("no user %q", name), "Only a program of that operating system's user at the daemon's socket has this name. Whom a server knows is \"protocol/wrapper:name\".", p.Users)
		}
		if !slices.Contains(out, name) {
			out = append(out, name)
		}
	}
	return out
}
