package gateway

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/spooksystems/gateway/wrappers"
)

func TestVirtual(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	ctx, link := t.Context(), w.door("docs")
	r, err := link.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":21.5,"unit":"C"}`))
	if err != nil || !r.Created || r.Cursor == "" {
		t.Fatalf("put: %+v, %v", r, err)
	}
	got, err := link.Do(ctx, doc(wrappers.Read, "/oven/3", ""))
	if err != nil || string(got.Payload.Raw) != `{"unit":"C","value":21.5}` || got.Version != r.Version {
		t.Fatalf("read: %s %+v, %v", got.Payload.Raw, got, err)
	}
	if r, err = link.Do(ctx, doc(wrappers.Merge, "/oven/3", `{"value":22,"unit":null}`)); err != nil || r.Created {
		t.Fatalf("merge: %+v, %v", r, err)
	}
	if got := w.value("oven/3"); got != `{"value":22}` {
		t.Errorf("after the merge: %s", got)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/oven/3", `{"unit":"F"}`)); err != nil {
		t.Fatal(err)
	}
	if got := w.value("oven/3"); got != `{"unit":"F"}` {
		t.Errorf("after the put: %s", got)
	}
	op := doc(wrappers.Put, "/oven/3", `{"unit":"K"}`)
	op.If.Match = []wrappers.Version{versionAt(t, link, "/oven/3")}
	if _, err = link.Do(ctx, op); err != nil {
		t.Errorf("put with the current version: %v", err)
	}
	if _, err = link.Do(ctx, op); !errors.Is(err, wrappers.ErrConflict) {
		t.Errorf("put with an old version: %v", err)
	}
	op.If = wrappers.Precondition{Differ: []wrappers.Version{wrappers.Any}}
	if _, err = link.Do(ctx, op); !errors.Is(err, wrappers.ErrConflict) {
		t.Errorf("create over what is there: %v", err)
	}
	for _, a := range []string{"/oven/4", "/oven/a%2Fb", "/oven/5"} {
		if _, err = link.Do(ctx, doc(wrappers.Put, a, `{"value":1}`)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/oven/", Limit: 3})
	if err != nil || !list.More || fmt.Sprint(addresses(list)) != "[/oven/3 /oven/4 /oven/5]" {
		t.Errorf("list: %v %v, %v", addresses(list), list.More, err)
	}
	list, err = link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/oven/", After: "/oven/5"})
	if err != nil || list.More || fmt.Sprint(addresses(list)) != "[/oven/a%2Fb]" {
		t.Errorf("rest of the list: %v, %v", addresses(list), err)
	}
	list, err = link.Do(ctx, wrappers.Operation{Verb: wrappers.List, Address: "/"})
	if err != nil || fmt.Sprint(addresses(list)) != "[/oven/]" || !list.Items[0].Prefix {
		t.Errorf("top of the list: %v, %v", addresses(list), err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); err != nil {
		t.Fatal(err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Read, "/oven/3", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Errorf("read of what is gone: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); !errors.Is(err, wrappers.ErrNotFound) {
		t.Errorf("delete of what is gone: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/stove/3", "{}")); !errors.Is(err, wrappers.ErrUnmapped) {
		t.Errorf("put without a bind: %v", err)
	}
	if _, err = link.Do(ctx, doc(wrappers.Put, "/oven/9", `{`)); !errors.Is(err, wrappers.ErrInvalid) {
		t.Errorf("put of garbage: %v", err)
	}
	if h := w.history("oven/3"); h[len(h)-1].Cause.Source != "test.hcl:3" || h[0].Cause.Protocol != "docs" || h[0].Cause.Peer != "test" {
		t.Errorf("cause: %+v", h[0].Cause)
	}
}

func versionAt(t *testing.T, link wrappers.Link, address string) wrappers.Version {
	t.Helper()
	r, err := link.Do(t.Context(), doc(wrappers.Read, address, ""))
	if err != nil {
		t.Fatal(err)
	}
	return r.Version
}

func addresses(r wrappers.Result) []string {
	var out []string
	for _, i := range r.Items {
		out = append(out, i.Address)
	}
	return out
}

func TestAnonymous(t *testing.T) {
	info := virtualDocs()
	info.Anonymous = wrappers.ReadAccess
	w := newWorld(t, ovens, info, virtualTalk())
	link := w.door("docs")
	op := doc(wrappers.Put, "/oven/1", "{}")
	if _, err := link.Do(t.Context(), op); !errors.Is(err, wrappers.ErrDenied) {
		t.Errorf("write by nobody: %v", err)
	}
	op.Who.Verified = true
	if _, err := link.Do(t.Context(), op); err != nil {
		t.Errorf("write by somebody: %v", err)
	}
	if got := w.value("oven/1"); got != "{}" {
		t.Errorf("an empty object: %s", got)
	}
}

func TestNotify(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	link, other := w.door("talk"), w.door("docs")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := link.Follow(ctx, wrappers.Notify, "")
	op := doc(wrappers.Message, "oven/3", `{"value":1}`)
	op.Tag = 42
	first, err := link.Do(ctx, op)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := link.Do(ctx, op); err != nil { // the same again is a message all the same
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":2}`)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Put, "/oven/3", `{"value":2}`)); err != nil { // nothing new for others
		t.Fatal(err)
	}
	if _, err := other.Do(ctx, doc(wrappers.Delete, "/oven/3", "")); err != nil {
		t.Fatal(err)
	}
	type told struct {
		payload string
		echo    bool
		tag     uint64
		gone    bool
	}
	read := func(changes func(func(wrappers.Change, error) bool), n int) (out []told) {
		for c, err := range changes {
			if err != nil {
				t.Fatal(err)
			}
			if c.Address != "oven/3" {
				t.Errorf("address %s", c.Address)
			}
			if out = append(out, told{string(c.Payload.Raw), c.Echo, c.Tag, c.Gone}); len(out) == n {
				break
			}
		}
		return out
	}
	want := []told{{`{"value":1}`, true, 42, false}, {`{"value":1}`, true, 42, false}, {`{"value":2}`, false, 0, false}, {"", false, 0, true}}
	if got := read(changes, 4); !slices.Equal(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
	// A subscriber that comes back misses nothing.
	got := read(link.Follow(ctx, wrappers.Notify, first.Cursor), 3)
	if got[1] != want[2] || got[2] != want[3] || got[0].payload != `{"value":1}` {
		t.Errorf("told after coming back %+v", got)
	}
}

func TestCreatedAgain(t *testing.T) {
	w := newWorld(t, ovens, virtualDocs(), virtualTalk())
	link := w.door("docs")
	for i, tt := range []struct {
		verb    wrappers.Verb
		created bool
	}{{wrappers.Put, true}, {wrappers.Put, false}, {wrappers.Delete, false}, {wrappers.Put, true}} {
		r, err := link.Do(t.Context(), doc(tt.verb, "/oven/1", `{"value":1}`))
		if err != nil || r.Created != tt.created {
			t.Errorf("%d: created %v, %v; want %v", i, r.Created, err, tt.created)
		}
	}
}
