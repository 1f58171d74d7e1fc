package mqtt

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/relay"
)

// A conn is one network connection of a client to the broker. A reader goroutine takes packets,
// a writer goroutine writes answers and deliveries, and each address with publishes in flight has
// a goroutine that commits them one after the other.
type conn struct {
	broker *broker
	peer   *relay.Peer
	nc     net.Conn
	in     *bufio.Reader
	gone   chan struct{} // closed when the connection is to end
	done   chan struct{} // closed when its session has been put away

	v5        bool
	level     byte
	who       wrappers.Who
	canWrite  bool
	session   *session
	window    int // QoS 1 and 2 messages the client takes at once
	maxPacket int // bytes the client takes, 0: any
	keepAlive time.Duration
	aliases   map[uint16]string
	resumed   bool // the session was there before
	caughtUp  bool // broker.mu: has been at the head of the stream
	will      *publication
	willDelay uint32

	resend []*flight // session.mu: of the former connection, to be sent first

	mu       sync.Mutex
	idle     sync.Cond // busy or its bytes went down
	answers  []byte    // packets that answer the client's
	wake     chan struct{}
	closing  bool // answers are the last words
	refusing bool // draining: new publishes are left to the next connection
	order    []*slot
	chains   map[string][]*slot
	busy     int // publishes not yet durable
	heavy    int // their bytes
}

// A slot is one publish on its way to durability; with QoS 1 and 2, its turn to be acknowledged.
type slot struct {
	publication
	qos    byte
	id     uint16
	size   int
	done   bool
	err    error
	repeat bool // QoS 2, and committed already: only the answer is owed
}

// topicAliases is how many aliases a client may use.
const topicAliases = 64

// goodbye ends a connection: what to say, and why.
type goodbye struct {
	code byte
	err  error
}

func (g *goodbye) Error() string { return g.err.Error() }
func (g *goodbye) Unwrap() error { return g.err }

// left tells whether the connection is ending.
func (c *conn) left() bool {
	select {
	case <-c.gone:
		return true
	default:
		return false
	}
}

// admit runs one connection from its first byte.
func (b *broker) admit(p *relay.Peer) {
	defer p.Close()
	c := &conn{broker: b, peer: p, nc: p, gone: make(chan struct{}), done: make(chan struct{}),
		wake: make(chan struct{}, 1), chains: make(map[string][]*slot)}
	c.idle.L = &c.mu
	if err := c.open(); err != nil {
		b.link.Count("refused_handshake", 1)
		b.cfg.Log.Debug("handshake", "peer", p.RemoteAddr(), "err", err)
		return
	}
	if !c.connect() {
		return
	}
	writer := make(chan struct{})
	b.bg.Go(func() {
		defer close(writer)
		defer b.door.Recover(p)
		c.write()
	})
	b.mu.Lock()
	draining := b.draining
	b.mu.Unlock()
	if draining {
		go c.finish()
	}
	defer func() {
		c.shut(0, nil)
		<-writer
		c.nc.Close()
		c.putAway()
	}()
	err := c.read()
	var bye *goodbye
	if errors.As(err, &bye) {
		c.shut(bye.code, bye.err)
	} else if pe := asProtocolError(err); pe != nil {
		c.shut(pe.code, pe)
	}
	c.report(err)
}

// report tells the operator once why a connection ended.
func (c *conn) report(err error) {
	link, log := c.broker.link, c.broker.cfg.Log
	pe := asProtocolError(err)
	switch {
	case pe == errTooBig:
		link.Count("oversized", 1)
	case pe != nil:
		link.Count("protocol_errors", 1)
	case errors.Is(err, os.ErrDeadlineExceeded):
		link.Count("timeouts", 1)
	}
	if pe != nil {
		log.Warn("client breaks the protocol", "peer", c.who.Peer, "principal", c.who.Principal, "err", err)
		return
	}
	log.Debug("connection ended", "peer", c.who.Peer, "err", err)
}

