package gateway

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// A whole is what a server committed as one: readers see all of it or nothing. It becomes one write, in which a register that
// was changed several times has what it came to in the end.
//
// Where that is too large for one write it becomes several. What can't be applied is parked, and the rest lands.
type whole struct {
	*sightings
	at    wrappers.Position
	seen  []*sighting
	spots map[spot]*shownEffect // where each spot was shown last
	holds map[string]spot       // by register
}

// A sighting is one observation on its way into a whole.
type sighting struct {
	o       *wrappers.Observation
	op      wrappers.Operation
	started time.Time
	record  *recording.Operation
	source  string
	says    []shownEffect // those that a later sighting took over have no bind
	from    string        // of a rename
	keep    []engine.Record

	ops       []engine.Op
	registers []string
}

type shownEffect struct {
	at     place
	effect mapping.Effect
	by     *sighting
}

// joins tells whether an observation can be part of a whole: a document has its rows looked up, and where every change
// counts each stands for itself.
func joins(at wrappers.Position, says []saying) bool {
	if !at.Feed {
		return false
	}
	for _, say := range says {
		if slices.ContainsFunc(say.effects, func(e mapping.Effect) bool {
			return e.Bind.Rows() || e.Bind.Events()
		}) {
			return false
		}
	}
	return true
}

// take adds what an observation says.
func (w *whole) take(s *sighting, says []saying) error {
	if !w.fits(s, says) {
		if err := w.commit(); err != nil {
			return err
		}
	}
	for _, say := range says {
		for _, e := range say.effects {
			if w.touched[e.Register] {
				// What follows is decided from the register's state, so that has to be visible.
				if err := w.flush(); err != nil {
					return err
				}
			}
			s.says = append(s.says, shownEffect{say.at, e, s})
		}
	}
	w.seen = append(w.seen, s)
	for i := range s.says {
		e := &s.says[i]
		at := spot{e.at, e.effect.Register}
		if was := w.spots[at]; was != nil && was.by != s {
			e.effect = followed(was.effect, e.effect)
			was.effect.Bind = nil
		}
		w.spots[at], w.holds[at.register] = e, at
	}
	return nil
}

// fits tells whether the register of each effect is free, or was shown at the same place by the same bind in a way that
// another showing can follow.
func (w *whole) fits(s *sighting, says []saying) bool {
	for _, say := range says {
		for _, e := range say.effects {
			at, held := w.holds[e.Register]
			if !held {
				continue
			}
			was := w.spots[at]
			if at.place != say.at || was.effect.Bind != e.Bind || was.by.o.Ours != s.o.Ours || adds(was.effect) || adds(e) {
				return false
			}
		}
	}
	return true
}

func adds(e mapping.Effect) bool {
	return slices.ContainsFunc(e.Fields, func(f mapping.FieldValue) bool { return f.Add })
}

// followed is what is left to say of a register of which first one thing was said and then another.
func followed(first, then mapping.Effect) mapping.Effect {
	then.Dropped += first.Dropped
	if then.Delete || then.Absent || then.Whole {
		return then
	}
	then.Whole = first.Whole || first.Delete
	if first.Delete {
		return then
	}
	fields := slices.Clone(then.Fields)
	for _, f := range first.Fields {
		if !slices.ContainsFunc(fields, func(o mapping.FieldValue) bool { return o.Field == f.Field }) {
			fields = append(fields, f)
		}
	}
	slices.SortFunc(fields, func(a, b mapping.FieldValue) int { return strings.Compare(a.Field, b.Field) })
	then.Fields = fields
	return then
}

// commit makes one write of what was taken. It is durable when the sightings are flushed.
func (w *whole) commit() error {
	seen := w.seen
	w.reset()
	return w.write(seen)
}

func (w *whole) reset() {
	w.seen = nil
	w.spots, w.holds = map[spot]*shownEffect{}, map[string]spot{}
}

func (w *whole) write(seen []*sighting) error {
	if len(seen) == 0 {
		return nil
	}
	wait, rejected, err := w.submit(seen)
	if err != nil {
		for _, s := range seen {
			for i := range s.says {
				w.base.forget(s.says[i].at)
			}
		}
		if wrappers.Kind(err) == wrappers.ErrUnavailable {
			return err // the server owes it to us still
		}
		if len(rejected) == 0 && len(seen) == 1 {
			rejected = []rejection{{seen[0], err}}
		}
		if len(rejected) > 0 {
			// They are parked, and what is to be kept with them goes with the others: no place in the feed is stored before those.
			for _, r := range rejected {
				if err := w.parkSighting(r.of, r.why); err != nil {
					return err
				}
			}
			return w.write(seen)
		}
		half := len(seen) / 2
		return errors.Join(w.write(seen[:half]), w.write(seen[half:]))
	}
	if wait == nil {
		for _, s := range seen {
			w.took(s.record, recording.NoNews, s.source, nil)
		}
		return nil
	}
	if w.touched == nil {
		w.touched = map[string]bool{}
	}
	for _, s := range seen {
		for _, r := range s.registers {
			w.touched[r] = true
		}
	}
	w.waiting = append(w.waiting, func() error {
		r, err := wait()
		states := make(map[string]*engine.StateBlock, len(r.States))
		for i := range r.States {
			states[r.States[i].Register] = &r.States[i]
		}
		for _, s := range seen {
			if len(s.registers) == 0 {
				w.took(s.record, recording.NoNews, s.source, nil)
				continue
			}
			of := engine.Receipt{Dot: r.Dot, Cursor: r.Cursor, Time: r.Time}
			for _, name := range s.registers {
				if st := states[name]; st != nil {
					of.States = append(of.States, *st)
				}
			}
			w.event(In, &s.op, s.started, s.source, &of, err)
			w.took(s.record, reason(err), s.source, registersOf(&of))
		}
		return err
	})
	return nil
}

