package link

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/spooksystems/gateway/engine"
)

// A Listener is the door for peers who call, for the sites of one process, of which each is of another domain.
type Listener struct {
	log    *slog.Logger
	socket net.Listener
	server *http.Server
	done   chan struct{}

	mu    sync.Mutex
	sites map[string]*Site // by the name that is called
}

// Listen opens the door at a socket, which it takes over.
func Listen(socket net.Listener, log *slog.Logger, sites ...*Site) *Listener {
	l := &Listener{log: log, socket: socket, done: make(chan struct{}), sites: map[string]*Site{}}
	for _, s := range sites {
		l.sites[serverName(s.self.endpoint)] = s
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			s := l.site(hello.ServerName)
			if s == nil {
				return nil, errors.New("no such endpoint here")
			}
			return s.self.called(s.admits), nil
		},
	}
	l.server = &http.Server{
		Handler: http.HandlerFunc(l.serve), ReadHeaderTimeout: callTimeout, MaxHeaderBytes: 8 << 10,
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
	}
	go func() {
		defer close(l.done)
		_ = l.server.Serve(tls.NewListener(timedListener{socket}, config)) // it ends when Close is called
	}()
	return l
}

type connKey struct{}

type timedListener struct{ net.Listener }

// Accept implements net.Listener.
func (l timedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: Heartbeat, Interval: Heartbeat, Count: 3})
	}
	return timed(c), nil
}

// Addr is where the door is.
func (l *Listener) Addr() net.Addr { return l.socket.Addr() }

func (l *Listener) site(name string) *Site {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sites[name]
}

func (l *Listener) serve(w http.ResponseWriter, r *http.Request) {
	secure, _ := r.Context().Value(connKey{}).(*tls.Conn)
	if secure == nil || r.TLS == nil || r.URL.Path != pairPath {
		http.Error(w, "this is where sites meet: a WebSocket at "+pairPath, http.StatusNotFound)
		return
	}
	s := l.site(r.TLS.ServerName)
	endpoint, key, err := whoIs(*r.TLS)
	t, _ := secure.NetConn().(*timedConn)
	if s == nil || err != nil || t == nil {
		http.Error(w, "no such endpoint here", http.StatusMisdirectedRequest)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		l.log.Debug("sites: a call that is no WebSocket", "peer", t.RemoteAddr(), "error", err)
		return
	}
	_ = secure.SetReadDeadline(time.Time{}) // silence is the session's to notice
	s.serve(newSocketConn(ws, t), endpoint, key)
}

// Close shuts the door, and ends what came in by it.
func (l *Listener) Close() error {
	err := l.socket.Close()
	l.mu.Lock()
	sites := l.sites
	l.sites = map[string]*Site{}
	l.mu.Unlock()
	for _, s := range sites {
		s.endCalled()
	}
	err = errors.Join(err, l.server.Close())
	<-l.done
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// admits says whether somebody may come in who has said nothing yet: a peer, or anybody while there is an invitation.
func (s *Site) admits(endpoint engine.EndpointID, key [32]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pairs[endpoint]; p != nil && p.record.Key == key {
		return nil
	}
	if endpoint == s.self.endpoint && key == s.self.key {
		return nil // a clone: it has to be heard to be told
	}
	now := s.o.Now()
	for _, o := range s.offers {
		if now.Before(o.Expires) {
			return nil
		}
	}
	return errors.New("neither a peer nor invited")
}
