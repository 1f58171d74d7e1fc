package mqtt

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/wrappertest"
)

// A timedLink commits in a fixed time, any number side by side, as an engine does whose syncs
// overlap; it keeps nothing.
type timedLink struct {
	*wrappertest.Link
	takes time.Duration
	mu    sync.Mutex
	n     int
	news  chan wrappers.Change
}

func (l *timedLink) Do(ctx context.Context, op wrappers.Operation) (wrappers.Result, error) {
	if !op.Verb.Writes() {
		return l.Link.Do(ctx, op)
	}
	time.Sleep(l.takes)
	l.mu.Lock()
	l.n++
	c := wrappers.Cursor(fmt.Sprint(l.n))
	l.news <- wrappers.Change{Address: op.Address, Cursor: c, Echo: true, Tag: op.Tag}
	l.mu.Unlock()
	return wrappers.Result{Cursor: c}, nil
}

func (l *timedLink) Follow(ctx context.Context, mode wrappers.FollowMode, from wrappers.Cursor) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		for {
			select {
			case c := <-l.news:
				if !yield(c, nil) {
					return
				}
			case <-ctx.Done():
				yield(wrappers.Change{}, ctx.Err())
				return
			}
		}
	}
}

// BenchmarkVirtual is one QoS 1 publisher with 20 messages in flight against a log that takes
// 100 µs for each commit.
func BenchmarkVirtual(b *testing.B) {
	for _, topics := range []int{1, 20} {
		b.Run(fmt.Sprintf("topics=%d", topics), func(b *testing.B) {
			link := &timedLink{Link: newLink(), takes: 100 * time.Microsecond, news: make(chan wrappers.Change, 4096)}
			rig := startVirtual(b, link, nil)
			publishWindow(b, rig.Addr, 1, topics, 20)
		})
	}
}

// publishWindow publishes b.N messages with so many in flight.
func publishWindow(b *testing.B, addr string, qos byte, topics, window int) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	in := bufio.NewReader(nc)
	if _, err := nc.Write(appendConnect(nil, &connect{name: "MQTT", level: level311, clean: true, clientID: []byte("bench")})); err != nil {
		b.Fatal(err)
	}
	if _, _, err := readPacket(in, 100); err != nil {
		b.Fatal(err)
	}
	frames := make([][]byte, topics)
	for i := range frames {
		m := msg(fmt.Sprintf("sensors/berlin/oven-%d", i), `{"value":21.5,"unit":"C","at":"2026-01-01T00:00:00Z","n":12345}`, qos)
		m.id = 1
		frames[i] = appendPublish(nil, false, &m, nil)
	}
	send := func(buf []byte, i int) []byte {
		f := frames[i%topics]
		at := len(buf)
		buf = append(buf, f...)
		head, _, _ := scanHeader(f)
		topic := int(binary.BigEndian.Uint16(f[head:]))
		binary.BigEndian.PutUint16(buf[at+head+2+topic:], uint16(i%60000+1))
		return buf
	}
	b.ResetTimer()
	began := time.Now()
	var buf []byte
	sent := 0
	for ; sent < min(window, b.N); sent++ {
		buf = send(buf, sent)
	}
	if _, err := nc.Write(buf); err != nil {
		b.Fatal(err)
	}
	var ack [4]byte
	for got := 0; got < b.N; {
		buf = buf[:0]
		for {
			if _, err := io.ReadFull(in, ack[:]); err != nil {
				b.Fatal(err)
			}
			got++
			if sent < b.N {
				buf = send(buf, sent)
				sent++
			}
			if in.Buffered() < 4 || got == b.N {
				break
			}
		}
		if len(buf) > 0 {
			if _, err := nc.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "acks/s")
}

// BenchmarkRelay is QoS 1 through each way to the same mosquitto, so the figures compare as ratios.
func BenchmarkRelay(b *testing.B) {
	m := startMosquitto(b, "", "max_inflight_messages 1000", "log_type none")
	relay := func(templates ...string) string {
		link := wrappertest.NewLink(templates...)
		rig := startRelay(b, link, m.addr, func(c *wrappers.Config) {
			c.Options = wrappers.Options{"client_id": "bench-" + fmt.Sprint(len(templates[0]))}
		})
		return rig.Addr
	}
	ways := []struct{ name, addr string }{
		{"direct", m.addr}, {"haproxy", startHaproxy(b, m.addr)},
		{"relay-unmapped", relay("nothing/{x}")}, {"relay-mapped", relay("sensors/{site}/{name}")},
	}
	for _, window := range []int{1, 64} {
		for _, w := range ways {
			b.Run(fmt.Sprintf("%s/window=%d", w.name, window), func(b *testing.B) {
				if w.addr == "" {
					b.Skip("haproxy not installed")
				}
				publishWindow(b, w.addr, 1, 1, window)
			})
		}
	}
}

// startHaproxy is a TCP proxy in front of a broker; "" when there is none.
func startHaproxy(b *testing.B, to string) string {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			return ""
		}
	}
	addr := freeAddr(b)
	cmd := exec.Command(path, "-db", "-f", "/dev/stdin")
	cmd.Stdin = strings.NewReader(fmt.Sprintf("global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout client 60s\n  timeout server 60s\n  timeout connect 5s\nlisten l\n  bind %s\n  server s %s\n", addr, to))
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 100 {
		if nc, err := net.Dial("tcp", addr); err == nil {
			nc.Close()
			return addr
		}
		time.Sleep(20 * time.Millisecond)
	}
	b.Fatal("haproxy does not start")
	return ""
}
