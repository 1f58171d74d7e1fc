package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// relay forwards clients to the broker.
func (s *clientSide) relay(ctx context.Context) error {
	srv := &relay.Server{
		Door: relay.Door{
			Listener: s.cfg.Listener, Sessions: s.cfg.Limits.Sessions, PerHost: s.cfg.Limits.PerHost,
			Handshake: s.cfg.Limits.Handshake, Count: s.link.Count, Log: s.log,
		},
		TLS:   s.cfg.TLS,
		Hold:  s.cfg.Limits.Frame,
		Queue: s.cfg.Limits.Queue,
		Drain: s.cfg.Drain,
		Idle:  s.cfg.Limits.Idle,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return dialBroker(ctx, s.cfg.Upstreams[0], s.cfg.Limits.Frame)
		},
		Handle: func(ses *relay.Session) relay.Handler {
			return &passage{side: s, ses: ses, addr: ses.Client()}
		},
	}
	if s.opt.websocket != "" {
		s.takeWebSockets(ctx, srv)
	}
	return srv.Serve(ctx)
}

// takeWebSockets lets srv recognise clients that begin with an HTTP request: their WebSocket ends
// here, and what it carries is relayed like any other stream.
func (s *clientSide) takeWebSockets(ctx context.Context, srv *relay.Server) {
	if srv.TLS != nil {
		cfg := srv.TLS.Clone()
		if len(cfg.NextProtos) == 0 {
			cfg.NextProtos = []string{"mqtt", "http/1.1"}
		}
		srv.TLS = cfg
	}
	inner := &relay.Server{
		Door: relay.Door{Sessions: s.cfg.Limits.Sessions, PerHost: s.cfg.Limits.PerHost, Handshake: s.cfg.Limits.Handshake, Log: s.log},
		Hold: srv.Hold, Queue: srv.Queue, Idle: srv.Idle, Dial: srv.Dial, Handle: srv.Handle,
	}
	srv.Claim = func(nc net.Conn, p *relay.Peer) bool {
		if tc, ok := nc.(*tls.Conn); ok {
			if tc.ConnectionState().NegotiatedProtocol != "http/1.1" {
				return false
			}
		} else if first, ok := peekByte(nc); !ok || first != 'G' {
			return false
		}
		ws, err := acceptWebSocket(context.WithoutCancel(ctx), nc, bufio.NewReader(nc), s.opt, s.cfg.Limits.Frame)
		if err != nil {
			s.link.Count("refused_handshake", 1)
			s.log.Debug("handshake", "peer", p.RemoteAddr(), "err", err)
			p.Close()
			return true
		}
		p.Welcome()
		inner.ServeConn(ctx, &insideConn{Conn: ws, outer: p})
		return true
	}
}

// An insideConn is a stream inside another connection, which ends with it.
type insideConn struct {
	net.Conn
	outer *relay.Peer
}

func (c *insideConn) RemoteAddr() net.Addr { return c.outer.RemoteAddr() }

func (c *insideConn) Close() error { return errors.Join(c.Conn.Close(), c.outer.Close()) }

// A passage is one client's session through the relay. Bytes pass as they are; it notes the
// publishes to mapped topics before they go, and with capture = "sync" holds their
// acknowledgements until the feed has made them durable.
//
// Which packet is held: PUBACK with QoS 1, PUBCOMP with QoS 2. A broker may route a QoS 2 message
// when PUBREL comes (mosquitto does), so that holding PUBREC would wait for what only PUBREC sets
// going.
type passage struct {
	side *clientSide
	ses  *relay.Session
	addr net.Addr // the client's

	// FromClient's.
	started bool
	level   byte
	who     wrappers.Who
	aliases map[uint16]string

	mu    sync.Mutex
	v5    bool
	open  map[uint16]*noted // publishes to mapped topics whose acknowledgement has not passed
	quick map[uint16]bool   // of these, those that are not waited for
}

const (
	connectMost = connectSize
	propsMost   = 128 << 10 // bytes of a PUBLISH before its payload that are looked at
)

// FromClient implements relay.Handler.
func (p *passage) FromClient(b []byte) (relay.Step, error) {
	at := 0
	for at < len(b) {
		head, remaining, err := scanHeader(b[at:])
		if err != nil {
			p.side.link.Count("protocol_errors", 1)
			return relay.Step{}, p.refuse(codeMalformed, err)
		}
		if head == 0 {
			break
		}
		size := head + remaining
		whole := len(b)-at >= size
		kind := b[at] >> 4
		switch {
		case !p.started:
			if size > connectMost {
				return relay.Step{}, p.refuse(codePacketTooLarge, errTooBig)
			}
			if !whole {
				return relay.Step{Pass: at, Need: size}, nil
			}
			p.began(b[at : at+size])
		case kind == typePublish:
			st, stop, err := p.published(b[at:], at, head, size)
			if err != nil {
				return relay.Step{Pass: at}, err
			}
			if stop {
				return st, nil
			}
		}
		if !whole {
			return relay.Step{Pass: at, Skip: int64(size)}, nil
		}
		at += size
	}
	return relay.Step{Pass: at}, nil
}

