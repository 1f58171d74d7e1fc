package mqtt

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"context"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func u32(id byte, n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{id}, n) }
func u16(id byte, n uint16) []byte { return binary.BigEndian.AppendUint16([]byte{id}, n) }

// in connects to a broker and checks that it is let in.
func in(t *testing.T, addr string, c connect) *peer {
	t.Helper()
	p := connectPeer(t, addr, c)
	if a := p.connack(); a.code != 0 {
		t.Fatalf("CONNACK 0x%02x", a.code)
	}
	return p
}

func payloads(ms []publish) (out []string) {
	for _, m := range ms {
		out = append(out, string(m.payload))
	}
	return out
}

func lasting(id string) connect {
	return connect{clientID: []byte(id), props: u32(propSessionExpiry, 3600)}
}

func TestPahoTalk(t *testing.T) {
	pahoTalk(t, startVirtual(t, newLink(), nil).Addr)
}

func TestMosquittoTalk(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	mosquittoTalk(t, rig.Addr, func() { link.PushPut("sensors/berlin/oven-4", `{"value":4}`) })
}

func TestWebSocket(t *testing.T) { overWebSocket(t, startVirtual(t, newLink(), nil).Addr) }

// TestPublishersBytes: subscribers of both versions get what the publisher wrote, properties in
// its order, and nothing of its connection.
func TestPublishersBytes(t *testing.T) {
	rig := startVirtual(t, newLink(), nil)
	five, old := in(t, rig.Addr, connect{clean: true}), in(t, rig.Addr, connect{level: level311, clean: true})
	five.subscribe(request{"sensors/#", 2})
	old.subscribe(request{"sensors/#", 2})
	props := appendUserProperty(nil, "z", "1")
	props = append(props, propPayloadFormat, 1)
	props = appendUserProperty(props, "a", "2")
	want := bytesOf(props)
	pub := in(t, rig.Addr, connect{clean: true})
	if code, err := pub.publish(publish{qos: 1, topic: []byte("sensors/a/b"), props: append(props, propTopicAlias, 0, 1), payload: []byte("{ \"value\" :1}")}); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	m := five.messages(1)[0]
	if string(m.props) != want || string(m.payload) != "{ \"value\" :1}" || m.qos != 1 || m.retain {
		t.Errorf("5: got %q %q QoS %d retain %v", m.props, m.payload, m.qos, m.retain)
	}
	if m := old.messages(1)[0]; string(m.payload) != "{ \"value\" :1}" {
		t.Errorf("3.1.1: got %q", m.payload)
	}
	if code, err := pub.publish(publish{qos: 1, props: []byte{propTopicAlias, 0, 1}, payload: []byte("2")}); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if m := old.messages(2)[1]; string(m.topic) != "sensors/a/b" {
		t.Errorf("by alias: got %q", m.topic)
	}
}

func bytesOf(b []byte) string { return string(slices.Clone(b)) }

// TestInOrder: acknowledgements keep the order of the publishes while commits overlap, and what
// goes to one topic is committed in the client's order.
func TestInOrder(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	p := in(t, rig.Addr, connect{clean: true})
	release := link.Block(wrappertest.CallDo)
	var all []byte
	const count = 100
	for i := range count {
		m := msg(fmt.Sprintf("sensors/a/s%d", i%10), fmt.Sprintf(`{"value":%d}`, i), 1)
		m.id = uint16(i + 1)
		all = appendPublish(all, true, &m, nil)
	}
	p.send(all)
	link.Await(t, "ten commits side by side", func() bool { return link.Waiting(wrappertest.CallDo) == 10 })
	release()
	at := 0
	for i := range count {
		k, next, err := p.await(at, func(k packet) bool { return k.kind() == typePuback })
		if err != nil {
			t.Fatal(err)
		}
		at = next
		if a, _ := parseAck(k.body, true); int(a.id) != i+1 {
			t.Fatalf("acknowledgement %d is of %d", i+1, a.id)
		}
	}
	last := map[string]int{}
	for _, c := range link.Candidates() {
		var n int
		if _, err := fmt.Sscanf(string(c.Payload), `{"value":%d}`, &n); err != nil {
			t.Fatal(err)
		}
		if before, ok := last[c.Address]; ok && n < before {
			t.Errorf("%s: %d after %d", c.Address, n, before)
		}
		last[c.Address] = n
	}
}

