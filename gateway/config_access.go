package gateway

import (
	"fmt"
	"maps"
	"slices"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// people are whom lists of who may can name. It is complete once users, groups and wrappers are read.
func (l *loader) people() *mapping.People {
	if l.req.Implied {
		return nil // mappings alone: who there is stands elsewhere
	}
	p := &mapping.People{Groups: slices.Sorted(maps.Keys(l.config.Groups))}
	for i := range l.config.Users {
		p.Users = append(p.Users, l.config.Users[i].Name)
	}
	for i := range l.infos {
		p.Wrappers = append(p.Wrappers, l.infos[i].Protocol.Name+"/"+l.infos[i].Name)
	}
	return p
}

// groups reads the group blocks; a group may be named before it is defined, so all are noted before any list is read.
func (l *loader) groups(blocks []*hclsyntax.Block) {
	l.config.Groups = map[string][]string{}
	for _, b := range blocks {
		if b.Type != "group" {
			continue
		}
		name := b.Labels[0]
		if !userName.MatchString(name) {
			l.errorAt("GW005", b.LabelRanges[0], "bad group name", "A group's name is 1 to 128 characters without spaces, quotes, and @ / :.")
		}
		if first, ok := l.at["group "+name]; ok {
			l.errorAt("GW006", b.LabelRanges[0], "second group of that name", "%q stands at %s already.", name, fileLine(first))
			continue
		}
		l.at["group "+name] = b.LabelRanges[0]
		l.config.Groups[name] = nil
	}
	for _, b := range blocks {
		if b.Type != "group" || l.at["group "+b.Labels[0]] != b.LabelRanges[0] {
			continue
		}
		done := l.Within(heading(b))
		c := l.Decode(b.Body, b.DefRange(), groupSchema)
		people := l.people()
		if people != nil {
			people.Groups = nil
		}
		members := mapping.Principals(l.Log, c.Attrs["members"], people)
		for _, m := range members {
			if m == "*" || m[0] == '@' {
				l.errorAt("GW060", c.Attrs["members"].Expr.Range(), "a group in a group", "%q: the members of a group are users and wrappers.", m)
			}
		}
		l.config.Groups[b.Labels[0]] = members
		done()
	}
}

var (
	groupSchema  = diag.Schema{What: "group", Attrs: []string{"members"}, Need: []string{"members"}}
	accessSchema = diag.Schema{What: "access", Attrs: []string{"read", "write"}}
)

// access reads the access blocks.
func (l *loader) access(blocks []*hclsyntax.Block) {
	var names mapping.RegisterNames
	var at []hcl.Range
	for _, b := range blocks {
		if b.Type != "access" {
			continue
		}
		done := l.Within(heading(b))
		c := l.Decode(b.Body, b.DefRange(), accessSchema)
		overlap, err := names.Add(b.Labels[0])
		switch {
		case err != nil:
			l.errorAt("MAP002", b.LabelRanges[0], "not the template of a register", "%s", err)
		case overlap >= 0:
			l.errorAt("GW061", b.LabelRanges[0], "two access blocks for some registers", "%q at %s has registers in common with it, and neither is the more specific one.",
				l.config.Access[overlap].Register, fileLine(at[overlap]))
		}
		if c.Attrs["read"] == nil && c.Attrs["write"] == nil {
			l.errorAt("MAP034", b.DefRange(), "an access block that names nobody", "Say who may: read = [\"ann\"], write = [\"@doctors\"]. Nobody at all is read = [].")
		}
		if err == nil {
			people := l.people()
			l.config.Access = append(l.config.Access, AccessBlock{
				Register: b.Labels[0], Source: fileLine(b.DefRange()),
				Read:  mapping.Principals(l.Log, c.Attrs["read"], people),
				Write: mapping.Principals(l.Log, c.Attrs["write"], people),
			})
			at = append(at, b.DefRange())
		}
		done()
	}
}

// policy makes of the blocks what is asked at each operation, and warns of servers that it cuts off.
func (l *loader) policy() {
	c := l.config
	if c.Set == nil {
		return
	}
	var err error
	if c.Policy, err = newPolicy(c.Access, c.Groups, c.Set); err != nil {
		l.failures = append(l.failures, failure("GW061", "access", err.Error()))
		return
	}
	if c.Policy == nil {
		return
	}
	for _, b := range c.Set.Binds() {
		for i := range c.Wrappers {
			w := &c.Wrappers[i]
			if w.Virtual() || !slices.Contains(b.Wrappers(), w.Name) {
				continue
			}
			l.cutOff(b, w)
		}
	}
}

// cutOff warns of a bind whose server may not be told, or may not say, what the bind is there for.
func (l *loader) cutOff(b *mapping.Bind, w *WrapperBlock) {
	p, who := l.config.Policy, principal{protocol: w.Protocol.Name, wrapper: w.Name}
	warn := func(v verdict, what string) {
		if !v.ok {
			l.failures = append(l.failures, &diag.Diagnostic{Code: "GW062", Severity: diag.Warning, Summary: fmt.Sprintf("%s may not %s %s", who, what, b.Register()),
				Detail: fmt.Sprintf("The bind at %s is there for it, but %s (%s). Add %q there if its server may.", b.Source(), v.why, v.source, who.String())})
		}
	}
	all := func(access wrappers.Access) verdict {
		v := p.bind(who, b, access)
		for _, i := range p.names.Of(b, nil) {
			if v.ok {
				v = p.block(i, who, access)
			}
		}
		return v
	}
	if b.Outward() {
		warn(all(wrappers.ReadAccess), "read")
	}
	if b.Inward() && w.Attached() {
		warn(all(wrappers.WriteAccess), "write")
	}
}
