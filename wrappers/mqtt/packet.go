package mqtt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

// The control packet types (MQTT 5.0, section 2.1.2).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// The protocol levels in CONNECT; bridges set the high bit of theirs.
const (
	level31  = 3
	level311 = 4
	level5   = 5
)

// maxRemaining is the largest remaining length that four bytes can say (MQTT 5.0, section 1.5.5).
const maxRemaining = 268_435_455

// A protocolError is a peer's breach of the protocol, with the MQTT 5 reason code that names it.
type protocolError struct {
	code byte
	text string
}

func (e *protocolError) Error() string { return fmt.Sprintf("%s (reason 0x%02x)", e.text, e.code) }

func malformed(text string) error { return &protocolError{codeMalformed, text} }
func breach(text string) error    { return &protocolError{codeProtocolError, text} }

var errShortPacket = malformed("a packet ends before its last field")

// scanHeader reads the fixed header at the start of b: head is its size, remaining the length it
// announces. head is 0 when b holds too little of it. The only error is a length of more than
// four bytes; lengths written with more bytes than needed are legal here, and the strict side
// compares head with headerSize.
func scanHeader(b []byte) (head, remaining int, err error) {
	for i := 1; i < len(b); i++ {
		if i > 4 {
			break
		}
		remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			return i + 1, remaining, nil
		}
	}
	if len(b) > 4 {
		return 0, 0, malformed("remaining length of more than four bytes")
	}
	return 0, 0, nil
}

// headerSize is the size of the shortest fixed header that announces remaining bytes.
func headerSize(remaining int) int { return 1 + varintSize(remaining) }

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func appendBinary(b []byte, s []byte) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

// A fields reads the fields of a packet in order. After the first short field every result is
// zero and short is set.
type fields struct {
	b     []byte
	short bool
}

