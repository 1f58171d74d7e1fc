package virtual

import (
	"context"
	"strings"
	"sync"

	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/sql/pgsql"
)

// A notification is what NOTIFY sends, and what a changed row sends on its table's channel: "sensors" of
// public.sensors, "plant.sensors" of another schema's.
type notification struct {
	channel, payload string
	pid              uint32
}

// Bounds of notifications.
const (
	mostPayload = 7999 // bytes, as PostgreSQL has it
	mostWaiting = 10_000
)

// hub tells sessions what they listen to.
type hub struct {
	server *server
	mu     sync.Mutex
	on     map[string]map[*session]bool
	cancel context.CancelFunc
	done   chan struct{}
}

// listen enters a session for a channel. Changes are followed from the first one on.
func (h *hub) listen(se *session, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.on == nil {
		h.on = map[string]map[*session]bool{}
	}
	if h.on[channel] == nil {
		h.on[channel] = map[*session]bool{}
	}
	h.on[channel][se] = true
	if h.done == nil {
		ctx, cancel := context.WithCancel(context.Background())
		h.cancel, h.done = cancel, make(chan struct{})
		changes := h.server.link.Follow(ctx, wrappers.Notify, "") // from now on, whenever it is read
		go func() {
			defer close(h.done)
			for c, err := range changes {
				if err != nil {
					if ctx.Err() == nil {
						h.server.log.Warn("changes can't be followed", "err", err)
					}
					return
				}
				if !c.Snapshot {
					h.changed(&c)
				}
			}
		}()
	}
}

// unlisten takes a session out of a channel, "" for all.
func (h *hub) unlisten(se *session, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, on := range h.on {
		if channel != "" && channel != name {
			continue
		}
		if delete(on, se); len(on) == 0 {
			delete(h.on, name)
		}
	}
}

func (h *hub) stop() {
	h.mu.Lock()
	cancel, done := h.cancel, h.done
	h.mu.Unlock()
	if cancel != nil {
		cancel()
		<-done
	}
}

// changed tells of one row.
func (h *hub) changed(c *wrappers.Change) {
	s := h.server.pools.Load().schema
	for _, t := range s.tables {
		if !strings.HasPrefix(c.Address, t.prefix) {
			continue
		}
		channel := t.channel()
		h.mu.Lock()
		wanted := len(h.on[channel]) > 0
		h.mu.Unlock()
		if wanted {
			h.send(notification{channel: channel, payload: t.news(c)}, func(se *session) bool {
				return h.server.link.May(wrappers.Read, "", c.Address, se.who) == nil
			})
		}
		return
	}
}

func (t *table) channel() string {
	if t.Schema == "public" {
		return t.Name
	}
	return t.Schema + "." + t.Name
}

// news is the payload for a changed row: {"op": "put" or "delete", "key": {…}, "row": {…}}; the row is left out where it
// is too long.
func (t *table) news(c *wrappers.Change) string {
	values := make([]pgsql.Value, len(t.Columns))
	t.parseKey(c.Address, values)
	op := "put"
	if c.Gone {
		op = "delete"
	} else if _, err := t.decodeRow(c.Payload.Raw, values); err != nil {
		op = "put"
	}
	object := func(dst []byte, from, to int) []byte {
		dst = append(dst, '{')
		for i := from; i < to; i++ {
			if i > from {
				dst = append(dst, ", "...)
			}
			dst = append(pgsql.AppendJSONString(dst, t.Columns[i].Name), ": "...)
			dst = pgsql.AppendJSON(dst, values[i], t.Columns[i].Type)
		}
		return append(dst, '}')
	}
	b := object([]byte(`{"op": "`+op+`", "key": `), 0, len(t.keys))
	if !c.Gone {
		if with := append(object(append(b[:len(b):len(b)], `, "row": `...), len(t.keys), len(t.Columns)), '}'); len(with) <= mostPayload {
			return string(with)
		}
	}
	return string(append(b, '}'))
}

// send gives a notification to all who listen and may know of it; nil: all may.
func (h *hub) send(n notification, may func(*session) bool) {
	h.mu.Lock()
	to := make([]*session, 0, len(h.on[n.channel]))
	for se := range h.on[n.channel] {
		to = append(to, se)
	}
	h.mu.Unlock()
	for _, se := range to {
		if may == nil || may(se) {
			se.tell(n)
		}
	}
}

// notifyIn notes a NOTIFY.
func (se *session) notifyIn(x *tx, channel, payload string) error {
	switch {
	case channel == "" || len(channel) > 63:
		return pgsql.Errorf("22023", "channel name must have 1 to 63 characters")
	case len(payload) > mostPayload:
		return pgsql.Errorf("22023", "payload string too long")
	}
	return x.tell(notification{channel, payload, se.pid})
}
