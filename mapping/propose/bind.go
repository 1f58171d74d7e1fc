package propose

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers"
)

func (p *proposer) bindText(r *register, b *bind, v variant, closed bool, fs map[string]field, all []string, counts map[*bind]int) string {
	proto := p.protocols[b.route.protocol]
	var out strings.Builder
	if counts != nil {
		out.WriteString(b.because(counts[b]))
	}
	fmt.Fprintf(&out, "  bind %s %s {\n", quote(b.route.protocol), quote(b.route.template(&proto.Syntax, func(c string) string { return p.renamed(b, c) })))
	if p.several[b.route.protocol] {
		fmt.Fprintf(&out, "    wrapper = [%s]\n", quote(b.route.wrapper))
	}
	in := !b.rows && (b.reads == 0 || len(b.key) > 0 && !b.each || len(b.route.params) > 0)
	if b.writes == 0 {
		in = false
	}
	if in {
		out.WriteString("    direction = \"in\"\n")
	}
	if m := b.methods(proto); m != "" {
		fmt.Fprintf(&out, "    methods = [%s]\n", m)
	}
	out.WriteString(p.payloadText(r, b, v, closed, fs, all))
	out.WriteString("  }\n")
	return strings.Replace(out.String(), "{\n  }\n", "{}\n", 1)
}

// opaque tells whether a payload is taken whole, as one text: the language does not read its form, or nothing else held.
func (p *proposer) opaque(b *bind, v variant) bool {
	switch b.form {
	case formForm, xmlForm:
		return v == asText || !p.can[string(b.form)]
	case csvForm:
		return v == asText || !b.each || !p.can["each"]
	}
	return v == asText
}

// payloadText is the codec and what becomes of the payload.
func (p *proposer) payloadText(r *register, b *bind, v variant, closed bool, fs map[string]field, all []string) string {
	if len(b.route.params) > 0 {
		return ""
	}
	if b.writes == 0 || b.form == none {
		return ""
	}
	codec, whole := "", b.scalar != nil
	switch b.form {
	case cborForm:
		if !b.rows {
			codec = string(b.form)
		}
	case numberForm, textForm, bytesForm:
		codec = string(b.form)
	case formForm:
		codec = "form"
	case xmlForm:
		codec = "xml(" + quote(b.root) + ")"
	case csvForm:
		codec = "csv(" + quote(b.comma) + ")"
	}
	if p.opaque(b, v) {
		codec, whole = "text", true
		if b.form == bytesForm || b.form == cborForm {
			codec = "bytes"
		}
	}
	var out strings.Builder
	if codec != "" {
		out.WriteString("    codec = " + codec + "\n")
	}
	name := cmp.Or(b.field, "content")
	switch {
	case whole:
		fmt.Fprintf(&out, "    map = { %s = payload }\n", name)
		return out.String()
	case b.each:
		out.WriteString("    each = payload\n")
		fmt.Fprintf(&out, "    key = { %s = row.%s }\n", b.group.captures[len(b.group.captures)-1], b.key[0])
	case len(b.key) > 0:
		g := b.group
		var list []string
		for i, k := range b.key {
			list = append(list, fmt.Sprintf("%s = payload%s", g.captures[len(g.captures)-len(b.key)+i], memberText(k)))
		}
		fmt.Fprintf(&out, "    key = { %s }\n", strings.Join(list, ", "))
	}
	// Members and fields have the same names; a map is needed where they have not, or where the bind has fewer than the register.
	needs := b.prefix != "" || b.form == formForm || b.form == xmlForm || b.form == csvForm || b.each || closed && len(fs) < len(all)
	if !needs || len(fs) == 0 {
		return out.String()
	}
	from := "payload"
	if b.each {
		from = "row"
	}
	var list []string
	for _, m := range sortedKeys(fs) {
		if !plainName.MatchString(fs[m].name) || !plainName.MatchString(m) {
			return out.String()
		}
		expr := from + "." + m
		if t := fs[m].typ; t.convert != "" {
			expr = fmt.Sprintf(t.convert, expr)
		}
		list = append(list, fs[m].name+" = "+expr)
	}
	if line := "    map = { " + strings.Join(list, ", ") + " }\n"; len(line) <= 130 {
		out.WriteString(line)
	} else {
		out.WriteString("    map = {\n      " + strings.Join(list, "\n      ") + "\n    }\n")
	}
	return out.String()
}

func memberText(name string) string {
	if plainName.MatchString(name) {
		return "." + name
	}
	return "[" + quote(name) + "]"
}

// methods are those of HTTP that were used, where POST is among them: it counts only where it is named.
func (b *bind) methods(proto *wrappers.Protocol) string {
	if !b.verbs[wrappers.Message] || !slices.ContainsFunc(proto.Bind, func(s wrappers.Setting) bool { return s.Name == "methods" }) {
		return ""
	}
	var out []string
	for _, m := range []struct {
		verb wrappers.Verb
		name string
	}{{wrappers.Read, "GET"}, {wrappers.Put, "PUT"}, {wrappers.Merge, "PATCH"}, {wrappers.Delete, "DELETE"}, {wrappers.Message, "POST"}} {
		if b.verbs[m.verb] {
			out = append(out, quote(m.name))
		}
	}
	return strings.Join(out, ", ")
}

// because says what led to a bind.
func (b *bind) because(mapped int) string {
	var what []string
	if b.writes > 0 {
		what = append(what, "written "+times(b.writes))
	}
	if b.reads > 0 {
		what = append(what, "read "+times(b.reads))
	}
	line := "\n  # " + strings.Join(what, ", ")
	if n := len(b.route.samples); mapped < n {
		line += fmt.Sprintf("; %d of these it does not map", n-mapped)
	}
	line += ", as in " + comment(b.route.samples[0].op.Address)
	for _, s := range b.route.samples {
		if s.verb.Writes() && s.op.Text != nil && s.payload.form != none {
			line = strings.TrimSuffix(line, comment(b.route.samples[0].op.Address)) + comment(s.op.Address) + "  " + comment(strings.TrimSpace(*s.op.Text))
			break
		}
	}
	return line + "\n"
}
