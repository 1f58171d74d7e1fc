package integration

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const virtualWrappers = `
wrapper "mqtt" "floor" {
  listen    = "127.0.0.1:$mqtt"
  anonymous = "write"
}
wrapper "http" "api" {
  listen    = "127.0.0.1:$http"
  anonymous = "write"
}
`

// A ledger is what one writer knows of its own writes, whose values are 1, 2, 3 and so on.
type ledger struct {
	register string
	sent     []int // by value - 1: how often it was sent
	acked    []bool
}

func (l *ledger) next() int {
	l.sent = append(l.sent, 0)
	l.acked = append(l.acked, false)
	return len(l.sent)
}

// TestKill: kill -9 at any moment loses no acknowledged write and doubles none that its client
// did not send again.
func TestKill(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 5
	}
	if n, err := strconv.Atoi(os.Getenv("KILLS")); err == nil {
		kills = n
	}
	seed := rand.Uint64()
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		seed = n
	}
	t.Logf("SEED=%d KILLS=%d", seed, kills)
	dice := rand.New(rand.NewPCG(seed, 0))

	g := newGateway(t, virtualWrappers, sensorMapping)
	g.program = plainProgram(t) // the detector finds nothing in a process that is killed, and is slow
	g.start()
	var up time.Duration // from ready until killed

	// New values are taken until enough is closed; then what is unacknowledged is sent again
	// until it is.
	enough := make(chan struct{})
	var acked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var writers sync.WaitGroup
	var books []*ledger
	for i := range 4 {
		m := &ledger{register: fmt.Sprintf("site/kill/m%d", i)}
		h := &ledger{register: fmt.Sprintf("site/kill/h%d", i)}
		books = append(books, m, h)
		writers.Go(func() {
			if err := publishUntil(ctx, g.mqttAddr(), fmt.Sprintf("m%d", i), 0, m, enough, &acked); err != nil {
				t.Error(err)
			}
		})
		writers.Go(func() {
			if err := putUntil(ctx, fmt.Sprintf("%s/v1/kill/h%d", g.httpURL(), i), h, enough, &acked); err != nil {
				t.Error(err)
			}
		})
	}
	var starts []time.Duration
	for kill := range kills {
		wait := time.Duration(5+dice.IntN(496)) * time.Millisecond
		select {
		case <-time.After(wait):
		case <-g.done:
			t.Fatalf("spookgw ended by itself: %v", g.err)
		}
		up += wait
		g.kill()
		if kill%5 == 4 { // and once more while it starts
			g.launch()
			select {
			case <-time.After(wait / 2):
			case <-g.done:
				t.Fatalf("spookgw ended by itself while it started: %v", g.err)
			}
			g.kill()
		}
		starts = append(starts, took(func() { g.start() }))
		if t.Failed() {
			break
		}
	}
	rate := float64(acked.Load()) / up.Seconds()
	close(enough)
	finished := make(chan struct{})
	go func() { writers.Wait(); close(finished) }()
	if !arrives(finished) {
		cancel()
		t.Fatal("the writers did not get their last writes acknowledged")
	}

	entries, doubled := 0, 0
	for _, l := range books {
		counts := make([]int, len(l.sent))
		for _, d := range g.history(l.register) {
			var doc struct{ Value int }
			if err := json.Unmarshal(d.After.Value.AppendJSON(nil), &doc); err != nil || doc.Value < 1 || doc.Value > len(counts) {
				t.Errorf("%s: history holds %s, which nobody wrote", l.register, d.After.Value)
				continue
			}
			counts[doc.Value-1]++
			entries++
		}
		lost, extra := 0, 0
		for i, n := range counts {
			switch {
			case l.acked[i] && n == 0:
				lost++
			case n > l.sent[i]:
				extra++
			case n > 1:
				doubled++
			}
		}
		if lost > 0 || extra > 0 {
			t.Errorf("%s: of %d writes, %d acknowledged ones are lost and %d are there more often than they were sent", l.register, len(counts), lost, extra)
		}
		if n := len(l.sent); n > 0 {
			if got, want := g.read(l.register), fmt.Sprintf(`{"value":%d}`, n); got != want {
				t.Errorf("%s: got %s, want the last write %s", l.register, got, want)
			}
		}
	}
	slices.Sort(starts)
	t.Logf("%d kills, %d acknowledged writes (%.0f/s while it was up), %d history entries, %d sent again and doubled; start to ready: median %v, worst %v",
		len(starts), acked.Load(), rate, entries, doubled, starts[len(starts)/2].Round(time.Millisecond), starts[len(starts)-1].Round(time.Millisecond))
	if worst := starts[len(starts)-1]; worst > 10*time.Second {
		t.Errorf("a start took %v", worst)
	}
	if rate < 100 { // as etcd's robustness tests have it
		t.Errorf("void: %.0f acknowledged writes/s, at least 100 are needed to mean anything", rate)
	}
}

