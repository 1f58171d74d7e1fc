// Package embedded runs a NATS server with JetStream in this process: a hub for small set-ups and tests. Where a site has
// a NATS server of its own, that one serves as well.
package embedded

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options say how a hub is run.
type Options struct {
	Dir    string // its own: what it keeps is in there
	Listen string // host:port; "": reached from within this process alone
	// Leaf is where leaf nodes of other sites connect, host:port; "": none do.
	Leaf           string
	Token          string // that every client shows; "": none is asked for
	User, Password string // likewise
	TLS            *tls.Config
	MaxBytes       int64 // of everything it keeps; 0: 2 GiB
	Log            *slog.Logger
}

// A Server is a hub that runs.
type Server struct{ s *server.Server }

// Domain is the JetStream domain that it is in: what gateways behind a leaf node reach it by.
const Domain = "hub"

const readyWithin = 30 * time.Second

// Start starts a hub, and returns when it can be used.
func Start(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 2 << 30
	}
	so := &server.Options{
		ServerName: "spookgw-hub", JetStream: true, JetStreamDomain: Domain, StoreDir: o.Dir, JetStreamMaxStore: o.MaxBytes, JetStreamMaxMemory: 64 << 20,
		NoSigs: true, MaxPayload: 1 << 20, PingInterval: 5 * time.Second, MaxPingsOut: 2, WriteDeadline: 10 * time.Second,
	}
	if o.Listen == "" {
		so.DontListen = true
	} else {
		host, port, err := split(o.Listen)
		if err != nil {
			return nil, err
		}
		so.Host, so.Port = host, port
	}
	if o.Leaf != "" {
		host, port, err := split(o.Leaf)
		if err != nil {
			return nil, err
		}
		so.LeafNode = server.LeafNodeOpts{Host: host, Port: port, NoAdvertise: true, Username: o.User, Password: o.Password, TLSConfig: o.TLS, TLSTimeout: 5}
	}
	so.Authorization, so.Username, so.Password = o.Token, o.User, o.Password
	if o.TLS != nil {
		so.TLSConfig, so.TLS, so.TLSTimeout = o.TLS, true, 5
		so.TLSVerify = o.TLS.ClientAuth == tls.RequireAndVerifyClientCert
	}
	s, err := server.NewServer(so)
	if err != nil {
		return nil, fmt.Errorf("the hub: %w", err)
	}
	l := &logger{log: o.Log}
	s.SetLoggerV2(l, false, false, false)
	s.Start()
	if !s.ReadyForConnections(readyWithin) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return nil, fmt.Errorf("the hub did not start: %s", l.said())
	}
	return &Server{s}, nil
}

func split(at string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(at)
	if err != nil {
		return "", 0, err
	}
	if port, err = strconv.Atoi(text); err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q is no port", text)
	}
	if port == 0 {
		port = server.RANDOM_PORT
	}
	if host == "" {
		host = server.DEFAULT_HOST
	}
	return host, port, nil
}

// InProcessConn connects from within this process, whether the hub listens or not.
func (s *Server) InProcessConn() (net.Conn, error) { return s.s.InProcessConn() }

// Addr is where it listens; nil if it does not.
func (s *Server) Addr() net.Addr {
	if a := s.s.Addr(); a != nil {
		return a
	}
	return nil
}

// URL is where clients reach it.
func (s *Server) URL() string { return s.s.ClientURL() }

// Close stops it. What it keeps stays in its directory.
func (s *Server) Close() error {
	s.s.Shutdown()
	s.s.WaitForShutdown()
	return nil
}

// ErrOpen says that a hub would let anybody in.
var ErrOpen = errors.New("a hub that listens beyond this machine lets nobody in without a token, a user or a client certificate")

// Check says whether a hub may listen where it is to.
func (o *Options) Check() error {
	for _, at := range []string{o.Listen, o.Leaf} {
		if at == "" {
			continue
		}
		host, _, err := split(at)
		if err != nil {
			return err
		}
		ip := net.ParseIP(host)
		local := host == "localhost" || ip != nil && ip.IsLoopback()
		if !local && o.Token == "" && o.User == "" && (o.TLS == nil || o.TLS.ClientAuth != tls.RequireAndVerifyClientCert) {
			return fmt.Errorf("%w: %s", ErrOpen, at)
		}
	}
	if o.Leaf != "" && o.Token != "" && o.User == "" {
		return errors.New("leaf nodes show a user and a password: a token is for clients alone")
	}
	return nil
}

// logger passes on what the server says.
type logger struct {
	log  *slog.Logger
	mu   sync.Mutex
	last string // why it ends
}

func (l *logger) said() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.last
}

func (l *logger) Noticef(f string, v ...any) { l.log.Debug("hub server: " + fmt.Sprintf(f, v...)) }
func (l *logger) Warnf(f string, v ...any)   { l.log.Warn("hub server: " + fmt.Sprintf(f, v...)) }
func (l *logger) Fatalf(f string, v ...any) {
	l.mu.Lock()
	l.last = fmt.Sprintf(f, v...)
	l.mu.Unlock()
	l.Errorf(f, v...)
}
func (l *logger) Errorf(f string, v ...any) { l.log.Error("hub server: " + fmt.Sprintf(f, v...)) }
func (l *logger) Debugf(string, ...any)     {}
func (l *logger) Tracef(string, ...any)     {}
