package link

import (
	"crypto/sha256"
	"fmt"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// Frames are CBOR arrays: the nonce of the session they are for, what they are, then what they say. A frame that would be
// longer than MaxFrame travels as several of kindPart.

// Bounds of what travels.
const (
	MaxFrame   = 256<<10 + 4<<10            // bytes of one frame on the wire
	batchBytes = 256 << 10                  // of candidates, registers in one frame; one alone may be larger
	maxMessage = engine.MaxBulk + (2 << 20) // bytes of a frame put together from parts
	partBytes  = 256 << 10                  // of each part
	Window     = 4 << 20                    // bytes under way that the receiver has not made durable yet
	maxAsk     = 1024                       // prefixes in one question
	nonceBytes = 8
)

// Feature is the level of the protocol that this program speaks. Two speak the lower of theirs.
const Feature = 1

type kind uint64

const (
	kindHello     kind = 1 + iota // who I am, and what I know in short
	kindVector                    // what I know, against what you last had of it
	kindNews                      // what I have taken, what I know since; also: I am alive
	kindBatch                     // candidates, in my own apply order
	kindOffer                     // my state instead: my log doesn't reach back to what you have
	kindAsk                       // what is below these prefixes?
	kindAnswer                    // that
	kindWant                      // the registers themselves
	kindRegisters                 // those
	kindCompare                   // offer me your state for comparison alone
	kindChunkAsk                  // chunks of large values
	kindChunk                     // one of them
	kindBye                       // why this connection ends
	kindPart                      // a piece of a longer frame
	kindTwin                      // another process runs under your endpoint
)

type nonce [nonceBytes]byte

// A frame in its parts. What isn't of its kind is zero.
type frame struct {
	to   nonce // of the session it is for; zero in the first hello
	kind kind

	hello     *hello
	vector    *vectorFrame
	news      *news
	batch     *batch
	offer     *offer
	ask       *ask
	answer    *answer
	want      *want
	registers *registersFrame
	chunks    []lattice.Hash // chunkAsk
	chunk     *chunkFrame
	bye       *bye
	part      []byte
	twin      engine.OriginID
	last      bool   // part
	number    uint64 // compare
}

// hello: [feature, endpoint, origin, nonce, echo, seq, hash, digest, root, heard, wall, base, window, secret]. What a later
// feature level appends is passed over.
type hello struct {
	Feature  uint64
	Endpoint engine.EndpointID
	Origin   engine.OriginID
	Nonce    nonce
	Echo     nonce        // the nonce this answers; zero in the caller's
	Head     lattice.Head // of the sender's own chain
	Digest   lattice.Hash // of its vector
	Root     lattice.Hash // over its registers
	Heard    engine.Stamp
	Wall     int64        // milliseconds of its clock
	Base     lattice.Hash // digest of the receiver's vector as the sender last had it; zero: it had none
	Window   uint64       // bytes that may be on their way to the sender
	Secret   []byte       // of an invitation
}

// vectorFrame: [base, set, gone, digest].
type vectorFrame struct {
	Base   lattice.Hash // what it is a step from; zero: nothing
	Step   step
	Digest lattice.Hash // of what comes out
}

// news: [ack, flags, seen, heard, wall, digest, root, number, set, gone]. The step is there if number is not zero.
type news struct {
	Ack    uint64 // all batches up to this are durable
	Flags  uint64
	Seen   uint64 // number of the last of the receiver's steps that the sender holds
	Heard  engine.Stamp
	Wall   int64
	Digest lattice.Hash // of the sender's vector
	Root   lattice.Hash
	Number uint64
	Step   step
}

const (
	flagGap    = 1 << iota // what you sent waits for what you did not send: begin anew, with the vector that this frame ends at
	flagDone               // you have all that I had when we met
	flagJoined             // your state is mine: go on from the vector that this frame ends at
	flagBusy               // I am taking somebody else's state: offer yours later
	flagMost   = flagBusy
)

// batch: [number, vector, [raw…]]. The vector is, of each origin, the last candidate in it.
type batch struct {
	Number uint64
	Dots   engine.QStateVector
	Raw    [][]byte
}

// bye: [code, text].
type bye struct {
	Code byeCode
	Text string
	Twin engine.OriginID // of byeTwin: who has the endpoint already
}

type byeCode uint64

const (
	byeDissolved byeCode = 1 + iota // the pair is no more
	byeRefused                      // no such pair, no such invitation
	byeTwin                         // another process runs under your endpoint
	byeBusy                         // not now
	byeProtocol                     // I don't understand you
	byeStopping                     // I am being stopped
)

type chunkFrame struct {
	Hash  lattice.Hash
	Found bool
	Data  []byte
}

func appendHash(dst []byte, h lattice.Hash) []byte {
	if h == (lattice.Hash{}) {
		return lattice.AppendBytes(dst, nil)
	}
	return lattice.AppendBytes(dst, h[:])
}

func readHash(r *lattice.Reader) (h lattice.Hash) {
	b := r.Bytes()
	if len(b) != 0 && len(b) != len(h) {
		r.Fail("a hash of %d bytes", len(b))
	}
	copy(h[:], b)
	return h
}

func appendNonce(dst []byte, n nonce) []byte { return lattice.AppendBytes(dst, n[:]) }

func appendBool(dst []byte, b bool) []byte {
	if b {
		return lattice.AppendUint(dst, 1)
	}
	return lattice.AppendUint(dst, 0)
}

func readBool(r *lattice.Reader) bool {
	n := r.Uint()
	if n > 1 {
		r.Fail("a flag that is %d", n)
	}
	return n == 1
}

// appendTo encodes a frame.
func (f *frame) appendTo(dst []byte) []byte {
	head := func(n int) {
		dst = lattice.AppendArray(dst, n+2)
		dst = lattice.AppendUint(appendNonce(dst, f.to), uint64(f.kind))
	}
	switch f.kind {
	case kindHello:
		h := f.hello
		head(14)
		dst = lattice.AppendBytes(lattice.AppendUint(dst, h.Feature), h.Endpoint[:])
		dst = appendNonce(appendNonce(lattice.AppendBytes(dst, h.Origin[:]), h.Nonce), h.Echo)
		dst = appendHash(lattice.AppendUint(dst, h.Head.Seq), h.Head.Hash)
		dst = appendHash(appendHash(dst, h.Digest), h.Root)
		dst = lattice.AppendInt(lattice.AppendUint(dst, uint64(h.Heard)), h.Wall)
		dst = lattice.AppendUint(appendHash(dst, h.Base), h.Window)
		dst = lattice.AppendBytes(dst, h.Secret)
	case kindVector:
		head(4)
		dst = appendHash(f.vector.Step.appendTo(appendHash(dst, f.vector.Base)), f.vector.Digest)
	case kindNews:
		n := f.news
		head(10)
		dst = lattice.AppendUint(lattice.AppendUint(lattice.AppendUint(dst, n.Ack), n.Flags), n.Seen)
		dst = lattice.AppendInt(lattice.AppendUint(dst, uint64(n.Heard)), n.Wall)
		dst = lattice.AppendUint(appendHash(appendHash(dst, n.Digest), n.Root), n.Number)
		dst = n.Step.appendTo(dst)
	case kindBatch:
		head(3)
		dst = appendDots(lattice.AppendUint(dst, f.batch.Number), f.batch.Dots)
		dst = lattice.AppendArray(dst, len(f.batch.Raw))
		for _, raw := range f.batch.Raw {
			dst = lattice.AppendBytes(dst, raw)
		}
	case kindOffer:
		head(4)
		dst = f.offer.appendTo(dst)
	case kindAsk:
		head(2)
		dst = f.ask.appendTo(dst)
	case kindAnswer:
		head(2)
		dst = f.answer.appendTo(dst)
	case kindWant:
		head(4)
		dst = f.want.appendTo(dst)
	case kindRegisters:
		head(4)
		dst = f.registers.appendTo(dst)
	case kindCompare:
		head(1)
		dst = lattice.AppendUint(dst, f.number)
	case kindChunkAsk:
		head(1)
		dst = lattice.AppendArray(dst, len(f.chunks))
		for _, h := range f.chunks {
			dst = appendHash(dst, h)
		}
	case kindChunk:
		head(3)
		dst = lattice.AppendBytes(appendBool(appendHash(dst, f.chunk.Hash), f.chunk.Found), f.chunk.Data)
	case kindBye:
		head(3)
		dst = lattice.AppendUint(dst, uint64(f.bye.Code))
		dst = lattice.AppendBytes(lattice.AppendText(dst, f.bye.Text), f.bye.Twin[:])
	case kindTwin:
		head(1)
		dst = lattice.AppendBytes(dst, f.twin[:])
	case kindPart:
		head(2)
		dst = lattice.AppendBytes(appendBool(dst, f.last), f.part)
	}
	return dst
}

// parseFrame decodes a frame. It shares the memory of b. The error is engine.ErrInvalid.
func parseFrame(b []byte) (*frame, error) {
	r := lattice.NewReader(b)
	n := r.Count(1)
	f := &frame{}
	r.Fixed(f.to[:])
	f.kind = kind(r.Uint())
	fields := map[kind]int{
		kindVector: 4, kindNews: 10, kindBatch: 3, kindOffer: 4, kindAsk: 2, kindAnswer: 2, kindWant: 4, kindRegisters: 4,
		kindCompare: 1, kindChunkAsk: 1, kindChunk: 3, kindBye: 3, kindPart: 2, kindTwin: 1,
	}
	switch want, known := fields[f.kind]; {
	case f.kind == kindHello:
		if n < 16 {
			r.Fail("a hello of %d parts", n)
		}
	case !known:
		r.Fail("a frame of kind %d", f.kind)
	case n != want+2:
		r.Fail("a frame of kind %d with %d parts", f.kind, n)
	}
	switch f.kind {
	case kindHello:
		f.hello = readHello(r, n-16)
	case kindVector:
		f.vector = &vectorFrame{Base: readHash(r), Step: readStep(r), Digest: readHash(r)}
	case kindNews:
		f.news = &news{
			Ack: r.Uint(), Flags: r.Uint(), Seen: r.Uint(), Heard: engine.Stamp(r.Uint()), Wall: r.Int(),
			Digest: readHash(r), Root: readHash(r), Number: r.Uint(), Step: readStep(r),
		}
		if f.news.Flags >= flagMost<<1 {
			r.Fail("flags %d", f.news.Flags)
		}
	case kindBatch:
		f.batch = &batch{Number: r.Uint(), Dots: readDots(r)}
		for range r.Count(1) {
			f.batch.Raw = append(f.batch.Raw, r.Bytes())
		}
	case kindOffer:
		f.offer = readOffer(r)
	case kindAsk:
		f.ask = readAsk(r)
	case kindAnswer:
		f.answer = readAnswer(r)
	case kindWant:
		f.want = readWant(r)
	case kindRegisters:
		f.registers = readRegisters(r)
	case kindCompare:
		f.number = r.Uint()
	case kindChunkAsk:
		for range r.Count(1) {
			f.chunks = append(f.chunks, readHash(r))
		}
	case kindChunk:
		f.chunk = &chunkFrame{Hash: readHash(r), Found: readBool(r), Data: r.Bytes()}
	case kindBye:
		f.bye = &bye{Code: byeCode(r.Uint()), Text: r.Text()}
		r.Fixed(f.bye.Twin[:])
	case kindTwin:
		r.Fixed(f.twin[:])
	case kindPart:
		f.last, f.part = readBool(r), r.Bytes()
	}
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("a frame: %w", err)
	}
	return f, nil
}

