package mapping

import (
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

// A message is what expressions are evaluated against: one operation on its way in, or one
// document on its way out. Messages are reused; no value may keep memory of one.
type message struct {
	bind    *Bind
	verb    wrappers.Verb
	wrapper string
	server  string
	who     *wrappers.Who
	body    *wrappers.Payload
	caps    captures // by the bind's slots
	env     Env

	from    flavour      // of the payload
	payload engine.Value // whole, once it is known
	whole   bool
	members []lattice.Member // of a payload that is an object
	object  bool
	scratch [maxFlat]lattice.Member

	self engine.Value // out
	// there tells whether the address is: after an operation, and before what goes out.
	there bool
	row   engine.Value // of a bind with each: the row that is looked at
	name  []byte       // scratch of the register's name
	find  finding
}

var messages = sync.Pool{New: func() any { return new(message) }}

func (m *message) release() {
	name := m.name[:0]
	*m = message{name: name}
	messages.Put(m)
}

// maxFlat bounds the members that the flat reader takes: it compares names with each other.
const maxFlat = 16

// decode reads the payload once.
func (m *message) decode() error {
	b := m.bind
	if b.codec == jsonCodec && m.flat(m.body.Raw) {
		m.object = true
		return nil
	}
	if err := checkSize(m.body.Raw); err != nil {
		return err
	}
	k := b.codec
	if k == autoCodec {
		k = detect(m.body)
		m.from = k.traits().flavour
	}
	v, err := k.decode(m.body, m.instant())
	if err != nil {
		return err
	}
	m.setPayload(v)
	return nil
}

func (m *message) setPayload(v engine.Value) {
	if len(m.bind.listed) > 0 {
		v = m.bind.asLists(v)
	}
	m.payload, m.whole = v, true
	m.object = v.Kind() == lattice.ObjectKind
	m.members = v.Members()
}

// value is the whole payload.
func (m *message) value() engine.Value {
	if !m.whole {
		m.payload = lattice.Object(append([]lattice.Member(nil), m.members...)...)
		m.whole = true
	}
	return m.payload
}

// member is one member of the payload, absent if there is none.
func (m *message) member(name string) engine.Value {
	for i := range m.members {
		if m.members[i].Name == name {
			return m.members[i].Value
		}
	}
	return engine.Value{}
}

// flat reads the commonest payload without building a value of it: one object of at most maxFlat
// members that are numbers, plain strings, booleans or null. It reports false for everything else,
// also for what is wrong, and leaves that to lattice.ParseJSON.
func (m *message) flat(raw []byte) bool {
	if len(raw) > 1024 || !utf8.Valid(raw) {
		return false
	}
	s := string(raw)
	i := skip(s, 0)
	if i >= len(s) || s[i] != '{' {
		return false
	}
	n := 0
	for i = skip(s, i+1); ; i = skip(s, i+1) {
		name, end, ok := plainString(s, i)
		if !ok || n == maxFlat {
			return false
		}
		for k := range n {
			if m.scratch[k].Name == name {
				return false
			}
		}
		if i = skip(s, end); i >= len(s) || s[i] != ':' {
			return false
		}
		if i = skip(s, i+1); i >= len(s) {
			return false
		}
		var v engine.Value
		switch c := s[i]; {
		case c == '"':
			text, end, ok := plainString(s, i)
			if !ok {
				return false
			}
			v, i = lattice.String(text), end
		case c == '-' || c >= '0' && c <= '9':
			end := i + 1
			for end < len(s) && strings.IndexByte("+-.eE", s[end]) >= 0 || end < len(s) && s[end] >= '0' && s[end] <= '9' {
				end++
			}
			num, err := lattice.ParseNumber(s[i:end])
			if err != nil {
				return false
			}
			v, i = num, end
		case strings.HasPrefix(s[i:], "true"):
			v, i = lattice.Bool(true), i+4
		case strings.HasPrefix(s[i:], "false"):
			v, i = lattice.Bool(false), i+5
		case strings.HasPrefix(s[i:], "null"):
			v, i = lattice.Null(), i+4
		default:
			return false
		}
		m.scratch[n] = lattice.Member{Name: name, Value: v}
		n++
		if i = skip(s, i); i >= len(s) {
			return false
		}
		if s[i] == ',' {
			continue
		}
		if s[i] != '}' || skip(s, i+1) != len(s) {
			return false
		}
		m.members = m.scratch[:n]
		return true
	}
}

func skip(s string, i int) int {
	for i < len(s) && (s[i] == ' ' || s[i] == '\n' || s[i] == '\t' || s[i] == '\r') {
		i++
	}
	return i
}

// plainString reads a string without escapes that begins at i.
func plainString(s string, i int) (text string, end int, ok bool) {
	if i >= len(s) || s[i] != '"' {
		return "", 0, false
	}
	for j := i + 1; j < len(s); j++ {
		switch c := s[j]; {
		case c == '"':
			return s[i+1 : j], j + 1, true
		case c == '\\' || c < 0x20:
			return "", 0, false
		}
	}
	return "", 0, false
}

func (m *message) now() engine.Value { return timeValue(m.instant()) }

func (m *message) instant() time.Time {
	if m.env.Now.IsZero() {
		return time.Unix(0, 0)
	}
	return m.env.Now
}

// rawValue is a payload as it came: text if it is that.
func rawValue(raw []byte) engine.Value {
	if utf8.Valid(raw) {
		return lattice.String(string(raw))
	}
	return lattice.Bytes(raw)
}
