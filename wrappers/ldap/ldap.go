// Package ldap is the wrapper for LDAP v3 (RFC 4510 and following): a relay in front of a directory
// server, a client of one that hears every change and writes its own (both: attached), and a
// directory server of its own (virtual). See README.md for what it does and where its limits are.
package ldap

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/virtual"
)

// Schemes of upstreams. The last one is LDAP that becomes TLS by StartTLS, before anything else is said.
const (
	schemeLDAP     = "ldap"
	schemeLDAPS    = "ldaps"
	schemeStartTLS = "ldap+starttls"
)

// Protocol is what the gateway knows of LDAP.
var Protocol = wrappers.Protocol{
	Name: "ldap",
	Syntax: wrappers.Syntax{
		Separator: dn.Separator,
		Forbidden: dn.Forbidden,
		Fold:      true,
		Entries:   true,
		Upward:    true,
		Canonical: dn.Canonical,
	},
	Feed: true, Renames: true,
	Schemes: []wrappers.Scheme{
		{Name: schemeLDAP, Port: 389}, {Name: schemeLDAPS, Port: 636, TLS: true}, {Name: schemeStartTLS, Port: 389, TLS: true},
	},
	Settings: []wrappers.Setting{
		{Name: "base", Kind: wrappers.StringSetting,
			Doc: "the entry below which addresses are, as in \"dc=acme,dc=org\"; of a virtual server, its naming context"},
		{Name: "capture", Kind: wrappers.StringSetting, Default: "sync", Enum: []string{"sync", "async"},
			Doc: "relay: sync holds the result of a write until the registers have it; async passes it at once, the server owing us the change"},
		{Name: "capture_wait_ms", Kind: wrappers.IntSetting, Default: int64(5000), Min: 1, Max: 600_000,
			Doc: "relay: how long a result is held at most"},
		{Name: "follow", Kind: wrappers.StringSetting, Default: "auto", Enum: []string{"auto", "syncrepl", "dirsync", "poll"},
			Doc: "how changes of the server are heard of: content synchronization (RFC 4533), Active Directory's DirSync, or by asking; auto takes the first of these that the server has"},
		{Name: "poll_ms", Kind: wrappers.IntSetting, Default: int64(10_000), Min: 100, Max: 86_400_000,
			Doc: "how often the server is asked, with follow = \"poll\" and \"dirsync\""},
		{Name: "max_lost", Kind: wrappers.IntSetting, Default: int64(50), Min: 0, Max: 100,
			Doc: "how many percent of the mapped entries may have gone while the gateway did not listen; beyond it their registers stay"},
		{Name: "create_parents", Kind: wrappers.BoolSetting, Default: false,
			Doc: "whether entries above one that is to be made are made too"},
	},
	New: New,
	Demo: wrappers.Demo{
		Listen:   "127.0.0.1:10389",
		Settings: wrappers.Options{"base": "dc=plant"},
		Lines: []string{
			`ldapsearch -x -LLL -H ldap://127.0.0.1:10389 -b dc=plant '(cn=oven-3)'`,
			`printf 'dn: cn=oven-3,ou=berlin,dc=plant\nchangetype: modify\nreplace: description\ndescription: 22.5\n' | ldapmodify -x -H ldap://127.0.0.1:10389`,
		},
	},
}

// options are the wrapper's settings, defaults in place.
type options struct {
	base          dn.DN
	sync          bool // capture = "sync"
	captureWait   time.Duration
	feed          string // "auto", "syncrepl", "dirsync", "poll"
	poll          time.Duration
	createParents bool
	maxLost       int64 // percent
}

func readOptions(o wrappers.Options) (options, error) {
	number := func(name string, otherwise int64) time.Duration {
		if n, ok := o[name].(int64); ok && n > 0 {
			otherwise = n
		}
		return time.Duration(otherwise) * time.Millisecond
	}
	opts := options{
		sync: o.String("capture") != "async", captureWait: number("capture_wait_ms", 5000),
		feed: o.String("follow"), poll: number("poll_ms", 10_000), createParents: o.Bool("create_parents"),
	}
	opts.maxLost = 50
	if n, ok := o["max_lost"].(int64); ok {
		opts.maxLost = n
	}
	if opts.feed == "" {
		opts.feed = "auto"
	}
	base, err := dn.Parse(o.String("base"))
	switch {
	case err != nil:
		return opts, fmt.Errorf("base: %w", err)
	case len(base) == 0:
		return opts, errors.New(`base: below which entry? Write it as in base = "dc=acme,dc=org"`)
	}
	opts.base = base
	return opts, nil
}

// wrapper is what relay and attached share.
type wrapper struct {
	cfg  wrappers.Config
	opts options
	up   wrappers.Upstream
	// types are the server's attribute types, as far as its schema was read; the well-known ones before.
	types atomic.Pointer[entry.Types]
	wire  *wire
}

// New makes the wrapper that a Config describes: a relay, a server of its own, or a client.
func New(cfg wrappers.Config) (wrappers.Wrapper, error) {
	if cfg.Packet != nil {
		return nil, errors.New("ldap listens on TCP only")
	}
	cfg.Limits = cfg.Limits.OrDefault()
	opts, err := readOptions(cfg.Options)
	if err != nil {
		return nil, err
	}
	if cfg.Virtual() {
		return virtual.New(cfg, virtual.Options{Base: opts.base, Result: resultCode})
	}
	if len(cfg.Upstreams) != 1 {
		return nil, fmt.Errorf("ldap has one upstream, not %d: use one wrapper for each server", len(cfg.Upstreams))
	}
	w := &wrapper{cfg: cfg, opts: opts, up: cfg.Upstreams[0], wire: newWire()}
	w.types.Store(entry.WellKnown())
	if p := w.up.Path; p != "" && p != "/" {
		return nil, fmt.Errorf("the upstream's address has the path %q: where binds begin is said by base", p)
	}
	attached := newAttached(w)
	if cfg.Relay() {
		return newRelay(w, attached), nil
	}
	return attached, nil
}

// principal names somebody as the server knows him, by his DN; "" for nobody.
func (w *wrapper) principal(name string) string {
	if name == "" {
		return ""
	}
	return "ldap/" + w.cfg.Name + ":" + name
}

func (w *wrapper) log() *slog.Logger {
	if w.cfg.Log == nil {
		return slog.Default()
	}
	return w.cfg.Log
}
