package ldapwire

// A Frame is the head of an LDAPMessage, read without what stands in it.
type Frame struct {
	Size      int64 // of the whole message in bytes, its own header included
	MessageID int32
	Op        Op
	Body      int // where the contents of the operation begin, counted from the start of the message
	BodySize  int64
	// HasControls: something stands behind the operation.
	HasControls bool
}

// MaxMessageID is the largest one (RFC 4511, section 4.1.1).
const MaxMessageID = 1<<31 - 1

// maxHead bounds the bytes that ReadFrame must see of a message: three headers and a message ID.
const maxHead = 10 + 2 + 8 + 10

// ReadFrame reads the head of the message that begins with b, of which a few bytes are enough. ok
// false: more of it are wanted. It copies and allocates nothing. The error is an ErrMalformed, and
// what follows in the stream can't be read any more.
func ReadFrame(b []byte) (f Frame, ok bool, err error) {
	_, n, size, ok, err := header(b)
	if err != nil {
		return f, false, err
	}
	if len(b) > 0 && b[0] != tagSequence {
		return f, false, malformed("a message begins with %#x, not %#x", b[0], tagSequence)
	}
	if !ok {
		return f, false, nil
	}
	f.Size = int64(n) + size
	rest := b[n:]
	if int64(len(rest)) > size {
		rest = rest[:size]
	}
	whole := int64(len(rest)) == size
	more := func() (Frame, bool, error) {
		if whole {
			return f, false, errShort
		}
		return f, false, nil
	}
	_, m, idSize, ok, err := header(rest)
	if err != nil {
		return f, false, err
	}
	if len(rest) > 0 && rest[0] != tagInteger {
		return f, false, malformed("a message ID with the tag %#x", rest[0])
	}
	if !ok {
		return more()
	}
	if idSize == 0 || idSize > 8 {
		return f, false, malformed("a message ID of %d bytes", idSize)
	}
	if int64(len(rest)-m) < idSize {
		return more()
	}
	id, err := integer(rest[m:m+int(idSize)], "the message ID")
	if err != nil {
		return f, false, err
	}
	if id < 0 || id > MaxMessageID {
		return f, false, malformed("the message ID %d", id)
	}
	f.MessageID = int32(id)
	at := m + int(idSize)
	tag, k, opSize, ok, err := header(rest[at:])
	if err != nil {
		return f, false, err
	}
	if !ok {
		return more()
	}
	f.Op, f.Body, f.BodySize = Op(tag), n+at+k, opSize
	behind := f.Size - int64(f.Body) - opSize
	if behind < 0 {
		return f, false, malformed("an operation larger than its message")
	}
	f.HasControls = behind > 0
	return f, true, nil
}

// Entry gives the name of the entry that a request to add, modify, delete, rename or compare is of, or of the base of a
// search, from a whole message whose head ReadFrame has read. False: it is none of these, or malformed. It shares the memory of
// the message, and nothing is allocated.
func (f *Frame) Entry(b []byte) ([]byte, bool) {
	end := f.Body + int(f.BodySize)
	if end > len(b) {
		return nil, false
	}
	switch f.Op {
	case OpDelRequest:
		return b[f.Body:end:end], true
	case OpAddRequest, OpModifyRequest, OpModifyDNRequest, OpCompareRequest, OpSearchRequest:
		r := reader{b[f.Body:end:end]}
		name, err := r.bytes("the name")
		return name, err == nil
	}
	return nil, false
}
