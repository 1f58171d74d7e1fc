package mqtt

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/eclipse/paho.golang/paho"
	pahov3 "github.com/eclipse/paho.mqtt.golang"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// startRelay runs a relay in front of a broker and waits for its feed.
func startRelay(t testing.TB, link *wrappertest.Link, addr string, tune func(*wrappers.Config)) wrappertest.Rig {
	t.Helper()
	rig := startWrapper(t, link, wrappers.Config{Listener: listen(t), Upstreams: upstream(addr)}, tune)
	link.Await(t, "the feed", func() bool { return link.Counted("feed_up") > 0 })
	return rig
}

// withLength rewrites a packet's remaining length in n bytes.
func withLength(frame []byte, n int) []byte {
	head, remaining, _ := scanHeader(frame)
	out := []byte{frame[0]}
	for i := range n {
		c := byte(remaining>>(7*i)) & 0x7f
		if i < n-1 {
			c |= 0x80
		}
		out = append(out, c)
	}
	return append(out, frame[head:]...)
}

// TestBytesPass sends what libraries re-encode, or can't read at all, through the relay.
func TestBytesPass(t *testing.T) {
	oddProps := appendUserProperty(nil, "z", "1")
	oddProps = append(oddProps, propPayloadFormat, 1)
	oddProps = appendString(append(oddProps, propResponseTopic), "answers/x")
	oddProps = appendUserProperty(oddProps, "a", "2")
	oddProps = append(oddProps, propTopicAlias, 0, 7)
	aliased := []byte{propTopicAlias, 0, 7}
	v5 := connect{name: "MQTT", level: level5, clean: true, keepAlive: 60, clientID: []byte("odd"),
		props: append([]byte{propReceiveMaximum, 0, 9}, appendUserProperty(nil, "k", "v")...), hasUser: true, user: []byte("u"), hasPass: true, password: []byte{0, 255},
		will: &will{qos: 1, retain: true, props: []byte{propWillDelay, 0, 0, 0, 9}, topic: []byte("last/words"), payload: []byte("bye")}}
	big := bytes.Repeat([]byte("0123456789"), 30_000)
	for name, frames := range map[string][][]byte{
		"5": {
			appendConnect(nil, &v5),
			appendPublish(nil, true, &publish{topic: []byte("other/a"), props: oddProps, payload: []byte("x")}, nil),
			appendPublish(nil, true, &publish{props: aliased, payload: []byte("by alias")}, nil),
			appendPublish(nil, true, &publish{topic: []byte("sensors/a/b"), props: append([]byte{propMessageExpiry, 0, 0, 0, 1}, oddProps[:14]...), payload: []byte(`{"value":1}`), retain: true}, nil),
			withLength(appendPublish(nil, true, &publish{topic: []byte("other/b"), payload: []byte("long length")}, nil), 4),
			withLength(appendPublish(nil, true, &publish{topic: []byte("sensors/a/c"), payload: []byte("mapped, long length")}, nil), 3),
			appendPublish(nil, true, &publish{topic: []byte("other/big"), payload: big}, nil),
			{typeAuth << 4, 2, 0x18, 0},
			{0x06, 3, 'x', 'y', 'z'},   // a type that does not exist
			{0x3e, 5, 0, 1, 'q', 0, 1}, // QoS 3
			appendSubscribe(nil, true, typeSubscribe, &subscribe{id: 9, props: []byte{propSubscriptionID, 5}, requests: []request{{"$share/g/#", 0x2d}, {"other/+", 1}}}),
			{typePingreq << 4, 0},
		},
		"3.1.1": {
			appendConnect(nil, &connect{name: "MQTT", level: level311, bridge: true, keepAlive: 60, clientID: []byte("bridge")}),
			appendPublish(nil, false, &publish{topic: []byte("bad\xff\xfeutf8"), payload: []byte("x")}, nil),
			appendPublish(nil, false, &publish{topic: []byte("sensors/a/b"), qos: 1, dup: true, id: 77, payload: []byte{0, 1, 2}}, nil),
			{typePingreq << 4, 0},
		},
		"3.1": {
			appendConnect(nil, &connect{name: "MQIsdp", level: level31, clean: true, keepAlive: 60, clientID: []byte("old")}),
			appendPublish(nil, false, &publish{topic: []byte("sensors/a/b"), payload: nil, retain: true}, nil),
			{typePingreq << 4, 0},
		},
	} {
		for _, step := range []int{1, 7, 1 << 20} {
			if step == 1 && name == "5" {
				step = 3 // 300 KB byte by byte takes its time
			}
			t.Run(fmt.Sprintf("%s in pieces of %d", name, step), func(t *testing.T) {
				b := startScripted(t, nil)
				link := newLink()
				if step > 1 { // recording changes no byte
					link.Record()
				}
				rig := startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Options = wrappers.Options{"capture": "async"} })
				p := dialPeer(t, rig.Addr)
				all := bytes.Join(frames, nil)
				done := make(chan error, 1)
				go func() {
					for rest := all; len(rest) > 0; {
						n := min(step, len(rest))
						if len(rest) > 100_000 {
							n = min(50_000, len(rest))
						}
						if _, err := p.nc.Write(rest[:n]); err != nil {
							done <- err
							return
						}
						rest = rest[n:]
					}
					done <- nil
				}()
				c := b.await("the client's last packet", func(c *scriptedConn) bool {
					return !strings.HasPrefix(c.id, "spookgw-") && len(c.got) > 0 && c.got[len(c.got)-1].kind() == typePingreq
				})
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				b.mu.Lock()
				got := bytes.Clone(c.bytes.Bytes())
				b.mu.Unlock()
				if !bytes.Equal(got, all) {
					t.Errorf("the broker got %d bytes, sent were %d; they differ", len(got), len(all))
				}
				// And back: what the broker says, in its own form.
				back := bytes.Join([][]byte{
					withLength(appendPublish(nil, name == "5", &publish{topic: []byte("sensors/a/b"), payload: []byte("y")}, nil), 4),
					{0xf0, 2, 0x18, 0}, {0x09, 1, 'x'}, appendPublish(nil, name == "5", &publish{topic: []byte("other/big"), payload: big}, nil),
				}, nil)
				c.say(back)
				seen := make([]byte, 0, len(back))
				_ = p.nc.SetReadDeadline(time.Now().Add(waitFor))
				buf := make([]byte, 4096)
				for !bytes.Contains(seen, back) { // an answer to the PINGREQ may stand on either side
					n, err := p.nc.Read(buf)
					if err != nil {
						t.Fatalf("got %d bytes, then %v", len(seen), err)
					}
					seen = append(seen, buf[:n]...)
				}
			})
		}
	}
}

