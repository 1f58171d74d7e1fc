package mqtt

import (
	"fmt"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// startWrapper runs a wrapper on a free port.
func startWrapper(t testing.TB, link wrappers.Link, cfg wrappers.Config, tune func(*wrappers.Config)) wrappertest.Rig {
	t.Helper()
	cfg.Protocol, cfg.Name, cfg.Log = "mqtt", "floor", slog.New(slog.DiscardHandler)
	cfg.Endpoint, cfg.Drain = "spookgw/local/0123456789abcdef", 2*time.Second
	cfg.Anonymous = wrappers.WriteAccess
	if tune != nil {
		tune(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	rig := wrappertest.Rig{Stop: wrappertest.Serve(t, w, link)}
	if cfg.Listener != nil {
		rig.Addr = cfg.Listener.Addr().String()
	}
	return rig
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// startVirtual runs a broker.
func startVirtual(t testing.TB, link wrappers.Link, tune func(*wrappers.Config)) wrappertest.Rig {
	t.Helper()
	return startWrapper(t, link, wrappers.Config{Listener: listen(t)}, tune)
}

func newLink() *wrappertest.Link {
	return wrappertest.NewLink("sensors/{site}/{name}", "deep/{rest...}")
}

func TestVirtualContract(t *testing.T) {
	for _, level := range []byte{level311, level5} {
		t.Run(fmt.Sprintf("level %d", level), func(t *testing.T) {
			wrappertest.Run(t, wrappertest.Suite{
				Templates: []string{"sensors/{site}/{name}"},
				Address:   func(n int) string { return fmt.Sprintf("sensors/berlin/oven-%d", n) },
				Unmapped:  "other/topic",
				Deletes:   true,
				Garbage:   []byte("\x10\xff\xff\xff\xff\x7fgarbage"),
				Virtual: func(t *testing.T, link *wrappertest.Link, tune func(*wrappers.Config)) wrappertest.Rig {
					rig := startVirtual(t, link, tune)
					rig.Dial = func(t *testing.T) wrappertest.Client {
						p := connectPeer(t, rig.Addr, connect{level: level, clean: true})
						if a := p.connack(); a.code != 0 {
							t.Fatalf("CONNACK 0x%02x", a.code)
						}
						return suiteClient{p, rig.Addr}
					}
					return rig
				},
			})
		})
	}
}
