package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/mapping"
	"github.com/spooksystems/gateway/wrappers"
)

// errUnknownOutcome is why a write is shown whose answer never came and that can't be read back.
var errUnknownOutcome = errors.New("outcome unknown: the connection broke before the server answered, and this kind of write can't be read back")

// parking holds what could not be applied. There is one parked operation per address and way, the
// newest: a stream of poison fills no disk.
type parking struct {
	mu       sync.Mutex
	retrying map[string]ParkedItem // transient: in memory, tried again by itself
}

// parkedRecord is the stored form: in its raw form, so that a retry maps it anew.
type parkedRecord struct {
	ParkedItem
	Verb wrappers.Verb
	Raw  []byte
	Type string
	Meta map[string]string
	Who  wrappers.Who
}

func parkedID(wrapper, way string, p place) string {
	sum := sha256.Sum256([]byte(wrapper + "\x00" + way + "\x00" + p.String()))
	return hex.EncodeToString(sum[:5])
}

// park stores an operation that could not be applied; durable when it returns.
func (l *link) park(ctx context.Context, op *wrappers.Operation, way, register string, why error, unknown bool) error {
	id := parkedID(l.name, way, place{op.Server, op.Address})
	rec := parkedRecord{
		ParkedItem: ParkedItem{
			ID: id, Wrapper: l.name, Protocol: l.info.Protocol.Name, Way: way, Server: op.Server, Address: op.Address,
			Register: register, Reason: why.Error(), Since: time.Now().UTC(), Tries: 1, Unknown: unknown,
		},
		Verb: op.Verb, Raw: op.Payload.Raw, Type: op.Payload.Type, Meta: op.Payload.Meta, Who: op.Who,
	}
	if old, err := l.parkedAt(id); err != nil {
		return err
	} else if old != nil {
		rec.Since, rec.Tries = old.Since, old.Tries+1
	}
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	l.Count("parked_"+way, 1)
	l.log.Warn("parked", "wrapper", l.name, "way", way, "address", op.Address, "register", register, "id", id, "err", why)
	return kind(l.store.KeepRecords(ctx, true, engine.Record{Table: tableParked, Key: id, Value: raw}))
}

func (l *link) parkOut(ctx context.Context, d *due, why error) error {
	op := wrappers.Operation{Verb: wrappers.Put, Server: d.server, Address: d.address}
	l.parking.drop(parkedID(l.name, "out", d.place))
	return l.park(ctx, &op, "out", d.register, why, len(d.intents) > 0)
}

func (l *Links) parkedAt(id string) (*parkedRecord, error) {
	raw, err := l.store.Kept(tableParked, id)
	if err != nil || raw == nil {
		return nil, kind(err)
	}
	rec := &parkedRecord{}
	if err := json.Unmarshal(raw, rec); err != nil {
		return nil, fmt.Errorf("parked %s: %w", id, err)
	}
	return rec, nil
}

// trying notes a write-back that is tried again by itself.
func (p *parking) trying(l *link, d *due, why error) {
	if why == nil {
		why = errors.New("not now")
	}
	id := parkedID(l.name, "out", d.place)
	p.mu.Lock()
	defer p.mu.Unlock()
	item, ok := p.retrying[id]
	if !ok {
		item = ParkedItem{
			ID: id, Wrapper: l.name, Protocol: l.info.Protocol.Name, Way: "out", Server: d.server, Address: d.address,
			Register: d.register, Since: time.Now().UTC(), Retrying: true,
		}
	}
	item.Reason, item.Tries = why.Error(), item.Tries+1
	if p.retrying == nil {
		p.retrying = map[string]ParkedItem{}
	}
	p.retrying[id] = item
	l.Count("retries", 1)
}

func (p *parking) drop(id string) {
	p.mu.Lock()
	delete(p.retrying, id)
	p.mu.Unlock()
}

// needless: what was tried again has become needless, since the server has shown that it has it, say.
func (p *parking) needless(l *link, d *due) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.retrying) > 0 {
		delete(p.retrying, parkedID(l.name, "out", d.place))
	}
}

// cleared: a write-back went through, so nothing of that address is parked any more.
func (p *parking) cleared(l *link, d *due) {
	id := parkedID(l.name, "out", d.place)
	p.drop(id)
	if raw, err := l.store.Kept(tableParked, id); err == nil && raw != nil {
		l.keepQuietly(engine.Record{Table: tableParked, Key: id})
	}
}

// Parked lists what could not be applied, and what is being tried again, by wrapper and address.
func (l *Links) Parked(context.Context) ([]ParkedItem, error) {
	var out []ParkedItem
	for r, err := range l.store.EachKept(tableParked, "") {
		if err != nil {
			return nil, kind(err)
		}
		var rec parkedRecord
		if err := json.Unmarshal(r.Value, &rec); err != nil {
			return nil, fmt.Errorf("parked %s: %w", r.Key, err)
		}
		out = append(out, rec.ParkedItem)
	}
	l.parking.mu.Lock()
	for _, item := range l.parking.retrying {
		out = append(out, item)
	}
	l.parking.mu.Unlock()
	slices.SortFunc(out, func(a, b ParkedItem) int {
		return strings.Compare(a.Wrapper+"\x00"+a.Address+a.ID, b.Wrapper+"\x00"+b.Address+b.ID)
	})
	return out, nil
}

