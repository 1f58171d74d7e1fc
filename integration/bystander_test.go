package integration

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Bystanders are two well-behaved clients, one for each protocol, each with one connection that it
// keeps. They write without a pause while something else goes wrong, and must not notice.
type bystanders struct {
	t     testing.TB
	g     *spookgw
	stop  context.CancelFunc
	ended sync.WaitGroup
	dials atomic.Int64 // of the HTTP client
	mqtt  atomic.Int64 // acknowledged writes
	http  atomic.Int64
	worst atomic.Int64 // nanoseconds a write took at most
}

func startBystanders(t testing.TB, g *spookgw) *bystanders {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	b := &bystanders{t: t, g: g, stop: cancel}
	c := dialMQTT(t, g.mqttAddr(), mqttOptions{id: "bystander"})
	c.SetDeadline(time.Time{})
	fail := func(format string, args ...any) {
		if ctx.Err() == nil {
			t.Errorf("bystander: "+format, args...)
		}
	}
	slowest := func(took time.Duration) {
		for old := b.worst.Load(); int64(took) > old && !b.worst.CompareAndSwap(old, int64(took)); old = b.worst.Load() {
		}
	}
	b.ended.Go(func() {
		for n := 1; ctx.Err() == nil; n++ {
			begin := time.Now()
			id := uint16(n%60000 + 1)
			if _, err := c.Write(c.publishFrame("sensors/by/mqtt", fmt.Appendf(nil, `{"value":%d}`, n), 1, false, id, false)); err != nil {
				fail("mqtt publish %d: %v", n, err)
				return
			}
			c.SetReadDeadline(time.Now().Add(patience))
			f, err := c.next()
			if err != nil {
				fail("mqtt publish %d: waiting for the acknowledgement: %v", n, err)
				return
			}
			if _, body := split(f); f[0] != mPuback || binary.BigEndian.Uint16(body) != id {
				fail("mqtt publish %d: got % x, want its PUBACK", n, f)
				return
			}
			slowest(time.Since(begin))
			b.mqtt.Store(int64(n))
		}
	})
	b.ended.Go(func() {
		var d net.Dialer
		tr := &http.Transport{MaxConnsPerHost: 1, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			b.dials.Add(1)
			return d.DialContext(ctx, network, addr)
		}}
		defer tr.CloseIdleConnections()
		hc := &http.Client{Transport: tr, Timeout: patience}
		for n := 1; ctx.Err() == nil; n++ {
			begin := time.Now()
			status, _, body, err := tryRequest(ctx, hc, "PUT", g.httpURL()+"/v1/by/http", fmt.Sprintf(`{"value":%d}`, n))
			if err != nil || status/100 != 2 {
				fail("PUT %d: %d %s %v", n, status, body, err)
				return
			}
			slowest(time.Since(begin))
			b.http.Store(int64(n))
		}
	})
	t.Cleanup(func() { cancel(); c.Close(); b.ended.Wait() })
	b.goOn(5)
	return b
}

// goOn waits until each has had n more writes acknowledged.
func (b *bystanders) goOn(n int64) {
	b.t.Helper()
	m, h := b.mqtt.Load()+n, b.http.Load()+n
	eventually(b.t, fmt.Sprintf("the bystanders have %d more writes acknowledged", n), func() bool {
		return b.t.Failed() || b.mqtt.Load() >= m && b.http.Load() >= h
	})
	if b.t.Failed() {
		b.t.FailNow()
	}
}

// end stops them and checks that they noticed nothing: one connection each, and each write is in
// the history exactly once.
func (b *bystanders) end() {
	b.t.Helper()
	b.goOn(5)
	b.stop()
	b.ended.Wait()
	if got := b.dials.Load(); got != 1 {
		b.t.Errorf("bystander: the HTTP client needed %d connections, want 1", got)
	}
	for register, acked := range map[string]int64{"site/by/mqtt": b.mqtt.Load(), "site/by/http": b.http.Load()} {
		// One more may have been on its way when they stopped.
		if got := int64(len(b.g.history(register))); got != acked && got != acked+1 {
			b.t.Errorf("bystander: %s: %d history entries for %d acknowledged writes", register, got, acked)
		}
	}
	b.t.Logf("bystanders: %d MQTT and %d HTTP writes, the slowest took %v", b.mqtt.Load(), b.http.Load(), time.Duration(b.worst.Load()).Round(time.Millisecond))
}
