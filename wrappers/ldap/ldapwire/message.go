package ldapwire

import "strconv"

// An Op is the identifier octet of an operation (RFC 4511, section 4.2 and following).
type Op byte

// Operations, with "constructed" where they are.
const (
	OpBindRequest           Op = 0x60
	OpBindResponse          Op = 0x61
	OpUnbindRequest         Op = 0x42
	OpSearchRequest         Op = 0x63
	OpSearchResultEntry     Op = 0x64
	OpSearchResultDone      Op = 0x65
	OpSearchResultReference Op = 0x73
	OpModifyRequest         Op = 0x66
	OpModifyResponse        Op = 0x67
	OpAddRequest            Op = 0x68
	OpAddResponse           Op = 0x69
	OpDelRequest            Op = 0x4a
	OpDelResponse           Op = 0x6b
	OpModifyDNRequest       Op = 0x6c
	OpModifyDNResponse      Op = 0x6d
	OpCompareRequest        Op = 0x6e
	OpCompareResponse       Op = 0x6f
	OpAbandonRequest        Op = 0x50
	OpExtendedRequest       Op = 0x77
	OpExtendedResponse      Op = 0x78
	OpIntermediateResponse  Op = 0x79
)

var opNames = map[Op]string{
	OpBindRequest: "bind", OpBindResponse: "bindResponse", OpUnbindRequest: "unbind", OpSearchRequest: "search",
	OpSearchResultEntry: "searchResEntry", OpSearchResultDone: "searchResDone", OpSearchResultReference: "searchResRef",
	OpModifyRequest: "modify", OpModifyResponse: "modifyResponse", OpAddRequest: "add", OpAddResponse: "addResponse",
	OpDelRequest: "delete", OpDelResponse: "delResponse", OpModifyDNRequest: "modifyDN", OpModifyDNResponse: "modDNResponse",
	OpCompareRequest: "compare", OpCompareResponse: "compareResponse", OpAbandonRequest: "abandon",
	OpExtendedRequest: "extended", OpExtendedResponse: "extendedResp", OpIntermediateResponse: "intermediateResponse",
}

// String gives the name that RFC 4511 has for it.
func (o Op) String() string {
	if n, ok := opNames[o]; ok {
		return n
	}
	return "operation 0x" + strconv.FormatUint(uint64(o), 16)
}

// Response tells which operation ends the answer to a request; 0: it has none.
func (o Op) Response() Op {
	switch o {
	case OpBindRequest:
		return OpBindResponse
	case OpSearchRequest:
		return OpSearchResultDone
	case OpModifyRequest:
		return OpModifyResponse
	case OpAddRequest:
		return OpAddResponse
	case OpDelRequest:
		return OpDelResponse
	case OpModifyDNRequest:
		return OpModifyDNResponse
	case OpCompareRequest:
		return OpCompareResponse
	case OpExtendedRequest:
		return OpExtendedResponse
	}
	return 0
}

// Result tells whether it ends the answer to a request.
func (o Op) Result() bool {
	switch o {
	case OpBindResponse, OpSearchResultDone, OpModifyResponse, OpAddResponse, OpDelResponse, OpModifyDNResponse, OpCompareResponse, OpExtendedResponse:
		return true
	}
	return false
}

// Request tells whether it is one of those that clients send.
func (o Op) Request() bool {
	return o.Response() != 0 || o == OpUnbindRequest || o == OpAbandonRequest
}

// A Message is one LDAPMessage (RFC 4511, section 4.1.1). Body is one of the types of this package
// that are named as the operations are, as a pointer: *BindRequest, *SearchResultEntry, ….
type Message struct {
	MessageID int32 // 0: an unsolicited notification
	Body      Body
	Controls  []Control
}

// A Body is an operation of a message.
type Body interface {
	Op() Op
	decode(contents []byte) error
	append(b []byte) []byte // the contents
}

// A Control is an extension of one message (RFC 4511, section 4.1.11).
type Control struct {
	Type        string // OID
	Criticality bool
	Value       []byte // nil: there is none
}

// FindControl gives the control of that type, nil if there is none.
func FindControl(list []Control, oid string) *Control {
	for i := range list {
		if list[i].Type == oid {
			return &list[i]
		}
	}
	return nil
}

