package hub

import (
	"net"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine/link"
)

// TestPairedOnAHub: two nodes that are paired and on a hub agree by whichever way there is, and take nothing twice.
func TestPairedOnAHub(t *testing.T) {
	c := newCentre(t)
	a, b := newStation(t, c, "a", nil), newStation(t, c, "b", nil)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	door := link.Listen(socket, testLog(t), a.site)
	t.Cleanup(func() { _ = door.Close() })
	invitation, err := a.site.Offer(t.Context(), "pair-b", socket.Addr().String(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.site.Accept(t.Context(), invitation, "pair-a"); err != nil {
		t.Fatal(err)
	}
	a.put("x", 1)
	b.put("y", 2)
	converge(t, "over both", a, b)
	c.stop()
	a.put("x", 3)
	b.put("z", 4)
	converge(t, "over the pair alone", a, b)
	c.start()
	if err := door.Close(); err != nil {
		t.Fatal(err)
	}
	until(t, "both are on the hub", func() bool {
		return a.hub.State().State == link.Entangled && b.hub.State().State == link.Entangled
	})
	a.put("x", 5)
	b.put("y", 6)
	converge(t, "over the hub alone", a, b)
	for _, st := range []*station{a, b} {
		for name, want := range map[string]int{"x": 3, "y": 2, "z": 1} {
			if got := st.writes(name); got != want {
				t.Errorf("%s has %d writes of %s, want %d", st.name, got, name, want)
			}
		}
	}
}
