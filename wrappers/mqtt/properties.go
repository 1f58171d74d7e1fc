package mqtt

import (
	"encoding/binary"
	"iter"
	"strings"
)

// The property identifiers this package reads or writes (MQTT 5.0, section 2.2.2.2).
const (
	propPayloadFormat    = 0x01
	propMessageExpiry    = 0x02
	propContentType      = 0x03
	propResponseTopic    = 0x08
	propCorrelation      = 0x09
	propSubscriptionID   = 0x0b
	propSessionExpiry    = 0x11
	propAssignedClientID = 0x12
	propServerKeepAlive  = 0x13
	propAuthMethod       = 0x15
	propAuthData         = 0x16
	propRequestProblem   = 0x17
	propWillDelay        = 0x18
	propRequestResponse  = 0x19
	propResponseInfo     = 0x1a
	propServerReference  = 0x1c
	propReason           = 0x1f
	propReceiveMaximum   = 0x21
	propTopicAliasMax    = 0x22
	propTopicAlias       = 0x23
	propMaximumQoS       = 0x24
	propRetainAvailable  = 0x25
	propUser             = 0x26
	propMaximumPacket    = 0x27
	propWildcards        = 0x28
	propSubscriptionIDs  = 0x29
	propShared           = 0x2a
)

// willProperties stands beside the packet types for the properties of a will.
const willProperties = 0

type propertyForm byte

const (
	oneByte propertyForm = iota + 1
	twoBytes
	fourBytes
	variable
	text
	binaryData
	textPair
)

func on(packets ...int) uint16 {
	var m uint16
	for _, p := range packets {
		m |= 1 << p
	}
	return m
}

// properties says of each identifier how its value is written and in which packets it may stand.
var properties = [0x2b]struct {
	form propertyForm
	in   uint16
}{
	propPayloadFormat:    {oneByte, on(typePublish, willProperties)},
	propMessageExpiry:    {fourBytes, on(typePublish, willProperties)},
	propContentType:      {text, on(typePublish, willProperties)},
	propResponseTopic:    {text, on(typePublish, willProperties)},
	propCorrelation:      {binaryData, on(typePublish, willProperties)},
	propSubscriptionID:   {variable, on(typePublish, typeSubscribe)},
	propSessionExpiry:    {fourBytes, on(typeConnect, typeConnack, typeDisconnect)},
	propAssignedClientID: {text, on(typeConnack)},
	propServerKeepAlive:  {twoBytes, on(typeConnack)},
	propAuthMethod:       {text, on(typeConnect, typeConnack, typeAuth)},
	propAuthData:         {binaryData, on(typeConnect, typeConnack, typeAuth)},
	propRequestProblem:   {oneByte, on(typeConnect)},
	propWillDelay:        {fourBytes, on(willProperties)},
	propRequestResponse:  {oneByte, on(typeConnect)},
	propResponseInfo:     {text, on(typeConnack)},
	propServerReference:  {text, on(typeConnack, typeDisconnect)},
	propReason:           {text, on(typeConnack, typePuback, typePubrec, typePubrel, typePubcomp, typeSuback, typeUnsuback, typeDisconnect, typeAuth)},
	propReceiveMaximum:   {twoBytes, on(typeConnect, typeConnack)},
	propTopicAliasMax:    {twoBytes, on(typeConnect, typeConnack)},
	propTopicAlias:       {twoBytes, on(typePublish)},
	propMaximumQoS:       {oneByte, on(typeConnack)},
	propRetainAvailable:  {oneByte, on(typeConnack)},
	propUser:             {textPair, 0xffff},
	propMaximumPacket:    {fourBytes, on(typeConnect, typeConnack)},
	propWildcards:        {oneByte, on(typeConnack)},
	propSubscriptionIDs:  {oneByte, on(typeConnack)},
	propShared:           {oneByte, on(typeConnack)},
}

// nextProperty reads the property at the start of b. value is what stands behind the identifier,
// without the length of a text or binary; a pair keeps both of its lengths.
func nextProperty(b []byte) (id byte, value, rest []byte, err error) {
	f := fields{b: b}
	id = f.u8()
	if int(id) >= len(properties) || properties[id].form == 0 {
		return 0, nil, nil, malformed("a property that does not exist")
	}
	switch properties[id].form {
	case oneByte:
		value = f.take(1)
	case twoBytes:
		value = f.take(2)
	case fourBytes:
		value = f.take(4)
	case variable:
		before := f.b
		f.varint()
		if !f.short {
			value = before[:len(before)-len(f.b)]
		}
	case text, binaryData:
		value = f.bytes()
	case textPair:
		before := f.b
		f.bytes()
		f.bytes()
		if !f.short {
			value = before[:len(before)-len(f.b)]
		}
	}
	return id, value, f.b, f.err()
}

