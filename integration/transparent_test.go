package integration

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"
)

// A scriptedBroker says to clients what a test tells it to say, and shows the bytes that reach it.
// The gateway's own feed it serves as a broker would.
type scriptedBroker struct {
	addr    string
	clients chan *brokerSide
	feed    chan *brokerSide // once it has subscribed
	acked   chan struct{}    // the feed acknowledged something
}

// A brokerSide is the broker's end of one connection.
type brokerSide struct {
	net.Conn
	r     *bufio.Reader
	first []byte // the CONNECT frame, as it came
}

func startScriptedBroker(t testing.TB) *scriptedBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &scriptedBroker{addr: l.Addr().String(), clients: make(chan *brokerSide, 16), feed: make(chan *brokerSide, 16), acked: make(chan struct{}, 64)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			go b.welcome(conn)
		}
	}()
	return b
}

func (b *scriptedBroker) welcome(conn net.Conn) {
	s := &brokerSide{Conn: conn, r: bufio.NewReader(conn)}
	var err error
	if s.first, err = readFrame(s.r); err != nil {
		conn.Close()
		return
	}
	if !bytes.Contains(s.first, []byte("spookgw")) {
		b.clients <- s
		return
	}
	v5 := bytes.Contains(s.first, []byte("MQTT\x05"))
	none := []byte{}
	if v5 {
		none = []byte{0}
	}
	conn.Write(frame(mConnack, []byte{0, 0}, none))
	for {
		f, err := readFrame(s.r)
		if err != nil {
			return
		}
		first, body := split(f)
		switch first & 0xf0 {
		case mSubscribe & 0xf0:
			// One grant for each filter; the tests' mapping has one.
			conn.Write(frame(mSuback, body[:2], none, []byte{1}))
			b.feed <- s
		case mUnsubscribe & 0xf0:
			conn.Write(frame(0xb0, body[:2], none, []byte{0}))
		case mPingreq:
			conn.Write(frame(mPingresp))
		case mPuback:
			b.acked <- struct{}{}
		case mPublish:
			if first&6 == 2 {
				n := int(body[0])<<8 | int(body[1])
				conn.Write(frame(mPuback, body[2+n:4+n]))
			}
		}
	}
}

func within1[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s", what)
		panic("unreachable")
	}
}

// readExactly reads what must be want, byte for byte.
func readExactly(t testing.TB, who string, c net.Conn, r io.Reader, want []byte) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(patience))
	got := make([]byte, len(want))
	n, err := io.ReadFull(r, got)
	if err != nil {
		t.Fatalf("%s: got %d of %d bytes, then %v\n%s", who, n, len(want), err, hex.Dump(got[:n]))
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: got\n%swant\n%s", who, hex.Dump(got), hex.Dump(want))
	}
}

// inPieces writes b in pieces of at most n bytes.
func inPieces(t testing.TB, c net.Conn, b []byte, n int) {
	t.Helper()
	for len(b) > 0 {
		k := min(len(b), 1+rand.IntN(n))
		if _, err := c.Write(b[:k]); err != nil {
			t.Fatal(err)
		}
		b = b[k:]
	}
}

func userProp(k, v string) []byte { return append(append([]byte{0x26}, text(k)...), text(v)...) }

// longLength is a frame whose remaining length takes one byte more than it needs.
func longLength(first byte, body ...[]byte) []byte {
	f := frame(first, body...)
	if f[1] >= 0x80 {
		panic("body too long")
	}
	return append([]byte{f[0], f[1] | 0x80, 0}, f[2:]...)
}

const oneTopicMapping = `
register "site/{site}/{sensor}" {
  fields = { value = number }
  bind "mqtt" "sensors/{site}/{sensor}" {}
}
`