func TestExactlyOnce(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	p := connectPeer(t, rig.Addr, lasting("once"))
	p.connack()
	p.mu.Lock()
	p.auto = false // the client keeps its PUBREL back
	p.mu.Unlock()
	m := msg("sensors/a/b", `{"value":1}`, 2)
	m.id = 7
	p.send(appendPublish(nil, true, &m, nil))
	p.need(typePubrec)
	p.nc.Close()
	m.dup = true
	p = connectPeer(t, rig.Addr, lasting("once"))
	if !p.connack().present {
		t.Fatal("the session is gone")
	}
	p.send(appendPublish(nil, true, &m, nil))
	p.need(typePubcomp)
	if n := len(link.Candidates()); n != 1 {
		t.Errorf("after a reconnect: %d candidates, want 1", n)
	}
	// Also over a restart of the gateway.
	q := connectPeer(t, rig.Addr, lasting("twice"))
	q.connack()
	q.mu.Lock()
	q.auto = false
	q.mu.Unlock()
	m = msg("sensors/a/c", `{"value":2}`, 2)
	m.id = 9
	q.send(appendPublish(nil, true, &m, nil))
	q.need(typePubrec)
	if err := rig.Stop(); err != nil {
		t.Fatal(err)
	}
	rig = startVirtual(t, link, nil)
	q = connectPeer(t, rig.Addr, lasting("twice"))
	if !q.connack().present {
		t.Fatal("the session did not survive the restart")
	}
	m.dup = true
	q.send(appendPublish(nil, true, &m, nil))
	q.need(typePubcomp)
	if n := len(link.Candidates()); n != 2 {
		t.Errorf("after a restart: %d candidates, want 2", n)
	}
	// The identifier is free again.
	m.dup, m.payload = false, []byte(`{"value":3}`)
	if code, err := q.publish(m); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if n := len(link.Candidates()); n != 3 {
		t.Errorf("a new message under the identifier: %d candidates, want 3", n)
	}
}

// TestAwayAndBack: an absent client gets what it missed, from the log, also after a restart.
func TestAwayAndBack(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	p := in(t, rig.Addr, lasting("away"))
	p.subscribe(request{"sensors/#", 1})
	p.hangUp()
	link.PushPut("sensors/a/b", `{"value":1}`)
	other := in(t, rig.Addr, connect{clean: true})
	if code, err := other.publish(msg("sensors/a/b", `{"value":2}`, 1)); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	p = in(t, rig.Addr, lasting("away"))
	if got := payloads(p.messages(2)); fmt.Sprint(got) != `[{"value":1} {"value":2}]` {
		t.Errorf("back: got %v", got)
	}
	link.PushPut("sensors/a/b", `{"value":3}`)
	if got := payloads(p.messages(3)); got[2] != `{"value":3}` {
		t.Errorf("live again: got %v", got)
	}
	p.hangUp()
	if err := rig.Stop(); err != nil {
		t.Fatal(err)
	}
	link.PushPut("sensors/a/b", `{"value":4}`)
	rig = startVirtual(t, link, nil)
	p = in(t, rig.Addr, lasting("away"))
	if got := payloads(p.messages(1)); got[0] != `{"value":4}` {
		t.Errorf("after a restart: got %v", got)
	}
	link.PushPut("sensors/a/b", `{"value":5}`)
	if got := payloads(p.messages(2)); fmt.Sprint(got) != `[{"value":4} {"value":5}]` {
		t.Errorf("live after a restart: got %v", got)
	}
	// A clean start forgets.
	p.hangUp()
	p = in(t, rig.Addr, connect{clientID: []byte("away"), clean: true})
	if p.connack().present {
		t.Error("a clean start found a session")
	}
}

