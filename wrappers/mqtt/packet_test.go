package mqtt

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse/paho.golang/packets"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

func TestScanHeader(t *testing.T) {
	for _, c := range []struct {
		in              string
		head, remaining int
		bad             bool
	}{
		{"", 0, 0, false}, {"30", 0, 0, false}, {"3000", 2, 0, false}, {"307f", 2, 127, false}, {"308001", 3, 128, false},
		{"30ff7f", 3, 16383, false}, {"3080808001", 5, 2097152, false}, {"30ffffff7f", 5, maxRemaining, false},
		{"308000", 3, 0, false}, {"30ffffff", 0, 0, false}, {"30ffffffff", 0, 0, true}, {"30ffffffff01", 0, 0, true},
	} {
		b, _ := hex.DecodeString(c.in)
		head, remaining, err := scanHeader(b)
		if head != c.head || remaining != c.remaining || (err != nil) != c.bad {
			t.Errorf("%s: got %d %d %v, want %d %d", c.in, head, remaining, err, c.head, c.remaining)
		}
	}
}

// TestAgainstPaho: what we write an independent library reads, and says the same.
func TestAgainstPaho(t *testing.T) {
	props := appendUserProperty([]byte{propPayloadFormat, 1}, "k", "v")
	c := connect{name: "MQTT", level: level5, clean: true, keepAlive: 7, clientID: []byte("id"), props: u32(propSessionExpiry, 9),
		hasUser: true, user: []byte("u"), hasPass: true, password: []byte("p"), will: &will{qos: 2, retain: true, props: u32(propWillDelay, 3), topic: []byte("w"), payload: []byte("x")}}
	read := func(b []byte) *packets.ControlPacket {
		t.Helper()
		p, err := packets.ReadPacket(bytes.NewReader(b))
		if err != nil {
			t.Fatalf("%x: %v", b, err)
		}
		return p
	}
	if p := read(appendConnect(nil, &c)).Content.(*packets.Connect); p.ClientID != "id" || p.KeepAlive != 7 || *p.Properties.SessionExpiryInterval != 9 ||
		p.WillTopic != "w" || p.WillQOS != 2 || *p.WillProperties.WillDelayInterval != 3 || p.Username != "u" || string(p.Password) != "p" || !p.CleanStart || !p.WillRetain {
		t.Errorf("CONNECT: %+v", p)
	}
	m := publish{qos: 1, dup: true, retain: true, id: 300, topic: []byte("a/b"), props: props, payload: []byte("hello")}
	b := appendPublish(nil, true, &m, []int{200})
	if len(b) != publishSize(true, &m, []int{200}) {
		t.Errorf("publishSize: got %d, want %d", publishSize(true, &m, []int{200}), len(b))
	}
	if p := read(b).Content.(*packets.Publish); p.Topic != "a/b" || p.PacketID != 300 || string(p.Payload) != "hello" || *p.Properties.SubscriptionIdentifier != 200 || p.Properties.User[0].Key != "k" || p.QoS != 1 || !p.Duplicate || !p.Retain {
		t.Errorf("PUBLISH: %+v", p)
	}
	if p := read(appendAck(nil, typePubrec, true, 5, codeNotAuthorized, "no")).Content.(*packets.Pubrec); p.PacketID != 5 || p.ReasonCode != codeNotAuthorized || p.Properties.ReasonString != "no" {
		t.Errorf("PUBREC: %+v", p)
	}
	if p := read(appendDisconnect(nil, true, codeTakenOver, "there")).Content.(*packets.Disconnect); p.ReasonCode != codeTakenOver || p.Properties.ReasonString != "there" {
		t.Errorf("DISCONNECT: %+v", p)
	}
	if p := read(appendSuback(nil, true, typeSuback, 6, []byte{1, 0x8f})).Content.(*packets.Suback); p.PacketID != 6 || fmt.Sprint(p.Reasons) != "[1 143]" {
		t.Errorf("SUBACK: %+v", p)
	}
	if p := read(appendConnack(nil, true, &connack{present: true, props: u16(propReceiveMaximum, 3)})).Content.(*packets.Connack); !p.SessionPresent || *p.Properties.ReceiveMaximum != 3 {
		t.Errorf("CONNACK: %+v", p)
	}
	s := subscribe{id: 4, props: []byte{propSubscriptionID, 7}, requests: []request{{"x/#", 1 | 4 | 8 | 2<<4}}}
	if p := read(appendSubscribe(nil, true, typeSubscribe, &s)).Content.(*packets.Subscribe); p.PacketID != 4 || p.Subscriptions[0].Topic != "x/#" || !p.Subscriptions[0].NoLocal || !p.Subscriptions[0].RetainAsPublished || p.Subscriptions[0].RetainHandling != 2 {
		t.Errorf("SUBSCRIBE: %+v", p)
	}
}

