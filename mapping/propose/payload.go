package propose

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"math/big"
	"net/url"
	"regexp"
	"slices"
	"sort"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/spooksystems/gateway/mapping/recording"
)

// form is what a payload looks like; the names are those of codecs.
type form string

const (
	none       form = ""
	jsonForm   form = "json"
	cborForm   form = "cbor"
	numberForm form = "number"
	textForm   form = "text"
	bytesForm  form = "bytes"
	formForm   form = "form"
	xmlForm    form = "xml"
	csvForm    form = "csv"
)

// A payload is one payload, looked at.
type payload struct {
	form    form
	members map[string]any // of an object; values as encoding/json has them, with json.Number
	object  bool
	rows    []map[string]any // of CSV: rows by the names of the columns
	columns []string
	comma   string
	root    string // of XML
	scalar  any    // of what is one value
}

var (
	formShape = regexp.MustCompile(`^[^=&\s{}<>]+=[^=&\s]*(&[^=&\s{}<>]+=[^=&\s]*)*$`)
	number    = regexp.MustCompile(`^[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?$`)
)

// look finds a payload's form by its media type, the name of its address, and what it is.
func look(raw []byte, kind, name string) payload {
	kind = strings.ToLower(kind)
	text := strings.TrimSpace(string(raw))
	switch {
	case len(raw) == 0:
		return payload{}
	case strings.Contains(kind, "cbor") || !utf8.Valid(raw):
		return lookCBOR(raw)
	case text == "":
		return payload{form: textForm, scalar: string(raw)}
	case text[0] == '{' || text[0] == '[':
		if v, ok := parseJSON(raw); ok {
			p := payload{form: jsonForm}
			p.members, p.object = v.(map[string]any)
			if !p.object {
				p.scalar = v
			}
			return p
		}
	case text[0] == '<':
		if p, ok := lookXML(raw); ok {
			return p
		}
	case number.MatchString(text):
		return payload{form: numberForm, scalar: json.Number(text)}
	}
	if p, ok := lookCSV(text, strings.Contains(kind, "csv") || strings.HasSuffix(strings.ToLower(name), ".csv")); ok {
		return p
	}
	if formShape.MatchString(text) && (strings.Contains(kind, "form-urlencoded") || strings.Contains(text, "&") || !strings.Contains(kind, "/")) {
		if q, err := url.ParseQuery(text); err == nil {
			p := payload{form: formForm, object: true, members: map[string]any{}}
			for k, vs := range q {
				p.members[k] = vs[0]
				if len(vs) > 1 {
					list := []any{}
					for _, v := range vs {
						list = append(list, v)
					}
					p.members[k] = list
				}
			}
			return p
		}
	}
	if strings.Contains(kind, "json") {
		if v, ok := parseJSON(raw); ok {
			return payload{form: jsonForm, scalar: v}
		}
	}
	return payload{form: textForm, scalar: string(raw)}
}

func parseJSON(raw []byte) (any, bool) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if dec.Decode(&v) != nil {
		return nil, false
	}
	_, err := dec.Token()
	return v, err == io.EOF
}

func lookCBOR(raw []byte) payload {
	var v any
	if major := raw[0] >> 5; (major == 4 || major == 5 || major == 6) && cbor.Unmarshal(raw, &v) == nil {
		p := payload{form: cborForm}
		if m, ok := plain(v).(map[string]any); ok {
			p.members, p.object = m, true
			return p
		}
		p.scalar = plain(v)
		return p
	}
	if utf8.Valid(raw) {
		return payload{form: textForm, scalar: string(raw)}
	}
	return payload{form: bytesForm, scalar: raw}
}

// plain gives what CBOR decodes to the types that JSON has.
func plain(v any) any {
	switch v := v.(type) {
	case map[any]any:
		m := map[string]any{}
		for k, x := range v {
			s, ok := k.(string)
			if !ok {
				return nil
			}
			m[s] = plain(x)
		}
		return m
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
		return v
	case uint64, int64, float64, big.Int, *big.Int:
		return json.Number("0")
	case cbor.Tag:
		if v.Number == 4 { // a decimal fraction (RFC 8949, section 3.4.4)
			return json.Number("0")
		}
	case []byte:
		return v
	}
	return v
}

// lookXML reads a document whose children are texts.
func lookXML(raw []byte) (payload, bool) {
	p := payload{form: xmlForm, object: true, members: map[string]any{}}
	dec := xml.NewDecoder(bytes.NewReader(raw))
	var path []string
	var text strings.Builder
	for {
		t, err := dec.Token()
		if err == io.EOF {
			return p, p.root != "" && len(path) == 0
		}
		if err != nil || len(path) > 100 {
			return p, false
		}
		switch t := t.(type) {
		case xml.StartElement:
			if len(path) == 0 {
				p.root = t.Name.Local
			}
			path = append(path, t.Name.Local)
			text.Reset()
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if len(path) == 2 {
				name := path[1]
				if old, again := p.members[name]; again {
					list, _ := old.([]any)
					p.members[name] = append(list, nil) // repeated: whatever it is
				} else {
					p.members[name] = strings.TrimSpace(text.String())
				}
			} else if len(path) > 2 {
				p.members[path[1]] = map[string]any{}
			}
			path = path[:len(path)-1]
		}
	}
}

