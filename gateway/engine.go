package gateway

import "github.com/spooksystems/gateway/engine"

// engineOptions are the configuration's part of the engine in a directory.
func (g *Gateway) engineOptions(config *Config, dir string) engine.Options {
	return engine.Options{
		Dir: dir, Log: g.log, MinFree: config.MinFree,
		Fatal: func(err error) {
			select {
			case g.fatal <- err:
			default: // the first is enough
			}
		},
	}
}
