package mapping

import (
	"fmt"
	"slices"

	"github.com/spooksystems/gateway/wrappers"
)

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
