package virtual

import (
	"crypto/sha1"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// A record is one entry at one moment. It does not change.
type record struct {
	name     dn.DN
	text     string // name, as text
	key      string // name, in its normal form
	address  string // "": no register makes it, it is there because something is below it
	attrs    []attribute
	classes  [][]byte // object classes with all their superclasses, as filters see them (RFC 4512, section 3.3)
	uuid     [16]byte
	version  wrappers.Version
	modified time.Time // zero: unknown
	created  time.Time
	seq      uint64 // of the change in this process
	node     *node
}

// An attribute is one attribute description with its values.
type attribute struct {
	typ     *schema.AttributeType
	options []string
	name    string // the description as clients see it
	values  [][]byte
}

// attribute gives the values of a type without options; nil if there are none.
func (r *record) attribute(t *schema.AttributeType) [][]byte {
	for i := range r.attrs {
		if a := &r.attrs[i]; a.typ == t && len(a.options) == 0 {
			return a.values
		}
	}
	return nil
}

func (r *record) objectClasses() []string {
	for i := range r.attrs {
		if a := &r.attrs[i]; a.typ.OID == oidObjectClass {
			return texts(a.values)
		}
	}
	return nil
}

// expand gives an entry the superclasses of its object classes.
func (s *server) expand(r *record) *record {
	names := r.objectClasses()
	all, _, err := s.types().Classes(names)
	if err != nil { // one of them is not known here
		return r
	}
	for _, n := range names {
		r.classes = append(r.classes, []byte(n))
	}
	for _, c := range all {
		if !slices.ContainsFunc(names, func(n string) bool { return s.types().Class(n) == c }) {
			r.classes = append(r.classes, []byte(c.Name()))
		}
	}
	return r
}

const oidObjectClass = "2.5.4.0"

func texts(values [][]byte) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

// attributes makes the attributes of an entry of what a register's payload has: those that it lacks are those of its name,
// and object classes that fit these where the mapping gives none.
func (s *server) attributes(name dn.DN, list []ldapwire.PartialAttribute) []attribute {
	attrs := make([]attribute, 0, len(list)+2)
	for i := range list {
		if len(list[i].Vals) == 0 {
			continue
		}
		if a, ok := s.attributeOf(list[i].Type, list[i].Vals); ok {
			attrs = append(attrs, a)
		}
	}
	for _, ava := range name[0] {
		attrs = s.withValue(attrs, ava)
	}
	i := slices.IndexFunc(attrs, func(a attribute) bool { return a.typ.OID == oidObjectClass })
	if i < 0 {
		a, _ := s.attributeOf("objectClass", classesFor(name, true))
		return append([]attribute{a}, attrs...)
	}
	a := attrs[i]
	copy(attrs[1:i+1], attrs[:i])
	attrs[0] = a
	return attrs
}

// attributeOf gives values their type; types that no schema has are made. False: that is no name of an attribute.
func (s *server) attributeOf(description string, values [][]byte) (attribute, bool) {
	base, options := schema.SplitOptions(description)
	t := s.types().Attribute(base)
	if t == nil {
		if t = s.localType(base); t == nil {
			return attribute{}, false
		}
	}
	name := t.Name()
	if base != name && slices.ContainsFunc(t.Names, func(n string) bool { return n == base }) {
		name = base
	}
	if options != nil {
		name += ";" + strings.Join(options, ";")
	}
	return attribute{typ: t, options: options, name: name, values: values}, true
}

// withValue adds a value of the entry's name where it is not among the values yet (RFC 4512, section 2.3).
func (s *server) withValue(attrs []attribute, ava dn.AVA) []attribute {
	a, ok := s.attributeOf(ava.Type, [][]byte{[]byte(ava.Value)})
	if !ok {
		return attrs
	}
	for i := range attrs {
		if attrs[i].typ == a.typ && len(attrs[i].options) == 0 {
			if s.indexOf(a.typ, attrs[i].values, a.values[0]) < 0 {
				attrs[i].values = append(slices.Clip(attrs[i].values), a.values[0])
			}
			return attrs
		}
	}
	return append(attrs, a)
}

// indexOf finds a value by the type's equality rule; -1: it is not there.
func (s *server) indexOf(t *schema.AttributeType, values [][]byte, v []byte) int {
	rule := t.EqualityRule()
	if rule == nil {
		return slices.IndexFunc(values, func(o []byte) bool { return string(o) == string(v) })
	}
	key, ok := rule.Key(s.types(), v)
	return slices.IndexFunc(values, func(o []byte) bool {
		if string(o) == string(v) {
			return true
		}
		k, good := rule.Key(s.types(), o)
		return ok && good && k == key
	})
}

// classesFor are the object classes of an entry that nothing else gives any: by the attribute that names it. entry: of a
// register, which may have any attribute.
func classesFor(name dn.DN, entry bool) [][]byte {
	out := [][]byte{[]byte("top")}
	if len(name) > 0 && len(name[0]) > 0 {
		switch strings.ToLower(name[0][0].Type) {
		case "dc":
			out = append(out, []byte("domain"))
		case "ou":
			out = append(out, []byte("organizationalUnit"))
		case "o":
			out = append(out, []byte("organization"))
		case "c":
			out = append(out, []byte("country"))
		case "l", "st", "street":
			out = append(out, []byte("locality"))
		case "uid":
			out = append(out, []byte("account"))
		case "cn":
			if entry {
				out = append(out, []byte("device"))
			} else {
				out = append(out, []byte("applicationProcess"))
			}
		default:
			entry = true
		}
	}
	if entry {
		out = append(out, []byte("extensibleObject"))
	}
	return out
}

// uuidNamespace is what names are hashed with for entryUUID (RFC 9562, section 5.5).
var uuidNamespace = [16]byte{0x6b, 0xa7, 0xb8, 0x14, 0x9d, 0xad, 0x11, 0xd1, 0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8} // of X.500 names

func uuidOf(key string) (u [16]byte) {
	h := sha1.New()
	h.Write(uuidNamespace[:])
	h.Write([]byte(key))
	copy(u[:], h.Sum(nil))
	u[6], u[8] = u[6]&0x0f|0x50, u[8]&0x3f|0x80
	return u
}

func uuidText(u [16]byte) string {
	var b [36]byte
	hex.Encode(b[:8], u[:4])
	hex.Encode(b[9:13], u[4:6])
	hex.Encode(b[14:18], u[6:8])
	hex.Encode(b[19:23], u[8:10])
	hex.Encode(b[24:], u[10:])
	b[8], b[13], b[18], b[23] = '-', '-', '-', '-'
	return string(b[:])
}

const stampForm = "20060102150405Z"

// csn is a change sequence number as OpenLDAP writes it: time, count, server, count.
func csn(at time.Time, seq uint64) string {
	n := strconv.FormatUint(seq&0xffffff, 16)
	return at.UTC().Format("20060102150405.000000Z") + "#" + strings.Repeat("0", 6-len(n)) + n + "#000#000000"
}

// An operational attribute is computed when it is asked for.
type operational struct {
	typ *schema.AttributeType
	of  func(s *server, r *record) [][]byte
}

func one(v string) [][]byte { return [][]byte{[]byte(v)} }

// operationals are what "+" gives, in this order.
var operationals = func() []operational {
	find := func(name string, of func(s *server, r *record) [][]byte) operational {
		return operational{schema.Default().Attribute(name), of}
	}
	return []operational{
		find("structuralObjectClass", func(s *server, r *record) [][]byte {
			_, c, err := s.types().Classes(r.objectClasses())
			if err != nil || c == nil {
				return nil
			}
			return one(c.Name())
		}),
		find("entryUUID", func(_ *server, r *record) [][]byte { return one(uuidText(r.uuid)) }),
		find("createTimestamp", func(_ *server, r *record) [][]byte { return one(r.created.UTC().Format(stampForm)) }),
		find("modifyTimestamp", func(_ *server, r *record) [][]byte { return one(r.modified.UTC().Format(stampForm)) }),
		find("entryCSN", func(_ *server, r *record) [][]byte { return one(csn(r.modified, r.seq)) }),
		find("entryDN", func(_ *server, r *record) [][]byte { return one(r.text) }),
		find("subschemaSubentry", func(*server, *record) [][]byte { return one(subschemaName) }),
		find("hasSubordinates", func(_ *server, r *record) [][]byte {
			if r.node.kids.Load() > 0 {
				return one("TRUE")
			}
			return one("FALSE")
		}),
		find("numSubordinates", func(_ *server, r *record) [][]byte { return one(strconv.Itoa(int(r.node.kids.Load()))) }),
		find("memberOf", func(s *server, r *record) [][]byte { return s.tree.memberOf(r) }),
	}
}()

// A view is a record as a filter sees it.
type view struct {
	*record
	s *server
}

// Each implements filter.Entry.
func (v view) Each(t *schema.AttributeType, options []string, yield func(*schema.AttributeType, [][]byte) bool) {
	for i := range v.attrs {
		a := &v.attrs[i]
		if t != nil && !a.typ.Is(t) || options != nil && !schema.HasOptions(a.options, options) {
			continue
		}
		values := a.values
		if a.typ.OID == oidObjectClass && v.classes != nil {
			values = v.classes
		}
		if !yield(a.typ, values) {
			return
		}
	}
	if t != nil && !t.Operational() || options != nil {
		return
	}
	for i := range operationals {
		if o := &operationals[i]; t == nil || o.typ == t {
			if values := o.of(v.s, v.record); len(values) > 0 && !yield(o.typ, values) {
				return
			}
		}
	}
}

// EachRDN implements filter.Entry.
func (v view) EachRDN(yield func(*schema.AttributeType, []byte) bool) {
	for _, rdn := range v.name {
		for _, a := range rdn {
			if t := v.s.types().Attribute(a.Type); t != nil && !yield(t, []byte(a.Value)) {
				return
			}
		}
	}
}
