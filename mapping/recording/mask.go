package recording

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Stars stand for what was masked.
const Stars = "***"

// Mask replaces what looks like a secret by ***: members, columns, form fields, elements, headers and parameters whose names say so, credentials
// in URLs, and the whole payload of an address that ends with such a name. What can't be looked into (a compressed body) is
// left out whole.
func (o *Operation) Mask() {
	o.Parts = slices.Clone(o.Parts) // another recorder may have them too
	for i := range o.Parts {
		o.Parts[i].Mask()
	}
	if address := maskAddress(o.Address); address != o.Address {
		o.Address, o.Masked = address, true
	}
	if to := maskAddress(o.To); to != o.To {
		o.To, o.Masked = to, true
	}
	o.maskMeta()
	if o.Text == nil && o.Base64 == nil {
		return
	}
	if o.Base64 != nil && closed(o.Meta["content-encoding"]) {
		o.SetPayload(nil)
		o.Omitted = true
		return
	}
	raw := o.Payload()
	if SecretName(lastSegment(o.Address)) {
		o.SetPayload(wholly(raw))
		o.Masked = true
		return
	}
	masked, ok := maskPayload(raw, o.Type+" "+o.Meta["content-type"])
	switch {
	case !ok:
		o.SetPayload(nil)
		o.Omitted = true
	case !bytes.Equal(masked, raw):
		o.SetPayload(masked)
		o.Masked = true
	}
}

// closed tells whether a content coding hides what a payload says.
func closed(coding string) bool {
	coding = strings.ToLower(strings.TrimSpace(coding))
	return coding != "" && coding != "identity"
}

func (o *Operation) maskMeta() {
	var meta map[string]string
	for k, v := range o.Meta {
		m := maskText(v)
		if k == "statement" {
			m = maskStatement(m)
		}
		if SecretName(k) {
			m = Stars
		}
		if m == v {
			continue
		}
		if meta == nil { // the map may be shared
			meta = make(map[string]string, len(o.Meta))
			for k, v := range o.Meta {
				meta[k] = v
			}
		}
		meta[k], o.Masked = m, true
	}
	if meta != nil {
		o.Meta = meta
	}
}

var (
	statementWord    = regexp.MustCompile(`[\pL_][\pL\pN_$-]*`)
	statementLiteral = regexp.MustCompile(`'(?:[^'\\]|''|\\.)*(?:'|$)|\$(\w*)\$`)
)

// maskStatement masks what stands in quotes in a statement of SQL that names a secret: which of its values that is, is not looked for.
func maskStatement(s string) string {
	if !slices.ContainsFunc(statementWord.FindAllString(statementLiteral.ReplaceAllString(s, "''"), -1), SecretName) {
		return s
	}
	if at := statementLiteral.FindStringIndex(s); at != nil && s[at[0]] == '$' {
		return s[:at[0]] + Stars // a dollar quote: what follows may be anything
	}
	return statementLiteral.ReplaceAllStringFunc(s, func(q string) string {
		if q[0] == '$' {
			return q
		}
		return "'" + Stars + "'"
	})
}

// secretParts are what a secret's name has in it, and secretNames those that are one; letters and digits only.
var (
	secretParts = []string{
		"password", "passwd", "passphrase", "passcode", "secret", "token", "apikey", "authorization", "credential", "privatekey", "accesskey", "cookie",
		"sessionid", "signature", "bearer",
	}
	secretNames = map[string]bool{"pass": true, "pwd": true, "auth": true, "psk": true, "pin": true, "sid": true, "jwt": true, "pw": true}
)

// SecretName tells whether something of this name looks like a secret. Case, dashes, dots and underscores make no difference.
func SecretName(name string) bool {
	if name == "" || len(name) > 200 {
		return false
	}
	plain := strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9', r >= utf8.RuneSelf:
			return r
		}
		return -1
	}, name)
	if secretNames[plain] {
		return true
	}
	for _, part := range secretParts {
		if strings.Contains(plain, part) {
			return true
		}
	}
	return false
}

// maskAddress masks parameters of a query.
func maskAddress(address string) string {
	path, query, found := strings.Cut(address, "?")
	if !found {
		return address
	}
	params := strings.Split(query, "&")
	for i, p := range params {
		if name, value, ok := strings.Cut(p, "="); ok && value != "" && SecretName(unescaped(name)) {
			params[i] = name + "=" + Stars
		}
	}
	return path + "?" + strings.Join(params, "&")
}

