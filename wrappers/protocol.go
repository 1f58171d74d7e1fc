package wrappers

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"time"
)

// A Protocol is what the gateway and the mapping need to know of a protocol: nothing else in the
// tree names one. The list of protocols stands in gateway/spookgw.
type Protocol struct {
	Name     string // the label in HCL: "mqtt"
	Syntax   Syntax
	Settings []Setting // attributes of its wrapper blocks beyond the common ones
	Bind     []Setting // attributes of its binds beyond the common ones
	Schemes  []Scheme  // what an upstream URL may begin with
	Upstream string    // how an upstream is written behind "scheme://", with %s for host:port; "": only that
	Messages bool      // a bind's payload is a message of its own (codec and codec limits apply), not a part of a stored document
	Replies  bool      // a write is answered with a body: `reply` of a bind makes it
	Feed     bool      // in front of or inside a server it has an ordered feed that shows every change, own writes included
	// Feedless, if not nil, tells of a wrapper's settings whether it has to do without its feed all the same.
	Feedless func(Options) bool
	Renames  bool // attached to a server it moves what a register that was renamed has there: Change.From
	Frame    int  // default of limits { frame }, in bytes; 0: 2 MiB
	New      func(Config) (Wrapper, error)
	Demo     Demo
}

// A Scheme is one form of upstream URL.
type Scheme struct {
	Name string // "mqtts"
	Port int    // when the URL names none
	TLS  bool
}

// Demo is how the protocol takes part in `spookgw demo`.
type Demo struct {
	Listen   string   // "127.0.0.1:11883"; "": it takes none
	Settings Options  // of its wrapper block; texts
	Lines    []string // commands to copy, for the register site/berlin/oven-3
}

// Syntax is the form of a protocol's addresses.
type Syntax struct {
	Separator string // between segments: "/"
	// Forbidden are the characters, beyond the separator, that a captured value cannot hold
	// as they are; they are percent-escaped.
	Forbidden string
	// Fold: addresses that differ in case are one.
	Fold bool
	// Absolute: an address begins with the separator.
	Absolute bool
	// Query: a suffix from '?' on belongs to the address when the template has one.
	Query bool
	// Keys: what the key of a bind reads of its payload is the query of its addresses, so that
	// `key = { site = payload.site }` at "public.sensors" is "public.sensors?site={site}". The
	// payload is a row: its codec is CBOR, a member is written as a whole, and what is in the key is
	// in the address alone.
	Keys bool
	// Entries: the payload is an object of named members with one value or a list of several each, as
	// CBOR. A bind has no codec, Patterns list the members it speaks of, and one value stands for a list
	// of one wherever a list is wanted.
	Entries bool
	// Upward: an address begins with what is deepest. What stands below "ou=people" are the addresses
	// that end with ",ou=people"; the prefix of List and Scan for them is "ou=people,".
	Upward bool
	// Canonical brings an address or the literal text of a template into the one form that
	// Operations carry, or says what is wrong with it. Nil: any text is canonical. In a template a capture
	// is a word of letters and digits that begins with "qzc" and ends with "czq".
	Canonical func(string) (string, error)
}

// A Setting is an attribute a protocol adds to HCL.
type Setting struct {
	Name    string
	Kind    SettingKind
	Default any // string, bool, int64, or []string, by Kind
	Enum    []string
	Min     int64
	Max     int64 // 0: no limit
	Doc     string
}

// SettingKind is the type of a Setting.
type SettingKind uint8

const (
	StringSetting SettingKind = iota + 1
	BoolSetting
	IntSetting
	StringsSetting
)

// Options are the values of settings by name, defaults filled in, checked when they were loaded.
type Options map[string]any

// String, Bool, Int and Strings give the named option, or the zero value.
func (o Options) String(name string) string    { s, _ := o[name].(string); return s }
func (o Options) Bool(name string) bool        { b, _ := o[name].(bool); return b }
func (o Options) Int(name string) int64        { n, _ := o[name].(int64); return n }
func (o Options) Strings(name string) []string { l, _ := o[name].([]string); return l }