// TestTransparent: what passes a relay, mapped or not, passes unchanged, byte for byte, both ways.
func TestTransparent(t *testing.T) {
	b := startScriptedBroker(t)
	g := newGateway(t, fmt.Sprintf(`
wrapper "mqtt" "floor" {
  listen   = "127.0.0.1:$mqtt"
  upstream = "tcp://%s"
}
`, b.addr), oneTopicMapping).start()
	feed := within1(t, "feed", b.feed)
	feedV5 := bytes.Contains(feed.first, []byte("MQTT\x05"))

	connect5 := frame(mConnect, text("MQTT"), []byte{5, 0xc6 | 1<<3}, u16(60),
		props(userProp("b", "2"), []byte{0x21, 0, 20}, userProp("a", "1"), []byte{0x22, 0, 9}, []byte{0x11, 0, 0, 0, 60}, []byte{0x27, 0, 1, 0, 0}),
		text("oven-controller"),
		props(userProp("will", "yes"), []byte{0x18, 0, 0, 0, 5}, append([]byte{0x03}, text("text/plain")...)),
		text("plain/last-will"), text("gone"), text("joe"), text("secret"))
	connack5 := frame(mConnack, []byte{0, 0}, props(userProp("z", "1"), []byte{0x22, 0, 10}, []byte{0x21, 0, 30}, userProp("a", "2"), []byte{0x24, 1}))
	connect4 := frame(mConnect, text("MQTT"), []byte{4, 0x26 | 1<<3}, u16(60), text("old-controller"), text("sensors/berlin/will"), text("gone"))
	connect3 := frame(mConnect, text("MQIsdp"), []byte{3, 2}, u16(60), text("older"))
	bridge := frame(mConnect, text("MQTT"), []byte{0x84, 2}, u16(60), text("bridge"))
	connack4 := frame(mConnack, []byte{0, 0})

	publish5 := func(first byte, topic string, id []byte, properties []byte, payload string) []byte {
		return frame(first, text(topic), id, properties, []byte(payload))
	}
	up5 := [][]byte{
		publish5(mPublish, "plain/x", nil, props(userProp("k", "v"), append([]byte{0x03}, text("text/plain")...), []byte{0x02, 0, 0, 0, 9}, []byte{0x01, 1}, userProp("k", "v")), "hello"),
		publish5(mPublish|2, "plain/alias", u16(11), props([]byte{0x23, 0, 5}, userProp("k", "v")), "first"),
		publish5(mPublish|2, "", u16(12), props(userProp("k", "v"), []byte{0x23, 0, 5}), "by alias"),
		publish5(mPublish, "sensors/berlin/oven-1", nil, props([]byte{0x23, 0, 6}), `{"value": 1}`),
		publish5(mPublish, "", nil, props([]byte{0x23, 0, 6}), `{ "value" : 2.0 , "extra":true}`),
		longLength(mPublish, text("plain/long"), props(), []byte("x")),
		longLength(mPublish, text("sensors/berlin/oven-2"), props(), []byte(`{"value":3}`)),
		publish5(mPublish|4, "plain/twice", u16(13), props(), "qos 2"),
		frame(mPubrel, u16(13), []byte{0}, props(userProp("why", "because"))),
		frame(mSubscribe, u16(14), props(userProp("s", "1"), []byte{0x0b, 0x81, 0x01}), text("plain/#"), []byte{0x2d}, text("$share/g/sensors/+/+"), []byte{1}),
		frame(mUnsubscribe, u16(15), props(userProp("u", "1")), text("plain/#")),
		frame(mAuth, []byte{0x18}, props(append([]byte{0x15}, text("SCRAM")...), append([]byte{0x16}, text("\x00\x01\x02")...))),
		publish5(mPublish, "plain/\xff\xfe", nil, props(), "not UTF-8"),
		publish5(mPublish|1, "plain/clear", nil, props(), ""),
		frame(mPingreq),
	}
	down5 := [][]byte{
		frame(mPuback, u16(11), []byte{0x10}, props(userProp("n", "1"), append([]byte{0x1f}, text("nobody")...))),
		frame(mPuback, u16(12)),
		frame(mPubrec, u16(13), []byte{0}),
		frame(mPubcomp, u16(13), []byte{0}, props(userProp("n", "1"))),
		frame(mSuback, u16(14), props(userProp("n", "1")), []byte{1, 0x87}),
		frame(0xb0, u16(15), props(), []byte{0x11}),
		publish5(mPublish|2, "plain/down", u16(1), props([]byte{0x23, 0, 3}, userProp("k", "v"), []byte{0x0b, 0x05}), "down"),
		publish5(mPublish|2|8, "", u16(1), props([]byte{0x23, 0, 3}), "down again"),
		longLength(mPublish, text("sensors/berlin/oven-9"), props(), []byte(`{"value":7}`)),
		frame(mPingresp),
	}
	up4 := [][]byte{
		frame(mPublish, text("plain/x"), []byte("hello")),
		frame(mPublish|2|8, text("plain/y"), u16(9), []byte("again")),
		longLength(mPublish|1, text("sensors/berlin/oven-3"), []byte(`{"value":4}`)),
		frame(mPublish|1, text("plain/z"), nil),
		frame(mSubscribe, u16(10), text("#"), []byte{2}, text("a/+"), []byte{0}),
		frame(mPingreq),
	}
	down4 := [][]byte{
		frame(mPuback, u16(9)),
		frame(mSuback, u16(10), []byte{2, 0x80}),
		frame(mPublish|1, text("plain/down"), []byte("down")),
		frame(mPublish|4, text("plain/down"), u16(3), []byte("down")),
		frame(mPingresp),
	}
	sessions := []struct {
		name             string
		connect, connack []byte
		up, down         [][]byte
		bye              []byte
	}{
		{"5", connect5, connack5, up5, down5, frame(mDisconnect, []byte{4}, props(userProp("bye", "now"), append([]byte{0x1f}, text("keep the will")...)))},
		{"3.1.1", connect4, connack4, up4, down4, frame(mDisconnect)},
		{"3.1", connect3, connack4, up4, down4, frame(mDisconnect)},
		{"bridge", bridge, connack4, up4, down4, frame(mDisconnect)},
	}
	for _, s := range sessions {
		for _, piece := range []int{1, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s/pieces=%d", s.name, piece), func(t *testing.T) {
				c, err := net.Dial("tcp", g.mqttAddr())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				inPieces(t, c, s.connect, piece)
				side := within1(t, "connection at the broker", b.clients)
				if !bytes.Equal(side.first, s.connect) {
					t.Fatalf("CONNECT: got\n%swant\n%s", hex.Dump(side.first), hex.Dump(s.connect))
				}
				inPieces(t, side, s.connack, piece)
				readExactly(t, "client: CONNACK", c, c, s.connack)
				for _, f := range s.up {
					inPieces(t, c, f, piece)
				}
				readExactly(t, "broker", side, side.r, bytes.Join(s.up, nil))
				for _, f := range s.down {
					inPieces(t, side, f, piece)
				}
				readExactly(t, "client", c, c, bytes.Join(s.down, nil))
				inPieces(t, c, s.bye, piece)
				readExactly(t, "broker: DISCONNECT", side, side.r, s.bye)
				side.Close()
				c.SetReadDeadline(time.Now().Add(patience))
				if n, err := c.Read(make([]byte, 1)); err != io.EOF {
					t.Errorf("after the broker closed: got %d bytes and %v, want EOF", n, err)
				}
			})
		}
	}

	t.Run("a mapped publish by alias is captured", func(t *testing.T) {
		c, err := net.Dial("tcp", g.mqttAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write(connect5)
		side := within1(t, "connection at the broker", b.clients)
		side.Write(connack5)
		readExactly(t, "client: CONNACK", c, c, connack5)
		name := publish5(mPublish|2|1, "sensors/berlin/by-alias", u16(21), props([]byte{0x23, 0, 2}), `{"value":5}`)
		alias := publish5(mPublish|2|1, "", u16(22), props([]byte{0x23, 0, 2}), `{"value":6}`)
		for i, f := range [][]byte{name, alias} {
			c.Write(f)
			readExactly(t, "broker", side, side.r, f)
			id := u16(uint16(21 + i))
			ack := frame(mPuback, id, []byte{0x10})
			side.Write(ack)
			var none []byte
			if feedV5 {
				none = props()
			}
			feed.Write(frame(mPublish|2, text("sensors/berlin/by-alias"), u16(uint16(50+i)), none, fmt.Appendf(nil, `{"value":%d}`, 5+i)))
			within1(t, "the feed's acknowledgement", b.acked)
			readExactly(t, "client: PUBACK", c, c, ack)
		}
		g.becomes("site/berlin/by-alias", `{"value":6}`)
		g.wantHistory("site/berlin/by-alias", 2)
		for _, d := range g.history("site/berlin/by-alias") {
			if !strings.Contains(d.Cause.Peer+d.Cause.Principal, "oven-controller") && !strings.Contains(d.Cause.Principal, "joe") {
				t.Errorf("cause %+v names neither the client nor its user", d.Cause)
			}
		}
	})
}

