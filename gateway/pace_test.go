package gateway

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spooksystems/gateway/wrappers"
)

// paceWorld feeds a paced stream, in a bubble where time is the test's.
func paceWorld(t *testing.T, do func(say func(address, cursor string), hear func() []string)) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancel(t.Context())
		in := make(chan wrappers.Change)
		changes := func(yield func(wrappers.Change, error) bool) {
			for {
				select {
				case c := <-in:
					if !yield(c, nil) {
						return
					}
				case <-ctx.Done():
					yield(wrappers.Change{}, ctx.Err())
					return
				}
			}
		}
		every := func(address string) time.Duration {
			if address[0] == 'p' {
				return 10 * time.Second
			}
			return 0
		}
		var mu sync.Mutex
		var heard []string
		done := make(chan struct{})
		go func() {
			defer close(done)
			for c, err := range pace(ctx, end, "0", func() bool { return true }, every, changes) {
				if err != nil {
					return
				}
				mu.Lock()
				heard = append(heard, c.Address+" "+string(c.Payload.Raw)+" "+string(c.Cursor))
				mu.Unlock()
			}
		}()
		do(func(address, cursor string) {
			in <- wrappers.Change{Address: address, Cursor: wrappers.Cursor(cursor), Payload: wrappers.Payload{Raw: []byte("v" + cursor)}}
		}, func() []string {
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			got := heard
			heard = nil
			return got
		})
		end()
		<-done
	})
}

func TestPace(t *testing.T) {
	paceWorld(t, func(say func(address, cursor string), hear func() []string) {
		want := func(want ...string) {
			t.Helper()
			if got := hear(); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		say("p", "1")
		want("p v1 1") // the first at once
		say("p", "2")
		say("q", "3")
		say("p", "4")
		want("q v3 3~1") // who leaves now comes back to before what waits
		time.Sleep(9 * time.Second)
		want()
		time.Sleep(time.Second)
		want("p v4 4") // the newest, when its time has come
		say("p2", "5")
		want("p2 v5 5") // another address has a time of its own
		time.Sleep(10 * time.Second)
		want() // nothing is told twice
		say("p", "6")
		want("p v6 6")
	})
}

// Who takes a stream up again behind a change that came while another waited is told that one, too.
func TestEvery(t *testing.T) {
	const hcl = `
register "oven/{o}" {
  bind "docs" "/oven/{o}" {
    every = "1h"
  }
  bind "docs" "/now/{o}" {}
  bind "talk" "oven/{o}" {}
}
`
	w := newWorld(t, hcl, virtualDocs(), virtualTalk())
	link := w.door("docs")
	start, err := w.store.Cursor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []string{"1", "2", "3"} {
		w.put("oven/1", "value", v)
	}
	got, at := w.addresses(link, 4, wrappers.Cursor(start.String()))
	if want := []string{`/now/1 {"value":1}`, `/oven/1 {"value":1}`, `/now/1 {"value":2}`, `/now/1 {"value":3}`}; !sameSet(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	rest, _ := w.addresses(link, 2, at[3])
	if !slices.Contains(rest, `/oven/1 {"value":2}`) { // told anew from where the first that waited stood
		t.Errorf("taken up again: %q", rest)
	}
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}

// A server is written the first state at once, and then the newest when the time has come.
func TestEveryServer(t *testing.T) {
	const hcl = `
register "oven/{o}" {
  bind "docs" "/oven/{o}" {
    every = "1500ms"
  }
  bind "talk" "oven/{o}" {}
}
`
	w := newWorld(t, hcl, relayDocs(), virtualTalk())
	server := newDocServer(t, w.door("docs"), nil)
	w.put("oven/1", "value", "1")
	w.until("the first is written", func() bool { return server.doc("/oven/1") == `{"value":1}` })
	for _, v := range []string{"2", "3", "4", "5"} {
		w.put("oven/1", "value", v)
	}
	w.until("the newest is written", func() bool { return server.doc("/oven/1") == `{"value":5}` })
	if got := server.written(); len(got) != 2 {
		t.Errorf("written: %q", got)
	}
	if lag := w.Lag(); lag[0].Waiting != 0 {
		w.until("nothing waits", func() bool { return w.Lag()[0].Waiting == 0 })
	}
}
