package wrappertest

import (
	"context"
	"errors"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

func put(address, body string) wrappers.Operation {
	return wrappers.Operation{Verb: wrappers.Put, Address: address, Payload: wrappers.Payload{Raw: []byte(body)}}
}

func TestLinkVersionsAndPreconditions(t *testing.T) {
	l := NewLink("/v1/{site}/{name}")
	res, err := l.Do(t.Context(), put("/v1/a/b", `{"x":1}`))
	if err != nil || !res.Created || res.Version == "" {
		t.Fatalf("first put: %+v, %v; want created with a version", res, err)
	}
	op := put("/v1/a/b", `{"x":2}`)
	op.If.Match = []wrappers.Version{"other"}
	if _, err := l.Do(t.Context(), op); !errors.Is(err, wrappers.ErrConflict) {
		t.Errorf("stale version: got %v, want a conflict", err)
	}
	op.If.Match = []wrappers.Version{res.Version}
	if _, err := l.Do(t.Context(), op); err != nil {
		t.Errorf("current version: %v", err)
	}
	if _, err := l.Do(t.Context(), put("/v1/a", "")); !errors.Is(err, wrappers.ErrUnmapped) {
		t.Errorf("a short address: got %v, want unmapped", err)
	}
	m := wrappers.Operation{Verb: wrappers.Merge, Address: "/v1/a/b", Payload: wrappers.Payload{Raw: []byte(`{"x":null,"y":3}`)}}
	if _, err := l.Do(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if got, _ := l.Register("", "/v1/a/b"); string(got) != `{"y":3}` {
		t.Errorf("after the merge: got %s, want {\"y\":3}", got)
	}
	list, err := l.Do(t.Context(), wrappers.Operation{Verb: wrappers.List, Address: "/v1/"})
	if err != nil || len(list.Items) != 1 || list.Items[0].Address != "/v1/a/" || !list.Items[0].Prefix {
		t.Errorf("list: got %+v, %v; want the prefix /v1/a/", list.Items, err)
	}
}

func TestLinkOwnsAddresses(t *testing.T) {
	l := NewLink("/v1/{name}")
	first, err := l.Begin(t.Context(), put("/v1/a", "1"))
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan wrappers.Intent)
	go func() {
		i, err := l.Begin(context.Background(), put("/v1/a", "2"))
		if err != nil {
			t.Error(err)
		}
		second <- i
	}()
	select {
	case <-second:
		t.Fatal("two intents own one address")
	default:
	}
	if _, err := first.Commit(t.Context(), put("/v1/a", "1")); err != nil {
		t.Fatal(err)
	}
	(<-second).Abort()
	if c := l.Candidates(); len(c) != 1 || string(c[0].Payload) != "1" {
		t.Errorf("candidates: got %+v, want one", c)
	}
}

func TestLinkSeenKnowsEcho(t *testing.T) {
	l := NewLink("/v1/{name}")
	see := func(body string, at wrappers.Position) {
		t.Helper()
		err := l.Seen(t.Context(), at, []wrappers.Observation{{Address: "/v1/a", Verb: wrappers.Put, Payload: wrappers.Payload{Raw: []byte(body)}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	see(`{"x":1}`, wrappers.Position{})
	see(`{ "x": 1 }`, wrappers.Position{})
	if n := len(l.Candidates()); n != 1 {
		t.Errorf("the same document twice: got %d candidates, want 1", n)
	}
	err := l.Seen(t.Context(), wrappers.Position{}, []wrappers.Observation{{Address: "/v1/a", Verb: wrappers.Delete}})
	if err != nil {
		t.Fatal(err)
	}
	if _, there := l.Register("", "/v1/a"); there {
		t.Error("it is gone at the server and still there")
	}
}

func TestLinkWriteBackSettles(t *testing.T) {
	l := NewLink("/v1/{name}")
	l.PushPut("/v1/a", "1")
	l.PushPut("/v1/a", "2")
	var got []string
	for c, err := range l.Follow(t.Context(), wrappers.WriteBack, "") {
		if err != nil {
			break
		}
		got = append(got, string(c.Payload.Raw))
		switch len(got) {
		case 1:
			_ = l.Settle(t.Context(), c, wrappers.Effect{Outcome: wrappers.Retry, Err: errors.New("busy")})
		case 2:
			if err := l.Settle(t.Context(), c, wrappers.Effect{Outcome: wrappers.Done}); err != nil {
				t.Fatal(err)
			}
			l.PushPut("/v1/a", "3")
		case 3:
			l.Stop()
		}
	}
	if len(got) != 3 || got[0] != "2" || got[1] != "2" || got[2] != "3" {
		t.Errorf("written back: got %q, want 2, 2 again, 3", got)
	}
}

func TestLinkNotifyResumes(t *testing.T) {
	l := NewLink("/v1/{name}")
	l.PushPut("/v1/a", "1")
	live := l.Follow(t.Context(), wrappers.Notify, "")
	l.PushPut("/v1/a", "2")
	var at wrappers.Cursor
	for c, err := range live {
		if err != nil || string(c.Payload.Raw) != "2" {
			t.Fatalf("live: got %s, %v; want 2", c.Payload.Raw, err)
		}
		at = c.Cursor
		break
	}
	l.PushPut("/v1/a", "3")
	for c, err := range l.Follow(t.Context(), wrappers.Notify, at) {
		if err != nil || string(c.Payload.Raw) != "3" || c.Snapshot {
			t.Fatalf("resumed: got %+v, %v; want 3", c, err)
		}
		break
	}
	l.Trim()
	for c, err := range l.Follow(t.Context(), wrappers.Notify, at) {
		if err != nil || !c.Snapshot || string(c.Payload.Raw) != "3" {
			t.Fatalf("behind the log: got %+v, %v; want a snapshot", c, err)
		}
		break
	}
}
