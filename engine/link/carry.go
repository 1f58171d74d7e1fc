package link

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"slices"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// What other ways of meeting need of a node: a session over a transport that is not this package's, and the members that
// are heard by other ways than pairs.

// Carry begins a session whose frames the caller of Carry carries: it gives those that arrive to Handle, in order and
// none left out, sends what Next gives until that is nil, calls Tick every second, and Close at the end. admit says whether
// the peer may be talked to; peer is whom a caller calls. changed is told when Next may have something.
func (s *Site) Carry(ctx context.Context, caller bool, peer engine.EndpointID, admit func(engine.EndpointID, engine.OriginID) error, changed func()) (*Session, error) {
	o := sessionOptions{
		engine: s.e, caller: caller, peer: peer, now: s.o.Now, random: rand.Reader, joins: &s.joins, changed: changed,
		admit: func(_ context.Context, h *hello) (*Record, error) {
			if err := admit(h.Endpoint, h.Origin); err != nil {
				return nil, &refusal{code: byeBusy, text: err.Error()}
			}
			return &Record{Endpoint: h.Endpoint}, nil
		},
	}
	return newSession(ctx, o)
}

// Leave puts the session's last word into the queue: this side has what it wanted. Next gives it, and then nothing.
func (s *Session) Leave() { s.bye(&refusal{code: byeStopping, text: "done"}) }

// Figures are what the session has done so far.
func (s *Session) Figures() Figures { return s.figures() }

// Add adds what another session has done.
func (f *Figures) Add(o Figures) { f.add(o) }

// Waiting counts the chunks that the session has asked for and that are under way.
func (s *Session) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.large.open)
}

// SetOthers says which members of the domain are heard by other ways than pairs: what is to be known by everybody waits
// for them, too.
func (s *Site) SetOthers(ctx context.Context, list ...engine.EndpointID) error {
	s.mu.Lock()
	s.others = slices.Clone(list)
	s.mu.Unlock()
	return s.members(ctx)
}

// Digest names a vector.
func Digest(v engine.QStateVector) lattice.Hash { return digest(v) }

// A Step leads from one vector to another.
type Step = step

// Between is the step from one vector to another.
func Between(from, to engine.QStateVector) Step { return between(from, to) }

// From takes the step.
func (s *step) From(v engine.QStateVector) engine.QStateVector { return s.from(v) }

// AppendTo encodes the step, ReadStep reads it.
func (s *step) AppendTo(dst []byte) []byte { return s.appendTo(dst) }

// ReadStep reads what AppendTo wrote.
func ReadStep(r *lattice.Reader) Step { return readStep(r) }

// Lacks counts what a vector lacks of another.
func Lacks(has, of engine.QStateVector) uint64 { return lacks(has, of) }

// HashOf is a candidate's part in the chain of its origin.
func HashOf(raw []byte) lattice.Hash { return sha256.Sum256(raw) }
