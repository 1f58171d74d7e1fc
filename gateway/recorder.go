package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/mapping/recording"
	"github.com/spooksystems/gateway/wrappers"
)

// A recorderHub hands operations to whoever records them, whole, payloads included. Like the eventHub it never blocks an
// operation. Nothing is copied while nobody records.
type recorderHub struct {
	mu        sync.Mutex
	recorders atomic.Pointer[[]*recorder] // replaced whole
}

// What may wait for one recorder. Operations beyond it are lost, and counted.
const (
	recorderQueue = 8192
	recorderBytes = 32 << 20
)

// A taken is an operation on its way to a file. It shares no memory with the peer's.
type taken struct {
	op    recording.Operation
	bytes int64
}

type recorder struct {
	queue   chan taken
	waiting atomic.Int64 // bytes in queue
	lost    atomic.Uint64
}

// maxRecorders may record at once: each may hold recorderBytes.
const maxRecorders = 4

// record adds a recorder; stop ends it. Its queue is not closed.
func (h *recorderHub) record() (r *recorder, stop func(), err error) {
	r = &recorder{queue: make(chan taken, recorderQueue)}
	h.change(func(list []*recorder) []*recorder {
		if len(list) >= maxRecorders {
			err = paramError(fmt.Errorf("more than %d record at once", maxRecorders))
			return list
		}
		return append(list, r)
	})
	return r, func() {
		h.change(func(list []*recorder) []*recorder {
			kept := list[:0]
			for _, x := range list {
				if x != r {
					kept = append(kept, x)
				}
			}
			return kept
		})
	}, err
}

func (h *recorderHub) change(f func([]*recorder) []*recorder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var list []*recorder
	if old := h.recorders.Load(); old != nil {
		list = append(list, *old...)
	}
	if list = f(list); len(list) == 0 {
		h.recorders.Store(nil)
		return
	}
	h.recorders.Store(&list)
}

// recording tells whether anybody records.
func (h *recorderHub) recording() bool { return h != nil && h.recorders.Load() != nil }

func (h *recorderHub) emit(op recording.Operation) {
	list := h.recorders.Load()
	if list == nil {
		return
	}
	t := taken{op, sizeOf(&op)}
	for _, r := range *list {
		if r.waiting.Add(t.bytes) > recorderBytes && len(r.queue) > 0 {
			r.waiting.Add(-t.bytes)
			r.lost.Add(1)
			continue
		}
		select {
		case r.queue <- t:
		default:
			r.waiting.Add(-t.bytes)
			r.lost.Add(1)
		}
	}
}

// sizeOf is about what an operation takes in memory.
func sizeOf(o *recording.Operation) int64 {
	n := int64(512 + len(o.Address) + len(o.To))
	for k, v := range o.Meta {
		n += int64(len(k) + len(v) + 64)
	}
	if o.Text != nil {
		n += int64(len(*o.Text))
	}
	if o.Base64 != nil {
		n += int64(len(*o.Base64))
	}
	for i := range o.Parts {
		n += sizeOf(&o.Parts[i])
	}
	return n
}

// Recording implements wrappers.Link.
func (l *link) Recording() bool { return l.recorders.recording() }

// take copies an operation for who records, before its peer has the payload back. Nil: nobody does.
func (l *link) take(k recording.Kind, op *wrappers.Operation) *recording.Operation {
	if !l.recorders.recording() {
		return nil
	}
	o := recording.Of(op)
	o.Time, o.Kind, o.Protocol, o.Wrapper = time.Now(), k, l.info.Protocol.Name, l.name
	own(&o)
	return &o
}

// own gives a record its own maps.
func own(o *recording.Operation) {
	o.Meta = maps.Clone(o.Meta)
	for i := range o.Parts {
		own(&o.Parts[i])
	}
}

// took says what became of a taken operation; registers, where the event of the same operation names them.
func (l *link) took(o *recording.Operation, outcome, source string, registers []string) {
	if o == nil {
		return
	}
	o.Outcome, o.Source, o.Registers = outcome, source, registers
	l.recorders.emit(*o)
}

// callRecord sends operations as they pass, masked, until its caller leaves. The first notification has the header, each
// other one an operation, or a piece of its text where that is too long for a message.
func (g *Gateway) callRecord(_ context.Context, s *session, params json.RawMessage) (any, error) {
	var protocol, wrapper string
	if err := wire.Members(params, wire.Member{Name: "protocol", Into: &protocol}, wire.Member{Name: "wrapper", Into: &wrapper}); err != nil {
		return nil, paramError(err)
	}
	// From now on, and not from when the answer has been read: who has it may rely on it.
	r, stop, err := g.recorders.record()
	if err != nil {
		return nil, err
	}
	sub, err := s.subscribe(params, func(ctx context.Context, sub *openSub) error {
		defer stop()
		head := recording.Header{Format: recording.Format, Version: recording.Version, Began: time.Now().UTC(), Server: "spookgw " + g.options.Version}
		if err := sub.tell(ctx, "record", RecordForm{Sub: sub.ID, Header: &head}, nil); err != nil {
			return err
		}
		told := uint64(0)
		for {
			select {
			case t := <-r.queue:
				r.waiting.Add(-t.bytes)
				if protocol != "" && t.op.Protocol != protocol || wrapper != "" && t.op.Wrapper != wrapper {
					continue
				}
				// What was lost stood behind everything that was in the queue then; said early is better than late.
				lost := r.lost.Load()
				t.op.Lost, told = lost-told, lost
				t.op.Mask()
				if err := tellOperation(ctx, sub, &t.op); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	if err != nil {
		stop()
		return nil, err
	}
	context.AfterFunc(sub.ctx, stop) // also where its answer can't be sent, and it never runs
	return sub, nil
}

// A RecordForm is a notification of `record`: one of Header, Operation and Piece.
type RecordForm struct {
	Sub       int64                `json:"sub"`
	Header    *recording.Header    `json:"header,omitempty"`
	Operation *recording.Operation `json:"operation,omitempty"`
	Piece     string               `json:"piece,omitempty"` // of an operation's JSON
	More      bool                 `json:"more,omitempty"`  // another piece follows
}

// recordPiece is how much of an operation's text one notification carries: escaped anew, each byte may become six.
const recordPiece = wire.MaxMessage/6 - 1<<10

func tellOperation(ctx context.Context, sub *openSub, op *recording.Operation) error {
	text, err := json.Marshal(op)
	if err != nil {
		return err
	}
	if len(text) < wire.MaxMessage-1<<10 {
		return sub.tell(ctx, "record", RecordForm{Sub: sub.ID, Operation: op}, nil)
	}
	for len(text) > 0 {
		n := min(recordPiece, len(text))
		for n < len(text) && !utf8.RuneStart(text[n]) {
			n--
		}
		if err := sub.tell(ctx, "record", RecordForm{Sub: sub.ID, Piece: string(text[:n]), More: n < len(text)}, nil); err != nil {
			return err
		}
		text = text[n:]
	}
	return nil
}
