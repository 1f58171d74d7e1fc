package ldap

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// A heldSource is an attached side whose feed catches up when it is told to.
type heldSource struct {
	gate   chan struct{} // closed: it has caught up
	calls  atomic.Int32
	called chan struct{} // one for each call, as far as somebody listens
}

func (s *heldSource) Serve(ctx context.Context, _ wrappers.Link) error { <-ctx.Done(); return nil }
func (s *heldSource) CaughtUp(ctx context.Context) error {
	s.calls.Add(1)
	select {
	case s.called <- struct{}{}:
	default:
	}
	select {
	case <-s.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A directory answers each request as it is told, and remembers them.
type directory struct {
	ln     net.Listener
	answer func(m *ldapwire.Message, c net.Conn)

	mu  sync.Mutex
	got []*ldapwire.Message
}

// agreeable says success to everything.
func agreeable(m *ldapwire.Message, c net.Conn) {
	if q := ldapwire.NewResponse(m.Body.Op()); q != nil {
		_, _ = c.Write((&ldapwire.Message{MessageID: m.MessageID, Body: q}).Encode())
	}
}

func startDirectory(t *testing.T, answer func(m *ldapwire.Message, c net.Conn)) *directory {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &directory{ln: ln, answer: answer}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				for {
					m, err := readMessage(in, 1<<20)
					if err != nil {
						return
					}
					d.mu.Lock()
					d.got = append(d.got, m)
					d.mu.Unlock()
					d.answer(m, c)
				}
			}()
		}
	}()
	return d
}

func (d *directory) heard(op ldapwire.Op) (n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, m := range d.got {
		if m.Body.Op() == op {
			n++
		}
	}
	return n
}

// startFront runs a relay in front of a directory, with a source of its own.
func startFront(t *testing.T, link *wrappertest.Link, d *directory, s source, tune func(*wrappers.Config)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := wrappers.Config{
		Protocol: "ldap", Name: "hq", Drain: time.Second, Log: testLog(), Listener: ln,
		Upstreams: []wrappers.Upstream{{Scheme: "ldap", Addr: d.ln.Addr().String()}}, Options: wrappers.Options{"base": suffixDN},
	}
	if tune != nil {
		tune(&cfg)
	}
	made, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	f := newRelay(made.(*front).wrapper, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, link) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return ln.Addr().String()
}

func deviceLink() *wrappertest.Link { return wrappertest.NewLinkOf(Protocol.Syntax, "cn={name}") }

// A caller speaks LDAP message by message.
type caller struct {
	t  *testing.T
	c  net.Conn
	in *bufio.Reader
	id int32
}

func call(t *testing.T, addr string) *caller {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &caller{t: t, c: c, in: bufio.NewReader(c)}
}

func (c *caller) send(body ldapwire.Body, controls ...ldapwire.Control) int32 {
	c.t.Helper()
	c.id++
	if _, err := c.c.Write((&ldapwire.Message{MessageID: c.id, Body: body, Controls: controls}).Encode()); err != nil {
		c.t.Fatal(err)
	}
	return c.id
}

