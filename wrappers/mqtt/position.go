package mqtt

import "github.com/spooksystems/gateway/wrappers"

// A position says how much of the stream a session or a group has taken: by this process's own
// count while it lasts, and by the log's cursor for when the ring has moved on or a restart has
// begun a new count.
type position struct {
	seq     uint64
	counted bool            // seq is known
	from    wrappers.Cursor // all commits up to this one were taken
	last    wrappers.Cursor // the commit that is being taken
	done    map[place]bool  // places behind from that were taken
}

// position gives the position behind entry seq, which is at most the head.
func (r *ring) position(seq uint64) position {
	p := position{seq: seq, counted: true, from: r.cursor}
	have := r.entries[r.first:]
	if len(have) == 0 {
		return p
	}
	if seq < have[0].seq {
		p.from = have[0].before
		return p
	}
	i := int(seq - have[0].seq)
	for i > 0 && have[i].cursor == "" {
		i--
	}
	e := have[i]
	p.from = e.before
	if e.cursor == "" {
		return p
	}
	if p.from == "" { // the first commit of all: there is nothing to resume behind but itself
		p.from = e.cursor
		return p
	}
	p.last, p.done = e.cursor, make(map[place]bool, 1)
	for ; i >= 0 && (have[i].cursor == e.cursor || have[i].cursor == ""); i-- {
		if have[i].cursor != "" {
			p.done[have[i].at()] = true
		}
	}
	return p
}

// advance notes that e, the next of the stream, was taken.
func (p *position) advance(e *entry) {
	if p.counted = e.seq != 0; p.counted {
		p.seq = e.seq
	}
	if e.cursor == "" {
		return
	}
	if e.cursor != p.last {
		if p.last != "" { // a later commit: the former is whole
			p.from = p.last
			for at := range p.done {
				if at.cursor == p.last {
					delete(p.done, at)
				}
			}
		}
		p.last = e.cursor
	}
	if p.done == nil {
		p.done = make(map[place]bool, 1)
	}
	p.done[e.at()] = true
}

// resume gives where a later connection must go on so that nothing is lost: before the first
// message that is still queued and, if landed is set, before the first that the client has not
// acknowledged; what it acknowledged beyond is done. broker.mu is held.
func (s *session) resume(landed bool) position {
	p := s.pos
	if s.live {
		p = s.broker.ring.position(s.broker.ring.head)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var first *entry
	open := map[place]bool{}
	done := map[place]bool{}
	for _, f := range s.flights {
		switch {
		case f.share != nil || f.entry.filter != nil:
		case f.done || f.released:
			done[f.entry.at()] = true
		case landed:
			open[f.entry.at()] = true
			if first == nil {
				first = f.entry
			}
		}
	}
	for _, d := range s.queue {
		if d.share != nil || d.entry.filter != nil {
			continue
		}
		open[d.entry.at()] = true
		if first == nil {
			first = d.entry
		}
	}
	if first == nil {
		return p
	}
	for at := range p.done {
		done[at] = true
	}
	for at := range open {
		delete(done, at)
	}
	q := position{from: first.before, done: done}
	if first.seq != 0 {
		q.seq, q.counted = first.seq-1, true
	}
	if q.from == "" {
		q.from = p.from
	}
	return q
}