// newBody makes what an operation is decoded into.
func newBody(o Op) Body {
	switch o {
	case OpBindRequest:
		return new(BindRequest)
	case OpBindResponse:
		return new(BindResponse)
	case OpUnbindRequest:
		return new(UnbindRequest)
	case OpSearchRequest:
		return new(SearchRequest)
	case OpSearchResultEntry:
		return new(SearchResultEntry)
	case OpSearchResultDone:
		return new(SearchResultDone)
	case OpSearchResultReference:
		return new(SearchResultReference)
	case OpModifyRequest:
		return new(ModifyRequest)
	case OpModifyResponse:
		return new(ModifyResponse)
	case OpAddRequest:
		return new(AddRequest)
	case OpAddResponse:
		return new(AddResponse)
	case OpDelRequest:
		return new(DelRequest)
	case OpDelResponse:
		return new(DelResponse)
	case OpModifyDNRequest:
		return new(ModifyDNRequest)
	case OpModifyDNResponse:
		return new(ModifyDNResponse)
	case OpCompareRequest:
		return new(CompareRequest)
	case OpCompareResponse:
		return new(CompareResponse)
	case OpAbandonRequest:
		return new(AbandonRequest)
	case OpExtendedRequest:
		return new(ExtendedRequest)
	case OpExtendedResponse:
		return new(ExtendedResponse)
	case OpIntermediateResponse:
		return new(IntermediateResponse)
	}
	return nil
}

// Decode reads one whole message, of exactly these bytes. The Message shares their memory. The error
// is an ErrMalformed.
func Decode(b []byte) (*Message, error) {
	f, ok, err := ReadFrame(b)
	if err != nil {
		return nil, err
	}
	if !ok || f.Size > int64(len(b)) {
		return nil, errShort
	}
	if f.Size < int64(len(b)) {
		return nil, malformed("%d bytes behind the message", int64(len(b))-f.Size)
	}
	m := &Message{MessageID: f.MessageID, Body: newBody(f.Op)}
	if m.Body == nil {
		return nil, malformed("an unknown %s", f.Op)
	}
	end := f.Body + int(f.BodySize)
	if err := m.Body.decode(b[f.Body:end:end]); err != nil {
		return nil, err
	}
	if f.HasControls {
		m.Controls, err = decodeControls(b[end:])
	}
	return m, err
}

// DecodeBody reads the operation of a message whose head ReadFrame has read, into body, which must
// be of the frame's Op.
func (f *Frame) DecodeBody(b []byte, body Body) error {
	if body.Op() != f.Op {
		return malformed("%s instead of %s", f.Op, body.Op())
	}
	end := f.Body + int(f.BodySize)
	if end > len(b) {
		return errShort
	}
	return body.decode(b[f.Body:end:end])
}

// DecodeControls reads the controls of a whole message whose head ReadFrame has read.
func (f *Frame) DecodeControls(b []byte) ([]Control, error) {
	if !f.HasControls {
		return nil, nil
	}
	if int64(len(b)) < f.Size {
		return nil, errShort
	}
	return decodeControls(b[f.Body+int(f.BodySize) : f.Size])
}

func decodeControls(b []byte) ([]Control, error) {
	r := reader{b}
	c, there, err := r.maybe(context | constructed)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, nil // of a later version of LDAP, to be ignored (section 4)
	}
	var out []Control
	for in := (reader{c}); !in.empty(); {
		one, err := in.sequence("a control")
		if err != nil {
			return nil, err
		}
		var k Control
		if k.Type, err = one.text("a control's type"); err != nil {
			return nil, err
		}
		if one.peek() == tagBoolean {
			if k.Criticality, err = one.bool("a control's criticality"); err != nil {
				return nil, err
			}
		}
		if one.peek() == tagOctetString && !one.empty() {
			if k.Value, err = one.bytes("a control's value"); err != nil {
				return nil, err
			}
		}
		out = append(out, k)
	}
	return out, nil
}

// Append appends the message as bytes.
func (m *Message) Append(b []byte) []byte {
	return nest(b, tagSequence, func(b []byte) []byte {
		b = appendInt(b, tagInteger, int64(m.MessageID))
		b = nest(b, byte(m.Body.Op()), m.Body.append)
		return appendControls(b, m.Controls)
	})
}

// Encode gives the message as bytes.
func (m *Message) Encode() []byte { return m.Append(nil) }

func appendControls(b []byte, list []Control) []byte {
	if len(list) == 0 {
		return b
	}
	return nest(b, context|constructed, func(b []byte) []byte {
		for i := range list {
			c := &list[i]
			b = nest(b, tagSequence, func(b []byte) []byte {
				b = appendString(b, tagOctetString, c.Type)
				if c.Criticality {
					b = appendBool(b, tagBoolean, true)
				}
				if c.Value != nil {
					b = AppendTLV(b, tagOctetString, c.Value)
				}
				return b
			})
		}
		return b
	})
}
