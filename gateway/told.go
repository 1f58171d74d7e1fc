package gateway

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

// Who was told of a register last is known in two ways. A server's write-back leaves a durable
// record, in one batch with the baseline that follows from it. What the peers of a virtual wrapper
// were told is no promise to anybody, so that is held in memory, for as many registers as fit.

// toldKey orders records by register: explain asks for one register's.
func toldKey(register, wrapper string, p place) string {
	return register + "\x00" + wrapper + "\x00" + p.String()
}

// toldRecord says that the server took a state.
func toldRecord(l *link, d *due) engine.Record {
	raw, err := json.Marshal(wire.Told{
		Protocol: l.info.Protocol.Name, Wrapper: l.name, Server: d.server, Address: d.address,
		Ordinal: d.version.Ordinal, ID: d.version.ID.String(), Time: time.Now().UTC(), TookMS: ms(since(d.version)),
	})
	if err != nil {
		panic(err) // texts and numbers
	}
	return engine.Record{Table: tableTold, Key: toldKey(d.register, l.name, d.place), Value: raw}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// Told lists what servers took of a register last, by wrapper, server and address.
func (l *Links) Told(register string) ([]wire.Told, error) {
	var out []wire.Told
	for r, err := range l.store.EachKept(tableTold, register+"\x00") {
		if err != nil {
			return nil, kind(err)
		}
		var t wire.Told
		if err := json.Unmarshal(r.Value, &t); err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

// A toldBook remembers the newest notification of each wrapper for the registers told of last. It
// has two generations: what is told of again moves to the young one, and when that is full, the
// old one is forgotten.
type toldBook struct {
	mu         sync.Mutex
	young, old map[string][]wire.Told
}

const (
	toldGeneration = 5_000 // registers
	toldAddresses  = 16    // of one register
)

// note takes an event; only those that told somebody something count.
func (b *toldBook) note(e Event) {
	if e.Kind != Out || e.Outcome != "" || e.Cursor.Ordinal == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, register := range e.Registers {
		list, ok := b.young[register]
		if !ok {
			if b.young == nil || len(b.young) >= toldGeneration {
				b.young, b.old = map[string][]wire.Told{}, b.young
			}
			list = b.old[register]
			delete(b.old, register)
		}
		b.young[register] = noted(list, e)
	}
}

// noted gives the list with an event in it. A follower that catches up is told of old commits:
// they are not the newest.
func noted(list []wire.Told, e Event) []wire.Told {
	i := slices.IndexFunc(list, func(t wire.Told) bool {
		return t.Wrapper == e.Wrapper && t.Server == e.Server && t.Address == e.Address
	})
	if i < 0 {
		if len(list) >= toldAddresses {
			list = list[1:]
		}
		i, list = len(list), append(list, wire.Told{Protocol: e.Protocol, Wrapper: e.Wrapper, Server: e.Server, Address: e.Address})
	}
	t := &list[i]
	switch {
	case e.Cursor.Ordinal < t.Ordinal:
	case e.Cursor.Ordinal > t.Ordinal:
		t.Ordinal, t.Time, t.TookMS, t.Followers = e.Cursor.Ordinal, e.Time.UTC(), ms(e.Took), 1
	default: // another stream, told of the same commit: the slowest counts
		t.Time, t.TookMS, t.Followers = e.Time.UTC(), max(t.TookMS, ms(e.Took)), t.Followers+1
	}
	return list
}

func (b *toldBook) of(register string) []wire.Told {
	b.mu.Lock()
	defer b.mu.Unlock()
	if list, ok := b.young[register]; ok {
		return slices.Clone(list)
	}
	return slices.Clone(b.old[register])
}

// told lists who was told of a register last, by wrapper and address. A write-back stands in the
// book, too: its record, which knows the state, goes first.
func (d *domain) told(register string) ([]wire.Told, error) {
	out, err := d.links.Told(register)
	if err != nil {
		return nil, err
	}
	for _, t := range d.book.of(register) {
		i := slices.IndexFunc(out, func(o wire.Told) bool {
			return o.Wrapper == t.Wrapper && o.Server == t.Server && o.Address == t.Address
		})
		switch {
		case i < 0:
			out = append(out, t)
		case out[i].Ordinal < t.Ordinal:
			out[i] = t
		}
	}
	slices.SortFunc(out, func(a, b wire.Told) int {
		return strings.Compare(a.Wrapper+"\x00"+a.Server+"\x00"+a.Address, b.Wrapper+"\x00"+b.Server+"\x00"+b.Address)
	})
	return out, nil
}
