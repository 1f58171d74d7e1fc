// Package virtual is a PostgreSQL server without a database: each table that binds make of registers is read and written
// where the registers are, and SQLite evaluates what is asked of them.
package virtual

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// Options are what the wrapper brings.
type Options struct {
	Config   wrappers.Config
	Database string // the one name it answers to; "": any
	// State gives the SQLSTATE for an error of the link.
	State func(error) string
}

// A server is the virtual server at work.
type server struct {
	Options
	link    wrappers.Link
	log     *slog.Logger
	started time.Time
	pools   atomic.Pointer[pool]
	plans   plans
	hub     hub
	pids    atomic.Uint32
	mu      sync.Mutex
	live    map[uint32]*session
	drain   <-chan struct{}
}

// Serve answers clients until ctx ends.
func Serve(ctx context.Context, o Options, link wrappers.Link) error {
	s := &server{Options: o, link: link, log: o.Config.Log, started: time.Now(), live: map[uint32]*session{}, drain: ctx.Done()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.hub.server = s
	changed := s.reload()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-changed:
				changed = s.reload()
			case <-ctx.Done():
				return
			}
		}
	}()
	cfg := &s.Config
	door := &relay.Door{
		Listener: cfg.Listener, Sessions: cfg.Limits.Sessions, PerHost: cfg.Limits.PerHost, Handshake: cfg.Limits.Handshake,
		Full: fatal("53300", "sorry, too many clients already"), Count: link.Count, Log: s.log,
	}
	stop := context.AfterFunc(ctx, s.goodbye)
	defer stop()
	err := door.Serve(ctx, cfg.Drain, func(p *relay.Peer) { s.serve(ctx, p) })
	<-done
	s.hub.stop()
	s.pools.Load().close()
	return err
}

// reload makes tables of the binds in force, and tells when there are others.
func (s *server) reload() <-chan struct{} {
	patterns, changed := s.link.Patterns()
	tables := tablesOf(patterns, func(table, why string) {
		s.log.Warn("a table is not as its bind has it", "table", table, "why", why)
	})
	if old := s.pools.Swap(newPool(tables)); old != nil {
		old.close()
		s.plans.forget()
	}
	return changed
}

// enter gives a session its number, by which others can cancel what it does.
func (s *server) enter(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		se.pid = s.pids.Add(1) & math.MaxInt32
		if se.pid != 0 && s.live[se.pid] == nil {
			break
		}
	}
	n := 4
	if se.minor >= 2 {
		n = 32
	}
	se.secret = make([]byte, n)
	_, _ = rand.Read(se.secret) // never fails
	s.live[se.pid] = se
}

func (s *server) leave(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live[se.pid] == se {
		delete(s.live, se.pid)
	}
}

// cancel ends what a session is doing, if the secret is its own.
func (s *server) cancel(pid uint32, secret []byte) {
	s.mu.Lock()
	se := s.live[pid]
	s.mu.Unlock()
	if se != nil && subtle.ConstantTimeCompare(se.secret, secret) == 1 {
		se.interrupt(errCanceled)
		s.link.Count("canceled", 1)
	}
}

// cancelPID is pg_cancel_backend(): of the same user's sessions.
func (s *server) cancelPID(pid uint32, by *session) bool {
	s.mu.Lock()
	se := s.live[pid]
	s.mu.Unlock()
	if se == nil || se.who.Principal != by.who.Principal {
		return false
	}
	se.interrupt(errCanceled)
	return true
}

// goodbye ends idle sessions when the server stops; those at work end behind their transaction's statement.
func (s *server) goodbye() {
	s.mu.Lock()
	live := make([]*session, 0, len(s.live))
	for _, se := range s.live {
		live = append(live, se)
	}
	s.mu.Unlock()
	for _, se := range live {
		se.leaveIfIdle()
	}
}

func (s *server) activity() []rec {
	s.mu.Lock()
	live := make([]*session, 0, len(s.live))
	for _, se := range s.live {
		live = append(live, se)
	}
	s.mu.Unlock()
	slices.SortFunc(live, func(a, b *session) int { return int(a.pid) - int(b.pid) })
	var out []rec
	for _, se := range live {
		out = append(out, rec{"datid": databaseOID, "datname": se.database, "pid": int(se.pid), "usesysid": ownerOID, "usename": se.user,
			"backend_start": pgsql.TimeText(se.began), "backend_type": "client backend"})
	}
	return out
}

// fatal is a whole ErrorResponse for a peer that is turned away.
func fatal(code, message string) []byte {
	body := []byte("SFATAL\x00VFATAL\x00C" + code + "\x00M" + message + "\x00\x00")
	b := append([]byte{'E'}, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b[1:], uint32(len(body)+4))
	return append(b, body...)
}
