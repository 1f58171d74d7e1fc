package ldap

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A frontSession looks at the messages of one client's session. Both directions run on a goroutine of their own.
type frontSession struct {
	r    *front
	s    *relay.Session
	peer string

	// Of the client's side.
	begun   bool // something sound was read
	secured bool // its TLS ends here, or there is none to be had

	blind    atomic.Bool // nothing can be read any more
	layered  atomic.Bool // SASL may have agreed on a security layer, or TLS was let through: the next byte tells
	inFlight atomic.Int32
	held     atomic.Int32 // results that are held
	tracked  atomic.Int32 // len(open)

	mu       sync.Mutex
	who      wrappers.Who
	name     string             // DN that the client is bound as, "" while that isn't known
	open     map[int32]*request // those whose result matters, by message id
	saslUser string             // said in the SASL exchange that goes on
	groups   map[string]*group  // transactions, by their identifiers
}

// A request is one whose result matters.
type request struct {
	op     ldapwire.Op
	writes []noted      // what it changes
	bind   *bindAttempt // a logon
	ends   *group       // a transaction that it ends
	part   *group       // a transaction that it is a part of
	starts bool         // a transaction
	tls    bool         // StartTLS, let through
	taps   []wrappers.Operation
}

// noted is a write to an entry that wire knows of.
type noted struct {
	key string
	x   *write
}

// mostOpen bounds the requests of one session whose results are waited for, or held.
const mostOpen = 1000

func (r *front) handle(s *relay.Session) relay.Handler {
	peer := ""
	if a := s.Client(); a != nil {
		peer = a.String()
	}
	return &frontSession{r: r, s: s, peer: peer, who: wrappers.Who{Peer: peer}, secured: r.frontTLS() == nil, open: map[int32]*request{}}
}

var errPanic = errors.New("a panic")

var errGarbage = errors.New("a client doesn't speak LDAP")

// FromClient implements relay.Handler.
func (h *frontSession) FromClient(b []byte) (relay.Step, error) {
	n := 0
	for n < len(b) {
		if h.blind.Load() {
			return relay.Step{Pass: n, Blind: true}, nil
		}
		if b[n] != 0x30 {
			return h.notBER(b, n)
		}
		f, ok, err := ldapwire.ReadFrame(b[n:])
		switch {
		case err != nil:
			return relay.Step{}, h.end("garbage", ldapwire.ProtocolError, err)
		case !ok:
			return relay.Step{Pass: n, Need: len(b) - n + 1}, nil
		case f.Size > int64(h.r.cfg.Limits.Frame):
			return relay.Step{}, h.end("oversized", ldapwire.AdminLimitExceeded, fmt.Errorf("a message of %d bytes is larger than this gateway passes (limits { frame })", f.Size))
		}
		here := b[n:]
		whole := int64(len(here)) >= f.Size
		if whole {
			here = here[:f.Size]
		}
		if !h.begun {
			h.begun = true
			h.s.Welcome()
		}
		if h.looked(&f) {
			if n > 0 {
				return relay.Step{Pass: n}, nil // what precedes it goes first
			}
			if !whole {
				return relay.Step{Need: int(f.Size)}, nil
			}
			step, err := h.request(&f, here, b)
			if err != nil || step.Pass == 0 || step.Blind {
				return step, err
			}
		}
		if f.Op.Response() != 0 {
			h.inFlight.Add(1)
		}
		n += len(here)
		if !whole {
			return relay.Step{Pass: n, Skip: f.Size - int64(len(here))}, nil
		}
	}
	return relay.Step{Pass: n}, nil
}

// looked tells whether a request is decoded. Searches and comparisons pass as they are.
func (h *frontSession) looked(f *ldapwire.Frame) bool {
	if !h.secured || h.layered.Load() {
		return true
	}
	switch f.Op {
	case ldapwire.OpSearchRequest, ldapwire.OpCompareRequest:
		return h.r.cfg.Refuse || h.r.link.Recording()
	case ldapwire.OpUnbindRequest:
		return false
	}
	return true
}

