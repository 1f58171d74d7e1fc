package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// maxUpgrade bounds the request that opens a WebSocket.
const maxUpgrade = 16 << 10

// acceptWebSocket takes a WebSocket on a connection whose first bytes are an HTTP request, and
// gives the stream of its binary messages (MQTT 5.0, section 6). frame bounds one message.
func acceptWebSocket(ctx context.Context, nc net.Conn, in *bufio.Reader, opt options, frame int) (net.Conn, error) {
	head := bufio.NewReader(io.LimitReader(in, maxUpgrade))
	req, err := http.ReadRequest(head)
	if err != nil {
		return nil, fmt.Errorf("websocket: %w", err)
	}
	w := &upgrade{conn: &bufferedConn{Conn: nc, in: in}, in: head, header: make(http.Header)}
	switch {
	case req.URL.Path != opt.websocket:
		http.Error(w, "MQTT over WebSocket is at "+opt.websocket, http.StatusNotFound)
		return nil, w.finish(fmt.Errorf("websocket: path %q", req.URL.Path))
	case !offersMQTT(req):
		http.Error(w, "the subprotocol is mqtt", http.StatusBadRequest)
		return nil, w.finish(errors.New("websocket: subprotocol mqtt not offered"))
	}
	ws, err := websocket.Accept(w, req.WithContext(ctx), &websocket.AcceptOptions{
		Subprotocols: []string{"mqtt", "mqttv3.1"}, OriginPatterns: opt.origins, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		return nil, w.finish(fmt.Errorf("websocket: %w", err))
	}
	ws.SetReadLimit(int64(frame) + 64<<10)
	return websocket.NetConn(ctx, ws, websocket.MessageBinary), nil
}

func offersMQTT(r *http.Request) bool {
	for _, v := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(v, ",") {
			if p = strings.TrimSpace(p); p == "mqtt" || p == "mqttv3.1" {
				return true
			}
		}
	}
	return false
}

// dialWebSocket opens MQTT over WebSocket to a broker over conn.
func dialWebSocket(ctx context.Context, conn net.Conn, url string, frame int) (net.Conn, error) {
	used := false
	hc := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			if used {
				return nil, errors.New("the broker redirects its WebSocket")
			}
			used = true
			return conn, nil
		},
	}}
	// The scheme is ws also over TLS: conn is encrypted already.
	ws, _, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPClient: hc, Subprotocols: []string{"mqtt"}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	ws.SetReadLimit(int64(frame) + 64<<10)
	return websocket.NetConn(context.WithoutCancel(ctx), ws, websocket.MessageBinary), nil
}

// A bufferedConn reads what was buffered before it reads the connection.
type bufferedConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *bufferedConn) Read(b []byte) (int, error) { return c.in.Read(b) }

// An upgrade answers the one request that opens a WebSocket, without an HTTP server around it.
type upgrade struct {
	conn   net.Conn
	in     *bufio.Reader
	header http.Header
	status int
	body   []byte
	taken  bool
}

func (u *upgrade) Header() http.Header { return u.header }

func (u *upgrade) WriteHeader(status int) {
	if u.status == 0 {
		u.status = status
	}
	if status == http.StatusSwitchingProtocols {
		_ = u.flush() // the failure of the connection is the next reader's
	}
}

func (u *upgrade) Write(b []byte) (int, error) {
	u.WriteHeader(http.StatusOK)
	u.body = append(u.body, b...)
	return len(b), nil
}

func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	u.taken = true
	return u.conn, bufio.NewReadWriter(u.in, bufio.NewWriter(u.conn)), nil
}

func (u *upgrade) flush() error {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", u.status, http.StatusText(u.status))
	if u.status != http.StatusSwitchingProtocols {
		u.header.Set("Content-Length", fmt.Sprint(len(u.body)))
		u.header.Set("Connection", "close")
	}
	if err := u.header.Write(&b); err != nil {
		return err
	}
	b.WriteString("\r\n")
	b.Write(u.body)
	_, err := io.WriteString(u.conn, b.String())
	return err
}

// finish sends a refusal and gives err.
func (u *upgrade) finish(err error) error {
	if u.taken || u.status == 0 {
		return err
	}
	_ = u.conn.SetWriteDeadline(time.Now().Add(time.Second)) // it closes in any case
	return errors.Join(err, u.flush())
}

// tlsServer makes a plain connection a TLS one.
func tlsServer(ctx context.Context, nc net.Conn, cfg *tls.Config, within time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	tc := tls.Server(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return tc, nil
}