func TestFilters(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/", true}, {"a/#", "a", true},
		{"a/#", "a/b/c", true}, {"#", "a/b", true}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"+", "a", true},
		{"+/+", "/a", true}, {"/+", "/a", true}, {"+", "/a", false}, {"a/b", "a/b/c", false}, {"a/b/c", "a/b", false}, {"+/b/#", "a/b", true}, {"#", "", true},
	} {
		if got := filterMatches(c.filter, c.topic); got != c.want {
			t.Errorf("%s selects %s: got %v", c.filter, c.topic, got)
		}
		var tr tree
		sub := &subscription{topics: c.filter}
		tr.add(sub)
		found := 0
		tr.match(c.topic, func(n *node) { found += len(n.subs) })
		if (found == 1) != c.want {
			t.Errorf("the tree: %s selects %s: got %d", c.filter, c.topic, found)
		}
		tr.remove(sub)
		if len(tr.root.kids) != 0 {
			t.Errorf("%s: the tree keeps nodes", c.filter)
		}
	}
	pattern := wrappertest.Patterns("sensors/{site}/{rest...}")[0].Segments
	for filter, want := range map[string]bool{"sensors/#": true, "sensors/a": false, "sensors/a/b/c": true, "+/+/+": true, "+/+": false, "#": true, "other/#": false, "sensors/+/+/x": true} {
		if got := filterMeets(filter, pattern); got != want {
			t.Errorf("%s meets the pattern: got %v", filter, got)
		}
	}
	if got := patternFilter(pattern); got != "sensors/+/+/#" {
		t.Errorf("filter of the pattern: got %s", got)
	}
	for _, c := range []struct {
		a, b string
		want bool
	}{{"#", "a/b", true}, {"a/#", "a/+/c", true}, {"a/+", "a/#", false}, {"a/+", "a/b", true}, {"a/b", "a/+", false}, {"a/#", "a", true}, {"#", "$x/a", false}, {"+/b", "a/b", true}} {
		if got := covers(c.a, c.b); got != c.want {
			t.Errorf("%s covers %s: got %v", c.a, c.b, got)
		}
	}
	got := feedFilters(wrappertest.Patterns("sensors/{a}/{b}", "sensors/x/{b}", "{all...}", "one"))
	if fmt.Sprint(got) != "[+/#]" {
		t.Errorf("feed filters: got %v", got)
	}
}

func TestErrorTable(t *testing.T) {
	for err, want := range map[error]byte{wrappers.ErrUnmapped: 0x90, wrappers.ErrInvalid: 0x99, wrappers.ErrDenied: 0x87, wrappers.ErrTooLarge: 0x97,
		wrappers.ErrUnavailable: 0x83, wrappers.ErrConflict: 0x83, wrappers.ErrNotFound: 0x83, errors.New("a bug"): 0x83} {
		if got := publishCode(fmt.Errorf("wrapped: %w", err)); got != want {
			t.Errorf("%v: got 0x%02x, want 0x%02x", err, got, want)
		}
	}
}

// TestCanonical: the mapping gets one form of each topic, or is told what is wrong.
func TestCanonical(t *testing.T) {
	for topic, ok := range map[string]bool{"a/b": true, "/": true, "a//b": true, "ä/ö": true, "a/#": false, "+": false, "a\x00": false, "\xff": false, strings.Repeat("a/", maxLevels): false} {
		if got, err := canonicalTopic(topic); (err == nil) != ok || ok && got != topic {
			t.Errorf("%.20q: got %q %v", topic, got, err)
		}
	}
}

