package hub

import (
	"fmt"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/engine/link"
)

// A pulse says that a member is alive and what it knows: as a step from the vector that stands in the bucket of members.
// It is not stored anywhere.
type pulse struct {
	endpoint engine.EndpointID
	origin   engine.OriginID
	name     string
	root     lattice.Hash
	digest   lattice.Hash // of its vector
	heard    engine.Stamp
	wall     int64        // milliseconds
	base     lattice.Hash // of the vector that stands in the bucket
	step     link.Step
	leaving  bool
}

const maxName = 128

func appendFlag(dst []byte, b bool) []byte {
	if b {
		return lattice.AppendUint(dst, 1)
	}
	return lattice.AppendUint(dst, 0)
}

func (p *pulse) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 12), feature)
	dst = lattice.AppendText(lattice.AppendBytes(lattice.AppendBytes(dst, p.endpoint[:]), p.origin[:]), p.name)
	dst = lattice.AppendBytes(lattice.AppendBytes(dst, p.root[:]), p.digest[:])
	dst = lattice.AppendInt(lattice.AppendUint(dst, uint64(p.heard)), p.wall)
	dst = appendFlag(lattice.AppendBytes(dst, p.base[:]), p.leaving)
	return p.step.AppendTo(dst)
}

func readName(r *lattice.Reader) string {
	name := r.Text()
	if len(name) > maxName {
		r.Fail("a name of %d bytes", len(name))
	}
	return name
}

func parsePulse(raw []byte) (*pulse, error) {
	r := lattice.NewReader(raw)
	r.Array(12)
	if n := r.Uint(); n != feature {
		r.Fail("feature level %d, where this program knows %d", n, feature)
	}
	p := &pulse{}
	r.Fixed(p.endpoint[:])
	r.Fixed(p.origin[:])
	p.name = readName(r)
	r.Fixed(p.root[:])
	r.Fixed(p.digest[:])
	p.heard, p.wall = engine.Stamp(r.Uint()), r.Int()
	r.Fixed(p.base[:])
	p.leaving = r.Uint() == 1
	p.step = link.ReadStep(r)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a heartbeat: %w", err)
	}
	return p, nil
}

// An entry is what stands in the bucket of members under an endpoint.
type entry struct {
	endpoint engine.EndpointID
	name     string
	vector   engine.QStateVector
}

func (e *entry) encode() []byte {
	dst := lattice.AppendUint(lattice.AppendArray(nil, 5), feature)
	dst = lattice.AppendText(lattice.AppendBytes(dst, e.endpoint[:]), e.name)
	step := link.Between(nil, e.vector)
	return step.AppendTo(dst)
}

func parseEntry(raw []byte) (*entry, error) {
	r := lattice.NewReader(raw)
	r.Array(5)
	if n := r.Uint(); n != feature {
		r.Fail("feature level %d, where this program knows %d", n, feature)
	}
	e := &entry{}
	r.Fixed(e.endpoint[:])
	e.name = readName(r)
	step := link.ReadStep(r)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a member's entry: %w", err)
	}
	e.vector = step.From(nil)
	return e, nil
}
