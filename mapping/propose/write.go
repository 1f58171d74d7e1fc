package propose

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2/hclwrite"

	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// A variant is how strictly a register is proposed: the first that loads and maps its traffic is taken.
type variant uint8

const (
	typed   variant = iota // fields with their types, enums where values are few
	noEnums                // texts are string
	untyped                // fields of any type
	open                   // no fields; what is one value still has its field
	asText                 // whole payloads as one field of text
	variants
)

// quote writes a text of HCL.
func quote(s string) string {
	q := strconv.Quote(s)
	q = strings.ReplaceAll(q, "${", "$${")
	return strings.ReplaceAll(q, "%{", "%%{")
}

var plainName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// write tries each register, and puts those that hold into a file.
func (p *proposer) write(all []*register) Proposal {
	slices.SortStableFunc(all, func(a, b *register) int {
		return cmp.Or(cmp.Compare(b.operations(), a.operations()), strings.Compare(a.groups[0].protocol, b.groups[0].protocol), strings.Compare(baseText(a.groups[0].base), baseText(b.groups[0].base)))
	})
	out := Proposal{Operations: p.total}
	var body strings.Builder
	for _, r := range all {
		if out.Registers == maxRegisters {
			p.leaveAll(r, fmt.Sprintf("more than %d registers", maxRegisters))
			continue
		}
		text, mapped, binds := p.best(r, body.String())
		if text == "" {
			continue
		}
		body.WriteString(text)
		out.Registers++
		out.Binds += binds
		out.Mapped += mapped
	}
	out.Left = p.leftList()
	var b strings.Builder
	fmt.Fprintf(&b, "# Proposed from %d operations%s. It maps %d of them.\n", out.Operations, named(p.req.Name), out.Mapped)
	b.WriteString("#\n# Names, types and what belongs together are guesses from what passed. Read it, rename what you like (a register's name is\n# for you alone), then: spookgw validate, and spookgw replay with the recording.\n")
	b.WriteString(body.String())
	if len(out.Left) > 0 {
		b.WriteString("\n# Nothing is proposed for:\n")
		for i, l := range out.Left {
			if i == 50 {
				fmt.Fprintf(&b, "#   … and %d more\n", len(out.Left)-i)
				break
			}
			fmt.Fprintf(&b, "#   %s %s (%s): %s\n", l.Protocol, comment(l.Address), times(l.Count), l.Why)
		}
	}
	out.HCL = string(hclwrite.Format([]byte(b.String())))
	return out
}

func named(name string) string {
	if name == "" {
		return ""
	}
	return " in " + comment(name)
}

