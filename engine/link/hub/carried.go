package hub

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/link"
)

// Sessions between two members, as those of a pair are, with subjects for a line. NATS may lose what it carries, so that
// frames are numbered; what is lost ends the session, and the next one begins with what both then have.

var (
	errGap   = errors.New("a frame of the session was lost")
	errGone  = errors.New("nobody is there")
	errEnded = errors.New("done")
)

// A line is a session's connection.
type line struct {
	conn *nats.Conn
	in   *nats.Subscription
	got  chan *nats.Msg

	mu   sync.Mutex
	to   string // subject of the peer
	sent uint64
	had  uint64
}

// pendingMost bounds what is kept of frames that were not read yet: beyond it they are lost, and the session ends.
const pendingMost = 8192

func newLine(conn *nats.Conn, to string) (l *line, err error) {
	l = &line{conn: conn, to: to, got: make(chan *nats.Msg, pendingMost)}
	l.in, err = conn.ChanSubscribe(conn.NewRespInbox(), l.got)
	return l, err
}

func (l *line) close() { _ = l.in.Unsubscribe() } // the connection may be gone

// write sends a frame.
func (l *line) write(raw []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := nats.NewMsg(l.to)
	m.Reply = l.in.Subject
	l.sent++
	m.Header.Set(headKind, sessionKind)
	m.Data = append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(raw)), l.sent), raw...)
	return l.conn.PublishMsg(m)
}

// frame checks what came, and gives the frame.
func (l *line) frame(m *nats.Msg) ([]byte, error) {
	if m.Header.Get("Status") == "503" {
		return nil, errGone
	}
	if len(m.Data) < 8 {
		return nil, invalid("a frame of %d bytes", len(m.Data))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.had++
	if n := binary.BigEndian.Uint64(m.Data); n != l.had {
		return nil, fmt.Errorf("%w: number %d where %d is due", errGap, n, l.had)
	}
	if m.Reply != "" {
		l.to = m.Reply
	}
	return m.Data[8:], nil
}

// run drives a session. step is called after each frame that came and each second, and ends it by saying so.
func (h *Hub) run(ctx context.Context, l *line, s *link.Session, wake <-chan struct{}, step func() (done bool, err error)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer l.close()
	var wait sync.WaitGroup
	var one sync.Mutex
	look := func() {
		one.Lock()
		defer one.Unlock()
		if done, err := step(); err != nil {
			cancel(err)
		} else if done {
			cancel(errEnded)
		}
	}
	wait.Go(func() {
		for {
			select {
			case m := <-l.got:
				raw, err := l.frame(m)
				if err == nil {
					err = s.Handle(ctx, raw)
				}
				if err != nil {
					cancel(err)
					return
				}
				look()
			case <-ctx.Done():
				return
			}
		}
	})
	wait.Go(func() {
		for ctx.Err() == nil {
			raw, err := s.Next(ctx)
			if err == nil && raw != nil {
				err = l.write(raw)
			}
			if err != nil {
				cancel(err)
				return
			}
			if raw != nil {
				continue
			}
			select {
			case <-wake:
			case <-ctx.Done():
			}
		}
	})
	wait.Go(func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				if err := s.Tick(ctx); err != nil {
					cancel(err)
					return
				}
				look()
			case <-ctx.Done():
				return
			}
		}
	})
	<-ctx.Done()
	wait.Wait()
	cause := context.Cause(ctx)
	if errors.Is(cause, errEnded) || errors.Is(cause, context.Canceled) {
		s.Leave()
	}
	// The last word, if there is one.
	if raw, err := s.Next(context.WithoutCancel(ctx)); err == nil && raw != nil && !errors.Is(cause, errGone) {
		_ = l.write(raw) // it ends anyway
	}
	if err := s.Close(); err != nil {
		return err
	}
	if errors.Is(cause, errEnded) || errors.Is(cause, link.ErrStopping) {
		return nil
	}
	return cause
}

