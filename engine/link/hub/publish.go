package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/link"
)

// The own candidates, from the log to the hub. The log is the outbox; that the hub has taken something frees nothing.

// readLast reads this node's last message on the hub.
func (r *round) readLast() error {
	h := r.h
	ctx, cancel := context.WithTimeout(r.ctx, roundTimeout)
	defer cancel()
	m, err := r.stream.GetLastMsgForSubject(ctx, h.names.batches+tokenOf(h.endpoint))
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("the stream %s: %w", h.names.stream, err)
	}
	b, err := parseHead(m.Header)
	if err == nil {
		err = b.parseBody(m.Data)
	}
	if err != nil {
		return fmt.Errorf("message %d of the stream %s, this node's last: %w", m.Sequence, h.names.stream, err)
	}
	r.last, r.lastSeq = b, m.Sequence
	if b.parts > 0 {
		return nil
	}
	// As if another had sent it: what this node lacks of it is taken, and if it is another's under the same number it is
	// said.
	_, err = h.e.Receive(r.ctx, b.raw...)
	if errors.Is(err, engine.ErrInvalid) {
		h.o.Log.Warn("hub: a message that can't be understood", "sequence", m.Sequence, "error", err)
		err = nil
	}
	return err
}

// lost says what the domain has of earlier runs of this node that this node has not: it was restored, and takes before it
// gives.
func (r *round) lost() (bool, error) {
	h := r.h
	h.mu.Lock()
	var theirs engine.QStateVector
	for _, m := range h.members {
		theirs = theirs.Join(m.vector)
	}
	h.mu.Unlock()
	if r.last != nil && r.last.origin != h.origin {
		end := r.last.end()
		if r.last.parts > r.last.part {
			end.Seq-- // it was not told whole
		}
		if end.Seq > 0 {
			n, err := h.e.Lacking(engine.QStateVector{end})
			if err != nil || n > 0 {
				return true, err
			}
		}
	}
	lost, err := h.e.Lost(theirs)
	return len(lost) > 0, err
}

// told is the vector of what need not be told: all that others wrote, and of this node's own what the hub has, or what
// everybody has confirmed.
func (r *round) told(place *engine.Cursor) (engine.QStateVector, error) {
	h := r.h
	own, err := h.e.Summary(r.ctx)
	if err != nil {
		return nil, err
	}
	var end engine.Dot
	if r.last != nil {
		if end = r.last.end(); r.last.parts > r.last.part {
			end.Seq--
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	holds := h.places.rewind(end)
	if *place = h.places.at; !holds {
		*place = engine.Cursor{}
	}
	trimmed := h.e.Trimmed()
	var told engine.QStateVector
	for _, d := range own.Vector {
		if !h.e.Own(d.Origin) {
			told = append(told, d)
			continue
		}
		seq := d.Seq
		for _, m := range h.members {
			seq = min(seq, m.vector.Seq(d.Origin))
		}
		if len(h.members) == 0 {
			seq = 0
		}
		if seq = max(seq, trimmed.Seq(d.Origin)); seq > 0 {
			told = append(told, engine.Dot{Origin: d.Origin, Seq: seq})
		}
	}
	for _, d := range h.places.told {
		if d.Seq > 0 {
			told = told.With(d)
		}
	}
	return told, nil
}

// publish tells the hub what this node writes, as long as the round lasts.
func (r *round) publish() error {
	for {
		lost, err := r.lost()
		if err != nil {
			return err
		}
		if !lost {
			break
		}
		r.look()
		if !r.pause(250 * time.Millisecond) {
			return nil
		}
	}
	var place engine.Cursor
	told, err := r.told(&place)
	if err != nil {
		return err
	}
	for {
		end := r.h.e.Place()
		if told, err = r.publishBehind(told, &place, end); err != nil {
			return err
		}
		if place != end && r.ctx.Err() == nil {
			continue // the log was trimmed while it was read
		}
		if r.h.e.Await(r.ctx, end) != nil {
			return nil
		}
	}
}

func (r *round) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-r.ctx.Done():
		return false
	}
}

