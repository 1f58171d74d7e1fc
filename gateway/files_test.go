package gateway

import (
	"log/slog"
	"net"
	"testing"
)

func TestFilesFor(t *testing.T) {
	for _, c := range []struct{ limit, virtual, relay int }{
		{100, 16, 16}, {150, 50, 38}, {1024, 768, 576}, {20_000, 18_720, 14_040}, {1 << 20, 1<<20 - mostFilesKept, 785_472},
	} {
		if got := filesFor(c.limit, false); got != c.virtual {
			t.Errorf("limit %d, virtual: got %d, want %d", c.limit, got, c.virtual)
		}
		if got := filesFor(c.limit, true); got != c.relay {
			t.Errorf("limit %d, relay: got %d, want %d", c.limit, got, c.relay)
		}
	}
}

// Who comes when there are too few files left is turned away and counted; who is in stays in.
func TestLentTurnsAway(t *testing.T) {
	s, err := openSocket(t.Context(), "127.0.0.1:0", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.shut()
	away := make(chan struct{}, 1)
	l := lend([]*socket{s})
	defer l.Close()
	l.files, l.away = 1, func() { away <- struct{}{} }
	go func() { _, _ = l.Accept() }()
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if filesLimit() == 0 {
		t.Skip("file descriptors are not numbered on this system")
	}
	<-away
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("a peer beyond the limit was served")
	}
}