// TestUnacknowledgedComesAgain: with DUP and its identifier to the next connection.
func TestUnacknowledgedComesAgain(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	p := in(t, rig.Addr, lasting("slow"))
	p.mu.Lock()
	p.auto = false
	p.mu.Unlock()
	p.subscribe(request{"sensors/#", 2})
	link.PushPut("sensors/a/b", `{"value":1}`)
	pub := in(t, rig.Addr, connect{clean: true})
	if _, err := pub.publish(msg("sensors/a/c", `{"value":2}`, 2)); err != nil {
		t.Fatal(err)
	}
	first := p.messages(2)
	p.send(appendAck(nil, typePubrec, true, first[1].id, 0, ""))
	p.need(typePubrel)
	p.nc.Close()
	p = in(t, rig.Addr, lasting("slow"))
	m := p.messages(1)[0]
	if !m.dup || m.id != first[0].id || string(m.payload) != `{"value":1}` {
		t.Errorf("got dup %v id %d %s", m.dup, m.id, m.payload)
	}
	if k := p.need(typePubrel); binary.BigEndian.Uint16(k.body) != first[1].id {
		t.Errorf("PUBREL of %v, want %d", k.body, first[1].id)
	}
}

// TestSlowSubscriber: one that does not read keeps its place, costs no memory to speak of, and
// misses nothing of QoS 1; others are not kept waiting.
func TestSlowSubscriber(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Limits.Queue = 4096 })
	slow := in(t, rig.Addr, connect{clean: true, props: u16(propReceiveMaximum, 1)})
	slow.mu.Lock()
	slow.auto = false
	slow.mu.Unlock()
	slow.subscribe(request{"sensors/#", 1})
	quick := in(t, rig.Addr, connect{clean: true})
	quick.subscribe(request{"sensors/#", 1})
	const count = ringEntries + 500 // the ring forgets, the log does not
	go func() {
		for i := range count {
			link.PushPut("sensors/a/b", fmt.Sprintf(`{"value":%d}`, i))
		}
	}()
	quick.messages(count)
	slow.messages(1)
	if n := link.Counted("subscribers_behind"); n == 0 {
		t.Error("the slow one was not put behind")
	}
	slow.mu.Lock()
	slow.auto = true
	slow.mu.Unlock()
	m := slow.messages(1)[0]
	slow.send(appendAck(nil, typePuback, true, m.id, 0, ""))
	got := slow.messages(count)
	for i, m := range got {
		if want := fmt.Sprintf(`{"value":%d}`, i); string(m.payload) != want {
			t.Fatalf("message %d: got %s", i, m.payload)
		}
	}
	link.PushPut("sensors/a/b", `{"value":"last"}`)
	if got := slow.messages(count + 1); string(got[count].payload) != `{"value":"last"}` || len(got) != count+1 {
		t.Errorf("live again: got %d messages", len(got))
	}
}

func TestQoS0IsDroppedForWhoDoesNotRead(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Limits.Queue = 64 << 10 })
	p := dialPeer(t, rig.Addr)
	p.send(appendConnect(nil, &connect{name: "MQTT", level: level5, clean: true, clientID: []byte("deaf")}))
	p.send(appendSubscribe(nil, true, typeSubscribe, &subscribe{id: 1, requests: []request{{"sensors/#", 0}}}))
	q := in(t, rig.Addr, connect{clean: true})
	q.subscribe(request{"sensors/+/b", 0}) // after it, the deaf one is subscribed too
	big := strings.Repeat("x", 8000)
	for link.Counted("dropped_qos0") == 0 {
		link.PushPut("sensors/a/c", `{"value":"`+big+`"}`)
		link.PushPut("sensors/a/b", `1`)
	}
	q.messages(1)
}

