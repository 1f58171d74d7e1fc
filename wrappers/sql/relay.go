package sql

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// relayServer is the wrapper in front of a real server.
func (d *database) relayServer() *relay.Server {
	w := d.w
	rs := &relay.Server{
		Door: relay.Door{
			Listener: w.cfg.Listener, Sessions: w.cfg.Limits.Sessions, PerHost: w.cfg.Limits.PerHost,
			Handshake: w.cfg.Limits.Handshake, Count: d.link.Count, Log: w.cfg.Log,
		},
		Dial:   w.dial,
		Handle: d.handle,
		Down: func(error) []byte {
			return errorResponse("FATAL", stateConnectNow, "the database behind this gateway can't be reached")
		},
		Queue: w.cfg.Limits.Queue,
		Idle:  w.cfg.Limits.Idle,
		Drain: w.cfg.Drain,
	}
	if w.cfg.TLS == nil {
		rs.Full = errorResponse("FATAL", stateTooManyConns, "too many connections")
	} else {
		rs.Greet = w.greet
	}
	return rs
}

// dial opens a connection to the upstream, with TLS where its scheme says so.
func (w *wrapper) dial(ctx context.Context) (net.Conn, error) {
	up := &w.cfg.Upstreams[0]
	var d net.Dialer
	conn, err := d.DialContext(ctx, up.Network(), up.Addr)
	if err != nil || up.TLS == nil {
		return conn, err
	}
	tc, err := w.startTLS(ctx, conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return tc, nil
}

// startTLS asks the server for TLS, as a client does.
func (w *wrapper) startTLS(ctx context.Context, conn net.Conn) (net.Conn, error) {
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(at); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, sslRequest)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, err
	}
	if answer[0] != 'S' {
		return nil, errors.New("the server has no TLS: it wants ssl = on, or the upstream's scheme is postgres")
	}
	tc := tls.Client(conn, w.upstreamTLS())
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return tc, conn.SetDeadline(time.Time{})
}

// upstreamTLS is the configuration for the upstream's name; nil without TLS.
func (w *wrapper) upstreamTLS() *tls.Config {
	up := &w.cfg.Upstreams[0]
	if up.TLS == nil {
		return nil
	}
	cfg := up.TLS.Clone()
	cfg.NextProtos = []string{"postgresql"}
	if host, _, err := net.SplitHostPort(up.Addr); err == nil && cfg.ServerName == "" {
		cfg.ServerName = host
	}
	return cfg
}

// greet ends TLS at the gateway: on request, or from the first byte on as of PostgreSQL 17.
// Nothing else gets in without it but a cancel request, which libpq before 17 always sends plain.
func (w *wrapper) greet(ctx context.Context, conn net.Conn) (net.Conn, error) {
	handshake := func(conn net.Conn) (net.Conn, error) {
		cfg := w.cfg.TLS.Clone()
		cfg.NextProtos = []string{"postgresql"}
		tc := tls.Server(conn, cfg)
		return tc, tc.HandshakeContext(ctx)
	}
	for {
		var head [8]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		before := &replay{Conn: conn, head: head[:]}
		if head[0] == 0x16 { // a TLS record of the handshake (RFC 8446, section 5.1)
			return handshake(before)
		}
		s, _, err := parseStartup(append(head[:len(head):len(head)], make([]byte, 8)...))
		switch {
		case err != nil:
			return nil, err
		case s.code == sslRequest:
			if _, err := conn.Write([]byte{'S'}); err != nil {
				return nil, err
			}
			return handshake(conn)
		case s.code == gssRequest:
			if _, err := conn.Write([]byte{'N'}); err != nil {
				return nil, err
			}
			continue
		case s.code == cancelRequest:
			return before, nil
		}
		_, _ = conn.Write(errorResponse("FATAL", stateNotAuthorized, "this gateway wants TLS: sslmode=require"))
		return nil, errors.New("a client without TLS")
	}
}

// replay is a connection whose first bytes were read already.
type replay struct {
	net.Conn
	head []byte
}