// unescaped undoes percent-escapes, as far as a name has any.
func unescaped(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	return escape.ReplaceAllStringFunc(s, func(e string) string {
		b := e[1] & 0xf
		if e[1] > '9' {
			b += 9
		}
		c := e[2] & 0xf
		if e[2] > '9' {
			c += 9
		}
		return string([]byte{b<<4 | c})
	})
}

var escape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func lastSegment(address string) string {
	path, _, _ := strings.Cut(address, "?")
	path = strings.TrimRight(path, "/")
	return path[strings.LastIndexByte(path, '/')+1:]
}

// wholly masks a payload that is a secret as a whole.
func wholly(raw []byte) []byte {
	if json.Valid(raw) {
		return []byte(`"` + Stars + `"`)
	}
	return []byte(Stars)
}

// maskPayload finds the payload's form by what it is. false: it can't be looked into.
func maskPayload(raw []byte, kind string) ([]byte, bool) {
	if len(raw) == 0 {
		return raw, true
	}
	if strings.Contains(strings.ToLower(kind), "multipart/") {
		raw = maskMultipart(raw)
		if !utf8.Valid(raw) {
			return raw, true // with a file in it
		}
	}
	if !utf8.Valid(raw) {
		if out, ok := maskCBOR(raw); ok {
			return out, true
		}
		// Text in another charset has its names in ASCII all the same.
		return maskBytes(raw), !bytes.HasPrefix(raw, []byte{0x1f, 0x8b}) && !bytes.HasPrefix(raw, []byte("PK\x03\x04"))
	}
	if first := bytes.TrimLeft(raw, " \t\r\n"); len(first) > 0 && (first[0] == '{' || first[0] == '[') {
		if out, ok := maskJSON(raw); ok {
			return []byte(urlSecret.ReplaceAllString(string(out), "${1}"+Stars+"${2}")), true
		}
	}
	return []byte(maskText(string(maskCSV(maskXML(raw))))), true
}

var (
	// quotedPair is a name and its value in text, attributes and headers; pairName the beginning of one without quotes.
	quotedPair = regexp.MustCompile(`([A-Za-z0-9_.%\-\[\]]+)(["']?[ \t]*[=:][ \t]*)(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')`)
	pairName   = regexp.MustCompile(`([A-Za-z0-9_.%\-\[\]]+)(["']?[ \t]*[=:][ \t]*)`)
	scheme     = regexp.MustCompile(`(?i)\b(bearer|basic|digest|negotiate)([ \t]+)[A-Za-z0-9._~+/=\-]{6,}`)
	urlSecret  = regexp.MustCompile(`(://[^\s"/@:]*:)[^\s"/@]+(@)`)
)

// maskText masks pairs of a name and a value.
func maskText(s string) string {
	s = quotedPair.ReplaceAllStringFunc(s, func(p string) string {
		m := quotedPair.FindStringSubmatch(p)
		if !SecretName(unescaped(m[1])) {
			return p
		}
		quote := p[len(p)-1:]
		return m[1] + m[2] + quote + Stars + quote
	})
	s = maskBare(s)
	s = scheme.ReplaceAllString(s, "${1}${2}"+Stars)
	return urlSecret.ReplaceAllString(s, "${1}"+Stars+"${2}")
}

// maskBare masks values without quotes. One lasts until what ends it in a form, or until the line does.
func maskBare(s string) string {
	var out strings.Builder
	at := 0
	for _, m := range pairName.FindAllStringSubmatchIndex(s, -1) {
		value := m[1]
		if m[0] >= at && value < len(s) && (s[value] == '"' || s[value] == '\'') {
			value++ // a quote that is never closed
		}
		if m[0] < at || value == len(s) || strings.IndexByte("&<\r\n", s[value]) >= 0 || !SecretName(unescaped(s[m[2]:m[3]])) || strings.HasPrefix(s[value:], Stars) {
			continue
		}
		out.WriteString(s[at:value])
		out.WriteString(Stars)
		at = len(s)
		if end := strings.IndexAny(s[value:], "&\r\n<"); end >= 0 {
			at = value + end
		}
	}
	return out.String() + s[at:]
}

// maskBytes is maskText for text that is not UTF-8.
func maskBytes(raw []byte) []byte {
	// Latin-1 has each byte for a rune, and back.
	runes := make([]rune, len(raw))
	for i, b := range raw {
		runes[i] = rune(b)
	}
	text := string(runes)
	masked := maskText(string(maskXML([]byte(text))))
	if masked == text {
		return raw
	}
	out := make([]byte, 0, len(raw))
	for _, r := range masked {
		out = append(out, byte(r))
	}
	return out
}

