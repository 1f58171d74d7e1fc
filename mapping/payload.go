package mapping

import (
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// Decode reads a payload by the bind's codec. Errors are for the peer.
func (b *Bind) Decode(p wrappers.Payload) (engine.Value, error) {
	return b.codec.decode(&p, time.Time{})
}

// Encode writes a payload by the bind's codec; auto is JSON.
func (b *Bind) Encode(v engine.Value) (wrappers.Payload, error) {
	k := b.codec
	if k == autoCodec {
		k = jsonCodec
	}
	return k.encode(v, nil)
}