func (c *caller) hear() *ldapwire.Message {
	c.t.Helper()
	m, err := readMessage(c.in, 1<<20)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

// wants checks that the next message is the result of a request.
func (c *caller) wants(id int32, code ldapwire.ResultCode) *ldapwire.Message {
	c.t.Helper()
	m := c.hear()
	r, ok := m.Body.(ldapwire.Response)
	if !ok || m.MessageID != id || r.Result().ResultCode != code {
		c.t.Fatalf("got %d %s %+v, want the result %s of %d", m.MessageID, m.Body.Op(), m.Body, code, id)
	}
	return m
}

func (c *caller) bind(name string) {
	c.t.Helper()
	c.wants(c.send(&ldapwire.BindRequest{Version: 3, Name: name, Simple: []byte("pw")}), ldapwire.Success)
}

var rename = &ldapwire.ModifyDNRequest{Entry: "cn=a,dc=plant", NewRDN: "cn=b", DeleteOldRDN: true}

func TestAHeldResultHoldsNothingElse(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{}), called: make(chan struct{}, 1)}
	d := startDirectory(t, agreeable)
	c := call(t, startFront(t, link, d, s, nil))
	write := c.send(replace("cn=a,dc=plant", "description", "1"))
	<-s.called
	for range 3 {
		c.wants(c.send(&ldapwire.SearchRequest{Filter: anything}), ldapwire.Success)
	}
	second := c.send(rename)
	c.wants(c.send(replace("ou=elsewhere,dc=plant", "description", "1")), ldapwire.Success)
	close(s.gate)
	ids := []int32{c.hear().MessageID, c.hear().MessageID}
	slices.Sort(ids)
	if !slices.Equal(ids, []int32{write, second}) {
		t.Errorf("then came %d, want %d and %d", ids, write, second)
	}
	if n := s.calls.Load(); n != 2 {
		t.Errorf("the feed was asked %d times, want 2: what no bind maps is not held", n)
	}
}

func TestAResultIsHeldNoLongerThanTold(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{})}
	addr := startFront(t, link, startDirectory(t, agreeable), s, func(c *wrappers.Config) { c.Options["capture_wait_ms"] = int64(30) })
	c := call(t, addr)
	c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.Success)
	if n := link.Counted("capture_late"); n != 1 {
		t.Errorf("capture_late: got %d, want 1", n)
	}
	asynchronous := startFront(t, link, startDirectory(t, agreeable), s, func(c *wrappers.Config) { c.Options["capture"] = "async" })
	c = call(t, asynchronous)
	c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.Success)
	if n := s.calls.Load(); n != 1 {
		t.Errorf("the feed was asked %d times, want once: not where capture is async", n)
	}
}

// What somebody may not do is refused before the server hears of it.
func TestAccessIsAskedBeforeTheServer(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	link := wrappertest.NewLinkOf(Protocol.Syntax, "cn={name}", "cn={name},ou=x", "homephone={n}")
	link.RefuseIf(func(verb wrappers.Verb, address string, who wrappers.Who) bool {
		return verb.Writes() && (strings.HasPrefix(strings.ToLower(address), "cn=secret") || address == "homephone=1") && who.Principal != "ldap/hq:cn=boss,dc=plant"
	})
	link.PushPut("cn=secret,ou=x", string(device("1")))
	d := startDirectory(t, agreeable)
	c := call(t, startFront(t, link, d, &heldSource{gate: gate}, nil))
	c.bind("cn=ann,dc=plant")
	moved := "ou=y,dc=plant"
	for _, q := range []ldapwire.Body{
		replace("CN=Secret, DC=Plant", "description", "1"),
		replace(`cn="Secret";dc=plant`, "description", "1"),
		replace("OID.2.5.4.3=secret,dc=plant", "description", "1"),
		replace("commonName=#0406736563726574,domainComponent=plant", "description", "1"),
		replace(`cn=\73ecret,dc=plant`, "description", "1"),
		replace("homeTelephoneNumber=1,dc=plant", "description", "1"), // the other name that the schema has for it
		&ldapwire.AddRequest{Entry: "cn=secret,dc=plant", Attributes: attrs("objectClass", "device")},
		&ldapwire.DelRequest{Entry: "cn=secret,dc=plant"},
		&ldapwire.ModifyDNRequest{Entry: "cn=secret,dc=plant", NewRDN: "cn=open"},
		&ldapwire.ModifyDNRequest{Entry: "cn=open,dc=plant", NewRDN: "cn=secret"},
		&ldapwire.ModifyDNRequest{Entry: "ou=x,dc=plant", NewRDN: "ou=y", NewSuperior: &moved},
		&ldapwire.ExtendedRequest{Name: ldapwire.OIDPasswordModify, Value: []byte("\x30\x16\x80\x14cn=secret,dc=plant\x20\x20")},
	} {
		c.wants(c.send(q), ldapwire.InsufficientAccessRights)
	}
	tree := ldapwire.Control{Type: ldapwire.OIDTreeDelete, Criticality: true}
	c.wants(c.send(&ldapwire.DelRequest{Entry: "ou=x,dc=plant"}, tree), ldapwire.InsufficientAccessRights)
	c.wants(c.send(&ldapwire.DelRequest{Entry: "dc=plant"}, tree), ldapwire.InsufficientAccessRights)
	if n := len(d.got); n != 1 {
		t.Errorf("the server heard %d requests, want the bind alone", n)
	}
	c.wants(c.send(&ldapwire.DelRequest{Entry: "cn=secret,dc=plant"}, ldapwire.Control{Type: ldapwire.OIDProxiedAuthz, Criticality: true, Value: []byte("dn:cn=boss,dc=plant")}), ldapwire.Success)
	c.wants(c.send(&ldapwire.DelRequest{Entry: "ou=x,dc=plant"}), ldapwire.Success) // it alone: what is below stays
	c.bind("cn=boss,dc=plant")
	c.wants(c.send(&ldapwire.DelRequest{Entry: "cn=secret,dc=plant"}), ldapwire.Success)
}

