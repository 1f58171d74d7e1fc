package mqtt

import (
	"errors"

	"github.com/spooksystems/gateway/wrappers"
)

func newClientSide(cfg wrappers.Config, opt options) wrappers.Wrapper { panic(errors.ErrUnsupported) }
