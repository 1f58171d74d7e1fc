package mqtt

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// A peer is a client of the tests: it writes what the test says, byte for byte, and keeps every
// packet that comes, in order.
type peer struct {
	t     testing.TB
	nc    net.Conn
	in    *bufio.Reader
	level byte

	mu      sync.Mutex
	changed chan struct{}
	got     []packet
	err     error
	auto    bool // acknowledge what comes
	id      uint16
}

type packet struct {
	first byte
	body  []byte
}

func (p packet) kind() byte { return p.first >> 4 }

const waitFor = 10 * time.Second

// dialPeer connects without saying anything.
func dialPeer(t testing.TB, addr string) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &peer{t: t, nc: nc, in: bufio.NewReader(nc), changed: make(chan struct{})}
}

// connectPeer connects and logs on; c's name, level and client id have defaults.
func connectPeer(t testing.TB, addr string, c connect) *peer {
	t.Helper()
	return peerOver(t, dialPeer(t, addr).nc, c)
}

// peerOver is connectPeer over a connection that stands.
func peerOver(t testing.TB, nc net.Conn, c connect) *peer {
	t.Helper()
	t.Cleanup(func() { nc.Close() })
	p := &peer{t: t, nc: nc, in: bufio.NewReader(nc), changed: make(chan struct{})}
	if c.level == 0 {
		c.level = level5
	}
	if c.name == "" {
		c.name = "MQTT"
		if c.level == level31 {
			c.name = "MQIsdp"
		}
	}
	if c.clientID == nil {
		c.clientID = fmt.Appendf(nil, "t-%d", time.Now().UnixNano())
	}
	p.level, p.auto = c.level, true
	p.send(appendConnect(nil, &c))
	go p.read()
	return p
}

func (p *peer) v5() bool { return p.level == level5 }

func (p *peer) read() {
	for {
		first, body, err := readPacket(p.in, maxRemaining)
		p.mu.Lock()
		auto := p.auto
		p.mu.Unlock()
		if err == nil && auto { // before the test hears of it, so that what the test says next comes after
			p.acknowledge(first, body)
		}
		p.mu.Lock()
		if err != nil {
			p.err = err
		} else {
			p.got = append(p.got, packet{first, body})
		}
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *peer) acknowledge(first byte, body []byte) {
	switch first >> 4 {
	case typePublish:
		pub, err := parsePublish(first, body, p.v5())
		if err == nil && pub.qos == 1 {
			p.trySend(appendAck(nil, typePuback, p.v5(), pub.id, 0, ""))
		} else if err == nil && pub.qos == 2 {
			p.trySend(appendAck(nil, typePubrec, p.v5(), pub.id, 0, ""))
		}
	case typePubrel:
		p.trySend(appendAck(nil, typePubcomp, p.v5(), binary.BigEndian.Uint16(body), 0, ""))
	case typePubrec:
		if a, err := parseAck(body, p.v5()); err == nil && a.code < 0x80 {
			p.trySend(appendAck(nil, typePubrel, p.v5(), a.id, 0, ""))
		}
	}
}

// hangUp closes the connection without a word, once the other side has read what was sent.
func (p *peer) hangUp() {
	p.t.Helper()
	p.mu.Lock()
	from := len(p.got)
	p.mu.Unlock()
	p.send([]byte{typePingreq << 4, 0})
	if _, _, err := p.await(from, func(k packet) bool { return k.kind() == typePingresp }); err != nil {
		p.t.Fatalf("PINGRESP: %v", err)
	}
	p.nc.Close()
}

func (p *peer) trySend(b []byte) { _, _ = p.nc.Write(b) }

func (p *peer) send(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatalf("write: %v", err)
	}
}

// await gives the first packet from position from on that want accepts, and the position behind it.
func (p *peer) await(from int, want func(packet) bool) (packet, int, error) {
	late := time.NewTimer(waitFor)
	defer late.Stop()
	for {
		p.mu.Lock()
		for i := from; i < len(p.got); i++ {
			if want(p.got[i]) {
				k := p.got[i]
				p.mu.Unlock()
				return k, i + 1, nil
			}
		}
		from = len(p.got)
		changed, err := p.changed, p.err
		p.mu.Unlock()
		if err != nil {
			return packet{}, from, err
		}
		select {
		case <-changed:
		case <-late.C:
			return packet{}, from, errors.New("nothing came in time")
		}
	}
}

func (p *peer) need(kind byte) packet {
	p.t.Helper()
	k, _, err := p.await(0, func(k packet) bool { return k.kind() == kind })
	if err != nil {
		p.t.Fatalf("waiting for packet type %d: %v", kind, err)
	}
	return k
}

func (p *peer) connack() connack {
	p.t.Helper()
	a, err := parseConnack(p.need(typeConnack).body, p.v5())
	if err != nil {
		p.t.Fatal(err)
	}
	return a
}