// TestAliasIsFollowed: a mapped topic may be known by its alias only.
func TestAliasIsFollowed(t *testing.T) {
	m := startMosquitto(t, "")
	link := newLink()
	rig := startRelay(t, link, m.addr, nil)
	p := connectPeer(t, rig.Addr, connect{clean: true, clientID: []byte("lamp"), hasUser: true, user: []byte("ann")})
	p.connack()
	alias := []byte{propTopicAlias, 0, 3}
	for n, pub := range []publish{
		{qos: 1, topic: []byte("sensors/a/b"), props: alias, payload: []byte(`{"value":1}`)},
		{qos: 1, props: alias, payload: []byte(`{"value":2}`)},
	} {
		if code, err := p.publish(pub); err != nil || code >= 0x80 {
			t.Fatalf("publish %d: 0x%02x %v", n, code, err)
		}
	}
	got := link.Candidates(wrappertest.ViaSeen)
	if len(got) != 2 || string(got[1].Payload) != `{"value":2}` {
		t.Fatalf("got %v", got)
	}
	for _, c := range got {
		if c.Op.Who.Principal != "mqtt/floor:ann" || !strings.HasSuffix(c.Op.Who.Peer, " lamp") {
			t.Errorf("who: got %+v", c.Op.Who)
		}
	}
}

// TestHeldUntilDurable: with QoS 1 and 2 the last acknowledgement waits for the feed, and only
// so long.
func TestHeldUntilDurable(t *testing.T) {
	m := startMosquitto(t, "")
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			link := newLink()
			rig := startRelay(t, link, m.addr, func(c *wrappers.Config) {
				c.Options = wrappers.Options{"client_id": fmt.Sprintf("feed-%d", qos), "capture_wait_ms": int64(300)}
			})
			p := connectPeer(t, rig.Addr, connect{clean: true})
			p.connack()
			release := link.Block(wrappertest.CallSeen)
			began := time.Now()
			if code, err := p.publish(msg("sensors/a/b", `{"value":1}`, qos)); err != nil || code >= 0x80 {
				t.Fatalf("0x%02x %v", code, err)
			}
			if took := time.Since(began); took < 300*time.Millisecond {
				t.Errorf("the answer came after %v, before the message was durable", took)
			}
			if n := link.Counted("capture_late"); n != 1 {
				t.Errorf("capture_late: got %d, want 1", n)
			}
			release()
			link.Await(t, "the candidate", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
			// Twenty in flight, each durable when it is acknowledged, in order.
			var all []byte
			for i := range 20 {
				pub := msg("sensors/a/b", fmt.Sprintf(`{"value":%d}`, i+100), 1)
				pub.id = uint16(1000 + i)
				all = appendPublish(all, true, &pub, nil)
			}
			p.send(all)
			at := 0
			for i := range 20 {
				var k packet
				var err error
				if k, at, err = p.await(at, func(k packet) bool { return k.kind() == typePuback && k.body[0] >= 3 }); err != nil {
					t.Fatal(err)
				}
				if a, _ := parseAck(k.body, true); a.id != uint16(1000+i) {
					t.Errorf("acknowledgement %d is of %d", i, a.id)
				}
				if n := len(link.Candidates(wrappertest.ViaSeen)); n < i+2 {
					t.Errorf("acknowledgement %d came with %d candidates", i, n)
				}
			}
		})
	}
}

