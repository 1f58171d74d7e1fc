package hub

import (
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// Bounds of one message.
const (
	batchBytes = 256 << 10              // of candidates in it
	needBytes  = batchBytes + 32<<10    // that the server has to take
	partBytes  = batchBytes             // of one part of a candidate that is longer
	maxLarge   = engine.MaxBulk + 1<<20 // of such a candidate
	maxParts   = maxLarge/partBytes + 1
)

// The headers of a message. It holds candidates of one origin, without gaps, or one part of one.
const (
	headFeature = "Q-Feature" // 1
	headOrigin  = "Q-Origin"  // 32 hexadecimal digits
	headFirst   = "Q-First"   // seq of the first candidate, decimal
	headLast    = "Q-Last"    // seq of the last one
	headChain   = "Q-Head"    // hash of the last one, which stands for all before it
	headPart    = "Q-Part"    // "3/17": the third part of one candidate that is longer than a message
	headFrom    = "Q-From"    // drawn by the sender at each connection
)

const feature = 1

// A batch is what one message holds.
type batch struct {
	origin      engine.OriginID
	first, last uint64
	chain       lattice.Hash
	from        string
	part, parts int      // from 1; 0: no part
	raw         [][]byte // the candidates; of a part: its bytes alone
}

func (b *batch) end() engine.Dot { return engine.Dot{Origin: b.origin, Seq: b.last} }

// message puts a batch into a message.
func (b *batch) message(subject string) *nats.Msg {
	m := nats.NewMsg(subject)
	m.Header.Set(headFeature, strconv.Itoa(feature))
	m.Header.Set(headOrigin, b.origin.String())
	m.Header.Set(headFirst, strconv.FormatUint(b.first, 10))
	m.Header.Set(headLast, strconv.FormatUint(b.last, 10))
	m.Header.Set(headChain, hex.EncodeToString(b.chain[:]))
	m.Header.Set(headFrom, b.from)
	if b.parts > 0 {
		m.Header.Set(headPart, fmt.Sprintf("%d/%d", b.part, b.parts))
		m.Data = b.raw[0]
		return m
	}
	m.Data = lattice.AppendArray(nil, len(b.raw))
	for _, raw := range b.raw {
		m.Data = lattice.AppendBytes(m.Data, raw)
	}
	return m
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{engine.ErrInvalid}, args...)...)
}

// parseHead reads what the headers say. The error is engine.ErrInvalid.
func parseHead(h nats.Header) (*batch, error) {
	number := func(name string) (n uint64, err error) {
		if n, err = strconv.ParseUint(h.Get(name), 10, 64); err != nil || n == 0 {
			return 0, invalid("a message whose %s is %.40q", name, h.Get(name))
		}
		return n, nil
	}
	level, err := number(headFeature)
	if err != nil {
		return nil, err
	}
	if level > feature {
		return nil, invalid("a message of feature level %d, where this program knows %d: it is newer", level, feature)
	}
	b := &batch{from: h.Get(headFrom)}
	if err := fixed(b.origin[:], h.Get(headOrigin)); err != nil {
		return nil, err
	}
	if err := fixed(b.chain[:], h.Get(headChain)); err != nil {
		return nil, err
	}
	if b.first, err = number(headFirst); err != nil {
		return nil, err
	}
	if b.last, err = number(headLast); err != nil {
		return nil, err
	}
	if b.last < b.first || b.last-b.first >= batchBytes {
		return nil, invalid("a message from %d to %d", b.first, b.last)
	}
	if text := h.Get(headPart); text != "" {
		if n, err := fmt.Sscanf(text, "%d/%d", &b.part, &b.parts); n != 2 || err != nil || b.part < 1 || b.part > b.parts || b.parts > maxParts || b.first != b.last {
			return nil, invalid("a message that is part %.40q", text)
		}
	}
	return b, nil
}

func fixed(into []byte, text string) error {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(into) {
		return invalid("%.80q instead of %d bytes in hexadecimal", text, len(into))
	}
	copy(into, raw)
	return nil
}

// parseBody adds the candidates. It shares the memory of data.
func (b *batch) parseBody(data []byte) error {
	if b.parts > 0 {
		if len(data) == 0 || len(data) > partBytes {
			return invalid("a part of %d bytes", len(data))
		}
		b.raw = [][]byte{data}
		return nil
	}
	r := lattice.NewReader(data)
	for range r.Count(1) {
		b.raw = append(b.raw, r.Bytes())
	}
	if err := r.End(); err != nil {
		return fmt.Errorf("a message: %w", err)
	}
	if uint64(len(b.raw)) != b.last-b.first+1 {
		return invalid("a message of %d candidates, from %d to %d", len(b.raw), b.first, b.last)
	}
	return nil
}

// A puzzle puts long candidates together from their parts, which come in order for each origin.
type puzzle struct {
	of   map[engine.OriginID]*pieces
	size int
}

type pieces struct {
	dot   engine.Dot
	parts int
	data  []byte
	have  int
}

// maxPuzzle bounds what is kept of candidates that are not whole.
const maxPuzzle = 4 * maxLarge

// add takes a part, and gives the candidate once it is whole. What does not fit is dropped: it is a gap then.
func (p *puzzle) add(b *batch) (whole []byte) {
	if p.of == nil {
		p.of = map[engine.OriginID]*pieces{}
	}
	have := p.of[b.origin]
	if b.part == 1 {
		p.drop(b.origin)
		have = &pieces{dot: b.end(), parts: b.parts}
		p.of[b.origin] = have
	}
	if have == nil {
		return nil
	}
	if have.dot != b.end() || have.parts != b.parts || have.have+1 != b.part || p.size+len(b.raw[0]) > maxPuzzle {
		p.drop(b.origin)
		return nil
	}
	have.data = append(have.data, b.raw[0]...)
	have.have++
	p.size += len(b.raw[0])
	if have.have < have.parts {
		return nil
	}
	p.drop(b.origin)
	return have.data
}

func (p *puzzle) drop(o engine.OriginID) {
	if have := p.of[o]; have != nil {
		p.size -= len(have.data)
		delete(p.of, o)
	}
}
