package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A siteTeam writes to two sites and looks at both, while others do to them what they like, and keeps the book.
type siteTeam struct {
	t     testing.TB
	sites [2]*spookgw
	book  siteBook
	acked atomic.Int64
	looks atomic.Int64
}

const siteRegisters = 24

// worker writes to one site, one thing after the other, until enough is closed.
func (s *siteTeam) worker(ctx context.Context, site int, dice *rand.Rand, pace time.Duration, enough <-chan struct{}) {
	g := s.sites[site]
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	shared := func() string { return fmt.Sprintf("x/r%02d", dice.IntN(siteRegisters)) }
	for ctx.Err() == nil {
		select {
		case <-enough:
			return
		case <-time.After(time.Duration(dice.Int64N(int64(2*pace) + 1))):
		}
		switch dice.IntN(8) {
		case 0: // delete, by HTTP
			r := shared()
			_, acked := s.book.begins(site, true, "site/"+r)
			status, _, _, err := tryRequest(ctx, client, "DELETE", g.httpURL()+"/v1/"+r, "")
			// What is not there can't be deleted; nothing was done then, and nothing is owed.
			if err == nil && status/100 == 2 {
				acked()
				s.acked.Add(1)
			}
		case 1, 2: // several registers as one, by the socket
			names := map[string]bool{}
			for range 2 + dice.IntN(3) {
				names["site/"+shared()] = true
			}
			registers := slices.Sorted(maps.Keys(names))
			n, acked := s.book.begins(site, false, registers...)
			var ops []engine.Op
			for _, r := range registers {
				ops = append(ops, engine.Op{Register: r, Kind: engine.OpPut, Field: "value", Value: lattice.Int(int64(n))})
			}
			c, err := daemonclient.Dial(ctx, g.socket)
			if err != nil {
				continue
			}
			if _, err = c.WriteState(ctx, engine.Write{Ops: ops}); err == nil {
				acked()
				s.acked.Add(1)
			}
			c.Close()
		case 3: // by MQTT
			r := shared()
			c, _, err := tryDialMQTT(g.mqttAddr(), mqttOptions{id: fmt.Sprintf("w%d-%d", site, dice.Uint64())})
			if err != nil {
				continue
			}
			n, acked := s.book.begins(site, false, "site/"+r)
			c.SetDeadline(time.Now().Add(patience))
			_, err = c.Write(c.publishFrame("sensors/"+r, fmt.Appendf(nil, `{"value":%d}`, n), 1, true, 7, false))
			if err == nil {
				var f []byte
				if f, err = c.next(); err == nil && f[0] == mPuback {
					acked()
					s.acked.Add(1)
				}
			}
			c.Close()
		default:
			r := shared()
			if dice.IntN(3) == 0 { // nobody else writes there
				r = fmt.Sprintf("own/%d", dice.Uint64())
			}
			n, acked := s.book.begins(site, false, "site/"+r)
			status, _, body, err := tryRequest(ctx, client, "PUT", g.httpURL()+"/v1/"+r, fmt.Sprintf(`{"value":%d}`, n))
			switch {
			case err == nil && status/100 == 2:
				acked()
				s.acked.Add(1)
			case err == nil && status != http.StatusServiceUnavailable:
				s.t.Errorf("PUT %s: %d %s", r, status, body)
			}
		}
	}
}

// watcher looks at one site again and again.
func (s *siteTeam) watcher(ctx context.Context, site int, enough <-chan struct{}) {
	for ctx.Err() == nil {
		select {
		case <-enough:
			return
		case <-time.After(15 * time.Millisecond):
		}
		saw := s.book.looks(site, "site/x/", false)
		if shown, err := s.sites[site].shows(ctx, "site/x/"); err == nil {
			saw(shown)
			s.looks.Add(1)
		} else if !errors.Is(err, engine.ErrUnavailable) && !isGone(err) {
			s.t.Errorf("site %d: %v", site, err)
		}
	}
}

