package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
)

// A door lets applications in over a Unix socket, mode 0600: whoever may open it may read and
// write every register, as the operating system's user they are.
type door struct {
	path    string
	socket  net.Listener
	calls   map[string]method
	log     *slog.Logger
	counted func(method, outcome string)
	ctx     context.Context
	cancel  context.CancelFunc
	wait    sync.WaitGroup

	mu       sync.Mutex
	sessions map[*session]bool
}

// maxDoorSessions is how many applications may be in at once.
const maxDoorSessions = 256

// A method answers one call. What it returns is the result; nil stands for an empty object.
type method func(ctx context.Context, s *session, params json.RawMessage) (any, error)

// openSocketPath listens at path. A socket that nobody answers at was left by a process that is
// gone, and is replaced.
func openSocketPath(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("the socket's path is longer than the system's %d bytes: %s", maxSocketPath, path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("%s is there and not a socket", path)
	default:
		if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("%w %s", errSocketTaken, path)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Made in a directory that nobody else can enter, the socket is never open to others, not even
	// between bind and chmod; only then does it get its name.
	private, err := os.MkdirTemp(filepath.Dir(path), ".s")
	if err != nil {
		return nil, err
	}
	defer os.Remove(private)
	temporary := filepath.Join(private, "s")
	if len(temporary) > maxSocketPath {
		return nil, fmt.Errorf("the socket's path is too long: %s", path)
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", temporary)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	err = os.Chmod(temporary, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(temporary)
		return nil, err
	}
	return l, nil
}

var errSocketTaken = errors.New("another gateway answers at")

// maxSocketPath is what sockaddr_un holds on every system, less the terminating NUL.
const maxSocketPath = 103

func newDoor(socket net.Listener, path string, calls map[string]method, log *slog.Logger, counted func(method, outcome string)) *door {
	d := &door{path: path, socket: socket, calls: calls, log: log, counted: counted, sessions: map[*session]bool{}}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wait.Go(d.accept)
	return d
}

func (d *door) accept() {
	for {
		conn, err := d.socket.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Warn("daemon: accepting a connection failed", "error", err)
			select {
			case <-time.After(50 * time.Millisecond):
				continue
			case <-d.ctx.Done():
				return
			}
		}
		d.wait.Go(func() { d.serve(conn) })
	}
}

// serve is one application's session. Its trouble is its own.
func (d *door) serve(conn net.Conn) {
	s := &session{door: d, conn: conn, subs: map[int64]*openSub{}, slots: make(chan struct{}, wire.MaxCalls)}
	s.ctx, s.cancel = context.WithCancel(d.ctx)
	defer s.end()
	uid, known := peerUID(conn)
	if known && uid != 0 && uid != os.Geteuid() {
		d.log.Warn("daemon: refused a process of another user", "uid", uid)
		return
	}
	s.principal, s.verified = principalOf(uid, known), known
	d.mu.Lock()
	full := len(d.sessions) >= maxDoorSessions
	if !full {
		d.sessions[s] = true
	}
	d.mu.Unlock()
	if full {
		s.send(wire.AppendError(nil, 0, false, &wire.Error{Code: wire.CodeFailure, Message: fmt.Sprintf("more than %d connections", maxDoorSessions)}))
		return
	}
	context.AfterFunc(s.ctx, func() { _ = conn.Close() })
	s.read()
}

// principalOf names the user behind a connection.
func principalOf(uid int, known bool) string {
	if !known {
		return ""
	}
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return "uid:" + id
}

func (d *door) close() {
	_ = d.socket.Close()
	_ = os.Remove(d.path)
	d.cancel()
	d.wait.Wait()
}

// A session is one connection. Calls are answered as they are done, MaxCalls at once; whoever
// needs an order waits for the answer.
type session struct {
	door      *door
	conn      net.Conn
	ctx       context.Context
	cancel    context.CancelFunc
	principal string
	verified  bool
	slots     chan struct{}
	wait      sync.WaitGroup
	write     sync.Mutex

	mu      sync.Mutex
	greeted bool
	domain  *domain // that the session is about; set by the first hello, before any other call
	nextSub int64
	subs    map[int64]*openSub
}

