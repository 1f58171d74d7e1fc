package link

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
)

// A Status is one pair in figures.
type Status struct {
	Name     string
	Endpoint engine.EndpointID
	State    State
	Since    time.Time // of the state
	Made     time.Time
	Address  string // where it is called; "": it calls
	Remote   string // where it is connected from or to; "": not connected
	// LacksThere and LacksHere count the candidates that the peer lacks, and this node: as far as the peer has told.
	LacksThere, LacksHere uint64
	Unacknowledged        uint64 // bytes that are on their way to it
	Figures               Figures
	Sessions              uint64       // connections since the start
	Root                  lattice.Hash // over its registers, as it last said; zero: nothing heard since the start
	Level                 bool         // it knows what this node knows
	Heard                 time.Time    // when it last said anything; zero: not connected
	Skew                  time.Duration
	Failure               string // why the last connection ended or could not be made
	Failed                time.Time
}

// Status lists the pairs, by name.
func (s *Site) Status(ctx context.Context) ([]Status, error) {
	own, err := s.e.Summary(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	var list []Status
	sessions := map[int]*Session{}
	for _, p := range s.pairs {
		r := p.record
		st := Status{
			Name: r.Name, Endpoint: r.Endpoint, State: p.state, Since: p.since, Made: r.Made, Address: r.Address, Remote: p.remote,
			Figures: p.figures, Sessions: p.begun, Failure: p.failure, Failed: p.failed,
		}
		if p.session != nil {
			sessions[len(list)] = p.session
		}
		list = append(list, st)
	}
	s.mu.Unlock()
	for i := range list {
		var theirs engine.QStateVector
		if session := sessions[i]; session != nil {
			theirs = session.fill(&list[i])
		} else if list[i].State != DissolvedPair {
			p, err := loadPlace(s.e, list[i].Endpoint)
			if err != nil {
				return nil, err
			}
			theirs = p.theirs
		}
		if list[i].State != DissolvedPair {
			list[i].LacksThere = lacks(theirs, own.Vector)
			if list[i].LacksHere, err = s.e.Lacking(theirs); err != nil {
				return nil, err
			}
			list[i].Level = theirs.Equal(own.Vector)
		}
	}
	slices.SortFunc(list, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(keyOf(a.Endpoint), keyOf(b.Endpoint)))
	})
	return list, nil
}

// lacks counts what a vector lacks of another. An origin that the peer has retired and this node has not yet counts.
func lacks(has, of engine.QStateVector) (n uint64) {
	for _, d := range of {
		if seq := has.Seq(d.Origin); seq < d.Seq {
			n += d.Seq - seq
		}
	}
	return n
}

// fill says what a session knows of its pair.
func (s *Session) fill(st *Status) (theirs engine.QStateVector) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.Figures.add(s.count)
	st.Unacknowledged, st.Root, st.Heard, st.Skew = s.out.bytes, s.knows.root, s.heardAt, s.skew
	return s.knows.has
}

func (s *Session) figures() Figures {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// farewell is the session's last word, if there is one.
func (s *Session) farewell() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.queue {
		if f.kind == kindBye {
			f.to = s.peer
			s.queue = nil
			return f.appendTo(nil)
		}
	}
	return nil
}
