package recording

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"strings"
)

// maxDeep is how deep a payload is looked into.
const maxDeep = 200

// A member is one of a JSON object: where its value stands.
type member struct {
	name       string
	text       string // of a value that is a string
	start, end int64
	null       bool
}

// maskJSON masks members and leaves every other byte as it is. false: it is not JSON, or too deep.
func maskJSON(raw []byte) ([]byte, bool) {
	j := &jsonMask{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	j.dec.UseNumber()
	for {
		_, err := j.value(0)
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, false
		}
	}
	var out []byte
	at := int64(0)
	for _, s := range j.secrets {
		if s[0] < at { // within one that was masked whole
			continue
		}
		out = append(out, raw[at:s[0]]...)
		out = append(out, `"`+Stars+`"`...)
		at = s[1]
	}
	return append(out, raw[at:]...), true
}

type jsonMask struct {
	raw     []byte
	dec     *json.Decoder
	secrets [][2]int64
}

// value reads one value; the result has its text and where it stands.
func (j *jsonMask) value(depth int) (member, error) {
	if depth > maxDeep {
		return member{}, io.ErrShortBuffer
	}
	m := member{start: j.dec.InputOffset()}
	for m.start < int64(len(j.raw)) && strings.IndexByte(" \t\r\n:,", j.raw[m.start]) >= 0 {
		m.start++
	}
	t, err := j.dec.Token()
	if err != nil {
		return m, err
	}
	switch t := t.(type) {
	case nil:
		m.null = true
	case string:
		m.text = t
	case json.Delim:
		if t == '{' {
			err = j.object(depth)
		} else {
			for err == nil && j.dec.More() {
				_, err = j.value(depth + 1)
			}
		}
		if err == nil {
			_, err = j.dec.Token()
		}
	}
	m.end = j.dec.InputOffset()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

// named and holding are members of a pair that stand for one: {"name":"password","value":"…"}, and of SenML (RFC 8428).
var (
	named   = map[string]bool{"name": true, "key": true, "field": true, "n": true}
	holding = map[string]bool{"value": true, "v": true, "vs": true, "vd": true}
)

func (j *jsonMask) object(depth int) error {
	mark := len(j.secrets)
	var all []member
	about := false
	for j.dec.More() {
		k, err := j.dec.Token()
		if err != nil {
			return err
		}
		name, _ := k.(string)
		within := len(j.secrets)
		m, err := j.value(depth + 1)
		if err != nil {
			return err
		}
		m.name = name
		if SecretName(name) && !m.null {
			j.secrets = append(j.secrets[:within], [2]int64{m.start, m.end})
		}
		lower := strings.ToLower(name)
		about = about || named[lower] && SecretName(m.text)
		if holding[lower] {
			if all = append(all, m); len(all) > 2*len(holding) {
				return io.ErrShortBuffer // one object with a name many times
			}
		}
	}
	if about {
		kept := j.secrets[:mark:mark]
		for _, s := range j.secrets[mark:] {
			inside := false
			for _, m := range all {
				inside = inside || s[0] >= m.start && s[1] <= m.end
			}
			if !inside {
				kept = append(kept, s)
			}
		}
		for _, m := range all {
			if !m.null {
				kept = append(kept, [2]int64{m.start, m.end})
			}
		}
		slices.SortFunc(kept, func(a, b [2]int64) int { return cmp.Compare(a[0], b[0]) })
		j.secrets = kept
	}
	return nil
}
