package gateway

import (
	"slices"
	"sync"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// readings keeps what each address of a virtual wrapper last reported of a sum that it doesn't show: what counts is
// the difference to it. It is the little of a baseline that an address without a server needs. Only this link writes
// them; the recent ones are in memory, too, since one may be sequenced and not yet on disk.
type readings struct {
	store   Store
	wrapper string

	// turn is held from looking at a reading until the candidate that replaces it is sequenced.
	turn sync.Mutex

	recent map[string]engine.Value // absent: there is none
}

const mostReadings = 4096

func (r *readings) at(key string) (engine.Value, error) {
	if v, ok := r.recent[key]; ok {
		return v, nil
	}
	raw, err := r.store.Kept(tableReading, key)
	if err != nil || raw == nil {
		return engine.Value{}, kind(err)
	}
	return lattice.ParseCBOR(raw)
}

// A draft is a candidate in the making, and the readings that go with it.
type draft struct {
	engine.Write
	link *link
	now  map[string]engine.Value // by key; nil: none, and the turn is not held
	// together: it is of an address that shows more than one register; created: which showed nothing before.
	together, created bool
}

// reading gives the key of what an address reports of a field, and what it reported last.
func (d *draft) reading(s spot, field string) (key string, last engine.Value, err error) {
	r := &d.link.readings
	if d.now == nil {
		r.turn.Lock()
		d.now = map[string]engine.Value{}
	}
	key = s.key(r.wrapper) + "\x00" + field
	if v, ok := d.now[key]; ok { // an earlier part of the same operation
		return key, v, nil
	}
	last, err = r.at(key)
	return key, last, err
}

// report makes readings of what an effect says of sums that its address doesn't show. ops are what the effect means;
// with them went whatever the bind maps and the effect doesn't mention, or not.
func (d *draft) report(op *wrappers.Operation, e mapping.Effect, ops []engine.Op, went bool) error {
	for _, field := range e.Bind.Meters() {
		i := slices.IndexFunc(e.Fields, func(f mapping.FieldValue) bool { return f.Field == field && !f.Add })
		if i < 0 && !went {
			continue
		}
		l := d.link
		key, last, err := d.reading(spot{l.at(l.set(), op.Server, op.Address), e.Register}, field)
		if err != nil {
			return err
		}
		d.now[key] = engine.Value{}
		if i < 0 || e.Fields[i].Value.IsAbsent() {
			continue
		}
		d.now[key] = e.Fields[i].Value
		if last.IsAbsent() {
			last = lattice.Int(0) // of who never reported, the whole counts
		}
		for k := range ops {
			if ops[k].Kind == engine.OpPut && ops[k].Field == field {
				ops[k].Last, ops[k].Meter = last, true
			}
		}
	}
	return nil
}

// sequenced tells what became of the draft: its readings are the last ones now, or never were.
func (d *draft) sequenced(ok bool) {
	if d.now == nil {
		return
	}
	r := &d.link.readings
	if ok {
		if r.recent == nil || len(r.recent) > mostReadings {
			r.recent = map[string]engine.Value{}
		}
		for key, v := range d.now {
			r.recent[key] = v
		}
	}
	r.turn.Unlock()
	d.now = nil
}

// keep puts the readings beside the candidate.
func (d *draft) keep() {
	for key, v := range d.now {
		rec := engine.Record{Table: tableReading, Key: key}
		if !v.IsAbsent() {
			rec.Value = v.AppendCBOR(nil)
		}
		d.Keep = append(d.Keep, rec)
	}
}