// open does the TLS handshake and takes a WebSocket where the first byte announces one.
func (c *conn) open() error {
	b := c.broker
	if b.cfg.TLS != nil {
		tc, err := tlsServer(b.ctx, c.nc, b.cfg.TLS, b.cfg.Limits.Handshake)
		if err != nil {
			return err
		}
		c.nc = tc
	}
	c.in = bufio.NewReaderSize(c.nc, 4096)
	first, err := c.in.Peek(1)
	if err != nil {
		return err
	}
	if first[0] == 'G' && b.opt.websocket != "" {
		ws, err := acceptWebSocket(b.ctx, c.nc, c.in, b.opt, b.cfg.Limits.Frame)
		if err != nil {
			return err
		}
		_ = ws.SetReadDeadline(time.Now().Add(b.cfg.Limits.Handshake)) // its failure is the next read's
		c.nc, c.in = ws, bufio.NewReaderSize(ws, 4096)
	}
	return nil
}

// readPacket reads one packet with a body of its own, strictly.
func readPacket(r *bufio.Reader, limit int) (first byte, body []byte, err error) {
	first, err = r.ReadByte()
	if err != nil {
		return 0, nil, err
	}
	n, head := 0, 1
	for shift := 0; ; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, nil, unexpected(err)
		}
		head++
		n |= int(c&0x7f) << shift
		if c&0x80 == 0 {
			break
		}
		if shift == 21 {
			return 0, nil, malformed("remaining length of more than four bytes")
		}
	}
	switch {
	case head != headerSize(n):
		return 0, nil, malformed("remaining length written with more bytes than it needs")
	case head+n > limit:
		return 0, nil, errTooBig
	}
	// Memory follows the bytes that came, not the length that was announced.
	const step = 64 << 10
	body = make([]byte, min(n, step))
	for have := 0; ; {
		if _, err := io.ReadFull(r, body[have:]); err != nil {
			return 0, nil, unexpected(err)
		}
		if have = len(body); have == n {
			return first, body, nil
		}
		more := make([]byte, min(n, 4*have))
		copy(more, body)
		body = more
	}
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// read takes packets until the connection ends.
func (c *conn) read() error {
	for {
		if c.in.Buffered() == 0 {
			if err := c.arm(); err != nil {
				return err
			}
		}
		first, body, err := readPacket(c.in, c.broker.cfg.Limits.Frame)
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && !c.left() {
				return &goodbye{codeKeepAliveTimeout, err}
			}
			return err
		}
		if c.left() {
			continue // the last words are being written: what comes is read and forgotten
		}
		if err := c.packet(first, body); err != nil {
			if errors.Is(err, errGoodbye) {
				c.shut(0, nil)
				return nil
			}
			return err
		}
	}
}

// arm sets the deadline by which the client has to say something.
func (c *conn) arm() error {
	if c.left() {
		return nil
	}
	var at time.Time
	if c.keepAlive > 0 {
		at = time.Now().Add(c.keepAlive + c.keepAlive/2)
	}
	return c.nc.SetReadDeadline(at)
}

var errGoodbye = errors.New("the client said goodbye")

func (c *conn) packet(first byte, body []byte) error {
	kind := first >> 4
	if kind != typePublish && kind != typePubrel && kind != typeSubscribe && kind != typeUnsubscribe && first&0x0f != 0 ||
		kind == typePubrel && first&0x0f != 2 {
		return malformed("reserved flags are set")
	}
	switch kind {
	case typePublish:
		return c.onPublish(first, body)
	case typePuback, typePubrec, typePubrel, typePubcomp:
		a, err := parseAck(body, c.v5)
		if err == nil && c.v5 {
			err = checkProperties(a.props, int(kind))
		}
		if err == nil && a.id == 0 {
			err = breach("packet identifier 0")
		}
		if err != nil {
			return err
		}
		return c.onAck(kind, a)
	case typeSubscribe, typeUnsubscribe:
		s, err := parseSubscribe(kind, first, body, c.v5)
		if err != nil {
			return err
		}
		if kind == typeSubscribe {
			return c.onSubscribe(&s)
		}
		return c.onUnsubscribe(&s)
	case typePingreq:
		return c.answer(func(b []byte) []byte { return append(b, typePingresp<<4, 0) })
	case typeDisconnect:
		d, err := parseDisconnect(body, c.v5)
		if err == nil {
			err = checkProperties(d.props, typeDisconnect)
		}
		if err != nil {
			return err
		}
		return c.onDisconnect(d)
	case typeConnect:
		return breach("a second CONNECT")
	case typeAuth:
		return breach("AUTH without an authentication method")
	}
	return breach("a packet that only a server sends")
}