func TestWhatNoBindMapsIsRefusedWhereItIsTold(t *testing.T) {
	d := startDirectory(t, agreeable)
	link := deviceLink()
	gate := make(chan struct{})
	close(gate)
	c := call(t, startFront(t, link, d, &heldSource{gate: gate}, func(c *wrappers.Config) { c.Refuse = true }))
	for _, q := range []struct {
		body ldapwire.Body
		want ldapwire.ResultCode
	}{
		{&ldapwire.SearchRequest{Filter: anything}, ldapwire.Success}, // the root DSE
		{&ldapwire.SearchRequest{BaseObject: "cn=Subschema", Filter: anything}, ldapwire.Success},
		{&ldapwire.SearchRequest{BaseObject: "cn=a,dc=plant", Filter: anything}, ldapwire.Success},
		{&ldapwire.SearchRequest{BaseObject: "dc=plant", Scope: ldapwire.ScopeSingleLevel, Filter: anything}, ldapwire.Success},
		{&ldapwire.SearchRequest{BaseObject: "dc=other", Filter: anything}, ldapwire.UnwillingToPerform},
		{&ldapwire.CompareRequest{Entry: "ou=x,dc=plant", Attribute: "cn"}, ldapwire.UnwillingToPerform},
		{replace("cn=a,dc=plant", "description", "1"), ldapwire.Success},
		{replace("ou=x,dc=plant", "description", "1"), ldapwire.UnwillingToPerform},
		{&ldapwire.DelRequest{Entry: "dc=other"}, ldapwire.UnwillingToPerform},
	} {
		c.wants(c.send(q.body), q.want)
	}
}

func TestPasswordsAreShownToNobody(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	link := deviceLink()
	link.Record()
	c := call(t, startFront(t, link, startDirectory(t, agreeable), &heldSource{gate: gate}, nil))
	c.bind("cn=ann,dc=plant")
	c.wants(c.send(&ldapwire.AddRequest{Entry: "ou=x,dc=plant", Attributes: attrs("userPassword", "verysecret", "description", "shown")}), ldapwire.Success)
	c.wants(c.send(&ldapwire.ExtendedRequest{Name: ldapwire.OIDPasswordModify, Value: []byte("\x30\x19\x80\x0dou=x,dc=plant\x82\x0averysecret")}), ldapwire.Success)
	taps := link.Taps()
	if len(taps) != 2 {
		t.Fatalf("got %d taps, want 2: %+v", len(taps), taps)
	}
	for _, tap := range taps {
		if strings.Contains(string(tap.Op.Payload.Raw), "verysecret") {
			t.Errorf("%s %s shows a password", tap.Op.Verb, tap.Op.Address)
		}
	}
	if list, err := entry.WellKnown().Attributes(taps[0].Op.Payload.Raw); err != nil || len(list) != 2 || string(list[0].Vals[0]) != "shown" {
		t.Errorf("got %q, %v; want the description and that there is a password", list, err)
	}
}