// TestTransparentSubscriber: a subscriber behind the gateway gets the bytes that one beside it gets.
func TestTransparentSubscriber(t *testing.T) {
	mosquittoPub := peer(t, "mosquitto_pub", "mosquitto")
	p := newPlant(t, false)
	p.start()
	for _, v5 := range []bool{false, true} {
		t.Run(fmt.Sprintf("v5=%v", v5), func(t *testing.T) {
			topic := fmt.Sprintf("sensors/v5-%v/oven", v5)
			must(t, mosquittoPub, p.pub("-p", fmt.Sprint(p.brokerPort), "-r", "-t", "plain/kept", "-m", "kept")...)
			direct := dialMQTT(t, p.brokerAddr(), mqttOptions{v5: v5, id: fmt.Sprintf("direct-%v", v5)})
			through := dialMQTT(t, p.mqttAddr(), mqttOptions{v5: v5, id: fmt.Sprintf("through-%v", v5)})
			both := []*mqttClient{direct, through}
			for _, c := range both {
				c.subscribe(t, "plain/#", 1)
				// The retained message is the first.
				if m := c.message(t); m.payload != "kept" {
					t.Fatalf("got %+v, want the retained message", m)
				}
				c.subscribe(t, topic, 1)
			}
			v5pub := func(args ...string) []string { return append(p.pub("-V", "5", "-p", fmt.Sprint(p.mqtt)), args...) }
			must(t, mosquittoPub, v5pub("-t", "plain/a", "-m", "x", "-D", "publish", "user-property", "z", "1", "-D", "publish", "user-property", "a", "2",
				"-D", "publish", "content-type", "text/plain", "-D", "publish", "response-topic", "plain/reply", "-D", "publish", "correlation-data", "77")...)
			must(t, mosquittoPub, v5pub("-t", topic, "-r", "-m", `{ "value" : 1.50 }`, "-D", "publish", "user-property", "z", "1")...)
			must(t, mosquittoPub, v5pub("-t", topic, "-m", `{"value":2,"unknown":[1,2]}`)...)
			must(t, mosquittoPub, v5pub("-t", "plain/end", "-n")...)
			var got [2][]byte
			for i, c := range both {
				for {
					f := c.expect(t, mPublish)
					got[i] = append(got[i], f...)
					m, err := c.parse(f)
					if err != nil {
						t.Fatal(err)
					}
					if m.qos > 0 {
						c.Write(frame(mPuback, u16(m.id)))
					}
					if m.topic == "plain/end" {
						break
					}
				}
			}
			if !bytes.Equal(got[0], got[1]) {
				t.Errorf("beside the gateway\n%sbehind it\n%s", hex.Dump(got[0]), hex.Dump(got[1]))
			}
		})
	}
}

