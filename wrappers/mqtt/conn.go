package mqtt

import (
	"bufio"
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
	window    int  // QoS 1 and 2 messages the client takes at once
	maxPacket int  // bytes the client takes, 0: any
	terse     bool // no reason strings
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

// A largePacket is one whose announced size is above the limit; its body has not been read.
type largePacket struct {
	first     byte
	remaining int
}

func (p *largePacket) Error() string { return errTooBig.Error() }

func (p *largePacket) Unwrap() error { return errTooBig }

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
		return 0, nil, &largePacket{first, n}
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
		if why != nil && (c.maxPacket == 0 || c.maxPacket >= 256) {
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
