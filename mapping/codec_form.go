package mapping

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A urlForm is application/x-www-form-urlencoded (URL Standard, section 5): an object of texts; a name that stands there
// several times is a list.
type urlForm struct{}

var urlCodec codec = urlForm{}

func (urlForm) traits() traits { return traits{holds: members, flavour: cells} }

func (urlForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	pairs, err := formPairs(p.Raw)
	if err != nil {
		return engine.Value{}, err
	}
	// Sorting keeps those of one name in their order.
	slices.SortStableFunc(pairs, func(a, b formPair) int { return strings.Compare(a.name, b.name) })
	var members []lattice.Member
	for i := 0; i < len(pairs); {
		n := i + 1
		for n < len(pairs) && pairs[n].name == pairs[i].name {
			n++
		}
		v := lattice.String(pairs[i].value)
		if n > i+1 {
			items := make([]engine.Value, 0, n-i)
			for _, x := range pairs[i:n] {
				items = append(items, lattice.String(x.value))
			}
			v = lattice.List(items...)
		}
		members = append(members, lattice.Member{Name: pairs[i].name, Value: v})
		i = n
	}
	return lattice.Object(members...), nil
}

// A formPair is one parameter, and how it stood there.
type formPair struct{ name, value, raw string }

func formPairs(raw []byte) ([]formPair, error) {
	if err := checkSize(raw); err != nil {
		return nil, err
	}
	var out []formPair
	for part := range strings.SplitSeq(string(raw), "&") {
		if part == "" {
			continue
		}
		if len(out) >= maxCells {
			return nil, tooLarge("the form has more than %d parameters", maxCells)
		}
		name, value, _ := strings.Cut(part, "=")
		pair := formPair{formText(name), formText(value), part}
		if !utf8.ValidString(pair.name) || !utf8.ValidString(pair.value) {
			return nil, refuse("the parameter %q is not UTF-8", clip(part))
		}
		out = append(out, pair)
	}
	return out, nil
}

// clip shortens what an error shows.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}

// formText decodes; a % that no two hexadecimal digits follow stands for itself.
func formText(s string) string {
	if !strings.ContainsAny(s, "+%") {
		return strings.Clone(s)
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '+':
			out = append(out, ' ')
		case c == '%' && i+2 < len(s) && hexDigit(s[i+1]) >= 0 && hexDigit(s[i+2]) >= 0:
			out = append(out, byte(hexDigit(s[i+1])<<4|hexDigit(s[i+2])))
			i += 2
		default:
			out = append(out, c)
		}
	}
	return string(out)
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// encode keeps parameters that don't change as they stood, in their order; new ones follow by name.
func (urlForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	out := wrappers.Payload{Type: "application/x-www-form-urlencoded"}
	if !isObject(v) {
		return out, notA(v, "an object of parameters")
	}
	var old []formPair
	if prev != nil {
		var err error
		if old, err = formPairs(prev.Raw); err != nil {
			return out, fmt.Errorf("what is there now can't be read, and is not overwritten: %s", wrappers.Reason(err))
		}
	}
	left := map[string][]formValue{} // what is still to be written
	var names []string
	for _, m := range v.Members() {
		values, err := formValues(m.Value)
		if err != nil {
			return out, fmt.Errorf("%s: %w", m.Name, err)
		}
		left[m.Name] = values
		names = append(names, m.Name)
	}
	var parts []string
	last := map[string]int{} // the part behind which further values of a name stand
	for _, p := range old {
		values := left[p.name]
		if len(values) == 0 {
			continue
		}
		left[p.name] = values[1:]
		part := p.raw
		if !saysText(p.value, values[0].value, false) {
			part = formPart(p.name, values[0].text)
		}
		last[p.name] = len(parts)
		parts = append(parts, part)
	}
	behind := map[int]string{}
	for n, i := range last {
		behind[i] = n
	}
	var all []string
	for i, part := range parts {
		all = append(all, part)
		if n, ok := behind[i]; ok {
			for _, value := range left[n] {
				all = append(all, formPart(n, value.text))
			}
			delete(left, n)
		}
	}
	for _, n := range names {
		for _, value := range left[n] {
			all = append(all, formPart(n, value.text))
		}
	}
	if prev != nil && slices.EqualFunc(old, all, func(p formPair, s string) bool { return p.raw == s }) {
		out.Raw = slices.Clone(prev.Raw)
	} else {
		out.Raw = []byte(strings.Join(all, "&"))
	}
	return out, nil
}

func formPart(name, value string) string {
	n := url.QueryEscape(name)
	if n == "" && value == "" {
		return "="
	}
	return n + "=" + url.QueryEscape(value)
}

// A formValue is what one parameter says.
type formValue struct {
	value engine.Value
	text  string
}

func formValues(v engine.Value) ([]formValue, error) {
	var out []formValue
	for _, item := range several(v) {
		s, err := cellText(item)
		if err != nil {
			return nil, err
		}
		out = append(out, formValue{item, s})
	}
	return out, nil
}

// several are the elements or parameters that a member is.
func several(v engine.Value) []engine.Value {
	switch v.Kind() {
	case lattice.AbsentKind, lattice.NullKind:
		return nil
	case lattice.ListKind, lattice.SetKind:
		return v.Items()
	}
	return []engine.Value{v}
}

// saysText tells whether a text of a document says v already, in whatever spelling of a number.
func saysText(text string, v engine.Value, comma bool) bool {
	if v.IsNumber() {
		n, err := parseCell(text, comma)
		return err == nil && n.Equal(v)
	}
	s, err := cellText(v)
	return err == nil && s == text
}

// cellText is a value as text of a document.
func cellText(v engine.Value) (string, error) {
	if v.IsNumber() {
		return v.Number(), nil
	}
	return captureText(v)
}