// TestRecordUnmapped: while somebody records, publishes that no bind maps are shown with their payloads, and still pass.
func TestRecordUnmapped(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	link.Record()
	rig := startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Options = wrappers.Options{"capture": "async"} })
	p := dialPeer(t, rig.Addr)
	var all []byte
	all = appendConnect(all, &connect{name: "MQTT", level: level311, clean: true, keepAlive: 60, clientID: []byte("c")})
	all = appendPublish(all, false, &publish{topic: []byte("other/a"), payload: []byte("21.5")}, nil)
	all = appendPublish(all, false, &publish{topic: []byte("other/b"), retain: true}, nil)
	all = append(all, typePingreq<<4, 0)
	if _, err := p.nc.Write(all); err != nil {
		t.Fatal(err)
	}
	b.await("the ping", func(c *scriptedConn) bool {
		return !strings.HasPrefix(c.id, "spookgw-") && len(c.got) == 4 && c.got[3].kind() == typePingreq
	})
	taps := link.Taps()
	if len(taps) != 2 || taps[0].Op.Address != "other/a" || string(taps[0].Op.Payload.Raw) != "21.5" || taps[0].Op.Verb != wrappers.Message || taps[1].Op.Verb != wrappers.Delete {
		t.Errorf("got %+v", taps)
	}
}

// TestRefuseUnmapped: with unmapped = "refuse" a publish that no bind maps does not reach the broker.
func TestRefuseUnmapped(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	rig := startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Refuse = true; c.Options = wrappers.Options{"capture": "async"} })
	p := connectPeer(t, rig.Addr, connect{clean: true, clientID: []byte("five")})
	p.connack()
	if code, err := p.publish(msg("other/x", "1", 1)); code != codeBadTopic || err != nil {
		t.Errorf("QoS 1: got 0x%02x %v, want 0x%02x", code, err, codeBadTopic)
	}
	if code, err := p.publish(msg("other/x", "1", 2)); code != codeBadTopic || err != nil {
		t.Errorf("QoS 2: got 0x%02x %v, want 0x%02x", code, err, codeBadTopic)
	}
	if code, err := p.publish(msg("sensors/a/b", "1", 1)); code != 0 || err != nil {
		t.Errorf("mapped: got 0x%02x %v", code, err)
	}
	old := connectPeer(t, rig.Addr, connect{level: level311, clean: true, clientID: []byte("four")})
	old.connack()
	if _, err := old.publish(msg("other/x", "1", 1)); err == nil {
		t.Error("MQTT 3.1.1: the publish was acknowledged")
	}
	c := b.await("the client", func(c *scriptedConn) bool { return c.id == "five" })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range c.got {
		if k.kind() == typePublish && bytes.Contains(k.body, []byte("other/x")) {
			t.Error("the broker got it")
		}
	}
	if n := link.Counted("refused_publishes"); n != 3 {
		t.Errorf("refused_publishes: got %d, want 3", n)
	}
}

