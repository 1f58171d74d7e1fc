package daemonclient

import (
	"context"
	"encoding/json"
	"errors"
	"iter"

	"github.com/spooksystems/gateway/daemonclient/wire"
	"github.com/spooksystems/gateway/engine"
)

// Pending implements engine.State. It asks for pages as they are wanted; what is settled meanwhile
// may or may not be in it. A candidate too large for a message is yielded without what it would
// change, together with an error that is engine.ErrTooLarge.
func (c *Client) Pending(ctx context.Context, q engine.PendingQuery) iter.Seq2[engine.Pending, error] {
	return func(yield func(engine.Pending, error) bool) {
		if q.Limit <= 0 {
			q.Limit = 100
		}
		var after map[string]string
		for left := q.Limit; left > 0; {
			items, more, err := c.page(ctx, "pending", "pending", map[string]any{"prefix": q.Prefix, "limit": min(wire.MaxPage, left), "after": after})
			if err != nil {
				yield(engine.Pending{}, err)
				return
			}
			for _, raw := range items {
				p, err := wire.ParsePending(raw)
				if err != nil {
					err = illegible("pending", err)
				}
				if !yield(p, err) || err != nil && !errors.Is(err, engine.ErrTooLarge) {
					return
				}
				after = map[string]string{"register": p.Register, "dot": p.Dot.String()}
			}
			left -= len(items)
			if !more || len(items) == 0 {
				return
			}
		}
	}
}

// Collapse implements engine.State. As with WriteState, who settles is for the daemon to say.
func (c *Client) Collapse(ctx context.Context, register string, by engine.Cause) (engine.Receipt, error) {
	return c.receipt(ctx, "collapse", map[string]any{"register": register, "by": wire.FromCause(by)})
}

// Revert implements engine.State. As with WriteState, who reverts is for the daemon to say.
func (c *Client) Revert(ctx context.Context, register string, to engine.Moment, by engine.Cause) (engine.Receipt, error) {
	return c.receipt(ctx, "revert", map[string]any{"register": register, "to": wire.FromMoment(to), "by": wire.FromCause(by)})
}

func (c *Client) receipt(ctx context.Context, method string, params any) (engine.Receipt, error) {
	raw, err := c.call(ctx, method, params, nil)
	if err != nil {
		return engine.Receipt{}, err
	}
	r, err := wire.ParseReceipt(raw)
	if err != nil {
		return r, illegible(method, err)
	}
	return r, nil
}

// StateAt implements engine.State.
func (c *Client) StateAt(ctx context.Context, register string, at engine.Moment) (engine.StateBlock, error) {
	return c.state(ctx, "stateAt", map[string]any{"register": register, "at": wire.FromMoment(at)})
}

func (c *Client) state(ctx context.Context, method string, params any) (engine.StateBlock, error) {
	raw, err := c.call(ctx, method, params, nil)
	if err != nil {
		return engine.StateBlock{}, err
	}
	var state json.RawMessage
	if err := wire.Members(raw, wire.Member{Name: "state", Into: &state}); err != nil {
		return engine.StateBlock{}, illegible(method, err)
	}
	b, err := wire.ParseState(state)
	if err != nil {
		return b, illegible(method, err)
	}
	return b, nil
}

// Explain implements engine.State. One that does not fit into a message comes without its values,
// together with an error that is engine.ErrTooLarge.
func (c *Client) Explain(ctx context.Context, register string) (engine.Explanation, error) {
	x, _, err := c.ExplainTold(ctx, register)
	return x, err
}

// Told says what one wrapper was told of a register last.
type Told = wire.Told

// ExplainTold is Explain together with what only a gateway knows: who was told of the register
// last, by wrapper and address. A server's entry survives a restart of the gateway, that of a
// virtual wrapper's peers does not; a bare engine behind the door tells nothing.
func (c *Client) ExplainTold(ctx context.Context, register string) (engine.Explanation, []Told, error) {
	raw, err := c.call(ctx, "explain", map[string]any{"register": register}, nil)
	if err != nil {
		return engine.Explanation{}, nil, err
	}
	var explanation json.RawMessage
	var told []Told
	if err := wire.Members(raw, wire.Member{Name: "explanation", Into: &explanation}, wire.Member{Name: "told", Into: &told}); err != nil {
		return engine.Explanation{}, nil, illegible("explain", err)
	}
	x, err := wire.ParseExplanation(explanation)
	if err != nil {
		return x, told, illegible("explain", err)
	}
	return x, told, nil
}

// Backup implements engine.State: dir is an absolute path on the daemon's machine, which the
// daemon's user must be able to make.
func (c *Client) Backup(ctx context.Context, dir string) (engine.BackupInfo, error) {
	raw, err := c.call(ctx, "backup", map[string]any{"dir": dir}, nil)
	if err != nil {
		return engine.BackupInfo{}, err
	}
	b, err := wire.ParseBackup(raw)
	if err != nil {
		return b, illegible("backup", err)
	}
	return b, nil
}
