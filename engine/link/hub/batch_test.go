package hub

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
)

func TestBatchRoundTrip(t *testing.T) {
	want := batch{origin: engine.OriginID{1, 2}, first: 5, last: 6, from: "me", chain: lattice.Hash{9}, raw: [][]byte{[]byte("a"), []byte("bc")}}
	m := want.message("q.plant.x")
	got, err := parseHead(m.Header)
	if err == nil {
		err = got.parseBody(m.Data)
	}
	if err != nil || got.origin != want.origin || got.first != 5 || got.last != 6 || got.chain != want.chain || got.from != "me" || !bytes.Equal(got.raw[1], want.raw[1]) {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, value := range map[string]string{
		headFeature: "2", headOrigin: "zz", headFirst: "0", headLast: "4", headChain: "00", headPart: "3/2",
	} {
		bad := want.message("q.plant.x")
		bad.Header.Set(name, value)
		if _, err := parseHead(bad.Header); !errors.Is(err, engine.ErrInvalid) {
			t.Errorf("%s = %q: %v", name, value, err)
		}
	}
	if short, err := parseHead(m.Header); err != nil || !errors.Is(short.parseBody(m.Data[:len(m.Data)-1]), engine.ErrInvalid) {
		t.Error("a body cut short is taken")
	}
}

func TestPuzzle(t *testing.T) {
	part := func(origin byte, seq uint64, part, parts int, data string) *batch {
		return &batch{origin: engine.OriginID{origin}, first: seq, last: seq, part: part, parts: parts, raw: [][]byte{[]byte(data)}}
	}
	var p puzzle
	for i, step := range []struct {
		b    *batch
		want string
	}{
		{part(1, 1, 1, 3, "a"), ""}, {part(2, 1, 1, 2, "x"), ""}, {part(1, 1, 2, 3, "b"), ""}, {part(2, 1, 2, 2, "y"), "xy"}, {part(1, 1, 3, 3, "c"), "abc"},
		{part(1, 2, 1, 2, "a"), ""}, {part(1, 2, 1, 2, "d"), ""}, {part(1, 2, 2, 2, "e"), "de"}, // begun anew
		{part(1, 3, 2, 2, "f"), ""},                              // its beginning was trimmed
		{part(1, 4, 1, 3, "g"), ""}, {part(1, 4, 3, 3, "h"), ""}, // its middle is missing
	} {
		if got := string(p.add(step.b)); got != step.want {
			t.Errorf("%d: %q, want %q", i, got, step.want)
		}
	}
	if p.size != 0 || len(p.of) != 0 {
		t.Errorf("%d bytes of %d are kept", p.size, len(p.of))
	}
}

func FuzzBatch(f *testing.F) {
	b := batch{origin: engine.OriginID{1}, first: 1, last: 1, raw: [][]byte{[]byte("a")}}
	m := b.message("q.x.y")
	f.Add("1", m.Header.Get(headOrigin), "1", "1", m.Header.Get(headChain), "", m.Data)
	f.Add("1", m.Header.Get(headOrigin), "1", "1", m.Header.Get(headChain), "1/2", []byte("part"))
	f.Fuzz(func(t *testing.T, feature, origin, first, last, chain, part string, data []byte) {
		h := nats.Header{}
		for name, value := range map[string]string{headFeature: feature, headOrigin: origin, headFirst: first, headLast: last, headChain: chain, headPart: part} {
			h.Set(name, value)
		}
		b, err := parseHead(h)
		if err == nil {
			err = b.parseBody(data)
		}
		if err != nil {
			if !errors.Is(err, engine.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		again := b.message("q.x.y")
		if hex.EncodeToString(again.Data) != hex.EncodeToString(data) && b.parts > 0 {
			t.Fatal("a part changed")
		}
		var p puzzle
		if b.parts > 0 {
			p.add(b)
		}
	})
}

func FuzzPulse(f *testing.F) {
	p := pulse{name: "gw", step: link.Between(nil, engine.QStateVector{{Origin: engine.OriginID{1}, Seq: 3}})}
	f.Add(p.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePulse(raw)
		if err != nil {
			if !errors.Is(err, engine.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if again, err := parsePulse(p.encode()); err != nil || again.name != p.name || again.digest != p.digest {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}

func FuzzEntry(f *testing.F) {
	e := entry{name: "gw", vector: engine.QStateVector{{Origin: engine.OriginID{1}, Seq: 3}}}
	f.Add(e.encode())
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := parseEntry(raw)
		if err != nil {
			if !errors.Is(err, engine.ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if again, err := parseEntry(e.encode()); err != nil || !again.vector.Equal(e.vector) {
			t.Fatalf("%+v, %v", again, err)
		}
	})
}