func (f *fields) take(n int) []byte {
	if n > len(f.b) {
		f.short, f.b = true, nil
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}

func (f *fields) u8() byte {
	if v := f.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (f *fields) u16() uint16 {
	if v := f.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

// bytes reads a field with a two-byte length before it.
func (f *fields) bytes() []byte {
	n := int(f.u16())
	return f.take(n)
}

// varint reads a variable byte integer.
func (f *fields) varint() int {
	n := 0
	for i := range 4 {
		c := f.u8()
		if f.short {
			return 0
		}
		n |= int(c&0x7f) << (7 * i)
		if c&0x80 == 0 {
			return n
		}
	}
	f.short = true
	return 0
}

func (f *fields) err() error {
	if f.short {
		return errShortPacket
	}
	return nil
}

// validString tells whether s is a legal UTF-8 string of the protocol (MQTT 5.0, section 1.5.4).
func validString(s []byte) bool {
	for _, c := range s {
		if c == 0 {
			return false
		}
	}
	return utf8.Valid(s)
}

// A publish is a PUBLISH packet. Its slices point into the frame it was read from.
type publish struct {
	qos     byte
	dup     bool
	retain  bool
	id      uint16 // 0 with QoS 0
	topic   []byte
	props   []byte // MQTT 5: the properties without their length
	payload []byte
}

// parsePublish reads the PUBLISH whose first byte is first and whose body is body. It is
// tolerant: only what can't be read at all is an error.
func parsePublish(first byte, body []byte, v5 bool) (publish, error) {
	p := publish{qos: first >> 1 & 3, dup: first&8 != 0, retain: first&1 != 0}
	f := fields{b: body}
	p.topic = f.bytes()
	if p.qos > 0 {
		p.id = f.u16()
	}
	if v5 {
		p.props = f.take(f.varint())
	}
	p.payload = f.b
	return p, f.err()
}

// check is what a server must refuse in a client's PUBLISH (MQTT 5.0, section 3.3).
func (p *publish) check(v5 bool) error {
	switch {
	case p.qos == 3:
		return malformed("QoS 3")
	case p.qos > 0 && p.id == 0:
		return breach("packet identifier 0")
	case p.qos == 0 && p.dup && v5:
		return malformed("DUP with QoS 0")
	case !validString(p.topic):
		return malformed("a topic that is not UTF-8")
	}
	if v5 {
		if err := checkProperties(p.props, typePublish); err != nil {
			return err
		}
	}
	return nil
}

// appendPublish writes a PUBLISH. With v5, props follow the subscription identifiers.
func appendPublish(b []byte, v5 bool, p *publish, subscriptions []int) []byte {
	n := 2 + len(p.topic) + len(p.payload)
	if p.qos > 0 {
		n += 2
	}
	props := len(p.props)
	if v5 {
		for _, id := range subscriptions {
			props += 1 + varintSize(id)
		}
		n += varintSize(props) + props
	}
	first := byte(typePublish<<4) | p.qos<<1
	if p.dup {
		first |= 8
	}
	if p.retain {
		first |= 1
	}
	b = appendVarint(append(b, first), n)
	b = appendBinary(b, p.topic)
	if p.qos > 0 {
		b = binary.BigEndian.AppendUint16(b, p.id)
	}
	if v5 {
		b = appendVarint(b, props)
		for _, id := range subscriptions {
			b = appendVarint(append(b, propSubscriptionID), id)
		}
		b = append(b, p.props...)
	}
	return append(b, p.payload...)
}

// publishSize is the size of the packet that appendPublish would write.
func publishSize(v5 bool, p *publish, subscriptions []int) int {
	n := 2 + len(p.topic) + len(p.payload)
	if p.qos > 0 {
		n += 2
	}
	if v5 {
		props := len(p.props)
		for _, id := range subscriptions {
			props += 1 + varintSize(id)
		}
		n += varintSize(props) + props
	}
	return headerSize(n) + n
}

// A connect is a CONNECT packet (MQTT 5.0, section 3.1). Its slices point into its frame.
type connect struct {
	name      string // "MQTT" or "MQIsdp"
	level     byte   // without a bridge's bit
	bridge    bool
	clean     bool
	keepAlive uint16
	props     []byte
	clientID  []byte
	will      *will
	hasUser   bool
	user      []byte
	hasPass   bool
	password  []byte
}

// A will is the message a server publishes when its client goes without a word.
type will struct {
	qos     byte
	retain  bool
	props   []byte
	topic   []byte
	payload []byte
}

// errLevel: the CONNECT is of a protocol level that nobody here speaks.
var errLevel = &protocolError{codeUnsupportedVersion, "unsupported protocol level"}

// parseConnect reads a CONNECT's body. What it can't read is an error; so is, with strict, all
// that a server must refuse.
func parseConnect(body []byte, strict bool) (connect, error) {
	var c connect
	f := fields{b: body}
	c.name = string(f.bytes())
	level := f.u8()
	if f.short {
		return c, errShortPacket
	}
	c.level, c.bridge = level&0x7f, level&0x80 != 0
	switch {
	case c.name == "MQIsdp" && c.level == level31, c.name == "MQTT" && (c.level == level311 || c.level == level5):
	case c.name == "MQIsdp" || c.name == "MQTT":
		return c, errLevel
	default:
		return c, &protocolError{codeUnsupportedVersion, "this is not MQTT"}
	}
	flags := f.u8()
	c.clean = flags&2 != 0
	c.keepAlive = f.u16()
	if c.level == level5 {
		c.props = f.take(f.varint())
	}
	c.clientID = f.bytes()
	if flags&4 != 0 {
		w := &will{qos: flags >> 3 & 3, retain: flags&0x20 != 0}
		if c.level == level5 {
			w.props = f.take(f.varint())
		}
		w.topic = f.bytes()
		w.payload = f.bytes()
		c.will = w
	}
	if flags&0x80 != 0 {
		c.hasUser, c.user = true, f.bytes()
	}
	if flags&0x40 != 0 {
		c.hasPass, c.password = true, f.bytes()
	}
	if err := f.err(); err != nil || !strict {
		return c, err
	}
	return c, c.check(flags, len(f.b))
}

func (c *connect) check(flags byte, rest int) error {
	switch {
	case rest > 0:
		return malformed("bytes behind the last field of CONNECT")
	case flags&1 != 0:
		return malformed("a reserved flag is set in CONNECT")
	case c.will == nil && flags&0x38 != 0:
		return malformed("will flags without a will")
	case c.will != nil && c.will.qos == 3:
		return malformed("a will with QoS 3")
	case c.level == level311 && c.hasPass && !c.hasUser:
		return malformed("a password without a user name")
	case !validString(c.clientID) || !validString(c.user):
		return malformed("a text in CONNECT that is not UTF-8")
	}
	if c.will != nil {
		if err := checkTopic(c.will.topic); err != nil {
			return err
		}
		if c.level == level5 {
			if err := checkProperties(c.will.props, willProperties); err != nil {
				return err
			}
		}
	}
	if c.level == level5 {
		return checkProperties(c.props, typeConnect)
	}
	return nil
}

// appendConnect writes a CONNECT.
func appendConnect(b []byte, c *connect) []byte {
	var body []byte
	body = appendString(body, c.name)
	level := c.level
	if c.bridge {
		level |= 0x80
	}
	var flags byte
	if c.clean {
		flags |= 2
	}
	if c.will != nil {
		flags |= 4 | c.will.qos<<3
		if c.will.retain {
			flags |= 0x20
		}
	}
	if c.hasUser {
		flags |= 0x80
	}
	if c.hasPass {
		flags |= 0x40
	}
	body = append(body, level, flags)
	body = binary.BigEndian.AppendUint16(body, c.keepAlive)
	if c.level == level5 {
		body = append(appendVarint(body, len(c.props)), c.props...)
	}
	body = appendBinary(body, c.clientID)
	if c.will != nil {
		if c.level == level5 {
			body = append(appendVarint(body, len(c.will.props)), c.will.props...)
		}
		body = appendBinary(body, c.will.topic)
		body = appendBinary(body, c.will.payload)
	}
	if c.hasUser {
		body = appendBinary(body, c.user)
	}
	if c.hasPass {
		body = appendBinary(body, c.password)
	}
	b = appendVarint(append(b, typeConnect<<4), len(body))
	return append(b, body...)
}

// A connack is a CONNACK packet (MQTT 5.0, section 3.2).
type connack struct {
	present bool // the server had a session
	code    byte
	props   []byte
}

func parseConnack(body []byte, v5 bool) (connack, error) {
	f := fields{b: body}
	a := connack{present: f.u8()&1 != 0, code: f.u8()}
	if v5 && len(f.b) > 0 { // a server that refuses version 5 answers in the form of 3.1.1
		a.props = f.take(f.varint())
	}
	return a, f.err()
}

func appendConnack(b []byte, v5 bool, a *connack) []byte {
	var present byte
	if a.present {
		present = 1
	}
	if !v5 {
		return append(b, typeConnack<<4, 2, present, a.code)
	}
	b = appendVarint(append(b, typeConnack<<4), 2+varintSize(len(a.props))+len(a.props))
	b = append(b, present, a.code)
	return append(appendVarint(b, len(a.props)), a.props...)
}

// An ack is a PUBACK, PUBREC, PUBREL or PUBCOMP (MQTT 5.0, sections 3.4 to 3.7).
type ack struct {
	id    uint16
	code  byte
	props []byte
}

func parseAck(body []byte, v5 bool) (ack, error) {
	f := fields{b: body}
	a := ack{id: f.u16()}
	if v5 && len(f.b) > 0 {
		a.code = f.u8()
		if len(f.b) > 0 {
			a.props = f.take(f.varint())
		}
	}
	return a, f.err()
}

// appendAck writes an acknowledgement of the given type in its shortest form. reason is a text
// for people, only in MQTT 5.
func appendAck(b []byte, kind byte, v5 bool, id uint16, code byte, reason string) []byte {
	first := kind << 4
	if kind == typePubrel {
		first |= 2
	}
	switch {
	case !v5 || code == 0 && reason == "":
		b = append(b, first, 2)
		return binary.BigEndian.AppendUint16(b, id)
	case reason == "":
		b = append(b, first, 3)
		return append(binary.BigEndian.AppendUint16(b, id), code)
	}
	reason = shorten(reason)
	props := 3 + len(reason)
	b = appendVarint(append(b, first), 3+varintSize(props)+props)
	b = append(binary.BigEndian.AppendUint16(b, id), code)
	b = append(appendVarint(b, props), propReason)
	return appendString(b, reason)
}

// shorten keeps a text for a peer well below every limit of packet size.
func shorten(s string) string {
	const limit = 200
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

// A request is one topic filter of a SUBSCRIBE with its options (MQTT 5.0, section 3.8.3.1).
type request struct {
	filter  string
	options byte
}

func (r request) qos() byte             { return r.options & 3 }
func (r request) noLocal() bool         { return r.options&4 != 0 }
func (r request) retainPublished() bool { return r.options&8 != 0 }
func (r request) retainHandling() byte  { return r.options >> 4 & 3 }

func retainAsPublished(options byte) byte { return options | 8 }

// A subscribe is a SUBSCRIBE, or with options unused an UNSUBSCRIBE.
type subscribe struct {
	id       uint16
	props    []byte
	requests []request
}

// maxFilters bounds what one SUBSCRIBE may ask for.
const maxFilters = 1024

// parseSubscribe reads a SUBSCRIBE (kind typeSubscribe) or an UNSUBSCRIBE, strictly but for the
// filters themselves, which are answered one by one.
func parseSubscribe(kind, first byte, body []byte, v5 bool) (subscribe, error) {
	var s subscribe
	if first&0x0f != 2 {
		return s, malformed("reserved flags of a subscription")
	}
	f := fields{b: body}
	s.id = f.u16()
	if v5 {
		s.props = f.take(f.varint())
		if !f.short {
			if err := checkProperties(s.props, int(kind)); err != nil {
				return s, err
			}
		}
	}
	for len(f.b) > 0 {
		filter := f.bytes()
		var r request
		if kind == typeSubscribe {
			r.options = f.u8()
			if r.qos() == 3 || !v5 && r.options > 2 || v5 && (r.options&0xc0 != 0 || r.retainHandling() == 3) {
				return s, malformed("subscription options that do not exist")
			}
		}
		if f.short {
			return s, errShortPacket
		}
		if !validString(filter) {
			return s, malformed("a topic filter that is not UTF-8")
		}
		r.filter = string(filter)
		s.requests = append(s.requests, r)
		if len(s.requests) > maxFilters {
			return s, &protocolError{codeQuotaExceeded, fmt.Sprintf("more than %d filters in one packet", maxFilters)}
		}
	}
	switch {
	case f.short:
		return s, errShortPacket
	case s.id == 0:
		return s, breach("packet identifier 0")
	case len(s.requests) == 0:
		return s, breach("a subscription without a filter")
	}
	return s, nil
}

func appendSubscribe(b []byte, v5 bool, kind byte, s *subscribe) []byte {
	body := binary.BigEndian.AppendUint16(nil, s.id)
	if v5 {
		body = append(appendVarint(body, len(s.props)), s.props...)
	}
	for _, r := range s.requests {
		body = appendString(body, r.filter)
		if kind == typeSubscribe {
			body = append(body, r.options)
		}
	}
	b = appendVarint(append(b, kind<<4|2), len(body))
	return append(b, body...)
}

// appendSuback writes a SUBACK or UNSUBACK with one code per filter.
func appendSuback(b []byte, v5 bool, kind byte, id uint16, codes []byte) []byte {
	n := 2
	if v5 {
		n++
	}
	if v5 || kind == typeSuback {
		n += len(codes)
	}
	b = appendVarint(append(b, kind<<4), n)
	b = binary.BigEndian.AppendUint16(b, id)
	if v5 {
		b = append(b, 0)
	}
	if v5 || kind == typeSuback {
		b = append(b, codes...)
	}
	return b
}

// parseSuback gives the codes of a SUBACK.
func parseSuback(body []byte, v5 bool) (id uint16, codes []byte, err error) {
	f := fields{b: body}
	id = f.u16()
	if v5 {
		f.take(f.varint())
	}
	return id, f.b, f.err()
}

// A disconnect is a DISCONNECT of MQTT 5; in the older versions it has no body.
type disconnect struct {
	code  byte
	props []byte
}

func parseDisconnect(body []byte, v5 bool) (disconnect, error) {
	var d disconnect
	if !v5 || len(body) == 0 {
		return d, nil
	}
	f := fields{b: body}
	d.code = f.u8()
	if len(f.b) > 0 {
		d.props = f.take(f.varint())
	}
	return d, f.err()
}

func appendDisconnect(b []byte, v5 bool, code byte, reason string) []byte {
	switch {
	case !v5 || code == 0 && reason == "":
		return append(b, typeDisconnect<<4, 0)
	case reason == "":
		return append(b, typeDisconnect<<4, 1, code)
	}
	reason = shorten(reason)
	props := 3 + len(reason)
	b = appendVarint(append(b, typeDisconnect<<4), 1+varintSize(props)+props)
	b = append(appendVarint(append(b, code), props), propReason)
	return appendString(b, reason)
}

// errTooBig: a packet is larger than this side accepts.
var errTooBig = &protocolError{codePacketTooLarge, "packet too large"}

func asProtocolError(err error) *protocolError {
	var e *protocolError
	if errors.As(err, &e) {
		return e
	}
	return nil
}