var part = regexp.MustCompile(`(?is)(content-disposition:[^\r\n]*?\bname="?([^"\r\n;]*)"?[^\r\n]*(?:\r?\n[^\r\n]+)*\r?\n\r?\n)(.*?)(\r?\n--)`)

// maskMultipart masks fields of multipart/form-data (RFC 7578).
func maskMultipart(raw []byte) []byte {
	return part.ReplaceAllFunc(raw, func(p []byte) []byte {
		m := part.FindSubmatch(p)
		if !SecretName(string(m[2])) {
			return p
		}
		return bytes.Join([][]byte{m[1], []byte(Stars), m[4]}, nil)
	})
}

var openTag = regexp.MustCompile(`<([A-Za-z_][\w.:\-]*)(?:\s[^<>]*)?>`)

// maskXML masks the content of elements.
func maskXML(raw []byte) []byte {
	if !bytes.Contains(raw, []byte("</")) {
		return raw
	}
	var out []byte
	for {
		m := openTag.FindSubmatchIndex(raw)
		if m == nil {
			break
		}
		name := raw[m[2]:m[3]]
		local := name[bytes.LastIndexByte(name, ':')+1:]
		out = append(out, raw[:m[1]]...)
		rest := raw[m[1]:]
		if SecretName(string(local)) && raw[m[1]-2] != '/' {
			end := bytes.Index(rest, append([]byte("</"), name...))
			if end < 0 {
				end = len(rest)
			}
			if end > 0 {
				out = append(out, Stars...)
			}
			rest = rest[end:]
		}
		raw = rest
	}
	return append(out, raw...)
}

// maskCSV masks columns whose names stand in the first line.
func maskCSV(raw []byte) []byte {
	head, rest, found := bytes.Cut(raw, []byte{'\n'})
	if !found || len(bytes.TrimSpace(rest)) == 0 {
		return raw
	}
	for _, comma := range []rune{';', ',', '\t', '|'} {
		if !bytes.ContainsRune(head, comma) {
			continue
		}
		r := csv.NewReader(bytes.NewReader(raw))
		r.Comma, r.LazyQuotes, r.FieldsPerRecord = comma, true, -1
		rows, err := r.ReadAll()
		if err != nil || len(rows) < 2 {
			continue
		}
		var secret []int
		for i, name := range rows[0] {
			if SecretName(strings.TrimSpace(name)) && !strings.ContainsAny(name, "=:") {
				secret = append(secret, i)
			}
		}
		if len(secret) == 0 {
			continue
		}
		var b bytes.Buffer
		w := csv.NewWriter(&b)
		w.Comma, w.UseCRLF = comma, bytes.HasSuffix(head, []byte{'\r'})
		for n, row := range rows {
			for _, i := range secret {
				if n > 0 && i < len(row) && row[i] != "" {
					row[i] = Stars
				}
			}
			if w.Write(row) != nil {
				return []byte(Stars)
			}
		}
		w.Flush()
		return b.Bytes()
	}
	return raw
}

var cborMode = func() cbor.DecMode {
	mode, err := cbor.DecOptions{MaxNestedLevels: 64, MaxArrayElements: 1 << 17, MaxMapPairs: 1 << 17, TimeTag: cbor.DecTagRequired}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// maskCBOR masks members of maps. false: it is no CBOR with members.
func maskCBOR(raw []byte) ([]byte, bool) {
	if major := raw[0] >> 5; major != 4 && major != 5 && major != 6 {
		return nil, false
	}
	var x any
	if cborMode.Unmarshal(raw, &x) != nil {
		return nil, false
	}
	if !maskItem(x) {
		return raw, true
	}
	out, err := cbor.Marshal(x)
	if err != nil {
		return nil, false
	}
	return out, true
}

func maskItem(x any) (found bool) {
	switch x := x.(type) {
	case []any:
		for _, item := range x {
			found = maskItem(item) || found
		}
	case cbor.Tag:
		return maskItem(x.Content)
	case map[any]any:
		for k, v := range x {
			name, ok := k.(string)
			if ok && SecretName(name) && v != nil {
				x[k], found = Stars, true
				continue
			}
			found = maskItem(v) || found
		}
	}
	return found
}