// eachProperty yields the properties in b up to the first that can't be read.
func eachProperty(b []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		for len(b) > 0 {
			id, value, rest, err := nextProperty(b)
			if err != nil || !yield(id, value) {
				return
			}
			b = rest
		}
	}
}

// checkProperties tells whether a packet of this type may have the properties in b, each at most
// once but for user properties.
func checkProperties(b []byte, packet int) error {
	var seen uint64
	for len(b) > 0 {
		id, value, rest, err := nextProperty(b)
		if err != nil {
			return err
		}
		b = rest
		p := properties[id]
		if p.in&(1<<packet) == 0 {
			return breach("a property in a packet where it has no place")
		}
		if id != propUser && seen&(1<<id) != 0 {
			return breach("a property twice")
		}
		seen |= 1 << id
		switch p.form {
		case text:
			if !validString(value) {
				return malformed("a property that is not UTF-8")
			}
		case textPair:
			name, v := pair(value)
			if !validString(name) || !validString(v) {
				return malformed("a user property that is not UTF-8")
			}
		case oneByte:
			if value[0] > 1 {
				return breach("a property of 0 or 1 has another value")
			}
		}
		switch id {
		case propSubscriptionID:
			if packet == typePublish {
				return breach("a subscription identifier from a client")
			}
			if n := varintValue(value); n == 0 {
				return breach("subscription identifier 0")
			}
		case propReceiveMaximum, propTopicAlias:
			if binary.BigEndian.Uint16(value) == 0 {
				if id == propTopicAlias {
					return &protocolError{codeTopicAliasInvalid, "topic alias 0"}
				}
				return breach("receive maximum 0")
			}
		case propMaximumPacket:
			if binary.BigEndian.Uint32(value) == 0 {
				return breach("maximum packet size 0")
			}
		}
	}
	return nil
}

func varintValue(b []byte) int {
	f := fields{b: b}
	return f.varint()
}

// pair splits a user property.
func pair(value []byte) (name, v []byte) {
	f := fields{b: value}
	return f.bytes(), f.bytes()
}

// property gives the first property with this identifier.
func property(b []byte, id byte) ([]byte, bool) {
	for have, value := range eachProperty(b) {
		if have == id {
			return value, true
		}
	}
	return nil, false
}

// number gives an integer property, or otherwise.
func number(b []byte, id byte, otherwise uint32) uint32 {
	v, ok := property(b, id)
	if !ok {
		return otherwise
	}
	switch len(v) {
	case 1:
		return uint32(v[0])
	case 2:
		return uint32(binary.BigEndian.Uint16(v))
	case 4:
		return binary.BigEndian.Uint32(v)
	}
	return otherwise
}

// userProperty tells whether b has this user property.
func userProperty(b []byte, name, value string) bool {
	for id, v := range eachProperty(b) {
		if id == propUser {
			n, w := pair(v)
			if string(n) == name && string(w) == value {
				return true
			}
		}
	}
	return false
}

func appendUserProperty(b []byte, name, value string) []byte {
	return appendString(appendString(append(b, propUser), name), value)
}

// without gives the properties but for one that does not travel on: a topic alias belongs to one
// connection, a will's delay to the will. It copies only when there is one.
func without(b []byte, drop byte) []byte {
	if _, ok := property(b, drop); !ok {
		return b
	}
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		id, _, rest, err := nextProperty(b)
		if err != nil {
			return out
		}
		if id != drop {
			out = append(out, b[:len(b)-len(rest)]...)
		}
		b = rest
	}
	return out
}

// expiryOffset is where in b the four bytes of the message expiry interval stand, or -1.
func expiryOffset(b []byte) int {
	at := 0
	for at < len(b) {
		id, _, rest, err := nextProperty(b[at:])
		if err != nil {
			return -1
		}
		if id == propMessageExpiry {
			return at + 1
		}
		at = len(b) - len(rest)
	}
	return -1
}

// meta gives the properties that a mapping may read: the content type, the response topic, and
// the user properties by their lower-case names. Nil when there are none.
func meta(b []byte) (contentType string, m map[string]string) {
	for id, value := range eachProperty(b) {
		name, v := "", value
		switch id {
		case propContentType:
			contentType, name = string(value), "content-type"
		case propResponseTopic:
			name = "response-topic"
		case propUser:
			n, w := pair(value)
			name, v = strings.ToLower(string(n)), w
		default:
			continue
		}
		if m == nil {
			m = make(map[string]string)
		}
		m[name] = string(v)
	}
	return contentType, m
}
