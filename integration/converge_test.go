package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// retainedAt gives what a broker holds for a topic, "" if nothing.
func retainedAt(t testing.TB, addr, topic string) string {
	t.Helper()
	c := dialMQTT(t, addr, mqttOptions{id: fmt.Sprintf("look-%d", freePort(t))})
	defer c.Close()
	c.subscribe(t, topic, 0)
	// What is retained comes before the answer to a later PINGREQ.
	c.Write(frame(mPingreq))
	for {
		f, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		if f[0] == mPingresp {
			return ""
		}
		if m, err := c.parse(f); err == nil && m.retain {
			return m.payload
		}
	}
}

// wantOneState waits until register, broker and HTTP server agree.
func (p *plant) wantOneState(t testing.TB, name string) {
	t.Helper()
	var register, broker, server string
	if !within(patience, func() bool {
		register = p.read("site/" + name)
		broker = retainedAt(t, p.brokerAddr(), "sensors/"+name)
		server = p.http.doc("/v1/" + name)
		return register == broker && broker == server
	}) {
		t.Errorf("%s: the register has %s, the broker %s, the HTTP server %s", name, register, broker, server)
	}
}

// TestRelayConflicts: clients on both sides that write the same addresses at once leave one state
// everywhere, and each write is one history entry: nothing comes back as news.
func TestRelayConflicts(t *testing.T) {
	for _, etag := range []bool{false, true} {
		t.Run(fmt.Sprintf("etag=%v", etag), func(t *testing.T) {
			p := newPlant(t, etag)
			p.start()
			each := 150
			if testing.Short() {
				each = 30
			}
			var values atomic.Int64
			var wg sync.WaitGroup
			for who := range 2 {
				wg.Go(func() {
					c := keepAlive(t)
					for range each {
						n := values.Add(1)
						status, _, body, err := tryRequest(t.Context(), c, "PUT", fmt.Sprintf("%s/v1/shared/r%d", p.httpURL(), n%3), fmt.Sprintf(`{"value":%d}`, n))
						if err != nil || status/100 != 2 {
							t.Errorf("PUT: %d %s %v", status, body, err)
							return
						}
					}
				})
				wg.Go(func() {
					c, _, err := tryDialMQTT(p.mqttAddr(), mqttOptions{id: fmt.Sprintf("w%d", who)})
					if err != nil {
						t.Error(err)
						return
					}
					defer c.Close()
					for range each {
						n := values.Add(1)
						c.Write(c.publishFrame(fmt.Sprintf("sensors/shared/r%d", n%3), fmt.Appendf(nil, `{"value":%d}`, n), 1, true, uint16(n%60000+1), false))
						c.SetReadDeadline(time.Now().Add(patience))
						if f, err := c.next(); err != nil || f[0] != mPuback {
							t.Errorf("publish %d: got % x, %v", n, f, err)
							return
						}
					}
				})
			}
			wg.Wait()
			p.settled(t)
			entries := 0
			for r := range 3 {
				name := fmt.Sprintf("shared/r%d", r)
				p.wantOneState(t, name)
				seen := map[string]int{}
				for _, d := range p.history("site/" + name) {
					v := string(d.After.Value.AppendJSON(nil))
					if seen[v]++; seen[v] > 1 {
						t.Errorf("%s: %s is in the history twice, the second time by %+v", name, v, d.Cause)
					}
					entries++
				}
			}
			if want := 4 * each; entries != want {
				t.Errorf("history: got %d entries, want %d: one for each write", entries, want)
			}
		})
	}
}