// notBER deals with a message that begins as none of LDAP: TLS, or a SASL security layer.
func (h *frontSession) notBER(b []byte, n int) (relay.Step, error) {
	const handshake = 0x16 // a TLS record (RFC 8446, section 5.1)
	switch {
	case b[n] == handshake && !h.begun && n == 0 && h.r.frontTLS() != nil: // LDAP over TLS from the first byte on
		if err := h.s.ToTLS(nil, b, h.r.frontTLS()); err != nil {
			return relay.Step{}, err
		}
		h.secured = true
		return relay.Step{Drop: len(b)}, nil
	case h.layered.Load() || b[n] == handshake && !h.begun && n == 0:
		h.goBlind()
		return relay.Step{Pass: n, Blind: true}, nil
	}
	return relay.Step{}, h.end("garbage", ldapwire.ProtocolError, fmt.Errorf("%w: a message begins with %#x", errGarbage, b[n]))
}

// goBlind notes that the session can't be read from here on. What it writes the feed shows nonetheless.
func (h *frontSession) goBlind() {
	if h.blind.Swap(true) {
		return
	}
	h.s.Welcome()
	h.r.link.Count("blind_sessions", 1)
	if !h.r.saidBlind.Swap(true) {
		h.r.log().Warn("a session can't be read: its client and the server have agreed on encryption between them. It passes; what it changes is heard of from the server alone, and access blocks don't hold for it", "peer", h.peer)
	}
}

// end ends the session with a notice.
func (h *frontSession) end(count string, code ldapwire.ResultCode, err error) error {
	h.r.link.Count(count, 1)
	text := err.Error()
	if code == ldapwire.ProtocolError {
		text = "this is not LDAP"
	}
	return &relay.Refused{Say: disconnection(code, text), Err: err}
}

// answer says a result of the gateway's own to the client, in place of the server's.
func (h *frontSession) answer(f *ldapwire.Frame, code ldapwire.ResultCode, text string, size int) (relay.Step, error) {
	q := ldapwire.NewResponse(f.Op)
	if q == nil {
		return relay.Step{Drop: size}, nil
	}
	*q.Result() = ldapwire.LDAPResult{ResultCode: code, DiagnosticMessage: text}
	return relay.Step{Drop: size}, h.s.ToClient((&ldapwire.Message{MessageID: f.MessageID, Body: q}).Encode())
}

// track waits for the result of a request. False: there are too many of them.
func (h *frontSession) track(id int32, q *request) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.open)+int(h.held.Load()) >= mostOpen {
		return false
	}
	if was := h.open[id]; was != nil { // an id that is in use: the server will say what it thinks of it
		h.forget(was)
	}
	h.open[id] = q
	h.tracked.Store(int32(len(h.open)))
	return true
}

