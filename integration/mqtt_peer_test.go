package integration

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// startMosquitto runs a real broker with a persistent store in dir, on port.
func startMosquitto(t testing.TB, dir string, port int) *process {
	t.Helper()
	path := peer(t, "mosquitto", "mosquitto")
	conf := filepath.Join(dir, "mosquitto.conf")
	writeFile(t, conf, fmt.Sprintf(`
listener %d 127.0.0.1
allow_anonymous true
persistence true
persistence_location %s/
max_queued_messages 0
max_inflight_messages 0
user root
log_dest stderr
log_type all
`, port, dir))
	p := startProcess(t, "mosquitto", exec.Command(path, "-c", conf))
	p.saysText(t, fmt.Sprintf("on port %d", port))
	eventually(t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", loopback(port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

// The first bytes of MQTT control packets (MQTT 5.0, section 2.1.2), with their reserved flags.
const (
	mConnect     = 0x10
	mConnack     = 0x20
	mPublish     = 0x30
	mPuback      = 0x40
	mPubrec      = 0x50
	mPubrel      = 0x62
	mPubcomp     = 0x70
	mSubscribe   = 0x82
	mSuback      = 0x90
	mUnsubscribe = 0xa2
	mPingreq     = 0xc0
	mPingresp    = 0xd0
	mDisconnect  = 0xe0
	mAuth        = 0xf0
)

// frame puts a fixed header before a body (MQTT 5.0, section 2.1).
func frame(first byte, body ...[]byte) []byte {
	n := 0
	for _, b := range body {
		n += len(b)
	}
	out := binary.AppendUvarint([]byte{first}, uint64(n)) // MQTT's variable byte integer is a uvarint
	for _, b := range body {
		out = append(out, b...)
	}
	return out
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// props puts a length before MQTT 5 properties.
func props(body ...[]byte) []byte {
	var all []byte
	for _, b := range body {
		all = append(all, b...)
	}
	return append(binary.AppendUvarint(nil, uint64(len(all))), all...)
}

// A mqttClient is a client that sees every byte. One goroutine reads, one writes.
type mqttClient struct {
	net.Conn
	r     *bufio.Reader
	level byte // 4 is MQTT 3.1.1, 5 is MQTT 5
}

// A mqttOptions says how to connect. The zero value is a clean MQTT 3.1.1 session.
type mqttOptions struct {
	v5      bool
	id      string
	persist bool // the session outlives the connection
	will    []byte
	willOn  string
}

// dialMQTT connects and expects to be accepted.
func dialMQTT(t testing.TB, addr string, o mqttOptions) *mqttClient {
	t.Helper()
	c, _, err := tryDialMQTT(addr, o)
	if err != nil {
		t.Fatalf("mqtt connect to %s: %v", addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// tryDialMQTT connects; present tells whether the server had the session already.
func tryDialMQTT(addr string, o mqttOptions) (c *mqttClient, present bool, err error) {
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, false, err
	}
	c = &mqttClient{Conn: conn, r: bufio.NewReader(conn), level: 4}
	if o.v5 {
		c.level = 5
	}
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	flags := byte(0)
	if !o.persist {
		flags |= 2
	}
	body := [][]byte{text("MQTT"), {c.level}}
	if o.willOn != "" {
		flags |= 4 | 1<<3 // QoS 1
	}
	body = append(body, []byte{flags}, u16(0))
	if o.v5 {
		if o.persist {
			body = append(body, props([]byte{0x11, 0, 0, 0xff, 0xff})) // session expiry
		} else {
			body = append(body, props())
		}
	}
	body = append(body, text(o.id))
	if o.willOn != "" {
		if o.v5 {
			body = append(body, props())
		}
		body = append(body, text(o.willOn), text(string(o.will)))
	}
	if _, err := c.Write(frame(mConnect, body...)); err != nil {
		c.Close()
		return nil, false, err
	}
	f, err := c.next()
	if err != nil {
		c.Close()
		return nil, false, err
	}
	_, b := split(f)
	if f[0] != mConnack || len(b) < 2 || b[1] != 0 {
		c.Close()
		return nil, false, fmt.Errorf("refused: % x", f)
	}
	return c, b[0] == 1, nil
}

// next reads one whole frame as it came.
func (c *mqttClient) next() ([]byte, error) { return readFrame(c.r) }

func readFrame(r *bufio.Reader) ([]byte, error) {
	first, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	out := []byte{first}
	n := 0
	for shift := 0; ; shift += 7 {
		if shift > 21 {
			return nil, errors.New("remaining length beyond four bytes")
		}
		b, err := r.ReadByte()
		if err != nil {
			return nil, err
		}
		out = append(out, b)
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
	}
	head := len(out)
	out = append(out, make([]byte, n)...)
	_, err = io.ReadFull(r, out[head:])
	return out, err
}

// split gives a frame's first byte and its body.
func split(f []byte) (byte, []byte) {
	i := 1
	for f[i] >= 0x80 {
		i++
	}
	return f[0], f[i+1:]
}

// expect reads the next frame, which must be of that type.
func (c *mqttClient) expect(t testing.TB, first byte) []byte {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	f, err := c.next()
	if err != nil {
		t.Fatalf("mqtt: waiting for packet type %#x: %v", first, err)
	}
	if f[0]&0xf0 != first&0xf0 {
		t.Fatalf("mqtt: got % x, want packet type %#x", f, first)
	}
	return f
}

// publishFrame makes a PUBLISH. It carries no properties.
func (c *mqttClient) publishFrame(topic string, payload []byte, qos byte, retain bool, id uint16, dup bool) []byte {
	first := byte(mPublish) | qos<<1
	if retain {
		first |= 1
	}
	if dup {
		first |= 8
	}
	body := [][]byte{text(topic)}
	if qos > 0 {
		body = append(body, u16(id))
	}
	if c.level == 5 {
		body = append(body, props())
	}
	return frame(first, append(body, payload)...)
}

// publish sends one QoS 1 message and waits for its acknowledgement's reason code.
func (c *mqttClient) publish(t testing.TB, topic, payload string, retain bool) byte {
	t.Helper()
	if _, err := c.Write(c.publishFrame(topic, []byte(payload), 1, retain, 7, false)); err != nil {
		t.Fatalf("mqtt publish: %v", err)
	}
	_, b := split(c.expect(t, mPuback))
	if len(b) > 2 {
		return b[2]
	}
	return 0
}

// subscribe asks for a topic filter and waits for the grant.
func (c *mqttClient) subscribe(t testing.TB, filter string, qos byte) {
	t.Helper()
	body := [][]byte{u16(1)}
	if c.level == 5 {
		body = append(body, props())
	}
	if _, err := c.Write(frame(mSubscribe, append(body, text(filter), []byte{qos})...)); err != nil {
		t.Fatal(err)
	}
	_, b := split(c.expect(t, mSuback))
	if code := b[len(b)-1]; code >= 0x80 {
		t.Fatalf("mqtt subscribe %s: refused with %#x", filter, code)
	}
}

// A message is a PUBLISH taken apart.
type message struct {
	topic   string
	payload string
	qos     byte
	retain  bool
	id      uint16
}

func (c *mqttClient) parse(f []byte) (m message, err error) {
	first, b := split(f)
	if first&0xf0 != mPublish || len(b) < 2 {
		return m, fmt.Errorf("not a PUBLISH: % x", f)
	}
	m.qos, m.retain = first>>1&3, first&1 == 1
	n := int(binary.BigEndian.Uint16(b))
	m.topic, b = string(b[2:2+n]), b[2+n:]
	if m.qos > 0 {
		m.id, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if c.level == 5 {
		n, used := binary.Uvarint(b)
		b = b[used+int(n):]
	}
	m.payload = string(b)
	return m, nil
}

// message waits for the next PUBLISH and acknowledges it.
func (c *mqttClient) message(t testing.TB) message {
	t.Helper()
	m, err := c.parse(c.expect(t, mPublish))
	if err != nil {
		t.Fatal(err)
	}
	if m.qos == 1 {
		if _, err := c.Write(frame(mPuback, u16(m.id))); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// watchTopic collects what a broker or gateway publishes below a filter, in the background.
func watchTopic(t testing.TB, addr, filter string) *inbox {
	t.Helper()
	c := dialMQTT(t, addr, mqttOptions{id: fmt.Sprintf("watch-%d", freePort(t))})
	c.subscribe(t, filter, 1)
	c.SetDeadline(time.Time{})
	box := &inbox{arrived: make(chan message, 1<<16)}
	go func() {
		defer close(box.arrived)
		for {
			f, err := c.next()
			if err != nil {
				return
			}
			m, err := c.parse(f)
			if err != nil {
				continue
			}
			if m.qos == 1 {
				c.Write(frame(mPuback, u16(m.id)))
			}
			box.arrived <- m
		}
	}()
	return box
}

// An inbox is what a subscriber has received.
type inbox struct {
	arrived chan message
	all     []message
}

// until reads messages until one satisfies ok, and remembers all of them.
func (b *inbox) until(t testing.TB, what string, ok func(message) bool) message {
	t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case m, open := <-b.arrived:
			if !open {
				t.Fatalf("the subscription ended before %s; got %v", what, b.all)
			}
			b.all = append(b.all, m)
			if ok(m) {
				return m
			}
		case <-deadline:
			t.Fatalf("no %s; got %v", what, b.all)
		}
	}
}

// payloads gives, of what was read so far, the payloads of live messages on a topic.
func (b *inbox) payloads(topic string) []string {
	var out []string
	for _, m := range b.all {
		if m.topic == topic {
			out = append(out, m.payload)
		}
	}
	return out
}
