// Package virtual is a directory server of registers: each that a bind gives an address is an entry below the base.
package virtual

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/dn"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// Options are what the server is started with, beyond its Config.
type Options struct {
	Base   dn.DN                               // the naming context; it has at least one RDN
	Result func(err error) ldapwire.ResultCode // the code for an error of the link
}

// A server is the directory at work.
type server struct {
	cfg     wrappers.Config
	result  func(err error) ldapwire.ResultCode
	base    dn.DN
	log     *slog.Logger
	link    wrappers.Link
	started time.Time
	boot    string // names this run: cookies of another one are not known

	tree     *tree
	follower *follower
	door     *relay.Door
	bound    atomic.Pointer[bound]

	schema    atomic.Pointer[schema.Schema]
	kinds     atomic.Pointer[entryKinds]
	subschema atomic.Pointer[record]
	schemaMu  sync.Mutex
	locals    int

	turns      turns
	held       atomic.Int64 // entries that searches between two pages have to come
	sessionsMu sync.Mutex
	sessions   map[*session]struct{}
	work       sync.WaitGroup // operations that run beside their session
}

// entryKinds are the types of a schema as payloads need them.
type entryKinds struct {
	of    *schema.Schema
	types *entry.Types
}

// New makes the server.
func New(cfg wrappers.Config, o Options) (wrappers.Wrapper, error) {
	if len(o.Base) == 0 {
		return nil, fmt.Errorf("base: below which entry?")
	}
	s := &server{cfg: cfg, result: o.Result, base: o.Base, log: cfg.Log, sessions: map[*session]struct{}{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.follower = newFollower(s)
	return s, nil
}

// Serve implements wrappers.Wrapper.
func (s *server) Serve(ctx context.Context, link wrappers.Link) error {
	s.link, s.started = link, time.Now()
	var raw [6]byte
	_, _ = rand.Read(raw[:]) // never fails
	s.boot = hex.EncodeToString(raw[:])
	s.schema.Store(schema.Default())
	s.bound.Store(&bound{})
	s.tree = newTree(s)
	cfg := &s.cfg
	s.door = &relay.Door{
		Listener: cfg.Listener, Sessions: cfg.Limits.Sessions, PerHost: cfg.Limits.PerHost, Handshake: cfg.Limits.Handshake,
		Full: notice(ldapwire.Busy, "too many sessions"), Count: link.Count, Log: s.log,
	}
	if cfg.TLS != nil {
		s.door.Full = nil
	}
	// What is in flight when ctx ends may still wait for its own change.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	followed := make(chan struct{})
	go func() {
		defer close(followed)
		s.follower.run(life)
	}()
	stop := context.AfterFunc(ctx, s.goodbye)
	defer stop()
	err := s.door.Serve(ctx, cfg.Drain, func(p *relay.Peer) { s.serve(ctx, p) })
	end()
	<-followed
	s.work.Wait()
	return err
}

func (s *server) types() *schema.Schema { return s.schema.Load() }

// entryTypes are the attribute types as payloads need them.
func (s *server) entryTypes() *entry.Types {
	now := s.types()
	if k := s.kinds.Load(); k != nil && k.of == now {
		return k.types
	}
	t := &entry.Types{}
	for _, a := range now.AttributeTypes() {
		t.Add(entry.Type{Names: a.Names, OID: a.OID, Kind: entry.KindOf(a.SyntaxOID()), Single: a.SingleValue})
	}
	s.kinds.Store(&entryKinds{now, t})
	return t
}

// goodbye ends sessions when the server stops: those at work end behind what they are doing.
func (s *server) goodbye() {
	s.sessionsMu.Lock()
	defer s.sessionsMu.Unlock()
	for se := range s.sessions {
		se.leave()
	}
}

// notice is a Notice of Disconnection (RFC 4511, section 4.4.1).
func notice(code ldapwire.ResultCode, why string) []byte {
	m := ldapwire.Message{Body: &ldapwire.ExtendedResponse{
		LDAPResult: ldapwire.LDAPResult{ResultCode: code, DiagnosticMessage: why}, Name: ldapwire.OIDNoticeOfDisconnection,
	}}
	return m.Encode()
}
