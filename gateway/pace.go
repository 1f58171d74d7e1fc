package gateway

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// A bind with `every` tells an address at most so often: what comes sooner waits, the newest alone, and is told when its
// time has come. Who goes away while something waits has been given a cursor that leads back to before it: behind a ~
// stands the place from which the stream has to be taken up again.

// resumeFrom gives the place at which a stream is taken up again.
func resumeFrom(c wrappers.Cursor) wrappers.Cursor {
	if _, from, ok := strings.Cut(string(c), "~"); ok {
		return wrappers.Cursor(from)
	}
	return c
}

// waitingChange is the newest of an address that was told too lately.
type waitingChange struct {
	c     wrappers.Change
	due   time.Time
	since wrappers.Cursor // the place before the first that waits
}

// pacing holds back what a stream of changes may not tell yet.
type pacing struct {
	every   func(address string) time.Duration
	yield   func(wrappers.Change, error) bool
	told    map[string]time.Time
	waiting []*waitingChange // in the order in which they came
	place   wrappers.Cursor
}

// pace paces a stream that begins behind from and ends when end is called. paces tells whether any bind asks for it.
func pace(ctx context.Context, end func(), from wrappers.Cursor, paces func() bool, every func(address string) time.Duration, changes iter.Seq2[wrappers.Change, error]) iter.Seq2[wrappers.Change, error] {
	return func(yield func(wrappers.Change, error) bool) {
		next, stop := iter.Pull2(changes)
		defer stop()
		defer end() // before: it may be waiting for news
		place := from
		for !paces() { // until a reload
			c, err, ok := next()
			if !ok {
				return
			}
			if c.Cursor != "" {
				place = c.Cursor
			}
			if paces() {
				p := &pacing{every: every, yield: yield, told: map[string]time.Time{}, place: place}
				if p.take(c, err) {
					p.run(ctx, end, next)
				}
				return
			}
			if !yield(c, err) {
				return
			}
		}
		(&pacing{every: every, yield: yield, told: map[string]time.Time{}, place: place}).run(ctx, end, next)
	}
}

type pulled struct {
	c   wrappers.Change
	err error
	ok  bool
}

func (p *pacing) run(ctx context.Context, end func(), next func() (wrappers.Change, error, bool)) {
	want, got := make(chan struct{}), make(chan pulled)
	ended := make(chan struct{})
	go func() { // next waits for news, and time goes on meanwhile
		defer close(ended)
		for range want {
			c, err, ok := next()
			got <- pulled{c, err, ok}
		}
	}()
	asked := false
	defer func() {
		end()
		if asked {
			<-got
		}
		close(want)
		<-ended
	}()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if !asked {
			want <- struct{}{}
			asked = true
		}
		timer.Reset(p.left())
		select {
		case n := <-got:
			asked = false
			if !n.ok {
				return
			}
			if !p.take(n.c, n.err) {
				return
			}
		case <-timer.C:
			if !p.tellDue(time.Now()) {
				return
			}
		case <-ctx.Done():
			p.yield(wrappers.Change{}, ctx.Err())
			return
		}
	}
}

// left is how long the next that waits has to wait.
func (p *pacing) left() time.Duration {
	wait := time.Hour
	for _, w := range p.waiting {
		wait = min(wait, time.Until(w.due))
	}
	return max(wait, 0)
}

// take tells a change, or has it wait.
func (p *pacing) take(c wrappers.Change, err error) bool {
	if err != nil {
		return p.yield(c, err)
	}
	before := p.place
	if c.Cursor != "" {
		p.place = c.Cursor
	}
	every := p.every(c.Address)
	if every == 0 || c.Echo && c.Tag != 0 { // a broker passes on what its own clients say, as it comes
		return p.tell(c)
	}
	key := c.Server + "\x00" + c.Address
	now := time.Now()
	for _, w := range p.waiting {
		if w.c.Server == c.Server && w.c.Address == c.Address {
			w.c = c
			return true
		}
	}
	if due := p.told[key].Add(every); now.Before(due) {
		p.waiting = append(p.waiting, &waitingChange{c, due, before})
		return true
	}
	p.note(key, now)
	return p.tell(c)
}

// note remembers when an address was told; those whose time is over are forgotten now and then.
func (p *pacing) note(key string, now time.Time) {
	p.told[key] = now
	if n := len(p.told); n >= 1024 && n&(n-1) == 0 {
		for k, t := range p.told {
			_, address, _ := strings.Cut(k, "\x00")
			if now.Sub(t) > p.every(address) {
				delete(p.told, k)
			}
		}
	}
}

func (p *pacing) tellDue(now time.Time) bool {
	for i := 0; i < len(p.waiting); {
		w := p.waiting[i]
		if now.Before(w.due) {
			i++
			continue
		}
		p.waiting = append(p.waiting[:i], p.waiting[i+1:]...)
		p.note(w.c.Server+"\x00"+w.c.Address, now)
		if w.c.Cursor != "" {
			w.c.Cursor = p.place // what came meanwhile has been told
		}
		if !p.tell(w.c) {
			return false
		}
	}
	return true
}

// tell gives a change a cursor behind which nothing is missed.
func (p *pacing) tell(c wrappers.Change) bool {
	if c.Cursor != "" && len(p.waiting) > 0 {
		c.Cursor += "~" + p.waiting[0].since
	}
	return p.yield(c, nil)
}
