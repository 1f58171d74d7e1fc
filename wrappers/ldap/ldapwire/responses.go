package ldapwire

// LDAPResult is how an operation ended (RFC 4511, section 4.1.9).
type LDAPResult struct {
	ResultCode        ResultCode
	MatchedDN         string
	DiagnosticMessage string
	Referral          []string // URIs; nil: there is none
}

func (q *LDAPResult) read(r *reader) error {
	code, err := r.enum("the result code")
	if err != nil {
		return err
	}
	q.ResultCode = ResultCode(code)
	if q.MatchedDN, err = r.text("the matched DN"); err != nil {
		return err
	}
	if q.DiagnosticMessage, err = r.text("the diagnostic message"); err != nil {
		return err
	}
	refs, there, err := r.maybe(context | constructed | 3)
	if err != nil || !there {
		return err
	}
	q.Referral, err = readURIs(refs)
	return err
}

func readURIs(c []byte) (out []string, err error) {
	for r := (reader{c}); !r.empty(); {
		u, err := r.text("a URI")
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func (q *LDAPResult) append(b []byte) []byte {
	b = appendInt(b, tagEnumerated, int64(q.ResultCode))
	b = appendString(b, tagOctetString, q.MatchedDN)
	b = appendString(b, tagOctetString, q.DiagnosticMessage)
	if q.Referral != nil {
		b = nest(b, context|constructed|3, func(b []byte) []byte {
			for _, u := range q.Referral {
				b = appendString(b, tagOctetString, u)
			}
			return b
		})
	}
	return b
}

func (q *LDAPResult) decode(c []byte) error { return q.read(&reader{c}) }

// Result gives the LDAPResult of a response.
func (q *LDAPResult) Result() *LDAPResult { return q }

// A Response is a Body with an LDAPResult: what ends the answer to a request.
type Response interface {
	Body
	Result() *LDAPResult
}

// ReadResult reads the result of a response whose head ReadFrame has read, of any operation that has one.
func (f *Frame) ReadResult(b []byte) (LDAPResult, error) {
	var q LDAPResult
	end := f.Body + int(f.BodySize)
	if end > len(b) {
		return q, errShort
	}
	return q, q.decode(b[f.Body:end:end])
}

// ResultCodeOf reads no more than the result code, and allocates nothing.
func (f *Frame) ResultCodeOf(b []byte) (ResultCode, error) {
	end := f.Body + int(f.BodySize)
	if end > len(b) {
		return 0, errShort
	}
	r := reader{b[f.Body:end:end]}
	code, err := r.enum("the result code")
	return ResultCode(code), err
}

// NewResponse makes the response that ends the answer to a request, nil for what has none.
func NewResponse(request Op) Response {
	b, _ := newBody(request.Response()).(Response)
	return b
}

// BindResponse answers a BindRequest (RFC 4511, section 4.2.2).
type BindResponse struct {
	LDAPResult
	ServerSaslCreds []byte // nil: there are none
}

func (*BindResponse) Op() Op { return OpBindResponse }

func (q *BindResponse) decode(c []byte) error {
	r := reader{c}
	if err := q.read(&r); err != nil {
		return err
	}
	var err error
	q.ServerSaslCreds, _, err = r.maybe(context | 7)
	return err
}

func (q *BindResponse) append(b []byte) []byte {
	b = q.LDAPResult.append(b)
	if q.ServerSaslCreds != nil {
		b = AppendTLV(b, context|7, q.ServerSaslCreds)
	}
	return b
}

// SearchResultEntry is one entry that was found (RFC 4511, section 4.5.2).
type SearchResultEntry struct {
	ObjectName string
	Attributes []PartialAttribute
}

func (*SearchResultEntry) Op() Op { return OpSearchResultEntry }

func (q *SearchResultEntry) decode(c []byte) (err error) {
	q.ObjectName, q.Attributes, err = readEntry(c)
	return err
}

func (q *SearchResultEntry) append(b []byte) []byte {
	return appendEntry(b, q.ObjectName, q.Attributes)
}

// SearchResultReference says where else to look (RFC 4511, section 4.5.3).
type SearchResultReference struct{ URIs []string }

func (*SearchResultReference) Op() Op { return OpSearchResultReference }

func (q *SearchResultReference) decode(c []byte) (err error) {
	q.URIs, err = readURIs(c)
	return err
}

func (q *SearchResultReference) append(b []byte) []byte {
	for _, u := range q.URIs {
		b = appendString(b, tagOctetString, u)
	}
	return b
}

// Responses that are nothing but a result.
type (
	SearchResultDone struct{ LDAPResult }
	ModifyResponse   struct{ LDAPResult }
	AddResponse      struct{ LDAPResult }
	DelResponse      struct{ LDAPResult }
	ModifyDNResponse struct{ LDAPResult }
	CompareResponse  struct{ LDAPResult }
)

func (*SearchResultDone) Op() Op { return OpSearchResultDone }
func (*ModifyResponse) Op() Op   { return OpModifyResponse }
func (*AddResponse) Op() Op      { return OpAddResponse }
func (*DelResponse) Op() Op      { return OpDelResponse }
func (*ModifyDNResponse) Op() Op { return OpModifyDNResponse }
func (*CompareResponse) Op() Op  { return OpCompareResponse }

// ExtendedResponse answers an ExtendedRequest, or is an unsolicited notification (RFC 4511, sections
// 4.12 and 4.4).
type ExtendedResponse struct {
	LDAPResult
	Name  string // OID, "": there is none
	Value []byte // nil: there is none
}

func (*ExtendedResponse) Op() Op { return OpExtendedResponse }

func (q *ExtendedResponse) decode(c []byte) error {
	r := reader{c}
	if err := q.read(&r); err != nil {
		return err
	}
	name, _, err := r.maybe(context | 10)
	if err != nil {
		return err
	}
	q.Name = string(name)
	q.Value, _, err = r.maybe(context | 11)
	return err
}

func (q *ExtendedResponse) append(b []byte) []byte {
	b = q.LDAPResult.append(b)
	if q.Name != "" {
		b = appendString(b, context|10, q.Name)
	}
	if q.Value != nil {
		b = AppendTLV(b, context|11, q.Value)
	}
	return b
}

// IntermediateResponse comes before the end of an answer (RFC 4511, section 4.13).
type IntermediateResponse struct {
	Name  string // OID, "": there is none
	Value []byte // nil: there is none
}

func (*IntermediateResponse) Op() Op { return OpIntermediateResponse }

func (q *IntermediateResponse) decode(c []byte) error {
	r := reader{c}
	name, _, err := r.maybe(context)
	if err != nil {
		return err
	}
	q.Name = string(name)
	q.Value, _, err = r.maybe(context | 1)
	return err
}

func (q *IntermediateResponse) append(b []byte) []byte {
	if q.Name != "" {
		b = appendString(b, context, q.Name)
	}
	if q.Value != nil {
		b = AppendTLV(b, context|1, q.Value)
	}
	return b
}
