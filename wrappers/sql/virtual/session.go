package virtual

import (
	"context"
	"errors"
	"net"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A session is one client.
type session struct {
	server   *server
	conn     net.Conn
	peer     *relay.Peer
	tls      bool
	minor    int // of protocol 3
	inbox    inbox
	user     string
	database string
	who      wrappers.Who
	began    time.Time
	pid      uint32
	secret   []byte
	settings *settings
	regexps  map[string]*regexp.Regexp
	asked    string // the search path as it was last looked at
	meant    string // what it is, with who the user is where that matters

	prepared map[string]*prepared
	portals  map[string]*portal

	tx       *tx // of BEGIN, or what has not been committed since the last Sync
	block    bool
	failed   bool // the block can only be rolled back
	readOnly bool
	saves    []savepoint
	before   *settings // of the block: what a rollback restores
	local    map[string]string
	txNow    time.Time
	txid     int64
	listens  []func()
	redo     *redo
	skip     bool // until Sync, after an error in the extended protocol

	mu      sync.Mutex // guards what follows, against notifications and cancels
	out     []byte
	sent    int64 // bytes written before out
	idle    bool
	waiting []notification
	closed  bool
	cancel  context.CancelCauseFunc
}

type savepoint struct {
	name string
	mark int
}

// A prepared statement.
type prepared struct {
	sql    string
	types  []pgsql.OID // as the client gave them
	params []pgsql.OID
	st     *pgsql.Statement
	under  circumstances // in which st was made
}

// Bounds of a session.
const (
	mostPrepared = 5_000
	mostPortals  = 500
	flushAt      = 32 << 10
	holdAtMost   = 1 << 20
	outBuffer    = 4 << 10
)

var errCanceled = &pgsql.Error{Code: "57014", Message: "canceling statement due to user request"}
var errTimeout = &pgsql.Error{Code: "57014", Message: "canceling statement due to statement timeout"}
var errShutdown = &pgsql.Error{Code: "57P01", Message: "terminating connection due to administrator command"}
var errAborted = &pgsql.Error{Code: "25P02", Message: "current transaction is aborted, commands ignored until end of transaction block"}

func (se *session) schema() *schema { return se.server.pools.Load().schema }

// path is the search path.
func (se *session) path() []string {
	v, _ := se.settings.show("search_path")
	var out []string
	for _, p := range strings.Split(v, ",") {
		p = strings.Trim(strings.TrimSpace(p), `"'`)
		if p == "$user" {
			p = se.user
		}
		if p != "" {
			out = append(out, p)
		}
	}
	return out
}

func (se *session) schemaExists(name string) bool {
	for _, n := range se.schema().schemas() {
		if n == name {
			return true
		}
	}
	return false
}

func (se *session) visible(o pgsql.OID) bool {
	f := finder{se.schema(), se.path()}
	for _, t := range se.schema().tables {
		if t.OID == o || indexOID(t) == int64(o) {
			return f.Find("", t.Name) == &t.Table
		}
	}
	for i := range catalogue {
		if catalogue[i].OID == o {
			return catalogue[i].Schema == "pg_catalog"
		}
	}
	return false
}

// outPool has buffers for what is about to be written. A session holds one only while it has something to say.
var outPool = sync.Pool{New: func() any { return new([outBuffer]byte) }}

// room gives what waits to be written, to append to.
func (se *session) room() []byte {
	if se.out == nil {
		se.out = outPool.Get().(*[outBuffer]byte)[:0]
	}
	return se.out
}

// giveBack gives the buffer back when there is nothing in it.
func (se *session) giveBack() {
	if len(se.out) > 0 {
		return
	}
	if cap(se.out) == outBuffer {
		outPool.Put((*[outBuffer]byte)(se.out[:outBuffer]))
	}
	se.out = nil
}

// send puts a message behind those that wait to be written.
func (se *session) send(m pgproto3.BackendMessage) {
	se.mu.Lock()
	defer se.mu.Unlock()
	out, err := m.Encode(se.room())
	if err != nil {
		se.server.log.Warn("a message can't be written", "err", err)
		return
	}
	se.out = out
}

// at is the place of what is sent next.
func (se *session) at() int64 {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.sent + int64(len(se.out))
}

// unsend takes back what was sent from a place on, if none of it has left.
func (se *session) unsend(at int64) bool {
	se.mu.Lock()
	defer se.mu.Unlock()
	if at < se.sent {
		return false
	}
	se.out = se.out[:at-se.sent]
	return true
}

func (se *session) flush() error {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.flushLocked()
}

func (se *session) flushLocked() error {
	if len(se.out) == 0 {
		return nil
	}
	_ = se.conn.SetWriteDeadline(time.Now().Add(writePatience))
	_, err := se.conn.Write(se.out)
	se.sent += int64(len(se.out))
	if se.out = se.out[:0]; cap(se.out) > 2*flushAt {
		se.out = nil
	}
	return err
}

// flushSome writes when there is much; more may be held back while it could still be unsaid.
func (se *session) flushSome() error {
	se.mu.Lock()
	defer se.mu.Unlock()
	limit := flushAt
	if se.redo != nil {
		limit = holdAtMost
	}
	if len(se.out) < limit {
		return nil
	}
	return se.flushLocked()
}

// tell gives the session a notification: at once if it is idle, else with the end of its transaction.
func (se *session) tell(n notification) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.closed {
		return
	}
	if !se.idle {
		if se.waiting = append(se.waiting, n); len(se.waiting) > mostWaiting {
			se.closed = true
			se.server.link.Count("slow_listeners", 1)
			_ = se.conn.Close()
		}
		return
	}
	se.out = appendNotification(se.room(), n)
	_ = se.conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
	_, err := se.conn.Write(se.out)
	se.sent += int64(len(se.out))
	se.out = se.out[:0]
	se.giveBack()
	if err != nil {
		se.closed = true
		_ = se.conn.Close()
	}
}