// lookCSV takes lines with equally many of one separator for rows; certain: it is said to be CSV.
func lookCSV(text string, certain bool) (payload, bool) {
	lines := strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	if len(lines) < 2 || strings.ContainsAny(text, "{}<>") {
		return payload{}, false
	}
	for _, comma := range []string{";", "\t", ",", "|"} {
		n := strings.Count(lines[0], comma)
		if n == 0 || !certain && n < 2 && len(lines) < 3 {
			continue
		}
		even := true
		for _, l := range lines[1:] {
			even = even && (strings.Count(l, comma) == n || strings.Contains(l, `"`))
		}
		if !even {
			continue
		}
		p := payload{form: csvForm, comma: comma}
		for _, c := range strings.Split(lines[0], comma) {
			p.columns = append(p.columns, strings.Trim(strings.TrimSpace(c), `"`))
		}
		for _, c := range p.columns {
			if c == "" || number.MatchString(c) {
				return payload{}, false // the first line is no header
			}
		}
		for _, l := range lines[1:] {
			row := map[string]any{}
			for i, v := range strings.Split(l, comma) {
				if i < len(p.columns) {
					row[p.columns[i]] = strings.Trim(strings.TrimSpace(v), `"`)
				}
			}
			p.rows = append(p.rows, row)
		}
		return p, true
	}
	return payload{}, false
}

// What a member was seen as.
type seen struct {
	count                                           int
	numbers, texts, bools, times, nulls, lists, any int
	numeric                                         int // texts that are numbers
	comma                                           int // of these, with a decimal comma
	values                                          map[string]int
	items                                           *seen // of lists
}

const maxValues = 200

func (s *seen) add(v any) {
	if s.values == nil {
		s.values = map[string]int{}
	}
	s.count++
	switch v := v.(type) {
	case nil:
		s.nulls++
	case bool:
		s.bools++
	case json.Number:
		s.numbers++
		s.note(v.String())
	case string:
		s.texts++
		s.note(v)
		if _, err := time.Parse(time.RFC3339Nano, v); err == nil {
			s.times++
		}
		if number.MatchString(v) {
			s.numeric++
		} else if number.MatchString(strings.Replace(v, ",", ".", 1)) {
			s.numeric++
			s.comma++
		}
	case []any:
		s.lists++
		if s.items == nil {
			s.items = &seen{}
		}
		for _, x := range v {
			s.items.add(x)
		}
	default:
		s.any++
	}
}

func (s *seen) note(v string) {
	if len(s.values) < maxValues || s.values[v] > 0 {
		s.values[v]++
	}
}

// typ is a type of the language, and how a text becomes it.
type typ struct {
	name    string
	enum    bool
	convert string // a two-way function around a text: `number(%s)`, or ""
}

// anyType takes everything.
var anyType = typ{name: "any"}

// enumMost is how many values an enum has at most, and enumSeen how often each must have been seen on average.
const (
	enumMost = 6
	enumSeen = 3
)

// typeOf is the type of what was seen. textual: members are texts whatever they say, as in forms.
func (s *seen) typeOf(textual bool) typ {
	n := s.count - s.nulls
	switch {
	case n == 0:
		return anyType
	case s.numbers == n:
		return typ{name: "number"}
	case s.bools == n:
		return typ{name: "bool"}
	case s.texts == n && s.times == n:
		return typ{name: "time"}
	case s.texts == n && textual && s.numeric == n && !s.leadingZero():
		switch {
		case s.comma == 0:
			return typ{name: "number", convert: "number(%s)"}
		case !s.points():
			return typ{name: "number", convert: `number(%s, ",")`}
		}
		return typ{name: "string"}
	case s.texts == n:
		if values, ok := s.few(n); ok {
			quoted := make([]string, len(values))
			for i, v := range values {
				quoted[i] = quote(v)
			}
			return typ{name: "enum(" + strings.Join(quoted, ", ") + ")", enum: true}
		}
		return typ{name: "string"}
	case s.lists == n:
		if item := s.items.typeOf(false); !item.enum && item.name != "any" && s.items.nulls == 0 {
			return typ{name: "list(" + item.name + ")"}
		}
	}
	return anyType
}

// points tells whether a number has a decimal point.
func (s *seen) points() bool {
	for v := range s.values {
		if strings.Contains(v, ".") {
			return true
		}
	}
	return false
}

// leadingZero: "007" is a number that would not come back.
func (s *seen) leadingZero() bool {
	for v := range s.values {
		if len(v) > 1 && v[0] == '0' && v[1] >= '0' && v[1] <= '9' || strings.HasPrefix(v, "+") {
			return true
		}
	}
	return false
}

// few gives the values, where they are few words seen often.
func (s *seen) few(n int) ([]string, bool) {
	if len(s.values) > enumMost || n < enumSeen*len(s.values) || n < 4 || len(s.values) < 2 {
		return nil, false
	}
	var out []string
	for v := range s.values {
		if v == "" || len(v) > 32 || v == recording.Stars || strings.ContainsAny(v, "\n\r") || number.MatchString(v) {
			return nil, false
		}
		out = append(out, v)
	}
	sort.Strings(out)
	return out, true
}

// unify is a type that takes both.
func unify(a, b typ) typ {
	switch {
	case a.name == "":
		return b
	case a.name == b.name:
		return a
	case (a.enum || a.name == "string") && (b.enum || b.name == "string"):
		return typ{name: "string"}
	}
	return anyType
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
