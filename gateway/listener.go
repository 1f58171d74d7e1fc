package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// A socket is one listening address. The host holds it for as long as the configuration names the
// address, and points it at the present run of the wrapper that has it. A wrapper that fails, or
// that a reload restarts, closes only what it was lent: the port never closes in between, and
// peers that dial meanwhile wait in the backlog instead of being refused.
type socket struct {
	net.Listener
	log  *slog.Logger
	done chan struct{}
	wait sync.WaitGroup

	mu      sync.Mutex
	to      *lent
	changed chan struct{} // closed when to changes
}

// openSocket listens on host:port.
func openSocket(ctx context.Context, address string, log *slog.Logger) (*socket, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &socket{Listener: l, log: log, done: make(chan struct{}), changed: make(chan struct{})}
	s.wait.Go(s.accept)
	return s, nil
}

// accept hands connections on, one at a time: while nobody takes them the kernel queues the rest.
func (s *socket) accept() {
	const first = 5 * time.Millisecond
	pause := first
	for {
		c, err := s.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, as a rule: it passes, and dying of it would make it worse.
			s.log.Warn("accepting a connection failed; trying again", "address", s.Addr().String(), "error", err)
			select {
			case <-time.After(pause):
			case <-s.done:
				return
			}
			pause = min(2*pause, time.Second)
			continue
		}
		pause = first
		if !s.deliver(c) {
			_ = c.Close()
			return
		}
	}
}

func (s *socket) deliver(c net.Conn) bool {
	for {
		s.mu.Lock()
		to, changed := s.to, s.changed
		s.mu.Unlock()
		var conns chan<- net.Conn
		if to != nil {
			conns = to.conns
		}
		select {
		case conns <- c:
			return true
		case <-changed:
		case <-s.done:
			return false
		}
	}
}

// point sends what is accepted from now on to l; nil: it waits.
func (s *socket) point(l *lent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.to = l
	close(s.changed)
	s.changed = make(chan struct{})
}

// unpoint ends it if it still is l's.
func (s *socket) unpoint(l *lent) {
	s.mu.Lock()
	mine := s.to == l
	s.mu.Unlock()
	if mine {
		s.point(nil)
	}
}

func (s *socket) shut() {
	close(s.done)
	_ = s.Close()
	s.wait.Wait()
}

// A lent is the listener one run of a wrapper gets: all its addresses in one.
type lent struct {
	sockets []*socket
	conns   chan net.Conn
	done    chan struct{}
	once    sync.Once

	files int    // open, at which further peers are turned away; 0: never
	away  func() // one was
}

func lend(sockets []*socket) *lent {
	l := &lent{sockets: sockets, conns: make(chan net.Conn), done: make(chan struct{})}
	for _, s := range sockets {
		s.point(l)
	}
	return l
}

// Accept implements net.Listener.
func (l *lent) Accept() (net.Conn, error) {
	for {
		c, ok := l.next()
		if !ok {
			return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
		}
		if l.files == 0 || openFiles(c) < l.files {
			return c, nil
		}
		_ = c.Close()
		l.away()
	}
}

func (l *lent) next() (c net.Conn, ok bool) {
	select { // a closed listener takes no more, also when both are ready
	case <-l.done:
		return nil, false
	default:
	}
	select {
	case c := <-l.conns:
		return c, true
	case <-l.done:
		return nil, false
	}
}

// Close implements net.Listener: the sockets stay open, for the next run.
func (l *lent) Close() error {
	l.once.Do(func() {
		close(l.done)
		for _, s := range l.sockets {
			s.unpoint(l)
		}
	})
	return nil
}

// Addr is the first address.
func (l *lent) Addr() net.Addr { return l.sockets[0].Addr() }