func readHello(r *lattice.Reader, more int) *hello {
	h := &hello{Feature: r.Uint()}
	r.Fixed(h.Endpoint[:])
	r.Fixed(h.Origin[:])
	r.Fixed(h.Nonce[:])
	r.Fixed(h.Echo[:])
	h.Head = lattice.Head{Seq: r.Uint(), Hash: readHash(r)}
	h.Digest, h.Root = readHash(r), readHash(r)
	h.Heard, h.Wall = engine.Stamp(r.Uint()), r.Int()
	h.Base, h.Window, h.Secret = readHash(r), r.Uint(), r.Bytes()
	for range more {
		_ = r.Value()
	}
	return h
}

// A step leads from one vector to another.
type step struct {
	Set  engine.QStateVector // what has risen or come
	Gone []engine.OriginID   // what was retired
}

func (s *step) empty() bool { return len(s.Set) == 0 && len(s.Gone) == 0 }

// between is the step from one vector to another.
func between(from, to engine.QStateVector) (s step) {
	for _, d := range to {
		if from.Seq(d.Origin) != d.Seq {
			s.Set = append(s.Set, d)
		}
	}
	for _, d := range from {
		if to.Seq(d.Origin) == 0 {
			s.Gone = append(s.Gone, d.Origin)
		}
	}
	return s
}

