package hub

import (
	"context"
	"errors"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// places are what is kept of the hub from one connection to the next. Nothing rests on them but how much is sent, or
// looked at, again.
type places struct {
	created int64  // of the stream, nanoseconds: another one is another stream
	read    uint64 // what is before it in the stream was taken
	// told are the last candidates of this node's runs on the hub, in the order in which they were told, and the place in the
	// own log behind the last.
	told  []engine.Dot
	at    engine.Cursor
	dirty bool
}

const (
	placeTable   = "hubplace"
	placeKey     = "self"
	placeVersion = 1
	// toldMost bounds the runs that are remembered: those before were told long ago.
	toldMost = 64
)

func (p *places) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 6), placeVersion)
	dst = lattice.AppendUint(lattice.AppendInt(dst, p.created), p.read)
	dst = lattice.AppendUint(lattice.AppendUint(dst, p.at.Log), p.at.Ordinal)
	dst = lattice.AppendArray(dst, 2*len(p.told))
	for _, d := range p.told {
		dst = lattice.AppendUint(lattice.AppendBytes(dst, d.Origin[:]), d.Seq)
	}
	return dst
}

func parsePlaces(raw []byte) (p places, err error) {
	r := lattice.NewReader(raw)
	r.Array(6)
	if v := r.Uint(); v != placeVersion {
		r.Fail("a place of version %d", v)
	}
	p.created, p.read = r.Int(), r.Uint()
	p.at = engine.Cursor{Log: r.Uint(), Ordinal: r.Uint()}
	for range r.Count(1) / 2 {
		var d engine.Dot
		r.Fixed(d.Origin[:])
		d.Seq = r.Uint()
		p.told = append(p.told, d)
	}
	return p, r.End()
}

func loadPlaces(e *engine.Engine) (places, error) {
	raw, err := e.Kept(placeTable, placeKey)
	if err != nil || raw == nil {
		return places{}, err
	}
	p, err := parsePlaces(raw)
	if err != nil {
		return places{}, nil // of a newer program: begin anew
	}
	return p, nil
}

// keepPlaces stores them if they have changed. The caller holds h.mu.
func (h *Hub) keepPlaces(ctx context.Context) error {
	if !h.places.dirty {
		return nil
	}
	h.places.dirty = false
	err := h.e.KeepRecords(ctx, false, engine.Record{Table: placeTable, Key: placeKey, Value: h.places.encode()})
	if errors.Is(err, engine.ErrFull) {
		return nil
	}
	return err
}

// tell notes a candidate of this node that the hub has. The caller holds h.mu.
func (p *places) tell(d engine.Dot, at engine.Cursor) {
	p.dirty = true
	if at != (engine.Cursor{}) {
		p.at = at
	}
	if n := len(p.told); n > 0 && p.told[n-1].Origin == d.Origin {
		p.told[n-1].Seq = max(p.told[n-1].Seq, d.Seq)
		return
	}
	p.told = append(p.told, d)
	if len(p.told) > toldMost {
		p.told = slices.Clone(p.told[len(p.told)-toldMost:])
	}
}

// rewind is for a hub whose last message of this node is end, which may be another than was told last: the hub has lost its
// end, or the answer to what was told was lost. It says whether the place in the log still holds. The caller holds h.mu.
func (p *places) rewind(end engine.Dot) bool {
	if n := len(p.told); n > 0 && p.told[n-1] == end {
		return true
	}
	i := slices.IndexFunc(p.told, func(d engine.Dot) bool { return d.Origin == end.Origin })
	switch {
	case end.IsZero():
		p.told = nil
	case i < 0:
		p.told = append(p.told, end)
	default:
		p.told = slices.Clone(p.told[:i+1])
		p.told[i] = end
	}
	p.at, p.dirty = engine.Cursor{}, true
	return false
}
