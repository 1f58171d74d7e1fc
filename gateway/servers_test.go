package gateway

import (
	"context"
	"sync"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

const kilns = `
register "kiln/{server}/{o}" {
  fields = { temp = number }
  bind "docs" "/state/{o}" {}
}
register "recipe/{r}/{p}" {
  fields = { value = number }
  bind "docs" "/recipe/{r}" {
    each = payload
    key  = { p = row.p }
  }
}
`

// Several servers behind one attached wrapper: {server} tells their registers apart, and what bears no {server} is at all
// of them, rows of documents, too.
func TestTwoServers(t *testing.T) {
	w := newWorldOf(t, kilns, map[string][]string{"docs": {"a", "b"}}, LinkInfo{Protocol: docs, Name: "docs", Attached: true})
	link := w.door("docs")
	ctx, stop := context.WithCancel(t.Context())
	var mu sync.Mutex
	have := map[string]string{}
	at := func(server, address string) string {
		mu.Lock()
		defer mu.Unlock()
		return have[server+address]
	}
	see := func(server, address, body string) {
		t.Helper()
		mu.Lock()
		have[server+address] = body
		mu.Unlock()
		err := link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{{Server: server, Address: address, Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(body)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for c, err := range link.Follow(ctx, wrappers.WriteBack, "") {
			if err != nil {
				return
			}
			mu.Lock()
			body, there := have[c.Server+c.Address]
			mu.Unlock()
			doc := wrappers.Payload{Raw: []byte(body)}
			switch {
			case c.ReadBack:
				o := wrappers.Observation{Server: c.Server, Address: c.Address, Verb: wrappers.Put, Payload: doc}
				if !there {
					o.Verb = wrappers.Delete
				}
				if err := link.Seen(ctx, wrappers.Position{}, []wrappers.Observation{o}); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			case there && c.Onto != nil:
				if c.Payload, err = c.Onto(doc); err != nil {
					t.Error(err)
				}
				fallthrough
			default:
				mu.Lock()
				have[c.Server+c.Address] = string(c.Payload.Raw)
				mu.Unlock()
			}
			if err := link.Settle(ctx, c, wrappers.Effect{Outcome: wrappers.Done}); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	}()
	defer func() { stop(); <-done }()

	see("a", "/state/1", `{"temp":5}`)
	see("b", "/state/1", `{"temp":6}`)
	if w.value("kiln/a/1") != `{"temp":5}` || w.value("kiln/b/1") != `{"temp":6}` {
		t.Fatal(w.value("kiln/a/1"), w.value("kiln/b/1"))
	}
	w.until("what was read is settled", func() bool { return w.Lag()[0].Waiting == 0 })
	w.put("kiln/b/1", "temp", "60")
	w.until("the one server has it", func() bool { return at("b", "/state/1") == `{"temp":60}` })
	if at("a", "/state/1") != `{"temp":5}` {
		t.Error(at("a", "/state/1"))
	}
	w.put("kiln/c/1", "temp", "7") // there is no such server
	see("a", "/recipe/x", `[{"p":"t","value":1},{"p":"u","value":2}]`)
	w.until("the other server has the document", func() bool { return at("b", "/recipe/x") == `[{"p":"t","value":1},{"p":"u","value":2}]` })
	settled := func() bool { lag := w.Lag(); return lag[0].Waiting == 0 && lag[0].Behind == 0 }
	w.until("what was written is settled", settled) // a poll that a write overtakes says nothing
	see("b", "/recipe/x", `[{"p":"u","value":2},{"p":"t","value":9}]`)
	w.until("its row is at the first", func() bool { return at("a", "/recipe/x") == `[{"p":"t","value":9},{"p":"u","value":2}]` })
	w.until("all is settled", settled)
	if items, err := w.Parked(ctx); err != nil || len(items) != 0 {
		t.Errorf("%+v %v", items, err)
	}
}