// comment keeps a text within its line.
func comment(s string) string {
	s = strings.NewReplacer("\r\n", `\n`, "\n", `\n`, "\t", `\t`).Replace(s)
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 120 {
		s = strings.ToValidUTF8(s[:117], "") + "…"
	}
	return s
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

func (r *register) operations() int {
	n := 0
	for _, b := range r.binds() {
		n += len(b.route.samples)
	}
	return n
}

func (r *register) binds() []*bind {
	var out []*bind
	for _, g := range r.groups {
		out = append(out, g.binds...)
	}
	return out
}

func (p *proposer) leaveAll(r *register, why string) {
	for _, b := range r.binds() {
		p.left[Left{Protocol: b.route.protocol, Address: b.route.template(&p.protocols[b.route.protocol].Syntax, asItIs), Why: why}] += len(b.route.samples)
	}
}

func asItIs(s string) string { return s }

// best finds the variant of a register that maps most of its traffic, beside what stands already. "": none loads.
func (p *proposer) best(r *register, before string) (text string, mapped, binds int) {
	if !slices.ContainsFunc(r.groups, (*group).written) {
		why := "it was only read, which says nothing of what is there"
		for _, b := range r.binds() {
			if slices.ContainsFunc(b.route.samples, func(s *sample) bool { return len(s.query) > 0 }) {
				why = "it was only read; what the query of a GET says is no write"
			}
		}
		p.leaveAll(r, why)
		return "", 0, 0
	}
	want := 0
	for _, b := range r.binds() {
		want += len(b.route.samples)
	}
	why := ""
	var kept map[*bind]int
	for v := typed; v < variants; v++ {
		for _, name := range r.names() {
			t := p.text(r, name, v, nil)
			set, diags := p.load(before + t)
			if set == nil {
				if why == "" && len(diags) > 0 {
					why = "the language does not allow it: " + diags[0].Summary
				}
				continue
			}
			counts, n := p.try(set, r)
			// The whole payload as a text is the last resort: where little else is taken.
			if (v != asText || 2*mapped < want) && (n > mapped || text == "" && n > 0) {
				text, mapped, kept = p.text(r, name, v, counts), n, counts
			}
			break
		}
		if mapped == want {
			break
		}
	}
	if text == "" {
		p.leaveAll(r, cmp.Or(why, "no mapping takes what was sent there"))
		return "", 0, 0
	}
	for _, b := range r.binds() {
		if miss := len(b.route.samples) - kept[b]; miss > 0 {
			p.left[Left{Protocol: b.route.protocol, Address: b.route.template(&p.protocols[b.route.protocol].Syntax, asItIs), Why: "another form than the rest of what was sent there"}] += miss
		}
	}
	return text, mapped, len(r.binds())
}

// try counts which of the samples a mapping maps.
func (p *proposer) try(set *mapping.Set, r *register) (map[*bind]int, int) {
	counts, n := map[*bind]int{}, 0
	for _, b := range r.binds() {
		for _, s := range b.route.samples {
			if Maps(set, p.protocols[s.op.Protocol], s.op.Wrapper, s.op.Op()) {
				counts[b]++
				n++
			}
		}
	}
	return counts, n
}

// Maps tells whether a mapping takes an operation.
func Maps(set *mapping.Set, proto *wrappers.Protocol, wrapper string, op wrappers.Operation) bool {
	for {
		if !op.Verb.Writes() {
			if set.Maps(wrapper, op.Verb, op.Server, op.Address) {
				return true
			}
		} else if effects, err := set.In(wrapper, &op, mapping.Env{Now: time.Unix(0, 0)}); err == nil && len(effects) > 0 {
			return true
		}
		// Without a bind that looks at queries the query is none of the address.
		path, _, found := strings.Cut(op.Address, "?")
		if !found || !proto.Syntax.Query {
			return false
		}
		op.Address = path
	}
}

// names are what a register may be called: the first that is free is taken.
func (r *register) names() []string {
	var words, all []string
	g := r.groups[0]
	captures := map[string]bool{}
	parts := g.base
	at := 0
	for i, p := range parts {
		switch {
		case p.isCapture():
			captures[g.captures[at]] = true
			words, all = append(words, "{"+g.captures[at]+"}"), append(all, "{"+g.captures[at]+"}")
			at++
		default:
			w := escaped(p.literal)
			if i+1 < len(parts) && parts[i+1].isCapture() || i+1 == len(parts) && len(g.captures) > at {
				w = singular(w)
			}
			all = append(all, escaped(p.literal))
			if len(words) > 0 || !isGeneric(p.literal) {
				words = append(words, w)
			}
		}
	}
	for _, c := range g.captures[at:] {
		words, all = append(words, "{"+c+"}"), append(all, "{"+c+"}")
	}
	if !slices.ContainsFunc(words, func(w string) bool { return w[0] != '{' }) {
		noun := "thing"
		if n := len(g.captures); n > 0 && g.captures[n-1] != "id" && g.captures[n-1] != "name" {
			noun = g.captures[n-1]
		} else if len(all) > 0 && all[0][0] != '{' {
			noun = all[0]
		}
		words = append([]string{noun}, words...)
	}
	return []string{strings.Join(words, "/"), g.protocol + "/" + strings.Join(words, "/"), g.wrapper + "/" + strings.Join(all, "/")}
}

// escaped keeps a literal of an address from meaning something in a register's name.
func escaped(w string) string { return strings.NewReplacer("/", "-", "{", "-", "}", "-").Replace(w) }

// A field of a register, by the name it has there.
type field struct {
	name string
	typ  typ
}

// typesOf are the fields that a bind writes, by member. false: they can't be named.
func (b *bind) typesOf(v variant) (map[string]field, bool) {
	out := map[string]field{}
	textual := b.form == formForm || b.form == xmlForm || b.form == csvForm || len(b.route.params) > 0
	loosen := func(t typ) typ {
		if v == noEnums && t.enum {
			t = typ{name: "string"}
		}
		if v >= untyped {
			t = typ{name: "any"}
		}
		return t
	}
	if b.scalar != nil {
		t := b.scalar.typeOf(false)
		switch b.form {
		case textForm:
			if t.name == "time" || t.name == "any" {
				t = typ{name: "string"}
			}
		case bytesForm:
			t = typ{name: "bytes"}
		case cborForm:
			t = anyType
		}
		out[""] = field{b.field, loosen(t)}
		return out, true
	}
	if len(b.members) > 60 {
		return nil, false
	}
	for m, s := range b.members {
		if slices.Contains(b.key, m) && (b.each || b.rows) {
			continue
		}
		t := s.typeOf(textual)
		if b.form == cborForm && (t.name == "any" || s.any > 0) {
			t = anyType
		}
		if len(b.route.params) > 0 {
			t.convert = "" // a capture becomes the field's type by itself
		}
		name := m
		if textual && !plainName.MatchString(m) {
			return nil, false
		}
		if b.prefix != "" {
			name = b.prefix + m
		}
		out[m] = field{name, loosen(t)}
	}
	return out, true
}

// text is the register's block. counts: what of each bind's traffic it maps, for the comments.
func (p *proposer) text(r *register, name string, v variant, counts map[*bind]int) string {
	fields := map[string]typ{}
	var order []string
	closed := v != open
	note := func(f field) {
		if _, there := fields[f.name]; !there {
			order = append(order, f.name)
		}
		fields[f.name] = unify(fields[f.name], f.typ)
	}
	known := map[*bind]map[string]field{}
	for _, b := range r.binds() {
		if b.writes > 0 && b.form != none && len(b.route.params) == 0 && p.opaque(b, v) {
			f := field{cmp.Or(b.field, "content"), typ{name: "string"}}
			if b.form == bytesForm || b.form == cborForm {
				f.typ.name = "bytes"
			}
			known[b] = map[string]field{"": f}
			note(f)
			continue
		}
		fs, ok := b.typesOf(v)
		closed = closed && ok
		known[b] = fs
		for _, m := range sortedKeys(fs) {
			if q := b.param(m); q != "" && slices.Contains(r.captures, p.renamed(b, q)) {
				continue // the register's, not a field
			}
			if q := b.param(m); q != "" {
				fs[m] = field{q, fs[m].typ}
			}
			note(fs[m])
		}
	}
	slices.Sort(order)
	var out strings.Builder
	fmt.Fprintf(&out, "\nregister %s {\n", quote(name))
	if closed && len(order) > 0 {
		var list []string
		for _, f := range order {
			key := f
			if !plainName.MatchString(f) {
				key = quote(f)
			}
			list = append(list, key+" = "+fields[f].name)
		}
		if line := "  fields = { " + strings.Join(list, ", ") + " }\n"; len(line) <= 130 {
			out.WriteString(line)
		} else {
			out.WriteString("  fields = {\n    " + strings.Join(list, "\n    ") + "\n  }\n")
		}
	}
	for _, b := range r.binds() {
		out.WriteString(p.bindText(r, b, v, closed, known[b], order, counts))
	}
	out.WriteString("}\n")
	return out.String()
}

// param is the capture of a parameter, by its name in the query.
func (b *bind) param(name string) string {
	for _, q := range b.route.params {
		if q.name == name {
			return q.value
		}
	}
	return ""
}

func (p *proposer) renamed(b *bind, capture string) string {
	if to, ok := b.rename[capture]; ok {
		return to
	}
	return capture
}
