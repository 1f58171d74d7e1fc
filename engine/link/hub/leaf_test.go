package hub

import (
	"net"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/link/hub/embedded"
)

// A site with several gateways has a leaf node, which has one line to the hub. Cut off, the site's gateways go on; then
// they meet again.
func TestALeafNode(t *testing.T) {
	c := &centre{t: t, dir: t.TempDir(), addr: "127.0.0.1:0"}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := free.Addr().String()
	_ = free.Close()
	s, err := embedded.Start(embedded.Options{Dir: c.dir, Listen: c.addr, Leaf: at})
	if err != nil {
		t.Fatal(err)
	}
	c.s, c.addr = s, s.Addr().String()
	t.Cleanup(c.stop)
	leaf := func(port int) *server.Server {
		l, err := server.NewServer(&server.Options{
			ServerName: "leaf", Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true,
			LeafNode: server.LeafNodeOpts{ReconnectInterval: 100 * time.Millisecond, Remotes: []*server.RemoteLeafOpts{{URLs: []*url.URL{{Scheme: "nats", Host: at}}}}},
		})
		if err != nil {
			t.Fatal(err)
		}
		l.Start()
		if !l.ReadyForConnections(30 * time.Second) {
			t.Fatal("the leaf node does not start")
		}
		until(t, "the leaf node is on the hub", func() bool { return l.NumLeafNodes() == 1 })
		return l
	}
	l := leaf(server.RANDOM_PORT)
	port := l.Addr().(*net.TCPAddr).Port
	behind := &centre{t: t, addr: l.Addr().String()}
	a, b := behind.station("leaf-a"), behind.station("leaf-b")
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

// station is a node that reaches the hub's JetStream by its domain.
func (c *centre) station(name string) *station {
	c.t.Helper()
	st := &station{t: c.t, name: name, centre: c, open: engine.Options{Dir: filepath.Join(c.t.TempDir(), "data")}, change: func(o *Options) { o.JetStream = embedded.Domain }}
	st.start()
	c.t.Cleanup(st.stop)
	return st
}