func TestRetained(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	for i := range 3 {
		link.PushPut(fmt.Sprintf("sensors/site%d/a", i), fmt.Sprintf(`{"value":%d}`, i))
	}
	link.PushPut("deep/a/b/c", `{"value":9}`)
	link.PushPut("deep/a", `{"value":8}`)
	for filter, want := range map[string]int{"sensors/site1/a": 1, "sensors/+/a": 3, "#": 5, "sensors/#": 3, "deep/+/b/c": 1, "deep/a/#": 2, "+/+/+": 3, "deep/+": 1, "deep/#": 2, "deep/+/#": 2, "+/a/#": 2} {
		p := in(t, rig.Addr, connect{clean: true})
		p.subscribe(request{filter, 1})
		p.messages(want)
		link.PushPut("sensors/site1/a", `{"value":1}`) // what follows shows that there was no more
		link.PushPut("deep/a/b/c", `{"value":9}`)
		link.PushPut("deep/a", `{"value":8}`)
		got := p.messages(want + 1)
		for i, m := range got {
			if m.retain != (i < want) {
				t.Errorf("%s: message %d of %d on %s: retain %v", filter, i, want, m.topic, m.retain)
			}
		}
		p.nc.Close()
	}
	// MQTT 5's choices.
	p := in(t, rig.Addr, connect{clean: true})
	p.subscribe(request{"sensors/site0/a", 1 | 2<<4}) // never
	p.subscribe(request{"sensors/site1/a", 1 | 1<<4}) // if new
	p.messages(1)
	p.subscribe(request{"sensors/site1/a", 1 | 1<<4})
	p.subscribe(request{"sensors/site2/a", 1 | 8}) // retain as published
	p.messages(2)
	m := msg("sensors/site2/a", `{"value":5}`, 1)
	m.retain = true
	if _, err := p.publish(m); err != nil {
		t.Fatal(err)
	}
	got := p.messages(3)
	if len(got) != 3 || !got[2].retain || string(got[2].topic) != "sensors/site2/a" {
		t.Errorf("got %d messages, the last %+v", len(got), got[len(got)-1])
	}
	// A clear clears the register.
	m.payload = nil
	if code, err := p.publish(m); code != 0 || err != nil {
		t.Fatal(code, err)
	}
	if _, there := link.Register("", "sensors/site2/a"); there {
		t.Error("the register is still there")
	}
	if code, err := p.publish(m); code != 0 || err != nil {
		t.Errorf("clearing what is clear: 0x%02x %v", code, err)
	}
}

func TestSubscriptionOptions(t *testing.T) {
	rig := startVirtual(t, newLink(), nil)
	p := in(t, rig.Addr, connect{clean: true})
	p.subscribe(request{"deep/x", 1 | 4}) // no local
	sub := subscribe{id: 90, props: append([]byte{propSubscriptionID}, 0x80, 1), requests: []request{{"sensors/a/b", 0}}}
	p.send(appendSubscribe(nil, true, typeSubscribe, &sub))
	sub = subscribe{id: 91, props: []byte{propSubscriptionID, 5}, requests: []request{{"sensors/#", 2}}}
	p.send(appendSubscribe(nil, true, typeSubscribe, &sub))
	for _, m := range []publish{msg("deep/x", "1", 1), msg("sensors/a/b", "2", 1)} {
		if code, err := p.publish(m); code != 0 || err != nil {
			t.Fatal(code, err)
		}
	}
	got := p.messages(1)
	var ids []int
	for id, v := range eachProperty(got[0].props) {
		if id == propSubscriptionID {
			ids = append(ids, varintValue(v))
		}
	}
	slices.Sort(ids)
	if len(got) != 1 || string(got[0].payload) != "2" || got[0].qos != 1 || fmt.Sprint(ids) != "[5 128]" {
		t.Errorf("got %d messages, first %s QoS %d identifiers %v", len(got), got[0].payload, got[0].qos, ids)
	}
	for filter, want := range map[string]byte{"other/#": codeBadFilter, "$SYS/#": codeBadFilter, "a/#/b": codeBadFilter, "sensors/a+": codeBadFilter, "$share/g": codeBadFilter, "+/x/#": 1, "$share/g/sensors/#": 1} {
		if codes := p.subscribe(request{filter, 1}); codes[0] != want {
			t.Errorf("%s: got 0x%02x, want 0x%02x", filter, codes[0], want)
		}
	}
	old := in(t, rig.Addr, connect{level: level311, clean: true})
	if codes := old.subscribe(request{"other/x", 1}, request{"sensors/+/+", 2}); fmt.Sprint(codes) != "[128 2]" {
		t.Errorf("3.1.1: got %v", codes)
	}
	unsub := subscribe{id: 95, requests: []request{{filter: "sensors/#"}, {filter: "never/had"}}}
	p.send(appendSubscribe(nil, true, typeUnsubscribe, &unsub))
	if _, codes, err := parseSuback(p.need(typeUnsuback).body, true); err != nil || fmt.Sprint(codes) != fmt.Sprint([]byte{0, codeNoSubscription}) {
		t.Errorf("UNSUBACK: %v %v", codes, err)
	}
}

