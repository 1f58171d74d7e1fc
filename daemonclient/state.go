package daemonclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

var _ engine.State = (*Client)(nil)

// illegible is what an answer that can't be read comes to.
func illegible(method string, err error) error {
	if errors.Is(err, engine.ErrTooLarge) {
		return err
	}
	return fmt.Errorf("%w: answer to %s: %w", engine.ErrUnavailable, method, err)
}

// ReadState implements engine.State.
func (c *Client) ReadState(ctx context.Context, register string) (engine.StateBlock, error) {
	return c.state(ctx, "readState", map[string]any{"register": register})
}

// WriteState implements engine.State. Who wrote is for the daemon to say: of w.By only what the
// daemon can't know (verb, address, source) is kept.
func (c *Client) WriteState(ctx context.Context, w engine.Write) (engine.Receipt, error) {
	params, err := wire.FromWrite(w)
	if err != nil {
		return engine.Receipt{}, err
	}
	return c.receipt(ctx, "writeState", params)
}

// List implements engine.State. It asks for pages as they are wanted, so that a list of any length
// costs little memory; what changes meanwhile may or may not be in it. A register too large for a
// message is yielded without its value, together with an error that is engine.ErrTooLarge.
func (c *Client) List(ctx context.Context, prefix, after string, limit int) iter.Seq2[engine.StateBlock, error] {
	return func(yield func(engine.StateBlock, error) bool) {
		for left := limit; ; {
			page := wire.MaxPage
			if limit > 0 {
				page = min(page, left)
			}
			states, more, err := c.page(ctx, "list", "states", map[string]any{"prefix": prefix, "after": after, "limit": page})
			if err != nil {
				yield(engine.StateBlock{}, err)
				return
			}
			for _, raw := range states {
				b, err := wire.ParseState(raw)
				if err != nil {
					err = illegible("list", err)
				}
				if !yield(b, err) || err != nil && !errors.Is(err, engine.ErrTooLarge) {
					return
				}
				after = b.Register
			}
			left -= len(states)
			if !more || len(states) == 0 || limit > 0 && left <= 0 {
				return
			}
		}
	}
}

// History implements engine.State.
func (c *Client) History(ctx context.Context, q engine.HistoryQuery) iter.Seq2[engine.QDelta, error] {
	return func(yield func(engine.QDelta, error) bool) {
		if q.Limit == 0 {
			q.Limit = 100
		}
		for left := q.Limit; left > 0; {
			deltas, more, err := c.page(ctx, "history", "deltas", map[string]any{
				"register": q.Register, "before": q.Before, "after": q.After, "oldest": q.Oldest, "limit": min(wire.MaxPage, left),
			})
			if err != nil {
				yield(engine.QDelta{}, err)
				return
			}
			for _, raw := range deltas {
				d, err := wire.ParseDelta(raw)
				if err != nil {
					err = illegible("history", err)
				}
				if !yield(d, err) || err != nil && !errors.Is(err, engine.ErrTooLarge) {
					return
				}
				if q.Oldest {
					q.After = d.Cursor.Ordinal
				} else {
					q.Before = d.Cursor.Ordinal
				}
			}
			left -= len(deltas)
			if !more || len(deltas) == 0 {
				return
			}
		}
	}
}

func (c *Client) page(ctx context.Context, method, member string, params any) (items []json.RawMessage, more bool, err error) {
	raw, err := c.call(ctx, method, params, nil)
	if err != nil {
		return nil, false, err
	}
	if err := wire.Members(raw, wire.Member{Name: member, Into: &items}, wire.Member{Name: "more", Into: &more}); err != nil {
		return nil, false, illegible(method, err)
	}
	return items, more, nil
}

// Observe implements engine.State. A delta whose values don't fit into one message is yielded
// without them, together with an error that is engine.ErrTooLarge; the sequence can go on.
func (c *Client) Observe(ctx context.Context, f engine.Filter, from engine.Cursor) iter.Seq2[engine.QDelta, error] {
	return func(yield func(engine.QDelta, error) bool) {
		params := map[string]any{"prefix": f.Prefix, "name": f.Name}
		if from != (engine.Cursor{}) {
			params["from"] = from.String()
		}
		for raw, err := range c.Subscribe(ctx, "observe", "event", params) {
			if err != nil {
				yield(engine.QDelta{}, err)
				return
			}
			var delta json.RawMessage
			if err := wire.Members(raw, wire.Member{Name: "delta", Into: &delta}); err != nil {
				yield(engine.QDelta{}, illegible("observe", err))
				return
			}
			d, err := wire.ParseDelta(delta)
			if err != nil {
				err = illegible("observe", err)
			}
			if !yield(d, err) || err != nil && !errors.Is(err, engine.ErrTooLarge) {
				return
			}
		}
	}
}

// Cursor implements engine.State.
func (c *Client) Cursor(ctx context.Context) (engine.Cursor, error) {
	var out struct{ Cursor string }
	if err := c.Call(ctx, "cursor", nil, &out); err != nil {
		return engine.Cursor{}, err
	}
	cursor, err := engine.ParseCursor(out.Cursor)
	if err != nil {
		return cursor, illegible("cursor", err)
	}
	return cursor, nil
}

// Status implements engine.State.
func (c *Client) Status(ctx context.Context) (engine.Status, error) {
	var out struct {
		Engine wire.EngineStatus `json:"engine"`
	}
	if err := c.Call(ctx, "status", nil, &out); err != nil {
		return engine.Status{}, err
	}
	s, err := wire.ToStatus(out.Engine)
	if err != nil {
		return s, illegible("status", err)
	}
	return s, nil
}