func waker() (wake chan struct{}, changed func()) {
	wake = make(chan struct{}, 1)
	return wake, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

// servingMost bounds the sessions that others have begun.
const servingMost = 8

// called begins the session of a member who calls, with its first frame.
func (r *round) called(first *nats.Msg, wait *sync.WaitGroup) {
	h := r.h
	h.mu.Lock()
	busy := h.serving >= servingMost
	if !busy {
		h.serving++
	}
	h.mu.Unlock()
	if busy || first.Reply == "" {
		if first.Reply != "" {
			m := nats.NewMsg(first.Reply)
			m.Header.Set("Status", "503")
			_ = h.conn.PublishMsg(m) // it calls another
		}
		return
	}
	wait.Go(func() {
		defer func() {
			h.mu.Lock()
			h.serving--
			h.mu.Unlock()
		}()
		l, err := newLine(h.conn, first.Reply)
		if err != nil {
			return
		}
		l.got <- first
		var peer engine.EndpointID
		wake, changed := waker()
		s, err := h.o.Site.Carry(r.ctx, false, peer, func(id engine.EndpointID, _ engine.OriginID) error {
			h.mu.Lock()
			defer h.mu.Unlock()
			if h.members[id] == nil {
				return errors.New("a node that was not heard on the hub yet")
			}
			peer = id
			return nil
		}, changed)
		if err != nil {
			l.close()
			return
		}
		err = h.run(r.ctx, l, s, wake, func() (bool, error) { return false, nil })
		h.sessionOver(peer, s, err)
		r.look()
	})
}

// sessionOver adds up what a session did.
func (h *Hub) sessionOver(peer engine.EndpointID, s *link.Session, err error) {
	f := s.Figures()
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.members[peer]
	if m == nil {
		return
	}
	m.figures.Add(f)
	if err != nil && h.ctx.Err() == nil {
		if text := err.Error(); text != m.failure {
			h.o.Log.Info("hub: a session ended", "site", m.name, "error", err)
			m.failure = text
		}
		m.failed = h.o.Now()
	}
}

// talk calls a member. step is as for run; it gets the session.
func (r *round) talk(ctx context.Context, m *member, step func(*link.Session) (bool, error)) error {
	h := r.h
	h.mu.Lock()
	if h.dialing[m.endpoint] {
		h.mu.Unlock()
		return link.ErrBusy
	}
	h.dialing[m.endpoint] = true
	m.tried = time.Now()
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.dialing, m.endpoint)
		h.mu.Unlock()
	}()
	l, err := newLine(h.conn, h.names.control+tokenOf(m.endpoint))
	if err != nil {
		return err
	}
	wake, changed := waker()
	s, err := h.o.Site.Carry(ctx, true, m.endpoint, func(engine.EndpointID, engine.OriginID) error { return nil }, changed)
	if err != nil {
		l.close()
		return err
	}
	err = h.run(ctx, l, s, wake, func() (bool, error) { return step(s) })
	h.sessionOver(m.endpoint, s, err)
	return err
}

// Compare tells which registers a member holds otherwise than this node.
func (h *Hub) Compare(ctx context.Context, name string) (*link.Comparison, error) {
	m, err := h.find(name)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	r := h.round
	h.mu.Unlock()
	if r == nil {
		return nil, fmt.Errorf("%w: this node is not on the hub", engine.ErrUnavailable)
	}
	var found *link.Comparison
	var failed error
	asked, over := false, false
	var mu sync.Mutex
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	for {
		err = r.talk(ctx, m, func(s *link.Session) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			if !asked && s.Level() {
				asked = true
				go func() {
					err := s.Compare(func(c *link.Comparison, err error) {
						mu.Lock()
						defer mu.Unlock()
						found, failed, over = c, err, true
					})
					if err != nil {
						mu.Lock()
						defer mu.Unlock()
						failed, over = err, true
					}
				}()
			}
			return over, nil
		})
		if !errors.Is(err, link.ErrBusy) {
			break
		}
		if !r.pause(50 * time.Millisecond) { // this node talks to it already
			break
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if found == nil && failed == nil {
		failed = fmt.Errorf("%w: %q does not answer", engine.ErrUnavailable, m.name)
		if err != nil {
			failed = fmt.Errorf("%w: %w", failed, err)
		}
	}
	return found, failed
}
