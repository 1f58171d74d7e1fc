package virtual

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A session is one connection. Requests are read by one goroutine; what writes, and what looks at one entry, is done there, in
// order; searches of more than one entry and what listens run beside it.
type session struct {
	s      *server
	peer   *relay.Peer
	conn   net.Conn // peer, or TLS over it
	secure *tls.Conn
	in     *bufio.Reader
	ctx    context.Context
	cancel context.CancelFunc

	outMu sync.Mutex
	out   *bufio.Writer

	who   wrappers.Who // of the last bind
	name  string       // DN it was made with, "" without
	fails int          // binds that failed, one behind the other
	sasl  *saslExchange

	mu      sync.Mutex
	running map[int32]*operation
	leaving atomic.Bool

	pages pages
}

// An operation is a request that runs beside its session.
type operation struct {
	cancel   context.CancelFunc
	canceled chan struct{} // closed when a Cancel wants its answer
	silent   bool          // abandoned: it is not answered
	done     chan struct{}
}

// Bounds of one session.
const (
	mostRunning   = 64               // operations beside each other
	writePatience = 30 * time.Second // for a peer that does not read
)

var errSlowPeer = errors.New("the peer does not read")

// A patientWriter gives every write a deadline.
type patientWriter struct{ net.Conn }

func (w patientWriter) Write(b []byte) (int, error) {
	if err := w.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

func (s *server) serve(ctx context.Context, p *relay.Peer) {
	defer p.Close()
	se := &session{s: s, peer: p, conn: p, running: map[int32]*operation{}}
	se.who.Peer = p.RemoteAddr().String()
	se.ctx, se.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer se.cancel()
	se.in, se.out = bufio.NewReaderSize(p, 16<<10), bufio.NewWriterSize(patientWriter{p}, 32<<10)
	s.sessionsMu.Lock()
	s.sessions[se] = struct{}{}
	s.sessionsMu.Unlock()
	if ctx.Err() != nil {
		se.leave()
	}
	defer func() {
		s.sessionsMu.Lock()
		delete(s.sessions, se)
		s.sessionsMu.Unlock()
	}()
	select {
	case <-s.follower.ready:
	case <-ctx.Done():
	}
	if err := se.maybeTLS(); err != nil {
		s.link.Count("tls_failed", 1)
		return
	}
	se.run()
}

// maybeTLS begins TLS where a client does: LDAPS on the same port (its first byte is that of a TLS record).
func (se *session) maybeTLS() error {
	if se.s.cfg.TLS == nil {
		return nil
	}
	first, err := se.in.Peek(1)
	if err != nil || first[0] != 0x16 {
		return nil
	}
	return se.startTLS()
}

// A readAhead is a connection of which some bytes have been read already.
type readAhead struct {
	*relay.Peer
	in io.Reader
}

func (r readAhead) Read(b []byte) (int, error) { return r.in.Read(b) }

func (se *session) startTLS() error {
	c := tls.Server(readAhead{se.peer, se.in}, se.s.cfg.TLS)
	ctx, cancel := context.WithTimeout(se.ctx, max(se.s.cfg.Limits.Handshake, time.Second))
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	se.secure, se.conn = c, c
	se.outMu.Lock()
	defer se.outMu.Unlock()
	se.in, se.out = bufio.NewReaderSize(c, 16<<10), bufio.NewWriterSize(patientWriter{c}, 32<<10)
	return nil
}

// leave ends the session when nothing of it is at work.
func (se *session) leave() {
	se.leaving.Store(true)
	_ = se.peer.SetReadDeadline(time.Unix(1, 0)) // wakes the reader; a connection that is closed shows there too
}

// run reads requests until the session ends.
func (se *session) run() {
	defer se.finish()
	for {
		raw, f, err := se.read()
		if err == nil {
			err = se.handle(raw, &f)
		}
		var end *ending
		switch {
		case err == nil:
			continue
		case errors.As(err, &end):
			se.part(end.code, end.why)
		case se.leaving.Load():
			se.stopAll()
			se.part(ldapwire.Unavailable, "the server is being stopped")
		case errors.Is(err, ldapwire.ErrMalformed):
			se.s.link.Count("malformed", 1)
			se.part(ldapwire.ProtocolError, err.Error())
		}
		return
	}
}

// An ending is why the server closes a session; nil of its code: without a word.
type ending struct {
	code ldapwire.ResultCode
	why  string
}

func (e *ending) Error() string { return e.why }

// errUnbound ends a session as its client wants it.
var errUnbound = errors.New("unbound")

func (se *session) part(code ldapwire.ResultCode, why string) {
	se.outMu.Lock()
	defer se.outMu.Unlock()
	_, _ = se.out.Write(notice(code, why))
	_ = se.out.Flush() // the session ends anyhow
}

// finish waits for what runs beside the session.
func (se *session) finish() {
	se.cancel()
	se.stopAll()
	se.pages.forget(se.s)
	_ = se.write(nil, true) // what is answered before an unbind
	_ = se.conn.Close()
}

// stopAll cancels what runs and waits until it has ended.
func (se *session) stopAll() {
	for {
		se.mu.Lock()
		var one *operation
		for _, o := range se.running {
			o.cancel()
			one = o
		}
		se.mu.Unlock()
		if one == nil {
			return
		}
		<-one.done
	}
}

// read reads one message.
func (se *session) read() (raw []byte, f ldapwire.Frame, err error) {
	if se.leaving.Load() {
		return nil, f, os.ErrDeadlineExceeded
	}
	if idle := se.s.cfg.Limits.Idle; idle > 0 && (se.who.Verified || se.s.cfg.Anonymous >= wrappers.ReadAccess) && !se.leaving.Load() {
		if err := se.peer.SetReadDeadline(time.Now().Add(idle)); err != nil {
			return nil, f, err
		}
		if se.leaving.Load() {
			se.leave()
		}
	}
	for n := 2; ; n++ {
		if err := se.flushBefore(n); err != nil {
			return nil, f, err
		}
		head, err := se.in.Peek(n)
		if err != nil {
			return nil, f, err
		}
		if b := se.in.Buffered(); b > n {
			head, _ = se.in.Peek(min(b, 64)) // they are there
		}
		got, ok, err := ldapwire.ReadFrame(head)
		if err != nil {
			return nil, f, err
		}
		if limit := se.s.cfg.Limits.Frame; limit > 0 && got.Size > int64(limit) {
			se.s.link.Count("oversized", 1)
			return nil, f, &ending{ldapwire.ProtocolError, fmt.Sprintf("a message of %d bytes; at most %d are taken", got.Size, limit)}
		}
		if ok {
			f = got
			break
		}
	}
	if err := se.flushBefore(int(f.Size)); err != nil {
		return nil, f, err
	}
	raw = make([]byte, f.Size)
	if _, err := io.ReadFull(se.in, raw); err != nil {
		return nil, f, err
	}
	return raw, f, nil
}

// flushBefore sends what is answered before a read of n bytes that has to wait.
func (se *session) flushBefore(n int) error {
	if se.in.Buffered() >= n {
		return nil
	}
	return se.write(nil, true)
}

// send writes messages, and flushes them if nothing more is to be answered at once.
func (se *session) send(m *ldapwire.Message) error { return se.write(m.Encode(), true) }

func (se *session) write(b []byte, flush bool) error {
	se.outMu.Lock()
	defer se.outMu.Unlock()
	_, err := se.out.Write(b)
	if err == nil && flush {
		err = se.out.Flush()
	}
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			se.s.link.Count("slow_peers", 1)
		}
		se.cancel()
		_ = se.conn.Close()
		return fmt.Errorf("%w: %w", errSlowPeer, err)
	}
	return nil
}

