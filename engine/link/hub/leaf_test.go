package hub

import (
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/spooksystems/gateway/engine/link/hub/embedded"
)

// A site with several gateways has a leaf node, which has one line to the hub. Cut off, the site's gateways go on; then
// they meet again.
func TestALeafNode(t *testing.T) {
	c := &centre{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	s, err := embedded.Start(embedded.Options{Dir: c.dir, Listen: c.addr, Leaf: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	c.s, c.addr = s, s.Addr().String()
	t.Cleanup(c.stop)
	at := s.Leaf()
	if at == nil {
		t.Fatal("it takes in no leaf node")
	}
	leaf := func(port int) *server.Server {
		l, err := server.NewServer(&server.Options{
			ServerName: "leaf", Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
			LeafNode: server.LeafNodeOpts{ReconnectInterval: 100 * time.Millisecond, Remotes: []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats", Host: at.String()}}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Start()
		if !l.ReadyForConnections(30 * time.Second) {
			t.Fatal("the leaf node does not start")
		}
		return l
	}
	l := leaf(server.RANDOM_PORT)
	port := l.Addr().(*net.TCPAddr).Port
	behind := &centre{t: t, addr: l.Addr().String()}
	a, b := newStation(t, behind, "leaf-a", nil), newStation(t, behind, "leaf-b", nil)
	direct := newStation(t, c, "direct", nil)
	a.put("a", 1)
	direct.put("d", 2)
	converge(t, "through a leaf node", a, b, direct)
	l.Shutdown()
	l.WaitForShutdown()
	a.put("a", 3)
	direct.put("d", 4)
	l = leaf(port)
	t.Cleanup(func() { l.Shutdown(); l.WaitForShutdown() })
	converge(t, "after the leaf node was started again", a, b, direct)
	if !b.has("a", 3) || !b.has("d", 4) {
		t.Error("something is missing")
	}
}