func (p *peer) nextID() uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.id++
	return p.id
}

// publish sends a PUBLISH and gives the answer: the reason code, or that the connection ended.
func (p *peer) publish(pub publish) (byte, error) {
	if pub.qos > 0 && pub.id == 0 {
		pub.id = p.nextID()
	}
	p.mu.Lock()
	from := len(p.got)
	p.mu.Unlock()
	if _, err := p.nc.Write(appendPublish(nil, p.v5(), &pub, nil)); err != nil {
		return 0, err
	}
	if pub.qos == 0 {
		return 0, nil
	}
	var a ack
	_, _, err := p.await(from, func(k packet) bool {
		if k.kind() != typePuback && k.kind() != typePubcomp && k.kind() != typePubrec {
			return false
		}
		var err error
		a, err = parseAck(k.body, p.v5())
		return err == nil && a.id == pub.id && (k.kind() != typePubrec || a.code >= 0x80)
	})
	return a.code, err
}

func msg(topic, payload string, qos byte) publish {
	return publish{qos: qos, topic: []byte(topic), payload: []byte(payload)}
}

// subscribe subscribes and gives the reason codes.
func (p *peer) subscribe(requests ...request) []byte {
	p.t.Helper()
	s := subscribe{id: p.nextID(), requests: requests}
	p.send(appendSubscribe(nil, p.v5(), typeSubscribe, &s))
	var codes []byte
	_, _, err := p.await(0, func(k packet) bool {
		if k.kind() != typeSuback {
			return false
		}
		id, c, err := parseSuback(k.body, p.v5())
		codes = c
		return err == nil && id == s.id
	})
	if err != nil {
		p.t.Fatalf("SUBACK: %v", err)
	}
	return codes
}

// messages waits for n PUBLISH packets and gives all that came.
func (p *peer) messages(n int) []publish {
	p.t.Helper()
	var got []publish
	_, _, err := p.await(0, func(k packet) bool {
		if k.kind() == typePublish {
			m, err := parsePublish(k.first, k.body, p.v5())
			if err != nil {
				p.t.Errorf("PUBLISH: %v", err)
			}
			got = append(got, m)
		}
		return len(got) >= n
	})
	if err != nil {
		p.t.Fatalf("waiting for %d messages, got %d: %v", n, len(got), err)
	}
	return got
}

// closedWith waits for the end and gives the reason of a DISCONNECT before it, 0 without one.
func (p *peer) closedWith() byte {
	p.t.Helper()
	code := byte(0)
	_, _, err := p.await(0, func(k packet) bool {
		if k.kind() == typeDisconnect {
			d, err := parseDisconnect(k.body, p.v5())
			if err == nil {
				code = d.code
			}
		}
		return false
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.t.Fatalf("the connection stands: %v", err)
	}
	return code
}

// suiteClient is a peer in the contract's terms.
type suiteClient struct {
	*peer
	addr string
}

func (c suiteClient) Write(address string, payload []byte) error {
	code, err := c.publish(publish{qos: 1, topic: []byte(address), payload: payload, retain: true})
	if err == nil && code >= 0x80 {
		err = fmt.Errorf("reason 0x%02x", code)
	}
	return err
}

func (c suiteClient) Delete(address string) error { return c.Write(address, nil) }

// Read is a subscription of its own. That no retained message comes can't be seen, only waited for.
func (c suiteClient) Read(address string) ([]byte, error) {
	p := connectPeer(c.t, c.addr, connect{level: c.level, clean: true})
	defer p.nc.Close()
	p.subscribe(request{address, 1})
	done := make(chan []byte, 1)
	go func() {
		if k, _, err := p.await(0, func(k packet) bool { return k.kind() == typePublish }); err == nil {
			m, _ := parsePublish(k.first, k.body, p.v5())
			done <- m.payload
		}
	}()
	select {
	case b := <-done:
		return b, nil
	case <-time.After(300 * time.Millisecond):
		return nil, wrappertest.ErrAbsent
	}
}

func (c suiteClient) Subscribe(address string) (<-chan []byte, error) {
	if codes := c.subscribe(request{address, 1}); codes[0] >= 0x80 {
		return nil, fmt.Errorf("refused: 0x%02x", codes[0])
	}
	ch := make(chan []byte, 1024)
	go func() {
		defer close(ch)
		at := 0
		for {
			k, next, err := c.await(at, func(k packet) bool { return k.kind() == typePublish })
			if err != nil {
				return
			}
			at = next
			m, _ := parsePublish(k.first, k.body, c.v5())
			ch <- m.payload
		}
	}()
	return ch, nil
}

func (c suiteClient) Close() { c.nc.Close() }

// dialer gives a connection for a client library.
func dialer(t testing.TB, addr string) (net.Conn, string, error) {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err == nil {
		t.Cleanup(func() { nc.Close() })
	}
	return nc, addr, err
}