// TestShared: each message to one member, none lost when a member leaves with some unread.
func TestShared(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Limits.Queue = 2000 })
	a := in(t, rig.Addr, connect{clean: true, props: u16(propReceiveMaximum, 2)})
	b := in(t, rig.Addr, connect{clean: true})
	a.mu.Lock()
	a.auto = false // it stops acknowledging
	a.mu.Unlock()
	a.subscribe(request{"$share/work/sensors/#", 1})
	b.subscribe(request{"$share/work/sensors/#", 1})
	const count = 200
	for i := range count {
		link.PushPut("sensors/a/b", fmt.Sprintf(`{"value":%d}`, i))
	}
	a.messages(2)
	a.nc.Close() // its two unacknowledged go to the other
	got := map[string]int{}
	for _, m := range b.messages(count) {
		got[string(m.payload)]++
	}
	if len(got) != count {
		t.Errorf("%d different messages, want %d", len(got), count)
	}
}

func TestWill(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	w := in(t, rig.Addr, connect{clean: true})
	w.subscribe(request{"sensors/#", 1})
	bye := func(n int, props []byte) *will {
		return &will{qos: 1, topic: []byte("sensors/a/will"), payload: fmt.Appendf(nil, `{"value":%d}`, n), props: props}
	}
	polite := in(t, rig.Addr, connect{clean: true, will: bye(1, nil)})
	polite.send(appendDisconnect(nil, true, 0, ""))
	polite.closedWith()
	rude := in(t, rig.Addr, connect{clean: true, will: bye(2, nil)})
	rude.nc.Close()
	if m := w.messages(1)[0]; string(m.payload) != `{"value":2}` {
		t.Errorf("got %s", m.payload)
	}
	asked := in(t, rig.Addr, connect{clean: true, will: bye(3, nil)})
	asked.send(appendDisconnect(nil, true, codeDisconnectWithWill, ""))
	w.messages(2)
	// A delayed one is not sent to who comes back in time, and is when the session ends.
	c := lasting("delayed")
	c.will = bye(4, u32(propWillDelay, 3000))
	in(t, rig.Addr, c).nc.Close()
	back := in(t, rig.Addr, lasting("delayed"))
	back.send(appendDisconnect(nil, true, 0, ""))
	back.closedWith()
	c.will = bye(5, u32(propWillDelay, 3000))
	in(t, rig.Addr, c).nc.Close()
	in(t, rig.Addr, connect{clientID: []byte("delayed"), clean: true}) // the session ends
	if got := payloads(w.messages(3)); fmt.Sprint(got) != `[{"value":2} {"value":3} {"value":5}]` {
		t.Errorf("got %v", got)
	}
	last := link.Candidates()
	if who := last[len(last)-1].Op.Who.Peer; !strings.HasSuffix(who, " delayed") {
		t.Errorf("a will is by %q", who)
	}
}

func TestTakeOver(t *testing.T) {
	rig := startVirtual(t, newLink(), nil)
	a := in(t, rig.Addr, connect{clientID: []byte("same"), clean: true})
	in(t, rig.Addr, connect{clientID: []byte("same"), clean: true})
	if code := a.closedWith(); code != codeTakenOver {
		t.Errorf("DISCONNECT 0x%02x, want 0x%02x", code, codeTakenOver)
	}
}

type oneUser struct{}

func (oneUser) Any() bool { return true }

func (oneUser) Scram(string) (wrappers.ScramKeys, string, bool) {
	return wrappers.ScramKeys{}, "", false
}
func (oneUser) Password(_ context.Context, user, password string) (string, error) {
	if user == "ann" && password == "secret" {
		return "ann", nil
	}
	return "", wrappers.ErrDenied
}