// answer sends the response that ends a request.
func (se *session) answer(id int32, to ldapwire.Op, r ldapwire.LDAPResult, controls ...ldapwire.Control) error {
	body := ldapwire.NewResponse(to)
	*body.Result() = r
	return se.write((&ldapwire.Message{MessageID: id, Body: body, Controls: controls}).Encode(), !se.more())
}

// more tells whether another request is read already, so that its answer can go with this one.
func (se *session) more() bool { return se.in.Buffered() > 0 }

func failed(code ldapwire.ResultCode, format string, args ...any) ldapwire.LDAPResult {
	return ldapwire.LDAPResult{ResultCode: code, DiagnosticMessage: fmt.Sprintf(format, args...)}
}

// refused is the result for an error of the link.
func (s *server) refused(err error) ldapwire.LDAPResult {
	var v *result
	if errors.As(err, &v) {
		return v.LDAPResult
	}
	code := s.result(err)
	if wrappers.Kind(err) == wrappers.ErrUnavailable {
		s.log.Warn("an operation failed", "err", err)
	}
	return ldapwire.LDAPResult{ResultCode: code, DiagnosticMessage: wrappers.Reason(err)}
}

// A result is an LDAPResult on its way up.
type result struct{ ldapwire.LDAPResult }

func (r *result) Error() string { return r.ResultCode.String() + ": " + r.DiagnosticMessage }

