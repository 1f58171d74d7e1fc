package link

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// everyFrame is a frame of each kind.
func everyFrame() []*frame {
	o, p := engine.OriginID{1}, engine.OriginID{2}
	h := lattice.Hash{3}
	v := engine.QStateVector{{Origin: o, Seq: 7}, {Origin: p, Seq: 1 << 40}}
	st := step{Set: v, Gone: []engine.OriginID{o}}
	set := index{}
	for i := range 100 {
		set = append(set, item{byte(i), byte(i)})
	}
	return []*frame{
		{kind: kindHello, hello: &hello{Feature: 1, Endpoint: engine.EndpointID{9}, Origin: o, Nonce: nonce{1}, Head: lattice.Head{Seq: 3, Hash: h}, Digest: h, Wall: -5, Window: 1 << 20, Secret: []byte("x")}},
		{kind: kindVector, vector: &vectorFrame{Base: h, Step: st, Digest: h}},
		{kind: kindNews, news: &news{Ack: 3, Flags: flagGap | flagDone, Seen: 1, Heard: 99, Wall: 1, Digest: h, Root: h, Number: 2, Step: st}},
		{kind: kindBatch, batch: &batch{Number: 1, Dots: v, Raw: [][]byte{[]byte("one"), {}}}},
		{kind: kindOffer, offer: &offer{Number: 2, Snapshot: []byte("s"), Top: set.look("")}},
		{kind: kindOffer, offer: &offer{Number: 3, Compare: true, Top: set[:3].look("")}},
		{kind: kindAsk, ask: &ask{Number: 2, At: []prefix{"", "a0", "ff"}}},
		{kind: kindAnswer, answer: &answer{Number: 2, Looks: []look{set.look("0"), set.look("3")}}},
		{kind: kindWant, want: &want{Number: 2, Names: true, All: []prefix{"1"}, Items: set[:2]}},
		{kind: kindRegisters, registers: &registersFrame{Number: 2, Batch: 4, Last: true, Registers: []register{{"a", []byte{1}}, {"b", nil}}}},
		{kind: kindCompare, number: 1},
		{kind: kindChunkAsk, chunks: []lattice.Hash{h}},
		{kind: kindChunk, chunk: &chunkFrame{Hash: h, Found: true, Data: []byte("data")}},
		{kind: kindBye, bye: &bye{Code: byeTwin, Text: "twice", Twin: o}},
		{kind: kindPart, part: []byte("p"), last: true},
		{kind: kindTwin, twin: o},
	}
}

func TestFramesComeThrough(t *testing.T) {
	for _, f := range everyFrame() {
		f.to = nonce{5}
		raw := f.appendTo(nil)
		got, err := parseFrame(raw)
		if err != nil {
			t.Errorf("kind %d: %v", f.kind, err)
			continue
		}
		if again := got.appendTo(nil); !bytes.Equal(again, raw) {
			t.Errorf("kind %d became\n%x, was\n%x", f.kind, again, raw)
		}
		for i := range raw { // whatever is cut off is noticed
			if _, err := parseFrame(raw[:i]); err == nil {
				t.Errorf("kind %d is whole after %d of %d bytes", f.kind, i, len(raw))
			}
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, one := range everyFrame() {
		f.Add(one.appendTo(nil))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		one, err := parseFrame(raw)
		if err != nil {
			return
		}
		again, err := parseFrame(one.appendTo(nil))
		if err != nil {
			t.Fatalf("what was read can't be read again: %v", err)
		}
		if a, b := one.appendTo(nil), again.appendTo(nil); !bytes.Equal(a, b) {
			t.Fatalf("%x became %x", a, b)
		}
	})
}

func invitation() *Invitation {
	return &Invitation{Domain: "plant", Endpoint: engine.EndpointID{1}, Key: [32]byte{2}, Address: "gw-a:8610", Secret: [16]byte{3}, Expires: time.Unix(1_900_000_000, 0).UTC()}
}

func TestInvitationText(t *testing.T) {
	i := invitation()
	text := i.String()
	got, err := ParseInvitation("  " + text + "\n")
	if err != nil || *got != *i {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "x", text[:len(text)-1], text + "A", strings.Replace(text, "A", "B", 1), invitationPrefix} {
		if _, err := ParseInvitation(bad); err == nil {
			t.Errorf("%q is an invitation", bad)
		}
	}
}

func FuzzInvitation(f *testing.F) {
	f.Add(invitation().String())
	f.Fuzz(func(t *testing.T, text string) {
		if i, err := ParseInvitation(text); err == nil {
			if again, err := ParseInvitation(i.String()); err != nil || *again != *i {
				t.Fatalf("%+v, %v", again, err)
			}
		}
	})
}

func FuzzRecords(f *testing.F) {
	r := Record{Endpoint: engine.EndpointID{1}, Name: "b", Address: "x:1", Made: time.UnixMilli(5).UTC()}
	f.Add(r.encode())
	f.Add((&place{cursor: engine.Cursor{Log: 1, Ordinal: 2}}).encode())
	f.Add(newOffer([]byte("s"), "n", time.UnixMilli(1), time.UnixMilli(2)).encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if r, err := parseRecord(raw); err == nil {
			if _, err := parseRecord(r.encode()); err != nil {
				t.Fatal(err)
			}
		}
		if p, err := parsePlace(raw); err == nil {
			if _, err := parsePlace(p.encode()); err != nil {
				t.Fatal(err)
			}
		}
		if o, err := parseOffer(raw); err == nil {
			if _, err := parseOffer(o.encode()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