func TestLogOn(t *testing.T) {
	link := newLink()
	with := func(access wrappers.Access) string {
		return startVirtual(t, link, func(c *wrappers.Config) { c.Logon, c.Anonymous = oneUser{}, access }).Addr
	}
	none, read := with(wrappers.NoAccess), with(wrappers.ReadAccess)
	ann := connect{clean: true, hasUser: true, user: []byte("ann"), hasPass: true, password: []byte("secret")}
	wrong := ann
	wrong.password = []byte("guess")
	for _, level := range []byte{level31, level311, level5} {
		codes := map[bool][2]byte{true: {codeBadUser, codeNotAuthorized}, false: {v3BadUser, v3NotAuthorized}}[level == level5]
		for name, c := range map[string]struct {
			c    connect
			want byte
		}{"right": {ann, 0}, "wrong": {wrong, codes[0]}, "nobody": {connect{clean: true}, codes[1]}} {
			c.c.level = level
			if a := connectPeer(t, none, c.c).connack(); a.code != c.want {
				t.Errorf("level %d, %s: CONNACK 0x%02x, want 0x%02x", level, name, a.code, c.want)
			}
		}
	}
	p := in(t, none, ann)
	if code, err := p.publish(msg("sensors/a/b", "1", 1)); code != 0 || err != nil {
		t.Errorf("ann: 0x%02x %v", code, err)
	}
	if who := link.Candidates()[0].Op.Who; who.Principal != "ann" || !who.Verified {
		t.Errorf("who: got %+v", who)
	}
	p = in(t, read, connect{clean: true})
	if code, err := p.publish(msg("sensors/a/b", "2", 1)); code != codeNotAuthorized || err != nil {
		t.Errorf("a reader's publish: 0x%02x %v, want 0x%02x", code, err, codeNotAuthorized)
	}
	p.subscribe(request{"sensors/#", 1})
	p.messages(1)
	if n := link.Counted("refused_auth"); n != 6 {
		t.Errorf("refused_auth: got %d, want 6", n)
	}
}

// TestBreaches: what the standard forbids ends the session with the right reason.
func TestBreaches(t *testing.T) {
	rig := startVirtual(t, newLink(), func(c *wrappers.Config) { c.Options = wrappers.Options{"max_inflight": int64(2)} })
	pub := func(m publish) []byte { return appendPublish(nil, true, &m, nil) }
	for name, c := range map[string]struct {
		say  []byte
		want byte
	}{
		"QoS 3":                 {[]byte{0x36, 5, 0, 1, 'a', 0, 1}, codeMalformed},
		"a long length":         {withLength([]byte{typePingreq << 4, 0}, 2), codeMalformed},
		"reserved flags":        {[]byte{typePingreq<<4 | 1, 0}, codeMalformed},
		"a second CONNECT":      {appendConnect(nil, &connect{name: "MQTT", level: level5}), codeProtocolError},
		"a wildcard":            {pub(msg("sensors/#", "1", 0)), codeBadTopic},
		"a bad text":            {pub(msg("sensors/\xff/b", "1", 0)), codeMalformed},
		"identifier 0":          {pub(publish{qos: 1, topic: []byte("sensors/a/b")}), codeProtocolError},
		"alias 0":               {pub(publish{topic: []byte("sensors/a/b"), props: []byte{propTopicAlias, 0, 0}}), codeTopicAliasInvalid},
		"an unknown alias":      {pub(publish{props: []byte{propTopicAlias, 0, 9}}), codeTopicAliasInvalid},
		"a property twice":      {pub(publish{topic: []byte("sensors/a/b"), props: []byte{propPayloadFormat, 0, propPayloadFormat, 0}}), codeProtocolError},
		"a property elsewhere":  {pub(publish{topic: []byte("sensors/a/b"), props: []byte{propReceiveMaximum, 0, 1}}), codeProtocolError},
		"250 MB":                {appendVarint([]byte{typePublish << 4}, 250<<20), codePacketTooLarge},
		"a short SUBSCRIBE":     {[]byte{typeSubscribe<<4 | 2, 2, 0, 1}, codeMalformed},
		"SUBSCRIBE to nothing":  {[]byte{typeSubscribe<<4 | 2, 3, 0, 1, 0}, codeProtocolError},
		"a server's packet":     {[]byte{typePingresp << 4, 0}, codeProtocolError},
		"expiry out of nothing": {[]byte{typeDisconnect << 4, 7, 0, 5, propSessionExpiry, 0, 0, 0, 1}, codeProtocolError},
	} {
		p := in(t, rig.Addr, connect{clean: true})
		p.send(c.say)
		if code := p.closedWith(); code != c.want {
			t.Errorf("%s: DISCONNECT 0x%02x, want 0x%02x", name, code, c.want)
		}
	}
	for name, c := range map[string]struct {
		say  connect
		want byte
	}{
		"level 9":        {connect{name: "MQTT", level: 9}, codeUnsupportedVersion},
		"no id, no 5":    {connect{level: level311}, v3BadClientID},
		"enhanced auth":  {connect{clean: true, props: appendString([]byte{propAuthMethod}, "SCRAM")}, codeBadAuthMethod},
		"a will with #":  {connect{clean: true, will: &will{topic: []byte("a/#")}}, codeBadTopic},
		"receive max. 0": {connect{clean: true, props: u16(propReceiveMaximum, 0)}, codeProtocolError},
	} {
		if c.say.clientID == nil && c.say.level == level311 {
			c.say.clientID = []byte{}
		}
		p := connectPeer(t, rig.Addr, c.say)
		k := p.need(typeConnack)
		if k.body[1] != c.want && !(c.want == codeUnsupportedVersion && k.body[1] == v3BadVersion) {
			t.Errorf("%s: CONNACK 0x%02x, want 0x%02x", name, k.body[1], c.want)
		}
	}
}