// from takes the step.
func (s *step) from(v engine.QStateVector) engine.QStateVector {
	out := make(engine.QStateVector, 0, len(v)+len(s.Set))
	gone := map[engine.OriginID]bool{}
	for _, o := range s.Gone {
		gone[o] = true
	}
	for _, d := range v {
		if !gone[d.Origin] && s.Set.Seq(d.Origin) == 0 {
			out = append(out, d)
		}
	}
	return engine.QStateVector(out).Join(s.Set)
}

func (s *step) appendTo(dst []byte) []byte {
	dst = appendDots(dst, s.Set)
	dst = lattice.AppendArray(dst, len(s.Gone))
	for _, o := range s.Gone {
		dst = lattice.AppendBytes(dst, o[:])
	}
	return dst
}

func readStep(r *lattice.Reader) (s step) {
	s.Set = readDots(r)
	for range r.Count(1 + len(engine.OriginID{})) {
		var o engine.OriginID
		r.Fixed(o[:])
		s.Gone = append(s.Gone, o)
	}
	return s
}

func appendDots(dst []byte, v engine.QStateVector) []byte {
	dst = lattice.AppendArray(dst, 2*len(v))
	for _, d := range v {
		dst = lattice.AppendUint(lattice.AppendBytes(dst, d.Origin[:]), d.Seq)
	}
	return dst
}

// readDots reads a vector, which has its order.
func readDots(r *lattice.Reader) (v engine.QStateVector) {
	n := r.Count(1)
	if n%2 != 0 {
		r.Fail("a vector of %d parts", n)
	}
	for range n / 2 {
		var d engine.Dot
		r.Fixed(d.Origin[:])
		d.Seq = r.Uint()
		if k := len(v); k > 0 && v[k-1].Origin.Compare(d.Origin) >= 0 || d.Seq == 0 {
			r.Fail("a vector out of order")
			return nil
		}
		v = append(v, d)
	}
	return v
}

// digest names a vector.
func digest(v engine.QStateVector) lattice.Hash {
	h := sha256.New()
	var room [40]byte
	for _, d := range v {
		_, _ = h.Write(lattice.AppendUint(append(room[:0], d.Origin[:]...), d.Seq))
	}
	return lattice.Hash(h.Sum(nil))
}