// TestRelayAccess: a publish that its client may not make does not reach the broker.
func TestRelayAccess(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	link.RefuseIf(func(verb wrappers.Verb, address string, who wrappers.Who) bool {
		return verb.Writes() && who.Principal != "mqtt/floor:ann" && address == "sensors/a/b"
	})
	rig := startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Options = wrappers.Options{"capture": "async"} })
	p := connectPeer(t, rig.Addr, connect{clean: true, clientID: []byte("five")})
	p.connack()
	for qos := byte(1); qos <= 2; qos++ {
		if code, err := p.publish(msg("sensors/a/b", "secret", qos)); code != codeNotAuthorized || err != nil {
			t.Errorf("QoS %d: got 0x%02x %v, want 0x%02x", qos, code, err, codeNotAuthorized)
		}
	}
	if code, err := p.publish(msg("sensors/a/c", "1", 1)); code != 0 || err != nil {
		t.Errorf("what it may: got 0x%02x %v", code, err)
	}
	ann := connectPeer(t, rig.Addr, connect{clean: true, clientID: []byte("ann"), hasUser: true, user: []byte("ann")})
	ann.connack()
	if code, err := ann.publish(msg("sensors/a/b", "1", 1)); code != 0 || err != nil {
		t.Errorf("ann: got 0x%02x %v", code, err)
	}
	old := connectPeer(t, rig.Addr, connect{level: level311, clean: true, clientID: []byte("four")})
	old.connack()
	if _, err := old.publish(msg("sensors/a/b", "secret", 1)); err == nil {
		t.Error("MQTT 3.1.1: the publish was acknowledged")
	}
	c := b.await("the client", func(c *scriptedConn) bool { return c.id == "five" })
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, k := range c.got {
		if k.kind() == typePublish && bytes.Contains(k.body, []byte("secret")) {
			t.Error("the broker got it")
		}
	}
}

// TestAnnouncedSize: 250 MB announced to a mapped topic end the peer's session; to another topic
// they pass, and neither costs memory.
func TestAnnouncedSize(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	rig := startRelay(t, link, b.addr(), nil)
	announce := func(topic string) *peer {
		p := connectPeer(t, rig.Addr, connect{clean: true})
		p.connack()
		head := appendVarint([]byte{typePublish << 4}, 250<<20)
		p.send(append(appendString(head, topic), 0))
		return p
	}
	if code := announce("sensors/a/b").closedWith(); code != codePacketTooLarge {
		t.Errorf("DISCONNECT 0x%02x, want 0x%02x", code, codePacketTooLarge)
	}
	if n := link.Counted("oversized"); n != 1 {
		t.Errorf("oversized: got %d, want 1", n)
	}
	announce("other/a") // still there when the test ends
	q := connectPeer(t, rig.Addr, connect{clean: true})
	q.connack()
	if code, err := q.publish(msg("other/b", "1", 1)); code != 0 || err != nil {
		t.Errorf("another peer: 0x%02x %v", code, err)
	}
}

// TestFeedAcknowledgesWhatIsDurable: a message whose acknowledgement was lost comes again and makes
// no second candidate; one that was not committed does.
func TestFeedAcknowledgesWhatIsDurable(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	startRelay(t, link, b.addr(), nil)
	c := b.feedConn()
	send := func(c *scriptedConn, id uint16, payload string, dup bool) {
		c.say(appendPublish(nil, true, &publish{qos: 1, id: id, dup: dup, topic: []byte("sensors/a/b"), payload: []byte(payload)}, nil))
	}
	send(c, 5, `{"value":1}`, false)
	acked := func(id uint16) func(*scriptedConn) bool {
		return func(c *scriptedConn) bool {
			for _, k := range c.got {
				if k.kind() == typePuback && k.body[1] == byte(id) {
					return !c.over
				}
			}
			return false
		}
	}
	b.await("PUBACK 5", acked(5))
	c.nc.Close()
	b.await("the feed to end", func(o *scriptedConn) bool { return o == c && o.over })
	c = b.feedConn()
	send(c, 5, `{"value":1}`, true)
	send(c, 6, `{"value":2}`, true)
	b.await("PUBACK 6", acked(6))
	if n := len(link.Candidates(wrappertest.ViaSeen)); n != 2 {
		t.Errorf("got %d candidates, want 2\n%s", n, link)
	}
	if n := link.Counted("feed_duplicates"); n != 1 {
		t.Errorf("feed_duplicates: got %d, want 1", n)
	}
}

// TestFeedListsFirst: what is retained arrives as a snapshot that ends, also when it is much.
func TestFeedListsFirst(t *testing.T) {
	m := startMosquitto(t, "", "max_queued_messages 0")
	set := connectPeer(t, m.addr, connect{clean: true})
	set.connack()
	const count = 500
	for n := range count {
		p := msg(fmt.Sprintf("sensors/a/s%d", n), fmt.Sprintf(`{"value":%d}`, n), 1)
		p.retain = true
		if code, err := set.publish(p); code >= 0x80 || err != nil {
			t.Fatal(code, err)
		}
	}
	link := newLink()
	startRelay(t, link, m.addr, nil)
	parts, ended := 0, false
	for _, at := range link.Positions() {
		switch at.Snapshot {
		case wrappers.SnapshotPart:
			parts++
		case wrappers.SnapshotEnd:
			ended = true
		}
	}
	if got := len(link.Candidates(wrappertest.ViaSeen)); got != count || !ended || parts == 0 {
		t.Errorf("got %d candidates in %d parts, ended %v; want %d", got, parts, ended, count)
	}
}