func TestTransactionsCountWhenTheyAreCommitted(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{})}
	close(s.gate)
	d := startDirectory(t, func(m *ldapwire.Message, c net.Conn) {
		if q, ok := m.Body.(*ldapwire.ExtendedRequest); ok && q.Name == ldapwire.OIDStartTransaction {
			_, _ = c.Write((&ldapwire.Message{MessageID: m.MessageID, Body: &ldapwire.ExtendedResponse{Value: []byte("t1")}}).Encode())
			return
		}
		agreeable(m, c)
	})
	c := call(t, startFront(t, link, d, s, nil))
	part := ldapwire.Control{Type: ldapwire.OIDTransaction, Criticality: true, Value: []byte("t1")}
	for round, end := range []string{"\x30\x07\x01\x01\x00\x04\x02t1", "\x30\x04\x04\x02t1"} {
		c.wants(c.send(&ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTransaction}), ldapwire.Success)
		c.wants(c.send(replace("cn=a,dc=plant", "description", "1"), part), ldapwire.Success)
		c.wants(c.send(replace("cn=b,dc=plant", "description", "1"), part), ldapwire.Success)
		if n := s.calls.Load(); n != 0 {
			t.Errorf("the feed was asked %d times before the end", n)
		}
		c.wants(c.send(&ldapwire.ExtendedRequest{Name: ldapwire.OIDEndTransaction, Value: []byte(end)}), ldapwire.Success)
		if n := s.calls.Load(); int(n) != round {
			t.Errorf("round %d: the feed was asked %d times", round, n)
		}
	}
}

func TestTLSEndsAtTheGateway(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	link := deviceLink()
	d := startDirectory(t, agreeable)
	addr := startFront(t, link, d, &heldSource{gate: gate}, func(c *wrappers.Config) {
		c.TLS = &tls.Config{Certificates: []tls.Certificate{wrappertest.SelfSigned(t)}}
	})

	c := call(t, addr)
	c.wants(c.send(&ldapwire.SearchRequest{Filter: anything}), ldapwire.Success) // what the server can
	c.wants(c.send(&ldapwire.BindRequest{Version: 3, Name: "cn=a", Simple: []byte("pw")}), ldapwire.ConfidentialityRequired)
	c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.ConfidentialityRequired)
	c.wants(c.send(&ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}), ldapwire.Success)
	secure := func(c *caller) {
		t.Helper()
		tc := tls.Client(c.c, &tls.Config{InsecureSkipVerify: true})
		if err := tc.Handshake(); err != nil {
			t.Fatal(err)
		}
		c.c, c.in = tc, bufio.NewReader(tc)
	}
	secure(c)
	c.bind("cn=a")
	c.wants(c.send(replace("cn=a,dc=plant", "description", strings.Repeat("x", 100_000))), ldapwire.Success)
	c.wants(c.send(&ldapwire.ExtendedRequest{Name: ldapwire.OIDStartTLS}), ldapwire.OperationsError)

	c = call(t, addr) // ldaps, at the same listener
	secure(c)
	c.bind("cn=a")
	if n := d.heard(ldapwire.OpExtendedRequest); n != 0 {
		t.Errorf("the server heard of StartTLS %d times", n)
	}
}