// parkSighting parks what an observation says, and leaves of it what is to be kept. Of a rename it is what has come that
// waits: what was there before is gone nonetheless.
func (w *whole) parkSighting(s *sighting, why error) error {
	op := s.op
	if op.Verb == wrappers.Rename {
		o := *s.o
		o.Verb, o.To, o.Payload = wrappers.Delete, "", wrappers.Payload{}
		from := w.link.at(w.set(), op.Server, op.Address)
		op.Verb, op.Address, op.To = wrappers.Put, op.To, ""
		s.o, s.op.Verb, s.op.To, s.op.Payload, s.from = &o, wrappers.Delete, "", wrappers.Payload{}, ""
		for i := range s.says {
			if s.says[i].at != from {
				s.says[i].effect.Bind = nil
			}
		}
	} else {
		w.took(s.record, reason(why), s.source, nil)
		s.record, s.says = nil, nil
	}
	w.event(In, &op, s.started, s.source, nil, why)
	return w.park(w.ctx, &op, "in", "", why, false)
}

// shows tells whether anything was said of a place.
func (w *whole) shows(p place) bool {
	for s := range w.spots {
		if s.place == p {
			return true
		}
	}
	return false
}

// A rejection is a sighting that can't be applied, whatever it is together with.
type rejection struct {
	of  *sighting
	why error
}

// submit sequences what sightings mean. A nil wait: it was no news. With an error, rejected are all the sightings that it is
// about, if that is known: a server may have committed a hundred thousand rows of somebody who may write none of them.
func (w *whole) submit(seen []*sighting) (wait func() (engine.Receipt, error), rejected []rejection, err error) {
	l := w.link
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	write := engine.Write{Bulk: len(seen) > 1}
	var then []func(engine.Dot) engine.Record
	var spots []spot
	renames := 0
sightings:
	for _, s := range seen {
		s.ops, s.registers = s.ops[:0], s.registers[:0]
		for i := range s.says {
			e := &s.says[i]
			if e.effect.Bind == nil {
				continue
			}
			at := spot{e.at, e.effect.Register}
			ops, baseline, err := w.decide(w.at, at, e.effect, s.o)
			switch {
			case err == nil:
			case wrappers.Kind(err) == wrappers.ErrUnavailable:
				return nil, nil, err
			default:
				rejected = append(rejected, rejection{s, err})
				continue sightings
			}
			spots, then, s.ops = append(spots, at), append(then, baseline), append(s.ops, ops...)
			for _, op := range ops {
				if n := len(s.registers); n == 0 || s.registers[n-1] != op.Register {
					s.registers = append(s.registers, op.Register)
				}
			}
		}
		if len(s.ops) > 0 {
			w.causes(&write, s)
		}
		if s.from != "" && len(s.ops) > 0 {
			renames++
			write.By.RenamedFrom = s.from
		}
		write.Ops, write.Keep = append(write.Ops, s.ops...), append(write.Keep, s.keep...)
	}
	if len(rejected) > 0 {
		return nil, rejected, rejected[0].why
	}
	if renames > 1 {
		write.By.RenamedFrom = "" // it names one
	}
	if len(write.Ops) == 0 {
		return nil, nil, kind(l.store.KeepRecords(w.ctx, false, append(write.Keep, bind(then)(engine.Dot{})...)...))
	}
	write.KeepWith = bind(then)
	if wait, err = l.submit(w.ctx, write, spots); err == nil || wrappers.Kind(err) == wrappers.ErrUnavailable {
		return wait, nil, err
	}
	for _, s := range seen {
		if len(s.ops) == 0 {
			continue
		}
		if bad := (&engine.Write{Ops: s.ops, Bulk: true}).Check(); bad != nil {
			rejected = append(rejected, rejection{s, kind(bad)})
		}
	}
	return nil, rejected, err
}

// causes says who is behind a write: what its observations have in common.
func (w *whole) causes(write *engine.Write, s *sighting) {
	if write.By.Protocol == "" {
		write.By, write.Tag = w.cause(&s.op, s.source), s.o.Tag
		return
	}
	c := w.cause(&s.op, s.source)
	if write.By.Address != c.Address {
		write.By.Address = ""
	}
	if write.By.Verb != c.Verb && write.By.Verb != wrappers.Rename.String() {
		write.By.Verb = wrappers.Put.String()
		if c.Verb == wrappers.Rename.String() {
			write.By.Verb = c.Verb
		}
	}
	if write.Tag == 0 {
		write.Tag = s.o.Tag
	}
}
