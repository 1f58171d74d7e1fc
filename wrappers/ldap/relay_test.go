package ldap

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap/entry"
	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// startRelay runs a wrapper in front of a server, and waits until its feed stands.
func startRelay(t testing.TB, link *wrappertest.Link, server string, tune func(*wrappers.Config)) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := wrappers.Config{
		Protocol: "ldap", Name: "hq", Endpoint: "spookgw/local/0123456789abcdef", Drain: 5 * time.Second, Log: testLog(), Listener: ln,
		Upstreams: []wrappers.Upstream{{Scheme: "ldap", Addr: server, User: gatewayDN, Password: func() string { return gatewayPW }}},
		Options:   wrappers.Options{"base": suffixDN},
	}
	if tune != nil {
		tune(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	up := link.Counted("feed_up")
	stop = wrappertest.Serve(t, w, link)
	link.Await(t, "the feed to stand", func() bool { return link.Counted("feed_up") > up })
	return ln.Addr().String(), stop
}

// The gateway's own account is another than the clients'.
const (
	gatewayDN = "ou=gateway,dc=plant"
	gatewayPW = "gatewaysecret"
)

// withGateway lets that account write.
const withGateway = withSyncprov + `access to attrs=userPassword by dn.exact="` + gatewayDN + `" write by anonymous auth by self write
access to * by dn.exact="` + gatewayDN + `" write by users write by anonymous read
limits dn.exact="` + gatewayDN + `" size=unlimited time=unlimited
`

// addGateway makes it.
func (s *slapd) addGateway() {
	s.t.Helper()
	s.must(&ldapwire.AddRequest{Entry: gatewayDN, Attributes: attrs("objectClass", "organizationalUnit", "objectClass", "simpleSecurityObject", "ou", "gateway", "userPassword", gatewayPW)})
}

// A rigClient is a client of the relay.
type rigClient struct {
	t testing.TB
	s *session
}

func dialRig(t testing.TB, addr string) *rigClient {
	s, err := openAs(addr, rootDN, rootPW)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return &rigClient{t, s}
}

func (c *rigClient) do(body ldapwire.Body, controls ...ldapwire.Control) error {
	m, err := c.s.do(context.Background(), body, controls...)
	if err != nil {
		return err
	}
	return resultError(m)
}

func (c *rigClient) Write(address string, payload []byte) error {
	list, err := entry.WellKnown().Attributes(payload)
	if err != nil {
		list = attrs("description", string(payload), "objectClass", "device")
	}
	e, err := c.s.one(context.Background(), nameAt(address), "1.1")
	if err != nil {
		return err
	}
	if e == nil {
		return c.do(&ldapwire.AddRequest{Entry: nameAt(address), Attributes: list})
	}
	q := &ldapwire.ModifyRequest{Object: nameAt(address)}
	for _, a := range list {
		if a.Type != "objectClass" {
			q.Changes = append(q.Changes, ldapwire.Change{Operation: ldapwire.ModifyReplace, Modification: a})
		}
	}
	return c.do(q)
}

func (c *rigClient) Read(address string) ([]byte, error) {
	e, err := c.s.one(context.Background(), nameAt(address))
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, wrappertest.ErrAbsent
	}
	return payloadOf(e.Attributes).Raw, nil
}

func (c *rigClient) Delete(address string) error {
	return c.do(&ldapwire.DelRequest{Entry: nameAt(address)})
}

func (c *rigClient) Subscribe(string) (<-chan []byte, error) {
	return nil, errors.New("not of the relay")
}
func (c *rigClient) Close() { c.s.close() }

func TestRelayContract(t *testing.T) {
	wrappertest.Run(t, wrappertest.Suite{
		Address:    func(n int) string { return fmt.Sprintf("cn=a%d", n) },
		Unmapped:   "cn=other",
		Document:   func(n int) []byte { return device(fmt.Sprint(n)) },
		Same:       sameDevice,
		Deletes:    true,
		RelayHolds: wrappertest.CallSeen,
		Garbage:    []byte("GET / HTTP/1.1\r\n\r\n"),
		Relay: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
			s := startSlapd(t, withGateway)
			s.addGateway()
			prepare(link, devicePatterns("cn={}", "description", "objectClass"))
			p := startProxy(t, s.addr)
			addr, stop := startRelay(t, link, p.addr(), tune)
			return wrappertest.Rig{
				Addr: addr, Server: &watchedServer{rigServer{s}, p}, Stop: stop,
				Dial: func(t *testing.T) wrappertest.Client { return dialRig(t, addr) },
			}
		},
	})
}