// TestFeedFollowsTheMapping: a reload subscribes to what is new.
func TestFeedFollowsTheMapping(t *testing.T) {
	m := startMosquitto(t, "")
	link := newLink()
	startRelay(t, link, m.addr, nil)
	link.SetPatterns(wrappertest.Patterns("plant/{x}")...)
	ends := func() (n int) {
		for _, at := range link.Positions() {
			if at.Snapshot == wrappers.SnapshotEnd {
				n++
			}
		}
		return n
	}
	link.Await(t, "the second listing", func() bool { return ends() == 2 })
	p := connectPeer(t, m.addr, connect{clean: true})
	p.connack()
	for _, topic := range []string{"sensors/a/b", "plant/x"} {
		if _, err := p.publish(msg(topic, `{"value":1}`, 1)); err != nil {
			t.Fatal(err)
		}
	}
	link.Await(t, "the candidate", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) > 0 })
	if got := link.Candidates(wrappertest.ViaSeen); len(got) != 1 || got[0].Address != "plant/x" {
		t.Errorf("got %v", got)
	}
}

// TestBrokerRefuses: what the broker refuses for good is parked, for now tried again; and a
// refused publish of a peer is no candidate.
func TestBrokerRefuses(t *testing.T) {
	tries := 0
	b := startScripted(t, func(c *scriptedConn, first byte, body []byte) []byte {
		if first>>4 != typePublish {
			return nil
		}
		p, _ := parsePublish(first, body, true)
		switch string(p.topic) {
		case "sensors/a/never":
			return appendAck(nil, typePuback, true, p.id, codeNotAuthorized, "no rights there")
		case "sensors/a/later":
			if tries++; tries == 1 {
				return appendAck(nil, typePuback, true, p.id, codeQuotaExceeded, "")
			}
		}
		return nil
	})
	link := newLink()
	rig := startRelay(t, link, b.addr(), nil)
	for _, topic := range []string{"sensors/a/never", "sensors/a/later", "sensors/a/fine"} {
		link.PushPut(topic, `{"value":1}`)
	}
	want := map[string][]wrappers.Outcome{"sensors/a/never": {wrappers.Parked}, "sensors/a/later": {wrappers.Retry, wrappers.Done}, "sensors/a/fine": {wrappers.Done}}
	got := func() map[string][]wrappers.Outcome {
		m := map[string][]wrappers.Outcome{}
		for _, s := range link.Settlements() {
			m[s.Change.Address] = append(m[s.Change.Address], s.Effect.Outcome)
		}
		return m
	}
	link.Await(t, "three ends", func() bool { return fmt.Sprint(got()) == fmt.Sprint(want) })
	p := connectPeer(t, rig.Addr, connect{clean: true})
	p.connack()
	if code, err := p.publish(msg("sensors/a/never", `{"value":2}`, 1)); code != codeNotAuthorized || err != nil {
		t.Errorf("got 0x%02x %v: the broker's own answer passes", code, err)
	}
	if n := len(link.Candidates(wrappertest.ViaSeen)); n != 0 {
		t.Errorf("%d candidates of refused publishes", n)
	}
	c := b.feedConn()
	marked := false
	b.mu.Lock()
	for _, k := range c.got {
		if k.kind() == typePublish {
			q, _ := parsePublish(k.first, k.body, true)
			marked = userProperty(q.props, markProperty, "spookgw/local/0123456789abcdef")
		}
	}
	b.mu.Unlock()
	if !marked {
		t.Error("the gateway's publish bears no mark")
	}
}

// TestClearThroughTheRelay: a retained message that is cleared is a register that goes, and an
// empty message is not.
func TestClearThroughTheRelay(t *testing.T) {
	m := startMosquitto(t, "")
	for _, level := range []byte{level311, level5} {
		link := newLink()
		rig := startRelay(t, link, m.addr, func(c *wrappers.Config) { c.Options = wrappers.Options{"client_id": fmt.Sprint("feed", level)} })
		p := connectPeer(t, rig.Addr, connect{level: level, clean: true})
		p.connack()
		full, empty, clear := msg("sensors/a/b", `{"value":1}`, 1), msg("sensors/a/b", "", 1), msg("sensors/a/b", "", 1)
		full.retain, clear.retain = true, true
		for _, pub := range []publish{full, empty, clear} {
			if code, err := p.publish(pub); err != nil || code >= 0x80 {
				t.Fatal(code, err)
			}
		}
		var verbs []wrappers.Verb
		for _, o := range link.Observations() {
			verbs = append(verbs, o.Verb)
		}
		if fmt.Sprint(verbs) != "[message message delete]" {
			t.Errorf("level %d: got %v", level, verbs)
		}
	}
}

