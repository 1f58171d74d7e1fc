package mapping

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// encode changes the previous document where it says something else; all other bytes stay. Without one it writes
// members in the order of their names, indented by two spaces.
func (x *xmlForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	var out wrappers.Payload
	if !isObject(v) {
		return out, notA(v, "an object of what the root element holds")
	}
	doc := &xmlDoc{before: "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n", after: "\n", charset: charsets["utf-8"]}
	if prev != nil && len(prev.Raw) > 0 {
		var err error
		if doc, err = x.parse(prev); err != nil {
			return out, fmt.Errorf("what is there now can't be read, and is not overwritten: %s", wrappers.Reason(err))
		}
	}
	w := &xmlWriter{charset: doc.charset, unit: "  "}
	indent := "\n"
	if n := doc.root; n != nil && strings.Contains(n.raw, "\n\t") {
		w.unit = "\t"
	} else if n != nil && isObject(n.value) && !strings.Contains(n.raw, "\n") {
		indent, w.unit = "", "" // all in one line
	}
	w.out.WriteString(doc.before)
	switch {
	case doc.root == nil && x.root == "":
		return out, fmt.Errorf("the root element has no name")
	case doc.root == nil:
		if err := w.element(x.root, v, indent, 0); err != nil {
			return out, err
		}
	default:
		if err := w.update(doc.root, v, indent, 0); err != nil {
			return out, err
		}
	}
	w.out.WriteString(doc.after)
	raw, err := doc.charset.encode(w.out.String(), doc.bom)
	if err != nil {
		return out, err
	}
	if len(raw) > maxPayload {
		return out, tooLarge("the XML would have more than %d MiB", maxPayload>>20)
	}
	out.Raw, out.Type = raw, "application/xml; charset="+doc.charset.name
	return out, nil
}

type xmlWriter struct {
	charset *charset
	unit    string // of indentation
	out     strings.Builder
}

// element writes a new one. indent is the line break before it and the white space behind that.
func (w *xmlWriter) element(name string, v engine.Value, indent string, depth int) error {
	if !xmlName(name) {
		return fmt.Errorf("%q can't be the name of an element", clip(name))
	}
	if depth >= lattice.MaxDepth {
		return fmt.Errorf("nested deeper than %d levels", lattice.MaxDepth)
	}
	w.out.WriteString("<" + name)
	if isObject(v) {
		if err := w.attributes(v, nil); err != nil {
			return err
		}
	}
	w.out.WriteString(">")
	if err := w.content(v, indent, depth); err != nil {
		return err
	}
	w.out.WriteString("</" + name + ">")
	return nil
}

// content writes what a new element holds.
func (w *xmlWriter) content(v engine.Value, indent string, depth int) error {
	if !isObject(v) {
		return w.scalar(v)
	}
	text, hasText := v.Member(xmlTextMember)
	elements := 0
	for _, m := range v.Members() {
		if m.Name == xmlTextMember || strings.HasPrefix(m.Name, "@") {
			continue
		}
		if hasText {
			return fmt.Errorf("%q: an element has either text or elements", m.Name)
		}
		for _, item := range several(m.Value) {
			elements++
			w.out.WriteString(indent + w.unit)
			if err := w.element(m.Name, item, indent+w.unit, depth+1); err != nil {
				return err
			}
		}
	}
	if elements > 0 {
		w.out.WriteString(indent)
	}
	if hasText {
		return w.scalar(text)
	}
	return nil
}

