// Package mqtt is the wrapper for MQTT 3.1, 3.1.1 and 5: a relay in front of a broker, a broker of
// its own, or a client of a broker. See README.md for what it does and where its limits are.
package mqtt

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// Protocol is MQTT for the gateway and the mapping.
var Protocol = wrappers.Protocol{
	Name: "mqtt",
	Syntax: wrappers.Syntax{
		Separator: "/",
		Forbidden: "+#\x00",
		Canonical: canonicalTopic,
	},
	Settings: []wrappers.Setting{
		{Name: "capture", Kind: wrappers.StringSetting, Default: "sync", Enum: []string{"sync", "async"},
			Doc: "relay: sync holds a publisher's acknowledgement until its message is durable here; async passes it at once, the broker owing us the message"},
		{Name: "capture_wait_ms", Kind: wrappers.IntSetting, Default: int64(5000), Min: 1, Max: 600_000,
			Doc: "relay: how long an acknowledgement is held at most"},
		{Name: "max_inflight", Kind: wrappers.IntSetting, Default: int64(128), Min: 1, Max: 65535,
			Doc: "unacknowledged QoS 1 and 2 messages in each direction of a connection"},
		{Name: "max_session_expiry_s", Kind: wrappers.IntSetting, Default: int64(7 * 24 * 3600), Min: 0, Max: 1 << 31,
			Doc: "virtual: how long the session of an absent client is kept at most"},
		{Name: "max_subscriptions", Kind: wrappers.IntSetting, Default: int64(1000), Min: 1, Max: 100_000,
			Doc: "virtual: subscriptions of one session"},
		{Name: "websocket", Kind: wrappers.StringSetting, Default: "/mqtt",
			Doc: "path at which the same listener takes MQTT over WebSocket; empty: not at all"},
		{Name: "origins", Kind: wrappers.StringsSetting, Default: []string(nil),
			Doc: "WebSocket: hosts whose pages may connect, besides the listener's own: \"*.example.org\""},
		{Name: "client_id", Kind: wrappers.StringSetting, Default: "",
			Doc: "relay, attached: client id of the gateway's own session at the broker; default spookgw-<endpoint>-<name>"},
	},
	Bind: []wrappers.Setting{
		{Name: "retain", Kind: wrappers.BoolSetting,
			Doc: "changes from elsewhere are published with RETAIN, and late joiners get the register; default true, false with direction = \"out\""},
		{Name: "qos", Kind: wrappers.IntSetting, Default: int64(1), Min: 0, Max: 2,
			Doc: "QoS with which changes from elsewhere are published"},
	},
	Schemes: []wrappers.Scheme{
		{Name: "tcp", Port: 1883}, {Name: "mqtt", Port: 1883},
		{Name: "ssl", Port: 8883, TLS: true}, {Name: "mqtts", Port: 8883, TLS: true},
		{Name: "ws", Port: 80}, {Name: "wss", Port: 443, TLS: true},
	},
	Messages: true,
	Feed:     true,
	New:      New,
	Demo: wrappers.Demo{
		Listen: "127.0.0.1:11883",
		Lines: []string{
			`mosquitto_sub -p 11883 -v -t 'sensors/#'`,
			`mosquitto_pub -p 11883 -t sensors/berlin/oven-3 -m '{"value":21.5}'`,
		},
	},
}

// options are the wrapper's settings, defaults in place.
type options struct {
	sync        bool
	captureWait time.Duration
	inflight    int
	maxExpiry   uint32
	maxSubs     int
	websocket   string
	origins     []string
	clientID    string
}

func readOptions(o wrappers.Options) options {
	number := func(name string, otherwise int64) int64 {
		if _, ok := o[name]; ok {
			return o.Int(name)
		}
		return otherwise
	}
	opts := options{
		sync:        o.String("capture") != "async",
		captureWait: time.Duration(number("capture_wait_ms", 5000)) * time.Millisecond,
		inflight:    int(number("max_inflight", 128)),
		maxExpiry:   uint32(number("max_session_expiry_s", 7*24*3600)),
		maxSubs:     int(number("max_subscriptions", 1000)),
		websocket:   "/mqtt",
		origins:     o.Strings("origins"),
		clientID:    o.String("client_id"),
	}
	if _, ok := o["websocket"]; ok {
		opts.websocket = o.String("websocket")
	}
	return opts
}

// New makes a wrapper: a relay, a broker of its own, or a client, by what the Config has.
func New(cfg wrappers.Config) (wrappers.Wrapper, error) {
	cfg.Limits = withDefaults(cfg.Limits)
	opts := readOptions(cfg.Options)
	if opts.websocket != "" && (!strings.HasPrefix(opts.websocket, "/") || strings.ContainsAny(opts.websocket, "?#")) {
		return nil, fmt.Errorf("websocket = %q: a path begins with \"/\"", opts.websocket)
	}
	if cfg.Packet != nil {
		return nil, errors.New("MQTT needs a stream listener")
	}
	if cfg.Virtual() {
		return newBroker(cfg, opts), nil
	}
	if len(cfg.Upstreams) != 1 {
		return nil, fmt.Errorf("a relay or client of MQTT has one upstream, this has %d: use one wrapper block per broker", len(cfg.Upstreams))
	}
	up := cfg.Upstreams[0]
	switch up.Scheme {
	case "tcp", "mqtt", "ssl", "mqtts", "ws", "wss", "":
	default:
		return nil, fmt.Errorf("upstream scheme %q: tcp, mqtt, ssl, mqtts, ws or wss", up.Scheme)
	}
	if _, err := url.Parse(up.Path); err != nil {
		return nil, fmt.Errorf("upstream path: %w", err)
	}
	return newClientSide(cfg, opts), nil
}

func withDefaults(l wrappers.Limits) wrappers.Limits {
	l = l.OrDefault()
	l.Frame = min(l.Frame, maxRemaining)
	return l
}