// TestListingUnderLoad: what is published with RETAIN all the while does not keep a listing from
// ending.
func TestListingUnderLoad(t *testing.T) {
	m := startMosquitto(t, "")
	p := connectPeer(t, m.addr, connect{clean: true})
	p.connack()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				pub := msg(fmt.Sprintf("sensors/a/s%d", n%5), fmt.Sprintf(`{"value":%d}`, n), 1)
				pub.retain = true
				if _, err := p.publish(pub); err != nil {
					return
				}
			}
		}
	}()
	startRelay(t, newLink(), m.addr, nil)
	close(stop)
	<-done
}

// TestOldBroker: one that speaks 3.1.1 only is attached to all the same, and there the gateway
// knows its own messages without a mark.
func TestOldBroker(t *testing.T) {
	b := startScripted(t, func(c *scriptedConn, first byte, body []byte) []byte {
		switch first >> 4 {
		case typeConnect:
			if req, err := parseConnect(body, false); err == nil && req.level == level5 {
				return appendConnack(nil, false, &connack{code: v3BadVersion})
			}
		case typePublish: // everything comes back to its publisher
			p, _ := parsePublish(first, body, false)
			c.sent++
			say := appendAck(nil, typePuback, false, p.id, 0, "")
			p.id, p.retain = c.sent, false
			return appendPublish(say, false, &p, nil)
		}
		return nil
	})
	link := newLink()
	startRelay(t, link, b.addr(), nil)
	link.PushPut("sensors/a/b", `{"value":1}`)
	link.Await(t, "done, and back", func() bool { return len(link.Settlements()) == 1 && len(link.Observations()) == 1 })
	if o := link.Observations()[0]; !o.Ours {
		t.Errorf("got %+v: the gateway takes its own message for news", o)
	}
}

// TestBrokerGoesAndComes: write-back waits for the broker, and the feed goes on.
func TestBrokerGoesAndComes(t *testing.T) {
	addr := freeAddr(t)
	m := startMosquitto(t, addr)
	link := newLink()
	rig := startRelay(t, link, addr, nil)
	m.stop()
	link.Await(t, "the feed to go", func() bool { return link.Counted("feed_down") > 0 })
	link.PushPut("sensors/a/b", `{"value":1}`)
	connectPeer(t, rig.Addr, connect{clean: true}).closedWith()
	startMosquitto(t, addr)
	link.Await(t, "the write-back", func() bool {
		ss := link.Settlements()
		return len(ss) > 0 && ss[len(ss)-1].Effect.Outcome == wrappers.Done
	})
}

// TestPahoThroughTheRelay lets two independent clients talk through it.
func TestPahoThroughTheRelay(t *testing.T) {
	m := startMosquitto(t, "")
	link := newLink()
	rig := startRelay(t, link, m.addr, nil)
	pahoTalk(t, rig.Addr)
	link.Await(t, "the candidates", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 2 })
}