// FuzzDecode reads whatever comes, strictly and tolerantly: nothing panics, and what is written
// again says the same.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.hex")
	if err != nil || len(files) == 0 {
		f.Fatalf("no captured frames: %v", err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if b, err := hex.DecodeString(strings.TrimSpace(line)); err == nil && len(b) > 0 {
				f.Add(b, true)
				f.Add(b, false)
			}
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		_, _, _ = scanHeader(b)
		first, body, err := readPacket(bufio.NewReader(bytes.NewReader(b)), 1<<20)
		if err != nil {
			return
		}
		switch kind := first >> 4; kind {
		case typeConnect:
			c, err := parseConnect(body, true)
			if err != nil {
				_, _ = parseConnect(body, false)
				return
			}
			again := appendConnect(nil, &c)
			head, _, _ := scanHeader(again)
			if d, err := parseConnect(again[head:], true); err != nil || !bytes.Equal(d.clientID, c.clientID) || !bytes.Equal(d.props, c.props) || (d.will == nil) != (c.will == nil) {
				t.Errorf("CONNECT %x came back as %x: %v", body, again, err)
			}
		case typePublish:
			p, err := parsePublish(first, body, v5)
			topic, props, known := publishHead(first, body, v5)
			if known != (err == nil) || known && (!bytes.Equal(topic, p.topic) || !bytes.Equal(props, p.props)) {
				t.Errorf("the head of %x reads otherwise", body)
			}
			if err != nil || p.check(v5) != nil {
				return
			}
			_, _ = meta(p.props)
			_ = expiryOffset(p.props)
			if _, ok := property(without(p.props, propTopicAlias), propTopicAlias); ok {
				t.Error("the alias travels on")
			}
			again := appendPublish(nil, v5, &p, nil)
			head, _, _ := scanHeader(again)
			q, err := parsePublish(again[0], again[head:], v5)
			if err != nil || !bytes.Equal(q.topic, p.topic) || !bytes.Equal(q.payload, p.payload) || !bytes.Equal(q.props, p.props) || q.id != p.id {
				t.Errorf("PUBLISH %x came back as %x: %v", body, again, err)
			}
			_ = checkTopic(p.topic)
		case typePuback, typePubrec, typePubrel, typePubcomp:
			_, _ = parseAck(body, v5)
		case typeSubscribe, typeUnsubscribe:
			s, err := parseSubscribe(kind, first, body, v5)
			if err != nil {
				return
			}
			pattern := wrappertest.Patterns("a/{b}/{c...}")[0].Segments
			for _, r := range s.requests {
				if _, topics, err := splitFilter(r.filter); err == nil {
					_ = filterMatches(topics, "a/b/c")
					_ = filterMeets(topics, pattern)
				}
			}
		case typeConnack:
			_, _ = parseConnack(body, v5)
		case typeSuback:
			_, _, _ = parseSuback(body, v5)
		case typeDisconnect:
			_, _ = parseDisconnect(body, v5)
		}
		_ = checkProperties(body, typePublish)
	})
}

// FuzzFilter holds the tree and the direct comparison equal.
func FuzzFilter(f *testing.F) {
	for _, s := range [][2]string{{"a/+/c", "a/b/c"}, {"#", "$x"}, {"+/#", "/"}, {"a/#", "a"}, {"$share/g/a/+", "a/b"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		_, filter, err := splitFilter(filter)
		if err != nil || checkTopic([]byte(topic)) != nil {
			return
		}
		var tr tree
		tr.add(&subscription{topics: filter})
		found := 0
		tr.match(topic, func(n *node) { found += len(n.subs) })
		if want := filterMatches(filter, topic); (found > 0) != want || found > 1 {
			t.Errorf("%q selects %q: the tree finds %d, the comparison says %v", filter, topic, found, want)
		}
		if covers(filter, topic) != filterMatches(filter, topic) {
			t.Errorf("%q covers %q: %v", filter, topic, covers(filter, topic))
		}
	})
}

// FuzzRelay cuts a stream anywhere: what passes is what came, whatever the pieces.
func FuzzRelay(f *testing.F) {
	m := msg("sensors/a/b", "payload", 1)
	m.id = 3
	stream := appendConnect(nil, &connect{name: "MQTT", level: level5, clean: true, clientID: []byte("x")})
	stream = appendPublish(stream, true, &m, nil)
	stream = appendPublish(stream, true, &publish{topic: []byte("o"), props: []byte{propTopicAlias, 0, 1}}, nil)
	f.Add(stream, uint8(3))
	f.Add([]byte{0x10, 0xff, 0xff, 0xff, 0xff, 1}, uint8(1))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		p := testPassage(t)
		var passed []byte
		var held []byte
		skip, need := 0, 0
		for at := 0; at < len(b); {
			n := min(int(piece)+1, len(b)-at)
			held = append(held, b[at:at+n]...)
			at += n
			for len(held) > 0 {
				if skip > 0 {
					k := min(skip, len(held))
					passed, held, skip = append(passed, held[:k]...), held[k:], skip-k
					continue
				}
				if len(held) < need {
					break
				}
				st, err := p.FromClient(held)
				if err != nil {
					return
				}
				if st.Pass < 0 || st.Drop != 0 || st.Pass > len(held) || st.Skip < 0 || st.Need < 0 {
					t.Fatalf("step %+v of %d bytes", st, len(held))
				}
				passed, held, skip, need = append(passed, held[:st.Pass]...), held[st.Pass:], int(st.Skip), st.Need
				if st.Pass == 0 && st.Skip == 0 {
					break
				}
			}
		}
		if !bytes.Equal(append(passed, held...), b) {
			t.Errorf("%x became %x + %x", b, passed, held)
		}
	})
}

func testPassage(t testing.TB) *passage {
	side := newClientSide(wrappers.Config{Name: "x", Endpoint: "spookgw/d/e", Limits: withDefaults(wrappers.Limits{}), Upstreams: upstream("x")}, readOptions(nil))
	side.link = newLink()
	side.log = slog.New(slog.DiscardHandler)
	side.owed.set([]string{"#"}, true)
	return &passage{side: side, addr: &net.TCPAddr{}}
}