// isGone tells whether a gateway was not there, or was killed while it answered.
func isGone(err error) bool {
	text := err.Error()
	return slices.ContainsFunc([]string{"no such file", "refused", "reset", "EOF", "broken pipe", "closed"}, func(s string) bool { return strings.Contains(text, s) })
}

// shows gives the numbers that registers have as "value".
func (g *spookgw) shows(ctx context.Context, prefix string) (map[string]int, error) {
	c, err := daemonclient.Dial(ctx, g.socket)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out := map[string]int{}
	for b, err := range c.List(ctx, prefix, "", 0) {
		if err != nil {
			return nil, err
		}
		v, _ := b.Value.Member("value")
		out[b.Register] = int(v.Int())
	}
	return out, nil
}

// TestSitesHistory: while the line is cut and dies, and either gateway is killed, at any moment, both sites are written to
// and looked at, and what they say is held against what must never be.
func TestSitesHistory(t *testing.T) {
	dice := diceOf(t)
	a, b, line := newSites(t, [2]string{virtualWrappers, virtualWrappers}, sensorMapping)
	agree(t, a, b)
	team := &siteTeam{t: t, sites: [2]*spookgw{a, b}}
	cuts, kills := 0, 0
	for range rounds(t, 4) {
		ctx, cancel := context.WithCancel(t.Context())
		enough := make(chan struct{})
		var wait sync.WaitGroup
		for site := range 2 {
			for range 3 {
				own := rand.New(rand.NewPCG(dice.Uint64(), 0))
				wait.Go(func() { team.worker(ctx, site, own, 10*time.Millisecond, enough) })
			}
			wait.Go(func() { team.watcher(ctx, site, enough) })
		}
		for range 6 {
			<-time.After(time.Duration(20+dice.IntN(300)) * time.Millisecond)
			switch dice.IntN(8) {
			case 0, 1:
				line.set(true)
				cuts++
			case 2, 3:
				line.set(false)
			case 4:
				g := team.sites[dice.IntN(2)]
				g.kill()
				kills++
				<-time.After(time.Duration(dice.IntN(100)) * time.Millisecond)
				g.launch() // it is written to before it is ready
			case 5:
				line.set(true)
				line.set(false)
				cuts++
			case 6: // a process that the system lets wait
				p := team.sites[dice.IntN(2)].cmd.Process
				_ = p.Signal(syscall.SIGSTOP)
				<-time.After(time.Duration(dice.IntN(400)) * time.Millisecond)
				_ = p.Signal(syscall.SIGCONT)
			case 7: // what is on its way is lost, one way alone perhaps
				line.kill(dice.IntN(2))
				line.revive()
				cuts++
			}
		}
		close(enough)
		began := time.Now()
		wait.Wait()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("an answer took %v", took)
		}
		cancel()
		line.set(false)
		a.untilReady()
		b.untilReady()
		agree(t, a, b)
		var shown [2]map[string]int
		for i, g := range team.sites {
			saw := team.book.looks(i, "site/", true)
			var err error
			if shown[i], err = g.shows(t.Context(), "site/"); err != nil {
				t.Fatal(err)
			}
			saw(shown[i])
		}
		if !maps.Equal(shown[0], shown[1]) {
			t.Errorf("the hashes are equal, and the sites show\n%v\n%v", shown[0], shown[1])
		}
		found := team.book.faults()
		for i, f := range found {
			if i == 10 {
				t.Errorf("and %d more", len(found)-i)
				break
			}
			t.Errorf("%s: %s", f.kind, f.text)
		}
		if t.Failed() {
			break
		}
	}
	t.Logf("%d acknowledged writes, %d looks, %d cuts, %d kills", team.acked.Load(), team.looks.Load(), cuts, kills)
	if team.acked.Load() < 50 || team.looks.Load() < 20 {
		t.Error("void: too little was written and looked at")
	}
}
