//go:build !race

package gateway

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
)

// TestIdleSQL (not with the race detector, whose memory it would be): a session that has nothing to say has no buffers. 1,000 of them are to cost 20 MB at most, of which the
// kernel's, the collector's and the stacks' slack is half.
func TestIdleSQL(t *testing.T) {
	const sessions, atMost = 300, 12 << 10
	_, _, addr := sqlWorld(t, nil)
	open := func() {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		say := func(b []byte) {
			t.Helper()
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			for typ := byte(0); typ != 'Z'; {
				var head [5]byte
				if _, err := io.ReadFull(c, head[:]); err != nil {
					t.Fatal(err)
				}
				if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[1:])-4)); err != nil {
					t.Fatal(err)
				}
				typ = head[0]
			}
		}
		hello := "\x00\x03\x00\x00user\x00t\x00database\x00plant\x00\x00"
		say(append(binary.BigEndian.AppendUint32(nil, uint32(4+len(hello))), hello...))
		query := "SELECT n FROM counts WHERE name = '1'\x00"
		say(append(binary.BigEndian.AppendUint32([]byte{'Q'}, uint32(4+len(query))), query...))
	}
	used := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools hold goes with the second
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	open() // what the first one costs is the server's
	before := used()
	for range sessions {
		open()
	}
	if each := (int64(used()) - int64(before)) / sessions; each > atMost {
		t.Errorf("an idle session costs %d bytes, want at most %d", each, atMost)
	} else {
		t.Logf("%d bytes for each of %d idle sessions", each, sessions)
	}
}