// TestKillRelay: kill -9 of a gateway in front of servers, while clients write through it and
// straight to the broker: what was acknowledged is there, what the broker took is there once, and
// in the end register, broker and HTTP server agree.
func TestKillRelay(t *testing.T) {
	kills := 15
	if testing.Short() {
		kills = 3
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	p := newPlant(t, true)
	p.program = plainProgram(t)
	p.start()
	// The broker owes the gateway only what comes after its first subscription.
	c := dialMQTT(t, p.mqttAddr(), mqttOptions{id: "first"})
	c.publish(t, "sensors/kill/first", `{"value":1}`, true)
	p.becomes("site/kill/first", `{"value":1}`)

	enough := make(chan struct{})
	var acked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	through := &ledger{register: "site/kill/through"}
	put := &ledger{register: "site/kill/put"}
	straight := &ledger{register: "site/kill/straight"}
	books := []*ledger{through, put, straight}
	var writers sync.WaitGroup
	for addr, l := range map[string]*ledger{p.mqttAddr(): through, p.brokerAddr(): straight} {
		writers.Go(func() {
			if err := publishUntil(ctx, addr, l.register[len("site/kill/"):], time.Millisecond, l, enough, &acked); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Go(func() {
		if err := putUntil(ctx, p.httpURL()+"/v1/kill/put", put, enough, &acked); err != nil {
			t.Error(err)
		}
	})
	var starts []time.Duration
	for range kills {
		select {
		case <-time.After(time.Duration(5+dice.IntN(496)) * time.Millisecond):
		case <-p.done:
			t.Fatalf("spookgw ended by itself: %v", p.err)
		}
		p.kill()
		starts = append(starts, took(func() { p.start() }))
		if t.Failed() {
			break
		}
	}
	close(enough)
	finished := make(chan struct{})
	go func() { writers.Wait(); close(finished) }()
	if !arrives(finished) {
		cancel()
		t.Fatal("the writers did not get their last writes acknowledged")
	}
	p.becomes(straight.register, fmt.Sprintf(`{"value":%d}`, len(straight.sent)))
	p.settled(t)

	for _, l := range books {
		counts := make([]int, len(l.sent))
		for _, d := range p.history(l.register) {
			var doc struct{ Value int }
			if err := json.Unmarshal(d.After.Value.AppendJSON(nil), &doc); err != nil || doc.Value < 1 || doc.Value > len(counts) {
				t.Errorf("%s: history holds %s, which nobody wrote", l.register, d.After.Value)
				continue
			}
			counts[doc.Value-1]++
		}
		lost, extra := 0, 0
		for i, n := range counts {
			if l.acked[i] && n == 0 {
				lost++
			}
			if n > l.sent[i] {
				extra++
			}
		}
		if lost > 0 || extra > 0 {
			t.Errorf("%s: of %d writes, %d acknowledged ones are lost and %d are there more often than they were sent", l.register, len(counts), lost, extra)
		}
	}
	for _, name := range []string{"kill/through", "kill/put", "kill/straight"} {
		var register, server string
		if !within(patience, func() bool {
			register, server = p.read("site/"+name), p.http.doc("/v1/"+name)
			return register == server
		}) {
			t.Errorf("%s: the register has %s, the HTTP server %s", name, register, server)
		}
	}
	if got, want := retainedAt(t, p.brokerAddr(), "sensors/kill/put"), p.read("site/kill/put"); got != want {
		t.Errorf("kill/put: the broker has %s, the register %s", got, want)
	}
	slices.Sort(starts)
	t.Logf("%d kills, %d acknowledged writes (%d straight to the broker); start to ready: median %v, worst %v", len(starts), acked.Load(), len(straight.sent),
		starts[len(starts)/2].Round(time.Millisecond), starts[len(starts)-1].Round(time.Millisecond))
}

// TestOneOrder: subscribers of one topic see one order, the history's.
func TestOneOrder(t *testing.T) {
	g := newGateway(t, virtualWrappers, sensorMapping).start()
	const publishers, each = 6, 100
	var boxes []*inbox
	for range 3 {
		boxes = append(boxes, watchTopic(t, g.mqttAddr(), "sensors/order/+"))
	}
	e := openEvents(t, g.httpURL()+"/v1/order/one", "")
	var wg sync.WaitGroup
	for who := range publishers {
		wg.Go(func() {
			if who%2 == 0 {
				hc := keepAlive(t)
				for n := range each {
					if status, _, _, err := tryRequest(t.Context(), hc, "PUT", g.httpURL()+"/v1/order/one", fmt.Sprintf(`{"value":%d}`, who*1000+n)); err != nil || status/100 != 2 {
						t.Errorf("PUT: %d %v", status, err)
					}
				}
				return
			}
			c, _, err := tryDialMQTT(g.mqttAddr(), mqttOptions{id: fmt.Sprintf("p%d", who)})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			for n := range each {
				c.Write(c.publishFrame("sensors/order/one", fmt.Appendf(nil, `{"value":%d}`, who*1000+n), 1, false, uint16(n+1), false))
			}
			for range each {
				if _, err := c.next(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if status, _, _ := request(t, oneShot, "PUT", g.httpURL()+"/v1/order/one", `{"value":-1}`); status != http.StatusNoContent && status != http.StatusOK {
		t.Fatalf("last PUT: %d", status)
	}
	var want []string
	for _, d := range g.history("site/order/one") {
		want = append(want, string(d.After.Value.AppendJSON(nil)))
	}
	if len(want) != publishers*each+1 {
		t.Errorf("history: got %d entries, want %d", len(want), publishers*each+1)
	}
	for i, b := range boxes {
		b.until(t, "the last write", func(m message) bool { return m.payload == `{"value":-1}` })
		if got := b.payloads("sensors/order/one"); !slices.Equal(got, want) {
			t.Errorf("subscriber %d: got %d messages in another order than the history's %d", i, len(got), len(want))
		}
	}
	var got []string
	for len(got) == 0 || got[len(got)-1] != `{"value":-1}` {
		_, data := e.next(t)
		got = append(got, data)
	}
	if !slices.Equal(got, want) {
		t.Errorf("event stream: got %d events in another order than the history's %d", len(got), len(want))
	}
}
