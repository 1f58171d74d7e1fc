package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/spooksystems/gateway/daemonclient"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

const oneLine = `wrapper "line" "a" {
  listen    = "127.0.0.1:0"
  anonymous = "write"
}
`

// recordInto subscribes, and gives what comes. It returns when the gateway records.
func recordInto(t *testing.T, s *stage, params map[string]any) <-chan RecordForm {
	t.Helper()
	client, err := daemonclient.Dial(t.Context(), s.g.SocketPath())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(func() { cancel(); client.Close() })
	out := make(chan RecordForm, 100)
	go func() {
		defer close(out)
		for raw, err := range client.Subscribe(ctx, "record", "record", params) {
			var m RecordForm
			if err != nil || json.Unmarshal(raw, &m) != nil {
				return
			}
			out <- m
		}
	}()
	m, ok := <-out
	if !ok || m.Header == nil || m.Header.Format != recording.Format || m.Header.Server != "spookgw test" {
		t.Fatalf("the first message is %+v", m)
	}
	return out
}

func TestRecordOverSocket(t *testing.T) {
	s := newStage(t, oneLine, nil)
	got := recordInto(t, s, map[string]any{"wrapper": "a"})
	p := s.dial("a")
	p.ask(`put s/berlin/oven {"value":21.5}`, "ok")
	p.ask(`put s/berlin/oven {"value":"hot","password":"hunter2"}`, `error value: "hot" is a string, not a number`)
	p.ask(`put x/y {"token":"abc"}`, "error no bind maps this address")
	p.ask(`get s/berlin/oven`, `{"value":21.5}`)
	for _, want := range []recording.Operation{
		{Kind: recording.Write, Verb: "put", Address: "s/berlin/oven", Text: text0(`{"value":21.5}`), Size: 14, Registers: []string{"site/berlin/oven"}},
		{Kind: recording.Write, Verb: "put", Address: "s/berlin/oven", Text: text0(`{"value":"hot","password":"***"}`), Size: 36, Masked: true, Outcome: "value"},
		{Kind: recording.Write, Verb: "put", Address: "x/y", Text: text0(`{"token":"***"}`), Size: 15, Masked: true, Outcome: "bind"},
		{Kind: recording.Read, Verb: "read", Address: "s/berlin/oven"},
	} {
		o := (<-got).Operation
		if o == nil {
			t.Fatalf("nothing came, want %+v", want)
		}
		if o.Protocol != "line" || o.Wrapper != "a" || o.Time.IsZero() || o.Kind != want.Kind || o.Verb != want.Verb || o.Address != want.Address ||
			fmt.Sprint(o.Registers) != fmt.Sprint(want.Registers) || o.Masked != want.Masked || o.Size != want.Size ||
			(o.Text == nil) != (want.Text == nil) || o.Text != nil && *o.Text != *want.Text ||
			(o.Outcome == "") != (want.Outcome == "") || !strings.Contains(o.Outcome, want.Outcome) {
			t.Errorf("got  %+v\nwant %+v", o, want)
		}
	}
}

func text0(s string) *string { return &s }

// A payload that is longer than a message comes in pieces.
func TestRecordInPieces(t *testing.T) {
	s := newStage(t, oneLine, nil)
	got := recordInto(t, s, nil)
	long := strings.Repeat("\x01ä", 600_000)
	l := s.g.domains.first().links.Open(LinkInfo{Protocol: fakeProtocol(nil), Name: "a"})
	l.Tap(wrappers.Operation{Verb: wrappers.Message, Address: "x", Payload: wrappers.Payload{Raw: []byte(long)}}, "passed")
	var text strings.Builder
	pieces := 0
	for m := range got {
		text.WriteString(m.Piece)
		if pieces++; !m.More {
			break
		}
	}
	var o recording.Operation
	if err := json.Unmarshal([]byte(text.String()), &o); err != nil {
		t.Fatal(err)
	}
	if pieces < 2 || string(o.Payload()) != long || o.Kind != recording.Passed {
		t.Errorf("got %d pieces, %d bytes, kind %s", pieces, len(o.Payload()), o.Kind)
	}
}

// A recorder that does not keep up loses operations, is told how many, and costs bounded memory.
func TestSlowRecorder(t *testing.T) {
	var h recorderHub
	r, stop, err := h.record()
	if err != nil {
		t.Fatal(err)
	}
	l := &link{Links: &Links{recorders: &h}}
	payload := make([]byte, 1<<20)
	for range 100 {
		l.took(l.take(recording.Write, &wrappers.Operation{Verb: wrappers.Put, Payload: wrappers.Payload{Raw: payload}}), "", "", nil)
	}
	if kept, lost := len(r.queue), r.lost.Load(); kept < 10 || kept > 32 || uint64(kept)+lost != 100 {
		t.Errorf("by bytes: kept %d, lost %d", kept, lost)
	}
	if r.waiting.Load() > recorderBytes {
		t.Errorf("%d bytes wait", r.waiting.Load())
	}
	stop()
	if l.Recording() || l.take(recording.Write, &wrappers.Operation{}) != nil {
		t.Error("it goes on after the end")
	}
	r, stop, _ = h.record()
	defer stop()
	for range recorderQueue + 5 {
		l.took(l.take(recording.Write, &wrappers.Operation{Verb: wrappers.Put}), "", "", nil)
	}
	if kept, lost := len(r.queue), r.lost.Load(); kept != recorderQueue || lost != 5 {
		t.Errorf("by number: kept %d, lost %d", kept, lost)
	}
}

func TestRecordersAreFew(t *testing.T) {
	var h recorderHub
	for range maxRecorders {
		_, stop, err := h.record()
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	if _, _, err := h.record(); err == nil {
		t.Errorf("more than %d recorders", maxRecorders)
	}
}

// Nobody records: no operation is copied.
func TestNobodyRecords(t *testing.T) {
	l := &link{Links: &Links{recorders: &recorderHub{}}}
	op := &wrappers.Operation{Verb: wrappers.Put, Address: "a"}
	if n := testing.AllocsPerRun(100, func() { l.took(l.take(recording.Write, op), "", "", nil) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}