// After a security layer was agreed nothing can be read, and everything passes.
func TestASecurityLayerPasses(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{})}
	d := startDirectory(t, agreeable)
	for _, c := range []struct {
		mechanism string
		layer     bool
	}{{"DIGEST-MD5", true}, {"GSSAPI", true}, {"DIGEST-MD5", false}, {"SCRAM-SHA-256", false}} {
		d.answer = func(m *ldapwire.Message, conn net.Conn) {
			agreeable(m, conn)
			if m.Body.Op() == ldapwire.OpBindRequest && c.layer {
				_, _ = io.Copy(conn, conn)
			}
		}
		blind := link.Counted("blind_sessions")
		p := call(t, startFront(t, link, d, s, nil))
		p.wants(p.send(&ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: c.mechanism, Credentials: []byte("x")}}), ldapwire.Success)
		if !c.layer {
			p.wants(p.send(&ldapwire.SearchRequest{Filter: anything}), ldapwire.Success)
			continue
		}
		said := []byte{0, 0, 0, 9, 'c', 'i', 'p', 'h', 'e', 'r', 't', 'x', 't', 0x30, 0x80, 0xff}
		if _, err := p.c.Write(said); err != nil {
			t.Fatal(err)
		}
		back := make([]byte, len(said))
		if _, err := io.ReadFull(p.in, back); err != nil || !slices.Equal(back, said) {
			t.Errorf("%s: got %x, %v; want %x", c.mechanism, back, err, said)
		}
		if n := link.Counted("blind_sessions"); n != blind+1 {
			t.Errorf("%s: %d blind sessions, want one more than %d", c.mechanism, n, blind)
		}
	}
}

func TestNobodyIsTheGatewayItself(t *testing.T) {
	gate := make(chan struct{})
	close(gate)
	d := startDirectory(t, agreeable)
	link := deviceLink()
	external := &ldapwire.BindRequest{Version: 3, SASL: &ldapwire.SaslCredentials{Mechanism: "external"}}
	c := call(t, startFront(t, link, d, &heldSource{gate: gate}, nil))
	c.wants(c.send(external), ldapwire.Success) // the server's matter
	w := &wrapper{up: wrappers.Upstream{Addr: "/run/slapd/ldapi"}}
	if !w.vouches() {
		t.Error("a socket of this machine: the server knows the gateway's process")
	}
	w.up = wrappers.Upstream{Addr: "10.0.0.1:636", TLS: &tls.Config{Certificates: []tls.Certificate{wrappertest.SelfSigned(t)}}}
	if !w.vouches() {
		t.Error("a client certificate: the server knows the gateway")
	}
}

func TestMalformedEndsTheSessionWithANotice(t *testing.T) {
	d := startDirectory(t, agreeable)
	link := deviceLink()
	addr := startFront(t, link, d, &heldSource{}, func(c *wrappers.Config) { c.Limits.Frame = 4096 })
	for _, c := range []struct {
		say  string
		want ldapwire.ResultCode
	}{
		{"\x30\x80\x00\x00", ldapwire.ProtocolError},
		{"\x30\x05\x02\x01\xff\x42\x00", ldapwire.ProtocolError},
		{"\x30\x84\x7f\xff\xff\xff\x02\x01\x01\x63\x84\x7f\xff\xff\xf0", ldapwire.AdminLimitExceeded},
		{"hello", ldapwire.ProtocolError},
	} {
		p := call(t, addr)
		p.wants(p.send(&ldapwire.SearchRequest{Filter: anything}), ldapwire.Success)
		if _, err := io.WriteString(p.c, c.say); err != nil {
			t.Fatal(err)
		}
		m := p.hear()
		if r, ok := m.Body.(*ldapwire.ExtendedResponse); !ok || m.MessageID != 0 || r.Name != ldapwire.OIDNoticeOfDisconnection || r.ResultCode != c.want {
			t.Errorf("%q: got %+v, want the notice with %s", c.say, m.Body, c.want)
		}
		if _, err := readMessage(p.in, 1<<20); !errors.Is(err, io.EOF) {
			t.Errorf("%q: then %v, want the end", c.say, err)
		}
	}
}