// TestReasons: who is refused is told why, unless it asked not to be.
func TestReasons(t *testing.T) {
	rig := startVirtual(t, newLink(), nil)
	for props, want := range map[string]string{"": "no bind maps other/x", string([]byte{propRequestProblem, 0}): "", string(u32(propMaximumPacket, 100)): ""} {
		p := in(t, rig.Addr, connect{clean: true, props: []byte(props)})
		p.publish(msg("other/x", "1", 1))
		a, err := parseAck(p.need(typePuback).body, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := property(a.props, propReason); a.code != codeBadTopic || string(got) != want {
			t.Errorf("with %x: got 0x%02x %q, want %q", props, a.code, got, want)
		}
	}
}

// TestLateSilent: a client that says nothing is let go, before CONNECT and after.
func TestLateSilent(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Limits.Handshake = 100 * time.Millisecond })
	p := dialPeer(t, rig.Addr)
	_ = p.nc.SetReadDeadline(time.Now().Add(waitFor))
	if _, err := p.nc.Read(make([]byte, 1)); err == nil {
		t.Error("a stranger was told something")
	} else if e := (net.Error)(nil); errors.As(err, &e) && e.Timeout() {
		t.Error("a stranger who says nothing is kept")
	}
	q := in(t, rig.Addr, connect{clean: true, keepAlive: 1})
	if code := q.closedWith(); code != codeKeepAliveTimeout {
		t.Errorf("DISCONNECT 0x%02x, want 0x%02x", code, codeKeepAliveTimeout)
	}
}

func TestExpiry(t *testing.T) {
	rig := startVirtual(t, newLink(), nil)
	p := in(t, rig.Addr, lasting("p"))
	p.mu.Lock()
	p.auto = false
	p.mu.Unlock()
	c := connect{clean: true, props: u16(propReceiveMaximum, 1)}
	s := connectPeer(t, rig.Addr, c)
	s.connack()
	s.mu.Lock()
	s.auto = false
	s.mu.Unlock()
	s.subscribe(request{"sensors/#", 1})
	for n, after := range []uint32{0xffff, 1, 100} {
		if code, err := p.publish(publish{qos: 1, topic: []byte("sensors/a/b"), props: u32(propMessageExpiry, after), payload: fmt.Appendf(nil, "%d", n)}); code != 0 || err != nil {
			t.Fatal(code, err)
		}
	}
	first := s.messages(1)[0]
	time.AfterFunc(1200*time.Millisecond, func() { s.trySend(appendAck(nil, typePuback, true, first.id, 0, "")) })
	m := s.messages(2)[1]
	if left := number(m.props, propMessageExpiry, 0); string(m.payload) != "2" || left > 99 || left < 90 {
		t.Errorf("got %s with %d s left, want message 2 with 99", m.payload, left)
	}
}