// began reads the CONNECT.
func (p *passage) began(frame []byte) {
	p.started = true
	head, _, _ := scanHeader(frame)
	p.level = level311
	p.who.Peer = p.addr.String()
	if frame[0]>>4 != typeConnect {
		return // the broker will say what it thinks of it
	}
	c, err := parseConnect(frame[head:], false)
	if c.level != 0 {
		p.level = c.level
	}
	p.mu.Lock()
	p.v5 = p.level == level5
	p.mu.Unlock()
	if err != nil {
		return
	}
	p.who.Peer = peerName(p.addr, string(c.clientID))
	if c.hasUser {
		// The broker checks it: nothing is forwarded to others before its CONNACK.
		p.who.Principal = "mqtt/" + p.side.cfg.Name + ":" + string(c.user)
		p.who.Verified = true
	}
}

// published looks at the PUBLISH at the start of b, which stands at offset at of what may be
// passed. stop: st is the answer to relay.
func (p *passage) published(b []byte, at, head, size int) (st relay.Step, stop bool, err error) {
	s := p.side
	have := b[head:min(len(b), size)]
	v5 := p.level == level5
	topic, props, known := publishHead(b[0], have, v5)
	whole := len(b) >= size
	if !known && !whole && len(b) < propsMost {
		return relay.Step{Pass: at, Need: min(size, max(2*len(b), 256))}, true, nil
	}
	if !known {
		return relay.Step{}, false, nil // the broker's to judge
	}
	name := unsafe.String(unsafe.SliceData(topic), len(topic)) // lives no longer than this call
	if v5 {
		if n := number(props, propTopicAlias, 0); n != 0 {
			if len(topic) == 0 {
				name = p.aliases[uint16(n)]
			} else {
				if p.aliases == nil {
					p.aliases = make(map[uint16]string)
				}
				p.aliases[uint16(n)] = string(topic)
			}
		}
	}
	mapped := name != "" && s.link.Maps(wrappers.Message, "", name)
	if !mapped && !s.cfg.Refuse {
		if !s.link.Recording() || size > s.cfg.Limits.Frame {
			return relay.Step{}, false, nil
		}
		if !whole {
			return relay.Step{Pass: at, Need: size}, true, nil
		}
		if pub, err := parsePublish(b[0], b[head:size], v5); err == nil && !(pub.dup && pub.qos > 0) {
			p.recorded(name, &pub, "passed")
		}
		return relay.Step{}, false, nil
	}
	if size > s.cfg.Limits.Frame {
		s.link.Count("oversized", 1)
		return relay.Step{}, true, p.refuse(codePacketTooLarge, errTooBig)
	}
	if !whole {
		return relay.Step{Pass: at, Need: size}, true, nil
	}
	pub, err := parsePublish(b[0], b[head:size], v5)
	if err != nil {
		return relay.Step{}, false, nil
	}
	if !mapped {
		return p.refusePublish(at, size, name, &pub, codeBadTopic, wrappers.Refuse(wrappers.ErrUnmapped, fmt.Sprintf("no bind maps %q", name)))
	}
	if err := s.link.May(verbOf(&pub), "", name, p.who); err != nil {
		return p.refusePublish(at, size, name, &pub, codeNotAuthorized, err)
	}
	if !s.owed.holds(name) {
		if at > 0 {
			return relay.Step{Pass: at}, true, nil // first what precedes it
		}
		if err := p.awaitFeed(name, pub.qos); err != nil {
			return relay.Step{}, true, p.refuse(codeServerUnavailable, err)
		}
	}
	n := s.wire.note([]byte(name), pub.payload, p.who, false, pub.retain)
	if pub.qos == 0 {
		return relay.Step{}, false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == nil {
		p.open, p.quick = make(map[uint16]*noted), make(map[uint16]bool)
	}
	p.open[pub.id] = n
	if pub.qos == 2 && pub.dup {
		// The broker may have had it before, and then shows it to nobody again.
		p.quick[pub.id] = true
	}
	return relay.Step{}, false, nil
}

// publishHead reads a PUBLISH as far as its properties; false: b ends before.
func publishHead(first byte, b []byte, v5 bool) (topic, props []byte, ok bool) {
	f := fields{b: b}
	topic = f.bytes()
	if first>>1&3 != 0 {
		f.u16()
	}
	if v5 {
		props = f.take(f.varint())
	}
	return topic, props, !f.short
}

// awaitFeed holds a publish that nobody would owe yet: after a start or a reload until the feed is
// subscribed, and while the feed is away until it knows that its session was kept. Without an end
// to that, a message is let by if the broker owed it when last heard of.
func (p *passage) awaitFeed(topic string, qos byte) error {
	s := p.side
	owed, sure := s.owed.await(p.ses.Context(), topic, s.opt.captureWait)
	switch {
	case p.ses.Context().Err() != nil:
		return context.Cause(p.ses.Context())
	case sure:
		return nil
	case owed:
		s.link.Count("capture_unsure", 1)
		return nil
	}
	s.link.Count("capture_missing", 1)
	if qos == 0 {
		return nil
	}
	return wrappers.Refuse(wrappers.ErrUnavailable, "the gateway has no subscription at the broker yet")
}

// verbOf is what a PUBLISH does to its topic: a retained one without a payload clears it (MQTT 5.0, section 3.3.1.3).
func verbOf(pub *publish) wrappers.Verb {
	if pub.retain && len(pub.payload) == 0 {
		return wrappers.Delete
	}
	return wrappers.Message
}

// recorded shows a publish that passes, or is refused, without concerning a register.
func (p *passage) recorded(topic string, pub *publish, outcome string) {
	op := wrappers.Operation{Verb: verbOf(pub), Address: strings.Clone(topic), Payload: wrappers.Payload{Raw: pub.payload}, Who: p.who}
	if len(pub.props) > 0 {
		op.Payload.Type, op.Payload.Meta = meta(pub.props)
	}
	p.side.link.Tap(op, outcome)
}

// refusePublish answers a publish that is not forwarded: one that no bind maps, where the wrapper says so, or that its
// client may not make.
func (p *passage) refusePublish(at, size int, topic string, pub *publish, code byte, why error) (relay.Step, bool, error) {
	s := p.side
	s.link.Count("refused_publishes", 1)
	p.recorded(topic, pub, why.Error())
	if p.level != level5 {
		return relay.Step{}, true, p.refuse(0, why)
	}
	if pub.qos > 0 {
		kind := byte(typePuback)
		if pub.qos == 2 {
			kind = typePubrec
		}
		if err := p.ses.ToClient(appendAck(nil, kind, true, pub.id, code, wrappers.Reason(why))); err != nil {
			return relay.Step{}, true, err
		}
	}
	return relay.Step{Pass: at, Drop: size}, true, nil
}

// refuse ends the session, in MQTT 5 with a DISCONNECT.
func (p *passage) refuse(code byte, why error) error {
	r := &relay.Refused{Err: why}
	if p.level == level5 && code != 0 {
		reason := wrappers.Reason(why)
		if pe := asProtocolError(why); pe != nil {
			reason = pe.text
		}
		r.Say = appendDisconnect(nil, true, code, reason)
	}
	p.side.log.Info("client refused", "peer", p.who.Peer, "err", why)
	return r
}

// FromServer implements relay.Handler.
func (p *passage) FromServer(b []byte) (relay.Step, error) {
	at := 0
	for at < len(b) {
		head, remaining, err := scanHeader(b[at:])
		if err != nil {
			return relay.Step{}, fmt.Errorf("from the broker: %w", err)
		}
		if head == 0 {
			break
		}
		size := head + remaining
		if len(b)-at < size {
			if kind := b[at] >> 4; kind == typePublish || size > 1024 {
				return relay.Step{Pass: at, Skip: int64(size)}, nil
			}
			return relay.Step{Pass: at, Need: size}, nil
		}
		body := b[at+head : at+size]
		switch kind := b[at] >> 4; kind {
		case typeConnack:
			if len(body) >= 2 && body[1] == 0 {
				p.ses.Welcome()
			}
		case typePuback, typePubrec, typePubcomp:
			if n, quick := p.answered(kind, body); n != nil && !quick && p.side.opt.sync {
				select {
				case <-n.shown:
				default:
					if at > 0 {
						return relay.Step{Pass: at}, nil // first what precedes it
					}
					if err := p.hold(n); err != nil {
						return relay.Step{}, err
					}
				}
			}
			p.passed(kind, body)
		}
		at += size
	}
	return relay.Step{Pass: at}, nil
}

// answered gives the noted publish that an acknowledgement is the success of.
func (p *passage) answered(kind byte, body []byte) (n *noted, quick bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) == 0 {
		return nil, false
	}
	a, err := parseAck(body, p.v5)
	if err != nil {
		return nil, false
	}
	if n = p.open[a.id]; n == nil {
		return nil, false
	}
	if a.code >= 0x80 && kind != typePubcomp {
		p.side.wire.forget(n) // the broker did not take it
		delete(p.open, a.id)
		delete(p.quick, a.id)
		return nil, false
	}
	if kind == typePubrec {
		return nil, false
	}
	return n, p.quick[a.id]
}

// passed forgets a publish whose last acknowledgement goes by.
func (p *passage) passed(kind byte, body []byte) {
	if kind == typePubrec {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.open) == 0 {
		return
	}
	if a, err := parseAck(body, p.v5); err == nil {
		delete(p.open, a.id)
		delete(p.quick, a.id)
	}
}

// hold waits until a publish is durable here, at most capture_wait since it was forwarded: from
// then on the broker owes it to us.
func (p *passage) hold(n *noted) error {
	left := time.NewTimer(time.Until(n.since.Add(p.side.opt.captureWait)))
	defer left.Stop()
	select {
	case <-n.shown:
		return nil
	case <-left.C:
		p.side.link.Count("capture_late", 1)
		return nil
	case <-p.ses.Context().Done():
		return context.Cause(p.ses.Context())
	}
}

// Busy implements relay.Handler.
func (p *passage) Busy() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open) > 0
}

// End implements relay.Handler.
func (p *passage) End(error) {}