func fail(code ldapwire.ResultCode, format string, args ...any) error {
	return &result{failed(code, format, args...)}
}

// handle does one request.
func (se *session) handle(raw []byte, f *ldapwire.Frame) error {
	if !f.Op.Request() {
		return fmt.Errorf("%w: %s is no request", ldapwire.ErrMalformed, f.Op)
	}
	m, err := ldapwire.Decode(raw)
	if err != nil {
		return err
	}
	switch q := m.Body.(type) {
	case *ldapwire.UnbindRequest:
		return errUnbound
	case *ldapwire.AbandonRequest:
		se.abandon(q.MessageID)
		return nil
	}
	if m.MessageID == 0 {
		return fmt.Errorf("%w: a request with the message ID 0", ldapwire.ErrMalformed)
	}
	se.mu.Lock()
	_, twice := se.running[m.MessageID]
	se.mu.Unlock()
	if twice {
		return &ending{ldapwire.ProtocolError, "a message ID that another request has"}
	}
	if se.sasl != nil {
		if _, bind := m.Body.(*ldapwire.BindRequest); !bind {
			se.sasl = nil
		}
	}
	if q, bind := m.Body.(*ldapwire.BindRequest); bind {
		return se.bind(m, q)
	}
	if se.s.cfg.TLS != nil && se.secure == nil && !harmless(m) {
		return se.answer(m.MessageID, f.Op, failed(ldapwire.ConfidentialityRequired, "TLS is required: begin it with StartTLS"))
	}
	if c := unknownCritical(m); c != "" {
		return se.answer(m.MessageID, f.Op, failed(ldapwire.UnavailableCriticalExtension, "critical control %s is not known for %s", c, f.Op))
	}
	if se.s.cfg.Anonymous >= wrappers.ReadAccess {
		se.peer.Welcome()
	}
	switch q := m.Body.(type) {
	case *ldapwire.SearchRequest:
		return se.searchRequest(m, q)
	case *ldapwire.ExtendedRequest:
		return se.extended(m, q)
	case *ldapwire.CompareRequest:
		r, err := se.compare(q, m.Controls)
		if err != nil {
			r = se.s.refused(err)
		}
		return se.answer(m.MessageID, f.Op, r)
	}
	controls, err := se.change(m)
	r := ldapwire.LDAPResult{}
	if err != nil {
		r = se.s.refused(err)
	}
	return se.answer(m.MessageID, f.Op, r, controls...)
}

// harmless tells of what may be asked before TLS: what the server is, and TLS itself.
func harmless(m *ldapwire.Message) bool {
	switch q := m.Body.(type) {
	case *ldapwire.SearchRequest:
		return q.BaseObject == "" && q.Scope == ldapwire.ScopeBaseObject
	case *ldapwire.ExtendedRequest:
		return q.Name == ldapwire.OIDStartTLS
	}
	return false
}

// beside runs an operation beside the session; do gives the message that ends its answer.
func (se *session) beside(m *ldapwire.Message, to ldapwire.Op, do func(ctx context.Context, o *operation) *ldapwire.Message) error {
	ctx, cancel := context.WithCancel(se.ctx)
	o := &operation{cancel: cancel, canceled: make(chan struct{}), done: make(chan struct{})}
	se.mu.Lock()
	full := len(se.running) >= mostRunning
	if !full {
		se.running[m.MessageID] = o
	}
	se.mu.Unlock()
	if full {
		cancel()
		return se.answer(m.MessageID, to, failed(ldapwire.Busy, "more than %d operations at once", mostRunning))
	}
	se.s.work.Add(1)
	go func() {
		defer se.s.work.Done()
		defer close(o.done)
		defer func() {
			se.mu.Lock()
			delete(se.running, m.MessageID)
			se.mu.Unlock()
		}()
		defer cancel()
		defer se.s.door.Recover(se.peer)
		end := do(ctx, o)
		se.mu.Lock()
		silent := o.silent
		se.mu.Unlock()
		select {
		case <-o.canceled:
			body := ldapwire.NewResponse(to)
			*body.Result() = failed(ldapwire.Canceled, "canceled")
			end = &ldapwire.Message{MessageID: m.MessageID, Body: body}
		default:
		}
		if !silent && end != nil {
			_ = se.send(end) // a session that broke ends by itself
		}
	}()
	return nil
}

// abandon ends an operation without an answer (RFC 4511, section 4.11).
func (se *session) abandon(id int32) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if o := se.running[id]; o != nil {
		o.silent = true
		o.cancel()
	}
}