// TestRelayWill: a will that the broker publishes is state like any other message, once.
func TestRelayWill(t *testing.T) {
	p := newPlant(t, false)
	p.start()
	box := watchTopic(t, p.brokerAddr(), "#")
	for i, v5 := range []bool{false, true} {
		c := dialMQTT(t, p.mqttAddr(), mqttOptions{v5: v5, id: fmt.Sprintf("dying-%d", i), will: []byte(`{"value":-1}`), willOn: fmt.Sprintf("sensors/berlin/will-%d", i)})
		u := dialMQTT(t, p.mqttAddr(), mqttOptions{v5: v5, id: fmt.Sprintf("unknown-%d", i), will: []byte("last\x00words"), willOn: fmt.Sprintf("plain/will-%d", i)})
		c.Close()
		u.Close()
		p.becomes(fmt.Sprintf("site/berlin/will-%d", i), `{"value":-1}`)
		p.http.becomes(t, fmt.Sprintf("/v1/berlin/will-%d", i), `{"value":-1}`)
		box.until(t, "the unknown will", func(m message) bool {
			return m.topic == fmt.Sprintf("plain/will-%d", i) && m.payload == "last\x00words"
		})
	}
	p.quiet(t, box)
	for i := range 2 {
		p.wantHistory(fmt.Sprintf("site/berlin/will-%d", i), 1)
		if got := box.payloads(fmt.Sprintf("sensors/berlin/will-%d", i)); len(got) != 1 {
			t.Errorf("will at the broker: got %v, want one", got)
		}
	}
}
