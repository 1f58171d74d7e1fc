package mapping

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// An xmlForm is one XML document (XML 1.0): an object of what the root element holds. An element with neither attributes
// nor children is a text; attributes are members "@name", the text beside them "#text"; elements of one name are a list.
// Names are as written, with their prefix.
type xmlForm struct {
	root string // "": whatever stands there
}

// xmlTextMember is the text of an element with attributes.
const xmlTextMember = "#text"

// bareText gives the text of an XML element where no more is asked for: that of an object of attributes and text.
func bareText(v engine.Value) engine.Value {
	if !attributed(v) {
		return v
	}
	if text, ok := v.Member(xmlTextMember); ok {
		return text
	}
	return lattice.String("")
}

// attributed tells whether v is an element with attributes and no elements in it.
func attributed(v engine.Value) bool {
	for _, m := range v.Members() {
		if m.Name != xmlTextMember && !strings.HasPrefix(m.Name, "@") {
			return false
		}
	}
	return v.Len() > 0 && isObject(v)
}

// withText puts a text into an element that has attributes; any other value replaces what was there.
func withText(old, v engine.Value) engine.Value {
	switch v.Kind() {
	case lattice.AbsentKind, lattice.NullKind, lattice.ObjectKind, lattice.ListKind, lattice.SetKind:
		return v
	}
	if !attributed(old) {
		return v
	}
	return setPath(old, []string{xmlTextMember}, v)
}

// makeXML reads xml("root").
func makeXML(args []engine.Value) (codec, error) {
	if !xmlName(args[0].Text()) {
		return nil, fmt.Errorf(`xml() takes the name of the root element, as in xml("recipe")`)
	}
	return &xmlForm{args[0].Text()}, nil
}

var xmlCodec codec = &xmlForm{}

func (*xmlForm) traits() traits { return traits{holds: members, flavour: cells} }

func (x *xmlForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	doc, err := x.parse(p)
	if err != nil {
		return engine.Value{}, err
	}
	v := doc.root.value
	if v.Kind() == lattice.StringKind {
		if strings.TrimSpace(v.Text()) == "" {
			return lattice.Object(), nil
		}
		return lattice.Object(lattice.Member{Name: xmlTextMember, Value: v}), nil
	}
	return v, nil
}

// An xmlNode is an element, or what stands between elements.
type xmlNode struct {
	name     string // "": text, comment or instruction
	text     string // of what is text
	raw      string // as it was written, whole
	open     string // of an element: its start tag
	attrs    []lattice.Member
	children []*xmlNode
	value    engine.Value
}

type xmlDoc struct {
	before, after string // prolog and epilog
	bom           string
	charset       *charset
	root          *xmlNode
}

var xmlDecl = regexp.MustCompile(`^<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']`)

// xmlText gives the text, by byte order mark, the declaration, the media type, UTF-8.
func xmlText(p *wrappers.Payload) (text, bom string, cs *charset, err error) {
	raw := p.Raw
	name := "utf-8"
	switch {
	case bytes.HasPrefix(raw, []byte{0xff, 0xfe}), bytes.HasPrefix(raw, []byte{0xfe, 0xff}):
		name = "utf-16"
	case bytes.HasPrefix(raw, []byte(byteOrderMark)):
	default:
		if m := xmlDecl.FindSubmatch(raw[:min(len(raw), 200)]); m != nil {
			name = string(m[1])
		} else if _, said := mediaType(p); said != "" {
			name = said
		}
	}
	if cs = findCharset(name); cs == nil || cs.order != nil && name != "utf-16" {
		return "", "", nil, refuse("the charset %q is none of those read: %s", clip(name), strings.Join(charsetNames(), ", "))
	}
	text, bom, err = cs.decode(raw)
	return text, bom, cs, err
}

