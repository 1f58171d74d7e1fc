package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A client is one connection to a broker as its client.
type client struct {
	nc      net.Conn
	in      *bufio.Reader
	v5      bool
	present bool // the broker still had the session
	window  int  // unacknowledged publishes that the broker takes
	most    int  // bytes of a packet that the broker takes, 0: any
	keep    time.Duration
	frame   int // bytes of a packet that we take
	noQoS2  bool
	noQoS1  bool

	mu  sync.Mutex // writes
	err error
}

// A brokerRefusal is a CONNACK that says no.
type brokerRefusal struct {
	code byte
	v5   bool
	text string
}

func (e *brokerRefusal) Error() string {
	name := v3Names[e.code]
	if e.v5 {
		name = reasonNames[e.code]
	}
	s := fmt.Sprintf("the broker refuses the connection: %s (0x%02x)", name, e.code)
	if e.text != "" {
		s += ": " + e.text
	}
	return s
}

// dialBroker opens a stream to the upstream: TCP or a Unix socket, TLS, WebSocket.
func dialBroker(ctx context.Context, up wrappers.Upstream, frame int) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, up.Network(), up.Addr)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(up.Addr) // an empty name fails the TLS check, as it should
	if up.TLS != nil {
		cfg := up.TLS
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
		tc := tls.Client(nc, cfg)
		if err := tc.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		nc = tc
	}
	if up.Scheme == "ws" || up.Scheme == "wss" {
		path := up.Path
		if path == "" || path == "/" {
			path = "/mqtt"
		}
		return dialWebSocket(ctx, nc, "ws://"+up.Addr+path, frame)
	}
	return nc, nil
}

const clientKeepAlive = 30 * time.Second

// connectBroker opens the gateway's own session at the broker: one that lasts, so that the broker
// owes us what is published while we are away.
func connectBroker(ctx context.Context, cfg *wrappers.Config, opt *options, clientID string, v5 bool) (*client, error) {
	up := cfg.Upstreams[0]
	ctx, cancel := context.WithTimeout(ctx, cfg.Limits.Handshake)
	defer cancel()
	nc, err := dialBroker(ctx, up, cfg.Limits.Frame)
	if err != nil {
		return nil, err
	}
	c := &client{nc: nc, in: bufio.NewReaderSize(nc, 32<<10), v5: v5, window: opt.inflight, keep: clientKeepAlive, frame: cfg.Limits.Frame}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	err = c.hello(up, opt, clientID)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

func (c *client) hello(up wrappers.Upstream, opt *options, clientID string) error {
	req := connect{name: "MQTT", level: level311, keepAlive: uint16(c.keep / time.Second), clientID: []byte(clientID)}
	if c.v5 {
		req.level = level5
		p := binary.BigEndian.AppendUint32([]byte{propSessionExpiry}, opt.maxExpiry)
		p = binary.BigEndian.AppendUint16(append(p, propReceiveMaximum), uint16(opt.inflight))
		req.props = binary.BigEndian.AppendUint32(append(p, propMaximumPacket), uint32(c.frame))
	}
	if up.User != "" {
		req.hasUser, req.user = true, []byte(up.User)
		if up.Password != nil {
			req.hasPass, req.password = true, []byte(up.Password())
		}
	}
	if err := c.write(appendConnect(nil, &req)); err != nil {
		return err
	}
	first, body, err := readPacket(c.in, c.frame)
	if err != nil {
		return err
	}
	if first>>4 != typeConnack {
		return errors.New("the broker answers CONNECT with something else")
	}
	a, err := parseConnack(body, c.v5)
	if err != nil {
		return err
	}
	if a.code != 0 {
		text, _ := property(a.props, propReason)
		return &brokerRefusal{a.code, c.v5 && a.code >= 0x80, string(text)}
	}
	c.present = a.present
	if c.v5 {
		c.window = min(c.window, int(number(a.props, propReceiveMaximum, 65535)))
		c.most = int(min(number(a.props, propMaximumPacket, 0), maxRemaining+5))
		if s := number(a.props, propServerKeepAlive, 0); s > 0 {
			c.keep = time.Duration(s) * time.Second
		}
		switch number(a.props, propMaximumQoS, 2) {
		case 0:
			c.noQoS1, c.noQoS2 = true, true
		case 1:
			c.noQoS2 = true
		}
	}
	return nil
}

// refusesV5 tells whether an error of connectBroker means that the broker speaks 3.1.1 only.
func refusesV5(err error) bool {
	var r *brokerRefusal
	return errors.As(err, &r) && (r.code == codeUnsupportedVersion || !r.v5 && r.code == v3BadVersion)
}

// write writes whole packets; it may be called from any goroutine.
func (c *client) write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	if err := c.nc.SetWriteDeadline(time.Now().Add(30 * time.Second)); err != nil {
		c.err = err
		return err
	}
	_, c.err = c.nc.Write(b)
	if c.err != nil {
		c.nc.Close()
	}
	return c.err
}

func (c *client) close() {
	_ = c.write([]byte{typeDisconnect << 4, 0}) // politeness: it closes in any case
	c.nc.Close()
}
