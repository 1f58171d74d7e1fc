package mapping

import (
	"fmt"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/wrappers"
)

type jsonForm struct{}

func (jsonForm) traits() traits { return traits{holds: members, flavour: jsonLike} }

func (jsonForm) decode(p *wrappers.Payload, _ time.Time) (engine.Value, error) {
	if len(p.Raw) == 0 {
		return engine.Value{}, refuse("the payload is empty; JSON is wanted")
	}
	v, err := lattice.ParseJSON(p.Raw)
	if err != nil {
		return engine.Value{}, refuse("%s", peerText(err))
	}
	return v, nil
}

func (jsonForm) encode(v engine.Value, _ *wrappers.Payload) (wrappers.Payload, error) {
	out := wrappers.Payload{Type: "application/json"}
	if v.IsAbsent() {
		return out, fmt.Errorf("there is nothing to write")
	}
	out.Raw = v.AppendJSON(nil)
	return out, nil
}