func TestTheFeedLearnsWhoWrote(t *testing.T) {
	s := startSlapd(t, withGateway)
	s.addGateway()
	s.must(&ldapwire.AddRequest{Entry: "ou=ann,dc=plant", Attributes: attrs("objectClass", "organizationalUnit", "objectClass", "simpleSecurityObject", "ou", "ann", "userPassword", "pw")})
	link := wrappertest.NewLink()
	prepare(link, devicePatterns("cn={}", "description", "objectClass"))
	addr, _ := startRelay(t, link, s.addr, nil)
	ann, err := openAs(addr, "ou=ann,dc=plant", "pw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ann.close)
	c := &rigClient{t, ann}
	moves := []ldapwire.Body{
		&ldapwire.AddRequest{Entry: "cn=a,dc=plant", Attributes: attrs("objectClass", "device", "cn", "a", "description", "1")},
		&ldapwire.ModifyRequest{Object: "cn=a,dc=plant", Changes: []ldapwire.Change{
			{Operation: ldapwire.ModifyAdd, Modification: attrs("description", "2")[0]}, {Operation: ldapwire.ModifyDelete, Modification: attrs("description", "1")[0]},
		}},
		rename,
		&ldapwire.DelRequest{Entry: "cn=b,dc=plant"},
	}
	for i, q := range moves {
		if err := c.do(q); err != nil {
			t.Fatal(err)
		}
		// The result came: what it is of is durable.
		if got := news(link, 0); len(got) < i+1 {
			t.Errorf("after %s: %q", q.Op(), got)
		}
	}
	want := []string{"put cn=a 1", "put cn=a 2", "delete cn=a", "put cn=b 2", "delete cn=b"}
	got := news(link, 0)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, k := range link.Candidates(wrappertest.ViaSeen) {
		if w := k.Op.Who; w.Principal != "ldap/hq:ou=ann,dc=plant" || !w.Verified || w.Peer == "" {
			t.Errorf("%s %s: by %+v", k.Verb, k.Address, w)
		}
	}
}

func TestWhatIsHeldIsBounded(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{})}
	c := call(t, startFront(t, link, startDirectory(t, agreeable), s, func(c *wrappers.Config) { c.Options["capture_wait_ms"] = int64(60_000) }))
	for range mostOpen {
		c.send(replace("cn=a,dc=plant", "description", "1"))
	}
	c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.Busy)
	c.wants(c.send(&ldapwire.SearchRequest{Filter: anything}), ldapwire.Success)
	close(s.gate)
	for range mostOpen {
		if r, ok := c.hear().Body.(*ldapwire.ModifyResponse); !ok || r.ResultCode != ldapwire.Success {
			t.Fatal("a held result did not come")
		}
	}
	c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.Success)
}

func TestAResultTooLargeToHoldPasses(t *testing.T) {
	link, s := deviceLink(), &heldSource{gate: make(chan struct{})}
	big := ldapwire.Control{Type: ldapwire.OIDPreRead, Value: make([]byte, 100_000)}
	d := startDirectory(t, func(m *ldapwire.Message, c net.Conn) {
		_, _ = c.Write((&ldapwire.Message{MessageID: m.MessageID, Body: ldapwire.NewResponse(m.Body.Op()), Controls: []ldapwire.Control{big}}).Encode())
	})
	c := call(t, startFront(t, link, d, s, func(c *wrappers.Config) { c.Limits.Frame = 4096 }))
	m := c.wants(c.send(replace("cn=a,dc=plant", "description", "1")), ldapwire.Success)
	if len(m.Controls) != 1 || len(m.Controls[0].Value) != len(big.Value) {
		t.Errorf("got %d controls", len(m.Controls))
	}
	if n := link.Counted("capture_late"); n != 1 || s.calls.Load() != 0 {
		t.Errorf("capture_late: got %d, want 1; the feed was asked %d times", n, s.calls.Load())
	}
}