// attributes writes those of v that isn't null, in the order of old and then of their names.
func (w *xmlWriter) attributes(v engine.Value, old []lattice.Member) error {
	write := func(name string, v engine.Value) error {
		if v.Kind() == lattice.NullKind || v.IsAbsent() {
			return nil
		}
		if !xmlName(name[1:]) {
			return fmt.Errorf("%q can't be the name of an attribute", clip(name))
		}
		s, err := cellText(v)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		w.out.WriteString(" " + name[1:] + `="`)
		if err := w.escape(s, true); err != nil {
			return err
		}
		w.out.WriteString(`"`)
		return nil
	}
	had := make(map[string]bool, len(old))
	for _, a := range old {
		had[a.Name] = true
		m, _ := v.Member(a.Name)
		if err := write(a.Name, m); err != nil {
			return err
		}
	}
	for _, m := range v.Members() {
		if strings.HasPrefix(m.Name, "@") && !had[m.Name] {
			if err := write(m.Name, m.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *xmlWriter) scalar(v engine.Value) error {
	if v.Kind() == lattice.NullKind || v.IsAbsent() {
		return nil
	}
	s, err := cellText(v)
	if err != nil {
		return err
	}
	return w.escape(s, false)
}

// escape writes text. What the charset lacks is a character reference.
func (w *xmlWriter) escape(s string, attribute bool) error {
	for i, r := range s {
		switch {
		case r == '<':
			w.out.WriteString("&lt;")
		case r == '>':
			w.out.WriteString("&gt;")
		case r == '&':
			w.out.WriteString("&amp;")
		case r == '"' && attribute:
			w.out.WriteString("&quot;")
		case r == '\r' || attribute && (r == '\n' || r == '\t'):
			fmt.Fprintf(&w.out, "&#%d;", r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"), r < 0x20 && r != '\n' && r != '\t', r == 0xfffe, r == 0xffff:
			return fmt.Errorf("%U can't stand in XML", r)
		case !w.charset.has(r):
			fmt.Fprintf(&w.out, "&#%d;", r)
		default:
			w.out.WriteRune(r)
		}
	}
	return nil
}

// update writes an element that was there, changed to v.
func (w *xmlWriter) update(n *xmlNode, v engine.Value, indent string, depth int) error {
	if n.says(v) {
		w.out.WriteString(n.raw)
		return nil
	}
	if err := w.open(n, v); err != nil {
		return err
	}
	elements := 0
	for _, c := range n.children {
		if c.name != "" {
			elements++
		}
	}
	if !isObject(v) || elements == 0 {
		// A text, or the first elements in what had none.
		if isObject(v) && n.hasText(v) {
			for _, c := range n.children {
				w.out.WriteString(c.raw)
			}
		} else if err := w.content(v, indent, depth); err != nil {
			return err
		}
		w.out.WriteString("</" + n.name + ">")
		return nil
	}
	if _, ok := v.Member(xmlTextMember); ok {
		return fmt.Errorf("#text: <%s> has elements, and can't have text beside them", clip(n.name))
	}
	if err := w.children(n, v, indent, depth+1); err != nil {
		return err
	}
	w.out.WriteString("</" + n.name + ">")
	return nil
}

// says tells whether the element is v already.
func (n *xmlNode) says(v engine.Value) bool {
	if n.value.Equal(v) {
		return true
	}
	if isObject(n.value) || isObject(v) || n.value.Kind() != lattice.StringKind {
		if isObject(v) && v.Len() == 0 && n.value.Kind() == lattice.StringKind && strings.TrimSpace(n.value.Text()) == "" {
			return true
		}
		if text, ok := v.Member(xmlTextMember); ok && v.Len() == 1 {
			return n.says(text)
		}
		return false
	}
	return saysText(n.value.Text(), v, false)
}

// hasText tells whether the text that v wants is there.
func (n *xmlNode) hasText(v engine.Value) bool {
	want, ok := v.Member(xmlTextMember)
	old, had := n.value.Member(xmlTextMember)
	if n.value.Kind() == lattice.StringKind {
		old, had = n.value, n.value.Len() > 0
	}
	for _, m := range v.Members() {
		if !strings.HasPrefix(m.Name, "@") && m.Name != xmlTextMember {
			return false
		}
	}
	return ok && had && saysText(old.Text(), want, false) || !ok && !had
}

// open writes the start tag, as it was if the attributes are the same.
func (w *xmlWriter) open(n *xmlNode, v engine.Value) error {
	same, count := true, 0
	for _, m := range v.Members() {
		if strings.HasPrefix(m.Name, "@") && m.Value.Kind() != lattice.NullKind {
			count++
			same = same && slicesHas(n.attrs, m)
		}
	}
	if same && count == len(n.attrs) {
		tag := strings.TrimSuffix(n.open, ">")
		if slash := strings.TrimSuffix(tag, "/"); slash != tag {
			tag = strings.TrimRight(slash, " \t\r\n")
		}
		w.out.WriteString(tag + ">")
		return nil
	}
	w.out.WriteString("<" + n.name)
	if err := w.attributes(v, n.attrs); err != nil {
		return err
	}
	w.out.WriteString(">")
	return nil
}

func slicesHas(attrs []lattice.Member, m lattice.Member) bool {
	for i := range attrs {
		if attrs[i].Name == m.Name {
			s, err := cellText(m.Value)
			return err == nil && attrs[i].Value.Text() == s
		}
	}
	return false
}

// children writes those of n as v has them: each in its place, further ones of a name behind its last, new names at the
// end, with the white space of what stands there.
func (w *xmlWriter) children(n *xmlNode, v engine.Value, indent string, depth int) error {
	left := map[string][]engine.Value{}
	for _, m := range v.Members() {
		if !strings.HasPrefix(m.Name, "@") {
			left[m.Name] = several(m.Value)
		}
	}
	last := map[string]int{}
	between := "" // white space before the elements
	end := ""     // before the closing tag
	for i, c := range n.children {
		if c.name == "" {
			if strings.TrimSpace(c.raw) == "" {
				if end = c.raw; between == "" && i+1 < len(n.children) && n.children[i+1].name != "" {
					between = c.raw
				}
			}
			continue
		}
		last[c.name] = i
		end = ""
	}
	inner := indent + w.unit
	if strings.Contains(between, "\n") {
		inner = "\n" + between[strings.LastIndexByte(between, '\n')+1:]
	}
	// What is added stands before the white space in front of the closing tag.
	tail := len(n.children)
	if end != "" && n.children[tail-1].name == "" && n.children[tail-1].raw == end {
		tail--
	}
	pending := "" // white space in front of what may go
	for i, c := range n.children[:tail] {
		if c.name == "" {
			if strings.TrimSpace(c.raw) == "" {
				pending += c.raw
			} else {
				w.out.WriteString(pending + c.raw)
				pending = ""
			}
			continue
		}
		if items := left[c.name]; len(items) > 0 {
			w.out.WriteString(pending)
			if err := w.update(c, items[0], inner, depth); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			left[c.name] = items[1:]
		}
		pending = ""
		if last[c.name] == i {
			for _, item := range left[c.name] {
				w.out.WriteString(between)
				if err := w.element(c.name, item, inner, depth); err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
			}
			delete(left, c.name)
		}
	}
	w.out.WriteString(pending)
	for _, m := range v.Members() {
		for _, item := range left[m.Name] {
			w.out.WriteString(between)
			if err := w.element(m.Name, item, inner, depth); err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
		}
	}
	for _, c := range n.children[tail:] {
		w.out.WriteString(c.raw)
	}
	return nil
}
