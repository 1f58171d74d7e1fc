package mapping

import (
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/wrappers"
)

// rowForm is a row of a table: an object of column → value, as CBOR, which has the types that
// databases have. A column that is not there is not spoken of; NULL is null.
type rowForm struct{}

func (rowForm) traits() traits { return traits{holds: members, flavour: exact} }

func (rowForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	return decodeCBOR(p.Raw)
}

func (rowForm) encode(v engine.Value, prev *wrappers.Payload) (wrappers.Payload, error) {
	return cborForm{}.encode(v, prev)
}
