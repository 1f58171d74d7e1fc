package http

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spooksystems/gateway/wrappers"
)

const eventStream = "text/event-stream"

// wantsEvents tells whether a request asks for a stream of Server-Sent Events.
func wantsEvents(r *http.Request) bool {
	if r.Method != http.MethodGet {
		return false
	}
	for _, accept := range r.Header.Values("Accept") {
		for part := range strings.SplitSeq(accept, ",") {
			kind, _, _ := strings.Cut(part, ";")
			if strings.EqualFold(strings.TrimSpace(kind), eventStream) {
				return true
			}
		}
	}
	return false
}

// settleFor is how long an event of a prefix waits for more of its own commit, because a client
// that resumes behind an event must have had all of its commit.
const settleFor = 2 * time.Millisecond

// events streams what happens to an address, or below a prefix: the state at first (unless the
// client resumes), then each committed change. An event's id is a cursor, so a client that
// comes back with Last-Event-ID misses nothing. A client that doesn't read loses its stream; the log keeps
// what it missed.
func (v *virtual) events(w http.ResponseWriter, r *http.Request, op wrappers.Operation, prefix bool) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	if !prefix { // below a prefix the client is told what it may read
		if err := v.link.May(wrappers.Read, "", op.Address, op.Who); err != nil {
			v.refuse(w, r, op, err)
			return
		}
	}
	from := wrappers.Cursor(r.Header.Get("Last-Event-ID"))
	changes := v.link.Follow(ctx, wrappers.Notify, from)

	// Following begins before the state is read: what happens in between is in the stream.
	s := &stream{w: w, out: http.NewResponseController(w), prefix: prefix}
	if prefix {
		op.Limit = 1
		if _, err := v.link.Do(ctx, op); err != nil {
			v.refuse(w, r, op, err)
			return
		}
	} else if from == "" {
		res, err := v.link.Do(ctx, op)
		switch {
		case err == nil:
			s.event(&wrappers.Change{Address: op.Address, Payload: res.Payload, Version: res.Version, Snapshot: true, Cursor: res.Cursor})
			if res.Cursor != "" { // what the state holds already need not be told again
				changes = v.link.Follow(ctx, wrappers.Notify, res.Cursor)
			}
		case wrappers.Kind(err) != wrappers.ErrNotFound:
			v.refuse(w, r, op, err)
			return
		}
	}
	h := w.Header()
	h.Set("Content-Type", eventStream)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	w.WriteHeader(http.StatusOK)
	if s.flush() != nil {
		return
	}
	v.link.Count("streams", 1)

	news := make(chan wrappers.Change)
	ended := make(chan error, 1)
	go func() {
		for c, err := range changes {
			if err != nil {
				ended <- err
				return
			}
			if c.Address != op.Address && !(prefix && strings.HasPrefix(c.Address, op.Address)) || v.link.May(wrappers.Read, "", c.Address, op.Who) != nil {
				continue
			}
			select {
			case news <- c:
			case <-ctx.Done():
				return
			}
		}
		ended <- nil
	}()
	beat := time.NewTicker(v.heartbeat)
	defer beat.Stop()
	var held *wrappers.Change // the last of a commit so far, when following a prefix
	var settled <-chan time.Time
	for {
		var err error
		select {
		case c := <-news:
			if held != nil {
				if held.Cursor == c.Cursor {
					held.Cursor = ""
				}
				s.event(held)
			}
			held, settled = nil, nil
			if prefix {
				held, settled = &c, time.After(settleFor)
			} else {
				s.event(&c)
			}
			err = s.flush()
		case <-settled:
			s.event(held)
			held, settled = nil, nil
			err = s.flush()
		case <-beat.C:
			s.buf.WriteString(": alive\n\n")
			err = s.flush()
		case <-ctx.Done():
			return
		case <-v.drain:
			return
		case err := <-ended:
			if err != nil && ctx.Err() == nil {
				v.log().Warn("stream", "address", op.Address, "peer", op.Who.Peer, "err", err)
			}
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				v.link.Count("slow_readers", 1)
			}
			return
		}
	}
}

// stream writes Server-Sent Events.
type stream struct {
	w      http.ResponseWriter
	out    *http.ResponseController
	buf    bytes.Buffer
	prefix bool
}

// A told is an event of a prefix: which address, and what it became.
type told struct {
	Href   string          `json:"href"`
	ETag   string          `json:"etag,omitempty"`
	Gone   bool            `json:"gone,omitempty"`
	Value  json.RawMessage `json:"value,omitempty"`
	Text   *string         `json:"text,omitempty"`
	Base64 []byte          `json:"base64,omitempty"`
}

// event puts a change into the buffer. Without a cursor it has no id.
func (s *stream) event(c *wrappers.Change) {
	if c.Cursor != "" {
		s.buf.WriteString("id: ")
		s.buf.WriteString(string(c.Cursor))
		s.buf.WriteByte('\n')
	}
	data := c.Payload.Raw
	switch {
	case s.prefix:
		t := told{Href: target(c.Address), ETag: etag(c.Version), Gone: c.Gone}
		switch {
		case c.Gone:
		case json.Valid(data):
			t.Value = data
		case utf8.Valid(data):
			text := string(data)
			t.Text = &text
		default:
			t.Base64 = data
		}
		if b, err := json.Marshal(t); err == nil {
			data = b
		}
		if c.Gone {
			s.buf.WriteString("event: gone\n")
		}
	case c.Gone:
		s.buf.WriteString("event: gone\n")
		data = nil
	case !utf8.Valid(data) || bytes.IndexByte(data, '\r') >= 0:
		// A stream is UTF-8 text in which a carriage return would end the line.
		s.buf.WriteString("event: base64\n")
		data = []byte(base64.StdEncoding.EncodeToString(data))
	}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		s.buf.WriteString("data: ")
		s.buf.Write(line)
		s.buf.WriteByte('\n')
	}
	s.buf.WriteByte('\n')
}

// flush sends the buffer, within the time a reader has.
func (s *stream) flush() error {
	if err := s.out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	if _, err := s.w.Write(s.buf.Bytes()); err != nil {
		return err
	}
	s.buf.Reset()
	return s.out.Flush()
}
