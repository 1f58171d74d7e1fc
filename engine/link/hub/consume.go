package hub

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/spooksystems/gateway/engine"
)

// What the others wrote, from the hub into the engine. What is missing there is found by the vectors, so that the order in
// which the hub gives it, and whether it gives all, is of no consequence.

// begin is where reading goes on: number 1 of a stream that is another than it was.
func (r *round) begin() uint64 {
	info := r.stream.CachedInfo()
	h := r.h
	h.mu.Lock()
	defer h.mu.Unlock()
	p := &h.places
	if created := info.Created.UnixNano(); p.created != created {
		p.created, p.read, p.dirty = created, 0, true
	}
	if p.read > info.State.LastSeq { // it has lost its end
		p.read, p.dirty = info.State.LastSeq, true
	}
	return p.read + 1
}

// pullBytes bounds what is on its way from the hub and was not taken.
const pullBytes = 4 << 20

// consume reads the stream as long as the round lasts.
func (r *round) consume() error {
	h := r.h
	ctx, cancel := context.WithTimeout(r.ctx, roundTimeout)
	defer cancel()
	config := jetstream.ConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: r.begin(), AckPolicy: jetstream.AckNonePolicy,
		InactiveThreshold: time.Minute, MemoryStorage: true, Replicas: 1,
	}
	c, err := r.stream.CreateConsumer(ctx, config)
	if err != nil {
		return fmt.Errorf("reading the stream %s: %w", h.names.stream, err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if h.conn.IsConnected() {
			_ = r.stream.DeleteConsumer(ctx, c.CachedInfo().Name) // else it ends by itself
		}
	}()
	messages, err := c.Messages(jetstream.PullMaxBytes(pullBytes), jetstream.PullHeartbeat(5*time.Second), jetstream.PullExpiry(30*time.Second))
	if err != nil {
		return fmt.Errorf("reading the stream %s: %w", h.names.stream, err)
	}
	stop := context.AfterFunc(r.ctx, messages.Stop)
	defer stop()
	arrived := make(chan jetstream.Msg, 64)
	failed := make(chan error, 1)
	go func() {
		defer close(arrived)
		expect := uint64(0)
		for {
			m, err := messages.Next()
			if err == nil {
				var at *jetstream.MsgMetadata
				if at, err = m.Metadata(); err == nil {
					if expect++; at.Sequence.Consumer != expect {
						err = fmt.Errorf("message %d where %d is due", at.Sequence.Consumer, expect)
					}
				}
			}
			if err != nil {
				failed <- err
				return
			}
			select {
			case arrived <- m:
			case <-r.ctx.Done():
				return
			}
		}
	}()
	var p puzzle
	var synced func() error // of what was taken last
	for {
		m, open := <-arrived
		if !open {
			select {
			case err := <-failed:
				if r.ctx.Err() != nil {
					return nil
				}
				return fmt.Errorf("reading the stream %s: %w", h.names.stream, err)
			default:
				return nil
			}
		}
		t := taking{puzzle: &p}
		err := r.gather(m, &t)
		for more := true; more && err == nil && t.size < batchBytes; { // many small ones are taken at once
			select {
			case m, open := <-arrived:
				if more = open; open {
					err = r.gather(m, &t)
				}
			default:
				more = false
			}
		}
		if err == nil {
			err = r.take(&t)
		}
		// The sync of one overlaps with the taking of the next; when nothing more is there it is waited for at once.
		if before := synced; err == nil && before != nil {
			err = before()
		}
		if synced = t.wait; err == nil && synced != nil && len(arrived) == 0 {
			err = synced()
			synced = nil
		}
		if err != nil {
			return err
		}
	}
}

// A taking is what was gathered of some messages.
type taking struct {
	puzzle  *puzzle
	raw     [][]byte
	from    map[string]uint64 // candidates by the sender's token
	size    int
	bytes   int
	upTo    uint64 // in the stream
	pending uint64 // messages behind
	wait    func() error
}

// gather takes one message apart. What can't be understood is logged and left: whoever wrote it, no other waits for it.
func (r *round) gather(m jetstream.Msg, t *taking) error {
	at, err := m.Metadata()
	if err != nil {
		return err
	}
	t.upTo, t.pending = at.Sequence.Stream, at.NumPending
	t.bytes += len(m.Data())
	b, err := parseHead(m.Headers())
	if err == nil && b.from == r.from {
		return nil // this node's own
	}
	if err == nil {
		var lacking uint64
		if lacking, err = r.h.e.Lacking(engine.QStateVector{b.end()}); err == nil && lacking == 0 {
			return nil
		}
	}
	if err == nil {
		err = b.parseBody(m.Data())
	}
	if errors.Is(err, engine.ErrInvalid) {
		r.h.o.Log.Warn("hub: a message that can't be understood", "subject", m.Subject(), "sequence", at.Sequence.Stream, "error", err)
		return nil
	}
	if err != nil {
		return err
	}
	raw := b.raw
	if b.parts > 0 {
		whole := t.puzzle.add(b)
		if whole == nil {
			return nil
		}
		raw = [][]byte{whole}
	}
	if t.from == nil {
		t.from = map[string]uint64{}
	}
	t.from[m.Subject()[len(r.h.names.batches):]] += uint64(len(raw))
	t.raw = append(t.raw, raw...)
	for _, one := range raw {
		t.size += len(one)
	}
	return nil
}

// fullPause is how long a full disk, or a full hold, is waited for before it is tried again.
const fullPause = 250 * time.Millisecond

// take gives to the engine what was gathered.
func (r *round) take(t *taking) error {
	h := r.h
	for len(t.raw) > 0 {
		got, wait, err := h.e.Take(r.ctx, t.raw...)
		t.wait = wait
		if errors.Is(err, engine.ErrInvalid) {
			// One of them is no candidate: those behind it are looked at one by one.
			h.o.Log.Warn("hub: a candidate that can't be understood", "sequence", t.upTo, "error", err)
			for _, one := range t.raw {
				if _, err := h.e.Receive(r.ctx, one); err != nil && !errors.Is(err, engine.ErrInvalid) {
					return err
				}
			}
			err = nil
		}
		if errors.Is(err, engine.ErrFull) || got.Full {
			r.mu.Lock()
			r.full = got.Full
			r.mu.Unlock()
			r.look()
			if !r.pause(fullPause) {
				return nil
			}
			continue
		}
		if err != nil {
			return err
		}
		if got.Held > 0 {
			r.mu.Lock()
			r.full = true
			r.mu.Unlock()
		}
		break
	}
	r.mu.Lock()
	r.behind = t.pending > 0
	r.mu.Unlock()
	h.mu.Lock()
	h.places.read, h.places.dirty = t.upTo, true
	h.figures.CandidatesIn += uint64(len(t.raw))
	h.figures.BytesIn += uint64(t.bytes)
	for _, m := range h.members {
		if n := t.from[tokenOf(m.endpoint)]; n > 0 {
			m.figures.CandidatesIn += n
		}
	}
	h.mu.Unlock()
	r.look()
	return nil
}