func TestStopping(t *testing.T) {
	link := newLink()
	rig := startVirtual(t, link, nil)
	p := in(t, rig.Addr, connect{clean: true})
	release := link.Block(wrappertest.CallDo)
	done := make(chan error, 1)
	go func() {
		code, err := p.publish(msg("sensors/a/b", "1", 1))
		if code != 0 {
			err = fmt.Errorf("reason 0x%02x", code)
		}
		done <- err
	}()
	link.Await(t, "the publish", func() bool { return link.Waiting(wrappertest.CallDo) == 1 })
	stopped := make(chan error, 1)
	go func() { stopped <- rig.Stop() }()
	release()
	if err := <-done; err != nil {
		t.Errorf("a publish in flight: %v", err)
	}
	if code := p.closedWith(); code != codeShuttingDown {
		t.Errorf("DISCONNECT 0x%02x, want 0x%02x", code, codeShuttingDown)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	cert := wrappertest.SelfSigned(t)
	rig := startVirtual(t, newLink(), func(c *wrappers.Config) { c.TLS = &tls.Config{Certificates: []tls.Certificate{cert}} })
	// And a relay in front of it, which speaks TLS on both sides.
	link := newLink()
	front := startWrapper(t, link, wrappers.Config{Listener: listen(t), TLS: &tls.Config{Certificates: []tls.Certificate{cert}},
		Upstreams: []wrappers.Upstream{{Scheme: "mqtts", Addr: rig.Addr, TLS: &tls.Config{InsecureSkipVerify: true}}}}, nil)
	link.Await(t, "the feed", func() bool { return link.Counted("feed_up") > 0 })
	nc, err := tls.Dial("tcp", front.Addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	p := peerOver(t, nc, connect{clean: true})
	if code, err := p.publish(msg("sensors/a/b", `{"value":1}`, 1)); code != 0 || err != nil {
		t.Errorf("0x%02x %v", code, err)
	}
	if n := len(link.Candidates(wrappertest.ViaSeen)); n != 1 {
		t.Errorf("%d candidates, want 1", n)
	}
}

// TestAccess: what a client may not publish is refused in its version's words, and what it may not read it is not told.
func TestAccess(t *testing.T) {
	link := newLink()
	link.RefuseIf(func(verb wrappers.Verb, address string, who wrappers.Who) bool {
		return who.Principal != "ann" && strings.HasPrefix(address, "sensors/secret/")
	})
	rig := startVirtual(t, link, func(c *wrappers.Config) { c.Logon = oneUser{} })
	ann := in(t, rig.Addr, connect{clean: true, hasUser: true, user: []byte("ann"), hasPass: true, password: []byte("secret")})
	if code, err := ann.publish(msg("sensors/secret/a", "1", 1)); code != 0 || err != nil {
		t.Fatalf("ann: 0x%02x %v", code, err)
	}
	p := in(t, rig.Addr, connect{clean: true})
	for qos := byte(1); qos <= 2; qos++ {
		if code, err := p.publish(msg("sensors/secret/a", "2", qos)); code != codeNotAuthorized || err != nil {
			t.Errorf("QoS %d: 0x%02x %v, want 0x%02x", qos, code, err, codeNotAuthorized)
		}
	}
	old := in(t, rig.Addr, connect{clean: true, level: level311})
	if _, err := old.publish(msg("sensors/secret/a", "2", 1)); err == nil {
		t.Error("MQTT 3.1.1: the publish was acknowledged")
	}
	suback := func(p *peer, filters ...request) []byte {
		p.send(appendSubscribe(nil, p.v5(), typeSubscribe, &subscribe{id: 7, requests: filters}))
		_, codes, err := parseSuback(p.need(typeSuback).body, p.v5())
		if err != nil {
			t.Fatal(err)
		}
		return codes
	}
	if got, want := suback(p, request{"sensors/secret/a", 1}, request{"sensors/#", 1}), []byte{codeNotAuthorized, 1}; !bytes.Equal(got, want) {
		t.Errorf("SUBACK: got %x, want %x", got, want)
	}
	three := in(t, rig.Addr, connect{clean: true, level: level311})
	if got, want := suback(three, request{"sensors/secret/a", 1}), []byte{0x80}; !bytes.Equal(got, want) {
		t.Errorf("SUBACK of 3.1.1: got %x, want %x", got, want)
	}
	a := in(t, rig.Addr, connect{clean: true, hasUser: true, user: []byte("ann"), hasPass: true, password: []byte("secret")})
	a.subscribe(request{"sensors/#", 1})
	if m := a.messages(1)[0]; string(m.topic) != "sensors/secret/a" { // retained, or live where the stream is behind
		t.Errorf("ann got %q", m.topic)
	}
	shared := in(t, rig.Addr, connect{clean: true})
	shared.subscribe(request{"$share/s/sensors/#", 1})
	link.PushPut("sensors/secret/a", "3")
	link.PushPut("sensors/open/a", "4")
	for name, who := range map[string]*peer{"a subscriber": p, "a shared one": shared} {
		if m := who.messages(1)[0]; string(m.topic) != "sensors/open/a" {
			t.Errorf("%s got %q first", name, m.topic)
		}
	}
	a.messages(3)
}