func (x *xmlForm) parse(p *wrappers.Payload) (*xmlDoc, error) {
	if err := checkSize(p.Raw); err != nil {
		return nil, err
	}
	text, bom, cs, err := xmlText(p)
	if err != nil {
		return nil, err
	}
	doc := &xmlDoc{bom: bom, charset: cs}
	d := xml.NewDecoder(strings.NewReader(text))
	d.CharsetReader = func(_ string, r io.Reader) (io.Reader, error) { return r, nil } // it is UTF-8 already
	var stack []*xmlNode
	var starts []int64 // where each open element begins
	count := 0
	for {
		from := d.InputOffset()
		tok, err := d.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, refuse("the payload is not XML: %s", strings.TrimPrefix(err.Error(), "XML syntax error on "))
		}
		raw := text[from:d.InputOffset()]
		if count++; count > maxCells {
			return nil, tooLarge("the XML has more than %d parts", maxCells)
		}
		add := func(n *xmlNode) {
			if len(stack) > 0 {
				top := stack[len(stack)-1]
				top.children = append(top.children, n)
			}
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(stack) == 0 && doc.root != nil {
				return nil, refuse("the XML has two root elements")
			}
			if len(stack) >= lattice.MaxDepth {
				return nil, refuse("elements nested deeper than %d levels", lattice.MaxDepth)
			}
			n := &xmlNode{name: xmlQualified(t.Name), open: raw}
			if !xmlName(n.name) {
				return nil, refuse("%q is not the name of an element", clip(n.name))
			}
			for _, a := range t.Attr {
				if count++; count > maxCells {
					return nil, tooLarge("the XML has more than %d parts", maxCells)
				}
				n.attrs = append(n.attrs, lattice.Member{Name: "@" + xmlQualified(a.Name), Value: lattice.String(a.Value)})
			}
			if len(stack) == 0 {
				doc.root, doc.before = n, text[:from]
			}
			add(n)
			stack, starts = append(stack, n), append(starts, from)
		case xml.EndElement:
			if len(stack) == 0 || stack[len(stack)-1].name != xmlQualified(t.Name) {
				return nil, refuse("the XML closes <%s>, which is not open there", clip(xmlQualified(t.Name)))
			}
			n := stack[len(stack)-1]
			n.raw = text[starts[len(starts)-1]:d.InputOffset()]
			stack, starts = stack[:len(stack)-1], starts[:len(starts)-1]
			if n.value, err = n.decode(); err != nil {
				return nil, err
			}
		case xml.CharData:
			if len(stack) == 0 && strings.TrimSpace(string(t)) != "" {
				return nil, refuse("the XML has text outside of its root element")
			}
			add(&xmlNode{text: string(t), raw: raw})
		case xml.Directive:
			return nil, refuse("the XML has a declaration <!%s…; document types and entities are not read", clip(firstWord(string(t))))
		case xml.Comment:
			add(&xmlNode{raw: raw})
		case xml.ProcInst:
			if t.Target == "xml" && from != 0 {
				return nil, refuse("the XML declaration does not stand at the beginning")
			}
			add(&xmlNode{raw: raw})
		}
		if len(stack) == 0 && doc.root != nil && doc.root.raw != "" {
			doc.after = text[len(doc.before)+len(doc.root.raw):]
		}
	}
	switch {
	case len(stack) > 0:
		return nil, refuse("the XML ends within <%s>", clip(stack[len(stack)-1].name))
	case doc.root == nil:
		return nil, refuse("the payload has no XML element")
	case x.root != "" && doc.root.name != x.root:
		return nil, refuse("the root element is <%s>; <%s> is wanted", clip(doc.root.name), x.root)
	}
	return doc, nil
}

func firstWord(s string) string {
	w, _, _ := strings.Cut(s, " ")
	return w
}

func xmlQualified(n xml.Name) string {
	if n.Space == "" {
		return n.Local
	}
	return n.Space + ":" + n.Local
}

// xmlName tells whether s can be a name: letters, digits and -._: of any script, no digit or sign first.
func xmlName(s string) bool {
	if s == "" || !utf8.ValidString(s) || strings.Count(s, ":") > 1 || strings.HasPrefix(s, ":") || strings.HasSuffix(s, ":") {
		return false
	}
	d := xml.NewDecoder(strings.NewReader("<" + s + "/>"))
	t, err := d.RawToken()
	start, ok := t.(xml.StartElement)
	return err == nil && ok && xmlQualified(start.Name) == s && len(start.Attr) == 0
}

// decode gives the value of an element whose children have theirs.
func (n *xmlNode) decode() (engine.Value, error) {
	var text strings.Builder
	elements := 0
	for _, c := range n.children {
		if c.name != "" {
			elements++
		}
		text.WriteString(c.text)
	}
	mixed := strings.TrimSpace(text.String()) != ""
	if elements > 0 && mixed {
		return absent, refuse("<%s> holds both elements and text", clip(n.name))
	}
	if elements == 0 && len(n.attrs) == 0 {
		return lattice.String(text.String()), nil
	}
	out := make([]lattice.Member, 0, len(n.attrs)+elements+1)
	seen := map[string]bool{}
	for _, a := range n.attrs {
		if seen[a.Name] {
			return absent, refuse("<%s> has the attribute %s twice", clip(n.name), clip(a.Name[1:]))
		}
		seen[a.Name] = true
		out = append(out, a)
	}
	if elements == 0 {
		if text.Len() > 0 {
			out = append(out, lattice.Member{Name: xmlTextMember, Value: lattice.String(text.String())})
		}
		return lattice.Object(out...), nil
	}
	byName := map[string][]engine.Value{}
	for _, c := range n.children {
		if c.name != "" {
			byName[c.name] = append(byName[c.name], c.value)
		}
	}
	for name, values := range byName {
		v := values[0]
		if len(values) > 1 {
			v = lattice.List(values...)
		}
		out = append(out, lattice.Member{Name: name, Value: v})
	}
	return lattice.Object(out...), nil
}