// take gives the request that a result is of; nil: none that matters.
func (h *frontSession) take(id int32) *request {
	if h.tracked.Load() == 0 {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.open[id]
	if q != nil {
		delete(h.open, id)
		h.tracked.Store(int32(len(h.open)))
	}
	return q
}

// forget ends what is noted of a request whose outcome isn't known. The feed tells whether anything came of it.
func (h *frontSession) forget(q *request) {
	for _, n := range q.writes {
		h.r.wire.end(n.key, n.x, true)
	}
}

// FromServer implements relay.Handler.
func (h *frontSession) FromServer(b []byte) (relay.Step, error) {
	n := 0
	for n < len(b) {
		if h.blind.Load() {
			return relay.Step{Pass: n, Blind: true}, nil
		}
		if b[n] != 0x30 {
			if h.layered.Load() {
				h.goBlind()
				return relay.Step{Pass: n, Blind: true}, nil
			}
			return relay.Step{}, fmt.Errorf("the server's message begins with %#x", b[n])
		}
		f, ok, err := ldapwire.ReadFrame(b[n:])
		if err != nil {
			return relay.Step{}, fmt.Errorf("the server: %w", err)
		}
		if !ok {
			return relay.Step{Pass: n, Need: len(b) - n + 1}, nil
		}
		here := b[n:]
		whole := int64(len(here)) >= f.Size
		if whole {
			here = here[:f.Size]
		}
		if f.Op.Result() {
			switch {
			case h.tracked.Load() == 0 || f.Op == ldapwire.OpSearchResultDone || f.Op == ldapwire.OpCompareResponse:
			case f.Size > int64(h.r.cfg.Limits.Frame): // with the entry as it was, say: too large to hold
				if q := h.take(f.MessageID); q != nil {
					h.forget(q)
					h.r.link.Count("capture_late", 1)
				}
			case !whole:
				return relay.Step{Pass: n, Need: int(f.Size)}, nil
			default:
				if hold := h.result(&f, here, n); hold != nil {
					if n > 0 {
						return relay.Step{Pass: n}, nil // and it comes again
					}
					h.done()
					hold()
					return relay.Step{Drop: len(here)}, nil
				}
			}
			if f.MessageID == 0 {
				h.r.link.Count("notices", 1)
			} else {
				h.done()
			}
		}
		n += len(here)
		if !whole {
			return relay.Step{Pass: n, Skip: f.Size - int64(len(here))}, nil
		}
	}
	return relay.Step{Pass: n}, nil
}

// done counts a request that has its result.
func (h *frontSession) done() {
	if h.inFlight.Add(-1) < 0 {
		h.inFlight.Store(0) // of one that was abandoned
	}
}

// result notes what a result means. Where it is to be held it gives what holds it, and, while other frames go first (n > 0),
// changes nothing.
func (h *frontSession) result(f *ldapwire.Frame, frame []byte, n int) (hold func()) {
	code, err := f.ResultCodeOf(frame)
	if err != nil {
		return nil // the client will say what it thinks of it
	}
	if code == ldapwire.Success && h.r.opts.sync && h.waits(f.MessageID) {
		if n > 0 {
			return func() {}
		}
		h.held.Add(1) // before it is open no more: both count
		q := h.take(f.MessageID)
		h.ended(q, code)
		copied := slices.Clone(frame)
		return func() { h.hold(copied) }
	}
	q := h.take(f.MessageID)
	if q == nil {
		return nil
	}
	switch {
	case q.bind != nil:
		h.bound(q.bind, code)
	case q.tls && code == ldapwire.Success:
		h.layered.Store(true)
	case q.starts:
		h.started(f, frame, code)
	}
	h.ended(q, code)
	return nil
}

// waits tells whether the registers are to have what the request did before its client is told.
func (h *frontSession) waits(id int32) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	q := h.open[id]
	return q != nil && q.part == nil && (len(q.writes) > 0 || q.ends != nil && q.ends.commit && len(q.ends.writes) > 0)
}

// ended notes for the feed what became of a request's writes.
func (h *frontSession) ended(q *request, code ldapwire.ResultCode) {
	accepted := code == ldapwire.Success
	for _, t := range q.taps {
		outcome := "passed"
		if !accepted {
			outcome = "refused: " + code.String()
		}
		h.r.link.Tap(t, outcome)
	}
	switch {
	case q.part != nil:
		if accepted {
			h.mu.Lock()
			q.part.writes = append(q.part.writes, q.writes...) // until the transaction ends
			h.mu.Unlock()
			return
		}
	case q.ends != nil:
		for _, n := range q.ends.writes {
			h.r.wire.end(n.key, n.x, accepted && q.ends.commit)
		}
	}
	for _, n := range q.writes {
		h.r.wire.end(n.key, n.x, accepted)
	}
}

// hold says a result, which is counted as held already, once the registers have what it is of. Other messages pass meanwhile.
func (h *frontSession) hold(frame []byte) {
	go func() {
		defer h.held.Add(-1)
		defer func() {
			if p := recover(); p != nil {
				h.r.link.Count("panics", 1)
				h.r.log().Error("panic over a held result", "peer", h.peer, "panic", p, "stack", string(debug.Stack()))
				h.s.Close(errPanic)
			}
		}()
		h.r.captured(h.s.Context())
		_ = h.s.ToClient(frame) // a client that is gone has seen no success
	}()
}

// Busy implements relay.Handler.
func (h *frontSession) Busy() bool {
	return !h.blind.Load() && (h.inFlight.Load() > 0 || h.held.Load() > 0)
}

// End implements relay.Handler.
func (h *frontSession) End(error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, q := range h.open {
		h.forget(q)
		delete(h.open, id)
	}
	for _, g := range h.groups {
		for _, n := range g.writes {
			h.r.wire.end(n.key, n.x, false)
		}
	}
	h.groups = nil
}
