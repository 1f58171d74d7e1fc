package integration

import (
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"testing"
)

// openFiles counts a process' file descriptors.
func (p *process) openFiles(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if os.IsNotExist(err) {
		t.Skip("no /proc on this system: file descriptors can't be counted")
	}
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestSessionsLeaveNothing: sessions that came and went, in good order and bad, leave no file
// descriptor, no goroutine and no memory behind.
func TestSessionsLeaveNothing(t *testing.T) {
	standing(t, func(t *testing.T, g *spookgw) {
		g.program = plainProgram(t)
		g.start()
		round := func(who, n int) {
			for i := range n {
				c, _, err := tryDialMQTT(g.mqttAddr(), mqttOptions{v5: i%2 == 0, id: fmt.Sprintf("s%d-%d", who, i)})
				if err != nil {
					t.Error(err)
					return
				}
				if i%3 == 0 {
					c.subscribe(t, "sensors/berlin/+", 1)
				}
				if i%5 == 0 {
					c.Write(frame(mDisconnect))
				}
				if i%7 == 0 {
					c.Conn.(*net.TCPConn).SetLinger(0)
				}
				c.Close()

				h, err := net.Dial("tcp", loopback(g.http))
				if err != nil {
					t.Error(err)
					return
				}
				switch i % 3 {
				case 0:
					io.WriteString(h, "GET /v1/berlin/oven HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
					drainAll(h)
				case 1:
					io.WriteString(h, "PUT /v1/berlin/oven HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"value\":")
				case 2:
					io.WriteString(h, "GET /v1/berlin/oven HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n\r\n")
				}
				h.Close()
			}
		}
		parallel := func(n int) {
			var wg sync.WaitGroup
			for who := range 4 {
				wg.Go(func() { round(who, n/4) })
			}
			wg.Wait()
		}
		rounds := 2000
		if testing.Short() {
			rounds = 200
		}
		parallel(rounds)
		var files, routines int
		settle := func() (int, int) { return g.openFiles(t), int(g.metrics()["go_goroutines"]) }
		// Sessions end a little after their connections: wait for two equal looks.
		eventually(t, "file descriptors and goroutines settle", func() bool {
			f, r := settle()
			same := f == files && r == routines
			files, routines = f, r
			return same
		})
		memory := g.rss(t)
		parallel(rounds)
		eventually(t, fmt.Sprintf("back to %d file descriptors and %d goroutines", files, routines), func() bool {
			f, r := settle()
			return f <= files+files/20+2 && r <= routines+routines/20+2
		})
		if grown := g.rss(t) - memory; grown > memory/20+16<<20 {
			t.Errorf("memory grew from %d MiB by %d MiB over %d sessions", memory>>20, grown>>20, 2*rounds)
		}
		if routines == 0 {
			t.Error("/metrics has no go_goroutines")
		}
	})
}
