package mapping

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A textForm is text("…"), a template over the whole payload.
type textForm struct{ *template }

func (*textForm) traits() traits { return traits{holds: members, flavour: textual, whole: true} }

// makeText gives text, and text("…").
func makeText(args []engine.Value) (codec, error) {
	if len(args) == 0 {
		return textCodec, nil
	}
	if args[0].Text() == "" {
		return nil, fmt.Errorf(`text() takes a template in quotes, as in text("{name}: {value}")`)
	}
	t, err := parseForm(args[0].Text())
	if err != nil {
		return nil, fmt.Errorf("not the template of a payload: %w", err)
	}
	return &textForm{t}, nil
}

// parseForm reads the template of text("…"): one segment without a separator.
func parseForm(text string) (*template, error) {
	if len(text) > maxTemplate {
		return nil, fmt.Errorf("it has %d bytes, a template may have %d", len(text), maxTemplate)
	}
	marked, names, err := marks(text)
	if err != nil {
		return nil, err
	}
	lits, found := splitMarks(marked, names)
	if len(found) == 0 {
		return nil, fmt.Errorf("it captures nothing: write {name} where a value stands")
	}
	for i, n := range found {
		if slices.Contains(found[:i], n) {
			return nil, fmt.Errorf("{%s} stands there twice; each capture needs a name of its own", n)
		}
	}
	s, err := newShape(lits, found, "", false)
	if err != nil {
		return nil, err
	}
	return &template{text: text, syntax: &wrappers.Syntax{}, segments: []segment{{shape: s}}, names: found}, nil
}

func (form *textForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	s := &form.segments[0]
	caps := make([]string, len(s.shape.escapes))
	text := strings.TrimRight(string(p.Raw), "\r\n")
	if !utf8.Valid(p.Raw) || !s.shape.match(text, caps) || !s.shape.values(caps) {
		return engine.Value{}, refuse("the payload is not of the form %q", form.text)
	}
	members := make([]lattice.Member, len(caps))
	for i, v := range caps {
		members[i] = lattice.Member{Name: form.names[i], Value: lattice.String(v)}
	}
	return lattice.Object(members...), nil
}

func (form *textForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	missing := ""
	out, ok := form.segments[0].shape.append(nil, func(i int) string {
		m, _ := v.Member(form.names[i])
		text, err := captureText(m)
		if err != nil || text == "" {
			missing = form.names[i]
			return ""
		}
		return text
	})
	if !ok {
		return wrappers.Payload{}, fmt.Errorf("%q has no text for {%s}", form.text, missing)
	}
	return wrappers.Payload{Raw: out, Type: plainText}, nil
}