func appendNotification(dst []byte, n notification) []byte {
	m := pgproto3.NotificationResponse{PID: n.pid, Channel: n.channel, Payload: n.payload}
	out, err := m.Encode(dst)
	if err != nil {
		return dst
	}
	return out
}

// interrupt ends what is being evaluated.
func (se *session) interrupt(why error) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.cancel != nil {
		se.cancel(why)
	}
}

// leaveIfIdle ends an idle session because the server stops.
func (se *session) leaveIfIdle() {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.idle && !se.closed && !se.block {
		se.closed = true
		se.out = append(se.out, fatal(errShutdown.Code, errShutdown.Message)...)
		_ = se.flushLocked()
		_ = se.conn.Close()
	}
}

func (se *session) fatal(code, message string) {
	se.send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message})
	_ = se.flush()
}

func (se *session) fatalError(err error) {
	e := se.server.words(err)
	se.fatal(e.Code, e.Message)
}

// words gives an error as a client is told of it.
func (s *server) words(err error) *pgsql.Error {
	var e *pgsql.Error
	if errors.As(err, &e) {
		return e
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return errTimeout
	case errors.Is(err, context.Canceled):
		return errCanceled
	}
	kind := wrappers.Kind(err)
	e = &pgsql.Error{Code: "XX000", Message: wrappers.Reason(err)}
	if s.State != nil {
		e.Code = s.State(err)
	}
	if kind == wrappers.ErrConflict {
		e.Code, e.Message, e.Detail = "40001", "could not serialize access due to concurrent update", wrappers.Reason(err)
		e.Hint = "The transaction might succeed if retried."
	}
	if kind == wrappers.ErrUnavailable {
		s.log.Warn("a statement failed", "err", err)
	}
	return e
}

// complain sends an ErrorResponse.
func (se *session) complain(err error) {
	e := se.server.words(err)
	se.send(&pgproto3.ErrorResponse{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint, Position: int32(e.Position)})
}

