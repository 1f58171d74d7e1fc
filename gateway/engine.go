package gateway

import "github.com/spooksystems/gateway/engine"

// engineOptions are the configuration's part of an engine.
func (g *Gateway) engineOptions(config *Config) engine.Options {
	return engine.Options{
		Dir: g.data, Log: g.log, MinFree: config.MinFree,
		Fatal: func(err error) {
			select {
			case g.fatal <- err:
			default: // the first is enough
			}
		},
	}
}