// answer appends a packet to what is written next. A client that asks on and on without reading
// is cut off.
func (c *conn) answer(write func([]byte) []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return nil
	}
	c.answers = write(c.answers)
	c.nudge()
	if len(c.answers) > c.broker.cfg.Limits.Queue {
		c.broker.link.Count("slow_peers", 1)
		return &goodbye{codeQuotaExceeded, errors.New("the client does not read its answers")}
	}
	return nil
}

func (c *conn) nudge() { signal(c.wake) }

// shut makes the connection end after what is still to be answered and, in MQTT 5 and with a
// code, a DISCONNECT. Only the first call counts.
func (c *conn) shut(code byte, why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shutLocked(code, why)
}

func (c *conn) shutLocked(code byte, why error) {
	if c.closing {
		return
	}
	c.closing = true
	if code != 0 && c.v5 {
		reason := ""
		if why != nil {
			reason = why.Error()
			if pe := asProtocolError(why); pe != nil {
				reason = pe.text
			}
		}
		c.answers = appendDisconnect(c.answers, true, code, reason)
	}
	close(c.gone)
	c.idle.Broadcast()
	c.nudge()
}

// write writes until the connection ends.
func (c *conn) write() {
	var buf []byte
	limit := 30 * time.Second
	for {
		c.mu.Lock()
		buf = append(buf[:0], c.answers...)
		c.answers = c.answers[:0]
		if cap(c.answers) > 4096 {
			c.answers = nil
		}
		closing := c.closing
		c.mu.Unlock()
		if !closing {
			buf = c.session.next(c, buf, 64<<10)
		}
		if len(buf) > 0 {
			err := c.nc.SetWriteDeadline(time.Now().Add(max(limit, c.keepAlive)))
			if err == nil {
				_, err = c.nc.Write(buf)
			}
			if err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					c.broker.link.Count("slow_peers", 1)
				}
				c.shut(0, nil)
				c.nc.Close()
				return
			}
			if !closing {
				if cap(buf) > 64<<10 {
					buf = nil
				}
				continue
			}
		}
		if closing {
			c.lastWords()
			return
		}
		if cap(buf) > 4096 {
			buf = nil // an idle connection holds nothing large
		}
		<-c.wake
	}
}

// lastWords closes so that what was written arrives: closing over unread bytes would reset the
// connection and overtake it.
func (c *conn) lastWords() {
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		// The reader sees the client close. A deadline would not do: it may be setting one itself.
		time.AfterFunc(time.Second, func() { c.nc.Close() })
		return
	}
	c.nc.Close()
}

// finish lets the publishes in flight be acknowledged, then ends the connection.
func (c *conn) finish() {
	c.mu.Lock()
	c.refusing = true
	for c.busy > 0 && !c.closing {
		c.idle.Wait()
	}
	c.shutLocked(codeShuttingDown, errors.New("the gateway is stopping"))
	c.mu.Unlock()
}

// onPublish takes a PUBLISH in. It blocks while the client has too many in flight.
func (c *conn) onPublish(first byte, body []byte) error {
	p, err := parsePublish(first, body, c.v5)
	if err != nil {
		return err
	}
	if err := p.check(c.v5); err != nil {
		return err
	}
	topic := string(p.topic)
	if c.v5 {
		if topic, err = c.alias(topic, p.props); err != nil {
			return err
		}
		p.props = without(p.props, propTopicAlias)
		p.topic = []byte(topic)
	}
	if err := checkTopic(p.topic); err != nil {
		return err
	}
	s := &slot{qos: p.qos, id: p.id, size: len(body) + 128}
	s.publication = publication{address: topic, msg: p, who: c.who, client: c.session.id, arrived: time.Now()}
	s.msg.dup, s.msg.id = false, 0
	if !c.canWrite {
		s.err, s.done = wrappers.Refuse(wrappers.ErrDenied, "publishing needs a user"), true
	}
	if p.qos == 2 {
		ses := c.session
		ses.mu.Lock()
		committed, known := ses.received[p.id]
		switch {
		case committed:
			s.done, s.repeat = true, true
		case known: // the first copy is on its way: its answer answers this one
			ses.mu.Unlock()
			return nil
		case !s.done:
			if len(ses.received) >= 65535 {
				ses.mu.Unlock()
				return &protocolError{codeReceiveMaximum, "too many QoS 2 messages without PUBREL"}
			}
			ses.received[p.id] = false
		}
		ses.mu.Unlock()
	}
	return c.ingest(s)
}

