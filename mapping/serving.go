package mapping

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"

	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// serving gives the wrappers that a block of this protocol concerns. Nothing: it was reported.
func (l *loader) serving(b *hclsyntax.Block, choice *hclsyntax.Attribute, all bool) []*wrapperMaps {
	protocol := b.Labels[0]
	var out []*wrapperMaps
	var names, protocols []string
	for _, w := range l.in.Wrappers {
		protocols = append(protocols, w.Protocol.Name)
		if w.Protocol.Name == protocol {
			out = append(out, l.set.wrappers[w.Name])
			names = append(names, w.Name)
		}
	}
	if len(out) == 0 {
		if slices.Contains(l.in.Later, protocol) {
			l.later = append(l.later, b)
			l.Warn("MAP051", b.LabelRanges[0], fmt.Sprintf("protocol %q is not in this version", protocol), "The block was checked and is not served.")
			if _, _, err := marks(b.Labels[1]); err != nil {
				l.Error("MAP002", b.LabelRanges[1], "not the template of an address", sentence(err))
			}
			return nil
		}
		d := &diag.Diagnostic{Code: "MAP050", Severity: diag.Error, Summary: fmt.Sprintf("no wrapper of protocol %q is configured", protocol), Subject: b.LabelRanges[0],
			Detail: fmt.Sprintf("Add a block `wrapper %q \"name\" { … }` to gateway.hcl, or take the bind out.", protocol)}
		d.Suggestion = diag.Suggest(protocol, append(protocols, l.in.Later...))
		l.Add(d)
		return nil
	}
	if choice == nil {
		if len(out) > 1 && !all {
			l.Error("MAP052", b.DefRange(), fmt.Sprintf("which of the wrappers %s?", strings.Join(quoteAll(names), " and ")),
				fmt.Sprintf("Without a choice the bind would bridge them. Add `wrapper = [%q]`, or name all of them.", names[0]))
			return out[:1] // so that its other mistakes are found too
		}
		return out
	}
	chosen, ok := l.Strings(choice, nil)
	if !ok {
		return out[:1]
	}
	var picked []*wrapperMaps
	for _, name := range chosen {
		if i := slices.Index(names, name); i < 0 {
			l.Unknown("MAP053", choice.Expr.Range(), fmt.Sprintf("wrapper of protocol %q", protocol), name, names)
		} else if !slices.Contains(picked, out[i]) {
			picked = append(picked, out[i])
		}
	}
	if len(picked) == 0 {
		if len(chosen) == 0 {
			l.Error("MAP053", choice.Expr.Range(), "an empty list of wrappers", "Name one, or leave `wrapper` out.")
		}
		return out[:1]
	}
	return picked
}

func quoteAll(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = fmt.Sprintf("%q", n)
	}
	return out
}

// address reads a block's template as it stands in a wrapper.
func (l *loader) address(b *hclsyntax.Block, w *wrapperMaps) *template {
	text := b.Labels[1]
	s := &w.info.Protocol.Syntax
	if base := w.info.Base; base != "" {
		text = strings.TrimSuffix(base, s.Separator) + s.Separator + strings.TrimPrefix(text, s.Separator)
	}
	if s.Separator == "" {
		one := *s
		one.Separator = "\x00\x00"
		s = &one
	}
	t, err := parseTemplate(text, s, true)
	if err != nil {
		l.Error("MAP002", b.LabelRanges[1], "not the template of an address", sentence(err))
		return nil
	}
	for _, n := range t.names {
		if n == "wrapper" || n == "server" {
			l.Error("MAP003", b.LabelRanges[1], fmt.Sprintf("{%s} in an address", n), "It is known without a place in the address; use it in the register's name.")
			return nil
		}
	}
	return t
}

func (l *loader) ignore(b *hclsyntax.Block) {
	defer l.Within(fmt.Sprintf("ignore %q %q", b.Labels[0], b.Labels[1]))()
	c := l.Decode(b.Body, b.DefRange(), ignoreSchema)
	for _, w := range l.serving(b, c.Attrs["wrapper"], true) {
		t := l.address(b, w)
		if t == nil {
			return
		}
		if len(t.params) > 0 {
			l.Error("MAP004", b.LabelRanges[1], "a query in an ignore block", "It ignores a path, whatever its query.")
			return
		}
		w.ignores.insert(&leaf{template: t, ignore: true, checks: l.matches(c.Attrs["match"], t.names, t)})
		w.holes++
	}
}

// A protocol's own attribute of binds.
func (l *loader) options(c diag.Content, settings []wrappers.Setting, direction string) wrappers.Options {
	o := wrappers.Options{"direction": direction}
	for _, s := range settings {
		a := c.Attrs[s.Name]
		if a == nil {
			if s.Default != nil {
				o[s.Name] = s.Default
			}
			continue
		}
		ok := false
		var v any
		switch s.Kind {
		case wrappers.BoolSetting:
			v, ok = l.Bool(a, false)
		case wrappers.IntSetting:
			v, ok = l.Int(a, 0, s.Min, s.Max)
		case wrappers.StringsSetting:
			list, good := l.Strings(a, nil)
			for _, one := range list {
				if len(s.Enum) > 0 && !slices.Contains(s.Enum, one) {
					l.Unknown("HCL015", a.Expr.Range(), s.Name, one, s.Enum)
					good = false
				}
			}
			v, ok = list, good
		default:
			if len(s.Enum) > 0 {
				v, ok = l.Enum(a, "", s.Enum)
			} else {
				v, ok = l.String(a, "", nil)
			}
		}
		if ok {
			o[s.Name] = v
		}
	}
	return o
}