// publishBehind tells what there is behind a place.
func (r *round) publishBehind(told engine.QStateVector, place *engine.Cursor, end engine.Cursor) (engine.QStateVector, error) {
	h := r.h
	// What others wrote meanwhile is skipped without being read.
	own, err := h.e.Summary(r.ctx)
	if err != nil {
		return told, err
	}
	// What the log has no more can't be told: who lacks it asks a member, and gets the state.
	trimmed := h.e.Trimmed()
	has := make(engine.QStateVector, 0, len(own.Vector))
	for _, d := range own.Vector {
		if h.e.Own(d.Origin) {
			d.Seq = told.Seq(d.Origin)
		}
		if d.Seq > 0 {
			has = append(has, d)
		}
	}
	has = has.Join(trimmed)
	b := &batch{from: r.from}
	size := 0
	var at engine.Cursor
	flush := func() error {
		if len(b.raw) == 0 {
			return nil
		}
		b.chain = link.HashOf(b.raw[len(b.raw)-1])
		if err := r.send(b); err != nil {
			return err
		}
		told = told.With(b.end())
		*place = at
		h.mu.Lock()
		h.places.tell(b.end(), at)
		h.figures.CandidatesOut += uint64(len(b.raw))
		h.mu.Unlock()
		b, size = &batch{from: r.from}, 0
		return nil
	}
	for c, err := range h.e.Candidates(r.ctx, has, *place) {
		if errors.Is(err, engine.ErrTrimmed) { // while it was read
			return told, flush()
		}
		if err != nil {
			return told, err
		}
		if !h.e.Own(c.Dot.Origin) || told.Seq(c.Dot.Origin) >= c.Dot.Seq {
			continue
		}
		if len(b.raw) > 0 && (b.origin != c.Dot.Origin || b.last+1 != c.Dot.Seq || size+len(c.Raw) > batchBytes) {
			if err := flush(); err != nil {
				return told, err
			}
		}
		if len(b.raw) == 0 {
			b.origin, b.first = c.Dot.Origin, c.Dot.Seq
		}
		b.last = c.Dot.Seq
		b.raw = append(b.raw, c.Raw)
		size += len(c.Raw) + 5
		at = c.Place
	}
	if err := flush(); err != nil {
		return told, err
	}
	if r.ctx.Err() == nil {
		*place = end
	}
	return told, nil
}

// send gives one batch to the hub; one long candidate in parts.
func (r *round) send(b *batch) error {
	if len(b.raw) > 1 || len(b.raw[0]) <= batchBytes {
		return r.sendMessage(b)
	}
	whole := b.raw[0]
	parts := (len(whole) + partBytes - 1) / partBytes
	for i := range parts {
		p := *b
		p.part, p.parts = i+1, parts
		p.raw = [][]byte{whole[i*partBytes : min((i+1)*partBytes, len(whole))]}
		if err := r.sendMessage(&p); err != nil {
			return err
		}
	}
	return nil
}

const sendTimeout = 10 * time.Second

// sendMessage publishes behind this node's last message, or not at all.
func (r *round) sendMessage(b *batch) error {
	h := r.h
	m := b.message(h.names.batches + tokenOf(h.endpoint))
	ctx, cancel := context.WithTimeout(r.ctx, sendTimeout)
	defer cancel()
	ack, err := r.js.PublishMsg(ctx, m, jetstream.WithExpectLastSequencePerSubject(r.lastSeq), jetstream.WithRetryAttempts(0))
	var refused *jetstream.APIError
	switch {
	case errors.As(err, &refused) && (refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || refused.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequenceConstant):
		return fmt.Errorf("%w: %w", errMoved, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrNoStreamResponse):
		return fmt.Errorf("the stream %s is gone: %w", h.names.stream, err)
	case err != nil:
		return fmt.Errorf("the stream %s: %w", h.names.stream, err)
	}
	r.last, r.lastSeq = b, ack.Sequence
	h.mu.Lock()
	h.figures.BytesOut += uint64(len(m.Data))
	h.mu.Unlock()
	return nil
}