func (c *conn) alias(topic string, props []byte) (string, error) {
	n := number(props, propTopicAlias, 0)
	switch {
	case n == 0 && topic == "":
		return "", breach("a PUBLISH without a topic")
	case n == 0:
		return topic, nil
	case n > topicAliases:
		return "", &protocolError{codeTopicAliasInvalid, "topic alias above the agreed maximum"}
	}
	if topic == "" {
		known, ok := c.aliases[uint16(n)]
		if !ok {
			return "", &protocolError{codeTopicAliasInvalid, "a topic alias that was never set"}
		}
		return known, nil
	}
	if c.aliases == nil {
		c.aliases = make(map[uint16]string)
	}
	c.aliases[uint16(n)] = topic
	return topic, nil
}

// ingest queues a publish behind those of the same address: a client's messages to one topic
// keep their order, others overlap.
func (c *conn) ingest(s *slot) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	limit := c.broker.opt.inflight
	for !c.closing && c.busy > 0 && (c.busy >= limit && (s.qos == 0 || !c.v5) || c.heavy+s.size > c.broker.cfg.Limits.Queue) {
		c.idle.Wait()
	}
	if c.closing || c.refusing {
		c.forget(s)
		return nil // not acknowledged: the client sends it again
	}
	if s.qos > 0 {
		if len(c.order) >= limit && c.v5 {
			c.forget(s)
			return &protocolError{codeReceiveMaximum, "more messages in flight than the agreed receive maximum"}
		}
		c.order = append(c.order, s)
	}
	if s.done {
		c.settle(s)
		return nil
	}
	c.busy++
	c.heavy += s.size
	queue, running := c.chains[s.address]
	c.chains[s.address] = append(queue, s)
	if !running {
		c.broker.bg.Go(func() { c.commitAll(s.address) })
	}
	return nil
}

// forget undoes the note of a QoS 2 message that was not taken.
func (c *conn) forget(s *slot) {
	if s.qos != 2 || s.repeat {
		return
	}
	c.session.mu.Lock()
	delete(c.session.received, s.id)
	c.session.mu.Unlock()
}

// commitAll commits the publishes of one address until there are no more.
func (c *conn) commitAll(address string) {
	for {
		c.mu.Lock()
		queue := c.chains[address]
		if len(queue) == 0 {
			delete(c.chains, address)
			c.mu.Unlock()
			return
		}
		s := queue[0]
		c.chains[address] = queue[1:]
		c.mu.Unlock()
		c.commit(s)
	}
}

func (c *conn) commit(s *slot) {
	b := c.broker
	defer func() {
		if r := recover(); r != nil {
			s.err = wrappers.ErrUnavailable
			b.link.Count("panics", 1)
			b.cfg.Log.Error("panic in a publish", "address", s.address, "panic", r)
		}
		c.mu.Lock()
		s.done = true
		c.busy--
		c.heavy -= s.size
		c.settle(s)
		c.idle.Broadcast()
		c.mu.Unlock()
	}()
	s.err = b.commit(&s.publication)
	if s.qos == 2 {
		if s.err == nil && c.session.lasts() {
			// Between the commit and this record a crash makes the client send again, unacknowledged.
			s.err = b.link.Keep(b.ctx, wrappers.Record{Key: c.session.receivedKey(s.id), Value: []byte{1}})
		}
		c.session.mu.Lock()
		if s.err == nil {
			c.session.received[s.id] = true
		} else {
			delete(c.session.received, s.id)
		}
		c.session.mu.Unlock()
	}
}

