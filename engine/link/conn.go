package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// A frameConn carries frames, whole and in order.
type frameConn interface {
	read(ctx context.Context) ([]byte, error)
	write(ctx context.Context, frame []byte) error
	close()
	heard() time.Time // when bytes came last
	remote() string
}

const (
	subprotocol = "spookgw-pair-1"
	pairPath    = "/pair"
	callTimeout = 10 * time.Second
)

// A timedConn is given up when nothing moves: each read and each write has Patience, however long the message is that
// they are a part of.
type timedConn struct {
	net.Conn
	lastRead atomic.Int64 // UnixNano
	in, out  atomic.Uint64
}

func timed(c net.Conn) *timedConn {
	t := &timedConn{Conn: c}
	t.lastRead.Store(time.Now().UnixNano())
	return t
}

// Read implements net.Conn.
func (c *timedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.in.Add(uint64(n))
		c.lastRead.Store(time.Now().UnixNano())
	}
	return n, err
}

// writePiece is what has to be taken within Patience.
const writePiece = 16 << 10

// Write implements net.Conn.
func (c *timedConn) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		piece := p[:min(len(p), writePiece)]
		if err = c.Conn.SetWriteDeadline(time.Now().Add(Patience)); err != nil {
			return n, err
		}
		var k int
		k, err = c.Conn.Write(piece)
		n += k
		c.out.Add(uint64(k))
		p = p[k:]
	}
	return n, err
}

// A socketConn is a WebSocket (RFC 6455): each frame is a binary message.
type socketConn struct {
	ws    *websocket.Conn
	timed *timedConn
}

func newSocketConn(ws *websocket.Conn, t *timedConn) *socketConn {
	ws.SetReadLimit(MaxFrame)
	return &socketConn{ws, t}
}

func (c *socketConn) read(ctx context.Context) ([]byte, error) {
	kind, raw, err := c.ws.Read(ctx)
	if err == nil && kind != websocket.MessageBinary {
		err = invalid("a message of text")
	}
	return raw, err
}

func (c *socketConn) write(ctx context.Context, frame []byte) error {
	return c.ws.Write(ctx, websocket.MessageBinary, frame)
}

func (c *socketConn) close()           { _ = c.ws.CloseNow() }
func (c *socketConn) heard() time.Time { return time.Unix(0, c.timed.lastRead.Load()) }
func (c *socketConn) remote() string   { return c.timed.RemoteAddr().String() }

// unixPrefix begins the address of a Unix socket.
const unixPrefix = "unix:"

// SplitAddress gives the network and the address in the words of package net.
func SplitAddress(address string) (network, at string, err error) {
	if path, ok := strings.CutPrefix(address, unixPrefix); ok {
		if path == "" {
			return "", "", invalid("%q names no socket", address)
		}
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return "", "", invalid("%q is neither host:port nor unix:/path", address)
	}
	return "tcp", address, nil
}

// call connects to a site.
func call(ctx context.Context, address string, config *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) (frameConn, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	network, at, err := SplitAddress(address)
	if err != nil {
		return nil, err
	}
	if dial == nil {
		dial = (&net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: Heartbeat, Interval: Heartbeat, Count: 3}}).DialContext
	}
	raw, err := dial(ctx, network, at)
	if err != nil {
		return nil, err
	}
	t := timed(raw)
	secure := tls.Client(t, config)
	if err := secure.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return secure, nil },
		DisableKeepAlives: true,
	}}
	ws, _, err := websocket.Dial(ctx, "https://"+config.ServerName+pairPath, &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{subprotocol}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return newSocketConn(ws, t), nil
}