func (s *session) end() {
	s.cancel()
	_ = s.conn.Close()
	s.wait.Wait()
	s.door.mu.Lock()
	delete(s.door.sessions, s)
	s.door.mu.Unlock()
}

func (s *session) read() {
	r := wire.NewReader(s.conn, wire.MaxDepth)
	for {
		m, err := r.Next()
		switch {
		case err == nil:
			if !s.take(m) {
				return
			}
		case errors.Is(err, wire.ErrSyntax):
			s.refuse(m, wire.CodeSyntax, err)
		case errors.Is(err, wire.ErrForm), errors.Is(err, wire.ErrTooLong):
			s.refuse(m, wire.CodeForm, err)
		default:
			if !errors.Is(err, io.EOF) && s.ctx.Err() == nil {
				s.door.log.Debug("daemon: a connection broke", "error", err)
			}
			return
		}
		if s.ctx.Err() != nil {
			return
		}
	}
}

// refuse answers what could not be read; the next line is a new message.
func (s *session) refuse(m wire.Message, code int, err error) {
	s.door.counted("illegible", "error")
	s.send(wire.AppendError(nil, m.ID, m.HasID, &wire.Error{Code: code, Message: err.Error()}))
}

// take starts one call; false ends the session.
func (s *session) take(m wire.Message) bool {
	if m.Method == "" {
		s.refuse(m, wire.CodeForm, fmt.Errorf("%w: the daemon asks nothing, so nothing is to be answered", wire.ErrForm))
		return true
	}
	if !m.HasID {
		s.notified(m)
		return true
	}
	call, known := s.door.calls[m.Method]
	s.mu.Lock()
	greeted := s.greeted
	s.mu.Unlock()
	switch {
	case !known:
		s.door.counted("unknown", "error")
		s.send(wire.AppendError(nil, m.ID, true, &wire.Error{Code: wire.CodeMethod, Message: fmt.Sprintf("no method %.60q", m.Method)}))
		return true
	case !greeted && m.Method != "hello":
		s.send(wire.AppendError(nil, m.ID, true, &wire.Error{Code: wire.CodeForm, Message: "the first call is hello"}))
		return true
	case m.Method == "close":
		s.answer(m, nil, nil)
		return false
	case m.Method == "hello":
		// Answered before the next line is read: what follows may rely on it.
		result, err := call(s.ctx, s, m.Params)
		s.mu.Lock()
		s.greeted = greeted || err == nil
		s.mu.Unlock()
		s.answer(m, result, err)
		return true
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	s.wait.Go(func() {
		defer func() { <-s.slots }()
		result, err := s.guarded(call, m)
		s.answer(m, result, err)
	})
	return true
}

// guarded keeps a panic in one call from taking the process along.
func (s *session) guarded(call method, m wire.Message) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.door.log.Error("daemon: panic in a call", "method", m.Method, "panic", p)
			err = fmt.Errorf("internal error in %s", m.Method)
		}
	}()
	return call(s.ctx, s, m.Params)
}

// A shrinker can leave something out to fit into one message.
type shrinker interface{ shrunk() any }

func (s *session) answer(m wire.Message, result any, err error) {
	var line []byte
	if err == nil {
		line, err = wire.AppendResult(nil, m.ID, result)
		if small, ok := result.(shrinker); ok && errors.Is(err, wire.ErrTooLong) {
			line, err = wire.AppendResult(nil, m.ID, small.shrunk())
		}
	}
	outcome := "ok"
	if err != nil {
		outcome = "error"
		line = wire.AppendError(nil, m.ID, true, errorForm(err, m))
	}
	s.door.counted(m.Method, outcome)
	s.send(line)
	if sub, ok := result.(*openSub); ok && err == nil {
		s.start(sub)
	}
}

