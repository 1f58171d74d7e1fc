package hub

import (
	"encoding/hex"
	"strings"

	"github.com/spooksystems/gateway/engine"
)

// What things are called on the hub. A name of a domain may have dots, which part subjects and are forbidden in names of
// streams, and case counts.

var escape = strings.NewReplacer("_", "__", ".", "_d")

// names are those of one domain.
type names struct {
	stream  string // candidates
	bucket  string // members
	batches string // subject prefix: one token of an endpoint follows
	control string // likewise: who is there, and who wants to talk
	pulse   string // likewise: heartbeats
}

func namesOf(domain string) names {
	d := escape.Replace(domain)
	return names{stream: "Q_" + d, bucket: "Qm_" + d, batches: "q." + d + ".", control: "qc." + d + ".", pulse: "qh." + d + "."}
}

// tokenOf is an endpoint in subjects and keys: its first 16 bytes, in hexadecimal. They are of a hash.
func tokenOf(e engine.EndpointID) string { return hex.EncodeToString(e[:16]) }
