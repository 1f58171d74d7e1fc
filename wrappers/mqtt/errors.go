package mqtt

import (
	"github.com/spooksystems/gateway/wrappers"
)

// Reason codes of MQTT 5 (section 2.4).
const (
	codeSuccess            = 0x00
	codeDisconnectWithWill = 0x04
	codeNoSubscribers      = 0x10
	codeNoSubscription     = 0x11
	codeUnspecified        = 0x80
	codeMalformed          = 0x81
	codeProtocolError      = 0x82
	codeImplementation     = 0x83
	codeUnsupportedVersion = 0x84
	codeBadClientID        = 0x85
	codeBadUser            = 0x86
	codeNotAuthorized      = 0x87
	codeServerUnavailable  = 0x88
	codeServerBusy         = 0x89
	codeShuttingDown       = 0x8b
	codeBadAuthMethod      = 0x8c
	codeKeepAliveTimeout   = 0x8d
	codeTakenOver          = 0x8e
	codeBadFilter          = 0x8f
	codeBadTopic           = 0x90
	codeIDInUse            = 0x91
	codeIDNotFound         = 0x92
	codeReceiveMaximum     = 0x93
	codeTopicAliasInvalid  = 0x94
	codePacketTooLarge     = 0x95
	codeQuotaExceeded      = 0x97
	codePayloadInvalid     = 0x99
	codeNoSharedNoLocal    = 0x9e
)

// Return codes of CONNACK in MQTT 3.1 and 3.1.1 (3.1.1, section 3.2.2.3).
const (
	v3BadVersion    = 1
	v3BadClientID   = 2
	v3Unavailable   = 3
	v3BadUser       = 4
	v3NotAuthorized = 5
)

// publishCode is the one table from what a Link says to what PUBACK and PUBREC can say. MQTT 3
// has no such word: there the connection is closed.
func publishCode(err error) byte {
	switch wrappers.Kind(err) {
	case wrappers.ErrUnmapped:
		return codeBadTopic // "not malformed, but not accepted by this server"
	case wrappers.ErrDenied:
		return codeNotAuthorized
	case wrappers.ErrInvalid:
		return codePayloadInvalid
	case wrappers.ErrTooLarge:
		return codeQuotaExceeded
	}
	return codeImplementation
}

// connectCode turns a reason for refusing a CONNECT into MQTT 3's few words.
func connectCode(code byte) byte {
	switch code {
	case codeUnsupportedVersion:
		return v3BadVersion
	case codeBadClientID:
		return v3BadClientID
	case codeBadUser:
		return v3BadUser
	case codeNotAuthorized, codeBadAuthMethod:
		return v3NotAuthorized
	}
	return v3Unavailable
}

// kindOf is the way back: what a real server's reason code means for a write of ours. transient
// tells that the same write may succeed later.
func kindOf(code byte) (kind error, transient bool) {
	switch code {
	case codeNotAuthorized, codeBadUser:
		return wrappers.ErrDenied, false
	case codeBadTopic, codePayloadInvalid, codeMalformed, codeProtocolError:
		return wrappers.ErrInvalid, false
	case codePacketTooLarge:
		return wrappers.ErrTooLarge, false
	}
	return wrappers.ErrUnavailable, true
}

// reasonNames are the words of the standard, for logs and parked operations.
var reasonNames = map[byte]string{
	codeUnspecified: "unspecified error", codeMalformed: "malformed packet", codeProtocolError: "protocol error",
	codeImplementation: "implementation specific error", codeUnsupportedVersion: "unsupported protocol version",
	codeBadClientID: "client identifier not valid", codeBadUser: "bad user name or password", codeNotAuthorized: "not authorized",
	codeServerUnavailable: "server unavailable", codeServerBusy: "server busy", 0x8a: "banned", codeShuttingDown: "server shutting down",
	codeBadAuthMethod: "bad authentication method", codeKeepAliveTimeout: "keep alive timeout", codeTakenOver: "session taken over",
	codeBadFilter: "topic filter invalid", codeBadTopic: "topic name invalid", codeIDInUse: "packet identifier in use",
	codeIDNotFound: "packet identifier not found", codeReceiveMaximum: "receive maximum exceeded", codeTopicAliasInvalid: "topic alias invalid",
	codePacketTooLarge: "packet too large", 0x96: "message rate too high", codeQuotaExceeded: "quota exceeded",
	0x98: "administrative action", codePayloadInvalid: "payload format invalid", 0x9a: "retain not supported", 0x9b: "QoS not supported",
	0x9c: "use another server", 0x9d: "server moved", codeNoSharedNoLocal: "shared subscriptions not supported",
	0x9f: "connection rate exceeded", 0xa0: "maximum connect time", 0xa1: "subscription identifiers not supported",
	0xa2: "wildcard subscriptions not supported",
}

// v3Names are CONNACK's in MQTT 3.
var v3Names = map[byte]string{
	v3BadVersion: "unacceptable protocol version", v3BadClientID: "identifier rejected", v3Unavailable: "server unavailable",
	v3BadUser: "bad user name or password", v3NotAuthorized: "not authorized",
}
