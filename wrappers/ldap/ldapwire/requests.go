package ldapwire

// Authentication choices of a bind (RFC 4511, section 4.2).
type SaslCredentials struct {
	Mechanism   string
	Credentials []byte // nil: there are none
}

// BindRequest is a logon. SASL is nil for a simple bind.
type BindRequest struct {
	Version int64
	Name    string // DN
	Simple  []byte // password
	SASL    *SaslCredentials
}

func (*BindRequest) Op() Op { return OpBindRequest }

func (q *BindRequest) decode(c []byte) (err error) {
	r := reader{c}
	if q.Version, err = r.int("the version"); err != nil {
		return err
	}
	if q.Name, err = r.text("the name"); err != nil {
		return err
	}
	tag, a, err := r.next()
	if err != nil {
		return err
	}
	switch tag {
	case context:
		q.Simple = a
	case context | constructed | 3:
		in := reader{a}
		q.SASL = &SaslCredentials{}
		if q.SASL.Mechanism, err = in.text("the mechanism"); err != nil {
			return err
		}
		if !in.empty() {
			q.SASL.Credentials, err = in.bytes("the credentials")
		}
		return err
	default:
		return malformed("an authentication choice of the tag %#x", tag)
	}
	return nil
}

func (q *BindRequest) append(b []byte) []byte {
	b = appendInt(b, tagInteger, q.Version)
	b = appendString(b, tagOctetString, q.Name)
	if q.SASL == nil {
		return AppendTLV(b, context, q.Simple)
	}
	return nest(b, context|constructed|3, func(b []byte) []byte {
		b = appendString(b, tagOctetString, q.SASL.Mechanism)
		if q.SASL.Credentials != nil {
			b = AppendTLV(b, tagOctetString, q.SASL.Credentials)
		}
		return b
	})
}

// UnbindRequest is the end of a session (RFC 4511, section 4.3).
type UnbindRequest struct{}

func (*UnbindRequest) Op() Op                 { return OpUnbindRequest }
func (*UnbindRequest) decode([]byte) error    { return nil }
func (*UnbindRequest) append(b []byte) []byte { return b }

// A PartialAttribute is an attribute with any number of values, none among them.
type PartialAttribute struct {
	Type string // an attribute description: "cn", "cn;lang-de", "2.5.4.3"
	Vals [][]byte
}

func readAttribute(r *reader) (a PartialAttribute, err error) {
	one, err := r.sequence("an attribute")
	if err != nil {
		return a, err
	}
	if a.Type, err = one.text("an attribute's type"); err != nil {
		return a, err
	}
	vals, err := one.set("an attribute's values")
	if err != nil {
		return a, err
	}
	for !vals.empty() {
		v, err := vals.bytes("a value")
		if err != nil {
			return a, err
		}
		a.Vals = append(a.Vals, v)
	}
	return a, nil
}

func (a *PartialAttribute) append(b []byte) []byte {
	return nest(b, tagSequence, func(b []byte) []byte {
		b = appendString(b, tagOctetString, a.Type)
		return nest(b, tagSet, func(b []byte) []byte {
			for _, v := range a.Vals {
				b = AppendTLV(b, tagOctetString, v)
			}
			return b
		})
	})
}

// A ModifyOperation says what becomes of an attribute's values (RFC 4511, section 4.6; increment: RFC 4525).
type ModifyOperation int64

const (
	ModifyAdd       ModifyOperation = 0
	ModifyDelete    ModifyOperation = 1
	ModifyReplace   ModifyOperation = 2
	ModifyIncrement ModifyOperation = 3
)

// A Change is one modification of a ModifyRequest.
type Change struct {
	Operation    ModifyOperation
	Modification PartialAttribute
}

// ModifyRequest changes an entry (RFC 4511, section 4.6): all of the changes, in order, or none.
type ModifyRequest struct {
	Object  string
	Changes []Change
}

func (*ModifyRequest) Op() Op { return OpModifyRequest }

func (q *ModifyRequest) decode(c []byte) (err error) {
	r := reader{c}
	if q.Object, err = r.text("the object"); err != nil {
		return err
	}
	list, err := r.sequence("the changes")
	if err != nil {
		return err
	}
	for !list.empty() {
		one, err := list.sequence("a change")
		if err != nil {
			return err
		}
		op, err := one.enum("a change's operation")
		if err != nil {
			return err
		}
		a, err := readAttribute(&one)
		if err != nil {
			return err
		}
		q.Changes = append(q.Changes, Change{ModifyOperation(op), a})
	}
	return nil
}

func (q *ModifyRequest) append(b []byte) []byte {
	b = appendString(b, tagOctetString, q.Object)
	return nest(b, tagSequence, func(b []byte) []byte {
		for i := range q.Changes {
			c := &q.Changes[i]
			b = nest(b, tagSequence, func(b []byte) []byte {
				b = appendInt(b, tagEnumerated, int64(c.Operation))
				return c.Modification.append(b)
			})
		}
		return b
	})
}

// AddRequest makes an entry (RFC 4511, section 4.7).
type AddRequest struct {
	Entry      string
	Attributes []PartialAttribute
}