// Retry applies a parked operation again: one on its way in is mapped anew from its raw form, one
// on its way out is written with the register's newest state.
func (l *Links) Retry(ctx context.Context, id string) error {
	rec, err := l.parkedAt(id)
	if err != nil {
		return err
	}
	if rec == nil {
		l.parking.mu.Lock()
		item, ok := l.parking.retrying[id]
		l.parking.mu.Unlock()
		if !ok {
			return fmt.Errorf("%w: nothing parked under %s", engine.ErrNotFound, id)
		}
		rec = &parkedRecord{ParkedItem: item}
	}
	on := l.named(rec.Wrapper)
	if on == nil {
		return fmt.Errorf("%w: there is no wrapper %q now", engine.ErrInvalid, rec.Wrapper)
	}
	switch {
	case rec.Unknown && rec.Way == "in":
		return fmt.Errorf("%w: nobody knows what became of it; look at the server, then drop it", engine.ErrInvalid)
	case rec.Way == "out":
		on.back.again(spot{place{rec.Server, rec.Address}, rec.Register})
		return nil
	}
	op := wrappers.Operation{
		Verb: rec.Verb, Server: rec.Server, Address: rec.Address, Who: rec.Who,
		Payload: wrappers.Payload{Raw: rec.Raw, Type: rec.Type, Meta: rec.Meta},
	}
	effects, err := on.set().In(on.name, &op, on.env(ctx))
	if err == nil {
		err = on.permitted(&op.Who, effects)
	}
	if err != nil {
		return err
	}
	wait, err := on.retry(ctx, &op, effects, engine.Record{Table: tableParked, Key: id})
	if err == nil {
		_, err = wait()
	}
	return err
}

// retry sequences what a parked operation means now, and with it the end of its record.
func (l *link) retry(ctx context.Context, op *wrappers.Operation, effects []mapping.Effect, gone engine.Record) (wait func() (engine.Receipt, error), err error) {
	l.base.turn.Lock()
	defer l.base.turn.Unlock()
	d := &draft{link: l}
	defer func() { d.sequenced(err == nil) }()
	var spots []spot
	var then []func(engine.Dot) engine.Record
	real := l.info.Relay || l.info.Attached
	if doc, over := rowsBind(effects); doc != nil && real {
		p := l.at(l.set(), op.Server, op.Address)
		if effects, err = l.spread(p, effects); err != nil {
			return nil, err
		}
		d.Bulk = true
		then = append(then, l.documentNote(p, doc, "", over))
	}
	for _, e := range effects {
		switch {
		case real && e.Bind.Rows():
		case e.Document != nil:
			if err := l.addDocument(ctx, op, e, effects, d); err != nil {
				return nil, err
			}
			continue
		case e.Bind.Rows():
			if err := l.addRow(ctx, op, e, d); err != nil {
				return nil, err
			}
			continue
		case len(e.Bind.Meters()) == 0 || !real:
			if err := l.add(ctx, op, e, d); err != nil {
				return nil, err
			}
			continue
		}
		// A server's reading counts from the one before it, which is in the baseline. So do the rows of its documents.
		s := spot{l.at(l.set(), op.Server, op.Address), e.Register}
		ops, baseline, err := l.reconcile(ctx, s, e, engine.Shown{Wire: true})
		if err != nil {
			return nil, err
		}
		d.Ops, spots, then = append(d.Ops, ops...), append(spots, s), append(then, baseline)
	}
	d.By = l.cause(op, sourceOf(effects))
	d.keep()
	d.Keep = append(d.Keep, gone)
	if len(d.Ops) == 0 {
		return func() (engine.Receipt, error) { return engine.Receipt{}, nil }, kind(l.store.KeepRecords(ctx, true, append(d.Keep, bind(then)(engine.Dot{})...)...))
	}
	d.KeepWith = bind(then)
	return l.submit(ctx, d.Write, spots)
}

// again writes a spot once more, now.
func (b *writeBack) again(s spot) {
	b.mu.Lock()
	d := b.markLocked(s, max(b.observed, 1))
	d.after, d.force = time.Time{}, true
	b.mu.Unlock()
	b.nudge()
}

// Drop forgets a parked operation.
func (l *Links) Drop(ctx context.Context, id string) error {
	rec, err := l.parkedAt(id)
	if err != nil {
		return err
	}
	if rec == nil {
		return fmt.Errorf("%w: nothing parked under %s", engine.ErrNotFound, id)
	}
	return kind(l.store.KeepRecords(ctx, true, engine.Record{Table: tableParked, Key: id}))
}