// pahoTalk: a 3.1.1 client hears a 5 client and the other way round.
func pahoTalk(t *testing.T, addr string) {
	t.Helper()
	heard := make(chan string, 10)
	old := pahov3.NewClient(pahov3.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("paho3").SetProtocolVersion(4))
	if tok := old.Connect(); !tok.WaitTimeout(waitFor) || tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	t.Cleanup(func() { old.Disconnect(0) })
	if tok := old.Subscribe("sensors/#", 1, func(_ pahov3.Client, m pahov3.Message) {
		heard <- "3 " + m.Topic() + " " + string(m.Payload())
	}); !tok.WaitTimeout(waitFor) || tok.Error() != nil {
		t.Fatalf("subscribe: %v", tok.Error())
	}
	nc, _, err := dialer(t, addr)
	if err != nil {
		t.Fatal(err)
	}
	router := paho.NewStandardRouter()
	router.DefaultHandler(func(p *paho.Publish) {
		heard <- "5 " + p.Topic + " " + string(p.Payload) + " " + p.Properties.User.Get("k")
	})
	five := paho.NewClient(paho.ClientConfig{Conn: nc, Router: router})
	if _, err := five.Connect(t.Context(), &paho.Connect{ClientID: "paho5", KeepAlive: 30, CleanStart: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = five.Disconnect(&paho.Disconnect{}) })
	if _, err := five.Subscribe(t.Context(), &paho.Subscribe{Subscriptions: []paho.SubscribeOptions{{Topic: "sensors/+/+", QoS: 2, NoLocal: false}}}); err != nil {
		t.Fatal(err)
	}
	props := &paho.PublishProperties{}
	props.User.Add("k", "v")
	if _, err := five.Publish(t.Context(), &paho.Publish{QoS: 2, Topic: "sensors/a/five", Payload: []byte(`{"value":5}`), Properties: props}); err != nil {
		t.Fatal(err)
	}
	if tok := old.Publish("sensors/a/three", 1, false, `{"value":3}`); !tok.WaitTimeout(waitFor) || tok.Error() != nil {
		t.Fatalf("publish: %v", tok.Error())
	}
	want := map[string]bool{`3 sensors/a/five {"value":5}`: true, `5 sensors/a/five {"value":5} v`: true, `3 sensors/a/three {"value":3}`: true, `5 sensors/a/three {"value":3} `: true}
	for len(want) > 0 {
		select {
		case got := <-heard:
			if !want[got] {
				t.Errorf("heard %q", got)
			}
			delete(want, got)
		case <-time.After(waitFor):
			t.Fatalf("not heard: %v", want)
		}
	}
}

// TestMosquittoThroughTheRelay runs the commands that people run.
func TestMosquittoThroughTheRelay(t *testing.T) {
	m := startMosquitto(t, "")
	link := newLink()
	rig := startRelay(t, link, m.addr, nil)
	mosquittoTalk(t, rig.Addr, func() { link.PushPut("sensors/berlin/oven-4", `{"value":4}`) })
	if b, _ := link.Register("", "sensors/berlin/oven-3"); string(b) != `{"value":21.5}` {
		t.Errorf("register: got %s", b)
	}
}

// mosquittoTalk publishes and subscribes with mosquitto's own commands.
func mosquittoTalk(t *testing.T, addr string, elsewhere func()) {
	t.Helper()
	pub, err := exec.LookPath("mosquitto_pub")
	if err != nil {
		t.Skip("mosquitto_pub not installed")
	}
	_, port, _ := strings.Cut(addr, ":")
	ctx, cancel := context.WithTimeout(t.Context(), waitFor)
	defer cancel()
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for _, qos := range []string{"0", "1", "2"} {
			if out, err := exec.CommandContext(ctx, pub, "-V", version, "-q", qos, "-r", "-p", port, "-t", "sensors/berlin/oven-3", "-m", `{"value":21.5}`).CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub -V %s -q %s: %v\n%s", version, qos, err, out)
			}
		}
	}
	elsewhere()
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		out, err := exec.CommandContext(ctx, "mosquitto_sub", "-V", version, "-p", port, "-q", "1", "-t", "sensors/#", "-C", "2", "-F", "%r %t %p").CombinedOutput()
		lines := strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", " "))
		text := strings.Join(lines, " ")
		if err != nil || !strings.Contains(text, `sensors/berlin/oven-3 {"value":21.5}`) || !strings.Contains(text, `sensors/berlin/oven-4 {"value":4}`) {
			t.Errorf("mosquitto_sub -V %s: %v\n%s", version, err, out)
		}
	}
}

// TestWebSocketThroughTheRelay: browsers come by the same port.
func TestWebSocketThroughTheRelay(t *testing.T) {
	m := startMosquitto(t, "")
	link := newLink()
	rig := startRelay(t, link, m.addr, nil)
	overWebSocket(t, rig.Addr)
	link.Await(t, "the candidate", func() bool { return len(link.Candidates(wrappertest.ViaSeen)) == 1 })
}

func overWebSocket(t *testing.T, addr string) {
	t.Helper()
	if _, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/other", &websocket.DialOptions{Subprotocols: []string{"mqtt"}}); err == nil {
		t.Error("any path takes WebSockets")
	}
	if _, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/mqtt", &websocket.DialOptions{
		Subprotocols: []string{"mqtt"}, HTTPHeader: http.Header{"Origin": {"http://evil.example"}}}); err == nil {
		t.Error("pages of any origin may connect")
	}
	ws, _, err := websocket.Dial(t.Context(), "ws://"+addr+"/mqtt", &websocket.DialOptions{Subprotocols: []string{"mqtt"}})
	if err != nil {
		t.Fatal(err)
	}
	c := pahov3.NewClient(pahov3.NewClientOptions().AddBroker("ws://" + addr + "/mqtt").SetClientID("browser"))
	if tok := c.Connect(); !tok.WaitTimeout(waitFor) || tok.Error() != nil {
		t.Fatalf("connect: %v", tok.Error())
	}
	if tok := c.Publish("sensors/a/ws", 1, false, `{"value":1}`); !tok.WaitTimeout(waitFor) || tok.Error() != nil {
		t.Fatalf("publish: %v", tok.Error())
	}
	c.Disconnect(0)
	_ = ws.CloseNow() // it said nothing: the wrapper must not mind
}