func (*AddRequest) Op() Op { return OpAddRequest }

func (q *AddRequest) decode(c []byte) (err error) {
	q.Entry, q.Attributes, err = readEntry(c)
	return err
}

func (q *AddRequest) append(b []byte) []byte { return appendEntry(b, q.Entry, q.Attributes) }

func readEntry(c []byte) (name string, attributes []PartialAttribute, err error) {
	r := reader{c}
	if name, err = r.text("the entry's name"); err != nil {
		return "", nil, err
	}
	list, err := r.sequence("the attributes")
	if err != nil {
		return "", nil, err
	}
	for !list.empty() {
		a, err := readAttribute(&list)
		if err != nil {
			return "", nil, err
		}
		attributes = append(attributes, a)
	}
	return name, attributes, nil
}

func appendEntry(b []byte, name string, attributes []PartialAttribute) []byte {
	b = appendString(b, tagOctetString, name)
	return nest(b, tagSequence, func(b []byte) []byte {
		for i := range attributes {
			b = attributes[i].append(b)
		}
		return b
	})
}

// DelRequest deletes an entry (RFC 4511, section 4.8).
type DelRequest struct{ Entry string }

func (*DelRequest) Op() Op                   { return OpDelRequest }
func (q *DelRequest) decode(c []byte) error  { q.Entry = string(c); return nil }
func (q *DelRequest) append(b []byte) []byte { return append(b, q.Entry...) }

// ModifyDNRequest renames or moves an entry with all below it (RFC 4511, section 4.9).
type ModifyDNRequest struct {
	Entry        string
	NewRDN       string
	DeleteOldRDN bool
	NewSuperior  *string // nil: it stays below its parent
}

func (*ModifyDNRequest) Op() Op { return OpModifyDNRequest }

func (q *ModifyDNRequest) decode(c []byte) (err error) {
	r := reader{c}
	if q.Entry, err = r.text("the entry"); err != nil {
		return err
	}
	if q.NewRDN, err = r.text("the new RDN"); err != nil {
		return err
	}
	if q.DeleteOldRDN, err = r.bool("deleteoldrdn"); err != nil {
		return err
	}
	sup, there, err := r.maybe(context)
	if there {
		s := string(sup)
		q.NewSuperior = &s
	}
	return err
}

func (q *ModifyDNRequest) append(b []byte) []byte {
	b = appendString(b, tagOctetString, q.Entry)
	b = appendString(b, tagOctetString, q.NewRDN)
	b = appendBool(b, tagBoolean, q.DeleteOldRDN)
	if q.NewSuperior != nil {
		b = appendString(b, context, *q.NewSuperior)
	}
	return b
}

// CompareRequest asks whether an entry has a value (RFC 4511, section 4.10).
type CompareRequest struct {
	Entry     string
	Attribute string
	Assertion []byte
}

func (*CompareRequest) Op() Op { return OpCompareRequest }

func (q *CompareRequest) decode(c []byte) (err error) {
	r := reader{c}
	if q.Entry, err = r.text("the entry"); err != nil {
		return err
	}
	ava, err := r.sequence("the assertion")
	if err != nil {
		return err
	}
	if q.Attribute, err = ava.text("the attribute"); err != nil {
		return err
	}
	q.Assertion, err = ava.bytes("the asserted value")
	return err
}

func (q *CompareRequest) append(b []byte) []byte {
	b = appendString(b, tagOctetString, q.Entry)
	return nest(b, tagSequence, func(b []byte) []byte {
		b = appendString(b, tagOctetString, q.Attribute)
		return AppendTLV(b, tagOctetString, q.Assertion)
	})
}

// AbandonRequest gives up a request without an answer (RFC 4511, section 4.11).
type AbandonRequest struct{ MessageID int32 }

func (*AbandonRequest) Op() Op { return OpAbandonRequest }

func (q *AbandonRequest) decode(c []byte) error {
	v, err := integer(c, "the message ID to abandon")
	if err == nil && (v < 0 || v > MaxMessageID) {
		err = malformed("the message ID %d", v)
	}
	q.MessageID = int32(v)
	return err
}

func (q *AbandonRequest) append(b []byte) []byte {
	return append(b, appendInt(nil, tagInteger, int64(q.MessageID))[2:]...)
}

// ExtendedRequest is an operation that is named by an OID (RFC 4511, section 4.12).
type ExtendedRequest struct {
	Name  string // OID
	Value []byte // nil: there is none
}

func (*ExtendedRequest) Op() Op { return OpExtendedRequest }

func (q *ExtendedRequest) decode(c []byte) error {
	r := reader{c}
	name, err := r.take(context, "the request's name")
	if err != nil {
		return err
	}
	q.Name = string(name)
	q.Value, _, err = r.maybe(context | 1)
	return err
}

func (q *ExtendedRequest) append(b []byte) []byte {
	b = appendString(b, context, q.Name)
	if q.Value != nil {
		b = AppendTLV(b, context|1, q.Value)
	}
	return b
}