// send writes one line. A peer that does not read holds up its own session and nothing else.
func (s *session) send(line []byte) bool {
	s.write.Lock()
	_, err := s.conn.Write(line)
	s.write.Unlock()
	if err != nil {
		s.cancel()
	}
	return err == nil
}

// An openSub is one subscription of a session.
type openSub struct {
	ID  int64 `json:"sub"`
	ctx context.Context
	end context.CancelFunc
	run func(ctx context.Context, sub *openSub) error
	// room is how much may be sent; below zero: as much as the connection takes.
	mu    sync.Mutex
	room  int64
	wake  chan struct{}
	owner *session
}

// subscribe makes a subscription, which starts once its id has been answered.
func (s *session) subscribe(params json.RawMessage, run func(ctx context.Context, sub *openSub) error) (*openSub, error) {
	room := int64(-1)
	if err := wire.Members(params, wire.Member{Name: "credit", Into: &room}); err != nil {
		return nil, paramError(err)
	}
	if room > wire.MaxCredit {
		return nil, paramError(fmt.Errorf("credit above %d", wire.MaxCredit))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.subs) >= wire.MaxSubs {
		return nil, paramError(fmt.Errorf("more than %d subscriptions", wire.MaxSubs))
	}
	s.nextSub++
	sub := &openSub{ID: s.nextSub, run: run, room: room, wake: make(chan struct{}, 1), owner: s}
	sub.ctx, sub.end = context.WithCancel(s.ctx)
	s.subs[sub.ID] = sub
	return sub, nil
}

func (s *session) start(sub *openSub) {
	s.wait.Go(func() {
		err := sub.run(sub.ctx, sub)
		s.mu.Lock()
		_, still := s.subs[sub.ID]
		delete(s.subs, sub.ID)
		s.mu.Unlock()
		sub.end()
		if still && s.ctx.Err() == nil && err != nil {
			if line, err := wire.AppendCall(nil, 0, false, "ended", map[string]any{"sub": sub.ID, "error": errorForm(err, wire.Message{})}); err == nil {
				s.send(line)
			}
		}
	})
}

func (s *session) unsubscribe(id int64) bool {
	s.mu.Lock()
	sub := s.subs[id]
	delete(s.subs, id)
	s.mu.Unlock()
	if sub != nil {
		sub.end()
	}
	return sub != nil
}

// notified takes a call without an id: credit and unobserve; others have no effect.
func (s *session) notified(m wire.Message) {
	var id, n int64
	if wire.Members(m.Params, wire.Member{Name: "sub", Into: &id}, wire.Member{Name: "n", Into: &n}) != nil {
		return
	}
	switch m.Method {
	case "unobserve":
		s.unsubscribe(id)
	case "credit":
		s.mu.Lock()
		sub := s.subs[id]
		s.mu.Unlock()
		if sub != nil && n > 0 {
			sub.grant(n)
		}
	}
}

func (sub *openSub) grant(n int64) {
	sub.mu.Lock()
	if sub.room >= 0 {
		sub.room = min(sub.room+min(n, wire.MaxCredit), wire.MaxCredit)
	}
	sub.mu.Unlock()
	select {
	case sub.wake <- struct{}{}:
	default:
	}
}

// take waits until one more notification may be sent.
func (sub *openSub) take(ctx context.Context) error {
	for {
		sub.mu.Lock()
		ok := sub.room != 0
		if sub.room > 0 {
			sub.room--
		}
		sub.mu.Unlock()
		if ok {
			return ctx.Err()
		}
		select {
		case <-sub.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tell sends one notification, as soon as there is credit. small is sent instead when params is
// too long for one message.
func (sub *openSub) tell(ctx context.Context, method string, params any, small func() any) error {
	if err := sub.take(ctx); err != nil {
		return err
	}
	line, err := wire.AppendCall(nil, 0, false, method, params)
	if errors.Is(err, wire.ErrTooLong) && small != nil {
		line, err = wire.AppendCall(nil, 0, false, method, small())
	}
	if err != nil {
		return err
	}
	if !sub.owner.send(line) {
		return context.Canceled
	}
	return nil
}