func (se *session) warn(code, message string) {
	se.send(&pgproto3.NoticeResponse{Severity: "WARNING", SeverityUnlocalized: "WARNING", Code: code, Message: message})
}

// ready says that the session waits for a command.
func (se *session) ready() {
	status := byte('I')
	switch {
	case se.block && se.failed:
		status = 'E'
	case se.block:
		status = 'T'
	}
	se.mu.Lock()
	if !se.block {
		for _, n := range se.waiting {
			se.out = appendNotification(se.room(), n)
		}
		se.waiting = nil
	}
	se.mu.Unlock()
	se.send(&pgproto3.ReadyForQuery{TxStatus: status})
}

// loop reads messages until the client leaves.
func (se *session) loop(ctx context.Context) {
	se.ready()
	for {
		if se.flush() != nil {
			return
		}
		se.mu.Lock()
		se.idle = !se.block
		for se.idle && len(se.waiting) > 0 {
			se.out = appendNotification(se.room(), se.waiting[0])
			se.waiting = se.waiting[1:]
		}
		err := se.flushLocked()
		se.giveBack() // a session may be idle for long
		closed := se.closed
		se.mu.Unlock()
		if err != nil || closed {
			return
		}
		if ctx.Err() != nil && !se.block {
			se.fatal(errShutdown.Code, errShutdown.Message)
			return
		}
		more, err := se.receive()
		if err != nil || !more {
			return
		}
	}
}

// receive reads messages up to one behind which the client waits for an answer.
func (se *session) receive() (more bool, err error) {
	for {
		var deadline time.Time
		if se.block && se.settings.idle > 0 {
			deadline = time.Now().Add(se.settings.idle)
		} else if d := se.server.Config.Limits.Idle; d > 0 {
			deadline = time.Now().Add(d)
		}
		_ = se.conn.SetReadDeadline(deadline)
		msg, err := se.inbox.receive()
		se.mu.Lock()
		se.idle = false
		se.mu.Unlock()
		if err != nil {
			se.broken(err)
			return false, err
		}
		switch m := msg.(type) {
		case *pgproto3.Query:
			se.simple(m.String)
			se.ready()
			return true, nil
		case *pgproto3.Terminate:
			return false, nil
		case *pgproto3.Sync:
			se.sync()
			se.ready()
			return true, nil
		case *pgproto3.Flush:
			if err := se.flush(); err != nil {
				return false, err
			}
		case *pgproto3.FunctionCall:
			se.complain(pgsql.Errorf(pgsql.FeatureNotSupported, "function calls by number are not supported here"))
			se.ready()
			return true, nil
		case *pgproto3.CopyData, *pgproto3.CopyDone, *pgproto3.CopyFail:
			// Left over from a COPY that failed.
		default:
			if !se.skip {
				if err := se.extended(msg); err != nil {
					se.skip = true
					se.complain(err)
					se.abort()
				}
				if err := se.flushSome(); err != nil {
					return false, err
				}
			}
		}
	}
}

// broken tells a peer why it loses its session.
func (se *session) broken(err error) {
	var over *oversized
	var timeout net.Error
	switch {
	case errors.As(err, &over):
		se.server.link.Count("oversized", 1)
		se.fatal("54000", "the message is longer than this server takes")
	case errors.As(err, &timeout) && timeout.Timeout():
		if se.block {
			se.fatal("25P03", "terminating connection due to idle-in-transaction timeout")
		} else {
			se.fatal("57P05", "terminating connection due to idle-session timeout")
		}
	case strings.Contains(err.Error(), "EOF"), errors.Is(err, net.ErrClosed), strings.Contains(err.Error(), "reset"):
	default:
		se.server.link.Count("garbage", 1)
		se.fatal("08P01", "invalid message")
	}
}

// end gives back what the session holds.
func (se *session) end() {
	se.mu.Lock()
	se.closed = true
	se.mu.Unlock()
	se.closePortals()
	se.server.hub.unlisten(se, "")
}
