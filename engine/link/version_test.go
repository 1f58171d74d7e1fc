package link

import (
	"errors"
	"fmt"
	"testing"

	"github.com/spooksystems/gateway/engine/lattice"
)

// ofLevel is a hello as a program of another feature level says it. What a later one appends is a text and an array.
func ofLevel(t *testing.T, raw []byte, level uint64, more bool) []byte {
	t.Helper()
	f, err := parseFrame(raw)
	if err != nil || f.kind != kindHello {
		t.Fatalf("a frame of kind %d, %v", f.kind, err)
	}
	f.hello.Feature = level
	raw = f.appendTo(nil)
	if !more {
		return raw
	}
	const parts = 16
	if raw[0] != 0x80|parts { // RFC 8949, section 3: an array of so many
		t.Fatalf("a hello begins with %#x", raw[0])
	}
	raw[0] += 2
	return lattice.AppendArray(lattice.AppendText(raw, "later"), 0)
}

// TestFeatureLevels: two programs of different levels understand each other, whichever of them calls; one that has none is told so.
func TestFeatureLevels(t *testing.T) {
	for later := range 2 {
		t.Run(fmt.Sprintf("end %d is later", later), func(t *testing.T) {
			now := start()
			nodes := []*node{newNode(t, now, 1, nil), newNode(t, now, 2, nil)}
			pairUp(t, nodes...)
			for i, n := range nodes {
				for k := range 20 {
					n.put(fmt.Sprintf("of%d/%d", i, k), int64(k))
				}
			}
			w := meet(nodes[0], nodes[1])
			defer w.close()
			// The hellos by hand: the caller's, then the answer.
			for i := range 2 {
				raw, err := w.ends[i].Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if i == later {
					raw = ofLevel(t, raw, Feature+1, true)
				}
				if err := w.ends[1-i].Handle(t.Context(), raw); err != nil {
					t.Fatal(err)
				}
			}
			w.mustRun()
			wantEqual(t, nodes...)
		})
	}
	t.Run("none", func(t *testing.T) {
		now := start()
		a, b := newNode(t, now, 1, nil), newNode(t, now, 2, nil)
		w := meet(a, b)
		defer w.close()
		raw, err := w.ends[0].Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		err = w.ends[1].Handle(t.Context(), ofLevel(t, raw, 0, false))
		var r *refusal
		if !errors.As(err, &r) || r.code != byeProtocol {
			t.Fatalf("got %v", err)
		}
		raw = w.ends[1].farewell()
		if raw == nil {
			t.Fatal("it is not told why")
		}
		if f, err := parseFrame(raw); err != nil || f.kind != kindBye || f.bye.Code != byeProtocol {
			t.Errorf("it is told %+v, %v", f, err)
		}
	})
}

// BenchmarkReconnect: bytes of all frames of a connection between two that know the same, without what TLS and WebSocket add.
func BenchmarkReconnect(b *testing.B) {
	now := start()
	x, y := newNode(b, now, 1, nil), newNode(b, now, 2, nil)
	pairUp(b, x, y)
	for k := range 1000 {
		x.put(fmt.Sprint("x/", k), int64(k))
	}
	w := meet(x, y)
	w.mustRun()
	w.close()
	for b.Loop() {
		w := meet(x, y)
		if err := w.run(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(w.bytes[0]+w.bytes[1]), "wire-B")
		w.close()
	}
}