// settle writes the acknowledgements that are due, in the order of the publishes (MQTT 5.0,
// section 4.6). c.mu is held.
func (c *conn) settle(s *slot) {
	if s.err != nil {
		c.refused(s)
	}
	if s.qos == 0 {
		if s.err != nil && !c.v5 {
			c.shutLocked(0, s.err)
		}
		return
	}
	n := 0
	for n < len(c.order) && c.order[n].done && !c.closing {
		o := c.order[n]
		n++
		kind := byte(typePuback)
		if o.qos == 2 {
			kind = typePubrec
		}
		if o.err != nil && !c.v5 {
			// MQTT 3 has no word for no: closing is the only way not to say yes.
			c.shutLocked(0, o.err)
			break
		}
		code, reason := byte(0), ""
		if o.err != nil {
			code, reason = publishCode(o.err), wrappers.Reason(o.err)
		}
		c.answers = appendAck(c.answers, kind, c.v5, o.id, code, reason)
	}
	if n > 0 {
		clear(c.order[:n])
		c.order = c.order[n:]
		c.nudge()
	}
}

// refused tells the operator of a publish that was not taken.
func (c *conn) refused(s *slot) {
	b := c.broker
	b.link.Count("refused_publishes", 1)
	op := wrappers.Operation{Verb: wrappers.Message, Address: s.address, Payload: wrappers.Payload{Raw: s.msg.payload}, Who: s.who}
	b.link.Tap(op, wrappers.Reason(s.err))
	if errors.Is(s.err, wrappers.ErrUnavailable) && !errors.Is(s.err, context.Canceled) {
		b.cfg.Log.Error("publish not taken", "address", s.address, "principal", s.who.Principal, "peer", s.who.Peer, "err", s.err)
	} else {
		b.cfg.Log.Info("publish refused", "address", s.address, "principal", s.who.Principal, "peer", s.who.Peer, "err", s.err)
	}
}

func (c *conn) onAck(kind byte, a ack) error {
	s := c.session
	switch kind {
	case typePuback, typePubcomp:
		s.acked(a.id)
	case typePubrec:
		if a.code >= 0x80 {
			s.acked(a.id)
			return nil
		}
		code := byte(0)
		if !s.release(a.id) && c.v5 {
			code = codeIDNotFound
		}
		return c.answer(func(b []byte) []byte { return appendAck(b, typePubrel, c.v5, a.id, code, "") })
	case typePubrel:
		s.mu.Lock()
		committed, known := s.received[a.id]
		s.mu.Unlock()
		if known && !committed {
			return breach("PUBREL before PUBREC")
		}
		if known && s.lasts() {
			// The identifier is free for another message after PUBCOMP, so its record goes first.
			c.mu.Lock()
			c.busy++
			c.mu.Unlock()
			c.broker.bg.Go(func() {
				err := c.broker.link.Keep(c.broker.ctx, wrappers.Record{Key: s.receivedKey(a.id)})
				if err == nil {
					c.completed(a.id)
				}
				c.mu.Lock()
				c.busy--
				c.idle.Broadcast()
				if err != nil {
					c.shutLocked(codeImplementation, err)
				}
				c.mu.Unlock()
			})
			return nil
		}
		if !known {
			code := byte(0)
			if c.v5 {
				code = codeIDNotFound
			}
			return c.answer(func(b []byte) []byte { return appendAck(b, typePubcomp, c.v5, a.id, code, "") })
		}
		c.completed(a.id)
	}
	return nil
}

// completed ends a QoS 2 exchange.
func (c *conn) completed(id uint16) {
	c.session.mu.Lock()
	delete(c.session.received, id)
	c.session.mu.Unlock()
	if err := c.answer(func(b []byte) []byte { return appendAck(b, typePubcomp, c.v5, id, 0, "") }); err != nil {
		c.shut(codeQuotaExceeded, err)
	}
}

func (c *conn) onDisconnect(d disconnect) error {
	s := c.session
	s.mu.Lock()
	was := s.expiry
	now := was
	if v, ok := property(d.props, propSessionExpiry); ok && len(v) == 4 {
		now = number(d.props, propSessionExpiry, 0)
	}
	if was == 0 && now != 0 {
		s.mu.Unlock()
		return breach("a session expiry in DISCONNECT where CONNECT had none")
	}
	s.expiry = min(now, c.broker.opt.maxExpiry)
	s.mu.Unlock()
	if d.code != codeDisconnectWithWill {
		c.will = nil
	}
	return errGoodbye
}

// peerName is how a client is called in logs and history.
func peerName(addr net.Addr, clientID string) string {
	return strings.TrimSpace(addr.String() + " " + clientID)
}