// A Config is one wrapper block, checked.
type Config struct {
	Protocol string
	Name     string
	// Listener is open already (the host opens it, so that a reload can tell what changed and a
	// taken port is known before anything starts); nil for an attached wrapper. TLS is not
	// applied to it. Packet is its counterpart for datagram protocols.
	Listener  net.Listener
	Packet    net.PacketConn
	TLS       *tls.Config // nil: plain
	Upstreams []Upstream  // empty for a virtual wrapper
	// Refuse: a relay refuses what no bind maps instead of passing it.
	Refuse    bool
	Anonymous Access // what a peer that did not log on may do; virtual only
	Logon     Logon
	Limits    Limits
	Options   Options
	Drain     time.Duration // how long Serve may take to finish what is in flight
	Endpoint  string        // mark of this gateway's own writes: "spookgw/<domain>/<endpoint>"
	Log       *slog.Logger  // has protocol and wrapper set
}

// Relay, Virtual and Attached are the three ways to stand.
func (c *Config) Relay() bool    { return c.listens() && len(c.Upstreams) > 0 }
func (c *Config) Virtual() bool  { return c.listens() && len(c.Upstreams) == 0 }
func (c *Config) Attached() bool { return !c.listens() }

func (c *Config) listens() bool { return c.Listener != nil || c.Packet != nil }

// An Upstream is one real server.
type Upstream struct {
	Server string // its key in HCL, "" when there is only one
	Scheme string
	Addr   string // host:port, dialled over "unix" when it begins with /
	Path   string // of the URL: base path, database
	User   string
	// Password is a function so that no print of a Config can show it.
	Password func() string
	TLS      *tls.Config // nil: plain
}

// Network is what Addr is dialled over: "unix" or "tcp".
func (u *Upstream) Network() string {
	if strings.HasPrefix(u.Addr, "/") {
		return "unix"
	}
	return "tcp"
}

// Access is what someone may do.
type Access uint8

const (
	NoAccess Access = iota
	ReadAccess
	WriteAccess // and read
)

// A Logon checks credentials against the configuration's users.
type Logon interface {
	// Password returns the user's principal, or ErrDenied. It takes equally long for a wrong
	// user and a wrong password.
	Password(ctx context.Context, user, password string) (principal string, err error)
	// Scram gives what a server checks a SCRAM-SHA-256 exchange with (RFC 5802, section 3), and the user's principal. For
	// who is no user it gives known false, and keys that fit no password, so that an exchange shows no difference.
	Scram(user string) (keys ScramKeys, principal string, known bool)
	// Any tells whether any user is configured.
	Any() bool
}

// ScramKeys are made of a password, and do not tell it.
type ScramKeys struct {
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

// Limits bound what one peer can cost. The host fills in defaults.
type Limits struct {
	Frame     int           // bytes of one message or body; default 2 MiB
	Sessions  int           // at once; default 10,000
	PerHost   int           // unauthenticated sessions from one address before early random drop; default 100
	Queue     int           // bytes queued to a peer that does not read; default 1 MiB
	Handshake time.Duration // to authenticate or send the first request head; default 30 s
	Idle      time.Duration // without a byte; 0: the protocol's own rule
}

// OrDefault gives what is not set its default.
func (l Limits) OrDefault() Limits {
	if l.Frame <= 0 {
		l.Frame = 2 << 20
	}
	if l.Sessions <= 0 {
		l.Sessions = 10_000
	}
	if l.PerHost <= 0 {
		l.PerHost = 100
	}
	if l.Queue <= 0 {
		l.Queue = 1 << 20
	}
	if l.Handshake <= 0 {
		l.Handshake = 30 * time.Second
	}
	return l
}