// TestBetweenReloadAndSubscription: a publish to a topic that a reload has just mapped waits until
// the feed is subscribed to it.
func TestBetweenReloadAndSubscription(t *testing.T) {
	grant := make(chan struct{})
	b := startScripted(t, func(c *scriptedConn, first byte, body []byte) []byte {
		if first>>4 == typeSubscribe && bytes.Contains(body, []byte("plant/+")) {
			<-grant
		}
		return nil
	})
	link := newLink()
	rig := startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Options = wrappers.Options{"capture": "async"} })
	p := connectPeer(t, rig.Addr, connect{clean: true, clientID: []byte("early")})
	p.connack()
	link.SetPatterns(wrappertest.Patterns("plant/{x}", "sensors/{site}/{name}")...)
	done := make(chan error, 1)
	go func() {
		code, err := p.publish(msg("plant/a", "1", 1))
		if code != 0 {
			err = fmt.Errorf("reason 0x%02x", code)
		}
		done <- err
	}()
	if code, err := connectPeer(t, rig.Addr, connect{clean: true}).publish(msg("sensors/a/b", "1", 1)); code != 0 || err != nil {
		t.Errorf("a topic that was mapped before: 0x%02x %v", code, err)
	}
	select {
	case err := <-done:
		t.Errorf("it passed before the feed was subscribed (%v)", err)
	default:
	}
	close(grant)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestFeedPassesOverWhatIsTooLarge: one message above the limit does not stop the feed.
func TestFeedPassesOverWhatIsTooLarge(t *testing.T) {
	b := startScripted(t, nil)
	link := newLink()
	startRelay(t, link, b.addr(), func(c *wrappers.Config) { c.Limits.Frame = 1000 })
	c := b.feedConn()
	big := publish{qos: 1, id: 8, topic: []byte("sensors/a/big"), payload: bytes.Repeat([]byte("x"), 100_000)}
	c.say(appendPublish(nil, true, &big, nil))
	c.say(appendPublish(nil, true, &publish{qos: 1, id: 9, topic: []byte("sensors/a/b"), payload: []byte(`{"value":1}`)}, nil))
	b.await("both acknowledgements", func(o *scriptedConn) bool {
		n := 0
		for _, k := range o.got {
			if k.kind() == typePuback {
				n++
			}
		}
		return o == c && n == 2
	})
	if got := link.Candidates(wrappertest.ViaSeen); len(got) != 1 || link.Counted("oversized") != 1 {
		t.Errorf("got %d candidates, %d oversized; want one each", len(got), link.Counted("oversized"))
	}
}

// TestNotOwed: while the gateway has no subscription at the broker, a publish to a mapped topic is
// not answered with a success that nobody stands for; other topics pass.
func TestNotOwed(t *testing.T) {
	b := startScripted(t, func(c *scriptedConn, first byte, body []byte) []byte {
		if first>>4 == typeConnect {
			if req, err := parseConnect(body, false); err == nil && strings.HasPrefix(string(req.clientID), "spookgw-") {
				return appendConnack(nil, true, &connack{code: codeNotAuthorized})
			}
		}
		return nil
	})
	link := newLink()
	rig := startWrapper(t, link, wrappers.Config{Listener: listen(t), Upstreams: upstream(b.addr()), Options: wrappers.Options{"capture_wait_ms": int64(50)}}, nil)
	p := connectPeer(t, rig.Addr, connect{clean: true})
	p.connack()
	if code, err := p.publish(msg("other/x", "1", 1)); code != 0 || err != nil {
		t.Errorf("unmapped: 0x%02x %v", code, err)
	}
	p.trySend(appendPublish(nil, true, &publish{qos: 1, id: 50, topic: []byte("sensors/a/b"), payload: []byte("1")}, nil))
	if code := p.closedWith(); code != codeServerUnavailable {
		t.Errorf("mapped: DISCONNECT 0x%02x, want 0x%02x", code, codeServerUnavailable)
	}
}