func (r *replay) Read(b []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(b, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.Conn.Read(b)
}

// session looks at one client's frames. Both directions run on a goroutine of their own.
type session struct {
	d    *database
	s    *relay.Session
	peer string

	// Of the client's side.
	exact    *exact               // nil: its transactions don't say whose they are
	prepared map[string]statement // what was parsed, by name
	forgot   bool                 // there were more than are remembered
	asks     uint64               // ReadyForQuery it has asked for

	// Of the server's side.
	status byte // of the last ReadyForQuery
	dirty  bool // the transaction may have written something
	shown  bool // the registers have it
	wrote  bool // a statement of the transaction says that it did
	failed bool // the transaction came to nothing
	auth   bool
	ready  uint64 // ReadyForQuery that have come

	started atomic.Bool   // the session has begun
	asked   atomic.Bool   // the client has asked the server for TLS
	blind   atomic.Bool   // and got it
	pending atomic.Int32  // answers that are owed: ReadyForQuery
	idle    atomic.Bool   // outside of a transaction
	doubt   atomic.Uint64 // with capture = "sync": up to which ReadyForQuery something may have been written, whatever the tags say

	mu   sync.Mutex
	who  wrappers.Who
	app  string
	acts *act // of the transaction in progress, once it mentions a mapped table
}

// A statement is what is remembered of a prepared statement.
type statement struct {
	tables uint64
	text   string
	doubt  bool
}

// mostPrepared bounds the statements remembered of one session; of others it isn't known what they do.
const mostPrepared = 1000

func (d *database) handle(s *relay.Session) relay.Handler {
	peer := ""
	if a := s.Client(); a != nil {
		peer = a.String()
	}
	h := &session{d: d, s: s, peer: peer, who: wrappers.Who{Peer: peer}}
	h.idle.Store(true)
	if d.seal != nil {
		h.exact = newExact()
	}
	return h
}

// FromClient implements relay.Handler.
func (h *session) FromClient(b []byte) (relay.Step, error) {
	if h.blind.Load() {
		return relay.Step{Blind: true}, nil
	}
	if !h.started.Load() {
		return h.first(b)
	}
	if h.exact != nil {
		return h.exactFromClient(b)
	}
	n := 0
	for {
		size, err := frameSize(b[n:])
		switch {
		case err != nil:
			return relay.Step{}, h.refuse(stateProtocolViolation, err)
		case size == 0:
			return relay.Step{Pass: n, Need: frameHead}, nil
		case size > int64(h.d.w.cfg.Limits.Frame)+frameHead:
			h.d.link.Count("oversized", 1)
			return relay.Step{}, h.refuse(sqlstate(wrappers.ErrTooLarge), fmt.Errorf("a message of %d bytes is larger than this gateway passes (limits { frame })", size))
		}
		here := b[n:]
		if int64(len(here)) > size {
			here = here[:size]
		}
		if body := here[frameHead:]; interesting[here[0]] {
			// What is looked at stands at the beginning, and nearly always it is there already.
			if want := int(min(size, int64(h.looks()))); len(here) < want {
				return relay.Step{Pass: n, Need: want}, nil
			}
			if h.d.link.Recording() && !h.d.passing.stands() {
				if n > 0 {
					return relay.Step{Pass: n}, nil // what precedes it is on its way
				}
				h.d.passing.await(h.s.Context())
			}
			h.heard(here[0], body, int64(len(here)) < size)
		}
		n += len(here)
		if left := size - int64(len(here)); left > 0 {
			return relay.Step{Pass: n, Skip: left}, nil
		}
	}
}

// lookAt is how much of a statement is looked at, and lookSync, where it is to be known whether it writes.
const (
	lookAt   = 1024
	lookSync = 16 << 10
)

func (h *session) looks() int {
	if h.d.w.sync {
		return lookSync
	}
	return lookAt
}

// interesting are the frames of a client that say something about what it does.
var interesting = [256]bool{msgQuery: true, msgParse: true, msgBind: true, msgSync: true, msgFunction: true, msgTerminate: true}

func (h *session) refuse(code string, err error) error {
	return &relay.Refused{Say: errorResponse("FATAL", code, err.Error()), Err: err}
}

// first reads what a client begins with.
func (h *session) first(b []byte) (relay.Step, error) {
	if len(b) > 0 && b[0] == 0x16 { // TLS from the first byte on: for the server
		h.blind.Store(true)
		h.d.link.Count("blind_sessions", 1)
		return relay.Step{Blind: true}, nil
	}
	if h.asked.Load() {
		// The server's answer came before the client went on.
		h.asked.Store(false)
	}
	st, size, err := parseStartup(b)
	switch {
	case err != nil:
		h.d.link.Count("garbage", 1)
		return relay.Step{}, h.refuse(stateProtocolViolation, err)
	case size == 0:
		return relay.Step{}, nil
	case st.code == gssRequest:
		return relay.Step{Drop: size}, h.s.ToClient([]byte{'N'})
	case st.code == sslRequest:
		h.asked.Store(true)
		return relay.Step{Pass: size}, nil
	case st.code == cancelRequest:
		h.d.link.Count("cancels", 1)
		return relay.Step{Pass: size, Blind: true}, nil
	}
	h.started.Store(true)
	h.owes()
	h.mu.Lock()
	if user := st.params["user"]; user != "" {
		h.who.Principal = "sql/" + h.d.w.cfg.Name + ":" + user
	}
	h.app = st.params["application_name"]
	h.mu.Unlock()
	switch strings.ToLower(st.params["replication"]) {
	case "", "false", "off", "no", "0":
	default:
		if h.exact != nil {
			h.exact.mute.Store(true)
		}
	}
	return relay.Step{Pass: size}, nil
}

// owes notes that the server owes a ReadyForQuery.
func (h *session) owes() {
	h.asks++
	h.pending.Add(1)
}

// doubts notes that what the next ReadyForQuery ends may have written something.
func (h *session) doubts() { h.doubt.Store(h.asks + 1) }

// heard notes what a client's frame means. cut: there is more of it than is looked at.
func (h *session) heard(kind byte, body []byte, cut bool) {
	switch kind {
	case msgSync:
		h.owes()
	case msgFunction:
		h.doubts()
		h.owes()
	case msgQuery:
		text, _ := cstring(body)
		if h.d.doubts(text, cut) {
			h.doubts()
		}
		h.owes()
		if tables := h.tables(text); tables != 0 {
			h.act(statement{tables: tables, text: shortText(text)})
		}
	case msgParse:
		name, rest := cstring(body)
		text, _ := cstring(rest)
		st := statement{tables: h.tables(text), doubt: h.d.doubts(text, cut)}
		if st == (statement{}) {
			if h.prepared != nil {
				delete(h.prepared, string(name))
			}
			return
		}
		if h.prepared == nil {
			h.prepared = map[string]statement{}
		}
		if st.tables != 0 {
			st.text = shortText(text)
		}
		if _, known := h.prepared[string(name)]; known || len(h.prepared) < mostPrepared {
			h.prepared[string(name)] = st
		} else if st.doubt {
			h.forgot = true
		}
	case msgBind:
		if len(h.prepared) == 0 {
			return
		}
		_, rest := cstring(body)
		name, _ := cstring(rest)
		st, ok := h.prepared[string(name)]
		if st.doubt || !ok && h.forgot {
			h.doubts()
		}
		if st.tables != 0 {
			h.act(st)
		}
	}
}

// doubts tells whether a commit has to be waited for after a statement whose tag may say that it read.
func (d *database) doubts(text []byte, cut bool) bool {
	if !d.w.sync {
		return false
	}
	if cut {
		return true
	}
	var known harmless
	if p := d.pure.Load(); p != nil {
		known = *p
	}
	return known.doubts(text)
}

// tables are those that a statement may write. It allocates nothing.
func (h *session) tables(text []byte) uint64 {
	if h.d.w.attribute == "off" || reads(text) {
		return 0
	}
	bits := h.d.watched().in(text)
	if h.d.link.Recording() {
		bits |= 1 << mostWatched // also what changes tables that no bind maps is somebody's
	}
	return bits
}

// shortText is what is shown of a statement.
func shortText(text []byte) string {
	const most = 200
	if len(text) > most {
		return strings.ToValidUTF8(string(text[:most]), "") + "…"
	}
	return strings.ToValidUTF8(string(text), "")
}

// act notes that the transaction in progress mentions mapped tables.
func (h *session) act(st statement) {
	if h.exact != nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.acts == nil {
		h.acts = &act{who: h.who, app: h.app}
	}
	h.d.acts.mention(h.acts, st)
}

// FromServer implements relay.Handler.
func (h *session) FromServer(b []byte) (relay.Step, error) {
	if h.blind.Load() {
		return relay.Step{Blind: true}, nil
	}
	if h.asked.Load() && len(b) > 0 && b[0] != msgError {
		if b[0] == 'S' {
			h.blind.Store(true)
			h.d.link.Count("blind_sessions", 1)
			h.s.Welcome()
			return relay.Step{Pass: 1, Blind: true}, nil
		}
		h.asked.Store(false)
		return relay.Step{Pass: 1}, nil
	}
	n, complete := 0, -1
	for {
		size, err := frameSize(b[n:])
		if err != nil {
			return relay.Step{}, err
		}
		if size == 0 {
			return relay.Step{Pass: n, Need: frameHead}, nil
		}
		here := b[n:]
		if int64(len(here)) > size {
			here = here[:size]
		}
		if h.exact != nil {
			if st, taken := h.exactAnswer(b, n, here, size); taken {
				return st, nil
			}
		}
		switch here[0] {
		case msgError:
			h.failed, complete = true, -1
		case msgAuth, msgComplete, msgReady:
			if int64(len(here)) < size && size <= lookAt {
				return relay.Step{Pass: n, Need: int(size)}, nil
			}
			if here[0] == msgReady && h.mustWait(here) {
				if complete >= 0 {
					n = complete // the success itself waits, not only the word that the next may come
				}
				if n > 0 {
					return relay.Step{Pass: n}, nil // what precedes it is on its way
				}
				h.d.captured(h.s)
				h.shown = true
				continue
			}
			if here[0] == msgComplete {
				complete = n
			}
			h.answered(here[0], here[frameHead:])
		case msgNotice, msgParameter:
		default:
			complete = -1
		}
		n += len(here)
		if left := size - int64(len(here)); left > 0 {
			return relay.Step{Pass: n, Skip: left}, nil
		}
	}
}

// mustWait tells whether a ReadyForQuery says that a transaction is over which the registers are to have first.
func (h *session) mustWait(frame []byte) bool {
	return h.d.w.sync && (h.dirty || h.doubt.Load() > h.ready && !h.failed) && !h.shown && len(frame) > frameHead && frame[frameHead] == 'I'
}

// answered notes what a server's frame means.
func (h *session) answered(kind byte, body []byte) {
	switch kind {
	case msgAuth:
		if !h.auth && len(body) >= 4 && binary.BigEndian.Uint32(body) == 0 { // AuthenticationOk
			h.auth = true
			h.s.Welcome()
		}
	case msgComplete:
		tag, _ := cstring(body)
		h.dirty = h.dirty || tagWrites(tag)
		h.wrote = h.wrote || tagWrote(tag)
		h.failed = string(tag) == "ROLLBACK"
	case msgReady:
		if len(body) == 0 {
			return
		}
		h.ready++
		if h.pending.Add(-1) < 0 {
			h.pending.Store(0)
		}
		h.status = body[0]
		if h.exact != nil {
			h.exact.over(body[0])
		}
		idle := body[0] == 'I'
		h.idle.Store(idle)
		if !idle {
			return
		}
		h.dirty, h.shown = false, false
		h.mu.Lock()
		if h.acts != nil {
			if h.wrote && !h.failed {
				h.d.acts.end(h.acts)
				h.d.committed(h.acts)
			} else {
				h.d.acts.drop(h.acts)
			}
			h.acts = nil
		}
		h.mu.Unlock()
		h.wrote, h.failed = false, false
	}
}

// Busy implements relay.Handler.
func (h *session) Busy() bool {
	return h.started.Load() && !h.blind.Load() && (h.pending.Load() > 0 || !h.idle.Load())
}

// End implements relay.Handler.
func (h *session) End(error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.acts != nil {
		h.d.acts.end(h.acts)
		h.d.committed(h.acts) // who knows
		h.acts = nil
	}
}