// publishUntil publishes values one after the other, eight in flight, over as many connections as
// it takes, and sends again what was not acknowledged. It takes pace for each.
func publishUntil(ctx context.Context, addr, id string, pace time.Duration, l *ledger, enough <-chan struct{}, acked *atomic.Int64) error {
	type inFlight struct {
		id    uint16
		value int
	}
	var window []inFlight
	packet := uint16(0)
	over := func() bool {
		select {
		case <-enough:
			return true
		case <-ctx.Done():
			return true
		default:
			return false
		}
	}
	for ctx.Err() == nil && (!over() || len(window) > 0) {
		c, _, err := tryDialMQTT(addr, mqttOptions{id: id, persist: true})
		if err != nil {
			<-time.After(2 * time.Millisecond) // nobody tells when the port is open again
			continue
		}
		stop := context.AfterFunc(ctx, func() { c.Close() })
		send := func(f inFlight, dup bool) error {
			l.sent[f.value-1]++
			_, err := c.Write(c.publishFrame("sensors/kill/"+id, fmt.Appendf(nil, `{"value":%d}`, f.value), 1, false, f.id, dup))
			return err
		}
		for _, f := range window {
			if err = send(f, true); err != nil {
				break
			}
		}
		for err == nil {
			for err == nil && len(window) < 8 && !over() {
				packet = packet%60000 + 1
				f := inFlight{packet, l.next()}
				window = append(window, f)
				err = send(f, false)
			}
			if err != nil || len(window) == 0 {
				break
			}
			var frame []byte
			if frame, err = c.next(); err != nil {
				break
			}
			first, body := split(frame)
			if first != mPuback || len(body) != 2 {
				c.Close()
				return fmt.Errorf("%s: got % x, want a PUBACK", id, frame)
			}
			if got := binary.BigEndian.Uint16(body); got != window[0].id {
				c.Close()
				return fmt.Errorf("%s: got an acknowledgement of packet %d, want %d", id, got, window[0].id)
			}
			l.acked[window[0].value-1] = true
			window = window[1:]
			acked.Add(1)
			if pace > 0 {
				<-time.After(pace)
			}
		}
		stop()
		c.Close()
	}
	return nil
}

// putUntil puts values one after the other, and again until each is acknowledged.
func putUntil(ctx context.Context, url string, l *ledger, enough <-chan struct{}, acked *atomic.Int64) error {
	tr := &http.Transport{MaxConnsPerHost: 1}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr}
	for {
		select {
		case <-enough:
			return nil
		case <-ctx.Done():
			return nil
		default:
		}
		v := l.next()
		for !l.acked[v-1] && ctx.Err() == nil {
			l.sent[v-1]++
			status, _, body, err := tryRequest(ctx, c, "PUT", url, fmt.Sprintf(`{"value":%d}`, v))
			switch {
			case err != nil, status == http.StatusServiceUnavailable:
				<-time.After(2 * time.Millisecond) // nobody tells when the port is open again
			case status/100 == 2:
				l.acked[v-1] = true
				acked.Add(1)
			default:
				return fmt.Errorf("PUT %s %d: %d %s", url, v, status, body)
			}
		}
	}
}
